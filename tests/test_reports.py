"""Ageing, specification and statement: each column on its boundary, and every total the subledger's balance."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.errors import ConfigurationError, NotInTheBooksError
from ledger_sync.models import Base
from ledger_sync.reports import AgeingRow
from tests.books import DAY, customer, customer_invoice, customer_payment, entry, vendor_invoice
from tests.budget import EXAMPLES
from tests.conftest import empty

TODAY = date(2026, 6, 30)


@pytest.fixture(scope="module")
def sync() -> LedgerSync:
    """One for all tests here, since it keeps the statements that it has built."""
    return LedgerSync()


def owed(session: Session, amount: object = 100, on: date = DAY, **more: Any) -> Any:
    """A customer invoice of that day and its posting, committed; the invoice."""
    invoice = customer_invoice(session, amount, **{"invoice_date": on, **more})
    tenant = invoice.tenant_id
    entry(session, "1500", amount, ("customer_invoice", invoice.id), on=on, tenant=tenant, contra="3000")
    session.commit()
    return invoice


def received(session: Session, amount: object, on: date = DAY, **more: Any) -> Any:
    """A customer payment of that day and its posting, committed; the payment."""
    payment = customer_payment(session, amount, **{"payment_date": on, **more})
    signed = -Decimal(str(amount))
    entry(session, "1500", signed, ("customer_payment", payment.id), on=on, tenant=payment.tenant_id, contra="1920")
    session.commit()
    return payment


def aged(session: Session, sync: LedgerSync, as_of: date = TODAY, **more: Any) -> AgeingRow:
    """The one party's row."""
    (row,) = sync.ageing(session, "acme", as_of=as_of, ledgers=["customer"], **more).rows
    return row


def behind_the_hook(session: Session, statement: str) -> None:
    with session.get_bind().begin() as connection:  # type: ignore[union-attr]
        connection.execute(text(statement))


# -- ageing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "bucket"), [(-1, None), (0, None), (1, 0), (30, 0), (31, 1), (60, 1), (61, 2), (90, 2), (91, 3), (900, 3)]
)
def test_an_item_is_in_the_bucket_of_the_days_that_it_is_overdue(
    session: Session, sync: LedgerSync, days: int, bucket: int | None
) -> None:
    owed(session, due_date=TODAY - timedelta(days=days), on=date(2023, 1, 1))
    row = aged(session, sync)
    columns = [row.not_due, *row.overdue]
    assert columns == [100 if index == (0 if bucket is None else bucket + 1) else 0 for index in range(5)]


def test_buckets_have_names(session: Session, sync: LedgerSync) -> None:
    assert sync.ageing(session, "acme", as_of=TODAY).buckets == ("1-30", "31-60", "61-90", "over 90")


def test_buckets_can_be_chosen(session: Session, sync: LedgerSync) -> None:
    owed(session, 1, due_date=TODAY - timedelta(days=14))
    owed(session, 2, due_date=TODAY - timedelta(days=15))
    found = sync.ageing(session, "acme", as_of=TODAY, buckets=(14,))
    assert (found.buckets, found.rows[0].overdue) == (("1-14", "over 14"), (Decimal(1), Decimal(2)))


@pytest.mark.parametrize("buckets", [(), (0,), (-30, 30), (30, 30), (60, 30)])
def test_buckets_that_make_no_sense_are_refused(session: Session, sync: LedgerSync, buckets: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="buckets="):
        sync.ageing(session, "acme", as_of=TODAY, buckets=buckets)


def test_a_bucket_that_ends_before_the_calendar_begins_is_refused(session: Session, sync: LedgerSync) -> None:
    with pytest.raises(ConfigurationError, match="buckets="):
        sync.ageing(session, "acme", as_of=TODAY, buckets=(10_000_000,))


def test_credits_are_in_a_column_of_their_own(session: Session, sync: LedgerSync) -> None:
    owed(session, 100, due_date=TODAY)
    received(session, 30)
    row = aged(session, sync)
    assert (row.not_due, row.credits, row.total) == (100, -30, 70)


def test_an_item_without_a_due_date_is_counted_by_its_documents_date(session: Session, sync: LedgerSync) -> None:
    owed(session, due_date=None, on=TODAY - timedelta(days=31))
    assert aged(session, sync).overdue == (0, 100, 0, 0)


def test_what_has_no_due_date_is_flagged(session: Session, sync: LedgerSync) -> None:
    owed(session, 100, due_date=None)
    owed(session, 60)
    assert aged(session, sync).without_due_date == 100


