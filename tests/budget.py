"""How much of its time a test takes: all of it by default, a part where a check must be quick, or far more.

LEDGER_SYNC_TEST_PROFILE=long has the tests of reliability do what takes hours; otherwise they do what fits into CI.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

EXAMPLES_FULL: Final = 60
"""Examples of a property by default."""

EXAMPLES: Final = int(os.environ.get("LEDGER_SYNC_TEST_EXAMPLES", str(EXAMPLES_FULL)))

LONG: Final = os.environ.get("LEDGER_SYNC_TEST_PROFILE") == "long"
"""Whether the long profile was asked for."""

QUICK: Final = not LONG and EXAMPLES < EXAMPLES_FULL
"""Whether a check must be quick."""


def examples(full: int) -> int:
    """As many examples as that by default, and fewer in proportion where LEDGER_SYNC_TEST_EXAMPLES says so."""
    return max(full * EXAMPLES // EXAMPLES_FULL, 1)


def drawn(full: int, long: int) -> int:
    """As ``examples``, or as many as that in the long profile."""
    return long if LONG else examples(full)


def at_length(short: int, long: int, quick: int | None = None) -> int:
    """As much as the profile asks for; ``quick`` where a check must be."""
    if QUICK and quick is not None:
        return quick
    return long if LONG else short


def pairs(ways: Iterable[str], values: Iterable[str]) -> list[tuple[str, str]]:
    """Every way with every value at length; otherwise each way with one of them, and each value by some way."""
    ways, values = list(ways), list(values)
    if LONG:
        return [(way, value) for way in ways for value in values]
    return [(ways[turn % len(ways)], values[turn % len(values)]) for turn in range(max(len(ways), len(values)))]
