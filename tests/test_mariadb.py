"""What MariaDB does otherwise than the other databases, and what the package makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync, Settings, signals
from ledger_sync.dialects import (
    fault_of,
    held,
    normalised,
    parameter_set,
    present_moment,
    take_locks,
    transaction_lost,
    wait_for_writers,
)
from ledger_sync.errors import AmountError
from ledger_sync.models import CustomerLedger, JournalEntry, SupplierLedger, SyncLock, Vendor, VendorInvoice
from tests.books import DAY, customer_invoice, customer_payment, entry, vendor, vendor_invoice
from tests.refusing import refusing_new

LOCKS: Any = SyncLock.__table__


@pytest.fixture
def engine(mariadb_engine: Engine) -> Engine:
    return mariadb_engine


@pytest.fixture
def as_it_comes(engine: Engine) -> Iterator[Engine]:
    """An engine that a host has made by itself: REPEATABLE READ, and a zone of its own."""
    made = create_engine(engine.url, connect_args={"init_command": "SET time_zone = '+05:00'"})
    yield made
    made.dispose()


# -- texts ---------------------------------------------------------------------------------------------

UNLIKE = ["acme", "ACME", "acme ", "Acme", "acmé", " acme"]


def test_tenants_that_differ_by_case_or_a_blank_have_books_of_their_own(session: Session, sync: LedgerSync) -> None:
    for amount, tenant in enumerate(UNLIKE, 1):
        invoice = vendor_invoice(session, amount, tenant=tenant)
        entry(session, "2400", -amount, ("vendor_invoice", invoice.id), tenant=tenant)
    session.commit()
    for amount, tenant in enumerate(UNLIKE, 1):
        account = sync.verify(session, tenant).account("2400")
        assert (account.gl_balance, account.subledger_balance) == (amount, amount), tenant
        assert [item.remaining_amount for item in sync.open_items(session, tenant)] == [amount], tenant
    assert session.scalar(select(func.count(SupplierLedger.tenant_id.distinct()))) == len(UNLIKE)


def test_settlement_tells_tenants_apart_that_differ_by_case_or_a_blank(session: Session) -> None:
    for tenant in UNLIKE:
        invoice = customer_invoice(session, 100, tenant=tenant, payment_reference="18")
        entry(session, "1500", 100, ("customer_invoice", invoice.id), tenant=tenant)
    for tenant in ("ACME", "acme "):
        payment = customer_payment(session, 100, tenant=tenant, payment_reference="18")
        entry(session, "1500", -100, ("customer_payment", payment.id), tenant=tenant)
    session.commit()
    paid = select(CustomerLedger.tenant_id).where(CustomerLedger.status == "paid", CustomerLedger.amount > 0)
    assert sorted(session.scalars(paid)) == ["ACME", "acme "]


def test_references_are_compared_as_on_the_other_databases(session: Session) -> None:
    """Blanks and the case of a to z do not count; everything else does, accents and other scripts too."""
    texts = ["ab 1", "AB1", "åb1", "ÅB1", "ßb1", "ＡB1", "аb1", "ab1\u00a0", "a\tb1", "ıb1", "a-b1", "😀a"]
    for number, reference in enumerate(texts):
        vendor_invoice(session, invoice_number=f"{number}", payment_reference=reference)
    session.commit()
    blanks = str.maketrans("", "", " \u00a0\t")
    upper = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    wanted = [reference.translate(blanks).translate(upper) for reference in texts]
    kept = select(normalised(VendorInvoice.payment_reference)).order_by(VendorInvoice.id)
    assert list(session.scalars(kept)) == wanted
    given = select(VendorInvoice.payment_reference, VendorInvoice.id).subquery()
    worked_out = select(normalised(given.c.payment_reference)).order_by(given.c.id)
    assert list(session.scalars(worked_out)) == wanted


def test_a_set_of_texts_in_a_parameter_admits_no_other_text(session: Session) -> None:
    for tenant in UNLIKE:
        vendor(session, tenant=tenant)
    sought = [*UNLIKE[1:3], "\\", '"', "😀", "å"]
    query = select(Vendor.tenant_id).where(Vendor.tenant_id.in_(parameter_set("tenants", Vendor.tenant_id.type)))
    assert sorted(session.scalars(query, {"tenants": sought})) == sorted(UNLIKE[1:3])
    everything = parameter_set("texts", Vendor.tenant_id.type)
    assert list(session.scalars(everything, {"texts": sought})) == sought


def test_a_word_of_another_case_is_not_one_that_the_tables_know(session: Session) -> None:
    vendor_invoice(session)
    session.commit()
    with pytest.raises(DBAPIError, match="kind_known"):
        session.execute(text("UPDATE vendor_invoices SET kind = 'Invoice'"))


# -- moments -------------------------------------------------------------------------------------------


def test_moments_are_utc_whatever_the_sessions_zone(as_it_comes: Engine) -> None:
    factory = sessionmaker(as_it_comes)
    LedgerSync().attach(factory)
    moment = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
    with factory() as session:
        assert session.scalar(text("SELECT TIMEDIFF(now(), utc_timestamp())")) == timedelta(hours=5)
        invoice = vendor_invoice(session)
        entry(session, source=("vendor_invoice", invoice.id), posted_at=moment)
        session.commit()
        assert session.scalar(select(JournalEntry.posted_at)) == moment
        item = session.scalars(select(SupplierLedger)).one()
        for written in (item.created_at, item.updated_at):
            assert abs(written - datetime.now(UTC)) < timedelta(minutes=5)


def test_the_cut_over_by_moment_is_exact(engine: Engine) -> None:
    sync = LedgerSync(Settings(effective_from=DAY, effective_by="posted_at"))
    factory = sessionmaker(engine)
    sync.attach(factory)
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    with factory() as session:
        for number, moment in enumerate((midnight - timedelta(microseconds=1), midnight), 1):
            invoice = vendor_invoice(session, number)
            entry(session, "2400", -number, ("vendor_invoice", invoice.id), posted_at=moment)
        session.commit()
        assert list(session.scalars(select(SupplierLedger.amount))) == [2]


def test_the_databases_moment_is_utc(as_it_comes: Engine) -> None:
    with as_it_comes.connect() as connection:
        assert abs(connection.scalar(select(present_moment())).replace(tzinfo=UTC) - datetime.now(UTC)) < timedelta(
            minutes=5
        )


# -- locks ---------------------------------------------------------------------------------------------


def entries(session: Session, count: int) -> list[int]:
    made = [entry(session, "4100", 1) for _ in range(count)]
    session.commit()
    return [one.id for one in made]


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_entries_that_are_held_cannot_be_changed_and_others_can(engine: Engine, isolation: str) -> None:
    with Session(engine) as session:
        first, second, third = entries(session, 3)
    ids = select(JournalEntry.id).where(JournalEntry.id.in_([first, third]))
    with engine.execution_options(isolation_level=isolation).connect() as holder, engine.connect() as other:
        assert holder.scalar(held("mysql", JournalEntry, ids)) == 2
        change = text("UPDATE general_ledger SET description = 'changed' WHERE id = :id")
        other.exec_driver_sql("SET innodb_lock_wait_timeout = 1")
        assert other.execute(change, {"id": second}).rowcount == 1
        for kept in (first, third):
            with pytest.raises(DBAPIError, match="Lock wait timeout"):
                other.execute(change, {"id": kept})
        holder.rollback()
        assert other.execute(change, {"id": third}).rowcount == 1
        other.rollback()


def test_a_bucket_is_one_transactions_until_it_ends(engine: Engine) -> None:
    with engine.connect() as holder, engine.connect() as other:
        take_locks(holder, LOCKS, [1, 5])
        other.exec_driver_sql("SET innodb_lock_wait_timeout = 1")
        take_locks(other, LOCKS, [2, 4])
        with pytest.raises(DBAPIError) as caught:
            take_locks(other, LOCKS, [5])
        assert fault_of(caught.value) == "passing"


def test_at_read_committed_what_others_settled_is_seen_and_in_a_snapshot_it_is_refused(engine: Engine) -> None:
    for isolation in ("READ COMMITTED", "REPEATABLE READ"):
        with engine.execution_options(isolation_level=isolation).connect() as late, engine.connect() as other:
            late.execute(select(func.count()).select_from(Vendor))  # the snapshot is one of before
            assert take_locks(other.execution_options(isolation_level="READ COMMITTED"), LOCKS, [7])
            other.commit()
            if isolation == "READ COMMITTED":
                assert take_locks(late, LOCKS, [7])
                continue
            with pytest.raises(DBAPIError, match="since this snapshot") as caught:
                take_locks(late, LOCKS, [7])
            assert fault_of(caught.value) == "passing"


def test_where_the_server_itself_refuses_a_stale_snapshot_it_is_tried_again_too(engine: Engine) -> None:
    """As MariaDB does from 11.6 on, unless told otherwise: it takes the whole transaction back."""
    with engine.execution_options(isolation_level="REPEATABLE READ").connect() as late, engine.connect() as other:
        late.exec_driver_sql("SET innodb_snapshot_isolation = ON")
        late.execute(select(func.count()).select_from(Vendor))
        take_locks(other, LOCKS, [7])
        other.commit()
        with pytest.raises(DBAPIError, match="Record has changed") as caught:
            take_locks(late, LOCKS, [7])
        assert fault_of(caught.value) == "passing"
        assert transaction_lost(caught.value)
        late.invalidate()


def test_a_transaction_is_no_conflict_to_itself(engine: Engine) -> None:
    with engine.execution_options(isolation_level="REPEATABLE READ").connect() as connection:
        for _ in range(3):
            assert not take_locks(connection, LOCKS, [1, 2, 3])
        connection.commit()
        assert connection.scalar(select(LOCKS.c.version).where(LOCKS.c.id == 2)) == 3


@pytest.mark.parametrize("code", [1213, 1467])
def test_a_deadlock_is_raised_even_where_failures_are_recorded(engine: Engine, code: int) -> None:
    """The server has taken back the posting as well, so recording would tell of an entry that is not there.

    1467 is what a deadlock over a table's next key is called.
    """
    sync = LedgerSync(Settings(on_error="record"))
    factory = sessionmaker(engine)
    sync.attach(factory)
    a_deadlock = f"SQLSTATE '{'40001' if code == 1213 else 'HY000'}' SET MYSQL_ERRNO = {code},"
    with refusing_new(engine, "supplier_ledger", "Deadlock found", state=a_deadlock), factory() as session:
        invoice = vendor_invoice(session)
        entry(session, source=("vendor_invoice", invoice.id))
        with pytest.raises(DBAPIError) as caught:
            session.flush()
        assert fault_of(caught.value) == "passing"


def test_writers_in_flight_are_waited_for(engine: Engine) -> None:
    with Session(engine) as session:
        vendor(session)
        with ThreadPoolExecutor(1) as pool, engine.connect() as waiting:
            assert not wait_for_writers(waiting, 0.3)
            waited = pool.submit(wait_for_writers, waiting, 60.0)
            session.commit()
            assert waited.result()


def test_without_the_privilege_to_see_writers_nobody_is_waited_for(engine: Engine) -> None:
    name = f"clerk_{engine.url.database}"[:32]
    with engine.begin() as admin:
        if not admin.scalar(text("SELECT max(is_grantable) = 'YES' FROM information_schema.user_privileges")):
            pytest.skip("the test server's user may make no other")
        admin.exec_driver_sql(f"CREATE USER '{name}'@'%%' IDENTIFIED BY 'Clerk-1'")
        admin.exec_driver_sql(f"GRANT ALL ON {engine.url.database}.* TO '{name}'@'%%'")
    clerk = create_engine(engine.url.set(username=name, password="Clerk-1"))
    try:
        with Session(engine) as session, clerk.connect() as waiting:
            vendor(session)
            assert wait_for_writers(waiting, 60.0)
    finally:
        clerk.dispose()
        with engine.begin() as admin:
            admin.exec_driver_sql(f"DROP USER '{name}'@'%%'")


# -- rows ----------------------------------------------------------------------------------------------


def test_an_amount_with_too_many_decimals_is_refused_rather_than_rounded_on_the_way(engine: Engine) -> None:
    """A host's own line may hold more decimals than an open item; they pass through Python on this database."""
    factory, sync = sessionmaker(engine), LedgerSync()
    check = "ck_general_ledger_lines_credit_exact"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE general_ledger_lines DROP CONSTRAINT {check}")
    try:
        with factory() as session:
            invoice = vendor_invoice(session)
            posted = entry(session, source=("vendor_invoice", invoice.id))
            session.flush()
            session.execute(text("UPDATE general_ledger_lines SET credit = 100.005 WHERE account_number = '2400'"))
            with pytest.raises(AmountError, match="more than 2 decimals"):
                sync.sync_entries(session, [posted.id])
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(
                f"ALTER TABLE general_ledger_lines ADD CONSTRAINT {check} "
                "CHECK (credit BETWEEN -9999999999999.99 AND 9999999999999.99 AND credit = round(credit, 2))"
            )


def test_rows_that_stay_as_they_are_are_not_told_of(session: Session, sync: LedgerSync) -> None:
    invoice = vendor_invoice(session)
    posted = entry(session, source=("vendor_invoice", invoice.id))
    session.commit()
    told: list[Any] = []

    def note(sender: object, **arguments: Any) -> None:
        told.append(arguments)

    for name in ("item-created", "item-changed", "item-removed"):
        signals.AFTER_COMMIT[name].connect(note, sender=sync)
    try:
        sync.sync_entries(session, [posted.id])
        session.commit()
    finally:
        for name in ("item-created", "item-changed", "item-removed"):
            signals.AFTER_COMMIT[name].disconnect(note, sender=sync)
    assert told == []
    assert session.scalar(select(SupplierLedger.amount)) == Decimal(100)
