"""Source links by hand: a posted line gets its document, or loses it again, and its open item follows at once.

The posted entry itself is never touched. The link says how it came about, who made it and why; a record of each call
outlives it. A line has one link at most, so a link that is there already is the answer to a second call for it. Each
call holds the line, so two sessions that link or unlink the same line do it one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, bindparam, inspect, select
from sqlalchemy.orm import Session

from ledger_sync.attributes import has
from ledger_sync.binding import Binding, Ledger, attribute
from ledger_sync.concerned import Concerned, Named, together
from ledger_sync.control_lines import Lines, source_type_on
from ledger_sync.decisions import Decision, LineDecision, append_once, key_taken, record, used
from ledger_sync.errors import LinkError
from ledger_sync.logs import log
from ledger_sync.projection import project
from ledger_sync.settings import ControlAccount, Settings
from ledger_sync.writer import Writer


@dataclass(frozen=True)
class _Held:
    """A control line that is held until the transaction ends, as the books have it."""

    tenant_id: Any
    line_id: Any
    account_number: str
    control: ControlAccount
    ledger: Ledger


class Linking:
    """Makes and takes back the source links of one binding."""

    def __init__(self, binding: Binding, settings: Settings, writer: Writer) -> None:
        self.binding = binding
        self.settings = settings
        self.writer = writer

    def link(
        self,
        session: Session,
        tenant_id: Any,
        line_id: Any,
        document: str,
        document_id: Any,
        decision: Decision,
        *,
        kind: str | None,
        method: str,
    ) -> LineDecision:
        """Link a control line to a document of its tenant; where it is linked so already, what says so."""
        held = self._held(session, tenant_id, line_id)
        repeated = self._repeated(session, held, decision, "link")
        if repeated is not None:
            if not self._names(held, repeated, document, (document_id,), kind):
                raise LinkError(line_id, *key_taken(decision.idempotency_key))
            return repeated
        self._refuse_reversal(session, held)
        source_type = self._source_type(held, document)
        found_id = self._found(session, held, document, document_id)
        asked = LineDecision(
            ledger=held.ledger.name,
            tenant_id=held.tenant_id,
            general_ledger_line_id=held.line_id,
            action="link",
            source_type=source_type,
            source_id=found_id,
            kind=kind,
            method=method,
            actor=decision.actor,
            reason=decision.reason,
            idempotency_key=decision.idempotency_key,
        )
        there = self._of_line(session, held)
        if there is None:
            self._record(session, asked)
            told = {name: getattr(asked, name) for name in ("kind", "method", "actor", "reason")}
            made = self.binding.link(
                line_id=line_id,
                source_type=source_type,
                source_id=document_id,
                **{name: value for name, value in told.items() if has(self.binding.link, name)},
            )
            before = self._named(session, held)
            session.add(made)
            self._follow(session, held, before)
            return asked
        if not self._names(held, there, document, (document_id, found_id), kind):
            raise LinkError(line_id, "has a source link already", "Take it back with unlink first.")
        if decision.idempotency_key is None:
            return self._as_it_is(held, there, "link")
        self._record(session, asked)
        return asked

    def unlink(self, session: Session, tenant_id: Any, line_id: Any, decision: Decision) -> LineDecision:
        """Take a link back; what it had settled is undone."""
        held = self._held(session, tenant_id, line_id)
        repeated = self._repeated(session, held, decision, "unlink")
        if repeated is not None:
            return repeated
        made = self._of_line(session, held)
        if made is None:
            raise LinkError(line_id, "has no source link", "A source of its entry is changed by reversing the entry.")
        told = {"actor": decision.actor, "reason": decision.reason, "idempotency_key": decision.idempotency_key}
        asked = self._as_it_is(held, made, "unlink").model_copy(update=told)
        self._record(session, asked)
        extra = {
            "tenant": held.tenant_id,
            "ledger": held.ledger.name,
            "actor": decision.actor,
            "reason": decision.reason,
            "outcome": "unlinked",
        }
        log.info(
            "Ledger sync: link of line %s to %s %s taken back", line_id, made.source_type, made.source_id, extra=extra
        )
        before = self._named(session, held)
        session.delete(made)
        self._follow(session, held, before)
        return asked

    # -- what was decided ------------------------------------------------------------------------------

    def _repeated(
        self, session: Session, held: _Held, decision: Decision, action: Literal["link", "unlink"]
    ) -> LineDecision | None:
        """What the same call decided before, if it was made before.

        :raises LinkError: another call has used the key, whatever for.
        """
        found = used(session, self.binding, held.tenant_id, decision.idempotency_key)
        if found is None:
            return None
        model, row = found
        if model is not self.binding.decision or (row.action, row.general_ledger_line_id) != (action, held.line_id):
            raise LinkError(held.line_id, *key_taken(decision.idempotency_key))
        return LineDecision(**{name: getattr(row, name) for name in LineDecision.model_fields})

    def _record(self, session: Session, asked: LineDecision) -> None:
        connection = session.connection(bind_arguments={"mapper": inspect(self.binding.decision)})
        taken = LinkError(asked.general_ledger_line_id, *key_taken(asked.idempotency_key))
        # who links another line may use the same key meanwhile
        append_once(connection, asked.idempotency_key, lambda: record(session, self.binding, [asked]), taken)

    def _as_it_is(self, held: _Held, link: Any, action: Literal["link", "unlink"]) -> LineDecision:
        """A link that is there, as what was decided about its line."""
        names = [name for name in ("kind", "method", "actor", "reason") if has(self.binding.link, name)]
        return LineDecision(
            ledger=held.ledger.name,
            tenant_id=held.tenant_id,
            general_ledger_line_id=held.line_id,
            action=action,
            source_type=link.source_type,
            source_id=link.source_id,
            **{"actor": None, "reason": None, **{name: getattr(link, name) for name in names}},
        )

    def _names(self, held: _Held, link: Any, document: str, ids: tuple[Any, ...], kind: str | None) -> bool:
        """Whether a link, or the record of one, names a document, and for the same reason."""
        # as texts: who asks again may give the id as it came over a wire
        same = held.control.sources.get(link.source_type) == document and str(link.source_id) in map(str, ids)
        has_kind = isinstance(link, LineDecision) or has(self.binding.link, "kind")
        return same and (not has_kind or link.kind == kind)

    # -- the line and its document ---------------------------------------------------------------------

    def _held(self, session: Session, tenant_id: Any, line_id: Any) -> _Held:
        """A control line; it is held until the transaction ends."""
        line, entry = self.binding.line, self.binding.entry
        id_, tenant, account = attribute(line, "id"), attribute(entry, "tenant_id"), attribute(line, "account_number")
        query = (
            select(tenant.label("tenant_id"), id_.label("line_id"), account.label("account_number"))
            .join(entry, attribute(entry, "id") == attribute(line, "general_ledger_id"))
            .where(id_ == line_id, tenant == tenant_id)
            .with_for_update(key_share=True, of=line)
        )
        row = session.connection(bind_arguments={"mapper": inspect(line)}).execute(query).one_or_none()
        if row is None or row.account_number is None:
            raise LinkError(line_id, "is not in the books", "Check the id and the tenant.")
        control = self.settings.control_account(row.account_number)
        if control is None:
            raise LinkError(
                line_id, f"is on {row.account_number}, which is not a control account", "Link a control line."
            )
        return _Held(row.tenant_id, row.line_id, row.account_number, control, self.binding.ledger(control.ledger))

    def _refuse_reversal(self, session: Session, held: _Held) -> None:
        """Refuse a link that would count for nothing: a reversing line has the source of the line that it reverses."""
        ledger = held.ledger

        def of_line(lines: Lines) -> list[ColumnElement[bool]]:
            key = attribute(lines.line, "id")
            return [key == bindparam("line", type_=key.type)]

        def build() -> Select[Any]:
            return select(project(self.binding, self.settings, ledger, of_line).subquery("line").c.kind)

        query = self.binding.once(self.settings, ("kind of line", ledger.name), build)
        connection = session.connection(bind_arguments={"mapper": inspect(self.binding.line)})
        if connection.scalar(query, {"line": held.line_id}) == "reversal":
            raise LinkError(
                held.line_id, "reverses another line, and has the source of that one", "Link the line that it reverses."
            )

    def _source_type(self, held: _Held, document: str) -> str:
        """What a link of the line calls a kind of document."""
        ledger = held.ledger
        if ledger.document(document) is None:
            known = ", ".join(d.name for d in ledger.documents)
            raise LinkError(
                held.line_id, f"is in the {ledger.name} ledger, which has no {document!r}", f"Name one of {known}."
            )
        source_type = source_type_on(held.control, document)
        if source_type is None:
            taken = ", ".join(sorted(set(held.control.sources.values())))
            raise LinkError(
                held.line_id,
                f"is on {held.account_number}, which takes no {document}",
                f"Name one of {taken}, or a source type for it in the settings.",
            )
        return source_type

    def _found(self, session: Session, held: _Held, document: str, document_id: Any) -> Any:
        """The id of a document of the line's tenant."""
        bound = held.ledger.document(document)
        assert bound is not None
        id_ = attribute(bound.model, "id")
        query = select(id_).where(id_ == document_id, attribute(bound.model, "tenant_id") == held.tenant_id)
        found_id = session.connection(bind_arguments={"mapper": inspect(bound.model)}).scalar(query)
        if found_id is None:
            raise LinkError(
                held.line_id, f"cannot come from {document} {document_id}, which is not there", "Check the id."
            )
        return found_id

    def _of_line(self, session: Session, held: _Held) -> Any:
        """The line's link, as the database has it now that the line is held, and not as the session may remember it."""
        session.flush()
        query = select(self.binding.link).where(attribute(self.binding.link, "line_id") == held.line_id)
        return session.scalars(query.execution_options(populate_existing=True)).one_or_none()

    # -- the rows that follow --------------------------------------------------------------------------

    def _named(self, session: Session, held: _Held) -> Named:
        """The invoices that the line names: with a cut-over, it decides about the lines of those that settle them."""
        connection = session.connection(bind_arguments={"mapper": inspect(self.binding.line)})
        concerned = Concerned(self.binding, self.settings, (held.ledger,))
        return concerned.named_by_lines(connection, {held.line_id})

    def _follow(self, session: Session, held: _Held, before: Named) -> None:
        """Have the rows follow now, also where the session is not attached; if it is, there is nothing left to do.

        :param before: the invoices that the line named before the change.
        """
        session.flush()
        ledger = held.ledger
        connection = session.connection(bind_arguments={"mapper": inspect(ledger.item)})
        named = together(before, self._named(session, held))
        for concerned in Concerned(self.binding, self.settings, (ledger,)).by_keys(set(), {held.line_id}, named):
            touched = concerned[ledger.name]
            if self.writer.find(connection, ledger, touched):
                self.writer.write(connection, ledger, touched)
        for item in [i for i in session.identity_map.values() if isinstance(i, ledger.item)]:
            session.expire(item)
