"""The columns of the books themselves, as mixins that an ERP can put on its own classes: entries, lines, documents.

``active_history`` stands where a change must be followed from the old value, which an attribute that is not
loaded (after a commit, say) would otherwise forget.

A mixin brings columns and the checks that belong to them; keys between tables and relationships are the
business of the class that uses it. ``ledger_sync.models.ready`` shows how, and is what most people import.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import CheckConstraint, ColumnElement, Date, Integer
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column, validates

from ledger_sync.dialects import ID_TYPE, present_moment, unless_mysql
from ledger_sync.errors import ReversalError, UnbalancedEntryError
from ledger_sync.models.columns import LINK_KINDS, ExactValues, amount_check, one_of
from ledger_sync.models.types import CURRENCY_DECIMALS, Moment, Money, Words, utc_now
from ledger_sync.plain import voucher_name


def _parameter(context: DefaultExecutionContext, name: str) -> Any:
    """What the row that is being inserted has for a column; None when it has nothing.

    SQLAlchemy's own way to isolate a row of ``insert(Model).values([{…}, {…}])`` fails for mapped classes: it looks for
    ``table.column_m0`` among parameters that are called ``column_m0``.
    """
    values = context.get_current_parameters(isolate_multiinsert_groups=False)  # type: ignore[no-untyped-call]
    column: Any = context.current_column
    row = column.index + 1 if getattr(column, "_is_multiparam_column", False) else 0
    return values.get(f"{name}_m{row}", values.get(name))


def _year_of_entry(context: DefaultExecutionContext) -> int:
    entry_date: date = _parameter(context, "entry_date")
    return entry_date.year


def _moment_of_posting(context: DefaultExecutionContext) -> datetime | None:
    return utc_now() if _parameter(context, "status") == "posted" else None


class JournalEntryMixin(ExactValues):
    """A journal entry (voucher). The class that uses it has ``lines``, a list of journal lines."""

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Words(64))
    fiscal_year: Mapped[int] = mapped_column(Integer, default=_year_of_entry)
    voucher_series: Mapped[str] = mapped_column(Words(20), default="", server_default="")
    voucher_number: Mapped[str] = mapped_column(Words(70))
    entry_date: Mapped[date] = mapped_column(Date)
    status: Mapped[str] = mapped_column(Words(10), default="draft", server_default="draft", active_history=True)
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
            # MariaDB and MySQL take no CHECK of a key that they number themselves
            CheckConstraint("reverses_id <> id", name="reverses_another").ddl_if(callable_=unless_mysql),
            CheckConstraint("(source_type IS NULL) = (source_id IS NULL)", name="source_whole"),
        )

    @hybrid_property
    def posted(self) -> bool:
        """Whether it is posted, rather than a draft."""
        return self.status == "posted"

    @posted.inplace.expression
    @classmethod
    def _is_posted(cls) -> ColumnElement[bool]:
        return cls.status == "posted"

    @property
    def voucher(self) -> str:
        """The voucher as people write it: series, number and fiscal year."""
        year = self.fiscal_year or (self.entry_date.year if self.entry_date else "?")
        return voucher_name(self.voucher_series, self.voucher_number, year)

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
    kind: Mapped[str | None] = mapped_column(Words(20))
    method: Mapped[str] = mapped_column(Words(20), default="host", server_default="host")
    actor: Mapped[str | None] = mapped_column(Words(100))
    reason: Mapped[str | None] = mapped_column(Words(500))
    created_at: Mapped[datetime] = mapped_column(Moment(), default=utc_now, server_default=present_moment())

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

    kind: Mapped[str] = mapped_column(Words(20), default="invoice", server_default="invoice")
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
