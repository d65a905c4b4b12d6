"""From samples to figures: medians, ratios, the printed table and the JSON.

The ratio of a workload is the median of parallax over the smallest median of the ways that gave
the loop's results. Samples that are missing or wrong never count for a peer; a workload where
parallax itself failed has no ratio, and is named.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.common.command import aligned, disturbance, underlined
from benchmarks.common.launch import Sample
from benchmarks.routing.ways import LOOP, PARALLAX
from benchmarks.routing.workloads.definition import Workload

Phase = str  # "first" or "second"
PHASES: tuple[Phase, ...] = ("first", "second")


@dataclass
class Row:
    """All samples of one workload."""

    workload: Workload
    samples: list[Sample] = field(default_factory=list)

    def median(self, way: str, phase: Phase) -> float | None:
        seconds = [
            sample.facts[phase]
            for sample in self.samples
            if sample.side == way and self.is_right(sample) and phase in sample.facts
        ]
        return statistics.median(seconds) if seconds else None

    def is_right(self, sample: Sample) -> bool:
        """Measured to the end, with the results of the loop on each call."""
        if sample.status != "ok":
            return False
        expected = self._loop_digest()
        return expected is None or all(
            sample.facts[key] == expected
            for key in ("digest", "second_digest")
            if key in sample.facts
        )

    def _loop_digest(self) -> str | None:
        for sample in self.samples:
            if sample.side == LOOP and sample.status == "ok":
                digest: str = sample.facts["digest"]
                return digest
        return None

    def ways(self) -> list[str]:
        return list(dict.fromkeys(sample.side for sample in self.samples))

    def best(self, phase: Phase) -> tuple[str, float] | None:
        """The fastest peer and its median."""
        ranking = self.ranking(phase)
        if not ranking:
            return None
        seconds, way = ranking[0]
        return way, seconds

    def ratio(self, phase: Phase) -> float | None:
        best, ours = self.best(phase), self.median(PARALLAX, phase)
        return ours / best[1] if best and ours is not None else None

    def ranking(self, phase: Phase) -> list[tuple[float, str]]:
        """Medians of the peers, the fastest first."""
        return sorted(
            (seconds, way)
            for way in self.ways()
            if not way.startswith(PARALLAX) and (seconds := self.median(way, phase)) is not None
        )

    def contenders(self, within: float, number: int) -> set[str]:
        """The `number` best peers of each call, less those behind the best by a factor."""
        kept: set[str] = set()
        for phase in PHASES:
            ranking = self.ranking(phase)
            kept.update(
                way for seconds, way in ranking[:number] if seconds <= within * ranking[0][0]
            )
        return kept

    def route(self) -> str:
        routes = [
            sample.facts["route"]
            for sample in self.samples
            if sample.side == PARALLAX and "route" in sample.facts
        ]
        return " ".join(dict.fromkeys(routes)) or "-"

    def faults(self) -> list[str]:
        """What is wrong with parallax here, in words."""
        found = []
        for sample in self.samples:
            if sample.side != PARALLAX:
                continue
            if sample.status != "ok":
                found.append(f"{sample.status}: {sample.facts.get('error', '')}")
            elif not self.is_right(sample):
                found.append("its results are not the loop's")
            elif sample.facts["exit"] is None:
                found.append("its interpreter does not end")
        return [f"{self.workload.name}: {text}" for text in dict.fromkeys(found)]

    def to_json(self) -> dict[str, Any]:
        ways: dict[str, list[dict[str, Any]]] = {}
        for sample in self.samples:
            fact = {"status": sample.status, "right": self.is_right(sample), **sample.facts}
            ways.setdefault(sample.side, []).append(fact)
        return {
            "name": self.workload.name,
            "family": self.workload.family,
            "route": self.route(),
            "medians": {
                way: {phase: self.median(way, phase) for phase in PHASES} for way in self.ways()
            },
            "best": {phase: self.best(phase) for phase in PHASES},
            "ratio": {phase: self.ratio(phase) for phase in PHASES},
            "samples": ways,
        }


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Geometric mean and worst ratio of each call; None where nothing was compared."""
    summary: dict[str, Any] = {}
    for phase in PHASES:
        ratios = [(ratio, row.workload.name) for row in rows if (ratio := row.ratio(phase))]
        if not ratios:
            summary[phase] = None
            continue
        mean = math.exp(statistics.fmean(math.log(ratio) for ratio, _ in ratios))
        worst, where = max(ratios)
        above = {limit: sum(ratio > limit for ratio, _ in ratios) for limit in (1.15, 2.0)}
        summary[phase] = {
            "workloads": len(ratios),
            "geometric_mean": mean,
            "worst": worst,
            "worst_workload": where,
            "above_1.15": above[1.15],
            "above_2": above[2.0],
        }
    summary["disturbance"] = disturbance(sample for row in rows for sample in row.samples)
    summary["faults"] = [fault for row in rows for fault in row.faults()]
    return summary


_TITLES = (
    *("workload", "loop s", "best by hand", "s", "parallax s", "route"),
    *("ratio 1st", "best 2nd", "s", "ratio 2nd"),
)
_WIDTHS = (20, 8, 13, 7, 11, 20, 10, 13, 7, 10)
_LEFT = (0, 2, 5, 7)


def header() -> str:
    return underlined(aligned(_TITLES, _WIDTHS, _LEFT))


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}"


def line(row: Row) -> str:
    first, second = row.best("first"), row.best("second")
    ratios = [row.ratio(phase) for phase in PHASES]
    shown = ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
    return aligned(
        (
            row.workload.name,
            _seconds(row.median(LOOP, "first")),
            first[0] if first else "-",
            _seconds(first[1] if first else None),
            _seconds(row.median(PARALLAX, "first")),
            row.route(),
            shown[0],
            second[0] if second else "-",
            _seconds(second[1] if second else None),
            shown[1],
        ),
        _WIDTHS,
        _LEFT,
    )


def closing(summary: dict[str, Any]) -> str:
    """The last lines of the table, of what `summarize` found."""
    lines = []
    for phase in PHASES:
        figures = summary[phase]
        if figures is None:
            continue
        lines.append(
            f"{phase} call: geometric mean {figures['geometric_mean']:.3f} over "
            f"{figures['workloads']} workloads; worst {figures['worst']:.2f} "
            f"({figures['worst_workload']}); above 1.15: {figures['above_1.15']}, "
            f"above 2: {figures['above_2']}"
        )
    lines += [f"FAULT {fault}" for fault in summary["faults"]]
    return "\n".join(lines) or "nothing was compared"
