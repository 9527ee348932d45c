"""What the subledgers must contain, worked out line by line in plain Python over plain rows.

The package decides in SQL and decides once, so a mistake there would be made everywhere. This is the second
opinion: it imports nothing from the package, reads the tables by SQL text of its own (``read_books``,
``read_items``) and follows the rules as a person would, one line at a time (``classify``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

INVOICES = {"supplier": "vendor_invoice", "customer": "customer_invoice", "employee": "expense_claim"}
PAYMENTS = {"supplier": "vendor_payment", "customer": "customer_payment"}
TABLES = {"supplier": "supplier_ledger", "customer": "customer_ledger", "employee": "employee_ledger"}
PARTY_COLUMNS = {"supplier": "supplier_id", "customer": "customer_id", "employee": "employee_id"}


# -- plain data ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Control:
    """Control accounts of one ledger. ``accounts``: single numbers, or pairs for ranges of digits."""

    ledger: str
    side: str
    accounts: tuple[str | tuple[str, str], ...]
    sources: Mapping[str, str]

    def covers(self, number: str) -> bool:
        if number in self.accounts:
            return True
        if not (number.isascii() and number.isdigit()):
            return False
        ranges = [account for account in self.accounts if not isinstance(account, str)]
        return any(len(number) == len(low) and int(low) <= int(number) <= int(high) for low, high in ranges)


NORWEGIAN = (
    Control(
        "supplier",
        "credit",
        ("2400",),
        {"vendor_invoice": "vendor_invoice", "ehf_invoice": "vendor_invoice", "vendor_payment": "vendor_payment"},
    ),
    Control(
        "customer",
        "debit",
        ("1500",),
        {"customer_invoice": "customer_invoice", "customer_payment": "customer_payment"},
    ),
    Control("employee", "credit", ("2910",), {"expense_claim": "expense_claim"}),
)


@dataclass(frozen=True)
class Rules:
    """What the settings say. ``cut_over``: one day for everybody, or a day per tenant."""

    controls: tuple[Control, ...] = NORWEGIAN
    cut_over: date | Mapping[str, date] | None = None
    basis: str = "entry_date"

    def day_of(self, tenant: str) -> date | None:
        return self.cut_over.get(tenant) if isinstance(self.cut_over, Mapping) else self.cut_over


@dataclass(frozen=True)
class Entry:
    id: int
    tenant: str
    fiscal_year: int
    series: str
    number: str
    entry_date: date
    status: str
    posted_at: datetime | None
    source_type: str | None
    source_id: int | None
    reverses_id: int | None


@dataclass(frozen=True)
class Line:
    id: int
    entry_id: int
    line_number: int
    account: str
    debit: Decimal
    credit: Decimal
    currency: str
    currency_amount: Decimal | None
    reference: str | None
    due_date: date | None


@dataclass(frozen=True)
class Link:
    line_id: int
    source_type: str
    source_id: int
    kind: str | None


@dataclass(frozen=True)
class Document:
    """A document of any class; what a class doesn't have is None."""

    name: str
    id: int
    tenant: str
    party: int
    day: date
    number: str | None = None
    due_date: date | None = None
    reference: str | None = None
    kind: str | None = None
    credits_id: int | None = None


@dataclass
class Books:
    entries: dict[int, Entry] = field(default_factory=dict)
    lines: dict[int, Line] = field(default_factory=dict)
    links: dict[int, Link] = field(default_factory=dict)
    documents: dict[tuple[str, int], Document] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What a control line must have: a reason, or an item (its columns by name). ``amount`` is in the
    ledger's normal direction."""

    ledger: str
    tenant: str
    account: str
    posted: bool
    amount: Decimal
    reason: str | None
    item: dict[str, Any] | None


# -- the opinion ---------------------------------------------------------------------------------------


def bare(reference: str | None) -> str | None:
    """A reference as it is compared, or None when nothing is left of it."""
    if reference is None:
        return None
    kept = "".join(c for c in reference if c not in " \u00a0\t")
    return "".join(c.upper() if "a" <= c <= "z" else c for c in kept) or None


@dataclass(frozen=True)
class _Reading:
    """A control line with what its source makes of it."""

    line: Line
    entry: Entry
    control: Control
    amount: Decimal
    source: tuple[str | None, int | None]
    document: Document | None
    kind: str
    opens: int | None  # the invoice that the line itself opens
    settles: int | None  # the invoice that the line settles
    key: str | None


