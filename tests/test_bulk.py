"""Bulk statements through the session: each way of writing is seen, refused, or known to be seen by nobody.

Whatever is seen is compared with the independent oracle right after the statement, in the same transaction; whatever is
refused has left nothing; what nobody sees is found by the proof and mended by ``sync_entries``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Engine,
    ForeignKey,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
    literal,
    select,
    table,
    text,
    update,
)
from sqlalchemy import column as a_column
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, sessionmaker, with_loader_criteria

from ledger_sync import ConfigurationError, ControlAccount, LedgerSync, Settings, signals
from ledger_sync.dialects import fault_of, open_engine
from ledger_sync.errors import BulkWriteError, DocumentInUseError, ManualPostingError, PostedEntryError
from ledger_sync.models import (
    JournalEntry,
    JournalLine,
    SourceLink,
    SupplierLedger,
    Vendor,
    VendorInvoice,
    VendorPayment,
)
from ledger_sync.testing import assert_in_sync
from tests import books
from tests.books import DAY
from tests.conftest import empty, make_sqlite
from tests.hosts import editable
from tests.oracle import Rules, assert_synced
from tests.test_hook import attached, broken, statements
from tests.watching import listening

ENTRY, LINE, LINK = JournalEntry.__table__, JournalLine.__table__, SourceLink.__table__
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS = {SourceLink: "line_id"}
SUPPLIERS = ControlAccount(accounts=("2400",), ledger="supplier")

Row = dict[str, Any]


def sync_of(settings: Settings, binding: Any) -> LedgerSync:
    """A sync of the classes of a binding."""
    classes = {name: getattr(binding, name) for name in ("entry", "line", "ledgers", "link", "editable")}
    return LedgerSync(settings, **classes)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """The databases on which bulk statements are synced."""
    chosen: Engine = request.getfixturevalue(f"{request.param}_engine")
    return chosen


def test_on_mariadb_a_bulk_statement_is_refused(mariadb_engine: Engine) -> None:
    factory = sessionmaker(mariadb_engine)
    LedgerSync(Settings(bulk="sync")).attach(factory)
    with factory() as session, pytest.raises(BulkWriteError, match="is on MariaDB or MySQL"):
        session.execute(update(JournalEntry).values(status="posted"))


@pytest.fixture(scope="module")
def sync() -> LedgerSync:
    return LedgerSync(Settings(bulk="sync"))


@pytest.fixture(scope="module")
def kept_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One database for all tests here, so that statements are compiled once."""
    engine = make_sqlite(tmp_path_factory.mktemp("bulk") / "books.db")
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite_engine(kept_engine: Engine) -> Engine:
    empty(kept_engine)
    return kept_engine


def key_of(model: Any) -> Any:
    return getattr(model, KEYS.get(model, "id"))


def amounts(session: Session, model: Any = SupplierLedger) -> list[tuple[int, int]]:
    """Amount and remaining amount of every open item of a ledger."""
    query = select(model.amount, model.remaining_amount).order_by(model.amount, model.remaining_amount)
    return [(int(row[0]), int(row[1])) for row in session.execute(query)]


def synced(session: Session, rules: Rules | None = None) -> None:
    """The rows are what the oracle says."""
    assert_synced(session.connection(), rules)


def an_entry(number: int, invoice_id: int, **more: Any) -> Row:
    """The columns of a posted journal entry from a vendor invoice."""
    names = {"tenant_id": "acme", "voucher_number": f"bulk{number}", "fiscal_year": 2026, "entry_date": DAY}
    source = {"source_type": "vendor_invoice", "source_id": invoice_id}
    return {**names, **source, "status": "posted", "posted_at": NOON, **more}


def a_line(entry_id: int, number: int = 1, account: str = "2400", **more: Any) -> Row:
    """The columns of a line of 100 in credit."""
    sums = {"debit": Decimal(0), "credit": Decimal(100)}
    return {"general_ledger_id": entry_id, "line_number": number, "account_number": account, **sums, **more}


def an_invoice(session: Session, **more: Any) -> Row:
    """The columns of a vendor invoice."""
    party = {"tenant_id": "acme", "vendor_id": books.vendor(session).id, "invoice_number": "B1", "invoice_date": DAY}
    return {**party, "amount": Decimal(100), **more}


def entry_ids(session: Session) -> list[int]:
    """The entries that were inserted by ``an_entry``, in order."""
    query = select(ENTRY.c.id).where(ENTRY.c.voucher_number.like("bulk%")).order_by(ENTRY.c.voucher_number)
    return list(session.connection().scalars(query))


def line_ids(session: Session, entry_id: int) -> list[int]:
    query = select(LINE.c.id).where(LINE.c.general_ledger_id == entry_id).order_by(LINE.c.line_number)
    return list(session.connection().scalars(query))


# -- INSERT ------------------------------------------------------------------------------------------------


def do_nothing(session: Session, target: Any) -> Any:
    make: Any = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    return make(target).on_conflict_do_nothing()


def insert_from_select(session: Session, model: Any, rows: list[Row]) -> None:
    for row in rows:
        values = [literal(value, model.__table__.c[name].type) for name, value in row.items()]
        session.execute(insert(model).from_select(list(row), select(*values)))


def insert_with_common_values(session: Session, model: Any, rows: list[Row]) -> None:
    for row in rows:
        first, *others = row
        session.execute(insert(model).values({first: row[first]}), [{name: row[name] for name in others}])


INSERTS: dict[str, Callable[[Session, Any, list[Row]], Any]] = {
    "orm_list": lambda s, m, rows: s.execute(insert(m), rows),
    "orm_one_dict": lambda s, m, rows: [s.execute(insert(m), row) for row in rows],
    "orm_values": lambda s, m, rows: [s.execute(insert(m).values(**row)) for row in rows],
    "orm_multi_values": lambda s, m, rows: s.execute(insert(m).values(rows)),
    "orm_list_and_values": insert_with_common_values,
    "orm_raw": lambda s, m, rows: s.execute(insert(m), rows, execution_options={"dml_strategy": "raw"}),
    "orm_from_select": insert_from_select,
    "orm_returning": lambda s, m, rows: s.scalars(insert(m).returning(m), rows).all(),
    "orm_do_nothing": lambda s, m, rows: s.execute(do_nothing(s, m), rows),
    "core_list": lambda s, m, rows: s.execute(insert(m.__table__), rows),
    "core_values": lambda s, m, rows: [s.execute(insert(m.__table__).values(**row)) for row in rows],
    "core_inline": lambda s, m, rows: [s.execute(insert(m.__table__).values(**row).inline()) for row in rows],
    "core_multi_values": lambda s, m, rows: s.execute(insert(m.__table__).values(rows)),
    "core_returning": lambda s, m, rows: s.execute(insert(m.__table__).returning(*m.__table__.c), rows).all(),
    "core_do_nothing": lambda s, m, rows: [s.execute(do_nothing(s, m.__table__).values(row)) for row in rows],
}


