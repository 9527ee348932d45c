"""Worker processes that can be killed at any moment, for tests: python -m tests.killable URL SCHEMA

Makes itself ready, by a backfill of the tenant ``warm``, so that its statements are built; then, for each line
``resume RUN`` or ``advance RUN`` on its input, forks a worker that does that, and prints the worker's process id. For a
line ``wait PID`` it prints how that worker ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from sqlalchemy import event
from sqlalchemy.orm import sessionmaker

from ledger_sync import LedgerSync, Settings
from ledger_sync.dialects import open_engine

SETTINGS = Settings(batch_lines_max=5, segment_lines_max=40, lease_seconds=0.3, writers_seconds_max=0)


class Nursery:
    """The process that forks the workers, seen from a test."""

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", module, *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._answer() == "ready"

    @classmethod
    def of_workers(cls, url: str, schema: str) -> Self:
        """One whose workers do what this module says."""
        return cls("tests.killable", url, schema)

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def _ask(self, words: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        return self._answer()

    def worker(self, what: str, about: object) -> int:
        """Begin a worker; its process id."""
        return int(self._ask(f"{what} {about}"))

    def ended(self, pid: int) -> int:
        """Wait for a worker; its exit status, negative for the signal that ended it."""
        return int(self._ask(f"wait {pid}"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def main(url: str, schema: str) -> None:
    engine = open_engine(url)
    if schema:

        @event.listens_for(engine, "connect")
        def _use_schema(connection: object, record: object) -> None:
            with connection.cursor() as cursor:  # type: ignore[attr-defined]
                cursor.execute(f"SET search_path TO {schema}")
            connection.commit()  # type: ignore[attr-defined]

    factory = sessionmaker(engine)
    sync = LedgerSync(SETTINGS)
    sync.backfill(factory, tenant_id="warm")
    engine.dispose()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        what, number = line.split()
        if what == "wait":
            _, status = os.waitpid(int(number), 0)
            answer = os.waitstatus_to_exitcode(status)
        elif child := os.fork():
            answer = child
        else:
            engine.dispose(close=False)
            if what == "resume":
                sync.resume(factory, int(number))
            else:
                while sync.advance(factory, int(number), 30).state == "running":
                    pass
            os._exit(0)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
