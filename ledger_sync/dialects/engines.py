"""Engines, connections and what goes wrong on them: how transactions begin, how statements are planned, what fails."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

from ledger_sync.dialects.families import is_mysql, table_name
from ledger_sync.errors import ConfigurationError


def open_engine(url: str, **options: Any) -> Engine:
    """An engine with transactions that hold what they promise.

    On SQLite the driver's own transaction handling breaks savepoints and autocommits some writes, so BEGIN
    is emitted by SQLAlchemy instead (its documented recipe), foreign keys are enforced, and a connection
    with the execution option ``ledger_sync_begin="IMMEDIATE"`` takes the write lock at once. On MariaDB and MySQL the
    sessions are at UTC.

    :raises ConfigurationError: the URL cannot be read; the message shows nothing of it.
    """
    engine = create_engine(_readable(url), **options)
    if is_mysql(engine.dialect):
        event.listen(engine, "connect", _mysql_connect)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
        event.listen(engine, "reset", _sqlite_reset)
    return engine


def _mysql_connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("SET time_zone = '+00:00'")
    cursor.close()


def _sqlite_connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA busy_timeout = 30000")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    kind = connection.get_execution_options().get("ledger_sync_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {'IMMEDIATE' if kind == 'IMMEDIATE' else 'DEFERRED'}")


def _sqlite_reset(connection: DBAPIConnection, record: ConnectionPoolEntry, state: PoolResetState) -> None:
    """A COMMIT that SQLite refuses leaves the transaction open, and SQLAlchemy takes it for ended."""
    if not state.terminate_only:
        connection.rollback()


@contextmanager
def rolled_back_if_refused(connection: Connection) -> Iterator[None]:
    """Have a COMMIT within the block that fails end the transaction all the same.

    SQLite leaves it open, with its locks, when it meets a reader, say; SQLAlchemy takes it for ended and puts the
    connection back into the pool, where whoever gets it next cannot begin.
    """
    try:
        yield
    except BaseException:
        if connection.dialect.name == "sqlite" and not connection.closed and not connection.invalidated:
            connection.connection.rollback()
        raise


def savepoints_hold(connection: Connection) -> bool:
    """Whether a savepoint on this connection can be trusted.

    The standard sqlite3 driver in its default mode lets rows survive a rolled-back savepoint.
    """
    if connection.dialect.name != "sqlite":
        return True
    driver = connection.connection.dbapi_connection
    return getattr(driver, "isolation_level", None) is None or getattr(driver, "autocommit", -1) is False


def tells_written_keys(connection: Connection) -> bool:
    """Whether a host's own writing statement tells the keys of its rows there, whatever it is.

    MariaDB and MySQL have no RETURNING for every kind of statement.
    """
    return not is_mysql(connection.dialect)


def plan_plainly(connection: Connection) -> None:
    """Until the transaction ends, have large statements run as they are planned.

    PostgreSQL compiles a costly statement to machine code first. Ours have hundreds of small expressions, and the
    compiling took longer than it saved (measured: 2 of 17 seconds at 1.7 million items).
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL jit = off")


# one statement, since some drivers take no more at once
_PLAN_FOR_RANGE: Final = text(
    "SELECT set_config('jit', 'off', true), set_config('enable_hashjoin', 'off', true), "
    "set_config('enable_mergejoin', 'off', true), set_config('random_page_cost', '1.1', true)"
)


