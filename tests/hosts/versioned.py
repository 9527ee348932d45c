"""A host that keeps versions of its books with SQLAlchemy-Continuum, on the session class that the sync is attached to.

Continuum listens to every mapper and every engine of a process, so this is imported in processes of its own only.
Each function takes a database, does one thing to the books, and returns what is there afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar

from sqlalchemy import ForeignKey, MetaData, UniqueConstraint, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    configure_mappers,
    mapped_column,
    relationship,
    sessionmaker,
)
from sqlalchemy_continuum import Operation, make_versioned, version_class, versioning_manager

from ledger_sync import ControlAccount, Document, Ledger, LedgerSync, Settings, signals
from ledger_sync import models as m
from ledger_sync.dialects import ID_TYPE, open_engine
from ledger_sync.testing import assert_in_sync


class HostSession(Session):
    """What the host's sessions are made of."""


make_versioned(user_cls=None, session=HostSession)

DAY = date(2026, 3, 1)


class Base(DeclarativeBase):
    metadata = MetaData()


class Entry(m.JournalEntryMixin, Base):
    __tablename__ = "v_entries"
    __table_args__ = (UniqueConstraint("reverses_id"),)
    __versioned__: ClassVar[dict[str, Any]] = {}
    lines: Mapped[list[Line]] = relationship(
        back_populates="entry", cascade="all, delete-orphan", order_by="Line.line_number"
    )


class Line(m.JournalLineMixin, Base):
    __tablename__ = "v_lines"
    __table_args__ = (UniqueConstraint("general_ledger_id", "line_number"),)
    __versioned__: ClassVar[dict[str, Any]] = {}
    general_ledger_id: Mapped[int] = mapped_column(ID_TYPE, ForeignKey("v_entries.id"))
    entry: Mapped[Entry] = relationship(back_populates="lines")


class Supplier(m.PartyMixin, Base):
    __tablename__ = "v_suppliers"
    __versioned__: ClassVar[dict[str, Any]] = {}


class Invoice(m.InvoiceMixin, Base):
    __tablename__ = "v_invoices"
    __versioned__: ClassVar[dict[str, Any]] = {}
    vendor_id: Mapped[int] = mapped_column(ID_TYPE, ForeignKey("v_suppliers.id"))


class Item(m.OpenItemMixin, Base):
    __tablename__ = "v_items"
    __table_args__ = (*m.OpenItemMixin.item_checks(), UniqueConstraint("general_ledger_line_id"))
    __versioned__: ClassVar[dict[str, Any]] = {}
    supplier_id: Mapped[int] = mapped_column(ID_TYPE)


invoices = Document.of("vendor_invoice", Invoice, "invoice", "vendor_id")
sync = LedgerSync(
    Settings(
        control_accounts=(ControlAccount(accounts=("2400",), ledger="supplier", sources={"bill": "vendor_invoice"}),)
    ),
    entry=Entry,
    line=Line,
    ledgers=[Ledger(name="supplier", documents=(invoices,), item=Item, party_model=Supplier)],
)
configure_mappers()


def begin(first: str) -> None:
    """Have the sync's listeners and Continuum's on the session class, the ``sync``'s or ``continuum``'s first."""
    if first == "sync":
        versioning_manager.remove_session_tracking(HostSession)
        sync.attach(HostSession)
        versioning_manager.track_session(HostSession)
    else:
        sync.attach(HostSession)


def after(do: Callable[[Session, Entry], None], url: str, options: dict[str, Any]) -> dict[str, Any]:
    """What a new database holds after an invoice was posted and then something was done; proved to be in sync.

    ``rows``: invoice number, amount and remaining amount of each open item. ``versions``: of entries, lines, invoices
    and items, each one's operation with a value. ``told``: the signals that were sent after what was done.
    """
    engine = open_engine(url, connect_args=options)
    Base.metadata.create_all(engine)
    told: list[str] = []

    def listen(name: str) -> Callable[..., None]:
        return lambda sender, **_: told.append(name)

    receivers = {name: listen(name) for name in signals.AFTER_COMMIT}
    try:
        with HostSession(engine) as session:
            entry = _post(session, "1")
            session.commit()
            for name, receiver in receivers.items():
                signals.AFTER_COMMIT[name].connect(receiver, sender=sync)
            do(session, entry)
        with HostSession(engine) as session:
            assert_in_sync(session, sync, "acme")
            items = select(Item.invoice_number, Item.amount, Item.remaining_amount).order_by(Item.id)
            return {
                "rows": [tuple(row) for row in session.execute(items)],
                "versions": _versions(session),
                "told": told,
            }
    finally:
        for name, receiver in receivers.items():
            signals.AFTER_COMMIT[name].disconnect(receiver, sender=sync)
        engine.dispose()


def _versions(session: Session) -> dict[str, list[tuple[str, Any]]]:
    names = {Operation.INSERT: "insert", Operation.UPDATE: "update", Operation.DELETE: "delete"}
    found = {}
    for model, value in ((Entry, "voucher_number"), (Line, "credit"), (Invoice, "invoice_number"), (Item, "amount")):
        version = version_class(model)
        query = select(version.operation_type, getattr(version, value)).order_by(version.transaction_id, version.id)
        found[model.__name__] = [(names[operation], shown) for operation, shown in session.execute(query)]
    return found


def _post(session: Session, number: str) -> Entry:
    supplier = Supplier(tenant_id="acme", number=number, name="Mølleren AS")
    session.add(supplier)
    session.flush()
    invoice = Invoice(
        tenant_id="acme", vendor_id=supplier.id, invoice_number=number, invoice_date=DAY, amount=Decimal(100)
    )
    session.add(invoice)
    session.flush()
    entry = Entry(tenant_id="acme", voucher_number=number, entry_date=DAY, source_type="bill", source_id=invoice.id)
    entry.lines = [
        Line(line_number=1, account_number="2400", credit=Decimal(100)),
        Line(line_number=2, account_number="4000", debit=Decimal(100)),
    ]
    entry.post()
    session.add(entry)
    return entry


# -- what is done --------------------------------------------------------------------------------------


def nothing(session: Session, entry: Entry) -> None:
    """The posting alone."""


def edit(session: Session, entry: Entry) -> None:
    """Both lines, and what the open item copies of the invoice."""
    invoice = session.get_one(Invoice, entry.source_id)
    entry.lines[0].credit = entry.lines[1].debit = Decimal(70)
    invoice.invoice_number = "1b"
    session.commit()


def delete(session: Session, entry: Entry) -> None:
    """The entry, with its lines; then the invoice, which nothing names any more."""
    invoice = session.get_one(Invoice, entry.source_id)
    session.delete(entry)
    session.flush()
    session.delete(invoice)
    session.commit()


def rollback(session: Session, entry: Entry) -> None:
    """An edit, a posting and a deletion, each flushed, and none of them kept."""
    entry.lines[0].credit = entry.lines[1].debit = Decimal(70)
    session.flush()
    _post(session, "2")
    session.flush()
    session.delete(entry)
    session.flush()
    session.rollback()


def savepoint(session: Session, entry: Entry) -> None:
    """One posting in a savepoint that is kept, one in a savepoint that is not."""
    with session.begin_nested():
        _post(session, "2")
    lost = session.begin_nested()
    _post(session, "3")
    session.flush()
    lost.rollback()
    session.commit()


def backfill(session: Session, entry: Entry) -> None:
    """A posting past the hook, and the run that finds it."""
    with sync.paused(session):
        _post(session, "2")
    session.commit()
    assert sync.backfill(sessionmaker(session.bind, class_=HostSession), tenant_id="acme").synced == 1
