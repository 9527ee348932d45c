"""Workers of job queues that can be killed at any moment: python -m tests.queues.nursery

Makes itself ready, by a backfill of the tenant ``warm`` of ``tests.queues.erp``; then, for each line ``celery NAME``,
``beat FILE`` or ``procrastinate NAME`` on its input, forks such a process and prints its process id. For a line
``wait PID`` it prints how that process ended. What the processes say goes to the file LEDGER_SYNC_TEST_LOG.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from tests.killable import Nursery

LEAN = ["--without-gossip", "--without-mingle", "--without-heartbeat"]


def _work(what: str, name: str) -> None:
    from tests.queues import erp

    if what == "celery":
        erp.app.worker_main(
            ["worker", "-P", "solo", "-Q", "ledger_sync", "-n", f"{name}@localhost", "-l", "warning", *LEAN]
        )
    elif what == "beat":
        erp.app.start(["beat", "-s", name, "--pidfile", "", "-l", "warning"])
    else:
        erp.jobs.run_worker(queues=["ledger_sync"], name=name, concurrency=1, install_signal_handlers=False)


def main() -> None:
    from tests.queues import erp

    answers = os.dup(1)
    log = os.open(os.environ["LEDGER_SYNC_TEST_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    erp.sync.backfill(erp.factory, tenant_id="warm")
    os.write(answers, b"ready\n")
    for line in sys.stdin:
        what, about = line.split()
        if what == "wait":
            _, status = os.waitpid(int(about), 0)
            answer = os.waitstatus_to_exitcode(status)
        elif child := os.fork():
            answer = child
        else:
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(0)
            _work(what, about)
            os._exit(0)
        os.write(answers, f"{answer}\n".encode())


def environment(engine: Engine, folder: Path, broker: str = "memory://", **more: Any) -> dict[str, str]:
    """What ``tests.queues.erp`` reads, for books in an engine's database."""
    schema = ""
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            schema = connection.scalar(text("SELECT current_schema()")) or ""
    return {
        **os.environ,
        "LEDGER_SYNC_TEST_BOOKS": engine.url.render_as_string(hide_password=False),
        "LEDGER_SYNC_TEST_SCHEMA": schema,
        "LEDGER_SYNC_TEST_BROKER": broker,
        "LEDGER_SYNC_TEST_LOG": str(folder / "workers.log"),
        **{f"LEDGER_SYNC_TEST_{name.upper()}": str(value) for name, value in more.items()},
    }


class Shift:
    """The workers that a test has started in a nursery."""

    def __init__(self, nursery: Nursery) -> None:
        self.nursery = nursery
        self.alive: list[int] = []
        self._started = 0

    def start(self, what: str, about: object = None) -> int:
        """Begin a process; its id."""
        self._started += 1
        pid = self.nursery.worker(what, f"worker{self._started}" if about is None else about)
        self.alive.append(pid)
        return pid

    def kill(self, pid: int) -> None:
        """Without a word."""
        os.kill(pid, 9)
        self.nursery.ended(pid)
        self.alive.remove(pid)


@contextmanager
def shift(environment: dict[str, str]) -> Iterator[Shift]:
    """A nursery, whose workers are killed in the end."""
    with Nursery("tests.queues.nursery", environment=environment) as nursery:
        working = Shift(nursery)
        try:
            yield working
        finally:
            for pid in [*working.alive]:
                working.kill(pid)


if __name__ == "__main__":
    main()
