"""What became of an entry or a document: the outcome, the words, and how things are looked up."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync, Settings
from ledger_sync.errors import NotInTheBooksError
from ledger_sync.explain import LineExplanation
from ledger_sync.models import SourceLink
from ledger_sync.proof import MEANINGS
from tests.books import DAY, customer_invoice, entry, vendor, vendor_invoice

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def sync() -> LedgerSync:
    """One for all tests here, since it keeps the statements that it has built."""
    return LedgerSync()


def posted(session: Session, **more: Any) -> Any:
    """A vendor invoice and its posting, committed; ``more`` is the entry's."""
    invoice = vendor_invoice(session, tenant=more.get("tenant", "acme"))
    made = entry(session, source=("vendor_invoice", invoice.id), **more)
    session.commit()
    return made


def behind_the_hook(session: Session, statement: str) -> None:
    with session.get_bind().begin() as connection:  # type: ignore[union-attr]
        connection.execute(text(statement))


def first_line(session: Session, sync: LedgerSync, subject: Any) -> LineExplanation:
    session.commit()
    return sync.explain(session, subject).entries[0].lines[0]


# -- reasons ----------------------------------------------------------------------------------------------

SOURCES = {
    "draft": {"source": ("vendor_invoice", 1), "post": False},
    "manual": {},
    "unsupported_source": {"source": ("payroll", 1)},
    "source_not_found": {"source": ("vendor_invoice", 99)},
    "zero_amount": {"source": ("vendor_invoice", 1), "signed": 0},
}


@pytest.mark.parametrize("reason", SOURCES)
def test_a_reason_is_the_outcome(session: Session, sync: LedgerSync, reason: str) -> None:
    vendor_invoice(session, id=1)
    assert first_line(session, sync, entry(session, **SOURCES[reason])).outcome == reason


@pytest.mark.parametrize("reason", SOURCES)
def test_a_reason_is_told_with_its_meaning_and_the_next_step(session: Session, sync: LedgerSync, reason: str) -> None:
    vendor_invoice(session, id=1)
    told = first_line(session, sync, entry(session, **SOURCES[reason])).text
    meaning, next_step = MEANINGS[reason]
    assert told == f"No ledger entry was created for it: {meaning}. {next_step}"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("draft", "The entry is a draft."),
        ("manual", "Neither the entry nor a link of the line names a source."),
        (
            "unsupported_source",
            "Its source is of type payroll, but account 2400 takes vendor_invoice, ehf_invoice, vendor_payment.",
        ),
        ("source_not_found", "vendor_invoice 99 is not in these books."),
        ("zero_amount", "Its amount is zero."),
    ],
)
def test_the_last_rule_is_the_one_that_does_not_hold(
    session: Session, sync: LedgerSync, reason: str, words: str
) -> None:
    vendor_invoice(session, id=1)
    rules = first_line(session, sync, entry(session, **SOURCES[reason])).rules
    assert [rule.holds for rule in rules] == [True] * (len(rules) - 1) + [False]
    assert (rules[-1].name, rules[-1].text) == (reason, words)


def test_a_line_before_the_cut_over_is_told_with_the_day(engine: Engine) -> None:
    sync = LedgerSync(Settings(effective_from=DAY))
    with sessionmaker(engine)() as session:
        line = first_line(session, sync, entry(session, on=date(2026, 2, 28)))
    assert (line.outcome, line.rules[-1].text) == (
        "before_cutover",
        "It, or the invoice that it settles, lies before the cut-over of 2026-03-01.",
    )


def test_a_source_of_another_tenant_is_told_as_one_that_is_not_there(session: Session, sync: LedgerSync) -> None:
    theirs = vendor_invoice(session, tenant="other")
    line = first_line(session, sync, entry(session, source=("vendor_invoice", theirs.id)))
    assert line.rules[-1].text == f"vendor_invoice {theirs.id} is not in these books."


# -- written, missing, differing --------------------------------------------------------------------------


def test_a_line_with_its_row_is_written(session: Session, sync: LedgerSync) -> None:
    line = first_line(session, sync, posted(session))
    assert line.outcome == "written"
    assert line.text == "It has an open item in the supplier ledger: 100.00, 100.00 of it open."


