"""The console and its dialog in a real Chromium, before a server in a process of its own.

Skipped, visibly, where the frontend is not built, or where there is no Chromium.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import sessionmaker

from ledger_sync import ALL_TENANTS, LedgerSync
from ledger_sync.contrib.web.app import STATIC
from ledger_sync.contrib.web.operations import LINES_MAX
from ledger_sync.dialects import open_engine
from ledger_sync.statements import Statement
from tests.benchmarks.books_at_scale import TENANT, make
from tests.books import customer_invoice
from tests.budget import at_length, pairs
from tests.conftest import make_sqlite
from tests.refusing import refusing_new
from tests.web.places import SMALL, Place, fill, listening

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "0123456789abcdef0123"
LINES = at_length(20_000, 200_000, 6_000)
SECONDS_MAX = at_length(300, 1800)


@dataclass
class Served:
    """A server of one SQLite file, which can be killed and started again at the same place."""

    file: Path
    port: int
    process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.web.serving", str(self.file), str(self.port), TOKEN]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("http://")

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.communicate()
            self.process = None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("web") / "books.db"
    engine = open_engine(f"sqlite:///{file}")
    make(engine, LINES * 10 // 17)
    engine.dispose()
    return file


@pytest.fixture
def served(books: Path, tmp_path: Path) -> Iterator[Served]:
    file = tmp_path / "books.db"
    shutil.copy(books, file)
    served = Served(file, free_port())
    served.start()
    yield served
    served.kill()


@dataclass
class Seen:
    """A page, and what it asked for and complained of."""

    page: Any
    asked: list[str]
    complaints: list[str]

    def sign_in(self, address: str, token: str = TOKEN) -> None:
        policy = self.page.goto(address).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        self.page.get_by_label("token", exact=False).first.fill(token)
        self.page.keyboard.press("Enter")
        self.page.get_by_role("navigation").wait_for()

    def go(self, place: str) -> None:
        self.page.evaluate("place => { location.hash = place; }", place)

    def start(self) -> None:
        self.page.get_by_role("button", name="Sync the ledger").click()
        self.page.get_by_role("button", name="Start sync").click()
        self.page.get_by_role("progressbar").first.wait_for()

    def says(self, text: str) -> None:
        self.page.get_by_text(text, exact=False).first.wait_for(timeout=SECONDS_MAX * 1000)

    def percent(self) -> float:
        return float(self.page.get_by_role("progressbar").first.get_attribute("aria-valuenow"))

    def percent_over(self, least: float) -> None:
        while self.percent() <= least:
            self.page.wait_for_timeout(50)


@pytest.fixture
def built() -> None:
    if not (STATIC / "ledger-sync-console.js").exists():
        pytest.skip("the frontend is not built: npm ci && npm run build in ledger_sync/contrib/web/ui")


@pytest.fixture
def locale() -> str:
    """The browser's language; a test that wants another is parametrized with it."""
    return "en-GB"


