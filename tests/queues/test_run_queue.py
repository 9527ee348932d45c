"""What a job queue's tasks do, on a queue that is a list: the work gets done whatever becomes of the messages."""

from __future__ import annotations

import logging
import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import sessionmaker

from ledger_sync import ALL_TENANTS, ConfigurationError, LedgerSync, Settings, signals
from ledger_sync.contrib import queues
from ledger_sync.contrib.actors import BY_QUEUE
from ledger_sync.contrib.queues import QueueUnreachableError, Schedule
from ledger_sync.dialects import open_engine
from ledger_sync.errors import RunActiveError
from ledger_sync.models import SupplierLedger, SyncRun, SyncSegment
from ledger_sync.models.types import utc_now
from ledger_sync.runs import run_table
from tests.hosts import signed
from tests.outcomes import by_one_process, counts, fill, wiped, written
from tests.queues.inbox import Inbox
from tests.queues.places import SMALL
from tests.test_backfill import Factory

TENANTS = ("acme", "beta")


@pytest.fixture(scope="module")
def small() -> LedgerSync:
    return LedgerSync(SMALL)


@pytest.fixture
def bare(engine: Any) -> Factory:
    """A session factory without a hook, and the history of two tenants."""
    made = sessionmaker(engine)
    for tenant in TENANTS:
        fill(made, tenant, 12)
    return made


def report_of(sync: LedgerSync, factory: Factory, run_id: int) -> Any:
    with factory() as session:
        return sync.report(session, run_id)


def lapsed(factory: Factory) -> None:
    """Let the leases of all runs and segments pass."""
    with factory() as session:
        past = utc_now() - timedelta(seconds=1)
        session.execute(update(SyncRun).where(SyncRun.state == "running").values(lease_until=past))
        session.execute(update(SyncSegment).where(SyncSegment.state == "running").values(lease_until=past))
        session.commit()


def test_a_run_is_worked_on_in_slices_and_comes_to_what_one_process_makes_of_it(
    bare: Factory, small: LedgerSync
) -> None:
    expected = by_one_process(small, bare, *TENANTS)
    inbox = Inbox()
    queue = inbox.queue(bare, small)
    run_id = queue.start(tenant_id="acme", actor="kari")
    assert report_of(small, bare, run_id).actor == f"kari{BY_QUEUE}"
    done = inbox.work_all(queue)
    assert len(done) > 3, "it was one slice"
    assert {message.task for message in done} == {"advance"}
    assert (counts(report_of(small, bare, run_id)), written(bare, *TENANTS)) == expected


def test_runs_of_several_tenants_go_on_by_turns(bare: Factory, small: LedgerSync) -> None:
    inbox = Inbox()
    queue = inbox.queue(bare, small)
    runs = [queue.start(tenant_id=tenant) for tenant in TENANTS]
    done = inbox.work_all(queue)
    order = [message.arguments["run"] for message in done]
    least = min(order.count(run) for run in runs)
    assert order[: 2 * least] == runs * least


def test_messages_that_are_lost_delivered_twice_or_out_of_order_do_no_harm(bare: Factory, small: LedgerSync) -> None:
    expected = by_one_process(small, bare, *TENANTS)
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    for _ in range(5):
        wiped(bare, *TENANTS)
        inbox = Inbox()
        queue = inbox.queue(bare, small, Schedule(workers=3, slice_seconds=0.001))
        run_id = queue.start(tenant_id="acme")
        for _ in range(2_000):
            if report_of(small, bare, run_id).state != "running":
                break
            if not inbox.messages:
                lapsed(bare)
                queue.watch()
            chance.shuffle(inbox.messages)
            what = chance.random()
            if what < 0.2:
                inbox.messages.pop()
            elif what < 0.4:
                inbox.messages.append(inbox.messages[0])
            if inbox.messages:
                inbox.work(queue)
        assert (counts(report_of(small, bare, run_id)), written(bare, *TENANTS)) == expected
        inbox.work_all(queue)
        assert (counts(report_of(small, bare, run_id)), written(bare, *TENANTS)) == expected


def test_a_run_whose_lone_worker_was_killed_is_woken(bare: Factory, small: LedgerSync) -> None:
    inbox = Inbox()
    queue = inbox.queue(bare, small)
    run_id = queue.start(tenant_id="acme")
    inbox.work(queue)
    inbox.messages.clear()  # with the worker
    queue.watch()
    assert [message.arguments["lasting"] for message in inbox.messages] == [False]  # it may only be waiting its turn
    inbox.messages.clear()
    lapsed(bare)
    queue.watch()
    (message,) = inbox.messages
    assert (message.arguments["run"], message.arguments["lasting"]) == (run_id, True)
    assert message.expires_seconds == queue.schedule.watch_seconds  # another one comes then
    inbox.work_all(queue)
    assert report_of(small, bare, run_id).state == "completed"


