"""One fault at a time: a session's statements and commits are counted, and one of them is made to fail.

``number`` k fails before it is executed, or after the database has done it. A COMMIT that fails after it was done is
one whose reply was lost. The errors are what a driver raises; ``cut`` ends the connection on the server instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from tests.watching import listening

When = Literal["before", "after"]

STATES: Final = {"refused": (1021, "53100"), "passing": (1213, "40001"), "lost": (2013, "08006")}
"""As MariaDB and PostgreSQL say it: a full disk, after which nothing is tried again; a serialization failure, which on
MariaDB is a deadlock; a lost connection."""


class DriverError(Exception):
    """As a driver says it."""

    def __init__(self, number: int, state: str) -> None:
        super().__init__(number, state)
        self.sqlstate = state


@dataclass
class Met:
    """How many statements and commits there were, and which of them met the fault."""

    count: int = 0
    statement: str | None = None


def cut(connection: Connection) -> None:
    """End a connection to PostgreSQL or MariaDB from the server's side, and wait until it has gone."""
    driver: Any = connection.connection.dbapi_connection
    admin = create_engine(connection.engine.url, isolation_level="AUTOCOMMIT")
    if connection.dialect.name == "postgresql":
        end, left = "SELECT pg_terminate_backend(:id)", "SELECT count(*) FROM pg_stat_activity WHERE pid = :id"
        whose = {"id": driver.info.backend_pid}
    else:
        end, left = "KILL :id", "SELECT count(*) FROM information_schema.processlist WHERE id = :id"
        whose = {"id": driver.thread_id()}
    with admin.connect() as beside:
        beside.execute(text(end), whose)
        while beside.scalar(text(left), whose):
            pass
    admin.dispose()


@contextmanager
def fault(engine: Engine, number: int, when: When, kind: str = "refused") -> Iterator[Met]:
    """Statement or commit ``number`` on an engine fails; 0: none, they are counted.

    :param kind: one of ``STATES``, or ``cut`` (PostgreSQL, MariaDB): the statement, or the one that follows, finds the
        connection ended.
    """
    met = Met()
    streaming: list[Any] = []

    def fail(connection: Connection, statement: str, parameters: Any = None) -> None:
        met.statement = statement
        if kind == "cut":
            cut(connection)
            return
        raise DBAPIError(statement, parameters, DriverError(*STATES[kind]))

    def before(connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        met.count += 1
        if type(cursor).__name__ == "ServerCursor":
            streaming.append(cursor)
        if met.count == number and when == "before":
            fail(connection, statement, parameters)

    def after(connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if met.count == number and when == "after" and met.statement is None:
            fail(connection, statement, parameters)

    def commit(connection: Connection) -> None:
        met.count += 1
        if met.count != number:
            return
        if when == "after":
            connection.connection.commit()
            met.statement = "COMMIT, done"
            if kind == "cut":
                cut(connection)
                connection.invalidate()
            raise DBAPIError("COMMIT", None, DriverError(*STATES["lost" if kind == "cut" else kind]))
        if kind != "cut" and connection.dialect.name != "sqlite":
            connection.connection.rollback()  # a server that refuses a COMMIT has ended the transaction; SQLite has not
        fail(connection, "COMMIT")

    with (
        listening(engine, "before_cursor_execute", before),
        listening(engine, "after_cursor_execute", after),
        listening(engine, "commit", commit),
    ):
        try:
            yield met
        finally:
            # SQLAlchemy leaves open what a listener has broken off, and what was on a connection that is lost
            for cursor in streaming:
                with suppress(Exception):
                    cursor.close()
    if kind == "cut":
        engine.dispose()


@contextmanager
def disk_full(engine: Engine, pages_more: int) -> Iterator[None]:
    """An SQLite file may grow by so many pages, and no further."""

    def limit(connection: Any, record: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + pages_more}")

    engine.dispose()
    event.listen(engine, "connect", limit)
    try:
        yield
    finally:
        event.remove(engine, "connect", limit)
        engine.dispose()
