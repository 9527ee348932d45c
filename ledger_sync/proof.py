"""The proof: every øre between a control account and its subledger is assigned to one named cause.

One statement per ledger (``compared``) reads both sides in one snapshot. Each posted control line falls under
exactly one cause: the projection's reason, ``missing`` (it should have an open item and has none),
``amount_differs``, ``wrong_party``, or nothing when line and item agree. Each open item that no eligible line
accounts for is an ``orphan``. So the causes add up to the difference by construction. What is wrong without an
amount is in ``findings``. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    String,
    Subquery,
    and_,
    bindparam,
    case,
    func,
    inspect,
    literal,
    null,
    or_,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.orm import Session, aliased

from ledger_sync import findings
from ledger_sync.binding import Binding, Ledger, attribute
from ledger_sync.dialects import plan_plainly
from ledger_sync.findings import Finding
from ledger_sync.models.types import Money, utc_now
from ledger_sync.projection import Lines, project, voucher_text
from ledger_sync.settings import Settings

FAULTS: Final = ("missing", "amount_differs", "wrong_party", "orphan")
"""Causes that should not be there: something bypassed the hook or changed a row behind its back."""

MATCHED: Final = (None, "amount_differs", "wrong_party")
"""Causes, and their absence, of lines that have an item."""

EXPLAINED: Final = ("manual", "before_cutover", "unsupported_source", "source_not_found", "zero_amount")
"""Causes that the books themselves explain: lines that have no open item, by rule."""

MEANINGS: Final[Mapping[str, tuple[str, str]]] = {
    "draft": ("not posted yet", "Post the entry; its open items are written with it."),
    "before_cutover": (
        "dated before the cut-over, or settles an invoice that is",
        "Nothing, if that is meant. To bring it in, move effective_from back and run a backfill.",
    ),
    "manual": (
        "posted without a source",
        "Link the line to its document. Or leave it: it stays a difference with a name.",
    ),
    "unsupported_source": (
        "from a source that this account does not take",
        "Name the source type among the account's sources in the settings and run a backfill, or correct the source.",
    ),
    "source_not_found": (
        "the source is not there",
        "Insert the document, or link the line to the right one.",
    ),
    "zero_amount": ("amount zero", "Nothing: there is nothing to settle."),
    "missing": (
        "should have an open item and has none",
        "Run a repair or a backfill; find out what bypassed the hook.",
    ),
    "amount_differs": (
        "the open item has another amount",
        "Run a repair; find out who changed the line or the row behind the hook.",
    ),
    "wrong_party": ("the open item is on another party", "Run a repair; find out who changed the row or the document."),
    "orphan": ("an open item without an eligible line", "Run a repair; it keeps what it takes away as a tombstone."),
}
"""What each reason and cause means, and what to do next."""

ZERO: Final = Decimal("0.00")


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True)


class Example(_Result):
    """One line or row behind a cause. ``amount`` is its share of the difference; ``voucher`` is null for an orphan."""

    general_ledger_id: Any
    general_ledger_line_id: Any
    voucher: str | None
    entry_date: date | None
    amount: Decimal


class Difference(Example):
    """One line or row behind a cause, with its ledger, account and cause: a line of the full list."""

    ledger: str
    account_number: str
    cause: str


class Cause(_Result):
    """A share of the difference: how many lines or rows, what they add up to, what it means, what to do next."""

    name: str
    count: int
    amount: Decimal
    meaning: str
    next_step: str
    examples: tuple[Example, ...] = ()


class AccountProof(_Result):
    """One control account. Amounts are in the normal direction of the account's ledger.

    ``difference`` is the GL balance less the subledger balance, and the sum of the causes' amounts.
    """

    tenant_id: str
    ledger: str
    account_number: str
    gl_balance: Decimal
    subledger_balance: Decimal
    difference: Decimal
    causes: tuple[Cause, ...]

    @property
    def faults(self) -> tuple[Cause, ...]:
        """The causes that should not be there."""
        return tuple(cause for cause in self.causes if cause.name in FAULTS)


class Proof(_Result):
    """The reconciliation of one tenant's control accounts with their subledgers.

    ``as_of``: entries dated later are left out on both sides; null means all of them. ``findings``: what is wrong or
    worth a look without being an amount; ``with_findings`` tells whether all of them were looked for.
    ``runs_active``: runs that were writing these books meanwhile; what they have not reached yet shows as ``missing``.
    """

    tenant_id: str
    as_of: date | None
    accounts: tuple[AccountProof, ...]
    findings: tuple[Finding, ...] = ()
    with_findings: bool = True
    runs_active: tuple[Any, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing is missing, differing or orphaned, and no row or application is wrong."""
        return not any(account.faults for account in self.accounts) and not any(f.fault for f in self.findings)

    def account(self, account_number: str) -> AccountProof:
        """The proof of one control account.

        :raises KeyError: it is not a control account in these books.
        """
        for account in self.accounts:
            if account.account_number == account_number:
                return account
        raise KeyError(account_number)


