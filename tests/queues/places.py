"""Books whose runs a queue's workers work on, and what one process makes of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from random import Random, randrange
from typing import Any

from ledger_sync import LedgerSync, RunReport, Settings
from ledger_sync.contrib.queues import RunQueue
from tests.budget import at_length
from tests.outcomes import by_one_process, counts, wiped, written
from tests.queues.nursery import Shift
from tests.test_backfill import Factory

SECONDS_MAX = 120
KILLS = int(os.environ.get("LEDGER_SYNC_TEST_KILLS", at_length(25, 25, 2)))
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
        return by_one_process(self.sync, self.factory)

    def outcome(self, run_id: int) -> Any:
        """What the workers make of it."""
        until(lambda: self.report(run_id).state == "completed", f"run {run_id}, which is {self.report(run_id)}")
        return counts(self.report(run_id)), written(self.factory)

    def begun(self, run_id: int) -> None:
        """Wait until something is written."""
        until(lambda: self.report(run_id).processed > 0, f"the beginning of run {run_id}")

    def killed_at_random(self, what: str) -> None:
        """Two workers of a kind are killed and replaced by turns, KILLS times; every run comes to what it must."""
        expected = self.expected()
        seed = randrange(10**6)
        print(f"seed {seed}")  # noqa: T201
        chance = Random(seed)
        workers = [self.working.start(what) for _ in range(2)]
        in_the_middle = kills = 0

        def go_on() -> bool:
            return kills < KILLS or (not in_the_middle and kills < 10 * KILLS)

        while go_on():
            wiped(self.factory)
            run_id = self.queue.start(tenant_id="acme")
            self.begun(run_id)
            while go_on() and (present := self.report(run_id)).state == "running":
                time.sleep(chance.uniform(0, 0.2))
                in_the_middle += 0 < present.processed < lines_of(expected)
                self.working.kill(workers.pop(0))
                workers.append(self.working.start(what))
                kills += 1
                time.sleep(chance.uniform(0.2, 1.0))
            assert self.outcome(run_id) == expected
        assert in_the_middle, "no kill met a run at work"
