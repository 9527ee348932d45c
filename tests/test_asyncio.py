"""Asynchronous sessions: the hook, the proof, settling by hand, and backfills in the event loop; on three drivers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, delete, event, insert, make_url, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import ConfigurationError, LedgerSync, Progress, Settings
from ledger_sync.models import CustomerLedger, JournalEntry, JournalLine
from ledger_sync.testing import assert_in_sync
from tests import books
from tests.conftest import make_sqlite, schema_of_its_own
from tests.oracle import assert_synced
from tests.test_backfill import post_history

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture(params=["aiosqlite", "asyncpg", "psycopg"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """How to run a coroutine function with an asynchronous session factory, and a plain factory on the same books."""
    if request.param == "aiosqlite":
        engine = make_sqlite(tmp_path / "books.db")
        yield _runner(f"sqlite+aiosqlite:///{tmp_path / 'books.db'}", {}), sessionmaker(engine)
        engine.dispose()
        return
    url = make_url(request.getfixturevalue("postgresql_url"))
    with schema_of_its_own(url.render_as_string(hide_password=False)) as engine:
        with engine.connect() as connection:
            schema = connection.scalar(text("SELECT current_schema()"))
        if request.param == "asyncpg":
            options: dict[str, Any] = {"server_settings": {"search_path": schema}}
        else:
            options = {"options": f"-csearch_path={schema}"}
        named = url.set(drivername=f"postgresql+{request.param}").render_as_string(hide_password=False)
        yield _runner(named, options), sessionmaker(engine)


def _runner(url: str, options: dict[str, Any]) -> Callable[[Callable[[Sessions], Awaitable[Any]]], Any]:
    def run(work: Callable[[Sessions], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            engine = create_async_engine(url, connect_args=options, poolclass=NullPool)
            try:
                return await work(async_sessionmaker(engine, expire_on_commit=False))
            finally:
                await engine.dispose()

        return asyncio.run(main())

    return run


def post(session: Session) -> None:
    sold = books.customer_invoice(session, 100, payment_reference="K1")
    books.entry(session, "1500", 100, ("customer_invoice", sold.id))
    paid = books.customer_payment(session, 60, payment_reference="K1")
    books.entry(session, "1500", -60, ("customer_payment", paid.id))


def test_the_hook_writes_and_settles_through_an_async_session(place: Any) -> None:
    run, plain = place
    sync = LedgerSync()

    async def work(sessions: Sessions) -> None:
        sync.attach(sessions)
        async with sessions() as session:
            await session.run_sync(post)
            await session.commit()
            items = (await session.scalars(select(CustomerLedger).order_by(CustomerLedger.amount))).all()
            assert [(item.amount, item.remaining_amount, item.status) for item in items] == [
                (-60, 0, "paid"),
                (100, 40, "partially_paid"),
            ]
            await session.commit()
        async with sessions() as session:
            proof = await session.run_sync(sync.verify, "acme")
            assert proof.clean
            payment, invoice = items
            await session.run_sync(lambda s: sync.unsettle(s, payment, invoice, actor="kari", reason="test"))
            await session.commit()

    run(work)
    with plain() as session:
        assert {item.status for item in session.scalars(select(CustomerLedger))} == {"open"}


def test_bulk_statements_through_an_async_session_are_synced(place: Any) -> None:
    run, plain = place
    sync = LedgerSync(Settings(bulk="sync"))

    def draft(session: Session) -> None:
        sold = books.customer_invoice(session, 100, payment_reference="K1")
        books.entry(session, "1500", 100, ("customer_invoice", sold.id), post=False)

    async def work(sessions: Sessions) -> None:
        sync.attach(sessions)
        if (engine := sessions.kw["bind"].sync_engine).dialect.name == "sqlite":
            # SQLAlchemy's documented recipe
            event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
            event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        async with sessions() as session:
            await session.run_sync(draft)
            await session.commit()
            drafts = update(JournalEntry).where(JournalEntry.status == "draft")
            posted = await session.scalars(drafts.values(status="posted").returning(JournalEntry.id))
            (key,) = posted.all()
            values = {"account_number": "1500", "debit": Decimal(20), "credit": Decimal(0), "line_number": 3}
            await session.execute(insert(JournalLine), [{"general_ledger_id": key, **values}])
            async with session.begin_nested() as savepoint:
                await session.execute(delete(JournalLine).where(JournalLine.general_ledger_id == key))
                await savepoint.rollback()
            await session.commit()
            await session.run_sync(assert_in_sync, sync)

    run(work)
    with plain() as session:
        assert sorted(item.amount for item in session.scalars(select(CustomerLedger))) == [20, 100]


def test_a_rolled_back_async_transaction_leaves_no_row(place: Any) -> None:
    run, plain = place
    sync = LedgerSync()

    async def work(sessions: Sessions) -> None:
        sync.attach(sessions)
        async with sessions() as session:
            await session.run_sync(post)
            await session.rollback()

    run(work)
    with plain() as session:
        assert session.scalars(select(CustomerLedger)).all() == []


def test_a_backfill_works_in_the_event_loop_and_lets_others_work(place: Any) -> None:
    run, plain = place
    post_history(plain)
    sync = LedgerSync(Settings(batch_lines_max=2, nice_ratio=1))
    seen: list[Progress] = []
    ticks: list[int] = []

    async def tell(progress: Progress) -> None:
        await asyncio.sleep(0)
        seen.append(progress)

    async def tick() -> None:
        while True:
            ticks.append(1)
            await asyncio.sleep(0.001)

    async def work(sessions: Sessions) -> None:
        ticking = asyncio.create_task(tick())
        report = await sync.abackfill(sessions, tenant_id="acme", on_progress=tell, progress_seconds=0)
        ticking.cancel()
        assert (report.processed, report.synced, report.clean) == (14, 10, True)
        run_id = report.run_id or 0
        assert (await sync.aresume(sessions, run_id)).synced == 10
        assert (await sync.aadvance(sessions, run_id, 1)).percent == 100
        assert (await sync.arepair(sessions, tenant_id="acme")).clean
        with pytest.raises(ConfigurationError, match="factory of plain sessions"):
            await sync.abackfill(sessions, tenant_id="acme", executor=object())

    run(work)
    assert [progress.percent for progress in seen][-1] == 100
    assert len(ticks) > 10
    with plain() as session:
        assert_synced(session.connection())


def test_a_cancelled_task_leaves_a_paused_run_that_resume_finishes(place: Any) -> None:
    run, plain = place
    post_history(plain)
    sync = LedgerSync(Settings(batch_lines_max=2))

    async def work(sessions: Sessions) -> None:
        enough = asyncio.Event()

        async def tell(progress: Progress) -> None:
            if progress.synced >= 4:
                enough.set()
            await asyncio.sleep(0.001)

        task = asyncio.create_task(sync.abackfill(sessions, tenant_id="acme", on_progress=tell, progress_seconds=0))
        waiting = asyncio.create_task(enough.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with sessions() as session:
            (report,) = await session.run_sync(sync.runs, "acme")
        assert report.state == "paused"
        assert (await sync.aresume(sessions, report.run_id)).synced == 10

    run(work)
    with plain() as session:
        assert_synced(session.connection())


def test_a_run_is_started_with_an_async_factory_and_worked_on_later(place: Any) -> None:
    run, plain = place
    post_history(plain)
    sync = LedgerSync()

    async def work(sessions: Sessions) -> None:
        run_id = await sync.astart(sessions, tenant_id="acme", ledgers=["supplier"], actor="kari")
        async with sessions() as session:
            (report,) = await session.run_sync(sync.runs, "acme")
        assert (report.run_id, report.state, report.synced, report.actor) == (run_id, "running", 0, "kari")
        assert (await sync.aadvance(sessions, run_id)).state == "completed"
        assert (await sync.aresume(sessions, run_id)).synced == 5

    run(work)


async def tell_by_function(seen: list[Progress], progress: Progress) -> None:
    seen.append(progress)


class TellByCall:
    def __init__(self, seen: list[Progress]) -> None:
        self.seen = seen

    async def __call__(self, progress: Progress) -> None:
        self.seen.append(progress)


@pytest.mark.parametrize("telling", [partial(partial, tell_by_function), TellByCall])
def test_a_factory_of_plain_sessions_works_in_a_thread(tmp_path: Path, telling: Any) -> None:
    """Whatever is called and must be awaited may tell how far it is."""
    engine = make_sqlite(tmp_path / "books.db")
    post_history(sessionmaker(engine))
    seen: list[Progress] = []
    report = asyncio.run(LedgerSync().abackfill(sessionmaker(engine), tenant_id="acme", on_progress=telling(seen)))
    assert (report.synced, seen[-1].percent) == (10, 100)
    engine.dispose()
