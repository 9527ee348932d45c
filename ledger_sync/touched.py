"""Which control lines a set of changes concerns; pure.

The hook knows changed objects by their keys. Entries and lines restrict the projection directly (``lines_of``);
for documents there is first a SELECT of the lines that name one, as their source or by its number or payment
reference (``lines_naming``). Too many lines do no harm, since writing the same row twice changes nothing; a
line too few would leave the subledger stale.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import CompoundSelect, Select, String, exists, select, union

from ledger_sync.binding import Binding, Document, Ledger, aliased, attribute
from ledger_sync.control_lines import is_one_of, on_accounts, source_types
from ledger_sync.dialects import among, found_by_reference, normalised, parameter_set, unindexed
from ledger_sync.settings import Settings

_PARTS: Final = ("entries", "lines", "reversed")


@dataclass
class Touched:
    """What one flush changed, by keys.

    ``entries``: journal entries. ``lines``: single journal lines, deleted ones too. ``reversed``: entries whose
    reversing entries are concerned, since their lines mirror what has changed. ``documents``: by the
    name of their class. ``references`` and ``parties``: the old numbers and payment references of changed
    documents, and whose they are or were, as pairs of tenant and party. ``rewrite``: rows that exist may have
    to change; ``remove``: some may have to go.
    """

    entries: set[Any] = field(default_factory=set)
    lines: set[Any] = field(default_factory=set)
    reversed: set[Any] = field(default_factory=set)
    documents: dict[str, set[Any]] = field(default_factory=dict)
    references: set[str] = field(default_factory=set)
    parties: set[tuple[Any, Any]] = field(default_factory=set)
    rewrite: bool = False
    remove: bool = False

    def parts(self) -> tuple[str, ...]:
        """Which keys restrict the projection; empty when nothing is concerned."""
        return tuple(name for name in _PARTS if getattr(self, name))

    def documented(self, ledger: Ledger) -> tuple[str, ...]:
        """The names of the ledger's document classes of which some were touched."""
        return tuple(document.name for document in ledger.documents if self.documents.get(document.name))

    def parameters(self) -> dict[str, list[Any]]:
        """The bound values for ``lines_of``."""
        return {f"touched_{name}": list(getattr(self, name)) for name in _PARTS}

    def document_parameters(self, ledger: Ledger) -> dict[str, list[Any]]:
        """The bound values for ``lines_naming``."""
        values: dict[str, list[Any]] = {
            "touched_references": list(self.references),
            "touched_parties": [party for _, party in self.parties],
            "touched_tenants": list({tenant for tenant, _ in self.parties}),
        }
        for document in ledger.documents:
            values[f"touched_{document.name}"] = list(self.documents.get(document.name, ()))
        return values


def lines_of(binding: Binding, parts: tuple[str, ...]) -> Select[Any]:
    """A SELECT of the ids of the touched lines, of the lines of touched entries, and of those that reverse them.

    Reversing entries are found by the keys of those that they reverse. Joined with the touched lines, they would be
    sought among all entries, since few reverse.
    """
    line = aliased(binding.line)
    selects: list[Select[Any]] = []
    if "entries" in parts:
        keys = parameter_set("touched_entries", attribute(line, "general_ledger_id").type)
        selects.append(select(line.id).where(among(attribute(line, "general_ledger_id"), keys)))
    if "lines" in parts:
        keys = parameter_set("touched_lines", attribute(line, "id").type)
        old = aliased(binding.line)
        entries = select(attribute(old, "general_ledger_id")).where(among(attribute(old, "id"), keys))
        selects += [keys, _lines_reversing(binding, entries)]
    if "reversed" in parts:
        entries = parameter_set("touched_reversed", attribute(binding.entry, "id").type)
        selects.append(_lines_reversing(binding, entries))
    return _any_of(selects)


def _lines_reversing(binding: Binding, entries: Select[Any]) -> Select[Any]:
    """The ids of the lines of the entries that reverse some entries."""
    line, reversing = aliased(binding.line), aliased(binding.entry)
    joined = select(line.id).join(reversing, reversing.id == attribute(line, "general_ledger_id"))
    return joined.where(among(attribute(reversing, "reverses_id"), entries))


def lines_naming(binding: Binding, settings: Settings, ledger: Ledger, documents: tuple[str, ...]) -> Select[Any]:
    """A SELECT of the ids of the lines that name touched documents of these classes."""
    selects: list[Select[Any]] = []
    for document in ledger.documents:
        if document.name in documents:
            ids = _document_ids(settings, document)
            selects += _naming(binding, settings, ledger, document, ids)
            if document.role == "invoice":
                selects += _referring(binding, settings, ledger, document, ids)
    return _any_of(selects)


