"""Settings: what makes no sense is refused when they are made, and the refusal says why."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from ledger_sync import ConfigurationError, ControlAccount, LedgerSync, Settings

SUPPLIER = {"accounts": ("2400",), "ledger": "supplier"}


def refusal(**values: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings(**values)
    return str(caught.value)


def test_the_defaults_are_the_norwegian_accounts() -> None:
    settings = Settings()
    found = {c.accounts[0]: (c.ledger, c.side, sorted(c.sources)) for c in settings.control_accounts}
    assert found == {
        "2400": ("supplier", "credit", ["ehf_invoice", "vendor_invoice", "vendor_payment"]),
        "1500": ("customer", "debit", ["customer_invoice", "customer_payment"]),
        "2910": ("employee", "credit", ["expense_claim"]),
    }
    assert settings.ledgers() == ("supplier", "customer", "employee")


def test_the_defaults_skip_manual_postings_fail_closed_and_have_no_cut_over() -> None:
    settings = Settings()
    assert (settings.manual, settings.on_error, settings.bulk) == ("skip", "raise", "refuse")
    assert settings.effective_from is None
    assert settings.effective_by == "entry_date"
    assert settings.settlement == "reference"
    assert settings.cut_over("anybody") is None


def test_an_ehf_invoice_means_a_vendor_invoice() -> None:
    control = Settings().control_account("2400")
    assert control is not None
    assert control.sources["ehf_invoice"] == "vendor_invoice"


@pytest.mark.parametrize(
    ("accounts", "number", "covered"),
    [
        ("2400", "2400", True),
        ("2400", "24000", False),
        ("2400", "240", False),
        ("2400-2409", "2400", True),
        ("2400-2409", "2405", True),
        ("2400-2409", "2409", True),
        ("2400-2409", "2410", False),
        ("2400-2409", "2399", False),
        ("2400-2409", "24001", False),
        ("2400-2409", "240", False),
        ("2400–2409", "2404", True),
        ("2400 - 2409", "2404", True),
        ("2400-2409", "24O4", False),
        ("2400-2409", "٢٤٠٤", False),
        ("2400-2409", "", False),
        (("2400", "2450-2459"), "2455", True),
        (("2400", "2450-2459"), "2440", False),
        ("AP-1", "AP-1", True),
    ],
)
def test_an_account_is_covered_by_its_number_or_by_a_range_of_its_length(
    accounts: Any, number: str, covered: bool
) -> None:
    control = ControlAccount(accounts=accounts, ledger="supplier")
    assert control.covers(number) is covered
    assert (Settings(control_accounts=(control,)).control_account(number) is control) is covered


def test_the_range_is_told_apart_from_single_accounts() -> None:
    control = ControlAccount(accounts=("2400", "2450-2459"), ledger="supplier")
    assert control.singles() == ("2400",)
    assert control.ranges() == (("2450", "2459"),)


@pytest.mark.parametrize(("ledger", "side"), [("supplier", "credit"), ("customer", "debit"), ("employee", "credit")])
def test_the_side_follows_the_ledger_unless_given(ledger: Any, side: str) -> None:
    assert ControlAccount(accounts="1", ledger=ledger).side == side
    other: Any = "debit" if side == "credit" else "credit"
    assert ControlAccount(accounts="1", ledger=ledger, side=other).side == other


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        ([{"accounts": ("2400",), "ledger": "supplier"}, {"accounts": ("2400",), "ledger": "customer"}], "2400"),
        ([{"accounts": ("2400-2409",), "ledger": "supplier"}, {"accounts": ("2405",), "ledger": "employee"}], "2405"),
        ([{"accounts": ("2400-2409",), "ledger": "supplier"}, {"accounts": ("2405-2420",), "ledger": "customer"}], "2"),
    ],
)
def test_an_account_in_two_ledgers_is_refused_with_the_account_and_both_ledgers(
    controls: list[dict[str, Any]], words: str
) -> None:
    message = refusal(control_accounts=controls)
    assert words in message
    assert "both the" in message
    assert all(control["ledger"] in message for control in controls)


def test_an_account_named_twice_in_one_ledger_is_refused() -> None:
    assert "2400 belongs to the supplier ledger twice" in refusal(control_accounts=[SUPPLIER, SUPPLIER])
    within = {"accounts": ("2400", "2400-2405"), "ledger": "supplier"}
    assert "2400 belongs to the supplier ledger twice" in refusal(control_accounts=[within])


def test_ranges_of_different_lengths_do_not_overlap() -> None:
    Settings(control_accounts=[SUPPLIER, {"accounts": ("24000-24009",), "ledger": "customer"}])


@pytest.mark.parametrize("accounts", [(), "", " 2400", "2400 ", "2409-2400", "240-2409", ("2400", "")])
def test_accounts_that_make_no_sense_are_refused(accounts: Any) -> None:
    message = refusal(control_accounts=[{"accounts": accounts, "ledger": "supplier"}])
    assert message.startswith("These settings make no sense: control_accounts.0")
    assert "account" in message.split(": ", 2)[2]


def test_a_backward_range_is_named_in_the_refusal() -> None:
    assert "'2409-2400' must go upwards" in refusal(control_accounts=[{**SUPPLIER, "accounts": "2409-2400"}])


def test_no_control_accounts_at_all_are_refused() -> None:
    assert "nothing to do" in refusal(control_accounts=())


def test_a_control_account_without_sources_is_refused() -> None:
    assert "without sources" in refusal(control_accounts=[{**SUPPLIER, "sources": {}}])


def test_one_source_with_two_meanings_in_a_ledger_is_refused() -> None:
    message = refusal(
        control_accounts=[
            {**SUPPLIER, "sources": {"doc": "vendor_invoice"}},
            {"accounts": "2450", "ledger": "supplier", "sources": {"doc": "vendor_payment"}},
        ]
    )
    assert "'doc' means both 'vendor_invoice' and 'vendor_payment'" in message


def test_one_source_may_mean_different_things_in_different_ledgers() -> None:
    settings = Settings(
        control_accounts=[
            {**SUPPLIER, "sources": {"doc": "vendor_invoice"}},
            {"accounts": "1500", "ledger": "customer", "sources": {"doc": "customer_invoice"}},
        ]
    )
    assert settings.ledgers() == ("supplier", "customer")


def test_a_source_that_the_models_do_not_know_is_refused_when_the_sync_is_made() -> None:
    settings = Settings(control_accounts=[{**SUPPLIER, "sources": {"bill": "bill"}}])
    with pytest.raises(ConfigurationError, match=r"source 'bill' of the supplier ledger means 'bill'.*vendor_invoice"):
        LedgerSync(settings)


@pytest.mark.parametrize(
    "values",
    [
        {"control_accounts": [{**SUPPLIER, "ledger": "tax"}]},
        {"control_accounts": [{**SUPPLIER, "side": "left"}]},
        {"control_accounts": [{**SUPPLIER, "colour": "red"}]},
        {"manual": "ignore"},
        {"on_error": "log"},
        {"bulk": "allow"},
        {"settlement": "newest_first"},
        {"effective_by": "created_at"},
        {"effective_from": "soon"},
        {"effective_from": {"acme": "soon"}},
        {"batch_lines_max": 0},
        {"batch_lines_max": 1_000_001},
        {"examples_max": -1},
        {"cutover": date(2026, 1, 1)},
    ],
)
def test_a_value_outside_its_choices_is_refused_with_its_name(values: dict[str, Any]) -> None:
    message = refusal(**values)
    assert message.startswith("These settings make no sense: ")
    (name,) = values
    assert name in message


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ledger": "tax"}, "ledger = 'tax': Input should be 'supplier', 'customer' or 'employee'"),
        ({"accounts": "2409-2400"}, "accounts = '2409-2400': account range '2409-2400' must go upwards"),
        ({"side": "left"}, "side = 'left': Input should be 'debit' or 'credit'"),
        ({"sources": {}}, "sources = {}: a control account without sources"),
        ({"colour": "red"}, "colour = 'red': Extra inputs are not permitted"),
    ],
)
def test_a_control_account_that_makes_no_sense_is_refused_alone_as_in_settings(
    values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ControlAccount(**{**SUPPLIER, **values})
    assert str(caught.value).startswith(f"This control account makes no sense: {said}")
    message = refusal(control_accounts=[{**SUPPLIER, **values}])
    assert message.startswith(f"These settings make no sense: control_accounts.0.{said}")


def test_settings_and_control_accounts_are_frozen() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.manual = "block"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        settings.control_accounts[0].ledger = "customer"  # type: ignore[misc]


def test_settings_are_not_changed_through_the_mapping_they_were_given() -> None:
    days = {"acme": date(2026, 1, 1)}
    sources = {"bill": "vendor_invoice"}
    control = ControlAccount(accounts="2400", ledger="supplier", sources=sources)
    settings = Settings(control_accounts=(control,), effective_from=days)
    days["acme"] = date(2020, 1, 1)
    sources["other"] = "vendor_payment"
    assert settings.cut_over("acme") == date(2026, 1, 1)
    assert dict(settings.control_accounts[0].sources) == {"bill": "vendor_invoice"}


def test_the_cut_over_is_one_day_for_everybody_or_a_day_per_tenant() -> None:
    day = date(2026, 1, 1)
    assert Settings(effective_from=day).cut_over("anybody") == day
    per_tenant = Settings(effective_from={"acme": day})
    assert per_tenant.cut_over("acme") == day
    assert per_tenant.cut_over("other") is None


def test_settings_survive_a_round_trip_through_json() -> None:
    settings = Settings(effective_from={"acme": date(2026, 1, 1)}, manual="block")
    assert Settings(**Settings.model_validate_json(settings.model_dump_json()).model_dump()) == settings
