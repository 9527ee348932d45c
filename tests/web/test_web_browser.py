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

from ledger_sync import LedgerSync
from ledger_sync.contrib.web.app import STATIC
from ledger_sync.dialects import open_engine
from tests.benchmarks.books_at_scale import TENANT, make
from tests.budget import at_length
from tests.refusing import refusing_new

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "0123456789abcdef0123"
LINES = at_length(20_000, 200_000, 6_000)
SECONDS_MAX = 300


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

    def sign_in(self, address: str) -> None:
        self.page.goto(address)
        self.page.get_by_label("token", exact=False).first.fill(TOKEN)
        self.page.keyboard.press("Enter")
        self.page.get_by_role("navigation").wait_for()

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
    for view in ("Kjøringer", "Avstemming", "Aldersfordeling", "Åpne poster"):
        page.get_by_role("navigation").get_by_role("link", name=view).click()
        page.wait_for_load_state("networkidle")
        assert page.evaluate(ENGLISH_BY_MISTAKE) == [], view
    page.get_by_role("link", name="Forklaring").click()
    for subject, answer in (("1", "Kontoen er en reskontrokonto."), ("no such thing", "Finnes ikke i bøkene")):
        page.get_by_role("searchbox").fill(subject)
        page.get_by_role("button", name="Forklar").click()
        seen.says(answer)
        assert page.evaluate(ENGLISH_BY_MISTAKE) == [], subject
    assert page.locator("[lang=en]", has_text="is not in the books").count() == 1


def test_a_sync_is_started_and_watched_to_its_end(seen: Seen, served: Served) -> None:
    seen.sign_in(served.address)
    seen.start()
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
    assert {url.split("/")[2] for url in seen.asked} == {f"127.0.0.1:{served.port}"}
    assert seen.complaints == []


def test_a_server_that_is_killed_in_mid_run_is_missed_and_its_run_ends_after_its_return(
    seen: Seen, served: Served
) -> None:
    seen.sign_in(served.address)
    seen.start()
    seen.percent_over(2)
    served.kill()
    seen.says("The server can’t be reached")
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
    engine.dispose()
    assert report_of(served).errors == 2


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(seen: Seen, served: Served, scheme: str, width: int) -> None:
    pytest.importorskip("axe_playwright_python")
    engine = open_engine(f"sqlite:///{served.file}")
    sync, factory = LedgerSync(), sessionmaker(engine)
    sync.backfill(factory, tenant_id=TENANT, until=None)
    engine.dispose()
    page = seen.page
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(served.address)
    page.get_by_label("token", exact=False).first.wait_for()
    assert violations(page) == []
    seen.sign_in(served.address)
    for view in ("Runs", "Proof", "Ageing", "Open items", "Explain"):
        page.get_by_role("link", name=view).click()
        page.wait_for_load_state("networkidle")
        assert violations(page) == [], view
        inner, outer = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert inner <= outer, f"{view} is wider than the screen"
    page.get_by_role("button", name="Sync the ledger").click()
    page.get_by_role("button", name="Start sync").wait_for()
    assert violations(page) == []
    assert seen.complaints == []
