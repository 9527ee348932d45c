"""An invoice and its payment posted by two transactions at once settle each other, whichever commits first.

The steps of the two are staged in every order on real connections. A step that has to wait for the other
transaction is seen waiting in the server's own lock table, and the other goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from itertools import combinations
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.errors import SettlementError
from ledger_sync.models import CustomerLedger, CustomerPayment
from tests.books import customer, customer_invoice, customer_payment, entry
from tests.conftest import schema_of_its_own

Step = Callable[[Session], object]
WHO: dict[str, Any] = {"actor": "kari", "reason": "test"}


def is_blocked(connection: Connection, pid: int) -> bool:
    """Whether the server has a session waiting for a lock."""
    if connection.dialect.name == "postgresql":
        query = text("SELECT count(*) FROM pg_locks WHERE pid = :pid AND NOT granted")
        return bool(connection.scalar(query, {"pid": pid}))
    # the tables that tell of transactions are not made anew while somebody keeps asking for them
    told = connection.execute(text("SHOW ENGINE INNODB STATUS")).one().Status
    return any(f"thread id {pid}," in part and "LOCK WAIT" in part for part in told.split("---TRANSACTION"))


def waits(engine: Engine, session: Session, done: Future[object]) -> bool:
    """Whether a step, begun in a thread, is seen waiting for a lock; False once it is done."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not done.done():
            if is_blocked(connection, session.info["pid"]):
                return True
    return False


def staged(
    engine: Engine, sessions: list[Session], order: list[int], steps: list[list[Step]]
) -> list[Exception | None]:
    """Run the steps of two transactions in an order; a transaction whose step waits is passed over until it is done."""
    pending: list[Future[object] | None] = [None, None]
    failures: list[Exception | None] = [None, None]
    left = [list(own) for own in steps]

    def collect(which: int) -> None:
        running = pending[which]
        if running is None:
            return
        pending[which] = None
        try:
            running.result()
        except (DBAPIError, SettlementError) as error:
            failures[which] = error
            sessions[which].rollback()
            left[which].clear()

    with ThreadPoolExecutor(2) as pool:
        queue = list(order)
        while queue or any(left) or any(pending):
            which = next((n for n in queue if pending[n] is None), None)
            if which is None:
                which = next((n for n in (0, 1) if pending[n] is None and left[n]), None)
            else:
                queue.remove(which)
            if which is not None and left[which]:
                pending[which] = pool.submit(left[which].pop(0), sessions[which])
            for n in (0, 1):
                running = pending[n]
                if running is not None and not waits(engine, sessions[n], running):
                    collect(n)
    return failures


def post_invoice(session: Session) -> None:
    invoice = session.info["document"]
    entry(session, "1500", 100, ("customer_invoice", invoice.id))
    session.flush()


def insert_invoice(session: Session) -> None:
    session.info["document"] = customer_invoice(session, 100, payment_reference="18")


def insert_payment(session: Session) -> None:
    session.info["document"] = customer_payment(session, 100, payment_reference="18")


def post_payment(session: Session) -> None:
    entry(session, "1500", -100, ("customer_payment", session.info["document"].id))
    session.flush()


def commit(session: Session) -> None:
    session.commit()


ORDERS = [[0 if place in chosen else 1 for place in range(6)] for chosen in combinations(range(6), 3)]


def opened(factory: sessionmaker[Session], isolation: str) -> Session:
    """A session in a transaction that has read, so that a snapshot is one of before."""
    session = factory()
    connection = session.connection(execution_options={"isolation_level": isolation})
    pid = "pg_backend_pid()" if connection.dialect.name == "postgresql" else "connection_id()"
    session.info["pid"] = connection.exec_driver_sql(f"SELECT {pid}, count(*) FROM customers").one()[0]
    return session


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "".join("IP"[n] for n in order))
def test_invoice_and_payment_never_miss_each_other(server: Engine, order: list[int], isolation: str) -> None:
    sync = LedgerSync()
    factory = sessionmaker(server, expire_on_commit=False)
    sync.attach(factory)
    with factory.begin() as session:
        customer(session)
    sessions = [opened(factory, isolation) for _ in range(2)]
    steps = [[insert_invoice, post_invoice, commit], [insert_payment, post_payment, commit]]
    failures = staged(server, sessions, order, steps)
    for session in sessions:
        session.close()
    if isolation == "READ COMMITTED":
        assert failures == [None, None]
    for which, failure in enumerate(failures):
        if failure is not None:  # raised rather than missed: the host tries again
            with factory() as session:
                for step in steps[which]:
                    step(session)
    with factory() as session:
        rows = session.scalars(select(CustomerLedger).order_by(CustomerLedger.amount)).all()
        assert [(row.amount, row.remaining_amount, row.status) for row in rows] == [
            (Decimal(-100), 0, "paid"),
            (Decimal(100), 0, "paid"),
        ]
        assert sync.verify(session, "acme").clean


