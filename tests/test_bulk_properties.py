"""A history done by the unit of work and the same history by bulk statements: the same rows, whatever the history.

Each step is done to two databases, by objects in the one and by statements in the other. After each, both are what the
oracle says; in the end they are equal, what is open included.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, inspect, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync, Settings
from ledger_sync.errors import DocumentInUseError
from ledger_sync.models import JournalEntry, JournalLine, SourceLink
from tests.budget import examples
from tests.oracle import assert_synced, read_books, read_items
from tests.test_hook_properties import (
    CUT_OVERS,
    FURNITURE,
    MODELS,
    MOMENTS,
    PARTIES,
    PARTY_IDS,
    days,
    document_plans,
    engine_of,
    entry_plans,
    line_plans,
    link_plans,
    make_document,
    make_entry,
    make_line,
    make_link,
    nth,
    open_books,
    sides,
    sources,
)

KEYS = {SourceLink: "line_id"}


@cache
def sync_of(cut_over: str) -> LedgerSync:
    return LedgerSync(Settings(bulk="sync", **CUT_OVERS[cut_over][0]))


@pytest.fixture(scope="module", autouse=True)
def _close_the_books() -> Iterator[None]:
    yield
    for purpose in ("objects", "statements"):
        engine_of(purpose).dispose()
    engine_of.cache_clear()


class Objects:
    """Writes by the unit of work."""

    purpose: ClassVar = "objects"

    def __init__(self, session: Session) -> None:
        self.session = session

    def add(self, target: Any) -> None:
        if isinstance(target, SourceLink):
            self.session.get_one(JournalLine, target.line_id).link = target
        else:
            self.session.add(target)
        self.session.flush()

    def change(self, model: Any, keys: list[int], way: int, **values: Any) -> None:
        for key in keys:
            target = self.session.get_one(model, key)
            for name, value in values.items():
                setattr(target, name, value)
        self.session.flush()

    def take(self, model: Any, keys: list[int], way: int) -> None:
        for key in keys:
            target = self.session.get_one(model, key)
            if isinstance(target, SourceLink):
                target.line.link = None
            else:
                self.session.delete(target)
        self.session.flush()
        self.session.expire_all()


class Statements:
    """Writes by bulk statements, in one of the ways that there are."""

    purpose: ClassVar = "statements"

    def __init__(self, session: Session) -> None:
        self.session = session

    def add(self, target: Any) -> None:
        model, row = type(target), self._row(target)
        if model is JournalEntry:
            (key,) = self.session.scalars(insert(model).returning(model.id), [row]).all()
            lines = [{**self._row(line), "general_ledger_id": key} for line in target.lines]
            self.session.execute(insert(JournalLine), lines)
            places = select(JournalLine.line_number, JournalLine.id).where(JournalLine.general_ledger_id == key)
            by_number = {row.line_number: row.id for row in self.session.execute(places)}
            links = [
                {"kind": None, **self._row(line.link), "line_id": by_number[line.line_number]}
                for line in target.lines
                if line.link
            ]
            if links:
                self.session.execute(insert(SourceLink.__table__), links)
        else:
            self.session.execute(insert(model).values(**row))

    @staticmethod
    def _row(target: Any) -> dict[str, Any]:
        columns = inspect(type(target)).local_table.columns
        return {column.key: value for column in columns if (value := getattr(target, column.key)) is not None}

    def change(self, model: Any, keys: list[int], way: int, **values: Any) -> None:
        name = KEYS.get(model, "id")
        if not keys:
            return
        if way == 0:
            self.session.execute(update(model).where(getattr(model, name).in_(keys)).values(**values))
        elif way == 1:
            table = model.__table__
            self.session.execute(update(table).where(table.c[name].in_(keys)).values(**values))
        else:
            self.session.execute(update(model), [{name: key, **values} for key in keys])

    def take(self, model: Any, keys: list[int], way: int) -> None:
        name = KEYS.get(model, "id")
        if model is JournalLine:
            self.session.execute(delete(SourceLink).where(SourceLink.line_id.in_(keys)))
        if model is JournalEntry:
            lines = select(JournalLine.id).where(JournalLine.general_ledger_id.in_(keys))
            self.take(JournalLine, list(self.session.scalars(lines)), way)
        if way:
            self.session.execute(delete(model).where(getattr(model, name).in_(keys)))
        else:
            self.session.query(model).filter(getattr(model, name).in_(keys)).delete()


class Story:
    """The books of one side, and what happens to them. Rows are picked by what they hold, not by their ids."""

    def __init__(self, make_hand: Any, cut_over: str) -> None:
        factory = sessionmaker(open_books(make_hand.purpose))
        sync_of(cut_over).attach(factory)
        self.session = factory()
        self.hand = make_hand(self.session)
        self.rules = CUT_OVERS[cut_over][1]
        self.number = 0
        self.fresh: set[int] = set()  # entries that this transaction wrote or posted
        self.refused: list[str] = []

    def step(self, what: str, arguments: dict[str, Any]) -> None:
        getattr(self, what)(**arguments)
        self.session.flush()
        self.session.expire_all()
        assert_synced(self.session.connection(), self.rules)

    def picked(self, query: Any, index: int) -> Any:
        found = self.session.connection().execute(query).all()
        return found[index % len(found)] if found else None

    def entry(self, index: int, *where: Any) -> int | None:
        number = text("CAST(general_ledger.voucher_number AS INTEGER)")
        found = self.picked(select(JournalEntry.id).where(*where).order_by(number), index)
        return None if found is None else int(found.id)

    def changeable(self, index: int) -> int | None:
        reversed_ids = select(JournalEntry.reverses_id).where(JournalEntry.reverses_id.is_not(None))
        writable = (JournalEntry.status == "draft") | JournalEntry.id.in_(self.fresh)
        return self.entry(index, writable, JournalEntry.id.not_in(reversed_ids.scalar_subquery()))

    def line_of(self, entry: int, index: int) -> int | None:
        query = select(JournalLine.id).where(JournalLine.general_ledger_id == entry).order_by(JournalLine.line_number)
        found = self.picked(query, index)
        return None if found is None else int(found.id)

    # -- what happens

    def a_document_comes(self, plan: dict[str, Any]) -> None:
        if self.session.get(MODELS[plan["name"]], plan["id"]) is None:
            self.hand.add(make_document(plan))

    def an_entry_comes(self, plan: dict[str, Any]) -> None:
        self.number += 1
        entry = make_entry(plan, self.number)
        self.hand.add(entry)
        self.fresh.add(self.entry(0, JournalEntry.voucher_number == str(self.number)) or 0)

    def lines_come_late(self, index: int, plan: dict[str, Any]) -> None:
        entry = self.changeable(index)
        if entry is not None:
            self.number += 1
            line = make_line({**plan, "link": None}, None)
            line.general_ledger_id, line.line_number = entry, 100 + self.number
            self.hand.add(line)

    def drafts_are_posted(self, at: Any, way: int, limit: int) -> None:
        query = select(JournalEntry.id).where(JournalEntry.status == "draft")
        number = text("CAST(general_ledger.voucher_number AS INTEGER)")
        keys = list(self.session.connection().scalars(query.order_by(number).limit(limit)))
        self.hand.change(JournalEntry, keys, way, status="posted", posted_at=at)
        self.fresh.update(keys)

    def an_entry_changes(self, index: int, source: Any, day: Any, status: str, way: int) -> None:
        entry = self.changeable(index)
        if entry is not None:
            source_type, source_id = source or (None, None)
            values = {"source_type": source_type, "source_id": source_id, "entry_date": day, "status": status}
            self.hand.change(JournalEntry, [entry], way, posted_at=MOMENTS[2], **values)
            self.fresh.add(entry)

    def a_line_changes(self, index: int, line: int, plan: dict[str, Any], way: int) -> None:
        entry = self.changeable(index)
        key = None if entry is None else self.line_of(entry, line)
        if key is not None:
            values = {"account_number": "2400" if plan["account"] == "own" else plan["account"]}
            values |= {"reference": plan["reference"], "due_date": plan["due_date"]}
            amounts = sides(plan["signed"], credit_side=plan["credit_side"])
            self.hand.change(JournalLine, [key], way, **values, **amounts)

    def a_line_moves(self, index: int, line: int, to: int, way: int) -> None:
        old, new = self.changeable(index), self.changeable(to)
        key = None if old is None else self.line_of(old, line)
        if key is not None and new is not None:
            self.number += 1
            self.hand.change(JournalLine, [key], way, general_ledger_id=new, line_number=100 + self.number)

    def a_line_goes(self, index: int, line: int, way: int) -> None:
        entry = self.changeable(index)
        key = None if entry is None else self.line_of(entry, line)
        if key is not None:
            self.hand.take(JournalLine, [key], way)

    def an_entry_goes(self, index: int, way: int) -> None:
        entry = self.changeable(index)
        if entry is not None:
            self.hand.take(JournalEntry, [entry], way)
            self.fresh.discard(entry)

    def an_entry_is_reversed(self, index: int, day: Any) -> None:
        reversed_ids = select(JournalEntry.reverses_id).where(JournalEntry.reverses_id.is_not(None))
        key = self.entry(
            index,
            JournalEntry.status == "posted",
            JournalEntry.reverses_id.is_(None),
            JournalEntry.entry_date <= day,
            JournalEntry.id.not_in(reversed_ids.scalar_subquery()),
        )
        entry = None if key is None else self.session.get_one(JournalEntry, key)
        if entry is not None and entry.lines and not entry.balance:
            self.number += 1
            reversal = entry.reverse(day, voucher_number=str(self.number))
            reversal.reverses_id = entry.id
            self.hand.add(reversal)
            self.fresh.add(self.entry(0, JournalEntry.voucher_number == str(self.number)) or 0)

    def a_link_changes(self, index: int, plan: Any, way: int) -> None:
        number = text("CAST(general_ledger.voucher_number AS INTEGER), general_ledger_lines.line_number")
        query = select(JournalLine.id, SourceLink.line_id).join(JournalEntry).outerjoin(SourceLink)
        found = self.picked(query.where(JournalLine.account_number != "4999").order_by(number), index)
        if found is None:
            return
        if found.line_id is None and plan is not None:
            link = make_link(plan)
            link.line_id = found.id
            self.hand.add(link)
        elif found.line_id is not None and plan is None:
            self.hand.take(SourceLink, [found.id], way)
        elif plan is not None:
            self.hand.change(SourceLink, [found.id], way, source_type=plan[0], source_id=plan[1], kind=plan[2])

    def a_document_changes(self, name: str, index: int, plan: dict[str, Any], way: int) -> None:
        model = MODELS[name]
        found = self.picked(select(model.id, model.tenant_id).order_by(model.id), index)
        if found is not None:
            values = {PARTIES[model]: PARTY_IDS[found.tenant_id][plan["party"]]}
            if "invoice" in name:
                values |= {"invoice_number": plan["number"], "payment_reference": plan["reference"]}
                values |= {"invoice_date": plan["day"], "kind": plan["kind"], "due_date": plan["due_date"]}
            elif "payment" in name:
                values |= {"payment_reference": plan["reference"], "payment_date": plan["day"]}
            self.hand.change(model, [found.id], way, **values)

    def a_document_goes(self, name: str, index: int, move: bool, way: int) -> None:
        model = MODELS[name]
        found = self.picked(select(model.id, model.tenant_id).order_by(model.id), index)
        if found is None:
            return
        try:
            with self.session.begin_nested():
                if move:
                    tenant = "b" if found.tenant_id == "a" else "a"
                    party = {PARTIES[model]: PARTY_IDS[tenant][0]}
                    self.hand.change(model, [found.id], way, tenant_id=tenant, **party)
                else:
                    self.hand.take(model, [found.id], way)
        except (DocumentInUseError, IntegrityError) as error:
            self.refused.append(type(error).__name__)

    def something_is_undone(self, inner: tuple[str, dict[str, Any]]) -> None:
        what, arguments = inner
        fresh = set(self.fresh)
        savepoint = self.session.begin_nested()
        getattr(self, what)(**arguments)
        savepoint.rollback()
        self.fresh = fresh

    def the_transaction_ends(self, keep: bool) -> None:
        if keep:
            self.session.commit()
        else:
            self.session.rollback()
        self.fresh = set()

    def rows(self) -> dict[Any, dict[str, Any]]:
        """Every open item by voucher and line, with what is open of it."""
        connection = self.session.connection()
        books, found = read_books(connection), {}
        left = {
            (ledger, row.general_ledger_line_id): (row.remaining_amount, row.status)
            for ledger in ("supplier", "customer", "employee")
            for row in connection.execute(text(f"SELECT * FROM {ledger}_ledger"))
        }
        for place, item in read_items(connection).items():
            line = books.lines[place[1]]
            entry = books.entries[line.entry_id]
            values = {n: v for n, v in item.items() if n not in ("general_ledger_id", "general_ledger_line_id")}
            found[place[0], entry.tenant, entry.number, line.line_number] = {**values, "left": left[place]}
        return found


ways = st.integers(0, 2)


def step(what: str, /, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.tuples(st.just(what), st.fixed_dictionaries(arguments))


changes = st.one_of(
    step("a_document_comes", plan=document_plans),
    step("an_entry_comes", plan=entry_plans),
    step("lines_come_late", index=nth, plan=line_plans),
    step("drafts_are_posted", at=st.sampled_from(MOMENTS), way=ways, limit=st.integers(1, 3)),
    step(
        "an_entry_changes", index=nth, source=sources, day=days, status=st.sampled_from(["draft", "posted"]), way=ways
    ),
    step("a_line_changes", index=nth, line=nth, plan=line_plans, way=ways),
    step("a_line_moves", index=nth, line=nth, to=nth, way=ways),
    step("a_line_goes", index=nth, line=nth, way=ways),
    step("an_entry_goes", index=nth, way=ways),
    step("an_entry_is_reversed", index=nth, day=days),
    step("a_link_changes", index=nth, plan=st.none() | link_plans, way=ways),
    step("a_document_changes", name=st.sampled_from(list(MODELS)), index=nth, plan=document_plans, way=ways),
    step("a_document_goes", name=st.sampled_from(list(MODELS)), index=nth, move=st.booleans(), way=ways),
)
steps = st.one_of(
    changes,
    changes,
    changes,
    step("something_is_undone", inner=changes),
    step("the_transaction_ends", keep=st.sampled_from([True, True, False])),
)


@settings(max_examples=examples(60))
@given(
    cut_over=st.sampled_from(list(CUT_OVERS)),
    entries=st.lists(entry_plans, min_size=1, max_size=4),
    history=st.lists(steps, min_size=1, max_size=15),
)
def test_statements_and_objects_give_the_same_rows(
    cut_over: str, entries: list[dict[str, Any]], history: list[tuple[str, dict[str, Any]]]
) -> None:
    beginning = [("a_document_comes", {"plan": plan}) for plan in FURNITURE]
    beginning += [("an_entry_comes", {"plan": plan}) for plan in entries]
    done = []
    for make_hand in (Objects, Statements):
        story = Story(make_hand, cut_over)
        with story.session:
            for what, arguments in [*beginning, *history, ("the_transaction_ends", {"keep": True})]:
                note(f"{make_hand.purpose}: {what} {arguments}")
                story.step(what, arguments)
            done.append((story.rows(), story.refused))
    assert done[0] == done[1]
