"""Small builders for books in tests: one call, one document or entry, with plain arguments."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from itertools import count
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger_sync.models import (
    Customer,
    CustomerInvoice,
    CustomerPayment,
    JournalEntry,
    JournalLine,
    Vendor,
    VendorInvoice,
    VendorPayment,
)

DAY = date(2026, 3, 1)
_numbers = count(1)


def vendor(session: Session, tenant: str = "acme", number: str = "V1") -> Vendor:
    """The vendor of that number, made when there is none."""
    found = session.scalars(select(Vendor).where(Vendor.tenant_id == tenant, Vendor.number == number)).first()
    if found is None:
        found = Vendor(tenant_id=tenant, number=number, name=f"Vendor {number}")
        session.add(found)
        session.flush()
    return found


def customer(session: Session, tenant: str = "acme", number: str = "C1") -> Customer:
    """The customer of that number, made when there is none."""
    found = session.scalars(select(Customer).where(Customer.tenant_id == tenant, Customer.number == number)).first()
    if found is None:
        found = Customer(tenant_id=tenant, number=number, name=f"Customer {number}")
        session.add(found)
        session.flush()
    return found


def vendor_invoice(session: Session, amount: object = 100, tenant: str = "acme", party: str = "V1", **more: Any) -> Any:
    """A flushed vendor invoice."""
    values = {
        "invoice_number": f"N{next(_numbers)}",
        "invoice_date": DAY,
        "due_date": date(2026, 3, 31),
        **more,
    }
    invoice = VendorInvoice(
        tenant_id=tenant, vendor_id=vendor(session, tenant, party).id, amount=Decimal(str(amount)), **values
    )
    session.add(invoice)
    session.flush()
    return invoice


def customer_invoice(
    session: Session, amount: object = 100, tenant: str = "acme", party: str = "C1", **more: Any
) -> Any:
    """A flushed customer invoice."""
    values = {
        "invoice_number": f"N{next(_numbers)}",
        "invoice_date": DAY,
        "due_date": date(2026, 3, 31),
        **more,
    }
    invoice = CustomerInvoice(
        tenant_id=tenant,
        customer_id=customer(session, tenant, party).id,
        amount=Decimal(str(amount)),
        **values,
    )
    session.add(invoice)
    session.flush()
    return invoice


def vendor_payment(session: Session, amount: object = 100, tenant: str = "acme", party: str = "V1", **more: Any) -> Any:
    """A flushed payment to a vendor."""
    payment = VendorPayment(
        tenant_id=tenant,
        vendor_id=vendor(session, tenant, party).id,
        amount=Decimal(str(amount)),
        **{"payment_date": DAY, **more},
    )
    session.add(payment)
    session.flush()
    return payment


def customer_payment(
    session: Session, amount: object = 100, tenant: str = "acme", party: str = "C1", **more: Any
) -> Any:
    """A flushed payment from a customer."""
    payment = CustomerPayment(
        tenant_id=tenant,
        customer_id=customer(session, tenant, party).id,
        amount=Decimal(str(amount)),
        **{"payment_date": DAY, **more},
    )
    session.add(payment)
    session.flush()
    return payment


def entry(
    session: Session,
    account: str = "2400",
    signed: object = -100,
    source: tuple[str, int] | None = None,
    *,
    tenant: str = "acme",
    on: date = DAY,
    post: bool = True,
    contra: str = "4000",
    line: dict[str, Any] | None = None,
    **more: Any,
) -> JournalEntry:
    """An entry of two lines, added but not flushed: ``signed`` (debit less credit) on ``account``."""
    amount = Decimal(str(signed))
    made = JournalEntry(
        tenant_id=tenant,
        entry_date=on,
        source_type=source[0] if source else None,
        source_id=source[1] if source else None,
        **{"voucher_number": f"{next(_numbers)}", **more},
    )
    made.lines.append(JournalLine(account_number=account, **_sides(amount), **(line or {})))
    made.lines.append(JournalLine(account_number=contra, **_sides(-amount)))
    if post:
        made.post()
    session.add(made)
    return made


def _sides(amount: Decimal) -> dict[str, Decimal]:
    return {"debit": amount} if amount > 0 else {"credit": -amount}
