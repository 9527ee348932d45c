"""Whatever arrives in whatever order, and whatever people settle in between: who has paid what is as the oracle says.

Books are drawn as a list of steps (a document comes, an entry is posted, an entry is reversed) over small pools, so
that things meet. They are played through the hook in drawn orders, and through a backfill, and compared by
voucher and line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, event, given, note, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, StaticPool, func, select
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import ALL_TENANTS, LedgerSync, Settings
from ledger_sync.dialects import open_engine
from ledger_sync.errors import SettlementError
from ledger_sync.models import (
    Base,
    Customer,
    CustomerApplication,
    CustomerInvoice,
    CustomerLedger,
    CustomerPayment,
    JournalEntry,
    JournalLine,
    SourceLink,
)
from ledger_sync.settings import ControlAccount
from tests.budget import examples
from tests.settlement_oracle import assert_settled, read, settle

MODES = ("reference", "oldest_first", "off")
TENANT_OF = {1: "a", 2: "a", 3: "b"}
DAYS = [date(2026, 1, 1) + timedelta(days=10 * index) for index in range(5)]
FAR = date(2999, 1, 1)
Step = tuple[str, int]

# -- what is drawn ----------------------------------------------------------------------------------------

days = st.sampled_from(DAYS)
parties = st.sampled_from([1, 1, 1, 2, 3])
references = st.sampled_from([None, "K1", "K1", " k 1", "K2", "7", "8"])
magnitudes = st.sampled_from([100, 100, 60, 40, 250, "0.01", "33.33"]).map(lambda value: Decimal(str(value)))

document_plans = st.fixed_dictionaries(
    {
        "party": parties,
        "number": st.sampled_from(["7", "8", "9", "k1"]),
        "reference": references,
        "credits": st.none() | st.integers(0, 3),
    }
)
payment_plans = st.fixed_dictionaries({"party": parties, "reference": references})
line_plans = st.fixed_dictionaries(
    {
        "source": st.tuples(st.sampled_from(["invoice", "payment"]), st.integers(1, 5)),
        "amount": magnitudes,
        "against": st.integers(0, 3).map(lambda roll: roll == 0),  # against the document's own direction
        "account": st.sampled_from(["1500", "1500", "1500", "1501"]),
        "kind": st.sampled_from([None, None, None, "write_off"]),
        "reference": st.sampled_from([None, None, None, "K1", "K2"]),
    }
)
entry_plans = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from(["a", "a", "a", "b"]),
        "day": days,
        "series": st.sampled_from(["", "A", "a"]),
        "lines": st.lists(line_plans, min_size=1, max_size=3),
        "reversed_after": st.none() | st.none() | st.integers(0, 20),
    }
)
worlds = st.fixed_dictionaries(
    {
        "invoice": st.lists(document_plans, min_size=2, max_size=5),
        "payment": st.lists(payment_plans, min_size=1, max_size=4),
        "entry": st.lists(entry_plans, min_size=2, max_size=8),
    }
)


def steps_of(world: dict[str, Any]) -> list[Step]:
    steps = [("invoice", index) for index in range(len(world["invoice"]))]
    steps += [("payment", index) for index in range(len(world["payment"]))]
    steps += [("entry", index) for index in range(len(world["entry"]))]
    steps += [("reverse", index) for index, plan in enumerate(world["entry"]) if plan["reversed_after"] is not None]
    return steps


def possible(world: dict[str, Any], steps: Sequence[Step]) -> list[Step]:
    """The steps in an order that the tables admit: a credited invoice and a reversed entry come first."""
    waiting, done = list(steps), []
    while waiting:
        step = next(step for step in waiting if all(needed not in waiting for needed in needs(world, step)))
        waiting.remove(step)
        done.append(step)
    return done


def needs(world: dict[str, Any], step: Step) -> list[Step]:
    kind, index = step
    if kind == "reverse":
        return [("entry", index)]
    if kind == "invoice" and (credited := credited_by(world, index)) is not None:
        return [("invoice", credited)]
    return []


def credited_by(world: dict[str, Any], index: int) -> int | None:
    """The invoice that a document credits: an earlier one of the same tenant, or none."""
    plan = world["invoice"][index]
    credited = plan["credits"]
    if credited is None or credited >= index:
        return None
    same_tenant = TENANT_OF[world["invoice"][credited]["party"]] == TENANT_OF[plan["party"]]
    return credited if same_tenant else None


# -- playing it -------------------------------------------------------------------------------------------


@cache
def sync_of(mode: str) -> LedgerSync:
    control = ControlAccount(accounts=("1500-1501",), ledger="customer")
    return LedgerSync(Settings(settlement=mode, control_accounts=(control,), batch_lines_max=5))


@cache
def the_engine() -> Engine:
    """One database in memory, emptied for each play, so that statements are compiled once."""
    engine = open_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        for party, tenant in TENANT_OF.items():
            session.add(Customer(id=party, tenant_id=tenant, number=str(party), name="x"))
        session.commit()
    return engine


@pytest.fixture(scope="module", autouse=True)
def _close_the_books() -> Iterator[None]:
    yield
    the_engine().dispose()
    the_engine.cache_clear()


class Play:
    """One arrival of a world through an attached session."""

    def __init__(self, world: dict[str, Any], mode: str) -> None:
        self.world = world
        self.mode = mode
        self.sync = sync_of(mode)
        with the_engine().begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                if table.name != "customers":
                    connection.execute(table.delete())
        self.factory = sessionmaker(the_engine())
        self.sync.attach(self.factory)
        self.session = self.factory()

    def __enter__(self) -> Play:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def do(self, step: Step) -> None:
        kind, index = step
        self.session.add(getattr(self, f"_{kind}")(index))
        self.session.flush()

    def _invoice(self, index: int) -> CustomerInvoice:
        plan, credited = self.world["invoice"][index], credited_by(self.world, index)
        return CustomerInvoice(
            id=index + 1,
            tenant_id=TENANT_OF[plan["party"]],
            customer_id=plan["party"],
            invoice_number=plan["number"],
            payment_reference=plan["reference"],
            invoice_date=DAYS[0],
            amount=1,
            kind="invoice" if plan["credits"] is None else "credit_note",
            credits_id=None if credited is None else credited + 1,
        )

    def _payment(self, index: int) -> CustomerPayment:
        plan = self.world["payment"][index]
        return CustomerPayment(
            id=index + 1,
            tenant_id=TENANT_OF[plan["party"]],
            customer_id=plan["party"],
            payment_reference=plan["reference"],
            payment_date=DAYS[0],
            amount=1,
        )

    def _entry(self, index: int) -> JournalEntry:
        plan = self.world["entry"][index]
        entry = JournalEntry(
            tenant_id=plan["tenant"],
            voucher_series=plan["series"],
            voucher_number=index + 8,  # some of two digits
            entry_date=plan["day"],
        )
        for line_plan in plan["lines"]:
            kind, number = line_plan["source"]
            number = (number - 1) % len(self.world[kind]) + 1
            positive = kind == "invoice" and self.world["invoice"][number - 1]["credits"] is None
            amount = line_plan["amount"] * (1 if positive != line_plan["against"] else -1)
            line = JournalLine(account_number=line_plan["account"], debit=amount, reference=line_plan["reference"])
            line.link = SourceLink(source_type=f"customer_{kind}", source_id=number, kind=line_plan["kind"])
            entry.lines.append(line)
        entry.lines.append(JournalLine(account_number="3000", debit=-entry.balance))
        entry.post()
        return entry

    def _reverse(self, index: int) -> JournalEntry:
        plan = self.world["entry"][index]
        entry = self.session.scalars(select(JournalEntry).where(JournalEntry.voucher_number == str(index + 8))).one()
        day = plan["day"] + timedelta(days=plan["reversed_after"])
        reversal: JournalEntry = entry.reverse(day)
        return reversal

    def check(self) -> None:
        assert_settled(self.session.connection(), self.mode, ["customer"])

    def state(self) -> Any:
        return read(self.session.connection(), "customer").by_voucher()

    def rows(self) -> list[tuple[Any, ...]]:
        """The stored applications as they are, to see that none is ever changed or taken away."""
        table = CustomerApplication.__table__
        return [tuple(row) for row in self.session.connection().execute(select(table).order_by(table.c.id))]

    def open_on(self, day: date) -> dict[int, tuple[Decimal, str]]:
        """What the report says was open on a day, by line."""
        return {
            item.general_ledger_line_id: (item.remaining_amount, item.status)
            for tenant in ("a", "b")
            for item in self.sync.open_items(self.session, tenant, as_of=day, include_settled=True)
        }

    def expected_on(self, day: date) -> dict[int, tuple[Decimal, str]]:
        stored = read(self.session.connection(), "customer")
        then = settle(stored.items, stored.hand_made, self.mode, as_of=day)
        return {line: (Decimal(left).scaleb(-2), then.status[line]) for line, left in then.remaining.items()}

    def check_past(self) -> None:
        for day in {*DAYS, *(DAYS[0] + timedelta(days=5 * n) for n in range(13)), FAR}:
            assert self.open_on(day) == self.expected_on(day), f"as of {day}"
        now = {
            item.general_ledger_line_id: (item.remaining_amount, item.status)
            for tenant in ("a", "b")
            for item in self.sync.open_items(self.session, tenant, include_settled=True)
        }
        assert self.open_on(FAR) == now

    # -- by hand

    def by_hand(self, plan: dict[str, Any]) -> bool:
        """Do what a plan says, if the rules let it; whether they did."""
        if plan["act"] == "edit":
            return self.edit(plan)
        couples = self.couples() if plan["act"] == "settle" else self.settled_couples()
        if not couples:
            return False
        couple = couples[plan["nth"] % len(couples)]
        call = getattr(self.sync, plan["act"])
        more = {"amount": plan["amount"]} if plan["act"] == "settle" else {}
        try:
            done = call(self.session, *couple, on=plan["on"], actor="eva", reason="asked", **more)
        except SettlementError:
            return False
        event(f"{plan['act']} → {done.method}")
        return True

    def edit(self, plan: dict[str, Any]) -> bool:
        """Move an invoice to the tenant's other party, or give it another number or reference."""
        invoices = self.session.scalars(select(CustomerInvoice).order_by(CustomerInvoice.id)).all()
        if not invoices:
            return False
        invoice = invoices[plan["nth"] % len(invoices)]
        if plan["what"] == "party":
            invoice.customer_id = {1: 2, 2: 1, 3: 3}[invoice.customer_id]
        else:
            setattr(invoice, plan["what"], "K1" if getattr(invoice, plan["what"]) != "K1" else "8")
        self.session.flush()
        return True

    def couples(self) -> list[tuple[CustomerLedger, CustomerLedger]]:
        """The items that could be settled with one another by hand."""
        items = self.session.scalars(select(CustomerLedger).order_by(CustomerLedger.id)).all()
        return [
            (paid, owed)
            for paid in items
            for owed in items
            if paid.amount < 0 < owed.amount
            and (paid.customer_id, paid.account_number) == (owed.customer_id, owed.account_number)
        ]

    def settled_couples(self) -> list[tuple[CustomerLedger, CustomerLedger]]:
        """The items that are or were settled with one another."""
        items = {item.general_ledger_line_id: item for item in self.session.scalars(select(CustomerLedger))}
        table = CustomerApplication.__table__
        query = select(table.c.from_line_id, table.c.to_line_id).distinct()
        lines = sorted((one, two) for one, two in self.session.connection().execute(query))
        return [(items[one], items[two]) for one, two in lines if one in items and two in items]


