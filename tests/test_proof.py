"""Each cause and each finding once, by an example; and what the proof as a whole promises."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync, Settings
from ledger_sync.errors import TextError
from ledger_sync.findings import WORDS, Finding
from ledger_sync.kid import with_mod10
from ledger_sync.models import JournalLine, SourceLink, SupplierLedger, SyncRun, Tombstone
from ledger_sync.proof import EXPLAINED, FAULTS, MEANINGS, Proof
from ledger_sync.settings import ControlAccount
from tests.books import DAY, customer_invoice, customer_payment, entry, vendor, vendor_invoice, vendor_payment
from tests.watching import after_the_first_statement, statements

EARLIER, LATER = date(2026, 2, 1), date(2026, 4, 1)
LONG_AGO, FAR_AHEAD = datetime(2020, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def sync() -> LedgerSync:
    """One for all tests here, since it keeps the statements that it has built."""
    return LedgerSync()


def posted(session: Session, amount: object = 100, **more: Any) -> Any:
    """A vendor invoice and its posting, committed; ``more`` is the entry's."""
    of_invoice = {n: more.pop(n) for n in ("party", "tenant", "payment_reference", "invoice_number") if n in more}
    invoice = vendor_invoice(session, amount, **of_invoice)
    signed = -Decimal(str(amount))
    made = entry(session, signed=signed, source=("vendor_invoice", invoice.id), tenant=invoice.tenant_id, **more)
    session.commit()
    return made


def paid(session: Session, amount: object = 100, reference: str | None = None, **more: Any) -> Any:
    """A vendor payment and its posting, committed."""
    payment = vendor_payment(session, amount, payment_reference=reference, **more)
    made = entry(session, signed=amount, source=("vendor_payment", payment.id))
    session.commit()
    return made


def behind_the_hook(session: Session, statement: str, **values: Any) -> None:
    """One statement that no hook sees."""
    with session.get_bind().begin() as connection:  # type: ignore[union-attr]
        connection.execute(text(statement), values)


def cause(proof: Proof, account: str = "2400") -> tuple[str, int, Decimal]:
    """The one cause of an account: its name, how many, how much."""
    (found,) = proof.account(account).causes
    return found.name, found.count, found.amount


def finding(proof: Proof, name: str, ledger: str = "supplier") -> Finding | None:
    return next((found for found in proof.findings if (found.name, found.ledger) == (name, ledger)), None)


def named(proof: Proof, name: str, ledger: str = "supplier") -> Finding:
    found = finding(proof, name, ledger)
    assert found is not None, f"no {name} among {[f.name for f in proof.findings]}"
    return found


def test_a_cause_says_whether_it_is_a_fault_also_in_json(session: Session, sync: LedgerSync) -> None:
    posted(session)
    entry(session)
    session.commit()
    behind_the_hook(session, "DELETE FROM supplier_ledger")
    proof = sync.verify(session, "acme")
    assert {c.name: c.fault for c in proof.account("2400").causes} == {"manual": False, "missing": True}
    (told,) = (account for account in proof.model_dump(mode="json")["accounts"] if account["account_number"] == "2400")
    assert {c["name"]: c["fault"] for c in told["causes"]} == {"manual": False, "missing": True}


# -- causes -----------------------------------------------------------------------------------------------


def test_a_line_without_a_source_is_manual(session: Session, sync: LedgerSync) -> None:
    entry(session)
    session.commit()
    assert cause(sync.verify(session, "acme")) == ("manual", 1, Decimal("100.00"))


def test_a_line_before_the_cut_over_is_before_cutover(engine: Engine) -> None:
    sync = LedgerSync(Settings(effective_from=DAY))
    with sessionmaker(engine)() as session:
        posted(session, on=EARLIER)
        assert cause(sync.verify(session, "acme")) == ("before_cutover", 1, Decimal("100.00"))


