"""The commands that only read: the proof and the reports, for people or as JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from ledger_sync import LedgerSync, Proof
from ledger_sync.contrib.cli import show
from ledger_sync.contrib.cli.commands import (
    DEFAULT_DB,
    Accounts,
    Db,
    Everybody,
    Json,
    Tenant,
    app,
    books,
    one_tenant_of,
    settings_of,
    tenants_of,
)
from ledger_sync.errors import ConfigurationError

Day = Annotated[
    datetime | None, typer.Option("--as-of", formats=["%Y-%m-%d"], help="As it was at the end of that day.")
]
Since = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First entry date.")]
Until = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last entry date.")]
Ledgers = Annotated[list[str] | None, typer.Option(help="supplier, customer or employee; all unless given.")]


def _date(moment: datetime | None) -> date | None:
    return moment.date() if moment is not None else None


def _span(text: str) -> timedelta:
    """``7d``, ``12h`` or ``2w`` as a length of time."""
    match = re.fullmatch(r"(\d{1,4})([hdw])", text)
    if match is None:
        raise ConfigurationError(f"--recent {text} should be a number with h, d or w behind it: 12h, 7d, 2w.")
    return int(match[1]) * {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}[match[2]]


@app.command()
def verify(
    db: Db = DEFAULT_DB,
    tenant: Tenant = None,
    all_tenants: Everybody = False,
    as_of: Day = None,
    recent: Annotated[
        str | None, typer.Option("--recent", help="Show the lines posted in the last 12h, 7d or 2w as well.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the proof as a page to this file.")] = None,
    locale: Annotated[str, typer.Option("--locale", help="How the page writes numbers: nb or en.")] = "nb",
    account: Accounts = None,
    as_json: Json = False,
) -> int:
    """Compare the control accounts with their subledgers. Status 1 when an open item is missing or wrong."""
    output = show.Output(as_json)
    sync = LedgerSync(settings_of(account))
    since = datetime.now(UTC) - _span(recent) if recent is not None else None
    with books(db) as (_, factory), factory() as session:
        names = tenants_of(sync, session, tenant, everybody=all_tenants)
        session.rollback()  # so that the proof begins a transaction of its own, with one snapshot
        proofs = [sync.verify(session, name, _date(as_of)) for name in names]
        output.document(proofs)
        for name, result in zip(names, proofs, strict=True):
            show.proof(output, result)
            if since is not None:
                show.recent(output, sync.recent(session, name, since), since)
        if html is not None:
            _write_page(sync, session, html, proofs, _date(as_of), locale)
            output.say(f"The proof is in {show.plain(html)}.")
    return 0 if all(result.clean for result in proofs) else 1


def _write_page(
    sync: LedgerSync, session: Session, file: Path, proofs: Sequence[Proof], as_of: date | None, locale: str
) -> None:
    from ledger_sync.contrib.cli.page import page

    if len(proofs) != 1:
        raise ConfigurationError("--html writes the proof of one tenant. Say which: --tenant ID.")
    proof = proofs[0]
    differences = sync.differences(session, proof.tenant_id, as_of)
    ageing = sync.ageing(session, proof.tenant_id, as_of=as_of)
    file.write_text(page(proof, differences, ageing, locale=locale), encoding="utf-8")


@app.command()
def explain(
    subject: Annotated[str, typer.Argument(help="A voucher (17, B-17/2026) or a document (vendor_invoice:8907).")],
    db: Db = DEFAULT_DB,
    tenant: Tenant = None,
    account: Accounts = None,
    as_json: Json = False,
) -> int:
    """Say what became of a voucher or a document, rule by rule."""
    output = show.Output(as_json)
    sync = LedgerSync(settings_of(account))
    with books(db) as (_, factory), factory() as session:
        name = one_tenant_of(sync, session, tenant)
        explanation = sync.explain(session, subject, name)
        output.document([explanation])
        show.explanation(output, explanation)
    return 0


@app.command("open-items")
def open_items(
    db: Db = DEFAULT_DB,
    tenant: Tenant = None,
    all_tenants: Everybody = False,
    as_of: Day = None,
    ledger: Ledgers = None,
    include_settled: Annotated[bool, typer.Option("--include-settled", help="Paid items as well.")] = False,
    account: Accounts = None,
    as_json: Json = False,
) -> int:
    """List what is open, to whom, since when."""
    output = show.Output(as_json)
    sync = LedgerSync(settings_of(account))
    with books(db) as (_, factory), factory() as session:
        found = [
            item
            for name in tenants_of(sync, session, tenant, everybody=all_tenants)
            for item in sync.open_items(
                session, name, ledgers=ledger or None, as_of=_date(as_of), include_settled=include_settled
            )
        ]
    output.items(found)
    show.open_items(output, found)
    return 0


@app.command()
def ageing(
    db: Db = DEFAULT_DB,
    tenant: Tenant = None,
    all_tenants: Everybody = False,
    as_of: Day = None,
    ledger: Ledgers = None,
    buckets: Annotated[str, typer.Option("--buckets", help="The last day of each bucket but the last.")] = "30,60,90",
    account: Accounts = None,
    as_json: Json = False,
) -> int:
    """Add up what is open by how long it is overdue, party by party."""
    output = show.Output(as_json)
    sync = LedgerSync(settings_of(account))
    if not re.fullmatch(r"\d{1,5}(,\d{1,5})*", buckets):
        raise ConfigurationError(f"--buckets {buckets} should be days with commas between them: 30,60,90.")
    days = [int(part) for part in buckets.split(",")]
    with books(db) as (_, factory), factory() as session:
        found = [
            sync.ageing(session, name, as_of=_date(as_of), ledgers=ledger or None, buckets=days)
            for name in tenants_of(sync, session, tenant, everybody=all_tenants)
        ]
    output.document(found)
    for result in found:
        show.ageing(output, result)
    return 0


@app.command()
def specification(
    ledger: Annotated[str, typer.Argument(help="supplier, customer or employee.")],
    db: Db = DEFAULT_DB,
    tenant: Tenant = None,
    since: Since = None,
    until: Until = None,
    party: Annotated[str | None, typer.Option("--party", help="The number of one party: its statement.")] = None,
    account: Accounts = None,
    as_json: Json = False,
) -> int:
    """List each party's opening balance, movements and closing balance of a period."""
    output = show.Output(as_json)
    sync = LedgerSync(settings_of(account))
    with books(db) as (_, factory), factory() as session:
        name = one_tenant_of(sync, session, tenant)
        found = sync.specification(session, name, ledger, since=_date(since), until=_date(until))
    if party is not None:
        of_party = [account for account in found.parties if account.party_number == party]
        if not of_party:
            raise ConfigurationError(f"Party {party} has nothing in the {ledger} ledger in that period.")
        found = found.model_copy(update={"parties": tuple(of_party)})
    output.document([found])
    show.specification(output, found)
    return 0
