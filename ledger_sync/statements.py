"""The accounts of parties over a period: opening balance, movements, closing balance. Reads only.

Norwegian bookkeeping law asks for it of all customers and of all suppliers (bokføringsforskriften § 3-1, customer and
supplier specification): that is ``specification``. Restricted to one party it is that party's statement of account.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import func, inspect, select, type_coerce
from sqlalchemy.orm import Session

from ledger_sync.binding import Binding
from ledger_sync.control_lines import voucher_text
from ledger_sync.errors import ConfigurationError
from ledger_sync.models.types import ZERO, Money
from ledger_sync.overlaps import voucher_order
from ledger_sync.reports import listed
from ledger_sync.results import Result
from ledger_sync.settings import Settings


class Movement(Result):
    """One item in a statement, and the party's balance after it."""

    entry_date: date
    voucher: str | None
    kind: str
    invoice_number: str | None
    due_date: date | None
    currency: str
    currency_amount: Decimal | None
    amount: Decimal
    balance: Decimal


class Statement(Result):
    """One party's account in a ledger over a period: opening balance, movements, closing balance."""

    ledger: str
    party_id: Any
    party_number: str | None
    party_name: str | None
    opening: Decimal
    movements: tuple[Movement, ...]
    closing: Decimal


class Specification(Result):
    """All parties' accounts of a ledger over a period. The closings add up to the subledger's balance of ``until``."""

    tenant_id: Any
    ledger: str
    since: date | None
    until: date | None
    parties: tuple[Statement, ...]

    @property
    def opening(self) -> Decimal:
        """The subledger's balance before the period."""
        return sum((party.opening for party in self.parties), ZERO)

    @property
    def closing(self) -> Decimal:
        """The subledger's balance at the end of the period."""
        return sum((party.closing for party in self.parties), ZERO)


def specification(
    session: Session,
    binding: Binding,
    settings: Settings,
    tenant_id: Any,
    ledger_name: str,
    *,
    since: date | None = None,
    until: date | None = None,
    party_id: Any = None,
) -> Specification:
    """Every party's opening balance, movements and closing balance; of ``party_id`` alone, if it is given.

    Parties without a balance before the period and without movements in it are left out, except ``party_id``.
    """
    if since is not None and until is not None and since > until:
        raise ConfigurationError(f"since={since} is after until={until}. Give the first day and the last.")
    ledger = binding.ledger(ledger_name)
    connection = session.connection(bind_arguments={"mapper": inspect(ledger.item)})
    query = listed(binding, settings, ledger, dated=False, of_party=party_id is not None)
    c = query.order_by(None).subquery("listed").c
    parties: dict[Any, dict[str, Any]] = {}
    parameters = {"tenant": tenant_id, "party": party_id}

    def party(row: Any) -> dict[str, Any]:
        values = {"party_id": row.party_id, "party_number": row.party_number, "party_name": row.party_name}
        return parties.setdefault(row.party_id, {**values, "opening": ZERO, "movements": [], "closing": ZERO})

    if since is not None:
        sums = select(
            c.party_id, c.party_number, c.party_name, type_coerce(func.sum(c.amount), Money()).label("opening")
        )
        sums = sums.where(c.entry_date < since).group_by(c.party_id, c.party_number, c.party_name)
        for row in connection.execute(sums, parameters):
            if row.opening or party_id is not None:
                account = party(row)
                account["opening"] = account["closing"] = row.opening
    moved = select(*c).order_by(c.entry_date, *voucher_order(c, getattr), c.general_ledger_line_id)
    if since is not None:
        moved = moved.where(c.entry_date >= since)
    if until is not None:
        moved = moved.where(c.entry_date <= until)
    for row in connection.execute(moved, parameters):
        account = party(row)
        account["closing"] += row.amount
        values = {name: getattr(row, name) for name in Movement.model_fields if name not in {"voucher", "balance"}}
        account["movements"].append(
            Movement(
                voucher=None if row.voucher_number is None else voucher_text(row), balance=account["closing"], **values
            )
        )
    found = (Statement(ledger=ledger.name, **values) for values in parties.values())
    ordered = sorted(found, key=lambda account: (account.party_number or "", str(account.party_id)))
    return Specification(tenant_id=tenant_id, ledger=ledger.name, since=since, until=until, parties=tuple(ordered))
