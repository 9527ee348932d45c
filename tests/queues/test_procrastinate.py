"""Runs on procrastinate: the queue is in PostgreSQL itself, and its workers are killed at random moments.

The moments come from a printed seed. LEDGER_SYNC_TEST_KILLS sets how many kills there are (25 unless given, 2 where a
check must be quick).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import procrastinate
import pytest
from procrastinate.testing import InMemoryConnector
from sqlalchemy import Engine, text
from sqlalchemy.orm import sessionmaker

from ledger_sync import ALL_TENANTS, ConfigurationError, LedgerSync
from ledger_sync.contrib import procrastinate as on_procrastinate
from ledger_sync.contrib.queues import QueueUnreachableError, Schedule
from ledger_sync.dialects import open_engine
from ledger_sync.models import Base
from tests.conftest import embedded_server, schema_of_its_own
from tests.outcomes import by_one_process, counts, fill, written
from tests.queues.nursery import environment, shift
from tests.queues.places import SMALL, Site
from tests.test_backfill import Factory


def app_on(engine: Engine) -> procrastinate.App:
    """An application whose queue is in an engine's database and schema."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with engine.connect() as connection:
        schema = connection.scalar(text("SELECT current_schema()"))
    connector = procrastinate.SyncPsycopgConnector(conninfo=url, kwargs={"options": f"-csearch_path={schema}"})
    return procrastinate.App(connector=connector)


@pytest.fixture
def engine(postgresql_url: str) -> Iterator[Engine]:
    """Books on PostgreSQL with the tables of procrastinate beside them."""
    with schema_of_its_own(postgresql_url) as made:
        fill(sessionmaker(made), "acme", 40)
        fill(sessionmaker(made), "warm", 2)
        with app_on(made).open() as app:
            app.schema_manager.apply_schema()
        yield made


@pytest.fixture
def factory(engine: Engine) -> Factory:
    return sessionmaker(engine)


@pytest.fixture
def app(engine: Engine) -> Iterator[procrastinate.App]:
    with app_on(engine).open() as opened:
        yield opened


