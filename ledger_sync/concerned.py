"""What is concerned by entries that are known by their keys alone, in parts of bounded size.

The collector sees objects with their history. A bulk statement, or a host that names what it wrote past the hook, gives
only keys, so everything that might follow from a change of those entries is named: their lines, lines that they had,
lines of reversing entries, and, with a cut-over, the invoices and claims that they name. Too much does no harm.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, delete, exists, select

from ledger_sync.binding import Binding, Document, Ledger, aliased, attribute
from ledger_sync.control_lines import source_types
from ledger_sync.dialects import parameter_set
from ledger_sync.settings import Settings
from ledger_sync.touched import Touched, naming_posted

PART_MAX: Final = 1_000
"""So many entries, lines or documents are synced at a time."""

Named = dict[tuple[str, str], set[Any]]
"""Documents by the names of their ledger and class, as ids."""


def in_parts(keys: Iterable[Any]) -> Iterator[set[Any]]:
    """Keys in sets of bounded size, in order."""
    remaining = iter(sorted(keys, key=str))
    while part := set(islice(remaining, PART_MAX)):
        yield part


class Concerned:
    """Works out what is concerned in the ledgers of one binding."""

    def __init__(self, binding: Binding, settings: Settings, ledgers: Sequence[Ledger]) -> None:
        self.binding = binding
        self.settings = settings
        self.ledgers = ledgers

    def by_keys(self, entries: set[Any], gone: set[Any], named: Named) -> Iterator[dict[str, Touched]]:
        """What a change of entries, or of their lines and links, concerns, by ledger.

        :param gone: lines that were in the entries and are there no longer.
        :param named: what ``named`` and ``named_by_rows`` found before the change and after it.
        """
        for part in in_parts(entries):
            yield self._everywhere(part, set())
        for part in in_parts(gone):
            yield self._everywhere(set(), part)
        for (ledger, document), ids in named.items():
            for part in in_parts(ids):
                yield {ledger: Touched(documents={document: part}, rewrite=True, remove=True)}

    def _everywhere(self, entries: set[Any], lines: set[Any]) -> dict[str, Touched]:
        return {
            ledger.name: Touched(
                entries=set(entries), lines=set(lines), reversed=set(entries), rewrite=True, remove=True
            )
            for ledger in self.ledgers
        }

    def gone_by_rows(self, connection: Connection, entries: set[Any]) -> set[Any]:
        """Lines that have a row under one of the entries, but are no longer in it."""
        found: set[Any] = set()
        for ledger in self.ledgers:
            item, line = aliased(ledger.item), aliased(self.binding.line)
            line_id, entry_id = attribute(item, "general_ledger_line_id"), attribute(item, "general_ledger_id")
            there = exists().where(attribute(line, "id") == line_id, attribute(line, "general_ledger_id") == entry_id)
            found |= self._selected(connection, select(line_id).where(self._is_of(entry_id), ~there), entries)
        return found

    def named(self, connection: Connection, entries: set[Any]) -> Named:
        """The invoices and claims that some entries and the links of their lines name as their sources.

        Only with a cut-over: a document's own lines decide then about the lines of those that settle it.
        """
        entry, line, link = aliased(self.binding.entry), aliased(self.binding.line), aliased(self.binding.link)
        linked = select(attribute(link, "source_id")).join(line, attribute(line, "id") == attribute(link, "line_id"))
        found: Named = {}
        for ledger, document in self._deciding():
            names = source_types(self.settings, ledger, document)
            of_entries = select(attribute(entry, "source_id")).where(
                self._is_of(attribute(entry, "id")), attribute(entry, "source_type").in_(names)
            )
            of_links = linked.where(
                self._is_of(attribute(line, "general_ledger_id")), attribute(link, "source_type").in_(names)
            )
            found[ledger.name, document.name] = self._selected(connection, of_entries, entries) | self._selected(
                connection, of_links, entries
            )
        return found

    def named_by_rows(self, connection: Connection, entries: set[Any]) -> Named:
        """The invoices and claims that the rows of some entries name; with a cut-over, as in ``named``."""
        found: Named = {}
        for ledger, document in self._deciding():
            item = aliased(ledger.item)
            query = select(attribute(item, "source_id")).where(
                self._is_of(attribute(item, "general_ledger_id")),
                attribute(item, "source_type").in_(source_types(self.settings, ledger, document)),
            )
            found[ledger.name, document.name] = self._selected(connection, query, entries)
        return found

    def drop_links(self, connection: Connection, lines: set[Any]) -> None:
        """Delete the source links of those of some lines that are gone.

        Its number may be given to another line, which would come from the same document.
        """
        link, line = self.binding.link, aliased(self.binding.line)
        line_id = attribute(link, "line_id")
        there = exists().where(attribute(line, "id") == line_id)
        for part in in_parts(lines):
            connection.execute(delete(link).where(self._is_of(line_id), ~there), {"keys": list(part)})

    def in_use(
        self, connection: Connection, ledger: Ledger, document: Document, ids: Mapping[Any, Collection[Any]]
    ) -> set[Any]:
        """Those of some documents that a posted control line of their tenant names.

        :param ids: the documents by tenant; under None those whose tenant cannot be told.
        """
        shape = ("naming_posted", ledger.name, document.name)
        query = self.binding.once(
            self.settings, shape, lambda: naming_posted(self.binding, self.settings, ledger, document)
        )
        found: set[Any] = set()
        for part in in_parts({key for keys in ids.values() for key in keys}):
            for source_id, tenant_id in connection.execute(query, {"documents": list(part)}):
                if source_id in ids.get(tenant_id, ()) or source_id in ids.get(None, ()):
                    found.add(source_id)
        return found

    def _deciding(self) -> list[tuple[Ledger, Document]]:
        if not self.settings.effective_from:
            return []
        return [(ledger, ledger.opener) for ledger in self.ledgers if ledger.opener is not None]

    def named_by_lines(self, connection: Connection, lines: set[Any]) -> Named:
        """The invoices and claims that lines name, have named or would name, by link, row or entry; as in ``named``."""
        entry, line, link = aliased(self.binding.entry), aliased(self.binding.line), aliased(self.binding.link)
        found: Named = {}
        for ledger, document in self._deciding():
            names = source_types(self.settings, ledger, document)
            item = aliased(ledger.item)
            by_entry = select(attribute(entry, "source_id")).join(
                line, attribute(line, "general_ledger_id") == attribute(entry, "id")
            )
            ways = (
                (by_entry, entry, attribute(line, "id")),
                (select(attribute(link, "source_id")), link, attribute(link, "line_id")),
                (select(attribute(item, "source_id")), item, attribute(item, "general_ledger_line_id")),
            )
            found[ledger.name, document.name] = set().union(
                *(
                    self._selected(
                        connection, query.where(self._is_of(key), attribute(holder, "source_type").in_(names)), lines
                    )
                    for query, holder, key in ways
                )
            )
        return found

    @staticmethod
    def _is_of(key: ColumnElement[Any]) -> ColumnElement[bool]:
        return key.in_(parameter_set("keys", key.type))

    @staticmethod
    def _selected(connection: Connection, query: Select[Any], keys: set[Any]) -> set[Any]:
        found: set[Any] = set()
        for part in in_parts(keys):
            found.update(connection.scalars(query.distinct(), {"keys": list(part)}))
        found.discard(None)
        return found


def together(first: Named, second: Named) -> Named:
    """The documents of both."""
    return {key: first.get(key, set()) | second.get(key, set()) for key in {**first, **second}}