def test_a_credit_without_a_due_date_is_not_flagged(session: Session, sync: LedgerSync) -> None:
    received(session, 30)
    assert aged(session, sync).without_due_date == 0


def test_a_later_payment_does_not_change_what_was_open_on_a_past_day(session: Session, sync: LedgerSync) -> None:
    owed(session, 100, payment_reference="K1", due_date=DAY)
    received(session, 40, date(2026, 5, 1), payment_reference="K1")
    totals = [aged(session, sync, day).overdue[1] for day in (date(2026, 4, 30), date(2026, 5, 1))]
    assert totals == [100, 0]  # 60 and 61 days after the due date
    assert aged(session, sync, date(2026, 5, 1)).overdue[2] == 60


def test_a_party_that_owes_nothing_is_left_out(session: Session, sync: LedgerSync) -> None:
    owed(session, 100, payment_reference="K1")
    received(session, 100, payment_reference="K1")
    assert sync.ageing(session, "acme", as_of=TODAY, ledgers=["customer"]).rows == ()


def test_parties_are_listed_by_number(session: Session, sync: LedgerSync) -> None:
    for party in ("C2", "C1"):
        owed(session, party=party)
    rows = sync.ageing(session, "acme", as_of=TODAY).rows
    assert [row.party_number for row in rows] == ["C1", "C2"]


def test_an_ageing_is_of_one_tenant(session: Session, sync: LedgerSync) -> None:
    owed(session, tenant="other")
    assert sync.ageing(session, "acme", as_of=TODAY).rows == ()


def test_suppliers_are_aged_in_their_own_direction(session: Session, sync: LedgerSync) -> None:
    invoice = vendor_invoice(session, due_date=TODAY)
    entry(session, source=("vendor_invoice", invoice.id))
    session.commit()
    assert [row.not_due for row in sync.ageing(session, "acme", as_of=TODAY, ledgers=["supplier"]).rows] == [100]


ORPHANED = "UPDATE customer_ledger SET general_ledger_id = 900, general_ledger_line_id = 900"
"""What a voucher leaves behind that somebody deleted by plain SQL."""


@pytest.mark.parametrize("as_of", [None, TODAY])
def test_the_ageing_adds_up_to_the_subledger_though_a_rows_entry_is_gone(
    session: Session, sync: LedgerSync, as_of: date | None
) -> None:
    owed(session)
    behind_the_hook(session, ORPHANED)
    balance = sync.verify(session, "acme", as_of).account("1500").subledger_balance
    assert sync.ageing(session, "acme", as_of=as_of).total("customer") == balance == 100


def test_open_items_add_up_to_the_subledger_though_a_rows_entry_is_gone(session: Session, sync: LedgerSync) -> None:
    owed(session)
    behind_the_hook(session, ORPHANED)
    assert sum(item.remaining_amount for item in sync.open_items(session, "acme")) == 100


@pytest.mark.parametrize("as_of", [None, TODAY])
@pytest.mark.parametrize("include_settled", [False, True])
def test_a_limit_of_open_items_reads_the_first_of_them_and_no_more_rows(
    session: Session, sync: LedgerSync, as_of: date | None, include_settled: bool
) -> None:
    for amount in (10, 20, 30):
        owed(session, amount)
    owed(session, 40, payment_reference="KID40")
    received(session, 40, payment_reference="KID40")
    entry(session, signed=-50, source=("vendor_invoice", vendor_invoice(session, 50).id))
    session.commit()
    given = {"as_of": as_of, "include_settled": include_settled}
    everything = sync.open_items(session, "acme", **given)
    assert {item.ledger for item in everything} == {"supplier", "customer"}
    assert any(not item.remaining_amount for item in everything) == include_settled
    for limit in range(len(everything) + 2):
        asked: list[str] = []

        def heard(*told: Any, asked: list[str] = asked) -> None:
            asked.append(told[2])

        event.listen(session.connection(), "before_cursor_execute", heard)
        assert sync.open_items(session, "acme", limit=limit, **given) == everything[:limit]
        event.remove(session.connection(), "before_cursor_execute", heard)
        assert all("LIMIT" in statement for statement in asked)


def test_the_specification_adds_up_to_the_subledger_though_a_rows_entry_is_gone(
    session: Session, sync: LedgerSync
) -> None:
    owed(session)
    behind_the_hook(session, ORPHANED)
    assert sync.specification(session, "acme", "customer").closing == 100


# -- specification and statement --------------------------------------------------------------------------


