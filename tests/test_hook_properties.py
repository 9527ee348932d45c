"""Whatever is posted, changed, linked and rolled back, in whatever order: rows = what the oracle says.

The state machine drives an attached session as ERP code would, several changes in a flush, and compares every
column of every open item with ``tests.oracle`` after each step. The last test replays a history through the hook,
through a backfill and through a repair, in several orders, and asks for equal rows and applications.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import Engine, StaticPool, inspect, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import ALL_TENANTS, LedgerSync, Settings
from ledger_sync.dialects import open_engine
from ledger_sync.errors import DocumentInUseError
from ledger_sync.models import (
    Base,
    Customer,
    CustomerInvoice,
    CustomerPayment,
    Employee,
    ExpenseClaim,
    JournalEntry,
    JournalLine,
    SourceLink,
    Vendor,
    VendorInvoice,
    VendorPayment,
)
from tests.budget import at_length, examples
from tests.oracle import Rules, assert_synced, expected_causes, read_books, read_items
from tests.settlement_oracle import assert_settled
from tests.settlement_oracle import read as read_settled

TENANTS = ("a", "b")
# parties have explicit ids: 1 and 2 belong to tenant a, 3 and 4 to tenant b
PARTY_IDS = {"a": (1, 2), "b": (3, 4)}
CUT_OVER = date(2026, 2, 1)
DAYS = (date(2026, 1, 15), date(2026, 2, 1), date(2026, 3, 1))
MOMENTS = tuple(datetime(2026, month, 1, 12, tzinfo=UTC) for month in (1, 2, 3))

MODELS: dict[str, Any] = {
    "vendor_invoice": VendorInvoice,
    "vendor_payment": VendorPayment,
    "customer_invoice": CustomerInvoice,
    "customer_payment": CustomerPayment,
    "expense_claim": ExpenseClaim,
}
PARTIES = {
    VendorInvoice: "vendor_id",
    VendorPayment: "vendor_id",
    CustomerInvoice: "customer_id",
    CustomerPayment: "customer_id",
    ExpenseClaim: "employee_id",
}

CUT_OVERS: dict[str, tuple[dict[str, Any], Rules]] = {
    "none": ({}, Rules()),
    "entry_date": ({"effective_from": CUT_OVER}, Rules(cut_over=CUT_OVER)),
    "per_tenant": ({"effective_from": {"a": CUT_OVER}}, Rules(cut_over={"a": CUT_OVER})),
    "posted_at": (
        {"effective_from": CUT_OVER, "effective_by": "posted_at"},
        Rules(cut_over=CUT_OVER, basis="posted_at"),
    ),
}

# -- what is drawn: small pools, so that things meet --------------------------------------------------------

# the account on which a source belongs; "own" in a line's plan
OWN_ACCOUNTS = {
    "vendor_invoice": "2400",
    "ehf_invoice": "2400",
    "vendor_payment": "2400",
    "customer_invoice": "1500",
    "customer_payment": "1500",
    "expense_claim": "2910",
}

tenants = st.sampled_from(["a", "a", "a", "b"])
days = st.sampled_from(DAYS)
nth = st.integers(0, 5)
ids = st.integers(1, 3)
references = st.sampled_from(["K1", None, " k\u00a01\t", "7", " "])
numbers = st.sampled_from(["7", "8", "k1"])
amounts = st.sampled_from(["100", "-100", "40", "-60", "0.01", "0"]).map(Decimal)
accounts = st.sampled_from(["own"] * 5 + ["2400", "1500", "4000"])
source_types = st.sampled_from(
    [
        "vendor_payment",
        "vendor_payment",
        "vendor_payment",
        "vendor_invoice",
        "vendor_invoice",
        "ehf_invoice",
        "customer_invoice",
        "customer_payment",
        "expense_claim",
        "payroll",
    ]
)
sources = st.integers(0, 7).flatmap(lambda n: st.tuples(source_types, ids) if n else st.none())
link_plans = st.tuples(source_types, ids, st.sampled_from([None, None, "write_off", "credit_note"]))
links = st.integers(0, 3).flatmap(lambda n: st.none() if n else link_plans)
line_plans = st.fixed_dictionaries(
    {
        "account": accounts,
        "signed": amounts,
        "credit_side": st.booleans(),
        "reference": references,
        "due_date": st.none() | days,
        "currency_amount": st.sampled_from([None, Decimal("12.345"), Decimal("-3")]),
        "link": links,
    }
)
document_plans = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["vendor_invoice"] * 3 + ["vendor_payment"] * 2 + list(MODELS)),
        "id": ids,
        "tenant": tenants,
        "party": st.sampled_from([0, 0, 0, 1]),
        "day": days,
        "due_date": st.none() | days,
        "number": numbers,
        "reference": references,
        "kind": st.sampled_from(["invoice", "invoice", "credit_note"]),
        "credits": st.none() | ids,
    }
)
entry_plans = st.fixed_dictionaries(
    {
        "tenant": tenants,
        "day": days,
        "at": st.sampled_from(MOMENTS),
        "source": sources,
        "lines": st.lists(line_plans, min_size=1, max_size=3),
        "posted": st.sampled_from([True, True, False]),
    }
)


def _furniture(name: str, id_: int, number: str, reference: str | None, tenant: str = "a") -> dict[str, Any]:
    common = {"party": 0, "day": DAYS[id_ % 3], "due_date": None, "kind": "invoice", "credits": None}
    return {"name": name, "id": id_, "tenant": tenant, "number": number, "reference": reference, **common}


# documents to begin with, so that most of what is drawn finds its source
FURNITURE = (
    _furniture("vendor_invoice", 1, "7", "K1"),
    _furniture("vendor_invoice", 2, "8", None),
    _furniture("vendor_payment", 1, "", "K1"),
    _furniture("vendor_payment", 2, "", None),
    _furniture("vendor_invoice", 3, "7", "K1", "b"),
    _furniture("vendor_payment", 3, "", "7"),
    _furniture("customer_invoice", 1, "k1", None),
    _furniture("customer_payment", 1, "", "k 1"),
    _furniture("expense_claim", 1, "1", None),
)

# -- what is done with it -----------------------------------------------------------------------------------


@cache
def sync_of(cut_over: str) -> LedgerSync:
    return LedgerSync(Settings(batch_lines_max=3, **CUT_OVERS[cut_over][0]))


@cache
def engine_of(purpose: str) -> Engine:
    """One in-memory database per purpose, emptied for each example: so statements are compiled once."""
    engine = open_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    furnish(engine)
    return engine


def furnish(engine: Engine) -> None:
    """Two parties of each kind for each tenant."""
    with Session(engine) as session:
        for tenant, party_ids in PARTY_IDS.items():
            for party_id in party_ids:
                for model in (Vendor, Customer, Employee):
                    session.add(model(id=party_id, tenant_id=tenant, number=str(party_id), name="x"))
        session.commit()


def open_books(purpose: str) -> Engine:
    engine = engine_of(purpose)
    with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            if table.name not in ("vendors", "customers", "employees"):
                connection.execute(table.delete())
    return engine


@pytest.fixture(scope="module", autouse=True)
def _close_the_books() -> Iterator[None]:
    yield
    for purpose in ("machine",):
        engine_of(purpose).dispose()
    engine_of.cache_clear()


def make_document(plan: dict[str, Any]) -> Any:
    model = MODELS[plan["name"]]
    values: dict[str, Any] = {
        "id": plan["id"],
        "tenant_id": plan["tenant"],
        "amount": 100,
        PARTIES[model]: PARTY_IDS[plan["tenant"]][plan["party"]],
    }
    if model in (VendorInvoice, CustomerInvoice):
        values |= {"invoice_number": plan["number"], "invoice_date": plan["day"], "due_date": plan["due_date"]}
        values |= {"payment_reference": plan["reference"], "kind": plan["kind"]}
    elif model is ExpenseClaim:
        values |= {"claim_number": plan["number"], "claim_date": plan["day"], "due_date": plan["due_date"]}
    else:
        values |= {"payment_date": plan["day"], "payment_reference": plan["reference"]}
    return model(**values)


def account_of(plan: dict[str, Any], source_type: str | None) -> str:
    if plan["account"] != "own":
        return str(plan["account"])
    return OWN_ACCOUNTS.get(plan["link"][0] if plan["link"] else source_type or "", "2400")


def make_line(plan: dict[str, Any], source_type: str | None) -> JournalLine:
    line = JournalLine(
        account_number=account_of(plan, source_type),
        reference=plan["reference"],
        due_date=plan["due_date"],
        currency_amount=plan["currency_amount"],
        **sides(plan["signed"], credit_side=plan["credit_side"]),
    )
    if plan["link"] is not None:
        line.link = make_link(plan["link"])
    return line


def make_link(plan: tuple[str, int, str | None]) -> SourceLink:
    return SourceLink(source_type=plan[0], source_id=plan[1], kind=plan[2])


def sides(signed: Decimal, *, credit_side: bool) -> dict[str, Decimal]:
    """Negative debits and credits occur in practice; what counts is debit less credit."""
    return {"debit": Decimal(0), "credit": -signed} if credit_side else {"debit": signed, "credit": Decimal(0)}


def make_entry(plan: dict[str, Any], number: int) -> JournalEntry:
    source_type, source_id = plan["source"] or (None, None)
    entry = JournalEntry(
        tenant_id=plan["tenant"],
        voucher_number=number,
        entry_date=plan["day"],
        source_type=source_type,
        source_id=source_id,
    )
    for line in plan["lines"]:
        entry.lines.append(make_line(line, source_type))
    balance(entry)
    if plan["posted"]:
        entry.post(plan["at"])
    return entry


def balance(entry: JournalEntry) -> None:
    entry.lines.append(JournalLine(account_number="4999", debit=-entry.balance))


class HookMachine(RuleBasedStateMachine):
    """An attached session, and everything that a host may do with it."""

    @initialize(
        cut_over=st.sampled_from(list(CUT_OVERS)),
        furnished=st.sampled_from([True, True, True, True, True, False]),
        documents=st.lists(document_plans, max_size=3),
        entries=st.lists(entry_plans, min_size=1, max_size=5),
        proved=st.sampled_from([False, False, False, True]),
    )
    def open(
        self,
        cut_over: str,
        furnished: bool,
        documents: list[dict[str, Any]],
        entries: list[dict[str, Any]],
        proved: bool,
    ) -> None:
        self.proved = proved  # the proof takes as long as all the rest, so it isn't asked for every time
        self.rules = CUT_OVERS[cut_over][1]
        self.sync, self.engine = self.prepared(cut_over)
        self.factory = sessionmaker(self.engine, autoflush=False)
        self.sync.attach(self.factory)
        self.session = self.factory()
        self.savepoints: list[Any] = []
        self.fresh: set[int] = set()  # entries that this transaction wrote or posted, so they can still change
        self.held = 0
        self.number = 0
        for plan in [*(FURNITURE if furnished else ()), *documents]:
            self.a_document_comes(plan)
        for plan in entries:
            self.an_entry_comes(plan)
        self.a_transaction_ends(True)

    def prepared(self, cut_over: str) -> tuple[LedgerSync, Engine]:
        """What the machine works with: a sync of that cut-over, and a database with nobody's books in it."""
        return sync_of(cut_over), open_books("machine")

    # -- finding something to work on

    def pick(self, model: Any, index: int, *where: Any) -> Any:
        self.session.flush()
        found = self.session.scalars(select(model).where(*where).order_by(*inspect(model).primary_key)).all()
        return found[index % len(found)] if found else None

    def changeable(self, index: int) -> JournalEntry | None:
        entry: JournalEntry | None = self.pick(
            JournalEntry, index, (JournalEntry.status == "draft") | JournalEntry.id.in_(self.fresh)
        )
        return entry

    def is_reversed(self, entry: JournalEntry) -> bool:
        return self.pick(JournalEntry, 0, JournalEntry.reverses_id == entry.id) is not None

    # -- documents

    @rule(plan=document_plans)
    def a_document_comes(self, plan: dict[str, Any]) -> None:
        self.session.flush()
        if self.session.get(MODELS[plan["name"]], plan["id"]) is not None:
            return
        document = make_document(plan)
        if plan["kind"] == "credit_note" and plan["credits"] is not None and hasattr(document, "credits_id"):
            credited = self.session.get(type(document), plan["credits"])
            if credited is not None and credited.tenant_id == plan["tenant"]:
                document.credits_id = credited.id
        self.session.add(document)

    @rule(
        name=st.sampled_from(["vendor_invoice", "customer_invoice", "vendor_payment"]),
        index=nth,
        plan=document_plans,
        what=st.sampled_from(["number", "reference", "day", "due_date", "party", "all"]),
        expired=st.booleans(),
    )
    def a_document_changes(self, name: str, index: int, plan: dict[str, Any], what: str, expired: bool) -> None:
        document = self.pick(MODELS[name], index)
        if document is None:
            return
        party = PARTIES[type(document)]
        new = {
            "number": {"invoice_number": plan["number"]},
            "reference": {"payment_reference": plan["reference"]},
            "day": {"invoice_date": plan["day"], "payment_date": plan["day"]},
            "due_date": {"due_date": plan["due_date"]},
            "party": {party: PARTY_IDS[document.tenant_id][plan["party"]]},
        }
        if expired:  # as everything is after a commit: then the old value isn't there to compare with
            self.session.expire(document)
        for field, values in new.items():
            for attribute, value in values.items():
                if what in (field, "all") and hasattr(type(document), attribute):
                    setattr(document, attribute, value)

    @rule(index=nth, number=st.none() | numbers, reference=references, expired=st.booleans())
    def an_invoice_is_renamed(self, index: int, number: str | None, reference: str | None, expired: bool) -> None:
        invoice = self.pick(VendorInvoice, index)
        if invoice is None:
            return
        if expired:
            self.session.expire(invoice)
        invoice.payment_reference = reference
        if number is not None:
            invoice.invoice_number = number

    @rule(name=st.sampled_from(list(MODELS)), index=nth, move=st.booleans())
    def a_document_goes(self, name: str, index: int, move: bool) -> None:
        document = self.pick(MODELS[name], index)
        if document is None:
            return
        # what is in use stays, by the guard or by a foreign key
        try:
            with self.session.begin_nested():
                if move:
                    document.tenant_id = "b" if document.tenant_id == "a" else "a"
                    setattr(document, PARTIES[type(document)], PARTY_IDS[document.tenant_id][0])
                else:
                    self.session.delete(document)
                self.session.flush()
        except (DocumentInUseError, IntegrityError) as error:
            note(f"refused: {type(error).__name__}")

    # -- entries

    @rule(plan=entry_plans)
    def an_entry_comes(self, plan: dict[str, Any]) -> None:
        self.number += 1
        entry = make_entry(plan, self.number)
        self.session.add(entry)
        self.session.flush()
        self.fresh.add(entry.id)

    @rule(plan=entry_plans, late=line_plans)
    def an_entry_comes_before_its_lines(self, plan: dict[str, Any], late: dict[str, Any]) -> None:
        self.an_entry_comes(plan)
        self.a_line_comes_late(-1, late)

    @rule(index=nth, plan=line_plans)
    def a_line_comes_late(self, index: int, plan: dict[str, Any]) -> None:
        entry = self.changeable(index)
        if entry is not None:
            entry.lines.append(make_line(plan, entry.source_type))
            balance(entry)

    @rule(index=nth, at=st.sampled_from(MOMENTS))
    def a_draft_is_posted(self, index: int, at: datetime) -> None:
        entry = self.pick(JournalEntry, index, JournalEntry.status == "draft")
        if entry is not None:
            if entry.balance or not entry.lines:
                balance(entry)
            entry.post(at)
            self.fresh.add(entry.id)

    @rule(index=nth)
    def a_posting_is_taken_back_at_once(self, index: int) -> None:
        entry = self.changeable(index)
        if entry is not None and not self.is_reversed(entry):
            entry.status = "draft"

    @rule(index=nth, source=sources, day=days)
    def an_entry_changes(self, index: int, source: tuple[str, int] | None, day: date) -> None:
        entry = self.changeable(index)
        if entry is not None:
            entry.source_type, entry.source_id = source or (None, None)
            entry.entry_date = day

    @rule(index=nth, line=nth, plan=line_plans, expired=st.booleans())
    def a_line_changes(self, index: int, line: int, plan: dict[str, Any], expired: bool) -> None:
        entry = self.changeable(index)
        if entry is not None:
            changed = entry.lines[line % len(entry.lines)]
            if expired:
                self.session.expire(changed)
            changed.account_number = account_of(plan, None)
            changed.reference = plan["reference"]
            changed.due_date = plan["due_date"]
            for name, value in sides(plan["signed"], credit_side=plan["credit_side"]).items():
                setattr(changed, name, value)

    @rule(index=nth, line=nth)
    def a_line_goes(self, index: int, line: int) -> None:
        entry = self.changeable(index)
        if entry is not None:
            entry.lines.remove(entry.lines[line % len(entry.lines)])
            if not entry.lines:
                balance(entry)

    @rule(index=nth)
    def an_entry_goes(self, index: int) -> None:
        entry = self.changeable(index)
        if entry is not None and not self.is_reversed(entry):
            self.session.delete(entry)

    @rule(index=nth, day=days)
    def an_entry_is_reversed(self, index: int, day: date) -> None:
        reversals = select(JournalEntry.reverses_id).where(JournalEntry.reverses_id.is_not(None))
        entry = self.pick(
            JournalEntry,
            index,
            JournalEntry.status == "posted",
            JournalEntry.reverses_id.is_(None),
            JournalEntry.id.not_in(reversals),
            JournalEntry.entry_date <= day,
        )
        if entry is not None and entry.lines and not entry.balance:
            self.number += 1
            reversal = entry.reverse(day, voucher_number=str(self.number))
            self.session.add(reversal)
            self.session.flush()
            self.fresh.add(reversal.id)

    # -- links

    @rule(index=nth, plan=st.none() | link_plans, expired=st.booleans())
    def a_link_changes(self, index: int, plan: tuple[str, int, str | None] | None, expired: bool) -> None:
        line = self.pick(JournalLine, index, JournalLine.account_number != "4999")
        if line is None:
            return
        if plan is None:
            line.link = None
        elif line.link is None:
            line.link = make_link(plan)
        else:
            link = line.link
            if expired:
                self.session.expire(link)
            link.source_type, link.source_id, link.kind = plan

    # -- transactions

    @rule()
    def a_savepoint_opens(self) -> None:
        if len(self.savepoints) < 3:
            self.savepoints.append((self.session.begin_nested(), set(self.fresh)))

    @precondition(lambda self: self.savepoints)
    @rule(keep=st.booleans())
    def a_savepoint_ends(self, keep: bool) -> None:
        savepoint, fresh = self.savepoints.pop()
        if keep:
            savepoint.commit()
        else:
            savepoint.rollback()
            self.fresh = fresh

    @rule(keep=st.sampled_from([True, True, False]))
    def a_transaction_ends(self, keep: bool) -> None:
        while self.savepoints:
            self.a_savepoint_ends(keep)
        if keep:
            self.session.commit()
        else:
            self.session.rollback()
        self.fresh = set()

    @rule()
    def everything_loaded_expires(self) -> None:
        self.session.flush()
        self.session.expire_all()

    @rule(steps=st.integers(1, 3))
    def the_next_changes_share_a_flush(self, steps: int) -> None:
        self.held = steps

    # -- what must hold

    @invariant()
    def rows_are_what_the_oracle_says(self) -> None:
        if self.held:
            self.held -= 1
            return
        self.session.flush()
        self.holds()

    def holds(self) -> None:
        assert_synced(self.session.connection(), self.rules)

    def teardown(self) -> None:
        if not hasattr(self, "session"):
            return
        try:
            if sys.exc_info()[0] is None:
                self.held = 0
                self.a_transaction_ends(True)
                self.at_the_end()
        finally:
            self.session.close()

    def at_the_end(self) -> None:
        self.rows_are_what_the_oracle_says()
        connection = self.session.connection()
        books, before = read_books(connection), read_items(connection)
        for tenant in TENANTS if self.proved else ():
            proof = self.sync.verify(self.session, tenant)
            assert proof.clean, proof
            proved = {a.account_number: {c.name: (c.count, c.amount) for c in a.causes} for a in proof.accounts}
            expected = {"1500": {}, "2400": {}, "2910": {}} | expected_causes(books, self.rules, tenant)
            assert proved == expected
            for account in proof.accounts:
                assert account.difference == sum((c.amount for c in account.causes), Decimal(0))
        self.session.rollback()
        assert self.sync.backfill(self.factory, tenant_id=ALL_TENANTS).synced == 0
        assert read_items(self.session.connection()) == before