@pytest.mark.parametrize("way", INSERTS)
def test_inserted_entries_lines_links_and_documents_are_seen(sync: LedgerSync, session: Session, way: str) -> None:
    put = INSERTS[way]
    first, second = books.vendor_invoice(session), books.vendor_invoice(session)
    session.commit()
    put(session, JournalEntry, [an_entry(1, first.id), an_entry(2, 4711)])
    one, two = entry_ids(session)
    lines = [a_line(one), a_line(one, 2), a_line(one, 3, "4000", debit=Decimal(200)), a_line(two)]
    put(session, JournalLine, lines)
    synced(session)
    assert amounts(session) == [(100, 100)] * 2
    put(
        session,
        SourceLink,
        [{"line_id": line_ids(session, one)[1], "source_type": "ehf_invoice", "source_id": second.id}],
    )
    synced(session)
    assert set(session.scalars(select(SupplierLedger.source_id))) == {first.id, second.id}
    # the document that a line has waited for
    put(session, VendorInvoice, [an_invoice(session, id=4711)])
    synced(session)
    assert amounts(session) == [(100, 100)] * 3
    session.commit()
    assert_in_sync(session, sync)


@pytest.mark.parametrize("way", INSERTS)
def test_a_document_that_gets_its_id_from_the_database_is_seen(sync: LedgerSync, session: Session, way: str) -> None:
    # payments that named it by its reference before it was there
    for _ in range(2):
        paid = books.vendor_payment(session, 100, payment_reference="K9")
        books.entry(session, "2400", 100, ("vendor_payment", paid.id))
    session.commit()
    INSERTS[way](session, VendorInvoice, [an_invoice(session, payment_reference=f"K{number}") for number in (8, 9)])
    synced(session)
    key = session.scalar(select(VendorInvoice.id).where(VendorInvoice.payment_reference == "K9"))
    assert set(session.scalars(select(SupplierLedger.settlement_key))) == {f"vendor_invoice:{key}"}


def test_what_the_caller_gets_from_an_insert_is_what_it_asked_for(session: Session) -> None:
    rows = [an_entry(number, 1) for number in range(9)]
    made = session.execute(insert(JournalEntry).values(rows[0]))
    assert made.inserted_primary_key == (entry_ids(session)[0],)
    assert session.execute(insert(JournalEntry.__table__).values(rows[1:3])).rowcount == 2
    several = session.execute(insert(JournalEntry).returning(JournalEntry.voucher_number, JournalEntry.id), rows[3:5])
    assert list(several.keys()) == ["voucher_number", "id"]
    assert [row.voucher_number for row in several] == ["bulk3", "bulk4"]
    assert session.scalar(insert(JournalEntry).values(rows[5]).returning(JournalEntry.voucher_number)) == "bulk5"
    objects = session.scalars(insert(JournalEntry).returning(JournalEntry, sort_by_parameter_order=True), rows[6:8])
    assert [entry.voucher_number for entry in objects] == ["bulk6", "bulk7"]
    (entry,) = session.execute(insert(JournalEntry).values(rows[8]).returning(JournalEntry)).one()
    assert entry in session


@pytest.mark.parametrize("target", [JournalEntry, JournalEntry.__table__], ids=["class", "table"])
def test_what_a_row_is_given_by_default_is_of_that_row(session: Session, target: Any) -> None:
    """In one statement of several rows: each entry's fiscal year and moment of posting are its own."""
    rows = [
        {"tenant_id": "acme", "voucher_number": str(year), "entry_date": date(year, 3, 1), "status": status}
        for year, status in ((2024, "posted"), (2025, "draft"), (2026, "posted"))
    ]
    session.execute(insert(target).values(rows))
    entries = session.scalars(select(JournalEntry).order_by(JournalEntry.voucher_number)).all()
    assert [entry.fiscal_year for entry in entries] == [2024, 2025, 2026]
    assert [entry.posted_at is None for entry in entries] == [False, True, False]


# -- UPDATE ------------------------------------------------------------------------------------------------


def where(statement: Any, model: Any, ids: list[int]) -> Any:
    return statement.where(key_of(model).in_(ids))


def update_by_key(session: Session, model: Any, ids: list[int], values: Row, **options: Any) -> None:
    session.execute(update(model), [{KEYS.get(model, "id"): key, **values} for key in ids], **options)


def update_many(session: Session, model: Any, ids: list[int], values: Row) -> None:
    key = model.__table__.c[KEYS.get(model, "id")]
    statement = update(model.__table__).where(key == bindparam("wanted"))
    session.execute(statement, [{"wanted": number, **values} for number in ids])


def update_from_another(session: Session, model: Any, ids: list[int], values: Row) -> None:
    other, name = aliased(model), KEYS.get(model, "id")
    joined = key_of(model) == getattr(other, name)
    session.execute(update(model).where(joined, getattr(other, name).in_(ids)).values(**values))


def how(synchronize: Any) -> Row:
    return {"execution_options": {"synchronize_session": synchronize}}


UPDATES: dict[str, Callable[[Session, Any, list[int], Row], Any]] = {
    "orm_where": lambda s, m, ids, v: s.execute(where(update(m), m, ids).values(**v)),
    "orm_evaluate": lambda s, m, ids, v: s.execute(where(update(m), m, ids).values(**v), **how("evaluate")),
    "orm_fetch": lambda s, m, ids, v: s.execute(where(update(m), m, ids).values(**v), **how("fetch")),
    "orm_unsynchronised": lambda s, m, ids, v: s.execute(where(update(m), m, ids).values(**v), **how(False)),
    "orm_returning": lambda s, m, ids, v: s.scalars(where(update(m), m, ids).values(**v).returning(m)).all(),
    "orm_from_another": update_from_another,
    "orm_by_primary_key": update_by_key,
    "query_update": lambda s, m, ids, v: s.query(m).filter(key_of(m).in_(ids)).update(v),
    "query_evaluate": lambda s, m, ids, v: s.query(m).filter(key_of(m).in_(ids)).update(v, "evaluate"),
    "core_where": lambda s, m, ids, v: s.execute(where(update(m.__table__), m, ids).values(**v)),
    "core_parameters": lambda s, m, ids, v: s.execute(where(update(m.__table__), m, ids), v),
    "core_many": update_many,
    "core_returning": lambda s, m, ids, v: s.execute(
        where(update(m.__table__), m, ids).values(**v).returning(*m.__table__.c)
    ).all(),
}


@pytest.mark.parametrize("way", UPDATES)
def test_updated_entries_lines_links_and_documents_are_seen(sync: LedgerSync, session: Session, way: str) -> None:
    change = UPDATES[way]
    first, second = books.vendor_invoice(session, payment_reference="K1"), books.vendor_invoice(session)
    drafts = [books.entry(session, source=("vendor_invoice", first.id), post=False) for _ in range(3)]
    paid = books.vendor_payment(session, 40, payment_reference="K2")
    books.entry(session, "2400", 40, ("vendor_payment", paid.id))
    session.commit()
    assert amounts(session) == [(-40, -40)]
    one, two, _ = (entry.id for entry in drafts)
    change(session, JournalEntry, [one, two], {"status": "posted", "posted_at": NOON})
    synced(session)
    assert amounts(session) == [(-40, -40), (100, 100), (100, 100)]
    # until that transaction has committed, lines may still change
    control, contra = line_ids(session, two)
    change(session, JournalLine, [control], {"credit": Decimal(70)})
    synced(session)
    assert amounts(session) == [(-40, -40), (70, 70), (100, 100)]
    change(session, JournalLine, [control], {"general_ledger_id": one, "line_number": 9})
    change(session, JournalLine, [contra], {"account_number": "2400"})
    synced(session)
    assert amounts(session) == [(-100, 0), (-40, -40), (70, 70), (100, 0)]
    session.add(SourceLink(line_id=control, source_type="vendor_invoice", source_id=first.id))
    session.commit()
    change(session, SourceLink, [control], {"source_id": second.id})
    synced(session)
    # the payment finds its invoice, and settles it
    change(session, VendorInvoice, [second.id], {"payment_reference": "K2"})
    synced(session)
    assert amounts(session) == [(-100, 0), (-40, 0), (70, 30), (100, 0)]
    change(session, VendorInvoice, [second.id], {"payment_reference": None})
    synced(session)
    assert amounts(session) == [(-100, 0), (-40, -40), (70, 70), (100, 0)]
    change(session, VendorPayment, [paid.id], {"payment_reference": "K1"})
    session.commit()
    assert_in_sync(session, sync)


