"""Keeps the subledgers of an ERP true to its general ledger, and proves it to the last øre.

``LedgerSync`` is the way in: ``attach`` it to a session factory, ``backfill`` history, ``verify`` the result.
``ledger_sync.models`` has ready-made tables, ``ledger_sync.signals`` what the hook tells.
"""

from ledger_sync.binding import Document, Ledger
from ledger_sync.errors import ConfigurationError, LedgerSyncError
from ledger_sync.progress import ALL_TENANTS, Progress, RunReport
from ledger_sync.proof import Proof
from ledger_sync.release import __version__
from ledger_sync.settings import ControlAccount, Settings
from ledger_sync.sync import LedgerSync

__all__ = [
    "ALL_TENANTS",
    "ConfigurationError",
    "ControlAccount",
    "Document",
    "Ledger",
    "LedgerSync",
    "LedgerSyncError",
    "Progress",
    "Proof",
    "RunReport",
    "Settings",
    "__version__",
]
