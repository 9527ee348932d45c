"""The ready-made models: exact amounts, storable texts, keys that hold, and posted entries that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.orm import Session

from ledger_sync.dialects import fault_of
from ledger_sync.errors import (
    AmountError,
    PostedEntryError,
    ReversalError,
    TextError,
    TimestampError,
    UnbalancedEntryError,
)
from ledger_sync.models import (
    Customer,
    CustomerInvoice,
    ExpenseClaim,
    JournalEntry,
    JournalLine,
    SourceLink,
    SupplierLedger,
    Vendor,
    VendorInvoice,
    VendorPayment,
)
from tests import books
from tests.books import DAY


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A session without the sync: these promises hold with or without it."""
    with Session(engine) as opened:
        yield opened


def posted(session: Session, **more: Any) -> JournalEntry:
    """A posted entry of two lines, committed."""
    entry = books.entry(session, **more)
    session.commit()
    return entry


# -- amounts ---------------------------------------------------------------------------------------------

INEXACT: list[Any] = [
    Decimal("NaN"),
    Decimal("-NaN"),
    Decimal("sNaN"),
    Decimal("Infinity"),
    Decimal("-Infinity"),
    Decimal("1e13"),
    Decimal("-1e13"),
    Decimal("1e5000"),
    Decimal("100.005"),
    Decimal("0.001"),
    Decimal("1e-400"),
    "100.005",
    "NaN",
    "ten",
    "",
    10**13,
    0.1,
    100.0,
    float("nan"),
    float("inf"),
    True,
    False,
]


@pytest.mark.parametrize("value", INEXACT, ids=repr)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda v: JournalLine(debit=v), "debit"),
        (lambda v: JournalLine(credit=v), "credit"),
        (lambda v: VendorInvoice(amount=v), "amount"),
        (lambda v: CustomerInvoice(amount=v), "amount"),
        (lambda v: VendorPayment(amount=v), "amount"),
        (lambda v: ExpenseClaim(amount=v), "amount"),
        (lambda v: SupplierLedger(remaining_amount=v), "remaining_amount"),
    ],
    ids=["debit", "credit", "vendor_invoice", "customer_invoice", "payment", "claim", "item"],
)
def test_an_inexact_amount_is_refused_when_it_is_assigned(make: Callable[[Any], Any], name: str, value: Any) -> None:
    with pytest.raises(AmountError) as caught:
        make(value)
    assert caught.value.name == name
    assert str(caught.value).startswith(f"{name} = ")
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("9999999999999.99", "9999999999999.99"),
        ("-9999999999999.99", "-9999999999999.99"),
        (7, "7.00"),
        ("0.10", "0.10"),
        (Decimal("1e2"), "100.00"),
        (Decimal("5.000000"), "5.00"),
        (Decimal("-0"), "0.00"),
    ],
)
def test_an_exact_amount_comes_back_as_it_was(session: Session, value: Any, stored: str) -> None:
    entry = JournalEntry(tenant_id="t", voucher_number="1", entry_date=DAY)
    entry.lines.append(JournalLine(account_number="4000", debit=value))
    session.add(entry)
    session.commit()
    found = session.scalars(select(JournalLine.debit)).one()
    assert found == Decimal(stored)
    assert found.as_tuple().exponent == -2


def test_an_amount_in_currency_has_three_decimals(session: Session) -> None:
    entry = JournalEntry(tenant_id="t", voucher_number="1", entry_date=DAY)
    entry.lines.append(JournalLine(account_number="4000", currency="KWD", currency_amount="1.234"))
    session.add(entry)
    session.commit()
    assert session.scalars(select(JournalLine.currency_amount)).one() == Decimal("1.234")
    with pytest.raises(AmountError, match=r"currency_amount = .* more than 3 decimals"):
        JournalLine(currency_amount="1.2345")


def test_a_core_statement_refuses_an_inexact_amount_too(session: Session) -> None:
    entry = posted(session)
    values = {"general_ledger_id": entry.id, "line_number": 9, "account_number": "1", "debit": 0.1}
    with pytest.raises((AmountError, StatementError), match="not an exact amount"):
        session.execute(JournalLine.__table__.insert(), values)


