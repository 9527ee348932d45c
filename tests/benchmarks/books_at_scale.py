"""Books of any size, made inside the database: one tenant, invoices, and payments that name them.

Of every ten invoices seven are paid, some of them in part. Each entry has a control line and a contra line.
"""

from __future__ import annotations

from sqlalchemy import Connection, Engine, delete, text

from ledger_sync import LedgerSync
from ledger_sync.models import Base

TENANT = "bench"
PARTIES = 2_000


def make(engine: Engine, invoices: int, tenants: int = 1) -> int:
    """Fill an emptied database with that many invoices and 0.7 as many payments; the number of control lines.

    :param tenants: a divisor of ``PARTIES``; of several each has its number behind the name.
    """
    clear(engine)
    payments = invoices * 7 // 10
    with engine.begin() as connection:
        _fill(connection, invoices, payments, tenants)
    analyse(engine)
    return invoices + payments


def clear(engine: Engine) -> None:
    """Make the tables anew, which is quicker than to take so many rows out of them."""
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)


def analyse(engine: Engine) -> None:
    """Have the database count what its tables hold, for the planner."""
    # these tables alone: statistics of somebody else's, taken while those are empty, would be wrong a moment later
    tables = ", ".join(Base.metadata.tables)
    command = {"postgresql": f"VACUUM ANALYZE {tables}", "sqlite": "ANALYZE", "mysql": f"ANALYZE TABLE {tables}"}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(command[engine.dialect.name])
        connection.commit()  # our engines begin a transaction on SQLite whatever the isolation level


def emptied(engine: Engine, sync: LedgerSync) -> None:
    """Take all items and applications away again."""
    ledger = sync.binding.ledger("customer")
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("TRUNCATE customer_ledger, customer_applications")
        else:
            connection.execute(delete(ledger.table))
            connection.execute(delete(ledger.application.__table__))
    if engine.dialect.name == "postgresql":  # none in the middle of what is timed
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("CHECKPOINT")


def _fill(connection: Connection, invoices: int, payments: int, tenants: int) -> None:
    sqlite, mariadb = (connection.dialect.name == name for name in ("sqlite", "mysql"))
    unit = 100 if sqlite else 1  # SQLite holds scaled integers

    def series(count: int) -> str:
        if sqlite:
            return (
                f"(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) SELECT i FROM n) s"
            )
        if mariadb:
            return f"(SELECT seq AS i FROM seq_1_to_{count}) s"
        return f"(SELECT i FROM generate_series(1, {count}) AS g(i)) s"

    def day(offset: str) -> str:
        if sqlite:
            return f"date('2024-01-01', '+' || ({offset}) || ' days')"
        if mariadb:
            return f"DATE_ADD('2024-01-01', INTERVAL {offset} DAY)"
        return f"(DATE '2024-01-01' + CAST({offset} AS INTEGER))"

    def named(prefix: str, number: str = "i") -> str:
        return f"CONCAT('{prefix}', {number})" if mariadb else f"'{prefix}' || {number}"

    # a party, its documents and their entries are one tenant's
    tenant = f"'{TENANT}'" if tenants == 1 else named(TENANT, f"(i % {tenants})")
    of_party = f"'{TENANT}'" if tenants == 1 else named(TENANT, f"((i - 1) % {tenants})")

    number = named("")
    posted = "'2024-01-01 00:00:00'" if sqlite or mariadb else "TIMESTAMPTZ '2024-01-01 00:00:00+00'"
    amount = f"(100 + i % 900) * {unit}"
    paid = f"(100 + i % 900 - CASE WHEN i % 11 = 0 THEN 50 ELSE 0 END) * {unit}"
    statements = [
        f"INSERT INTO customers (id, tenant_id, number, name) SELECT i, {of_party}, {number}, {named('Customer ')} "
        f"FROM {series(PARTIES)}",
        "INSERT INTO customer_invoices (id, tenant_id, customer_id, kind, invoice_number, invoice_date, due_date, "
        f"payment_reference, currency, amount) SELECT i, {tenant}, 1 + i % {PARTIES}, 'invoice', {number}, "
        f"{day('i % 700')}, {day('30 + i % 700')}, {named('K')}, 'NOK', {amount} FROM {series(invoices)}",
        "INSERT INTO customer_payments (id, tenant_id, customer_id, payment_date, payment_reference, currency, amount) "
        f"SELECT i, {tenant}, 1 + i % {PARTIES}, {day('20 + i % 700')}, {named('K')}, 'NOK', {paid} "
        f"FROM {series(payments)}",
    ]
    entry = (
        "INSERT INTO general_ledger (id, tenant_id, fiscal_year, voucher_series, voucher_number, entry_date, status, "
    )
    entry += "posted_at, source_type, source_id) "
    line = "INSERT INTO general_ledger_lines (id, general_ledger_id, line_number, account_number, debit, credit) "
    statements += [
        f"{entry} SELECT i, {tenant}, 2024, 'I', {number}, {day('i % 700')}, 'posted', {posted}, "
        f"'customer_invoice', i FROM {series(invoices)}",
        f"{entry} SELECT {invoices} + i, {tenant}, 2024, 'P', {number}, {day('20 + i % 700')}, 'posted', {posted}, "
        f"'customer_payment', i FROM {series(payments)}",
        f"{line} SELECT 2 * i - 1, i, 1, '1500', {amount}, 0 FROM {series(invoices)}",
        f"{line} SELECT 2 * i, i, 2, '3000', 0, {amount} FROM {series(invoices)}",
        f"{line} SELECT 2 * ({invoices} + i) - 1, {invoices} + i, 1, '1500', 0, {paid} FROM {series(payments)}",
        f"{line} SELECT 2 * ({invoices} + i), {invoices} + i, 2, '1920', {paid}, 0 FROM {series(payments)}",
    ]
    if (
        connection.dialect.name == "postgresql"
    ):  # the keys are right by their making; to check them takes most of the time
        connection.execute(text("SET LOCAL session_replication_role = replica"))
    for statement in statements:
        connection.execute(text(statement))
