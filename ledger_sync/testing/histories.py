"""Hypothesis strategies of what happens in books.

What is drawn is possible: what a step names is there, what was rolled back is not named again, a reversal is of a
posted entry that is not reversed, and nothing is drawn that the host's classes have no attribute for. Values come from
small pools, so that things meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ledger_sync.attributes import has
from ledger_sync.sync import LedgerSync
from ledger_sync.testing.steps import (
    DocumentChanged,
    DraftPosted,
    EntryDeleted,
    History,
    Invoice,
    LineChanged,
    Linked,
    Payment,
    PostedLine,
    Posting,
    Reversal,
    Step,
    Transaction,
    Unlinked,
)

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

T = TypeVar("T")

DAYS: Final = tuple(date(2026, 1, 1) + timedelta(days=10 * index) for index in range(5))
AMOUNTS: Final = tuple(Decimal(amount) for amount in ("100", "100", "60", "40", "250", "0.01", "33.33"))
REFERENCES: Final = (None, "K1", "K1", " k 1", "K2", "7", "8")
"""What a payer quotes may be a document's reference or its number."""
NUMBERS: Final = ("7", "8", "9", "k1")
PARTIES: Final = ("1", "1", "2")


@dataclass(frozen=True)
class _Features:
    """What a host's books have; sets are of ledgers."""

    ledgers: tuple[str, ...]
    payments: frozenset[str]
    credit_notes: frozenset[str]
    references: frozenset[str]
    line_references: bool
    kinds: bool
    reversals: bool
    edits: bool


@dataclass
class _Entry:
    posting: Posting
    draft: bool
    links: set[int]
    new: bool = True
    reverses: str | None = None
    reversed: bool = False


@dataclass
class _State:
    """What is there so far."""

    documents: dict[str, Invoice | Payment] = field(default_factory=dict)
    entries: dict[str, _Entry] = field(default_factory=dict)

    def reversible(self) -> list[str]:
        return [n for n, e in self.entries.items() if not (e.draft or e.reversed or e.reverses)]

    def changeable(self, features: _Features) -> list[str]:
        """Entries that may be changed: drafts, those of this transaction, with ``edits`` all; none that is reversed."""
        free = [(n, e) for n, e in self.entries.items() if not e.reversed and not e.reverses]
        return [n for n, e in free if features.edits or e.new or e.draft]

    def places(self, *, linked: bool) -> list[tuple[str, int]]:
        """The control lines with or without a link; not those of reversals, which follow what they reverse."""
        return [
            (name, place)
            for name, entry in self.entries.items()
            if entry.reverses is None
            for place in range(len(entry.posting.lines))
            if (place in entry.links) == linked
        ]


def histories(
    sync: LedgerSync,
    *,
    ledgers: Sequence[str] | None = None,
    transactions_max: int = 4,
    steps_max: int = 6,
    edits: bool = False,
) -> SearchStrategy[History]:
    """A Hypothesis strategy of histories that the classes of a sync can hold; ``Books.play`` lets them happen.

    :param ledgers: which ledgers things happen in; all unless given.
    :param edits: whether posted entries are changed and deleted after their commit as well, as some hosts do.
    """
    from hypothesis import strategies as st

    features = _features(sync, tuple(sync.settings.ledgers() if ledgers is None else ledgers), edits=edits)

    @st.composite
    def drawn(draw: DrawFn) -> History:
        return _history(draw, features, transactions_max, steps_max)

    return drawn()


def _features(sync: LedgerSync, ledgers: tuple[str, ...], *, edits: bool) -> _Features:
    binding = sync.binding
    documents = [(name, document) for name in ledgers for document in binding.ledger(name).documents]
    return _Features(
        ledgers=ledgers,
        payments=frozenset(name for name, d in documents if d.role == "payment"),
        credit_notes=frozenset(name for name, d in documents if d.kind is not None),
        references=frozenset(name for name, d in documents if d.role == "invoice" and d.reference is not None),
        line_references=has(binding.line, "reference"),
        kinds=has(binding.link, "kind"),
        reversals=has(binding.entry, "reverses_id"),
        edits=edits,
    )


def _history(draw: DrawFn, features: _Features, transactions_max: int, steps_max: int) -> History:
    from hypothesis import strategies as st

    state, numbers = _State(), count(8)  # some of two digits
    transactions = []
    for _ in range(draw(st.integers(1, transactions_max))):
        before = deepcopy(state)
        for entry in state.entries.values():
            entry.new = False
        drawing = _Drawing(draw, state, features, numbers)
        steps = tuple(drawing.step() for _ in range(draw(st.integers(1, steps_max))))
        rolled_back = draw(st.integers(0, 5)) == 5
        if rolled_back:
            state = before
        transactions.append(Transaction(steps, rolled_back))
    return tuple(transactions)


