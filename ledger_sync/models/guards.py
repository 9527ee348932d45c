"""What is posted stays: the ready-made entries and lines refuse changes once they are committed.

Until the transaction that posted an entry has committed, lines and the source may still arrive, as ERP code
posts in several flushes. Afterwards a correction is a reversing entry. The guards are mapper events on the
ready-made classes, so they hold with or without an attached sync. Bulk statements pass by mapper events; the
hook of an attached session looks at those.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, event, inspect, select
from sqlalchemy.orm import InstanceState, Mapper, object_session

from ledger_sync.errors import PostedEntryError, ReversalError
from ledger_sync.models.posted import GUARDED, posted_here
from ledger_sync.models.ready import JournalEntry, JournalLine
from ledger_sync.plain import voucher_name

_ENTRY = JournalEntry.__table__
GUARDED.add(JournalEntry)
_REMEDY = "Reverse it with entry.reverse(date) and post the right one anew."


def _posted_here(target: object) -> set[int]:
    session = object_session(target)
    return set() if session is None else posted_here(session)


def _changes(target: object) -> dict[str, Any]:
    """Column attributes with a net change, and the value that the database holds."""
    state: InstanceState[Any] = inspect(target)
    changed = {}
    for attribute in state.mapper.column_attrs:
        history = state.attrs[attribute.key].history
        if history.has_changes():
            changed[attribute.key] = history.deleted[0] if history.deleted else None
    return changed


@event.listens_for(JournalEntry, "before_insert", propagate=True)
def _check_reversal(mapper: Mapper[Any], connection: Connection, entry: JournalEntry) -> None:
    if entry.reverses_id is None:
        return
    if entry.reverses_id == entry.id:
        raise ReversalError(entry.voucher, "reverses itself", "Name the entry that it takes away.")
    query = select(_ENTRY.c.status, _ENTRY.c.reverses_id).where(
        _ENTRY.c.id == entry.reverses_id, _ENTRY.c.tenant_id == entry.tenant_id
    )
    original = connection.execute(query).first()
    if original is None:
        raise ReversalError(
            entry.voucher,
            f"reverses entry {entry.reverses_id}, which is not there",
            "Name an entry of this tenant.",
        )
    if original.status != "posted":
        raise ReversalError(entry.voucher, "reverses a draft", "Change or delete the draft instead.")
    if original.reverses_id is not None:
        raise ReversalError(entry.voucher, "reverses a reversal", "Post what that took away anew.")
    again = select(_ENTRY.c.id).where(_ENTRY.c.reverses_id == entry.reverses_id)
    if connection.execute(again).first() is not None:
        raise ReversalError(
            entry.voucher, "reverses an entry that is reversed already", "Post what that took away anew."
        )


@event.listens_for(JournalEntry, "after_insert", propagate=True)
def _remember_insert(mapper: Mapper[Any], connection: Connection, entry: JournalEntry) -> None:
    _posted_here(entry).add(entry.id)


@event.listens_for(JournalEntry, "before_update", propagate=True)
def _guard_entry(mapper: Mapper[Any], connection: Connection, entry: JournalEntry) -> None:
    changed = _changes(entry)
    if not changed:
        return
    here = _posted_here(entry)
    before = changed.get("status", entry.status) or entry.status
    if before == "posted" and entry.id not in here:
        raise PostedEntryError(entry.voucher, f"is posted, so its {', '.join(sorted(changed))} cannot change", _REMEDY)
    if "reverses_id" in changed and entry.reverses_id is not None:
        _check_reversal(mapper, connection, entry)
    if entry.status == "posted":
        here.add(entry.id)


@event.listens_for(JournalEntry, "before_delete", propagate=True)
def _guard_entry_delete(mapper: Mapper[Any], connection: Connection, entry: JournalEntry) -> None:
    status = connection.execute(select(_ENTRY.c.status).where(_ENTRY.c.id == entry.id)).scalar()
    if status == "posted" and entry.id not in _posted_here(entry):
        raise PostedEntryError(entry.voucher, "is posted and cannot be deleted", _REMEDY)


def _guard_line(connection: Connection, line: JournalLine, entry_id: int | None, doing: str) -> None:
    if entry_id is None or entry_id in _posted_here(line):
        return
    named = (_ENTRY.c.voucher_series, _ENTRY.c.voucher_number, _ENTRY.c.fiscal_year)
    query = select(_ENTRY.c.status, *named).where(_ENTRY.c.id == entry_id)
    entry = connection.execute(query).first()
    if entry is not None and entry.status == "posted":
        voucher = voucher_name(entry.voucher_series, entry.voucher_number, entry.fiscal_year)
        raise PostedEntryError(voucher, f"is posted, so {doing}", _REMEDY)


@event.listens_for(JournalLine, "before_insert", propagate=True)
def _guard_line_insert(mapper: Mapper[Any], connection: Connection, line: JournalLine) -> None:
    _guard_line(connection, line, line.general_ledger_id, "no line can be added to it")


@event.listens_for(JournalLine, "before_update", propagate=True)
def _guard_line_update(mapper: Mapper[Any], connection: Connection, line: JournalLine) -> None:
    changed = _changes(line)
    if not changed:
        return
    what = f"the {', '.join(sorted(changed))} of its line {line.line_number} cannot change"
    _guard_line(connection, line, line.general_ledger_id, what)
    if "general_ledger_id" in changed:
        _guard_line(connection, line, changed["general_ledger_id"], what)


@event.listens_for(JournalLine, "before_delete", propagate=True)
def _guard_line_delete(mapper: Mapper[Any], connection: Connection, line: JournalLine) -> None:
    _guard_line(connection, line, line.general_ledger_id, f"its line {line.line_number} cannot be deleted")
