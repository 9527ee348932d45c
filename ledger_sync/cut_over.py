"""What lies before a tenant's cut-over, and so has no row: entries, and what settles the documents of such entries.

Before the cut-over day nothing is in the subledger, so that what belongs to an invoice or an expense claim from before
stays out with it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from typing import Any

from sqlalchemy import ColumnElement, Date, and_, case, false, func, literal, null, or_, select, type_coerce
from sqlalchemy.types import TypeEngine

from ledger_sync.binding import Binding, Entity, Ledger, aliased, attribute
from ledger_sync.control_lines import Bool, in_own_direction, is_one_of, on_accounts, signed, source_types
from ledger_sync.dialects import unindexed
from ledger_sync.models.types import is_zoned
from ledger_sync.naming import target_of
from ledger_sync.settings import Settings


def _cut_over(settings: Settings, tenant_id: ColumnElement[Any], type_: Callable[[date], Any]) -> ColumnElement[Any]:
    """The cut-over of a row's tenant, or null; ``type_`` makes the value that is compared with."""
    days = settings.effective_from
    if days is None:
        return null()
    if isinstance(days, date):
        return literal(type_(days))
    if not days:
        return null()
    return case(*((tenant_id == tenant, literal(type_(day))) for tenant, day in days.items()), else_=null())


def cut_over_day(settings: Settings, tenant_id: ColumnElement[Any]) -> ColumnElement[Any]:
    """The day of the cut-over of a row's tenant, or null."""
    return type_coerce(_cut_over(settings, tenant_id, lambda day: day), Date())


def _midnight(moment: TypeEngine[Any]) -> Callable[[date], datetime]:
    """Midnight UTC of a day, for a column of moments; without a zone where the column has none."""
    zone = UTC if is_zoned(moment) else None
    return lambda day: datetime.combine(day, time(), tzinfo=zone)


def entry_before(settings: Settings, entry: Entity) -> Bool:
    """Whether an entry lies before its tenant's cut-over; by ``posted_at``, days begin at midnight UTC."""
    if not settings.effective_from:
        return false()
    if settings.effective_by == "posted_at":
        moment = attribute(entry, "posted_at")
        boundary = _cut_over(settings, attribute(entry, "tenant_id"), _midnight(moment.type))
        return func.coalesce(moment < type_coerce(boundary, moment.type), false())
    boundary = cut_over_day(settings, attribute(entry, "tenant_id"))
    return func.coalesce(attribute(entry, "entry_date") < boundary, false())


def before_cut_over(binding: Binding, settings: Settings, ledger: Ledger, c: Any) -> Bool:
    """Whether a line lies before the cut-over, or settles an invoice or a claim that does.

    A document lies before it when its own posted lines do; with no line posted at all, when its date does. (A
    credit note that credits no invoice counts as one, in the other direction.) Without this a payment of an old
    invoice would stay open for ever as a phantom credit.
    """
    opener = ledger.opener
    if not settings.effective_from or opener is None:
        return type_coerce(c.entry_before, false().type)

    def own_line(before: bool) -> Bool:
        ways: list[Bool] = []
        for by_link in (True, False):
            line, entry, link = aliased(binding.line), aliased(binding.entry), aliased(binding.link)
            document, holder = aliased(opener.model), link if by_link else entry
            amount = signed(line, settings.of_ledger(ledger.name))
            query = (
                select(line.id)
                .join(entry, entry.id == line.general_ledger_id)
                .join(link, link.line_id == line.id, isouter=not by_link)
                .join(document, attribute(document, "id") == holder.source_id)
                .where(
                    holder.source_id == c.settled_id,
                    is_one_of(attribute(holder, "source_type"), source_types(settings, ledger, opener)),
                    unindexed(attribute(entry, "tenant_id") == c.tenant_id),
                    attribute(entry, "posted"),
                    attribute(entry, "reverses_id").is_(None),
                    on_accounts(attribute(line, "account_number"), settings.of_ledger(ledger.name)),
                    target_of(document, opener) == attribute(document, "id"),
                    amount != 0,
                    in_own_direction(opener, document, amount),
                    entry_before(settings, entry) if before else ~entry_before(settings, entry),
                    attribute(link, "kind").is_(None) if by_link else link.line_id.is_(None),
                )
            )
            ways.append(query.exists())
        return or_(*ways)

    settled = aliased(opener.model)
    dated_before = (
        select(attribute(settled, "id"))
        .where(
            attribute(settled, "id") == c.settled_id,
            unindexed(attribute(settled, "tenant_id") == c.tenant_id),
            attribute(settled, opener.date) < cut_over_day(settings, attribute(settled, "tenant_id")),
        )
        .exists()
    )
    # a document's own line settles nothing; everything else that refers to one does
    settles = and_(c.settled_id.is_not(None), ~c.opens)
    return or_(c.entry_before, and_(settles, ~own_line(before=False), or_(own_line(before=True), dated_before)))
