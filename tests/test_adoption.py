"""Rows from before the library: they get the one line that fits, are listed otherwise, never doubled, never removed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, MetaData, String, UniqueConstraint, create_engine, func, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from ledger_sync import ControlAccount, Document, Ledger, LedgerSync, Settings
from ledger_sync import models as m
from ledger_sync.dialects import ID_TYPE
from ledger_sync.errors import AdoptionError

DAY = date(2026, 3, 1)
WHO = {"actor": "kari", "reason": "by the voucher"}


class Base(DeclarativeBase):
    metadata = MetaData()


class Entry(m.JournalEntryMixin, Base):
    __tablename__ = "a_entries"
    __table_args__ = (UniqueConstraint("reverses_id"),)
    lines: Mapped[list[Line]] = relationship(back_populates="entry", order_by="Line.line_number")


class Line(m.JournalLineMixin, Base):
    __tablename__ = "a_lines"
    __table_args__ = (UniqueConstraint("general_ledger_id", "line_number"),)
    general_ledger_id: Mapped[int] = mapped_column(ID_TYPE, ForeignKey("a_entries.id"))
    entry: Mapped[Entry] = relationship(back_populates="lines")


class Invoice(m.InvoiceMixin, Base):
    __tablename__ = "a_invoices"
    vendor_id: Mapped[int] = mapped_column(ID_TYPE)


class Payment(m.PaymentMixin, Base):
    __tablename__ = "a_payments"
    vendor_id: Mapped[int] = mapped_column(ID_TYPE)


class _FromBefore:
    """A host's table, to which the library's columns were added: nullable, since the old rows have nothing in them."""

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(64))
    general_ledger_line_id: Mapped[int | None] = mapped_column(ID_TYPE, unique=True)
    account_number: Mapped[str | None] = mapped_column(String(20))
    source_type: Mapped[str | None] = mapped_column(String(50))
    source_id: Mapped[int | None] = mapped_column(ID_TYPE)
    kind: Mapped[str | None] = mapped_column(String(20))
    entry_date: Mapped[date | None]
    amount: Mapped[Decimal] = mapped_column(m.Money())
    remaining_amount: Mapped[Decimal] = mapped_column(m.Money())
    status: Mapped[str] = mapped_column(String(20), server_default="open")
    settlement_key: Mapped[str | None] = mapped_column(String(120))


class Item(_FromBefore, Base):
    __tablename__ = "a_items"
    general_ledger_id: Mapped[int] = mapped_column("voucher_id", ID_TYPE)
    supplier_id: Mapped[int] = mapped_column(ID_TYPE)


SETTINGS = Settings(control_accounts=(ControlAccount(accounts=("2400",), ledger="supplier"),))


@pytest.fixture(scope="module")
def sync() -> LedgerSync:
    documents = (
        Document.of("vendor_invoice", Invoice, "invoice", "vendor_id"),
        Document.of("vendor_payment", Payment, "payment", "vendor_id"),
    )
    return LedgerSync(
        SETTINGS, entry=Entry, line=Line, ledgers=[Ledger(name="supplier", documents=documents, item=Item)]
    )


@pytest.fixture
def factory(engine: Engine, sync: LedgerSync) -> Iterator[sessionmaker[Session]]:
    Base.metadata.create_all(engine)
    yield sessionmaker(engine)
    # the library's own tables are those of the ready-made models here, which other tests use
    Base.metadata.drop_all(engine, tables=[model.__table__ for model in (Item, Line, Entry, Invoice, Payment)])


def posted(session: Session, *amounts: int, tenant: str = "acme", vendor: int = 1, number: str = "") -> Entry:
    """An invoice's entry with a control line for each amount; nothing is attached, so it has no rows."""
    invoice = Invoice(
        tenant_id=tenant, vendor_id=vendor, amount=sum(amounts), invoice_date=DAY, invoice_number=number or "N1"
    )
    session.add(invoice)
    session.flush()
    made = Entry(tenant_id=tenant, voucher_number=f"V{invoice.id}", entry_date=DAY, status="posted")
    made.source_type, made.source_id = "vendor_invoice", invoice.id
    for position, amount in enumerate((*amounts, -sum(amounts)), 1):
        account = "2400" if position <= len(amounts) else "4000"
        made.lines.append(Line(line_number=position, account_number=account, credit=amount))
    session.add(made)
    session.flush()
    return made


