"""A standard body's sample company, with another country's chart: every øre of it, however it arrives."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache, partial
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync, Settings
from ledger_sync.models import (
    Customer,
    CustomerInvoice,
    CustomerLedger,
    JournalEntry,
    JournalLine,
    SourceLink,
    SupplierLedger,
    Vendor,
    VendorInvoice,
)
from ledger_sync.proof import Proof
from ledger_sync.reports import OpenItem
from ledger_sync.settings import ControlAccount
from tests.conftest import empty, shared_file
from tests.settlement_oracle import Stored, assert_settled, read

TENANT = "ovningsbolaget"
SETTINGS = Settings(
    control_accounts=(
        ControlAccount(accounts=("1510",), ledger="customer"),
        ControlAccount(accounts=("2440",), ledger="supplier"),
    )
)
SYNC = LedgerSync(SETTINGS)
KINDS: dict[str, tuple[Any, Any, str, Any]] = {
    "customer_invoice": (CustomerInvoice, Customer, "customer_id", CustomerLedger),
    "vendor_invoice": (VendorInvoice, Vendor, "vendor_id", SupplierLedger),
}
SEEDS = (1, 2, 3)


@cache
def company() -> dict[str, Any]:
    books: dict[str, Any] = json.loads(shared_file("books/ovningsbolaget.json").read_text())
    return books


def file_documents(session: Session) -> dict[str, int]:
    """Insert every party and document; the id of each document by its name in the file."""
    ids: dict[str, int] = {}
    parties: dict[tuple[str, str], int] = {}
    for plan in company()["documents"]:
        kind = plan["document"].split(":")[0]
        model, party_model, party_name, _ = KINDS[kind]
        who = (kind, plan["party"])
        if who not in parties:
            party = party_model(tenant_id=TENANT, number=plan["party"], name=plan["party"])
            session.add(party)
            session.flush()
            parties[who] = party.id
        amount = Decimal(plan["amount"])
        document = model(
            tenant_id=TENANT,
            invoice_number=plan["number"],
            invoice_date=date.fromisoformat(plan["date"]),
            currency="SEK",
            amount=abs(amount),
            kind="credit_note" if amount < 0 else "invoice",
            **{party_name: parties[who]},
        )
        session.add(document)
        session.flush()
        ids[plan["document"]] = document.id
    return ids


def post(session: Session, plan: dict[str, Any], ids: dict[str, int]) -> None:
    series, _, number = plan["voucher"].rpartition("/")
    entry = JournalEntry(
        tenant_id=TENANT,
        voucher_series=series,
        voucher_number=number,
        entry_date=date.fromisoformat(plan["date"]),
        description=plan["text"],
    )
    for line_plan in plan["lines"]:
        amount = Decimal(line_plan["amount"])
        sides = {"debit": amount} if amount > 0 else {"credit": -amount}
        line = JournalLine(account_number=line_plan["account"], currency="SEK", **sides)
        if (document := line_plan.get("document")) is not None:
            line.link = SourceLink(source_type=document.split(":")[0], source_id=ids[document])
        entry.lines.append(line)
    entry.post()
    session.add(entry)


def keep_books(engine: Engine, entries: Iterable[dict[str, Any]], *, paused: bool = False) -> None:
    """Post entries one by one, each in a flush of its own, and ten to a transaction."""
    factory = sessionmaker(engine)
    SYNC.attach(factory)
    with factory() as session:
        ids = file_documents(session)
        for index, plan in enumerate(entries):
            if paused:
                with SYNC.paused(session):
                    post(session, plan, ids)
            else:
                post(session, plan, ids)
                session.flush()
            if index % 10 == 0:
                session.commit()
        session.commit()


def by_hook(engine: Engine) -> None:
    keep_books(engine, company()["entries"])


def shuffled(engine: Engine, seed: int) -> None:
    entries = list(company()["entries"])
    random.Random(seed).shuffle(entries)
    assert entries != company()["entries"]
    keep_books(engine, entries)


def by_backfill(engine: Engine) -> None:
    keep_books(engine, company()["entries"], paused=True)
    with Session(engine) as session:
        assert session.scalars(select(CustomerLedger)).first() is None
        assert session.scalars(select(SupplierLedger)).first() is None
    SYNC.backfill(sessionmaker(engine), tenant_id=TENANT)


WAYS: dict[str, Any] = {"file order": by_hook, "one backfill": by_backfill}
for seed in SEEDS:
    WAYS[f"shuffled {seed}"] = partial(shuffled, seed=seed)


@dataclass(frozen=True)
class Books:
    """What the books say once everything has arrived."""

    remaining: dict[str, Decimal]
    open_items: tuple[OpenItem, ...]
    proof: Proof
    stored: dict[str, Stored]


def look(engine: Engine) -> Books:
    remaining: dict[str, Decimal] = {}
    with Session(engine) as session:
        for name, (model, _, _, item_model) in KINDS.items():
            names = {f"{name}:{d.id}": f"{name}:{d.invoice_number}" for d in session.scalars(select(model))}
            for item in session.scalars(select(item_model)):
                document = names[item.settlement_key]
                remaining[document] = remaining.get(document, Decimal(0)) + item.remaining_amount
        assert_settled(session.connection())
        return Books(
            remaining,
            SYNC.open_items(session, TENANT),
            SYNC.verify(session, TENANT),
            {ledger: read(session.connection(), ledger) for ledger in ("customer", "supplier")},
        )


@pytest.fixture(scope="module")
def kept() -> dict[tuple[str, str], Books]:
    """What each way led to on each database; each is gone through once."""
    return {}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def books(way: str, engine: Engine, kept: dict[tuple[str, str], Books]) -> Books:
    return in_the_way(way, engine, kept)


def in_the_way(way: str, engine: Engine, kept: dict[tuple[str, str], Books]) -> Books:
    place = (engine.dialect.name, way)
    if place not in kept:
        empty(engine)
        WAYS[way](engine)
        kept[place] = look(engine)
    return kept[place]


def test_every_document_has_the_remaining_amount_that_the_standard_body_says(books: Books) -> None:
    expected = {plan["document"]: Decimal(plan["expected_remaining"]) for plan in company()["documents"]}
    assert len(expected) == 48
    assert books.remaining == expected


def test_the_open_items_add_up_to_receivables_and_payables(books: Books) -> None:
    open_of = dict.fromkeys(("customer", "supplier"), Decimal(0))
    for item in books.open_items:
        open_of[item.ledger] += item.remaining_amount
    assert open_of == {"customer": Decimal("550231.00"), "supplier": Decimal("126183.00")}


def test_payables_differ_by_source_less_lines_alone(books: Books) -> None:
    payables = books.proof.account("2440")
    assert payables.gl_balance == Decimal("127583.00")
    assert payables.subledger_balance == Decimal("126183.00")
    assert payables.difference == Decimal("1400.00")
    (manual,) = payables.causes
    assert (manual.name, manual.count, manual.amount) == ("manual", 2, Decimal("1400.00"))
    assert sorted(example.amount for example in manual.examples) == [Decimal("-239232.00"), Decimal("240632.00")]


def test_receivables_differ_by_nothing_and_say_what_cancels_out(books: Books) -> None:
    receivables = books.proof.account("1510")
    assert receivables.gl_balance == receivables.subledger_balance == Decimal("550231.00")
    assert receivables.difference == 0
    assert [(cause.name, cause.count, cause.amount) for cause in receivables.causes] == [("manual", 2, Decimal(0))]
    amounts = sorted(example.amount for example in receivables.causes[0].examples)
    assert amounts == [Decimal("-432056.00"), Decimal("432056.00")]


def test_nothing_is_called_a_fault(books: Books) -> None:
    assert books.proof.clean
    assert {account.account_number for account in books.proof.accounts} == {"1510", "2440"}


def test_each_pair_of_lines_has_the_same_net_application_as_in_file_order(
    way: str, engine: Engine, books: Books, kept: dict[tuple[str, str], Books]
) -> None:
    first = in_the_way("file order", engine, kept)
    for ledger, stored in books.stored.items():
        net, left = stored.by_voucher()
        assert len(net) > 3
        assert (net, left) == first.stored[ledger].by_voucher(), way


def test_a_backfill_after_the_hook_changes_nothing(engine: Engine) -> None:
    by_hook(engine)
    with engine.connect() as connection:
        before = [read(connection, ledger) for ledger in ("customer", "supplier")]
    report = SYNC.backfill(sessionmaker(engine), tenant_id=TENANT)
    assert {stage.stage: (stage.synced, stage.applied) for stage in report.stages}["settling"] == (0, 0)
    with engine.connect() as connection:
        assert [read(connection, ledger) for ledger in ("customer", "supplier")] == before
