"""Every host by the same handles, so that one test runs on schemas that have nothing in common but what they mean.

A ``Host`` says what its classes are, how they are bound, what they need when they are made, and what it lacks. A
``Desk`` is one at work: a session with the sync attached, what is posted through it, and what is stored, as plain
values. ``Desk.synced`` asks the independent oracle, which is given the books as the host's own objects have them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, Table, inspect, select
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import ControlAccount, LedgerSync, RunReport, Settings
from ledger_sync.binding import Document, attribute
from ledger_sync.testing import Books, Line
from tests import oracle
from tests.settlement_oracle import HandMade, Item, settle

DAY = date(2026, 3, 1)
ONE_TENANT = "books"
NUMBERS = count(1)
"""Every voucher has a higher number than those before, so that what is stored can be put in order."""


def by_name(value: Any) -> Any:
    """What the database holds for a value: an enumeration's members by their names, unless it says otherwise."""
    return value.name if isinstance(value, Enum) else value


@dataclass(frozen=True, kw_only=True)
class Host:
    """A schema of a host's own.

    ``binding``: the arguments of ``LedgerSync``. ``make``, ``post``: as for ``Books``. ``lacks``: what it has not, and
    why; tests that need it are skipped with that reason. ``word``: what the database holds for an object's value.
    ``status``: the other way round, for the status of the suppliers' items. ``moment``: one as its columns take it.
    ``rows``: what is there before anything else, by class.
    """

    name: str
    metadata: MetaData
    binding: Callable[[], Mapping[str, Any]]
    controls: tuple[ControlAccount, ...]
    tenants: tuple[Any, ...]
    unpost: Callable[[Any], None]
    strange_source: Callable[[Session], tuple[Any, Any]]
    post: Callable[[Any], None] | None = None
    make: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)
    schema: str | None = None
    rows: tuple[tuple[type[Any], Mapping[str, Any]], ...] = ()
    missing_key: Any = None
    word: Callable[[Any], Any] = by_name
    status: Callable[[str], Any] = str
    moment: Callable[[datetime], datetime] = lambda moment: moment
    name_source: Callable[[Any, Any, Any], None] | None = None
    set_account: Callable[[Any, str], None] | None = None
    change_kind: Callable[[Any, str], None] | None = None
    syncs: dict[str, LedgerSync] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name

    def sync(self, **settings: Any) -> LedgerSync:
        """A sync of these classes, made once for the same settings, since it keeps the statements that it builds."""
        key = repr(sorted(settings.items()))
        if key not in self.syncs:
            given = {"control_accounts": self.controls, **settings}
            self.syncs[key] = LedgerSync(Settings(**given), **self.binding())
        return self.syncs[key]

    def tables(self) -> Sequence[Table]:
        """All tables, those that refer to others first."""
        self.sync()
        return list(reversed(self.metadata.sorted_tables))

    def empty(self, engine: Engine) -> None:
        """Take every row out of every table."""
        with engine.begin() as connection:
            if engine.dialect.name == "mysql":
                # InnoDB checks a table's keys to itself row by row
                connection.exec_driver_sql("SET foreign_key_checks = 0")
            for table in self.tables():
                connection.execute(table.delete())
            if engine.dialect.name == "mysql":
                connection.exec_driver_sql("SET foreign_key_checks = 1")
            for model, values in self.rows:
                connection.execute(model.__table__.insert(), dict(values))


