"""Proposals as a CSV file that a person edits: one row per candidate, and a column to say yes in.

Semicolons and a byte order mark, as spreadsheets in Norway expect them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from ledger_sync.errors import ConfigurationError
from ledger_sync.matching import Candidate, Matches, Proposal

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")

COLUMNS = (
    "link",
    "certain",
    "ledger",
    "line_id",
    "voucher",
    "entry_date",
    "account",
    "amount",
    "text",
    "document",
    "document_id",
    "role",
    "number",
    "document_date",
    "party",
    "evidence",
)


def write_review(file: Path, found: Matches) -> None:
    """Write the proposals; certain ones are marked with yes already."""
    with file.open("w", encoding="utf-8-sig", newline="") as opened:
        writer = csv.writer(opened, delimiter=";")
        writer.writerow(COLUMNS)
        for proposal in found.proposals:
            for candidate in proposal.candidates:
                writer.writerow(_row(proposal, candidate))


def _row(proposal: Proposal, candidate: Candidate) -> list[str]:
    party = f"{candidate.party_number or ''} {candidate.party_name or ''}".strip()
    cells = (
        "yes" if proposal.certain else "",
        "yes" if proposal.certain else "",
        proposal.ledger,
        proposal.general_ledger_line_id,
        proposal.voucher,
        proposal.entry_date,
        proposal.account_number,
        proposal.amount,
        proposal.text,
        candidate.document,
        candidate.document_id,
        candidate.role,
        candidate.number or "",
        candidate.document_date,
        party,
        " ".join(candidate.evidence),
    )
    return [_harmless(str(cell)) for cell in cells]


def _harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    # a spreadsheet passes over blanks; "-2+3" is a formula, and "-2.00" an amount
    first = cell.lstrip()[:1]
    is_formula = first in {"=", "+", "-", "@"} or cell[:1] == "\t"
    return f"'{cell}" if is_formula and _NUMBER.fullmatch(cell) is None else cell


def read_review(file: Path, found: Matches) -> list[tuple[Proposal, Candidate]]:
    """What a person has marked with yes.

    :raises ConfigurationError: a row is no proposal (any more), or a line has two; nothing is linked then.
    """
    known = {
        (str(proposal.general_ledger_line_id), candidate.document, str(candidate.document_id)): (proposal, candidate)
        for proposal in found.proposals
        for candidate in proposal.candidates
    }
    try:
        return _marked(file, known)
    except (UnicodeDecodeError, csv.Error) as error:
        remedy = "Save it as CSV in UTF-8, with semicolons, or write it anew with --review."
        raise ConfigurationError(f"{file} cannot be read: {error}. {remedy}") from error


def _marked(
    file: Path, known: Mapping[tuple[str, str, str], tuple[Proposal, Candidate]]
) -> list[tuple[Proposal, Candidate]]:
    chosen: dict[str, tuple[Proposal, Candidate]] = {}
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = csv.DictReader(opened, delimiter=";")
        missing = {"link", "line_id", "document", "document_id"} - set(rows.fieldnames or ())
        if missing:
            raise ConfigurationError(f"{file} lacks the columns {', '.join(sorted(missing))}. Write it with --review.")
        for number, row in enumerate(rows, start=2):
            mark = (row["link"] or "").strip().lower()
            if mark in {"", "no"}:
                continue
            if mark != "yes":
                raise ConfigurationError(f"{file}, row {number}: {mark!r} should be yes, no or nothing.")
            key = (row["line_id"] or "", row["document"] or "", row["document_id"] or "")
            if key not in known:
                raise ConfigurationError(
                    f"{file}, row {number}: line {key[0]} with {key[1]} {key[2]} is no proposal. Write the file anew."
                )
            if key[0] in chosen:
                raise ConfigurationError(f"{file}, row {number}: line {key[0]} is marked twice. Leave one yes.")
            chosen[key[0]] = known[key]
    return list(chosen.values())
