"""One set of models under one set of settings, and whose books in them are meant.

What every part of the public face begins with.
"""

from __future__ import annotations

from typing import Any

from ledger_sync.attributes import ONE_TENANT
from ledger_sync.binding import Binding
from ledger_sync.errors import ConfigurationError
from ledger_sync.progress import ALL_TENANTS, AllTenants
from ledger_sync.settings import Settings
from ledger_sync.writer import Writer


class Books:
    """Models and settings that fit together."""

    def __init__(self, binding: Binding, settings: Settings) -> None:
        binding.check(settings)
        self.binding, self.settings = binding, settings
        self._writer = Writer(binding, settings)

    def _whose(self, tenant_id: Any) -> Any:
        """The tenant that is meant, or ``ALL_TENANTS``: always asked for, but by a host without tenants."""
        if not self.binding.has_tenants:
            if tenant_id not in {None, ONE_TENANT, ALL_TENANTS}:
                raise ConfigurationError(
                    f"These books have no tenants, so tenant_id={tenant_id!r} is nobody's. Leave it out."
                )
            return ONE_TENANT
        if tenant_id is None:
            raise ConfigurationError("These books have tenants: say whose. Give tenant_id=…")
        return tenant_id

    def _one(self, tenant_id: Any) -> Any:
        """The one tenant that is meant."""
        whose = self._whose(tenant_id)
        if isinstance(whose, AllTenants):
            raise ConfigurationError("ALL_TENANTS is not one tenant. Ask for one tenant after the other.")
        return whose
