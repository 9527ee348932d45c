"""Proposals for history without sources: which document a source-less control line comes from. Nothing is guessed.

A candidate has the line's tenant, direction and exact amount, lies within a window of days, and at least one hard
piece of evidence speaks for it: its payment reference, its number as a whole word, or its party's number or name. A
match is ``certain`` only if it is the one candidate of its line, and its line the one that the document is a candidate
of in that role. Everything else is ``ambiguous``, is listed with its candidates, and is for a person to decide. Reads
only; a match is made by a source link (``LedgerSync.link``), which leaves the posted entry as it is.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from itertools import product
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Select, String, and_, func, inspect, literal, or_, select
from sqlalchemy.orm import Session

from ledger_sync.attributes import has
from ledger_sync.binding import Binding, Document, Entity, Ledger, aliased, attribute
from ledger_sync.control_lines import is_party, of_tenant, posted_of_tenant, source_type_on, source_types, voucher_text
from ledger_sync.mentions import mentioned
from ledger_sync.projection import project
from ledger_sync.results import Result
from ledger_sync.settings import Settings

OPENS_WITHIN_DAYS: Final = 31
"""A document is posted so near to its date."""
PAYS_WITHIN_DAYS: Final = 180
"""An invoice is paid so long after its date, or up to OPENS_WITHIN_DAYS before it."""
WORD_MIN: Final = 3
"""A shorter number or name is no evidence in a text: the 2 of "instalment 2 of 3" names no invoice."""

Evidence = Literal["payment_reference", "number", "party"]
Role = Literal["opens", "pays"]
ROLES: Final[tuple[Role, ...]] = ("opens", "pays")


class Candidate(Result):
    """A document that a line may come from. ``role``: the line ``opens`` it, or ``pays`` it."""

    document: str
    document_id: Any
    role: Role
    number: str | None
    document_date: date
    party_number: str | None
    party_name: str | None
    evidence: tuple[Evidence, ...]


class Proposal(Result):
    """A source-less control line with its candidates. ``amount`` is in the ledger's normal direction."""

    ledger: str
    general_ledger_id: Any
    general_ledger_line_id: Any
    voucher: str
    entry_date: date
    account_number: str
    amount: Decimal
    text: str
    certain: bool
    candidates: tuple[Candidate, ...]


class Matches(Result):
    """All proposals of one tenant. ``unmatched``: source-less control lines without any candidate."""

    tenant_id: Any
    proposals: tuple[Proposal, ...]
    unmatched: int

    @property
    def certain(self) -> tuple[Proposal, ...]:
        """Those that are unique from both ends."""
        return tuple(proposal for proposal in self.proposals if proposal.certain)

    @property
    def ambiguous(self) -> tuple[Proposal, ...]:
        """Those that a person must decide."""
        return tuple(proposal for proposal in self.proposals if not proposal.certain)


def match(session: Session, binding: Binding, settings: Settings, tenant_id: Any) -> Matches:
    """Propose documents for one tenant's source-less control lines."""
    found: list[tuple[_Line, list[Candidate]]] = []
    sourceless = 0
    for name in settings.ledgers():
        ledger = binding.ledger(name)
        connection = session.connection(bind_arguments={"mapper": inspect(ledger.item)})
        arguments = (binding, settings, ledger)
        query = binding.once(settings, ("sourceless", name), lambda: _sourceless(*arguments))  # noqa: B023 - built at once
        lines = [_Line(name, row) for row in connection.execute(query, {"tenant": tenant_id})]
        if not lines:
            continue
        sourceless += len(lines)
        amounts = {line.row.amount for line in lines}
        pools: list[_Pool] = []
        opening = [ledger.opener] if ledger.opener is not None and has(ledger.opener.model, "amount") else []
        for document, role in product(opening, ROLES):
            shape = ("candidates", name, document.name, role)
            query = binding.once(settings, shape, lambda: _untaken(*arguments, document, role))  # noqa: B023
            rows = connection.execute(query, {"tenant": tenant_id})
            pools.append(_Pool(document, role, (row for row in rows if _amount(row, role) in amounts)))
        claiming = ((line, [each for pool in pools for each in pool.candidates(settings, line)]) for line in lines)
        found += [(line, candidates) for line, candidates in claiming if candidates]
    return Matches(tenant_id=tenant_id, proposals=tuple(_proposals(found)), unmatched=sourceless - len(found))


