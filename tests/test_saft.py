"""The SAF-T reader: what a file becomes in the books, and every way in which a file is refused."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from lxml import etree
from sqlalchemy import Engine, func, inspect, select
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync, Settings
from ledger_sync.contrib.saft import SaftProgress, SaftReport, import_saft
from ledger_sync.contrib.saft.read import SaftFile
from ledger_sync.contrib.saft.vouchers import Chart
from ledger_sync.errors import ImportRefusedError
from ledger_sync.models import (
    Base,
    Customer,
    CustomerInvoice,
    CustomerLedger,
    CustomerPayment,
    JournalEntry,
    JournalLine,
    SourceLink,
    SupplierLedger,
    Vendor,
    VendorInvoice,
    VendorPayment,
)
from tests.conftest import make_sqlite, shared_file
from tests.watching import statements

NAMESPACE = "urn:StandardAuditFile-Taxation-Financial:NO"
TOYEN = "saft/toyen_lekefabrikk_2017.xml"
TENANT = "888888888"
BOOKS = (
    "general_ledger",
    "general_ledger_lines",
    "ledger_source_links",
    "vendors",
    "customers",
    "vendor_invoices",
    "vendor_payments",
    "customer_invoices",
    "customer_payments",
    "supplier_ledger",
    "customer_ledger",
)


# --- files to import ---------------------------------------------------------------------------------------


def tag(name: str, *content: object) -> str:
    """An element, or nothing where its one content is None."""
    return "" if content == (None,) else f"<{name}>{''.join(str(part) for part in content)}</{name}>"


def amounts(opening: object, closing: object = 0) -> str:
    parts = []
    for name, value in (("Opening", Decimal(str(opening))), ("Closing", Decimal(str(closing)))):
        parts.append(tag(f"{name}{'Debit' if value >= 0 else 'Credit'}Balance", abs(value)))
    return "".join(parts)


def account(number: str, opening: object = 0, version: str = "1.30", standard: str | None = None) -> str:
    code = standard or number[:4].ljust(4, "0")
    if version == "1.30":
        codes = tag("GroupingCategory", "RF-1167") + tag("GroupingCode", code)
    else:
        codes = tag("StandardAccountID", code[:2])
    return tag(
        "Account",
        tag("AccountID", number),
        tag("AccountDescription", f"Konto {number}"),
        codes,
        tag("AccountType", "GL"),
        amounts(opening),
    )


def party(kind: str, number: str, balances: Iterable[tuple[str | None, object]] = (), version: str = "1.30") -> str:
    own = "".join(
        tag("BalanceAccount", tag("AccountID", on), amounts(opening))
        if version == "1.30"
        else tag("AccountID", on) + amounts(opening)
        for on, opening in balances
    )
    return tag(kind, tag("Name", f"{kind} {number}"), "<Address/>", tag(f"{kind}ID", number), own)


def line(on: str, amount: object, **more: object) -> str:
    """A transaction's line: ``amount`` is debit less credit; ``customer``, ``supplier``, ``cid`` and so on."""
    signed = Decimal(str(amount))
    money = tag("Amount", abs(signed))
    if "currency" in more:
        money += tag("CurrencyCode", more["currency"]) + tag("CurrencyAmount", more["currency_amount"])
    return tag(
        "Line",
        tag("RecordID", 1),
        tag("AccountID", on),
        tag("SourceDocumentID", more.get("source")),
        tag("CustomerID", more.get("customer")),
        tag("SupplierID", more.get("supplier")),
        tag("Description", more.get("text", "linje")),
        tag("DebitAmount" if signed >= 0 else "CreditAmount", money),
        tag("ReferenceNumber", more.get("number")),
        tag("CID", more.get("cid")),
        tag("DueDate", more.get("due")),
        tag("CrossReference", more.get("cross")),
    )


def transaction(number: object, on: str, *lines: str, **more: object) -> str:
    return tag(
        "Transaction",
        tag("TransactionID", number),
        tag("Period", int(on[5:7])),
        tag("PeriodYear", more.get("year", on[:4])),
        tag("TransactionDate", on),
        tag("Description", more.get("text", "bilag")),
        tag("SystemEntryDate", on),
        tag("GLPostingDate", more.get("posted", on)),
        tag("CustomerID", more.get("customer")),
        tag("SupplierID", more.get("supplier")),
        *lines,
    )


