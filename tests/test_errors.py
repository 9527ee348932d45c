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


def test_one_that_was_made_as_ever_does_too() -> None:
    raised = errors.RunStateError(3, "does not exist", "Ask for the list of runs.")
    told = pickle.loads(pickle.dumps(raised))
    assert (str(told), told.run_id, told.remedy) == (str(raised), 3, "Ask for the list of runs.")
