"""A SAF-T file as a stream of plain records, in the order of the file: header, accounts, parties, transactions.

The file is fed to the parser block by block and every element is dropped once it has been read, so memory
does not grow with the file. No entity is resolved, nothing is fetched, and a document type is refused before
the parser sees it. Whatever is malformed is refused with its line.
"""

from __future__ import annotations

import calendar
import codecs
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Final, cast

from lxml import etree

from ledger_sync.contrib.saft.fields import NAMESPACE, Fields, line_of, quoted
from ledger_sync.contrib.saft.records import (
    Account,
    Balance,
    Header,
    Line,
    Party,
    PartyKind,
    Record,
    Total,
    Transaction,
)
from ledger_sync.errors import ImportRefusedError
from ledger_sync.models.types import CURRENCY_DECIMALS

BLOCK_BYTES: Final = 1 << 16
PROLOG_BYTES_MAX: Final = 1 << 20
ELEMENT_BYTES_MAX: Final = 64 << 20
"""No account, party or transaction may take more than this, since each is held in memory as a whole."""

_CONTENT: Final = ("Header", "Account", "Customer", "Supplier", "Journal", "JournalID", "Transaction")
_TOTALS: Final = ("NumberOfEntries", "TotalDebit", "TotalCredit")
# what else repeats in a file; not read, but dropped on the way
_PASSED_OVER: Final = (
    "Taxonomy",
    "TaxTableEntry",
    "UOMTableEntry",
    "AnalysisTypeTableEntry",
    "MovementTypeTableEntry",
    "Product",
    "PhysicalStockEntry",
    "Owner",
    "Asset",
    "Invoice",
    "Payment",
    "StockMovement",
    "AssetTransaction",
)
_TAGS: Final = ["{*}AuditFile", *(f"{{{NAMESPACE}}}{name}" for name in (*_CONTENT, *_TOTALS, *_PASSED_OVER))]
_PARENTS: Final = {
    "Header": "AuditFile",
    "Account": "GeneralLedgerAccounts",
    "Customer": "Customers",
    "Supplier": "Suppliers",
    "JournalID": "Journal",
    "Transaction": "Journal",
    **dict.fromkeys(_TOTALS, "GeneralLedgerEntries"),
}

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
_ENCODINGS: Final = frozenset({"utf-8", "utf-16", "iso8859-1", "iso8859-15", "cp1252", "ascii"})
_PROLOG: Final = re.compile(r"(?:\s|<\?.*?\?>|<!--.*?-->)*", re.DOTALL)
_DECLARED: Final = re.compile(r"""<\?xml\s[^>]*?encoding\s*=\s*["']([^"']*)""")
_ROOT: Final = re.compile(r"<(?:[^\s/<>:]+:)?([^\s/<>:]+)")


