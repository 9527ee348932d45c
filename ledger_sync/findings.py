"""What is wrong, or worth a look, without being an amount of difference; reads only.

``find`` asks one question after another, each a SELECT of its own: caches that what they are caches of does not
bear out, documents that never reached the books, entries that missed the control account, references that fit
nobody or too many. Each finding says what to do next. Three are faults, which a repair mends; the others are for
a person to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    String,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.orm import aliased

from ledger_sync.binding import Binding, Document, Entity, Ledger, attribute
from ledger_sync.dialects import normalised
from ledger_sync.kid import claims_to_be_kid, is_valid_kid
from ledger_sync.projection import (
    ITEM_COLUMNS,
    UNRESOLVED,
    Lines,
    candidates,
    cut_over_day,
    entry_before,
    on_accounts,
    project,
    source_types,
    voucher_text,
)
from ledger_sync.settings import Settings
from ledger_sync.settlement import difference, settled_parts, status_of

WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "remaining_differs": (
        "a remaining amount or status that its applications do not bear out",
        "Run a repair; find out who changed the row behind the hook.",
    ),
    "application_differs": (
        "an automatic application that the items do not bear out, or one that lacks",
        "Run a repair, which appends what differs; find out who wrote to the table of applications.",
    ),
    "copied_data_differs": (
        "a row whose copied data its line or document no longer bears out",
        "Run a repair; find out what changed the document behind the hook.",
    ),
    "document_not_posted": (
        "a document that no posted entry mentions",
        "Post it, or link the line that it was posted by.",
    ),
    "no_control_line": (
        "an entry with a source of this ledger that posts to none of its control accounts",
        "If the account was renumbered, name the new one in the settings and run a backfill; otherwise reverse the "
        "entry and post it anew.",
    ),
    "account_unused": (
        "a control account in the settings that no line ever uses",
        "If it was renumbered, correct the settings.",
    ),
    "draft_waits": (
        "a draft that will have an open item once it is posted",
        "Post it, or delete it.",
    ),
    "paid_by_other_party": (
        "a payment whose KID belongs to another party's invoice",
        "Find out who paid. If the payment is on the wrong party, post it anew on the right one.",
    ),
    "ambiguous_reference": (
        "a payment whose reference fits several invoices",
        "Settle it by hand with the invoice that is meant.",
    ),
    "invalid_kid": (
        "a payment whose reference has the shape of a KID, but no check digit fits",
        "Ask the payer, or settle it by hand; a digit is never guessed.",
    ),
}
"""What each finding means, and what to do next."""

FAULTS: Final = ("remaining_differs", "application_differs", "copied_data_differs")
"""Findings that a repair mends; the others are for a person to decide."""

COPIED: Final = tuple(
    name
    for name in ITEM_COLUMNS
    if name not in {"tenant_id", "general_ledger_line_id", "account_number", "party_id", "amount"}
)
"""What a row copies from its line and document, besides what the proof compares as a cause."""


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True)


class Subject(_Result):
    """What a finding is about: an entry, a document, a row. ``text`` names it for people."""

    id: Any
    text: str


class Finding(_Result):
    """Something wrong, or worth a look, that carries no amount of difference.

    ``fault``: it should not be there, and a repair mends it.
    """

    ledger: str
    name: str
    count: int
    meaning: str
    next_step: str
    fault: bool
    examples: tuple[Subject, ...] = ()


@dataclass(frozen=True)
class _Question:
    """A SELECT with a ``subject_id``, how to name a row of it, and what Python alone can tell of it."""

    name: str
    query: Select[Any]
    text: Callable[[Any], str]
    keep: Callable[[Any], bool] | None = None

    @cached_property
    def counted(self) -> Select[Any]:
        """The SELECT with how many rows it has as ``found``, and the place of each as ``rank``.

        Not LIMIT: a planner then looks for the first rows only, and of most questions there are none.
        """
        c = self.query.order_by(None).subquery("found").c
        rank = func.row_number().over(order_by=c.subject_id).label("rank")
        ranked = select(*c, func.count().over().label("found"), rank).subquery("ranked")
        return select(ranked).where(ranked.c.rank <= bindparam("examples_max", type_=Integer()))


def find(
    connection: Connection,
    binding: Binding,
    settings: Settings,
    ledger: Ledger,
    tenant_id: Any,
    *,
    faults_only: bool = False,
) -> Iterator[Finding]:
    """The findings in one tenant's books of one ledger; if ``faults_only``, those that a repair mends."""
    arguments = (binding, settings, ledger)
    questions = binding.once(settings, ("faults", ledger.name), lambda: tuple(_questions_of_faults(*arguments)))
    if not faults_only:
        questions += binding.once(settings, ("others", ledger.name), lambda: tuple(_questions_for_people(*arguments)))
    for question in questions:
        count, examples = _ask(connection, question, tenant_id, settings.examples_max)
        if count:
            meaning, next_step = WORDS[question.name]
            yield Finding(
                ledger=ledger.name,
                name=question.name,
                count=count,
                meaning=meaning,
                next_step=next_step,
                fault=question.name in FAULTS,
                examples=examples,
            )


