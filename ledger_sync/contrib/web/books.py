"""The books behind the application: sessions of the host's factory, read without holding up the event loop.

A factory makes plain sessions, which work in threads, or is an ``async_sessionmaker``, whose sessions work in the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from sqlalchemy.orm import Session

from ledger_sync import LedgerSync
from ledger_sync.event_loop import in_event_loop, is_asynchronous
from ledger_sync.runs import SessionFactory, retried

T = TypeVar("T")

READERS: Final = 8
"""So many look into the database at once; the others wait."""

RETRIES: Final = 5
"""So often what met a busy database is tried again: two seconds in all."""


class Books:
    """A ``LedgerSync`` and the factory of the host's sessions."""

    def __init__(self, sync: LedgerSync, factory: Any) -> None:
        self.sync = sync
        self.factory = factory
        self._threads = _threads()

    def close(self) -> None:
        """Let the threads end when their work is done. Whoever asks after that has new ones."""
        self._threads.shutdown(wait=False)
        self._threads = _threads()

    async def read(self, work: Callable[[Session], T]) -> T:
        """Call something with a session, which is rolled back."""

        def look(factory: SessionFactory) -> T:
            with factory() as session:
                return work(session)

        return await self._do(look)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Call something with a session, and commit; tried again when the database is busy."""

        def attempt(factory: SessionFactory) -> T:
            with factory() as session:
                result = work(session)
                session.commit()
                return result

        return await self._do(lambda factory: retried(RETRIES, attempt, factory))

    async def _do(self, work: Callable[[SessionFactory], T]) -> T:
        if is_asynchronous(self.factory):
            return await in_event_loop(work, self.factory)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, self.factory)


def _threads() -> ThreadPoolExecutor:
    # of their own: what somebody reads holds up neither the runs nor the host's own threads
    return ThreadPoolExecutor(READERS, thread_name_prefix="ledger-sync web")
