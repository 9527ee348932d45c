"""Host (c): a group of companies with accounts that carry a dimension ("2400-OSL"), in a schema of its own.

Documents are of one joined hierarchy. Keys are texts; entries, lines and the suppliers' items have the company in their
primary keys. Posted is a boolean; the kind of source an enumeration, kept by its names. Customers' payments are no
documents: an entry that is paid names the invoice.
"""

from __future__ import annotations

import enum
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar
from uuid import uuid4

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    MetaData,
    Numeric,
    String,
    UniqueConstraint,
    func,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, synonym

from ledger_sync import ControlAccount
from ledger_sync.binding import Document, Ledger
from ledger_sync.testing import fill
from tests.hosts.kit import Host

SCHEMA = "books"
KEY = String(32)


class SourceKind(enum.Enum):
    SUPPLIER_INVOICE = 1
    SUPPLIER_PAYMENT = 2
    CUSTOMER_INVOICE = 3
    EXPENSES = 4
    SALARIES = 5


class ItemState(enum.Enum):
    open = 1
    partially_paid = 2
    paid = 3


def new_key() -> str:
    return uuid4().hex


class Base(DeclarativeBase):
    metadata = MetaData(schema=SCHEMA)
    type_annotation_map: ClassVar = {str: String(120)}  # MariaDB asks for a length


class Partner(Base):
    __tablename__ = "partners"
    id: Mapped[str] = mapped_column(KEY, primary_key=True, default=new_key)
    company: Mapped[str] = mapped_column(String(8))
    code: Mapped[str] = mapped_column(String(20))
    name: Mapped[str]
    tenant_id = synonym("company")
    number = synonym("code")


class Paper(Base):
    """A document of any kind."""

    __tablename__ = "papers"
    id: Mapped[str] = mapped_column(KEY, primary_key=True, default=new_key)
    paper_kind: Mapped[str] = mapped_column(String(20))
    company: Mapped[str] = mapped_column(String(8))
    dated: Mapped[date]
    partner_id: Mapped[str] = mapped_column(ForeignKey("books.partners.id"))
    amount: Mapped[Decimal] = mapped_column(Numeric(14, 2))
    tenant_id = synonym("company")
    __mapper_args__: ClassVar = {"polymorphic_on": "paper_kind", "polymorphic_identity": "paper"}


class Invoice(Paper):
    """What suppliers send and customers get."""

    __tablename__ = "invoices"
    id: Mapped[str] = mapped_column(ForeignKey("books.papers.id"), primary_key=True)
    number: Mapped[str]
    due: Mapped[date | None]
    nature: Mapped[str] = mapped_column(Enum("invoice", "credit_note", name="nature"))
    ocr: Mapped[str | None]
    credited_id: Mapped[str | None] = mapped_column(ForeignKey("books.invoices.id"))
    __mapper_args__: ClassVar = {"polymorphic_identity": "invoice"}


class SupplierInvoice(Invoice):
    __mapper_args__: ClassVar = {"polymorphic_identity": "supplier_invoice"}


class CustomerInvoice(Invoice):
    __mapper_args__: ClassVar = {"polymorphic_identity": "customer_invoice"}


class Remittance(Paper):
    """What is paid to suppliers."""

    __tablename__ = "remittances"
    id: Mapped[str] = mapped_column(ForeignKey("books.papers.id"), primary_key=True)
    ocr: Mapped[str | None]
    __mapper_args__: ClassVar = {"polymorphic_identity": "remittance"}


class Expenses(Paper):
    __tablename__ = "expenses"
    id: Mapped[str] = mapped_column(ForeignKey("books.papers.id"), primary_key=True)
    report_number: Mapped[str]
    __mapper_args__: ClassVar = {"polymorphic_identity": "expenses"}


class Journal(Base):
    __tablename__ = "journal"
    company: Mapped[str] = mapped_column(String(8), primary_key=True)
    id: Mapped[str] = mapped_column(KEY, primary_key=True, unique=True, default=new_key)
    voucher: Mapped[str]
    day: Mapped[date]
    is_posted: Mapped[bool] = mapped_column(Boolean(), default=False)
    source_kind: Mapped[SourceKind | None] = mapped_column(Enum(SourceKind))
    source_key: Mapped[str | None] = mapped_column(KEY)
    corrects: Mapped[str | None] = mapped_column(KEY, unique=True)
    rows: Mapped[list[JournalRow]] = relationship(
        back_populates="journal", cascade="all, delete-orphan", order_by="JournalRow.row"
    )
    __table_args__ = (
        UniqueConstraint("company", "voucher"),
        ForeignKeyConstraint(["company", "corrects"], ["books.journal.company", "books.journal.id"]),
    )

    tenant_id = synonym("company")
    voucher_number = synonym("voucher")
    entry_date = synonym("day")
    posted = synonym("is_posted")
    source_type = synonym("source_kind")
    source_id = synonym("source_key")
    reverses_id = synonym("corrects")


