"""How much of its time a test takes: a few minutes of all tests together, the full figures, or far more.

LEDGER_SYNC_TEST_PROFILE names it: ``short`` by default, as every check runs it; ``full`` has each test of reliability
reach the least that a promise rests on, in an hour or two; ``long`` takes days.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

PROFILE: Final = os.environ.get("LEDGER_SYNC_TEST_PROFILE", "short")
if PROFILE not in ("short", "full", "long"):
    raise ValueError(f"LEDGER_SYNC_TEST_PROFILE is {PROFILE!r}; it is short, full or long")

SHORT: Final = PROFILE == "short"
"""Whether a check must be quick."""

LONG: Final = PROFILE == "long"
"""Whether days are spent."""

EXAMPLES_FULL: Final = 60
"""Examples of a property in the full profile."""

EXAMPLES: Final = int(os.environ.get("LEDGER_SYNC_TEST_EXAMPLES", "3" if SHORT else str(EXAMPLES_FULL)))

SHARE: Final = int(os.environ.get("LEDGER_SYNC_TEST_SHARE", "24" if SHORT else "1"))
"""One of so many tests runs on MariaDB, and of the hosts' tests on PostgreSQL."""


def examples(full: int) -> int:
    """As many examples as that in the full profile, and fewer in proportion to LEDGER_SYNC_TEST_EXAMPLES."""
    return max(full * EXAMPLES // EXAMPLES_FULL, 1)


def at_length(full: int, long: int, short: int | None = None) -> int:
    """As much as the profile asks for; in the short one as in the full one, unless ``short`` says otherwise."""
    if SHORT and short is not None:
        return short
    return long if LONG else full


def pairs(ways: Iterable[str], values: Iterable[str]) -> list[tuple[str, str]]:
    """Every way with every value at length; otherwise each way with one of them, and each value by some way."""
    ways, values = list(ways), list(values)
    if LONG:
        return [(way, value) for way in ways for value in values]
    return [(ways[turn % len(ways)], values[turn % len(values)]) for turn in range(max(len(ways), len(values)))]