hand_plans = st.fixed_dictionaries(
    {
        "act": st.sampled_from(["settle", "settle", "settle", "unsettle", "release"]),
        "nth": st.integers(0, 30),
        "amount": st.sampled_from([None, None, 10, "33.33", 60]),
        "on": st.sampled_from([*DAYS, DAYS[-1] + timedelta(days=15), FAR]),
    }
)
edit_plans = st.fixed_dictionaries(
    {
        "act": st.just("edit"),
        "nth": st.integers(0, 4),
        "what": st.sampled_from(["party", "party", "invoice_number", "payment_reference"]),
    }
)
deeds = st.lists(st.one_of(hand_plans, hand_plans, hand_plans, edit_plans), max_size=4)


# -- the promises -----------------------------------------------------------------------------------------


@given(world=worlds, mode=st.sampled_from(MODES), data=st.data())
@settings(max_examples=examples(30))
def test_the_order_of_arrival_changes_no_application_and_no_remaining_amount(
    world: dict[str, Any], mode: str, data: st.DataObject
) -> None:
    steps = steps_of(world)
    results = []
    for which in ("first", "second"):
        order = possible(world, data.draw(st.permutations(steps), label=which))
        with Play(world, mode) as play:
            for step in order:
                play.do(step)
            play.check()
            results.append(play.state())
    with Play(world, mode) as play:
        with play.sync.paused(play.session):
            for step in possible(world, steps):
                play.do(step)
        play.session.commit()
        assert play.session.scalar(select(func.count()).select_from(CustomerLedger)) == 0
        play.session.rollback()
        play.sync.backfill(play.factory, tenant_id=ALL_TENANTS)
        play.check()
        results.append(play.state())
    event(f"{mode}: {min(len(results[0][0]), 4)} applications")
    for one, other in pairwise(results):
        assert one == other


