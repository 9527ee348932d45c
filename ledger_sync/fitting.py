"""Refuses classes that do not fit, when they are bound: each error names the class, the attribute and the remedy.

What is checked: that an attribute is there, that its type is one that the library can reckon with, that keys which
refer to one another are of one type, and that what must be unique is so in the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    Date,
    Double,
    Enum,
    Float,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
    Uuid,
    inspect,
)
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine

from ledger_sync.attributes import has, plain_key
from ledger_sync.errors import ConfigurationError
from ledger_sync.models.columns import ITEM_KINDS
from ledger_sync.models.types import MONEY_DECIMALS, Money

ITEM_STATES: Final = ("open", "partially_paid", "paid")
ITEM_WORDS: Final = ("account_number", "source_type", "kind", "status", "settlement_key")
ITEM_KEYS: Final = ("id", "general_ledger_id", "general_ledger_line_id", "source_id")
IDENTIFYING: Final = ("id", "tenant_id", "general_ledger_id", "general_ledger_line_id")
"""What the primary key of open items may be made of."""
ITEM_COPIES: Final = (
    "invoice_number",
    "invoice_date",
    "due_date",
    "currency",
    "currency_amount",
    "run_id",
    "updated_at",
)
"""What an open item may copy, where the host's class has a column for it."""


class _Fit:
    """One class and what is asked of it."""

    def __init__(self, model: type[Any]) -> None:
        try:
            self.mapper: Mapper[Any] = inspect(model)
        except NoInspectionAvailable:
            raise ConfigurationError(f"{model!r} is not a mapped class. Give a declarative class.") from None
        self.model = model

    def refuse(self, name: str, problem: str, remedy: str) -> ConfigurationError:
        return ConfigurationError(f"{self.model.__name__}.{name} {problem}. {remedy}")

    def require(self, *names: str) -> None:
        for name in names:
            if not has(self.model, name):
                raise ConfigurationError(
                    f"{self.model.__name__} has no attribute {name!r}. Add it, as a synonym() of the column that holds "
                    "it, say, or a column_property() or hybrid that computes it."
                )

    def type(self, name: str) -> TypeEngine[Any]:
        self.require(name)
        found: TypeEngine[Any] = getattr(self.model, name).type
        return found

    def column(self, name: str) -> Column[Any]:
        """The plain column behind an attribute."""
        self.require(name)
        key = plain_key(self.mapper, name)
        if key is None:
            raise self.refuse(
                name, "is computed, but it is looked up, or written", "Make it a column, or a synonym of one."
            )
        column = self.mapper.column_attrs[key].columns[0]
        assert isinstance(column, Column)
        return column

    def date(self, *names: str) -> None:
        for name in names:
            type_ = self.type(name)
            if not isinstance(_plain_type(type_), Date | NullType):
                raise self.refuse(
                    name,
                    f"is of type {type_!r}, not a date",
                    "Give a Date column, or column_property(func.date(column, type_=Date())).",
                )

    def amount(self, *names: str) -> None:
        for name in names:
            type_ = self.type(name)
            plain = _plain_type(type_)
            if isinstance(type_, Money):
                continue
            if isinstance(plain, Float | Double) or not isinstance(plain, Numeric):
                raise self.refuse(
                    name,
                    f"is of type {type_!r}, which holds no exact amounts",
                    "Use Numeric, or ledger_sync.models.Money.",
                )

    def alike(self, name: str, other: _Fit, other_name: str) -> None:
        """Keys that refer to one another are of one type."""
        ours, theirs = self.type(name), other.type(other_name)
        if isinstance(ours, NullType):
            raise self.refuse(
                name,
                "is computed without a type, since the columns that it is computed from get theirs later",
                f"Say it: func.coalesce(…, type_={type(_plain_type(theirs)).__name__}()), or type_coerce(…, …).",
            )
        if _family(ours) != _family(theirs):
            raise self.refuse(
                name,
                f"is of type {ours!r}, but {other.model.__name__}.{other_name} is of type {theirs!r}",
                "Give both one type; a column_property() can cast one of them.",
            )

    def unique(self, *names: str, why: str) -> None:
        columns = [self.column(name) for name in names]
        table = columns[0].table
        assert isinstance(table, Table)
        keys = [set(c.columns) for c in table.constraints if isinstance(c, UniqueConstraint | PrimaryKeyConstraint)]
        keys += [set(index.columns) for index in table.indexes if index.unique]
        if len(columns) == 1 and columns[0].unique:
            return
        if set(columns) not in keys:
            listed = ", ".join(repr(column.name) for column in columns)
            raise self.refuse(" and ".join(names), "has no unique key", f"Add UniqueConstraint({listed}): {why}.")


