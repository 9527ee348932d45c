"""Which family a database belongs to, and what its columns are made of there.

MariaDB and MySQL are one family: what one of them lacks (UPDATE … RETURNING, indexes on expressions) is done without on
both, so that there is one way for the two. Their names for things differ in two places: the collation that compares
texts by code point, and the variable that holds the isolation level.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, DateTime, Dialect, Integer, Numeric, String, Table, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

MYSQL_FAMILY: Final = ("mysql", "mariadb")
"""The names of the dialects that reach MariaDB or MySQL."""

ID_TYPE: Final = BigInteger().with_variant(Integer, "sqlite")


class LongText(Text):
    """The longest text of MariaDB and MySQL, by the name that they give it, so that nobody finds a difference there."""

    __visit_name__ = "LONGTEXT"  # their own class of it would import their dialect


LONG_TEXT: Final = Text().with_variant(LongText(), *MYSQL_FAMILY)
"""Text of any length; a plain TEXT ends at 65,535 bytes on MariaDB and MySQL."""


def is_mysql(dialect: Dialect) -> bool:
    """Whether a dialect reaches MariaDB or MySQL."""
    return dialect.name in MYSQL_FAMILY


def _of_dialect(name: str) -> Any:
    """SQLAlchemy's module of a dialect, imported when such a database is met: all of them would take longer than we."""
    return import_module(f"sqlalchemy.dialects.{name}")


def insert_into(dialect: str, table: Table) -> Any:
    """An INSERT with what the dialect says of rows that are there already."""
    return _of_dialect("mysql" if dialect in MYSQL_FAMILY else dialect).insert(table)


def plain(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """A type without what decorates it."""
    return type_.impl_instance if isinstance(type_, TypeDecorator) else type_


def unless_mysql(*about: Any, dialect: Dialect, **more: Any) -> bool:
    """The condition of ``ddl_if`` for what MariaDB and MySQL cannot have."""
    return not is_mysql(dialect)


def exact_collation(dialect: Dialect) -> str:
    """The collation of MariaDB, or of MySQL, by which texts are equal only if all their code points are.

    The usual ones take "acme" for "ACME", and nearly all of them "acme" for "acme ".
    """
    return "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"


def text_type(dialect: Dialect, length: int) -> TypeEngine[Any]:
    """Text of a bounded length, compared by code point."""
    if is_mysql(dialect):
        return String(length, collation=exact_collation(dialect))
    return String(length)


def moment_type(dialect: Dialect) -> TypeEngine[Any]:
    """A point in time to the microsecond: with its zone where the database has such a type, otherwise in UTC."""
    return _of_dialect("mysql").DATETIME(fsp=6) if is_mysql(dialect) else DateTime(timezone=True)


def amount_type(dialect: Dialect, decimals: int) -> TypeEngine[Any]:
    """Exact decimals: scaled integers on SQLite, which has none.

    Elsewhere the column is wider than amounts may be, since NUMERIC(p, s) rounds what is beyond it without a word, and
    only what it keeps can be refused by the table's CHECK.
    """
    if dialect.name == "sqlite":
        return BigInteger()
    if dialect.name == "postgresql":
        return Numeric(asdecimal=True)
    return Numeric(30, decimals + 8, asdecimal=True)


def table_name(connection: Connection, table: Table) -> str:
    """The name of a table as the connection's statements have it, where its schema is translated to another as well."""
    preparer = connection.dialect.identifier_preparer
    translated = connection.get_execution_options().get("schema_translate_map") or {}
    schema = translated.get(table.schema, table.schema)
    name = preparer.quote(table.name)
    return name if schema is None else f"{preparer.quote_schema(schema)}.{name}"
