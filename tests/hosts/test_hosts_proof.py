"""The proof, the findings and the repair, on every host's own models; each cause and each finding once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import ControlAccount, Proof
from ledger_sync.findings import WORDS, Finding
from ledger_sync.kid import with_mod10
from tests.hosts.kit import DAY, ONE_TENANT, Desk, number_of
from tests.watching import after_the_first_statement, statements

EARLIER, LATER = date(2026, 2, 1), date(2026, 4, 1)
LONG_AGO, FAR_AHEAD = datetime(2020, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
KID = with_mod10("1234")


def behind(desk: Desk, statement: Any) -> None:
    """One statement that no hook sees."""
    desk.session.rollback()
    with desk.engine.begin() as connection:
        connection.execute(statement)


def forged(desk: Desk, **values: Any) -> None:
    """Change what all suppliers' items hold, behind the hook, by the library's names."""
    ledger = desk.binding.ledger("supplier")
    behind(desk, update(ledger.table).values({ledger.column(name): value for name, value in values.items()}))


def verify(desk: Desk, day: date | None = None, **more: Any) -> Proof:
    proof = desk.sync.verify(desk.session, desk.tenant(), day, **more)
    desk.session.rollback()
    return proof


def causes(desk: Desk, account: str = "2400", day: date | None = None) -> list[tuple[str, int, Decimal]]:
    """The causes of an account: name, how many, how much."""
    return [(cause.name, cause.count, cause.amount) for cause in verify(desk, day).account(account).causes]


def finding(desk: Desk, name: str, ledger: str = "supplier") -> Finding | None:
    return next((found for found in verify(desk).findings if (found.name, found.ledger) == (name, ledger)), None)


def named(desk: Desk, name: str, ledger: str = "supplier") -> Finding:
    found = finding(desk, name, ledger)
    assert found is not None, f"no {name} among {[f.name for f in verify(desk).findings]}"
    return found


def repaired(desk: Desk) -> None:
    """A repair mends what is a fault, and says that the books are clean."""
    assert not verify(desk).clean
    assert desk.sync.repair(desk.history, **desk.whose).clean
    desk.synced()
    desk.session.rollback()


# -- causes -----------------------------------------------------------------------------------------------


def test_lines_that_have_no_row_by_rule_have_a_cause_that_leaves_the_proof_clean(desk: Desk) -> None:
    desk.entry()
    desk.entry(70, source=desk.host.strange_source(desk.session))
    desk.posted(0)
    if desk.has("missing sources"):
        source_type = desk.books().named(desk.invoice())[0]
        desk.entry(30, source=(source_type, desk.host.missing_key))
    desk.entry(post=False)
    desk.session.commit()
    expected = {("manual", 1, Decimal(100)), ("unsupported_source", 1, Decimal(70)), ("zero_amount", 1, Decimal(0))}
    if desk.has("missing sources"):
        expected.add(("source_not_found", 1, Decimal(30)))
    assert set(causes(desk)) == expected
    assert verify(desk).clean


def test_a_line_before_the_cut_over_is_before_cutover(desk: Desk) -> None:
    with desk.under(effective_from=DAY) as other:
        other.posted(on=EARLIER)
        assert causes(other) == [("before_cutover", 1, Decimal(100))]


def test_a_line_whose_row_is_gone_is_missing(desk: Desk) -> None:
    desk.posted()
    behind(desk, delete(desk.binding.ledger("supplier").table))
    assert causes(desk) == [("missing", 1, Decimal(100))]
    repaired(desk)


def test_a_row_of_another_amount_is_amount_differs(desk: Desk) -> None:
    desk.posted()
    forged(desk, amount=Decimal(300), remaining_amount=Decimal(300))
    assert causes(desk) == [("amount_differs", 1, Decimal(-200))]
    repaired(desk)


def test_a_row_on_another_party_is_wrong_party_without_an_amount(desk: Desk) -> None:
    desk.posted()
    other = desk.books().party("supplier", "2")
    desk.session.commit()
    forged(desk, party_id=other)
    assert causes(desk) == [("wrong_party", 1, Decimal(0))]
    repaired(desk)


def test_a_row_whose_line_is_gone_is_an_orphan_and_leaves_a_tombstone(desk: Desk) -> None:
    entry = desk.posted()
    line_id = desk.line(entry).id
    behind(desk, delete(desk.binding.line.__table__))
    assert causes(desk) == [("orphan", 1, Decimal(-100))]
    repaired(desk)
    stone = desk.session.scalars(select(desk.binding.tombstone)).one()
    assert (stone.general_ledger_line_id, stone.amount, stone.ledger) == (line_id, 100, "supplier")


def test_a_cause_names_the_vouchers_behind_it_but_no_more_than_the_settings_say(desk: Desk) -> None:
    with desk.under(examples_max=2) as other:
        made = [other.entry() for _ in range(3)]
        other.session.commit()
        numbers = {str(entry.voucher_number) for entry in made}
        (found,) = verify(other).account("2400").causes
        assert (found.count, len(found.examples)) == (3, 2)
        assert {number_of(example.voucher or "") for example in found.examples} < numbers


def test_an_account_that_is_no_control_account_is_a_key_error(desk: Desk) -> None:
    with pytest.raises(KeyError):
        verify(desk).account("1920")


def test_errors_that_cancel_are_shown_with_difference_zero(desk: Desk) -> None:
    desk.posted(70)
    stray = desk.posted(100)
    ledger = desk.binding.ledger("supplier")
    line_id, amount = ledger.column("general_ledger_line_id"), ledger.column("amount")
    stray_line = desk.line(stray).id
    behind(desk, delete(ledger.table).where(line_id != stray_line))
    behind(desk, update(ledger.table).values({amount: Decimal(170), ledger.column("remaining_amount"): Decimal(170)}))
    account = verify(desk).account("2400")
    assert account.difference == 0
    assert {(c.name, c.amount) for c in account.causes} == {("missing", 70), ("amount_differs", -70)}
    repaired(desk)


def test_amounts_of_customers_count_in_their_own_direction(desk: Desk) -> None:
    desk.posted(100, "customer")
    found = {a.account_number: (a.gl_balance, a.subledger_balance) for a in verify(desk).accounts}
    assert found["1500"] == (100, 100)
    assert found["2400"] == (0, 0)


def test_a_row_on_an_account_that_is_none_of_the_ledgers_is_shown_there(desk: Desk) -> None:
    desk.posted()
    forged(desk, account_number="2999")
    assert causes(desk, "2999") == [("orphan", 1, Decimal(-100))]
    assert causes(desk) == [("missing", 1, Decimal(100))]
    repaired(desk)


# -- findings ---------------------------------------------------------------------------------------------


def test_books_in_order_have_no_finding_but_unused_accounts(desk: Desk) -> None:
    desk.posted(reference="K1")
    desk.paid(40, reference="K1")
    assert {found.name for found in verify(desk).findings} == {"account_unused"}


@pytest.mark.parametrize("what", ["remaining_amount", "status"])
def test_a_forged_remaining_amount_or_status_is_found(desk: Desk, what: str) -> None:
    desk.posted()
    forged(desk, **{what: Decimal(0) if what == "remaining_amount" else desk.host.status("paid")})
    found = named(desk, "remaining_differs")
    assert found.fault
    assert found.examples[0].text.endswith("should be 100.00 open")
    repaired(desk)


def test_an_application_that_differs_or_lacks_is_found(desk: Desk) -> None:
    desk.posted(reference="K1")
    desk.paid(40, reference="K1")
    table = desk.binding.ledger("supplier").application.__table__
    behind(desk, update(table).values(amount=table.c.amount + table.c.amount))
    found = named(desk, "application_differs")
    assert found.fault
    assert found.examples[0].text.endswith("reference: -40.00 too little")
    repaired(desk)
    behind(desk, delete(table))
    assert named(desk, "application_differs").examples[0].text.endswith("40.00 too little")
    repaired(desk)


def test_what_a_person_settled_is_no_application_that_differs(desk: Desk) -> None:
    desk.posted()
    desk.paid(40, reference="12345")
    assert named(desk, "invalid_kid").count == 1
    invoice, payment = desk.items()
    desk.sync.settle(desk.session, payment, invoice, actor="eva", reason="asked", on=DAY)
    desk.session.commit()
    assert finding(desk, "application_differs") is None
    assert finding(desk, "invalid_kid") is None


def test_a_copy_that_its_line_or_document_does_not_bear_out_is_found(desk: Desk) -> None:
    desk.posted()
    for column, value in (("invoice_number", "forged"), ("due_date", LATER), ("settlement_key", "ref:X")):
        forged(desk, **{column: value})
        found = named(desk, "copied_data_differs")
        assert found.fault
        assert found.examples[0].text.endswith(f": {column}")
        repaired(desk)


def test_a_document_that_was_edited_behind_the_hook_is_found_by_its_copies(desk: Desk) -> None:
    invoice = desk.invoice()
    desk.entry(source=invoice)
    desk.session.commit()
    _, bound = desk.books().bound(invoice)
    number = getattr(type(invoice), bound.number or "").property.columns[0]
    due_date = getattr(type(invoice), bound.due_date or "").property.columns[0]
    behind(desk, update(number.table).values({number: "X", due_date: LATER}))
    assert named(desk, "copied_data_differs").examples[0].text.endswith(": invoice_number, due_date")
    repaired(desk)


def test_a_document_that_no_posted_line_names_is_not_posted(desk: Desk) -> None:
    alone = desk.invoice(number="8907")
    desk.entry(source=desk.invoice(), post=False)
    desk.entry(link=desk.invoice())
    desk.session.commit()
    found = named(desk, "document_not_posted")
    assert (found.count, found.fault) == (2, False)
    assert f"vendor_invoice {alone.id}, number 8907, of {DAY}" in {example.text for example in found.examples}
    assert (found.meaning, found.next_step) == WORDS["document_not_posted"]


def test_a_document_from_before_the_cut_over_needs_no_posting(desk: Desk) -> None:
    with desk.under(effective_from=DAY) as other:
        other.invoice(on=date(2026, 2, 28))
        other.session.commit()
        assert finding(other, "document_not_posted") is None
        other.invoice(on=DAY)
        other.session.commit()
        assert named(other, "document_not_posted").count == 1


def test_an_entry_of_an_invoice_on_a_renumbered_account_has_no_control_line(desk: Desk) -> None:
    entry = desk.posted(account="2410")
    desk.posted()
    desk.entry(-100, account="1930", source=desk.payment())
    desk.session.commit()
    (example,) = named(desk, "no_control_line").examples
    assert number_of(example.text.removeprefix("voucher ")) == str(entry.voucher_number)


def test_a_control_account_that_no_line_uses_is_unused(desk: Desk) -> None:
    sources = next(c.sources for c in desk.host.controls if c.ledger == "supplier")
    controls = (ControlAccount(accounts=("2400-2409", "2420"), ledger="supplier", sources=sources),)
    with desk.under(control_accounts=controls) as other:
        other.posted(account="2405")
        if other.has("tenants"):
            other.entry(account="2420", tenant=1)
            other.session.commit()
        assert [subject.id for subject in named(other, "account_unused").examples] == ["2420"]


def test_a_draft_waits_if_it_has_a_source(desk: Desk) -> None:
    desk.entry(post=False)
    entry = desk.posted(post=False)
    (example,) = named(desk, "draft_waits").examples
    assert number_of(example.text.removeprefix("voucher ")) == str(entry.voucher_number)


def test_a_payment_with_the_kid_of_another_partys_invoice_is_found_once(desk: Desk) -> None:
    desk.posted(party="2", reference=KID)
    desk.invoice(party="2", reference=KID, credit_note=True)
    desk.paid(100, reference=KID)
    found = named(desk, "paid_by_other_party")
    assert (found.count, found.fault) == (1, False)
    assert f"reference {KID} is of vendor_invoice" in found.examples[0].text


def test_a_reference_that_fits_several_invoices_is_ambiguous(desk: Desk) -> None:
    desk.posted(number="7")
    desk.paid(100, reference="7")
    assert finding(desk, "ambiguous_reference") is None
    desk.posted(number="7")
    found = named(desk, "ambiguous_reference")
    assert found.count == 1
    assert found.examples[0].text.endswith("reference 7 fits 2 of them")


def test_only_what_has_the_shape_of_a_kid_and_no_fitting_digit_is_an_invalid_kid(desk: Desk) -> None:
    desk.posted(number="54321")
    for reference in ("12345", KID, "invoice 12345", "54321"):
        desk.paid(10, reference=reference)
    found = named(desk, "invalid_kid")
    assert found.count == 1
    assert found.examples[0].text.endswith(": 12345")


def test_nothing_of_another_tenants_is_shown(desk: Desk) -> None:
    desk.needs("tenants")
    desk.invoice(tenant=1)
    desk.entry(tenant=1, post=False, source=desk.invoice(tenant=1))
    desk.entry(tenant=1)
    desk.posted(tenant=1, reference=KID)
    desk.session.commit()
    assert {found.name for found in verify(desk).findings} == {"account_unused"}
    assert causes(desk) == []
    desk.paid(100, reference=KID)
    assert finding(desk, "paid_by_other_party") is None
    assert list(desk.sync.differences(desk.session, desk.tenant())) == []


def test_without_findings_or_of_the_past_there_are_none(desk: Desk) -> None:
    desk.invoice()
    desk.session.commit()
    assert verify(desk, with_findings=False).findings == ()
    assert verify(desk, DAY).findings == ()


# -- as of a day ------------------------------------------------------------------------------------------


def test_entries_dated_later_are_left_out_on_both_sides(desk: Desk) -> None:
    desk.posted(100, on=DAY)
    desk.posted(60, on=LATER)
    for day, balance in ((EARLIER, 0), (DAY, 100), (LATER, 160), (None, 160)):
        account = verify(desk, day).account("2400")
        assert (account.gl_balance, account.subledger_balance) == (balance, balance)
    forged(desk, entry_date=EARLIER)
    assert causes(desk, day=DAY) == []
    behind(desk, delete(desk.binding.ledger("supplier").table))
    assert [cause[1:] for cause in causes(desk, day=DAY)] == [(1, 100)]
    assert [cause[1:] for cause in causes(desk, day=LATER)] == [(2, 160)]


def test_an_orphan_counts_from_its_own_day(desk: Desk) -> None:
    desk.posted(on=LATER)
    behind(desk, delete(desk.binding.line.__table__))
    assert causes(desk, day=DAY) == []
    assert [cause[0] for cause in causes(desk, day=LATER)] == ["orphan"]


# -- the full list ----------------------------------------------------------------------------------------


def test_differences_are_streamed_all_of_them_and_agree_with_the_causes(desk: Desk) -> None:
    for amount in range(1, 7):
        desk.posted(amount)
        desk.entry(amount, on=LATER)
    desk.session.commit()
    ledger = desk.binding.ledger("supplier")
    behind(desk, delete(ledger.table).where(ledger.column("amount") > 3))
    listed: dict[tuple[str, str], list[Decimal]] = {}
    streamed = desk.sync.differences(desk.session, desk.tenant())
    assert isinstance(streamed, Iterator)
    for difference in streamed:
        listed.setdefault((difference.account_number, difference.cause), []).append(difference.amount)
    counted = {key: (len(amounts), sum(amounts)) for key, amounts in listed.items()}
    accounts = verify(desk).accounts
    assert counted == {(a.account_number, c.name): (c.count, c.amount) for a in accounts for c in a.causes}
    then = [d.cause for d in desk.sync.differences(desk.session, desk.tenant(), DAY)]
    assert then == ["missing"] * 3


# -- runs and snapshots -----------------------------------------------------------------------------------


def test_only_a_live_run_on_these_books_is_named(desk: Desk) -> None:
    ours = desk.tenant() or ONE_TENANT
    run = desk.binding.run(tenant_id=ours, kind="backfill", stage="x", version="1", started_at=LONG_AGO)
    run.state, run.lease_until = "running", FAR_AHEAD
    desk.session.add(run)
    desk.session.commit()
    run_id = run.id
    cases: list[dict[str, Any]] = [{}, {"lease_until": LONG_AGO}, {"lease_until": FAR_AHEAD, "tenant_id": None}]
    cases += [{"state": "failed"}, {"state": "completed"}]
    told = []
    for values in cases:
        for name, value in values.items():
            setattr(run, name, value)
        desk.session.commit()
        told.append(verify(desk).runs_active)
    assert told == [(run_id,), (), (run_id,), (), ()]


def test_a_repair_that_died_can_be_followed_by_another_that_has_ended(desk: Desk) -> None:
    desk.posted()
    ours = desk.tenant() or ONE_TENANT
    died = desk.binding.run(tenant_id=ours, kind="repair", state="running", stage="x", version="1", started_at=LONG_AGO)
    died.lease_until = LONG_AGO + timedelta(minutes=10)
    desk.session.add(died)
    desk.session.commit()
    behind(desk, delete(desk.binding.ledger("supplier").table))
    dry = desk.sync.repair(desk.history, dry_run=True, **desk.whose)
    assert [(stage.found, stage.synced) for stage in dry.stages if stage.found] == [({"missing": 1}, 0)]
    repaired(desk)
    assert verify(desk).runs_active == ()


def test_a_proof_writes_nothing(desk: Desk) -> None:
    desk.posted()
    with statements(desk.engine) as seen:
        verify(desk)
    assert seen
    assert not {statement.split()[0].upper() for statement in seen} & {"INSERT", "UPDATE", "DELETE"}


def test_a_proof_is_of_one_snapshot_and_so_are_the_figures_of_a_ledger_in_a_transaction(desk: Desk) -> None:
    if desk.engine.dialect.name == "sqlite":
        pytest.skip("a writer cannot commit there while somebody reads")
    desk.posted()
    before = verify(desk)

    def commit_elsewhere() -> None:
        with desk.under() as other:
            other.posted()
            # the customers' ledger is read after the suppliers', and findings after both
            other.posted(100, "customer")
            other.invoice()
            other.session.commit()

    with after_the_first_statement(desk.engine, commit_elsewhere):
        assert verify(desk) == before
    assert verify(desk).account("2400").gl_balance == 200
    desk.session.execute(select(func.now()))  # the transaction has begun, at READ COMMITTED
    with after_the_first_statement(desk.engine, commit_elsewhere):
        account = desk.sync.verify(desk.session, desk.tenant()).account("2400")
    assert account.gl_balance == account.subledger_balance


def test_a_session_that_is_not_attached_is_as_good_for_a_proof(desk: Desk) -> None:
    desk.posted()
    with sessionmaker(desk.engine)() as session:
        assert isinstance(session, Session)
        assert desk.sync.verify(session, desk.tenant()).clean


def test_nothing_lacks_in_the_hosts_database(desk: Desk) -> None:
    """Whatever the host's schema is called there."""
    assert desk.sync.check_schema(desk.engine) == ()
    with desk.engine.connect() as connection:
        assert desk.sync.check_schema(connection) == ()


def test_what_was_posted_lately_is_told(desk: Desk) -> None:
    """Moments without a zone, as some hosts keep them, are in UTC."""
    desk.needs("moments of posting")
    told = desk.posted(100).posted_at is not None
    found = desk.sync.recent(desk.session, desk.tenant(), datetime(2020, 1, 1, tzinfo=UTC))
    assert [(line.amount, line.outcome) for line in found] == ([(100, "written")] if told else [])
    assert all(line.posted_at.tzinfo is not None for line in found)
    assert all(line.written_at is None or line.written_at.tzinfo is not None for line in found)
    later = max((line.posted_at for line in found), default=datetime(2026, 1, 1, tzinfo=UTC)) + timedelta(seconds=1)
    assert desk.sync.recent(desk.session, desk.tenant(), later) == ()
