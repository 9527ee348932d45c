"""Who has paid what, worked out item by item in plain Python over plain rows.

The package decides in window functions; this is the second opinion. It imports nothing from the package, reads the
tables by SQL text of its own (``read``), and settles as a person with two piles of vouchers would: the oldest
positive item against the oldest negative one until one of the two is used up (``walk``). Amounts are whole øre.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

LEDGERS = {
    "supplier": ("supplier_ledger", "supplier_applications", "supplier_id"),
    "customer": ("customer_ledger", "customer_applications", "customer_id"),
    "employee": ("employee_ledger", "employee_applications", "employee_id"),
}

Pair = tuple[Any, Any]
"""(from line, to line)"""


@dataclass(frozen=True)
class Item:
    """An open item. ``amount`` in øre; ``reversed_line`` is the line that a reversing entry's line mirrors."""

    line: Any
    tenant: str
    party: Any
    account: str
    key: str | None
    amount: int
    entry_date: date
    series: str
    number: str
    fiscal_year: int
    line_number: int
    reversed_line: Any = None

    @property
    def place(self) -> tuple[Any, ...]:
        """Where the item stands among those that it settles with."""
        number = (len(self.number), self.number)
        return (self.entry_date, self.series, *number, self.fiscal_year, self.line_number, self.line)

    @property
    def voucher(self) -> tuple[str, str, str, int, int]:
        """The item as people name it, whatever its ids are."""
        return (self.tenant, self.series, self.number, self.fiscal_year, self.line_number)


@dataclass(frozen=True)
class HandMade:
    """What a person appended: a ``manual`` amount in øre, a ``pin`` or its ``release``."""

    from_line: Any
    to_line: Any
    method: str
    amount: int
    applied_on: date


@dataclass
class Settlement:
    """The net application of each pair (none that is zero), and what is left of each item."""

    net: dict[Pair, int] = field(default_factory=dict)
    remaining: dict[Any, int] = field(default_factory=dict)
    status: dict[Any, str] = field(default_factory=dict)


def settle(
    items: Iterable[Item], hand_made: Iterable[HandMade] = (), mode: str = "reference", as_of: date | None = None
) -> Settlement:
    """Who has paid what among the items, now or at the end of a day."""
    if as_of is not None:
        items = [item for item in items if item.entry_date <= as_of]
        hand_made = [row for row in hand_made if row.applied_on <= as_of]
    there = {item.line: item for item in items}
    net: dict[Pair, int] = defaultdict(int)
    free = {line: abs(item.amount) for line, item in there.items()}

    def apply(from_line: Any, to_line: Any, amount: int) -> None:
        net[from_line, to_line] += amount
        free[from_line] -= amount
        free[to_line] -= amount
        assert free[from_line] >= 0, f"more is settled than there is of {there[from_line]}"
        assert free[to_line] >= 0, f"more is settled than there is of {there[to_line]}"

    reversed_lines: set[Any] = set()
    for item in there.values():
        old = there.get(item.reversed_line)
        if old is not None and old.amount == -item.amount and _alike(old, item):
            negative, positive = (item, old) if item.amount < 0 else (old, item)
            apply(negative.line, positive.line, positive.amount)
            reversed_lines |= {item.line, old.line}

    by_hand: dict[Pair, int] = defaultdict(int)
    pins: dict[Pair, int] = defaultdict(int)
    newest: dict[Pair, int] = {}
    for index, row in enumerate(hand_made):
        pair = (row.from_line, row.to_line)
        if row.method == "manual":
            by_hand[pair] += row.amount
            newest[pair] = index
        else:
            pins[pair] += {"pin": 1, "release": -1}[row.method]
    settled: dict[Any, int] = defaultdict(int)
    for pair in sorted(by_hand, key=newest.__getitem__):
        payment, invoice, amount = there.get(pair[0]), there.get(pair[1]), by_hand[pair]
        if payment is None or invoice is None or not _alike(payment, invoice):
            continue  # gone, or on two parties now
        if amount and not {*pair} & reversed_lines:
            assert amount > 0, "people have undone more than they settled"
            # people's limits may be broken later; then the newest give way
            room = min(abs(item.amount) - settled[item.line] for item in (payment, invoice))
            if room > 0:
                apply(*pair, min(amount, room))
            settled[payment.line] += amount
            settled[invoice.line] += amount
    pinned = {from_line for (from_line, _), count in pins.items() if count > 0}

    if mode != "off":
        groups: dict[Any, list[Item]] = defaultdict(list)
        for item in there.values():
            if item.key is not None and item.line not in pinned:
                groups[item.tenant, item.party, item.account, item.key].append(item)
        for group in groups.values():
            for from_line, to_line, amount in walk(group, free):
                apply(from_line, to_line, amount)
    if mode == "oldest_first":
        accounts: dict[Any, list[Item]] = defaultdict(list)
        for item in there.values():
            if item.line not in pinned:
                accounts[item.tenant, item.party, item.account].append(item)
        for group in accounts.values():
            for from_line, to_line, amount in walk(group, free):
                apply(from_line, to_line, amount)

    result = Settlement(net={pair: amount for pair, amount in net.items() if amount})
    for line, item in there.items():
        left = free[line] if item.amount > 0 else -free[line]
        result.remaining[line] = left
        result.status[line] = "paid" if left == 0 else "open" if left == item.amount else "partially_paid"
    return result


