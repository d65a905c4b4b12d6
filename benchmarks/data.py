"""`python -m benchmarks data`: arrays and frames to processes and back, in time and in memory."""

from __future__ import annotations

import argparse
import importlib.util
import sys

from . import _rounds
from ._data_table import TABLE
from ._pools import PARALLAX

configure = _rounds.configure

# The slowest side copies 4 GB through pipes, twice.
BENCHMARK = _rounds.Benchmark("data", TABLE, "benchmarks._data_cell", (PARALLAX,), limit=120.0)

_NEEDED = ("numpy", "pandas", "joblib")


def run(options: argparse.Namespace) -> int:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing and options.markdown is None and not options.list:
        print(f"{', '.join(missing)} missing: pip install -e '.[bench]'", file=sys.stderr)
        return 2
    return _rounds.run(BENCHMARK, options)