def test_watching_leaves_alone_what_others_work_on_themselves(bare: Factory, small: LedgerSync) -> None:
    inbox = Inbox()
    queue = inbox.queue(bare, small)
    small.start(bare, tenant_id="acme", actor="somebody else")
    lapsed(bare)
    queue.watch()
    assert inbox.messages == []


def _occupy(factory: Factory, run_id: int, several: int) -> None:
    """Have others be at work on so many segments."""
    with factory() as session:
        segments = session.query(SyncSegment).filter_by(run_id=run_id, state="waiting").order_by(SyncSegment.position)
        for segment in segments.limit(several):
            segment.state, segment.worker = "running", "another"
            segment.lease_until = utc_now() + timedelta(minutes=5)
        session.commit()


def test_a_chain_ends_when_enough_others_are_at_work(bare: Factory, small: LedgerSync) -> None:
    inbox = Inbox()
    queue = inbox.queue(bare, small, Schedule(workers=2, slice_seconds=0.001))
    run_id = queue.start(tenant_id="acme")
    inbox.work(queue)  # the plan
    inbox.messages.clear()
    _occupy(bare, run_id, 1)
    queue.advance(run_id)
    assert len(inbox.messages) == 1
    inbox.messages.clear()
    _occupy(bare, run_id, 1)
    queue.advance(run_id)
    assert inbox.messages == []


def test_a_chain_waits_in_the_queue_for_what_others_must_end_first(bare: Factory, small: LedgerSync) -> None:
    inbox = Inbox()
    queue = inbox.queue(bare, small, Schedule(workers=9, slice_seconds=30))
    run_id = queue.start(tenant_id="acme")
    _occupy(bare, run_id, 1)  # the plan
    queue.advance(run_id)
    assert inbox.messages[-1].after_seconds > 0  # and no worker of the queue is held up meanwhile
    inbox.messages.clear()
    queue.advance(run_id, lasting=False)
    assert inbox.messages == []


def test_a_queue_that_is_down_at_the_start_is_an_error_and_leaves_no_run(bare: Factory, small: LedgerSync) -> None:
    inbox = Inbox()
    queue = inbox.queue(bare, small)
    inbox.answers = False
    with pytest.raises(QueueUnreachableError, match=r"the list does not answer .* Nothing was started"):
        queue.start(tenant_id="acme")
    with bare() as session:
        assert small.runs(session, "acme") == ()
    inbox.answers, inbox.answers_to = True, set()  # it goes down between the look and the message
    with pytest.raises(QueueUnreachableError):
        queue.start(tenant_id="acme")
    with bare() as session:
        assert [run.state for run in small.runs(session, "acme")] == ["cancelled"]
    assert not any(written(bare).values())
    inbox.answers_to = None
    queue.start(tenant_id="acme")


def test_a_queue_that_goes_down_in_mid_run_loses_nothing(bare: Factory, small: LedgerSync, caplog: Any) -> None:
    expected = by_one_process(small, bare, *TENANTS)
    inbox = Inbox()
    queue = inbox.queue(bare, small)
    run_id = queue.start(tenant_id="acme")
    inbox.answers = False
    with caplog.at_level(logging.WARNING, "ledger_sync"):
        inbox.work(queue)
    assert "waits until the queue is back" in caplog.text
    assert inbox.messages == []
    with pytest.raises(QueueUnreachableError):
        queue.watch()
    inbox.answers = True
    lapsed(bare)
    queue.watch()
    inbox.work_all(queue)
    assert (counts(report_of(small, bare, run_id)), written(bare, *TENANTS)) == expected


def test_a_run_that_waits_for_its_turn_is_not_taken_for_dead(bare: Factory, small: LedgerSync) -> None:
    inbox = Inbox()
    queue = inbox.queue(bare, small)
    first = queue.start(tenant_id="acme")
    lapsed(bare)
    for whose in ("acme", ALL_TENANTS):
        with pytest.raises(RunActiveError, match=f"Run {first}, .*in the queue"):
            queue.start(tenant_id=whose)
    queue.start(tenant_id="beta")
    inbox.work_all(queue)
    queue.start(tenant_id="acme")


def test_so_it_is_in_the_books_of_a_host_without_tenants(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'signed.db'}")
    signed.Base.metadata.create_all(engine)
    sync, factory = signed.HOST.sync(), sessionmaker(engine)
    sync.create_tables(engine)
    inbox = Inbox()
    queue = inbox.queue(factory, sync)
    first = queue.start()
    with engine.begin() as connection:
        connection.execute(update(run_table(sync.binding)).values(lease_until=utc_now() - timedelta(seconds=1)))
    with pytest.raises(RunActiveError, match=f"Run {first}, .*in the queue"):
        queue.start()
    inbox.work_all(queue)
    with factory() as session:
        assert sync.tenants(session) == (None,)
        assert sync.report(session, first).state == "completed"
    queue.verify_all()
    queue.sync_all()
    inbox.work_all(queue)
    engine.dispose()


