"""Full historical syncs: started, watched, stopped, resumed.

``start`` writes the run's row with what it covers; ``drive`` works on it, alone or with an executor's workers, and
tells a callback how far it is; ``advance`` does a slice of any run, for job queues. All state is in the run's tables,
so whatever is killed, whoever comes next goes on from the last commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row

from ledger_sync import segments, summary
from ledger_sync.binding import Binding
from ledger_sync.errors import ConfigurationError, NotInTheBooksError, RunStateError
from ledger_sync.explain import entries_of_voucher
from ledger_sync.failures import in_short
from ledger_sync.progress import AllTenants, Progress, RunReport, Told
from ledger_sync.proof import Proof
from ledger_sync.runs import (
    Batches,
    SessionFactory,
    end_run,
    imported,
    is_passing,
    key_of,
    open_run,
    reopen_run,
    retried,
    run_row,
    said_if_possible,
)
from ledger_sync.scope import Scope, chosen_ledgers, chosen_sources, refuse_before_cut_over
from ledger_sync.segments import Segment
from ledger_sync.settings import Settings
from ledger_sync.workbench import Health, Options, Poster, Workbench, refuse_without_poster
from ledger_sync.worker import Worker
from ledger_sync.writer import Writer

WATCH_SECONDS = 0.1
"""How often a run that others work on is looked at, at the least."""


@dataclass(frozen=True)
class Staff:
    """Who works on a run: the calling thread, or so many workers of an executor.

    :raises ConfigurationError: there are no workers, or several and nothing that they work in.
    """

    executor: Executor | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigurationError(f"workers={self.workers} does nothing. Give at least 1.")
        if self.executor is None and self.workers > 1:
            raise ConfigurationError(
                f"workers={self.workers} need an executor to work in. Pass executor=ThreadPoolExecutor({self.workers}) "
                "of concurrent.futures, or another, or leave workers out."
            )


@dataclass(frozen=True)
class Work:
    """What an executor's worker does; it can be pickled if the factory, the poster and the health hook can."""

    binding: Binding
    settings: Settings
    factory: SessionFactory | str
    run_id: Any
    poster: Poster | None
    health: Health | None

    def __call__(self) -> list[Proof]:
        """Work until the run is over; the proofs that were not clean."""
        bench = Workbench(
            self.binding,
            self.settings,
            Writer(self.binding, self.settings),
            imported(self.factory),
            self.run_id,
            Options(poster=self.poster, health=self.health),
        )
        worker = Worker(bench)
        worker.work()
        return worker.proofs


