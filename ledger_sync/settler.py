"""Settles open items, in the caller's transaction, as the settlement SELECT says.

``settle`` takes the items that have changed, finds the groups that they belong to, appends what differs to the
applications, and brings remaining amounts and states up to date. ``settle_all`` does so for a whole tenant. Whoever
settles holds the parties' buckets, so that two transactions never settle one item at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    String,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    type_coerce,
    union,
    update,
)
from sqlalchemy.orm import aliased

from ledger_sync.binding import Binding, Ledger, attribute
from ledger_sync.dialects import (
    all_bucket_keys,
    as_parameter,
    bucket_keys,
    parameter_set,
    plan_plainly,
    take_locks,
    text_of,
)
from ledger_sync.models.types import Money, utc_now
from ledger_sync.settings import Settings
from ledger_sync.settlement import ItemRestriction, difference, settled_parts, status_of

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


class Settler:
    """Settles the open items of one binding under one set of settings."""

    def __init__(self, binding: Binding, settings: Settings) -> None:
        self.binding = binding
        self.settings = settings
        self._statements: dict[tuple[object, ...], Any] = {}

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
    ) -> tuple[Mapping[str, Any], ...]:
        """Settle the groups of some items (by line), and undo what settled items that are gone.

        The caller holds the parties' locks. ``caused_on`` dates an undoing; ``recount`` works out the
        remaining amounts of the lines themselves even if no application changes. Returns a mapping for
        each item whose remaining amount changed.
        """
        concerned = self._concerned(connection, ledger, lines | gone)
        recounted: set[Any] = set(lines) if recount else set()
        changes: dict[Any, Decimal] = {}
        if concerned or gone:
            parameters = {
                "settle_tenants": as_parameter({row.tenant_id for row in concerned}),
                "settle_parties": as_parameter({row.party_id for row in concerned}),
                "settle_keys": as_parameter({row.settlement_key for row in concerned if row.settlement_key}),
                "settle_groups": as_parameter({row.settling_group for row in concerned if row.settling_group}),
                "settle_lines": as_parameter({row.line_id for row in concerned} | gone),
                "caused_on": caused_on,
            }
            for row in connection.execute(self._once(("apply", ledger.name), self._apply), parameters):
                for line in (row.from_line_id, row.to_line_id):
                    changes[line] = changes.get(line, Decimal(0)) + row.amount
        return tuple(
            {"ledger": ledger.name, "settled_amount": changes.get(row["general_ledger_line_id"], Decimal(0)), **row}
            for row in self.recount(connection, ledger, recounted | changes.keys())
        )

    def recount(self, connection: Connection, ledger: Ledger, lines: set[Any]) -> list[Mapping[str, Any]]:
        """Bring remaining amounts and states of some lines' items into line with their applications.

        Returns the items that changed.
        """
        if not lines:
            return []
        statement = self._once(("recount", ledger.name), self._recount)
        return [dict(row._mapping) for row in connection.execute(statement, {"recount_lines": as_parameter(lines)})]

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
            rows = list(connection.execute(probe, {"settle_lines": as_parameter(ahead)}))
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
        if shape not in self._statements:
            self._statements[shape] = build(*shape[1:])
        return self._statements[shape]

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

        alike = self._alike(ledger)
        together = and_(*(attribute(item, column) == attribute(other, column) for column in alike))
        is_touched = attribute(item, line_id).in_(touched)
        opposite = or_(
            and_(attribute(item, "amount") < 0, attribute(other, "amount") > 0),
            and_(attribute(item, "amount") > 0, attribute(other, "amount") < 0),
        )
        both_signs = select(*columns(item)).where(is_touched, exists().where(together, opposite))
        found = [both_signs]
        for ours, theirs in (("from_line_id", "to_line_id"), ("to_line_id", "from_line_id")):
            stored, by_hand = aliased(ledger.application), aliased(ledger.application)
            of_touched = select(attribute(stored, theirs)).where(attribute(stored, ours).in_(touched))
            found.append(select(*columns(partner)).where(attribute(partner, line_id).in_(of_touched)))
            themselves = select(attribute(stored, ours)).where(attribute(stored, ours).in_(touched))
            found.append(select(*columns(item)).where(attribute(item, line_id).in_(themselves)))
            of_group = (
                select(*columns(partner))
                .select_from(item)
                .join(other, together)
                .join(by_hand, and_(attribute(by_hand, ours) == attribute(other, line_id), by_hand.method == "manual"))
                .join(partner, attribute(partner, line_id) == attribute(by_hand, theirs))
                .where(is_touched)
            )
            found.append(of_group)
        reversal, entry, old = aliased(self.binding.line), aliased(self.binding.entry), aliased(self.binding.line)
        pairs = (
            select(reversal.id.label("new_id"), old.id.label("old_id"))
            .join(entry, entry.id == reversal.general_ledger_id)
            .join(old, and_(old.general_ledger_id == entry.reverses_id, old.line_number == reversal.line_number))
            .where(reversal.id.in_(touched))
            .subquery("mirrored")
        )
        found += [
            select(*columns(partner)).where(attribute(partner, line_id).in_(select(end)))
            for end in (pairs.c.new_id, pairs.c.old_id)
        ]
        return union(*found)

    def _alike(self, ledger: Ledger) -> list[str]:
        """What the items of one settlement group have in common."""
        key = [] if self.settings.settlement == "oldest_first" else ["settlement_key"]
        return ["tenant_id", ledger.party, "account_number", *key]

    def _group(self, ledger: Ledger, item: Any) -> ColumnElement[Any]:
        """The settlement group of an item as one text; null when it belongs to none."""
        first, *others = (text_of(attribute(item, name)) for name in self._alike(ledger))
        for text in others:
            first = first + literal("\x1f", String()) + text
        return type_coerce(first, String())

    def _admitted(self, ledger: Ledger) -> ItemRestriction:
        """The items of the groups that the probe found."""

        def where(item: Any) -> list[Any]:
            key, party = attribute(item, "settlement_key"), attribute(item, ledger.party)
            tenant, line = attribute(item, "tenant_id"), attribute(item, "general_ledger_line_id")
            group = [party.in_(parameter_set("settle_parties", party.type))]
            group.append(tenant.in_(parameter_set("settle_tenants", tenant.type)))
            if self.settings.settlement != "oldest_first":
                group.append(key.in_(parameter_set("settle_keys", String())))
            # the sets above are what an index is for; together they admit groups that were not found
            group.append(self._group(ledger, item).in_(parameter_set("settle_groups", String())))
            return [or_(and_(*group), line.in_(parameter_set("settle_lines", line.type)))]

        return where

    def _apply(self, name: str) -> Any:
        ledger = self.binding.ledger(name)
        where, table = self._admitted(ledger), ledger.application.__table__
        lines = parameter_set("settle_lines", table.c.from_line_id.type)
        stored = []
        for end in (table.c.from_line_id, table.c.to_line_id):
            item = aliased(ledger.item)
            admitted = select(attribute(item, "general_ledger_line_id")).where(*where(item))
            stored += [select(table.c.id).where(end.in_(admitted)), select(table.c.id).where(end.in_(lines))]
        return self._append(ledger, where, stored).returning(table.c.from_line_id, table.c.to_line_id, table.c.amount)

    def _apply_all(self, name: str) -> Any:
        ledger = self.binding.ledger(name)
        table = ledger.application.__table__
        tenant = bindparam("settle_tenant", type_=table.c.tenant_id.type)
        stored = [select(table.c.id).where(table.c.tenant_id == tenant)]
        return self._append(ledger, lambda item: [attribute(item, "tenant_id") == tenant], stored)

    def _append(self, ledger: Ledger, where: ItemRestriction, stored: list[Select[Any]]) -> Any:
        rows = difference(self.binding, self.settings, ledger, where, stored)
        names = ["tenant_id", "from_line_id", "to_line_id", "method", "amount", "applied_on"]
        return insert(ledger.application.__table__).from_select(names, rows, include_defaults=False)

    def _recount(self, name: str) -> Any:
        ledger = self.binding.ledger(name)
        lines = parameter_set("recount_lines", ledger.column("general_ledger_line_id").type)
        names = (*RETURNED, "remaining_amount", "status")
        return self._counted(ledger, lambda end: end.in_(lines), lines).returning(
            *(ledger.column(column).label(column) for column in names)
        )

    def _recount_all(self, name: str) -> Any:
        ledger = self.binding.ledger(name)
        table = ledger.application.__table__
        tenant = bindparam("settle_tenant", type_=table.c.tenant_id.type)
        return self._counted(ledger, lambda end: table.c.tenant_id == tenant)

    def _counted(self, ledger: Ledger, of_ends: Callable[[Any], Any], lines: Select[Any] | None = None) -> Any:
        """UPDATE the remaining amount and the status of items from their applications, where they differ.

        An item that never had an application has nothing to update, unless it is one of ``lines``: it was written
        with all of it open, and applications are never deleted.
        """
        sums = settled_parts(ledger, of_ends, lines)
        amount, remaining, status, line = (
            ledger.column(name) for name in ("amount", "remaining_amount", "status", "general_ledger_line_id")
        )
        left = type_coerce(amount + sums.c.part, Money())
        state = status_of(left, amount)
        return (
            update(ledger.table)
            .values({remaining: left, status: state, ledger.column("updated_at"): func.now()})
            .where(line == sums.c.line_id, or_(remaining != left, status != state))
        )
