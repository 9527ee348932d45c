"""What mutants of the core modules showed that no other test asked for: one example for each promise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import ControlAccount, Document, Ledger, LedgerSync, Settings, signals
from ledger_sync.binding import ready_made
from ledger_sync.models import (
    CustomerApplication,
    CustomerLedger,
    CustomerPayment,
    SupplierApplication,
    SupplierLedger,
    VendorInvoice,
    VendorPayment,
)
from ledger_sync.projection import project
from tests import test_adoption as adoption
from tests.books import DAY, customer, customer_invoice, customer_payment, entry, vendor_invoice, vendor_payment
from tests.hosts import editable

LATER = date(2026, 6, 30)
WHO: dict[str, Any] = {"actor": "kari", "reason": "agreed by telephone"}


def invoiced(session: Session, amount: int | Decimal = 100, reference: str = "18", on: date = DAY) -> Any:
    """A customer invoice and its posting, committed."""
    invoice = customer_invoice(session, amount, payment_reference=reference)
    made = entry(session, "1500", amount, ("customer_invoice", invoice.id), on=on)
    session.commit()
    return made


def paid(session: Session, amount: int | Decimal = 100, reference: str = "18", on: date = DAY, **more: Any) -> Any:
    """A customer's payment and its posting, committed."""
    payment = customer_payment(session, amount, payment_reference=reference)
    made = entry(session, "1500", -amount, ("customer_payment", payment.id), on=on, **more)
    session.commit()
    return made


def left(session: Session) -> list[Decimal]:
    session.expire_all()
    return list(
        session.scalars(select(CustomerLedger.remaining_amount).order_by(CustomerLedger.general_ledger_line_id))
    )


def applied(session: Session) -> list[tuple[str, Decimal, date]]:
    """What was applied, and taken back, in the order of its dates."""
    a = CustomerApplication
    rows = session.execute(select(a.method, a.amount, a.applied_on).order_by(a.applied_on, a.method, a.amount))
    return [tuple(row) for row in rows]


def test_a_payments_line_whose_reference_is_blank_goes_by_the_payments(session: Session) -> None:
    invoiced(session)
    paid(session, line={"reference": " \u00a0"})
    assert left(session) == [0, 0]


def test_a_payments_line_goes_by_its_own_reference_before_the_payments(session: Session) -> None:
    invoiced(session, reference="18")
    invoiced(session, reference="26")
    paid(session, reference="18", line={"reference": "26"})
    assert left(session) == [100, 0, 0]


def test_what_a_later_entry_undoes_is_undone_on_its_date(session: Session) -> None:
    invoiced(session)
    payment = paid(session, on=DAY + timedelta(days=5))
    session.add(payment.reverse(LATER))
    session.commit()
    assert applied(session) == [
        ("reference", 100, DAY + timedelta(days=5)),
        ("reference", -100, LATER),
        ("reversal", 100, LATER),
    ]


def test_what_an_earlier_entry_undoes_is_undone_on_the_date_on_which_it_was_done(session: Session) -> None:
    invoiced(session)
    paid(session, on=DAY + timedelta(days=5))
    paid(session, on=DAY + timedelta(days=1))
    assert left(session) == [0, -100, 0]
    assert applied(session) == [
        ("reference", 100, DAY + timedelta(days=1)),
        ("reference", -100, DAY + timedelta(days=5)),
        ("reference", 100, DAY + timedelta(days=5)),
    ]


def test_a_reversal_that_is_dated_before_what_it_reverses_is_open_until_then(
    session: Session, sync: LedgerSync
) -> None:
    payment = paid(session, on=LATER)
    reversal = payment.reverse(LATER)
    reversal.entry_date = DAY
    session.add(reversal)
    session.commit()
    assert [item.remaining_amount for item in sync.open_items(session, "acme", as_of=DAY)] == [100]
    assert sync.open_items(session, "acme", as_of=LATER) == ()


def test_one_payment_settles_two_invoices_by_hand(session: Session, sync: LedgerSync) -> None:
    invoiced(session, 60, reference="18")
    invoiced(session, 40, reference="26")
    paid(session, 100, reference="")
    first, second, payment = session.scalars(select(CustomerLedger).order_by(CustomerLedger.general_ledger_line_id))
    sync.settle(session, payment, first, on=LATER, **WHO)
    sync.settle(session, payment, second, on=LATER, **WHO)
    session.commit()
    assert left(session) == [0, 0, 0]


