"""What a SAF-T file says, as plain records: checked texts, dates and exact amounts, each with its line in the file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal

PartyKind = Literal["customer", "supplier"]


@dataclass(frozen=True, slots=True)
class Header:
    """Whose books these are, of which period. ``start`` and ``end`` are null where a 1.10 file names none."""

    version: str
    registration_number: str
    company_name: str
    currency: str
    created: date
    start: date | None
    end: date | None


@dataclass(frozen=True, slots=True)
class Account:
    """A GL account. ``opening`` is debit less credit; ``code`` is its number in the standard chart, or its own."""

    file_line: int
    number: str
    code: str
    opening: Decimal


@dataclass(frozen=True, slots=True)
class Balance:
    """A party's opening, debit less credit, on an account; null where the file does not say which."""

    file_line: int
    account_number: str | None
    opening: Decimal


@dataclass(frozen=True, slots=True)
class Party:
    """A customer or supplier."""

    file_line: int
    kind: PartyKind
    number: str
    name: str
    balances: tuple[Balance, ...]


@dataclass(frozen=True, slots=True)
class Total:
    """What the file says that its transactions add up to."""

    name: str
    value: Decimal


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a transaction."""

    file_line: int
    account_number: str
    customer: str | None
    supplier: str | None
    debit: Decimal
    credit: Decimal
    currency: str | None
    currency_amount: Decimal | None
    source_document: str | None
    reference_number: str | None
    cid: str | None
    cross_reference: str | None
    due_date: date | None
    description: str | None


@dataclass(frozen=True, slots=True)
class Transaction:
    """A voucher. Customer and supplier count for lines that name no party themselves."""

    file_line: int
    journal: str
    number: str
    fiscal_year: int
    on: date
    posted_on: date
    description: str | None
    customer: str | None
    supplier: str | None
    lines: tuple[Line, ...]


Record = Header | Account | Party | Total | Transaction