HookMachine.TestCase.settings = settings(
    max_examples=at_length(200, 20_000, 2), stateful_step_count=at_length(50, 50, 25)
)
TestWhateverHappensRowsAreWhatTheOracleSays = HookMachine.TestCase


# -- one party's documents ----------------------------------------------------------------------------------

# The machine goes everywhere, and so seldom anywhere twice. Here all that is drawn concerns a few invoices and the
# payments that name them: who settles what, and with a cut-over, what lies before it.
party_entries = st.fixed_dictionaries(
    {
        "tenant": st.just("a"),
        "day": days,
        "at": st.sampled_from(MOMENTS),
        "source": st.tuples(st.sampled_from(["vendor_payment", "vendor_invoice"]), st.integers(1, 2)),
        "lines": st.lists(
            st.fixed_dictionaries(
                {
                    "account": st.just("2400"),
                    "signed": st.sampled_from([Decimal(100), Decimal(-100)]),
                    "credit_side": st.booleans(),
                    "reference": st.sampled_from([None, None, "7", "8", "K1"]),
                    "due_date": st.none(),
                    "currency_amount": st.none(),
                    "link": st.none(),
                }
            ),
            min_size=1,
            max_size=1,
        ),
        "posted": st.sampled_from([True, True, True, False]),
    }
)
party_documents = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["vendor_invoice", "vendor_payment"]),
        "id": st.integers(1, 5),
        "tenant": st.just("a"),
        "party": st.sampled_from([0, 0, 1]),
        "day": days,
        "due_date": st.none(),
        "number": numbers,
        "reference": references,
        "kind": st.sampled_from(["invoice", "invoice", "credit_note"]),
        "credits": st.none() | st.integers(1, 2),
    }
)


