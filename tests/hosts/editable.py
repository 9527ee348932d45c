"""A host whose posted entries can be changed: suppliers only, made from the mixins, in tables of its own names."""

from __future__ import annotations

from functools import cache

from sqlalchemy import ForeignKey, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from ledger_sync import Document, Ledger, LedgerSync, Settings
from ledger_sync import models as m
from ledger_sync.dialects import ID_TYPE
from ledger_sync.settings import ControlAccount


class Base(DeclarativeBase):
    metadata = MetaData()


class Entry(m.JournalEntryMixin, Base):
    __tablename__ = "e_entries"
    __table_args__ = (UniqueConstraint("reverses_id"),)
    lines: Mapped[list[Line]] = relationship(
        back_populates="entry", cascade="all, delete-orphan", order_by="Line.line_number"
    )


class Line(m.JournalLineMixin, Base):
    __tablename__ = "e_lines"
    __table_args__ = (UniqueConstraint("general_ledger_id", "line_number"),)
    general_ledger_id: Mapped[int] = mapped_column(ID_TYPE, ForeignKey("e_entries.id"), active_history=True)
    entry: Mapped[Entry] = relationship(back_populates="lines")


class Link(m.SourceLinkMixin, Base):
    __tablename__ = "e_links"


class Supplier(m.PartyMixin, Base):
    __tablename__ = "e_suppliers"


class Invoice(m.InvoiceMixin, Base):
    __tablename__ = "e_invoices"
    vendor_id: Mapped[int] = mapped_column(ID_TYPE, active_history=True)


class Payment(m.PaymentMixin, Base):
    __tablename__ = "e_payments"
    vendor_id: Mapped[int] = mapped_column(ID_TYPE, active_history=True)


class Item(m.OpenItemMixin, Base):
    __tablename__ = "e_items"
    __table_args__ = (*m.OpenItemMixin.item_checks(), UniqueConstraint("general_ledger_line_id"))
    supplier_id: Mapped[int] = mapped_column(ID_TYPE)


@cache
def editable_sync() -> LedgerSync:
    """A sync of these classes; what they lack is made for them, once."""
    documents = (
        Document.of("vendor_invoice", Invoice, "invoice", "vendor_id"),
        Document.of("vendor_payment", Payment, "payment", "vendor_id"),
    )
    settings = Settings(
        control_accounts=(ControlAccount(accounts=("2400",), ledger="supplier"),),
        batch_lines_max=25,
        batch_lines_start=25,
    )
    ledger = Ledger(name="supplier", documents=documents, item=Item, party_model=Supplier)
    return LedgerSync(settings, entry=Entry, line=Line, ledgers=[ledger], link=Link)
