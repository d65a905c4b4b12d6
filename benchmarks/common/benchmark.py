"""Takes the samples of a table round by round, prints it, and keeps every sample as JSON.

Each sample has a fresh interpreter. The sides of a cell alternate round by round, and change
their order every second round, so that a slow minute of the machine hits them all. Rows that come
from the same work share their samples.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import command
from benchmarks.common.figures import Samples, Table, faults, result
from benchmarks.common.launch import Sample, run_module
from benchmarks.common.usage import machine_cpu


@dataclass(frozen=True)
class Benchmark:
    """A command that fills a table.

    Args:
        name: of the command; its measures are `MEASURES` in `benchmarks.NAME.measures`.
        table: its rows.
        ours: the sides that are parallax.
        limit: seconds that a sample may take; a pool that hangs must not take more of the run.
        libraries: what it needs besides parallax.
    """

    name: str
    table: Table
    ours: tuple[str, ...]
    limit: float
    libraries: tuple[str, ...] = ()

    def configure(self, parser: argparse.ArgumentParser) -> None:
        command.configure(parser, kind="rows", rounds=5)
        parser.add_argument(
            "--markdown", type=Path, metavar="FILE", help="print the table of an earlier --json"
        )

    def run(self, options: argparse.Namespace) -> int:
        """Returns the exit status: 1 with faults, 2 where nothing can be measured."""
        if options.markdown is not None:
            print(self.table.markdown(json.loads(options.markdown.read_text())))
            return 0
        try:
            names = command.chosen(options.only, [row.name for row in self.table.rows], "row")
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        rows = [row for row in self.table.rows if row.name in names]
        if options.list:
            for row in rows:
                print(f"{row.name:<12} {row.what}, against {row.against}")
            return 0
        if os.name != "posix":
            print("the peers need fork and forkserver, which this system lacks", file=sys.stderr)
            return 2
        if command.missing(self.libraries, options):
            return 2
        facts = command.opening(options)
        print(self.table.header())
        started = time.perf_counter()
        samples: Samples = {}
        results: list[dict[str, Any]] = []
        for row in rows:
            for cell in row.cells():
                if cell not in samples:
                    samples[cell] = self._run_cell(cell, options)
            results.append(result(row, samples))
            print(self.table.lines(results[-1]), flush=True)
            disturbance = command.disturbance(s for taken in samples.values() for s in taken)
            command.save(
                options,
                benchmark=self.name,
                machine=facts,
                rounds=command.rounds_of(options),
                quick=options.quick,
                seconds=round(time.perf_counter() - started, 1),
                disturbance=disturbance,
                faults=faults(samples),
                rows=results,
                samples={
                    cell: [{"side": s.side, "status": s.status, **s.facts} for s in taken]
                    for cell, taken in samples.items()
                },
            )
        print()
        for fault in faults(samples):
            print(f"FAULT {fault}")
        reached = [found["reached"] for found in results if found["reached"] is not None]
        print(f"{reached.count(True)} goals reached of {len(reached)} compared")
        print(f"{time.perf_counter() - started:.0f} s in all; {disturbance}")
        return 1 if faults(samples) else 0

    def _run_cell(self, name: str, options: argparse.Namespace) -> list[Sample]:
        cell = self.table.cell(name)
        sides = [side for side in cell.sides if not (options.peers_only and side in self.ours)]
        size = "quick" if options.quick else "full"
        samples: list[Sample] = []
        for number in range(command.rounds_of(options) * (1 if options.quick else cell.more)):
            for side in reversed(sides) if number % 2 else sides:
                busy, total = machine_cpu()
                measures = f"benchmarks.{self.name}.measures"
                sample = run_module(
                    "benchmarks.common.cell",
                    [measures, name, side, size, repr(busy), repr(total)],
                    side=side,
                    limit=self.limit,
                )
                samples.append(sample)
                if options.verbose:
                    print(f"  {name} {side} {sample.status} {sample.facts}", file=sys.stderr)
                # A side that hangs once hangs again, for a minute each time; an error may be
                # chance.
                failed = sum(s.side == side and s.status != "ok" for s in samples)
                if sample.status == "slow" or failed > 1:
                    sides = [other for other in sides if other != side]
        return samples
