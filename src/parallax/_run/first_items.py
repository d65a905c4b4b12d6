"""The first items of a call, which the caller's thread runs before anything else is made.

Most calls are short, and a run takes longer to make than their items. So items run as in a loop
until ``FIRST_S`` seconds of them have run; then a run is made that goes on from there. So far
nobody has to look what items change: they run here, in order.

An item may be long, and others could run beside it. If nothing is known of the callable, the thread
that watches for stalls makes the run while the caller's thread is inside of the item.

Guarantees: the answer of the loop; the caller's thread is in the place of the items while it runs
them, and nowhere else; nothing is left behind.
"""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import os
import time
from collections.abc import Callable, Hashable, Iterator, Sequence, Sized

from parallax._backends.capture import run_chunk
from parallax._backends.contract import Call
from parallax._core.chunks import ChunkResult
from parallax._core.light_stdlib import Any, TypeAlias
from parallax._core.nesting import enter, entered, here, loading
from parallax._core.options import Options
from parallax._core.plans import Measurement
from parallax._core.thread_clocks import ClockedThread
from parallax._guard.process_state import ProcessWatch, importing
from parallax._guard.watch import UNKNOWN_LENGTH
from parallax._profiling.history import remember_item_seconds
from parallax._profiling.meters import ItemMeter
from parallax._reporting.reports import Report
from parallax._reporting.stall_monitor import MAX_SLEEP_S, unwatch, watch
from parallax._routing.planner import LITTLE_WORK_S, too_little
from parallax._run.caller_items import EndedItems, run_next, run_plain, with_errors
from parallax._run.crew_table import CALLER
from parallax._scheduling.input import Input

Blocks: TypeAlias = "list[tuple[int, float, float, float]]"
Brief: TypeAlias = "tuple[float, float, int, Blocks]"

clock = time.perf_counter

#: Seconds of items before a run is made. Smaller makes one for calls that are over sooner than it
#: is made; larger keeps the other cores waiting.
FIRST_S = 0.002

NO_BLOCK: tuple[float, int, Sized] = (0.0, 0, ())


def little_work(source: Input, each: float) -> bool:
    """Whether so many seconds per item leave too little work for workers."""
    left = UNKNOWN_LENGTH if source.left is None else source.left
    return left * each < LITTLE_WORK_S


def needs_run(o: Options) -> bool:
    """Whether options, or the place of the call, ask for what only a run has."""
    place = here()
    return (
        not (isinstance(o.backend, str) and o.backend == "auto" and o.on_error == "raise")
        or not (o.timeout is None and o.item_timeout is None and o.seed is None)
        or o.retries != 0
        or not (o.progress is False and o.record is False)
        or place.level > 0
        or place.innermost
        or loading()
        or importing() != ""
    )


