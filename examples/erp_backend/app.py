"""Puts the backend together: engine, session factory with the sync attached, routes, and errors as HTTP knows them.

``create_app`` is what a server calls. The two lines that an ERP needs are in it: ``LedgerSync()`` and ``attach``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from ledger_sync import LedgerSync, Settings, errors
from ledger_sync.dialects import open_engine
from ledger_sync.models import Base

from . import backfills, reports, routes
from .backend import Backend
from .console import console_of
from .posting import ErpBase

DATABASE_URL: Final = "sqlite+aiosqlite:///erp.db"

# What went wrong in the books is the client's to mend, and the text says how. A ConfigurationError or a BulkWriteError
# is a fault of this program, so it is not among them and ends as a 500.
STATUSES: Final[Mapping[type[errors.LedgerSyncError], int]] = {
    errors.NotInTheBooksError: 404,
    errors.EntryError: 409,
    errors.DocumentInUseError: 409,
    errors.RunActiveError: 409,
    errors.RunStateError: 409,
    errors.UnbalancedEntryError: 422,
    errors.AmountError: 422,
    errors.TextError: 422,
    errors.CutOverError: 422,
}


def create_app(
    engine: AsyncEngine | None = None,
    settings: Settings | None = None,
    health: Callable[[], str | None] | None = None,
    token: str | None = None,
) -> FastAPI:
    """The application.

    :param engine: the database; unless given, that of the URL in ``ERP_DATABASE_URL``, a SQLite file by default.
    :param settings: of the ledger sync; Norwegian defaults.
    :param health: asked between a backfill's batches: None, or why it must wait (because it is Monday morning, say).
    :param token: opens the console under ``/ledger``; unless given, that in ``ERP_CONSOLE_TOKEN``. Without one there is
        none.
    """
    if engine is None:
        # open_engine gives SQLite transactions that hold what they promise; for other databases it is create_engine
        engine = AsyncEngine(open_engine(os.environ.get("ERP_DATABASE_URL", DATABASE_URL)))
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    sync = LedgerSync(settings)
    sync.attach(sessions)
    backend = Backend(sessions, sync, health)
    token = token or os.environ.get("ERP_CONSOLE_TOKEN")
    console = console_of(backend, token) if token else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as connection:  # where there are migrations, they do that
            await connection.run_sync(Base.metadata.create_all)
            await connection.run_sync(ErpBase.metadata.create_all)
        try:
            yield
        finally:
            if console is not None:
                await console.aclose()
            await backend.stop()
            await engine.dispose()

    app = FastAPI(title="ERP backend", lifespan=lifespan)
    app.state.backend = backend
    for module in (routes, reports, backfills):
        app.include_router(module.router)
    if console is not None:
        app.mount("/ledger", console)
    for error_class, status in STATUSES.items():
        app.add_exception_handler(error_class, _answer(status))
    return app


def _answer(status: int) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    async def answer(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status)

    return answer
