"""The face of what works in batches: runs over history, and repairs; in threads, processes or an event loop."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
from datetime import date
from typing import Any, Literal

from sqlalchemy import Connection, inspect
from sqlalchemy.orm import Session

from ledger_sync import summary
from ledger_sync.backfill import Backfills, Staff
from ledger_sync.binding import Binding
from ledger_sync.event_loop import OnProgressOrAsync, in_event_loop
from ledger_sync.failures import Failure, failures
from ledger_sync.progress import AllTenants, OnProgress, Progress, RunReport, Told
from ledger_sync.repair import Repair
from ledger_sync.runs import SessionFactory, imported, run_row, run_rows, steer, tenants_in
from ledger_sync.settings import Settings
from ledger_sync.whose import Books
from ledger_sync.workbench import Health, Poster


class Batch(Books):
    """Runs: started, advanced, watched, paused and resumed."""

    def __init__(self, binding: Binding, settings: Settings) -> None:
        super().__init__(binding, settings)
        self._runs = Backfills(binding, settings, self._writer)

    def backfill(
        self,
        factory: SessionFactory | str,
        *,
        tenant_id: Any = None,
        since: date | None = None,
        until: date | None = None,
        ledgers: Iterable[str] | None = None,
        source_types: Iterable[str] | None = None,
        vouchers: Iterable[str] | None = None,
        dry_run: bool = False,
        actor: str | None = None,
        poster: Poster | None = None,
        health: Health | None = None,
        executor: Executor | None = None,
        workers: int = 1,
        on_progress: OnProgress | None = None,
        progress_seconds: float = 0.5,
        on_progress_error: Literal["log", "raise"] = "log",
    ) -> RunReport:
        """Write the open items that history lacks, in batches that each commit; settle them; prove the books.

        :param factory: makes sessions; each batch has one, and a transaction of its own. Or ``"module:name"`` of one.
        :param tenant_id: whose history; ``ALL_TENANTS`` for everybody's. A host without tenants leaves it out.
        :param since: first entry date; not before the cut-over.
        :param until: last entry date.
        :param ledgers: ``"supplier"``, ``"customer"``, ``"employee"``; all unless given.
        :param source_types: as they stand in the books; all unless given.
        :param vouchers: single vouchers, as people write them (``"17"``, ``"B-17/2026"``); all unless given.
        :param dry_run: count what would be written, and write nothing.
        :param actor: who started it, for the list of runs.
        :param poster: takes a session and a document that no posted entry mentions, and returns a posted journal entry
            that names it as its source, or None to leave it. Without one such documents are counted.
        :param health: asked after every batch; a text holds the run, and is shown as the reason.
        :param executor: any ``concurrent.futures.Executor``; ``workers`` of it work on the run, and without
            one the caller alone. For processes, factory, poster and health must be importable.
        :param on_progress: called with a ``Progress`` after commits: first, last, at every new stage, and otherwise at
            most every ``progress_seconds``.
        :param on_progress_error: whether a callback that raises is logged, or ends the run (``raise``).
        :raises ConfigurationError: several ``workers`` and no ``executor``.
        :raises CutOverError: ``since`` lies before the cut-over.
        :raises RunActiveError: another run is writing these books.
        :raises TooManyErrorsError: more lines than the settings allow could not be written; the run can be resumed.
        """
        told = Told(on_progress, progress_seconds, on_progress_error)
        staff = Staff(executor, workers)
        run_id = self.start(
            factory,
            tenant_id=tenant_id,
            since=since,
            until=until,
            ledgers=ledgers,
            source_types=source_types,
            vouchers=vouchers,
            dry_run=dry_run,
            actor=actor,
            posting=poster is not None,
        )
        return self._runs.drive(factory, run_id, told=told, staff=staff, poster=poster, health=health)

    def start(
        self,
        factory: SessionFactory | str,
        *,
        tenant_id: Any = None,
        since: date | None = None,
        until: date | None = None,
        ledgers: Iterable[str] | None = None,
        source_types: Iterable[str] | None = None,
        vouchers: Iterable[str] | None = None,
        dry_run: bool = False,
        actor: str | None = None,
        posting: bool = False,
    ) -> int:
        """Make a run and leave the work to ``advance`` or ``resume``; its id. Arguments as for ``backfill``.

        :param posting: whoever works on it has a ``poster``.
        """
        run_id: int = self._runs.start(
            factory,
            tenant_id=self._whose(tenant_id),
            since=since,
            until=until,
            ledgers=ledgers,
            source_types=source_types,
            vouchers=vouchers,
            dry_run=dry_run,
            actor=actor,
            posting=posting,
        )
        return run_id

    def resume(
        self,
        factory: SessionFactory | str,
        run_id: int,
        *,
        tenant_id: Any = None,
        poster: Poster | None = None,
        health: Health | None = None,
        executor: Executor | None = None,
        workers: int = 1,
        on_progress: OnProgress | None = None,
        progress_seconds: float = 0.5,
        on_progress_error: Literal["log", "raise"] = "log",
    ) -> RunReport:
        """Take a run over from its workers, whether they are alive or not, and work on it until it is over.

        A run that has completed is reported as it is. Arguments as for ``backfill``.

        :param tenant_id: whose run it must be; anybody's unless given.
        :raises RunStateError: there is no such run, or it was cancelled.
        :raises RunActiveError: another run is writing these books.
        :raises ConfigurationError: it posts documents, and ``poster`` is not given; the run is left as it was.
        """
        told = Told(on_progress, progress_seconds, on_progress_error)
        staff = Staff(executor, workers)
        return self._runs.resume(factory, run_id, tenant_id, told=told, staff=staff, poster=poster, health=health)

    def reopen(
        self, factory: SessionFactory | str, run_id: int, *, tenant_id: Any = None, actor: str | None = None
    ) -> bool:
        """Set a run that was paused, has failed or has died to running again, and leave the work to ``advance``.

        Workers that it may still have lose it. False if it has completed already.

        :param tenant_id: whose run it must be; anybody's unless given.
        :param actor: who goes on with it; who started it unless given.
        :raises RunStateError: there is no such run, or it was cancelled.
        :raises RunActiveError: another run is writing these books.
        """
        return self._runs.reopen(factory, run_id, tenant_id, actor)

    async def abackfill(
        self, factory: Any, *, on_progress: OnProgressOrAsync | None = None, **arguments: Any
    ) -> RunReport:
        """``backfill`` from async code, without holding up the event loop. Arguments as there.

        :param factory: an ``async_sessionmaker``: the run works in the event loop. Or a factory of plain sessions: it
            works in a thread.
        :param on_progress: a callback, or a coroutine function, which is awaited before the run goes on.
        """
        return await in_event_loop(self.backfill, factory, on_progress=on_progress, **arguments)

    async def astart(self, factory: Any, **arguments: Any) -> int:
        """``start`` from async code; as ``abackfill``."""
        return await in_event_loop(self.start, factory, **arguments)

    async def areopen(self, factory: Any, run_id: int, **arguments: Any) -> bool:
        """``reopen`` from async code; as ``abackfill``."""
        return await in_event_loop(self.reopen, factory, run_id, **arguments)

    async def aresume(
        self, factory: Any, run_id: int, *, on_progress: OnProgressOrAsync | None = None, **arguments: Any
    ) -> RunReport:
        """``resume`` from async code; as ``abackfill``."""
        return await in_event_loop(self.resume, factory, run_id, on_progress=on_progress, **arguments)

    async def aadvance(
        self, factory: Any, run_id: int, budget_seconds: float | None = None, **arguments: Any
    ) -> Progress:
        """``advance`` from async code; as ``abackfill``."""
        return await in_event_loop(self.advance, factory, run_id, budget_seconds, **arguments)

    async def arepair(
        self, factory: Any, *, on_progress: OnProgressOrAsync | None = None, **arguments: Any
    ) -> RunReport:
        """``repair`` from async code; as ``abackfill``."""
        return await in_event_loop(self.repair, factory, on_progress=on_progress, **arguments)

    def advance(
        self,
        factory: SessionFactory | str,
        run_id: int,
        budget_seconds: float | None = None,
        *,
        waiting: bool = True,
        tenant_id: Any = None,
        poster: Poster | None = None,
        health: Health | None = None,
    ) -> Progress:
        """Work on a run for about so long and return how far it is: what a job queue calls, with plain arguments.

        Any number of workers may call it at once. It never takes a segment from a worker whose lease has not passed,
        and waits for it within its budget. A run that is over, paused or failed is left as it is.

        :param factory: ``"module:name"`` of a session factory, or one.
        :param waiting: False: when there is only what others must end first, return rather than wait for them.
        :param tenant_id: whose run it must be; anybody's unless given.
        :raises RunStateError: there is no such run.
        """
        return self._runs.advance(
            factory, run_id, budget_seconds, waiting=waiting, tenant_id=tenant_id, poster=poster, health=health
        )

    def pause(self, session: Session, run_id: int, *, tenant_id: Any = None) -> None:
        """Have a run stop after its present batches, in the caller's transaction. ``resume`` goes on with it.

        :param tenant_id: whose run it must be; anybody's unless given.
        :raises RunStateError: there is no such run, or it is over.
        """
        steer(self._connection(session), self.binding, run_id, "pause", tenant_id)

    def cancel(self, session: Session, run_id: int, *, tenant_id: Any = None) -> None:
        """Have a run stop after its present batches, for good, in the caller's transaction. What is written stays.

        :param tenant_id: whose run it must be; anybody's unless given.
        :raises RunStateError: there is no such run, or it is over.
        """
        steer(self._connection(session), self.binding, run_id, "cancel", tenant_id)

    def progress(self, session: Session, run_id: int, *, tenant_id: Any = None) -> Progress:
        """How far a backfill is, whoever works on it. Reads only.

        :param tenant_id: whose run it must be; anybody's unless given.
        :raises RunStateError: there is no such run.
        """
        connection = self._connection(session)
        run_row(connection, self.binding, run_id, tenant_id)
        return summary.progress(connection, self.binding, run_id)

    def runs(
        self, session: Session, tenant_id: Any = None, *, limit: int | None = 50, running: bool = False
    ) -> tuple[RunReport, ...]:
        """Past and present runs over a tenant's books, the newest first. Reads only.

        Those over all tenants at once are listed under ``ALL_TENANTS`` only.

        :param limit: at most so many; None for all.
        :param running: only those in state ``running``, dead ones among them (``lease_until``).
        """
        connection = self._connection(session)
        rows = run_rows(connection, self.binding, self._whose(tenant_id), limit, running=running)
        return summary.reports(connection, self.binding, rows)

    def report(self, session: Session, run_id: int, *, tenant_id: Any = None) -> RunReport:
        """What one run has done so far, or did, whoever works on it. Reads only.

        :param tenant_id: whose run it must be; anybody's unless given.
        :raises RunStateError: there is no such run.
        """
        connection = self._connection(session)
        run_row(connection, self.binding, run_id, tenant_id)
        return summary.report(connection, self.binding, run_id)

    def failures(
        self,
        session: Session,
        tenant_id: Any = None,
        *,
        run_id: int | None = None,
        resolved: bool = False,
        limit: int = 100,
    ) -> tuple[Failure, ...]:
        """What could not be written in one tenant's books, and why, the newest first. Reads only.

        :param run_id: only what that run met; otherwise what the hook met, too (``on_error="record"``).
        :param resolved: also what has been written since.
        """
        connection = session.connection(bind_arguments={"mapper": inspect(self.binding.error)})
        return failures(connection, self.binding, self._one(tenant_id), run_id=run_id, resolved=resolved, limit=limit)

    def tenants(self, session: Session, tenant_id: Any = None) -> tuple[Any, ...]:
        """Which tenants have journal entries, in order: of ``ALL_TENANTS``, or whether the one that is named has.

        Of a host without tenants the one that it has, which is called None. Reads only.
        """
        whose = self._whose(tenant_id)
        if not self.binding.has_tenants:
            return (None,)
        connection = session.connection(bind_arguments={"mapper": inspect(self.binding.entry)})
        found = tenants_in(connection, self.binding)
        return tuple(one for one in found if isinstance(whose, AllTenants) or one == whose)

    def _connection(self, session: Session) -> Connection:
        return session.connection(bind_arguments={"mapper": inspect(self.binding.run)})

    def repair(
        self,
        factory: SessionFactory | str,
        *,
        tenant_id: Any = None,
        dry_run: bool = False,
        on_progress: OnProgress | None = None,
    ) -> RunReport:
        """Write what is missing, correct what differs, take away orphans, and prove it; in batches that each commit.

        What is taken away leaves a tombstone, and what it had settled is undone.

        :param factory: makes sessions; each batch has one, and a transaction of its own.
        :param dry_run: count what is wrong, by what it is, and write nothing.
        :param on_progress: called with a ``Progress`` after each ledger and at the end; one that raises is logged.
        :raises RunActiveError: another run is writing these books.
        """
        repair = Repair(self.binding, self.settings, self._writer, imported(factory), self._one(tenant_id))
        return repair.run(dry_run=dry_run, on_progress=on_progress)