@pytest.mark.parametrize("way", [way for way in UPDATES if way != "orm_unsynchronised"])
def test_loaded_objects_follow_an_update(session: Session, way: str) -> None:
    invoice = books.vendor_invoice(session)
    draft = books.entry(session, source=("vendor_invoice", invoice.id), post=False)
    other = books.entry(session, source=("vendor_invoice", invoice.id), post=False)
    session.commit()
    assert (draft.status, other.status) == ("draft", "draft")
    UPDATES[way](session, JournalEntry, [draft.id], {"status": "posted", "posted_at": NOON})
    if not way.startswith("core"):
        assert draft.status == "posted"
    assert other.status == "draft"


def test_loaded_open_items_are_not_stale_after_a_statement(session: Session) -> None:
    invoice = books.vendor_invoice(session)
    books.entry(session, source=("vendor_invoice", invoice.id))
    paid = books.vendor_payment(session, 100, payment_reference="K1")
    books.entry(session, "2400", 100, ("vendor_payment", paid.id))
    session.flush()
    loaded = session.scalars(select(SupplierLedger)).all()
    assert {item.status for item in loaded} == {"open"}
    session.execute(update(VendorInvoice).values(payment_reference="K1"))
    assert {item.status for item in loaded} == {"paid"}


def test_payments_follow_when_a_document_moves_to_another_party(sync: LedgerSync, session: Session) -> None:
    invoice = books.vendor_invoice(session, payment_reference="K1")
    paid = books.vendor_payment(session, 100, payment_reference="K1")
    books.entry(session, "2400", 100, ("vendor_payment", paid.id))
    other = books.vendor(session, number="V2")
    session.commit()
    keys = select(SupplierLedger.settlement_key)
    assert session.scalars(keys).all() == [f"vendor_invoice:{invoice.id}"]
    session.execute(update(VendorInvoice).values(vendor_id=other.id))
    synced(session)
    assert session.scalars(keys).all() == ["ref:K1"]
    session.execute(update(VendorInvoice).values(vendor_id=VendorInvoice.vendor_id - 1))
    synced(session)
    assert session.scalars(keys).all() == [f"vendor_invoice:{invoice.id}"]


def test_what_the_caller_gets_from_an_update_or_delete_is_what_it_asked_for(session: Session) -> None:
    if session.get_bind().dialect.name == "mysql":
        pytest.skip("MariaDB has no UPDATE … RETURNING")
    drafts = [books.entry(session, post=False) for _ in range(5)]
    session.commit()
    ids = [draft.id for draft in drafts]
    assert session.execute(where(update(JournalEntry), JournalEntry, ids).values(description="x")).rowcount == 5
    assert session.query(JournalEntry).filter(JournalEntry.id < ids[2]).update({"description": "y"}) == 2
    told = session.execute(
        update(JournalEntry).where(JournalEntry.id > ids[2]).values(description="z").returning(JournalEntry.id)
    )
    assert sorted(told.scalars()) == ids[3:]
    gone = session.execute(delete(LINE).where(LINE.c.general_ledger_id == ids[0]).returning(LINE.c.line_number))
    assert sorted(gone.scalars()) == [1, 2]
    assert session.execute(delete(JournalLine).where(JournalLine.general_ledger_id == ids[1])).rowcount == 2


# -- DELETE ------------------------------------------------------------------------------------------------


def delete_many(session: Session, model: Any, ids: list[int]) -> None:
    key = model.__table__.c[KEYS.get(model, "id")]
    session.execute(delete(model.__table__).where(key == bindparam("wanted")), [{"wanted": number} for number in ids])


DELETES: dict[str, Callable[[Session, Any, list[int]], Any]] = {
    "orm_where": lambda s, m, ids: s.execute(where(delete(m), m, ids)),
    "orm_evaluate": lambda s, m, ids: s.execute(where(delete(m), m, ids), **how("evaluate")),
    "orm_unsynchronised": lambda s, m, ids: s.execute(where(delete(m), m, ids), **how(False)),
    "orm_returning": lambda s, m, ids: s.execute(where(delete(m), m, ids).returning(key_of(m))).all(),
    "query_delete": lambda s, m, ids: s.query(m).filter(key_of(m).in_(ids)).delete(),
    "orm_parameters": lambda s, m, ids: [
        s.execute(delete(m).where(key_of(m) == bindparam("wanted")), {"wanted": key}) for key in ids
    ],
    "core_where": lambda s, m, ids: s.execute(where(delete(m.__table__), m, ids)),
    "core_many": delete_many,
}


@pytest.mark.parametrize("way", DELETES)
def test_deleted_entries_lines_links_and_documents_are_seen(sync: LedgerSync, session: Session, way: str) -> None:
    take = DELETES[way]
    first, second = books.vendor_invoice(session), books.vendor_invoice(session, payment_reference="K1")
    entry = books.entry(session, source=("vendor_invoice", first.id))
    paid = books.vendor_payment(session, 40, payment_reference="K1")
    books.entry(session, "2400", 40, ("vendor_payment", paid.id))
    session.flush()
    key, (line, _) = entry.id, line_ids(session, entry.id)
    session.add(SourceLink(line_id=line, source_type="vendor_invoice", source_id=second.id))
    session.flush()
    assert amounts(session) == [(-40, 0), (100, 60)]
    take(session, SourceLink, [line])
    synced(session)
    assert amounts(session) == [(-40, -40), (100, 100)]
    take(session, VendorInvoice, [second.id])
    synced(session)
    assert list(session.scalars(select(SupplierLedger.settlement_key).where(SupplierLedger.amount < 0))) == ["ref:K1"]
    # until the transaction that posted it has committed, lines and all may go
    take(session, JournalLine, line_ids(session, key))
    synced(session)
    assert amounts(session) == [(-40, -40)]
    take(session, JournalEntry, [key])
    session.commit()
    assert_in_sync(session, sync)


def test_lines_of_drafts_may_go(sync: LedgerSync, session: Session) -> None:
    invoice = books.vendor_invoice(session)
    books.entry(session, source=("vendor_invoice", invoice.id), post=False)
    books.entry(session, source=("vendor_invoice", invoice.id))
    session.commit()
    drafts = select(JournalEntry.id).where(JournalEntry.status == "draft")
    session.execute(delete(JournalLine).where(JournalLine.general_ledger_id.in_(drafts)))
    session.execute(delete(JournalEntry).where(JournalEntry.status == "draft"))
    session.commit()
    assert session.scalars(select(JournalEntry.status)).all() == ["posted"]
    synced(session)
    assert amounts(session) == [(100, 100)]


