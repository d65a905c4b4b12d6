"""`python -m benchmarks data`: arrays and frames to processes and back, in time and in memory."""

from __future__ import annotations

from benchmarks.common.benchmark import Benchmark
from benchmarks.common.pools import PARALLAX
from benchmarks.data.table import TABLE

# The slowest side copies 4 GB through pipes, twice.
BENCHMARK = Benchmark("data", TABLE, (PARALLAX,), 120.0, libraries=("numpy", "pandas", "joblib"))
configure, run = BENCHMARK.configure, BENCHMARK.run
