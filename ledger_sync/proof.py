"""The proof: every øre between a control account and its subledger is assigned to one named cause.

One statement per ledger (``totals``) adds up both sides in one snapshot; further ones fetch examples, if there are any.
Each posted control line falls under exactly one cause: the projection's reason, ``missing`` (it should have an open
item and has none), ``amount_differs``, ``wrong_party``, or nothing when line and item agree. Each open item that no
eligible line accounts for is an ``orphan``, or ``not_adopted`` if it is a row from before that does not know its line.
So the causes add up to the difference by construction. What is wrong without an amount is in ``findings``, but for
``wrong_party``. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final, Literal

from sqlalchemy import (
    Connection,
    Engine,
    Select,
    Subquery,
    func,
    inspect,
    literal,
    or_,
    select,
)
from sqlalchemy.orm import Session

from ledger_sync import findings
from ledger_sync.binding import Binding, Ledger, attribute
from ledger_sync.comparison import ALL_ITEMS, LEFT_OVER, compared, left_over, of_lines, totals
from ledger_sync.control_lines import voucher_text
from ledger_sync.dialects import plan_plainly
from ledger_sync.findings import Finding
from ledger_sync.models.types import ZERO, Words, checked_text, utc_now
from ledger_sync.results import Result
from ledger_sync.settings import Settings

FAULTS: Final = ("missing", "amount_differs", "wrong_party", "orphan")
"""Causes that should not be there: something bypassed the hook or changed a row behind its back."""

MATCHED: Final = (None, "amount_differs", "wrong_party")
"""Causes, and their absence, of lines that have an item."""

EXPLAINED: Final = (
    "manual",
    "before_cutover",
    "unsupported_source",
    "source_not_found",
    "zero_amount",
    "not_adopted",
)
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
    "not_adopted": (
        "a row from before that does not know its line, or a line that waits for such a row",
        "Run adopt, and decide on the rows that it lists.",
    ),
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


class Example(Result):
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


class Cause(Result):
    """A share of the difference: how many lines or rows, what they add up to, what it means, what to do next.

    ``fault``: it should not be there, and a repair mends it; any other the books themselves explain.
    """

    name: str
    count: int
    amount: Decimal
    meaning: str
    next_step: str
    fault: bool
    examples: tuple[Example, ...] = ()


class AccountProof(Result):
    """One control account. Amounts are in the normal direction of the account's ledger.

    ``difference`` is the GL balance less the subledger balance, and the sum of the causes' amounts.
    """

    tenant_id: Any
    ledger: str
    account_number: str
    gl_balance: Decimal
    subledger_balance: Decimal
    difference: Decimal
    causes: tuple[Cause, ...]

    @property
    def faults(self) -> tuple[Cause, ...]:
        """The causes that should not be there."""
        return tuple(cause for cause in self.causes if cause.fault)


class Proof(Result):
    """The reconciliation of one tenant's control accounts with their subledgers.

    ``as_of``: entries dated later are left out on both sides; null means all of them. ``findings``: what is wrong or
    worth a look without being an amount; ``with_findings`` tells whether all of them were looked for.
    ``runs_active``: runs that were writing these books meanwhile; what they have not reached yet shows as ``missing``.
    """

    tenant_id: Any
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
    tenant_id: Any,
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


def runs_active(session: Session, binding: Binding, tenant_id: Any) -> tuple[Any, ...]:
    """The ids of the runs that are writing a tenant's books: ``progress.is_at_work``, in SQL."""
    run = binding.run
    query = (
        select(attribute(run, "id"))
        .where(attribute(run, "state") == "running", attribute(run, "lease_until") > utc_now())
        .where(or_(attribute(run, "tenant_id") == tenant_id, attribute(run, "tenant_id").is_(None)))
    )
    connection = session.connection(bind_arguments={"mapper": inspect(run)})
    return tuple(connection.scalars(query.order_by(attribute(run, "id"))))


