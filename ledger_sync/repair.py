"""What the proof found wrong, written right, in bounded batches that each commit.

Per ledger: the lines whose row is missing, differs, is on the wrong party or holds stale copies, and the rows that no
eligible line accounts for, some at a time. Each batch holds all of the tenant's buckets, so nobody settles beside it,
and then does what the hook does for touched lines: the projection decides. What is taken away leaves a tombstone.
Then what is settled is worked out anew, and the proof is taken again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, String, bindparam, case, func, insert, literal, select, union
from sqlalchemy.orm import Session

from ledger_sync import proof
from ledger_sync.binding import Binding, Ledger
from ledger_sync.caches import copied_data_differs, remaining_differs
from ledger_sync.comparison import compared
from ledger_sync.dialects import among
from ledger_sync.failures import in_short
from ledger_sync.models.types import utc_now
from ledger_sync.progress import OnProgress, Progress, RunReport, StageReport, Told
from ledger_sync.runs import Batches, SessionFactory, UnsteeredRun, control_lines_in, retried, said_if_possible
from ledger_sync.settings import Settings
from ledger_sync.touched import Touched, lines_of
from ledger_sync.writer import Writer

_Batch = tuple[list[Row[Any]], tuple[int, int]]
"""The lines of a batch with what is wrong with each; how many rows were written and taken away."""

STALE: Final = "stale"
"""What is wrong with a row that is no cause of difference: stale copies, a forged remaining amount or status."""


class Repair:
    """One repair of one tenant's books. ``run`` does it and returns the report, with the proof that follows it."""

    def __init__(
        self, binding: Binding, settings: Settings, writer: Writer, factory: SessionFactory, tenant_id: Any
    ) -> None:
        self.binding = binding
        self.settings = settings
        self.writer = writer
        self.batches = Batches(binding, factory)
        self.tenant_id = tenant_id
        self.ledgers = tuple(binding.ledger(name) for name in settings.ledgers())
        self._began = time.monotonic()
        self._sequence = 0

    def run(self, *, dry_run: bool, on_progress: OnProgress | None = None) -> RunReport:
        """Write what is missing, correct what differs, take away what is orphaned; or only count it."""
        told = Told(on_progress, 0.0, "log")
        if dry_run:
            return self._all(None, told)
        # what is wrong is looked for, settled and proved in all of the tenant's books at once
        lines = retried(self.settings.retries_max, self._lines)
        run = UnsteeredRun(self.batches, self.settings, "repair", self.tenant_id, "repairing", lines)
        try:
            report = self._all(run, told)
        except BaseException as error:
            said_if_possible(run.finish, "failed", note=in_short(error))
            raise
        run.finish(report.state, clean=report.clean)
        return report

    def _all(self, run: UnsteeredRun | None, told: Told) -> RunReport:
        stages: list[StageReport] = []
        for ledger in self.ledgers:
            stages.append(self._ledger(ledger, run))
            self._tell(told, run, stages, "running")
        applied = 0
        if run is not None:
            for ledger in self.ledgers:
                written = sum(stage.synced for stage in stages)
                applied += run.batch("settling", partial(self._settle, ledger, written))
        stages.append(StageReport(stage="settling", applied=applied))
        after = retried(self.settings.retries_max, self._proof)
        self._tell(told, run, stages, "completed")
        return RunReport(
            run_id=None if run is None else run.id,
            kind="repair",
            tenant_id=self.tenant_id,
            state="completed",
            dry_run=run is None,
            stages=tuple(stages),
            elapsed_seconds=time.monotonic() - self._began,
            clean=after.clean,
        )

    def _lines(self) -> int:
        with self.batches.transaction(commit=False) as session:
            connection = self.batches.connection(session, self.binding.line)
            return sum(control_lines_in(connection, self.binding, self.settings, self.tenant_id).values())

    def _settle(self, ledger: Ledger, written: int, session: Session) -> tuple[int, int]:
        connection = self._connection(session, ledger)
        applied = self.writer.settler.settle_all(connection, ledger, self.tenant_id)
        self.writer.failures.resolve(connection, ledger, self.tenant_id)
        return applied, written

    def _proof(self) -> proof.Proof:
        with self.batches.transaction(commit=False) as session:
            return proof.verify(session, self.binding, self.settings, self.tenant_id)

    def _ledger(self, ledger: Ledger, run: UnsteeredRun | None) -> StageReport:
        found: dict[str, int] = {}
        written = removed = 0
        last: Any = None
        while True:
            if run is None:
                batch, changes = retried(self.settings.retries_max, self._look, ledger, last)
            else:
                mending = partial(self._mend_next, ledger, run.id, last, written)
                batch, changes = run.batch(f"{ledger.name}_ledger", mending)
            for row in batch:
                found[row.wrong] = found.get(row.wrong, 0) + 1
            written, removed = written + changes[0], removed + changes[1]
            if not batch:
                return StageReport(
                    stage=f"{ledger.name}_ledger",
                    processed=sum(found.values()),
                    synced=written,
                    removed=removed,
                    found=found,
                )
            last = batch[-1].line_id

    def _look(self, ledger: Ledger, last: Any) -> _Batch:
        """The next lines that are wrong."""
        with self.batches.transaction(commit=False) as session:
            return self._next(self._connection(session, ledger), ledger, last), (0, 0)

    def _mend_next(self, ledger: Ledger, run_id: Any, last: Any, written: int, session: Session) -> tuple[_Batch, int]:
        """Mend the next lines that are wrong; with how many rows the run has written then."""
        connection = self._connection(session, ledger)
        self.writer.settler.lock_all(connection, ledger, self.tenant_id)
        batch, changes = self._next(connection, ledger, last), (0, 0)
        if batch:
            changes = self._mend(connection, ledger, [row.line_id for row in batch], run_id)
        return (batch, changes), written + changes[0]

    def _next(self, connection: Connection, ledger: Ledger, last: Any) -> list[Row[Any]]:
        parameters = {"tenant": self.tenant_id, "last": last}
        return list(connection.execute(self._wrong(ledger, further=last is not None), parameters))

    def _mend(self, connection: Connection, ledger: Ledger, lines: Sequence[Any], run_id: Any) -> tuple[int, int]:
        """Bring the rows of some lines into line with the projection; how many were written and taken away."""
        table, line_id = ledger.table, ledger.column("general_ledger_line_id")
        touched = Touched(lines=set(lines), rewrite=True, remove=True)
        # all that write looks at: rows of lines that reverse these may go as well
        of_lines = among(line_id, lines_of(self.binding, touched.parts()))
        before = {
            row._mapping[line_id]: dict(row._mapping)
            for row in connection.execute(select(table).where(of_lines), touched.parameters())
        }
        written = self.writer.write(connection, ledger, touched)
        gone = {row["general_ledger_line_id"] for row in written.removed}
        self._bury(connection, ledger, [before[line] for line in gone if line in before], run_id)
        # settle, not only count: what was forged among the applications must be undone before anything is added up
        self.writer.settler.settle(connection, ledger, set(lines) - gone, gone, caused_on=None, recount=True)
        return len(written.created) + len(written.changed), len(gone)

    def _bury(self, connection: Connection, ledger: Ledger, rows: Sequence[dict[str, Any]], run_id: Any) -> None:
        names = {name: ledger.column(name).name for name in ("general_ledger_line_id", "amount")}
        stones = [
            {
                "ledger": ledger.name,
                "tenant_id": self.tenant_id,
                "run_id": run_id,
                "removed_at": utc_now(),
                "row": json.dumps(row, default=str, ensure_ascii=False),
                **{name: row[column] for name, column in names.items()},
            }
            for row in rows
        ]
        if stones:
            connection.execute(insert(self.binding.tombstone.__table__), stones)

    def _wrong(self, ledger: Ledger, *, further: bool) -> Select[Any]:
        key = ("wrong", ledger.name, further)
        return self.binding.once(self.settings, key, lambda: self._wrong_lines(ledger, further=further))

    def _wrong_lines(self, ledger: Ledger, *, further: bool) -> Select[Any]:
        """The next lines whose row is wrong, and what is wrong; if further, beyond the bound value ``last``."""
        c = compared(self.binding, self.settings, ledger).subquery("compared").c
        line_id = c.general_ledger_line_id
        copied = copied_data_differs(self.binding, self.settings, ledger).order_by(None).subquery("copied").c
        counted = remaining_differs(ledger).order_by(None).subquery("counted").c
        wrong = union(
            select(line_id.label("line_id"), c.cause.label("wrong")).where(c.cause.in_(proof.FAULTS)),
            select(copied.line_id, literal(STALE, String()).label("wrong")),
            select(counted.line_id, literal(STALE, String()).label("wrong")),
        ).subquery("wrong")
        first = func.min(case((wrong.c.wrong == STALE, None), else_=wrong.c.wrong))
        query = select(wrong.c.line_id, func.coalesce(first, STALE).label("wrong")).group_by(wrong.c.line_id)
        if further:
            query = query.where(wrong.c.line_id > bindparam("last", type_=wrong.c.line_id.type))
        return query.order_by(wrong.c.line_id).limit(self.settings.batch_lines_max)

    def _connection(self, session: Session, ledger: Ledger) -> Connection:
        return self.batches.connection(session, ledger.item)

    def _tell(self, told: Told, run: UnsteeredRun | None, stages: Sequence[StageReport], state: str) -> None:
        self._sequence += 1
        done = state == "completed"
        told.tell(
            Progress(
                run_id=None if run is None else run.id,
                tenant_id=self.tenant_id,
                sequence=self._sequence,
                stage="completed" if done else stages[-1].stage,
                stage_index=len(stages) - 1,
                stage_count=len(self.ledgers) + 1,
                processed=sum(stage.processed for stage in stages),
                total=sum(stage.processed for stage in stages),
                percent=100.0 if done else round(99.0 * len(stages) / (len(self.ledgers) + 1), 1),
                synced=sum(stage.synced for stage in stages),
                existing=0,
                skipped={},
                errors=0,
                applied=sum(stage.applied for stage in stages),
                lines_per_second=None,
                eta_seconds=None,
                elapsed_seconds=time.monotonic() - self._began,
                state=state,
            ),
            tuple(stage.stage for stage in stages),
        )
