"""Settles open items, in the caller's transaction, as the settlement SELECT says.

``settle`` takes the items that have changed, finds the groups that they belong to, appends what differs to the
applications, and brings remaining amounts and states up to date. ``settle_all`` does so for a whole tenant. Whoever
settles holds the parties' buckets, so that two transactions never settle one item at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    String,
    Subquery,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    type_coerce,
    union,
    update,
)

from ledger_sync.attributes import has, stored
from ledger_sync.binding import Binding, Ledger, aliased, attribute
from ledger_sync.control_lines import mirrors
from ledger_sync.dialects import (
    Append,
    Rewrite,
    all_bucket_keys,
    among,
    bucket_keys,
    parameter_set,
    plan_plainly,
    present_moment,
    step,
    take_locks,
    text_of,
)
from ledger_sync.models.types import ZERO, Money, utc_now
from ledger_sync.settings import Settings
from ledger_sync.settlement import Present, difference, settled_parts, status_of

RETURNED = (
    "id",
    "tenant_id",
    "general_ledger_id",
    "general_ledger_line_id",
    "account_number",
    "party_id",
    "source_type",
    "source_id",
    "kind",
    "entry_date",
    "amount",
)
"""What is returned of an open item that was written or settled, by the names of the ledger's columns."""

APPENDED: Final = ("tenant_id", "from_line_id", "to_line_id", "method", "amount", "applied_on")
"""The columns of an application that settling decides."""


@dataclass(frozen=True)
class _Counted:
    """What remaining amounts and states there must be, by name, and which rows differ from that."""

    values: Mapping[str, ColumnElement[Any]]
    differing: list[ColumnElement[bool]]


