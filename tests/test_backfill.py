"""The first backfill: history gets the rows that live posting would have given it, once, and says how far it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Engine, insert, text
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import ALL_TENANTS, ConfigurationError, LedgerSync, Progress, Settings
from ledger_sync.errors import CutOverError
from ledger_sync.models import JournalEntry, JournalLine
from tests import books
from tests.oracle import Rules, assert_synced, read_items

# no sync is attached to it: what it writes is history
Factory = sessionmaker[Session]


@pytest.fixture
def history(engine: Engine) -> Factory:
    return sessionmaker(engine)


def post_history(history: Factory, tenant: str = "acme", entries: int = 5) -> None:
    """Per entry an item in each of two ledgers, and some lines that have none."""
    with history() as session:
        for month in range(1, entries + 1):
            on = date(2026, month, 1)
            vendors, customers = (
                books.vendor_invoice(session, tenant=tenant, invoice_date=on),
                books.customer_invoice(session, tenant=tenant, invoice_date=on),
            )
            books.entry(session, source=("vendor_invoice", vendors.id), tenant=tenant, on=on)
            books.entry(session, "1500", 100, ("customer_invoice", customers.id), tenant=tenant, on=on)
        books.entry(session, tenant=tenant)
        books.entry(session, source=("payroll", 1), tenant=tenant)
        books.entry(session, source=("vendor_invoice", 999), tenant=tenant)
        books.entry(session, source=("vendor_invoice", 999), tenant=tenant, post=False)
        session.commit()


def stored(history: Factory) -> list[dict[str, Any]]:
    with history() as session:
        return list(read_items(session.connection()).values())


def all_synced(history: Factory, rules: Rules | None = None) -> None:
    with history() as session:
        assert_synced(session.connection(), rules)


@pytest.mark.parametrize("batch_lines_max", [1, 2, 3, 14, 15, 20_000])
def test_history_from_before_the_attachment_is_written_whatever_the_batch(
    history: Factory, batch_lines_max: int
) -> None:
    post_history(history)
    sync = LedgerSync(Settings(batch_lines_max=batch_lines_max))
    report = sync.backfill(history, tenant_id="acme")
    assert (report.state, report.dry_run) == ("completed", False)
    assert (report.processed, report.synced) == (14, 10)
    assert report.skipped == {"manual": 1, "unsupported_source": 1, "source_not_found": 1, "draft": 1}
    by_stage = {stage.stage: (stage.processed, stage.synced) for stage in report.stages if stage.processed}
    assert by_stage == {"customer_invoices": (5, 5), "vendor_invoices": (9, 5)}
    all_synced(history)


def test_a_second_backfill_changes_nothing(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(Settings(batch_lines_max=2))
    sync.backfill(history, tenant_id="acme")
    with history() as session:
        before = session.execute(text("SELECT * FROM supplier_ledger ORDER BY id")).all()
    report = sync.backfill(history, tenant_id="acme")
    assert (report.processed, report.synced) == (14, 0)
    with history() as session:
        assert session.execute(text("SELECT * FROM supplier_ledger ORDER BY id")).all() == before


def test_empty_books_take_a_backfill(history: Factory) -> None:
    seen: list[Progress] = []
    report = LedgerSync().backfill(history, tenant_id="acme", on_progress=seen.append)
    assert (report.processed, report.synced, report.state) == (0, 0, "completed")
    assert seen[-1].percent == 100


def test_a_backfill_is_of_one_tenant(history: Factory) -> None:
    post_history(history, "acme")
    post_history(history, "beta")
    report = LedgerSync(Settings(batch_lines_max=3)).backfill(history, tenant_id="acme")
    assert (report.processed, report.synced) == (14, 10)
    assert {row["tenant_id"] for row in stored(history)} == {"acme"}


def test_all_tenants_are_asked_for_by_name(history: Factory) -> None:
    post_history(history, "acme")
    post_history(history, "beta")
    sync = LedgerSync()
    with pytest.raises(ConfigurationError, match="say whose"):
        sync.backfill(history)
    assert stored(history) == []
    assert sync.backfill(history, tenant_id=ALL_TENANTS).synced == 20
    all_synced(history)


@pytest.mark.parametrize("nobody", ["", "nobody", "ALL_TENANTS", "%"])
def test_a_tenant_without_books_gets_nothing(history: Factory, nobody: str) -> None:
    post_history(history)
    report = LedgerSync().backfill(history, tenant_id=nobody)
    assert (report.processed, report.synced) == (0, 0)
    assert stored(history) == []


@pytest.mark.parametrize(
    ("since", "until", "months"),
    [
        (date(2026, 3, 1), None, [3, 4, 5]),
        (None, date(2026, 3, 1), [1, 2, 3]),
        (date(2026, 2, 1), date(2026, 4, 1), [2, 3, 4]),
        (date(2026, 2, 2), date(2026, 2, 27), []),
    ],
)
def test_since_and_until_are_entry_dates_and_both_count(
    history: Factory, since: date | None, until: date | None, months: list[int]
) -> None:
    post_history(history)
    sync = LedgerSync(Settings(batch_lines_max=2))
    report = sync.backfill(history, tenant_id="acme", since=since, until=until)
    assert report.synced == 2 * len(months)
    assert sorted({row["entry_date"].month for row in stored(history)}) == months
    rest = sync.backfill(history, tenant_id="acme")
    assert rest.synced == 10 - report.synced
    all_synced(history)


def test_single_ledgers_may_be_asked_for(history: Factory) -> None:
    post_history(history)
    report = LedgerSync().backfill(history, tenant_id="acme", ledgers=["supplier"])
    assert [stage.stage for stage in report.stages if stage.processed] == ["vendor_invoices"]
    assert {row["account_number"] for row in stored(history)} == {"2400"}
    with pytest.raises(ConfigurationError, match=r"no ledger 'tax'; the settings have supplier, customer, employee"):
        LedgerSync().backfill(history, tenant_id="acme", ledgers=["tax"])


CUT_OVER = date(2026, 3, 1)


def test_a_backfill_from_before_the_cut_over_is_refused_with_the_remedy(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(Settings(effective_from={"acme": CUT_OVER}))
    with pytest.raises(CutOverError, match=r"2026-02-28 lies before the cut-over of 2026-03-01.*moving the cut-over"):
        sync.backfill(history, tenant_id="acme", since=date(2026, 2, 28))
    assert stored(history) == []
    assert sync.backfill(history, tenant_id="acme", since=CUT_OVER).synced == 6
    assert sync.backfill(history, tenant_id="beta", since=date(2000, 1, 1)).synced == 0


def test_a_backfill_of_all_tenants_from_before_the_cut_over_that_they_share_is_refused(history: Factory) -> None:
    post_history(history)
    before = date(2026, 2, 28)
    with pytest.raises(CutOverError, match="2026-02-28 lies before the cut-over of 2026-03-01"):
        LedgerSync(Settings(effective_from=CUT_OVER)).backfill(history, tenant_id=ALL_TENANTS, since=before)
    own = LedgerSync(Settings(effective_from={"beta": CUT_OVER}))
    assert own.backfill(history, tenant_id=ALL_TENANTS, since=before).synced == 6


def test_the_cut_over_binds_the_backfill_until_it_is_moved_back(history: Factory) -> None:
    post_history(history)
    report = LedgerSync(Settings(effective_from=CUT_OVER)).backfill(history, tenant_id="acme")
    assert (report.synced, report.skipped["before_cutover"]) == (6, 4)
    all_synced(history, Rules(cut_over=CUT_OVER))
    assert LedgerSync().backfill(history, tenant_id="acme").synced == 4
    all_synced(history)


def test_a_dry_run_counts_and_writes_nothing(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(Settings(batch_lines_max=3))
    seen: list[Progress] = []
    dry = sync.backfill(history, tenant_id="acme", dry_run=True, on_progress=seen.append)
    assert dry.dry_run
    assert stored(history) == []
    assert seen[-1].synced == dry.synced
    real = sync.backfill(history, tenant_id="acme")
    assert (
        (dry.processed, dry.synced, dry.skipped)
        == (real.processed, real.synced, real.skipped)
        == (
            14,
            10,
            {
                "manual": 1,
                "unsupported_source": 1,
                "source_not_found": 1,
                "draft": 1,
            },
        )
    )


@pytest.mark.parametrize("batch_lines_max", [1, 4, 20_000])
@pytest.mark.parametrize("dry_run", [True, False])
def test_progress_rises_and_is_100_at_the_end_only(history: Factory, batch_lines_max: int, dry_run: bool) -> None:
    post_history(history)
    sync = LedgerSync(Settings(batch_lines_max=batch_lines_max))
    seen: list[Progress] = []
    report = sync.backfill(history, tenant_id="acme", dry_run=dry_run, on_progress=seen.append, progress_seconds=0)
    for before, after in pairwise(seen):
        assert after.sequence > before.sequence
        assert after.percent >= before.percent
        assert after.processed >= before.processed
        assert after.synced >= before.synced
        assert after.elapsed_seconds >= before.elapsed_seconds
        assert after.stage_index >= before.stage_index
    assert [p.percent == 100 for p in seen] == [False] * (len(seen) - 1) + [True]
    assert [p.state for p in seen] == ["running"] * (len(seen) - 1) + ["completed"]
    last = seen[-1]
    assert (last.processed, last.total, last.synced, dict(last.skipped)) == (14, 14, report.synced, report.skipped)
    if batch_lines_max == 1:
        assert len({p.processed for p in seen}) == 15


def test_each_snapshot_of_progress_is_whole(history: Factory) -> None:
    post_history(history)
    seen: list[Progress] = []
    LedgerSync(Settings(batch_lines_max=1)).backfill(history, tenant_id="acme", on_progress=seen.append)
    for progress in seen:
        assert progress.synced + sum(progress.skipped.values()) == progress.processed
        assert 0 <= progress.processed <= progress.total
        assert Progress.model_validate_json(progress.model_dump_json()) == progress


def test_progress_is_sent_after_the_rows_are_committed(history: Factory) -> None:
    post_history(history)
    counts: list[tuple[int, int]] = []

    def look(progress: Progress) -> None:
        counts.append((progress.synced, len(stored(history))))

    LedgerSync(Settings(batch_lines_max=2)).backfill(history, tenant_id="acme", on_progress=look, progress_seconds=0)
    assert len(counts) > 5
    assert all(told == there for told, there in counts)


def test_a_callback_that_raises_ends_the_run_and_keeps_what_is_committed(history: Factory) -> None:
    post_history(history)
    sync = LedgerSync(Settings(batch_lines_max=2))

    def stop(progress: Progress) -> None:
        if progress.synced >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sync.backfill(history, tenant_id="acme", on_progress=stop, progress_seconds=0)
    assert len(stored(history)) == 4
    assert sync.backfill(history, tenant_id="acme").synced == 6
    all_synced(history)


def test_a_backfill_through_an_attached_factory_does_the_same(
    sync: LedgerSync, factory: Factory, history: Factory
) -> None:
    post_history(history)
    assert sync.backfill(factory, tenant_id="acme").synced == 10
    all_synced(history)


def test_live_rows_are_left_as_they_are(sync: LedgerSync, factory: Factory, history: Factory) -> None:
    post_history(history, entries=2)
    post_history(factory, entries=3)
    live = stored(history)
    assert len(live) == 6
    assert sync.backfill(history, tenant_id="acme").synced == 4
    assert [row for row in stored(history) if row in live] == live
    all_synced(history)


def bypass_by_core(session: Session, values: dict[str, Any]) -> None:
    connection = session.connection()
    key = connection.execute(insert(JournalEntry).values(**values).returning(JournalEntry.id)).scalar_one()
    line = {"general_ledger_id": key, "line_number": 1, "account_number": "2400", "credit": Decimal(7)}
    connection.execute(insert(JournalLine), line)


def bypass_by_bulk_save(session: Session, values: dict[str, Any]) -> None:
    entry = JournalEntry(**values)
    session.bulk_save_objects([entry], return_defaults=True)
    line = JournalLine(general_ledger_id=entry.id, line_number=1, account_number="2400", credit=7)
    session.bulk_save_objects([line])


@pytest.mark.parametrize("bypass", [bypass_by_core, bypass_by_bulk_save])
def test_what_bypassed_the_hook_is_missing_in_the_proof_until_a_backfill_writes_it(
    sync: LedgerSync, factory: Factory, bypass: Callable[[Session, dict[str, Any]], None]
) -> None:
    with factory() as session:
        invoice = books.vendor_invoice(session)
        books.entry(session, source=("vendor_invoice", invoice.id))
        bypass(
            session,
            {
                "tenant_id": "acme",
                "voucher_number": "bypass",
                "fiscal_year": 2026,
                "entry_date": books.DAY,
                "status": "posted",
                "source_type": "vendor_invoice",
                "source_id": invoice.id,
            },
        )
        session.commit()
        proof = sync.verify(session, "acme")
        (cause,) = proof.account("2400").causes
        assert not proof.clean
        assert (cause.name, cause.count, cause.amount) == ("missing", 1, 7)
        assert cause.examples[0].voucher == "bypass/2026"
        session.rollback()
        assert sync.backfill(factory, tenant_id="acme").synced == 1
        assert sync.verify(session, "acme").clean
        assert_synced(session.connection())


def test_a_report_is_json_and_frozen(history: Factory) -> None:
    report = LedgerSync().backfill(history, tenant_id="acme")
    assert re.match(r'\{"', report.model_dump_json())
    with pytest.raises(ValueError):
        report.state = "failed"  # type: ignore[misc]
