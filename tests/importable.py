"""A session factory that worker processes can import; the database is named by LEDGER_SYNC_TEST_BOOKS."""

from __future__ import annotations

import os
from functools import cache

from sqlalchemy.orm import Session, sessionmaker

from ledger_sync.dialects import open_engine


@cache
def _sessions(books: str) -> sessionmaker[Session]:
    return sessionmaker(open_engine(books))


def factory() -> Session:
    """A new session."""
    return _sessions(os.environ["LEDGER_SYNC_TEST_BOOKS"])()
