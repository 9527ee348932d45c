"""The ready-made models: the mixins, with keys between the tables and the indexes that the queries need.

Keys between a document and its party go over ``(tenant_id, id)``, so that the database itself refuses a
document on another tenant's party, a credit note on another tenant's invoice, and a reversal of another
tenant's entry.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from sqlalchemy import Date, ForeignKey, ForeignKeyConstraint, Index, MetaData, Table, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from ledger_sync.dialects import ID_TYPE, index_normalised
from ledger_sync.models.columns import amount_check
from ledger_sync.models.mixins import (
    DocumentMixin,
    InvoiceMixin,
    JournalEntryMixin,
    JournalLineMixin,
    PartyMixin,
    PaymentMixin,
    SourceLinkMixin,
)
from ledger_sync.models.own import (
    ApplicationMixin,
    DecisionMixin,
    LockMixin,
    OpenItemMixin,
    SyncErrorMixin,
    SyncRunMixin,
    SyncSegmentMixin,
    TombstoneMixin,
)
from ledger_sync.models.types import Words

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The declarative base of the ready-made models."""

    metadata = MetaData(naming_convention=NAMING)


class NumberedLines(list[Any]):
    """The lines of an entry; one that comes without a line number gets the next."""

    highest = 0

    def append(self, line: Any) -> None:
        if line.line_number is None:
            line.line_number = self.highest + 1
        self.highest = max(self.highest, line.line_number)
        super().append(line)


class JournalEntry(JournalEntryMixin, Base):
    """A journal entry with its lines. Posted and committed, it refuses every change."""

    __tablename__ = "general_ledger"

    lines: Mapped[list[JournalLine]] = relationship(
        back_populates="entry",
        cascade="all, delete-orphan",
        order_by="JournalLine.line_number",
        collection_class=NumberedLines,
    )
    reverses: Mapped[JournalEntry | None] = relationship(
        remote_side="JournalEntry.id",
        foreign_keys="JournalEntry.reverses_id",
        primaryjoin="JournalEntry.reverses_id == JournalEntry.id",
    )
    reversed_by: Mapped[JournalEntry | None] = relationship(
        foreign_keys="JournalEntry.reverses_id",
        primaryjoin="JournalEntry.id == remote(JournalEntry.reverses_id)",
        uselist=False,
        viewonly=True,
    )

    __table_args__ = (
        *JournalEntryMixin.entry_checks(),
        UniqueConstraint("tenant_id", "fiscal_year", "voucher_series", "voucher_number"),
        UniqueConstraint("tenant_id", "id"),
        UniqueConstraint("reverses_id"),
        ForeignKeyConstraint(["tenant_id", "reverses_id"], ["general_ledger.tenant_id", "general_ledger.id"]),
        Index(None, "source_type", "source_id"),
        Index(None, "tenant_id", "entry_date"),
    )


class JournalLine(JournalLineMixin, Base):
    """A line of a journal entry. ``link`` names its source where that is not the entry's."""

    __tablename__ = "general_ledger_lines"

    general_ledger_id: Mapped[int] = mapped_column(ID_TYPE, ForeignKey("general_ledger.id"), active_history=True)

    entry: Mapped[JournalEntry] = relationship(back_populates="lines")
    link: Mapped[SourceLink | None] = relationship(back_populates="line", cascade="all, delete-orphan", uselist=False)

    __table_args__ = (
        *JournalLineMixin.line_checks(),
        UniqueConstraint("general_ledger_id", "line_number"),
        Index(None, "account_number"),
    )

    def mirrored(self) -> JournalLine:
        line: JournalLine = super().mirrored()
        if self.link is not None:
            line.link = SourceLink(
                source_type=self.link.source_type,
                source_id=self.link.source_id,
                kind=self.link.kind,
                method="reversal",
            )
        return line


class SourceLink(SourceLinkMixin, Base):
    """The source of one journal line: so one bank entry pays many invoices, and history is linked later."""

    __tablename__ = "ledger_source_links"

    line_id: Mapped[int] = mapped_column(
        ID_TYPE, ForeignKey("general_ledger_lines.id"), primary_key=True, autoincrement=False
    )

    line: Mapped[JournalLine] = relationship(back_populates="link")

    __table_args__ = (*SourceLinkMixin.link_checks(), Index(None, "source_type", "source_id"))


class Vendor(PartyMixin, Base):
    __tablename__ = "vendors"
    __table_args__ = (UniqueConstraint("tenant_id", "id"), UniqueConstraint("tenant_id", "number"))


class Customer(PartyMixin, Base):
    __tablename__ = "customers"
    __table_args__ = (UniqueConstraint("tenant_id", "id"), UniqueConstraint("tenant_id", "number"))


class Employee(PartyMixin, Base):
    __tablename__ = "employees"
    __table_args__ = (UniqueConstraint("tenant_id", "id"), UniqueConstraint("tenant_id", "number"))


def _party_key(name: str, parties: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["tenant_id", name], [f"{parties}.tenant_id", f"{parties}.id"])


def _invoice_args(table: str, party: str, parties: str) -> tuple[Any, ...]:
    return (
        *InvoiceMixin.invoice_checks(),
        UniqueConstraint("tenant_id", "id"),
        _party_key(party, parties),
        ForeignKeyConstraint(["tenant_id", "credits_id"], [f"{table}.tenant_id", f"{table}.id"]),
        Index(None, "credits_id", "tenant_id"),  # as its key is, for SQLite to look it up by both
    )


def _payment_args(party: str, parties: str) -> tuple[Any, ...]:
    return (
        amount_check("amount"),
        UniqueConstraint("tenant_id", "id"),
        _party_key(party, parties),
    )


