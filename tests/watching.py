"""Listening for the length of a block: to what an engine sends, and to what a sync tells.

Engines and syncs of the tests live longer than a test, so that a listener left behind would act in all that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from ledger_sync import LedgerSync, signals


@contextmanager
def listening(target: Any, name: str, listener: Callable[..., Any]) -> Iterator[None]:
    """An event's listener, which is removed in the end, whatever happens inside the block."""
    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


@contextmanager
def statements(engine: Any, containing: str = "") -> Iterator[list[str]]:
    """The statements that the block sends, each on one line; those that contain a text, where one is given."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if containing in statement:
            sent.append(" ".join(statement.split()))

    with listening(engine, "before_cursor_execute", note):
        yield sent


@contextmanager
def after_the_first_statement(engine: Any, do: Callable[[], Any]) -> Iterator[None]:
    """Do something once, from elsewhere, when the first SELECT inside the block has been executed."""
    waiting = [do]

    def once(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if waiting and statement.lstrip().upper().startswith(("SELECT", "WITH")):
            waiting.pop()()

    with listening(engine, "after_cursor_execute", once):
        yield
    assert not waiting, "no statement was executed"


@contextmanager
def hearing(sync: LedgerSync, hear: Callable[[str, Any], object]) -> Iterator[None]:
    """Call ``hear`` with the name and the one argument of every signal that a sync sends after commits."""

    def listener(name: str) -> Callable[..., None]:
        def receive(sender: object, **told: Any) -> None:
            (about,) = told.values()
            hear(name, about)

        return receive

    listeners = [(signal, listener(name)) for name, signal in signals.AFTER_COMMIT.items()]
    for signal, receiver in listeners:
        signal.connect(receiver, sender=sync)
    try:
        yield
    finally:
        for signal, receiver in listeners:
            signal.disconnect(receiver, sender=sync)
