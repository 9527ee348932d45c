"""Draws what a backfill costs per line as books grow: ``python -m tests.benchmarks.growth OUT.svg FIGURES.json …``.

The files are those that ``python -m tests.benchmarks backfill --json`` writes; each may hold several sizes. It needs
matplotlib (extra ``bench``).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STAGES = ("settling", "verifying")


def per_line(figures: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """For each curve its points: control lines, and microseconds for each of them."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for figure in sorted(figures, key=lambda figure: figure["size"]):
        size = figure["size"]
        seconds = {"bare INSERT … SELECT": figure["against_seconds"], "writing": figure["seconds"]}
        seconds |= {stage: float(figure["more"][stage].removesuffix(" s")) for stage in STAGES}
        for name, taken in seconds.items():
            curves.setdefault(name, []).append((size, taken / size * 1e6))
    return curves


def draw(figures: Sequence[dict[str, Any]], file: Path) -> None:
    """Write the plot."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ledger_sync"  # the same figures draw the same file
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for name, points in per_line(figures).items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name, linestyle="--" if "bare" in name else "-")
    axes.set(xscale="log", xlabel="control lines", ylabel="µs per line", ylim=(0, None))
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    out, *given = map(Path, sys.argv[1:])
    draw([figure for one in given for figure in json.loads(one.read_text())], out)
