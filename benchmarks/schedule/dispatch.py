"""What handing out chunks costs the parent, with real worker processes whose items sleep.

Sleeping items need hardly any core, so that 64 workers can be had on a laptop and what is left to
see is the parent. Its CPU time is taken for three runs with fixed chunk sizes: many chunks, a
quarter of them, and as many items in a sixteenth of the chunks. The differences give the cost per
chunk and per item; what a call costs once cancels out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

from parallax import parallel_map

#: Seconds that an item sleeps. Shorter ones keep the cores busy with waking up 64 workers.
NAP_S = 0.02
#: Items per chunk in the run with few chunks.
LARGE_CHUNK = 16


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def measure(workers: int, items: int, chunksize: int | None) -> tuple[float, float]:
    """Wall seconds and the parent's CPU seconds of one call on warm workers."""
    work = [NAP_S] * items
    cpu, wall = time.process_time(), time.perf_counter()
    results = parallel_map(nap, work, backend="processes", max_workers=workers, chunksize=chunksize)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if list(results) != work:
        raise AssertionError("wrong results")
    return wall, cpu


def row(workers: int, rounds: int, naps: int) -> dict[str, Any]:
    """The figures of one number of workers; medians over rounds."""
    items = max(workers, 4) * naps
    items -= items % (LARGE_CHUNK * workers)  # full chunks, and as many for each worker
    items = max(items, LARGE_CHUNK * workers)
    parallel_map(nap, [NAP_S] * workers * 2, backend="processes", max_workers=workers, chunksize=1)
    many, few, large, adaptive, walls = [], [], [], [], []
    for _ in range(rounds):
        many.append(measure(workers, items, 1)[1])
        few.append(measure(workers, items // 4, 1)[1])
        large.append(measure(workers, items, LARGE_CHUNK)[1])
        wall, cpu = measure(workers, items, None)
        walls.append(wall)
        adaptive.append(cpu)
    both = (statistics.median(many) - statistics.median(few)) / (items - items // 4)
    chunk = (statistics.median(many) - statistics.median(large)) / (items - items // LARGE_CHUNK)
    wall = statistics.median(walls)
    return {
        "workers": workers,
        "items": items,
        "us_per_chunk": chunk * 1e6,
        "us_per_item": (both - chunk) * 1e6,
        "parent_load": statistics.median(adaptive) / wall,
        "efficiency": items * NAP_S / workers / wall,
    }


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The table as text."""
    heads = f"{'workers':>8}{'items':>8}{'us/chunk':>10}{'us/item':>9}"
    heads += f"{'parent busy':>13}{'efficiency':>12}"
    return [
        f"items sleep {NAP_S * 1e3:.0f} ms; the parent's CPU time; default chunk size on the right",
        heads,
    ] + [
        f"{r['workers']:>8}{r['items']:>8}{r['us_per_chunk']:>10.0f}{r['us_per_item']:>9.1f}"
        f"{r['parent_load']:>13.1%}{r['efficiency']:>12.1%}"
        for r in rows
    ]
