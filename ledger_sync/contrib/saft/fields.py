"""The children of one XML element, read as what the SAF-T schema says they are, or refused with their line."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Final, cast

from lxml import etree

from ledger_sync.errors import AmountError, ImportRefusedError
from ledger_sync.models.types import MONEY_DECIMALS, exact

NAMESPACE: Final = "urn:StandardAuditFile-Taxation-Financial:NO"

# xs:date and xs:decimal; Python's own parsers take more than the schema does
_DATE: Final = re.compile(r"(\d{4}-\d\d-\d\d)(?:Z|[+-]\d\d:\d\d)?", re.ASCII)
_DECIMAL: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)", re.ASCII)
_TEXT_SHOWN_MAX: Final = 60


def line_of(element: etree._Element) -> int:
    """Where an element stands in the file."""
    return cast("int | None", element.sourceline) or 0


class Fields:
    """One element. Every reading method takes a child's name; an absent or blank child is null."""

    def __init__(self, element: etree._Element) -> None:
        self.name = element.tag.rpartition("}")[2]
        self._element = element
        self._children = {child.tag.removeprefix(f"{{{NAMESPACE}}}"): child for child in element}

    @property
    def line(self) -> int:
        """Where the element stands in the file."""
        return line_of(self._element)

    def refused(self, problem: str, line: int | None = None) -> ImportRefusedError:
        """The error for this element."""
        return ImportRefusedError(f"{self.name} {problem}.", line=self.line if line is None else line)

    def child(self, name: str) -> Fields | None:
        """The child element of that name."""
        child = self._children.get(name)
        return None if child is None else Fields(child)

    def all(self, name: str) -> list[Fields]:
        """All child elements of that name."""
        return [Fields(child) for child in self._element.iterchildren(f"{{{NAMESPACE}}}{name}")]

    def text(self, name: str) -> str | None:
        """A child's text, without blanks around it."""
        child = self._children.get(name)
        return None if child is None else ((child.text or "").strip() or None)

    def identifier(self, name: str, length: int) -> str | None:
        """A child's text that names something; one that is too long is refused, since cut it names another."""
        found = self.text(name)
        if found is not None and len(found) > length:
            raise self._wrong(name, found, f"has {len(found)} characters; at most {length} can be kept")
        return found

    def required(self, name: str, length: int = 1000) -> str:
        """An identifier that must be there."""
        found = self.identifier(name, length)
        if found is None:
            raise self.refused(f"has no {name}")
        return found

    def own_identifier(self, length: int) -> str:
        """The element's own text."""
        found = (self._element.text or "").strip()
        if not found or len(found) > length:
            raise self.refused(f"{quoted(found)} must have 1 to {length} characters")
        return found

    def currency(self, name: str) -> str | None:
        """A currency code (ISO 4217)."""
        found = self.text(name)
        if found is not None and not re.fullmatch(r"[A-Z]{3}", found):
            raise self._wrong(name, found, "is not a currency code")
        return found

    def day(self, name: str) -> date | None:
        """A date; a time zone behind it is left out."""
        found = self.text(name)
        if found is None:
            return None
        match = _DATE.fullmatch(found)
        try:
            return date.fromisoformat(match[1] if match else "")
        except ValueError:
            raise self._wrong(name, found, "is not a date (YYYY-MM-DD)") from None

    def required_day(self, name: str) -> date:
        """A date that must be there."""
        found = self.day(name)
        if found is None:
            raise self.refused(f"has no {name}")
        return found

    def required_int(self, name: str) -> int:
        """A whole number that must be there."""
        found = self.required(name)
        if not re.fullmatch(r"\d{1,6}", found, re.ASCII):
            raise self._wrong(name, found, "is not a whole number")
        return int(found)

    def required_year(self, name: str) -> int:
        """A year that must be there, within the schema's bounds."""
        found = self.required_int(name)
        if not 1970 <= found <= 2100:
            raise self._wrong(name, str(found), "is not a year between 1970 and 2100")
        return found

    def amount(self, name: str, decimals: int = MONEY_DECIMALS) -> Decimal | None:
        """An exact amount."""
        found = self.text(name)
        return None if found is None else self._exact(name, found, decimals)

    def required_amount(self, name: str) -> Decimal:
        """An exact amount that must be there."""
        found = self.amount(name)
        if found is None:
            raise self.refused(f"has no {name}")
        return found

    def own_amount(self) -> Decimal:
        """The element's own text as an amount."""
        return self._exact("", (self._element.text or "").strip(), MONEY_DECIMALS)

    def opening(self) -> Decimal:
        """The opening balance, debit less credit; zero where there is none."""
        return (self.amount("OpeningDebitBalance") or Decimal(0)) - (self.amount("OpeningCreditBalance") or Decimal(0))

    def _exact(self, name: str, found: str, decimals: int) -> Decimal:
        if not _DECIMAL.fullmatch(found):
            raise self._wrong(name, found, "is not a decimal number")
        try:
            return exact(f"{self.name} {name}".strip(), found, decimals)
        except AmountError as error:
            raise ImportRefusedError(str(error), line=self._line_of(name)) from error

    def _wrong(self, name: str, found: str, problem: str) -> ImportRefusedError:
        return self.refused(f"{name} {quoted(found)} {problem}".strip(), self._line_of(name))

    def _line_of(self, name: str) -> int:
        child = self._children.get(name)
        return self.line if child is None else line_of(child)


def quoted(text: str) -> str:
    """A text from the file as an error shows it."""
    return repr(text if len(text) <= _TEXT_SHOWN_MAX else text[: _TEXT_SHOWN_MAX - 3] + "...")
