"""What a run reports while it works, and when it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict, Field


class AllTenants:
    """The type of ``ALL_TENANTS``."""

    def __repr__(self) -> str:
        return "ALL_TENANTS"


ALL_TENANTS: Final = AllTenants()
"""Given as ``tenant_id``, it means every tenant's books. Nothing means it by default."""


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True)


class Progress(_Result):
    """One whole snapshot of a run, sent after a commit.

    ``processed`` and ``total`` count control lines; ``percent`` is 100 only when the run is done.
    ``skipped`` counts lines without an open item by reason.
    """

    sequence: int
    stage: str
    stage_index: int
    stage_count: int
    processed: int
    total: int
    percent: float
    synced: int
    skipped: Mapping[str, int]
    elapsed_seconds: float
    state: str


class StageReport(_Result):
    """The counts of one stage: control lines seen, rows written, applications appended, lines skipped by reason.

    A repair counts as processed what it found wrong, by what it is in ``found``, and what it took away in ``removed``.
    """

    stage: str
    processed: int = 0
    synced: int = 0
    removed: int = 0
    applied: int = 0
    skipped: Mapping[str, int] = Field(default_factory=dict)
    found: Mapping[str, int] = Field(default_factory=dict)


class RunReport(_Result):
    """What a run did. ``synced`` counts the rows that it wrote; rows that were there are not counted.

    ``clean``: whether the proof that a repair takes at its end is clean; null for a backfill, which takes none.
    """

    state: str
    dry_run: bool
    stages: tuple[StageReport, ...]
    elapsed_seconds: float
    clean: bool | None = None

    @property
    def processed(self) -> int:
        """Control lines seen."""
        return sum(stage.processed for stage in self.stages)

    @property
    def synced(self) -> int:
        """Rows written."""
        return sum(stage.synced for stage in self.stages)

    @property
    def applied(self) -> int:
        """Applications appended."""
        return sum(stage.applied for stage in self.stages)

    @property
    def skipped(self) -> dict[str, int]:
        """Lines without an open item, by reason."""
        counts: dict[str, int] = {}
        for stage in self.stages:
            for reason, count in stage.skipped.items():
                counts[reason] = counts.get(reason, 0) + count
        return counts


OnProgress = Callable[[Progress], object]
