"""What became of an entry, a document or the newest postings, in words; reads only.

Nothing is decided here: the projection says which reason applies to a control line, and the reasons come in a
fixed order, so every rule before it holds and those after it were not asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, Connection, Select, bindparam, inspect, or_, select, union
from sqlalchemy.orm import Session, aliased

from ledger_sync.binding import Binding, Document, Entity, Ledger, attribute
from ledger_sync.dialects import normalised
from ledger_sync.errors import NotInTheBooksError
from ledger_sync.projection import Lines, project, source_types, voucher_text
from ledger_sync.proof import MEANINGS
from ledger_sync.reports import OpenItem, items_of_lines
from ledger_sync.settings import Settings


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True)


class Rule(_Result):
    """One rule that a control line was measured by: whether it holds, and in words what was found."""

    name: str
    holds: bool
    text: str


class LineExplanation(_Result):
    """One journal line. ``outcome``: ``written``, ``missing``, ``differs``, ``no_control_account``, or the reason.

    ``amount`` is debit less credit. ``rules`` stop at the first that does not hold.
    """

    line_number: int
    account_number: str
    amount: Decimal
    ledger: str | None
    outcome: str
    text: str
    rules: tuple[Rule, ...] = ()
    item: OpenItem | None = None


class EntryExplanation(_Result):
    """One journal entry and what became of each of its lines."""

    general_ledger_id: Any
    voucher: str
    entry_date: date
    status: str
    source: str | None
    lines: tuple[LineExplanation, ...]


class Explanation(_Result):
    """The answer to "what became of this?". ``text`` says it in one sentence; ``entries`` rule by rule."""

    tenant_id: Any
    subject: str
    text: str
    entries: tuple[EntryExplanation, ...]


_VOUCHER: Final = re.compile(r"(?P<number>.+?)(/(?P<year>[0-9]{4}))?")
_NAMED: Final = re.compile(r"(?P<name>[a-z_]+):(?P<number>.+)")


def explain(session: Session, binding: Binding, settings: Settings, subject: Any, tenant_id: Any = None) -> Explanation:
    """Explain an entry or a document: the object, an entry's id, a voucher, or a document as ``name:number``."""
    return _Explainer(session, binding, settings).explain(subject, tenant_id)


def entries_of_voucher(connection: Connection, binding: Binding, tenant_id: Any, text: str) -> list[Any]:
    """The entry, by id, of a voucher as people write it: ``17``, ``B-17``, ``17/2026`` or ``B-17/2026``.

    None when there is no such voucher.

    :raises NotInTheBooksError: there are several; the message lists them.
    """
    match = _VOUCHER.fullmatch(text.strip())
    entry = binding.entry
    number, series = attribute(entry, "voucher_number"), attribute(entry, "voucher_series")
    written = match["number"] if match else text
    query = select(entry.id, *_voucher_columns(entry)).where(
        attribute(entry, "tenant_id") == tenant_id, or_(number == written, series + "-" + number == written)
    )
    if match and match["year"]:
        query = query.where(attribute(entry, "fiscal_year") == int(match["year"]))
    rows = list(connection.execute(query.order_by(entry.id).limit(10)))
    if len(rows) > 1:
        several = ", ".join(voucher_text(row) for row in rows)
        raise NotInTheBooksError(f"voucher {text}", f"could be {several}", "Write the one that is meant.")
    return [row.id for row in rows]


