"""Rows from before: open items that a host wrote itself, which name their voucher but not their line, get their line.

A row fits a line of its entry when the line must have an open item of the same party and the same amount. Where
exactly one row fits exactly one line, the row takes it and from then on is kept like any other; the rest is listed, for
a person to choose. Nothing is written twice meanwhile, since a line waits for the rows of its entry (``not_adopted``),
and no row is ever taken away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, func, inspect, select, update
from sqlalchemy.orm import Session

from ledger_sync.binding import Binding, Ledger, aliased, attribute
from ledger_sync.control_lines import Lines, voucher_columns, voucher_text
from ledger_sync.decisions import Decision, LineDecision, record
from ledger_sync.errors import AdoptionError
from ledger_sync.projection import project
from ledger_sync.results import Result
from ledger_sync.settings import Settings
from ledger_sync.touched import Touched
from ledger_sync.writer import Writer

ROWS_AT_ONCE: Final = 1_000


class WaitingRow(Result):
    """A row that was not adopted. ``line_ids``: the lines that it fits; none, or several, or one that others fit too.

    ``voucher`` is null if its entry is gone. Amounts as the row has them.
    """

    ledger: str
    row_id: Any
    general_ledger_id: Any
    voucher: str | None
    party_id: Any
    amount: Decimal
    remaining_amount: Decimal
    line_ids: tuple[Any, ...]


class ChangedRow(Result):
    """An adopted row of which something else is open now than it said. What settles it is worked out from the books."""

    ledger: str
    row_id: Any
    general_ledger_line_id: Any
    said: Decimal
    remaining_amount: Decimal


class Adoption(Result):
    """What became of one tenant's rows from before: how many have their line, which of them changed, which wait."""

    tenant_id: Any
    adopted: int
    changed: tuple[ChangedRow, ...]
    waiting: tuple[WaitingRow, ...]


@dataclass(frozen=True)
class _Books:
    """What waits in one ledger: the tenant's ``rows`` by id, the lines that each one ``fits``, and all ``lines``."""

    ledger: Ledger
    connection: Connection
    rows: Mapping[Any, Any]
    fits: Mapping[Any, Sequence[Any]]
    lines: set[Any]