def old_row(session: Session, entry: Entry, amount: int, left: int | None = None, vendor: int = 1) -> Any:
    """A row as the host wrote it."""
    row = {"tenant_id": entry.tenant_id, "general_ledger_id": entry.id, "supplier_id": vendor, "amount": amount}
    row |= {"remaining_amount": amount if left is None else left}
    return session.execute(insert(Item).values(row).returning(Item.id)).scalar_one()


def rows(session: Session) -> list[tuple[Any, ...]]:
    names = (Item.id, Item.general_ledger_line_id, Item.amount, Item.remaining_amount)
    return [tuple(row) for row in session.execute(select(*names).order_by(Item.id))]


def causes(sync: LedgerSync, session: Session) -> dict[str, tuple[int, Decimal]]:
    account = sync.verify(session, "acme").account("2400")
    assert account.difference == sum((cause.amount for cause in account.causes), Decimal(0))
    return {cause.name: (cause.count, cause.amount) for cause in account.causes}


def test_a_row_takes_the_one_line_that_it_fits_and_is_kept_like_any_other(
    factory: sessionmaker[Session], sync: LedgerSync
) -> None:
    with factory() as session:
        entry = posted(session, 100, number="F-1")
        row = old_row(session, entry, 100)
        assert causes(sync, session) == {"not_adopted": (2, Decimal(0))}
        adoption = sync.adopt(session, "acme")
        assert (adoption.adopted, adoption.changed, adoption.waiting) == (1, (), ())
        assert rows(session) == [(row, entry.lines[0].id, 100, 100)]
        (item,) = sync.open_items(session, "acme")
        assert (item.source_id, item.kind, item.account_number) == (entry.source_id, "invoice", "2400")
        proof = sync.verify(session, "acme")
        assert proof.clean
        assert proof.account("2400").difference == 0


def test_an_adopted_row_is_settled_by_what_the_books_say(factory: sessionmaker[Session], sync: LedgerSync) -> None:
    with factory() as session:
        entry = posted(session, 100, number="F-1")
        row = old_row(session, entry, 100, left=0)
        adoption = sync.adopt(session, "acme")
        (changed,) = adoption.changed
        assert (changed.row_id, changed.said, changed.remaining_amount) == (row, 0, 100)
        payment = Payment(tenant_id="acme", vendor_id=1, amount=100, payment_date=DAY, payment_reference="F-1")
        session.add(payment)
        session.flush()
        paid = Entry(tenant_id="acme", voucher_number="P", entry_date=DAY, status="posted")
        paid.source_type, paid.source_id = "vendor_payment", payment.id
        paid.lines = [
            Line(line_number=1, account_number="2400", debit=100),
            Line(line_number=2, account_number="1920", credit=100),
        ]
        session.add(paid)
        session.commit()
    report = sync.backfill(factory, tenant_id="acme")
    assert report.clean
    with factory() as session:
        assert [left for *_, left in rows(session)] == [0, 0]