@pytest.mark.parametrize("order", [[0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 1]])
def test_two_sessions_never_settle_more_of_an_item_than_there_is(server: Engine, order: list[int]) -> None:
    sync = LedgerSync()
    factory = sessionmaker(server, expire_on_commit=False)
    sync.attach(factory)
    with factory.begin() as session:
        invoice = customer_invoice(session, 100)
        entry(session, "1500", 100, ("customer_invoice", invoice.id))
        for amount in (80, 70):
            payment = customer_payment(session, amount)
            entry(session, "1500", -amount, ("customer_payment", payment.id))

    def settle(which: int) -> Step:
        def step(session: Session) -> None:
            rows = session.scalars(select(CustomerLedger).order_by(CustomerLedger.amount.desc())).all()
            sync.settle(session, rows[2 - which], rows[0], 70, **WHO)

        return step

    sessions = [opened(factory, "READ COMMITTED") for _ in range(2)]
    failures = staged(server, sessions, order, [[settle(0), commit], [settle(1), commit]])
    for session in sessions:
        session.close()
    assert sum(failure is not None for failure in failures) == 1
    with factory() as session:
        rows = session.scalars(select(CustomerLedger)).all()
        assert sorted(abs(row.amount - row.remaining_amount) for row in rows) == [0, 70, 70]


@pytest.mark.parametrize("order", [[0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0]])
def test_a_payment_that_moves_to_another_party_and_one_that_takes_its_place_never_miss_each_other(
    server: Engine, order: list[int]
) -> None:
    """What moves leaves its old party's items behind, and settles them anew: under that party's bucket, too."""
    sync = LedgerSync()
    factory = sessionmaker(server, expire_on_commit=False)
    sync.attach(factory)
    with factory.begin() as session:
        customer(session, number="C2")
        invoice = customer_invoice(session, 100, payment_reference="K1")
        entry(session, "1500", 100, ("customer_invoice", invoice.id))
        payments = [customer_payment(session, 100, payment_reference="K1") for _ in range(2)]
        entry(session, "1500", -100, ("customer_payment", payments[0].id))

    def move(session: Session) -> None:
        session.get_one(CustomerPayment, payments[0].id).customer = customer(session, number="C2")
        session.flush()

    def take_its_place(session: Session) -> None:
        entry(session, "1500", -100, ("customer_payment", payments[1].id))
        session.flush()

    steps: list[list[Step]] = [[move, commit], [take_its_place, commit]]
    sessions = [opened(factory, "READ COMMITTED") for _ in range(2)]
    failures = staged(server, sessions, order, steps)
    for session in sessions:
        session.close()
    for which, failure in enumerate(failures):
        if failure is not None:  # a deadlock: the host tries again
            with factory() as session:
                for step in steps[which]:
                    step(session)
    with factory() as session:
        rows = session.scalars(select(CustomerLedger).order_by(CustomerLedger.id)).all()
        assert [row.remaining_amount for row in rows] == [0, -100, 0]
        assert sync.verify(session, "acme").clean


@pytest.mark.parametrize("order", [[0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 1]])
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_two_parties_settled_at_once_under_one_key_are_settled_once(
    server: Engine, order: list[int], isolation: str
) -> None:
    """Each holds its own party's bucket, so only the key's own index knows of the other."""
    sync = LedgerSync()
    factory = sessionmaker(server, expire_on_commit=False)
    sync.attach(factory)
    with factory.begin() as session:
        for party in ("C1", "C2"):
            invoice = customer_invoice(session, 100, party=party)
            entry(session, "1500", 100, ("customer_invoice", invoice.id))
            payment = customer_payment(session, 80, party=party)
            entry(session, "1500", -80, ("customer_payment", payment.id))

    def settle(which: int) -> Step:
        def step(session: Session) -> None:
            rows = session.scalars(select(CustomerLedger).order_by(CustomerLedger.id)).all()
            sync.settle(session, *rows[2 * which : 2 * which + 2][::-1], 70, **WHO, idempotency_key="once")

        return step

    sessions = [opened(factory, isolation) for _ in range(2)]
    failures = staged(server, sessions, order, [[settle(0), commit], [settle(1), commit]])
    for session in sessions:
        session.close()
    (failure,) = [failure for failure in failures if failure is not None]
    assert isinstance(failure, SettlementError | OperationalError), repr(failure)
    if isinstance(failure, SettlementError):
        assert "idempotency key 'once'" in str(failure)
    with factory() as session:
        rows = session.scalars(select(CustomerLedger)).all()
        assert sorted(abs(row.amount - row.remaining_amount) for row in rows) == [0, 0, 70, 70]


def test_books_in_two_schemas_of_one_database_do_not_wait_for_each_other(
    postgresql_engine: Engine, postgresql_url: str
) -> None:
    with schema_of_its_own(postgresql_url) as beside:
        first, second = (sessionmaker(engine) for engine in (postgresql_engine, beside))
        LedgerSync().attach(first)
        LedgerSync().attach(second)
        with first() as one, second() as other:
            insert_invoice(one)
            post_invoice(one)
            other.connection().exec_driver_sql("SET LOCAL lock_timeout = 1000")
            insert_invoice(other)
            post_invoice(other)
            held = [
                set(
                    session.execute(
                        text(
                            "SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
                        )
                    ).all()
                )
                for session in (one, other)
            ]
            assert held[0]
            assert held[1]
            assert not held[0] & held[1]
