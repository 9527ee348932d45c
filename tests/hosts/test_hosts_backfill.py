"""History of every host's own models, written by runs: one test per promise.

What is posted here goes past the sync, as it did before a host had one; then a run writes it.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import inspect, select, update
from sqlalchemy.orm import Session

from ledger_sync import Progress
from ledger_sync.errors import RunActiveError
from tests.hosts.kit import DAY, Desk
from tests.hosts.opening import refusing

LINES = 7
"""The suppliers' control lines of ``history``; those of our tenant."""

ROWS = 5
"""How many of them must have an open item."""


@pytest.fixture
def history(desk: Desk) -> Desk:
    """Books that no sync has seen: an invoice that is paid in part, one that is reversed, a manual line, a draft."""
    with desk.under(attached=False) as past:
        past.posted(100, reference="18", on=DAY)
        past.paid(40, reference="18", on=DAY + timedelta(days=1))
        reversed_ = past.posted(70, reference="26", on=DAY + timedelta(days=2))
        past.reverse(reversed_, DAY + timedelta(days=3))
        past.entry(-5, on=DAY + timedelta(days=4))
        past.entry(30, source=past.invoice(30), on=DAY + timedelta(days=5), post=False)
        past.posted(55, reference="34", on=DAY + timedelta(days=31))
        past.session.commit()
    return desk


def test_a_backfill_writes_what_the_oracle_says_and_a_second_one_nothing(history: Desk) -> None:
    assert history.count() == 0
    report = history.backfill()
    assert (report.state, report.synced, report.errors, report.clean) == ("completed", ROWS, 0, True)
    history.synced(ROWS)
    assert [left for _, left, _ in history.open_amounts()] == [60, 0, 0, 0, 55]
    again = history.backfill()
    assert (again.synced, again.applied, again.clean) == (0, 0, True)
    history.synced(ROWS)


@pytest.mark.parametrize("batch_lines_max", [1, 2, 1000])
def test_the_size_of_batches_changes_nothing(history: Desk, batch_lines_max: int) -> None:
    sizes = {"batch_lines_max": batch_lines_max, "batch_lines_min": 1, "batch_lines_start": batch_lines_max}
    with history.under(**sizes) as other:
        assert other.backfill().synced == ROWS
        other.synced(ROWS)


def test_skipped_lines_are_counted_by_their_reason(history: Desk) -> None:
    report = history.backfill()
    skipped: Counter[str] = Counter()
    for stage in report.stages:
        skipped.update(stage.skipped)
    assert skipped["manual"] == 1
    assert skipped["draft"] == 1
    assert report.processed >= LINES


def test_a_dry_run_counts_and_writes_nothing(history: Desk) -> None:
    report = history.backfill(dry_run=True)
    assert (report.dry_run, report.synced) == (True, ROWS)
    assert history.count() == 0


@pytest.mark.parametrize(
    ("selection", "amounts"),
    [
        ({"until": DAY + timedelta(days=1)}, [100, -40]),
        ({"since": DAY + timedelta(days=31)}, [55]),
        ({"ledgers": ["supplier"]}, [100, -40, 70, -70, 55]),
        ({"ledgers": ["customer"]}, []),
    ],
    ids=["until", "since", "suppliers", "customers"],
)
def test_a_run_may_be_of_a_part(history: Desk, selection: dict[str, Any], amounts: list[int]) -> None:
    history.backfill(**selection)
    assert [amount for amount, _, _ in history.open_amounts()] == amounts
    history.backfill()
    history.synced(ROWS)


def test_a_run_may_be_of_sources_and_of_vouchers(history: Desk) -> None:
    kind, _ = history.books().named(history.payment(1))
    history.session.rollback()
    report = history.backfill(source_types=[history.host.word(kind)])
    assert history.open_amounts() == [(-40, -40, "open")]
    assert sum(stage.skipped.get("not_selected", 0) for stage in report.stages) == ROWS - 1
    entries = history.session.scalars(select(history.binding.entry)).all()
    chosen = [str(entry.voucher_number) for entry in entries if entry.entry_date == DAY + timedelta(days=31)]
    history.backfill(vouchers=chosen)
    assert history.open_amounts() == [(-40, -40, "open"), (55, 55, "open")]
    history.backfill()
    history.synced(ROWS)


def test_what_lies_before_the_cut_over_is_left_out(history: Desk) -> None:
    cut_over = DAY + timedelta(days=31)
    with history.under(effective_from=cut_over) as other:
        assert other.backfill().synced == 1
        assert other.open_amounts() == [(55, 55, "open")]
        other.synced(1)


