"""How fast a backfill writes, against one bare INSERT … SELECT of the same rows, and how much memory it takes.

    python -m tests.benchmarks.backfill [postgresql-url] [--sizes 100000,1000000] [--repeat 3]

Without a URL it runs on SQLite. Sizes are control lines. Each size is measured in a process of its own, so that its
peak memory is its own, the two variants one after the other, as often as asked; the medians are printed, a line of JSON
per size. ``writing`` is the stage that writes the rows; ``all`` is the whole run, settling and proving included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import Engine, delete
from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync, Progress
from ledger_sync.dialects import open_engine
from tests.benchmarks.books_at_scale import TENANT, make
from tests.benchmarks.settlement import bare_insert


def emptied(engine: Engine, sync: LedgerSync) -> None:
    """Take all items and applications away again."""
    ledger = sync.binding.ledger("customer")
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("TRUNCATE customer_ledger, customer_applications")
        else:
            connection.execute(delete(ledger.table))
            connection.execute(delete(ledger.application.__table__))
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("CHECKPOINT")


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


def measure(engine: Engine, control_lines: int, repeat: int) -> dict[str, Any]:
    """Both variants in turns, on one set of books; medians."""
    sync = LedgerSync()
    lines = make(engine, control_lines * 10 // 17)
    bare: list[float] = []
    runs: list[dict[str, float]] = []
    for _ in range(repeat):
        emptied(engine, sync)
        bare.append(bare_insert(engine, sync))
        emptied(engine, sync)
        runs.append(backfilled(engine, sync))
    stages = {stage: median(run[stage] for run in runs) for stage in runs[0]}
    insert_seconds, writing = median(bare), stages["customer_invoices"]
    return {
        "control_lines": lines,
        "synced": int(stages.pop("synced")),
        "bare_insert_seconds": round(insert_seconds, 2),
        "writing_seconds": round(writing, 2),
        "rate_of_bare_insert": round(insert_seconds / writing, 2),
        "writing_microseconds_per_line": round(writing / lines * 1e6, 2),
        "lines_per_second": round(lines / writing),
        "stages": {stage: round(seconds, 2) for stage, seconds in stages.items()},
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("--sizes", default="100000,1000000")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for size in arguments.sizes.split(","):
        if not arguments.one:
            command = [sys.executable, "-m", "tests.benchmarks.backfill", arguments.url, "--sizes", size, "--one"]
            subprocess.run([*command, "--repeat", str(arguments.repeat)], check=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            engine = open_engine(arguments.url or f"sqlite:///{Path(folder) / 'bench.db'}")
            sys.stdout.write(json.dumps(measure(engine, int(size), arguments.repeat)) + "\n")
            sys.stdout.flush()
            engine.dispose()


if __name__ == "__main__":
    main()
