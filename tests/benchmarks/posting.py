"""What the hook costs a posting, against the same posting without a subledger and against a row written by hand.

Sizes are entries of one committed flush, of three lines each: ``bare`` with no subledger at all, ``by hand`` with an
open item that the application adds for each entry, ``hook`` with a ``LedgerSync`` of default settings attached.
``payments`` are entries of two lines that settle an invoice each; by hand, the application brings both items up to date
and keeps an application. ``vendors`` and ``elsewhere`` concern no subledger: other models, and entries without a
control line. Each way has a tenant of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import partial
from itertools import count
from typing import Final

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.models import (
    JournalEntry,
    JournalLine,
    SupplierApplication,
    SupplierLedger,
    Vendor,
    VendorInvoice,
    VendorPayment,
)
from tests.benchmarks.books_at_scale import analyse, clear
from tests.benchmarks.figures import Figure, in_turns, medians
from tests.watching import statements

SIZES: Final = (1, 10, 100, 1000)
ON_DATABASES: Final = True
SECONDS: Final = 8.0
"""For each kind of flush, at the least."""
AIMS: Final = {"invoices": 1.10, "payments": 1.35, "vendors": 1.02, "elsewhere": 1.02}
SYNCED: Final = ("invoices", "payments")
LEAST_AIMED_AT: Final = 10

DAY: Final = date(2026, 3, 1)
VARIANTS: Final = ("bare", "by hand", "hook")
NUMBERS = count(1)


def voucher(tenant: str, source: tuple[str, int] | None, *lines: tuple[str, int]) -> JournalEntry:
    """A posted entry, not yet added; amounts positive for debit."""
    made = JournalEntry(tenant_id=tenant, voucher_number=str(next(NUMBERS)), entry_date=DAY)
    if source is not None:
        made.source_type, made.source_id = source
    for number, (account, amount) in enumerate(lines, start=1):
        side = {"debit": Decimal(amount)} if amount > 0 else {"credit": Decimal(-amount)}
        made.lines.append(JournalLine(line_number=number, account_number=account, **side))
    made.post()
    return made


class Desk:
    """One variant: its sessions and its tenant."""

    def __init__(self, engine: Engine, variant: str, sync: LedgerSync) -> None:
        self.variant = variant
        self.tenant = variant.replace(" ", "_")
        self.factory = sessionmaker(engine)
        if variant == "hook":
            sync.attach(self.factory)
        with self.factory.begin() as session:
            vendor = Vendor(tenant_id=self.tenant, number="1", name="Vendor")
            session.add(vendor)
            session.flush()
            self.vendor_id = vendor.id

    def invoices(self, number: int) -> list[tuple[int, str]]:
        """Invoices that are not posted: id and number."""
        with self.factory.begin() as session:
            made = [
                VendorInvoice(
                    tenant_id=self.tenant,
                    vendor_id=self.vendor_id,
                    invoice_number=f"N{next(NUMBERS)}",
                    invoice_date=DAY,
                    due_date=DAY,
                    amount=Decimal(125),
                )
                for _ in range(number)
            ]
            session.add_all(made)
            session.flush()
            return [(invoice.id, invoice.invoice_number) for invoice in made]

    def payments(self, invoices: list[tuple[int, str]]) -> list[int]:
        """Payments of those invoices that are not posted: their ids."""
        with self.factory.begin() as session:
            made = [
                VendorPayment(
                    tenant_id=self.tenant,
                    vendor_id=self.vendor_id,
                    payment_date=DAY,
                    payment_reference=number,
                    amount=Decimal(125),
                )
                for _, number in invoices
            ]
            session.add_all(made)
            session.flush()
            return [payment.id for payment in made]

    def post_invoices(self, invoices: list[tuple[int, str]]) -> None:
        with self.factory() as session:
            entries = [
                voucher(self.tenant, ("vendor_invoice", key), ("4000", 100), ("2710", 25), ("2400", -125))
                for key, _ in invoices
            ]
            session.add_all(entries)
            if self.variant == "by hand":
                session.flush()
                for entry, (key, number) in zip(entries, invoices, strict=True):
                    session.add(self._item(entry, 2, Decimal(125), "vendor_invoice", key, number))
            session.commit()

    def post_payments(self, payments: list[int], invoices: list[tuple[int, str]]) -> None:
        with self.factory() as session:
            entries = [voucher(self.tenant, ("vendor_payment", key), ("2400", 125), ("1920", -125)) for key in payments]
            session.add_all(entries)
            if self.variant == "by hand":
                session.flush()
                self._settle(session, entries, payments, invoices)
            session.commit()

    def _item(
        self, entry: JournalEntry, line: int, amount: Decimal, source_type: str, source_id: int, number: str | None
    ) -> SupplierLedger:
        return SupplierLedger(
            tenant_id=self.tenant,
            general_ledger_id=entry.id,
            general_ledger_line_id=entry.lines[line].id,
            account_number="2400",
            supplier_id=self.vendor_id,
            source_type=source_type,
            source_id=source_id,
            kind="invoice" if amount > 0 else "payment",
            invoice_number=number,
            entry_date=DAY,
            currency="NOK",
            amount=amount,
            remaining_amount=amount,
            status="open",
            settlement_key=f"vendor_invoice:{source_id}",
        )

    def _settle(
        self, session: Session, entries: list[JournalEntry], payments: list[int], invoices: list[tuple[int, str]]
    ) -> None:
        keys = [key for key, _ in invoices]
        found = session.scalars(
            select(SupplierLedger).where(
                SupplierLedger.source_type == "vendor_invoice", SupplierLedger.source_id.in_(keys)
            )
        )
        items = {item.source_id: item for item in found}
        for entry, payment, key in zip(entries, payments, keys, strict=True):
            made = self._item(entry, 0, Decimal(-125), "vendor_payment", payment, None)
            made.remaining_amount, made.status, made.settlement_key = Decimal(0), "paid", f"vendor_invoice:{key}"
            session.add(made)
            items[key].remaining_amount, items[key].status = Decimal(0), "paid"
            session.add(
                SupplierApplication(
                    tenant_id=self.tenant,
                    from_line_id=made.general_ledger_line_id,
                    to_line_id=items[key].general_ledger_line_id,
                    amount=Decimal(125),
                    method="reference",
                    applied_on=DAY,
                )
            )

    def flush_vendors(self, number: int) -> None:
        with self.factory.begin() as session:
            session.add_all(Vendor(tenant_id=self.tenant, number=f"V{next(NUMBERS)}", name="x") for _ in range(number))

    def flush_elsewhere(self, number: int) -> None:
        with self.factory.begin() as session:
            session.add_all(
                voucher(self.tenant, None, ("4000", 100), ("2710", 25), ("1920", -125)) for _ in range(number)
            )


def prepared(desk: Desk, what: str, number: int) -> Callable[[], None]:
    """What is timed: everything that it needs is there already."""
    if what == "vendors":
        return lambda: desk.flush_vendors(number)
    if what == "elsewhere":
        return lambda: desk.flush_elsewhere(number)
    invoices = desk.invoices(number)
    if what == "invoices":
        return lambda: desk.post_invoices(invoices)
    desk.post_invoices(invoices)
    payments = desk.payments(invoices)
    return lambda: desk.post_payments(payments, invoices)


def statements_of(engine: Engine, work: Callable[[], object]) -> int:
    """How many statements it takes."""
    with statements(engine) as sent:
        work()
    return len(sent)


def measure(engine: Engine, size: int) -> list[Figure]:
    """Each kind of flush, with so many entries."""
    clear(engine)
    sync = LedgerSync()
    desks = {variant: Desk(engine, variant, sync) for variant in VARIANTS}
    for desk in desks.values():  # so that every statement is compiled, and the planner knows of some rows
        for what in AIMS:
            for number in (1, 20):
                prepared(desk, what, number)()
    analyse(engine)
    figures = []
    for what, aim in AIMS.items():
        of = {variant: desk for variant, desk in desks.items() if what in SYNCED or variant != "by hand"}
        ways = {variant: partial(prepared, desk, what, size) for variant, desk in of.items()}
        taken = in_turns(ways, rounds=5, seconds=SECONDS)
        times = medians(taken)
        sent = {variant: statements_of(engine, prepared(desk, what, size)) for variant, desk in of.items()}
        figures += [
            Figure(
                suite="posting",
                database=engine.dialect.name,
                size=size,
                way=f"{what}: {variant}",
                against="bare",
                seconds=times[variant],
                against_seconds=times["bare"],
                rounds=len(taken["bare"]),
                most=aim if variant == "hook" and size >= LEAST_AIMED_AT else None,
                more={"statements": f"{sent[variant]} ({sent['bare']} bare)"},
            )
            for variant in of
            if variant != "bare"
        ]
    return figures