class Oracle:
    """One opinion about one state of the books."""

    def __init__(self, books: Books, rules: Rules) -> None:
        self.books = books
        self.rules = rules
        self.by_place = {(line.entry_id, line.line_number): line for line in books.lines.values()}
        self.readings = [
            reading for line in books.lines.values() if (reading := self._read(line, books.entries[line.entry_id]))
        ]

    def classify(self) -> dict[int, Verdict]:
        return {reading.line.id: self._verdict(reading) for reading in self.readings}

    def _read(self, line: Line, entry: Entry) -> _Reading | None:
        control = next((c for c in self.rules.controls if c.covers(line.account)), None)
        if control is None:
            return None
        amount = line.debit - line.credit if control.side == "debit" else line.credit - line.debit
        reversed_line = self._reversed(line, entry)
        origin = reversed_line or line
        origin_entry = self.books.entries[origin.entry_id]
        origin_link = self.books.links.get(origin.id)
        if origin_link is not None:
            source: tuple[str | None, int | None] = (origin_link.source_type, origin_link.source_id)
        else:
            source = (origin_entry.source_type, origin_entry.source_id)
        document = self._document(control.ledger, source, entry.tenant)
        link = self.books.links.get(line.id)
        kind = "payment"
        if reversed_line is not None:
            kind = "reversal"
        elif link is not None and link.kind is not None:
            kind = link.kind
        elif document is not None and document.name == "expense_claim":
            kind = "expense" if amount > 0 else "payment"
        elif document is not None and document.kind == "invoice":
            kind = "invoice" if amount >= 0 else "payment"
        elif document is not None and document.kind == "credit_note":
            kind = "credit_note" if amount < 0 else "payment"
        opens, settles, key = None, None, None
        if document is not None and document.name == "expense_claim":
            key = f"expense_claim:{document.id}"
            if kind == "expense":
                opens = document.id
            else:
                settles = document.id
        elif document is not None and document.kind is not None:
            about = document.credits_id or document.id
            key = f"{document.name}:{about}"
            own = reversed_line is None and (link is None or link.kind is None) and kind == document.kind
            if own and about == document.id:
                opens = about
            else:
                settles = about
        elif document is not None:
            reference = bare(origin.reference) or bare(document.reference)
            if reference is not None:
                settles = self._named(control.ledger, document, reference)
                name = INVOICES[control.ledger]
                key = f"ref:{reference}" if settles is None else f"{name}:{settles}"
        return _Reading(line, entry, control, amount, source, document, kind, opens, settles, key)

    def _reversed(self, line: Line, entry: Entry) -> Line | None:
        """The line that a line of a reversing entry cancels."""
        if entry.reverses_id is None:
            return None
        original = self.books.entries.get(entry.reverses_id)
        if original is None or original.reverses_id is not None or original.tenant != entry.tenant:
            return None
        old = self.by_place.get((entry.reverses_id, line.line_number))
        if old is None or old.account != line.account or old.debit - old.credit != line.credit - line.debit:
            return None
        return old

    def _document(self, ledger: str, source: tuple[str | None, int | None], tenant: str) -> Document | None:
        for control in self.rules.controls:
            if control.ledger == ledger and source[0] in control.sources and source[1] is not None:
                found = self.books.documents.get((control.sources[source[0]], source[1]))
                if found is not None and found.tenant == tenant:
                    return found
        return None

    def _named(self, ledger: str, payment: Document, reference: str) -> int | None:
        """The one invoice of the payment's party that a reference names."""
        invoices = [
            document
            for document in self.books.documents.values()
            if document.name == INVOICES[ledger]
            and document.tenant == payment.tenant
            and document.party == payment.party
        ]
        fitting = [i for i in invoices if bare(i.reference) == reference]
        if not fitting:
            fitting = [i for i in invoices if bare(i.number) == reference]
        targets = {i.credits_id or i.id for i in fitting}
        return targets.pop() if len(targets) == 1 else None

    def _is_before(self, entry: Entry) -> bool:
        day = self.rules.day_of(entry.tenant)
        if day is None:
            return False
        if self.rules.basis == "entry_date":
            return entry.entry_date < day
        return entry.posted_at is not None and entry.posted_at < datetime.combine(day, time(), tzinfo=UTC)

    def _invoice_is_before(self, ledger: str, tenant: str, invoice_id: int) -> bool:
        """An invoice is as old as the lines that open it; without any, as its own date."""
        day = self.rules.day_of(tenant)
        if day is None:
            return False
        opening = [
            self._is_before(r.entry)
            for r in self.readings
            if r.opens == invoice_id
            and r.control.ledger == ledger
            and r.entry.tenant == tenant
            and r.entry.status == "posted"
            and r.entry.reverses_id is None
            and r.amount != 0
        ]
        if opening:
            return all(opening)
        return self.books.documents[INVOICES[ledger], invoice_id].day < day

    def _reason(self, r: _Reading) -> str | None:
        if r.entry.status != "posted":
            return "draft"
        if self._is_before(r.entry):
            return "before_cutover"
        if r.settles is not None and self._invoice_is_before(r.control.ledger, r.entry.tenant, r.settles):
            return "before_cutover"
        if r.source[0] is None:
            return "manual"
        if r.source[0] not in r.control.sources:
            return "unsupported_source"
        return "source_not_found" if r.document is None else "zero_amount" if r.amount == 0 else None

    def _verdict(self, r: _Reading) -> Verdict:
        reason = self._reason(r)
        item: dict[str, Any] | None = None
        if reason is None:
            assert r.document is not None
            currency_amount = r.line.currency_amount
            if currency_amount is not None:
                currency_amount = abs(currency_amount) if r.amount > 0 else -abs(currency_amount)
            item = {
                "tenant_id": r.entry.tenant,
                "general_ledger_id": r.entry.id,
                "general_ledger_line_id": r.line.id,
                "account_number": r.line.account,
                "party_id": r.document.party,
                "source_type": r.source[0],
                "source_id": r.source[1],
                "kind": r.kind,
                "invoice_number": r.document.number,
                "invoice_date": r.document.day,
                "due_date": r.line.due_date or r.document.due_date,
                "entry_date": r.entry.entry_date,
                "currency": r.line.currency,
                "currency_amount": currency_amount,
                "amount": r.amount,
                "settlement_key": r.key,
            }
        posted = r.entry.status == "posted"
        return Verdict(r.control.ledger, r.entry.tenant, r.line.account, posted, r.amount, reason, item)


