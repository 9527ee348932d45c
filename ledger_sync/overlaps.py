"""The oldest meet the oldest: items of both signs on one number line by running total; each overlap is a pair.

The arithmetic of automatic settlement, of whatever groups of items; pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import CTE, ColumnElement, Select, String, case, func, literal, select, type_coerce, union_all

from ledger_sync.attributes import as_key, sortable_key
from ledger_sync.binding import Binding, aliased, attribute
from ledger_sync.dialects import binary_order, characters, plain, step
from ledger_sync.models.types import Money


def money(expression: ColumnElement[Any]) -> ColumnElement[Any]:
    """An expression that is an amount."""
    return type_coerce(expression, Money())


def overlaps(binding: Binding, free: CTE, method: str, group_by: Sequence[str]) -> CTE:
    """Lay the positive and the negative items of each group on one number line; each overlap is a pair.

    Both signs are added up in the order of settlement. Between two neighbouring ends of items lies a segment that
    belongs to one positive and one negative item: the first of each that ends there or later. Those are found
    with window functions alone, so the work grows with the number of items, not with its square. In a group of two,
    an invoice and its payment, which most groups are, there is one overlap and no order to find.
    """
    c = free.c
    # by code points, which is quicker to sort by than a language's order; from here on a group is a number
    keys = [binary_order(c[name]) if isinstance(plain(c[name].type), String) else c[name] for name in group_by]
    grouped = (
        select(
            c.tenant_id,
            c.line_id,
            c.entry_date,
            c.free,
            c.sign,
            func.dense_rank().over(order_by=keys).label("group_number"),
            func.count().over(partition_by=keys).label("items_count"),
        )
        .where(*(c[name].is_not(None) for name in group_by))
        .cte(step(f"{method}_grouped"))
    )
    return union_all(_twos(grouped, method), _segments(binding, grouped, method)).cte(step(f"{method}_pairs"))


def _twos(grouped: CTE, method: str) -> Select[Any]:
    """The overlaps of the groups of two."""
    c = grouped.c

    def end(sign: int, name: str) -> ColumnElement[Any]:
        return func.max(case((c.sign == sign, sortable_key(c[name]))))

    return (
        select(
            as_key(func.min(sortable_key(c.tenant_id)), c.tenant_id.type).label("tenant_id"),
            as_key(end(-1, "line_id"), c.line_id.type).label("from_line_id"),
            as_key(end(1, "line_id"), c.line_id.type).label("to_line_id"),
            literal(method, String()).label("method"),
            money(func.min(c.free)).label("amount"),
            func.max(c.entry_date).label("applied_on"),
        )
        .where(c.items_count == 2)
        .group_by(c.group_number)
        .having(func.sum(c.sign) == 0)
    )


def _segments(binding: Binding, grouped: CTE, method: str) -> Select[Any]:
    """The overlaps of the groups of more than two."""
    c = grouped.c
    line, entry = aliased(binding.line), aliased(binding.entry)
    running = (
        select(
            c.group_number,
            c.tenant_id,
            c.line_id,
            c.entry_date,
            c.sign,
            func.sum(c.free)
            .over(
                partition_by=[c.group_number, c.sign],
                order_by=(c.entry_date, *voucher_order(entry), attribute(line, "line_number"), c.line_id),
                rows=(None, 0),
            )
            .label("upto"),
        )
        .outerjoin(line, attribute(line, "id") == c.line_id)
        .outerjoin(entry, attribute(entry, "id") == attribute(line, "general_ledger_id"))
        .where(c.items_count > 2)
        .subquery(f"{method}_running")
    )
    r = running.c
    ends: list[ColumnElement[Any]] = []
    for side, sign in (("from", -1), ("to", 1)):
        ends.append(func.max(case((r.sign == sign, sortable_key(r.line_id)))).label(f"{side}_line_id"))
        ends.append(func.max(case((r.sign == sign, r.entry_date))).label(f"{side}_date"))
    points = (
        select(r.group_number, r.upto, r.tenant_id, *ends)
        .group_by(r.group_number, r.upto, r.tenant_id)
        .subquery(f"{method}_points")
    )
    t = points.c
    along: dict[str, Any] = {"partition_by": t.group_number, "order_by": t.upto}
    before = func.coalesce(func.lag(t.upto).over(**along), literal(0, Money()))
    # counted from the far end, all segments of one item have the same number
    numbered = select(
        *t,
        (t.upto - before).label("amount"),
        func.count(t.from_line_id).over(**along, rows=(0, None)).label("from_number"),
        func.count(t.to_line_id).over(**along, rows=(0, None)).label("to_number"),
    ).subquery(f"{method}_numbered")
    n = numbered.c
    filled: list[ColumnElement[Any]] = []
    for side in ("from", "to"):
        # of the last point of an item, which is its end; a maximum over a large partition takes MariaDB its square
        of_item: dict[str, Any] = {"partition_by": [n.group_number, n[f"{side}_number"]], "order_by": n.upto.desc()}
        filled += [
            func.first_value(n[name], type_=n[name].type).over(**of_item).label(name)
            for name in (f"{side}_line_id", f"{side}_date")
        ]
    # the point at which an item ends may lie beyond the last overlap, so the cut comes after the filling
    segments = select(n.tenant_id, n.amount, n.from_number, n.to_number, *filled).subquery(f"{method}_segments")
    g = segments.c
    return select(
        g.tenant_id,
        as_key(g.from_line_id, c.line_id.type).label("from_line_id"),
        as_key(g.to_line_id, c.line_id.type).label("to_line_id"),
        literal(method, String()).label("method"),
        money(g.amount).label("amount"),
        case((g.from_date > g.to_date, g.from_date), else_=g.to_date).label("applied_on"),
    ).where(g.from_number > 0, g.to_number > 0)


def voucher_order(
    entry: Any, named: Callable[[Any, str], ColumnElement[Any]] = attribute
) -> tuple[ColumnElement[Any], ...]:
    """The order of the vouchers of one day: by series and number; numbers of one length by code points.

    :param named: gives an attribute of the entry: ``getattr`` where it is the columns of a SELECT.
    """
    number, series, year = (named(entry, name) for name in ("voucher_number", "voucher_series", "fiscal_year"))
    return (binary_order(series), characters(number), binary_order(number), year)


def rest(free: CTE, pairs: CTE) -> CTE:
    """What the pairs leave of the free items."""
    used = union_all(
        select(pairs.c.from_line_id.label("line_id"), pairs.c.amount), select(pairs.c.to_line_id, pairs.c.amount)
    ).subquery("used")
    sums = (
        select(used.c.line_id, func.sum(used.c.amount).label("amount")).group_by(used.c.line_id).subquery("used_sums")
    )
    left = free.c.free - func.coalesce(sums.c.amount, literal(0, Money()))
    others = [column for column in free.c if column.name != "free"]
    return (
        select(*others, money(left).label("free"))
        .outerjoin(sums, sums.c.line_id == free.c.line_id)
        .where(left > 0)
        .cte(step("rest"))
    )
