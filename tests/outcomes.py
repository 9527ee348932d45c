"""What a run comes to: its counts, and the rows and applications that it wrote, without what tells when and by whom."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from sqlalchemy import delete, select

from ledger_sync import LedgerSync, RunReport
from ledger_sync.models import (
    CustomerApplication,
    CustomerLedger,
    SupplierApplication,
    SupplierLedger,
    SyncRun,
    SyncSegment,
)
from tests import books
from tests.test_backfill import Factory

ITEMS = (CustomerLedger, SupplierLedger)
APPLICATIONS = (CustomerApplication, SupplierApplication)
TRACES = {"id", "run_id", "created_at", "updated_at"}


def fill(factory: Factory, tenant: str, count: int) -> None:
    """Invoices and payments of both kinds, some of them in part, and lines that have no row."""
    with factory() as session:
        for number in range(count):
            on = date(2026, 1, 1) + timedelta(days=number)
            sold = books.customer_invoice(
                session, 100 + number, tenant, f"C{number % 7}", payment_reference=f"K{number}"
            )
            books.entry(session, "1500", 100 + number, ("customer_invoice", sold.id), tenant=tenant, on=on)
            bought = books.vendor_invoice(session, 50 + number, tenant, f"V{number % 5}", invoice_number=f"B{number}")
            books.entry(session, "2400", -50 - number, ("ehf_invoice", bought.id), tenant=tenant, on=on)
            if number % 3:
                paid = books.customer_payment(
                    session, 60 + number, tenant, f"C{number % 7}", payment_reference=f"K{number}"
                )
                books.entry(session, "1500", -60 - number, ("customer_payment", paid.id), tenant=tenant, on=on)
            if number % 4 == 0:
                books.entry(session, tenant=tenant, on=on)
        session.commit()


def written(factory: Factory, *tenants: str) -> dict[str, list[Any]]:
    """The rows and applications of some tenants; of acme unless others are named."""
    found = {}
    with factory() as session:
        for model in (*ITEMS, *APPLICATIONS):
            table = model.__table__
            rows = session.execute(select(table).where(table.c.tenant_id.in_(tenants or ("acme",))))
            found[table.name] = sorted(
                str({name: value for name, value in row._mapping.items() if name not in TRACES}) for row in rows
            )
    return found


def wiped(factory: Factory, *tenants: str) -> None:
    """Take away what runs wrote for some tenants, acme unless others are named, and the runs."""
    with factory() as session:
        for model in (*ITEMS, *APPLICATIONS):
            session.execute(delete(model).where(model.tenant_id.in_(tenants or ("acme",))))
        session.execute(delete(SyncSegment))
        session.execute(delete(SyncRun))
        session.commit()


def by_one_process(sync: LedgerSync, factory: Factory, tenant: str = "acme", *beside: str) -> tuple[Any, Any]:
    """What one process makes of a tenant's history: counts and all that is written; the history is then as it was."""
    found = counts(sync.backfill(factory, tenant_id=tenant)), written(factory, tenant, *beside)
    wiped(factory, tenant, *beside)
    return found


def counts(report: RunReport) -> Any:
    """How a run ended, and what it counted."""
    return report.state, report.clean, [stage.model_dump() for stage in report.stages]
