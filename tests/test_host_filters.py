"""What a host lays over its own sessions: soft deletes that hide documents, and the database's row-level security."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, event, func, select, text
from sqlalchemy.orm import ORMExecuteState, Session, sessionmaker, with_loader_criteria

from ledger_sync import LedgerSync
from ledger_sync.models import SupplierLedger, VendorInvoice
from ledger_sync.testing import assert_in_sync
from tests import books

HIDDEN = "N-hidden"


@pytest.fixture
def hiding(engine: Engine, sync: LedgerSync) -> sessionmaker[Session]:
    """Sessions whose queries never show the document that the host has deleted softly."""
    factory = sessionmaker(engine)

    @event.listens_for(factory, "do_orm_execute")
    def _hide(execution: ORMExecuteState) -> None:
        if execution.is_select:
            criteria = with_loader_criteria(VendorInvoice, VendorInvoice.invoice_number != HIDDEN)
            execution.statement = execution.statement.options(criteria)

    sync.attach(factory)
    return factory


def test_a_softly_deleted_document_still_backs_its_posted_entry(
    hiding: sessionmaker[Session], sync: LedgerSync
) -> None:
    with hiding() as session:
        invoice = books.vendor_invoice(session, 100, invoice_number=HIDDEN, payment_reference="18")
        books.entry(session, signed=-100, source=("vendor_invoice", invoice.id))
        session.commit()
        assert session.scalar(select(func.count()).select_from(VendorInvoice)) == 0
        paid = books.vendor_payment(session, 100, payment_reference="18")
        books.entry(session, signed=100, source=("vendor_payment", paid.id))
        session.commit()
        items = session.scalars(select(SupplierLedger).order_by(SupplierLedger.general_ledger_line_id))
        assert [(item.amount, item.remaining_amount) for item in items] == [(100, 0), (-100, 0)]
        assert sync.verify(session, "acme").clean
        assert_in_sync(session, sync)
    assert sync.backfill(hiding, tenant_id="acme").clean
    assert sync.repair(hiding, tenant_id="acme").clean


# -- row-level security ------------------------------------------------------------------------------------

TABLES = ("general_ledger", "vendor_invoices", "vendor_payments", "vendors", "supplier_ledger", "supplier_applications")


@pytest.fixture
def secured(postgresql_engine: Engine) -> Iterator[Any]:
    """Makes factories of sessions that see one tenant's rows, by policies for a role without privileges."""
    role = f"app_{uuid4().hex[:12]}"
    with postgresql_engine.begin() as connection:
        schema = connection.scalar(text("SELECT current_schema()"))
        connection.execute(text(f"CREATE ROLE {role}"))
        connection.execute(text(f"GRANT USAGE ON SCHEMA {schema} TO {role}"))
        connection.execute(text(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}"))
        connection.execute(text(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO {role}"))
        for table in TABLES:
            connection.execute(text(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"))
            mine = "tenant_id = current_setting('app.tenant', true)"
            connection.execute(text(f"CREATE POLICY mine ON {table} USING ({mine}) WITH CHECK ({mine})"))
    engines: list[Engine] = []

    def made(tenant: str) -> sessionmaker[Session]:
        engine = create_engine(postgresql_engine.url)
        engines.append(engine)

        @event.listens_for(engine, "connect")
        def _as_tenant(connection: Any, record: object) -> None:
            with connection.cursor() as cursor:
                cursor.execute(f"SET search_path TO {schema}")
                cursor.execute(f"SET app.tenant TO '{tenant}'")
                cursor.execute(f"SET ROLE {role}")
            connection.commit()

        return sessionmaker(engine)

    yield made
    for engine in engines:
        engine.dispose()
    with postgresql_engine.begin() as connection:
        for table in TABLES:
            connection.execute(text(f"DROP POLICY mine ON {table}"))
            connection.execute(text(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"))
        connection.execute(text(f"DROP OWNED BY {role}"))
        connection.execute(text(f"DROP ROLE {role}"))


def test_row_level_security_holds_for_all_that_the_library_does(secured: Any, sync: LedgerSync) -> None:
    factories = {tenant: secured(tenant) for tenant in ("acme", "other")}
    for number, (tenant, factory) in enumerate(factories.items(), 1):
        sync.attach(factory)
        with factory() as session:
            invoice = books.vendor_invoice(session, 100 * number, tenant=tenant, payment_reference="18")
            books.entry(session, signed=-100 * number, source=("vendor_invoice", invoice.id), tenant=tenant)
            session.commit()
            with sync.paused(session):
                paid = books.vendor_payment(session, 10, tenant=tenant, payment_reference="18")
                books.entry(session, signed=10, source=("vendor_payment", paid.id), tenant=tenant)
            session.commit()
            assert not sync.verify(session, tenant).clean
    for number, (tenant, factory) in enumerate(factories.items(), 1):
        assert sync.backfill(factory, tenant_id=tenant).synced == 1
        with factory() as session:
            assert session.scalar(select(func.count()).select_from(SupplierLedger)) == 2
            (left,) = sync.open_items(session, tenant)
            assert left.remaining_amount == Decimal(100 * number - 10)
            assert sync.verify(session, tenant).clean
        # the other tenant's books are empty to whoever may not see them, even when asked for by name
        (stranger,) = set(factories) - {tenant}
        with factory() as session:
            assert sync.open_items(session, stranger) == ()
            assert sync.verify(session, stranger).account("2400").gl_balance == 0
