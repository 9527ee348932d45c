"""From session events to open items: a flush is looked at, and what it touched is written, at once.

``after_flush`` collects the keys of the entries, lines, links and documents that changed (``Collector``), gives
them to the writer within the same transaction, and has the ``Outbox`` keep what is to be told after the commit.
Listeners sit on the attached target alone, never on every session of the process.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from inspect import iscoroutinefunction
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Result, event, inspect
from sqlalchemy.orm import ORMExecuteState, Session, UOWTransaction

from ledger_sync import signals
from ledger_sync.attributes import held, key_held, replaced
from ledger_sync.binding import Binding, Ledger
from ledger_sync.bulk import BulkWrites
from ledger_sync.bulk_statement import Target
from ledger_sync.collector import Collector, deleted_by
from ledger_sync.concerned import Concerned, together
from ledger_sync.control_lines import voucher_text
from ledger_sync.dialects import savepoints_hold, transaction_lost
from ledger_sync.errors import ConfigurationError, DocumentInUseError, ManualPostingError
from ledger_sync.logs import log
from ledger_sync.outbox import Outbox, Told, plain
from ledger_sync.settings import Settings
from ledger_sync.touched import Touched
from ledger_sync.writer import Writer, Written

_TABLES_KEY: Final = "ledger_sync.tables"


def settlement_signals(settled: Iterable[Mapping[str, Any]]) -> Told:
    """What to tell of items whose remaining amount changed, as signal names with their arguments."""
    names = {1: "item-settled", -1: "item-reopened"}
    return [
        (names[1 if item["settled_amount"] > 0 else -1], {"item": item}) for item in settled if item["settled_amount"]
    ]


def _keep_old(target: object, value: object, old: object, initiator: object) -> None:
    """Nothing but a listener that has the old value loaded."""


@dataclass
class _SessionState:
    paused: int = 0
    flush: UOWTransaction | None = None
    stale: list[tuple[Ledger, tuple[Any, ...]]] = field(default_factory=list)


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
        self._classes = (binding.entry, binding.line, binding.link, *(d.model for _, d in self._documents))
        self._concerned = Concerned(binding, settings, self.ledgers)
        self._bulk = BulkWrites(binding, settings, self.ledgers, self._concerned)
        for model, key in binding.followed():
            # a change is followed from the old value, which an attribute that is not loaded would otherwise forget
            if not event.contains(getattr(model, key), "set", _keep_old):
                event.listen(getattr(model, key), "set", _keep_old, active_history=True, propagate=True)
        self.outbox = Outbox(sender)
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
            "after_commit": self.outbox.after_commit,
            "after_transaction_end": self.outbox.after_transaction_end,
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
        def listener(*arguments: Any) -> Any:
            return handler(*arguments) if attachment.active else None

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
        for target in session.deleted:
            if isinstance(target, self._classes) and inspect(target).expired:
                session.refresh(target)  # what it was cannot be asked for once it is gone
        self._refuse_in_use(session, session.deleted)

    def _refuse_in_use(self, session: Session, deleted: Iterable[Any]) -> None:
        """Refuse that documents behind posted lines are deleted or moved to another tenant."""
        for ledger, document in self._documents:
            leaving: dict[Any, dict[Any, str]] = {}
            for target in deleted:
                if isinstance(target, document.model):
                    for tenant_id in replaced(target, "tenant_id") or [held(target, "tenant_id")]:
                        leaving.setdefault(tenant_id, {})[key_held(target)] = "was to be deleted"
            for target in session.dirty:
                if isinstance(target, document.model):
                    for tenant_id in replaced(target, "tenant_id"):
                        leaving.setdefault(tenant_id, {})[key_held(target)] = "was to move to another tenant"
            if leaving:
                connection = self._connection(session, document.model)
                for used in self._concerned.in_use(connection, ledger, document, leaving):
                    problem = next(problems[used] for problems in leaving.values() if used in problems)
                    raise DocumentInUseError(document.name, used, problem)

    # -- the flush -------------------------------------------------------------------------------------

    def _after_flush(self, session: Session, context: UOWTransaction) -> None:
        state = self.state(session)
        self._bulk.remember(session)
        if state.flush is context:
            return
        state.flush = context
        # once more, since a before_flush of the host's that runs after ours may have taken one away
        self._refuse_in_use(session, deleted_by(context))
        if state.paused:
            return
        collector = Collector(self.settings, self.ledgers, self.binding)
        collector.collect(session, context)
        gone = collector.gone_lines
        if collector.gone_entries:
            rows = self._concerned.gone_by_rows(self._connection(session, self.binding.line), collector.gone_entries)
            for concerned in collector.touched.values():
                concerned.lines |= rows
            gone |= rows
        self._apply(session, collector.touched)
        if gone:
            self._concerned.drop_links(self._connection(session, self.binding.link), gone)

    def sync_entries(self, session: Session, entry_ids: Iterable[Any]) -> None:
        """Bring the rows of some entries into line with the projection, whatever wrote the entries."""
        session = plain(session)
        session.flush()
        self.outbox.listen(session)
        keys = set(entry_ids)
        connection = self._connection(session, self.binding.entry)
        gone = self._concerned.gone_by_rows(connection, keys)
        named = together(self._concerned.named(connection, keys), self._concerned.named_by_rows(connection, keys))
        for concerned in self._concerned.by_keys(keys, gone, named):
            self._apply(session, concerned)
        if gone:
            self._concerned.drop_links(self._connection(session, self.binding.link), gone)
        self._expire_stale(session)

    def _apply(self, session: Session, concerned: Mapping[str, Touched]) -> None:
        """Have the rows of what is concerned written, by ledger, and tell of it."""
        state = self.state(session)
        told: Told = []
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
            state.stale += [(ledger, ledger.identity(row)) for row in stale]
        self.outbox.keep(session, told)
        if items and signals.flush_synced.receivers:
            for receiver in signals.flush_synced.receivers_for(self.sender):
                if iscoroutinefunction(receiver):
                    log.warning("Ledger sync: receiver of flush-synced is a coroutine function and was not called")
                    continue
                receiver(self.sender, session=session, items=tuple(items))

    def tell_after_commit(self, session: Session, told: Told) -> None:
        """Send these signals when the session's outermost transaction has committed, attached or not."""
        session = plain(session)
        self.state(session)  # refused if another LedgerSync writes through it
        self.outbox.listen(session)
        self.outbox.keep(session, told)

    def _sync(self, connection: Connection, ledger: Ledger, touched: Touched, told: Told) -> Written:
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
            if transaction_lost(error):
                raise  # the entry is gone too, so there is nothing to record
            known = self._lines_known(connection, ledger, touched)
            failed = self.writer.failures.record_flush(connection, ledger, touched, error, lines_known=known)
            told += [("sync-failed", {"failure": failure}) for failure in failed]
            log.exception("Ledger sync: writing %s failed and was recorded", ledger.table.fullname)
            return Written()

    def _write(self, connection: Connection, ledger: Ledger, touched: Touched, told: Told) -> Written:
        # what the flush wrote itself: lines that only name a document that it wrote are no news
        own = replace(touched, lines=set(touched.lines))
        if not self.writer.find(connection, ledger, touched):
            return Written()
        listening = signals.anybody_listens
        written = self.writer.write(connection, ledger, touched)
        explains = listening("line-skipped", self.sender) or log.isEnabledFor(logging.INFO)
        if own.parts() and (explains or self.settings.manual == "block"):
            for row in self.writer.classify(connection, ledger, own):
                self._tell(ledger, row, told)
        return written

    def _tell(self, ledger: Ledger, row: Any, told: Told) -> None:
        voucher = voucher_text(row)
        # a reversal only takes away what is there
        if row.reason == "manual" and row.kind != "reversal" and self.settings.manual == "block":
            raise ManualPostingError(
                voucher,
                f"posts line {row.line_number} to control account {row.account_number} without a source",
                "Name the document it comes from, or post it to another account.",
            )
        outcome = row.reason or "written"
        extra = {"voucher": voucher, "tenant": row.tenant_id, "ledger": ledger.name, "outcome": outcome}
        message = "Ledger sync: voucher %s line %s on account %s of tenant %s: %s"
        arguments = (voucher, row.line_number, row.account_number, row.tenant_id, outcome)
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

    def _lines_known(self, connection: Connection, ledger: Ledger, touched: Touched) -> bool:
        """Whether ``touched`` has the lines that name touched documents; they are looked up if that failed."""
        try:
            with connection.begin_nested():
                self.writer.add_naming(connection, ledger, touched)
        except Exception as error:
            if transaction_lost(error):
                raise
            return False
        return True

    def _after_flush_postexec(self, session: Session) -> None:
        self.state(session).flush = None
        self._expire_stale(session)

    def _expire_stale(self, session: Session) -> None:
        state = self.state(session)
        for ledger, identity in state.stale:
            loaded = session.identity_map.get(session.identity_key(ledger.item, identity))
            if loaded is not None:
                session.expire(loaded)
        state.stale.clear()

    # -- bulk statements -------------------------------------------------------------------------------

    def _do_orm_execute(self, execution: ORMExecuteState) -> Result[Any] | None:
        choice = self._bulk.choice(execution)
        if choice is None or self.state(execution.session).paused:
            return None
        target, chosen = choice
        if chosen == "sync":
            return self._sync_bulk(execution, target)
        error = self._bulk.refusal(execution, target)
        if chosen == "refuse":
            raise error
        if chosen == "warn":
            log.warning("Ledger sync: %s", error)
        return None

    def _sync_bulk(self, execution: ORMExecuteState, target: Target) -> Result[Any]:
        session, state = execution.session, self.state(execution.session)
        if session.autoflush and not session._flushing and execution.execution_options.get("autoflush", True):
            session.flush()  # as SQLAlchemy would, yet outside the savepoint
        connection = self._connection(session, self.binding.entry)
        try:
            with self.outbox.dropping(session):
                result = self._bulk.carry_out(execution, target, connection, self._apply)
        except BaseException:
            state.stale.clear()
            raise
        self._expire_stale(session)
        return result

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
