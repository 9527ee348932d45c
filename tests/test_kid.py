"""Payment references and their check digits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger_sync import kid

BODIES = st.text("0123456789", min_size=1, max_size=24)


@pytest.mark.parametrize("reference", ["2345676", "12345678903", "79927398713", "2345 676", "18"])
def test_a_kid_by_modulus_10_is_valid(reference: str) -> None:
    assert kid.is_valid_kid(reference)


@pytest.mark.parametrize("reference", ["12345678911", "98765432103", "0000000140"])
def test_modulus_11_agrees_with_weights_written_out(reference: str) -> None:
    weights = [2, 3, 4, 5, 6, 7] * 5
    body = reference[:-1]
    total = sum(int(digit) * weight for digit, weight in zip(reversed(body), weights, strict=False))
    expected = (11 - total % 11) % 11
    assert kid.mod11_digit(body) == ("-" if expected == 10 else str(expected))


def test_a_check_digit_of_ten_is_written_as_a_dash() -> None:
    body = next(str(n) for n in range(10, 1000) if kid.mod11_digit(str(n)) == "-")
    assert kid.is_valid_kid(f"{body}-")


@pytest.mark.parametrize("reference", ["", "1", "-", "12-4", "ABC", "12345678901234567890123456", "１２３"])
def test_what_has_not_the_shape_of_a_kid_does_not_claim_to_be_one(reference: str) -> None:
    assert not kid.claims_to_be_kid(reference)
    assert not kid.is_valid_kid(reference)


@given(BODIES)
def test_what_gets_a_check_digit_is_valid(body: str) -> None:
    assert kid.is_valid_kid(kid.with_mod10(body))
    assert kid.is_valid_kid(kid.with_mod11(body))


@given(BODIES, st.integers(0, 23), st.integers(1, 9))
def test_modulus_10_catches_every_single_wrong_digit(body: str, place: int, shift: int) -> None:
    place %= len(body)
    wrong = body[:place] + str((int(body[place]) + shift) % 10) + body[place + 1 :]
    assert kid.mod10_digit(wrong) != kid.mod10_digit(body)


@given(BODIES, st.integers(0, 22))
def test_modulus_11_catches_neighbours_that_changed_places(body: str, place: int) -> None:
    if len(body) < 2:
        return
    place %= len(body) - 1
    swapped = body[:place] + body[place + 1] + body[place] + body[place + 2 :]
    if swapped != body:
        assert kid.mod11_digit(swapped) != kid.mod11_digit(body)


@pytest.mark.parametrize("body", ["", "12a", "1" * 25, "１２"])
def test_a_body_that_is_no_body_is_refused_with_its_value(body: str) -> None:
    for make in (kid.with_mod10, kid.with_mod11):
        with pytest.raises(ValueError, match="is not a KID's body"):
            make(body)
