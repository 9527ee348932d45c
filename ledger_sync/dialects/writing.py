"""Statements that write rows and tell which: what an INSERT, an UPDATE or a DELETE has really changed.

PostgreSQL and SQLite do each in one statement, with RETURNING. MariaDB and MySQL have no UPDATE … RETURNING, and with
ON DUPLICATE KEY UPDATE a RETURNING gives back rows that existed, changed or not. So there the rows are read first, by
the same SELECT, which locks nothing of what it reads, and then written by their keys. That leaves a moment between the
two in which somebody else may write the same row, as elsewhere between the reading and the writing of one statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Numeric,
    Select,
    Subquery,
    Table,
    bindparam,
    delete,
    insert,
    or_,
    select,
    type_coerce,
    update,
)

from ledger_sync.dialects.families import MYSQL_FAMILY, insert_into, plain
from ledger_sync.errors import ConfigurationError

KEYS_AT_ONCE: Final = 5_000
"""How many keys are listed in one statement."""

Besides = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From the new values, by column: what else is set when a row is rewritten."""

Rows = list[dict[str, Any]]


class Upsert:
    """``INSERT … SELECT`` that meets rows which exist.

    A row whose ``key`` exists is left alone, or, for the columns in ``overwrite``, rewritten where one of them differs;
    ``besides`` are set too when a row is rewritten. ``returned``: what is told of the rows that were written, by name;
    of those that stay as they are nothing is.

    :raises ConfigurationError: the database is of a kind that is not supported.
    """

    def __init__(
        self,
        dialect: str,
        table: Table,
        columns: Sequence[str],
        rows: Select[Any],
        *,
        key: str,
        overwrite: Sequence[str] = (),
        besides: Besides = lambda new: {},
        returned: Mapping[str, ColumnElement[Any]],
    ) -> None:
        self.steps: _UpsertByKey | None = None
        if dialect in MYSQL_FAMILY:
            self.steps = _UpsertByKey(table, columns, rows, key, overwrite, besides, returned)
            self.statement: Any = _insert_lacking(table, columns, rows, key)
            return
        if dialect not in {"postgresql", "sqlite"}:
            raise ConfigurationError(
                f"The database dialect {dialect!r} is not supported. Use PostgreSQL, SQLite, MariaDB or MySQL."
            )
        statement = insert_into(dialect, table).from_select(list(columns), rows)
        if overwrite:
            new = statement.excluded
            statement = statement.on_conflict_do_update(
                index_elements=[key],
                set_={**{name: new[name] for name in overwrite}, **besides(new)},
                where=or_(*(table.c[name].is_distinct_from(new[name]) for name in overwrite)),
            )
        else:
            statement = statement.on_conflict_do_nothing(index_elements=[key])
        self.statement = statement.returning(*_labelled(returned))

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> Rows:
        """Write; what was written."""
        if self.steps is not None:
            return self.steps.run(connection, parameters)
        return _dicts(connection.execute(self.statement, parameters))

    def count(self, connection: Connection, parameters: Mapping[str, Any]) -> int:
        """Insert what lacks, in one statement, however much it is; how many rows."""
        result = connection.execute(self.statement, parameters)
        if self.steps is None:
            return sum(len(batch) for batch in result.partitions(10_000))
        # drivers are asked for rows found, not changed: one that somebody else inserted meanwhile is counted as well
        return result.rowcount


def counts_beside_insert(connection: Connection) -> bool:
    """Whether one statement can insert rows and return counts of what it looked at (a writing WITH)."""
    return connection.dialect.name == "postgresql"