class _Explainer:
    def __init__(self, session: Session, binding: Binding, settings: Settings) -> None:
        self.binding = binding
        self.settings = settings
        self.connection = session.connection(bind_arguments={"mapper": inspect(binding.entry)})
        self.ledgers = tuple(binding.ledger(name) for name in settings.ledgers())

    def explain(self, subject: Any, tenant_id: Any) -> Explanation:
        if isinstance(subject, self.binding.entry):
            return self._of_entries(f"journal entry {subject.id}", subject.tenant_id, [subject.id])
        for ledger in self.ledgers:
            for document in ledger.documents:
                if isinstance(subject, document.model):
                    return self._of_documents(ledger, document, subject.tenant_id, [subject.id], str(subject.id))
        if tenant_id is None:
            raise NotInTheBooksError(repr(subject), "cannot be looked up without a tenant", "Give tenant_id as well.")
        if isinstance(subject, str):
            named = _NAMED.fullmatch(subject)
            if named is not None:
                return self._of_number(tenant_id, named["name"], named["number"])
            return self._of_entries(
                f"voucher {subject}", tenant_id, entries_of_voucher(self.connection, self.binding, tenant_id, subject)
            )
        return self._of_entries(f"journal entry {subject}", tenant_id, [subject])

    # -- looking up ------------------------------------------------------------------------------------

    def _of_number(self, tenant_id: Any, name: str, number: str) -> Explanation:
        for ledger in self.ledgers:
            document = ledger.document(name)
            if document is not None and document.number is not None:
                model = document.model
                query = select(attribute(model, "id")).where(
                    attribute(model, "tenant_id") == tenant_id,
                    normalised(attribute(model, document.number)) == normalised(bindparam("number", number)),
                )
                ids = list(self.connection.scalars(query.order_by(attribute(model, "id")).limit(10)))
                return self._of_documents(ledger, document, tenant_id, ids, number)
        known = sorted(d.name for ledger in self.ledgers for d in ledger.documents if d.number is not None)
        raise NotInTheBooksError(f"{name}:{number}", "names no kind of document", f"Use one of {', '.join(known)}.")

    def _of_documents(
        self, ledger: Ledger, document: Document, tenant_id: Any, ids: Sequence[Any], shown: str
    ) -> Explanation:
        subject = f"{document.name} {shown}"
        if not ids:
            raise NotInTheBooksError(subject, "is not in the books", "Check the number and the tenant.")
        names = source_types(self.settings, ledger, document)
        entry, linked, line, link = (
            aliased(m) for m in (self.binding.entry, self.binding.entry, self.binding.line, self.binding.link)
        )
        by_entry = select(entry.id.label("id")).where(
            entry.tenant_id == tenant_id, entry.source_type.in_(names), entry.source_id.in_(ids)
        )
        by_link = (
            select(linked.id)
            .join(line, line.general_ledger_id == linked.id)
            .join(link, link.line_id == line.id)
            .where(linked.tenant_id == tenant_id, link.source_type.in_(names), link.source_id.in_(ids))
        )
        found = union(by_entry, by_link).subquery("found")
        entries = list(self.connection.scalars(select(found.c.id).order_by(found.c.id)))
        if not entries:
            text = (
                f"No journal entry names {subject}, so nothing could be written for it. Post it, or link the line that "
                "it was posted by."
            )
            return Explanation(tenant_id=tenant_id, subject=subject, text=text, entries=())
        return self._of_entries(subject, tenant_id, entries)

    # -- explaining ------------------------------------------------------------------------------------

    def _of_entries(self, subject: str, tenant_id: Any, ids: Sequence[Any]) -> Explanation:
        explained = [found for entry_id in ids if (found := self._entry(tenant_id, entry_id)) is not None]
        if not explained:
            raise NotInTheBooksError(subject, "is not in the books", "Check the number and the tenant.")
        return Explanation(tenant_id=tenant_id, subject=subject, text=_summary(explained), entries=tuple(explained))

    def _entry(self, tenant_id: Any, entry_id: Any) -> EntryExplanation | None:
        entry, line = self.binding.entry, self.binding.line
        columns = ("id", "entry_date", "status", "source_type", "source_id")
        query = select(*(attribute(entry, name).label(name) for name in columns), *_voucher_columns(entry))
        query = query.where(attribute(entry, "id") == entry_id, attribute(entry, "tenant_id") == tenant_id)
        row = self.connection.execute(query).one_or_none()
        if row is None:
            return None
        on_control: dict[Any, LineExplanation] = {}
        for ledger in self.ledgers:
            on_control |= self._control_lines(ledger, entry_id)
        query = select(*(attribute(line, name) for name in ("id", "line_number", "account_number", "debit", "credit")))
        query = query.where(attribute(line, "general_ledger_id") == entry_id).order_by(attribute(line, "line_number"))
        lines = [on_control.get(found.id) or _elsewhere(found) for found in self.connection.execute(query)]
        return EntryExplanation(
            general_ledger_id=row.id,
            voucher=voucher_text(row),
            entry_date=row.entry_date,
            status=row.status,
            source=None if row.source_type is None else f"{row.source_type} {row.source_id}",
            lines=tuple(lines),
        )

    def _control_lines(self, ledger: Ledger, entry_id: Any) -> dict[Any, LineExplanation]:
        def of_entry(lines: Lines) -> list[ColumnElement[bool]]:
            return [attribute(lines.entry, "id") == entry_id]

        rows = list(self.connection.execute(project(self.binding, self.settings, ledger, of_entry)))
        ids = [row.general_ledger_line_id for row in rows]
        found = items_of_lines(self.connection, self.binding, self.settings, ledger, ids)
        items = {item.general_ledger_line_id: item for item in found}
        return {row.general_ledger_line_id: self._line(ledger, row, items) for row in rows}

    def _line(self, ledger: Ledger, row: Any, items: dict[Any, OpenItem]) -> LineExplanation:
        item = items.get(row.general_ledger_line_id)
        outcome = row.reason or _fault(row, item) or "written"
        return LineExplanation(
            line_number=row.line_number,
            account_number=row.account_number,
            amount=row.signed_amount,
            ledger=ledger.name,
            outcome=outcome,
            text=_sentence(ledger, row, item, outcome),
            rules=self._rules(ledger, row, item, outcome),
            item=item,
        )

    def _rules(self, ledger: Ledger, row: Any, item: OpenItem | None, outcome: str) -> tuple[Rule, ...]:
        """The rules in the order in which they are asked, up to the one that does not hold."""
        control = self.settings.control_account(row.account_number)
        taken = ", ".join(control.sources) if control is not None else ""
        source = f"{row.source_type} {row.source_id}"
        cut_over = self.settings.cut_over(row.tenant_id)
        asked = [
            ("draft", "The entry is posted.", "The entry is a draft."),
            (
                "before_cutover",
                "There is no cut-over." if cut_over is None else f"It does not lie before the cut-over of {cut_over}.",
                f"It, or the invoice that it settles, lies before the cut-over of {cut_over}.",
            ),
            ("manual", f"Its source is {source}.", "Neither the entry nor a link of the line names a source."),
            (
                "unsupported_source",
                f"Account {row.account_number} takes {taken}.",
                f"Its source is of type {row.source_type}, but account {row.account_number} takes {taken}.",
            ),
            ("source_not_found", f"{source} is there.", f"{source} is not in these books."),
            ("zero_amount", f"Its amount is {row.amount}.", "Its amount is zero."),
            ("written", f"Its row is in the {ledger.name} ledger.", _wrong(ledger, row, item, outcome)),
        ]
        first = Rule(
            name="control_account", holds=True, text=f"{row.account_number} is a control account of {ledger.name}s."
        )
        rules = [first]
        for name, fine, not_fine in asked:
            holds = not (row.reason == name or (name == "written" and outcome != "written"))
            rules.append(Rule(name=name, holds=holds, text=fine if holds else not_fine))
            if not holds:
                break
        return tuple(rules)


