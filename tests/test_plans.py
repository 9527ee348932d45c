"""What databases make of our statements: where an index serves, no table is read in full.

On SQLite, whatever the order in which indexes were made, what has two keys is not looked up by the tenant alone. On
every database each statement that a live posting sends into large books is explained.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.mentions import unposted
from ledger_sync.models import CustomerInvoice, CustomerPayment, JournalEntry, JournalLine, SourceLink
from ledger_sync.projection import project
from tests import books
from tests.benchmarks.books_at_scale import TENANT, analyse, clear, make
from tests.conftest import make_sqlite, schema_of_its_own
from tests.outcomes import fill
from tests.watching import listening

TENANT_INDEX = "ix_general_ledger_tenant_id_entry_date"
INDEXES = {
    "ix_general_ledger_source_type_source_id": "general_ledger (source_type, source_id)",
    TENANT_INDEX: "general_ledger (tenant_id, entry_date)",
    "by_tenant": "customer_invoices (tenant_id, invoice_date)",
}


@pytest.mark.parametrize("order", [1, -1], ids=["tenant-last", "tenant-first"])
def test_no_document_is_looked_up_by_its_tenant_alone(tmp_path: Path, order: int) -> None:
    engine = make_sqlite(tmp_path / "books.db")
    sync = LedgerSync()
    ledger = sync.binding.ledger("customer")
    document = ledger.documents[0]
    counted = select(func.count()).where(*unposted(sync.binding, sync.settings, ledger, document, document.model))
    projected = project(sync.binding, sync.settings, ledger)
    with engine.connect() as connection:
        for name, columns in list(INDEXES.items())[::order]:
            connection.execute(text(f"DROP INDEX IF EXISTS {name}"))
            connection.execute(text(f"CREATE INDEX {name} ON {columns}"))
        for query in (counted, projected):
            sql = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
            plan = [row[3] for row in connection.execute(text("EXPLAIN QUERY PLAN " + sql.replace(":", r"\:")))]
            assert any("SEARCH" in step for step in plan)
            assert not [step for step in plan if "(tenant_id=?)" in step]
    engine.dispose()


LARGE = {"general_ledger", "general_ledger_lines", "customer_ledger", "customer_invoices", "customer_payments"}
LARGE |= {"customer_applications"}
INVOICES = 6_000


@pytest.fixture(params=["sqlite", "sqlite without statistics", "postgresql", "mariadb"])
def large_books(request: pytest.FixtureRequest, sync: LedgerSync) -> Iterator[Engine]:
    database, _, without = request.param.partition(" ")
    engine: Engine = request.getfixturevalue(f"{database}_engine")
    make(engine, INVOICES)
    sync.backfill(sessionmaker(engine), tenant_id=TENANT)
    if database == "postgresql":
        with engine.begin() as connection:
            for table in ("general_ledger", "general_ledger_lines", "customer_invoices", "customer_payments"):
                numbered = f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"
                connection.execute(text(numbered))
    if without:
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS sqlite_stat1"))
    else:
        analyse(engine)
    engine.dispose()  # a connection reads the statistics of SQLite when it is opened
    yield engine
    clear(engine)


def scanned_by_postgresql(cursor: Any, statement: str, parameters: Any) -> Iterator[str]:
    def scanned(node: dict[str, Any]) -> Iterator[str]:
        if node["Node Type"] == "Seq Scan":
            yield node["Relation Name"]
        for child in node.get("Plans", ()):
            yield from scanned(child)

    cursor.execute("EXPLAIN (FORMAT JSON) " + statement, parameters)
    (plan,) = cursor.fetchone()
    yield from scanned(plan[0]["Plan"])


def scanned_by_sqlite(cursor: Any, statement: str, parameters: Any) -> Iterator[str]:
    cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters)
    for *_, detail in cursor.fetchall():
        if detail.startswith("SCAN "):
            yield re.sub(r"_\d+$", "", detail.split()[1])


def scanned_by_mariadb(cursor: Any, statement: str, parameters: Any) -> Iterator[str]:
    cursor.execute("EXPLAIN " + statement, parameters)
    for _, kind, alias, how, *_ in cursor.fetchall():
        if how in {"ALL", "index"} and alias is not None and kind != "INSERT":
            yield re.sub(r"_\d+$", "", alias)


SCANNED = {"sqlite": scanned_by_sqlite, "postgresql": scanned_by_postgresql, "mysql": scanned_by_mariadb}


@contextmanager
def read_in_full(engine: Engine) -> Iterator[list[str]]:
    """The large tables that statements of the block read in full, with the statement."""
    found: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if many or statement.split(maxsplit=1)[0] not in {"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"}:
            return
        with closing(cursor.connection.cursor()) as other:
            tables = list(SCANNED[engine.dialect.name](other, statement, parameters))
        found.extend(f"{table}: {' '.join(statement.split())[:200]}" for table in tables if table in LARGE)

    with listening(engine, "before_cursor_execute", explain):
        yield found


def posts_an_invoice(session: Session, sync: LedgerSync) -> None:
    invoice = books.customer_invoice(session, tenant=TENANT, party="5", payment_reference="2345676")
    books.entry(session, "1500", 100, ("customer_invoice", invoice.id), tenant=TENANT, voucher_number="900001")


def posts_a_payment(session: Session, sync: LedgerSync) -> None:
    payment = books.customer_payment(session, tenant=TENANT, party="5", payment_reference="2345676")
    books.entry(session, "1500", -100, ("customer_payment", payment.id), tenant=TENANT, voucher_number="900002")


def edits_an_invoice(session: Session, sync: LedgerSync) -> None:
    invoice = session.get_one(CustomerInvoice, 77)
    invoice.payment_reference, invoice.due_date = "2345676", date(2026, 5, 1)


def reverses_an_entry(session: Session, sync: LedgerSync) -> None:
    session.add(session.get_one(JournalEntry, 78).reverse(date(2027, 1, 1), voucher_number="900003"))


def links_a_line(session: Session, sync: LedgerSync) -> None:
    session.get_one(JournalEntry, 79).lines[0].link = SourceLink(source_type="customer_invoice", source_id=80)


def deletes_an_invoice(session: Session, sync: LedgerSync) -> None:
    session.delete(books.customer_invoice(session, tenant=TENANT, party="5"))


@pytest.mark.parametrize(
    "action",
    [posts_an_invoice, posts_a_payment, edits_an_invoice, reverses_an_entry, links_a_line, deletes_an_invoice],
)
def test_a_live_posting_reads_no_large_table_in_full(
    large_books: Engine, sync: LedgerSync, action: Callable[[Session, LedgerSync], None]
) -> None:
    factory = sessionmaker(large_books)
    sync.attach(factory)
    with factory() as session:
        with read_in_full(large_books) as found:
            action(session, sync)
            session.flush()
        session.rollback()
    assert found == []


# -- without statistics ------------------------------------------------------------------------------------


def rows_handled(node: dict[str, Any]) -> float:
    """How many rows a plan that was run looked at, whatever became of them."""
    removed = ("Rows Removed by Filter", "Rows Removed by Join Filter")
    rows = node["Actual Rows"] + sum(node.get(why, 0) for why in removed)
    return float(rows * node["Actual Loops"]) + sum(rows_handled(child) for child in node.get("Plans", ()))


@contextmanager
def work_of(engine: Engine) -> Iterator[list[float]]:
    """How many rows each statement of the block looks at: it is run, rolled back, and run again."""
    handled: list[float] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.split(maxsplit=1)[0] in {"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"}:
            with closing(cursor.connection.cursor()) as other:
                other.execute("SAVEPOINT explained")
                other.execute("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + statement, parameters)
                ((plan,),) = other.fetchone()
                other.execute("ROLLBACK TO SAVEPOINT explained")
            handled.append(rows_handled(plan["Plan"]))

    with listening(engine, "before_cursor_execute", explain):
        yield handled


def flush_of(session: Session, count: int, kind: str) -> None:
    """So many invoices, or payments that each settle one, in one flush."""
    of_invoices = kind == "customer_invoice"
    parties = [books.customer(session, number=f"C{number}") for number in range(count // 5)]
    made: list[CustomerInvoice | CustomerPayment] = []
    for number in range(count):
        values = {"customer": parties[number // 5], "amount": Decimal(100), "payment_reference": f"K{number}"}
        if of_invoices:
            invoice = CustomerInvoice(tenant_id="acme", invoice_number=f"N{number}", invoice_date=books.DAY, **values)
            made.append(invoice)
        else:
            made.append(CustomerPayment(tenant_id="acme", payment_date=books.DAY, **values))
    session.add_all(made)
    session.flush()
    debit, credit = (Decimal(100), Decimal(0)) if of_invoices else (Decimal(0), Decimal(100))
    for number, document in enumerate(made):
        entry = JournalEntry(tenant_id="acme", voucher_number=f"{kind} {number}", entry_date=books.DAY)
        entry.source_type, entry.source_id = kind, document.id
        entry.lines = [
            JournalLine(account_number="1500", debit=debit, credit=credit),
            JournalLine(account_number="3000", debit=credit, credit=debit),
        ]
        entry.post()
        session.add(entry)


@pytest.mark.parametrize("kind", ["customer_invoice", "customer_payment"])
def test_without_statistics_the_work_of_a_flush_grows_with_its_size_not_with_the_square(
    postgresql_url: str, sync: LedgerSync, kind: str
) -> None:
    work: dict[int, float] = {}
    for count in (150, 600):
        with schema_of_its_own(postgresql_url) as engine:  # tables that were never analysed
            factory = sessionmaker(engine)
            sync.attach(factory)
            if kind == "customer_payment":
                with factory() as session:
                    flush_of(session, count, "customer_invoice")
                    session.commit()
            with factory() as session:
                flush_of(session, count, kind)
                with work_of(engine) as handled:
                    session.flush()
                session.rollback()
            work[count] = sum(handled)
    assert work[600] < 6 * work[150]


def rows_read(session: Session) -> int:
    """How many rows MariaDB has read for this connection so far."""
    status = text("SHOW SESSION STATUS LIKE 'Handler_read%'")
    return sum(int(value) for _, value in session.connection().execute(status))


def test_nor_does_it_on_mariadb_by_the_statistics_of_empty_tables(mariadb_engine: Engine, sync: LedgerSync) -> None:
    """Its statistics of a table that grows are those of a while ago, when it may have been empty."""
    factory = sessionmaker(mariadb_engine)
    sync.attach(factory)
    work: dict[int, int] = {}
    for count in (150, 600):
        tables = ("general_ledger_lines", "general_ledger", "customer_payments", "customer_invoices", "customer_ledger")
        with mariadb_engine.begin() as connection:
            for table in tables:
                connection.execute(text(f"ANALYZE TABLE {table}"))
        with factory() as session:
            flush_of(session, count, "customer_invoice")
            session.flush()
            flush_of(session, count, "customer_payment")
            before = rows_read(session)
            session.flush()
            work[count] = rows_read(session) - before
            session.rollback()
    assert work[600] < 6 * work[150]


@pytest.mark.parametrize("counted_from", [5, 1_000])
def test_a_run_has_postgresql_count_what_it_wrote_for_a_tenant_when_that_is_much(
    postgresql_engine: Engine, monkeypatch: pytest.MonkeyPatch, counted_from: int
) -> None:
    """A tenant that the planner takes for one row is proved in time with the square of the books."""
    monkeypatch.setattr("ledger_sync.closing.COUNTED_FROM", counted_from)
    made = sessionmaker(postgresql_engine)
    fill(made, "acme", 12)
    with postgresql_engine.begin() as connection:
        connection.exec_driver_sql("UPDATE pg_class SET reltuples = -1 WHERE oid = CAST('supplier_ledger' AS regclass)")
    LedgerSync().backfill(made, tenant_id="acme")
    known = "SELECT reltuples FROM pg_class WHERE oid = CAST('supplier_ledger' AS regclass)"
    with postgresql_engine.connect() as connection:
        assert connection.scalar(text(known)) == (12 if counted_from == 5 else -1)


@contextmanager
def steps_of(session: Session) -> Iterator[list[int]]:
    """How many hundred steps SQLite's machine takes in the block, as the one element of a list."""
    taken = [0]

    def counted() -> None:
        taken[0] += 1

    connection: Any = session.connection().connection.driver_connection
    connection.set_progress_handler(counted, 100)
    yield taken
    connection.set_progress_handler(None, 0)


