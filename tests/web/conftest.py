"""The places that the web tests work on."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync
from tests.web.places import SMALL, Place, fill


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Place:
    """Two tenants' history, on each database."""
    engine: Engine = request.getfixturevalue(f"{request.param}_engine")
    place = Place(engine, LedgerSync(SMALL), sessionmaker(engine))
    fill(place, "acme")
    fill(place, "beta")
    return place
