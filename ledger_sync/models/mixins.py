"""The columns of every table, as mixins that an ERP can put on its own classes.

``active_history`` stands where a change must be followed from the old value, which an attribute that is not
loaded (after a commit, say) would otherwise forget.

A mixin brings columns and the checks that belong to them; keys between tables and relationships are the
business of the class that uses it. ``ledger_sync.models.ready`` shows how, and is what most people import.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    ColumnClause,
    Date,
    Double,
    Integer,
    String,
    Text,
    column,
    false,
    func,
    or_,
)
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import Mapped, mapped_column, validates

from ledger_sync.dialects import ID_TYPE, exact_amount
from ledger_sync.errors import ReversalError, UnbalancedEntryError
from ledger_sync.models.types import (
    CURRENCY_DECIMALS,
    MONEY_DECIMALS,
    Moment,
    Money,
    Words,
    checked_text,
    exact,
    utc_now,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

APPLICATION_METHODS = ("manual", "pin", "release", "reversal", "undone", "reference", "oldest_first")
LINK_KINDS = ("credit_note", "write_off", "rounding", "exchange", "fee")
RUN_STATES = ("running", "paused", "cancelled", "failed", "completed", "completed_with_errors")
NOTE_MAX = 2000
"""Characters that are kept of an error's message."""


def amount_check(name: str, decimals: int = MONEY_DECIMALS) -> CheckConstraint:
    """The CHECK of an amount column: finite, bounded, and without excess decimals."""
    return CheckConstraint(exact_amount(column(name), decimals), name=f"{name}_exact")


def one_of(name: str, values: Sequence[str]) -> CheckConstraint:
    """The CHECK of a column that knows a few words only."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{name} IN ({listed})", name=f"{name}_known")


def _parameters(context: DefaultExecutionContext) -> dict[str, Any]:
    values: dict[str, Any] = context.get_current_parameters()  # type: ignore[no-untyped-call]
    return values


def _year_of_entry(context: DefaultExecutionContext) -> int:
    entry_date: date = _parameters(context)["entry_date"]
    return entry_date.year


def _moment_of_posting(context: DefaultExecutionContext) -> datetime | None:
    return utc_now() if _parameters(context).get("status") == "posted" else None


class ExactValues:
    """Refuses inexact amounts and unstorable texts when they are assigned, with the attribute's name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if value is not None:
            columns = getattr(type(self), "__table__", None)
            kind = columns.c[name].type if columns is not None and name in columns.c else None
            if isinstance(kind, Money) and isinstance(value, Decimal | int | float | str):
                value = exact(name, value, kind.decimals)
            elif isinstance(kind, Words) and isinstance(value, str):
                value = checked_text(name, value, kind.length)
        super().__setattr__(name, value)