def test_a_line_from_a_source_that_the_account_does_not_take_is_unsupported(session: Session, sync: LedgerSync) -> None:
    entry(session, source=("payroll", 1))
    session.commit()
    assert cause(sync.verify(session, "acme")) == ("unsupported_source", 1, Decimal("100.00"))


def test_a_line_whose_document_is_not_there_is_source_not_found(session: Session, sync: LedgerSync) -> None:
    entry(session, source=("vendor_invoice", 99))
    session.commit()
    assert cause(sync.verify(session, "acme")) == ("source_not_found", 1, Decimal("100.00"))


def test_a_line_of_zero_is_zero_amount(session: Session, sync: LedgerSync) -> None:
    posted(session, 0)
    assert cause(sync.verify(session, "acme")) == ("zero_amount", 1, Decimal("0.00"))


def test_a_line_whose_row_is_gone_is_missing(session: Session, sync: LedgerSync) -> None:
    posted(session)
    behind_the_hook(session, "DELETE FROM supplier_ledger")
    assert cause(sync.verify(session, "acme")) == ("missing", 1, Decimal("100.00"))


def test_a_row_of_another_amount_is_amount_differs(session: Session, sync: LedgerSync) -> None:
    posted(session)
    behind_the_hook(session, "UPDATE supplier_ledger SET amount = 3 * amount")
    assert cause(sync.verify(session, "acme")) == ("amount_differs", 1, Decimal("-200.00"))


def test_a_row_on_another_party_is_wrong_party_without_an_amount(session: Session, sync: LedgerSync) -> None:
    posted(session)
    other = vendor(session, number="V2").id
    session.commit()
    behind_the_hook(session, "UPDATE supplier_ledger SET supplier_id = :other", other=other)
    assert cause(sync.verify(session, "acme")) == ("wrong_party", 1, Decimal("0.00"))


def test_a_row_whose_line_is_gone_is_an_orphan(session: Session, sync: LedgerSync) -> None:
    posted(session)
    behind_the_hook(session, "DELETE FROM general_ledger_lines")
    assert cause(sync.verify(session, "acme")) == ("orphan", 1, Decimal("-100.00"))


def test_a_draft_is_no_cause(session: Session, sync: LedgerSync) -> None:
    entry(session, post=False)
    session.commit()
    assert sync.verify(session, "acme").account("2400").causes == ()


def test_every_cause_says_what_it_means_and_what_to_do() -> None:
    assert {*EXPLAINED, *FAULTS, "draft"} == set(MEANINGS)
    assert all(meaning and next_step for meaning, next_step in MEANINGS.values())


def test_a_cause_names_the_voucher_behind_it(session: Session, sync: LedgerSync) -> None:
    entry(session, voucher_series="B", voucher_number="17")
    session.commit()
    (found,) = sync.verify(session, "acme").account("2400").causes
    assert [example.voucher for example in found.examples] == ["B-17/2026"]


def test_no_more_examples_are_kept_than_the_settings_say(session: Session) -> None:
    for _ in range(3):
        entry(session)
    session.commit()
    (found,) = LedgerSync(Settings(examples_max=2)).verify(session, "acme").account("2400").causes
    assert (found.count, len(found.examples)) == (3, 2)


def test_an_account_that_is_no_control_account_is_a_key_error(session: Session, sync: LedgerSync) -> None:
    with pytest.raises(KeyError):
        sync.verify(session, "acme").account("1920")


def test_errors_that_cancel_are_shown_with_difference_zero(session: Session, sync: LedgerSync) -> None:
    posted(session, 70)
    posted(session, 100)
    behind_the_hook(
        session,
        "UPDATE supplier_ledger SET general_ledger_line_id = 900, amount = (SELECT amount FROM supplier_ledger o "
        "WHERE o.id = supplier_ledger.id) WHERE general_ledger_line_id = (SELECT min(id) FROM general_ledger_lines)",
    )
    account = sync.verify(session, "acme").account("2400")
    assert account.difference == 0
    assert {(c.name, c.amount) for c in account.causes} == {
        ("missing", Decimal("70.00")),
        ("orphan", Decimal("-70.00")),
    }


