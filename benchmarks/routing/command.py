"""`python -m benchmarks routing`: parallel_map with no options against the best way by hand.

Each cell, a workload run one way, has a fresh interpreter. The ways of a workload alternate round
by round, so that a slow minute of the machine hits them all. After the first round only the two
best peers of each call go on, unless they are slower than 1.5 times the best. A peer is cut short
where it takes several times as long as the best known so far, and its second call is left out
where its first was far behind even without its start-up.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import command
from benchmarks.common.launch import Sample, run_module
from benchmarks.routing import accuracy, plot, table
from benchmarks.routing.catalog import all_workloads
from benchmarks.routing.table import Row
from benchmarks.routing.ways import FORCED, LOOP, PARALLAX, PEERS, WAYS
from benchmarks.routing.workloads.definition import Workload, digest

# Smaller drops peers that a noisy machine only made look slow, larger costs minutes.
CONTENDER_FACTOR = 1.5
# Peers kept for each call: with one, a lucky first sample would decide; each more costs minutes.
KEPT_PEERS = 2
# A workload this short costs little and varies much: it gets MORE_ROUNDS times the rounds.
SHORT_WORKLOAD_S = 0.05
MORE_ROUNDS = 3
# A loop takes some seconds where the work is waiting; nothing here takes a minute.
CALL_LIMIT_S = 60.0


def configure(parser: argparse.ArgumentParser) -> None:
    command.configure(parser, kind="workloads", rounds=3)
    names = ", ".join(way.name for way in PEERS)
    parser.add_argument(
        "--peers", metavar="NAME,..", default="", help=f"these peers alone: {names}"
    )
    parser.add_argument(
        "--selfcheck", action="store_true", help="run a few items of each workload in a loop"
    )
    parser.add_argument(
        "--forced", action="store_true", help="run each route of parallax, too, and judge estimates"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw an earlier --json as SVG")


def run(options: argparse.Namespace) -> int:
    """Returns the exit status: 1 with faults, 2 where nothing can be measured."""
    try:
        workloads = _choose(options.only, quick=options.quick)
        peers = command.chosen(options.peers, [way.name for way in PEERS], "peer")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.list:
        for workload in workloads:
            print(f"{workload.name:<20} {workload.family}")
        return 0
    if options.selfcheck:
        return _selfcheck(workloads)
    if options.plot is not None:
        print(plot.draw(options.plot))
        return 0
    if command.missing((), options):
        return 2
    # The loop is always among them: its results are the right ones.
    ways = [way.name for way in PEERS if way.name in peers or way.name == LOOP]
    if not options.peers_only:
        ways += [PARALLAX, *(FORCED if options.forced else ())]
    return _run_all(workloads, ways, options)


def _choose(names: str, *, quick: bool) -> list[Workload]:
    """The workloads that a comma-separated option names, in the order of the catalog.

    Without a name: all, or those of a smoke run.
    """
    workloads = all_workloads()
    wanted = command.chosen(names, [workload.name for workload in workloads], "workload")
    return [
        workload
        for workload in workloads
        if workload.name in wanted and (names or workload.quick or not quick)
    ]


def _run_all(
    workloads: Sequence[Workload], ways: Sequence[str], options: argparse.Namespace
) -> int:
    facts = command.opening(options)
    rounds = command.rounds_of(options)
    print(table.header())
    started = time.perf_counter()
    rows: list[Row] = []
    for workload in workloads:
        row = Row(workload)
        rows.append(row)
        _run_round(row, ways, 0, verbose=options.verbose)
        best = row.best("first")
        factor = MORE_ROUNDS if best and best[1] < SHORT_WORKLOAD_S and rounds > 1 else 1
        for number in range(1, rounds * factor):
            _run_round(row, ways, number, verbose=options.verbose)
        print(table.line(row), flush=True)
        summary = table.summarize(rows) | {"accuracy": accuracy.summarize(rows)}
        command.save(
            options,
            benchmark="routing",
            machine=facts,
            rounds=rounds,
            seconds=round(time.perf_counter() - started, 1),
            summary=summary,
            workloads=[row.to_json() for row in rows],
        )
    print()
    print(table.closing(summary))
    print(*accuracy.lines(summary["accuracy"]), sep="\n")
    print(f"{time.perf_counter() - started:.0f} s in all; {summary['disturbance']}")
    return 1 if summary["faults"] else 0


def _run_round(row: Row, ways: Sequence[str], number: int, *, verbose: bool) -> None:
    if number:
        kept = row.contenders(CONTENDER_FACTOR, KEPT_PEERS)
        ways = [way for way in ways if way in kept or way == PARALLAX]
        if number % 2:
            ways = ways[::-1]
    for way in ways:
        limit, skip_above = _limits(row, way)
        sample = run_module(
            "benchmarks.routing.cell",
            [row.workload.module, row.workload.name, way, repr(skip_above)],
            side=way,
            limit=limit,
        )
        row.samples.append(sample)
        if verbose:
            print(f"  {way:<12} {_sketch(sample)}", file=sys.stderr, flush=True)


def _limits(row: Row, way: str) -> tuple[float, float]:
    """Seconds that each call may take, and of a first call above which there is no second."""
    best = row.best("first")
    if best is None or way.startswith(PARALLAX):
        return CALL_LIMIT_S, CALL_LIMIT_S
    start_up = WAYS[way].start_up
    limit = CALL_LIMIT_S if way == LOOP else 3 * best[1] + 1.0 + start_up
    return limit, CONTENDER_FACTOR * best[1] + start_up


def _sketch(sample: Sample) -> str:
    if sample.status != "ok":
        return f"{sample.status}: {sample.facts.get('error', '')}"
    facts = sample.facts
    second = f"{facts['second']:8.4f}" if "second" in facts else "       -"
    return (
        f"first {facts['first']:8.4f} second {second} cpu {facts['first_cpu']:6.2f} "
        f"peak {facts['peak_mb']:6.0f} MB  {facts.get('route', '')}"
    )


def _selfcheck(workloads: Sequence[Workload]) -> int:
    """A few items of each workload, twice in a loop: the same results, and the expected ones."""
    wrong = 0
    for workload in workloads:
        function, items = workload.setup()
        some = items[: workload.checked]
        started = time.perf_counter()
        found = digest([function(item) for item in some])
        seconds = time.perf_counter() - started
        again = digest([function(item) for item in some])
        if found != again:
            verdict = f"WRONG: {found}, then {again}"
        elif workload.expected not in (None, found):
            verdict = f"WRONG: {found} instead of {workload.expected}"
        else:
            verdict = f"ok {found}" + ("" if workload.expected else " (depends on a library)")
        wrong += verdict.startswith("WRONG")
        shown = f"{len(some)} of {len(items)} items in {seconds:.3f} s"
        print(f"{workload.name:<20} {shown:<36} {verdict}", flush=True)
    print(f"{len(workloads)} workloads, {wrong} wrong")
    return 1 if wrong else 0
