"""The hook: each promise of live posting, on both databases.

``assert_synced`` compares every open item with the independent oracle, so a test says only what is its own.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, delete, event, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from ledger_sync import ConfigurationError, ControlAccount, LedgerSync, Settings, signals
from ledger_sync.errors import BulkWriteError, DocumentInUseError, ManualPostingError
from ledger_sync.models import (
    Base,
    CustomerLedger,
    Employee,
    EmployeeLedger,
    ExpenseClaim,
    JournalEntry,
    JournalLine,
    SourceLink,
    SupplierLedger,
    SyncError,
    Vendor,
    VendorInvoice,
)
from tests import books
from tests.books import DAY
from tests.oracle import NORWEGIAN, Control, Rules, assert_synced
from tests.refusing import refusing_new
from tests.watching import hearing, listening, statements

ITEM_TABLES = ("supplier_ledger", "customer_ledger", "employee_ledger")


def items(session: Session, model: Any = SupplierLedger) -> list[Any]:
    """The open items of one ledger, as the database has them now."""
    return list(session.scalars(select(model).order_by(model.id).execution_options(populate_existing=True)))


def item(session: Session, model: Any = SupplierLedger) -> Any:
    found = items(session, model)
    assert len(found) == 1, f"{len(found)} open items"
    return found[0]


def synced(session: Session, count: int, rules: Rules | None = None) -> None:
    """As many open items as that in all ledgers, and each as the oracle has it."""
    session.flush()
    assert_synced(session.connection(), rules)
    tables = " UNION ALL ".join(f"SELECT id FROM {table}" for table in ITEM_TABLES)
    assert session.scalar(text(f"SELECT COUNT(*) FROM ({tables}) AS every_item")) == count


def reason(sync: LedgerSync, session: Session, account: str = "2400", tenant: str = "acme") -> list[str]:
    """Why the lines of an account have no open item, as the proof says it."""
    return [cause.name for cause in sync.verify(session, tenant).account(account).causes]


def claim(session: Session, tenant: str = "acme") -> ExpenseClaim:
    employee = Employee(tenant_id=tenant, number="E1", name="Kari")
    session.add(employee)
    session.flush()
    made = ExpenseClaim(tenant_id=tenant, employee_id=employee.id, claim_number="R1", claim_date=DAY, amount=100)
    session.add(made)
    session.flush()
    return made


def broken(engine: Engine, table: str = "supplier_ledger") -> contextlib.AbstractContextManager[None]:
    """The database refuses every row of a table while the block runs."""
    return refusing_new(engine, table, "disk on fire")


@pytest.fixture
def heard(sync: LedgerSync) -> Iterator[list[tuple[str, Any]]]:
    """What was sent after a commit: names with their one argument."""
    said: list[tuple[str, Any]] = []
    with hearing(sync, lambda name, about: said.append((name, about))):
        yield said


def names(heard: list[tuple[str, Any]]) -> list[str]:
    return [name for name, _ in heard]


# -- the row is there when … -------------------------------------------------------------------------------


@pytest.mark.parametrize("source_type", ["vendor_invoice", "ehf_invoice"])
def test_a_posted_entry_with_its_lines_has_its_row_in_the_same_transaction(session: Session, source_type: str) -> None:
    invoice = books.vendor_invoice(session, 125, payment_reference="K1")
    entry = books.entry(session, signed=-125, source=(source_type, invoice.id))
    session.flush()
    row = item(session)
    assert (row.kind, row.amount, row.supplier_id) == ("invoice", Decimal(125), invoice.vendor_id)
    assert (row.general_ledger_id, row.general_ledger_line_id) == (entry.id, entry.lines[0].id)
    assert (row.invoice_number, row.invoice_date, row.due_date) == (
        invoice.invoice_number,
        invoice.invoice_date,
        invoice.due_date,
    )
    assert (row.source_type, row.source_id, row.run_id) == (source_type, invoice.id, None)
    synced(session, 1)
    session.commit()
    synced(session, 1)


def test_a_customer_invoice_is_owed_in_debit(session: Session) -> None:
    invoice = books.customer_invoice(session)
    books.entry(session, "1500", 100, ("customer_invoice", invoice.id), contra="3000")
    session.commit()
    assert (item(session, CustomerLedger).amount, item(session, CustomerLedger).kind) == (100, "invoice")
    synced(session, 1)


def test_an_expense_claim_and_its_payout_are_in_the_employee_ledger(session: Session) -> None:
    made = claim(session)
    books.entry(session, "2910", -100, ("expense_claim", made.id), contra="7140")
    books.entry(session, "2910", 100, ("expense_claim", made.id), contra="1920")
    session.commit()
    rows = items(session, EmployeeLedger)
    assert [(row.kind, row.amount) for row in rows] == [("expense", 100), ("payment", -100)]
    assert {row.settlement_key for row in rows} == {f"expense_claim:{made.id}"}
    synced(session, 2)


def test_a_payment_has_a_negative_row_that_names_the_invoice_it_refers_to(session: Session) -> None:
    invoice = books.vendor_invoice(session, payment_reference="0042 1")
    payment = books.vendor_payment(session, payment_reference=" 0042\u00a01\t")
    books.entry(session, "2400", 100, ("vendor_payment", payment.id), contra="1920")
    session.commit()
    row = item(session)
    assert (row.kind, row.amount, row.settlement_key) == ("payment", -100, f"vendor_invoice:{invoice.id}")
    synced(session, 1)


def test_one_entry_may_pay_many_invoices_by_links(session: Session) -> None:
    invoices = [books.vendor_invoice(session, 50) for _ in range(3)]
    entry = JournalEntry(tenant_id="acme", voucher_number="bank", entry_date=DAY)
    for invoice in invoices:
        line = JournalLine(account_number="2400", debit=50)
        line.link = SourceLink(source_type="vendor_invoice", source_id=invoice.id)
        entry.lines.append(line)
    entry.lines.append(JournalLine(account_number="1920", credit=150))
    entry.post()
    session.add(entry)
    session.commit()
    assert {row.settlement_key for row in items(session)} == {f"vendor_invoice:{i.id}" for i in invoices}
    synced(session, 3)


def test_a_credit_note_has_a_negative_row_about_the_invoice_it_credits(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    note = books.vendor_invoice(session, 40, kind="credit_note", credits_id=invoice.id)
    books.entry(session, "2400", 40, ("vendor_invoice", note.id))
    session.commit()
    row = item(session)
    assert (row.kind, row.amount, row.settlement_key) == ("credit_note", -40, f"vendor_invoice:{invoice.id}")
    synced(session, 1)


def test_a_draft_has_no_row_until_it_is_posted(sync: LedgerSync, session: Session) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session, source=("vendor_invoice", invoice.id), post=False)
    session.commit()
    synced(session, 0)
    entry.post()
    session.commit()
    synced(session, 1)


def test_lines_may_come_in_a_later_flush_than_their_entry(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    entry = JournalEntry(
        tenant_id="acme",
        voucher_number="1",
        entry_date=DAY,
        status="posted",
        source_type="vendor_invoice",
        source_id=invoice.id,
    )
    session.add(entry)
    session.flush()
    session.add(JournalLine(general_ledger_id=entry.id, line_number=1, account_number="2400", credit=100))
    session.flush()
    synced(session, 1)
    entry.lines.append(JournalLine(account_number="2400", credit=25))
    session.commit()
    assert [row.amount for row in items(session)] == [100, 25]
    synced(session, 2)


def test_the_source_of_a_draft_may_be_set_later(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session, post=False)
    session.commit()
    entry.source_type, entry.source_id = "vendor_invoice", invoice.id
    session.commit()
    synced(session, 0)
    entry.post()
    session.commit()
    synced(session, 1)


def test_the_source_may_be_set_until_the_posting_transaction_commits(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session)
    session.flush()
    synced(session, 0)
    entry.source_type, entry.source_id = "vendor_invoice", invoice.id
    session.flush()
    synced(session, 1)
    entry.source_type, entry.source_id = None, None
    session.commit()
    synced(session, 0)


def test_a_link_that_is_set_afterwards_brings_the_row(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session)
    session.commit()
    entry.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=invoice.id, actor="kari")
    session.commit()
    synced(session, 1)


def test_a_link_by_key_alone_brings_the_row(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session)
    session.commit()
    session.add(SourceLink(line_id=entry.lines[0].id, source_type="vendor_invoice", source_id=invoice.id))
    session.commit()
    synced(session, 1)


def test_a_link_beats_the_source_of_its_entry(session: Session) -> None:
    one, other = books.vendor_invoice(session), books.vendor_invoice(session, party="V2")
    entry = books.entry(session, source=("vendor_invoice", one.id))
    session.commit()
    entry.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=other.id)
    session.commit()
    assert (item(session).source_id, item(session).supplier_id) == (other.id, other.vendor_id)
    synced(session, 1)


def test_a_link_that_changes_moves_the_row(session: Session) -> None:
    one, other = books.vendor_invoice(session), books.vendor_invoice(session, party="V2")
    entry = books.entry(session)
    entry.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=one.id)
    session.commit()
    entry.lines[0].link.source_id = other.id
    session.commit()
    assert item(session).supplier_id == other.vendor_id
    synced(session, 1)


@pytest.mark.parametrize("how", ["none", "delete"])
def test_a_link_that_goes_away_takes_the_row_along(session: Session, how: str) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session)
    entry.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=invoice.id)
    session.commit()
    synced(session, 1)
    if how == "none":
        entry.lines[0].link = None
    else:
        session.delete(entry.lines[0].link)
    session.commit()
    synced(session, 0)


@pytest.mark.parametrize("kind", ["credit_note", "write_off", "rounding", "exchange", "fee"])
def test_a_link_says_what_a_line_against_an_invoice_is(session: Session, kind: str) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session, "2400", 3)
    entry.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=invoice.id, kind=kind)
    session.commit()
    assert item(session).kind == kind
    synced(session, 1)


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "expired"])
@pytest.mark.parametrize(
    "change",
    [
        {"invoice_number": "other"},
        {"invoice_date": date(2026, 2, 1)},
        {"due_date": None},
        {"payment_reference": "other"},
        {"kind": "credit_note"},
    ],
    ids=str,
)
def test_a_document_that_changes_changes_its_row(session: Session, change: dict[str, Any], loaded: bool) -> None:
    invoice = books.vendor_invoice(session, payment_reference="K1")
    payment = books.vendor_payment(session)
    books.entry(session, source=("vendor_invoice", invoice.id))
    books.entry(session, "2400", 100, ("vendor_payment", payment.id), line={"reference": "K1"})
    session.commit()
    if loaded:
        session.refresh(invoice)
    for name, value in change.items():
        setattr(invoice, name, value)
    session.commit()
    synced(session, 2)


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "expired"])
@pytest.mark.parametrize("name", ["invoice_number", "payment_reference", "vendor_id"])
@pytest.mark.parametrize("on_line", [True, False], ids=["line", "payment"])
def test_payments_that_named_a_document_no_longer_do_when_it_changes(
    session: Session, name: str, loaded: bool, on_line: bool
) -> None:
    given = {"invoice_number": "77", "payment_reference": None if name == "invoice_number" else "77"}
    invoice = books.vendor_invoice(session, **given)
    other_vendor = books.vendor(session, number="V2").id
    payment = books.vendor_payment(session, payment_reference=None if on_line else "77")
    line = {"reference": "77"} if on_line else {}
    books.entry(session, "2400", 100, ("vendor_payment", payment.id), line=line)
    session.commit()
    assert item(session).settlement_key == f"vendor_invoice:{invoice.id}"
    session.commit()
    if loaded:
        session.refresh(invoice)
    if name == "payment_reference":
        invoice.invoice_number = "x"
    setattr(invoice, name, other_vendor if name == "vendor_id" else "changed")
    session.commit()
    assert item(session).settlement_key == "ref:77"
    synced(session, 1)


def test_a_payment_meets_a_document_that_comes_to_bear_its_reference(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    payment = books.vendor_payment(session, payment_reference="K9")
    books.entry(session, "2400", 100, ("vendor_payment", payment.id))
    session.commit()
    assert item(session).settlement_key == "ref:K9"
    invoice.payment_reference = "k 9"
    session.commit()
    assert item(session).settlement_key == f"vendor_invoice:{invoice.id}"
    another = books.vendor_invoice(session, invoice_number="another", payment_reference="K9")
    session.commit()
    assert item(session).settlement_key == "ref:K9", "two candidates are no match"
    session.delete(another)
    session.commit()
    assert item(session).settlement_key == f"vendor_invoice:{invoice.id}"
    synced(session, 1)


def test_a_reference_is_compared_alike_on_every_database(session: Session) -> None:
    payment = books.vendor_payment(session, payment_reference="ærø ß 1")
    books.entry(session, "2400", 100, ("vendor_payment", payment.id))
    session.commit()
    assert item(session).settlement_key == "ref:æRøß1"
    synced(session, 1)


@pytest.mark.parametrize("name", ["payment_reference", "payment_date"])
def test_a_payment_that_changes_changes_its_row(session: Session, name: str) -> None:
    payment = books.vendor_payment(session, payment_reference="K1")
    books.entry(session, "2400", 100, ("vendor_payment", payment.id))
    session.commit()
    setattr(payment, name, "K2" if name == "payment_reference" else date(2026, 5, 1))
    session.commit()
    assert item(session).settlement_key == ("ref:K2" if name == "payment_reference" else "ref:K1")
    synced(session, 1)


def test_the_due_date_of_a_line_beats_that_of_the_document(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session, source=("vendor_invoice", invoice.id), line={"due_date": date(2027, 1, 1)})
    session.commit()
    invoice.due_date = date(2026, 9, 9)
    session.commit()
    assert item(session).due_date == date(2027, 1, 1)
    assert entry.lines[0].due_date == date(2027, 1, 1)
    synced(session, 1)


def test_a_reversal_has_a_row_that_takes_the_other_away_in_sum(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session, source=("vendor_invoice", invoice.id))
    session.commit()
    session.add(entry.reverse(date(2026, 3, 5)))
    session.commit()
    rows = items(session)
    assert [(row.kind, row.amount) for row in rows] == [("invoice", 100), ("reversal", -100)]
    assert len({(row.supplier_id, row.settlement_key, row.source_id) for row in rows}) == 1
    synced(session, 2)


def test_a_reversal_follows_when_the_line_that_it_reverses_gets_a_link(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session)
    session.commit()
    session.add(entry.reverse(DAY))
    session.commit()
    synced(session, 0)
    entry.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=invoice.id)
    session.commit()
    synced(session, 2)
    entry.lines[0].link = None
    session.commit()
    synced(session, 0)


@pytest.mark.parametrize("change", ["source", "deleted", "orphaned", "number", "amount"])
def test_a_reversal_follows_what_still_changes_in_the_entry_that_it_reverses(session: Session, change: str) -> None:
    one, other = books.vendor_invoice(session), books.vendor_invoice(session, party="V2")
    entry = books.entry(session, source=("vendor_invoice", one.id))
    session.flush()
    session.add(entry.reverse(DAY))
    session.flush()
    synced(session, 2)
    if change == "source":
        entry.source_id = other.id
    elif change == "deleted":
        session.delete(entry.lines[0])
    elif change == "orphaned":
        entry.lines.remove(entry.lines[0])
    elif change == "number":
        entry.lines[0].line_number = 9
    else:
        entry.lines[0].credit = 7
    session.commit()
    synced(session, 1 if change in ("deleted", "orphaned") else 2)


def test_a_document_may_come_after_its_entry(sync: LedgerSync, session: Session) -> None:
    vendor = books.vendor(session)
    books.entry(session, source=("vendor_invoice", 4711))
    session.commit()
    assert reason(sync, session) == ["source_not_found"]
    session.add(
        VendorInvoice(id=4711, tenant_id="acme", vendor_id=vendor.id, invoice_number="1", invoice_date=DAY, amount=100)
    )
    session.commit()
    synced(session, 1)


def test_entry_lines_links_and_documents_may_share_one_flush(session: Session) -> None:
    vendor = books.vendor(session)
    session.commit()
    session.add(
        VendorInvoice(id=12, tenant_id="acme", vendor_id=vendor.id, invoice_number="1", invoice_date=DAY, amount=1)
    )
    entry = books.entry(session, signed=-1)
    entry.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=12)
    session.commit()
    synced(session, 1)


def test_changes_within_the_posting_transaction_are_followed(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session, source=("vendor_invoice", invoice.id))
    session.flush()
    entry.lines[0].credit = 70
    entry.entry_date = date(2026, 2, 2)
    session.flush()
    assert (item(session).amount, item(session).entry_date) == (70, date(2026, 2, 2))
    synced(session, 1)
    entry.lines[0].account_number = "4100"
    session.flush()
    synced(session, 0)
    entry.lines[0].account_number = "2400"
    session.flush()
    synced(session, 1)
    entry.status = "draft"
    session.flush()
    synced(session, 0)
    session.delete(entry)
    session.commit()
    synced(session, 0)


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "expired"])
def test_a_line_that_changes_its_account_leaves_its_ledger(session: Session, loaded: bool) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session, source=("vendor_invoice", invoice.id))
    session.flush()
    line = entry.lines[0]
    if not loaded:
        session.expire(line)
    line.account_number = "1500"
    session.commit()
    synced(session, 0)


@pytest.mark.parametrize("how", ["delete", "orphan"])
def test_a_line_that_goes_takes_its_row_along(session: Session, how: str) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session, source=("vendor_invoice", invoice.id))
    session.flush()
    if how == "delete":
        session.delete(entry.lines[0])
    else:
        entry.lines.remove(entry.lines[0])
    session.commit()
    synced(session, 0)


def test_a_line_that_moves_to_another_entry_moves_its_row(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    draft = books.entry(session, source=("vendor_invoice", invoice.id), post=False)
    entry = books.entry(session)
    session.flush()
    draft.lines[0].line_number = 9
    draft.lines[0].general_ledger_id = entry.id
    session.flush()
    entry.source_type, entry.source_id = "vendor_invoice", invoice.id
    session.commit()
    synced(session, 2)


def test_loaded_open_items_are_refreshed_after_a_rewrite(session: Session) -> None:
    invoice = books.vendor_invoice(session, invoice_number="old")
    books.entry(session, source=("vendor_invoice", invoice.id))
    session.flush()
    loaded = session.scalars(select(SupplierLedger)).one()
    assert loaded.invoice_number == "old"
    invoice.invoice_number = "new"
    session.flush()
    assert loaded.invoice_number == "new"


# -- … and is not there when -------------------------------------------------------------------------------


def test_a_manual_entry_has_no_row(sync: LedgerSync, session: Session) -> None:
    books.entry(session)
    session.commit()
    synced(session, 0)
    assert reason(sync, session) == ["manual"]


@pytest.mark.parametrize("source_type", ["payroll", "customer_invoice", "expense_claim", "VENDOR_INVOICE", ""])
def test_an_unsupported_source_has_no_row(sync: LedgerSync, session: Session, source_type: str) -> None:
    books.entry(session, source=(source_type, books.customer_invoice(session).id))
    session.commit()
    synced(session, 0)
    assert reason(sync, session) == ["unsupported_source"]


def test_a_missing_source_has_no_row(sync: LedgerSync, session: Session) -> None:
    books.entry(session, source=("vendor_invoice", 999))
    session.commit()
    synced(session, 0)
    assert reason(sync, session) == ["source_not_found"]


def test_another_tenants_source_has_no_row_and_looks_like_a_missing_one(
    sync: LedgerSync, session: Session, heard: list[tuple[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    theirs = books.vendor_invoice(session, tenant="theirs", invoice_number="SECRET", payment_reference="SECRET")
    theirs_id = theirs.id
    session.commit()
    told = []
    for source_id in (theirs_id, 999):
        heard.clear()
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="ledger_sync"):
            entry = books.entry(session, source=("vendor_invoice", source_id))
            session.commit()
        line = {k: v for k, v in heard[0][1].items() if k not in ("voucher", "general_ledger_id")}
        line.pop("general_ledger_line_id")
        assert names(heard) == ["line-skipped"]
        said = caplog.text.replace(entry.voucher, "…")
        assert "theirs" not in said
        assert "SECRET" not in said
        told.append((line, [record.outcome for record in caplog.records]))
    assert told[0] == told[1]
    assert told[0][0]["reason"] == "source_not_found"
    synced(session, 0)


def test_a_payment_does_not_match_another_tenants_or_partys_document(session: Session) -> None:
    books.vendor_invoice(session, tenant="theirs", payment_reference="K1")
    books.vendor_invoice(session, party="V2", payment_reference="K1")
    payment = books.vendor_payment(session, payment_reference="K1")
    books.entry(session, "2400", 100, ("vendor_payment", payment.id))
    session.commit()
    assert item(session).settlement_key == "ref:K1"
    synced(session, 1)


def test_a_zero_amount_has_no_row(sync: LedgerSync, session: Session) -> None:
    invoice = books.vendor_invoice(session)
    books.entry(session, signed=0, source=("vendor_invoice", invoice.id))
    session.commit()
    synced(session, 0)
    assert reason(sync, session) == ["zero_amount"]


def test_an_account_that_only_looks_like_a_control_account_has_no_row(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    for account in ("24000", "240", "2401"):
        books.entry(session, account, source=("vendor_invoice", invoice.id))
    session.commit()
    synced(session, 0)


# -- other settings ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def attached(engine: Engine, settings: Settings) -> Iterator[tuple[LedgerSync, Session]]:
    sync = LedgerSync(settings)
    factory = sessionmaker(engine)
    sync.attach(factory)
    with factory() as session:
        yield sync, session


def test_ranges_and_single_accounts_with_their_own_sides_and_sources(engine: Engine) -> None:
    bills = {"bill": "vendor_invoice"}
    settings = Settings(
        control_accounts=(
            ControlAccount(accounts=("2400-2409", "2450"), ledger="supplier"),
            ControlAccount(accounts=("1480",), ledger="supplier", side="debit", sources=bills),
        )
    )
    rules = Rules(
        (
            Control("supplier", "credit", (("2400", "2409"), "2450"), NORWEGIAN[0].sources),
            Control("supplier", "debit", ("1480",), bills),
        )
    )
    with attached(engine, settings) as (_, session):
        invoice = books.vendor_invoice(session)
        for account in ("2400", "2409", "2450", "2410", "24001", "1480"):
            books.entry(session, account, -10, ("vendor_invoice", invoice.id))
            books.entry(session, account, -10, ("bill", invoice.id))
        books.entry(session, "1500", 10, ("customer_invoice", books.customer_invoice(session).id))
        session.commit()
        assert [(row.account_number, row.amount) for row in items(session)] == [
            ("2400", 10),
            ("2409", 10),
            ("2450", 10),
            ("1480", -10),
        ]
        synced(session, 4, rules)


CUT_OVER = date(2026, 2, 1)
BEFORE = date(2026, 1, 31)


def test_entries_before_the_cut_over_are_left_alone(engine: Engine) -> None:
    with attached(engine, Settings(effective_from=CUT_OVER)) as (sync, session):
        invoice = books.vendor_invoice(session)
        books.entry(session, source=("vendor_invoice", invoice.id), on=BEFORE)
        session.commit()
        synced(session, 0, Rules(cut_over=CUT_OVER))
        assert reason(sync, session) == ["before_cutover"]
        other = books.vendor_invoice(session)
        books.entry(session, source=("vendor_invoice", other.id), on=CUT_OVER)
        session.commit()
        synced(session, 1, Rules(cut_over=CUT_OVER))


def test_the_cut_over_is_per_tenant(engine: Engine) -> None:
    days = {"acme": CUT_OVER}
    with attached(engine, Settings(effective_from=days)) as (_, session):
        for tenant in ("acme", "beta"):
            invoice = books.vendor_invoice(session, tenant=tenant)
            books.entry(session, source=("vendor_invoice", invoice.id), tenant=tenant, on=BEFORE)
        session.commit()
        assert item(session).tenant_id == "beta"
        synced(session, 1, Rules(cut_over=days))


def test_the_cut_over_may_be_by_the_moment_of_posting(engine: Engine) -> None:
    settings = Settings(effective_from=CUT_OVER, effective_by="posted_at")
    with attached(engine, settings) as (_, session):
        invoice = books.vendor_invoice(session)
        for second in (datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)):
            entry = books.entry(session, source=("vendor_invoice", invoice.id), on=BEFORE, post=False)
            entry.post(second)
            session.flush()
        session.commit()
        synced(session, 1, Rules(cut_over=CUT_OVER, basis="posted_at"))


def test_what_settles_a_document_from_before_the_cut_over_leaves_no_phantom_credit(engine: Engine) -> None:
    with attached(engine, Settings(effective_from=CUT_OVER)) as (sync, session):
        invoice = books.vendor_invoice(session, payment_reference="K1")
        entry = books.entry(session, source=("vendor_invoice", invoice.id), on=BEFORE)
        session.commit()
        payment = books.vendor_payment(session, payment_reference="K1")
        note = books.vendor_invoice(session, kind="credit_note", credits_id=invoice.id)
        books.entry(session, "2400", 60, ("vendor_payment", payment.id))
        books.entry(session, "2400", 30, ("vendor_invoice", note.id))
        books.entry(session, "2400", 10, ("vendor_invoice", invoice.id))
        session.add(entry.reverse(DAY))
        session.commit()
        synced(session, 0, Rules(cut_over=CUT_OVER))
        assert reason(sync, session) == ["before_cutover"]


def test_the_payout_of_a_claim_from_before_the_cut_over_leaves_no_phantom_credit_either(engine: Engine) -> None:
    with attached(engine, Settings(effective_from=CUT_OVER)) as (sync, session):
        old = claim(session)
        whose = {"tenant_id": "acme", "employee_id": old.employee_id}
        new = ExpenseClaim(**whose, claim_number="R2", claim_date=DAY, amount=100)
        session.add(new)
        session.flush()
        books.entry(session, "2910", -100, ("expense_claim", old.id), on=BEFORE)
        accrued = books.entry(session, "2910", -100, ("expense_claim", new.id))
        for expensed in (old, new):
            books.entry(session, "2910", 60, ("expense_claim", expensed.id))
        session.commit()
        synced(session, 2, Rules(cut_over=CUT_OVER))
        proof = sync.verify(session, "acme")
        (account,) = [account for account in proof.accounts if account.account_number == "2910"]
        assert (proof.clean, account.subledger_balance) == (True, Decimal(40))
        # the document is as old as its own lines: with those the payout comes and goes
        session.add(accrued.reverse(DAY))
        session.commit()
        synced(session, 3, Rules(cut_over=CUT_OVER))


def test_an_invoice_dated_before_the_cut_over_and_posted_after_it_is_a_row(engine: Engine) -> None:
    with attached(engine, Settings(effective_from=CUT_OVER)) as (_, session):
        invoice = books.vendor_invoice(session, invoice_date=BEFORE)
        payment = books.vendor_payment(session)
        books.entry(session, "2400", 100, ("vendor_payment", payment.id), line={"reference": invoice.invoice_number})
        session.commit()
        synced(session, 0, Rules(cut_over=CUT_OVER))
        books.entry(session, source=("vendor_invoice", invoice.id))
        session.commit()
        synced(session, 2, Rules(cut_over=CUT_OVER))


def test_a_free_credit_note_dated_before_the_cut_over_and_posted_after_it_is_a_row(engine: Engine) -> None:
    with attached(engine, Settings(effective_from=CUT_OVER)) as (_, session):
        note = books.vendor_invoice(session, kind="credit_note", invoice_date=BEFORE)
        books.entry(session, "2400", 100, ("vendor_invoice", note.id))
        session.commit()
        synced(session, 1, Rules(cut_over=CUT_OVER))


@pytest.mark.parametrize(
    "change",
    ["posted", "linked", "unlinked", "linked_elsewhere", "link_moved", "line_moved", "deleted", "posted_unloaded"],
)
def test_what_settles_an_old_invoice_follows_the_links_of_lines_that_nobody_has_loaded(
    engine: Engine, change: str
) -> None:
    """An invoice dated before the cut-over is new when a line of its own is posted after it, and its payment with it.

    Whatever brings such a line or takes it away: no session holds the line, the link and the entry at that moment.
    """
    rules = Rules(cut_over=CUT_OVER)
    with attached(engine, Settings(effective_from=CUT_OVER)) as (_, session):
        old, other = (books.vendor_invoice(session, invoice_date=BEFORE, payment_reference=f"K{n}") for n in (1, 2))
        payment = books.vendor_payment(session, payment_reference="K1")
        books.entry(session, "2400", 100, ("vendor_payment", payment.id))
        of_entry = {"unlinked": None, "posted": None, "posted_unloaded": None, "link_moved": None}
        source = ("vendor_invoice", other.id if change == "linked" else old.id)
        entry = books.entry(session, source=of_entry.get(change, source), post=not change.startswith("posted"))
        if source and change in of_entry:
            entry.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=old.id)
        away = books.entry(session, "4100", 100, contra="1920")
        session.flush()
        line_id, entry_id, away_id, other_id = entry.lines[0].id, entry.id, away.lines[0].id, other.id
        has_row = change in {"unlinked", "linked_elsewhere", "link_moved", "line_moved", "deleted"}
        synced(session, 2 if has_row else 1 if change == "linked" else 0, rules)
        session.expunge_all()
        if change.startswith("posted"):
            draft = session.get_one(JournalEntry, entry_id)
            if change == "posted_unloaded":
                session.expire(draft, ["lines"])
            draft.post()
        elif change == "linked":
            session.add(SourceLink(line_id=line_id, source_type="vendor_invoice", source_id=old.id))
        elif change == "unlinked":
            session.delete(session.scalars(select(SourceLink).where(SourceLink.line_id == line_id)).one())
        elif change == "linked_elsewhere":
            session.add(SourceLink(line_id=line_id, source_type="vendor_invoice", source_id=other_id))
        elif change == "link_moved":
            session.scalars(select(SourceLink)).one().line_id = away_id
        elif change == "line_moved":
            session.get_one(JournalLine, line_id).account_number = "4100"
        elif change == "deleted":
            session.delete(session.get_one(JournalEntry, entry_id))
        session.flush()
        left = {"posted": 2, "posted_unloaded": 2, "linked": 2, "linked_elsewhere": 1}
        synced(session, left.get(change, 0), rules)


@pytest.mark.parametrize("change", ["source", "line", "deleted_line", "account", "draft", "link"])
def test_what_settles_an_old_invoice_follows_when_its_posting_is_taken_back(engine: Engine, change: str) -> None:
    rules = Rules(cut_over=CUT_OVER)
    with attached(engine, Settings(effective_from=CUT_OVER)) as (_, session):
        invoice = books.vendor_invoice(session, invoice_date=BEFORE, payment_reference="K1")
        payment = books.vendor_payment(session, payment_reference="K1")
        books.entry(session, "2400", 100, ("vendor_payment", payment.id))
        source = ("vendor_invoice", invoice.id)
        entry = books.entry(session, source=None if change == "link" else source)
        if change == "link":
            entry.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=invoice.id)
        session.flush()
        synced(session, 2, rules)
        if change == "source":
            entry.source_type, entry.source_id = None, None
        elif change == "line":
            entry.lines.remove(entry.lines[0])
        elif change == "deleted_line":
            session.delete(entry.lines[0])
        elif change == "account":
            entry.lines[0].account_number = "4100"
        elif change == "draft":
            entry.status = "draft"
        else:
            entry.lines[0].link = None
        session.commit()
        synced(session, 0, rules)


def test_a_manual_posting_is_refused_where_it_is_blocked(engine: Engine) -> None:
    with attached(engine, Settings(manual="block")) as (_, session):
        books.entry(session, voucher_number="77", post=False)
        books.entry(session, "1920")
        session.commit()
        books.entry(session, voucher_number="78")
        with pytest.raises(ManualPostingError) as caught:
            session.flush()
        assert str(caught.value) == (
            "Voucher 78/2026 posts line 1 to control account 2400 without a source. "
            "Name the document it comes from, or post it to another account."
        )
        assert caught.value.voucher == "78/2026"
        session.rollback()
        assert session.scalar(select(func.count()).select_from(JournalEntry)) == 2


@pytest.mark.parametrize("what", ["named", "reversed"])
def test_a_manual_posting_from_before_it_was_blocked_stands_in_nobodys_way(engine: Engine, what: str) -> None:
    with Session(engine) as history:
        manual = books.entry(history, line={"reference": "N7"})
        history.commit()
        manual_id = manual.id
    with attached(engine, Settings(manual="block")) as (_, session):
        if what == "named":
            books.vendor_invoice(session, invoice_number="N7")
        else:
            session.add(session.get_one(JournalEntry, manual_id).reverse(DAY))
        session.commit()
        synced(session, 0)


def test_a_line_without_an_item_is_told_once_not_with_each_document_that_it_names(
    session: Session, heard: list[tuple[str, Any]]
) -> None:
    books.entry(session, line={"reference": "N7"})
    session.commit()
    invoice = books.vendor_invoice(session, invoice_number="N7")
    session.commit()
    invoice.due_date = date(2027, 1, 1)
    session.commit()
    assert names(heard) == ["line-skipped"]


def test_blocking_is_not_softened_by_recording_errors(engine: Engine) -> None:
    with attached(engine, Settings(manual="block", on_error="record")) as (_, session):
        books.entry(session)
        with pytest.raises(ManualPostingError):
            session.commit()


# -- failures ----------------------------------------------------------------------------------------------


def test_a_failure_fails_the_flush_and_leaves_nothing_half_posted(engine: Engine, session: Session) -> None:
    invoice = books.vendor_invoice(session)
    session.commit()
    with broken(engine):
        books.entry(session, source=("vendor_invoice", invoice.id))
        with pytest.raises(DBAPIError, match="disk on fire") as caught:
            session.commit()
        assert any("Ledger sync" in note for note in caught.value.__notes__)
        session.rollback()
        for model in (JournalEntry, JournalLine, SupplierLedger, SyncError):
            assert session.scalar(select(func.count()).select_from(model)) == 0
        session.rollback()
    books.entry(session, source=("vendor_invoice", invoice.id))
    session.commit()
    synced(session, 1)


def test_a_failure_that_is_recorded_keeps_the_posting_until_a_backfill_mends_it(engine: Engine) -> None:
    said: list[Any] = []

    def hear(sender: object, failure: Any) -> None:
        said.append(failure)

    with attached(engine, Settings(on_error="record")) as (sync, session):
        invoice = books.vendor_invoice(session)
        session.commit()
        with signals.sync_failed.connected_to(hear, sender=sync), broken(engine):
            entry = books.entry(session, source=("vendor_invoice", invoice.id))
            session.flush()
            assert said == []
            session.commit()
            entry_id = entry.id
            session.commit()
        assert [(f["tenant_id"], f["ledger"], f["general_ledger_id"]) for f in said] == [("acme", "supplier", entry_id)]
        error = session.scalars(select(SyncError)).one()
        assert (error.tenant_id, error.ledger, error.general_ledger_id) == ("acme", "supplier", entry_id)
        assert "disk on fire" in error.message
        assert error.resolved_at is None
        assert items(session) == []
        assert reason(sync, session) == ["missing"]
        session.rollback()
        assert sync.backfill(sessionmaker(engine), tenant_id="acme").synced == 1
        synced(session, 1)
        session.refresh(error)
        assert error.resolved_at is not None


def test_a_recorded_failure_of_one_ledger_leaves_the_other_alone(engine: Engine) -> None:
    with attached(engine, Settings(on_error="record")) as (_, session):
        vendors, customers = books.vendor_invoice(session), books.customer_invoice(session)
        session.commit()
        with broken(engine):
            books.entry(session, source=("vendor_invoice", vendors.id))
            books.entry(session, "1500", 100, ("customer_invoice", customers.id))
            session.commit()
            assert len(items(session, CustomerLedger)) == 1
            assert len(items(session, SupplierLedger)) == 0
            session.commit()


@contextlib.contextmanager
def failing(engine: Engine, *words: str) -> Iterator[None]:
    """Statements with all of these words fail before they are executed."""

    def fail(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if all(word in statement for word in words):
            raise RuntimeError("disk on fire")

    with listening(engine, "before_cursor_execute", fail):
        yield


def noted(sync: LedgerSync, session: Session) -> list[tuple[Any, ...]]:
    """What is recorded in the tenant's books."""
    session.commit()
    found = sync.failures(session, "acme")
    session.commit()
    return [(each.general_ledger_id, each.source_type, each.source_id) for each in found]


