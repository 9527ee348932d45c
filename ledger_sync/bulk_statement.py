"""One bulk statement on a watched table: which rows it concerns, as the database says, never guessed from its text.

An INSERT gives back the keys of its rows by RETURNING. The rows of an UPDATE or DELETE are selected by its own
condition first, locked, and the statement is confined to them: what comes to fit the condition meanwhile is left
alone, as if the statement had been over by then. What cannot be read so with certainty is refused.

SQLAlchemy has no public names for some of what is read of a statement here; they are the same in 2.0 and 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from sqlalchemy import Column, Connection, Delete, Insert, Result, Table, Update, UpdateBase, func, inspect, select
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.orm import FromStatement, Mapper, ORMExecuteState
from sqlalchemy.sql import visitors
from sqlalchemy.sql.expression import TableClause

from ledger_sync.attributes import plain_key
from ledger_sync.binding import Binding, Document, Ledger
from ledger_sync.dialects import parameter_set
from ledger_sync.errors import BulkWriteError

_KEY: Final = "ledger_sync_key"


@dataclass(frozen=True)
class Target:
    """A watched table. ``part``: whether it holds entries, lines or links; ``documents``: which documents it holds.

    ``key``: the column that tells its rows apart: their id, or a link's line. None where the classes leave it open.
    """

    table: Table
    key: Column[Any] | None
    part: str | None
    documents: tuple[tuple[Ledger, Document], ...]


class RowsInserted(IteratorResult[Any]):
    """The result of an INSERT whose caller asked for no rows: how many there were."""

    def __init__(self, rowcount: int) -> None:
        super().__init__(SimpleResultMetaData(()), iter(()))
        self.rowcount = rowcount


@dataclass(frozen=True)
class _Role:
    """What a table is for one bound class."""

    model: type[Any]
    key: str
    part: str | None = None
    document: tuple[Ledger, Document] | None = None


def targets(binding: Binding, ledgers: Sequence[Ledger]) -> dict[str, Target]:
    """The watched tables by their full names."""
    played = [_Role(binding.entry, "id", "entry"), _Role(binding.line, "id", "line")]
    played.append(_Role(binding.link, "line_id", "link"))
    played += [_Role(d.model, "id", document=(ledger, d)) for ledger in ledgers for d in ledger.documents]
    by_table: dict[Table, list[_Role]] = {}
    for role in played:
        for table in inspect(role.model).tables:
            by_table.setdefault(table, []).append(role)
    found = {}
    for table, roles in by_table.items():
        keys = {_column(role.model, role.key, table) for role in roles}
        parts = [role.part for role in roles if role.part is not None]
        key = keys.pop() if len(keys) == 1 and len(parts) <= 1 else None
        documents = tuple(role.document for role in roles if role.document is not None)
        found[table.fullname] = Target(table, key, parts[0] if parts else None, documents)
    return found


def _column(model: type[Any], name: str, table: Table) -> Column[Any] | None:
    """The column behind an attribute of a class that is mapped to this one table; otherwise None."""
    mapper: Mapper[Any] = inspect(model)
    key = plain_key(mapper, name)
    columns = () if key is None else mapper.column_attrs[key].columns
    if list(mapper.tables) != [table] or len(columns) != 1 or not isinstance(columns[0], Column):
        return None
    return columns[0]


def writes_to(execution: ORMExecuteState, names: Mapping[str, Target]) -> Target | None:
    """The watched table that a statement writes to, under whatever alias or subclass; None if there is none."""
    statement: Any = execution.statement
    if isinstance(statement, FromStatement):
        statement = statement.element
    if not isinstance(statement, UpdateBase):
        return None
    table = statement.table
    mapper = _mapper_of(table)
    tables = (table,) if isinstance(table, TableClause) else visitors.iterate(table)
    for element in (*tables, *(() if mapper is None else mapper.tables)):
        if isinstance(element, TableClause) and element.fullname in names:
            return names[element.fullname]
    return None


def _mapper_of(table: Any) -> Mapper[Any] | None:
    """The mapper of the class that a statement was made for; None if it was made for a table."""
    entity = table._annotations.get("parententity")
    return None if entity is None else entity.mapper


def operation_of(execution: ORMExecuteState) -> str:
    """How the statement begins, for messages."""
    return "INSERT" if execution.is_insert else "UPDATE" if execution.is_update else "DELETE"


class BulkStatement:
    """One execution of a bulk statement.

    :raises BulkWriteError: it cannot be read with certainty.
    """

    def __init__(self, execution: ORMExecuteState, target: Target) -> None:
        self.execution = execution
        self.target = target
        self.operation = operation_of(execution)
        statement = execution.statement
        if not isinstance(statement, Insert | Update | Delete):
            self.refuse("stands within from_statement()")
        self.statement = statement
        self.mapper = _mapper_of(statement.table)
        parameters = execution.parameters or ()
        self.parameters: Sequence[Mapping[str, Any]] = [parameters] if isinstance(parameters, Mapping) else parameters
        # whether SQLAlchemy makes statements of its own from it: an INSERT, or an UPDATE by primary key
        by_parameters = (isinstance(statement, Insert) and bool(self.parameters)) or (
            isinstance(statement, Update) and execution.is_executemany
        )
        strategy = execution.execution_options.get("dml_strategy", "auto")
        self.taken_apart = self.mapper is not None and by_parameters and strategy in {"auto", "bulk"}
        self._check()

    def refuse(self, problem: str) -> NoReturn:
        """Raise what says why the statement is refused."""
        raise BulkWriteError(self.target.table.fullname, self.operation, problem)

    @property
    def key(self) -> Column[Any]:
        """The column that tells the rows apart."""
        assert self.target.key is not None
        return self.target.key

    def _check(self) -> None:
        statement = self.statement
        if statement.table not in {self.target.table}:
            self.refuse("goes through an alias, a join, a subclass or another Table object of that name")
        if self.target.key is None:
            self.refuse("is on a table that has no column of its own for the key, or plays several parts")
        if getattr(statement, "_prefixes", ()):
            self.refuse("has a prefix")
        upsert = getattr(statement, "_post_values_clause", None)
        if upsert is not None and upsert.__visit_name__ != "on_conflict_do_nothing":
            self.refuse("may update rows instead of inserting them (an upsert)")
        for element in visitors.iterate(statement):
            if isinstance(element, UpdateBase) and element is not statement:
                self.refuse("holds another writing statement")
        if isinstance(statement, Update) and self.execution.is_executemany and self.mapper is not None:
            names = [self.mapper.get_property_by_column(column).key for column in self.mapper.primary_key]
            if not self.taken_apart or len(names) > 1 or any(names[0] not in one for one in self.parameters):
                self.refuse("has several sets of parameters and is no UPDATE by a primary key of one column")

    # -- before it runs --------------------------------------------------------------------------------

    def find(self, connection: Connection) -> set[Any]:
        """Lock the rows that an UPDATE or DELETE is about to change; their keys."""
        if isinstance(self.statement, Insert):
            return set()
        query = select(self.key).order_by(self.key).with_for_update(key_share=True, of=self.target.table)
        if self.taken_apart and isinstance(self.statement, Update):
            assert self.mapper is not None
            (primary,) = self.mapper.primary_key
            name = self.mapper.get_property_by_column(primary).key
            query = query.where(primary.in_(parameter_set(_KEY, primary.type)))
            given = [parameters[name] for parameters in self.parameters]
            return set(connection.scalars(query, {_KEY: given}))
        if self.mapper is not None:
            # with the criteria that the host's own listeners may have added to the statement
            query = query.select_from(self.mapper).options(*self.statement._with_options)
        if self.statement.whereclause is not None:
            query = query.where(self.statement.whereclause)
        return {key for one in self.parameters or [{}] for key in connection.scalars(query, one)}

    # -- running it ------------------------------------------------------------------------------------

    def run(self, keys: set[Any], options: Mapping[str, Any]) -> tuple[Result[Any], set[Any]]:
        """Execute it on the rows that were found, or insert; what the caller gets, and the keys of its rows."""
        if isinstance(self.statement, Insert):
            return self._insert(self.statement, options)
        statement = self.statement
        if not self.taken_apart:
            found = parameter_set(_KEY, self.key.type).params({_KEY: list(keys)})
            statement = statement.where(self.key.in_(found))
            if self.execution.execution_options.get("synchronize_session", "auto") in {"auto", "evaluate"}:
                # which objects are concerned the database says: a subquery can't be evaluated on them
                options = {**options, "synchronize_session": "fetch"}
        result = self.execution.invoke_statement(statement=statement, execution_options=options)
        if statement._returning:
            # read before other statements follow
            result = result.freeze()()
        return result, keys

    def _insert(self, statement: Insert, options: Mapping[str, Any]) -> tuple[Result[Any], set[Any]]:
        wanted = bool(statement._returning)
        several = statement._multi_values or statement._inline or statement._post_values_clause is not None
        primary = list(self.target.table.primary_key)
        if self.key in primary and not (wanted or several or self.taken_apart):
            # so that the caller's result stays as it is
            statement = statement.return_defaults(self.key)
            result: Any = self.execution.invoke_statement(statement=statement, execution_options=options)
            inserted = {row[primary.index(self.key)] for row in result.inserted_primary_key_rows}
            if None in inserted:
                self.refuse("gives back no keys on this database")
            return result, inserted
        returning = statement.returning(self.key.label(_KEY))
        frozen = self.execution.invoke_statement(statement=returning, execution_options=options).freeze()
        others = len(frozen().keys()) - 1
        keys = frozen().scalars(others).all()
        if wanted:
            return frozen().columns(*range(others)), set(keys)
        return RowsInserted(len(keys)), set(keys)

    def check_keys(self, connection: Connection, keys: set[Any]) -> None:
        """Refuse an UPDATE that has changed the keys themselves: nothing that was found would be found again."""
        query = (
            select(func.count()).select_from(self.target.table).where(self.key.in_(parameter_set(_KEY, self.key.type)))
        )
        if connection.scalar(query, {_KEY: list(keys)}) != len(keys):
            self.refuse(f"changes {self.key.name}")
