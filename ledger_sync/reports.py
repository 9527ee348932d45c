"""What is open, to whom, since when. Reads only.

``open_items`` lists the items of one tenant that are not settled, ``ageing`` adds them up by how long they are
overdue. As of a date they never look at today's remaining amounts: they ask the settlement SELECT for what is
dated until then. Every total is the subledger's balance of its date.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    and_,
    bindparam,
    case,
    func,
    inspect,
    literal,
    null,
    select,
    type_coerce,
)
from sqlalchemy.orm import Session

from ledger_sync.binding import Binding, Entity, Ledger, aliased, attribute
from ledger_sync.control_lines import is_party, voucher_columns, voucher_text
from ledger_sync.errors import ConfigurationError
from ledger_sync.models.types import ZERO, Money
from ledger_sync.results import Result
from ledger_sync.settings import Settings
from ledger_sync.settlement import remaining, status_of

BUCKET_DAYS_MAX: Final = 36_500
"""A hundred years, so that no bucket ends before the calendar begins."""


class OpenItem(Result):
    """One open item. Amounts are positive when owed in the ledger's normal direction.

    ``voucher`` is null for an orphan whose entry is gone.
    """

    ledger: str
    tenant_id: Any
    account_number: str
    party_id: Any
    party_number: str | None
    party_name: str | None
    general_ledger_id: Any
    general_ledger_line_id: Any
    voucher: str | None
    source_type: str
    source_id: Any
    kind: str
    invoice_number: str | None
    invoice_date: date | None
    due_date: date | None
    entry_date: date
    currency: str
    currency_amount: Decimal | None
    amount: Decimal
    remaining_amount: Decimal
    status: str


def _once_each(settings: Settings, ledgers: Sequence[str] | None) -> Iterable[str]:
    """The ledgers that are asked for, all unless given: one that is named twice is no more than once in the books."""
    return dict.fromkeys(settings.ledgers() if ledgers is None else ledgers)


def open_items(
    session: Session,
    binding: Binding,
    settings: Settings,
    tenant_id: Any,
    *,
    ledgers: Sequence[str] | None = None,
    party_id: Any = None,
    as_of: date | None = None,
    include_settled: bool = False,
    limit: int | None = None,
) -> tuple[OpenItem, ...]:
    """The open items of one tenant, by ledger, party and date; the first ``limit`` of them."""
    found: list[OpenItem] = []
    for name in _once_each(settings, ledgers):
        if len(found) == limit:
            break
        ledger = binding.ledger(name)
        connection = session.connection(bind_arguments={"mapper": inspect(ledger.item)})
        shape = {"dated": as_of is not None, "of_party": party_id is not None, "settled": include_settled}
        key = ("open items", ledger.name, *shape.values())
        query = binding.once(settings, key, lambda: listed(binding, settings, ledger, **shape))  # noqa: B023 - built at once
        parameters = {"tenant": tenant_id, "party": party_id, "as_of": as_of, "caused_on": None}
        if limit is not None:
            query = query.limit(limit - len(found))
        found += [_open_item(ledger, row) for row in connection.execute(query, parameters)]
    return tuple(found)


def _open_item(ledger: Ledger, row: Any) -> OpenItem:
    values = dict(row._mapping)
    values["voucher"] = None if row.voucher_number is None else voucher_text(row)
    for name in ("voucher_series", "voucher_number", "fiscal_year"):
        del values[name]
    return OpenItem(ledger=ledger.name, **values)


def items_of_lines(
    connection: Connection, binding: Binding, settings: Settings, ledger: Ledger, line_ids: Sequence[Any]
) -> tuple[OpenItem, ...]:
    """The open items, settled or not, of some lines."""
    source = _Source(binding, settings, ledger, dated=False)
    query = source.query.where(attribute(source.item, "general_ledger_line_id").in_(line_ids))
    return tuple(_open_item(ledger, row) for row in connection.execute(query))


def listed(
    binding: Binding, settings: Settings, ledger: Ledger, *, dated: bool, of_party: bool, settled: bool = True
) -> Select[Any]:
    """The open items, settled or not, of the tenant and party that are bound as ``tenant`` and ``party``.

    Without ``settled``, those that something is left of.
    """
    source = _Source(binding, settings, ledger, dated=dated)
    party, tenant = attribute(source.item, ledger.party), attribute(source.item, "tenant_id")
    query = source.query.where(tenant == bindparam("tenant", type_=tenant.type))
    if of_party:
        query = query.where(party == bindparam("party", type_=party.type))
    if not settled:
        query = query.where(source.left != 0)
    return query.order_by(party, attribute(source.item, "entry_date"), attribute(source.item, "general_ledger_line_id"))


class _Source:
    """Open items with their voucher, their party and what is left of them; ``query`` selects what an OpenItem has.

    With ``dated``, what was left at the end of the day of the bound value ``as_of``, of one tenant's items.
    """

    def __init__(self, binding: Binding, settings: Settings, ledger: Ledger, *, dated: bool) -> None:
        self.item: Entity = aliased(ledger.item)
        item, entry = self.item, aliased(binding.entry)
        party, tenant = attribute(item, ledger.party), attribute(item, "tenant_id")
        self.left = attribute(item, "remaining_amount")
        then = None
        if dated:
            then = remaining(
                binding,
                settings,
                ledger,
                lambda alias: [attribute(alias, "tenant_id") == bindparam("tenant", type_=tenant.type)],
                dated=True,
            ).subquery("then")
            self.left = then.c.remaining_amount
        holder = aliased(ledger.party_model) if ledger.party_model is not None else None
        self.party_number = attribute(holder, "number") if holder is not None else null()
        self.party_name = attribute(holder, "name") if holder is not None else null()
        currency = attribute(item, "currency") if ledger.stores("currency") else literal(settings.currency, String())
        query = (
            select(
                *(attribute(item, name).label(name) for name in COPIED if name != "currency"),
                currency.label("currency"),
                party.label("party_id"),
                self.left.label("remaining_amount"),
                status_of(self.left, attribute(item, "amount")).label("status"),
                *voucher_columns(entry),
                self.party_number.label("party_number"),
                self.party_name.label("party_name"),
            )
            .select_from(item)
            .outerjoin(entry, attribute(entry, "id") == attribute(item, "general_ledger_id"))
        )
        if then is not None:
            query = query.join(then, then.c.line_id == attribute(item, "general_ledger_line_id"))
        if holder is not None:
            query = query.outerjoin(holder, is_party(holder, party, tenant))
        if ledger.adopts:
            # a row from before is no open item until it is adopted; the proof counts it by itself
            query = query.where(attribute(item, "general_ledger_line_id").is_not(None))
        self.query = query


COPIED: Final = (
    "tenant_id",
    "account_number",
    "general_ledger_id",
    "general_ledger_line_id",
    "source_type",
    "source_id",
    "kind",
    "invoice_number",
    "invoice_date",
    "due_date",
    "entry_date",
    "currency",
    "currency_amount",
    "amount",
)
"""What an ``OpenItem`` has from its row as it stands there."""


# -- ageing --------------------------------------------------------------------------------------------


class AgeingRow(Result):
    """What one party owes, or is owed, by how long it is overdue.

    ``overdue``: one amount per bucket of the ``Ageing``. ``credits``: what is open in the other direction, negative,
    in a column of its own. ``total``: all of them. ``without_due_date``: the share of what is owed that
    has no due date and is counted by the document's date.
    """

    ledger: str
    party_id: Any
    party_number: str | None
    party_name: str | None
    not_due: Decimal
    overdue: tuple[Decimal, ...]
    credits: Decimal
    total: Decimal
    without_due_date: Decimal


class Ageing(Result):
    """Open items by how long they are overdue on a day. ``buckets`` names the columns of ``overdue``."""

    tenant_id: Any
    as_of: date
    buckets: tuple[str, ...]
    rows: tuple[AgeingRow, ...]

    def total(self, ledger: str) -> Decimal:
        """All that is open in a ledger: the subledger's balance of that day."""
        return sum((row.total for row in self.rows if row.ledger == ledger), ZERO)