def classify(books: Books, rules: Rules) -> dict[int, Verdict]:
    """For every control line, by its id, what it must have."""
    return Oracle(books, rules).classify()


def expected_items(books: Books, rules: Rules) -> dict[tuple[str, int], dict[str, Any]]:
    """The open items that there must be, by ledger and line id."""
    verdicts = classify(books, rules).items()
    return {(v.ledger, line_id): v.item for line_id, v in verdicts if v.item is not None}


def expected_causes(books: Books, rules: Rules, tenant: str) -> dict[str, dict[str, tuple[int, Decimal]]]:
    """By account of one tenant and reason: how many posted lines have no item, and what they add up to."""
    causes: dict[str, dict[str, tuple[int, Decimal]]] = {}
    for verdict in classify(books, rules).values():
        if verdict.tenant == tenant and verdict.posted:
            account = causes.setdefault(verdict.account, {})
            if verdict.reason is not None:
                count, amount = account.get(verdict.reason, (0, Decimal(0)))
                account[verdict.reason] = (count + 1, amount + verdict.amount)
    return causes


# -- reading the tables --------------------------------------------------------------------------------


class _Reader:
    """Values as the tables hold them, made plain: on SQLite amounts are scaled integers, dates are text."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.sqlite = connection.dialect.name == "sqlite"

    def rows(self, sql: str) -> Iterable[Any]:
        return self.connection.execute(text(sql)).all()

    def money(self, value: Any, decimals: int = 2) -> Decimal | None:
        if value is None:
            return None
        assert not self.sqlite or isinstance(value, int), f"an amount is stored as {value!r}"
        return Decimal(value) / 10**decimals if self.sqlite else Decimal(value)

    def day(self, value: Any) -> date | None:
        return date.fromisoformat(value) if isinstance(value, str) else value

    def moment(self, value: Any) -> datetime | None:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
        return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found


def read_books(connection: Connection) -> Books:
    """All rows of the plain tables, as the connection's transaction sees them."""
    reader = _Reader(connection)
    day, money = reader.day, reader.money
    books = Books()
    for row in reader.rows("SELECT * FROM general_ledger"):
        books.entries[row.id] = Entry(
            row.id,
            row.tenant_id,
            row.fiscal_year,
            row.voucher_series,
            row.voucher_number,
            day(row.entry_date),  # type: ignore[arg-type]
            row.status,
            reader.moment(row.posted_at),
            row.source_type,
            row.source_id,
            row.reverses_id,
        )
    for row in reader.rows("SELECT * FROM general_ledger_lines"):
        books.lines[row.id] = Line(
            row.id,
            row.general_ledger_id,
            row.line_number,
            row.account_number,
            money(row.debit),  # type: ignore[arg-type]
            money(row.credit),  # type: ignore[arg-type]
            row.currency,
            money(row.currency_amount, 3),
            row.reference,
            day(row.due_date),
        )
    for row in reader.rows("SELECT * FROM ledger_source_links"):
        books.links[row.line_id] = Link(row.line_id, row.source_type, row.source_id, row.kind)
    for name, table, party in (
        ("vendor_invoice", "vendor_invoices", "vendor_id"),
        ("customer_invoice", "customer_invoices", "customer_id"),
    ):
        for row in reader.rows(f"SELECT *, {party} AS party FROM {table}"):
            books.documents[name, row.id] = Document(
                name,
                row.id,
                row.tenant_id,
                row.party,
                day(row.invoice_date),  # type: ignore[arg-type]
                row.invoice_number,
                day(row.due_date),
                row.payment_reference,
                row.kind,
                row.credits_id,
            )
    for name, table, party in (
        ("vendor_payment", "vendor_payments", "vendor_id"),
        ("customer_payment", "customer_payments", "customer_id"),
    ):
        for row in reader.rows(f"SELECT *, {party} AS party FROM {table}"):
            books.documents[name, row.id] = Document(
                name,
                row.id,
                row.tenant_id,
                row.party,
                day(row.payment_date),  # type: ignore[arg-type]
                reference=row.payment_reference,
            )
    for row in reader.rows("SELECT * FROM expense_claims"):
        books.documents["expense_claim", row.id] = Document(
            "expense_claim",
            row.id,
            row.tenant_id,
            row.employee_id,
            day(row.claim_date),  # type: ignore[arg-type]
            row.claim_number,
            day(row.due_date),
        )
    return books


