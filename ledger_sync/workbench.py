"""What every step of a run works with: the run's books, scope and options, and transactions on its tables.

A step is given the workbench and a segment, does a part of it, saves how far the segment is in the transaction of what
it wrote, and returns the segment as it is then. What it wrote is undone if the run does not go on, or the segment was
taken over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Row
from sqlalchemy.orm import Session

from ledger_sync import segments
from ledger_sync.binding import Binding, Ledger, attribute
from ledger_sync.errors import ConfigurationError, TooManyErrorsError
from ledger_sync.filling import Filler
from ledger_sync.runs import Batches, SessionFactory, retried, run_row
from ledger_sync.segments import Segment
from ledger_sync.settings import Settings
from ledger_sync.summary import scope_of
from ledger_sync.writer import Writer

T = TypeVar("T")
P = ParamSpec("P")

Poster = Callable[[Session, Any], Any]
"""The host's: takes a session and a document, returns the posted journal entry for it, or None to leave it."""

Health = Callable[[], str | None]
"""The host's: None when the run may go on, otherwise why it must wait."""


@dataclass
class Options:
    """What a host hands to a worker besides the run: its poster, its health hook, and what to call after each step.

    ``deadline``: of the monotonic clock, when the worker's time is up. ``waiting``: whether it waits for others when
    there is nothing that it can take, or leaves as if its time were up.
    """

    poster: Poster | None = None
    health: Health | None = None
    on_step: Callable[[], None] = lambda: None
    deadline: float = float("inf")
    waiting: bool = True


def refuse_without_poster(poster: Poster | None, run: Row[Any]) -> None:
    """Refuse to work on a run that posts documents when there is no poster.

    :raises ConfigurationError: so it is.
    """
    if poster is None and scope_of(run).posting and not run.dry_run:
        raise ConfigurationError(
            f"Run {run.id} posts documents, so whoever works on it needs the poster. Pass poster=…"
        )


class Workbench:
    """One run as a worker's steps see it.

    :raises ConfigurationError: the run posts documents, and there is no poster.
    """

    def __init__(
        self,
        binding: Binding,
        settings: Settings,
        writer: Writer,
        factory: SessionFactory,
        run_id: Any,
        options: Options,
    ) -> None:
        self.binding = binding
        self.settings = settings
        self.writer = writer
        self.filler = Filler(writer)
        self.batches = Batches(binding, factory)
        self.run_id = run_id
        self.options = options
        run = self.retried(self._run)
        self.scope = scope_of(run)
        self.dry_run: bool = run.dry_run
        self.tenant_id = run.tenant_id
        refuse_without_poster(options.poster, run)

    @contextmanager
    def writing(self, *, commit: bool = True) -> Iterator[Connection]:
        """A transaction for a step, which begins by looking whether the run goes on.

        :raises StoppedError: it does not.
        """
        with self.batches.connected(commit=commit) as connection:
            segments.check_in(connection, self.binding, self.run_id)
            yield connection

    def _run(self) -> Row[Any]:
        with self.batches.connected(commit=False) as connection:
            return run_row(connection, self.binding, self.run_id)

    def retried(self, attempt: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Try again what met a passing fault, as often as the settings say."""
        return retried(self.settings.retries_max, attempt, *args, **kwargs)

    def saved(self, connection: Connection, segment: Segment, began: float, **values: Any) -> Segment:
        """Save how far a segment is, and what was counted since the moment ``began`` of the monotonic clock.

        :raises FencedError: another worker has taken it over.
        :raises StoppedError: the run does not go on.
        """
        seconds = time.monotonic() - began
        return segments.save(connection, self.binding, self.settings, segment, seconds=seconds, **values)

    def refuse_too_many(self, in_a_row: int = 0) -> None:
        """Stop a run that has recorded more errors than ``errors_max``, or as many ``in_a_row`` as the settings say.

        :raises TooManyErrorsError: it has.
        """
        if in_a_row >= self.settings.errors_in_a_row_max:
            raise TooManyErrorsError(self.run_id, in_a_row, f"errors_in_a_row_max={self.settings.errors_in_a_row_max}")
        errors = self.retried(self._run).errors
        if errors > self.settings.errors_max:
            raise TooManyErrorsError(self.run_id, errors, f"errors_max={self.settings.errors_max}")

    def ledger(self, segment: Segment) -> Ledger:
        """The ledger of a segment that has one."""
        assert segment.ledger is not None
        return self.binding.ledger(segment.ledger)


def key_from_text(model: type[Any], text: str | None) -> Any:
    """A key of a class from the text that a segment keeps of it; None is no key."""
    if text is None:
        return None
    kind = attribute(model, "id").type.python_type
    return kind(text) if kind in {int, UUID} else text