def _voucher_columns(entry: Entity) -> list[ColumnElement[Any]]:
    return [attribute(entry, name).label(name) for name in ("fiscal_year", "voucher_series", "voucher_number")]


def _elsewhere(line: Any) -> LineExplanation:
    return LineExplanation(
        line_number=line.line_number,
        account_number=line.account_number,
        amount=line.debit - line.credit,
        ledger=None,
        outcome="no_control_account",
        text=f"{line.account_number} is not a control account, so there is nothing to write.",
    )


def _fault(row: Any, item: OpenItem | None) -> str | None:
    if item is None:
        return "missing"
    same = (item.tenant_id, item.account_number, item.party_id, item.amount)
    return None if same == (row.tenant_id, row.account_number, row.party_id, row.amount) else "differs"


def _wrong(ledger: Ledger, row: Any, item: OpenItem | None, outcome: str) -> str:
    if outcome == "missing" or item is None:
        return f"It should have a row in the {ledger.name} ledger and has none."
    return (
        f"Its row has amount {item.amount}, party {item.party_id} and account {item.account_number}; the line says "
        f"{row.amount}, {row.party_id} and {row.account_number}."
    )


def _sentence(ledger: Ledger, row: Any, item: OpenItem | None, outcome: str) -> str:
    if outcome == "written" and item is not None:
        return f"It has an open item in the {ledger.name} ledger: {item.amount}, {item.remaining_amount} of it open."
    if row.reason is not None:
        meaning, next_step = MEANINGS[row.reason]
        return f"No ledger entry was created for it: {meaning}. {next_step}"
    return f"{_wrong(ledger, row, item, outcome)} {MEANINGS['missing'][1]}"


