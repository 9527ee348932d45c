"""The first step of a run: how much there is, and the segments that it is cut into.

Per tenant and ledger the control lines are cut into key ranges of so many lines, up to an upper bound that is pinned
behind the transactions in flight. What comes in later, or late under a lower key, is the hook's business and that of
the proof which ends every run. Documents that no posted entry mentions are counted; with a poster they get segments
of their own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, or_, select

from ledger_sync import segments
from ledger_sync.binding import Document, Ledger, aliased, attribute
from ledger_sync.control_lines import Lines, on_accounts
from ledger_sync.dialects import plan_plainly, wait_for_writers
from ledger_sync.mentions import unposted
from ledger_sync.runs import control_lines_in, tenants_in
from ledger_sync.scope import Scope
from ledger_sync.segments import Segment
from ledger_sync.summary import STAGES
from ledger_sync.workbench import Workbench


def check(bench: Workbench, segment: Segment) -> Segment:
    """Cut one run, behind the transactions in flight, and count what no posted entry mentions."""
    bench.retried(_wait, bench)
    return bench.retried(_plan, bench, segment)


def _wait(bench: Workbench) -> None:
    with bench.batches.connected(commit=False) as connection:
        wait_for_writers(connection, bench.settings.writers_seconds_max)


def _plan(bench: Workbench, segment: Segment) -> Segment:
    began = time.monotonic()
    with bench.writing() as connection:
        plan_plainly(connection)
        plan = _Planner(bench, connection).plan()
        # first, since it refuses a plan that has been committed already
        after = bench.saved(connection, segment, began, found=plan.unposted, done=True)
        segments.add(connection, bench.binding, plan.segments)
        return after


@dataclass(frozen=True)
class _Plan:
    """The segments of a run, and the documents by kind that no posted entry mentions."""

    segments: tuple[Segment, ...]
    unposted: dict[str, int]


@dataclass(frozen=True)
class _Cut:
    tenant_id: Any
    after: str | None
    until: str
    lines: int


class _Planner:
    def __init__(self, bench: Workbench, connection: Connection) -> None:
        self.connection = connection
        self.binding = bench.binding
        self.settings = bench.settings
        self.run_id = bench.run_id
        self.tenant_id = bench.tenant_id  # None: everybody's books
        self.scope = bench.scope
        self.dry_run = bench.dry_run

    def plan(self) -> _Plan:
        key = attribute(self.binding.line, "id")
        upper = self.connection.scalar(select(key).order_by(key.desc()).limit(1))
        tenants = tenants_in(self.connection, self.binding) if self.tenant_id is None else [self.tenant_id]
        found: dict[str, int] = {}
        parts: list[Segment] = []
        for name in self.scope.ledgers:
            ledger = self.binding.ledger(name)
            for document in ledger.documents:
                for tenant_id, documents in self._unposted(ledger, document):
                    found[document.name] = found.get(document.name, 0) + documents
                    if self.scope.posting and not self.dry_run:
                        parts.append(self._part(name, "documents", tenant_id, documents, document=document.name))
            parts += [
                self._part(name, "lines", cut.tenant_id, cut.lines, cursor=cut.after, until=cut.until)
                for cut in (self._cuts(ledger, upper) if upper is not None else ())
            ]
        if not self.dry_run:
            # one whose first entries the poster will post has none yet
            tenants = list(dict.fromkeys([*tenants, *(part.tenant_id for part in parts)]))
            parts += self._ends(tenants)
        numbers = count(1)
        numbered = tuple(replace(segment, position=next(numbers)) for segment in parts)
        return _Plan(numbered, found)

    def _part(self, ledger: str, kind: Any, tenant_id: Any, total: int, **values: Any) -> Segment:
        return Segment(
            run_id=self.run_id,
            position=0,
            stage=STAGES[ledger],
            kind=kind,
            ledger=ledger,
            tenant_id=tenant_id,
            total=total,
            batch_lines=min(self.settings.batch_lines_start, self.settings.batch_lines_max),
            **values,
        )

    def _ends(self, tenants: list[Any]) -> Iterator[Segment]:
        """What follows when the history is written: settle, then prove; whole books, whatever part the run covers."""
        # counted once more, since the cuts are of the run's part of the books: 0.7 % of a backfill of 204,000 lines
        lines = control_lines_in(self.connection, self.binding, self.settings, self.tenant_id)
        for tenant_id in tenants:
            for name in self.scope.ledgers:
                part = self._part(name, "settle", tenant_id, lines.get((tenant_id, name), 0))
                yield replace(part, stage="settling")
        for tenant_id in tenants:
            total = sum(lines.get((tenant_id, name), 0) for name in self.settings.ledgers())
            yield Segment(self.run_id, 0, "verifying", "verify", tenant_id=tenant_id, total=total)

    def _cuts(self, ledger: Ledger, upper: Any) -> Iterator[_Cut]:
        """Key ranges of at most ``segment_lines_max`` control lines each, by tenant."""
        line, entry = aliased(self.binding.line), aliased(self.binding.entry)
        key, tenant_id = attribute(line, "id"), attribute(entry, "tenant_id")
        controls = self.settings.of_ledger(ledger.name)
        numbered = (
            select(
                tenant_id.label("tenant_id"),
                key.label("id"),
                func.row_number().over(partition_by=tenant_id, order_by=key).label("number"),
                func.count().over(partition_by=tenant_id).label("lines"),
            )
            .join(entry, attribute(entry, "id") == attribute(line, "general_ledger_id"))
            .where(on_accounts(attribute(line, "account_number"), controls))
            .where(key <= bindparam("upper", type_=key.type))
            .where(*self.scope.restrict(Lines(line, entry), tenant=self.tenant_id is not None))
            .subquery("numbered")
        )
        c = numbered.c
        size = self.settings.segment_lines_max
        query = select(*c).where(or_(c.number % size == 0, c.number == c.lines)).order_by(c.tenant_id, c.number)
        before: Any = None
        for row in self.connection.execute(query, {**self.scope.parameters(self.tenant_id), "upper": upper}):
            follows = before is not None and before.tenant_id == row.tenant_id
            yield _Cut(
                tenant_id=row.tenant_id,
                after=str(before.id) if follows else None,
                until=str(row.id),
                lines=row.number - (before.number if follows else 0),
            )
            before = row

    def _unposted(self, ledger: Ledger, document: Document) -> Iterator[tuple[Any, int]]:
        """How many documents no posted entry mentions, by tenant."""
        if not self.scope.takes_documents(self.settings, ledger, document):
            return
        model = document.model
        tenant_id = attribute(model, "tenant_id")
        conditions = [*unposted(self.binding, self.settings, ledger, document, model), *dated(self.scope, document)]
        if self.tenant_id is not None:
            conditions.append(tenant_id == self.tenant_id)
        query = select(tenant_id, func.count()).where(*conditions).group_by(tenant_id).order_by(tenant_id)
        for row in self.connection.execute(query):
            yield row[0], row[1]


def dated(scope: Scope, document: Document) -> list[ColumnElement[bool]]:
    """The conditions on a document's date."""
    day = attribute(document.model, document.date)
    conditions: list[ColumnElement[bool]] = []
    if scope.since is not None:
        conditions.append(day >= scope.since)
    if scope.until is not None:
        conditions.append(day <= scope.until)
    return conditions
