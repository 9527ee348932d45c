"""Whatever is done to the tables behind the hook, the proof names it, and a repair mends it.

Books are posted through an attached session and then damaged by plain SQL. What must be found is worked out in plain
Python over plain rows: the classification is the oracle's of ``tests.oracle``, the settling the one of
``tests.settlement_oracle``. Tenant ``a`` is damaged, ``b`` has books of its own that nobody touches, and ``c`` has
parties only: documents and rows are moved there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, currently_in_test_context, event, given, note, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync, Settings, proof
from ledger_sync.models import (
    Base,
    Customer,
    CustomerInvoice,
    CustomerPayment,
    JournalEntry,
    JournalLine,
    Vendor,
    VendorInvoice,
    VendorPayment,
)
from ledger_sync.proof import Proof
from ledger_sync.settings import ControlAccount
from tests.budget import EXAMPLES
from tests.conftest import empty
from tests.oracle import NORWEGIAN, Books, Rules, assert_synced, classify, read_books, read_items
from tests.settlement_oracle import Item, assert_settled, settle

RULES = Rules(controls=NORWEGIAN[:2])
DAYS = [date(2026, 1, 1) + timedelta(days=10 * index) for index in range(4)]

# party 1 and 2 are the vendors, or customers, of tenant a; 3 and 4 of b; 5 of c
PARTIES = {"a": (1, 2), "b": (3, 4), "c": (5,)}
TABLES = {
    "supplier": {"items": "supplier_ledger", "applications": "supplier_applications", "party": "supplier_id"},
    "customer": {"items": "customer_ledger", "applications": "customer_applications", "party": "customer_id"},
}
DOCUMENTS = {
    "supplier": {"invoice": "vendor_invoice", "payment": "vendor_payment", "party": "vendor_id", "account": "2400"},
    "customer": {"invoice": "customer_invoice", "payment": "customer_payment", "party": "customer_id"},
}
MODELS: dict[str, Any] = {
    "vendor_invoice": VendorInvoice,
    "vendor_payment": VendorPayment,
    "customer_invoice": CustomerInvoice,
    "customer_payment": CustomerPayment,
}
ACCOUNTS = {"supplier": "2400", "customer": "1500"}

# -- what is drawn ----------------------------------------------------------------------------------------

ledgers = st.sampled_from(["supplier", "supplier", "customer"])
nth = st.integers(0, 7)
amounts = st.sampled_from(["100", "100", "60", "40", "0.01", "33.33"]).map(Decimal)
posting_plans = st.fixed_dictionaries(
    {
        "act": st.sampled_from(
            [
                "invoice",
                "invoice",
                "invoice",
                "payment",
                "payment",
                "payment",
                "credit_note",
                "manual",
                "unsupported",
                "not_found",
                "zero",
                "draft",
            ]
        ),
        "tenant": st.sampled_from(["a", "a", "a", "b"]),
        "ledger": ledgers,
        "party": st.sampled_from([0, 0, 1]),
        "amount": amounts,
        "day": st.sampled_from(DAYS),
        "reference": st.sampled_from(["K1", "K1", "K2", " k 1", None]),
        "reversed": st.integers(0, 4).map(lambda roll: roll == 0),
        "nth": nth,
    }
)
histories = st.lists(posting_plans, min_size=3, max_size=9)

SUBLEDGER_ONLY = (
    "item_deleted",
    "item_amount_changed",
    "item_party_changed",
    "item_account_changed",
    "item_moved_to_another_tenant",
    "item_invented",
    "item_invented_for_a_line_that_has_none",
    "copied_column_changed",
    "status_forged",
    "remaining_amount_forged",
    "application_amount_changed",
    "application_invented",
    "application_deleted",
    "two_errors_that_cancel",
)
BOOKS_TOO = (
    "line_written_past_the_hook",
    "line_amount_changed",
    "entry_taken_back",
    "document_moved_to_another_tenant",
    "document_edited",
)
defect_plans = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(SUBLEDGER_ONLY + BOOKS_TOO),
        "ledger": ledgers,
        "nth": nth,
        "other": nth,
        "cents": st.sampled_from([1, 100, 10_000]),
        "choice": st.integers(0, 2),
    }
)
damages = st.lists(defect_plans, min_size=1, max_size=4)


# -- books and what is done to them --------------------------------------------------------------------------


@cache
def the_sync() -> LedgerSync:
    """Small batches, so that a repair takes several; one instance, so that its statements are built once."""
    controls = (
        ControlAccount(accounts=("2400",), ledger="supplier"),
        ControlAccount(accounts=("1500",), ledger="customer"),
    )
    return LedgerSync(Settings(control_accounts=controls, batch_lines_max=3))


@dataclass
class World:
    """Books on one database, and the SQL that damages them. Amounts in raw SQL are øre here, and scaled there."""

    engine: Engine
    numbers: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        self.sync = the_sync()
        self.factory = sessionmaker(self.engine)
        self.sync.attach(self.factory)
        self.exact = self.engine.dialect.name == "sqlite"
        empty(self.engine)
        with self.engine.begin() as connection:
            for tenant, ids in PARTIES.items():
                for party in ids:
                    values = {
                        "id": party,
                        "tenant_id": tenant,
                        "number": f"{tenant}{party}",
                        "name": f"{tenant}{party}",
                    }
                    connection.execute(Vendor.__table__.insert().values(values))
                    connection.execute(Customer.__table__.insert().values(values))

    # -- posting

    def post(self, history: list[dict[str, Any]]) -> World:
        """The history through an attached session: documents, then entries, then reversals."""
        with self.factory() as session:
            documents: list[Any] = []
            for plan in history:
                document = self._document(plan, documents)
                if document is not None:
                    session.add(document)
                    session.flush()
                documents.append(document)
            entries = [self._entry(plan, document) for plan, document in zip(history, documents, strict=True)]
            session.add_all(entries)
            session.flush()
            for plan, entry in zip(history, entries, strict=True):
                if plan["reversed"] and entry.status == "posted":
                    session.add(entry.reverse(plan["day"] + timedelta(days=5)))
            session.commit()
        return self

    def _document(self, plan: dict[str, Any], before: list[Any]) -> Any:
        act, ledger, tenant = plan["act"], plan["ledger"], plan["tenant"]
        if act in ("manual", "unsupported", "not_found"):
            return None
        names = DOCUMENTS[ledger]
        values: dict[str, Any] = {
            "tenant_id": tenant,
            names["party"]: PARTIES[tenant][plan["party"]],
            "amount": plan["amount"],
            "payment_reference": plan["reference"],
        }
        if act == "payment":
            return MODELS[names["payment"]](payment_date=plan["day"], **values)
        self.numbers["invoice"] += 1
        values |= {"invoice_number": f"{tenant}-{self.numbers['invoice']}", "invoice_date": plan["day"]}
        values |= {"due_date": plan["day"] + timedelta(days=14)}
        model = MODELS[names["invoice"]]
        if act == "credit_note":
            credited = [d for d in before if type(d) is model and d.tenant_id == tenant and d.kind == "invoice"]
            values |= {"kind": "credit_note", "payment_reference": None}
            if credited:
                values["credits_id"] = credited[plan["nth"] % len(credited)].id
        return model(**values)

    def _entry(self, plan: dict[str, Any], document: Any) -> JournalEntry:
        act, ledger = plan["act"], plan["ledger"]
        self.numbers["voucher"] += 1
        source: tuple[str | None, int | None] = (None, None)
        if document is not None:
            source = (DOCUMENTS[ledger]["payment" if act == "payment" else "invoice"], document.id)
        elif act == "unsupported":
            source = ("payroll", 1)
        elif act == "not_found":
            source = (DOCUMENTS[ledger]["invoice"], 99_999)
        entry = JournalEntry(
            tenant_id=plan["tenant"],
            voucher_series=plan["tenant"] * 3,
            voucher_number=self.numbers["voucher"],
            entry_date=plan["day"],
            source_type=source[0],
            source_id=source[1],
        )
        amount = Decimal(0) if act == "zero" else plan["amount"]
        if act in ("payment", "credit_note"):
            amount = -amount
        amount = -amount if ledger == "supplier" else amount  # debit less credit
        entry.lines.append(JournalLine(account_number=ACCOUNTS[ledger], debit=amount))
        entry.lines.append(JournalLine(account_number="1920", debit=-amount))
        if act != "draft":
            entry.post()
        return entry

    # -- damaging

    def damage(self, plans: list[dict[str, Any]]) -> list[str]:
        """Do what the plans say; the kinds of those that found something to damage."""
        done = []
        for plan in plans:
            with self.engine.begin() as connection:
                damaged = getattr(self, f"_{plan['kind']}")(connection, plan)
            if damaged is not False:
                done.append(plan["kind"])
        if currently_in_test_context():
            note(f"done: {done}")
            for kind in done:
                event(kind)
        return done

    def money(self, cents: int) -> Any:
        return cents if self.exact else Decimal(cents).scaleb(-2)

    def cents(self, stored: Any) -> int:
        return int(stored) if self.exact else int(stored * 100)

    def run(self, connection: Connection, statement: str, **values: Any) -> None:
        connection.execute(text(statement), values)

    def pick(self, connection: Connection, query: str, index: int) -> Any:
        rows = connection.execute(text(query)).mappings().all()
        return rows[index % len(rows)] if rows else None

    def item(self, connection: Connection, plan: dict[str, Any], which: str = "nth", where: str = "1 = 1") -> Any:
        table = TABLES[plan["ledger"]]["items"]
        found = self.pick(
            connection, f"SELECT * FROM {table} WHERE tenant_id = 'a' AND {where} ORDER BY id", plan[which]
        )
        return found and {**found, "cents": self.cents(found["amount"]), "left": self.cents(found["remaining_amount"])}

    def alter(self, connection: Connection, plan: dict[str, Any], item: Any, changes: str, **values: Any) -> None:
        table = TABLES[plan["ledger"]]["items"]
        self.run(connection, f"UPDATE {table} SET {changes} WHERE id = :id", id=item["id"], **values)

    def _item_deleted(self, connection: Connection, plan: dict[str, Any]) -> Any:
        item = self.item(connection, plan)
        if item is None:
            return False
        self.run(connection, f"DELETE FROM {TABLES[plan['ledger']]['items']} WHERE id = :id", id=item["id"])
        return item

    def _item_amount_changed(self, connection: Connection, plan: dict[str, Any]) -> Any:
        item = self.item(connection, plan)
        if item is None:
            return False
        sign = 1 if item["cents"] > 0 else -1
        if plan["choice"]:
            # what remains has to stay within the amount
            self.alter(
                connection, plan, item, "amount = :amount", amount=self.money(item["cents"] + sign * plan["cents"])
            )
        else:
            least = self.money(sign)
            self.alter(connection, plan, item, "amount = :amount, remaining_amount = :amount", amount=least)
        return True

    def _item_party_changed(self, connection: Connection, plan: dict[str, Any]) -> Any:
        item, party = self.item(connection, plan), TABLES[plan["ledger"]]["party"]
        if item is None:
            return False
        self.alter(connection, plan, item, f"{party} = :party", party={1: 2, 2: 1}[item[party]])
        return True

    def _item_account_changed(self, connection: Connection, plan: dict[str, Any]) -> Any:
        item = self.item(connection, plan)
        if item is None:
            return False
        self.alter(connection, plan, item, "account_number = '2999'")
        return True

    def _item_moved_to_another_tenant(self, connection: Connection, plan: dict[str, Any]) -> Any:
        # an invented one would be the other tenant's orphan from then on
        item = self.item(connection, plan, where="general_ledger_id < 90000")
        if item is None:
            return False
        self.alter(connection, plan, item, f"tenant_id = 'c', {TABLES[plan['ledger']]['party']} = 5")
        return True

    def invent(self, connection: Connection, plan: dict[str, Any], line_id: int, cents: int) -> None:
        self.numbers["invented"] += 1
        names, like = TABLES[plan["ledger"]], self.item(connection, plan, "other")
        self.run(
            connection,
            f"""INSERT INTO {names["items"]} (tenant_id, general_ledger_id, general_ledger_line_id, account_number,
                {names["party"]}, source_type, source_id, kind, entry_date, currency, amount, remaining_amount, status,
                settlement_key)
            VALUES ('a', 90000, :line_id, :account, :party, 'vendor_invoice', 90000, 'invoice', :day, 'NOK', :amount,
                :amount, 'open', :key)""",
            line_id=line_id,
            account=ACCOUNTS[plan["ledger"]],
            party=1 + plan["choice"] % 2,
            # later than all others, each on a day of its own: it has no voucher that would order it
            day=str(date(2026, 6, 1) + timedelta(days=self.numbers["invented"])) if self.exact
            else date(2026, 6, 1) + timedelta(days=self.numbers["invented"]),
            amount=self.money(cents),
            key=like["settlement_key"] if like is not None and plan["choice"] else None,
        )  # fmt: skip

    def _item_invented(self, connection: Connection, plan: dict[str, Any]) -> Any:
        self.invent(connection, plan, 90_000 + self.numbers["invented"], plan["cents"] * (1 if plan["nth"] % 2 else -1))
        return True

    def _item_invented_for_a_line_that_has_none(self, connection: Connection, plan: dict[str, Any]) -> Any:
        line = self.pick(
            connection,
            f"""SELECT l.id FROM general_ledger_lines l JOIN general_ledger e ON e.id = l.general_ledger_id
            WHERE e.tenant_id = 'a' AND l.account_number = '{ACCOUNTS[plan["ledger"]]}'
            AND l.id NOT IN (SELECT general_ledger_line_id FROM {TABLES[plan["ledger"]]["items"]}) ORDER BY l.id""",
            plan["nth"],
        )
        if line is None:
            return False
        self.invent(connection, {**plan, "choice": 0}, line["id"], plan["cents"])
        return True

    def _copied_column_changed(self, connection: Connection, plan: dict[str, Any]) -> Any:
        item = self.item(connection, plan)
        if item is None:
            return False
        changes = ("invoice_number = 'forged'", "due_date = '2031-01-01'", "settlement_key = 'ref:FORGED'")
        self.alter(connection, plan, item, changes[plan["choice"]])
        return True

    def _status_forged(self, connection: Connection, plan: dict[str, Any]) -> Any:
        item = self.item(connection, plan)
        if item is None:
            return False
        others = [status for status in ("open", "partially_paid", "paid") if status != item["status"]]
        self.alter(connection, plan, item, "status = :status", status=others[plan["choice"] % 2])
        return True

    def _remaining_amount_forged(self, connection: Connection, plan: dict[str, Any]) -> Any:
        item = self.item(connection, plan)
        if item is None:
            return False
        forged = 0 if item["left"] else item["cents"]
        self.alter(connection, plan, item, "remaining_amount = :left", left=self.money(forged))
        return True

    def application(self, connection: Connection, plan: dict[str, Any]) -> Any:
        table = TABLES[plan["ledger"]]["applications"]
        return self.pick(connection, f"SELECT * FROM {table} WHERE tenant_id = 'a' ORDER BY id", plan["nth"])

    def _application_amount_changed(self, connection: Connection, plan: dict[str, Any]) -> Any:
        row, table = self.application(connection, plan), TABLES[plan["ledger"]]["applications"]
        cents = 0 if row is None else self.cents(row["amount"]) - plan["cents"]
        if not cents:
            return False  # none there, or nothing would be left, which a check refuses
        self.run(connection, f"UPDATE {table} SET amount = :n WHERE id = :id", n=self.money(cents), id=row["id"])
        return True

    def _application_deleted(self, connection: Connection, plan: dict[str, Any]) -> Any:
        row, table = self.application(connection, plan), TABLES[plan["ledger"]]["applications"]
        if row is None:
            return False
        self.run(connection, f"DELETE FROM {table} WHERE id = :id", id=row["id"])
        return True

    def _application_invented(self, connection: Connection, plan: dict[str, Any]) -> Any:
        one, other = self.item(connection, plan), self.item(connection, plan, "other")
        if one is None or one["id"] == other["id"]:
            return False
        self.run(
            connection,
            f"""INSERT INTO {TABLES[plan["ledger"]]["applications"]}
                (tenant_id, from_line_id, to_line_id, amount, applied_on, method, created_at)
            VALUES ('a', :one, :other, :amount, '2026-02-01', 'reference', '2026-02-01 00:00:00')""",
            one=one["general_ledger_line_id"],
            other=other["general_ledger_line_id"],
            amount=self.money(plan["cents"]),
        )
        return True

    def _two_errors_that_cancel(self, connection: Connection, plan: dict[str, Any]) -> Any:
        gone = self._item_deleted(connection, plan)
        if gone is False:
            return False
        self.invent(connection, {**plan, "choice": 0}, 90_000 + self.numbers["invented"], gone["cents"])
        return True

    def _line_written_past_the_hook(self, connection: Connection, plan: dict[str, Any]) -> Any:
        names, ledger = DOCUMENTS[plan["ledger"]], plan["ledger"]
        invoice = self.pick(
            connection, f"SELECT id FROM {names['invoice']}s WHERE tenant_id = 'a' ORDER BY id", plan["nth"]
        )
        self.numbers["past"] += 1
        sourced = invoice is not None and plan["choice"] > 0
        self.run(
            connection,
            """INSERT INTO general_ledger
                (tenant_id, fiscal_year, voucher_series, voucher_number, entry_date, status, source_type, source_id)
            VALUES ('a', 2026, 'past', :number, '2026-03-01', 'posted', :type, :id)""",
            number=str(self.numbers["past"]),
            type=names["invoice"] if sourced else None,
            id=invoice["id"] if sourced else None,
        )
        entry = self.pick(connection, "SELECT max(id) AS id FROM general_ledger", 0)
        self.run(
            connection,
            f"""INSERT INTO general_ledger_lines
                (general_ledger_id, line_number, account_number, debit, credit, currency)
            VALUES (:id, 1, '{ACCOUNTS[ledger]}', :amount, 0, 'NOK'), (:id, 2, '1920', :against, 0, 'NOK')""",
            id=entry["id"],
            amount=self.money(plan["cents"]),
            against=self.money(-plan["cents"]),
        )
        return True

    def control_line(self, connection: Connection, plan: dict[str, Any]) -> Any:
        return self.pick(
            connection,
            f"""SELECT l.id, l.general_ledger_id FROM general_ledger_lines l
            JOIN general_ledger e ON e.id = l.general_ledger_id
            WHERE e.tenant_id = 'a' AND e.status = 'posted' AND l.account_number = '{ACCOUNTS[plan["ledger"]]}'
            ORDER BY l.id""",
            plan["nth"],
        )

    def _line_amount_changed(self, connection: Connection, plan: dict[str, Any]) -> Any:
        line, change = self.control_line(connection, plan), self.money(plan["cents"])
        if line is None:
            return False
        statement = "UPDATE general_ledger_lines SET debit = debit + :change WHERE id = :id"
        self.run(connection, statement, change=change, id=line["id"])
        return True

    def _entry_taken_back(self, connection: Connection, plan: dict[str, Any]) -> Any:
        line = self.control_line(connection, plan)
        if line is None:
            return False
        self.run(connection, "UPDATE general_ledger SET status = 'draft' WHERE id = :id", id=line["general_ledger_id"])
        return True

    def _document_moved_to_another_tenant(self, connection: Connection, plan: dict[str, Any]) -> Any:
        names = DOCUMENTS[plan["ledger"]]
        if plan["choice"]:
            # keys over tenant and id hold a credit note and what it credits together
            table = f"{names['invoice']}s"
            free = f"credits_id IS NULL AND id NOT IN (SELECT credits_id FROM {table} WHERE credits_id IS NOT NULL)"
        else:
            table, free = f"{names['payment']}s", "1 = 1"
        query = f"SELECT id FROM {table} WHERE tenant_id = 'a' AND {free} ORDER BY id"
        document = self.pick(connection, query, plan["nth"])
        if document is None:
            return False
        statement = f"UPDATE {table} SET tenant_id = 'c', {names['party']} = 5 WHERE id = :id"
        self.run(connection, statement, id=document["id"])
        return True

    def _document_edited(self, connection: Connection, plan: dict[str, Any]) -> Any:
        names = DOCUMENTS[plan["ledger"]]
        table = f"{names['invoice']}s"
        document = self.pick(connection, f"SELECT * FROM {table} WHERE tenant_id = 'a' ORDER BY id", plan["nth"])
        if document is None:
            return False
        other = {1: 2, 2: 1}[document[names["party"]]]
        changes = ("due_date = '2031-01-01'", "payment_reference = 'K2'", f"{names['party']} = {other}")
        self.run(connection, f"UPDATE {table} SET {changes[plan['choice']]} WHERE id = :id", id=document["id"])
        return True

    # -- looking

    def verify(self, tenant: str = "a", *, with_findings: bool = True) -> Proof:
        with self.factory() as session:
            return self.sync.verify(session, tenant, with_findings=with_findings)

    def repair(self, **more: Any) -> Any:
        return self.sync.repair(self.factory, tenant_id="a", **more)

    def everything(self, without: tuple[str, ...] = ()) -> dict[str, list[Any]]:
        """All rows of all tables, as they are."""
        with self.engine.connect() as connection:
            return {
                table.name: [
                    tuple(row) for row in connection.execute(table.select().order_by(*table.primary_key.columns))
                ]
                for table in Base.metadata.sorted_tables
                if table.name not in without
            }

    def expected(self) -> Expected:
        with self.engine.connect() as connection:
            return Expected(connection, "a", exact=self.exact)


# -- what must be found ---------------------------------------------------------------------------------------


class Expected:
    """One tenant's books, looked at line by line and row by row."""

    def __init__(self, connection: Connection, tenant: str, *, exact: bool) -> None:
        self.connection = connection
        self.tenant = tenant
        self.exact = exact
        self.books: Books = read_books(connection)
        self.verdicts = classify(self.books, RULES)
        self.items = read_items(connection)
        self.causes = self._causes()
        self.findings = {
            (ledger, name): count
            for ledger in TABLES
            for name, count in self._findings(ledger).items()
            if count
        }  # fmt: skip

    def _eligible(self, ledger: str, line_id: int) -> Any:
        verdict = self.verdicts.get(line_id)
        eligible = verdict is not None and verdict.ledger == ledger and verdict.posted and verdict.reason is None
        return verdict if eligible else None

    def _causes(self) -> dict[str, dict[str, tuple[int, Decimal]]]:
        """By account: how many lines or rows each cause has, and what they add up to."""
        found: dict[str, dict[str, list[Decimal]]] = {account: {} for account in ACCOUNTS.values()}

        def add(account: str, cause: str, amount: Decimal) -> None:
            found.setdefault(account, {}).setdefault(cause, []).append(amount)

        for line_id, verdict in self.verdicts.items():
            if verdict.tenant != self.tenant or not verdict.posted:
                continue
            if verdict.item is None:
                add(verdict.account, verdict.reason, verdict.amount)  # type: ignore[arg-type]
                continue
            item = self.items.get((verdict.ledger, line_id))
            if item is None or (item["tenant_id"], item["account_number"]) != (self.tenant, verdict.account):
                add(verdict.account, "missing", verdict.amount)
            elif item["amount"] != verdict.amount:
                add(verdict.account, "amount_differs", verdict.amount - item["amount"])
            elif item["party_id"] != verdict.item["party_id"]:
                add(verdict.account, "wrong_party", Decimal(0))
        for (ledger, line_id), item in self.items.items():
            verdict = self._eligible(ledger, line_id)
            accounted = verdict and (verdict.tenant, verdict.account) == (item["tenant_id"], item["account_number"])
            if item["tenant_id"] == self.tenant and not accounted:
                add(item["account_number"], "orphan", -item["amount"])
        return {
            account: {name: (len(amounts), sum(amounts, Decimal(0))) for name, amounts in causes.items()}
            for account, causes in found.items()
        }

    def balances(self) -> dict[str, tuple[Decimal, Decimal]]:
        """By account: what plain sums over the two tables say, in the account's normal direction."""
        found = {}
        for ledger, account in ACCOUNTS.items():
            side = "l.credit - l.debit" if ledger == "supplier" else "l.debit - l.credit"
            gl = f"""SELECT sum({side}) FROM general_ledger_lines l JOIN general_ledger e ON e.id = l.general_ledger_id
                WHERE e.tenant_id = :tenant AND e.status = 'posted' AND l.account_number = :account"""
            rows = f"SELECT sum(amount) FROM {ledger}_ledger WHERE tenant_id = :tenant AND account_number = :account"
            values = {"tenant": self.tenant, "account": account}
            sums = [self.connection.scalar(text(query), values) or 0 for query in (gl, rows)]
            scaled = [Decimal(amount).scaleb(-2) if self.exact else Decimal(amount) for amount in sums]
            found[account] = (scaled[0], scaled[1])
        return found

    def _findings(self, ledger: str) -> dict[str, int]:
        ours = {
            line_id: item
            for (name, line_id), item in self.items.items()
            if name == ledger and item["tenant_id"] == self.tenant
        }
        stored = self._applications(ledger)
        return {
            "copied_data_differs": self._copied(ledger, ours),
            "remaining_differs": self._remaining(ledger, ours, stored),
            "application_differs": self._differing(ledger, ours, stored),
        }

    def _copied(self, ledger: str, ours: dict[int, Any]) -> int:
        causes = ("tenant_id", "general_ledger_line_id", "account_number", "party_id", "amount")
        count = 0
        for line_id, item in ours.items():
            verdict = self._eligible(ledger, line_id)
            if verdict and (verdict.tenant, verdict.account) == (self.tenant, item["account_number"]):
                wanted = verdict.item
                count += any(item[name] != wanted[name] for name in wanted if name not in causes)
        return count

    def _applications(self, ledger: str) -> dict[tuple[int, int, str], int]:
        table = TABLES[ledger]["applications"]
        query = f"SELECT from_line_id, to_line_id, method, amount FROM {table} WHERE tenant_id = :tenant"
        net: dict[tuple[int, int, str], int] = defaultdict(int)
        for one, other, method, amount in self.connection.execute(text(query), {"tenant": self.tenant}):
            net[one, other, method] += amount if self.exact else int(amount * 100)
        return net

    def _remaining(self, ledger: str, ours: dict[int, Any], stored: dict[tuple[int, int, str], int]) -> int:
        left = {line_id: int(item["amount"] * 100) for line_id, item in ours.items()}
        for (one, other, _), amount in stored.items():
            for line_id, part in ((one, amount), (other, -amount)):
                if line_id in left:
                    left[line_id] += part
        query = f"SELECT general_ledger_line_id, amount, remaining_amount, status FROM {TABLES[ledger]['items']}"
        count = 0
        for line_id, amount, remaining, status in self.connection.execute(text(query)):
            if line_id in left:
                have, whole = (value if self.exact else int(value * 100) for value in (remaining, amount))
                must = "paid" if not left[line_id] else "open" if left[line_id] == whole else "partially_paid"
                count += (have, status) != (left[line_id], must)
        return count

    def _differing(self, ledger: str, ours: dict[int, Any], stored: dict[tuple[int, int, str], int]) -> int:
        """How many pairs, by method, have another net application than the rows as they are call for."""
        items = [self._item(line_id, item) for line_id, item in ours.items()]
        by_line = {item.line: item for item in items}
        wanted: dict[tuple[int, int, str], int] = {}
        for (one, other), amount in settle(items).net.items():
            pair = (by_line[one], by_line[other])
            # a row that is no longer the mirror image of the other settles like any other row
            reversal = (
                any(a.reversed_line == b.line for a, b in (pair, pair[::-1])) and pair[0].amount == -pair[1].amount
            )
            wanted[one, other, "reversal" if reversal else "reference"] = amount
        return sum(stored.get(pair, 0) != wanted.get(pair, 0) for pair in {*stored, *wanted})

    def _item(self, line_id: int, item: dict[str, Any]) -> Item:
        line = self.books.lines.get(line_id)
        entry = self.books.entries[line.entry_id] if line is not None else None
        reversed_line = None
        if item["kind"] == "reversal" and line is not None and entry is not None:
            there = (other for other in self.books.lines.values() if other.entry_id == entry.reverses_id)
            reversed_line = next((other.id for other in there if other.line_number == line.line_number), None)
        return Item(
            line=line_id,
            tenant=item["tenant_id"],
            party=item["party_id"],
            account=item["account_number"],
            key=item["settlement_key"],
            amount=int(item["amount"] * 100),
            entry_date=item["entry_date"],
            series=entry.series if entry else "",
            number=entry.number if entry else "",
            fiscal_year=entry.fiscal_year if entry else 0,
            line_number=line.line_number if line else 0,
            reversed_line=reversed_line,
        )


