"""History into the subledger, in the background: start, look how far it is, pause, cancel, resume.

A run is a row in the database, so any process of the backend can be asked for its progress, and told to stop.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException

from ledger_sync import Progress
from ledger_sync.errors import RunStateError

from .backend import Books, Tenant
from .schemas import BackfillIn

router = APIRouter(prefix="/backfills")


@router.get("/{run_id}")
async def progress(run_id: int, books: Books, tenant: Tenant) -> Progress:
    """How far a run is; ask as often as you like."""
    async with books.sessions() as session:
        try:
            return await session.run_sync(books.sync.progress, run_id, tenant_id=tenant)
        except RunStateError as error:
            raise HTTPException(404, str(error)) from None


Run = Annotated[Progress, Depends(progress)]


@router.post("", status_code=202)
async def start(wanted: BackfillIn, books: Books, tenant: Tenant) -> Progress:
    run_id = await books.sync.astart(
        books.sessions, tenant_id=tenant, since=wanted.since, until=wanted.until, dry_run=wanted.dry_run
    )
    await books.work_on(run_id, tenant)
    return await progress(run_id, books, tenant)


@router.post("/{run_id}/resume", status_code=202)
async def resume(run_id: int, books: Books, tenant: Tenant, run: Run) -> Progress:
    """Go on with a run that was paused, has failed, or whose process has died."""
    await books.work_on(run_id, tenant)
    return await progress(run_id, books, tenant)


@router.post("/{run_id}/pause", status_code=202)
async def pause(run_id: int, books: Books, tenant: Tenant, run: Run) -> Progress:
    """Have a run stop after its present batch."""
    async with books.transaction() as session:
        await session.run_sync(books.sync.pause, run_id, tenant_id=tenant)
    return await progress(run_id, books, tenant)


@router.post("/{run_id}/cancel", status_code=202)
async def cancel(run_id: int, books: Books, tenant: Tenant, run: Run) -> Progress:
    """Have a run stop after its present batch, for good. What is written stays."""
    async with books.transaction() as session:
        await session.run_sync(books.sync.cancel, run_id, tenant_id=tenant)
    return await progress(run_id, books, tenant)
