"""History, walked in key ranges and written in batches that each commit.

Per ledger one stage: the control lines in order of their key, a bounded number at a time. What a batch
writes is the projection's rows for its range that are not there yet, so a second run changes nothing. At the
end of a stage the whole range is looked over once more for lines that were committed late under a lower key.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, func, select
from sqlalchemy.orm import Session

from ledger_sync.binding import Binding, Ledger, attribute
from ledger_sync.errors import ConfigurationError, CutOverError
from ledger_sync.progress import AllTenants, OnProgress, Progress, RunReport, StageReport
from ledger_sync.projection import Lines, Restriction, on_accounts, project
from ledger_sync.runs import Batches, Run, SessionFactory
from ledger_sync.settings import Settings
from ledger_sync.writer import Writer

STAGES: Final = {"customer": "customer_invoices", "supplier": "vendor_invoices", "employee": "expenses"}


@dataclass(frozen=True)
class Scope:
    """Which part of the history a run covers."""

    tenant_id: str | AllTenants
    since: date | None = None
    until: date | None = None

    def restrict(self, lines: Lines) -> list[Any]:
        """The conditions on lines and entries, with their values bound by ``parameters``."""
        tenant_id, entry_date = attribute(lines.entry, "tenant_id"), attribute(lines.entry, "entry_date")
        conditions: list[Any] = []
        if not isinstance(self.tenant_id, AllTenants):
            conditions.append(tenant_id == bindparam("scope_tenant", type_=tenant_id.type))
        if self.since is not None:
            conditions.append(entry_date >= bindparam("scope_since", type_=entry_date.type))
        if self.until is not None:
            conditions.append(entry_date <= bindparam("scope_until", type_=entry_date.type))
        return conditions

    def parameters(self) -> dict[str, Any]:
        """The bound values of ``restrict``."""
        values = {"scope_tenant": self.tenant_id, "scope_since": self.since, "scope_until": self.until}
        return {name: value for name, value in values.items() if name in self.shape()}

    def shape(self) -> tuple[str, ...]:
        """Which conditions there are: scopes of one shape share their statements."""
        given = {
            "scope_tenant": not isinstance(self.tenant_id, AllTenants),
            "scope_since": self.since is not None,
            "scope_until": self.until is not None,
        }
        return tuple(name for name, there in given.items() if there)


@dataclass
class _Stage:
    name: str
    ledger: Ledger
    total: int = 0
    processed: int = 0
    synced: int = 0
    applied: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def report(self) -> StageReport:
        return StageReport(
            stage=self.name,
            processed=self.processed,
            synced=self.synced,
            applied=self.applied,
            skipped=dict(self.skipped),
        )


class Backfill:
    """One run over a scope. ``run`` walks it and returns the report."""

    def __init__(
        self, binding: Binding, settings: Settings, writer: Writer, factory: SessionFactory, scope: Scope
    ) -> None:
        self.binding = binding
        self.settings = settings
        self.writer = writer
        self.batches = Batches(binding, factory)
        self.scope = scope
        self._sequence = 0
        self._began = time.monotonic()

    def run(self, ledgers: Iterable[str] | None, dry_run: bool, on_progress: OnProgress | None) -> RunReport:
        """Walk all stages. A callback that raises ends the run; what has been committed stays.

        :raises CutOverError: the scope begins before the cut-over.
        """
        self._refuse_before_cut_over()
        stages = [_Stage(STAGES[name], self.binding.ledger(name)) for name in self._names(ledgers)]
        if dry_run:
            return self._walk_stages(stages, None, on_progress)
        tenant_id = None if isinstance(self.scope.tenant_id, AllTenants) else self.scope.tenant_id
        run = Run(self.batches, "backfill", tenant_id, stages[0].name)
        try:
            report = self._walk_stages(stages, run, on_progress)
        except BaseException:
            run.finish("failed")
            raise
        run.finish(report.state)
        return report

    def _walk_stages(self, stages: list[_Stage], run: Run | None, on_progress: OnProgress | None) -> RunReport:
        with self.batches.transaction(commit=False) as session:
            for stage in stages:
                stage.total = self._connection(session, stage.ledger).scalar(
                    self._count(stage.ledger), self.scope.parameters()
                )
        for index, stage in enumerate(stages):
            self._tell(on_progress, stages, index, "running")
            for _ in self._walk(stage, run):
                self._tell(on_progress, stages, index, "running")
        settling = _Stage("settling", stages[-1].ledger)
        stages.append(settling)
        if run is not None:
            self._tell(on_progress, stages, len(stages) - 1, "running")
            for stage in stages[:-1]:
                settling.applied += self._settle(stage.ledger)
        self._tell(on_progress, stages, len(stages) - 1, "completed")
        return RunReport(
            state="completed",
            dry_run=run is None,
            stages=tuple(stage.report() for stage in stages),
            elapsed_seconds=time.monotonic() - self._began,
        )

    def _names(self, ledgers: Iterable[str] | None) -> list[str]:
        known = self.settings.ledgers()
        wanted = list(known if ledgers is None else ledgers)
        for name in wanted:
            if name not in known:
                raise ConfigurationError(f"There is no ledger {name!r}; the settings have {', '.join(known)}.")
        return [name for name in STAGES if name in wanted]

    def _refuse_before_cut_over(self) -> None:
        tenant = self.scope.tenant_id
        if self.scope.since is None or isinstance(tenant, AllTenants):
            return
        cut_over = self.settings.cut_over(tenant)
        if cut_over is not None and self.settings.effective_by == "entry_date" and self.scope.since < cut_over:
            raise CutOverError(
                f"since={self.scope.since} lies before the cut-over of {cut_over}. History is brought in by moving "
                "the cut-over back: set effective_from to that day, for hook and backfill alike."
            )

    def _walk(self, stage: _Stage, run: Run | None) -> Iterable[None]:
        """Write a stage batch by batch; without a run, count what would be written and roll back."""
        cursor: Any = None
        ledger = stage.ledger
        run_id = None if run is None else run.id
        while True:
            with self.batches.transaction(commit=run is not None) as session:
                connection = self._connection(session, ledger)
                position = {**self.scope.parameters(), **({} if cursor is None else {"cursor": cursor})}
                upper = connection.scalar(self._upper(ledger, cursor), position)
                if upper is None:
                    break
                where, parameters = self._between(cursor), {**position, "upper": upper}
                key = ("batch", self.scope.shape(), cursor is None)
                stage.synced += self.writer.fill(connection, ledger, where, parameters, key, run_id=run_id)
                self._count_lines(stage, connection, where, parameters)
                if run is not None:
                    run.beat(session, stage.name, stage.synced)
            cursor = upper
            yield
        if run is None:
            return
        with self.batches.transaction() as session:
            # what was committed meanwhile under a key that the cursor had passed
            parameters, shape = self.scope.parameters(), ("rest", self.scope.shape())
            connection = self._connection(session, ledger)
            stage.synced += self.writer.fill(connection, ledger, self.scope.restrict, parameters, shape, run_id=run_id)

    def _settle(self, ledger: Ledger) -> int:
        """Settle the ledger's items, tenant by tenant, each in a transaction of its own."""
        tenants: list[Any] = [self.scope.tenant_id]
        if isinstance(self.scope.tenant_id, AllTenants):
            column = ledger.column("tenant_id")
            with self.batches.transaction(commit=False) as session:
                query = select(column).distinct().order_by(column)
                tenants = list(self._connection(session, ledger).scalars(query))
        appended = 0
        for tenant_id in tenants:
            with self.batches.transaction() as session:
                appended += self.writer.settle_all(self._connection(session, ledger), ledger, tenant_id)
        return appended

    def _connection(self, session: Session, ledger: Ledger) -> Connection:
        return self.batches.connection(session, ledger.item)

    def _count_lines(
        self, stage: _Stage, connection: Connection, where: Restriction, parameters: Mapping[str, Any]
    ) -> None:
        ledger = stage.ledger
        lines = project(self.binding, self.settings, ledger, where).subquery("counted")
        query = select(lines.c.reason, func.count()).group_by(lines.c.reason)
        for reason, count in connection.execute(query, parameters):
            stage.processed += count
            if reason is not None:
                stage.skipped[reason] = stage.skipped.get(reason, 0) + count
        done = project(self.binding, self.settings, ledger, where).subquery("done")
        self.writer.resolve_failures(connection, ledger, select(done.c.general_ledger_id), parameters)

    def _between(self, cursor: Any) -> Restriction:
        def where(lines: Lines) -> list[Any]:
            key = attribute(lines.line, "id")
            bounds = [key <= bindparam("upper", type_=key.type)]
            if cursor is not None:
                bounds.append(key > bindparam("cursor", type_=key.type))
            return [*bounds, *self.scope.restrict(lines)]

        return where

    def _upper(self, ledger: Ledger, cursor: Any) -> Select[Any]:
        lines = self._lines(ledger)
        key = attribute(self.binding.line, "id")
        query = lines.order_by(key).limit(self.settings.batch_lines_max)
        if cursor is not None:
            query = query.where(key > bindparam("cursor", type_=key.type))
        batch = query.subquery("batch")
        return select(batch.c[0]).order_by(batch.c[0].desc()).limit(1)

    def _count(self, ledger: Ledger) -> Select[Any]:
        return select(func.count()).select_from(self._lines(ledger).subquery())

    def _lines(self, ledger: Ledger) -> Select[Any]:
        line, entry = self.binding.line, self.binding.entry
        return (
            select(line.id)
            .join(entry, entry.id == line.general_ledger_id)
            .where(on_accounts(line.account_number, self.settings.of_ledger(ledger.name)))
            .where(*self.scope.restrict(Lines(line, entry)))
        )

    def _tell(self, on_progress: OnProgress | None, stages: list[_Stage], index: int, state: str) -> None:
        if on_progress is None:
            return
        self._sequence += 1
        total = sum(stage.total for stage in stages)
        processed = sum(stage.processed for stage in stages)
        skipped: dict[str, int] = {}
        for stage in stages:
            for reason, count in stage.skipped.items():
                skipped[reason] = skipped.get(reason, 0) + count
        done = state == "completed"
        percent = 100.0 if done else min(99.9, round(100 * processed / total, 1)) if total else 0.0
        on_progress(
            Progress(
                sequence=self._sequence,
                stage=stages[index].name if not done else "completed",
                stage_index=index,
                stage_count=len(stages),
                processed=processed,
                total=max(total, processed),
                percent=percent,
                synced=sum(stage.synced for stage in stages),
                skipped=skipped,
                elapsed_seconds=time.monotonic() - self._began,
                state=state,
            )
        )