def _amount(row: Any, role: Role) -> Decimal:
    """The amount, in the ledger's normal direction, of a line that opens a document, or pays it."""
    amount: Decimal = abs(row.amount)
    return -amount if role == "pays" or row.kind == "credit_note" else amount


class _Line:
    """A source-less line, and what of its texts is looked into."""

    def __init__(self, ledger: str, row: Any) -> None:
        self.ledger = ledger
        self.row = row
        self.text = " ".join(part for part in (row.reference, row.line_text, row.entry_text) if part)
        self.folded = _folded(self.text)
        self.reference = _folded(row.reference).replace(" ", "")


class _Paper:
    """A document, and the words that name it."""

    def __init__(self, row: Any) -> None:
        self.row = row
        self.payment_reference = _folded(row.payment_reference)
        self.number = _folded(row.number)
        self.party = tuple(map(_folded, (row.party_number, row.party_name)))


class _Pool:
    """The documents of one class that a line may come from in one role, by amount and in order of their dates.

    Among a thousand lines and documents of one subscription's amount, a line meets those near to its date.
    """

    def __init__(self, document: Document, role: Role, rows: Iterable[Any]) -> None:
        self.document = document
        self.role = role
        self.before_days = OPENS_WITHIN_DAYS if role == "opens" else PAYS_WITHIN_DAYS
        self.papers: dict[Decimal, list[_Paper]] = {}
        for row in rows:
            self.papers.setdefault(_amount(row, role), []).append(_Paper(row))

    def candidates(self, settings: Settings, line: _Line) -> Iterator[Candidate]:
        """The documents that the line may come from: near to its date, named by it, and taken by its account."""
        if _is_taken(settings, line.row, self.document):
            for paper in self._near(line.row):
                if evidence := tuple(_evidence(line, paper)):
                    yield _candidate(paper.row, self.document, self.role, evidence)

    def _near(self, row: Any) -> Iterator[_Paper]:
        """Documents of dates on which, by the line's, they could have been posted, or paid."""
        papers, day = self.papers.get(row.amount, []), row.entry_date
        # no further than the calendar goes
        first = day - min(timedelta(days=self.before_days), day - date.min)
        last = day + min(timedelta(days=OPENS_WITHIN_DAYS), date.max - day)
        for place in range(bisect_left(papers, first, key=_day), bisect_right(papers, last, key=_day)):
            yield papers[place]


def _day(paper: _Paper) -> date:
    day: date = paper.row.document_date
    return day


def _is_taken(settings: Settings, row: Any, document: Document) -> bool:
    """Whether the line's own account takes such documents: to another the line could not be linked."""
    control = settings.control_account(row.account_number)
    return control is not None and source_type_on(control, document.name) is not None


def _proposals(found: Sequence[tuple[_Line, list[Candidate]]]) -> Iterator[Proposal]:
    claims: dict[tuple[str, Any, str], int] = {}
    for _, candidates in found:
        for candidate in candidates:
            key = (candidate.document, candidate.document_id, candidate.role)
            claims[key] = claims.get(key, 0) + 1
    for line, candidates in found:
        only = candidates[0] if len(candidates) == 1 else None
        row = line.row
        yield Proposal(
            ledger=line.ledger,
            general_ledger_id=row.general_ledger_id,
            general_ledger_line_id=row.line_id,
            voucher=voucher_text(row),
            entry_date=row.entry_date,
            account_number=row.account_number,
            amount=row.amount,
            text=line.text,
            certain=only is not None and claims[only.document, only.document_id, only.role] == 1,
            candidates=tuple(candidates),
        )


# -- evidence ------------------------------------------------------------------------------------------


def _folded(text: str | None) -> str:
    return re.sub(r"[ \t\u00a0]+", " ", text or "").strip().casefold()


def _is_word(word: str, text: str) -> bool:
    """Whether a word stands in a text by itself, not as part of a longer number or name."""
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        if not (text[at - 1 : at].isalnum() or text[end : end + 1].isalnum()):
            return True
        at = text.find(word, at + 1)
    return False


