"""The library's own tables in a host's database: made, and compared with what the models say. Reads only, but to make.

The tables of the ledgers, of what settles them, of source links, runs and the rest are ours; entries, lines and
documents are the host's, and are only looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import CheckConstraint, Connection, Engine, Inspector, Table, UniqueConstraint, inspect
from sqlalchemy.orm import Mapper

from ledger_sync.binding import Binding
from ledger_sync.dialects import columns_kept
from ledger_sync.results import Result


@dataclass(frozen=True)
class _Database:
    """What is there, and what the host calls its schemas there (``schema_translate_map``)."""

    inspector: Inspector
    schemas: Mapping[str | None, str | None]

    def of(self, question: str, table: Table) -> Any:
        """The inspector's answer to a question about a table."""
        schema = self.schemas.get(table.schema, table.schema)
        return getattr(self.inspector, question)(table.name, schema=schema)


_TWICE: Final = "what must be there once can be there twice, and statements that rely on the key fail"

_Look = Callable[[_Database, Table], Iterator["SchemaProblem"]]


class SchemaProblem(Result):
    """Something that the database lacks. ``harm``: what comes of it; ``remedy``: what to do."""

    table: str
    problem: str
    harm: str
    remedy: str


def own_tables(binding: Binding) -> tuple[Table, ...]:
    """The tables that are the library's business."""
    models = [binding.link, binding.decision, binding.error, binding.lock]
    models += [binding.run, binding.segment, binding.tombstone]
    for ledger in binding.ledgers:
        models += [ledger.item, ledger.application]
    return _tables(models)


def host_tables(binding: Binding) -> tuple[Table, ...]:
    """The tables that are the host's: entries, lines, documents and parties."""
    models = [binding.entry, binding.line]
    for ledger in binding.ledgers:
        models += [document.model for document in ledger.documents]
        if ledger.party_model is not None:
            models.append(ledger.party_model)
    return _tables(models)


def _tables(models: Iterable[type]) -> tuple[Table, ...]:
    mappers: list[Mapper[Any]] = [inspect(model) for model in models]
    found = dict.fromkeys(table for mapper in mappers for table in mapper.tables)
    return tuple(table for table in found if isinstance(table, Table))


def create_tables(bind: Engine | Connection, binding: Binding) -> None:
    """Make those of our own tables that are not there."""
    tables = own_tables(binding)
    for metadata in {table.metadata for table in tables}:
        metadata.create_all(bind, tables=[table for table in tables if table.metadata is metadata])


def check_schema(bind: Engine | Connection, binding: Binding) -> tuple[SchemaProblem, ...]:
    """What the database lacks of what the models say; empty when nothing does."""
    database = _Database(inspect(bind), bind.get_execution_options().get("schema_translate_map") or {})
    problems: list[SchemaProblem] = []
    for table in own_tables(binding):
        problems += _lacking(database, table, _ours)
    for table in host_tables(binding):
        problems += _lacking(database, table, _columns)
    return tuple(problems)


def _lacking(database: _Database, table: Table, look: _Look) -> Iterator[SchemaProblem]:
    if database.of("has_table", table):
        yield from look(database, table)
        return
    yield SchemaProblem(
        table=table.fullname,
        problem="the table is not there",
        harm="nothing can be written",
        remedy="Make it with create_tables, or by a migration.",
    )


def _columns(database: _Database, table: Table) -> Iterator[SchemaProblem]:
    there = {column["name"] for column in database.of("get_columns", table)}
    for column in table.columns:
        if column.name not in there:
            yield SchemaProblem(
                table=table.fullname,
                problem=f"column {column.name} is not there",
                harm="statements that name it fail",
                remedy=f"Add it by a migration, as {column.type!r}.",
            )
    for name, statement in columns_kept(database.inspector.dialect, table).items():
        if name not in there:
            yield SchemaProblem(
                table=table.fullname,
                problem=f"column {name} is not there",
                harm="statements that name it fail",
                remedy=f"Add it by a migration: {statement}",
            )


def _ours(database: _Database, table: Table) -> Iterator[SchemaProblem]:
    yield from _columns(database, table)
    indexes = database.of("get_indexes", table)
    unique = {tuple(sorted(key["column_names"])) for key in database.of("get_unique_constraints", table)}
    unique |= {tuple(sorted(name or "" for name in index["column_names"])) for index in indexes if index["unique"]}
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            names = tuple(sorted(column.name for column in constraint.columns))
            if names not in unique:
                yield SchemaProblem(
                    table=table.fullname,
                    problem=f"no unique key on {', '.join(names)}",
                    harm=_TWICE,
                    remedy="Add it by a migration.",
                )
    checks = {check["name"] for check in database.of("get_check_constraints", table)}
    for constraint in table.constraints:
        if (
            isinstance(constraint, CheckConstraint)
            and constraint.name is not None
            and str(constraint.name) not in checks
        ):
            yield SchemaProblem(
                table=table.fullname,
                problem=f"no check {constraint.name}",
                harm="the database would take an amount or a word that means nothing",
                remedy="Add it by a migration; the models' metadata has its text.",
            )
    # by columns, since a database may shorten the name; an index on expressions has its name alone
    for index in table.indexes:
        fitting = [found for found in indexes if found["unique"] or not index.unique]
        indexed = {tuple(found["column_names"]) for found in fitting} | {str(found["name"]) for found in fitting}
        names = tuple(str(getattr(part, "name", "")) for part in index.expressions)
        if names not in indexed and index.name not in indexed:
            yield SchemaProblem(
                table=table.fullname,
                problem=f"no unique index {index.name}" if index.unique else f"no index {index.name}",
                harm=_TWICE if index.unique else "what looks rows up by it reads the whole table",
                remedy="Add it by a migration.",
            )
