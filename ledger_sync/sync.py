"""``LedgerSync``: the face that holds the library together.

One instance knows one set of models and one set of settings. It is made once, attached to the session
factory of an application, and asked for proofs and backfills. It keeps no state about any session or
tenant beyond the sessions themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session, scoped_session

from ledger_sync import explain, matching, proof, recent, reports, schema, statements
from ledger_sync.adoption import Adopter, Adoption
from ledger_sync.attributes import ONE_TENANT
from ledger_sync.batch import Batch
from ledger_sync.binding import Binding, Ledger, Made, ready_made
from ledger_sync.by_hand import Application, ByHand
from ledger_sync.decisions import Decision, LineDecision
from ledger_sync.errors import ConfigurationError, NotInTheBooksError
from ledger_sync.explain import Explanation
from ledger_sync.hook import Hook, settlement_signals
from ledger_sync.linking import Linking
from ledger_sync.matching import Matches
from ledger_sync.outbox import plain
from ledger_sync.proof import Difference, Proof
from ledger_sync.recent import RecentLine
from ledger_sync.reports import Ageing, OpenItem
from ledger_sync.schema import SchemaProblem
from ledger_sync.settings import Settings
from ledger_sync.statements import Specification, Statement
from ledger_sync.targets import listenable


class LedgerSync(Batch):
    """Keeps the subledgers of one set of models true to their general ledger.

    With no models it works on the ready-made ones of ``ledger_sync.models``. A host's own are given by ``entry``,
    ``line`` and ``ledgers``; the attributes that they must have, and may have, are those of the ready-made ones. Other
    names are adapted with ``synonym()``, ``column_property()`` or a hybrid. What the host has no class for, source
    links and applications say, is made in its models' metadata: ``create_tables`` or a migration makes the tables.

    :param settings: control accounts, cut-over and the rest; Norwegian defaults (1500, 2400, 2910), as far as there
        are ledgers for them.
    :param entry: the class of journal entries.
    :param line: the class of journal lines.
    :param ledgers: the subledgers, each with its documents.
    :param link: the class of source links, where the host has one.
    :param editable: whether the host changes posted entries or their lines. If not, nothing need be locked.
    :raises ConfigurationError: settings and models do not fit together; it names the class and the attribute.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        entry: type[Any] | None = None,
        line: type[Any] | None = None,
        ledgers: Sequence[Ledger] = (),
        link: type[Any] = Made,
        editable: bool = True,
    ) -> None:
        if entry is None and line is None and not ledgers:
            binding = ready_made()
        elif entry is None or line is None or not ledgers:
            raise ConfigurationError(
                "Models of your own are given together: entry=…, line=… and ledgers=[Ledger(…), …]."
            )
        else:
            binding = Binding(entry=entry, line=line, ledgers=tuple(ledgers), link=link, editable=editable)
        super().__init__(binding, settings if settings is not None else binding.default_settings())
        self._hook = Hook(self, self.binding, self.settings, self._writer)
        self._by_hand = ByHand(self.binding, self._writer)
        self._adopter = Adopter(self.binding, self.settings, self._writer)
        self._linking = Linking(self.binding, self.settings, self._writer)

    def attach(self, target: Any) -> None:
        """Sync every flush of the target's sessions from now on. Attaching twice is harmless.

        :param target: a ``sessionmaker``, ``async_sessionmaker``, ``scoped_session``, a subclass of ``Session``,
            or one ``Session`` or ``AsyncSession``.
        :raises ConfigurationError: the target is SQLAlchemy's own ``Session`` class, which every other part of
            the process uses too, or nothing that has sessions.
        """
        self._hook.attach(listenable(target))

    def detach(self, target: Any) -> None:
        """Stop syncing the target's sessions. Harmless when it is not attached."""
        self._hook.detach(listenable(target))

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
        inner = plain(session)
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

    def verify(
        self, session: Session, tenant_id: Any = None, as_of: date | None = None, *, with_findings: bool = True
    ) -> Proof:
        """Prove one tenant's subledgers against the general ledger, to the last øre. Reads only.

        If the session has not begun a transaction, one is begun at REPEATABLE READ, so that all of the proof is of
        one snapshot. Inside a transaction the figures of each ledger are of one snapshot.

        :param as_of: leave out entries dated later, on both sides. Findings are of today, so there are none then.
        :param with_findings: look for what is wrong without an amount as well; it takes longer.
        """
        return proof.verify(
            session, self.binding, self.settings, self._one(tenant_id), as_of, with_findings=with_findings
        )

    def differences(
        self,
        session: Session,
        tenant_id: Any = None,
        as_of: date | None = None,
        *,
        account_number: str | None = None,
        cause: str | None = None,
    ) -> Iterator[Difference]:
        """Every line and row behind the causes of a proof, however many there are; streamed. Reads only.

        :param account_number: those of one control account; of every one unless given.
        :param cause: those of one cause; of every one unless given.
        """
        return proof.differences(
            session,
            self.binding,
            self.settings,
            self._one(tenant_id),
            as_of,
            account_number=account_number,
            cause=cause,
        )

    def explain(self, session: Session, subject: Any, tenant_id: Any = None) -> Explanation:
        """What became of a journal entry or a document, rule by rule. Reads only.

        :param subject: an entry or a document; or with ``tenant_id`` an entry's id, a voucher as people write it
            (``"17"``, ``"B-17/2026"``), or a document by its number (``"vendor_invoice:8907"``).
        :raises NotInTheBooksError: this tenant's books do not have it, or have several.
        """
        return explain.explain(
            session, self.binding, self.settings, subject, tenant_id if self.binding.has_tenants else ONE_TENANT
        )

    def recent(self, session: Session, tenant_id: Any, since: datetime, *, limit: int = 100) -> tuple[RecentLine, ...]:
        """The control lines posted since a moment, the newest first, and what became of each. Reads only.

        :param since: aware; compared with ``posted_at``.
        :param limit: at most so many per ledger.
        """
        return recent.recent(session, self.binding, self.settings, self._one(tenant_id), since, limit=limit)

    def ageing(
        self,
        session: Session,
        tenant_id: Any = None,
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
            self._one(tenant_id),
            as_of=as_of,
            today=today,
            ledgers=ledgers,
            buckets=buckets,
        )

    def specification(
        self, session: Session, tenant_id: Any, ledger: str, *, since: date | None = None, until: date | None = None
    ) -> Specification:
        """Every party's opening balance, movements and closing balance of a period. Reads only.

        :param ledger: ``"customer"``, ``"supplier"`` or ``"employee"``.
        :param since: first entry date; from the beginning unless given.
        :param until: last entry date; to the end unless given.
        :raises ConfigurationError: the period ends before it begins.
        """
        return statements.specification(
            session, self.binding, self.settings, self._one(tenant_id), ledger, since=since, until=until
        )

    def statement(
        self,
        session: Session,
        tenant_id: Any,
        ledger: str,
        party_id: Any,
        *,
        since: date | None = None,
        until: date | None = None,
    ) -> Statement:
        """One party's opening balance, movements with a running balance, and closing balance. Reads only.

        :raises NotInTheBooksError: the party has no items up to ``until``.
        :raises ConfigurationError: the period ends before it begins.
        """
        found = statements.specification(
            session,
            self.binding,
            self.settings,
            self._one(tenant_id),
            ledger,
            since=since,
            until=until,
            party_id=party_id,
        )
        if not found.parties:
            raise NotInTheBooksError(
                f"Party {party_id} of the {ledger} ledger", "has nothing until then", "Check the id and the tenant."
            )
        return found.parties[0]

    def open_items(
        self,
        session: Session,
        tenant_id: Any = None,
        *,
        ledgers: Sequence[str] | None = None,
        party_id: Any = None,
        as_of: date | None = None,
        include_settled: bool = False,
        limit: int | None = None,
    ) -> tuple[OpenItem, ...]:
        """The open items of one tenant, by ledger, party and date. Reads only.

        :param as_of: what was open at the end of that day, by what is dated until then; now unless given.
        :param include_settled: list paid items as well.
        :param limit: read the first so many; all of them unless given.
        """
        return reports.open_items(
            session,
            self.binding,
            self.settings,
            self._one(tenant_id),
            ledgers=ledgers,
            party_id=party_id,
            as_of=as_of,
            include_settled=include_settled,
            limit=limit,
        )

    def match(self, session: Session, tenant_id: Any = None) -> Matches:
        """Propose documents for the control lines that name no source, on either side of the cut-over. Reads only.

        Only a match that is unique from both ends is ``certain``; the others are for a person to decide.
        """
        return matching.match(session, self.binding, self.settings, self._one(tenant_id))

    def link(
        self,
        session: Session,
        tenant_id: Any,
        line_id: Any,
        document: str,
        document_id: Any,
        *,
        actor: str,
        reason: str,
        kind: str | None = None,
        method: str = "host",
        idempotency_key: str | None = None,
    ) -> LineDecision:
        """Link a posted control line to the document that it comes from, in the caller's transaction.

        Its open item is written at once. The posted entry is not changed. Where the line is linked so already nothing
        changes, and without a key the answer has who linked it first and why.

        :param document: the document's kind, ``"vendor_invoice"``, say.
        :param kind: why the line closes the document, if it is no payment: ``write_off``, ``rounding``, ``fee``,
            ``exchange`` or ``credit_note``.
        :param method: how the link came about.
        :param idempotency_key: the same call with the same key again returns the first result, though the link be taken
            back since.
        :raises LinkError: the line or the document is not there, the line's account takes no such document, or the line
            has another link already; or another call has used the key.
        """
        decision = Decision(actor, reason, idempotency_key=idempotency_key)
        return self._linking.link(
            session, self._one(tenant_id), line_id, document, document_id, decision, kind=kind, method=method
        )

    def unlink(
        self,
        session: Session,
        tenant_id: Any,
        line_id: Any,
        *,
        actor: str,
        reason: str,
        idempotency_key: str | None = None,
    ) -> LineDecision:
        """Take a line's source link back, in the caller's transaction; its open item goes, what it settled is undone.

        The answer has the link that it was, with who took it back and why.

        :param idempotency_key: the same call with the same key again returns the first result, though the line be
            linked anew since.
        :raises LinkError: the line is not there, or has no link; or another call has used the key.
        """
        decision = Decision(actor, reason, idempotency_key=idempotency_key)
        return self._linking.unlink(session, self._one(tenant_id), line_id, decision)

    def adopt(
        self,
        session: Session,
        tenant_id: Any = None,
        *,
        chosen: Mapping[Any, Any] | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> Adoption:
        """Give rows that the host wrote before, which name their voucher but not their line, their lines.

        In the caller's transaction. A row takes the line that it alone fits and that alone fits it, by party and
        amount, and is kept like any other from then on; the others are listed, and stay as they are. The same call
        again adopts nothing twice.

        :param chosen: lines by rows (ids), where a person has decided; such a row takes over its line's amount.
        :param actor: who has chosen, and ``reason`` why; recorded with each such line.
        :raises AdoptionError: a row was chosen that waits for no line, or a line that waits for no row.
        :raises ConfigurationError: rows were chosen by nobody, or for no reason.
        """
        if not chosen:
            return self._adopter.adopt(session, self._one(tenant_id), {}, None)
        if not (actor and reason):
            raise ConfigurationError(
                "Rows were chosen, but not by whom and why. Give actor=… and reason=… with chosen=…"
            )
        return self._adopter.adopt(session, self._one(tenant_id), chosen, Decision(actor, reason))

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

        A pinned payment takes no part in automatic settlement until ``release``, though it can be settled by hand.

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
