"""Who started a run, as the list of runs names them: with a mark of where its work is done.

By the mark a console, and a queue's watch, know whether a run whose workers have died is theirs to go on with.
"""

from __future__ import annotations

from typing import Final

from ledger_sync import RunReport

BY_CONSOLE: Final = " (console)"
"""The work is done by the web process, and by any other one of the console's."""

BY_QUEUE: Final = " (queue)"
"""The work is done by a job queue's workers."""

ACTOR_MAX: Final = 100
"""Characters that a run's row has for it."""


def marked(name: str, mark: str) -> str:
    """A name with its mark, as long as a row allows."""
    return f"{name[: ACTOR_MAX - len(mark)]}{mark}"


def has_mark(run: RunReport, mark: str) -> bool:
    """Whether a run is one of those."""
    return (run.actor or "").endswith(mark)
