"""The proof as one HTML page: what a bookkeeper prints, files, or sends to the auditor.

``page`` renders a ``Proof``, the lines behind its causes and an ``Ageing``. The page needs nothing but itself: no
script, no style sheet, no font, no network, and a policy in its head that forbids them, so a party named
``<script>`` is harmless even if the escaping failed. Every chart is drawn from the same figures as the table beside
it. Amounts stay ``Decimal`` until they are text; a float only ever says where a bar begins on the screen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cache
from typing import Final

from babel.dates import format_date
from babel.numbers import format_decimal
from jinja2 import Environment, PackageLoader, StrictUndefined

from ledger_sync.errors import ConfigurationError
from ledger_sync.models.types import ZERO
from ledger_sync.proof import AccountProof, Cause, Difference, Example, Proof
from ledger_sync.reports import Ageing, AgeingRow

DATES: Final = {"nb": "dd.MM.yyyy", "en": "yyyy-MM-dd"}
"""The known locales, and how each writes a date. The text of the page is English in all of them."""

MINUS: Final = "\N{MINUS SIGN}"
ROW_PIXELS: Final = 48
"""The height of one row of a chart: a line of text with a bar under it. The template's offsets assume it."""


# -- what the template is given ------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """One bar of a chart: its figures, and where it lies across the chart in percent of the width.

    ``kind``: ``balance``, ``explained`` or ``fault`` in a waterfall, ``open``, ``overdue`` or ``credits`` in an ageing.
    ``step``: a change between two balances rather than an amount from zero; ``end`` is the balance after it.
    """

    name: str
    amount: Decimal
    start: Decimal
    end: Decimal
    kind: str
    count: int | None = None
    step: bool = False
    x: float = 0.0
    width: float = 0.0
    after: float = 0.0


@dataclass(frozen=True)
class Chart:
    """Bars on one scale; ``zero`` is where on it nothing is, in percent."""

    bars: tuple[Bar, ...]
    zero: float

    @property
    def height(self) -> int:
        """In pixels."""
        return ROW_PIXELS * len(self.bars)


@dataclass
class Lines:
    """The lines behind one cause, as many as are shown. ``found`` is how many the caller's list had."""

    cause: Cause
    shown: list[Example] = field(default_factory=list)
    found: int = 0

    @property
    def fault(self) -> bool:
        """Whether the cause should not be there."""
        return self.cause.fault

    @property
    def cut(self) -> int:
        """How many lines the proof counted that are not shown."""
        return max(self.cause.count - len(self.shown), 0)

    @property
    def rest(self) -> Decimal:
        """What is left of the cause's amount for the lines that are not shown."""
        return self.cause.amount - sum((line.amount for line in self.shown), ZERO)


@dataclass(frozen=True)
class AccountView:
    """One control account with its waterfall and the lines of each cause."""

    proof: AccountProof
    chart: Chart
    causes: tuple[Lines, ...]


@dataclass(frozen=True)
class LedgerView:
    """The ageing of one ledger: ``all`` is the sum of its rows, ``others`` of those that are not shown."""

    ledger: str
    chart: Chart
    rows: tuple[AgeingRow, ...]
    others: AgeingRow | None
    others_count: int
    all: AgeingRow
    subledger: Decimal | None


# -- the page ------------------------------------------------------------------------------------------


