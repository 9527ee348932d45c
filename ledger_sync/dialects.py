"""Every difference between databases, in one place.

Small SQL elements that compile to what each database understands, the upsert, and the engine that our
own commands open. Nothing else in the package asks which database it talks to.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Select,
    String,
    Table,
    bindparam,
    cast,
    create_engine,
    event,
    func,
    literal,
    literal_column,
    make_url,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import Boolean, TypeEngine

from ledger_sync.errors import ConfigurationError
from ledger_sync.waiting import pause

AMOUNT_BOUND: Final = 10**13
"""Amounts lie strictly between plus and minus ten trillion, so that sums of them fit into 64 bits."""

ID_TYPE: Final = BigInteger().with_variant(Integer, "sqlite")


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


class all_digits(expression.FunctionElement[bool]):  # noqa: N801
    """Whether a text consists of the digits 0 to 9 alone."""

    type = Boolean()
    inherit_cache = True
    name = "all_digits"


@compiles(all_digits)
def _all_digits(element: all_digits, compiler: SQLCompiler, **kw: Any) -> str:
    return f"{compiler.process(element.clauses, **kw)} ~ '^[0-9]+$'"


@compiles(all_digits, "sqlite")
def _all_digits_sqlite(element: all_digits, compiler: SQLCompiler, **kw: Any) -> str:
    return f"{compiler.process(element.clauses, **kw)} NOT GLOB '*[^0-9]*'"


@compiles(all_digits, "mysql", "mariadb")
def _all_digits_mysql(element: all_digits, compiler: SQLCompiler, **kw: Any) -> str:
    return f"{compiler.process(element.clauses, **kw)} REGEXP '^[0-9]+$'"


class binary_order(expression.FunctionElement[str]):  # noqa: N801
    """A text to sort by its code points, whatever the database's locale."""

    type = String()
    inherit_cache = True
    name = "binary_order"


@compiles(binary_order)
def _binary_order(element: binary_order, compiler: SQLCompiler, **kw: Any) -> str:
    return f'{compiler.process(element.clauses, **kw)} COLLATE "C"'


@compiles(binary_order, "sqlite")
def _binary_order_sqlite(element: binary_order, compiler: SQLCompiler, **kw: Any) -> str:
    return f"{compiler.process(element.clauses, **kw)} COLLATE BINARY"


@compiles(binary_order, "mysql", "mariadb")
def _binary_order_mysql(element: binary_order, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **kw)} AS BINARY)"


class ascii_upper(expression.FunctionElement[str]):  # noqa: N801
    """A text with the letters a to z in upper case and all others as they are, on every database."""

    type = String()
    inherit_cache = True
    name = "ascii_upper"


@compiles(ascii_upper)
def _ascii_upper(element: ascii_upper, compiler: SQLCompiler, **kw: Any) -> str:
    return f"upper({compiler.process(element.clauses, **kw)})"


@compiles(ascii_upper, "postgresql")
def _ascii_upper_postgresql(element: ascii_upper, compiler: SQLCompiler, **kw: Any) -> str:
    return f'upper(({compiler.process(element.clauses, **kw)}) COLLATE "C")'


class json_values(expression.FunctionElement[Any]):  # noqa: N801
    """The values of a JSON array in a bound parameter, as a table with one column ``value``.

    One parameter however many values, so no limit on parameters is ever met, and one text for the
    statement, so it is compiled once.
    """

    inherit_cache = True
    name = "json_values"


@compiles(json_values, "postgresql")
def _json_values_postgresql(element: json_values, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_array_elements_text(CAST({compiler.process(element.clauses, **kw)} AS JSON))"


@compiles(json_values, "sqlite")
def _json_values_sqlite(element: json_values, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **kw)})"


