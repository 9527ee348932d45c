"""The ready-made models by the same handles, to be compared with."""

from __future__ import annotations

from ledger_sync import models
from ledger_sync.settings import DEFAULT_CONTROL_ACCOUNTS
from tests.hosts.kit import Host

READY = Host(
    name="ready",
    metadata=models.Base.metadata,
    binding=dict,
    controls=DEFAULT_CONTROL_ACCOUNTS,
    tenants=("acme", "beta"),
    unpost=lambda entry: setattr(entry, "status", "draft"),
    strange_source=lambda session: ("payroll", 1),
    missing_key=4711,
)