@pytest.fixture
def seen(built: None, chromium: Any, served: Served, locale: str) -> Iterator[Seen]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, locale=locale)
    page = context.new_page()
    seen = Seen(page, [], [])
    page.on("request", lambda request: seen.asked.append(request.url))
    page.on("console", lambda message: seen.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.set_default_timeout(60_000)
    yield seen
    context.close()


def report_of(served: Served) -> Any:
    engine = open_engine(f"sqlite:///{served.file}")
    with sessionmaker(engine)() as session:
        report = LedgerSync().runs(session, TENANT)[0]
    engine.dispose()
    return report


def sync_all(served: Served) -> None:
    engine = open_engine(f"sqlite:///{served.file}")
    LedgerSync().backfill(sessionmaker(engine), tenant_id=TENANT)
    engine.dispose()


def violations(page: Any) -> list[str]:
    """What axe finds wrong with the page as it is now."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]


ENGLISH_BY_MISTAKE = r"""() => {
    const found = [];
    const walk = (node, lang) => {
        if (node.nodeType === Node.TEXT_NODE) {
            const english = /\b(the|of|is|are|has|with|its|this|nothing|there)\b/i.test(node.data);
            if (lang !== "en" && english) found.push(node.data.trim());
            return;
        }
        if (["STYLE", "SCRIPT", "NOSCRIPT"].includes(node.nodeName)) return;
        const own = (node.getAttribute && node.getAttribute("lang")) || lang;
        for (const child of [...(node.shadowRoot ? [node.shadowRoot] : []), ...node.childNodes]) walk(child, own);
    };
    walk(document.documentElement, "");
    return found;
}"""
"""What reads as English on the page, and is not said to be."""


@pytest.mark.parametrize("locale", ["nb-NO"])
def test_a_norwegian_page_is_norwegian_but_for_what_it_says_is_english(seen: Seen, served: Served) -> None:
    page = seen.page
    seen.sign_in(served.address)
    page.get_by_role("button", name="Synkroniser reskontroen").click()
    page.get_by_role("button", name="Start synkronisering").click()
    seen.says("linjer i alt")
    assert page.evaluate(ENGLISH_BY_MISTAKE) == []
    seen.says("Ferdig: bøkene er avstemt.")
    assert page.evaluate(ENGLISH_BY_MISTAKE) == []
    page.get_by_role("dialog").get_by_role("button", name="Lukk").last.click()
    for view, awaited in {
        "#/runs": "Gjennomstrømning",
        "#/proof": "Hvert øre",
        "#/ageing?ledger=customer": "Ikke forfalt",
        "#/items?ledger=customer": "De første",
        "#/statement/7?ledger=customer": "Utgående saldo",
        "#/explain": "regel for regel",
    }.items():
        seen.go(view)
        seen.says(awaited)
        assert page.evaluate(ENGLISH_BY_MISTAKE) == [], view
    for subject, answer in (("1", "Kontoen er en reskontrokonto."), ("no such thing", "Finnes ikke i bøkene")):
        page.get_by_role("searchbox").fill(subject)
        page.get_by_role("button", name="Forklar").click()
        seen.says(answer)
        assert page.evaluate(ENGLISH_BY_MISTAKE) == [], subject
    assert page.locator("[lang=en]", has_text="is not in the books").count() == 1


def test_a_sync_is_started_and_watched_to_its_end(seen: Seen, served: Served) -> None:
    seen.sign_in(served.address)
    seen.start()
    assert violations(seen.page) == []
    before = -1.0
    while before < 100:
        now = seen.percent()
        assert now >= before
        before = now
        seen.page.wait_for_timeout(50)
    seen.says("The books agree")
    report = report_of(served)
    assert (report.state, report.clean) == ("completed", True)
    for count in (report.processed, report.synced, report.applied):
        seen.page.get_by_role("dialog").get_by_text(f"{count:,}", exact=True).first.wait_for()
    assert violations(seen.page) == []
    assert {url.split("/")[2] for url in seen.asked} == {f"127.0.0.1:{served.port}"}
    assert seen.complaints == []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Two companies' history."""
    engine = make_sqlite(tmp_path / "companies.db")
    place = Place(engine, LedgerSync(SMALL), sessionmaker(engine))
    for company in ("acme", "beta"):
        fill(place, company)
    yield place
    engine.dispose()


def test_who_has_several_companies_syncs_the_one_that_they_have_chosen(seen: Seen, place: Place) -> None:
    with listening(place.app()) as address:
        seen.sign_in(f"{address}/", "token-of-both")
        seen.page.get_by_label("Company").select_option("beta")
        seen.start()
        seen.says("The books agree")
    with place.factory() as session:
        assert [(run.tenant_id, run.clean) for run in place.sync.runs(session, ALL_TENANTS)] == [("beta", True)]
    assert seen.complaints == []


def test_what_else_bears_a_number_is_one_click_away(seen: Seen, place: Place) -> None:
    with place.factory() as session:
        customer_invoice(session, invoice_number="ACME-5")
        session.commit()
    with listening(place.app(runs_at_once=0)) as address:
        seen.sign_in(f"{address}/", "token-of-acme")
        seen.go("#/explain?q=ACME-5")
        other = seen.page.get_by_role("link", name="invoice ACME-5")
        other.wait_for()
        assert violations(seen.page) == []
        other.click()
        seen.page.get_by_role("link", name="invoice ACME-5").wait_for(state="detached")
        seen.page.get_by_role("searchbox").wait_for()
        assert seen.page.get_by_role("searchbox").input_value() in {"vendor_invoice:ACME-5", "customer_invoice:ACME-5"}
    assert seen.complaints == []


def test_a_server_that_is_killed_in_mid_run_is_missed_and_its_run_ends_after_its_return(
    seen: Seen, served: Served
) -> None:
    seen.sign_in(served.address)
    seen.start()
    seen.percent_over(2)
    served.kill()
    seen.says("The server can’t be reached")
    assert violations(seen.page) == []
    assert report_of(served).state == "running"
    served.start()
    seen.says("The books agree")
    assert seen.percent() == 100
    assert (report_of(served).state, report_of(served).clean) == ("completed", True)


def test_a_sync_is_paused_resumed_and_cancelled(seen: Seen, served: Served) -> None:
    seen.sign_in(served.address)
    seen.start()
    seen.percent_over(0)
    seen.page.get_by_role("button", name="Pause").click()
    seen.page.get_by_role("button", name="Resume").wait_for()
    assert report_of(served).state == "paused"
    assert violations(seen.page) == []
    seen.page.get_by_role("button", name="Cancel sync").click()
    assert violations(seen.page) == []
    seen.page.get_by_role("button", name="No, go on").click()
    seen.page.get_by_role("button", name="Resume").click()
    seen.page.get_by_role("button", name="Cancel sync").click()
    seen.page.get_by_role("button", name="Yes, cancel it").click()
    seen.says("Cancelled")
    assert report_of(served).state == "cancelled"


def test_errors_are_shown_with_their_messages(seen: Seen, served: Served) -> None:
    engine = open_engine(f"sqlite:///{served.file}")
    with refusing_new(engine, "customer_ledger", "no room for it", "NEW.general_ledger_id IN (3, 5)"):
        seen.sign_in(served.address)
        seen.start()
        seen.says("Completed with errors")
        seen.says("no room for it")
        assert violations(seen.page) == []
    engine.dispose()
    assert report_of(served).errors == 2


MOVING = """() => {
    const moving = root => [...root.querySelectorAll("*")].reduce(
        (count, each) => count + (each.shadowRoot ? moving(each.shadowRoot) : 0), root.getAnimations().length
    );
    return moving(document);
}"""
"""How many animations and transitions are under way on the page."""


def test_nothing_moves_for_who_has_asked_for_that(seen: Seen, served: Served) -> None:
    seen.sign_in(served.address)
    seen.start()
    seen.page.wait_for_function(f"({MOVING})() > 0")
    seen.page.emulate_media(reduced_motion="reduce")
    seen.page.wait_for_function(f"({MOVING})() === 0")


def test_a_party_s_statement_is_reached_from_ageing_and_from_open_items(seen: Seen, served: Served) -> None:
    sync_all(served)
    seen.sign_in(served.address)
    page = seen.page
    for view in ("ageing", "items"):
        seen.go(f"#/{view}?ledger=customer")
        page.get_by_role("link", name="Customer ").first.click()
        page.get_by_role("heading", name="Statement: Customer ").wait_for()
        assert page.get_by_role("link", name="Open items", exact=True).get_attribute("aria-current") == "true"


def test_open_items_are_shown_up_to_what_the_server_answers_with(seen: Seen, served: Served) -> None:
    sync_all(served)
    seen.sign_in(served.address)
    more = seen.page.get_by_role("button", name="Show more")
    seen.go("#/items?ledger=customer&settled=1")
    for shown in range(100, LINES_MAX, 100):
        seen.says(f"The first {shown:,}.")
        more.click()
    seen.says(f"The first {LINES_MAX:,}.")
    seen.says("No more are shown here")
    assert more.count() == 0
    assert seen.complaints == []


def test_a_statement_leads_from_the_opening_balance_to_the_closing_one(seen: Seen, served: Served) -> None:
    sync_all(served)
    engine = open_engine(f"sqlite:///{served.file}")
    with sessionmaker(engine)() as session:
        all_time = LedgerSync().statement(session, TENANT, "customer", 7)
        since = all_time.movements[1].entry_date
        of_period = LedgerSync().statement(session, TENANT, "customer", 7, since=since)
    engine.dispose()
    seen.sign_in(served.address)
    page = seen.page
    rows = page.get_by_role("table").get_by_role("row")

    def shown(statement: Statement) -> None:
        page.get_by_role("heading", name=f"Statement: {statement.party_name}").wait_for()
        page.get_by_role("definition").first.get_by_text(f"{statement.opening:,}", exact=True).wait_for()
        # the row of names, the opening balance, the movements, the closing balance
        assert rows.count() == len(statement.movements) + 3
        balances = [statement.opening, *(movement.balance for movement in statement.movements), statement.closing]
        told = [row.get_by_role("cell").last.inner_text() for row in rows.all()[1:]]
        assert told == [f"{balance:,}".replace("-", "\N{MINUS SIGN}") for balance in balances]

    def between(since: str, until: str) -> None:
        for name, day in (("From date", since), ("To date", until)):
            page.get_by_label(name).fill(day)
            page.get_by_label(name).dispatch_event("change")

    seen.go("#/statement/7?ledger=customer")
    shown(all_time)
    between(since.isoformat(), "")
    shown(of_period)
    assert f"since={since}" in page.url, "the period is in the address"
    between(since.isoformat(), "2023-01-01")
    seen.says("The from date lies after the to date")
    between("", "2023-01-01")
    seen.says("This party has nothing in this ledger up to the end of the period")
    seen.go("#/statement/7?ledger=none")
    seen.says("Refused")
    seen.go("#/statement")
    seen.says("Choose a party under open items or ageing")


VIEWS = {
    "#/runs": "Throughput over time",
    "#/runs/1": "The books agree",
    "#/proof": "Every øre",
    "#/ageing?ledger=customer": "Not due",
    "#/ageing?ledger=supplier": "Nothing is open",
    "#/items?ledger=customer&settled=1": "The first 100",
    "#/statement/7?ledger=customer": "Closing balance",
    "#/statement/7?ledger=customer&until=2000-01-01": "This party has nothing",
    "#/statement/7?ledger=customer&since=2026-01-01": "Nothing happened in this period",
    "#/explain": "rule by rule",
    "#/explain?q=I-1/2024": "is a control account",
    "#/explain?q=nothing": "Not in the books",
}
"""Every view, and what it says when it has its answer."""

REFUSED = "Failed to load resource: the server responded with a status of 404 (Not Found)"
"""What the browser complains of by itself when something is not in the books."""


@pytest.mark.parametrize(("scheme", "width"), pairs(["light", "dark"], ["1280", "360"]))
def test_axe_finds_no_violation(seen: Seen, served: Served, scheme: str, width: str) -> None:
    pytest.importorskip("axe_playwright_python")
    sync_all(served)
    page = seen.page
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": int(width), "height": 800})
    page.goto(served.address)
    page.get_by_label("token", exact=False).first.wait_for()
    assert violations(page) == []
    seen.sign_in(served.address)
    for view, awaited in VIEWS.items():
        seen.go(view)
        seen.says(awaited)
        assert violations(page) == [], view
        inner, outer = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert inner <= outer, f"{view} is wider than the screen"
    page.get_by_role("button", name="Sync the ledger").click()
    page.get_by_role("button", name="Start sync").wait_for()
    assert violations(page) == []
    assert set(seen.complaints) == {REFUSED}
