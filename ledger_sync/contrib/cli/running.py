"""The commands that run backfills, here or by the workers of a job queue; that steer them; that work for a queue."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import ALL_TENANTS, LedgerSync
from ledger_sync.contrib.cli import show
from ledger_sync.contrib.cli.commands import (
    DEFAULT_DB,
    Accounts,
    Db,
    Everybody,
    Json,
    Tenant,
    app,
    books,
    settings_of,
    tenants_of,
    user_name,
)
from ledger_sync.contrib.cli.queueing import DEFAULT_BROKER, Broker, Kind, Queue, queue_of, watched
from ledger_sync.dialects import masked
from ledger_sync.errors import ConfigurationError
from ledger_sync.progress import OnProgress, RunReport, together
from ledger_sync.progress import Progress as Snapshot

BAR_SECONDS = 0.1
RUN_ID_MAX = 2**63 - 1


@app.command()
def backfill(
    db: Db = DEFAULT_DB,
    tenant: Tenant = None,
    all_tenants: Everybody = False,
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First entry date.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last entry date.")] = None,
    ledger: Annotated[list[str] | None, typer.Option(help="supplier, customer or employee; all unless given.")] = None,
    source_type: Annotated[list[str] | None, typer.Option(help="As it stands in the books; all unless given.")] = None,
    voucher: Annotated[list[str] | None, typer.Option(help="A single voucher: 17, B-17, B-17/2026.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be written, write nothing.")] = False,
    actor: Annotated[str | None, typer.Option("--actor", help="Who starts it; the user's login name.")] = None,
    queue: Queue = None,
    broker: Broker = DEFAULT_BROKER,
    account: Accounts = None,
    as_json: Json = False,
) -> int:
    """Write the open items that history lacks, settle them, and prove the books."""
    output = show.Output(as_json)
    sync = LedgerSync(settings_of(account))
    with books(db) as (_, factory):
        with factory() as session:
            names = tenants_of(sync, session, tenant, everybody=all_tenants)
        asked: dict[str, Any] = {
            "tenant_id": ALL_TENANTS if all_tenants else names[0],
            "since": since.date() if since else None,
            "until": until.date() if until else None,
            "ledgers": ledger or None,
            "source_types": source_type or None,
            "vouchers": voucher or None,
            "dry_run": dry_run,
            "actor": actor or user_name(),
        }
        if queue is None:
            with _followed(output, db, sync, factory) as follow:
                report = sync.backfill(factory, **asked, on_progress=follow, progress_seconds=BAR_SECONDS)
        else:
            with queue_of(queue, db, broker, sync, factory) as queueing:
                run_id = queueing.queue.start(**asked)
                with _followed(output, db, sync, factory, queued=True) as follow:
                    report = watched(sync, factory, run_id, follow)
        return _reported(output, report)


@app.command()
def runs(
    db: Db = DEFAULT_DB,
    tenant: Tenant = None,
    all_tenants: Everybody = False,
    resume: Annotated[
        int | None, typer.Option("--resume", max=RUN_ID_MAX, help="Go on with this run, dead or alive.")
    ] = None,
    pause: Annotated[
        int | None, typer.Option("--pause", max=RUN_ID_MAX, help="Have this run stop after its present batch.")
    ] = None,
    cancel: Annotated[int | None, typer.Option("--cancel", max=RUN_ID_MAX, help="Have this run stop for good.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="How many to list.")] = 20,
    account: Accounts = None,
    as_json: Json = False,
) -> int:
    """List backfills and repairs, the newest first; or resume, pause or cancel one."""
    output = show.Output(as_json)
    sync = LedgerSync(settings_of(account))
    with books(db) as (_, factory):
        if sum(one is not None for one in (resume, pause, cancel)) > 1:
            raise ConfigurationError("--resume, --pause and --cancel are one thing each. Give one of them.")
        if resume is not None:
            with _followed(output, db, sync, factory) as follow:
                report = sync.resume(
                    factory, resume, tenant_id=tenant, on_progress=follow, progress_seconds=BAR_SECONDS
                )
            return _reported(output, report)
        with factory() as session:
            tenants_of(sync, session, tenant, everybody=all_tenants or tenant is None)  # or they are refused
            if pause is not None:
                sync.pause(session, pause, tenant_id=tenant)
            if cancel is not None:
                sync.cancel(session, cancel, tenant_id=tenant)
            session.commit()
            whose = ALL_TENANTS if tenant is None else tenant
            found = sync.runs(session, whose, limit=limit)
            output.items(found)
            show.runs(output, found)
    return 0


@contextmanager
def _followed(
    output: show.Output, db: str, sync: LedgerSync, factory: sessionmaker[Session], *, queued: bool = False
) -> Iterator[OnProgress]:
    """A bar that follows a run; whoever interrupts it is told how to go on, or that a queue does."""
    run_ids: list[int] = []

    def remember(snapshot: Snapshot) -> None:
        if not run_ids and snapshot.run_id is not None:
            run_ids.append(snapshot.run_id)

    try:
        with output.progress() as follow:
            yield together(remember, follow)
    except KeyboardInterrupt:
        if run_ids:
            with factory() as session:
                state = sync.progress(session, run_ids[0]).state
            next_step = f"{run_ids[0]} --db {masked(db)}"
            if state == "cancelled":
                became = "was cancelled; what it had written stays."
            elif queued:
                became = f"goes on in the queue. To have it stop: ledger-sync runs --pause {next_step}"
            else:
                became = f"is {state}; what it had written stays. To go on: ledger-sync runs --resume {next_step}"
            sys.stderr.write(f"ledger-sync: Run {run_ids[0]} {became}\n")
            raise typer.Exit(2) from None
        raise


def _reported(output: show.Output, report: RunReport) -> int:
    output.document([report])
    show.run_report(output, report)
    return 1 if report.errors or report.clean is False or report.state != "completed" else 0


@app.command()
def worker(
    queue: Annotated[Kind, typer.Option("--queue", help="The job queue to work for.")],
    db: Db = DEFAULT_DB,
    broker: Broker = DEFAULT_BROKER,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=64, help="So many slices at once.")] = 2,
    account: Accounts = None,
    as_json: Json = False,
) -> int:
    """Work on the backfills of a job queue, and wake those whose workers have died, until Ctrl-C."""
    sync = LedgerSync(settings_of(account))
    with books(db) as (_, factory), queue_of(queue, db, broker, sync, factory) as queueing:
        show.Output(as_json).say(f"Working for {queue} on {show.plain(masked(db))} until Ctrl-C.")
        queueing.work(concurrency)
    return 0
