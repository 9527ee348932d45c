"""Workers killed with SIGKILL at random moments: what others then finish is what nobody would have interrupted.

So it is when the database server itself is stopped at once and started again. The moments come from a printed seed.
LEDGER_SYNC_TEST_KILLS sets how many kills there are: 25 unless given, 8 where a check must be quick, 500 in the long
profile; of immediate stops there are 5, 1 and 50.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.dialects import open_engine
from ledger_sync.models import (
    Base,
)
from tests.budget import at_length
from tests.conftest import database_of_its_own, embedded_server, make_sqlite, schema_of_its_own
from tests.killable import SETTINGS, Nursery
from tests.oracle import assert_synced
from tests.outcomes import counts, fill, wiped, written
from tests.test_backfill import Factory

KILLS = int(os.environ.get("LEDGER_SYNC_TEST_KILLS", at_length(25, 500, 8)))
STOPS = at_length(5, 50, 1)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Engine, Nursery]]:
    """A database with books, and a nursery of workers on it."""
    if request.param == "sqlite":
        engine = make_sqlite(tmp_path / "killed.db")
        fill(sessionmaker(engine), "acme", 40)
        fill(sessionmaker(engine), "warm", 2)
        with Nursery.of_workers(f"sqlite:///{tmp_path / 'killed.db'}", "") as nursery:
            yield engine, nursery
        engine.dispose()
        return
    if request.param == "mariadb":
        with database_of_its_own(request.getfixturevalue("mariadb_url")) as engine:
            fill(sessionmaker(engine), "acme", 40)
            fill(sessionmaker(engine), "warm", 2)
            with Nursery.of_workers(engine.url.render_as_string(hide_password=False), "") as nursery:
                yield engine, nursery
        return
    url = request.getfixturevalue("postgresql_url")
    with schema_of_its_own(url) as engine:
        fill(sessionmaker(engine), "acme", 40)
        fill(sessionmaker(engine), "warm", 2)
        with engine.connect() as connection:
            schema = connection.scalar(text("SELECT current_schema()"))
        with Nursery.of_workers(url, schema) as nursery:
            yield engine, nursery


def uninterrupted(factory: Factory) -> tuple[Any, dict[str, list[Any]], float]:
    sync = LedgerSync(SETTINGS)
    sync.backfill(factory, tenant_id="acme")  # builds the statements, as the nursery has done
    wiped(factory)
    began = time.monotonic()
    report = sync.backfill(factory, tenant_id="acme")
    seconds = time.monotonic() - began
    assert report.clean
    assert report.applied > 10
    with factory() as session:
        assert_synced(session.connection())
    return counts(report), written(factory), seconds


def test_a_worker_killed_at_any_moment_loses_and_doubles_nothing(place: tuple[Engine, Nursery]) -> None:
    engine, nursery = place
    factory, sync = sessionmaker(engine), LedgerSync(SETTINGS)
    expected_counts, expected_rows, seconds = uninterrupted(factory)
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    moments = random.Random(seed)
    in_the_middle = 0
    wiped(factory)
    run_id, began = sync.start(factory, tenant_id="acme"), time.monotonic()
    nursery.ended(nursery.worker("resume", run_id))
    seconds = max(seconds, time.monotonic() - began)  # a process of its own takes longer
    kills = 0
    while kills < KILLS or (not in_the_middle and kills < 10 * KILLS):
        kills += 1
        wiped(factory)
        run_id = sync.start(factory, tenant_id="acme")
        worker = nursery.worker("resume", run_id)
        time.sleep(moments.uniform(0, seconds))
        os.kill(worker, signal.SIGKILL)
        nursery.ended(worker)
        with factory() as session:
            in_the_middle += 0 < sync.progress(session, run_id).synced < expected_counts[2][1]["processed"]
        report = sync.resume(factory, run_id)
        assert counts(report) == expected_counts
        assert written(factory) == expected_rows
    assert in_the_middle, "no kill met a worker at work"


def test_of_two_workers_one_killed_the_other_finishes_the_run(place: tuple[Engine, Nursery]) -> None:
    engine, nursery = place
    factory, sync = sessionmaker(engine), LedgerSync(SETTINGS)
    expected_counts, expected_rows, seconds = uninterrupted(factory)
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    moments = random.Random(seed)
    for _ in range(max(1, KILLS // 5)):
        wiped(factory)
        run_id = sync.start(factory, tenant_id="acme")
        workers = [nursery.worker("advance", run_id), nursery.worker("advance", run_id)]
        time.sleep(moments.uniform(0, seconds / 2))
        os.kill(workers[0], signal.SIGKILL)
        nursery.ended(workers[0])
        assert nursery.ended(workers[1]) == 0
        with factory() as session:
            (report, *_) = sync.runs(session, "acme")
        assert counts(report) == expected_counts
        assert written(factory) == expected_rows


# -- the server ------------------------------------------------------------------------------------------


def test_a_server_stopped_at_once_loses_and_doubles_nothing() -> None:
    """On a PostgreSQL of the test's own: the run outlives the outage, or is resumed after it."""
    folder = Path(tempfile.mkdtemp(prefix="ledger_sync_stopped_"))
    with embedded_server(folder / "data") as server:
        engine = open_engine(server.url)
        Base.metadata.create_all(engine)
        factory, sync = sessionmaker(engine), LedgerSync(SETTINGS)
        fill(factory, "acme", 40)
        expected_counts, expected_rows, seconds = uninterrupted(factory)
        seed = random.randrange(10**6)
        print(f"seed {seed}")  # noqa: T201
        moments = random.Random(seed)
        outlived = 0
        with ThreadPoolExecutor(1) as pool:
            for _ in range(STOPS):
                wiped(factory)
                run_id = sync.start(factory, tenant_id="acme")
                resumed = pool.submit(sync.resume, factory, run_id)
                time.sleep(moments.uniform(0, seconds))
                server.stop_at_once()
                server.start()
                try:
                    report = resumed.result()
                    outlived += 1
                except DBAPIError:
                    report = sync.resume(factory, run_id)
                engine.dispose()  # what the pool holds may be connections to the server that was
                assert counts(report) == expected_counts
                assert written(factory) == expected_rows
        print(f"{outlived} of {STOPS} outlived the stop")  # noqa: T201
        engine.dispose()
    shutil.rmtree(folder, ignore_errors=True)
