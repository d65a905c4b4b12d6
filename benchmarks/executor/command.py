"""`python -m benchmarks executor`: the executors in the place of those of `concurrent.futures`."""

from __future__ import annotations

from benchmarks.common.benchmark import Benchmark
from benchmarks.common.pools import FORKED, PARALLAX
from benchmarks.executor.table import TABLE

BENCHMARK = Benchmark("executor", TABLE, (PARALLAX, FORKED), limit=60.0)
configure, run = BENCHMARK.configure, BENCHMARK.run
