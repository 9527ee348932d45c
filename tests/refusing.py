"""A database that refuses new rows of a table, by a trigger, for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

A_USERS_OWN = "SQLSTATE '45000' SET"
"""How MariaDB signals what a trigger of a user's own raises."""


@contextmanager
def refusing_new(
    engine: Engine, table: str, message: str = "refused", when: str = "", *, state: str = A_USERS_OWN
) -> Iterator[None]:
    """No new row comes into a table while the block runs.

    :param table: as the database knows it, with its schema if it has one.
    :param when: the condition on ``NEW`` under which a row is refused; every row, unless given.
    :param state: what MariaDB signals.
    """
    made, undone = _statements(engine.dialect.name, table, message, when, state)
    with engine.begin() as connection:
        for statement in made:
            connection.exec_driver_sql(statement)
    try:
        yield
    finally:
        with engine.begin() as connection:
            for statement in undone:
                connection.exec_driver_sql(statement)


def _statements(database: str, table: str, message: str, when: str, state: str) -> tuple[list[str], list[str]]:
    """Those that make the trigger, and those that drop it."""
    schema, dot, name = table.rpartition(".")
    refuse = f"{schema}{dot}refuse"
    condition = when or "1 = 1"
    if database == "sqlite":
        # there a trigger has a schema, and its table has the same
        body = f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
        return [f"CREATE TRIGGER {refuse} BEFORE INSERT ON {name} WHEN {condition} {body}"], [f"DROP TRIGGER {refuse}"]
    if database == "mysql":
        body = f"BEGIN IF {condition} THEN SIGNAL {state} MESSAGE_TEXT = '{message}'; END IF; END"
        return [f"CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW {body}"], [f"DROP TRIGGER {refuse}"]
    body = f"BEGIN IF {condition} THEN RAISE EXCEPTION '{message}'; END IF; RETURN NEW; END"
    made = [
        f"CREATE FUNCTION {refuse}() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$",
        f"CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {refuse}()",
    ]
    return made, [f"DROP TRIGGER refuse ON {table}", f"DROP FUNCTION {refuse}()"]
