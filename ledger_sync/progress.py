"""What a run reports while it works and when it is done, and ready-made callbacks that show it.

A ``Progress`` is a whole snapshot, worked out from the run's tables, so it is the same whoever asks and whoever does
the work. ``Told`` decides which snapshots a callback gets: at most one per interval, but always the first, the last
and the first of every stage.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from inspect import iscoroutinefunction
from typing import Any, Final, Literal

from pydantic import Field

from ledger_sync import signals
from ledger_sync.errors import ConfigurationError
from ledger_sync.logs import log
from ledger_sync.models.types import utc_now
from ledger_sync.plain import one_line
from ledger_sync.proof import Proof
from ledger_sync.results import Result

FINAL_STATES: Final = ("completed", "completed_with_errors", "cancelled", "failed", "paused")
"""States in which nobody works on a run."""


def is_at_work(state: str, lease_until: datetime | None, now: datetime | None = None) -> bool:
    """Whether somebody is at work on a run or a segment. One that is ``running`` though its lease has passed has died.

    :param now: the present moment unless given.
    """
    return state == "running" and lease_until is not None and lease_until > (now or utc_now())


class AllTenants:
    """The type of ``ALL_TENANTS``."""

    def __repr__(self) -> str:
        return "ALL_TENANTS"


ALL_TENANTS: Final = AllTenants()
"""Given as ``tenant_id``, it means every tenant's books. Nothing means it by default."""


class Progress(Result):
    """One whole snapshot of a run, taken after a commit.

    ``sequence`` rises with every snapshot; whoever gets several drops what is older. ``processed`` and ``total`` count
    control lines. ``percent`` is of the work, settling and proving included, and 100 only when the run is done.
    ``synced`` are rows written, ``existing`` rows that were there, ``skipped`` lines without an open item by reason,
    ``errors`` lines and documents that could not be written. ``lines_per_second`` and ``eta_seconds`` are null until
    they mean something. ``workers``: so many are at work, their leases not having passed. ``note``: why the run is held
    or has failed.
    """

    run_id: int | None
    sequence: int
    tenant_id: Any
    state: str
    note: str | None = None
    stage: str
    stage_index: int
    stage_count: int
    processed: int
    total: int
    percent: float
    synced: int
    existing: int
    skipped: Mapping[str, int]
    errors: int
    applied: int
    workers: int = 0
    lines_per_second: float | None
    eta_seconds: float | None
    elapsed_seconds: float

    @property
    def over(self) -> bool:
        """Whether nobody works on the run any more."""
        return self.state in FINAL_STATES


class StageReport(Result):
    """The counts of one stage: control lines seen, rows written, applications appended, lines skipped by reason.

    ``found``: in ``checking`` the documents that no posted entry mentions, by kind; in a repair what was found wrong,
    by what it is. A repair counts as processed what it found wrong, and in ``removed`` what it took away.
    """

    stage: str
    processed: int = 0
    synced: int = 0
    existing: int = 0
    removed: int = 0
    applied: int = 0
    posted: int = 0
    errors: int = 0
    skipped: Mapping[str, int] = Field(default_factory=dict)
    found: Mapping[str, int] = Field(default_factory=dict)


