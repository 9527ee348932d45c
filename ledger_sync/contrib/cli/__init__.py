"""The command line, ``ledger-sync`` (extra ``cli``).

Each command takes ``--db URL`` and ``--json`` and ends with status 0, 1 (differences found) or 2 (usage or
failure). ``commands`` calls the public face, ``show`` prints what it returns, ``demo`` has the fictional company.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line: what the console script calls."""
    try:
        from ledger_sync.contrib.cli.commands import run
    except ImportError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.stderr.write("ledger-sync needs typer and rich: pip install 'ledger-sync[cli]'\n")
        sys.exit(2)
    sys.exit(run())