@pytest.mark.parametrize("value", ["1.5", "9e999", "-9e999", "'NaN'", "'ten'", str(10**15), str(-(10**15)), "x'31'"])
@pytest.mark.parametrize("column", ["debit", "credit"])
def test_sqlite_refuses_what_is_not_a_whole_number_of_ore(sqlite_engine: Engine, column: str, value: str) -> None:
    with Session(sqlite_engine) as session:
        entry = posted(session)
        refused(session, line_insert(entry.id, column, value), "_exact")


@pytest.mark.parametrize("value", ["'NaN'", "'Infinity'", "'-Infinity'", "100.005", "1e13", "-1e13"])
@pytest.mark.parametrize("column", ["debit", "credit", "currency_amount"])
def test_postgresql_refuses_what_is_not_an_exact_amount(postgresql_engine: Engine, column: str, value: str) -> None:
    value = "100.0005" if (column, value) == ("currency_amount", "100.005") else value
    with Session(postgresql_engine) as session:
        entry = posted(session)
        refused(session, line_insert(entry.id, column, value), "_exact")


@pytest.mark.parametrize("value", ["100.005", "1e13", "-1e13", "1e30", "'ten'"])
@pytest.mark.parametrize("column", ["debit", "credit", "currency_amount"])
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "lenient"])
def test_mariadb_refuses_what_is_not_an_exact_amount(
    mariadb_engine: Engine, column: str, value: str, strict: bool
) -> None:
    value = "100.0005" if (column, value) == ("currency_amount", "100.005") else value
    with Session(mariadb_engine) as session:
        entry = posted(session)
        if strict:
            refused(session, line_insert(entry.id, column, value), "_exact|Out of range|Incorrect decimal value")
            return
        # a lenient session makes a 0 of what is no number, and the largest number of one that is too large
        session.execute(text("SET sql_mode = ''"))
        if value != "'ten'":
            refused(session, line_insert(entry.id, column, value), "_exact")
        session.connection().invalidate()


@pytest.mark.parametrize(
    ("table", "party", "more"),
    [
        ("vendor_invoices", "vendor_id", ", invoice_number, invoice_date) VALUES ('n', '2026-01-01',"),
        ("vendor_payments", "vendor_id", ", payment_date) VALUES ('2026-01-01',"),
        ("customer_invoices", "customer_id", ", invoice_number, invoice_date) VALUES ('n', '2026-01-01',"),
        ("customer_payments", "customer_id", ", payment_date) VALUES ('2026-01-01',"),
    ],
)
def test_the_database_refuses_an_inexact_amount_of_a_document(
    session: Session, table: str, party: str, more: str
) -> None:
    party_id = books.vendor(session).id if party == "vendor_id" else books.customer(session).id
    session.commit()
    columns, values = more.split(") VALUES (")
    amount = {"sqlite": "1.5", "postgresql": "'NaN'", "mysql": "0.005"}[session.get_bind().dialect.name]
    sql = (
        f"INSERT INTO {table} (tenant_id, {party}, amount{columns}) VALUES ('acme', {party_id}, {amount}, "
        f"{values.rstrip(',')})"
    )
    refused(session, sql, "amount_exact")


def line_insert(entry_id: int, column: str, value: str) -> str:
    return (
        f"INSERT INTO general_ledger_lines (general_ledger_id, line_number, account_number, {column}) "
        f"VALUES ({entry_id}, 9, '4000', {value})"
    )


@contextmanager
def data_refused(words: str) -> Iterator[None]:
    """The database refuses what a row holds, naming the constraint. (The driver for MariaDB has no class for it.)"""
    with pytest.raises(DBAPIError, match=words) as caught:
        yield
    assert fault_of(caught.value) == "data"


def refused(session: Session, sql: str, words: str) -> None:
    """The database itself refuses the statement, naming the constraint."""
    with data_refused(words):
        session.execute(text(sql))
    session.rollback()


