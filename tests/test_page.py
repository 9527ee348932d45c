"""The proof as a page: the figures of the proof and nothing else, in both formats; what users wrote is only text."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from sqlalchemy import Engine, delete, update
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.contrib.cli.page import page
from ledger_sync.errors import ConfigurationError
from ledger_sync.findings import WORDS, Finding, Subject
from ledger_sync.models import SupplierLedger
from ledger_sync.proof import FAULTS, MEANINGS, AccountProof, Cause, Difference, Proof
from ledger_sync.reports import Ageing, AgeingRow
from tests import books

VOID = {"meta", "line", "rect", "br", "hr", "img", "input", "link"}
NBSP, MINUS = "\N{NO-BREAK SPACE}", "\N{MINUS SIGN}"


# -- a page, taken apart -------------------------------------------------------------------------------


@dataclass
class Node:
    """An element: what it is called, its attributes, and what is in it."""

    name: str
    attributes: dict[str, str]
    parent: Node | None = None
    inside: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it, with runs of blanks as one; no-break spaces stay."""
        raw = "".join(part if isinstance(part, str) else part.text for part in self.inside)
        return re.sub(r"[ \n\t]+", " ", raw).strip(" ")

    def walk(self) -> Iterator[Node]:
        for part in self.inside:
            if isinstance(part, Node):
                yield part
                yield from part.walk()

    def all(self, name: str, **attributes: str) -> list[Node]:
        """The elements of a name inside; ``class_`` is one of the classes, ``data_x`` is ``data-x``."""

        def fits(node: Node) -> bool:
            for key, value in attributes.items():
                if key == "class_":
                    if value not in node.attributes.get("class", "").split():
                        return False
                elif node.attributes.get(key.replace("_", "-")) != value:
                    return False
            return True

        return [node for node in self.walk() if node.name == name and fits(node)]

    def one(self, name: str, **attributes: str) -> Node:
        (found,) = self.all(name, **attributes)
        return found