def _ask(
    connection: Connection, question: _Question, tenant_id: Any, examples_max: int
) -> tuple[int, tuple[Subject, ...]]:
    parameters = {"tenant": tenant_id, "caused_on": None}
    if question.keep is None:
        rows = list(connection.execute(question.counted, {**parameters, "examples_max": max(examples_max, 1)}))
        count = rows[0].found if rows else 0
    else:
        count, rows = 0, []
        for row in connection.execute(question.query, parameters, execution_options={"stream_results": True}):
            if question.keep(row):
                count += 1
                if len(rows) < examples_max:
                    rows.append(row)
    return count, tuple(Subject(id=row.subject_id, text=question.text(row)) for row in rows[:examples_max])


def _questions_of_faults(binding: Binding, settings: Settings, ledger: Ledger) -> Iterator[_Question]:
    yield _Question(
        "remaining_differs",
        remaining_differs(ledger),
        lambda row: f"row {row.subject_id}: {row.remaining_amount} {row.status}, should be {row.left} {row.state}",
    )
    yield _Question(
        "application_differs",
        _application_differs(binding, settings, ledger),
        lambda row: f"line {row.from_line_id} to line {row.to_line_id}, {row.method}: {row.amount} too little",
    )
    yield _Question(
        "copied_data_differs",
        copied_data_differs(binding, settings, ledger),
        lambda row: f"row {row.subject_id}: {row.differing.strip().replace(' ', ', ')}",
    )


def _questions_for_people(binding: Binding, settings: Settings, ledger: Ledger) -> Iterator[_Question]:
    for document in ledger.documents:
        if document.role != "payment":
            yield _Question(
                "document_not_posted",
                _not_posted(binding, settings, ledger, document),
                lambda row: f"{row.document} {row.subject_id}, number {row.number}, of {row.day}",
            )
    yield _Question("no_control_line", _no_control_line(binding, settings, ledger), _voucher)
    yield _Question("account_unused", _unused(binding, settings, ledger), lambda row: f"account {row.subject_id}")
    yield _Question("draft_waits", _drafts(binding, settings, ledger), _voucher)
    invoices = next((document for document in ledger.documents if document.role == "invoice"), None)
    payments = next((document for document in ledger.documents if document.role == "payment"), None)
    if invoices is not None:
        if invoices.reference is not None:
            yield _Question(
                "paid_by_other_party",
                _other_party(binding, ledger, invoices),
                lambda row: f"{_voucher(row)}: reference {row.reference} is of {row.document} {row.document_id}",
            )
        yield _Question(
            "ambiguous_reference",
            _ambiguous(binding, ledger, invoices),
            lambda row: f"{_voucher(row)}: reference {row.reference} fits {row.fitting} of them",
        )
    if payments is not None and payments.reference is not None:
        yield _Question(
            "invalid_kid",
            _unresolved_kids(binding, settings, ledger, payments),
            lambda row: f"{_voucher(row)}: {row.reference}",
            keep=lambda row: claims_to_be_kid(row.reference) and not is_valid_kid(row.reference),
        )


def _voucher(row: Any) -> str:
    return f"voucher {voucher_text(row)}"


def _of_tenant(entity: Entity) -> ColumnElement[bool]:
    tenant_id = attribute(entity, "tenant_id")
    return tenant_id == bindparam("tenant", type_=tenant_id.type)


# -- caches --------------------------------------------------------------------------------------------


def remaining_differs(ledger: Ledger) -> Select[Any]:
    """Rows whose remaining amount or status is not what the applications leave."""
    item, application = aliased(ledger.item), ledger.application.__table__
    tenant = application.c.tenant_id
    sums = settled_parts(ledger, lambda end: tenant == bindparam("tenant", type_=tenant.type))
    amount, remaining = attribute(item, "amount"), attribute(item, "remaining_amount")
    left = type_coerce(amount + func.coalesce(sums.c.part, 0), amount.type)
    state = status_of(left, amount)
    return (
        select(
            attribute(item, "id").label("subject_id"),
            attribute(item, "general_ledger_line_id").label("line_id"),
            remaining.label("remaining_amount"),
            attribute(item, "status").label("status"),
            left.label("left"),
            state.label("state"),
        )
        .outerjoin(sums, sums.c.line_id == attribute(item, "general_ledger_line_id"))
        .where(_of_tenant(item), or_(remaining != left, attribute(item, "status") != state))
        .order_by(attribute(item, "id"))
    )