def test_causes_of_zero_in_sum_do_not_make_a_proof_clean(session: Session, sync: LedgerSync) -> None:
    posted(session)
    behind_the_hook(session, "UPDATE supplier_ledger SET general_ledger_line_id = 900")
    assert not sync.verify(session, "acme").clean


def test_what_the_books_explain_leaves_a_proof_clean(session: Session, sync: LedgerSync) -> None:
    entry(session)
    entry(session, source=("payroll", 1))
    session.commit()
    assert sync.verify(session, "acme").clean


def test_amounts_of_customers_count_in_their_own_direction(session: Session, sync: LedgerSync) -> None:
    invoice = customer_invoice(session)
    entry(session, "1500", 100, ("customer_invoice", invoice.id))
    session.commit()
    account = sync.verify(session, "acme").account("1500")
    assert (account.gl_balance, account.subledger_balance) == (Decimal("100.00"), Decimal("100.00"))


def test_a_row_on_an_account_that_is_none_of_the_ledgers_is_shown_there(session: Session, sync: LedgerSync) -> None:
    posted(session)
    behind_the_hook(session, "UPDATE supplier_ledger SET account_number = '2999'")
    assert cause(sync.verify(session, "acme"), "2999") == ("orphan", 1, Decimal("-100.00"))


# -- findings ---------------------------------------------------------------------------------------------


def test_books_in_order_have_no_finding_but_unused_accounts(session: Session, sync: LedgerSync) -> None:
    posted(session, payment_reference="K1")
    paid(session, 40, "K1")
    assert {found.name for found in sync.verify(session, "acme").findings} == {"account_unused"}


def test_a_forged_remaining_amount_is_found(session: Session, sync: LedgerSync) -> None:
    posted(session)
    behind_the_hook(session, "UPDATE supplier_ledger SET remaining_amount = 0")
    found = named(sync.verify(session, "acme"), "remaining_differs")
    assert found.fault
    assert found.examples[0].text.endswith("0.00 open, should be 100.00 open")


def test_a_forged_status_is_found(session: Session, sync: LedgerSync) -> None:
    posted(session)
    behind_the_hook(session, "UPDATE supplier_ledger SET status = 'paid'")
    assert named(sync.verify(session, "acme"), "remaining_differs").examples[0].text.endswith("should be 100.00 open")


def test_an_application_that_the_items_do_not_bear_out_is_found(session: Session, sync: LedgerSync) -> None:
    posted(session, payment_reference="K1")
    paid(session, 40, "K1")
    behind_the_hook(session, "UPDATE supplier_applications SET amount = 2 * amount")
    found = named(sync.verify(session, "acme"), "application_differs")
    assert found.fault
    assert found.examples[0].text.endswith("reference: -40.00 too little")


def test_an_application_that_lacks_is_found(session: Session, sync: LedgerSync) -> None:
    posted(session, payment_reference="K1")
    paid(session, 40, "K1")
    behind_the_hook(session, "DELETE FROM supplier_applications")
    assert named(sync.verify(session, "acme"), "application_differs").examples[0].text.endswith("40.00 too little")


def test_what_a_person_settled_is_no_application_that_differs(session: Session, sync: LedgerSync) -> None:
    posted(session)
    paid(session, 40)
    invoice, payment = session.query(SupplierLedger).order_by(SupplierLedger.general_ledger_line_id)
    sync.settle(session, payment, invoice, actor="eva", reason="asked", on=DAY)
    session.commit()
    assert finding(sync.verify(session, "acme"), "application_differs") is None


@pytest.mark.parametrize(
    ("column", "value"), [("invoice_number", "forged"), ("due_date", "2031-01-01"), ("settlement_key", "ref:X")]
)
def test_a_copy_that_its_line_or_document_does_not_bear_out_is_found(
    session: Session, sync: LedgerSync, column: str, value: str
) -> None:
    posted(session)
    behind_the_hook(session, f"UPDATE supplier_ledger SET {column} = '{value}'")
    found = named(sync.verify(session, "acme"), "copied_data_differs")
    assert found.fault
    assert found.examples[0].text.endswith(f": {column}")


