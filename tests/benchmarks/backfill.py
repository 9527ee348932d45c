"""How fast a backfill writes, against one bare INSERT … SELECT of the same rows, and how much memory it takes.

Sizes are control lines. ``writing`` is the stage that writes the rows, in batches that each commit with their counts;
the whole run settles and proves as well.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Final

from sqlalchemy import Engine, text
from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync, Progress
from tests.benchmarks.books_at_scale import TENANT, emptied, make
from tests.benchmarks.figures import Figure, peak_memory
from tests.benchmarks.settlement import bare_insert

SIZES: Final = (100_000, 1_000_000)
ON_DATABASES: Final = True
ROUNDS: Final = 3
LARGEST_REPEATED: Final = 1_000_000
"""Larger books are measured once."""
LEAST_RATE: Final = 0.70
"""Of the bare insert's lines per second."""


def backfilled(engine: Engine, sync: LedgerSync) -> dict[str, float]:
    """Seconds of each stage of one backfill, and of all of it."""
    began = time.perf_counter()
    entered: list[tuple[str, float]] = []

    def note(progress: Progress) -> None:
        if not entered or entered[-1][0] != progress.stage:
            entered.append((progress.stage, time.perf_counter()))

    report = sync.backfill(sessionmaker(engine), tenant_id=TENANT, on_progress=note)
    assert report.clean, "the backfill left the books unclean"
    ends = [at for _, at in entered[1:]] + [time.perf_counter()]
    seconds = {stage: end - at for (stage, at), end in zip(entered, ends, strict=True)}
    return {**seconds, "all": time.perf_counter() - began, "synced": report.synced}


def measure(engine: Engine, size: int) -> list[Figure]:
    """Both ways in turns, on one set of books."""
    sync = LedgerSync()
    lines = make(engine, size * 10 // 17)
    bare: list[float] = []
    runs: list[dict[str, float]] = []
    rounds = ROUNDS if size <= LARGEST_REPEATED else 1
    for _ in range(rounds):
        emptied(engine, sync)
        bare.append(bare_insert(engine, sync))
        emptied(engine, sync)
        runs.append(backfilled(engine, sync))
    stages = {stage: median(run[stage] for run in runs) for stage in runs[0]}
    writing, memory = stages["customer_invoices"], peak_memory()
    more = {
        "µs per line": round(writing / lines * 1e6, 1),
        "settling": f"{stages['settling']:.1f} s",
        "verifying": f"{stages['verifying']:.1f} s",
        "whole run": f"{stages['all']:.1f} s",
        "peak memory": f"{memory} MB",
        **table_sizes(engine),
    }
    return [
        Figure(
            suite="backfill",
            database=engine.dialect.name,
            size=lines,
            way="writing",
            against="bare INSERT … SELECT",
            seconds=writing,
            against_seconds=median(bare),
            rounds=rounds,
            most=1 / LEAST_RATE,
            more=more,
        )
    ]


def table_sizes(engine: Engine) -> dict[str, str]:
    """What the rows take on disk, their indexes apart; known of PostgreSQL."""
    if engine.dialect.name != "postgresql":
        return {}
    names = ("general_ledger", "general_ledger_lines", "customer_ledger", "customer_applications")
    with engine.connect() as connection:
        found = {}
        for name in names:
            query = text("SELECT pg_table_size(CAST(:name AS regclass)), pg_indexes_size(CAST(:name AS regclass))")
            table, indexes = connection.execute(query, {"name": name}).one()
            found[name] = f"{table / 2**20:,.0f} + {indexes / 2**20:,.0f} MB"
        return found