class Append:
    """``INSERT … SELECT`` of rows that meet no others. ``returned`` are among the columns."""

    def __init__(
        self, dialect: str, table: Table, columns: Sequence[str], rows: Select[Any], *, returned: Sequence[str]
    ) -> None:
        self.returned = tuple(returned)
        self.read: Select[Any] | None = None
        if dialect in MYSQL_FAMILY:
            self.read = select(*_named(rows, columns).c)
            self.statement: Any = insert(table).values({name: bindparam(name) for name in columns})
        else:
            statement = insert(table).from_select(list(columns), rows, include_defaults=False)
            self.statement = statement.returning(*(table.c[name] for name in returned))

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> Rows:
        """Append; what was appended."""
        if self.read is None:
            return _dicts(connection.execute(self.statement, parameters))
        if rows := _dicts(connection.execute(self.read, parameters)):
            connection.execute(self.statement, rows)
        return [{name: row[name] for name in self.returned} for row in rows]


class Rewrite:
    """``UPDATE`` of rows from what other tables say. ``where`` admits those that differ from ``values`` alone.

    ``besides`` are set to what no other table says. ``returned``: what is told of the rows as they are afterwards;
    ``afterwards``: what those of them become that are rewritten.
    """

    def __init__(
        self,
        dialect: str,
        table: Table,
        values: Mapping[Column[Any], ColumnElement[Any]],
        where: Sequence[ColumnElement[bool]],
        *,
        key: Column[Any],
        besides: Mapping[Column[Any], ColumnElement[Any]],
        returned: Mapping[str, ColumnElement[Any]],
        afterwards: Mapping[str, ColumnElement[Any]],
    ) -> None:
        self.values = {column.name: f"new_{column.name}" for column in values}
        self.returned = tuple(returned)
        self.read: Select[Any] | None = None
        if dialect in MYSQL_FAMILY:
            told = [afterwards.get(name, expression).label(name) for name, expression in returned.items()]
            new = [expression.label(self.values[column.name]) for column, expression in values.items()]
            self.read = select(key.label(_ROW), *told, *new).where(*where)
            given: dict[str, Any] = {name: bindparam(parameter) for name, parameter in self.values.items()}
            self.statement: Any = (
                update(table)
                .values({**given, **{column.name: expression for column, expression in besides.items()}})
                .where(key.in_(bindparam(_ROW, expanding=True)))
            )
        else:
            statement = update(table).values({**values, **besides}).where(*where)
            self.statement = statement.returning(*_labelled(returned))

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> Rows:
        """Rewrite; the rows that were rewritten."""
        if self.read is None:
            return _dicts(connection.execute(self.statement, parameters))
        rows = _dicts(connection.execute(self.read, parameters))
        # most rows become one of a few things, paid say: one statement for all that become the same
        alike: dict[tuple[Any, ...], list[Any]] = {}
        for row in rows:
            alike.setdefault(tuple(row[name] for name in self.values.values()), []).append(row[_ROW])
        for values, keys in alike.items():
            new = dict(zip(self.values.values(), values, strict=True))
            for some in _some(keys):
                connection.execute(self.statement, {**new, _ROW: some})
        return [{name: row[name] for name in self.returned} for row in rows]


class Removal:
    """``DELETE`` of the rows that ``where`` admits. ``returned``: what is told of those that are gone, by name."""

    def __init__(
        self,
        dialect: str,
        table: Table,
        where: Sequence[ColumnElement[bool]],
        *,
        key: Column[Any],
        returned: Mapping[str, ColumnElement[Any]],
    ) -> None:
        self.returned = tuple(returned)
        self.read: Select[Any] | None = None
        if dialect in MYSQL_FAMILY:
            self.read = select(key.label(_ROW), *_labelled(returned)).where(*where)
            self.statement: Any = delete(table).where(key.in_(bindparam(_ROW, expanding=True)))
        else:
            self.statement = delete(table).where(*where).returning(*_labelled(returned))

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> Rows:
        """Delete; the rows that are gone."""
        if self.read is None:
            return _dicts(connection.execute(self.statement, parameters))
        rows = _dicts(connection.execute(self.read, parameters))
        for some in _some([row[_ROW] for row in rows]):
            connection.execute(self.statement, {_ROW: some})
        return [{name: row[name] for name in self.returned} for row in rows]


