"""A history without a single open item is brought in, with progress by a callback: stages, counts, percentage.

Run it with `python examples/historical_sync.py`; it keeps its books in memory. What it prints is in
`historical_sync.txt` beside it.
"""

from __future__ import annotations

import sys
from datetime import date

from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync, Progress
from ledger_sync.dialects import open_engine
from ledger_sync.models import Base
from ledger_sync.testing import Books, Line

TENANT = "bakery"


def history(books: Books) -> None:
    """A year of invoices and payments, an employee's claim, and an entry that somebody made by hand."""
    for month in range(1, 13):
        day = date(2025, month, 5)
        books.invoice("customer", 1000 + month, number=f"U{month}", reference=f"{month}18", on=day)
        books.invoice("supplier", 400 + month, number=f"I{month}", reference=f"{month}26", on=day)
        if month % 3:
            books.payment("customer", 1000 + month, reference=f"{month}18", on=date(2025, month, 25))
            books.payment("supplier", 200, reference=f"{month}26", on=date(2025, month, 25))
    books.invoice("employee", 350, number="R1", on=date(2025, 6, 1))
    books.entry([Line("2400", -75), Line("7790", 75)], on=date(2025, 7, 1))


def told(progress: Progress) -> None:
    """What a person would see: the stage, the percentage and the counts."""
    skipped = ", ".join(f"{count} {reason}" for reason, count in progress.skipped.items()) or "none"
    sys.stdout.write(
        f"{progress.stage_index}/{progress.stage_count} {progress.stage:18} {progress.percent:5.1f} % "
        f"synced {progress.synced:2} skipped {skipped}, failed {progress.errors}\n"
    )


def main() -> None:
    engine = open_engine("sqlite://")
    Base.metadata.create_all(engine)
    factory = sessionmaker(engine)
    sync = LedgerSync()
    with factory.begin() as session:  # the sync is not attached: nobody has heard of it yet
        history(Books(sync, session, TENANT))
    report = sync.backfill(factory, tenant_id=TENANT, on_progress=told, progress_seconds=60)
    sys.stdout.write(f"{report.state}: {report.synced} open items, {report.applied} applications\n")
    with factory() as session:
        for account in sync.verify(session, TENANT).accounts:
            causes = ", ".join(f"{cause.name} {cause.amount}" for cause in account.causes) or "nothing"
            sys.stdout.write(f"{account.account_number}: difference {account.difference}, of which {causes}\n")
    again = sync.backfill(factory, tenant_id=TENANT)
    sys.stdout.write(f"A second run writes {again.synced}.\n")
    engine.dispose()


if __name__ == "__main__":
    main()
