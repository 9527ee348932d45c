"""Which classes the library works on, checked once.

A ``Binding`` names the classes for entries and lines and, per ledger, open items and documents, with the attributes
that matter. The ready-made models are the default; a host binds its own. What a host leaves out of the library's own
tables is made for it (``Made``). A class that does not fit is refused when the binding is made, with the class and the
attribute in the error (``ledger_sync.fitting``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, fields
from functools import cache, cached_property, lru_cache, partial
from typing import Any, Final, Literal, TypeVar

from sqlalchemy import Column, ColumnElement, Table, inspect
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper
from sqlalchemy.types import TypeEngine

from ledger_sync import models
from ledger_sync.attributes import Entity, aliased, attribute, has, keys_behind, plain_key, reckoned
from ledger_sync.errors import ConfigurationError
from ledger_sync.fitting import IDENTIFYING, check_books, check_document, check_item, check_own, check_sources
from ledger_sync.models.made import Keys, Made, Maker
from ledger_sync.models.types import Words
from ledger_sync.settings import DEFAULT_CONTROL_ACCOUNTS, Settings

__all__ = ["Binding", "Document", "Entity", "Ledger", "Made", "aliased", "attribute", "ready_made"]

T = TypeVar("T")

_SETTINGS_KEPT: Final = 4
"""For so many settings, those last used, a binding keeps what it has built."""


@dataclass(frozen=True)
class Document:
    """A class of documents and what its attributes are called.

    ``role``: an ``invoice`` (or credit note) opens an item and may be referred to; a ``payment`` refers to
    one; a ``claim`` opens an item that only names itself. ``name``: what the settings' ``sources`` call it.
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

    @classmethod
    def of(
        cls,
        name: str,
        model: type[Any],
        role: Literal["invoice", "payment", "claim"],
        party: str,
        **names: str | None,
    ) -> Document:
        """A document class whose attributes have the usual names, as far as it has them.

        Usual are ``invoice_date``, ``payment_date`` or ``claim_date``; ``invoice_number`` or ``claim_number``;
        ``due_date``, ``payment_reference``; for invoices ``kind`` (``invoice`` or ``credit_note``) and ``credits_id``.

        :param party: the attribute that names the vendor, customer or employee.
        :param names: ``date``, ``number``, ``due_date``, ``reference``, ``kind``, ``credits`` under other names.
        """
        usual = {"date": f"{role}_date", "number": f"{role}_number", "due_date": "due_date"}
        if role != "claim":
            usual["reference"] = "payment_reference"
        if role == "invoice":
            usual |= {"kind": "kind", "credits": "credits_id"}
        elif role == "payment":
            usual = {key: value for key, value in usual.items() if key in {"date", "reference"}}
        _require_class(model)
        found = {key: value for key, value in usual.items() if key == "date" or has(model, value)}
        return cls(name, model, role, party, **(found | names))  # type: ignore[arg-type]

    def attributes(self) -> Iterator[str]:
        """The names of the attributes that the projection reads."""
        yield from ("id", "tenant_id", self.party, self.date)
        for name in (self.number, self.due_date, self.reference, self.kind, self.credits):
            if name is not None:
                yield name


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """One subledger: who it belongs to, the documents behind it, its open items and what settles them.

    ``name``: ``supplier``, ``customer`` or ``employee``. ``item`` and ``application``: the host's classes, where it has
    them. ``party``: the attribute of the open items that names the party. ``party_model``, where there is one, has its
    ``number`` and ``name`` for reports.
    """

    name: str
    documents: tuple[Document, ...]
    item: type[Any] = Made
    application: type[Any] = Made
    party: str = ""
    party_model: type[Any] | None = None

    def __post_init__(self) -> None:
        if not self.party:
            object.__setattr__(self, "party", f"{self.name}_id")
        object.__setattr__(self, "documents", tuple(self.documents))
        for roles in (("invoice", "claim"), ("payment",)):
            several = [document.name for document in self.documents if document.role in roles]
            if len(several) > 1:
                raise ConfigurationError(
                    f"The {self.name} ledger has {' and '.join(several)} for one role. Bind one class for it; "
                    "several kinds of documents share one by inheritance."
                )
        if not self.documents:
            raise ConfigurationError(
                f"The {self.name} ledger has no documents, so nothing could open an item in it. Bind a Document."
            )

    @cached_property
    def opener(self) -> Document | None:
        """The class whose documents open items: invoices or claims."""
        return next((document for document in self.documents if document.role != "payment"), None)

    @cached_property
    def payer(self) -> Document | None:
        """The class whose documents settle items: payments."""
        return next((document for document in self.documents if document.role == "payment"), None)

    @cached_property
    def invoices(self) -> Document | None:
        """The class whose documents open items and may be referred to; claims only name themselves."""
        return self.opener if self.opener is not None and self.opener.role == "invoice" else None

    @cached_property
    def table(self) -> Table:
        """The table of the open items."""
        table = inspect(self.item).local_table
        assert isinstance(table, Table)
        return table

    def column(self, name: str) -> Column[Any]:
        """The column of the open items' table behind an attribute; ``party_id`` is the ledger's own party."""
        mapper: Mapper[Any] = inspect(self.item)
        key = plain_key(mapper, self.party if name == "party_id" else name)
        assert key is not None, name
        column = mapper.column_attrs[key].columns[0]
        assert isinstance(column, Column)
        return column

    def expression(self, name: str) -> ColumnElement[Any]:
        """What the table has for an attribute, in the type that the library reckons in, or its stand-in."""
        if not self.stores(name):
            return attribute(self.item, name)
        return reckoned(self.column(name), name)

    def stores(self, name: str) -> bool:
        """Whether the open items have a column for an attribute."""
        return plain_key(inspect(self.item), self.party if name == "party_id" else name) is not None

    @property
    def key_is_line(self) -> bool:
        """Whether an open item takes the id of its line for its own, since the database numbers no items."""
        column = self.column("id")
        return column is not column.table.autoincrement_column and column.server_default is None

    @property
    def adopts(self) -> bool:
        """Whether there may be rows from before, which do not know their line."""
        return bool(self.column("general_ledger_line_id").nullable)

    def identity(self, row: Any) -> tuple[Any, ...]:
        """The primary key of an open item, from what was returned of it."""
        mapper: Mapper[Any] = inspect(self.item)
        names = {self.column(name): name for name in IDENTIFYING if self.stores(name)}
        return tuple(row[names[column]] for column in mapper.primary_key if isinstance(column, Column))

    def document(self, name: str) -> Document | None:
        """The document class of that name, or None."""
        return next((document for document in self.documents if document.name == name), None)


