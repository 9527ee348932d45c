"""What is wrong, or worth a look, without being an amount of difference; reads only.

``find`` asks one question after another, each a SELECT of its own: caches that what they are caches of does not
bear out, documents that never reached the books, entries that missed the control account, references that fit
nobody or too many. Each finding says what to do next. Three are faults, which a repair mends; the others are for
a person to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Integer,
    Select,
    bindparam,
    func,
    select,
)

from ledger_sync.binding import Binding, Ledger
from ledger_sync.caches import application_differs, copied_data_differs, remaining_differs
from ledger_sync.control_lines import voucher_text
from ledger_sync.kid import claims_to_be_kid, is_valid_kid
from ledger_sync.mentions import ambiguous, drafts, no_control_line, not_posted, other_party, unresolved_kids, unused
from ledger_sync.results import Result
from ledger_sync.settings import Settings

WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "remaining_differs": (
        "a remaining amount or status that its applications do not bear out",
        "Run a repair; find out who changed the row behind the hook.",
    ),
    "application_differs": (
        "an automatic application that the items do not bear out, or one that lacks",
        "Run a repair, which appends what differs; find out who wrote to the table of applications.",
    ),
    "copied_data_differs": (
        "a row whose copied data its line or document no longer bears out",
        "Run a repair; find out what changed the document behind the hook.",
    ),
    "document_not_posted": (
        "a document that no posted entry mentions",
        "Post it, or link the line that it was posted by.",
    ),
    "no_control_line": (
        "an entry with a source of this ledger that posts to none of its control accounts",
        "If the account was renumbered, name the new one in the settings and run a backfill; otherwise reverse the "
        "entry and post it anew.",
    ),
    "account_unused": (
        "a control account in the settings that no line ever uses",
        "If it was renumbered, correct the settings.",
    ),
    "draft_waits": (
        "a draft that will have an open item once it is posted",
        "Post it, or delete it.",
    ),
    "paid_by_other_party": (
        "a payment whose KID belongs to another party's invoice",
        "Find out who paid. If the payment is on the wrong party, post it anew on the right one.",
    ),
    "ambiguous_reference": (
        "a payment whose reference fits several invoices",
        "Settle it by hand with the invoice that is meant.",
    ),
    "invalid_kid": (
        "a payment whose reference has the shape of a KID, but no check digit fits",
        "Ask the payer, or settle it by hand; a digit is never guessed.",
    ),
}
"""What each finding means, and what to do next."""

FAULTS: Final = ("remaining_differs", "application_differs", "copied_data_differs")
"""Findings that a repair mends; the others are for a person to decide."""


class Subject(Result):
    """What a finding is about: an entry, a document, a row. ``text`` names it for people."""

    id: Any
    text: str


class Finding(Result):
    """Something wrong, or worth a look, that carries no amount of difference.

    ``fault``: it should not be there, and a repair mends it.
    """

    ledger: str
    name: str
    count: int
    meaning: str
    next_step: str
    fault: bool
    examples: tuple[Subject, ...] = ()


@dataclass(frozen=True)
class _Question:
    """A SELECT with a ``subject_id``, how to name a row of it, and what Python alone can tell of it."""

    name: str
    query: Select[Any]
    text: Callable[[Any], str]
    keep: Callable[[Any], bool] | None = None

    @cached_property
    def counted(self) -> Select[Any]:
        """The SELECT with how many rows it has as ``found``, and the place of each as ``rank``.

        Not LIMIT: a planner then looks for the first rows only, and of most questions there are none.
        """
        c = self.query.order_by(None).subquery("found").c
        rank = func.row_number().over(order_by=c.subject_id).label("rank")
        ranked = select(*c, func.count().over().label("found"), rank).subquery("ranked")
        return select(ranked).where(ranked.c.rank <= bindparam("examples_max", type_=Integer()))


def find(
    connection: Connection,
    binding: Binding,
    settings: Settings,
    ledger: Ledger,
    tenant_id: Any,
    *,
    faults_only: bool = False,
) -> Iterator[Finding]:
    """The findings in one tenant's books of one ledger; if ``faults_only``, those that a repair mends."""
    arguments = (binding, settings, ledger)
    questions = binding.once(settings, ("faults", ledger.name), lambda: tuple(_questions_of_faults(*arguments)))
    if not faults_only:
        questions += binding.once(settings, ("others", ledger.name), lambda: tuple(_questions_for_people(*arguments)))
    for question in questions:
        count, examples = _ask(connection, question, tenant_id, settings.examples_max)
        if count:
            meaning, next_step = WORDS[question.name]
            yield Finding(
                ledger=ledger.name,
                name=question.name,
                count=count,
                meaning=meaning,
                next_step=next_step,
                fault=question.name in FAULTS,
                examples=examples,
            )


