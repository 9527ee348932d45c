"""A backfill beside people who post, change and take back: true in every snapshot, on PostgreSQL and on MariaDB.

With a host whose posted entries can be edited. First every interleaving of a host's steps with a batch's, staged on
real connections at three isolation levels; then everybody at once for a while, with a reader who looks at snapshots.
LEDGER_SYNC_TEST_SECONDS sets how long; a minute unless given, 12 seconds where a check must be quick, half an hour in
the long profile.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from itertools import combinations
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.control_lines import Lines
from ledger_sync.dialects import fault_of
from ledger_sync.filling import Filler
from tests.books import DAY
from tests.budget import at_length
from tests.conftest import database_of_its_own, schema_of_its_own
from tests.hosts.editable import Base, Entry, Invoice, Item, Line, Link, Payment, Supplier, editable_sync
from tests.test_settlement_concurrency import staged

SECONDS = float(os.environ.get("LEDGER_SYNC_TEST_SECONDS", at_length(60, 1_800, 12)))
LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]

BROKEN = {
    "a row whose line is gone, a draft, or without a source": """
        SELECT count(*) FROM e_items i
        LEFT JOIN e_lines l ON l.id = i.general_ledger_line_id
        LEFT JOIN e_entries e ON e.id = l.general_ledger_id
        LEFT JOIN e_links k ON k.line_id = l.id
        WHERE e.id IS NULL OR e.status <> 'posted' OR coalesce(k.source_id, e.source_id) IS NULL OR l.credit = l.debit
        """,
    "a row with another amount than its line": """
        SELECT count(*) FROM e_items i JOIN e_lines l ON l.id = i.general_ledger_line_id
        WHERE i.amount <> l.credit - l.debit
        """,
    "a row whose remaining amount its applications do not bear out": """
        SELECT count(*) FROM e_items i WHERE i.remaining_amount <> i.amount
          - coalesce((SELECT sum(a.amount) FROM supplier_applications a
                      WHERE a.to_line_id = i.general_ledger_line_id), 0)
          + coalesce((SELECT sum(a.amount) FROM supplier_applications a
                      WHERE a.from_line_id = i.general_ledger_line_id), 0)
        """,
    "a line posted live without a row": """
        SELECT count(*) FROM e_lines l JOIN e_entries e ON e.id = l.general_ledger_id
        LEFT JOIN e_links k ON k.line_id = l.id
        WHERE l.account_number = '2400' AND e.status = 'posted' AND l.credit <> l.debit
          AND coalesce(k.source_id, e.source_id) IS NOT NULL
          AND (:all_of_them OR e.voucher_series = 'LIVE')
          AND NOT EXISTS (SELECT 1 FROM e_items i WHERE i.general_ledger_line_id = l.id)
        """,
}


def look(connection: Connection, *, all_of_them: bool) -> dict[str, int]:
    """What is broken in the present snapshot."""
    counts = {
        name: connection.scalar(text(query), {"all_of_them": all_of_them} if ":all_of_them" in query else {}) or 0
        for name, query in BROKEN.items()
    }
    return {name: count for name, count in counts.items() if count}


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def books_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    editable_sync()  # makes the classes that the host lacks
    of_its_own = {"postgresql": schema_of_its_own, "mariadb": database_of_its_own}[request.param]
    with of_its_own(request.getfixturevalue(f"{request.param}_url")) as engine:
        Base.metadata.create_all(engine)
        yield engine


@pytest.fixture
def engine(books_engine: Engine) -> Engine:
    take_all_rows(books_engine)
    return books_engine


def take_all_rows(engine: Engine) -> None:
    with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())


def posted(session: Session, key: int, amount: int, series: str, *, draft: bool = False, kind: str = "") -> Entry:
    """An entry from a document of its own; negative amounts are payments of the invoice with that amount."""
    if amount > 0:
        document: Any = Invoice(
            id=key,
            tenant_id="acme",
            vendor_id=1,
            invoice_number=f"N{key}",
            invoice_date=DAY,
            amount=amount,
            payment_reference=f"K{amount}",
        )
    else:
        document = Payment(
            id=key, tenant_id="acme", vendor_id=1, payment_date=DAY, amount=-amount, payment_reference=f"K{-amount}"
        )
    session.add(document)
    entry = Entry(
        id=key,
        tenant_id="acme",
        voucher_series=series,
        voucher_number=str(key),
        entry_date=DAY,
        status="draft" if draft else "posted",
        source_type=kind or ("vendor_invoice" if amount > 0 else "vendor_payment"),
        source_id=key,
    )
    sides = {"credit": Decimal(amount)} if amount > 0 else {"debit": Decimal(-amount)}
    entry.lines.append(Line(line_number=1, account_number="2400", **sides))
    entry.lines.append(
        Line(
            line_number=2,
            account_number="1920",
            credit=sides.get("debit", Decimal(0)),
            debit=sides.get("credit", Decimal(0)),
        )
    )
    session.add(entry)
    return entry


# -- staged --------------------------------------------------------------------------------------------

Step = Callable[[Session], object]


def unpost(session: Session) -> None:
    session.get_one(Entry, 1).status = "draft"
    session.flush()


def post_draft(session: Session) -> None:
    session.get_one(Entry, 2).status = "posted"
    session.flush()


def amend(session: Session) -> None:
    session.get_one(Entry, 1).lines[0].credit = Decimal(200)
    session.flush()


def amend_by_the_line_alone(session: Session) -> None:
    session.scalars(select(Line).where(Line.general_ledger_id == 1, Line.line_number == 1)).one().credit = Decimal(300)
    session.flush()


def add_a_line(session: Session) -> None:
    entry = session.get_one(Entry, 1)
    entry.lines.append(Line(line_number=3, account_number="2400", credit=Decimal(7)))
    session.flush()


def delete_entry(session: Session) -> None:
    session.delete(session.get_one(Entry, 1))
    session.flush()


def take_source_away(session: Session) -> None:
    entry = session.get_one(Entry, 1)
    entry.source_type = entry.source_id = None
    session.flush()


def link_away(session: Session) -> None:
    line = session.get_one(Entry, 3).lines[0]
    session.add(Link(line_id=line.id, source_type="vendor_invoice", source_id=1, method="host"))
    session.flush()


CHANGES = [
    unpost,
    post_draft,
    amend,
    amend_by_the_line_alone,
    add_a_line,
    delete_entry,
    take_source_away,
    link_away,
]


def begin_reading(session: Session) -> None:
    """The host's transaction takes its snapshot, and loads what it will change, before anything happens."""
    session.scalars(select(Entry)).all()
    session.scalars(select(Item)).all()