def walk(group: Sequence[Item], free: Mapping[Any, int]) -> list[tuple[Any, Any, int]]:
    """The oldest positive item against the oldest negative one, until one side has nothing left."""
    in_order = sorted((item for item in group if free[item.line]), key=lambda item: item.place)
    positive = [[item.line, free[item.line]] for item in in_order if item.amount > 0]
    negative = [[item.line, free[item.line]] for item in in_order if item.amount < 0]
    found = []
    at_positive = at_negative = 0
    while at_positive < len(positive) and at_negative < len(negative):
        owed, paid = positive[at_positive], negative[at_negative]
        amount = min(owed[1], paid[1])
        found.append((paid[0], owed[0], amount))
        owed[1] -= amount
        paid[1] -= amount
        at_positive += not owed[1]
        at_negative += not paid[1]
    return found


def _alike(one: Item, other: Item) -> bool:
    return (one.tenant, one.party, one.account) == (other.tenant, other.party, other.account)


# -- what the tables hold ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """One ledger as it stands in the database."""

    items: tuple[Item, ...]
    hand_made: tuple[HandMade, ...]
    state: Settlement

    def by_voucher(self) -> tuple[dict[Any, int], dict[Any, tuple[int, str]]]:
        """Net applications and what is left, by voucher and line instead of ids."""
        names = {item.line: item.voucher for item in self.items}
        net = {
            (names.get(one, one), names.get(other, other)): amount for (one, other), amount in self.state.net.items()
        }
        left = {names[line]: (amount, self.state.status[line]) for line, amount in self.state.remaining.items()}
        return net, left


def read(connection: Connection, ledger: str) -> Stored:
    """The open items, hand-made rows and net applications of one ledger, of all tenants."""
    ledger_table, application_table, party = LEDGERS[ledger]
    exact = connection.dialect.name == "sqlite"  # amounts are øre there, and kroner elsewhere

    def cents(value: Any) -> int:
        scaled = value if exact else Decimal(value) * 100
        assert scaled == int(scaled), f"{value} has a fraction of an øre"
        return int(scaled)

    def day(value: Any) -> date:
        return date.fromisoformat(value) if isinstance(value, str) else value

    items, state = [], Settlement()
    query = f"""
        SELECT i.general_ledger_line_id, i.tenant_id, i.{party}, i.account_number, i.settlement_key, i.amount,
               i.entry_date, e.voucher_series, e.voucher_number, e.fiscal_year, l.line_number,
               CASE WHEN i.kind = 'reversal' THEN (
                   SELECT o.id FROM general_ledger_lines o
                   WHERE o.general_ledger_id = e.reverses_id AND o.line_number = l.line_number) END,
               i.remaining_amount, i.status
        FROM {ledger_table} i
        JOIN general_ledger_lines l ON l.id = i.general_ledger_line_id
        JOIN general_ledger e ON e.id = l.general_ledger_id
        ORDER BY 1"""
    for line, tenant, party_id, account, key, amount, on, *voucher, old, left, status in connection.execute(
        text(query)
    ):
        items.append(Item(line, tenant, party_id, account, key, cents(amount), day(on), *voucher, old))
        state.remaining[line] = cents(left)
        state.status[line] = status
    hand_made = []
    net: dict[Pair, int] = defaultdict(int)
    query = f"SELECT from_line_id, to_line_id, method, amount, applied_on FROM {application_table} ORDER BY id"
    for from_line, to_line, method, amount, on in connection.execute(text(query)):
        net[from_line, to_line] += cents(amount)
        if method in ("manual", "pin", "release"):
            hand_made.append(HandMade(from_line, to_line, method, cents(amount), day(on)))
    state.net = {pair: amount for pair, amount in net.items() if amount}
    return Stored(tuple(items), tuple(hand_made), state)


def assert_settled(connection: Connection, mode: str = "reference", ledgers: Iterable[str] = LEDGERS) -> None:
    """The tables say what the oracle says of the items and hand-made rows in them."""
    for ledger in ledgers:
        stored = read(connection, ledger)
        expected = settle(stored.items, stored.hand_made, mode)
        named = Stored(stored.items, (), expected).by_voucher()
        assert stored.by_voucher() == named, f"the {ledger} ledger is not settled as the oracle says"
        amounts: dict[Any, list[int]] = defaultdict(list)
        for item in stored.items:
            left = stored.state.remaining[item.line]
            assert 0 <= left <= item.amount or item.amount <= left <= 0, f"{item} has {left} left"
            amounts[item.tenant, item.party, item.account].append(item.amount - left)
        assert all(sum(settled) == 0 for settled in amounts.values()), "what is settled does not balance per party"