def verify(
    session: Session,
    binding: Binding,
    settings: Settings,
    tenant_id: str,
    as_of: date | None = None,
    *,
    with_findings: bool | Literal["faults"] = True,
) -> Proof:
    """Prove one tenant's subledgers against the general ledger; ``faults``: look only for findings that are faults."""
    begin_snapshot(session, binding)
    sought = bool(with_findings) and as_of is None
    accounts: list[AccountProof] = []
    found: list[Finding] = []
    for name in settings.ledgers():
        ledger = binding.ledger(name)
        connection = session.connection(bind_arguments={"mapper": inspect(ledger.item)})
        accounts += _accounts(connection, binding, settings, ledger, tenant_id, as_of)
        if sought:
            found += findings.find(
                connection, binding, settings, ledger, tenant_id, faults_only=with_findings == "faults"
            )
    return Proof(
        tenant_id=tenant_id,
        as_of=as_of,
        accounts=tuple(accounts),
        findings=tuple(found),
        with_findings=sought and with_findings is True,
        runs_active=runs_active(session, binding, tenant_id),
    )


def begin_snapshot(session: Session, binding: Binding) -> None:
    """Have all that follows in the session's transaction read one snapshot, if it has not begun.

    In a transaction that has begun at READ COMMITTED each statement has a snapshot of its own; the figures of
    one ledger always come from one statement.
    """
    bind = session.get_bind(mapper=inspect(binding.entry))
    if session.in_transaction() or not isinstance(bind, Engine) or bind.dialect.name == "sqlite":
        return
    plan_plainly(
        session.connection(
            bind_arguments={"mapper": inspect(binding.entry)}, execution_options={"isolation_level": "REPEATABLE READ"}
        )
    )


def runs_active(session: Session, binding: Binding, tenant_id: str) -> tuple[Any, ...]:
    """The ids of the runs that are writing a tenant's books, by their leases."""
    run = binding.run
    query = (
        select(attribute(run, "id"))
        .where(attribute(run, "state") == "running", attribute(run, "lease_until") > utc_now())
        .where(or_(attribute(run, "tenant_id") == tenant_id, attribute(run, "tenant_id").is_(None)))
    )
    connection = session.connection(bind_arguments={"mapper": inspect(run)})
    return tuple(connection.scalars(query.order_by(attribute(run, "id"))))


def differences(
    session: Session, binding: Binding, settings: Settings, tenant_id: str, as_of: date | None = None
) -> Iterator[Difference]:
    """Every line and row behind the causes, by ledger, account and date; streamed, however many there are."""
    begin_snapshot(session, binding)
    for name in settings.ledgers():
        ledger = binding.ledger(name)
        connection = session.connection(bind_arguments={"mapper": inspect(ledger.item)})
        c = compared(binding, settings, ledger, dated=as_of is not None).subquery("compared").c
        query = select(*c).where(c.cause.is_not(None))
        query = query.order_by(c.account_number, c.entry_date, c.general_ledger_line_id)
        rows = connection.execute(
            query, _parameters(tenant_id, as_of), execution_options={"stream_results": True, "max_row_buffer": 1000}
        )
        for row in rows:
            yield Difference(ledger=name, account_number=row.account_number, cause=row.cause, **_values(row))


def _parameters(tenant_id: str, as_of: date | None) -> dict[str, Any]:
    return {"tenant": tenant_id, **({} if as_of is None else {"as_of": as_of})}


