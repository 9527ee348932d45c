"""The columns of the library's own tables, as mixins: open items, what settles them, and the records of runs.

``ledger_sync.models.ready`` uses them as they are; for a host's own models ``ledger_sync.models.made`` makes classes
of them with the host's types of keys.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    DDL,
    Boolean,
    CheckConstraint,
    ColumnClause,
    Date,
    Double,
    Index,
    Integer,
    Table,
    UniqueConstraint,
    column,
    event,
    false,
    or_,
    text,
)
from sqlalchemy.orm import Mapped, Mapper, mapped_column

from ledger_sync.dialects import ID_TYPE, LONG_TEXT, present_moment
from ledger_sync.models.columns import ITEM_KINDS, ExactValues, amount_check, one_of
from ledger_sync.models.types import CURRENCY_DECIMALS, Moment, Money, Words, utc_now

APPLICATION_METHODS = ("manual", "pin", "release", "reversal", "undone", "reference", "oldest_first")
RUN_STATES = ("running", "paused", "cancelled", "failed", "completed", "completed_with_errors")
NOTE_MAX = 2000
"""Characters that are kept of an error's message."""


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
    kind: Mapped[str] = mapped_column(Words(20))
    invoice_number: Mapped[str | None] = mapped_column(Words(70))
    invoice_date: Mapped[date | None] = mapped_column(Date)
    due_date: Mapped[date | None] = mapped_column(Date)
    entry_date: Mapped[date] = mapped_column(Date)
    currency: Mapped[str] = mapped_column(Words(3))
    currency_amount: Mapped[Decimal | None] = mapped_column(Money(CURRENCY_DECIMALS))
    amount: Mapped[Decimal] = mapped_column(Money())
    remaining_amount: Mapped[Decimal] = mapped_column(Money())
    status: Mapped[str] = mapped_column(Words(20), server_default="open")
    settlement_key: Mapped[str | None] = mapped_column(Words(120))
    run_id: Mapped[int | None] = mapped_column(ID_TYPE)
    created_at: Mapped[datetime] = mapped_column(Moment(), server_default=present_moment())
    updated_at: Mapped[datetime] = mapped_column(Moment(), server_default=present_moment())

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
            one_of("kind", ITEM_KINDS),
        )

    @classmethod
    def item_args(cls, party: str) -> tuple[Any, ...]:
        """All that ``__table_args__`` needs but the keys to other tables; ``party``: the column of the party."""
        return (
            *cls.item_checks(),
            UniqueConstraint("general_ledger_line_id"),
            Index(None, "tenant_id", party, "account_number", "settlement_key"),
        )


# settling rewrites the remaining amount and the status: with half of each page left free, those updates stay in it and
# touch no index (measured at 1.7 million items: 8 seconds instead of 14)
_HALF_FREE = DDL("ALTER TABLE %(fullname)s SET (fillfactor = 50)").execute_if(dialect="postgresql")  # type: ignore[no-untyped-call]


@event.listens_for(OpenItemMixin, "instrument_class", propagate=True)
def _leave_room(mapper: Mapper[Any], model: type[Any]) -> None:
    if isinstance(mapper.local_table, Table):
        event.listen(mapper.local_table, "after_create", _HALF_FREE)


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
    method: Mapped[str] = mapped_column(Words(20))
    actor: Mapped[str | None] = mapped_column(Words(100))
    reason: Mapped[str | None] = mapped_column(Words(500))
    idempotency_key: Mapped[str | None] = mapped_column(Words(100))
    created_at: Mapped[datetime] = mapped_column(Moment(), default=utc_now, server_default=present_moment())

    @classmethod
    def application_checks(cls) -> tuple[CheckConstraint, ...]:
        """The CHECK constraints for ``__table_args__``."""
        return (
            amount_check("amount"),
            one_of("method", APPLICATION_METHODS),
            CheckConstraint("from_line_id <> to_line_id", name="two_items"),
            CheckConstraint("amount <> 0 OR method IN ('pin', 'release')", name="amount_not_zero"),
        )

    @classmethod
    def application_args(cls, table: str) -> tuple[Any, ...]:
        """All that ``__table_args__`` needs; ``table``: the table's name, for those of its indexes."""
        by_hand = text("method IN ('manual', 'pin', 'release')")
        return (
            *cls.application_checks(),
            Index(None, "from_line_id"),
            Index(None, "to_line_id"),
            Index(f"ix_{table}_by_hand", "method", postgresql_where=by_hand, sqlite_where=by_hand),
            _once_for_each_key(table),
        )


class DecisionMixin(ExactValues):
    """What a person decided about a posted line, and why: a source link, or a row from before for it. Append-only.

    ``action``: ``link``, ``unlink`` or ``adopt``; the columns of the source are null for the last.
    """

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Words(64))
    ledger: Mapped[str] = mapped_column(Words(20))
    general_ledger_line_id: Mapped[int] = mapped_column(ID_TYPE)
    action: Mapped[str] = mapped_column(Words(20))
    source_type: Mapped[str | None] = mapped_column(Words(50))
    source_id: Mapped[int | None] = mapped_column(ID_TYPE)
    kind: Mapped[str | None] = mapped_column(Words(20))
    method: Mapped[str | None] = mapped_column(Words(20))
    actor: Mapped[str] = mapped_column(Words(100))
    reason: Mapped[str] = mapped_column(Words(500))
    idempotency_key: Mapped[str | None] = mapped_column(Words(100))
    created_at: Mapped[datetime] = mapped_column(Moment(), default=utc_now, server_default=present_moment())

    @classmethod
    def decision_args(cls, table: str) -> tuple[Any, ...]:
        """All that ``__table_args__`` needs; ``table``: the table's name, for one of its indexes."""
        return (
            one_of("action", ("link", "unlink", "adopt")),
            Index(None, "tenant_id", "general_ledger_line_id"),
            _once_for_each_key(table),
        )


