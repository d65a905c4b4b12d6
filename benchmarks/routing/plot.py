"""Draws what a run has measured: each workload, each way, on a logarithmic scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.routing.ways import FORCED, LOOP, PARALLAX


def draw(path: Path) -> Path:
    """Draw an earlier ``--json`` into an SVG file beside it; returns its path.

    Raises:
        ImportError: matplotlib is missing.
    """
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "parallax"  # the same file for the same figures
    from matplotlib import pyplot as plt

    found = json.loads(path.read_text())
    rows = sorted(found["workloads"], key=lambda row: row["ratio"]["first"] or 0.0)
    figure, axes = plt.subplots(figsize=(9, 0.24 * len(rows) + 1.5))
    ways = list(dict.fromkeys(way for row in rows for way in row["medians"] if way not in FORCED))
    for way in sorted(ways, key=lambda way: way == PARALLAX):  # it lies on top
        points = [(_share(row, way), height) for height, row in enumerate(rows)]
        shown = [(share, height) for share, height in points if share is not None]
        ours = way == PARALLAX
        axes.plot(
            *zip(*shown, strict=True),
            "D" if ours else "|" if way == LOOP else "o",
            color="black" if ours else None,
            label=way,
            markersize=6 if ours else 9 if way == LOOP else 4,
            alpha=1.0 if ours else 0.7,
        )
    axes.axvline(1.0, color="grey", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=8)
    axes.set_xlabel("first call: time over that of the best way by hand (log scale)")
    axes.grid(visible=True, axis="both", alpha=0.2)
    axes.legend(fontsize=8, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    target = path.with_suffix(".svg")
    figure.savefig(target, bbox_inches="tight", metadata={"Date": None})
    return target


def _share(row: dict[str, Any], way: str) -> float | None:
    best, median = row["best"]["first"], row["medians"].get(way)
    if not best or not median or not median["first"]:
        return None
    return float(median["first"] / best[1])
