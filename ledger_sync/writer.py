"""Writes open items, in the caller's transaction, as the projection says.

``Writer.write`` takes what a flush touched, restricts the projection to it and writes what comes out: one INSERT …
SELECT, and a DELETE only where rows may have to go. Then it has the ``Settler`` settle what can be settled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from ledger_sync.binding import Binding, Ledger, aliased, attribute
from ledger_sync.control_lines import OfKeys, Restriction
from ledger_sync.dialects import Removal, Upsert, among, held
from ledger_sync.failures import Failures
from ledger_sync.projection import project
from ledger_sync.rows import Rows
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


class Writer:
    """Writes the open items of one binding under one set of settings."""

    def __init__(self, binding: Binding, settings: Settings) -> None:
        self.binding = binding
        self.settings = settings
        self.rows = Rows(binding, settings)
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
            statement = self.rows.once(("naming", ledger.name, documents), self._naming)
            touched.lines.update(connection.scalars(statement, touched.document_parameters(ledger)))

    def write(self, connection: Connection, ledger: Ledger, touched: Touched) -> Written:
        """Bring the rows of all touched lines into line with the projection, and settle what can be settled."""
        parts, parameters = touched.parts(), touched.parameters()
        if self.binding.editable:
            shape = ("hold_touched", connection.dialect.name, parts)
            connection.execute(self.rows.once(shape, self._touched_held), parameters)
            self.rows.refuse_old_snapshot(connection, ledger)
        known: dict[Any, tuple[Any, Any]] = {}
        if touched.rewrite:
            there = connection.execute(self.rows.once(("known", ledger.name, parts), self._known), parameters)
            known = {line: (tenant, party) for line, tenant, party in there}
        rows = self._put(connection, ledger, touched)
        removed: list[dict[str, Any]] = []
        if touched.remove:
            removal = self.rows.once(("delete", connection.dialect.name, ledger.name, parts), self._delete)
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
        upsert = self.rows.once(shape, self._insert)
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
            names = self.rows.payments(ledger)
            referring = {row["general_ledger_line_id"] for row in rows if row["source_type"] in names}
            if referring:
                self._put(connection, ledger, Touched(lines=referring, rewrite=True))
        lines = {row["general_ledger_line_id"] for row in rows}
        gone = {row["general_ledger_line_id"] for row in removed}
        latest = max(row["entry_date"] for row in (*rows, *removed))
        return self.settler.settle(connection, ledger, lines, gone, caused_on=latest, recount=rewritten)

    def classify(self, connection: Connection, ledger: Ledger, touched: Touched) -> list[Row[Any]]:
        """The projection of all touched lines, for messages and for ``manual="block"``."""
        statement = self.rows.once(("classify", ledger.name, touched.parts()), self._classify)
        return list(connection.execute(statement, touched.parameters()))

    # -- statements ------------------------------------------------------------------------------------

    def _touching(self, parts: tuple[str, ...]) -> Restriction:
        return OfKeys(lines_of(self.binding, parts))

    def _insert(self, dialect: str, name: str, parts: tuple[str, ...], rewrite: bool) -> Upsert:
        ledger = self.binding.ledger(name)
        eligible = self.rows.eligible(ledger, self._touching(parts))
        # whoever writes a row of the same line waits for us: all of them take the lines in one order
        in_order = eligible.order_by(eligible.selected_columns.general_ledger_line_id)
        return self.rows.upsert(dialect, ledger, in_order, rewrite=rewrite)

    def _delete(self, dialect: str, name: str, parts: tuple[str, ...]) -> Removal:
        ledger = self.binding.ledger(name)
        line_id = ledger.column("general_ledger_line_id")
        eligible = self.rows.eligible(ledger, self._touching(parts)).subquery("eligible")
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
