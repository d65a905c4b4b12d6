"""What a run sees of its present route at work: how fast that is, and whether threads contend.

All methods are called with the dispatcher's lock held.
"""

from __future__ import annotations

import time

from parallax._backends.contract import Done
from parallax._core.nesting import Place
from parallax._routing.profiler import Profiler
from parallax._routing.requested import MOST_THREADS
from parallax._routing.throughput import RouteThroughput
from parallax._run.chunk_flow import ChunkFlow

clock = time.perf_counter

#: Bytes that a chunk moves at most, there and back. Each worker holds two chunks, and so does a
#: reader that is late: larger takes too much memory, smaller pays more dispatches.
MAX_CHUNK_BYTES = 1 << 24


class RouteJudge:
    """Tells the profiler what the chunks of the present route show."""

    def __init__(self, flow: ChunkFlow, profiler: Profiler, place: Place) -> None:
        self._flow, self._profiler, self._place = flow, profiler, place
        #: the work of the present route since all its workers are up.
        self._throughput: RouteThroughput | None = None

    def restart(self) -> None:
        """Another route or number of workers, or other news, makes the figures void."""
        self._throughput = None

    def add(self, done: Done) -> None:
        flow, profiler, result = self._flow, self._profiler, done.result
        route = flow.route
        threads = route == "threads"
        profiler.workers.add_chunk(result, threads=threads, workers=flow.wanted)
        if threads and flow.wanted > 1:
            factor = profiler.ran_beside(result)
            if self._throughput is not None:
                self._throughput.correct(factor)
        if not threads:
            profiler.workers.add_encoding(done.seconds, len(result.values))
            moved = done.bytes_in + done.bytes_out
            if moved and flow.scheduler is not None:
                most = max(1, MAX_CHUNK_BYTES * len(result.values) // moved)
                flow.scheduler.limit_chunks(most)
        if self._throughput is None:
            if len(flow.table.up(route)) >= (count := flow.wanted):
                now_at_work = clock(), count, self._place.cores, flow.delay(route)
                self._throughput = RouteThroughput(*now_at_work, early=threads)
            return
        self._throughput.add(clock(), result, profiler.loop_seconds(result, threads=threads))

    def judge(self, now: float) -> None:
        """Record the observed speed of the present route, once it can be told."""
        flow, profiler, throughput = self._flow, self._profiler, self._throughput
        route = flow.route
        if throughput is None or route == "loop":
            return
        speed = throughput.speed(now, flow.under_way(now), flow.delay(route))
        if speed is not None:
            profiler.observed_speeds[route] = speed
        cost = profiler.caller.cost()
        waits = cost.items and cost.cpu < 0.5 * cost.wall
        if route == "threads" and waits and throughput.chunks >= 2:
            slower = throughput.wall / throughput.items / cost.wall
            most = self._place.part(MOST_THREADS)
            if slower < 1.3 and flow.wanted >= profiler.thread_cap < most:
                profiler.thread_cap *= 2
                profiler.observed_speeds.pop(route, None)
