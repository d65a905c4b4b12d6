"""`python -m benchmarks schedule`: how close the scheduler comes to a perfect schedule.

Simulated, not timed (see `simulation`): the real scheduler hands out items whose times are drawn
beforehand, and the length of the run is divided by what no schedule at all can beat. The cells:

- 8 workers are a desktop, 64 a server: items of 1 ms, 20 ms and 100 ms, runs of 2 s, 10 s and 30 s
  on each worker. Much shorter runs are not worth starting processes for; much longer ones flatter.
- 1024 workers are the largest machines there are, or several: one thread that pickles about a
  million items a second cannot feed them items of 1 ms, with any schedule: it is left out.
  Items of 20 ms and 100 ms, and runs of 30 s; starting as many processes takes over a second.
- The number of items is no multiple of the workers.

Beside each ratio stands that of "free": single items in order, handed out at no cost. What it loses
is the price of not knowing the item times, and no scheduler of this kind can have it back. Cells
below the line (`hard`) show where that price is high: they are not in the mean.

With `--real`: what dispatching costs the parent with up to 64 real processes.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common.machine import machine_facts
from benchmarks.schedule import dispatch
from benchmarks.schedule.simulation import ANSWERS, Costs, Simulation, free_of_charge, ideal
from parallax._run.chunk_flow import CHUNK_TARGET_S, CHUNKS_HELD

Draw = Callable[[random.Random, int, float], list[float]]

GEOMETRIC_GOAL, WORST_GOAL = 1.05, 1.25
REAL_WORKERS = (1, 2, 4, 8, 16, 32, 64)


def even(_: random.Random, count: int, mean: float) -> list[float]:
    return [mean] * count


def exponential(source: random.Random, count: int, mean: float) -> list[float]:
    return [source.expovariate(1 / mean) for _ in range(count)]


def lognormal(source: random.Random, count: int, mean: float, sigma: float = 1.0) -> list[float]:
    """With sigma 1 one item in a hundred takes six times the mean; with 2, fourteen times."""
    shift = math.log(mean) - sigma**2 / 2
    return [source.lognormvariate(shift, sigma) for _ in range(count)]


def heavy_lognormal(source: random.Random, count: int, mean: float) -> list[float]:
    return lognormal(source, count, mean, 2.0)


def decreasing(_: random.Random, count: int, mean: float) -> list[float]:
    """From twice the mean to nothing, like the rows of a triangle."""
    return [2 * mean * (count - i - 0.5) / count for i in range(count)]


def fast_then_slow(_: random.Random, count: int, mean: float) -> list[float]:
    """The second half takes a hundred times as long as the first."""
    fast = 2 * mean / 101
    return [fast if i < count // 2 else 100 * fast for i in range(count)]


def rare_huge(source: random.Random, count: int, mean: float) -> list[float]:
    """One in a hundred takes a hundred times as long as the others: 50 times the mean."""
    short = mean / 1.99
    return [100 * short if source.random() < 0.01 else short for _ in range(count)]


SHAPES: dict[str, Draw] = {
    "even": even,
    "exponential": exponential,
    "lognormal": lognormal,
    "decreasing": decreasing,
    "fast-slow": fast_then_slow,
    "rare-huge": rare_huge,
}
HARD_SHAPES: dict[str, Draw] = {"lognormal 2": heavy_lognormal, "rare-huge": rare_huge}
RANDOM_SHAPES = (exponential, lognormal, heavy_lognormal, rare_huge)


class Scenario(NamedTuple):
    """One row of cells: workers, mean seconds per item, items per worker."""

    workers: int
    mean: float
    each: int


SCENARIOS = (
    Scenario(8, 0.001, 2000),
    Scenario(8, 0.02, 500),
    Scenario(8, 0.1, 300),
    Scenario(64, 0.001, 2000),
    Scenario(64, 0.02, 500),
    Scenario(64, 0.1, 300),
    Scenario(1024, 0.02, 1500),
    Scenario(1024, 0.1, 300),
)
#: Runs so short that one item can be a large part of them.
SHORT_SCENARIOS = (
    Scenario(8, 0.001, 250),
    Scenario(8, 0.1, 50),
    Scenario(64, 0.02, 100),
    Scenario(1024, 0.1, 50),
)
QUICK_SCENARIOS = (Scenario(8, 0.001, 1000), Scenario(8, 0.02, 250), Scenario(64, 0.02, 250))


def configure(parser: argparse.ArgumentParser) -> None:
    costs = Costs()
    parser.add_argument("--seeds", type=int, metavar="N", help="per random cell; default 3")
    parser.add_argument(
        "--answer",
        choices=ANSWERS,
        default="signal",
        help="how workers give items back: at once (Linux), when an item ends, or not at all",
    )
    for name, value in asdict(costs).items():
        what = f"microseconds; default {value * 1e6:g}"
        parser.add_argument(f"--{name}", type=float, metavar="US", default=value * 1e6, help=what)
    parser.add_argument("--hard", action="store_true", help="the cells below the line as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every cell there")
    parser.add_argument("--quick", action="store_true", help="few and short cells, one seed")
    parser.add_argument("--real", action="store_true", help="real processes instead")
    parser.add_argument("--rounds", type=int, default=3, help="with --real; default 3")


def run(options: argparse.Namespace) -> int:
    if options.real:
        return _run_real(options)
    costs = Costs(**{name: getattr(options, name) / 1e6 for name in asdict(Costs())})
    seeds = options.seeds or (1 if options.quick else 3)
    spent = ", ".join(f"{name} {value * 1e6:g}" for name, value in asdict(costs).items())
    print(f"items are given back: {options.answer}; {seeds} seeds, medians; costs in us: {spent}")
    print("makespan / ideal, and in brackets single items in order at no cost")
    cells = _table(
        QUICK_SCENARIOS if options.quick else SCENARIOS, SHAPES, seeds, options.answer, costs
    )
    ratios = [cell["ratio"] for cell in cells]
    mean, worst = math.exp(statistics.fmean(map(math.log, ratios))), max(ratios)
    busiest = max(cell["busy"] for cell in cells)
    print(f"geometric mean {mean:.3f} (goal <= {GEOMETRIC_GOAL})", end=", ")
    print(f"worst {worst:.3f} (goal <= {WORST_GOAL}), master busy at most {busiest:.0%}")
    hard: list[dict[str, Any]] = []
    if options.hard:
        print("\nhard, and not in the mean: short runs, and heavier tails")
        hard = _table(
            (*SHORT_SCENARIOS, *SCENARIOS[1:-1:2]), HARD_SHAPES, seeds, options.answer, costs
        )
    if options.json is not None:
        content = {
            "benchmark": "schedule",
            "answer": options.answer,
            "seeds": seeds,
            "costs_us": {name: value * 1e6 for name, value in asdict(costs).items()},
            "geometric_mean": round(mean, 4),
            "worst": round(worst, 4),
            "cells": cells,
            "hard": hard,
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0 if mean <= GEOMETRIC_GOAL and worst <= WORST_GOAL else 1


def _table(
    scenarios: Sequence[Scenario], shapes: dict[str, Draw], seeds: int, answer: str, costs: Costs
) -> list[dict[str, Any]]:
    print(f"{'workers':>8}{'mean':>8}{'each':>6}", *(f"{name:>14}" for name in shapes), sep="")
    cells = []
    for scenario in scenarios:
        print(
            f"{scenario.workers:>8}{scenario.mean * 1e3:>5g} ms{scenario.each:>6}",
            end="",
            flush=True,
        )
        for name, draw in shapes.items():
            cell = _cell(scenario, name, draw, seeds if draw in RANDOM_SHAPES else 1, answer, costs)
            cells.append(cell)
            print(f"{cell['ratio']:>7.3f} ({cell['free']:.2f})", end="", flush=True)
        print()
    return cells


def _cell(
    scenario: Scenario, shape: str, draw: Draw, seeds: int, answer: str, costs: Costs
) -> dict[str, Any]:
    ratios, free, runs = [], [], []
    for seed in range(seeds):
        source = random.Random(f"{scenario}{shape}{seed}")
        times = draw(
            source, scenario.workers * scenario.each + scenario.workers // 3, scenario.mean
        )
        simulation = Simulation(
            times,
            scenario.workers,
            depth=CHUNKS_HELD["processes"],
            target=CHUNK_TARGET_S["processes"],
            costs=costs,
            answer=answer,
        )
        runs.append(simulation.run())
        bound = ideal(times, scenario.workers)
        ratios.append(runs[-1].makespan / bound)
        free.append(free_of_charge(times, scenario.workers) / bound)
    return {
        "workers": scenario.workers,
        "mean_ms": scenario.mean * 1e3,
        "items_per_worker": scenario.each,
        "shape": shape,
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "free": round(statistics.median(free), 4),
        "busy": round(statistics.median(run.busy / run.makespan for run in runs), 4),
        "chunks": statistics.median(run.chunks for run in runs),
        "recalls": statistics.median(run.recalls for run in runs),
        "ticks": statistics.median(run.ticks for run in runs),
    }


def _run_real(options: argparse.Namespace) -> int:
    facts = machine_facts()
    print(f"{facts['cores']} cores, Python {facts['python']}, {options.rounds} rounds, medians")
    started = time.perf_counter()
    counts = (1, 4, 16) if options.quick else REAL_WORKERS
    naps = 16 if options.quick else 64
    rows = [dispatch.row(count, 1 if options.quick else options.rounds, naps) for count in counts]
    print("\n".join(dispatch.lines(rows)))
    if options.json is not None:
        content = {"benchmark": "schedule --real", "machine": facts, "rows": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{time.perf_counter() - started:.0f} s in all")
    return 0
