"""History without sources: what is proposed, what is certain, and that nothing is guessed."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import CursorResult, Engine, select, text
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import ControlAccount, LedgerSync, Settings, matching
from ledger_sync.contrib.cli.review import read_review, write_review
from ledger_sync.contrib.saft import import_saft
from ledger_sync.errors import ConfigurationError, LinkError
from ledger_sync.matching import Matches
from ledger_sync.matching import _is_word as is_word
from ledger_sync.models import Customer, CustomerLedger, JournalEntry, SourceLink, SupplierLedger, Vendor
from tests import test_ovningsbolaget
from tests.books import customer_invoice, entry, vendor_invoice, vendor_payment
from tests.conftest import make_sqlite, shared_file
from tests.test_settlement_concurrency import opened, waits

WHO: dict[str, Any] = {"actor": "kari", "reason": "test"}


def post_sourceless(session: Session, account: str, signed: object, text_: str = "", **line: Any) -> JournalEntry:
    made = entry(session, account, signed, description=text_ or None, line=line, on=date(2026, 3, 5))
    session.flush()
    return made


def line_id(made: JournalEntry) -> int:
    return made.lines[0].id


def evidence_of(found: Matches) -> list[tuple[str, ...]]:
    return [proposal.candidates[0].evidence for proposal in found.certain]


# -- what is proposed ----------------------------------------------------------------------------------


def test_a_payment_reference_is_evidence(session: Session, sync: LedgerSync) -> None:
    invoice = customer_invoice(session, 100, payment_reference="1234 5674")
    made = post_sourceless(session, "1500", 100, reference="12345674")
    (proposal,) = sync.match(session, "acme").certain
    assert proposal.general_ledger_line_id == line_id(made)
    (candidate,) = proposal.candidates
    assert (candidate.document, candidate.document_id, candidate.role) == ("customer_invoice", invoice.id, "opens")
    assert candidate.evidence == ("payment_reference",)


@pytest.mark.parametrize(
    ("number", "written", "is_evidence"),
    [
        ("8907", "Flour, invoice 8907.", True),
        ("8907", "Flour 18907", False),
        ("8907", "Flour 8907B", False),
        ("A-17", "pays a-17", True),
        ("A-17", "pays AA-17", False),
        ("22", "instalment 22 of 30", False),
        ("8907", "", False),
    ],
)
def test_a_number_is_evidence_as_a_whole_word_only(
    session: Session, sync: LedgerSync, number: str, written: str, is_evidence: bool
) -> None:
    vendor_invoice(session, 100, invoice_number=number)
    post_sourceless(session, "2400", -100, written)
    assert evidence_of(sync.match(session, "acme")) == ([("number",)] if is_evidence else [])


def test_the_partys_name_is_evidence(session: Session, sync: LedgerSync) -> None:
    vendor_invoice(session, 100)
    post_sourceless(session, "2400", -100, "To VENDOR V1, by bank")
    assert evidence_of(sync.match(session, "acme")) == [("party",)]


def test_the_amount_alone_is_no_evidence(session: Session, sync: LedgerSync) -> None:
    vendor_invoice(session, 100)
    post_sourceless(session, "2400", -100, "Something")
    found = sync.match(session, "acme")
    assert (found.proposals, found.unmatched) == ((), 1)


@pytest.mark.parametrize("signed", ["-100.01", "-99.99", "100"])
def test_another_amount_or_direction_is_no_candidate(session: Session, sync: LedgerSync, signed: str) -> None:
    vendor_invoice(session, 100, invoice_number="8907", kind="credit_note" if signed == "-100" else "invoice")
    post_sourceless(session, "2400", signed, "Invoice 8907" if signed != "100" else "Something else")
    assert sync.match(session, "acme").proposals == ()


def test_a_line_in_the_other_direction_pays_an_invoice(session: Session, sync: LedgerSync) -> None:
    invoice = customer_invoice(session, 100, invoice_number="10023")
    entry(session, "1500", 100, ("customer_invoice", invoice.id))
    post_sourceless(session, "1500", -100, "Paid 10023")
    (proposal,) = sync.match(session, "acme").certain
    assert (proposal.candidates[0].role, proposal.candidates[0].document_id) == ("pays", invoice.id)


def test_an_invoice_that_is_posted_or_paid_is_no_candidate(session: Session, sync: LedgerSync) -> None:
    invoice = customer_invoice(session, 100, invoice_number="10023")
    entry(session, "1500", 100, ("customer_invoice", invoice.id))
    entry(session, "1500", -100, ("customer_invoice", invoice.id))
    session.flush()
    post_sourceless(session, "1500", 100, "10023 again")
    post_sourceless(session, "1500", -100, "10023 again")
    assert sync.match(session, "acme").proposals == ()


def test_another_tenants_document_is_no_candidate(session: Session, sync: LedgerSync) -> None:
    vendor_invoice(session, 100, tenant="other", invoice_number="8907")
    post_sourceless(session, "2400", -100, "Invoice 8907")
    assert sync.match(session, "acme").proposals == ()
    assert sync.match(session, "other").proposals == ()


def test_a_document_too_far_away_in_time_is_no_candidate(session: Session, sync: LedgerSync) -> None:
    vendor_invoice(session, 100, invoice_number="8907", invoice_date=date(2026, 1, 1))
    post_sourceless(session, "2400", -100, "Invoice 8907")
    assert sync.match(session, "acme").proposals == ()


@given(word=st.text(alphabet="a1-_ å²", min_size=1, max_size=3), text_=st.text(alphabet="a1-_ å²", max_size=12))
def test_a_word_has_no_letter_or_digit_beside_it(word: str, text_: str) -> None:
    beside = rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"
    assert is_word(word, text_) == (re.search(beside, text_) is not None)


def test_lines_and_documents_of_one_amount_are_read_once_each_not_in_pairs(
    session: Session, sync: LedgerSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 20
    for year in range(2000, 2000 + many):
        vendor_invoice(session, 499, invoice_number=f"INV{year}", invoice_date=date(year, 3, 1))
        entry(session, "2400", -499, line={"reference": f"INV{year}"}, on=date(year, 3, 5))
    session.flush()
    read: list[Any] = []
    looked_at: list[Any] = []
    iterate, evidence = CursorResult.__iter__, matching._evidence

    def count_rows(result: CursorResult[Any]) -> Iterator[Any]:
        for row in iterate(result):
            read.append(row)
            yield row

    def count_pairs(*pair: Any) -> Any:
        looked_at.append(pair)
        return evidence(*pair)

    monkeypatch.setattr(CursorResult, "__iter__", count_rows)
    monkeypatch.setattr(matching, "_evidence", count_pairs)
    assert len(sync.match(session, "acme").certain) == many
    # the lines, and the documents for each of the two roles
    assert len(read) <= 3 * many
    assert len(looked_at) == many


# -- what is certain -----------------------------------------------------------------------------------


def test_two_documents_for_one_line_are_ambiguous(session: Session, sync: LedgerSync) -> None:
    for _ in range(2):
        vendor_invoice(session, 100, invoice_number="8907")
    post_sourceless(session, "2400", -100, "Invoice 8907")
    found = sync.match(session, "acme")
    assert found.certain == ()
    assert [len(proposal.candidates) for proposal in found.ambiguous] == [2]


def test_two_lines_for_one_document_are_ambiguous(session: Session, sync: LedgerSync) -> None:
    vendor_invoice(session, 100, invoice_number="8907")
    for _ in range(2):
        post_sourceless(session, "2400", -100, "Invoice 8907")
    found = sync.match(session, "acme")
    assert found.certain == ()
    assert [len(proposal.candidates) for proposal in found.ambiguous] == [1, 1]


@given(
    invoices=st.lists(st.tuples(st.sampled_from(["101", "102", "103"]), st.integers(1, 2)), max_size=5),
    lines=st.lists(st.tuples(st.sampled_from(["101", "102", "x"]), st.integers(1, 2)), max_size=5),
)
def test_what_is_certain_is_the_only_pair_from_both_ends(
    invoices: list[tuple[str, int]], lines: list[tuple[str, int]], sqlite_books: sessionmaker[Session]
) -> None:
    with sqlite_books() as session:
        sync: LedgerSync = session.info["sync"]
        ids = [vendor_invoice(session, amount, invoice_number=number).id for number, amount in invoices]
        made = [line_id(post_sourceless(session, "2400", -amount, f"pay {word} now")) for word, amount in lines]
        pairs = {
            (m, i)
            for m, line in zip(made, lines, strict=True)
            for i, doc in zip(ids, invoices, strict=True)
            if line == doc
        }
        alone = {
            (m, i)
            for m, i in pairs
            if sum(m == other for other, _ in pairs) == sum(i == other for _, other in pairs) == 1
        }
        found = sync.match(session, "acme")
        assert {(p.general_ledger_line_id, p.candidates[0].document_id) for p in found.certain} == alone
        assert {(p.general_ledger_line_id, c.document_id) for p in found.proposals for c in p.candidates} == pairs
        session.rollback()


@pytest.fixture(scope="module")
def sqlite_books(tmp_path_factory: pytest.TempPathFactory) -> sessionmaker[Session]:
    return sessionmaker(make_sqlite(tmp_path_factory.mktemp("matching") / "books.db"), info={"sync": LedgerSync()})


# -- links ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attached", [True, False])
def test_a_link_writes_the_row_and_its_end_takes_it_away(engine: Engine, attached: bool) -> None:
    sync, factory = LedgerSync(), sessionmaker(engine)
    if attached:
        sync.attach(factory)
    with factory() as session:
        invoice = vendor_invoice(session, 100)
        made = post_sourceless(session, "2400", -100)
        session.commit()
        posted_at = made.posted_at
        sync.link(session, "acme", line_id(made), "vendor_invoice", invoice.id, **WHO)
        session.commit()
        (row,) = session.scalars(select(SupplierLedger))
        assert (row.source_id, row.amount) == (invoice.id, 100)
        assert session.scalars(select(SourceLink)).one().actor == "kari"
        assert sync.verify(session, "acme").account("2400").difference == 0
        session.commit()
        sync.unlink(session, "acme", line_id(made), **WHO)
        session.commit()
        assert session.scalars(select(SupplierLedger)).all() == []
        assert made.posted_at == posted_at


def test_a_linked_payment_settles_its_invoice_and_an_unlinked_one_opens_it(session: Session, sync: LedgerSync) -> None:
    invoice = customer_invoice(session, 100)
    entry(session, "1500", 100, ("customer_invoice", invoice.id))
    made = post_sourceless(session, "1500", -100)
    sync.link(session, "acme", line_id(made), "customer_invoice", invoice.id, **WHO)
    assert [row.status for row in session.scalars(select(CustomerLedger))] == ["paid", "paid"]
    sync.unlink(session, "acme", line_id(made), **WHO)
    assert [row.remaining_amount for row in session.scalars(select(CustomerLedger))] == [Decimal(100)]


def test_a_reversal_of_a_manual_entry_is_proposed_nothing_and_linked_to_nothing(
    session: Session, sync: LedgerSync
) -> None:
    invoice = vendor_invoice(session, 500, invoice_number="8907")
    entry(session, "2400", -500, ("vendor_invoice", invoice.id), on=date(2026, 3, 5))
    twice = post_sourceless(session, "2400", -500, "invoice 8907")
    back = twice.reverse(date(2026, 3, 6), description="invoice 8907")
    session.add(back)
    session.commit()
    found = sync.match(session, "acme")
    assert back.id not in {proposal.general_ledger_id for proposal in found.proposals}
    with pytest.raises(LinkError, match=r"reverses another line.*Link the line that it reverses"):
        sync.link(session, "acme", line_id(back), "vendor_invoice", invoice.id, **WHO)
    # which takes the reversal along
    sync.link(session, "acme", line_id(twice), "vendor_invoice", invoice.id, **WHO)
    session.commit()
    left = session.scalars(select(SupplierLedger.remaining_amount).order_by(SupplierLedger.general_ledger_line_id))
    assert list(left) == [500, 0, 0]


def test_a_link_that_makes_no_sense_is_refused_and_says_why(session: Session, sync: LedgerSync) -> None:
    invoice = vendor_invoice(session, 100)
    foreign = vendor_invoice(session, 100, tenant="other")
    made = post_sourceless(session, "2400", -100)
    line, contra = (each.id for each in made.lines)
    cases = [
        (("acme", line, "vendor_invoice", foreign.id), "is not there"),
        (("other", line, "vendor_invoice", foreign.id), "is not in the books"),
        (("acme", line, "customer_invoice", invoice.id), "supplier ledger"),
        (("acme", contra, "vendor_invoice", invoice.id), "not a control account"),
    ]
    for arguments, said in cases:
        with pytest.raises(LinkError, match=said):
            sync.link(session, *arguments, **WHO)
    with pytest.raises(LinkError, match="has no source link"):
        sync.unlink(session, "acme", line, **WHO)
    sync.link(session, "acme", line, "vendor_invoice", invoice.id, **WHO)
    another = vendor_invoice(session, 100)
    for number, kind in ((another.id, None), (invoice.id, "fee")):
        with pytest.raises(LinkError, match="has a source link already"):
            sync.link(session, "acme", line, "vendor_invoice", number, kind=kind, **WHO)


@pytest.mark.parametrize("day", [date.min, date.max], ids=["first", "last"])
def test_lines_of_the_calendars_ends_have_their_documents_proposed(
    session: Session, sync: LedgerSync, day: date
) -> None:
    invoice = vendor_invoice(session, 100, invoice_number="8907", invoice_date=day)
    entry(session, "2400", 100, description="invoice 8907", on=day)
    session.flush()
    (proposal,) = sync.match(session, "acme").proposals
    assert [candidate.document_id for candidate in proposal.candidates] == [invoice.id]


def test_the_same_link_again_is_the_one_that_is_there(session: Session, sync: LedgerSync) -> None:
    invoice = vendor_invoice(session, 100)
    made = post_sourceless(session, "2400", -100)
    first = sync.link(session, "acme", line_id(made), "vendor_invoice", invoice.id, **WHO)
    session.commit()
    again = sync.link(session, "acme", line_id(made), "vendor_invoice", invoice.id, actor="ola", reason="once more")
    assert again == first
    session.commit()
    assert [link.actor for link in session.scalars(select(SourceLink))] == ["kari"]
    assert session.scalars(select(SupplierLedger)).one().amount == 100
    sync.unlink(session, "acme", line_id(made), **WHO)
    with pytest.raises(LinkError, match="has no source link"):
        sync.unlink(session, "acme", line_id(made), **WHO)
    session.commit()
    assert session.scalars(select(SupplierLedger)).all() == []


@pytest.mark.parametrize("same", [True, False])
def test_two_sessions_that_link_one_line_at_once_make_one_link(server: Engine, sync: LedgerSync, same: bool) -> None:
    factory = sessionmaker(server, expire_on_commit=False)
    with factory.begin() as session:
        invoices = [vendor_invoice(session, 100).id for _ in range(2)]
        line = line_id(post_sourceless(session, "2400", -100))

    def link(session: Session, invoice: int) -> int:
        made: int = sync.link(session, "acme", line, "vendor_invoice", invoice, **WHO).source_id
        return made

    first, second = (opened(factory, "READ COMMITTED") for _ in range(2))
    with first, second, ThreadPoolExecutor(1) as pool:
        link(first, invoices[0])
        other = pool.submit(link, second, invoices[0] if same else invoices[1])
        assert waits(server, second, other)
        first.commit()
        if same:
            assert other.result() == invoices[0]
        else:
            with pytest.raises(LinkError, match="has a source link already"):
                other.result()
        second.commit()
    with factory() as session:
        assert session.scalars(select(SourceLink)).one().source_id == invoices[0]
        assert session.scalars(select(SupplierLedger)).one().source_id == invoices[0]


def test_two_sessions_that_unlink_one_line_at_once_take_one_link_back(server: Engine, sync: LedgerSync) -> None:
    factory = sessionmaker(server, expire_on_commit=False)
    with factory.begin() as session:
        line = line_id(post_sourceless(session, "2400", -100))
        sync.link(session, "acme", line, "vendor_invoice", vendor_invoice(session, 100).id, **WHO)
    first, second = (opened(factory, "READ COMMITTED") for _ in range(2))
    with first, second, ThreadPoolExecutor(1) as pool:
        sync.unlink(first, "acme", line, **WHO)
        other = pool.submit(lambda: sync.unlink(second, "acme", line, **WHO))
        assert waits(server, second, other)
        first.commit()
        with pytest.raises(LinkError, match="has no source link"):
            other.result()
    with factory() as session:
        assert session.scalars(select(SupplierLedger)).all() == []


@pytest.mark.parametrize("attached", [True, False])
def test_what_settles_an_invoice_follows_when_its_line_after_the_cut_over_gets_or_loses_its_link(
    engine: Engine, attached: bool
) -> None:
    sync, factory = LedgerSync(Settings(effective_from=date(2026, 2, 1))), sessionmaker(engine)
    if attached:
        sync.attach(factory)
    with factory() as session:
        invoice = vendor_invoice(session, 100, invoice_date=date(2026, 1, 10), payment_reference="K1")
        payment = vendor_payment(session, payment_reference="K1")
        entry(session, "2400", 100, ("vendor_payment", payment.id))
        made = post_sourceless(session, "2400", -100)
        session.commit()
        sync.link(session, "acme", line_id(made), "vendor_invoice", invoice.id, **WHO)
        assert [row.status for row in session.scalars(select(SupplierLedger))] == ["paid", "paid"]
        assert sync.verify(session, "acme").account("2400").causes == ()
        sync.unlink(session, "acme", line_id(made), **WHO)
        assert session.scalars(select(SupplierLedger)).all() == []
        assert sync.verify(session, "acme").clean


TAKES_PAYMENTS = ControlAccount(accounts=("2400",), ledger="supplier", sources={"vendor_payment": "vendor_payment"})


def test_a_link_is_of_a_source_type_that_the_lines_own_account_takes(engine: Engine) -> None:
    by_ehf = ControlAccount(accounts=("2410",), ledger="supplier", sources={"ehf_invoice": "vendor_invoice"})
    accounts = (ControlAccount(accounts=("2400",), ledger="supplier"), by_ehf)
    sync = LedgerSync(Settings(control_accounts=accounts))
    with Session(engine) as session:
        invoice = vendor_invoice(session, 100)
        made = post_sourceless(session, "2410", -100)
        assert (
            sync.link(session, "acme", line_id(made), "vendor_invoice", invoice.id, **WHO).source_type == "ehf_invoice"
        )
        assert sync.verify(session, "acme").account("2410").difference == 0


def test_what_an_account_does_not_take_is_neither_linked_nor_proposed(engine: Engine) -> None:
    sync = LedgerSync(Settings(control_accounts=(TAKES_PAYMENTS,)))
    with Session(engine) as session:
        invoice = vendor_invoice(session, 100, invoice_number="8907")
        made = post_sourceless(session, "2400", -100, "Invoice 8907")
        with pytest.raises(
            LinkError, match=r"is on 2400, which takes no vendor_invoice\. Name one of vendor_payment, or"
        ):
            sync.link(session, "acme", line_id(made), "vendor_invoice", invoice.id, **WHO)
        found = sync.match(session, "acme")
        assert (found.proposals, found.unmatched) == ((), 1)


# -- the review file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text_", ["=1+1", "+1", "@A1", "-2+3+cmd|' /C calc'!A0", "-x", " =1+1", "\t1"])
def test_no_text_is_a_formula_in_the_file_that_a_spreadsheet_opens(
    session: Session, sync: LedgerSync, tmp_path: Path, text_: str
) -> None:
    vendor_invoice(session, 100, payment_reference="12345674")
    post_sourceless(session, "2400", -100, text_, reference="12345674")
    found = sync.match(session, "acme")
    found = found.model_copy(update={"proposals": (found.proposals[0].model_copy(update={"text": text_}),)})
    write_review(tmp_path / "review.csv", found)
    (row,) = csv.DictReader((tmp_path / "review.csv").read_text("utf-8-sig").splitlines(), delimiter=";")
    assert row["text"] == f"'{text_}"
    assert row["amount"] == str(found.proposals[0].amount)
    assert len(read_review(tmp_path / "review.csv", found)) == 1


def test_what_a_person_marks_in_the_file_is_what_is_read(session: Session, sync: LedgerSync, tmp_path: Path) -> None:
    for amount in (100, 100, 50):
        vendor_invoice(session, amount, invoice_number="8907")
    post_sourceless(session, "2400", -100, "=cmd 8907")
    post_sourceless(session, "2400", -50, "8907")
    found = sync.match(session, "acme")
    file = tmp_path / "review.csv"
    write_review(file, found)
    written = file.read_text(encoding="utf-8-sig")
    assert "'=cmd 8907" in written
    assert [proposal.amount for proposal, _ in read_review(file, found)] == [50]
    head, first, *others = written.splitlines()
    file.write_text("\n".join([head, "yes" + first, *others]), encoding="utf-8-sig")
    assert sorted(proposal.amount for proposal, _ in read_review(file, found)) == [50, 100]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a;b\n1;2\n", "lacks the columns"),
        ("link;line_id;document;document_id\nyes;1;vendor_invoice;1\n", "no proposal"),
        ("link;line_id;document;document_id\nmaybe;1;vendor_invoice;1\n", "'maybe'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_names_the_row(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "review.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=said):
        read_review(file, Matches(tenant_id="acme", proposals=(), unmatched=0))


# -- real books with their links taken away ------------------------------------------------------------


def sources(session: Session) -> dict[int, tuple[str, int]]:
    """The document of every open item's line, and for payments by a document of their own the invoice they settle."""
    found: dict[int, tuple[str, int]] = {}
    for model in (CustomerLedger, SupplierLedger):
        for row in session.scalars(select(model)):
            found[row.general_ledger_line_id] = (row.source_type, row.source_id)
            document, _, named = (row.settlement_key or "").partition(":")
            if row.source_type.endswith("_payment") and document.endswith("_invoice"):
                found[row.general_ledger_line_id] = (document, int(named))
    return found


