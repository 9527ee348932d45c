"""The books behind the application: sessions of the host's factory, read without holding up the event loop.

A factory makes plain sessions, which work in threads, or is an ``async_sessionmaker``, whose sessions work in the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from ledger_sync import LedgerSync
from ledger_sync.contrib.web.problems import ProblemError
from ledger_sync.dialects import fault_of
from ledger_sync.event_loop import is_asynchronous

T = TypeVar("T")

READERS: Final = 8
"""So many look into the database at once; the others wait."""

PAUSES: Final = (0.1, 0.3, 1.0, 0.0)
"""Seconds after each attempt that met a busy database."""


class Books:
    """A ``LedgerSync`` and the factory of the host's sessions."""

    def __init__(self, sync: LedgerSync, factory: Any) -> None:
        self.sync = sync
        self.factory = factory
        # of its own: what somebody reads holds up neither the runs nor the host's own threads
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="ledger-sync web")

    async def read(self, work: Callable[[Session], T]) -> T:
        """Call something with a session, which is rolled back."""
        return await self._do(work, commit=False)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Call something with a session, and commit; tried again when the database is busy.

        :raises ProblemError: it stays so.
        """
        for pause in PAUSES:
            try:
                return await self._do(work, commit=True)
            except DBAPIError as error:
                if fault_of(error) != "passing":
                    raise
            await asyncio.sleep(pause)
        raise ProblemError(503, "Busy", "The database is busy with another transaction.", "Try again in a moment.")

    async def _do(self, work: Callable[[Session], T], *, commit: bool) -> T:
        def done(session: Session) -> T:
            result = work(session)
            if commit:
                session.commit()
            return result

        if is_asynchronous(self.factory):
            async with self.factory() as asynchronous:
                result: T = await asynchronous.run_sync(done)
                return result

        def in_thread() -> T:
            with self.factory() as session:
                return done(session)

        return await asyncio.get_running_loop().run_in_executor(self._threads, in_thread)
