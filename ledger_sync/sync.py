"""``LedgerSync``: the face that holds the library together.

One instance knows one set of models and one set of settings. It is made once, attached to the session
factory of an application, and asked for proofs and backfills. It keeps no state about any session or
tenant beyond the sessions themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from ledger_sync import explain, matching, proof, reports, schema, statements, summary
from ledger_sync.backfill import Backfills, Staff, Watching
from ledger_sync.binding import Binding, ready_made
from ledger_sync.by_hand import Application, ByHand, Decision
from ledger_sync.errors import ConfigurationError, NotInTheBooksError
from ledger_sync.event_loop import OnProgressOrAsync, in_event_loop
from ledger_sync.explain import Explanation, RecentLine
from ledger_sync.hook import Hook, settlement_signals
from ledger_sync.linking import Linking
from ledger_sync.matching import Matches
from ledger_sync.progress import AllTenants, OnProgress, Progress, RunReport
from ledger_sync.proof import Difference, Proof
from ledger_sync.repair import Repair
from ledger_sync.reports import Ageing, OpenItem
from ledger_sync.runs import SessionFactory, imported, run_row, run_rows, steer
from ledger_sync.schema import SchemaProblem
from ledger_sync.settings import Settings
from ledger_sync.statements import Specification, Statement
from ledger_sync.worker import Health, Poster
from ledger_sync.writer import Writer


class LedgerSync:
    """Keeps the subledgers of one set of models true to their general ledger.

    :param settings: control accounts, cut-over and the rest; Norwegian defaults (1500, 2400, 2910).
    :param binding: the classes to work on; the ready-made models unless given.
    :raises ConfigurationError: settings and models do not fit together.
    """

    def __init__(self, settings: Settings | None = None, *, binding: Binding | None = None) -> None:
        self.settings = settings if settings is not None else Settings()
        self.binding = binding if binding is not None else ready_made()
        self.binding.check(self.settings)
        self._writer = Writer(self.binding, self.settings)
        self._hook = Hook(self, self.binding, self.settings, self._writer)
        self._backfills = Backfills(self.binding, self.settings, self._writer)
        self._by_hand = ByHand(self.binding, self._writer)
        self._linking = Linking(self.binding, self.settings, self._writer)

    def attach(self, target: Any) -> None:
        """Sync every flush of the target's sessions from now on. Attaching twice is harmless.

        :param target: a ``sessionmaker``, ``async_sessionmaker``, ``scoped_session``, a subclass of ``Session``,
            or one ``Session`` or ``AsyncSession``.
        :raises ConfigurationError: the target is SQLAlchemy's own ``Session`` class, which every other part of
            the process uses too, or nothing that has sessions.
        """
        self._hook.attach(_listenable(target))

    def detach(self, target: Any) -> None:
        """Stop syncing the target's sessions. Harmless when it is not attached."""
        self._hook.detach(_listenable(target))

    def create_tables(self, bind: Engine | Connection) -> None:
        """Make those of the library's own tables that are not there: ledgers, applications, links, runs and the rest.

        Entries, lines, documents and parties are the host's business. For migrations see ``check_schema``.
        """
        schema.create_tables(bind, self.binding)

    def check_schema(self, bind: Engine | Connection) -> tuple[SchemaProblem, ...]:
        """What the database lacks of what the models say; empty when nothing does. Reads only."""
        return schema.check_schema(bind, self.binding)

    @contextmanager
    def paused(self, session: Session) -> Iterator[None]:
        """Leave what is flushed inside the block out of the subledger; the proof will call it ``missing``.

        What was pending before the block is flushed and synced first, and what the block left pending is
        flushed, unsynced, at its end. Other sessions are not affected.
        """
        if not isinstance(session, Session | scoped_session):
            raise ConfigurationError(
                f"paused() takes a Session, not {type(session).__name__}. In async code call it inside "
                "`await session.run_sync(...)`."
            )
        inner = session() if isinstance(session, scoped_session) else session
        inner.flush()
        state = self._hook.state(inner)
        state.paused += 1
        try:
            yield
            inner.flush()
        finally:
            state.paused -= 1

    def sync_entries(self, session: Session, entry_ids: Iterable[Any]) -> None:
        """Write, rewrite or take away the rows of some journal entries, in the caller's transaction.

        For what was written past the hook: by ``connection.execute``, ``bulk_insert_mappings``, SQL text. What is
        pending in the session is flushed first.

        :param entry_ids: of entries that were inserted, changed or deleted.
        """
        self._hook.sync_entries(session, entry_ids)

    def backfill(
        self,
        factory: SessionFactory | str,
        *,
        tenant_id: str | AllTenants,
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
        :param tenant_id: whose history; ``ALL_TENANTS`` for everybody's.
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
        :param executor: any ``concurrent.futures.Executor``; ``workers`` of it work on the run. For processes, factory,
            poster and health must be importable.
        :param on_progress: called with a ``Progress`` after commits: first, last, at every new stage, and otherwise at
            most every ``progress_seconds``.
        :param on_progress_error: whether a callback that raises is logged, or ends the run (``raise``).
        :raises CutOverError: ``since`` lies before the cut-over.
        :raises RunActiveError: another run is writing these books.
        :raises TooManyErrorsError: more lines than the settings allow could not be written; the run can be resumed.
        """
        watching = Watching(on_progress, progress_seconds, on_progress_error)
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
        return self._backfills.drive(
            factory, run_id, watching=watching, staff=Staff(executor, workers), poster=poster, health=health
        )

    def start(
        self,
        factory: SessionFactory | str,
        *,
        tenant_id: str | AllTenants,
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
        run_id: int = self._backfills.start(
            factory,
            tenant_id=tenant_id,
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
        tenant_id: str | None = None,
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
        """
        watching = Watching(on_progress, progress_seconds, on_progress_error)
        self._backfills.reopen(factory, run_id, tenant_id)
        return self._backfills.drive(
            factory, run_id, watching=watching, staff=Staff(executor, workers), poster=poster, health=health
        )

    async def abackfill(
        self, factory: Any, *, on_progress: OnProgressOrAsync | None = None, **arguments: Any
    ) -> RunReport:
        """``backfill`` from async code, without holding up the event loop. Arguments as there.

        :param factory: an ``async_sessionmaker``: the run works in the event loop. Or a factory of plain sessions: it
            works in a thread.
        :param on_progress: a callback, or a coroutine function, which is awaited before the run goes on.
        """
        return await in_event_loop(self.backfill, factory, on_progress=on_progress, **arguments)

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
        poster: Poster | None = None,
        health: Health | None = None,
    ) -> Progress:
        """Work on a run for about so long and return how far it is: what a job queue calls, with plain arguments.

        Any number of workers may call it at once. It never takes a segment from a worker whose lease has not passed,
        and waits for it within its budget. A run that is over, paused or failed is left as it is.

        :param factory: ``"module:name"`` of a session factory, or one.
        """
        return self._backfills.advance(factory, run_id, budget_seconds, poster=poster, health=health)

    def pause(self, session: Session, run_id: int, *, tenant_id: str | None = None) -> None:
        """Have a run stop after its present batches, in the caller's transaction. ``resume`` goes on with it.

        :param tenant_id: whose run it must be; anybody's unless given.
        :raises RunStateError: there is no such run, or it is over.
        """
        steer(self._connection(session), self.binding, run_id, "pause", tenant_id)

    def cancel(self, session: Session, run_id: int, *, tenant_id: str | None = None) -> None:
        """Have a run stop after its present batches, for good, in the caller's transaction. What is written stays.

        :param tenant_id: whose run it must be; anybody's unless given.
        :raises RunStateError: there is no such run, or it is over.
        """
        steer(self._connection(session), self.binding, run_id, "cancel", tenant_id)

    def progress(self, session: Session, run_id: int, *, tenant_id: str | None = None) -> Progress:
        """How far a backfill is, whoever works on it. Reads only.

        :param tenant_id: whose run it must be; anybody's unless given.
        :raises RunStateError: there is no such run.
        """
        connection = self._connection(session)
        run_row(connection, self.binding, run_id, tenant_id)
        return summary.progress(connection, self.binding, run_id)

    def runs(self, session: Session, tenant_id: str | AllTenants, *, limit: int = 50) -> tuple[RunReport, ...]:
        """Past and present runs over a tenant's books, the newest first. Reads only.

        Those over all tenants at once are listed under ``ALL_TENANTS`` only.
        """
        connection = self._connection(session)
        return tuple(
            summary.report(connection, self.binding, row.id)
            for row in run_rows(connection, self.binding, tenant_id, limit)
        )

    def _connection(self, session: Session) -> Connection:
        return session.connection(bind_arguments={"mapper": inspect(self.binding.run)})

    def repair(
        self,
        factory: SessionFactory | str,
        *,
        tenant_id: str,
        dry_run: bool = False,
        on_progress: OnProgress | None = None,
    ) -> RunReport:
        """Write what is missing, correct what differs, take away orphans, and prove it; in batches that each commit.

        What is taken away leaves a tombstone, and what it had settled is undone.

        :param factory: makes sessions; each batch has one, and a transaction of its own.
        :param dry_run: count what is wrong, by what it is, and write nothing.
        :raises RunActiveError: another run is writing these books.
        """
        repair = Repair(self.binding, self.settings, self._writer, imported(factory), tenant_id)
        return repair.run(dry_run=dry_run, on_progress=on_progress)

    def verify(
        self, session: Session, tenant_id: str, as_of: date | None = None, *, with_findings: bool = True
    ) -> Proof:
        """Prove one tenant's subledgers against the general ledger, to the last øre. Reads only.

        If the session has not begun a transaction, one is begun at REPEATABLE READ, so that all of the proof is of
        one snapshot. Inside a transaction the figures of each ledger are of one snapshot.

        :param as_of: leave out entries dated later, on both sides. Findings are of today, so there are none then.
        :param with_findings: look for what is wrong without an amount as well; it takes longer.
        """
        return proof.verify(session, self.binding, self.settings, tenant_id, as_of, with_findings=with_findings)

    def differences(self, session: Session, tenant_id: str, as_of: date | None = None) -> Iterator[Difference]:
        """Every line and row behind the causes of a proof, however many there are; streamed. Reads only."""
        return proof.differences(session, self.binding, self.settings, tenant_id, as_of)

    def explain(self, session: Session, subject: Any, tenant_id: str | None = None) -> Explanation:
        """What became of a journal entry or a document, rule by rule. Reads only.

        :param subject: an entry or a document; or with ``tenant_id`` an entry's id, a voucher as people write it
            (``"17"``, ``"B-17/2026"``), or a document by its number (``"vendor_invoice:8907"``).
        :raises NotInTheBooksError: this tenant's books do not have it, or have several.
        """
        return explain.explain(session, self.binding, self.settings, subject, tenant_id)

    def recent(self, session: Session, tenant_id: str, since: datetime, *, limit: int = 100) -> tuple[RecentLine, ...]:
        """The control lines posted since a moment, the newest first, and what became of each. Reads only.

        :param since: aware; compared with ``posted_at``.
        :param limit: at most so many per ledger.
        """
        return explain.recent(session, self.binding, self.settings, tenant_id, since, limit=limit)

    def ageing(
        self,
        session: Session,
        tenant_id: str,
        *,
        as_of: date | None = None,
        ledgers: Sequence[str] | None = None,
        buckets: Sequence[int] = (30, 60, 90),
    ) -> Ageing:
        """Open items by how long they are overdue, party by party. Reads only.

        An item without a due date is counted by its document's date, and flagged. What is open in the other direction
        is in a column of its own.

        :param as_of: the day that counts, and what was open at its end; today unless given.
        :param buckets: the last day of each bucket but the last.
        """
        today = date.today()  # noqa: DTZ011 - a bookkeeping date, in the host's own zone
        return reports.ageing(
            session,
            self.binding,
            self.settings,
            tenant_id,
            as_of=as_of,
            today=today,
            ledgers=ledgers,
            buckets=buckets,
        )

    def specification(
        self, session: Session, tenant_id: str, ledger: str, *, since: date | None = None, until: date | None = None
    ) -> Specification:
        """Every party's opening balance, movements and closing balance of a period. Reads only.

        :param ledger: ``"customer"``, ``"supplier"`` or ``"employee"``.
        :param since: first entry date; from the beginning unless given.
        :param until: last entry date; to the end unless given.
        """
        return statements.specification(
            session, self.binding, self.settings, tenant_id, ledger, since=since, until=until
        )

    def statement(
        self,
        session: Session,
        tenant_id: str,
        ledger: str,
        party_id: Any,
        *,
        since: date | None = None,
        until: date | None = None,
    ) -> Statement:
        """One party's opening balance, movements with a running balance, and closing balance. Reads only.

        :raises NotInTheBooksError: the party has no items up to ``until``.
        """
        found = statements.specification(
            session, self.binding, self.settings, tenant_id, ledger, since=since, until=until, party_id=party_id
        )
        if not found.parties:
            raise NotInTheBooksError(
                f"Party {party_id} of the {ledger} ledger", "has nothing until then", "Check the id and the tenant."
            )
        return found.parties[0]

    def open_items(
        self,
        session: Session,
        tenant_id: str,
        *,
        ledgers: Sequence[str] | None = None,
        party_id: Any = None,
        as_of: date | None = None,
        include_settled: bool = False,
    ) -> tuple[OpenItem, ...]:
        """The open items of one tenant, by ledger, party and date. Reads only.

        :param as_of: what was open at the end of that day, by what is dated until then; now unless given.
        :param include_settled: list paid items as well.
        """
        return reports.open_items(
            session,
            self.binding,
            self.settings,
            tenant_id,
            ledgers=ledgers,
            party_id=party_id,
            as_of=as_of,
            include_settled=include_settled,
        )

    def match(self, session: Session, tenant_id: str) -> Matches:
        """Propose documents for the control lines that name no source, on either side of the cut-over. Reads only.

        Only a match that is unique from both ends is ``certain``; the others are for a person to decide.
        """
        return matching.match(session, self.binding, self.settings, tenant_id)

    def link(
        self,
        session: Session,
        tenant_id: str,
        line_id: Any,
        document: str,
        document_id: Any,
        *,
        actor: str,
        reason: str,
        kind: str | None = None,
        method: str = "host",
    ) -> Any:
        """Link a posted control line to the document that it comes from, in the caller's transaction.

        Its open item is written at once. The posted entry is not changed.

        :param document: the document's kind, ``"vendor_invoice"``, say.
        :param kind: why the line closes the document, if it is no payment: ``write_off``, ``rounding``, ``fee``,
            ``exchange`` or ``credit_note``.
        :param method: how the link came about.
        :raises LinkError: the line or the document is not there, or the line has a link already.
        """
        return self._linking.link(
            session, tenant_id, line_id, document, document_id, kind=kind, method=method, actor=actor, reason=reason
        )

    def unlink(self, session: Session, tenant_id: str, line_id: Any, *, actor: str, reason: str) -> None:
        """Take a line's source link back, in the caller's transaction; its open item goes, what it settled is undone.

        :raises LinkError: the line is not there, or has no link.
        """
        self._linking.unlink(session, tenant_id, line_id, actor=actor, reason=reason)

    def settle(
        self,
        session: Session,
        from_item: object,
        to_item: object,
        amount: Decimal | int | str | None = None,
        on: date | None = None,
        *,
        actor: str,
        reason: str,
        idempotency_key: str | None = None,
    ) -> Application:
        """Settle one open item against another by hand, in the caller's transaction.

        :param from_item: the payment or credit; the two may also be given the other way round.
        :param to_item: the invoice.
        :param amount: how much, in the books' currency; all that is left of both unless given.
        :param on: the day it counts from; today, or the later entry date, unless given.
        :param idempotency_key: the same call with the same key again returns the first result.
        :raises SettlementError: it cannot be done; both items are named.
        """
        decision = Decision(actor, reason, on, idempotency_key)
        return self._told(session, self._by_hand.settle(session, from_item, to_item, amount, decision))

    def unsettle(
        self,
        session: Session,
        from_item: object,
        to_item: object,
        on: date | None = None,
        *,
        actor: str,
        reason: str,
        idempotency_key: str | None = None,
    ) -> Application:
        """Undo what was settled by hand between two items; or pin them apart, if it was settled automatically.

        A pinned payment takes no part in automatic settlement until ``release``, or until it is settled by hand.

        :raises SettlementError: the two are not settled with one another, or by a reversal.
        """
        decision = Decision(actor, reason, on, idempotency_key)
        return self._told(session, self._by_hand.unsettle(session, from_item, to_item, decision))

    def release(
        self,
        session: Session,
        from_item: object,
        to_item: object,
        on: date | None = None,
        *,
        actor: str,
        reason: str,
        idempotency_key: str | None = None,
    ) -> Application:
        """Take back a pin, so that the payment settles automatically again.

        :raises SettlementError: the two are not pinned apart.
        """
        decision = Decision(actor, reason, on, idempotency_key)
        return self._told(session, self._by_hand.release(session, from_item, to_item, decision))

    def _told(self, session: Session, outcome: tuple[Application, tuple[Any, ...]]) -> Application:
        application, settled = outcome
        self._hook.tell_after_commit(session, settlement_signals(settled))
        return application


