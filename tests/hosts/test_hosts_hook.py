"""The promises of live posting, on every host's own models: whatever the names, keys and types, the same rows."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import delete, event, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from ledger_sync import ConfigurationError, ControlAccount, signals
from ledger_sync.errors import BulkWriteError, DocumentInUseError, ManualPostingError
from ledger_sync.testing import Line
from tests.hosts.kit import DAY, Desk, number_of
from tests.hosts.opening import refusing
from tests.watching import hearing, statements

CUT_OVER = date(2026, 2, 1)
BEFORE = date(2026, 1, 31)
LOADED = pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "expired"])


def commit(desk: Desk, *loaded: Any) -> None:
    """Commit, after which objects are expired; but for those that are loaded again."""
    desk.session.commit()
    for target in loaded:
        desk.session.refresh(target)


@pytest.fixture
def heard(desk: Desk) -> Iterator[list[tuple[str, Any]]]:
    """What was sent after a commit: names with their one argument."""
    said: list[tuple[str, Any]] = []
    with hearing(desk.sync, lambda name, about: said.append((name, about))):
        yield said


def names(heard: list[tuple[str, Any]]) -> list[str]:
    return [name for name, _ in heard]


# -- the row is there when … -------------------------------------------------------------------------------


def test_a_posted_entry_has_its_row_in_the_same_transaction(desk: Desk) -> None:
    invoice = desk.invoice(125, number="8907", reference="K1")
    entry = desk.entry(125, source=invoice)
    row, line = desk.item(), desk.line(entry)
    assert (row.kind, row.amount, desk.host.word(row.status)) == ("invoice", Decimal(125), "open")
    assert (row.general_ledger_id, row.general_ledger_line_id) == (entry.id, line.id)
    assert (row.invoice_number, row.invoice_date, row.due_date) == ("8907", DAY, date(2026, 3, 31))
    assert row.source_id == invoice.id
    desk.synced(1)
    commit(desk)
    desk.synced(1)


def test_every_source_type_that_means_a_document_opens_its_item(desk: Desk) -> None:
    desk.needs("aliases")
    sources = [name for c in desk.host.controls for name, of in c.sources.items() if of == "vendor_invoice"]
    assert len(sources) > 1
    for source_type in sources:
        desk.entry(source=(source_type, desk.invoice().id))
    commit(desk)
    assert sorted(desk.host.word(row.source_type) for row in desk.items()) == sorted(sources)
    desk.synced(len(sources))


def test_a_customer_invoice_is_owed_in_debit(desk: Desk) -> None:
    entry = desk.entry(100, "customer", source=desk.invoice(100, "customer"))
    commit(desk)
    assert desk.books().signed(desk.line(entry)) == 100
    assert (desk.item("customer").amount, desk.item("customer").kind) == (100, "invoice")
    desk.synced(1)


def test_an_expense_claim_and_its_payout_are_in_the_employee_ledger(desk: Desk) -> None:
    desk.needs("claims")
    claim = desk.invoice(100, "employee")
    for amount in (100, -100):
        desk.entry(amount, "employee", source=claim)
    commit(desk)
    assert [(row.kind, row.amount) for row in desk.items("employee")] == [("expense", 100), ("payment", -100)]
    assert desk.open_amounts("employee") == [(100, 0, "paid"), (-100, 0, "paid")]
    desk.synced(2)


def test_a_payment_has_a_negative_row_that_settles_the_invoice_it_refers_to(desk: Desk) -> None:
    invoice = desk.invoice(reference="0042 1")
    desk.entry(source=invoice)
    desk.entry(-100, source=desk.payment(reference=" 0042\u00a01\t"))
    commit(desk)
    opened, paid = desk.items()
    assert (paid.kind, paid.amount, paid.settlement_key) == ("payment", -100, opened.settlement_key)
    desk.synced(2)


def test_one_entry_may_pay_many_invoices_by_links(desk: Desk) -> None:
    books = desk.books()
    invoices = [desk.invoice(50) for _ in range(3)]
    books.entry([books.on_account("supplier", -50, source=invoice) for invoice in invoices], on=DAY)
    commit(desk)
    assert {row.source_id for row in desk.items()} == {invoice.id for invoice in invoices}
    desk.synced(3)


def test_a_credit_note_has_a_negative_row_about_the_invoice_it_credits(desk: Desk) -> None:
    invoice = desk.invoice()
    desk.entry(source=invoice)
    note = desk.invoice(40, credit_note=True, credits=invoice)
    desk.entry(-40, source=note)
    commit(desk)
    opened, credited = desk.items()
    assert (credited.kind, credited.amount, credited.settlement_key) == ("credit_note", -40, opened.settlement_key)
    desk.synced(2)


def test_a_draft_has_no_row_until_it_is_posted(desk: Desk) -> None:
    entry = desk.entry(source=desk.invoice(), post=False)
    commit(desk)
    desk.synced(0)
    desk.books().post(entry)
    commit(desk)
    desk.synced(1)


def test_lines_may_come_in_a_later_flush_than_their_entry(desk: Desk) -> None:
    books = desk.books()
    entry = books.entry([Line("4000", 100), Line("1920", -100)], source=desk.invoice(), on=DAY)
    for amount, count in ((100, 1), (25, 2)):
        books.add_line(entry, books.on_account("supplier", amount))
        desk.session.flush()
        desk.synced(count)
    commit(desk)
    assert [row.amount for row in desk.items()] == [100, 25]


def test_the_source_may_be_set_later_and_taken_back(desk: Desk) -> None:
    entry, invoice = desk.entry(post=False), desk.invoice()
    commit(desk)
    desk.set_source(entry, invoice)
    commit(desk)
    desk.synced(0)
    desk.books().post(entry)
    commit(desk)
    desk.synced(1)
    late = desk.entry()
    desk.synced(1)
    desk.set_source(late, invoice)
    desk.session.flush()
    desk.synced(2)
    desk.set_source(late, None)
    commit(desk)
    desk.synced(1)


def test_a_link_that_comes_changes_or_goes_is_followed(desk: Desk) -> None:
    one, other = desk.invoice(), desk.invoice(party="2")
    entry = desk.entry()
    commit(desk)
    link = desk.books().link(desk.line(entry), one)
    commit(desk)
    assert desk.item().source_id == one.id
    desk.synced(1)
    link.source_id = other.id
    commit(desk)
    assert (desk.item().source_id, desk.item().general_ledger_id) == (other.id, entry.id)
    desk.synced(1)
    desk.books().unlink(desk.line(entry))
    commit(desk)
    desk.synced(0)


def test_a_link_beats_the_source_of_its_entry(desk: Desk) -> None:
    one, other = desk.invoice(), desk.invoice(party="2")
    entry = desk.entry(source=one)
    commit(desk)
    desk.books().link(desk.line(entry), other)
    commit(desk)
    assert desk.item().source_id == other.id
    desk.synced(1)


@pytest.mark.parametrize("kind", ["credit_note", "write_off", "rounding", "exchange", "fee"])
def test_a_link_says_what_a_line_against_an_invoice_is(desk: Desk, kind: str) -> None:
    desk.entry(-3, link=desk.invoice(), kind=kind)
    commit(desk)
    assert desk.item().kind == kind
    desk.synced(1)


@LOADED
def test_a_document_that_changes_changes_its_row(desk: Desk, loaded: bool) -> None:
    invoice = desk.invoice(reference="K1", number="7")
    desk.entry(source=invoice)
    desk.entry(-100, source=desk.payment(reference="K1"))
    changes: list[dict[str, Any]] = [
        {"number": "other"},
        {"date": date(2026, 2, 1)},
        {"due_date": None},
        {"reference": "other"},
        {"kind": "credit_note"},
    ]
    for change in changes:
        commit(desk, *([invoice] if loaded else []))
        desk.change(invoice, **change)
        commit(desk)
        desk.synced(2)
    assert desk.items()[0].invoice_number == "other"
    assert desk.items()[0].kind == "payment"


@LOADED
@pytest.mark.parametrize("what", ["number", "reference", "party"])
def test_payments_that_named_a_document_no_longer_do_when_it_changes(desk: Desk, what: str, loaded: bool) -> None:
    """Whether the payment names it, or the line of its entry."""
    invoice = desk.invoice(number="77" if what == "number" else "x", reference=None if what == "number" else "77")
    other = desk.books().party("supplier", "2")
    desk.entry(-100, source=desk.payment(reference="77"))
    desk.entry(-60, source=desk.payment(), reference="77")
    commit(desk)
    assert all(not row.settlement_key.startswith("ref:") for row in desk.items())
    commit(desk, *([invoice] if loaded else []))
    desk.change(invoice, **{what: other if what == "party" else "changed"})
    commit(desk)
    assert [row.settlement_key for row in desk.items()] == ["ref:77", "ref:77"]
    desk.synced(2)


def test_a_payment_meets_a_document_that_comes_to_bear_its_reference(desk: Desk) -> None:
    invoice = desk.invoice()
    desk.entry(-100, source=desk.payment(reference="K9"))
    commit(desk)
    assert desk.item().settlement_key == "ref:K9"
    desk.change(invoice, reference="k 9")
    commit(desk)
    met = desk.item().settlement_key
    assert met.startswith("vendor_invoice:")
    another = desk.invoice(reference="K9")
    commit(desk)
    assert desk.item().settlement_key == "ref:K9", "two candidates are no match"
    desk.session.delete(another)
    commit(desk)
    assert desk.item().settlement_key == met
    desk.synced(1)


def test_a_reference_is_compared_alike_on_every_database(desk: Desk) -> None:
    desk.entry(-100, source=desk.payment(reference="ærø ß 1"))
    commit(desk)
    assert desk.item().settlement_key == "ref:æRøß1"
    desk.synced(1)


def test_a_payment_that_changes_changes_its_row(desk: Desk) -> None:
    payment = desk.payment(reference="K1")
    desk.entry(-100, source=payment)
    commit(desk)
    desk.change(payment, reference="K2", date=date(2026, 5, 1))
    commit(desk)
    assert (desk.item().settlement_key, desk.item().invoice_date) == ("ref:K2", date(2026, 5, 1))
    desk.synced(1)


def test_the_due_date_of_a_line_beats_that_of_the_document(desk: Desk) -> None:
    desk.needs("due dates of lines")
    invoice = desk.invoice()
    desk.entry(source=invoice, due_date=date(2027, 1, 1))
    commit(desk)
    desk.change(invoice, due_date=date(2026, 9, 9))
    commit(desk)
    assert desk.item().due_date == date(2027, 1, 1)
    desk.synced(1)


def test_a_reversal_has_a_row_that_takes_the_other_away_in_sum(desk: Desk) -> None:
    entry = desk.posted()
    desk.reverse(entry, date(2026, 3, 5))
    commit(desk)
    rows = desk.items()
    assert [(row.kind, row.amount) for row in rows] == [("invoice", 100), ("reversal", -100)]
    assert len({(desk.party_of(row), row.settlement_key, row.source_id) for row in rows}) == 1
    desk.synced(2)


def test_a_reversal_follows_when_the_line_that_it_reverses_gets_a_link(desk: Desk) -> None:
    entry = desk.entry()
    commit(desk)
    desk.reverse(entry)
    commit(desk)
    desk.synced(0)
    desk.books().link(desk.line(entry), desk.invoice())
    commit(desk)
    desk.synced(2)
    desk.books().unlink(desk.line(entry))
    commit(desk)
    desk.synced(0)


@LOADED
@pytest.mark.parametrize("change", ["source", "deleted", "number", "amount"])
def test_a_reversal_follows_what_changes_in_the_entry_that_it_reverses(desk: Desk, change: str, loaded: bool) -> None:
    other = desk.invoice(party="2")
    entry = desk.posted()
    desk.reverse(entry)
    line = desk.line(entry)
    commit(desk, *([entry, line] if loaded else []))
    desk.synced(2)
    if change == "source":
        desk.set_source(entry, other)
    elif change == "deleted":
        desk.session.delete(line)
    elif change == "number":
        line.line_number = 9
    else:
        desk.books().set_amount(line, Decimal(-7))
    commit(desk)
    desk.synced(1 if change == "deleted" else 2)


def test_a_document_may_come_after_its_entry(desk: Desk) -> None:
    desk.needs("missing sources")
    source_type = desk.books().named(desk.invoice(number="gone"))[0]
    desk.entry(source=(source_type, desk.host.missing_key))
    commit(desk)
    assert desk.causes() == ["source_not_found"]
    desk.invoice(id=desk.host.missing_key)
    commit(desk)
    desk.synced(1)


def test_entry_lines_and_documents_may_share_one_flush(desk: Desk) -> None:
    desk.needs("missing sources")
    desk.books().party("supplier")
    commit(desk)
    with desk.gathered():
        desk.entry(source=desk.invoice(id=desk.host.missing_key))
    commit(desk)
    desk.synced(1)


def test_changes_within_the_posting_transaction_are_followed(desk: Desk) -> None:
    entry = desk.entry(source=desk.invoice())
    line = desk.line(entry)
    desk.books().set_amount(line, Decimal(-70))
    entry.entry_date = date(2026, 2, 2)
    desk.session.flush()
    assert (desk.item().amount, desk.item().entry_date) == (70, date(2026, 2, 2))
    desk.synced(1)
    for account, count in (("4100", 0), (desk.books().account("supplier"), 1)):
        desk.set_account(line, account)
        desk.session.flush()
        desk.synced(count)
    desk.host.unpost(entry)
    desk.session.flush()
    desk.synced(0)
    desk.books().delete_entry(entry)
    commit(desk)
    desk.synced(0)


@LOADED
def test_a_posted_entry_that_is_changed_after_its_commit_is_followed(desk: Desk, loaded: bool) -> None:
    entry = desk.posted()
    desk.paid(60, reference="none")
    line = desk.line(entry)

    def again() -> None:
        commit(desk, *([entry, line] if loaded else []))
        desk.synced()

    again()
    desk.books().set_amount(line, Decimal(-80))
    again()
    entry.entry_date = date(2026, 2, 2)
    again()
    desk.set_account(line, "1500")
    again()
    desk.set_account(line, desk.books().account("supplier"))
    again()
    assert [(row.amount, row.entry_date) for row in desk.items()] == [(80, date(2026, 2, 2)), (-60, DAY)]
    desk.host.unpost(entry)
    again()
    assert len(desk.items()) == 1
    desk.books().post(entry)
    again()
    desk.books().delete_entry(entry)
    commit(desk)
    desk.synced(1)
    assert desk.count() == 1


@pytest.mark.parametrize("how", ["delete", "orphan"])
def test_a_line_that_goes_takes_its_row_along(desk: Desk, how: str) -> None:
    entry = desk.posted()
    line = desk.line(entry)
    if how == "delete":
        desk.session.delete(line)
    else:
        desk.lines_of(entry).remove(line)
    commit(desk)
    desk.synced(0)


def test_a_line_that_moves_to_another_entry_moves_its_row(desk: Desk) -> None:
    draft, entry = desk.entry(source=desk.invoice(), post=False), desk.entry()
    line = desk.line(draft)
    line.line_number = 9
    line.general_ledger_id = entry.id
    desk.session.flush()
    desk.set_source(entry, desk.invoice())
    commit(desk)
    desk.synced(2)


def test_loaded_open_items_are_refreshed_after_a_rewrite(desk: Desk) -> None:
    invoice = desk.invoice(number="old")
    desk.entry(source=invoice)
    loaded = desk.session.scalars(select(desk.binding.ledger("supplier").item)).one()
    assert loaded.invoice_number == "old"
    desk.change(invoice, number="new")
    desk.session.flush()
    assert loaded.invoice_number == "new"


# -- … and is not there when -------------------------------------------------------------------------------


def test_a_manual_entry_has_no_row(desk: Desk) -> None:
    desk.entry()
    commit(desk)
    desk.synced(0)
    assert desk.causes() == ["manual"]


def test_an_unsupported_source_has_no_row(desk: Desk) -> None:
    desk.entry(source=desk.host.strange_source(desk.session))
    desk.entry(source=desk.invoice(100, "customer"))
    commit(desk)
    desk.synced(0)
    assert desk.causes() == ["unsupported_source"]


def test_a_missing_source_has_no_row(desk: Desk) -> None:
    desk.needs("missing sources")
    source_type = desk.books().named(desk.invoice())[0]
    desk.entry(source=(source_type, desk.host.missing_key))
    commit(desk)
    desk.synced(0)
    assert desk.causes() == ["source_not_found"]


def test_another_tenants_source_has_no_row_and_looks_like_a_missing_one(
    desk: Desk, heard: list[tuple[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    desk.needs("tenants", "missing sources")
    theirs = desk.invoice(tenant=1, number="SECRET", reference="SECRET")
    source_type, theirs_id = desk.books().named(theirs)
    commit(desk)
    told = []
    for source_id in (theirs_id, desk.host.missing_key):
        heard.clear()
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="ledger_sync"):
            desk.entry(source=(source_type, source_id))
            commit(desk)
        ids = ("voucher", "general_ledger_id", "general_ledger_line_id")
        assert names(heard) == ["line-skipped"]
        assert str(desk.tenant(1)) not in caplog.text
        assert "SECRET" not in caplog.text
        told.append({name: value for name, value in heard[0][1].items() if name not in ids})
    assert told[0] == told[1]
    assert told[0]["reason"] == "source_not_found"
    desk.synced(0)


def test_a_payment_does_not_match_another_partys_document(desk: Desk) -> None:
    desk.invoice(party="2", reference="K1")
    desk.entry(-100, source=desk.payment(reference="K1"))
    commit(desk)
    assert desk.item().settlement_key == "ref:K1"
    desk.synced(1)


def test_a_payment_does_not_match_another_tenants_document(desk: Desk) -> None:
    desk.needs("tenants")
    desk.invoice(tenant=1, reference="K1")
    desk.entry(-100, source=desk.payment(reference="K1"))
    commit(desk)
    assert desk.item().settlement_key == "ref:K1"
    desk.synced(1)


def test_a_zero_amount_has_no_row(desk: Desk) -> None:
    desk.entry(0, source=desk.invoice())
    commit(desk)
    desk.synced(0)
    assert desk.causes() == ["zero_amount"]


def test_an_account_that_only_looks_like_a_control_account_has_no_row(desk: Desk) -> None:
    for account in ("2401", "2410", "1920"):
        desk.entry(source=desk.invoice(), account=account)
    commit(desk)
    desk.synced(0)


# -- other settings ----------------------------------------------------------------------------------------


def test_ranges_and_single_accounts_with_their_own_sides_and_sources(desk: Desk) -> None:
    supplier = next(c for c in desk.host.controls if c.ledger == "supplier")
    bills = {name: document for name, document in supplier.sources.items() if document == "vendor_invoice"}
    payments = {name: document for name, document in supplier.sources.items() if document == "vendor_payment"}
    controls = (
        ControlAccount(accounts=("2400-2409", "2450"), ledger="supplier", sources=bills),
        ControlAccount(accounts=("1480",), ledger="supplier", side="debit", sources=payments or bills),
    )
    with desk.under(control_accounts=controls) as other:
        invoice = other.invoice()
        for account in ("2400", "2409", "2450", "2410", "1480"):
            other.entry(10, source=invoice, account=account)
        commit(other)
        assert [(row.account_number, row.amount) for row in other.items()][:3] == [
            ("2400", 10),
            ("2409", 10),
            ("2450", 10),
        ]
        other.synced(3 if payments else 4)


def test_entries_before_the_cut_over_are_left_alone(desk: Desk) -> None:
    with desk.under(effective_from=CUT_OVER) as other:
        other.entry(source=other.invoice(), on=BEFORE)
        commit(other)
        other.synced(0)
        assert other.causes() == ["before_cutover"]
        other.entry(source=other.invoice(), on=CUT_OVER)
        commit(other)
        other.synced(1)


def test_the_cut_over_is_per_tenant(desk: Desk) -> None:
    desk.needs("tenants")
    with desk.under(effective_from={desk.tenant(0): CUT_OVER}) as other:
        for tenant in (0, 1):
            other.entry(source=other.invoice(tenant=tenant), tenant=tenant, on=BEFORE)
        commit(other)
        assert other.item().tenant_id == other.tenant(1)
        other.synced(1)


def test_the_cut_over_may_be_by_the_moment_of_posting(desk: Desk) -> None:
    desk.needs("moments of posting")
    with desk.under(effective_from=CUT_OVER, effective_by="posted_at") as other:
        for second in (datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)):
            entry = other.entry(source=other.invoice(), on=BEFORE)
            entry.posted_at = desk.host.moment(second)
        commit(other)
        other.synced(1)


def test_what_settles_a_document_from_before_the_cut_over_leaves_no_phantom_credit(desk: Desk) -> None:
    with desk.under(effective_from=CUT_OVER) as other:
        invoice = other.invoice(reference="K1")
        entry = other.entry(source=invoice, on=BEFORE)
        commit(other)
        other.entry(-60, source=other.payment(reference="K1"))
        other.entry(-30, source=other.invoice(credit_note=True, credits=invoice))
        other.entry(-10, source=invoice)
        other.entry(-5, link=invoice, kind="write_off")
        other.reverse(entry)
        commit(other)
        other.synced(0)
        assert other.causes() == ["before_cutover"]


def test_an_invoice_or_free_credit_note_dated_before_the_cut_over_and_posted_after_it_is_a_row(desk: Desk) -> None:
    with desk.under(effective_from=CUT_OVER) as other:
        invoice = other.invoice(on=BEFORE, number="77")
        other.entry(-100, source=other.payment(), reference="77")
        commit(other)
        other.synced(0)
        other.entry(source=invoice)
        commit(other)
        other.synced(2)
        other.entry(-100, source=other.invoice(credit_note=True, on=BEFORE))
        commit(other)
        other.synced(3)


@pytest.mark.parametrize("change", ["source", "deleted_line", "account", "draft", "link"])
def test_what_settles_an_old_invoice_follows_when_its_posting_is_taken_back(desk: Desk, change: str) -> None:
    with desk.under(effective_from=CUT_OVER) as other:
        invoice = other.invoice(on=BEFORE, reference="K1")
        other.entry(-100, source=other.payment(reference="K1"))
        entry = other.entry(**({"link": invoice} if change == "link" else {"source": invoice}))
        other.synced(2)
        line = other.line(entry)
        if change == "source":
            other.set_source(entry, None)
        elif change == "deleted_line":
            other.session.delete(line)
        elif change == "account":
            other.set_account(line, "4100")
        elif change == "draft":
            other.host.unpost(entry)
        else:
            other.books().unlink(line)
        commit(other)
        other.synced(0)


@pytest.mark.parametrize("on_error", ["raise", "record"])
def test_a_manual_posting_is_refused_where_it_is_blocked(desk: Desk, on_error: str) -> None:
    with desk.under(manual="block", on_error=on_error) as other:
        other.entry(number="77", post=False)
        other.entry(account="1930")
        commit(other)
        with pytest.raises(ManualPostingError, match=r"^Voucher (B-)?78(/2026)? posts line 1 to control account 2400"):
            other.entry(number="78")
        other.session.rollback()
        assert other.session.scalar(select(func.count()).select_from(other.binding.entry)) == 2


# -- failures ----------------------------------------------------------------------------------------------


def test_a_failure_fails_the_flush_and_leaves_nothing_half_posted(desk: Desk) -> None:
    invoice = desk.invoice()
    commit(desk)
    with refusing(desk, "supplier"):
        with pytest.raises(DBAPIError, match="refused by the host") as caught:
            desk.entry(source=invoice)
        assert any("Ledger sync" in note for note in caught.value.__notes__)
        desk.session.rollback()
        for model in (desk.binding.entry, desk.binding.line, desk.binding.error):
            assert desk.session.scalar(select(func.count()).select_from(model)) == 0
        desk.session.rollback()
    desk.entry(source=invoice)
    commit(desk)
    desk.synced(1)


def test_a_failure_that_is_recorded_keeps_the_posting_until_a_backfill_mends_it(desk: Desk) -> None:
    said: list[Any] = []

    def hear(sender: object, failure: Any) -> None:
        said.append(failure)

    with desk.under(on_error="record") as other:
        vendors, customers = other.invoice(), other.invoice(100, "customer")
        commit(other)
        with signals.sync_failed.connected_to(hear, sender=other.sync), refusing(desk, "supplier"):
            entry = other.entry(source=vendors)
            other.entry(100, "customer", source=customers)
            assert said == []
            commit(other)
            entry_id = entry.id
            assert len(other.items("customer")) == 1
            commit(other)
        assert [(f["ledger"], f["general_ledger_id"]) for f in said] == [("supplier", entry_id)]
        error = other.session.scalars(select(other.binding.error)).one()
        assert (error.ledger, error.general_ledger_id, error.resolved_at) == ("supplier", entry_id, None)
        assert "refused by the host" in error.message
        assert other.items() == []
        assert other.causes() == ["missing"]
        assert other.backfill().synced == 1
        other.synced(2)
        other.session.refresh(error)
        assert error.resolved_at is not None


def test_a_posting_that_is_rolled_back_leaves_no_recorded_failure(desk: Desk) -> None:
    with desk.under(on_error="record") as other:
        invoice = other.invoice()
        commit(other)
        with refusing(desk, "supplier"):
            other.entry(source=invoice)
            other.session.rollback()
        assert other.session.scalar(select(func.count()).select_from(other.binding.error)) == 0


# -- rolling back ------------------------------------------------------------------------------------------


def test_what_is_rolled_back_leaves_no_row(desk: Desk) -> None:
    invoice = desk.invoice()
    commit(desk)
    desk.entry(source=invoice)
    desk.synced(1)
    desk.session.rollback()
    desk.synced(0)
    desk.entry(source=invoice)
    savepoint = desk.session.begin_nested()
    desk.entry(source=invoice)
    desk.change(invoice, number="changed")
    desk.session.flush()
    desk.synced(2)
    savepoint.rollback()
    desk.synced(1)
    commit(desk)
    desk.synced(1)


# -- documents in use --------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_link", [True, False], ids=["link", "entry"])
def test_a_document_behind_a_posted_line_cannot_be_deleted(desk: Desk, by_link: bool) -> None:
    invoice = desk.invoice()
    desk.entry(**({"link": invoice} if by_link else {"source": invoice}))
    commit(desk)
    key = invoice.id
    desk.session.delete(invoice)
    with pytest.raises(DocumentInUseError, match=rf"vendor_invoice {key} was to be deleted"):
        desk.session.flush()
    desk.session.rollback()
    desk.synced(1)


@LOADED
def test_a_document_behind_a_posted_line_cannot_move_to_another_tenant(desk: Desk, loaded: bool) -> None:
    desk.needs("tenants")
    invoice = desk.invoice()
    theirs = desk.books(1).party("supplier")
    desk.entry(source=invoice)
    commit(desk, *([invoice] if loaded else []))
    desk.change(invoice, party=theirs)
    invoice.tenant_id = desk.tenant(1)
    with pytest.raises(DocumentInUseError, match="was to move to another tenant"):
        desk.session.flush()


def test_a_document_that_no_posted_control_line_of_its_tenant_names_may_go(desk: Desk) -> None:
    desk.needs("missing sources")
    on_other_account, draft = desk.invoice(), desk.invoice()
    desk.entry(source=on_other_account, account="6000")
    desk.entry(source=draft, post=False)
    theirs = [desk.invoice()] if desk.has("tenants") else []
    for invoice in theirs:
        desk.entry(source=desk.books().named(invoice), tenant=1)
    commit(desk)
    for invoice in (on_other_account, draft, *theirs):
        desk.session.delete(invoice)
    commit(desk)
    desk.synced(0)


# -- attachment --------------------------------------------------------------------------------------------


def post_one(desk: Desk, session: Session) -> int:
    """Post an invoice through a session; how many rows there are then."""
    other = Desk(desk.host, desk.engine, desk.sync, attached=False, session=session)
    other.entry(source=other.invoice())
    session.commit()
    count = other.count()
    session.close()
    return count


def test_a_target_is_attached_alone_and_detached_again(desk: Desk) -> None:
    class OurSession(Session):
        pass

    engine, sync = desk.engine, desk.sync
    assert post_one(desk, sessionmaker(engine)()) == 0
    scoped = scoped_session(sessionmaker(engine))
    single = Session(engine)
    targets = [(sessionmaker(engine), None), (scoped, scoped), (OurSession, lambda: OurSession(engine))]
    targets.append((single, lambda: single))
    for rows, (target, make) in enumerate(targets, 1):
        sync.attach(target)
        sync.attach(target)
        assert post_one(desk, (make or target)()) == rows  # type: ignore[operator]
        assert post_one(desk, Session(engine)) == rows
        sync.detach(target)
        assert post_one(desk, (make or target)()) == rows  # type: ignore[operator]
    scoped.remove()


def test_what_is_flushed_while_paused_is_left_out_and_the_proof_says_so(desk: Desk) -> None:
    invoice = desk.invoice()
    desk.entry(source=invoice)
    with desk.sync.paused(desk.session):
        desk.entry(7, source=invoice)
        with desk.sync.paused(desk.session):
            desk.entry(8, source=invoice)
        desk.entry(9, source=invoice)
    desk.entry(10, source=invoice)
    commit(desk)
    assert [row.amount for row in desk.items()] == [100, 10]
    proof = desk.sync.verify(desk.session, desk.tenant())
    (cause,) = proof.account(desk.books().account("supplier")).causes
    assert (cause.name, cause.count, cause.amount) == ("missing", 3, 24)


def test_two_syncs_of_one_ledger_cannot_share_a_session_and_those_of_two_can(desk: Desk) -> None:
    factory = sessionmaker(desk.engine)
    desk.sync.attach(factory)
    desk.host.sync(examples_max=4).attach(factory)
    with factory() as session, pytest.raises(ConfigurationError, match="Two LedgerSync instances write"):
        post_one(desk, session)
    shared = sessionmaker(desk.engine)
    for control in desk.host.controls:
        desk.host.sync(control_accounts=(control,)).attach(shared)
    with shared() as session:
        other = Desk(desk.host, desk.engine, desk.sync, attached=False, session=session)
        other.entry(source=other.invoice())
        other.entry(100, "customer", source=other.invoice(100, "customer"))
        session.commit()
        other.synced(2)


# -- signals -----------------------------------------------------------------------------------------------


def test_a_row_is_told_once_after_the_commit(desk: Desk, heard: list[tuple[str, Any]]) -> None:
    invoice = desk.invoice()
    entry = desk.entry(source=invoice)
    assert heard == []
    commit(desk)
    ((name, told),) = heard
    assert name == "item-created"
    assert (told["ledger"], told["kind"], told["amount"]) == ("supplier", "invoice", Decimal(100))
    assert (told["general_ledger_id"], told["general_ledger_line_id"]) == (entry.id, desk.line(entry).id)
    assert (told["account_number"], told["source_id"]) == ("2400", invoice.id)
    assert told["party_id"] == desk.party_of(desk.item())
    commit(desk)
    assert len(heard) == 1


def test_rows_that_change_or_go_are_told_apart(desk: Desk, heard: list[tuple[str, Any]]) -> None:
    invoice = desk.invoice()
    entry = desk.entry(link=invoice)
    commit(desk)
    desk.change(invoice, number="other")
    commit(desk)
    invoice.amount = Decimal(99)  # nothing that an open item copies
    commit(desk)
    desk.books().unlink(desk.line(entry))
    commit(desk)
    told = [name for name in names(heard) if name.startswith("item-")]
    assert told == ["item-created", "item-changed", "item-removed"]


def test_a_skipped_line_is_told_with_its_reason(desk: Desk, heard: list[tuple[str, Any]]) -> None:
    strange = desk.host.strange_source(desk.session)
    commit(desk)
    for more, why in (({}, "manual"), ({"source": strange}, "unsupported_source"), ({"post": False}, "draft")):
        heard.clear()
        made = desk.entry(5, **more)
        commit(desk)
        ((name, line),) = heard
        assert name == "line-skipped"
        assert (line["ledger"], line["account_number"], line["reason"], line["amount"]) == ("supplier", "2400", why, 5)
        assert number_of(line["voucher"]) == str(made.voucher_number)
        assert (line["general_ledger_id"], line["general_ledger_line_id"]) == (made.id, desk.line(made).id)


def test_only_what_survives_the_outermost_commit_is_told(desk: Desk, heard: list[tuple[str, Any]]) -> None:
    def told() -> list[str]:
        found = [number_of(line["voucher"]) for _, line in heard]
        heard.clear()
        return found

    desk.entry(number="1")
    desk.session.rollback()
    desk.session.commit()
    assert told() == []
    with desk.session.begin_nested():
        desk.entry(number="2")
    assert heard == []
    commit(desk)
    assert told() == ["2"]
    with desk.session.begin_nested():
        desk.entry(number="3")
    desk.session.rollback()
    commit(desk)
    assert told() == []
    desk.entry(number="4")
    savepoint = desk.session.begin_nested()
    desk.entry(number="5")
    savepoint.rollback()
    desk.entry(number="6")
    commit(desk)
    assert told() == ["4", "6"]
    desk.entry(number="7")
    savepoint = desk.session.begin_nested()
    desk.entry(number="8")
    with pytest.raises(DBAPIError):
        desk.entry(number="8")
    savepoint.rollback()
    commit(desk)
    assert told() == ["7"]
    desk.entry(number="9")
    desk.session.close()
    assert told() == []


def test_flush_synced_is_sent_in_the_transaction_and_its_receiver_may_fail_it(desk: Desk) -> None:
    seen: list[Any] = []

    def hear(sender: object, session: Session, items: Any) -> None:
        seen.append((session, session.in_transaction(), [row["amount"] for row in items]))
        if len(seen) > 1:
            raise KeyError("outbox full")

    invoice = desk.invoice()
    commit(desk)
    with signals.flush_synced.connected_to(hear, sender=desk.sync):
        desk.entry(source=invoice)
        assert seen == [(desk.session, True, [Decimal(100)])]
        commit(desk)
        with pytest.raises(KeyError):
            desk.entry(source=invoice)
    desk.session.rollback()
    desk.synced(1)


# -- the log -----------------------------------------------------------------------------------------------


def test_each_line_is_logged_with_voucher_ledger_and_outcome(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ledger_sync"):
        desk.entry(source=desk.invoice(), number="1")
        desk.entry(number="2")
        commit(desk)
    records: list[Any] = [r for r in caplog.records if r.name == "ledger_sync" and hasattr(r, "outcome")]
    told = {(number_of(r.voucher), r.ledger, r.outcome) for r in records}
    assert told == {("1", "supplier", "written"), ("2", "supplier", "manual")}
    assert {r.tenant for r in records} == {str(desk.tenant() or "books")}


def test_user_text_cannot_forge_a_log_line(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.needs("texts as voucher numbers")
    forged = "1\nLedger sync: voucher 2 \u202e\x1b[31m\u2028written"
    with caplog.at_level(logging.INFO, logger="ledger_sync"):
        desk.entry(number=forged)
        commit(desk)
    (record,) = [r for r in caplog.records if r.name == "ledger_sync"]
    assert record.getMessage().isprintable()


# -- bulk statements ---------------------------------------------------------------------------------------


def test_bulk_statements_on_watched_tables_are_refused_unless_they_say_so(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    entry, line, link = desk.binding.entry, desk.binding.line, desk.binding.link
    document = desk.binding.ledger("supplier").documents[0].model
    session = desk.session
    bulk: dict[str, Callable[[], Any]] = {
        "INSERT": lambda: session.execute(insert(entry.__table__), [{}]),
        "UPDATE": lambda: session.execute(update(line).values(line_number=line.line_number)),
        "DELETE": lambda: session.execute(delete(link)),
    }
    for operation, statement in bulk.items():
        with pytest.raises(BulkWriteError, match=r"sync\.paused\(session\)") as caught:
            statement()
        assert caught.value.operation == operation
    with pytest.raises(BulkWriteError):
        session.execute(update(document).values(id=document.id))
    with pytest.raises(BulkWriteError):
        session.query(link).delete()
    harmless = update(line).values(line_number=line.line_number)
    session.execute(harmless, execution_options={"ledger_sync_bulk": "ignore"})
    with desk.sync.paused(session):
        session.execute(harmless)
    party = desk.binding.ledger("supplier").party_model
    assert party is not None
    session.execute(update(party).values(name="x"))
    session.execute(select(entry)).all()
    session.rollback()
    with desk.under(bulk="warn") as other:
        other.session.execute(harmless)
    assert f"A bulk UPDATE on {line.__table__.fullname} would bypass the subledger" in caplog.text


# -- statements --------------------------------------------------------------------------------------------


def ours(desk: Desk, sent: list[str]) -> list[str]:
    """The statements on the library's side: items, applications, locks."""
    tables = [ledger.table.name for ledger in desk.binding.ledgers]
    return [statement for statement in sent if re.search(rf"\b({'|'.join(tables)})\b", statement)]


