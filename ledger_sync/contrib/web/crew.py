"""Who works on the runs that are started here: this process, in slices of ``advance``, or a job queue's workers.

Nothing depends on this process: the state is in the run's tables. Whatever is killed leaves a run whose lease passes,
and any web process that looks for such runs goes on with it; a queue has a watch of its own.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from sqlalchemy.orm import Session

from ledger_sync import ALL_TENANTS
from ledger_sync.contrib.actors import BY_CONSOLE, has_mark, marked
from ledger_sync.contrib.queues import RunQueue
from ledger_sync.contrib.web.books import Books
from ledger_sync.errors import LedgerSyncError
from ledger_sync.logs import log
from ledger_sync.workbench import Health, Poster

SLICE_SECONDS: Final = 5.0
"""How long one call of ``advance`` works, so that a process that ends does so soon."""


class Workers(Protocol):
    """Who works on the runs that are started and resumed here. Errors as of ``LedgerSync.start`` and ``reopen``."""

    async def start(self, *, actor: str, **arguments: Any) -> int:
        """Make a run, and have it worked on; its id."""

    async def resume(self, run_id: int, *, tenant_id: Any) -> bool:
        """Have a run worked on that was paused, has failed or has died. False if it has completed already."""


class QueueWorkers:
    """Those of a job queue."""

    def __init__(self, queue: RunQueue) -> None:
        self.queue = queue

    async def start(self, *, actor: str, **arguments: Any) -> int:
        return await asyncio.to_thread(self.queue.start, actor=actor, **arguments)

    async def resume(self, run_id: int, *, tenant_id: Any) -> bool:
        return await asyncio.to_thread(self.queue.resume, run_id, tenant_id=tenant_id)


class Crew:
    """Works on runs in the background of one event loop.

    :param at_once: how many runs at the most; the others wait. 0: none, other workers do it.
    :param adopting: whether runs that a console began and that have died are gone on with.
    :param poster: posts documents, as of ``LedgerSync.backfill``.
    :param health: holds a run, as there.
    """

    def __init__(
        self, books: Books, *, at_once: int, adopting: bool, poster: Poster | None, health: Health | None
    ) -> None:
        self.books = books
        self._staff = {"poster": poster, "health": health}
        self.at_once = at_once
        self.adopting = adopting
        self._turns: asyncio.Semaphore | None = None
        self._at_work: dict[int, asyncio.Task[None]] = {}
        self._again: set[int] = set()

    async def start(self, *, actor: str, **arguments: Any) -> int:
        run_id = await self.books.sync.astart(
            self.books.factory,
            actor=marked(actor, BY_CONSOLE),
            posting=self._staff["poster"] is not None,
            **arguments,
        )
        self.take(run_id)
        return run_id

    async def resume(self, run_id: int, *, tenant_id: Any) -> bool:
        if not await self.books.sync.areopen(self.books.factory, run_id, tenant_id=tenant_id):
            return False
        self.take(run_id)
        return True

    def begin(self) -> None:
        """Belong to the running event loop."""
        self._turns = asyncio.Semaphore(self.at_once)

    def take(self, run_id: int) -> None:
        """Work on a run; if that is done here already, look again when it ends."""
        if not self.at_once:
            return
        if run_id in self._at_work:
            self._again.add(run_id)
            return
        self._again.discard(run_id)
        task = asyncio.create_task(self._work(run_id), name=f"ledger-sync run {run_id}")
        self._at_work[run_id] = task
        task.add_done_callback(lambda done: self._ended(run_id, done))

    def _ended(self, run_id: int, task: asyncio.Task[None]) -> None:
        self._at_work.pop(run_id, None)
        if run_id in self._again and not task.cancelled():
            self.take(run_id)

    async def _work(self, run_id: int) -> None:
        assert self._turns is not None
        over = False
        while not over:
            async with self._turns:  # by turns, so that no run's lease passes while it waits
                over = await self._slice(run_id)

    async def _slice(self, run_id: int) -> bool:
        """Work on a run for a while; whether there is nothing left to do here."""
        try:
            progress = await self.books.sync.aadvance(self.books.factory, run_id, SLICE_SECONDS, **self._staff)
        except LedgerSyncError as error:
            log.warning("Ledger sync: run %s was left, with an error: %s", run_id, error)
            return True
        except Exception:
            # the run is failed and says why, or it is running and is found again once its lease has passed
            log.exception("Ledger sync: run %s was left", run_id)
            return True
        return progress.over

    async def adopt(self) -> None:
        """Go on with runs of a console's whose workers have died; what others began is theirs to go on with."""
        if not (self.at_once and self.adopting):
            return

        def dead(session: Session) -> list[Any]:
            runs = self.books.sync.runs(session, ALL_TENANTS, limit=None, running=True)
            return [run.run_id for run in runs if has_mark(run, BY_CONSOLE) and run.died]

        for run_id in await self.books.read(dead):
            self.take(run_id)

    async def stop(self) -> None:
        """Leave all runs. In an event loop slices are broken off; those in threads end by themselves."""
        tasks = list(self._at_work.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
