"""What a person does by hand: who, why, and once. An idempotency key is one call's, whichever table its result is in.

Applications keep who settled what; all else that people decide about a posted line (a source link made or taken back, a
row from before chosen for it) is recorded here, since a link that is taken back is gone. Records are only appended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from sqlalchemy import Connection, Row, Table, inspect, literal, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ledger_sync.binding import Binding
from ledger_sync.dialects import savepoints_hold
from ledger_sync.results import Result


@dataclass(frozen=True)
class Decision:
    """Who does something by hand, why, on which day, and under which key (the same call twice does it once)."""

    actor: str
    reason: str
    on: date | None = None
    idempotency_key: str | None = None


class LineDecision(Result):
    """What a person decided about a posted line: a source link made or taken back, or a row from before chosen for it.

    ``source_type``, ``source_id``, ``kind`` and ``method`` are those of the link that was asked for, or that was taken
    back, and null where a row was chosen.
    """

    ledger: str
    tenant_id: Any
    general_ledger_line_id: Any
    action: Literal["link", "unlink", "adopt"]
    source_type: str | None = None
    source_id: Any = None
    kind: str | None = None
    method: str | None = None
    actor: str | None
    reason: str | None
    idempotency_key: str | None = None


def record(session: Session, binding: Binding, decisions: Iterable[LineDecision]) -> None:
    """Append what was decided about lines, in the caller's transaction."""
    if rows := [decision.model_dump() for decision in decisions]:
        connection, table = _table(session, binding.decision)
        connection.execute(table.insert(), rows)


def used(session: Session, binding: Binding, tenant_id: Any, key: str | None) -> tuple[type[Any], Row[Any]] | None:
    """The row that the call with this key has appended, and the class of it; None where the key is free."""
    if key is None:
        return None
    for model in (binding.decision, *(ledger.application for ledger in binding.ledgers)):
        connection, table = _table(session, model)
        query = select(table).where(
            table.c.tenant_id == tenant_id,
            # as the column takes it: what cannot be kept must not be looked for first
            table.c.idempotency_key == literal(key, table.c.idempotency_key.type),
        )
        row = connection.execute(query).first()
        if row is not None:
            return model, row
    return None


def append_once(connection: Connection, key: str | None, append: Callable[[], None], taken: Exception) -> None:
    """Append what has a key, or raise ``taken`` if another transaction has used the key meanwhile."""
    # SQLite takes back a statement that failed, and it alone
    guarded = key is not None and savepoints_hold(connection)
    try:
        with connection.begin_nested() if guarded else nullcontext():
            append()
    except IntegrityError as error:
        if key is None or "idempotency_key" not in str(error.orig):
            raise
        raise taken from error


def key_taken(key: str | None) -> tuple[str, str]:
    """What to say of a key that another call has used, and what to do."""
    return f"cannot take the idempotency key {key!r}, which another call has used", "Give each call a key of its own."


def _table(session: Session, model: type[Any]) -> tuple[Connection, Table]:
    mapper = inspect(model)
    table = mapper.local_table
    assert isinstance(table, Table)
    return session.connection(bind_arguments={"mapper": mapper}), table
