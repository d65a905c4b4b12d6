"""Takes the samples of a table round by round, prints it, and keeps every sample as JSON.

Each sample has a fresh interpreter. The sides of a cell alternate round by round, and change
their order every second round, so that a slow minute of the machine hits them all. Rows that come
from the same work share their samples.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._figures import Row, Samples, Table, faults, result
from ._launch import Sample, compile_package, run_module
from ._machine_facts import machine_facts
from ._table import describe_shares
from ._usage import machine_cpu


@dataclass(frozen=True)
class Benchmark:
    """A command that fills a table.

    Args:
        name: of the command.
        table: its rows.
        module: takes a sample, run as `python -m MODULE CELL SIDE SIZE BUSY TOTAL`.
        ours: the sides that are parallax.
        limit: seconds that a sample may take; a pool that hangs must not take more of the run.
    """

    name: str
    table: Table
    module: str
    ours: tuple[str, ...]
    limit: float


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", metavar="NAME,..", default="", help="these rows alone")
    parser.add_argument("--rounds", type=int, metavar="N", help="default 5, with --quick 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--quick", action="store_true", help="a smoke run: one round, less work")
    parser.add_argument("--peers-only", action="store_true", help="leave parallax out")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="print the table of an earlier --json"
    )
    parser.add_argument("--verbose", action="store_true", help="print every sample")


def run(benchmark: Benchmark, options: argparse.Namespace) -> int:
    """Returns the exit status: 1 with faults, 2 where nothing can be measured."""
    table = benchmark.table
    if options.markdown is not None:
        print(table.markdown(json.loads(options.markdown.read_text())))
        return 0
    try:
        rows = table.choose([n.strip() for n in options.only.split(",") if n.strip()])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.list:
        for row in rows:
            print(f"{row.name:<12} {row.what}, against {row.against}")
        return 0
    if os.name != "posix":
        print("the peers need fork and forkserver, which this system lacks", file=sys.stderr)
        return 2
    if not options.peers_only and importlib.util.find_spec("parallax") is None:
        print(
            "parallax is not installed here: pip install -e . or use --peers-only", file=sys.stderr
        )
        return 2
    compile_package("parallax")
    rounds = options.rounds or (1 if options.quick else 5)
    return _run_all(benchmark, rows, rounds, options)


def _run_all(
    benchmark: Benchmark, rows: Sequence[Row], rounds: int, options: argparse.Namespace
) -> int:
    table = benchmark.table
    facts = machine_facts()
    size = ", a quick run" if options.quick else ""
    print(f"{facts['cores']} cores, Python {facts['python']}, {rounds} rounds, medians{size}")
    print(table.header())
    started = time.perf_counter()
    samples: Samples = {}
    results: list[dict[str, Any]] = []
    for row in rows:
        for cell in row.cells():
            if cell not in samples:
                samples[cell] = _run_cell(benchmark, cell, rounds, options)
        results.append(result(row, samples))
        print(table.lines(results[-1]), flush=True)
        content = {
            "benchmark": benchmark.name,
            "machine": facts,
            "rounds": rounds,
            "quick": options.quick,
            "seconds": round(time.perf_counter() - started, 1),
            "disturbance": _disturbance(samples),
            "faults": faults(samples),
            "rows": results,
            "samples": {
                cell: [{"side": s.way, "status": s.status, **s.facts} for s in taken]
                for cell, taken in samples.items()
            },
        }
        if options.json is not None:  # after each, so that an interrupted run keeps what it has
            options.json.write_text(json.dumps(content, indent=1) + "\n")
    print()
    for fault in content["faults"]:
        print(f"FAULT {fault}")
    reached = [found["reached"] for found in results if found["reached"] is not None]
    print(f"{reached.count(True)} goals reached of {len(reached)} compared")
    print(f"{time.perf_counter() - started:.0f} s in all; {content['disturbance']}")
    return 1 if content["faults"] else 0


def _run_cell(
    benchmark: Benchmark, name: str, rounds: int, options: argparse.Namespace
) -> list[Sample]:
    cell = benchmark.table.cell(name)
    sides = [side for side in cell.sides if not (options.peers_only and side in benchmark.ours)]
    samples: list[Sample] = []
    for number in range(rounds * (1 if options.quick else cell.more)):
        for side in reversed(sides) if number % 2 else sides:
            busy, total = machine_cpu()
            size = "quick" if options.quick else "full"
            sample = run_module(
                benchmark.module,
                [name, side, size, repr(busy), repr(total)],
                way=side,
                limit=benchmark.limit,
            )
            samples.append(sample)
            if options.verbose:
                print(f"  {name} {side} {sample.status} {sample.facts}", file=sys.stderr)
            # A side that hangs once hangs again, for a minute each time; an error may be chance.
            failed = sum(s.way == side and s.status != "ok" for s in samples)
            if sample.status == "slow" or failed > 1:
                sides = [other for other in sides if other != side]
    return samples


def _disturbance(samples: Samples) -> str:
    return describe_shares(
        [s.facts["others"] for taken in samples.values() for s in taken if "others" in s.facts]
    )
