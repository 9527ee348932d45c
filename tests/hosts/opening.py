"""Databases for hosts: what it takes to open one with a host's tables, by the name of the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine, Table, create_engine, event, make_url, text

from ledger_sync.dialects import open_engine
from ledger_sync.models import Money
from tests.hosts.kit import Desk, Host
from tests.refusing import refusing_new


@contextmanager
def opened(host: Host, database: str, folder: Path, url: str) -> Iterator[Engine]:
    """An engine on a database with all of the host's tables, and with nothing else in it.

    :param folder: where files go. It is made.
    :param url: the server's, where there is one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ways = {"sqlite": _sqlite, "postgresql": _postgresql, "mariadb": _mariadb}
    with ways[database](host, folder, url) as engine:
        host.tables()  # those that are made for the host are made when it is bound
        host.metadata.create_all(engine)
        yield engine
        engine.dispose()


@contextmanager
def _sqlite(host: Host, folder: Path, url: str) -> Iterator[Engine]:
    """Files; a schema of the host's own name is an attached one."""
    engine = open_engine(f"sqlite:///{folder / 'main.db'}")

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        if host.schema is not None:
            connection.execute(f"ATTACH DATABASE '{folder / host.schema}.db' AS {host.schema}")
        for schema in filter(None, ("main", host.schema)):
            connection.execute(f"PRAGMA {schema}.synchronous = OFF")  # no test pulls the plug
            connection.execute(f"PRAGMA {schema}.journal_mode = MEMORY")

    yield engine


@contextmanager
def _postgresql(host: Host, folder: Path, url: str) -> Iterator[Engine]:
    """A schema that is dropped in the end; a host's own name for its schema is translated to it."""
    schema = f"ledger_sync_{uuid4().hex[:12]}"
    admin = create_engine(url)
    with admin.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    if host.schema is None:
        engine = open_engine(url, connect_args={"options": f"-csearch_path={schema} -csynchronous_commit=off"})
        yield engine
    else:
        engine = open_engine(url)
        yield engine.execution_options(schema_translate_map={host.schema: schema})
    engine.dispose()
    with admin.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    admin.dispose()


@contextmanager
def _mariadb(host: Host, folder: Path, url: str) -> Iterator[Engine]:
    """A database that is dropped in the end, in which texts are compared by code point, as the library's own are."""
    database = f"ledger_sync_{uuid4().hex[:12]}"
    admin = create_engine(url)
    with admin.begin() as connection:
        connection.execute(text(f"CREATE DATABASE {database} CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"))
    engine = open_engine(make_url(url).set(database=database).render_as_string(hide_password=False))
    yield engine if host.schema is None else engine.execution_options(schema_translate_map={host.schema: database})
    engine.dispose()
    with admin.begin() as connection:
        connection.execute(text(f"DROP DATABASE {database}"))
    admin.dispose()


def qualified(engine: Engine, table: Table) -> str:
    """The name of a table as the database knows it."""
    schema = engine.get_execution_options().get("schema_translate_map", {}).get(table.schema, table.schema)
    return table.name if schema is None else f"{schema}.{table.name}"


def refusing(
    desk: Desk, ledger: str, column: str | None = None, values: Sequence[Any] = ()
) -> AbstractContextManager[None]:
    """The database refuses a ledger's rows while the block runs, by a trigger; those with these values, or all.

    ``column`` goes by the library's name.
    """
    engine, bound = desk.engine, desk.binding.ledger(ledger)
    table = qualified(engine, bound.table)
    scale = 1
    if column is not None and isinstance(bound.column(column).type, Money) and engine.dialect.name == "sqlite":
        scale = 100
    listed = ", ".join(f"'{value}'" if isinstance(value, str) else str(value * scale) for value in values)
    condition = "" if column is None else f"NEW.{bound.column(column).name} IN ({listed})"
    return refusing_new(engine, table, "refused by the host", condition)
