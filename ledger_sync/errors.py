"""Every error of the library: one base class, and each says what to do next.

An error carries its data as attributes, so that a host can answer with its own words. No message
ever tells one tenant whether something exists in another's books.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.exc import DontWrapMixin

from ledger_sync.plain import one_line

_SHOWN_MAX: Final = 60
"""So many characters of a refused value are shown."""


def shown(value: object) -> str:
    """A refused value as a message repeats it: in ASCII, and not at any length."""
    try:
        text = ascii(value)
    except ValueError:  # an int of so many digits that Python refuses to write it
        return f"a {type(value).__name__} of thousands of digits"
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 3]}..."


class LedgerSyncError(Exception):
    """Base class of all errors that the library raises on purpose.

    Their messages are one line each, whatever stands in the names and numbers that they repeat. Most have a ``remedy``,
    with which the message ends.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(one_line(told) if isinstance(told, str) else told for told in arguments))

    def __reduce__(self) -> tuple[Any, ...]:
        # not by way of __init__, which takes other arguments than these: what a worker process raises must come out
        return _as_it_was, (type(self), self.args), self.__dict__


def _as_it_was(kind: type[LedgerSyncError], arguments: tuple[Any, ...]) -> LedgerSyncError:
    error = kind.__new__(kind)
    error.args = arguments
    return error