def test_a_document_that_was_edited_behind_the_hook_is_found_by_its_copies(session: Session, sync: LedgerSync) -> None:
    posted(session)
    behind_the_hook(session, "UPDATE vendor_invoices SET invoice_number = 'X', due_date = '2031-01-01'")
    found = named(sync.verify(session, "acme"), "copied_data_differs")
    assert found.examples[0].text.endswith(": invoice_number, due_date")


def test_a_document_that_no_entry_names_is_not_posted(session: Session, sync: LedgerSync) -> None:
    invoice = vendor_invoice(session, invoice_number="8907")
    session.commit()
    found = named(sync.verify(session, "acme"), "document_not_posted")
    assert (found.count, found.fault) == (1, False)
    assert found.examples[0].text == f"vendor_invoice {invoice.id}, number 8907, of 2026-03-01"


def test_a_document_that_a_draft_names_is_not_posted(session: Session, sync: LedgerSync) -> None:
    posted(session, post=False)
    assert named(sync.verify(session, "acme"), "document_not_posted").count == 1


def test_a_document_that_a_line_is_linked_to_is_posted(session: Session, sync: LedgerSync) -> None:
    invoice = vendor_invoice(session)
    made = entry(session)
    made.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=invoice.id)
    session.commit()
    assert finding(sync.verify(session, "acme"), "document_not_posted") is None


@pytest.mark.parametrize(("day", "count"), [(date(2026, 2, 28), 0), (DAY, 1)])
def test_a_document_from_before_the_cut_over_needs_no_posting(engine: Engine, day: date, count: int) -> None:
    sync = LedgerSync(Settings(effective_from=DAY))
    with sessionmaker(engine)() as session:
        vendor_invoice(session, invoice_date=day)
        session.commit()
        found = finding(sync.verify(session, "acme"), "document_not_posted")
    assert (found.count if found else 0) == count


def test_an_entry_of_an_invoice_on_a_renumbered_account_has_no_control_line(session: Session, sync: LedgerSync) -> None:
    posted(session, account="2410", voucher_number="17")
    found = named(sync.verify(session, "acme"), "no_control_line")
    assert [subject.text for subject in found.examples] == ["voucher 17/2026"]


def test_an_entry_that_touches_the_control_account_has_a_control_line(session: Session, sync: LedgerSync) -> None:
    posted(session)
    assert finding(sync.verify(session, "acme"), "no_control_line") is None


def test_a_payment_that_touches_no_control_account_is_no_finding(session: Session, sync: LedgerSync) -> None:
    payment = vendor_payment(session)
    entry(session, "1920", source=("vendor_payment", payment.id))
    session.commit()
    assert finding(sync.verify(session, "acme"), "no_control_line") is None


def test_a_control_account_that_no_line_uses_is_unused(session: Session, sync: LedgerSync) -> None:
    posted(session, account="2410")
    found = named(sync.verify(session, "acme"), "account_unused")
    assert [subject.text for subject in found.examples] == ["account 2400"]


def test_a_range_with_a_line_in_it_is_used(session: Session) -> None:
    sync = LedgerSync(Settings(control_accounts=(ControlAccount(accounts=("2400-2409", "2420"), ledger="supplier"),)))
    posted(session, account="2405")
    found = named(sync.verify(session, "acme"), "account_unused")
    assert [subject.id for subject in found.examples] == ["2420"]


def test_an_account_that_only_another_tenant_uses_is_unused(session: Session, sync: LedgerSync) -> None:
    posted(session, tenant="other")
    assert named(sync.verify(session, "acme"), "account_unused").examples[0].id == "2400"


def test_a_draft_of_an_invoice_waits(session: Session, sync: LedgerSync) -> None:
    posted(session, post=False, voucher_number="17")
    found = named(sync.verify(session, "acme"), "draft_waits")
    assert [subject.text for subject in found.examples] == ["voucher 17/2026"]