def test_a_statement_runs_from_its_opening_to_its_closing_balance(session: Session, sync: LedgerSync) -> None:
    owed(session, 100, date(2026, 1, 10))
    owed(session, 50, date(2026, 2, 10))
    received(session, 30, date(2026, 2, 20))
    party = customer(session).id
    found = sync.statement(session, "acme", "customer", party, since=date(2026, 2, 1), until=date(2026, 2, 28))
    assert (found.opening, [m.balance for m in found.movements], found.closing) == (100, [150, 120], 120)


def test_a_statement_of_an_unknown_party_raises(session: Session, sync: LedgerSync) -> None:
    with pytest.raises(NotInTheBooksError, match="Party 99 of the customer ledger"):
        sync.statement(session, "acme", "customer", 99)


def test_a_statement_of_another_tenants_party_raises(session: Session, sync: LedgerSync) -> None:
    theirs = owed(session, tenant="other").customer_id
    with pytest.raises(NotInTheBooksError):
        sync.statement(session, "acme", "customer", theirs)


def test_a_period_that_ends_before_it_begins_is_refused(session: Session, sync: LedgerSync) -> None:
    party = owed(session).customer_id
    period: dict[str, Any] = {"since": date(2026, 3, 2), "until": date(2026, 3, 1)}
    for ask in (
        lambda: sync.specification(session, "acme", "customer", **period),
        lambda: sync.statement(session, "acme", "customer", party, **period),
    ):
        with pytest.raises(ConfigurationError, match="since=2026-03-02 is after until=2026-03-01"):
            ask()


def test_a_party_of_another_tenant_is_nameless_in_every_report() -> None:
    # the ready-made tables refuse such a document where foreign keys are looked after, a host's own may not
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    sync, factory = LedgerSync(), sessionmaker(engine)
    sync.attach(factory)
    with factory() as session:
        theirs = customer(session, tenant="other", number="SECRET")
        theirs.name = "SECRET AS"
        session.flush()
        invoice = customer_invoice(session, 100)
        invoice.customer_id = theirs.id
        session.flush()
        entry(session, "1500", 100, ("customer_invoice", invoice.id))
        customer_invoice(session, 70).customer_id = theirs.id
        entry(session, "1500", 70, description="SECRET AS")
        session.commit()
        told = [
            *sync.open_items(session, "acme"),
            sync.ageing(session, "acme"),
            sync.specification(session, "acme", "customer"),
            sync.explain(session, invoice),
            sync.match(session, "acme"),
        ]
        assert not any("SECRET" in one.model_dump_json() for one in told)
        assert sync.open_items(session, "acme")[0].amount == 100
    engine.dispose()


def test_a_party_that_is_square_and_has_no_movements_still_has_a_statement(session: Session, sync: LedgerSync) -> None:
    """It raises for a party without items until the end of the period, it says; this one has two."""
    owed(session, 100, date(2026, 1, 10))
    received(session, 100, date(2026, 1, 20))
    party = customer(session).id
    assert sync.statement(session, "acme", "customer", party, since=date(2026, 2, 1)).closing == 0


def test_a_party_that_is_square_and_has_no_movements_is_not_specified(session: Session, sync: LedgerSync) -> None:
    owed(session, 100, date(2026, 1, 10))
    received(session, 100, date(2026, 1, 20))
    assert sync.specification(session, "acme", "customer", since=date(2026, 2, 1)).parties == ()


