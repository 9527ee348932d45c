"""A job queue in a list, for what holds whichever queue it is: messages are texts, as in a real one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from ledger_sync import LedgerSync
from ledger_sync.contrib.queues import QueueUnreachableError, RunQueue, Schedule


@dataclass(frozen=True)
class Message:
    """A task that waits in the queue."""

    task: str
    text: str
    after_seconds: float
    expires_seconds: float | None
    key: str | None

    @property
    def arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text)
        return found


class Inbox:
    """The messages in order; ``answers``: whether the queue takes any more."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.answers = True
        self.answers_to: set[str] | None = None

    def check(self) -> None:
        if not self.answers:
            raise QueueUnreachableError("the list", "it is switched off")

    def send(
        self,
        task: str,
        arguments: Mapping[str, Any],
        *,
        after_seconds: float = 0.0,
        expires_seconds: float | None = None,
        key: str | None = None,
    ) -> None:
        if not self.answers or (self.answers_to is not None and task not in self.answers_to):
            raise QueueUnreachableError("the list", "it is switched off")
        self.messages.append(Message(task, json.dumps(dict(arguments)), after_seconds, expires_seconds, key))

    def queue(
        self, factory: sessionmaker[Session], sync: LedgerSync, schedule: Schedule | None = None, **more: Any
    ) -> RunQueue:
        schedule = Schedule(slice_seconds=0.001, workers=1) if schedule is None else schedule
        return RunQueue(sync, factory, send=self.send, check=self.check, schedule=schedule, **more)

    def work(self, queue: RunQueue) -> Message:
        """Do the first task."""
        message = self.messages.pop(0)
        queue.tasks()[message.task](**message.arguments)
        return message

    def work_all(self, queue: RunQueue, limit: int = 5_000) -> list[Message]:
        """Do tasks until none is waiting."""
        done = []
        while self.messages:
            done.append(self.work(queue))
            assert len(done) < limit, "the queue is never empty"
        return done