def test_a_run_is_paused_and_resumed(bare: Factory, small: LedgerSync) -> None:
    expected = by_one_process(small, bare, *TENANTS)
    inbox = Inbox()
    queue = inbox.queue(bare, small)
    run_id = queue.start(tenant_id="acme")
    inbox.work(queue)
    with bare() as session:
        small.pause(session, run_id)
        session.commit()
    inbox.work_all(queue)
    assert report_of(small, bare, run_id).state == "paused"
    assert queue.resume(run_id)
    inbox.work_all(queue)
    assert (counts(report_of(small, bare, run_id)), written(bare, *TENANTS)) == expected
    assert not queue.resume(run_id)
    assert inbox.messages == []


def paused_in(factory: Factory, sync: LedgerSync, tenant: str) -> int:
    """A paused run of a process's own."""
    run_id = sync.start(factory, tenant_id=tenant, actor="kari")
    with factory() as session:
        sync.pause(session, run_id)
        session.commit()
    sync.advance(factory, run_id, 0.0)
    assert report_of(sync, factory, run_id).state == "paused"
    return run_id


def test_a_run_that_is_resumed_displaces_none_that_waits_for_its_turn(bare: Factory, small: LedgerSync) -> None:
    inbox = Inbox()
    queue = inbox.queue(bare, small)
    paused = paused_in(bare, small, "acme")
    waiting = queue.start(tenant_id="acme")
    lapsed(bare)
    with pytest.raises(RunActiveError, match=f"Run {waiting}, .*in the queue"):
        queue.resume(paused)
    inbox.work_all(queue)
    assert [report_of(small, bare, run).state for run in (waiting, paused)] == ["completed", "paused"]


def test_a_run_that_no_queue_began_is_watched_when_the_queue_goes_on_with_it(bare: Factory, small: LedgerSync) -> None:
    expected = by_one_process(small, bare, *TENANTS)
    inbox = Inbox()
    queue = inbox.queue(bare, small)
    run_id = paused_in(bare, small, "acme")
    assert queue.resume(run_id)
    assert report_of(small, bare, run_id).actor == f"kari{BY_QUEUE}"
    inbox.messages.clear()
    lapsed(bare)
    queue.watch()
    inbox.work_all(queue)
    assert (counts(report_of(small, bare, run_id)), written(bare, *TENANTS)) == expected


def test_a_run_that_is_resumed_on_a_queue_that_goes_down_is_paused_again(bare: Factory, small: LedgerSync) -> None:
    inbox = Inbox()
    queue = inbox.queue(bare, small)
    run_id = paused_in(bare, small, "acme")
    inbox.answers_to = set()
    with pytest.raises(QueueUnreachableError):
        queue.resume(run_id)
    assert report_of(small, bare, run_id).state == "paused"
    inbox.answers_to = None
    assert queue.resume(run_id)


def test_a_failed_run_ends_its_chain_and_says_why(bare: Factory, small: LedgerSync, caplog: Any) -> None:
    inbox = Inbox()
    queue = inbox.queue(bare, small)
    run_id = small.start(bare, tenant_id="acme", posting=True, actor=f"x{BY_QUEUE}")  # and there is no poster
    with caplog.at_level(logging.WARNING, "ledger_sync"):
        queue.advance(run_id)
        queue.advance(999)
    assert inbox.messages == []
    assert report_of(small, bare, run_id).state == "failed"
    assert "poster" in report_of(small, bare, run_id).note
    assert "Run 999 does not exist" in caplog.text


def test_the_task_that_starts_takes_plain_arguments(bare: Factory, small: LedgerSync) -> None:
    inbox = Inbox()
    queue = inbox.queue(bare, small)
    queue.started(
        tenant="acme", since="2026-01-03", until="2026-01-05", ledgers=["supplier"], dry_run=True, actor="nightly"
    )
    inbox.work_all(queue)
    with bare() as session:
        (run,) = small.runs(session, "acme")
    assert run.dry_run
    assert run.state == "completed"
    assert run.processed == 3 + 1
    queue.started(everybody=True)
    inbox.work_all(queue)
    with bare() as session:
        assert len(small.runs(session, ALL_TENANTS)) == 2
        assert all(small.verify(session, tenant).clean for tenant in TENANTS)


