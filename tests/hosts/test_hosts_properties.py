"""The same history on the ready-made models and on a host's: the same open items, applications and causes.

By hook, by backfill and by repair. What happened is drawn by ``ledger_sync.testing.histories`` from what the host's
classes can hold, played on both, and compared by voucher and line, since nothing else is alike.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from ledger_sync.binding import attribute
from ledger_sync.testing import Books, History, histories
from ledger_sync.testing.histories import DAYS
from tests.budget import examples
from tests.hosts.conftest import DATABASES, HOSTS, Engines
from tests.hosts.kit import Desk, Host
from tests.hosts.ready import READY

VARIANTS: tuple[dict[str, Any], ...] = ({}, {"effective_from": DAYS[2]}, {"settlement": "oldest_first"})
EXAMPLES = {"sqlite": examples(12), "postgresql": examples(4), "mariadb": examples(4)}


class PastTheGuards(Books):
    """The ready-made entries refuse to be changed once they are committed; so they are, past the ORM, and synced."""

    def change_line(self, entry: Any, line: Any, amount: Any, *, contra: str = "1920") -> None:
        if entry.status == "draft":
            super().change_line(entry, line, amount, contra=contra)
            return
        control = self.sync.settings.control_account(line.account_number)
        signed = Decimal(amount) if control is not None and control.side == "debit" else -Decimal(amount)
        table = self.binding.line.__table__
        key = entry.id
        changed = update(table).where(table.c.id == line.id).values(debit=signed, credit=0)
        self.session.connection().execute(changed)
        self.sync.sync_entries(self.session, [key])
        self.session.expire_all()

    def delete_entry(self, entry: Any) -> None:
        lines = self.lines(entry)
        key, keys = entry.id, [line.id for line in lines]
        connection = self.session.connection()
        link, line, head = (model.__table__ for model in (self.binding.link, self.binding.line, self.binding.entry))
        connection.execute(delete(link).where(link.c.line_id.in_(keys)))
        connection.execute(delete(line).where(line.c.id.in_(keys)))
        connection.execute(delete(head).where(head.c.id == key))
        for gone in (*lines, entry):
            self.session.expunge(gone)
        self.session.expire_all()
        self.sync.sync_entries(self.session, [key])


class Played:
    """A desk on which histories were played, one for each tenant, and what came of them."""

    def __init__(self, desk: Desk, books: type[Books]) -> None:
        self.desk = desk
        self.books_class = books
        self.names: dict[tuple[str, str], str] = {}
        self.parties: dict[tuple[str, Any], str] = {}

    def play(self, told: list[History]) -> None:
        desk = self.desk
        for tenant, history in enumerate(told):
            made = self.books_class(
                desk.sync, desk.session, desk.tenant(tenant), make=desk.host.make, post=desk.host.post
            )
            for name, found in made.play(history, commit=True).items():
                if name.startswith("document"):
                    self.names[made.bound(found)[1].name, bare(found.id)] = name
        desk.session.commit()
        for ledger in desk.binding.ledgers:
            for party in desk.session.scalars(select(ledger.party_model)):
                self.parties[ledger.name, party.id] = str(party.number)

    def _named(self, key: str | None) -> str | None:
        if key is None or key.startswith("ref:"):
            return key
        document, _, key = key.partition(":")
        return self.names.get((document, bare(key)), "gone")

    def items(self) -> dict[Any, Any]:
        """The open items by ledger, tenant, voucher and line."""
        desk, stored = self.desk, {}
        for ledger in desk.binding.ledgers:
            document_of = {
                source: name for c in desk.sync.settings.of_ledger(ledger.name) for source, name in c.sources.items()
            }
            for place, item in self._placed(ledger):
                source = document_of[desk.host.word(item.source_type)]
                stored[ledger.name, *place] = (
                    self.parties[ledger.name, getattr(item, ledger.party)],
                    self.names.get((source, bare(item.source_id)), "gone"),
                    self._named(item.settlement_key),
                    *(getattr(item, name, None) for name in ("invoice_number", "invoice_date", "due_date")),
                    *(desk.host.word(getattr(item, name)) for name in ("kind", "account_number", "entry_date")),
                    *(desk.host.word(getattr(item, name)) for name in ("amount", "remaining_amount", "status")),
                )
        return stored

    def applications(self) -> dict[Any, Decimal]:
        """What is settled by what, net, by voucher and line."""
        net: dict[Any, Decimal] = {}
        for ledger in self.desk.binding.ledgers:
            places = {item.general_ledger_line_id: place for place, item in self._placed(ledger)}
            for row in self.desk.session.scalars(select(ledger.application)):
                pair = tuple(places.get(line, "gone") for line in (row.from_line_id, row.to_line_id))
                net[ledger.name, pair] = net.get((ledger.name, pair), Decimal(0)) + row.amount
        return {pair: amount for pair, amount in net.items() if amount}

    def _placed(self, ledger: Any) -> list[tuple[Any, Any]]:
        entry, line = self.desk.binding.entry, self.desk.binding.line
        line_id = attribute(ledger.item, "general_ledger_line_id")
        query = (
            select(ledger.item, entry, line)
            .join(line, attribute(line, "id") == line_id)
            .join(entry, attribute(entry, "id") == attribute(line, "general_ledger_id"))
            .execution_options(populate_existing=True)
        )
        return [
            ((self._tenant(head), str(head.voucher_number), of.line_number), item)
            for item, head, of in self.desk.session.execute(query)
        ]

    def _tenant(self, target: Any) -> int:
        return self.desk.host.tenants.index(getattr(target, "tenant_id", None))

    def proved(self) -> Any:
        """The causes of each account and the findings, by tenant."""
        told: dict[Any, Any] = {}
        for index, tenant in enumerate(self.desk.host.tenants):
            proof = self.desk.sync.verify(self.desk.session, tenant)
            for account in proof.accounts:
                balances = (account.gl_balance, account.subledger_balance)
                causes = {(cause.name, cause.count, cause.amount) for cause in account.causes}
                told[index, account.account_number] = (*balances, causes)
            told[index, "findings"] = {(found.ledger, found.name, found.count) for found in proof.findings}
        self.desk.session.rollback()
        return told

    def state(self) -> Any:
        found = (self.items(), self.applications(), self.proved())
        self.desk.session.rollback()
        return found

    def forget(self) -> None:
        """Take every open item and application away, behind the hook."""
        with self.desk.engine.begin() as connection:
            for ledger in self.desk.binding.ledgers:
                connection.execute(delete(ledger.table))
                connection.execute(delete(ledger.application.__table__))

    def damage(self) -> None:
        """Take every other open item away, forge what is left of the others, and what settled what."""
        with self.desk.engine.begin() as connection:
            for ledger in self.desk.binding.ledgers:
                line_id, amount = ledger.column("general_ledger_line_id"), ledger.column("remaining_amount")
                lines = list(connection.scalars(select(line_id).order_by(line_id)))
                connection.execute(delete(ledger.table).where(line_id.in_(lines[::2])))
                connection.execute(update(ledger.table).values({amount: 0}))
                applications = ledger.application.__table__
                keys = list(connection.scalars(select(applications.c.id).order_by(applications.c.id)))
                connection.execute(delete(applications).where(applications.c.id.in_(keys[::3])))


def bare(key: Any) -> str:
    return str(key).replace("-", "")


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_a_history_comes_to_the_same_on_a_hosts_models_as_on_the_ready_made(
    host: Host, database: str, engines: Engines
) -> None:
    ledgers = [name for name in ("supplier", "customer") if name in {c.ledger for c in host.controls}]
    drawn = histories(host.sync(), ledgers=ledgers, edits=True)

    @settings(max_examples=EXAMPLES[database], suppress_health_check=list(HealthCheck))
    @given(st.lists(drawn, min_size=len(host.tenants[:2]), max_size=len(host.tenants[:2])), st.sampled_from(VARIANTS))
    def compare(told: list[History], variant: dict[str, Any]) -> None:
        ours = Played(Desk(READY, engines.of(READY, database), READY.sync(**variant)), PastTheGuards)
        theirs = Played(Desk(host, engines.of(host, database), host.sync(**variant)), Books)
        try:
            compare_played(ours, theirs, told)
        finally:
            ours.desk.close()
            theirs.desk.close()

    compare()


def compare_played(ours: Played, theirs: Played, told: list[History]) -> None:
    ours.play(told)
    expected = trimmed(ours.state(), theirs.desk.host)
    theirs.play(told)
    theirs.desk.synced()
    assert theirs.state() == expected, "by hook"
    theirs.forget()
    for tenant in theirs.desk.host.tenants:
        report = theirs.desk.sync.backfill(theirs.desk.history, tenant_id=tenant)
        assert report.clean
    assert theirs.state() == expected, "by backfill"
    theirs.damage()
    for tenant in theirs.desk.host.tenants:
        assert theirs.desk.sync.repair(theirs.desk.history, tenant_id=tenant).clean
    assert theirs.state() == expected, "by repair"


def trimmed(state: Any, host: Host) -> Any:
    """What the ready-made books say, of the ledgers and tenants that the host has."""
    items, applications, proved = state
    names = {control.ledger for control in host.controls}
    accounts = {account for control in host.controls for account in control.accounts}
    kept = {}
    for (tenant, what), told in proved.items():
        if tenant < len(host.tenants):
            if what == "findings":
                kept[tenant, what] = {found for found in told if found[0] in names}
            elif what in accounts:
                kept[tenant, what] = told
    return items, applications, kept
