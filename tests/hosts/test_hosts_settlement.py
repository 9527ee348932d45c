"""Who has paid what, on every host's own models: one test per promise."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select

from ledger_sync import ALL_TENANTS, signals
from ledger_sync.errors import AmountError, LinkError, SettlementError
from tests.hosts.kit import DAY, Desk

LATER = date(2026, 6, 30)
WHO: dict[str, Any] = {"actor": "kari", "reason": "agreed by telephone"}


def invoiced(desk: Desk, amount: object = 100, **more: Any) -> Any:
    return desk.posted(amount, **more)


def paid(desk: Desk, amount: object, reference: str | None = None, **more: Any) -> Any:
    return desk.paid(amount, reference=reference, **{"on": DAY + timedelta(days=5), **more})


def left(desk: Desk) -> list[Any]:
    return [row[1] for row in desk.open_amounts()]


def test_a_payment_settles_the_invoice_whose_kid_or_number_it_names(desk: Desk) -> None:
    for number, reference in enumerate(["1234565", "123 45 65", " 1234565\u00a0"]):
        party = str(number + 1)
        invoiced(desk, reference="1234565", party=party)
        paid(desk, 100, reference, party=party)
    invoiced(desk, number="F-77")
    paid(desk, 100, "f-77")
    assert desk.open_amounts() == [(100, 0, "paid"), (-100, 0, "paid")] * 4
    desk.synced(8)


def test_a_partial_payment_leaves_the_rest_open(desk: Desk) -> None:
    invoiced(desk, reference="18")
    paid(desk, 40, "18")
    assert desk.open_amounts() == [(100, 60, "partially_paid"), (-40, 0, "paid")]


def test_a_payment_may_come_before_its_invoice(desk: Desk) -> None:
    paid(desk, 100, "18")
    assert desk.open_amounts() == [(-100, -100, "open")]
    invoiced(desk, reference="18")
    assert desk.open_amounts() == [(-100, 0, "paid"), (100, 0, "paid")]


def test_one_entry_pays_several_invoices_by_a_link_per_line(desk: Desk) -> None:
    books = desk.books()
    invoices = [desk.invoice(amount) for amount in (100, 70)]
    for amount, invoice in zip((100, 70), invoices, strict=True):
        desk.entry(amount, source=invoice)
    amounts = zip((-100, -50), invoices, strict=True)
    books.entry([books.on_account("supplier", amount, source=invoice) for amount, invoice in amounts], on=DAY)
    desk.session.commit()
    assert desk.open_amounts()[:2] == [(100, 0, "paid"), (70, 20, "partially_paid")]
    desk.synced(4)


@pytest.mark.parametrize("ledger", ["supplier", "customer"])
def test_an_entry_that_names_an_invoice_in_the_other_direction_pays_it(desk: Desk, ledger: str) -> None:
    """Which is how it is paid where the host has no documents of payments."""
    invoice = desk.invoice(100, ledger)
    desk.entry(100, ledger, source=invoice)
    desk.entry(-60, ledger, source=invoice)
    desk.session.commit()
    assert desk.open_amounts(ledger) == [(100, 40, "partially_paid"), (-60, 0, "paid")]
    assert desk.items(ledger)[1].kind == "payment"
    desk.synced(2)


def test_customers_payments_settle_the_same_way(desk: Desk) -> None:
    desk.needs("customers' payments")
    desk.posted(100, "customer", reference="18")
    desk.paid(60, "customer", reference="18")
    assert desk.open_amounts("customer") == [(100, 40, "partially_paid"), (-60, 0, "paid")]
    desk.synced(2)


def test_an_overpayment_stays_open(desk: Desk) -> None:
    invoiced(desk, reference="18")
    paid(desk, 130, "18")
    assert desk.open_amounts() == [(100, 0, "paid"), (-130, -30, "partially_paid")]
    invoiced(desk, 30, reference="26")
    assert desk.open_amounts()[2] == (30, 30, "open")


def test_oldest_first_uses_an_overpayment_for_the_next_invoice(desk: Desk) -> None:
    with desk.under(settlement="oldest_first") as other:
        invoiced(other, reference="18")
        paid(other, 130, "18")
        invoiced(other, 50, reference="26")
        invoiced(other, 10, reference="34")
        assert left(other) == [0, 0, 20, 10]
        other.synced(4)


def test_off_leaves_everything_but_reversals_open(desk: Desk) -> None:
    with desk.under(settlement="off") as other:
        invoiced(other, reference="18")
        payment = paid(other, 100, "18")
        assert other.open_amounts() == [(100, 100, "open"), (-100, -100, "open")]
        other.reverse(payment, DAY + timedelta(days=9))
        other.session.commit()
        assert other.open_amounts() == [(100, 100, "open"), (-100, 0, "paid"), (100, 0, "paid")]


def test_many_items_of_one_invoice_settle_the_oldest_first_in_the_order_of_vouchers(desk: Desk) -> None:
    invoice = desk.invoice(reference="18")
    for amount, on in ((70, 3), (30, 1), (50, 1)):
        desk.entry(amount, source=invoice, on=DAY + timedelta(days=on))
    paid(desk, 90, "18")
    paid(desk, 10, "18")
    assert left(desk) == [50, 0, 0, 0, 0]
    desk.synced(5)


def test_a_credit_note_settles_the_invoice_that_it_credits(desk: Desk) -> None:
    invoice = desk.invoice()
    desk.entry(source=invoice)
    desk.posted(30, credit_note=True, credits=invoice)
    assert desk.open_amounts() == [(100, 70, "partially_paid"), (-30, 0, "paid")]
    assert desk.items()[1].kind == "credit_note"


def test_a_reversed_invoice_and_its_reversal_cancel_and_set_its_payment_free(desk: Desk) -> None:
    posted = invoiced(desk, reference="18")
    paid(desk, 100, "18")
    desk.reverse(posted, DAY + timedelta(days=9))
    desk.session.commit()
    assert desk.open_amounts() == [(100, 0, "paid"), (-100, -100, "open"), (-100, 0, "paid")]
    desk.synced(3)


def test_reversing_a_payment_opens_its_invoice_again(desk: Desk) -> None:
    invoiced(desk, reference="18")
    desk.reverse(paid(desk, 100, "18"), DAY + timedelta(days=9))
    desk.session.commit()
    assert desk.open_amounts() == [(100, 100, "open"), (-100, 0, "paid"), (100, 0, "paid")]
    desk.synced(3)


@pytest.mark.parametrize("kind", ["write_off", "rounding", "fee", "exchange"])
def test_a_line_whose_link_names_invoice_and_kind_closes_the_item(desk: Desk, kind: str) -> None:
    invoice = desk.invoice(reference="18")
    desk.entry(source=invoice)
    paid(desk, 99, "18")
    desk.entry(-1, link=invoice, kind=kind)
    desk.session.commit()
    assert desk.open_amounts() == [(100, 0, "paid"), (-99, 0, "paid"), (-1, 0, "paid")]
    assert desk.items()[2].kind == kind


def test_an_invoice_in_euro_closes_to_zero_by_an_exchange_difference(desk: Desk) -> None:
    desk.needs("currencies")
    books, invoice = desk.books(), desk.invoice(1150, "customer")
    for amount, euro in ((1150, "100.000"), (-1170, "-100.000")):
        more = {"currency": "EUR", "currency_amount": Decimal(euro)}
        books.entry([books.on_account("customer", amount, more=more)], source=invoice, on=DAY)
    desk.entry(20, "customer", link=invoice, kind="exchange")
    desk.session.commit()
    rows = [(item.remaining_amount, item.currency_amount) for item in desk.items("customer")]
    assert rows == [(0, Decimal(100)), (0, Decimal(-100)), (0, None)]
    desk.synced(3)


def test_a_reference_that_fits_several_invoices_matches_none_until_one_is_left(desk: Desk) -> None:
    invoiced(desk, number="7")
    paid(desk, 100, "7")
    assert desk.open_amounts()[1] == (-100, 0, "paid")
    second = desk.invoice(50, number="7")
    desk.session.commit()
    assert desk.open_amounts() == [(100, 100, "open"), (-100, -100, "open")]
    desk.change(second, number="8")
    desk.session.commit()
    assert desk.open_amounts() == [(100, 0, "paid"), (-100, 0, "paid")]


def test_a_kid_of_another_partys_or_tenants_invoice_matches_nothing(desk: Desk) -> None:
    invoiced(desk, reference="18")
    paid(desk, 100, "18", party="2")
    if desk.has("tenants"):
        paid(desk, 100, "18", tenant=1)
    assert all(row[2] == "open" for row in desk.open_amounts())
    desk.synced()


def test_a_link_taken_away_undoes_what_it_settled_and_nothing_is_deleted(desk: Desk) -> None:
    invoice = desk.invoice()
    desk.entry(source=invoice)
    payment = desk.entry(-100, link=invoice)
    desk.session.commit()
    assert desk.open_amounts()[0] == (100, 0, "paid")
    desk.books().unlink(desk.line(payment))
    desk.session.commit()
    assert desk.open_amounts() == [(100, 100, "open")]
    application = desk.binding.ledger("supplier").application
    assert list(desk.session.scalars(select(application.amount).order_by(application.id))) == [100, -100]


def test_an_amount_that_changes_settles_anew(desk: Desk) -> None:
    posted = invoiced(desk, reference="18")
    paid(desk, 100, "18")
    desk.books().set_amount(desk.line(posted), Decimal(-70))
    desk.session.commit()
    assert desk.open_amounts() == [(70, 0, "paid"), (-100, -30, "partially_paid")]
    desk.books().delete_entry(posted)
    desk.session.commit()
    assert desk.open_amounts() == [(-100, -100, "open")]
    desk.synced(1)


def test_a_backfill_settles_as_the_hook_does(desk: Desk) -> None:
    with desk.under(attached=False) as history:
        tenants = range(len(history.host.tenants))
        for tenant in tenants:
            invoiced(history, reference="18", tenant=tenant)
            paid(history, 60, "18", tenant=tenant)
        report = history.backfill(tenant_id=ALL_TENANTS)
        assert (report.synced, report.applied) == (2 * len(tenants), len(tenants))
        assert left(history) == [40, 0] * len(tenants)
        again = history.backfill(tenant_id=ALL_TENANTS)
        assert (again.synced, again.applied) == (0, 0)


# -- by hand ------------------------------------------------------------------------------------------------


def test_settled_by_hand_and_unsettled_gives_back_the_same_state(desk: Desk) -> None:
    invoiced(desk)
    paid(desk, 60)
    before = desk.open_amounts()
    invoice, payment = desk.items()
    done = desk.sync.settle(desk.session, payment, invoice, 25, LATER, **WHO)
    assert (done.amount, done.method, done.applied_on) == (25, "manual", LATER)
    assert (invoice.remaining_amount, payment.remaining_amount) == (75, -35)
    desk.synced()
    desk.sync.unsettle(desk.session, payment, invoice, LATER, **WHO)
    desk.session.commit()
    assert desk.open_amounts() == before
    application = desk.binding.ledger("supplier").application
    assert desk.session.scalar(select(func.count()).select_from(application)) == 2


def test_automatic_applications_give_way_to_what_is_settled_by_hand(desk: Desk) -> None:
    invoiced(desk, reference="18")
    paid(desk, 100, "18")
    paid(desk, 100)
    invoice, automatic, other = desk.items()
    desk.sync.settle(desk.session, other, invoice, on=LATER, **WHO)
    desk.session.commit()
    assert left(desk) == [0, -100, 0]
    desk.sync.unsettle(desk.session, other, invoice, LATER, **WHO)
    desk.session.commit()
    assert left(desk) == [0, 0, -100]
    assert desk.host.word(automatic.status) == "paid"
    desk.synced()


def test_a_reversal_overrides_what_was_settled_by_hand(desk: Desk) -> None:
    invoiced(desk)
    reversed_later = paid(desk, 60)
    invoice, payment = desk.items()
    desk.sync.settle(desk.session, payment, invoice, on=LATER, **WHO)
    desk.session.commit()
    desk.reverse(reversed_later, LATER + timedelta(days=1))
    desk.session.commit()
    assert left(desk) == [100, 0, 0]
    then = desk.sync.open_items(desk.session, desk.tenant(), as_of=LATER)
    assert [item.remaining_amount for item in then] == [40]
    desk.synced()


def test_an_automatic_pair_that_is_unsettled_stays_apart_until_released(desk: Desk) -> None:
    invoiced(desk, reference="18")
    paid(desk, 100, "18")
    invoice, payment = desk.items()
    desk.sync.unsettle(desk.session, payment, invoice, LATER, **WHO)
    desk.session.commit()
    assert left(desk) == [100, -100]
    paid(desk, 100, "18")
    assert left(desk) == [0, -100, 0]
    desk.sync.release(desk.session, payment, invoice, LATER, **WHO)
    desk.session.commit()
    assert sorted(left(desk)) == [-100, 0, 0]
    desk.synced()
    with pytest.raises(SettlementError, match="not pinned apart"):
        desk.sync.release(desk.session, payment, invoice, LATER, **WHO)


def test_the_same_call_with_the_same_key_is_done_once(desk: Desk) -> None:
    invoiced(desk)
    paid(desk, 60)
    invoice, payment = desk.items()
    first = desk.sync.settle(desk.session, payment, invoice, 10, LATER, **WHO, idempotency_key="k1")
    assert desk.sync.settle(desk.session, payment, invoice, 10, LATER, **WHO, idempotency_key="k1") == first
    assert invoice.remaining_amount == 90
    paid(desk, 5)
    with pytest.raises(SettlementError, match="idempotency key 'k1'"):
        desk.sync.settle(desk.session, desk.items()[2], invoice, 5, LATER, **WHO, idempotency_key="k1")


def test_the_same_link_and_unlink_with_the_same_key_are_done_once(desk: Desk) -> None:
    sync, session, tenant = desk.sync, desk.session, desk.tenant()
    invoice, line = desk.invoice(), desk.line(desk.entry())
    desk.session.commit()
    asked: list[Any] = [tenant, line.id, "vendor_invoice", invoice.id]
    first = sync.link(session, *asked, **WHO, idempotency_key="k1")
    assert sync.link(session, *asked, **WHO, idempotency_key="k1") == first
    assert (first.source_id, first.general_ledger_line_id, first.actor) == (invoice.id, line.id, WHO["actor"])
    desk.session.commit()
    desk.synced(1)
    taken_back = sync.unlink(session, tenant, line.id, **WHO, idempotency_key="k2")
    assert taken_back == first.model_copy(
        update={"action": "unlink", "idempotency_key": "k2", "method": taken_back.method}
    )
    desk.session.commit()
    assert sync.link(session, *asked, **WHO, idempotency_key="k1") == first
    assert sync.unlink(session, tenant, line.id, **WHO, idempotency_key="k2") == taken_back
    desk.session.commit()
    desk.synced(0)
    kept = session.scalars(select(desk.binding.decision).order_by(desk.binding.decision.id)).all()
    assert [(one.action, one.source_id, one.actor) for one in kept] == [
        ("link", invoice.id, WHO["actor"]),
        ("unlink", invoice.id, WHO["actor"]),
    ]
    with pytest.raises(LinkError, match="idempotency key 'k1'"):
        sync.unlink(session, tenant, line.id, **WHO, idempotency_key="k1")


def test_an_amount_that_is_not_there_to_settle_or_inexact_is_refused(desk: Desk) -> None:
    invoiced(desk)
    paid(desk, 60)
    invoice, payment = desk.items()
    table = desk.binding.ledger("supplier").table.name
    refusals: list[tuple[Any, str]] = [(0, "Give a positive amount"), (-5, "Give a positive amount")]
    refusals += [(61, "leave 60.00"), (Decimal("60.01"), "at most")]
    for amount, said in refusals:
        with pytest.raises(SettlementError, match=said) as refused:
            desk.sync.settle(desk.session, payment, invoice, amount, LATER, **WHO)
        assert f"{table} item {invoice.id}" in str(refused.value)
        assert f"{table} item {payment.id}" in str(refused.value)
    inexact: list[Any] = [0.5, Decimal("NaN"), "1.005"]
    for amount in inexact:
        with pytest.raises(AmountError):
            desk.sync.settle(desk.session, payment, invoice, amount, LATER, **WHO)


def test_items_that_do_not_belong_together_are_refused(desk: Desk) -> None:
    invoiced(desk)
    paid(desk, 10, party="2")
    invoiced(desk)
    desk.posted(100, "customer")
    (invoice, other_party, second), (owed,) = desk.items(), desk.items("customer")
    cases = [(other_party, "two parties"), (second, "same side"), (owed, "two ledgers"), (invoice, "one and the same")]
    if desk.has("tenants"):
        paid(desk, 10, tenant=1)
        cases.append((desk.items()[-1], "one tenant"))
    for item, said in cases:
        with pytest.raises(SettlementError, match=said):
            desk.sync.settle(desk.session, item, invoice, 1, LATER, **WHO)
    paid(desk, 10)
    with pytest.raises(SettlementError, match="not settled with one another"):
        desk.sync.unsettle(desk.session, desk.items()[-1], invoice, LATER, **WHO)


def test_nothing_is_settled_by_hand_in_a_closed_period_or_before_both_are_there(desk: Desk) -> None:
    with desk.under(closed_through=LATER) as other:
        invoiced(other)
        paid(other, 60)
        invoice, payment = other.items()
        for on, said in ((LATER, "closed through 2026-06-30"), (DAY, "before both are there")):
            with pytest.raises(SettlementError, match=said):
                other.sync.settle(other.session, payment, invoice, on=on, **WHO)
        other.sync.settle(other.session, payment, invoice, on=LATER + timedelta(days=1), **WHO)
        assert invoice.remaining_amount == 40


# -- as of, signals -----------------------------------------------------------------------------------------


def test_what_was_open_on_a_day_does_not_change_when_later_entries_are_posted(desk: Desk) -> None:
    def on(day: date | None) -> list[Decimal]:
        return [item.remaining_amount for item in desk.sync.open_items(desk.session, desk.tenant(), as_of=day)]

    invoiced(desk, reference="18")
    assert on(DAY) == [100]
    paid(desk, 60, "18")
    assert on(DAY) == [100]
    assert on(None) == on(date(2099, 1, 1)) == [40]


def test_settled_and_reopened_are_told_after_the_commit_only(desk: Desk) -> None:
    heard: list[tuple[str, Decimal, Decimal]] = []

    def settled(sender: object, item: Any) -> None:
        heard.append(("settled", item["amount"], item["remaining_amount"]))

    def reopened(sender: object, item: Any) -> None:
        heard.append(("reopened", item["amount"], item["remaining_amount"]))

    with (
        signals.item_settled.connected_to(settled, sender=desk.sync),
        signals.item_reopened.connected_to(reopened, sender=desk.sync),
    ):
        invoiced(desk, reference="18")
        payment = desk.entry(-100, source=desk.payment(reference="18"))
        assert heard == []
        desk.session.commit()
        assert sorted(heard) == [("settled", -100, 0), ("settled", 100, 0)]
        heard.clear()
        desk.reverse(payment)
        desk.session.rollback()
        assert heard == []
        desk.reverse(payment)
        desk.session.commit()
        assert ("reopened", 100, 100) in heard
