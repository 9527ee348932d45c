"""Full historical syncs: started, watched, stopped, resumed.

``start`` writes the run's row with what it covers; ``drive`` works on it, alone or with an executor's workers, and
tells a callback how far it is; ``advance`` does a slice of any run, for job queues. All state is in the run's tables,
so whatever is killed, whoever comes next goes on from the last commit.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Literal

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ledger_sync import segments, summary
from ledger_sync.binding import Binding
from ledger_sync.dialects import fault_of
from ledger_sync.errors import NotInTheBooksError, RunStateError
from ledger_sync.explain import entries_of_voucher
from ledger_sync.progress import AllTenants, OnProgress, Progress, RunReport, Told
from ledger_sync.proof import Proof
from ledger_sync.runs import (
    Batches,
    SessionFactory,
    end_run,
    imported,
    key_of,
    open_run,
    reopen_run,
    run_row,
    steer,
)
from ledger_sync.scope import Scope, chosen_ledgers, chosen_sources, refuse_before_cut_over
from ledger_sync.segments import Segment
from ledger_sync.settings import Settings
from ledger_sync.worker import Health, Options, Poster, Worker
from ledger_sync.writer import Writer

WATCH_SECONDS = 0.1
"""How often a run that others work on is looked at, at the least."""


@dataclass(frozen=True)
class Watching:
    """How a run is told of: whom, at most how often, and what to do when the callback raises."""

    on_progress: OnProgress | None = None
    seconds: float = 0.5
    on_error: Literal["log", "raise"] = "log"


@dataclass(frozen=True)
class Staff:
    """Who works on a run: the calling thread, or so many workers of an executor."""

    executor: Executor | None = None
    workers: int = 1


@dataclass
class Work:
    """What an executor's worker does; it can be pickled if the factory, the poster and the health hook can."""

    binding: Binding
    settings: Settings
    factory: SessionFactory | str
    run_id: Any
    poster: Poster | None
    health: Health | None
    proofs: list[Proof] = field(default_factory=list)

    def __call__(self) -> list[Proof]:
        """Work until the run is over; the proofs that were not clean."""
        worker = Worker(
            self.binding,
            self.settings,
            Writer(self.binding, self.settings),
            imported(self.factory),
            self.run_id,
            Options(poster=self.poster, health=self.health),
        )
        worker.work()
        return worker.proofs


