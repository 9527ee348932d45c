"""How long settling takes, against a bare INSERT … SELECT of the same items, at growing sizes.

Sizes are items, of invoices and 0.7 as many payments, each naming its invoice.
"""

from __future__ import annotations

import time
from typing import Final

from sqlalchemy import Engine, func, literal, select

from ledger_sync import LedgerSync
from ledger_sync.projection import ITEM_COLUMNS, project
from tests.benchmarks.books_at_scale import TENANT, analyse, emptied, make
from tests.benchmarks.figures import Figure, medians

SIZES: Final = (100_000, 300_000, 1_000_000)
ON_DATABASES: Final = True
ROUNDS: Final = 3


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


def measure(engine: Engine, size: int) -> list[Figure]:
    """Both, on freshly made books, alternating."""
    sync = LedgerSync()
    lines = make(engine, size * 10 // 17)
    taken: dict[str, list[float]] = {"insert": [], "settle": []}
    applications = 0
    for _ in range(ROUNDS):
        emptied(engine, sync)
        taken["insert"].append(bare_insert(engine, sync))
        analyse(engine)
        taken["settle"].append(settle(engine, sync))
        with engine.begin() as connection:
            made = select(func.count()).select_from(sync.binding.ledger("customer").application.__table__)
            applications = connection.scalar(made) or 0
    times = medians(taken)
    return [
        Figure(
            suite="settlement",
            database=engine.dialect.name,
            size=lines,
            way="settling",
            against="bare INSERT … SELECT",
            seconds=times["settle"],
            against_seconds=times["insert"],
            rounds=ROUNDS,
            more={"applications": f"{applications:,}", "µs per item": round(times["settle"] / lines * 1e6, 1)},
        )
    ]
