"""Writes open items, in the caller's transaction, as the projection says.

``Writer.write`` takes what a flush touched, restricts the projection to it and writes what comes out: one INSERT …
SELECT, and a DELETE only where rows may have to go. Then it has the ``Settler`` settle what can be settled.
``Writer.fill`` writes what lacks in a part of history. Statements are built once per shape and then reused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    String,
    Table,
    and_,
    bindparam,
    case,
    func,
    inspect,
    literal,
    select,
    type_coerce,
)

from ledger_sync.attributes import stored
from ledger_sync.binding import Binding, Ledger, aliased, attribute
from ledger_sync.control_lines import Lines, OfKeys, Restriction, on_accounts, source_types
from ledger_sync.dialects import (
    Removal,
    Upsert,
    among,
    bucket_keys,
    counts_beside_insert,
    held,
    mark_for_snapshots,
    present_moment,
    refuse_old_snapshot,
    step,
)
from ledger_sync.failures import Failures
from ledger_sync.projection import ITEM_COLUMNS, project
from ledger_sync.settings import Settings
from ledger_sync.settler import RETURNED, Settler
from ledger_sync.touched import Touched, lines_naming, lines_of


@dataclass(frozen=True)
class Written:
    """What ``write`` did in one ledger: rows created, rewritten, removed and settled, as plain mappings."""

    created: tuple[Mapping[str, Any], ...] = ()
    changed: tuple[Mapping[str, Any], ...] = ()
    removed: tuple[Mapping[str, Any], ...] = ()
    settled: tuple[Mapping[str, Any], ...] = ()


Selection = Callable[[ColumnElement[Any]], ColumnElement[bool] | None]
"""Whether a projected line's source type is wanted; None when every one is."""

NOT_SELECTED: Final = "not_selected"
"""In the counts of ``fill``: a line that must have a row, of a source that was not asked for."""


def all_sources(source_type: ColumnElement[Any]) -> None:
    """The selection of every source."""


@dataclass(frozen=True)
class Filled:
    """What ``fill`` did: rows written, and control lines by reason; those under None must have a row."""

    written: int
    lines: Mapping[str | None, int]

    @property
    def seen(self) -> int:
        """Control lines seen."""
        return sum(self.lines.values())

    @property
    def skipped(self) -> dict[str, int]:
        """Lines without an open item, by reason."""
        return {reason: count for reason, count in self.lines.items() if reason is not None}


@dataclass(frozen=True)
class _Judged:
    rows: Select[Any]
    reason: ColumnElement[Any]


