"""A run's tables in one picture: the ``Progress`` of a run at work, and the ``RunReport`` of any run.

Both are worked out from the run's row and its segments alone, so every process that can read the tables sees the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row

from ledger_sync import segments
from ledger_sync.binding import Binding
from ledger_sync.errors import RunStateError
from ledger_sync.models.types import utc_now
from ledger_sync.progress import (
    FINAL_STATES,
    MEANINGFUL_SECONDS,
    PERCENT_RUNNING_MAX,
    Progress,
    RunReport,
    StageReport,
    added_up,
)
from ledger_sync.proof import Proof
from ledger_sync.runs import run_row
from ledger_sync.scope import Scope
from ledger_sync.segments import Segment

STAGES: Final[Mapping[str, str]] = {
    "customer": "customer_invoices",
    "supplier": "vendor_invoices",
    "employee": "expenses",
}
"""The stage in which each ledger's history is written."""

WEIGHTS: Final[Mapping[str, float]] = {
    "check": 0.05,
    "documents": 10.0,
    "lines": 1.0,
    "settle": 0.4,
    "late": 0.0,
    "verify": 0.5,
}
"""What a line of each kind of segment costs, against writing its row; as measured at a million lines.

What came in late is known of only in the end, and must not make the percentage fall.
"""

PERCENT_MEANINGFUL: Final = 1.0
"""What is left is not reckoned from less."""


def stages_of(scope: Scope, *, dry_run: bool) -> tuple[str, ...]:
    """The stages of a backfill, in order; a dry run has nothing to settle or to prove."""
    ends = () if dry_run else ("settling", "verifying")
    return ("checking", *(STAGES[ledger] for ledger in scope.ledgers), *ends, "completed")


def sequence_of(changes: int, stage_index: int) -> int:
    """The sequence number of a snapshot: it rises with every change of a run, and with every stage without one."""
    return changes * 16 + stage_index + 1


def scope_of(run: Row[Any]) -> Scope:
    """The scope that a backfill's row holds.

    :raises RunStateError: the run is none.
    """
    if run.kind != "backfill":
        raise RunStateError(run.id, f"is a {run.kind}, which has no segments", "Look at it in the list of runs.")
    return Scope.model_validate_json(run.filters)


def progress(connection: Connection, binding: Binding, run_id: Any) -> Progress:
    """The present state of a backfill."""
    run = run_row(connection, binding, run_id)
    return progress_of(run, segments.all_of(connection, binding, run_id))


def progress_of(run: Row[Any], parts: Sequence[Segment]) -> Progress:
    """The snapshot that a run's row and segments make."""
    stages = stages_of(scope_of(run), dry_run=run.dry_run)
    done = run.state in {"completed", "completed_with_errors"}
    open_parts = [part for part in parts if part.state != "done"]
    index = min((stages.index(part.stage) for part in open_parts), default=len(stages) - 1 if done else len(stages) - 2)
    now = utc_now()
    workers = sum(1 for part in parts if part.worked_on(now)) if run.state == "running" else 0
    percent = 100.0 if done else min(PERCENT_RUNNING_MAX, round(_percent(parts), 1))
    rate = eta = None
    if run.active_seconds >= MEANINGFUL_SECONDS and run.state == "running":
        rate = round(run.processed / run.active_seconds * max(1, workers), 1)
        if percent >= PERCENT_MEANINGFUL:
            eta = round(run.active_seconds * (100 - percent) / percent / max(1, workers), 1)
    lines = [part for part in parts if part.kind == "lines"]
    total, processed = sum(part.total for part in lines), sum(part.processed for part in lines)
    return Progress(
        run_id=run.id,
        sequence=sequence_of(run.sequence, index),
        tenant_id=run.tenant_id,
        state=run.state,
        note=run.note,
        stage=stages[index],
        stage_index=index,
        stage_count=len(stages),
        processed=processed,
        total=max(total, processed),
        percent=percent,
        synced=sum(part.synced for part in parts if part.kind != "documents"),
        existing=sum(part.existing for part in parts),
        skipped=added_up([part.skipped for part in parts]),
        errors=sum(part.errors for part in parts),
        applied=sum(part.applied for part in parts),
        workers=workers,
        lines_per_second=rate,
        eta_seconds=eta,
        elapsed_seconds=_elapsed(run),
    )


def _percent(parts: Sequence[Segment]) -> float:
    if len(parts) <= 1:
        return 0.0  # not even the plan is made
    weights = [WEIGHTS[part.kind] * max(part.total, 1) for part in parts]
    done = sum(weight * part.part_done for weight, part in zip(weights, parts, strict=True))
    return 100 * done / sum(weights)


def _elapsed(run: Row[Any]) -> float:
    end = run.finished_at if run.state in FINAL_STATES and run.finished_at is not None else utc_now()
    return round(float((end - run.started_at).total_seconds()), 3)


def report(connection: Connection, binding: Binding, run_id: Any, proofs: Sequence[Proof] = ()) -> RunReport:
    """What a run has done so far, or did."""
    return report_of(run_row(connection, binding, run_id), segments.all_of(connection, binding, run_id), tuple(proofs))


def reports(connection: Connection, binding: Binding, runs: Sequence[Row[Any]]) -> tuple[RunReport, ...]:
    """The reports of a list of runs, whose segments are read together."""
    parts = segments.all_of_runs(connection, binding, [run.id for run in runs])
    return tuple(report_of(run, parts[run.id]) for run in runs)


def report_of(run: Row[Any], parts: Sequence[Segment], proofs: tuple[Proof, ...] = ()) -> RunReport:
    """The report that a run's row and segments make."""
    return RunReport(
        run_id=run.id,
        kind=run.kind,
        tenant_id=run.tenant_id,
        state=run.state,
        command=run.command,
        note=run.note,
        dry_run=run.dry_run,
        actor=run.actor,
        stages=_stage_reports(run, parts),
        started_at=run.started_at,
        finished_at=run.finished_at,
        lease_until=run.lease_until,
        elapsed_seconds=_elapsed(run),
        active_seconds=round(run.active_seconds, 3),
        clean=run.clean,
        proofs=proofs,
    )


def _stage_reports(run: Row[Any], parts: Sequence[Segment]) -> tuple[StageReport, ...]:
    if run.kind != "backfill":
        return (StageReport(stage=run.stage, synced=run.synced),)
    names = stages_of(scope_of(run), dry_run=run.dry_run)[:-1]
    reports = []
    for name in names:
        of_stage = [part for part in parts if part.stage == name]
        lines = [part for part in of_stage if part.kind == "lines"]
        reports.append(
            StageReport(
                stage=name,
                processed=sum(part.processed for part in lines),
                synced=sum(part.synced for part in of_stage if part.kind != "documents"),
                existing=sum(part.existing for part in of_stage),
                applied=sum(part.applied for part in of_stage),
                posted=sum(part.synced for part in of_stage if part.kind == "documents"),
                errors=sum(part.errors for part in of_stage),
                skipped=added_up([part.skipped for part in of_stage]),
                found=added_up([part.found for part in of_stage]),
            )
        )
    return tuple(reports)
