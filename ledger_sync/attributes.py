"""What an attribute of a host's class is, in SQL and in Python.

``attribute`` gives the SQL expression under the name that the library knows it by (a host adapts other names with
``synonym()``, ``column_property()`` or a hybrid), in the type that the library reckons in: amounts as ``Money``, words
as text. What a host's class may lack has a stand-in, so that nothing else asks whether it is there. ``held`` and
``replaced`` read the same attributes of an object, without loading anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import (
    Column,
    ColumnElement,
    Date,
    DateTime,
    Enum,
    Integer,
    String,
    Uuid,
    cast,
    inspect,
    literal_column,
    null,
    type_coerce,
)
from sqlalchemy import orm as sqlalchemy_orm
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.util import AliasedClass
from sqlalchemy.sql import visitors
from sqlalchemy.types import TypeEngine

from ledger_sync.dialects import as_stored_word, as_uuid, scaled, text_of, unscaled
from ledger_sync.models.types import CURRENCY_DECIMALS, MONEY_DECIMALS, Money, Words

Entity = type[Any] | AliasedClass[Any]

ONE_TENANT: Final = "books"
"""The tenant of a host without tenants."""

AMOUNTS: Final[Mapping[str, int]] = {
    "amount": MONEY_DECIMALS,
    "remaining_amount": MONEY_DECIMALS,
    "debit": MONEY_DECIMALS,
    "credit": MONEY_DECIMALS,
    "signed_amount": MONEY_DECIMALS,
    "currency_amount": CURRENCY_DECIMALS,
}
"""The attributes that are amounts, with their decimals."""

WORDS: Final = frozenset(
    {
        "voucher_series",
        "voucher_number",
        "account_number",
        "source_type",
        "status",
        "kind",
        "invoice_number",
        "reference",
        "currency",
        "settlement_key",
        "method",
        "number",
        "name",
    }
)
"""The attributes that are compared as text, whatever the type of their column."""


def _text(value: str) -> ColumnElement[Any]:
    # an expression, since a bare constant is no column to group by
    return text_of(literal_column(f"'{value}'", String()))


def _nothing(type_: TypeEngine[Any]) -> Callable[[], ColumnElement[Any]]:
    return lambda: cast(null(), type_)


STAND_INS: Final[Mapping[str, Callable[[], ColumnElement[Any]]]] = {
    "tenant_id": lambda: _text(ONE_TENANT),
    "fiscal_year": _nothing(Integer()),
    "voucher_series": lambda: _text(""),
    "posted_at": _nothing(DateTime(timezone=True)),
    "line_number": _nothing(Integer()),
    "currency_amount": _nothing(Money(CURRENCY_DECIMALS)),
    "reference": _nothing(String()),
    "due_date": _nothing(Date()),
    "kind": _nothing(String()),
    "invoice_number": _nothing(String()),
    "invoice_date": _nothing(Date()),
    "run_id": _nothing(Integer()),
    "created_at": _nothing(DateTime(timezone=True)),
}
"""What stands in for an attribute that a host's class may lack."""


def _no_key(type_: TypeEngine[Any]) -> ColumnElement[Any]:
    return as_uuid(null(), type_) if isinstance(type_, Uuid) else cast(null(), type_)


def aliased(model: type[Any]) -> Any:
    """An alias of a class, with its own tables side by side where it has several by inheritance."""
    return sqlalchemy_orm.aliased(model, flat=True)


def mapper_of(entity: Entity) -> Mapper[Any]:
    """The mapper of a class or of an alias of one."""
    mapper: Mapper[Any] = inspect(entity).mapper
    return mapper


def has(entity: Entity, name: str) -> bool:
    """Whether a class maps an attribute of that name, or has a hybrid or a synonym of it."""
    return name in mapper_of(entity).all_orm_descriptors


def attribute(entity: Entity, name: str, *, text: bool = False) -> ColumnElement[Any]:
    """The SQL expression of an attribute of a class or of an alias of one; or what stands in for it.

    ``text``: it is compared as text, as those in ``WORDS`` are.
    """
    if has(entity, name):
        return reckoned(getattr(entity, name), name, text=text)
    if name == "reverses_id":
        return _no_key(attribute(entity, "id").type)
    return STAND_INS[name]()


def reckoned(expression: ColumnElement[Any], name: str, *, text: bool = False) -> ColumnElement[Any]:
    """What is stored under a name, in the type that the library reckons in."""
    if name in AMOUNTS and not isinstance(expression.type, Money):
        return type_coerce(scaled(expression, AMOUNTS[name]), Money(AMOUNTS[name]))
    if text or name in WORDS:
        return as_text(expression)
    return expression


def stored(expression: ColumnElement[Any], type_: TypeEngine[Any], name: str) -> ColumnElement[Any]:
    """What was reckoned under a name, as a column of a host's type takes it."""
    if name in AMOUNTS and not isinstance(type_, Money):
        return unscaled(expression, type_, AMOUNTS[name])
    return as_stored_word(expression, type_) if isinstance(type_, Enum) else expression


def as_text(expression: ColumnElement[Any]) -> ColumnElement[Any]:
    """An expression as text: numbers by their digits, an enumeration by what the database holds.

    What is text already stays as it is, since no index serves a cast.
    """
    if isinstance(expression.type, String | Words) and not isinstance(expression.type, Enum):
        return expression
    return text_of(expression)


def sortable_key(expression: ColumnElement[Any]) -> ColumnElement[Any]:
    """A key as a database can take the least or the greatest of: not every one has an order of UUIDs."""
    return text_of(expression) if isinstance(expression.type, Uuid) else expression