@given(world=worlds, mode=st.sampled_from(MODES), data=st.data())
@settings(max_examples=examples(40))
def test_after_every_flush_the_books_are_settled_and_no_row_is_ever_changed(
    world: dict[str, Any], mode: str, data: st.DataObject
) -> None:
    order = possible(world, data.draw(st.permutations(steps_of(world))))
    with Play(world, mode) as play:
        before: list[tuple[Any, ...]] = []
        for step in order:
            play.do(step)
            play.check()
            after = play.rows()
            assert after[: len(before)] == before
            before = after
        play.check_past()


@given(world=worlds, mode=st.sampled_from(MODES), data=st.data())
@settings(max_examples=examples(90))
def test_whatever_people_settle_in_between_the_oracle_agrees(
    world: dict[str, Any], mode: str, data: st.DataObject
) -> None:
    order = possible(world, data.draw(st.permutations(steps_of(world))))
    with Play(world, mode) as play:
        for index, step in enumerate(order):
            play.do(step)
            play.check()
            if 2 * index < len(order):
                continue  # at first there is nothing to settle
            for plan in data.draw(deeds, label=f"after {step}"):
                before = play.rows()
                if play.by_hand(plan):
                    note(f"done: {plan}")
                assert play.rows()[: len(before)] == before
                play.check()
        play.check_past()
        state = play.state()
        play.session.commit()
        report = play.sync.backfill(play.factory, tenant_id=ALL_TENANTS)
        assert report.stages[-1].applied == 0
        assert play.state() == state


