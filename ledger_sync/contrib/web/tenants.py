"""Whose books a call is about: always one of the principal's own, under the key that the books have for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ledger_sync import LedgerSync, RunReport
from ledger_sync.binding import attribute
from ledger_sync.contrib.keys import key_of
from ledger_sync.contrib.web.auth import Principal
from ledger_sync.contrib.web.problems import ProblemError, not_there
from ledger_sync.progress import AllTenants

ALONE: Final = "books"
"""The room of a host without tenants."""


class Tenants:
    """The tenants of one ``LedgerSync``, if it has any."""

    def __init__(self, sync: LedgerSync) -> None:
        self.several = sync.binding.has_tenants
        self._type = attribute(sync.binding.entry, "tenant_id").type if self.several else None

    def of(self, principal: Principal) -> Sequence[Any]:
        """Whose books somebody may see, as ``tenant_id``; a host without tenants has one, which is called None.

        What names nobody, or everybody, opens nothing.
        """
        if self._type is None:
            return [None]
        # a token's text may stand for an id of another type
        named = [key_of(one, self._type) if isinstance(one, str) else one for one in principal.tenants]
        return [tenant for tenant in named if tenant is not None and not isinstance(tenant, AllTenants)]

    def one(self, principal: Principal, asked: str | None) -> Any:
        """The tenant that is asked for; the principal's only one if none is named.

        :raises ProblemError: it is not theirs, or they have several and named none, or they have none.
        """
        own = self._some(principal)
        if asked is not None:
            found = [tenant for tenant in own if self.several and str(tenant) == asked]
            if not found:
                raise not_there()
            return found[0]
        if len(own) != 1:
            raise ProblemError(
                422, "Which tenant?", f"You have the books of {len(own)} tenants.", "Name one: ?tenant=…"
            )
        return own[0]

    def own(self, principal: Principal, asked: Any) -> Any:
        """The tenant whose room somebody joins: the one asked for if it is theirs, otherwise their first.

        :raises ProblemError: they have none.
        """
        own = self._some(principal)
        return next((tenant for tenant in own if str(tenant) == str(asked)), own[0])

    def _some(self, principal: Principal) -> Sequence[Any]:
        """:raises ProblemError: they have none."""
        own = self.of(principal)
        if not own:
            raise ProblemError(403, "No books", "You have the books of no tenant.", "Ask the host for access.")
        return own

    def shown(self, tenant: Any) -> str | None:
        """How a tenant is named outside."""
        return str(tenant) if self.several else None

    def room(self, tenant: Any) -> str:
        """The name of a tenant's room."""
        return f"tenant {tenant}" if self.several else ALONE

    def room_of_run(self, report: RunReport) -> str | None:
        """The room that may see a run; none may see one over everybody's books."""
        if not self.several:
            return ALONE
        return None if report.tenant_id is None else self.room(report.tenant_id)
