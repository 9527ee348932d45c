"""Column types that refuse what a database would round, cut or garble.

``Money`` holds exact decimals on every database, ``Words`` holds text of a bounded length,
``Moment`` holds a point in time with its zone. Each refuses bad values in Python with an error that names the
value; checks in the tables refuse them from everybody else.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation
from typing import Any, Final

from sqlalchemy import DateTime, Dialect, Numeric, String
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import TypeDecorator, TypeEngine

from ledger_sync.dialects import AMOUNT_BOUND, amount_type, moment_type, text_type
from ledger_sync.errors import AmountError, TextError, TimestampError

MONEY_DECIMALS: Final = 2
"""Decimals of amounts in the books' currency: øre."""
CURRENCY_DECIMALS: Final = 3
"""Decimals of amounts in a foreign currency; ISO 4217 knows none with more than three in common use."""

_EXACT: Final = Context(prec=40)
"""Enough for any amount within the bound, whatever the host's own decimal context says."""


def exact(name: str, value: object, decimals: int = MONEY_DECIMALS) -> Decimal:
    """A value as an exact amount, or an ``AmountError`` that says what is wrong with it.

    Takes ``Decimal``, ``int`` and decimal strings. Floats are refused: 0.1 is not a tenth.
    """
    if isinstance(value, bool) or not isinstance(value, Decimal | int | str):
        raise AmountError(
            name,
            value,
            f"is a {type(value).__name__}, not an exact amount",
            "Give a Decimal, an int or a string.",
        )
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise AmountError(name, value, "is not a number", "Give a Decimal, an int or a string of digits.") from None
    if not amount.is_finite():
        raise AmountError(name, value, "is not finite", "Find out where it was computed; no ledger can hold it.")
    if amount.copy_abs() >= AMOUNT_BOUND:  # abs() rounds, and overflows
        raise AmountError(name, value, f"is beyond the bound of {AMOUNT_BOUND:,}", "Check the unit of the amount.")
    rounded = amount.quantize(_unit(decimals), context=_EXACT)
    if amount != rounded:
        raise AmountError(
            name,
            value,
            f"has more than {decimals} decimals",
            "Round it where the rounding is decided, and post what that leaves.",
        )
    return rounded


def _unit(decimals: int) -> Decimal:
    return Decimal((0, (1,), -decimals))


ZERO: Final = Decimal("0.00")


class Money(TypeDecorator[Decimal]):
    """Exact decimals: NUMERIC where the database has it, scaled 64-bit integers on SQLite.

    On PostgreSQL the column is unconstrained NUMERIC, since NUMERIC(p, s) would round excess decimals
    without a word; the table's CHECK refuses them instead.
    """

    impl = Numeric
    cache_ok = True

    def __init__(self, decimals: int = MONEY_DECIMALS) -> None:
        self.decimals = decimals
        super().__init__(asdecimal=True)

    def __repr__(self) -> str:
        # a migration that Alembic writes has it from here
        return f"Money(decimals={self.decimals})"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(amount_type(dialect, self.decimals))

    def process_bind_param(self, value: object, dialect: Dialect) -> Any:
        if value is None:
            return None
        amount = exact("amount", value, self.decimals)
        return int(amount.scaleb(self.decimals, _EXACT)) if dialect.name == "sqlite" else amount

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        if value is None:
            return None
        if dialect.name == "sqlite":
            return Decimal(value).scaleb(-self.decimals, _EXACT)
        return Decimal(value).quantize(_unit(self.decimals), context=_EXACT)


class Words(TypeDecorator[str]):
    """Text of at most ``length`` characters, without NUL and without half a surrogate pair, compared by code point.

    Without a length it is what texts are compared with, rather than a column's type.
    """

    impl = String
    cache_ok = True

    def __init__(self, length: int | None) -> None:
        self.length = length
        super().__init__(length)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(String() if self.length is None else text_type(dialect, self.length))

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else checked_text("text", value, self.length)

    def coerce_compared_value(self, op: OperatorType | None, value: Any) -> TypeEngine[Any]:
        # what is looked for may be longer than what is kept: it is just not there
        return Words(None)


def checked_text(name: str, value: object, length: int | None) -> str:
    """The text itself, or a ``TextError`` that says what is wrong with it."""
    if not isinstance(value, str):
        raise TextError(name, value, f"is a {type(value).__name__}", "Give a string.")
    if length is not None and len(value) > length:
        raise TextError(name, value, f"has {len(value)} characters, more than {length}", "Shorten it.")
    if "\x00" in value:
        raise TextError(name, value, "contains a NUL character", "Remove it.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise TextError(name, value, "contains half a surrogate pair", "Decode its source properly.") from None
    return value


def storable(text: str) -> str:
    """A text of somebody else's, an error's message say, as any database takes it: what cannot be stored is escaped."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def utc_now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


def moment_in_utc(value: object) -> datetime:
    """An aware moment in UTC, or a ``TimestampError`` that says why it is none."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TimestampError(value)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise TimestampError(value, "lies before the year 1 or after the year 9999 in UTC") from None


class Moment(TypeDecorator[datetime]):
    """A point in time, always aware, kept and returned in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(moment_type(dialect))

    def process_bind_param(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return moment_in_utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return in_utc(value)


def is_zoned(type_: TypeEngine[Any]) -> bool:
    """Whether a column of moments takes them with their zone; others take UTC without saying so."""
    return isinstance(type_, Moment) or bool(getattr(type_, "timezone", False))


def in_utc(moment: datetime) -> datetime:
    """A moment with its zone; one without is in UTC."""
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