class Settler:
    """Settles the open items of one binding under one set of settings."""

    def __init__(self, binding: Binding, settings: Settings) -> None:
        self.binding = binding
        self.settings = settings

    def lock(self, connection: Connection, ledger: Ledger, parties: Iterable[tuple[Any, Any]]) -> bool:
        """Hold the parties (tenant, party) until the transaction ends, so that nobody settles beside us.

        Returns whether what others committed while we waited can be seen from now on.
        """
        by_tenant: dict[Any, set[Any]] = {}
        for tenant, party in parties:
            by_tenant.setdefault(tenant, set()).add(party)
        scopes = ((f"{tenant}/{ledger.table.fullname}", members) for tenant, members in by_tenant.items())
        keys = sorted(key for scope, members in scopes for key in bucket_keys(scope, members))
        return take_locks(connection, self.binding.lock.__table__, keys)

    def lock_all(self, connection: Connection, ledger: Ledger, tenant_id: Any) -> None:
        """Hold all parties of a tenant until the transaction ends."""
        take_locks(connection, self.binding.lock.__table__, all_bucket_keys(f"{tenant_id}/{ledger.table.fullname}"))

    def settle(
        self,
        connection: Connection,
        ledger: Ledger,
        lines: set[Any],
        gone: set[Any],
        *,
        caused_on: date | None,
        recount: bool = False,
        by_hand: Decimal = ZERO,
    ) -> tuple[Mapping[str, Any], ...]:
        """Settle the groups of some items (by line), and undo what settled items that are gone.

        The caller holds the parties' locks. ``caused_on`` dates an undoing; ``recount`` works out the
        remaining amounts of the lines themselves even if no application changes; ``by_hand`` is what an application
        that somebody just decided puts on each of the lines. Returns a mapping for each item whose remaining amount
        changed.
        """
        concerned = {row.line_id for row in self._concerned(connection, ledger, lines | gone)}
        recounted: set[Any] = set(lines) if recount else set()
        changes = dict.fromkeys(lines, by_hand) if by_hand else {}
        if concerned or gone:
            grouped = self._once(("grouped", ledger.name), self._grouped)
            items = connection.execute(grouped, {"settle_lines": list(concerned)}).all()
            # what was settled by hand with an item that is gone is undone, though the other may be gone as well
            by_hand_there = bool(gone) or any(item.is_by_hand for item in items)
            present = Present(any(item.is_reversal for item in items), by_hand_there)
            parameters = {
                "settle_lines": list({item.line_id for item in items} | gone),
                "caused_on": caused_on,
            }
            append = self._once(("apply", connection.dialect.name, ledger.name, present), self._apply)
            for row in append.run(connection, parameters):
                for line in (row["from_line_id"], row["to_line_id"]):
                    changes[line] = changes.get(line, ZERO) + row["amount"]
        return tuple(
            {"ledger": ledger.name, "settled_amount": changes.get(row["general_ledger_line_id"], ZERO), **row}
            for row in self.recount(connection, ledger, recounted | changes.keys())
        )

    def recount(self, connection: Connection, ledger: Ledger, lines: set[Any]) -> list[dict[str, Any]]:
        """Bring remaining amounts and states of some lines' items into line with their applications.

        Returns the items that changed.
        """
        if not lines:
            return []
        rewrite: Rewrite = self._once(("recount", connection.dialect.name, ledger.name), self._recount)
        return rewrite.run(connection, {"recount_lines": list(lines)})

    def _concerned(self, connection: Connection, ledger: Ledger, lines: set[Any]) -> list[Row[Any]]:
        """The items whose groups may settle anew when some lines have changed.

        What is settled by hand ties groups together, so the groups of what the probe finds are looked at in
        their turn, until there is none that has not been. (Not those of another party: what was settled by hand
        before an item moved there never holds.)
        """
        probe = self._once(("probe", ledger.name), self._probe)
        found: dict[Any, Row[Any]] = {}
        seen: set[Any] = set()
        parties: set[Any] = set()
        ahead = lines
        while ahead:
            rows = list(connection.execute(probe, {"settle_lines": list(ahead)}))
            parties = parties or {(row.tenant_id, row.party_id) for row in rows}
            found |= {row.line_id: row for row in rows if (row.tenant_id, row.party_id) in parties}
            groups = {line: row.settling_group or (line,) for line, row in found.items()}
            seen |= {groups[line] for line in ahead if line in groups}
            ahead = set({group: line for line, group in groups.items() if group not in seen}.values())
        return list(found.values())

    def settle_all(self, connection: Connection, ledger: Ledger, tenant_id: Any) -> int:
        """Settle everything of one tenant, holding all of its buckets; how many applications were appended."""
        self.lock_all(connection, ledger, tenant_id)
        plan_plainly(connection)
        application = ledger.application.__table__
        # a driver that begins transactions by itself must have seen a writing statement before a WITH
        connection.execute(delete(application).where(literal(1) == literal(0)))
        parameters = {"settle_tenant": tenant_id, "caused_on": None}
        last = connection.scalar(select(func.max(application.c.id))) or 0
        connection.execute(self._once(("apply_all", ledger.name), self._apply_all), parameters)
        connection.execute(self._once(("recount_all", ledger.name), self._recount_all), parameters)
        # drivers do not count what an INSERT … SELECT behind a WITH has written
        new = select(func.count()).where(application.c.id > last, application.c.tenant_id == tenant_id)
        return connection.scalar(new) or 0

    def append(self, connection: Connection, ledger: Ledger, **values: Any) -> None:
        """Append one application that a person decided."""
        connection.execute(insert(ledger.application.__table__).values(created_at=utc_now(), **values))

    # -- statements ------------------------------------------------------------------------------------

    def _once(self, shape: tuple[Any, ...], build: Callable[..., Any]) -> Any:
        return self.binding.once(self.settings, shape, lambda: build(*shape[1:]))

    def _probe(self, name: str) -> Any:
        """What concerns some lines: groups with both signs, partners by stored applications, reversed lines.

        Items that somebody settled by hand with an item of such a group belong to it, because a reversal
        in the group sets them free.
        """
        ledger = self.binding.ledger(name)
        item, other, partner = aliased(ledger.item), aliased(ledger.item), aliased(ledger.item)
        line_id = "general_ledger_line_id"
        touched = parameter_set("settle_lines", ledger.column(line_id).type)

        def columns(entity: Any) -> tuple[Any, ...]:
            return (
                attribute(entity, "tenant_id").label("tenant_id"),
                attribute(entity, ledger.party).label("party_id"),
                attribute(entity, "settlement_key").label("settlement_key"),
                attribute(entity, line_id).label("line_id"),
                self._group(ledger, entity).label("settling_group"),
            )

        is_touched = among(attribute(item, line_id), touched)
        groups = self._groups(ledger, item, is_touched)
        mixed = self._of_both_signs(ledger, groups)
        found = [select(*columns(item)).join(mixed, self._within(ledger, item, mixed)).where(is_touched)]
        for ours, theirs in (("from_line_id", "to_line_id"), ("to_line_id", "from_line_id")):
            stored, by_hand = aliased(ledger.application), aliased(ledger.application)
            of_touched = select(attribute(stored, theirs)).where(attribute(stored, ours).in_(touched))
            found.append(select(*columns(partner)).where(attribute(partner, line_id).in_(of_touched)))
            themselves = select(attribute(stored, ours)).where(attribute(stored, ours).in_(touched))
            found.append(select(*columns(item)).where(attribute(item, line_id).in_(themselves)))
            of_group = (
                select(*columns(partner))
                .select_from(groups)
                .join(other, self._within(ledger, other, groups))
                .join(by_hand, and_(attribute(by_hand, ours) == attribute(other, line_id), by_hand.method == "manual"))
                .join(partner, attribute(partner, line_id) == attribute(by_hand, theirs))
            )
            found.append(of_group)
        if has(self.binding.entry, "reverses_id"):
            pairs = self._mirrored(touched)
            found += [
                select(*columns(partner)).where(attribute(partner, line_id).in_(select(end)))
                for end in (pairs.c.new_id, pairs.c.old_id)
            ]
        return union(*found)

    def _mirrored(self, touched: Select[Any]) -> Subquery:
        """The touched lines of reversing entries, each with the line that it reverses."""
        reversal, entry, old = aliased(self.binding.line), aliased(self.binding.entry), aliased(self.binding.line)
        return (
            select(reversal.id.label("new_id"), old.id.label("old_id"))
            .join(entry, entry.id == reversal.general_ledger_id)
            .join(old, mirrors(old, reversal, entry))
            .where(attribute(reversal, "id").in_(touched))
            .subquery("mirrored")
        )

    def _alike(self, ledger: Ledger) -> list[str]:
        """What the items of one settlement group have in common."""
        key = [] if self.settings.settlement == "oldest_first" else ["settlement_key"]
        return ["tenant_id", ledger.party, "account_number", *key]

    def _groups(self, ledger: Ledger, item: Any, of_lines: ColumnElement[bool]) -> Subquery:
        """The settlement groups of some items, each once: with a group for each item the work would be its square."""
        alike = (attribute(item, name).label(name) for name in self._alike(ledger))
        return select(*alike).where(of_lines).distinct().subquery("groups")

    def _within(self, ledger: Ledger, item: Any, groups: Subquery) -> ColumnElement[bool]:
        """Whether an item is of one of the groups."""
        return and_(*(attribute(item, name) == groups.c[name] for name in self._alike(ledger)))

    def _of_both_signs(self, ledger: Ledger, groups: Subquery) -> Subquery:
        """Those of the groups in which something can settle."""
        other = aliased(ledger.item)
        amount, alike = attribute(other, "amount"), [groups.c[name] for name in self._alike(ledger)]
        of_groups = select(*alike).select_from(groups).join(other, self._within(ledger, other, groups))
        mixed = of_groups.group_by(*alike).having(func.min(amount) < 0, func.max(amount) > 0)
        return mixed.subquery("of_both_signs")

    def _group(self, ledger: Ledger, item: Any) -> ColumnElement[Any]:
        """The settlement group of an item as one text; null when it belongs to none."""
        first, *others = (text_of(attribute(item, name)) for name in self._alike(ledger))
        for text in others:
            first = first + literal("\x1f", String()) + text
        return type_coerce(first, String())

    def _grouped(self, name: str) -> Any:
        """The items of some lines and of their groups: columns line_id, is_reversal, is_by_hand.

        Settling begins from their lines, rather than from their groups: what is one condition here would be two with an
        OR between them there, for which databases read all items.
        """
        ledger = self.binding.ledger(name)
        item, other = aliased(ledger.item), aliased(ledger.item)
        line_id = "general_ledger_line_id"
        of_lines = attribute(item, line_id).in_(parameter_set("settle_lines", ledger.column(line_id).type))
        groups = self._groups(ledger, item, of_lines)

        def columns(entity: Any) -> tuple[ColumnElement[Any], ...]:
            is_reversal = attribute(entity, "kind") == "reversal"
            return attribute(entity, line_id).label("line_id"), is_reversal.label("is_reversal")

        own = select(*columns(item)).where(of_lines)
        others = select(*columns(other)).select_from(groups).join(other, self._within(ledger, other, groups))
        items = union(others, own).cte(step("grouped"))
        # asked once of all of them: asked of each, SQLite's statistics may have it read all applications for each
        application = ledger.application.__table__
        ends = (application.c.from_line_id, application.c.to_line_id)
        by_hand = (
            select(end).where(application.c.method == "manual", among(end, select(items.c.line_id))).exists()
            for end in ends
        )
        return select(*items.c, or_(*by_hand).label("is_by_hand"))

    def _apply(self, dialect: str, name: str, present: Present) -> Append:
        ledger = self.binding.ledger(name)
        table = ledger.application.__table__
        lines = parameter_set("settle_lines", table.c.from_line_id.type)

        def stored(application: Any) -> list[Any]:
            ends = (table.c.from_line_id, table.c.to_line_id)
            ids = union(*(select(table.c.id).where(among(end, lines)) for end in ends)).subquery("stored_ids")
            return [among(application.id, select(ids.c.id))]

        def where(item: Any) -> list[Any]:
            return [among(attribute(item, "general_ledger_line_id"), lines)]

        rows = difference(self.binding, self.settings, ledger, where, stored, present)
        return Append(dialect, table, APPENDED, rows, returned=("from_line_id", "to_line_id", "amount"))

    def _apply_all(self, name: str) -> Any:
        ledger = self.binding.ledger(name)
        table = ledger.application.__table__
        tenant = bindparam("settle_tenant", type_=table.c.tenant_id.type)

        def of_tenant(entity: Any) -> list[Any]:
            return [attribute(entity, "tenant_id") == tenant]

        rows = difference(self.binding, self.settings, ledger, of_tenant, of_tenant)
        return insert(table).from_select(APPENDED, rows, include_defaults=False)

    def _recount(self, dialect: str, name: str) -> Rewrite:
        ledger = self.binding.ledger(name)
        lines = parameter_set("recount_lines", ledger.column("general_ledger_line_id").type)
        counted = self._counted(ledger, lambda end: among(end, lines), lines)
        names = (*RETURNED, "remaining_amount", "status")
        return Rewrite(
            dialect,
            ledger.table,
            self._stored(ledger, counted),
            counted.differing,
            key=ledger.column("general_ledger_line_id"),
            besides=self._besides(ledger),
            returned={column: ledger.expression(column) for column in names},
            afterwards=counted.values,
        )

    def _recount_all(self, name: str) -> Any:
        ledger = self.binding.ledger(name)
        table = ledger.application.__table__
        tenant = bindparam("settle_tenant", type_=table.c.tenant_id.type)
        counted = self._counted(ledger, lambda end: table.c.tenant_id == tenant)
        values = {**self._stored(ledger, counted), **self._besides(ledger)}
        return update(ledger.table).values(values).where(*counted.differing)

    def _counted(self, ledger: Ledger, of_ends: Callable[[Any], Any], lines: Select[Any] | None = None) -> _Counted:
        """The remaining amount and the status of items as their applications have them, and where they differ.

        An item that never had an application has nothing to update, unless it is one of ``lines``: it was written
        with all of it open, and applications are never deleted.
        """
        sums = settled_parts(ledger, of_ends, lines)
        amount, remaining, status = (ledger.expression(name) for name in ("amount", "remaining_amount", "status"))
        left = type_coerce(amount + sums.c.part, Money())
        state = status_of(left, amount)
        line = ledger.column("general_ledger_line_id")
        differing = [line == sums.c.line_id, or_(remaining != left, status != state)]
        return _Counted({"remaining_amount": left, "status": state}, differing)

    @staticmethod
    def _stored(ledger: Ledger, counted: _Counted) -> dict[Column[Any], ColumnElement[Any]]:
        columns = {name: ledger.column(name) for name in counted.values}
        return {columns[name]: stored(value, columns[name].type, name) for name, value in counted.values.items()}

    @staticmethod
    def _besides(ledger: Ledger) -> dict[Column[Any], ColumnElement[Any]]:
        return {ledger.column("updated_at"): present_moment()} if ledger.stores("updated_at") else {}
