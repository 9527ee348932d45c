"""Runs that the workers of a job queue work on: what its tasks do, whichever queue it is.

The queue only wakes workers. What there is to do, who is at work and what is done stand in the run's tables, so a
message that is lost, late or delivered twice does no harm: ``watch`` wakes runs that nobody is at work on, and a slice
that finds enough others at work is the last of its chain. Slices are short, and whoever wants another one goes to the
end of the queue, so runs of many tenants go on by turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final, Protocol

from sqlalchemy.orm import Session

from ledger_sync import ALL_TENANTS, LedgerSync, Progress, Proof, RunReport, signals
from ledger_sync.binding import attribute
from ledger_sync.contrib.actors import BY_QUEUE, has_mark, marked
from ledger_sync.contrib.keys import key_of
from ledger_sync.errors import ConfigurationError, LedgerSyncError, RunActiveError, RunStateError
from ledger_sync.logs import log
from ledger_sync.models.types import utc_now
from ledger_sync.progress import AllTenants
from ledger_sync.runs import SessionFactory, imported
from ledger_sync.scope import first_entry_date
from ledger_sync.workbench import Health, Poster

BUSY_SECONDS: Final = 2.0
"""After so long a chain looks again that found only what others must end first."""

MINUTE: Final = 60


class QueueUnreachableError(LedgerSyncError):
    """A job queue that does not answer. ``queue`` names it. No run is at work for want of it."""

    def __init__(self, queue: str, problem: str) -> None:
        self.queue = queue
        super().__init__(
            f"The job queue {queue} does not answer ({problem}). Nothing was started. Start its server, or mend its "
            "address, and try again; or run the backfill without a queue."
        )


@dataclass(frozen=True)
class Schedule:
    """How the work is shared out, and when it comes round.

    :param queue: the queue's name, so that workers can be kept for it.
    :param workers: so many chains of slices work on one run.
    :param slice_seconds: how long a slice works before it lets others have their turn; a step that is one statement,
        such as settling, ends first. Far below the time after which a queue delivers anew.
    :param watch_seconds: how often runs are looked for that nobody is at work on; a divisor of 60.
    :param sync_cron: when every tenant's late history is synced, as crontab says it; None for never.
    :param sync_days: how many days back that goes, by entry date; None for all since the cut-over. What has come in
        dated before is found by the nightly proof.
    :param verify_cron: when every tenant's books are proved; None for never.
    """

    queue: str = "ledger_sync"
    workers: int = 2
    slice_seconds: float = 20.0
    watch_seconds: int = 30
    sync_cron: str | None = "17 * * * *"
    sync_days: int | None = 35
    verify_cron: str | None = "30 2 * * *"

    def __post_init__(self) -> None:
        for name, right, remedy in (
            ("workers", self.workers >= 1, "Give at least 1."),
            ("slice_seconds", 0 < self.slice_seconds <= 10 * MINUTE, "Give more than 0 and at most 600."),
            (
                "watch_seconds",
                1 <= self.watch_seconds <= MINUTE and MINUTE % self.watch_seconds == 0,
                "Give a divisor of 60.",
            ),
            ("sync_days", self.sync_days is None or self.sync_days >= 0, "Give 0 or more, or None."),
        ):
            if not right:
                raise ConfigurationError(f"Schedule({name}={getattr(self, name)!r}) makes no sense. {remedy}")

    def crontabs(self) -> dict[str, str]:
        """When the tasks of whole days and hours come round, by their names; the watch goes by seconds."""
        times = {"sync_all": self.sync_cron, "verify_all": self.verify_cron}
        return {name: cron for name, cron in times.items() if cron is not None}


class Send(Protocol):
    """How a task is put into a queue: under its name, with plain JSON arguments.

    :param key: of messages with one key, one need be waiting.
    :raises QueueUnreachableError: it was not put there.
    """

    def __call__(
        self,
        task: str,
        arguments: Mapping[str, Any],
        *,
        after_seconds: float = 0.0,
        expires_seconds: float | None = None,
        key: str | None = None,
    ) -> None: ...


class RunQueue:
    """Starts runs that a queue's workers work on, and is what its tasks do.

    :param send: puts a task into the queue.
    :param check: raises when the queue does not answer.
    :param tenants: whose books are synced and proved periodically; all who have entries unless given.
    """

    def __init__(
        self,
        sync: LedgerSync,
        factory: SessionFactory | str,
        *,
        send: Send,
        check: Callable[[], object],
        schedule: Schedule,
        poster: Poster | None = None,
        health: Health | None = None,
        tenants: Callable[[Session], Iterable[Any]] | None = None,
    ) -> None:
        self.sync = sync
        self.factory = factory
        self.schedule = schedule
        self._send = send
        self._check = check
        self._staff: dict[str, Any] = {"poster": poster, "health": health}
        self._tenants = tenants or (lambda session: sync.tenants(session, ALL_TENANTS))
        self._posting = poster is not None

    # -- what an application calls ---------------------------------------------------------------------

    def start(self, *, tenant_id: Any = None, actor: str | None = None, **arguments: Any) -> int:
        """Make a run, and wake workers for it; its id. Arguments as of ``LedgerSync.start``.

        :raises QueueUnreachableError: the queue does not answer. No run is left behind.
        :raises RunActiveError: another run is writing these books, or waits for its turn in the queue.
        """
        self._check()
        self._refuse_beside(tenant_id)
        run_id = self.sync.start(
            self.factory,
            tenant_id=tenant_id,
            actor=marked(actor or "somebody", BY_QUEUE),
            posting=self._posting,
            **arguments,
        )
        try:
            self.wake(run_id)
        except BaseException:
            self._stop(run_id, self.sync.cancel)
            raise
        return run_id

    def resume(self, run_id: int, *, tenant_id: Any = None) -> bool:
        """Set a run that was paused, has failed or has died to running again, and wake workers for it.

        False if it has completed already. From then on it is the queue's, whoever began it. Errors as of
        ``LedgerSync.reopen``.

        :raises QueueUnreachableError: the queue does not answer. The run is as it was, or paused.
        :raises RunActiveError: another run is writing these books, or waits for its turn in the queue.
        """
        self._check()
        with self._session() as session:
            run = self.sync.report(session, run_id, tenant_id=tenant_id)
        self._refuse_beside(ALL_TENANTS if run.tenant_id is None else run.tenant_id, run_id)
        actor = run.actor if has_mark(run, BY_QUEUE) else marked(run.actor or "somebody", BY_QUEUE)
        if not self.sync.reopen(self.factory, run_id, tenant_id=tenant_id, actor=actor):
            return False
        try:
            self.wake(run_id)
        except BaseException:
            self._stop(run_id, self.sync.pause)
            raise
        return True

    def _stop(self, run_id: int, command: Callable[[Session, int], object]) -> None:
        """Have a run paused or cancelled at once, at which nobody may be at work."""
        with self._session() as session:
            command(session, run_id)
            session.commit()
        self.sync.advance(self.factory, run_id, 0.0, **self._staff)  # which obeys

    def wake(self, run_id: int) -> None:
        """Have workers begin with a run.

        :raises QueueUnreachableError: the queue does not answer.
        """
        for slot in range(self.schedule.workers):
            self._chain(run_id, slot, lasting=True)

    def _chain(
        self, run_id: int, slot: int, *, lasting: bool, after: float = 0.0, expires: float | None = None
    ) -> None:
        arguments = {"run": run_id, "slot": slot, "lasting": lasting}
        key = f"ledger_sync run {run_id} slot {slot}"
        self._send("advance", arguments, after_seconds=after, expires_seconds=expires, key=key)

    def _refuse_beside(self, tenant_id: Any, run_id: int | None = None) -> None:
        """A queue's run may wait for its turn for longer than its lease, and is at work all the same.

        :param run_id: the run that is to be set to work, when it is there already.
        """
        several = self.sync.binding.has_tenants and not isinstance(tenant_id, AllTenants)
        for run in self._at_work():
            if run.run_id == run_id:
                continue
            if not several or run.tenant_id in {None, tenant_id}:
                whose = "all tenants" if run.tenant_id is None else f"tenant {run.tenant_id}"
                raise RunActiveError(run.run_id, run.kind, f"the books of {whose}", "in the queue")

    def _at_work(self) -> list[RunReport]:
        """The queue's runs in state ``running``."""
        with self._session() as session:
            runs = self.sync.runs(session, ALL_TENANTS, limit=None, running=True)
        return [run for run in runs if has_mark(run, BY_QUEUE)]

    def _session(self) -> Session:
        return imported(self.factory)()

    # -- what the tasks do -----------------------------------------------------------------------------

    def tasks(self) -> dict[str, Callable[..., None]]:
        """The tasks that a queue must know, by name, to be called with a message's arguments."""
        return {
            "start": self.started,
            "advance": self.advance,
            "watch": self.watch,
            "sync_all": self.sync_all,
            "verify_all": self.verify_all,
            "verify": self.verify,
        }

    def started(self, *, tenant: str | None = None, everybody: bool = False, **arguments: Any) -> None:
        """Task ``start``: as ``start``, with plain arguments, dates as ISO texts. One that is at work already is left.

        :param tenant: as a text. :param everybody: all tenants at once.
        """
        for name in ("since", "until"):
            if arguments.get(name) is not None:
                arguments[name] = date.fromisoformat(arguments[name])
        try:
            run_id = self.start(tenant_id=ALL_TENANTS if everybody else self._tenant_of(tenant), **arguments)
        except RunActiveError as active:
            log.info("Ledger sync: not started: %s", active)
        else:
            log.info("Ledger sync: run %s is started", run_id)

    def advance(self, run: int, slot: int = 0, lasting: bool = True) -> None:
        """Task ``advance``: one slice of a run's work, and the next of its chain into the queue.

        :param lasting: whether the chain goes on while it can only wait for others; one that ``watch`` adds does not.
        """
        began = time.monotonic()
        try:
            progress = self.sync.advance(self.factory, run, self.schedule.slice_seconds, waiting=False, **self._staff)
        except LedgerSyncError as error:  # the run is failed and says why, or is not there
            log.warning("Ledger sync: run %s was left, with an error: %s", run, error)
            return
        if progress.over or self._is_enough(progress):
            return
        waits = time.monotonic() - began < self.schedule.slice_seconds
        if waits and not lasting:
            return
        try:
            self._chain(run, slot, lasting=True, after=BUSY_SECONDS if waits else 0.0)
        except QueueUnreachableError as error:
            log.warning("Ledger sync: run %s waits until the queue is back: %s", run, error)

    def _is_enough(self, progress: Progress) -> bool:
        return progress.workers >= self.schedule.workers

    def watch(self) -> None:
        """Task ``watch``: wake workers for runs that have too few, because some were killed or messages were lost.

        What it sends is of no use when it is sent again, and passes.
        """
        for run in self._at_work():
            assert run.run_id is not None
            with self._session() as session:
                try:
                    progress = self.sync.progress(session, run.run_id)
                except RunStateError:  # it has just been taken away
                    continue
            for slot in range(progress.workers, self.schedule.workers):
                self._chain(run.run_id, slot, lasting=run.died, expires=float(self.schedule.watch_seconds))

    def sync_all(self) -> None:
        """Task ``sync_all``: have every tenant's late history synced, each by a run of its own."""
        for tenant_id in self._everybody():
            arguments: dict[str, Any] = {"tenant": None if tenant_id is None else str(tenant_id), "actor": "periodic"}
            if self.schedule.sync_days is not None:
                since = utc_now().date() - timedelta(days=self.schedule.sync_days)
                arguments["since"] = max(first_entry_date(self.sync.settings, tenant_id) or since, since).isoformat()
            self._send("start", arguments, key=f"ledger_sync start {tenant_id}")

    def verify_all(self) -> None:
        """Task ``verify_all``: have every tenant's books proved, each by a task of its own."""
        for tenant_id in self._everybody():
            tenant = None if tenant_id is None else str(tenant_id)
            self._send("verify", {"tenant": tenant}, key=f"ledger_sync verify {tenant}")

    def verify(self, tenant: str | None = None) -> None:
        """Task ``verify``: prove one tenant's books and tell ``signals.books_verified``; what is wrong is logged."""
        with self._session() as session:
            proof = self.sync.verify(session, self._tenant_of(tenant))
        if proof.clean:
            log.info("Ledger sync: the books of tenant %s are clean", tenant)
        else:
            log.warning("Ledger sync: the books of tenant %s are not clean: %s", tenant, faults_of(proof))
        signals.send_safely(signals.books_verified, self.sync, proof=proof)

    def _everybody(self) -> list[Any]:
        with self._session() as session:
            return list(self._tenants(session))

    def _tenant_of(self, text: str | None) -> Any:
        """A tenant from the text that a message has.

        :raises ConfigurationError: it cannot be one of these books.
        """
        if text is None or not self.sync.binding.has_tenants:
            return None
        found = key_of(text, attribute(self.sync.binding.entry, "tenant_id").type)
        if found is None:
            raise ConfigurationError(f"tenant {text!r} cannot be one of these books. Name it as the books do.")
        return found


def faults_of(proof: Proof) -> str:
    """What is wrong with the books, in one line."""
    causes = [
        f"account {account.account_number} {cause.name} ({cause.count}) {cause.amount}"
        for account in proof.accounts
        for cause in account.faults
    ]
    return "; ".join([*causes, *(f"{finding.name} ({finding.count})" for finding in proof.findings if finding.fault)])