# -- refused, or seen by nobody ----------------------------------------------------------------------------


def upsert(session: Session, entry_id: int) -> None:
    make: Any = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    statement = make(JournalLine).values(a_line(entry_id, 7))
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"credit": Decimal(1)}))


def holding_another(session: Session, entry_id: int) -> None:
    gone = delete(JournalLine).where(JournalLine.general_ledger_id == entry_id).returning(JournalLine.general_ledger_id)
    session.execute(update(JournalEntry).where(JournalEntry.id.in_(select(gone.cte()))).values(status="posted"))


REFUSED: dict[str, tuple[str, Callable[[Session, int], Any]]] = {
    "upsert": ("an upsert", upsert),
    "replacing": ("a prefix", lambda s, e: s.execute(insert(LINE).prefix_with("OR REPLACE").values(a_line(e, 1)))),
    "from_statement": (
        "from_statement",
        lambda s, e: s.scalars(
            select(JournalLine).from_statement(insert(JournalLine).values(a_line(e, 7)).returning(JournalLine))
        ),
    ),
    "alias": ("an alias", lambda s, e: s.execute(update(ENTRY.alias()).values(status="posted"))),
    "another_table_object": (
        "another Table object",
        lambda s, e: s.execute(update(table("general_ledger", a_column("status"))).values(status="posted")),
    ),
    "writing_within": ("another writing statement", holding_another),
    "writing_beside": (
        "another writing statement",
        lambda s, e: s.execute(
            update(JournalEntry)
            .where(JournalEntry.id == e)
            .values(status="posted")
            .add_cte(delete(JournalLine).returning(JournalLine.id).cte())
        ),
    ),
    "many_by_condition": (
        "several sets of parameters",
        lambda s, e: s.execute(
            update(JournalEntry).where(JournalEntry.id == bindparam("wanted")),
            [{"wanted": e, "status": "posted"}, {"wanted": 0, "status": "posted"}],
            execution_options={"dml_strategy": "orm"},
        ),
    ),
    "key_of_entry": (
        "changes id",
        lambda s, e: s.execute(update(JournalLine).where(JournalLine.general_ledger_id == e).values(id=900)),
    ),
    "key_of_link": ("changes line_id", lambda s, e: s.execute(update(SourceLink).values(line_id=1))),
}


def everything(session: Session) -> list[Any]:
    """All rows that a bulk statement may touch, and the open items."""
    models = (JournalEntry, JournalLine, SourceLink, VendorInvoice, SupplierLedger)
    tables = [model.__table__ for model in models]
    return [session.connection().execute(select(one).order_by(*one.primary_key)).all() for one in tables]


@pytest.mark.parametrize("way", REFUSED)
def test_what_cannot_be_seen_through_is_refused_and_leaves_nothing(session: Session, way: str) -> None:
    problem, write = REFUSED[way]
    invoice = books.vendor_invoice(session)
    books.entry(session, "4000")
    linked = books.entry(session, source=("vendor_invoice", invoice.id))
    linked.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=invoice.id)
    draft = books.entry(session, source=("vendor_invoice", invoice.id), post=False)
    draft.lines.remove(draft.lines[1])
    session.commit()
    before = everything(session)
    with pytest.raises(BulkWriteError, match=problem) as caught:
        write(session, draft.id)
    assert "sync_entries" in str(caught.value)
    assert caught.value.problem is not None
    assert everything(session) == before
    session.execute(update(JournalEntry).where(JournalEntry.id == draft.id).values(status="posted", posted_at=NOON))
    session.commit()
    assert amounts(session) == [(100, 100)] * 2


def past_in_with(session: Session, lines: list[Row]) -> None:
    for line in lines:
        session.execute(select(insert(LINE).values(line).returning(LINE.c.id).cte())).all()


UNSEEN: dict[str, Callable[[Session, list[Row]], Any]] = {
    "bulk_insert_mappings": lambda s, lines: s.bulk_insert_mappings(JournalLine, lines),
    "bulk_save_objects": lambda s, lines: s.bulk_save_objects([JournalLine(**line) for line in lines]),
    "connection_execute": lambda s, lines: s.connection().execute(insert(LINE), lines),
    "text": lambda s, lines: [
        s.execute(
            text(
                "INSERT INTO general_ledger_lines (general_ledger_id, line_number, account_number, debit, credit) "
                "SELECT general_ledger_id, line_number + 10, '2400', debit, credit FROM general_ledger_lines "
                f"WHERE general_ledger_id = {line['general_ledger_id']}"
            )
        )
        for line in lines
    ],
    "ignored": lambda s, lines: s.execute(insert(JournalLine), lines, execution_options={"ledger_sync_bulk": "ignore"}),
    "writing_in_with": past_in_with,
}


@pytest.mark.parametrize("way", UNSEEN)
def test_what_nobody_sees_is_missing_in_the_proof_and_is_synced_explicitly(
    sync: LedgerSync, session: Session, way: str
) -> None:
    if way == "writing_in_with" and session.get_bind().dialect.name != "postgresql":
        pytest.skip("SQLite and MariaDB have no writing statements within WITH")
    invoice = books.vendor_invoice(session)
    books.entry(session, "4000", source=("vendor_invoice", invoice.id), contra="4999")
    session.execute(insert(JournalEntry), [an_entry(1, invoice.id)])
    (key,) = entry_ids(session)
    session.execute(insert(JournalLine), a_line(key, account="4000"))
    UNSEEN[way](session, [a_line(key, 2)])
    session.commit()
    account = sync.verify(session, "acme").account("2400")
    assert [(cause.name, cause.count) for cause in account.faults] == [("missing", 1)]
    sync.sync_entries(session, [key])
    assert_in_sync(session, sync)
    assert amounts(session) == [(100, 100)]


def test_a_legacy_bulk_update_is_missing_in_the_proof_and_is_synced_explicitly(
    sync: LedgerSync, session: Session
) -> None:
    (draft,) = drafts(session)
    session.bulk_update_mappings(JournalEntry, [{"id": draft.id, "status": "posted", "posted_at": NOON}])
    session.commit()
    assert [cause.name for cause in sync.verify(session, "acme").account("2400").faults] == ["missing"]
    sync.sync_entries(session, [draft.id])
    assert_in_sync(session, sync)


# -- choices -----------------------------------------------------------------------------------------------


def post_everything(session: Session, **options: Any) -> Any:
    return session.execute(update(JournalEntry).values(status="posted", posted_at=NOON), execution_options=options)


def drafts(session: Session, count: int = 1) -> list[JournalEntry]:
    """Committed drafts, each from an invoice of its own."""
    made = []
    for _ in range(count):
        invoice = books.vendor_invoice(session)
        made.append(books.entry(session, source=("vendor_invoice", invoice.id), post=False))
    session.commit()
    return made


def test_a_statement_may_be_synced_where_others_are_refused(engine: Engine) -> None:
    with attached(engine, Settings()) as (_, session):
        drafts(session)
        with pytest.raises(BulkWriteError, match='ledger_sync_bulk="sync"'):
            post_everything(session)
        post_everything(session, ledger_sync_bulk="sync")
        synced(session)
        assert amounts(session) == [(100, 100)]


