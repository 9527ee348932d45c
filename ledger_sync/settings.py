"""What a company's books look like to the library: control accounts, sources, cut-over, limits.

A settings object is frozen and is checked when it is made: one that makes no sense is refused and says
why. Account 1500 to customers, 2400 to suppliers and 2910 to employees are the Norwegian defaults
(NS 4102); any other chart is a matter of ``control_accounts``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ledger_sync.errors import ConfigurationError, shown

LedgerName = Literal["supplier", "customer", "employee"]
Side = Literal["debit", "credit"]

# source_type as it stands in the books -> the document that it means
DEFAULT_SOURCES: Final[Mapping[str, Mapping[str, str]]] = {
    "supplier": {
        "vendor_invoice": "vendor_invoice",
        "ehf_invoice": "vendor_invoice",
        "vendor_payment": "vendor_payment",
    },
    "customer": {"customer_invoice": "customer_invoice", "customer_payment": "customer_payment"},
    "employee": {"expense_claim": "expense_claim"},
}
DEFAULT_SIDES: Final[Mapping[str, Side]] = {"supplier": "credit", "customer": "debit", "employee": "credit"}

_RANGE = re.compile(r"(\d+)\s*[-–]\s*(\d+)", re.ASCII)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    _refused: ClassVar[str]

    if not TYPE_CHECKING:  # which sees the fields' own types

        def __init__(self, **data: object) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                problems = "; ".join(_problems(error))
                raise ConfigurationError(f"{self._refused} no sense: {problems}") from error


def _problems(error: ValidationError, where: tuple[int | str, ...] = ()) -> Iterator[str]:
    """What is wrong, value by value: its name, itself, and what it should be."""
    for problem in error.errors():
        place = (*where, *problem["loc"])
        raised = problem.get("ctx", {}).get("error")
        if isinstance(raised, ConfigurationError) and isinstance(raised.__cause__, ValidationError):
            yield from _problems(raised.__cause__, place)  # of a control account within settings
        elif problem["type"] != "default_factory_not_called":  # which follows from another
            name = ".".join(str(part) for part in place) or "settings"
            given = f" = {shown(problem['input'])}" if problem["loc"] and problem["type"] != "missing" else ""
            yield f"{name}{given}: {problem['msg'] if raised is None else raised}"


class ControlAccount(_Frozen):
    """GL accounts whose detail lives in one subledger.

    ``accounts``: account numbers (``"2400"``) and ranges of digits of one length (``"2400-2409"``; 24001
    is not within it). ``side``: where the ledger's normal balance stands. ``sources``: which
    ``source_type`` in the books means which document.
    """

    _refused = "This control account makes"

    accounts: tuple[str, ...]
    ledger: LedgerName
    side: Side = Field(default_factory=lambda data: DEFAULT_SIDES.get(data.get("ledger", ""), "debit"))
    sources: Mapping[str, str] = Field(
        default_factory=lambda data: dict(DEFAULT_SOURCES.get(data.get("ledger", ""), {}))
    )

    @field_validator("accounts", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("accounts")
    @classmethod
    def _accounts_make_sense(cls, accounts: tuple[str, ...]) -> tuple[str, ...]:
        if not accounts:
            raise ValueError("a control account needs at least one account number")
        for account in accounts:
            if not account or account != account.strip():
                raise ValueError(f"account number {account!r} is empty or has blanks around it")
            if match := _RANGE.fullmatch(account):
                low, high = match.groups()
                if len(low) != len(high) or low > high:
                    raise ValueError(
                        f"account range {account!r} must go upwards between numbers of one length, as 2400-2409"
                    )
        return accounts

    @field_validator("sources")
    @classmethod
    def _sources_make_sense(cls, sources: Mapping[str, str]) -> Mapping[str, str]:
        if not sources:
            raise ValueError("a control account without sources would never have an open item; name some")
        return sources

    def singles(self) -> tuple[str, ...]:
        """The account numbers that are named one by one."""
        return tuple(account for account in self.accounts if not _RANGE.fullmatch(account))

    def ranges(self) -> tuple[tuple[str, str], ...]:
        """The ranges, each as its first and last number, of one length."""
        matches = (_RANGE.fullmatch(account) for account in self.accounts)
        return tuple((match[1], match[2]) for match in matches if match)

    def covers(self, account_number: str) -> bool:
        """Whether an account number is one of these."""
        if account_number in self.singles():
            return True
        return (
            account_number.isascii()
            and account_number.isdigit()
            and any(len(low) == len(account_number) and low <= account_number <= high for low, high in self.ranges())
        )


DEFAULT_CONTROL_ACCOUNTS: Final = (
    ControlAccount(accounts=("2400",), ledger="supplier"),
    ControlAccount(accounts=("1500",), ledger="customer"),
    ControlAccount(accounts=("2910",), ledger="employee"),
)


class Settings(_Frozen):
    """All that the library must be told of the books.

    ``effective_from``: the cut-over, for every tenant or per tenant (``{"acme": date(2026, 1, 1)}``; a
    tenant that is not named has none). Entries dated before it are left alone, by hook and backfill alike.
    ``effective_by``: which date of the entry counts. ``manual``: what to do with a line without a source on
    a control account: ``skip`` it, with the reason, or ``block`` the flush. ``on_error``: ``raise`` fails
    the flush; ``record`` keeps the posting and records the failure where a later backfill finds it.
    ``bulk``: what to do with ``session.execute(insert(…)/update(…)/delete(…))`` on entries, lines, links and
    documents: ``sync`` writes what follows from it at once, and refuses what it cannot see through; ``refuse``
    refuses all; ``warn`` lets it pass with a warning in the log. A statement's execution option
    ``ledger_sync_bulk`` beats it, and may also be ``ignore``. ``settlement``: how open items are settled
    automatically: by ``reference``; or what that leaves, ``oldest_first``; or not at all (``off``).
    ``currency``: the books' own (ISO 4217), for models whose lines have none.
    ``closed_through``: the last day of the closed periods, for every tenant, per tenant, or as a function of
    the tenant; nothing is settled by hand with a date until then.

    Of backfills: a batch is sized to take ``batch_seconds``, between ``batch_lines_min`` and ``batch_lines_max``
    control lines, beginning with ``batch_lines_start``; after it comes a pause of ``nice_ratio`` times as long as it
    took. ``writers_seconds_max``: how long a run waits, before it begins, for transactions in flight (PostgreSQL); what
    commits later is found at its end. ``segment_lines_max``: a worker takes so many lines at a time.
    ``tenant_workers_max``: at most so many workers are at work in one tenant's books at once; any number unless given.
    ``lease_seconds``: a worker that has not committed for so long counts as dead (settling, proving and repairs get
    more, by the lines in the books; settling, proving and the first batch of a segment twice as much with each further
    attempt, and a batch that is taken over is halved). ``retries_max``: how
    often a batch that met a deadlock or the like is tried again. A run stops when more than ``errors_max`` lines or
    documents could not be written, or ``errors_in_a_row_max`` lines one after the other.

    ``examples_max``: a proof shows at most so many examples of each cause and finding.
    """

    _refused = "These settings make"

    control_accounts: tuple[ControlAccount, ...] = DEFAULT_CONTROL_ACCOUNTS
    effective_from: date | Mapping[Any, date] | None = None
    effective_by: Literal["entry_date", "posted_at"] = "entry_date"
    manual: Literal["skip", "block"] = "skip"
    on_error: Literal["raise", "record"] = "raise"
    bulk: Literal["sync", "refuse", "warn"] = "refuse"
    settlement: Literal["reference", "oldest_first", "off"] = "reference"
    currency: str = Field(default="NOK", pattern="^[A-Z]{3}$")
    closed_through: date | Mapping[Any, date] | Callable[[Any], date | None] | None = None
    batch_seconds: float = Field(default=2.0, gt=0, le=600)
    batch_lines_min: int = Field(default=100, ge=1, le=1_000_000)
    batch_lines_start: int = Field(default=10_000, ge=1, le=1_000_000)
    batch_lines_max: int = Field(default=100_000, ge=1, le=1_000_000)
    segment_lines_max: int = Field(default=250_000, ge=1, le=100_000_000)
    writers_seconds_max: float = Field(default=5.0, ge=0, le=3_600)
    nice_ratio: float = Field(default=0.0, ge=0, le=100)
    tenant_workers_max: int | None = Field(default=None, ge=1)
    lease_seconds: float = Field(default=60.0, gt=0, le=86_400)
    retries_max: int = Field(default=8, ge=0, le=100)
    errors_max: int = Field(default=1_000, ge=0)
    errors_in_a_row_max: int = Field(default=50, ge=1)
    examples_max: int = Field(default=5, ge=0, le=1_000)

    @cached_property
    def identity(self) -> str:
        """A text that settings have in common by which the same statements are built, and no others."""
        return self.model_dump_json(exclude={"closed_through"})

    @model_validator(mode="after")
    def _accounts_belong_to_one_ledger(self) -> Settings:
        if not self.control_accounts:
            raise ValueError("control_accounts is empty: the library would have nothing to do")
        pieces = list(self._pieces())
        for index, (low, high, control) in enumerate(pieces):
            for other_low, other_high, other in pieces[index + 1 :]:
                if len(low) == len(other_low) and low <= other_high and other_low <= high:
                    shared = max(low, other_low)
                    where = (
                        f"the {control.ledger} ledger twice"
                        if control.ledger == other.ledger
                        else f"both the {control.ledger} and the {other.ledger} ledger"
                    )
                    raise ValueError(f"account {shared} belongs to {where}; give it to one")
        meanings: dict[tuple[str, str], str] = {}
        for control in self.control_accounts:
            for source_type, document in control.sources.items():
                if meanings.setdefault((control.ledger, source_type), document) != document:
                    raise ValueError(
                        f"source {source_type!r} means both {meanings[control.ledger, source_type]!r} and "
                        f"{document!r} in the {control.ledger} ledger; give it one meaning"
                    )
        return self

    def _pieces(self) -> Iterator[tuple[str, str, ControlAccount]]:
        for control in self.control_accounts:
            for account in control.singles():
                yield account, account, control
            for low, high in control.ranges():
                yield low, high, control

    def ledgers(self) -> tuple[LedgerName, ...]:
        """The ledgers in use, in the order in which they are first named."""
        return tuple(dict.fromkeys(control.ledger for control in self.control_accounts))

    def of_ledger(self, ledger: str) -> tuple[ControlAccount, ...]:
        """The control accounts of one ledger."""
        return tuple(control for control in self.control_accounts if control.ledger == ledger)

    def first_account(self, ledger: str) -> str:
        """The first account number of a ledger's control accounts; the first of a range."""
        control = self.of_ledger(ledger)[0]
        return next(iter(control.singles()), None) or control.ranges()[0][0]

    def control_account(self, account_number: str) -> ControlAccount | None:
        """The control account that an account number belongs to, or None."""
        return next((c for c in self.control_accounts if c.covers(account_number)), None)

    def cut_over(self, tenant_id: Any) -> date | None:
        """The first day that counts for a tenant, or None."""
        if isinstance(self.effective_from, Mapping):
            return self.effective_from.get(tenant_id)
        return self.effective_from

    def closed_until(self, tenant_id: Any) -> date | None:
        """The last closed day of a tenant, or None."""
        if isinstance(self.closed_through, Mapping):
            return self.closed_through.get(tenant_id)
        if callable(self.closed_through):
            return self.closed_through(tenant_id)
        return self.closed_through