class _Drawing:
    """Draws one step after the other and keeps the state of the books up to date."""

    def __init__(self, draw: DrawFn, state: _State, features: _Features, numbers: Iterator[int]) -> None:
        self.draw = draw
        self.state = state
        self.features = features
        self.numbers = numbers

    def one_of(self, values: Sequence[T]) -> T:
        from hypothesis import strategies as st

        return self.draw(st.sampled_from(values))

    def rarely(self, often: int = 4) -> bool:
        from hypothesis import strategies as st

        return self.draw(st.integers(1, often)) == often

    def step(self) -> Step:
        state, features = self.state, self.features
        possible = ["invoice", "posting"]
        if features.payments:
            possible.append("payment")
        if state.documents:
            possible += ["posting", "posting", "document_changed"]
            if state.places(linked=False):
                possible.append("linked")
        if state.places(linked=True):
            possible.append("unlinked")
        if any(entry.draft for entry in state.entries.values()):
            possible += ["draft_posted", "draft_posted"]
        if features.reversals and state.reversible():
            possible += ["reversal", "reversal"]
        if state.changeable(features):
            possible += ["line_changed", "entry_deleted"]
        step: Step = getattr(self, f"_{self.one_of(possible)}")()
        return step

    def _name(self) -> str:
        return f"document {len(self.state.documents) + next(self.numbers)}"

    def _invoice(self) -> Invoice:
        ledger = self.one_of(self.features.ledgers)
        is_note = ledger in self.features.credit_notes and self.rarely()
        earlier = [n for n, d in self.state.documents.items() if isinstance(d, Invoice) and d.ledger == ledger]
        invoices = [name for name in earlier if not self._invoice_of(name).credit_note]
        made = Invoice(
            name=self._name(),
            ledger=ledger,
            party=self.one_of(PARTIES),
            number=self.one_of(NUMBERS),
            reference=self.one_of(REFERENCES) if ledger in self.features.references else None,
            on=self.one_of(DAYS),
            amount=self.one_of(AMOUNTS),
            credit_note=is_note,
            credits=self.one_of([None, *invoices]) if is_note else None,
        )
        self.state.documents[made.name] = made
        return made

    def _invoice_of(self, name: str) -> Invoice:
        found = self.state.documents[name]
        assert isinstance(found, Invoice)
        return found

    def _payment(self) -> Payment:
        ledger = self.one_of(sorted(self.features.payments))
        made = Payment(
            name=self._name(),
            ledger=ledger,
            party=self.one_of(PARTIES),
            reference=self.one_of(REFERENCES),
            on=self.one_of(DAYS),
            amount=self.one_of(AMOUNTS),
        )
        self.state.documents[made.name] = made
        return made

    def _posting(self) -> Posting:
        source = self.one_of([None, *self.state.documents, *self.state.documents])
        lines = [self._posted_line(source)]
        while self.rarely():
            lines.append(self._posted_line(source))
        made = Posting(f"{next(self.numbers)}", self.one_of(DAYS), source, tuple(lines), draft=self.rarely(6))
        links = {place for place, line in enumerate(lines) if line.document is not None}
        self.state.entries[made.number] = _Entry(made, made.draft, links)
        return made

    def _posted_line(self, source: str | None) -> PostedLine:
        linked = self.one_of([None, *self.state.documents]) if self.state.documents and self.rarely(3) else None
        named = self.state.documents.get(linked or source or "")
        ledger = named.ledger if named is not None and not self.rarely(8) else self.one_of(self.features.ledgers)
        amount = self.one_of(AMOUNTS) if named is None or self.rarely(3) else named.amount
        owed = isinstance(named, Invoice) and not named.credit_note
        kinds = (None, None, "write_off") if linked is not None and self.features.kinds else (None,)
        references = REFERENCES if self.features.line_references and self.rarely() else (None,)
        return PostedLine(
            ledger=ledger,
            amount=amount if owed != self.rarely() else -amount,
            document=linked,
            kind=self.one_of(kinds),
            reference=self.one_of(references),
        )

    def _draft_posted(self) -> DraftPosted:
        name = self.one_of([n for n, entry in self.state.entries.items() if entry.draft])
        entry = self.state.entries[name]
        entry.draft, entry.new = False, True
        return DraftPosted(name)

    def _reversal(self) -> Reversal:
        name = self.one_of(self.state.reversible())
        entry = self.state.entries[name]
        day = entry.posting.on + timedelta(days=self.one_of((0, 5, 25)))
        entry.reversed = True
        number = f"{next(self.numbers)}"
        mirrored = replace(entry.posting, number=number, on=day)
        self.state.entries[number] = _Entry(mirrored, draft=False, links=set(), reverses=name)
        return Reversal(number, name, day)

    def _linked(self) -> Linked:
        name, place = self.one_of(self.state.places(linked=False))
        self.state.entries[name].links.add(place)
        kinds = (None, None, "write_off") if self.features.kinds else (None,)
        return Linked(name, place, self.one_of(list(self.state.documents)), self.one_of(kinds))

    def _unlinked(self) -> Unlinked:
        name, place = self.one_of(self.state.places(linked=True))
        self.state.entries[name].links.discard(place)
        return Unlinked(name, place)

    def _document_changed(self) -> DocumentChanged:
        name = self.one_of(list(self.state.documents))
        document = self.state.documents[name]
        values: dict[str, Sequence[Any]] = {"party": PARTIES, "on": DAYS}
        if isinstance(document, Invoice):
            values["number"] = NUMBERS
        if isinstance(document, Payment) or document.ledger in self.features.references:
            values["reference"] = REFERENCES
        what = self.one_of(sorted(values))
        value = self.one_of(values[what])
        self.state.documents[name] = replace(document, **{what: value})
        return DocumentChanged(name, what, value)

    def _line_changed(self) -> LineChanged:
        name = self.one_of(self.state.changeable(self.features))
        return LineChanged(name, self.one_of(range(len(self.state.entries[name].posting.lines))), self.one_of(AMOUNTS))

    def _entry_deleted(self) -> EntryDeleted:
        name = self.one_of(self.state.changeable(self.features))
        del self.state.entries[name]
        return EntryDeleted(name)
