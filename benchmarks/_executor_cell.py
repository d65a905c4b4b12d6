"""One sample of the executor benchmark, in an interpreter of its own.

Run as `python -m benchmarks._executor_cell CELL SIDE SIZE BUSY TOTAL`; see `_engine_cell`.
"""

from __future__ import annotations

from ._engine_cell import main

if __name__ == "__main__":
    main("._executor_measure")