def _application_differs(binding: Binding, settings: Settings, ledger: Ledger) -> Select[Any]:
    """What would have to be appended for the stored applications to be what the items say."""
    application = ledger.application.__table__
    tenant = application.c.tenant_id
    stored = [select(application.c.id).where(tenant == bindparam("tenant", type_=tenant.type))]
    rows = difference(binding, settings, ledger, lambda item: [_of_tenant(item)], stored).subquery("differing")
    c = rows.c
    return select(c.from_line_id.label("subject_id"), *c).order_by(c.from_line_id, c.to_line_id, c.method)


def copied_data_differs(binding: Binding, settings: Settings, ledger: Ledger) -> Select[Any]:
    """Rows of eligible lines whose columns differ that the proof does not compare as a cause.

    Columns: subject_id, line_id, differing (the names of the columns). Bound value: ``tenant``.
    """

    def of_tenant(lines: Lines) -> list[ColumnElement[bool]]:
        return [_of_tenant(lines.entry), attribute(lines.entry, "status") == "posted"]

    projected = project(binding, settings, ledger, of_tenant).subquery("projected")
    item, p = aliased(ledger.item), projected.c
    differs = {name: attribute(item, name).is_distinct_from(p[name]) for name in COPIED}
    names: ColumnElement[Any] = literal("", String())
    for name, condition in differs.items():
        names = names + case((condition, literal(f"{name} ", String())), else_=literal("", String()))
    same_item = and_(
        attribute(item, "general_ledger_line_id") == p.general_ledger_line_id,
        attribute(item, "tenant_id") == p.tenant_id,
        attribute(item, "account_number") == p.account_number,
    )
    return (
        select(
            attribute(item, "id").label("subject_id"),
            p.general_ledger_line_id.label("line_id"),
            type_coerce(names, String()).label("differing"),
        )
        .select_from(projected)
        .join(item, same_item)
        .where(p.reason.is_(None), or_(*differs.values()))
        .order_by(attribute(item, "id"))
    )


# -- documents and entries -----------------------------------------------------------------------------


