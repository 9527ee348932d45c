"""What could not be written: recorded in ``ledger_sync_errors``, and marked resolved once it is right.

The hook records entries and documents, under ``on_error="record"``; a backfill records lines and documents.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, Connection, Select, and_, insert, select, update
from sqlalchemy.exc import DBAPIError

from ledger_sync.binding import Binding, Ledger, aliased, attribute
from ledger_sync.caches import copied_data_differs
from ledger_sync.comparison import compared
from ledger_sync.control_lines import of_tenant, on_accounts, voucher_columns, voucher_text
from ledger_sync.dialects import among, parameter_set
from ledger_sync.mentions import mentioned
from ledger_sync.models.own import NOTE_MAX
from ledger_sync.models.types import storable, utc_now
from ledger_sync.proof import FAULTS
from ledger_sync.settings import Settings
from ledger_sync.touched import Touched, lines_of

SEVERAL_TENANTS: Final = (
    "The subledgers of several tenants were written at once, and this failed for one of them. The log says why."
)


class Failure(BaseModel):
    """What could not be written, and why: a line of a voucher, all of an entry, or a document that was to be posted.

    ``source_type`` and ``source_id`` name the document. ``resolved_at``: when it was found to be right after all.
    """

    model_config = ConfigDict(frozen=True)

    id: Any
    run_id: Any
    tenant_id: Any
    ledger: str
    voucher: str | None
    general_ledger_id: Any
    general_ledger_line_id: Any
    source_type: str | None
    source_id: Any
    error: str
    message: str
    created_at: datetime
    resolved_at: datetime | None


def failures(
    connection: Connection, binding: Binding, tenant_id: Any, *, run_id: Any, resolved: bool, limit: int
) -> tuple[Failure, ...]:
    """The recorded failures in one tenant's books, the newest first; of one run, if its id is given."""
    table, entry = binding.error.__table__, aliased(binding.entry)
    voucher = voucher_columns(entry)
    query = (
        select(table, attribute(entry, "id").label("entry_id"), *voucher)
        .outerjoin(entry, and_(attribute(entry, "id") == table.c.general_ledger_id, of_tenant(entry)))
        .where(table.c.tenant_id == tenant_id)
        .order_by(table.c.id.desc())
        .limit(limit)
    )
    if run_id is not None:
        query = query.where(table.c.run_id == run_id)
    if not resolved:
        query = query.where(table.c.resolved_at.is_(None))
    found = []
    for row in connection.execute(query, {"tenant": tenant_id}):
        values = {name: getattr(row, name) for name in Failure.model_fields if name != "voucher"}
        found.append(Failure(voucher=None if row.entry_id is None else voucher_text(row), **values))
    return tuple(found)


def message_of(error: BaseException, tenants: Collection[Any]) -> str:
    """What may be told of an error to each of the tenants that it concerns.

    Not the statement with all its parameters, but what the database said. That may quote a row, so of several tenants
    nobody is told.
    """
    if len(set(tenants)) > 1:
        return SEVERAL_TENANTS
    return storable(str(cause_of(error)))[:NOTE_MAX]


