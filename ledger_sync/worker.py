"""Works on a run: takes one segment after another and does it batch by batch until the run is over.

Any number of workers, in threads, processes or machines, can work on one run; each commits what a batch wrote together
with how far its segment is. A batch that meets a deadlock or the like is tried again; one with a bad line is searched
for it, the line is recorded, and the rest goes on.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, ParamSpec, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, bindparam, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, aliased

from ledger_sync import proof, segments
from ledger_sync.binding import Binding, Document, Ledger, attribute
from ledger_sync.dialects import fault_of, plan_for_range, plan_plainly, wait_for_writers
from ledger_sync.errors import ConfigurationError, EntryError, TooManyErrorsError
from ledger_sync.findings import mentioned, unposted
from ledger_sync.planning import dated, plan
from ledger_sync.progress import added_up
from ledger_sync.projection import Lines, Restriction, on_accounts
from ledger_sync.proof import Proof
from ledger_sync.runs import Batches, SessionFactory, end_run, run_row, run_table
from ledger_sync.segments import FencedError, Segment, StoppedError
from ledger_sync.settings import Settings
from ledger_sync.summary import scope_of
from ledger_sync.waiting import pause
from ledger_sync.writer import Filled, Writer

T = TypeVar("T")
P = ParamSpec("P")

Poster = Callable[[Session, Any], Any]
"""The host's: takes a session and a document, returns the posted journal entry for it, or None to leave it."""

Health = Callable[[], str | None]
"""The host's: None when the run may go on, otherwise why it must wait."""

POLL_SECONDS: Final = 0.2
DOCUMENTS_AT_ONCE: Final = 500


@dataclass
class Options:
    """What a host hands to a worker besides the run: its poster, its health hook, and what to call after each step."""

    poster: Poster | None = None
    health: Health | None = None
    on_step: Callable[[], None] = lambda: None
    deadline: float = float("inf")


class OutOfTimeError(Exception):
    """The worker's budget is used up; the run goes on with the next worker."""