class SaftFile:
    """A file on its way through the parser; iterate it once. ``bytes_read`` tells how far it is."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.bytes_read = 0
        self.bytes_total = 0
        self._journal: str | None = None

    def __iter__(self) -> Iterator[Record]:
        """The records of the file.

        :raises ImportRefusedError: the file cannot be read, is not a SAF-T file, or is malformed.
        """
        try:
            self.bytes_total = self.path.stat().st_size
            yield from self._records()
        except OSError as error:
            raise ImportRefusedError(f"It cannot be read: {error.strerror or error}.", file=str(self.path)) from error
        except etree.XMLSyntaxError as error:
            raise ImportRefusedError(
                f"It is not well-formed XML, or is cut off: {_shown(error.msg or '', 200)}.",
                line=error.lineno,
                file=self.path.name,
            ) from error
        except ImportRefusedError as error:
            raise error.of(self.path.name) from error

    def _records(self) -> Iterator[Record]:
        self._check_prolog()
        began = False
        for element in self._elements():
            name = element.tag.rpartition("}")[2]
            parent = element.getparent()
            if name not in _PARENTS or parent is None or parent.tag != f"{{{NAMESPACE}}}{_PARENTS[name]}":
                continue
            record = self._record(name, element)
            if record is None:
                continue
            if not began and not isinstance(record, Header):
                raise ImportRefusedError(f"{name} comes before the Header.", line=line_of(element))
            began = True
            yield record
        if not began:
            raise ImportRefusedError("It has no Header, so it names no company.")

    def _check_prolog(self) -> None:
        """Refuse what is not XML, has a document type, or another root, before any parser sees it."""
        with self.path.open("rb") as stream:
            head = stream.read(PROLOG_BYTES_MAX)
        if not head.strip():
            raise ImportRefusedError("It is empty.")
        if head.startswith((b"PK\x03\x04", b"\x1f\x8b")):
            raise ImportRefusedError("It is a packed archive. Unpack it, and import the XML file in it.")
        codec = next((codec for mark, codec in _MARKS if head.startswith(mark)), "latin-1")
        text = head.decode(codec, "replace").removeprefix("\ufeff")
        declared = _DECLARED.match(text)
        if declared and not _known(declared[1]):
            raise ImportRefusedError(f"The encoding {quoted(declared[1])} is not supported. Save it as UTF-8.", line=1)
        prolog = _PROLOG.match(text)
        rest = text[prolog.end() :] if prolog else text
        line = text[: len(text) - len(rest)].count("\n") + 1
        if rest.upper().startswith("<!DOCTYPE"):
            raise ImportRefusedError(
                "The file has a document type (DOCTYPE). SAF-T files have none, and one can hide entities that "
                "swell or reach outside; it is refused unread.",
                line=line,
            )
        root = _ROOT.match(rest)
        if root is None:
            raise ImportRefusedError("It is not XML.", line=line)
        if root[1] != "AuditFile":
            raise ImportRefusedError(
                f"The root element is {root[1][:100]}, not AuditFile: not a SAF-T file.", line=line
            )

    def _elements(self) -> Iterator[etree._Element]:
        parser = etree.XMLPullParser(
            events=("start", "end"),
            tag=_TAGS,
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            dtd_validation=False,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
        )
        held = 0
        with self.path.open("rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                parser.feed(block)
                self.bytes_read += len(block)
                held += len(block)
                # the stubs know of other events, too; these two always come with an element
                for event, element in cast("Iterator[tuple[str, etree._Element]]", parser.read_events()):
                    if event == "start":
                        if element.getparent() is None:
                            _check_root(element)
                        continue
                    held = 0
                    yield element
                    _drop(element)
                if held > ELEMENT_BYTES_MAX:
                    raise ImportRefusedError(
                        f"After {self.bytes_read:,} bytes there have been {held:,} without an account, party or "
                        "transaction coming to its end. This is no ordinary SAF-T file."
                    )
        parser.close()

    def _record(self, name: str, element: etree._Element) -> Record | None:
        fields = Fields(element)
        if name == "JournalID":
            self._journal = fields.own_identifier(20)
            return None
        if name == "Transaction":
            if self._journal is None:
                raise fields.refused("has no JournalID before it")
            return _transaction(fields, self._journal)
        reader = _READERS.get(name)
        return reader(fields) if reader else Total(name, fields.own_amount())


def _shown(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _known(encoding: str) -> bool:
    try:
        return codecs.lookup(encoding).name in _ENCODINGS
    except (LookupError, ValueError):
        return False


def _check_root(root: etree._Element) -> None:
    if root.getroottree().docinfo.internalDTD is not None:
        raise ImportRefusedError("The file has a document type (DOCTYPE); SAF-T files have none.", line=1)
    if root.tag != f"{{{NAMESPACE}}}AuditFile":
        namespace = root.tag.removeprefix("{").rpartition("}")[0]  # not QName, which refuses some that lxml reads
        raise ImportRefusedError(
            f"The namespace is {_shown(namespace or 'missing', 100)}, not {NAMESPACE}: "
            "not a Norwegian SAF-T Financial file.",
            line=line_of(root),
        )


def _drop(element: etree._Element) -> None:
    """Free an element that has been read, and the siblings before it."""
    # its own tail stays: the parser may still be adding to it
    element.clear(keep_tail=True)  # type: ignore[call-arg]  # the stubs are older
    parent = element.getparent()
    if parent is not None:
        while element.getprevious() is not None:
            del parent[0]


def _header(fields: Fields) -> Header:
    version = fields.required("AuditFileVersion")
    minor = re.fullmatch(r"1\.(\d\d?)", version, re.ASCII)
    if minor is None or int(minor[1].ljust(2, "0")) > 30:
        raise fields.refused(f"has AuditFileVersion {quoted(version)}; versions 1.10 to 1.30 can be read")
    company = fields.child("Company")
    if company is None:
        raise fields.refused("has no Company")
    selection = fields.child("SelectionCriteria")
    start, end = (None, None) if selection is None else _period(selection)
    return Header(
        version=version,
        registration_number=company.required("RegistrationNumber", 64),
        company_name=company.required("Name"),
        currency=fields.currency("DefaultCurrencyCode") or "NOK",
        created=fields.required_day("AuditFileDateCreated"),
        start=start,
        end=end,
    )


def _period(selection: Fields) -> tuple[date, date]:
    if selection.text("SelectionStartDate") is not None:
        start, end = selection.required_day("SelectionStartDate"), selection.required_day("SelectionEndDate")
    else:
        # period 0 (openings) and 13 (closing) lie in the first and the last month
        month = min(max(selection.required_int("PeriodStart"), 1), 12)
        start = date(selection.required_year("PeriodStartYear"), month, 1)
        month = min(max(selection.required_int("PeriodEnd"), 1), 12)
        year = selection.required_year("PeriodEndYear")
        end = date(year, month, calendar.monthrange(year, month)[1])
    if end < start:
        raise selection.refused(f"ends on {end}, before it starts on {start}")
    return start, end


def _account(fields: Fields) -> Account:
    number = fields.required("AccountID", 20)
    grouping = fields.text("GroupingCode") or ""
    standard = fields.text("StandardAccountID") or (grouping if re.fullmatch(r"\d{4}", grouping) else None)
    return Account(fields.line, number, standard or number, fields.opening())


def _party(fields: Fields, kind: PartyKind, key: str) -> Party:
    balances = [
        Balance(one.line, one.identifier("AccountID", 20), one.opening()) for one in fields.all("BalanceAccount")
    ]
    own = fields.opening()
    if own or not balances:
        # until 1.20 the one balance stands in the party itself
        balances.append(Balance(fields.line, fields.identifier("AccountID", 20), own))
    return Party(fields.line, kind, fields.required(key, 50), fields.required("Name"), tuple(balances))


def _transaction(fields: Fields, journal: str) -> Transaction:
    on = fields.required_day("TransactionDate")
    transaction = Transaction(
        file_line=fields.line,
        journal=journal,
        number=fields.required("TransactionID", 70),
        fiscal_year=fields.required_year("PeriodYear"),
        on=on,
        posted_on=fields.day("GLPostingDate") or fields.day("SystemEntryDate") or on,
        description=fields.text("Description"),
        customer=fields.identifier("CustomerID", 50),
        supplier=fields.identifier("SupplierID", 50),
        lines=tuple(_line(line) for line in fields.all("Line")),
    )
    if not transaction.lines:
        raise fields.refused(f"{transaction.number} has no lines")
    balance = sum((line.debit - line.credit for line in transaction.lines), Decimal(0))
    if balance:
        raise fields.refused(f"{transaction.number} is out of balance by {balance:,} (debit less credit)")
    return transaction


def _line(fields: Fields) -> Line:
    debit, credit = fields.child("DebitAmount"), fields.child("CreditAmount")
    amount = debit or credit
    if amount is None:
        raise fields.refused("has neither DebitAmount nor CreditAmount")
    currency, currency_amount = amount.currency("CurrencyCode"), amount.amount("CurrencyAmount", CURRENCY_DECIMALS)
    foreign = currency is not None and currency_amount is not None
    return Line(
        file_line=fields.line,
        account_number=fields.required("AccountID", 20),
        customer=fields.identifier("CustomerID", 50),
        supplier=fields.identifier("SupplierID", 50),
        debit=debit.required_amount("Amount") if debit else Decimal(0),
        credit=credit.required_amount("Amount") if credit else Decimal(0),
        currency=currency if foreign else None,
        currency_amount=currency_amount if foreign else None,
        source_document=fields.identifier("SourceDocumentID", 70),
        reference_number=fields.identifier("ReferenceNumber", 70),
        cid=fields.identifier("CID", 70),
        cross_reference=fields.identifier("CrossReference", 70),
        due_date=fields.day("DueDate"),
        description=fields.text("Description"),
    )


_READERS: Final[Mapping[str, Callable[[Fields], Record]]] = {
    "Header": _header,
    "Account": _account,
    "Customer": lambda fields: _party(fields, "customer", "CustomerID"),
    "Supplier": lambda fields: _party(fields, "supplier", "SupplierID"),
}
