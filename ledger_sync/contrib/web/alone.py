"""The application alone on loopback, for whoever has the database and no backend: one token, everybody's books."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from pydantic import BaseModel
from sqlalchemy.orm import Session

from ledger_sync import ALL_TENANTS, LedgerSync
from ledger_sync.contrib.web.app import WebApp, create_app
from ledger_sync.contrib.web.auth import RIGHTS, Principal, with_token
from ledger_sync.errors import ConfigurationError

TOKEN_VARIABLE: Final = "LEDGER_SYNC_TOKEN"
TOKEN_MIN: Final = 16
TENANTS_SECONDS: Final = 10.0
"""For so long it is known whose books there are."""
HOST: Final = "127.0.0.1"
GRACE_SECONDS: Final = 3
"""For so long those who are connected may end by themselves when the server stops."""


def token_of_environment() -> str | None:
    """The token that the environment gives; None if it gives none.

    Without what surrounds it, a line's end, say: nobody can send that in a header.

    :raises ConfigurationError: it is too short to keep anybody out, or no header can hold it.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    token = None if given is None else given.strip()
    if token is not None and not (token.isascii() and token.isprintable()):
        raise ConfigurationError(f"{TOKEN_VARIABLE} has characters that no header can hold. Give letters and digits.")
    if token is not None and len(token) < TOKEN_MIN:
        raise ConfigurationError(f"{TOKEN_VARIABLE} has fewer than {TOKEN_MIN} characters. Give a longer token.")
    return token


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(24)


class Listening(BaseModel):
    """Where the page is, and the token if it was made for this time."""

    address: str
    token: str | None


def app_alone(
    sync: LedgerSync, factory: Callable[[], Session], token: str, name: str, *, tenant: Any = None, **more: Any
) -> WebApp:
    """An application whose one token may do everything in one tenant's books, or in everybody's.

    ``more`` is for ``create_app``.
    """

    known: tuple[Any, ...] = () if tenant is None else (tenant,)
    looked = -float("inf")

    def everybody() -> tuple[Any, ...]:
        with factory() as session:
            return sync.tenants(session, ALL_TENANTS)

    async def principal() -> Principal:
        nonlocal known, looked
        if tenant is None and sync.binding.has_tenants and time.monotonic() - looked > TENANTS_SECONDS:
            known, looked = await asyncio.to_thread(everybody), time.monotonic()
        return Principal(name=name, tenants=known, rights=frozenset(RIGHTS))

    # whoever serves one tenant's books does not work on others'
    return create_app(sync, factory, with_token(token, principal), adopting=tenant is None, **more)


def serve(app: WebApp, port: int, on_start: Callable[[str], object]) -> None:
    """Serve an application on loopback until it is interrupted.

    :param port: 0 for any that is free.
    :param on_start: is called with the address of the page when the server listens.
    :raises OSError: the port is taken.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_SECONDS)
        _Server(config, lambda: on_start(f"http://{HOST}:{listener.getsockname()[1]}/")).run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_start: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._on_start()