def test_every_tenants_late_history_is_synced_by_a_run_of_its_own(bare: Factory, monkeypatch: Any) -> None:
    monkeypatch.setattr(queues, "utc_now", lambda: datetime(2026, 1, 20, tzinfo=UTC))
    sync = LedgerSync(Settings(writers_seconds_max=0, effective_from={"beta": date(2026, 1, 12)}))
    inbox = Inbox()
    queue = inbox.queue(bare, sync, Schedule(slice_seconds=5, workers=1, sync_days=10))
    queue.sync_all()
    since = {message.arguments["tenant"]: message.arguments["since"] for message in inbox.messages}
    assert since == {"acme": "2026-01-10", "beta": "2026-01-12"}
    queue.sync_all()  # before the first ones were worked on: they are not started twice
    inbox.work_all(queue)
    with bare() as session:
        assert sorted(run.tenant_id for run in sync.runs(session, ALL_TENANTS)) == ["acme", "beta"]
        written_from = dict(
            session.execute(
                select(SupplierLedger.tenant_id, func.min(SupplierLedger.entry_date)).group_by(SupplierLedger.tenant_id)
            ).all()
        )
    assert written_from == {"acme": date(2026, 1, 10), "beta": date(2026, 1, 12)}
    inbox.queue(bare, sync, Schedule(sync_days=None)).sync_all()
    assert [message.arguments.get("since") for message in inbox.messages] == [None, None]


def test_a_cut_over_by_posting_says_nothing_of_entry_dates(bare: Factory, monkeypatch: Any) -> None:
    monkeypatch.setattr(queues, "utc_now", lambda: datetime(2026, 1, 20, tzinfo=UTC))
    by_posting = Settings(effective_from=date(2026, 1, 12), effective_by="posted_at")
    inbox = Inbox()
    inbox.queue(bare, LedgerSync(by_posting), Schedule(sync_days=10)).sync_all()
    assert {message.arguments["since"] for message in inbox.messages} == {"2026-01-10"}


def test_every_tenants_books_are_proved_and_what_is_found_is_told_and_logged(
    bare: Factory, small: LedgerSync, caplog: Any
) -> None:
    small.backfill(bare, tenant_id="acme")
    inbox, told = Inbox(), {}

    def hear(sender: object, proof: Any) -> None:
        told[proof.tenant_id] = proof

    queue = inbox.queue(bare, small)
    with signals.books_verified.connected_to(hear, sender=small), caplog.at_level(logging.INFO, "ledger_sync"):
        queue.verify_all()
        inbox.work_all(queue)
    assert {tenant: proof.clean for tenant, proof in told.items()} == {"acme": True, "beta": False}
    assert "the books of tenant acme are clean" in caplog.text
    assert "the books of tenant beta are not clean: account 2400 missing (12)" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"slice_seconds": 0}, {"slice_seconds": 3600}, {"watch_seconds": 7}, {"sync_days": -1}],
)
def test_a_schedule_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=f"{name}=.* Give "):
        Schedule(**wrong)


# -- who takes what --------------------------------------------------------------------------------------


def test_workers_spread_over_tenants_first_and_a_tenant_has_no_more_than_its_limit(bare: Factory) -> None:
    sync = LedgerSync(SMALL.model_copy(update={"tenant_workers_max": 2, "segment_lines_max": 5}))
    run_id = sync.start(bare, tenant_id=ALL_TENANTS)
    sync.advance(bare, run_id, 0.0)  # the plan
    taken: list[str] = []
    with bare() as session:
        for number in range(6):
            segment = _take(sync, session, run_id, f"worker {number}")
            taken.append(segment if segment == "busy" else segment.tenant_id)
    assert taken == ["acme", "beta", "acme", "beta", "busy", "busy"]


def _take(sync: LedgerSync, session: Any, run_id: int, worker: str) -> Any:
    from ledger_sync import segments

    return segments.take(session.connection(), sync.binding, sync.settings, run_id, worker)


def test_how_many_are_at_work_is_told(bare: Factory, small: LedgerSync) -> None:
    run_id = small.start(bare, tenant_id="acme")
    small.advance(bare, run_id, 0.0)
    _occupy(bare, run_id, 2)
    with bare() as session:
        assert small.progress(session, run_id).workers == 2
    lapsed(bare)
    with bare() as session:
        assert small.progress(session, run_id).workers == 0


def test_a_slice_that_can_only_wait_returns_at_once_if_it_is_told_to(bare: Factory, small: LedgerSync) -> None:
    run_id = small.start(bare, tenant_id="acme")
    _occupy(bare, run_id, 1)
    assert small.advance(bare, run_id, None, waiting=False).state == "running"


def test_tenants_are_those_who_have_entries(bare: Factory, small: LedgerSync) -> None:
    with bare() as session:
        assert small.tenants(session, ALL_TENANTS) == TENANTS
        assert small.tenants(session, "beta") == ("beta",)
        assert small.tenants(session, "nobody") == ()
        with pytest.raises(ConfigurationError, match="say whose"):
            small.tenants(session)