def test_all_rules_hold_for_a_line_that_is_written(session: Session, sync: LedgerSync) -> None:
    assert all(rule.holds for rule in first_line(session, sync, posted(session)).rules)


def test_a_written_line_comes_with_its_open_item(session: Session, sync: LedgerSync) -> None:
    item = first_line(session, sync, posted(session)).item
    assert item is not None
    assert (item.party_number, item.amount) == ("V1", Decimal("100.00"))


def test_an_amount_is_debit_less_credit(session: Session, sync: LedgerSync) -> None:
    assert first_line(session, sync, posted(session)).amount == Decimal("-100.00")


def test_a_line_on_another_account_has_nothing_to_write(session: Session, sync: LedgerSync) -> None:
    line = sync.explain(session, posted(session)).entries[0].lines[1]
    assert (line.outcome, line.ledger) == ("no_control_account", None)
    assert line.text == "4000 is not a control account, so there is nothing to write."


def test_an_entry_without_a_control_line_is_told_so(session: Session, sync: LedgerSync) -> None:
    made = entry(session, "4100", voucher_number="17")
    session.commit()
    told = sync.explain(session, made).text
    assert told == "No ledger entry was created: no line of voucher 17/2026 is on a control account."


def test_a_row_that_is_gone_is_missing(session: Session, sync: LedgerSync) -> None:
    made = posted(session)
    behind_the_hook(session, "DELETE FROM supplier_ledger")
    line = first_line(session, sync, made)
    assert line.outcome == "missing"
    assert line.text.startswith("It should have a row in the supplier ledger and has none. Run a repair")


def test_a_row_of_another_amount_differs(session: Session, sync: LedgerSync) -> None:
    made = posted(session)
    behind_the_hook(session, "UPDATE supplier_ledger SET amount = 3 * amount")
    line = first_line(session, sync, made)
    assert line.outcome == "differs"
    party = vendor(session).id
    words = f"Its row has amount 300.00, party {party} and account 2400; the line says 100.00, {party} and 2400"
    assert line.text.startswith(words)
    assert line.text.endswith(MEANINGS["amount_differs"][1])


def test_a_row_on_another_party_differs(session: Session, sync: LedgerSync) -> None:
    made = posted(session)
    other = vendor(session, number="V2").id
    session.commit()
    behind_the_hook(session, f"UPDATE supplier_ledger SET supplier_id = {other}")
    line = first_line(session, sync, made)
    assert line.outcome == "differs"
    assert line.text.endswith(MEANINGS["wrong_party"][1])


def test_a_row_of_a_line_that_must_have_none_is_an_orphan(session: Session, sync: LedgerSync) -> None:
    made = posted(session)
    behind_the_hook(session, "UPDATE general_ledger SET source_type = NULL, source_id = NULL")
    line = first_line(session, sync, made)
    assert (line.outcome, line.rules[-1].name, line.item is None) == ("orphan", "manual", False)
    assert line.text == (
        "It has a row of 100.00 in the supplier ledger and should have none: posted without a source. Run a repair; it "
        "keeps what it takes away as a tombstone."
    )


def test_a_row_that_names_another_entry_is_not_missing(session: Session, sync: LedgerSync) -> None:
    """The proof calls it copied data that differs; a repair would not create a row either."""
    made = posted(session)
    behind_the_hook(session, "UPDATE supplier_ledger SET general_ledger_id = 900")
    assert first_line(session, sync, made).outcome != "missing"


# -- looking up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["17", "B-17", "17/2026", "B-17/2026", " B-17 "])
def test_a_voucher_is_found_as_people_write_it(session: Session, sync: LedgerSync, written: str) -> None:
    posted(session, voucher_series="B", voucher_number="17")
    posted(session, voucher_series="B", voucher_number="18")
    assert [e.voucher for e in sync.explain(session, written, "acme").entries] == ["B-17/2026"]


def test_a_voucher_that_could_be_several_is_told_with_all_of_them(session: Session, sync: LedgerSync) -> None:
    posted(session, voucher_series="A", voucher_number="17")
    posted(session, voucher_series="B", voucher_number="17")
    with pytest.raises(NotInTheBooksError, match="could be A-17/2026, B-17/2026") as refused:
        sync.explain(session, "17", "acme")
    assert refused.value.could_be == ("A-17/2026", "B-17/2026")


