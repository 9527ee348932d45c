"""The command line on a job queue: what is typed in two terminals, one that works and one that asks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync
from tests.conftest import schema_of_its_own
from tests.queues.test_celery import redis_url  # noqa: F401 - a fixture
from tests.test_cli import ledger_sync

# Celery warns of its own that it is run by root, as it is in containers
WORKER = [sys.executable, "-c", "from ledger_sync.contrib.cli import main; main()", "worker"]


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """A folder with a file of books, whose open items are taken away."""
    assert ledger_sync("demo", "--db", "sqlite:///books.db", cwd=tmp_path).returncode == 0
    engine = create_engine(f"sqlite:///{tmp_path / 'books.db'}")
    _forget(engine)
    return tmp_path


def _forget(engine: object) -> None:
    with engine.begin() as connection:  # type: ignore[attr-defined]
        for table in ("supplier_ledger", "customer_ledger", "employee_ledger"):
            connection.execute(text(f"DELETE FROM {table}"))
    engine.dispose()  # type: ignore[attr-defined]


@contextmanager
def working(cwd: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in the background, which is interrupted in the end and ends by itself."""
    with (cwd / "worker.log").open("wb") as log:
        process = subprocess.Popen([*WORKER, *arguments], cwd=cwd, env={**os.environ}, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        finally:
            process.kill()
    assert process.returncode in {0, 2}, (cwd / "worker.log").read_text()


def test_celery_from_the_command_line(books: Path, redis_url: str) -> None:  # noqa: F811
    asked = ["--db", "sqlite:///books.db", "--queue", "celery", "--broker", redis_url]
    with working(books, *asked):
        run = ledger_sync("backfill", *asked, "--json", cwd=books)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert (report["state"], report["clean"]) == ("completed", True)
    assert report["actor"].endswith(" (queue)")
    assert ledger_sync("verify", "--db", "sqlite:///books.db", cwd=books).returncode == 0


def test_procrastinate_from_the_command_line(postgresql_url: str, tmp_path: Path) -> None:
    name = f"ledger_sync_{uuid4().hex[:12]}"
    admin = create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = make_url(postgresql_url).set(database=name)
    try:
        asked = ["--db", url.render_as_string(hide_password=False)]
        assert ledger_sync("demo", *asked, cwd=tmp_path).returncode == 0
        _forget(create_engine(url))
        queued = [*asked, "--queue", "procrastinate"]
        with working(tmp_path, *queued):
            run = ledger_sync("backfill", *queued, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        assert "The books are clean." in run.stdout
        assert ledger_sync("verify", *asked, cwd=tmp_path).returncode == 0
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


def test_several_that_come_at_once_make_the_queues_tables_once(postgresql_url: str) -> None:
    from ledger_sync.contrib.cli.queueing import Kind, queue_of

    with schema_of_its_own(postgresql_url) as engine:
        with engine.connect() as connection:
            schema = connection.scalar(text("SELECT current_schema()"))
        url = engine.url.update_query_dict({"options": f"-csearch_path={schema}"}).render_as_string(False)
        sync, factory = LedgerSync(), sessionmaker(engine)

        def come(number: int) -> bool:
            with queue_of(Kind.procrastinate, url, "", sync, factory) as queueing:
                queueing.queue.start(tenant_id=f"tenant {number}")
            return True

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(come, range(4)))


def test_a_queue_that_cannot_be_is_refused_before_a_run_is_made(books: Path) -> None:
    db = ["--db", "sqlite:///books.db"]
    down = ledger_sync(
        "backfill", *db, "--queue", "celery", "--broker", "redis://:secret-word@127.0.0.1:1/0", cwd=books
    )
    assert down.returncode == 2
    assert "does not answer" in down.stderr
    assert "Nothing was started" in down.stderr
    assert "secret-word" not in down.stderr
    elsewhere = ledger_sync("backfill", *db, "--queue", "procrastinate", cwd=books)
    assert elsewhere.returncode == 2
    assert "keeps its queue in PostgreSQL" in elsewhere.stderr
    runs = json.loads(ledger_sync("runs", *db, "--json", cwd=books).stdout)
    assert [run["actor"] for run in runs if (run["actor"] or "").endswith("(queue)")] == []


def test_whoever_stops_watching_is_told_that_the_queue_goes_on(books: Path, redis_url: str) -> None:  # noqa: F811
    asked = ["--db", "sqlite:///books.db", "--queue", "celery", "--broker", redis_url]
    # a shell's background job ignores SIGINT, and so would what it starts
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program = [sys.executable, "-c", heeding + "from ledger_sync.contrib.cli import main; main()", "backfill", *asked]
    watching = subprocess.Popen(program, cwd=books, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(600):  # nobody works on it
        if '"running"' in ledger_sync("runs", "--db", "sqlite:///books.db", "--json", cwd=books).stdout:
            break
        time.sleep(0.05)
    time.sleep(1.0)  # the bar is there by now; if it is not, the words are the same
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=60)
    assert watching.returncode == 2
    assert "goes on in the queue" in said or "Stopped." in said
    assert '"running"' in ledger_sync("runs", "--db", "sqlite:///books.db", "--json", cwd=books).stdout
