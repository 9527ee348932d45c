"""The OpenAPI document is true: generated requests get documented answers of the documented shape, and no 500."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.contrib.web import create_app
from tests.budget import examples
from tests.conftest import make_sqlite
from tests.web.places import SMALL, Place, authenticate, fill, listening

schema = schemathesis.openapi.from_dict(create_app(LedgerSync(), None, authenticate).openapi)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("openapi")
    engine = make_sqlite(folder / "books.db")
    place = Place(engine, LedgerSync(SMALL), sessionmaker(engine))
    fill(place, "acme")
    place.sync.backfill(place.factory, tenant_id="acme")
    with listening(place.app()) as served:
        yield f"{served}/api/ledger"
    engine.dispose()


@schema.parametrize()
@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_documented_and_none_is_an_error_of_ours(case: schemathesis.Case, address: str) -> None:
    response = case.call(base_url=address, headers={"Authorization": "Bearer token-to-settle"})
    case.validate_response(
        response,
        checks=(
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ),
    )
