"""Proposals for history without sources: which document a source-less control line comes from. Nothing is guessed.

A candidate has the line's tenant, direction and exact amount, lies within a window of days, and at least one hard
piece of evidence speaks for it: its payment reference, its number as a whole word, or its party's number or name. A
match is ``certain`` only if it is the one candidate of its line, and its line the one that the document is a candidate
of in that role. Everything else is ``ambiguous``, is listed with its candidates, and is for a person to decide. Reads
only; a match is made by a source link (``LedgerSync.link``), which leaves the posted entry as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, Select, String, and_, func, inspect, literal, or_, select
from sqlalchemy.orm import Session

from ledger_sync.attributes import has
from ledger_sync.binding import Binding, Document, Entity, Ledger, aliased, attribute
from ledger_sync.control_lines import Lines, of_tenant, source_type_on, source_types, voucher_text
from ledger_sync.mentions import mentioned
from ledger_sync.projection import project
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


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True)


class Candidate(_Result):
    """A document that a line may come from. ``role``: the line ``opens`` it, or ``pays`` it."""

    document: str
    document_id: Any
    role: Role
    number: str | None
    document_date: date
    party_number: str | None
    party_name: str | None
    evidence: tuple[Evidence, ...]


class Proposal(_Result):
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


class Matches(_Result):
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
    found: dict[Any, tuple[Any, list[Candidate]]] = {}
    sourceless = 0
    for name in settings.ledgers():
        ledger = binding.ledger(name)
        connection = session.connection(bind_arguments={"mapper": inspect(ledger.item)})
        arguments = (binding, settings, ledger)
        count = binding.once(settings, ("sourceless", name), lambda: _count(*arguments))  # noqa: B023 - built at once
        sourceless += connection.scalar(count, {"tenant": tenant_id}) or 0
        opening = [d for d in ledger.documents if d.role != "payment" and has(d.model, "amount")]
        for document, role in ((d, role) for d in opening for role in ROLES):
            shape = ("pairs", name, document.name, role)
            query = binding.once(settings, shape, lambda: _pairs(*arguments, document, role))  # noqa: B023
            for row in connection.execute(query, {"tenant": tenant_id}):
                evidence = tuple(_evidence(row)) if _is_near(row, role) and _is_taken(settings, row, document) else ()
                if evidence:
                    _, candidates = found.setdefault((name, row.line_id), (row, []))
                    candidates.append(_candidate(row, document, role, evidence))
    return Matches(tenant_id=tenant_id, proposals=tuple(_proposals(found)), unmatched=sourceless - len(found))


def _is_taken(settings: Settings, row: Any, document: Document) -> bool:
    """Whether the line's own account takes such documents: to another the line could not be linked."""
    control = settings.control_account(row.account_number)
    return control is not None and source_type_on(control, document.name) is not None


def _is_near(row: Any, role: Role) -> bool:
    """Whether the line's date is one on which the document could have been posted, or paid."""
    days: int = (row.entry_date - row.document_date).days
    return -OPENS_WITHIN_DAYS <= days <= (OPENS_WITHIN_DAYS if role == "opens" else PAYS_WITHIN_DAYS)


def _proposals(found: dict[Any, tuple[Any, list[Candidate]]]) -> Iterator[Proposal]:
    claims: dict[tuple[str, Any, str], int] = {}
    for _, candidates in found.values():
        for candidate in candidates:
            key = (candidate.document, candidate.document_id, candidate.role)
            claims[key] = claims.get(key, 0) + 1
    for (ledger, line_id), (row, candidates) in found.items():
        only = candidates[0] if len(candidates) == 1 else None
        yield Proposal(
            ledger=ledger,
            general_ledger_id=row.general_ledger_id,
            general_ledger_line_id=line_id,
            voucher=voucher_text(row),
            entry_date=row.entry_date,
            account_number=row.account_number,
            amount=row.amount,
            text=_text(row),
            certain=only is not None and claims[only.document, only.document_id, only.role] == 1,
            candidates=tuple(candidates),
        )