class JournalEntryMixin(ExactValues):
    """A journal entry (voucher). The class that uses it has ``lines``, a list of journal lines."""

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Words(64))
    fiscal_year: Mapped[int] = mapped_column(Integer, default=_year_of_entry)
    voucher_series: Mapped[str] = mapped_column(Words(20), default="", server_default="")
    voucher_number: Mapped[str] = mapped_column(Words(70))
    entry_date: Mapped[date] = mapped_column(Date)
    status: Mapped[str] = mapped_column(String(10), default="draft", server_default="draft", active_history=True)
    posted_at: Mapped[datetime | None] = mapped_column(Moment(), default=_moment_of_posting)
    source_type: Mapped[str | None] = mapped_column(Words(50), active_history=True)
    source_id: Mapped[int | None] = mapped_column(ID_TYPE, active_history=True)
    reverses_id: Mapped[int | None] = mapped_column(ID_TYPE)
    description: Mapped[str | None] = mapped_column(Words(500))

    if TYPE_CHECKING:
        lines: Mapped[list[Any]]

    @classmethod
    def entry_checks(cls) -> tuple[CheckConstraint, ...]:
        """The CHECK constraints for ``__table_args__``."""
        return (
            one_of("status", ("draft", "posted")),
            CheckConstraint("reverses_id <> id", name="reverses_another"),
            CheckConstraint("(source_type IS NULL) = (source_id IS NULL)", name="source_whole"),
        )

    @property
    def voucher(self) -> str:
        """The voucher as people write it: series, number and fiscal year."""
        year = self.fiscal_year or (self.entry_date.year if self.entry_date else "?")
        return f"{self.voucher_series or ''}{'-' if self.voucher_series else ''}{self.voucher_number}/{year}"

    @property
    def balance(self) -> Decimal:
        """Debit less credit over all lines; zero for an entry that can be posted."""
        return sum((line.signed_amount for line in self.lines), Decimal(0))

    @validates("voucher_number", "tenant_id", "voucher_series")
    def _number_as_text(self, key: str, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    def post(self, at: datetime | None = None) -> None:
        """Set the entry ``posted``, at a moment (now, unless given).

        :raises UnbalancedEntryError: it has no lines, or they do not add up to zero.
        """
        if not self.lines:
            raise UnbalancedEntryError(self.voucher, "has no lines", "Add its lines before posting it.")
        if self.balance:
            raise UnbalancedEntryError(
                self.voucher,
                f"is out of balance by {self.balance} (debit less credit)",
                "Correct its lines before posting it.",
            )
        self.status = "posted"
        self.posted_at = at or self.posted_at or utc_now()

    def reverse(
        self,
        on: date,
        *,
        voucher_number: str | None = None,
        voucher_series: str | None = None,
        description: str | None = None,
    ) -> Any:
        """Make the reversing entry: the same lines with debit and credit exchanged, posted on a date.

        It is not added to any session. Its number is this one's with an R behind it, unless given.

        :raises ReversalError: this entry is a draft, is a reversal itself, or the date lies before it. (A
            second reversal is refused by the database's unique key.)
        """
        if self.status != "posted":
            raise ReversalError(self.voucher, "is a draft", "Change or delete it; only what is posted is reversed.")
        if self.reverses_id is not None or getattr(self, "reverses", None) is not None:
            raise ReversalError(self.voucher, "is itself a reversal", "Post what it took away anew.")
        if getattr(self, "reversed_by", None) is not None:
            raise ReversalError(self.voucher, "is reversed already", "Post what that took away anew.")
        if on < self.entry_date:
            raise ReversalError(
                self.voucher,
                f"is dated {self.entry_date}, after {on}",
                "Date the reversal on that day or later.",
            )
        make: Any = type(self)
        reversal = make(
            tenant_id=self.tenant_id,
            voucher_series=self.voucher_series if voucher_series is None else voucher_series,
            voucher_number=voucher_number or f"{self.voucher_number}R",
            entry_date=on,
            source_type=self.source_type,
            source_id=self.source_id,
            description=description or f"Reversal of voucher {self.voucher}"[:500],
        )
        reversal.reverses = self
        for line in self.lines:
            reversal.lines.append(line.mirrored())
        reversal.post()
        return reversal


class JournalLineMixin(ExactValues):
    """A line of a journal entry. What counts is debit less credit; either may be negative.

    ``currency_amount`` is the amount in a foreign ``currency``; its sign does not matter, since the open
    item's takes the sign of the amount. ``due_date`` beats the document's, for instalments.
    """

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    general_ledger_id: Mapped[int] = mapped_column(ID_TYPE, active_history=True)
    line_number: Mapped[int] = mapped_column(Integer)
    account_number: Mapped[str] = mapped_column(Words(20), active_history=True)
    debit: Mapped[Decimal] = mapped_column(Money(), default=Decimal(0), server_default="0")
    credit: Mapped[Decimal] = mapped_column(Money(), default=Decimal(0), server_default="0")
    currency: Mapped[str] = mapped_column(Words(3), default="NOK", server_default="NOK")
    currency_amount: Mapped[Decimal | None] = mapped_column(Money(CURRENCY_DECIMALS))
    reference: Mapped[str | None] = mapped_column(Words(70))
    due_date: Mapped[date | None] = mapped_column(Date)
    description: Mapped[str | None] = mapped_column(Words(500))

    @classmethod
    def line_checks(cls) -> tuple[CheckConstraint, ...]:
        """The CHECK constraints for ``__table_args__``."""
        return (
            amount_check("debit"),
            amount_check("credit"),
            amount_check("currency_amount", CURRENCY_DECIMALS),
        )

    @property
    def signed_amount(self) -> Decimal:
        """Debit less credit."""
        return (self.debit or Decimal(0)) - (self.credit or Decimal(0))

    def mirrored(self) -> Any:
        """The line that cancels this one: debit and credit exchanged."""
        make: Any = type(self)
        return make(
            line_number=self.line_number,
            account_number=self.account_number,
            debit=self.credit,
            credit=self.debit,
            currency=self.currency,
            currency_amount=None if self.currency_amount is None else -self.currency_amount,
            reference=self.reference,
            due_date=self.due_date,
            description=self.description,
        )


class SourceLinkMixin(ExactValues):
    """Names the source of one journal line. ``method`` tells how the link came about."""

    line_id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True, autoincrement=False)
    source_type: Mapped[str] = mapped_column(Words(50), active_history=True)
    source_id: Mapped[int] = mapped_column(ID_TYPE, active_history=True)
    kind: Mapped[str | None] = mapped_column(String(20))
    method: Mapped[str] = mapped_column(Words(20), default="host", server_default="host")
    actor: Mapped[str | None] = mapped_column(Words(100))
    reason: Mapped[str | None] = mapped_column(Words(500))
    created_at: Mapped[datetime] = mapped_column(Moment(), default=utc_now, server_default=func.now())

    @classmethod
    def link_checks(cls) -> tuple[CheckConstraint, ...]:
        """The CHECK constraints for ``__table_args__``."""
        return (one_of("kind", LINK_KINDS),)


