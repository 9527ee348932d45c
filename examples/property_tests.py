"""A host's own property tests: whatever happens in its books, they are in sync.

Hypothesis draws histories that the host's classes can hold (postings, payments, credit notes, reversals, edits,
rollbacks), `Books.play` lets them happen through its models and sessions, and `assert_in_sync` takes the proof. In a
project of yours it is a test that pytest finds; here it is called. With Hypothesis installed, run it with
`python examples/property_tests.py`; what it prints is in `property_tests.txt` beside it.
"""

from __future__ import annotations

import sys

from hypothesis import given, settings
from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.dialects import open_engine
from ledger_sync.models import Base
from ledger_sync.testing import Books, History, assert_in_sync, histories

engine = open_engine("sqlite://")
factory = sessionmaker(engine)
sync = LedgerSync()
sync.attach(factory)
played: list[History] = []


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(history=histories(sync))
def test_whatever_happens_the_books_are_in_sync(history: History) -> None:
    """Each history in a transaction that is rolled back in the end."""
    with factory() as session:
        Books(sync, session, "acme").play(history)
        assert_in_sync(session, sync)
    played.append(history)


def main() -> None:
    Base.metadata.create_all(engine)
    test_whatever_happens_the_books_are_in_sync()
    sys.stdout.write(f"{len(played)} histories: in sync\n")
    engine.dispose()


if __name__ == "__main__":
    main()
