"""Supplier bills posted with an open item and aged, here and by a peer: python-accounting.

Sizes are bills: each is made with its double entry in a transaction of its own, as a backend posts it; then the ageing
of all of them is worked out once. The peer is no dependency of ours:
``pip install --no-deps python-accounting python-dateutil`` brings it without the database drivers that it asks for.

What differs: the peer's bill goes through a line item and a tax and is hashed into a chain; it keeps what is uncleared
in no table, and asks per bill when it ages them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.models import Base, Vendor, VendorInvoice
from tests.benchmarks.figures import Figure, medians, timed
from tests.benchmarks.posting import voucher

SIZES: Final = (1_000,)
ON_DATABASES: Final = False
ROUNDS: Final = 3
DAY: Final = date(2026, 3, 1)


def ours(bills: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """What posts the bills, and what ages them, in a fresh database."""
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    sync, factory = LedgerSync(), sessionmaker(engine)
    sync.attach(factory)
    with factory.begin() as session:
        vendor = Vendor(tenant_id="peer", number="1", name="Vendor")
        session.add(vendor)
        session.flush()
        vendor_id = vendor.id

    def post() -> None:
        for number in range(bills):
            with factory.begin() as session:
                bill = VendorInvoice(
                    tenant_id="peer",
                    vendor_id=vendor_id,
                    invoice_number=f"B{number}",
                    invoice_date=DAY,
                    due_date=DAY,
                    amount=Decimal(120),
                )
                session.add(bill)
                session.flush()
                session.add(voucher("peer", ("vendor_invoice", bill.id), ("4000", 100), ("2710", 20), ("2400", -120)))

    def age() -> None:
        with factory() as session:
            report = sync.ageing(session, "peer", ledgers=["supplier"], as_of=date(2026, 12, 31))
            assert report.total("supplier") == 120 * bills

    return post, age


def theirs(bills: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """The same by the peer."""
    from python_accounting.database.session import get_session
    from python_accounting.models import Account, Currency, Entity, LineItem, Tax
    from python_accounting.models import Base as PeerBase
    from python_accounting.reports import AgingSchedule
    from python_accounting.transactions import SupplierBill

    engine = create_engine("sqlite://").execution_options(include_deleted=False, ignore_isolation=False)
    PeerBase.metadata.create_all(engine)
    session: Any = get_session(engine)
    entity = Entity(name="Peer")
    session.add(entity)
    session.commit()
    currency = Currency(name="Kroner", code="NOK", entity_id=entity.id)
    session.add(currency)
    session.commit()

    def account(name: str, kind: str) -> Any:
        made = Account(name=name, account_type=Account.AccountType[kind], currency_id=currency.id, entity_id=entity.id)
        session.add(made)
        session.commit()
        return made

    control, payable = account("VAT", "CONTROL"), account("Vendor", "PAYABLE")
    expense = account("Goods", "DIRECT_EXPENSE")
    tax = Tax(name="Input VAT", code="INPT", account_id=control.id, rate=20, entity_id=entity.id)
    session.add(tax)
    session.commit()
    # the peer posts into the reporting period of the day that it runs on, and takes naive times
    now = datetime.now()  # noqa: DTZ005

    def post() -> None:
        for number in range(bills):
            bill = SupplierBill(
                narration=f"B{number}", transaction_date=now, account_id=payable.id, entity_id=entity.id
            )
            session.add(bill)
            session.flush()
            item = LineItem(
                narration=f"B{number}", account_id=expense.id, amount=100, tax_id=tax.id, entity_id=entity.id
            )
            session.add(item)
            session.flush()
            bill.line_items.add(item)
            session.add(bill)
            bill.post(session)

    def age() -> None:
        schedule = AgingSchedule(session, Account.AccountType.PAYABLE)
        assert sum(schedule.balances.values()) in {120 * bills, -120 * bills}

    return post, age


SIDES: Final = {"ours": ours, "python-accounting": theirs}


def measure(engine: Engine, size: int) -> list[Figure]:
    """Both in turns, each in a process and a database of its own: the peer listens to every session of its process."""
    taken: dict[str, list[float]] = {}
    for turn in range(ROUNDS):
        for name in sorted(SIDES, reverse=bool(turn % 2)):
            command = [sys.executable, "-m", "tests.benchmarks.peer", name, str(size)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            for what, seconds in json.loads(done.stdout).items():
                taken.setdefault(f"{name}: {what}", []).append(seconds)
    times = medians(taken)
    return [
        Figure(
            suite="peer",
            database="sqlite",
            size=size,
            way=f"ours: {what}",
            against=f"python-accounting: {what}",
            seconds=times[f"ours: {what}"],
            against_seconds=times[f"python-accounting: {what}"],
            rounds=ROUNDS,
        )
        for what in ("posting", "ageing")
    ]


if __name__ == "__main__":
    post, age = SIDES[sys.argv[1]](int(sys.argv[2]))
    sys.stdout.write(json.dumps({"posting": timed(post), "ageing": timed(age)}))
