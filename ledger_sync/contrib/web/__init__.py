"""A backfill watched live: HTTP, Socket.IO and a console, mounted in a backend or alone (extra ``web``).

``create_app`` makes an ASGI application around a ``LedgerSync``, which knows nothing of it; whoever asks is told by the
host's ``authenticate``.
Web processes follow the tables of the runs, so that any number of them see the same, whoever does the work.
"""

from ledger_sync.contrib.web.app import WebApp, create_app
from ledger_sync.contrib.web.auth import Authenticate, Principal, with_token

__all__ = ["Authenticate", "Principal", "WebApp", "create_app", "with_token"]
