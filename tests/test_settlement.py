"""Who has paid what: one test per promise, on each database."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import ALL_TENANTS, LedgerSync, Settings, signals
from ledger_sync.errors import AmountError, SettlementError
from ledger_sync.models import (
    CustomerApplication,
    CustomerLedger,
    JournalEntry,
    JournalLine,
    SourceLink,
    SupplierLedger,
)
from tests.books import DAY, customer_invoice, customer_payment, entry, vendor_invoice, vendor_payment

LATER = date(2026, 6, 30)
WHO: dict[str, Any] = {"actor": "kari", "reason": "agreed by telephone"}


def open_amounts(session: Session, model: Any = CustomerLedger) -> list[tuple[Decimal, Decimal, str]]:
    session.expire_all()
    rows = session.scalars(select(model).order_by(model.general_ledger_line_id))
    return [(row.amount, row.remaining_amount, row.status) for row in rows]


def items(session: Session) -> list[CustomerLedger]:
    return list(session.scalars(select(CustomerLedger).order_by(CustomerLedger.general_ledger_line_id)))


def invoice_posted(session: Session, amount: int = 100, **more: Any) -> Any:
    invoice = customer_invoice(session, amount, **more)
    tenant = more.get("tenant", "acme")
    entry(session, "1500", amount, ("customer_invoice", invoice.id), tenant=tenant)
    session.commit()
    return invoice


def payment_posted(session: Session, amount: int, reference: str | None = None, **more: Any) -> JournalEntry:
    payment = customer_payment(session, amount, payment_reference=reference, **more)
    tenant = more.get("tenant", "acme")
    made = entry(session, "1500", -amount, ("customer_payment", payment.id), tenant=tenant, on=DAY + timedelta(days=5))
    session.commit()
    return made


@pytest.mark.parametrize("reference", ["1234565", "123 45 65", " 1234565\u00a0"])
def test_a_payment_settles_the_invoice_whose_kid_it_names(session: Session, reference: str) -> None:
    invoice_posted(session, payment_reference="1234565")
    payment_posted(session, 100, reference)
    assert open_amounts(session) == [(100, 0, "paid"), (-100, 0, "paid")]


def test_a_payment_settles_the_invoice_whose_number_it_names(session: Session) -> None:
    invoice_posted(session, invoice_number="F-77")
    payment_posted(session, 100, "f-77")
    assert open_amounts(session) == [(100, 0, "paid"), (-100, 0, "paid")]


def test_a_partial_payment_leaves_the_rest_open(session: Session) -> None:
    invoice_posted(session, payment_reference="18")
    payment_posted(session, 40, "18")
    assert open_amounts(session) == [(100, 60, "partially_paid"), (-40, 0, "paid")]


def test_a_payment_may_come_before_its_invoice(session: Session) -> None:
    payment_posted(session, 100, "18")
    assert open_amounts(session) == [(-100, -100, "open")]
    invoice_posted(session, payment_reference="18")
    assert open_amounts(session) == [(-100, 0, "paid"), (100, 0, "paid")]


def test_one_entry_pays_several_invoices_by_a_link_per_line(session: Session) -> None:
    first, second = invoice_posted(session, 100), invoice_posted(session, 70)
    bank = JournalEntry(tenant_id="acme", voucher_number="B1", entry_date=DAY)
    bank.lines = [
        JournalLine(account_number="1920", debit=Decimal(150)),
        JournalLine(account_number="1500", credit=Decimal(100)),
        JournalLine(account_number="1500", credit=Decimal(50)),
    ]
    for line, invoice in zip(bank.lines[1:], (first, second), strict=True):
        line.link = SourceLink(source_type="customer_invoice", source_id=invoice.id)
    bank.post()
    session.add(bank)
    session.commit()
    assert open_amounts(session)[:2] == [(100, 0, "paid"), (70, 20, "partially_paid")]


def test_an_overpayment_stays_open(session: Session) -> None:
    invoice_posted(session, payment_reference="18")
    payment_posted(session, 130, "18")
    assert open_amounts(session) == [(100, 0, "paid"), (-130, -30, "partially_paid")]
    invoice_posted(session, 30, payment_reference="26")
    assert open_amounts(session)[2] == (30, 30, "open")


def test_oldest_first_uses_an_overpayment_for_the_next_invoice(engine: Engine) -> None:
    sync = LedgerSync(Settings(settlement="oldest_first"))
    factory = sessionmaker(engine)
    sync.attach(factory)
    with factory() as session:
        invoice_posted(session, payment_reference="18")
        payment_posted(session, 130, "18")
        invoice_posted(session, 50, payment_reference="26")
        assert open_amounts(session) == [(100, 0, "paid"), (-130, 0, "paid"), (50, 20, "partially_paid")]


def test_off_leaves_everything_but_reversals_open(engine: Engine) -> None:
    sync = LedgerSync(Settings(settlement="off"))
    factory = sessionmaker(engine)
    sync.attach(factory)
    with factory() as session:
        invoice_posted(session, payment_reference="18")
        paid = payment_posted(session, 100, "18")
        assert open_amounts(session) == [(100, 100, "open"), (-100, -100, "open")]
        session.add(paid.reverse(DAY + timedelta(days=9)))
        session.commit()
        assert open_amounts(session) == [(100, 100, "open"), (-100, 0, "paid"), (100, 0, "paid")]


def test_a_credit_note_settles_the_invoice_that_it_credits(session: Session) -> None:
    invoice = invoice_posted(session)
    note = customer_invoice(session, 30, kind="credit_note", credits_id=invoice.id)
    entry(session, "1500", -30, ("customer_invoice", note.id))
    session.commit()
    assert open_amounts(session) == [(100, 70, "partially_paid"), (-30, 0, "paid")]
    assert items(session)[1].kind == "credit_note"


def test_a_reversed_invoice_and_its_reversal_cancel_and_set_its_payment_free(session: Session) -> None:
    invoice = customer_invoice(session, 100, payment_reference="18")
    posted = entry(session, "1500", 100, ("customer_invoice", invoice.id))
    session.commit()
    payment_posted(session, 100, "18")
    session.add(posted.reverse(DAY + timedelta(days=9)))
    session.commit()
    assert open_amounts(session) == [(100, 0, "paid"), (-100, -100, "open"), (-100, 0, "paid")]


def test_reversing_a_payment_opens_its_invoice_again(session: Session) -> None:
    invoice_posted(session, payment_reference="18")
    paid = payment_posted(session, 100, "18")
    session.add(paid.reverse(DAY + timedelta(days=9)))
    session.commit()
    assert open_amounts(session) == [(100, 100, "open"), (-100, 0, "paid"), (100, 0, "paid")]


@pytest.mark.parametrize("kind", ["write_off", "rounding", "fee", "exchange"])
def test_a_line_whose_link_names_invoice_and_kind_closes_the_item(session: Session, kind: str) -> None:
    invoice = invoice_posted(session, payment_reference="18")
    payment_posted(session, 99, "18")
    rest = entry(session, "1500", -1, contra="7770")
    rest.lines[0].link = SourceLink(source_type="customer_invoice", source_id=invoice.id, kind=kind)
    session.commit()
    assert open_amounts(session) == [(100, 0, "paid"), (-99, 0, "paid"), (-1, 0, "paid")]
    assert items(session)[2].kind == kind


def test_an_invoice_in_euro_closes_to_zero_by_an_exchange_difference(session: Session) -> None:
    invoice = customer_invoice(session, 1150, currency="EUR")
    source = ("customer_invoice", invoice.id)
    entry(session, "1500", 1150, source, line={"currency": "EUR", "currency_amount": Decimal("100.000")})
    entry(session, "1500", -1170, source, line={"currency": "EUR", "currency_amount": Decimal("-100.000")})
    loss = entry(session, "1500", 20, contra="8160")
    loss.lines[0].link = SourceLink(source_type="customer_invoice", source_id=invoice.id, kind="exchange")
    session.commit()
    assert [(item.remaining_amount, item.currency_amount) for item in items(session)] == [
        (0, Decimal(100)),
        (0, Decimal(-100)),
        (0, None),
    ]


def test_a_reference_that_fits_several_invoices_matches_none_until_one_is_left(session: Session) -> None:
    first = invoice_posted(session, invoice_number="7")
    payment_posted(session, 100, "7")
    assert open_amounts(session)[1] == (-100, 0, "paid")
    second = customer_invoice(session, 50, invoice_number="7")
    session.commit()
    assert open_amounts(session) == [(100, 100, "open"), (-100, -100, "open")]
    second.invoice_number = "8"
    session.commit()
    assert open_amounts(session) == [(100, 0, "paid"), (-100, 0, "paid")]
    assert first.invoice_number == "7"


def test_a_kid_of_another_partys_invoice_matches_nothing(session: Session) -> None:
    invoice_posted(session, payment_reference="18")
    payment_posted(session, 100, "18", party="C2")
    assert open_amounts(session) == [(100, 100, "open"), (-100, -100, "open")]


def test_a_kid_of_another_tenants_invoice_matches_nothing(session: Session) -> None:
    invoice_posted(session, payment_reference="18")
    payment_posted(session, 100, "18", tenant="other")
    assert open_amounts(session) == [(100, 100, "open"), (-100, -100, "open")]


def test_a_link_taken_away_undoes_what_it_settled_and_nothing_is_deleted(session: Session) -> None:
    invoice = invoice_posted(session)
    paid = entry(session, "1500", -100)
    paid.lines[0].link = SourceLink(source_type="customer_invoice", source_id=invoice.id)
    session.commit()
    assert open_amounts(session)[0] == (100, 0, "paid")
    session.delete(paid.lines[0].link)
    session.commit()
    assert open_amounts(session) == [(100, 100, "open")]
    assert list(session.scalars(select(CustomerApplication.amount).order_by(CustomerApplication.id))) == [100, -100]


def test_suppliers_settle_the_same_way(session: Session) -> None:
    invoice = vendor_invoice(session, 100, payment_reference="18")
    entry(session, "2400", -100, ("ehf_invoice", invoice.id))
    payment = vendor_payment(session, 60, payment_reference="18")
    entry(session, "2400", 60, ("vendor_payment", payment.id))
    session.commit()
    assert open_amounts(session, SupplierLedger) == [(100, 40, "partially_paid"), (-60, 0, "paid")]


def test_a_backfill_settles_as_the_hook_does(engine: Engine, sync: LedgerSync) -> None:
    factory = sessionmaker(engine)
    with factory() as session:
        invoice_posted(session, payment_reference="18")
        payment_posted(session, 60, "18")
        invoice_posted(session, payment_reference="18", tenant="other")
        payment_posted(session, 100, "18", tenant="other")
    report = sync.backfill(factory, tenant_id=ALL_TENANTS)
    assert (report.synced, report.applied) == (4, 2)
    with factory() as session:
        assert [row[1] for row in open_amounts(session)] == [40, 0, 0, 0]
    again = sync.backfill(factory, tenant_id=ALL_TENANTS)
    assert (again.synced, again.applied) == (0, 0)


# -- by hand ------------------------------------------------------------------------------------------------


def test_settled_by_hand_and_unsettled_gives_back_the_same_state(session: Session, sync: LedgerSync) -> None:
    invoice_posted(session)
    payment_posted(session, 60)
    before = open_amounts(session)
    invoice, payment = items(session)
    done = sync.settle(session, payment, invoice, 25, LATER, **WHO)
    assert (done.amount, done.method, done.applied_on) == (25, "manual", LATER)
    assert (invoice.remaining_amount, payment.remaining_amount) == (75, -35)
    sync.unsettle(session, payment, invoice, LATER, **WHO)
    session.commit()
    assert open_amounts(session) == before
    assert session.scalar(select(func.count()).select_from(CustomerApplication)) == 2


def test_automatic_applications_give_way_to_what_is_settled_by_hand(session: Session, sync: LedgerSync) -> None:
    invoice_posted(session, payment_reference="18")
    payment_posted(session, 100, "18")
    payment_posted(session, 100)
    invoice, automatic, other = items(session)
    sync.settle(session, other, invoice, on=LATER, **WHO)
    session.commit()
    assert [row[1] for row in open_amounts(session)] == [0, -100, 0]
    sync.unsettle(session, other, invoice, LATER, **WHO)
    session.commit()
    assert [row[1] for row in open_amounts(session)] == [0, 0, -100]
    assert automatic.status == "paid"


def test_a_reversal_overrides_what_was_settled_by_hand(session: Session, sync: LedgerSync) -> None:
    invoice_posted(session)
    paid = payment_posted(session, 60)
    invoice, payment = items(session)
    sync.settle(session, payment, invoice, on=LATER, **WHO)
    session.commit()
    session.add(paid.reverse(LATER + timedelta(days=1)))
    session.commit()
    assert [row[1] for row in open_amounts(session)] == [100, 0, 0]
    then = sync.open_items(session, "acme", as_of=LATER)
    assert [item.remaining_amount for item in then] == [40]


def test_what_was_settled_by_hand_is_undone_when_both_items_go_at_once(session: Session, sync: LedgerSync) -> None:
    invoice_posted(session)
    payment_posted(session, 60)
    invoice, payment = items(session)
    sync.settle(session, payment, invoice, on=LATER, **WHO)
    session.commit()
    entries, kept = JournalEntry.__table__, [invoice.general_ledger_id, payment.general_ledger_id]

    def goes_to(**values: Any) -> None:
        session.connection().execute(update(entries).where(entries.c.id.in_(kept)).values(**values))
        session.expire_all()
        sync.sync_entries(session, kept)
        session.commit()

    def left() -> tuple[int, Decimal]:
        a = CustomerApplication
        count, amount = session.execute(select(func.count(), func.sum(a.amount))).one()
        return count, amount

    goes_to(status="draft", posted_at=None)
    assert items(session) == []
    assert left() == (2, 0)
    undone = select(CustomerApplication.applied_on).where(CustomerApplication.method == "undone")
    assert session.scalar(undone) == DAY + timedelta(days=5)  # its cause is what went, the later of the two
    assert sync.verify(session, "acme").clean
    goes_to(status="posted", posted_at=datetime(2026, 7, 1, tzinfo=UTC))
    assert [row[1] for row in open_amounts(session)] == [40, 0]
    assert left() == (3, 60)


def test_an_automatic_pair_that_is_unsettled_stays_apart_until_released(session: Session, sync: LedgerSync) -> None:
    invoice_posted(session, payment_reference="18")
    payment_posted(session, 100, "18")
    invoice, payment = items(session)
    sync.unsettle(session, payment, invoice, LATER, **WHO)
    session.commit()
    assert [row[1] for row in open_amounts(session)] == [100, -100]
    payment_posted(session, 100, "18")
    assert [row[1] for row in open_amounts(session)] == [0, -100, 0]
    sync.release(session, payment, invoice, LATER, **WHO)
    session.commit()
    # the earlier payment takes what the later one had taken meanwhile
    assert [row[1] for row in open_amounts(session)] == [0, 0, -100]
    with pytest.raises(SettlementError, match="not pinned apart"):
        sync.release(session, payment, invoice, LATER, **WHO)


def test_the_same_call_with_the_same_key_is_done_once(session: Session, sync: LedgerSync) -> None:
    invoice_posted(session)
    payment_posted(session, 60)
    invoice, payment = items(session)
    first = sync.settle(session, payment, invoice, 10, LATER, **WHO, idempotency_key="k1")
    assert sync.settle(session, payment, invoice, 10, LATER, **WHO, idempotency_key="k1") == first
    assert invoice.remaining_amount == 90
    payment_posted(session, 5)
    with pytest.raises(SettlementError, match="idempotency key 'k1'"):
        sync.settle(session, items(session)[2], invoice, 5, LATER, **WHO, idempotency_key="k1")


def test_a_key_is_for_one_call_not_for_another_of_the_same_items(session: Session, sync: LedgerSync) -> None:
    invoice_posted(session)
    payment_posted(session, 60)
    invoice, payment = items(session)
    sync.settle(session, payment, invoice, 50, LATER, **WHO, idempotency_key="k1")
    assert sync.settle(session, payment, invoice, None, LATER, **WHO, idempotency_key="k1").amount == 50
    with pytest.raises(SettlementError, match="idempotency key 'k1'"):
        sync.settle(session, payment, invoice, 10, LATER, **WHO, idempotency_key="k1")
    with pytest.raises(SettlementError, match="idempotency key 'k1'"):
        sync.unsettle(session, payment, invoice, LATER, **WHO, idempotency_key="k1")
    assert sync.unsettle(session, payment, invoice, LATER, **WHO, idempotency_key="k2").amount == -50
    assert sync.unsettle(session, payment, invoice, LATER, **WHO, idempotency_key="k2").amount == -50
    with pytest.raises(SettlementError, match="idempotency key 'k2'"):
        sync.settle(session, payment, invoice, None, LATER, **WHO, idempotency_key="k2")


def test_a_key_is_a_tenants_whatever_the_ledger(session: Session, sync: LedgerSync) -> None:
    invoice_posted(session)
    payment_posted(session, 60)
    sync.settle(session, *items(session)[::-1], 50, LATER, **WHO, idempotency_key="k1")
    bill = vendor_invoice(session, 100)
    entry(session, "2400", -100, ("vendor_invoice", bill.id))
    paid = vendor_payment(session, 60)
    entry(session, "2400", 60, ("vendor_payment", paid.id))
    session.flush()
    owed = session.scalars(select(SupplierLedger)).all()
    with pytest.raises(SettlementError, match="idempotency key 'k1'"):
        sync.settle(session, owed[0], owed[1], 50, LATER, **WHO, idempotency_key="k1")


def test_what_a_person_settles_and_takes_apart_is_told_by_what_is_left(session: Session, sync: LedgerSync) -> None:
    invoice_posted(session, 60, payment_reference="18")
    invoice_posted(session)
    payment_posted(session, 100, "18")
    old, other, payment = items(session)
    heard: list[tuple[str, int, Decimal, Decimal]] = []

    def hear(name: str) -> Any:
        return lambda sender, item: heard.append(
            (name, item["general_ledger_line_id"], item["settled_amount"], item["remaining_amount"])
        )

    ends = {"settled": hear("settled"), "reopened": hear("reopened")}
    with (
        signals.item_settled.connected_to(ends["settled"], sender=sync),
        signals.item_reopened.connected_to(ends["reopened"], sender=sync),
    ):
        sync.settle(session, payment, other, 100, LATER, **WHO)
        session.commit()
        lines = {item: item.general_ledger_line_id for item in (old, other, payment)}
        assert sorted(heard) == [
            ("reopened", lines[old], -60, 60),
            ("settled", lines[other], 100, 0),
            ("settled", lines[payment], 40, 0),
        ]
        heard.clear()
        sync.unsettle(session, payment, other, LATER, **WHO)
        session.commit()
        assert sorted(heard) == [
            ("reopened", lines[other], -100, 100),
            ("reopened", lines[payment], -40, -40),
            ("settled", lines[old], 60, 0),
        ]


@pytest.mark.parametrize(
    ("amount", "said"),
    [(0, "Give a positive amount"), (-5, "Give a positive amount"), (61, "leave 60.00"), (Decimal("60.01"), "at most")],
)
def test_an_amount_that_is_not_there_to_settle_is_refused(
    session: Session, sync: LedgerSync, amount: Any, said: str
) -> None:
    invoice_posted(session)
    payment_posted(session, 60)
    invoice, payment = items(session)
    with pytest.raises(SettlementError, match=said) as refused:
        sync.settle(session, payment, invoice, amount, LATER, **WHO)
    assert f"customer_ledger item {invoice.id}" in str(refused.value)
    assert f"customer_ledger item {payment.id}" in str(refused.value)


@pytest.mark.parametrize("amount", [0.5, Decimal("NaN"), Decimal("Infinity"), "1.005", "much"])
def test_an_inexact_amount_is_refused(session: Session, sync: LedgerSync, amount: Any) -> None:
    invoice_posted(session)
    payment_posted(session, 60)
    invoice, payment = items(session)
    with pytest.raises(AmountError):
        sync.settle(session, payment, invoice, amount, LATER, **WHO)


def test_items_that_do_not_belong_together_are_refused(session: Session, sync: LedgerSync) -> None:
    invoice_posted(session)
    payment_posted(session, 10, party="C2")
    payment_posted(session, 10, tenant="other")
    invoice_posted(session)
    supplier = vendor_invoice(session)
    entry(session, "2400", -100, ("vendor_invoice", supplier.id))
    session.commit()
    invoice, other_party, other_tenant, second = items(session)
    owed = session.scalars(select(SupplierLedger)).one()
    for item, said in (
        (other_party, "two parties"),
        (other_tenant, "one tenant"),
        (second, "same side"),
        (owed, "two ledgers"),
        (invoice, "one and the same"),
    ):
        with pytest.raises(SettlementError, match=said):
            sync.settle(session, item, invoice, 1, LATER, **WHO)
    payment_posted(session, 10)
    with pytest.raises(SettlementError, match="not settled with one another"):
        sync.unsettle(session, items(session)[-1], invoice, LATER, **WHO)


@pytest.mark.parametrize("closed", [LATER, {"acme": LATER}, lambda tenant: LATER if tenant == "acme" else None])
def test_nothing_is_settled_by_hand_in_a_closed_period(engine: Engine, closed: Any) -> None:
    sync = LedgerSync(Settings(closed_through=closed))
    factory = sessionmaker(engine)
    sync.attach(factory)
    with factory() as session:
        invoice_posted(session)
        payment_posted(session, 60)
        invoice, payment = items(session)
        with pytest.raises(SettlementError, match="closed through 2026-06-30"):
            sync.settle(session, payment, invoice, on=LATER, **WHO)
        sync.settle(session, payment, invoice, on=LATER + timedelta(days=1), **WHO)
        assert invoice.remaining_amount == 40


def test_nothing_is_settled_before_both_are_there(session: Session, sync: LedgerSync) -> None:
    invoice_posted(session)
    payment_posted(session, 60)
    invoice, payment = items(session)
    with pytest.raises(SettlementError, match="before both are there"):
        sync.settle(session, payment, invoice, on=DAY, **WHO)


# -- as of, signals -----------------------------------------------------------------------------------------


def test_what_was_open_on_a_day_does_not_change_when_later_entries_are_posted(
    session: Session, sync: LedgerSync
) -> None:
    invoice_posted(session, payment_reference="18")
    assert [item.remaining_amount for item in sync.open_items(session, "acme", as_of=DAY)] == [100]
    payment_posted(session, 60, "18")
    assert [item.remaining_amount for item in sync.open_items(session, "acme", as_of=DAY)] == [100]
    today = sync.open_items(session, "acme")
    assert today == sync.open_items(session, "acme", as_of=date(2099, 1, 1))
    assert [item.remaining_amount for item in today] == [40]


def test_settled_and_reopened_are_told_after_the_commit_only(session: Session, sync: LedgerSync) -> None:
    heard: list[tuple[str, Decimal, Decimal]] = []

    def settled(sender: object, item: Any) -> None:
        heard.append(("settled", item["amount"], item["remaining_amount"]))

    def reopened(sender: object, item: Any) -> None:
        heard.append(("reopened", item["amount"], item["remaining_amount"]))

    with (
        signals.item_settled.connected_to(settled, sender=sync),
        signals.item_reopened.connected_to(reopened, sender=sync),
    ):
        invoice_posted(session, payment_reference="18")
        payment = customer_payment(session, 100, payment_reference="18")
        paid = entry(session, "1500", -100, ("customer_payment", payment.id))
        session.flush()
        assert heard == []
        session.commit()
        assert sorted(heard) == [("settled", -100, 0), ("settled", 100, 0)]
        heard.clear()
        session.add(paid.reverse(DAY))
        session.flush()
        session.rollback()
        assert heard == []
        session.add(paid.reverse(DAY))
        session.commit()
        assert ("reopened", 100, 100) in heard


@pytest.mark.parametrize("attached", [False, True])
def test_what_is_done_by_hand_is_told_once_by_whatever_session(engine: Engine, attached: bool) -> None:
    sync = LedgerSync()
    factory = sessionmaker(engine)
    sync.attach(factory)
    with factory() as session:
        invoice_posted(session)
        payment_posted(session, 60)
    heard: list[Decimal] = []

    def settled(sender: object, item: Any) -> None:
        heard.append(item["settled_amount"])

    with (
        signals.item_settled.connected_to(settled, sender=sync),
        (factory if attached else sessionmaker(engine))() as session,
    ):
        invoice, payment = items(session)
        sync.settle(session, payment, invoice, on=LATER, **WHO)
        session.rollback()
        assert heard == []
        sync.settle(session, payment, invoice, on=LATER, **WHO)
        assert heard == []
        session.commit()
        assert heard == [60, 60]