# -- evidence ------------------------------------------------------------------------------------------


def _text(row: Any) -> str:
    return " ".join(part for part in (row.reference, row.line_text, row.entry_text) if part)


def _folded(text: str | None) -> str:
    return re.sub(r"[ \t\u00a0]+", " ", text or "").strip().casefold()


def _is_word(word: str, text: str) -> bool:
    """Whether a word stands in a text by itself, not as part of a longer number or name."""
    return re.search(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", text) is not None


def _evidence(row: Any) -> Iterator[Evidence]:
    reference, text = _folded(row.reference).replace(" ", ""), _folded(_text(row))

    def named(value: str | None) -> bool:
        word = _folded(value)
        if not word:
            return False
        return word.replace(" ", "") == reference or (len(word) >= WORD_MIN and _is_word(word, text))

    if named(row.payment_reference):
        yield "payment_reference"
    if named(row.number):
        yield "number"
    if any(len(word) >= WORD_MIN and _is_word(word, text) for word in map(_folded, (row.party_number, row.party_name))):
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


def _sourceless(binding: Binding, settings: Settings, ledger: Ledger) -> Any:
    """Posted control lines of the tenant, on either side of the cut-over, that name no source."""

    def posted(lines: Lines) -> list[ColumnElement[bool]]:
        return [of_tenant(lines.entry), attribute(lines.entry, "posted")]

    return project(binding, settings, ledger, posted).subquery("lines")


def _is_sourceless(p: Any) -> ColumnElement[bool]:
    return and_(p.source_type.is_(None), p.amount != 0)


def _count(binding: Binding, settings: Settings, ledger: Ledger) -> Select[Any]:
    p = _sourceless(binding, settings, ledger).c
    return select(func.count()).where(_is_sourceless(p))


def _pairs(binding: Binding, settings: Settings, ledger: Ledger, document: Document, role: Role) -> Select[Any]:
    """Each source-less line with each document of its amount and direction in that role, near enough in time."""
    p = _sourceless(binding, settings, ledger).c
    line, entry, model = aliased(binding.line), aliased(binding.entry), aliased(document.model)
    party = aliased(ledger.party_model) if ledger.party_model is not None else None
    day, amount = attribute(model, document.date), func.abs(attribute(model, "amount"))
    is_note = (attribute(model, document.kind, text=True) == "credit_note") if document.kind is not None else None
    own_direction = p.amount > 0 if is_note is None else or_(and_(~is_note, p.amount > 0), and_(is_note, p.amount < 0))
    paid = p.amount < 0 if is_note is None else and_(~is_note, p.amount < 0)
    fits = own_direction if role == "opens" else paid
    query = (
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
            attribute(model, "id").label("document_id"),
            day.label("document_date"),
            _optional(model, document.number).label("number"),
            _optional(model, document.reference).label("payment_reference"),
            _optional(party, "number").label("party_number"),
            _optional(party, "name").label("party_name"),
        )
        .join(line, attribute(line, "id") == p.general_ledger_line_id)
        .join(entry, attribute(entry, "id") == p.general_ledger_id)
        .join(model, and_(attribute(model, "tenant_id") == p.tenant_id, amount == func.abs(p.amount)))
    )
    if party is not None:
        query = query.outerjoin(party, attribute(party, "id") == attribute(model, document.party))
    query = query.where(_is_sourceless(p), fits, ~_taken(binding, settings, ledger, document, role, model))
    return query.order_by(p.entry_date, p.general_ledger_line_id, attribute(model, "id"))


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
    held = select(attribute(item, "id")).where(
        attribute(item, "tenant_id") == attribute(model, "tenant_id"),
        attribute(item, "source_type").in_(source_types(settings, ledger, document)),
        attribute(item, "source_id") == attribute(model, "id"),
        or_(kind == "payment", partly),
    )
    return held.exists()
