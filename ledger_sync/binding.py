"""Which classes the library works on, checked once.

A ``Binding`` names the classes for entries, lines, links and, per ledger, open items and documents, with the
attributes that matter. The ready-made models are the default. Every attribute is looked up when the binding
is made, so a class that does not fit is refused then, with the class and the attribute in the error.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, TypeVar

from sqlalchemy import Column, ColumnElement, Table, UniqueConstraint, inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.util import AliasedClass

from ledger_sync import models
from ledger_sync.errors import ConfigurationError
from ledger_sync.settings import Settings

Entity = type[Any] | AliasedClass[Any]
T = TypeVar("T")

ENTRY_ATTRIBUTES: Final = [
    "id",
    "tenant_id",
    "fiscal_year",
    "voucher_series",
    "voucher_number",
    "entry_date",
    "status",
    "posted_at",
    "source_type",
    "source_id",
    "reverses_id",
]
LINE_ATTRIBUTES: Final = [
    "id",
    "general_ledger_id",
    "line_number",
    "account_number",
    "debit",
    "credit",
    "currency",
    "currency_amount",
    "reference",
    "due_date",
]
LINK_ATTRIBUTES: Final = ["line_id", "source_type", "source_id", "kind"]
ITEM_ATTRIBUTES: Final = [
    "id",
    "tenant_id",
    "general_ledger_id",
    "general_ledger_line_id",
    "account_number",
    "source_type",
    "source_id",
    "kind",
    "invoice_number",
    "invoice_date",
    "due_date",
    "entry_date",
    "currency",
    "currency_amount",
    "amount",
    "remaining_amount",
    "status",
    "settlement_key",
    "run_id",
    "updated_at",
]
APPLICATION_ATTRIBUTES: Final = [
    "id",
    "tenant_id",
    "from_line_id",
    "to_line_id",
    "amount",
    "applied_on",
    "method",
    "actor",
    "reason",
    "idempotency_key",
]


def attribute(entity: Entity, name: str) -> ColumnElement[Any]:
    """The SQL expression of an attribute of a class or of an alias of one."""
    expression: ColumnElement[Any] = getattr(entity, name)
    return expression


@dataclass(frozen=True)
class Document:
    """A class of documents and what its attributes are called.

    ``role``: an ``invoice`` (or credit note) opens an item and may be referred to; a ``payment`` refers to
    one; a ``claim`` opens an item that only names itself.
    """

    name: str
    model: type[Any]
    role: Literal["invoice", "payment", "claim"]
    party: str
    date: str
    number: str | None = None
    due_date: str | None = None
    reference: str | None = None
    kind: str | None = None
    credits: str | None = None

    def attributes(self) -> Iterator[str]:
        """The names of the attributes that the projection reads."""
        yield from ("id", "tenant_id", self.party, self.date)
        for name in (self.number, self.due_date, self.reference, self.kind, self.credits):
            if name is not None:
                yield name


@dataclass(frozen=True)
class Ledger:
    """One subledger: its open items, what settles them, who they belong to, and the documents behind them.

    ``party`` is the attribute of the open items that names the party; ``party_model``, where there is one, has
    its ``number`` and ``name`` for reports.
    """

    name: str
    item: type[Any]
    application: type[Any]
    party: str
    documents: tuple[Document, ...]
    party_model: type[Any] | None = None

    def __post_init__(self) -> None:
        for roles in (("invoice", "claim"), ("payment",)):
            several = [document.name for document in self.documents if document.role in roles]
            if len(several) > 1:
                raise ConfigurationError(
                    f"The {self.name} ledger has {' and '.join(several)} for one role. Bind one class for it; "
                    "several kinds of documents share one by inheritance."
                )

    def __getstate__(self) -> dict[str, Any]:
        # in another process the table is looked up anew: a copy of it would not be the one that is mapped there
        return {name: value for name, value in self.__dict__.items() if name != "table"}

    @cached_property
    def table(self) -> Table:
        """The table of the open items."""
        return _table(self.item)

    def column(self, name: str) -> Column[Any]:
        """The column of the open items' table behind an attribute; ``party_id`` is the ledger's own party."""
        mapper: Mapper[Any] = inspect(self.item)
        column = mapper.column_attrs[self.party if name == "party_id" else name].columns[0]
        assert isinstance(column, Column)
        return column

    def document(self, name: str) -> Document | None:
        """The document class of that name, or None."""
        return next((document for document in self.documents if document.name == name), None)


@dataclass(frozen=True)
class Binding:
    """All the classes of one set of books.

    ``editable``: whether posted entries and their lines can be changed. Then whoever writes rows for entries that
    existed before locks those entries first; entries that cannot change need no lock.
    """

    entry: type[Any]
    line: type[Any]
    link: type[Any]
    error: type[Any]
    lock: type[Any]
    run: type[Any]
    segment: type[Any]
    tombstone: type[Any]
    ledgers: tuple[Ledger, ...]
    editable: bool = False
    _names: dict[str, Ledger] = field(init=False, repr=False, compare=False)
    _built: dict[int, tuple[Settings, dict[Hashable, Any]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _require(self.entry, ENTRY_ATTRIBUTES)
        _require(self.line, LINE_ATTRIBUTES)
        _require(self.link, LINK_ATTRIBUTES)
        for ledger in self.ledgers:
            _require(ledger.item, [*ITEM_ATTRIBUTES, ledger.party])
            _require(ledger.application, APPLICATION_ATTRIBUTES)
            if ledger.party_model is not None:
                _require(ledger.party_model, ["id", "tenant_id", "number", "name"])
            _require_unique(ledger.item, ledger.column("general_ledger_line_id"))
            for document in ledger.documents:
                _require(document.model, list(document.attributes()))
        object.__setattr__(self, "_names", {ledger.name: ledger for ledger in self.ledgers})
        object.__setattr__(self, "_built", {})

    def __getstate__(self) -> dict[str, Any]:
        # statements are built anew in another process
        return {name: value for name, value in self.__dict__.items() if name != "_built"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _built={})

    def ledger(self, name: str) -> Ledger:
        """The ledger of that name.

        :raises ConfigurationError: there is none.
        """
        if name not in self._names:
            raise ConfigurationError(
                f"There is no ledger {name!r}; the models have {', '.join(sorted(self._names))}. "
                "Bind open items and documents for it, or take its control accounts out of the settings."
            )
        return self._names[name]

    def once(self, settings: Settings, key: Hashable, build: Callable[[], T]) -> T:
        """What ``build`` makes for these settings: a statement, say, which takes longer to build than to run.

        ``key`` tells it from everything else that is built for the same settings.
        """
        # the settings are kept beside it, so that no others can come to have their identity
        _, built = self._built.setdefault(id(settings), (settings, {}))
        if key not in built:
            built[key] = build()
        made: T = built[key]
        return made

    def check(self, settings: Settings) -> None:
        """Refuse settings that name ledgers or documents which the models lack."""
        for control in settings.control_accounts:
            ledger = self.ledger(control.ledger)
            for source_type, document in control.sources.items():
                if ledger.document(document) is None:
                    known = ", ".join(d.name for d in ledger.documents)
                    raise ConfigurationError(
                        f"source {source_type!r} of the {ledger.name} ledger means {document!r}, "
                        f"but its documents are {known}. Correct the settings, or bind a class for it."
                    )


def _table(model: type[Any]) -> Table:
    table = inspect(model).local_table
    assert isinstance(table, Table)
    return table


def _require(model: type[Any], names: list[str]) -> None:
    try:
        mapper = inspect(model)
    except NoInspectionAvailable:
        raise ConfigurationError(f"{model!r} is not a mapped class. Give a declarative class.") from None
    for name in names:
        if name not in mapper.all_orm_descriptors:
            raise ConfigurationError(
                f"{model.__name__} has no attribute {name!r}. Add it, as a synonym() of the column that holds it, say."
            )


def _require_unique(model: type[Any], column: Column[Any]) -> None:
    table = _table(model)
    keys = [list(c.columns) for c in table.constraints if isinstance(c, UniqueConstraint)]
    keys += [list(index.columns) for index in table.indexes if index.unique]
    if not column.unique and [column] not in keys:
        raise ConfigurationError(
            f"{model.__name__}.{column.key} has no unique key. Add UniqueConstraint({column.key!r}): "
            "it is what keeps a line from having two open items."
        )


def _invoice(name: str, model: type[Any], party: str) -> Document:
    return Document(
        name,
        model,
        "invoice",
        party,
        "invoice_date",
        number="invoice_number",
        due_date="due_date",
        reference="payment_reference",
        kind="kind",
        credits="credits_id",
    )


def _payment(name: str, model: type[Any], party: str) -> Document:
    return Document(name, model, "payment", party, "payment_date", reference="payment_reference")


def ready_made() -> Binding:
    """The binding of the ready-made models."""
    claim = Document(
        "expense_claim",
        models.ExpenseClaim,
        "claim",
        "employee_id",
        "claim_date",
        number="claim_number",
        due_date="due_date",
    )
    return Binding(
        entry=models.JournalEntry,
        line=models.JournalLine,
        link=models.SourceLink,
        error=models.SyncError,
        lock=models.SyncLock,
        run=models.SyncRun,
        segment=models.SyncSegment,
        tombstone=models.Tombstone,
        ledgers=(
            Ledger(
                "supplier",
                models.SupplierLedger,
                models.SupplierApplication,
                "supplier_id",
                (
                    _invoice("vendor_invoice", models.VendorInvoice, "vendor_id"),
                    _payment("vendor_payment", models.VendorPayment, "vendor_id"),
                ),
                models.Vendor,
            ),
            Ledger(
                "customer",
                models.CustomerLedger,
                models.CustomerApplication,
                "customer_id",
                (
                    _invoice("customer_invoice", models.CustomerInvoice, "customer_id"),
                    _payment("customer_payment", models.CustomerPayment, "customer_id"),
                ),
                models.Customer,
            ),
            Ledger(
                "employee", models.EmployeeLedger, models.EmployeeApplication, "employee_id", (claim,), models.Employee
            ),
        ),
    )
