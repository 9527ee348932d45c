"""Small SQL elements that compile to what each database understands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Date,
    Dialect,
    Integer,
    Select,
    String,
    bindparam,
    cast,
    func,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import Boolean, DateTime, TypeDecorator, TypeEngine, Uuid

from ledger_sync.dialects.families import MYSQL_FAMILY, exact_collation, plain

AMOUNT_BOUND: Final = 10**13
"""Amounts lie strictly between plus and minus ten trillion, so that sums of them fit into 64 bits."""


class exact_amount(expression.FunctionElement[bool]):  # noqa: N801
    """A CHECK: the column holds a finite amount within the bound, with no more decimals than it may have."""

    type = Boolean()
    inherit_cache = True
    name = "exact_amount"

    def __init__(self, column: ColumnElement[Any], decimals: int) -> None:
        self.decimals = decimals
        super().__init__(column)


@compiles(exact_amount)
def _exact_amount(element: exact_amount, compiler: SQLCompiler, **kw: Any) -> str:
    # NaN passes `x > 0` on PostgreSQL but not BETWEEN; the columns are wide enough not to round by themselves
    column = compiler.process(element.clauses, **kw)
    largest = f"{AMOUNT_BOUND - 1}.{'9' * element.decimals}"
    return f"{column} BETWEEN -{largest} AND {largest} AND {column} = round({column}, {element.decimals})"


@compiles(exact_amount, "sqlite")
def _exact_amount_sqlite(element: exact_amount, compiler: SQLCompiler, **kw: Any) -> str:
    column = compiler.process(element.clauses, **kw)
    largest = AMOUNT_BOUND * 10**element.decimals - 1
    # a NULL type is left to NOT NULL; a fraction of the smallest unit, or Infinity, would be a real
    return f"typeof({column}) IN ('integer', 'null') AND {column} BETWEEN -{largest} AND {largest}"


class _Condition(expression.FunctionElement[bool]):
    """A condition as it is: where booleans are numbers, SQLAlchemy would compare it with 1, and no index served it."""

    type = Boolean()
    inherit_cache = True

    def self_group(self, against: Any = None) -> Any:
        return self


class _Spelled(expression.FunctionElement[Any]):
    """A function of one expression that databases spell in ways of their own.

    ``spellings``: by the family of the database, under ``""`` for all others; ``{}`` is the expression, ``{collation}``
    the collation in which the library compares text.
    """

    inherit_cache = True
    spellings: ClassVar[Mapping[str, str]]


@compiles(_Spelled)
def _spelled(element: _Spelled, compiler: SQLCompiler, **kw: Any) -> str:
    family = "mysql" if compiler.dialect.name in MYSQL_FAMILY else compiler.dialect.name
    spelling = element.spellings.get(family, element.spellings[""])
    if "{collation}" in spelling:
        spelling = spelling.replace("{collation}", exact_collation(compiler.dialect))
    return spelling.replace("{}", compiler.process(element.clauses, **kw))


class unindexed(_Condition, _Spelled):  # noqa: N801
    """A condition that no index is to be looked up by, since another one finds far fewer rows.

    Without statistics, or with those of tables that were empty, databases hold an index over the tenant alone as good
    as one over two keys, or as the primary key, and take either (measured: 20 seconds for a hundred payments into new
    tables on PostgreSQL, 90 for ten thousand on MariaDB).
    """

    name = "unindexed"
    inherit_cache = True
    spellings: ClassVar = {"": "(({}) IS TRUE)", "sqlite": "+({})"}


class likely(_Condition, _Spelled):  # noqa: N801
    """A condition on rows that are known by their keys, most of which fulfil it.

    Without statistics PostgreSQL takes one value of a column for a two-hundredth of the rows: of a flush's lines, of
    which it expects ten, none was then expected on a control account, and what is joined with none may be read in full
    for each (measured: 51 seconds for a thousand payments into new tables, and 0.6 since).
    """

    name = "likely"
    inherit_cache = True
    # what becomes of a condition within it the planner does not ask, and expects half of the rows
    spellings: ClassVar = {"": "({})", "postgresql": "COALESCE({}, false)"}


def worked_out_first(query: Select[Any]) -> Select[Any]:
    """A SELECT of distinct rows, for a place among other tables, that is worked out before them.

    SQLite finds that out by itself, PostgreSQL with statistics. MariaDB and MySQL merge it into the statement around
    it, and then may read its tables in full for each row there (measured: a history took quadratic time).
    """
    for name in MYSQL_FAMILY:
        query = query.prefix_with("DISTINCT", dialect=name)
    return query


class all_digits(_Condition, _Spelled):  # noqa: N801
    """Whether a text consists of the digits 0 to 9 alone."""

    inherit_cache = True
    name = "all_digits"
    # a dollar sign would match before a line break at the end, on MariaDB and MySQL
    spellings: ClassVar = {
        "": "{} ~ '^[0-9]+$'",
        "sqlite": "{} NOT GLOB '*[^0-9]*'",
        "mysql": "{} NOT REGEXP '[^0-9]'",
    }


class characters(_Spelled):  # noqa: N801
    """How many characters a text has."""

    type = Integer()
    inherit_cache = True
    name = "characters"
    spellings: ClassVar = {"": "length({})", "mysql": "char_length({})"}


class binary_order(_Spelled):  # noqa: N801
    """A text to sort by its code points, whatever the database's locale."""

    type = String()
    inherit_cache = True
    name = "binary_order"
    spellings: ClassVar = {"": '{} COLLATE "C"', "sqlite": "{} COLLATE BINARY", "mysql": "CAST({} AS BINARY)"}


