"""How long settling takes, against a bare INSERT … SELECT of the same items, at growing sizes.

    python -m tests.benchmarks.settlement [postgresql-url] [--sizes 100000,300000,1000000]

Without a URL it runs on SQLite. Prints a line per size: seconds of both, their ratio, and microseconds per item.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import Engine, delete, func, literal, select

from ledger_sync import LedgerSync
from ledger_sync.dialects import open_engine
from ledger_sync.projection import ITEM_COLUMNS, project
from tests.benchmarks.books_at_scale import TENANT, make


def bare_insert(engine: Engine, sync: LedgerSync) -> float:
    """Seconds for one plain INSERT … SELECT of all items, committed; no conflict handling, no batches."""
    ledger = sync.binding.ledger("customer")
    projected = project(sync.binding, sync.settings, ledger).subquery("projected")
    c = projected.c
    rows = select(*(c[name] for name in ITEM_COLUMNS), c.amount, literal("open")).where(c.reason.is_(None))
    names = [ledger.column(name).name for name in (*ITEM_COLUMNS, "remaining_amount", "status")]
    began = time.perf_counter()
    with engine.begin() as connection:
        connection.execute(ledger.table.insert().from_select(names, rows, include_defaults=False))
    return time.perf_counter() - began


def settle(engine: Engine, sync: LedgerSync) -> float:
    """Seconds for settling all items of the tenant, committed."""
    ledger = sync.binding.ledger("customer")
    began = time.perf_counter()
    with engine.begin() as connection:
        sync._writer.settler.settle_all(connection, ledger, TENANT)
    return time.perf_counter() - began


def measure(engine: Engine, invoices: int) -> dict[str, float]:
    """Both, at one size, on freshly made books."""
    sync = LedgerSync()
    lines = make(engine, invoices)
    insert_seconds = bare_insert(engine, sync)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(
            "VACUUM ANALYZE customer_ledger" if engine.dialect.name == "postgresql" else "ANALYZE"
        )
    settle_seconds = settle(engine, sync)
    ledger = sync.binding.ledger("customer")
    with engine.begin() as connection:
        applications = connection.scalar(select(func.count()).select_from(ledger.application.__table__))
        connection.execute(delete(ledger.application.__table__))
    return {
        "invoices": invoices,
        "items": lines,
        "applications": applications or 0,
        "insert_seconds": round(insert_seconds, 2),
        "settle_seconds": round(settle_seconds, 2),
        "settle_over_insert": round(settle_seconds / insert_seconds, 2),
        "settle_microseconds_per_item": round(settle_seconds / lines * 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("--sizes", default="100000,300000,1000000")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(arguments.url or f"sqlite:///{Path(folder) / 'bench.db'}")
        for size in arguments.sizes.split(","):
            sys.stdout.write(json.dumps(measure(engine, int(size))) + "\n")
            sys.stdout.flush()
        engine.dispose()


if __name__ == "__main__":
    main()