def parameter_set(name: str, type_: TypeEngine[Any]) -> Select[Any]:
    """A SELECT of the values that ``as_parameter`` put under ``name``, each of the given type."""
    value = json_values(bindparam(name, type_=String)).table_valued("value").c.value
    return select(cast(value, BigInteger() if isinstance(type_, Integer) else type_))


def as_parameter(values: Iterable[object]) -> str:
    """The JSON text that ``parameter_set`` reads."""
    return json.dumps([value if isinstance(value, int) else str(value) for value in values])


def text_of(column: ColumnElement[Any]) -> ColumnElement[str]:
    """A key as text, the same on every database."""
    return cast(column, String)


def normalised(reference: ColumnElement[Any]) -> ColumnElement[str]:
    """A reference as it is compared: without blanks, letters in upper case.

    Nothing else is dropped. Whoever strips dashes or leading zeros makes two references out of many into
    one, and a payment then settles an invoice that nobody named.
    """
    bare: ColumnElement[str] = reference
    for blank in (" ", "\u00a0", "\t"):
        bare = func.replace(bare, literal_column(f"'{blank}'"), literal_column("''"))
    return ascii_upper(bare)


def insert_from(
    dialect: str,
    table: Table,
    columns: Sequence[str],
    rows: Select[Any],
    *,
    key: str,
    overwrite: Sequence[str] = (),
    besides: Callable[[Any], Mapping[str, Any]] = lambda new: {},
) -> Any:
    """``INSERT … SELECT`` that meets rows which exist.

    A row whose ``key`` exists is left alone, or, for the columns in ``overwrite``, rewritten where one of
    them differs; ``values`` are set besides when a row is rewritten. Rows that stay as they are do not
    appear in a RETURNING.
    """
    constructs: dict[str, Any] = {"postgresql": postgresql_insert, "sqlite": sqlite_insert}
    if dialect not in constructs:
        raise ConfigurationError(f"The database dialect {dialect!r} is not supported. Use PostgreSQL or SQLite.")
    statement = constructs[dialect](table).from_select(list(columns), rows, include_defaults=False)
    if not overwrite:
        return statement.on_conflict_do_nothing(index_elements=[key])
    new = statement.excluded
    differs = or_(*(table.c[name].is_distinct_from(new[name]) for name in overwrite))
    return statement.on_conflict_do_update(
        index_elements=[key],
        set_={**{name: new[name] for name in overwrite}, **besides(new)},
        where=differs,
    )


def counts_beside_insert(connection: Connection) -> bool:
    """Whether one statement can insert rows and return counts of what it looked at (a writing WITH)."""
    return connection.dialect.name == "postgresql"


def held(model: type[Any], ids: Select[Any]) -> Select[Any]:
    """A SELECT that locks rows of a class, by id and in the order of their ids, against changes until the commit.

    Rows that refer to them can still be inserted. It returns how many there are: the ids stay in the server. Where
    there are no row locks it only reads.
    """
    key: ColumnElement[Any] = model.id
    rows = select(key).where(key.in_(ids)).order_by(key).with_for_update(key_share=True)
    return select(func.count()).select_from(rows.subquery("held"))


def open_engine(url: str, **options: Any) -> Engine:
    """An engine with transactions that hold what they promise.

    On SQLite the driver's own transaction handling breaks savepoints and autocommits some writes, so BEGIN
    is emitted by SQLAlchemy instead (its documented recipe), foreign keys are enforced, and a connection
    with the execution option ``ledger_sync_begin="IMMEDIATE"`` takes the write lock at once.
    """
    engine = create_engine(url, **options)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA busy_timeout = 30000")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    kind = connection.get_execution_options().get("ledger_sync_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {'IMMEDIATE' if kind == 'IMMEDIATE' else 'DEFERRED'}")


def savepoints_hold(connection: Connection) -> bool:
    """Whether a savepoint on this connection can be trusted.

    The standard sqlite3 driver in its default mode lets rows survive a rolled-back savepoint.
    """
    if connection.dialect.name != "sqlite":
        return True
    driver = connection.connection.dbapi_connection
    return getattr(driver, "isolation_level", None) is None or getattr(driver, "autocommit", -1) is False


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


