"""Waiting that does not hold up an event loop.

Batches run in threads, processes, or, with an asynchronous session factory, in the event loop's own thread, where each
wait for the database gives way to others. So must every other wait.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


def pause(seconds: float) -> None:
    """Wait for so long; within a batch of an asynchronous session, let the event loop go on meanwhile."""
    if in_event_loop():
        awaited(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


def in_event_loop() -> bool:
    """Whether the caller runs within an asynchronous session's call, so that it can await."""
    # asyncio support needs an extra of SQLAlchemy's; whoever runs within it has imported it
    if "sqlalchemy.ext.asyncio" not in sys.modules:
        return False
    from sqlalchemy.util.concurrency import in_greenlet

    return in_greenlet()


def awaited(awaitable: Awaitable[T]) -> T:
    """The result of an awaitable, for which the caller gives way to the event loop."""
    from sqlalchemy.util import await_only

    return await_only(awaitable)
