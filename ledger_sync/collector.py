"""What one flush changed, by keys: the session's new, dirty and deleted objects, as ``Touched`` per ledger.

Reads the unit of work while its history is still there, in ``after_flush``, and decides nothing: whether a line
gets an open item is the projection's decision alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.orm import InstanceState, Session, UOWTransaction

from ledger_sync.binding import Binding, Document, Ledger
from ledger_sync.settings import Settings
from ledger_sync.touched import Touched


class Collector:
    """Collects the keys of what a flush changed, per ledger, and leaves out ledgers that cannot match.

    Leaving out is conservative: by the account numbers of lines that the flush itself wrote. Whether a line
    gets an item is the projection's decision alone.
    """

    def __init__(self, settings: Settings, ledgers: tuple[Ledger, ...], binding: Binding) -> None:
        self.settings = settings
        self.ledgers = ledgers
        self.binding = binding
        self.touched: dict[str, Touched] = {}
        self._new_entries: dict[Any, Any] = {}

    def collect(self, session: Session, context: UOWTransaction) -> None:
        if self.settings.effective_from:
            self._new_entries = {target.id: target for target in session.new if isinstance(target, self.binding.entry)}
        for target in session.new:
            self._new(target, session)
        for target in session.dirty:
            if session.is_modified(target, include_collections=False):
                self._changed(target, session)
        # lines that delete-orphan takes away are not in session.deleted
        for state, (is_delete, list_only) in context.states.items():
            if is_delete and not list_only and (target := state.obj()) is not None:
                self._deleted(target, session)

    def _of(self, *account_numbers: object) -> Iterable[Touched]:
        """The sets of the ledgers that the account numbers may belong to."""
        names: set[str] = set()
        for account_number in account_numbers:
            if not isinstance(account_number, str):
                names.update(ledger.name for ledger in self.ledgers)
            elif (control := self.settings.control_account(account_number)) is not None:
                names.add(control.ledger)
        return [self.touched.setdefault(name, Touched()) for name in sorted(names)]

    def _everywhere(self) -> Iterable[Touched]:
        return self._of(None)

    def _new(self, target: object, session: Session) -> None:
        if isinstance(target, self.binding.line):
            for touched in self._of(target.account_number):
                touched.entries.add(target.general_ledger_id)
            self._settles_before_cut_over(target, session)
        elif isinstance(target, self.binding.link):
            line = inspect(target).dict.get("line")
            if line is not None and line in session.new:
                return  # comes with its line
            for touched in self._of(None if line is None else line.account_number):
                touched.lines.add(target.line_id)
                touched.rewrite = touched.remove = True
            self._name_document(target.source_type, target.source_id)
        else:
            self._document(target, is_new=True)

    def _changed(self, target: Any, session: Session) -> None:
        state: InstanceState[Any] = inspect(target)
        if isinstance(target, self.binding.entry):
            was_draft = list(state.attrs["status"].history.deleted or ()) == ["draft"]
            for touched in self._everywhere():
                touched.entries.add(target.id)
                if not was_draft:
                    touched.reversed.add(target.id)
                    touched.rewrite = touched.remove = True
            self._name_source(target)
        elif isinstance(target, self.binding.line):
            old_accounts = state.attrs["account_number"].history.deleted or ()
            for touched in self._of(target.account_number, *old_accounts):
                touched.lines.add(target.id)
                touched.reversed.update(self._entries_of(target))
                touched.rewrite = touched.remove = True
            self._settles_before_cut_over(target, session)
        elif isinstance(target, self.binding.link):
            for touched in self._everywhere():
                touched.lines.update({target.line_id, *(state.attrs["line_id"].history.deleted or ())})
                touched.rewrite = touched.remove = True
            self._name_source(target)
        else:
            self._document(target, is_new=False)

    def _deleted(self, target: Any, session: Session) -> None:
        if isinstance(target, self.binding.line):
            old_accounts = inspect(target).attrs["account_number"].history.deleted or ()
            for touched in self._of(target.account_number, *old_accounts):
                touched.lines.add(target.id)
                touched.reversed.update(self._entries_of(target))
                touched.rewrite = touched.remove = True
            self._settles_before_cut_over(target, session)
        elif isinstance(target, self.binding.link):
            for touched in self._everywhere():
                touched.lines.add(target.line_id)
                touched.rewrite = touched.remove = True
            self._name_document(target.source_type, target.source_id)
        else:
            self._document(target, is_new=False, is_deleted=True)

    @staticmethod
    def _entries_of(line: Any) -> set[Any]:
        """The entry that a line is in, and the one that it was in."""
        old = inspect(line).attrs["general_ledger_id"].history.deleted or ()
        return {key for key in (line.general_ledger_id, *old) if key is not None}

    def _document(self, target: Any, *, is_new: bool, is_deleted: bool = False) -> None:
        for ledger in self.ledgers:
            for document in ledger.documents:
                if isinstance(target, document.model):
                    self._add_document(ledger, document, target, is_new=is_new, is_deleted=is_deleted)

    def _add_document(self, ledger: Ledger, document: Document, target: Any, *, is_new: bool, is_deleted: bool) -> None:
        state: InstanceState[Any] = inspect(target)
        old = {name: list(state.attrs[name].history.deleted or ()) for name in document.attributes()}
        if not is_new and not is_deleted and not any(old.values()):
            changed = any(state.attrs[name].history.added for name in document.attributes())
            if not changed:
                return  # nothing that an open item copies
        touched = self.touched.setdefault(ledger.name, Touched())
        touched.documents.setdefault(document.name, set()).add(target.id)
        if document.role == "invoice":
            tenants = {target.tenant_id, *old["tenant_id"]}
            parties = {getattr(target, document.party), *old[document.party]}
            touched.parties.update((tenant, party) for tenant in tenants for party in parties)
            for name in (document.number, document.reference):
                if name is not None:
                    current = [getattr(target, name)] if is_deleted else []
                    touched.references.update(value for value in (*old[name], *current) if value)
        if document.role == "invoice" or not is_new:
            touched.rewrite = True
        if not is_new or self.settings.effective_from:
            touched.remove = True

    def _settles_before_cut_over(self, line: Any, session: Session) -> None:
        """With a cut-over, an invoice's own lines decide about those that settle it: name its document."""
        if not self.settings.effective_from:
            return
        link = inspect(line).dict.get("link")
        if link is not None:
            self._name_document(link.source_type, link.source_id)
        entry = self.binding.entry
        held = self._new_entries.get(line.general_ledger_id) or session.identity_map.get(
            session.identity_key(entry, line.general_ledger_id)
        )
        if held is not None and {"source_type", "source_id"} <= inspect(held).dict.keys():
            self._name_document(held.source_type, held.source_id)
            return
        connection = session.connection(bind_arguments={"mapper": inspect(entry)})
        query = select(entry.source_type, entry.source_id).where(entry.id == line.general_ledger_id)
        for source_type, source_id in connection.execute(query):
            self._name_document(source_type, source_id)

    def _name_source(self, target: Any) -> None:
        """Name the document that an entry or link has as its source, and the one that it had."""
        attributes = inspect(target).attrs
        self._name_document(target.source_type, target.source_id)
        for old_type in attributes["source_type"].history.deleted or (target.source_type,):
            for old_id in attributes["source_id"].history.deleted or (target.source_id,):
                self._name_document(old_type, old_id)

    def _name_document(self, source_type: str | None, source_id: Any) -> None:
        if not self.settings.effective_from or source_type is None:
            return
        for ledger in self.ledgers:
            for control in self.settings.of_ledger(ledger.name):
                name = control.sources.get(source_type)
                document = ledger.document(name) if name else None
                if document is not None and document.role == "invoice":
                    touched = self.touched.setdefault(ledger.name, Touched())
                    touched.documents.setdefault(document.name, set()).add(source_id)
                    touched.rewrite = touched.remove = True
