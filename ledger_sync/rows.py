"""The statement that writes open items: an INSERT … SELECT of what the projection says, restricted to some lines.

The writer runs it for what a flush touched, the filler for a part of history. Statements are built once per shape and
then reused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, String, Table, bindparam, case, inspect, literal, select
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from ledger_sync.attributes import stored
from ledger_sync.binding import Binding, Ledger
from ledger_sync.control_lines import Restriction, source_types
from ledger_sync.dialects import Upsert, bucket_keys, mark_for_snapshots, present_moment, refuse_old_snapshot
from ledger_sync.projection import ITEM_COLUMNS, project
from ledger_sync.settings import Settings
from ledger_sync.settler import RETURNED


class Rows:
    """The rows of one binding under one set of settings, as statements."""

    def __init__(self, binding: Binding, settings: Settings) -> None:
        self.binding = binding
        self.settings = settings

    def once(self, shape: tuple[Any, ...], build: Callable[..., Any]) -> Any:
        """What ``build`` makes of a shape's parts but the first, which says what it is; built once."""
        return self.binding.once(self.settings, shape, lambda: build(*shape[1:]))

    def eligible(self, ledger: Ledger, where: Restriction) -> Select[Any]:
        """The rows that the lines which ``where`` admits must have."""
        return self.of_projected(project(self.binding, self.settings, ledger, where).subquery("projected").c)

    @staticmethod
    def of_projected(c: ReadOnlyColumnCollection[str, Any]) -> Select[Any]:
        """The rows that projected lines must have; a new one is unsettled."""
        return select(*(c[name] for name in ITEM_COLUMNS), c.amount.label("remaining_amount")).where(c.reason.is_(None))

    def upsert(
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

    def payments(self, ledger: Ledger) -> set[str]:
        """The source types that mean a payment."""
        return set() if ledger.payer is None else set(source_types(self.settings, ledger, ledger.payer))

    def refuse_old_snapshot(self, connection: Connection, ledger: Ledger) -> None:
        """Have a transaction fail that cannot see the rows which a batch has committed."""
        refuse_old_snapshot(connection, self._lock_table(), self._snapshot_key(ledger))

    def mark_for_snapshots(self, connection: Connection, ledger: Ledger) -> None:
        """Have hosts with an older snapshot notice that a batch has written rows."""
        mark_for_snapshots(connection, self._lock_table(), self._snapshot_key(ledger))

    def _lock_table(self) -> Table:
        table = inspect(self.binding.lock).local_table
        assert isinstance(table, Table)
        return table

    @staticmethod
    def _snapshot_key(ledger: Ledger) -> int:
        """The lock row by which batches tell older snapshots that they have written to a ledger."""
        return bucket_keys(f"snapshots/{ledger.table.fullname}", ["batches"])[0]