def test_sums_are_exact(session: Session) -> None:
    entry = JournalEntry(tenant_id="t", voucher_number="1", entry_date=DAY)
    for value in ("0.1", "0.2", "-0.3"):
        entry.lines.append(JournalLine(account_number="4000", debit=value))
    session.add(entry)
    session.commit()
    assert session.scalar(select(func.sum(JournalLine.debit))) == 0
    assert session.execute(text("SELECT SUM(debit - credit) = 0 FROM general_ledger_lines")).scalar()


# -- texts and moments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda v: JournalEntry(voucher_number=v), "voucher_number"),
        (lambda v: JournalLine(reference=v), "reference"),
        (lambda v: Vendor(name=v), "name"),
        (lambda v: VendorInvoice(invoice_number=v), "invoice_number"),
        (lambda v: SourceLink(reason=v), "reason"),
    ],
)
@pytest.mark.parametrize(
    ("value", "words"), [("x" * 1000, "1000 characters"), ("a\x00b", "NUL"), ("\ud800", "surrogate")]
)
def test_a_text_that_cannot_be_stored_is_refused_when_it_is_assigned(
    make: Callable[[Any], Any], name: str, value: str, words: str
) -> None:
    with pytest.raises(TextError, match=words) as caught:
        make(value)
    assert caught.value.name == name
    assert str(caught.value).isprintable()


def test_a_text_may_be_as_long_as_its_column(session: Session) -> None:
    longest = "ø€😀" + "x" * 67
    entry = JournalEntry(tenant_id="t", voucher_number=longest, entry_date=DAY)
    session.add(entry)
    session.commit()
    assert session.scalars(select(JournalEntry.voucher_number)).one() == longest
    with pytest.raises(TextError, match="71 characters, more than 70"):
        entry.voucher_number = longest + "x"


def test_a_voucher_number_may_be_given_as_an_int() -> None:
    entry = JournalEntry(tenant_id=1, voucher_number=12, voucher_series=3, entry_date=DAY)
    assert (entry.tenant_id, entry.voucher_number, entry.voucher_series) == ("1", "12", "3")


def test_a_naive_moment_is_refused(session: Session) -> None:
    entry = books.entry(session, post=False)
    entry.posted_at = datetime(2026, 1, 1)  # noqa: DTZ001
    with pytest.raises((TimestampError, StatementError), match="no time zone"):
        session.flush()


def test_a_moment_comes_back_in_utc(session: Session) -> None:
    moment = datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))
    entry = books.entry(session, post=False)
    entry.post(moment)
    session.commit()
    assert entry.posted_at == moment
    assert entry.posted_at.tzinfo is UTC


# -- keys and checks -------------------------------------------------------------------------------------


def test_a_voucher_is_unique_per_tenant_year_and_series(session: Session) -> None:
    first = {"tenant_id": "t", "voucher_number": "1", "entry_date": DAY}
    for other in ({"tenant_id": "u"}, {"voucher_series": "B"}, {"entry_date": date(2025, 1, 1)}, {"fiscal_year": 2027}):
        session.add(JournalEntry(**first | other))
    session.add(JournalEntry(**first))
    session.commit()
    session.add(JournalEntry(**first))
    with pytest.raises(IntegrityError):
        session.flush()


def test_a_line_number_is_unique_in_its_entry(session: Session) -> None:
    entry = JournalEntry(tenant_id="t", voucher_number="1", entry_date=DAY)
    entry.lines = [JournalLine(line_number=1, account_number="1"), JournalLine(line_number=1, account_number="2")]
    session.add(entry)
    with pytest.raises(IntegrityError):
        session.flush()


@pytest.mark.parametrize("model", [Vendor, Customer])
def test_a_party_number_is_unique_per_tenant(session: Session, model: Any) -> None:
    session.add_all([model(tenant_id=tenant, number="1", name="x") for tenant in ("t", "u")])
    session.flush()
    session.add(model(tenant_id="t", number="1", name="y"))
    with pytest.raises(IntegrityError):
        session.flush()


def test_an_invoice_number_is_not_unique_since_suppliers_reuse_them(session: Session) -> None:
    books.vendor_invoice(session, invoice_number="1")
    books.vendor_invoice(session, invoice_number="1")
    session.commit()


