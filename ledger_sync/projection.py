"""The one SELECT that says what a subledger must contain.

Every control line gets exactly one classification: the open item it must have, or the reason it has none.
Hook, backfill, repair, proof and explain all restrict this SELECT and compare it with what is stored, so they
cannot disagree. It is built in layers: ``_sourced`` (lines with their entry and source), ``_documented``
(what the documents say), ``_resolved`` (which document each line settles) and ``project`` (the reason).

Reasons, the first that applies: ``draft``, ``before_cutover``, ``manual``, ``unsupported_source``,
``source_not_found``, ``zero_amount``; null for a line that must have an open item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Date,
    Select,
    String,
    Subquery,
    and_,
    case,
    false,
    func,
    literal,
    null,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.orm import aliased

from ledger_sync.binding import Binding, Document, Entity, Ledger, attribute
from ledger_sync.dialects import all_digits, normalised, text_of
from ledger_sync.models.types import Money
from ledger_sync.settings import ControlAccount, Settings

REASONS: Final = (
    "draft",
    "before_cutover",
    "manual",
    "unsupported_source",
    "source_not_found",
    "zero_amount",
)

ITEM_COLUMNS: Final = (
    "tenant_id",
    "general_ledger_id",
    "general_ledger_line_id",
    "account_number",
    "party_id",
    "source_type",
    "source_id",
    "kind",
    "invoice_number",
    "invoice_date",
    "due_date",
    "entry_date",
    "currency",
    "currency_amount",
    "amount",
    "settlement_key",
)
"""The columns of an open item that the projection decides, by the names of its SELECT."""

UNRESOLVED: Final = "ref:"
"""How the settlement key of a payment begins whose reference names no document."""

Bool = ColumnElement[bool]


@dataclass(frozen=True)
class Lines:
    """The aliases that a restriction can speak of: a control line and its entry."""

    line: Entity
    entry: Entity


Restriction = Callable[[Lines], Iterable[Bool]]


def voucher_text(row: Any) -> str:
    """How people name a voucher: series, number and fiscal year, ``B-17/2026``."""
    return f"{row.voucher_series}{'-' if row.voucher_series else ''}{row.voucher_number}/{row.fiscal_year}"


def on_accounts(account_number: ColumnElement[Any], controls: Sequence[ControlAccount]) -> Bool:
    """Whether an account number belongs to one of the control accounts."""
    singles = [account for control in controls for account in control.singles()]
    conditions: list[Bool] = [account_number.in_(singles)] if singles else []
    for low, high in (bounds for control in controls for bounds in control.ranges()):
        conditions.append(
            and_(
                account_number.between(low, high),
                func.length(account_number) == len(low),
                all_digits(account_number),
            )
        )
    return or_(false(), *conditions)


def signed(line: Entity, controls: Sequence[ControlAccount]) -> ColumnElement[Any]:
    """A line's amount, positive in the normal direction of its control account."""
    debit, credit = attribute(line, "debit"), attribute(line, "credit")
    sides = {control.side for control in controls}
    if sides == {"debit"}:
        amount: ColumnElement[Any] = debit - credit
    elif sides == {"credit"}:
        amount = credit - debit
    else:
        on_debit_side = on_accounts(attribute(line, "account_number"), [c for c in controls if c.side == "debit"])
        amount = case((on_debit_side, debit - credit), else_=credit - debit)
    return type_coerce(amount, Money())


def project(binding: Binding, settings: Settings, ledger: Ledger, where: Restriction | None = None) -> Select[Any]:
    """The classification of every control line of one ledger, or of those that ``where`` admits.

    Columns: ``ITEM_COLUMNS``, ``reason``, and to name a line in messages ``fiscal_year``, ``voucher_series``,
    ``voucher_number``, ``line_number``; ``signed_amount`` is debit less credit.
    """
    c = _resolved(binding, settings, ledger, where).c
    reason = case(
        (~c.posted, "draft"),
        (_before_cut_over(binding, settings, ledger, c), "before_cutover"),
        (c.source_type.is_(None), "manual"),
        (~_supported(settings, ledger, c), "unsupported_source"),
        (c.party_id.is_(None), "source_not_found"),
        (c.amount == 0, "zero_amount"),
        else_=null(),
    )
    computed = {
        "settlement_key": type_coerce(_settlement_key(ledger, c), String()).label("settlement_key"),
        "reason": type_coerce(reason, String()).label("reason"),
    }
    names = ("fiscal_year", "voucher_series", "voucher_number", "line_number", "signed_amount", "reason")
    return select(*(computed[name] if name in computed else c[name] for name in (*ITEM_COLUMNS, *names)))