def test_a_draft_of_several_control_lines_waits_once(session: Session, sync: LedgerSync) -> None:
    invoice = vendor_invoice(session)
    draft = entry(session, signed=-60, source=("vendor_invoice", invoice.id), contra="2400", post=False)
    session.commit()
    found = named(sync.verify(session, "acme"), "draft_waits")
    assert (found.count, [example.text for example in found.examples]) == (1, [f"voucher {draft.voucher}"])


def test_a_draft_that_will_have_no_open_item_does_not_wait(engine: Engine) -> None:
    sync = LedgerSync(Settings(effective_from=DAY))
    with Session(engine) as session:
        old = vendor_invoice(session, invoice_date=EARLIER)
        entry(session, source=("vendor_invoice", old.id), on=EARLIER, post=False)
        entry(session, source=("vendor_invoice", old.id), signed=100, post=False)
        entry(session, source=("vendor_invoice", old.id + 900), post=False)
        entry(session, source=("vendor_invoice", vendor_invoice(session).id), signed=0, post=False)
        session.flush()
        assert finding(sync.verify(session, "acme"), "draft_waits") is None


def test_a_draft_without_a_source_does_not_wait(session: Session, sync: LedgerSync) -> None:
    entry(session, post=False)
    session.commit()
    assert finding(sync.verify(session, "acme"), "draft_waits") is None


def test_a_payment_with_the_kid_of_another_partys_invoice_is_found(session: Session, sync: LedgerSync) -> None:
    kid = with_mod10("1234")
    posted(session, party="V2", payment_reference=kid)
    paid(session, 100, kid)
    found = named(sync.verify(session, "acme"), "paid_by_other_party")
    assert (found.count, found.fault) == (1, False)
    assert f"reference {kid} is of vendor_invoice" in found.examples[0].text


def test_one_payment_is_counted_once_though_its_kid_is_on_two_documents_of_the_other_party(
    session: Session, sync: LedgerSync
) -> None:
    kid = with_mod10("1234")
    posted(session, party="V2", payment_reference=kid)
    # its credit note has the same KID, as payers quote it
    vendor_invoice(session, party="V2", payment_reference=kid, kind="credit_note")
    paid(session, 100, kid)
    assert named(sync.verify(session, "acme"), "paid_by_other_party").count == 1


def test_a_kid_of_another_tenants_invoice_is_no_finding(session: Session, sync: LedgerSync) -> None:
    kid = with_mod10("1234")
    posted(session, tenant="other", payment_reference=kid)
    paid(session, 100, kid)
    assert finding(sync.verify(session, "acme"), "paid_by_other_party") is None


def test_a_reference_that_fits_several_invoices_is_ambiguous(session: Session, sync: LedgerSync) -> None:
    posted(session, invoice_number="7")
    posted(session, invoice_number="7")
    paid(session, 100, "7")
    found = named(sync.verify(session, "acme"), "ambiguous_reference")
    assert found.count == 1
    assert found.examples[0].text.endswith("reference 7 fits 2 of them")


def test_a_reference_that_fits_one_invoice_is_not_ambiguous(session: Session, sync: LedgerSync) -> None:
    posted(session, invoice_number="7")
    paid(session, 100, "7")
    assert finding(sync.verify(session, "acme"), "ambiguous_reference") is None


@pytest.mark.parametrize(("reference", "count"), [("12345", 1), (with_mod10("1234"), 0), ("invoice 12345", 0)])
def test_only_what_has_the_shape_of_a_kid_and_no_fitting_digit_is_an_invalid_kid(
    session: Session, sync: LedgerSync, reference: str, count: int
) -> None:
    payment = customer_payment(session, payment_reference=reference)
    entry(session, "1500", -100, ("customer_payment", payment.id))
    session.commit()
    found = finding(sync.verify(session, "acme"), "invalid_kid", "customer")
    assert (found.count if found else 0) == count


