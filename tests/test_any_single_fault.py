"""Any single fault is clean: statement k fails, before or after it is done, for k = 1, 2, … until there is none left.

After each fault the books are as they were, or as they would have become without it; both were held against the
independent oracles, so what is stored is always what they say. Signals tell of nothing that was not committed. The same
done again, or the run resumed, ends as if nothing had happened. A fault may be a statement that fails, a COMMIT that is
refused, a COMMIT whose reply is lost, a full disk (SQLite), or a connection that the server ends (PostgreSQL).

What a host does in one transaction and runs are swept in full on SQLite; on PostgreSQL there is a sample, whose
beginning is drawn from a printed seed. The long profile does everything everywhere. Where a check must be quick, of a
run's statements on SQLite each ninth meets a fault.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, Table, event, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import Document, Ledger, LedgerSync, RunReport, Settings
from ledger_sync.dialects import open_engine
from ledger_sync.errors import LedgerSyncError, RunStateError
from ledger_sync.models import (
    Base,
    CustomerInvoice,
    CustomerLedger,
    JournalEntry,
    SourceLink,
    SyncError,
    SyncRun,
)
from tests import books, test_adoption
from tests.budget import SHORT, at_length
from tests.faults import When, disk_full, fault
from tests.oracle import Rules, assert_synced, expected_items, read_books, read_items
from tests.settlement_oracle import assert_settled
from tests.watching import hearing

WHO: dict[str, Any] = {"actor": "kari", "reason": "test"}
SMALL = Settings(batch_lines_max=2, batch_lines_start=2, segment_lines_max=4, writers_seconds_max=0)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

Work = Callable[[LedgerSync, Session], object]
Act = Callable[[], object]


# -- the world that is put back ------------------------------------------------------------------------


class World:
    """A database whose rows are kept, and put back before every fault."""

    NOT_OF_THE_BOOKS = ("ledger_sync_locks", "ledger_sync_runs", "ledger_sync_segments", "ledger_sync_errors")
    OWN_KEY = ("_ledger", "_applications", "_items", "_tombstones", "_links", "_decisions")
    TRACES = ("created_at", "updated_at", "run_id", "posted_at", "removed_at", "row")

    def __init__(self, engine: Engine, metadata: MetaData = Base.metadata) -> None:
        self.engine = engine
        self.tables: Sequence[Table] = metadata.sorted_tables
        self.kept: dict[Table, list[dict[str, Any]]] = {}
        self._emptied()

    def _emptied(self) -> None:
        with self.engine.begin() as connection:
            if mariadb := connection.dialect.name == "mysql":  # it looks at reversals row by row
                connection.execute(text("SET foreign_key_checks = 0"))
            for table in reversed(self.tables):
                connection.execute(table.delete())
            if mariadb:
                connection.execute(text("SET foreign_key_checks = 1"))

    def keep(self) -> None:
        """Remember every row."""
        with self.engine.connect() as connection:
            for table in self.tables:
                rows = connection.execute(select(table).order_by(*table.primary_key))
                self.kept[table] = [dict(row._mapping) for row in rows]

    def put_back(self) -> None:
        """Make every row what it was. Keys that were drawn since then stay drawn."""
        self._emptied()
        with self.engine.begin() as connection:
            for table, rows in self.kept.items():
                if rows:
                    connection.execute(insert(table), rows)

    def state(self) -> dict[str, Counter[str]]:
        """All rows of the books, without what tells when they were written, by which run and under which key."""
        found = {}
        with self.engine.connect() as connection:
            for table in self.tables:
                if table.name in self.NOT_OF_THE_BOOKS:
                    continue
                traces = (*self.TRACES, *(("id",) if table.name.endswith(self.OWN_KEY) else ()))
                rows = connection.execute(select(table))
                found[table.name] = Counter(
                    str({name: value for name, value in row._mapping.items() if name not in traces}) for row in rows
                )
        return found

    def check(self) -> None:
        """The independent oracles say the same."""
        with self.engine.connect() as connection:
            assert_synced(connection)
            assert_settled(connection)


def customer_books(session: Session) -> None:
    """Two invoices, a payment that settles one in part, one that names nothing, and one that names nothing yet."""
    for key, amount in ((1, 100), (2, 50)):
        numbers = {"invoice_number": f"N{key}", "payment_reference": f"KID{key}"}
        books.customer_invoice(session, amount, id=key, **numbers)
        post(session, 100 + key, "1500", amount, ("customer_invoice", key))
    for key, amount, reference in ((1, 30, "KID1"), (2, 60, None), (3, 10, "LATER")):
        books.customer_payment(session, amount, id=key, payment_reference=reference)
        post(session, 110 + key, "1500", -amount, ("customer_payment", key))


def supplier_books(session: Session) -> None:
    """A line without a source that fits an invoice, and a linked line that a payment settles."""
    books.vendor_invoice(session, 70, id=1, invoice_number="8907")
    post(session, 121, "2400", -70, None, description="Invoice 8907")
    books.vendor_invoice(session, 80, id=2, invoice_number="8908", payment_reference="KID8908")
    linked = post(session, 122, "2400", -80, None)
    linked.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=2, method="host")
    books.vendor_payment(session, 80, id=1, payment_reference="KID8908")
    post(session, 123, "2400", 80, ("vendor_payment", 1))


def post(
    session: Session, key: int, account: str, signed: int, source: tuple[str, int] | None, **more: Any
) -> JournalEntry:
    """An entry under a key of its own, so that it has the same one when it is posted again."""
    entry = books.entry(session, account, signed, source, id=key, voucher_number=str(key), **more)
    for number, line in enumerate(entry.lines):
        line.id = 10 * key + number
    session.flush()
    return entry


def customer_item(session: Session, key: int) -> CustomerLedger:
    """The open item of an entry."""
    return session.scalars(select(CustomerLedger).where(CustomerLedger.general_ledger_id == key)).one()


# -- what a host does in one transaction -----------------------------------------------------------------


def post_an_invoice(sync: LedgerSync, session: Session) -> None:
    books.customer_invoice(session, 40, id=9, invoice_number="N9", payment_reference="KID9")
    post(session, 109, "1500", 40, ("customer_invoice", 9))


def post_a_payment_that_settles(sync: LedgerSync, session: Session) -> None:
    books.customer_payment(session, 120, id=9, payment_reference="KID1")
    post(session, 119, "1500", -120, ("customer_payment", 9))


def reverse_a_payment(sync: LedgerSync, session: Session) -> None:
    reversal = session.get_one(JournalEntry, 111).reverse(books.DAY)
    reversal.id = 131
    for number, line in enumerate(reversal.lines):
        line.id = 1310 + number
    session.add(reversal)


def edit_a_document(sync: LedgerSync, session: Session) -> None:
    invoice = session.get_one(CustomerInvoice, 1)
    invoice.payment_reference, invoice.due_date = "LATER", date(2026, 4, 30)


def link_in_a_flush(sync: LedgerSync, session: Session) -> None:
    session.add(SourceLink(line_id=1210, source_type="vendor_invoice", source_id=1, method="host"))


def link(sync: LedgerSync, session: Session) -> None:
    sync.link(session, "acme", 1210, "vendor_invoice", 1, idempotency_key="linked", **WHO)


def unlink(sync: LedgerSync, session: Session) -> None:
    sync.unlink(session, "acme", 1220, idempotency_key="unlinked", **WHO)


def match(sync: LedgerSync, session: Session) -> None:
    for proposal in sync.match(session, "acme").certain:
        (candidate,) = proposal.candidates
        sync.link(session, "acme", proposal.general_ledger_line_id, candidate.document, candidate.document_id, **WHO)


def settle(sync: LedgerSync, session: Session, amount: int = 45, key: str = "settled") -> None:
    items = customer_item(session, 112), customer_item(session, 101)
    sync.settle(session, *items, amount, books.DAY, idempotency_key=key, **WHO)


def unsettle(sync: LedgerSync, session: Session) -> None:
    items = customer_item(session, 112), customer_item(session, 101)
    sync.unsettle(session, *items, books.DAY, idempotency_key="unsettled", **WHO)


def pin(sync: LedgerSync, session: Session) -> None:
    items = customer_item(session, 111), customer_item(session, 101)
    sync.unsettle(session, *items, books.DAY, idempotency_key="pinned", **WHO)


def release(sync: LedgerSync, session: Session) -> None:
    items = customer_item(session, 111), customer_item(session, 101)
    sync.release(session, *items, books.DAY, idempotency_key="released", **WHO)


def sync_entries(sync: LedgerSync, session: Session) -> None:
    """A payment comes and a line's link goes, past the hook."""
    books.customer_payment(session, 120, id=9, payment_reference="KID1")
    with sync.paused(session):
        post(session, 119, "1500", -120, ("customer_payment", 9))
        session.connection().execute(text("DELETE FROM ledger_source_links WHERE line_id = 1220"))
    sync.sync_entries(session, [119, 122])


