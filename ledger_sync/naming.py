"""Which invoice a reference names: one tenant's and one party's, and only where exactly one fits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, case, func, literal, null, select

from ledger_sync.attributes import as_key, sortable_key
from ledger_sync.binding import Document, Entity, aliased, attribute
from ledger_sync.dialects import normalised, unindexed


def target_of(invoice: Entity, document: Document) -> ColumnElement[Any]:
    """The invoice that an invoice document is about: the credited one, or itself."""
    if document.credits is None:
        return attribute(invoice, "id")
    return func.coalesce(attribute(invoice, document.credits), attribute(invoice, "id"))


def named_invoice(
    invoices: Document,
    tenant_id: ColumnElement[Any],
    party_id: ColumnElement[Any],
    reference: ColumnElement[Any],
) -> ColumnElement[Any]:
    """The invoice that a normalised reference names, of one tenant and party, or null.

    The payment reference comes first; only if no document has it, the number. Where several documents fit,
    none is named: a match is never guessed. (An invoice and its own credit note are one.)
    """
    alias = aliased(invoices.model)
    target = target_of(alias, invoices)
    named: ColumnElement[Any] = null()
    for count, the_one in reversed(_ways(invoices, alias, target, tenant_id, party_id, reference)):
        named = case((count == 0, named), (count == 1, the_one), else_=null())
    return named


def candidates(
    invoices: Document,
    tenant_id: ColumnElement[Any],
    party_id: ColumnElement[Any],
    reference: ColumnElement[Any],
) -> ColumnElement[Any]:
    """How many invoices a normalised reference fits, of one tenant and party, by the way that comes first."""
    alias = aliased(invoices.model)
    fitting: ColumnElement[Any] = literal(0)
    for count, _ in reversed(_ways(invoices, alias, target_of(alias, invoices), tenant_id, party_id, reference)):
        fitting = case((count == 0, fitting), else_=count)
    return fitting


def _ways(
    invoices: Document,
    alias: Entity,
    target: ColumnElement[Any],
    tenant_id: ColumnElement[Any],
    party_id: ColumnElement[Any],
    reference: ColumnElement[Any],
) -> list[tuple[ColumnElement[Any], ColumnElement[Any]]]:
    """By payment reference, then by number: how many invoices fit, and the least of them."""

    def among(name: str, column: ColumnElement[Any]) -> ColumnElement[Any]:
        # a subquery for each way, since an OR over both would leave the indexes aside
        return (
            select(column)
            .where(
                unindexed(attribute(alias, "tenant_id") == tenant_id),
                attribute(alias, invoices.party) == party_id,
                normalised(attribute(alias, name, text=True)) == reference,
            )
            .scalar_subquery()
        )

    names = [name for name in (invoices.reference, invoices.number) if name is not None]
    least = as_key(func.min(sortable_key(target)), target.type)
    return [(among(name, func.count(target.distinct())), among(name, least)) for name in names]
