"""The books behind the application: sessions of the host's factory, read without holding up the event loop.

A factory makes plain sessions, which work in threads, or is an ``async_sessionmaker``, whose sessions work in the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from ledger_sync import LedgerSync

T = TypeVar("T")


class Books:
    """A ``LedgerSync`` and the factory of the host's sessions."""

    def __init__(self, sync: LedgerSync, factory: Any) -> None:
        self.sync = sync
        self.factory = factory

    async def read(self, work: Callable[[Session], T]) -> T:
        """Call something with a session, which is rolled back."""
        return await self._do(work, commit=False)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Call something with a session, and commit."""
        return await self._do(work, commit=True)

    async def _do(self, work: Callable[[Session], T], *, commit: bool) -> T:
        def done(session: Session) -> T:
            result = work(session)
            if commit:
                session.commit()
            return result

        made = self.factory()
        if hasattr(made, "run_sync"):
            async with made as asynchronous:
                result: T = await asynchronous.run_sync(done)
                return result

        def in_thread() -> T:
            with made as session:
                return done(session)

        return await asyncio.to_thread(in_thread)
