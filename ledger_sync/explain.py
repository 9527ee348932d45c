"""What became of an entry or a document, in words; reads only.

Nothing is decided here: the projection says which reason applies to a control line, and the reasons come in a
fixed order, so every rule before it holds and those after it were not asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, bindparam, inspect, or_, select, union
from sqlalchemy.orm import Session

from ledger_sync.attributes import held, key_held
from ledger_sync.binding import Binding, Document, Ledger, aliased, attribute
from ledger_sync.control_lines import Lines, debit_less_credit, source_types, voucher_columns, voucher_text
from ledger_sync.dialects import normalised, unindexed
from ledger_sync.errors import NotInTheBooksError
from ledger_sync.models.types import checked_text
from ledger_sync.outcomes import Row, outcome
from ledger_sync.projection import project
from ledger_sync.proof import MEANINGS
from ledger_sync.reports import OpenItem, items_of_lines
from ledger_sync.results import Result
from ledger_sync.settings import Settings

DOCUMENTS_MAX: Final = 10
"""So many documents of one number are explained."""
ASKED_MAX: Final = 100
"""The longest name of a voucher or document that is looked up: series, number and year of the ready-made models."""


class Rule(Result):
    """One rule that a control line was measured by: whether it holds, and in words what was found."""

    name: str
    holds: bool
    text: str


class LineExplanation(Result):
    """One journal line. ``amount`` is debit less credit. ``rules`` stop at the first that does not hold.

    ``outcome``: ``written``, ``missing``, ``differs``, ``no_control_account``, the reason why it has no open item, or
    ``orphan`` if it has one all the same; the last rule is the reason then.
    """

    line_number: int | None
    account_number: str
    amount: Decimal
    ledger: str | None
    outcome: str
    text: str
    rules: tuple[Rule, ...] = ()
    item: OpenItem | None = None


class EntryExplanation(Result):
    """One journal entry and what became of each of its lines."""

    general_ledger_id: Any
    voucher: str
    entry_date: date
    status: str
    source: str | None
    lines: tuple[LineExplanation, ...]


class Explanation(Result):
    """The answer to "what became of this?". ``text`` says it in one sentence; ``entries`` rule by rule."""

    tenant_id: Any
    subject: str
    text: str
    entries: tuple[EntryExplanation, ...]


_WITH_YEAR: Final = re.compile(r"(?P<number>.+)/(?P<year>[0-9]{4})", re.DOTALL)
_NAMED: Final = re.compile(r"(?P<name>[a-z_]+):(?P<number>.+)", re.DOTALL)


def explain(session: Session, binding: Binding, settings: Settings, subject: Any, tenant_id: Any = None) -> Explanation:
    """Explain an entry or a document: the object, an entry's id, a voucher, or a document as ``name:number``."""
    return _Explainer(session, binding, settings).explain(subject, tenant_id)


def entries_of_voucher(connection: Connection, binding: Binding, tenant_id: Any, text: str) -> list[Any]:
    """The entry, by id, of a voucher as people write it: ``17``, ``B-17``, ``17/2026`` or ``B-17/2026``.

    A number may itself end like a year, so ``5/1234`` is also the voucher of that number. None when there is no such
    voucher.

    :raises NotInTheBooksError: there are several; the message lists them.
    :raises TextError: no voucher can be called that.
    """
    checked_text("voucher", text, ASKED_MAX)
    entry = binding.entry
    number, series = attribute(entry, "voucher_number"), attribute(entry, "voucher_series")
    # as it stands, and without the blanks that people type around it
    for given in dict.fromkeys((text, text.strip())):
        called = or_(number == given, series + "-" + number == given)
        if match := _WITH_YEAR.fullmatch(given):
            without = match["number"]
            of_year = attribute(entry, "fiscal_year") == int(match["year"])
            called = or_(called, and_(or_(number == without, series + "-" + number == without), of_year))
        query = select(entry.id, *voucher_columns(entry)).where(attribute(entry, "tenant_id") == tenant_id, called)
        rows = list(connection.execute(query.order_by(entry.id).limit(10)))
        if len(rows) > 1:
            several = [voucher_text(row) for row in rows]
            said = f"could be {', '.join(several)}"
            raise NotInTheBooksError(f"voucher {text}", said, "Write the one that is meant.", several)
        if rows:
            return [rows[0].id]
    return []