def test_rows_that_fit_several_lines_or_none_are_listed_and_nothing_is_doubled_or_removed(
    factory: sessionmaker[Session], sync: LedgerSync
) -> None:
    with factory() as session:
        twice = posted(session, 50, 50, number="F-1")
        ambiguous = old_row(session, twice, 50)
        other = posted(session, 70, number="F-2")
        strange = old_row(session, other, 71)
        elsewhere = posted(session, 80, number="F-3")
        another = old_row(session, elsewhere, 80, vendor=2)
        session.commit()
        adoption = sync.adopt(session, "acme")
        assert adoption.adopted == 0
        listed = {row.row_id: row.line_ids for row in adoption.waiting}
        assert listed == {ambiguous: (twice.lines[0].id, twice.lines[1].id), strange: (), another: ()}
        assert {row.voucher for row in adoption.waiting} == {e.voucher for e in (twice, other, elsewhere)}
        session.commit()
        before = rows(session)
    assert sync.backfill(factory, tenant_id="acme").synced == 0
    assert sync.repair(factory, tenant_id="acme").clean
    with factory() as session:
        assert rows(session) == before
        # 50 + 50 + 70 + 80 on the account, 50 + 71 + 80 in the rows
        assert causes(sync, session) == {"not_adopted": (7, Decimal(49))}
        assert sync.open_items(session, "acme") == ()
        assert not sync.verify(session, "acme").account("2400").faults


def test_a_person_chooses_and_the_rest_of_the_entry_goes_on(factory: sessionmaker[Session], sync: LedgerSync) -> None:
    with factory() as session:
        entry = posted(session, 50, 50, 20)
        row = old_row(session, entry, 51)
        first, second, third, _ = entry.lines
        with pytest.raises(AdoptionError, match=rf"Row {row} .line {entry.lines[3].id} was chosen. of the supplier"):
            sync.adopt(session, "acme", chosen={row: entry.lines[3].id}, **WHO)
        with pytest.raises(AdoptionError, match=r"Row 4711 .* is not waiting"):
            sync.adopt(session, "acme", chosen={4711: first.id}, **WHO)
        adoption = sync.adopt(session, "acme", chosen={row: second.id}, **WHO)
        assert (adoption.adopted, adoption.waiting) == (1, ())
        session.commit()
        mine, keys = second.id, {first.id, third.id}
    assert sync.backfill(factory, tenant_id="acme").synced == 2
    with factory() as session:
        written = rows(session)
        assert written[0][1:] == (mine, 50, 50)
        assert {line for _, line, _, _ in written[1:]} == keys
        assert sync.verify(session, "acme").account("2400").difference == 0


def test_what_a_person_chose_is_done_once_however_often_it_is_asked_for(
    factory: sessionmaker[Session], sync: LedgerSync
) -> None:
    with factory() as session:
        entry = posted(session, 50, 50)
        row = old_row(session, entry, 51)
        chosen = {row: entry.lines[1].id}
        assert sync.adopt(session, "acme", chosen=chosen, **WHO).adopted == 1
        session.commit()
        before = rows(session)
        assert sync.adopt(session, "acme", chosen=chosen, **WHO).adopted == 0
        session.commit()
        assert rows(session) == before
        (decision,) = session.scalars(select(sync.binding.decision))
        told = {name: getattr(decision, name) for name in ("tenant_id", "ledger", "action", "actor", "reason")}
        assert told == {"tenant_id": "acme", "ledger": "supplier", "action": "adopt", **WHO}
        assert decision.general_ledger_line_id == entry.lines[1].id
        with pytest.raises(AdoptionError, match="is not waiting"):
            sync.adopt(session, "acme", chosen={row: entry.lines[0].id}, **WHO)
        with pytest.raises(AdoptionError, match="is not waiting"):
            sync.adopt(session, "other", chosen=chosen, **WHO)


class Sale(m.InvoiceMixin, Base):
    __tablename__ = "a_sales"
    customer_id: Mapped[int] = mapped_column(ID_TYPE)


class SaleItem(_FromBefore, Base):
    __tablename__ = "a_sale_items"
    general_ledger_id: Mapped[int] = mapped_column(ID_TYPE)
    customer_id: Mapped[int] = mapped_column(ID_TYPE)


