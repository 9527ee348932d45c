"""What a person settles or takes apart, and the limits of it.

``settle`` appends a hand-made application, ``unsettle`` undoes one or pins an automatic one apart, ``release``
takes the pin away. Nothing is ever deleted. Automatic applications give way to hand-made ones, so what can be
settled by hand is what reversals and other hand-made rows leave of both items. Each call holds the party's
bucket and the two rows, so two sessions that settle the same item never settle more than there is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, func, inspect, or_, select
from sqlalchemy.orm import Session

from ledger_sync.attributes import key_held
from ledger_sync.binding import Binding, Ledger
from ledger_sync.decisions import Decision, append_once, key_taken, used
from ledger_sync.errors import SettlementError
from ledger_sync.models.types import ZERO, exact
from ledger_sync.results import Result
from ledger_sync.writer import Writer


class Application(Result):
    """One row that a person's call appended: what it took from one item and put on the other, and when.

    ``from_line_id`` is the line of the payment or credit, ``to_line_id`` that of the invoice. ``amount`` is
    negative for an undoing, and zero for a ``pin`` or its ``release``.
    """

    ledger: str
    tenant_id: Any
    from_line_id: Any
    to_line_id: Any
    amount: Decimal
    applied_on: date
    method: str
    actor: str | None
    reason: str | None
    idempotency_key: str | None


@dataclass(frozen=True)
class _Same:
    """What a call appends, and by which amount of its row the call before it was the same one."""

    method: str
    amount: Callable[[Decimal], bool] = lambda _: True

    def __contains__(self, row: Any) -> bool:
        return row.method == self.method and self.amount(row.amount)


@dataclass(frozen=True)
class _Pair:
    """Two items as the database has them, under lock: the negative one and the positive one."""

    ledger: Ledger
    payment: Any
    invoice: Any
    names: tuple[str, str]

    def refuse(self, problem: str, remedy: str) -> SettlementError:
        return SettlementError(self.names, problem, remedy)


class ByHand:
    """Hand-made settlements of one binding. The methods return what was appended and which items changed."""

    def __init__(self, binding: Binding, writer: Writer) -> None:
        self.binding = binding
        self.writer = writer
        self.settings = writer.settings

    def settle(
        self, session: Session, from_item: object, to_item: object, amount: object, decision: Decision
    ) -> tuple[Application, tuple[Any, ...]]:
        """Settle an amount (all that is left, unless given) of one item against another.

        :raises SettlementError: the items are of two ledgers, tenants, parties or control accounts, or on one
            side; the amount is not positive or beyond what is left; the date is closed or too early.
        """
        connection, pair = self._locked(session, from_item, to_item)
        given = None if amount is None else exact("amount", amount)
        same = _Same("manual", lambda settled: settled > 0 and given in (None, settled))
        if (before := self._repeated(session, pair, decision, same)) is not None:
            return before, ()
        on = self._day(pair, decision)
        left = min(self._left(connection, pair.ledger, item, on) for item in (pair.payment, pair.invoice))
        if given is None and left <= 0:
            raise pair.refuse("have nothing left to settle with one another", "Unsettle what took it first.")
        value = left if given is None else given
        if value <= 0:
            raise pair.refuse(f"cannot be settled by {value}", "Give a positive amount, or use unsettle.")
        if value > left:
            raise pair.refuse(
                f"cannot be settled by {value}: reversals and hand-made settlements leave {left}",
                f"Give at most {left}, or unsettle what took the rest.",
            )
        return self._append(session, connection, pair, value, on, decision, same)

    def unsettle(
        self, session: Session, from_item: object, to_item: object, decision: Decision
    ) -> tuple[Application, tuple[Any, ...]]:
        """Undo what was settled by hand between two items; or, if that was automatic, pin them apart.

        A pinned payment takes no part in automatic settlement until it is released, whatever else is settled by hand.

        :raises SettlementError: the two are not settled with one another, or by a reversal.
        """
        connection, pair = self._locked(session, from_item, to_item)
        undoing = _Same("manual", lambda amount: amount < 0)
        pinning = _Same("pin")
        if (before := self._repeated(session, pair, decision, undoing, pinning)) is not None:
            return before, ()
        net = self._net(connection, pair)
        if by_hand := net.get("manual", ZERO):
            on = self._day(pair, decision, self._last(connection, pair, "manual"))
            return self._append(session, connection, pair, -by_hand, on, decision, undoing)
        if net.get("reference") or net.get("oldest_first"):
            return self._append(session, connection, pair, ZERO, self._day(pair, decision), decision, pinning)
        if net.get("reversal"):
            raise pair.refuse("cancel one another by a reversal", "Post what the reversal took away anew.")
        raise pair.refuse("are not settled with one another", "Look at their applications for what settled them.")

    def release(
        self, session: Session, from_item: object, to_item: object, decision: Decision
    ) -> tuple[Application, tuple[Any, ...]]:
        """Take back the pin that keeps a payment out of automatic settlement.

        :raises SettlementError: the two are not pinned apart.
        """
        connection, pair = self._locked(session, from_item, to_item)
        same = _Same("release")
        if (before := self._repeated(session, pair, decision, same)) is not None:
            return before, ()
        if not self._pinned(connection, pair):
            raise pair.refuse("are not pinned apart", "There is nothing to release.")
        on = self._day(pair, decision, self._last(connection, pair, "pin"))
        return self._append(session, connection, pair, ZERO, on, decision, same)

    # -- the pair --------------------------------------------------------------------------------------

    def _locked(self, session: Session, from_item: object, to_item: object) -> tuple[Connection, _Pair]:
        ledger = self._ledger_of(from_item)
        other = self._ledger_of(to_item)
        ids = [key_held(item) for item in (from_item, to_item)]
        names = tuple(
            f"{owner.table.name} item {'(not flushed)' if key is None else key}"
            for owner, key in zip((ledger, other), ids, strict=True)
        )
        both = (names[0], names[1])
        if ledger is not other:
            raise SettlementError(both, "are of two ledgers", "Settle items of one ledger.")
        if None in ids:
            raise SettlementError(both, "are not in the database yet", "Flush the session first.")
        if ids[0] == ids[1]:
            raise SettlementError(both, "are one and the same", "Settle a payment or credit against an invoice.")
        session.flush()
        connection = session.connection(bind_arguments={"mapper": inspect(ledger.item)})
        first = self._rows(connection, ledger, ids, lock=False)
        if len(first) < 2:
            raise SettlementError(both, "are not both there any more", "Load them again.")
        if first[0].tenant_id != first[1].tenant_id:
            raise SettlementError(both, "are not of one tenant", "Settle items of one tenant.")
        self.writer.settler.lock(connection, ledger, {(row.tenant_id, row.party_id) for row in first})
        rows = self._rows(connection, ledger, ids, lock=True)
        if len(rows) < 2:
            raise SettlementError(both, "are not both there any more", "Load them again.")
        if rows[0].party_id != rows[1].party_id:
            raise SettlementError(both, "are of two parties", "Settle items of one party.")
        if rows[0].account_number != rows[1].account_number:
            raise SettlementError(both, "are on two control accounts", "Settle items of one control account.")
        payment, invoice = sorted(rows, key=lambda row: row.amount)
        if payment.amount > 0 or invoice.amount < 0:
            raise SettlementError(both, "are on the same side", "Settle a payment or credit against an invoice.")
        return connection, _Pair(ledger, payment, invoice, both)

    def _ledger_of(self, item: object) -> Ledger:
        for ledger in self.binding.ledgers:
            if isinstance(item, ledger.item):
                return ledger
        known = ", ".join(ledger.item.__name__ for ledger in self.binding.ledgers)
        raise TypeError(f"{item!r} is not an open item. Give a {known} object.")

    @staticmethod
    def _rows(connection: Connection, ledger: Ledger, keys: list[Any], *, lock: bool) -> list[Any]:
        names = ("id", "tenant_id", "party_id", "account_number", "amount", "entry_date", "general_ledger_line_id")
        key = ledger.column("id")
        query = select(*(ledger.expression(name).label(name) for name in names)).where(key.in_(keys)).order_by(key)
        return list(connection.execute(query.with_for_update() if lock else query))

    def _net(self, connection: Connection, pair: _Pair) -> dict[str, Decimal]:
        a = pair.ledger.application.__table__
        query = (
            select(a.c.method, func.sum(a.c.amount).label("amount"))
            .where(a.c.from_line_id == pair.payment.general_ledger_line_id)
            .where(a.c.to_line_id == pair.invoice.general_ledger_line_id)
            .group_by(a.c.method)
        )
        return {row.method: row.amount for row in connection.execute(query)}

    def _left(self, connection: Connection, ledger: Ledger, item: Any, on: date) -> Decimal:
        """What reversals and hand-made settlements leave of an item from a day on; automatic ones give way."""
        a, line = ledger.application.__table__, item.general_ledger_line_id
        query = (
            select(a.c.applied_on, func.sum(a.c.amount).label("amount"))
            .where(or_(a.c.from_line_id == line, a.c.to_line_id == line))
            .where(a.c.method.in_(("manual", "undone", "reversal")))
            .group_by(a.c.applied_on)
            .order_by(a.c.applied_on)
        )
        days = list(connection.execute(query))
        taken = sum((day.amount for day in days if day.applied_on <= on), ZERO)
        most = taken
        for day in days:
            if day.applied_on > on:
                taken += day.amount
                most = max(most, taken)
        magnitude: Decimal = abs(item.amount)
        return magnitude - most

    @staticmethod
    def _last(connection: Connection, pair: _Pair, method: str) -> date | None:
        """The last day on which somebody did this to the pair."""
        a = pair.ledger.application.__table__
        query = (
            select(func.max(a.c.applied_on))
            .where(a.c.from_line_id == pair.payment.general_ledger_line_id)
            .where(a.c.to_line_id == pair.invoice.general_ledger_line_id)
            .where(a.c.method == method)
        )
        last: date | None = connection.scalar(query)
        return last

    @staticmethod
    def _pinned(connection: Connection, pair: _Pair) -> bool:
        a = pair.ledger.application.__table__
        query = (
            select(a.c.method)
            .where(a.c.from_line_id == pair.payment.general_ledger_line_id)
            .where(a.c.to_line_id == pair.invoice.general_ledger_line_id)
            .where(a.c.method.in_(("pin", "release")))
        )
        methods = list(connection.scalars(query))
        return methods.count("pin") > methods.count("release")

    def _day(self, pair: _Pair, decision: Decision, undoes: date | None = None) -> date:
        """The day that a decision counts from; ``undoes`` is that of what it takes back.

        :raises SettlementError: the day is closed, or before both items or what is taken back were there.
        """
        there = max(pair.payment.entry_date, pair.invoice.entry_date)
        earliest = max(there, undoes or there)
        on = decision.on or max(date.today(), earliest)  # noqa: DTZ011 - a bookkeeping date, in the host's own zone
        if on < there:
            raise pair.refuse(f"cannot be settled on {on}, before both are there", f"Date it {there} or later.")
        if on < earliest:
            raise pair.refuse(
                f"cannot be taken apart on {on}: what is taken back is of {earliest}", f"Date it {earliest} or later."
            )
        closed = self.settings.closed_until(pair.invoice.tenant_id)
        if closed is not None and on <= closed:
            raise pair.refuse(f"cannot be settled on {on}: the books are closed through {closed}", "Give a later date.")
        return on

    # -- appending -------------------------------------------------------------------------------------

    def _repeated(self, session: Session, pair: _Pair, decision: Decision, *same: _Same) -> Application | None:
        """What the same call appended before, if it was made before.

        :raises SettlementError: another call has used the key, whatever for.
        """
        found = used(session, self.binding, pair.invoice.tenant_id, decision.idempotency_key)
        if found is None:
            return None
        model, row = found
        lines = (pair.payment.general_ledger_line_id, pair.invoice.general_ledger_line_id)
        is_same = model is pair.ledger.application and (row.from_line_id, row.to_line_id) == lines
        if not is_same or not any(row in call for call in same):
            raise pair.refuse(*key_taken(decision.idempotency_key))
        fields = {name: getattr(row, name) for name in Application.model_fields if name != "ledger"}
        return Application(ledger=pair.ledger.name, **fields)

    def _append(
        self,
        session: Session,
        connection: Connection,
        pair: _Pair,
        amount: Decimal,
        on: date,
        decision: Decision,
        call: _Same,
    ) -> tuple[Application, tuple[Any, ...]]:
        application = Application(
            ledger=pair.ledger.name,
            tenant_id=pair.invoice.tenant_id,
            from_line_id=pair.payment.general_ledger_line_id,
            to_line_id=pair.invoice.general_ledger_line_id,
            amount=amount,
            applied_on=on,
            method=call.method,
            actor=decision.actor,
            reason=decision.reason,
            idempotency_key=decision.idempotency_key,
        )
        values = application.model_dump(exclude={"ledger"})
        # who has another party's bucket may use the same key meanwhile
        append_once(
            connection,
            decision.idempotency_key,
            lambda: self.writer.settler.append(connection, pair.ledger, **values),
            pair.refuse(*key_taken(decision.idempotency_key)),
        )
        lines = {application.from_line_id, application.to_line_id}
        settled = self.writer.settler.settle(
            connection, pair.ledger, lines, set(), caused_on=on, recount=True, by_hand=amount
        )
        for row in settled:
            loaded = session.identity_map.get(session.identity_key(pair.ledger.item, pair.ledger.identity(row)))
            if loaded is not None:
                session.expire(loaded)
        return application, settled
