"""What the commands print: tables for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal

from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ledger_sync.progress import Progress as Snapshot
from ledger_sync.progress import RunReport
from ledger_sync.proof import EXPLAINED, Proof
from ledger_sync.reports import OpenItem

MEANINGS = {
    "manual": "posted without a source",
    "before_cutover": "dated before the cut-over",
    "unsupported_source": "from a source that this account does not take",
    "source_not_found": "the source is not there",
    "zero_amount": "amount zero",
    "draft": "not posted yet",
    "missing": "should have an open item and has none",
    "amount_differs": "the open item has another amount",
    "wrong_party": "the open item is on another party",
    "orphan": "an open item without its line",
}


def money(amount: Decimal) -> str:
    """An amount with thousands separators and two decimals."""
    return f"{amount:,.2f}"


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
            texts = [result.model_dump_json(indent=2) for result in results]
            print(texts[0] if len(texts) == 1 else "[" + ",\n".join(texts) + "]")  # noqa: T201

    def items(self, results: Sequence[BaseModel]) -> None:
        """The results as a JSON array, under ``--json`` only, however many there are."""
        if self.as_json:
            print("[" + ",\n".join(result.model_dump_json() for result in results) + "]")  # noqa: T201

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> None:
        """A table for people; the columns in ``numbers`` are set flush right."""
        if self.as_json:
            return
        table = Table(title=escape(title), title_justify="left", title_style="bold")
        for index, name in enumerate(columns):
            table.add_column(name, justify="right" if index in numbers else "left", no_wrap=index in numbers)
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self.console.print(table)

    @contextmanager
    def progress(self) -> Iterator[Callable[[Snapshot], None]]:
        """A bar that follows a run."""
        if self.as_json:
            yield lambda snapshot: None
            return
        columns = (
            TextColumn("{task.description:<18}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("lines"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task("starting", total=None)

            def follow(snapshot: Snapshot) -> None:
                bar.update(task, description=snapshot.stage, completed=snapshot.processed, total=max(snapshot.total, 1))
                if snapshot.state == "completed":
                    bar.update(task, completed=max(snapshot.total, 1))

            yield follow


def run_report(output: Output, report: RunReport) -> None:
    """The counts of a run, stage by stage."""
    rows = [
        [
            stage.stage,
            f"{stage.processed:,}",
            f"{stage.synced:,}",
            f"{stage.applied:,}",
            ", ".join(f"{count:,} {reason}" for reason, count in sorted(stage.skipped.items())) or "none",
        ]
        for stage in report.stages
    ]
    title = f"Backfill {'(dry run: nothing was written)' if report.dry_run else report.state}"
    output.table(title, ["stage", "lines", "written", "applied", "skipped"], rows, numbers=(1, 2, 3))


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
            rows.append(
                ["", f"  {mark}{cause.name} ({cause.count:,}): {MEANINGS[cause.name]}", "", "", money(cause.amount)]
            )
    as_of = f" as of {result.as_of}" if result.as_of else ""
    output.table(
        f"Tenant {result.tenant_id}{as_of}",
        ["account", "subledger and causes", "GL balance", "subledger", "difference"],
        rows,
        numbers=(2, 3, 4),
    )
    if result.clean:
        output.say("Every øre of difference has a cause that the books explain; no open item is missing or wrong.")
    else:
        output.say(
            "[bold]Marked with ! is what should not be there.[/bold] `ledger-sync backfill` writes what is missing."
        )


def open_items(output: Output, items: Sequence[OpenItem]) -> None:
    """One line per open item, and a total per ledger."""
    rows = [
        [
            item.ledger,
            f"{item.party_number or item.party_id} {item.party_name or ''}".strip(),
            item.voucher,
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
