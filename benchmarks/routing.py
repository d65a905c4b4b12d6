"""`python -m benchmarks routing`: parallel_map with no options against the best way by hand.

Each cell, a workload run one way, has a fresh interpreter. The ways of a workload alternate round
by round, so that a slow minute of the machine hits them all. After the first round only the two
best peers of each call go on, unless they are slower than 1.5 times the best. A peer is cut short
where it takes several times as long as the best known so far, and its second call is left out
where its first was far behind even without its start-up.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import _table
from ._catalog import choose
from ._launch import Sample, compile_package, run_cell
from ._machine_facts import machine_facts
from ._table import Row
from ._ways import LOOP, PARALLAX, PEERS, WAYS
from ._workloads._define import Workload, digest

# Smaller drops peers that a noisy machine only made look slow, larger costs minutes.
STILL_IN_THE_RACE = 1.5
# Peers kept for each call: with one, a lucky first sample would decide; each more costs minutes.
KEPT = 2
# A workload this short costs little and varies much: it gets MORE_ROUNDS times the rounds.
SHORT = 0.05
MORE_ROUNDS = 3
# A loop takes some seconds where the work is waiting; nothing here takes a minute.
LONGEST = 60.0


def configure(parser: argparse.ArgumentParser) -> None:
    names = [way.name for way in PEERS]
    parser.add_argument("--only", metavar="NAME,..", default="", help="these workloads alone")
    parser.add_argument("--rounds", type=int, metavar="N", help="default 3, with --quick 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--quick", action="store_true", help="a smoke run: one round, few")
    parser.add_argument(
        "--peers", metavar="NAME,..", default="", help=f"these peers alone: {', '.join(names)}"
    )
    parser.add_argument("--peers-only", action="store_true", help="leave parallax out")
    parser.add_argument("--list", action="store_true", help="name the workloads and stop")
    parser.add_argument(
        "--selfcheck", action="store_true", help="run a few items of each workload in a loop"
    )
    parser.add_argument("--verbose", action="store_true", help="print every sample")


def run(options: argparse.Namespace) -> int:
    try:
        workloads = choose(_names(options.only), quick=options.quick)
        peers = _choose_peers(_names(options.peers))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.list:
        for workload in workloads:
            print(f"{workload.name:<20} {workload.family}")
        return 0
    if options.selfcheck:
        return _selfcheck(workloads)
    rounds = options.rounds or (1 if options.quick else 3)
    if not options.peers_only and importlib.util.find_spec("parallax") is None:
        print(
            "parallax is not installed here: pip install -e . or use --peers-only", file=sys.stderr
        )
        return 2
    compile_package("parallax")
    ways = [*peers, *([] if options.peers_only else [PARALLAX])]
    return _run_all(workloads, ways, rounds, options.json, verbose=options.verbose)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _choose_peers(wanted: Sequence[str]) -> list[str]:
    """The loop is always among them: its results are the right ones."""
    known = [way.name for way in PEERS]
    unknown = set(wanted) - set(known)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise ValueError(f"unknown peer {names}; there are: {', '.join(known)}")
    return [name for name in known if not wanted or name in wanted or name == LOOP]


def _run_all(
    workloads: Sequence[Workload],
    ways: Sequence[str],
    rounds: int,
    target: Path | None,
    *,
    verbose: bool,
) -> int:
    facts = machine_facts()
    print(f"{facts['cores']} cores, Python {facts['python']}, {rounds} rounds, medians")
    print(_table.header())
    started = time.perf_counter()
    rows: list[Row] = []
    for workload in workloads:
        row = Row(workload)
        rows.append(row)
        _run_round(row, ways, 0, verbose=verbose)
        best = row.best("first")
        factor = MORE_ROUNDS if best and best[1] < SHORT and rounds > 1 else 1
        for number in range(1, rounds * factor):
            _run_round(row, ways, number, verbose=verbose)
        print(_table.line(row), flush=True)
        if target is not None:  # after each, so that an interrupted run keeps what it has
            _write(target, facts, rounds, rows, time.perf_counter() - started)
    print()
    print(_table.closing(rows))
    print(f"{time.perf_counter() - started:.0f} s in all; {_table.disturbance(rows)}")
    return 1 if _table.summarize(rows)["faults"] else 0


def _run_round(row: Row, ways: Sequence[str], number: int, *, verbose: bool) -> None:
    if number:
        kept = row.contenders(STILL_IN_THE_RACE, KEPT)
        ways = [way for way in ways if way in kept or way == PARALLAX]
        if number % 2:
            ways = ways[::-1]
    for way in ways:
        sample = run_cell(row.workload, way, **_limits(row, way))
        row.samples.append(sample)
        if verbose:
            print(f"  {way:<12} {_sketch(sample)}", file=sys.stderr, flush=True)


def _limits(row: Row, way: str) -> dict[str, float]:
    best = row.best("first")
    if best is None or way == PARALLAX:
        return {"limit": LONGEST, "skip_above": LONGEST}
    start_up = WAYS[way].start_up
    limit = LONGEST if way == LOOP else 3 * best[1] + 1.0 + start_up
    return {"limit": limit, "skip_above": STILL_IN_THE_RACE * best[1] + start_up}


def _sketch(sample: Sample) -> str:
    if sample.status != "ok":
        return f"{sample.status}: {sample.facts.get('error', '')}"
    facts = sample.facts
    second = f"{facts['second']:8.4f}" if "second" in facts else "       -"
    return (
        f"first {facts['first']:8.4f} second {second} cpu {facts['first_cpu']:6.2f} "
        f"peak {facts['peak_mb']:6.0f} MB  {facts.get('route', '')}"
    )


def _write(
    target: Path, facts: dict[str, Any], rounds: int, rows: Sequence[Row], seconds: float
) -> None:
    content = {
        "benchmark": "routing",
        "machine": facts,
        "rounds": rounds,
        "seconds": round(seconds, 1),
        "summary": _table.summarize(rows),
        "workloads": [row.to_json() for row in rows],
    }
    target.write_text(json.dumps(content, indent=1) + "\n")


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
