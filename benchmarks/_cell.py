"""One cell of the table: one workload run one way, in an interpreter of its own.

Run as `python -m benchmarks._cell MODULE WORKLOAD WAY SKIP_ABOVE`. It prints one event a line, as
`_events` has it: `ready` when the set-up and the imports are done, `first` and `done` with what was
measured, or `failed`. The second call is left out when the first took more than SKIP_ABOVE seconds.
Digesting the results is not timed.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from typing import Any

from ._catalog import find
from ._events import tell
from ._usage import Usage
from ._ways import WAYS
from ._workloads._define import digest


def _describe(results: Any) -> dict[str, Any]:
    """The report of parallax, where the results carry one."""
    report = getattr(results, "report", None)
    if report is None:
        return {}
    return {"route": str(getattr(report, "route", "?")), "report": str(report)}


def run(module: str, workload_name: str, way_name: str, skip_above: float) -> None:
    way = WAYS[way_name]
    function, items = find(module, workload_name).setup()
    way.load()
    gc.collect()
    usage = Usage()
    tell("ready", items=len(items))

    started = time.perf_counter()
    handle = way.open()
    results = way.call(handle, function, items)
    first = time.perf_counter() - started
    facts: dict[str, Any] = {"first": first, "first_cpu": usage.cpu_seconds()}
    facts["others"] = usage.others_share()
    facts.update(_describe(results), digest=digest(results))
    tell("first", seconds=first)

    if first <= skip_above:
        del results
        gc.collect()
        before = usage.cpu_seconds()
        started = time.perf_counter()
        results = way.call(handle, function, items)
        facts["second"] = time.perf_counter() - started
        facts["second_cpu"] = usage.cpu_seconds() - before
        facts.update({f"second_{key}": value for key, value in _describe(results).items()})
        facts["second_digest"] = digest(results)

    facts["peak_mb"] = usage.peak_megabytes()
    started = time.perf_counter()
    way.close(handle)
    facts["first"] += time.perf_counter() - started
    tell("done", **facts)


def main() -> None:
    module, workload_name, way_name, skip_above = sys.argv[1:]
    try:
        run(module, workload_name, way_name, float(skip_above))
    except BaseException as error:
        tell("failed", error=f"{type(error).__name__}: {error}"[:300])
        sys.stdout.flush()
        # A pool that failed may never shut down; the parent ends what is left of it.
        os._exit(1)


if __name__ == "__main__":
    main()
