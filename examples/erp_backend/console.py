"""The console of ledger_sync under ``/ledger``: whoever has the backend's token sees and syncs every company's books.

A real backend asks its own users' sessions here, and gives each the companies that are theirs.
"""

from __future__ import annotations

from sqlalchemy import select

from ledger_sync.contrib.web import Principal, WebApp, create_app, with_token

from .backend import Backend
from .posting import Company


def console_of(backend: Backend, token: str) -> WebApp:
    """The console over a backend's books."""

    async def bookkeeper() -> Principal:
        async with backend.sessions() as session:
            companies = await session.scalars(select(Company.id).order_by(Company.id))
            return Principal("bookkeeper", tuple(companies), frozenset({"read", "sync"}))

    return create_app(backend.sync, backend.sessions, with_token(token, bookkeeper), health=backend.health)
