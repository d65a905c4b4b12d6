"""`python -m benchmarks executor`: the executors in the place of those of `concurrent.futures`."""

from __future__ import annotations

import argparse

from . import _rounds
from ._executor_table import TABLE
from ._pools import FORKED, PARALLAX

configure = _rounds.configure

BENCHMARK = _rounds.Benchmark(
    "executor", TABLE, "benchmarks._executor_cell", (PARALLAX, FORKED), limit=60.0
)


def run(options: argparse.Namespace) -> int:
    return _rounds.run(BENCHMARK, options)
