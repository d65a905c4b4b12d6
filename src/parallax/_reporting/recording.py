"""What each worker of a run or an executor did, and when: totals always, each chunk if asked for.

Times are seconds since the start. A chunk's beginning is what its worker read on its own clock,
which is the same for all processes of a machine. Where it cannot be right, as on another machine,
or where a worker tells none, it is the arrival of the results less the time that the items took.

Guarantees: constant memory unless chunks are kept, and bounded then; nothing of an item is kept.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from heapq import heappush, heapreplace

from parallax._core.chunks import Route
from parallax._core.lazy_import import copy
from parallax._core.light_stdlib import Any, NamedTuple

#: Chunks that are kept; of a longer record the oldest are dropped. More take more memory, 250 bytes
#: each.
MAX_KEPT = 250_000

#: Deaths of workers that are kept, the latest ones. More cannot be told apart in a timeline.
MAX_DEATHS = 1_000

#: How many of the slowest are kept: what a person reads.
SLOWEST = 5

#: Seconds by which the clocks of two processors may differ.
CLOCK_SLACK_S = 0.001


class SlowItems(NamedTuple):
    """Items that took long: one, or a chunk whose items were not timed one by one."""

    #: mean seconds of an item.
    seconds: float
    first: int
    items: int
    route: Route


class KeptChunk(NamedTuple):
    """Items that one worker ran without a break."""

    #: the worker's place in ``workers``.
    worker: int
    begin: float
    #: seconds on the clock, and of CPU time.
    wall: float
    cpu: float
    #: index of the first item, and how many there are.
    first: int
    items: int
    #: when the results were there.
    arrived: float
    bytes_in: int = 0
    bytes_out: int = 0


class WorkerDeath(NamedTuple):
    """A worker ended, and with it what it was running."""

    #: the worker's place in ``workers``.
    worker: int
    at: float
    #: index of the first item that it may have been running, -1 if not known, and how many; of
    #: these so many have failed by that, the others were run again.
    first: int
    items: int
    failed: int
    reason: str


class WorkerShare:
    """What one worker did.

    Attributes:
        name: for example "worker process 123".
        route: which kind of worker it is.
        started: when it was asked for, in seconds since the start of the run.
        begin: when its first items began, and
        end: when its latest ones ended.
        busy: seconds inside items.
        cpu: CPU seconds of the items.
        items: items that it ran.
        place: its number among the workers.
    """

    __slots__ = ("begin", "busy", "cpu", "end", "items", "name", "place", "route", "started")

    def __init__(self, name: str, route: Route, started: float, place: int) -> None:
        self.name, self.route, self.started, self.place = name, route, started, place
        self.begin = self.end = self.busy = self.cpu = 0.0
        self.items = 0


class Recording:
    """The work of one run or executor; ``begin`` is its start on the clock that all times are of.

    With ``keep`` each chunk is kept, for a timeline. The owner's lock guards ``meet``, ``add``
    and ``lose``.
    """

    __slots__ = ("begin", "chunks", "deaths", "dropped", "placed", "slowest", "workers")

    def __init__(self, begin: float = 0.0, *, keep: bool = False) -> None:
        self.begin: float = begin
        self.workers: dict[Hashable, WorkerShare] = {}
        #: the slowest items, the least slow of them first.
        self.slowest: list[SlowItems] = []
        self.chunks: deque[KeptChunk] | None = deque(maxlen=MAX_KEPT) if keep else None
        self.deaths: deque[WorkerDeath] = deque(maxlen=MAX_DEATHS)
        #: chunks that were dropped, and those of a clock that was not believed.
        self.dropped: int = 0
        self.placed: int = 0

    def meet(self, worker: Hashable, name: str, route: Route, started: float) -> None:
        """A worker that was not seen before has ended its first items; it was asked for then."""
        begin = max(0.0, started - self.begin)
        self.workers[worker] = WorkerShare(name, route, begin, len(self.workers))

    def add(
        self,
        worker: Hashable,
        first: int,
        items: int,
        times: tuple[float, float, float],
        now: float,
        bytes_in: int = 0,
        bytes_out: int = 0,
    ) -> Route:
        """A worker's items have ended, and their results are there now; returns its route.

        ``times`` are the clock at their beginning, 0 if not known, and their seconds of wall and
        CPU time; the bytes are those that they moved to the worker and back.
        """
        begun, wall, cpu = times
        share, arrived = self.workers[worker], now - self.begin
        begin = begun - self.begin
        if begin < -CLOCK_SLACK_S or begin + wall > arrived + CLOCK_SLACK_S:
            # Not before the end of what the worker ran before: both may have been read late.
            begin = max(arrived - wall, share.end)
            arrived = max(arrived, begin + wall)
            self.placed += begun > 0.0
        begin = max(0.0, begin)
        if not share.items:
            share.begin = begin
        share.end = max(share.end, begin + wall)
        share.busy += wall
        share.cpu += cpu
        share.items += items
        if items:
            slow = SlowItems(wall / items, first, items, share.route)
            if len(self.slowest) < SLOWEST:
                heappush(self.slowest, slow)
            elif slow > self.slowest[0]:
                heapreplace(self.slowest, slow)
        if (kept := self.chunks) is not None:
            self.dropped += len(kept) == MAX_KEPT
            times = begin, wall, cpu
            kept.append(KeptChunk(share.place, *times, first, items, arrived, bytes_in, bytes_out))
        return share.route

    def lose(
        self, worker: Hashable, first: int, items: int, failed: int, reason: str, now: float
    ) -> None:
        """A worker has died; see ``WorkerDeath``."""
        share, at = self.workers[worker], now - self.begin
        if not share.items:
            share.begin = share.end = at
        self.deaths.append(WorkerDeath(share.place, at, first, items, failed, reason))

    def settled(self) -> Recording:
        """A copy, which stays as it is while the work goes on."""
        made = Recording(self.begin)
        made.dropped, made.placed = self.dropped, self.placed
        while True:
            try:
                made.workers = {key: copy.copy(each) for key, each in self.workers.items()}
                made.slowest = list(self.slowest)
                made.deaths = deque(self.deaths, MAX_DEATHS)
                made.chunks = None if self.chunks is None else deque(self.chunks, MAX_KEPT)
            except RuntimeError:  # another thread has added something meanwhile
                continue
            return made

    @property
    def span(self) -> float:
        """Seconds from the first item's begin to the last one's end."""
        begins = [each.begin for each in self.workers.values()]
        return max((w.end for w in self.workers.values()), default=0.0) - min(begins, default=0.0)

    @property
    def starting(self) -> float:
        """Seconds from the order for the first worker, not the caller's thread, to its work."""
        others = [each for each in self.workers.values() if each.route != "loop" and each.items]
        return min((each.begin - each.started for each in others), default=0.0)

    @property
    def idle(self) -> float:
        """Seconds that workers had nothing to run between their first items and the last ones."""
        last: dict[Route, float] = {}
        for each in self.workers.values():
            last[each.route] = max(last.get(each.route, 0.0), each.end)
        others = [each for each in self.workers.values() if each.route != "loop"]
        return sum(max(0.0, last[w.route] - w.begin - w.busy) for w in others)