class Desk:
    """A host at work: what is posted goes through one session, with the sync attached unless it is not to be.

    ``history`` makes sessions that no sync is attached to.
    """

    def __init__(
        self,
        host: Host,
        engine: Engine,
        sync: LedgerSync | None = None,
        *,
        attached: bool = True,
        session: Session | None = None,
    ) -> None:
        self.host = host
        self.engine = engine
        self.sync = host.sync() if sync is None else sync
        self.binding = self.sync.binding
        self.factory = sessionmaker(engine)
        self.history = sessionmaker(engine)
        if attached:
            self.sync.attach(self.factory)
        self.session = self.factory() if session is None else session
        self._books: dict[Any, Books] = {}

    def close(self) -> None:
        self.session.close()

    @contextmanager
    def under(self, *, attached: bool = True, **settings: Any) -> Iterator[Desk]:
        """Another desk over the same tables: other settings, or not attached."""
        desk = Desk(self.host, self.engine, self.host.sync(**settings), attached=attached)
        try:
            yield desk
        finally:
            desk.close()

    def needs(self, *names: str) -> None:
        """Skip the test where the host lacks something."""
        for name in names:
            if name in self.host.lacks:
                pytest.skip(f"{self.host}: {self.host.lacks[name]}")

    def has(self, name: str) -> bool:
        return name not in self.host.lacks

    # -- making ----------------------------------------------------------------------------------------

    def tenant(self, index: int = 0) -> Any:
        """One of the host's tenants: ours is 0."""
        return self.host.tenants[index]

    @property
    def whose(self) -> dict[str, Any]:
        """Our tenant, as an argument."""
        return {} if self.tenant() is None else {"tenant_id": self.tenant()}

    def books(self, tenant: int = 0) -> Books:
        if tenant not in self._books:
            self._books[tenant] = Books(
                self.sync,
                self.session,
                self.tenant(tenant),
                make=self.host.make,
                post=self.host.post,
                numbers=NUMBERS,
            )
        return self._books[tenant]

    def invoice(self, amount: object = 100, ledger: str = "supplier", *, tenant: int = 0, **more: Any) -> Any:
        """An invoice that is not posted."""
        more = {"on": DAY, "due_date": date(2026, 3, 31), **more}
        return self.books(tenant).invoice(ledger, str(amount), post=False, **more).document

    def payment(self, amount: object = 100, ledger: str = "supplier", *, tenant: int = 0, **more: Any) -> Any:
        """A payment that is not posted."""
        return self.books(tenant).payment(ledger, str(amount), post=False, **{"on": DAY, **more}).document

    def entry(
        self,
        amount: object = 100,
        ledger: str = "supplier",
        *,
        account: str | None = None,
        tenant: int = 0,
        link: Any = None,
        kind: str | None = None,
        reference: str | None = None,
        due_date: date | None = None,
        **more: Any,
    ) -> Any:
        """A posted entry; ``amount`` is positive in the ledger's normal direction, ``link`` the source of its line."""
        books = self.books(tenant)
        line = books.on_account(ledger, str(amount), source=link, kind=kind, reference=reference, due_date=due_date)
        if account is not None:
            line = Line(account, line.amount, line.source, line.kind, line.reference, line.due_date)
        return books.entry([line], **{"on": DAY, "contra": "4000", **more})

    def line(self, entry: Any, place: int = 0) -> Any:
        return self.books().lines(entry)[place]

    def reverse(self, entry: Any, on: date = DAY) -> Any:
        return self.books().reverse(entry, on=on)

    def posted(self, amount: object = 100, ledger: str = "supplier", **more: Any) -> Any:
        """An invoice with its entry, committed; the entry."""
        own = ("party", "number", "reference", "on", "due_date", "credit_note", "credits", "tenant")
        of_invoice = {name: more.pop(name) for name in own if name in more}
        document = self.invoice(amount, ledger, **of_invoice)
        signed = -Decimal(str(amount)) if of_invoice.get("credit_note") else amount
        of_entry = {name: of_invoice[name] for name in ("on", "tenant") if name in of_invoice}
        made = self.entry(signed, ledger, source=document, **{**of_entry, **more})
        self.session.commit()
        return made

    def paid(self, amount: object = 100, ledger: str = "supplier", **more: Any) -> Any:
        """A payment with its entry, committed; the entry."""
        own = ("party", "reference", "tenant")
        of_payment = {name: more.pop(name) for name in own if name in more}
        document = self.payment(amount, ledger, **of_payment)
        of_entry = {name: of_payment[name] for name in ("tenant",) if name in of_payment}
        made = self.entry(-Decimal(str(amount)), ledger, source=document, **{**of_entry, **more})
        self.session.commit()
        return made

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Have everything that the block makes flushed at once, at its end."""
        flush = self.session.flush
        with self.session.no_autoflush:
            self.session.flush = lambda objects=None: None  # type: ignore[method-assign]
            try:
                yield
            finally:
                self.session.flush = flush  # type: ignore[method-assign]
        flush()

    def lines_of(self, entry: Any) -> Any:
        """The entry's own collection of its lines."""
        (lines,) = (r for r in inspect(type(entry)).relationships if r.mapper.class_ is self.binding.line)
        return getattr(entry, lines.key)

    def set_source(self, entry: Any, document: Any) -> None:
        source_type, source_id = self.books().named(document)
        if self.host.name_source is not None:
            self.host.name_source(entry, source_type, source_id)
        else:
            entry.source_type, entry.source_id = source_type, source_id

    def set_account(self, line: Any, account: str) -> None:
        if self.host.set_account is not None:
            self.host.set_account(line, account)
        else:
            line.account_number = account

    def change(self, document: Any, **values: Any) -> None:
        """Change a document by the binding's names: ``number``, ``date``, ``due_date``, ``reference``, ``kind``."""
        _, bound = self.books().bound(document)
        for name, value in values.items():
            if name == "kind" and self.host.change_kind is not None:
                self.host.change_kind(document, value)
            else:
                setattr(document, getattr(bound, name), value)

    def backfill(self, **more: Any) -> RunReport:
        """Backfill our tenant's books, through sessions that no sync is attached to."""
        self.session.rollback()  # who reads keeps SQLite's writers out
        return self.sync.backfill(self.history, **{**self.whose, **more})

    # -- what is stored --------------------------------------------------------------------------------

    def items(self, ledger: str = "supplier") -> list[Any]:
        """The open items as objects of the host's, in the order of their vouchers and lines."""
        bound, entry, line = self.binding.ledger(ledger), self.binding.entry, self.binding.line
        query = (
            select(bound.item, entry, line)
            .join(line, attribute(line, "id") == attribute(bound.item, "general_ledger_line_id"))
            .join(entry, attribute(entry, "id") == attribute(line, "general_ledger_id"))
            .execution_options(populate_existing=True)
        )
        rows = self.session.execute(query).all()

        def place(row: Any) -> tuple[Any, ...]:
            number = str(row[1].voucher_number)
            return (len(number), number, row[2].line_number)

        return [row[0] for row in sorted(rows, key=place)]

    def item(self, ledger: str = "supplier") -> Any:
        found = self.items(ledger)
        assert len(found) == 1, f"{len(found)} open items"
        return found[0]

    def count(self) -> int:
        """How many open items there are in all ledgers, whatever they are of."""
        return sum(len(list(self.session.scalars(select(ledger.item)))) for ledger in self.binding.ledgers)

    def open_amounts(self, ledger: str = "supplier") -> list[tuple[Any, Any, str]]:
        return [(i.amount, i.remaining_amount, self.host.word(i.status)) for i in self.items(ledger)]

    def party_of(self, item: Any) -> Any:
        return getattr(item, next(led.party for led in self.binding.ledgers if isinstance(item, led.item)))

    def causes(self, ledger: str = "supplier", tenant: int = 0) -> list[str]:
        """Why lines have no open item, or what else is wrong, as the proof says it."""
        account = self.books().account(ledger)
        proof = self.sync.verify(self.session, self.tenant(tenant))
        return [cause.name for cause in proof.account(account).causes]

    def synced(self, count: int | None = None, rules: oracle.Rules | None = None) -> None:
        """As many open items as that in all ledgers, and each as the oracle has it; settled as the oracle says."""
        self.session.flush()
        with Session(self.session.connection()) as reading:
            told = _Reading(self, reading)
            expected = oracle.expected_items(told.books(), rules or self.rules())
            stored = told.items()
            assert stored.keys() == expected.keys(), (
                f"missing {expected.keys() - stored.keys()}, surplus {stored.keys() - expected.keys()}"
            )
            for place, item in expected.items():
                item["settlement_key"] = _bare_key(item["settlement_key"])
                known = {name: value for name, value in item.items() if name in stored[place]}
                differing = {n: (stored[place][n], v) for n, v in known.items() if stored[place][n] != v}
                assert not differing, f"line {place}: (stored, expected) {differing}"
            if count is not None:
                assert len(stored) == count
            for ledger in self.binding.ledgers:
                told.assert_settled(ledger.name)

    def rules(self) -> oracle.Rules:
        """The settings, as the oracle knows them."""
        settings = self.sync.settings
        controls = tuple(
            oracle.Control(c.ledger, c.side, (*c.singles(), *c.ranges()), c.sources) for c in settings.control_accounts
        )
        return oracle.Rules(controls, settings.effective_from, settings.effective_by)  # type: ignore[arg-type]


