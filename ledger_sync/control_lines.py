"""What a control line is: its account is a control account, its amount counts in the account's direction.

With it what every statement over control lines speaks of: the aliases that a restriction names, the words in the books
that mean a class of documents, and how people name a voucher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, String, and_, bindparam, case, false, literal, or_, type_coerce

from ledger_sync.attributes import has
from ledger_sync.binding import Document, Entity, Ledger, attribute
from ledger_sync.dialects import all_digits, among, characters, unindexed
from ledger_sync.models.types import Money
from ledger_sync.plain import voucher_name
from ledger_sync.settings import ControlAccount, Settings

Bool = ColumnElement[bool]


@dataclass(frozen=True)
class Lines:
    """The aliases that a restriction can speak of: a control line and its entry."""

    line: Entity
    entry: Entity


Restriction = Callable[[Lines], Iterable[Bool]]


@dataclass(frozen=True)
class OfKeys:
    """The restriction to the lines whose keys a SELECT gives."""

    keys: Select[Any]

    def __call__(self, lines: Lines) -> list[Bool]:
        return [among(attribute(lines.line, "id"), self.keys)]


def voucher_text(row: Any) -> str:
    """The name of a row's voucher."""
    return voucher_name(row.voucher_series, row.voucher_number, row.fiscal_year)


def voucher_columns(entry: Entity) -> list[ColumnElement[Any]]:
    """What names an entry's voucher, as ``voucher_text`` reads it."""
    return [attribute(entry, name).label(name) for name in ("fiscal_year", "voucher_series", "voucher_number")]


def is_one_of(text: ColumnElement[Any], words: Iterable[str]) -> Bool:
    """Whether a text is one of a few words, which are a fixed part of the statement.

    A plain list is written into the statement anew whenever that is executed, for which a posting would wait.
    """
    return text.in_([literal(word, String()) for word in words])


def on_accounts(account_number: ColumnElement[Any], controls: Sequence[ControlAccount]) -> Bool:
    """Whether an account number belongs to one of the control accounts."""
    singles = [account for control in controls for account in control.singles()]
    conditions: list[Bool] = [is_one_of(account_number, singles)] if singles else []
    for low, high in (bounds for control in controls for bounds in control.ranges()):
        conditions.append(
            and_(
                account_number.between(low, high),
                characters(account_number) == len(low),
                all_digits(account_number),
            )
        )
    return or_(false(), *conditions)


def signed(line: Entity, controls: Sequence[ControlAccount]) -> ColumnElement[Any]:
    """A line's amount, positive in the normal direction of its control account."""
    amount = debit_less_credit(line)
    sides = {control.side for control in controls}
    if sides == {"credit"}:
        amount = -amount
    elif sides != {"debit"}:
        on_debit_side = on_accounts(attribute(line, "account_number"), [c for c in controls if c.side == "debit"])
        amount = case((on_debit_side, amount), else_=-amount)
    return type_coerce(amount, Money())


def debit_less_credit(line: Entity) -> ColumnElement[Any]:
    """What counts of a line; a host may have it in one column, ``signed_amount``."""
    if has(line, "signed_amount"):
        return attribute(line, "signed_amount")
    return type_coerce(attribute(line, "debit") - attribute(line, "credit"), Money())


def mirrors(old: Entity, line: Entity, entry: Entity) -> Bool:
    """Whether an old line is the one that a line of an entry reverses: of the reversed entry, under the same number."""
    return and_(
        attribute(old, "general_ledger_id") == attribute(entry, "reverses_id"),
        attribute(old, "line_number") == attribute(line, "line_number"),
    )


def in_own_direction(document: Document, entity: Entity, amount: ColumnElement[Any]) -> Bool:
    """Whether a line of this amount is in the direction of its document, which may open an item.

    A credit note's is the negative one, that of all else the positive one. Null where the document does not say what it
    is, so that the line neither opens an item nor counts as one that does.
    """
    if document.kind is None:
        return amount > 0
    return (attribute(entity, document.kind, text=True) == "credit_note") == (amount < 0)


def source_types(settings: Settings, ledger: Ledger, document: Document) -> tuple[str, ...]:
    """The ``source_type`` values in the books that mean a class of documents."""
    return source_types_on(settings.of_ledger(ledger.name), document.name)


def source_types_on(controls: Iterable[ControlAccount], document: str) -> tuple[str, ...]:
    """The ``source_type`` values that mean a class of documents, by its name, on some control accounts."""
    return tuple(
        dict.fromkeys(
            source_type for control in controls for source_type, name in control.sources.items() if name == document
        )
    )


def source_type_on(control: ControlAccount, document: str) -> str | None:
    """The first ``source_type`` that means a document, by its class's name, on a control account; None if none does."""
    return next(iter(source_types_on([control], document)), None)


def of_tenant(entity: Entity) -> Bool:
    """Whether something is of the tenant of the bound value ``tenant``."""
    tenant_id = attribute(entity, "tenant_id")
    return tenant_id == bindparam("tenant", type_=tenant_id.type)


def posted_of_tenant(lines: Lines) -> list[Bool]:
    """The restriction to the posted lines of the tenant of the bound value ``tenant``."""
    return [of_tenant(lines.entry), attribute(lines.entry, "posted")]


def is_party(party: Entity, party_id: ColumnElement[Any], tenant_id: ColumnElement[Any]) -> Bool:
    """Whether a party is the one of that id in the tenant's own books; parties without a tenant are everybody's.

    A host's tables may let a document name another tenant's party, whose name is nobody else's business.
    """
    is_it = attribute(party, "id") == party_id
    return and_(is_it, unindexed(attribute(party, "tenant_id") == tenant_id)) if has(party, "tenant_id") else is_it
