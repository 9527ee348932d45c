"""A supplier's invoice is posted, paid in two parts, and its open item followed until it is closed.

Run it with `python examples/first_posting.py`; it keeps its books in memory. What it prints is in
`first_posting.txt` beside it.
"""

from __future__ import annotations

import sys
from datetime import date
from decimal import Decimal

from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.dialects import open_engine
from ledger_sync.models import Base, JournalEntry, JournalLine, Vendor, VendorInvoice, VendorPayment

TENANT = "bakery"


def post(session: Session, number: str, on: date, source: tuple[str, int], *lines: JournalLine) -> None:
    """Post one journal entry with its source."""
    entry = JournalEntry(
        tenant_id=TENANT, voucher_number=number, entry_date=on, source_type=source[0], source_id=source[1]
    )
    entry.lines = list(lines)
    entry.post()
    session.add(entry)
    session.commit()


def show(session: Session, sync: LedgerSync, heading: str) -> None:
    """Print the items and the proof of account 2400."""
    sys.stdout.write(f"{heading}\n")
    for item in sync.open_items(session, TENANT, include_settled=True):
        sys.stdout.write(
            f"  {item.voucher:8} {item.kind:8} {item.amount:>10} open {item.remaining_amount:>10} {item.status}\n"
        )
    account = sync.verify(session, TENANT).account("2400")
    sys.stdout.write(
        f"  GL {account.gl_balance} subledger {account.subledger_balance} difference {account.difference}\n"
    )


def main() -> None:
    engine = open_engine("sqlite://")
    Base.metadata.create_all(engine)
    factory = sessionmaker(engine)
    sync = LedgerSync()
    sync.attach(factory)
    with factory() as session:
        mill = Vendor(tenant_id=TENANT, number="20001", name="Mølleren AS")
        session.add(mill)
        session.flush()
        invoice = VendorInvoice(
            tenant_id=TENANT,
            vendor_id=mill.id,
            invoice_number="8907",
            invoice_date=date(2026, 1, 12),
            due_date=date(2026, 2, 11),
            payment_reference="890720261",
            amount=Decimal("18750.00"),
        )
        session.add(invoice)
        session.flush()
        post(
            session,
            "1",
            date(2026, 1, 12),
            ("ehf_invoice", invoice.id),
            JournalLine(account_number="4300", debit=Decimal("15000.00")),
            JournalLine(account_number="2710", debit=Decimal("3750.00")),
            JournalLine(account_number="2400", credit=Decimal("18750.00")),
        )
        show(session, sync, "The invoice is posted:")
        for number, day, amount in (("2", 30, "10000.00"), ("3", 31, "8750.00")):
            payment = VendorPayment(
                tenant_id=TENANT,
                vendor_id=mill.id,
                payment_date=date(2026, 1, day),
                payment_reference="890720261",
                amount=Decimal(amount),
            )
            session.add(payment)
            session.flush()
            post(
                session,
                number,
                date(2026, 1, day),
                ("vendor_payment", payment.id),
                JournalLine(account_number="2400", debit=Decimal(amount)),
                JournalLine(account_number="1920", credit=Decimal(amount)),
            )
            show(session, sync, f"Paid {amount}:")
    engine.dispose()


if __name__ == "__main__":
    main()
