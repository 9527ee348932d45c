"""What backfill and repair have in common: transactions of their own, and a row that says how far they are.

A run in state ``running`` renews its lease with every batch, in the batch's own transaction. One whose lease has
passed has died. The proof says which runs were alive while it was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Any, Final

from sqlalchemy import Connection, insert, inspect, update
from sqlalchemy.orm import Session

from ledger_sync.binding import Binding
from ledger_sync.models.types import utc_now

LEASE_SECONDS: Final = 600
"""How long a run counts as alive without a batch; settling a long history is one batch."""

SessionFactory = Callable[[], Session]


class Batches:
    """Sessions of the host's factory, each in a transaction of its own at READ COMMITTED."""

    def __init__(self, binding: Binding, factory: SessionFactory) -> None:
        self.binding = binding
        self.factory = factory

    @contextmanager
    def transaction(self, *, commit: bool = True) -> Iterator[Session]:
        """A session whose transaction is committed at the end of the block, or rolled back.

        On SQLite one that will commit takes the write lock at once, rather than fail when it first writes.
        """
        mapper = inspect(self.binding.line)
        with self.factory() as session:
            options: dict[str, Any] = {"ledger_sync_begin": "IMMEDIATE" if commit else "DEFERRED"}
            if session.get_bind(mapper=mapper).dialect.name != "sqlite":
                options["isolation_level"] = "READ COMMITTED"
            session.connection(bind_arguments={"mapper": mapper}, execution_options=options)
            yield session
            if commit:
                session.commit()
            session.rollback()

    @staticmethod
    def connection(session: Session, model: type[Any]) -> Connection:
        """The connection of a batch's session for a class: not through the host's own filters."""
        return session.connection(bind_arguments={"mapper": inspect(model)})


class Run:
    """One run of ``kind`` over one tenant's books, or everybody's (None)."""

    def __init__(self, batches: Batches, kind: str, tenant_id: Any, stage: str) -> None:
        self.batches = batches
        self.model = batches.binding.run
        self.table = self.model.__table__
        values = {
            "tenant_id": tenant_id,
            "kind": kind,
            "state": "running",
            "stage": stage,
            "synced": 0,
            "version": version("ledger_sync"),
            "started_at": utc_now(),
            "lease_until": self._lease(),
        }
        with batches.transaction() as session:
            result = batches.connection(session, self.model).execute(insert(self.table).values(**values))
            self.id: Any = result.inserted_primary_key[0] if result.inserted_primary_key else None

    @staticmethod
    def _lease() -> datetime:
        return utc_now() + timedelta(seconds=LEASE_SECONDS)

    def beat(self, session: Session, stage: str, synced: int) -> None:
        """Renew the lease, in the transaction of a batch."""
        values = {"stage": stage, "synced": synced, "lease_until": self._lease()}
        self._set(session, values)

    def finish(self, state: str) -> None:
        """Say how it ended: ``completed`` or ``failed``."""
        with self.batches.transaction() as session:
            self._set(session, {"state": state, "finished_at": utc_now()})

    def _set(self, session: Session, values: dict[str, Any]) -> None:
        statement = update(self.table).where(self.table.c.id == self.id).values(**values)
        self.batches.connection(session, self.model).execute(statement)