def _summary(entries: Sequence[EntryExplanation]) -> str:
    control = [(entry, line) for entry in entries for line in entry.lines if line.ledger is not None]
    if not control:
        vouchers = ", ".join(entry.voucher for entry in entries)
        return f"No ledger entry was created: no line of voucher {vouchers} is on a control account."
    return " ".join(f"Voucher {entry.voucher}, line {line.line_number}: {line.text}" for entry, line in control)


# -- the newest ----------------------------------------------------------------------------------------


class RecentLine(_Result):
    """A control line that was posted lately, and what became of it.

    ``outcome``: ``written``, ``missing``, or the reason why it has no open item. ``written_at``: when its row was.
    """

    ledger: str
    voucher: str
    entry_date: date
    posted_at: datetime | None
    account_number: str
    amount: Decimal
    outcome: str
    item_id: Any
    written_at: datetime | None
    remaining_amount: Decimal | None
    status: str | None


def recent(
    session: Session, binding: Binding, settings: Settings, tenant_id: str, since: datetime, *, limit: int = 100
) -> tuple[RecentLine, ...]:
    """The control lines that were posted since a moment, the newest first, at most ``limit`` per ledger."""
    found: list[RecentLine] = []
    for name in settings.ledgers():
        ledger = binding.ledger(name)
        connection = session.connection(bind_arguments={"mapper": inspect(ledger.item)})
        query = _recent(binding, settings, ledger).limit(limit)
        for row in connection.execute(query, {"tenant": tenant_id, "since": since}):
            values = {name: getattr(row, name) for name in RecentLine.model_fields if hasattr(row, name)}
            outcome = row.reason or ("missing" if row.item_id is None else "written")
            found.append(RecentLine(ledger=ledger.name, voucher=voucher_text(row), outcome=outcome, **values))
    earliest = datetime.min.replace(tzinfo=since.tzinfo)
    return tuple(sorted(found, key=lambda line: line.posted_at or earliest, reverse=True))


def _recent(binding: Binding, settings: Settings, ledger: Ledger) -> Select[Any]:
    def lately(lines: Lines) -> list[ColumnElement[bool]]:
        posted_at, tenant_id = attribute(lines.entry, "posted_at"), attribute(lines.entry, "tenant_id")
        return [
            tenant_id == bindparam("tenant", type_=tenant_id.type),
            posted_at >= bindparam("since", type_=posted_at.type),
        ]

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
            p.account_number,
            p.amount,
            p.reason,
            attribute(item, "id").label("item_id"),
            attribute(item, "created_at").label("written_at"),
            attribute(item, "remaining_amount").label("remaining_amount"),
            attribute(item, "status").label("status"),
        )
        .join(entry, attribute(entry, "id") == p.general_ledger_id)
        .outerjoin(item, attribute(item, "general_ledger_line_id") == p.general_ledger_line_id)
        .order_by(posted_at.desc(), p.general_ledger_line_id.desc())
    )
