"""What the mixins' columns have in common: exact values, and the checks that a database makes of them."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import CheckConstraint, column

from ledger_sync.dialects import exact_amount
from ledger_sync.models.types import MONEY_DECIMALS, Money, Words, checked_text, exact

if TYPE_CHECKING:
    from collections.abc import Sequence

LINK_KINDS = ("credit_note", "write_off", "rounding", "exchange", "fee")
ITEM_KINDS = ("invoice", "expense", "payment", "reversal", *LINK_KINDS)


def amount_check(name: str, decimals: int = MONEY_DECIMALS) -> CheckConstraint:
    """The CHECK of an amount column: finite, bounded, and without excess decimals."""
    return CheckConstraint(exact_amount(column(name), decimals), name=f"{name}_exact")


def one_of(name: str, values: Sequence[str]) -> CheckConstraint:
    """The CHECK of a column that knows a few words only."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{name} IN ({listed})", name=f"{name}_known")


class ExactValues:
    """Refuses inexact amounts and unstorable texts when they are assigned, with the attribute's name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if value is not None:
            columns = getattr(type(self), "__table__", None)
            kind = columns.c[name].type if columns is not None and name in columns.c else None
            if isinstance(kind, Money) and isinstance(value, Decimal | int | float | str):
                value = exact(name, value, kind.decimals)
            elif isinstance(kind, Words) and isinstance(value, str):
                value = checked_text(name, value, kind.length)
        super().__setattr__(name, value)
