"""Segments: what one worker of a run does at a time, taken by lease and fenced by attempt.

Taking a segment raises its attempt. Whatever a worker writes commits together with the segment's cursor and counts
(``save``), and only if the attempt is still its own, so a worker that was taken for dead can do no harm: its batch
rolls back. What a killed worker had not committed is done again by the next one, from the cursor on.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    Update,
    bindparam,
    func,
    insert,
    inspect,
    select,
    update,
)

from ledger_sync.binding import Binding
from ledger_sync.errors import RunStateError
from ledger_sync.models.own import NOTE_MAX
from ledger_sync.models.types import storable
from ledger_sync.progress import added_up, is_at_work
from ledger_sync.runs import kept, lease_end, run_table
from ledger_sync.settings import Settings
from ledger_sync.turns import to_try

Kind = Literal["check", "documents", "lines", "settle", "late", "verify"]

RUNS_AT_ONCE: Final = 500
"""Runs whose segments one statement asks for: a database takes only so many bound values."""

LEASE_TIMES_MAX: Final = 16
"""However many attempts at a step were too slow, its lease is no longer than so many times the first one's."""

ATTEMPTS_MAX: Final = 50
"""After so many attempts at a segment of which none committed anything, none will."""


class FencedError(Exception):
    """The segment was taken over by another worker, so nothing of the batch may be committed."""


class StoppedError(Exception):
    """The run is no longer running, or was told to ``pause`` or ``cancel``."""

    def __init__(self, command: str | None) -> None:
        self.command = command
        super().__init__(command)


@dataclass(frozen=True)
class Segment:
    """A part of a run. ``cursor``: done up to and with that key; ``until``: its last key; None: no bound.

    ``errors`` are lines or documents that could not be written. Of ``documents``, ``synced`` counts those posted.
    """

    run_id: Any
    position: int
    stage: str
    kind: Kind
    ledger: str | None = None
    document: str | None = None
    tenant_id: Any = None
    cursor: str | None = None
    until: str | None = None
    batch_lines: int = 1
    id: Any = None
    attempt: int = 0
    state: str = "waiting"
    lease_until: datetime | None = None
    total: int = 0
    processed: int = 0
    synced: int = 0
    applied: int = 0
    errors: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    found: Mapping[str, int] = field(default_factory=dict)

    @property
    def existing(self) -> int:
        """Lines whose rows were there before; those that come in late have been counted once already."""
        if self.kind != "lines":
            return 0
        return max(0, self.processed - self.synced - self.errors - sum(self.skipped.values()))

    @property
    def begun(self) -> bool:
        """Whether anything of it has been committed."""
        return bool(self.processed or self.synced or self.applied or self.errors)

    def worked_on(self, now: datetime) -> bool:
        """Whether somebody is at work on it whose lease has not passed."""
        return is_at_work(self.state, self.lease_until, now)

    @property
    def part_done(self) -> float:
        """Between 0 and 1."""
        if self.state == "done":
            return 1.0
        return min(1.0, self.processed / self.total) if self.total else 0.0


def segment_table(binding: Binding) -> Table:
    """The table of the segments."""
    table = inspect(binding.segment).local_table
    assert isinstance(table, Table)
    return table


def worker_name() -> str:
    """A name for a new worker: this thread of this process on this machine, for whoever looks at the table.

    With a number by chance, since an event loop has many workers in one thread.
    """
    number = secrets.token_hex(4)
    return f"{storable(socket.gethostname())[:150]}:{os.getpid()}:{threading.get_ident()}:{number}"


def add(connection: Connection, binding: Binding, segments: Sequence[Segment]) -> None:
    """Insert the rows of new segments."""
    rows = [
        {
            "run_id": s.run_id,
            "position": s.position,
            "stage": s.stage,
            "kind": s.kind,
            "ledger": s.ledger,
            "document": s.document,
            "tenant_id": s.tenant_id,
            "cursor": s.cursor,
            "until_key": s.until,
            "batch_lines": s.batch_lines,
            "total": s.total,
            "state": "waiting",
            "skipped": "{}",
            "found": "{}",
        }
        for s in segments
    ]
    if rows:
        connection.execute(insert(segment_table(binding)), rows)


