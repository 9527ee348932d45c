"""How long a proof takes, against a bare SUM over the same lines, at growing sizes.

There are two bare ones: over the control accounts' lines as the table has them, and over the same lines as the proof,
which are those of posted entries of one tenant.

    python -m tests.benchmarks.proof [postgresql-url] [--lines 100000,1000000]

Without a URL it runs on SQLite. Prints a line per size: the medians of several rounds, in which the bare SELECTs, the
proof and the proof with its findings take turns, their ratios, and the most memory that the process has used.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.dialects import open_engine
from ledger_sync.models import JournalEntry, JournalLine
from tests.benchmarks.books_at_scale import TENANT, make


def measure(engine: Engine, lines: int, rounds: int) -> dict[str, float]:
    """The three at one size, on freshly made and settled books."""
    sync = LedgerSync()
    control_lines = make(engine, lines * 10 // 17)
    sync.backfill(sessionmaker(engine), tenant_id=TENANT)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE" if engine.dialect.name == "postgresql" else "ANALYZE")

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
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    return {
        "control_lines": control_lines,
        **{f"{name}_seconds": round(taken, 3) for name, taken in medians.items()},
        "proof_over_balances": round(medians["proof"] / medians["balances"], 2),
        "proof_over_bare": round(medians["proof"] / medians["bare"], 2),
        "proof_and_findings_over_balances": round(medians["proof_and_findings"] / medians["balances"], 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("--lines", default="100000,1000000")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(arguments.url or f"sqlite:///{Path(folder) / 'bench.db'}")
        for lines in arguments.lines.split(","):
            sys.stdout.write(json.dumps(measure(engine, int(lines), arguments.rounds)) + "\n")
            sys.stdout.flush()
        engine.dispose()


if __name__ == "__main__":
    main()
