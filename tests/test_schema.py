"""Our own tables in a host's database: made where they are not, and compared with the models."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, inspect, text

from ledger_sync import LedgerSync
from ledger_sync.models import Base
from ledger_sync.schema import host_tables, own_tables


def test_every_table_is_either_ours_or_the_hosts() -> None:
    sync = LedgerSync()
    ours, theirs = set(own_tables(sync.binding)), set(host_tables(sync.binding))
    assert not ours & theirs
    assert ours | theirs == set(Base.metadata.tables.values())


def test_our_tables_are_made_beside_the_hosts_and_nothing_lacks(empty_engine: Engine) -> None:
    sync = LedgerSync()
    Base.metadata.create_all(empty_engine, tables=list(host_tables(sync.binding)))
    lacking = {problem.table for problem in sync.check_schema(empty_engine)}
    assert lacking == {table.fullname for table in own_tables(sync.binding)}
    sync.create_tables(empty_engine)
    sync.create_tables(empty_engine)
    assert sync.check_schema(empty_engine) == ()
    assert set(inspect(empty_engine).get_table_names()) == {table.name for table in Base.metadata.sorted_tables}


@pytest.mark.parametrize(
    ("statement", "table", "problem"),
    [
        (
            "DROP INDEX ix_customer_applications_to_line_id{on_its_table}",
            "customer_applications",
            "no index",
        ),
        ("ALTER TABLE ledger_sync_runs DROP COLUMN note", "ledger_sync_runs", "column note is not there"),
        ("ALTER TABLE vendor_invoices DROP COLUMN due_date", "vendor_invoices", "column due_date is not there"),
        ("DROP TABLE ledger_sync_tombstones", "ledger_sync_tombstones", "the table is not there"),
    ],
)
def test_what_lacks_is_named_with_its_table(empty_engine: Engine, statement: str, table: str, problem: str) -> None:
    Base.metadata.create_all(empty_engine)
    with empty_engine.begin() as connection:
        mariadb = connection.dialect.name == "mysql"
        connection.execute(text(statement.format(on_its_table=f" ON {table}" if mariadb else "")))
    (found,) = LedgerSync().check_schema(empty_engine)
    assert found.table == table
    assert problem in found.problem
    assert found.remedy


@pytest.mark.parametrize(
    ("constraint", "problem"),
    [
        ("uq_supplier_ledger_general_ledger_line_id", "no unique key on general_ledger_line_id"),
        ("ck_supplier_ledger_amount_exact", "no check ck_supplier_ledger_amount_exact"),
    ],
)
@pytest.mark.parametrize("empty_engine", ["postgresql", "mariadb"], indirect=True)  # SQLite cannot drop a constraint
def test_a_key_or_a_check_that_was_dropped_is_missed(empty_engine: Engine, constraint: str, problem: str) -> None:
    Base.metadata.create_all(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE supplier_ledger DROP CONSTRAINT {constraint}"))
    (found,) = LedgerSync().check_schema(empty_engine)
    assert found.problem == problem


def test_a_plain_index_does_not_stand_in_for_a_unique_one(empty_engine: Engine) -> None:
    Base.metadata.create_all(empty_engine)
    name, table = "uq_supplier_applications_idempotency_key", "supplier_applications"
    with empty_engine.begin() as connection:
        on_its_table = f" ON {table}" if connection.dialect.name == "mysql" else ""
        connection.execute(text(f"DROP INDEX {name}{on_its_table}"))
        connection.execute(text(f"CREATE INDEX {name} ON {table} (tenant_id, idempotency_key)"))
    (found,) = LedgerSync().check_schema(empty_engine)
    assert (found.table, found.problem) == (table, f"no unique index {name}")


@pytest.mark.parametrize("empty_engine", ["mariadb"], indirect=True)  # the others index the expression
def test_a_generated_column_that_lacks_is_named_with_the_statement_that_makes_it(empty_engine: Engine) -> None:
    Base.metadata.create_all(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(text("ALTER TABLE vendor_payments DROP COLUMN payment_reference_normalised"))
        connection.execute(text("DROP INDEX ix_vendor_payments_reference_normalised ON vendor_payments"))
    (found,) = LedgerSync().check_schema(empty_engine)
    assert found.problem == "column payment_reference_normalised is not there"
    with empty_engine.begin() as connection:
        connection.exec_driver_sql(found.remedy.removeprefix("Add it by a migration: "))
    assert LedgerSync().check_schema(empty_engine) == ()
