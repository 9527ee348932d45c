"""Runs: how they are stopped, resumed, shared, refused and told of; and what they do with what goes wrong."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine, event, func, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import ALL_TENANTS, ConfigurationError, LedgerSync, Progress, Settings, segments, signals, turns
from ledger_sync.closing import Closing
from ledger_sync.errors import NotInTheBooksError, RunActiveError, RunStateError, TooManyErrorsError
from ledger_sync.line_batches import LineBatches
from ledger_sync.models import (
    CustomerLedger,
    JournalEntry,
    JournalLine,
    SourceLink,
    SupplierLedger,
    SyncError,
    SyncRun,
    SyncSegment,
    VendorInvoice,
)
from ledger_sync.progress import asynchronous, logged, rich_bar, signalled, together, tqdm_bar
from ledger_sync.runs import SECONDS_PER_LINE
from ledger_sync.workbench import Options, Workbench
from ledger_sync.writer import Writer
from tests import books
from tests.benchmarks.books_at_scale import TENANT, clear, make
from tests.budget import at_length
from tests.conftest import make_sqlite
from tests.oracle import assert_synced
from tests.refusing import refusing_new
from tests.test_backfill import Factory, all_synced, post_history, stored
from tests.watching import listening, statements

T = TypeVar("T")

SMALL = Settings(batch_lines_max=2, segment_lines_max=5)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def history(engine: Engine) -> Factory:
    return sessionmaker(engine)


class HostError(Exception):
    """What the tests' callbacks raise; the runs see it as any error of the host's."""


def stop_at(synced: int, error: type[BaseException] = KeyboardInterrupt) -> Callable[[Progress], None]:
    def callback(progress: Progress) -> None:
        if progress.synced >= synced and not progress.over:
            raise error

    return callback


def interrupted(sync: LedgerSync, history: Factory, at: int = 4, **more: Any) -> int:
    """A run that somebody interrupted when it had written so many rows; its id."""
    with pytest.raises(KeyboardInterrupt):
        sync.backfill(history, tenant_id="acme", on_progress=stop_at(at), progress_seconds=0, **more)
    with history() as session:
        (report, *_) = sync.runs(session, "acme")
    assert report.run_id is not None
    return report.run_id


def row(history: Factory, run_id: int) -> Any:
    with history() as session:
        return session.execute(select(SyncRun).where(SyncRun.id == run_id)).scalar_one()


# -- stopping and resuming -----------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 4, 9])
def test_an_interrupted_run_is_paused_and_resume_finishes_it(history: Factory, at: int) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    run_id = interrupted(sync, history, at)
    assert row(history, run_id).state == "paused"
    written = len(stored(history))
    report = sync.resume(history, run_id)
    assert (report.run_id, report.state, report.clean) == (run_id, "completed", True)
    # the counts are of the whole run, not of its last part
    assert (report.processed, report.synced, sum(report.skipped.values())) == (14, 10, 4)
    assert written < 10
    all_synced(history)


def test_a_run_can_be_interrupted_again_and_again(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(Settings(batch_lines_max=1))
    run_id = interrupted(sync, history, 1)
    for at in range(2, 10):
        with pytest.raises(KeyboardInterrupt):
            sync.resume(history, run_id, on_progress=stop_at(at), progress_seconds=0)
        assert len(stored(history)) == at
    report = sync.resume(history, run_id)
    assert (report.processed, report.synced) == (14, 10)
    all_synced(history)


def test_what_goes_wrong_leaves_a_failed_run_that_says_why_and_can_be_resumed(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    with pytest.raises(HostError):
        sync.backfill(
            history,
            tenant_id="acme",
            on_progress=stop_at(4, HostError),
            progress_seconds=0,
            on_progress_error="raise",
        )
    with history() as session:
        (report,) = sync.runs(session, "acme")
    assert (report.state, report.note) == ("failed", "HostError: ")
    assert report.run_id is not None
    assert sync.resume(history, report.run_id).synced == 10
    all_synced(history)


def test_who_reopens_a_run_takes_its_segments_from_workers_that_are_alive(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    run_id = sync.start(history, tenant_id="acme")
    held = update(SyncSegment).where(SyncSegment.run_id == run_id)
    with history.begin() as session:
        far = datetime.now(UTC) + timedelta(days=1)
        session.execute(held.values(state="running", worker="another", attempt=1, lease_until=far))
    assert sync.reopen(history, run_id)
    with history() as session:
        segment = session.scalars(select(SyncSegment).where(SyncSegment.run_id == run_id)).one()
        assert (segment.state, segment.attempt, segment.lease_until) == ("waiting", 2, None)
    assert sync.advance(history, run_id).state == "completed"
    all_synced(history)


def test_a_completed_run_is_resumed_to_nothing(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync()
    first = sync.backfill(history, tenant_id="acme")
    assert first.run_id is not None
    again = sync.resume(history, first.run_id)
    assert again.model_copy(update={"elapsed_seconds": 0}) == first.model_copy(update={"elapsed_seconds": 0})


def test_a_run_is_reopened_and_advanced(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    run_id = interrupted(sync, history)
    assert sync.advance(history, run_id).state == "paused"
    assert sync.reopen(history, run_id)
    with history() as session:
        report = sync.report(session, run_id, tenant_id="acme")
        for whose in ("acme", ALL_TENANTS):
            assert [run.run_id for run in sync.runs(session, whose, running=True)] == [run_id]
    assert (report.state, report.synced) == ("running", 4)
    assert report.lease_until is not None
    assert report.lease_until > datetime.now(UTC)
    assert sync.advance(history, run_id).state == "completed"
    assert not sync.reopen(history, run_id)
    with history() as session:
        assert sync.runs(session, "acme", running=True) == ()
        assert sync.report(session, run_id).state == "completed"
    all_synced(history)


def test_a_run_that_is_not_there_or_was_cancelled_cannot_be_resumed(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    with pytest.raises(RunStateError, match="Run 77 does not exist"):
        sync.resume(history, 77)
    run_id = interrupted(sync, history)
    with history() as session:
        sync.cancel(session, run_id)
        session.commit()
    with pytest.raises(RunStateError, match=r"was cancelled\. Start a new one"):
        sync.resume(history, run_id)
    assert sync.backfill(history, tenant_id="acme").synced == 6


@pytest.mark.parametrize(("command", "state"), [("pause", "paused"), ("cancel", "cancelled")])
def test_a_run_obeys_a_command_with_its_next_batch(history: Factory, command: str, state: str) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    seen: list[Progress] = []

    def steer(progress: Progress) -> None:
        seen.append(progress)
        if progress.synced == 4 and progress.state == "running":
            with history() as session:
                getattr(sync, command)(session, progress.run_id)
                session.commit()

    report = sync.backfill(history, tenant_id="acme", on_progress=steer, progress_seconds=0)
    assert (report.state, report.synced, report.clean) == (state, 4, None)
    assert len(stored(history)) == 4
    assert (seen[-1].state, seen[-1].percent < 100) == (state, True)


@pytest.mark.parametrize("command", ["pause", "cancel"])
def test_on_sqlite_a_command_waits_for_whoever_writes(sqlite_engine: Engine, command: str) -> None:
    """A transaction that looks before it writes is refused at once where another one has written meanwhile."""
    history = sessionmaker(sqlite_engine)
    post_history(history)
    sync = LedgerSync(SMALL)
    run_id = sync.start(history, tenant_id="acme")
    writing, waiting = threading.Event(), threading.Event()

    def write() -> None:
        with history() as session:
            session.execute(update(SyncRun).values(stage="checking"))
            writing.set()
            waiting.wait()
            time.sleep(0.2)
            session.commit()

    writer = threading.Thread(target=write)
    writer.start()
    writing.wait()
    with history() as session:
        waiting.set()
        getattr(sync, command)(session, run_id)
        session.commit()
    writer.join()
    assert row(history, run_id).command == command


def test_a_command_needs_the_callers_commit(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    run_id = interrupted(sync, history)
    with history() as session:
        sync.cancel(session, run_id)
        session.rollback()
    assert row(history, run_id).state == "paused"


def test_a_run_whose_worker_has_died_obeys_at_once(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    run_id = sync.start(history, tenant_id="acme")
    with history() as session:
        session.execute(update(SyncRun).values(lease_until=LONG_AGO))
        session.commit()
        sync.pause(session, run_id)
        session.commit()
    assert row(history, run_id).state == "paused"
    assert sync.resume(history, run_id).synced == 10


@pytest.mark.parametrize("died", [False, True])
def test_a_pause_does_not_take_back_a_cancel(history: Factory, died: bool) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    run_id = sync.start(history, tenant_id="acme")
    with history() as session:
        sync.cancel(session, run_id)
        if died:
            session.execute(update(SyncRun).values(lease_until=LONG_AGO))
        sync.pause(session, run_id)
        session.commit()
    assert sync.advance(history, run_id).state == "cancelled"


def test_an_interrupt_does_not_take_back_a_cancel(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)

    def cancel(progress: Progress) -> None:
        if progress.synced >= 4:
            with history() as session:
                sync.cancel(session, progress.run_id or 0)
                session.commit()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync.backfill(history, tenant_id="acme", on_progress=cancel, progress_seconds=0)
    with history() as session:
        (report,) = sync.runs(session, "acme")
    assert (report.state, report.command, report.note) == ("cancelled", None, "It was interrupted.")


def test_a_run_that_is_over_cannot_be_steered(history: Factory) -> None:
    sync = LedgerSync()
    report = sync.backfill(history, tenant_id="acme")
    assert report.run_id is not None
    with history() as session, pytest.raises(RunStateError, match="is completed"):
        sync.pause(session, report.run_id)


# -- two at once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["acme", ALL_TENANTS])
@pytest.mark.parametrize("second", ["acme", ALL_TENANTS])
def test_a_second_run_over_the_same_books_is_refused_and_names_the_first(
    history: Factory, first: Any, second: Any
) -> None:
    post_history(history)
    sync = LedgerSync()
    run_id = sync.start(history, tenant_id=first)
    with pytest.raises(RunActiveError, match=f"Run {run_id}, a backfill over") as refused:
        sync.backfill(history, tenant_id=second)
    assert refused.value.run_id == run_id
    with pytest.raises(RunActiveError):
        sync.repair(history, tenant_id="acme")
    with history() as session:
        assert session.scalar(select(func.count()).select_from(SyncRun)) == 1
    assert stored(history) == []
    assert sync.resume(history, run_id).synced == 10


def test_runs_over_different_books_do_not_meet(history: Factory) -> None:
    post_history(history, "acme")
    post_history(history, "beta")
    sync = LedgerSync()
    run_id = sync.start(history, tenant_id="acme")
    assert sync.backfill(history, tenant_id="beta").synced == 10
    assert sync.resume(history, run_id).synced == 10


def test_a_run_that_has_died_makes_place_for_a_new_one(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync()
    died = sync.start(history, tenant_id="acme")
    with history() as session:
        session.execute(update(SyncRun).values(lease_until=LONG_AGO))
        session.commit()
    report = sync.backfill(history, tenant_id="acme")
    assert (report.state, report.synced) == ("completed", 10)
    assert row(history, died).state == "failed"
    assert row(history, died).note == f"It died. Run {report.run_id} took its place."


@pytest.mark.parametrize("state", ["running", "paused", "failed", "completed"])
@pytest.mark.parametrize("lease", [LONG_AGO, datetime.max.replace(tzinfo=UTC)])
def test_a_run_has_died_if_its_lease_passed_while_it_was_running(history: Factory, state: str, lease: datetime) -> None:
    sync = LedgerSync(SMALL)
    run_id = sync.start(history, tenant_id="acme")
    with history() as session:
        report = sync.report(session, run_id)
    assert not report.died
    report = report.model_copy(update={"state": state, "lease_until": lease})
    assert report.died == (state == "running" and lease == LONG_AGO)
    assert "died" not in report.model_dump()  # which may be kept for long


def test_of_many_that_start_at_once_one_does(engine: Engine) -> None:
    history = sessionmaker(engine)
    post_history(history)
    sync = LedgerSync()
    barrier = threading.Barrier(6)

    def begin(_: int) -> object:
        barrier.wait()
        try:
            return sync.start(history, tenant_id="acme")
        except RunActiveError as error:
            return error

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(begin, range(6)))
    assert Counter(type(outcome) for outcome in outcomes) == {int: 1, RunActiveError: 5}


# -- leases and fencing --------------------------------------------------------------------------------


def test_a_worker_whose_segment_was_taken_over_commits_nothing_more(history: Factory) -> None:
    """The other finishes the run while the first, taken for dead, waits in the middle of a batch's telling."""
    post_history(history)
    sync = LedgerSync(SMALL)
    other = LedgerSync(SMALL)
    taken_over: list[Any] = []

    def be_slow(progress: Progress) -> None:
        if progress.synced == 4 and not taken_over:
            taken_over.append(other.resume(history, progress.run_id or 0))

    report = sync.backfill(history, tenant_id="acme", on_progress=be_slow, progress_seconds=0)
    assert taken_over[0].state == "completed"
    assert (report.state, report.processed, report.synced) == ("completed", 14, 10)
    all_synced(history)


