"""Source links by hand: a posted line gets its document, or loses it again, and its open item follows at once.

The posted entry itself is never touched. The link says how it came about, who made it and why. A line has one link at
most, so no call needs a key of its own to be made once: a link that is there already is the answer to a second call for
it. Each call holds the line, so two sessions that link or unlink the same line do it one after the other.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.orm import Session

from ledger_sync.attributes import has
from ledger_sync.binding import Binding, Ledger, attribute
from ledger_sync.concerned import Concerned, Named, together
from ledger_sync.control_lines import source_type_on
from ledger_sync.errors import LinkError
from ledger_sync.logs import log
from ledger_sync.settings import ControlAccount, Settings
from ledger_sync.writer import Writer


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
        *,
        kind: str | None,
        method: str,
        actor: str,
        reason: str,
    ) -> Any:
        """Link a control line to a document of its tenant; returns the link, also where it is there already."""
        control, account_number = self._control(session, tenant_id, line_id)
        ledger = self.binding.ledger(control.ledger)
        bound = ledger.document(document)
        if bound is None:
            known = ", ".join(d.name for d in ledger.documents)
            raise LinkError(
                line_id, f"is in the {ledger.name} ledger, which has no {document!r}", f"Name one of {known}."
            )
        source_type = source_type_on(control, document)
        if source_type is None:
            taken = ", ".join(sorted(set(control.sources.values())))
            raise LinkError(
                line_id,
                f"is on {account_number}, which takes no {document}",
                f"Name one of {taken}, or a source type for it in the settings.",
            )
        model = bound.model
        query = select(attribute(model, "id")).where(
            attribute(model, "id") == document_id, attribute(model, "tenant_id") == tenant_id
        )
        connection = session.connection(bind_arguments={"mapper": inspect(model)})
        found_id = connection.scalar(query)
        if found_id is None:
            raise LinkError(line_id, f"cannot come from {document} {document_id}, which is not there", "Check the id.")
        there = self._of_line(session, line_id)
        if there is not None:
            names_it = control.sources.get(there.source_type) == document and there.source_id in (found_id, document_id)
            if names_it and (not has(self.binding.link, "kind") or there.kind == kind):
                return there
            raise LinkError(line_id, "has a source link already", "Take it back with unlink first.")
        told = {"kind": kind, "method": method, "actor": actor, "reason": reason}
        made = self.binding.link(
            line_id=line_id,
            source_type=source_type,
            source_id=document_id,
            **{name: value for name, value in told.items() if has(self.binding.link, name)},
        )
        before = self._named(session, ledger, line_id)
        session.add(made)
        self._follow(session, ledger, line_id, before)
        return made

    def unlink(self, session: Session, tenant_id: Any, line_id: Any, *, actor: str, reason: str) -> None:
        """Take a link back; what it had settled is undone."""
        control, _ = self._control(session, tenant_id, line_id)
        ledger = self.binding.ledger(control.ledger)
        made = self._of_line(session, line_id)
        if made is None:
            raise LinkError(line_id, "has no source link", "A source of its entry is changed by reversing the entry.")
        extra = {"tenant": tenant_id, "ledger": ledger.name, "actor": actor, "reason": reason, "outcome": "unlinked"}
        log.info(
            "Ledger sync: link of line %s to %s %s taken back", line_id, made.source_type, made.source_id, extra=extra
        )
        before = self._named(session, ledger, line_id)
        session.delete(made)
        self._follow(session, ledger, line_id, before)

    def _of_line(self, session: Session, line_id: Any) -> Any:
        link = self.binding.link
        return session.scalars(select(link).where(attribute(link, "line_id") == line_id)).one_or_none()

    def _named(self, session: Session, ledger: Ledger, line_id: Any) -> Named:
        """The invoices that the line names: with a cut-over, it decides about the lines of those that settle them."""
        connection = session.connection(bind_arguments={"mapper": inspect(self.binding.line)})
        return Concerned(self.binding, self.settings, (ledger,)).named_by_lines(connection, {line_id})

    def _follow(self, session: Session, ledger: Ledger, line_id: Any, before: Named) -> None:
        """Have the rows follow now, also where the session is not attached; if it is, there is nothing left to do.

        :param before: the invoices that the line named before the change.
        """
        session.flush()
        connection = session.connection(bind_arguments={"mapper": inspect(ledger.item)})
        named = together(before, self._named(session, ledger, line_id))
        for concerned in Concerned(self.binding, self.settings, (ledger,)).by_keys(set(), {line_id}, named):
            touched = concerned[ledger.name]
            if self.writer.find(connection, ledger, touched):
                self.writer.write(connection, ledger, touched)
        for item in [i for i in session.identity_map.values() if isinstance(i, ledger.item)]:
            session.expire(item)

    def _control(self, session: Session, tenant_id: Any, line_id: Any) -> tuple[ControlAccount, str]:
        """The control account of a line, and its number there; the line is held until the transaction ends."""
        line, entry = self.binding.line, self.binding.entry
        query = (
            select(attribute(line, "account_number"))
            .join(entry, attribute(entry, "id") == attribute(line, "general_ledger_id"))
            .where(attribute(line, "id") == line_id, attribute(entry, "tenant_id") == tenant_id)
        )
        query = query.with_for_update(key_share=True, of=line)
        account_number: str | None = session.connection(bind_arguments={"mapper": inspect(line)}).scalar(query)
        if account_number is None:
            raise LinkError(line_id, "is not in the books", "Check the id and the tenant.")
        control = self.settings.control_account(account_number)
        if control is None:
            raise LinkError(line_id, f"is on {account_number}, which is not a control account", "Link a control line.")
        return control, account_number