def test_a_number_that_names_an_invoice_is_no_invalid_kid(session: Session, sync: LedgerSync) -> None:
    posted(session, invoice_number="12345")
    paid(session, 100, "12345")
    assert finding(sync.verify(session, "acme"), "invalid_kid") is None


def test_a_payment_that_was_settled_by_hand_is_no_longer_a_finding(session: Session, sync: LedgerSync) -> None:
    posted(session)
    paid(session, 100, "12345")
    invoice, payment = session.query(SupplierLedger).order_by(SupplierLedger.general_ledger_line_id)
    sync.settle(session, payment, invoice, actor="eva", reason="asked", on=DAY)
    session.commit()
    assert finding(sync.verify(session, "acme"), "invalid_kid") is None


def test_findings_of_another_tenant_are_not_shown(session: Session, sync: LedgerSync) -> None:
    vendor_invoice(session, tenant="other")
    entry(session, tenant="other", post=False, source=("vendor_invoice", 1))
    session.commit()
    assert {found.name for found in sync.verify(session, "acme").findings} == {"account_unused"}


def test_each_finding_says_what_it_means_and_what_to_do(session: Session, sync: LedgerSync) -> None:
    vendor_invoice(session)
    session.commit()
    found = named(sync.verify(session, "acme"), "document_not_posted")
    assert (found.meaning, found.next_step) == WORDS["document_not_posted"]


def test_without_findings_there_are_none(session: Session, sync: LedgerSync) -> None:
    vendor_invoice(session)
    session.commit()
    assert sync.verify(session, "acme", with_findings=False).findings == ()


# -- as of a day ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("day", "balance"), [(EARLIER, 0), (DAY, 100), (LATER, 160), (None, 160)])
def test_entries_dated_later_are_left_out_on_both_sides(
    session: Session, sync: LedgerSync, day: date | None, balance: int
) -> None:
    posted(session, 100, on=DAY)
    posted(session, 60, on=LATER)
    account = sync.verify(session, "acme", day).account("2400")
    assert (account.gl_balance, account.subledger_balance) == (balance, balance)


@pytest.mark.parametrize(("day", "names"), [(DAY, []), (LATER, ["missing"])])
def test_a_row_that_is_missing_is_missing_from_the_day_of_its_entry(
    session: Session, sync: LedgerSync, day: date, names: list[str]
) -> None:
    posted(session, on=LATER)
    behind_the_hook(session, "DELETE FROM supplier_ledger")
    assert [c.name for c in sync.verify(session, "acme", day).account("2400").causes] == names


@pytest.mark.parametrize(("day", "names"), [(DAY, []), (LATER, ["orphan"])])
def test_an_orphan_counts_from_its_own_day(session: Session, sync: LedgerSync, day: date, names: list[str]) -> None:
    posted(session, on=LATER)
    behind_the_hook(session, "DELETE FROM general_ledger_lines")
    assert [c.name for c in sync.verify(session, "acme", day).account("2400").causes] == names


def test_a_forged_entry_date_does_not_make_a_row_an_orphan(session: Session, sync: LedgerSync) -> None:
    posted(session, on=LATER)
    behind_the_hook(session, "UPDATE supplier_ledger SET entry_date = '2026-01-01'")
    assert sync.verify(session, "acme", DAY).account("2400").causes == ()


def test_findings_are_of_today_so_a_proof_of_the_past_has_none(session: Session, sync: LedgerSync) -> None:
    vendor_invoice(session)
    session.commit()
    assert sync.verify(session, "acme", DAY).findings == ()


# -- the full list ----------------------------------------------------------------------------------------