def test_flushes_that_touch_nothing_of_ours_send_nothing_of_ours(desk: Desk) -> None:
    desk.books().party("supplier")
    with statements(desk.engine) as sent:
        desk.books().party("supplier", "9")
        desk.entry(account="6000", source=desk.invoice())
    assert sent
    assert not ours(desk, sent)


def test_the_flush_of_invoices_sends_one_insert_for_all_rows(desk: Desk) -> None:
    invoices = [desk.invoice() for _ in range(5)]
    commit(desk)
    desk.session.connection()
    with statements(desk.engine) as sent, desk.gathered():
        for invoice in invoices:
            desk.entry(source=invoice)
    of_ours = ours(desk, sent)
    assert sum(statement.startswith("INSERT INTO") for statement in of_ours) == 1
    assert not any(statement.startswith("DELETE") for statement in of_ours)
    desk.synced(5)


def test_the_hook_goes_round_the_hosts_own_query_filters(desk: Desk) -> None:
    def hide_everything(state: Any) -> None:
        if state.is_select:
            state.statement = state.statement.where(text("1 = 0"))

    invoice = desk.invoice()
    entry = desk.entry(source=invoice, post=False)
    event.listen(desk.session, "do_orm_execute", hide_everything)
    desk.books().post(entry)
    commit(desk)
    event.remove(desk.session, "do_orm_execute", hide_everything)
    desk.synced(1)