def differences(
    session: Session,
    binding: Binding,
    settings: Settings,
    tenant_id: Any,
    as_of: date | None = None,
    *,
    account_number: str | None = None,
    cause: str | None = None,
) -> Iterator[Difference]:
    """Every line and row behind the causes, by ledger, account and date; streamed, however many there are.

    Those of one account, and of one cause, if these are given.
    """
    # a text that is refused while a statement is streamed leaves the cursor that was made for it
    for called, wanted in (("tenant_id", tenant_id), ("account_number", account_number), ("cause", cause)):
        if isinstance(wanted, str):
            checked_text(called, wanted, None)
    begin_snapshot(session, binding)
    for name in settings.ledgers():
        ledger = binding.ledger(name)
        connection = session.connection(bind_arguments={"mapper": inspect(ledger.item)})
        c = compared(binding, settings, ledger, dated=as_of is not None).subquery("compared").c
        query = select(*c).where(c.cause.is_not(None))
        for column, wanted in ((c.account_number, account_number), (c.cause, cause)):
            if wanted is not None:
                query = query.where(column == literal(wanted, Words(None)))
        query = query.order_by(c.account_number, c.entry_date, c.general_ledger_line_id)
        # who reads the first few leaves the rest, and no cursor open on the server
        with connection.execute(
            query, _parameters(tenant_id, as_of), execution_options={"stream_results": True, "max_row_buffer": 1000}
        ) as rows:
            for row in rows:
                yield Difference(ledger=name, account_number=row.account_number, cause=row.cause, **_values(row))


def _parameters(tenant_id: Any, as_of: date | None) -> dict[str, Any]:
    return {"tenant": tenant_id, **({} if as_of is None else {"as_of": as_of})}


def _accounts(
    connection: Connection, binding: Binding, settings: Settings, ledger: Ledger, tenant_id: Any, as_of: date | None
) -> Iterable[AccountProof]:
    dated = as_of is not None
    parameters = _parameters(tenant_id, as_of)
    found: dict[str, list[_Total]] = {
        account: [] for control in settings.of_ledger(ledger.name) for account in control.singles()
    }
    query = binding.once(
        settings, ("totals", ledger.name, dated), lambda: totals(binding, settings, ledger, dated=dated)
    )
    for row in connection.execute(query, parameters):
        found.setdefault(row.account_number, []).append(_Total(row.cause, row.lines, row.gl_amount, row.item_amount))
    found = {account: _with_orphans(totals) for account, totals in found.items()}
    causes = {total.cause for of_account in found.values() for total in of_account} - {None}
    examples: dict[tuple[str, str], list[Example]] = {}
    # an item that is left over is looked for only if there is one: it takes the whole projection once more
    for name, side, of_side in (("lines", of_lines, causes - {"orphan"}), ("items", left_over, causes & LEFT_OVER)):
        if not settings.examples_max or not of_side:
            continue
        examples_of = binding.once(
            settings,
            ("examples", name, ledger.name, dated),
            lambda: _examples(side(binding, settings, ledger, dated=dated).subquery("side"), settings.examples_max),  # noqa: B023
        )
        for row in connection.execute(examples_of, parameters):
            of_cause = examples.setdefault((row.account_number, row.cause), [])
            if len(of_cause) < settings.examples_max:
                of_cause.append(Example(**_values(row)))
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


def _with_orphans(totals: list[_Total]) -> list[_Total]:
    """The totals of an account with its orphans: all of its items but those that a line accounts for."""
    items = [total for total in totals if total.cause == ALL_ITEMS]
    on_lines = [total for total in totals if total.cause != ALL_ITEMS]
    matched = [total for total in on_lines if total.cause in MATCHED]
    count = sum(total.count for total in items) - sum(total.count for total in matched)
    amount = sum((total.item_amount for total in items), ZERO) - sum((total.item_amount for total in matched), ZERO)
    return [*on_lines, _Total("orphan", count, ZERO, amount)] if count else on_lines


def _account(
    tenant_id: Any,
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
            fault=name in FAULTS,
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