@pytest.mark.parametrize("how", ["unlinked", "account", "deleted"])
def test_a_row_that_could_not_be_taken_away_is_recorded_for_its_entry(engine: Engine, how: str) -> None:
    with attached(engine, Settings(on_error="record")) as (sync, session):
        invoice = books.vendor_invoice(session)
        entry = books.entry(session, source=None if how == "unlinked" else ("vendor_invoice", invoice.id))
        if how == "unlinked":
            entry.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=invoice.id)
        session.flush()
        entry_id = entry.id
        if how == "unlinked":
            entry.lines[0].link = None
        elif how == "account":
            entry.lines[0].account_number = "4100"
        else:
            session.delete(entry)
        said: list[tuple[str, Any]] = []
        with (
            hearing(sync, lambda name, about: said.append((name, about))),
            failing(engine, "DELETE", "supplier_ledger"),
        ):
            assert noted(sync, session) == [(entry_id, None, None)]
        assert [about["general_ledger_id"] for name, about in said if name == "sync-failed"] == [entry_id]
        assert len(items(session)) == 1


@pytest.mark.parametrize("what", ["lock", "lookup"])
def test_a_document_whose_lines_could_not_be_brought_up_to_date_is_recorded(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with attached(engine, Settings(on_error="record")) as (sync, session):
        invoice = books.vendor_invoice(session)
        entry = books.entry(session, source=("vendor_invoice", invoice.id))
        session.commit()
        entry_id, invoice_id = entry.id, invoice.id
        invoice.due_date = date(2027, 1, 1)
        if what == "lock":
            with monkeypatch.context() as broken_lock:
                broken_lock.setattr(sync._writer.settler, "lock", lambda *_: 1 // 0)
                assert noted(sync, session) == [(entry_id, None, None)]
        else:
            with failing(engine, "ledger_source_links", "vendor_invoices"):
                assert noted(sync, session) == [(None, "vendor_invoice", invoice_id)]
        session.refresh(invoice)
        assert invoice.due_date == date(2027, 1, 1)


@pytest.mark.parametrize("what", ["rewrite", "removal", "document"])
def test_a_recorded_failure_is_resolved_when_the_row_is_right_not_when_there_is_one(engine: Engine, what: str) -> None:
    with attached(engine, Settings(on_error="record")) as (sync, session):
        invoice, other = books.vendor_invoice(session), books.vendor(session, number="V2")
        entry = books.entry(session)
        entry.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=invoice.id)
        session.commit()
        if what == "rewrite":
            verb = "UPDATE" if engine.dialect.name == "mysql" else "INSERT"
            invoice.vendor_id, fails = other.id, (verb, "supplier_ledger")
        elif what == "removal":
            entry.lines[0].link, fails = None, ("DELETE", "supplier_ledger")
        else:
            invoice.due_date, fails = date(2027, 1, 1), ("ledger_source_links", "vendor_invoices")
        with failing(engine, *fails):
            session.commit()
        assert len(noted(sync, session)) == 1
        sync.backfill(sessionmaker(engine), tenant_id="acme")
        assert len(noted(sync, session)) == 1
        assert sync.repair(sessionmaker(engine), tenant_id="acme").clean
        assert noted(sync, session) == []


def test_what_can_neither_be_written_nor_recorded_fails_the_flush(engine: Engine) -> None:
    with attached(engine, Settings(on_error="record")) as (_, session):
        invoice = books.vendor_invoice(session)
        session.commit()
        session.delete(invoice)  # nothing is left to record it for
        with (
            failing(engine, "ledger_source_links", "vendor_invoices"),
            pytest.raises(RuntimeError, match="disk on fire"),
        ):
            session.flush()
        session.rollback()
        assert session.scalar(select(func.count()).select_from(VendorInvoice)) == 1


def test_a_posting_that_is_rolled_back_leaves_no_recorded_failure(engine: Engine) -> None:
    with attached(engine, Settings(on_error="record")) as (_, session):
        invoice = books.vendor_invoice(session)
        session.commit()
        with broken(engine):
            books.entry(session, source=("vendor_invoice", invoice.id))
            session.flush()
            session.rollback()
        assert session.scalar(select(func.count()).select_from(SyncError)) == 0


# -- rolling back ------------------------------------------------------------------------------------------


def test_a_rollback_leaves_no_row(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    session.commit()
    books.entry(session, source=("vendor_invoice", invoice.id))
    session.flush()
    synced(session, 1)
    session.rollback()
    synced(session, 0)


def test_a_savepoint_that_is_rolled_back_leaves_no_row(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    books.entry(session, source=("vendor_invoice", invoice.id))
    savepoint = session.begin_nested()
    books.entry(session, source=("vendor_invoice", invoice.id))
    invoice.invoice_number = "changed"
    session.flush()
    synced(session, 2)
    savepoint.rollback()
    synced(session, 1)
    session.commit()
    synced(session, 1)


def test_an_engine_on_which_savepoints_do_not_hold_is_warned_about(tmp_path: Path, sync: LedgerSync) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'plain.db'}")
    Base.metadata.create_all(engine)
    factory = sessionmaker(engine)
    sync.attach(factory)
    with factory() as session:
        invoice = books.vendor_invoice(session)
        session.begin_nested()
        books.entry(session, source=("vendor_invoice", invoice.id))
        with pytest.warns(UserWarning, match="Savepoints do not hold"):
            session.flush()
        books.entry(session, source=("vendor_invoice", invoice.id))
        session.flush()  # once is enough: another warning would be an error
        session.rollback()
    engine.dispose()


# -- documents in use --------------------------------------------------------------------------------------


def test_a_document_behind_a_posted_line_cannot_be_deleted(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    books.entry(session, source=("vendor_invoice", invoice.id))
    session.commit()
    invoice_id = invoice.id
    session.delete(invoice)
    with pytest.raises(DocumentInUseError, match=rf"vendor_invoice {invoice_id} was to be deleted"):
        session.flush()
    session.rollback()
    synced(session, 1)


def test_a_document_behind_a_linked_line_cannot_be_deleted(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session)
    entry.lines[0].link = SourceLink(source_type="ehf_invoice", source_id=invoice.id)
    session.commit()
    session.delete(invoice)
    with pytest.raises(DocumentInUseError):
        session.flush()


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "expired"])
def test_a_document_behind_a_posted_line_cannot_move_to_another_tenant(session: Session, loaded: bool) -> None:
    invoice = books.vendor_invoice(session)
    theirs = books.vendor(session, "theirs").id
    books.entry(session, source=("vendor_invoice", invoice.id))
    session.commit()
    if loaded:
        session.refresh(invoice)
    invoice.tenant_id, invoice.vendor_id = "theirs", theirs
    with pytest.raises(DocumentInUseError, match="was to move to another tenant"):
        session.flush()


@pytest.mark.parametrize("first", ["host", "sync"])
@pytest.mark.parametrize("does", ["deletes", "moves"])
def test_a_document_is_held_against_the_hosts_own_listeners_as_well(
    engine: Engine, sync: LedgerSync, does: str, first: str
) -> None:
    armed: list[VendorInvoice] = []

    def before_flush(session: Session, *_: Any) -> None:
        if not armed:
            return
        taken = armed.pop()
        if does == "deletes":
            session.delete(taken)
        else:
            taken.tenant_id, taken.vendor_id = "theirs", theirs

    factory = sessionmaker(engine)
    if first == "sync":
        sync.attach(factory)
    event.listen(factory, "before_flush", before_flush)
    sync.attach(factory)
    with factory() as session:
        theirs = books.vendor(session, "theirs").id
        invoice = books.vendor_invoice(session)
        books.entry(session, source=("vendor_invoice", invoice.id))
        session.commit()
        armed.append(invoice)
        invoice.invoice_number = "other"
        with pytest.raises(DocumentInUseError):
            session.commit()
        session.rollback()
        synced(session, 1)
        assert item(session).invoice_number == invoice.invoice_number != "other"


@pytest.mark.parametrize("post", [True, False], ids=["other_account", "draft"])
def test_a_document_that_no_posted_control_line_names_may_go(session: Session, post: bool) -> None:
    invoice = books.vendor_invoice(session)
    books.entry(session, "6000" if post else "2400", source=("vendor_invoice", invoice.id), post=post)
    session.commit()
    session.delete(invoice)
    session.commit()
    synced(session, 0)


def test_a_document_is_not_held_by_another_tenants_line(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    books.entry(session, source=("vendor_invoice", invoice.id), tenant="theirs")
    session.commit()
    session.delete(invoice)
    session.commit()
    assert session.scalar(select(func.count()).select_from(VendorInvoice)) == 0


# -- attachment --------------------------------------------------------------------------------------------


def post_one(factory: Callable[[], Session]) -> int:
    """Post an invoice through a session of the factory; how many rows there are then."""
    session = factory()
    invoice = books.vendor_invoice(session)
    books.entry(session, source=("vendor_invoice", invoice.id))
    session.commit()
    count = len(items(session))
    session.close()
    return count


def test_nothing_is_attached_by_making_a_sync(sqlite_engine: Engine) -> None:
    LedgerSync()
    assert post_one(sessionmaker(sqlite_engine)) == 0


def test_a_sessionmaker_is_attached_alone(sqlite_engine: Engine, sync: LedgerSync) -> None:
    factory = sessionmaker(sqlite_engine)
    sync.attach(factory)
    assert post_one(factory) == 1
    assert post_one(sessionmaker(sqlite_engine)) == 1
    assert post_one(lambda: Session(sqlite_engine)) == 1


def test_a_scoped_session_is_attached(sqlite_engine: Engine, sync: LedgerSync) -> None:
    scoped = scoped_session(sessionmaker(sqlite_engine))
    sync.attach(scoped)
    assert post_one(scoped) == 1
    with sync.paused(scoped):  # type: ignore[arg-type]
        assert post_one(scoped) == 1
    assert post_one(scoped) == 2
    scoped.remove()


def test_a_subclass_of_session_is_attached(sqlite_engine: Engine, sync: LedgerSync) -> None:
    class OurSession(Session):
        pass

    sync.attach(OurSession)
    assert post_one(lambda: OurSession(sqlite_engine)) == 1
    assert post_one(lambda: Session(sqlite_engine)) == 1


def test_one_session_is_attached_alone(sqlite_engine: Engine, sync: LedgerSync) -> None:
    session = Session(sqlite_engine)
    sync.attach(session)
    assert post_one(lambda: session) == 1
    assert post_one(lambda: Session(sqlite_engine)) == 1


def test_sqlalchemys_own_session_class_is_refused(sqlite_engine: Engine, sync: LedgerSync) -> None:
    with pytest.raises(ConfigurationError, match="every session of the process"):
        sync.attach(Session)
    assert post_one(lambda: Session(sqlite_engine)) == 0


@pytest.mark.parametrize("target", [None, "factory", object, 7])
def test_what_has_no_sessions_is_refused(sync: LedgerSync, target: Any) -> None:
    with pytest.raises(ConfigurationError, match="no sessions to listen to"):
        sync.attach(target)


def test_attaching_twice_is_harmless(
    sqlite_engine: Engine, sync: LedgerSync, heard: list[tuple[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    factory = sessionmaker(sqlite_engine)
    sync.attach(factory)
    sync.attach(factory)
    with statements(sqlite_engine) as sent:
        assert post_one(factory) == 1
    assert sum(statement.startswith("INSERT INTO supplier_ledger") for statement in sent) == 1
    assert names(heard) == ["item-created"]


def test_a_sessionmaker_and_its_session_attached_are_one_attachment(
    sqlite_engine: Engine, sync: LedgerSync, heard: list[tuple[str, Any]]
) -> None:
    factory = sessionmaker(sqlite_engine)
    sync.attach(factory)
    session = factory()
    sync.attach(session)
    assert post_one(lambda: session) == 1
    assert names(heard) == ["item-created"]


def test_a_detached_target_is_left_alone_until_it_is_attached_again(sqlite_engine: Engine, sync: LedgerSync) -> None:
    factory = sessionmaker(sqlite_engine)
    sync.detach(factory)
    sync.attach(factory)
    assert post_one(factory) == 1
    sync.detach(factory)
    sync.detach(factory)
    assert post_one(factory) == 1
    sync.attach(factory)
    assert post_one(factory) == 2


def test_a_target_may_be_detached_in_the_middle_of_a_transaction(
    sync: LedgerSync, factory: sessionmaker[Session], session: Session
) -> None:
    invoice = books.vendor_invoice(session)
    books.entry(session, source=("vendor_invoice", invoice.id))
    session.flush()
    sync.detach(factory)
    books.entry(session, source=("vendor_invoice", invoice.id))
    session.commit()
    assert len(items(session)) == 1


def test_what_is_flushed_while_paused_is_left_out_and_the_proof_says_so(sync: LedgerSync, session: Session) -> None:
    invoice = books.vendor_invoice(session)
    books.entry(session, source=("vendor_invoice", invoice.id))
    with sync.paused(session):
        books.entry(session, signed=-7, source=("vendor_invoice", invoice.id))
        with sync.paused(session):
            books.entry(session, signed=-8, source=("vendor_invoice", invoice.id))
        books.entry(session, signed=-9, source=("vendor_invoice", invoice.id))
    books.entry(session, signed=-10, source=("vendor_invoice", invoice.id))
    session.commit()
    assert sorted(row.amount for row in items(session)) == [10, 100]
    (cause,) = sync.verify(session, "acme").account("2400").causes
    assert (cause.name, cause.count, cause.amount) == ("missing", 3, 24)


def test_a_pause_ends_with_an_error(sync: LedgerSync, session: Session) -> None:
    invoice = books.vendor_invoice(session)
    with pytest.raises(KeyError), sync.paused(session):
        raise KeyError
    books.entry(session, source=("vendor_invoice", invoice.id))
    session.commit()
    synced(session, 1)


def test_a_pause_is_of_one_session(sync: LedgerSync, factory: sessionmaker[Session], session: Session) -> None:
    with sync.paused(session):
        assert post_one(factory) == 1


def test_two_syncs_of_one_ledger_cannot_share_a_session(sqlite_engine: Engine) -> None:
    factory = sessionmaker(sqlite_engine)
    for _ in range(2):
        LedgerSync().attach(factory)
    refusal = (
        r"^Two LedgerSync instances write supplier_ledger through one session\. "
        r"Attach one of them only, or give them ledgers of their own\.$"
    )
    with factory() as session, pytest.raises(ConfigurationError, match=refusal):
        books.vendor_invoice(session)


def test_two_syncs_of_different_ledgers_share_a_session(sqlite_engine: Engine) -> None:
    factory = sessionmaker(sqlite_engine)
    syncs = [LedgerSync(Settings(control_accounts=(control,))) for control in Settings().control_accounts]
    for one in syncs:
        one.attach(factory)
    said: list[tuple[object, str]] = []

    def hear(sender: object, item: Any) -> None:
        said.append((sender, item["ledger"]))

    with factory() as session, signals.item_created.connected_to(hear):
        vendors, customers = books.vendor_invoice(session), books.customer_invoice(session)
        books.entry(session, source=("vendor_invoice", vendors.id))
        books.entry(session, "1500", 100, ("customer_invoice", customers.id))
        session.commit()
        synced(session, 2)
    assert said == [(syncs[0], "supplier"), (syncs[1], "customer")]


# -- signals -----------------------------------------------------------------------------------------------


def test_a_row_is_told_once_after_the_commit(session: Session, heard: list[tuple[str, Any]]) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session, source=("vendor_invoice", invoice.id))
    session.flush()
    session.flush()
    assert heard == []
    session.commit()
    ((name, told),) = heard
    assert name == "item-created"
    assert told["tenant_id"] == "acme"
    assert told["ledger"] == "supplier"
    assert told["general_ledger_id"] == entry.id
    assert told["general_ledger_line_id"] == entry.lines[0].id
    assert (told["account_number"], told["kind"], told["amount"]) == ("2400", "invoice", Decimal(100))
    assert (told["source_type"], told["source_id"]) == ("vendor_invoice", invoice.id)
    assert told["party_id"] == invoice.vendor_id
    session.commit()
    assert len(heard) == 1


def test_rows_that_change_or_go_are_told_apart(session: Session, heard: list[tuple[str, Any]]) -> None:
    invoice = books.vendor_invoice(session)
    entry = books.entry(session)
    entry.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=invoice.id)
    session.commit()
    invoice.invoice_number = "other"
    session.commit()
    invoice.amount = 99  # nothing that an open item copies
    session.commit()
    entry.lines[0].link = None
    session.commit()
    told = [name for name in names(heard) if name.startswith("item-")]
    assert told == ["item-created", "item-changed", "item-removed"]
    assert all(what["general_ledger_line_id"] == entry.lines[0].id for _, what in heard)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({}, "manual"),
        ({"source": ("payroll", 1)}, "unsupported_source"),
        ({"source": ("vendor_invoice", 999)}, "source_not_found"),
        ({"post": False}, "draft"),
    ],
    ids=["manual", "unsupported", "not_found", "draft"],
)
def test_a_skipped_line_is_told_with_its_reason(
    session: Session, heard: list[tuple[str, Any]], entry: dict[str, Any], why: str
) -> None:
    made = books.entry(session, signed=-5, **entry)
    session.commit()
    ((name, line),) = heard
    assert name == "line-skipped"
    assert (line["tenant_id"], line["ledger"], line["account_number"]) == ("acme", "supplier", "2400")
    assert (line["voucher"], line["reason"], line["amount"]) == (made.voucher, why, 5)
    assert (line["general_ledger_id"], line["general_ledger_line_id"]) == (made.id, made.lines[0].id)


def test_a_rollback_sends_nothing(session: Session, heard: list[tuple[str, Any]]) -> None:
    books.entry(session)
    session.flush()
    session.rollback()
    session.commit()
    assert heard == []


def test_a_session_that_is_closed_sends_nothing_then_or_later(
    factory: sessionmaker[Session], heard: list[tuple[str, Any]]
) -> None:
    session = factory()
    books.entry(session, voucher_number="lost")
    session.flush()
    session.close()
    assert heard == []
    books.entry(session, voucher_number="kept")
    session.commit()
    session.close()
    assert [line["voucher"] for _, line in heard] == ["kept/2026"]


def test_an_exception_in_the_block_sends_nothing(factory: sessionmaker[Session], heard: list[tuple[str, Any]]) -> None:
    def post_and_fail() -> None:
        with factory.begin() as session:
            books.entry(session)
            session.flush()
            raise KeyError

    with pytest.raises(KeyError):
        post_and_fail()
    assert heard == []


def test_a_savepoint_sends_when_the_outermost_transaction_commits(
    session: Session, heard: list[tuple[str, Any]]
) -> None:
    with session.begin_nested():
        books.entry(session)
    assert heard == []
    session.commit()
    assert names(heard) == ["line-skipped"]


def test_a_savepoint_that_commits_in_a_transaction_that_does_not_sends_nothing(
    session: Session, heard: list[tuple[str, Any]]
) -> None:
    with session.begin_nested():
        books.entry(session)
    session.rollback()
    session.commit()
    assert heard == []


def test_a_savepoint_that_is_rolled_back_sends_nothing_of_its_own(
    session: Session, heard: list[tuple[str, Any]]
) -> None:
    books.entry(session, voucher_number="outer")
    savepoint = session.begin_nested()
    books.entry(session, voucher_number="inner")
    session.flush()
    savepoint.rollback()
    books.entry(session, voucher_number="after")
    session.commit()
    assert [line["voucher"] for _, line in heard] == ["outer/2026", "after/2026"]


@pytest.mark.parametrize("rolled_back", [None, 0, 2, 4])
def test_five_savepoints_deep_what_survives_is_told_once(
    session: Session, heard: list[tuple[str, Any]], rolled_back: int | None
) -> None:
    savepoints = []
    for depth in range(5):
        savepoints.append(session.begin_nested())
        books.entry(session, voucher_number=f"{depth}")
        session.flush()
    for depth in reversed(range(5)):
        if depth == rolled_back:
            savepoints[depth].rollback()
        else:
            savepoints[depth].commit()
        assert heard == []
    session.commit()
    survivors = range(5 if rolled_back is None else rolled_back)
    assert [line["voucher"] for _, line in heard] == [f"{depth}/2026" for depth in survivors]


def test_a_commit_through_open_savepoints_tells_everything_once(session: Session, heard: list[tuple[str, Any]]) -> None:
    for depth in range(3):
        session.begin_nested()
        books.entry(session, voucher_number=f"{depth}")
        session.flush()
    session.commit()
    session.commit()
    assert sorted(line["voucher"] for _, line in heard) == ["0/2026", "1/2026", "2/2026"]


def test_a_failed_flush_in_a_savepoint_leaves_the_outer_signals(session: Session, heard: list[tuple[str, Any]]) -> None:
    books.entry(session, voucher_number="outer")
    session.flush()

    def post_twice() -> None:
        with session.begin_nested():
            for _ in range(2):
                books.entry(session, voucher_number="inner")
                session.flush()

    with pytest.raises(DBAPIError):
        post_twice()
    session.commit()
    assert [line["voucher"] for _, line in heard] == ["outer/2026"]


def test_signals_are_of_one_sync(sqlite_engine: Engine, heard: list[tuple[str, Any]]) -> None:
    other = LedgerSync()
    factory = sessionmaker(sqlite_engine)
    other.attach(factory)
    assert post_one(factory) == 1
    assert heard == []


def test_a_receiver_that_raises_hurts_nobody(
    sync: LedgerSync, session: Session, heard: list[tuple[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    def explode(sender: object, **_: object) -> None:
        raise RuntimeError("mail server down")

    with signals.line_skipped.connected_to(explode, sender=sync):
        books.entry(session, voucher_number="1")
        session.commit()
        books.entry(session, voucher_number="2")
        session.commit()
    assert names(heard) == ["line-skipped"] * 2
    assert "a receiver of line-skipped failed" in caplog.text
    assert session.scalar(select(func.count()).select_from(JournalEntry)) == 2


def test_a_coroutine_receiver_is_not_called_and_is_warned_about(
    sync: LedgerSync, session: Session, heard: list[tuple[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    async def later(sender: object, **_: object) -> None:
        raise AssertionError

    with signals.line_skipped.connected_to(later, sender=sync):
        books.entry(session)
        session.commit()
    assert names(heard) == ["line-skipped"]
    assert "is a coroutine function and was not called" in caplog.text


def test_a_coroutine_receiver_of_flush_synced_is_not_called_either(sync: LedgerSync, session: Session) -> None:
    async def later(sender: object, **_: object) -> None:
        raise AssertionError

    invoice = books.vendor_invoice(session)
    with signals.flush_synced.connected_to(later, sender=sync):
        books.entry(session, source=("vendor_invoice", invoice.id))
        session.commit()
    synced(session, 1)


def test_flush_synced_is_sent_in_the_transaction_with_its_session(sync: LedgerSync, session: Session) -> None:
    seen: list[Any] = []

    def hear(sender: object, session: Session, items: Any) -> None:
        assert sender is sync
        seen.append((session, session.in_transaction(), [row["amount"] for row in items]))

    invoice = books.vendor_invoice(session)
    with signals.flush_synced.connected_to(hear, sender=sync):
        books.entry(session, source=("vendor_invoice", invoice.id))
        session.flush()
        assert seen == [(session, True, [Decimal(100)])]
        session.commit()
        assert len(seen) == 1


def test_a_receiver_of_flush_synced_that_raises_fails_the_flush(sync: LedgerSync, session: Session) -> None:
    def refuse(sender: object, **_: object) -> None:
        raise KeyError("outbox full")

    invoice = books.vendor_invoice(session)
    session.commit()
    with signals.flush_synced.connected_to(refuse, sender=sync):
        books.entry(session, source=("vendor_invoice", invoice.id))
        with pytest.raises(KeyError):
            session.commit()
    session.rollback()
    assert session.scalar(select(func.count()).select_from(JournalEntry)) == 0
    synced(session, 0)


# -- the log -----------------------------------------------------------------------------------------------


def test_each_line_is_logged_with_voucher_tenant_ledger_and_outcome(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    invoice = books.vendor_invoice(session)
    with caplog.at_level(logging.INFO, logger="ledger_sync"):
        books.entry(session, source=("vendor_invoice", invoice.id), voucher_series="A", voucher_number="1")
        books.entry(session, voucher_number="2")
        session.commit()
    records = [r for r in caplog.records if r.name == "ledger_sync" and hasattr(r, "outcome")]
    told = {(r.voucher, r.tenant, r.ledger, r.outcome) for r in records}  # type: ignore[attr-defined]
    assert told == {("A-1/2026", "acme", "supplier", "written"), ("2/2026", "acme", "supplier", "manual")}
    assert all("Ledger sync" in r.getMessage() for r in records)


def test_user_text_cannot_forge_a_log_line(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    forged = "1\nLedger sync: voucher 2 \u202e\x1b[31m\u2028written"
    with caplog.at_level(logging.INFO, logger="ledger_sync"):
        books.entry(session, voucher_number=forged, tenant="te\rnant")
        session.commit()
    (record,) = [r for r in caplog.records if r.name == "ledger_sync"]
    assert record.getMessage().isprintable()
    assert record.voucher.isprintable()  # type: ignore[attr-defined]
    assert record.tenant.isprintable()  # type: ignore[attr-defined]
    assert "\\n" in record.voucher  # type: ignore[attr-defined]


def test_a_recorded_failure_is_logged_without_forged_lines(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with attached(engine, Settings(on_error="record")) as (_, session):
        invoice = books.vendor_invoice(session)
        session.commit()
        with broken(engine):
            books.entry(session, source=("vendor_invoice", invoice.id), voucher_number="1\nforged")
            session.commit()
    (record,) = [r for r in caplog.records if "Ledger sync" in r.getMessage()]
    assert record.levelno >= logging.ERROR
    assert record.getMessage().isprintable()


# -- bulk statements ---------------------------------------------------------------------------------------

BULK: dict[str, Callable[[Session], Any]] = {
    "insert": lambda s: s.execute(insert(JournalEntry).values(tenant_id="t", voucher_number="1", entry_date=DAY)),
    "insert_table": lambda s: s.execute(
        insert(JournalEntry.__table__), [{"tenant_id": "t", "voucher_number": "1", "entry_date": DAY}]
    ),
    "update": lambda s: s.execute(update(JournalLine).values(description="x")),
    "update_document": lambda s: s.execute(update(VendorInvoice).values(invoice_number="x")),
    "delete": lambda s: s.execute(delete(SourceLink)),
    "query_update": lambda s: s.query(JournalLine).update({"description": "x"}),
    "query_delete": lambda s: s.query(SourceLink).delete(),
}


@pytest.mark.parametrize("how", BULK)
def test_a_bulk_statement_is_refused_with_what_to_do(session: Session, how: str) -> None:
    with pytest.raises(BulkWriteError, match=r"sync\.paused\(session\)") as caught:
        BULK[how](session)
    assert caught.value.operation == how.split("_")[-1 if "query" in how else 0].upper()
    assert caught.value.table in str(caught.value)


def test_a_bulk_statement_passes_when_its_options_say_so(session: Session) -> None:
    session.execute(update(JournalLine).values(description="x"), execution_options={"ledger_sync_bulk": "ignore"})
    session.execute(update(JournalLine).values(description="x").execution_options(ledger_sync_bulk="ignore"))


def test_a_bulk_statement_passes_while_paused(sync: LedgerSync, session: Session) -> None:
    with sync.paused(session):
        session.execute(update(JournalLine).values(description="x"))


def test_a_bulk_statement_may_be_let_through_with_a_warning(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with attached(engine, Settings(bulk="warn")) as (_, session):
        session.execute(update(JournalLine).values(description="x"))
    (said,) = caplog.messages
    assert said.startswith("Ledger sync: A bulk UPDATE on general_ledger_lines would bypass the subledger")


def test_bulk_statements_on_other_tables_and_reads_are_no_business_of_ours(session: Session) -> None:
    session.execute(update(Vendor).values(name="x"))
    session.execute(select(JournalLine)).all()
    session.execute(text("UPDATE general_ledger_lines SET description = 'x'"))


# -- statements --------------------------------------------------------------------------------------------


def test_a_flush_that_touches_nothing_of_ours_sends_no_statement_of_ours(engine: Engine, session: Session) -> None:
    vendor = books.vendor(session)
    session.commit()
    session.refresh(vendor)
    with statements(engine) as sent:
        vendor.name = "other"
        session.add(Vendor(tenant_id="acme", number="V9", name="x"))
        session.flush()
    assert {statement.split()[1 if statement.startswith("UPDATE") else 2] for statement in sent} == {"vendors"}


def test_entries_without_control_lines_send_no_statement_of_ours(engine: Engine, session: Session) -> None:
    session.connection()
    with statements(engine) as sent:
        books.entry(session, "6000", source=("vendor_invoice", 1))
        session.flush()
    assert sent
    assert all(statement.startswith("INSERT INTO general_ledger") for statement in sent)


def test_the_flush_of_an_invoices_entry_sends_one_insert_for_its_row(engine: Engine, session: Session) -> None:
    invoice = books.vendor_invoice(session)
    session.commit()
    source = ("vendor_invoice", invoice.id)
    session.connection()
    with statements(engine) as sent:
        for _ in range(20):
            books.entry(session, source=source)
        session.flush()
    ours = [s for s in sent if any(table in s for table in ITEM_TABLES)]
    assert sum(s.startswith("INSERT INTO supplier_ledger") for s in ours) == 1
    assert not any(s.startswith("DELETE") for s in ours)
    assert not any("customer_ledger" in s or "employee_ledger" in s for s in ours)
    synced(session, 20)


def test_the_hook_goes_round_the_hosts_own_query_filters(session: Session) -> None:
    def hide_everything(state: Any) -> None:
        if state.is_select:
            state.statement = state.statement.where(text("1 = 0"))

    invoice = books.vendor_invoice(session)
    event.listen(session, "do_orm_execute", hide_everything)
    books.entry(session, source=("vendor_invoice", invoice.id))
    session.commit()
    event.remove(session, "do_orm_execute", hide_everything)
    synced(session, 1)
