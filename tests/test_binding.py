"""Classes of a host's own are taken or refused when ``LedgerSync`` is made: class, attribute and remedy are named.

``host`` makes a small set of classes that fits; each test spoils one thing about it, and reads the error as a person
would who has to put it right. What a host leaves out is made for it, and is there to be migrated.
"""

from __future__ import annotations

import enum
import gc
import pickle
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    Numeric,
    String,
    Text,
    UniqueConstraint,
    func,
    inspect,
    literal,
    type_coerce,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, column_property, declarative_base, sessionmaker, synonym

from ledger_sync import ConfigurationError, ControlAccount, Document, Ledger, LedgerSync, Settings
from ledger_sync.dialects import open_engine
from ledger_sync.models import Money

Changes = Mapping[str, Any]
GONE = object()
"""In place of an attribute: the class has none."""


def _posted() -> Any:
    return hybrid_property(lambda self: self.state == "posted")


def host(**changes: Changes) -> dict[str, Any]:
    """The arguments of ``LedgerSync`` for classes that fit, but for the changes to them, by class."""
    base: Any = declarative_base()

    def made(name: str, table: str, /, **attributes: Any) -> type[Any]:
        given = {"__tablename__": table, **attributes, **changes.get(name.lower(), {})}
        return type(name, (base,), {key: value for key, value in given.items() if value is not GONE})

    vendor = made("Vendor", "vendors", id=Column(Integer, primary_key=True), number=Column(String), name=Column(String))
    invoice = made(
        "Invoice",
        "invoices",
        id=Column(Integer, primary_key=True),
        tenant_id=Column(String(20)),
        vendor_id=Column(ForeignKey("vendors.id")),
        invoice_number=Column(String(20)),
        invoice_date=Column(Date),
        due_date=Column(Date),
        amount=Column(Numeric(15, 2)),
    )
    entry = made(
        "Entry",
        "entries",
        id=Column(Integer, primary_key=True),
        tenant_id=Column(String(20)),
        voucher_number=Column(Integer),
        entry_date=Column(Date),
        state=Column(String(10)),
        posted=_posted(),
        source_type=Column(String(20)),
        source_id=Column(Integer),
        reverses_id=Column(ForeignKey("entries.id"), unique=True),
    )
    line = made(
        "Line",
        "lines",
        id=Column(Integer, primary_key=True),
        general_ledger_id=Column(ForeignKey("entries.id")),
        line_number=Column(Integer),
        account_number=Column(String(10)),
        debit=Column(Numeric(15, 2), default=Decimal(0)),
        credit=Column(Numeric(15, 2), default=Decimal(0)),
        __table_args__=(UniqueConstraint("general_ledger_id", "line_number"),),
    )
    item = made(
        "Item",
        "items",
        id=Column(Integer, primary_key=True),
        tenant_id=Column(String(20)),
        general_ledger_id=Column(ForeignKey("entries.id")),
        general_ledger_line_id=Column(ForeignKey("lines.id"), unique=True, nullable=False),
        account_number=Column(String(10)),
        vendor_id=Column(ForeignKey("vendors.id")),
        source_type=Column(String(20)),
        source_id=Column(Integer),
        kind=Column(String(20)),
        entry_date=Column(Date),
        amount=Column(Numeric(15, 2)),
        remaining_amount=Column(Numeric(15, 2)),
        status=Column(String(20)),
        settlement_key=Column(String(120)),
    )
    link: dict[str, Any] = {}
    if "link" in changes:
        link["link"] = made(
            "Link",
            "links",
            id=Column(Integer, primary_key=True),
            line_id=Column(ForeignKey("lines.id"), unique=True),
            source_type=Column(String(20)),
            source_id=Column(Integer),
        )
    suppliers = Ledger(
        name="supplier",
        item=item,
        party="vendor_id",
        party_model=vendor,
        documents=(Document.of("vendor_invoice", invoice, "invoice", "vendor_id"),),
    )
    return {"entry": entry, "line": line, "ledgers": [suppliers], **link}


