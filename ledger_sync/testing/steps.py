"""What happens in books, as plain data, and what lets it happen on any classes.

A ``History`` is a row of transactions, each with its steps. Documents go by names of their own, entries by the numbers
of their vouchers. ``ledger_sync.testing.histories`` draws them; a test may as well write one down.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ledger_sync.testing.books import Books

DUE_AFTER: Final = timedelta(days=30)


@dataclass(frozen=True)
class Invoice:
    """A document comes in: an invoice, a credit note (of an earlier invoice, if ``credits`` names it), or a claim."""

    name: str
    ledger: str
    party: str
    number: str
    reference: str | None
    on: date
    amount: Decimal
    credit_note: bool = False
    credits: str | None = None


@dataclass(frozen=True)
class Payment:
    """A payment is made, or comes in."""

    name: str
    ledger: str
    party: str
    reference: str | None
    on: date
    amount: Decimal


@dataclass(frozen=True)
class PostedLine:
    """A control line. ``amount`` is positive in the ledger's normal direction; with a ``document`` it has a link."""

    ledger: str
    amount: Decimal
    document: str | None = None
    kind: str | None = None
    reference: str | None = None


@dataclass(frozen=True)
class Posting:
    """An entry, with what it names as its source; a draft, or posted."""

    number: str
    on: date
    source: str | None
    lines: tuple[PostedLine, ...]
    draft: bool = False


@dataclass(frozen=True)
class DraftPosted:
    """A draft is posted."""

    entry: str


@dataclass(frozen=True)
class Reversal:
    """A posted entry is reversed."""

    number: str
    entry: str
    on: date


@dataclass(frozen=True)
class Linked:
    """A line of an entry, by its place from 0, gets a source link."""

    entry: str
    place: int
    document: str
    kind: str | None = None


@dataclass(frozen=True)
class Unlinked:
    """A line loses its source link."""

    entry: str
    place: int


@dataclass(frozen=True)
class DocumentChanged:
    """A document's ``number``, ``reference``, ``party`` or ``date`` changes."""

    document: str
    what: str
    value: Any


@dataclass(frozen=True)
class LineChanged:
    """The amount of a control line changes: in a draft, or in the transaction that posted it, or with ``edits``."""

    entry: str
    place: int
    amount: Decimal


@dataclass(frozen=True)
class EntryDeleted:
    """An entry goes: a draft, or one of the same transaction, or with ``edits``."""

    entry: str


Step = (
    Invoice
    | Payment
    | Posting
    | DraftPosted
    | Reversal
    | Linked
    | Unlinked
    | DocumentChanged
    | LineChanged
    | EntryDeleted
)


@dataclass(frozen=True)
class Transaction:
    """What happens at once. Nothing remains of one that is ``rolled_back``."""

    steps: tuple[Step, ...]
    rolled_back: bool = False


History = tuple[Transaction, ...]


# -- playing -------------------------------------------------------------------------------------------


def play(books: Books, history: History, *, commit: bool = False) -> dict[str, Any]:
    """Let a history happen; the documents and entries that it leaves, by name and number.

    :param commit: whether its transactions are committed. Otherwise they are savepoints.
    """
    left: dict[str, Any] = {}
    for transaction in history:
        made = dict(left)
        savepoint = None if commit else books.session.begin_nested()
        for step in transaction.steps:
            _do(books, made, step)
        if transaction.rolled_back:
            (savepoint or books.session).rollback()
        else:
            (savepoint or books.session).commit()
            left = made
    return left


def _do(books: Books, made: dict[str, Any], step: Step) -> None:
    match step:
        case Invoice():
            credited = None if step.credits is None else made[step.credits]
            made[step.name] = books.invoice(
                step.ledger,
                step.amount,
                party=step.party,
                number=step.number,
                reference=step.reference,
                on=step.on,
                due_date=step.on + DUE_AFTER,
                credit_note=step.credit_note,
                credits=credited,
                post=False,
            ).document
        case Payment():
            made[step.name] = books.payment(
                step.ledger, step.amount, party=step.party, reference=step.reference, on=step.on, post=False
            ).document
        case Posting():
            source = None if step.source is None else made[step.source]
            lines = [
                books.on_account(
                    line.ledger,
                    line.amount,
                    source=None if line.document is None else made[line.document],
                    kind=line.kind,
                    reference=line.reference,
                )
                for line in step.lines
            ]
            made[step.number] = books.entry(lines, source=source, on=step.on, number=step.number, post=not step.draft)
        case Reversal():
            made[step.number] = books.reverse(made[step.entry], on=step.on, number=step.number)
        case DocumentChanged():
            books.change_document(made[step.document], step.what, step.value)
        case EntryDeleted():
            books.delete_entry(made.pop(step.entry))
        case DraftPosted():
            books.post(made[step.entry])
        case Linked():
            books.link(books.lines(made[step.entry])[step.place], made[step.document], step.kind)
        case Unlinked():
            books.unlink(books.lines(made[step.entry])[step.place])
        case LineChanged():
            books.change_line(made[step.entry], books.lines(made[step.entry])[step.place], step.amount)
    books.session.flush()
