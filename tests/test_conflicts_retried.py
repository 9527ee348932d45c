"""Deadlocks and serialization failures are tried again, a bounded number of times, and the run ends exactly.

Four workers share a run over entries that can be edited, which a batch locks in the order of their keys. Hosts beside
them lock the same entries in the reversed order, so that the server itself breaks deadlocks; and a trigger refuses some
of the rows, as the server does on a conflict. How often, is drawn from a printed seed.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync, Settings
from ledger_sync.dialects import fault_of
from tests.budget import at_length
from tests.conftest import schema_of_its_own
from tests.hosts.editable import Base, Entry, Item, Line, Link, Supplier, editable_sync
from tests.test_runs_beside_posting import look, posted, take_all_rows
from tests.watching import listening, statements

ROUNDS = at_length(100, 1_000, 3)
ENTRIES = 48
RETRIES_MAX = 12


@pytest.fixture(scope="module")
def books_engine(postgresql_url: str) -> Iterator[Engine]:
    editable_sync()  # makes the classes that the host lacks
    with schema_of_its_own(postgresql_url) as engine:
        Base.metadata.create_all(engine)
        yield engine


@pytest.fixture
def engine(books_engine: Engine) -> Engine:
    take_all_rows(books_engine)
    return books_engine


@pytest.fixture(scope="module")
def sync() -> LedgerSync:
    made = editable_sync()
    settings = made.settings.model_dump() | {
        "batch_lines_max": 6,
        "batch_lines_start": 6,
        "segment_lines_max": 12,
        "retries_max": RETRIES_MAX,
        "writers_seconds_max": 0,
    }
    ledgers = list(made.binding.ledgers)
    return LedgerSync(Settings(**settings), entry=Entry, line=Line, ledgers=ledgers, link=Link)


@contextmanager
def conflicts(engine: Engine, one_in: int) -> Iterator[None]:
    """One of so many rows that are written meets a conflict: a deadlock and a serialization failure by turns."""
    made = f"""
        CREATE SEQUENCE met;
        CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE number bigint := nextval('met');
        BEGIN
            IF mod(number, {one_in}) = 0 THEN
                IF mod(number / {one_in}, 2) = 0 THEN
                    RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01';
                END IF;
                RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER conflict BEFORE INSERT ON e_items FOR EACH ROW EXECUTE FUNCTION conflict();
    """
    with engine.begin() as connection:
        connection.exec_driver_sql(made)
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER conflict ON e_items; DROP FUNCTION conflict; DROP SEQUENCE met")


@contextmanager
def failed(engine: Engine) -> Iterator[list[str]]:
    """The kinds of the failures that statements meet."""
    met: list[str] = []

    def note(context: Any) -> None:
        if isinstance(context.sqlalchemy_exception, DBAPIError):
            met.append(fault_of(context.sqlalchemy_exception))

    with listening(engine, "handle_error", note):
        yield met


def history(engine: Engine) -> sessionmaker[Session]:
    unsynced = sessionmaker(engine)
    with unsynced() as session:
        session.add(Supplier(id=1, tenant_id="acme", number="S", name="S"))
        for key in range(1, ENTRIES + 1):
            posted(session, key, 100 + key // 2 if key % 2 else -(99 + key // 2), "OLD")
        session.commit()
    return unsynced


def lock_in_reverse(factory: sessionmaker[Session], over: threading.Event, choose: random.Random) -> int:
    """What a host does that locks entries from the last to the first; how often it met a deadlock."""
    deadlocks = 0
    while not over.is_set():
        keys = sorted(choose.sample(range(1, ENTRIES + 1), 8), reverse=True)
        with factory() as session:
            try:
                for key in keys:
                    session.scalars(select(Entry.id).where(Entry.id == key).with_for_update(key_share=True)).one()
                session.commit()
            except DBAPIError as error:
                if fault_of(error) != "passing":
                    raise
                deadlocks += 1
    return deadlocks


def test_a_run_among_deadlocks_and_conflicts_ends_exactly(engine: Engine, sync: LedgerSync) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    choose = random.Random(seed)
    all_met = broken = 0
    for _ in range(ROUNDS):
        take_all_rows(engine)
        unsynced, over = history(engine), threading.Event()
        with (
            conflicts(engine, choose.randrange(9, 40)),
            failed(engine) as met,
            statements(engine, "INTO e_items") as attempts,
            ThreadPoolExecutor(2) as hosts,
            ThreadPoolExecutor(4) as workers,
        ):
            beside = [hosts.submit(lock_in_reverse, unsynced, over, random.Random(seed + n)) for n in range(2)]
            try:
                report = sync.backfill(unsynced, tenant_id="acme", executor=workers, workers=4)
            finally:
                over.set()
            deadlocks = sum(host.result() for host in beside)
        assert (report.state, report.clean) == ("completed", True)
        assert (report.processed, report.synced, report.errors) == (ENTRIES, ENTRIES, 0)
        assert report.applied == ENTRIES // 2
        with engine.connect() as connection:
            assert not look(connection, all_of_them=True)
        with unsynced() as session:
            assert len(session.scalars(select(Item.id)).all()) == ENTRIES
        assert set(met) <= {"passing"}
        # each attempt of a batch beyond its first followed a failure
        batches = ENTRIES // 6
        assert batches <= len(attempts) <= batches + len(met)
        all_met += len(met)
        broken += deadlocks
    print(f"{all_met} failures, of which {broken} deadlocks of the hosts'")  # noqa: T201
    assert all_met > 0, "nothing met a conflict"


def test_what_meets_a_conflict_for_ever_is_given_up_after_so_many_attempts(engine: Engine, sync: LedgerSync) -> None:
    unsynced = history(engine)
    few = LedgerSync(
        sync.settings.model_copy(update={"retries_max": 3}),
        entry=Entry,
        line=Line,
        ledgers=list(sync.binding.ledgers),
        link=Link,
    )
    with conflicts(engine, 1), statements(engine, "INTO e_items") as attempts, pytest.raises(DBAPIError):
        few.backfill(unsynced, tenant_id="acme")
    assert len(attempts) == 4
    with unsynced() as session:
        (report,) = few.runs(session, "acme")
    assert (report.state, report.synced) == ("failed", 0)
    assert sync.resume(unsynced, report.run_id or 0).clean