_PASSING_STATES: Final = ("40001", "40P01", "55P03", "08", "57P")
"""SQLSTATEs, or how they begin: serialization failure, deadlock, lock timeout, lost connection, server restart."""
_STATES_OF_DATA: Final = ("22", "23", "44", "P0")
"""How SQLSTATEs begin that a row's own data cause: data exceptions, constraints, and what a trigger raises."""
_PASSING_CODES: Final = {"sqlite": {5, 6}, "mysql": {1020, 1205, 1213, 2006, 2013}}
_CODES_OF_DATA: Final = {"sqlite": {19}, "mysql": {1644, 3819, 4025}}


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
        arguments = getattr(original, "args", ())
        kind, number = "mysql", arguments[0] if arguments and isinstance(arguments[0], int) else -1
    if number in _PASSING_CODES[kind]:
        return "passing"
    return "data" if number in _CODES_OF_DATA[kind] else "other"


def wait_for_writers(connection: Connection, seconds_max: float) -> bool:
    """Wait until the transactions that are writing now have ended; False if some have not within that time.

    On PostgreSQL keys are drawn before the commit, so what a transaction in flight inserts may appear under a key
    lower than others that can be seen. The connection must be at READ COMMITTED and must not have written.
    """
    if connection.dialect.name != "postgresql":
        return True
    border = connection.exec_driver_sql("SELECT CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text)").scalar_one()
    passed = text("SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) >= :border")
    deadline = time.monotonic() + seconds_max
    while not connection.execute(passed, {"border": int(border)}).scalar_one():
        if time.monotonic() >= deadline:
            return False
        pause(0.02)
    return True


def masked(url: str) -> str:
    """A database URL without its password."""
    return make_url(url).render_as_string(hide_password=True)


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
    bucket's row is bumped as well, and a conflict is raised rather than missed. SQLite has one writer.
    """
    if not keys or connection.dialect.name == "sqlite":
        return False
    name = connection.dialect.identifier_preparer.format_table(table)
    isolation = connection.execute(_ADVISORY_LOCKS, {"keys": as_parameter(keys), "lock_table": name}).scalar_one()
    if isolation == "read committed":
        return True
    for key in keys:
        bump = postgresql_insert(table).values(id=key, version=1)
        connection.execute(bump.on_conflict_do_update(index_elements=["id"], set_={"version": table.c.version + 1}))
    return False


_IN_A_SNAPSHOT: Final = text("current_setting('transaction_isolation') <> 'read committed'")


def mark_for_snapshots(connection: Connection, table: Table, key: int) -> None:
    """Have every transaction that reads an older snapshot fail in ``refuse_old_snapshot``, once this one commits."""
    if connection.dialect.name == "postgresql":
        bump = postgresql_insert(table).values(id=key, version=1)
        connection.execute(bump.on_conflict_do_update(index_elements=["id"], set_={"version": table.c.version + 1}))


def refuse_old_snapshot(connection: Connection, table: Table, key: int) -> None:
    """Above READ COMMITTED, raise a serialization failure if a marking transaction has committed since the snapshot.

    One that is under way is waited for. At READ COMMITTED each statement sees what is committed, so nothing is refused.
    """
    if connection.dialect.name != "postgresql":
        return
    # a row that was inserted since is not seen by the SELECT; the INSERT fails on it
    row = select(literal(key, BigInteger()), literal(0, BigInteger())).where(_IN_A_SNAPSHOT)
    insert = postgresql_insert(table).from_select(["id", "version"], row, include_defaults=False)
    connection.execute(insert.on_conflict_do_nothing(index_elements=["id"]))
    connection.execute(select(table.c.id).where(table.c.id == key, _IN_A_SNAPSHOT).with_for_update(read=True))
