"""Host (a): the backend of a bookkeeping office with many clients, keys of UUIDs that are made in Python.

The client is the tenant. Vendor invoices come by EHF. It has a supplier ledger of its own with Numeric amounts and an
enumeration for its status, and source links of its own; what else there is to be is made by the library.
"""

from __future__ import annotations

import enum
from datetime import date, datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import DateTime, Enum, ForeignKey, Numeric, String, UniqueConstraint, Uuid, func
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column, relationship, synonym

from ledger_sync import ControlAccount
from ledger_sync.binding import Document, Ledger
from tests.hosts.kit import Host


class EntryStatus(enum.Enum):
    draft = "draft"
    posted = "posted"


class ItemStatus(enum.Enum):
    OPEN = "open"
    PARTIALLY_PAID = "partially_paid"
    PAID = "paid"
    DISPUTED = "disputed"


def values_of(kind: type[enum.Enum]) -> list[str]:
    return [member.value for member in kind]


class Base(DeclarativeBase):
    type_annotation_map: ClassVar = {str: String(120)}  # MariaDB asks for a length


class OfClient:
    """What every table has: a key that is made in Python, and the client."""

    id: Mapped[UUID] = mapped_column(Uuid(), primary_key=True, default=uuid4)

    @declared_attr
    def client_id(cls) -> Mapped[UUID]:  # noqa: N805 - as declared_attr has it
        return mapped_column(ForeignKey("clients.id"), index=True)

    @declared_attr
    def tenant_id(cls) -> Mapped[UUID]:  # noqa: N805
        return synonym("client_id")


class Client(Base):
    __tablename__ = "clients"
    id: Mapped[UUID] = mapped_column(Uuid(), primary_key=True, default=uuid4)


class _Party(OfClient):
    party_number: Mapped[str] = mapped_column(String(20))
    display_name: Mapped[str] = mapped_column(String(200))

    @declared_attr
    def number(cls) -> Mapped[str]:  # noqa: N805
        return synonym("party_number")

    @declared_attr
    def name(cls) -> Mapped[str]:  # noqa: N805
        return synonym("display_name")


class Vendor(_Party, Base):
    __tablename__ = "vendors"


class Customer(_Party, Base):
    __tablename__ = "customers"


class Employee(_Party, Base):
    __tablename__ = "employees"


class _Invoice(OfClient):
    """What vendors' and customers' invoices have in common."""

    invoice_number: Mapped[str] = mapped_column(String(70))
    issue_date: Mapped[date]
    due_date: Mapped[date | None]
    payment_id: Mapped[str | None] = mapped_column(String(70))
    document_type: Mapped[str] = mapped_column(Enum("invoice", "credit_note", name="document_type"))
    total_amount: Mapped[Decimal] = mapped_column(Numeric(15, 2))

    @declared_attr
    def amount(cls) -> Mapped[Decimal]:  # noqa: N805
        return synonym("total_amount")


class _Payment(OfClient):
    payment_date: Mapped[date]
    payment_reference: Mapped[str | None] = mapped_column(String(70))


class VendorInvoice(_Invoice, Base):
    __tablename__ = "vendor_invoices"
    vendor_id: Mapped[UUID] = mapped_column(ForeignKey("vendors.id"))
    ehf_message_id: Mapped[str | None] = mapped_column(String(100))
    credited_invoice_id: Mapped[UUID | None] = mapped_column(ForeignKey("vendor_invoices.id"))


class VendorPayment(_Payment, Base):
    __tablename__ = "vendor_payments"
    vendor_id: Mapped[UUID] = mapped_column(ForeignKey("vendors.id"))


class CustomerInvoice(_Invoice, Base):
    __tablename__ = "customer_invoices"
    customer_id: Mapped[UUID] = mapped_column(ForeignKey("customers.id"))
    credited_invoice_id: Mapped[UUID | None] = mapped_column(ForeignKey("customer_invoices.id"))


class CustomerPayment(_Payment, Base):
    __tablename__ = "customer_payments"
    customer_id: Mapped[UUID] = mapped_column(ForeignKey("customers.id"))


class ExpenseClaim(OfClient, Base):
    __tablename__ = "expense_claims"
    employee_id: Mapped[UUID] = mapped_column(ForeignKey("employees.id"))
    claim_date: Mapped[date]
    due_date: Mapped[date | None]


class GeneralLedger(OfClient, Base):
    __tablename__ = "general_ledger"
    __table_args__ = (UniqueConstraint("client_id", "voucher_series", "voucher_number", "fiscal_year"),)
    voucher_series: Mapped[str] = mapped_column(String(5), default="B")
    voucher_number: Mapped[str] = mapped_column(String(80))
    fiscal_year: Mapped[int]
    accounting_date: Mapped[date]
    status: Mapped[EntryStatus] = mapped_column(Enum(EntryStatus), default=EntryStatus.draft)
    posted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    source_type: Mapped[str | None] = mapped_column(String(50), index=True)
    source_id: Mapped[UUID | None] = mapped_column(Uuid(), index=True)
    reversal_of_id: Mapped[UUID | None] = mapped_column(ForeignKey("general_ledger.id"), unique=True)
    lines: Mapped[list[GeneralLedgerLine]] = relationship(back_populates="entry", cascade="all, delete-orphan")

    entry_date = synonym("accounting_date")
    reverses_id = synonym("reversal_of_id")

    @hybrid_property
    def posted(self) -> bool:
        return self.status == EntryStatus.posted


