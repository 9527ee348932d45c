"""How a run ends, tenant by tenant: its ledgers are settled, then its books are proved.

Where the proof finds rows missing, lines came in late, behind the batches that passed their keys. They get segments of
their own, once, and are settled and proved after that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection

from ledger_sync import proof, segments
from ledger_sync.dialects import count_anew
from ledger_sync.progress import added_up
from ledger_sync.proof import Proof
from ledger_sync.segments import Segment
from ledger_sync.workbench import Workbench

COUNTED_FROM: Final = 1_000
"""So many rows and applications of one tenant are worth counting anew, which takes less than a second."""


class Closing:
    """Settles and proves the books of one run. ``proofs`` are those that it found not to be clean."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.proofs: list[Proof] = []

    def settle(self, segment: Segment) -> Segment:
        """Settle a ledger. Rows that were there are first brought up to date with documents that have come since."""
        self._count_anew(segment, [segment.ledger or ""])
        return self.bench.retried(self._settle, segment)

    def _settle(self, segment: Segment) -> Segment:
        began = time.monotonic()
        bench, ledger = self.bench, self.bench.ledger(segment)
        with bench.writing() as connection:
            found: dict[str, int] = {}
            if self._had_rows(connection, segment):
                renewed = bench.filler.renew(connection, ledger, segment.tenant_id)
                found = {"brought up to date": renewed} if renewed else {}
            applied = bench.writer.settler.settle_all(connection, ledger, segment.tenant_id)
            return bench.saved(connection, segment, began, applied=applied, found=found, done=True)

    def _had_rows(self, connection: Connection, segment: Segment) -> bool:
        """Whether the run met rows of the segment's tenant and ledger that were there before."""
        parts = self._parts(connection, segment)
        return any(part.existing for part in parts if part.ledger == segment.ledger)

    def _parts(self, connection: Connection, segment: Segment) -> list[Segment]:
        """The run's segments of the same tenant."""
        return segments.of_tenant(connection, self.bench.binding, self.bench.run_id, segment.tenant_id)

    def verify(self, segment: Segment) -> Segment:
        """Prove a tenant's books. Where rows are missing, have them written first, once: they came in late."""
        bench = self.bench
        segment = bench.retried(self._settle_late, segment)
        self._count_anew(segment, bench.scope.ledgers)
        began = time.monotonic()
        result = bench.retried(self._proof, segment.tenant_id)
        after = bench.retried(self._close, segment, result, began)
        if after.state == "done" and not result.clean:
            self.proofs.append(result)
        return after

    def _count_anew(self, segment: Segment, names: Sequence[str]) -> None:
        """Have the database know of what the run has written for a tenant, where that is much."""
        self.bench.retried(self._counted, segment, names)

    def _counted(self, segment: Segment, names: Sequence[str]) -> None:
        bench = self.bench
        with bench.batches.connected() as connection:
            parts = self._parts(connection, segment)
            for name in names:
                written = sum(part.synced + part.applied for part in parts if part.ledger == name)
                if written >= COUNTED_FROM:
                    ledger = bench.binding.ledger(name)
                    count_anew(connection, [ledger.table, ledger.application.__table__])

    def _proof(self, tenant_id: Any) -> Proof:
        bench = self.bench
        with bench.batches.session() as session:
            return proof.verify(session, bench.binding, bench.settings, tenant_id, with_findings="faults")

    def _close(self, segment: Segment, result: Proof, began: float) -> Segment:
        """Put the proof off until what came in late is written, or end with what it found."""
        bench = self.bench
        faults = added_up([{cause.name: cause.count} for account in result.accounts for cause in account.faults])
        faults |= added_up([{finding.name: finding.count} for finding in result.findings if finding.fault])
        missing = {account.ledger for account in result.accounts if any(c.name == "missing" for c in account.faults)}
        late = [self._late(segment, name) for name in bench.scope.ledgers if name in missing]
        with bench.writing() as connection:
            if late and not self._late_parts(connection, segment):
                segments.put_off(connection, bench.binding, segment, late)
                return replace(segment, state="waiting")
            for name in bench.scope.ledgers:
                bench.writer.failures.resolve(connection, bench.binding.ledger(name), segment.tenant_id)
            return bench.saved(connection, segment, began, found=faults, done=True)

    # -- what came in late -----------------------------------------------------------------------------

    def _late(self, segment: Segment, ledger: str) -> Segment:
        settings = self.bench.settings
        size = min(settings.batch_lines_start, settings.batch_lines_max)
        return replace(segment, id=None, kind="late", ledger=ledger, batch_lines=size)

    def _late_parts(self, connection: Connection, segment: Segment) -> list[Segment]:
        return [part for part in self._parts(connection, segment) if part.kind == "late"]

    def _settle_late(self, segment: Segment) -> Segment:
        """Settle the ledgers in which rows came in late."""
        began = time.monotonic()
        bench = self.bench
        with bench.writing() as connection:
            late = [part for part in self._late_parts(connection, segment) if part.synced]
            if not late:
                return segment
            settle_all = bench.writer.settler.settle_all
            applied = sum(settle_all(connection, bench.ledger(part), segment.tenant_id) for part in late)
            return bench.saved(connection, segment, began, applied=applied)