def batch(sync: LedgerSync) -> Step:
    def step(session: Session) -> None:
        ledger = sync.binding.ledger("supplier")

        def everything(lines: Lines) -> list[Any]:
            return []

        Filler(sync._writer).fill(session.connection(), ledger, everything, {}, "everything")

    return step


def commit(session: Session) -> None:
    session.commit()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_no_interleaving_of_a_host_and_a_batch_leaves_a_stale_or_missing_row(
    engine: Engine, change: Step, level: str
) -> None:
    sync = editable_sync()
    unsynced, attached = sessionmaker(engine), sessionmaker(engine)
    sync.attach(attached)
    host_steps: list[Step] = [begin_reading, change, commit]
    batch_steps: list[Step] = [batch(sync), commit]
    refused = 0
    for places in combinations(range(5), 2):
        order = [1 if n in places else 0 for n in range(5)]
        take_all_rows(engine)
        with unsynced() as session:
            session.add(Supplier(id=1, tenant_id="acme", number="S", name="S"))
            posted(session, 1, 100, "OLD")
            posted(session, 2, 50, "OLD", draft=True)
            posted(session, 3, 60, "OLD")
            session.commit()
        with attached() as host, unsynced() as batches:
            for session, isolation in ((host, level), (batches, "READ COMMITTED")):
                connection = session.connection(execution_options={"isolation_level": isolation})
                # asked of the driver, since a statement would take the transaction's snapshot
                driver: Any = connection.connection.dbapi_connection
                mariadb = connection.dialect.name == "mysql"
                session.info["pid"] = driver.thread_id() if mariadb else driver.info.backend_pid
            failures = staged(engine, [host, batches], order, [host_steps, batch_steps])
        if isinstance(failures[1], DBAPIError) and engine.dialect.name == "mysql":
            # a key to another table is checked by a lock there, and of two that lock each other out the batch, which
            # has written less, tries again
            assert fault_of(failures[1]) == "passing", (order, failures)
            with unsynced() as batches:
                batch(sync)(batches)
                batches.commit()
        else:
            assert failures[1] is None, (order, failures)
        if failures[0] is not None:
            # a conflict was raised rather than missed: the host tries again
            assert isinstance(failures[0], DBAPIError)
            assert fault_of(failures[0]) == "passing", (order, failures)
            assert level != "READ COMMITTED", (order, failures)
            refused += 1
            with attached() as host:
                change(host)
                host.commit()
        with engine.connect() as connection:
            broken = look(connection, all_of_them=False)
            assert not broken, (order, broken)
        # the closing look finds what lacks, and only that
        with unsynced() as session:
            batch(sync)(session)
            session.commit()
        with engine.connect() as connection:
            broken = look(connection, all_of_them=True)
            assert not broken, (order, broken)
            assert sync.verify(Session(connection), "acme").clean, order
    if level == "READ COMMITTED":
        assert refused == 0


