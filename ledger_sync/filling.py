"""Writes what lacks in a part of history, as the projection says, in the caller's transaction.

``Filler.fill`` writes the rows that are missing and counts every control line by its reason; ``Filler.renew`` brings
the rows of payments up to date, since what they refer to may have come past the hook. Rows that exist are else left
alone: posted entries do not change, and where they can, whoever changes one has its row follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, String, and_, bindparam, case, func, select, type_coerce

from ledger_sync.binding import Ledger, aliased, attribute
from ledger_sync.control_lines import Lines, Restriction, on_accounts
from ledger_sync.dialects import counts_beside_insert, held, step
from ledger_sync.projection import ITEM_COLUMNS, project
from ledger_sync.writer import Writer

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


class Filler:
    """Fills the ledgers that a writer writes."""

    def __init__(self, writer: Writer) -> None:
        self.binding = writer.binding
        self.settings = writer.settings
        self.settler = writer.settler
        self.rows = writer.rows

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
            c = (judged.cte(step("judged")) if counts_beside_insert(connection) else judged.subquery()).c
            upsert = self.rows.upsert(dialect, ledger, self.rows.of_projected(c), rewrite=False, of_run=True)
            if not counts_beside_insert(connection):
                return upsert
            written = select(func.count()).select_from(upsert.statement.cte(step("written"))).scalar_subquery()
            return select(c.reason, func.count().label("lines"), written.label("written")).group_by(c.reason)

        statement = self.rows.once(("fill", *shape), build)
        if counts_beside_insert(connection):
            rows = list(connection.execute(statement, values))
            self._mark(connection, ledger)
            return Filled(rows[0].written if rows else 0, {row.reason: row.lines for row in rows})
        # a database without writing statements inside a SELECT is asked for the counts once more
        written = statement.count(connection, values)
        counted = self.rows.once(("count", *shape), lambda *_: self._reasons(ledger, where, selects))
        lines = {row.reason: row.lines for row in connection.execute(counted, parameters)}
        self._mark(connection, ledger)
        return Filled(written, lines)

    def renew(self, connection: Connection, ledger: Ledger, tenant_id: Any) -> int:
        """Bring a tenant's rows of payments into line with the projection; how many differed.

        What a payment refers to is found among the documents, so one that came past the hook changes it. The tenant's
        buckets are held from then on. Its rows go on if the line lost them meanwhile: that is a repair's business.
        """
        self.settler.lock_all(connection, ledger, tenant_id)
        shape = (connection.dialect.name, ledger.name)
        payments = self.rows.payments(ledger)
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
            return self.rows.upsert(dialect, ledger, self.rows.eligible(ledger, of_payments), rewrite=True)

        parameters = {"renew_tenant": tenant_id}
        self._hold(connection, ledger, of_payments, parameters, ("renew", *shape))
        renewed = self.rows.once(("renew", *shape), build).run(connection, parameters)
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
            lock = self.rows.once(("hold", dialect, *shape), lambda *_: self._entries_held(dialect, ledger, where))
            connection.execute(lock, parameters)

    def _mark(self, connection: Connection, ledger: Ledger) -> None:
        """Where posted entries can be edited, have hosts with an older snapshot notice that rows were written.

        At the end of a batch, since whoever marks holds off those who mark.
        """
        if self.binding.editable:
            self.rows.mark_for_snapshots(connection, ledger)

    def _judged(self, ledger: Ledger, where: Restriction, selects: Selection) -> Select[Any]:
        """The projection, with ``not_selected`` for a line that is eligible but of a source that is not wanted."""
        c = project(self.binding, self.settings, ledger, where).subquery("projected").c
        selected = selects(c.source_type)
        reason: ColumnElement[Any] = c.reason
        if selected is not None:
            reason = case((and_(c.reason.is_(None), ~selected), NOT_SELECTED), else_=c.reason)
        return select(*(c[name] for name in ITEM_COLUMNS), type_coerce(reason, String()).label("reason"))

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
