"""`python -m benchmarks engine`: the process engine against the pools of the standard library."""

from __future__ import annotations

import argparse

from . import _rounds
from ._engine_measure import OURS
from ._engine_table import TABLE

configure = _rounds.configure

BENCHMARK = _rounds.Benchmark("engine", TABLE, "benchmarks._engine_cell", OURS, limit=60.0)


def run(options: argparse.Namespace) -> int:
    return _rounds.run(BENCHMARK, options)