def open_item(session: Session, **more: Any) -> SupplierLedger:
    return SupplierLedger(
        **{
            "tenant_id": "acme",
            "general_ledger_id": 1,
            "general_ledger_line_id": 1,
            "account_number": "2400",
            "supplier_id": books.vendor(session).id,
            "source_type": "vendor_invoice",
            "source_id": 1,
            "kind": "invoice",
            "entry_date": DAY,
            "currency": "NOK",
            "amount": 100,
            "remaining_amount": 100,
            **more,
        }
    )


def test_a_line_has_one_open_item_at_most(session: Session) -> None:
    session.add(open_item(session))
    session.flush()
    session.add(open_item(session, general_ledger_id=2))
    with pytest.raises(IntegrityError):
        session.flush()


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "gift"},
        {"status": "lost"},
        {"amount": 0, "remaining_amount": 0},
        {"remaining_amount": -1},
        {"remaining_amount": 101},
        {"amount": -100, "remaining_amount": 1},
        {"amount": -100, "remaining_amount": -101},
    ],
    ids=str,
)
def test_the_database_refuses_an_open_item_that_cannot_be(session: Session, wrong: dict[str, Any]) -> None:
    session.add(open_item(session, **wrong))
    with data_refused("ck_supplier_ledger"):
        session.flush()


@pytest.mark.parametrize(("amount", "remaining"), [(100, 0), (100, 100), (-100, -40), (-100, 0)])
def test_the_remaining_amount_lies_between_zero_and_the_amount(session: Session, amount: int, remaining: int) -> None:
    session.add(open_item(session, amount=amount, remaining_amount=remaining))
    session.commit()


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "voided"},
        {"source_type": "vendor_invoice"},
        {"source_id": 1},
    ],
    ids=str,
)
def test_the_database_refuses_an_entry_that_cannot_be(session: Session, wrong: dict[str, Any]) -> None:
    session.add(JournalEntry(**{"tenant_id": "t", "voucher_number": "1", "entry_date": DAY, **wrong}))
    with data_refused("ck_general_ledger"):
        session.flush()


def test_the_database_refuses_a_link_of_an_unknown_kind(session: Session) -> None:
    entry = books.entry(session)
    entry.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=1, kind="gift")
    with data_refused("ck_ledger_source_links"):
        session.flush()


@pytest.mark.parametrize("kind", ["invoice", "gift"])
def test_only_a_credit_note_credits_an_invoice(session: Session, kind: str) -> None:
    invoice = books.vendor_invoice(session)
    with data_refused("ck_vendor_invoices"):
        books.vendor_invoice(session, kind=kind, credits_id=invoice.id)


# -- no row crosses tenants ------------------------------------------------------------------------------


def test_the_database_refuses_a_document_on_another_tenants_party(session: Session) -> None:
    vendor, customer = books.vendor(session, "other"), books.customer(session, "other")
    session.commit()
    dated = {"invoice_number": "1", "invoice_date": DAY, "amount": 1, "tenant_id": "acme"}
    paid = {"payment_date": DAY, "amount": 1, "tenant_id": "acme"}
    for document in (
        VendorInvoice(vendor_id=vendor.id, **dated),
        CustomerInvoice(customer_id=customer.id, **dated),
        VendorPayment(vendor_id=vendor.id, **paid),
    ):
        session.add(document)
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()


def test_the_database_refuses_a_credit_note_on_another_tenants_invoice(session: Session) -> None:
    theirs = books.vendor_invoice(session, tenant="other")
    with pytest.raises(IntegrityError):
        books.vendor_invoice(session, kind="credit_note", credits_id=theirs.id)


def test_the_database_refuses_an_open_item_on_another_tenants_party(session: Session) -> None:
    session.add(open_item(session, supplier_id=books.vendor(session, "other").id))
    with pytest.raises(IntegrityError):
        session.flush()


