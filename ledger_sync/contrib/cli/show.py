"""What the commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal

from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ledger_sync.explain import Explanation
from ledger_sync.matching import Matches
from ledger_sync.plain import one_line
from ledger_sync.progress import OnProgress, RunReport, rich_bar
from ledger_sync.proof import EXPLAINED, Proof
from ledger_sync.recent import RecentLine
from ledger_sync.reports import Ageing, OpenItem
from ledger_sync.statements import Specification


def plain(text: object) -> str:
    """A text of somebody else's, a name say, as it may stand within marked-up text."""
    return escape(one_line(text))


def money(amount: Decimal) -> str:
    """An amount with thousands separators and two decimals."""
    return f"{amount:,.2f}"


Cell = str | list[str]


class Output:
    """Where a command's results go: tables to a terminal, or one JSON document."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False, soft_wrap=False)

    def say(self, text: str) -> None:
        """A line for people; nothing under ``--json``."""
        if not self.as_json:
            self.console.print(text, soft_wrap=True)

    def document(self, results: Sequence[BaseModel]) -> None:
        """The results as JSON, under ``--json`` only: an object, or an array of several."""
        if self.as_json:
            self._print([result.model_dump_json(indent=2) for result in results], alone=len(results) == 1)

    def items(self, results: Sequence[BaseModel]) -> None:
        """The results as a JSON array, under ``--json`` only, however many there are."""
        if self.as_json:
            self._print([result.model_dump_json() for result in results], alone=False)

    def _print(self, texts: Sequence[str], *, alone: bool) -> None:
        text = texts[0] if alone else "[" + ",\n".join(texts) + "]"
        # a terminal may be where it goes, and within JSON only strings have such characters
        print("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))  # noqa: T201

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], numbers: Sequence[int]) -> None:
        """A table for people; the columns in ``numbers`` are set flush right. A cell is one line, or a list of them."""
        if self.as_json:
            return
        table = Table(title=plain(title), title_justify="left", title_style="bold")
        for index, name in enumerate(columns):
            table.add_column(
                name, justify="right" if index in numbers else "left", no_wrap=index in numbers, overflow="fold"
            )
        for row in rows:
            lines = ([cell] if isinstance(cell, str) else cell for cell in row)
            table.add_row(*("\n".join(map(plain, cell)) for cell in lines))
        self.console.print(table)

    @contextmanager
    def progress(self) -> Iterator[OnProgress]:
        """A bar that follows a run."""
        if self.as_json:
            yield lambda snapshot: None
            return
        with rich_bar(self.console) as follow:
            yield follow


def run_report(output: Output, report: RunReport) -> None:
    """The counts of a run, stage by stage, and how the books stand."""
    columns = ["stage", "lines", "written", "there", "applied", "skipped"]
    rows = [
        [
            stage.stage,
            f"{stage.processed:,}",
            f"{stage.synced:,}",
            f"{stage.existing:,}",
            f"{stage.applied:,}",
            _counts({**stage.skipped, **({"! could not be written": stage.errors} if stage.errors else {})}),
        ]
        for stage in report.stages
    ]
    title = f"Run {report.run_id}: {'dry run, nothing was written' if report.dry_run else _state(report)}"
    output.table(title, columns, rows, numbers=(1, 2, 3, 4))
    checked = next((stage for stage in report.stages if stage.stage == "checking"), None)
    if checked is not None and checked.found:
        output.say(f"Documents that no posted entry mentions: {_counts(checked.found)}.")
    posted = sum(stage.posted for stage in report.stages)
    if posted:
        output.say(f"Documents posted: {posted:,}.")
    if report.errors:
        output.say(
            f"[red]{report.errors:,} could not be written.[/red] Why is in ledger_sync_errors; a later run tries again."
        )
    for result in report.proofs:
        proof(output, result)
    if report.clean is not None:
        output.say(
            "The books are clean." if report.clean else "[red]The books are not clean.[/red] See: ledger-sync verify"
        )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "none"


def _state(report: RunReport) -> str:
    return report.state.replace("_", " ")


def runs(output: Output, reports: Sequence[RunReport]) -> None:
    """Past and present runs, the newest first; fit for a terminal of 80 columns."""
    rows: list[list[Cell]] = [
        [
            f"{report.run_id}",
            [report.kind, str(report.tenant_id or "all tenants")],
            [
                _state(report) + (f", told to {report.command}" if report.command else ""),
                *([f"by {report.actor}"] if report.actor else []),
                *([report.note] if report.note else []),
            ],
            [f"{report.started_at:%Y-%m-%d}", f"{report.started_at:%H:%M}"] if report.started_at else "",
            [
                f"{report.active_seconds:,.1f} s",
                *([f"{report.lines_per_second:,.0f}/s"] if report.lines_per_second else []),
            ],
            f"{report.processed:,}",
            f"{report.synced:,}",
            f"{report.errors:,}",
        ]
        for report in reports
    ]
    columns = ["run", "what", "state", "began (UTC)", "worked", "lines", "written", "errors"]
    output.table("Runs", columns, rows, numbers=(0, 4, 5, 6, 7))


def proof(output: Output, result: Proof) -> None:
    """Balances, differences and causes of one tenant."""
    rows: list[list[str]] = []
    for account in result.accounts:
        if not account.gl_balance and not account.subledger_balance and not account.causes:
            continue
        rows.append(
            [
                account.account_number,
                f"{account.ledger}_ledger",
                money(account.gl_balance),
                money(account.subledger_balance),
                money(account.difference),
            ]
        )
        for cause in account.causes:
            mark = "" if cause.name in EXPLAINED else "! "
            rows.append(["", f"  {mark}{cause.name} ({cause.count:,}): {cause.meaning}", "", "", money(cause.amount)])
    as_of = f" as of {result.as_of}" if result.as_of else ""
    output.table(
        f"Tenant {result.tenant_id}{as_of}",
        ["account", "subledger and causes", "GL balance", "subledger", "difference"],
        rows,
        numbers=(2, 3, 4),
    )
    if result.findings:
        listed: list[list[Cell]] = [
            [
                f"{'! ' if finding.fault else ''}{finding.name} ({finding.count:,})",
                finding.ledger,
                finding.meaning,
                [subject.text for subject in finding.examples],
            ]
            for finding in sorted(result.findings, key=lambda finding: not finding.fault)
        ]
        output.table("Findings", ["finding", "ledger", "what it is", "examples"], listed, numbers=())
    if result.runs_active:
        runs = ", ".join(str(run) for run in result.runs_active)
        output.say(f"Taken while run {runs} was writing: what it has not reached yet is missing.")
    if result.clean:
        output.say("Every øre of difference has a cause that the books explain; no open item is missing or wrong.")
    else:
        output.say("[bold]Marked with ! is what should not be there.[/bold] `ledger-sync repair` mends it.")


def open_items(output: Output, items: Sequence[OpenItem]) -> None:
    """One line per open item, and a total per ledger."""
    rows = [
        [
            item.ledger,
            f"{item.party_number or item.party_id} {item.party_name or ''}".strip(),
            item.voucher or "",
            item.kind,
            item.invoice_number or "",
            str(item.due_date or ""),
            money(item.amount),
            money(item.remaining_amount),
        ]
        for item in items
    ]
    columns = ["ledger", "party", "voucher", "kind", "invoice", "due", "amount", "open"]
    output.table("Open items", columns, rows, numbers=(6, 7))
    totals: dict[str, Decimal] = {}
    for item in items:
        totals[item.ledger] = totals.get(item.ledger, Decimal(0)) + item.remaining_amount
    for ledger, total in totals.items():
        output.say(f"{ledger}_ledger: {money(total)} open")


def repair_report(output: Output, report: RunReport) -> None:
    """What a repair found, and what it did about it."""
    rows = [
        [
            stage.stage,
            ", ".join(f"{count:,} {what}" for what, count in sorted(stage.found.items())) or "nothing",
            f"{stage.synced:,}",
            f"{stage.removed:,}",
            f"{stage.applied:,}",
        ]
        for stage in report.stages
    ]
    title = f"Repair {'(dry run: nothing was written)' if report.dry_run else report.state}"
    output.table(title, ["stage", "found wrong", "written", "taken away", "applied"], rows, numbers=(2, 3, 4))
    if not report.dry_run:
        output.say("The proof after it is clean." if report.clean else "[bold]The proof after it is not clean.[/bold]")


def explanation(output: Output, result: Explanation) -> None:
    """What became of each line, rule by rule."""
    output.say(plain(result.text))
    for entry in result.entries:
        source = f", source {entry.source}" if entry.source else ""
        output.say(
            f"\n[bold]Voucher {plain(entry.voucher)}[/bold] of {entry.entry_date}, {entry.status}{plain(source)}"
        )
        for line in entry.lines:
            output.say(f"  line {line.line_number}, account {plain(line.account_number)}, {money(line.amount)}")
            for rule in line.rules:
                output.say(f"    {'yes' if rule.holds else '[bold]no [/bold]'}  {plain(rule.text)}")
            if not line.rules:
                output.say(f"    {plain(line.text)}")


def recent(output: Output, lines: Sequence[RecentLine], since: datetime) -> None:
    """The newest control lines and what became of them."""
    rows = [
        [
            line.posted_at.strftime("%Y-%m-%d %H:%M") if line.posted_at else "",
            line.voucher,
            line.account_number,
            money(line.amount),
            line.outcome,
            line.written_at.strftime("%Y-%m-%d %H:%M") if line.written_at else "",
            "" if line.remaining_amount is None else money(line.remaining_amount),
        ]
        for line in lines
    ]
    columns = ["posted (UTC)", "voucher", "account", "amount", "outcome", "row written", "open"]
    output.table(f"Posted since {since:%Y-%m-%d %H:%M} UTC", columns, rows, numbers=(3, 6))


def ageing(output: Output, result: Ageing) -> None:
    """One table per ledger: a line per party, and the sum."""
    for ledger in dict.fromkeys(row.ledger for row in result.rows):
        of_ledger = [row for row in result.rows if row.ledger == ledger]
        rows = [
            [
                f"{row.party_number or row.party_id} {row.party_name or ''}".strip(),
                money(row.not_due),
                *(money(amount) for amount in row.overdue),
                money(row.credits),
                money(row.total),
            ]
            for row in of_ledger
        ]
        sums = [sum(column, Decimal(0)) for column in zip(*(row.overdue for row in of_ledger), strict=True)]
        rows.append(
            [
                "all",
                money(sum((row.not_due for row in of_ledger), Decimal(0))),
                *(money(amount) for amount in sums),
                money(sum((row.credits for row in of_ledger), Decimal(0))),
                money(result.total(ledger)),
            ]
        )
        columns = ["party", "not due", *(f"{bucket} days" for bucket in result.buckets), "credits", "total"]
        title = f"{ledger}_ledger by days overdue on {result.as_of}, tenant {result.tenant_id}"
        output.table(title, columns, rows, numbers=range(1, len(columns)))
        undated = sum((row.without_due_date for row in of_ledger), Decimal(0))
        if undated:
            output.say(f"{money(undated)} of it has no due date and is counted by the document's date.")


def specification(output: Output, result: Specification) -> None:
    """Each party's opening balance, movements and closing balance."""
    period = f"{result.since or 'the beginning'} to {result.until or 'the end'}"
    rows: list[list[str]] = []
    for account in result.parties:
        party = f"{account.party_number or account.party_id} {account.party_name or ''}".strip()
        rows.append([party, "", "", "opening", "", money(account.opening)])
        rows += [
            [
                "",
                str(movement.entry_date),
                movement.voucher or "",
                f"{movement.kind} {movement.invoice_number or ''}".strip(),
                money(movement.amount),
                money(movement.balance),
            ]
            for movement in account.movements
        ]
        rows.append(["", "", "", "closing", "", money(account.closing)])
    columns = ["party", "date", "voucher", "what", "amount", "balance"]
    output.table(f"{result.ledger}_ledger, {period}, tenant {result.tenant_id}", columns, rows, numbers=(4, 5))
    output.say(f"All parties: opening {money(result.opening)}, closing {money(result.closing)}")


def matches(output: Output, found: Matches) -> None:
    """One line per proposal, and how many there are of each kind."""
    rows: list[list[Cell]] = [
        [
            "certain" if proposal.certain else "ambiguous",
            proposal.voucher,
            proposal.account_number,
            money(proposal.amount),
            [
                f"{candidate.role} {candidate.document} {candidate.number or candidate.document_id}"
                f" ({', '.join(candidate.evidence)})"
                for candidate in proposal.candidates
            ],
        ]
        for proposal in found.proposals
    ]
    output.table("Proposals", ["match", "voucher", "account", "amount", "candidates"], rows, numbers=(3,))
    output.say(
        f"{len(found.certain):,} certain, {len(found.ambiguous):,} ambiguous, {found.unmatched:,} without a candidate"
    )
