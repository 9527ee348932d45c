"""How long a proof takes, against a bare SUM over the same lines, at growing sizes.

There are two bare ones: over the control accounts' lines as the table has them, and over the same lines as the proof,
which are those of posted entries of one tenant.

Sizes are control lines, of clean and settled books.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.models import JournalEntry, JournalLine
from tests.benchmarks.books_at_scale import TENANT, analyse, make
from tests.benchmarks.figures import Figure, in_turns, medians, peak_memory, ready

SIZES: Final = (100_000, 1_000_000)
ON_DATABASES: Final = True
ROUNDS: Final = 5
MOST: Final = 6.0


def measure(engine: Engine, size: int) -> list[Figure]:
    """All ways, on freshly made and settled books."""
    sync = LedgerSync()
    control_lines = make(engine, size * 10 // 17)
    sync.backfill(sessionmaker(engine), tenant_id=TENANT)
    analyse(engine)

    amount = func.sum(JournalLine.debit - JournalLine.credit)

    def bare() -> None:
        query = select(JournalLine.account_number, amount).where(
            JournalLine.account_number.in_(("1500", "2400", "2910"))
        )
        with engine.connect() as connection:
            connection.execute(query.group_by(JournalLine.account_number)).all()

    def balances() -> None:
        query = select(JournalLine.account_number, amount).join(JournalLine.entry)
        query = query.where(JournalLine.account_number.in_(("1500", "2400", "2910")))
        query = query.where(JournalEntry.tenant_id == TENANT, JournalEntry.status == "posted")
        with engine.connect() as connection:
            connection.execute(query.group_by(JournalLine.account_number)).all()

    def proof(with_findings: bool) -> None:
        with Session(engine) as session:
            proved = sync.verify(session, TENANT, with_findings=with_findings)
            assert proved.clean
            assert not proved.account("1500").difference

    ways: dict[str, Callable[[], None]] = {
        "bare": bare,
        "balances": balances,
        "proof": lambda: proof(False),
        "proof_and_findings": lambda: proof(True),
    }
    taken = in_turns({name: ready(way) for name, way in ways.items()}, ROUNDS)
    times, memory = medians(taken), peak_memory()
    compared = [
        ("proof", "balances", MOST),
        ("proof", "bare", None),
        ("proof_and_findings", "balances", None),
    ]
    return [
        Figure(
            suite="proof",
            database=engine.dialect.name,
            size=control_lines,
            way=way.replace("_", " "),
            against={"bare": "SUM over the table", "balances": "SUM of a tenant's posted lines"}[against],
            seconds=times[way],
            against_seconds=times[against],
            rounds=ROUNDS,
            most=most,
            more={"peak memory": f"{memory} MB"},
        )
        for way, against, most in compared
    ]
