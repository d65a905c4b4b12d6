"""One sample of a table, in an interpreter of its own.

Run as `python -m benchmarks.common.cell MODULE CELL SIDE SIZE BUSY TOTAL`: the module whose
`MEASURES` has a function for each cell, what to measure, on which side, "quick" or "full", and the
CPU seconds of the machine just before the start. It tells two events, `ready` and `done` or
`failed`; see `events`.

Workers of ProcessPoolExecutor import this module again, as the program's `__main__`. Everything is
imported when it is needed, so that this costs the peer as little as it can; psutil comes last,
since a pool that imports in its workers what this process has imported would pay for it.
"""

from __future__ import annotations

import sys


def main() -> None:
    from benchmarks.common.events import fail, tell

    module, cell, side, size, *at_birth = sys.argv[1:]
    tell("ready")
    try:
        from importlib import import_module

        facts = import_module(module).MEASURES[cell](side, size == "quick")
        from benchmarks.common.usage import Usage

        busy, total = map(float, at_birth)
        facts["others"] = Usage((busy, total)).others_share()
        tell("done", **facts)
    except BaseException as error:
        fail(error)


if __name__ == "__main__":
    main()