def ageing(
    session: Session,
    binding: Binding,
    settings: Settings,
    tenant_id: Any,
    *,
    as_of: date | None = None,
    today: date,
    ledgers: Sequence[str] | None = None,
    buckets: Sequence[int] = (30, 60, 90),
) -> Ageing:
    """Open items by how long they are overdue; ``as_of`` None means what is open now, as seen on ``today``.

    :param buckets: the last day of each bucket but the last; (30, 60, 90) gives 1-30, 31-60, 61-90 and over 90.
    """
    if (
        not buckets
        or any(not 1 <= days <= BUCKET_DAYS_MAX for days in buckets)
        or list(buckets) != sorted(set(buckets))
    ):
        raise ConfigurationError(
            f"buckets={tuple(buckets)!r} must be days from 1 to {BUCKET_DAYS_MAX:,}, each more than the one before."
        )
    day = as_of or today
    firsts = [1, *(days + 1 for days in buckets)]
    labels = [f"{first}-{last}" for first, last in zip(firsts, buckets, strict=False)] + [f"over {buckets[-1]}"]
    rows: list[AgeingRow] = []
    for name in _once_each(settings, ledgers):
        ledger = binding.ledger(name)
        connection = session.connection(bind_arguments={"mapper": inspect(ledger.item)})
        query = _aged(binding, settings, ledger, day, buckets, dated=as_of is not None)
        for row in connection.execute(query, {"tenant": tenant_id, "as_of": as_of, "caused_on": None}):
            values = row._mapping
            overdue = tuple(values[f"overdue_{index}"] for index in range(len(labels)))
            known = {name: values[name] for name in AgeingRow.model_fields if name in values}
            rows.append(AgeingRow(ledger=ledger.name, overdue=overdue, **known))
    return Ageing(tenant_id=tenant_id, as_of=day, buckets=tuple(labels), rows=tuple(rows))


