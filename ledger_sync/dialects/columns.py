"""Amounts and words of a host's own columns: as the library reckons with them, and as the column stores them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Dialect, literal_column, null, type_coerce
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine


def _units(type_: TypeEngine[Any], dialect: Dialect) -> float:
    """How many of what a type stores there make one: 100, say, for a type that stores øre as integers."""
    processor = type_.dialect_impl(dialect).bind_processor(dialect)
    return float(processor(Decimal("1.25")) if processor is not None else Decimal("1.25")) / 1.25


class _Rescaled(expression.FunctionElement[Any]):
    def __init__(self, amount: ColumnElement[Any], type_: TypeEngine[Any], decimals: int) -> None:
        # the type and the decimals are clauses, so that they are part of what a compiled statement is known by
        self.type = type_
        super().__init__(amount, type_coerce(null(), type_), literal_column(str(10**decimals)))


class scaled(_Rescaled):  # noqa: N801
    """An amount of a host's column as ``Money`` reckons on the database: on SQLite in integers, without a fraction.

    One with excess decimals stays a fraction there, which the CHECK of the open items refuses.
    """

    name = "scaled"
    inherit_cache = True

    def __init__(self, amount: ColumnElement[Any], decimals: int) -> None:
        super().__init__(amount, amount.type, decimals)


class unscaled(_Rescaled):  # noqa: N801
    """An amount that ``Money`` reckoned with, as a host's column of that type stores it."""

    name = "unscaled"
    inherit_cache = True


@compiles(scaled)
@compiles(unscaled)
def _as_it_is(element: _Rescaled, compiler: SQLCompiler, **kw: Any) -> str:
    return str(compiler.process(next(iter(element.clauses)), **kw))


@compiles(scaled, "sqlite")
def _scaled_sqlite(element: scaled, compiler: SQLCompiler, **kw: Any) -> str:
    amount, typed, units = list(element.clauses)
    column, factor = compiler.process(amount, **kw), int(compiler.process(units)) / _units(typed.type, compiler.dialect)
    if factor == 1:
        return f"({column})"
    whole = f"round(({column}) * {factor:.0f})"
    return (
        f"CASE WHEN abs(({column}) * {factor:.0f} - {whole}) < 0.000001 THEN CAST({whole} AS INTEGER) "
        f"ELSE ({column}) * {factor:.0f} END"
    )


@compiles(unscaled, "sqlite")
def _unscaled_sqlite(element: unscaled, compiler: SQLCompiler, **kw: Any) -> str:
    amount, typed, units = list(element.clauses)
    column, factor = compiler.process(amount, **kw), int(compiler.process(units)) / _units(typed.type, compiler.dialect)
    return f"({column})" if factor == 1 else f"(({column}) / {factor:.1f})"


class as_stored_word(expression.FunctionElement[Any]):  # noqa: N801
    """A text as a host's column of that type takes it: PostgreSQL's enumerations take no text as it is."""

    inherit_cache = True
    name = "as_stored_word"

    def __init__(self, text: ColumnElement[Any], type_: TypeEngine[Any]) -> None:
        self.type = type_
        super().__init__(text, type_coerce(null(), type_))


@compiles(as_stored_word)
def _as_stored_word(element: as_stored_word, compiler: SQLCompiler, **kw: Any) -> str:
    return str(compiler.process(next(iter(element.clauses)), **kw))


@compiles(as_stored_word, "postgresql")
def _as_stored_word_postgresql(element: as_stored_word, compiler: SQLCompiler, **kw: Any) -> str:
    text, typed = list(element.clauses)
    # by the compiler's own preparer, which knows where the enumeration's schema is translated to
    name = compiler.dialect.type_compiler_instance.process(typed.type, identifier_preparer=compiler.preparer)
    return f"CAST({compiler.process(text, **kw)} AS {name})"
