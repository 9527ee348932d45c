"""Payment references (KID) and their check digits.

A Norwegian KID has 2 to 25 characters; the last is a check digit over those before it, by modulus 10 (Luhn's) or
by modulus 11 with the weights 2 to 7 from the right, where a remainder that would give 10 is written as a
dash. Which of the two applies is agreed between the payee and the bank, so a reference is a valid KID
when either fits. Source: the Norwegian banks' system specification for OCR giro (Mastercard Payment
Services, "OCR giro – systemspesifikasjon", chapter on KID).
"""

from __future__ import annotations

import re

KID_LENGTH_MIN = 2
KID_LENGTH_MAX = 25

_SHAPE = re.compile(r"[0-9]{1,24}[0-9-]", re.ASCII)


def bare(reference: str) -> str:
    """A reference without the blanks that people type into it."""
    return re.sub(r"[ \t\u00a0]", "", reference)


def mod10_digit(body: str) -> str:
    """The modulus 10 check digit for a body of digits.

    >>> mod10_digit("234567")
    '6'
    """
    total = 0
    for index, digit in enumerate(reversed(body)):
        product = int(digit) * (2 if index % 2 == 0 else 1)
        total += product // 10 + product % 10
    return str(-total % 10)


def mod11_digit(body: str) -> str:
    """The modulus 11 check digit for a body of digits; a dash where it would be 10.

    >>> mod11_digit("1234567")
    '4'
    """
    total = sum(int(digit) * (2 + index % 6) for index, digit in enumerate(reversed(body)))
    rest = -total % 11
    return "-" if rest == 10 else str(rest)


def claims_to_be_kid(reference: str) -> bool:
    """Whether a reference has the shape of a KID: 2 to 25 digits, the last of which may be a dash."""
    return _SHAPE.fullmatch(bare(reference)) is not None


def is_valid_kid(reference: str) -> bool:
    """Whether a reference is a KID whose check digit fits, by modulus 10 or modulus 11.

    Blanks are ignored. Nothing else is: a KID with a wrong digit is reported, never put right.
    """
    if not claims_to_be_kid(reference):
        return False
    kid = bare(reference)
    return kid[-1] in {mod10_digit(kid[:-1]), mod11_digit(kid[:-1])}


def with_mod10(body: str) -> str:
    """A body of digits with its modulus 10 check digit behind it.

    :raises ValueError: the body is not 1 to 24 digits.
    """
    return _checked(body) + mod10_digit(body)


def with_mod11(body: str) -> str:
    """A body of digits with its modulus 11 check digit behind it.

    :raises ValueError: the body is not 1 to 24 digits.
    """
    return _checked(body) + mod11_digit(body)


def _checked(body: str) -> str:
    if not (body.isascii() and body.isdigit() and KID_LENGTH_MIN <= len(body) + 1 <= KID_LENGTH_MAX):
        raise ValueError(f"{body!r} is not a KID's body: give 1 to 24 digits, without the check digit")
    return body
