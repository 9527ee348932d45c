"""Runs: transactions of their own, and a row for each run that says whose books it writes and how far it is.

Two runs never write one tenant's books at once: ``open_run`` refuses the second and names the first. A run in state
``running`` renews its lease with every batch, in the batch's own transaction; one whose lease has passed has died. A
run is steered from any process by the ``command`` in its row, which its workers read with every batch.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from importlib import import_module
from traceback import clear_frames
from typing import Any, Final, ParamSpec, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Table, case, func, insert, inspect, literal, or_, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from ledger_sync.binding import Binding, aliased, attribute
from ledger_sync.control_lines import on_accounts
from ledger_sync.dialects import bucket_keys, fault_of, rolled_back_if_refused, take_locks
from ledger_sync.errors import ConfigurationError, RunActiveError, RunStateError
from ledger_sync.models.own import NOTE_MAX
from ledger_sync.models.types import storable, utc_now
from ledger_sync.progress import AllTenants, is_at_work
from ledger_sync.release import __version__
from ledger_sync.settings import Settings
from ledger_sync.waiting import pause

log = logging.getLogger("ledger_sync")

T = TypeVar("T")
P = ParamSpec("P")

SECONDS_PER_LINE: Final = 0.0005
"""What a lease allows for each line of a step that is one statement, such as settling: ten times what was measured."""

SessionFactory = Callable[[], Session]


def imported(factory: SessionFactory | str) -> SessionFactory:
    """A session factory, or the one that ``"module:name"`` names.

    :raises ConfigurationError: there is nothing of that name.
    """
    if not isinstance(factory, str):
        return factory
    module, colon, name = factory.partition(":")
    try:
        found: SessionFactory = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f'factory {factory!r} cannot be imported ({error}). Name it as "package.module:name".'
        ) from error
    if not colon or not callable(found):
        raise ConfigurationError(f'factory {factory!r} names nothing that makes sessions. Use "package.module:name".')
    return found


class Batches:
    """Sessions of the host's factory, each in a transaction of its own at READ COMMITTED."""

    def __init__(self, binding: Binding, factory: SessionFactory) -> None:
        self.binding = binding
        self.factory = factory

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session that is rolled back in the end, in whatever transaction it begins."""
        try:
            with self.factory() as session:
                yield session
                session.rollback()
        except BaseException as error:
            if not isinstance(error, Exception):
                # SQLAlchemy closes the connection of an interrupted statement, yet on SQLite that keeps its locks as
                # long as there is a cursor, and the traceback has one: it would lock out whoever pauses the run
                clear_frames(error.__traceback__)
            raise

    @contextmanager
    def transaction(self, *, commit: bool = True) -> Iterator[Session]:
        """A session whose transaction is committed at the end of the block, or rolled back.

        On SQLite one that will commit takes the write lock at once, rather than fail when it first writes.
        """
        mapper = inspect(self.binding.line)
        with self.session() as session:
            options: dict[str, Any] = {"ledger_sync_begin": "IMMEDIATE" if commit else "DEFERRED"}
            if session.get_bind(mapper=mapper).dialect.name != "sqlite":
                options["isolation_level"] = "READ COMMITTED"
            connection = session.connection(bind_arguments={"mapper": mapper}, execution_options=options)
            yield session
            if commit:
                with rolled_back_if_refused(connection):
                    session.commit()

    @contextmanager
    def connected(self, *, commit: bool = True) -> Iterator[Connection]:
        """The connection of such a transaction for the tables of the runs."""
        with self.transaction(commit=commit) as session:
            yield self.connection(session, self.binding.run)

    @staticmethod
    def connection(session: Session, model: type[Any]) -> Connection:
        """The connection of a batch's session for a class: not through the host's own filters."""
        return session.connection(bind_arguments={"mapper": inspect(model)})


def is_passing(error: BaseException) -> bool:
    """Whether something is worth another try later: a fault that passes, or a pool all of whose connections are out.

    ``retried`` leaves the pool alone, which has waited for long enough itself.
    """
    return isinstance(error, PoolTimeoutError) or (isinstance(error, DBAPIError) and fault_of(error) == "passing")


def retried(retries_max: int, attempt: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Try again, as a whole, what met a deadlock, a serialization failure, a lock timeout or a lost connection."""
    for tries in range(retries_max + 1):
        try:
            return attempt(*args, **kwargs)
        except DBAPIError as error:
            if tries == retries_max or fault_of(error) != "passing":
                raise
            # jitter, so that two that met don't meet again
            pause(min(5.0, 0.02 * 2**tries) * (0.5 + random.random()))
    raise AssertionError("unreachable")


