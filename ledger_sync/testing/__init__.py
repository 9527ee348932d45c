"""What a host needs to test its own integration.

``assert_in_sync`` ends a test: the books are in sync, or it fails with what is wrong and the vouchers. ``Books`` makes
documents and posted entries from plain arguments, with the classes that a ``LedgerSync`` is bound to. ``histories`` are
Hypothesis strategies of what happens in books, which ``Books.play`` plays.
"""

from ledger_sync.testing.books import Booked, Books, Line, fill
from ledger_sync.testing.histories import histories
from ledger_sync.testing.in_sync import assert_in_sync
from ledger_sync.testing.steps import History

__all__ = ["Booked", "Books", "History", "Line", "assert_in_sync", "fill", "histories"]