def test_the_rest_settles_automatically_beside_a_part_that_was_settled_by_hand(
    session: Session, sync: LedgerSync
) -> None:
    invoiced(session, 200)
    paid(session, 100)
    paid(session, 100, reference="")
    invoice, _, other = session.scalars(select(CustomerLedger).order_by(CustomerLedger.general_ledger_line_id))
    sync.settle(session, other, invoice, 30, LATER, **WHO)
    session.commit()
    assert left(session) == [70, 0, -70]


def test_what_was_settled_by_hand_is_undone_when_the_payment_moves_to_another_customer(
    session: Session, sync: LedgerSync
) -> None:
    invoiced(session)
    made = paid(session, 60, reference="", on=LATER)
    invoice, payment = session.scalars(select(CustomerLedger).order_by(CustomerLedger.general_ledger_line_id))
    sync.settle(session, payment, invoice, on=LATER, **WHO)
    session.commit()
    assert left(session) == [40, 0]
    session.get_one(CustomerPayment, made.source_id).customer_id = customer(session, number="C2").id
    session.commit()
    assert left(session) == [100, -60]
    assert applied(session) == [("manual", 60, LATER), ("undone", -60, LATER)]


def test_a_pair_that_was_kept_apart_settles_again_once_it_is_released(session: Session, sync: LedgerSync) -> None:
    invoiced(session)
    paid(session)
    invoice, payment = session.scalars(select(CustomerLedger).order_by(CustomerLedger.general_ledger_line_id))
    sync.unsettle(session, payment, invoice, LATER, **WHO)
    session.commit()
    assert left(session) == [100, -100]
    sync.release(session, payment, invoice, LATER, **WHO)
    session.commit()
    assert left(session) == [0, 0]


def test_when_a_payment_moves_to_another_customer_the_next_one_takes_its_place(session: Session) -> None:
    invoiced(session)
    first = paid(session)
    paid(session)
    assert left(session) == [0, 0, -100]
    session.get_one(CustomerPayment, first.source_id).customer_id = customer(session, number="C2").id
    session.commit()
    assert left(session) == [0, -100, 0]


def test_a_ledger_may_have_payments_alone(session: Session) -> None:
    payments = Document.of("vendor_payment", VendorPayment, "payment", "vendor_id")
    suppliers = Ledger(name="supplier", documents=(payments,), item=SupplierLedger, application=SupplierApplication)
    control = ControlAccount(accounts=("2400",), ledger="supplier", sources={"vendor_payment": "vendor_payment"})
    payment = vendor_payment(session, 60, payment_reference="18")
    entry(session, signed=60, source=("vendor_payment", payment.id))
    session.flush()
    binding = replace(ready_made(), ledgers=(suppliers,))
    (row,) = session.execute(project(binding, Settings(control_accounts=(control,)), suppliers))
    assert (row.settlement_key, row.kind, row.amount, row.reason) == ("ref:18", "payment", -60, None)


def test_invoices_may_be_of_one_kind_and_numbered_by_integers(session: Session) -> None:
    invoices = Document.of(
        "vendor_invoice", VendorInvoice, "invoice", "vendor_id", kind=None, credits=None, number="id"
    )
    suppliers = Ledger(name="supplier", documents=(invoices,), item=SupplierLedger, application=SupplierApplication)
    control = ControlAccount(accounts=("2400",), ledger="supplier", sources={"vendor_invoice": "vendor_invoice"})
    invoice = vendor_invoice(session, 60)
    entry(session, signed=-60, source=("vendor_invoice", invoice.id))
    session.flush()
    binding = replace(ready_made(), ledgers=(suppliers,))
    (row,) = session.execute(project(binding, Settings(control_accounts=(control,)), suppliers))
    assert (row.invoice_number, row.kind, row.amount, row.reason) == (str(invoice.id), "invoice", 60, None)


def test_one_oere_is_settled_like_any_other_amount(session: Session) -> None:
    invoiced(session, Decimal("0.01"))
    paid(session, Decimal("0.01"))
    assert left(session) == [0, 0]


adopting_sync = adoption.sync
adopting_factory = adoption.factory


def test_a_line_with_a_row_of_its_own_waits_for_none_of_its_entrys(
    adopting_sync: LedgerSync, adopting_factory: sessionmaker[Session]
) -> None:
    with adopting_factory() as session:
        posted = adoption.posted(session, 50, 20)
        adoption.old_row(session, posted, 50)
        adoption.old_row(session, posted, 21)
        assert adopting_sync.adopt(session, "acme").adopted == 1
        # the row of 21 fits no line, and the line of 20 waits for it
        assert adoption.causes(adopting_sync, session) == {"not_adopted": (2, Decimal(-1))}