def nothing(sync: LedgerSync, session: Session) -> None:
    """No preparation."""


HOSTS: dict[str, tuple[Work, Work]] = {
    "an invoice": (nothing, post_an_invoice),
    "a payment that settles": (nothing, post_a_payment_that_settles),
    "a reversal": (nothing, reverse_a_payment),
    "a document's edit": (nothing, edit_a_document),
    "a link in a flush": (nothing, link_in_a_flush),
    "link": (nothing, link),
    "unlink": (nothing, unlink),
    "match and link": (nothing, match),
    "settle": (nothing, settle),
    "unsettle": (settle, unsettle),
    "pin": (nothing, pin),
    "release": (pin, release),
    "sync_entries": (nothing, sync_entries),
}


# -- the sweep -------------------------------------------------------------------------------------------


@contextmanager
def heard(sync: LedgerSync) -> Iterator[list[str]]:
    """What a sync tells after commits: the signals with the lines that they are about."""
    said: list[str] = []

    def hear(name: str, about: Any) -> None:
        said.append(f"{name} {about.get('general_ledger_line_id')} {about.get('settled_amount')}")

    with hearing(sync, hear):
        yield said


@dataclass
class Sweep:
    """What happens without a fault, and whether one leaves either that or nothing."""

    world: World
    sync: LedgerSync
    act: Act
    check: Callable[[], None]
    mend: Act | None = None

    def __post_init__(self) -> None:
        self.world.put_back()
        self.before = self.world.state()
        self.check()
        with fault(self.world.engine, 0, "before") as met, heard(self.sync) as said:
            self.act()
        self.count, self.said = met.count, said
        self.after = self.world.state()
        assert self.after != self.before
        self.check()

    def with_a_fault(self, where: str, failing: Any) -> bool:
        """One fault, then the same again; whether the fault was noticed."""
        self.world.put_back()
        noticed = False
        with heard(self.sync) as said:
            try:
                with failing:
                    self.act()
            except SQLAlchemyError:
                noticed = True
        now = self.world.state()
        if self.mend is not None and any(what.startswith("sync-failed") for what in said):
            # recorded: the posting is kept, and a backfill writes what lacks
            assert not noticed, where
            self.mend()
            assert self.world.state() == self.after, f"{where}: a backfill does not write what was recorded"
            return True
        assert now in (self.before, self.after), f"{where}: neither before nor after"
        assert noticed or now == self.after, f"{where}: nothing was done, and nobody was told"
        # at most once: who does not know of the commit cannot tell of it
        assert said == ([] if noticed else self.said), f"{where}: {said}"
        try:
            self.act()
        except (LedgerSyncError, IntegrityError):
            assert now == self.after, f"{where}: refused though it was not done"
        assert self.world.state() == self.after, f"{where}: the same again is not what it would have been"
        return noticed

    def all_statements(self, kind: str, step: int) -> int:
        """Each statement and commit, before and after; with a step only each so many, from one that is drawn."""
        seed = random.randrange(10**6)
        print(f"seed {seed}, {self.count} statements and commits, every {step}, {kind}")  # noqa: T201
        first = random.Random(seed).randrange(1, step + 1)
        whens: tuple[When, ...] = ("before", "after")
        # the COMMIT is the last, and is always among them
        numbers = sorted({*range(first, self.count + 1, step), self.count})
        for number in numbers:
            for when in whens:
                met_fault = fault(self.world.engine, number, when, kind)
                self.with_a_fault(f"{kind} {when} statement {number} of {self.count}", met_fault)
        return 2 * len(numbers)

    def full_disk(self) -> int:
        """A disk with room for 0, 1, 2, … pages more, until it is enough."""
        for pages in range(10_000):
            if not self.with_a_fault(f"room for {pages} pages", disk_full(self.world.engine, pages)):
                return pages
        raise AssertionError("there is never enough room")