def _accounts(
    connection: Connection, binding: Binding, settings: Settings, ledger: Ledger, tenant_id: str, as_of: date | None
) -> Iterable[AccountProof]:
    dated = as_of is not None
    parameters = _parameters(tenant_id, as_of)
    found: dict[str, list[_Total]] = {
        account: [] for control in settings.of_ledger(ledger.name) for account in control.singles()
    }
    totals = binding.once(
        settings, ("totals", ledger.name, dated), lambda: _totals(binding, settings, ledger, dated=dated)
    )
    for row in connection.execute(totals, parameters):
        found.setdefault(row.account_number, []).append(_Total(row.cause, row.lines, row.gl_amount, row.item_amount))
    found = {account: _with_orphans(totals) for account, totals in found.items()}
    examples: dict[tuple[str, str], list[Example]] = {}
    if settings.examples_max and any(total.cause is not None for totals in found.values() for total in totals):
        examples_of = binding.once(
            settings,
            ("examples", ledger.name, dated),
            lambda: _examples(compared(binding, settings, ledger, dated=dated).subquery("both"), settings.examples_max),
        )
        for row in connection.execute(examples_of, parameters):
            examples.setdefault((row.account_number, row.cause), []).append(Example(**_values(row)))
    return [
        _account(tenant_id, ledger, account_number, totals, examples)
        for account_number, totals in sorted(found.items())
    ]


@dataclass(frozen=True)
class _Total:
    cause: str | None
    count: int
    gl_amount: Decimal
    item_amount: Decimal


ALL_ITEMS: Final = "all_items"
"""In the totals of an account, in place of a cause: all of its items, whether a line accounts for them or not."""


def _with_orphans(totals: list[_Total]) -> list[_Total]:
    """The totals of an account with its orphans: all of its items but those that a line accounts for."""
    items = [total for total in totals if total.cause == ALL_ITEMS]
    of_lines = [total for total in totals if total.cause != ALL_ITEMS]
    matched = [total for total in of_lines if total.cause in MATCHED]
    count = sum(total.count for total in items) - sum(total.count for total in matched)
    amount = sum((total.item_amount for total in items), ZERO) - sum((total.item_amount for total in matched), ZERO)
    return [*of_lines, _Total("orphan", count, ZERO, amount)] if count else of_lines


def _account(
    tenant_id: str,
    ledger: Ledger,
    account_number: str,
    rows: list[_Total],
    examples: dict[tuple[str, str], list[Example]],
) -> AccountProof:
    by_cause = {row.cause: row for row in rows}
    causes = tuple(
        Cause(
            name=name,
            count=by_cause[name].count,
            amount=by_cause[name].gl_amount - by_cause[name].item_amount,
            meaning=MEANINGS[name][0],
            next_step=MEANINGS[name][1],
            examples=tuple(examples.get((account_number, name), ())),
        )
        for name in (*EXPLAINED, *FAULTS)
        if name in by_cause
    )
    gl_balance = sum((row.gl_amount for row in rows), ZERO)
    subledger_balance = sum((row.item_amount for row in rows), ZERO)
    difference = gl_balance - subledger_balance
    assert difference == sum((cause.amount for cause in causes), ZERO), "a line or row fell out of the causes"
    return AccountProof(
        tenant_id=tenant_id,
        ledger=ledger.name,
        account_number=account_number,
        gl_balance=gl_balance,
        subledger_balance=subledger_balance,
        difference=difference,
        causes=causes,
    )


def _values(row: Any) -> dict[str, Any]:
    return {
        "general_ledger_id": row.general_ledger_id,
        "general_ledger_line_id": row.general_ledger_line_id,
        "voucher": None if row.voucher_number is None else voucher_text(row),
        "entry_date": row.entry_date,
        "amount": row.gl_amount - row.item_amount,
    }


def _examples(both: Subquery, count: int) -> Select[Any]:
    c = both.c
    rank = func.row_number().over(
        partition_by=(c.account_number, c.cause), order_by=(c.entry_date, c.general_ledger_line_id)
    )
    ranked = select(*c, rank.label("rank")).where(c.cause.is_not(None)).subquery("ranked")
    return select(ranked).where(ranked.c.rank <= count).order_by(ranked.c.account_number, ranked.c.rank)


def _totals(binding: Binding, settings: Settings, ledger: Ledger, *, dated: bool) -> Select[Any]:
    """What the lines of each account and cause add up to, and what all items of each account do, in one snapshot.

    What the items have beyond those that a line accounts for are the orphans, so nobody need look for them.
    """
    lines = _of_lines(binding, settings, ledger, dated=dated).subquery("of_lines").c
    items = _of_items(binding, ledger, dated=dated).subquery("of_items").c
    # grouped above the union, where a planner does not take the causes for as many as there are lines
    both = union_all(
        select(lines.account_number, lines.cause, lines.gl_amount, lines.item_amount),
        select(items.account_number, literal(ALL_ITEMS, String()), literal(ZERO, Money()), items.amount),
    )
    c = both.subquery("both").c
    return select(
        c.account_number,
        c.cause,
        func.count().label("lines"),
        type_coerce(func.sum(c.gl_amount), Money()).label("gl_amount"),
        type_coerce(func.sum(c.item_amount), Money()).label("item_amount"),
    ).group_by(c.account_number, c.cause)


