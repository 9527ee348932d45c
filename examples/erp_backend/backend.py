"""What every request needs: the session factory, the sync, whose books it is about, and a way to work on backfills."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, HTTPException, Request
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from ledger_sync import LedgerSync, Progress, RunReport
from ledger_sync.errors import RunStateError

from .posting import Company

log = logging.getLogger("erp_backend")

T = TypeVar("T")


@dataclass
class Backend:
    """One application's database and sync. ``tasks``: the backfills that this process works on, with their runs."""

    sessions: async_sessionmaker[AsyncSession]
    sync: LedgerSync
    health: Callable[[], str | None] | None = None
    tasks: dict[asyncio.Task[RunReport], int] = field(default_factory=dict)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One transaction that writes: committed at the end of the block, rolled back when it raises."""
        async with self.sessions.begin() as session:
            # SQLite has one writer, who must say so before reading; other databases pass over the option
            await session.connection(execution_options={"ledger_sync_begin": "IMMEDIATE"})
            yield session

    async def work_on(self, run_id: int, tenant: str) -> None:
        """Work on a backfill in the background. Returns once the run is taken over, or raises why it can't be."""
        taken = asyncio.get_running_loop().create_future()

        def tell(progress: Progress) -> None:
            if not taken.done():
                taken.set_result(None)

        work = self.sync.aresume(self.sessions, run_id, tenant_id=tenant, on_progress=tell, health=self.health)
        task = asyncio.create_task(work)
        self.tasks[task] = run_id
        task.add_done_callback(self._ended)
        await asyncio.wait({task, taken}, return_when=asyncio.FIRST_COMPLETED)
        if not taken.done():
            task.result()

    async def stop(self) -> None:
        """Pause this process's backfills and wait for their present batches; whoever resumes them goes on there."""
        for run_id in tuple(self.tasks.values()):
            async with self.transaction() as session:
                with suppress(RunStateError):  # it is over already
                    await session.run_sync(self.sync.pause, run_id)
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[RunReport]) -> None:
        del self.tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            # the run's row has the note, and whoever polls its progress sees it; here is the traceback
            log.error("A backfill stopped: %s", error, exc_info=error)


def get_backend(request: Request) -> Backend:
    """The backend of the application that answers."""
    backend: Backend = request.app.state.backend
    return backend


async def get_tenant(
    backend: Annotated[Backend, Depends(get_backend)], x_tenant: Annotated[str, Header(min_length=1, max_length=64)]
) -> str:
    """Whose books a request is about. Every query below is restricted to it."""
    # Authentication belongs here: who asks is read from a token, and whether that person may see these books is
    # decided, before the tenant is handed on. The name of that person is the ``actor`` of what is done by hand.
    async with backend.sessions() as session:
        if await session.get(Company, x_tenant) is None:
            raise HTTPException(404, f"Company {x_tenant} is not registered. POST it to /companies first.")
    return x_tenant


Books = Annotated[Backend, Depends(get_backend)]
Tenant = Annotated[str, Depends(get_tenant)]


async def find(session: AsyncSession, model: type[T], key: int, tenant: str) -> T:
    """What has this key in the tenant's books; whether it is in another's is never told."""
    of: Any = model
    found: T | None = await session.scalar(select(model).where(of.id == key, of.tenant_id == tenant))
    if found is None:
        raise HTTPException(404, f"{model.__name__} {key} is not in the books of {tenant}. Check the id.")
    return found
