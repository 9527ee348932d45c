"""Runs on Celery: in memory everywhere, and where there is a Redis with workers that are killed at random moments.

The moments come from a printed seed. LEDGER_SYNC_TEST_KILLS sets how many kills there are (25 unless given, 2 where a
check must be quick).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.schedules import crontab
from celery.signals import setup_logging
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync, RunReport
from ledger_sync.contrib import celery as on_celery
from ledger_sync.contrib.queues import QueueUnreachableError, Schedule
from tests.conftest import embedded_server, schema_of_its_own
from tests.outcomes import by_one_process, counts, fill, written
from tests.queues.nursery import environment, shift
from tests.queues.places import SMALL, Site, until
from tests.test_backfill import Factory

TASKS = ("start", "advance", "watch", "sync_all", "verify_all", "verify")


# -- in memory -------------------------------------------------------------------------------------------


@pytest.fixture
def app() -> Iterator[Celery]:
    """An application whose workers leave the log of this process as it is."""

    def left_alone(**_: Any) -> None: ...

    setup_logging.connect(left_alone)
    yield Celery("erp", broker="memory://", set_as_current=False)
    setup_logging.disconnect(left_alone)


@pytest.fixture(params=["sqlite", "postgresql"])
def bare(request: pytest.FixtureRequest) -> Factory:
    """A session factory without a hook, and history."""
    made = sessionmaker(request.getfixturevalue(f"{request.param}_engine"))
    fill(made, "acme", 12)
    return made


def test_the_tasks_are_in_the_application_with_late_acks_and_no_results(app: Celery) -> None:
    on_celery.register(app, LedgerSync(), lambda: None, schedule=Schedule(queue="books"))  # type: ignore[arg-type,return-value]
    tasks = {name: app.tasks[f"ledger_sync.{name}"] for name in TASKS}
    assert {(task.acks_late, task.ignore_result) for task in tasks.values()} == {(True, True)}
    assert all(task.reject_on_worker_lost for task in tasks.values())  # or a pool's child takes its message along
    queues = {app.amqp.router.route({}, task.name)["queue"].name for task in tasks.values()}
    assert queues == {"books"}
    assert app.amqp.router.route({}, "host.task")["queue"].name == "celery"
    other = Celery("other", broker="memory://", set_as_current=False)
    assert not set(TASKS) & {name.removeprefix("ledger_sync.") for name in other.tasks}  # in this one alone
    assert all(task.__doc__ for task in tasks.values())


def test_beat_has_the_watch_the_sync_and_the_proof_beside_what_the_host_has(app: Celery) -> None:
    app.conf.beat_schedule = {"host": {"task": "host.task", "schedule": 5.0}}
    schedule = Schedule(sync_cron="*/10 * * * *", verify_cron="30 2 * * *", watch_seconds=20)
    on_celery.register(app, LedgerSync(), lambda: None, schedule=schedule)  # type: ignore[arg-type,return-value]
    beat = app.conf.beat_schedule
    assert set(beat) == {"host", "ledger_sync.watch", "ledger_sync.sync_all", "ledger_sync.verify_all"}
    assert beat["ledger_sync.watch"]["schedule"] == 20.0
    assert beat["ledger_sync.watch"]["options"] == {"queue": "ledger_sync", "expires": 20.0}
    assert beat["ledger_sync.sync_all"]["schedule"] == crontab(minute="*/10")
    assert beat["ledger_sync.verify_all"]["schedule"] == crontab(minute="30", hour="2")
    other = Celery("other", broker="memory://", set_as_current=False)
    never = Schedule(sync_cron=None, verify_cron=None)
    on_celery.register(other, LedgerSync(), lambda: None, schedule=never)  # type: ignore[arg-type,return-value]
    assert set(other.conf.beat_schedule) == {"ledger_sync.watch"}


def report_of(sync: LedgerSync, factory: Factory, run_id: int) -> RunReport:
    with factory() as session:
        return sync.report(session, run_id)


def test_a_worker_in_memory_does_what_one_process_does(app: Celery, bare: Factory) -> None:
    sync = LedgerSync(SMALL)
    expected = by_one_process(sync, bare)
    schedule = Schedule(queue="celery", slice_seconds=0.001, workers=2)
    queue = on_celery.register(app, sync, bare, schedule=schedule)
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
        run_id = queue.start(tenant_id="acme")
        until(lambda: report_of(sync, bare, run_id).state == "completed", "the run")
    assert (counts(report_of(sync, bare, run_id)), written(bare)) == expected


def test_a_broker_that_is_not_there_is_named_without_its_password(bare: Factory) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    app = Celery("erp", broker=f"redis://:secret-word@127.0.0.1:{port}/0", set_as_current=False)
    sync = LedgerSync()
    queue = on_celery.register(app, sync, bare)
    with pytest.raises(
        QueueUnreachableError, match=rf"Celery at redis://.*127\.0\.0\.1:{port}.*Nothing was started"
    ) as told:
        queue.start(tenant_id="acme")
    assert "secret-word" not in str(told.value)
    with bare() as session:
        assert sync.runs(session, "acme") == ()


# -- on Redis --------------------------------------------------------------------------------------------


class OwnRedis:
    """A Redis server of a test's own, on a free port, which keeps nothing on disk."""

    def __init__(self, program: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        with Redis(port=self.port) as client:
            until(lambda: _answers(client), "Redis", 30)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


@pytest.fixture
def redis_url() -> Iterator[str]:
    """An address on the Redis server of the tests with a key space of its own, for one test at a time."""
    url = os.environ.get("LEDGER_SYNC_TEST_REDIS_URL", "")
    if not url:
        pytest.skip("LEDGER_SYNC_TEST_REDIS_URL names no Redis server")
    # the last but one database or the one before, by worker process, so that tests run side by side
    number = 14 - int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8
    with Redis.from_url(url, db=number) as client:
        if not _answers(client):
            pytest.skip("no Redis server answers at LEDGER_SYNC_TEST_REDIS_URL")
        client.flushdb()
        yield f"{url.rpartition('/')[0]}/{number}"
        client.flushdb()


def at_site(url: str, broker: str, folder: Path, **more: Any) -> Iterator[Site]:
    with schema_of_its_own(url) as engine:
        factory, sync = sessionmaker(engine), LedgerSync(SMALL)
        fill(factory, "acme", 40)
        fill(factory, "warm", 2)
        app = Celery("erp", broker=broker, set_as_current=False)
        queue = on_celery.register(app, sync, factory, schedule=Schedule(workers=2))
        with shift(environment(engine, folder, broker, **more)) as working:
            yield Site(factory, sync, queue, working)


@pytest.fixture
def site(postgresql_url: str, redis_url: str, tmp_path: Path) -> Iterator[Site]:
    yield from at_site(postgresql_url, redis_url, tmp_path, lease=0.5, slice=0.05)


def test_workers_killed_at_random_moments_finish_by_themselves_and_exactly(site: Site, tmp_path: Path) -> None:
    site.working.start("beat", tmp_path / "beat")
    site.killed_at_random("celery")


def test_a_redis_that_is_killed_in_mid_run_is_outlived(postgresql_url: str, tmp_path: Path) -> None:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server to start and kill")
    server = OwnRedis(program, tmp_path)
    try:
        for site in at_site(postgresql_url, server.url, tmp_path, lease=1, slice=0.02):
            expected = site.expected()
            site.working.start("beat", tmp_path / "beat")
            for _ in range(2):
                site.working.start("celery")
            run_id = site.queue.start(tenant_id="acme")
            site.begun(run_id)
            server.kill()
            assert site.report(run_id).state == "running", "it was over too soon"
            with pytest.raises(QueueUnreachableError):
                site.queue.start(tenant_id="warm")
            server.start()  # and all messages are gone
            assert site.outcome(run_id) == expected
    finally:
        server.kill()


def test_a_postgresql_that_is_stopped_at_once_in_mid_run_is_outlived(redis_url: str, tmp_path: Path) -> None:
    """Celery's workers stay; what they had not committed is done again when the server is back."""
    folder = Path(tempfile.mkdtemp(prefix="ledger_sync_celery_"))
    with embedded_server(folder / "data") as server:
        for site in at_site(server.url, redis_url, tmp_path, lease=1, slice=0.02):
            expected = site.expected()
            site.working.start("beat", tmp_path / "beat")
            site.working.start("celery")
            run_id = site.queue.start(tenant_id="acme")
            site.begun(run_id)
            server.stop_at_once()
            server.start()
            site.factory.kw["bind"].dispose()  # what the pool holds are connections to the server that was
            assert site.report(run_id).state == "running", "it was over too soon"
            assert site.outcome(run_id) == expected
    shutil.rmtree(folder, ignore_errors=True)
