"""The hosts' databases: one engine for each host and database, with its tables made once and emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.conftest import given_back
from tests.hosts.clients import HOST as CLIENTS
from tests.hosts.dimensions import HOST as DIMENSIONS
from tests.hosts.kit import Desk, Host
from tests.hosts.opening import opened
from tests.hosts.signed import HOST as SIGNED

HOSTS = (CLIENTS, SIGNED, DIMENSIONS)
DATABASES = ("sqlite", "postgresql", "mariadb")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hosts keep amounts in Numeric, of which SQLite has none; SQLAlchemy warns of it whenever it reads one."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:Dialect sqlite.* does .not. support Decimal"))


class Engines:
    """The engines that are open, by host and database."""

    def __init__(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.request = request
        self.folder = tmp_path_factory.mktemp("hosts")
        self.stack = ExitStack()
        self._open: dict[tuple[str, str], Engine] = {}

    def of(self, host: Host, database: str) -> Engine:
        """An engine with the host's tables, without a row."""
        if (host.name, database) not in self._open:
            url = "" if database == "sqlite" else self.request.getfixturevalue(f"{database}_url")
            folder = self.folder / host.name
            self._open[host.name, database] = self.stack.enter_context(opened(host, database, folder, url))
        engine = self._open[host.name, database]
        host.empty(engine)
        return engine


@pytest.fixture(scope="session")
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    made = Engines(request, tmp_path_factory)
    with made.stack:
        yield made


@pytest.fixture(params=HOSTS, ids=str)
def host(request: pytest.FixtureRequest) -> Host:
    chosen: Host = request.param
    return chosen


@pytest.fixture(params=DATABASES)
def desk(request: pytest.FixtureRequest, host: Host, engines: Engines) -> Iterator[Desk]:
    """A host at work on each database."""
    made = Desk(host, engines.of(host, request.param))
    yield made
    made.close()
    given_back(made.engine)
