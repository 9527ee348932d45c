"""A backend whose runs are worked on by a queue's workers, for processes that a test starts and ends.

The database is LEDGER_SYNC_TEST_BOOKS (on PostgreSQL with LEDGER_SYNC_TEST_SCHEMA), the broker
LEDGER_SYNC_TEST_BROKER: ``celery -A tests.queues.erp worker``, or ``procrastinate --app tests.queues.erp.jobs worker``.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import procrastinate
from celery import Celery
from sqlalchemy import make_url
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync, Settings
from ledger_sync.contrib import celery as on_celery
from ledger_sync.contrib import procrastinate as on_procrastinate
from ledger_sync.contrib.queues import Schedule
from ledger_sync.dialects import open_engine

SETTINGS = Settings(
    batch_lines_max=int(os.environ.get("LEDGER_SYNC_TEST_BATCH", "5")),
    segment_lines_max=int(os.environ.get("LEDGER_SYNC_TEST_SEGMENT", "20")),
    lease_seconds=float(os.environ.get("LEDGER_SYNC_TEST_LEASE", "1")),
    writers_seconds_max=0,
)
SCHEDULE = Schedule(
    workers=int(os.environ.get("LEDGER_SYNC_TEST_WORKERS", "2")),
    slice_seconds=float(os.environ.get("LEDGER_SYNC_TEST_SLICE", "0.2")),
    watch_seconds=1,
    sync_cron=None,
)
BROKER = os.environ.get("LEDGER_SYNC_TEST_BROKER", "memory://")
BOOKS = os.environ.get("LEDGER_SYNC_TEST_BOOKS", "sqlite://")
SCHEMA = os.environ.get("LEDGER_SYNC_TEST_SCHEMA", "")


@cache
def _sessions(process: int) -> sessionmaker[Session]:
    """Of this process: what a fork inherits is its parent's."""
    more: dict[str, Any] = {"connect_args": {"options": f"-csearch_path={SCHEMA}"}} if SCHEMA else {}
    return sessionmaker(open_engine(BOOKS, **more))


def factory() -> Session:
    """A new session."""
    return _sessions(os.getpid())()


sync = LedgerSync(SETTINGS)

app = Celery("erp", broker=BROKER)
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_connection_retry_on_startup = True
app.conf.broker_transport_options = {"visibility_timeout": 3600}
queue = on_celery.register(app, sync, factory, schedule=SCHEDULE)


def _conninfo() -> str:
    url = make_url(BOOKS).set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


jobs = procrastinate.App(
    connector=procrastinate.PsycopgConnector(
        conninfo=_conninfo(), **({"kwargs": {"options": f"-csearch_path={SCHEMA}"}} if SCHEMA else {})
    )
    if BOOKS.startswith("postgresql")
    else procrastinate.testing.InMemoryConnector()
)
jobs_queue = on_procrastinate.register(jobs, sync, factory, schedule=SCHEDULE)