class CallRecording(Recording):
    """The calls of an executor, numbered as they end. Thread-safe."""

    __slots__ = ("_ended", "_lock")

    def __init__(self) -> None:
        super().__init__(time.perf_counter(), keep=True)
        self._ended = 0
        self._lock = threading.Lock()

    def around(self, fn: Callable[..., Any], calls: int = 1, route: Route = "threads") -> Any:
        """``fn`` for a thread of this process: what it runs, so many calls, is recorded."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            cpu, begun = time.thread_time(), time.perf_counter()
            try:
                return fn(*args, **kwargs)
            finally:
                times = begun, time.perf_counter() - begun, time.thread_time() - cpu
                ident = threading.get_ident()
                if ident in self.workers:
                    name = ""
                else:  # not current_thread, which would enter one that threading does not know
                    names = (t.name for t in threading.enumerate() if t.ident == ident)
                    name = f"thread {next(names, ident)}"
                self.ended(ident, name, route, times, calls)
                del args, kwargs  # the traceback of an error refers to this frame

        return timed

    def ended(
        self,
        worker: Hashable,
        name: str,
        route: Route,
        times: tuple[float, float, float],
        calls: int = 1,
        age: float = 0.0,
    ) -> None:
        """Calls have ended in a worker, which is so many seconds old; ``times`` as for ``add``."""
        now = time.perf_counter()
        with self._lock:
            self._introduce(worker, name, route, now - age, times[0] or now - times[1])
            self.add(worker, self._ended, calls, times, now)
            self._ended += calls

    def lost(
        self,
        worker: Hashable,
        name: str,
        route: Route,
        age: float,
        calls: int,
        failed: int,
        reason: str,
    ) -> None:
        """A worker has died, which is so many seconds old; see ``WorkerDeath``."""
        now = time.perf_counter()
        with self._lock:
            self._introduce(worker, name, route, now - age, now)
            self.lose(worker, -1, calls, failed, reason, now)

    def _introduce(
        self, worker: Hashable, name: str, route: Route, born: float, begun: float
    ) -> None:
        if worker not in self.workers:
            self.meet(worker, name, route, born if self.begin <= born < begun else begun)


def lanes(recording: Recording) -> list[WorkerShare]:
    """The workers as people expect them: the caller's thread, then in the order of their start."""
    return sorted(recording.workers.values(), key=lambda w: (w.route != "loop", w.started))


def lane_numbers(recording: Recording) -> dict[int, int]:
    """The lane of each worker, by its place."""
    return {share.place: lane for lane, share in enumerate(lanes(recording))}


def kept_columns(recording: Recording) -> Mapping[str, Any]:
    """The kept chunks by lane and begin, as one list per field: times in microseconds."""
    lane_of = lane_numbers(recording)
    moved = (each._replace(worker=lane_of[each.worker]) for each in recording.chunks or ())
    kept = sorted(moved, key=lambda chunk: (chunk.worker, chunk.begin))
    times = {"begin", "wall", "cpu", "arrived"}
    return {
        name: [round(each[at] * 1e6) if name in times else each[at] for each in kept]
        for at, name in enumerate(KeptChunk._fields)
    }