class PartyMixin(ExactValues):
    """A vendor, customer or employee."""

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Words(64))
    number: Mapped[str] = mapped_column(Words(50))
    name: Mapped[str] = mapped_column(Words(250))


class DocumentMixin(ExactValues):
    """What every document has: a tenant, a currency and an amount."""

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Words(64), active_history=True)
    currency: Mapped[str] = mapped_column(Words(3), default="NOK", server_default="NOK")
    amount: Mapped[Decimal] = mapped_column(Money())


class InvoiceMixin(DocumentMixin):
    """An invoice or credit note. The number is not unique: suppliers reuse them.

    ``payment_reference`` is what a payer quotes, the KID in Norway. ``credits_id`` names the invoice that a
    credit note credits.
    """

    kind: Mapped[str] = mapped_column(String(20), default="invoice", server_default="invoice")
    invoice_number: Mapped[str] = mapped_column(Words(70), active_history=True)
    invoice_date: Mapped[date] = mapped_column(Date)
    due_date: Mapped[date | None] = mapped_column(Date)
    payment_reference: Mapped[str | None] = mapped_column(Words(70), active_history=True)
    credits_id: Mapped[int | None] = mapped_column(ID_TYPE)

    @classmethod
    def invoice_checks(cls) -> tuple[CheckConstraint, ...]:
        """The CHECK constraints for ``__table_args__``."""
        return (
            one_of("kind", ("invoice", "credit_note")),
            amount_check("amount"),
            CheckConstraint("credits_id IS NULL OR kind = 'credit_note'", name="only_credit_notes_credit"),
        )


class PaymentMixin(DocumentMixin):
    """A payment to a vendor or from a customer."""

    payment_date: Mapped[date] = mapped_column(Date)
    payment_reference: Mapped[str | None] = mapped_column(Words(70))


