"""Backfills on a job queue, from the command line: the options, and the queue that they name.

Celery's messages are at a broker; procrastinate's are in the books' own database, which is PostgreSQL then.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Protocol

import typer
from sqlalchemy import inspect, make_url
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync, RunReport
from ledger_sync.contrib.queues import RunQueue, Schedule
from ledger_sync.dialects import bucket_keys, masked, take_locks
from ledger_sync.errors import ConfigurationError
from ledger_sync.progress import OnProgress

DEFAULT_BROKER = "redis://127.0.0.1:6379/0"
FOLLOW_SECONDS = 0.2
SLICE_SECONDS = 5.0


class Kind(StrEnum):
    """The job queues that there is an adapter for."""

    celery = "celery"
    procrastinate = "procrastinate"


Queue = Annotated[
    Kind | None, typer.Option("--queue", help="Leave the work to the workers of this job queue (ledger-sync worker).")
]
Broker = Annotated[
    str, typer.Option("--broker", envvar="LEDGER_SYNC_BROKER_URL", help="Where Celery's messages are, as a URL.")
]


class Queueing(Protocol):
    """A queue, and how to work for it in this process until it is told to stop."""

    @property
    def queue(self) -> RunQueue: ...

    def work(self, concurrency: int) -> None: ...


@contextmanager
def queue_of(kind: Kind, db: str, broker: str, sync: LedgerSync, factory: sessionmaker[Session]) -> Iterator[Queueing]:
    """The queue of one kind on a database and a broker.

    :raises ConfigurationError: its extra is not installed, or it cannot be on that database.
    """
    # the proof every night and the sync of late history are the host's to schedule; what is typed here is done
    schedule = Schedule(slice_seconds=SLICE_SECONDS, sync_cron=None, verify_cron=None)
    try:
        if kind is Kind.celery:
            yield _Celery(broker, sync, factory, schedule)
            return
        url = make_url(db)
        if url.get_backend_name() != "postgresql":
            raise ConfigurationError(
                f"procrastinate keeps its queue in PostgreSQL, and the books are at {masked(db)}. "
                "Take --queue celery, or books on PostgreSQL."
            )
        opened = _Procrastinate(url.set(drivername="postgresql").render_as_string(hide_password=False))
        with opened.app.open():
            opened.prepare(sync, factory, schedule)
            yield opened
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] not in {"celery", "kombu", "redis", "procrastinate"}:
            raise
        raise ConfigurationError(f"--queue {kind} needs {error.name}: pip install 'ledger-sync[cli,{kind}]'") from None


class _Celery:
    def __init__(self, broker: str, sync: LedgerSync, factory: sessionmaker[Session], schedule: Schedule) -> None:
        from celery import Celery

        from ledger_sync.contrib.celery import register

        self.app = Celery("ledger_sync", broker=broker, set_as_current=False)
        self.app.conf.worker_prefetch_multiplier = 1
        self.app.conf.broker_connection_retry_on_startup = True
        self.schedule = schedule
        self.queue = register(self.app, sync, factory, schedule=schedule)

    def work(self, concurrency: int) -> None:
        from celery.beat import EmbeddedService

        with tempfile.TemporaryDirectory() as folder:
            # several workers each have one: what two of them send is no more than one of them
            beat = EmbeddedService(self.app, thread=True, schedule_filename=str(Path(folder) / "beat"))
            beat.start()
            try:
                self.app.Worker(
                    pool="threads",
                    concurrency=concurrency,
                    queues=[self.schedule.queue],
                    loglevel="WARNING",
                    quiet=True,
                    without_gossip=True,
                    without_mingle=True,
                ).start()
            finally:
                beat.stop()


class _Procrastinate:
    def __init__(self, conninfo: str) -> None:
        import procrastinate

        self.app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=conninfo))

    def prepare(self, sync: LedgerSync, factory: sessionmaker[Session], schedule: Schedule) -> None:
        """Add the tasks, and the queue's tables where they are not there."""
        from ledger_sync.contrib.procrastinate import register

        self.schedule = schedule
        self.queue = register(self.app, sync, factory, schedule=schedule)
        with factory() as session:
            # whoever works and whoever asks may come at once, and PostgreSQL makes no table twice
            lock_table = inspect(sync.binding.lock).local_table
            take_locks(session.connection(), lock_table, bucket_keys("procrastinate schema", ["all"]))
            if not self.app.check_connection():
                self.app.schema_manager.apply_schema()

    def work(self, concurrency: int) -> None:
        self.app.run_worker(queues=[self.schedule.queue], concurrency=concurrency)


def watched(sync: LedgerSync, factory: sessionmaker[Session], run_id: int, follow: OnProgress) -> RunReport:
    """Follow a run until it is over, whoever works on it."""
    over = False
    while not over:
        with factory() as session:
            snapshot = sync.progress(session, run_id)
        follow(snapshot)
        over = snapshot.over
        if not over:
            time.sleep(FOLLOW_SECONDS)
    with factory() as session:
        return sync.report(session, run_id)
