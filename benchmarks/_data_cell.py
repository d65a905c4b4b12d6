"""One sample of the data benchmark, in an interpreter of its own.

Run as `python -m benchmarks._data_cell CELL SIDE SIZE BUSY TOTAL`; see `_engine_cell`.
"""

from __future__ import annotations

from ._engine_cell import main

if __name__ == "__main__":
    main("._data_measure")