# -- everybody at once ---------------------------------------------------------------------------------


def test_everybody_at_once_and_every_snapshot_is_true(engine: Engine) -> None:
    sync = editable_sync()
    unsynced, attached = sessionmaker(engine), sessionmaker(engine)
    sync.attach(attached)
    with unsynced() as session:
        session.add(Supplier(id=1, tenant_id="acme", number="S", name="S"))
        session.commit()
    stop = time.monotonic() + SECONDS
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    keys, key_lock = iter(range(10, 10**7)), threading.Lock()
    done: dict[str, int] = {"posted": 0, "old": 0, "changed": 0, "runs": 0, "synced": 0, "snapshots": 0, "retries": 0}

    def next_key() -> int:
        with key_lock:
            return next(keys)

    def tried(work: Callable[[Session], object], factory: sessionmaker[Session]) -> bool:
        """As a host does it: a conflict is tried again, a few times."""
        for _ in range(10):
            try:
                with factory() as session:
                    work(session)
                    session.commit()
                    return True
            except DBAPIError as error:
                if fault_of(error) != "passing":
                    raise
                done["retries"] += 1
        return False

    def post(seed: int, factory: sessionmaker[Session], series: str, name: str) -> None:
        choose = random.Random(seed)
        while time.monotonic() < stop:

            def work(session: Session) -> None:
                for _ in range(choose.randrange(1, 6)):
                    amount = choose.randrange(1, 400)
                    posted(session, next_key(), choose.choice([amount, -amount]), series)

            done[name] += tried(work, factory)

    def change(seed: int) -> None:
        choose = random.Random(seed)
        while time.monotonic() < stop:

            def work(session: Session) -> None:
                newest = session.scalars(select(Entry.id).order_by(Entry.id.desc()).limit(1)).first() or 10
                entry = session.get(Entry, choose.randrange(10, newest + 1))
                if entry is None:
                    return
                what = choose.randrange(4)
                if what == 0:
                    entry.status = "draft" if entry.status == "posted" else "posted"
                elif what == 1:
                    line, contra = entry.lines[0], entry.lines[1]
                    amount = Decimal(choose.randrange(1, 400))
                    if line.credit:
                        line.credit = contra.debit = amount
                    else:
                        line.debit = contra.credit = amount
                elif what == 2:
                    entry.source_type, entry.source_id = None, None
                else:
                    session.delete(entry)

            done["changed"] += tried(work, attached)

    def backfill() -> None:
        while time.monotonic() < stop:
            with ThreadPoolExecutor(2) as two:
                report = sync.backfill(unsynced, tenant_id="acme", executor=two, workers=2)
            assert report.state == "completed", report
            done["runs"] += 1
            done["synced"] += report.synced

    def read() -> None:
        while time.monotonic() < stop:
            with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
                broken = look(connection, all_of_them=False)
                assert not broken, broken
            done["snapshots"] += 1

    workers: list[Callable[[], None]] = [
        lambda: post(seed, attached, "LIVE", "posted"),
        lambda: post(seed + 1, unsynced, "OLD", "old"),
        lambda: change(seed + 2),
        backfill,
        read,
    ]
    with ThreadPoolExecutor(len(workers)) as pool:
        for future in [pool.submit(worker) for worker in workers]:
            future.result()
    print(done)  # noqa: T201
    assert min(done[name] for name in ("posted", "old", "changed", "runs", "synced", "snapshots")) > 0, done
    sync.backfill(unsynced, tenant_id="acme")
    with engine.connect() as connection:
        assert not look(connection, all_of_them=True)
        proof = sync.verify(Session(connection), "acme")
    assert proof.clean, [finding for finding in proof.findings if finding.fault]
