"""Both sides of a control account laid side by side: each posted control line with its item, and the items left over.

``compared`` gives every line and item with its cause, ``totals`` what they add up to; one statement each, so that both
sides are read in one snapshot.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    and_,
    bindparam,
    case,
    func,
    literal,
    null,
    select,
    type_coerce,
    union_all,
)

from ledger_sync.binding import Binding, Ledger, aliased, attribute
from ledger_sync.control_lines import Lines, of_tenant, posted_of_tenant
from ledger_sync.models.types import ZERO, Money
from ledger_sync.projection import project
from ledger_sync.settings import Settings

ALL_ITEMS: Final = "all_items"
"""In the totals of an account, in place of a cause: all of its items, whether a line accounts for them or not."""


LEFT_OVER: Final = frozenset({"orphan", "not_adopted"})
"""The causes of items that no eligible line accounts for; lines, too, may be ``not_adopted``."""


def totals(binding: Binding, settings: Settings, ledger: Ledger, *, dated: bool) -> Select[Any]:
    """What the lines of each account and cause add up to, and what all items of each account do, in one snapshot.

    What the items have beyond those that a line accounts for are the orphans, so nobody need look for them.
    """
    lines = of_lines(binding, settings, ledger, dated=dated).subquery("of_lines").c
    items = _of_items(binding, settings, ledger, dated=dated).subquery("of_items").c
    # grouped above the union, where a planner does not take the causes for as many as there are lines
    both = union_all(
        select(lines.account_number, lines.cause, lines.gl_amount, lines.item_amount),
        select(
            items.account_number,
            case((items.general_ledger_line_id.is_(None), "not_adopted"), else_=ALL_ITEMS),
            literal(ZERO, Money()),
            items.amount,
        ),
    )
    c = both.subquery("both").c
    return select(
        c.account_number,
        c.cause,
        func.count().label("lines"),
        type_coerce(func.sum(c.gl_amount), Money()).label("gl_amount"),
        type_coerce(func.sum(c.item_amount), Money()).label("item_amount"),
    ).group_by(c.account_number, c.cause)


def compared(binding: Binding, settings: Settings, ledger: Ledger, *, dated: bool = False) -> Select[Any]:
    """One row per posted control line with its item, and one per item that no eligible line accounts for.

    Bound values: ``tenant``, and with ``dated`` ``as_of``.
    """
    sides = (of_lines(binding, settings, ledger, dated=dated), left_over(binding, settings, ledger, dated=dated))
    return select(*union_all(*sides).subquery("both_sides").c)


def left_over(binding: Binding, settings: Settings, ledger: Ledger, *, dated: bool) -> Select[Any]:
    """The items of the tenant that no eligible line accounts for, each with its cause."""
    every = project(binding, settings, ledger, posted_of_tenant).subquery("every")
    items = _of_items(binding, settings, ledger, dated=dated).subquery("of_items").c
    accounted = (
        select(every.c.general_ledger_line_id)
        .where(
            every.c.general_ledger_line_id == items.general_ledger_line_id,
            every.c.tenant_id == items.tenant_id,
            every.c.account_number == items.account_number,
            every.c.reason.is_(None),
        )
        .exists()
    )
    return select(
        items.account_number,
        case((items.general_ledger_line_id.is_(None), "not_adopted"), else_="orphan").label("cause"),
        items.general_ledger_id,
        items.general_ledger_line_id,
        null().label("fiscal_year"),
        null().label("voucher_series"),
        null().label("voucher_number"),
        items.entry_date,
        literal(ZERO, Money()).label("gl_amount"),
        items.amount.label("item_amount"),
    ).where(~accounted)


def of_lines(binding: Binding, settings: Settings, ledger: Ledger, *, dated: bool) -> Select[Any]:
    """The posted control lines of the tenant, each with its cause and its item's amount."""

    def posted(lines: Lines) -> list[ColumnElement[bool]]:
        conditions = posted_of_tenant(lines)
        if dated:
            entry_date = attribute(lines.entry, "entry_date")
            conditions.append(entry_date <= bindparam("as_of", type_=entry_date.type))
        return conditions

    lines = project(binding, settings, ledger, posted).subquery("lines")
    item = aliased(ledger.item)
    p, zero = lines.c, literal(ZERO, Money())
    cause = case(
        (p.reason.is_not(None), p.reason),
        (attribute(item, "id").is_(None), "missing"),
        (attribute(item, "amount") != p.amount, "amount_differs"),
        (attribute(item, ledger.party) != p.party_id, "wrong_party"),
        else_=null(),
    )
    matching = and_(
        p.reason.is_(None),
        attribute(item, "general_ledger_line_id") == p.general_ledger_line_id,
        attribute(item, "tenant_id") == p.tenant_id,
        attribute(item, "account_number") == p.account_number,
    )
    return (
        select(
            p.account_number,
            type_coerce(cause, String()).label("cause"),
            p.general_ledger_id,
            p.general_ledger_line_id,
            p.fiscal_year,
            p.voucher_series,
            p.voucher_number,
            p.entry_date,
            type_coerce(p.amount, Money()).label("gl_amount"),
            type_coerce(func.coalesce(attribute(item, "amount"), zero), Money()).label("item_amount"),
        )
        .select_from(lines)
        .outerjoin(item, matching)
    )


def _of_items(binding: Binding, settings: Settings, ledger: Ledger, *, dated: bool) -> Select[Any]:
    """The items of the tenant. With ``dated``, until then by their line's date, or their own where it is gone.

    So an item whose line is dated later belongs to that later day, whatever the item's own copy says. A row from
    before that names no account counts under the ledger's first.
    """
    item = aliased(ledger.item)
    names = ("tenant_id", "general_ledger_id", "general_ledger_line_id", "entry_date", "amount")
    own_date = attribute(item, "entry_date")
    account_number = attribute(item, "account_number")
    if ledger.adopts:
        account_number = func.coalesce(account_number, literal(settings.first_account(ledger.name), String()))
    columns = (attribute(item, name).label(name) for name in names)
    query = select(*columns, account_number.label("account_number")).where(of_tenant(item))
    if not dated:
        return query
    line, entry = aliased(binding.line), aliased(binding.entry)
    day = func.coalesce(attribute(entry, "entry_date"), own_date, type_=own_date.type)
    return (
        query.outerjoin(line, attribute(line, "id") == attribute(item, "general_ledger_line_id"))
        .outerjoin(entry, attribute(entry, "id") == attribute(line, "general_ledger_id"))
        .where(day <= bindparam("as_of", type_=own_date.type))
    )
