"""Everything that the library does to one company's books, in whatever order: rows, settlement and sums are true.

The machine of ``test_hook_properties`` posts, drafts, amends, reverses, links and rolls back; here people settle,
unsettle and release by hand in between, postings are taken back, somebody writes past the hook, and repairs and
backfills run. After every step the stored rows, applications and remaining amounts equal what two independent oracles
work out of the books, and nothing of one tenant is in the other's. On SQLite and on PostgreSQL.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from sqlalchemy import Engine, delete, insert, select, text, update

from ledger_sync import ALL_TENANTS, LedgerSync, Settings
from ledger_sync.errors import AmountError, SettlementError
from ledger_sync.models import (
    CustomerLedger,
    JournalEntry,
    JournalLine,
    SupplierLedger,
    VendorInvoice,
)
from tests.budget import at_length
from tests.conftest import empty
from tests.oracle import assert_synced
from tests.settlement_oracle import assert_settled
from tests.test_hook_properties import (
    CUT_OVERS,
    DAYS,
    MOMENTS,
    TENANTS,
    HookMachine,
    account_of,
    furnish,
    line_plans,
    nth,
    sides,
)

WHO: dict[str, Any] = {"actor": "kari", "reason": "agreed by telephone"}
ITEMS: tuple[Any, ...] = (SupplierLedger, CustomerLedger)


@cache
def sync_of(cut_over: str) -> LedgerSync:
    return LedgerSync(Settings(batch_lines_max=3, bulk="sync", **CUT_OVERS[cut_over][0]))


class BooksMachine(HookMachine):
    """An attached session, people who decide, runs, and others who write past it all."""

    engine_of_books: ClassVar[Engine]

    def prepared(self, cut_over: str) -> tuple[LedgerSync, Engine]:
        empty(self.engine_of_books)
        furnish(self.engine_of_books)
        self.astray = False
        return sync_of(cut_over), self.engine_of_books

    # -- people decide

    def open_item(self, index: int, *where: Any) -> Any:
        self.session.flush()
        model = ITEMS[index % len(ITEMS)]
        return self.pick(model, index, model.tenant_id == "a", *where)

    @precondition(lambda self: not self.astray)
    @rule(one=nth, other=nth, amount=st.none() | st.sampled_from([Decimal("0.01"), Decimal(40), Decimal(100)]))
    def two_items_are_settled_by_hand(self, one: int, other: int, amount: Decimal | None) -> None:
        first = self.open_item(one)
        if first is None:
            return
        against = type(first).amount < 0 if first.amount > 0 else type(first).amount > 0
        second = self.pick(type(first), other, against)
        if second is not None:
            self.decide("settle", first, second, amount)

    @precondition(lambda self: not self.astray)
    @rule(one=nth, other=nth, what=st.sampled_from(["unsettle", "release"]))
    def what_is_settled_is_undone(self, one: int, other: int, what: str) -> None:
        first = self.open_item(one)
        if first is not None:
            second = self.pick(type(first), other, type(first).id != first.id)
            if second is not None:
                self.decide(what, first, second)

    def decide(self, what: str, first: Any, second: Any, *amount: Any) -> None:
        try:
            with self.session.begin_nested():
                getattr(self.sync, what)(self.session, first, second, *amount, **WHO)
        except (SettlementError, AmountError) as error:
            note(f"refused: {error}")

    # -- statements change what was committed

    @precondition(lambda self: not self.astray)
    @rule(index=nth)
    def a_posting_is_taken_back_past_the_guards(self, index: int) -> None:
        """As a host does whose posted entries can be changed: in the transaction, and synced explicitly."""
        entry = self.pick(JournalEntry, index, JournalEntry.status == "posted")
        if entry is not None and not self.is_reversed(entry) and entry.reverses_id is None:
            table, key = JournalEntry.__table__, entry.id
            statement = update(table).where(table.c.id == key).values(status="draft", posted_at=None)
            self.session.connection().execute(statement)
            self.session.expire_all()
            self.sync.sync_entries(self.session, [key])

    @precondition(lambda self: not self.astray)
    @rule(index=nth, day=st.sampled_from(DAYS))
    def drafts_are_posted_by_a_statement(self, index: int, day: Any) -> None:
        self.session.flush()
        drafts = (JournalEntry.status == "draft", JournalEntry.entry_date <= day)
        self.session.execute(update(JournalEntry).where(*drafts).values(status="posted", posted_at=MOMENTS[index % 3]))

    # -- somebody writes past the hook

    @rule(what=st.sampled_from(["row goes", "row changes", "party changes", "invoice renamed"]), index=nth)
    def somebody_writes_past_the_hook(self, what: str, index: int) -> None:
        self.a_transaction_ends(True)
        model: Any = VendorInvoice if what == "invoice renamed" else ITEMS[index % len(ITEMS)]
        with self.engine.begin() as connection:
            keys = list(connection.scalars(select(model.id).order_by(model.id)))
            if not keys:
                return
            key = keys[index % len(keys)]
            note(f"{what}: {model.__name__} {key}")
            if what == "row goes":
                connection.execute(delete(model).where(model.id == key))
            elif what == "row changes":
                twice = {"amount": model.amount * 2, "remaining_amount": model.remaining_amount * 2}
                connection.execute(update(model).where(model.id == key).values(twice))
            elif what == "party changes":
                party = "supplier_id" if model is SupplierLedger else "customer_id"
                connection.execute(update(model).where(model.id == key).values({party: 2}))
            else:
                connection.execute(update(model).where(model.id == key).values(invoice_number="past the hook"))
        self.astray = True

    @rule(plan=line_plans, number=st.integers(1, 3))
    def an_entry_is_written_past_the_hook(self, plan: dict[str, Any], number: int) -> None:
        self.a_transaction_ends(True)
        self.number += 1
        with self.engine.begin() as connection:
            row = {"tenant_id": "a", "voucher_number": str(self.number), "entry_date": DAYS[-1], "status": "posted"}
            row |= {"posted_at": MOMENTS[-1], "source_type": "vendor_invoice", "source_id": number}
            key = connection.execute(insert(JournalEntry).values(row)).inserted_primary_key
            assert key is not None
            amount = sides(plan["signed"], credit_side=plan["credit_side"])
            lines = [(account_of(plan, "vendor_invoice"), amount), ("4999", {"debit": -plan["signed"], "credit": 0})]
            for place, (account, values) in enumerate(lines, start=1):
                line = {"general_ledger_id": key[0], "line_number": place, "account_number": account, **values}
                connection.execute(insert(JournalLine).values(line))
        self.astray = True

    # -- runs

    @rule()
    def a_repair_runs(self) -> None:
        self.a_transaction_ends(True)
        self.session.close()
        for tenant in TENANTS:
            assert self.sync.repair(self.factory, tenant_id=tenant).state == "completed"
        self.astray = False

    @rule(tenant=st.sampled_from([*TENANTS, ALL_TENANTS]))
    def a_backfill_runs(self, tenant: Any) -> None:
        self.a_transaction_ends(True)
        self.session.close()
        assert self.sync.backfill(self.factory, tenant_id=tenant).state == "completed"

    # -- what must hold

    def holds(self) -> None:
        if self.astray:
            return
        connection = self.session.connection()
        assert_synced(connection, self.rules)
        assert_settled(connection)
        for item, party in (("supplier", "vendors"), ("customer", "customers"), ("employee", "employees")):
            strangers = text(
                f"SELECT count(*) FROM {item}_ledger i JOIN general_ledger e ON e.id = i.general_ledger_id "
                f"JOIN {party} p ON p.id = i.{item}_id WHERE e.tenant_id <> i.tenant_id OR p.tenant_id <> i.tenant_id"
            )
            assert connection.scalar(strangers) == 0

    def at_the_end(self) -> None:
        self.a_repair_runs()
        self.holds()
        for tenant in TENANTS if self.proved else ():
            proof = self.sync.verify(self.session, tenant)
            assert proof.clean, proof
        self.session.rollback()
        for tenant in TENANTS:
            assert self.sync.repair(self.factory, tenant_id=tenant).synced == 0, "a second repair changes nothing"


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_whatever_happens_to_the_books_they_are_true(request: pytest.FixtureRequest, database: str) -> None:
    engine_of_books: Engine = request.getfixturevalue(f"{database}_engine")
    machine = type("Machine", (BooksMachine,), {"engine_of_books": engine_of_books})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=at_length(200, 20_000, 1),
            stateful_step_count=at_length(50, 50, 25),
            suppress_health_check=list(HealthCheck),
        ),
    )
