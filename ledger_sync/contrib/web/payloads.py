"""What is told of a run: one payload, the same by HTTP and by every event, worked out from the run's tables.

The envelope has camelCase keys, for the JavaScript that reads it; what comes from the library inside of it keeps the
library's names. Nothing is reckoned here that the library does not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from sqlalchemy.orm import Session

from ledger_sync import LedgerSync, Progress, RunReport, errors
from ledger_sync.failures import Failure
from ledger_sync.models.types import utc_now
from ledger_sync.progress import StageReport

ERRORS_TOLD: Final = 10
"""So many of a run's errors are in a payload, the newest."""

STEP_NAMES: Final[Mapping[str, str]] = {
    "checking": "Checking the books",
    "customer_invoices": "Customer invoices",
    "vendor_invoices": "Vendor invoices",
    "expenses": "Expenses",
    "settling": "Settling",
    "verifying": "Proving the books",
    "completed": "Completed",
}

KINDS: Final[Mapping[str, str]] = {
    "customer_invoices": "customer",
    "vendor_invoices": "supplier",
    "expenses": "employee",
}
"""What a sync can be confined to, and the ledger that it is in."""


class Envelope(BaseModel):
    """What we say ourselves, with camelCase keys."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class ErrorLine(Envelope):
    """Something that could not be written, and why."""

    voucher: str | None
    entry_id: Any
    line_id: Any
    document_kind: str | None
    document_id: Any
    message: str
    at: datetime


class Step(StageReport):
    """One stage of a run: its counts, and whether it is over."""

    step: str
    state: Literal["done", "active", "waiting"]


class Stats(Envelope):
    """The counts at a glance: control lines in all, rows written or there, lines skipped, errors."""

    total: int
    synced: int
    skipped: int
    errors: int


class Payload(Envelope):
    """How far a run is. Of two payloads of one run the one with the higher ``snapshot.sequence`` is newer."""

    sync_id: str
    kind: str
    tenant: Any
    state: str
    command: str | None
    dry_run: bool
    step: str
    message: str
    progress: float
    stats: Stats
    errors: tuple[ErrorLine, ...]
    steps: tuple[Step, ...]
    clean: bool | None
    started_at: datetime | None
    finished_at: datetime | None
    timestamp: datetime
    snapshot: Progress


class Run(Envelope):
    """One line of the run history."""

    sync_id: str
    kind: str
    state: str
    dry_run: bool
    actor: str | None
    note: str | None
    started_at: datetime | None
    finished_at: datetime | None
    elapsed_seconds: float
    active_seconds: float
    lines_per_second: float | None
    processed: int
    synced: int
    existing: int
    skipped: Mapping[str, int]
    errors: int
    applied: int
    clean: bool | None
    stages: tuple[StageReport, ...]


def error_line(failure: Failure) -> ErrorLine:
    """A recorded failure as it is told."""
    return ErrorLine(
        voucher=failure.voucher,
        entry_id=failure.general_ledger_id,
        line_id=failure.general_ledger_line_id,
        document_kind=failure.source_type,
        document_id=failure.source_id,
        message=failure.message,
        at=failure.created_at,
    )


@dataclass(frozen=True)
class Seen:
    """What the tables say of a backfill at one moment."""

    report: RunReport
    snapshot: Progress
    failures: Sequence[Failure]
    has_tenants: bool

    @property
    def stages(self) -> tuple[str, ...]:
        """The run's stages, in order."""
        return (*(stage.stage for stage in self.report.stages), "completed")

    def payload(self, snapshot: Progress | None = None) -> Payload:
        """What is told of it; of an earlier snapshot, if one is given."""
        report, told = self.report, self.snapshot if snapshot is None else snapshot
        told = told.model_copy(update={"note": note_of(told.state, told.note)})
        return Payload(
            sync_id=str(told.run_id),
            kind=report.kind,
            tenant=report.tenant_id if self.has_tenants else None,
            state=told.state,
            command=report.command,
            dry_run=report.dry_run,
            step=told.stage,
            message=message_of(told, report),
            progress=told.percent,
            stats=Stats(total=told.total, synced=told.synced, skipped=sum(told.skipped.values()), errors=told.errors),
            errors=tuple(map(error_line, self.failures)),
            steps=_steps(told, report),
            clean=report.clean if told.over else None,
            started_at=report.started_at,
            finished_at=report.finished_at if told.over else None,
            timestamp=utc_now(),
            snapshot=told,
        )


def look(sync: LedgerSync, session: Session, run_id: int, tenant_id: Any = None) -> Seen:
    """Read the tables of a backfill. Arguments and errors as of ``LedgerSync.progress``."""
    # in this order: a run that is over is told of with its whole report, whatever is committed between the two
    snapshot = sync.progress(session, run_id, tenant_id=tenant_id)
    report = sync.report(session, run_id, tenant_id=tenant_id)
    several = sync.binding.has_tenants
    failures: Sequence[Failure] = ()
    if snapshot.errors and (report.tenant_id is not None or not several):
        whose = report.tenant_id if several else None
        failures = sync.failures(session, whose, run_id=run_id, resolved=True, limit=ERRORS_TOLD)
    return Seen(report, snapshot, failures, several)


def payload_of(sync: LedgerSync, session: Session, run_id: int, tenant_id: Any = None) -> Payload:
    """What is told of a backfill now. Arguments and errors as of ``LedgerSync.progress``."""
    return look(sync, session, run_id, tenant_id).payload()


def _steps(snapshot: Progress, report: RunReport) -> tuple[Step, ...]:
    # the report comes a moment after the snapshot, so it is the snapshot that says which stage is at work
    done = snapshot.state in {"completed", "completed_with_errors"}
    return tuple(
        Step(
            **stage.model_dump(),
            step=stage.stage,
            state="done" if done or n < snapshot.stage_index else "active" if n == snapshot.stage_index else "waiting",
        )
        for n, stage in enumerate(report.stages)
    )


def note_of(state: str, note: str | None) -> str | None:
    """A run's note as it may be told: the library's own words, but not the text of whatever else was raised.

    That may hold a statement with its parameters, or the address of a database. A run that failed keeps its note when
    it is cancelled; what holds one that is running is the host's own word.
    """
    if state == "running" or note is None:
        return note
    name, colon, _ = note.partition(": ")
    raised = bool(colon) and name.isidentifier()
    return f"{name}. The server's log says more." if raised and not hasattr(errors, name) else note


def message_of(snapshot: Progress, report: RunReport) -> str:
    """One English sentence about a run, for whoever shows nothing else."""
    step = STEP_NAMES.get(snapshot.stage, snapshot.stage)
    if snapshot.state == "running":
        counted = f"{step}: {snapshot.processed:,} of {snapshot.total:,} lines"
        return f"{counted}. Held: {snapshot.note}" if snapshot.note else counted
    ended = {
        "completed": "Done: the books are proved" if report.clean else "Done",
        "completed_with_errors": f"Done, with {snapshot.errors:,} errors",
        "cancelled": "Cancelled. What is written stays",
        "paused": "Paused. Resume goes on from here",
        "failed": "Failed",
    }
    said = ended.get(snapshot.state, snapshot.state)
    return f"{said}. {snapshot.note}" if snapshot.note else f"{said}."


def run_of(report: RunReport) -> Run:
    """A report as a line of the history."""
    return Run(
        sync_id=str(report.run_id),
        existing=sum(stage.existing for stage in report.stages),
        note=note_of(report.state, report.note),
        **{name: getattr(report, name) for name in Run.model_fields if name not in {"sync_id", "existing", "note"}},
    )
