"""The example backend over HTTP, on each database: what it posts has its row, and its books are in sync in the end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, func, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import sessionmaker

from examples.erp_backend.app import create_app
from examples.erp_backend.posting import Company
from ledger_sync import LedgerSync, Settings
from ledger_sync.dialects import open_engine
from ledger_sync.kid import is_valid_kid
from ledger_sync.models import JournalEntry, SupplierLedger, VendorInvoice
from ledger_sync.testing import assert_in_sync
from tests import books
from tests.conftest import make_sqlite, schema_of_its_own
from tests.oracle import assert_synced
from tests.test_hook import broken

ROOT = Path(__file__).resolve().parents[1]
DAY = "2026-03-01"
SECONDS_MAX = 300


@dataclass
class Place:
    """A database: where the backend finds it, and a plain engine on it for a test's own looks."""

    url: str
    options: dict[str, Any]
    plain: Engine

    def run(self, work: Callable[[Erp], Awaitable[None]], **app: Any) -> None:
        """Serve the backend for the length of a coroutine function, then prove everybody's books."""

        async def main() -> None:
            async with asyncio.timeout(SECONDS_MAX), served(self, **app) as erp:
                await work(erp)

        asyncio.run(main())
        with sessionmaker(self.plain)() as session:
            assert_in_sync(session, LedgerSync())
            assert_synced(session.connection())


@dataclass
class Erp:
    """The backend while it is served: makes clients, one per tenant."""

    app: Any
    stack: AsyncExitStack
    place: Place

    async def client(self, tenant: str = "acme", *, register: bool = True) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://erp", headers={"X-Tenant": tenant})
        await self.stack.enter_async_context(client)
        if register:
            await made(client, "/companies", id=tenant, name=f"{tenant} AS")
        return client


@asynccontextmanager
async def served(place: Place, **app: Any) -> AsyncIterator[Erp]:
    made = create_app(AsyncEngine(open_engine(place.url, connect_args=place.options)), **app)
    async with made.router.lifespan_context(made), AsyncExitStack() as stack:
        yield Erp(made, stack, place)


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Iterator[Place]:
    engine = make_sqlite(tmp_path / "erp.db")
    yield Place(f"sqlite+aiosqlite:///{tmp_path / 'erp.db'}", {}, engine)
    engine.dispose()