class OpenItemMixin(ExactValues):
    """One open item per control line; ``general_ledger_line_id`` is its unique key.

    It has no foreign key to the line, so that the proof can find an item whose line is gone. ``amount`` and
    ``remaining_amount`` are positive when owed in the ledger's normal direction. ``run_id`` is null for an
    item that was written live.
    """

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Words(64))
    general_ledger_id: Mapped[int] = mapped_column(ID_TYPE)
    general_ledger_line_id: Mapped[int] = mapped_column(ID_TYPE)
    account_number: Mapped[str] = mapped_column(Words(20))
    source_type: Mapped[str] = mapped_column(Words(50))
    source_id: Mapped[int] = mapped_column(ID_TYPE)
    kind: Mapped[str] = mapped_column(String(20))
    invoice_number: Mapped[str | None] = mapped_column(Words(70))
    invoice_date: Mapped[date | None] = mapped_column(Date)
    due_date: Mapped[date | None] = mapped_column(Date)
    entry_date: Mapped[date] = mapped_column(Date)
    currency: Mapped[str] = mapped_column(Words(3))
    currency_amount: Mapped[Decimal | None] = mapped_column(Money(CURRENCY_DECIMALS))
    amount: Mapped[Decimal] = mapped_column(Money())
    remaining_amount: Mapped[Decimal] = mapped_column(Money())
    status: Mapped[str] = mapped_column(String(20), server_default="open")
    settlement_key: Mapped[str | None] = mapped_column(Words(120))
    run_id: Mapped[int | None] = mapped_column(ID_TYPE)
    created_at: Mapped[datetime] = mapped_column(Moment(), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(Moment(), server_default=func.now())

    @classmethod
    def item_checks(cls) -> tuple[CheckConstraint, ...]:
        """The CHECK constraints for ``__table_args__``."""
        amount: ColumnClause[Any] = column("amount")
        remaining: ColumnClause[Any] = column("remaining_amount")
        return (
            amount_check("amount"),
            amount_check("remaining_amount"),
            CheckConstraint("amount <> 0", name="amount_not_zero"),
            CheckConstraint(
                or_(remaining.between(0, amount), remaining.between(amount, 0)),
                name="remaining_within_amount",
            ),
            one_of("status", ("open", "partially_paid", "paid")),
            one_of("kind", ("invoice", "expense", "payment", "reversal", *LINK_KINDS)),
        )


class ApplicationMixin(ExactValues):
    """A part of one item (``from``, negative) that settles a part of another (``to``, positive). Append-only.

    The items are named by their lines, which outlive a repaired row. ``amount`` is positive; an undoing is a
    row of its own with a negative amount. ``method``: ``manual`` rows, ``pin`` and ``release`` are what people
    did; ``reversal``, ``undone``, ``reference`` and ``oldest_first`` follow from the items and from those.
    """

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Words(64))
    from_line_id: Mapped[int] = mapped_column(ID_TYPE)
    to_line_id: Mapped[int] = mapped_column(ID_TYPE)
    amount: Mapped[Decimal] = mapped_column(Money())
    applied_on: Mapped[date] = mapped_column(Date)
    method: Mapped[str] = mapped_column(String(20))
    actor: Mapped[str | None] = mapped_column(Words(100))
    reason: Mapped[str | None] = mapped_column(Words(500))
    idempotency_key: Mapped[str | None] = mapped_column(Words(100))
    created_at: Mapped[datetime] = mapped_column(Moment(), default=utc_now, server_default=func.now())

    @classmethod
    def application_checks(cls) -> tuple[CheckConstraint, ...]:
        """The CHECK constraints for ``__table_args__``."""
        return (
            amount_check("amount"),
            one_of("method", APPLICATION_METHODS),
            CheckConstraint("from_line_id <> to_line_id", name="two_items"),
            CheckConstraint("amount <> 0 OR method IN ('pin', 'release')", name="amount_not_zero"),
        )


class LockMixin(ExactValues):
    """A row to bump where an advisory lock would not be noticed; ``id`` is the bucket's key."""

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column(ID_TYPE, default=0)


class SyncRunMixin(ExactValues):
    """One run that wrote books on its own: a backfill or a repair. ``tenant_id`` is null for everybody's books.

    ``state``: ``running``, ``paused``, ``cancelled``, ``failed``, ``completed`` or ``completed_with_errors``.
    ``lease_until``: a run in state ``running`` whose lease has passed has died. ``command``: ``pause`` or ``cancel``,
    obeyed with the next batch. ``note``: why it is held, or why it failed. ``sequence`` rises with every change.
    ``filters``: which part of the history it covers, as JSON. The counts are sums over the segments; ``processed``
    and ``total`` are control lines. ``active_seconds``: how long it worked, all workers together.
    """

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    tenant_id: Mapped[str | None] = mapped_column(Words(64))
    kind: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(30))
    command: Mapped[str | None] = mapped_column(String(20))
    note: Mapped[str | None] = mapped_column(Words(NOTE_MAX))
    stage: Mapped[str] = mapped_column(String(40))
    filters: Mapped[str] = mapped_column(Text(), default="{}", server_default="{}")
    dry_run: Mapped[bool] = mapped_column(Boolean(), default=False, server_default=false())
    actor: Mapped[str | None] = mapped_column(Words(100))
    upper_bound: Mapped[str | None] = mapped_column(Words(100))
    sequence: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    total: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    processed: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    synced: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    skipped: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    errors: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    active_seconds: Mapped[float] = mapped_column(Double(), default=0.0, server_default="0")
    clean: Mapped[bool | None] = mapped_column(Boolean())
    version: Mapped[str] = mapped_column(Words(20))
    started_at: Mapped[datetime] = mapped_column(Moment())
    lease_until: Mapped[datetime] = mapped_column(Moment())
    finished_at: Mapped[datetime | None] = mapped_column(Moment())

    @classmethod
    def run_checks(cls) -> tuple[CheckConstraint, ...]:
        """The CHECK constraints for ``__table_args__``."""
        return (one_of("state", RUN_STATES), one_of("command", ("pause", "cancel")))