def saft(
    accounts: Iterable[str],
    parties: Iterable[str] = (),
    transactions: Iterable[str] = (),
    *,
    version: str = "1.30",
    start: str = "2024-01",
    end: str = "2024-12",
    company: str = "987654321",
    totals: tuple[int, object] | None = None,
) -> str:
    """A whole file. Elements stand on lines of their own, so that an error's line can be told."""
    transactions, parties = list(transactions), list(parties)
    total = (
        totals[1]
        if totals
        else sum(
            (
                Decimal(amount.text or "0")
                for one in transactions
                for amount in ElementTree.fromstring(one).iterfind("Line/DebitAmount/Amount")
            ),
            Decimal(0),
        )
    )
    customers = [one for one in parties if one.startswith("<Customer>")]
    suppliers = [one for one in parties if one.startswith("<Supplier>")]
    contact = tag(
        "Contact",
        tag("ContactPerson", tag("FirstName", "Kari"), tag("LastName", "Lie")),
        tag("Telephone", "12345678"),
    )
    header = tag(
        "Header",
        tag("AuditFileVersion", version),
        tag("AuditFileCountry", "NO"),
        tag("AuditFileDateCreated", "2025-01-02"),
        tag("SoftwareCompanyName", "X"),
        tag("SoftwareID", "X"),
        tag("SoftwareVersion", "1"),
        tag("Company", tag("RegistrationNumber", company), tag("Name", "Sjø &amp; Land AS"), "<Address/>", contact),
        tag("DefaultCurrencyCode", "NOK"),
        tag(
            "SelectionCriteria",
            tag("PeriodStart", int(start[5:])),
            tag("PeriodStartYear", start[:4]),
            tag("PeriodEnd", int(end[5:])),
            tag("PeriodEndYear", end[:4]),
        ),
        tag("TaxAccountingBasis", "A"),
    )
    content = [
        header,
        "<MasterFiles>",
        tag("GeneralLedgerAccounts", "\n", "\n".join(accounts)),
        tag("Customers", "\n", "\n".join(customers)) if customers else "",
        tag("Suppliers", "\n", "\n".join(suppliers)) if suppliers else "",
        "</MasterFiles>",
        "<GeneralLedgerEntries>",
        tag("NumberOfEntries", totals[0] if totals else len(transactions)),
        tag("TotalDebit", total),
        tag("TotalCredit", total),
        f"<Journal>{tag('JournalID', 'J1')}{tag('Description', 'Journal')}{tag('Type', 'GL')}",
        *transactions,
        "</Journal></GeneralLedgerEntries>",
    ]
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<AuditFile xmlns="{NAMESPACE}">\n'
        + "\n".join(content)
        + "\n</AuditFile>"
    )


def validate(text: str, version: str) -> None:
    schema = etree.XMLSchema(etree.parse(shared_file(f"saft/Norwegian_SAF-T_Financial_Schema_v_{version}.xsd")))
    schema.assertValid(etree.fromstring(text.encode()))


@pytest.fixture
def books(engine: Engine) -> sessionmaker[Session]:
    """A factory on the database of the test, without any sync."""
    return sessionmaker(engine)


@pytest.fixture
def read(books: sessionmaker[Session], tmp_path: Path) -> Callable[..., SaftReport]:
    """Write a file and import it."""

    def _read(content: str | bytes, **options: Any) -> SaftReport:
        path = tmp_path / "file.xml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return import_saft(books, path, **options)

    return _read