def read_items(connection: Connection) -> dict[tuple[str, int], dict[str, Any]]:
    """All open items that are stored, by ledger and line id, with the columns that the oracle knows."""
    reader = _Reader(connection)
    items: dict[tuple[str, int], dict[str, Any]] = {}
    for ledger, table in TABLES.items():
        for row in reader.rows(f"SELECT *, {PARTY_COLUMNS[ledger]} AS party FROM {table}"):
            place = (ledger, row.general_ledger_line_id)
            assert place not in items, f"two items for line {place}"
            items[place] = {
                "tenant_id": row.tenant_id,
                "general_ledger_id": row.general_ledger_id,
                "general_ledger_line_id": row.general_ledger_line_id,
                "account_number": row.account_number,
                "party_id": row.party,
                "source_type": row.source_type,
                "source_id": row.source_id,
                "kind": row.kind,
                "invoice_number": row.invoice_number,
                "invoice_date": reader.day(row.invoice_date),
                "due_date": reader.day(row.due_date),
                "entry_date": reader.day(row.entry_date),
                "currency": row.currency,
                "currency_amount": reader.money(row.currency_amount, 3),
                "amount": reader.money(row.amount),
                "settlement_key": row.settlement_key,
            }
    return items


def assert_synced(connection: Connection, rules: Rules | None = None) -> None:
    """The stored open items are those that the books call for, column by column."""
    expected = expected_items(read_books(connection), rules or Rules())
    stored = read_items(connection)
    missing = [expected[place] for place in expected.keys() - stored.keys()]
    surplus = [stored[place] for place in stored.keys() - expected.keys()]
    assert not missing, f"items missing: {missing}"
    assert not surplus, f"items that should not be there: {surplus}"
    for place, item in expected.items():
        differing = {n: (stored[place][n], v) for n, v in item.items() if stored[place][n] != v}
        assert not differing, f"line {place}: (stored, expected) {differing}"