class Writer:
    """Writes the open items of one binding under one set of settings."""

    def __init__(self, binding: Binding, settings: Settings) -> None:
        self.binding = binding
        self.settings = settings
        self.settler = Settler(binding, settings)
        self.failures = Failures(binding, settings)

    def find(self, connection: Connection, ledger: Ledger, touched: Touched) -> bool:
        """Add the lines that name touched documents to ``touched``; whether any line is concerned at all."""
        if touched.documented(ledger):
            self.settler.lock(connection, ledger, touched.parties)
            self.add_naming(connection, ledger, touched)
        return bool(touched.parts())

    def add_naming(self, connection: Connection, ledger: Ledger, touched: Touched) -> None:
        """Add the lines that name touched documents to ``touched``."""
        if documents := touched.documented(ledger):
            statement = self._once(("naming", ledger.name, documents), self._naming)
            touched.lines.update(connection.scalars(statement, touched.document_parameters(ledger)))

    def write(self, connection: Connection, ledger: Ledger, touched: Touched) -> Written:
        """Bring the rows of all touched lines into line with the projection, and settle what can be settled."""
        parts, parameters = touched.parts(), touched.parameters()
        if self.binding.editable:
            shape = ("hold_touched", connection.dialect.name, parts)
            connection.execute(self._once(shape, self._touched_held), parameters)
            refuse_old_snapshot(connection, self._lock_table(), self._snapshot_key(ledger))
        known: dict[Any, tuple[Any, Any]] = {}
        if touched.rewrite:
            there = connection.execute(self._once(("known", ledger.name, parts), self._known), parameters)
            known = {line: (tenant, party) for line, tenant, party in there}
        rows = self._put(connection, ledger, touched)
        removed: list[dict[str, Any]] = []
        if touched.remove:
            removal = self._once(("delete", connection.dialect.name, ledger.name, parts), self._delete)
            removed = [{"ledger": ledger.name, **row} for row in removal.run(connection, parameters)]
        settled: tuple[Mapping[str, Any], ...] = ()
        if rows or removed:
            left = {known[row["general_ledger_line_id"]] for row in rows if row["general_ledger_line_id"] in known}
            settled = self._settle_written(connection, ledger, rows, removed, left, rewritten=touched.rewrite)
        return Written(
            created=tuple(row for row in rows if row["general_ledger_line_id"] not in known),
            changed=tuple(row for row in rows if row["general_ledger_line_id"] in known),
            removed=tuple(removed),
            settled=settled,
        )

    def _put(self, connection: Connection, ledger: Ledger, touched: Touched) -> list[dict[str, Any]]:
        shape = ("insert", connection.dialect.name, ledger.name, touched.parts(), touched.rewrite)
        upsert = self._once(shape, self._insert)
        return [{"ledger": ledger.name, **row} for row in upsert.run(connection, touched.parameters())]

    def _settle_written(
        self,
        connection: Connection,
        ledger: Ledger,
        rows: list[dict[str, Any]],
        removed: list[dict[str, Any]],
        left: set[tuple[Any, Any]],
        *,
        rewritten: bool,
    ) -> tuple[Mapping[str, Any], ...]:
        """Settle what was written. ``left``: the parties that rewritten rows had before, whose items change as well."""
        parties = left | {(row["tenant_id"], row["party_id"]) for row in (*rows, *removed)}
        if self.settler.lock(connection, ledger, parties):
            # an invoice may have been committed while we waited: what refers to one is looked at once more
            names = self._payments(ledger)
            referring = {row["general_ledger_line_id"] for row in rows if row["source_type"] in names}
            if referring:
                self._put(connection, ledger, Touched(lines=referring, rewrite=True))
        lines = {row["general_ledger_line_id"] for row in rows}
        gone = {row["general_ledger_line_id"] for row in removed}
        latest = max(row["entry_date"] for row in (*rows, *removed))
        return self.settler.settle(connection, ledger, lines, gone, caused_on=latest, recount=rewritten)

    def classify(self, connection: Connection, ledger: Ledger, touched: Touched) -> list[Row[Any]]:
        """The projection of all touched lines, for messages and for ``manual="block"``."""
        statement = self._once(("classify", ledger.name, touched.parts()), self._classify)
        return list(connection.execute(statement, touched.parameters()))

    def fill(
        self,
        connection: Connection,
        ledger: Ledger,
        where: Restriction,
        parameters: Mapping[str, Any],
        key: object,
        *,
        run_id: Any = None,
        selects: Selection = all_sources,
    ) -> Filled:
        """Write the rows that lack among the lines that ``where`` admits; rows that exist are left alone.

        ``selects``: which sources are wanted; the lines of others are counted as ``not_selected``. ``key`` identifies
        the shape of both, so that the statement is built once. Where posted entries can be edited, theirs are locked
        first, so that nobody changes a line between the reading of it and the commit.
        """
        shape = (connection.dialect.name, ledger.name, key)
        values = {**parameters, "run_id": run_id}
        self._hold(connection, ledger, where, parameters, shape)

        def build(dialect: str, name: str, *_: object) -> Any:
            judged = self._judged(ledger, where, selects)
            eligible = self._of_judged(
                judged.cte(step("judged")) if counts_beside_insert(connection) else judged.subquery()
            )
            upsert = self._upsert(dialect, ledger, eligible.rows, rewrite=False, of_run=True)
            if not counts_beside_insert(connection):
                return upsert
            written = select(func.count()).select_from(upsert.statement.cte(step("written"))).scalar_subquery()
            return select(eligible.reason, func.count().label("lines"), written.label("written")).group_by(
                eligible.reason
            )

        statement = self._once(("fill", *shape), build)
        if counts_beside_insert(connection):
            rows = list(connection.execute(statement, values))
            self._mark(connection, ledger)
            return Filled(rows[0].written if rows else 0, {row.reason: row.lines for row in rows})
        # a database without writing statements inside a SELECT is asked for the counts once more
        written = statement.count(connection, values)
        counted = self._once(("count", *shape), lambda *_: self._reasons(ledger, where, selects))
        lines = {row.reason: row.lines for row in connection.execute(counted, parameters)}
        self._mark(connection, ledger)
        return Filled(written, lines)

    def _payments(self, ledger: Ledger) -> set[str]:
        """The source types that mean a payment."""
        return set() if ledger.payer is None else set(source_types(self.settings, ledger, ledger.payer))

    def _lock_table(self) -> Table:
        table = inspect(self.binding.lock).local_table
        assert isinstance(table, Table)
        return table

    @staticmethod
    def _snapshot_key(ledger: Ledger) -> int:
        """The lock row by which batches tell older snapshots that they have written to a ledger."""
        return bucket_keys(f"snapshots/{ledger.table.fullname}", ["batches"])[0]

    def renew(self, connection: Connection, ledger: Ledger, tenant_id: Any) -> int:
        """Bring a tenant's rows of payments into line with the projection; how many differed.

        What a payment refers to is found among the documents, so one that came past the hook changes it. The tenant's
        buckets are held from then on. Its rows go on if the line lost them meanwhile: that is a repair's business.
        """
        self.settler.lock_all(connection, ledger, tenant_id)
        shape = (connection.dialect.name, ledger.name)
        payments = self._payments(ledger)
        if not payments:
            return 0

        def of_payments(lines: Lines) -> list[ColumnElement[bool]]:
            item, tenant = aliased(ledger.item), attribute(lines.entry, "tenant_id")
            held_by = select(attribute(item, "id")).where(
                attribute(item, "general_ledger_line_id") == attribute(lines.line, "id"),
                attribute(item, "source_type").in_(payments),
            )
            return [tenant == bindparam("renew_tenant", type_=tenant.type), held_by.exists()]

        def build(dialect: str, name: str) -> Any:
            return self._upsert(dialect, ledger, self._eligible(ledger, of_payments), rewrite=True)

        parameters = {"renew_tenant": tenant_id}
        self._hold(connection, ledger, of_payments, parameters, ("renew", *shape))
        renewed = self._once(("renew", *shape), build).run(connection, parameters)
        self._mark(connection, ledger)
        return len(renewed)

    def _hold(
        self,
        connection: Connection,
        ledger: Ledger,
        where: Restriction,
        parameters: Mapping[str, Any],
        shape: tuple[object, ...],
    ) -> None:
        """Where posted entries can be edited, lock those of the lines that ``where`` admits."""
        if self.binding.editable:
            dialect = connection.dialect.name
            lock = self._once(("hold", dialect, *shape), lambda *_: self._entries_held(dialect, ledger, where))
            connection.execute(lock, parameters)

    def _mark(self, connection: Connection, ledger: Ledger) -> None:
        """Where posted entries can be edited, have hosts with an older snapshot notice that rows were written.

        At the end of a batch, since whoever marks holds off those who mark.
        """
        if self.binding.editable:
            mark_for_snapshots(connection, self._lock_table(), self._snapshot_key(ledger))

    def _judged(self, ledger: Ledger, where: Restriction, selects: Selection) -> Select[Any]:
        """The projection, with ``not_selected`` for a line that is eligible but of a source that is not wanted."""
        c = project(self.binding, self.settings, ledger, where).subquery("projected").c
        selected = selects(c.source_type)
        reason: ColumnElement[Any] = c.reason
        if selected is not None:
            reason = case((and_(c.reason.is_(None), ~selected), NOT_SELECTED), else_=c.reason)
        return select(*(c[name] for name in ITEM_COLUMNS), type_coerce(reason, String()).label("reason"))

    @staticmethod
    def _of_judged(judged: Any) -> _Judged:
        c = judged.c
        rows = select(*(c[name] for name in ITEM_COLUMNS), c.amount.label("remaining_amount"))
        return _Judged(rows.where(c.reason.is_(None)), c.reason)

    def _reasons(self, ledger: Ledger, where: Restriction, selects: Selection) -> Select[Any]:
        reason = self._judged(ledger, where, selects).subquery("judged").c.reason
        return select(reason, func.count().label("lines")).group_by(reason)

    def _entries_held(self, dialect: str, ledger: Ledger, where: Restriction) -> Select[Any]:
        line, entry = aliased(self.binding.line), aliased(self.binding.entry)
        concerned = (
            select(attribute(entry, "id"))
            .join(line, attribute(line, "general_ledger_id") == attribute(entry, "id"))
            .where(on_accounts(attribute(line, "account_number"), self.settings.of_ledger(ledger.name)))
            .where(*where(Lines(line, entry)))
        )
        return held(dialect, self.binding.entry, concerned)

    # -- statements ------------------------------------------------------------------------------------

    def _once(self, shape: tuple[Any, ...], build: Callable[..., Any]) -> Any:
        return self.binding.once(self.settings, shape, lambda: build(*shape[1:]))

    def _touching(self, parts: tuple[str, ...]) -> Restriction:
        return OfKeys(lines_of(self.binding, parts))

    def _eligible(self, ledger: Ledger, where: Restriction) -> Select[Any]:
        projected = project(self.binding, self.settings, ledger, where).subquery("projected")
        c = projected.c
        return select(*(c[name] for name in ITEM_COLUMNS), c.amount.label("remaining_amount")).where(c.reason.is_(None))

    def _upsert(
        self, dialect: str, ledger: Ledger, eligible: Select[Any], *, rewrite: bool, of_run: bool = False
    ) -> Upsert:
        """What writes the rows of eligible lines, and tells ``RETURNED`` of them; of a run's rows the line alone."""
        key = ledger.column("general_ledger_line_id").name
        amount, remaining, status = (ledger.column(name) for name in ("amount", "remaining_amount", "status"))
        c = eligible.selected_columns
        values: dict[str, ColumnElement[Any]] = {
            ledger.column(name).name: stored(c[name], ledger.column(name).type, name)
            for name in (*ITEM_COLUMNS, "remaining_amount")
            if ledger.stores(name)
        }
        opened = stored(literal("open", String()), status.type, "status")
        values[status.name] = opened
        if ledger.key_is_line:
            values[ledger.column("id").name] = c.general_ledger_line_id
        if of_run and ledger.stores("run_id"):
            run_id = ledger.column("run_id")
            values[run_id.name] = bindparam("run_id", type_=run_id.type)

        def besides(new: Mapping[str, Any]) -> Mapping[str, Any]:
            # a new amount begins unsettled; what settles it is worked out right afterwards
            other = amount.is_distinct_from(new[amount.name])
            changed: dict[str, Any] = {
                remaining.name: case((other, new[amount.name]), else_=remaining),
                status.name: case((other, opened), else_=status),
            }
            if ledger.stores("updated_at"):
                changed[ledger.column("updated_at").name] = present_moment()
            return changed

        kept = {"general_ledger_line_id"}
        overwrite = [ledger.column(name).name for name in ITEM_COLUMNS if name not in kept and ledger.stores(name)]
        told = ("general_ledger_line_id",) if of_run else RETURNED
        return Upsert(
            dialect,
            ledger.table,
            list(values),
            eligible.with_only_columns(*values.values()),
            key=key,
            overwrite=overwrite if rewrite else (),
            besides=besides,
            returned={column: ledger.expression(column) for column in told},
        )

    def _insert(self, dialect: str, name: str, parts: tuple[str, ...], rewrite: bool) -> Upsert:
        ledger = self.binding.ledger(name)
        eligible = self._eligible(ledger, self._touching(parts))
        # whoever writes a row of the same line waits for us: all of them take the lines in one order
        in_order = eligible.order_by(eligible.selected_columns.general_ledger_line_id)
        return self._upsert(dialect, ledger, in_order, rewrite=rewrite)

    def _delete(self, dialect: str, name: str, parts: tuple[str, ...]) -> Removal:
        ledger = self.binding.ledger(name)
        line_id = ledger.column("general_ledger_line_id")
        eligible = self._eligible(ledger, self._touching(parts)).subquery("eligible")
        ineligible = line_id.not_in(select(eligible.c.general_ledger_line_id))
        return Removal(
            dialect,
            ledger.table,
            [among(line_id, lines_of(self.binding, parts)), ineligible],
            key=line_id,
            returned={column: ledger.expression(column) for column in RETURNED},
        )

    def _naming(self, name: str, documents: tuple[str, ...]) -> Any:
        return lines_naming(self.binding, self.settings, self.binding.ledger(name), documents)

    def _touched_held(self, dialect: str, parts: tuple[str, ...]) -> Select[Any]:
        line = aliased(self.binding.line)
        entries = select(attribute(line, "general_ledger_id")).where(
            attribute(line, "id").in_(lines_of(self.binding, parts))
        )
        return held(dialect, self.binding.entry, entries)

    def _known(self, name: str, parts: tuple[str, ...]) -> Any:
        ledger = self.binding.ledger(name)
        line_id = ledger.column("general_ledger_line_id")
        whose = (ledger.expression("tenant_id"), ledger.expression("party_id"))
        # held, so that nobody moves one to a third party before we do
        return (
            select(line_id, *whose).where(line_id.in_(lines_of(self.binding, parts))).with_for_update(of=ledger.table)
        )

    def _classify(self, name: str, parts: tuple[str, ...]) -> Any:
        ledger = self.binding.ledger(name)
        return project(self.binding, self.settings, ledger, self._touching(parts))