def dump(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the books and the subledgers."""
    with engine.connect() as connection:
        tables = Base.metadata.tables
        return {
            name: [tuple(row) for row in connection.execute(select(tables[name]).order_by(*tables[name].primary_key))]
            for name in BOOKS
        }


def is_empty(engine: Engine) -> bool:
    return not any(dump(engine).values())


def rows(books: sessionmaker[Session], *columns: Any) -> list[tuple[Any, ...]]:
    with books() as session:
        return [tuple(row) for row in session.execute(select(*columns).order_by(*columns))]


ACCOUNTS = [account(number) for number in ("1500", "1920", "2400", "3000", "4000")]
PARTIES = [party("Customer", "C1"), party("Customer", "C2"), party("Supplier", "S1")]
SALE = transaction(1, "2024-03-01", line("1500", 100, customer="C1", number="F1"), line("3000", -100))


# --- the tax authority's own example -----------------------------------------------------------------------


def closings(path: Path) -> dict[tuple[str, str], Decimal]:
    """Per party the closing balance that the file states, in the ledger's direction; read without the package."""
    found = {}
    space = {"n": NAMESPACE}
    for kind, side in (("Customer", 1), ("Supplier", -1)):
        for element in ElementTree.parse(path).getroot().iterfind(f"n:MasterFiles/n:{kind}s/n:{kind}", space):
            debit = element.findtext("n:ClosingDebitBalance", "0", space)
            credit = element.findtext("n:ClosingCreditBalance", "0", space)
            number = element.findtext(f"n:{kind}ID", "", space)
            found[kind, number] = side * (Decimal(debit) - Decimal(credit))
    return found


def open_items(books: sessionmaker[Session]) -> dict[tuple[str, str], Decimal]:
    found = {}
    for kind, item, model, key in (
        ("Customer", CustomerLedger, Customer, CustomerLedger.customer_id),
        ("Supplier", SupplierLedger, Vendor, SupplierLedger.supplier_id),
    ):
        with books() as session:
            for number, amount in session.execute(
                select(model.number, item.amount).join(item, key == model.id, isouter=True)
            ):
                found[kind, number] = found.get((kind, number), Decimal(0)) + (amount or 0)
    return found


class TestTheExampleFile:
    def test_open_items_add_up_to_the_closing_balance_of_every_party(
        self, books: sessionmaker[Session], sync: LedgerSync
    ) -> None:
        path = shared_file(TOYEN)
        import_saft(books, path, contra_account="2050")
        sync.backfill(books, tenant_id=TENANT)
        stated = closings(path)
        assert len(stated) == 12
        assert open_items(books) == stated

    def test_the_differences_are_wholly_manual(self, books: sessionmaker[Session], sync: LedgerSync) -> None:
        import_saft(books, shared_file(TOYEN), contra_account="2050")
        sync.backfill(books, tenant_id=TENANT)
        with books() as session:
            proof = sync.verify(session, TENANT)
        assert proof.clean
        found = {
            number: (one.gl_balance, one.subledger_balance, one.difference, [(c.name, c.amount) for c in one.causes])
            for number in ("1500", "2400")
            for one in [proof.account(number)]
        }
        assert found == {
            "1500": (
                Decimal("103700.00"),
                Decimal("135500.00"),
                Decimal("-31800.00"),
                [("manual", Decimal("-31800.00"))],
            ),
            "2400": (
                Decimal("212025.00"),
                Decimal("62224.50"),
                Decimal("149800.50"),
                [("manual", Decimal("149800.50"))],
            ),
        }

    def test_a_second_import_and_backfill_change_nothing(
        self, engine: Engine, books: sessionmaker[Session], sync: LedgerSync
    ) -> None:
        import_saft(books, shared_file(TOYEN), contra_account="2050")
        sync.backfill(books, tenant_id=TENANT)
        before = dump(engine)
        report = import_saft(books, shared_file(TOYEN), contra_account="2050")
        again = sync.backfill(books, tenant_id=TENANT)
        assert (report.entries, report.documents, report.entries_existing, report.opening) == (0, 0, 54, "existing")
        assert again.synced == 0
        assert dump(engine) == before

    def test_the_report_says_what_came_in(self, books: sessionmaker[Session]) -> None:
        report = import_saft(books, shared_file(TOYEN), contra_account="2050")
        assert report == SaftReport(
            tenant_id=TENANT,
            company_name="Tøyen Lekefabrikk AS",
            version="1.0",
            period_start=date(2017, 1, 1),
            period_end=date(2017, 4, 30),
            entries=54,
            lines=189,
            customers=6,
            suppliers=6,
            documents=73,
            entries_existing=0,
            opening="posted",
            warnings=(
                "The opening balances do not balance: debit less credit is 2,545,410.00. Account 2050 takes the "
                "difference.",
            ),
        )

    def test_openings_that_do_not_balance_need_a_contra_account(
        self, engine: Engine, books: sessionmaker[Session]
    ) -> None:
        with pytest.raises(ImportRefusedError, match=r"2,545,410\.00.*--contra-account"):
            import_saft(books, shared_file(TOYEN))
        assert is_empty(engine)

    def test_a_number_that_suppliers_reuse_makes_a_document_each_time(self, books: sessionmaker[Session]) -> None:
        import_saft(books, shared_file(TOYEN), contra_account="2050")
        with books() as session:
            reused = select(VendorInvoice).where(VendorInvoice.invoice_number == "1155")
            assert len({invoice.vendor_id for invoice in session.scalars(reused)}) == 2
            assert len(session.scalars(reused).all()) == 4

    def test_an_entry_with_one_control_line_names_its_source_itself(self, books: sessionmaker[Session]) -> None:
        import_saft(books, shared_file(TOYEN), contra_account="2050")
        with books() as session:
            entry = session.scalars(select(JournalEntry).where(JournalEntry.voucher_number == "1001")).one()
            invoice = session.get_one(VendorInvoice, entry.source_id)
            assert (entry.source_type, invoice.amount, invoice.kind) == ("vendor_invoice", 12500, "invoice")
            assert entry.posted_at == datetime(2017, 1, 5, tzinfo=UTC)

    def test_a_payment_of_many_has_a_document_for_each_line(self, books: sessionmaker[Session]) -> None:
        import_saft(books, shared_file(TOYEN), contra_account="2050")
        with books() as session:
            entry = session.scalars(select(JournalEntry).where(JournalEntry.voucher_number == "1040")).one()
            links = [one.link for one in entry.lines if one.account_number == "2400" and one.link]
            assert entry.source_type is None
            assert {(link.source_type, link.method) for link in links} == {("vendor_payment", "saft")}
            paid = [session.get_one(VendorPayment, link.source_id).amount for link in links]
            assert paid == [15000, Decimal("28812.50"), 75000, 25000, Decimal("873.75")]

    def test_progress_ends_with_the_whole_file(self, books: sessionmaker[Session]) -> None:
        seen: list[SaftProgress] = []
        import_saft(books, shared_file(TOYEN), contra_account="2050", on_progress=seen.append)
        size = shared_file(TOYEN).stat().st_size
        assert seen[-1] == SaftProgress(bytes_read=size, bytes_total=size, entries=53)

    def test_a_callback_that_raises_leaves_nothing(self, engine: Engine, books: sessionmaker[Session]) -> None:
        def stop(progress: SaftProgress) -> None:
            if progress.entries:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            import_saft(books, shared_file(TOYEN), contra_account="2050", on_progress=stop)
        assert is_empty(engine)

    def test_posting_the_same_books_live_gives_the_same_rows(
        self, engine: Engine, books: sessionmaker[Session], sync: LedgerSync, tmp_path: Path
    ) -> None:
        import_saft(books, shared_file(TOYEN), contra_account="2050")
        sync.backfill(books, tenant_id=TENANT)
        live_engine = make_sqlite(tmp_path / "live.db")
        live = sessionmaker(live_engine)
        sync.attach(live)
        with books() as source, live() as session:
            post_again(source, session)
        try:
            expected = business_rows(books)
            assert len(expected) == 73
            assert business_rows(live) == expected
        finally:
            live_engine.dispose()


def copied(original: Any, **changed: Any) -> Any:
    """A new object with the columns of another, but for its key and what is changed."""
    columns = [attribute.key for attribute in inspect(type(original)).column_attrs]
    values = {name: getattr(original, name) for name in columns if name not in {"id", "created_at"}}
    return type(original)(**{**values, **changed})


def post_again(source: Session, session: Session) -> None:
    """Post the books of one session through ORM objects in another, entry by entry."""
    ids: dict[tuple[str, int], int] = {}

    def take(model: Any, name: str, **keys: str) -> None:
        for original in source.scalars(select(model).order_by(model.id)):
            made = copied(original, **{key: ids[to, getattr(original, key)] for key, to in keys.items()})
            session.add(made)
            session.flush()
            ids[name, original.id] = made.id

    take(Customer, "customer")
    take(Vendor, "vendor")
    take(CustomerInvoice, "customer_invoice", customer_id="customer")
    take(CustomerPayment, "customer_payment", customer_id="customer")
    take(VendorInvoice, "vendor_invoice", vendor_id="vendor")
    take(VendorPayment, "vendor_payment", vendor_id="vendor")
    for entry in source.scalars(select(JournalEntry).order_by(JournalEntry.id)):
        source_id = None if entry.source_id is None else ids[str(entry.source_type), entry.source_id]
        made = copied(entry, source_id=source_id)
        for original in entry.lines:
            new = copied(original, general_ledger_id=None)
            if original.link is not None:
                link = original.link
                new.link = copied(link, line_id=None, source_id=ids[link.source_type, link.source_id])
            made.lines.append(new)
        session.add(made)
        session.commit()


def business_rows(books: sessionmaker[Session]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The open items by voucher and line, with all columns that are not ids, times or settlement."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    left_out = {
        "id",
        "general_ledger_id",
        "general_ledger_line_id",
        "source_id",
        "settlement_key",
        "remaining_amount",
        "status",
        "run_id",
        "created_at",
        "updated_at",
    }
    for item, model, key in ((CustomerLedger, Customer, "customer_id"), (SupplierLedger, Vendor, "supplier_id")):
        kept = [column.key for column in inspect(item).column_attrs if column.key not in {*left_out, key}]
        query = (
            select(item, model.number, JournalEntry, JournalLine.line_number)
            .join(model, model.id == getattr(item, key))
            .join(JournalEntry, JournalEntry.id == item.general_ledger_id)
            .join(JournalLine, JournalLine.id == item.general_ledger_line_id)
        )
        with books() as session:
            for row, number, entry, line_number in session.execute(query):
                voucher = (item.__tablename__, entry.fiscal_year, entry.voucher_series, entry.voucher_number)
                found[(*voucher, line_number)] = {"party": number, **{name: getattr(row, name) for name in kept}}
    return found


# --- what a file becomes -----------------------------------------------------------------------------------


class TestDocuments:
    def test_generated_files_are_what_the_schema_asks_for(self) -> None:
        for version in ("1.10", "1.30"):
            parties = [party("Customer", "C1", [("1500", 5)], version), party("Supplier", "S1", version=version)]
            accounts = [account(number, version=version) for number in ("1500", "1920", "2400", "3000")]
            sale = transaction(
                1,
                "2024-03-01",
                line("1500", 100, customer="C1", number="F1", cid="123", due="2024-03-15", cross="X"),
                line("3000", -100, currency="EUR", currency_amount="9.50", source="1"),
                customer="C1",
            )
            validate(saft(accounts, parties, [sale], version=version), version)

    def test_an_invoice_takes_number_reference_and_due_date_from_its_line(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session]
    ) -> None:
        bill = line("1500", 100, customer="C1", number="F1", cid="00123", due="2024-03-15")
        read(saft(ACCOUNTS, PARTIES, [transaction(7, "2024-03-01", bill, line("3000", -100))]))
        i = CustomerInvoice
        assert rows(books, i.kind, i.invoice_number, i.payment_reference, i.invoice_date, i.due_date, i.amount) == [
            ("invoice", "F1", "00123", date(2024, 3, 1), date(2024, 3, 15), Decimal(100))
        ]
        assert rows(books, JournalLine.account_number, JournalLine.due_date, JournalLine.reference)[0] == (
            "1500",
            date(2024, 3, 15),
            "00123",
        )

    @pytest.mark.parametrize(
        ("given", "reference", "number"),
        [
            ({"cross": "A", "cid": "B", "number": "C", "source": "D"}, "A", "C"),
            ({"cid": "B", "number": "C", "source": "D"}, "B", "C"),
            ({"number": "C", "source": "D"}, "C", "C"),
            ({"source": "D"}, None, "D"),
            ({}, None, "7"),
        ],
    )
    def test_reference_and_number_come_from_the_first_field_that_is_there(
        self,
        read: Callable[..., SaftReport],
        books: sessionmaker[Session],
        given: dict[str, str],
        reference: str | None,
        number: str,
    ) -> None:
        bill = line("2400", -100, supplier="S1", **given)
        read(saft(ACCOUNTS, PARTIES, [transaction(7, "2024-03-01", bill, line("4000", 100))]))
        assert rows(books, VendorInvoice.payment_reference, VendorInvoice.invoice_number) == [(reference, number)]

    def test_the_other_direction_is_a_payment_beside_a_bank_line(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session]
    ) -> None:
        # the bank's own number says nothing; its standard account does
        accounts = [*ACCOUNTS, account("10010", standard="1920")]
        pay = transaction(1, "2024-03-01", line("1500", -100, customer="C1", cid="123"), line("10010", 100))
        read(saft(accounts, PARTIES, [pay]))
        p = CustomerPayment
        assert rows(books, p.payment_reference, p.payment_date, p.amount) == [("123", date(2024, 3, 1), Decimal(100))]

    def test_the_other_direction_is_a_credit_note_without_a_bank_line(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session], sync: LedgerSync
    ) -> None:
        credit = transaction(1, "2024-03-01", line("2400", 100, supplier="S1"), line("4000", -100))
        read(saft(ACCOUNTS, PARTIES, [credit]))
        sync.backfill(books, tenant_id="987654321")
        assert rows(books, VendorInvoice.kind, VendorInvoice.amount) == [("credit_note", Decimal(100))]
        assert rows(books, SupplierLedger.kind, SupplierLedger.amount) == [("credit_note", Decimal(-100))]

    def test_a_transactions_party_counts_for_lines_that_name_none(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session]
    ) -> None:
        sale = transaction(
            1,
            "2024-03-01",
            line("1500", 100),
            line("1500", 50, customer="C2"),
            line("3000", -150),
            customer="C1",
        )
        read(saft(ACCOUNTS, PARTIES, [sale]))
        with books() as session:
            query = select(Customer.number, CustomerInvoice.amount).join(
                CustomerInvoice, CustomerInvoice.customer_id == Customer.id
            )
            assert sorted(map(tuple, session.execute(query))) == [("C1", 100), ("C2", 50)]

    def test_a_control_line_without_a_party_is_manual(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session], sync: LedgerSync
    ) -> None:
        read(saft(ACCOUNTS, PARTIES, [transaction(1, "2024-03-01", line("1500", 100), line("3000", -100))]))
        assert sync.backfill(books, tenant_id="987654321").skipped == {"manual": 1}

    def test_two_control_lines_have_links_and_no_entry_source(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session], sync: LedgerSync
    ) -> None:
        # one with a party, one without: the entry's source would cover both
        mixed = transaction(1, "2024-03-01", line("1500", 100, customer="C1"), line("1500", -100))
        read(saft(ACCOUNTS, PARTIES, [mixed]))
        assert rows(books, JournalEntry.source_type) == [(None,)]
        assert rows(books, SourceLink.source_type, SourceLink.method) == [("customer_invoice", "saft")]
        assert sync.backfill(books, tenant_id="987654321").skipped == {"manual": 1}

    def test_a_foreign_currency_stays_with_its_line(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session]
    ) -> None:
        bill = line("2400", "-1150.00", supplier="S1", currency="EUR", currency_amount="100.00")
        read(saft(ACCOUNTS, PARTIES, [transaction(1, "2024-03-01", bill, line("4000", 1150))]))
        assert rows(books, JournalLine.currency, JournalLine.currency_amount) == [
            ("EUR", Decimal(100)),
            ("NOK", None),
        ]
        assert rows(books, VendorInvoice.currency, VendorInvoice.amount) == [("NOK", Decimal(1150))]

    def test_a_source_has_the_name_that_the_settings_give_it(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session]
    ) -> None:
        settings = Settings(
            control_accounts=({"accounts": "1500", "ledger": "customer", "sources": {"faktura": "customer_invoice"}},)
        )
        read(saft(ACCOUNTS, PARTIES, [SALE]), settings=settings)
        assert rows(books, JournalEntry.source_type) == [("faktura",)]

    def test_a_zero_line_has_a_document_of_nothing(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session], sync: LedgerSync
    ) -> None:
        read(saft(ACCOUNTS, PARTIES, [transaction(1, "2024-03-01", line("1500", 0, customer="C1"), line("3000", 0))]))
        assert rows(books, CustomerInvoice.kind, CustomerInvoice.amount) == [("invoice", Decimal(0))]
        assert sync.backfill(books, tenant_id="987654321").skipped == {"zero_amount": 1}

    def test_long_texts_are_cut(self, read: Callable[..., SaftReport], books: sessionmaker[Session]) -> None:
        sale = transaction(
            1, "2024-03-01", line("1500", 100, customer="C1", text="x" * 900), line("3000", -100), text="y" * 900
        )
        read(saft(ACCOUNTS, PARTIES, [sale]))
        assert rows(books, JournalEntry.description) == [("y" * 500,)]

    def test_totals_that_do_not_agree_are_a_warning(self, read: Callable[..., SaftReport]) -> None:
        report = read(saft(ACCOUNTS, PARTIES, [SALE], totals=(2, "100.50")))
        assert report.warnings == (
            "NumberOfEntries is 2 in the file, but its transactions make 1.",
            "TotalDebit is 100.50 in the file, but its transactions make 100.00.",
            "TotalCredit is 100.50 in the file, but its transactions make 100.00.",
        )

    def test_parties_that_are_there_are_kept(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session]
    ) -> None:
        with books() as session:
            session.add(Customer(tenant_id="987654321", number="C1", name="Our own name"))
            session.add(Customer(tenant_id="another", number="C2", name="Somebody else's"))
            session.commit()
        report = read(saft(ACCOUNTS, PARTIES, [SALE]))
        assert (report.customers, report.suppliers) == (1, 1)
        assert rows(books, Customer.tenant_id, Customer.number, Customer.name) == [
            ("987654321", "C1", "Our own name"),
            ("987654321", "C2", "Customer C2"),
            ("another", "C2", "Somebody else's"),
        ]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
    def test_the_encoding_is_the_files_own(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session], encoding: str
    ) -> None:
        declared = encoding.removesuffix("-sig").upper()
        text = saft(ACCOUNTS, PARTIES, [SALE]).replace('encoding="UTF-8"', f'encoding="{declared}"')
        report = read(text.encode(encoding))
        assert (report.company_name, report.entries) == ("Sjø & Land AS", 1)

    def test_the_work_of_a_voucher_grows_with_its_lines_not_with_the_square(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []
        code = Chart.code
        monkeypatch.setattr(Chart, "code", lambda chart, number: asked.append(number) or code(chart, number))
        collected = [line("1500", -1, customer="C1", number=f"F{number}") for number in range(100)]
        read(saft(ACCOUNTS, PARTIES, [transaction(1, "2024-03-01", *collected, line("1920", 100))]))
        assert rows(books, func.count(CustomerPayment.id)) == [(100,)]
        assert len(asked) <= 4 * 101


# --- openings ----------------------------------------------------------------------------------------------


def opening_lines(books: sessionmaker[Session]) -> list[tuple[str, Decimal, str | None]]:
    """Account, debit less credit and source of the lines of the opening entry."""
    with books() as session:
        entry = session.scalars(select(JournalEntry).where(JournalEntry.voucher_series == "OPENING")).one()
        return [
            (one.account_number, one.signed_amount, one.link.source_type if one.link else entry.source_type)
            for one in entry.lines
        ]


class TestOpenings:
    def test_balance_accounts_of_1_30_make_a_line_per_party_and_account(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session]
    ) -> None:
        settings = Settings(
            control_accounts=(
                {"accounts": ("1500", "1510"), "ledger": "customer"},
                {"accounts": "2400", "ledger": "supplier"},
            )
        )
        text = saft(
            [
                account("1500", 150),
                account("1510", 40),
                account("1920", 60),
                account("2000", -230),
                account("2400", -20),
                account("3000"),
            ],
            [
                party("Customer", "C1", [("1500", 100), ("1510", 40), ("1920", 7)]),
                party("Customer", "C2", [(None, -30)]),
                party("Supplier", "S1", [("2400", -20)]),
            ],
        )
        validate(text, "1.30")
        report = read(text, settings=settings)
        assert report.opening == "posted"
        assert opening_lines(books) == [
            ("1500", Decimal(100), "customer_invoice"),
            ("1500", Decimal(-30), "customer_payment"),
            ("1500", Decimal(80), None),
            ("1510", Decimal(40), "customer_invoice"),
            ("1920", Decimal(60), None),
            ("2000", Decimal(-230), None),
            ("2400", Decimal(-20), "vendor_invoice"),
        ]
        e = JournalEntry
        assert rows(books, e.voucher_series, e.voucher_number, e.entry_date) == [
            ("OPENING", "2024-01", date(2024, 1, 1))
        ]

    def test_the_contra_account_takes_the_difference_with_a_warning(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session]
    ) -> None:
        report = read(saft([account("1500", 70)], [party("Customer", "C1", [("1500", 50)])]), contra_account="8999")
        assert opening_lines(books) == [
            ("1500", Decimal(50), "customer_invoice"),
            ("1500", Decimal(20), None),
            ("8999", Decimal(-70), None),
        ]
        assert "Account 8999 takes the difference" in report.warnings[0]

    def test_a_file_without_openings_posts_none(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session]
    ) -> None:
        report = read(saft(ACCOUNTS, PARTIES, [SALE]))
        assert (report.opening, report.entries) == ("none", 1)

    def test_a_file_that_continues_compares_its_openings(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session]
    ) -> None:
        sale = transaction(1, "2024-03-01", line("1500", 100, customer="C1"), line("3000", -100))
        read(saft(ACCOUNTS, PARTIES, [sale], end="2024-06"))
        accounts = [account("1500", 100), account("1920"), account("2400"), account("3000", -90), account("4000")]
        parties = [party("Customer", "C1", [("1500", 60)]), party("Customer", "C2", [("1500", 40)])]
        later = transaction(2, "2024-07-01", line("1500", 5, customer="C1"), line("3000", -5))
        report = read(saft(accounts, parties, [later], start="2024-07"))
        assert report.opening == "compared"
        assert report.entries == 1
        assert report.warnings == (
            "Account 3000 opens with -90.00 in the file, but the books hold -100.00 before 2024-07-01 "
            "(debit less credit).",
            "Customer C1 on account 1500 opens with 60.00 in the file, but the books hold 100.00 before 2024-07-01 "
            "(debit less credit).",
            "Customer C2 on account 1500 opens with 40.00 in the file, but the books hold 0.00 before 2024-07-01 "
            "(debit less credit).",
        )

    def test_a_new_year_compares_the_balance_sheet_alone(
        self, read: Callable[..., SaftReport], books: sessionmaker[Session]
    ) -> None:
        read(saft(ACCOUNTS, PARTIES, [SALE]))
        # dated in the old year, booked in the new: not yet in the opening
        early = transaction(1, "2024-12-30", line("1500", 5, customer="C1"), line("3000", -5), year=2025)
        accounts = [account("1500", 100), account("2050", -100), account("3000")]
        text = saft(accounts, [party("Customer", "C1", [("1500", 100)])], [early], start="2025-01", end="2025-12")
        equity = (
            "Account 2050 opens with -100.00 in the file, but the books hold 0.00 before 2025-01-01 "
            "(debit less credit).",
        )
        assert (read(text).warnings, read(text).warnings) == (equity, equity)

    def test_an_earlier_file_after_a_later_one_is_refused(self, read: Callable[..., SaftReport]) -> None:
        accounts = [account("1920", 50), account("2000", -50)]
        read(saft(accounts, start="2024-01"))
        with pytest.raises(ImportRefusedError, match="oldest first"):
            read(saft(accounts, start="2023-01", end="2023-12"))

    def test_other_openings_for_the_same_period_are_refused(
        self, engine: Engine, read: Callable[..., SaftReport]
    ) -> None:
        read(saft([account("1920", 50), account("2000", -50)]))
        before = dump(engine)
        with pytest.raises(ImportRefusedError, match="OPENING-2024-01/2024"):
            read(saft([account("1920", 60), account("2000", -60)]))
        assert dump(engine) == before