def test_differences_are_all_of_them_and_agree_with_the_causes(session: Session, sync: LedgerSync) -> None:
    for amount in range(1, 11):
        posted(session, amount)
        entry(session, signed=-amount)
    session.commit()
    behind_the_hook(session, "DELETE FROM supplier_ledger WHERE id % 2 = 0")
    behind_the_hook(session, "UPDATE supplier_ledger SET general_ledger_line_id = 900 WHERE id = 1")
    listed: dict[tuple[str, str], list[Decimal]] = {}
    for difference in sync.differences(session, "acme"):
        listed.setdefault((difference.account_number, difference.cause), []).append(difference.amount)
    counted = {key: (len(amounts), sum(amounts)) for key, amounts in listed.items()}
    accounts = sync.verify(session, "acme").accounts
    assert counted == {(a.account_number, c.name): (c.count, c.amount) for a in accounts for c in a.causes}


def test_differences_are_streamed(session: Session, sync: LedgerSync) -> None:
    entry(session)
    session.commit()
    assert isinstance(sync.differences(session, "acme"), Iterator)


def test_differences_as_of_a_day_leave_later_ones_out(session: Session, sync: LedgerSync) -> None:
    entry(session, on=DAY)
    entry(session, on=LATER)
    session.commit()
    assert [d.entry_date for d in sync.differences(session, "acme", DAY)] == [DAY]


def test_differences_of_one_account_or_cause_are_those_of_the_full_list(session: Session, sync: LedgerSync) -> None:
    for amount in (1, 2):
        posted(session, amount)
    for account in ("1500", "2400"):
        entry(session, account=account)
    session.commit()
    first = "(SELECT MIN(id) FROM general_ledger_lines WHERE account_number = '2400')"
    behind_the_hook(session, f"DELETE FROM supplier_ledger WHERE general_ledger_line_id <> {first}")
    behind_the_hook(session, "UPDATE supplier_ledger SET general_ledger_line_id = 900")
    everything = list(sync.differences(session, "acme"))
    assert {(d.account_number, d.cause) for d in everything} == {
        ("1500", "manual"),
        ("2400", "manual"),
        ("2400", "missing"),
        ("2400", "orphan"),
    }
    for account_number in (None, "1500", "2400", "2401"):
        for cause in (None, "manual", "missing", "orphan", "no such cause"):
            assert list(sync.differences(session, "acme", account_number=account_number, cause=cause)) == [
                d for d in everything if account_number in {None, d.account_number} and cause in {None, d.cause}
            ]


@pytest.mark.parametrize("refused", ["a\0b", "\ud800"])
@pytest.mark.parametrize("argument", ["tenant_id", "account_number", "cause"])
@pytest.mark.filterwarnings("error")
def test_differences_of_what_no_text_can_be_leave_no_cursor(
    session: Session, sync: LedgerSync, argument: str, refused: str
) -> None:
    entry(session)
    session.commit()
    with pytest.raises(TextError, match=f"^{argument} = "):
        list(sync.differences(session, **{"tenant_id": "acme", argument: refused}))
    gc.collect()  # psycopg warns of a cursor that nobody closed


def test_differences_are_of_one_tenant(session: Session, sync: LedgerSync) -> None:
    entry(session, tenant="other")
    session.commit()
    assert list(sync.differences(session, "acme")) == []


# -- runs and snapshots -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "lease", "tenant", "named_there"),
    [
        ("running", FAR_AHEAD, "acme", True),
        ("running", FAR_AHEAD, None, True),  # everybody's books
        ("running", FAR_AHEAD, "other", False),
        ("running", LONG_AGO, "acme", False),  # it died
        ("completed", FAR_AHEAD, "acme", False),
        ("failed", FAR_AHEAD, "acme", False),
    ],
)
def test_only_a_live_run_on_these_books_is_named(
    session: Session, sync: LedgerSync, state: str, lease: datetime, tenant: str | None, named_there: bool
) -> None:
    run = SyncRun(tenant_id=tenant, kind="backfill", state=state, stage="x", version="1", started_at=LONG_AGO)
    run.lease_until = lease
    session.add(run)
    session.commit()
    assert sync.verify(session, "acme").runs_active == ((run.id,) if named_there else ())