class VendorInvoice(InvoiceMixin, Base):
    """A supplier's invoice, on paper or by EHF, or credit note."""

    __tablename__ = "vendor_invoices"
    vendor_id: Mapped[int] = mapped_column(ID_TYPE, active_history=True)
    vendor: Mapped[Vendor] = relationship()
    __table_args__ = _invoice_args("vendor_invoices", "vendor_id", "vendors")


class CustomerInvoice(InvoiceMixin, Base):
    """An invoice, or credit note, to a customer."""

    __tablename__ = "customer_invoices"
    customer_id: Mapped[int] = mapped_column(ID_TYPE, active_history=True)
    customer: Mapped[Customer] = relationship()
    __table_args__ = _invoice_args("customer_invoices", "customer_id", "customers")


class VendorPayment(PaymentMixin, Base):
    """A payment to a supplier."""

    __tablename__ = "vendor_payments"
    vendor_id: Mapped[int] = mapped_column(ID_TYPE, active_history=True)
    vendor: Mapped[Vendor] = relationship()
    __table_args__ = _payment_args("vendor_id", "vendors")


class CustomerPayment(PaymentMixin, Base):
    """A payment from a customer."""

    __tablename__ = "customer_payments"
    customer_id: Mapped[int] = mapped_column(ID_TYPE, active_history=True)
    customer: Mapped[Customer] = relationship()
    __table_args__ = _payment_args("customer_id", "customers")


class ExpenseClaim(DocumentMixin, Base):
    """What an employee has laid out; its payout names the claim as its source."""

    __tablename__ = "expense_claims"
    employee_id: Mapped[int] = mapped_column(ID_TYPE)
    claim_number: Mapped[str] = mapped_column(Words(70))
    claim_date: Mapped[date] = mapped_column(Date)
    due_date: Mapped[date | None] = mapped_column(Date)
    employee: Mapped[Employee] = relationship()
    __table_args__ = (
        amount_check("amount"),
        UniqueConstraint("tenant_id", "id"),
        _party_key("employee_id", "employees"),
    )


def _item_args(party: str, parties: str) -> tuple[Any, ...]:
    return (_party_key(party, parties), *OpenItemMixin.item_args(party))


class SupplierLedger(OpenItemMixin, Base):
    """Open items of suppliers, behind account 2400."""

    __tablename__ = "supplier_ledger"
    supplier_id: Mapped[int] = mapped_column(ID_TYPE)
    __table_args__ = _item_args("supplier_id", "vendors")


class CustomerLedger(OpenItemMixin, Base):
    """Open items of customers, behind account 1500."""

    __tablename__ = "customer_ledger"
    customer_id: Mapped[int] = mapped_column(ID_TYPE)
    __table_args__ = _item_args("customer_id", "customers")


class EmployeeLedger(OpenItemMixin, Base):
    """Open items of employees, behind account 2910."""

    __tablename__ = "employee_ledger"
    employee_id: Mapped[int] = mapped_column(ID_TYPE)
    __table_args__ = _item_args("employee_id", "employees")


class SupplierApplication(ApplicationMixin, Base):
    """What settles what among suppliers' open items."""

    __tablename__ = "supplier_applications"
    __table_args__ = ApplicationMixin.application_args("supplier_applications")


class CustomerApplication(ApplicationMixin, Base):
    """What settles what among customers' open items."""

    __tablename__ = "customer_applications"
    __table_args__ = ApplicationMixin.application_args("customer_applications")


class EmployeeApplication(ApplicationMixin, Base):
    """What settles what among employees' open items."""

    __tablename__ = "employee_applications"
    __table_args__ = ApplicationMixin.application_args("employee_applications")


class SyncDecision(DecisionMixin, Base):
    """What people decided about posted lines: source links, and rows from before."""

    __tablename__ = "ledger_sync_decisions"
    __table_args__ = DecisionMixin.decision_args("ledger_sync_decisions")


class SyncLock(LockMixin, Base):
    """Buckets of settlement groups, for transactions above READ COMMITTED."""

    __tablename__ = "ledger_sync_locks"


class SyncRun(SyncRunMixin, Base):
    """Backfills and repairs, past and running."""

    __tablename__ = "ledger_sync_runs"
    __table_args__ = SyncRunMixin.run_args()


class SyncSegment(SyncSegmentMixin, Base):
    """The parts of runs, each with how far it is."""

    __tablename__ = "ledger_sync_segments"
    __table_args__ = SyncSegmentMixin.segment_args()


class Tombstone(TombstoneMixin, Base):
    """Open items that a repair took away."""

    __tablename__ = "ledger_sync_tombstones"
    __table_args__ = TombstoneMixin.tombstone_args()


class SyncError(SyncErrorMixin, Base):
    """What the hook could not write and recorded instead of failing the posting; and what a backfill could not."""

    __tablename__ = "ledger_sync_errors"
    __table_args__ = SyncErrorMixin.error_args()


def _index_references() -> None:
    """What is looked up by reference or number is found by its normalised value."""
    lines = JournalLine.__table__
    assert isinstance(lines, Table)
    given = text("reference IS NOT NULL")
    label = "ix_general_ledger_lines_reference_normalised"
    index_normalised(label, lines.c.reference, postgresql_where=given, sqlite_where=given)
    for model, party in (
        (VendorInvoice, "vendor_id"),
        (CustomerInvoice, "customer_id"),
        (VendorPayment, "vendor_id"),
        (CustomerPayment, "customer_id"),
    ):
        table = model.__table__
        assert isinstance(table, Table)
        for short, name in (("number", "invoice_number"), ("reference", "payment_reference")):
            if name in table.c:
                index_normalised(f"ix_{table.name}_{short}_normalised", table.c[name], table.c[party])


_index_references()

__all__ = [name for name, value in list(globals().items()) if isinstance(value, type) and issubclass(value, Base)]