@pytest.mark.parametrize(("choice", "rows"), [("sync", 1), ("ignore", 0), ("warn", 0), ("refuse", 0)])
def test_the_option_of_a_statement_beats_the_settings(
    session: Session, caplog: pytest.LogCaptureFixture, choice: str, rows: int
) -> None:
    (draft,) = drafts(session)
    if choice == "refuse":
        with pytest.raises(BulkWriteError):
            post_everything(session, ledger_sync_bulk=choice)
    else:
        post_everything(session, ledger_sync_bulk=choice)
        assert draft.status == "posted"
    assert len(amounts(session)) == rows
    assert ("would bypass the subledger" in caplog.text) == (choice == "warn")


def test_an_unknown_option_is_refused_with_those_that_there_are(session: Session) -> None:
    with pytest.raises(ConfigurationError, match=r"ledger_sync_bulk='skip' is not known.*sync, refuse, warn, ignore"):
        post_everything(session, ledger_sync_bulk="skip")


def test_what_is_written_while_paused_is_left_out(sync: LedgerSync, session: Session) -> None:
    drafts(session)
    with sync.paused(session):
        post_everything(session)
    session.commit()
    assert amounts(session) == []


def test_statements_on_other_tables_pass_as_they_are(engine: Engine, session: Session) -> None:
    books.vendor(session)
    session.flush()
    with statements(engine) as sent:
        session.execute(update(Vendor).where(Vendor.name == "x").values(number="1"))
    assert len(sent) == 1


def test_what_is_pending_is_flushed_first_unless_that_is_switched_off(sync: LedgerSync, session: Session) -> None:
    invoice = books.vendor_invoice(session)
    session.commit()
    books.entry(session, source=("vendor_invoice", invoice.id), post=False)
    with session.no_autoflush:
        assert post_everything(session).rowcount == 0
    assert post_everything(session).rowcount == 1
    session.commit()
    assert_in_sync(session, sync)
    assert amounts(session) == [(100, 100)]


def test_a_statement_within_a_flush_is_synced(sync: LedgerSync, session: Session) -> None:
    (draft,) = drafts(session)
    flushes: list[int] = []

    def post_at_the_first_flush(session: Session, *_: Any) -> None:
        flushes.append(1)
        if len(flushes) == 1:
            post_everything(session)

    event.listen(session, "before_flush", post_at_the_first_flush)
    draft.description = "changed"
    session.commit()
    assert (draft.status, draft.description) == ("posted", "changed")
    assert_in_sync(session, sync)
    assert amounts(session) == [(100, 100)]


def test_a_sync_that_is_attached_twice_acts_once(engine: Engine, sync: LedgerSync, session: Session) -> None:
    drafts(session)
    sync.attach(session)
    with statements(engine) as sent:
        post_everything(session)
    assert sum(statement.startswith("INSERT INTO supplier_ledger") for statement in sent) == 1


# -- transactions ------------------------------------------------------------------------------------------


def test_a_savepoint_that_rolls_back_takes_statement_rows_and_signals_along(sync: LedgerSync, session: Session) -> None:
    told: list[Any] = []

    def hear(sender: object, item: Any) -> None:
        told.append(item["general_ledger_id"])

    one, two = drafts(session, 2)
    with signals.item_created.connected_to(hear, sender=sync):
        savepoint = session.begin_nested()
        session.execute(where(update(JournalEntry), JournalEntry, [one.id]).values(status="posted", posted_at=NOON))
        assert amounts(session) == [(100, 100)]
        savepoint.rollback()
        assert amounts(session) == []
        with session.begin_nested():
            session.execute(where(update(JournalEntry), JournalEntry, [two.id]).values(status="posted", posted_at=NOON))
        assert told == []
        session.commit()
    assert told == [two.id]
    assert_in_sync(session, sync)


@pytest.mark.parametrize("kept", [True, False])
def test_what_a_hosts_after_flush_writes_in_a_savepoint_is_told_after_the_outermost_commit(
    sync: LedgerSync, session: Session, kept: bool
) -> None:
    told: list[Any] = []
    (one,) = drafts(session, 1)

    def hear(sender: object, item: Any) -> None:
        told.append(item["general_ledger_id"])

    def post_it(flushed: Session, _: object) -> None:
        with flushed.begin_nested():
            flushed.execute(where(update(JournalEntry), JournalEntry, [one.id]).values(status="posted", posted_at=NOON))

    with signals.item_created.connected_to(hear, sender=sync), listening(session, "after_flush", post_it):
        session.add(Vendor(tenant_id="acme", number="late", name="late"))
        session.flush()
        assert told == []
        if kept:
            session.commit()
        else:
            session.rollback()
    assert told == ([one.id] if kept else [])
    assert_in_sync(session, sync)


def test_a_rollback_takes_everything_along(sync: LedgerSync, session: Session) -> None:
    drafts(session)
    post_everything(session)
    session.rollback()
    assert amounts(session) == []
    assert_in_sync(session, sync)


def test_if_the_rows_cannot_be_written_the_statement_has_not_happened(
    sync: LedgerSync, engine: Engine, session: Session
) -> None:
    (draft,) = drafts(session)
    key = draft.id
    session.commit()
    with broken(engine):
        draft.description = "kept"
        with pytest.raises(DBAPIError, match="disk on fire"):
            post_everything(session)
        # what was loaded is as it was, and the transaction goes on
        assert (draft.status, draft.description) == ("draft", "kept")
        session.commit()
    session.commit()
    assert session.scalars(select(JournalEntry.description).where(JournalEntry.id == key)).all() == ["kept"]
    post_everything(session)
    session.commit()
    assert_in_sync(session, sync)


def test_a_statement_that_fails_leaves_the_transaction_usable(session: Session) -> None:
    drafts(session)
    with pytest.raises(DBAPIError) as caught:
        session.execute(update(JournalEntry).values(status="nonsense"))
    assert fault_of(caught.value) == "data"
    post_everything(session)
    session.commit()
    assert amounts(session) == [(100, 100)]


