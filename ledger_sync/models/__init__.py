"""Ready-made models (their own ``Base``), and the mixins that they are built from.

``Base.metadata.create_all(engine)`` makes all tables. An ERP that has tables of its own puts the mixins on
its classes, or binds the classes that it has; the ready-made ones are mapped when somebody asks for one of them.
"""

from typing import TYPE_CHECKING, Any

from ledger_sync.models.mixins import (
    DocumentMixin,
    InvoiceMixin,
    JournalEntryMixin,
    JournalLineMixin,
    PartyMixin,
    PaymentMixin,
    SourceLinkMixin,
)
from ledger_sync.models.own import (
    ApplicationMixin,
    DecisionMixin,
    LockMixin,
    OpenItemMixin,
    SyncErrorMixin,
    SyncRunMixin,
    SyncSegmentMixin,
    TombstoneMixin,
)
from ledger_sync.models.types import Moment, Money, Words

if TYPE_CHECKING:
    from ledger_sync.models.ready import (
        Base,
        Customer,
        CustomerApplication,
        CustomerInvoice,
        CustomerLedger,
        CustomerPayment,
        Employee,
        EmployeeApplication,
        EmployeeLedger,
        ExpenseClaim,
        JournalEntry,
        JournalLine,
        SourceLink,
        SupplierApplication,
        SupplierLedger,
        SyncDecision,
        SyncError,
        SyncLock,
        SyncRun,
        SyncSegment,
        Tombstone,
        Vendor,
        VendorInvoice,
        VendorPayment,
    )

__all__ = [
    "ApplicationMixin",
    "Base",
    "Customer",
    "CustomerApplication",
    "CustomerInvoice",
    "CustomerLedger",
    "CustomerPayment",
    "DecisionMixin",
    "DocumentMixin",
    "Employee",
    "EmployeeApplication",
    "EmployeeLedger",
    "ExpenseClaim",
    "InvoiceMixin",
    "JournalEntry",
    "JournalEntryMixin",
    "JournalLine",
    "JournalLineMixin",
    "LockMixin",
    "Moment",
    "Money",
    "OpenItemMixin",
    "PartyMixin",
    "PaymentMixin",
    "SourceLink",
    "SourceLinkMixin",
    "SupplierApplication",
    "SupplierLedger",
    "SyncDecision",
    "SyncError",
    "SyncErrorMixin",
    "SyncLock",
    "SyncRun",
    "SyncRunMixin",
    "SyncSegment",
    "SyncSegmentMixin",
    "Tombstone",
    "TombstoneMixin",
    "Vendor",
    "VendorInvoice",
    "VendorPayment",
    "Words",
]


def __getattr__(name: str) -> Any:
    # half of the time that importing the library would take
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ledger_sync.models import guards, ready  # noqa: F401 - the guards keep posted entries as they are

    return getattr(ready, name)
