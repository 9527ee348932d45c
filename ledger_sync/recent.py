"""The newest postings and what became of each; reads only.

Like an explanation it decides nothing: the projection says which reason applies to a line.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, inspect, select
from sqlalchemy.orm import Session

from ledger_sync.binding import Binding, Ledger, aliased, attribute
from ledger_sync.control_lines import Lines, of_tenant, voucher_text
from ledger_sync.models.types import in_utc, is_zoned, moment_in_utc
from ledger_sync.outcomes import Row, outcome
from ledger_sync.projection import project
from ledger_sync.results import Result
from ledger_sync.settings import Settings


class RecentLine(Result):
    """A control line that was posted lately, and what became of it.

    ``outcome``: ``written``, ``missing``, ``differs``, ``orphan``, or the reason why it has no open item, as in a
    ``LineExplanation``. ``written_at``: when its row was.
    """

    ledger: str
    voucher: str
    entry_date: date
    posted_at: datetime
    account_number: str
    amount: Decimal
    outcome: str
    item_id: Any
    written_at: datetime | None
    remaining_amount: Decimal | None
    status: str | None


def recent(
    session: Session, binding: Binding, settings: Settings, tenant_id: Any, since: datetime, *, limit: int = 100
) -> tuple[RecentLine, ...]:
    """The control lines that were posted since a moment, the newest first, at most ``limit`` per ledger."""
    moment = moment_in_utc(since)
    found: list[RecentLine] = []
    for name in settings.ledgers():
        ledger = binding.ledger(name)
        connection = session.connection(bind_arguments={"mapper": inspect(ledger.item)})
        query = binding.once(settings, ("recent", name), lambda: _recent(binding, settings, ledger))  # noqa: B023
        zoned = is_zoned(attribute(binding.entry, "posted_at").type)
        parameters = {"tenant": tenant_id, "since": moment if zoned else moment.replace(tzinfo=None)}
        for row in connection.execute(query.limit(limit), parameters):
            values = {name: getattr(row, name) for name in RecentLine.model_fields if hasattr(row, name)}
            must = Row(row.tenant_id, row.account_number, row.party_id, row.amount)
            has = None if row.item_id is None else Row(row.of_tenant, row.on_account, row.of_party, row.item_amount)
            became = outcome(row.reason, must, has)
            values["posted_at"] = in_utc(row.posted_at)
            values["written_at"] = None if row.written_at is None else in_utc(row.written_at)
            found.append(RecentLine(ledger=ledger.name, voucher=voucher_text(row), outcome=became, **values))
    return tuple(sorted(found, key=lambda line: line.posted_at, reverse=True))


def _recent(binding: Binding, settings: Settings, ledger: Ledger) -> Select[Any]:
    def lately(lines: Lines) -> list[ColumnElement[bool]]:
        posted_at = attribute(lines.entry, "posted_at")
        return [of_tenant(lines.entry), posted_at >= bindparam("since", type_=posted_at.type)]

    p = project(binding, settings, ledger, lately).subquery("lately").c
    item, entry = aliased(ledger.item), aliased(binding.entry)
    posted_at = attribute(entry, "posted_at")
    return (
        select(
            p.fiscal_year,
            p.voucher_series,
            p.voucher_number,
            p.entry_date,
            posted_at.label("posted_at"),
            p.tenant_id,
            p.account_number,
            p.party_id,
            p.amount,
            p.reason,
            attribute(item, "id").label("item_id"),
            attribute(item, "tenant_id").label("of_tenant"),
            attribute(item, "account_number").label("on_account"),
            attribute(item, ledger.party).label("of_party"),
            attribute(item, "amount").label("item_amount"),
            attribute(item, "created_at").label("written_at"),
            attribute(item, "remaining_amount").label("remaining_amount"),
            attribute(item, "status").label("status"),
        )
        .join(entry, attribute(entry, "id") == p.general_ledger_id)
        .outerjoin(item, attribute(item, "general_ledger_line_id") == p.general_ledger_line_id)
        .order_by(posted_at.desc(), p.general_ledger_line_id.desc())
    )