def proved_causes(proved: Proof) -> dict[str, dict[str, tuple[int, Decimal]]]:
    return {a.account_number: {c.name: (c.count, c.amount) for c in a.causes} for a in proved.accounts}


def proved_faults(proved: Proof) -> dict[tuple[str, str], int]:
    return {(found.ledger, found.name): found.count for found in proved.findings if found.fault}


def of_one_tenant(damage: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Damage that a repair of tenant a can mend: a row that was moved away, and whose line lost its right to one
    besides, is another tenant's orphan.
    """
    books_too = any(plan["kind"] in BOOKS_TOO for plan in damage)
    return [plan for plan in damage if not (books_too and plan["kind"] == "item_moved_to_another_tenant")]


def property_test(share: int) -> Any:
    """A property with its share of the profile's examples. Each example empties the fixture's database itself."""
    quiet = [*settings.get_profile("ci").suppress_health_check, HealthCheck.function_scoped_fixture]
    return settings(max_examples=max(EXAMPLES // share, 1), suppress_health_check=quiet)


# -- the promises -----------------------------------------------------------------------------------------


@property_test(6)
@given(history=histories)
def test_books_that_nobody_damaged_are_proved_clean(engine: Engine, history: list[dict[str, Any]]) -> None:
    assert World(engine).post(history).verify().clean


@property_test(1)
@given(history=histories, damage=damages)
def test_each_cause_has_the_lines_and_the_amount_that_the_oracle_says(
    engine: Engine, history: list[dict[str, Any]], damage: list[dict[str, Any]]
) -> None:
    world = World(engine).post(history)
    world.damage(damage)
    assert proved_causes(world.verify(with_findings=False)) == world.expected().causes


@property_test(4)
@given(history=histories, damage=damages)
def test_the_causes_add_up_to_the_difference_to_the_last_oere(
    engine: Engine, history: list[dict[str, Any]], damage: list[dict[str, Any]]
) -> None:
    world = World(engine).post(history)
    world.damage(damage)
    for account in world.verify(with_findings=False).accounts:
        difference = account.gl_balance - account.subledger_balance
        assert sum((cause.amount for cause in account.causes), Decimal(0)) == difference == account.difference


@property_test(4)
@given(history=histories, damage=damages)
def test_both_balances_are_what_plain_sums_over_the_tables_say(
    engine: Engine, history: list[dict[str, Any]], damage: list[dict[str, Any]]
) -> None:
    world = World(engine).post(history)
    world.damage(damage)
    proved = world.verify(with_findings=False)
    with engine.connect() as connection:
        balances = Expected(connection, "a", exact=world.exact).balances()
    found = {account: proved.account(account) for account in ACCOUNTS.values()}
    assert {name: (a.gl_balance, a.subledger_balance) for name, a in found.items()} == balances


@property_test(3)
@given(history=histories, damage=damages)
def test_each_fault_without_an_amount_is_found_as_often_as_the_oracle_says(
    engine: Engine, history: list[dict[str, Any]], damage: list[dict[str, Any]]
) -> None:
    world = World(engine).post(history)
    world.damage(damage)
    assert proved_faults(world.verify()) == world.expected().findings


OWN_NAMES = {
    "item_deleted": "missing",
    "item_amount_changed": "amount_differs",
    "item_party_changed": "wrong_party",
    "item_account_changed": "orphan",
    "item_moved_to_another_tenant": "missing",
    "item_invented": "orphan",
    "item_invented_for_a_line_that_has_none": "orphan",
    "copied_column_changed": "copied_data_differs",
    "status_forged": "remaining_differs",
    "remaining_amount_forged": "remaining_differs",
    "application_amount_changed": "application_differs",
    "application_invented": "application_differs",
    "application_deleted": "application_differs",
    "two_errors_that_cancel": "orphan",
    "line_amount_changed": "amount_differs",
    "entry_taken_back": "orphan",
}


@pytest.mark.parametrize("kind", OWN_NAMES)
def test_a_single_defect_is_found_under_its_own_name(engine: Engine, kind: str) -> None:
    world = World(engine).post(PLAIN_HISTORY)
    plan = {"kind": kind, "ledger": "supplier", "nth": 0, "other": 1, "cents": 100, "choice": 1}
    assert world.damage([plan]) == [kind]
    found = world.verify()
    causes = {cause.name for account in found.accounts for cause in account.faults}
    assert OWN_NAMES[kind] in causes | {finding.name for finding in found.findings if finding.fault}


def _plain(act: str, **more: Any) -> dict[str, Any]:
    values = {"tenant": "a", "ledger": "supplier", "party": 0, "amount": Decimal(100), "day": DAYS[0], "nth": 0}
    return {"act": act, **values, "reference": "K1", "reversed": False, **more}


PLAIN_HISTORY = [
    _plain("invoice"),
    _plain("payment", amount=Decimal(40), day=DAYS[1]),
    _plain("invoice", party=1, reference="K2"),
    _plain("manual", amount=Decimal(7)),
    _plain("invoice", tenant="b"),
]


@property_test(6)
@given(history=histories, damage=damages)
def test_the_proof_of_another_tenant_does_not_change(
    engine: Engine, history: list[dict[str, Any]], damage: list[dict[str, Any]]
) -> None:
    world = World(engine).post(history)
    before = world.verify("b")
    world.damage(damage)
    assert world.verify("b") == before


@property_test(6)
@given(history=histories, damage=damages)
def test_a_proof_names_no_voucher_and_no_document_of_another_tenant(
    engine: Engine, history: list[dict[str, Any]], damage: list[dict[str, Any]]
) -> None:
    world = World(engine).post(history)
    world.damage(damage)
    # vouchers are in the series aaa and bbb, and invoices have the numbers a-1, b-2 …
    for tenant, other in (("a", "b"), ("b", "a")):
        shown = world.verify(tenant).model_dump_json()
        assert f"{other * 3}-" not in shown
        assert f"number {other}-" not in shown


@property_test(5)
@given(history=histories, damage=damages)
def test_after_a_repair_rows_and_applications_are_what_the_oracle_says_and_the_proof_is_clean(
    engine: Engine, history: list[dict[str, Any]], damage: list[dict[str, Any]]
) -> None:
    world = World(engine).post(history)
    world.damage(of_one_tenant(damage))
    report = world.repair()
    with engine.connect() as connection:
        assert_synced(connection, RULES)
        assert_settled(connection, ledgers=TABLES)
    after = world.verify()
    assert after.clean, after
    assert report.clean


@property_test(6)
@given(history=histories, damage=damages)
def test_a_repair_of_what_was_done_to_the_subledger_gives_back_the_undamaged_rows(
    engine: Engine, history: list[dict[str, Any]], damage: list[dict[str, Any]]
) -> None:
    world = World(engine).post(history)
    before = stand(world)
    world.damage([plan for plan in damage if plan["kind"] in SUBLEDGER_ONLY])
    world.repair()
    assert stand(world) == before


def stand(world: World) -> Any:
    """Rows by their lines, what is left of each, and the net applications; ids and timestamps may differ."""
    with world.engine.connect() as connection:
        found: dict[str, Any] = {"items": read_items(connection)}
        for ledger, names in TABLES.items():
            table, applications = names["items"], names["applications"]
            query = f"SELECT general_ledger_line_id, remaining_amount, status FROM {table} ORDER BY 1"
            found[f"{ledger} left"] = [tuple(row) for row in connection.execute(text(query))]
            query = f"""SELECT tenant_id, from_line_id, to_line_id, sum(amount) FROM {applications}
                GROUP BY 1, 2, 3 HAVING sum(amount) <> 0 ORDER BY 2, 3"""
            found[f"{ledger} net"] = [tuple(row) for row in connection.execute(text(query))]
    return found


@property_test(8)
@given(history=histories, damage=damages)
def test_a_second_repair_changes_nothing(
    engine: Engine, history: list[dict[str, Any]], damage: list[dict[str, Any]]
) -> None:
    world = World(engine).post(history)
    world.damage(of_one_tenant(damage))
    world.repair()
    # the second has a row in the runs too, and holds the buckets, whose rows count that on MariaDB
    own = ("ledger_sync_runs", "ledger_sync_locks")
    before = world.everything(without=own)
    report = world.repair()
    assert (report.processed, report.synced, report.applied) == (0, 0, 0)
    assert world.everything(without=own) == before


@property_test(6)
@given(history=histories, damage=damages)
def test_a_dry_run_of_a_repair_changes_nothing_and_counts_what_the_proof_finds(
    engine: Engine, history: list[dict[str, Any]], damage: list[dict[str, Any]]
) -> None:
    world = World(engine).post(history)
    world.damage(damage)
    before = world.everything()
    report = world.repair(dry_run=True)
    assert world.everything() == before
    found: dict[str, int] = defaultdict(int)
    for stage in report.stages:
        for name, count in stage.found.items():
            found[name] += count
    expected: dict[str, int] = defaultdict(int)
    for causes in world.expected().causes.values():
        for name in proof.FAULTS:
            expected[name] += causes.get(name, (0, Decimal(0)))[0]
    # a row that is on another account is an orphan there and missing here, and mended once
    assert found["wrong_party"] == expected["wrong_party"]
    assert found["amount_differs"] == expected["amount_differs"]
    assert found["missing"] + found["orphan"] <= expected["missing"] + expected["orphan"]


@property_test(8)
@given(history=histories, damage=damages)
def test_every_row_that_a_repair_takes_away_has_a_tombstone(
    engine: Engine, history: list[dict[str, Any]], damage: list[dict[str, Any]]
) -> None:
    world = World(engine).post(history)
    world.damage(of_one_tenant(damage))
    with engine.connect() as connection:
        before = read_items(connection)
    world.repair()
    with engine.connect() as connection:
        gone = {place: before[place] for place in before.keys() - read_items(connection).keys()}
        stones = connection.execute(text("SELECT * FROM ledger_sync_tombstones")).mappings().all()
    assert sorted((stone["ledger"], stone["general_ledger_line_id"]) for stone in stones) == sorted(gone)
    for stone in stones:
        row = gone[stone["ledger"], stone["general_ledger_line_id"]]
        assert (
            Decimal(world.cents(stone["amount"])).scaleb(-2)
            == row["amount"]
            == Decimal(json.loads(stone["row"])["amount"])
        )
        assert stone["tenant_id"] == row["tenant_id"] == "a"
        assert stone["run_id"] is not None


@pytest.mark.parametrize("cents", [1, 10_000, 30_000])
def test_a_repair_mends_an_invented_application_of_more_than_there_is(engine: Engine, cents: int) -> None:
    world = World(engine).post(PLAIN_HISTORY)
    # rows 0 and 1 are an invoice and the payment of a part of it
    plan = {"kind": "application_invented", "ledger": "supplier", "nth": 0, "other": 1, "cents": cents, "choice": 0}
    world.damage([plan, {**plan, "nth": 1, "other": 2}])
    assert world.repair().clean