class _Explainer:
    def __init__(self, session: Session, binding: Binding, settings: Settings) -> None:
        self.binding = binding
        self.settings = settings
        self.connection = session.connection(bind_arguments={"mapper": inspect(binding.entry)})
        self.ledgers = tuple(binding.ledger(name) for name in settings.ledgers())

    def explain(self, subject: Any, tenant_id: Any) -> Explanation:
        if isinstance(subject, self.binding.entry):
            key = key_held(subject)
            return self._of_entries(f"journal entry {key}", self._tenant_of(subject, tenant_id), [key])
        for ledger in self.ledgers:
            for document in ledger.documents:
                if isinstance(subject, document.model):
                    key, tenant = key_held(subject), self._tenant_of(subject, tenant_id)
                    ids = [key] if tenant == held(subject, "tenant_id", load=True) else []
                    return self._of_documents(ledger, document, tenant, ids, str(key))
        if tenant_id is None:
            raise NotInTheBooksError(repr(subject), "cannot be looked up without a tenant", "Give tenant_id as well.")
        if isinstance(subject, str):
            named = _NAMED.fullmatch(subject)
            if named is not None and (bound := self._numbered(named["name"])) is not None:
                return self._of_number(*bound, tenant_id, named["number"])
            entries = entries_of_voucher(self.connection, self.binding, tenant_id, subject)
            if named is not None and not entries:
                known = sorted(d.name for ledger in self.ledgers for d in ledger.documents if d.number is not None)
                raise NotInTheBooksError(subject, "names no kind of document", f"Use one of {', '.join(known)}.")
            return self._of_entries(f"voucher {subject}", tenant_id, entries)
        return self._of_entries(f"journal entry {subject}", tenant_id, [subject])

    @staticmethod
    def _tenant_of(subject: Any, tenant_id: Any) -> Any:
        """Whose books are asked: the tenant's that was named, otherwise those of the object itself."""
        return held(subject, "tenant_id", load=True) if tenant_id is None else tenant_id

    # -- looking up ------------------------------------------------------------------------------------

    def _numbered(self, name: str) -> tuple[Ledger, Document] | None:
        """The class of documents of that name, if they have numbers."""
        for ledger in self.ledgers:
            document = ledger.document(name)
            if document is not None and document.number is not None:
                return ledger, document
        return None

    def _of_number(self, ledger: Ledger, document: Document, tenant_id: Any, number: str) -> Explanation:
        checked_text("number", number, ASKED_MAX)
        model = document.model
        column = attribute(model, document.number or "", text=True)
        sought = bindparam("number", number, type_=column.type)
        query = select(attribute(model, "id")).where(
            attribute(model, "tenant_id") == tenant_id, normalised(column) == normalised(sought)
        )
        ids = list(self.connection.scalars(query.order_by(attribute(model, "id")).limit(DOCUMENTS_MAX + 1)))
        explanation = self._of_documents(ledger, document, tenant_id, ids[:DOCUMENTS_MAX], number)
        if len(ids) <= DOCUMENTS_MAX:
            return explanation
        more = f"More than {DOCUMENTS_MAX} documents have that number; this is about the first {DOCUMENTS_MAX} of them."
        return explanation.model_copy(update={"text": f"{more} {explanation.text}"})

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
            unindexed(attribute(entry, "tenant_id") == tenant_id),
            attribute(entry, "source_type").in_(names),
            entry.source_id.in_(ids),
        )
        by_link = (
            select(linked.id)
            .join(line, line.general_ledger_id == linked.id)
            .join(link, link.line_id == line.id)
            .where(
                unindexed(attribute(linked, "tenant_id") == tenant_id),
                attribute(link, "source_type").in_(names),
                link.source_id.in_(ids),
            )
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
        columns = ("id", "entry_date", "posted", "source_type", "source_id")
        query = select(*(attribute(entry, name).label(name) for name in columns), *voucher_columns(entry))
        query = query.where(attribute(entry, "id") == entry_id, attribute(entry, "tenant_id") == tenant_id)
        row = self.connection.execute(query).one_or_none()
        if row is None:
            return None
        on_control: dict[Any, LineExplanation] = {}
        for ledger in self.ledgers:
            on_control |= self._control_lines(ledger, entry_id)
        names = ("id", "line_number", "account_number")
        query = select(
            *(attribute(line, name).label(name) for name in names), debit_less_credit(line).label("signed_amount")
        )
        query = query.where(attribute(line, "general_ledger_id") == entry_id)
        query = query.order_by(attribute(line, "line_number"), attribute(line, "id"))
        lines = [on_control.get(found.id) or _elsewhere(found) for found in self.connection.execute(query)]
        return EntryExplanation(
            general_ledger_id=row.id,
            voucher=voucher_text(row),
            entry_date=row.entry_date,
            status="posted" if row.posted else "draft",
            source=None if row.source_type is None else f"{row.source_type} {row.source_id}",
            lines=tuple(lines),
        )

    def _control_lines(self, ledger: Ledger, entry_id: Any) -> dict[Any, LineExplanation]:
        def of_entry(lines: Lines) -> list[ColumnElement[bool]]:
            key = attribute(lines.entry, "id")
            return [key == bindparam("entry", type_=key.type)]

        shape = ("of entry", ledger.name)
        query = self.binding.once(self.settings, shape, lambda: project(self.binding, self.settings, ledger, of_entry))
        rows = list(self.connection.execute(query, {"entry": entry_id}))
        ids = [row.general_ledger_line_id for row in rows]
        found = items_of_lines(self.connection, self.binding, self.settings, ledger, ids)
        items = {item.general_ledger_line_id: item for item in found}
        return {row.general_ledger_line_id: self._line(ledger, row, items) for row in rows}

    def _line(self, ledger: Ledger, row: Any, items: dict[Any, OpenItem]) -> LineExplanation:
        item = items.get(row.general_ledger_line_id)
        must = Row(row.tenant_id, row.account_number, row.party_id, row.amount)
        has = None if item is None else Row(item.tenant_id, item.account_number, item.party_id, item.amount)
        became = outcome(row.reason, must, has)
        return LineExplanation(
            line_number=row.line_number,
            account_number=row.account_number,
            amount=row.signed_amount,
            ledger=ledger.name,
            outcome=became,
            text=_sentence(ledger, row, item, became),
            rules=self._rules(ledger, row, item, became),
            item=item,
        )

    def _rules(self, ledger: Ledger, row: Any, item: OpenItem | None, became: str) -> tuple[Rule, ...]:
        """The rules in the order in which they are asked, up to the one that does not hold."""
        control = self.settings.control_account(row.account_number)
        taken = ", ".join(control.sources) if control is not None else ""
        source = f"{row.source_type} {row.source_id}"
        cut_over = self.settings.cut_over(row.tenant_id)
        waiting = ("not_adopted", "It waits for no row from before.", "Rows of its entry do not know their lines yet.")
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
            *([waiting] if ledger.adopts else ()),
            ("written", f"Its row is in the {ledger.name} ledger.", _wrong(ledger, row, item)),
        ]
        first = Rule(
            name="control_account", holds=True, text=f"{row.account_number} is a control account of {ledger.name}s."
        )
        rules = [first]
        for name, fine, not_fine in asked:
            holds = not (row.reason == name or (name == "written" and became != "written"))
            rules.append(Rule(name=name, holds=holds, text=fine if holds else not_fine))
            if not holds:
                break
        return tuple(rules)