def as_key(expression: ColumnElement[Any], type_: TypeEngine[Any]) -> ColumnElement[Any]:
    """The key that ``sortable_key`` made sortable."""
    return as_uuid(expression, type_) if isinstance(type_, Uuid) else expression


# -- objects -------------------------------------------------------------------------------------------

_DIALECT: Final = DefaultDialect()


class _Known:
    """What is found out of a mapper's attributes, once for each mapper."""

    def __init__(self) -> None:
        self.behind: dict[str, tuple[str, ...]] = {}
        self.plain: dict[str, str | None] = {}
        self.as_text: dict[str, Callable[[Any], Any]] = {}


_KNOWN: Final[WeakKeyDictionary[Mapper[Any], _Known]] = WeakKeyDictionary()


def _known(mapper: Mapper[Any]) -> _Known:
    found = _KNOWN.get(mapper)
    if found is None:
        found = _KNOWN[mapper] = _Known()
    return found


def keys_behind(mapper: Mapper[Any], name: str) -> tuple[str, ...]:
    """The keys of the column attributes that an attribute is made of; itself, for a plain column."""
    known = _known(mapper).behind
    if name not in known:
        known[name] = tuple(dict.fromkeys(_keys_behind(mapper, name)))
    return known[name]


def _keys_behind(mapper: Mapper[Any], name: str) -> Iterator[str]:
    if name not in mapper.all_orm_descriptors:
        return
    expression = getattr(mapper.class_, name)
    if hasattr(expression, "__clause_element__"):
        expression = expression.__clause_element__()
    for element in visitors.iterate(expression):
        if isinstance(element, Column) and element.table is not None:
            # annotated copies of a column stand for the one that the table has
            column = element.table.c.get(element.key)
            for found in mapper.column_attrs:
                if any(column is own for own in found.columns):
                    yield found.key


def plain_key(mapper: Mapper[Any], name: str) -> str | None:
    """The key of the column attribute that an attribute is another name for; None if it is computed."""
    known = _known(mapper).plain
    if name not in known:
        if name in mapper.synonyms:
            known[name] = plain_key(mapper, mapper.synonyms[name].name)
        else:
            is_plain = name in mapper.column_attrs and isinstance(mapper.column_attrs[name].columns[0], Column)
            known[name] = name if is_plain else None
    return known[name]


def _stored(mapper: Mapper[Any], key: str, name: str, value: Any) -> Any:
    """A value as SQL sees it, where the attribute is compared as text."""
    if value is None or name not in WORDS:
        return value
    as_text = _known(mapper).as_text
    if key not in as_text:
        type_ = mapper.column_attrs[key].columns[0].type
        processor = type_.dialect_impl(_DIALECT).bind_processor(_DIALECT) if isinstance(type_, Enum) else None
        as_text[key] = (lambda held: held) if processor is None else processor
    return str(as_text[key](value))


def held(target: Any, name: str, *, load: bool = False) -> Any:
    """What an object holds in an attribute, as SQL sees it.

    None also if the database computes it, or if it is not loaded; unless ``load`` says to.
    """
    state = inspect(target)
    mapper: Mapper[Any] = state.mapper
    key = plain_key(mapper, name)
    if key is not None:
        value = getattr(target, key) if load and key not in state.dict else state.dict.get(key)
        return _stored(mapper, key, name, value)
    descriptor = mapper.all_orm_descriptors.get(name)
    if descriptor is None and name == "tenant_id":
        return ONE_TENANT
    if isinstance(descriptor, hybrid_property) and all(key in state.dict for key in keys_behind(mapper, name)):
        return getattr(target, name)
    return None


def key_held(target: Any) -> Any:
    """The id of an object that is in the database, without loading anything."""
    state = inspect(target)
    key = plain_key(state.mapper, "id")
    for column, value in zip(state.mapper.primary_key, state.identity or (), strict=False):
        if state.mapper.get_property_by_column(column).key == key:
            return value
    return held(target, "id")


def changed(target: Any, name: str) -> bool:
    """Whether what an attribute is made of has changed since the last flush."""
    state = inspect(target)
    return any(state.attrs[key].history.has_changes() for key in keys_behind(state.mapper, name))


def was_posted(target: Any) -> bool | None:
    """Whether an entry was posted before it changed; None if that cannot be told."""
    state = inspect(target)
    before: dict[str, Any] = {}
    for key in keys_behind(state.mapper, "posted"):
        history = state.attrs[key].history
        if not history.has_changes():
            if key not in state.dict:
                return None
            before[key] = state.dict[key]
        elif history.deleted:
            before[key] = history.deleted[0]
        else:
            return None
    descriptor = state.mapper.all_orm_descriptors["posted"]
    if not isinstance(descriptor, hybrid_property):
        return bool(before["posted"]) if "posted" in before else None
    try:
        return bool(descriptor.fget(SimpleNamespace(**before)))
    except AttributeError:  # it asks for more than the columns that its SQL is made of
        return None


def replaced(target: Any, name: str) -> list[Any]:
    """What an attribute was before it changed, as SQL saw it: one value or none; ``[None]`` if that cannot be told."""
    state = inspect(target)
    mapper: Mapper[Any] = state.mapper
    key = plain_key(mapper, name)
    if key is not None:
        return [_stored(mapper, key, name, value) for value in state.attrs[key].history.deleted or ()]
    return [None] if changed(target, name) else []
