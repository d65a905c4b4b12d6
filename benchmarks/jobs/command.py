"""`python -m benchmarks jobs`: no job of a second or less may be slower than the plain loop.

A job is what a program does with an everyday package: everything is imported before the clock
starts, an item takes one to a few milliseconds, all of them 0.1 to 0.4 s. Each sample has a fresh
interpreter, as in the routing benchmark. The loop and parallax run in every round; of the other
ways the two best of the first round go on.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.common import command
from benchmarks.common.launch import run_module
from benchmarks.jobs.catalog import WORKLOADS
from benchmarks.routing.command import CALL_LIMIT_S, CONTENDER_FACTOR, KEPT_PEERS
from benchmarks.routing.table import Row
from benchmarks.routing.ways import LOOP, PARALLAX

PEERS = ("processes-n", "threads-32", "threads-2", "processes-1")
# What is promised: so many times the loop's time, and so many seconds for looking at the job.
PROMISED_FACTOR, PROMISED_S = 1.05, 0.003

_TITLES = (
    "job",
    "loop s",
    "CPU s",
    "best by hand",
    "s",
    "parallax s",
    "CPU s",
    "route",
    "/loop",
    "/best",
    "promise",
)
_WIDTHS = (20, 8, 7, 13, 8, 11, 7, 20, 6, 6, 8)
_LEFT = (0, 3, 7)


def configure(parser: argparse.ArgumentParser) -> None:
    command.configure(parser, kind="jobs", rounds=5)
    parser.add_argument("--loop-only", action="store_true", help="compare with the loop alone")


def run(options: argparse.Namespace) -> int:
    """Returns the exit status: 1 with faults, 2 where nothing can be measured."""
    try:
        names = command.chosen(options.only, [job.name for job in WORKLOADS], "job")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.list:
        for job in WORKLOADS:
            print(f"{job.name:<20} {job.family}")
        return 0
    if command.missing((), options):
        return 2
    facts = command.opening(options)
    print(command.underlined(command.aligned(_TITLES, _WIDTHS, _LEFT)))
    started = time.perf_counter()
    rows: list[Row] = []
    for job in WORKLOADS:
        if job.name not in names:
            continue
        row = Row(job)
        rows.append(row)
        for number in range(command.rounds_of(options)):
            _run_round(row, number, options)
        print(_line(row), flush=True)
        command.save(
            options,
            benchmark="jobs",
            machine=facts,
            rounds=command.rounds_of(options),
            seconds=round(time.perf_counter() - started, 1),
            summary=_summary(rows),
            jobs=[row.to_json() for row in rows],
        )
    found = _summary(rows)
    print()
    for against in ("loop", "best"):
        if found[against]:
            print(f"parallax over the {against}: geometric mean {found[against]:.3f}")
    print(f"slower than promised: {', '.join(found['slower']) or 'none'} of {len(rows)} jobs")
    for fault in found["faults"]:
        print(f"FAULT {fault}")
    disturbance = command.disturbance(sample for row in rows for sample in row.samples)
    print(f"{time.perf_counter() - started:.0f} s in all; {disturbance}")
    return 1 if found["faults"] else 0


def _run_round(row: Row, number: int, options: argparse.Namespace) -> None:
    peers = [] if options.loop_only else list(PEERS)
    if number:
        kept = row.contenders(CONTENDER_FACTOR, KEPT_PEERS)
        peers = [way for way in peers if way in kept]
    ways = [*peers, LOOP, *([] if options.peers_only else [PARALLAX])]
    for way in ways[::-1] if number % 2 else ways:
        # Without a second call.
        cell = ["benchmarks.jobs.catalog", row.workload.name, way, "0.0"]
        sample = run_module("benchmarks.routing.cell", cell, side=way, limit=CALL_LIMIT_S)
        row.samples.append(sample)
        if options.verbose:
            print(f"  {way:<12} {sample.status} {sample.facts}", file=sys.stderr, flush=True)


def over(row: Row, peer: str | None) -> float | None:
    """Parallax's median over that of a peer."""
    ours, theirs = row.median(PARALLAX, "first"), row.median(peer, "first") if peer else None
    return ours / theirs if ours and theirs else None


def keeps_promise(row: Row) -> bool | None:
    ours, loop = row.median(PARALLAX, "first"), row.median(LOOP, "first")
    return None if ours is None or loop is None else ours <= PROMISED_FACTOR * loop + PROMISED_S


def _cpu(row: Row, way: str) -> float | None:
    spent = [s.facts["first_cpu"] for s in row.samples if s.side == way and s.status == "ok"]
    return statistics.median(spent) if spent else None


def _line(row: Row) -> str:
    best = row.best("first")
    seconds = [
        row.median(LOOP, "first"),
        _cpu(row, LOOP),
        best[1] if best else None,
        row.median(PARALLAX, "first"),
        _cpu(row, PARALLAX),
    ]
    loop, cpu, by_hand, ours, our_cpu = ["-" if s is None else f"{s:.3f}" for s in seconds]
    ratios = [over(row, LOOP), over(row, best[0] if best else None)]
    shown = ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
    kept = {None: "-", True: "kept", False: "broken"}[keeps_promise(row)]
    texts = (row.workload.name, loop, cpu, best[0] if best else "-", by_hand, ours, our_cpu)
    return command.aligned((*texts, row.route(), *shown, kept), _WIDTHS, _LEFT)


def _summary(rows: Sequence[Row]) -> dict[str, Any]:
    bests = {row.workload.name: (row.best("first") or (None,))[0] for row in rows}
    return {
        "loop": _mean([over(row, LOOP) for row in rows]),
        "best": _mean([over(row, bests[row.workload.name]) for row in rows]),
        "slower": [row.workload.name for row in rows if keeps_promise(row) is False],
        "faults": [fault for row in rows for fault in row.faults()],
    }


def _mean(ratios: Sequence[float | None]) -> float | None:
    found = [ratio for ratio in ratios if ratio]
    return math.exp(statistics.fmean(map(math.log, found))) if found else None