def test_of_two_rows_with_one_id_in_two_ledgers_that_is_chosen_which_the_line_waits_for() -> None:
    engine = create_engine("sqlite://")
    suppliers = Ledger(
        name="supplier", documents=(Document.of("vendor_invoice", Invoice, "invoice", "vendor_id"),), item=Item
    )
    customers = Ledger(
        name="customer", documents=(Document.of("customer_invoice", Sale, "invoice", "customer_id"),), item=SaleItem
    )
    sync = LedgerSync(entry=Entry, line=Line, ledgers=[suppliers, customers])
    Base.metadata.create_all(engine)
    sync.create_tables(engine)
    with sessionmaker(engine)() as session:
        row = old_row(session, posted(session, 50), 51)
        sale = Sale(tenant_id="acme", customer_id=1, amount=70, invoice_date=DAY, invoice_number="S1")
        session.add(sale)
        session.flush()
        entry = Entry(tenant_id="acme", voucher_number="S", entry_date=DAY, status="posted")
        entry.source_type, entry.source_id = "customer_invoice", sale.id
        entry.lines += [Line(line_number=1, account_number="1500", debit=70), Line(line_number=2, credit=70)]
        entry.lines[1].account_number = "3000"
        session.add(entry)
        session.flush()
        session.add(
            SaleItem(
                id=row,
                tenant_id="acme",
                general_ledger_id=entry.id,
                customer_id=1,
                amount=Decimal(71),
                remaining_amount=Decimal(71),
            )
        )
        adoption = sync.adopt(session, "acme", chosen={row: entry.lines[0].id}, **WHO)
        assert (adoption.adopted, [(w.ledger, w.row_id) for w in adoption.waiting]) == (1, [("supplier", row)])
        assert session.get_one(SaleItem, row).general_ledger_line_id == entry.lines[0].id
    engine.dispose()


def test_what_is_refused_has_adopted_nothing(factory: sessionmaker[Session], sync: LedgerSync) -> None:
    with factory() as session:
        entry = posted(session, 50)
        old_row(session, entry, 50)
        before = rows(session)
        with pytest.raises(AdoptionError, match="is not waiting"):
            sync.adopt(session, "acme", chosen={4711: entry.lines[0].id}, **WHO)
        assert rows(session) == before


def test_a_line_that_a_person_chose_is_given_to_no_other_row(factory: sessionmaker[Session], sync: LedgerSync) -> None:
    with factory() as session:
        entry = posted(session, 100, 50, 50)
        strange, fitting = old_row(session, entry, 90), old_row(session, entry, 100)
        twin, other_twin = old_row(session, entry, 50), old_row(session, entry, 50)
        first, second, third, _ = entry.lines
        adoption = sync.adopt(session, "acme", chosen={strange: first.id, twin: second.id}, **WHO)
        # the line that is left has one row left
        assert [row[:2] for row in rows(session)] == [
            (strange, first.id),
            (fitting, None),
            (twin, second.id),
            (other_twin, third.id),
        ]
        assert [(row.row_id, row.line_ids) for row in adoption.waiting] == [(fitting, ())]


def test_adopting_again_changes_nothing_and_no_other_tenants_rows_are_touched(
    factory: sessionmaker[Session], sync: LedgerSync
) -> None:
    with factory() as session:
        mine, theirs = posted(session, 100), posted(session, 100, tenant="other")
        old_row(session, mine, 100)
        old_row(session, theirs, 100)
        assert sync.adopt(session, "acme").adopted == 1
        before = rows(session)
        assert sync.adopt(session, "acme").adopted == 0
        assert rows(session) == before
        assert session.scalar(select(func.count()).where(Item.general_ledger_line_id.is_(None))) == 1


def test_a_live_posting_beside_rows_from_before_has_its_row_at_once(
    engine: Engine, factory: sessionmaker[Session], sync: LedgerSync
) -> None:
    attached = sessionmaker(engine)
    sync.attach(attached)
    with attached() as session:
        with sync.paused(session):
            old_row(session, posted(session, 100), 100)
        fresh = posted(session, 30, number="F-9")
        session.commit()
        assert [row[1] for row in rows(session)] == [None, fresh.lines[0].id]