def compared(binding: Binding, settings: Settings, ledger: Ledger, *, dated: bool = False) -> Select[Any]:
    """One row per posted control line with its item, and one per item that no eligible line accounts for.

    Bound values: ``tenant``, and with ``dated`` ``as_of``.
    """
    every = project(binding, settings, ledger, lambda a: [attribute(a.entry, "status") == "posted"]).subquery("every")
    items = _of_items(binding, ledger, dated=dated).subquery("of_items").c
    accounted = (
        select(every.c.general_ledger_line_id)
        .where(
            every.c.general_ledger_line_id == items.general_ledger_line_id,
            every.c.tenant_id == items.tenant_id,
            every.c.account_number == items.account_number,
            every.c.reason.is_(None),
        )
        .exists()
    )
    orphans = select(
        items.account_number,
        literal("orphan", String()).label("cause"),
        items.general_ledger_id,
        items.general_ledger_line_id,
        null().label("fiscal_year"),
        null().label("voucher_series"),
        null().label("voucher_number"),
        items.entry_date,
        literal(ZERO, Money()).label("gl_amount"),
        items.amount.label("item_amount"),
    ).where(~accounted)
    both = union_all(_of_lines(binding, settings, ledger, dated=dated), orphans).subquery("both_sides")
    return select(*both.c)


def _of_lines(binding: Binding, settings: Settings, ledger: Ledger, *, dated: bool) -> Select[Any]:
    """The posted control lines of the tenant, each with its cause and its item's amount."""

    def of_tenant(lines: Lines) -> list[ColumnElement[bool]]:
        entry_date, tenant_id = attribute(lines.entry, "entry_date"), attribute(lines.entry, "tenant_id")
        conditions = [
            tenant_id == bindparam("tenant", type_=tenant_id.type),
            attribute(lines.entry, "status") == "posted",
        ]
        if dated:
            conditions.append(entry_date <= bindparam("as_of", type_=entry_date.type))
        return conditions

    lines = project(binding, settings, ledger, of_tenant).subquery("lines")
    item = aliased(ledger.item)
    p, zero = lines.c, literal(ZERO, Money())
    cause = case(
        (p.reason.is_not(None), p.reason),
        (attribute(item, "id").is_(None), "missing"),
        (attribute(item, "amount") != p.amount, "amount_differs"),
        (attribute(item, ledger.party) != p.party_id, "wrong_party"),
        else_=null(),
    )
    matching = and_(
        p.reason.is_(None),
        attribute(item, "general_ledger_line_id") == p.general_ledger_line_id,
        attribute(item, "tenant_id") == p.tenant_id,
        attribute(item, "account_number") == p.account_number,
    )
    return (
        select(
            p.account_number,
            type_coerce(cause, String()).label("cause"),
            p.general_ledger_id,
            p.general_ledger_line_id,
            p.fiscal_year,
            p.voucher_series,
            p.voucher_number,
            p.entry_date,
            type_coerce(p.amount, Money()).label("gl_amount"),
            type_coerce(func.coalesce(attribute(item, "amount"), zero), Money()).label("item_amount"),
        )
        .select_from(lines)
        .outerjoin(item, matching)
    )


def _of_items(binding: Binding, ledger: Ledger, *, dated: bool) -> Select[Any]:
    """The items of the tenant. With ``dated``, until then by their line's date, or their own where it is gone.

    So an item whose line is dated later belongs to that later day, whatever the item's own copy says.
    """
    item = aliased(ledger.item)
    names = ("tenant_id", "account_number", "general_ledger_id", "general_ledger_line_id", "entry_date", "amount")
    tenant_id, own_date = attribute(item, "tenant_id"), attribute(item, "entry_date")
    query = select(*(attribute(item, name).label(name) for name in names)).where(
        tenant_id == bindparam("tenant", type_=tenant_id.type)
    )
    if not dated:
        return query
    line, entry = aliased(binding.line), aliased(binding.entry)
    day = func.coalesce(attribute(entry, "entry_date"), own_date, type_=own_date.type)
    return (
        query.outerjoin(line, attribute(line, "id") == attribute(item, "general_ledger_line_id"))
        .outerjoin(entry, attribute(entry, "id") == attribute(line, "general_ledger_id"))
        .where(day <= bindparam("as_of", type_=own_date.type))
    )
