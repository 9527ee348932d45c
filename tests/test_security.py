"""What keeps tenants apart, statements and logs unforged, and secrets secret.

Public methods, commands, signals and calls of the log are found by introspection: one that is new and has no case here
fails the test that lists them.
"""

from __future__ import annotations

import ast
import asyncio
import io
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from blinker import Signal
from pydantic import BaseModel
from socketio.exceptions import ConnectionRefusedError as RefusedError
from sqlalchemy import Engine, delete, insert, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

import ledger_sync
from ledger_sync import LedgerSync, LedgerSyncError, Settings, signals
from ledger_sync.contrib.cli import reading, running  # noqa: F401 - register their commands
from ledger_sync.contrib.cli.commands import app
from ledger_sync.contrib.cli.commands import run as run_command
from ledger_sync.contrib.queues import QueueUnreachableError, Schedule
from ledger_sync.contrib.web import Principal, create_app
from ledger_sync.contrib.web.problems import problem_of
from ledger_sync.dialects import masked, open_engine
from ledger_sync.errors import ConfigurationError
from ledger_sync.failures import SEVERAL_TENANTS
from ledger_sync.models import (
    Base,
    JournalEntry,
    JournalLine,
    SourceLink,
    SupplierLedger,
    SyncError,
    VendorInvoice,
)
from ledger_sync.progress import logged, signalled
from ledger_sync.runs import said_if_possible
from tests.books import DAY, entry, vendor, vendor_invoice, vendor_payment
from tests.budget import pairs
from tests.conftest import make_sqlite
from tests.faults import DriverError
from tests.fuzz.saft import VALID
from tests.queues.inbox import Inbox
from tests.watching import listening

SINCE = datetime(2020, 1, 1, tzinfo=UTC)
NOBODYS = 999_999
"""An id that nothing has."""


@dataclass
class Theirs:
    """What there is of one tenant, by id; every text of it bears the tenant's name, and its amounts a digit."""

    tenant: str
    party: int
    invoice: int
    number: str
    entry: int
    voucher: str
    line: int
    linked: int
    sourceless: int
    items: tuple[SupplierLedger, SupplierLedger]
    run: int


@dataclass
class Two:
    """Books of two tenants: ``beta``'s ids are what ``acme`` tries."""

    engine: Engine
    sync: LedgerSync
    factory: sessionmaker[Session]
    session: Session
    acme: Theirs
    beta: Theirs


def make_tenant(sync: LedgerSync, factory: sessionmaker[Session], session: Session, name: str, digit: int) -> Theirs:
    mark = name.upper()
    amount = digit * 1_111
    party = vendor(session, name, f"{mark}-V")
    party.name = f"{mark} AS"
    of_tenant = {"tenant": name, "party": f"{mark}-V"}
    invoice = vendor_invoice(session, amount, invoice_number=f"{mark}-1", payment_reference=f"{mark}-KID", **of_tenant)
    line = {"reference": f"{mark}-KID", "description": f"{mark} text"}
    more = {"tenant": name, "description": f"{mark} text", "line": line}
    opened = entry(
        session,
        signed=-amount,
        source=("vendor_invoice", invoice.id),
        voucher_series=mark,
        voucher_number="opened",
        **more,
    )
    paid = vendor_payment(session, digit * 100, payment_reference=f"{mark}-KID", **of_tenant)
    entry(session, signed=digit * 100, source=("vendor_payment", paid.id), voucher_number=f"{mark} paid", **more)
    linked = entry(session, signed=-digit, voucher_number=f"{mark} linked", **more)
    linked.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=invoice.id, reason=f"{mark} reason")
    manual = entry(session, signed=-digit * 10, voucher_number=f"{mark} manual", **more)
    unposted = vendor_invoice(session, digit * 10, invoice_number=f"{mark}-2", **of_tenant)
    manual.lines[0].description = unposted.invoice_number
    session.commit()
    found = select(SupplierLedger).where(SupplierLedger.tenant_id == name).order_by(SupplierLedger.amount)
    payment, *_, item = session.scalars(found)
    session.commit()  # a reader would keep the run from beginning
    run = sync.start(factory, tenant_id=name, actor=f"{mark} actor")
    theirs = Theirs(
        name,
        party.id,
        invoice.id,
        f"{mark}-1",
        opened.id,
        opened.voucher,
        opened.lines[0].id,
        linked.lines[0].id,
        manual.lines[0].id,
        (payment, item),
        run,
    )
    session.commit()
    return theirs