def step(rule_name: str, /, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.tuples(st.just(rule_name), st.fixed_dictionaries(arguments))


rename = step(
    "an_invoice_is_renamed", index=nth, number=st.none() | numbers, reference=references, expired=st.booleans()
)
party_steps = st.one_of(
    rename,
    rename,
    rename,
    step("an_entry_comes", plan=party_entries),
    step("a_document_comes", plan=party_documents),
    step(
        "a_document_changes",
        name=st.sampled_from(["vendor_invoice", "vendor_payment"]),
        index=nth,
        plan=party_documents,
        what=st.sampled_from(["day", "party", "all"]),
        expired=st.booleans(),
    ),
    step("a_document_goes", name=st.just("vendor_invoice"), index=nth, move=st.booleans()),
    step("an_entry_changes", index=nth, source=st.none() | party_entries.map(lambda p: p["source"]), day=days),
    step("a_link_changes", index=nth, plan=st.none() | party_entries.map(lambda p: (*p["source"], None))),
    step("an_entry_is_reversed", index=nth, day=days),
    step("a_posting_is_taken_back_at_once", index=nth),
    step("a_draft_is_posted", index=nth, at=st.sampled_from(MOMENTS)),
    step("a_line_goes", index=nth, line=nth),
    step("a_transaction_ends", keep=st.just(True)),
    step("everything_loaded_expires"),
)


@settings(max_examples=examples(200))
@given(
    cut_over=st.sampled_from(list(CUT_OVERS)),
    entries=st.lists(party_entries, min_size=2, max_size=5),
    committed=st.booleans(),
    steps=st.lists(party_steps, min_size=2, max_size=10),
)
def test_payments_follow_the_documents_that_they_name(
    cut_over: str, entries: list[dict[str, Any]], committed: bool, steps: list[tuple[str, dict[str, Any]]]
) -> None:
    machine = HookMachine()
    machine.open(cut_over, True, [], [], False)
    try:
        for plan in entries:
            machine.an_entry_comes(plan)
        if committed:
            machine.a_transaction_ends(True)
        machine.rows_are_what_the_oracle_says()
        for name, arguments in steps:
            getattr(machine, name)(**{"expired": False, **arguments} if name == "a_link_changes" else arguments)
            machine.rows_are_what_the_oracle_says()
    finally:
        machine.session.close()


# -- hook, backfill and repair --------------------------------------------------------------------------------------


def replay(session: Session, history: list[tuple[str, Any]]) -> None:
    """The history as a host would write it; vouchers have the same numbers whatever the order."""
    for number, (what, plan) in history:  # type: ignore[misc]
        if what == "document":
            if session.get(MODELS[plan["name"]], plan["id"]) is None:
                session.add(make_document(plan))
        elif what == "entry":
            session.add(make_entry(plan, number))
        else:
            entries = session.scalars(
                select(JournalEntry).where(JournalEntry.status == "posted", JournalEntry.reverses_id.is_(None))
            ).all()
            entries = sorted((e for e in entries if e.reversed_by is None), key=lambda e: int(e.voucher_number))
            if entries:
                session.add(entries[plan % len(entries)].reverse(DAYS[-1], voucher_number=str(number)))
        session.commit()


def by_voucher(session: Session) -> dict[tuple[str, str, int], dict[str, Any]]:
    connection = session.connection()
    books = read_books(connection)
    rows = {}
    for (ledger, line_id), item in read_items(connection).items():
        line = books.lines[line_id]
        entry = books.entries[line.entry_id]
        values = {n: v for n, v in item.items() if n not in ("general_ledger_id", "general_ledger_line_id")}
        rows[entry.tenant, entry.number, line.line_number] = {"ledger": ledger, **values}
    return rows


def by_places(engine: Engine) -> dict[str, Any]:
    """All that is stored, by vouchers and lines, since every database numbers in an order of its own."""
    with Session(engine) as session:
        found: dict[str, Any] = {"rows": by_voucher(session)}
        for ledger in ("supplier", "customer", "employee"):
            found[ledger] = read_settled(session.connection(), ledger).by_voucher()
        return found


@settings(max_examples=at_length(200, 10_000, 2))
@given(
    documents=st.lists(document_plans, max_size=5),
    entries=st.lists(entry_plans, min_size=1, max_size=8),
    reversals=st.lists(nth, max_size=2),
    cut_over=st.sampled_from(list(CUT_OVERS)),
    mixed=st.randoms(use_true_random=False),
)
def test_hook_backfill_and_repair_write_the_same_in_any_order(
    documents: list[dict[str, Any]],
    entries: list[dict[str, Any]],
    reversals: list[int],
    cut_over: str,
    mixed: random.Random,
) -> None:
    """One history, live, backfilled, repaired, and live in another order; a second run changes nothing."""
    sync, rules = sync_of(cut_over), CUT_OVERS[cut_over][1]
    named = {(plan["name"], plan["id"]): plan for plan in documents}.values()  # which of two it is depends on the order
    steps: Any = list(enumerate([*(("document", p) for p in named), *(("entry", p) for p in entries)], start=1))
    last: Any = list(enumerate((("reversal", index) for index in reversals), start=len(steps) + 1))
    shuffled = [*steps]
    mixed.shuffle(shuffled)
    stored = {}
    for way, order in {"live": steps, "shuffled": shuffled, "backfill": shuffled, "repair": shuffled}.items():
        engine = open_books("machine")
        factory = sessionmaker(engine)
        if way in {"live", "shuffled"}:
            sync.attach(factory)
        with factory() as session:
            replay(session, [*order, *last])
            assert way in {"live", "shuffled"} or not read_items(session.connection())
        if way == "backfill":
            sync.backfill(factory, tenant_id=ALL_TENANTS)
        for tenant in TENANTS if way == "repair" else ():
            sync.repair(factory, tenant_id=tenant)
        stored[way] = by_places(engine)
        with factory() as session:
            assert_synced(session.connection(), rules)
            assert_settled(session.connection())
        second = sync.backfill(factory, tenant_id=ALL_TENANTS)
        again = [sync.repair(factory, tenant_id=tenant) for tenant in TENANTS]
        assert (second.synced, second.applied, [report.synced for report in again]) == (0, 0, [0, 0]), way
        assert by_places(engine) == stored[way], way
    for way in ("shuffled", "backfill", "repair"):
        assert stored[way] == stored["live"], way
