"""Keys as they come in, which are texts, and as the books have them: numbers, UUIDs or texts."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from sqlalchemy.types import TypeEngine

KEY_MAX: Final = 2**63 - 1
"""No database has a larger number for a key."""


def number_of(text: str) -> int | None:
    """The number that a text is; None for what is no key's."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(KEY_MAX))):
        return None
    number = int(text)
    return number if number <= KEY_MAX else None


def key_of(text: str, column_type: TypeEngine[Any]) -> Any:
    """A key of a column of that type; None for what cannot be one. A type of the host's own takes the text as it is."""
    try:
        kind = column_type.python_type
    except NotImplementedError:
        return text
    if kind is int:
        return number_of(text)
    if kind is UUID:
        try:
            return UUID(text)
        except ValueError:
            return None
    return text
