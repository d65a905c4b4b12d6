"""`python -m benchmarks engine`: the process engine against the pools of the standard library."""

from __future__ import annotations

from benchmarks.common.benchmark import Benchmark
from benchmarks.engine.measures import OURS
from benchmarks.engine.table import TABLE

BENCHMARK = Benchmark("engine", TABLE, OURS, limit=60.0)
configure, run = BENCHMARK.configure, BENCHMARK.run
