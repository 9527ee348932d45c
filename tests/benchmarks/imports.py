"""What importing the library costs beyond what it stands on.

Sizes are rounds: so many fresh interpreters import it, and so many import SQLAlchemy's ORM, pydantic and blinker.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Final

from sqlalchemy import Engine

from tests.benchmarks.figures import Figure, in_turns, medians, ready

SIZES: Final = (15,)
ON_DATABASES: Final = False

STATEMENTS: Final = {
    "ledger_sync": "import ledger_sync",
    # pydantic's own classes are imported when they are asked for
    "sqlalchemy, pydantic and blinker": "import sqlalchemy.orm, pydantic.main, blinker",
}


def interpret(statement: str) -> None:
    """A fresh interpreter does that, and ends."""
    subprocess.run([sys.executable, "-c", statement], check=True)


def measure(engine: Engine, size: int) -> list[Figure]:
    """Both in turns."""
    ways = {name: ready(partial(interpret, statement)) for name, statement in STATEMENTS.items()}
    times = medians(in_turns(ways, size))
    ours, theirs = STATEMENTS
    return [Figure("imports", "none", size, ours, theirs, times[ours], times[theirs], size)]