def all_of(connection: Connection, binding: Binding, run_id: Any) -> list[Segment]:
    """The segments of a run, in order."""
    return _of_runs(connection, binding, [run_id])


def of_tenant(connection: Connection, binding: Binding, run_id: Any, tenant_id: Any) -> list[Segment]:
    """The segments of a run that are of one tenant's books, in order."""
    return _of_runs(connection, binding, [run_id], segment_table(binding).c.tenant_id == tenant_id)


def all_of_runs(connection: Connection, binding: Binding, run_ids: Sequence[Any]) -> dict[Any, list[Segment]]:
    """The segments of each of some runs, in order; one statement for so many runs as a page has."""
    found: dict[Any, list[Segment]] = {run_id: [] for run_id in run_ids}
    for first in range(0, len(run_ids), RUNS_AT_ONCE):
        for segment in _of_runs(connection, binding, run_ids[first : first + RUNS_AT_ONCE]):
            found[segment.run_id].append(segment)
    return found


def _of_runs(
    connection: Connection, binding: Binding, run_ids: Sequence[Any], *conditions: ColumnElement[bool]
) -> list[Segment]:
    table = segment_table(binding)
    query = select(table).where(table.c.run_id.in_(run_ids), *conditions).order_by(table.c.run_id, table.c.position)
    return [_segment(row) for row in connection.execute(query)]


def _segment(row: Row[Any]) -> Segment:
    return Segment(
        run_id=row.run_id,
        position=row.position,
        stage=row.stage,
        kind=row.kind,
        ledger=row.ledger,
        document=row.document,
        tenant_id=row.tenant_id,
        cursor=row.cursor,
        until=row.until_key,
        batch_lines=row.batch_lines,
        id=row.id,
        attempt=row.attempt,
        state=row.state,
        lease_until=row.lease_until,
        total=row.total,
        processed=row.processed,
        synced=row.synced,
        applied=row.applied,
        errors=row.errors,
        skipped=json.loads(row.skipped),
        found=json.loads(row.found),
    )


def put_off(connection: Connection, binding: Binding, segment: Segment, before: Sequence[Segment]) -> None:
    """Give a segment back until others, new ones, are done.

    :raises FencedError: another worker has taken it over.
    :raises StoppedError: the run does not go on.
    """
    check_in(connection, binding, segment.run_id, lock=True)
    table = segment_table(binding)
    last = connection.scalar(select(func.max(table.c.position)).where(table.c.run_id == segment.run_id)) or 0
    add(connection, binding, [replace(new, position=last + number) for number, new in enumerate(before, 1)])
    waiting = _mine(binding, segment).values(state="waiting", lease_until=None)
    if connection.execute(waiting).rowcount != 1:
        raise FencedError


def check_in(connection: Connection, binding: Binding, run_id: Any, *, lock: bool = False) -> None:
    """Look whether the run goes on, at the beginning of a batch.

    :param lock: hold the run's row, for who decides by what others do to its segments. It comes before the segments'
        rows, everywhere, so that nobody waits in a circle.
    :raises StoppedError: it does not.
    """
    table = run_table(binding)
    if lock:
        # by writing: SQLite's lock is the one on the file
        connection.execute(update(table).where(table.c.id == run_id).values(stage=table.c.stage))
    run = connection.execute(select(table.c.state, table.c.command).where(table.c.id == run_id)).one_or_none()
    if run is None or run.state != "running":
        raise StoppedError(None)
    if run.command is not None:
        raise StoppedError(run.command)


