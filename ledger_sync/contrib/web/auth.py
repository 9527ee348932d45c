"""Who asks, whose books they may see, and what they may do: told by the host, for each token, at every call.

What is another tenant's is not there: whoever asks for it gets the same answer as for what nobody has.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from inspect import isawaitable
from typing import Any, Final, Literal, TypeAlias

from ledger_sync.contrib.web.problems import ProblemError
from ledger_sync.errors import ConfigurationError
from ledger_sync.logs import log
from ledger_sync.models.types import utc_now

Right = Literal["read", "sync", "settle"]

RIGHTS: Final[tuple[Right, ...]] = ("read", "sync", "settle")
"""To see; to start and steer runs; to settle by hand and take apart."""


@dataclass(frozen=True)
class Principal:
    """Somebody whom the host knows.

    :param name: who they are, for the list of runs, and for what they settle by hand.
    :param tenants: whose books they may see, as the books name tenants; ignored by a host without tenants.
    :param rights: what they may do there.
    :param expires_at: when their token ends, aware; their sockets end with it. None: not by itself.
    :raises ConfigurationError: ``tenants`` is one text, or ``expires_at`` naive.
    """

    name: str
    tenants: tuple[Any, ...] = ()
    rights: frozenset[Right] = field(default_factory=lambda: frozenset[Right]({"read"}))
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        if isinstance(self.tenants, str):
            raise ConfigurationError(f"Principal(tenants={self.tenants!r}): give a tuple of tenants, not a text.")
        if self.expires_at is not None and self.expires_at.utcoffset() is None:
            raise ConfigurationError(
                f"Principal(expires_at={self.expires_at}): give an aware datetime, datetime.now(timezone.utc) say."
            )

    @property
    def expired(self) -> bool:
        """Whether their token has ended."""
        return self.expires_at is not None and self.expires_at <= utc_now()


Authenticate: TypeAlias = Callable[[str], Principal | Awaitable[Principal | None] | None]
"""Whose token it is; None if it is nobody's. May be a coroutine function."""


def refuse_without(right: Right, principal: Principal) -> None:
    """:raises ProblemError: somebody has not that right."""
    if right not in principal.rights:
        raise ProblemError(403, "Not allowed", f"You have not the right to {right}.", "Ask the host for it.")


async def principal_of(authenticate: Authenticate, token: str) -> Principal:
    """Who has a token.

    :raises ProblemError: nobody, or no longer; or the host cannot say just now, which is a 503.
    """
    try:
        answer = authenticate(token) if token else None
        principal = await answer if isawaitable(answer) else answer
    except Exception:
        log.exception("Ledger sync: a token could not be shown to the host")
        raise ProblemError(503, "Failed", "The token could not be looked at.", "Try again in a moment.") from None
    if principal is None:
        raise ProblemError(
            401, "Not signed in", "The token is nobody's.", "Give a valid token: Authorization: Bearer …"
        )
    if principal.expired:
        raise ProblemError(401, "Signed out", "The token has expired.", "Sign in again for a new one.")
    return principal


async def principal_of_header(authenticate: Authenticate, header: str | None) -> Principal:
    """Who has the token of an ``Authorization`` header.

    :raises ProblemError: there is none, it is of another scheme, or nobody's.
    """
    remedy = "Send the header Authorization: Bearer …"
    if header is None:
        raise ProblemError(401, "Not signed in", "The request has no token.", remedy)
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise ProblemError(401, "Not signed in", "The Authorization header is of another scheme.", remedy)
    return await principal_of(authenticate, token.strip())


def with_token(token: str, principal: Callable[[], Principal | Awaitable[Principal]]) -> Authenticate:
    """Let one token in, which is compared in constant time: for an application that runs alone.

    :param principal: is asked at every call who has it, since tenants may come.
    """
    expected = token.encode()

    def authenticate(given: str) -> Principal | Awaitable[Principal | None] | None:
        return principal() if hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected) else None

    return authenticate