class Adopter:
    """Adopts the rows of one binding under one set of settings."""

    def __init__(self, binding: Binding, settings: Settings, writer: Writer) -> None:
        self.binding = binding
        self.settings = settings
        self.writer = writer

    def adopt(self, session: Session, tenant_id: Any, chosen: Mapping[Any, Any], decision: Decision | None) -> Adoption:
        """Adopt one tenant's rows, in the caller's transaction. ``chosen``: lines by rows, where a person decided."""
        session.flush()
        books: list[_Books] = []
        for name in self.settings.ledgers():
            ledger = self.binding.ledger(name)
            if ledger.adopts:
                books.append(self._read(session, ledger, tenant_id))
        # rows of two ledgers may bear one id: of these, that one is meant which the line waits for
        decided = [self._decided(one, tenant_id, chosen) for one in books]
        self._refuse_others(books, chosen, {row_id for pairs, done in decided for row_id in (*pairs, *done)})
        adopted = 0
        changed: list[ChangedRow] = []
        waiting: list[WaitingRow] = []
        for one, (by_hand, _) in zip(books, decided, strict=True):
            pairs = by_hand | _unique(_without(one.fits, by_hand))
            if decision is not None:
                record(session, self.binding, _decisions(one, tenant_id, by_hand, decision))
            changed += self._take(one.connection, one.ledger, one.rows, pairs)
            adopted += len(pairs)
            taken = set(pairs.values())
            waiting += [
                self._waiting(one.ledger, row, [line for line in one.fits.get(row_id, ()) if line not in taken])
                for row_id, row in one.rows.items()
                if row_id not in pairs
            ]
        for loaded in [one for one in session.identity_map.values() if isinstance(one, self._items())]:
            session.expire(loaded)
        return Adoption(tenant_id=tenant_id, adopted=adopted, changed=tuple(changed), waiting=tuple(waiting))

    def _items(self) -> tuple[type[Any], ...]:
        return tuple(ledger.item for ledger in self.binding.ledgers)

    # -- what fits what --------------------------------------------------------------------------------

    def _rows(self, ledger: Ledger) -> Select[Any]:
        """The tenant's rows that do not know their line."""
        item, entry = aliased(ledger.item), aliased(self.binding.entry)
        tenant = attribute(item, "tenant_id")
        return (
            select(
                attribute(item, "id").label("row_id"),
                attribute(item, "general_ledger_id").label("general_ledger_id"),
                attribute(item, ledger.party).label("party_id"),
                attribute(item, "amount").label("amount"),
                attribute(item, "remaining_amount").label("remaining_amount"),
                *voucher_columns(entry),
            )
            .outerjoin(entry, attribute(entry, "id") == attribute(item, "general_ledger_id"))
            .where(attribute(item, "general_ledger_line_id").is_(None))
            .where(tenant == bindparam("tenant", type_=tenant.type))
            .order_by(attribute(item, "id"))
        )

    def _fitting(self, connection: Connection, ledger: Ledger, tenant_id: Any) -> tuple[dict[Any, list[Any]], set[Any]]:
        """The lines that each row fits, and all lines that wait for a row."""
        item = aliased(ledger.item)

        def of_rows(lines: Lines) -> list[ColumnElement[bool]]:
            tenant = attribute(lines.entry, "tenant_id")
            waiting = select(attribute(item, "general_ledger_id")).where(
                attribute(item, "general_ledger_line_id").is_(None)
            )
            return [tenant == bindparam("tenant", type_=tenant.type), attribute(lines.entry, "id").in_(waiting)]

        p = project(self.binding, self.settings, ledger, of_rows).subquery("lines").c
        row = aliased(ledger.item)
        fitting = and_(
            attribute(row, "general_ledger_id") == p.general_ledger_id,
            attribute(row, "general_ledger_line_id").is_(None),
            attribute(row, "tenant_id") == p.tenant_id,
            attribute(row, ledger.party) == p.party_id,
            func.abs(attribute(row, "amount")) == func.abs(p.amount),
        )
        query = (
            select(p.general_ledger_line_id.label("line_id"), attribute(row, "id").label("row_id"))
            .outerjoin(row, fitting)
            .where(p.reason == "not_adopted")
            .order_by(p.general_ledger_line_id)
        )
        fits: dict[Any, list[Any]] = {}
        lines: set[Any] = set()
        for found in connection.execute(query, {"tenant": tenant_id}):
            lines.add(found.line_id)
            if found.row_id is not None:
                fits.setdefault(found.row_id, []).append(found.line_id)
        return fits, lines

    def _read(self, session: Session, ledger: Ledger, tenant_id: Any) -> _Books:
        """A ledger's rows and lines that wait for one another, under lock."""
        connection = session.connection(bind_arguments={"mapper": inspect(ledger.item)})
        self.writer.settler.lock_all(connection, ledger, tenant_id)
        rows = {row.row_id: row for row in connection.execute(self._rows(ledger), {"tenant": tenant_id})}
        fits, lines = self._fitting(connection, ledger, tenant_id)
        return _Books(ledger, connection, rows, fits, lines)

    def _decided(
        self, books: _Books, tenant_id: Any, chosen: Mapping[Any, Any]
    ) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """Of what a person decided, that which concerns a ledger: what is to be done, and what is done already."""
        times = Counter(chosen.values())
        todo = {
            row_id: line_id
            for row_id, line_id in chosen.items()
            if row_id in books.rows and line_id in books.lines and times[line_id] == 1
        }
        item = books.ledger.item
        done = select(attribute(item, "id"), attribute(item, "general_ledger_line_id")).where(
            attribute(item, "id").in_([row_id for row_id in chosen if row_id not in books.rows]),
            attribute(item, "tenant_id") == tenant_id,
        )
        adopted = ((row_id, line_id) for row_id, line_id in books.connection.execute(done))
        return todo, {row_id: line_id for row_id, line_id in adopted if chosen.get(row_id) == line_id}

    @staticmethod
    def _refuse_others(books: Sequence[_Books], chosen: Mapping[Any, Any], decided: set[Any]) -> None:
        for row_id, line_id in chosen.items():
            if row_id in decided:
                continue
            for one in books:
                if row_id in one.rows:
                    raise AdoptionError(
                        row_id,
                        line_id,
                        f"of the {one.ledger.name} ledger cannot take that line, which waits for no row, or for "
                        "another",
                        "Choose a control line of the same tenant that has no open item.",
                    )
            raise AdoptionError(row_id, line_id, "is not waiting for a line", "Choose among the rows that adopt lists.")

    @staticmethod
    def _waiting(ledger: Ledger, row: Any, line_ids: Sequence[Any]) -> WaitingRow:
        values = {name: getattr(row, name) for name in WaitingRow.model_fields if hasattr(row, name)}
        voucher = None if row.voucher_number is None else voucher_text(row)
        return WaitingRow(ledger=ledger.name, voucher=voucher, line_ids=tuple(line_ids), **values)

    # -- taking ----------------------------------------------------------------------------------------

    def _take(
        self, connection: Connection, ledger: Ledger, rows: Mapping[Any, Any], pairs: Mapping[Any, Any]
    ) -> list[ChangedRow]:
        """Give rows their lines, and have them say what the projection does; those of which another amount is open."""
        key, line = ledger.column("id"), ledger.column("general_ledger_line_id")
        taking = (
            update(ledger.table)
            .where(key == bindparam("taking_row", type_=key.type), line.is_(None))
            .values({line: bindparam("taken_line", type_=line.type)})
        )
        changed: list[ChangedRow] = []
        ids = list(pairs)
        for first in range(0, len(ids), ROWS_AT_ONCE):
            batch = ids[first : first + ROWS_AT_ONCE]
            connection.execute(taking, [{"taking_row": row, "taken_line": pairs[row]} for row in batch])
            self.writer.write(connection, ledger, Touched(lines={pairs[row] for row in batch}, rewrite=True))
            now = select(key.label("row_id"), ledger.expression("remaining_amount").label("left")).where(key.in_(batch))
            for row in connection.execute(now):
                said = rows[row.row_id].remaining_amount
                if row.left != said:
                    changed.append(
                        ChangedRow(
                            ledger=ledger.name,
                            row_id=row.row_id,
                            general_ledger_line_id=pairs[row.row_id],
                            said=said,
                            remaining_amount=row.left,
                        )
                    )
        return changed


def _decisions(books: _Books, tenant_id: Any, chosen: Mapping[Any, Any], decision: Decision) -> Iterator[LineDecision]:
    for line_id in chosen.values():
        yield LineDecision(
            ledger=books.ledger.name,
            tenant_id=tenant_id,
            general_ledger_line_id=line_id,
            action="adopt",
            actor=decision.actor,
            reason=decision.reason,
        )


def _without(fits: Mapping[Any, Sequence[Any]], decided: Mapping[Any, Any]) -> dict[Any, list[Any]]:
    """What fits of the rows and lines on which nobody decided."""
    taken = set(decided.values())
    return {row: [line for line in lines if line not in taken] for row, lines in fits.items() if row not in decided}


def _unique(fits: Mapping[Any, Sequence[Any]]) -> dict[Any, Any]:
    """The pairs that are the only ones from both ends."""
    wanted: dict[Any, int] = {}
    for lines in fits.values():
        for line in lines:
            wanted[line] = wanted.get(line, 0) + 1
    return {row: lines[0] for row, lines in fits.items() if len(lines) == 1 and wanted[lines[0]] == 1}