def _elsewhere(line: Any) -> LineExplanation:
    return LineExplanation(
        line_number=line.line_number,
        account_number=line.account_number,
        amount=line.signed_amount,
        ledger=None,
        outcome="no_control_account",
        text=f"{line.account_number} is not a control account, so there is nothing to write.",
    )


def _wrong(ledger: Ledger, row: Any, item: OpenItem | None) -> str:
    if item is None:
        return f"It should have a row in the {ledger.name} ledger and has none."
    return (
        f"Its row has amount {item.amount}, party {item.party_id} and account {item.account_number}; the line says "
        f"{row.amount}, {row.party_id} and {row.account_number}."
    )


def _sentence(ledger: Ledger, row: Any, item: OpenItem | None, became: str) -> str:
    if became == "written" and item is not None:
        return f"It has an open item in the {ledger.name} ledger: {item.amount}, {item.remaining_amount} of it open."
    if row.reason is not None:
        meaning, next_step = MEANINGS[row.reason]
        if item is None:
            return f"No ledger entry was created for it: {meaning}. {next_step}"
        there = f"It has a row of {item.amount} in the {ledger.name} ledger and should have none: {meaning}"
        return f"{there}. {MEANINGS['orphan'][1]}"
    cause = "missing" if item is None else "amount_differs"
    if item is not None and item.amount == row.amount and item.party_id != row.party_id:
        cause = "wrong_party"
    return f"{_wrong(ledger, row, item)} {MEANINGS[cause][1]}"


def _summary(entries: Sequence[EntryExplanation]) -> str:
    control = [(entry, line) for entry in entries for line in entry.lines if line.ledger is not None]
    if not control:
        vouchers = ", ".join(entry.voucher for entry in entries)
        return f"No ledger entry was created: no line of voucher {vouchers} is on a control account."
    return " ".join(f"Voucher {entry.voucher}, line {line.line_number}: {line.text}" for entry, line in control)
