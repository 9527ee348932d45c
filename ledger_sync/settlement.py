"""Who has paid what, as one SELECT; pure.

``_wanted`` says which applications there must be, as a function of the open items and of what people settled
by hand, whatever arrived first: reversals cancel what they reverse, whole; hand-made settlements take what
reversals leave; the rest settles automatically. Oldest positive items meet oldest negative ones of the same
group: both are laid on a number line by running total, and each overlap is one application. ``difference``
compares that with the applications that are stored, which are a cache of it, kept by appending.

What was open on day D is the same function over what is dated until D.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    CTE,
    ColumnElement,
    Date,
    FromClause,
    Select,
    String,
    Subquery,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    select,
    type_coerce,
    union,
    union_all,
)

from ledger_sync.binding import Binding, Entity, Ledger, aliased, attribute
from ledger_sync.control_lines import is_one_of, mirrors
from ledger_sync.dialects import as_date, step
from ledger_sync.models.types import Money
from ledger_sync.overlaps import money, overlaps, rest
from ledger_sync.settings import Settings

BY_HAND = ("manual", "pin", "release")
"""The methods that people decide; all others follow from the items and from these."""

ItemRestriction = Callable[[Entity], Iterable[ColumnElement[bool]]]


@dataclass(frozen=True)
class Present:
    """What may be among the admitted items: lines of reversing entries, and items that somebody settled by hand.

    What is not there need not be looked for, which leaves of most settlements a third of the statement.
    """

    reversals: bool
    by_hand: bool


EVERYTHING: Final = Present(reversals=True, by_hand=True)


def remaining(
    binding: Binding, settings: Settings, ledger: Ledger, where: ItemRestriction, *, dated: bool
) -> Select[Any]:
    """What is open of each admitted item by the same function. Columns: line_id, remaining_amount.

    With ``dated``, on the day of the bound value ``as_of``; otherwise now.
    """
    items, by_hand, applications = _wanted(binding, settings, ledger, where, dated)
    parts = []
    for source in (applications, by_hand):
        parts.append(select(source.c.to_line_id.label("line_id"), (-source.c.amount).label("part")))
        parts.append(select(source.c.from_line_id.label("line_id"), source.c.amount.label("part")))
    settled = union_all(*parts).subquery("settled")
    sums = (
        select(settled.c.line_id, func.sum(settled.c.part).label("part")).group_by(settled.c.line_id).subquery("sums")
    )
    zero = literal(0, Money())
    return select(
        items.c.line_id, money(items.c.amount + func.coalesce(sums.c.part, zero)).label("remaining_amount")
    ).outerjoin(sums, sums.c.line_id == items.c.line_id)


def difference(
    binding: Binding,
    settings: Settings,
    ledger: Ledger,
    where: ItemRestriction,
    stored: ItemRestriction,
    present: Present = EVERYTHING,
) -> Select[Any]:
    """What to append to the stored applications, so that they are those that there must be.

    ``stored`` admits, of the stored applications, those that concern the same items. The bound value ``caused_on``
    dates an undoing (null: the day of what is undone).
    """
    target = _wanted(binding, settings, ledger, where, False, present, stored)[-1]
    application = aliased(ledger.application)
    have = select(
        application.tenant_id,
        application.from_line_id,
        application.to_line_id,
        application.method,
        (-application.amount).label("amount"),
        application.applied_on,
    ).where(*stored(application), ~is_one_of(application.method, BY_HAND))
    both = union_all(select(*target.c), have).subquery("both")
    c = both.c
    amount = func.sum(c.amount)
    caused_on = as_date(bindparam("caused_on", type_=Date()))
    last = func.max(c.applied_on)
    applied_on = case((and_(amount < 0, caused_on > last), caused_on), else_=last)
    return (
        select(
            c.tenant_id,
            c.from_line_id,
            c.to_line_id,
            c.method,
            money(amount).label("amount"),
            type_coerce(applied_on, Date()).label("applied_on"),
        )
        .group_by(c.from_line_id, c.to_line_id, c.method, c.tenant_id)
        .having(amount != 0)
    )


def settled_parts(
    ledger: Ledger,
    of_ends: Callable[[ColumnElement[Any]], ColumnElement[bool]],
    lines: Select[Any] | None = None,
) -> Subquery:
    """What the stored applications add to the amount of each item: columns line_id and part.

    ``of_ends`` says which applications count, by the column of one of their ends. ``lines`` have a part, of
    zero, even without any.
    """
    a = ledger.application.__table__
    parts = [
        select(a.c.to_line_id.label("line_id"), (-a.c.amount).label("part")).where(of_ends(a.c.to_line_id)),
        select(a.c.from_line_id, a.c.amount).where(of_ends(a.c.from_line_id)),
    ]
    if lines is not None:
        parts.append(lines.add_columns(literal(0, Money())))
    ends = union_all(*parts).subquery("ends")
    return select(ends.c.line_id, money(func.sum(ends.c.part)).label("part")).group_by(ends.c.line_id).subquery("sums")


def status_of(remaining_amount: ColumnElement[Any], amount: ColumnElement[Any]) -> ColumnElement[Any]:
    """The status of an item: a consequence of what remains of it."""
    return case(
        (remaining_amount == literal(0, Money()), "paid"),
        (remaining_amount == amount, "open"),
        else_="partially_paid",
    )


def _wanted(
    binding: Binding,
    settings: Settings,
    ledger: Ledger,
    where: ItemRestriction,
    dated: bool,
    present: Present = EVERYTHING,
    stored: ItemRestriction | None = None,
) -> tuple[CTE, CTE, CTE]:
    """The items that ``where`` admits, what people settled, and the applications that there must be.

    ``where`` admits whole settlement groups, and with an item all those that it was settled with by hand. ``stored``
    admits the applications that are looked at for what people settled: those of items that are gone as well, both of
    them even; without it those of the items.
    ``dated``: only what is dated until the bound value ``as_of``. Columns of the last: tenant_id, from_line_id,
    to_line_id, method, amount (positive), applied_on; hand-made rows themselves are not among them, but a hand-made
    settlement that a reversal overrides appears as ``undone`` with a negative amount.
    """
    items = _items(ledger, where, dated)
    by_hand = _by_hand(ledger, items, dated, stored)
    parts: list[Select[Any]] = []
    taken: list[CTE] = []
    if present.reversals or present.by_hand or settings.settlement == "off":
        reversals = _reversals(binding, ledger, items, where, dated)
        parts.append(select(*reversals.c))
        taken.append(reversals)
        if present.by_hand:
            holding, undone = _held(ledger, reversals, by_hand)
            parts.append(undone)
            taken.append(holding)
    free = _free(ledger, items, taken, dated)
    if settings.settlement != "off":
        by_key = overlaps(binding, free, "reference", ("party_id", "account_number", "settlement_key", "tenant_id"))
        parts.append(select(*by_key.c))
        if settings.settlement == "oldest_first":
            left = rest(free, by_key)
            parts.append(
                select(*overlaps(binding, left, "oldest_first", ("party_id", "account_number", "tenant_id")).c)
            )
    return items, by_hand, union_all(*parts).cte(step("applications"))


def _items(ledger: Ledger, where: ItemRestriction, dated: bool) -> CTE:
    """The admitted items."""
    item = aliased(ledger.item)
    columns = {"line_id": "general_ledger_line_id", "party_id": ledger.party}
    columns |= {
        name: name for name in ("tenant_id", "account_number", "settlement_key", "kind", "amount", "entry_date")
    }
    query = select(*(attribute(item, name).label(label) for label, name in columns.items()))
    if ledger.adopts:
        query = query.where(attribute(item, "general_ledger_line_id").is_not(None))
    return query.where(*where(item), *_until(item, dated)).cte(step("items"))


def _reversals(binding: Binding, ledger: Ledger, items: CTE, where: ItemRestriction, dated: bool) -> CTE:
    """Each line of a reversing entry with the line that it reverses, whole."""
    c, old = items.c, aliased(ledger.item)
    line, entry, mirrored = aliased(binding.line), aliased(binding.entry), aliased(binding.line)
    old_line, old_date = attribute(old, "general_ledger_line_id"), attribute(old, "entry_date")
    query = (
        select(
            c.tenant_id,
            case((c.amount < 0, c.line_id), else_=old_line).label("from_line_id"),
            case((c.amount < 0, old_line), else_=c.line_id).label("to_line_id"),
            literal("reversal", String()).label("method"),
            money(func.abs(c.amount)).label("amount"),
            case((old_date > c.entry_date, old_date), else_=c.entry_date).label("applied_on"),
        )
        .join(line, attribute(line, "id") == c.line_id)
        .join(entry, attribute(entry, "id") == attribute(line, "general_ledger_id"))
        .join(mirrored, mirrors(mirrored, line, entry))
    )
    # the table itself, by its key: the planner knows nothing of how many of the items are reversals
    query = query.join(
        old,
        and_(
            old_line == attribute(mirrored, "id"),
            attribute(old, "tenant_id") == c.tenant_id,
            attribute(old, ledger.party) == c.party_id,
            attribute(old, "account_number") == c.account_number,
            attribute(old, "amount") == -c.amount,
        ),
    )
    return query.where(c.kind == "reversal", *where(old), *_until(old, dated)).cte(step("reversals"))


def _until(item: Entity, dated: bool) -> list[ColumnElement[bool]]:
    """With ``dated``, the restriction to items until the bound value ``as_of``."""
    day = attribute(item, "entry_date")
    return [day <= bindparam("as_of", type_=day.type)] if dated else []


def _by_hand(ledger: Ledger, items: CTE, dated: bool, stored: ItemRestriction | None) -> CTE:
    """What people settled, net per pair."""
    a = aliased(ledger.application)
    if stored is None:
        # one way at a time: of two with an OR between them, a database looks through all items for each row
        ends = [select(e.id).where(end.in_(select(items.c.line_id)), e.method == "manual") for e, end in _ends(ledger)]
        admitted = [a.id.in_(union(*ends))]
    else:
        admitted = [*stored(a), is_one_of(a.method, ["manual"])]
    query = select(
        a.tenant_id, a.from_line_id, a.to_line_id, func.sum(a.amount).label("amount"), func.max(a.id).label("newest")
    ).where(*admitted)
    if dated:
        query = query.where(a.applied_on <= bindparam("as_of", type_=Date()))
    return (
        query.group_by(a.tenant_id, a.from_line_id, a.to_line_id).having(func.sum(a.amount) != 0).cte(step("by_hand"))
    )


def _ends(ledger: Ledger) -> list[tuple[Any, ColumnElement[Any]]]:
    """Aliases of the applications, each with one of its two ends."""
    first, second = aliased(ledger.application), aliased(ledger.application)
    return [(first, first.from_line_id), (second, second.to_line_id)]


def _held(ledger: Ledger, reversals: CTE, by_hand: CTE) -> tuple[CTE, Select[Any]]:
    """The hand-made settlements that hold, and the undoing of those that do not.

    One that a reversal overrides does not hold, nor one whose item is gone or is now on another party. Where that
    leaves more settled than there is of an item (one that came back from another party, say), the newest give way.
    """
    negative, positive, h = aliased(ledger.item), aliased(ledger.item), by_hand.c
    reversed_ends = union_all(
        select(reversals.c.from_line_id.label("line_id"), reversals.c.applied_on),
        select(reversals.c.to_line_id, reversals.c.applied_on),
    ).subquery("reversed_ends")
    # a line is reversed once, but a reversing line is an end as well
    days = (
        select(reversed_ends.c.line_id, func.max(reversed_ends.c.applied_on).label("applied_on"))
        .group_by(reversed_ends.c.line_id)
        .subquery("reversed_days")
    )
    from_day, to_day = days.alias("from_reversed"), days.alias("to_reversed")
    both_days = (from_day.c.applied_on, to_day.c.applied_on)
    reversed_on = case((both_days[0] > both_days[1], both_days[0]), else_=func.coalesce(*reversed(both_days)))
    alike = and_(
        *(
            attribute(negative, name) == attribute(positive, name)
            for name in ("tenant_id", ledger.party, "account_number")
        )
    )
    checked = (
        select(
            h.tenant_id,
            h.from_line_id,
            h.to_line_id,
            h.amount,
            h.newest,
            case((alike, 1), else_=0).label("alike"),
            type_coerce(reversed_on, Date()).label("reversed_on"),
            func.abs(attribute(negative, "amount")).label("from_amount"),
            attribute(positive, "amount").label("to_amount"),
        )
        .select_from(by_hand)
        .outerjoin(negative, attribute(negative, "general_ledger_line_id") == h.from_line_id)
        .outerjoin(positive, attribute(positive, "general_ledger_line_id") == h.to_line_id)
        .outerjoin(from_day, from_day.c.line_id == h.from_line_id)
        .outerjoin(to_day, to_day.c.line_id == h.to_line_id)
        .cte(step("hand_checked"))
    )
    c = checked.c

    def room(end: str) -> ColumnElement[Any]:
        """What the older ones leave of an item for this one."""
        upto = func.sum(c.amount).over(partition_by=c[f"{end}_line_id"], order_by=c.newest, rows=(None, 0))
        return (c[f"{end}_amount"] - upto + c.amount).label(f"{end}_room")

    standing = (
        select(c.tenant_id, c.from_line_id, c.to_line_id, c.amount, room("from"), room("to"))
        .where(c.alike == 1, c.reversed_on.is_(None))
        .subquery("hand_standing")
    )
    t = standing.c
    least = case((t.from_room < t.to_room, t.from_room), else_=t.to_room)
    holding = (
        select(
            t.tenant_id,
            t.from_line_id,
            t.to_line_id,
            money(case((t.amount < least, t.amount), else_=least)).label("amount"),
        )
        .where(least > 0)
        .cte(step("holding"))
    )
    g = holding.c
    excess = c.amount - func.coalesce(g.amount, literal(0, Money()))
    undone = (
        select(
            c.tenant_id,
            c.from_line_id,
            c.to_line_id,
            literal("undone", String()),
            money(-excess),
            func.coalesce(c.reversed_on, as_date(bindparam("caused_on", type_=Date())), func.current_date()),
        )
        .select_from(checked)
        .outerjoin(holding, and_(g.from_line_id == c.from_line_id, g.to_line_id == c.to_line_id))
        .where(excess != 0)
    )
    return holding, undone


def _free(ledger: Ledger, items: CTE, takers: Sequence[CTE], dated: bool) -> CTE:
    """What reversals and hand-made settlements, the ``takers``, leave of each item, as a magnitude.

    A payment that somebody took off an invoice (a pin) stays out until it is released.
    """
    pin = aliased(ledger.application)
    weight = case((pin.method == "pin", 1), else_=-1)
    # the words as the index of what was decided by hand has them: SQLite takes it for nothing less
    by_hand = pin.method.in_([literal_column(f"'{method}'", String()) for method in BY_HAND])
    pins = select(pin.from_line_id, pin.to_line_id).where(by_hand, is_one_of(pin.method, ("pin", "release")))
    if dated:
        pins = pins.where(pin.applied_on <= bindparam("as_of", type_=Date()))
    pins = pins.group_by(pin.from_line_id, pin.to_line_id).having(func.sum(weight) > 0)
    pairs = pins.subquery("pinned_pairs")
    pinned = select(pairs.c.from_line_id.label("line_id")).distinct().subquery("pinned")
    magnitude: ColumnElement[Any] = func.abs(items.c.amount)
    joined: FromClause = items
    if takers:
        ends = [select(t.c[end].label("line_id"), t.c.amount) for t in takers for end in ("from_line_id", "to_line_id")]
        taken = union_all(*ends).subquery("taken")
        total = select(taken.c.line_id, func.sum(taken.c.amount).label("amount"))
        sums = total.group_by(taken.c.line_id).subquery("sums")
        magnitude = magnitude - func.coalesce(sums.c.amount, literal(0, Money()))
        joined = items.outerjoin(sums, sums.c.line_id == items.c.line_id)
    return (
        select(*items.c, money(magnitude).label("free"), case((items.c.amount > 0, 1), else_=-1).label("sign"))
        .select_from(joined.outerjoin(pinned, pinned.c.line_id == items.c.line_id))
        .where(magnitude > 0, pinned.c.line_id.is_(None))
        .cte(step("free"))
    )
