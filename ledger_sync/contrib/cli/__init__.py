"""The command line, ``ledger-sync`` (extra ``cli``).

Each command takes ``--db URL`` and ``--json`` and ends with status 0, 1 (differences found) or 2 (usage or
failure). ``commands``, ``running`` and ``reading`` call the public face, ``queueing`` opens a job queue, ``show``
prints what comes back, ``page`` makes a web page of a proof, ``demo`` has the fictional company.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line: what the console script calls."""
    try:
        import babel  # noqa: F401
        import jinja2  # noqa: F401

        from ledger_sync.contrib.cli import reading, running  # noqa: F401 - register their commands
        from ledger_sync.contrib.cli.commands import run
    except ImportError as error:
        if error.name not in {"typer", "rich", "jinja2", "babel"}:
            raise
        sys.stderr.write(f"ledger-sync needs {error.name}: pip install 'ledger-sync[cli]'\n")
        sys.exit(2)
    sys.exit(run())