class RemediedError(LedgerSyncError):
    """Base class of errors of one shape: what it is about, what is wrong with it, and what to do next."""

    remedy: str

    def __init__(self, subject: str, problem: str, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(f"{subject} {problem}. {remedy}")


class ValueRefusedError(LedgerSyncError, ValueError, DontWrapMixin):
    """A value that no column of the books takes. ``value`` is what was given.

    It comes out as it is, in a statement as well as in an assignment: SQLAlchemy does not wrap it into an error of its
    own, which would show the statement and all of its parameters.
    """

    value: object


class ConfigurationError(LedgerSyncError, ValueError):
    """Settings, models, an attachment or a call that make no sense, alone or with one another."""


class AmountError(RemediedError, ValueRefusedError):
    """An amount that cannot be stored exactly: NaN, infinite, a float, too many decimals, or too large.

    ``name`` is the field, ``value`` what was given.
    """

    def __init__(self, name: str, value: object, problem: str, remedy: str) -> None:
        self.name = name
        self.value = value
        super().__init__(f"{name} = {shown(value)}", problem, remedy)


class TextError(RemediedError, ValueRefusedError):
    """A text that a database would cut, refuse or garble: too long, with NUL or half a surrogate pair."""

    def __init__(self, name: str, value: object, problem: str, remedy: str) -> None:
        self.name = name
        self.value = value
        super().__init__(f"{name} = {shown(value)}", problem, remedy)


class TimestampError(ValueRefusedError):
    """A naive datetime where a moment in time is asked for, or one that lies outside of the years 1 to 9999 in UTC."""

    def __init__(self, value: object, problem: str = "has no time zone, so it names no moment") -> None:
        self.value = value
        super().__init__(f"{shown(value)} {problem}. Give an aware datetime, datetime.now(timezone.utc) say.")


class EntryError(RemediedError):
    """A journal entry that cannot be posted, changed or reversed as asked. ``voucher`` names it."""

    def __init__(self, voucher: str, problem: str, remedy: str) -> None:
        self.voucher = voucher
        super().__init__(f"Voucher {voucher}", problem, remedy)


class UnbalancedEntryError(EntryError):
    """A journal entry whose lines are missing or do not add up to zero."""


class PostedEntryError(EntryError):
    """A change to a posted journal entry, or to its lines."""


class ReversalError(EntryError):
    """A reversal that bookkeeping does not know: of a draft, of a reversal, or a second one."""


class ManualPostingError(EntryError):
    """A line without a source on a control account, where the settings say ``manual="block"``."""


class DocumentInUseError(LedgerSyncError):
    """A document behind a posted control line was to be deleted or moved to another tenant."""

    def __init__(self, document: str, document_id: object, problem: str) -> None:
        self.document = document
        self.document_id = document_id
        super().__init__(
            f"{document} {document_id} {problem}, but a posted journal line names it. "
            "Reverse the entry and post a credit note; the document stays."
        )


class BulkWriteError(LedgerSyncError):
    """A bulk statement through an attached session that the hook refuses, or, with ``problem``, cannot see through."""

    def __init__(self, table: str, operation: str, problem: str | None = None) -> None:
        self.table = table
        self.operation = operation
        self.problem = problem
        if problem is None:
            message = (
                f"A bulk {operation} on {table} would bypass the subledger. Use ORM objects, or give the statement "
                'execution_options(ledger_sync_bulk="sync"), or pause the sync with sync.paused(session) and run a '
                'backfill afterwards, or give it execution_options(ledger_sync_bulk="ignore") if it cannot matter.'
            )
        else:
            message = (
                f"A bulk {operation} on {table} {problem}, so it cannot be synced. Use ORM objects, or write it "
                'otherwise, or give it execution_options(ledger_sync_bulk="ignore") and name the entries that it '
                "concerns to sync.sync_entries(session, ids) afterwards."
            )
        super().__init__(message)


class SettlementError(RemediedError):
    """Two open items that cannot be settled, or taken apart, as asked. ``items`` names both, by table and id."""

    def __init__(self, items: tuple[str, str], problem: str, remedy: str) -> None:
        self.items = items
        super().__init__(f"{items[0]} and {items[1]}", problem, remedy)


class LinkError(RemediedError):
    """A source link that cannot be made or taken back as asked. ``line_id`` is the journal line's id."""

    def __init__(self, line_id: object, problem: str, remedy: str) -> None:
        self.line_id = line_id
        super().__init__(f"Journal line {line_id}", problem, remedy)


class AdoptionError(RemediedError):
    """A row from before that cannot take the line that was chosen for it. ``row_id`` and ``line_id`` name both."""

    def __init__(self, row_id: object, line_id: object, problem: str, remedy: str) -> None:
        self.row_id = row_id
        self.line_id = line_id
        super().__init__(f"Row {row_id} (line {line_id} was chosen)", problem, remedy)


class CutOverError(LedgerSyncError, ValueError):
    """A backfill that was asked to go before the cut-over."""


class RunActiveError(LedgerSyncError):
    """A run over books that another run is writing. ``run_id`` names the one that is there already."""

    def __init__(self, run_id: object, kind: str, whose: str, stage: str) -> None:
        self.run_id = run_id
        super().__init__(
            f"Run {run_id}, a {kind} over {whose}, is at work (stage {stage}). Wait for it, or pause or cancel it. "
            "If its process has died, resume it: it goes on where it was."
        )


class RunStateError(RemediedError):
    """A run that cannot be resumed or steered as asked. ``run_id`` names it."""

    def __init__(self, run_id: object, problem: str, remedy: str) -> None:
        self.run_id = run_id
        super().__init__(f"Run {run_id}", problem, remedy)


class TooManyErrorsError(LedgerSyncError):
    """A run that stopped, since it met more bad lines or documents than its limits allow.

    ``count``: so many in a row, or in all, as the ``setting`` counts. The run can be resumed: it goes on after what it
    has recorded, which only a later run tries again. One that has recorded more than ``errors_max`` stops again at its
    next error.
    """

    def __init__(self, run_id: object, count: int, setting: str) -> None:
        self.run_id = run_id
        self.count = count
        self.setting = setting
        super().__init__(
            f"Run {run_id} stopped after {count} errors ({setting}). They are in ledger_sync_errors with their "
            "messages. Mend what they have in common, then start a new run, which tries them again; or raise the limit "
            "in the settings and resume this one, which goes on after them."
        )


class ImportRefusedError(LedgerSyncError):
    """A file that cannot be imported. ``file`` is its name, ``line`` the line in it, where one is to blame.

    Nothing of the file has been imported.
    """

    def __init__(self, message: str, *, line: int | None = None, file: str | None = None) -> None:
        self.problem = message
        self.line = line
        self.file = file
        where = [*([] if file is None else [file]), *([] if line is None else [f"line {line}"])]
        super().__init__(f"{', '.join(where)}: {message}" if where else message)

    def of(self, file: str) -> ImportRefusedError:
        """The same error, naming the file."""
        return ImportRefusedError(self.problem, line=self.line, file=file)


class NotInTheBooksError(RemediedError, LookupError):
    """Something that was asked for by name and is not in this tenant's books, or not told apart there.

    ``could_be`` names those that it could be.
    """

    def __init__(self, subject: str, problem: str, remedy: str, could_be: Sequence[str] = ()) -> None:
        self.subject = subject
        self.could_be = tuple(could_be)
        super().__init__(subject, problem, remedy)


class UnknownTenantError(LedgerSyncError, ValueError):
    """No tenant was named where the books hold none or several, or one that they do not hold.

    ``named`` is that one; ``tenants`` are those that there are, where none was named.
    """

    def __init__(self, tenants: Sequence[str], named: str | None = None) -> None:
        self.tenants = tuple(tenants)
        self.named = named
        if named is not None:
            message = f"The database holds no journal entries of tenant {named}. Look at how its name is written."
        elif tenants:
            message = (
                f"The database holds the books of {len(tenants)} tenants "
                f"({', '.join(tenants[:10])}{', …' if len(tenants) > 10 else ''}). Say which: "
                "--tenant ID, or --all-tenants."
            )
        else:
            message = "The database holds no journal entries yet. Import or post some first."
        super().__init__(message)
