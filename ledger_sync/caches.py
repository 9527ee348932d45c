"""What is stored in more than one place, and where the places do not agree: a SELECT for each kind; reads only.

A row's remaining amount and status are what its applications leave; the automatic applications are what the items say;
what a row copies is what its line and its document say. A repair mends the three.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Select, String, and_, bindparam, case, func, literal, or_, select, type_coerce

from ledger_sync.binding import Binding, Entity, Ledger, aliased, attribute
from ledger_sync.control_lines import Bool, of_tenant, posted_of_tenant
from ledger_sync.projection import ITEM_COLUMNS, project
from ledger_sync.settings import Settings
from ledger_sync.settlement import difference, settled_parts, status_of

COPIED: Final = tuple(
    name
    for name in ITEM_COLUMNS
    if name not in {"tenant_id", "general_ledger_line_id", "account_number", "party_id", "amount"}
)
"""What a row copies from its line and document, besides what the proof compares as a cause."""


def remaining_differs(ledger: Ledger) -> Select[Any]:
    """Rows whose remaining amount or status is not what the applications leave."""
    item, application = aliased(ledger.item), ledger.application.__table__
    tenant = application.c.tenant_id
    sums = settled_parts(ledger, lambda end: tenant == bindparam("tenant", type_=tenant.type))
    amount, remaining = attribute(item, "amount"), attribute(item, "remaining_amount")
    left = type_coerce(amount + func.coalesce(sums.c.part, 0), amount.type)
    state = status_of(left, amount)
    return (
        select(
            attribute(item, "id").label("subject_id"),
            attribute(item, "general_ledger_line_id").label("line_id"),
            remaining.label("remaining_amount"),
            attribute(item, "status").label("status"),
            left.label("left"),
            state.label("state"),
        )
        .outerjoin(sums, sums.c.line_id == attribute(item, "general_ledger_line_id"))
        .where(of_tenant(item), or_(remaining != left, attribute(item, "status") != state))
        .where(attribute(item, "general_ledger_line_id").is_not(None))
        .order_by(attribute(item, "id"))
    )


def application_differs(binding: Binding, settings: Settings, ledger: Ledger) -> Select[Any]:
    """What would have to be appended for the stored applications to be what the items say."""

    def own(entity: Entity) -> list[Bool]:
        return [of_tenant(entity)]

    rows = difference(binding, settings, ledger, own, own).subquery("differing")
    c = rows.c
    return select(c.from_line_id.label("subject_id"), *c).order_by(c.from_line_id, c.to_line_id, c.method)


def copied_data_differs(binding: Binding, settings: Settings, ledger: Ledger) -> Select[Any]:
    """Rows of eligible lines whose columns differ that the proof does not compare as a cause.

    Columns: subject_id, line_id, differing (the names of the columns). Bound value: ``tenant``.
    """
    projected = project(binding, settings, ledger, posted_of_tenant).subquery("projected")
    item, p = aliased(ledger.item), projected.c
    stored = [name for name in COPIED if ledger.stores(name)]
    differs = {name: attribute(item, name).is_distinct_from(p[name]) for name in stored}
    names: ColumnElement[Any] = literal("", String())
    for name, condition in differs.items():
        names = names + case((condition, literal(f"{name} ", String())), else_=literal("", String()))
    same_item = and_(
        attribute(item, "general_ledger_line_id") == p.general_ledger_line_id,
        attribute(item, "tenant_id") == p.tenant_id,
        attribute(item, "account_number") == p.account_number,
    )
    return (
        select(
            attribute(item, "id").label("subject_id"),
            p.general_ledger_line_id.label("line_id"),
            type_coerce(names, String()).label("differing"),
        )
        .select_from(projected)
        .join(item, same_item)
        .where(p.reason.is_(None), or_(*differs.values()))
        .order_by(attribute(item, "id"))
    )
