"""Runs what works in batches from async code.

With an asynchronous session factory it runs in the event loop, where each wait for the database gives way to others;
with a plain one, in a thread. Either way a callback may be a coroutine function.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from ledger_sync.errors import ConfigurationError
from ledger_sync.progress import OnProgress, Progress, asynchronous, is_coroutine
from ledger_sync.waiting import awaited

T = TypeVar("T")

OnProgressOrAsync = OnProgress | Callable[[Progress], Awaitable[object]]


async def in_event_loop(work: Callable[..., T], factory: Any, *arguments: Any, **named: Any) -> T:
    """Await what a function that takes a session factory returns."""
    callback = named.get("on_progress")
    is_async = is_coroutine(callback)
    if not is_asynchronous(factory):
        if callback is not None and is_async:
            named["on_progress"] = asynchronous(callback)
        return await asyncio.to_thread(work, factory, *arguments, **named)
    if named.get("executor") is not None:
        raise ConfigurationError(
            "An executor's workers cannot share sessions of this event loop. Give a factory of plain sessions."
        )
    if callback is not None and is_async:
        named["on_progress"] = lambda snapshot: awaited(callback(snapshot))
    from sqlalchemy.util import greenlet_spawn

    def sessions() -> Session:
        session: Session = factory().sync_session
        return session

    return await greenlet_spawn(work, sessions, *arguments, **named)


def is_asynchronous(factory: Any) -> bool:
    """Whether a factory makes ``AsyncSession``s; whoever has one has imported SQLAlchemy's asyncio support."""
    asynchronous_sessions = sys.modules.get("sqlalchemy.ext.asyncio")
    if asynchronous_sessions is None:
        return False
    kinds = (asynchronous_sessions.async_sessionmaker, asynchronous_sessions.async_scoped_session)
    return isinstance(factory, kinds)