@pytest.fixture
def two(sqlite_engine: Engine, sync: LedgerSync) -> Iterator[Two]:
    factory = sessionmaker(sqlite_engine, expire_on_commit=False)
    sync.attach(factory)
    with factory() as session:
        acme = make_tenant(sync, factory, session, "acme", 3)
        beta = make_tenant(sync, factory, session, "beta", 7)
        sync.cancel(session, acme.run, tenant_id="acme")
        session.commit()
        assert sync.advance(factory, acme.run).state == "cancelled"
        yield Two(sqlite_engine, sync, factory, session, acme, beta)


def rows_of(engine: Engine, tenant: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of a tenant, but for leases, which beat."""
    tables = [table for table in Base.metadata.sorted_tables if "tenant_id" in table.c]
    with engine.connect() as connection:
        return {
            table.name: [
                tuple(row)
                for row in connection.execute(
                    select(table).where(table.c.tenant_id == tenant).order_by(*table.primary_key)
                )
            ]
            for table in tables
        }


def told(result: object) -> str:
    """All that a result says."""
    if isinstance(result, BaseModel):
        return result.model_dump_json()
    if isinstance(result, tuple | list):
        return " ".join(map(told, result))
    if isinstance(result, Iterator):
        return told(list(result))
    if isinstance(result, Base):
        return repr({column.name: getattr(result, column.key) for column in type(result).__table__.c})
    return repr(result)


def assert_silent(text: str) -> None:
    """Nothing of beta's is in a text: no name, number, reference or amount; 0.77 seconds are not an amount of 77."""
    assert not re.search(r"beta|7,?777|(?<![.\d])77(\.00)?\b|\b70?0\.00\b", text, re.IGNORECASE), text


def explained(two: Two, subject: object) -> object:
    return two.sync.explain(two.session, subject, "acme")


def posted_on_their_document(two: Two, key: int) -> object:
    made = entry(two.session, signed=-1, source=("vendor_invoice", key))
    two.session.commit()
    return two.session.scalars(select(SupplierLedger).where(SupplierLedger.general_ledger_id == made.id)).all()


def posted_paused(two: Two, key: int) -> object:
    with two.sync.paused(two.session):
        return posted_on_their_document(two, key)


def linked(two: Two, line: int, document: int) -> object:
    return two.sync.link(two.session, "acme", line, "vendor_invoice", document, actor="kari", reason="swap")


def by_hand(two: Two, method: str, theirs: SupplierLedger) -> object:
    return getattr(two.sync, method)(two.session, two.acme.items[0], theirs, actor="kari", reason="swap")


def awaited(method: Callable[..., Any], *arguments: Any, **more: Any) -> object:
    return asyncio.run(method(*arguments, **more))


SAYS: dict[str, list[Callable[[Two, Theirs], object]]] = {
    "attach": [lambda two, theirs: posted_on_their_document(two, theirs.invoice)],
    "detach": [lambda two, theirs: two.sync.detach(two.session)],
    "create_tables": [lambda two, theirs: two.sync.create_tables(two.engine)],
    "check_schema": [lambda two, theirs: two.sync.check_schema(two.engine)],
    "paused": [lambda two, theirs: posted_paused(two, theirs.invoice)],
    "sync_entries": [lambda two, theirs: two.sync.sync_entries(two.session, [theirs.entry])],
    "tenants": [lambda two, theirs: two.sync.tenants(two.session, "acme")],
    "verify": [lambda two, theirs: two.sync.verify(two.session, "acme")],
    "differences": [lambda two, theirs: two.sync.differences(two.session, "acme")],
    "explain": [
        lambda two, theirs: explained(two, theirs.entry),
        lambda two, theirs: explained(two, two.session.get(JournalEntry, theirs.entry) or theirs.entry),
        lambda two, theirs: explained(two, two.session.get(VendorInvoice, theirs.invoice) or theirs.entry),
    ],
    "recent": [lambda two, theirs: two.sync.recent(two.session, "acme", SINCE)],
    "ageing": [lambda two, theirs: two.sync.ageing(two.session, "acme", as_of=DAY)],
    "specification": [lambda two, theirs: two.sync.specification(two.session, "acme", "supplier")],
    "statement": [lambda two, theirs: two.sync.statement(two.session, "acme", "supplier", theirs.party)],
    "open_items": [
        lambda two, theirs: two.sync.open_items(two.session, "acme", party_id=theirs.party, include_settled=True),
        lambda two, theirs: two.sync.open_items(two.session, "acme", as_of=DAY),
    ],
    "match": [lambda two, theirs: two.sync.match(two.session, "acme")],
    "link": [
        lambda two, theirs: linked(two, two.acme.sourceless, theirs.invoice),
        lambda two, theirs: linked(two, theirs.sourceless, two.acme.invoice),
        lambda two, theirs: linked(two, theirs.linked, theirs.invoice),
    ],
    "unlink": [
        lambda two, theirs: two.sync.unlink(two.session, "acme", theirs.linked, actor="kari", reason="swap"),
    ],
    "adopt": [
        lambda two, theirs: two.sync.adopt(
            two.session, "acme", chosen={theirs.run: theirs.line}, actor="kari", reason="swap"
        ),
    ],
    "settle": [lambda two, theirs: by_hand(two, "settle", theirs.items[1])],
    "unsettle": [lambda two, theirs: by_hand(two, "unsettle", theirs.items[1])],
    "release": [lambda two, theirs: by_hand(two, "release", theirs.items[1])],
    "start": [lambda two, theirs: two.sync.start(two.factory, tenant_id="acme")],
    "backfill": [
        lambda two, theirs: two.sync.backfill(two.factory, tenant_id="acme"),
        lambda two, theirs: two.sync.backfill(two.factory, tenant_id="acme", dry_run=True),
    ],
    "repair": [lambda two, theirs: two.sync.repair(two.factory, tenant_id="acme")],
    "resume": [lambda two, theirs: two.sync.resume(two.factory, theirs.run, tenant_id="acme")],
    "advance": [lambda two, theirs: two.sync.advance(two.factory, theirs.run, tenant_id="acme")],
    "pause": [lambda two, theirs: two.sync.pause(two.session, theirs.run, tenant_id="acme")],
    "cancel": [lambda two, theirs: two.sync.cancel(two.session, theirs.run, tenant_id="acme")],
    "progress": [lambda two, theirs: two.sync.progress(two.session, theirs.run, tenant_id="acme")],
    "report": [lambda two, theirs: two.sync.report(two.session, theirs.run, tenant_id="acme")],
    "failures": [lambda two, theirs: two.sync.failures(two.session, "acme", run_id=theirs.run, resolved=True)],
    "runs": [
        lambda two, theirs: two.sync.runs(two.session, "acme"),
        lambda two, theirs: two.sync.runs(two.session, "acme", running=True),
    ],
    "reopen": [lambda two, theirs: two.sync.reopen(two.factory, theirs.run, tenant_id="acme")],
    "areopen": [lambda two, theirs: awaited(two.sync.areopen, two.factory, theirs.run, tenant_id="acme")],
    "abackfill": [lambda two, theirs: awaited(two.sync.abackfill, two.factory, tenant_id="acme")],
    "astart": [lambda two, theirs: awaited(two.sync.astart, two.factory, tenant_id="acme")],
    "arepair": [lambda two, theirs: awaited(two.sync.arepair, two.factory, tenant_id="acme")],
    "aresume": [lambda two, theirs: awaited(two.sync.aresume, two.factory, theirs.run, tenant_id="acme")],
    "aadvance": [lambda two, theirs: awaited(two.sync.aadvance, two.factory, theirs.run, tenant_id="acme")],
}
"""By public method: calls as acme, with another's ids where there are any to give."""

BY_NAME: dict[str, Callable[[Two, str], object]] = {
    "explain a voucher": explained,
    "explain a document": lambda two, given: explained(two, f"vendor_invoice:{given}"),
    "backfill a voucher": lambda two, given: two.sync.backfill(two.factory, tenant_id="acme", vouchers=[given]),
}
"""Calls as acme that name something; an error repeats what was given, and nothing else."""


def test_every_public_method_has_a_case() -> None:
    public = {name for name in dir(LedgerSync) if not name.startswith("_") and callable(getattr(LedgerSync, name))}
    assert public == SAYS.keys()


def outcome(two: Two, call: Callable[[], object]) -> str:
    """What a call says, result or error."""
    try:
        return told(call())
    except LedgerSyncError as error:
        return f"{type(error).__name__}: {error} {told(list(vars(error).values()))}"
    finally:
        two.session.rollback()


@pytest.mark.parametrize("method", SAYS)
def test_with_another_tenants_ids_nothing_of_it_comes_back_and_nothing_of_it_changes(two: Two, method: str) -> None:
    for call in SAYS[method]:
        before = rows_of(two.engine, "beta")
        said = outcome(two, lambda: call(two, two.beta))  # noqa: B023 - called at once
        assert_silent(said)
        assert ("Error: " in said) == (method in {*BY_ID, "settle", "unsettle", "release"})
        two.session.commit()
        assert rows_of(two.engine, "beta") == before


BY_ID = {
    "explain": 0,
    "statement": 0,
    "link": 0,
    "unlink": 0,
    "adopt": 0,
    "resume": 0,
    "advance": 0,
    "pause": 0,
    "cancel": 0,
    "progress": 0,
    "report": 0,
    "reopen": 0,
    "areopen": 0,
    "aresume": 0,
    "aadvance": 0,
}


@pytest.mark.parametrize("method", BY_ID)
def test_what_is_another_tenants_is_told_as_what_is_not_there(two: Two, method: str) -> None:
    fields = ("party", "invoice", "entry", "line", "linked", "sourceless", "run")
    nobody = Theirs(**{**vars(two.beta), **dict.fromkeys(fields, NOBODYS)})

    def plain(theirs: Theirs, call: Callable[[Two, Theirs], object]) -> str:
        said = outcome(two, lambda: call(two, theirs))
        for name in fields:
            said = re.sub(rf"\b{getattr(theirs, name)}\b", "#", said)
        return said

    call = SAYS[method][BY_ID[method]]
    assert plain(two.beta, call) == plain(nobody, call)


@pytest.mark.parametrize("way", BY_NAME)
def test_another_tenants_name_for_something_is_told_as_nobodys(two: Two, way: str) -> None:
    given = two.beta.number if "document" in way else two.beta.voucher
    said = [outcome(two, lambda: BY_NAME[way](two, one)).replace(one, "#") for one in (given, "nobody")]  # noqa: B023
    assert said[0] == said[1]


def test_an_idempotency_key_that_another_tenant_has_used_is_free(two: Two) -> None:
    def settle(items: tuple[SupplierLedger, SupplierLedger]) -> object:
        two.sync.unsettle(two.session, *items, actor="kari", reason="r", idempotency_key="once")
        two.session.commit()
        return two.sync.settle(two.session, *items, 1, actor="kari", reason="r", idempotency_key="key")

    settle(two.beta.items)
    two.session.commit()
    assert_silent(outcome(two, lambda: settle(two.acme.items)))


def test_a_key_by_which_another_tenant_has_taken_a_link_back_is_free(two: Two) -> None:
    def unlink(tenant: str, line: int) -> object:
        return two.sync.unlink(two.session, tenant, line, actor="kari", reason="r", idempotency_key="key")

    unlink("beta", two.beta.linked)
    two.session.commit()
    assert_silent(outcome(two, lambda: unlink("acme", two.acme.linked)))


# -- signals ---------------------------------------------------------------------------------------------

SIGNALS = {name: signal for name, signal in vars(signals).items() if isinstance(signal, Signal)}


@contextmanager
def heard(sender: LedgerSync) -> Iterator[dict[str, list[Any]]]:
    """What each signal says while the block runs."""
    said: dict[str, list[Any]] = {name: [] for name in SIGNALS}

    def listener(name: str) -> Callable[..., None]:
        def hear(_: object, **arguments: Any) -> None:
            arguments.pop("session", None)
            said[name].append(arguments)

        return hear

    listeners = {name: listener(name) for name in SIGNALS}
    for name, hear in listeners.items():
        SIGNALS[name].connect(hear, sender=sender)
    yield said
    for name, hear in listeners.items():
        SIGNALS[name].disconnect(hear, sender=sender)


def test_every_signal_tells_of_one_tenant_at_a_time(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = LedgerSync(Settings(on_error="record"))
    factory = sessionmaker(two.engine)
    sync.attach(factory)
    with heard(sync) as said, factory() as session:
        invoice = vendor_invoice(session, 50, payment_reference="R")
        entry(session, signed=-50, source=("vendor_invoice", invoice.id))
        entry(session, signed=-1)
        paid = vendor_payment(session, 20, payment_reference="R")
        payment = entry(session, signed=20, source=("vendor_payment", paid.id))
        session.commit()
        invoice.due_date = DAY
        session.add(payment.reverse(DAY))
        session.commit()
        sync.unlink(session, "acme", two.acme.linked, actor="kari", reason="test")
        line = session.get_one(JournalLine, two.acme.sourceless)
        line.link = SourceLink(source_type="vendor_invoice", source_id=invoice.id)
        session.commit()
        line.link = None
        session.commit()
        # one flush for both tenants, of which one fails
        with monkeypatch.context() as broken:
            broken.setattr(sync._writer, "write", lambda *_, **__: (_ for _ in ()).throw(ValueError("BETA row: 7777")))
            theirs = vendor_invoice(session, 7, tenant="beta")
            sources = [("vendor_invoice", invoice.id), ("vendor_invoice", theirs.id)]
            entry(session, signed=-2, source=sources[0])
            entry(session, signed=-7, source=sources[1], tenant="beta")
            session.commit()
        assert sorted(session.scalars(select(SyncError.message))) == [SEVERAL_TENANTS] * 2
        session.commit()
        sync.backfill(factory, tenant_id="acme", on_progress=signalled(sync))
        Inbox().queue(factory, sync).verify("acme")
    assert [name for name, told_ in said.items() if not told_] == []
    for name, arguments in said.items():
        for argument in arguments:
            values = [value for each in argument.values() for value in (each if isinstance(each, tuple) else [each])]
            tenants = {value["tenant_id"] if not isinstance(value, BaseModel) else value.tenant_id for value in values}
            assert len(tenants) == 1, name
            if tenants == {"acme"}:
                assert_silent(repr(argument))


# -- commands --------------------------------------------------------------------------------------------


@pytest.fixture
def typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str]]:
    """Type a command, in this process: its status, and all that it prints."""
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.chdir(tmp_path)

    def _type(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ledger-sync", *arguments])
        status = run_command()
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return _type


COMMANDS: dict[str, list[Callable[[Theirs], list[str]]]] = {
    "init": [lambda theirs: []],
    "demo": [lambda theirs: []],
    "import-saft": [lambda theirs: ["beta.xml"]],
    "backfill": [lambda theirs: [], lambda theirs: ["--dry-run"], lambda theirs: ["--queue", "procrastinate"]],
    "runs": [
        lambda theirs: [],
        lambda theirs: ["--resume", str(theirs.run)],
        lambda theirs: ["--pause", str(theirs.run)],
        lambda theirs: ["--cancel", str(theirs.run)],
    ],
    "repair": [lambda theirs: [], lambda theirs: ["--dry-run"]],
    "match": [lambda theirs: [], lambda theirs: ["--apply"]],
    "verify": [lambda theirs: ["--recent", "2w"], lambda theirs: ["--html", "page.html"]],
    "explain": [lambda theirs: [theirs.voucher], lambda theirs: [f"vendor_invoice:{theirs.number}"]],
    "open-items": [lambda theirs: ["--include-settled"], lambda theirs: ["--as-of", "2026-03-31"]],
    "ageing": [lambda theirs: []],
    "serve": [lambda theirs: ["--port", "65536"]],  # what it serves: tests/web
    "worker": [lambda theirs: ["--queue", "procrastinate"]],  # on SQLite; what it works on: tests/queues
    "specification": [lambda theirs: ["supplier"], lambda theirs: ["supplier", "--party", "BETA-V"]],
}
"""By command: what is typed behind it, as acme."""

WITHOUT_TENANT = {"init", "demo", "worker"}


def command_names() -> set[str]:
    return {
        command.name or command.callback.__name__.replace("_", "-")
        for command in app.registered_commands
        if command.callback is not None
    }


def test_every_command_has_a_case() -> None:
    assert command_names() == COMMANDS.keys()


@pytest.mark.parametrize("as_json", [False, True], ids=["tables", "json"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_for_one_tenant_says_nothing_of_another(
    two: Two, typed: Callable[..., tuple[int, str]], command: str, as_json: bool
) -> None:
    # somebody else's file: the message may name its company, which whoever gives the file can read there
    Path("beta.xml").write_bytes(VALID)
    before = rows_of(two.engine, "beta")
    whose = [] if command in WITHOUT_TENANT else ["--tenant", "acme"]
    for case in COMMANDS[command]:
        given = case(two.beta)
        arguments = [command, *given, "--db", str(two.engine.url), *whose, *(["--json"] if as_json else [])]
        status, printed = typed(*arguments)
        if command in {"demo", "import-saft"} or "--resume" in given:
            assert status == 2
        for repeated in given:  # what was typed may be repeated
            printed = printed.replace(repeated, "")
            printed = printed.replace(repeated.replace(":", " "), "")
        assert_silent(printed)
        if "--html" in given:
            assert_silent(re.sub(r"(?s)<style>.*?</style>", "", Path("page.html").read_text()))
    assert rows_of(two.engine, "beta") == before


# -- statements ------------------------------------------------------------------------------------------

HOSTILE = "x'; DROP TABLE vendors; --"


def test_values_never_become_a_part_of_a_statement(
    engine: Engine, sync: LedgerSync, factory: sessionmaker[Session]
) -> None:
    bound: list[bool] = []

    def watch(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        assert "DROP TABLE" not in statement
        bound.append("DROP TABLE" in repr(parameters))

    with listening(engine, "before_cursor_execute", watch), factory() as session:
        invoice = vendor_invoice(session, 10, HOSTILE, HOSTILE, invoice_number=HOSTILE, payment_reference=HOSTILE)
        more = {"tenant": HOSTILE, "line": {"reference": HOSTILE, "description": HOSTILE}, "description": HOSTILE}
        entry(session, signed=-10, source=("vendor_invoice", invoice.id), voucher_number=HOSTILE, **more)
        paid = vendor_payment(session, 4, HOSTILE, HOSTILE, payment_reference=HOSTILE)
        payment = entry(session, signed=4, source=("vendor_payment", paid.id), **more)
        manual = entry(session, signed=-1, source=(HOSTILE, 1), **more)
        session.commit()
        values = {"general_ledger_id": manual.id, "line_number": 9, "account_number": HOSTILE[:20]}
        late = insert(JournalLine).execution_options(ledger_sync_bulk="sync")
        with pytest.raises(LedgerSyncError):
            session.execute(late, [{**values, "reference": HOSTILE}])
        session.rollback()
        loaded = {row.amount > 0: row for row in session.scalars(select(SupplierLedger))}
        session.add(payment.reverse(DAY, voucher_series=HOSTILE[:20]))
        session.commit()
        arguments = {"actor": HOSTILE, "reason": HOSTILE}
        for call in (
            lambda: sync.settle(session, loaded[False], loaded[True], 1, idempotency_key=HOSTILE, **arguments),
            lambda: sync.unsettle(session, loaded[False], loaded[True], **arguments),
            lambda: sync.link(session, HOSTILE, manual.lines[0].id, "vendor_invoice", invoice.id, **arguments),
            lambda: sync.unlink(session, HOSTILE, manual.lines[0].id, idempotency_key=f"-{HOSTILE}", **arguments),
            lambda: sync.explain(session, HOSTILE, HOSTILE),
            lambda: sync.explain(session, f"vendor_invoice:{HOSTILE}", HOSTILE),
            lambda: sync.verify(session, HOSTILE),
            lambda: list(sync.differences(session, HOSTILE)),
            lambda: sync.open_items(session, HOSTILE, as_of=DAY),
            lambda: sync.ageing(session, HOSTILE),
            lambda: sync.specification(session, HOSTILE, "supplier"),
            lambda: sync.recent(session, HOSTILE, SINCE),
            lambda: sync.match(session, HOSTILE),
            lambda: sync.runs(session, HOSTILE),
        ):
            try:
                call()
            except LedgerSyncError:
                session.rollback()
        session.commit()
        sync.backfill(factory, tenant_id=HOSTILE, vouchers=[HOSTILE], actor=HOSTILE, source_types=["vendor_invoice"])
        sync.repair(factory, tenant_id=HOSTILE)
        assert sync.verify(session, HOSTILE).clean
    assert sum(bound) > 50
    with pytest.raises(ConfigurationError):
        sync.backfill(factory, tenant_id=HOSTILE, source_types=[HOSTILE])
    with pytest.raises(ConfigurationError):
        sync.backfill(factory, tenant_id=HOSTILE, ledgers=[HOSTILE])


# -- the log ---------------------------------------------------------------------------------------------

FORGED = "1\n2026-01-01 ERROR ledger_sync FORGED\r\x1b[31m\u202e\u2028FORGED"
LINE = re.compile(r"LOG (INFO|WARNING|ERROR) |    ")


def calls_of_the_log() -> set[tuple[str, int, int]]:
    """Every place in the package that logs: file, first and last line."""
    found = set()
    folder = Path(ledger_sync.__file__).parent
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                target = node.func.value
                levels = {"debug", "info", "warning", "error", "exception", "critical", "log"}
                logger = isinstance(target, ast.Name) and target.id in {"log", "chosen", "logger"}
                if logger and node.func.attr in levels:
                    found.add((str(path), node.lineno, node.end_lineno or node.lineno))
    return found


async def coroutine(*_: Any, **__: Any) -> None: ...


def failing(*_: Any, **__: Any) -> None:
    raise ValueError(FORGED)


def log_everything(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each call of the log made, with what somebody would like to forge."""
    sync = LedgerSync(Settings(bulk="warn", on_error="record"))
    factory = sessionmaker(engine)
    sync.attach(factory)
    connected = [(signals.item_created, failing), (signals.item_created, coroutine), (signals.flush_synced, coroutine)]
    for signal, receiver in connected:
        signal.connect(receiver, sender=sync)
    with factory() as session:
        invoice = vendor_invoice(session, 10, FORGED, FORGED[:50])
        made = entry(session, signed=-10, tenant=FORGED, voucher_number=FORGED, voucher_series=FORGED[:20])
        made.lines[0].link = SourceLink(source_type="vendor_invoice", source_id=invoice.id)
        entry(session, signed=-10, source=("vendor_invoice", invoice.id), tenant=FORGED)
        entry(session, signed=-10, source=(FORGED[:50], 1), tenant=FORGED)
        session.commit()
        session.execute(insert(JournalEntry), [{"tenant_id": FORGED, "voucher_number": "b", "entry_date": DAY}])
        session.commit()
        session.get_one(SourceLink, made.lines[0].id).source_type = FORGED[:50]
        session.commit()
        sync.unlink(session, FORGED, made.lines[0].id, actor=FORGED, reason=FORGED)
        session.commit()
        with monkeypatch.context() as broken:
            broken.setattr(sync._writer, "write", failing)
            entry(session, signed=-10, source=("vendor_invoice", invoice.id), tenant=FORGED)
            session.commit()
    for signal, receiver in connected:
        signal.disconnect(receiver, sender=sync)
    sync.backfill(factory, tenant_id=FORGED, on_progress=failing)
    sync.backfill(factory, tenant_id=FORGED, on_progress=logged())
    said_if_possible(failing)
    asyncio.run(log_everything_of_the_web(sync, factory))
    log_everything_of_the_queues(sync, factory)


def log_everything_of_the_queues(sync: LedgerSync, factory: sessionmaker[Session]) -> None:
    """As above, of job queues."""
    inbox = Inbox()
    queue = inbox.queue(factory, sync, Schedule(slice_seconds=0.001, workers=1))
    for _ in range(2):  # it is started, and it is at work already
        queue.started(tenant=FORGED)
    queue.advance(2**40)
    inbox.messages.clear()
    inbox.answers = False
    with factory() as session:
        (run,) = (run for run in sync.runs(session, FORGED) if run.state == "running")
    assert run.run_id is not None
    queue.advance(run.run_id)
    with factory() as session:
        for change in (select(1), delete(SupplierLedger)):  # the books are clean, and they are not
            session.execute(change)
            session.commit()
            queue.verify(FORGED)
    problem_of(QueueUnreachableError(FORGED, FORGED))


async def log_everything_of_the_web(sync: LedgerSync, factory: sessionmaker[Session]) -> None:
    """As above, of the console."""
    web = create_app(sync, factory, failing)

    async def fails(*_: Any, **__: Any) -> Any:
        raise ValueError(FORGED)

    async def refuses(*_: Any, **__: Any) -> Any:
        raise ConfigurationError(FORGED)

    for raising in (fails, refuses):
        broken: Any = SimpleNamespace(factory=factory, sync=SimpleNamespace(aadvance=raising))
        web.crew.books = broken
        assert await web.crew._slice(1)
    web.crew.adopt = fails  # type: ignore[method-assign]
    following = asyncio.create_task(web.live.run())
    with pytest.raises(RefusedError):
        await web.live._connect("nobody", {}, {"token": "x"})
    assert "problem" in await web.live._join("nobody")
    await asyncio.sleep(0.1)
    await web.live._guard("nobody", "x", Principal("x", expires_at=SINCE))
    web.authenticate = lambda token: Principal(FORGED, (FORGED,))
    web.live.books.factory = failing
    async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://here") as client:
        answer = await client.get("/api/ledger/proof", headers={"Authorization": "Bearer x"})
    assert answer.status_code == 500
    assert problem_of(OperationalError("", {}, DriverError(2013, f"08{FORGED}")))
    following.cancel()
    await web.aclose()


def test_no_line_of_the_log_can_be_forged(sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, records = io.StringIO(), []
    handler = logging.StreamHandler(stream)
    extra = {"voucher": "", "tenant": "", "ledger": "", "outcome": "", "actor": "", "reason": ""}
    layout = " ".join(f"%({name})s" for name in extra)
    handler.setFormatter(logging.Formatter(f"LOG %(levelname)s {layout} %(message)s", defaults=extra))
    handler.addFilter(lambda record: records.append(record) or True)
    log = logging.getLogger("ledger_sync")
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        log_everything(sqlite_engine, monkeypatch)
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    lines = stream.getvalue().removesuffix("\n").split("\n")
    assert [line for line in lines if not LINE.match(line) or not line.isprintable()] == []
    assert "FORGED" in stream.getvalue()
    made = {(record.pathname, record.lineno) for record in records}
    silent = {call for call in calls_of_the_log() if not any(p == call[0] and call[1] <= n <= call[2] for p, n in made)}
    assert silent == set()


def test_an_error_is_one_line_whatever_it_repeats(session: Session, sync: LedgerSync) -> None:
    with pytest.raises(LedgerSyncError) as caught:
        sync.explain(session, FORGED, "acme")
    assert str(caught.value).isprintable()


# -- what commands print ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Books in which every text is what somebody would like to see printed."""
    engine = make_sqlite(tmp_path_factory.mktemp("forged") / "forged.db")
    factory = sessionmaker(engine)
    sync = LedgerSync()
    sync.attach(factory)
    evil = "1\nFORGED\r\x1b[31m\u202e[red]\u2028FORGED"
    with factory() as session:
        party = vendor(session, evil, evil)
        party.name = evil
        invoice = vendor_invoice(session, 10, evil, evil, invoice_number=evil, payment_reference=evil)
        vendor_invoice(session, 11, evil, evil, invoice_number=evil)
        vendor_invoice(session, 11, evil, evil, invoice_number=evil)
        more = {"tenant": evil, "voucher_series": evil[:20], "description": evil}
        line = {"line": {"reference": evil, "description": evil}}
        entry(session, signed=-10, source=("vendor_invoice", invoice.id), voucher_number=evil, **more, **line)
        entry(session, signed=-11, voucher_number=f"{evil}2", **more, **line)
        entry(session, signed=-12, source=(evil[:50], 1), voucher_number=f"{evil}3", **more, **line)
        draft = {**more, "post": False, "voucher_number": f"{evil}4"}
        entry(session, signed=-13, source=("vendor_invoice", invoice.id), **draft, **line)
        session.commit()
        sync.start(factory, tenant_id=evil, actor=evil)
    engine.dispose()
    engine.evil = evil  # type: ignore[attr-defined]
    return engine


@pytest.mark.parametrize("as_json", [False, True], ids=["tables", "json"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "--recent", "2w"],
        ["open-items"],
        ["ageing"],
        ["specification", "supplier"],
        ["specification", "supplier", "--party", "nobody\nFORGED\x1b[31m"],
        ["explain", "1\nFORGED\r\x1b[31m\u202e[red]\u2028FORGED"],
        ["explain", "nobody\nFORGED\x1b[31m"],
        ["match"],
        ["match", "--review", "a\x1b[31m.csv"],
        ["runs"],
        ["runs", "--resume", "99"],
        ["backfill", "--voucher", "\nFORGED\x1b[31m"],
        ["backfill"],
        ["repair"],
        ["import-saft", "evil.xml"],
        ["import-saft", "good.xml"],
        ["verify", "--account", "\nFORGED\x1b[31m"],
    ],
    ids=" ".join,
)
def test_no_line_that_a_command_prints_can_be_forged(
    forged: Engine, typed: Callable[..., tuple[int, str]], arguments: list[str], as_json: bool
) -> None:
    Path("evil.xml").write_bytes(
        VALID.replace(b"<TransactionID>1<", b"<TransactionID>a&#10;FORGED&#x202E;b<").replace(b">50<", b">51<")
    )
    Path("good.xml").write_bytes(VALID.replace(b"Land AS", b"&#10;FORGED&#x202E;[red]"))
    whose = [] if arguments[0] in {"runs", "import-saft"} else ["--tenant", forged.evil]  # type: ignore[attr-defined]
    more = ["--json"] if as_json else []
    _, printed = typed(*arguments, *whose, "--db", str(forged.url), *more)
    assert [c for c in printed if not c.isprintable() and c != "\n"] == []
    assert [line for line in printed.split("\n") if line.strip(" │┃|").startswith("FORGED")] == []


# -- secrets ---------------------------------------------------------------------------------------------

SECRET = "hunter2"
URLS = [
    f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/x",
    f"postgresql+psycopg://127.0.0.1:1/x?user=me&password={SECRET}",
    f"postgresql+psycopg://me@127.0.0.1:1/x?sslpassword={SECRET}",
    f"postgresql+psycopg://me:a@{SECRET}@127.0.0.1:1/x",
    f"postgresql+psycopg://me:{SECRET}@127.0.0.1:port/x",
    f"postgresql+psycopg://me:{SECRET}/a@127.0.0.1:1/x",
    f"postgresql//me:{SECRET}@127.0.0.1:1/x",
    f"nonsense://me:{SECRET}@127.0.0.1:1/x",
    f"mysql+pymysql://me:{SECRET}@127.0.0.1:1/x",
    f"me:{SECRET}@127.0.0.1",
]


@pytest.mark.parametrize(("command", "url"), pairs(sorted(COMMANDS), URLS))
def test_no_command_prints_the_password_of_its_database(
    typed: Callable[..., tuple[int, str]], command: str, url: str
) -> None:
    Path("beta.xml").write_bytes(VALID)
    more = {
        "explain": ["17"],
        "worker": ["--queue", "procrastinate"],
        "specification": ["supplier"],
        "import-saft": ["beta.xml"],
    }
    status, printed = typed(command, *more.get(command, []), "--db", url)
    assert status == 2
    assert SECRET not in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("url", URLS)
def test_no_error_of_a_database_url_shows_its_password(url: str) -> None:
    for use in (masked, open_engine):
        try:
            shown = repr(use(url))
        except Exception as error:
            shown = "".join(traceback.format_exception(error))
            shown += repr(error.__context__)
        # SQLAlchemy shows what stands in options when an engine is asked for its repr
        assert SECRET not in shown or (use is open_engine and "?" in url)


def test_what_the_library_makes_has_no_secret_in_its_repr(sync: LedgerSync) -> None:
    engine = open_engine(f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/x")
    factory = sessionmaker(engine)
    sync.attach(factory)
    with factory() as session:
        for made in (engine, factory, session, sync, sync.settings, sync.binding):
            assert SECRET not in repr(made)
        with pytest.raises(Exception) as caught:
            sync.verify(session, "acme")
    assert SECRET not in "".join(map(str, (caught.value, repr(caught.value))))
    sync.detach(factory)