class Moods(enum.Enum):
    open = "open"
    settled = "settled"


WITHOUT: dict[str, Changes] = {"general_ledger_id": {"__table_args__": ()}}
"""What else must go with an attribute, for there to be a class at all."""

REFUSED: list[Any] = [
    # what is not there
    *(
        pytest.param(
            {name: {attribute: GONE, **WITHOUT.get(attribute, {})}},
            [f"{name.title()} has no attribute '{attribute}'", "synonym()"],
            id=f"no {name}.{attribute}",
        )
        for name, attributes in {
            "entry": ("voucher_number", "source_type", "source_id", "entry_date", "posted"),
            "line": ("account_number", "general_ledger_id", "debit", "credit"),
            "item": ("source_type", "kind", "status", "settlement_key", "entry_date", "amount", "remaining_amount"),
            "invoice": ("vendor_id", "tenant_id"),
            "vendor": ("number", "name"),
            "link": ("source_type", "source_id", "line_id"),
        }.items()
        for attribute in attributes
    ),
    # types
    pytest.param(
        {"entry": {"entry_date": Column(DateTime)}}, ["Entry.entry_date", "not a date", "Date column"], id="a moment"
    ),
    pytest.param(
        {"invoice": {"invoice_date": Column(String)}},
        ["Invoice.invoice_date", "not a date", "Date column"],
        id="a text",
    ),
    pytest.param({"line": {"debit": Column(Float)}}, ["Line.debit", "no exact amounts", "Numeric"], id="a float"),
    pytest.param(
        {"item": {"amount": Column(Float)}}, ["Item.amount", "no exact amounts", "Numeric"], id="an item's float"
    ),
    pytest.param(
        {"line": {"currency_amount": Column(Integer)}}, ["Line.currency_amount", "no exact amounts"], id="an integer"
    ),
    pytest.param(
        {"entry": {"posted": Column(String)}},
        ["Entry.posted", "not a truth value", "hybrid_property"],
        id="posted is a text",
    ),
    pytest.param(
        {"entry": {"source_id": Column(String(36))}},
        ["Entry.source_id", "Invoice.id is of type", "Give both one type"],
        id="sources of another type",
    ),
    pytest.param(
        {"line": {"general_ledger_id": Column(String(36))}},
        ["Line.general_ledger_id", "Entry.id is of type", "Give both one type"],
        id="entries of another type",
    ),
    pytest.param(
        {"item": {"general_ledger_line_id": Column(String(36), unique=True)}},
        ["Item.general_ledger_line_id", "Line.id is of type", "Give both one type"],
        id="lines of another type",
    ),
    pytest.param(
        {"item": {"vendor_id": Column(String(36))}},
        ["Item.vendor_id", "Invoice.vendor_id is of type"],
        id="other parties",
    ),
    pytest.param(
        {"invoice": {"tenant_id": Column(Integer)}},
        ["Invoice.tenant_id", "Entry.tenant_id is of type"],
        id="other tenants",
    ),
    pytest.param(
        {"link": {"line_id": Column(String, unique=True)}}, ["Link.line_id", "Line.id is of type"], id="links to others"
    ),
    # what is computed, where it must be looked up or written
    pytest.param(
        {"item": {"amount": column_property(type_coerce(literal(0), Numeric(15, 2)))}},
        ["Item.amount", "is computed", "Make it a column, or a synonym of one"],
        id="a computed amount",
    ),
    pytest.param(
        {"line": {"general_ledger_id": column_property(literal(1, Integer())), "__table_args__": ()}},
        ["Line.general_ledger_id", "is computed", "Make it a column"],
        id="a computed entry",
    ),
    pytest.param(
        {"entry": {"old_id": Column("old_id", Integer), "source_id": column_property(func.abs(literal(None)))}},
        ["Entry.source_id", "without a type", "type_=Integer()"],
        id="a computed key without a type",
    ),
    # keys that must be unique
    pytest.param(
        {"item": {"general_ledger_line_id": Column(ForeignKey("lines.id"))}},
        [
            "Item.general_ledger_line_id",
            "has no unique key",
            "UniqueConstraint('general_ledger_line_id')",
            "two open items",
        ],
        id="items without a key",
    ),
    pytest.param(
        {"entry": {"reverses_id": Column(ForeignKey("entries.id"))}},
        ["Entry.reverses_id", "has no unique key", "UniqueConstraint('reverses_id')", "reversed once"],
        id="reversed twice",
    ),
    pytest.param(
        {"line": {"__table_args__": ()}},
        [
            "Line.general_ledger_id and line_number",
            "has no unique key",
            "UniqueConstraint('general_ledger_id', 'line_number')",
        ],
        id="lines without a place",
    ),
    pytest.param(
        {"link": {"line_id": Column(ForeignKey("lines.id"))}},
        ["Link.line_id", "has no unique key", "a line has one source"],
        id="two sources",
    ),
    # amounts and states
    pytest.param(
        {"item": {"remaining_amount": Column(Numeric(15, 1))}},
        ["Item.remaining_amount", "1 decimals, fewer than the 2 of the lines", "rounds nothing"],
        id="fewer decimals",
    ),
    *(
        pytest.param(
            {"line": {"debit": Column(type_), "credit": Column(type_)}, "item": {"amount": Column(Numeric(12, 0))}},
            ["Item.amount", "0 decimals, fewer than the 2 of the lines", "rounds nothing"],
            id=f"no decimals beside {type_!r}",
        )
        for type_ in (Money(), Numeric())
    ),
    pytest.param(
        {"item": {"status": Column(Enum(Moods))}},
        ["Item.status", "does not know partially_paid, paid", "add them"],
        id="states that lack",
    ),
    pytest.param(
        {"item": {"kind": Column(Enum("invoice", "payment", name="kinds"))}},
        ["Item.kind", "does not know expense, reversal, credit_note", "add them"],
        id="kinds that lack",
    ),
    pytest.param(
        {"item": {"source_type": Column(Enum("vendor_invoice", name="sources"))}},
        ["Item.source_type", "does not know ehf_invoice", "the settings' sources"],
        id="sources that lack",
    ),
    # what would not be filled
    pytest.param(
        {"item": {"approved_by": Column(String, nullable=False)}},
        ["Item.approved_by", "NOT NULL", "server_default, or make it nullable"],
        id="a column that nobody fills",
    ),
    pytest.param(
        {"item": {"id": Column(String(36), primary_key=True, default=lambda: "made in Python")}},
        ["Item.id", "made in Python", "server_default"],
        id="a key that Python makes",
    ),
    pytest.param(
        {"item": {"branch": Column(String(3), primary_key=True, server_default="1")}},
        ["Item.branch", "part of the primary key", "general_ledger_line_id"],
        id="a key of something else",
    ),
]