def swept(engine: Engine, name: str, settings: Settings | None = None) -> Sweep:
    sync = LedgerSync(settings)
    factory = sessionmaker(engine)
    sync.attach(factory)
    world = World(engine)
    prepare, work = HOSTS[name]
    with factory() as session:
        customer_books(session)
        supplier_books(session)
        session.commit()
        prepare(sync, session)
        session.commit()
    world.keep()

    def act() -> None:
        with factory() as session:
            work(sync, session)
            session.commit()

    def mend() -> None:
        report = sync.backfill(sessionmaker(engine), tenant_id="acme")
        assert report.clean
        with factory() as session:
            assert all(note.resolved_at is not None for note in session.scalars(select(SyncError)))

    return Sweep(world, sync, act, world.check, mend if sync.settings.on_error == "record" else None)


@pytest.mark.parametrize("name", HOSTS)
def test_a_statement_that_fails_leaves_all_of_a_transaction_or_nothing(sqlite_engine: Engine, name: str) -> None:
    assert swept(sqlite_engine, name).all_statements("refused", 1) > 10


@pytest.fixture(params=["postgresql", "mariadb"])
def server_engine(request: pytest.FixtureRequest) -> Engine:
    """A server, of each kind."""
    chosen: Engine = request.getfixturevalue(f"{request.param}_engine")
    return chosen