def take_links_away(session: Session) -> None:
    for table in ("ledger_source_links", "customer_applications", "supplier_applications"):
        session.execute(text(f"DELETE FROM {table}"))
    for table in ("customer_ledger", "supplier_ledger"):
        session.execute(text(f"DELETE FROM {table}"))
    session.execute(text("UPDATE general_ledger SET source_type = NULL, source_id = NULL"))
    session.commit()


def assert_no_wrong_link(session: Session, sync: LedgerSync, tenant: str, was: dict[int, tuple[str, int]]) -> None:
    found = sync.match(session, tenant)
    for proposal in found.certain:
        (candidate,) = proposal.candidates
        truth = was.get(proposal.general_ledger_line_id)
        assert truth is not None, f"voucher {proposal.voucher} had no source, and gets {candidate}"
        if not truth[0].endswith("_payment"):  # a payment that named no invoice cannot contradict one
            assert (candidate.document, candidate.document_id) == truth, proposal
    share = len(found.certain) / len(was)
    print(f"{tenant}: {len(found.certain)} of {len(was)} lines matched for certain ({share:.0%}), "  # noqa: T201
          f"{len(found.ambiguous)} ambiguous")  # fmt: skip
    assert found.certain


def test_no_wrong_link_in_the_tax_administrations_example(engine: Engine) -> None:
    sync, factory = LedgerSync(), sessionmaker(engine)
    import_saft(factory, shared_file("saft/toyen_lekefabrikk_2017.xml"), contra_account="2050")
    sync.backfill(factory, tenant_id="888888888")
    with factory() as session:
        was = sources(session)
        take_links_away(session)
        assert_no_wrong_link(session, sync, "888888888", was)


