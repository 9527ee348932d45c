"""The application in a process of its own, which a test may kill: ``python -m tests.web.serving FILE PORT TOKEN``."""

from __future__ import annotations

import sys

from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync, Settings
from ledger_sync.contrib.web.alone import app_alone, serve
from ledger_sync.dialects import open_engine


def main(file: str, port: str, token: str) -> None:
    """Serve the books in a file, in small batches, whose worker counts as dead after two seconds."""
    sync = LedgerSync(Settings(batch_lines_max=100, lease_seconds=2, nice_ratio=2.0))
    app = app_alone(sync, sessionmaker(open_engine(f"sqlite:///{file}")), token, "kari")
    serve(app, int(port), lambda address: print(address, flush=True))  # noqa: T201 - the test waits for it


if __name__ == "__main__":
    main(*sys.argv[1:])
