"""What could not be written: recorded in ``ledger_sync_errors``, and marked resolved once it is there.

The hook records entries, under ``on_error="record"``; a backfill records lines and documents.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from ledger_sync.binding import Binding, Ledger, aliased, attribute
from ledger_sync.control_lines import Lines, of_tenant, voucher_text
from ledger_sync.mentions import mentioned
from ledger_sync.models.own import NOTE_MAX
from ledger_sync.models.types import storable, utc_now
from ledger_sync.projection import project
from ledger_sync.settings import Settings

SEVERAL_TENANTS: Final = (
    "The subledgers of several tenants were written at once, and this failed for one of them. The log says why."
)


class Failure(BaseModel):
    """What could not be written, and why: a line of a voucher, all of an entry, or a document that was to be posted.

    ``source_type`` and ``source_id`` name the document. ``resolved_at``: when it was found to be written after all.
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
    voucher = [attribute(entry, name).label(name) for name in ("fiscal_year", "voucher_series", "voucher_number")]
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

    def record_entries(
        self, connection: Connection, ledger: Ledger, tenants: Mapping[Any, str | None], error: BaseException
    ) -> None:
        """Note for each entry (id → tenant) that its rows could not be written, for a backfill to find."""
        table = self.binding.error.__table__
        message = message_of(error, tenants.values())
        values = [
            {
                "tenant_id": tenant,
                "ledger": ledger.name,
                "general_ledger_id": entry_id,
                "error": type(error).__name__,
                "message": message,
                "created_at": utc_now(),
            }
            for entry_id, tenant in tenants.items()
        ]
        if values:
            connection.execute(table.insert(), values)

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
        of_document = and_(table.c.source_type == document, table.c.source_id == document_id)
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
        """Mark the recorded failures of entries whose rows are all there by now; how many were marked.

        And of documents that a posted entry mentions by now.
        """
        table = self.binding.error.__table__
        noted = (table.c.ledger == ledger.name, table.c.resolved_at.is_(None), table.c.tenant_id == tenant_id)
        if not connection.scalar(select(select(table.c.id).where(*noted).exists())):
            return 0
        resolved = update(table).values(resolved_at=utc_now()).where(*noted)

        def of_noted(lines: Lines) -> list[ColumnElement[bool]]:
            entries = select(table.c.general_ledger_id).where(*noted, table.c.general_ledger_id.is_not(None))
            return [attribute(lines.entry, "id").in_(entries)]

        c = project(self.binding, self.settings, ledger, of_noted).subquery("noted").c
        item = aliased(ledger.item)
        lacking = (
            select(c.general_ledger_id)
            .outerjoin(item, attribute(item, "general_ledger_line_id") == c.general_ledger_line_id)
            .where(c.reason.is_(None), attribute(item, "id").is_(None))
        )
        of_entry = table.c.general_ledger_id.is_not(None)
        count = connection.execute(resolved.where(of_entry, table.c.general_ledger_id.not_in(lacking))).rowcount
        for document in ledger.documents:
            model = aliased(document.model)
            posted = select(attribute(model, "id")).where(
                attribute(model, "tenant_id") == tenant_id,
                mentioned(self.binding, self.settings, ledger, document, model),
            )
            of_document = table.c.source_type == document.name
            count += connection.execute(resolved.where(of_document, table.c.source_id.in_(posted))).rowcount
        return int(count)
