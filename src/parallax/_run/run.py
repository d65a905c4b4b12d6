"""One run: from a loop in the caller's thread to workers, and back if that was wrong.

A run begins *inline*: the caller's thread works through the items as a loop would, while the
profiler measures. When a plan says so, the run *opens*: from then on the dispatcher hands chunks to
workers, of which the caller's thread may go on being one until the others are up.

Who turns the loop: the caller's thread. While it is inside an item, worker threads report their
own outcomes and the sampler's thread looks after worker processes and the plan, all under the
dispatcher's lock, so that nothing waits for a long item of the caller's.

Guarantees: an item runs once, except after its worker died or for ``retries``; ``close`` leaves
nothing behind. Assumption: ``batches`` is advanced by one thread at a time.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from parallax._backends.contract import Call, Done
from parallax._core.chunks import ChunkResult
from parallax._core.deferred_signals import Shield
from parallax._core.nesting import enter, entered, here
from parallax._core.options import Options
from parallax._reporting.progress import make_progress
from parallax._reporting.reports import Report
from parallax._reporting.stall_monitor import StallMonitor
from parallax._run import caller_loop
from parallax._run.controller import CallerState, Controller
from parallax._run.dispatcher import CALLER
from parallax._run.map_stall_view import MapStallView
from parallax._scheduling.input import Input

__all__ = ["Run"]

clock = time.perf_counter

#: Seconds per inline block. Shorter shows in the time of tiny items, longer delays the plan.
BLOCK = 0.002

#: Seconds per inline block when there is nothing to decide.
LONG_BLOCK = 0.05

#: Seconds of work left below which nothing but the loop is thought of. Smaller spends more on
#: thinking than workers can save, larger forgoes savings of half of it.
SMALL = 0.015

#: Seconds of work before the first thought of workers between items. The very first calls of a
#: function are many times slower than the rest.
GLANCE = 0.003

#: Seconds that items in flight get when the run fails: an earlier item may fail too, and it is
#: the one whose error the loop would have raised.
GRACE = 0.05

#: Seconds that items in flight get when the error is known: a worker that ends its item stays warm.
LAST = 0.02

#: Seconds that a reader of a stream may wait for its first results while the run measures.
PATIENCE = 0.03

#: Bytes of results, and seconds of work, that may wait for the reader of a stream.
WAITING_BYTES = 64e6
WAITING_SECONDS = 0.25


class Run:
    """One call of ``parallel_map``, ``parallel_imap`` or ``explain``."""

    def __init__(
        self, fn: Callable[..., Any], name: str, source: Input, options: Options, *, stream: bool
    ) -> None:
        """Check what can be checked; nothing is started yet.

        Args:
            fn: the user's callable.
            name: how to call it in messages.
            source: the input.
            options: the checked options.
            stream: results are read one by one, so read-ahead is bounded and each matters.
        """
        self._source = source
        self._options = options
        self._stream = stream
        self._call = Call(fn, source.star, options.on_error == "raise")
        self.report = Report(callable=name)
        self._caller = CallerState()
        self._controller = Controller(
            self._call, source, options, self.report, self._caller, stream
        )
        self._forced = self._controller.forced
        self._profiler = self._controller.profiler
        self._dispatch = self._controller.dispatch
        self._progress = make_progress(options.progress, source.total)
        self._deadline = None if options.timeout is None else clock() + options.timeout
        watched = MapStallView(name, source, self._dispatch, self._caller)
        # Calls inside of calls are part of what the outer one's monitor sees.
        self._stall_monitor = StallMonitor(watched, 0.0 if here().level else options.stall_warn)
        self._failed_at: float | None = None
        self._closed = False
        #: where the caller's thread was put before it went inside this run.
        self._around = entered()

    # -- the face ------------------------------------------------------------------------------

    def batches(self) -> Iterator[list[Any]]:
        """Yield results in batches, in order (or as they come, with ``ordered=False``).

        Raises:
            BaseException: what an item or the input raised.
        """
        batches = self._batches()
        caller = self._caller
        try:
            for batch in batches:
                caller.away = True
                yield batch
                caller.away, caller.last = False, clock()
        except BaseException:
            self.close(0.0)  # an interrupt may have come before the one below began
            raise
        finally:
            caller.away = False
            batches.close()

    def _batches(self) -> Generator[list[Any], None, None]:
        self._caller.thread = self._dispatch.owner = threading.get_ident()
        grace = 0.0
        try:
            if self._forced in {None, "loop"}:
                yield from self._loop()
            if self._dispatch.scheduler is not None or not self._source.ended:
                if self._dispatch.scheduler is None:
                    self._controller.open(self._controller.forced_plan())
                yield from self._drive()
            if self._source.error is not None:
                if self._call.stop:
                    raise self._source.error
                self.report.note(f"the input itself raised, after {self._caller.delivered} items")
                yield [self._source.error]
            grace = 5.0
        except Exception:
            grace = LAST
            raise
        finally:
            self.close(grace)

    def explain(self, budget: float) -> Report:
        """Run the first items, keep nothing, and say what would be done with the rest.

        Args:
            budget: seconds of work after which to answer in any case.
        """
        self._caller.thread = self._dispatch.owner = threading.get_ident()
        self._controller.explaining = True
        try:
            if self._forced in {None, "loop"}:
                for _ in self._loop():
                    if self._controller.planned or clock() > self._controller.begin + budget:
                        break
            else:
                self._controller.adopt(self._controller.forced_plan(), clock())
        finally:
            self.close(0.0)
        self.report.explained = True
        return self.report

    def close(self, grace: float) -> None:
        """End all workers of this run; idempotent.

        Args:
            grace: seconds for items that are still running.
        """
        with Shield():
            if self._closed:
                return
            self._closed = True
            if entered() is self._controller.inside:
                enter(self._around)  # Ctrl-C came as a block was about to do so
            self._stall_monitor.stop()
            self._caller.sample = []
            try:
                self._profiler.caller.stop_sampler()  # raises what was wrong in its thread
            finally:
                self._dispatch.close(grace)
                if self._progress is not None:
                    self._progress.close()
                self._controller.close()
        self._controller.tell(last=True)  # handlers of the program, which Ctrl-C may end

    # -- the caller's thread as the loop -------------------------------------------------------

    def _loop(self) -> Iterator[list[Any]]:
        """Work as a loop would until the input ends or a plan opens the run."""
        source, profiler, dispatch = self._source, self._profiler, self._dispatch
        measuring = self._forced is None
        if measuring and self._controller.recall():
            return
        self._stall_monitor.start()
        size, last = 1, clock()
        first = True
        while not dispatch.begun() and not source.ended:
            if first and measuring and self._worth_watching():
                # From the first item on: it may be a long one.
                profiler.caller.start_sampler(self._controller.on_sample)
            direct = source.anywhere and size > 1 and not self._options.retries
            items = None if direct else source.take(size)
            if items == []:
                break
            if first and measuring and items:
                profiler.limits.inspect(tuple(items[0]) if source.star else (items[0],))
            first = False
            result = self._block(items, size, watch=measuring and profiler.limits.watching)
            if not result.values:
                break
            if dispatch.begun():
                # The sampler opened the run while we were inside the item.
                dispatch.post(Done(CALLER, dispatch.caller_chunk.id, result))
                del result, items
                break
            error = self._deliver(result)
            if error is not None:
                if self._stream and self._caller.out:
                    yield self._flush()
                raise error
            now = clock()
            if measuring:
                self._reconsider(result, now)
            size = self._next_size(size, result, measuring=measuring)
            del result, items  # a result that was read must not be kept alive here
            if self._deadline is not None and now > self._deadline:
                raise self._timed_out()
            if self._caller.out and self._due(now - last):
                profiler.caller.stop_sampler()
                yield self._flush()
                last = clock()
                if measuring and not dispatch.begun() and not self._controller.planned:
                    profiler.caller.start_sampler(self._controller.on_sample)
        if self._caller.out:
            yield self._flush()

    def _worth_watching(self) -> bool:
        """Whether there may be more than a moment's work."""
        left, past_run = self._source.left, self._profiler.past_run
        if left is not None and past_run is not None:
            return left * past_run.measurement.wall > SMALL
        return left != 1

    def _block(self, items: list[Any] | None, size: int, *, watch: bool) -> ChunkResult:
        """Run a block of items here; with ``items`` None straight off the input."""
        profiler, source, call = self._profiler, self._source, self._call
        if watch and items:
            profiler.limits.before_item(tuple(items[0]) if source.star else (items[0],))
        if items and self._forced is None and self._profiler.workers.payload is None:
            self._caller.sample = items[:1]
        values: list[Any] = []
        self._caller.block = (begin := clock()), size, values
        profiler.caller.begin(begin)
        if items is not None and len(items) == 1 and not watch and self._forced is None:
            self._caller.inside = items
        self._around = entered()
        enter(self._controller.inside)
        try:
            if items is None:
                result = caller_loop.direct(call.fn, source, size, values, stop=call.stop)
            else:
                result = caller_loop.listed(call, items, self._options.retries, values)
        finally:
            enter(self._around)
            with self._dispatch.lock:  # a plan in the sampler's thread is made before or after
                self._caller.inside = None
                self._caller.block = 0.0, 0, ()
        alone = self._dispatch.scheduler is None
        profiler.caller.end(len(result.values), result.wall, result.cpu, alone=alone)
        if watch:
            profiler.limits.after_item()
        self.report.worked("loop", result.wall, result.cpu)
        return result

    def _deliver(self, result: ChunkResult) -> BaseException | None:
        """Make the results of an inline block ready; return what ends the run, if anything."""
        values, error = caller_loop.settle(result, self._caller.delivered, stop=self._call.stop)
        self._caller.out.extend(values)
        self._count(len(values))
        return error

    def _count(self, finished: int) -> None:
        self._caller.delivered += finished
        self.report.items = self._caller.delivered
        if self._progress is not None and finished:
            self._progress.update(finished)

    def _reconsider(self, result: ChunkResult, now: float) -> None:
        """Between two blocks: is there enough left to think about workers?"""
        left = self._source.left
        each = result.wall / len(result.values)
        if left is not None and left * each < SMALL:
            self._profiler.caller.stop_sampler()
            return
        if self._profiler.caller.wall < GLANCE:
            return
        if self._controller.planned:
            self._profiler.caller.stop_sampler()  # the plan is settled; items are timed on
        else:
            self._profiler.caller.start_sampler(self._controller.on_sample)
        if now >= self._controller.review_at and not self._profiler.limits.watching:
            with self._dispatch.lock:
                self._controller.review(now)

    def _next_size(self, size: int, result: ChunkResult, *, measuring: bool) -> int:
        each = result.wall / len(result.values)
        seconds = BLOCK if measuring else LONG_BLOCK
        most = size * 8
        size = max(1, min(most, int(seconds / each) if each > 0 else most))
        if self._profiler.limits.watching or self._options.retries:
            return 1
        if self._stream and self._options.buffersize is not None:
            size = min(size, self._options.buffersize - len(self._caller.out))
        return max(1, size)

    def _due(self, since: float) -> bool:
        """Whether the reader gets what is there now."""
        if not self._stream:
            return False
        full = len(self._caller.out) >= (self._options.buffersize or 1 << 16)
        return full or self._forced == "loop" or self._controller.planned or since > PATIENCE

    def _flush(self) -> list[Any]:
        out, self._caller.out = self._caller.out, []
        return out

    # -- workers -------------------------------------------------------------------------------

    def _drive(self) -> Iterator[list[Any]]:
        """Turn the loop until all results are out."""
        dispatch = self._dispatch
        self._stall_monitor.start()
        if self._caller.out:
            yield self._flush()
        while True:
            dispatch.waker.clear()
            ready = dispatch.take()
            self._controller.tell()  # first, what these items said
            if ready:
                self._count(len(ready))
                yield ready
            if dispatch.fatal is not None:
                raise dispatch.fatal
            assert dispatch.scheduler is not None
            if dispatch.scheduler.failed is not None:
                self._failed_at = self._failed_at or clock()
                late = clock() > self._failed_at + GRACE
                error = dispatch.failure()
                if error is not None and (late or dispatch.scheduler.finished):
                    if ready := dispatch.take():
                        self._count(len(ready))
                        yield ready
                    raise error
            elif dispatch.scheduler.finished:
                if not (ready := dispatch.take()):
                    return
                self._count(len(ready))
                yield ready
            self._move_window()
            if dispatch.caller_task is not None:
                if self._deadline is not None and clock() > self._deadline:
                    raise self._timed_out()
                self._work()
            elif not dispatch.pull():
                self._profiler.caller.stop_sampler()
                dispatch.wait(self._patience())

    def _work(self) -> None:
        """The caller's thread runs a chunk like any other worker."""
        dispatch, profiler = self._dispatch, self._profiler
        assert dispatch.caller_task is not None
        chunk, items = dispatch.caller_task
        dispatch.caller_task = None
        if self._forced is None and "processes" in dispatch.crews:
            profiler.caller.start_sampler(self._controller.on_sample)
        self._caller.inside = items
        values: list[Any] = []
        self._caller.block = clock(), chunk.size, values
        self._around = entered()
        enter(self._controller.inside)
        try:
            result = caller_loop.listed(self._call, items, 0, values)
        finally:
            enter(self._around)
            with dispatch.lock:
                self._caller.inside = None
                self._caller.block = 0.0, 0, ()
        dispatch.post(Done(CALLER, chunk.id, result))
        if dispatch.caller_task is None:
            profiler.caller.stop_sampler()

    def _patience(self) -> float | None:
        """How long the caller's thread may wait for events."""
        left = self._left()
        if left > 0:
            return None if left == math.inf else left
        if self._deadline is not None and clock() >= self._deadline:
            raise self._timed_out()
        # Who has answered meanwhile is not late.
        self._dispatch.poll()
        self._dispatch.tick()
        # What that has changed is to be looked at before anything is waited for.
        return 0.0 if self._left() > 0 else 0.01

    def _left(self) -> float:
        """Seconds until something has to be looked at."""
        scheduler = self._dispatch.scheduler
        failed = None if self._failed_at is None else self._failed_at + GRACE
        moments = (self._deadline, scheduler.deadline() if scheduler else None, failed)
        return min((m for m in moments if m is not None), default=math.inf) - clock()

    def _timed_out(self) -> TimeoutError:
        done, limit = self._caller.delivered, self._options.timeout
        return TimeoutError(f"{done} items were finished when timeout={limit:g} s was over")

    def _move_window(self) -> None:
        """Bound how far a stream runs ahead of its reader, by time and by bytes."""
        scheduler = self._dispatch.scheduler
        if not self._stream or self._options.buffersize is not None or scheduler is None:
            return
        crew = max(2, self._dispatch.wanted)
        window = 4.0 * crew
        if scheduler.mean:
            window = max(window, crew * WAITING_SECONDS / scheduler.mean)
        if self.report.bytes_out and self._caller.delivered:
            window = min(window, WAITING_BYTES / (self.report.bytes_out / self._caller.delivered))
        scheduler.move_window(int(max(2 * crew + 1, min(window, 1e6))))
