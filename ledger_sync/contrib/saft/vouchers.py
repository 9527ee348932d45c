"""What the books get for a transaction or an opening: a voucher with its lines, and documents behind them.

Pure: records of the file go in, vouchers come out. Every control line that names a customer or supplier gets a
document of its own, so documents are keyed by file line and never by a number that suppliers reuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Final, Literal

from ledger_sync.contrib.saft.records import Account, Line, Party, PartyKind, Transaction
from ledger_sync.control_lines import source_types_on
from ledger_sync.errors import ImportRefusedError
from ledger_sync.settings import ControlAccount, Settings

DocumentName = Literal["customer_invoice", "customer_payment", "vendor_invoice", "vendor_payment"]
PartyKey = tuple[PartyKind, str]
VoucherKey = tuple[int, str, str]

KINDS: Final[tuple[PartyKind, ...]] = ("customer", "supplier")
OPENING_SERIES: Final = "OPENING"
BANK: Final = "19"
"""The standard chart's accounts for bank and cash begin with this (NS 4102)."""

_INVOICES: Final[Mapping[PartyKind, DocumentName]] = {"customer": "customer_invoice", "supplier": "vendor_invoice"}
_PAYMENTS: Final[Mapping[PartyKind, DocumentName]] = {"customer": "customer_payment", "supplier": "vendor_payment"}


@dataclass(frozen=True, slots=True)
class Document:
    """The document behind a line. ``kind`` counts for an invoice; ``number`` too."""

    name: DocumentName
    source_type: str
    party: PartyKey
    kind: Literal["invoice", "credit_note"]
    number: str
    reference: str | None
    on: date
    due_date: date | None
    amount: Decimal


@dataclass(slots=True)
class VoucherLine:
    """A line as it will stand in the books."""

    account_number: str
    debit: Decimal
    credit: Decimal
    currency: str
    currency_amount: Decimal | None = None
    reference: str | None = None
    due_date: date | None = None
    description: str | None = None
    control: bool = False
    document: Document | None = None

    @property
    def signed_amount(self) -> Decimal:
        """Debit less credit."""
        return self.debit - self.credit


@dataclass(slots=True)
class Voucher:
    """A journal entry as it will stand in the books."""

    fiscal_year: int
    series: str
    number: str
    on: date
    posted_on: date
    description: str | None
    file_line: int | None
    lines: list[VoucherLine] = field(default_factory=list)

    @property
    def key(self) -> VoucherKey:
        """What is unique among one tenant's vouchers."""
        return self.fiscal_year, self.series, self.number

    @property
    def name(self) -> str:
        """The voucher as people write it."""
        return f"{self.series}-{self.number}/{self.fiscal_year}"

    @property
    def source(self) -> VoucherLine | None:
        """The line whose document is the entry's own source: the only control line, if it has a document."""
        controls = [line for line in self.lines if line.control]
        return controls[0] if len(controls) == 1 and controls[0].document else None