class Parser(HTMLParser):
    """Builds the tree, and fails on an element that is not closed in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.root = self.at = Node("", {})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        node = Node(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.inside.append(node)
        if tag not in VOID:
            self.at = node

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.at.inside.append(Node(tag, {name: value or "" for name, value in attrs}, self.at))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.at.name, f"</{tag}> closes <{self.at.name}>"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.inside.append(data)


def parsed(text: str) -> Node:
    parser = Parser()
    parser.feed(text)
    parser.close()
    assert parser.at is parser.root, f"<{parser.at.name}> is not closed"
    return parser.root


def amounts(node: Node) -> list[Decimal]:
    return [Decimal(cell.attributes["data-amount"]) for cell in node.walk() if "data-amount" in cell.attributes]


# -- a proof made by hand ------------------------------------------------------------------------------


def cause(name: str, count: int, amount: str) -> Cause:
    meaning, next_step = MEANINGS[name]
    return Cause(
        name=name,
        count=count,
        amount=Decimal(amount),
        meaning=meaning,
        next_step=next_step,
        fault=name in FAULTS,
    )


def finding(name: str, count: int, *texts: str, fault: bool = False, ledger: str = "supplier") -> Finding:
    meaning, next_step = WORDS[name]
    examples = tuple(Subject(id=index, text=text) for index, text in enumerate(texts))
    return Finding(
        ledger=ledger, name=name, count=count, meaning=meaning, next_step=next_step, fault=fault, examples=examples
    )


def account(number: str, ledger: str, gl: str, subledger: str, *causes: Cause) -> AccountProof:
    return AccountProof(
        tenant_id="fjord <b>bakeri</b>",
        ledger=ledger,
        account_number=number,
        gl_balance=Decimal(gl),
        subledger_balance=Decimal(subledger),
        difference=Decimal(gl) - Decimal(subledger),
        causes=causes,
    )


def line(
    number: str, name: str, amount: str, id_: int, voucher: str | None = "17/2017", ledger: str = ""
) -> Difference:
    return Difference(
        ledger=ledger or {"1500": "customer", "1510": "customer"}.get(number, "supplier"),
        general_ledger_id=id_,
        general_ledger_line_id=id_,
        voucher=voucher,
        entry_date=date(2017, 12, 31),
        amount=Decimal(amount),
        account_number=number,
        cause=name,
    )


def aged(ledger: str, number: str | None, name: str | None, *figures: str, undated: str = "0.00") -> AgeingRow:
    not_due, *overdue, credits_ = map(Decimal, figures)
    return AgeingRow(
        ledger=ledger,
        party_id=91,
        party_number=number,
        party_name=name,
        not_due=not_due,
        overdue=tuple(overdue),
        credits=credits_,
        total=sum(map(Decimal, figures), Decimal(0)),
        without_due_date=Decimal(undated),
    )


def rich_proof(as_of: date | None = date(2017, 12, 31)) -> Proof:
    """Two accounts with differences, one fault among them; one that agrees; one without anything."""
    return Proof(
        tenant_id="fjord <b>bakeri</b>",
        as_of=as_of,
        accounts=(
            account(
                "2400", "supplier", "1234567.89", "1185302.39",
                cause("manual", 3, "149800.50"), cause("before_cutover", 1, "-99000.00"),
                cause("missing", 2, "1250.00"), cause("orphan", 1, "-2785.00"),
            ),
            account("1500", "customer", "-4200.00", "27600.00", cause("manual", 1, "-31800.00")),
            account("1510", "customer", "9375.50", "9375.50"),
            account("2910", "employee", "0.00", "0.00"),
        ),
        findings=(
            finding("draft_waits", 2, "voucher 31/2017"),
            finding("remaining_differs", 1, "row 4: <img src=x onerror=alert(1)>", fault=True),
        ),
        runs_active=(7,),
    )  # fmt: skip


def rich_lines() -> list[Difference]:
    return [
        line("1500", "manual", "-31800.00", 9, "B-2/2017"),
        line("2400", "manual", "150000.50", 1),
        line("2400", "before_cutover", "-99000.00", 2),
        line("2400", "manual", "-250.00", 3, '"<script>alert(2)</script>'),
        line("2400", "manual", "50.00", 4),
        line("2400", "missing", "1000.00", 5),
        line("2400", "missing", "250.00", 6),
        line("2400", "orphan", "-2785.00", 7, None),
    ]


def rich_ageing() -> Ageing:
    return Ageing(
        tenant_id="fjord <b>bakeri</b>",
        as_of=date(2017, 12, 31),
        buckets=("1-30", "31-60", "61-90", "over 90"),
        rows=(
            aged("supplier", "20001", "Mølleren <script>alert(1)</script> AS", "900000.00", "200000.00", "50000.00",
                 "25302.39", "30000.00", "-25000.00", undated="1250.00"),
            aged("supplier", None, None, "5000.00", "0.00", "0.00", "0.00", "0.00", "0.00"),
            aged("customer", "10001", "Kafé Brygga & Sønner", "27600.00", "9375.50", "0.00", "0.00", "0.00", "0.00"),
        ),
    )  # fmt: skip


def rich_page(**more: object) -> str:
    return page(rich_proof(), rich_lines(), rich_ageing(), **more)  # type: ignore[arg-type]


EMPTY_AGEING = Ageing(tenant_id="acme", as_of=date(2026, 3, 1), buckets=("1-30", "over 30"), rows=())


# -- figures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("locale", "texts"),
    [
        (
            "nb",
            ("1 234 567,89", "1 185 302,39", "49 265,50", "−149 800,50", "+99 000,00", "−31 800,00", "31.12.2017"),
        ),
        ("en", ("1,234,567.89", "1,185,302.39", "49,265.50", "−149,800.50", "+99,000.00", "−31,800.00", "2017-12-31")),
    ],
)
def test_numbers_and_dates_are_written_as_the_locale_has_them(locale: str, texts: tuple[str, ...]) -> None:
    text = parsed(rich_page(locale=locale)).one("body").text
    for expected in texts:
        assert expected.replace(" ", NBSP) in text
    assert not re.search(r"-\d", re.sub(r"B-2/2017|\d+-\d+ days|\d{4}-\d\d-\d\d", "", text)), (
        "one minus sign throughout"
    )


@pytest.mark.parametrize("locale", ["nb", "en"])
def test_each_figure_reads_as_the_exact_amount_that_it_stands_for(locale: str) -> None:
    cells = [node for node in parsed(rich_page(locale=locale)).walk() if "data-amount" in node.attributes]
    shown = [node for node in cells if node.name != "rect"]
    assert len(shown) > 50
    for node in shown:
        plain = node.text.replace(MINUS, "-").replace("+", "")
        plain = plain.replace(NBSP, "").replace(",", ".") if locale == "nb" else plain.replace(",", "")
        assert Decimal(plain) == Decimal(node.attributes["data-amount"])
        assert re.search(r"[.,]\d\d$", node.text), "two decimals"


def test_balances_differences_and_causes_are_those_of_the_proof() -> None:
    root, proof = parsed(rich_page()), rich_proof()
    rows = root.one("table", id="summary-table").one("tbody").all("tr")
    assert [amounts(row) for row in rows] == [
        [a.gl_balance, a.subledger_balance, a.difference] for a in proof.accounts[:3]
    ]
    assert [row.all("td")[-1].text for row in rows] == ["faults", "explained", "agrees"]
    for a in proof.accounts[:3]:
        section = root.one("section", data_account=a.account_number)
        assert [
            (c.attributes["data-cause"], Decimal(c.one("dd", class_="amount").attributes["data-amount"]))
            for c in section.all("section", class_="cause")
        ] == [(c.name, c.amount) for c in a.causes]
        for c in a.causes:
            words = section.one("section", data_cause=c.name).text
            assert c.meaning in words
            assert c.next_step in words
            assert ("(fault)" in words) == (c.name in FAULTS)


def test_the_bars_of_each_waterfall_add_up_and_the_table_beside_them_has_the_same() -> None:
    root = parsed(rich_page())
    for a in rich_proof().accounts[:3]:
        section = root.one("section", data_account=a.account_number)
        bars = section.one("svg").all("rect")
        ends = [tuple(Decimal(bar.attributes[f"data-{key}"]) for key in ("start", "end", "amount")) for bar in bars]
        assert ends[0] == (0, a.gl_balance, a.gl_balance)
        assert ends[-1] == (0, a.subledger_balance, a.subledger_balance)
        balance = a.gl_balance
        for start, end, amount in ends[1:-1]:
            assert start == balance
            assert end == start + amount
            balance = end
        assert balance == a.subledger_balance
        assert [bar.attributes["data-name"] for bar in bars[1:-1]] == [c.name for c in a.causes]
        table = section.one("table", class_="waterfall")
        steps = [value for _, end, amount in ends[1:-1] for value in (amount, end)]
        assert amounts(table) == [a.gl_balance, *steps, a.subledger_balance, a.difference]


def test_bars_lie_within_the_chart_and_are_as_long_as_their_amounts() -> None:
    for chart in parsed(rich_page()).all("svg"):
        bars = chart.all("rect")
        lengths = [
            (float(bar.attributes["width"].rstrip("%")), abs(float(bar.attributes["data-amount"]))) for bar in bars
        ]
        scale = max(width for width, _ in lengths) / max(amount for _, amount in lengths)
        for (width, amount), bar in zip(lengths, bars, strict=True):
            assert width == pytest.approx(amount * scale, abs=0.01)
            x = float(bar.attributes["x"].rstrip("%"))
            assert x >= 0
            assert x + width <= 100.01


def test_amounts_are_exact_beyond_what_a_float_holds() -> None:
    proof = Proof(
        tenant_id="acme",
        as_of=None,
        accounts=(
            account("2400", "supplier", "9007199254740993.01", "9007199254740993.00", cause("manual", 1, "0.01")),
        ),
    )
    text = page(proof, [line("2400", "manual", "0.01", 1)], EMPTY_AGEING, locale="en")
    assert "9,007,199,254,740,993.01" in text
    assert "9,007,199,254,740,993.00" in text


def test_the_ageing_has_every_party_and_adds_up_to_the_subledger() -> None:
    root, ageing = parsed(rich_page()), rich_ageing()
    section = root.one("section", data_ledger="supplier")
    body = section.one("table", class_="parties").one("tbody")
    assert [amounts(row) for row in body.all("tr")] == [
        [row.not_due, *row.overdue, row.credits, row.total, row.without_due_date] for row in ageing.rows[:2]
    ]
    bars = {bar.attributes["data-name"]: Decimal(bar.attributes["data-amount"]) for bar in section.all("rect")}
    assert list(bars) == [
        "Not due", "1-30 days overdue", "31-60 days overdue", "61-90 days overdue", "over 90 days overdue", "Credits"
    ]  # fmt: skip
    assert sum(bars.values()) == ageing.total("supplier") == rich_proof().account("2400").subledger_balance
    assert "That is the balance of the subledger above." in section.text
    assert f"1{NBSP}250,00 has no due date" in section.text
    customers = root.one("section", data_ledger="customer")
    assert "no due date" not in customers.text
    assert root.one("p", id="nothing-open").text == "Nothing is open in the ledger employee."


def test_an_ageing_that_is_not_the_subledgers_balance_says_by_how_much() -> None:
    ageing = rich_ageing().model_copy(update={"as_of": date(2017, 4, 30), "rows": rich_ageing().rows[1:]})
    text = parsed(page(rich_proof(None), rich_lines(), ageing)).one("section", data_ledger="supplier").text
    assert f"−1{NBSP}180{NBSP}302,39 from the balance of the subledger above" in text
    assert "of all entries, whatever their date" in text


# -- lines ---------------------------------------------------------------------------------------------


def test_every_line_is_behind_its_cause_and_adds_up_to_it() -> None:
    root = parsed(rich_page())
    for a in rich_proof().accounts[:3]:
        for c in a.causes:
            section = root.one("section", data_account=a.account_number).one("section", data_cause=c.name)
            listed = amounts(section.one("table", class_="lines").one("tbody"))
            assert listed == [
                x.amount for x in rich_lines() if (x.account_number, x.cause) == (a.account_number, c.name)
            ]
            assert sum(listed) == c.amount
            assert "the list is cut" not in section.text
    assert "none" in root.one("section", data_cause="orphan").one("tbody").text


def test_the_list_is_cut_at_lines_max_and_says_what_is_left_out() -> None:
    root = parsed(rich_page(lines_max=2))
    section = root.one("section", data_account="2400").one("section", data_cause="manual")
    table = section.one("table", class_="lines")
    assert len(table.one("tbody").all("tr")) == 2
    assert "the list is cut after 2 lines, there are 3 in all" in table.one("caption").text
    assert section.one("summary").text == "2 of 3 lines behind manual on 2400"
    assert "1 line that is not listed" in table.one("tfoot").text
    assert amounts(table.one("tfoot")) == [Decimal("50.00"), Decimal("149800.50")]
    assert section.one("dd", class_="count").text == "3"


def test_parties_are_cut_to_the_largest_and_the_others_added_up() -> None:
    section = parsed(rich_page(lines_max=1)).one("section", data_ledger="supplier")
    table = section.one("table", class_="parties")
    assert [row.one("th").text for row in table.one("tbody").all("tr")] == ["Mølleren <script>alert(1)</script> AS"]
    assert "the list is cut to the 1 largest, there are 2 in all" in table.one("caption").text
    others, total = table.one("tfoot").all("tr")
    assert amounts(others)[-2] == Decimal("5000.00")
    assert amounts(total)[-2] == Decimal("1185302.39")


def test_with_lines_max_zero_only_counts_and_totals_stand() -> None:
    root = parsed(rich_page(lines_max=0))
    assert not root.all("table", class_="lines")
    assert "None of the lines is listed; there are 3 in all." in root.one("section", data_account="2400").text


def test_a_long_list_is_streamed_and_not_held() -> None:
    count = 50_000
    proof = Proof(
        tenant_id="acme",
        as_of=None,
        accounts=(account("2400", "supplier", f"{count}.00", "0.00", cause("manual", count, f"{count}.00")),),
    )
    tracemalloc.start()
    text = page(proof, (line("2400", "manual", "1.00", id_) for id_ in range(count)), EMPTY_AGEING, lines_max=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(parsed(text).one("table", class_="lines").one("tbody").all("tr")) == 10
    assert f"there are 50{NBSP}000 in all" in text
    assert peak < 10_000_000


def test_without_a_list_the_causes_own_examples_stand_in() -> None:
    example = line("2400", "manual", "70.00", 1)
    with_example = cause("manual", 9, "100.00").model_copy(update={"examples": (example,)})
    proof = Proof(tenant_id="acme", as_of=None, accounts=(account("2400", "supplier", "100", "0", with_example),))
    section = parsed(page(proof, [], EMPTY_AGEING)).one("section", data_cause="manual")
    assert section.one("summary").text == "1 of 9 lines behind manual on 2400"
    assert amounts(section.one("tfoot")) == [Decimal("30.00"), Decimal("100.00")]


def test_a_list_of_another_moment_is_told() -> None:
    lines = [*rich_lines(), line("2400", "manual", "5.00", 11), line("1920", "manual", "1.00", 12)]
    root = parsed(page(rich_proof(), lines, rich_ageing()))
    assert "has 4 lines" in root.one("section", data_account="2400").one("section", data_cause="manual").text
    assert "1 line of it belongs to no cause here" in root.one("p", id="strays").text


def test_one_account_in_two_ledgers_shows_each_ledgers_own_lines() -> None:
    proof = Proof(
        tenant_id="acme",
        as_of=None,
        accounts=(
            account("1500", "supplier", "0", "2.00", cause("orphan", 1, "-2.00")),
            account("1500", "customer", "0", "7.00", cause("orphan", 2, "-7.00")),
        ),
    )
    owners = {"-3.00": "customer", "-2.00": "supplier", "-4.00": "customer"}
    lines = [line("1500", "orphan", amount, 1, None, ledger) for amount, ledger in owners.items()]
    sections = parsed(page(proof, lines, EMPTY_AGEING)).all("section", data_cause="orphan")
    assert [amounts(section.one("tbody")) for section in sections] == [[Decimal(-2)], [Decimal(-3), Decimal(-4)]]


# -- what it says --------------------------------------------------------------------------------------


def test_it_says_whether_the_books_are_clean() -> None:
    statement = parsed(rich_page()).one("div", id="statement")
    assert statement.text.startswith("The books are not clean.")
    assert [link.text for link in statement.all("a")] == [
        "Account 2400, missing", "Account 2400, orphan", "Supplier ledger, remaining_differs"
    ]  # fmt: skip
    explained = Proof(tenant_id="acme", as_of=None, accounts=rich_proof().accounts[1:])
    text = parsed(page(explained, [], EMPTY_AGEING)).one("div", id="statement").text
    assert text.startswith("The books are clean. Every øre of difference has a cause")
    agreeing = Proof(tenant_id="acme", as_of=None, accounts=rich_proof().accounts[2:])
    text = parsed(page(agreeing, [], EMPTY_AGEING)).one("div", id="statement").text
    assert text.startswith("The books are clean. Each control account and its subledger agree")


def test_every_link_on_the_page_leads_somewhere_and_ids_are_unique() -> None:
    root = parsed(rich_page())
    ids = [node.attributes["id"] for node in root.walk() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    references = [link.attributes["href"] for link in root.all("a")]
    assert references
    assert all(reference.startswith("#") and reference[1:] in ids for reference in references)
    for node in root.walk():
        for reference in node.attributes.get("aria-labelledby", "").split():
            assert reference in ids


def test_findings_stand_faults_first_and_are_marked_by_words() -> None:
    found = parsed(rich_page()).all("section", class_="finding")
    assert [(f.attributes["data-finding"], f.one("h3").one("span").text) for f in found] == [
        ("remaining_differs", "(fault)"), ("draft_waits", "(for a person to decide)")
    ]  # fmt: skip
    for section in found:
        assert WORDS[section.attributes["data-finding"]][0] in section.text
        assert WORDS[section.attributes["data-finding"]][1] in section.text
    assert found[1].one("summary").text == "1 of 2 as examples of draft_waits"
    assert found[1].one("li").text == "voucher 31/2017"


def test_a_run_that_was_writing_is_told() -> None:
    assert parsed(rich_page()).one("p", id="runs").text.startswith("Taken while run 7 was writing.")
    two = rich_proof().model_copy(update={"runs_active": (7, 8)})
    assert "Taken while runs 7, 8 were writing." in page(two, [], rich_ageing())
    none = rich_proof().model_copy(update={"runs_active": ()})
    assert "Taken while" not in page(none, [], rich_ageing())


def test_accounts_without_anything_are_left_out_and_named_in_one_line() -> None:
    root = parsed(rich_page())
    assert not root.all("section", data_account="2910")
    assert root.one("p", id="unused").text == "Without any entry or open item: 2910 (employee)."


def test_empty_books_make_a_page_too() -> None:
    nothing = account("2400", "supplier", "0", "0")
    for accounts in ((), (nothing,)):
        root = parsed(page(Proof(tenant_id="acme", as_of=None, accounts=accounts), [], EMPTY_AGEING))
        assert "There is nothing on the control accounts" in root.one("div", id="statement").text
        assert not root.all("svg")
        assert not root.all("table")
        assert root.one("p", id="nothing-open").text.startswith("Nothing is open")


def test_a_cause_without_an_amount_still_has_its_bar_and_its_line() -> None:
    proof = Proof(
        tenant_id="acme",
        as_of=None,
        accounts=(account("2400", "supplier", "0.00", "0.00", cause("zero_amount", 1, "0.00")),),
    )
    root = parsed(page(proof, [line("2400", "zero_amount", "-0.00", 1)], EMPTY_AGEING))
    assert [bar.attributes["width"] for bar in root.one("svg").all("rect")] == ["0.0%"] * 3
    assert "−0" not in root.text


# -- what users wrote, and what the page may not do ----------------------------------------------------


def test_what_users_wrote_is_text_and_never_markup() -> None:
    text = rich_page()
    root = parsed(text)
    assert not root.all("script")
    assert not root.all("img")
    assert not root.all("b")
    assert "fjord <b>bakeri</b>" in root.one("h1").text
    assert "fjord <b>bakeri</b>" in root.one("head").one("title").text
    assert "Mølleren <script>alert(1)</script> AS" in root.text
    assert '"<script>alert(2)</script>' in root.text
    assert "row 4: <img src=x onerror=alert(1)>" in root.text
    assert "<script" not in text


def test_the_page_refers_to_nothing_outside_itself() -> None:
    text = rich_page()
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text
    root = parsed(text)
    for node in root.walk():
        assert node.name not in {"script", "link", "iframe", "object", "embed", "base", "form", "img"}
        assert not {"src", "srcset", "action", "onload", "onclick"} & set(node.attributes)
    policy = root.one("meta", http_equiv="Content-Security-Policy").attributes["content"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")


def test_tables_charts_and_headings_are_told_to_a_screen_reader() -> None:
    root = parsed(rich_page())
    assert root.one("html").attributes["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer", "h1"):
        assert len(root.all(landmark)) == 1
    for table in root.all("table"):
        assert table.one("caption").text
        for header in table.all("th"):
            assert header.attributes.get("scope") in {"col", "row"}
        for row in table.one("tbody").all("tr"):
            assert len(row.all("th")) == 1
    charts = root.all("svg")
    assert len(charts) == 5
    for chart in charts:
        assert chart.attributes["role"] == "img"
        assert chart.one("title").text
        assert chart.one("desc").text
    levels = [int(node.name[1]) for node in root.walk() if re.fullmatch("h[1-6]", node.name)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def _luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_colours_have_the_contrast_that_wcag_asks_for_in_light_and_dark() -> None:
    schemes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{([^}]*--[^}]*)\}", rich_page())
    ]
    assert len(schemes) == 2
    for scheme in schemes:
        for ground in ("ground", "panel"):
            for text in ("text", "quiet", "link", "good", "fault"):
                assert _contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground, scheme)
        for graphic in ("balance", "explained", "fault", "good", "focus"):
            assert _contrast(scheme[graphic], scheme["ground"]) >= 3, (graphic, scheme)


# -- refusals ------------------------------------------------------------------------------------------


def test_an_unknown_locale_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"'tlh' is unknown; known are 'nb', 'en'"):
        rich_page(locale="tlh")


def test_two_tenants_never_meet_on_a_page() -> None:
    with pytest.raises(ConfigurationError, match="different tenants") as refused:
        page(rich_proof(), [], EMPTY_AGEING)
    assert "acme" not in str(refused.value)


def test_a_negative_lines_max_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lines_max=-1"):
        rich_page(lines_max=-1)


# -- real books ----------------------------------------------------------------------------------------


@pytest.fixture
def engine(sqlite_engine: Engine) -> Engine:
    """What the page shows doesn't hang on the database; the proof's own tests run on each."""
    return sqlite_engine


@pytest.mark.parametrize("locale", ["nb", "en"])
def test_a_page_of_real_books_has_the_figures_of_their_proof(
    session: Session, sync: LedgerSync, factory: sessionmaker[Session], locale: str
) -> None:
    books.vendor(session).name = "Sagbruket <script>alert('x')</script> & Sønn"
    invoice = books.vendor_invoice(session, "1234567.89")
    books.entry(session, "2400", "-1234567.89", ("vendor_invoice", invoice.id))
    credit = books.vendor_invoice(session, "250.25", kind="credit_note", due_date=None)
    books.entry(session, "2400", "250.25", ("vendor_invoice", credit.id))
    books.entry(session, "2400", "350.00", voucher_number="<i>99</i>")
    sold = books.customer_invoice(session, "9375.50")
    books.entry(session, "1500", "9375.50", ("customer_invoice", sold.id), contra="3000")
    lost = books.vendor_invoice(session, 40, party="V2")
    books.entry(session, "2400", -40, ("vendor_invoice", lost.id))
    session.commit()
    session.execute(
        delete(SupplierLedger).where(SupplierLedger.source_id == lost.id).execution_options(synchronize_session=False)
    )
    session.commit()
    with factory() as reading:
        proof = sync.verify(reading, "acme")
        ageing = sync.ageing(reading, "acme", as_of=date(2026, 5, 15))
        text = page(proof, sync.differences(reading, "acme"), ageing, locale=locale)
    root = parsed(text)
    assert root.one("div", id="statement").text.startswith(
        "The books are clean." if proof.clean else "The books are not clean."
    )
    for a in proof.accounts:
        if not a.causes and not a.gl_balance:
            assert a.account_number in root.one("p", id="unused").text
            continue
        section = root.one("section", data_account=a.account_number)
        bars = section.one("svg").all("rect")
        assert Decimal(bars[0].attributes["data-amount"]) == a.gl_balance
        assert Decimal(bars[-1].attributes["data-amount"]) == a.subledger_balance
        assert sum((Decimal(bar.attributes["data-amount"]) for bar in bars[1:-1]), a.gl_balance) == a.subledger_balance
        for c in a.causes:
            listed = section.one("section", data_cause=c.name).one("tbody")
            assert len(listed.all("tr")) == c.count
            assert sum(amounts(listed)) == c.amount
    shown = {"nb": f"1{NBSP}234{NBSP}567,89", "en": "1,234,567.89"}[locale]
    assert shown in root.one("section", data_ledger="supplier").text
    assert {"nb": "15.05.2026", "en": "2026-05-15"}[locale] in root.text
    assert "<script" not in text
    assert "<i>99</i>" in root.one("section", data_cause="manual").text
    assert "Sagbruket <script>alert('x')</script> & Sønn" in root.text


def test_a_row_that_was_changed_behind_the_hook_is_a_fault_on_the_page(
    session: Session, sync: LedgerSync, sqlite_engine: Engine
) -> None:
    invoice = books.vendor_invoice(session, 100)
    books.entry(session, "2400", -100, ("vendor_invoice", invoice.id))
    session.commit()
    with sqlite_engine.begin() as connection:
        connection.execute(update(SupplierLedger.__table__).values(amount=Decimal(90), remaining_amount=Decimal(90)))
    proof = sync.verify(session, "acme")
    root = parsed(page(proof, sync.differences(session, "acme"), sync.ageing(session, "acme")))
    assert "Account 2400, amount_differs" in root.one("div", id="statement").text
    assert amounts(root.one("section", data_cause="amount_differs").one("tbody")) == [Decimal(10)]
