"""What one flush changed, by keys: the session's new, dirty and deleted objects, as ``Touched`` per ledger.

Reads the unit of work while its history is still there, in ``after_flush``, and decides nothing: whether a line
gets an open item is the projection's decision alone. It reads what objects hold, and loads an attribute of a changed
one only where that has expired; with a cut-over it asks the database which invoices are concerned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import Session, UOWTransaction

from ledger_sync.attributes import changed, held, key_held, keys_behind, plain_key, replaced, was_posted
from ledger_sync.binding import Binding, Document, Ledger
from ledger_sync.concerned import Concerned
from ledger_sync.settings import Settings
from ledger_sync.touched import Touched


def deleted_by(context: UOWTransaction) -> list[Any]:
    """The objects that a flush deletes; those that delete-orphan takes away are not in ``session.deleted``."""
    return [
        target
        for state, (is_delete, list_only) in context.states.items()
        if is_delete and not list_only and (target := state.obj()) is not None
    ]


class Collector:
    """Collects the keys of what a flush changed, per ledger, and leaves out ledgers that cannot match.

    Leaving out is conservative: by the account numbers of lines that the flush itself wrote. Whether a line
    gets an item is the projection's decision alone. ``gone_entries`` and ``gone_lines`` are the keys of those that were
    deleted.
    """

    def __init__(self, settings: Settings, ledgers: tuple[Ledger, ...], binding: Binding) -> None:
        self.settings = settings
        self.ledgers = ledgers
        self.binding = binding
        self.touched: dict[str, Touched] = {}
        self.gone_entries: set[Any] = set()
        self.gone_lines: set[Any] = set()
        self._names: dict[str, tuple[str, ...]] = {}
        self._documents: dict[type[Any], list[tuple[Ledger, Document]]] = {}
        self._new_entries: dict[Any, Any] = {}
        self._deciding_entries: set[Any] = set()
        self._deciding_lines: set[Any] = set()

    def collect(self, session: Session, context: UOWTransaction) -> None:
        if self.settings.effective_from:
            entries = (target for target in session.new if isinstance(target, self.binding.entry))
            self._new_entries = {key_held(target): target for target in entries}
        new = session.new  # a set that is made whenever it is asked for
        for target in new:
            self._new(target, new)
        for target in session.dirty:
            if session.is_modified(target, include_collections=False):
                self._changed(target)
        for target in deleted_by(context):
            self._deleted(target)
        if self._deciding_entries or self._deciding_lines:
            self._name_what_they_decide(session)

    def _of(self, *account_numbers: object) -> Iterable[Touched]:
        """The sets of the ledgers that the account numbers may belong to."""
        names: set[str] = set()
        for account_number in account_numbers:
            if not isinstance(account_number, str):
                names.update(ledger.name for ledger in self.ledgers)
                continue
            if account_number not in self._names:
                control = self.settings.control_account(account_number)
                self._names[account_number] = () if control is None else (control.ledger,)
            names.update(self._names[account_number])
        return [self.touched.setdefault(name, Touched()) for name in sorted(names)]

    def _everywhere(self) -> Iterable[Touched]:
        return self._of(None)

    def _new(self, target: Any, new: Collection[Any]) -> None:
        if isinstance(target, self.binding.line):
            for touched in self._of(held(target, "account_number")):
                touched.entries.add(held(target, "general_ledger_id"))
            self._decides_with_its_entry(target)
        elif isinstance(target, self.binding.link):
            self._name_document(held(target, "source_type"), held(target, "source_id"))
            line = inspect(target).dict.get("line")
            if line is not None and line in new:
                return  # comes with its line
            self._decide(lines=[held(target, "line_id")])
            for touched in self._of(None if line is None else held(line, "account_number")):
                touched.lines.add(held(target, "line_id"))
                touched.rewrite = touched.remove = True
        else:
            self._document(target, is_new=True)

    def _changed(self, target: Any) -> None:
        if isinstance(target, self.binding.entry):
            was_draft = was_posted(target) is False
            for touched in self._everywhere():
                touched.entries.add(key_held(target))
                if not was_draft:
                    touched.reversed.add(key_held(target))
                    touched.rewrite = touched.remove = True
            self._decide(entries=[key_held(target)])
            self._name_replaced(target)
        elif isinstance(target, self.binding.line):
            self._line(target, load=True)
        elif isinstance(target, self.binding.link):
            lines = {held(target, "line_id", load=True), *replaced(target, "line_id")}
            for touched in self._everywhere():
                touched.lines.update(lines)
                touched.rewrite = touched.remove = True
            self._decide(lines=lines)
            self._name_replaced(target)
        else:
            self._document(target, is_new=False)

    def _deleted(self, target: Any) -> None:
        if isinstance(target, self.binding.entry):
            # the database may have deleted the lines along with it, so that no session knows of them
            self.gone_entries.add(key_held(target))
            for touched in self._everywhere():
                touched.rewrite = touched.remove = True
            self._decide(entries=[key_held(target)])
            self._name_document(held(target, "source_type"), held(target, "source_id"))
        elif isinstance(target, self.binding.line):
            self.gone_lines.add(key_held(target))
            self._line(target, load=False)
        elif isinstance(target, self.binding.link):
            self._decide(lines=[held(target, "line_id")])
            for touched in self._everywhere():
                touched.lines.add(held(target, "line_id"))
                touched.rewrite = touched.remove = True
            self._name_document(held(target, "source_type"), held(target, "source_id"))
        else:
            self._document(target, is_new=False, is_deleted=True)

    def _line(self, line: Any, *, load: bool) -> None:
        """A line that was changed or deleted."""
        keys = (held(line, "general_ledger_id", load=load), *replaced(line, "general_ledger_id"))
        entries = {key for key in keys if key is not None}
        for touched in self._of(held(line, "account_number"), *replaced(line, "account_number")):
            touched.lines.add(key_held(line))
            touched.reversed.update(entries)
            touched.rewrite = touched.remove = True
        self._decide(entries=entries, lines=[key_held(line)])

    def _document(self, target: Any, *, is_new: bool, is_deleted: bool = False) -> None:
        model = type(target)
        if model not in self._documents:
            documents = ((ledger, document) for ledger in self.ledgers for document in ledger.documents)
            self._documents[model] = [(ledger, found) for ledger, found in documents if issubclass(model, found.model)]
        for ledger, document in self._documents[model]:
            self._add_document(ledger, document, target, is_new=is_new, is_deleted=is_deleted)

    def _add_document(self, ledger: Ledger, document: Document, target: Any, *, is_new: bool, is_deleted: bool) -> None:
        if not is_new and not is_deleted and not any(changed(target, name) for name in document.attributes()):
            return  # nothing that an open item copies
        touched = self.touched.setdefault(ledger.name, Touched())
        touched.documents.setdefault(document.name, set()).add(key_held(target))
        if document.role == "invoice":
            load = not is_deleted
            tenants = {held(target, "tenant_id", load=load), *replaced(target, "tenant_id")}
            parties = {held(target, document.party, load=load), *replaced(target, document.party)}
            touched.parties.update((tenant, party) for tenant in tenants for party in parties)
            for name in (document.number, document.reference):
                if name is not None:
                    current = [held(target, name)] if is_deleted else []
                    touched.references.update(str(v) for v in (*replaced(target, name), *current) if v)
        if document.role == "invoice" or not is_new:
            touched.rewrite = True
        if not is_new or self.settings.effective_from:
            touched.remove = True

    # -- cut-over: an invoice's own lines decide about those of what settles it ------------------------------

    def _decide(self, entries: Iterable[Any] = (), lines: Iterable[Any] = ()) -> None:
        """Have the invoices looked up that these entries and lines name, by entry or by link, in the database."""
        if self.settings.effective_from:
            self._deciding_entries.update(entries)
            self._deciding_lines.update(lines)

    def _decides_with_its_entry(self, line: Any) -> None:
        """A new line: its link is new as well, and names its document; its entry's source is at hand if it is new."""
        if not self.settings.effective_from:
            return
        entry_id = held(line, "general_ledger_id")
        entry = self._new_entries.get(entry_id)
        keys = {plain_key(inspect(self.binding.entry), name) for name in ("source_type", "source_id")}
        if entry is not None and keys <= inspect(entry).dict.keys():
            self._name_document(held(entry, "source_type"), held(entry, "source_id"))
        else:
            self._deciding_entries.add(entry_id)

    def _name_what_they_decide(self, session: Session) -> None:
        """Name the invoices of the entries and lines, as they are now and as their rows have them."""
        concerned = Concerned(self.binding, self.settings, self.ledgers)
        connection = session.connection(bind_arguments={"mapper": inspect(self.binding.line)})
        entries, lines = self._deciding_entries - {None}, self._deciding_lines - {None}
        for named in (
            concerned.named(connection, entries),
            concerned.named_by_rows(connection, entries),
            concerned.named_by_lines(connection, lines),
        ):
            for (ledger, document), ids in named.items():
                if ids:
                    self._add_invoices(ledger, document, ids)

    def _name_replaced(self, target: Any) -> None:
        """Name the document that an entry or link had as its source before it was changed."""
        if not self.settings.effective_from:
            return
        mapper = inspect(target).mapper
        if None in {plain_key(mapper, name) for name in ("source_type", "source_id")}:
            # the source is computed, of a foreign key for each kind of document, say: any kind may have had the key
            for key in keys_behind(mapper, "source_id"):
                for old_id in inspect(target).attrs[key].history.deleted or ():
                    for source_type in {t for c in self.settings.control_accounts for t in c.sources}:
                        self._name_document(source_type, old_id)
            return
        for old_type in replaced(target, "source_type") or [held(target, "source_type", load=True)]:
            for old_id in replaced(target, "source_id") or [held(target, "source_id", load=True)]:
                self._name_document(old_type, old_id)

    def _name_document(self, source_type: str | None, source_id: Any) -> None:
        if not self.settings.effective_from or source_type is None or source_id is None:
            return
        for ledger in self.ledgers:
            for control in self.settings.of_ledger(ledger.name):
                name = control.sources.get(source_type)
                document = ledger.document(name) if name else None
                if document is not None and document is ledger.opener:
                    self._add_invoices(ledger.name, document.name, {source_id})

    def _add_invoices(self, ledger: str, document: str, ids: set[Any]) -> None:
        touched = self.touched.setdefault(ledger, Touched())
        touched.documents.setdefault(document, set()).update(ids)
        touched.rewrite = touched.remove = True
