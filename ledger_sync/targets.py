"""What ``attach`` can be given, and what of it takes the event listeners.

Never the ``Session`` class itself: every other part of the process has its sessions from there. An asynchronous target
has its listeners on the synchronous sessions beneath it.
"""

from __future__ import annotations

import sys
from typing import Any

from sqlalchemy.orm import Session, scoped_session, sessionmaker

from ledger_sync.errors import ConfigurationError


def listenable(target: Any) -> Any:
    """What takes the event listeners of a target.

    :raises ConfigurationError: the target is SQLAlchemy's own ``Session`` class, or has no sessions.
    """
    if target is Session:
        raise ConfigurationError(
            "Session is every session of the process. Attach your sessionmaker, or a subclass of Session."
        )
    # asyncio support needs an extra of SQLAlchemy's; whoever has an asynchronous target has imported it
    asynchronous = sys.modules.get("sqlalchemy.ext.asyncio")
    if asynchronous is not None:
        if isinstance(target, asynchronous.AsyncSession):
            return target.sync_session
        if isinstance(target, asynchronous.async_scoped_session):
            return listenable(target.session_factory)
        if isinstance(target, asynchronous.async_sessionmaker):
            # listeners go on a synchronous class, and the default one is every session of the process
            session_class = target.kw.get("sync_session_class", Session)
            if session_class is Session:
                session_class = type("LedgerSyncSession", (Session,), {})
                target.configure(sync_session_class=session_class)
            return session_class
    if isinstance(target, scoped_session):
        return listenable(target.session_factory)
    if isinstance(target, sessionmaker | Session) or (isinstance(target, type) and issubclass(target, Session)):
        return target
    raise ConfigurationError(
        f"{target!r} has no sessions to listen to. Attach a sessionmaker, async_sessionmaker, scoped_session, "
        "a subclass of Session, or one session."
    )