def both_at_once(engine: Engine, first: Callable[[Session], T], second: Callable[[Session], T]) -> tuple[T, T]:
    """What two workers come to when the second is at it before the first commits: it is about to write, or waits."""
    factory, writes = sessionmaker(engine), threading.Event()

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if threading.current_thread() is not threading.main_thread() and statement.startswith(("INSERT", "UPDATE")):
            writes.set()

    def beside() -> T:
        with factory() as session:
            outcome = second(session)
            session.commit()
        return outcome

    with factory() as session, ThreadPoolExecutor(1) as pool, listening(engine, "before_cursor_execute", note):
        outcome = first(session)
        other = pool.submit(beside)
        assert writes.wait(30)
        session.commit()
        return outcome, other.result()


def test_workers_who_take_at_once_keep_to_the_limit_of_a_tenant(history: Factory, engine: Engine) -> None:
    post_history(history)
    sync = LedgerSync(Settings(segment_lines_max=2, tenant_workers_max=1))
    run_id = sync.start(history, tenant_id="acme")
    sync.advance(history, run_id, 0)

    def take(worker: str, session: Session) -> Any:
        return segments.take(session.connection(), sync.binding, sync.settings, run_id, worker)

    taken, other = both_at_once(engine, partial(take, "one"), partial(take, "other"))
    assert (taken.kind, other) == ("lines", "busy")


def planned(history: Factory, sync: LedgerSync, tenants: int, states: random.Random | None = None) -> int:
    """A run with a plan of so many tenants, some of it done or worked on; its id."""
    run_id = sync.start(history, tenant_id=ALL_TENANTS)
    kinds: list[tuple[segments.Kind, str]] = [("lines", "customer_invoices"), ("settle", "settling")]
    parts = [
        segments.Segment(run_id, 0, stage, kind, "customer", tenant_id=f"tenant {number}")
        for kind, stage in kinds
        for number in range(tenants)
        for _ in range(1 if states is None or kind == "settle" else states.randint(1, 3))
    ]
    parts += [segments.Segment(run_id, 0, "verifying", "verify", tenant_id=f"tenant {n}") for n in range(tenants)]
    if states is not None:
        late = [n for n in range(tenants) if states.random() < 0.3]
        parts += [segments.Segment(run_id, 0, "verifying", "late", "customer", tenant_id=f"tenant {n}") for n in late]
    with history() as session:
        connection = session.connection()
        segments.add(connection, sync.binding, [replace(part, position=n) for n, part in enumerate(parts, 1)])
        rows = session.scalars(select(SyncSegment).where(SyncSegment.run_id == run_id)).all()
        done = 0.0 if states is None else states.random()
        for part in rows:
            if part.kind == "check" or (states is not None and states.random() < done):
                part.state = "done"
            elif states is not None and states.random() < 0.3:
                part.state, part.worker, part.attempt = "running", states.choice(["me", "other", "third"]), 1
                part.lease_until = states.choice([LONG_AGO, datetime.now(UTC) + timedelta(hours=1)])
        session.commit()
    return run_id


