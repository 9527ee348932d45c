"""Documents, entries and references that miss each other: a SELECT for each way; reads only.

Documents that no posted entry mentions, entries that missed the control account, references of open payments that fit
nobody or too many. Columns of each: ``subject_id``, and what names it to a person.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, String, and_, false, func, literal, or_, select, type_coerce, union_all

from ledger_sync.attributes import as_key, sortable_key
from ledger_sync.binding import Binding, Document, Entity, Ledger, aliased, attribute
from ledger_sync.control_lines import Lines, of_tenant, on_accounts, source_types, voucher_columns
from ledger_sync.cut_over import cut_over_day, entry_before
from ledger_sync.dialects import normalised, unindexed
from ledger_sync.naming import candidates
from ledger_sync.projection import UNRESOLVED, project
from ledger_sync.settings import Settings


def mentioned(binding: Binding, settings: Settings, ledger: Ledger, document: Document, model: Entity) -> Any:
    """Whether a posted entry or line of its own tenant names a document; ``model``: an alias of its class."""
    names = source_types(settings, ledger, document)
    entry, linked_entry, line, link = (aliased(m) for m in (binding.entry, binding.entry, binding.line, binding.link))
    by_entry = select(entry.id).where(
        attribute(entry, "source_type").in_(names),
        entry.source_id == attribute(model, "id"),
        unindexed(attribute(entry, "tenant_id") == attribute(model, "tenant_id")),
        attribute(entry, "posted"),
    )
    by_link = (
        select(link.line_id)
        .join(line, line.id == link.line_id)
        .join(linked_entry, linked_entry.id == line.general_ledger_id)
        .where(
            attribute(link, "source_type").in_(names),
            link.source_id == attribute(model, "id"),
            unindexed(attribute(linked_entry, "tenant_id") == attribute(model, "tenant_id")),
            attribute(linked_entry, "posted"),
        )
    )
    return or_(by_entry.exists(), by_link.exists())


def unposted(
    binding: Binding, settings: Settings, ledger: Ledger, document: Document, model: Entity
) -> list[ColumnElement[bool]]:
    """Whether a document, not from before the cut-over, is one that no posted entry or line of its tenant names.

    ``model``: the document's class or an alias of it.
    """
    day = attribute(model, document.date)
    boundary = cut_over_day(settings, attribute(model, "tenant_id"))
    return [
        ~mentioned(binding, settings, ledger, document, model),
        func.coalesce(day >= boundary, literal(1) == 1),
    ]


def not_posted(binding: Binding, settings: Settings, ledger: Ledger, document: Document) -> Select[Any]:
    model = aliased(document.model)
    day, number = attribute(model, document.date), document.number
    return (
        select(
            attribute(model, "id").label("subject_id"),
            literal(document.name, String()).label("document"),
            (attribute(model, number, text=True) if number is not None else literal("", String())).label("number"),
            day.label("day"),
        )
        .where(of_tenant(model), *unposted(binding, settings, ledger, document, model))
        .order_by(attribute(model, "id"))
    )


def no_control_line(binding: Binding, settings: Settings, ledger: Ledger) -> Select[Any]:
    """Posted entries with an invoice or claim as their source, none of whose lines is on a control account."""
    entry, line = aliased(binding.entry), aliased(binding.line)
    names = source_types(settings, ledger, ledger.opener) if ledger.opener is not None else ()
    on_control = select(line.id).where(
        line.general_ledger_id == entry.id,
        on_accounts(attribute(line, "account_number"), settings.of_ledger(ledger.name)),
    )
    return (
        select(attribute(entry, "id").label("subject_id"), *voucher_columns(entry))
        .where(of_tenant(entry), attribute(entry, "posted"), attribute(entry, "source_type").in_(names))
        .where(attribute(entry, "reverses_id").is_(None), ~entry_before(settings, entry), ~on_control.exists())
        .order_by(attribute(entry, "id"))
    )


def unused(binding: Binding, settings: Settings, ledger: Ledger) -> Select[Any]:
    """Account numbers and ranges of the settings without a line."""
    parts = []
    for control in settings.of_ledger(ledger.name):
        for piece in control.accounts:
            line, entry = aliased(binding.line), aliased(binding.entry)
            alone = control.model_copy(update={"accounts": (piece,)})
            used = (
                select(line.id)
                .join(entry, entry.id == line.general_ledger_id)
                .where(of_tenant(entry), on_accounts(attribute(line, "account_number"), [alone]))
            )
            parts.append(select(literal(piece, String()).label("subject_id")).where(~used.exists()))
    unused = union_all(*parts).subquery("unused")
    return select(unused.c.subject_id).order_by(unused.c.subject_id)


def drafts(binding: Binding, settings: Settings, ledger: Ledger) -> Select[Any]:
    """Drafts of which a line will have an open item once they are posted."""

    def of_drafts(lines: Lines) -> list[ColumnElement[bool]]:
        return [of_tenant(lines.entry), ~func.coalesce(attribute(lines.entry, "posted"), false())]

    c = project(binding, settings, ledger, of_drafts, as_if_posted=True).subquery("drafts").c
    return (
        select(c.general_ledger_id.label("subject_id"), c.fiscal_year, c.voucher_series, c.voucher_number)
        .where(c.reason.is_(None))
        .distinct()
        .order_by(c.general_ledger_id)
    )


# -- references ----------------------------------------------------------------------------------------


def _unresolved(binding: Binding, ledger: Ledger) -> tuple[Entity, ColumnElement[Any], Select[Any]]:
    """Open payments whose reference names no document: the item, the reference, and the SELECT."""
    item, entry = aliased(ledger.item), aliased(binding.entry)
    key = attribute(item, "settlement_key")
    reference = type_coerce(func.substr(key, len(UNRESOLVED) + 1), String())
    query = (
        select(
            attribute(item, "general_ledger_line_id").label("subject_id"),
            reference.label("reference"),
            *voucher_columns(entry),
        )
        .join(entry, attribute(entry, "id") == attribute(item, "general_ledger_id"))
        .where(of_tenant(item), key.like(f"{UNRESOLVED}%"), attribute(item, "remaining_amount") != 0)
        .order_by(attribute(item, "general_ledger_line_id"))
    )
    return item, reference, query


def other_party(binding: Binding, ledger: Ledger, invoices: Document) -> Select[Any]:
    """Open payments whose reference is the payment reference of another party's invoice."""
    item, reference, query = _unresolved(binding, ledger)
    assert invoices.reference is not None
    invoice = aliased(invoices.model)
    theirs = select(
        normalised(attribute(invoice, invoices.reference, text=True)).label("reference"),
        attribute(invoice, invoices.party).label("party_id"),
        attribute(invoice, "id").label("id"),
    ).where(of_tenant(invoice), attribute(invoice, invoices.reference).is_not(None))
    t = theirs.subquery("theirs")
    fitting = and_(t.c.reference == reference, t.c.party_id != attribute(item, ledger.party))
    c = query.order_by(None).add_columns(t.c.id.label("id")).join(t, fitting).subquery("fitting").c
    columns = [column for column in c if column.name != "id"]
    # a payment counts once, on however many documents its reference stands
    document = literal(invoices.name, String()).label("document")
    grouped = select(*columns, document, as_key(func.min(sortable_key(c.id)), c.id.type).label("document_id")).group_by(
        *columns
    )
    return grouped.order_by(c.subject_id)


def ambiguous(binding: Binding, ledger: Ledger, invoices: Document) -> Select[Any]:
    """Open payments whose reference fits several invoices of their party."""
    item, reference, query = _unresolved(binding, ledger)
    fitting = candidates(invoices, attribute(item, "tenant_id"), attribute(item, ledger.party), reference)
    return query.add_columns(fitting.label("fitting")).where(fitting > 1)


def unresolved_kids(binding: Binding, settings: Settings, ledger: Ledger, payments: Document) -> Select[Any]:
    """Open payments whose document's own reference names no invoice; whether it is a KID is for Python to say."""
    item, reference, query = _unresolved(binding, ledger)
    assert payments.reference is not None
    payment = aliased(payments.model)
    return query.join(
        payment,
        and_(
            attribute(payment, "id") == attribute(item, "source_id"),
            attribute(payment, "tenant_id") == attribute(item, "tenant_id"),
            attribute(item, "source_type").in_(source_types(settings, ledger, payments)),
            normalised(attribute(payment, payments.reference, text=True)) == reference,
        ),
    )
