"""The history of 20 tenants by one process, and by 1, 2 and 4 workers of Celery and of procrastinate.

Sizes are control lines. On PostgreSQL; Celery's messages are on the Redis at LEDGER_SYNC_TEST_REDIS_URL. Everybody does
one run over all tenants, from its start to its end, settled and proved, and must come to the same rows, counts and
applications. Workers are at work already when the run starts.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import procrastinate
from celery import Celery
from redis import Redis
from sqlalchemy import Engine, text
from sqlalchemy.orm import sessionmaker

from ledger_sync import ALL_TENANTS, LedgerSync
from ledger_sync.contrib import celery as on_celery
from ledger_sync.contrib import procrastinate as on_procrastinate
from ledger_sync.contrib.queues import RunQueue, Schedule
from tests.benchmarks.books_at_scale import emptied, make
from tests.benchmarks.figures import Figure
from tests.queues.nursery import environment, shift

SIZES: Final = (1_000_000,)
ON_DATABASES: Final = True
TENANTS: Final = 20
WORKERS: Final = (1, 2, 4)
SLICE_SECONDS: Final = 5.0
AT_SCALE: Final = {"batch": 100_000, "segment": 250_000, "lease": 60, "slice": SLICE_SECONDS}
LINES: Final = "SELECT general_ledger_line_id AS id, amount, remaining_amount, status FROM customer_ledger"
PAIRS: Final = "SELECT from_line_id AS id, to_line_id, amount, applied_on FROM customer_applications"


def outcome(engine: Engine) -> list[Any]:
    """The rows and the applications, as their number, and a digest of what they say."""
    digest = (
        "SELECT count(*), md5(string_agg(CAST(said AS text), '|' ORDER BY id, CAST(said AS text))) FROM ({}) AS said"
    )
    with engine.connect() as connection:
        return [tuple(connection.execute(text(digest.format(query))).one()) for query in (LINES, PAIRS)]


class Course:
    """One set of books, and what was made of them first."""

    def __init__(self, engine: Engine, lines: int) -> None:
        self.engine = engine
        self.lines = lines
        self.sync = LedgerSync()
        self.factory = sessionmaker(engine)
        self.expected: Any = None

    def run(self, start: Any) -> float:
        """Seconds of one run, which ``start`` starts or does; it must come to what the first one came to."""
        emptied(self.engine, self.sync)
        began = time.perf_counter()
        run_id = start()
        while True:
            with self.factory() as session:
                report = self.sync.report(session, run_id)
            if report.state != "running":
                break
            time.sleep(0.1)
        seconds = time.perf_counter() - began
        found = (report.state, report.clean, report.processed, report.synced, report.applied, outcome(self.engine))
        self.expected = self.expected or found
        assert found == self.expected, f"{found} instead of {self.expected}"
        return seconds

    def alone(self) -> float:
        return self.run(lambda: self.sync.backfill(self.factory, tenant_id=ALL_TENANTS).run_id)

    def by_workers(self, queue: RunQueue, broker: str, what: str, several: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            env = environment(self.engine, Path(folder), broker, workers=several, **AT_SCALE)
            with shift(env) as working:
                for _ in range(several):
                    working.start(what)
                time.sleep(3.0)  # until they listen
                return self.run(lambda: queue.start(tenant_id=ALL_TENANTS))


def measure(engine: Engine, size: int) -> list[Figure]:
    """Everybody in turn on one set of books, and the one process before and after."""
    if engine.dialect.name != "postgresql":
        return []
    redis = os.environ["LEDGER_SYNC_TEST_REDIS_URL"]
    course = Course(engine, make(engine, size * 10 // 17, TENANTS))
    alone = [course.alone()]
    found: dict[str, float] = {}
    for several in WORKERS:
        schedule = Schedule(workers=several, slice_seconds=SLICE_SECONDS)
        with Redis.from_url(redis) as client:
            client.delete(schedule.queue)
        app = Celery("bench", broker=redis, set_as_current=False)
        queue: RunQueue = on_celery.register(app, course.sync, course.factory, schedule=schedule)
        found[f"celery, {several}"] = course.by_workers(queue, redis, "celery", several)
    conninfo = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    for several in WORKERS:
        schedule = Schedule(workers=several, slice_seconds=SLICE_SECONDS)
        jobs = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=conninfo))
        queue = on_procrastinate.register(jobs, course.sync, course.factory, schedule=schedule)
        with jobs.open():
            if not jobs.check_connection():
                jobs.schema_manager.apply_schema()
            found[f"procrastinate, {several}"] = course.by_workers(queue, "memory://", "procrastinate", several)
    alone.append(course.alone())
    against = sum(alone) / 2
    return [
        Figure(
            suite="queues",
            database=engine.dialect.name,
            size=course.lines,
            way=way,
            against="one process",
            seconds=seconds,
            against_seconds=against,
            rounds=1,
            more={"lines/s": f"{course.lines / seconds:,.0f}", "alone": ", ".join(f"{one:.1f} s" for one in alone)},
        )
        for way, seconds in found.items()
    ]