class FirstItems:
    """The first items of one call whose options ask for nothing that needs a run.

    ``each`` is what an item took in an earlier call, in seconds, None if that is not known;
    ``make`` makes the run that goes on from here.
    """

    def __init__(
        self,
        call: Call,
        source: Input,
        options: Options,
        *,
        each: float | None,
        make: Callable[[FirstItems], Any],
    ) -> None:
        self._call, self._source, self._make = call, source, make
        #: where the call was made, and the place of its items.
        self.place, self._before = here(), entered()
        self.inside = self.place.item(movable=True)
        self._context = contextvars.copy_context()
        #: of each block that has ended: its items, wall and CPU seconds, and when it began.
        self.blocks: Blocks = []
        #: number of results.
        self.done = 0
        #: the block that runs: when it began, its size and the results so far; its items.
        self.block = NO_BLOCK
        self.items: Sequence[Any] = ()
        #: the outcome of a block during which the run was made.
        self.result: ChunkResult | None = None
        #: what may tell that the first items change the state of the process.
        self.process: ProcessWatch | None = None
        stall = options.stall_warn / 4 or MAX_SLEEP_S
        #: seconds until the run is made if a block has not ended.
        self.limit = min(stall, MAX_SLEEP_S)
        self.thread = ClockedThread(_thread.get_ident())
        self._size = max(1, int(FIRST_S / each)) if each else 1
        if each is None and source.left != 1:
            self.limit = FIRST_S
            self.thread = ClockedThread.current()
            self.process = ProcessWatch()
            self.process.before()
        self.began = clock()
        self._lock = _thread.allocate_lock()
        self._run: Any = None

    def work(self, results: list[Any]) -> Any:
        """Run items, and return the run that goes on, or None if there is nothing left to do."""
        source, size, spent = self._source, self._size, 0.0
        watch(self)
        enter(self.inside)
        try:
            while not source.ended:
                result = self._block(size)
                if self._run is not None:
                    self.result = result
                    return self._run
                if not (count := len(result.values)):
                    break
                self.blocks.append((count, result.wall, result.cpu, result.begun))
                values, error = with_errors(result, self.done, stop=True)
                self.done += len(values)
                if error is not None:
                    try:
                        raise error
                    finally:
                        del result, values, error  # the traceback refers to this frame
                results += values
                each, spent = result.wall / count, spent + result.wall
                if spent >= FIRST_S and not (spent < LITTLE_WORK_S and little_work(source, each)):
                    break
                seconds = FIRST_S - spent if spent < FIRST_S else FIRST_S
                size = max(1, min(size * 8, int(seconds / each) if each > 0 else size * 8))
            if not source.ended or spent > LITTLE_WORK_S:
                self._run = self._make(self)
            elif (error := source.take_error()) is not None:
                try:
                    raise error
                finally:
                    del error  # as above
            return self._run
        finally:
            self._leave()

    def _leave(self) -> None:
        """Run no more of the items here. Idempotent: an interrupt may come in the middle."""
        with self._lock:
            self.items, self.block = (), NO_BLOCK
        if entered() is self.inside:
            enter(self._before)
        unwatch(self)

    def end(self, name: str, error: BaseException | None) -> None:
        """The call is over; an error that has ended it leads to its report, ``name`` is for that.

        Idempotent, as ``_leave``.
        """
        self._leave()
        if error is not None and self._run is not None:
            self._run.close(0.0)
        elif error is not None:
            report = report_of(name, *self.brief())
            report.raised = sum(count for count, *_ in self.blocks) - self.done
            report.cut(error)
        self._run = None  # it refers to this

    def _block(self, size: int) -> ChunkResult:
        source, call = self._source, self._call
        items = source.take(1) if size == 1 else ()
        values: list[Any] = []
        self.block, self.items = (clock(), size, values), items
        if size == 1:
            result = run_chunk(call.fn, items, values, star=call.star, stop=call.stop)
        elif source.anywhere and not source.star:
            ended = EndedItems(source.iterator)
            self.block = self.block[0], size, ended
            result = run_plain(call.fn, source, size, ended)
        else:
            result = run_next(call.fn, source, size, values, stop=True)
        with self._lock:  # the run is made, or it is not
            self.items, self.block = (), NO_BLOCK
        return result

    def check(self, now: float) -> float:
        """Make the run if a block takes long; in the thread that watches for stalls."""
        with self._lock:
            # Blocks that follow on a first one are sized to end; one that does not is late, too.
            limit = self.limit + (FIRST_S if self.blocks else 0.0)
            begun, size, _ = self.block
            left = begun + limit - clock() if size else limit
            if self._run is None and left > 0:
                return now + left
            if self._run is None:
                with contextlib.suppress(AttributeError, OSError):  # a system that has none
                    os.sched_setaffinity(0, os.sched_getaffinity(self.thread.native_id or 0))
                before = enter(self.place)
                try:
                    self._run = self._context.run(self._make, self)
                    self._context.run(self._run.overtake)
                except Exception:  # noqa: BLE001 - the caller's thread meets it as well
                    return now + MAX_SLEEP_S
                finally:
                    enter(before)
        return now + MAX_SLEEP_S

    def brief(self) -> Brief:
        """What the report is made of, when it is read."""
        return self.began, clock() - self.began, self.done, self.blocks

    def remember(self, key: Hashable | None) -> None:
        """Keep what an item takes, for later calls."""
        rest = self.blocks[1:] or self.blocks  # the very first one is often unlike the others
        if rest:
            remember_item_seconds(key, sum(b[1] for b in rest) / sum(b[0] for b in rest))


def report_of(name: str, began: float, seconds: float, items: int, blocks: Blocks) -> Report:
    """The report on a call that was over with its first items; ``name`` is the callable's."""
    report = Report(callable=name, items=items, seconds=seconds)
    report.work.begin = began
    report.work.meet(CALLER, "the caller's thread", "loop", began)
    meter = ItemMeter()
    for first, result in outcomes(blocks):
        meter.add(len(result.values), result.wall, result.cpu)
        report.add(CALLER, first, result, result.begun + result.wall)
    if blocks:
        cost = meter.summary()
        seen = Measurement(cost.items, cost.wall, min(cost.cpu, cost.wall), spread=cost.spread)
        report.measured, report.reason = seen, too_little(seen, items)
    return report


def outcomes(blocks: Blocks) -> Iterator[tuple[int, ChunkResult]]:
    """Blocks by their first items, without the values."""
    first = 0
    for count, wall, cpu, begun in blocks:
        yield first, ChunkResult([None] * count, (), wall, cpu, begun=begun)
        first += count
