"""`python -m benchmarks profile`: does `parallax profile` see what py-spy sees, and at what cost?

Both watch the same run: py-spy (`pip install py-spy`, or the extra `bench`) reads the memory of the
process from outside and is taken for the truth. Compared are the share of the time in which the
GIL was held, and the share of the function that held it longest, in points of a hundred. Runs of
sampling tools differ by some points from each other; more than ten is a fault.

The cost: the same work with and without `parallax profile`, in turns; of the ratios of the CPU
time, which other programs on the machine disturb less than the time on the clock, the quartiles:
how far they lie apart tells how much of a median is chance. They are of the program's work alone;
start and report, which do not grow with it, are timed with a program that does nothing.
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
from resource import RUSAGE_CHILDREN, getrusage
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
    parser.add_argument("--rounds", type=int, default=9, help="pairs of runs for the cost")
    parser.add_argument("--only", help="programs, separated by commas")


def run(options: argparse.Namespace) -> int:
    spy = shutil.which("py-spy")
    if spy is None:
        print("needs py-spy: pip install py-spy", file=sys.stderr)
        return 2
    names = options.only.split(",") if options.only else list(programs.PROGRAMS)
    seconds = 3 if options.quick else 10
    rows = [agreement(spy, name, seconds) for name in names]
    print(f"{'program':<10}{'GIL held':>10}{'py-spy':>8}{'apart':>7}   ", end="")
    print(f"{'function':<12}{'held':>6}{'py-spy':>8}{'apart':>7}")
    for row in rows:
        apart, function_apart = _apart(row)
        print(
            f"{row['program']:<10}{row['held']:>9.0f}%{row['spy_held']:>7.0f}%{apart:>7.1f}   "
            f"{row['function']:<12}{row['function_held']:>5.0f}%{row['spy_function_held']:>7.0f}%"
            f"{function_apart:>7.1f}"
        )
    costs = {}
    if not options.no_cost:
        costs = {name: cost(name, options.rounds) for name in names if name != "sleeping"}
        start = start_cost(options.rounds)
        print(f"start: {1000 * start:.0f} ms of CPU time")
    for name, (low, middle, high) in costs.items():
        print(f"cost of profiling {name:<10}{middle:+.1%} CPU time ({low:+.1%} to {high:+.1%})")
    if options.json:
        figures = {"machine": machine_facts(), "rows": rows, "rounds": options.rounds}
        if costs:
            figures.update(costs=costs, start_seconds=start)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    far = max(max(_apart(row)) for row in rows)
    print(f"furthest apart: {far:.0f} points (at most {AGREEMENT_POINTS:.0f} is the goal)")
    dear = any(middle > COST_GOAL for _, middle, _ in costs.values())
    return int(far > AGREEMENT_POINTS or dear)


def _apart(row: dict[str, Any]) -> tuple[float, float]:
    """Points between the two, of the whole program and of the function."""
    return (
        abs(row["held"] - row["spy_held"]),
        abs(row["function_held"] - row["spy_function_held"]),
    )


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


PROFILED = ["-m", "parallax", "profile", "-o", "/dev/null"]


def cost(name: str, rounds: int) -> list[float]:
    """What profiling adds, as a share of the CPU time: lower quartile, median, upper quartile."""
    program = [SCRIPT, name, f"ITERATIONS:{_turns(name)}"]
    ratios = [1.0 / _cpu(program) * _cpu([*PROFILED, *program]) - 1.0 for _ in range(rounds)]
    return statistics.quantiles(ratios, n=4, method="inclusive")


def start_cost(rounds: int) -> float:
    """CPU seconds that a program which does nothing takes longer, its start and end included."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as empty:
        pairs = [(_whole([empty.name]), _whole([*PROFILED, empty.name])) for _ in range(rounds)]
    return statistics.median(profiled - plain for plain, profiled in pairs)


def _turns(name: str) -> int:
    """Turns that take about 1.5 seconds of CPU time."""
    cpu = _cpu([SCRIPT, name, "ITERATIONS:30"])
    return max(1, round(1.5 / (cpu / 30)))


def _cpu(arguments: list[str]) -> float:
    done = subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True, timeout=120
    )
    return float(json.loads(done.stdout)[1])


def _whole(arguments: list[str]) -> float:
    """CPU seconds of a process from its start to its end."""
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
