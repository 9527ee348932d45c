"""Which entries the present transaction of a session wrote or posted: until it has committed, they may still change."""

from __future__ import annotations

from typing import Any, Final
from weakref import ref

from sqlalchemy.orm import Session, SessionTransaction

_KEY = "ledger_sync.posted_here"

GUARDED: Final[set[type[Any]]] = set()
"""Classes of entries that are remembered by guards of their own."""


def is_guarded(entry: type[Any]) -> bool:
    """Whether guards of the class itself remember its entries."""
    return any(base in GUARDED for base in entry.__mro__)


def _root(session: Session) -> SessionTransaction | None:
    transaction = session.get_transaction()
    while transaction is not None and transaction.parent is not None:
        transaction = transaction.parent
    return transaction


def posted_here(session: Session) -> set[int]:
    """The ids of the entries that the session's present transaction wrote or posted: the set itself, to be added to."""
    root = _root(session)
    known = session.info.get(_KEY)
    if known is None or known[0]() is not root:
        known = (ref(root) if root is not None else (lambda: None), set())
        session.info[_KEY] = known
    ids: set[int] = known[1]
    return ids
