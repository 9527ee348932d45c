"""From session events to open items: a flush is looked at, and what it touched is written, at once.

``after_flush`` collects the keys of the entries, lines, links and documents that changed (``Collector``), gives
them to the writer within the same transaction, and buffers what is to be told after the commit. Signals go
out when the outermost transaction has committed; what a rolled-back transaction or savepoint buffered is
dropped. Listeners sit on the attached target alone, never on every session of the process.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event, inspect, select
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, UOWTransaction, aliased

from ledger_sync import signals
from ledger_sync.binding import Binding, Ledger, attribute
from ledger_sync.collector import Collector
from ledger_sync.dialects import as_parameter, parameter_set, savepoints_hold
from ledger_sync.errors import BulkWriteError, ConfigurationError, DocumentInUseError, ManualPostingError
from ledger_sync.projection import voucher_text
from ledger_sync.settings import Settings
from ledger_sync.touched import Touched, naming_posted
from ledger_sync.writer import Writer, Written

log = logging.getLogger("ledger_sync")

_TABLES_KEY: Final = "ledger_sync.tables"


def one_line(text: object) -> str:
    """A text as a log may show it: what cannot be printed is escaped, so nobody forges a line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def settlement_signals(settled: Iterable[Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """What to tell of items whose remaining amount changed, as signal names with their arguments."""
    names = {1: "item-settled", -1: "item-reopened"}
    return [
        (names[1 if item["settled_amount"] > 0 else -1], {"item": item}) for item in settled if item["settled_amount"]
    ]


@dataclass
class _SessionState:
    paused: int = 0
    flush: UOWTransaction | None = None
    buffered: dict[SessionTransaction, list[tuple[str, dict[str, Any]]]] = field(default_factory=dict)
    committed: set[SessionTransaction] = field(default_factory=set)
    stale: list[tuple[type[Any], Any]] = field(default_factory=list)


@dataclass
class _Attachment:
    active: bool = True


class Hook:
    """The listeners of one ``LedgerSync``. ``sender`` is what its signals name as their sender."""

    def __init__(self, sender: object, binding: Binding, settings: Settings, writer: Writer) -> None:
        self.sender = sender
        self.binding = binding
        self.settings = settings
        self.writer = writer
        self.ledgers = tuple(binding.ledger(name) for name in settings.ledgers())
        self._key = f"ledger_sync.state.{id(self)}"
        self._attached: WeakKeyDictionary[object, _Attachment] = WeakKeyDictionary()
        self._documents = [(ledger, document) for ledger in self.ledgers for document in ledger.documents]
        watched = [binding.entry, binding.line, binding.link, *(d.model for _, d in self._documents)]
        self._watched = {table for model in watched for table in inspect(model).tables}
        self._warned = False

    # -- attachment ------------------------------------------------------------------------------------

    def attach(self, target: Any) -> None:
        """Listen to a target; harmless when it is attached already."""
        attachment = self._attached.get(target)
        if attachment is not None:
            attachment.active = True
            return
        attachment = self._attached[target] = _Attachment()
        handlers = {
            "before_flush": lambda session, context, instances: self._before_flush(session),
            "after_flush": self._after_flush,
            "after_flush_postexec": lambda session, context: self._after_flush_postexec(session),
            "after_commit": self._after_commit,
            "after_transaction_end": self._after_transaction_end,
        }
        for name, handler in handlers.items():
            event.listen(target, name, self._while_active(attachment, handler))
        event.listen(target, "do_orm_execute", self._while_active(attachment, self._do_orm_execute))

    def detach(self, target: Any) -> None:
        """Stop listening to a target; harmless when it is not attached."""
        if (attachment := self._attached.get(target)) is not None:
            attachment.active = False

    @staticmethod
    def _while_active(attachment: _Attachment, handler: Any) -> Any:
        # removing a listener inside its own handler breaks the session's events, so it is switched off
        def listener(*arguments: Any) -> None:
            if attachment.active:
                handler(*arguments)

        return listener

    def state(self, session: Session) -> _SessionState:
        """What the hook remembers of a session."""
        state = session.info.get(self._key)
        if not isinstance(state, _SessionState):
            tables = session.info.setdefault(_TABLES_KEY, {})
            for ledger in self.ledgers:
                owner = tables.setdefault(ledger.table.fullname, self._key)
                if owner != self._key:
                    raise ConfigurationError(
                        f"Two LedgerSync instances write {ledger.table.fullname} through one session. "
                        "Attach one of them only, or give them ledgers of their own."
                    )
            state = session.info[self._key] = _SessionState()
        return state

    # -- before the flush ------------------------------------------------------------------------------

    def _before_flush(self, session: Session) -> None:
        for ledger, document in self._documents:
            ids: dict[Any, str] = {}
            for target in session.deleted:
                if isinstance(target, document.model):
                    ids[inspect(target).identity[0]] = "was to be deleted"
            for target in session.dirty:
                if isinstance(target, document.model) and inspect(target).attrs["tenant_id"].history.deleted:
                    ids[inspect(target).identity[0]] = "was to move to another tenant"
            if ids:
                query = naming_posted(self.binding, self.settings, ledger, document, ids)
                connection = self._connection(session, document.model)
                if (in_use := connection.scalar(query)) is not None:
                    raise DocumentInUseError(document.name, in_use, ids[in_use])

    # -- the flush -------------------------------------------------------------------------------------

    def _after_flush(self, session: Session, context: UOWTransaction) -> None:
        state = self.state(session)
        if state.paused or state.flush is context:
            return
        state.flush = context
        collector = Collector(self.settings, self.ledgers, self.binding)
        collector.collect(session, context)
        self._apply(session, collector.touched)

    def sync_entries(self, session: Session, entry_ids: Iterable[Any]) -> None:
        """Bring the rows of some entries into line with the projection, whatever wrote the entries."""
        session.flush()
        keys = set(entry_ids)
        concerned: dict[str, Touched] = {}
        for ledger in self.ledgers:
            # by the rows as well: a line that was deleted past the hook is known by its row alone
            item = aliased(ledger.item)
            entry_id = attribute(item, "general_ledger_id")
            rows = select(attribute(item, "general_ledger_line_id")).where(
                entry_id.in_(parameter_set("entry_ids", entry_id.type))
            )
            connection = self._connection(session, ledger.item)
            lines = set(connection.scalars(rows, {"entry_ids": as_parameter(keys)}))
            concerned[ledger.name] = Touched(entries=keys, lines=lines, reversed=keys, rewrite=True, remove=True)
        self._apply(session, concerned)
        self._expire_stale(session)

    def _apply(self, session: Session, concerned: Mapping[str, Touched]) -> None:
        """Have the rows of what is concerned written, by ledger, and tell of it."""
        state = self.state(session)
        told: list[tuple[str, dict[str, Any]]] = []
        items: list[Mapping[str, Any]] = []
        for ledger in self.ledgers:
            touched = concerned.get(ledger.name)
            if touched is None or not (touched.parts() or touched.documented(ledger)):
                continue
            connection = self._connection(session, ledger.item)
            self._check_savepoints(session, connection)
            written = self._sync(connection, ledger, touched, told)
            items += [*written.created, *written.changed]
            told += [("item-created", {"item": item}) for item in written.created]
            told += [("item-changed", {"item": item}) for item in written.changed]
            told += [("item-removed", {"item": item}) for item in written.removed]
            told += settlement_signals(written.settled)
            stale = written.settled
            if touched.rewrite:
                stale = (*stale, *written.changed, *written.created)
            state.stale += [(ledger.item, row["id"]) for row in stale]
        if told:
            self.tell_after_commit(session, told)
        if items and signals.flush_synced.receivers:
            for receiver in signals.flush_synced.receivers_for(self.sender):
                if iscoroutinefunction(receiver):
                    log.warning("Ledger sync: receiver of flush-synced is a coroutine function and was not called")
                    continue
                receiver(self.sender, session=session, items=tuple(items))

    def tell_after_commit(self, session: Session, told: list[tuple[str, dict[str, Any]]]) -> None:
        """Send these signals when the session's outermost transaction has committed."""
        transaction = session.get_nested_transaction() or session.get_transaction()
        assert transaction is not None
        self.state(session).buffered.setdefault(transaction, []).extend(told)

    def _sync(
        self, connection: Connection, ledger: Ledger, touched: Touched, told: list[tuple[str, dict[str, Any]]]
    ) -> Written:
        if self.settings.on_error == "raise":
            try:
                return self._write(connection, ledger, touched, told)
            except Exception as error:
                error.add_note(f"Ledger sync: while writing {ledger.table.fullname}; the flush fails as a whole.")
                raise
        try:
            with connection.begin_nested():
                return self._write(connection, ledger, touched, told)
        except ManualPostingError:
            raise
        except Exception as error:
            tenants = self._entries_of(connection, ledger, touched)
            self.writer.failures.record_entries(connection, ledger, tenants, error)
            for entry_id, tenant in tenants.items():
                failure = {
                    "tenant_id": tenant,
                    "ledger": ledger.name,
                    "general_ledger_id": entry_id,
                    "error": type(error).__name__,
                    "message": str(error),
                }
                told.append(("sync-failed", {"failure": failure}))
            log.exception("Ledger sync: writing %s failed and was recorded", ledger.table.fullname)
            return Written()

    def _write(
        self, connection: Connection, ledger: Ledger, touched: Touched, told: list[tuple[str, dict[str, Any]]]
    ) -> Written:
        if not self.writer.find(connection, ledger, touched):
            return Written()
        listening = signals.anybody_listens
        tell_new = listening("item-created", self.sender) or listening("item-changed", self.sender)
        written = self.writer.write(connection, ledger, touched, tell_new=tell_new)
        explains = listening("line-skipped", self.sender) or log.isEnabledFor(logging.INFO)
        if explains or self.settings.manual == "block":
            for row in self.writer.classify(connection, ledger, touched):
                self._tell(ledger, row, told)
        return written

    def _tell(self, ledger: Ledger, row: Any, told: list[tuple[str, dict[str, Any]]]) -> None:
        voucher = voucher_text(row)
        if row.reason == "manual" and self.settings.manual == "block":
            raise ManualPostingError(
                voucher,
                f"posts line {row.line_number} to control account {row.account_number} without a source",
                "Name the document it comes from, or post it to another account.",
            )
        outcome = row.reason or "written"
        extra = {
            "voucher": one_line(voucher),
            "tenant": one_line(row.tenant_id),
            "ledger": ledger.name,
            "outcome": outcome,
        }
        message = "Ledger sync: voucher %s line %s on account %s of tenant %s: %s"
        arguments = (
            extra["voucher"],
            row.line_number,
            one_line(row.account_number),
            extra["tenant"],
            outcome,
        )
        log.info(message, *arguments, extra=extra)
        if row.reason is not None:
            line = {
                "tenant_id": row.tenant_id,
                "ledger": ledger.name,
                "voucher": voucher,
                "general_ledger_id": row.general_ledger_id,
                "general_ledger_line_id": row.general_ledger_line_id,
                "account_number": row.account_number,
                "amount": row.amount,
                "reason": row.reason,
            }
            told.append(("line-skipped", {"line": line}))

    def _entries_of(self, connection: Connection, ledger: Ledger, touched: Touched) -> dict[Any, str | None]:
        if not touched.parts():
            return {}
        entries = {row.general_ledger_id: row.tenant_id for row in self.writer.classify(connection, ledger, touched)}
        return entries or dict.fromkeys(touched.entries)

    def _after_flush_postexec(self, session: Session) -> None:
        self.state(session).flush = None
        self._expire_stale(session)

    def _expire_stale(self, session: Session) -> None:
        state = self.state(session)
        for model, key in state.stale:
            loaded = session.identity_map.get(session.identity_key(model, key))
            if loaded is not None:
                session.expire(loaded)
        state.stale.clear()

    # -- after the commit ------------------------------------------------------------------------------

    def _after_commit(self, session: Session) -> None:
        state = self.state(session)
        transaction = session.get_nested_transaction() or session.get_transaction()
        if transaction is not None:
            state.committed.add(transaction)

    def _after_transaction_end(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is not None and not transaction.nested:
            return  # a flush's own subtransaction
        state = session.info.get(self._key)
        if not isinstance(state, _SessionState):
            return  # nothing was flushed, or another LedgerSync owns the session
        told = state.buffered.pop(transaction, [])
        if transaction not in state.committed:
            return
        state.committed.discard(transaction)
        parent = transaction.parent
        while parent is not None and parent.parent is not None and not parent.nested:
            parent = parent.parent
        if parent is not None:
            state.buffered.setdefault(parent, []).extend(told)
            return
        state.buffered.clear()
        state.committed.clear()
        for name, arguments in told:
            signals.send_safely(name, self.sender, **arguments)

    # -- bulk statements -------------------------------------------------------------------------------

    def _do_orm_execute(self, execution: ORMExecuteState) -> None:
        if not (execution.is_insert or execution.is_update or execution.is_delete):
            return
        table = getattr(execution.statement, "table", None)
        if table is None or table not in self._watched or self.state(execution.session).paused:
            return
        if execution.execution_options.get("ledger_sync_bulk") == "ignore":
            return
        operation = "INSERT" if execution.is_insert else "UPDATE" if execution.is_update else "DELETE"
        error = BulkWriteError(table.fullname, operation)
        if self.settings.bulk == "refuse":
            raise error
        log.warning("Ledger sync: %s", error)

    # -- small things ----------------------------------------------------------------------------------

    @staticmethod
    def _connection(session: Session, model: type[Any]) -> Connection:
        # not session.execute: that would pass through the host's own filters
        return session.connection(bind_arguments={"mapper": inspect(model)})

    def _check_savepoints(self, session: Session, connection: Connection) -> None:
        if self._warned or not (session.in_nested_transaction() or self.settings.on_error == "record"):
            return
        if not savepoints_hold(connection):
            self._warned = True
            warnings.warn(
                "Savepoints do not hold on this SQLite engine: a row can survive a rolled-back savepoint. Make the "
                "engine with ledger_sync.dialects.open_engine, or use SQLAlchemy's documented BEGIN recipe.",
                stacklevel=2,
            )