def _sourced(binding: Binding, settings: Settings, ledger: Ledger, where: Restriction | None) -> Subquery:
    """Control lines with their entry and their source.

    A line's source is its link if it has one, otherwise its entry's. A line of a reversing entry takes the
    source of the line that it reverses, its mirror image under the same line number, so that the two are
    always on one party; without a mirror image it is a line like any other.
    """
    line, entry, link = aliased(binding.line), aliased(binding.entry), aliased(binding.link)
    controls = settings.of_ledger(ledger.name)
    amount = signed(line, controls)
    old = _mirrored(binding, settings, ledger, where)
    mirrored = old.c.line_id.is_not(None)

    def of_source(name: str) -> ColumnElement[Any]:
        own = case((link.line_id.is_not(None), getattr(link, name)), else_=getattr(entry, name))
        return case((mirrored, old.c[name]), else_=own)

    currency_amount = attribute(line, "currency_amount")
    magnitude = func.abs(currency_amount, type_=currency_amount.type)
    query = (
        select(
            line.id.label("general_ledger_line_id"),
            line.line_number,
            line.account_number,
            line.currency,
            case((amount < 0, -magnitude), else_=magnitude).label("currency_amount"),
            amount.label("amount"),
            type_coerce(line.debit - line.credit, Money()).label("signed_amount"),
            line.due_date.label("line_due_date"),
            case((mirrored, old.c.reference), else_=line.reference).label("line_reference"),
            link.kind.label("link_kind"),
            mirrored.label("is_reversal"),
            entry.id.label("general_ledger_id"),
            entry.tenant_id,
            entry.entry_date,
            entry.fiscal_year,
            entry.voucher_series,
            entry.voucher_number,
            (entry.status == "posted").label("posted"),
            entry_before(settings, entry).label("entry_before"),
            of_source("source_type").label("source_type"),
            of_source("source_id").label("source_id"),
        )
        .select_from(line)
        .join(entry, entry.id == line.general_ledger_id)
        .outerjoin(link, link.line_id == line.id)
        .outerjoin(old, old.c.line_id == line.id)
        .where(on_accounts(attribute(line, "account_number"), controls))
    )
    if where is not None:
        query = query.where(*where(Lines(line, entry)))
    return query.subquery("sourced")


def _mirrored(binding: Binding, settings: Settings, ledger: Ledger, where: Restriction | None) -> Subquery:
    """The lines of reversing entries with the source and the reference of the line that each reverses.

    A SELECT of its own, since few entries reverse: joined one by one, its tables would be read in full for all lines.
    """
    line, entry, link = aliased(binding.line), aliased(binding.entry), aliased(binding.link)
    old_line, old_entry = aliased(binding.line), aliased(binding.entry)

    def of_source(name: str) -> ColumnElement[Any]:
        return case((link.line_id.is_not(None), getattr(link, name)), else_=getattr(old_entry, name)).label(name)

    query = (
        select(
            line.id.label("line_id"),
            old_line.reference.label("reference"),
            of_source("source_type"),
            of_source("source_id"),
        )
        .select_from(entry)
        .join(line, line.general_ledger_id == entry.id)
        .join(
            old_line,
            and_(
                old_line.general_ledger_id == entry.reverses_id,
                old_line.line_number == line.line_number,
                old_line.account_number == line.account_number,
                old_line.debit - old_line.credit == line.credit - line.debit,
            ),
        )
        .join(old_entry, old_entry.id == old_line.general_ledger_id)
        .outerjoin(link, link.line_id == old_line.id)
        .where(entry.reverses_id.is_not(None))
        .where(on_accounts(attribute(line, "account_number"), settings.of_ledger(ledger.name)))
    )
    if where is not None:
        query = query.where(*where(Lines(line, entry)))
    return query.subquery("mirrored")


def source_types(settings: Settings, ledger: Ledger, document: Document) -> tuple[str, ...]:
    """The ``source_type`` values in the books that mean a class of documents."""
    return tuple(
        dict.fromkeys(
            source_type
            for control in settings.of_ledger(ledger.name)
            for source_type, name in control.sources.items()
            if name == document.name
        )
    )


