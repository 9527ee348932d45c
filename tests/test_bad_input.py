"""Bad input gets a clear error and loses nothing; what only looks bad is kept as it is.

Each refusal comes from the public face: models, sessions with the sync attached, and the methods of ``LedgerSync``.
After it the session is rolled back and used again, and what was committed before is as it was, in every table.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select, update
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync, LedgerSyncError, Settings
from ledger_sync.errors import (
    AdoptionError,
    AmountError,
    ConfigurationError,
    LinkError,
    NotInTheBooksError,
    PostedEntryError,
    ReversalError,
    RunStateError,
    SettlementError,
    TextError,
    TimestampError,
    UnbalancedEntryError,
)
from ledger_sync.models import (
    Base,
    CustomerInvoice,
    JournalEntry,
    JournalLine,
    SourceLink,
    SupplierApplication,
    SupplierLedger,
    Vendor,
    VendorInvoice,
)
from tests.benchmarks.books_at_scale import analyse
from tests.books import (
    DAY,
    customer_invoice,
    customer_payment,
    entry,
    vendor,
    vendor_invoice,
    vendor_payment,
)
from tests.budget import at_length, pairs

Do = Callable[["Case"], object]


@dataclass
class Case:
    """A session on books with an open invoice, a payment of a part of it and a manual entry."""

    session: Session
    sync: LedgerSync
    factory: sessionmaker[Session]
    invoice: SupplierLedger
    payment: SupplierLedger
    manual: JournalLine


def dump(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""
    with engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in Base.metadata.sorted_tables
        }


@pytest.fixture
def case(session: Session, sync: LedgerSync, factory: sessionmaker[Session]) -> Case:
    invoice = vendor_invoice(session, 100, invoice_number="F-100")
    opened = entry(session, signed=-100, source=("vendor_invoice", invoice.id), voucher_number="first")
    paid = vendor_payment(session, 40, payment_reference="F-100")
    payment = entry(session, signed=40, source=("vendor_payment", paid.id), voucher_number="second")
    manual = entry(session, signed=-7)
    theirs = vendor_invoice(session, 900, tenant="other", invoice_number="F-900")
    entry(session, signed=-900, source=("vendor_invoice", theirs.id), tenant="other", voucher_number="theirs")
    session.commit()
    items = [
        session.scalars(select(SupplierLedger).where(SupplierLedger.general_ledger_id == e.id)).one()
        for e in (opened, payment)
    ]
    made = Case(session, sync, factory, items[0], items[1], manual.lines[0])
    session.commit()
    return made


@contextmanager
def refused(case: Case, kind: type[Exception], said: str = "") -> Iterator[None]:
    """The block fails with a clear error, nothing that was committed is touched, and the session goes on."""
    engine = case.session.get_bind()
    assert isinstance(engine, Engine)
    before = dump(engine)
    with pytest.raises(kind) as caught:
        yield
    assert isinstance(caught.value, LedgerSyncError)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()
    case.session.rollback()
    assert dump(engine) == before
    invoice = vendor_invoice(case.session, 5)
    entry(case.session, signed=-5, source=("vendor_invoice", invoice.id))
    case.session.commit()
    proof = case.sync.verify(case.session, "acme")
    assert [(cause.name, cause.amount) for account in proof.accounts for cause in account.causes] == [
        ("manual", Decimal("7.00"))
    ]
    assert proof.clean
    assert sum(item.remaining_amount for item in case.sync.open_items(case.session, "acme")) == Decimal("65.00")


# -- amounts ---------------------------------------------------------------------------------------------

BAD_AMOUNTS: dict[str, Any] = {
    "NaN": Decimal("NaN"),
    "sNaN": Decimal("sNaN"),
    "Infinity": Decimal("Infinity"),
    "-Infinity": Decimal("-Infinity"),
    "10^30": Decimal(10) ** 30,
    "beyond what can be computed with": Decimal("1E+1000000"),
    "5,000 digits": 10**5000,
    "excess decimals": Decimal("12.345"),
}


def by_statement(case: Case, amount: Any) -> None:
    values = {"general_ledger_id": case.manual.general_ledger_id, "line_number": 9, "account_number": "2400"}
    case.session.connection().execute(insert(JournalLine.__table__).values(**values, credit=amount))


AMOUNTS: dict[str, Callable[[Case, Any], object]] = {
    "a line": lambda case, amount: entry(case.session).lines.append(JournalLine(account_number="1", debit=amount)),
    "a line by a statement": by_statement,
    "a document": lambda case, amount: case.session.add(CustomerInvoice(tenant_id="acme", amount=amount)),
    "a document that is changed": lambda case, amount: setattr(
        case.session.scalars(select(VendorInvoice)).first(), "amount", amount
    ),
    "a settlement": lambda case, amount: case.sync.settle(
        case.session, case.payment, case.invoice, amount, actor="kari", reason="test"
    ),
}


@pytest.mark.parametrize(("way", "value"), pairs(AMOUNTS, BAD_AMOUNTS))
def test_a_bad_amount_is_refused(case: Case, way: str, value: str) -> None:
    with refused(case, AmountError):
        AMOUNTS[way](case, BAD_AMOUNTS[value])


def test_amounts_are_exact_whatever_the_hosts_decimal_context_says(case: Case) -> None:
    with decimal.localcontext(decimal.Context(prec=4, traps=[decimal.Inexact, decimal.Overflow])):
        case.session.add(JournalEntry(tenant_id="acme", voucher_number="p", entry_date=DAY, lines=[]))
        case.session.flush()
        made = case.session.scalars(select(JournalEntry).where(JournalEntry.voucher_number == "p")).one()
        made.lines.append(JournalLine(account_number="4000", debit=Decimal("1234567890123.45")))
        case.session.commit()
        assert made.lines[0].debit == Decimal("1234567890123.45")


# -- entries and sources ---------------------------------------------------------------------------------


def unbalanced(case: Case) -> None:
    made = entry(case.session, post=False)
    made.lines[0].credit = Decimal("100.01")
    made.post()


def reversal_of(case: Case, entry_id: int | None) -> None:
    case.session.add(JournalEntry(tenant_id="acme", voucher_number="r", entry_date=DAY, reverses_id=entry_id))
    case.session.flush()


def self_reversal(case: Case) -> None:
    case.session.add(JournalEntry(id=77_777, tenant_id="acme", voucher_number="r", entry_date=DAY, reverses_id=77_777))
    case.session.flush()


def reversal_of_a_reversal(case: Case) -> None:
    first = case.session.get_one(JournalEntry, case.invoice.general_ledger_id)
    reversal = first.reverse(DAY)
    case.session.add(reversal)
    case.session.flush()
    reversal_of(case, reversal.id)


def circle(case: Case) -> None:
    first = case.session.get_one(JournalEntry, case.invoice.general_ledger_id)
    reversal = first.reverse(DAY)
    case.session.add(reversal)
    case.session.flush()
    first.reverses_id = reversal.id
    case.session.flush()


def theirs(case: Case, model: Any) -> int:
    return int(case.session.scalars(select(model.id).where(model.tenant_id == "other")).one())


def link(case: Case, document_id: int, line_id: int | None = None, tenant: str = "acme", **more: Any) -> None:
    line = case.manual.id if line_id is None else line_id
    case.sync.link(case.session, tenant, line, "vendor_invoice", document_id, actor="kari", reason="test", **more)


REFUSED: dict[str, tuple[Do, type[Exception], str]] = {
    "an unbalanced entry": (unbalanced, UnbalancedEntryError, "out of balance by -0.01"),
    "an entry without lines": (
        lambda case: JournalEntry(tenant_id="acme", voucher_number="1", entry_date=DAY).post(),
        UnbalancedEntryError,
        "has no lines",
    ),
    "a posted entry that changes": (
        lambda case: setattr(case.manual, "credit", Decimal(8)) or case.session.flush(),
        PostedEntryError,
        "is posted",
    ),
    "a reversal of itself": (self_reversal, ReversalError, "reverses itself"),
    "a reversal of a reversal": (reversal_of_a_reversal, ReversalError, "reverses a reversal"),
    "a circle of reversals": (circle, PostedEntryError, "reverses_id"),
    "a reversal of nothing": (lambda case: reversal_of(case, 88_888), ReversalError, "which is not there"),
    "a reversal of another tenant's entry": (
        lambda case: reversal_of(case, theirs(case, JournalEntry)),
        ReversalError,
        "which is not there",
    ),
    "a link to an unknown document": (lambda case: link(case, 88_888), LinkError, "which is not there"),
    "a link to another tenant's document": (
        lambda case: link(case, theirs(case, VendorInvoice)),
        LinkError,
        "which is not there",
    ),
    "a link of an unknown line": (lambda case: link(case, 1, line_id=88_888), LinkError, "is not in the books"),
    "a link of another tenant's line": (
        lambda case: link(case, theirs(case, VendorInvoice), tenant="other"),
        LinkError,
        "is not in the books",
    ),
    "a second link": (
        lambda case: [link(case, case.invoice.source_id, kind=kind) for kind in (None, "fee")],
        LinkError,
        "has a source link already",
    ),
    "a settlement of more than there is": (
        lambda case: case.sync.settle(case.session, case.payment, case.invoice, 41, actor="k", reason="r"),
        SettlementError,
        "at most 40.00",
    ),
    "a settlement of nothing": (
        lambda case: case.sync.settle(case.session, case.payment, case.invoice, 0, actor="k", reason="r"),
        SettlementError,
        "positive amount",
    ),
    "a settlement with itself": (
        lambda case: case.sync.settle(case.session, case.payment, case.payment, actor="k", reason="r"),
        SettlementError,
        "one and the same",
    ),
    "an unknown voucher": (
        lambda case: case.sync.explain(case.session, "nobody's", "acme"),
        NotInTheBooksError,
        "is not in the books",
    ),
    "an unknown run": (lambda case: case.sync.progress(case.session, 88_888), RunStateError, "does not exist"),
    "an unknown ledger": (
        lambda case: case.sync.backfill(case.factory, tenant_id="acme", ledgers=["bank"]),
        ConfigurationError,
        "'bank'",
    ),
    "a row that nobody chose": (
        lambda case: case.sync.adopt(case.session, "acme", chosen={1: 2}, actor="kari", reason="r"),
        AdoptionError,
        "is not waiting",
    ),
    "nobody's books": (lambda case: case.sync.verify(case.session), ConfigurationError, "say whose"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_bookkeeping_does_not_know_is_refused(case: Case, what: str) -> None:
    do, kind, said = REFUSED[what]
    with refused(case, kind, said):
        do(case)


@pytest.mark.parametrize("source", [("vendor_invoice", 88_888), ("vendor_invoice", None), ("nonsense'; --", 1)])
def test_an_unknown_a_foreign_and_an_unsupported_source_give_no_row_and_a_cause(
    case: Case, source: tuple[str, int | None]
) -> None:
    key = source[1] if source[1] is not None else theirs(case, VendorInvoice)
    entry(case.session, signed=-3, source=(source[0], key))
    case.session.commit()
    proof = case.sync.verify(case.session, "acme")
    causes = {cause.name: cause.amount for account in proof.accounts for cause in account.causes}
    name = "source_not_found" if source[0] == "vendor_invoice" else "unsupported_source"
    assert causes == {"manual": Decimal("7.00"), name: Decimal("3.00")}
    assert proof.clean
    assert len(case.session.scalars(select(SupplierLedger)).all()) == 3


@pytest.mark.parametrize("way", ["hook", "backfill"])
def test_a_number_that_two_invoices_bear_settles_neither_and_the_proof_says_so(
    case: Case, engine: Engine, way: str
) -> None:
    with (case.factory if way == "hook" else sessionmaker(engine))() as session:
        for _ in range(2):
            invoice = customer_invoice(session, 50, invoice_number="twice")
            entry(session, "1500", 50, ("customer_invoice", invoice.id))
        payment = customer_payment(session, 50, payment_reference="twice")
        entry(session, "1500", -50, ("customer_payment", payment.id))
        session.commit()
    case.sync.backfill(case.factory, tenant_id="acme")
    items = case.sync.open_items(case.session, "acme", ledgers=["customer"])
    assert sorted(item.remaining_amount for item in items) == [-50, 50, 50]
    proof = case.sync.verify(case.session, "acme")
    assert proof.clean
    found = [finding for finding in proof.findings if finding.name == "ambiguous_reference"]
    assert [(finding.ledger, finding.count) for finding in found] == [("customer", 1)]


def test_an_unbalanced_entry_that_was_written_past_the_models_is_kept_true_all_the_same(case: Case) -> None:
    invoice = vendor_invoice(case.session, 30)
    made = entry(case.session, signed=-30, source=("vendor_invoice", invoice.id), post=False)
    made.lines.pop()
    made.status = "posted"
    case.session.commit()
    assert case.sync.verify(case.session, "acme").clean
    assert case.sync.explain(case.session, made).entries[0].lines[0].outcome == "written"


# -- reversals that nobody can post but by statements ------------------------------------------------------


def write_chain(session: Session, length: int, *, circular: bool) -> list[int]:
    """So many entries on one invoice, by bulk statements; each but the first reverses the one before."""
    invoice = vendor_invoice(session, 100)
    session.flush()
    ids = list(range(1_000_001, 1_000_001 + length))
    none = dict.fromkeys(("debit", "credit"), Decimal(0))
    entries = [
        {
            "id": key,
            "tenant_id": "acme",
            "voucher_number": f"chain {key}",
            "entry_date": DAY,
            "status": "posted",
            "source_type": "vendor_invoice",
            "source_id": invoice.id,
            "reverses_id": key - 1 if key > ids[0] else None,
        }
        for key in ids
    ]
    lines = [
        {
            **none,
            "general_ledger_id": key,
            "line_number": number,
            "account_number": account,
            "credit" if (key % 2 == 1) == (number == 1) else "debit": Decimal(100),
        }
        for key in ids
        for number, account in enumerate(("2400", "4000"), 1)
    ]
    session.execute(insert(JournalEntry), entries, execution_options={"ledger_sync_bulk": "ignore"})
    if circular:
        close = update(JournalEntry).where(JournalEntry.id == ids[0]).values(reverses_id=ids[-1])
        session.execute(close, execution_options={"ledger_sync_bulk": "ignore", "synchronize_session": False})
    session.execute(insert(JournalLine), lines, execution_options={"ledger_sync_bulk": "ignore"})
    return ids


def rows_of(session: Session, model: Any) -> list[tuple[Any, ...]]:
    """The rows without what only says when and how they were written."""
    names = [
        column.name for column in model.__table__.c if column.name not in {"id", "run_id", "created_at", "updated_at"}
    ]
    columns = [model.__table__.c[name] for name in names]
    return sorted((tuple(row) for row in session.execute(select(*columns))), key=repr)


@pytest.mark.parametrize(("length", "circular"), [(2, True), (3, True), (7, False)][at_length(1, 0) :])
def test_chains_and_circles_of_reversals_give_the_same_true_rows_by_hook_and_backfill(
    engine: Engine, sync: LedgerSync, factory: sessionmaker[Session], length: int, circular: bool
) -> None:
    with factory() as session:
        ids = write_chain(session, length, circular=circular)
        sync.sync_entries(session, ids)
        session.commit()
        by_hook = rows_of(session, SupplierLedger), rows_of(session, SupplierApplication)
        assert len(by_hook[0]) == length
        for model in (SupplierApplication, SupplierLedger):
            session.connection().execute(model.__table__.delete())
        session.commit()
    assert sync.backfill(factory, tenant_id="acme").clean
    with factory() as session:
        assert (rows_of(session, SupplierLedger), rows_of(session, SupplierApplication)) == by_hook


@pytest.mark.parametrize("circular", [False, True])
def test_ten_thousand_reversals_of_one_another_are_no_more_than_ten_thousand_lines(
    engine: Engine, sync: LedgerSync, circular: bool
) -> None:
    length = 10_000 if engine.dialect.name == "sqlite" else at_length(1_000, 10_000)
    factory = sessionmaker(engine)
    with sessionmaker(engine)() as session:
        ids = write_chain(session, length, circular=circular)
        session.commit()
    if engine.dialect.name == "postgresql":
        analyse(engine)  # as after any large import; without statistics it would take ten times as long
    report = sync.backfill(factory, tenant_id="acme")
    assert (report.state, report.errors, report.clean, report.synced) == ("completed", 0, True, length)
    chosen = ids[0], ids[length // 2], ids[-1]
    with factory() as session:
        assert session.scalar(select(func.sum(SupplierLedger.remaining_amount))) == 0
        sync.sync_entries(session, chosen)
        session.commit()
        assert sync.verify(session, "acme").clean
        for key in chosen:
            assert [e.general_ledger_id for e in sync.explain(session, key, "acme").entries] == [key]


# -- texts -----------------------------------------------------------------------------------------------

BAD_TEXTS = {"NUL": "a\x00b", "lone surrogate": "a\ud800b", "too long": "x" * 51, "10 MB": "x" * 10_000_000}


TEXTS: dict[str, Callable[[Case, str], object]] = {
    "a party's number": lambda case, text: vendor(case.session, number=text),
    "a source": lambda case, text: entry(case.session, source=(text, 1)),
    "a voucher series": lambda case, text: entry(case.session, voucher_series=text),
    "an account": lambda case, text: entry(case.session, account=text),
    "a link": lambda case, text: SourceLink(line_id=case.manual.id, source_type=text, source_id=1),
    "a statement": lambda case, text: case.session.connection().execute(
        insert(Vendor.__table__).values(tenant_id="acme", number=text, name="x")
    ),
    "the kind of a link": lambda case, text: case.sync.link(
        case.session,
        "acme",
        case.manual.id,
        "vendor_invoice",
        case.invoice.source_id,
        actor="kari",
        reason="test",
        kind=text,
    ),
    # the columns of these are longer
    "a tenant": lambda case, text: case.sync.verify(case.session, text * 2),
    "a tenant's backfill": lambda case, text: case.sync.backfill(case.factory, tenant_id=text * 2),
    "a tenant's open items": lambda case, text: case.sync.open_items(case.session, text * 2),
    "a voucher to explain": lambda case, text: case.sync.explain(case.session, text * 2, "acme"),
    "a number to explain": lambda case, text: case.sync.explain(case.session, f"vendor_invoice:{text * 2}", "acme"),
    "a voucher to backfill": lambda case, text: case.sync.backfill(case.factory, tenant_id="acme", vouchers=[text * 2]),
    "who settles": lambda case, text: case.sync.settle(
        case.session, case.payment, case.invoice, 1, actor=text * 2, reason="r"
    ),
    "why it is settled": lambda case, text: case.sync.settle(
        case.session, case.payment, case.invoice, 1, actor="kari", reason=text * 10
    ),
    "the key of a settlement": lambda case, text: case.sync.settle(
        case.session, case.payment, case.invoice, 1, actor="kari", reason="r", idempotency_key=text * 4
    ),
    "who links": lambda case, text: case.sync.link(
        case.session, "acme", case.manual.id, "vendor_invoice", case.invoice.source_id, actor=text * 2, reason="r"
    ),
    "the key of an unlinking": lambda case, text: case.sync.unlink(
        case.session, "acme", case.manual.id, actor="kari", reason="r", idempotency_key=text * 4
    ),
    "who starts a backfill": lambda case, text: case.sync.backfill(case.factory, tenant_id="acme", actor=text * 4),
}


@pytest.mark.parametrize(("way", "value"), pairs(TEXTS, BAD_TEXTS))
def test_a_text_that_cannot_be_stored_is_refused(case: Case, way: str, value: str) -> None:
    with refused(case, TextError):
        TEXTS[way](case, BAD_TEXTS[value])
        case.session.flush()


STRANGE = {
    "quotes and statements": "a'b\"`''; DROP TABLE general_ledger; -- /* */",
    "placeholders": "100% %s %(tenant)s :tenant ::text \\:a {0} ${x} ?",
    "wildcards and a backslash": "%_[a-z]*?^$|\\",
    "lines, escapes and directions": "a\r\nb\tc\x1b[31m\u202ed\u2028\ufeff\U0010fffd",
    "blanks and a colon": " a:b  c ",
    "a slash": "B-1/2026x/1",
}


@pytest.fixture(scope="module")
def sync_of_strangers() -> LedgerSync:
    """One whose settings name each of the texts as a tenant."""
    return LedgerSync(Settings(effective_from=dict.fromkeys([*STRANGE.values(), "acme"], date(2020, 1, 1))))


@pytest.mark.parametrize("what", STRANGE)
def test_a_strange_text_is_kept_as_it_is_and_means_nothing_else(
    engine: Engine, case: Case, sync_of_strangers: LedgerSync, what: str
) -> None:
    text, sync = STRANGE[what], sync_of_strangers
    factory = sessionmaker(engine)
    acme = [row for row in dump(engine)["supplier_ledger"] if "acme" in row]
    with factory() as session:
        party = vendor(session, text, text)
        invoice = vendor_invoice(session, 10, tenant=text, party=text, invoice_number=text, payment_reference=text)
        more = {"voucher_series": text[:20], "description": text, "line": {"reference": text, "description": text}}
        source = ("vendor_invoice", invoice.id)
        entry(session, signed=-10, source=source, tenant=text, voucher_number=text, **more)
        paid = vendor_payment(session, 4, tenant=text, party=text, payment_reference=text)
        entry(session, signed=4, source=("vendor_payment", paid.id), tenant=text, voucher_number=f"{text}2", **more)
        session.commit()
        party_id = party.id
    report = sync.backfill(factory, tenant_id=text, vouchers=[text, f"{text}2"], actor=text)
    assert (report.state, report.clean, report.synced) == ("completed", True, 2)
    sync.attach(factory)
    with factory() as session:
        items = sync.open_items(session, text, party_id=party_id, as_of=DAY)
        assert [item.remaining_amount for item in items] == [Decimal("6.00")]
        item = items[0]
        assert (item.tenant_id, item.invoice_number, item.party_number) == (text, text, text)
        assert sync.verify(session, text).clean
        assert [e.voucher for e in sync.explain(session, text, text).entries] == [item.voucher]
        assert [e.voucher for e in sync.explain(session, f"vendor_invoice:{text}", text).entries] == [item.voucher]
        assert sync.statement(session, text, "supplier", party_id).closing == Decimal("6.00")
        assert sync.ageing(session, text).total("supplier") == Decimal("6.00")
        assert [run.actor for run in sync.runs(session, text)] == [text]
        loaded = session.scalars(select(SupplierLedger).where(SupplierLedger.tenant_id == text)).all()
        invoice_item, payment_item = sorted(loaded, key=lambda row: -row.amount)
        assert sync.unsettle(session, payment_item, invoice_item, actor=text, reason=text).actor == text
        assert sync.release(session, payment_item, invoice_item, actor=text, reason=text).reason == text
        session.commit()
        assert sync.verify(session, text).clean
    assert [row for row in dump(engine)["supplier_ledger"] if "acme" in row] == acme


# -- dates and moments -----------------------------------------------------------------------------------

NAIVE = datetime(2026, 3, 1, 12)  # noqa: DTZ001
FIRST, LAST = date(1, 1, 1), date(9999, 12, 31)


MOMENTS: dict[str, tuple[Callable[[Case, Any], object], Any]] = {
    "naive, posted": (lambda case, at: entry(case.session, post=False).post(at), NAIVE),
    "naive, recent": (lambda case, at: case.sync.recent(case.session, "acme", at), NAIVE),
    "before the year 1 in UTC": (
        lambda case, at: entry(case.session, post=False).post(at),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))),
    ),
    "after the year 9999 in UTC": (
        lambda case, at: entry(case.session, post=False).post(at),
        datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2))),
    ),
    "recent since before the year 1 in UTC": (
        lambda case, at: case.sync.recent(case.session, "acme", at),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))),
    ),
}


@pytest.mark.parametrize("what", MOMENTS)
def test_a_moment_that_is_none_is_refused(case: Case, what: str) -> None:
    do, moment = MOMENTS[what]
    with refused(case, TimestampError):
        do(case, moment)
        case.session.flush()


def test_the_first_and_the_last_day_of_the_calendar_are_days_like_any_other(engine: Engine, sync: LedgerSync) -> None:
    post_at_the_ends_of_the_calendar(engine, sync, {"acme": 2, "late": 2})


@pytest.mark.parametrize("effective_by", ["entry_date", "posted_at"][: at_length(1, 2)])
def test_a_cut_over_may_be_the_first_or_the_last_day_of_the_calendar(sqlite_engine: Engine, effective_by: Any) -> None:
    days = {"acme": FIRST, "late": LAST}
    sync = LedgerSync(Settings(effective_from=days, effective_by=effective_by, closed_through=days))
    post_at_the_ends_of_the_calendar(sqlite_engine, sync, {"acme": 2, "late": 0})


def post_at_the_ends_of_the_calendar(engine: Engine, sync: LedgerSync, tenants: dict[str, int]) -> None:
    """What every report says of it. ``tenants``: how many invoices of the first day each has."""
    factory = sessionmaker(engine)
    sync.attach(factory)
    with factory() as session:
        for tenant in tenants:
            for on, due in ((FIRST, LAST), (FIRST, FIRST), (LAST, FIRST), (LAST, LAST)):
                more = {"tenant": tenant, "post": False}
                invoice = vendor_invoice(session, 100, tenant, invoice_date=on, due_date=due)
                opened = entry(session, signed=-100, source=("vendor_invoice", invoice.id), on=on, **more)
                opened.post(datetime.combine(on, time(12), tzinfo=UTC))
                paid = vendor_payment(session, 25, tenant, payment_reference=invoice.invoice_number, payment_date=on)
                settled = entry(session, signed=25, source=("vendor_payment", paid.id), on=LAST, **more)
                settled.post(datetime.combine(LAST, time(12), tzinfo=UTC))
        session.commit()
        for tenant, early in tenants.items():
            for as_of, expected in ((FIRST, early * 100), (DAY, early * 100), (LAST, (early + 2) * 75), (None, None)):
                left = sum(item.remaining_amount for item in sync.open_items(session, tenant, as_of=as_of))
                assert left == (expected if expected is not None else (early + 2) * 75)
                assert sync.ageing(session, tenant, as_of=as_of).total("supplier") == left
                assert sync.verify(session, tenant, as_of).clean
                assert sync.specification(session, tenant, "supplier", until=as_of).closing == left
            assert len(sync.recent(session, tenant, datetime.min.replace(tzinfo=UTC))) == 8
            assert sync.recent(session, tenant, datetime.max.replace(tzinfo=UTC)) == ()
    rows = dump(engine)["supplier_ledger"]
    for since, until in ((None, LAST), (LAST, None)):
        report = sync.backfill(factory, tenant_id="acme", since=since, until=until)
        assert (report.state, report.errors) == ("completed", 0)
    assert dump(engine)["supplier_ledger"] == rows
