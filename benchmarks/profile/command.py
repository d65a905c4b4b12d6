"""`python -m benchmarks profile`: does `parallax profile` see what py-spy sees, and at what cost?

Both watch the same run: py-spy (`pip install py-spy`, or the extra `bench`) reads the memory of the
process from outside and is taken for the truth. Compared are the share of the time in which the
GIL was held, and the share of the function that held it longest, in points of a hundred. Runs of
sampling tools differ by some points from each other; more than ten is a fault.

The cost: the same work with and without `parallax profile`, in turns; the median of the ratios of
the CPU time, which other programs on the machine disturb less than the time on the clock.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common.machine import machine_facts
from benchmarks.profile import programs

AGREEMENT_POINTS, COST_GOAL = 10.0, 0.05
RATE = 200
SCRIPT = programs.__file__


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="3 s for each program")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--no-cost", action="store_true", help="compare only")
    parser.add_argument("--only", help="programs, separated by commas")


def run(options: argparse.Namespace) -> int:
    spy = shutil.which("py-spy")
    if spy is None:
        print("needs py-spy: pip install py-spy", file=sys.stderr)
        return 2
    names = options.only.split(",") if options.only else list(programs.PROGRAMS)
    seconds = 3 if options.quick else 10
    rows = [agreement(spy, name, seconds) for name in names]
    print(
        f"{'program':<10}{'GIL held':>10}{'py-spy':>8}   {'function':<12}{'held':>6}{'py-spy':>8}"
    )
    for row in rows:
        print(
            f"{row['program']:<10}{row['held']:>9.0f}%{row['spy_held']:>7.0f}%   "
            f"{row['function']:<12}{row['function_held']:>5.0f}%{row['spy_function_held']:>7.0f}%"
        )
    costs = (
        {}
        if options.no_cost
        else {name: cost(name, 3 if options.quick else 9) for name in names if name != "sleeping"}
    )
    for name, share in costs.items():
        print(f"cost of profiling {name:<10}{share:+.1%} CPU time")
    if options.json:
        figures = {"machine": machine_facts(), "rows": rows, "costs": costs}
        options.json.write_text(json.dumps(figures, indent=2))
    far = max(
        max(
            abs(row["held"] - row["spy_held"]), abs(row["function_held"] - row["spy_function_held"])
        )
        for row in rows
    )
    print(f"furthest apart: {far:.0f} points (at most {AGREEMENT_POINTS:.0f} is the goal)")
    return int(far > AGREEMENT_POINTS or max(costs.values(), default=0.0) > COST_GOAL)


def agreement(spy: str, name: str, seconds: float) -> dict[str, Any]:
    """One run, seen by both; shares of the time in percent."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs, seconds_ = Path(folder, "ours"), Path(folder, "theirs"), str(seconds)
        program = subprocess.Popen(
            [sys.executable, "-m", "parallax", "profile", "--json", ours, SCRIPT, name, seconds_],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Not as its child: py-spy ends that before the report is written. And it must not stop the
        # program for each look: our sampler would take that for a wait for the GIL.
        watch = [
            spy,
            "record",
            "--gil",
            "--nonblocking",
            "-r",
            str(RATE),
            "-d",
            "600",
            "-f",
            "raw",
            "-o",
            theirs,
        ]
        subprocess.run([*watch, "-p", str(program.pid)], check=False, capture_output=True)
        program.wait(timeout=60)
        figures = json.loads(ours.read_text())
        spied: Counter[str] = Counter()
        for line in theirs.read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            if SCRIPT.rpartition("/")[2] in stack:
                # the innermost function of the program
                mine = [frame for frame in stack.split(";") if "programs.py" in frame]
                spied[mine[-1].partition(" ")[0]] += int(count)
    possible = RATE * figures["seconds"]
    held = Counter(
        {each["name"]: each["held_gil_seconds"] for each in figures["functions"]
         if each["file"] == SCRIPT}
    )  # fmt: skip
    function = (spied.most_common(1) or held.most_common(1) or [("", 0)])[0][0]
    return {
        "program": name,
        "seconds": figures["seconds"],
        "held": 100 * figures["gil"]["held"],
        "spy_held": 100 * sum(spied.values()) / possible,
        "function": function,
        "function_held": 100 * held[function] / figures["seconds"],
        "spy_function_held": 100 * spied[function] / possible,
    }


def cost(name: str, rounds: int) -> float:
    """What profiling adds, as a share of the CPU time."""
    turns = f"ITERATIONS:{_turns(name)}"
    ratios = []
    for _ in range(rounds):
        plain = _cpu([SCRIPT, name, turns])
        ratios.append(
            _cpu(["-m", "parallax", "profile", "-o", "/dev/null", SCRIPT, name, turns]) / plain
        )
    return statistics.median(ratios) - 1.0


def _turns(name: str) -> int:
    """Turns that take about 1.5 seconds of CPU time."""
    cpu = _cpu([SCRIPT, name, "ITERATIONS:30"])
    return max(1, round(1.5 / (cpu / 30)))


def _cpu(arguments: list[str]) -> float:
    done = subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True, timeout=120
    )
    return float(json.loads(done.stdout)[1])
