"""What became of a control line, in one word, by the row that it must have and the one that it has."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple


class Row(NamedTuple):
    """What of a row decides whether it is its line's."""

    tenant_id: Any
    account_number: str
    party_id: Any
    amount: Decimal


def outcome(reason: str | None, must: Row, has: Row | None) -> str:
    """What became of a control line: the row that it must have, if there is no reason against it, and what it has."""
    if has is None:
        return reason or "missing"
    if reason is not None:
        return "orphan"
    return "written" if has == must else "differs"
