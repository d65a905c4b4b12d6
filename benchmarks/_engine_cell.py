"""One sample of the engine benchmark, in an interpreter of its own.

Run as `python -m benchmarks._engine_cell CELL SIDE SIZE BUSY TOTAL`: what to measure, on whom,
"quick" or "full", and the CPU seconds of the machine just before the start.

Workers of ProcessPoolExecutor import this module again, as the program's `__main__`. Everything is
imported when it is needed, so that this costs the peer as little as it can; psutil comes last,
since a pool that imports in its workers what this process has imported would pay for it.
"""

from __future__ import annotations

import sys


def main(measures: str = "._engine_measure") -> None:
    """Takes the sample; `measures` is the module whose `MEASURES` has a function for each cell."""
    import os

    from ._events import tell

    cell, side, size, *at_birth = sys.argv[1:]
    tell("ready")
    try:
        from importlib import import_module

        facts = import_module(measures, __package__).MEASURES[cell](side, size == "quick")
        from ._usage import Usage

        busy, total = map(float, at_birth)
        facts["others"] = Usage((busy, total)).others_share()
        tell("done", **facts)
    except BaseException as error:
        tell("failed", error=f"{type(error).__name__}: {error}"[:300])
        sys.stdout.flush()
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        # A pool that failed may never shut down; the parent ends what is left of it.
        os._exit(1)


if __name__ == "__main__":
    main()