@dataclass(slots=True)
class Chart:
    """The file's accounts and the parties' openings, and how to make vouchers from them."""

    settings: Settings
    currency: str
    accounts: dict[str, Account] = field(default_factory=dict)
    openings: dict[tuple[str, PartyKey], Decimal] = field(default_factory=dict)

    def add_account(self, account: Account) -> None:
        """Take in an account of the file."""
        if account.number in self.accounts:
            raise ImportRefusedError(f"Account {account.number} appears twice.", line=account.file_line)
        self.accounts[account.number] = account

    def add_openings(self, party: Party) -> None:
        """Take in what a party's opening has on control accounts."""
        for balance in party.balances:
            number = balance.account_number
            if number is not None:
                self._check_account(number, balance.file_line)
            elif self.settings.of_ledger(party.kind):
                number = self.settings.first_account(party.kind)
            if balance.opening and number is not None and self.settings.control_account(number) is not None:
                key = (number, (party.kind, party.number))
                self.openings[key] = self.openings.get(key, Decimal(0)) + balance.opening

    def voucher(self, transaction: Transaction, parties: Mapping[PartyKey, int]) -> Voucher:
        """A transaction as a voucher.

        :raises ImportRefusedError: it names an account or a party that the file does not list.
        """
        _check_parties(transaction, transaction, parties)
        voucher = Voucher(
            transaction.fiscal_year,
            transaction.journal,
            transaction.number,
            transaction.on,
            transaction.posted_on,
            transaction.description,
            transaction.file_line,
        )
        banks = sum(self._is_bank(line) for line in transaction.lines)
        for line in transaction.lines:
            self._check_account(line.account_number, line.file_line)
            _check_parties(line, transaction, parties)
            made = VoucherLine(
                account_number=line.account_number,
                debit=line.debit,
                credit=line.credit,
                currency=line.currency or self.currency,
                currency_amount=line.currency_amount,
                reference=line.cross_reference or line.cid or line.reference_number,
                due_date=line.due_date,
                description=line.description,
            )
            control = self.settings.control_account(line.account_number)
            if control is not None:
                made.control = True
                made.document = self._document(line, transaction, made, control, paid=banks > self._is_bank(line))
            voucher.lines.append(made)
        return voucher

    def opening(self, start: date) -> Voucher:
        """The opening entry of a period: the parties' openings, and what the accounts have beyond them."""
        number = f"{start:%Y-%m}" if start.day == 1 else start.isoformat()
        voucher = Voucher(start.year, OPENING_SERIES, number, start, start, "Opening balance", None)
        detail: dict[str, list[tuple[PartyKey, Decimal]]] = {}
        for (account_number, party), amount in self.openings.items():
            if amount:
                detail.setdefault(account_number, []).append((party, amount))
        for account in [*self.accounts, *(account for account in detail if account not in self.accounts)]:
            control = self.settings.control_account(account)
            rest = self.accounts[account].opening if account in self.accounts else Decimal(0)
            for party, amount in detail.get(account, ()):
                line = self.plain_line(account, amount)
                name, kind = _document_kind(party[0], amount, paid=True)
                source_type = _source_type(control, name)
                called = f"{OPENING_SERIES} {party[1]}"
                line.document = Document(name, source_type, party, kind, called, None, start, None, abs(amount))
                voucher.lines.append(line)
                rest -= amount
            if rest:
                voucher.lines.append(self.plain_line(account, rest))
        return voucher

    def plain_line(self, account_number: str, amount: Decimal) -> VoucherLine:
        """A line of an opening entry without a document."""
        return VoucherLine(
            account_number=account_number,
            debit=max(amount, Decimal(0)),
            credit=max(-amount, Decimal(0)),
            currency=self.currency,
            description="Opening balance",
            control=self.settings.control_account(account_number) is not None,
        )

    def code(self, account_number: str) -> str:
        """An account's number in the standard chart, or its own."""
        account = self.accounts.get(account_number)
        return account.code if account else account_number

    def _check_account(self, number: str, file_line: int) -> None:
        if number not in self.accounts:
            raise ImportRefusedError(f"Account {number} is not among the file's accounts.", line=file_line)

    def _is_bank(self, line: Line) -> bool:
        return self.code(line.account_number).startswith(BANK)

    def _document(
        self, line: Line, transaction: Transaction, made: VoucherLine, control: ControlAccount, *, paid: bool
    ) -> Document | None:
        """What a line is behind, if it names a party; ``paid``: another line of the voucher is on a bank account."""
        party = _party_of(line, transaction, control)
        if party is None:
            return None
        name, kind = _document_kind(party[0], made.signed_amount, paid)
        return Document(
            name=name,
            source_type=_source_type(control, name),
            party=party,
            kind=kind,
            number=line.reference_number or line.source_document or transaction.number,
            reference=made.reference,
            on=transaction.on,
            due_date=line.due_date,
            amount=abs(made.signed_amount),
        )


def _party_of(line: Line, transaction: Transaction, control: ControlAccount) -> PartyKey | None:
    """Whose line it is: the party of the account's own ledger first, the line's before the transaction's."""
    kinds = sorted(KINDS, key=lambda kind: kind != control.ledger)
    for kind in kinds:
        if number := line.customer if kind == "customer" else line.supplier:
            return kind, number
    kind = kinds[0]
    number = transaction.customer if kind == "customer" else transaction.supplier
    return (kind, number) if number and kind == control.ledger else None


def _check_parties(named: Line | Transaction, transaction: Transaction, parties: Mapping[PartyKey, int]) -> None:
    for kind, number in (("customer", named.customer), ("supplier", named.supplier)):
        if number is not None and (kind, number) not in parties:
            raise ImportRefusedError(
                f"Transaction {transaction.number} names {kind} {number}, who is not among the file's {kind}s.",
                line=named.file_line,
            )


def _document_kind(
    kind: PartyKind, signed_amount: Decimal, paid: bool
) -> tuple[DocumentName, Literal["invoice", "credit_note"]]:
    """What a line is behind: an invoice in the ledger's direction, else a payment or a credit note."""
    owed = signed_amount if kind == "customer" else -signed_amount
    if owed >= 0:
        return _INVOICES[kind], "invoice"
    return (_PAYMENTS[kind], "invoice") if paid else (_INVOICES[kind], "credit_note")


def _source_type(control: ControlAccount | None, name: DocumentName) -> str:
    """What the books call a source of that document: its own name before others, and for want of any."""
    words = source_types_on([] if control is None else [control], name)
    return name if name in words or not words else words[0]


def balance(lines: Iterable[VoucherLine]) -> Decimal:
    """Debit less credit over all lines."""
    return sum((line.signed_amount for line in lines), Decimal(0))