class ascii_upper(_Spelled):  # noqa: N801
    """A text with the letters a to z in upper case and all others as they are, on every database."""

    type = String()
    inherit_cache = True
    name = "ascii_upper"
    spellings: ClassVar = {
        "": "upper({})",
        "postgresql": 'upper(({}) COLLATE "C")',
        # Hebrew has no capital letters: taken for it, the bytes above 127 of the text's UTF-8 stay as they are
        "mysql": "CONVERT(CAST(UPPER(CONVERT(CAST(CONVERT({} USING utf8mb4) AS BINARY) USING hebrew)) AS BINARY) "
        "USING utf8mb4) COLLATE {collation}",
    }


class as_text(_Spelled):  # noqa: N801
    """A value as text that is compared by code point."""

    type = String()
    inherit_cache = True
    name = "as_text"
    # a cast on MariaDB and MySQL has the collation of the connection, whatever its argument has
    spellings: ClassVar = {
        "": "CAST({} AS VARCHAR)",
        "mysql": "CAST({} AS CHAR CHARACTER SET utf8mb4) COLLATE {collation}",
    }


class as_date(_Spelled):  # noqa: N801
    """A bound value that is a date to the database too, rather than a text that looks like one."""

    type = Date()
    inherit_cache = True
    name = "as_date"
    spellings: ClassVar = {"": "{}", "mysql": "CAST({} AS DATE)"}


class present_moment(expression.FunctionElement[Any]):  # noqa: N801
    """The moment at which the database is, as columns of moments hold it."""

    type = DateTime(timezone=True)
    inherit_cache = True
    name = "present_moment"


@compiles(present_moment)
def _present_moment(element: present_moment, compiler: SQLCompiler, **kw: Any) -> str:
    return str(compiler.process(func.now(), **kw))


@compiles(present_moment, *MYSQL_FAMILY)
def _present_moment_mysql(element: present_moment, compiler: SQLCompiler, **kw: Any) -> str:
    # now() is the time of the session's zone, and the column has none
    return "utc_timestamp(6)"


class as_uuid(_Spelled):  # noqa: N801
    """A text as the key that it writes."""

    inherit_cache = True
    name = "as_uuid"
    # MariaDB takes the text for the key by itself, and MySQL's keys are texts
    spellings: ClassVar = {"": "CAST({} AS UUID)", "sqlite": "CAST({} AS CHAR(32))", "mysql": "{}"}

    def __init__(self, value: ColumnElement[Any], type_: TypeEngine[Any]) -> None:
        self.type = type_
        super().__init__(value)


class values_of(_Spelled):  # noqa: N801
    """The values of a list in a bound parameter, as a table with one column ``value``.

    One parameter however many values, so no limit on parameters is ever met, and one text for the statement, so it is
    compiled once. PostgreSQL counts the elements of an array when it plans, and takes any JSON for a hundred.
    """

    inherit_cache = True
    name = "values_of"
    spellings: ClassVar = {
        "": "json_each({})",
        "postgresql": "(SELECT unnest(CAST({} AS TEXT[])) AS value)",
        # what is longer would be cut, and then be taken for something else; no key of ours comes near it
        "mysql": "JSON_TABLE({}, '$[*]' COLUMNS (value VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$'))",
    }


class _Values(TypeDecorator[Any]):
    """Values of one type as one text, each as the database holds it: an array of PostgreSQL's, or JSON."""

    impl = String
    cache_ok = True

    def __init__(self, item: TypeEngine[Any]) -> None:
        self.item = item
        super().__init__()

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        stored = self.item.dialect_impl(dialect).bind_processor(dialect)
        items = [item for item in value if item is not None]
        if isinstance(self.item, Uuid) and self.item.as_uuid:
            items = [key if isinstance(key, UUID) else UUID(key) for key in items]
        held = items if stored is None else [stored(item) for item in items]
        if dialect.name == "postgresql":
            return "{" + ",".join(_element(str(item)) for item in held) + "}"
        return json.dumps([item if isinstance(item, int) else str(item) for item in held])


def _element(text: str) -> str:
    """A text as an element of PostgreSQL's written arrays."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def parameter_set(name: str, type_: TypeEngine[Any]) -> Select[Any]:
    """A SELECT of the values that are bound under ``name`` as a list, each of the given type."""
    value = values_of(bindparam(name, type_=_Values(type_))).table_valued("value").c.value
    if isinstance(plain(type_), Integer):
        return select(cast(value, BigInteger()))
    if isinstance(type_, Uuid):
        return select(as_uuid(value, type_))
    return select(as_text(value) if isinstance(plain(type_), String) else cast(value, type_))


class among(_Condition):  # noqa: N801
    """Whether a key is one of a SELECT's few, which are worked out before anything else.

    PostgreSQL orders at most eight joins at once, and an IN is one of them: it then joins all lines of an account
    before it looks at those that are asked for. An array is no join.
    """

    inherit_cache = True
    name = "among"

    def __init__(self, key: ColumnElement[Any], keys: Select[Any]) -> None:
        super().__init__(key, keys.scalar_subquery())


@compiles(among)
def _among(element: among, compiler: SQLCompiler, **kw: Any) -> str:
    key, keys = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{key} IN {keys}"


@compiles(among, "postgresql")
def _among_postgresql(element: among, compiler: SQLCompiler, **kw: Any) -> str:
    key, keys = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"{key} = ANY (ARRAY{keys})"


def text_of(column: ColumnElement[Any]) -> ColumnElement[str]:
    """A key as text, the same on every database."""
    return as_text(column)


def step(name: str) -> str:
    """The name of a step of a statement (a CTE), which would hide a host's table of the same name."""
    return f"ledger_sync_{name}"
