"""References as they are compared: without blanks, letters in upper case; and what makes looking them up quick.

PostgreSQL and SQLite index the expression. MariaDB cannot, so there a column may have a generated one beside it that
keeps the normalised text, with an index; ``normalised`` of the column is then that one. The column's ``info`` names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import (
    Alias,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    FromClause,
    Index,
    Select,
    String,
    Table,
    and_,
    column,
    event,
    func,
    literal_column,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler

from ledger_sync.dialects.elements import ascii_upper
from ledger_sync.dialects.families import MYSQL_FAMILY, is_mysql, unless_mysql

KEPT_NORMALISED: Final = "ledger_sync_normalised"
"""In the ``info`` of a column: the name of the generated column that keeps its normalised text on MariaDB and MySQL."""


KEEPING: Final = "ledger_sync_normalised_ddl"
"""In the ``info`` of a column of ours: what gives the statement that makes the generated column and its index."""
INDEX_NORMALISED: Final = "ledger_sync_normalised_index"
"""In the ``info`` of such a column: the name of the index of the generated one."""


class normalised(expression.FunctionElement[str]):  # noqa: N801
    """A reference as it is compared: without blanks, letters in upper case.

    Nothing else is dropped. Whoever strips dashes or leading zeros makes two references out of many into
    one, and a payment then settles an invoice that nobody named.
    """

    type = String()
    inherit_cache = True
    name = "normalised"


def _bare_upper(reference: ColumnElement[Any]) -> ColumnElement[str]:
    bare: ColumnElement[str] = reference
    for blank in (" ", "\u00a0", "\t"):
        bare = func.replace(bare, literal_column(f"'{blank}'"), literal_column("''"))
    return ascii_upper(bare)


@compiles(normalised)
def _normalised(element: normalised, compiler: SQLCompiler, **kw: Any) -> str:
    (reference,) = element.clauses
    return str(compiler.process(_bare_upper(reference), **kw))


@compiles(normalised, *MYSQL_FAMILY)
def _normalised_mysql(element: normalised, compiler: SQLCompiler, **kw: Any) -> str:
    (reference,) = element.clauses
    kept = _kept(reference)
    return str(compiler.process(_bare_upper(reference) if kept is None else kept, **kw))


def found_by_reference(reference: ColumnElement[Any], values: Select[Any], query: Select[Any]) -> Select[Any]:
    """A SELECT restricted to the rows of an aliased class whose reference, normalised, is one of some values.

    ``query`` selects from that class; rows may come out more than once. MariaDB and MySQL take an index of a column
    that is mostly empty for useless, and would read all rows: there the values come first, and the index is named.
    """
    rows: FromClause | None = getattr(reference, "table", None)
    if rows is None:  # the host computes it
        return query.where(reference.is_not(None), normalised(reference).in_(values))
    sought = values.subquery("sought")
    (value,) = sought.c
    found = query.select_from(sought).join(rows, and_(reference.is_not(None), normalised(reference) == value))
    label = _given(reference).get(INDEX_NORMALISED)
    for name in MYSQL_FAMILY:
        found = found.prefix_with("STRAIGHT_JOIN", dialect=name)
        if label is not None:
            found = found.with_hint(rows, f"FORCE INDEX ({label})", name)
    return found


def _kept(reference: Any) -> ColumnElement[Any] | None:
    """The generated column beside a column of a table, or of an alias of one."""
    name = _given(reference).get(KEPT_NORMALISED)
    return None if name is None else column(name, _selectable=reference.table)


def _given(reference: Any) -> Mapping[Any, Any]:
    """The ``info`` of a column of a table, or of an alias of one; of anything else nothing."""
    of: FromClause | None = getattr(reference, "table", None)
    source = of.element if isinstance(of, Alias) else of
    if not isinstance(source, Table):
        return {}
    # by its name: an attribute of a host may have another key
    return next((found.info for found in source.c if found.name == reference.name), {})


def index_normalised(label: str, reference: Column[Any], *before: Column[Any], **options: Any) -> None:
    """Make an index of the normalised values of a table's column, behind the columns ``before``.

    Where a database has no indexes on expressions, the table gets a generated column when it is made. ``options`` are
    those of the index where it has.
    """
    Index(label, *before, normalised(reference), **options).ddl_if(callable_=unless_mysql)
    kept = f"{reference.name}_normalised"
    reference.info.update({KEPT_NORMALISED: kept, INDEX_NORMALISED: label})

    reference.info[KEEPING] = lambda dialect: _keeping(dialect, label, reference, kept, before)

    def keep(table: Table, connection: Connection, **kw: Any) -> None:
        if is_mysql(connection.dialect):
            connection.exec_driver_sql(reference.info[KEEPING](connection.dialect))

    event.listen(reference.table, "after_create", keep)


def columns_kept(dialect: Dialect, table: Table) -> dict[str, str]:
    """The generated columns that a table has beside those that it names, each with the statement that makes it."""
    if not is_mysql(dialect):
        return {}
    given = [column.info for column in table.columns if KEEPING in column.info]
    return {info[KEPT_NORMALISED]: info[KEEPING](dialect) for info in given}


def _keeping(dialect: Dialect, label: str, reference: Column[Any], kept: str, before: tuple[Column[Any], ...]) -> str:
    assert isinstance(reference.table, Table)
    quote, compiler = dialect.identifier_preparer, dialect.statement_compiler(dialect, None)
    value = compiler.process(_bare_upper(reference), include_table=False)
    type_ = reference.type.dialect_impl(dialect).compile(dialect)
    columns = ", ".join(quote.quote(name) for name in (*(column.name for column in before), kept))
    return (
        f"ALTER TABLE {quote.format_table(reference.table)} "
        f"ADD COLUMN {quote.quote(kept)} {type_} GENERATED ALWAYS AS ({value}) STORED, "
        f"ADD INDEX {quote.quote(label)} ({columns})"
    )
