"""The proof of every tenant's books, as a script to run at any time: by hand, or every night by a timer.

Run it with `python examples/verify_ledger_sync.py [database-url]`. Without a URL it makes the books of two small
companies in memory, one of which has a fault, and prints what is in `verify_ledger_sync.txt` beside it. Given one, it
ends with status 1 if any books are not clean.
"""

from __future__ import annotations

import sys

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync, Proof
from ledger_sync.dialects import open_engine
from ledger_sync.models import Base, JournalEntry
from ledger_sync.testing import Books, Line


def show(proof: Proof) -> None:
    """A proof in a few lines: each difference, its causes, and what to do next."""
    sys.stdout.write(f"{proof.tenant_id}: {'clean' if proof.clean else 'NOT CLEAN'}\n")
    for account in proof.accounts:
        sys.stdout.write(
            f"  {account.account_number} {account.ledger:8} GL {account.gl_balance:>9} "
            f"subledger {account.subledger_balance:>9} difference {account.difference:>8}\n"
        )
        for cause in account.causes:
            sys.stdout.write(f"    {cause.amount:>8} {cause.name} ({cause.count}): {cause.meaning}.\n")
            sys.stdout.write(f"             {cause.next_step}\n")
            for example in cause.examples:
                sys.stdout.write(f"             voucher {example.voucher} of {example.entry_date}: {example.amount}\n")


def main(url: str | None) -> int:
    engine = open_engine(url or "sqlite://")
    factory = sessionmaker(engine)
    sync = LedgerSync()
    if url is None:
        Base.metadata.create_all(engine)
        sync.attach(factory)
        with factory.begin() as session:
            small_companies(session, sync)
    with factory() as session:
        tenants = session.scalars(select(JournalEntry.tenant_id).distinct().order_by(JournalEntry.tenant_id)).all()
    clean = True
    for tenant in tenants:
        with factory() as session:  # each proof is of one snapshot
            proof = sync.verify(session, tenant)
        show(proof)
        clean = clean and proof.clean
    engine.dispose()
    return 0 if clean else 1


def small_companies(session: Session, sync: LedgerSync) -> None:
    """A bakery with an entry by hand, and a mill where something wrote past the sessions of the sync."""
    bakery = Books(sync, session, "bakery")
    bakery.invoice("supplier", 900, number="8907")
    bakery.entry([Line("2400", -40), Line("7790", 40)])
    mill = Books(sync, session, "mill")
    mill.invoice("customer", 900, number="8907", reference="2345676")
    mill.payment("customer", 500, reference="2345676")
    with sync.paused(session):
        mill.invoice("customer", 250, number="8908")


if __name__ == "__main__":
    status = main(sys.argv[1] if len(sys.argv) > 1 else None)
    if len(sys.argv) > 1:
        sys.exit(status)