def _listenable(target: Any) -> Any:
    """What takes the event listeners of a target."""
    if target is Session:
        raise ConfigurationError(
            "Session is every session of the process. Attach your sessionmaker, or a subclass of Session."
        )
    # asyncio support needs an extra of SQLAlchemy's; whoever has an asynchronous target has imported it
    asynchronous = sys.modules.get("sqlalchemy.ext.asyncio")
    if asynchronous is not None:
        if isinstance(target, asynchronous.AsyncSession):
            return target.sync_session
        if isinstance(target, asynchronous.async_scoped_session):
            return _listenable(target.session_factory)
        if isinstance(target, asynchronous.async_sessionmaker):
            # listeners go on a synchronous class, and the default one is every session of the process
            session_class = target.kw.get("sync_session_class", Session)
            if session_class is Session:
                session_class = type("LedgerSyncSession", (Session,), {})
                target.configure(sync_session_class=session_class)
            return session_class
    if isinstance(target, scoped_session):
        return _listenable(target.session_factory)
    if isinstance(target, sessionmaker | Session) or (isinstance(target, type) and issubclass(target, Session)):
        return target
    raise ConfigurationError(
        f"{target!r} has no sessions to listen to. Attach a sessionmaker, async_sessionmaker, scoped_session, "
        "a subclass of Session, or one session."
    )