class JournalRow(Base):
    __tablename__ = "journal_rows"
    company: Mapped[str] = mapped_column(String(8), primary_key=True)
    id: Mapped[str] = mapped_column(KEY, primary_key=True, unique=True, default=new_key)
    journal_id: Mapped[str] = mapped_column(KEY)
    row: Mapped[int]
    code: Mapped[str] = mapped_column(String(20))
    dr: Mapped[Decimal] = mapped_column(Numeric(14, 2), default=Decimal(0))
    cr: Mapped[Decimal] = mapped_column(Numeric(14, 2), default=Decimal(0))
    text: Mapped[str | None]
    due: Mapped[date | None]
    journal: Mapped[Journal] = relationship(back_populates="rows")
    __table_args__ = (
        UniqueConstraint("journal_id", "row"),
        ForeignKeyConstraint(["company", "journal_id"], ["books.journal.company", "books.journal.id"]),
    )

    general_ledger_id = synonym("journal_id")
    line_number = synonym("row")
    debit = synonym("dr")
    credit = synonym("cr")
    reference = synonym("text")
    due_date = synonym("due")

    @hybrid_property
    def account_number(self) -> str:
        return self.code[:4]

    @account_number.inplace.expression
    @classmethod
    def _account_number(cls) -> ColumnElement[str]:
        return func.substr(cls.code, 1, 4, type_=String())


class Payable(Base):
    """The host's own open items of suppliers."""

    __tablename__ = "payables"
    company: Mapped[str] = mapped_column(String(8), primary_key=True)
    id: Mapped[str] = mapped_column(KEY, primary_key=True)
    journal_id: Mapped[str] = mapped_column(KEY)
    journal_row_id: Mapped[str] = mapped_column(KEY, unique=True)
    account_number: Mapped[str] = mapped_column(String(20))
    partner_id: Mapped[str] = mapped_column(KEY)
    source_type: Mapped[SourceKind] = mapped_column(Enum(SourceKind))
    source_id: Mapped[str] = mapped_column(KEY)
    kind: Mapped[str] = mapped_column(String(20))
    day: Mapped[date]
    invoice_date: Mapped[date | None]
    due_date: Mapped[date | None]
    invoice_number: Mapped[str | None]
    amount: Mapped[Decimal] = mapped_column(Numeric(14, 2))
    rest: Mapped[Decimal] = mapped_column(Numeric(14, 2))
    state: Mapped[ItemState] = mapped_column(Enum(ItemState))
    settlement_key: Mapped[str | None]

    tenant_id = synonym("company")
    general_ledger_id = synonym("journal_id")
    general_ledger_line_id = synonym("journal_row_id")
    entry_date = synonym("day")
    remaining_amount = synonym("rest")
    status = synonym("state")


def make_row(account_number: str, **values: Any) -> Any:
    return fill(JournalRow, **values, code=f"{account_number}-OSL")


def make_journal(source_type: Any, **values: Any) -> Any:
    kind = SourceKind[source_type] if isinstance(source_type, str) else source_type
    return fill(Journal, **values, source_type=kind)


def name_source(entry: Journal, source_type: str | None, source_id: str | None) -> None:
    entry.source_kind = None if source_type is None else SourceKind[source_type]
    entry.source_key = source_id


def set_account(row: JournalRow, account: str) -> None:
    row.code = f"{account}-BGO"


def binding() -> dict[str, Any]:
    names = {"date": "dated", "number": "number", "due_date": "due", "reference": "ocr", "kind": "nature"}
    names["credits"] = "credited_id"
    suppliers = Ledger(
        name="supplier",
        item=Payable,
        party="partner_id",
        party_model=Partner,
        documents=(
            Document.of("vendor_invoice", SupplierInvoice, "invoice", "partner_id", **names),
            Document.of("vendor_payment", Remittance, "payment", "partner_id", date="dated", reference="ocr"),
        ),
    )
    customers = Ledger(
        name="customer",
        party_model=Partner,
        documents=(Document.of("customer_invoice", CustomerInvoice, "invoice", "partner_id", **names),),
    )
    employees = Ledger(
        name="employee",
        party_model=Partner,
        documents=(
            Document.of("expense_claim", Expenses, "claim", "partner_id", date="dated", number="report_number"),
        ),
    )
    return {"entry": Journal, "line": JournalRow, "ledgers": [suppliers, customers, employees]}


HOST = Host(
    name="dimensions",
    metadata=Base.metadata,
    schema=SCHEMA,
    binding=binding,
    controls=(
        ControlAccount(
            accounts=("2400",),
            ledger="supplier",
            sources={"SUPPLIER_INVOICE": "vendor_invoice", "SUPPLIER_PAYMENT": "vendor_payment"},
        ),
        ControlAccount(accounts=("1500",), ledger="customer", sources={"CUSTOMER_INVOICE": "customer_invoice"}),
        ControlAccount(accounts=("2910",), ledger="employee", sources={"EXPENSES": "expense_claim"}),
    ),
    tenants=("oslo", "bergen"),
    make={"line": make_row, "entry": make_journal},
    post=lambda entry: setattr(entry, "is_posted", True),
    unpost=lambda entry: setattr(entry, "is_posted", False),
    strange_source=lambda session: ("SALARIES", "s1"),
    missing_key="4711",
    status=ItemState.__getitem__,
    name_source=name_source,
    set_account=set_account,
    lacks={
        "series": "its vouchers have no series",
        "currencies": "its lines have no currency",
        "aliases": "each kind of document has one kind of source",
        "moments of posting": "posted is a boolean",
        "customers' payments": "customers' payments are no documents",
    },
)