def _once_for_each_key(table: str) -> Index:
    """Of what people do by hand, one row of a tenant for each idempotency key."""
    keyed = text("idempotency_key IS NOT NULL")
    return Index(
        f"uq_{table}_idempotency_key",
        "tenant_id",
        "idempotency_key",
        unique=True,
        postgresql_where=keyed,
        sqlite_where=keyed,
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
    counts control lines. ``active_seconds``: how long it worked, all workers together.
    """

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    tenant_id: Mapped[str | None] = mapped_column(Words(64))
    kind: Mapped[str] = mapped_column(Words(20))
    state: Mapped[str] = mapped_column(Words(30))
    command: Mapped[str | None] = mapped_column(Words(20))
    note: Mapped[str | None] = mapped_column(Words(NOTE_MAX))
    stage: Mapped[str] = mapped_column(Words(40))
    filters: Mapped[str] = mapped_column(LONG_TEXT, default="{}", server_default=text("('{}')"))
    dry_run: Mapped[bool] = mapped_column(Boolean(), default=False, server_default=false())
    actor: Mapped[str | None] = mapped_column(Words(100))
    sequence: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    processed: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    synced: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
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

    @classmethod
    def run_args(cls) -> tuple[Any, ...]:
        """All that ``__table_args__`` needs."""
        return (*cls.run_checks(), Index(None, "state", "lease_until"))


class SyncSegmentMixin(ExactValues):
    """A part of a run that one worker does at a time: a key range of lines, or a step over a whole ledger.

    Its range is ``cursor`` (done up to and with it) to ``until_key`` (with it), as text. ``attempt`` rises whenever
    somebody takes it, so that a worker whose segment was taken over can commit nothing more. ``skipped`` and
    ``found`` are counts by reason, as JSON.
    """

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    run_id: Mapped[int] = mapped_column(ID_TYPE)
    position: Mapped[int] = mapped_column(Integer)
    stage: Mapped[str] = mapped_column(Words(40))
    kind: Mapped[str] = mapped_column(Words(20))
    ledger: Mapped[str | None] = mapped_column(Words(20))
    document: Mapped[str | None] = mapped_column(Words(50))
    tenant_id: Mapped[str | None] = mapped_column(Words(64))
    cursor: Mapped[str | None] = mapped_column(Words(100))
    until_key: Mapped[str | None] = mapped_column(Words(100))
    batch_lines: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(Words(20), default="waiting", server_default="waiting")
    attempt: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    worker: Mapped[str | None] = mapped_column(Words(200))
    lease_until: Mapped[datetime | None] = mapped_column(Moment())
    total: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    processed: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    synced: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    applied: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    errors: Mapped[int] = mapped_column(ID_TYPE, default=0, server_default="0")
    skipped: Mapped[str] = mapped_column(LONG_TEXT, default="{}", server_default=text("('{}')"))
    found: Mapped[str] = mapped_column(LONG_TEXT, default="{}", server_default=text("('{}')"))
    last_error: Mapped[str | None] = mapped_column(Words(NOTE_MAX))

    @classmethod
    def segment_checks(cls) -> tuple[CheckConstraint, ...]:
        """The CHECK constraints for ``__table_args__``."""
        return (one_of("state", ("waiting", "running", "done")),)

    @classmethod
    def segment_args(cls) -> tuple[Any, ...]:
        """All that ``__table_args__`` needs."""
        return (*cls.segment_checks(), UniqueConstraint("run_id", "position"))


class TombstoneMixin(ExactValues):
    """What an open item was that a repair took away; ``row`` holds all of its columns as JSON."""

    id: Mapped[int] = mapped_column(ID_TYPE, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Words(64))
    ledger: Mapped[str] = mapped_column(Words(20))
    general_ledger_line_id: Mapped[int] = mapped_column(ID_TYPE)
    amount: Mapped[Decimal] = mapped_column(Money())
    row: Mapped[str] = mapped_column(LONG_TEXT)
    run_id: Mapped[int | None] = mapped_column(ID_TYPE)
    removed_at: Mapped[datetime] = mapped_column(Moment())

    @classmethod
    def tombstone_args(cls) -> tuple[Any, ...]:
        """All that ``__table_args__`` needs."""
        return (Index(None, "tenant_id", "general_ledger_line_id"),)


class SyncErrorMixin(ExactValues):
    """A failure to write the subledger, kept until a backfill has mended it.

    The hook records the entry, or the document (``source_type``, ``source_id``) that was edited; a backfill the entry
    and the line, or the document that could not be posted, with its ``run_id``.
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

    @classmethod
    def error_args(cls) -> tuple[Any, ...]:
        """All that ``__table_args__`` needs."""
        return (Index(None, "tenant_id", "general_ledger_id"), Index(None, "run_id"))