class Backfills:
    """Starts, drives and resumes the backfills of one binding under one set of settings."""

    def __init__(self, binding: Binding, settings: Settings, writer: Writer) -> None:
        self.binding = binding
        self.settings = settings
        self.writer = writer

    @contextmanager
    def _transaction(self, factory: SessionFactory, *, commit: bool = True) -> Iterator[Connection]:
        batches = Batches(self.binding, factory)
        with batches.transaction(commit=commit) as session:
            yield batches.connection(session, self.binding.run)

    def start(
        self,
        factory: SessionFactory | str,
        *,
        tenant_id: str | AllTenants,
        since: date | None,
        until: date | None,
        ledgers: Iterable[str] | None,
        source_types: Iterable[str] | None,
        vouchers: Iterable[str] | None,
        dry_run: bool,
        posting: bool,
        actor: str | None,
    ) -> Any:
        """Write the row of a new run, and the one segment that plans the others; the run's id."""
        if not isinstance(tenant_id, AllTenants):
            refuse_before_cut_over(self.settings, tenant_id, since)
        scope = Scope(
            ledgers=chosen_ledgers(self.settings, ledgers),
            since=since,
            until=until,
            source_types=chosen_sources(self.settings, source_types),
            posting=posting,
        )
        with self._transaction(imported(factory)) as connection:
            if vouchers is not None:
                scope = scope.model_copy(update={"entries": self._entries(connection, tenant_id, vouchers)})
            run_id = open_run(
                connection,
                self.binding,
                self.settings,
                kind="backfill",
                tenant_id=key_of(tenant_id),
                stage="checking",
                filters=scope.model_dump_json(),
                dry_run=dry_run,
                actor=actor,
            )
            segments.add(connection, self.binding, [Segment(run_id, 0, "checking", "check")])
        return run_id

    def _entries(self, connection: Connection, tenant_id: str | AllTenants, vouchers: Iterable[str]) -> tuple[Any, ...]:
        found: list[Any] = []
        for text in vouchers:
            if isinstance(tenant_id, AllTenants):
                raise NotInTheBooksError(f"voucher {text}", "is not told apart over all tenants", "Name one tenant.")
            ids = entries_of_voucher(connection, self.binding, tenant_id, text)
            if not ids:
                raise NotInTheBooksError(f"voucher {text}", "is not in the books", "Check the number and the tenant.")
            found += ids
        return tuple(key if isinstance(key, int) else str(key) for key in found)

    def reopen(self, factory: SessionFactory | str, run_id: Any, tenant_id: Any = None) -> bool:
        """Take a run over from its workers, dead or alive; False when it has completed already.

        :raises RunStateError: there is no such run, or it was cancelled.
        """
        with self._transaction(imported(factory)) as connection:
            run = run_row(connection, self.binding, run_id, tenant_id)
            if run.kind != "backfill":
                raise RunStateError(run_id, f"is a {run.kind}, which is not resumed", f"Start the {run.kind} again.")
            if run.state == "cancelled":
                raise RunStateError(run_id, "was cancelled", "Start a new one; it goes on from what is written.")
            if run.state in {"completed", "completed_with_errors"}:
                return False
            reopen_run(connection, self.binding, self.settings, run_id)
            segments.take_over(connection, self.binding, run_id)
        return True

    def drive(
        self,
        factory: SessionFactory | str,
        run_id: Any,
        *,
        watching: Watching,
        staff: Staff,
        poster: Poster | None = None,
        health: Health | None = None,
    ) -> RunReport:
        """Work on a run until it is over, telling how far it is, and return what it did.

        Whatever ends it early leaves a run that can be resumed: ``paused`` if somebody interrupted it, ``failed`` if
        something went wrong.
        """
        watcher = _Watcher(self.binding, imported(factory), run_id, watching)
        proofs: list[Proof] = []
        try:
            watcher.tell(last=True)
            if staff.executor is None:
                options = Options(poster=poster, health=health, on_step=watcher.tell)
                worker = Worker(self.binding, self.settings, self.writer, watcher.factory, run_id, options)
                worker.work()
                proofs = worker.proofs
            else:
                work = Work(self.binding, self.settings, factory, run_id, poster, health)
                proofs = self._with_workers(staff.executor, staff.workers, work, watcher)
        except BaseException as error:
            interrupted = not isinstance(error, Exception)
            note = "It was interrupted." if interrupted else f"{type(error).__name__}: {error}"
            self._end(watcher.factory, run_id, "paused" if interrupted else "failed", note)
            raise
        watcher.tell(last=True)
        with self._transaction(watcher.factory, commit=False) as connection:
            return summary.report(connection, self.binding, run_id, proofs)

    def _with_workers(self, executor: Executor, workers: int, work: Work, watcher: _Watcher) -> list[Proof]:
        futures: list[Future[list[Proof]]] = [executor.submit(replace(work)) for _ in range(max(1, workers))]
        try:
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, timeout=WATCH_SECONDS)
                for future in done:
                    future.result()
                watcher.tell()
        except BaseException:
            with self._transaction(watcher.factory) as connection:
                run = run_row(connection, self.binding, work.run_id)
                if run.state == "running":
                    steer(connection, self.binding, work.run_id, "pause", None)
            wait(futures)
            raise
        return [proof for future in futures for proof in future.result()]

    def _end(self, factory: SessionFactory, run_id: Any, state: str, note: str) -> None:
        try:
            with self._transaction(factory) as connection:
                if not end_run(connection, self.binding, run_id, state, note):
                    return
                segments.take_over(connection, self.binding, run_id)
        except DBAPIError:
            return  # the database is away; the lease will pass, and the error that is being raised says why

    def advance(
        self,
        factory: SessionFactory | str,
        run_id: Any,
        budget_seconds: float | None,
        *,
        poster: Poster | None = None,
        health: Health | None = None,
    ) -> Progress:
        """Work on a run for so long, or until it is over, and return how far it is.

        A deadlock, or a database that went away, leaves the run running, for the next call; anything else fails it.
        """
        sessions = imported(factory)
        with self._transaction(sessions, commit=False) as connection:
            present = summary.progress(connection, self.binding, run_id)
        if present.over:
            return present
        deadline = float("inf") if budget_seconds is None else time.monotonic() + budget_seconds
        options = Options(poster=poster, health=health, deadline=deadline)
        try:
            Worker(self.binding, self.settings, self.writer, sessions, run_id, options).work()
        except Exception as error:
            if not (isinstance(error, DBAPIError) and fault_of(error) == "passing"):
                self._end(sessions, run_id, "failed", f"{type(error).__name__}: {error}")
            raise
        with self._transaction(sessions, commit=False) as connection:
            return summary.progress(connection, self.binding, run_id)


class _Watcher:
    """Reads how far a run is when its callback is due, and tells it."""

    def __init__(self, binding: Binding, factory: SessionFactory, run_id: Any, watching: Watching) -> None:
        self.binding = binding
        self.factory = factory
        self.run_id = run_id
        self.told = Told(watching.on_progress, watching.seconds, watching.on_error)
        self.batches = Batches(binding, factory)

    def tell(self, *, last: bool = False) -> None:
        """Tell if it is time to; in any case if ``last``."""
        if self.told.callback is None:
            return
        with self.batches.transaction(commit=False) as session:
            connection = self.batches.connection(session, self.binding.run)
            run = run_row(connection, self.binding, self.run_id)
            stages = summary.stages_of(summary.scope_of(run), dry_run=run.dry_run)
            # the run's own row is enough to see whether it is time
            if not last and not self.told.due(stages.index(run.stage)):
                return
            snapshot = summary.progress_of(run, segments.all_of(connection, self.binding, self.run_id))
        if last or not snapshot.over:
            self.told.tell(snapshot, stages)
