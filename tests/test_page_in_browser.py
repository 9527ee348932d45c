"""The proof's page in a real browser: nothing is fetched, nothing overflows, and keyboard, dark mode and paper work.

Skipped, visibly, where there is no Chromium.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ledger_sync.contrib.cli.page import page
from tests.test_page import rich_ageing, rich_lines, rich_page, rich_proof


@dataclass
class Shown:
    """A page from a file, and what it asked for and complained of."""

    page: Any
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def ask(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def background(self) -> int:
        """How light the page's background is: the sum of red, green and blue."""
        colour = self.ask("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))


Show = Callable[..., Shown]


@pytest.fixture
def show(chromium: Any, tmp_path: Path) -> Iterator[Show]:
    """Shows a text as a page of its own, on a light screen; one that is narrow is a telephone's."""
    contexts: list[Any] = []

    def show(text: str, width: int = 1280) -> Shown:
        file = tmp_path / f"proof-{len(contexts)}.html"
        file.write_text(text, encoding="utf-8")
        context = chromium.new_context(
            viewport={"width": width, "height": 800}, is_mobile=width < 600, color_scheme="light"
        )
        contexts.append(context)
        shown = Shown(context.new_page())
        shown.page.on("request", lambda request: shown.asked.append(request.url))
        shown.page.on("console", lambda message: shown.complaints.append(message.text))
        shown.page.on("pageerror", lambda error: shown.complaints.append(str(error)))
        shown.page.goto(file.as_uri())
        return shown

    yield show
    for context in contexts:
        context.close()


@pytest.fixture
def shown(show: Show) -> Shown:
    """A page that has everything, on a screen of 1280 pixels."""
    return show(rich_page())


def test_the_page_loads_without_any_request_but_for_itself(shown: Shown) -> None:
    assert shown.asked == [shown.page.url]
    assert shown.complaints == [], "neither errors nor breaches of the policy"
    assert shown.ask("performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_the_document_does_not_overflow_sideways(show: Show, width: int) -> None:
    long = "A" * 240
    proof = rich_proof().model_copy(update={"tenant_id": long})
    row = rich_ageing().rows[0].model_copy(update={"party_name": long, "party_number": long[:40]})
    ageing = rich_ageing().model_copy(update={"tenant_id": long, "rows": (row, *rich_ageing().rows)})
    lines = [line.model_copy(update={"voucher": long}) for line in rich_lines()]
    for text in (rich_page(), page(proof, lines, ageing)):
        shown = show(text, width)
        shown.ask("document.querySelectorAll('details').forEach(each => each.open = true)")
        inner, outer = shown.ask("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert outer <= width
        assert inner <= outer
    if width == 390:
        scrolling = shown.ask(
            "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
        )
        assert scrolling > 0, "wide tables scroll by themselves"


@pytest.mark.parametrize("width", [1280, 390])
def test_what_a_chart_says_stays_within_it_and_nothing_covers_anything(show: Show, width: int) -> None:
    shown = show(rich_page(), width)
    outside = shown.ask(
        """[...document.querySelectorAll('svg')].flatMap(svg => {
            const box = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text')].filter(text => {
                const b = text.getBoundingClientRect();
                return b.left < box.left || b.right > box.right || b.bottom > box.bottom;
            }).map(text => text.textContent);
        })""",
    )
    assert outside == []
    covering = shown.ask(
        """[...document.querySelectorAll('svg')].flatMap(svg => {
            const texts = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
            return texts.flatMap(([one, a], i) => texts.slice(i + 1).filter(([other, b]) =>
                a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom
            ).map(([other]) => [one, other]));
        })""",
    )
    assert covering == []


def test_details_open_and_close_by_keyboard(shown: Shown) -> None:
    summary = shown.page.locator("section.cause summary").first
    table = shown.page.locator("section.cause details table").first
    assert not table.is_visible()
    summary.focus()
    shown.page.keyboard.press("Enter")
    assert table.is_visible()
    shown.page.keyboard.press("Space")
    assert not table.is_visible()


def test_the_first_tab_leads_to_the_skip_link_and_on_to_the_proof(shown: Shown) -> None:
    shown.page.keyboard.press("Tab")
    link = shown.page.locator(":focus")
    assert link.inner_text() == "Skip to the proof"
    assert link.evaluate("link => link.getBoundingClientRect().left") >= 0
    shown.page.keyboard.press("Enter")
    assert shown.ask("document.activeElement.id") == "main"


def test_every_table_that_scrolls_is_reached_by_keyboard_and_has_a_name(shown: Shown) -> None:
    without = shown.ask(
        """[...document.querySelectorAll('.scroll')].filter(each => each.tabIndex !== 0
            || !document.getElementById(each.getAttribute('aria-labelledby'))).length""",
    )
    assert without == 0


def test_a_screen_reader_is_told_each_chart_and_table_and_the_landmarks(shown: Shown) -> None:
    nodes = shown.page.context.new_cdp_session(shown.page).send("Accessibility.getFullAXTree")["nodes"]
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
    assert shown.page.locator("h1").count() == 1
    assert shown.page.locator("table:not(:has(caption)), svg:not(:has(title))").count() == 0


def test_dark_mode_has_a_dark_page(shown: Shown) -> None:
    assert shown.background() > 700
    shown.page.emulate_media(color_scheme="dark")
    assert shown.background() < 100
    text = shown.ask("getComputedStyle(document.querySelector('svg text')).fill")
    assert text == shown.ask("getComputedStyle(document.body).color")


def test_paper_is_light_and_shows_what_is_folded_on_the_screen(shown: Shown) -> None:
    row = shown.page.locator("section.cause details tbody tr").first
    is_shown = "row => row.checkVisibility({contentVisibilityAuto: true})"
    assert row.evaluate(is_shown) is False
    shown.page.emulate_media(media="print", color_scheme="dark")
    assert shown.background() > 700
    assert row.evaluate(is_shown) is True
    assert row.evaluate("row => row.getBoundingClientRect().height") > 10
    assert shown.ask("getComputedStyle(document.querySelector('nav')).display") == "none"


def test_what_users_wrote_runs_nowhere(shown: Shown) -> None:
    assert shown.ask("document.scripts.length") == 0
    assert shown.ask("document.images.length") == 0
    assert "<script>alert(1)</script>" in shown.page.locator("body").text_content()