def _documented(binding: Binding, settings: Settings, ledger: Ledger, where: Restriction | None) -> Subquery:
    """The sourced lines with what their documents say of them."""
    sourced = _sourced(binding, settings, ledger, where)
    s = sourced.c
    tables: list[tuple[Document, Any]] = [(document, aliased(document.model)) for document in ledger.documents]

    def first(name: str) -> ColumnElement[Any]:
        columns = [
            attribute(alias, called) for document, alias in tables if (called := getattr(document, name)) is not None
        ]
        return func.coalesce(*columns) if len(columns) > 1 else columns[0] if columns else null()

    kind: ColumnElement[Any] = literal("payment", String())
    opens: Bool = false()  # whether a line opens its document, rather than settles one
    own_id: ColumnElement[Any] = null()  # the document that a line's item is about
    reference: ColumnElement[Any] = null()  # or what a payment says that it is about
    for document, alias in tables:
        present = attribute(alias, "id").is_not(None)
        if document.role == "invoice":
            own_kind = attribute(alias, document.kind) if document.kind else literal("invoice", String())
            in_own_direction = (own_kind == "credit_note") == (s.amount < 0)
            kind = case((and_(present, in_own_direction), own_kind), else_=kind)
            own_id = case((present, _target(alias, document)), else_=own_id)
            about_itself = _target(alias, document) == attribute(alias, "id")
            opens = and_(present, in_own_direction, about_itself, ~s.is_reversal, s.link_kind.is_(None))
        elif document.role == "claim":
            kind = case((and_(present, s.amount > 0), "expense"), else_=kind)
            own_id = case((present, attribute(alias, "id")), else_=own_id)
        else:
            reference = case((present, _reference(s.line_reference, alias, document)), else_=reference)
    kind = case((s.is_reversal, "reversal"), (s.link_kind.is_not(None), s.link_kind), else_=kind)

    kept = [column for column in s if column.name not in {"line_due_date", "line_reference", "link_kind"}]
    query = select(
        *kept,
        first("party").label("party_id"),
        first("number").label("invoice_number"),
        first("date").label("invoice_date"),
        func.coalesce(s.line_due_date, first("due_date")).label("due_date"),
        kind.label("kind"),
        own_id.label("own_id"),
        opens.label("opens"),
        type_coerce(reference, String()).label("reference"),
    ).select_from(sourced)
    for document, alias in tables:
        query = query.outerjoin(
            alias,
            and_(
                # one key, so that a line of another type is not even looked up
                attribute(alias, "id")
                == case((s.source_type.in_(source_types(settings, ledger, document)), s.source_id)),
                attribute(alias, "tenant_id") == s.tenant_id,
            ),
        )
    return query.subquery("documented")


def _target(invoice: Entity, document: Document) -> ColumnElement[Any]:
    """The invoice that an invoice document is about: the credited one, or itself."""
    if document.credits is None:
        return attribute(invoice, "id")
    return func.coalesce(attribute(invoice, document.credits), attribute(invoice, "id"))


def _reference(line_reference: ColumnElement[Any], payment: Entity, document: Document) -> ColumnElement[Any]:
    """What a payment's line refers to: the line's own reference, else the payment's; null when blank."""
    own = func.nullif(normalised(line_reference), "")
    if document.reference is None:
        return own
    return func.coalesce(own, func.nullif(normalised(attribute(payment, document.reference)), ""))


def _resolved(binding: Binding, settings: Settings, ledger: Ledger, where: Restriction | None) -> Subquery:
    """The documented lines with the document that each of them settles."""
    documented = _documented(binding, settings, ledger, where)
    d = documented.c
    opener = next((document for document in ledger.documents if document.role != "payment"), None)
    if opener is None:
        settled_id: ColumnElement[Any] = null()
    else:
        settled_id = d.own_id
        if opener.role == "invoice":
            named = named_invoice(opener, d.tenant_id, d.party_id, d.reference)
            settled_id = case((d.own_id.is_not(None), d.own_id), (d.reference.is_not(None), named), else_=null())
    return select(*d, settled_id.label("settled_id")).subquery("resolved")


def _settlement_key(ledger: Ledger, c: Any) -> ColumnElement[Any]:
    """What items have in common that settle each other: the document, else a payment's raw reference."""
    raw: ColumnElement[Any] = literal(UNRESOLVED, String()) + c.reference
    opener = next((document for document in ledger.documents if document.role != "payment"), None)
    if opener is None:
        return raw
    return func.coalesce(literal(f"{opener.name}:", String()) + text_of(c.settled_id), raw)


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
    target = _target(alias, invoices)
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
    for count, _ in reversed(_ways(invoices, alias, _target(alias, invoices), tenant_id, party_id, reference)):
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
                attribute(alias, "tenant_id") == tenant_id,
                attribute(alias, invoices.party) == party_id,
                normalised(attribute(alias, name)) == reference,
            )
            .scalar_subquery()
        )

    names = [name for name in (invoices.reference, invoices.number) if name is not None]
    return [(among(name, func.count(target.distinct())), among(name, func.min(target))) for name in names]