def test_a_year_tells_vouchers_apart(session: Session, sync: LedgerSync) -> None:
    posted(session, voucher_number="17")
    posted(session, voucher_number="17", on=date(2025, 3, 1))
    assert [e.voucher for e in sync.explain(session, "17/2025", "acme").entries] == ["17/2025"]


@pytest.mark.parametrize("written", ["5/1234", "B-5/1234", "5/1234/2026", "B-5/1234/2026"])
def test_a_voucher_whose_own_number_ends_like_a_year_is_found(session: Session, sync: LedgerSync, written: str) -> None:
    posted(session, voucher_series="B", voucher_number="5/1234")
    assert [e.voucher for e in sync.explain(session, written, "acme").entries] == ["B-5/1234/2026"]


def test_a_number_and_a_year_that_name_two_vouchers_are_told_with_both(session: Session, sync: LedgerSync) -> None:
    posted(session, voucher_number="5", on=date(2025, 3, 1))
    posted(session, voucher_number="5/2025")
    with pytest.raises(NotInTheBooksError, match="could be 5/2025, 5/2025/2026"):
        sync.explain(session, "5/2025", "acme")


@pytest.mark.parametrize("written", ["18", "A-17", "17/2025"])
def test_an_unknown_voucher_is_not_in_the_books(session: Session, sync: LedgerSync, written: str) -> None:
    posted(session, voucher_series="B", voucher_number="17")
    with pytest.raises(NotInTheBooksError, match=f"voucher {written} is not in the books"):
        sync.explain(session, written, "acme")


def test_a_voucher_of_another_tenant_is_not_in_the_books(session: Session, sync: LedgerSync) -> None:
    posted(session, voucher_number="17", tenant="other")
    with pytest.raises(NotInTheBooksError, match="is not in the books"):
        sync.explain(session, "17", "acme")


def test_another_tenants_voucher_of_the_same_number_is_not_ambiguous(session: Session, sync: LedgerSync) -> None:
    posted(session, voucher_number="17", tenant="other")
    ours = posted(session, voucher_number="17")
    assert [e.general_ledger_id for e in sync.explain(session, "17", "acme").entries] == [ours.id]


def test_an_entry_is_found_by_its_id(session: Session, sync: LedgerSync) -> None:
    made = posted(session)
    assert sync.explain(session, made.id, "acme").entries[0].general_ledger_id == made.id


def test_the_id_of_another_tenants_entry_is_not_in_the_books(session: Session, sync: LedgerSync) -> None:
    theirs = posted(session, tenant="other").id
    with pytest.raises(NotInTheBooksError, match="is not in the books"):
        sync.explain(session, theirs, "acme")


def test_without_a_tenant_a_voucher_is_not_looked_up(session: Session, sync: LedgerSync) -> None:
    posted(session, voucher_number="17")
    with pytest.raises(NotInTheBooksError, match="without a tenant"):
        sync.explain(session, "17")


def test_a_document_is_explained_by_the_entries_that_name_it(session: Session, sync: LedgerSync) -> None:
    invoice = vendor_invoice(session)
    made = entry(session, source=("vendor_invoice", invoice.id))
    linked = entry(session, signed=40)
    linked.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=invoice.id)
    session.commit()
    assert [e.general_ledger_id for e in sync.explain(session, invoice).entries] == [made.id, linked.id]


@pytest.mark.parametrize("written", ["vendor_invoice:F 8907", "vendor_invoice:f8907"])
def test_a_document_is_found_by_its_number(session: Session, sync: LedgerSync, written: str) -> None:
    invoice = vendor_invoice(session, invoice_number="F 8907")
    made = entry(session, source=("vendor_invoice", invoice.id))
    session.commit()
    assert [e.general_ledger_id for e in sync.explain(session, written, "acme").entries] == [made.id]


def test_a_document_that_no_entry_names_is_told_so(session: Session, sync: LedgerSync) -> None:
    vendor_invoice(session, invoice_number="8907")
    session.commit()
    found = sync.explain(session, "vendor_invoice:8907", "acme")
    assert (found.entries, found.text.split(",")[0]) == ((), "No journal entry names vendor_invoice 8907")