def cause_of(error: BaseException) -> BaseException:
    """An error, or the driver's own behind one of the database."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def in_short(error: BaseException) -> str:
    """An error by its name and what may be told of it, for a run's note or a segment's last error."""
    return f"{type(cause_of(error)).__name__}: {message_of(error, ())}"


class Failures:
    """The recorded failures of one binding under one set of settings."""

    def __init__(self, binding: Binding, settings: Settings) -> None:
        self.binding = binding
        self.settings = settings

    def record_flush(
        self, connection: Connection, ledger: Ledger, touched: Touched, error: Exception, *, lines_known: bool
    ) -> list[dict[str, Any]]:
        """Note what a flush touched and could not write, for a backfill or a repair to mend; as signals tell it.

        Entries; and documents, where it is not known which lines name them, or none is.

        :raises Exception: the error itself, since neither is there to be named: it would be lost.
        """
        noted: list[dict[str, Any]] = [
            {"tenant_id": tenant, "ledger": ledger.name, "general_ledger_id": entry_id}
            for entry_id, tenant in self._entries_of(connection, ledger, touched).items()
        ]
        if not (lines_known and noted):
            noted += self._documents_of(connection, ledger, touched)
        if not noted:
            raise error
        told = {"error": type(error).__name__, "message": message_of(error, [note["tenant_id"] for note in noted])}
        unset = dict.fromkeys(("general_ledger_id", "source_type", "source_id"))
        failures = [{**unset, **note, **told} for note in noted]
        moment = utc_now()
        connection.execute(
            insert(self.binding.error.__table__), [{**failure, "created_at": moment} for failure in failures]
        )
        return failures

    def _entries_of(self, connection: Connection, ledger: Ledger, touched: Touched) -> dict[Any, Any]:
        """The entries of the touched control lines, and of rows that touched lines have, with their tenants.

        Without any, the touched entries themselves.
        """
        parts = touched.parts()
        found: dict[Any, Any] = {}
        if not parts:
            return found
        ways = self.binding.once(self.settings, ("failed", ledger.name, parts), lambda: self._ways(ledger, parts))
        for query in ways:
            found.update((row[0], row[1]) for row in connection.execute(query, touched.parameters()))
        if not found:
            entry = aliased(self.binding.entry)
            entry_id = attribute(entry, "id")
            wanted = among(entry_id, parameter_set("failed", entry_id.type))
            query = select(entry_id, attribute(entry, "tenant_id")).where(wanted)
            keys = list(touched.entries | touched.reversed)
            found.update((row[0], row[1]) for row in connection.execute(query, {"failed": keys}))
        return found

    def _ways(self, ledger: Ledger, parts: tuple[str, ...]) -> tuple[Select[Any], Select[Any]]:
        entry, line, item = (aliased(model) for model in (self.binding.entry, self.binding.line, ledger.item))
        by_line = (
            select(attribute(entry, "id"), attribute(entry, "tenant_id"))
            .join(line, attribute(line, "general_ledger_id") == attribute(entry, "id"))
            .where(among(attribute(line, "id"), lines_of(self.binding, parts)))
            .where(on_accounts(attribute(line, "account_number"), self.settings.of_ledger(ledger.name)))
        )
        by_row = select(attribute(item, "general_ledger_id"), attribute(item, "tenant_id")).where(
            among(attribute(item, "general_ledger_line_id"), lines_of(self.binding, parts))
        )
        return by_line, by_row

    def _documents_of(self, connection: Connection, ledger: Ledger, touched: Touched) -> list[dict[str, Any]]:
        """The touched documents that are still there."""
        found = []
        for name in touched.documented(ledger):
            model = aliased(next(document.model for document in ledger.documents if document.name == name))
            document_id = attribute(model, "id")
            wanted = among(document_id, parameter_set("failed", document_id.type))
            query = select(document_id, attribute(model, "tenant_id")).where(wanted)
            for source_id, tenant in connection.execute(query, {"failed": list(touched.documents[name])}):
                note = {"tenant_id": tenant, "ledger": ledger.name, "source_type": name, "source_id": source_id}
                found.append(note)
        return found

    def record_line(
        self, connection: Connection, ledger: Ledger, line_id: Any, error: BaseException, *, tenant_id: Any, run_id: Any
    ) -> None:
        """Note that a control line's row could not be written; a note of it that is not resolved is brought up to date.

        At most one note of a line is unresolved.
        """
        table, line = self.binding.error.__table__, self.binding.line
        entry_id = connection.scalar(
            select(attribute(line, "general_ledger_id")).where(attribute(line, "id") == line_id)
        )
        named = {"general_ledger_id": entry_id, "general_ledger_line_id": line_id}
        self._record(connection, ledger, error, tenant_id, run_id, named, table.c.general_ledger_line_id == line_id)

    def record_document(
        self,
        connection: Connection,
        ledger: Ledger,
        document: str,
        document_id: Any,
        error: BaseException,
        *,
        tenant_id: Any,
        run_id: Any,
    ) -> None:
        """Note that a document could not be posted, as ``record_line`` does."""
        table = self.binding.error.__table__
        named = {"source_type": document, "source_id": document_id}
        of_document = and_(
            table.c.source_type == document, table.c.source_id == document_id, table.c.run_id.is_not(None)
        )
        self._record(connection, ledger, error, tenant_id, run_id, named, of_document)

    def _record(
        self,
        connection: Connection,
        ledger: Ledger,
        error: BaseException,
        tenant_id: Any,
        run_id: Any,
        named: Mapping[str, Any],
        same: ColumnElement[bool],
    ) -> None:
        table = self.binding.error.__table__
        values = {
            "run_id": run_id,
            "error": type(cause_of(error)).__name__,
            "message": message_of(error, [tenant_id]),
            "created_at": utc_now(),
        }
        noted = update(table).where(table.c.ledger == ledger.name, table.c.resolved_at.is_(None), same).values(values)
        if not connection.execute(noted).rowcount:
            connection.execute(insert(table).values(tenant_id=tenant_id, ledger=ledger.name, **named, **values))

    def resolve(self, connection: Connection, ledger: Ledger, tenant_id: Any) -> int:
        """Mark the recorded failures of entries none of whose rows is wrong by now; how many were marked.

        Wrong is a row that is missing, differs from its line and document, or has no line that accounts for it. And
        those of documents: of one that was to be posted, if a posted entry mentions it by now; of one that was edited,
        if no row of the ledger is wrong, since it is not known which lines name it.
        """
        table = self.binding.error.__table__
        noted = (table.c.ledger == ledger.name, table.c.resolved_at.is_(None), table.c.tenant_id == tenant_id)
        if not connection.scalar(select(select(table.c.id).where(*noted).exists())):
            return 0
        resolved = update(table).values(resolved_at=utc_now()).where(*noted)
        # apart from the UPDATE, which SQLite could not parse with them in it
        queries = self.binding.once(self.settings, ("wrong_entries", ledger.name), lambda: self._wrong_entries(ledger))
        found = (connection.scalars(query, {"tenant": tenant_id}) for query in queries)
        wrong = {entry_id for entry_ids in found for entry_id in entry_ids if entry_id is not None}
        noted_entry, edited = table.c.general_ledger_id, table.c.run_id.is_(None)
        right = (noted_entry.is_not(None), noted_entry.not_in(parameter_set("wrong", noted_entry.type)))
        count = connection.execute(resolved.where(*right), {"wrong": list(wrong)}).rowcount
        if not wrong:
            count += connection.execute(resolved.where(table.c.source_type.is_not(None), edited)).rowcount
        for document in ledger.documents:
            model = aliased(document.model)
            posted = select(attribute(model, "id")).where(
                attribute(model, "tenant_id") == tenant_id,
                mentioned(self.binding, self.settings, ledger, document, model),
            )
            of_document = (table.c.source_type == document.name, ~edited)
            count += connection.execute(resolved.where(*of_document, table.c.source_id.in_(posted))).rowcount
        return int(count)

    def _wrong_entries(self, ledger: Ledger) -> tuple[Select[Any], ...]:
        """The entries of the bound ``tenant`` that have a wrong row, or whose id such a row has."""
        c = compared(self.binding, self.settings, ledger).subquery("compared").c
        copied = copied_data_differs(self.binding, self.settings, ledger).order_by(None).subquery("copied")
        line, item = aliased(self.binding.line), aliased(ledger.item)
        return (
            select(c.general_ledger_id).where(c.cause.in_(FAULTS)).distinct(),
            select(attribute(line, "general_ledger_id")).join(copied, copied.c.line_id == attribute(line, "id")),
            select(attribute(item, "general_ledger_id")).join(copied, copied.c.subject_id == attribute(item, "id")),
        )