def _supported(settings: Settings, ledger: Ledger, c: Any) -> Bool:
    controls = settings.of_ledger(ledger.name)
    if len({tuple(sorted(control.sources)) for control in controls}) == 1:
        return or_(false(), c.source_type.in_(tuple(controls[0].sources)))
    return or_(
        *(
            and_(on_accounts(c.account_number, [control]), c.source_type.in_(tuple(control.sources)))
            for control in controls
        )
    )


def _cut_over(settings: Settings, tenant_id: ColumnElement[Any], type_: Callable[[date], Any]) -> ColumnElement[Any]:
    """The cut-over of a row's tenant, or null; ``type_`` makes the value that is compared with."""
    days = settings.effective_from
    if days is None:
        return null()
    if isinstance(days, date):
        return literal(type_(days))
    if not days:
        return null()
    return case(*((tenant_id == tenant, literal(type_(day))) for tenant, day in days.items()), else_=null())


def cut_over_day(settings: Settings, tenant_id: ColumnElement[Any]) -> ColumnElement[Any]:
    """The day of the cut-over of a row's tenant, or null."""
    return type_coerce(_cut_over(settings, tenant_id, lambda day: day), Date())


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def entry_before(settings: Settings, entry: Entity) -> Bool:
    """Whether an entry lies before its tenant's cut-over; by ``posted_at``, days begin at midnight UTC."""
    if not settings.effective_from:
        return false()
    if settings.effective_by == "posted_at":
        moment = attribute(entry, "posted_at")
        boundary = _cut_over(settings, attribute(entry, "tenant_id"), _midnight)
        return func.coalesce(moment < type_coerce(boundary, moment.type), false())
    boundary = cut_over_day(settings, attribute(entry, "tenant_id"))
    return func.coalesce(attribute(entry, "entry_date") < boundary, false())


def _before_cut_over(binding: Binding, settings: Settings, ledger: Ledger, c: Any) -> Bool:
    """Whether a line lies before the cut-over, or settles an invoice that does.

    An invoice lies before it when its own posted lines do; with no line posted at all, when its date does. (A
    credit note that credits no invoice counts as one, in the other direction.) Without this a payment of an old
    invoice would stay open for ever as a phantom credit.
    """
    invoices = next((document for document in ledger.documents if document.role == "invoice"), None)
    if not settings.effective_from or invoices is None:
        return type_coerce(c.entry_before, false().type)

    def own_line(before: bool) -> Bool:
        ways: list[Bool] = []
        for by_link in (True, False):
            line, entry, link = aliased(binding.line), aliased(binding.entry), aliased(binding.link)
            invoice, holder = aliased(invoices.model), link if by_link else entry
            amount = signed(line, settings.of_ledger(ledger.name))
            own_direction = amount > 0
            if invoices.kind is not None:
                own_direction = (attribute(invoice, invoices.kind) == "credit_note") == (amount < 0)
            query = (
                select(line.id)
                .join(entry, entry.id == line.general_ledger_id)
                .join(link, link.line_id == line.id, isouter=not by_link)
                .join(invoice, attribute(invoice, "id") == holder.source_id)
                .where(
                    holder.source_id == c.settled_id,
                    holder.source_type.in_(source_types(settings, ledger, invoices)),
                    entry.tenant_id == c.tenant_id,
                    entry.status == "posted",
                    entry.reverses_id.is_(None),
                    on_accounts(attribute(line, "account_number"), settings.of_ledger(ledger.name)),
                    _target(invoice, invoices) == attribute(invoice, "id"),
                    amount != 0,
                    own_direction,
                    entry_before(settings, entry) if before else ~entry_before(settings, entry),
                    link.kind.is_(None) if by_link else link.line_id.is_(None),
                )
            )
            ways.append(query.exists())
        return or_(*ways)

    settled = aliased(invoices.model)
    dated_before = (
        select(attribute(settled, "id"))
        .where(
            attribute(settled, "id") == c.settled_id,
            attribute(settled, "tenant_id") == c.tenant_id,
            attribute(settled, invoices.date) < cut_over_day(settings, attribute(settled, "tenant_id")),
        )
        .exists()
    )
    # an invoice's own line settles nothing; everything else that refers to one does
    settles = and_(c.settled_id.is_not(None), ~c.opens)
    return or_(c.entry_before, and_(settles, ~own_line(before=False), or_(own_line(before=True), dated_before)))