def test_the_reversal_of_another_tenants_entry_is_refused_as_if_there_were_none(session: Session) -> None:
    theirs = posted(session, tenant="other")
    messages = set()
    for entry_id in (theirs.id, 999_999):
        session.add(JournalEntry(tenant_id="acme", voucher_number="R", entry_date=DAY, reverses_id=entry_id))
        with pytest.raises(ReversalError) as caught:
            session.flush()
        messages.add(str(caught.value).replace(str(entry_id), "…"))
        session.rollback()
    assert len(messages) == 1
    sql = (
        "INSERT INTO general_ledger (tenant_id, fiscal_year, voucher_number, entry_date, reverses_id) "
        f"VALUES ('acme', 2026, 'R', '2026-01-01', {theirs.id})"
    )
    with pytest.raises(IntegrityError):
        session.execute(text(sql))


# -- entries ---------------------------------------------------------------------------------------------


def test_the_fiscal_year_is_that_of_the_entry_date_unless_given(session: Session) -> None:
    entry = JournalEntry(tenant_id="t", voucher_number="1", entry_date=date(2025, 12, 31))
    given = JournalEntry(tenant_id="t", voucher_number="2", entry_date=date(2025, 12, 31), fiscal_year=2026)
    session.add_all([entry, given])
    session.commit()
    assert (entry.fiscal_year, given.fiscal_year) == (2025, 2026)
    assert (entry.voucher_series, entry.status, entry.posted_at) == ("", "draft", None)


def test_lines_are_numbered_in_their_order_unless_given(session: Session) -> None:
    entry = JournalEntry(tenant_id="t", voucher_number="1", entry_date=DAY)
    entry.lines = [JournalLine(account_number="1"), JournalLine(account_number="2", line_number=10)]
    entry.lines.append(JournalLine(account_number="3"))
    assert [line.line_number for line in entry.lines] == [1, 10, 11]
    session.add(entry)
    session.commit()
    entry.lines.append(JournalLine(account_number="4"))
    session.commit()
    session.expire_all()
    assert [line.line_number for line in entry.lines] == [1, 10, 11, 12]


def test_a_line_number_is_not_used_again_after_its_line_is_gone(session: Session) -> None:
    entry = JournalEntry(tenant_id="t", voucher_number="1", entry_date=DAY)
    entry.lines = [JournalLine(account_number="1"), JournalLine(account_number="2")]
    session.add(entry)
    session.flush()
    entry.lines.remove(entry.lines[1])
    entry.lines.append(JournalLine(account_number="3"))
    session.flush()
    assert [line.line_number for line in entry.lines] == [1, 3]


def test_an_entry_without_lines_cannot_be_posted() -> None:
    entry = JournalEntry(tenant_id="t", voucher_number="7", voucher_series="A", entry_date=DAY)
    with pytest.raises(UnbalancedEntryError, match=r"^Voucher A-7/2026 has no lines") as caught:
        entry.post()
    assert caught.value.voucher == "A-7/2026"
    assert entry.status != "posted"


def test_an_unbalanced_entry_cannot_be_posted() -> None:
    entry = JournalEntry(tenant_id="t", voucher_number="7", entry_date=DAY)
    entry.lines = [JournalLine(account_number="1", debit=100), JournalLine(account_number="2", credit="99.99")]
    with pytest.raises(UnbalancedEntryError, match=r"out of balance by 0\.01 "):
        entry.post()
    assert entry.status != "posted"


def test_what_counts_is_debit_less_credit_and_either_may_be_negative() -> None:
    entry = JournalEntry(tenant_id="t", voucher_number="7", entry_date=DAY)
    entry.lines = [JournalLine(account_number="1", debit=-100), JournalLine(account_number="2", credit=-100)]
    assert [line.signed_amount for line in entry.lines] == [-100, 100]
    assert entry.balance == 0
    entry.post()
    assert entry.status == "posted"


def test_an_entry_is_posted_at_a_moment(session: Session) -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    entry = books.entry(session, post=False)
    entry.post(moment)
    assert entry.posted_at == moment
    other = books.entry(session)
    assert other.posted_at is not None
    by_status = JournalEntry(tenant_id="t", voucher_number="x", entry_date=DAY, status="posted")
    session.add(by_status)
    session.flush()
    assert by_status.posted_at is not None


