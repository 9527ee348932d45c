"""Whose turn it is: which of a run's segments a worker can take, and which of them first.

A segment waits for those of a lower rank in its books, and workers spread over tenants. Nothing is taken here, and
nothing written: ``segments.take`` does so, with the run's row held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Table, or_, select

from ledger_sync.models.types import utc_now
from ledger_sync.progress import is_at_work
from ledger_sync.settings import Settings

LOOKED_AT: Final = 200
"""So many of the segments that are not done a worker looks at first. All of them would make the work of taking them,
with one tenant or more for each, grow with their square."""

RANKS: Final[Mapping[str, int]] = {"check": 0, "documents": 1, "lines": 1, "settle": 2, "late": 3, "verify": 4}
"""A segment waits for those of a lower rank: ``check`` for nobody, ``verify`` for all of its tenant, others for those
of their tenant and ledger. ``verify`` makes ``late`` ones when it finds rows missing, and waits for them in turn."""


def to_try(
    connection: Connection, table: Table, settings: Settings, run_id: Any, worker: str
) -> Sequence[Row[Any]] | None:
    """The segments that a worker can take, the best one first, and perhaps not all others; None when all are done."""
    now, limit = utc_now(), settings.tenant_workers_max
    to_do = select(table).where(table.c.run_id == run_id, table.c.state != "done").order_by(table.c.position)
    first = connection.execute(to_do.limit(LOOKED_AT)).all()
    if not first:
        return None
    if len(first) < LOOKED_AT:
        return _ready(first, worker, now, limit)
    # those beyond that can decide about the first: whoever is at work, and what came in late, which precedes a proof
    matters = or_(table.c.kind == "late", table.c.state == "running")
    last = first[-1].position
    rows = [*first, *connection.execute(to_do.where(matters, table.c.position > last))]
    ready = _ready(rows, worker, now, limit)
    busy = {row.tenant_id for row in _others(rows, worker, now)}
    if ready and ready[0].position <= last and ready[0].tenant_id not in busy:
        return ready  # a plan goes on stage by stage, so there is no better one among the others
    return _ready(connection.execute(to_do).all(), worker, now, limit)


def _others(rows: Sequence[Row[Any]], worker: str, now: datetime) -> list[Row[Any]]:
    """The segments that somebody else is at work on."""
    return [row for row in rows if row.worker != worker and is_at_work(row.state, row.lease_until, now)]


def _ready(rows: Sequence[Row[Any]], worker: str, now: datetime, tenant_workers_max: int | None) -> list[Row[Any]]:
    """The segments that a worker can take, in the order in which to try.

    :param rows: those that are not done, in the order of the plan.
    """
    others = _others(rows, worker, now)
    waiting_for = _waiting_for(rows)
    taken = {row.id for row in others}
    at_work = Counter(row.tenant_id for row in others)
    stages = {stage: number for number, stage in enumerate(dict.fromkeys(row.stage for row in rows))}
    ready = [
        row
        for row in rows
        if row.id not in taken
        and not _has_to_wait(row, waiting_for)
        and (tenant_workers_max is None or at_work[row.tenant_id] < tenant_workers_max)
    ]
    return sorted(ready, key=lambda row: (stages[row.stage], at_work[row.tenant_id], row.position))


def _waiting_for(rows: Sequence[Row[Any]]) -> dict[tuple[Any, Any], int]:
    """The lowest rank that is not done, by tenant and ledger, by tenant alone (ledger None), and over all."""
    lowest: dict[tuple[Any, Any], int] = {}
    for row in rows:
        for key in {(row.tenant_id, row.ledger), (row.tenant_id, None), ("", "")}:
            lowest[key] = min(lowest.get(key, len(RANKS)), RANKS[row.kind])
    return lowest


def _has_to_wait(row: Row[Any], waiting_for: Mapping[tuple[Any, Any], int]) -> bool:
    rank = RANKS[row.kind]
    if rank and waiting_for["", ""] == 0:
        return True
    return waiting_for[row.tenant_id, None if row.kind == "verify" else row.ledger] < rank