def mentioned(binding: Binding, settings: Settings, ledger: Ledger, document: Document, model: Entity) -> Any:
    """Whether a posted entry or line of its own tenant names a document; ``model``: an alias of its class."""
    names = source_types(settings, ledger, document)
    entry, linked_entry, line, link = (aliased(m) for m in (binding.entry, binding.entry, binding.line, binding.link))
    by_entry = select(entry.id).where(
        entry.source_type.in_(names),
        entry.source_id == attribute(model, "id"),
        entry.tenant_id == attribute(model, "tenant_id"),
        entry.status == "posted",
    )
    by_link = (
        select(link.line_id)
        .join(line, line.id == link.line_id)
        .join(linked_entry, linked_entry.id == line.general_ledger_id)
        .where(
            link.source_type.in_(names),
            link.source_id == attribute(model, "id"),
            linked_entry.tenant_id == attribute(model, "tenant_id"),
            linked_entry.status == "posted",
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


def _not_posted(binding: Binding, settings: Settings, ledger: Ledger, document: Document) -> Select[Any]:
    model = aliased(document.model)
    day, number = attribute(model, document.date), document.number
    return (
        select(
            attribute(model, "id").label("subject_id"),
            literal(document.name, String()).label("document"),
            (attribute(model, number) if number is not None else literal("", String())).label("number"),
            day.label("day"),
        )
        .where(_of_tenant(model), *unposted(binding, settings, ledger, document, model))
        .order_by(attribute(model, "id"))
    )


def _names_of(entry: Entity) -> list[ColumnElement[Any]]:
    return [attribute(entry, name).label(name) for name in ("fiscal_year", "voucher_series", "voucher_number")]


def _no_control_line(binding: Binding, settings: Settings, ledger: Ledger) -> Select[Any]:
    """Posted entries with an invoice or claim as their source, none of whose lines is on a control account."""
    entry, line = aliased(binding.entry), aliased(binding.line)
    names = [
        name
        for document in ledger.documents
        if document.role != "payment"
        for name in source_types(settings, ledger, document)
    ]
    on_control = select(line.id).where(
        line.general_ledger_id == entry.id,
        on_accounts(attribute(line, "account_number"), settings.of_ledger(ledger.name)),
    )
    return (
        select(attribute(entry, "id").label("subject_id"), *_names_of(entry))
        .where(_of_tenant(entry), entry.status == "posted", entry.source_type.in_(names))
        .where(entry.reverses_id.is_(None), ~entry_before(settings, entry), ~on_control.exists())
        .order_by(attribute(entry, "id"))
    )


def _unused(binding: Binding, settings: Settings, ledger: Ledger) -> Select[Any]:
    """Account numbers and ranges of the settings without a line."""
    parts = []
    for control in settings.of_ledger(ledger.name):
        for piece in control.accounts:
            line, entry = aliased(binding.line), aliased(binding.entry)
            alone = control.model_copy(update={"accounts": (piece,)})
            used = (
                select(line.id)
                .join(entry, entry.id == line.general_ledger_id)
                .where(_of_tenant(entry), on_accounts(attribute(line, "account_number"), [alone]))
            )
            parts.append(select(literal(piece, String()).label("subject_id")).where(~used.exists()))
    unused = union_all(*parts).subquery("unused")
    return select(unused.c.subject_id).order_by(unused.c.subject_id)


def _drafts(binding: Binding, settings: Settings, ledger: Ledger) -> Select[Any]:
    """Control lines of drafts with a source that their account takes."""

    def drafts(lines: Lines) -> list[ColumnElement[bool]]:
        return [_of_tenant(lines.entry), attribute(lines.entry, "status") == "draft"]

    c = project(binding, settings, ledger, drafts).subquery("drafts").c
    names = {name for document in ledger.documents for name in source_types(settings, ledger, document)}
    return (
        select(c.general_ledger_id.label("subject_id"), c.fiscal_year, c.voucher_series, c.voucher_number)
        .where(c.source_type.in_(sorted(names)))
        .order_by(c.general_ledger_line_id)
    )


# -- references ----------------------------------------------------------------------------------------


def _unresolved(binding: Binding, ledger: Ledger) -> tuple[Entity, Entity, ColumnElement[Any], Select[Any]]:
    """Open payments whose reference names no document: the item, its entry, the reference, and the SELECT."""
    item, entry = aliased(ledger.item), aliased(binding.entry)
    key = attribute(item, "settlement_key")
    reference = type_coerce(func.substr(key, len(UNRESOLVED) + 1), String())
    query = (
        select(
            attribute(item, "general_ledger_line_id").label("subject_id"),
            reference.label("reference"),
            *_names_of(entry),
        )
        .join(entry, attribute(entry, "id") == attribute(item, "general_ledger_id"))
        .where(_of_tenant(item), key.like(f"{UNRESOLVED}%"), attribute(item, "remaining_amount") != 0)
        .order_by(attribute(item, "general_ledger_line_id"))
    )
    return item, entry, reference, query


def _other_party(binding: Binding, ledger: Ledger, invoices: Document) -> Select[Any]:
    """Open payments whose reference is the payment reference of another party's invoice."""
    item, _, reference, query = _unresolved(binding, ledger)
    assert invoices.reference is not None
    invoice = aliased(invoices.model)
    theirs = select(
        normalised(attribute(invoice, invoices.reference)).label("reference"),
        attribute(invoice, invoices.party).label("party_id"),
        attribute(invoice, "id").label("id"),
    ).where(_of_tenant(invoice), attribute(invoice, invoices.reference).is_not(None))
    t = theirs.subquery("theirs")
    fitting = and_(t.c.reference == reference, t.c.party_id != attribute(item, ledger.party))
    c = query.order_by(None).add_columns(t.c.id.label("id")).join(t, fitting).subquery("fitting").c
    columns = [column for column in c if column.name != "id"]
    # a payment counts once, on however many documents its reference stands
    document = literal(invoices.name, String()).label("document")
    grouped = select(*columns, document, func.min(c.id).label("document_id")).group_by(*columns)
    return grouped.order_by(c.subject_id)


def _ambiguous(binding: Binding, ledger: Ledger, invoices: Document) -> Select[Any]:
    """Open payments whose reference fits several invoices of their party."""
    item, _, reference, query = _unresolved(binding, ledger)
    fitting = candidates(invoices, attribute(item, "tenant_id"), attribute(item, ledger.party), reference)
    return query.add_columns(fitting.label("fitting")).where(fitting > 1)


def _unresolved_kids(binding: Binding, settings: Settings, ledger: Ledger, payments: Document) -> Select[Any]:
    """Open payments whose document's own reference names no invoice; whether it is a KID is for Python to say."""
    item, _, reference, query = _unresolved(binding, ledger)
    assert payments.reference is not None
    payment = aliased(payments.model)
    return query.join(
        payment,
        and_(
            attribute(payment, "id") == attribute(item, "source_id"),
            attribute(payment, "tenant_id") == attribute(item, "tenant_id"),
            attribute(item, "source_type").in_(source_types(settings, ledger, payments)),
            normalised(attribute(payment, payments.reference)) == reference,
        ),
    )