def test_a_voucher_is_written_as_people_write_it() -> None:
    assert JournalEntry(voucher_number="7", entry_date=DAY).voucher == "7/2026"
    assert JournalEntry(voucher_number="7", voucher_series="A", fiscal_year=2025).voucher == "A-7/2025"


# -- what is posted stays --------------------------------------------------------------------------------


def test_what_refuses_to_change_a_line_names_its_voucher_as_people_write_it(session: Session) -> None:
    entry = books.entry(session, voucher_series="B", voucher_number="17")
    session.commit()
    entry.lines[0].description = "other"
    with pytest.raises(PostedEntryError, match=r"^Voucher B-17/2026 is posted"):
        session.flush()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("description", "other"),
        ("entry_date", date(2026, 4, 1)),
        ("voucher_number", "other"),
        ("voucher_series", "B"),
        ("fiscal_year", 2027),
        ("status", "draft"),
        ("source_type", None),
        ("tenant_id", "other"),
        ("posted_at", datetime(2020, 1, 1, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "expired"])
def test_a_posted_entry_refuses_every_change(session: Session, name: str, value: Any, loaded: bool) -> None:
    entry = posted(session, source=("vendor_invoice", 1))
    if loaded:
        session.refresh(entry)
    setattr(entry, name, value)
    if name == "source_type":
        entry.source_id = None
    with pytest.raises(PostedEntryError, match=name):
        session.flush()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("debit", 1),
        ("credit", 1),
        ("account_number", "4001"),
        ("line_number", 9),
        ("reference", "x"),
        ("due_date", DAY),
        ("description", "x"),
        ("currency", "EUR"),
    ],
)
@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "expired"])
def test_a_line_of_a_posted_entry_refuses_every_change(session: Session, name: str, value: Any, loaded: bool) -> None:
    entry = posted(session)
    line, voucher = entry.lines[0], entry.voucher
    if not loaded:
        session.expire_all()
    setattr(line, name, value)
    with pytest.raises(PostedEntryError, match=rf"Voucher {voucher} is posted.*{name}"):
        session.flush()


def test_a_change_without_effect_is_no_change(session: Session) -> None:
    entry = posted(session, description="same")
    session.refresh(entry)
    entry.description = "other"
    entry.description = "same"
    entry.lines[0].reference = None
    session.commit()


def test_a_posted_entry_cannot_be_deleted(session: Session) -> None:
    entry = posted(session)
    session.delete(entry)
    with pytest.raises(PostedEntryError, match="cannot be deleted"):
        session.flush()


@pytest.mark.parametrize("how", ["delete", "remove", "replace"])
def test_a_line_of_a_posted_entry_cannot_be_deleted(session: Session, how: str) -> None:
    entry = posted(session)
    if how == "delete":
        session.delete(entry.lines[0])
    elif how == "remove":
        entry.lines.remove(entry.lines[0])
    else:
        entry.lines = []
    with pytest.raises(PostedEntryError, match="line 1 cannot be deleted"):
        session.flush()


@pytest.mark.parametrize("how", ["append", "key", "entry"])
def test_no_line_can_be_added_to_a_posted_entry(session: Session, how: str) -> None:
    entry = posted(session)
    if how == "append":
        entry.lines.append(JournalLine(account_number="1"))
    elif how == "key":
        session.add(JournalLine(account_number="1", line_number=9, general_ledger_id=entry.id))
    else:
        session.add(JournalLine(account_number="1", line_number=9, entry=entry))
    with pytest.raises(PostedEntryError, match="no line can be added"):
        session.flush()


@pytest.mark.parametrize("into", [True, False])
def test_no_line_can_be_moved_into_or_out_of_a_posted_entry(session: Session, into: bool) -> None:
    entry = posted(session)
    draft = books.entry(session, post=False)
    session.commit()
    line, target = (draft.lines[0], entry) if into else (entry.lines[0], draft)
    target_id = target.id
    line.line_number = 9
    line.general_ledger_id = target_id
    with pytest.raises(PostedEntryError):
        session.flush()


def test_a_second_session_refuses_too(session: Session) -> None:
    entry_id = posted(session).id
    with Session(session.get_bind()) as other:
        other.get_one(JournalEntry, entry_id).description = "x"
        with pytest.raises(PostedEntryError):
            other.commit()