class RunReport(Result):
    """What a run did. ``synced`` counts the rows that it wrote; rows that were there are not counted.

    ``clean``: whether the proof that a run takes at its end is clean for all tenants; null until then, and for a dry
    run. ``proofs``: those that are not clean, in the report of the run's own process. ``active_seconds``: how long it
    was worked on, all workers together. ``lease_until``: when a run in state ``running`` counts as dead unless a
    worker commits before.
    """

    run_id: int | None
    kind: str = "backfill"
    tenant_id: Any = None
    state: str
    command: str | None = None
    note: str | None = None
    dry_run: bool
    actor: str | None = None
    stages: tuple[StageReport, ...]
    started_at: datetime | None = None
    finished_at: datetime | None = None
    lease_until: datetime | None = None
    elapsed_seconds: float
    active_seconds: float = 0.0
    clean: bool | None = None
    proofs: tuple[Proof, ...] = ()

    @property
    def died(self) -> bool:
        """Whether it is ``running``, and its lease has passed: nobody is at work on it."""
        return self.state == "running" and not is_at_work(self.state, self.lease_until)

    @property
    def processed(self) -> int:
        """Control lines seen."""
        return sum(stage.processed for stage in self.stages)

    @property
    def synced(self) -> int:
        """Rows written."""
        return sum(stage.synced for stage in self.stages)

    @property
    def applied(self) -> int:
        """Applications appended."""
        return sum(stage.applied for stage in self.stages)

    @property
    def errors(self) -> int:
        """Lines and documents that could not be written."""
        return sum(stage.errors for stage in self.stages)

    @property
    def skipped(self) -> dict[str, int]:
        """Lines without an open item, by reason."""
        return added_up(stage.skipped for stage in self.stages)

    @property
    def lines_per_second(self) -> float | None:
        """Control lines seen per second of work; null when that is too short to tell."""
        return self.processed / self.active_seconds if self.active_seconds >= MEANINGFUL_SECONDS else None


MEANINGFUL_SECONDS: Final = 1.0
"""A rate over less than that says more about the machine than about the run."""


def added_up(counts: Iterator[Mapping[str, int]] | list[Mapping[str, int]]) -> dict[str, int]:
    """Several counts by name, added up."""
    sums: dict[str, int] = {}
    for count in counts:
        for name, number in count.items():
            sums[name] = sums.get(name, 0) + number
    return sums


OnProgress = Callable[[Progress], object]


def is_coroutine(callback: object) -> bool:
    """Whether what a callback returns must be awaited: it is a coroutine function, or an object that is called so."""
    return iscoroutinefunction(callback) or iscoroutinefunction(type(callback).__call__)


class Told:
    """Tells one callback about one run: at most once per interval, but always first, last and at every new stage.

    :param seconds: the interval.
    :param on_error: what to do when the callback raises: ``log`` it and go on, or ``raise``. What is no ``Exception``
        (``KeyboardInterrupt``, say) is always raised.
    """

    def __init__(self, callback: OnProgress | None, seconds: float, on_error: Literal["log", "raise"]) -> None:
        if is_coroutine(callback):
            raise ConfigurationError(
                f"on_progress={callback!r} is a coroutine function, which nothing would await. In async code await "
                "abackfill, aresume or arepair, which await it."
            )
        self.callback = callback
        self.seconds = seconds
        self.on_error = on_error
        self._stage_index = -1
        self._sequence = -1
        self._at = -float("inf")

    def joined(self, snapshot: Progress) -> None:
        """Begin in mid-run, with a snapshot that somebody else has told: the stages before it are not told again."""
        self._stage_index, self._sequence = snapshot.stage_index, snapshot.sequence

    def due(self, stage_index: int) -> bool:
        """Whether a snapshot of that stage would be told now."""
        if self.callback is None:
            return False
        return stage_index > self._stage_index or time.monotonic() - self._at >= self.seconds

    def tell(self, snapshot: Progress, stages: tuple[str, ...]) -> None:
        """Tell a snapshot, and before it the stages that were passed since the last one."""
        if self.callback is None or snapshot.sequence <= self._sequence:
            return
        self._sequence = snapshot.sequence
        for index in range(self._stage_index + 1, snapshot.stage_index):
            # a stage that was over between two snapshots: the counts are those at its end or a little later
            passed = {"stage": stages[index], "stage_index": index, "state": "running", "note": None}
            passed["sequence"] = snapshot.sequence - (snapshot.stage_index - index)
            passed["percent"] = min(snapshot.percent, PERCENT_RUNNING_MAX)
            self._call(snapshot.model_copy(update=passed))
        self._stage_index = max(self._stage_index, snapshot.stage_index)
        self._at = time.monotonic()
        self._call(snapshot)

    def _call(self, snapshot: Progress) -> None:
        assert self.callback is not None
        try:
            self.callback(snapshot)
        except Exception:
            if self.on_error == "raise":
                raise
            log.exception("Ledger sync: the progress callback of run %s failed; the run goes on", snapshot.run_id)