def test_only_our_tenants_books_are_written(history: Desk) -> None:
    history.needs("tenants")
    with history.under(attached=False) as past:
        past.posted(200, tenant=1)
    history.backfill()
    assert history.count() == ROWS
    assert "missing" not in history.causes()
    assert history.causes(tenant=1) == ["missing"]


def test_a_run_that_is_paused_goes_on_where_it_was(history: Desk) -> None:
    sizes = {"batch_lines_max": 1, "batch_lines_min": 1, "batch_lines_start": 1}
    with history.under(**sizes) as other:
        run_id = other.sync.start(other.history, **other.whose)
        for _ in range(3):
            progress = other.sync.advance(other.history, run_id, budget_seconds=0)
        assert progress.state == "running"
        with other.history.begin() as session:
            other.sync.pause(session, run_id)
        assert other.sync.advance(other.history, run_id).state == "paused"
        report = other.sync.resume(other.history, run_id)
        assert (report.state, report.synced, report.clean) == ("completed", ROWS, True)
        other.synced(ROWS)


def test_two_runs_over_the_same_books_are_refused(history: Desk) -> None:
    history.sync.start(history.history, **history.whose)
    with pytest.raises(RunActiveError):
        history.sync.start(history.history, **history.whose)


def test_progress_rises_to_100(history: Desk) -> None:
    seen: list[Progress] = []
    history.backfill(on_progress=seen.append, progress_seconds=0)
    percentages = [progress.percent for progress in seen]
    assert percentages == sorted(percentages)
    assert (percentages[-1], seen[-1].state) == (100, "completed")
    assert all(percentage < 100 for percentage in percentages[:-1])


def test_a_line_that_the_database_refuses_is_recorded_and_the_others_are_written(history: Desk) -> None:
    with refusing(history, "supplier", "amount", [70]):
        report = history.backfill()
    assert (report.state, report.errors, report.synced) == ("completed_with_errors", 1, ROWS - 1)
    history.session.rollback()
    (error,) = history.session.scalars(select(history.binding.error)).all()
    assert "refused by the host" in error.message
    assert history.causes().count("missing") == 1
    report = history.backfill()
    assert (report.state, report.synced, report.clean) == ("completed", 1, True)
    history.synced(ROWS)


def test_live_postings_and_a_backfill_meet_without_a_seam(history: Desk) -> None:
    history.paid(60, reference="18")
    report = history.backfill()
    assert (report.synced, report.clean) == (ROWS, True)
    history.synced(ROWS + 1)
    assert history.open_amounts()[0] == (100, 0, "paid")


def test_customers_are_written_too(history: Desk) -> None:
    with history.under(attached=False) as past:
        past.posted(300, "customer", reference="42")
        past.posted(100, "customer", credit_note=True)
    report = history.backfill()
    assert (report.synced, report.clean) == (ROWS + 2, True)
    history.synced(ROWS + 2)


def test_a_repair_mends_what_somebody_broke(history: Desk) -> None:
    history.backfill()
    ledger = history.binding.ledger("supplier")
    amount, line = ledger.column("remaining_amount"), ledger.column("general_ledger_line_id")
    first, second, *_ = [inspect(item).dict for item in history.items()]
    assert first is not second
    gone = history.items()[4].general_ledger_line_id
    history.session.execute(ledger.table.delete().where(line == gone))
    kept = history.items()[0].general_ledger_line_id
    history.session.execute(update(ledger.table).where(line == kept).values({amount.key: Decimal(1)}))
    history.session.commit()
    assert "missing" in history.causes()
    history.session.rollback()
    report = history.sync.repair(history.history, **history.whose)
    assert (report.state, report.clean) == ("completed", True)
    history.synced(ROWS)


def test_a_document_that_never_reached_the_books_is_posted_by_the_host(history: Desk) -> None:
    with history.under(attached=False) as past:
        past.invoice(80, reference="59")
        past.session.commit()

    def post(session: Session, document: Any) -> Any:
        desk = Desk(history.host, history.engine, history.sync, attached=False, session=session)
        if getattr(document, desk.books().bound(document)[1].reference or "-", None) != "59":
            return None
        return desk.entry(80, source=document, on=DAY + timedelta(days=40))

    report = history.backfill(poster=post)
    assert (report.state, report.clean) == ("completed", True)
    history.synced(ROWS + 1)
    assert (80, 80, "open") in history.open_amounts()
