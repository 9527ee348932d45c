"""How many statements the hook adds to a flush, so that nobody adds one unnoticed.

The same flushes as ``tests/benchmarks/posting.py`` measures, at sizes up to a hundred entries: the number of statements
does not grow with the number of entries.
"""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from ledger_sync import LedgerSync
from tests.benchmarks.posting import Desk, prepared, statements_of

ADDED = {
    "invoices": {"sqlite": 2, "postgresql": 3, "mysql": 7},
    "payments": {"sqlite": 5, "postgresql": 7, "mysql": 12},
    "vendors": {"sqlite": 0, "postgresql": 0, "mysql": 0},
    "elsewhere": {"sqlite": 0, "postgresql": 0, "mysql": 0},
}
"""By what is flushed and where."""


@pytest.mark.parametrize("what", ADDED)
def test_a_flush_sends_so_many_statements_more(engine: Engine, what: str) -> None:
    sync = LedgerSync()
    bare, hook = Desk(engine, "bare", sync), Desk(engine, "hook", sync)
    prepared(hook, what, 1)()  # savepoints and locks of a connection's first use
    added = ADDED[what][engine.dialect.name]
    for entries in (1, 10, 100):
        without = statements_of(engine, prepared(bare, what, entries))
        assert statements_of(engine, prepared(hook, what, entries)) - without == added, entries
