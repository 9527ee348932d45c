"""What was written past the hook, synced explicitly: the same rows as if the hook had seen it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync, Settings, signals
from ledger_sync.models import CustomerLedger, JournalEntry, JournalLine, SourceLink, SupplierLedger
from tests import books
from tests.oracle import Rules, assert_synced

Factory = sessionmaker[Session]
ENTRY, LINE = JournalEntry.__table__, JournalLine.__table__


def past_the_hook(session: Session, invoice_id: int, number: str = "past") -> int:
    connection = session.connection()
    values = {
        "tenant_id": "acme",
        "voucher_number": number,
        "fiscal_year": 2026,
        "entry_date": books.DAY,
        "status": "posted",
        "source_type": "vendor_invoice",
        "source_id": invoice_id,
    }
    key: int = connection.execute(insert(ENTRY).values(**values).returning(ENTRY.c.id)).scalar_one()
    line = {"general_ledger_id": key, "line_number": 1, "account_number": "2400", "credit": Decimal(100)}
    connection.execute(insert(LINE), line)
    return key


def amend(session: Session, entry_id: int) -> None:
    session.connection().execute(update(LINE).where(LINE.c.general_ledger_id == entry_id).values(credit=Decimal(250)))


def unpost(session: Session, entry_id: int) -> None:
    session.connection().execute(update(ENTRY).where(ENTRY.c.id == entry_id).values(status="draft"))


def delete_line(session: Session, entry_id: int) -> None:
    session.connection().execute(delete(LINE).where(LINE.c.general_ledger_id == entry_id))


def delete_entry(session: Session, entry_id: int) -> None:
    delete_line(session, entry_id)
    session.connection().execute(delete(ENTRY).where(ENTRY.c.id == entry_id))


def renumber(session: Session, entry_id: int) -> None:
    session.connection().execute(update(LINE).where(LINE.c.general_ledger_id == entry_id).values(account_number="4000"))


def test_entries_inserted_past_the_hook_get_their_rows_and_signals(sync: LedgerSync, factory: Factory) -> None:
    told: list[Any] = []

    def hear(sender: object, item: Any) -> None:
        told.append(item["general_ledger_id"])

    with signals.item_created.connected_to(hear, sender=sync), factory() as session:
        invoice = books.vendor_invoice(session)
        keys = [past_the_hook(session, invoice.id, str(number)) for number in range(3)]
        sync.sync_entries(session, keys[:2])
        assert told == []
        session.commit()
        assert sorted(told) == keys[:2]
        assert sync.verify(session, "acme").account("2400").faults[0].count == 1
        session.rollback()
        sync.sync_entries(session, keys)
        session.commit()
        assert sorted(told) == keys
        assert_synced(session.connection())


@pytest.mark.parametrize("change", [amend, unpost, delete_line, delete_entry, renumber])
def test_what_was_changed_or_deleted_past_the_hook_is_brought_up_to_date(
    sync: LedgerSync, factory: Factory, change: Callable[[Session, int], None]
) -> None:
    with factory() as session:
        invoice = books.vendor_invoice(session)
        entry = books.entry(session, source=("vendor_invoice", invoice.id))
        other = books.entry(session, source=("vendor_invoice", invoice.id))
        session.commit()
        loaded = session.scalars(select(SupplierLedger)).all()
        assert len(loaded) == 2
        change(session, entry.id)
        sync.sync_entries(session, [entry.id])
        session.commit()
        assert_synced(session.connection())
        assert other.id in {item.general_ledger_id for item in session.scalars(select(SupplierLedger))}
        if change is amend:
            # what was loaded is not stale
            assert sorted(item.amount for item in loaded) == [100, 250]


def test_what_is_synced_settles(sync: LedgerSync, factory: Factory) -> None:
    with factory() as session:
        sold = books.customer_invoice(session, 100, payment_reference="K1")
        with sync.paused(session):
            entry = books.entry(session, "1500", 100, ("customer_invoice", sold.id))
        paid = books.customer_payment(session, 100, payment_reference="K1")
        books.entry(session, "1500", -100, ("customer_payment", paid.id))
        sync.sync_entries(session, [entry.id])
        session.commit()
        assert {item.status for item in session.scalars(select(CustomerLedger))} == {"paid"}


def test_a_rolled_back_sync_leaves_nothing(sync: LedgerSync, factory: Factory) -> None:
    with factory() as session:
        invoice = books.vendor_invoice(session)
        session.commit()
        key = past_the_hook(session, invoice.id)
        sync.sync_entries(session, [key])
        session.rollback()
        assert session.scalars(select(SupplierLedger)).all() == []


def test_entries_that_are_not_there_and_none_at_all_are_harmless(sync: LedgerSync, factory: Factory) -> None:
    with factory() as session:
        sync.sync_entries(session, [])
        sync.sync_entries(session, [4711])
        session.commit()
        assert session.scalars(select(SupplierLedger)).all() == []


@pytest.mark.parametrize("how", ["line", "entry", "source", "link"])
def test_with_a_cut_over_the_payments_of_what_it_names_are_synced_as_well(engine: Engine, how: str) -> None:
    """An invoice dated before the cut-over counts, and so do its payments, once a line of its own lies after it."""
    cut_over = date(2026, 2, 1)
    sync, rules = LedgerSync(Settings(effective_from=cut_over)), Rules(cut_over=cut_over)
    factory = sessionmaker(engine)
    sync.attach(factory)
    with factory() as session:
        invoice = books.vendor_invoice(session, payment_reference="K1", invoice_date=date(2026, 1, 15))
        other = books.vendor_invoice(session)
        paid = books.vendor_payment(session, 100, payment_reference="K1")
        books.entry(session, "2400", 100, ("vendor_payment", paid.id))
        session.commit()
        key = past_the_hook(session, invoice.id)
        sync.sync_entries(session, [key])
        assert_synced(session.connection(), rules)
        assert len(session.scalars(select(SupplierLedger.id)).all()) == 2
        connection = session.connection()
        if how == "line":
            delete_line(session, key)
        elif how == "entry":
            delete_entry(session, key)
        elif how == "source":
            connection.execute(update(ENTRY).where(ENTRY.c.id == key).values(source_id=other.id))
        else:
            line = connection.scalar(select(LINE.c.id).where(LINE.c.general_ledger_id == key))
            values = {"line_id": line, "source_type": "vendor_invoice", "source_id": other.id}
            connection.execute(insert(SourceLink.__table__), values)
        sync.sync_entries(session, [key])
        session.commit()
        assert_synced(session.connection(), rules)
        assert len(session.scalars(select(SupplierLedger.id)).all()) == (1 if how in {"source", "link"} else 0)


def test_a_line_that_left_a_named_entry_past_the_hook_is_found_by_its_row(sync: LedgerSync, factory: Factory) -> None:
    with factory() as session:
        invoice = books.vendor_invoice(session)
        entry = books.entry(session, source=("vendor_invoice", invoice.id))
        manual = books.entry(session, "4000", post=False)
        session.flush()
        moved = LINE.c.general_ledger_id == entry.id, LINE.c.account_number == "2400"
        values = {"general_ledger_id": manual.id, "line_number": 9}
        session.connection().execute(update(LINE).where(*moved).values(values))
        sync.sync_entries(session, [entry.id])
        assert_synced(session.connection())