def _evidence(line: _Line, paper: _Paper) -> Iterator[Evidence]:
    def stands(word: str) -> bool:
        return len(word) >= WORD_MIN and _is_word(word, line.folded)

    def named(word: str) -> bool:
        return word != "" and (word.replace(" ", "") == line.reference or stands(word))

    if named(paper.payment_reference):
        yield "payment_reference"
    if named(paper.number):
        yield "number"
    if any(map(stands, paper.party)):
        yield "party"


def _candidate(row: Any, document: Document, role: Role, evidence: tuple[Evidence, ...]) -> Candidate:
    return Candidate(
        document=document.name,
        document_id=row.document_id,
        role=role,
        number=row.number,
        document_date=row.document_date,
        party_number=row.party_number,
        party_name=row.party_name,
        evidence=evidence,
    )


# -- statements ----------------------------------------------------------------------------------------


def _sourceless(binding: Binding, settings: Settings, ledger: Ledger) -> Select[Any]:
    """Posted control lines of the tenant, on either side of the cut-over, that name no source."""
    p = project(binding, settings, ledger, posted_of_tenant).subquery("lines").c
    line, entry = aliased(binding.line), aliased(binding.entry)
    return (
        select(
            p.general_ledger_line_id.label("line_id"),
            p.general_ledger_id,
            p.fiscal_year,
            p.voucher_series,
            p.voucher_number,
            p.entry_date,
            p.account_number,
            p.amount,
            attribute(line, "reference").label("reference"),
            _optional(line, "description").label("line_text"),
            _optional(entry, "description").label("entry_text"),
        )
        .join(line, attribute(line, "id") == p.general_ledger_line_id)
        .join(entry, attribute(entry, "id") == p.general_ledger_id)
        # a reversing line goes by the line that it reverses, whatever links it has
        .where(p.source_type.is_(None), p.amount != 0, p.kind.is_distinct_from("reversal"))
        .order_by(p.entry_date, p.general_ledger_line_id)
    )


def _untaken(binding: Binding, settings: Settings, ledger: Ledger, document: Document, role: Role) -> Select[Any]:
    """The tenant's documents that a line could open, or pay, in order of their dates."""
    model = aliased(document.model)
    party = aliased(ledger.party_model) if ledger.party_model is not None else None
    day = attribute(model, document.date)
    query = select(
        attribute(model, "id").label("document_id"),
        attribute(model, "amount").label("amount"),
        _optional(model, document.kind).label("kind"),
        day.label("document_date"),
        _optional(model, document.number).label("number"),
        _optional(model, document.reference).label("payment_reference"),
        _optional(party, "number").label("party_number"),
        _optional(party, "name").label("party_name"),
    )
    if party is not None:
        its_party = is_party(party, attribute(model, document.party), attribute(model, "tenant_id"))
        query = query.outerjoin(party, its_party)
    query = query.where(of_tenant(model), attribute(model, "amount").is_not(None), day.is_not(None))
    if document.kind is not None:
        kind = attribute(model, document.kind, text=True)
        query = query.where(kind.is_not(None) if role == "opens" else kind != "credit_note")
    query = query.where(~_taken(binding, settings, ledger, document, role, model))
    return query.order_by(day, attribute(model, "id"))


def _optional(entity: Entity | None, name: str | None) -> ColumnElement[Any]:
    """An attribute that a host's class may not have."""
    if entity is None or name is None or not has(entity, name):
        return literal(None, String())
    return attribute(entity, name, text=True)


def _taken(
    binding: Binding, settings: Settings, ledger: Ledger, document: Document, role: Role, model: Entity
) -> ColumnElement[bool]:
    """Whether a document is posted already; or, to be paid, whether less of it is open than its amount."""
    if role == "opens":
        posted: ColumnElement[bool] = mentioned(binding, settings, ledger, document, model)
        return posted
    item = aliased(ledger.item)
    kind, left = attribute(item, "kind"), func.abs(attribute(item, "remaining_amount"))
    partly = and_(kind != "payment", left < func.abs(attribute(model, "amount")))
    its_items = select(attribute(item, "id")).where(
        attribute(item, "tenant_id") == attribute(model, "tenant_id"),
        attribute(item, "source_type").in_(source_types(settings, ledger, document)),
        attribute(item, "source_id") == attribute(model, "id"),
        or_(kind == "payment", partly),
    )
    return its_items.exists()
