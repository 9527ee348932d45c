"""Everything that is measured, by one command; one table, and JSON beside it.

    python -m tests.benchmarks [suite …] [--on url]… [--sizes 1,10] [--json figures.json]

Suites: ``imports``, ``posting``, ``settlement``, ``backfill``, ``proof``, ``peer``, ``queues`` (which needs a Redis and
PostgreSQL); all of them unless some are named.
A database's URL must be of an empty one, whose tables are made and left; SQLite in a temporary folder is measured
unless others are named, and ``--on sqlite`` names it beside them. ``--sizes`` is in what the suite counts (its module
says); each has sizes of its own by default.

A figure is always a ratio of two ways that took turns in one run, from medians, so that a noisy machine doesn't decide.
Each suite, database and size runs in a process of its own, whose peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from ledger_sync.dialects import masked, open_engine
from tests.benchmarks.figures import Figure, head, row

SUITES = ("imports", "posting", "settlement", "backfill", "proof", "peer", "queues")


def measure_one(suite: str, url: str, size: int) -> list[Figure]:
    """In this process: one suite at one size on one database."""
    module: Any = import_module(f"tests.benchmarks.{suite}")
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(f"sqlite:///{Path(folder) / 'bench.db'}" if url == "sqlite" else url)
        figures: list[Figure] = module.measure(engine, size)
        engine.dispose()
    return figures


def measure_apart(suite: str, url: str, size: int) -> list[Figure]:
    """In a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks", suite, "--on", url, "--sizes", str(size), "--one"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [Figure(**figure) for figure in json.loads(done.stdout)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="suite", choices=[*SUITES, []])
    parser.add_argument("--on", action="append", metavar="url", help="a database; as often as you like")
    parser.add_argument("--sizes", help="instead of each suite's own")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    suites, databases = given.suites or SUITES, given.on or ["sqlite"]
    if given.one:
        figures = measure_one(suites[0], databases[0], int(given.sizes))
        sys.stdout.write(json.dumps([figure.as_json() for figure in figures]))
        return
    sys.stdout.write(head())
    everything: list[Figure] = []
    for suite in suites:
        module: Any = import_module(f"tests.benchmarks.{suite}")
        sizes = [int(size) for size in given.sizes.split(",")] if given.sizes else module.SIZES
        for url in databases if module.ON_DATABASES else ["sqlite"]:
            for size in sizes:
                sys.stderr.write(f"{suite}, {'sqlite' if url == 'sqlite' else masked(url)}, {size}\n")
                figures = measure_apart(suite, url, size)
                everything += figures
                sys.stdout.write("".join(row(figure) for figure in figures))
                sys.stdout.flush()
                if given.json:
                    given.json.write_text(json.dumps([figure.as_json() for figure in everything], indent=1))


if __name__ == "__main__":
    main()
