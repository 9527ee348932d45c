"""What the import reads from and writes to one tenant's books: Core statements on one connection, set by set.

Nothing here commits. Bulk statements on the connection are not seen by an attached session's hook; a backfill
writes the open items afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Final, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    Table,
    and_,
    case,
    exists,
    func,
    insert,
    or_,
    select,
    type_coerce,
)

from ledger_sync.contrib.saft.records import Party, PartyKind
from ledger_sync.contrib.saft.vouchers import (
    KINDS,
    OPENING_SERIES,
    Document,
    PartyKey,
    Voucher,
    VoucherKey,
    VoucherLine,
)
from ledger_sync.control_lines import on_accounts, source_types_on
from ledger_sync.dialects import ID_TYPE, parameter_set
from ledger_sync.models import (
    Customer,
    CustomerInvoice,
    CustomerPayment,
    JournalEntry,
    JournalLine,
    Money,
    SourceLink,
    Vendor,
    VendorInvoice,
    VendorPayment,
)
from ledger_sync.settings import Settings

ENTRY: Final = cast(Table, JournalEntry.__table__)
LINE: Final = cast(Table, JournalLine.__table__)
LINK: Final = cast(Table, SourceLink.__table__)
PARTIES: Final[Mapping[PartyKind, Table]] = {
    "customer": cast(Table, Customer.__table__),
    "supplier": cast(Table, Vendor.__table__),
}
DOCUMENTS: Final[Mapping[str, tuple[Table, str]]] = {
    "customer_invoice": (cast(Table, CustomerInvoice.__table__), "customer_id"),
    "customer_payment": (cast(Table, CustomerPayment.__table__), "customer_id"),
    "vendor_invoice": (cast(Table, VendorInvoice.__table__), "vendor_id"),
    "vendor_payment": (cast(Table, VendorPayment.__table__), "vendor_id"),
}
LEDGER_DOCUMENTS: Final[Mapping[PartyKind, tuple[str, ...]]] = {
    "customer": ("customer_invoice", "customer_payment"),
    "supplier": ("vendor_invoice", "vendor_payment"),
}

DESCRIPTION_MAX: Final = 500
NAME_MAX: Final = 250
METHOD: Final = "saft"

LineContent = tuple[str, Decimal, Decimal]


@dataclass(frozen=True, slots=True)
class Existing:
    """A voucher that the books hold."""

    id: int
    on: date
    posted: bool


class Books:
    """One tenant's books on one connection."""

    def __init__(self, connection: Connection, tenant_id: str, currency: str) -> None:
        self.connection = connection
        self.tenant_id = tenant_id
        self.currency = currency
        # what this import posts gets higher keys; so a voucher that it meets again stands in the file twice
        self._highest_before = connection.scalar(select(func.max(ENTRY.c.id))) or 0

    def is_new(self, existing: Existing) -> bool:
        """Whether a voucher has been posted by this import."""
        return existing.id > self._highest_before

    def add_parties(self, kind: PartyKind, parties: Sequence[Party]) -> tuple[dict[PartyKey, int], int]:
        """The ids of some parties; those that the books lack are added. Returns how many that were, too."""
        table = PARTIES[kind]
        query = select(table.c.number, table.c.id).where(
            table.c.tenant_id == self.tenant_id, table.c.number.in_(parameter_set("numbers", table.c.number.type))
        )
        rows = self.connection.execute(query, {"numbers": [party.number for party in parties]})
        ids: dict[PartyKey, int] = {(kind, row.number): row.id for row in rows}
        missing = [party for party in parties if (kind, party.number) not in ids]
        added = self._insert(
            table,
            [{"tenant_id": self.tenant_id, "number": party.number, "name": party.name[:NAME_MAX]} for party in missing],
            "number",
        )
        ids.update(((kind, party.number), party_id) for party, party_id in zip(missing, added, strict=True))
        return ids, len(missing)

    def existing(self, vouchers: Iterable[Voucher]) -> dict[VoucherKey, Existing]:
        """Which of some vouchers the books hold."""
        keys = {voucher.key for voucher in vouchers}
        query = select(
            ENTRY.c.id,
            ENTRY.c.fiscal_year,
            ENTRY.c.voucher_series,
            ENTRY.c.voucher_number,
            ENTRY.c.entry_date,
            ENTRY.c.status,
        ).where(
            ENTRY.c.tenant_id == self.tenant_id,
            ENTRY.c.fiscal_year.in_(sorted({year for year, _, _ in keys})),
            ENTRY.c.voucher_series.in_(parameter_set("series", ENTRY.c.voucher_series.type)),
            ENTRY.c.voucher_number.in_(parameter_set("numbers", ENTRY.c.voucher_number.type)),
        )
        parameters = {
            "series": sorted({series for _, series, _ in keys}),
            "numbers": sorted({number for _, _, number in keys}),
        }
        found = {}
        for row in self.connection.execute(query, parameters):
            key = (row.fiscal_year, row.voucher_series, row.voucher_number)
            if key in keys:
                found[key] = Existing(row.id, row.entry_date, row.status == "posted")
        return found

    def lines_of(self, entry_ids: Iterable[int]) -> dict[int, list[LineContent]]:
        """Account, debit and credit of the lines of some entries, in order."""
        query = (
            select(LINE.c.general_ledger_id, LINE.c.account_number, LINE.c.debit, LINE.c.credit)
            .where(LINE.c.general_ledger_id.in_(parameter_set("entries", ID_TYPE)))
            .order_by(LINE.c.general_ledger_id, LINE.c.line_number)
        )
        lines: dict[int, list[LineContent]] = {}
        for entry_id, account_number, debit, credit in self.connection.execute(query, {"entries": list(entry_ids)}):
            lines.setdefault(entry_id, []).append((account_number, debit, credit))
        return lines

    def post(self, vouchers: Sequence[Voucher], parties: Mapping[PartyKey, int]) -> tuple[int, int]:
        """Write vouchers with their documents and links. Returns how many lines and documents that makes."""
        documents = self._post_documents(
            [line.document for voucher in vouchers for line in voucher.lines if line.document], parties
        )
        sources = [voucher.source for voucher in vouchers]
        entries = self._insert(
            ENTRY,
            [
                self._entry(voucher, source.document if source else None, documents)
                for voucher, source in zip(vouchers, sources, strict=True)
            ],
            "fiscal_year",
            "voucher_series",
            "voucher_number",
        )
        rows = [
            (line, source, self._line(entry_id, number, line))
            for entry_id, voucher, source in zip(entries, vouchers, sources, strict=True)
            for number, line in enumerate(voucher.lines, start=1)
        ]
        line_ids = self._insert(LINE, [row for _, _, row in rows], "general_ledger_id", "line_number")
        links = [
            {
                "line_id": line_id,
                "source_type": line.document.source_type,
                "source_id": documents[id(line.document)],
                "method": METHOD,
            }
            for line_id, (line, source, _) in zip(line_ids, rows, strict=True)
            if line.document is not None and line is not source
        ]
        if links:
            self.connection.execute(insert(LINK), links)
        return len(rows), len(documents)

    def _entry(self, voucher: Voucher, source: Document | None, documents: Mapping[int, int]) -> dict[str, Any]:
        return {
            "tenant_id": self.tenant_id,
            "fiscal_year": voucher.fiscal_year,
            "voucher_series": voucher.series,
            "voucher_number": voucher.number,
            "entry_date": voucher.on,
            "status": "posted",
            "posted_at": datetime.combine(voucher.posted_on, time(), tzinfo=UTC),
            "source_type": source.source_type if source else None,
            "source_id": documents[id(source)] if source else None,
            "description": _cut(voucher.description),
        }

    def _line(self, entry_id: int, line_number: int, line: VoucherLine) -> dict[str, Any]:
        return {
            "general_ledger_id": entry_id,
            "line_number": line_number,
            "account_number": line.account_number,
            "debit": line.debit,
            "credit": line.credit,
            "currency": line.currency,
            "currency_amount": line.currency_amount,
            "reference": line.reference,
            "due_date": line.due_date,
            "description": _cut(line.description),
        }

    def _post_documents(self, documents: Sequence[Document], parties: Mapping[PartyKey, int]) -> dict[int, int]:
        """The new ids of documents, by the documents' own identity: two may well be equal."""
        ids: dict[int, int] = {}
        for name, (table, party_column) in DOCUMENTS.items():
            chosen = [document for document in documents if document.name == name]
            rows = [self._document(document, party_column, parties) for document in chosen]
            keys = self._insert(table, rows, *rows[0]) if rows else []
            ids.update((id(document), key) for document, key in zip(chosen, keys, strict=True))
        return ids

    def _document(self, document: Document, party_column: str, parties: Mapping[PartyKey, int]) -> dict[str, Any]:
        row = {
            "tenant_id": self.tenant_id,
            party_column: parties[document.party],
            "currency": self.currency,
            "amount": document.amount,
            "payment_reference": document.reference,
        }
        if document.name.endswith("_payment"):
            return {**row, "payment_date": document.on}
        return {
            **row,
            "kind": document.kind,
            "invoice_number": document.number,
            "invoice_date": document.on,
            "due_date": document.due_date,
        }

    def _insert(self, table: Table, rows: list[dict[str, Any]], *told_by: str) -> list[int]:
        """Insert rows; their keys, in the rows' order. ``told_by`` names the columns that tell rows apart.

        Rows that these do not tell apart are interchangeable. (Asking SQLAlchemy for the keys in order would
        cost a statement per row on SQLite.)
        """
        if not rows:
            return []
        statement = insert(table).returning(table.c.id, *(table.c[name] for name in told_by))
        keys: dict[tuple[Any, ...], list[int]] = {}
        for key, *content in self.connection.execute(statement, rows):
            keys.setdefault(tuple(content), []).append(key)
        for alike in keys.values():
            alike.sort(reverse=True)
        return [keys[tuple(row[name] for name in told_by)].pop() for row in rows]

    def has_opening_after(self, start: date) -> bool:
        """Whether the books begin with an opening entry later than a day."""
        query = exists().where(
            ENTRY.c.tenant_id == self.tenant_id, ENTRY.c.voucher_series == OPENING_SERIES, ENTRY.c.entry_date > start
        )
        return bool(self.connection.scalar(select(query)))

    def has_entries_before(self, start: date) -> bool:
        """Whether there are entries of earlier periods."""
        query = exists().where(ENTRY.c.tenant_id == self.tenant_id, _before(start))
        return bool(self.connection.scalar(select(query)))

    def account_balances_before(self, start: date) -> dict[tuple[str, int], Decimal]:
        """Debit less credit before a day, by account and fiscal year."""
        query = (
            select(LINE.c.account_number, ENTRY.c.fiscal_year, _signed_sum())
            .join(ENTRY, ENTRY.c.id == LINE.c.general_ledger_id)
            .where(ENTRY.c.tenant_id == self.tenant_id, ENTRY.c.status == "posted", _before(start))
            .group_by(LINE.c.account_number, ENTRY.c.fiscal_year)
        )
        return {(account, year): amount for account, year, amount in self.connection.execute(query)}

    def party_balances_before(self, start: date, settings: Settings) -> dict[tuple[str, PartyKey], Decimal]:
        """Debit less credit before a day, by control account and party, through the documents."""
        balances: dict[tuple[str, PartyKey], Decimal] = {}
        for kind in KINDS:
            for name in LEDGER_DOCUMENTS[kind]:
                query = self._through_documents(kind, name, settings).where(_before(start))
                for account, number, amount in self.connection.execute(query):
                    key = (account, (kind, number))
                    balances[key] = balances.get(key, Decimal(0)) + amount
        return balances

    def _through_documents(self, kind: PartyKind, name: str, settings: Settings) -> Select[Any]:
        document, party_column = DOCUMENTS[name]
        party = PARTIES[kind]
        linked = LINK.c.line_id.is_not(None)
        source_type: ColumnElement[Any] = case((linked, LINK.c.source_type), else_=ENTRY.c.source_type)
        source_id: ColumnElement[Any] = case((linked, LINK.c.source_id), else_=ENTRY.c.source_id)
        # the import gives a document its own name where the settings have no word for it
        types = {name, *source_types_on(settings.control_accounts, name)}
        return (
            select(LINE.c.account_number, party.c.number, _signed_sum())
            .select_from(LINE)
            .join(ENTRY, ENTRY.c.id == LINE.c.general_ledger_id)
            .outerjoin(LINK, LINK.c.line_id == LINE.c.id)
            .join(
                document,
                and_(
                    document.c.id == source_id,
                    document.c.tenant_id == ENTRY.c.tenant_id,
                    type_coerce(source_type, String()).in_(sorted(types)),
                ),
            )
            .join(party, party.c.id == document.c[party_column])
            .where(
                ENTRY.c.tenant_id == self.tenant_id,
                ENTRY.c.status == "posted",
                on_accounts(LINE.c.account_number, settings.control_accounts),
            )
            .group_by(LINE.c.account_number, party.c.number)
        )


def _signed_sum() -> ColumnElement[Decimal]:
    return func.sum(type_coerce(LINE.c.debit - LINE.c.credit, Money()), type_=Money())


def _before(start: date) -> ColumnElement[bool]:
    """Whether an entry belongs to an earlier period: of an earlier fiscal year, or dated before it."""
    # what is dated in December and booked in January belongs to the file of January
    return or_(
        ENTRY.c.fiscal_year < start.year,
        and_(ENTRY.c.fiscal_year == start.year, ENTRY.c.entry_date < start),
    )


def lies_before(voucher: Voucher, start: date) -> bool:
    """``_before`` for a voucher of the file."""
    return voucher.fiscal_year < start.year or (voucher.fiscal_year == start.year and voucher.on < start)


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:DESCRIPTION_MAX]
