"""Texts of somebody else's as a log, a terminal or an error may show them: nobody forges a line, a colour or an order.

What cannot be printed is escaped: line ends, escape sequences of terminals, and the characters that turn the direction
of what stands after them. With them the name of a voucher, which all of these show.
"""

from __future__ import annotations

from typing import Final

INDENT: Final = "    "


def voucher_name(series: object, number: object, year: object) -> str:
    """How people name a voucher: series, number and fiscal year, ``B-17/2026``; without those that it has not."""
    return f"{series or ''}{'-' if series else ''}{number}{'' if year is None else f'/{year}'}"


def one_line(text: object) -> str:
    """A text on one line: what cannot be printed is escaped."""
    shown = str(text)
    return shown if shown.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)


def indented(text: object) -> str:
    """A text whose own lines are kept, each but the first indented, so that none looks like a record or a message."""
    return f"\n{INDENT}".join(one_line(line) for line in str(text).splitlines())