def test_a_draft_may_change_and_go(session: Session) -> None:
    entry = books.entry(session, post=False)
    session.commit()
    entry.description = "other"
    entry.lines[0].debit = 5
    entry.lines.append(JournalLine(account_number="1"))
    session.commit()
    session.delete(entry)
    session.commit()
    assert session.scalar(select(func.count()).select_from(JournalLine)) == 0


def test_lines_and_source_may_arrive_until_the_posting_transaction_commits(session: Session) -> None:
    entry = books.entry(session)
    session.flush()
    entry.lines.append(JournalLine(account_number="2400"))
    session.flush()
    entry.source_type, entry.source_id = "vendor_invoice", 1
    session.flush()
    session.add(JournalLine(account_number="1", line_number=9, general_ledger_id=entry.id))
    session.commit()
    entry.lines.append(JournalLine(account_number="1"))
    with pytest.raises(PostedEntryError):
        session.flush()


def test_a_draft_that_is_posted_may_get_lines_until_that_transaction_commits(session: Session) -> None:
    entry = books.entry(session, post=False)
    session.commit()
    entry.post()
    session.flush()
    entry.lines.append(JournalLine(account_number="1"))
    entry.source_type, entry.source_id = "vendor_invoice", 1
    session.commit()
    entry.source_id = 2
    with pytest.raises(PostedEntryError):
        session.flush()


def test_a_savepoint_does_not_end_the_posting_transaction(session: Session) -> None:
    with session.begin_nested():
        entry = books.entry(session)
    with session.begin_nested():
        entry.lines.append(JournalLine(account_number="1"))
    session.commit()
    assert len(entry.lines) == 3


def test_a_posted_entry_stays_after_a_refused_change_was_rolled_back(session: Session) -> None:
    entry = posted(session)
    for _ in range(2):
        entry.description = "x"
        with pytest.raises(PostedEntryError):
            session.flush()
        session.rollback()
    assert entry.description is None


# -- reversing -------------------------------------------------------------------------------------------


def test_a_reversal_exchanges_debit_and_credit_and_keeps_the_rest(session: Session) -> None:
    entry = books.entry(
        session,
        source=("vendor_invoice", 7),
        voucher_series="A",
        line={"reference": "K", "due_date": DAY, "currency": "EUR", "currency_amount": "9.5", "description": "d"},
    )
    entry.lines[0].link = SourceLink(source_type="vendor_payment", source_id=8, kind="fee", actor="me")
    session.commit()
    reversal = entry.reverse(DAY)
    session.add(reversal)
    session.commit()
    assert (reversal.status, reversal.reverses_id, reversal.tenant_id) == ("posted", entry.id, "acme")
    assert reversal.voucher == f"A-{entry.voucher_number}R/2026"
    assert (reversal.source_type, reversal.source_id) == ("vendor_invoice", 7)
    for old, new in zip(entry.lines, reversal.lines, strict=True):
        assert (new.line_number, new.account_number) == (old.line_number, old.account_number)
        assert (new.debit, new.credit) == (old.credit, old.debit)
        assert (new.reference, new.due_date, new.currency) == (old.reference, old.due_date, old.currency)
    link = reversal.lines[0].link
    assert (link.source_type, link.source_id, link.kind) == ("vendor_payment", 8, "fee")
    assert session.scalar(select(func.sum(JournalLine.debit - JournalLine.credit))) == 0
    assert entry.reversed_by is reversal
    assert reversal.reverses is entry


def test_a_reversal_takes_number_series_and_description_when_given(session: Session) -> None:
    reversal = posted(session).reverse(DAY, voucher_number="9", voucher_series="R", description="wrong party")
    assert (reversal.voucher, reversal.description) == ("R-9/2026", "wrong party")


def test_a_reversal_is_dated_on_the_day_or_later(session: Session) -> None:
    entry = posted(session)
    with pytest.raises(ReversalError, match="is dated 2026-03-01, after 2026-02-28"):
        entry.reverse(date(2026, 2, 28))
    entry.reverse(DAY)