def _aged(
    binding: Binding, settings: Settings, ledger: Ledger, day: date, buckets: Sequence[int], *, dated: bool
) -> Any:
    source = _Source(binding, settings, ledger, dated=dated)
    tenant = attribute(source.item, "tenant_id")
    opened = source.query.where(tenant == bindparam("tenant", type_=tenant.type), source.left != 0).subquery("open")
    c = opened.c
    due = func.coalesce(c.due_date, c.invoice_date, c.entry_date, type_=c.entry_date.type)

    def total(condition: ColumnElement[bool]) -> ColumnElement[Any]:
        return type_coerce(func.sum(case((condition, c.remaining_amount), else_=literal(ZERO, Money()))), Money())

    # overdue for n days means that it was due n days before the day
    # the calendar begins with the year 1, and nothing is due before it
    ends = [day - min(timedelta(days=days), day - date.min) for days in (0, *buckets)]
    owed = c.remaining_amount > 0
    overdue = [total(and_(owed, due < upper, due >= lower)) for upper, lower in pairwise(ends)] + [
        total(and_(owed, due < ends[-1]))
    ]
    return (
        select(
            c.party_id,
            c.party_number,
            c.party_name,
            total(and_(owed, due >= day)).label("not_due"),
            *(amount.label(f"overdue_{index}") for index, amount in enumerate(overdue)),
            total(c.remaining_amount < 0).label("credits"),
            type_coerce(func.sum(c.remaining_amount), Money()).label("total"),
            total(and_(owed, c.due_date.is_(None))).label("without_due_date"),
        )
        .group_by(c.party_id, c.party_number, c.party_name)
        .order_by(c.party_number, c.party_id)
    )