def _any_of(selects: list[Select[Any]]) -> Select[Any]:
    if len(selects) == 1:
        return selects[0]
    together: CompoundSelect[Any] = union(*selects)
    subquery = together.subquery()
    return select(next(iter(subquery.c)))


def _document_ids(settings: Settings, document: Document) -> Select[Any]:
    """The touched documents; with a cut-over also the credit notes of touched invoices, which follow them."""
    id_type = attribute(document.model, "id").type
    ids = parameter_set(f"touched_{document.name}", id_type)
    if not settings.effective_from or document.credits is None:
        return ids
    note = aliased(document.model)
    return _any_of([ids, select(note.id).where(among(attribute(note, document.credits), ids))])


def _naming(
    binding: Binding, settings: Settings, ledger: Ledger, document: Document, ids: Select[Any]
) -> list[Select[Any]]:
    """Lines whose source, by entry or by link, is one of the documents."""
    line, entry, link = aliased(binding.line), aliased(binding.entry), aliased(binding.link)
    names = source_types(settings, ledger, document)
    return [
        select(line.id)
        .join(entry, entry.id == line.general_ledger_id)
        .where(is_one_of(attribute(entry, "source_type"), names), among(attribute(entry, "source_id"), ids)),
        select(link.line_id).where(attribute(link, "source_type").in_(names), among(attribute(link, "source_id"), ids)),
    ]


def _referring(
    binding: Binding, settings: Settings, ledger: Ledger, invoices: Document, ids: Select[Any]
) -> list[Select[Any]]:
    """Lines of payments that name one of the invoices, or did, by its payment reference or number."""
    payments = ledger.payer
    if payments is None:
        return []
    invoice, line, entry, payment = (
        aliased(model) for model in (invoices.model, binding.line, binding.entry, payments.model)
    )
    is_touched = among(attribute(invoice, "id"), ids)
    texts = [parameter_set("touched_references", String())]
    texts += [
        select(attribute(invoice, name, text=True)).where(is_touched)
        for name in (invoices.reference, invoices.number)
        if name is not None
    ]
    text = _any_of(texts).subquery()
    references = select(normalised(next(iter(text.c))))
    party = attribute(invoice, invoices.party)
    parties = _any_of([parameter_set("touched_parties", party.type), select(party).where(is_touched)])
    tenant = attribute(invoice, "tenant_id")
    tenants = _any_of([parameter_set("touched_tenants", tenant.type), select(tenant).where(is_touched)])
    by_line = found_by_reference(attribute(line, "reference"), references, select(line.id))
    by_line = by_line.join(entry, entry.id == line.general_ledger_id)
    by_line = by_line.where(unindexed(among(attribute(entry, "tenant_id"), tenants)))
    if payments.reference is None:
        return [by_line]
    paying = select(attribute(payment, "id")).where(
        among(attribute(payment, payments.party), parties),
        among(normalised(attribute(payment, payments.reference, text=True)), references),
    )
    return [by_line, *_naming(binding, settings, ledger, payments, paying)]


def naming_posted(binding: Binding, settings: Settings, ledger: Ledger, document: Document) -> Select[Any]:
    """A SELECT of those documents (source_id, tenant_id) that a posted control line of the tenant names as its source.

    Bound value: ``documents``, the ids that are asked for. It does not look at the documents, which may be gone. By
    entry and by link apart, so that each is found by its own index.
    """
    line, entry, link = (aliased(model) for model in (binding.line, binding.entry, binding.link))
    names = source_types(settings, ledger, document)
    ids = parameter_set("documents", attribute(document.model, "id").type)
    tenant = attribute(entry, "tenant_id").label("tenant_id")
    posted = (
        attribute(entry, "posted"),
        on_accounts(attribute(line, "account_number"), settings.of_ledger(ledger.name)),
    )
    line_id = attribute(line, "id")
    by_entry = (
        select(attribute(entry, "source_id").label("source_id"), tenant)
        .select_from(line)
        .join(entry, attribute(entry, "id") == attribute(line, "general_ledger_id"))
        .where(is_one_of(attribute(entry, "source_type"), names), among(attribute(entry, "source_id"), ids), *posted)
        .where(~exists().where(attribute(link, "line_id") == line_id))
    )
    by_link = (
        select(attribute(link, "source_id"), tenant)
        .select_from(link)
        .join(line, line_id == attribute(link, "line_id"))
        .join(entry, attribute(entry, "id") == attribute(line, "general_ledger_id"))
        .where(is_one_of(attribute(link, "source_type"), names), among(attribute(link, "source_id"), ids), *posted)
    )
    return select(*union(by_entry, by_link).subquery("naming").c)
