"""Signals that wait for the commit: kept with the transaction that they tell of, sent when the outermost is committed.

What a savepoint has kept is its parent's when the savepoint is released, and nobody's when it, or the transaction, is
rolled back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from ledger_sync import signals

Told = list[tuple[str, dict[str, Any]]]
"""Names of signals, each with its arguments."""


@dataclass
class _Kept:
    """What is kept for one session, by transaction, and which of its transactions are committed."""

    told: dict[SessionTransaction, Told] = field(default_factory=dict)
    committed: set[SessionTransaction] = field(default_factory=set)


def plain(session: Session | scoped_session[Session]) -> Session:
    """The session of this thread, where a host hands over its registry of sessions."""
    return session() if isinstance(session, scoped_session) else session


class Outbox:
    """The signals of one ``sender`` that wait. Its listeners are the business of whoever attaches a session."""

    def __init__(self, sender: object) -> None:
        self.sender = sender
        self._key = f"ledger_sync.outbox.{id(self)}"

    def keep(self, session: Session, told: Told) -> None:
        """Have these signals sent when what the session does now is committed."""
        if told:
            transaction = session.get_nested_transaction() or session.get_transaction()
            assert transaction is not None
            self._kept(session).told.setdefault(transaction, []).extend(told)

    def listen(self, session: Session) -> None:
        """Hear how the transactions of a session end that nobody may have attached; twice does no harm."""
        # SQLAlchemy takes one listener of a session once
        event.listen(session, "after_commit", self.after_commit)
        event.listen(session, "after_transaction_end", self.after_transaction_end)

    @contextmanager
    def dropping(self, session: Session) -> Iterator[None]:
        """Forget what was kept within the block if it fails."""
        kept = self._kept(session)
        before = {transaction: len(told) for transaction, told in kept.told.items()}
        try:
            yield
        except BaseException:
            for transaction, told in kept.told.items():
                del told[before.get(transaction, 0) :]
            raise

    def after_commit(self, session: Session) -> None:
        """A transaction is committed, or a savepoint released."""
        kept = self._kept(session)
        transaction = session.get_nested_transaction() or session.get_transaction()
        if transaction is not None:
            kept.committed.add(transaction)

    def after_transaction_end(self, session: Session, transaction: SessionTransaction) -> None:
        """A transaction or savepoint is over, whichever way."""
        if transaction.parent is not None and not transaction.nested:
            return  # a flush's own subtransaction
        kept = self._kept(session)
        told = kept.told.pop(transaction, [])
        if transaction not in kept.committed:
            return
        kept.committed.discard(transaction)
        parent = transaction.parent
        while parent is not None and parent.parent is not None and not parent.nested:
            parent = parent.parent
        if parent is not None:
            kept.told.setdefault(parent, []).extend(told)
            return
        kept.told.clear()
        kept.committed.clear()
        for name, arguments in told:
            signals.send_safely(signals.AFTER_COMMIT[name], self.sender, **arguments)

    def _kept(self, session: Session) -> _Kept:
        kept = session.info.get(self._key)
        if not isinstance(kept, _Kept):
            kept = session.info[self._key] = _Kept()
        return kept