def plan_for_range(connection: Connection) -> None:
    """Until the transaction ends, have what joins a key range with other tables look those up by their keys.

    PostgreSQL prefers to read each of the other tables in full, once per batch: a history then takes the longer per
    line the longer it is (measured at a million lines: 0.5 of 1.8 seconds of a batch of 50,000, and growing).
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_PLAN_FOR_RANGE)


def count_anew(connection: Connection, tables: Sequence[Table]) -> None:
    """Have PostgreSQL's planner know what has just been written to some tables; others keep count by themselves.

    A tenant that it has not counted yet it takes for one row, and compares each of the tenant's rows with all of them:
    in time that grows with the square of the books. Who does not own a table is warned, and nothing is counted.
    """
    if connection.dialect.name == "postgresql":
        for table in tables:  # in one order, so that two that do this don't wait for each other
            connection.exec_driver_sql(f"ANALYZE {table_name(connection, table)}")


_PASSING_STATES: Final = ("40001", "40P01", "55P03", "08", "57P")
"""SQLSTATEs, or how they begin: serialization failure, deadlock, lock timeout, lost connection, server restart."""
_STATES_OF_DATA: Final = ("22", "23", "44", "P0")
"""How SQLSTATEs begin that a row's own data cause: data exceptions, constraints, and what a trigger raises."""
_RECORD_CHANGED, _DEADLOCK, _NO_SUCH_SAVEPOINT = 1020, 1213, 1305
_NO_NEXT_KEY = 1467
"""MariaDB's error when whoever waits for a table's next key is chosen to end a deadlock, or has waited too long."""
_PASSING_CODES: Final = {
    "sqlite": {5, 6},
    "mysql": {_RECORD_CHANGED, 1205, _DEADLOCK, _NO_SUCH_SAVEPOINT, _NO_NEXT_KEY, 2003, 2006, 2013},
}
_CODES_OF_DATA: Final = {"sqlite": {19}, "mysql": {1048, 1264, 1366, 1406, 1644, 3819, 4025}}


def fault_of(error: DBAPIError) -> Literal["passing", "data", "other"]:
    """What kind of failure a statement met, whatever the driver.

    ``passing``: the same again may well succeed (a deadlock, a serialization failure, a lock timeout, a lost
    connection). ``data``: a row that was to be written is refused for what it holds. ``other``: neither; a table that
    lacks, a full disk.
    """
    original: Any = error.orig
    state = str(getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or "")
    if error.connection_invalidated or state.startswith(_PASSING_STATES):
        return "passing"
    if isinstance(error, IntegrityError | DataError) or state.startswith(_STATES_OF_DATA):
        return "data"
    if (code := getattr(original, "sqlite_errorcode", None)) is not None:
        kind, number = "sqlite", code & 0xFF  # the extended code's lowest byte is the plain one
    else:
        kind, number = "mysql", _mysql_code(error)
        if not state and number == -1 and error.statement is None and isinstance(error, OperationalError):
            return "passing"  # no statement, and no code: psycopg could not connect, or has lost the server
    if number in _PASSING_CODES[kind]:
        return "passing"
    return "data" if number in _CODES_OF_DATA[kind] else "other"


def _mysql_code(error: DBAPIError) -> int:
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else -1


def transaction_lost(error: BaseException) -> bool:
    """Whether the database has rolled back the whole transaction, and not the failed statement alone.

    On MariaDB and MySQL a deadlock does, and takes the savepoints along: whoever goes on writes to a transaction that
    has lost what was written before.
    """
    lost = {_RECORD_CHANGED, _DEADLOCK, _NO_SUCH_SAVEPOINT, _NO_NEXT_KEY}
    return isinstance(error, DBAPIError) and _mysql_code(error) in lost


_SECRET: Final = re.compile("pass|pwd|secret|token|key", re.IGNORECASE)
"""In the name of a URL's option whose value nobody may see: ``password``, ``sslpassword``, ``sslkey``."""


def _readable(url: str | URL) -> URL:
    try:
        read = make_url(url)
    except (ArgumentError, ValueError):
        read = None
    if read is None or "@" in (read.host or ""):
        # the message must not show what may be a part of the password, nor may SQLAlchemy's own error behind it
        raise ConfigurationError(
            "The database URL cannot be read. It is written dialect+driver://user:password@host:port/database, and "
            "in a user or password @ is written %40, : is %3A and / is %2F."
        )
    return read


def masked(url: str | URL) -> str:
    """A database URL as it may be shown: without its password, wherever that stands.

    :raises ConfigurationError: it cannot be read.
    """
    read = _readable(url)
    shown = {name: "***" if _SECRET.search(name) else value for name, value in read.query.items()}
    return read.set(query=shown).render_as_string(hide_password=True)