def test_a_draft_is_not_reversed(session: Session) -> None:
    entry = books.entry(session, post=False)
    session.commit()
    with pytest.raises(ReversalError, match="draft"):
        entry.reverse(DAY)
    session.add(JournalEntry(tenant_id="acme", voucher_number="R", entry_date=DAY, reverses_id=entry.id))
    with pytest.raises(ReversalError, match="draft"):
        session.flush()


def test_a_reversal_is_not_reversed(session: Session) -> None:
    reversal = posted(session).reverse(DAY)
    with pytest.raises(ReversalError, match="is itself a reversal"):
        reversal.reverse(DAY)
    session.add(reversal)
    session.commit()
    with pytest.raises(ReversalError, match="is itself a reversal"):
        reversal.reverse(DAY)
    session.add(JournalEntry(tenant_id="acme", voucher_number="RR", entry_date=DAY, reverses_id=reversal.id))
    with pytest.raises(ReversalError, match="reverses a reversal"):
        session.flush()


def test_an_entry_is_reversed_once(session: Session) -> None:
    entry = posted(session)
    first, second = entry.reverse(DAY), entry.reverse(DAY, voucher_number="other")
    session.add(first)
    session.commit()
    with pytest.raises(ReversalError, match="already"):
        entry.reverse(DAY)
    session.add(second)
    with pytest.raises((ReversalError, IntegrityError)):
        session.flush()
    session.rollback()
    sql = (
        "INSERT INTO general_ledger (tenant_id, fiscal_year, voucher_number, entry_date, reverses_id) "
        f"VALUES ('acme', 2026, 'again', '2026-03-01', {entry.id})"
    )
    with pytest.raises(IntegrityError):
        session.execute(text(sql))


def test_two_reversals_in_one_flush_are_refused(session: Session) -> None:
    entry = posted(session)
    session.add_all([entry.reverse(DAY), entry.reverse(DAY, voucher_number="other")])
    with pytest.raises((ReversalError, IntegrityError)):
        session.flush()


def test_an_entry_does_not_reverse_itself(session: Session) -> None:
    entry = books.entry(session)
    session.flush()
    entry.reverses_id = entry.id
    with pytest.raises(ReversalError, match="reverses itself"):
        session.flush()


def test_the_database_refuses_an_entry_that_reverses_itself(session: Session) -> None:
    if session.get_bind().dialect.name == "mysql":
        pytest.skip("MariaDB takes no CHECK of a key that it numbers itself; an entry is its own reversal to nobody")
    other = posted(session)
    with pytest.raises(IntegrityError, match="reverses_another"):
        session.execute(text(f"UPDATE general_ledger SET reverses_id = id WHERE id = {other.id}"))


def test_two_entries_do_not_reverse_each_other(session: Session) -> None:
    entry = books.entry(session)
    session.flush()
    reversal = entry.reverse(DAY)
    session.add(reversal)
    session.flush()
    entry.reverses_id = reversal.id
    with pytest.raises(ReversalError):
        session.flush()


def test_a_posting_and_its_reversal_may_share_a_flush(session: Session) -> None:
    entry = books.entry(session)
    session.add(entry.reverse(DAY))
    session.commit()
    assert entry.reversed_by is not None


# -- the SQL that an accountant would type ---------------------------------------------------------------


def test_the_sql_that_an_accountant_would_type_works_as_it_stands(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    entry = posted(session, source=("ehf_invoice", invoice.id))
    source = session.execute(text(f"SELECT source_type, source_id FROM general_ledger WHERE id = {entry.id}")).one()
    assert tuple(source) == ("ehf_invoice", invoice.id)
    lines = session.execute(text(f"SELECT * FROM general_ledger_lines WHERE general_ledger_id = {entry.id}")).all()
    assert [line.account_number for line in lines] == ["2400", "4000"]


def test_a_refused_statement_leaves_the_session_usable(session: Session) -> None:
    books.vendor_invoice(session)
    session.commit()
    with pytest.raises(DBAPIError):
        session.execute(text("INSERT INTO vendors (tenant_id) VALUES (NULL)"))
    session.rollback()
    assert session.scalar(select(func.count()).select_from(VendorInvoice)) == 1
