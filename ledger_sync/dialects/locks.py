"""Who waits for whom: buckets of settlement groups, rows held against changes, writers in flight.

PostgreSQL has advisory locks; MariaDB and MySQL lock the bucket's own row, by raising its version. In a snapshot that
is older than the lock what others settled cannot be seen, so a version that has changed since then is an error, which
the host answers by trying again. SQLite has one writer.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Table,
    TextClause,
    bindparam,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from ledger_sync.dialects.families import MYSQL_FAMILY, insert_into, is_mysql, table_name
from ledger_sync.waiting import pause

_ALL_ROWS: Final = 2**63 - 1


def held(dialect: str, model: type[Any], ids: Select[Any]) -> Select[Any]:
    """A SELECT that locks rows of a class, by id and in the order of their ids, against changes until the commit.

    Rows that refer to them can still be inserted on PostgreSQL; on MariaDB and MySQL that waits. It returns how many
    there are: the ids stay in the server. Where there are no row locks it only reads.
    """
    key: ColumnElement[Any] = model.id
    if dialect in MYSQL_FAMILY:
        # an order counts there only with a limit, and rows are locked in the order in which they are joined
        (id_,) = ids.subquery("concerned").c
        ordered = select(id_.label("id")).distinct().order_by(id_).limit(_ALL_ROWS).subquery("ordered")
        counted = select(func.count()).select_from(ordered).join(model, key == ordered.c.id)
        return counted.prefix_with("STRAIGHT_JOIN").with_for_update()
    rows = select(key).where(key.in_(ids)).order_by(key).with_for_update(key_share=True)
    return select(func.count()).select_from(rows.subquery("held"))


# -- buckets -------------------------------------------------------------------------------------------


def bucket_keys(scope: str, groups: Iterable[object]) -> list[int]:
    """The lock keys of some groups: 256 buckets per scope, sorted, as 64-bit integers."""
    keys = set()
    for group in groups:
        digest = hashlib.blake2b(scope.encode(), digest_size=7, person=b"ledger_sync").digest()
        bucket = hashlib.blake2b(str(group).encode(), digest_size=1).digest()
        keys.add(int.from_bytes(digest + bucket, "big", signed=True))
    return sorted(keys)


def all_bucket_keys(scope: str) -> list[int]:
    """All 256 lock keys of a scope, sorted."""
    digest = hashlib.blake2b(scope.encode(), digest_size=7, person=b"ledger_sync").digest()
    return sorted(int.from_bytes(digest + bytes([bucket]), "big", signed=True) for bucket in range(256))


# Advisory locks hold in the whole database, so the lock table's own identity goes into each key: two installations
# in two schemas, with tenants of the same name, never wait for one another.
_ADVISORY_LOCKS: Final = text(
    "SELECT current_setting('transaction_isolation') AS isolation, count(pg_advisory_xact_lock("
    "key # (CAST(CAST(CAST(:lock_table AS regclass) AS oid) AS bigint) << 8))) "
    "FROM (SELECT CAST(value AS BIGINT) AS key FROM json_array_elements_text(CAST(:keys AS JSON)) "
    "ORDER BY 1 OFFSET 0) AS keys"
)


def take_locks(connection: Connection, table: Table, keys: Sequence[int]) -> bool:
    """Hold the buckets until the transaction ends; whether what others committed meanwhile can be seen now.

    At READ COMMITTED on PostgreSQL the locks are advisory. Above it the snapshot is older than the lock, so a
    bucket's row is bumped as well, and a conflict is raised rather than missed; so it is on MariaDB and MySQL at any
    isolation. SQLite has one writer.
    """
    if not keys or connection.dialect.name == "sqlite":
        return False
    if is_mysql(connection.dialect):
        isolation, before = _versions_seen(connection, table, keys)
        _bump(connection, table, keys)
        if isolation in _WITHOUT_SNAPSHOT:
            return True
        after = _versions_now(connection, table, keys)
        _refuse_conflict(connection, any(after[key] - 1 != before.get(key, 0) for key in keys))
        return False
    name = table_name(connection, table)
    isolation = connection.execute(_ADVISORY_LOCKS, {"keys": json.dumps(list(keys)), "lock_table": name}).scalar_one()
    if isolation == "read committed":
        return True
    _bump(connection, table, keys)
    return False


def _bump(connection: Connection, table: Table, keys: Sequence[int]) -> None:
    rows = [{"id": key, "version": 1} for key in keys]
    if is_mysql(connection.dialect):
        name = table_name(connection, table)
        raised = "VALUES (:id, :version) ON DUPLICATE KEY UPDATE version = version + 1"
        connection.execute(text(f"INSERT INTO {name} (id, version) {raised}"), rows)
        return
    for row in rows:
        bump = insert_into("postgresql", table).values(**row)
        connection.execute(bump.on_conflict_do_update(index_elements=["id"], set_={"version": table.c.version + 1}))


# -- snapshots -----------------------------------------------------------------------------------------

_IN_A_SNAPSHOT: Final = text("current_setting('transaction_isolation') <> 'read committed'")


def mark_for_snapshots(connection: Connection, table: Table, key: int) -> None:
    """Have every transaction that reads an older snapshot fail in ``refuse_old_snapshot``, once this one commits."""
    if connection.dialect.name != "sqlite":
        _bump(connection, table, [key])


def refuse_old_snapshot(connection: Connection, table: Table, key: int) -> None:
    """Above READ COMMITTED, raise a serialization failure if a marking transaction has committed since the snapshot.

    One that is under way is waited for. At READ COMMITTED each statement sees what is committed, so nothing is refused.
    """
    if connection.dialect.name == "sqlite":
        return
    if is_mysql(connection.dialect):
        _refuse_old_snapshot_mysql(connection, table, key)
        return
    # a row that was inserted since is not seen by the SELECT; the INSERT fails on it
    row = select(literal(key, BigInteger()), literal(0, BigInteger())).where(_IN_A_SNAPSHOT)
    insert = insert_into("postgresql", table).from_select(["id", "version"], row, include_defaults=False)
    connection.execute(insert.on_conflict_do_nothing(index_elements=["id"]))
    connection.execute(select(table.c.id).where(table.c.id == key, _IN_A_SNAPSHOT).with_for_update(read=True))


_WITHOUT_SNAPSHOT: Final = ("READ-COMMITTED", "READ-UNCOMMITTED")

# the error that a deadlock is, which hosts on these databases answer by trying again anyway
_CONFLICT: Final = (
    "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, "
    "MESSAGE_TEXT = 'ledger_sync: another transaction has settled or synced here since this snapshot; try again'"
)


def _refuse_old_snapshot_mysql(connection: Connection, table: Table, key: int) -> None:
    isolation, before = _versions_seen(connection, table, [key])
    if isolation in _WITHOUT_SNAPSHOT:
        return
    if key not in before:
        # a locking read of a row that is not there would lock the gap that it leaves
        name = table_name(connection, table)
        lacking = text(f"INSERT INTO {name} (id, version) VALUES (:id, 0) ON DUPLICATE KEY UPDATE version = version")
        connection.execute(lacking, {"id": key})
    after = _versions_now(connection, table, [key], " LOCK IN SHARE MODE")
    _refuse_conflict(connection, after[key] != before.get(key, 0))


def _refuse_conflict(connection: Connection, conflict: bool) -> None:
    if conflict:
        connection.exec_driver_sql(_CONFLICT)


def _versions_seen(connection: Connection, table: Table, keys: Sequence[int]) -> tuple[str, dict[int, int]]:
    """The isolation level, and the versions of the locks' rows as the transaction's snapshot has them."""
    variable = "tx_isolation" if getattr(connection.dialect, "is_mariadb", False) else "transaction_isolation"
    name = table_name(connection, table)
    query = text(
        f"SELECT @@{variable} AS isolation, locks.id, locks.version "
        f"FROM (SELECT 1 AS one) AS one LEFT JOIN {name} AS locks ON locks.id IN :keys"
    )
    rows = connection.execute(_of_keys(query), {"keys": list(keys)}).all()
    return rows[0].isolation, {row.id: row.version for row in rows if row.id is not None}


def _versions_now(
    connection: Connection, table: Table, keys: Sequence[int], locking: str = " FOR UPDATE"
) -> dict[int, int]:
    """The versions as they are committed or our own, whatever the snapshot has."""
    name = table_name(connection, table)
    query = text(f"SELECT id, version FROM {name} WHERE id IN :keys ORDER BY id{locking}")
    return {row.id: row.version for row in connection.execute(_of_keys(query), {"keys": list(keys)})}


def _of_keys(query: TextClause) -> TextClause:
    return query.bindparams(bindparam("keys", expanding=True))


# -- writers in flight ---------------------------------------------------------------------------------


def wait_for_writers(connection: Connection, seconds_max: float) -> bool:
    """Wait until the transactions that are writing now have ended; False if some have not within that time.

    On PostgreSQL, MariaDB and MySQL keys are drawn before the commit, so what a transaction in flight inserts may
    appear under a key lower than others that can be seen. The connection must be at READ COMMITTED and must not have
    written.
    MariaDB and MySQL show who is writing only to those with the PROCESS privilege; without it nobody is waited for, and
    what came in late is found by the proof that ends every run.
    """
    if connection.dialect.name == "postgresql":
        return _wait_for_border(connection, seconds_max)
    if is_mysql(connection.dialect):
        return _wait_for_transactions(connection, seconds_max)
    return True


def _wait_for_border(connection: Connection, seconds_max: float) -> bool:
    border = connection.exec_driver_sql("SELECT CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text)").scalar_one()
    passed = text("SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) >= :border")
    deadline = time.monotonic() + seconds_max
    while not connection.execute(passed, {"border": int(border)}).scalar_one():
        if time.monotonic() >= deadline:
            return False
        pause(0.02)
    return True


# one that waits for a lock may have drawn a key for a row that is not there yet
_WRITING: Final = (
    "SELECT trx_id FROM information_schema.innodb_trx "
    "WHERE (trx_rows_modified > 0 OR trx_state = 'LOCK WAIT') AND trx_mysql_thread_id <> connection_id()"
)


# the list is made anew only when nobody has asked for it in a tenth of a second
_LIST_SECONDS: Final = 0.15


def _wait_for_transactions(connection: Connection, seconds_max: float) -> bool:
    pause(_LIST_SECONDS)
    try:
        writing = set(connection.exec_driver_sql(_WRITING).scalars())
    except DBAPIError:
        return True
    deadline = time.monotonic() + seconds_max
    while writing:
        if time.monotonic() >= deadline:
            return False
        pause(_LIST_SECONDS)
        writing &= set(connection.exec_driver_sql(_WRITING).scalars())
    return True