class _Reading:
    """The host's objects as plain data."""

    def __init__(self, desk: Desk, session: Session) -> None:
        self.desk = desk
        self.session = session
        self.binding = desk.binding
        self.word = desk.host.word

    def _all(self, model: type[Any]) -> list[Any]:
        return list(self.session.scalars(select(model)))

    @staticmethod
    def _tenant(target: Any) -> Any:
        return getattr(target, "tenant_id", ONE_TENANT)

    def books(self) -> oracle.Books:
        books = oracle.Books()
        for entry in self._all(self.binding.entry):
            posted_at = getattr(entry, "posted_at", None)
            if isinstance(posted_at, datetime) and posted_at.tzinfo is None:
                posted_at = posted_at.replace(tzinfo=UTC)
            books.entries[entry.id] = oracle.Entry(
                entry.id,
                self._tenant(entry),
                getattr(entry, "fiscal_year", 0),
                getattr(entry, "voucher_series", ""),
                str(entry.voucher_number),
                entry.entry_date,
                "posted" if entry.posted else "draft",
                posted_at,
                self.word(entry.source_type),
                entry.source_id,
                getattr(entry, "reverses_id", None),
            )
        for line in self._all(self.binding.line):
            books.lines[line.id] = oracle.Line(
                line.id,
                line.general_ledger_id,
                line.line_number,
                str(line.account_number),
                self.desk.books().signed(line),
                Decimal(0),
                getattr(line, "currency", self.desk.sync.settings.currency),
                getattr(line, "currency_amount", None),
                getattr(line, "reference", None),
                getattr(line, "due_date", None),
            )
        for link in self._all(self.binding.link):
            kind = self.word(getattr(link, "kind", None))
            books.links[link.line_id] = oracle.Link(link.line_id, self.word(link.source_type), link.source_id, kind)
        for ledger in self.binding.ledgers:
            for document in ledger.documents:
                for found in self._all(document.model):
                    books.documents[document.name, found.id] = self._document(document, found)
        return books

    def _document(self, bound: Document, found: Any) -> oracle.Document:
        def own(name: str) -> Any:
            called = getattr(bound, name)
            return None if called is None else getattr(found, called)

        kind = None
        if bound.role == "invoice":
            kind = self.word(own("kind")) if bound.kind else "invoice"
        number = own("number")
        return oracle.Document(
            bound.name,
            found.id,
            self._tenant(found),
            own("party"),
            own("date"),
            None if number is None else str(number),
            own("due_date"),
            own("reference"),
            kind,
            own("credits"),
        )

    def items(self) -> dict[tuple[str, Any], dict[str, Any]]:
        """The stored open items by ledger and line, with those columns that the host's class has."""
        stored: dict[tuple[str, Any], dict[str, Any]] = {}
        names = [
            *("tenant_id", "general_ledger_id", "general_ledger_line_id", "account_number", "source_type", "source_id"),
            *("kind", "invoice_number", "invoice_date", "due_date", "entry_date", "currency", "currency_amount"),
            *("amount", "settlement_key"),
        ]
        for ledger in self.binding.ledgers:
            for item in self._all(ledger.item):
                place = (ledger.name, item.general_ledger_line_id)
                assert place not in stored, f"two items for line {place}"
                stored[place] = {name: self.word(getattr(item, name)) for name in names if hasattr(item, name)}
                stored[place]["party_id"] = getattr(item, ledger.party)
                stored[place]["settlement_key"] = _bare_key(item.settlement_key)
        return stored

    def assert_settled(self, name: str) -> None:
        """The remaining amounts and net applications are what the settlement oracle says."""
        ledger = self.binding.ledger(name)
        books = self.books()
        by_place = {(line.entry_id, line.line_number): line.id for line in books.lines.values()}
        items, left, states = [], {}, {}
        for item in self._all(ledger.item):
            line = books.lines[item.general_ledger_line_id]
            entry = books.entries[line.entry_id]
            old = by_place.get((entry.reverses_id, line.line_number)) if item.kind == "reversal" else None
            place = (entry.series, entry.number, entry.fiscal_year, line.line_number)
            key = _bare_key(item.settlement_key)
            tenant, party = self._tenant(item), getattr(item, ledger.party)
            amount = _cents(item.amount)
            items.append(
                Item(line.id, tenant, party, item.account_number, key, amount, item.entry_date, *place, old)  # type: ignore[arg-type]
            )
            left[line.id], states[line.id] = _cents(item.remaining_amount), self.word(item.status)
        hand_made, net = [], {}
        applications = self._all(ledger.application)
        for row in sorted(applications, key=lambda row: row.id):
            pair = (row.from_line_id, row.to_line_id)
            net[pair] = net.get(pair, 0) + _cents(row.amount)
            if row.method in ("manual", "pin", "release"):
                hand_made.append(HandMade(*pair, row.method, _cents(row.amount), row.applied_on))
        expected = settle(items, hand_made, self.desk.sync.settings.settlement)
        assert (left, states) == (expected.remaining, expected.status)
        assert {pair: amount for pair, amount in net.items() if amount} == expected.net


def number_of(voucher: str) -> str:
    """The number in what people call a voucher: 17 of ``B-17/2026``."""
    return voucher.partition("/")[0].rpartition("-")[2]


def _bare_key(key: str | None) -> str | None:
    """A settlement key without the dashes of a UUID, which not every database writes."""
    return None if key is None else key.replace("-", "")


def _cents(amount: Decimal) -> int:
    scaled = Decimal(amount) * 100
    assert scaled == int(scaled), f"{amount} has a fraction of an øre"
    return int(scaled)