def test_an_item_that_is_settled_says_when_it_changed(session: Session) -> None:
    invoiced(session)
    session.execute(update(CustomerLedger).values(updated_at=datetime(2020, 1, 1, tzinfo=UTC)))
    session.commit()
    paid(session)
    session.expire_all()
    assert [item.updated_at.year > 2020 for item in session.scalars(select(CustomerLedger))] == [True, True]


def test_a_status_that_was_changed_behind_the_hook_is_repaired_though_the_amount_is_right(
    factory: sessionmaker[Session], sync: LedgerSync
) -> None:
    with factory() as session:
        invoiced(session)
        session.execute(update(CustomerLedger).values(status="paid"))
        session.commit()
    sync.repair(factory, tenant_id="acme")
    with factory() as session:
        assert list(session.scalars(select(CustomerLedger.status))) == ["open"]


def test_an_item_that_a_run_wrote_names_the_run(factory: sessionmaker[Session], sync: LedgerSync) -> None:
    with factory() as session, sync.paused(session):
        invoiced(session)
    report = sync.backfill(factory, tenant_id="acme")
    assert report.synced == 1
    with factory() as session:
        invoiced(session, reference="26")
        assert list(session.scalars(select(CustomerLedger.run_id).order_by(CustomerLedger.general_ledger_line_id))) == [
            report.run_id,
            None,
        ]


@pytest.fixture
def editable_session(engine: Engine) -> Iterator[Session]:
    """A session on books whose posted entries can be edited."""
    factory = sessionmaker(engine)
    editable.editable_sync().attach(factory)
    editable.Base.metadata.create_all(engine)
    with factory() as opened:
        yield opened
    models = (editable.Item, editable.Link, editable.Line, editable.Entry, editable.Invoice, editable.Payment)
    editable.Base.metadata.drop_all(engine, tables=[model.__table__ for model in (*models, editable.Supplier)])


def test_what_is_left_of_an_invoice_follows_its_amount_when_its_entry_is_edited(editable_session: Session) -> None:
    session = editable_session
    known: dict[str, Any] = {"tenant_id": "acme", "vendor_id": 1, "payment_reference": "18"}
    invoice = editable.Invoice(amount=100, invoice_date=DAY, invoice_number="1", **known)
    payment = editable.Payment(amount=40, payment_date=DAY, **known)
    session.add_all([invoice, payment])
    session.flush()
    posted: dict[str, Any] = {"tenant_id": "acme", "entry_date": DAY, "status": "posted"}
    bought = editable.Entry(voucher_number="1", source_type="vendor_invoice", source_id=invoice.id, **posted)
    bought.lines = [
        editable.Line(line_number=1, account_number="2400", credit=100),
        editable.Line(line_number=2, account_number="4000", debit=100),
    ]
    settled = editable.Entry(voucher_number="2", source_type="vendor_payment", source_id=payment.id, **posted)
    settled.lines = [
        editable.Line(line_number=1, account_number="2400", debit=40),
        editable.Line(line_number=2, account_number="1920", credit=40),
    ]
    session.add_all([bought, settled])
    session.commit()
    bought.lines[0].credit = bought.lines[1].debit = Decimal(80)
    session.commit()
    items = session.execute(
        select(editable.Item.amount, editable.Item.remaining_amount).order_by(editable.Item.general_ledger_line_id)
    )
    assert [tuple(item) for item in items] == [(80, 40), (-40, 0)]


def test_a_row_that_goes_is_told_with_what_it_was(session: Session, sync: LedgerSync) -> None:
    told: list[tuple[str, Decimal, int]] = []

    def hear(sender: object, item: Any) -> None:
        told.append((item["ledger"], item["amount"], item["general_ledger_line_id"]))

    invoice = customer_invoice(session, 100)
    line = entry(session, "1500", 100).lines[0]
    session.flush()
    sync.link(session, "acme", line.id, "customer_invoice", invoice.id, **WHO)
    session.commit()
    with signals.item_removed.connected_to(hear, sender=sync):
        sync.unlink(session, "acme", line.id, **WHO)
        assert told == []
        session.commit()
    assert told == [("customer", 100, line.id)]