def said_if_possible(attempt: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Write how something ended while an error is being raised, which tells more than why this could not be written.

    What is not written is found by its lease, which will pass.
    """
    try:
        attempt(*args, **kwargs)
    except Exception:
        log.warning("Ledger sync: how a run ended could not be written; its lease will pass", exc_info=True)


def run_table(binding: Binding) -> Table:
    """The table of the runs."""
    table = inspect(binding.run).local_table
    assert isinstance(table, Table)
    return table


def lease_end(settings: Settings, lines: int = 0, *, waits_seconds: float = 0.0, times: int = 1) -> datetime:
    """When a lease that is renewed now ends.

    :param lines: for a step over so many lines in one statement.
    :param waits_seconds: for so long it may wait.
    :param times: so many times that.
    """
    seconds = settings.lease_seconds + lines * SECONDS_PER_LINE + waits_seconds
    return utc_now() + timedelta(seconds=times * seconds)


def kept(runs: Table, lease: datetime) -> ColumnElement[datetime]:
    """A run's lease until then, or longer if another of its workers has asked for more."""
    end = literal(lease, runs.c.lease_until.type)
    return case((runs.c.lease_until > end, runs.c.lease_until), else_=end)


def key_of(tenant_id: Any) -> Any:
    """A tenant as a run's row names it: null means everybody."""
    return None if isinstance(tenant_id, AllTenants) else tenant_id


def open_run(
    batches: Batches,
    settings: Settings,
    *,
    kind: str,
    tenant_id: Any,
    stage: str,
    actor: str | None = None,
    then: Callable[[Connection, Any], object] | None = None,
    lines: int = 0,
    **values: Any,
) -> Any:
    """Insert the row of a new run that begins now, in a transaction of its own, and return its id.

    Tried again after a passing fault. One whose COMMIT was done, though its reply was lost, is known by when it began.

    :param then: is called in the same transaction, with the run's id.
    :param lines: so many lines each statement of its first step goes over.
    :raises RunActiveError: another run is writing these books.
    """
    binding = batches.binding
    row = {
        "tenant_id": tenant_id,
        "kind": kind,
        "state": "running",
        "stage": stage,
        "version": __version__,
        "started_at": utc_now(),
        "actor": actor,
        **values,
    }
    told = False

    def attempt() -> Any:
        nonlocal told
        with batches.connected() as connection:
            _one_at_a_time(connection, binding)
            if told and (done := _same_run(connection, binding, row)) is not None:
                return done
            inserted = insert(run_table(binding)).values(**row, lease_until=lease_end(settings, lines))
            result = connection.execute(inserted)
            run_id = result.inserted_primary_key[0] if result.inserted_primary_key else None
            _refuse_beside(connection, binding, run_id, tenant_id)
            if then is not None:
                then(connection, run_id)
            told = True
        return run_id

    return retried(settings.retries_max, attempt)


def _same_run(connection: Connection, binding: Binding, row: Mapping[str, Any]) -> Any:
    """The id of the run that a row was inserted for; None if it was not."""
    table = run_table(binding)
    # to the microsecond, and whose and what it is: nobody else's
    same = [table.c[name].is_not_distinct_from(row[name]) for name in ("tenant_id", "kind", "started_at", "actor")]
    return connection.scalar(select(table.c.id).where(*same))


def reopen_run(
    connection: Connection, binding: Binding, settings: Settings, run_id: Any, actor: str | None = None
) -> None:
    """Set a run that has died, was paused or has failed to running again; ``actor``: as somebody else's.

    :raises RunActiveError: another run is writing these books.
    """
    _one_at_a_time(connection, binding)
    table = run_table(binding)
    run = run_row(connection, binding, run_id)
    _refuse_beside(connection, binding, run_id, run.tenant_id)
    values = {"state": "running", "command": None, "note": None, "finished_at": None, "actor": actor or run.actor}
    connection.execute(
        update(table)
        .where(table.c.id == run_id)
        .values(**values, lease_until=lease_end(settings), sequence=table.c.sequence + 1)
    )


def _one_at_a_time(connection: Connection, binding: Binding) -> None:
    """Hold everybody else off who opens a run, until the transaction ends."""
    table = run_table(binding)
    # a writing statement first: SQLite's lock is the one on the file, and it is taken by writing
    connection.execute(update(table).where(table.c.id.is_(None)).values(stage=table.c.stage))
    take_locks(connection, inspect(binding.lock).local_table, bucket_keys("ledger_sync runs", ["all"]))


def _refuse_beside(connection: Connection, binding: Binding, run_id: Any, tenant_id: Any) -> None:
    table = run_table(binding)
    query = select(table).where(table.c.state == "running", table.c.id != run_id).order_by(table.c.id)
    if tenant_id is not None:
        query = query.where(or_(table.c.tenant_id == tenant_id, table.c.tenant_id.is_(None)))
    for other in connection.execute(query).all():
        if is_at_work(other.state, other.lease_until):
            whose = "the books of all tenants" if other.tenant_id is None else f"the books of tenant {other.tenant_id}"
            raise RunActiveError(other.id, other.kind, whose, other.stage)
        end_run(connection, binding, other.id, "failed", f"It died. Run {run_id} took its place.")


def end_run(
    connection: Connection, binding: Binding, run_id: Any, state: str, note: str | None = None, **values: Any
) -> bool:
    """Say how a running run ended; whether it was still running. One that is to be paused has been cancelled if
    somebody asked for that meanwhile.
    """
    table = run_table(binding)
    ended = update(table).where(table.c.id == run_id, table.c.state == "running")
    told: dict[str, Any] = {
        "state": case((table.c.command == "cancel", "cancelled"), else_=state) if state == "paused" else state,
        "command": None,
        "note": None if note is None else storable(note)[:NOTE_MAX],
        "finished_at": utc_now(),
        "lease_until": utc_now(),
        "sequence": table.c.sequence + 1,
        **values,
    }
    # in that order: MariaDB assigns from left to right, and the state depends on the command that there was
    in_order = ended.ordered_values(*((table.c[name], value) for name, value in told.items()))
    return connection.execute(in_order).rowcount == 1


def run_row(connection: Connection, binding: Binding, run_id: Any, tenant_id: Any = None) -> Row[Any]:
    """The row of a run.

    :param tenant_id: whose it must be; anybody's unless given.
    :raises RunStateError: there is no such run, or it is another tenant's.
    """
    table = run_table(binding)
    query = select(table).where(table.c.id == run_id)
    if tenant_id is not None and not isinstance(tenant_id, AllTenants):
        query = query.where(table.c.tenant_id == tenant_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise RunStateError(run_id, "does not exist", "Ask for the list of runs.")
    return row


def steer(connection: Connection, binding: Binding, run_id: Any, command: str, tenant_id: Any) -> None:
    """Have a run ``pause`` or ``cancel``: its workers obey with their next batch, and one that has died at once.

    :raises RunStateError: there is no such run, or it is over.
    """
    table = run_table(binding)
    # a writing statement first: on SQLite it waits for whoever writes, and one that comes after a look does not
    locked = update(table).where(table.c.id == run_id).values(stage=table.c.stage)
    if tenant_id is not None and not isinstance(tenant_id, AllTenants):
        locked = locked.where(table.c.tenant_id == tenant_id)
    connection.execute(locked)
    run = run_row(connection, binding, run_id, tenant_id)
    if run.command == "cancel":
        command = "cancel"  # for good, whoever asks for less before it is obeyed
    ended = {"pause": "paused", "cancel": "cancelled"}[command]
    if run.kind != "backfill":
        raise RunStateError(run_id, f"is a {run.kind}, which cannot be steered", "Let it end, or end its process.")
    if run.state == ended:
        return
    if run.state in {"paused", "failed"} and command == "cancel":
        connection.execute(update(table).where(table.c.id == run_id).values(state=ended, sequence=table.c.sequence + 1))
        return
    if run.state != "running":
        raise RunStateError(run_id, f"is {run.state.replace('_', ' ')}", "There is nothing left to steer.")
    if not is_at_work(run.state, run.lease_until):
        end_run(connection, binding, run_id, ended)
    else:
        running = update(table).where(table.c.id == run_id, table.c.state == "running")
        connection.execute(running.values(command=command, sequence=table.c.sequence + 1))


def run_rows(
    connection: Connection, binding: Binding, tenant_id: Any, limit: int | None, *, running: bool = False
) -> list[Row[Any]]:
    """The newest runs over one tenant's books, or all of them; if ``running``, those in that state."""
    table = run_table(binding)
    query = select(table).order_by(table.c.id.desc()).limit(limit)
    if running:
        query = query.where(table.c.state == "running")
    if not isinstance(tenant_id, AllTenants):
        query = query.where(table.c.tenant_id == tenant_id)
    return list(connection.execute(query))


class UnsteeredRun:
    """A run without segments: a repair. It renews its lease with each batch, and whoever finds it dead starts anew.

    :param lines: so many lines each of its steps goes over.
    """

    def __init__(self, batches: Batches, settings: Settings, kind: str, tenant_id: Any, stage: str, lines: int) -> None:
        self.batches = batches
        self.settings = settings
        self.binding = batches.binding
        self.lines = lines
        self.id: Any = open_run(batches, settings, kind=kind, tenant_id=tenant_id, stage=stage, lines=lines)
        self._beats = 0

    def batch(self, stage: str, work: Callable[[Session], tuple[T, int]]) -> T:
        """Do a batch in a transaction of its own, and renew the lease in it; tried again after a passing fault.

        One whose COMMIT was done, though its reply was lost, is known by its number, and is not done again.

        :param work: does it; returns its outcome, and how many rows the run has written so far.
        :raises RunStateError: the lease had passed, and another run took its place.
        """
        self._beats += 1
        outcomes: list[T] = []

        def attempt() -> T:
            with self.batches.transaction() as session:
                connection = self.batches.connection(session, self.binding.run)
                run = run_row(connection, self.binding, self.id) if outcomes else None
                if run is not None and run.state == "running" and run.sequence == self._beats:
                    return outcomes[-1]
                outcome, synced = work(session)
                outcomes.append(outcome)
                self._beat(connection, stage, synced)
            return outcome

        return retried(self.settings.retries_max, attempt)

    def _beat(self, connection: Connection, stage: str, synced: int) -> None:
        table = run_table(self.binding)
        values: Mapping[str, Any] = {"stage": stage, "synced": synced, "sequence": self._beats}
        running = update(table).where(table.c.id == self.id, table.c.state == "running")
        if connection.execute(running.values(**values, lease_until=lease_end(self.settings, self.lines))).rowcount != 1:
            raise RunStateError(self.id, "lost its lease, and another run took its place", "Run the repair again.")

    def finish(self, state: str, clean: bool | None = None, note: str | None = None) -> None:
        """Say how it ended: ``completed`` or ``failed``."""

        def attempt() -> None:
            with self.batches.connected() as connection:
                end_run(connection, self.binding, self.id, state, note, clean=clean)

        retried(self.settings.retries_max, attempt)


def tenants_in(connection: Connection, binding: Binding) -> list[Any]:
    """The tenants that have journal entries."""
    tenant_id = attribute(binding.entry, "tenant_id")
    return list(connection.scalars(select(tenant_id).distinct().order_by(tenant_id)))


def control_lines_in(
    connection: Connection, binding: Binding, settings: Settings, tenant_id: Any
) -> dict[tuple[Any, str], int]:
    """How many control lines each tenant has in each ledger; one tenant's, or everybody's (None)."""
    line, entry = aliased(binding.line), aliased(binding.entry)
    tenant = attribute(entry, "tenant_id")
    found: dict[tuple[Any, str], int] = {}
    for name in settings.ledgers():
        query = (
            select(tenant, func.count())
            .select_from(line)
            .join(entry, attribute(entry, "id") == attribute(line, "general_ledger_id"))
            .where(on_accounts(attribute(line, "account_number"), settings.of_ledger(name)))
            .group_by(tenant)
        )
        if tenant_id is not None:
            query = query.where(tenant == tenant_id)
        found |= {(row[0], name): row[1] for row in connection.execute(query)}
    return found
