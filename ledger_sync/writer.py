"""The only module that writes open items and applications.

``Writer.write`` takes what a flush touched, restricts the projection to it and writes what comes out, in the
caller's transaction: one INSERT … SELECT, and a DELETE only where rows may have to go. Then it settles: it locks
the parties' buckets, and where something can settle, it appends what the settlement SELECT says and brings
remaining amounts and states up to date. ``Writer.fill`` and ``Writer.settle_all`` do the same for history.
Statements are built once per shape and then reused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    String,
    and_,
    bindparam,
    case,
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
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import aliased

from ledger_sync.binding import Binding, Ledger, attribute
from ledger_sync.dialects import (
    all_bucket_keys,
    as_parameter,
    bucket_keys,
    counts_beside_insert,
    held,
    insert_from,
    parameter_set,
    plan_plainly,
    take_locks,
    text_of,
)
from ledger_sync.findings import mentioned
from ledger_sync.models.mixins import NOTE_MAX
from ledger_sync.models.types import Money, storable, utc_now
from ledger_sync.projection import ITEM_COLUMNS, Lines, Restriction, on_accounts, project, source_types
from ledger_sync.settings import Settings
from ledger_sync.settlement import ItemRestriction, difference, settled_parts, status_of
from ledger_sync.touched import Touched, lines_naming, lines_of

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
        self._statements: dict[tuple[object, ...], Any] = {}

    def find(self, connection: Connection, ledger: Ledger, touched: Touched) -> bool:
        """Add the lines that name touched documents to ``touched``; whether any line is concerned at all."""
        if documents := touched.documented(ledger):
            self.lock(connection, ledger, touched.parties)
            statement = self._once(("naming", ledger.name, documents), self._naming)
            touched.lines.update(connection.scalars(statement, touched.document_parameters(ledger)))
        return bool(touched.parts())

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

    def write(self, connection: Connection, ledger: Ledger, touched: Touched, *, tell_new: bool = False) -> Written:
        """Bring the rows of all touched lines into line with the projection, and settle what can be settled.

        ``tell_new``: whether created and rewritten rows must be told apart, which takes one more SELECT
        when rows may be rewritten.
        """
        parts, parameters = touched.parts(), touched.parameters()
        if self.binding.editable:
            connection.execute(self._once(("hold_touched", parts), self._touched_held), parameters)
        known: set[Any] = set()
        if touched.rewrite and tell_new:
            known = set(connection.scalars(self._once(("known", ledger.name, parts), self._known), parameters))
        rows = self._put(connection, ledger, touched)
        removed: list[dict[str, Any]] = []
        if touched.remove:
            gone = connection.execute(self._once(("delete", ledger.name, parts), self._delete), parameters)
            removed = [{"ledger": ledger.name, **row._mapping} for row in gone]
        settled: tuple[Mapping[str, Any], ...] = ()
        if rows or removed:
            settled = self._settle_written(connection, ledger, rows, removed, rewritten=touched.rewrite)
        return Written(
            created=tuple(row for row in rows if row["general_ledger_line_id"] not in known),
            changed=tuple(row for row in rows if row["general_ledger_line_id"] in known),
            removed=tuple(removed),
            settled=settled,
        )

    def _put(self, connection: Connection, ledger: Ledger, touched: Touched) -> list[dict[str, Any]]:
        shape = ("insert", connection.dialect.name, ledger.name, touched.parts(), touched.rewrite)
        result = connection.execute(self._once(shape, self._insert), touched.parameters())
        return [{"ledger": ledger.name, **row._mapping} for row in result]

    def _settle_written(
        self,
        connection: Connection,
        ledger: Ledger,
        rows: list[dict[str, Any]],
        removed: list[dict[str, Any]],
        *,
        rewritten: bool,
    ) -> tuple[Mapping[str, Any], ...]:
        parties = {(row["tenant_id"], row["party_id"]) for row in (*rows, *removed)}
        if self.lock(connection, ledger, parties):
            # an invoice may have been committed while we waited: what refers to one is looked at once more
            names = {t for d in ledger.documents if d.role == "payment" for t in source_types(self.settings, ledger, d)}
            referring = {row["general_ledger_line_id"] for row in rows if row["source_type"] in names}
            if referring:
                self._put(connection, ledger, Touched(lines=referring, rewrite=True))
        lines = {row["general_ledger_line_id"] for row in rows}
        gone = {row["general_ledger_line_id"] for row in removed}
        latest = max(row["entry_date"] for row in (*rows, *removed))
        return self.settle(connection, ledger, lines, gone, caused_on=latest, recount=rewritten)

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
        if self.binding.editable:
            lock = self._once(("hold", *shape), lambda *_: self._entries_held(ledger, where))
            connection.execute(lock, parameters)

        def build(dialect: str, name: str, *_: object) -> Any:
            judged = self._judged(ledger, where, selects)
            eligible = self._of_judged(judged.cte("judged") if counts_beside_insert(connection) else judged.subquery())
            insert = self._insert_rows(dialect, ledger, eligible.rows, rewrite=False, of_run=True)
            insert = insert.returning(ledger.column("general_ledger_line_id"))
            if not counts_beside_insert(connection):
                return insert
            written = select(func.count()).select_from(insert.cte("written")).scalar_subquery()
            return select(eligible.reason, func.count().label("lines"), written.label("written")).group_by(
                eligible.reason
            )

        statement = self._once(("fill", *shape), build)
        if counts_beside_insert(connection):
            rows = list(connection.execute(statement, values))
            return Filled(rows[0].written if rows else 0, {row.reason: row.lines for row in rows})
        # a database without writing statements inside a SELECT is asked for the counts once more
        result = connection.execute(statement, values)
        written = sum(len(batch) for batch in result.partitions(10_000))
        counted = self._once(("count", *shape), lambda *_: self._reasons(ledger, where, selects))
        return Filled(written, {row.reason: row.lines for row in connection.execute(counted, parameters)})

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

    def _entries_held(self, ledger: Ledger, where: Restriction) -> Select[Any]:
        line, entry = aliased(self.binding.line), aliased(self.binding.entry)
        concerned = (
            select(attribute(entry, "id"))
            .join(line, attribute(line, "general_ledger_id") == attribute(entry, "id"))
            .where(on_accounts(attribute(line, "account_number"), self.settings.of_ledger(ledger.name)))
            .where(*where(Lines(line, entry)))
        )
        return held(self.binding.entry, concerned)

    def record_failure(
        self, connection: Connection, ledger: Ledger, tenants: Mapping[Any, str | None], error: BaseException
    ) -> None:
        """Note for each entry (id → tenant) that its rows could not be written, for a backfill to find."""
        table = self.binding.error.__table__
        values = [
            {
                "tenant_id": tenant,
                "ledger": ledger.name,
                "general_ledger_id": entry_id,
                "error": type(error).__name__,
                "message": storable(str(error))[:NOTE_MAX],
                "created_at": utc_now(),
            }
            for entry_id, tenant in tenants.items()
        ]
        if values:
            connection.execute(table.insert(), values)

    def record_line(
        self, connection: Connection, ledger: Ledger, line_id: Any, error: BaseException, *, tenant_id: Any, run_id: Any
    ) -> None:
        """Note that a control line's row could not be written; a note of it that is not resolved is brought up to date.

        At most one note of a line is unresolved.
        """
        table, line = self.binding.error.__table__, self.binding.line
        entry_id = connection.scalar(
            select(attribute(line, "general_ledger_id")).where(attribute(line, "id") == line_id)
        )
        named = {"general_ledger_id": entry_id, "general_ledger_line_id": line_id}
        self._record(connection, ledger, error, tenant_id, run_id, named, table.c.general_ledger_line_id == line_id)

    def record_document(
        self,
        connection: Connection,
        ledger: Ledger,
        document: str,
        document_id: Any,
        error: BaseException,
        *,
        tenant_id: Any,
        run_id: Any,
    ) -> None:
        """Note that a document could not be posted, as ``record_line`` does."""
        table = self.binding.error.__table__
        named = {"source_type": document, "source_id": document_id}
        of_document = and_(table.c.source_type == document, table.c.source_id == document_id)
        self._record(connection, ledger, error, tenant_id, run_id, named, of_document)

    def _record(
        self,
        connection: Connection,
        ledger: Ledger,
        error: BaseException,
        tenant_id: Any,
        run_id: Any,
        named: Mapping[str, Any],
        same: ColumnElement[bool],
    ) -> None:
        table = self.binding.error.__table__
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        values = {
            "run_id": run_id,
            "error": type(cause).__name__,
            "message": storable(str(cause))[:NOTE_MAX],
            "created_at": utc_now(),
        }
        noted = update(table).where(table.c.ledger == ledger.name, table.c.resolved_at.is_(None), same).values(values)
        if not connection.execute(noted).rowcount:
            connection.execute(insert(table).values(tenant_id=tenant_id, ledger=ledger.name, **named, **values))

    def resolve_failures(self, connection: Connection, ledger: Ledger, tenant_id: Any) -> int:
        """Mark the recorded failures of entries whose rows are all there by now; how many were marked.

        And of documents that a posted entry mentions by now.
        """
        table = self.binding.error.__table__
        noted = (table.c.ledger == ledger.name, table.c.resolved_at.is_(None), table.c.tenant_id == tenant_id)
        if not connection.scalar(select(select(table.c.id).where(*noted).exists())):
            return 0
        resolved = update(table).values(resolved_at=utc_now()).where(*noted)

        def of_noted(lines: Lines) -> list[ColumnElement[bool]]:
            entries = select(table.c.general_ledger_id).where(*noted, table.c.general_ledger_id.is_not(None))
            return [attribute(lines.entry, "id").in_(entries)]

        c = project(self.binding, self.settings, ledger, of_noted).subquery("noted").c
        item = aliased(ledger.item)
        lacking = (
            select(c.general_ledger_id)
            .outerjoin(item, attribute(item, "general_ledger_line_id") == c.general_ledger_line_id)
            .where(c.reason.is_(None), attribute(item, "id").is_(None))
        )
        of_entry = table.c.general_ledger_id.is_not(None)
        count = connection.execute(resolved.where(of_entry, table.c.general_ledger_id.not_in(lacking))).rowcount
        for document in ledger.documents:
            model = aliased(document.model)
            posted = select(attribute(model, "id")).where(
                attribute(model, "tenant_id") == tenant_id,
                mentioned(self.binding, self.settings, ledger, document, model),
            )
            of_document = table.c.source_type == document.name
            count += connection.execute(resolved.where(of_document, table.c.source_id.in_(posted))).rowcount
        return int(count)

    # -- statements ------------------------------------------------------------------------------------

    def _once(self, shape: tuple[Any, ...], build: Callable[..., Any]) -> Any:
        if shape not in self._statements:
            self._statements[shape] = build(*shape[1:])
        return self._statements[shape]

    def _touching(self, parts: tuple[str, ...]) -> Restriction:
        ids = lines_of(self.binding, parts)
        return lambda lines: [lines.line.id.in_(ids)]

    def _eligible(self, ledger: Ledger, where: Restriction) -> Select[Any]:
        projected = project(self.binding, self.settings, ledger, where).subquery("projected")
        c = projected.c
        return select(*(c[name] for name in ITEM_COLUMNS), c.amount.label("remaining_amount")).where(c.reason.is_(None))

    def _insert_rows(
        self, dialect: str, ledger: Ledger, eligible: Select[Any], *, rewrite: bool, of_run: bool = False
    ) -> Any:
        table = ledger.table
        names = [ledger.column(name).name for name in (*ITEM_COLUMNS, "remaining_amount")]
        rows = eligible.add_columns(literal("open").label("status"))
        key = ledger.column("general_ledger_line_id").name
        amount, remaining, status = (ledger.column(name) for name in ("amount", "remaining_amount", "status"))
        names.append(status.name)
        if of_run:
            run_id = ledger.column("run_id")
            names.append(run_id.name)
            rows = rows.add_columns(bindparam("run_id", type_=run_id.type))

        def besides(new: Any) -> Mapping[str, Any]:
            # a new amount begins unsettled; what settles it is worked out right afterwards
            other = amount.is_distinct_from(new[amount.name])
            return {
                remaining.name: case((other, new[amount.name]), else_=remaining),
                status.name: case((other, "open"), else_=status),
                ledger.column("updated_at").name: func.now(),
            }

        overwrite = [ledger.column(name).name for name in ITEM_COLUMNS if name != "general_ledger_line_id"]
        return insert_from(
            dialect,
            table,
            names,
            rows,
            key=key,
            overwrite=overwrite if rewrite else (),
            besides=besides,
        )

    def _insert(self, dialect: str, name: str, parts: tuple[str, ...], rewrite: bool) -> Any:
        ledger = self.binding.ledger(name)
        statement = self._insert_rows(dialect, ledger, self._eligible(ledger, self._touching(parts)), rewrite=rewrite)
        return statement.returning(*(ledger.column(column).label(column) for column in RETURNED))

    def _delete(self, name: str, parts: tuple[str, ...]) -> Any:
        ledger = self.binding.ledger(name)
        line_id = ledger.column("general_ledger_line_id")
        eligible = self._eligible(ledger, self._touching(parts)).subquery("eligible")
        return (
            delete(ledger.table)
            .where(line_id.in_(lines_of(self.binding, parts)))
            .where(line_id.not_in(select(eligible.c.general_ledger_line_id)))
            .returning(*(ledger.column(column).label(column) for column in RETURNED))
        )

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

    def _naming(self, name: str, documents: tuple[str, ...]) -> Any:
        return lines_naming(self.binding, self.settings, self.binding.ledger(name), documents)

    def _touched_held(self, parts: tuple[str, ...]) -> Select[Any]:
        line = aliased(self.binding.line)
        entries = select(attribute(line, "general_ledger_id")).where(
            attribute(line, "id").in_(lines_of(self.binding, parts))
        )
        return held(self.binding.entry, entries)

    def _known(self, name: str, parts: tuple[str, ...]) -> Any:
        ledger = self.binding.ledger(name)
        line_id = ledger.column("general_ledger_line_id")
        return select(line_id).where(line_id.in_(lines_of(self.binding, parts)))

    def _classify(self, name: str, parts: tuple[str, ...]) -> Any:
        ledger = self.binding.ledger(name)
        return project(self.binding, self.settings, ledger, self._touching(parts))