DAYS = [date(2026, 1, 1) + timedelta(days=10 * index) for index in range(6)]
postings = st.lists(
    st.fixed_dictionaries(
        {
            "tenant": st.sampled_from(["acme", "acme", "other"]),
            "party": st.sampled_from(["C1", "C2"]),
            "amount": st.sampled_from(["100", "60", "40", "-100", "-40", "0.01"]).map(Decimal),
            "day": st.sampled_from(DAYS),
            "reference": st.sampled_from([None, "K1", "K2"]),
            "overdue": st.sampled_from([-5, 0, 1, 30, 31, 60, 61, 90, 91]),
        }
    ),
    min_size=1,
    max_size=10,
)
quiet = settings(
    max_examples=max(EXAMPLES // 4, 1),
    suppress_health_check=[*settings.get_profile("ci").suppress_health_check, HealthCheck.function_scoped_fixture],
)
Postings = list[dict[str, Any]]


def post(engine: Engine, sync: LedgerSync, plans: Postings) -> sessionmaker[Session]:
    """The plans as books; a negative amount is a payment. Numbers begin at 8, so that some have two digits."""
    empty(engine)
    factory = sessionmaker(engine)
    sync.attach(factory)
    with factory() as session:
        for number, plan in enumerate(plans, start=8):
            amount, day = plan["amount"], plan["day"]
            common = {"tenant": plan["tenant"], "party": plan["party"], "payment_reference": plan["reference"]}
            if amount > 0:
                due = TODAY - timedelta(days=plan["overdue"])
                document = customer_invoice(session, amount, invoice_date=day, due_date=due, **common)
            else:
                document = customer_payment(session, -amount, payment_date=day, **common)
            source = ("customer_invoice" if amount > 0 else "customer_payment", document.id)
            entry(session, "1500", amount, source, on=day, tenant=plan["tenant"], voucher_number=str(number))
        session.commit()
    return factory


def accounts_of(plans: Postings, since: date, until: date) -> dict[str, Any]:
    """By party of acme: opening balance, movements as (voucher, amount, balance), closing balance."""
    by_party: dict[str, list[tuple[date, int, Decimal]]] = defaultdict(list)
    for number, plan in enumerate(plans, start=8):
        if plan["tenant"] == "acme" and plan["day"] <= until:
            by_party[plan["party"]].append((plan["day"], number, plan["amount"]))
    accounts = {}
    for party, lines in by_party.items():
        opening = balance = sum((amount for day, _, amount in lines if day < since), Decimal(0))
        movements = []
        for day, number, amount in sorted(lines):
            if day >= since:
                balance += amount
                movements.append((f"{number}/2026", amount, balance))
        if opening or movements:
            accounts[party] = (opening, movements, balance)
    return accounts


@quiet
@given(plans=postings, since=st.sampled_from(DAYS), until=st.sampled_from(DAYS))
def test_a_specification_is_what_adding_up_the_postings_gives(
    engine: Engine, sync: LedgerSync, plans: Postings, since: date, until: date
) -> None:
    since, until = min(since, until), max(since, until)
    with post(engine, sync, plans)() as session:
        found = sync.specification(session, "acme", "customer", since=since, until=until)
    stated = {
        party.party_number: (party.opening, [(m.voucher, m.amount, m.balance) for m in party.movements], party.closing)
        for party in found.parties
    }
    assert stated == accounts_of(plans, since, until)


@quiet
@given(plans=postings, since=st.sampled_from(DAYS), until=st.sampled_from(DAYS))
def test_the_closing_balances_add_up_to_the_subledger_of_that_day(
    engine: Engine, sync: LedgerSync, plans: Postings, since: date, until: date
) -> None:
    since, until = min(since, until), max(since, until)
    with post(engine, sync, plans)() as session:
        found = sync.specification(session, "acme", "customer", since=since, until=until)
        assert found.closing == sync.verify(session, "acme", until).account("1500").subledger_balance


@quiet
@given(plans=postings, day=st.sampled_from(DAYS))
def test_a_statement_is_the_partys_part_of_the_specification(
    engine: Engine, sync: LedgerSync, plans: Postings, day: date
) -> None:
    with post(engine, sync, plans)() as session:
        for party in sync.specification(session, "acme", "customer", since=day).parties:
            assert sync.statement(session, "acme", "customer", party.party_id, since=day) == party


@quiet
@given(plans=postings, day=st.sampled_from(DAYS))
def test_an_ageing_adds_up_to_the_subledger_of_its_day(
    engine: Engine, sync: LedgerSync, plans: Postings, day: date
) -> None:
    with post(engine, sync, plans)() as session:
        balance = sync.verify(session, "acme", day).account("1500").subledger_balance
        assert sync.ageing(session, "acme", as_of=day).total("customer") == balance


@quiet
@given(plans=postings)
def test_the_columns_of_an_ageing_add_up_to_its_total(engine: Engine, sync: LedgerSync, plans: Postings) -> None:
    with post(engine, sync, plans)() as session:
        for row in sync.ageing(session, "acme", as_of=TODAY).rows:
            assert row.not_due + sum(row.overdue) + row.credits == row.total


def test_a_ledger_that_is_named_twice_is_counted_once(session: Session, sync: LedgerSync) -> None:
    owed(session, 10)
    once, twice = (["customer"] * times for times in (1, 2))
    items = sync.open_items(session, "acme", ledgers=twice)
    assert items == sync.open_items(session, "acme", ledgers=once)
    assert len(items) == 1
    for as_of in (None, TODAY):
        ageing = sync.ageing(session, "acme", as_of=as_of, ledgers=twice)
        assert ageing == sync.ageing(session, "acme", as_of=as_of, ledgers=once)
        assert len(ageing.rows) == 1