KINDS = [
    (name, kind) for n, name in enumerate(HOSTS) for m, kind in enumerate(("passing", "cut")) if not SHORT or n % 2 == m
]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_on_a_server_a_failure_or_a_connection_cut_leaves_all_of_a_transaction_or_nothing(
    server_engine: Engine, name: str, kind: str
) -> None:
    assert swept(server_engine, name).all_statements(kind, at_length(5, 1, 19)) > 1


@pytest.mark.parametrize("name", ["an invoice", "a payment that settles"])
def test_what_fails_and_is_recorded_is_kept_and_written_later(sqlite_engine: Engine, name: str) -> None:
    assert swept(sqlite_engine, name, Settings(on_error="record")).all_statements("refused", 1) > 10


@pytest.fixture
def small_pages(tmp_path: Path) -> Iterator[Engine]:
    """An SQLite file of small pages, so that it must grow again and again."""
    engine = open_engine(f"sqlite:///{tmp_path / 'books.db'}")

    @event.listens_for(engine, "connect")
    def _small(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA page_size = 512")
        connection.execute("PRAGMA auto_vacuum = FULL")
        connection.execute("PRAGMA synchronous = OFF")

    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("on_error", ["raise", "record"])
@pytest.mark.parametrize("name", ["a payment that settles", "a reversal"])
def test_a_full_disk_leaves_all_of_a_transaction_or_nothing(small_pages: Engine, name: str, on_error: Any) -> None:
    assert swept(small_pages, name, Settings(on_error=on_error)).full_disk() > 0


# -- rows from before --------------------------------------------------------------------------------------


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_fault_leaves_all_of_an_adoption_or_nothing(request: pytest.FixtureRequest, database: str) -> None:
    engine: Engine = request.getfixturevalue(f"{database}_engine")
    tables = [m.__table__ for m in (test_adoption.Item, test_adoption.Line, test_adoption.Entry)]
    tables += [m.__table__ for m in (test_adoption.Invoice, test_adoption.Payment)]
    sync, factory = adopting_sync(), sessionmaker(engine)
    test_adoption.Base.metadata.create_all(engine)
    try:
        world = World(engine, test_adoption.Base.metadata)
        with factory() as session:
            for number, amounts in enumerate([(100,), (70, 30), (40,)]):
                entry = test_adoption.posted(session, *amounts, number=f"F-{number}")
                for amount in amounts:
                    test_adoption.old_row(session, entry, amount, left=0)
            session.commit()
        world.keep()

        def act() -> None:
            with factory() as session:
                sync.adopt(session, "acme")
                session.commit()

        sweep = Sweep(world, sync, act, lambda: None)
        with factory() as session:
            assert sync.verify(session, "acme").clean
        step = 1 if database == "sqlite" else at_length(3, 1, 13)
        assert sweep.all_statements("refused" if database == "sqlite" else "cut", step) > 1
    finally:
        test_adoption.Base.metadata.drop_all(engine, tables=tables)


def adopting_sync() -> LedgerSync:
    documents = (
        Document.of("vendor_invoice", test_adoption.Invoice, "invoice", "vendor_id"),
        Document.of("vendor_payment", test_adoption.Payment, "payment", "vendor_id"),
    )
    ledger = Ledger(name="supplier", documents=documents, item=test_adoption.Item)
    return LedgerSync(test_adoption.SETTINGS, entry=test_adoption.Entry, line=test_adoption.Line, ledgers=[ledger])


# -- what commits again and again ------------------------------------------------------------------------


def nothing_wrong(engine: Engine) -> None:
    """In the middle of a run: every row that there is, is what it must be; none is there without its line."""
    with engine.connect() as connection:
        expected = expected_items(read_books(connection), Rules())
        for place, item in read_items(connection).items():
            assert expected.get(place) == item, place


def counts(report: RunReport) -> Any:
    return report.state, report.clean, [stage.model_dump() for stage in report.stages]


def newest(sync: LedgerSync, factory: sessionmaker[Session]) -> RunReport | None:
    with factory() as session:
        return next(iter(sync.runs(session, "acme", limit=1)), None)


@dataclass
class SweepOfRun:
    """A backfill or a repair in small batches, with one fault at a time."""

    world: World
    sync: LedgerSync
    kind: str

    def __post_init__(self) -> None:
        self.factory = sessionmaker(self.world.engine)
        self.run()  # builds the statements
        self.world.put_back()
        with fault(self.world.engine, 0, "before") as met:
            report = self.run()
        self.count, self.expected = met.count, counts(report)
        self.after = self.world.state()
        assert report.clean
        self.world.check()

    def run(self) -> RunReport:
        if self.kind == "backfill":
            return self.sync.backfill(self.factory, tenant_id="acme", on_progress=lambda progress: None)
        return self.sync.repair(self.factory, tenant_id="acme")

    def again(self) -> RunReport:
        """As somebody does it who was told of an error: the run is resumed, or done again if there is none."""
        found = newest(self.sync, self.factory)
        if found is None or self.kind == "repair":
            with self.world.engine.begin() as connection:
                connection.execute(update(SyncRun).values(lease_until=LONG_AGO))
            return self.run()
        return self.sync.resume(self.factory, found.run_id or 0)

    def with_a_fault(self, where: str, failing: Any, *, passing: bool = False) -> bool:
        self.world.put_back()
        noticed = False
        try:
            with failing:
                report = self.run()
        except (DBAPIError, RunStateError):
            noticed = True
            assert not passing, f"{where}: what passes is not noticed"
            if self.kind == "backfill":
                nothing_wrong(self.world.engine)
            report = self.again()
        assert self.world.state() == self.after, f"{where}: not what it would have been"
        # a repair that is done again has less to do
        if self.kind == "backfill" or not noticed:
            assert counts(report) == self.expected, f"{where}: {report}"
        assert report.clean, where
        return noticed

    def all_statements(self, kind: str, step: int) -> int:
        seed = random.randrange(10**6)
        print(f"seed {seed}, {self.count} statements and commits, every {step}, {kind}")  # noqa: T201
        first = random.Random(seed).randrange(1, step + 1)
        number, done = first, 0
        while number <= self.count:
            # the faults before and after take turns, unless every statement is to meet both
            whens: tuple[When, ...] = ("before", "after")
            for when in whens if step == 1 else [whens[done % 2]]:
                failing = fault(self.world.engine, number, when, kind)
                where = f"{kind} {when} statement {number} of {self.count}"
                self.with_a_fault(where, failing, passing=kind != "refused")
            number, done = number + step, done + 1
        return done


def swept_run(engine: Engine, kind: str) -> SweepOfRun:
    sync = LedgerSync(SMALL)
    attached = sessionmaker(engine)
    world = World(engine)
    if kind == "repair":
        sync.attach(attached)
    with attached() as session:
        customer_books(session)
        supplier_books(session)
        session.commit()
        if kind == "repair":
            for plant in PLANTED:
                session.execute(text(plant))
            session.commit()
    world.keep()
    return SweepOfRun(world, sync, kind)


PLANTED = (
    "DELETE FROM customer_ledger WHERE general_ledger_id = 102",
    "UPDATE customer_ledger SET amount = amount + 1, remaining_amount = remaining_amount + 1 "
    "WHERE general_ledger_id = 101",
    "UPDATE customer_ledger SET status = 'open', remaining_amount = amount WHERE general_ledger_id = 111",
    "UPDATE supplier_ledger SET general_ledger_line_id = 4711 WHERE general_ledger_id = 122",
)
"""A row that lacks, one of another amount, one that says it is open, and one without its line."""


@pytest.mark.parametrize("kind", ["refused", "passing"])
@pytest.mark.parametrize("run", ["backfill", "repair"])
def test_a_run_that_met_a_fault_ends_as_if_it_had_not(sqlite_engine: Engine, run: str, kind: str) -> None:
    assert swept_run(sqlite_engine, run).all_statements(kind, at_length(1, 1, 9)) > 10


@pytest.mark.parametrize(("run", "kind"), [("backfill", "cut"), ("repair", "cut"), ("backfill", "passing")])
def test_on_a_server_a_run_that_met_a_fault_ends_as_if_it_had_not(server_engine: Engine, run: str, kind: str) -> None:
    assert swept_run(server_engine, run).all_statements(kind, at_length(13, 1, 61)) > 1


@pytest.mark.parametrize("run", ["backfill", "repair"])
def test_a_run_that_met_a_full_disk_ends_as_if_it_had_not(small_pages: Engine, run: str) -> None:
    sweep = swept_run(small_pages, run)
    pages = 0
    while sweep.with_a_fault(f"room for {pages} pages", disk_full(sweep.world.engine, pages)):
        pages += 1
    assert pages > 0
