"""SQLAlchemy-Continuum on the same models and the same sessions: it has its versions, and the books are in sync.

It listens to every mapper and engine of the process, so the host with it (``tests/hosts/versioned.py``) lives in worker
processes, one for each order of the listeners.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.conftest import database_of_its_own, schema_of_its_own

pytestmark = pytest.mark.skipif(find_spec("sqlalchemy_continuum") is None, reason="SQLAlchemy-Continuum is missing")

After = Callable[[str], Any]

HOST = "tests.hosts.versioned"
LINES = [("insert", Decimal(100)), ("insert", Decimal(0))]
POSTED = {
    "rows": [("1", Decimal(100), Decimal(100))],
    # rows are written by one statement for all of a flush, which Continuum does not see
    "versions": {"Entry": [("insert", "1")], "Line": LINES, "Invoice": [("insert", "1")], "Item": []},
    "told": [],
}


def _begin(first: str) -> None:
    import_module(HOST).begin(first)


def _after(name: str, url: str, options: dict[str, Any]) -> Any:
    host = import_module(HOST)
    return host.after(getattr(host, name), url, options)


@pytest.fixture(scope="module", params=["sync", "continuum"])
def worker(request: pytest.FixtureRequest) -> Iterator[ProcessPoolExecutor]:
    """A process with the host, the listeners of the one or the other coming first."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin, initargs=(request.param,)) as pool:
        yield pool


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def after(request: pytest.FixtureRequest, worker: ProcessPoolExecutor, tmp_path: Path) -> Iterator[After]:
    """What is in a new database after something was done to the books, by its name."""
    if request.param == "sqlite":
        yield lambda name: worker.submit(_after, name, f"sqlite:///{tmp_path / 'books.db'}", {}).result()
        return
    url = request.getfixturevalue(f"{request.param}_url")
    of_its_own: Any = schema_of_its_own if request.param == "postgresql" else database_of_its_own
    with of_its_own(url) as engine:
        options = {}
        if request.param == "postgresql":
            with engine.connect() as connection:
                options = {"options": f"-csearch_path={connection.scalar(text('SELECT current_schema()'))}"}
        url = engine.url.render_as_string(hide_password=False)
        yield lambda name: worker.submit(_after, name, url, options).result()


def test_a_posting_has_its_versions_and_its_row(after: After) -> None:
    assert after("nothing") == POSTED


def test_an_edit_has_its_versions_and_the_row_follows(after: After) -> None:
    seen = after("edit")
    assert seen["rows"] == [("1b", 70, 70)]
    assert seen["versions"]["Entry"] == [("insert", "1")]
    assert seen["versions"]["Line"] == [*LINES, ("update", Decimal(70)), ("update", Decimal(0))]
    assert seen["versions"]["Invoice"] == [("insert", "1"), ("update", "1b")]
    assert seen["told"] == ["item-changed"]


def test_a_deletion_has_its_versions_and_takes_the_row_along(after: After) -> None:
    seen = after("delete")
    assert seen["rows"] == []
    operations = {name: [operation for operation, _ in found] for name, found in seen["versions"].items()}
    assert operations == {
        "Entry": ["insert", "delete"],
        "Line": ["insert", "insert", "delete", "delete"],
        "Invoice": ["insert", "delete"],
        "Item": [],
    }
    assert seen["told"] == ["item-removed"]


def test_a_rollback_leaves_neither_versions_nor_rows_nor_signals(after: After) -> None:
    assert after("rollback") == POSTED


def test_savepoints_keep_or_lose_versions_and_rows_together(after: After) -> None:
    seen = after("savepoint")
    assert seen["rows"] == [("1", 100, 100), ("2", 100, 100)]
    assert seen["versions"]["Entry"] == [("insert", "1"), ("insert", "2")]
    assert seen["told"] == ["item-created"]


def test_a_backfill_through_versioned_sessions_makes_rows_and_no_versions(after: After) -> None:
    seen = after("backfill")
    assert seen["rows"] == [("1", 100, 100), ("2", 100, 100)]
    assert seen["versions"]["Item"] == []
    assert seen["versions"]["Entry"] == [("insert", "1"), ("insert", "2")]