@pytest.fixture(params=["aiosqlite", "asyncpg"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "aiosqlite":
        yield request.getfixturevalue("sqlite_place")
        return
    url = make_url(request.getfixturevalue("postgresql_url"))
    with schema_of_its_own(url.render_as_string(hide_password=False)) as engine:
        with engine.connect() as connection:
            schema = connection.scalar(text("SELECT current_schema()"))
        options: dict[str, Any] = {"options": f"-csearch_path={schema}"}
        if request.param == "asyncpg":
            options = {"server_settings": {"search_path": schema}}
        named = url.set(drivername=f"postgresql+{request.param}").render_as_string(hide_password=False)
        yield Place(named, options, engine)


async def made(client: httpx.AsyncClient, path: str, *, status: int = 201, **body: Any) -> Any:
    """What a POST answers, which must have that status."""
    response = await client.post(path, json=body)
    assert response.status_code == status, response.text
    return response.json()


async def got(client: httpx.AsyncClient, path: str, *, status: int = 200, **parameters: Any) -> Any:
    response = await client.get(path, params=parameters)
    assert response.status_code == status, response.text
    return response.json()


async def vendor(client: httpx.AsyncClient, number: str = "V1") -> int:
    return int((await made(client, "/vendors", number=number, name="Mølleren AS"))["id"])


async def customer(client: httpx.AsyncClient, number: str = "C1") -> int:
    return int((await made(client, "/customers", number=number, name="Kafeen AS"))["id"])


def bill(vendor_id: int, amount: str = "125.00", **more: Any) -> dict[str, Any]:
    """A vendor invoice, as a request."""
    dates = {"invoice_date": DAY, "due_date": "2026-03-31"}
    return {"party_id": vendor_id, "amount": amount, "invoice_number": "8907", **dates, **more}


def sale(customer_id: int, amount: str = "125.00", **more: Any) -> dict[str, Any]:
    """A customer invoice, as a request."""
    return {"party_id": customer_id, "amount": amount, "invoice_date": DAY, "due_date": "2026-03-31", **more}


def payment(party_id: int, reference: str | None, amount: str = "125.00") -> dict[str, Any]:
    return {"party_id": party_id, "payment_date": "2026-03-20", "amount": amount, "reference": reference}


async def items(client: httpx.AsyncClient) -> list[tuple[str, str, str, str]]:
    """Kind, amount, what is open of it, and status of every item, settled or not."""
    found = await got(client, "/open-items", include_settled=True)
    return [(item["kind"], item["amount"], item["remaining_amount"], item["status"]) for item in found]


async def balances(client: httpx.AsyncClient, account: str) -> tuple[str, str, str]:
    """GL, subledger and difference of a control account, as the proof has them."""
    proof = await got(client, "/proof")
    (found,) = [one for one in proof["accounts"] if one["account_number"] == account]
    return found["gl_balance"], found["subledger_balance"], found["difference"]


# -- posting, paying, reversing ----------------------------------------------------------------------------


@pytest.mark.parametrize("source_type", ["vendor_invoice", "ehf_invoice"])
def test_a_vendor_invoice_is_posted_and_paid_by_its_number_in_two_parts(place: Place, source_type: str) -> None:
    async def work(erp: Erp) -> None:
        client = await erp.client()
        party = await vendor(client)
        posted = await made(client, "/vendor-invoices", **bill(party, vat="25.00", source_type=source_type))
        assert posted["entry"]["voucher"] == "1/2026"
        assert posted["entry"]["source_type"] == source_type
        assert posted["entry"]["source_id"] == posted["invoice"]["id"]
        assert posted["invoice"]["amount"] == "125.00"
        assert await items(client) == [("invoice", "125.00", "125.00", "open")]
        assert await balances(client, "2400") == ("125.00", "125.00", "0.00")
        await made(client, "/vendor-payments", **payment(party, "8907", "100.00"))
        assert await items(client) == [
            ("invoice", "125.00", "25.00", "partially_paid"),
            ("payment", "-100.00", "0.00", "paid"),
        ]
        await made(client, "/vendor-payments", **payment(party, "8907", "25.00"))
        assert await got(client, "/open-items") == []
        assert await balances(client, "2400") == ("0.00", "0.00", "0.00")

    place.run(work)


def test_a_customer_invoice_has_a_kid_and_is_paid_by_it_until_the_payment_is_reversed(place: Place) -> None:
    async def work(erp: Erp) -> None:
        client = await erp.client()
        party = await customer(client)
        invoices = [(await made(client, "/customer-invoices", **sale(party)))["invoice"] for _ in range(2)]
        assert [invoice["invoice_number"] for invoice in invoices] == ["1", "2"]
        assert all(is_valid_kid(invoice["payment_reference"]) for invoice in invoices)
        paid = await made(client, "/customer-payments", **payment(party, invoices[1]["payment_reference"]))
        (left,) = await got(client, "/open-items", ledger="customer")
        assert (left["invoice_number"], left["party_number"], left["remaining_amount"]) == ("1", "C1", "125.00")
        ageing = await got(client, "/ageing", as_of="2026-05-10")
        assert [(row["party_name"], row["overdue"][1], row["total"]) for row in ageing["rows"]] == [
            ("Kafeen AS", "125.00", "125.00")
        ]
        reversal = await made(client, f"/entries/{paid['id']}/reversal", on="2026-03-25")
        assert (reversal["voucher"], reversal["source_type"]) == ("4/2026", "customer_payment")
        assert len(await got(client, "/open-items")) == 2
        assert len(await got(client, "/open-items", as_of="2026-03-22")) == 1
        again = await made(client, f"/entries/{paid['id']}/reversal", status=409, on="2026-03-26")
        assert "is reversed already. Post what that took away anew." in again["detail"]
        assert await balances(client, "1500") == ("250.00", "250.00", "0.00")

    place.run(work)


def test_two_tenants_never_see_each_other(place: Place) -> None:
    async def work(erp: Erp) -> None:
        acme, beta = await erp.client("acme"), await erp.client("beta")
        theirs = await customer(acme, "SECRET")
        sold = await made(acme, "/customer-invoices", **sale(theirs))
        run_id = (await made(acme, "/backfills", status=202))["run_id"]
        await over(acme, run_id)
        told = [
            await got(beta, "/open-items", include_settled=True),
            await got(beta, "/ageing", as_of=DAY),
            await got(beta, "/proof"),
            await got(beta, "/explanation", status=404, subject="1"),
            await got(beta, "/explanation", status=404, subject="customer_invoice:1"),
            await got(beta, f"/backfills/{run_id}", status=404),
            await made(beta, f"/backfills/{run_id}/cancel", status=404),
            await made(beta, f"/backfills/{run_id}/resume", status=404),
            await made(beta, "/customer-invoices", status=404, **sale(theirs)),
            await made(beta, "/customer-payments", status=404, **payment(theirs, None)),
            await made(beta, f"/entries/{sold['entry']['id']}/reversal", status=404, on=DAY),
        ]
        assert not re.search("acme|SECRET|Kafeen|125", json.dumps(told))
        # the same numbers are another customer's and another invoice's here
        mine = await customer(beta, "SECRET")
        await made(beta, "/customer-payments", **payment(mine, sold["invoice"]["payment_reference"]))
        assert await items(beta) == [("payment", "-125.00", "-125.00", "open")]
        assert await items(acme) == [("invoice", "125.00", "125.00", "open")]

    place.run(work)


@pytest.mark.parametrize("place", ["aiosqlite", "asyncpg", "psycopg_async"], indirect=True)
def test_concurrent_payments_of_one_invoice_settle_it_once(place: Place) -> None:
    async def work(erp: Erp) -> None:
        client = await erp.client()
        party = await customer(client)
        kid = (await made(client, "/customer-invoices", **sale(party)))["invoice"]["payment_reference"]
        paid = await asyncio.gather(
            *(made(client, "/customer-payments", **payment(party, kid, "50.00")) for _ in range(8))
        )
        assert sorted(int(entry["voucher"].split("/")[0]) for entry in paid) == list(range(2, 10))
        found = await items(client)
        assert found[0] == ("invoice", "125.00", "0.00", "paid")
        assert sorted(item[2] for item in found[1:]) == ["-25.00", *["-50.00"] * 5, "0.00", "0.00"]
        assert await balances(client, "1500") == ("-275.00", "-275.00", "0.00")

    place.run(work)


# -- what is refused ---------------------------------------------------------------------------------------


def test_a_posting_that_fails_leaves_nothing_and_gives_its_number_back(place: Place) -> None:
    def left() -> list[int | None]:
        with sessionmaker(place.plain)() as session:
            models = (VendorInvoice, JournalEntry, SupplierLedger)
            counts = [session.scalar(select(func.count()).select_from(model)) for model in models]
            return [*counts, session.scalar(select(Company.last_voucher))]

    async def work(erp: Erp) -> None:
        client = await erp.client()
        party = await vendor(client)
        with broken(place.plain):
            response = await client.post("/vendor-invoices", json=bill(party))
            assert response.status_code == 500
            assert left() == [0, 0, 0, 0]
        refused = await made(client, "/vendor-invoices", status=422, **bill(party, account="4" * 21))
        assert "account_number" in refused["detail"]
        assert left() == [0, 0, 0, 0]
        assert (await made(client, "/vendor-invoices", **bill(party)))["entry"]["voucher"] == "1/2026"

    place.run(work)


def test_an_error_of_the_books_is_answered_with_its_remedy(place: Place) -> None:
    async def work(erp: Erp) -> None:
        client = await erp.client()
        lopsided = [{"account": "6000", "amount": "10.00"}, {"account": "1920", "amount": "-9.00"}]
        entry = {"entry_date": DAY, "description": "Rent", "lines": lopsided}
        refused = await made(client, "/entries", status=422, **entry)
        assert refused["detail"] == (
            "Voucher 1/2026 is out of balance by 1.00 (debit less credit). Correct its lines before posting it."
        )
        refused = await made(client, "/entries", status=422, **{**entry, "lines": []})
        assert "has no lines. Add its lines before posting it." in refused["detail"]
        refused = await made(client, "/vendors", status=422, number="N\0", name="x")
        assert "number" in refused["detail"]
        await vendor(client, "V1")
        refused = await made(client, "/vendors", status=409, number="V1", name="again")
        assert refused["detail"] == "Vendor V1 is there already. Use that one, or choose another number."
        assert await got(client, "/open-items") == []

    place.run(work)


@pytest.mark.parametrize("amount", [125.0, 125, "1e400", "NaN", "Infinity", "0.001", "-5", "", None])
def test_an_amount_is_an_exact_decimal_string(sqlite_place: Place, amount: Any) -> None:
    async def work(erp: Erp) -> None:
        client = await erp.client()
        response = await client.post("/vendor-invoices", json=bill(await vendor(client), amount=amount))
        assert response.status_code == 422, response.text
        assert response.json()["detail"][0]["loc"] == ["body", "amount"]

    sqlite_place.run(work)


def test_a_request_names_a_registered_company(sqlite_place: Place) -> None:
    async def work(erp: Erp) -> None:
        client = await erp.client("nobody", register=False)
        refused = await got(client, "/open-items", status=404)
        assert refused["detail"] == "Company nobody is not registered. POST it to /companies first."
        del client.headers["X-Tenant"]
        assert (await got(client, "/open-items", status=422))["detail"][0]["loc"] == ["header", "x-tenant"]

    sqlite_place.run(work)


# -- why it has no row -------------------------------------------------------------------------------------


def test_the_backend_says_why_something_has_no_open_item(place: Place) -> None:
    async def work(erp: Erp) -> None:
        client = await erp.client()
        lines = [{"account": "2400", "amount": "-10.00"}, {"account": "1920", "amount": "10.00"}]
        await made(client, "/entries", entry_date=DAY, description="By hand", lines=lines)
        said = await got(client, "/explanation", subject="1")
        assert said["entries"][0]["lines"][0]["outcome"] == "manual"
        assert "No ledger entry was created" in said["text"]
        assert await balances(client, "2400") == ("10.00", "0.00", "10.00")
        await made(client, "/vendor-invoices", **bill(await vendor(client)))
        said = await got(client, "/explanation", subject="vendor_invoice:8907")
        line = next(line for line in said["entries"][0]["lines"] if line["account_number"] == "2400")
        assert (line["outcome"], line["item"]["remaining_amount"]) == ("written", "125.00")
        missing = await got(client, "/explanation", status=404, subject="vendor_invoice:9999")
        assert missing["detail"] == "vendor_invoice 9999 is not in the books. Check the number and the tenant."

    place.run(work)


# -- history -----------------------------------------------------------------------------------------------


def post_history(plain: Engine, invoices: int = 6) -> None:
    """What the ERP posted before it had a sync: invoices and their payments, under a series of their own."""
    with sessionmaker(plain)() as session:
        for number in range(invoices):
            sold = books.customer_invoice(session, payment_reference=f"K{number}")
            paid = books.customer_payment(session, 40, payment_reference=f"K{number}")
            for signed, source in ((100, ("customer_invoice", sold.id)), (-40, ("customer_payment", paid.id))):
                books.entry(session, "1500", signed, source, voucher_series="H", on=date(2026, 1, 1))
        session.commit()


async def over(client: httpx.AsyncClient, run_id: int) -> list[dict[str, Any]]:
    """Poll a run until nobody works on it any more; all that was seen."""
    seen = [await got(client, f"/backfills/{run_id}")]
    while seen[-1]["state"] == "running":
        seen.append(await got(client, f"/backfills/{run_id}"))
    return seen


def test_a_backfill_is_watched_paused_and_resumed_while_the_backend_goes_on(place: Place) -> None:
    is_monday_morning = True

    def health() -> str | None:
        return "Monday morning" if is_monday_morning else None

    async def work(erp: Erp) -> None:
        nonlocal is_monday_morning
        client = await erp.client()
        await asyncio.to_thread(post_history, place.plain)
        assert (await balances(client, "1500"))[1] == "0.00"
        run_id = (await made(client, "/backfills", status=202))["run_id"]
        said = await made(client, "/backfills", status=409)
        assert f"Run {run_id}, a backfill over the books of tenant acme, is at work" in said["detail"]
        while (seen := await got(client, f"/backfills/{run_id}"))["note"] != "Monday morning":
            assert seen["state"] == "running"
        assert seen["percent"] < 100
        await made(client, "/customer-invoices", **sale(await customer(client, "C2")))
        await made(client, f"/backfills/{run_id}/pause", status=202)
        seen_until_paused = await over(client, run_id)
        assert seen_until_paused[-1]["state"] == "paused"
        is_monday_morning = False
        await made(client, f"/backfills/{run_id}/resume", status=202)
        seen_until_done = await over(client, run_id)
        percents = [one["percent"] for one in (seen, *seen_until_paused, *seen_until_done)]
        assert percents == sorted(percents)
        last = seen_until_done[-1]
        assert (last["state"], last["percent"], last["processed"], last["total"]) == ("completed", 100, 12, 12)
        assert (last["synced"], last["errors"]) == (12, 0)
        assert await balances(client, "1500") == ("485.00", "485.00", "0.00")

    place.run(work, settings=Settings(batch_lines_max=2, batch_lines_start=2), health=health)


def test_the_console_is_mounted_and_syncs_the_books_of_whoever_has_the_token(place: Place) -> None:
    async def work(erp: Erp) -> None:
        client = await erp.client()
        await asyncio.to_thread(post_history, place.plain)
        api = "/ledger/api/ledger"
        assert (await client.get(f"{api}/session")).status_code == 401
        client.headers["Authorization"] = "Bearer of-the-bookkeeper"
        assert (await got(client, f"{api}/session"))["tenants"] == ["acme"]
        started = await made(client, f"{api}/sync-data", status=202)
        while (seen := await got(client, f"{api}/sync-data/{started['syncId']}"))["state"] == "running":
            await asyncio.sleep(0.02)
        assert (seen["state"], seen["progress"], seen["clean"]) == ("completed", 100.0, True)
        assert (await got(client, f"{api}/proof"))["clean"]

    place.run(work, token="of-the-bookkeeper")


def test_a_cancelled_backfill_is_over_for_good_and_another_one_goes_on(place: Place) -> None:
    is_held = True

    def health() -> str | None:
        return "held" if is_held else None

    async def work(erp: Erp) -> None:
        nonlocal is_held
        client = await erp.client()
        await asyncio.to_thread(post_history, place.plain)
        run_id = (await made(client, "/backfills", status=202))["run_id"]
        await made(client, f"/backfills/{run_id}/cancel", status=202)
        assert (await over(client, run_id))[-1]["state"] == "cancelled"
        said = await made(client, f"/backfills/{run_id}/resume", status=409)
        assert said["detail"] == f"Run {run_id} was cancelled. Start a new one; it goes on from what is written."
        is_held = False
        other = (await made(client, "/backfills", status=202))["run_id"]
        assert (await over(client, other))[-1]["percent"] == 100

    place.run(work, health=health)


def test_a_backend_that_is_shut_down_leaves_a_paused_run_that_the_next_one_resumes(place: Place) -> None:
    runs: list[int] = []

    async def begin(erp: Erp) -> None:
        client = await erp.client()
        await asyncio.to_thread(post_history, place.plain)
        runs.append((await made(client, "/backfills", status=202))["run_id"])

    async def first() -> None:
        async with asyncio.timeout(SECONDS_MAX), served(place, health=lambda: "held") as erp:
            await begin(erp)

    async def go_on(erp: Erp) -> None:
        client = await erp.client(register=False)
        assert (await got(client, f"/backfills/{runs[0]}"))["state"] == "paused"
        await made(client, f"/backfills/{runs[0]}/resume", status=202)
        assert (await over(client, runs[0]))[-1]["synced"] == 12

    asyncio.run(first())
    place.run(go_on)


# -- a real server -----------------------------------------------------------------------------------------


def test_the_readmes_commands_serve_and_fill_the_books(tmp_path: Path) -> None:
    readme = (ROOT / "examples" / "erp_backend" / "README.md").read_text(encoding="utf-8")
    serve = shlex.split(re.findall(r"^\$ python3 (-m uvicorn .*)$", readme, re.MULTILINE)[0])
    requests = [shlex.split(line) for line in re.findall(r"^\$ (curl .*)$", readme, re.MULTILINE)]
    # a socket that listens already: whoever connects waits for the server, and nobody has to guess a port or wait
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        server = subprocess.Popen(
            [sys.executable, *serve, "--fd", str(listening.fileno())],
            cwd=ROOT,
            env={**os.environ, "ERP_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'erp.db'}"},
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS_MAX) as client:
                answers = [_asked(client, words) for words in requests]
        finally:
            server.send_signal(signal.SIGINT)
            output, _ = server.communicate(timeout=SECONDS_MAX)
    assert "Traceback" not in output, output
    *_, open_items, proof = answers
    assert [(item["invoice_number"], item["remaining_amount"]) for item in open_items] == [("1", "250.00")]
    assert [account["difference"] for account in proof["accounts"]] == ["0.00"] * len(proof["accounts"])


def _asked(client: httpx.Client, words: list[str]) -> Any:
    """What a command with curl would be answered."""
    path = words[2].removeprefix("localhost:8000")
    headers = {"X-Tenant": words[4].split(": ")[1]} if "-H" in words else {}
    if "--json" in words:
        body = json.loads(words[words.index("--json") + 1])
        response = client.post(path, json=body, headers=headers)
    else:
        response = client.get(path, headers=headers)
    assert response.is_success, response.text
    return response.json()
