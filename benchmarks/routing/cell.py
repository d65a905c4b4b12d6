"""One cell of the table: one workload run one way, in an interpreter of its own.

Run as `python -m benchmarks.routing.cell MODULE WORKLOAD WAY SKIP_ABOVE`. It tells the events of
`common.events`: `ready` when the set-up and the imports are done, `first` and `done` with what was
measured, or `failed`. The second call is left out when the first took more than SKIP_ABOVE seconds.
Digesting the results is not timed.
"""

from __future__ import annotations

import gc
import sys
import time
from typing import Any

from benchmarks.common.events import fail, tell
from benchmarks.common.usage import Usage
from benchmarks.routing.catalog import find
from benchmarks.routing.ways import WAYS
from benchmarks.routing.workloads.definition import digest


def _describe(results: Any) -> dict[str, Any]:
    """The report of parallax, where the results carry one."""
    report = getattr(results, "report", None)
    if report is None:
        return {}
    told = {"route": str(getattr(report, "route", "?")), "report": str(report)}
    # What the last choice promised, and what each route would have cost, looking back.
    told["predicted"] = report.changes[-1].predicted if report.changes else None
    told["costs"] = dict(report.costs)
    return told


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
        fail(error)


if __name__ == "__main__":
    main()