def test_a_repair_that_has_ended_is_not_named(
    factory: sessionmaker[Session], session: Session, sync: LedgerSync
) -> None:
    posted(session)
    sync.repair(factory, tenant_id="acme")
    assert sync.verify(session, "acme").runs_active == ()


def test_a_proof_writes_nothing(session: Session, sync: LedgerSync, engine: Engine) -> None:
    posted(session)
    with statements(engine) as seen:
        sync.verify(session, "acme")
    assert not {statement.split()[0].upper() for statement in seen} & {"INSERT", "UPDATE", "DELETE"}


def test_a_proof_is_of_one_snapshot(server: Engine, sync: LedgerSync) -> None:
    """SQLite has no such test: there a writer cannot commit while somebody reads."""
    factory = sessionmaker(server)
    sync.attach(factory)
    with factory() as session:
        posted(session)
        before = sync.verify(session, "acme")

    def commit_elsewhere() -> None:
        with factory() as other:
            # the customers' ledger is read after the suppliers', and findings after both
            invoice = customer_invoice(other)
            entry(other, "1500", 100, ("customer_invoice", invoice.id))
            customer_invoice(other)
            vendor_invoice(other)
            other.commit()

    with factory() as session, after_the_first_statement(server, commit_elsewhere):
        assert sync.verify(session, "acme") == before


def test_the_next_proof_sees_what_was_committed_meanwhile(session: Session, sync: LedgerSync, engine: Engine) -> None:
    before = sync.verify(session, "acme").account("2400").gl_balance
    session.commit()
    with Session(engine) as other:
        other.add(entry(other, signed=-5))
        other.commit()
    assert (before, sync.verify(session, "acme").account("2400").gl_balance) == (0, 5)


def test_figures_of_one_ledger_are_of_one_snapshot_inside_a_transaction(server: Engine, sync: LedgerSync) -> None:
    factory = sessionmaker(server)
    sync.attach(factory)

    def commit_elsewhere() -> None:
        with factory() as other:
            posted(other)

    with factory() as session:
        session.connection(execution_options={"isolation_level": "READ COMMITTED"})
        session.execute(text("SELECT 1"))  # the transaction has begun
        with after_the_first_statement(server, commit_elsewhere):
            account = sync.verify(session, "acme").account("2400")
    assert account.gl_balance == account.subledger_balance


def test_a_line_is_in_the_ledger_of_its_own_account(session: Session, sync: LedgerSync) -> None:
    made = posted(session)
    assert isinstance(made.lines[0], JournalLine)
    found = {a.account_number: a.gl_balance for a in sync.verify(session, "acme").accounts}
    assert found == {"1500": 0, "2400": Decimal("100.00"), "2910": 0}


def test_a_row_that_goes_since_its_line_reverses_a_mended_one_has_a_tombstone_too(engine: Engine) -> None:
    sync, factory = LedgerSync(Settings(batch_lines_max=1)), sessionmaker(engine)
    sync.attach(factory)
    with factory() as session:
        made = posted(session)
        session.add(made.reverse(DAY))
        session.commit()
        lines = set(session.scalars(select(SupplierLedger.general_ledger_line_id)))
        session.commit()
        behind_the_hook(session, "UPDATE general_ledger SET source_type = NULL, source_id = NULL")
    assert sync.repair(factory, tenant_id="acme").clean
    with factory() as session:
        assert session.scalars(select(SupplierLedger)).all() == []
        assert set(session.scalars(select(Tombstone.general_ledger_line_id))) == lines


def test_a_repair_once_it_died_can_be_followed_by_another(
    factory: sessionmaker[Session], session: Session, sync: LedgerSync
) -> None:
    posted(session)
    behind_the_hook(session, "DELETE FROM supplier_ledger")
    died = SyncRun(tenant_id="acme", kind="repair", state="running", stage="x", version="1", started_at=LONG_AGO)
    died.lease_until = LONG_AGO + timedelta(minutes=10)
    session.add(died)
    session.commit()
    assert sync.repair(factory, tenant_id="acme").clean