def test_a_late_part_that_fails_takes_the_early_ones_along(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger_sync.concerned.PART_MAX", 2)
    told: list[Any] = []

    def hear(sender: object, item: Any) -> None:
        told.append(item)

    with attached(engine, Settings(bulk="sync", manual="block")) as (sync, session):
        drafts(session, 4)
        books.entry(session, post=False)
        session.commit()
        with signals.item_created.connected_to(hear, sender=sync):
            with pytest.raises(ManualPostingError):
                post_everything(session)
            assert amounts(session) == []
            session.commit()
        assert told == []
        assert set(session.scalars(select(JournalEntry.status))) == {"draft"}


def test_a_failure_that_is_recorded_keeps_the_statement(engine: Engine) -> None:
    with attached(engine, Settings(bulk="sync", on_error="record")) as (sync, session):
        (draft,) = drafts(session)
        session.commit()
        with broken(engine):
            post_everything(session)
            session.commit()
        assert draft.status == "posted"
        session.commit()
        assert [cause.name for cause in sync.verify(session, "acme").account("2400").faults] == ["missing"]


def test_an_engine_on_which_savepoints_do_not_hold_is_refused_and_nothing_is_committed(
    sync: LedgerSync, tmp_path: Path
) -> None:
    make_sqlite(tmp_path / "books.db").dispose()
    engine = create_engine(f"sqlite:///{tmp_path / 'books.db'}")
    with sessionmaker(engine)() as session:
        sync.attach(session)
        drafts(session)
        with pytest.raises(BulkWriteError, match=r"savepoints do not hold \(ledger_sync\.dialects\.open_engine\)"):
            post_everything(session)
        session.rollback()
        assert session.scalars(select(JournalEntry.status)).all() == ["draft"]
    engine.dispose()


# -- many rows ---------------------------------------------------------------------------------------------


def insert_drafts(session: Session, count: int) -> None:
    """Committed drafts with two lines each, from an invoice of their own each, and statistics of them."""
    numbers, invoice = range(1, count + 1), an_invoice(session)
    session.execute(insert(VendorInvoice), [{**invoice, "id": n, "invoice_number": f"B{n}"} for n in numbers])
    rows = [an_entry(n, n, status="draft", posted_at=None) for n in numbers]
    session.execute(insert(JournalEntry), rows)
    lines = [a_line(key, number) for key in entry_ids(session) for number in (1, 2)]
    session.execute(insert(JournalLine), lines, execution_options={"ledger_sync_bulk": "ignore"})
    mariadb = session.get_bind().dialect.name == "mysql"
    # no other table's statistics: an emptied one would be planned for as if it stayed empty
    for name in ("general_ledger", "general_ledger_lines"):
        session.execute(text(f"ANALYZE {'TABLE ' if mariadb else ''}{name}"))
    session.commit()


def test_thousands_of_drafts_are_posted_by_one_statement_in_parts(
    sync: LedgerSync, engine: Engine, session: Session
) -> None:
    thousand = 1_000
    insert_drafts(session, 3 * thousand)
    in_order = select(ENTRY.c.id).where(ENTRY.c.status == "draft").order_by(ENTRY.c.id)
    sent_for: list[int] = []
    for count in (thousand, 2 * thousand):
        # MariaDB takes no limit behind an IN, but for one level further in
        some = select(in_order.limit(count).subquery("some").c.id)
        with statements(engine) as sent:
            session.execute(
                update(JournalEntry).where(JournalEntry.id.in_(some)).values(status="posted", posted_at=NOON)
            )
        sent_for.append(len(sent))
        synced(session)
    assert not session.identity_map  # nothing was loaded
    assert sent_for[0] < 30
    assert sent_for[1] <= 2 * sent_for[0]
    session.commit()
    assert_in_sync(session, sync)
    assert len(amounts(session)) == 6 * thousand


def test_a_flood_of_lines_is_inserted_and_moved_in_parts(
    sync: LedgerSync, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger_sync.concerned.PART_MAX", 20)
    invoice = books.vendor_invoice(session)
    session.execute(insert(JournalEntry), [an_entry(number, invoice.id) for number in range(70)])
    keys = entry_ids(session)
    session.execute(insert(JournalLine), [a_line(key, number) for key in keys for number in (1, 2)])
    synced(session)
    assert len(amounts(session)) == 140
    session.execute(
        update(JournalLine)
        .where(JournalLine.line_number == 2)
        # in this order, since MariaDB computes with what it has just assigned
        .ordered_values(
            (JournalLine.line_number, JournalLine.general_ledger_id + 10), (JournalLine.general_ledger_id, keys[-1])
        )
    )
    session.commit()
    synced(session)
    moved = select(SupplierLedger.id).where(SupplierLedger.general_ledger_id == keys[-1])
    assert len(session.execute(moved).all()) == 71
    assert_in_sync(session, sync)


# -- beside others -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["orm_where", "orm_unsynchronised", "core_where", "orm_returning"])
def test_what_comes_to_fit_the_condition_meanwhile_is_left_alone(
    sync: LedgerSync, postgresql_engine: Engine, way: str
) -> None:
    """At READ COMMITTED the statement itself would see it, and its row would be missing."""
    with Session(postgresql_engine) as session:
        drafts(session)
    late: list[int] = []

    def post_late(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE general_ledger SET") and not late:
            late.append(0)
            with Session(postgresql_engine) as other:
                late[0] = drafts(other)[0].id

    event.listen(postgresql_engine, "before_cursor_execute", post_late)
    statement = update(JournalEntry).where(JournalEntry.status == "draft")
    if way == "core_where":
        statement = update(ENTRY).where(ENTRY.c.status == "draft")
    if way == "orm_returning":
        statement = statement.returning(JournalEntry.id)
    options = {"synchronize_session": False} if way == "orm_unsynchronised" else {}
    try:
        with sessionmaker(postgresql_engine)() as session:
            sync.attach(session)
            session.execute(statement.values(status="posted", posted_at=NOON), execution_options=options)
            session.commit()
            assert session.get_one(JournalEntry, late[0]).status == "draft"
            assert amounts(session) == [(100, 100)]
            assert_in_sync(session, sync)
    finally:
        event.remove(postgresql_engine, "before_cursor_execute", post_late)


@pytest.mark.parametrize("first", ["filter", "sync"])
def test_criteria_of_the_hosts_own_listeners_hold(engine: Engine, sync: LedgerSync, first: str) -> None:
    def only_acme(state: Any) -> None:
        mine = with_loader_criteria(JournalEntry, JournalEntry.tenant_id == "acme", include_aliases=True)
        state.statement = state.statement.options(mine)

    with Session(engine) as session:
        for post in (False, True):
            books.entry(session, source=("vendor_invoice", 1), tenant="other", post=post)
        drafts(session)
    with sessionmaker(engine)() as session:
        if first == "filter":
            event.listen(session, "do_orm_execute", only_acme)
        sync.attach(session)
        if first == "sync":
            event.listen(session, "do_orm_execute", only_acme)
        of_that_day = update(JournalEntry).where(JournalEntry.entry_date == DAY)
        if first == "filter":
            # what is posted in the other tenant's books does not come into it
            assert session.execute(of_that_day.values(description="x")).rowcount == 1
        drafts_only = of_that_day.where(JournalEntry.status == "draft")
        assert session.execute(drafts_only.values(status="posted", posted_at=NOON)).rowcount == 1
        session.commit()
        synced(session)
        assert amounts(session) == [(100, 100)]


# -- what is posted stays ----------------------------------------------------------------------------------

GUARDED: dict[str, tuple[str, Callable[[Session, int], Any]]] = {
    "update_entry": ("UPDATE cannot touch it", lambda s, e: s.execute(update(JournalEntry).values(description="x"))),
    "update_entry_by_key": (
        "UPDATE cannot touch it",
        lambda s, e: update_by_key(s, JournalEntry, [e], {"description": "x"}),
    ),
    "delete_entry": ("DELETE cannot touch it", lambda s, e: s.execute(delete(JournalEntry))),
    "update_line": ("UPDATE cannot touch its lines", lambda s, e: s.query(JournalLine).update({"description": "x"})),
    "move_line_away": (
        "UPDATE cannot touch its lines",
        lambda s, e: s.execute(
            where(update(JournalLine), JournalLine, line_ids(s, e)).values(general_ledger_id=e + 1, line_number=9)
        ),
    ),
    "delete_line": ("DELETE cannot touch its lines", lambda s, e: s.execute(delete(LINE))),
    "insert_line": ("no line can be added", lambda s, e: s.execute(insert(JournalLine), a_line(e, 7))),
    "insert_line_in_core": ("no line can be added", lambda s, e: s.execute(insert(LINE).values([a_line(e, 7)]))),
    "move_line_into": (
        "no line can be added",
        lambda s, e: s.execute(
            where(update(JournalLine), JournalLine, line_ids(s, e + 1)[:1]).values(general_ledger_id=e, line_number=9)
        ),
    ),
}


@pytest.mark.parametrize("way", GUARDED)
def test_a_bulk_statement_leaves_posted_entries_alone_once_they_are_committed(session: Session, way: str) -> None:
    problem, write = GUARDED[way]
    invoice = books.vendor_invoice(session)
    entry = books.entry(session, source=("vendor_invoice", invoice.id), voucher_series="B", voucher_number="17")
    session.flush()
    books.entry(session, post=False)
    session.commit()
    before = everything(session)
    with pytest.raises(PostedEntryError, match=rf"Voucher B-17/2026 is posted, so .*{problem}"):
        write(session, entry.id)
    assert everything(session) == before


@pytest.mark.parametrize("posting", ["unit_of_work", "insert", "update"])
def test_lines_may_arrive_until_the_posting_transaction_commits(session: Session, posting: str) -> None:
    invoice = books.vendor_invoice(session)
    if posting == "update":
        session.execute(insert(JournalEntry), an_entry(1, invoice.id, status="draft", posted_at=None))
        session.commit()
        post_everything(session)
    elif posting == "insert":
        session.execute(insert(JournalEntry), an_entry(1, invoice.id))
    else:
        session.add(JournalEntry(**an_entry(1, invoice.id)))
    session.flush()
    (key,) = entry_ids(session)
    session.execute(insert(JournalLine), a_line(key))
    session.add(JournalLine(**a_line(key, 2)))
    session.flush()
    synced(session)
    assert amounts(session) == [(100, 100)] * 2
    session.commit()
    with pytest.raises(PostedEntryError):
        session.execute(insert(JournalLine), a_line(key, 3))


def test_a_posting_that_was_refused_is_not_taken_for_one_of_this_transaction(engine: Engine) -> None:
    with attached(engine, Settings(bulk="sync", manual="block")) as (_, session):
        draft = books.entry(session, post=False)
        session.commit()
        with pytest.raises(ManualPostingError):
            post_everything(session)
        session.connection().execute(update(ENTRY).values(status="posted", posted_at=NOON))
        with pytest.raises(PostedEntryError):
            session.execute(insert(JournalLine), a_line(draft.id, 7))


DOCUMENTS_IN_USE: dict[str, tuple[str, Callable[[Session, int], Any]]] = {
    "delete": ("was to be deleted", lambda s, d: s.execute(delete(VendorInvoice).where(VendorInvoice.id == d))),
    "move": (
        "was to move to another tenant",
        lambda s, d: s.execute(update(VendorInvoice).values(tenant_id="other", vendor_id=books.vendor(s, "other").id)),
    ),
    "move_by_key": (
        "was to move to another tenant",
        lambda s, d: update_by_key(
            s, VendorInvoice, [d], {"tenant_id": "other", "vendor_id": books.vendor(s, "other").id}
        ),
    ),
}


@pytest.mark.parametrize("way", DOCUMENTS_IN_USE)
@pytest.mark.parametrize("named_by", ["entry", "link", "draft"])
def test_a_document_behind_a_posted_line_stays_with_its_tenant(session: Session, way: str, named_by: str) -> None:
    problem, write = DOCUMENTS_IN_USE[way]
    invoice = books.vendor_invoice(session)
    source = ("vendor_invoice", invoice.id)
    entry = books.entry(session, source=None if named_by == "link" else source, post=named_by != "draft")
    if named_by == "link":
        entry.lines[0].link = SourceLink(source_type=source[0], source_id=source[1])
    session.commit()
    before = everything(session)
    if named_by == "draft":
        write(session, source[1])
        session.commit()
        synced(session)
        return
    with pytest.raises(DocumentInUseError, match=f"vendor_invoice {source[1]} {problem}"):
        write(session, source[1])
    assert everything(session) == before
    # with the tenant that it has
    values = {"tenant_id": "acme", "invoice_number": "renamed"}
    update_by_key(session, VendorInvoice, [source[1]], values)
    synced(session)


# -- cut-over ----------------------------------------------------------------------------------------------

CUT_OVER = date(2026, 2, 1)
OLD = date(2026, 1, 15)


def paid_old_invoice(session: Session) -> tuple[int, int]:
    """An invoice dated before the cut-over, paid after it; and the draft that posts it after the cut-over."""
    invoice = books.vendor_invoice(session, payment_reference="K1", invoice_date=OLD)
    paid = books.vendor_payment(session, 100, payment_reference="K1")
    books.entry(session, "2400", 100, ("vendor_payment", paid.id))
    draft = books.entry(session, source=("vendor_invoice", invoice.id), post=False)
    session.commit()
    return invoice.id, draft.id


def test_payments_follow_when_a_bulk_statement_posts_or_takes_back_an_old_invoices_own_line(engine: Engine) -> None:
    rules = Rules(cut_over=CUT_OVER)
    with attached(engine, Settings(bulk="sync", effective_from=CUT_OVER)) as (sync, session):
        invoice, draft = paid_old_invoice(session)
        assert amounts(session) == []
        post_drafts = update(JournalEntry).where(JournalEntry.status == "draft")
        session.execute(post_drafts.values(status="posted", posted_at=NOON))
        synced(session, rules)
        assert amounts(session) == [(-100, 0), (100, 0)]
        # its source moves on, and back
        other = books.vendor_invoice(session)
        this = update(JournalEntry).where(JournalEntry.id == draft)
        session.execute(this.values(source_id=other.id))
        synced(session, rules)
        assert amounts(session) == [(100, 100)]
        session.execute(this.values(source_id=invoice))
        synced(session, rules)
        line = line_ids(session, draft)[0]
        session.execute(insert(SourceLink), {"line_id": line, "source_type": "vendor_invoice", "source_id": other.id})
        synced(session, rules)
        assert amounts(session) == [(100, 100)]
        session.execute(delete(SourceLink))
        synced(session, rules)
        assert amounts(session) == [(-100, 0), (100, 0)]
        session.execute(delete(JournalLine).where(JournalLine.general_ledger_id == draft))
        synced(session, rules)
        assert amounts(session) == []
        session.execute(insert(JournalLine), [a_line(draft), a_line(draft, 2, "4000")])
        session.commit()
        synced(session, rules)
        assert_in_sync(session, sync)
        assert amounts(session) == [(-100, 0), (100, 0)]


# -- a host's own classes ----------------------------------------------------------------------------------


@pytest.fixture
def hosted(engine: Engine) -> Iterator[Engine]:
    """The engine with the tables of a host that has classes of its own."""
    editable.Base.metadata.create_all(engine)
    yield engine
    # what is made for the host has the names of the ready-made tables
    own = [table for table in editable.Base.metadata.sorted_tables if table.name.startswith("e_")]
    editable.Base.metadata.drop_all(engine, tables=own)


def host_books(session: Session) -> tuple[int, int]:
    """A posted, uncommitted entry without lines and a draft, both from an invoice."""
    session.add(editable.Supplier(id=1, tenant_id="acme", number="S1", name="x"))
    session.add(editable.Invoice(id=1, tenant_id="acme", vendor_id=1, invoice_number="1", invoice_date=DAY, amount=100))
    entry = editable.Entry(**an_entry(1, 1))
    draft = editable.Entry(**an_entry(2, 1, status="draft", posted_at=None))
    session.add_all([entry, draft])
    session.flush()
    return entry.id, draft.id


def host_sync() -> LedgerSync:
    sync = editable.editable_sync()
    return sync_of(sync.settings.model_copy(update={"bulk": "sync"}), sync.binding)


def test_where_posted_entries_can_be_edited_rows_follow_bulk_statements(hosted: Engine) -> None:
    sync = host_sync()
    with sessionmaker(hosted)() as session:
        sync.attach(session)
        entry, draft = host_books(session)
        session.commit()
        session.execute(insert(editable.Line), [a_line(entry), a_line(entry, 2), a_line(draft)])
        session.commit()
        assert amounts(session, editable.Item) == [(100, 100)] * 2
        session.execute(update(editable.Line).where(editable.Line.line_number == 2).values(credit=Decimal(30)))
        session.commit()
        assert amounts(session, editable.Item) == [(30, 30), (100, 100)]
        session.execute(update(editable.Entry).where(editable.Entry.id == draft).values(status="posted"))
        session.commit()
        session.execute(delete(editable.Line).where(editable.Line.line_number == 2))
        session.execute(update(editable.Entry).where(editable.Entry.id == entry).values(status="draft"))
        session.commit()
        assert_in_sync(session, sync)
        assert list(session.scalars(select(editable.Item.general_ledger_id))) == [draft]


def test_a_hosts_entries_that_cannot_be_edited_take_lines_until_they_are_committed(hosted: Engine) -> None:
    binding = replace(editable.editable_sync().binding, editable=False)
    sync = sync_of(Settings(bulk="sync", control_accounts=[SUPPLIERS]), binding)
    with sessionmaker(hosted)() as session:
        sync.attach(session)
        entry, key = host_books(session)
        session.execute(insert(editable.Line), a_line(entry))
        session.commit()
        draft = session.get_one(editable.Entry, key)
        draft.status = "posted"
        session.flush()
        session.execute(insert(editable.Line), a_line(key))
        with pytest.raises(PostedEntryError):
            session.execute(insert(editable.Line), a_line(entry, 2))
        session.commit()
        with pytest.raises(PostedEntryError):
            session.execute(insert(editable.Line), a_line(key, 2))
        assert_in_sync(session, sync)
        assert amounts(session, editable.Item) == [(100, 100)] * 2


@pytest.mark.parametrize("how", ["bulk", "past the hook", "the session"])
def test_the_link_of_a_line_that_is_gone_goes_along_since_another_may_get_its_number(hosted: Engine, how: str) -> None:
    sync = host_sync()
    with sessionmaker(hosted)() as session:
        sync.attach(session)
        host_books(session)
        manual = editable.Entry(**an_entry(3, 1, source_type=None, source_id=None))
        line = editable.Line(account_number="2400", line_number=1, credit=Decimal(100))
        manual.lines.append(line)
        session.add(manual)
        session.flush()
        session.add(editable.Link(line_id=line.id, source_type="vendor_invoice", source_id=1))
        session.commit()
        assert amounts(session, editable.Item) == [(100, 100)]
        gone = delete(editable.Line).where(editable.Line.id == line.id)
        if how == "bulk":
            session.execute(gone)
        elif how == "past the hook":
            session.connection().execute(gone)
            sync.sync_entries(session, [manual.id])
        else:
            session.delete(line)
        session.commit()
        assert amounts(session, editable.Item) == []
        assert session.scalars(select(editable.Link)).all() == []


def test_a_link_that_was_there_before_its_line_is_seen_with_it(hosted: Engine) -> None:
    """Where no foreign key makes it wait."""
    sync = host_sync()
    with sessionmaker(hosted)() as session:
        sync.attach(session)
        host_books(session)
        session.execute(insert(editable.Link), {"line_id": 50, "source_type": "vendor_invoice", "source_id": 1})
        session.execute(insert(editable.Entry), an_entry(3, 1, id=60, source_type=None, source_id=None))
        session.execute(insert(editable.Line), a_line(60, id=50))
        session.commit()
        assert_in_sync(session, sync)
        assert amounts(session, editable.Item) == [(100, 100)]


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_lines_that_wait_for_their_entry_or_go_with_it_are_seen(hosted: Engine) -> None:
    """Foreign keys that are looked at late, or that delete by themselves, as a host may have them."""
    sync = host_sync()
    with hosted.begin() as connection:
        connection.execute(text("ALTER TABLE e_lines DROP CONSTRAINT e_lines_general_ledger_id_fkey"))
        connection.execute(
            text(
                "ALTER TABLE e_lines ADD FOREIGN KEY (general_ledger_id) REFERENCES e_entries (id) "
                "ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED"
            )
        )
    with sessionmaker(hosted)() as session:
        sync.attach(session)
        host_books(session)
        session.execute(insert(editable.Line), [a_line(60), a_line(60, 2)])
        assert amounts(session, editable.Item) == []
        session.execute(insert(editable.Entry), an_entry(3, 1, id=60))
        session.commit()
        assert amounts(session, editable.Item) == [(100, 100)] * 2
        session.execute(delete(editable.Entry).where(editable.Entry.id == 60))
        session.commit()
        assert_in_sync(session, sync)
        assert amounts(session, editable.Item) == []


class Shared(DeclarativeBase):
    """Documents over several tables: a host that keeps what its kinds of papers have in common in one."""


class Paper(Shared):
    __tablename__ = "papers"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    vendor_id: Mapped[int]
    invoice_date: Mapped[date]
    kind: Mapped[str]
    invoice_number: Mapped[str]
    payment_reference: Mapped[str | None]
    credits_id: Mapped[int | None]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "paper"}  # noqa: RUF012


class BilledPaper(Paper):
    __tablename__ = "billed_papers"
    id: Mapped[int] = mapped_column(ForeignKey("papers.id"), primary_key=True)
    due_date: Mapped[date | None]
    __mapper_args__ = {"polymorphic_identity": "invoice"}  # noqa: RUF012


@pytest.mark.parametrize(
    ("bound", "write"),
    [
        (BilledPaper, lambda s: s.execute(delete(Paper.__table__))),
        (BilledPaper, lambda s: s.execute(delete(BilledPaper.__table__))),
        (BilledPaper, lambda s: s.execute(insert(BilledPaper), [{"id": 1}])),
        (Paper, lambda s: s.execute(insert(BilledPaper), [{"id": 1}])),
    ],
)
def test_documents_over_several_tables_are_refused(bound: Any, write: Callable[[Session], Any]) -> None:
    made = editable.editable_sync().binding
    (ledger,) = made.ledgers
    document, payment = ledger.documents
    if bound is Paper:
        document = replace(document, due_date=None)
    papers = replace(ledger, documents=(replace(document, model=bound), payment))
    sync = sync_of(Settings(bulk="sync", control_accounts=[SUPPLIERS]), replace(made, ledgers=(papers,)))
    engine = open_engine("sqlite://")
    with sessionmaker(engine)() as session:
        sync.attach(session)
        with pytest.raises(BulkWriteError, match=r"no column of its own for the key|a subclass"):
            write(session)
    engine.dispose()
