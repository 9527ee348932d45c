"""The one SELECT that says what a subledger must contain.

Every control line gets exactly one classification: the open item it must have, or the reason it has none.
Hook, backfill, repair, proof and explain all restrict this SELECT and compare it with what is stored, so they
cannot disagree. It is built in layers: ``_sourced`` (lines with their entry and source), ``_documented``
(what the documents say), ``_resolved`` (which document each line settles) and ``project`` (the reason).

Reasons, the first that applies: ``draft``, ``before_cutover``, ``manual``, ``unsupported_source``,
``source_not_found``, ``zero_amount``; null for a line that must have an open item. Where a host's rows from before
the library do not know their lines, a line without a row waits for those of its entry: ``not_adopted``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
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

from ledger_sync.attributes import has
from ledger_sync.binding import Binding, Document, Entity, Ledger, aliased, attribute
from ledger_sync.control_lines import (
    Bool,
    Lines,
    OfKeys,
    Restriction,
    debit_less_credit,
    in_own_direction,
    is_one_of,
    mirrors,
    on_accounts,
    signed,
    source_types,
)
from ledger_sync.cut_over import before_cut_over, entry_before
from ledger_sync.dialects import likely, normalised, text_of, unindexed, worked_out_first
from ledger_sync.naming import named_invoice, target_of
from ledger_sync.settings import ControlAccount, Settings

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


def project(
    binding: Binding,
    settings: Settings,
    ledger: Ledger,
    where: Restriction | None = None,
    *,
    as_if_posted: bool = False,
) -> Select[Any]:
    """The classification of every control line of one ledger, or of those that ``where`` admits.

    Columns: ``ITEM_COLUMNS``, ``reason``, and to name a line in messages ``fiscal_year``, ``voucher_series``,
    ``voucher_number``, ``line_number``; ``signed_amount`` is debit less credit. ``as_if_posted``: the reason that a
    draft's line will have.
    """
    c = _resolved(binding, settings, ledger, where).c
    reason = case(
        *(() if as_if_posted else ((~c.posted, "draft"),)),
        (before_cut_over(binding, settings, ledger, c), "before_cutover"),
        (c.source_type.is_(None), "manual"),
        (~_supported(settings, ledger, c), "unsupported_source"),
        (c.party_id.is_(None), "source_not_found"),
        (c.amount == 0, "zero_amount"),
        *([(_waits(ledger, c), "not_adopted")] if ledger.adopts else ()),
        else_=null(),
    )
    computed = {
        "settlement_key": type_coerce(_settlement_key(ledger, c), String()).label("settlement_key"),
        "reason": type_coerce(reason, String()).label("reason"),
    }
    names = ("fiscal_year", "voucher_series", "voucher_number", "line_number", "signed_amount", "reason")
    return select(*(computed[name] if name in computed else c[name] for name in (*ITEM_COLUMNS, *names)))


def _waits(ledger: Ledger, c: Any) -> Bool:
    """Whether a line has no row, but its entry has rows from before that do not know their line."""
    own, waiting = aliased(ledger.item), aliased(ledger.item)
    has_row = select(attribute(own, "id")).where(attribute(own, "general_ledger_line_id") == c.general_ledger_line_id)
    rows = select(attribute(waiting, "id")).where(
        attribute(waiting, "general_ledger_id") == c.general_ledger_id,
        attribute(waiting, "general_ledger_line_id").is_(None),
        unindexed(attribute(waiting, "tenant_id") == c.tenant_id),
    )
    return and_(~has_row.exists(), rows.exists())


def _sourced(binding: Binding, settings: Settings, ledger: Ledger, where: Restriction | None) -> Subquery:
    """Control lines with their entry and their source.

    A line's source is its link if it has one, otherwise its entry's. A line of a reversing entry takes the
    source of the line that it reverses, its mirror image under the same line number, so that the two are
    always on one party; without a mirror image it is a line like any other. So is one that reverses a reversal, which
    bookkeeping does not know: a line is cancelled once, and chains and circles that somebody wrote past the models end
    at the first step.
    """
    line, entry, link = aliased(binding.line), aliased(binding.entry), aliased(binding.link)
    controls = settings.of_ledger(ledger.name)
    amount = signed(line, controls)
    old = _mirrored(binding, settings, ledger, where)
    mirrored = old.c.line_id.is_not(None)

    def of_source(name: str) -> ColumnElement[Any]:
        own = case((link.line_id.is_not(None), attribute(link, name)), else_=attribute(entry, name))
        return case((mirrored, old.c[name]), else_=own)

    currency_amount = attribute(line, "currency_amount")
    magnitude = func.abs(currency_amount, type_=currency_amount.type)
    currency = attribute(line, "currency") if has(line, "currency") else literal(settings.currency, String())
    query = (
        select(
            line.id.label("general_ledger_line_id"),
            attribute(line, "line_number").label("line_number"),
            attribute(line, "account_number").label("account_number"),
            currency.label("currency"),
            case((amount < 0, -magnitude), else_=magnitude).label("currency_amount"),
            amount.label("amount"),
            debit_less_credit(line).label("signed_amount"),
            attribute(line, "due_date").label("line_due_date"),
            case((mirrored, old.c.reference), else_=attribute(line, "reference")).label("line_reference"),
            attribute(link, "kind").label("link_kind"),
            mirrored.label("is_reversal"),
            entry.id.label("general_ledger_id"),
            *(
                attribute(entry, name).label(name)
                for name in ("tenant_id", "entry_date", "fiscal_year", "voucher_series", "voucher_number")
            ),
            func.coalesce(attribute(entry, "posted"), false()).label("posted"),
            entry_before(settings, entry).label("entry_before"),
            of_source("source_type").label("source_type"),
            of_source("source_id").label("source_id"),
        )
        .select_from(line)
        .join(entry, entry.id == line.general_ledger_id)
        .outerjoin(link, link.line_id == line.id)
        .outerjoin(old, old.c.line_id == line.id)
        .where(_of_ledger(line, controls, where))
    )
    if where is not None:
        query = query.where(*where(Lines(line, entry)))
    return query.subquery("sourced")


def _of_ledger(line: Entity, controls: Sequence[ControlAccount], where: Restriction | None) -> Bool:
    """Whether a line is a control line of the ledger. Of lines that are known by their keys, most are."""
    on_them = on_accounts(attribute(line, "account_number"), controls)
    return likely(on_them) if isinstance(where, OfKeys) else on_them


def _mirrored(binding: Binding, settings: Settings, ledger: Ledger, where: Restriction | None) -> Subquery:
    """The lines of reversing entries with the source and the reference of the line that each reverses.

    A SELECT of its own, since few entries reverse: joined one by one, its tables would be read in full for all lines.
    """
    line, entry, link = aliased(binding.line), aliased(binding.entry), aliased(binding.link)
    old_line, old_entry = aliased(binding.line), aliased(binding.entry)

    def of_source(name: str) -> ColumnElement[Any]:
        own = case((link.line_id.is_not(None), attribute(link, name)), else_=attribute(old_entry, name))
        return own.label(name)

    query = (
        select(
            line.id.label("line_id"),
            attribute(old_line, "reference").label("reference"),
            of_source("source_type"),
            of_source("source_id"),
        )
        .select_from(entry)
        .join(line, line.general_ledger_id == entry.id)
        .join(
            old_line,
            and_(
                mirrors(old_line, line, entry),
                attribute(old_line, "account_number") == attribute(line, "account_number"),
                debit_less_credit(old_line) == -debit_less_credit(line),
            ),
        )
        .join(
            old_entry,
            and_(
                old_entry.id == old_line.general_ledger_id,
                unindexed(attribute(old_entry, "reverses_id").is_(None)),
                unindexed(attribute(old_entry, "tenant_id") == attribute(entry, "tenant_id")),
            ),
        )
        .outerjoin(link, link.line_id == old_line.id)
        .where(attribute(entry, "reverses_id").is_not(None))
        .where(_of_ledger(line, settings.of_ledger(ledger.name), where))
    )
    if where is not None:
        query = query.where(*where(Lines(line, entry)))
    return worked_out_first(query).subquery("mirrored")


def _documented(binding: Binding, settings: Settings, ledger: Ledger, where: Restriction | None) -> Subquery:
    """The sourced lines with what their documents say of them."""
    sourced = _sourced(binding, settings, ledger, where)
    s = sourced.c
    tables: list[tuple[Document, Any]] = [(document, aliased(document.model)) for document in ledger.documents]

    def first(name: str, *, text: bool = False) -> ColumnElement[Any]:
        columns = [
            attribute(alias, called, text=text)
            for document, alias in tables
            if (called := getattr(document, name)) is not None
        ]
        return func.coalesce(*columns) if len(columns) > 1 else columns[0] if columns else null()

    kind: ColumnElement[Any] = literal("payment", String())
    opens: Bool = false()  # whether a line opens its document, rather than settles one
    own_id: ColumnElement[Any] = null()  # the document that a line's item is about
    reference: ColumnElement[Any] = null()  # or what a payment says that it is about
    for document, alias in tables:
        present, own = attribute(alias, "id").is_not(None), in_own_direction(document, alias, s.amount)
        if document.role == "invoice":
            own_kind = attribute(alias, document.kind, text=True) if document.kind else literal("invoice", String())
            kind = case((and_(present, own), own_kind), else_=kind)
            own_id = case((present, target_of(alias, document)), else_=own_id)
            about_itself = target_of(alias, document) == attribute(alias, "id")
            opens = and_(present, own, about_itself, ~s.is_reversal, s.link_kind.is_(None))
        elif document.role == "claim":
            kind = case((and_(present, own), "expense"), else_=kind)
            own_id = case((present, attribute(alias, "id")), else_=own_id)
            opens = and_(present, own, ~s.is_reversal, s.link_kind.is_(None))
        else:
            reference = case((present, _reference(s.line_reference, alias, document)), else_=reference)
    kind = case((s.is_reversal, "reversal"), (s.link_kind.is_not(None), s.link_kind), else_=kind)

    kept = [column for column in s if column.name not in {"line_due_date", "line_reference", "link_kind"}]
    query = select(
        *kept,
        first("party").label("party_id"),
        first("number", text=True).label("invoice_number"),
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
                == case((is_one_of(s.source_type, source_types(settings, ledger, document)), s.source_id)),
                unindexed(attribute(alias, "tenant_id") == s.tenant_id),
            ),
        )
    return query.subquery("documented")


def _reference(line_reference: ColumnElement[Any], payment: Entity, document: Document) -> ColumnElement[Any]:
    """What a payment's line refers to: the line's own reference, else the payment's; null when blank."""
    own = func.nullif(normalised(line_reference), "")
    if document.reference is None:
        return own
    return func.coalesce(own, func.nullif(normalised(attribute(payment, document.reference, text=True)), ""))


def _resolved(binding: Binding, settings: Settings, ledger: Ledger, where: Restriction | None) -> Subquery:
    """The documented lines with the document that each of them settles."""
    documented = _documented(binding, settings, ledger, where)
    d = documented.c
    opener = ledger.opener
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
    if ledger.opener is None:
        return raw
    return func.coalesce(literal(f"{ledger.opener.name}:", String()) + text_of(c.settled_id), raw)


def _supported(settings: Settings, ledger: Ledger, c: Any) -> Bool:
    controls = settings.of_ledger(ledger.name)
    if len({tuple(sorted(control.sources)) for control in controls}) == 1:
        return or_(false(), is_one_of(c.source_type, controls[0].sources))
    return or_(
        *(
            and_(on_accounts(c.account_number, [control]), is_one_of(c.source_type, control.sources))
            for control in controls
        )
    )
