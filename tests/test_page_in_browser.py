"""The proof's page in a real browser: nothing is fetched, nothing overflows, and keyboard, dark mode and paper work.

Drives a headless Chromium by its own driver; skipped, visibly, where either is not installed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys

from ledger_sync.contrib.cli.page import page
from tests.test_page import rich_ageing, rich_lines, rich_page, rich_proof

SWITCHES = (
    "--headless=new",
    "--no-sandbox",  # it refuses to start as root with it, as containers do
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(executable_path=driver))
    try:
        yield opened
    finally:
        opened.quit()


@pytest.fixture
def shown(browser: webdriver.Chrome, tmp_path: Path) -> webdriver.Chrome:
    """The browser with a page that has everything, from a file, on a light screen of 1280 pixels."""
    show(browser, tmp_path, rich_page())
    return browser


def show(browser: webdriver.Chrome, folder: Path, text: str) -> None:
    file = folder / "proof.html"
    file.write_text(text, encoding="utf-8")
    screen(browser, 1280)
    media(browser)
    for kind in ("performance", "browser"):
        browser.get_log(kind)
    browser.get(file.as_uri())


def screen(browser: webdriver.Chrome, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def media(browser: webdriver.Chrome, scheme: str = "light", kind: str = "") -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": features})


def ask(browser: webdriver.Chrome, expression: str, *arguments: object) -> Any:
    return browser.execute_script(f"return {expression}", *arguments)  # type: ignore[no-untyped-call]


def background(browser: webdriver.Chrome) -> int:
    """How light the page's background is: the sum of red, green and blue."""
    colour = ask(browser, "getComputedStyle(document.body).backgroundColor")
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))


def test_the_page_loads_without_any_request_but_for_itself(shown: webdriver.Chrome) -> None:
    messages = [json.loads(entry["message"])["message"] for entry in shown.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert asked == [shown.current_url]
    assert shown.get_log("browser") == [], "neither errors nor breaches of the policy"
    assert ask(shown, "performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_the_document_does_not_overflow_sideways(shown: webdriver.Chrome, tmp_path: Path, width: int) -> None:
    long = "A" * 240
    proof = rich_proof().model_copy(update={"tenant_id": long})
    row = rich_ageing().rows[0].model_copy(update={"party_name": long, "party_number": long[:40]})
    ageing = rich_ageing().model_copy(update={"tenant_id": long, "rows": (row, *rich_ageing().rows)})
    lines = [line.model_copy(update={"voucher": long}) for line in rich_lines()]
    for text in (rich_page(), page(proof, lines, ageing)):
        show(shown, tmp_path, text)
        screen(shown, width)
        shown.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
        inner, outer = ask(shown, "[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert inner <= outer
    if width == 390:
        scrolling = ask(
            shown, "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
        )
        assert scrolling > 0, "wide tables scroll by themselves"


@pytest.mark.parametrize("width", [1280, 390])
def test_what_a_chart_says_stays_within_it_and_nothing_covers_anything(shown: webdriver.Chrome, width: int) -> None:
    screen(shown, width)
    outside = ask(
        shown,
        """[...document.querySelectorAll('svg')].flatMap(svg => {
            const box = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text')].filter(text => {
                const b = text.getBoundingClientRect();
                return b.left < box.left || b.right > box.right || b.bottom > box.bottom;
            }).map(text => text.textContent);
        })""",
    )
    assert outside == []
    covering = ask(
        shown,
        """[...document.querySelectorAll('svg')].flatMap(svg => {
            const texts = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
            return texts.flatMap(([one, a], i) => texts.slice(i + 1).filter(([other, b]) =>
                a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom
            ).map(([other]) => [one, other]));
        })""",
    )
    assert covering == []


def test_details_open_and_close_by_keyboard(shown: webdriver.Chrome) -> None:
    summary = shown.find_element("css selector", "section.cause summary")
    table = shown.find_element("css selector", "section.cause details table")
    assert not table.is_displayed()
    shown.execute_script("arguments[0].focus()", summary)
    shown.switch_to.active_element.send_keys(Keys.ENTER)
    assert table.is_displayed()
    shown.switch_to.active_element.send_keys(Keys.SPACE)
    assert not table.is_displayed()


def test_the_first_tab_leads_to_the_skip_link_and_on_to_the_proof(shown: webdriver.Chrome) -> None:
    shown.find_element("css selector", "body").send_keys(Keys.TAB)
    link = shown.switch_to.active_element
    assert link.text == "Skip to the proof"
    assert ask(shown, "arguments[0].getBoundingClientRect().left", link) >= 0
    link.send_keys(Keys.ENTER)
    assert ask(shown, "document.activeElement.id") == "main"


def test_every_table_that_scrolls_is_reached_by_keyboard_and_has_a_name(shown: webdriver.Chrome) -> None:
    without = ask(
        shown,
        """[...document.querySelectorAll('.scroll')].filter(each => each.tabIndex !== 0
            || !document.getElementById(each.getAttribute('aria-labelledby'))).length""",
    )
    assert without == 0


def test_a_screen_reader_is_told_each_chart_and_table_and_the_landmarks(shown: webdriver.Chrome) -> None:
    nodes = shown.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    told: dict[str, list[str]] = {}
    for node in nodes:
        if not node["ignored"]:
            told.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert len(told["image"]) == 5
    assert told["image"][0].startswith("Account 2400: from the GL balance to the subledger balance")
    assert "missing −1" in told["image"][0], "a chart's name has its figures"
    assert all(told["table"]), "every table has a name"
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert len(told[landmark]) == 1
    assert len(shown.find_elements("css selector", "h1")) == 1
    assert not shown.find_elements("css selector", "table:not(:has(caption)), svg:not(:has(title))")


def test_dark_mode_has_a_dark_page(shown: webdriver.Chrome) -> None:
    assert background(shown) > 700
    media(shown, "dark")
    assert background(shown) < 100
    text = ask(shown, "getComputedStyle(document.querySelector('svg text')).fill")
    assert text == ask(shown, "getComputedStyle(document.body).color")


def test_paper_is_light_and_shows_what_is_folded_on_the_screen(shown: webdriver.Chrome) -> None:
    row = shown.find_element("css selector", "section.cause details tbody tr")
    assert ask(shown, "arguments[0].checkVisibility({contentVisibilityAuto: true})", row) is False
    media(shown, "dark", "print")
    assert background(shown) > 700
    assert ask(shown, "arguments[0].checkVisibility({contentVisibilityAuto: true})", row) is True
    assert ask(shown, "arguments[0].getBoundingClientRect().height", row) > 10
    assert ask(shown, "getComputedStyle(document.querySelector('nav')).display") == "none"


def test_what_users_wrote_runs_nowhere(shown: webdriver.Chrome) -> None:
    assert ask(shown, "document.scripts.length") == 0
    assert ask(shown, "document.images.length") == 0
    assert "<script>alert(1)</script>" in shown.find_element("css selector", "body").get_attribute("textContent")
