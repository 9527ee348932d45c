"""Backfills on Celery: tasks that start, advance, watch and prove, on a broker that the host has.

Acks are late, and a message whose worker is lost goes back, so that it is delivered again when a worker or a process of
its pool is killed; no result, chord or lock is relied on. A worker for these tasks takes one message at a time:
``celery -A erp worker -Q ledger_sync --prefetch-multiplier 1``, and one ``celery beat`` sends the periodic ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from celery import Celery
from celery.schedules import crontab
from kombu.exceptions import KombuError, OperationalError
from sqlalchemy.orm import Session

from ledger_sync import LedgerSync
from ledger_sync.contrib.queues import QueueUnreachableError, RunQueue, Schedule
from ledger_sync.runs import SessionFactory
from ledger_sync.workbench import Health, Poster

CHECK_SECONDS: Final = 5.0
"""For so long a broker may take to answer."""

SENT_AGAIN: Final = {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.3, "interval_max": 1.0}
"""How often a message is sent again that a broker did not take."""


def register(
    app: Celery,
    sync: LedgerSync,
    factory: SessionFactory | str,
    *,
    schedule: Schedule | None = None,
    poster: Poster | None = None,
    health: Health | None = None,
    tenants: Callable[[Session], Iterable[Any]] | None = None,
) -> RunQueue:
    """Add the library's tasks to a Celery application, under names that begin with ``ledger_sync.``, and its beat.

    :param factory: makes plain sessions, in the worker's own process: an engine that was used before a fork must be
        disposed of after it (``engine.dispose(close=False)`` on ``worker_process_init``).
    :param schedule: how the work is shared out, and when it comes round. Beat's clock is the application's
        (``app.conf.timezone``).
    :param poster: posts documents that no entry mentions; every run that is started here posts them then.
    :param health: holds the runs, as of ``LedgerSync.backfill``.
    :param tenants: whose books the periodic tasks go through; all who have journal entries unless given.
    :returns: what starts and resumes runs: ``queue.start(tenant_id=…)``.
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
        try:
            tasks[task].apply_async(
                kwargs=dict(arguments),
                countdown=after_seconds or None,
                expires=expires_seconds,
                queue=schedule.queue,
                retry=True,
                retry_policy=SENT_AGAIN,
            )
        except (OperationalError, KombuError, OSError) as error:
            raise _unreachable(app, error) from error

    def check() -> None:
        try:
            with app.connection_for_write(connect_timeout=CHECK_SECONDS) as connection:
                connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=CHECK_SECONDS)
        except (OperationalError, KombuError, OSError) as error:
            raise _unreachable(app, error) from error

    queue = RunQueue(
        sync,
        factory,
        send=send,
        check=check,
        schedule=schedule,
        poster=poster,
        health=health,
        tenants=tenants,
    )
    tasks = {name: _task(app, name, work) for name, work in queue.tasks().items()}
    routes = app.conf.task_routes or ()
    others = routes if isinstance(routes, list | tuple) else (routes,)
    app.conf.task_routes = (*others, {"ledger_sync.*": {"queue": schedule.queue}})
    periodic: dict[str, tuple[Any, float | None]] = {
        "watch": (float(schedule.watch_seconds), float(schedule.watch_seconds)),
    }
    periodic |= {name: (crontab.from_string(cron), None) for name, cron in schedule.crontabs().items()}
    app.conf.beat_schedule = {
        **(app.conf.beat_schedule or {}),
        **{
            f"ledger_sync.{name}": {
                "task": f"ledger_sync.{name}",
                "schedule": when,
                "options": {"queue": schedule.queue, "expires": expires},
            }
            for name, (when, expires) in periodic.items()
        },
    }
    return queue


def _task(app: Celery, name: str, work: Callable[..., None]) -> Any:
    # a function of its own, since Celery asks for its name and module
    def task(**arguments: Any) -> None:
        work(**arguments)

    task.__name__ = task.__qualname__ = name
    task.__doc__ = work.__doc__
    return app.task(
        task, name=f"ledger_sync.{name}", shared=False, acks_late=True, reject_on_worker_lost=True, ignore_result=True
    )


def _unreachable(app: Celery, error: Exception) -> QueueUnreachableError:
    # as_uri() leaves the password out
    return QueueUnreachableError(f"Celery at {app.connection_for_write().as_uri()}", f"{type(error).__name__}: {error}")