def _plain_type(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    return type_.impl_instance if isinstance(type_, TypeDecorator) else type_


def _family(type_: TypeEngine[Any]) -> str:
    plain = _plain_type(type_)
    for family in (Uuid, Integer, String):
        if isinstance(plain, family):
            return family.__name__
    return type(plain).__name__


def check_books(entry: type[Any], line: type[Any]) -> None:
    """Refuse classes of entries and lines that do not fit."""
    entries, lines = _Fit(entry), _Fit(line)
    entries.unique("id", why="one id names one entry, whatever its tenant")
    lines.unique("id", why="one id names one line, whatever its tenant")
    entries.require("voucher_number", "source_type", "source_id")
    entries.date("entry_date")
    if not isinstance(_plain_type(entries.type("posted")), Boolean):
        raise entries.refuse(
            "posted",
            f"is of type {entries.type('posted')!r}, not a truth value",
            "Make it a hybrid_property that compares, as self.posted_at.is_not(None) does in SQL.",
        )
    lines.require("account_number")
    lines.column("general_ledger_id")
    lines.alike("general_ledger_id", entries, "id")
    if has(line, "signed_amount"):
        lines.amount("signed_amount")
    else:
        lines.amount("debit", "credit")
    for name in ("currency_amount",):
        if has(line, name):
            lines.amount(name)
    if has(line, "due_date"):
        lines.date("due_date")
    if has(entry, "reverses_id"):
        entries.alike("reverses_id", entries, "id")
        entries.unique("reverses_id", why="an entry is reversed once")
        lines.unique("general_ledger_id", "line_number", why="by it a reversing line finds the one that it reverses")


def check_document(entry: type[Any], ledger: str, model: type[Any], role: str, **names: str | None) -> None:
    """Refuse a class of documents that does not fit. ``names``: what its attributes are called."""
    document, entries = _Fit(model), _Fit(entry)
    document.unique("id", why="one id names one document, whatever its tenant")
    entries.alike("source_id", document, "id")
    party, date = names["party"], names["date"]
    assert party is not None
    assert date is not None
    document.column(party)
    document.date(date)
    for key in ("number", "due_date", "reference", "kind", "credits"):
        if (name := names[key]) is not None:
            document.require(name)
    if (due_date := names["due_date"]) is not None:
        document.date(due_date)
    if (credits_id := names["credits"]) is not None:
        document.alike(credits_id, document, "id")
    _same_tenants(entries, document)


def check_own(entry: type[Any], line: type[Any], link: type[Any], own: Iterable[tuple[type[Any], type[Any]]]) -> None:
    """Refuse a class of links that does not fit, and classes of our own that are not derived from their mixins."""
    entries, lines, links = _Fit(entry), _Fit(line), _Fit(link)
    links.require("source_type")
    links.alike("line_id", lines, "id")
    links.alike("source_id", entries, "source_id")
    links.unique("line_id", why="a line has one source")
    for model, mixin in own:
        if not issubclass(model, mixin):
            raise ConfigurationError(
                f"{model.__name__} is not derived from {mixin.__name__}. Derive it, or leave it out and have it made."
            )
        ours = _Fit(model)
        for name in ("from_line_id", "to_line_id", "general_ledger_line_id"):
            if has(model, name):
                ours.alike(name, lines, "id")


def check_item(
    entry: type[Any],
    line: type[Any],
    item: type[Any],
    party: str,
    party_model: type[Any] | None,
    documents: Sequence[tuple[type[Any], str]],
) -> None:
    """Refuse a class of open items, or of parties, that does not fit."""
    items, entries, lines = _Fit(item), _Fit(entry), _Fit(line)
    if len(items.mapper.tables) != 1 or items.mapper.inherits is not None or items.mapper.polymorphic_on is not None:
        raise ConfigurationError(
            f"{item.__name__} shares its table by inheritance. Give each ledger a table of its own."
        )
    for name in (*ITEM_KEYS, *ITEM_WORDS, "entry_date", "amount", "remaining_amount", party):
        items.column(name)
    items.date("entry_date")
    items.amount("amount", "remaining_amount")
    items.alike("general_ledger_id", entries, "id")
    items.alike("general_ledger_line_id", lines, "id")
    items.alike("source_id", entries, "source_id")
    items.unique("general_ledger_line_id", why="it is what keeps a line from having two open items")
    for model, name in documents:
        items.alike(party, _Fit(model), name)
    _same_tenants(entries, items)
    _check_scales(items, lines)
    _check_words(items)
    _check_written(items, lines, party)
    if party_model is not None:
        parties = _Fit(party_model)
        parties.require("number", "name")
        items.alike(party, parties, "id")


def _same_tenants(entries: _Fit, other: _Fit) -> None:
    if has(entries.model, "tenant_id"):
        other.column("tenant_id")
        other.alike("tenant_id", entries, "tenant_id")


def _check_scales(items: _Fit, lines: _Fit) -> None:
    """A narrower column would round what it is given without a word."""
    names = ["signed_amount"] if has(lines.model, "signed_amount") else ["debit", "credit"]
    widest = max(_decimals(lines.type(name)) for name in names)
    for name in ("amount", "remaining_amount"):
        ours = _plain_type(items.type(name))
        if isinstance(items.type(name), Money) or not isinstance(ours, Numeric) or ours.scale is None:
            continue
        if ours.scale < widest:
            raise items.refuse(
                name,
                f"has {ours.scale} decimals, fewer than the {widest} of the lines",
                "Give it as many, so that the database rounds nothing.",
            )


def _decimals(type_: TypeEngine[Any]) -> int:
    """How many decimals an amount of a type has: where it does not say, those of the books' currency."""
    if isinstance(type_, Money):
        return type_.decimals
    plain = _plain_type(type_)
    return plain.scale if isinstance(plain, Numeric) and plain.scale is not None else MONEY_DECIMALS


def _check_words(items: _Fit) -> None:
    """An enumeration must have all the words that are written to it."""
    for name, words in (("status", ITEM_STATES), ("kind", ITEM_KINDS)):
        type_ = items.type(name)
        if isinstance(type_, Enum) and (lacking := [word for word in words if word not in type_.enums]):
            raise items.refuse(
                name, f"does not know {', '.join(lacking)}", f"It is one of {', '.join(words)}; add them."
            )


def check_sources(entry: type[Any], item: type[Any], sources: Iterable[str]) -> None:
    """Refuse open items whose sources are an enumeration without a word that the entries may have."""
    theirs, ours = _Fit(entry).type("source_type"), _Fit(item).type("source_type")
    if isinstance(ours, Enum):
        known = theirs.enums if isinstance(theirs, Enum) else list(sources)
        lacking = sorted({word for word in sources if word in known} - set(ours.enums))
        if lacking:
            raise _Fit(item).refuse(
                "source_type",
                f"does not know {', '.join(lacking)}",
                "Add them, or take them out of the settings' sources.",
            )


def _check_written(items: _Fit, lines: _Fit, party: str) -> None:
    """Rows are written by INSERT … SELECT: every column must be filled by it, or by the database."""
    for column in items.mapper.primary_key:
        if column not in {items.column(name) for name in IDENTIFYING if has(items.model, name)}:
            raise items.refuse(str(column.key), "is part of the primary key", f"Make it of {', '.join(IDENTIFYING)}.")
    names = (*ITEM_KEYS, *ITEM_WORDS, *ITEM_COPIES, "tenant_id", "entry_date", "amount", "remaining_amount", party)
    written = {items.column(name) for name in names if has(items.model, name) and plain_key(items.mapper, name)}
    key = items.column("id")
    table = key.table
    assert isinstance(table, Table)
    numbered = key is table.autoincrement_column or key.server_default is not None
    if not numbered and _family(key.type) != _family(lines.type("id")):
        raise items.refuse(
            "id",
            "is made in Python, which does not happen for rows that are written by INSERT … SELECT",
            "Give it a server_default, or the type of the line's key, which is then used for it.",
        )
    for column in table.columns:
        if column in written or column.server_default is not None or column.nullable or column.computed is not None:
            continue
        if column.default is not None and not column.unique:
            continue
        raise items.refuse(
            column.key,
            "is NOT NULL and is not filled by rows that are written by INSERT … SELECT",
            "Give it a server_default, or make it nullable.",
        )
