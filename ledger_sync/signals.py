"""What the hook tells the rest of an application, as blinker signals in one namespace.

Two kinds. **In the transaction**: ``flush_synced`` is sent by the flush itself, with the session; a
receiver that raises fails the flush. **After the commit**: all others are sent once, after the outermost
commit, as plain data; a receiver that raises is logged and hurts nobody. They are sent at most once: a
crash after the commit loses them, so whoever must not miss one reads the tables; of items created or changed
an outbox row can be written in ``flush_synced``. The sender is the ``LedgerSync`` instance. Coroutine receivers
are not called.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Final

from blinker import NamedSignal, Namespace

from ledger_sync.logs import log

_namespace: Final = Namespace()

flush_synced: Final = _namespace.signal(
    "flush-synced",
    doc="""In the transaction, after a flush that created or changed items; not of one that only removed or settled
    some. Arguments: ``session``, and ``items``, a tuple of mappings as in ``item_created``.""",
)
item_created: Final = _namespace.signal(
    "item-created",
    doc="""After the commit. An open item was written. Arguments: ``item``, a mapping with tenant_id, ledger,
    general_ledger_id, general_ledger_line_id, account_number, party_id, source_type, source_id, kind, amount.""",
)
item_changed: Final = _namespace.signal(
    "item-changed",
    doc="""After the commit. An open item was rewritten because its document or link changed. Arguments:
    ``item`` as in ``item_created``.""",
)
item_removed: Final = _namespace.signal(
    "item-removed",
    doc="""After the commit. An open item was taken away because its line lost its source. Arguments: ``item``,
    a mapping with tenant_id, ledger, general_ledger_id, general_ledger_line_id.""",
)
item_settled: Final = _namespace.signal(
    "item-settled",
    doc="""After the commit. An open item was settled, wholly or in part. Arguments: ``item`` as in
    ``item_created`` with remaining_amount, status and settled_amount (positive).""",
)
item_reopened: Final = _namespace.signal(
    "item-reopened",
    doc="""After the commit. Of an item more is open than before: a payment was reversed, or unsettled. Arguments:
    ``item`` as in ``item_settled``; its settled_amount is negative.""",
)
line_skipped: Final = _namespace.signal(
    "line-skipped",
    doc="""After the commit. A control line has no open item. Arguments: ``line``, a mapping with tenant_id,
    ledger, voucher, general_ledger_id, general_ledger_line_id, account_number, amount, reason.""",
)
sync_failed: Final = _namespace.signal(
    "sync-failed",
    doc="""After the commit, with ``on_error="record"`` only. The subledger of an entry could not be written, or what
    a document's edit means for it could not be told. Arguments: ``failure``, a mapping with tenant_id, ledger,
    general_ledger_id, or source_type and source_id of the document, error, message.""",
)

run_progress: Final = _namespace.signal(
    "run-progress",
    doc="""While a backfill works, with ``on_progress=signalled(sync)`` only. Arguments: ``progress``, a ``Progress``.
    The sender is what was given to ``signalled``. A receiver that raises is treated as a callback that does.""",
)

books_verified: Final = _namespace.signal(
    "books-verified",
    doc="""After a proof that was taken in the background, by the nightly task of a job queue. Arguments: ``proof``, a
    ``Proof``, whether it is clean or not.""",
)

AFTER_COMMIT: Final[Mapping[str, NamedSignal]] = {
    signal.name: signal
    for signal in (
        item_created,
        item_changed,
        item_removed,
        item_settled,
        item_reopened,
        line_skipped,
        sync_failed,
    )
}


def anybody_listens(name: str, sender: object) -> bool:
    """Whether a signal would reach anybody, so that its data is worth reading."""
    signal = AFTER_COMMIT[name]
    return bool(signal.receivers) and any(True for _ in signal.receivers_for(sender))


def send_safely(signal: NamedSignal, sender: object, **arguments: object) -> None:
    """Send to each receiver by itself: one that raises is logged, and the others still hear.

    Coroutine functions are passed over with a warning in the log; blinker's own ``send`` raises on them.
    """
    for receiver in signal.receivers_for(sender):
        if inspect.iscoroutinefunction(receiver):
            log.warning("Ledger sync: receiver of %s is a coroutine function and was not called", signal.name)
            continue
        try:
            receiver(sender, **arguments)
        except Exception:
            log.exception("Ledger sync: a receiver of %s failed", signal.name)
