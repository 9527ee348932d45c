"""What hosts get to test their integration with: it passes on books in sync, and names what is wrong on others."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, update
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import ControlAccount, LedgerSync, Settings
from ledger_sync.errors import ConfigurationError
from ledger_sync.models import CustomerLedger, SupplierLedger
from ledger_sync.testing import Books, assert_in_sync
from tests import books

Factory = sessionmaker[Session]


def post(session: Session, tenant: str) -> None:
    invoice = books.vendor_invoice(session, 100, tenant)
    books.entry(session, source=("vendor_invoice", invoice.id), tenant=tenant, voucher_number="17")
    sold = books.customer_invoice(session, 80, tenant)
    books.entry(session, "1500", 80, ("customer_invoice", sold.id), tenant=tenant, voucher_number="18")


def test_books_in_sync_pass_flushed_or_not(sync: LedgerSync, factory: Factory) -> None:
    with factory() as session:
        assert_in_sync(session, sync)
        post(session, "acme")
        assert_in_sync(session, sync)
        session.commit()
        assert_in_sync(session, sync, "acme", "nobody")


def test_each_fault_is_named_with_its_tenant_account_and_voucher(sync: LedgerSync, factory: Factory) -> None:
    with factory() as session:
        post(session, "acme")
        post(session, "beta")
        session.commit()
        connection = session.connection()
        items, customers = SupplierLedger.__table__, CustomerLedger.__table__
        connection.execute(delete(items).where(items.c.tenant_id == "acme"))
        connection.execute(update(customers).where(customers.c.tenant_id == "beta").values(remaining_amount=1))
        with pytest.raises(AssertionError) as failed:
            assert_in_sync(session, sync)
        said = str(failed.value)
        assert "Tenant acme, account 2400: missing (1, 100.00 in all): voucher 17/2026 (100.00)." in said
        assert "Tenant beta, customer ledger: remaining_differs (1):" in said
        assert "Run a repair" in said
        assert_in_sync(session, sync, "nobody")


def test_a_document_that_no_source_type_means_is_refused(factory: Factory) -> None:
    takes = ControlAccount(accounts=("2400",), ledger="supplier", sources={"vendor_payment": "vendor_payment"})
    with factory() as session:
        made = Books(LedgerSync(Settings(control_accounts=(takes,))), session, "acme")
        with pytest.raises(ConfigurationError, match=r"^No source type means vendor_invoice\."):
            made.invoice("supplier", 100)


def test_one_tenants_faults_are_no_other_tenants(sync: LedgerSync, factory: Factory) -> None:
    with factory() as session:
        post(session, "acme")
        post(session, "beta")
        session.commit()
        session.connection().execute(delete(SupplierLedger.__table__).where(SupplierLedger.tenant_id == "acme"))
        assert_in_sync(session, sync, "beta")
        with pytest.raises(AssertionError):
            assert_in_sync(session, sync, "acme")


def test_an_orphan_is_told_by_its_amount(sync: LedgerSync, factory: Factory) -> None:
    with factory() as session:
        post(session, "acme")
        session.commit()
        items = SupplierLedger.__table__
        session.connection().execute(update(items).values(general_ledger_line_id=4711))
        with pytest.raises(AssertionError, match=r"orphan \(1, -100\.00 in all\): a row of 100\.00"):
            assert_in_sync(session, sync)