def waiting(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        query = "SELECT task_name, args FROM procrastinate_jobs WHERE status = 'todo' ORDER BY id"
        return [tuple(row) for row in connection.execute(text(query))]


# -- in memory -------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def bare(request: pytest.FixtureRequest) -> Factory:
    """A session factory without a hook, and history."""
    made = sessionmaker(request.getfixturevalue(f"{request.param}_engine"))
    fill(made, "acme", 12)
    return made


def test_a_worker_in_memory_does_what_one_process_does(bare: Factory) -> None:
    sync = LedgerSync(SMALL)
    expected = by_one_process(sync, bare)
    app = procrastinate.App(connector=InMemoryConnector())
    # one chain: in memory a message that is to come later does not end a worker that may end when there is none
    queue = on_procrastinate.register(app, sync, bare, schedule=Schedule(slice_seconds=0.001, workers=1))
    with app.open():
        run_id = queue.start(tenant_id="acme")
        for _ in range(500):
            app.run_worker(wait=False, install_signal_handlers=False, listen_notify=False)
            with bare() as session:
                if (report := sync.report(session, run_id)).state != "running":
                    break
        assert (counts(report), written(bare)) == expected


def test_the_tasks_and_their_times_are_in_the_application() -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    schedule = Schedule(queue="books", watch_seconds=20, sync_cron="*/10 * * * *", verify_cron=None)
    on_procrastinate.register(app, LedgerSync(), lambda: None, schedule=schedule)  # type: ignore[arg-type,return-value]
    ours = {name: task for name, task in app.tasks.items() if name.startswith("ledger_sync.")}
    assert {name.removeprefix("ledger_sync.") for name in ours} == {"start", "advance", "verify", "watch", "sync_all"}
    assert {task.queue for task in ours.values()} == {"books"}
    times = {task.task.name: task.cron for task in app.periodic_registry.periodic_tasks.values()}
    assert times["ledger_sync.watch"] == "* * * * * */20"
    assert times["ledger_sync.sync_all"] == "*/10 * * * *"


# -- on PostgreSQL ---------------------------------------------------------------------------------------


def test_a_start_goes_along_in_the_hosts_transaction(app: procrastinate.App, engine: Engine, factory: Factory) -> None:
    queue = on_procrastinate.register(app, LedgerSync(SMALL), factory)
    with factory() as session:
        queue.start_later(session, tenant_id="acme", since=date(2026, 1, 3), ledgers=["supplier"], actor="kari")
        assert waiting(engine) == []
        session.rollback()
        assert waiting(engine) == []
        queue.start_later(session, tenant_id="acme", since=date(2026, 1, 3), ledgers=["supplier"], actor="kari")
        queue.start_later(session, tenant_id=ALL_TENANTS)
        session.commit()
    (name, arguments), (_, everybody) = waiting(engine)
    assert name == "ledger_sync.start"
    assert arguments == {
        "tenant": "acme",
        "everybody": False,
        "since": "2026-01-03",
        "until": None,
        "ledgers": ["supplier"],
        "actor": "kari",
    }
    assert (everybody["tenant"], everybody["everybody"]) == (None, True)


def test_another_drivers_session_is_refused_with_the_remedy(app: procrastinate.App, sqlite_engine: Engine) -> None:
    queue = on_procrastinate.register(app, LedgerSync(SMALL), sessionmaker(sqlite_engine))
    with sessionmaker(sqlite_engine)() as session, pytest.raises(ConfigurationError, match="psycopg 3"):
        queue.start_later(session, tenant_id="acme")


def test_of_the_messages_of_a_chain_one_waits(app: procrastinate.App, engine: Engine, factory: Factory) -> None:
    queue = on_procrastinate.register(app, LedgerSync(SMALL), factory, schedule=Schedule(workers=3))
    run_id = queue.start(tenant_id="acme")
    queue.wake(run_id)
    queue.watch()
    assert [arguments["slot"] for _, arguments in waiting(engine)] == [0, 1, 2]


def test_a_queue_without_its_tables_is_named(postgresql_url: str) -> None:
    with schema_of_its_own(postgresql_url) as bare, app_on(bare).open() as app:
        queue = on_procrastinate.register(app, LedgerSync(SMALL), sessionmaker(bare))
        with pytest.raises(QueueUnreachableError, match="apply its schema"):
            queue.start(tenant_id="acme")


def test_workers_killed_at_random_moments_finish_by_themselves_and_exactly(
    app: procrastinate.App, engine: Engine, factory: Factory, tmp_path: Path
) -> None:
    sync = LedgerSync(SMALL)
    queue = on_procrastinate.register(app, sync, factory)
    with shift(environment(engine, tmp_path, lease=0.5, slice=0.05)) as working:
        Site(factory, sync, queue, working).killed_at_random("procrastinate")


def test_a_postgresql_that_is_stopped_at_once_in_mid_run_is_outlived(tmp_path: Path) -> None:
    """The books and the queue go down together, and the workers with them or not; new ones finish the run."""
    folder = Path(tempfile.mkdtemp(prefix="ledger_sync_queue_"))
    with embedded_server(folder / "data") as server:
        engine = open_engine(server.url)
        Base.metadata.create_all(engine)
        factory, sync = sessionmaker(engine), LedgerSync(SMALL)
        fill(factory, "acme", 40)
        fill(factory, "warm", 2)
        with app_on(engine).open() as app:
            app.schema_manager.apply_schema()
            queue = on_procrastinate.register(app, sync, factory)
            with shift(environment(engine, tmp_path, lease=1, slice=0.02)) as working:
                site = Site(factory, sync, queue, working)
                expected = site.expected()
                worker = working.start("procrastinate")
                run_id = queue.start(tenant_id="acme")
                site.begun(run_id)
                server.stop_at_once()
                server.start()
                engine.dispose()  # what the pool holds are connections to the server that was
                assert site.report(run_id).state == "running", "it was over too soon"
                working.kill(worker)  # or it has ended by itself
                working.start("procrastinate")
                assert site.outcome(run_id) == expected
        engine.dispose()
    shutil.rmtree(folder, ignore_errors=True)