@dataclass(frozen=True, kw_only=True)
class Binding:
    """All the classes of one set of books.

    ``editable``: whether posted entries and their lines can be changed. Then whoever writes rows for entries that
    existed before locks those entries first; entries that cannot change need no lock. Source links, decisions, locks,
    runs, segments, tombstones and errors are the library's own tables, and are made where the host has none.
    """

    entry: type[Any]
    line: type[Any]
    ledgers: tuple[Ledger, ...]
    link: type[Any] = Made
    decision: type[Any] = Made
    error: type[Any] = Made
    lock: type[Any] = Made
    run: type[Any] = Made
    segment: type[Any] = Made
    tombstone: type[Any] = Made
    editable: bool = True
    _given: dict[str, Any] = field(init=False, repr=False, compare=False)
    _names: dict[str, Ledger] = field(init=False, repr=False, compare=False)
    _built: Callable[[str], dict[Hashable, Any]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        object.__setattr__(self, "_given", given)
        object.__setattr__(self, "_built", lru_cache(maxsize=_SETTINGS_KEPT)(_nothing_yet))
        check_books(self.entry, self.line)
        for ledger in self.ledgers:
            for document in ledger.documents:
                check_document(self.entry, document.model, **_named(document))
        self._make()
        own: list[tuple[type[Any], type[Any]]] = [
            (ledger.application, models.ApplicationMixin) for ledger in self.ledgers
        ]
        own += [(self.error, models.SyncErrorMixin), (self.lock, models.LockMixin), (self.run, models.SyncRunMixin)]
        own += [(self.decision, models.DecisionMixin)]
        own += [(self.segment, models.SyncSegmentMixin), (self.tombstone, models.TombstoneMixin)]
        check_own(self.entry, self.line, self.link, own)
        for ledger in self.ledgers:
            models_of = [(document.model, document.party) for document in ledger.documents]
            check_item(self.entry, self.line, ledger.item, ledger.party, ledger.party_model, models_of)
        object.__setattr__(self, "_names", {ledger.name: ledger for ledger in self.ledgers})

    def _make(self) -> None:
        """Have the classes made that the host has left out."""
        tenant = attribute(self.entry, "tenant_id").type if self.has_tenants else Words(64)
        keys = Keys(
            tenant=tenant,
            entry=attribute(self.entry, "id").type,
            line=attribute(self.line, "id").type,
            source=attribute(self.entry, "source_id").type,
        )
        maker = Maker(self.entry, keys)
        for name in ("link", "decision", "error", "lock", "run", "segment", "tombstone"):
            if getattr(self, name) is Made:
                object.__setattr__(self, name, getattr(maker, name)())
        object.__setattr__(self, "ledgers", tuple(_completed(maker, ledger) for ledger in self.ledgers))

    def __reduce__(self) -> Any:
        # in another process the classes are made, and the statements built, anew
        return partial(Binding, **self._given), ()

    @property
    def has_tenants(self) -> bool:
        """Whether the books have tenants."""
        return has(self.entry, "tenant_id")

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

        ``key`` tells it from everything else that is built for equal settings, of which the last used are kept.
        """
        built = self._built(settings.identity)
        if key not in built:
            built[key] = build()
        made: T = built[key]
        return made

    def default_settings(self) -> Settings:
        """The Norwegian defaults, as far as there are ledgers and documents for them."""
        controls = []
        for control in DEFAULT_CONTROL_ACCOUNTS:
            if control.ledger in self._names:
                bound = self._names[control.ledger]
                sources = {source: name for source, name in control.sources.items() if bound.document(name)}
                controls.append(control.model_copy(update={"sources": sources or control.sources}))
        return Settings(control_accounts=tuple(controls))

    def check(self, settings: Settings) -> None:
        """Refuse settings that name ledgers, documents or dates which the models lack."""
        for control in settings.control_accounts:
            ledger = self.ledger(control.ledger)
            for source_type, document in control.sources.items():
                if ledger.document(document) is None:
                    known = ", ".join(d.name for d in ledger.documents)
                    raise ConfigurationError(
                        f"source {source_type!r} of the {ledger.name} ledger means {document!r}, "
                        f"but its documents are {known}. Correct the settings, or bind a class for it."
                    )
            check_sources(self.entry, ledger.item, control.sources)
        if settings.effective_from and settings.effective_by == "posted_at" and not has(self.entry, "posted_at"):
            raise ConfigurationError(
                f"{self.entry.__name__} has no attribute 'posted_at', by which the cut-over is to count. Add it, or "
                'use effective_by="entry_date".'
            )

    def followed(self) -> Iterator[tuple[type[Any], str]]:
        """The attributes, by class and key, whose old value counts when they change."""
        watched: list[tuple[type[Any], tuple[str | None, ...]]] = [
            (self.entry, ("posted", "source_type", "source_id")),
            (self.line, ("general_ledger_id", "account_number")),
            (self.link, ("line_id", "source_type", "source_id")),
        ]
        watched += [
            (document.model, ("tenant_id", document.party, document.number, document.reference))
            for ledger in self.ledgers
            for document in ledger.documents
        ]
        for model, names in watched:
            mapper: Mapper[Any] = inspect(model)
            for name in filter(None, names):
                for key in keys_behind(mapper, name):
                    yield model, key


def _named(document: Document) -> dict[str, str | None]:
    names = ("party", "date", "number", "due_date", "reference", "kind", "credits")
    return {name: getattr(document, name) for name in names}


def _completed(maker: Maker, ledger: Ledger) -> Ledger:
    values = {f.name: getattr(ledger, f.name) for f in fields(ledger)}
    if ledger.item is Made:
        first = ledger.documents[0]
        party_type: TypeEngine[Any] = attribute(first.model, first.party).type
        values["item"] = maker.item(ledger.name, ledger.party, party_type)
    if ledger.application is Made:
        values["application"] = maker.application(ledger.name)
    return Ledger(**values)


def _nothing_yet(identity: str) -> dict[Hashable, Any]:
    return {}


def _require_class(model: type[Any]) -> None:
    try:
        inspect(model)
    except NoInspectionAvailable:
        raise ConfigurationError(f"{model!r} is not a mapped class. Give a declarative class.") from None


@cache
def ready_made() -> Binding:
    """The binding of the ready-made models; one for all, so that what is built for it is built once."""
    return Binding(
        entry=models.JournalEntry,
        line=models.JournalLine,
        link=models.SourceLink,
        decision=models.SyncDecision,
        error=models.SyncError,
        lock=models.SyncLock,
        run=models.SyncRun,
        segment=models.SyncSegment,
        tombstone=models.Tombstone,
        editable=False,
        ledgers=(
            Ledger(
                name="supplier",
                item=models.SupplierLedger,
                application=models.SupplierApplication,
                party_model=models.Vendor,
                documents=(
                    Document.of("vendor_invoice", models.VendorInvoice, "invoice", "vendor_id"),
                    Document.of("vendor_payment", models.VendorPayment, "payment", "vendor_id"),
                ),
            ),
            Ledger(
                name="customer",
                item=models.CustomerLedger,
                application=models.CustomerApplication,
                party_model=models.Customer,
                documents=(
                    Document.of("customer_invoice", models.CustomerInvoice, "invoice", "customer_id"),
                    Document.of("customer_payment", models.CustomerPayment, "payment", "customer_id"),
                ),
            ),
            Ledger(
                name="employee",
                item=models.EmployeeLedger,
                application=models.EmployeeApplication,
                party_model=models.Employee,
                documents=(Document.of("expense_claim", models.ExpenseClaim, "claim", "employee_id"),),
            ),
        ),
    )
