"""Bulk statements through the session, carried out with all that follows from them, or refused.

Immediately after the statement, in one savepoint with it, the rows of everything that it concerns are written by the
same projection and writer as after a flush. So there is nothing to remember until the commit, a savepoint that rolls
back takes the rows along, and if they cannot be written the statement has not happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Result, select
from sqlalchemy.orm import ORMExecuteState, Session

from ledger_sync.attributes import key_held, was_posted
from ledger_sync.binding import Binding, Document, Ledger, aliased, attribute
from ledger_sync.bulk_statement import BulkStatement, Target, operation_of, targets, writes_to
from ledger_sync.concerned import Concerned, Named, in_parts, together
from ledger_sync.control_lines import voucher_text
from ledger_sync.dialects import parameter_set, savepoints_hold, tells_written_keys
from ledger_sync.errors import BulkWriteError, ConfigurationError, DocumentInUseError, PostedEntryError
from ledger_sync.models.posted import is_guarded, posted_here
from ledger_sync.settings import Settings
from ledger_sync.touched import Touched

OPTION: Final = "ledger_sync_bulk"
CHOICES: Final = ("sync", "refuse", "warn", "ignore")

Apply = Callable[[Session, Mapping[str, Touched]], None]
"""Writes the rows of what is concerned, by ledger."""


@dataclass
class _Before:
    """What is known of the rows that a statement is about to change."""

    entries: set[Any] = field(default_factory=set)
    gone: set[Any] = field(default_factory=set)
    named: Named = field(default_factory=dict)
    documents: list[tuple[Ledger, Document, Touched]] = field(default_factory=list)
    tenants: list[tuple[Document, dict[Any, Any]]] = field(default_factory=list)


class BulkWrites:
    """The bulk statements on the tables of one binding."""

    def __init__(self, binding: Binding, settings: Settings, ledgers: Sequence[Ledger], concerned: Concerned) -> None:
        self.binding = binding
        self.settings = settings
        self.concerned = concerned
        self._targets = targets(binding, ledgers)
        self._option_seen = f"ledger_sync.bulk.{id(self)}"
        self._remembers = not binding.editable and not is_guarded(binding.entry)

    def choice(self, execution: ORMExecuteState) -> tuple[Target, str] | None:
        """The watched table that a statement writes to, and what is to be done; None when it is no business of ours.

        :raises ConfigurationError: its execution option is none of those that there are.
        """
        if not (execution.is_insert or execution.is_update or execution.is_delete):
            return None
        target = writes_to(execution, self._targets)
        if target is None or self._option_seen in execution.execution_options:
            return None
        chosen = execution.execution_options.get(OPTION, self.settings.bulk)
        if chosen not in CHOICES:
            raise ConfigurationError(f"{OPTION}={chosen!r} is not known. Give one of {', '.join(CHOICES)}.")
        return target, chosen

    def refusal(self, execution: ORMExecuteState, target: Target) -> BulkWriteError:
        """The error for a statement that is not to be let through."""
        return BulkWriteError(target.table.fullname, operation_of(execution))

    def remember(self, session: Session) -> None:
        """Note the entries that a flush wrote or posted, since their lines may still arrive."""
        if not self._remembers:
            return
        entry = self.binding.entry
        written = [target for target in session.new if isinstance(target, entry)]
        written += [target for target in session.dirty if isinstance(target, entry) and was_posted(target) is False]
        posted_here(session).update(key_held(target) for target in written)

    def carry_out(
        self, execution: ORMExecuteState, target: Target, connection: Connection, apply: Apply
    ) -> Result[Any]:
        """Execute a statement, write what follows from it, and return what the caller of the statement gets.

        :raises BulkWriteError: it cannot be seen through.
        :raises PostedEntryError: it would change what is posted, where that cannot be changed.
        :raises DocumentInUseError: it would take a document away from a posted line.
        """
        session = execution.session
        statement = BulkStatement(execution, target)
        if not savepoints_hold(connection):
            # the first savepoint's release would even be the commit
            statement.refuse("is on an engine on which savepoints do not hold (ledger_sync.dialects.open_engine)")
        if not tells_written_keys(connection):
            statement.refuse("is on MariaDB or MySQL, which do not tell the keys of all that is written")
        keys = statement.find(connection)
        before = self._before(session, connection, statement, keys)
        try:
            with connection.begin_nested():
                result, keys = statement.run(keys, {self._option_seen: True})
                for touched in self._following(session, connection, statement, keys, before):
                    apply(session, touched)
        except BaseException:
            _forget(session)
            raise
        if target.part == "entry" and statement.operation != "DELETE" and not self.binding.editable:
            posted_here(session).update(keys)
        return result

    # -- before the statement --------------------------------------------------------------------------

    def _before(self, session: Session, connection: Connection, statement: BulkStatement, keys: set[Any]) -> _Before:
        before = _Before()
        target, operation = statement.target, statement.operation
        if target.part is not None:
            before.entries = self._entries(connection, target.part, keys)
            before.named = self.concerned.named(connection, before.entries)
            if target.part != "link":
                self._guard(session, connection, target.part, operation, before.entries)
            if operation == "DELETE":
                before.gone = keys if target.part == "line" else set()
                if target.part == "entry":
                    before.gone = self._lines_in(connection, before.entries)
        for ledger, document in target.documents:
            for part in in_parts(keys):
                touched = Touched(documents={document.name: part}, rewrite=True, remove=True)
                self._read(connection, document, touched)
                before.documents.append((ledger, document, touched))
                whose: dict[Any, set[Any]] = {}
                for key, tenant in self._tenants(connection, document, part).items():
                    whose.setdefault(tenant, set()).add(key)
                used = self.concerned.in_use(connection, ledger, document, whose)
                if used and operation == "DELETE":
                    raise DocumentInUseError(document.name, min(used), "was to be deleted")
                before.tenants.append((document, self._tenants(connection, document, used)))
        return before

    # -- after it ----------------------------------------------------------------------------------------

    def _following(
        self, session: Session, connection: Connection, statement: BulkStatement, keys: set[Any], before: _Before
    ) -> Iterator[Mapping[str, Touched]]:
        """What follows from a statement that has run, part by part."""
        target, operation = statement.target, statement.operation
        if operation == "UPDATE":
            statement.check_keys(connection, keys)
        if target.part is not None:
            now = set() if operation == "DELETE" else self._entries(connection, target.part, keys)
            if target.part == "line":
                self._guard(session, connection, "line", "INSERT", now)
            elif target.part == "entry" and operation == "INSERT":
                # their lines come later, unless no foreign key made them wait
                now = self._with_lines(connection, now)
            named = together(before.named, self.concerned.named(connection, now))
            yield from self.concerned.by_keys(before.entries | now, before.gone, named)
            self.concerned.drop_links(connection, before.gone)
        self._check_tenants(connection, before)
        if operation == "INSERT":
            before.documents = [
                (ledger, document, Touched(documents={document.name: part}, rewrite=True, remove=True))
                for ledger, document in target.documents
                for part in in_parts(keys)
            ]
        for ledger, document, touched in before.documents:
            if operation != "DELETE":
                self._read(connection, document, touched)
            yield {ledger.name: touched}

    def _check_tenants(self, connection: Connection, before: _Before) -> None:
        """Refuse that a document which a posted line names has moved to another tenant."""
        for document, tenants in before.tenants:
            now = self._tenants(connection, document, set(tenants))
            if moved := [key for key, tenant in tenants.items() if now.get(key) != tenant]:
                raise DocumentInUseError(document.name, min(moved), "was to move to another tenant")

    # -- reading -----------------------------------------------------------------------------------------

    def _guard(self, session: Session, connection: Connection, part: str, operation: str, entries: set[Any]) -> None:
        """Refuse to touch what was posted before this transaction, where that cannot be changed."""
        if self.binding.editable or not entries:
            return
        entry = aliased(self.binding.entry)
        entry_id = attribute(entry, "id")
        query = (
            select(*(attribute(entry, n).label(n) for n in ("voucher_series", "voucher_number", "fiscal_year")))
            .where(_among(entry_id), attribute(entry, "posted"))
            .where(entry_id.not_in(parameter_set("posted_here", entry_id.type)))
            .limit(1)
        )
        here = list(posted_here(session))
        row = connection.execute(query, {"keys": list(entries), "posted_here": here}).first()
        if row is not None:
            what = "no line can be added to it" if operation == "INSERT" else f"a bulk {operation} cannot touch it"
            if part == "line" and operation != "INSERT":
                what = f"a bulk {operation} cannot touch its lines"
            raise PostedEntryError(
                voucher_text(row),
                f"is posted, so {what}",
                "Reverse it and post the right one anew, or leave it out of the statement's condition.",
            )

    def _entries(self, connection: Connection, part: str, keys: set[Any]) -> set[Any]:
        """The entries that some entries, lines or links (by line) belong to."""
        if part == "entry":
            return set(keys)
        line = aliased(self.binding.line)
        query = select(attribute(line, "general_ledger_id")).distinct().where(_among(attribute(line, "id")))
        return set(connection.scalars(query, {"keys": list(keys)}))

    def _lines_in(self, connection: Connection, entries: set[Any]) -> set[Any]:
        line = aliased(self.binding.line)
        query = select(attribute(line, "id")).where(_among(attribute(line, "general_ledger_id")))
        return set(connection.scalars(query, {"keys": list(entries)}))

    def _with_lines(self, connection: Connection, entries: set[Any]) -> set[Any]:
        line = aliased(self.binding.line)
        entry_id = attribute(line, "general_ledger_id")
        query = select(entry_id).distinct().where(_among(entry_id))
        return set(connection.scalars(query, {"keys": list(entries)}))

    @staticmethod
    def _read(connection: Connection, document: Document, touched: Touched) -> None:
        """Note whose the touched invoices are at present, and what payments call them."""
        if document.role != "invoice":
            return
        model = aliased(document.model)
        names = ["tenant_id", document.party, *(name for name in (document.number, document.reference) if name)]
        columns = (attribute(model, name, text=name in {document.number, document.reference}) for name in names)
        query = select(*columns).where(_among(attribute(model, "id")))
        ids = touched.documents[document.name]
        for tenant, party, *called in connection.execute(query, {"keys": list(ids)}):
            touched.parties.add((tenant, party))
            touched.references.update(text for text in called if text)

    @staticmethod
    def _tenants(connection: Connection, document: Document, ids: set[Any]) -> dict[Any, Any]:
        model = aliased(document.model)
        query = select(attribute(model, "id"), attribute(model, "tenant_id")).where(_among(attribute(model, "id")))
        return {row[0]: row[1] for row in connection.execute(query, {"keys": list(ids)})} if ids else {}


def _among(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.in_(parameter_set("keys", column.type))


def _forget(session: Session) -> None:
    """Have what is loaded read anew: SQLAlchemy has brought it into line with a statement that did not happen."""
    changed = session.dirty
    for loaded in list(session.identity_map.values()):
        if loaded not in changed:
            session.expire(loaded)
