"""Backfills on procrastinate: the queue is in PostgreSQL itself, so nothing but the database is needed.

A run can be asked for in the host's own transaction (``start_later``): it is started if that commits, and never if it
does not. One message of a chain waits at a time, by a queueing lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any

from procrastinate import App
from procrastinate.exceptions import AlreadyEnqueued, AppNotOpen, ConnectorException
from procrastinate.tasks import Task
from sqlalchemy.orm import Session

from ledger_sync import LedgerSync
from ledger_sync.contrib.queues import QueueUnreachableError, RunQueue, Schedule
from ledger_sync.errors import ConfigurationError
from ledger_sync.progress import AllTenants
from ledger_sync.runs import SessionFactory
from ledger_sync.workbench import Health, Poster


class ProcrastinateQueue(RunQueue):
    """A ``RunQueue`` that also takes a start along in a transaction of the host's."""

    task_start: Task[..., None, ...]

    def start_later(
        self,
        session: Session,
        *,
        tenant_id: Any = None,
        since: date | None = None,
        until: date | None = None,
        **arguments: Any,
    ) -> None:
        """Have a run started by a worker as soon as the session's transaction commits. Arguments as of ``start``.

        :param session: on psycopg 3; not committed here.
        :raises ConfigurationError: its connection is another driver's.
        """
        raw: Any = session.connection().connection.driver_connection
        if not type(raw).__module__.startswith("psycopg"):
            raise ConfigurationError(
                f"start_later needs a session on psycopg 3, and this one's connection is {type(raw).__module__}'s. "
                "Use an engine on postgresql+psycopg://, or start() after the commit."
            )
        everybody = isinstance(tenant_id, AllTenants)
        named = {
            "tenant": None if everybody or tenant_id is None else str(tenant_id),
            "everybody": everybody,
            "since": None if since is None else since.isoformat(),
            "until": None if until is None else until.isoformat(),
        }
        self.task_start.configure(connection=raw).defer(**named, **arguments)


def register(
    app: App,
    sync: LedgerSync,
    factory: SessionFactory | str,
    *,
    schedule: Schedule | None = None,
    poster: Poster | None = None,
    health: Health | None = None,
    tenants: Callable[[Session], Iterable[Any]] | None = None,
) -> ProcrastinateQueue:
    """Add the library's tasks to a procrastinate application, under names that begin with ``ledger_sync.``.

    Its workers run the periodic ones: ``procrastinate --app erp.app worker --queues ledger_sync``. Arguments as of
    ``ledger_sync.contrib.celery.register``; crontabs are read in UTC.

    :returns: what starts and resumes runs: ``queue.start(tenant_id=…)``. The application must be open for it.
    """
    schedule = Schedule() if schedule is None else schedule

    def send(
        task: str,
        arguments: Mapping[str, Any],
        *,
        after_seconds: float = 0.0,
        expires_seconds: float | None = None,
        key: str | None = None,
    ) -> None:
        # what would expire elsewhere is not sent twice here: one of its key is waiting
        after: dict[str, Any] = {"schedule_in": {"seconds": after_seconds}} if after_seconds else {}
        try:
            tasks[task].configure(queueing_lock=key, **after).defer(**arguments)
        except AlreadyEnqueued:
            return
        except (ConnectorException, AppNotOpen) as error:
            raise _unreachable(error) from error

    def check() -> None:
        try:
            answers = app.check_connection()
        except (ConnectorException, AppNotOpen) as error:
            raise _unreachable(error) from error
        if not answers:
            raise QueueUnreachableError("procrastinate", "its tables are not in the database; apply its schema")

    queue = ProcrastinateQueue(
        sync,
        factory,
        send=send,
        check=check,
        schedule=schedule,
        poster=poster,
        health=health,
        tenants=tenants,
    )

    works = queue.tasks()
    tasks: dict[str, Task[..., None, ...]] = {
        name: app.task(name=f"ledger_sync.{name}", queue=schedule.queue)(works[name])
        for name in ("start", "advance", "verify")
    }
    queue.task_start = tasks["start"]
    for name, cron in {"watch": f"* * * * * */{schedule.watch_seconds}", **schedule.crontabs()}.items():
        app.periodic(cron=cron)(_periodic(app, name, works[name], schedule))
    return queue


def _periodic(app: App, name: str, work: Callable[[], None], schedule: Schedule) -> Any:
    def at_its_time(timestamp: int) -> None:
        work()

    lock = f"ledger_sync {name}"  # a worker that comes late need not catch up
    return app.task(name=f"ledger_sync.{name}", queue=schedule.queue, queueing_lock=lock)(at_its_time)


def _unreachable(error: Exception) -> QueueUnreachableError:
    return QueueUnreachableError("procrastinate", f"{type(error).__name__}: {error}")
