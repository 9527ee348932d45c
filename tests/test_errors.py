"""Errors: each comes out of a worker process as it was raised there."""

from __future__ import annotations

import inspect
import pickle

import pytest

from ledger_sync import errors
from ledger_sync.contrib.queues import QueueUnreachableError
from ledger_sync.errors import LedgerSyncError

KINDS = [
    kind
    for kind in (*vars(errors).values(), QueueUnreachableError)
    if inspect.isclass(kind) and issubclass(kind, LedgerSyncError)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_comes_out_of_another_process_as_it_was(kind: type[LedgerSyncError]) -> None:
    raised = kind.__new__(kind)
    raised.args = ("The message. The remedy.",)
    raised.__dict__.update({"remedy": "The remedy.", "value": "17", "run_id": 3})
    told = pickle.loads(pickle.dumps(raised))
    assert type(told) is kind
    assert str(told) == str(raised)
    assert vars(told) == vars(raised)


@pytest.mark.parametrize(
    ("raised", "message", "told"),
    [
        (errors.AmountError("amount", 1.5, "is a float", "Fix."), "amount = 1.5 is a float. Fix.", {"value": 1.5}),
        (errors.TextError("name", "x", "is long", "Cut it."), "name = 'x' is long. Cut it.", {"name": "name"}),
        (errors.LinkError(7, "is gone", "Look."), "Journal line 7 is gone. Look.", {"line_id": 7}),
        (errors.SettlementError(("a", "b"), "differ", "Stop."), "a and b differ. Stop.", {"items": ("a", "b")}),
        (errors.AdoptionError(1, 2, "waits", "Go."), "Row 1 (line 2 was chosen) waits. Go.", {"row_id": 1}),
        (errors.NotInTheBooksError("x", "is not", "Ask.", ["y"]), "x is not. Ask.", {"could_be": ("y",)}),
        (
            errors.PostedEntryError("B-1", "is posted", "Reverse."),
            "Voucher B-1 is posted. Reverse.",
            {"voucher": "B-1"},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_one_with_a_remedy_ends_with_it_and_carries_its_data(
    raised: errors.RemediedError, message: str, told: dict[str, object]
) -> None:
    assert str(raised) == message
    assert message.endswith(raised.remedy)
    assert told.items() <= vars(raised).items()


def test_who_stopped_by_too_many_errors_is_told_what_a_resume_does() -> None:
    raised = errors.TooManyErrorsError(3, 4, "errors_max=3")
    assert (raised.run_id, raised.count, raised.setting) == (3, 4, "errors_max=3")
    assert "start a new run, which tries them again" in str(raised)
    assert "resume this one, which goes on after them" in str(raised)


def test_one_that_was_made_as_ever_does_too() -> None:
    raised = errors.RunStateError(3, "does not exist", "Ask for the list of runs.")
    told = pickle.loads(pickle.dumps(raised))
    assert (str(told), told.run_id, told.remedy) == (str(raised), 3, "Ask for the list of runs.")
