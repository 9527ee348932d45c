"""Who does the work of the runs that are started here: slices of ``advance``, so many runs at once.

Nothing depends on this process: the state is in the run's tables. Whatever is killed leaves a run whose lease passes,
and any web process that looks for such runs goes on with it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from sqlalchemy.orm import Session

from ledger_sync import ALL_TENANTS
from ledger_sync.contrib.web.books import Books
from ledger_sync.errors import LedgerSyncError
from ledger_sync.models.types import utc_now
from ledger_sync.workbench import Health, Poster

log = logging.getLogger("ledger_sync")

SLICE_SECONDS: Final = 5.0
"""How long one call of ``advance`` works, so that a process that ends does so soon."""


class Crew:
    """Works on runs in the background of one event loop.

    :param at_once: how many runs at the most; the others wait. 0: none, other workers do it.
    :param adopting: whether runs that have died are gone on with.
    :param poster: posts documents, as of ``LedgerSync.backfill``.
    :param health: holds a run, as there.
    """

    def __init__(
        self, books: Books, *, at_once: int, adopting: bool, poster: Poster | None, health: Health | None
    ) -> None:
        self.books = books
        self._staff = {"poster": poster, "health": health}
        self.workers = at_once
        self.adopting = adopting
        self._at_once = asyncio.Semaphore(at_once)
        self._at_work: dict[int, asyncio.Task[None]] = {}

    def take(self, run_id: int) -> None:
        """Work on a run, unless that is done here already."""
        if self.workers and run_id not in self._at_work:
            task = asyncio.create_task(self._work(run_id), name=f"ledger-sync run {run_id}")
            self._at_work[run_id] = task
            task.add_done_callback(lambda _: self._at_work.pop(run_id, None))

    async def _work(self, run_id: int) -> None:
        async with self._at_once:
            while True:
                try:
                    progress = await self.books.sync.aadvance(self.books.factory, run_id, SLICE_SECONDS, **self._staff)
                except LedgerSyncError as error:
                    log.warning("Ledger sync: run %s was left, since it cannot be worked on here: %s", run_id, error)
                    break
                except Exception:
                    # the run is failed and says why, or it is running and is found again once its lease has passed
                    log.exception("Ledger sync: run %s was left", run_id)
                    break
                if progress.over:
                    break

    async def adopt(self) -> None:
        """Go on with runs whose workers have died."""
        if not (self.workers and self.adopting):
            return

        def dead(session: Session) -> list[Any]:
            runs = self.books.sync.runs(session, ALL_TENANTS, limit=None, running=True)
            now = utc_now()
            return [r.run_id for r in runs if r.kind == "backfill" and r.lease_until and r.lease_until <= now]

        for run_id in await self.books.read(dead):
            self.take(run_id)

    async def stop(self) -> None:
        """Leave all runs; their slices are broken off, and roll back what they have not committed."""
        tasks = list(self._at_work.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
