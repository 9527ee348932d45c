"""Works on a run: takes one segment after another and has it done, step by step, until the run is over.

Any number of workers, in threads, processes or machines, can work on one run; each step commits what it wrote together
with how far its segment is. Between steps a worker tells, rests, waits for the host's health and looks at the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Literal

from ledger_sync import planning, segments
from ledger_sync.closing import Closing
from ledger_sync.failures import in_short
from ledger_sync.line_batches import LineBatches
from ledger_sync.postings import Postings
from ledger_sync.proof import Proof
from ledger_sync.runs import end_run, retried, said_if_possible
from ledger_sync.segments import FencedError, Segment, StoppedError
from ledger_sync.waiting import pause
from ledger_sync.workbench import Workbench

POLL_SECONDS: Final = 0.2


class OutOfTimeError(Exception):
    """The worker's budget is used up; the run goes on with the next worker."""


class Worker:
    """One worker of one run."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.name = segments.worker_name()
        # a slice that ended while it was held has left its reason
        self._noted = True
        lines = LineBatches(bench)
        self._closing = Closing(bench)
        self._steps: Mapping[segments.Kind, Callable[[Segment], Segment]] = {
            "check": partial(planning.check, bench),
            "documents": Postings(bench, self._between).step,
            "lines": lines.step,
            "settle": self._closing.settle,
            "late": lines.step,
            "verify": self._closing.verify,
        }

    @property
    def proofs(self) -> list[Proof]:
        """The proofs that it found not to be clean."""
        return self._closing.proofs

    def work(self) -> bool:
        """Work until the run is over or was told to stop, or the time is up; whether it is over."""
        while True:
            segment: Segment | None = None
            try:
                taken = self.bench.retried(self._take)
                if taken is None:
                    self.bench.retried(self._finish)
                    return True
                if taken == "busy":
                    self._wait()
                    continue
                segment = taken
                self.bench.options.on_step()  # a stage may have begun
                self._do(segment)
            except FencedError:
                continue
            except StoppedError as stopped:
                self._stop(segment, stopped.command)
                return True
            except OutOfTimeError:
                self._give_back(segment)
                return False
            except BaseException as error:
                self._give_back(segment, error)
                raise

    def _take(self) -> Segment | Literal["busy"] | None:
        bench = self.bench
        with bench.batches.connected() as connection:
            return segments.take(connection, bench.binding, bench.settings, bench.run_id, self.name)

    def _wait(self) -> None:
        """Others must end their segments first, or die."""
        self.bench.options.on_step()
        if not self.bench.options.waiting:
            raise OutOfTimeError
        self._look_at_the_clock()
        pause(POLL_SECONDS)

    def _do(self, segment: Segment) -> None:
        step = self._steps[segment.kind]
        while segment.state == "running":
            began = time.monotonic()
            try:
                segment = step(segment)
            except FencedError:
                segment = self.bench.retried(self._as_committed, segment)
            self._between(segment, time.monotonic() - began)

    def _as_committed(self, segment: Segment) -> Segment:
        with self.bench.batches.connected(commit=False) as connection:
            return segments.as_committed(connection, self.bench.binding, segment)

    # -- between steps ---------------------------------------------------------------------------------

    def _between(self, segment: Segment, seconds: float) -> None:
        """After a commit: tell, be nice, wait for the host's health, look at the clock."""
        options = self.bench.options
        options.on_step()
        self._rest(segment, seconds * self.bench.settings.nice_ratio)
        while options.health is not None and (reason := options.health()) is not None:
            self._noted = True
            self._keep(segment, reason)
            options.on_step()
            # a budget ends a run that is held, too, and leaves the reason to be seen
            self._look_at_the_clock()
            self._rest(segment, min(1.0, options.deadline - time.monotonic()))
        if self._noted:
            self._keep(segment, None)
            self._noted = False
        self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        if time.monotonic() >= self.bench.options.deadline:
            raise OutOfTimeError

    def _rest(self, segment: Segment, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            pause(min(left, self.bench.settings.lease_seconds / 4, 1.0))
            if left > 1.0:
                self._keep(segment, None)

    def _keep(self, segment: Segment, note: str | None) -> None:
        self.bench.retried(self._renew, segment, note)

    def _renew(self, segment: Segment, note: str | None) -> None:
        bench = self.bench
        with bench.batches.connected() as connection:
            segments.renew(connection, bench.binding, bench.settings, segment, note)

    # -- the end ---------------------------------------------------------------------------------------

    def _give_back(self, segment: Segment | None, error: BaseException | None = None) -> None:
        if segment is None:
            return

        def release() -> None:
            with self.bench.batches.connected() as connection:
                message = None if error is None else in_short(error)
                segments.release(connection, self.bench.binding, segment, message)

        # what is raised after so many tries is not tried as often again
        said_if_possible(retried, self.bench.settings.retries_max if error is None else 0, release)

    def _stop(self, segment: Segment | None, command: str | None) -> None:
        self._give_back(segment)
        if command is not None:
            state = {"pause": "paused", "cancel": "cancelled"}[command]
            self.bench.retried(self._end, state)

    def _end(self, state: str) -> None:
        with self.bench.batches.connected() as connection:
            end_run(connection, self.bench.binding, self.bench.run_id, state)

    def _finish(self) -> None:
        bench = self.bench
        with bench.batches.connected() as connection:
            parts = segments.all_of(connection, bench.binding, bench.run_id)
            state = "completed_with_errors" if any(part.errors for part in parts) else "completed"
            verified = [part for part in parts if part.kind == "verify"]
            clean = None if bench.dry_run else not any(part.found for part in verified)
            end_run(connection, bench.binding, bench.run_id, state, clean=clean)