@given(world=worlds, mode=st.sampled_from(MODES), data=st.data())
@settings(max_examples=examples(40))
def test_settle_followed_by_unsettle_gives_back_the_same_state(
    world: dict[str, Any], mode: str, data: st.DataObject
) -> None:
    with Play(world, mode) as play:
        for step in possible(world, steps_of(world)):
            play.do(step)
        for plan in data.draw(st.lists(hand_plans, max_size=3)):
            play.by_hand(plan)
        by_hand = {(row.from_line, row.to_line) for row in read(play.session.connection(), "customer").hand_made}
        couples = [
            (paid, owed)
            for paid, owed in play.couples()
            if (paid.general_ledger_line_id, owed.general_ledger_line_id) not in by_hand
        ]
        assume(couples)
        before = play.state()
        paid, owed = data.draw(st.sampled_from(couples))
        amount = data.draw(st.sampled_from([None, "0.01", 40]))
        try:
            play.sync.settle(play.session, paid, owed, amount, FAR, actor="eva", reason="asked")
        except SettlementError:
            return
        event(f"changed something: {play.state() != before}")
        play.check()
        play.sync.unsettle(play.session, owed, paid, FAR, actor="eva", reason="mistaken")
        assert play.state() == before
        play.check()


@given(world=worlds, mode=st.sampled_from(MODES), data=st.data())
@settings(max_examples=examples(30))
def test_what_was_open_on_a_past_day_does_not_change_when_later_entries_are_posted(
    world: dict[str, Any], mode: str, data: st.DataObject
) -> None:
    day = data.draw(days)
    steps = possible(world, steps_of(world))

    def dated(step: Step) -> date:
        plan = world["entry"][step[1]] if step[0] in ("entry", "reverse") else None
        if plan is None:
            return DAYS[0]
        return plan["day"] + timedelta(days=plan["reversed_after"] if step[0] == "reverse" else 0)

    with Play(world, mode) as play:
        for step in steps:
            if dated(step) <= day:
                play.do(step)
        then = {d: play.open_on(d) for d in DAYS if d <= day}
        later = [step for step in steps if dated(step) > day]
        event(f"later steps: {min(len(later), 3)}")
        for step in later:
            play.do(step)
        for plan in data.draw(st.lists(hand_plans, max_size=3)):
            play.by_hand({**plan, "on": FAR})
        assert {d: play.open_on(d) for d in then} == then
