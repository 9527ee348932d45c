"""A key that comes in as a text is one of the column's type, or nobody's; never an error."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import BigInteger, Integer, SmallInteger, String, Uuid
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator

from ledger_sync.contrib.keys import key_of
from ledger_sync.models.types import Words


class Own(TypeDecorator[Any]):
    """A host's own type of key, whose values nobody can tell from its class."""

    impl = String
    cache_ok = True


ID = "12345678-1234-5678-1234-567812345678"


@pytest.mark.parametrize(
    ("column_type", "text", "key"),
    [
        (Integer(), "17", 17),
        (SmallInteger(), str(2**15 - 1), 2**15 - 1),
        (SmallInteger(), str(2**15), None),
        (Integer(), str(2**31 - 1), 2**31 - 1),
        (Integer(), str(2**31), None),
        (mysql.INTEGER(unsigned=True), str(2**31), 2**31),
        (Integer().with_variant(BigInteger(), "postgresql"), str(2**31), 2**31),
        (BigInteger().with_variant(Integer(), "sqlite"), str(2**31), 2**31),
        (SmallInteger().with_variant(Integer(), "mysql"), str(2**31), None),
        (BigInteger(), str(2**63 - 1), 2**63 - 1),
        (BigInteger(), str(2**63), None),
        (Integer(), "9" * 5000, None),
        (Integer(), "-1", None),
        (Integer(), "1_0", None),
        (Integer(), "\u0661", None),
        (Integer(), "x", None),
        (Integer(), "", None),
        (Uuid(), ID, UUID(ID)),
        (Uuid(), "x", None),
        (String(), "x", "x"),
        (Words(64), "acme", "acme"),
        (Own(), "x", "x"),
        (String(), "x\0", None),
        (Own(), "x\0", None),
    ],
)
def test_a_text_is_a_key_of_the_columns_type_or_nobodys(column_type: Any, text: str, key: Any) -> None:
    assert key_of(text, column_type) == key
