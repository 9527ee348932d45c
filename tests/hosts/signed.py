"""Host (b): one company, integer keys, one signed column, posted by a moment, a foreign key for each kind of source.

No tenants. Everything that can be left to the library is: open items, applications, source links and the rest. Voucher
and account numbers are integers, and whether a bill is a credit note is a boolean.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any, ClassVar

from sqlalchemy import ColumnElement, ForeignKey, Integer, Numeric, String, UniqueConstraint, case, func
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship, synonym

from ledger_sync import ControlAccount
from ledger_sync.binding import Document, Ledger
from ledger_sync.testing import fill
from tests.hosts.kit import Host


class Base(DeclarativeBase):
    type_annotation_map: ClassVar = {str: String(120)}  # MariaDB asks for a length


class Supplier(Base):
    __tablename__ = "suppliers"
    id: Mapped[int] = mapped_column(primary_key=True)
    supplier_no: Mapped[int] = mapped_column(unique=True)
    title: Mapped[str]
    number = synonym("supplier_no")
    name = synonym("title")


class Client(Base):
    __tablename__ = "clients"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]


class Bill(Base):
    __tablename__ = "bills"
    id: Mapped[int] = mapped_column(primary_key=True)
    supplier_id: Mapped[int] = mapped_column(ForeignKey("suppliers.id"))
    bill_no: Mapped[str]
    dated: Mapped[date]
    due: Mapped[date | None]
    kid: Mapped[str | None]
    is_credit: Mapped[bool] = mapped_column(default=False)
    credited_id: Mapped[int | None] = mapped_column(ForeignKey("bills.id"))
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    what = column_property(case((is_credit, "credit_note"), else_="invoice"))


class Payout(Base):
    __tablename__ = "payouts"
    id: Mapped[int] = mapped_column(primary_key=True)
    supplier_id: Mapped[int] = mapped_column(ForeignKey("suppliers.id"))
    paid_on: Mapped[date]
    kid: Mapped[str | None]


class Sale(Base):
    __tablename__ = "sales"
    id: Mapped[int] = mapped_column(primary_key=True)
    client_id: Mapped[int] = mapped_column(ForeignKey("clients.id"))
    sale_no: Mapped[str]
    dated: Mapped[date]
    due: Mapped[date | None]
    kid: Mapped[str | None]
    is_credit: Mapped[bool] = mapped_column(default=False)
    credited_id: Mapped[int | None] = mapped_column(ForeignKey("sales.id"))
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    what = column_property(case((is_credit, "credit_note"), else_="invoice"))


class Receipt(Base):
    __tablename__ = "receipts"
    id: Mapped[int] = mapped_column(primary_key=True)
    client_id: Mapped[int] = mapped_column(ForeignKey("clients.id"))
    paid_on: Mapped[date]
    kid: Mapped[str | None]


class Payroll(Base):
    __tablename__ = "payrolls"
    id: Mapped[int] = mapped_column(primary_key=True)


KINDS = {"bill": "bill_id", "payout": "payout_id", "sale": "sale_id", "receipt": "receipt_id", "payroll": "payroll_id"}


class Voucher(Base):
    __tablename__ = "vouchers"
    id: Mapped[int] = mapped_column(primary_key=True)
    no: Mapped[int] = mapped_column(unique=True)
    booked_on: Mapped[date]
    posted_at: Mapped[datetime | None]
    bill_id: Mapped[int | None] = mapped_column(ForeignKey("bills.id"))
    payout_id: Mapped[int | None] = mapped_column(ForeignKey("payouts.id"))
    sale_id: Mapped[int | None] = mapped_column(ForeignKey("sales.id"))
    receipt_id: Mapped[int | None] = mapped_column(ForeignKey("receipts.id"))
    payroll_id: Mapped[int | None] = mapped_column(ForeignKey("payrolls.id"))
    undoes_id: Mapped[int | None] = mapped_column(ForeignKey("vouchers.id"), unique=True)
    postings: Mapped[list[Posting]] = relationship(
        back_populates="voucher", cascade="all, delete-orphan", order_by="Posting.position"
    )

    voucher_number = synonym("no")
    entry_date = synonym("booked_on")
    reverses_id = synonym("undoes_id")
    source_type = column_property(
        case(
            (bill_id.is_not(None), "bill"),
            (payout_id.is_not(None), "payout"),
            (sale_id.is_not(None), "sale"),
            (receipt_id.is_not(None), "receipt"),
            (payroll_id.is_not(None), "payroll"),
        )
    )
    source_id = column_property(func.coalesce(bill_id, payout_id, sale_id, receipt_id, payroll_id, type_=Integer()))

    @hybrid_property
    def posted(self) -> bool:
        return self.posted_at is not None

    @posted.inplace.expression
    @classmethod
    def _posted(cls) -> ColumnElement[bool]:
        return cls.posted_at.is_not(None)


class Posting(Base):
    __tablename__ = "postings"
    # a key that was deleted is not given out again: what was settled by it goes by its number
    __table_args__ = (UniqueConstraint("voucher_id", "position"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(primary_key=True)
    voucher_id: Mapped[int] = mapped_column(ForeignKey("vouchers.id"), index=True)
    position: Mapped[int]
    account: Mapped[int]
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    kid: Mapped[str | None]
    voucher: Mapped[Voucher] = relationship(back_populates="postings")

    general_ledger_id = synonym("voucher_id")
    line_number = synonym("position")
    account_number = synonym("account")
    signed_amount = synonym("amount")
    reference = synonym("kid")


def make_voucher(source_type: str | None, source_id: int | None, voucher_number: str, **values: Any) -> Voucher:
    made: Voucher = fill(Voucher, **values, no=int(voucher_number))
    name_source(made, source_type, source_id)
    return made


def name_source(voucher: Voucher, source_type: str | None, source_id: int | None) -> None:
    for kind, key in KINDS.items():
        setattr(voucher, key, source_id if kind == source_type else None)


def make_posting(account_number: str, **values: Any) -> Any:
    return fill(Posting, **values, account=int(account_number))


def make_bill(what: str, **values: Any) -> Any:
    return fill(Bill, **values, is_credit=what == "credit_note")


def make_sale(what: str, **values: Any) -> Any:
    return fill(Sale, **values, is_credit=what == "credit_note")


def make_supplier(number: str, **values: Any) -> Any:
    return fill(Supplier, **values, number=int(number))


def strange_source(session: Any) -> tuple[str, int]:
    payroll = Payroll()
    session.add(payroll)
    session.flush()
    return "payroll", payroll.id


def binding() -> dict[str, Any]:
    names = {"date": "dated", "due_date": "due", "reference": "kid", "kind": "what", "credits": "credited_id"}
    paid = {"date": "paid_on", "reference": "kid"}
    suppliers = Ledger(
        name="supplier",
        party_model=Supplier,
        documents=(
            Document.of("vendor_invoice", Bill, "invoice", "supplier_id", number="bill_no", **names),
            Document.of("vendor_payment", Payout, "payment", "supplier_id", **paid),
        ),
    )
    customers = Ledger(
        name="customer",
        party="client_id",
        party_model=Client,
        documents=(
            Document.of("customer_invoice", Sale, "invoice", "client_id", number="sale_no", **names),
            Document.of("customer_payment", Receipt, "payment", "client_id", **paid),
        ),
    )
    return {"entry": Voucher, "line": Posting, "ledgers": [suppliers, customers]}


HOST = Host(
    name="signed",
    metadata=Base.metadata,
    binding=binding,
    controls=(
        ControlAccount(
            accounts=("2400",), ledger="supplier", sources={"bill": "vendor_invoice", "payout": "vendor_payment"}
        ),
        ControlAccount(
            accounts=("1500",), ledger="customer", sources={"sale": "customer_invoice", "receipt": "customer_payment"}
        ),
    ),
    tenants=(None,),
    make={
        "entry": make_voucher,
        "line": make_posting,
        "vendor_invoice": make_bill,
        "customer_invoice": make_sale,
        "supplier": make_supplier,
    },
    post=lambda voucher: setattr(voucher, "posted_at", datetime(2026, 1, 1)),  # noqa: DTZ001 - its column has no zone
    unpost=lambda voucher: setattr(voucher, "posted_at", None),
    name_source=name_source,
    set_account=lambda posting, account: setattr(posting, "account", int(account)),
    strange_source=strange_source,
    change_kind=lambda document, kind: setattr(document, "is_credit", kind == "credit_note"),
    moment=lambda moment: moment.replace(tzinfo=None),
    lacks={
        "tenants": "the host has one company and no tenants",
        "missing sources": "a foreign key holds no document that is not there",
        "series": "its vouchers have no series",
        "due dates of lines": "its lines have no due date",
        "currencies": "its lines have no currency",
        "claims": "the host has no employees",
        "aliases": "each kind of document has one foreign key",
        "texts as voucher numbers": "its vouchers have integers for numbers",
    },
)
