"""What is measured, as figures: a way of doing something against another one that took turns with it."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass
class Figure:
    """How long one way takes, against another.

    ``size`` is in what the suite counts, the seconds are medians of so many ``rounds``, and ``most`` is the ratio that
    is aimed at, where there is an aim. ``more`` holds what else was seen.
    """

    suite: str
    database: str
    size: int
    way: str
    against: str
    seconds: float
    against_seconds: float
    rounds: int
    most: float | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """How many times as long it takes."""
        return self.seconds / self.against_seconds

    def as_json(self) -> dict[str, Any]:
        """With the seconds to the microsecond."""
        return {
            **asdict(self),
            "seconds": round(self.seconds, 6),
            "against_seconds": round(self.against_seconds, 6),
        }


HEADS = ("suite", "database", "size", "way", "time", "against", "time", "ratio", "aim", "rounds", "more")


def head() -> str:
    """The head of the table."""
    return f"| {' | '.join(HEADS)} |\n{'|---' * len(HEADS)}|\n"


def row(figure: Figure) -> str:
    """A figure's line of the table."""
    aim = "" if figure.most is None else f"≤ {figure.most:.2f}{'' if figure.ratio <= figure.most else ' missed'}"
    more = ", ".join(f"{name} {value}" for name, value in figure.more.items())
    cells = [figure.suite, figure.database, f"{figure.size:,}", figure.way, _time(figure.seconds), figure.against]
    cells += [_time(figure.against_seconds), f"{figure.ratio:.3f}", aim, str(figure.rounds), more]
    return f"| {' | '.join(cells)} |\n"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.2f} ms"


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes, without the garbage collector."""
    gc.collect()
    gc.disable()
    began = time.perf_counter()
    try:
        work()
        return time.perf_counter() - began
    finally:
        gc.enable()


def in_turns(
    ways: Mapping[str, Callable[[], Callable[[], object]]], rounds: int, seconds: float = 0
) -> dict[str, list[float]]:
    """Seconds of each way, which take turns in a changing order, at least so many rounds and so many seconds.

    A way is asked, before each turn and untimed, for what is to be timed.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    until = time.monotonic() + seconds
    while len(taken[order[0]]) < rounds or time.monotonic() < until:
        for name in order:
            taken[name].append(timed(ways[name]()))
        order = [*order[1:], order[0]]
    return taken


def ready(way: Callable[[], object]) -> Callable[[], Callable[[], object]]:
    """For ``in_turns``: a way that needs nothing prepared."""
    return lambda: way


def medians(taken: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each way's."""
    return {name: median(seconds) for name, seconds in taken.items()}


def peak_memory() -> int:
    """The most memory that this process has had, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