@dataclass
class Worker:
    """One worker of one run. ``proofs`` are those that it found not to be clean."""

    binding: Binding
    settings: Settings
    writer: Writer
    factory: SessionFactory
    run_id: Any
    options: Options
    proofs: list[Proof] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.batches = Batches(self.binding, self.factory)
        with self._transaction(commit=False) as connection:
            run = run_row(connection, self.binding, self.run_id)
        self.scope = scope_of(run)
        self.dry_run: bool = run.dry_run
        self.tenant_id = run.tenant_id
        self._batch_lines: int | None = None
        if self.scope.posting and not self.dry_run and self.options.poster is None:
            raise ConfigurationError(
                f"Run {self.run_id} posts documents, so whoever works on it needs the poster. Pass poster=…"
            )

    def work(self) -> bool:
        """Work until the run is over or was told to stop, or the time is up; whether it is over."""
        while True:
            segment: Segment | None = None
            try:
                taken = self._retried(self._take)
                if taken is None:
                    self._finish()
                    return True
                if isinstance(taken, Segment):
                    segment = taken
                    self.options.on_step()  # a stage may have begun
                    self._segment(segment)
                else:
                    self._wait()
            except FencedError:
                continue
            except StoppedError as stopped:
                self._stop(segment, stopped.command)
                return True
            except OutOfTimeError:
                self._release(segment)
                return False
            except BaseException as error:
                self._release(segment, error)
                raise

    # -- taking and giving back ------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, *, commit: bool = True) -> Iterator[Connection]:
        with self.batches.transaction(commit=commit) as session:
            yield self.batches.connection(session, self.binding.run)

    def _take(self) -> Any:
        with self._transaction() as connection:
            return segments.take(connection, self.binding, self.settings, self.run_id)

    def _wait(self) -> None:
        """Others must end their segments first, or die."""
        self.options.on_step()
        if time.monotonic() >= self.options.deadline:
            raise OutOfTimeError
        pause(POLL_SECONDS)

    def _release(self, segment: Segment | None, error: BaseException | None = None) -> None:
        if segment is None:
            return
        try:
            with self._transaction() as connection:
                message = None if error is None else f"{type(error).__name__}: {error}"
                segments.release(connection, self.binding, segment, message)
        except DBAPIError:
            return  # its lease will pass; the error that is being raised says more

    def _stop(self, segment: Segment | None, command: str | None) -> None:
        self._release(segment)
        if command is not None:
            with self._transaction() as connection:
                state = {"pause": "paused", "cancel": "cancelled"}[command]
                end_run(connection, self.binding, self.run_id, state)

    def _finish(self) -> None:
        with self._transaction() as connection:
            parts = segments.all_of(connection, self.binding, self.run_id)
            state = "completed_with_errors" if any(part.errors for part in parts) else "completed"
            verified = [part for part in parts if part.kind == "verify"]
            clean = None if self.dry_run else not any(part.found for part in verified)
            end_run(connection, self.binding, self.run_id, state, clean=clean)

    def _retried(self, attempt: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Try again what met a deadlock, a serialization failure, a lock timeout or a lost connection."""
        for tries in range(self.settings.retries_max + 1):
            try:
                return attempt(*args, **kwargs)
            except DBAPIError as error:
                if tries == self.settings.retries_max or fault_of(error) != "passing":
                    raise
                # jitter, so that two that met don't meet again
                pause(min(5.0, 0.02 * 2**tries) * (0.5 + random.random()))
        raise AssertionError("unreachable")

    # -- one segment -----------------------------------------------------------------------------------

    def _segment(self, segment: Segment) -> None:
        step = {
            "check": self._check,
            "documents": self._documents,
            "lines": self._lines,
            "settle": self._settle,
            "late": self._lines,
            "verify": self._verify,
        }[segment.kind]
        while segment.state == "running":
            began = time.monotonic()
            segment = step(segment)
            self._between(segment, time.monotonic() - began)

    def _between(self, segment: Segment, seconds: float) -> None:
        """After a commit: tell, be nice, wait for the host's health, look at the clock."""
        self.options.on_step()
        self._pause(segment, seconds * self.settings.nice_ratio)
        held = False
        while self.options.health is not None and (reason := self.options.health()) is not None:
            held = True
            self._renew(segment, reason)
            self.options.on_step()
            self._pause(segment, 1.0)
        if held:
            self._renew(segment, None)
        if time.monotonic() >= self.options.deadline:
            raise OutOfTimeError

    def _pause(self, segment: Segment, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            pause(min(left, self.settings.lease_seconds / 4, 1.0))
            if left > 1.0:
                self._renew(segment, None)

    def _renew(self, segment: Segment, note: str | None) -> None:
        with self._transaction() as connection:
            segments.renew(connection, self.binding, self.settings, segment, note)

    def _saved(self, connection: Connection, segment: Segment, began: float, **values: Any) -> Segment:
        seconds = time.monotonic() - began
        return segments.save(connection, self.binding, self.settings, segment, seconds=seconds, **values)

    # -- checking --------------------------------------------------------------------------------------

    def _check(self, segment: Segment) -> Segment:
        with self._transaction(commit=False) as connection:
            wait_for_writers(connection, self.settings.writers_seconds_max)

        def attempt() -> Segment:
            began = time.monotonic()
            with self._transaction() as connection:
                segments.check_in(connection, self.binding, self.run_id)
                plan_plainly(connection)
                made = plan(
                    connection, self.binding, self.settings, self.run_id, self.tenant_id, self.scope, dry=self.dry_run
                )
                segments.add(connection, self.binding, made.segments)
                table = run_table(self.binding)
                total = sum(part.total for part in made.segments if part.kind == "lines")
                pinned = {"total": total, "upper_bound": made.upper_bound}
                connection.execute(table.update().where(table.c.id == self.run_id).values(**pinned))
                return self._saved(connection, segment, began, found=made.unposted, done=True)

        return self._retried(attempt)

    # -- lines -----------------------------------------------------------------------------------------

    def _lines(self, segment: Segment) -> Segment:
        """One batch of a key range: its rows, its counts and its cursor in one transaction."""
        if self._batch_lines is None:
            self._batch_lines = segment.batch_lines
        size = self._batch_lines
        began = time.monotonic()
        upper = self._retried(self._upper, segment, size)
        try:
            after = self._retried(self._batch, segment, upper)
        except DBAPIError as error:
            if fault_of(error) != "data":
                raise
            return self._search(segment, upper)
        self._batch_lines = self._next_size(size, time.monotonic() - began, full=upper is not None)
        return after

    def _next_size(self, size: int, seconds: float, *, full: bool) -> int:
        """Half to twice as large, towards the target time."""
        factor = min(2.0, max(0.5, self.settings.batch_seconds / max(seconds, 1e-6)))
        if factor > 1 and not full:
            return size  # a small rest says nothing of larger batches
        low, high = min(self.settings.batch_lines_min, self.settings.batch_lines_max), self.settings.batch_lines_max
        return max(low, min(high, int(size * factor)))

    def _batch(self, segment: Segment, upper: Any) -> Segment:
        """Write the lines after the cursor up to a key, or to the segment's end (None)."""
        began = time.monotonic()
        ledger = self._ledger(segment)
        end = upper if upper is not None else self._key(segment.until)
        where, shape = self._between_keys(segment, end)
        values = self._values(segment, end)
        with self._transaction(commit=not self.dry_run) as connection:
            segments.check_in(connection, self.binding, self.run_id)
            plan_for_range(connection)
            filled = self.writer.fill(
                connection,
                ledger,
                where,
                values,
                (shape, self.scope.shape()),
                run_id=self.run_id,
                selects=self.scope.selects,
            )
            if not self.dry_run:
                return self._counted(connection, segment, upper, filled, began)
        with self._transaction() as connection:
            return self._counted(connection, segment, upper, filled, began)

    def _counted(self, connection: Connection, segment: Segment, upper: Any, filled: Filled, began: float) -> Segment:
        late = segment.kind == "late"  # its lines were counted when they were passed
        return self._saved(
            connection,
            segment,
            began,
            cursor=None if upper is None else str(upper),
            done=upper is None,
            processed=0 if late else filled.seen,
            synced=filled.written,
            skipped={} if late else filled.skipped,
            batch_lines=self._batch_lines,
        )

    def _search(self, segment: Segment, upper: Any) -> Segment:
        """Find the bad lines of a batch that failed, record them, and write all others.

        By halves: what is written stays written, and the cursor follows. One bad line takes one failing attempt for
        each halving, one for itself, and one attempt for what follows it.
        """
        keys = self._retried(self._keys, segment, upper)
        low, in_a_row = 0, 0
        while low < len(keys):
            high = len(keys)
            while high - low > 1:
                middle = (low + high) // 2
                written = self._attempted(segment, keys[middle - 1])
                if isinstance(written, Segment):
                    segment, low, in_a_row = written, middle, 0
                else:
                    high = middle
            error = self._attempted(segment, keys[low])
            if isinstance(error, Segment):
                segment = error
            else:
                in_a_row += 1
                segment = self._recorded(segment, keys[low], error, in_a_row)
            low += 1
            self.options.on_step()
            rest = self._attempted(segment, upper)
            if isinstance(rest, Segment):
                return rest
        return self._retried(self._batch, segment, upper)

    def _attempted(self, segment: Segment, upper: Any) -> Segment | DBAPIError:
        try:
            return self._retried(self._batch, segment, upper)
        except DBAPIError as error:
            if fault_of(error) != "data":
                raise
            return error

    def _recorded(self, segment: Segment, key: Any, error: DBAPIError, in_a_row: int) -> Segment:
        """Note a bad line, and go past it in the same transaction."""

        def attempt() -> Segment:
            with self._transaction() as connection:
                segments.check_in(connection, self.binding, self.run_id)
                if not self.dry_run:
                    named = {"tenant_id": segment.tenant_id, "run_id": self.run_id}
                    self.writer.failures.record_line(connection, self._ledger(segment), key, error, **named)
                seen = 0 if segment.kind == "late" else 1
                return self._saved(
                    connection,
                    segment,
                    time.monotonic(),
                    cursor=str(key),
                    processed=seen,
                    errors=1,
                    last_error=str(error.orig),
                )

        after = self._retried(attempt)
        self._refuse_too_many(in_a_row)
        return after

    def _refuse_too_many(self, in_a_row: int) -> None:
        if in_a_row >= self.settings.errors_in_a_row_max:
            raise TooManyErrorsError(self.run_id, in_a_row, f"errors_in_a_row_max={self.settings.errors_in_a_row_max}")
        table = run_table(self.binding)
        with self._transaction(commit=False) as connection:
            errors = connection.scalar(select(table.c.errors).where(table.c.id == self.run_id)) or 0
        if errors > self.settings.errors_max:
            raise TooManyErrorsError(self.run_id, errors, f"errors_max={self.settings.errors_max}")

    # -- which lines -----------------------------------------------------------------------------------

    def _ledger(self, segment: Segment) -> Ledger:
        assert segment.ledger is not None
        return self.binding.ledger(segment.ledger)

    def _key(self, text: str | None) -> Any:
        """A line's key from its text."""
        if text is None:
            return None
        kind = attribute(self.binding.line, "id").type.python_type
        return kind(text) if kind in {int, UUID} else text

    def _between_keys(self, segment: Segment, end: Any) -> tuple[Restriction, tuple[Any, ...]]:
        """The restriction to the lines after the cursor and up to ``end``, and what tells its shape."""
        ledger = self._ledger(segment)
        late, begins, ends = segment.kind == "late", segment.cursor is None, end is None

        def where(lines: Lines) -> list[ColumnElement[bool]]:
            key = attribute(lines.line, "id")
            bounds = list(self.scope.restrict(lines))
            if not begins:
                bounds.append(key > bindparam("cursor", type_=key.type))
            if not ends:
                bounds.append(key <= bindparam("upper", type_=key.type))
            return [*bounds, *(self._rowless(ledger, lines) if late else ())]

        return where, (segment.kind, begins, ends)

    def _values(self, segment: Segment, end: Any) -> dict[str, Any]:
        values = self.scope.parameters(segment.tenant_id)
        if segment.cursor is not None:
            values["cursor"] = self._key(segment.cursor)
        if end is not None:
            values["upper"] = end
        if segment.kind == "late":
            values["late_run"] = self.run_id
        return values

    def _rowless(self, ledger: Ledger, lines: Lines) -> list[ColumnElement[bool]]:
        """Lines without a row, but for those that this run has found to be bad."""
        item, error = aliased(ledger.item), aliased(self.binding.error)
        key = attribute(lines.line, "id")
        row = select(attribute(item, "id")).where(attribute(item, "general_ledger_line_id") == key)
        bad = select(attribute(error, "general_ledger_line_id")).where(
            attribute(error, "run_id") == bindparam("late_run", type_=attribute(error, "run_id").type),
            attribute(error, "general_ledger_line_id") == key,
            attribute(error, "ledger") == ledger.name,
        )
        return [~row.exists(), ~bad.exists()]

    def _of_range(self, segment: Segment, end: Any) -> tuple[Select[Any], tuple[Any, ...]]:
        """The keys of the lines after the cursor and up to ``end``, in order."""
        line, entry = aliased(self.binding.line), aliased(self.binding.entry)
        where, shape = self._between_keys(segment, end)
        key = attribute(line, "id")
        query = (
            select(key)
            .join(entry, attribute(entry, "id") == attribute(line, "general_ledger_id"))
            .where(on_accounts(attribute(line, "account_number"), self.settings.of_ledger(segment.ledger or "")))
            .where(*where(Lines(line, entry)))
            .order_by(key)
        )
        return query, shape

    def _upper(self, segment: Segment, size: int) -> Any:
        """The last key of the next batch; None when the rest of the segment is no larger than that."""
        if segment.kind == "lines" and segment.total - segment.processed <= size:
            return None
        end = self._key(segment.until)
        query, _ = self._of_range(segment, end)
        with self._transaction(commit=False) as connection:
            plan_for_range(connection)
            return connection.scalar(query.offset(size - 1).limit(1), self._values(segment, end))

    def _keys(self, segment: Segment, upper: Any) -> list[Any]:
        end = upper if upper is not None else self._key(segment.until)
        query, _ = self._of_range(segment, end)
        with self._transaction(commit=False) as connection:
            plan_for_range(connection)
            return list(connection.scalars(query, self._values(segment, end)))

    # -- documents -------------------------------------------------------------------------------------

    def _documents(self, segment: Segment) -> Segment:
        """Post some of the documents that no posted entry mentions, each in a transaction of its own."""
        ledger = self._ledger(segment)
        document = ledger.document(segment.document or "")
        assert document is not None
        ids = self._retried(self._next_documents, segment, ledger, document)
        for document_id in ids:
            began = time.monotonic()
            try:
                segment = self._retried(self._post, segment, ledger, document, document_id)
            except (FencedError, StoppedError):
                raise
            except Exception as error:
                if isinstance(error, DBAPIError) and fault_of(error) != "data":
                    raise
                segment = self._unpostable(segment, ledger, document, document_id, error)
            self._between(segment, time.monotonic() - began)
        if len(ids) == DOCUMENTS_AT_ONCE:
            return segment
        with self._transaction() as connection:
            return self._saved(connection, segment, time.monotonic(), done=True)

    def _next_documents(self, segment: Segment, ledger: Ledger, document: Document) -> list[Any]:
        model = document.model
        key = attribute(model, "id")
        query = (
            select(key)
            .where(attribute(model, "tenant_id") == segment.tenant_id)
            .where(*unposted(self.binding, self.settings, ledger, document, model), *dated(self.scope, document))
            .order_by(key)
            .limit(DOCUMENTS_AT_ONCE)
        )
        if segment.cursor is not None:
            kind = key.type.python_type
            query = query.where(key > (kind(segment.cursor) if kind in {int, UUID} else segment.cursor))
        with self._transaction(commit=False) as connection:
            return list(connection.scalars(query))

    def _post(self, segment: Segment, ledger: Ledger, document: Document, document_id: Any) -> Segment:
        """Have the host post one document, and make sure that the entry names it, so that nobody posts it again."""
        began = time.monotonic()
        model = document.model
        with self.batches.transaction() as session:
            connection = self.batches.connection(session, self.binding.run)
            segments.check_in(connection, self.binding, self.run_id)
            found = session.get(model, document_id, with_for_update=True)
            is_posted = select(mentioned(self.binding, self.settings, ledger, document, model)).where(
                attribute(model, "id") == document_id
            )
            books = self.batches.connection(session, model)
            if found is None or books.scalar(is_posted):
                return self._saved(connection, segment, began, cursor=str(document_id), processed=1)
            assert self.options.poster is not None
            entry = self.options.poster(session, found)
            if entry is None:
                left = {f"{document.name} left by the poster": 1}
                return self._saved(connection, segment, began, cursor=str(document_id), processed=1, found=left)
            session.add(entry)
            session.flush()
            if not books.scalar(is_posted):
                voucher = str(getattr(entry, "voucher_number", inspect(entry).identity))
                raise EntryError(
                    voucher,
                    f"from the poster is not posted, or does not name {document.name} {document_id} as its source",
                    "Post it, and set source_type and source_id, or a link on the control line.",
                )
            return self._saved(connection, segment, began, cursor=str(document_id), processed=1, synced=1)

    def _unpostable(
        self, segment: Segment, ledger: Ledger, document: Document, document_id: Any, error: Exception
    ) -> Segment:
        def attempt() -> Segment:
            with self._transaction() as connection:
                segments.check_in(connection, self.binding, self.run_id)
                named = {"tenant_id": segment.tenant_id, "run_id": self.run_id}
                self.writer.failures.record_document(connection, ledger, document.name, document_id, error, **named)
                return self._saved(
                    connection,
                    segment,
                    time.monotonic(),
                    cursor=str(document_id),
                    processed=1,
                    errors=1,
                    last_error=f"{type(error).__name__}: {error}",
                )

        after = self._retried(attempt)
        self._refuse_too_many(0)
        return after

    # -- settling and verifying ------------------------------------------------------------------------

    def _settle(self, segment: Segment) -> Segment:
        """Settle a ledger. Rows that were there are first brought up to date with documents that have come since."""

        def attempt() -> Segment:
            began = time.monotonic()
            ledger = self._ledger(segment)
            with self._transaction() as connection:
                segments.check_in(connection, self.binding, self.run_id)
                found: dict[str, int] = {}
                if self._had_rows(connection, segment):
                    renewed = self.writer.renew(connection, ledger, segment.tenant_id)
                    found = {"brought up to date": renewed} if renewed else {}
                applied = self.writer.settler.settle_all(connection, ledger, segment.tenant_id)
                return self._saved(connection, segment, began, applied=applied, found=found, done=True)

        return self._retried(attempt)

    def _had_rows(self, connection: Connection, segment: Segment) -> bool:
        """Whether the run met rows of the segment's tenant and ledger that were there before."""
        parts = segments.all_of(connection, self.binding, self.run_id)
        same = (segment.tenant_id, segment.ledger)
        return any(part.existing for part in parts if (part.tenant_id, part.ledger) == same)

    def _verify(self, segment: Segment) -> Segment:
        """Prove a tenant's books. Where rows are missing, have them written first, once: they came in late."""
        segment = self._retried(self._settle_late, segment)
        began = time.monotonic()
        result = self._retried(self._proof, segment.tenant_id)
        faults = added_up([{cause.name: cause.count} for account in result.accounts for cause in account.faults])
        faults |= added_up([{finding.name: finding.count} for finding in result.findings if finding.fault])
        missing = {account.ledger for account in result.accounts if any(c.name == "missing" for c in account.faults)}
        missing &= set(self.scope.ledgers)

        def attempt() -> Segment:
            with self._transaction() as connection:
                segments.check_in(connection, self.binding, self.run_id)
                if missing and not self._late_parts(connection, segment):
                    late = [self._late(segment, name) for name in self.scope.ledgers if name in missing]
                    segments.put_off(connection, self.binding, segment, late)
                    return replace(segment, state="waiting")
                for name in self.scope.ledgers:
                    self.writer.failures.resolve(connection, self.binding.ledger(name), segment.tenant_id)
                return self._saved(connection, segment, began, found=faults, done=True)

        after = self._retried(attempt)
        if after.state == "done" and not result.clean:
            self.proofs.append(result)
        return after

    def _proof(self, tenant_id: Any) -> Proof:
        with self.factory() as session:
            result = proof.verify(session, self.binding, self.settings, tenant_id, with_findings="faults")
            session.rollback()
        return result

    def _settle_late(self, segment: Segment) -> Segment:
        """Settle the ledgers in which rows came in late."""
        began = time.monotonic()
        with self._transaction() as connection:
            segments.check_in(connection, self.binding, self.run_id)
            late = [part for part in self._late_parts(connection, segment) if part.synced]
            if not late:
                return segment
            applied = sum(
                self.writer.settler.settle_all(connection, self._ledger(part), segment.tenant_id) for part in late
            )
            return self._saved(connection, segment, began, applied=applied)

    def _late_parts(self, connection: Connection, segment: Segment) -> list[Segment]:
        parts = segments.all_of(connection, self.binding, self.run_id)
        return [part for part in parts if part.kind == "late" and part.tenant_id == segment.tenant_id]

    def _late(self, segment: Segment, ledger: str) -> Segment:
        size = min(self.settings.batch_lines_start, self.settings.batch_lines_max)
        return replace(segment, id=None, kind="late", ledger=ledger, batch_lines=size)