class SyncSegmentMixin(ExactValues):
    """A part of a run that one worker does at a time: a key range of lines, or a step over a whole ledger.

    Its range is ``cursor`` (done up to and with it) to ``until_key`` (with it), as text. ``attempt`` rises whenever
    somebody takes it, so that a worker whose segment was taken over can commit nothing more. ``skipped`` and
    ``found`` are counts by reason, as JSON.
    """

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    run_id: Mapped[int] = mapped_column(ID_TYPE)
    position: Mapped[int] = mapped_column(Integer)
    stage: Mapped[str] = mapped_column(String(40))
    kind: Mapped[str] = mapped_column(String(20))
    ledger: Mapped[str | None] = mapped_column(Words(20))
    document: Mapped[str | None] = mapped_column(Words(50))
    tenant_id: Mapped[str | None] = mapped_column(Words(64))
    cursor: Mapped[str | None] = mapped_column(Words(100))
    until_key: Mapped[str | None] = mapped_column(Words(100))
    batch_lines: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(20), default="waiting", server_default="waiting")
    attempt: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    worker: Mapped[str | None] = mapped_column(Words(200))
    lease_until: Mapped[datetime | None] = mapped_column(Moment())
    total: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    processed: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    synced: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    applied: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    errors: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    skipped: Mapped[str] = mapped_column(Text(), default="{}", server_default="{}")
    found: Mapped[str] = mapped_column(Text(), default="{}", server_default="{}")
    last_error: Mapped[str | None] = mapped_column(Words(NOTE_MAX))

    @classmethod
    def segment_checks(cls) -> tuple[CheckConstraint, ...]:
        """The CHECK constraints for ``__table_args__``."""
        return (one_of("state", ("waiting", "running", "done")),)


class TombstoneMixin(ExactValues):
    """What an open item was that a repair took away; ``row`` holds all of its columns as JSON."""

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Words(64))
    ledger: Mapped[str] = mapped_column(Words(20))
    general_ledger_line_id: Mapped[int] = mapped_column(ID_TYPE)
    amount: Mapped[Decimal] = mapped_column(Money())
    row: Mapped[str] = mapped_column(Text())
    run_id: Mapped[int | None] = mapped_column(ID_TYPE)
    removed_at: Mapped[datetime] = mapped_column(Moment())


class SyncErrorMixin(ExactValues):
    """A failure to write the subledger, kept until a backfill has mended it.

    The hook records the entry; a backfill the entry and the line, or the document (``source_type``, ``source_id``)
    that could not be posted, with its ``run_id``.
    """

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    tenant_id: Mapped[str | None] = mapped_column(Words(64))
    ledger: Mapped[str] = mapped_column(Words(20))
    general_ledger_id: Mapped[int | None] = mapped_column(ID_TYPE)
    general_ledger_line_id: Mapped[int | None] = mapped_column(ID_TYPE)
    source_type: Mapped[str | None] = mapped_column(Words(50))
    source_id: Mapped[int | None] = mapped_column(ID_TYPE)
    run_id: Mapped[int | None] = mapped_column(ID_TYPE)
    error: Mapped[str] = mapped_column(Words(100))
    message: Mapped[str] = mapped_column(Words(NOTE_MAX))
    created_at: Mapped[datetime] = mapped_column(Moment(), default=utc_now)
    resolved_at: Mapped[datetime | None] = mapped_column(Moment())
