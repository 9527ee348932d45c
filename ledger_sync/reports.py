"""What is open, to whom, since when. Reads only.

``open_items`` lists the items of one tenant that are not settled, now or as of any date. As of a date it never
looks at today's remaining amounts: it asks the settlement SELECT for what is dated until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Select, bindparam, inspect, null, select
from sqlalchemy.orm import Session, aliased

from ledger_sync.binding import Binding, Ledger, attribute
from ledger_sync.projection import voucher_text
from ledger_sync.settings import Settings
from ledger_sync.settlement import remaining


class OpenItem(BaseModel):
    """One open item. Amounts are positive when owed in the ledger's normal direction."""

    model_config = ConfigDict(frozen=True)

    ledger: str
    tenant_id: str
    account_number: str
    party_id: Any
    party_number: str | None
    party_name: str | None
    general_ledger_id: Any
    general_ledger_line_id: Any
    voucher: str
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


def open_items(
    session: Session,
    binding: Binding,
    settings: Settings,
    tenant_id: str,
    *,
    ledgers: Sequence[str] | None = None,
    party_id: Any = None,
    as_of: date | None = None,
    include_settled: bool = False,
) -> tuple[OpenItem, ...]:
    """The open items of one tenant, by ledger, party and date."""
    found: list[OpenItem] = []
    for name in settings.ledgers() if ledgers is None else ledgers:
        ledger = binding.ledger(name)
        connection = session.connection(bind_arguments={"mapper": inspect(ledger.item)})
        query = _items(binding, settings, ledger, dated=as_of is not None, of_party=party_id is not None)
        parameters = {"tenant": tenant_id, "party": party_id, "as_of": as_of, "caused_on": None}
        rows = connection.execute(query, parameters)
        found += [_open_item(ledger, row) for row in rows if row.remaining_amount or include_settled]
    return tuple(found)


def _open_item(ledger: Ledger, row: Any) -> OpenItem:
    values = dict(row._mapping)
    values["voucher"] = voucher_text(row)
    for name in ("voucher_series", "voucher_number", "fiscal_year"):
        del values[name]
    amount, left = values["amount"], values["remaining_amount"]
    values["status"] = "paid" if not left else "open" if left == amount else "partially_paid"
    return OpenItem(ledger=ledger.name, **values)


def _items(binding: Binding, settings: Settings, ledger: Ledger, *, dated: bool, of_party: bool) -> Select[Any]:
    item, entry = aliased(ledger.item), aliased(binding.entry)
    names = (
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
    party, tenant = attribute(item, ledger.party), attribute(item, "tenant_id")
    line_id = attribute(item, "general_ledger_line_id")
    left = attribute(item, "remaining_amount")
    then = None
    if dated:
        of_tenant = remaining(
            binding,
            settings,
            ledger,
            lambda alias: [attribute(alias, "tenant_id") == bindparam("tenant", type_=tenant.type)],
            dated=True,
        )
        then = of_tenant.subquery("then")
        left = then.c.remaining_amount
    holder = aliased(ledger.party_model) if ledger.party_model is not None else None
    query = (
        select(
            *(attribute(item, name).label(name) for name in names),
            party.label("party_id"),
            left.label("remaining_amount"),
            attribute(entry, "fiscal_year").label("fiscal_year"),
            attribute(entry, "voucher_series").label("voucher_series"),
            attribute(entry, "voucher_number").label("voucher_number"),
            (attribute(holder, "number") if holder is not None else null()).label("party_number"),
            (attribute(holder, "name") if holder is not None else null()).label("party_name"),
        )
        .select_from(item)
        .join(entry, attribute(entry, "id") == attribute(item, "general_ledger_id"))
    )
    if then is not None:
        query = query.join(then, then.c.line_id == line_id)
    if holder is not None:
        query = query.outerjoin(holder, attribute(holder, "id") == party)
    query = query.where(tenant == bindparam("tenant", type_=tenant.type))
    if of_party:
        query = query.where(party == bindparam("party", type_=party.type))
    return query.order_by(party, attribute(item, "entry_date"), line_id)