def name_the_parties(session: Session) -> None:
    """The file has the numbers of the parties; their names stand in the texts of the vouchers that invoice them."""
    names = {
        line["document"]: plan["text"]
        for plan in test_ovningsbolaget.company()["entries"]
        if plan["voucher"].startswith(("4101/", "5101/"))
        for line in plan["lines"]
        if line.get("document")
    }
    for plan in test_ovningsbolaget.company()["documents"]:
        if plan["document"] in names:
            model = Customer if plan["document"].startswith("customer") else Vendor
            party = session.scalars(select(model).where(model.number == plan["party"])).one()
            party.name = names[plan["document"]]
    session.commit()


def test_no_wrong_link_in_the_standard_bodys_sample_company(engine: Engine) -> None:
    test_ovningsbolaget.by_hook(engine)
    with Session(engine) as session:
        was = sources(session)
        name_the_parties(session)
        take_links_away(session)
        assert_no_wrong_link(session, test_ovningsbolaget.SYNC, test_ovningsbolaget.TENANT, was)


def test_a_review_file_that_cannot_be_read_is_refused_by_its_name(
    session: Session, sync: LedgerSync, tmp_path: Path
) -> None:
    vendor_invoice(session, 100, payment_reference="12345674")
    post_sourceless(session, "2400", -100, "M\u00f8ller", reference="12345674")
    found = sync.match(session, "acme")
    file = tmp_path / "review.csv"
    write_review(file, found)
    content = file.read_text("utf-8-sig")
    for broken in (content.encode("cp1252"), (content + '"' + "x" * 200_000 + '"').encode()):
        file.write_bytes(broken)
        with pytest.raises(ConfigurationError, match=r"review\.csv cannot be read: .*Save it as CSV in UTF-8"):
            read_review(file, found)
