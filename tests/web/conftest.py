"""The places that the web tests work on."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync
from tests.web.places import SMALL, Place, fill


@pytest.fixture
def place(sqlite_engine: Engine) -> Place:
    """Two tenants' history on SQLite."""
    place = Place(sqlite_engine, LedgerSync(SMALL), sessionmaker(sqlite_engine))
    fill(place, "acme")
    fill(place, "beta")
    return place