def test_a_document_of_another_tenant_is_not_in_the_books(session: Session, sync: LedgerSync) -> None:
    vendor_invoice(session, invoice_number="8907", tenant="other")
    session.commit()
    with pytest.raises(NotInTheBooksError, match="vendor_invoice 8907 is not in the books"):
        sync.explain(session, "vendor_invoice:8907", "acme")


def test_an_unknown_kind_of_document_is_told_with_those_that_there_are(session: Session, sync: LedgerSync) -> None:
    with pytest.raises(NotInTheBooksError, match="Use one of customer_invoice, expense_claim, vendor_invoice"):
        sync.explain(session, "purchase:8907", "acme")


# -- the newest -------------------------------------------------------------------------------------------


def at(session: Session, hour: int, **more: Any) -> Any:
    made = entry(session, post=False, **more)
    made.post(NOON.replace(hour=hour))
    session.commit()
    return made


def test_recent_lines_are_the_newest_first_across_ledgers(session: Session, sync: LedgerSync) -> None:
    at(session, 9, voucher_number="9")
    at(session, 10, account="1500", voucher_number="10")
    at(session, 11, voucher_number="11")
    found = sync.recent(session, "acme", NOON.replace(hour=0))
    assert [line.voucher for line in found] == ["11/2026", "10/2026", "9/2026"]


def test_recent_lines_were_posted_since_the_moment(session: Session, sync: LedgerSync) -> None:
    at(session, 9, voucher_number="9")
    at(session, 10, voucher_number="10")
    found = sync.recent(session, "acme", NOON.replace(hour=10))
    assert [line.voucher for line in found] == ["10/2026"]


def test_recent_lines_tell_what_became_of_them(session: Session, sync: LedgerSync) -> None:
    invoice = customer_invoice(session)
    at(session, 9)
    at(session, 10, account="1500", signed=100, source=("customer_invoice", invoice.id))
    missing = vendor_invoice(session)
    at(session, 11, source=("vendor_invoice", missing.id))
    behind_the_hook(session, "DELETE FROM supplier_ledger")
    found = sync.recent(session, "acme", NOON.replace(hour=0))
    assert [line.outcome for line in found] == ["missing", "written", "manual"]


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ("supplier_ledger SET amount = 3 * amount", "differs"),
        ("supplier_ledger SET account_number = '2401'", "differs"),
        ("general_ledger SET source_type = NULL, source_id = NULL", "orphan"),
    ],
)
def test_a_recent_line_has_the_outcome_that_its_explanation_has(
    session: Session, sync: LedgerSync, change: str, outcome: str
) -> None:
    made = posted(session)
    moment = made.posted_at
    session.commit()
    behind_the_hook(session, f"UPDATE {change}")
    assert first_line(session, sync, made).outcome == outcome
    assert [line.outcome for line in sync.recent(session, "acme", moment)] == [outcome]


def test_a_recent_line_that_is_written_says_what_is_left(session: Session, sync: LedgerSync) -> None:
    made = posted(session)
    (line,) = sync.recent(session, "acme", made.posted_at)
    assert (line.remaining_amount, line.status, line.written_at is None) == (Decimal("100.00"), "open", False)


def test_recent_lines_are_limited_per_ledger(session: Session, sync: LedgerSync) -> None:
    for hour in (9, 10, 11):
        at(session, hour, voucher_number=str(hour))
    found = sync.recent(session, "acme", NOON.replace(hour=0), limit=2)
    assert [line.voucher for line in found] == ["11/2026", "10/2026"]


def test_recent_lines_are_of_one_tenant(session: Session, sync: LedgerSync) -> None:
    at(session, 9, tenant="other")
    assert sync.recent(session, "acme", NOON.replace(hour=0)) == ()


def test_a_draft_is_not_recent(session: Session, sync: LedgerSync) -> None:
    entry(session, post=False)
    session.commit()
    assert sync.recent(session, "acme", NOON.replace(year=2000)) == ()


def test_more_documents_of_one_number_than_are_explained_are_said_to_be_there(
    session: Session, sync: LedgerSync
) -> None:
    for number in range(11):
        invoice = vendor_invoice(session, party=f"V{number}", invoice_number="1")
        entry(session, source=("vendor_invoice", invoice.id))
        session.commit()
        found = sync.explain(session, "vendor_invoice:1", "acme")
        assert len(found.entries) == min(number + 1, 10)
        assert found.text.startswith("More than 10 documents have that number; this is") == (number == 10)
