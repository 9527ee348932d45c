"""The lines of a key range, batch by batch: how far a batch goes, its rows, and the search for what is bad in it.

A batch's rows, counts and cursor are one transaction. Batches grow and shrink towards a target time. One that fails for
what a line holds is halved until the line is found; the line is recorded, and the rest goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Select, bindparam, select
from sqlalchemy.exc import DBAPIError

from ledger_sync.binding import Ledger, aliased, attribute
from ledger_sync.control_lines import Lines, Restriction, on_accounts
from ledger_sync.dialects import fault_of, plan_for_range
from ledger_sync.failures import in_short
from ledger_sync.filling import Filled
from ledger_sync.segments import Segment
from ledger_sync.workbench import Workbench, key_from_text


@dataclass(frozen=True)
class _Range:
    """The lines of a segment after its cursor and up to a key: a restriction, what tells its shape, bound values."""

    where: Restriction
    shape: tuple[object, ...]
    values: Mapping[str, Any]


def _further(before: Segment, after: Segment) -> bool:
    """Whether a batch had any lines."""
    return (after.processed, after.synced) != (before.processed, before.synced)


class LineBatches:
    """Writes the rows of one run's lines."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._size: int | None = None
        self._bad_in_a_row = 0

    def step(self, segment: Segment) -> Segment:
        """One batch of a segment."""
        # what this worker has learned counts for a new segment; of one that others had, what they have
        if self._size is None or segment.attempt > 1:
            self._size = segment.batch_lines
        size = self._size
        upper = self.bench.retried(self._upper, segment, size)
        try:
            after = self.bench.retried(self._batch, segment, upper, size)
        except DBAPIError as error:
            if fault_of(error) != "data":
                raise
            return self._search(segment, upper)
        self._size = after.batch_lines
        if _further(segment, after):
            self._bad_in_a_row = 0
        return after

    def _next_size(self, size: int, seconds: float, *, full: bool) -> int:
        """Half to twice as large, towards the target time."""
        settings = self.bench.settings
        factor = min(2.0, max(0.5, settings.batch_seconds / max(seconds, 1e-6)))
        if factor > 1 and not full:
            return size  # a small rest says nothing of larger batches
        # one that lost its lease again and again is smaller than the least, and has to grow by itself
        low, high = min(settings.batch_lines_min, settings.batch_lines_max, size), settings.batch_lines_max
        return max(low, min(high, int(size * factor)))

    def _batch(self, segment: Segment, upper: Any, size: int | None = None) -> Segment:
        """Write the lines after the cursor up to a key, or to the segment's end (None).

        :param size: so many were to be written; the size that follows from it is saved for whoever goes on.
        """
        began = time.monotonic()
        bench, lines = self.bench, self._range(segment, upper)
        with bench.writing(commit=not bench.dry_run) as connection:
            plan_for_range(connection)
            filled = bench.filler.fill(
                connection,
                bench.ledger(segment),
                lines.where,
                lines.values,
                lines.shape,
                run_id=bench.run_id,
                selects=bench.scope.selects,
            )
            if not bench.dry_run:
                return self._counted(connection, segment, upper, filled, began, size)
        with bench.batches.connected() as connection:
            return self._counted(connection, segment, upper, filled, began, size)

    def _counted(
        self, connection: Connection, segment: Segment, upper: Any, filled: Filled, began: float, size: int | None
    ) -> Segment:
        late = segment.kind == "late"  # its lines were counted when they were passed
        full, seconds = upper is not None, time.monotonic() - began
        return self.bench.saved(
            connection,
            segment,
            began,
            cursor=None if upper is None else str(upper),
            done=upper is None,
            processed=0 if late else filled.seen,
            synced=filled.written,
            skipped={} if late else filled.skipped,
            batch_lines=None if size is None else self._next_size(size, seconds, full=full),
        )

    # -- bad lines -------------------------------------------------------------------------------------

    def _search(self, segment: Segment, upper: Any) -> Segment:
        """Find the bad lines of a batch that failed, record them, and write all others.

        By halves: what is written stays written, and the cursor follows. One bad line takes one failing attempt for
        each halving, one for itself, and one attempt for what follows it.
        """
        keys = self.bench.retried(self._keys, segment, upper)
        low = 0
        while low < len(keys):
            high = len(keys)
            while high - low > 1:
                middle = (low + high) // 2
                written = self._attempted(segment, keys[middle - 1])
                if isinstance(written, Segment):
                    segment, low, self._bad_in_a_row = written, middle, 0
                else:
                    high = middle
            error = self._attempted(segment, keys[low])
            if isinstance(error, Segment):
                segment, self._bad_in_a_row = error, 0
            else:
                self._bad_in_a_row += 1
                segment = self.bench.retried(self._record, segment, keys[low], error)
                self.bench.refuse_too_many(self._bad_in_a_row)
            low += 1
            self.bench.options.on_step()
            rest = self._attempted(segment, upper)
            if isinstance(rest, Segment):
                if _further(segment, rest):
                    self._bad_in_a_row = 0
                return rest
        return self.bench.retried(self._batch, segment, upper)

    def _attempted(self, segment: Segment, upper: Any) -> Segment | DBAPIError:
        try:
            return self.bench.retried(self._batch, segment, upper)
        except DBAPIError as error:
            if fault_of(error) != "data":
                raise
            return error

    def _record(self, segment: Segment, key: Any, error: DBAPIError) -> Segment:
        """Note a bad line, and go past it in the same transaction."""
        bench = self.bench
        with bench.writing() as connection:
            if not bench.dry_run:
                named = {"tenant_id": segment.tenant_id, "run_id": bench.run_id}
                bench.writer.failures.record_line(connection, bench.ledger(segment), key, error, **named)
            return bench.saved(
                connection,
                segment,
                time.monotonic(),
                cursor=str(key),
                processed=0 if segment.kind == "late" else 1,
                errors=1,
                last_error=in_short(error),
            )

    # -- which lines -----------------------------------------------------------------------------------

    def _upper(self, segment: Segment, size: int) -> Any:
        """The last key of the next batch; None when the rest of the segment is no larger than that."""
        if segment.kind == "lines" and segment.total - segment.processed <= size:
            return None
        lines = self._range(segment, None)
        with self.bench.batches.connected(commit=False) as connection:
            plan_for_range(connection)
            return connection.scalar(self._in_order(segment, lines, one=True), {**lines.values, "passed": size - 1})

    def _keys(self, segment: Segment, upper: Any) -> list[Any]:
        lines = self._range(segment, upper)
        with self.bench.batches.connected(commit=False) as connection:
            plan_for_range(connection)
            return list(connection.scalars(self._in_order(segment, lines, one=False), lines.values))

    def _in_order(self, segment: Segment, lines: _Range, *, one: bool) -> Select[Any]:
        """The keys of a range, in order; or only the ``one`` that follows so many, the bound value ``passed``."""
        bench = self.bench

        def build() -> Select[Any]:
            line, entry = aliased(bench.binding.line), aliased(bench.binding.entry)
            key = attribute(line, "id")
            query = (
                select(key)
                .join(entry, attribute(entry, "id") == attribute(line, "general_ledger_id"))
                .where(on_accounts(attribute(line, "account_number"), bench.settings.of_ledger(segment.ledger or "")))
                .where(*lines.where(Lines(line, entry)))
                .order_by(key)
            )
            return query.offset(bindparam("passed", type_=Integer)).limit(1) if one else query

        return bench.binding.once(bench.settings, ("keys", segment.ledger, lines.shape, one), build)

    def _range(self, segment: Segment, upper: Any) -> _Range:
        """The lines after a segment's cursor and up to a key, or to the segment's end (None)."""
        bench, line = self.bench, self.bench.binding.line
        ledger, late = bench.ledger(segment), segment.kind == "late"
        bounds = {
            "cursor": key_from_text(line, segment.cursor),
            "upper": upper if upper is not None else key_from_text(line, segment.until),
        }
        values = {name: key for name, key in bounds.items() if key is not None}
        begins, ends = "cursor" in values, "upper" in values

        def where(lines: Lines) -> list[ColumnElement[bool]]:
            key = attribute(lines.line, "id")
            conditions = list(bench.scope.restrict(lines))
            if begins:
                conditions.append(key > bindparam("cursor", type_=key.type))
            if ends:
                conditions.append(key <= bindparam("upper", type_=key.type))
            return [*conditions, *(self._rowless(ledger, lines) if late else ())]

        return _Range(
            where,
            (segment.kind, begins, ends, bench.scope.shape()),
            {**bench.scope.parameters(segment.tenant_id), **values, **({"late_run": bench.run_id} if late else {})},
        )

    def _rowless(self, ledger: Ledger, lines: Lines) -> list[ColumnElement[bool]]:
        """Lines without a row, but for those that this run has found to be bad."""
        item, error = aliased(ledger.item), aliased(self.bench.binding.error)
        key = attribute(lines.line, "id")
        row = select(attribute(item, "id")).where(attribute(item, "general_ledger_line_id") == key)
        bad = select(attribute(error, "general_ledger_line_id")).where(
            attribute(error, "run_id") == bindparam("late_run", type_=attribute(error, "run_id").type),
            attribute(error, "general_ledger_line_id") == key,
            attribute(error, "ledger") == ledger.name,
        )
        return [~row.exists(), ~bad.exists()]