def take(
    connection: Connection, binding: Binding, settings: Settings, run_id: Any, worker: str
) -> Segment | Literal["busy"] | None:
    """The next segment that is ready and that nobody is at work on; ``busy`` when others must end first, None when all
    are done.

    Of the segments of one stage, those come first of tenants in whose books the fewest are at work: workers spread over
    tenants, and over key ranges only then. Where the settings' ``tenant_workers_max`` are at work, nobody is added.

    A worker takes when it has none. One that is under its name it took by a COMMIT of which it was not told.

    One that is taken from somebody whose lease has passed goes on with half as many lines at a time: those that there
    were may be more than can be done in a lease, or in a process's memory.

    :raises RunStateError: again and again a segment was taken from somebody, and nothing of it was ever committed.
    :raises StoppedError: the run does not go on.
    """
    check_in(connection, binding, run_id, lock=True)
    table = segment_table(binding)
    ready = to_try(connection, table, settings, run_id, worker)
    if ready is None:
        return None
    for row in ready:
        segment = _segment(row)
        if row.state == "running" and row.worker != worker:
            _refuse_for_ever(segment)
            segment = replace(segment, batch_lines=max(1, segment.batch_lines // 2))
        segment = replace(segment, attempt=row.attempt + 1, state="running")
        lease = _lease(settings, segment)
        taken = (
            update(table)
            .where(table.c.id == row.id, table.c.attempt == row.attempt, table.c.state == row.state)
            .values(
                state="running",
                attempt=segment.attempt,
                worker=worker,
                lease_until=lease,
                batch_lines=segment.batch_lines,
            )
        )
        if connection.execute(taken).rowcount == 1:
            runs = run_table(binding)
            values = {"stage": row.stage, "sequence": runs.c.sequence + 1, "lease_until": kept(runs, lease)}
            connection.execute(update(runs).where(runs.c.id == run_id, runs.c.state == "running").values(**values))
            return segment
    return "busy"


def _refuse_for_ever(segment: Segment) -> None:
    if segment.attempt >= ATTEMPTS_MAX and not segment.begun:
        raise RunStateError(
            segment.run_id,
            f"cannot go on: {segment.attempt} workers died, or took longer than their lease, over {segment.stage} of "
            f"tenant {segment.tenant_id} (segment {segment.id}, {segment.kind})",
            "See why they are killed or slow; raise lease_seconds, or lower batch_lines_min; then resume it.",
        )


def _lease(settings: Settings, segment: Segment) -> datetime:
    """When the lease on a segment ends: longer for what is statements over all lines of a tenant, or waits.

    Such a step is done in one, and of others the first batch is, so each further attempt follows on one that was too
    slow, most likely: it has twice as long, or two workers would take it from each other for ever.
    """
    in_one = segment.kind in {"check", "settle", "verify"}
    times = min(2 ** (max(1, segment.attempt) - 1), LEASE_TIMES_MAX) if in_one or not segment.begun else 1
    lines = segment.total if in_one or segment.kind == "late" else 0
    waits = settings.writers_seconds_max if segment.kind == "check" else 0.0
    return lease_end(settings, lines, waits_seconds=waits, times=times)


def save(
    connection: Connection,
    binding: Binding,
    settings: Settings,
    segment: Segment,
    *,
    cursor: str | None = None,
    processed: int = 0,
    synced: int = 0,
    applied: int = 0,
    errors: int = 0,
    skipped: Mapping[str, int] | None = None,
    found: Mapping[str, int] | None = None,
    done: bool = False,
    seconds: float = 0.0,
    batch_lines: int | None = None,
    last_error: str | None = None,
) -> Segment:
    """Write how far a segment is, in the transaction of the batch, and return it as it will be after the commit.

    :raises FencedError: another worker has taken it over; or it is further than the worker knows, because a COMMIT that
        was not confirmed has been done (``as_committed``), so that nothing is counted twice.
    :raises StoppedError: the run does not go on.
    """
    runs = run_table(binding)
    after = replace(
        segment,
        cursor=segment.cursor if cursor is None else cursor,
        processed=segment.processed + processed,
        synced=segment.synced + synced,
        applied=segment.applied + applied,
        errors=segment.errors + errors,
        skipped=added_up([segment.skipped, skipped or {}]),
        found=added_up([segment.found, found or {}]),
        state="done" if done else "running",
        batch_lines=segment.batch_lines if batch_lines is None else batch_lines,
    )
    lease = _lease(settings, after)
    values: dict[str, Any] = {
        "cursor": after.cursor,
        "processed": after.processed,
        "synced": after.synced,
        "applied": after.applied,
        "errors": after.errors,
        "skipped": json.dumps(after.skipped),
        "found": json.dumps(after.found),
        "state": after.state,
        "batch_lines": after.batch_lines,
        "lease_until": None if done else lease,
    }
    if last_error is not None:
        values["last_error"] = storable(last_error)[:NOTE_MAX]
    counts = {
        "processed": processed if segment.kind == "lines" else 0,
        "synced": 0 if segment.kind == "documents" else synced,
        "errors": errors,
    }
    running = update(runs).where(runs.c.id == segment.run_id, runs.c.state == "running")
    changed: dict[str, Any] = {name: runs.c[name] + bindparam(f"more_{name}", count) for name, count in counts.items()}
    changed |= {
        "sequence": runs.c.sequence + 1,
        "active_seconds": runs.c.active_seconds + seconds,
        "lease_until": kept(runs, lease),
        "stage": segment.stage,
    }
    if connection.execute(running.values(**changed)).rowcount != 1:
        raise StoppedError(None)
    table = segment_table(binding)
    known = {name: getattr(segment, name) for name in ("cursor", "processed", "synced", "applied", "errors")}
    as_known = [table.c[name].is_not_distinct_from(value) for name, value in known.items()]
    if connection.execute(_mine(binding, segment).where(*as_known).values(**values)).rowcount != 1:
        raise FencedError
    return after


def as_committed(connection: Connection, binding: Binding, segment: Segment) -> Segment:
    """How far a segment is, if it is still the worker's own.

    :raises FencedError: another worker has taken it over.
    """
    table = segment_table(binding)
    query = select(table).where(table.c.id == segment.id, table.c.attempt == segment.attempt)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise FencedError
    return _segment(row)


def renew(connection: Connection, binding: Binding, settings: Settings, segment: Segment, note: str | None) -> None:
    """Keep a segment, and the run, while a worker waits; ``note`` says for what. One that is done needs no keeping.

    :raises FencedError: another worker has taken it over.
    :raises StoppedError: the run does not go on.
    """
    check_in(connection, binding, segment.run_id)
    runs, lease = run_table(binding), lease_end(settings)
    told = {"note": None if note is None else storable(note)[:NOTE_MAX], "lease_until": kept(runs, lease)}
    running = update(runs).where(runs.c.id == segment.run_id, runs.c.state == "running")
    connection.execute(running.values(**told, sequence=runs.c.sequence + 1))
    if segment.state != "done" and connection.execute(_mine(binding, segment).values(lease_until=lease)).rowcount != 1:
        raise FencedError


def release(connection: Connection, binding: Binding, segment: Segment, last_error: str | None = None) -> None:
    """Give a segment back as far as it is, for the next worker. Harmless when it was taken over."""
    values: dict[str, Any] = {"state": "waiting", "lease_until": None}
    if last_error is not None:
        values["last_error"] = storable(last_error)[:NOTE_MAX]
    connection.execute(_mine(binding, segment).values(**values))


def _mine(binding: Binding, segment: Segment) -> Update:
    """An UPDATE of a segment's row, as long as nobody else has taken it."""
    table = segment_table(binding)
    return update(table).where(table.c.id == segment.id, table.c.attempt == segment.attempt, table.c.state == "running")


def take_over(connection: Connection, binding: Binding, run_id: Any) -> None:
    """Take every segment of a run away from its workers, whether they are alive or not."""
    table = segment_table(binding)
    running = update(table).where(table.c.run_id == run_id, table.c.state == "running")
    connection.execute(running.values(state="waiting", attempt=table.c.attempt + 1, lease_until=None))