@pytest.mark.parametrize("statistics", [False, True])
def test_a_posting_into_a_settlement_group_takes_work_that_grows_with_the_group_not_with_its_square(
    tmp_path: Path, sync: LedgerSync, statistics: bool
) -> None:
    """By statistics in which all applications are of one invoice, those of an item look as dear as all of them."""
    work: dict[int, int] = {}
    for count in (200, 800):
        engine = make_sqlite(tmp_path / f"{count}.db")
        factory = sessionmaker(engine)
        sync.attach(factory)
        with factory() as session:
            invoice = books.customer_invoice(session, 10 * count, payment_reference="K1")
            books.entry(session, "1500", 10 * count, ("customer_invoice", invoice.id))
            payments = [CustomerPayment(tenant_id="acme", customer_id=invoice.customer_id) for _ in range(count)]
            for payment in payments:
                payment.payment_date, payment.payment_reference, payment.amount = books.DAY, "K1", Decimal(1)
            session.add_all(payments)
            session.flush()
            for payment in payments:
                books.entry(session, "1500", -1, ("customer_payment", payment.id))
            session.commit()
        if statistics:
            analyse(engine)
        engine.dispose()  # a connection reads the statistics of SQLite when it is opened
        for _ in range(2):  # first what is done once, to build the statements
            with factory() as session:
                payment = books.customer_payment(session, 1, payment_reference="K1")
                books.entry(session, "1500", -1, ("customer_payment", payment.id))
                with steps_of(session) as taken:
                    session.flush()
                session.rollback()
            work[count] = taken[0]
        sync.detach(factory)
        engine.dispose()
    assert work[800] < 6 * work[200]


def test_settling_takes_no_maximum_over_a_window(mariadb_engine: Engine, sync: LedgerSync) -> None:
    """MariaDB works one out anew for each row: ten thousand items of a group took it seven seconds, now half of one."""
    sent: list[str] = []
    factory = sessionmaker(mariadb_engine)
    fill(factory, "acme", 12)
    with listening(mariadb_engine, "before_cursor_execute", lambda *arguments: sent.append(arguments[2])):
        assert sync.backfill(factory, tenant_id="acme").clean
    assert any("first_value(" in statement for statement in sent)
    assert not [statement for statement in sent if re.search(r"\b(max|min)\([^()]*\) OVER", statement, re.IGNORECASE)]