@pytest.mark.parametrize(("changes", "told"), REFUSED)
def test_what_does_not_fit_is_refused_by_class_attribute_and_remedy(
    changes: dict[str, Changes], told: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        LedgerSync(**host(**changes))
    for part in told:
        assert part in str(refused.value)


def test_the_small_host_fits_and_works(tmp_path: Path) -> None:
    """Otherwise each refusal above might be of something else."""
    classes = host(link={})
    sync = LedgerSync(**classes)
    engine = open_engine(f"sqlite:///{tmp_path / 'books.db'}")
    classes["entry"].metadata.create_all(engine)
    factory = sessionmaker(engine)
    sync.attach(factory)
    entry, line, invoice = classes["entry"], classes["line"], sync.binding.ledger("supplier").documents[0].model
    with factory.begin() as session:
        session.add(sync.binding.ledger("supplier").party_model(id=1, number="V1", name="Vendor 1"))
        session.flush()
        session.add(invoice(id=1, tenant_id="a", vendor_id=1, invoice_number="7", invoice_date=date(2026, 3, 1)))
        of_invoice = {"source_type": "vendor_invoice", "source_id": 1}
        session.add(
            entry(tenant_id="a", id=1, voucher_number=1, entry_date=date(2026, 3, 1), state="posted", **of_invoice)
        )
        session.flush()
        session.add(line(general_ledger_id=1, line_number=1, account_number="4000", debit=Decimal(100)))
        session.add(line(general_ledger_id=1, line_number=2, account_number="2400", credit=Decimal(100)))
    with factory() as session:
        (item,) = sync.open_items(session, "a")
        assert (item.amount, item.source_type, item.source_id) == (Decimal(100), "vendor_invoice", 1)
        assert sync.verify(session, "a").clean
    engine.dispose()


@pytest.mark.parametrize(
    "fitting",
    [
        {"item": {"general_ledger_line_id": Column("voucher_line", ForeignKey("lines.id"), unique=True)}},
        {
            "item": {
                "general_ledger_line_id": Column(ForeignKey("lines.id")),
                "__table_args__": (Index("one", "general_ledger_line_id", unique=True),),
            }
        },
        {"item": {"approved_by": Column(String, nullable=False, server_default="nobody")}},
        {"item": {"approved_by": Column(String, nullable=False, default="nobody")}},
        {"item": {"id": Column(BigInteger, ForeignKey("lines.id"), primary_key=True)}},
        {"line": {"debit": GONE, "credit": GONE, "signed_amount": Column(Numeric(15, 2))}},
        {"line": {"line_number": GONE, "__table_args__": ()}, "entry": {"reverses_id": GONE}},
        {"line": {"debit": Column(Numeric)}},
        {"entry": {"posted": Column(Boolean)}},
        {"entry": {"day": Column(Date), "entry_date": synonym("day")}},
        {"entry": {"kept_id": Column(Integer), "source_id": synonym("kept_id")}},
        {"invoice": {"invoice_number": GONE, "due_date": GONE, "amount": GONE}},
        {"item": {"status": Column(Enum("open", "partially_paid", "paid", "disputed", name="states"))}},
        {"item": {"settlement_key": Column(Text)}},
    ],
    ids=lambda fitting: " ".join(f"{name}.{'+'.join(values)}" for name, values in fitting.items()),
)
def test_what_may_be_otherwise_fits(fitting: dict[str, Changes]) -> None:
    sync = LedgerSync(**host(**fitting))
    assert [control.ledger for control in sync.settings.control_accounts] == ["supplier"]


def test_a_class_that_is_not_mapped_is_refused() -> None:
    class Plain:
        pass

    classes = host()
    with pytest.raises(ConfigurationError, match=r"Plain.* is not a mapped class\. Give a declarative class\."):
        LedgerSync(**{**classes, "entry": Plain})


def test_a_ledger_that_shares_its_table_is_refused() -> None:
    kinds = {"which": Column(String), "__mapper_args__": {"polymorphic_on": "which", "polymorphic_identity": "all"}}
    with pytest.raises(ConfigurationError, match=r"Item shares its table by inheritance\. Give each ledger a table"):
        LedgerSync(**host(item=kinds))


@pytest.mark.parametrize("left_out", ["entry", "line", "ledgers"])
def test_models_are_given_together(left_out: str) -> None:
    classes = host()
    del classes[left_out]
    with pytest.raises(ConfigurationError, match=r"given together: entry=…, line=… and ledgers="):
        LedgerSync(**classes)


def test_settings_that_name_what_the_models_lack_are_refused() -> None:
    controls = (ControlAccount(accounts=("1500",), ledger="customer"),)
    with pytest.raises(ConfigurationError, match=r"no ledger 'customer'; the models have supplier"):
        LedgerSync(Settings(control_accounts=controls), **host())


def test_the_default_settings_are_narrowed_to_what_the_models_have() -> None:
    (control,) = LedgerSync(**host()).settings.control_accounts
    assert (control.accounts, control.ledger) == (("2400",), "supplier")
    assert set(control.sources) == {"vendor_invoice", "ehf_invoice"}


def test_what_the_host_leaves_out_is_made_in_its_metadata_once() -> None:
    classes = host()
    control = ControlAccount(accounts=("2400",), ledger="supplier", sources={"ehf_invoice": "vendor_invoice"})
    first, second = LedgerSync(**classes), LedgerSync(Settings(control_accounts=(control,)), **classes)
    tables = set(classes["entry"].metadata.tables)
    assert {"ledger_source_links", "supplier_applications", "ledger_sync_runs", "ledger_sync_locks"} <= tables
    for name in ("link", "decision", "error", "lock", "run", "segment", "tombstone"):
        assert getattr(first.binding, name) is getattr(second.binding, name)
    assert first.binding.ledger("supplier").application is second.binding.ledger("supplier").application


def test_two_hosts_in_one_process_have_classes_of_their_own() -> None:
    one, other = LedgerSync(**host()), LedgerSync(**host())
    assert one.binding.run is not other.binding.run
    assert inspect(one.binding.run).local_table.metadata is not inspect(other.binding.run).local_table.metadata


def test_the_made_tables_have_the_hosts_keys() -> None:
    binding = LedgerSync(**host(item={"tenant_id": Column(String(20))})).binding
    application = inspect(binding.ledger("supplier").application).local_table
    assert isinstance(application.c.from_line_id.type, Integer)
    assert isinstance(application.c.tenant_id.type, String)


class Kept(DeclarativeBase):
    """Classes of a module's own, as those that go to another process must be."""


class KeptVendor(Kept):
    __tablename__ = "vendors"
    id: Any = Column(Integer, primary_key=True)
    number: Any = Column(String)
    name: Any = Column(String)


class KeptInvoice(Kept):
    __tablename__ = "invoices"
    id: Any = Column(Integer, primary_key=True)
    vendor_id: Any = Column(ForeignKey("vendors.id"))
    invoice_date: Any = Column(Date)


class KeptEntry(Kept):
    __tablename__ = "entries"
    id: Any = Column(Integer, primary_key=True)
    voucher_number: Any = Column(Integer)
    entry_date: Any = Column(Date)
    posted: Any = Column(Boolean)
    source_type: Any = Column(String(20))
    source_id: Any = Column(Integer)


class KeptLine(Kept):
    __tablename__ = "lines"
    id: Any = Column(Integer, primary_key=True)
    general_ledger_id: Any = Column(ForeignKey("entries.id"))
    account_number: Any = Column(String(10))
    signed_amount: Any = Column(Numeric(15, 2))


KEPT = Ledger(
    name="supplier",
    party_model=KeptVendor,
    documents=(Document.of("vendor_invoice", KeptInvoice, "invoice", "vendor_id"),),
)


@pytest.mark.parametrize("own", [False, True], ids=["ready-made", "own"])
def test_a_binding_goes_to_another_process(own: bool) -> None:
    binding = LedgerSync(**({"entry": KeptEntry, "line": KeptLine, "ledgers": [KEPT]} if own else {})).binding
    again = pickle.loads(pickle.dumps(binding))
    assert again.entry is binding.entry
    assert again.run is binding.run
    assert [ledger.item for ledger in again.ledgers] == [ledger.item for ledger in binding.ledgers]


def test_statements_are_built_once_for_equal_settings(tmp_path: Path) -> None:
    """By every instance on the same models, in whatever thread."""
    built: list[str] = []

    def build() -> str:
        built.append("built")
        return "a statement"

    def ask(settings: Settings) -> str:
        binding = LedgerSync(settings).binding
        return binding.once(settings, "a key of this test", build)

    same = [Settings(batch_lines_max=31), Settings(batch_lines_max=31)]
    with ThreadPoolExecutor(1) as threads:
        assert list(threads.map(ask, same)) == ["a statement"] * 2
    assert built == ["built"]
    ask(Settings(batch_lines_max=32))
    assert built == ["built"] * 2


def test_what_is_made_for_a_host_stays_when_the_instance_is_gone() -> None:
    """A registry lets go of classes that nobody holds; their tables are still there."""
    classes = host()
    run = weakref.ref(LedgerSync(**classes).binding.run)
    for _ in range(3):
        gc.collect()
    assert LedgerSync(**classes).binding.run is run()