PERCENT_RUNNING_MAX: Final = 99.9
"""Until a run is done."""


# -- ready-made callbacks ------------------------------------------------------------------------------


def together(*callbacks: OnProgress) -> OnProgress:
    """One callback that calls several, each even if another raises; the first error is raised in the end."""

    def call(snapshot: Progress) -> None:
        first: Exception | None = None
        for callback in callbacks:
            try:
                callback(snapshot)
            except Exception as error:
                first = first or error
        if first is not None:
            raise first

    return call


def asynchronous(callback: Callable[[Progress], Awaitable[object]]) -> OnProgress:
    """A callback for a backfill in another thread that runs a coroutine function in the event loop of the caller.

    Call it in the event loop: ``await asyncio.to_thread(sync.backfill, …, on_progress=asynchronous(tell))``. Each call
    is awaited before the run goes on.
    """
    loop = asyncio.get_running_loop()

    async def awaited(snapshot: Progress) -> None:
        await callback(snapshot)

    def call(snapshot: Progress) -> None:
        asyncio.run_coroutine_threadsafe(awaited(snapshot), loop).result()

    return call


def logged(logger: logging.Logger | None = None, level: int = logging.INFO) -> OnProgress:
    """A callback that writes a line to a log."""
    chosen = logger if logger is not None else log

    def call(snapshot: Progress) -> None:
        chosen.log(
            level,
            "Ledger sync: run %s %s, %s: %s of %s lines (%s %%), %s written, %s skipped, %s errors",
            snapshot.run_id,
            snapshot.state,
            snapshot.stage,
            snapshot.processed,
            snapshot.total,
            snapshot.percent,
            snapshot.synced,
            sum(snapshot.skipped.values()),
            snapshot.errors,
        )

    return call


def signalled(sender: object) -> OnProgress:
    """A callback that sends the signal ``run_progress``."""

    def call(snapshot: Progress) -> None:
        signals.run_progress.send(sender, progress=snapshot)

    return call


@contextmanager
def rich_bar(console: Any = None) -> Iterator[OnProgress]:
    """A callback that draws a bar in a terminal with rich (extra ``cli``), for the length of a ``with`` block."""
    try:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar
    except ImportError:
        raise ConfigurationError("A rich bar needs rich. Install ledger-sync[cli].") from None
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(),
        TaskProgressColumn("{task.percentage:>5.1f} %"),
        TextColumn("{task.fields[counts]}", markup=False),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("starting", total=100.0, counts="")

        def call(snapshot: Progress) -> None:
            description = snapshot.stage if snapshot.state == "running" else snapshot.state.replace("_", " ")
            bar.update(task, description=description, completed=snapshot.percent, counts=in_words(snapshot))

        yield call


@contextmanager
def tqdm_bar(**options: Any) -> Iterator[OnProgress]:
    """A callback that draws a bar with tqdm, which must be installed, for the length of a ``with`` block."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ConfigurationError("A tqdm bar needs tqdm. Install it: pip install tqdm.") from None
    layout = "{desc}: {percentage:5.1f} %|{bar}| {postfix}{elapsed}"
    with tqdm(**{"total": 100.0, "bar_format": layout, **options}) as bar:

        def call(snapshot: Progress) -> None:
            bar.set_description_str(snapshot.stage, refresh=False)
            bar.set_postfix_str(f"{in_words(snapshot)} ", refresh=False)
            bar.update(snapshot.percent - bar.n)
            bar.refresh()

        yield call


def in_words(snapshot: Progress) -> str:
    """The counts of a snapshot in a few words, for a line in a terminal."""
    words = [f"{snapshot.processed:,}/{snapshot.total:,} lines", f"{snapshot.synced:,} written"]
    if skipped := sum(snapshot.skipped.values()):
        words.append(f"{skipped:,} skipped")
    if snapshot.errors:
        words.append(f"{snapshot.errors:,} errors")
    if snapshot.state == "running" and snapshot.note:
        words.append(f"held: {one_line(snapshot.note)}")
    elif snapshot.eta_seconds is not None:
        words.append(f"{_clock(snapshot.eta_seconds)} left")
    return ", ".join(words)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
