"""Documents and balanced entries for tests, from plain arguments, with the classes that a sync is bound to.

Values go by the names that the library knows them by (``voucher_number``, ``account_number``; a document's by those of
its ``Document``), so a class whose columns have other names takes them through its synonyms. What a class computes, or
has besides, is a matter of a callable in ``make``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from itertools import count
from typing import Any, Final

from sqlalchemy import inspect, select
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapper, RelationshipProperty, Session

from ledger_sync.attributes import attribute, has, plain_key
from ledger_sync.binding import Document, Ledger
from ledger_sync.control_lines import source_types
from ledger_sync.errors import ConfigurationError
from ledger_sync.sync import LedgerSync
from ledger_sync.testing.steps import History, play

DAY: Final = date(2026, 1, 15)
"""The date of what is made without one."""

Amount = Decimal | int | str
Source = Any
"""A document, or a pair of source type and id as they stand in the books."""


@dataclass(frozen=True)
class Line:
    """A line of an entry. ``amount`` is debit less credit; with a ``source`` of its own it gets a source link.

    ``more``: further attributes, by the library's names or the class's own.
    """

    account: str
    amount: Amount
    source: Source = None
    kind: str | None = None
    reference: str | None = None
    due_date: date | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Booked:
    """A document and the entry that was posted for it, if one was."""

    document: Any
    entry: Any = None


def fill(model: type[Any], **values: Any) -> Any:
    """A new object of a class with those of the values that it can be given: what it lacks or computes is left out."""
    mapper: Mapper[Any] = inspect(model)
    return model(**{name: value for name, value in values.items() if _takes(mapper, name)})


def _takes(mapper: Mapper[Any], name: str) -> bool:
    descriptor = mapper.all_orm_descriptors.get(name)
    if isinstance(descriptor, hybrid_property):
        return descriptor.fset is not None
    return plain_key(mapper, name) is not None or name in mapper.relationships


class Books:
    """Makes documents and posted entries of one tenant, through a session. Everything is flushed, nothing committed.

    :param sync: whose classes and settings they are made for; it need not be attached to the session.
    :param tenant_id: whose books; a host without tenants leaves it out.
    :param make: the host's constructors, where its classes need more than values of the usual names: by ``entry``,
        ``line``, ``link``, a ledger's name (its parties) or a document's name. Each is called with such values and
        returns a new object; ``fill`` helps with what is usual.
    :param post: sets a draft entry posted, where ``posted`` is computed and the class has no method ``post``.
    :param numbers: for vouchers and documents that are given none; from 1 unless given.
    """

    def __init__(
        self,
        sync: LedgerSync,
        session: Session,
        tenant_id: Any = None,
        *,
        make: Mapping[str, Callable[..., Any]] | None = None,
        post: Callable[[Any], None] | None = None,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self.sync = sync
        self.session = session
        self.tenant_id = tenant_id
        self.binding = sync.binding
        self._make = dict(make or {})
        self._post = post
        self._numbers = count(1) if numbers is None else numbers

    # -- parties and documents -------------------------------------------------------------------------

    def party(self, ledger: str, number: str = "1") -> Any:
        """The key of a ledger's party of that number; the party is made when there is none.

        Without a ``party_model`` in the binding, and no maker, the number itself is taken for the key.
        """
        model = self.binding.ledger(ledger).party_model
        if model is None:
            return self._made(ledger, None, number=number).id if ledger in self._make else number
        found = select(attribute(model, "id")).where(attribute(model, "number") == number)
        if has(model, "tenant_id"):
            found = found.where(attribute(model, "tenant_id") == self.tenant_id)
        key = self.session.scalar(found)
        return self._made(ledger, model, number=number, name=f"Party {number}").id if key is None else key

    def invoice(
        self,
        ledger: str,
        amount: Amount = 100,
        *,
        party: str = "1",
        number: str | None = None,
        reference: str | None = None,
        on: date = DAY,
        due_date: date | None = None,
        credit_note: bool = False,
        credits: Any = None,  # noqa: A002 - what the document's attribute is called
        post: bool = True,
        **more: Any,
    ) -> Booked:
        """An invoice, or an employee's claim, and its posted entry.

        :param amount: positive, also of a credit note.
        :param reference: what a payer quotes, the KID in Norway.
        :param credits: the invoice that a credit note credits.
        :param post: whether it is posted.
        :param more: further attributes of the document.
        """
        bound = self.binding.ledger(ledger)
        document = bound.opener
        if document is None:
            raise ConfigurationError(f"The {ledger} ledger has no invoices. Bind a Document for them.")
        values = self._values(document, party=self.party(ledger, party), date=on)
        values |= self._values(document, number=number or f"I{next(self._numbers)}", due_date=due_date)
        values |= self._values(document, reference=reference, credits=None if credits is None else credits.id)
        values |= self._values(document, kind="credit_note" if credit_note else "invoice")
        made = self._made(document.name, document.model, **{**values, "amount": Decimal(amount), **more})
        signed = -Decimal(amount) if credit_note else Decimal(amount)
        return Booked(made, self.post_document(made, signed, on=on) if post else None)

    def payment(
        self,
        ledger: str,
        amount: Amount = 100,
        *,
        party: str = "1",
        reference: str | None = None,
        on: date = DAY,
        of: Any = None,
        post: bool = True,
        **more: Any,
    ) -> Booked:
        """A payment and its posted entry.

        :param of: the document that is paid, where the ledger has no payments of its own: the entry names it.
        """
        bound = self.binding.ledger(ledger)
        document = bound.payer
        if document is None:
            if of is None:
                raise ConfigurationError(f"The {ledger} ledger has no payments. Say what is paid: of=document.")
            return Booked(of, self.post_document(of, -Decimal(amount), on=on))
        values = self._values(document, party=self.party(ledger, party), date=on, reference=reference)
        made = self._made(document.name, document.model, **{**values, "amount": Decimal(amount), **more})
        return Booked(made, self.post_document(made, -Decimal(amount), on=on) if post else None)

    @staticmethod
    def _values(document: Document, **values: Any) -> dict[str, Any]:
        """Values by the names that a class of documents has for them; those that it has none for are left out."""
        called = {getattr(document, name): value for name, value in values.items()}
        return {name: value for name, value in called.items() if name is not None}

    # -- entries ---------------------------------------------------------------------------------------

    def account(self, ledger: str) -> str:
        """The first control account of a ledger."""
        return self.sync.settings.first_account(ledger)

    def on_account(self, ledger: str, amount: Amount, **more: Any) -> Line:
        """A line on a ledger's control account; ``amount`` is positive in the ledger's normal direction."""
        account = self.account(ledger)
        control = self.sync.settings.control_account(account)
        on_debit_side = control is not None and control.side == "debit"
        return Line(account, Decimal(amount) if on_debit_side else -Decimal(amount), **more)

    def post_document(self, document: Any, amount: Amount, *, on: date = DAY, **more: Any) -> Any:
        """An entry that names a document as its source; ``amount`` is positive in the ledger's normal direction."""
        ledger, _ = self.bound(document)
        return self.entry([self.on_account(ledger.name, amount)], source=document, on=on, **more)

    def entry(
        self,
        lines: Iterable[Line],
        *,
        source: Source = None,
        on: date = DAY,
        number: str | None = None,
        contra: str = "1920",
        post: bool = True,
        **more: Any,
    ) -> Any:
        """A journal entry with its lines. What they are out of balance by goes to the ``contra`` account.

        :param number: the voucher's; the next one unless given.
        :param post: whether it is posted, or stays a draft.
        :param more: further attributes of the entry.
        """
        given = list(lines)
        if rest := sum((Decimal(line.amount) for line in given), Decimal(0)):
            given.append(Line(contra, -rest))
        source_type, source_id = self.named(source)
        values = {"voucher_number": number or f"{next(self._numbers)}", "entry_date": on, "fiscal_year": on.year}
        named = {"source_type": source_type, "source_id": source_id}
        entry = self._new("entry", self.binding.entry, **{**values, **named, **more})
        attach = self._attachment(entry)
        made = []
        for position, line in enumerate(given, 1):
            made.append(self._line(line, position))
            attach(made[-1])
        if post:
            self.post(entry)
        self.session.add_all([entry, *made])
        self.session.flush()
        for new, line in zip(made, given, strict=True):
            if line.source is not None and _related(type(new), self.binding.link) is None:
                self.link(new, line.source, line.kind)
        return entry

    def _attachment(self, entry: Any) -> Callable[[Any], None]:
        """What puts a new line into an entry: the relationship from either side, or else the entry's key."""
        if (lines := _related(type(entry), self.binding.line, many=True)) is not None:
            collection = getattr(entry, lines.key)
            add: Callable[[Any], None] = collection.add if isinstance(collection, set) else collection.append
            return add
        if (owner := _related(self.binding.line, type(entry))) is not None:
            return lambda line: setattr(line, owner.key, entry)
        self.session.add(entry)
        self.session.flush()
        return lambda line: setattr(line, "general_ledger_id", entry.id)

    def _line(self, line: Line, position: int) -> Any:
        amount = Decimal(line.amount)
        values: dict[str, Any] = {"line_number": position, "account_number": line.account, **_sides(amount)}
        values |= {"reference": line.reference, "due_date": line.due_date, **line.more}
        made = self._new("line", self.binding.line, **values)
        if line.source is not None and (related := _related(type(made), self.binding.link)) is not None:
            setattr(made, related.key, self._link(line.source, line.kind))
        return made

    def post(self, entry: Any) -> None:
        """Set a draft posted, without flushing it.

        :raises ConfigurationError: nothing says how.
        """
        own = getattr(entry, "post", None)
        if self._post is not None:
            self._post(entry)
        elif callable(own):
            own()
        elif _takes(inspect(type(entry)), "posted"):
            entry.posted = True
        else:
            raise ConfigurationError(
                f"{type(entry).__name__}.posted is computed, so it cannot be set. Give Books(…, post=callable), which "
                "sets an entry posted."
            )

    def reverse(self, entry: Any, *, on: date | None = None, number: str | None = None) -> Any:
        """The posted entry that reverses an entry, line by line; on the day of that entry unless given."""
        lines = [
            Line(
                str(line.account_number),
                -self.signed(line),
                reference=getattr(line, "reference", None),
                due_date=getattr(line, "due_date", None),
                more={"line_number": line.line_number},
            )
            for line in self.lines(entry)
        ]
        source = None if entry.source_type is None else (entry.source_type, entry.source_id)
        return self.entry(lines, source=source, on=on or entry.entry_date, number=number, reverses_id=entry.id)

    def lines(self, entry: Any) -> list[Any]:
        """The lines of an entry, in their order."""
        line = self.binding.line
        query = select(line).where(attribute(line, "general_ledger_id") == entry.id)
        order = ("line_number", "id") if has(line, "line_number") else ("id",)
        return list(self.session.scalars(query.order_by(*(attribute(line, name) for name in order))))

    def signed(self, line: Any) -> Decimal:
        """Debit less credit of a line."""
        if has(type(line), "signed_amount"):
            amount: Decimal = line.signed_amount
            return amount
        return (line.debit or Decimal(0)) - (line.credit or Decimal(0))

    # -- changes ---------------------------------------------------------------------------------------

    def change_document(self, document: Any, what: str, value: Any) -> None:
        """Give a document another ``number``, ``reference``, ``party`` (by number) or date (``on``)."""
        ledger, bound = self.bound(document)
        name = getattr(bound, "date" if what == "on" else what)
        setattr(document, name, self.party(ledger.name, value) if what == "party" else value)
        self.session.flush()

    def change_line(self, entry: Any, line: Any, amount: Amount, *, contra: str = "1920") -> None:
        """Give a control line another amount, positive in its ledger's normal direction; a contra line balances it."""
        control = self.sync.settings.control_account(str(line.account_number))
        signed = Decimal(amount) if control is not None and control.side == "debit" else -Decimal(amount)
        rest = signed - self.signed(line)
        self.set_amount(line, signed)
        last = self.lines(entry)[-1]
        if self.sync.settings.control_account(str(last.account_number)) is None:
            self.set_amount(last, self.signed(last) - rest)
        elif rest:
            self.add_line(entry, Line(contra, -rest))
        self.session.flush()

    def add_line(self, entry: Any, line: Line) -> Any:
        """Give an entry one more line, which need not leave it in balance."""
        added = self._line(line, len(self.lines(entry)) + 1)
        self._attachment(entry)(added)
        self.session.add(added)
        self.session.flush()
        if line.source is not None and _related(type(added), self.binding.link) is None:
            self.link(added, line.source, line.kind)
        return added

    def set_amount(self, line: Any, amount: Decimal) -> None:
        """Set debit less credit of a line, without flushing it."""
        for name, value in _sides(amount).items():
            if _takes(inspect(type(line)), name):
                setattr(line, name, value)

    def delete_entry(self, entry: Any) -> None:
        """Delete an entry with its lines and their links."""
        link = self.binding.link
        lines = self.lines(entry)
        keys = [line.id for line in lines]
        links = self.session.scalars(select(link).where(attribute(link, "line_id").in_(keys))).all()
        with self.session.no_autoflush:  # all at once, since each looks for what hangs on it
            for target in (*links, *lines, entry):
                self.session.delete(target)
        self.session.flush()

    # -- links -----------------------------------------------------------------------------------------

    def link(self, line: Any, source: Source, kind: str | None = None) -> Any:
        """Name the source of one line. ``kind``: why it closes the document, if it is no payment."""
        made = self._link(source, kind, line_id=line.id)
        self.session.add(made)
        self.session.flush()
        return made

    def unlink(self, line: Any) -> None:
        """Take the source link of a line away."""
        link = self.binding.link
        self.session.delete(self.session.scalars(select(link).where(attribute(link, "line_id") == line.id)).one())
        self.session.flush()

    def _link(self, source: Source, kind: str | None, **values: Any) -> Any:
        source_type, source_id = self.named(source)
        given = {"source_type": source_type, "source_id": source_id, "kind": kind, **values}
        return self._new("link", self.binding.link, **given)

    # -- small things ----------------------------------------------------------------------------------

    def bound(self, document: Any) -> tuple[Ledger, Document]:
        """The ledger and the binding of a document."""
        for ledger in self.binding.ledgers:
            for bound in ledger.documents:
                if isinstance(document, bound.model):
                    return ledger, bound
        raise ConfigurationError(f"{document!r} is no document of these books. Give an object of a bound class.")

    def named(self, source: Source) -> tuple[Any, Any]:
        """The source type and id of a document, as they stand in the books."""
        if source is None:
            return None, None
        if isinstance(source, tuple):
            return source[0], source[1]
        ledger, bound = self.bound(source)
        types = source_types(self.sync.settings, ledger, bound)
        if not types:
            raise ConfigurationError(
                f"No source type means {bound.name}. Name one in the sources of a control account in the settings."
            )
        return types[0], source.id

    def play(self, history: History, *, commit: bool = False) -> dict[str, Any]:
        """Let a history happen; the documents and entries that it leaves, by name.

        :param commit: whether its transactions are committed. Otherwise they are savepoints, so that all of it goes
            with the session's own transaction.
        """
        return play(self, history, commit=commit)

    def _made(self, role: str, model: type[Any] | None, **values: Any) -> Any:
        made = self._new(role, model, **values)
        self.session.add(made)
        self.session.flush()
        return made

    def _new(self, role: str, model: type[Any] | None, **values: Any) -> Any:
        if self.binding.has_tenants:
            values = {"tenant_id": self.tenant_id, **values}
        if role in self._make:
            return self._make[role](**values)
        assert model is not None
        return fill(model, **values)


def _sides(amount: Decimal) -> dict[str, Decimal]:
    """Debit less credit, and debit and credit: a class takes the one or the others."""
    return {"signed_amount": amount, "debit": max(amount, Decimal(0)), "credit": max(-amount, Decimal(0))}


def _related(model: type[Any], other: type[Any], *, many: bool = False) -> RelationshipProperty[Any] | None:
    """The relationship of a class to another, to ``many`` of it or to one; not one that only reads."""
    mapper: Mapper[Any] = inspect(model)
    for found in mapper.relationships:
        if issubclass(other, found.mapper.class_) and not found.viewonly and bool(found.uselist) == many:
            return found
    return None
