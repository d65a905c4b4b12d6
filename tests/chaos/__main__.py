"""Chaos: random calls, and random faults injected into the workers, round by round: ``make chaos``.

    python -m tests.chaos [--seconds 600] [--seed N] [--replay N [--rounds K]] [--switch S]
    python -m tests.chaos kills [--count 200] [--seed N]

Each round follows from its own seed, which is printed when something is wrong with it and can be
replayed. The exit status is 1 if something was.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator

from . import watch
from .kills import kill_at_random
from .plan import plan
from .rounds import HangError, Rounds

#: Rounds after which all workers are shut down, so that nothing at all may be left.
REST = 10

#: Seconds between two lines.
LINE = 10.0

TABLE = (
    ("rounds", "rounds"),
    ("calls", "calls"),
    ("items", "items that ended"),
    ("kill", "workers killed"),
    ("kill zygote", "zygotes killed"),
    ("stop", "workers stopped"),
    ("stop zygote", "zygotes stopped"),
    ("hang", "hangs"),
    ("lost", "lost"),
    ("twice", "twice"),
    ("wrong", "wrong"),
    ("late", "begun too late"),
    ("leak", "leaks"),
)
FAULTS = ("hang", "lost", "twice", "wrong", "late", "leak")


def main() -> int:
    """Run; returns the exit status."""
    asked = _arguments()
    if asked.switch is not None:
        sys.setswitchinterval(asked.switch)
    # An executor that asks for "fork" gets it, threads or not.
    warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
    if asked.what == "kills":
        figures = kill_at_random(asked.count, asked.seed)
        print(figures)
        return 0 if figures.good else 1
    folder = tempfile.mkdtemp(prefix="parallax-chaos-")
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    try:
        return _play(asked, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("what", nargs="?", choices=["rounds", "kills"], default="rounds")
    parser.add_argument("--seconds", type=float, default=600, help="how long")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--replay", type=int, help="the seed of the one round to play")
    parser.add_argument("--rounds", type=int, help="most rounds; 1 with --replay")
    parser.add_argument("--patience", type=float, default=60, help="seconds that are a hang")
    parser.add_argument("--count", type=int, default=200, help="kills")
    parser.add_argument("--switch", type=float, help="seconds until threads take turns; 1e-6: hard")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line per round")
    return parser.parse_args()


def _seeds(asked: argparse.Namespace) -> Iterator[int]:
    if asked.replay is not None:
        for _ in range(asked.rounds or 1):
            yield asked.replay
        return
    rng = random.Random(asked.seed)
    number = 0
    while asked.rounds is None or number < asked.rounds:
        yield rng.getrandbits(32)
        number += 1


def _play(asked: argparse.Namespace, folder: str) -> int:
    print(f"chaos with --seed {asked.seed}, Python {sys.version.split()[0]}", flush=True)
    begin = told = time.monotonic()
    rounds = Rounds(folder, asked.patience)
    counts = rounds.counts
    seed = 0
    try:
        for number, seed in enumerate(_seeds(asked), 1):
            played = plan(seed)
            start = time.monotonic()
            faults = rounds.play(played)
            if asked.verbose:
                print(f"{seed}: {time.monotonic() - start:.1f} s, {played}", flush=True)
            if number % REST == 0:
                faults += rounds.rest()
            for fault in faults[:8]:
                print(f"--replay {seed}: {fault}", flush=True)
            if faults:
                print(f"    in {played}", flush=True)
            now = time.monotonic()
            if now - told > LINE:
                told = now
                wrong = sum(counts[name] for name in FAULTS)
                print(
                    f"{now - begin:6.0f} s  {counts['rounds']} rounds  {counts['items']} items  "
                    f"{counts['kill'] + counts['kill zygote']} kills  {wrong} faults",
                    flush=True,
                )
            if now - begin > asked.seconds:
                break
        for fault in rounds.rest():
            print(f"at the end: {fault}", flush=True)
    except HangError as hang:
        print(f"--replay {seed}: hang: {hang}\n    in {plan(seed)}", flush=True)
        watch.dump()
        print(_table(counts), flush=True)
        watch.end_all()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)  # its threads would keep us
    print(_table(counts), flush=True)
    return 1 if any(counts[name] for name in FAULTS) else 0


def _table(counts: dict[str, int]) -> str:
    return "\n".join(f"{words:>18}  {counts[name]}" for name, words in TABLE)


if __name__ == "__main__":
    sys.exit(main())
