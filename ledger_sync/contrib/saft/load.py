"""The import: records of a file go in, and posted vouchers come out, in one transaction.

``import_saft`` is the way in. The first file of a company gets an opening entry; one that continues an earlier
file has its openings compared with the books instead. What is there already is compared, never rewritten.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Final, Literal

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ledger_sync.contrib.saft.posting import Books, Existing, lies_before
from ledger_sync.contrib.saft.read import SaftFile
from ledger_sync.contrib.saft.records import Account, Header, Party, Total, Transaction
from ledger_sync.contrib.saft.vouchers import KINDS, Chart, PartyKey, Voucher, balance
from ledger_sync.errors import ImportRefusedError
from ledger_sync.models import JournalEntry
from ledger_sync.results import Result
from ledger_sync.settings import Settings

LINES_PER_WRITE: Final = 5_000
PARTIES_PER_WRITE: Final = 5_000
WARNINGS_MAX: Final = 100
ACCOUNT_NUMBER_MAX: Final = 20
BALANCE_SHEET: Final = ("1", "2")


class SaftProgress(Result):
    """How far an import is: bytes of the file read, and transactions met so far. Nothing is committed yet."""

    bytes_read: int
    bytes_total: int
    entries: int


class SaftReport(Result):
    """What an import did.

    ``entries``, ``lines``, ``customers``, ``suppliers`` and ``documents`` count new rows, the opening entry's
    among them; ``entries_existing`` counts entries that were there with the same content. ``opening``: the
    opening entry was ``posted``, or was ``existing``; the openings were ``compared`` with the books, since the
    file continues an earlier one; or there are ``none``.
    """

    tenant_id: str
    company_name: str
    version: str
    period_start: date
    period_end: date | None
    entries: int
    lines: int
    customers: int
    suppliers: int
    documents: int
    entries_existing: int
    opening: Literal["posted", "compared", "existing", "none"]
    warnings: tuple[str, ...]


OnSaftProgress = Callable[[SaftProgress], object]


def import_saft(
    factory: Callable[[], Session],
    path: str | Path,
    *,
    settings: Settings | None = None,
    contra_account: str | None = None,
    tenant_id: str | None = None,
    on_progress: OnSaftProgress | None = None,
) -> SaftReport:
    """Import a SAF-T Financial file, whole or not at all. The tenant is the company's registration number.

    The open items are written by a backfill afterwards.

    :param factory: makes the one session whose transaction takes the import; it is committed at the end.
    :param settings: which accounts are control accounts; Norwegian defaults unless given.
    :param contra_account: takes what the opening balances do not balance by; without it such a file is refused.
        It need not be among the file's accounts.
    :param on_progress: called with a ``SaftProgress`` after every write. If it raises, nothing is imported.
    :param tenant_id: whose file it must be, where somebody else than the host chooses the file; anybody's unless given.
    :raises ImportRefusedError: the file is not SAF-T, malformed, unbalanced, or contradicts the books. It names
        the file, and the line where there is one; nothing has been imported.
    """
    if contra_account is not None and not 0 < len(contra_account.strip()) <= ACCOUNT_NUMBER_MAX:
        raise ImportRefusedError(f"The contra account {contra_account!r} is no account number.")
    entry = inspect(JournalEntry)
    try:
        with factory() as session:
            connection = session.connection(
                bind_arguments={"mapper": entry}, execution_options={"ledger_sync_begin": "IMMEDIATE"}
            )
            file = SaftFile(path)
            report = _Import(connection, file, settings or Settings(), contra_account, on_progress, tenant_id).run()
            session.commit()
    except ImportRefusedError as error:
        raise error if error.file is not None else error.of(Path(path).name) from error
    except IntegrityError as error:
        raise ImportRefusedError(
            "Somebody else wrote the same vouchers or parties meanwhile. Nothing has been imported; import again.",
            file=Path(path).name,
        ) from error
    return report


class _Import:
    """One import on its way through a file."""

    def __init__(
        self,
        connection: Connection,
        file: SaftFile,
        settings: Settings,
        contra_account: str | None,
        on_progress: OnSaftProgress | None,
        tenant_id: str | None,
    ) -> None:
        self.connection = connection
        self.file = file
        self.settings = settings
        self.contra_account = contra_account.strip() if contra_account is not None else None
        self.on_progress = on_progress
        self.tenant_id = tenant_id
        self.header: Header | None = None
        self.parties: dict[PartyKey, int] = {}
        self.stated: dict[str, Decimal] = {}
        self.counted = {"NumberOfEntries": Decimal(0), "TotalDebit": Decimal(0), "TotalCredit": Decimal(0)}
        self.warnings: list[str] = []
        self.warnings_left_out = 0
        self.new = {"entries": 0, "lines": 0, "documents": 0, "customer": 0, "supplier": 0}
        self.entries_existing = 0
        self.start: date | None = None
        self.opening: Literal["posted", "compared", "existing", "none"] = "none"
        # what the file itself dates before its period: the books' own balances exclude it
        self.early_accounts: dict[tuple[str, int], Decimal] = {}
        self.early_parties: dict[tuple[str, PartyKey], Decimal] = {}
        self._waiting_parties: list[Party] = []
        self._waiting: list[Transaction] = []
        self._waiting_lines = 0

    def run(self) -> SaftReport:
        """Read the file to its end and write what it holds."""
        for record in self.file:
            if isinstance(record, Header):
                self._begin(record)
            elif isinstance(record, Account):
                self._before_transactions(record)
                self.chart.add_account(record)
            elif isinstance(record, Party):
                self._before_transactions(record)
                self._take_party(record)
            elif isinstance(record, Total):
                self.stated[record.name] = record.value
            else:
                self._take(record)
        self._open(None)
        self._write()
        if self.opening == "compared":
            self._compare_openings()
        self._compare_totals()
        self._tell()
        return self._report()

    def _begin(self, header: Header) -> None:
        if self.header is not None:
            raise ImportRefusedError("It has a second Header.")
        if self.tenant_id is not None and header.registration_number != self.tenant_id:
            raise ImportRefusedError(
                f"It is the file of company {header.registration_number}, not of {self.tenant_id}. Nothing is imported."
            )
        self.header = header
        self.chart = Chart(self.settings, header.currency)
        self.books = Books(self.connection, header.registration_number, header.currency)

    def _before_transactions(self, record: Account | Party) -> None:
        if self.start is not None:
            raise ImportRefusedError(f"{record.number} is listed after the first transaction.", line=record.file_line)

    def _take_party(self, party: Party) -> None:
        self.chart.add_openings(party)
        if (party.kind, party.number) in self.parties:
            raise ImportRefusedError(f"The {party.kind} {party.number} appears twice.", line=party.file_line)
        self.parties[party.kind, party.number] = 0  # its id comes when it is written
        self._waiting_parties.append(party)
        if len(self._waiting_parties) >= PARTIES_PER_WRITE:
            self._write_parties()

    def _write_parties(self) -> None:
        for kind in KINDS:
            chosen = [party for party in self._waiting_parties if party.kind == kind]
            if chosen:
                ids, added = self.books.add_parties(kind, chosen)
                self.parties.update(ids)
                self.new[kind] += added
        self._waiting_parties = []
        self._tell()

    def _take(self, transaction: Transaction) -> None:
        self._open(transaction)
        self._waiting.append(transaction)
        self._waiting_lines += len(transaction.lines)
        if self._waiting_lines >= LINES_PER_WRITE:
            self._write()

    def _open(self, first: Transaction | None) -> None:
        """What is due between the parties and the first transaction: post the openings, or leave them to compare."""
        if self.start is not None or self.header is None:
            return
        self._write_parties()
        self.start = self.header.start
        if self.start is None:
            self.start = date(first.fiscal_year if first else self.header.created.year, 1, 1)
            self._warn(f"The file names no period; its openings are taken to be those of {self.start}.")
        voucher = self.chart.opening(self.start)
        existing = self.books.existing([voucher]).get(voucher.key)
        if existing is not None:
            self._check_opening(voucher, existing)
            self.opening = "existing"
            self.entries_existing += 1
        elif self.books.has_entries_before(self.start):
            self.opening = "compared"
        elif voucher.lines:
            self._post_opening(voucher)
            self.opening = "posted"

    def _post_opening(self, voucher: Voucher) -> None:
        if self.books.has_opening_after(voucher.on):
            raise ImportRefusedError(
                f"The books begin with an opening entry later than {voucher.on}, which holds what this file would "
                "add. Import the files of a company oldest first."
            )
        excess = balance(voucher.lines)
        if excess:
            if self.contra_account is None:
                raise ImportRefusedError(
                    f"The opening balances do not balance: debit less credit is {excess:,.2f}. Name an account that "
                    "takes the difference: contra_account=…, on the command line --contra-account."
                )
            voucher.lines.append(self.chart.plain_line(self.contra_account, -excess))
            self._warn(
                f"The opening balances do not balance: debit less credit is {excess:,.2f}. Account "
                f"{self.contra_account} takes the difference."
            )
        self._count(self.books.post([voucher], self.parties), 1)

    def _check_opening(self, voucher: Voucher, existing: Existing) -> None:
        expected = [(line.account_number, line.debit, line.credit) for line in voucher.lines]
        found = self.books.lines_of([existing.id]).get(existing.id, [])
        excess = balance(voucher.lines)
        # any account may have taken the difference
        rest = [credit - debit for _, debit, credit in found[len(expected) :]]
        if found[: len(expected)] != expected or rest != ([excess] if excess else []):
            raise ImportRefusedError(
                f"The opening entry {voucher.name} is in the books with other balances than the file's. Reverse it "
                "before another version of the file is imported, or import the version that the books came from."
            )

    def _write(self) -> None:
        """Write the transactions that wait; compare those that the books hold."""
        vouchers = [self.chart.voucher(transaction, self.parties) for transaction in self._waiting]
        self._waiting, self._waiting_lines = [], 0
        seen = set()
        for voucher in vouchers:
            if voucher.key in seen:
                raise _twice(voucher)
            seen.add(voucher.key)
            self._add_up(voucher)
        if vouchers:
            existing = self.books.existing(vouchers)
            self._compare([voucher for voucher in vouchers if voucher.key in existing], existing)
            fresh = [voucher for voucher in vouchers if voucher.key not in existing]
            self._count(self.books.post(fresh, self.parties), len(fresh))
            self._tell()

    def _add_up(self, voucher: Voucher) -> None:
        self.counted["NumberOfEntries"] += 1
        for line in voucher.lines:
            self.counted["TotalDebit"] += line.debit
            self.counted["TotalCredit"] += line.credit
        if self.opening == "compared" and self.start is not None and lies_before(voucher, self.start):
            for line in voucher.lines:
                account = (line.account_number, voucher.fiscal_year)
                self.early_accounts[account] = self.early_accounts.get(account, Decimal(0)) + line.signed_amount
                if line.document is not None:
                    party = (line.account_number, line.document.party)
                    self.early_parties[party] = self.early_parties.get(party, Decimal(0)) + line.signed_amount

    def _compare(self, vouchers: list[Voucher], existing: dict[tuple[int, str, str], Existing]) -> None:
        lines = self.books.lines_of(existing[voucher.key].id for voucher in vouchers) if vouchers else {}
        for voucher in vouchers:
            there = existing[voucher.key]
            if self.books.is_new(there):
                raise _twice(voucher)
            content = [(line.account_number, line.debit, line.credit) for line in voucher.lines]
            if not there.posted or there.on != voucher.on or lines.get(there.id, []) != content:
                raise ImportRefusedError(
                    f"Voucher {voucher.name} is in the books with another content. Posted entries are never "
                    "rewritten: reverse it and post the right one, or import the file that the books came from.",
                    line=voucher.file_line,
                )
        self.entries_existing += len(vouchers)

    def _compare_openings(self) -> None:
        """Warn of every opening that differs from what the books hold before the period."""
        start = self.start
        if start is None:
            return
        held = self.books.account_balances_before(start)
        for key, amount in self.early_accounts.items():
            held[key] = held.get(key, Decimal(0)) - amount
        continues_year = any(year == start.year for _, year in held)
        accounts = dict.fromkeys([*self.chart.accounts, *sorted(account for account, _ in held)])
        for account in accounts:
            in_balance_sheet = self.chart.code(account).startswith(BALANCE_SHEET)
            if not in_balance_sheet and not continues_year:
                continue  # results are closed into equity at the year's end
            years = [year for number, year in held if number == account and (in_balance_sheet or year == start.year)]
            self._compare_opening(
                f"Account {account}",
                self.chart.accounts[account].opening if account in self.chart.accounts else Decimal(0),
                sum((held[account, year] for year in years), Decimal(0)),
            )
        by_party = self.books.party_balances_before(start, self.settings)
        for party_key, amount in self.early_parties.items():
            by_party[party_key] = by_party.get(party_key, Decimal(0)) - amount
        for account, party in dict.fromkeys([*self.chart.openings, *sorted(by_party)]):
            self._compare_opening(
                f"{party[0].capitalize()} {party[1]} on account {account}",
                self.chart.openings.get((account, party), Decimal(0)),
                by_party.get((account, party), Decimal(0)),
            )

    def _compare_opening(self, what: str, stated: Decimal, held: Decimal) -> None:
        if stated != held:
            self._warn(
                f"{what} opens with {stated:,.2f} in the file, but the books hold {held:,.2f} before {self.start} "
                "(debit less credit)."
            )

    def _compare_totals(self) -> None:
        for name, value in self.stated.items():
            if value != self.counted[name]:
                decimals = 0 if name == "NumberOfEntries" else 2
                self._warn(
                    f"{name} is {value:,.{decimals}f} in the file, but its transactions make "
                    f"{self.counted[name]:,.{decimals}f}."
                )

    def _count(self, written: tuple[int, int], entries: int) -> None:
        lines, documents = written
        self.new["entries"] += entries
        self.new["lines"] += lines
        self.new["documents"] += documents

    def _warn(self, warning: str) -> None:
        if len(self.warnings) < WARNINGS_MAX:
            self.warnings.append(warning)
        else:
            self.warnings_left_out += 1

    def _tell(self) -> None:
        if self.on_progress is not None:
            self.on_progress(
                SaftProgress(
                    bytes_read=self.file.bytes_read,
                    bytes_total=self.file.bytes_total,
                    entries=int(self.counted["NumberOfEntries"]),
                )
            )

    def _report(self) -> SaftReport:
        header, start = self.header, self.start
        if header is None or start is None:
            raise ImportRefusedError("It has no Header, so it names no company.")
        more = (f"{self.warnings_left_out:,} more warnings are left out.",) if self.warnings_left_out else ()
        return SaftReport(
            tenant_id=header.registration_number,
            company_name=header.company_name,
            version=header.version,
            period_start=start,
            period_end=header.end,
            entries=self.new["entries"],
            lines=self.new["lines"],
            customers=self.new["customer"],
            suppliers=self.new["supplier"],
            documents=self.new["documents"],
            entries_existing=self.entries_existing,
            opening=self.opening,
            warnings=(*self.warnings, *more),
        )


def _twice(voucher: Voucher) -> ImportRefusedError:
    return ImportRefusedError(f"Voucher {voucher.name} appears twice in the file.", line=voucher.file_line)