def page(
    proof: Proof, differences: Iterable[Difference], ageing: Ageing, *, locale: str = "nb", lines_max: int = 1000
) -> str:
    """A proof as one self-contained HTML page, for a screen of any width, a screen reader, or paper.

    Takes what ``LedgerSync.verify``, ``differences`` and ``ageing`` return for one tenant; a snapshot of the
    database that holds for all three makes them agree, and the page says where they do not.

    :param differences: consumed once, and no more than ``lines_max`` lines of each cause are held in memory.
        Where it has no line of a cause, the cause's own examples stand in.
    :param locale: how numbers and dates are written, ``"nb"`` (1 234 567,89 and 31.12.2017) or ``"en"``
        (1,234,567.89 and 2017-12-31). The text is English in both.
    :param lines_max: so many lines are listed of each cause, and so many parties of each ledger, the largest ones;
        the page says what is left out, and what it adds up to.
    :raises ConfigurationError: the locale is unknown, ``lines_max`` is negative, or the proof and the ageing are of
        different tenants.
    """
    if locale not in DATES:
        raise ConfigurationError(f"locale={locale!r} is unknown; known are {', '.join(map(repr, DATES))}.")
    if lines_max < 0:
        raise ConfigurationError(f"lines_max={lines_max} must be 0 or more.")
    if proof.tenant_id != ageing.tenant_id:
        raise ConfigurationError("The proof and the ageing are of different tenants. Ask for both with one tenant_id.")
    used = [account for account in proof.accounts if account.gl_balance or account.subledger_balance or account.causes]
    lines, strays = _lines(used, differences, lines_max)
    accounts = [
        AccountView(proof=account, chart=_waterfall(account), causes=tuple(causes))
        for account, causes in zip(used, lines, strict=True)
    ]
    ledgers = list(_ledgers(proof, ageing, lines_max))
    template = _environment().get_template("proof.html.j2")
    return template.render(
        proof=proof,
        accounts=accounts,
        unused=[account for account in proof.accounts if account not in used],
        difference_anywhere=any(account.difference for account in used),
        findings=sorted(proof.findings, key=lambda finding: not finding.fault),
        strays=strays,
        ageing=ageing,
        ledgers=ledgers,
        ledgers_empty=_ledgers_empty(proof, ledgers),
        lines_max=lines_max,
        row_pixels=ROW_PIXELS,
        zero=ZERO,
        exact=lambda amount: format(amount, "f"),
        **_formats(locale),
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("ledger_sync.contrib.cli", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _formats(locale: str) -> dict[str, Callable[..., str]]:
    """What writes amounts, changes, counts and dates."""

    def money(amount: Decimal) -> str:
        # babel's own sign is a hyphen in both locales; decimals beyond the øre, where a host has them, are not hidden
        text = format_decimal(abs(amount), format="#,##0.00########", locale=locale)
        return f"{MINUS}{text}" if amount < 0 else text

    def change(amount: Decimal) -> str:
        return f"+{money(amount)}" if amount > 0 else money(amount)

    def number(count: int) -> str:
        return format_decimal(count, format="#,##0", locale=locale)

    def day(on: date) -> str:
        return format_date(on, format=DATES[locale], locale=locale)

    return {"money": money, "change": change, "number": number, "day": day}


# -- lines ---------------------------------------------------------------------------------------------


def _lines(
    accounts: Sequence[AccountProof], differences: Iterable[Difference], lines_max: int
) -> tuple[list[list[Lines]], int]:
    """The lines of each account's causes, and how many belong to none of them."""
    causes = [[Lines(cause) for cause in account.causes] for account in accounts]
    waiting = {
        (account.ledger, account.account_number, lines.cause.name): lines
        for account, of_account in zip(accounts, causes, strict=True)
        for lines in of_account
    }
    strays = 0
    for line in differences:
        lines = waiting.get((line.ledger, line.account_number, line.cause))
        if lines is None:
            strays += 1
            continue
        lines.found += 1
        if len(lines.shown) < lines_max:
            lines.shown.append(line)
    for of_account in causes:
        for lines in of_account:
            if not lines.found:
                lines.shown.extend(lines.cause.examples[:lines_max])
    return causes, strays


# -- charts --------------------------------------------------------------------------------------------


def _waterfall(account: AccountProof) -> Chart:
    """From the GL balance, less each cause, to the subledger balance."""
    bars = [Bar("GL balance", account.gl_balance, ZERO, account.gl_balance, "balance")]
    balance = account.gl_balance
    for cause in account.causes:
        kind = "fault" if cause.fault else "explained"
        left = balance - cause.amount
        bars.append(Bar(cause.name, -cause.amount, balance, left, kind, count=cause.count, step=True))
        balance = left
    bars.append(Bar("Subledger balance", account.subledger_balance, ZERO, account.subledger_balance, "balance"))
    return _chart(bars)


def _chart(bars: Sequence[Bar]) -> Chart:
    """Bars laid out on one scale, from the least to the greatest of their ends and zero."""
    ends = [ZERO, *(bar.start for bar in bars), *(bar.end for bar in bars)]
    lowest, highest = min(ends), max(ends)
    span = highest - lowest or Decimal(1)

    def percent(amount: Decimal) -> float:
        return round(float((amount - lowest) / span) * 100, 3)

    laid = tuple(
        Bar(
            bar.name,
            bar.amount,
            bar.start,
            bar.end,
            bar.kind,
            count=bar.count,
            step=bar.step,
            x=min(percent(bar.start), percent(bar.end)),
            width=abs(round(percent(bar.end) - percent(bar.start), 3)),
            after=percent(bar.end),
        )
        for bar in bars
    )
    return Chart(bars=laid, zero=percent(ZERO))


# -- ageing --------------------------------------------------------------------------------------------


def _ledgers(proof: Proof, ageing: Ageing, lines_max: int) -> Iterator[LedgerView]:
    """The ledgers in which something is open, in the order of the ageing."""
    for ledger in dict.fromkeys(row.ledger for row in ageing.rows):
        rows = [row for row in ageing.rows if row.ledger == ledger]
        largest = sorted(range(len(rows)), key=lambda index: -abs(rows[index].total))
        shown = set(largest[:lines_max])
        others = [row for index, row in enumerate(rows) if index not in shown]
        everybody = _sum(ledger, ageing, rows)
        balances = [account.subledger_balance for account in proof.accounts if account.ledger == ledger]
        yield LedgerView(
            ledger=ledger,
            chart=_ageing_chart(ageing, everybody),
            rows=tuple(row for index, row in enumerate(rows) if index in shown),
            others=_sum(ledger, ageing, others) if others else None,
            others_count=len(others),
            all=everybody,
            subledger=sum(balances, ZERO) if balances else None,
        )


def _ledgers_empty(proof: Proof, ledgers: Sequence[LedgerView]) -> list[str]:
    known = dict.fromkeys(account.ledger for account in proof.accounts)
    return [ledger for ledger in known if ledger not in {view.ledger for view in ledgers}]


def _sum(ledger: str, ageing: Ageing, rows: Sequence[AgeingRow]) -> AgeingRow:
    """One row that adds up others."""
    return AgeingRow(
        ledger=ledger,
        party_id=None,
        party_number=None,
        party_name=None,
        not_due=sum((row.not_due for row in rows), ZERO),
        overdue=tuple(sum((row.overdue[index] for row in rows), ZERO) for index in range(len(ageing.buckets))),
        credits=sum((row.credits for row in rows), ZERO),
        total=sum((row.total for row in rows), ZERO),
        without_due_date=sum((row.without_due_date for row in rows), ZERO),
    )


def _ageing_chart(ageing: Ageing, everybody: AgeingRow) -> Chart:
    amounts = [
        ("Not due", everybody.not_due, "open"),
        *(
            (f"{bucket} days overdue", amount, "overdue")
            for bucket, amount in zip(ageing.buckets, everybody.overdue, strict=True)
        ),
        ("Credits", everybody.credits, "credits"),
    ]
    return _chart([Bar(name, amount, ZERO, amount, kind) for name, amount, kind in amounts])
