"""A host's own models, with other names, another chart and no tenants: bound, attached, proved.

Run it with `python examples/your_models.py`; it keeps its books in memory. What it prints is in `your_models.txt`
beside it.
"""

from __future__ import annotations

import sys
from datetime import date
from decimal import Decimal

from sqlalchemy import ForeignKey, Numeric, String
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker, synonym

from ledger_sync import ControlAccount, Document, Ledger, LedgerSync, Settings
from ledger_sync.dialects import open_engine

AMOUNT = Numeric(15, 2)


class Base(DeclarativeBase):
    """The host's own."""


class Supplier(Base):
    __tablename__ = "suppliers"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(String(100))


class Bill(Base):
    __tablename__ = "bills"

    id: Mapped[int] = mapped_column(primary_key=True)
    supplier_id: Mapped[int] = mapped_column(ForeignKey("suppliers.id"))
    number: Mapped[str] = mapped_column(String(50))
    billed_on: Mapped[date]
    due_on: Mapped[date | None]
    amount: Mapped[Decimal] = mapped_column(AMOUNT)


class Voucher(Base):
    __tablename__ = "vouchers"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(String(20))
    booked_on: Mapped[date]
    state: Mapped[str] = mapped_column(String(10), default="draft")
    origin: Mapped[str | None] = mapped_column(String(20))
    origin_id: Mapped[int | None]
    postings: Mapped[list[Posting]] = relationship(back_populates="voucher")

    # the library's names for what the host calls otherwise
    voucher_number = synonym("number")
    entry_date = synonym("booked_on")
    source_type = synonym("origin")
    source_id = synonym("origin_id")

    @hybrid_property
    def posted(self) -> bool:
        return self.state == "final"


class Posting(Base):
    __tablename__ = "postings"

    id: Mapped[int] = mapped_column(primary_key=True)
    voucher_id: Mapped[int] = mapped_column(ForeignKey("vouchers.id"))
    account: Mapped[str] = mapped_column(String(10))
    amount: Mapped[Decimal] = mapped_column(AMOUNT)  # debit less credit
    voucher: Mapped[Voucher] = relationship(back_populates="postings")

    general_ledger_id = synonym("voucher_id")
    account_number = synonym("account")
    signed_amount = synonym("amount")


bills = Document(
    name="bill",
    model=Bill,
    role="invoice",
    party="supplier_id",
    date="billed_on",
    number="number",
    due_date="due_on",
)
sync = LedgerSync(
    Settings(control_accounts=[ControlAccount(accounts=["4410"], ledger="supplier", sources={"BILL": "bill"})]),
    entry=Voucher,
    line=Posting,
    ledgers=[Ledger(name="supplier", party_model=Supplier, documents=[bills])],
)


def main() -> None:
    engine = open_engine("sqlite://")
    Base.metadata.create_all(engine)  # the library's own tables are in the host's metadata by now
    factory = sessionmaker(engine)
    sync.attach(factory)
    with factory.begin() as session:
        mill = Supplier(number="20001", name="Mølleren AS")
        session.add(mill)
        session.flush()
        bill = Bill(supplier_id=mill.id, number="8907", billed_on=date(2026, 1, 12), amount=Decimal(1250))
        session.add(bill)
        session.flush()
        voucher = Voucher(number="1", booked_on=date(2026, 1, 12), state="final", origin="BILL", origin_id=bill.id)
        voucher.postings = [
            Posting(account="6300", amount=Decimal(1250)),
            Posting(account="4410", amount=Decimal(-1250)),
        ]
        session.add(voucher)
    with factory() as session:
        for item in sync.open_items(session):
            sys.stdout.write(f"{item.party_name}, bill {item.invoice_number}: {item.remaining_amount} {item.status}\n")
        proof = sync.verify(session)
        sys.stdout.write(f"4410: difference {proof.account('4410').difference}, clean: {proof.clean}\n")
    engine.dispose()


if __name__ == "__main__":
    main()