def test_who_takes_a_segment_reads_as_much_however_many_tenants_there_are(
    history: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = LedgerSync()
    looked_at: list[int] = []

    def ready(rows: Any, *arguments: Any) -> Any:
        looked_at.append(len(rows))
        return as_it_is(rows, *arguments)

    as_it_is = turns._ready
    monkeypatch.setattr(turns, "_ready", ready)
    sizes = []
    for tenants in (200, 400):
        run_id = planned(history, sync, tenants)
        with history() as session:
            taken = [
                segments.take(session.connection(), sync.binding, sync.settings, run_id, f"worker {number}")
                for number in range(3)
            ]
            session.rollback()
        assert [part.tenant_id for part in taken if isinstance(part, segments.Segment)] == [
            "tenant 0",
            "tenant 1",
            "tenant 2",
        ]
        with history() as session:
            sync.cancel(session, run_id)
            session.commit()
        assert sync.advance(history, run_id).over
        sizes.append(looked_at.copy())
        looked_at.clear()
    assert sizes == [[turns.LOOKED_AT] * 3] * 2


@pytest.mark.parametrize("tenant_workers_max", [None, 1])
def test_who_looks_at_a_few_segments_takes_the_same_as_who_looks_at_all(
    history: Factory, monkeypatch: pytest.MonkeyPatch, tenant_workers_max: int | None
) -> None:
    sync = LedgerSync(Settings(tenant_workers_max=tenant_workers_max))
    chance = random.Random(1)
    outcomes: Counter[str] = Counter()
    for _ in range(25):
        run_id = planned(history, sync, 5, chance)
        found = []
        for looked_at in (1, 3, 1000):
            monkeypatch.setattr(turns, "LOOKED_AT", looked_at)
            with history() as session:
                taken = segments.take(session.connection(), sync.binding, sync.settings, run_id, "me")
                session.rollback()
            found.append(taken.position if isinstance(taken, segments.Segment) else taken)
        assert len(set(found)) == 1
        outcomes[type(found[0]).__name__] += 1
        with history() as session:
            session.execute(update(SyncRun).values(state="cancelled"))
            session.commit()
    assert outcomes["int"] > 10


def test_proofs_of_two_tenants_are_put_off_at_once(history: Factory, engine: Engine) -> None:
    for tenant in ("acme", "beta"):
        post_history(history, tenant, entries=1)
    sync = LedgerSync()
    run_id = sync.start(history, tenant_id=ALL_TENANTS)
    left = SyncSegment.run_id == run_id, SyncSegment.state != "done"
    with history() as session:
        while set(session.scalars(select(SyncSegment.kind).where(*left))) != {"verify"}:
            session.rollback()
            sync.advance(history, run_id, 0)
        connection = session.connection()
        one, other = (segments.take(connection, sync.binding, sync.settings, run_id, name) for name in ("one", "other"))
        session.commit()

    def put_off(segment: Any, session: Session) -> None:
        late = replace(segment, id=None, kind="late", ledger="supplier")
        segments.put_off(session.connection(), sync.binding, segment, [late])

    both_at_once(engine, partial(put_off, one), partial(put_off, other))
    assert sync.advance(history, run_id).state == "completed"
    with history() as session:
        late = session.scalars(select(SyncSegment.tenant_id).where(SyncSegment.kind == "late"))
        assert sorted(late) == ["acme", "beta"]


def test_one_workers_commits_do_not_shorten_the_lease_that_anothers_long_step_needs(history: Factory) -> None:
    for tenant in ("acme", "beta"):
        post_history(history, tenant)
    sync = LedgerSync()
    run_id = sync.start(history, tenant_id=ALL_TENANTS)
    sync.advance(history, run_id, 0)
    with history() as session:
        # a step over so many lines in one statement
        many = update(SyncSegment).where(SyncSegment.tenant_id == "acme", SyncSegment.kind == "settle")
        session.execute(many.values(total=1_000_000))
        session.execute(update(SyncSegment).where(SyncSegment.kind == "lines").values(state="done"))
        connection = session.connection()
        taken = [segments.take(connection, sync.binding, sync.settings, run_id, name) for name in ("long", "short")]
        long, short = taken
        assert isinstance(long, segments.Segment)
        assert isinstance(short, segments.Segment)
        assert (long.tenant_id, short.tenant_id) == ("acme", "beta")
        segments.renew(connection, sync.binding, sync.settings, short, None)
        segments.save(connection, sync.binding, sync.settings, short, done=True)
        session.commit()
        kept = session.get_one(SyncSegment, long.id)
        assert session.get_one(SyncRun, run_id).lease_until == kept.lease_until


NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("runs", "turns"):
        monkeypatch.setattr(f"ledger_sync.{module}.utc_now", lambda: NOON)


@pytest.mark.usefixtures("at_noon")
def test_a_lease_covers_what_its_step_works_on_and_waits_for(history: Factory) -> None:
    """Settling and proving are of a tenant's whole books, however few lines and ledgers the run covers."""
    post_history(history)
    sync = LedgerSync(Settings(lease_seconds=60, writers_seconds_max=40))
    run_id = sync.start(history, tenant_id="acme", since=date(2026, 5, 1), ledgers=["supplier"])
    leases: dict[str, Any] = {}
    with history() as session:
        check = segments.take(session.connection(), sync.binding, sync.settings, run_id, "one")
        assert isinstance(check, segments.Segment)
        leases["check"] = session.get_one(SyncSegment, check.id).lease_until - NOON
        session.rollback()
    sync.advance(history, run_id, 0)
    with history() as session:
        totals = {part.kind: part.total for part in session.scalars(select(SyncSegment))}
        session.execute(update(SyncSegment).where(SyncSegment.kind == "lines").values(state="done"))
        for kind in ("settle", "verify"):
            segment = segments.take(session.connection(), sync.binding, sync.settings, run_id, "one")
            assert isinstance(segment, segments.Segment)
            assert segment.kind == kind
            leases[kind] = session.get_one(SyncSegment, segment.id).lease_until - NOON
            segments.save(session.connection(), sync.binding, sync.settings, segment, done=True)
    assert totals == {"check": 0, "lines": 1, "settle": 9, "verify": 14}
    assert {kind: lease.total_seconds() for kind, lease in leases.items()} == {
        "check": 100,
        "settle": 60 + 9 * SECONDS_PER_LINE,
        "verify": 60 + 14 * SECONDS_PER_LINE,
    }


@pytest.mark.usefixtures("at_noon")
def test_whoever_takes_a_step_from_one_that_was_too_slow_has_twice_as_long(history: Factory) -> None:
    sync = LedgerSync(Settings(lease_seconds=60, writers_seconds_max=0))
    run_id = sync.start(history, tenant_id="acme")
    seconds: list[float] = []
    with history() as session:
        for number in range(6):
            segment = segments.take(session.connection(), sync.binding, sync.settings, run_id, f"worker {number}")
            assert isinstance(segment, segments.Segment)
            taken = session.get_one(SyncSegment, segment.id, populate_existing=True)
            assert taken.lease_until is not None
            seconds.append((taken.lease_until - NOON).total_seconds())
            taken.lease_until = LONG_AGO
            session.flush()
    assert seconds == [60, 120, 240, 480, 960, 960]


@pytest.mark.usefixtures("at_noon")
def test_a_batch_that_is_slower_than_its_lease_is_halved_and_a_first_one_has_longer(history: Factory) -> None:
    """Or two workers would take it from each other for ever."""
    invoices(history, list(range(1, 21)))
    sync = LedgerSync(Settings(lease_seconds=60, batch_lines_start=8, batch_seconds=600))
    run_id = sync.start(history, tenant_id="acme")
    sync.advance(history, run_id, 0)
    taken: list[tuple[int, float]] = []
    bench = Workbench(sync.binding, sync.settings, Writer(sync.binding, sync.settings), history, run_id, Options())
    lines = LineBatches(bench)  # of one worker, who has learned that 8 are few

    def take(number: int) -> segments.Segment:
        with history() as session:
            segment = segments.take(session.connection(), sync.binding, sync.settings, run_id, f"worker {number}")
            assert isinstance(segment, segments.Segment)
            found = session.get_one(SyncSegment, segment.id)
            assert found.lease_until is not None
            taken.append((found.batch_lines, (found.lease_until - NOON).total_seconds()))
            found.lease_until = LONG_AGO
            session.commit()
        return segment

    first = take(0)
    for number in range(1, 5):
        last = take(number)
    with pytest.raises(segments.FencedError):
        lines.step(first)
    after = lines.step(last)
    assert (after.processed, after.batch_lines) == (1, 2)  # in twos, though 100 are the least otherwise
    with history() as session:
        session.execute(update(SyncSegment).where(SyncSegment.id == last.id).values(lease_until=LONG_AGO))
        session.commit()
    take(5)
    assert taken == [(8, 60), (4, 120), (2, 240), (1, 480), (1, 960), (1, 60)]


def test_a_step_that_nobody_can_do_within_its_lease_fails_the_run_which_says_so(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    run_id = sync.start(history, tenant_id="acme")
    with history() as session:
        dead = {"state": "running", "worker": "dead", "lease_until": LONG_AGO, "attempt": segments.ATTEMPTS_MAX}
        session.execute(update(SyncSegment).values(**dead))
        session.commit()
    with pytest.raises(RunStateError, match="raise lease_seconds"):
        sync.advance(history, run_id)
    failed = row(history, run_id)
    assert failed.state == "failed"
    assert "50 workers died, or took longer than their lease" in failed.note
    # who has mended it has another attempt
    assert sync.resume(history, run_id).synced == 10
    all_synced(history)


@pytest.mark.usefixtures("at_noon")
def test_a_repairs_lease_covers_the_books(history: Factory) -> None:
    post_history(history)
    leases: list[float] = []

    def note(progress: Progress) -> None:
        leases.append((row(history, progress.run_id or 0).lease_until - NOON).total_seconds())

    LedgerSync(Settings(lease_seconds=60)).repair(history, tenant_id="acme", on_progress=note)
    assert set(leases) == {60 + 14 * SECONDS_PER_LINE}


def test_advance_does_a_slice_and_never_takes_a_living_workers_segment(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(Settings(batch_lines_max=2, lease_seconds=3600))
    run_id = sync.start(history, tenant_id="acme")
    assert sync.advance(history, run_id, 0).processed == 0  # the plan is one step; then the time is up
    with history() as session:
        segment = session.scalars(select(SyncSegment).where(SyncSegment.state == "waiting")).first()
        assert segment is not None
        segment.state, segment.lease_until = "running", datetime.now(UTC) + timedelta(hours=1)
        session.commit()
        taken = (segment.id, segment.attempt)
    progress = sync.advance(history, run_id, 0.5)
    assert progress.state == "running"
    with history() as session:
        found = session.get_one(SyncSegment, taken[0])
        assert (found.attempt, found.processed) == (taken[1], 0)
        found.lease_until = LONG_AGO
        session.commit()
    progress = sync.advance(history, run_id)
    assert (progress.state, progress.percent, progress.synced) == ("completed", 100, 10)
    assert sync.advance(history, run_id, 1) == sync.advance(history, run_id, 1)
    all_synced(history)


def test_many_slices_do_a_run(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    run_id = sync.start(history, tenant_id="acme")
    slices = 0
    while sync.advance(history, run_id, 0).state == "running":
        slices += 1
        assert slices < 100
    assert slices > 5
    with history() as session:
        (report,) = sync.runs(session, "acme")
    assert (report.processed, report.synced, report.clean) == (14, 10, True)
    all_synced(history)


def test_a_factory_is_found_by_its_name(history: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    post_history(history)
    monkeypatch.setattr("tests.books.SessionFactory", history, raising=False)
    sync = LedgerSync()
    run_id = sync.start("tests.books:SessionFactory", tenant_id="acme")
    assert sync.advance("tests.books:SessionFactory", run_id).synced == 10
    for name in ("tests.books", "tests.books:Nothing", "nowhere:SessionFactory", "tests.books:DAY"):
        with pytest.raises(ConfigurationError, match="module:name"):
            sync.advance(name, run_id)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_executors_workers_share_a_run(history: Factory, workers: int) -> None:
    for tenant in ("acme", "beta", "gamma"):
        post_history(history, tenant, entries=12)
    seen: list[Progress] = []
    with ThreadPoolExecutor(workers) as pool:
        report = LedgerSync(SMALL).backfill(
            history,
            tenant_id=ALL_TENANTS,
            executor=pool,
            workers=workers,
            on_progress=seen.append,
            progress_seconds=0,
        )
    assert (report.state, report.processed, report.synced, report.clean) == ("completed", 84, 72, True)
    all_synced(history)
    stages = [progress.stage for progress in seen]
    assert list(dict.fromkeys(stages)) == [stage.stage for stage in report.stages] + ["completed"]
    assert [p.sequence for p in seen] == sorted({p.sequence for p in seen})


@pytest.mark.parametrize(("workers", "remedy"), [(8, "Pass executor=ThreadPoolExecutor"), (0, "Give at least 1")])
def test_several_workers_without_an_executor_are_refused_before_the_run_starts(
    history: Factory, workers: int, remedy: str
) -> None:
    sync = LedgerSync(SMALL)
    with pytest.raises(ConfigurationError, match=remedy):
        sync.backfill(history, tenant_id="acme", workers=workers)
    with history() as session:
        assert sync.runs(session, "acme") == ()


def test_processes_share_a_run_when_the_factory_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_sqlite(tmp_path / "books.db")
    history = sessionmaker(engine)
    for tenant in ("acme", "beta"):
        post_history(history, tenant, entries=12)
    monkeypatch.setenv("LEDGER_SYNC_TEST_BOOKS", f"sqlite:///{tmp_path / 'books.db'}")
    sync = LedgerSync(SMALL)
    with history() as session:
        sync.verify(session, "acme")  # fills what is built once, which must not go to another process
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        report = sync.backfill("tests.importable:factory", tenant_id=ALL_TENANTS, executor=pool, workers=2)
    assert (report.state, report.processed, report.synced, report.clean) == ("completed", 56, 48, True)
    all_synced(history)
    engine.dispose()


def test_an_executors_worker_that_fails_leaves_a_failed_run_that_says_why_and_can_be_resumed(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    calls: list[int] = []

    def unhealthy() -> str | None:
        calls.append(1)
        if len(calls) == 4:
            raise HostError("boom")
        return "wait to be told of it" if len(calls) > 4 else None

    with ThreadPoolExecutor(2) as pool, pytest.raises(HostError):
        sync.backfill(history, tenant_id="acme", executor=pool, workers=2, health=unhealthy)
    with history() as session:
        (report,) = sync.runs(session, "acme")
    assert (report.state, report.note) == ("failed", "HostError: boom")
    assert sync.resume(history, report.run_id or 0).synced == 10
    all_synced(history)


# -- selective -----------------------------------------------------------------------------------------


def test_single_vouchers_are_written_and_others_left(history: Factory) -> None:
    post_history(history)
    with history() as session:
        first, second = session.scalars(
            select(JournalEntry).where(JournalEntry.source_type == "vendor_invoice", JournalEntry.status == "posted")
        ).all()[:2]
        names = [first.voucher, second.voucher_number]
    report = LedgerSync().backfill(history, tenant_id="acme", vouchers=names)
    assert (report.processed, report.synced) == (2, 2)
    with pytest.raises(NotInTheBooksError, match="voucher 4711 is not in the books"):
        LedgerSync().backfill(history, tenant_id="acme", vouchers=["4711"])
    with pytest.raises(NotInTheBooksError, match=r"voucher 1 is not told apart over all tenants\. Name one tenant\."):
        LedgerSync().backfill(history, tenant_id=ALL_TENANTS, vouchers=["1"])


def test_another_tenants_voucher_is_not_in_the_books(history: Factory) -> None:
    post_history(history, "acme")
    with history() as session:
        voucher = session.scalars(select(JournalEntry)).first()
        assert voucher is not None
        name = voucher.voucher
    with pytest.raises(NotInTheBooksError):
        LedgerSync().backfill(history, tenant_id="beta", vouchers=[name])


def test_source_types_are_selected_by_what_the_projection_says(history: Factory) -> None:
    """By the line's own link, and for a reversal by the line that it reverses."""
    with history() as session:
        invoice = books.vendor_invoice(session)
        books.entry(session, source=("vendor_invoice", invoice.id))
        ehf = books.vendor_invoice(session)
        by_link = books.entry(session, source=("vendor_invoice", invoice.id))
        session.flush()
        by_link.lines[0].link = SourceLink(source_type="ehf_invoice", source_id=ehf.id)
        old = books.entry(session, source=("ehf_invoice", ehf.id))
        session.commit()
        session.add(old.reverse(books.DAY))
        session.commit()
    report = LedgerSync().backfill(history, tenant_id="acme", source_types=["ehf_invoice"])
    assert (report.processed, report.synced, report.skipped) == (4, 3, {"not_selected": 1})
    with pytest.raises(ConfigurationError, match="no source type 'payroll'; the settings have customer_invoice"):
        LedgerSync().backfill(history, tenant_id="acme", source_types=["payroll"])
    assert LedgerSync().backfill(history, tenant_id="acme").synced == 1
    all_synced(history)


def test_a_selective_run_says_that_more_is_missing(history: Factory) -> None:
    post_history(history)
    report = LedgerSync().backfill(history, tenant_id="acme", ledgers=["customer"])
    assert (report.synced, report.clean) == (5, False)
    (proof,) = report.proofs
    assert [cause.name for cause in proof.account("2400").faults] == ["missing"]


def test_a_dry_run_has_a_row_and_does_not_settle_or_prove(history: Factory) -> None:
    post_history(history)
    report = LedgerSync(SMALL).backfill(history, tenant_id="acme", dry_run=True, actor="kari")
    assert (report.dry_run, report.state, report.synced, report.clean) == (True, "completed", 10, None)
    assert "settling" not in {stage.stage for stage in report.stages}
    assert row(history, report.run_id or 0).actor == "kari"
    assert stored(history) == []


# -- what comes in late --------------------------------------------------------------------------------


def test_what_is_committed_late_under_a_lower_key_is_written_in_the_end(history: Factory) -> None:
    post_history(history, entries=3)

    def post(session: Session, key: int, source: tuple[str, int] | None) -> None:
        entry = books.entry(session, source=source, id=key)
        for number, line in enumerate(entry.lines):
            line.id = key + number

    with history() as session:
        invoice_id = books.vendor_invoice(session).id
        post(session, 1000, None)
        session.commit()
    inserted: list[int] = []

    def commit_late(progress: Progress) -> None:
        if progress.stage == "settling" and not inserted:
            inserted.append(1)
            with history() as session:
                post(session, 500, ("vendor_invoice", invoice_id))
                session.commit()

    report = LedgerSync().backfill(history, tenant_id="acme", on_progress=commit_late, progress_seconds=0)
    assert inserted
    assert (report.clean, report.synced) == (True, 7)
    verifying = next(stage for stage in report.stages if stage.stage == "verifying")
    assert verifying.synced == 1
    all_synced(history)


def test_a_live_payment_of_an_invoice_that_history_brings_later_settles_it(
    history: Factory, sync: LedgerSync, factory: Factory
) -> None:
    with factory() as session:
        payment = books.customer_payment(session, 100, payment_reference="K17")
        books.entry(session, "1500", -100, ("customer_payment", payment.id))
        session.commit()
    with history() as session:
        invoice = books.customer_invoice(session, 100, payment_reference="K17")
        books.entry(session, "1500", 100, ("customer_invoice", invoice.id))
        session.commit()
    report = sync.backfill(history, tenant_id="acme")
    assert (report.synced, report.applied, report.clean) == (1, 1, True)
    settling = next(stage for stage in report.stages if stage.stage == "settling")
    assert settling.found == {"brought up to date": 1}
    all_synced(history)
    with history() as session:
        assert {item.status for item in session.scalars(select(CustomerLedger))} == {"paid"}
    assert sync.backfill(history, tenant_id="acme").stages[4].found == {}


# -- what goes wrong -----------------------------------------------------------------------------------


def refusing(engine: Engine, *amounts: int) -> AbstractContextManager[None]:
    """The suppliers' ledger refuses rows of these amounts, by a trigger, as a host's own rule might."""
    scale = 100 if engine.dialect.name == "sqlite" else 1
    return refusing_rows(engine, "supplier_ledger", "amount", [amount * scale for amount in amounts])


def refusing_rows(engine: Engine, table: str, column: str, values: list[int]) -> AbstractContextManager[None]:
    """A ledger refuses rows with these values in a column."""
    listed = ", ".join(str(value) for value in values)
    return refusing_new(engine, table, "refused by the host", f"NEW.{column} IN ({listed})")


def invoices(history: Factory, amounts: list[int]) -> dict[int, int]:
    """One posted vendor invoice for each amount; the control lines' ids by amount."""
    with history() as session:
        made = {}
        for amount in amounts:
            invoice = books.vendor_invoice(session, amount)
            made[amount] = books.entry(session, "2400", -amount, ("vendor_invoice", invoice.id))
        session.commit()
        return {amount: entry.lines[0].id for amount, entry in made.items()}


@pytest.mark.parametrize("bad", [{1}, {40}, {7, 8, 9}, {1, 2, 39, 40}, {13, 27}])
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_bad_lines_are_recorded_and_all_others_written(
    history: Factory, engine: Engine, bad: set[int], batch: int
) -> None:
    lines = invoices(history, list(range(1, 41)))
    sync = LedgerSync(Settings(batch_lines_max=batch))
    with refusing(engine, *bad):
        report = sync.backfill(history, tenant_id="acme")
    assert (report.state, report.errors, report.synced) == ("completed_with_errors", len(bad), 40 - len(bad))
    assert report.processed == 40
    with history() as session:
        errors = session.scalars(select(SyncError)).all()
        assert {error.general_ledger_line_id for error in errors} == {lines[amount] for amount in bad}
        assert {error.run_id for error in errors} == {report.run_id}
        assert all("refused by the host" in error.message and error.resolved_at is None for error in errors)
        assert {item.amount for item in session.scalars(select(SupplierLedger))} == set(range(1, 41)) - bad
    assert report.clean is False
    # a later run tries them again, and marks what it has mended
    with refusing(engine, min(bad)):
        second = sync.backfill(history, tenant_id="acme")
    assert (second.errors, second.synced) == (1, len(bad) - 1)
    third = sync.backfill(history, tenant_id="acme")
    assert (third.state, third.errors, third.synced, third.clean) == ("completed", 0, 1, True)
    with history() as session:
        errors = session.scalars(select(SyncError)).all()
        assert len(errors) == len(bad)
        assert all(error.resolved_at is not None for error in errors)
    all_synced(history)


def test_what_could_not_be_written_is_listed_with_its_voucher_until_it_is(history: Factory, engine: Engine) -> None:
    lines = invoices(history, [1, 2, 3])
    sync = LedgerSync()
    with refusing(engine, 1, 3):
        report = sync.backfill(history, tenant_id="acme")
    with history() as session:
        found = sync.failures(session, "acme", run_id=report.run_id)
        vouchers = {
            key: entry.voucher
            for key, entry in session.execute(select(JournalLine.id, JournalEntry).join(JournalEntry))
        }
        expected = [(vouchers[lines[amount]], lines[amount], None) for amount in (3, 1)]
        assert [(one.voucher, one.general_ledger_line_id, one.resolved_at) for one in found] == expected
        assert all("refused by the host" in one.message for one in found)
        assert sync.failures(session, "acme", limit=1) == found[:1]
        assert sync.failures(session, "acme", run_id=4711) == ()
        assert sync.failures(session, "beta") == ()
    sync.backfill(history, tenant_id="acme")
    with history() as session:
        assert sync.failures(session, "acme") == ()
        resolved = sync.failures(session, "acme", resolved=True)
    assert [one.id for one in resolved] == [one.id for one in found]
    assert all(one.resolved_at is not None for one in resolved)


def test_a_dry_run_finds_bad_lines_and_records_none(history: Factory, engine: Engine) -> None:
    invoices(history, list(range(1, 11)))
    with refusing(engine, 5):
        report = LedgerSync().backfill(history, tenant_id="acme", dry_run=True)
    assert (report.state, report.errors, report.synced) == ("completed_with_errors", 1, 9)
    with history() as session:
        assert session.scalars(select(SyncError)).all() == []
    assert stored(history) == []


def test_a_search_takes_log2_of_the_batch_and_a_few_statements_for_each_bad_line(
    history: Factory, engine: Engine
) -> None:
    invoices(history, list(range(1, 129)))
    bad = {3, 64, 65, 100}
    with refusing(engine, *bad), statements(engine, "INTO supplier_ledger") as inserts:
        LedgerSync(Settings(batch_lines_max=128)).backfill(history, tenant_id="acme")
    assert len(inserts) <= 1 + len(bad) * (7 + 3)


@pytest.fixture
def large(engine: Engine) -> Iterator[Engine]:
    """For very many rows."""
    yield engine
    clear(engine)


def test_bad_lines_planted_among_100_000_are_exactly_those_that_are_recorded(large: Engine) -> None:
    """Among 10,000 where a check must be quick."""
    engine = large
    lines = make(engine, at_length(58_824, 58_824, 5_883))
    assert lines >= at_length(100_000, 100_000, 10_000)
    with sessionmaker(engine)() as session:
        keys = session.scalars(
            select(JournalLine.id).where(JournalLine.account_number == "1500").order_by(JournalLine.id)
        ).all()
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    choose = random.Random(seed)
    neighbours = choose.randrange(lines - 3)
    bad = {keys[0], keys[-1], *keys[neighbours : neighbours + 3], *choose.sample(keys, 3)}
    batch = at_length(50_000, 50_000, 5_000)
    settings = Settings(batch_lines_max=batch)
    with (
        refusing_rows(engine, "customer_ledger", "general_ledger_line_id", sorted(bad)),
        statements(engine, "INTO customer_ledger") as inserts,
    ):
        report = LedgerSync(settings).backfill(sessionmaker(engine), tenant_id=TENANT)
    assert (report.state, report.errors, report.synced) == ("completed_with_errors", len(bad), lines - len(bad))
    with sessionmaker(engine)() as session:
        assert set(session.scalars(select(SyncError.general_ledger_line_id))) == bad
        assert session.scalar(select(func.count()).select_from(CustomerLedger)) == lines - len(bad)
    # a failing attempt for each halving, one for the line, one for what follows; and one for each batch
    assert len(inserts) <= lines // batch + 2 + len(bad) * (math.ceil(math.log2(batch)) + 3)


@pytest.mark.parametrize(
    ("settings", "limit"),
    [({"errors_max": 3}, "errors_max=3"), ({"errors_in_a_row_max": 2}, "errors_in_a_row_max=2")],
)
def test_too_many_errors_stop_a_run_that_can_be_resumed(
    history: Factory, engine: Engine, settings: dict[str, Any], limit: str
) -> None:
    invoices(history, list(range(1, 31)))
    sync = LedgerSync(Settings(**settings))
    with refusing(engine, *range(10, 25)), pytest.raises(TooManyErrorsError, match=limit) as stopped:
        sync.backfill(history, tenant_id="acme")
    run_id = stopped.value.run_id
    assert isinstance(run_id, int)
    assert row(history, run_id).state == "failed"
    report = sync.resume(history, run_id)
    assert report.state == "completed_with_errors"
    # those that were recorded are passed by this run, and mended by the next
    assert sync.backfill(history, tenant_id="acme").clean
    all_synced(history)


@pytest.mark.parametrize(
    ("settings", "bad", "state"),
    [
        ({"errors_max": 3}, {3, 6, 9}, "completed_with_errors"),
        ({"errors_max": 2}, {3, 6, 9}, "failed"),
        ({"errors_max": 0}, {3}, "failed"),
        ({"errors_max": 0}, set(), "completed"),
        ({"errors_in_a_row_max": 4}, {3, 4, 5}, "completed_with_errors"),
        ({"errors_in_a_row_max": 3}, {3, 4, 5}, "failed"),
        ({"errors_in_a_row_max": 3}, {3, 4, 6}, "completed_with_errors"),
        # however the batches fall
        ({"errors_in_a_row_max": 3, "batch_lines_max": 1}, {3, 4, 5}, "failed"),
        ({"errors_in_a_row_max": 3, "batch_lines_max": 2}, {4, 5, 6}, "failed"),
        ({"errors_in_a_row_max": 3, "batch_lines_max": 2}, {3, 4, 6}, "completed_with_errors"),
    ],
)
def test_a_run_fails_with_more_than_so_many_errors_or_with_so_many_in_a_row(
    history: Factory, engine: Engine, settings: dict[str, int], bad: set[int], state: str
) -> None:
    invoices(history, list(range(1, 11)))
    with refusing(engine, *bad), suppress(TooManyErrorsError):
        LedgerSync(Settings(**settings)).backfill(history, tenant_id="acme")
    with history() as session:
        (report,) = LedgerSync().runs(session, "acme")
    assert report.state == state


def test_a_table_that_lacks_is_no_bad_line(history: Factory, engine: Engine) -> None:
    invoices(history, [1, 2, 3])
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE supplier_ledger RENAME TO elsewhere")
    try:
        with pytest.raises(DBAPIError):
            LedgerSync().backfill(history, tenant_id="acme")
        with history() as session:
            assert session.scalars(select(SyncError)).all() == []
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO supplier_ledger")
    with history() as session:
        (report,) = LedgerSync().runs(session, "acme")
    assert report.state == "failed"
    assert LedgerSync().resume(history, report.run_id or 0).synced == 3


class DriverError(Exception):
    """As a driver says it: a serialization failure, unless another SQLSTATE is given."""

    def __init__(self, state: str = "40001") -> None:
        self.sqlstate = state


@contextmanager
def failing(engine: Engine, part: str, times: int, state: str = "40001") -> Iterator[list[int]]:
    """Statements that contain a text fail that often, as if the database had met a conflict."""
    left = [times]

    def fail(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if part in statement and left[0] > 0:
            left[0] -= 1
            raise DBAPIError(statement, parameters, DriverError(state))

    with listening(engine, "before_cursor_execute", fail):
        yield left


@pytest.mark.parametrize(
    "part",
    [
        "INTO supplier_ledger",
        "UPDATE ledger_sync_segments",
        "UPDATE ledger_sync_runs",
        "INSERT INTO ledger_sync_segments",
        "INTO supplier_applications",
    ],
)
def test_deadlocks_and_the_like_are_tried_again_as_a_whole(history: Factory, engine: Engine, part: str) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    run_id = sync.start(history, tenant_id="acme")
    with failing(engine, part, 3) as left:
        progress = sync.advance(history, run_id)
    assert (progress.state, progress.processed, progress.synced) == ("completed", 14, 10)
    assert left == [0]
    all_synced(history)


def test_a_pool_without_a_free_connection_leaves_a_run_running_for_the_next_slice(engine: Engine) -> None:
    post_history(sessionmaker(engine))
    sync = LedgerSync(SMALL)
    run_id = sync.start(sessionmaker(engine), tenant_id="acme")
    asked = itertools.count()

    def used_up() -> Session:
        if next(asked) == 6:
            raise PoolTimeoutError("QueuePool limit of size 5 overflow 10 reached")
        return Session(engine)

    with pytest.raises(PoolTimeoutError):
        sync.advance(used_up, run_id)
    assert row(sessionmaker(engine), run_id).state == "running"
    assert sync.advance(sessionmaker(engine), run_id).state == "completed"
    all_synced(sessionmaker(engine))


def test_what_goes_on_failing_is_given_up_and_can_be_resumed(history: Factory, engine: Engine) -> None:
    post_history(history)
    sync = LedgerSync(Settings(retries_max=2))
    with failing(engine, "INTO supplier_ledger", 10_000) as left, pytest.raises(DBAPIError):
        sync.backfill(history, tenant_id="acme")
    assert left == [10_000 - 3]
    with history() as session:
        (report,) = sync.runs(session, "acme")
    assert report.state == "failed"
    assert sync.resume(history, report.run_id or 0).synced == 10


def test_on_sqlite_a_commit_that_meets_a_reader_is_tried_again(tmp_path: Path) -> None:
    engine = make_sqlite(tmp_path / "books.db")
    history = sessionmaker(engine)
    post_history(history)
    sync = LedgerSync(SMALL)
    run_id = sync.start(history, tenant_id="acme")
    engine.dispose()
    assert engine.url.database is not None
    reader = sqlite3.connect(engine.url.database)
    readings: list[sqlite3.Cursor] = []

    @event.listens_for(engine, "connect")
    def have_no_patience(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA busy_timeout = 0")

    @event.listens_for(engine, "commit")
    def begin_to_read(connection: Any) -> None:
        if not readings:
            readings.append(reader.execute("SELECT id FROM general_ledger"))
            readings[0].fetchone()

    @event.listens_for(engine, "begin")
    def end_reading(connection: Any) -> None:
        if readings:
            readings[0].close()

    assert sync.advance(history, run_id).synced == 10
    assert readings
    all_synced(history)
    reader.close()
    engine.dispose()


@contextmanager
def interrupting(engine: Engine, part: str) -> Iterator[None]:
    """The first statement that contains a text is interrupted when the database has done it, before rows are read."""
    left = [1]

    def interrupt(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if part in statement and left[0] > 0:
            left[0] -= 1
            raise KeyboardInterrupt

    with listening(engine, "after_cursor_execute", interrupt):
        yield
    assert left == [0]


@pytest.mark.parametrize(
    "part",
    ["FROM ledger_sync_segments", "UPDATE ledger_sync_segments", "INTO customer_ledger", "INTO supplier_applications"],
)
def test_an_interrupt_in_the_middle_of_a_statement_pauses_the_run(history: Factory, engine: Engine, part: str) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    with interrupting(engine, part), pytest.raises(KeyboardInterrupt):
        sync.backfill(history, tenant_id="acme")
    with history() as session:
        (report,) = sync.runs(session, "acme")
    assert (report.state, report.note) == ("paused", "It was interrupted.")
    assert sync.resume(history, report.run_id or 0).synced == 10
    all_synced(history)


@pytest.mark.parametrize("error", [KeyboardInterrupt, HostError])
def test_how_a_run_ended_is_written_though_the_database_is_busy_at_first(
    history: Factory, engine: Engine, error: type[BaseException]
) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    with failing(engine, "UPDATE ledger_sync_runs", 0) as left:

        def stop(progress: Progress) -> None:
            if progress.synced == 4:
                left[0] = 3
                raise error

        with pytest.raises(error):
            sync.backfill(history, tenant_id="acme", on_progress=stop, progress_seconds=0, on_progress_error="raise")
    assert left == [0]
    with history() as session:
        (report,) = sync.runs(session, "acme")
    assert report.state == ("paused" if error is KeyboardInterrupt else "failed")


def test_the_workers_of_an_executor_pause_though_the_database_is_busy_at_first(
    history: Factory, engine: Engine
) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    run_ids: list[int] = []

    def stop(progress: Progress) -> None:
        run_ids.append(progress.run_id or 0)
        if progress.note is not None:
            raise KeyboardInterrupt

    def until_told_to_pause() -> str | None:
        return None if row(history, run_ids[0]).state == "paused" else "wait for the pause"

    with (
        failing(engine, "UPDATE ledger_sync_runs SET state", 3) as left,
        ThreadPoolExecutor(1) as pool,
        pytest.raises(KeyboardInterrupt),
    ):
        sync.backfill(
            history,
            tenant_id="acme",
            executor=pool,
            health=until_told_to_pause,
            on_progress=stop,
            progress_seconds=0,
        )
    assert left == [0]
    assert row(history, run_ids[0]).state == "paused"
    assert sync.resume(history, run_ids[0]).synced == 10


def test_a_run_whose_end_cannot_be_written_is_given_up_and_resume_takes_it_over(
    history: Factory, engine: Engine
) -> None:
    post_history(history)
    sync = LedgerSync(Settings(batch_lines_max=2, retries_max=2))
    with failing(engine, "UPDATE ledger_sync_runs", 0) as left:

        def stop(progress: Progress) -> None:
            if progress.synced == 4:
                left[0] = 10_000
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sync.backfill(history, tenant_id="acme", on_progress=stop, progress_seconds=0)
    assert left == [10_000 - 3]
    with history() as session:
        (report,) = sync.runs(session, "acme")
    assert report.state == "running"
    assert sync.resume(history, report.run_id or 0).synced == 10
    all_synced(history)


def test_a_repair_that_fails_says_why_though_its_end_cannot_be_written(
    history: Factory, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """What is raised is what went wrong first; the run it leaves makes place for the next when its lease has passed."""
    post_history(history)
    sync = LedgerSync(Settings(retries_max=0))
    with (
        failing(engine, "INTO supplier_ledger", 1, state="53100"),
        failing(engine, "UPDATE ledger_sync_runs SET state", 10_000),
        pytest.raises(DBAPIError) as raised,
    ):
        sync.repair(history, tenant_id="acme")
    assert "INTO supplier_ledger" in str(raised.value)
    assert "how a run ended could not be written" in caplog.text
    with history() as session:
        (report,) = sync.runs(session, "acme")
        assert report.state == "running"
        session.execute(update(SyncRun).values(lease_until=LONG_AGO))
        session.commit()
    assert sync.repair(history, tenant_id="acme").clean
    all_synced(history)


@pytest.mark.parametrize("work", ["backfill", "repair"])
def test_a_run_that_the_database_failed_says_what_it_said_and_not_the_statement(
    history: Factory, engine: Engine, work: str
) -> None:
    """Which would show rows of the books to whoever may see the list of runs."""
    post_history(history)
    sync = LedgerSync(SMALL)
    with failing(engine, "INTO supplier_ledger", 1, state="53100"), pytest.raises(DBAPIError):
        getattr(sync, work)(history, tenant_id="acme")
    with history() as session:
        (report,) = sync.runs(session, "acme")
        last_errors = session.scalars(select(SyncSegment.last_error).where(SyncSegment.last_error.is_not(None))).all()
    assert report.state == "failed"
    told = [report.note or "", *last_errors]
    assert len(told) == (2 if work == "backfill" else 1)
    for one in told:
        assert one.startswith("DriverError: ")
        assert "SQL" not in one


@pytest.mark.parametrize("part", ["INTO supplier_ledger", ", synced=", "SET state"])
def test_a_repair_tries_deadlocks_and_the_like_again(history: Factory, engine: Engine, part: str) -> None:
    post_history(history)
    with failing(engine, part, 3) as left:
        report = LedgerSync(SMALL).repair(history, tenant_id="acme")
    assert left == [0]
    assert (report.state, report.clean, report.synced) == ("completed", True, 10)
    all_synced(history)


# -- posting documents ---------------------------------------------------------------------------------


def post_vendor_invoice(session: Session, document: Any) -> JournalEntry | None:
    """A host's poster."""
    if not isinstance(document, VendorInvoice):
        return None
    return books.entry(
        session,
        "2400",
        -document.amount,
        ("vendor_invoice", document.id),
        tenant=document.tenant_id,
        voucher_number=f"posted-{document.id}",
    )


def unposted_documents(history: Factory, count: int = 5) -> None:
    with history() as session:
        for number in range(count):
            books.vendor_invoice(session, 10 + number)
        books.customer_invoice(session)
        books.vendor_invoice(session, tenant="beta")
        session.commit()


@pytest.mark.parametrize("attached", [True, False])
def test_a_poster_posts_what_no_entry_mentions_and_every_document_is_in_the_ledger(
    history: Factory, engine: Engine, attached: bool
) -> None:
    post_history(history)
    unposted_documents(history)
    sync = LedgerSync(SMALL)
    factory = sessionmaker(engine)
    if attached:
        sync.attach(factory)
    report = sync.backfill(factory, tenant_id="acme", poster=post_vendor_invoice)
    checking, _, vendors, *_ = report.stages
    assert checking.found == {"vendor_invoice": 5, "customer_invoice": 1}
    assert vendors.posted == 5
    assert report.clean
    with history() as session:
        items = session.scalars(select(SupplierLedger).where(SupplierLedger.tenant_id == "acme")).all()
    assert len(items) == 10
    all_synced(history)
    again = sync.backfill(factory, tenant_id="acme", poster=post_vendor_invoice)
    assert (sum(stage.posted for stage in again.stages), again.synced) == (0, 0)


def test_who_settles_a_tenants_books_reads_that_tenants_segments_only(
    history: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run over all tenants takes the square of their number."""
    for tenant in ("acme", "beta", "gamma"):
        post_history(history, tenant, entries=1)
    read: list[Any] = []
    found = segments._segment

    def note(row: Any) -> segments.Segment:
        read.append(row.tenant_id)
        return found(row)

    monkeypatch.setattr(segments, "_segment", note)
    sync = LedgerSync()
    run_id = sync.start(history, tenant_id=ALL_TENANTS)
    while sync.advance(history, run_id, 0).stage != "settling":
        pass
    with history() as session:
        segment = segments.take(session.connection(), sync.binding, sync.settings, run_id, "one")
        session.commit()
    assert isinstance(segment, segments.Segment)
    read.clear()
    bench = Workbench(sync.binding, sync.settings, Writer(sync.binding, sync.settings), history, run_id, Options())
    closing = Closing(bench)
    closing.settle(segment)
    assert set(read) == {segment.tenant_id}


def test_a_tenant_whose_first_entries_the_poster_posts_is_settled_and_proved_too(history: Factory) -> None:
    post_history(history)
    with history() as session:
        books.vendor_invoice(session, tenant="beta")
        session.commit()
    report = LedgerSync().backfill(history, tenant_id=ALL_TENANTS, poster=post_vendor_invoice)
    assert (sum(stage.posted for stage in report.stages), report.clean) == (1, True)
    all_synced(history)


def test_without_a_poster_unposted_documents_are_counted(history: Factory) -> None:
    unposted_documents(history)
    report = LedgerSync().backfill(history, tenant_id="acme")
    assert report.stages[0].found == {"vendor_invoice": 5, "customer_invoice": 1}
    scoped = LedgerSync().backfill(history, tenant_id="acme", ledgers=["customer"], until=date(2026, 1, 1))
    assert scoped.stages[0].found == {}


def test_documents_that_cannot_be_posted_are_recorded_and_the_rest_is_posted(history: Factory) -> None:
    unposted_documents(history)

    def poster(session: Session, document: Any) -> Any:
        if document.amount == 11:
            raise HostError("the host has no rule for it")
        if document.amount == 12:
            return books.entry(session, "2400", -12, ("vendor_invoice", 4711))  # names another document
        return post_vendor_invoice(session, document)

    sync = LedgerSync()
    report = sync.backfill(history, tenant_id="acme", poster=poster)
    assert (report.state, report.errors) == ("completed_with_errors", 2)
    assert sum(stage.posted for stage in report.stages) == 3
    with history() as session:
        errors = session.scalars(select(SyncError).order_by(SyncError.source_id)).all()
        assert [error.source_type for error in errors] == ["vendor_invoice"] * 2
        listed = [(one.source_type, one.source_id, one.voucher) for one in sync.failures(session, "acme")]
        assert sorted(listed) == [("vendor_invoice", error.source_id, None) for error in errors]
        assert "the host has no rule for it" in errors[0].message
        assert "does not name vendor_invoice" in errors[1].message
        assert session.scalar(select(func.count()).select_from(JournalEntry)) == 3
    second = sync.backfill(history, tenant_id="acme", poster=post_vendor_invoice)
    assert (second.state, sum(stage.posted for stage in second.stages)) == ("completed", 2)
    with history() as session:
        assert all(error.resolved_at is not None for error in session.scalars(select(SyncError)))


def test_whoever_works_on_a_posting_run_needs_the_poster(history: Factory) -> None:
    unposted_documents(history)
    sync = LedgerSync()
    run_id = sync.start(history, tenant_id="acme", posting=True)
    with pytest.raises(ConfigurationError, match=r"needs the poster\. Pass poster="):
        sync.advance(history, run_id)
    assert sync.resume(history, run_id, poster=post_vendor_invoice).clean


def test_a_posting_run_that_has_completed_is_reported_to_who_has_no_poster(history: Factory) -> None:
    unposted_documents(history)
    sync = LedgerSync()
    report = sync.backfill(history, tenant_id="acme", poster=post_vendor_invoice)
    seen: list[Progress] = []
    assert sync.resume(history, report.run_id or 0, on_progress=seen.append).state == "completed"
    assert seen[-1].state == "completed"


def test_a_paused_posting_run_is_left_as_it_was_by_who_has_no_poster(history: Factory) -> None:
    unposted_documents(history)
    sync = LedgerSync()
    run_id = sync.start(history, tenant_id="acme", posting=True)
    with history() as session:
        sync.pause(session, run_id)
        session.commit()
    sync.advance(history, run_id, poster=post_vendor_invoice)
    before = row(history, run_id)
    with pytest.raises(ConfigurationError, match="needs the poster"):
        sync.resume(history, run_id)
    after = row(history, run_id)
    assert (after.state, after.sequence) == (before.state, before.sequence) == ("paused", 2)


# -- telling -------------------------------------------------------------------------------------------


def test_first_last_and_every_stage_are_told_however_long_the_interval(history: Factory) -> None:
    post_history(history)
    seen: list[Progress] = []
    LedgerSync(SMALL).backfill(history, tenant_id="acme", on_progress=seen.append, progress_seconds=3600)
    assert [progress.stage for progress in seen] == [
        "checking",
        "customer_invoices",
        "vendor_invoices",
        "expenses",
        "settling",
        "verifying",
        "completed",
    ]
    assert [progress.stage_index for progress in seen] == list(range(7))
    assert {progress.stage_count for progress in seen} == {7}
    assert [progress.percent == 100 for progress in seen] == [False] * 6 + [True]


@pytest.mark.parametrize("work", ["backfill", "repair"])
def test_a_callback_that_raises_is_logged_and_stops_nothing(
    history: Factory, caplog: pytest.LogCaptureFixture, work: str
) -> None:
    post_history(history)

    def broken(progress: Progress) -> None:
        raise HostError

    with caplog.at_level(logging.ERROR, "ledger_sync"):
        report = getattr(LedgerSync(), work)(history, tenant_id="acme", on_progress=broken)
    assert (report.state, report.synced) == ("completed", 10)
    assert "progress callback of run" in caplog.text


def test_a_coroutine_function_is_awaited_from_async_code_and_refused_elsewhere(history: Factory) -> None:
    post_history(history)
    seen: list[Progress] = []

    async def tell(progress: Progress) -> None:
        await asyncio.sleep(0)
        seen.append(progress)

    async def main() -> None:
        callback = asynchronous(tell)
        await asyncio.to_thread(LedgerSync().backfill, history, tenant_id="acme", on_progress=callback)

    for work in (LedgerSync().backfill, LedgerSync().repair):
        with pytest.raises(ConfigurationError, match="await abackfill, aresume or arepair"):
            work(history, tenant_id="acme", on_progress=tell)
    with history() as session:
        assert LedgerSync().runs(session, "acme") == ()
    asyncio.run(main())
    assert seen[-1].percent == 100


def test_ready_made_callbacks_combine(history: Factory, caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    post_history(history)
    heard: list[Progress] = []

    def listen(sender: object, progress: Progress) -> None:
        heard.append(progress)

    sync = LedgerSync()
    with (
        signals.run_progress.connected_to(listen, sender=sync),
        caplog.at_level(logging.INFO, "ledger_sync"),
        rich_bar() as rich,
        tqdm_bar() as tqdm,
    ):
        callback = together(signalled(sync), logged(), rich, tqdm)
        sync.backfill(history, tenant_id="acme", on_progress=callback)
    assert [progress.percent for progress in heard][-1] == 100
    assert "14 of 14 lines (100.0 %), 10 written, 4 skipped, 0 errors" in caplog.text
    shown = capsys.readouterr()
    assert "14/14 lines, 10 written, 4 skipped" in shown.out
    assert "14/14 lines, 10 written, 4 skipped" in shown.err


def test_one_of_several_callbacks_that_raises_does_not_keep_it_from_the_others() -> None:
    heard: list[object] = []

    def broken(progress: object) -> None:
        raise HostError

    with pytest.raises(HostError):
        together(broken, heard.append)("progress")  # type: ignore[arg-type]
    assert heard == ["progress"]


def test_the_hosts_health_is_asked_when_a_run_is_resumed(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    run_id = interrupted(sync, history)
    answers = iter(["replica lags by 40 s"])
    notes: list[str | None] = []
    sync.resume(
        history,
        run_id,
        health=lambda: next(answers, None),
        on_progress=lambda progress: notes.append(progress.note),
        progress_seconds=0,
    )
    assert "replica lags by 40 s" in notes
    all_synced(history)


def test_the_hosts_health_holds_a_run_with_its_reason(history: Factory) -> None:
    post_history(history)
    answers = iter([None, "replica lags by 40 s", "replica lags by 12 s"])
    seen: list[Progress] = []
    report = LedgerSync().backfill(
        history,
        tenant_id="acme",
        health=lambda: next(answers, None),
        on_progress=seen.append,
        progress_seconds=0,
    )
    notes = [progress.note for progress in seen]
    assert "replica lags by 40 s" in notes
    assert "replica lags by 12 s" in notes
    assert (report.state, report.note, report.synced) == ("completed", None, 10)


def test_a_budget_ends_a_slice_that_the_hosts_health_holds_and_the_reason_stays_until_it_goes_on(
    history: Factory,
) -> None:
    post_history(history)
    sync = LedgerSync(Settings(batch_lines_max=2))
    run_id = sync.start(history, tenant_id="acme")
    held = sync.advance(history, run_id, budget_seconds=0.01, health=lambda: "replica lags by 40 s")
    assert held.state == "running"
    with history() as session:
        shown = sync.progress(session, run_id)
    # nobody holds the segment: the next slice need not wait for a lease
    assert (shown.note, shown.workers) == ("replica lags by 40 s", 0)
    assert sync.advance(history, run_id, budget_seconds=0.0).state == "running"
    with history() as session:
        assert sync.progress(session, run_id).note is None
    assert sync.resume(history, run_id).synced == 10


def test_a_page_of_runs_is_read_in_two_statements_and_says_what_each_report_says(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    reports = [sync.backfill(history, tenant_id="acme", dry_run=dry) for dry in (True, False, False)]
    sync.repair(history, tenant_id="acme")
    asked: list[str] = []
    with history() as session:
        connection = session.connection()
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append(given[2]))
        listed = sync.runs(session, "acme")
        assert len(asked) == 2
        assert listed == tuple(sync.report(session, run.run_id or 0) for run in listed)
    assert [run.run_id for run in listed[1:]] == [report.run_id for report in reversed(reports)]


def test_the_list_of_runs_is_of_one_tenant(history: Factory) -> None:
    sync = LedgerSync()
    for tenant in ("acme", "beta", ALL_TENANTS, "acme"):
        sync.backfill(history, tenant_id=tenant, actor="kari")  # type: ignore[arg-type]
    sync.repair(history, tenant_id="acme")
    with history() as session:
        assert [(run.kind, run.tenant_id, run.actor) for run in sync.runs(session, "acme")] == [
            ("repair", "acme", None),
            ("backfill", "acme", "kari"),
            ("backfill", "acme", "kari"),
        ]
        assert len(sync.runs(session, ALL_TENANTS)) == 5
        other = sync.runs(session, "beta")[0].run_id or 0
        for act in (sync.pause, sync.cancel, sync.progress):
            with pytest.raises(RunStateError, match="does not exist"):
                act(session, other, tenant_id="acme")  # type: ignore[operator]
    with pytest.raises(RunStateError, match="does not exist"):
        sync.resume(history, other, tenant_id="acme")


def test_a_repair_cannot_be_advanced_steered_or_resumed_and_is_left_alone(history: Factory) -> None:
    with history() as session:
        values = {"kind": "repair", "stage": "repairing", "version": "0", "started_at": LONG_AGO}
        lease = datetime.now(UTC) + timedelta(hours=1)
        session.add(SyncRun(id=1, tenant_id="acme", state="running", lease_until=lease, **values))
        session.commit()
    sync = LedgerSync()
    for act in (sync.advance, sync.resume):
        with pytest.raises(RunStateError, match="is a repair"):
            act(history, 1)  # type: ignore[operator]
    with history() as session:
        for steer in (sync.pause, sync.cancel, sync.progress):
            with pytest.raises(RunStateError, match="is a repair"):
                steer(session, 1)  # type: ignore[operator]
    assert row(history, 1).state == "running"


def test_progress_of_a_run_can_be_read_by_anybody_who_can_read_the_tables(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(SMALL)
    run_id = interrupted(sync, history)
    with history() as session:
        progress = LedgerSync().progress(session, run_id)
    assert (progress.state, progress.synced, progress.stage) == ("paused", 4, "customer_invoices")
    assert Progress.model_validate_json(progress.model_dump_json()) == progress


def test_batches_grow_and_shrink_towards_the_target_time_within_bounds(history: Factory) -> None:
    with history() as session:
        for number in range(60):
            invoice = books.customer_invoice(session, 1 + number)
            books.entry(session, "1500", 1 + number, ("customer_invoice", invoice.id))
        session.commit()

    def sizes(**settings: Any) -> list[int]:
        seen: list[int] = []
        with history() as session:
            session.execute(text("DELETE FROM customer_ledger"))
            session.commit()
        LedgerSync(Settings(**settings)).backfill(
            history, tenant_id="acme", on_progress=lambda p: seen.append(p.synced), progress_seconds=0
        )
        steps = sorted(set(seen))
        return [after - before for before, after in itertools.pairwise(steps)]

    quick = sizes(batch_lines_start=1, batch_lines_min=1, batch_lines_max=16, batch_seconds=600)
    assert quick[:6] == [1, 2, 4, 8, 16, 16]
    slow = sizes(batch_lines_start=20, batch_lines_min=3, batch_seconds=1e-9)
    assert slow[:4] == [20, 10, 5, 3]


def test_the_next_slice_goes_on_with_the_size_that_the_last_one_has_learned(history: Factory) -> None:
    with history() as session:
        for number in range(20):
            invoice = books.customer_invoice(session, 1 + number)
            books.entry(session, "1500", 1 + number, ("customer_invoice", invoice.id))
        session.commit()
    sync = LedgerSync(Settings(batch_lines_start=1, batch_lines_min=1, batch_seconds=600))
    run_id = sync.start(history, tenant_id="acme")
    assert [sync.advance(history, run_id, 0).processed for _ in range(5)] == [0, 1, 3, 7, 15]


def test_lines_and_documents_of_other_tenants_are_never_counted(history: Factory) -> None:
    post_history(history, "beta", entries=9)
    unposted_documents(history)
    report = LedgerSync().backfill(history, tenant_id="gamma")
    assert (report.processed, report.synced, report.stages[0].found) == (0, 0, {})


def test_sessions_of_an_attached_factory_and_of_history_write_the_same(
    sync: LedgerSync, factory: Factory, history: Factory
) -> None:
    post_history(factory, "acme")
    post_history(history, "beta")
    sync.backfill(history, tenant_id=ALL_TENANTS)
    with history() as session:
        assert_synced(session.connection())
        rows = {
            tenant: Counter(
                session.execute(
                    select(CustomerLedger.amount, CustomerLedger.status).where(CustomerLedger.tenant_id == tenant)
                ).all()
            )
            for tenant in ("acme", "beta")
        }
    assert rows["acme"] == rows["beta"]
