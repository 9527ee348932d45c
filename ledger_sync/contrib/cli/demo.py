"""A small fictional company that shows in one minute what the library does.

History that was posted before the sync existed, then three entries through an attached session: a supplier's
EHF invoice, a customer invoice, and a manual correction that is skipped, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger_sync import LedgerSync, signals
from ledger_sync.contrib.cli.show import Output, money, proof, run_report
from ledger_sync.models import (
    Customer,
    CustomerInvoice,
    CustomerLedger,
    JournalEntry,
    JournalLine,
    SupplierLedger,
    Vendor,
    VendorInvoice,
)

TENANT = "fjord-bakeri"


def line(account: str, debit: str = "0", credit: str = "0") -> JournalLine:
    """A journal line on an account."""
    return JournalLine(account_number=account, debit=Decimal(debit), credit=Decimal(credit))


def post(
    session: Session, number: str, on: date, text: str, source: tuple[str, int] | None, *lines: JournalLine
) -> None:
    """Post one journal entry."""
    entry = JournalEntry(
        tenant_id=TENANT,
        voucher_number=number,
        entry_date=on,
        description=text,
        source_type=source[0] if source else None,
        source_id=source[1] if source else None,
    )
    entry.lines.extend(lines)
    entry.post()
    session.add(entry)
    session.commit()


def invoices(session: Session) -> dict[str, Any]:
    """The parties and their documents."""
    mill = Vendor(tenant_id=TENANT, number="20001", name="Mølleren AS")
    cafe = Customer(tenant_id=TENANT, number="10001", name="Kafé Brygga")
    session.add_all([mill, cafe])
    session.flush()
    made: dict[str, Any] = {
        "old flour": VendorInvoice(
            tenant_id=TENANT, vendor_id=mill.id, invoice_number="8801", invoice_date=date(2025, 11, 20),
            due_date=date(2025, 12, 20), amount=Decimal("12500.00"), payment_reference="880120258",
        ),
        "old bread": CustomerInvoice(
            tenant_id=TENANT, customer_id=cafe.id, invoice_number="1001", invoice_date=date(2025, 12, 5),
            due_date=date(2025, 12, 19), amount=Decimal("6250.00"), payment_reference="10017",
        ),
        "flour": VendorInvoice(
            tenant_id=TENANT, vendor_id=mill.id, invoice_number="8907", invoice_date=date(2026, 1, 12),
            due_date=date(2026, 2, 11), amount=Decimal("18750.00"), payment_reference="890720261",
        ),
        "bread": CustomerInvoice(
            tenant_id=TENANT, customer_id=cafe.id, invoice_number="1002", invoice_date=date(2026, 1, 15),
            due_date=date(2026, 1, 29), amount=Decimal("9375.50"), payment_reference="10025",
        ),
    }  # fmt: skip
    session.add_all(made.values())
    session.commit()
    return made


def run(factory: Callable[[], Session], sync: LedgerSync, output: Output) -> None:
    """Play the demo on an empty database, and print what happens."""
    skipped: list[Mapping[str, Any]] = []

    def remember(sender: object, line: Mapping[str, Any]) -> None:
        skipped.append(line)

    signals.line_skipped.connect(remember, sender=sync)
    with factory() as session:
        made = invoices(session)
        output.say("\n[bold]1. History[/bold]: two entries were posted in 2025, before anybody synced.")
        old_flour, old_bread = made["old flour"], made["old bread"]
        post(session, "1", date(2025, 11, 20), "Flour", ("vendor_invoice", old_flour.id),
             line("4300", debit="10000"), line("2710", debit="2500"), line("2400", credit="12500"))  # fmt: skip
        post(session, "2", date(2025, 12, 5), "Bread", ("customer_invoice", old_bread.id),
             line("1500", debit="6250"), line("3000", credit="5000"), line("2700", credit="1250"))  # fmt: skip

        output.say("\n[bold]2. Live[/bold]: the session is attached, and three more entries are posted.")
        sync.attach(session)
        post(session, "3", date(2026, 1, 12), "Flour, by EHF", ("ehf_invoice", made["flour"].id),
             line("4300", debit="15000"), line("2710", debit="3750"), line("2400", credit="18750"))  # fmt: skip
        post(session, "4", date(2026, 1, 15), "Bread", ("customer_invoice", made["bread"].id),
             line("1500", debit="9375.50"), line("3000", credit="7500.40"), line("2700", credit="1875.10"))  # fmt: skip
        post(session, "5", date(2026, 1, 31), "Correction by hand", None,
             line("2400", debit="350"), line("7770", credit="350"))  # fmt: skip
        items: list[SupplierLedger | CustomerLedger] = [
            *session.scalars(select(SupplierLedger).order_by(SupplierLedger.id)),
            *session.scalars(select(CustomerLedger).order_by(CustomerLedger.id)),
        ]
        rows = [
            [item.__tablename__, item.source_type, item.invoice_number or "", money(item.amount), item.status]
            for item in items
        ]
        output.table("Rows that appeared", ["table", "source", "invoice", "amount", "status"], rows, numbers=(3,))
        for entry in skipped:
            output.say(
                f"Skipped: voucher {entry['voucher']}, account {entry['account_number']}, "
                f"reason [bold]{entry['reason']}[/bold]: nobody can say whose debt it was."
            )
        sync.detach(session)

    output.say("\n[bold]3. Backfill[/bold]: history gets its rows.")
    with output.progress() as follow:
        report = sync.backfill(factory, tenant_id=TENANT, on_progress=follow)
    run_report(output, report)

    output.say("\n[bold]4. Proof[/bold]: the general ledger against the subledgers.")
    with factory() as session:
        result = sync.verify(session, TENANT)
    proof(output, result)
    output.document([result])
    signals.line_skipped.disconnect(remember, sender=sync)