class Backfills:
    """Starts, drives and resumes the backfills of one binding under one set of settings."""

    def __init__(self, binding: Binding, settings: Settings, writer: Writer) -> None:
        self.binding = binding
        self.settings = settings
        self.writer = writer

    def _batches(self, factory: SessionFactory | str) -> Batches:
        return Batches(self.binding, imported(factory))

    def _bench(self, factory: SessionFactory, run_id: Any, options: Options) -> Workbench:
        return Workbench(self.binding, self.settings, self.writer, factory, run_id, options)

    def start(
        self,
        factory: SessionFactory | str,
        *,
        tenant_id: Any,
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
        refuse_before_cut_over(self.settings, tenant_id, since)
        scope = Scope(
            ledgers=chosen_ledgers(self.settings, ledgers),
            since=since,
            until=until,
            source_types=chosen_sources(self.settings, source_types),
            entries=None if vouchers is None else self._entries(factory, tenant_id, vouchers),
            posting=posting,
        )
        return open_run(
            self._batches(factory),
            self.settings,
            kind="backfill",
            tenant_id=key_of(tenant_id),
            stage="checking",
            then=self._plan_later,
            filters=scope.model_dump_json(),
            dry_run=dry_run,
            actor=actor,
        )

    def _plan_later(self, connection: Connection, run_id: Any) -> None:
        segments.add(connection, self.binding, [Segment(run_id, 0, "checking", "check")])

    def _entries(self, factory: SessionFactory | str, tenant_id: Any, vouchers: Iterable[str]) -> tuple[Any, ...]:
        def attempt(text: str) -> list[Any]:
            with self._batches(factory).connected(commit=False) as connection:
                return entries_of_voucher(connection, self.binding, tenant_id, text)

        found: list[Any] = []
        for text in vouchers:
            if isinstance(tenant_id, AllTenants):
                raise NotInTheBooksError(f"voucher {text}", "is not told apart over all tenants", "Name one tenant.")
            ids = retried(self.settings.retries_max, attempt, text)
            if not ids:
                raise NotInTheBooksError(f"voucher {text}", "is not in the books", "Check the number and the tenant.")
            found += ids
        return tuple(key if isinstance(key, int) else str(key) for key in found)

    def reopen(
        self, factory: SessionFactory | str, run_id: Any, tenant_id: Any = None, actor: str | None = None
    ) -> bool:
        """Take a run over from its workers, dead or alive; False when it has completed already.

        :raises RunStateError: there is no such run, or it was cancelled.
        """
        return retried(self.settings.retries_max, self._reopen, factory, run_id, tenant_id, actor)

    def _reopen(
        self,
        factory: SessionFactory | str,
        run_id: Any,
        tenant_id: Any,
        actor: str | None,
        refuse: Callable[[Row[Any]], object] = lambda run: None,
    ) -> bool:
        """``refuse``: is called with the run's row before it is touched, if there is something to take over."""
        with self._batches(factory).connected() as connection:
            run = run_row(connection, self.binding, run_id, tenant_id)
            if run.kind != "backfill":
                raise RunStateError(run_id, f"is a {run.kind}, which is not resumed", f"Start the {run.kind} again.")
            if run.state == "cancelled":
                raise RunStateError(run_id, "was cancelled", "Start a new one; it goes on from what is written.")
            if run.state in {"completed", "completed_with_errors"}:
                return False
            refuse(run)
            reopen_run(connection, self.binding, self.settings, run_id, actor)
            segments.take_over(connection, self.binding, run_id)
        return True

    def resume(
        self,
        factory: SessionFactory | str,
        run_id: Any,
        tenant_id: Any,
        *,
        told: Told,
        staff: Staff,
        poster: Poster | None,
        health: Health | None,
    ) -> RunReport:
        """Take a run over and work on it until it is over; one that has completed is reported as it is.

        :raises ConfigurationError: it posts documents, and there is no poster; it is left as it was.
        """
        refuse = partial(refuse_without_poster, poster)
        if retried(self.settings.retries_max, self._reopen, factory, run_id, tenant_id, None, refuse):
            return self.drive(factory, run_id, told=told, staff=staff, poster=poster, health=health)
        watcher = _Watcher(self.binding, imported(factory), run_id, told, self.settings.retries_max)
        watcher.tell(last=True)
        return retried(self.settings.retries_max, self._report, watcher.factory, run_id, [])

    def drive(
        self,
        factory: SessionFactory | str,
        run_id: Any,
        *,
        told: Told,
        staff: Staff,
        poster: Poster | None = None,
        health: Health | None = None,
    ) -> RunReport:
        """Work on a run until it is over, telling how far it is, and return what it did.

        Whatever ends it early leaves a run that can be resumed: ``paused`` if somebody interrupted it, ``failed`` if
        something went wrong.
        """
        watcher = _Watcher(self.binding, imported(factory), run_id, told, self.settings.retries_max)
        proofs: list[Proof] = []
        futures: list[Future[list[Proof]]] = []
        try:
            watcher.tell(last=True)
            if staff.executor is None:
                options = Options(poster=poster, health=health, on_step=watcher.tell)
                worker = Worker(self._bench(watcher.factory, run_id, options))
                worker.work()
                proofs = worker.proofs
            else:
                work = Work(self.binding, self.settings, factory, run_id, poster, health)
                futures.extend(staff.executor.submit(work) for _ in range(staff.workers))
                proofs = self._watched(futures, watcher)
        except BaseException as error:
            interrupted = not isinstance(error, Exception)
            note = "It was interrupted." if interrupted else in_short(error)
            # first, with its reason: whoever still works on it stops at that
            self._end(watcher.factory, run_id, "paused" if interrupted else "failed", note)
            wait(futures)
            raise
        watcher.tell(last=True)
        return retried(self.settings.retries_max, self._report, watcher.factory, run_id, proofs)

    def _report(self, factory: SessionFactory, run_id: Any, proofs: list[Proof]) -> RunReport:
        with self._batches(factory).connected(commit=False) as connection:
            return summary.report(connection, self.binding, run_id, proofs)

    def _progress(self, factory: SessionFactory, run_id: Any, tenant_id: Any = None) -> Progress:
        with self._batches(factory).connected(commit=False) as connection:
            run_row(connection, self.binding, run_id, tenant_id)
            return summary.progress(connection, self.binding, run_id)

    def _watched(self, futures: list[Future[list[Proof]]], watcher: _Watcher) -> list[Proof]:
        """Tell how far an executor's workers are until they are done; their proofs that were not clean."""
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=WATCH_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            watcher.tell()
        return [proof for future in futures for proof in future.result()]

    def _end(self, factory: SessionFactory, run_id: Any, state: str, note: str) -> None:
        def attempt() -> None:
            with self._batches(factory).connected() as connection:
                if end_run(connection, self.binding, run_id, state, note):
                    segments.take_over(connection, self.binding, run_id)

        said_if_possible(retried, self.settings.retries_max, attempt)

    def advance(
        self,
        factory: SessionFactory | str,
        run_id: Any,
        budget_seconds: float | None,
        *,
        waiting: bool = True,
        tenant_id: Any = None,
        poster: Poster | None = None,
        health: Health | None = None,
    ) -> Progress:
        """Work on a run for so long, or until it is over, and return how far it is.

        A deadlock, a database that went away, or a pool without a free connection leaves the run running, for the next
        call; anything else fails it.
        """
        sessions = imported(factory)
        present = retried(self.settings.retries_max, self._progress, sessions, run_id, tenant_id)
        if present.over:
            return present
        deadline = float("inf") if budget_seconds is None else time.monotonic() + budget_seconds
        options = Options(poster=poster, health=health, deadline=deadline, waiting=waiting)
        try:
            Worker(self._bench(sessions, run_id, options)).work()
        except Exception as error:
            if not is_passing(error):
                self._end(sessions, run_id, "failed", in_short(error))
            raise
        return retried(self.settings.retries_max, self._progress, sessions, run_id)


class _Watcher:
    """Reads how far a run is when its callback is due, and tells it."""

    def __init__(self, binding: Binding, factory: SessionFactory, run_id: Any, told: Told, retries_max: int) -> None:
        self.binding = binding
        self.retries_max = retries_max
        self.factory = factory
        self.run_id = run_id
        self.told = told
        self.batches = Batches(binding, factory)

    def tell(self, *, last: bool = False) -> None:
        """Tell if it is time to; in any case if ``last``."""
        if self.told.callback is None:
            return
        due = retried(self.retries_max, self._due, last=last)
        if due is not None and (last or not due[0].over):
            self.told.tell(*due)

    def _due(self, *, last: bool) -> tuple[Progress, tuple[str, ...]] | None:
        """What there is to tell, with the run's stages; None if it is not time."""
        with self.batches.connected(commit=False) as connection:
            run = run_row(connection, self.binding, self.run_id)
            stages = summary.stages_of(summary.scope_of(run), dry_run=run.dry_run)
            # the run's own row is enough to see whether it is time
            if not last and not self.told.due(stages.index(run.stage)):
                return None
            return summary.progress_of(run, segments.all_of(connection, self.binding, self.run_id)), stages
