"""Books whose runs a queue's workers work on, and what one process makes of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ledger_sync import LedgerSync, RunReport, Settings
from ledger_sync.contrib.queues import RunQueue
from tests.outcomes import counts, wiped, written
from tests.queues.nursery import Shift
from tests.test_backfill import Factory

SECONDS_MAX = 120
SMALL = Settings(batch_lines_max=5, segment_lines_max=20, writers_seconds_max=0)


def until(done: Callable[[], bool], what: str, seconds: float = SECONDS_MAX) -> None:
    """Wait for something that other processes do."""
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def lines_of(outcome: Any) -> int:
    """How many control lines a run looked at."""
    (_, _, stages), _ = outcome
    return sum(stage["processed"] for stage in stages)


class Site:
    """Books on PostgreSQL, a queue and its workers."""

    def __init__(self, factory: Factory, sync: LedgerSync, queue: RunQueue, working: Shift) -> None:
        self.factory = factory
        self.sync = sync
        self.queue = queue
        self.working = working

    def report(self, run_id: int) -> RunReport:
        with self.factory() as session:
            return self.sync.report(session, run_id)

    def expected(self) -> Any:
        """What one process makes of the history, which is then as it was."""
        found = counts(self.sync.backfill(self.factory, tenant_id="acme")), written(self.factory)
        wiped(self.factory)
        return found

    def outcome(self, run_id: int) -> Any:
        """What the workers make of it."""
        until(lambda: self.report(run_id).state == "completed", f"run {run_id}, which is {self.report(run_id)}")
        return counts(self.report(run_id)), written(self.factory)

    def begun(self, run_id: int) -> None:
        """Wait until something is written."""
        until(lambda: self.report(run_id).processed > 0, f"the beginning of run {run_id}")