def _ask(
    connection: Connection, question: _Question, tenant_id: Any, examples_max: int
) -> tuple[int, tuple[Subject, ...]]:
    parameters = {"tenant": tenant_id, "caused_on": None}
    if question.keep is None:
        rows = list(connection.execute(question.counted, {**parameters, "examples_max": max(examples_max, 1)}))
        count = rows[0].found if rows else 0
    else:
        count, rows = 0, []
        for row in connection.execute(question.query, parameters, execution_options={"stream_results": True}):
            if question.keep(row):
                count += 1
                if len(rows) < examples_max:
                    rows.append(row)
    return count, tuple(Subject(id=row.subject_id, text=question.text(row)) for row in rows[:examples_max])


def _questions_of_faults(binding: Binding, settings: Settings, ledger: Ledger) -> Iterator[_Question]:
    yield _Question(
        "remaining_differs",
        remaining_differs(ledger),
        lambda row: f"row {row.subject_id}: {row.remaining_amount} {row.status}, should be {row.left} {row.state}",
    )
    yield _Question(
        "application_differs",
        application_differs(binding, settings, ledger),
        lambda row: f"line {row.from_line_id} to line {row.to_line_id}, {row.method}: {row.amount} too little",
    )
    yield _Question(
        "copied_data_differs",
        copied_data_differs(binding, settings, ledger),
        lambda row: f"row {row.subject_id}: {row.differing.strip().replace(' ', ', ')}",
    )


def _questions_for_people(binding: Binding, settings: Settings, ledger: Ledger) -> Iterator[_Question]:
    if ledger.opener is not None:
        yield _Question(
            "document_not_posted",
            not_posted(binding, settings, ledger, ledger.opener),
            lambda row: f"{row.document} {row.subject_id}, number {row.number}, of {row.day}",
        )
    yield _Question("no_control_line", no_control_line(binding, settings, ledger), _voucher)
    yield _Question("account_unused", unused(binding, settings, ledger), lambda row: f"account {row.subject_id}")
    yield _Question("draft_waits", drafts(binding, settings, ledger), _voucher)
    invoices, payments = ledger.invoices, ledger.payer
    if invoices is not None:
        if invoices.reference is not None:
            yield _Question(
                "paid_by_other_party",
                other_party(binding, ledger, invoices),
                lambda row: f"{_voucher(row)}: reference {row.reference} is of {row.document} {row.document_id}",
            )
        yield _Question(
            "ambiguous_reference",
            ambiguous(binding, ledger, invoices),
            lambda row: f"{_voucher(row)}: reference {row.reference} fits {row.fitting} of them",
        )
    if payments is not None and payments.reference is not None:
        yield _Question(
            "invalid_kid",
            unresolved_kids(binding, settings, ledger, payments),
            lambda row: f"{_voucher(row)}: {row.reference}",
            keep=lambda row: claims_to_be_kid(row.reference) and not is_valid_kid(row.reference),
        )


def _voucher(row: Any) -> str:
    return f"voucher {voucher_text(row)}"