class _UpsertByKey:
    """What ``Upsert`` does on MariaDB and MySQL: read the rows that lack or differ, write them, read them back."""

    def __init__(
        self,
        table: Table,
        columns: Sequence[str],
        rows: Select[Any],
        key: str,
        overwrite: Sequence[str],
        besides: Besides,
        returned: Mapping[str, ColumnElement[Any]],
    ) -> None:
        fresh, there = _named(rows, columns), table.alias("there")
        differs: list[ColumnElement[bool]] = [there.c[key].is_(None)]
        differs += [there.c[name].is_distinct_from(fresh.c[name]) for name in overwrite]
        self.key = key
        self.columns = tuple(columns)
        self.read = (
            select(*map(_unrounded, fresh.c), there.c[key].label(_ROW))
            .outerjoin(there, there.c[key] == fresh.c[key])
            .where(or_(*differs))
        )
        given = insert_into("mysql", table).values({name: bindparam(name) for name in columns})
        self.insert = given.on_duplicate_key_update({key: table.c[key]})
        new = {name: bindparam(f"new_{name}", type_=table.c[name].type) for name in columns}
        # assignments count from the first to the last, so what compares with an old value comes before the new one
        pairs = [*besides(new).items(), *((name, new[name]) for name in overwrite)]
        self.update = update(table).where(table.c[key] == bindparam(_ROW, type_=table.c[key].type))
        if overwrite:
            self.update = self.update.ordered_values(*((table.c[name], value) for name, value in pairs))
        self.written = select(*_labelled(returned)).where(table.c[key].in_(bindparam(_ROW, expanding=True)))

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> Rows:
        found = _dicts(connection.execute(self.read, parameters))
        lacking = [{name: row[name] for name in self.columns} for row in found if row[_ROW] is None]
        if lacking:
            connection.execute(self.insert, lacking)
        differing = [
            {_ROW: row[_ROW], **{f"new_{name}": row[name] for name in self.columns}}
            for row in found
            if row[_ROW] is not None
        ]
        if differing:
            connection.execute(self.update, differing)
        written: Rows = []
        for keys in _some([row[self.key] for row in found]):
            written += _dicts(connection.execute(self.written, {_ROW: keys}))
        return written


def _insert_lacking(table: Table, columns: Sequence[str], rows: Select[Any], key: str) -> Any:
    """An INSERT of the rows whose key is not there; one that comes in meanwhile stays as it is.

    INSERT IGNORE would store NULL as 0.
    """
    fresh, there = _named(rows, columns), table.alias("there")
    lacking = select(*fresh.c).where(~select(there.c[key]).where(there.c[key] == fresh.c[key]).exists())
    statement = insert_into("mysql", table).from_select(list(columns), lacking)
    return statement.on_duplicate_key_update({key: table.c[key]})


_ROW: Final = "written_row"
"""The name of a row's key among what is read before it is written."""


def _named(rows: Select[Any], columns: Sequence[str]) -> Subquery:
    """A SELECT as a table whose columns have the names of those that they are for."""
    labelled = [column.label(name) for column, name in zip(rows.selected_columns, columns, strict=True)]
    return rows.with_only_columns(*labelled, maintain_column_froms=True).subquery("fresh")


def _unrounded(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A column as the database has it: types of amounts round what they read, and would hide what is to be refused."""
    return type_coerce(column, Numeric()).label(column.key) if isinstance(plain(column.type), Numeric) else column


def _labelled(returned: Mapping[str, ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    return [column.label(name) for name, column in returned.items()]


def _dicts(result: Iterable[Any]) -> Rows:
    return [dict(row._mapping) for row in result]


def _some(keys: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(keys), KEYS_AT_ONCE):
        yield list(keys[start : start + KEYS_AT_ONCE])
