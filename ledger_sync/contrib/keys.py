"""Keys as they come in, which are texts, and as the books have them: numbers, UUIDs or texts."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from sqlalchemy.types import BigInteger, Integer, SmallInteger, TypeEngine

KEY_MAX: Final = 2**63 - 1
"""No database has a larger number for a key."""


def number_of(text: str) -> int | None:
    """The number that a text is; None for what is no key's."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(KEY_MAX))):
        return None
    number = int(text)
    return number if number <= KEY_MAX else None


def key_of(text: str, column_type: TypeEngine[Any]) -> Any:
    """A key of a column of that type; None for what cannot be one. A type of the host's own takes the text as it is,
    but for NUL, which is in no key, and which PostgreSQL's driver does not even send.
    """
    if "\0" in text:
        return None
    try:
        kind = column_type.python_type
    except NotImplementedError:
        return text
    if kind is int:
        number = number_of(text)
        return number if number is not None and number <= _most(column_type) else None
    if kind is UUID:
        try:
            return UUID(text)
        except ValueError:
            return None
    return text


def _most(column_type: TypeEngine[Any]) -> int:
    """The largest number of a type: PostgreSQL refuses to look for a larger one, rather than find nothing.

    Of a type that is another one on some database, the largest of them all: no key may be taken for nobody's.
    """
    variants = column_type._variant_mapping.values()  # which SQLAlchemy tells in no other way
    return max(map(_most_of_one, [column_type, *variants]))


def _most_of_one(column_type: TypeEngine[Any]) -> int:
    if isinstance(column_type, BigInteger) or getattr(column_type, "unsigned", False):
        return KEY_MAX
    if isinstance(column_type, SmallInteger):
        return 2**15 - 1
    return 2**31 - 1 if isinstance(column_type, Integer) else KEY_MAX