# --- what is refused ---------------------------------------------------------------------------------------

GOOD = saft(ACCOUNTS, PARTIES, [SALE])
BOMB = (
    '<!DOCTYPE AuditFile [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1 or str()};" * 10}">' for n in range(1, 10))
    + "]>"
)


def replaced(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


REFUSED = [
    ("", "empty"),
    ("kunde;beløp\n1;100\n", "not XML"),
    (b"PK\x03\x04 and so on", "packed archive"),
    (b"\x00\x01\x02\xff", "not XML"),
    ("<html><body/></html>", "root element is html"),
    ('<AuditFile xmlns="urn:OECD:StandardAuditFile-Tax:PT_1.04_01"><Header/></AuditFile>', "namespace"),
    (f'<AuditFile xmlns="{NAMESPACE}"></AuditFile>', "no Header"),
    (replaced("<AuditFileVersion>1.30", "<AuditFileVersion>2.00"), "AuditFileVersion '2.00'"),
    (replaced("<AuditFileVersion>1.30", "<AuditFileVersion>1.40"), "AuditFileVersion '1.40'"),
    (replaced("\n<AuditFile ", f"\n{BOMB}\n<AuditFile "), "document type"),
    (
        replaced("\n<AuditFile ", '\n<!-- > --><!DOCTYPE AuditFile SYSTEM "http://127.0.0.1:9/x.dtd">\n<AuditFile '),
        "document type",
    ),
    (
        replaced("\n<AuditFile ", '\n<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>\n<AuditFile ').replace(
            "bilag", "&x;"
        ),
        "document type",
    ),
    (replaced("bilag", "&x;"), "not well-formed"),
    (replaced('encoding="UTF-8"', 'encoding="UTF-7"'), "encoding 'UTF-7'"),
    (
        replaced("\n<AuditFile ", f"\n{BOMB}\n<AuditFile ").replace("UTF-8", "UTF-16", 1).encode("utf-16"),
        "document type",
    ),
    (GOOD[: len(GOOD) // 2], "cut off"),
    (GOOD[:-20], "cut off"),
    (replaced("<Amount>100</Amount>", "<Amount>101</Amount>"), "out of balance by 1"),
    (replaced("<AccountID>3000</AccountID><Description>", "<AccountID>3999</AccountID><Description>"), "Account 3999"),
    (replaced("<CustomerID>C1</CustomerID><Description>", "<CustomerID>C9</CustomerID><Description>"), "customer C9"),
    (replaced("<Amount>100</Amount>", "<Amount>1e2</Amount>"), "not a decimal number"),
    (replaced("<Amount>100</Amount>", "<Amount>NaN</Amount>"), "not a decimal number"),
    (replaced("<Amount>100</Amount>", "<Amount>100.005</Amount>"), "more than 2 decimals"),
    (replaced("<Amount>100</Amount>", "<Amount>10000000000000</Amount>"), "beyond the bound"),
    (replaced("<Amount>100</Amount>", ""), "has no Amount"),
    (replaced("<TransactionDate>2024-03-01", "<TransactionDate>2024-02-30"), "not a date"),
    (replaced("<TransactionID>1</TransactionID>", ""), "has no TransactionID"),
    (replaced("<PeriodYear>2024", "<PeriodYear>24"), "not a year"),
    (replaced("<TransactionID>1<", f"<TransactionID>{'1' * 71}<"), "has 71 characters"),
    (replaced("<RegistrationNumber>987654321</RegistrationNumber>", ""), "no RegistrationNumber"),
    (replaced("<JournalID>J1</JournalID>", ""), "no JournalID"),
    (saft(ACCOUNTS, PARTIES, [SALE, SALE]), "appears twice"),
    (saft([*ACCOUNTS, account("1500")], PARTIES), "Account 1500 appears twice"),
    (saft(ACCOUNTS, [*PARTIES, party("Customer", "C1")]), "customer C1 appears twice"),
    (saft(ACCOUNTS, [party("Customer", "C1", [("1599", 10)])]), "Account 1599"),
]


class TestRefusals:
    @pytest.mark.parametrize(("content", "message"), REFUSED, ids=[message for _, message in REFUSED])
    def test_a_bad_file_is_refused_and_nothing_imported(
        self, sqlite_engine: Engine, tmp_path: Path, content: str | bytes, message: str
    ) -> None:
        path = tmp_path / "bad.xml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ImportRefusedError, match=re.escape(message)) as caught:
            import_saft(sessionmaker(sqlite_engine), path)
        assert str(caught.value).startswith("bad.xml")
        assert len(str(caught.value)) < 500
        assert is_empty(sqlite_engine)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("<Amount>100</Amount>", "<Amount>1OO</Amount>"),
            ("<Amount>100</Amount>", "<Amount>101</Amount>"),
            ("<CustomerID>C1</CustomerID><Description>", "<CustomerID>C9</CustomerID><Description>"),
            ("<AccountID>1500</AccountID><CustomerID>", "<AccountID>1599</AccountID><CustomerID>"),
            ("<TransactionDate>2024-03-01", "<TransactionDate>yesterday"),
            ("</Transaction>", "</Transaktion>"),
        ],
    )
    def test_the_error_names_the_line(self, sqlite_engine: Engine, tmp_path: Path, old: str, new: str) -> None:
        # the transaction stands beyond the 65,535 lines that a parser's short integer can count
        filling = "<!-- -->\n" * 70_000
        text = replaced("<GeneralLedgerEntries>", filling + "<GeneralLedgerEntries>")
        bad = text.replace("<Transaction>", "<Transaction>\n\n").replace(old, new, 1)
        path = tmp_path / "bad.xml"
        path.write_text(bad)
        with pytest.raises(ImportRefusedError) as caught:
            import_saft(sessionmaker(sqlite_engine), path)
        first = text[: text.index("<Transaction>")].count("\n") + 1
        assert caught.value.line in range(first, first + 3)
        assert str(caught.value).startswith(f"bad.xml, line {caught.value.line}: ")

    def test_a_file_that_is_not_there_is_refused(self, sqlite_engine: Engine, tmp_path: Path) -> None:
        with pytest.raises(ImportRefusedError, match=r"nowhere\.xml: It cannot be read"):
            import_saft(sessionmaker(sqlite_engine), tmp_path / "nowhere.xml")

    def test_a_late_error_takes_back_what_had_been_written(
        self, engine: Engine, read: Callable[..., SaftReport], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ledger_sync.contrib.saft.load.LINES_PER_WRITE", 4)
        sales = [
            transaction(n, "2024-03-01", line("1500", 100, customer="C1"), line("3000", -100)) for n in range(1, 30)
        ]
        with pytest.raises(ImportRefusedError, match="cut off"):
            read(saft(ACCOUNTS, PARTIES, sales)[:-30])
        assert is_empty(engine)

    def test_a_voucher_that_appears_twice_is_found_across_writes(
        self, engine: Engine, read: Callable[..., SaftReport], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ledger_sync.contrib.saft.load.LINES_PER_WRITE", 1)
        with pytest.raises(ImportRefusedError, match="J1-1/2024 appears twice"):
            read(saft(ACCOUNTS, PARTIES, [SALE, SALE]))
        assert is_empty(engine)

    @pytest.mark.parametrize(
        ("old", "new"),
        [("<Amount>100</Amount>", "<Amount>200</Amount>"), ("2024-03-01</T", "2024-03-02</T")],
    )
    def test_another_content_under_a_known_voucher_is_refused(
        self, engine: Engine, read: Callable[..., SaftReport], old: str, new: str
    ) -> None:
        read(GOOD)
        before = dump(engine)
        with pytest.raises(ImportRefusedError, match="Voucher J1-1/2024 is in the books with another content"):
            read(GOOD.replace(old, new))
        assert dump(engine) == before

    def test_without_lxml_the_error_names_the_extra(self) -> None:
        code = """
            import sys
            sys.modules["lxml"] = None
            import ledger_sync
            try:
                import ledger_sync.contrib.saft
            except ledger_sync.ConfigurationError as error:
                print(error)
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
        assert "pip install 'ledger-sync[saft]'" in done.stdout


# --- a large file ------------------------------------------------------------------------------------------


def write_large(path: Path, transactions: int) -> None:
    """A file of many transactions, each with much that the import does not read."""
    head, tail = saft(ACCOUNTS, PARTIES, totals=(transactions, 100 * transactions)).split("</Journal>")
    padding = tag("TaxInformation", tag("TaxType", "MVA"), tag("TaxBaseDescription", "x" * 1000)) * 3
    one = transaction("{number}", "2024-03-01", line("1500", 100, customer="C1"), line("3000", -100))
    one = one.replace("</Line>", f"{padding}</Line>") + "\n"
    with path.open("w") as stream:
        stream.write(head)
        for number in range(transactions):
            stream.write(one.replace("{number}", str(number)))
        stream.write("</Journal>" + tail)


def resident_bytes_max(code: str, path: Path) -> int:
    """The most memory that a process of its own held while it worked on a file."""
    script = f"import resource, sys\n{textwrap.dedent(code)}\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) * 1024


READ_ALL = """
    from ledger_sync.contrib.saft.read import SaftFile
    for record in SaftFile(sys.argv[1]):
        pass
"""
IMPORT_ALL = """
    from sqlalchemy.orm import sessionmaker
    from ledger_sync.contrib.saft import import_saft
    from ledger_sync.dialects import open_engine
    from ledger_sync.models import Base
    engine = open_engine("sqlite:///" + sys.argv[1] + ".db")
    Base.metadata.create_all(engine)
    import_saft(sessionmaker(engine), sys.argv[1])
"""


class TestLargeFiles:
    @pytest.mark.parametrize(("code", "small", "large"), [(READ_ALL, 2_000, 15_000), (IMPORT_ALL, 4_000, 15_000)])
    def test_memory_does_not_grow_with_the_file(self, tmp_path: Path, code: str, small: int, large: int) -> None:
        pytest.importorskip("resource")
        write_large(tmp_path / "small.xml", small)
        write_large(tmp_path / "large.xml", large)
        grown_file = (tmp_path / "large.xml").stat().st_size - (tmp_path / "small.xml").stat().st_size
        grown_memory = resident_bytes_max(code, tmp_path / "large.xml") - resident_bytes_max(
            code, tmp_path / "small.xml"
        )
        assert grown_memory < grown_file / 4

    def test_a_file_of_one_endless_element_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ledger_sync.contrib.saft.read.ELEMENT_BYTES_MAX", 1 << 20)
        path = tmp_path / "endless.xml"
        path.write_text(GOOD.replace("<MasterFiles>", "<MasterFiles>" + "<Junk>x</Junk>" * 200_000))
        with pytest.raises(ImportRefusedError, match="no ordinary SAF-T file"):
            list(SaftFile(path))

    def test_many_writes_make_the_same_books_as_one(
        self, engine: Engine, books: sessionmaker[Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "many.xml"
        write_large(path, 300)
        monkeypatch.setattr("ledger_sync.contrib.saft.load.LINES_PER_WRITE", 7)
        report = import_saft(books, path)
        assert (report.entries, report.lines, report.documents, report.warnings) == (300, 600, 300, ())
        with books() as session:
            # each entry's own document, in the file's order
            pairs = session.execute(
                select(JournalEntry.voucher_number, CustomerInvoice.invoice_number).join(
                    CustomerInvoice, CustomerInvoice.id == JournalEntry.source_id
                )
            ).all()
            assert len(pairs) == 300
            assert all(voucher == invoice for voucher, invoice in pairs)
            assert session.scalar(select(func.count(func.distinct(JournalEntry.source_id)))) == 300

    def test_rows_go_in_by_the_thousand(self, engine: Engine, books: sessionmaker[Session], tmp_path: Path) -> None:
        path = tmp_path / "many.xml"
        write_large(path, 2_000)
        with statements(engine) as sent:
            import_saft(books, path)
        assert len(sent) < 30