class GeneralLedgerLine(OfClient, Base):
    __tablename__ = "general_ledger_lines"
    __table_args__ = (UniqueConstraint("general_ledger_id", "line_number"),)
    general_ledger_id: Mapped[UUID] = mapped_column(ForeignKey("general_ledger.id"), index=True)
    line_number: Mapped[int]
    account_number: Mapped[str] = mapped_column(String(10))
    debit_amount: Mapped[Decimal] = mapped_column(Numeric(15, 2), default=Decimal(0))
    credit_amount: Mapped[Decimal] = mapped_column(Numeric(15, 2), default=Decimal(0))
    currency: Mapped[str] = mapped_column(String(3), default="NOK")
    currency_amount: Mapped[Decimal | None] = mapped_column(Numeric(15, 3))
    kid: Mapped[str | None] = mapped_column(String(70))
    due_date: Mapped[date | None]
    entry: Mapped[GeneralLedger] = relationship(back_populates="lines")
    source: Mapped[LineSource | None] = relationship(back_populates="line", cascade="all, delete-orphan")

    debit = synonym("debit_amount")
    credit = synonym("credit_amount")
    reference = synonym("kid")


class LineSource(Base):
    """The host's own source links."""

    __tablename__ = "line_sources"
    id: Mapped[UUID] = mapped_column(Uuid(), primary_key=True, default=uuid4)
    journal_line_id: Mapped[UUID] = mapped_column(ForeignKey("general_ledger_lines.id"), unique=True)
    source_type: Mapped[str] = mapped_column(String(50))
    source_id: Mapped[UUID] = mapped_column(Uuid())
    purpose: Mapped[str | None] = mapped_column(String(20))
    line: Mapped[GeneralLedgerLine] = relationship(back_populates="source")

    line_id = synonym("journal_line_id")
    kind = synonym("purpose")


class SupplierLedger(OfClient, Base):
    """The host's own open items."""

    __tablename__ = "supplier_ledger"
    voucher_id: Mapped[UUID] = mapped_column(Uuid())
    voucher_line_id: Mapped[UUID] = mapped_column(Uuid(), unique=True)
    account_number: Mapped[str] = mapped_column(String(10))
    vendor_id: Mapped[UUID] = mapped_column(ForeignKey("vendors.id"))
    source_type: Mapped[str] = mapped_column(String(50))
    source_id: Mapped[UUID] = mapped_column(Uuid())
    kind: Mapped[str] = mapped_column(String(20))
    invoice_number: Mapped[str | None] = mapped_column(String(70))
    invoice_date: Mapped[date | None]
    due_date: Mapped[date | None]
    voucher_date: Mapped[date]
    currency: Mapped[str] = mapped_column(String(3))
    amount: Mapped[Decimal] = mapped_column(Numeric(15, 2))
    remaining_amount: Mapped[Decimal] = mapped_column(Numeric(15, 2))
    status: Mapped[ItemStatus] = mapped_column(
        Enum(ItemStatus, values_callable=values_of, name="item_status"), server_default="open"
    )
    settlement_key: Mapped[str | None] = mapped_column(String(120))
    note: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    general_ledger_id = synonym("voucher_id")
    general_ledger_line_id = synonym("voucher_line_id")
    entry_date = synonym("voucher_date")


TENANTS = (UUID(int=1), UUID(int=2))


def post(entry: GeneralLedger) -> None:
    entry.status = EntryStatus.posted


def unpost(entry: GeneralLedger) -> None:
    entry.status = EntryStatus.draft


def word(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def binding() -> dict[str, Any]:
    names = {
        "date": "issue_date",
        "reference": "payment_id",
        "kind": "document_type",
        "credits": "credited_invoice_id",
    }
    suppliers = Ledger(
        name="supplier",
        item=SupplierLedger,
        party="vendor_id",
        party_model=Vendor,
        documents=(
            Document.of("vendor_invoice", VendorInvoice, "invoice", "vendor_id", **names),
            Document.of("vendor_payment", VendorPayment, "payment", "vendor_id"),
        ),
    )
    customers = Ledger(
        name="customer",
        party_model=Customer,
        documents=(
            Document.of("customer_invoice", CustomerInvoice, "invoice", "customer_id", **names),
            Document.of("customer_payment", CustomerPayment, "payment", "customer_id"),
        ),
    )
    employees = Ledger(
        name="employee",
        party_model=Employee,
        documents=(Document.of("expense_claim", ExpenseClaim, "claim", "employee_id"),),
    )
    return {
        "entry": GeneralLedger,
        "line": GeneralLedgerLine,
        "ledgers": [suppliers, customers, employees],
        "link": LineSource,
    }


HOST = Host(
    name="clients",
    metadata=Base.metadata,
    binding=binding,
    controls=(
        ControlAccount(
            accounts=("2400",),
            ledger="supplier",
            sources={
                "vendor_invoice": "vendor_invoice",
                "ehf_invoice": "vendor_invoice",
                "vendor_payment": "vendor_payment",
            },
        ),
        ControlAccount(accounts=("1500",), ledger="customer"),
        ControlAccount(accounts=("2910",), ledger="employee"),
    ),
    tenants=TENANTS,
    post=post,
    unpost=unpost,
    strange_source=lambda session: ("payroll", UUID(int=77)),
    missing_key=UUID(int=4711),
    word=word,
    status=ItemStatus,
    rows=tuple((Client, {"id": tenant}) for tenant in TENANTS),
)
