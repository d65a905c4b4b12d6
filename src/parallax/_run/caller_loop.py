"""Items run in the caller's own thread, at the speed of the loop that they replace.

Purpose: the inline phase of a run: works through the items in blocks while the profiler measures,
until the input ends or a plan opens the run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from parallax._backends.capture import run_chunk
from parallax._core.chunks import ChunkResult
from parallax._core.light_stdlib import Any
from parallax._run.caller_items import run_next, with_errors
from parallax._run.caller_state import RunSetup
from parallax._run.controller import Controller
from parallax._run.first_items import outcomes

clock = time.perf_counter

#: Seconds per inline block: at first, as a share of what has run, and at most. Shorter shows in the
#: time of short items, longer delays the plan.
MEASURED_BLOCK_S, MEASURED_BLOCK_SHARE, LATE_BLOCK_S = 0.002, 0.1, 0.008

#: Seconds per inline block when there is nothing to decide. Shorter pays more blocks, longer makes
#: ``timeout`` and the progress bar coarse.
PLAIN_BLOCK_S = 0.05

#: Seconds per inline block whose times are kept. Shorter pays more blocks, longer hides items.
RECORDED_BLOCK_S = 0.005

#: Seconds of an item from which on blocks end by the clock as well, which takes 0.1 us an item.
TIMED_ITEM_S = 1e-5

#: Seconds of work left below which only the loop is considered. Smaller spends more on planning
#: than workers can save, larger forgoes savings of half of it.
MIN_PLANNED_WORK_S = 0.015

#: Seconds of work before workers are first considered between items. The very first calls of a
#: function are many times slower than the rest.
FIRST_REVIEW_S = 0.003

#: Seconds of the first items from which on a plan is made before the next one. Smaller plans before
#: anybody has looked at what an item changes, larger keeps cores idle for as long.
COSTLY_ITEM_S = 0.1

#: Seconds that a reader of a stream may wait for its first results while the run measures.
FIRST_RESULTS_S = 0.03

#: Results that wait for the reader of a stream without ``buffersize`` while the run is a loop.
MAX_WAITING_RESULTS = 1 << 16


class CallerLoop:
    def __init__(self, setup: RunSetup, controller: Controller) -> None:
        self._call, self._source, self._options = setup.call, setup.source, setup.options
        self._caller, self._stream, self._first = setup.caller, setup.stream, setup.first
        self._report = setup.report
        self._controller = controller
        self._within = math.inf  # seconds in which the items of the next block must begin
        #: there is more than a moment's work left.
        self._much = True
        if (first := self._first) is not None:
            profiler = controller.profiler
            profiler.caller.began_in(first.thread)
            for _, result in outcomes(first.blocks):
                self._add(result)
                self._caller.count(len(result.values))
            profiler.limits.begun(first.process)

    def batches(self) -> Iterator[list[Any]]:
        """Work until the input ends or a plan opens the run; yield results in batches."""
        source, controller, profiler = self._source, self._controller, self._controller.profiler
        measuring = controller.forced is None
        flow = controller.dispatch.flow
        size, last = 1, clock()
        first = True
        self._much = self._worth_watching()
        if self._first is not None:
            profiler.limits.after_block()
            if (last_block := self._first.result) is not None:
                yield from self._come_in(last_block)
            if measuring and not flow.begun() and profiler.caller.cost().wall >= COSTLY_ITEM_S:
                controller.plan_now(thread_matters=True)
        while not flow.begun() and not source.ended:
            if first and measuring and self._worth_watching():
                # From the first item on: it may be a long one.
                profiler.caller.start_sampler(self._controller.on_sample)
            limits = profiler.limits
            watch = limits.watch
            # Taking an item may change the one before: a loop takes each when that has run.
            items = None if size > 1 else source.take(1)
            if items == []:
                break
            if items and watch is not None and not source.anywhere:
                watch.took(self._caller.delivered, late=True)
            if first and measuring and items:
                profiler.limits.inspect(source.arguments(items[0]), source.some_calls)
                if not source.anywhere or self._worth_watching():
                    limits.cast_net(inputs_run=not source.anywhere)
            first = False
            result = self._block(items, size, watch=measuring and limits.looking)
            if not result.values:
                break
            if watch is not None:
                watch.weigh(result.wall / len(result.values), source.left)
            if flow.begun():
                # The sampler opened the run while we were inside the item.
                controller.dispatch.post_caller(result)
                del result, items
                break
            try:
                yield from self._deliver(result)
            except BaseException:
                del result, items  # the traceback refers to this frame
                raise
            now = clock()
            if measuring:
                self._reconsider(result, now)
            size = self._next_size(size, result, measuring=measuring)
            del result, items  # a result that was read must not be kept alive here
            self._caller.check_deadline(now)
            if self._caller.out and self._due(now - last):
                profiler.caller.stop_sampler()
                yield self._caller.flush()
                last = clock()
                if measuring and not flow.begun() and not self._controller.planned:
                    profiler.caller.start_sampler(self._controller.on_sample)
        if self._caller.out:
            yield self._caller.flush()

    def _worth_watching(self) -> bool:
        """Whether there may be more than a moment's work."""
        left, past_run = self._source.left, self._controller.profiler.past_run
        if left is not None and past_run is not None:
            return left * past_run.measurement.wall > MIN_PLANNED_WORK_S
        return left != 1

    def _block(self, items: list[Any] | None, size: int, *, watch: bool) -> ChunkResult:
        """Run a block of items here; with ``items`` None straight off the input."""
        profiler, source, call = self._controller.profiler, self._source, self._call
        if watch and items:
            profiler.limits.before_item(source.arguments(items[0]))
        measuring = self._controller.forced is None
        looked = measuring and self._much
        if looked:
            profiler.limits.before_block()
        if measuring and (items or self._stream):  # a stream keeps no items that were read
            self._caller.sample = items[:1] if items and profiler.workers.payload is None else []

        def work(values: list[Any]) -> ChunkResult:
            if items is None:
                within = self._within
                return run_next(call.fn, source, size, values, stop=call.stop, within=within)
            return run_chunk(call.fn, items, values, star=call.star, stop=call.stop)

        single = items is not None and len(items) == 1
        waited_for = profiler.limits.watching
        overtaken = items if single and not waited_for and measuring else None
        lock, place = self._controller.dispatch.lock, self._controller.inside
        for retries in range(self._options.retries, -1, -1):
            profiler.caller.begin(clock())
            result = self._caller.run(work, size, place, lock, overtaken)
            if not retries or not self._runs_again(result):
                break
            overtaken = None  # workers would give it all its attempts anew
        if watch:
            profiler.limits.after_item(self._caller.delivered)
        if measuring and result.values:
            left = source.left
            each = result.wall / len(result.values)
            self._much = left is None or left * each > MIN_PLANNED_WORK_S
            if looked and self._much:
                profiler.limits.after_block()
        with lock:
            self._add(result)
        return result

    def _runs_again(self, result: ChunkResult) -> bool:
        """Whether an item that has failed here, alone, is run again at once; counts that."""
        failed = bool(result.failures) and isinstance(result.failures[0].error, Exception)
        if not failed or self._controller.dispatch.flow.begun():
            return False
        self._report.retried += 1
        with self._controller.dispatch.lock:
            self._add(result)
        return True

    def _add(self, result: ChunkResult) -> None:
        """Add the times of a block; workers may have begun meanwhile, and report as well."""
        alone = not self._controller.dispatch.flow.begun()
        meter = self._controller.profiler.caller
        meter.end(len(result.values), result.wall, result.cpu, alone=alone)
        if alone:  # else it comes back as a chunk, and is counted there
            self._controller.count(self._caller.delivered, result)

    def _come_in(self, result: ChunkResult) -> Iterator[list[Any]]:
        """Take the outcome of the block during which the run was made."""
        dispatch = self._controller.dispatch
        with dispatch.lock:
            self._caller.leave_block()
            self._add(result)
        if dispatch.flow.begun():
            dispatch.post_caller(result)
        else:
            yield from self._deliver(result)

    def _deliver(self, result: ChunkResult) -> Iterator[list[Any]]:
        """Make the results of an inline block ready, and raise the error that ends the run."""
        start, stop = self._caller.delivered, self._call.stop
        values, error = with_errors(result, start, stop=stop)
        self._caller.out.extend(values)
        self._caller.count(len(values))
        if error is not None:
            if self._stream and self._caller.out:
                yield self._caller.flush()
            try:
                raise error
            finally:
                del result, values, error  # its traceback refers to this frame

    def _reconsider(self, result: ChunkResult, now: float) -> None:
        """Between two blocks: review the plan if enough work is left for workers."""
        controller, left = self._controller, self._source.left
        caller = controller.profiler.caller
        if left is not None and left * result.wall / len(result.values) < MIN_PLANNED_WORK_S:
            caller.stop_sampler()
            return
        if caller.wall < FIRST_REVIEW_S:
            return
        if controller.planned:
            caller.stop_sampler()  # the plan is settled; item times are still measured
        else:
            caller.start_sampler(controller.on_sample)
        if now >= controller.review_at and not controller.profiler.limits.watching:
            with controller.dispatch.lock:
                controller.review(now)

    def _next_size(self, size: int, result: ChunkResult, *, measuring: bool) -> int:
        each = result.wall / len(result.values)
        share = MEASURED_BLOCK_SHARE * self._controller.profiler.caller.wall
        measured = min(max(MEASURED_BLOCK_S, share), LATE_BLOCK_S)
        seconds = measured if measuring else PLAIN_BLOCK_S
        settled = self._controller.planned and self._source.anywhere and not self._stream
        self._within = math.inf
        if settled and each >= TIMED_ITEM_S:
            # Between two looks at the plan there is nothing to decide, if items are as they were.
            seconds = min(max(seconds, self._controller.review_at - clock()), PLAIN_BLOCK_S)
            self._within = 1.5 * seconds
        if self._options.record:
            seconds = min(seconds, RECORDED_BLOCK_S)
        most = size * 8
        size = max(1, min(most, int(seconds / each) if each > 0 else most))
        limits = self._controller.profiler.limits
        alone = not self._source.anywhere and limits.watch is not None and limits.watch.fresh
        if alone or limits.looking or self._options.retries:
            return 1
        if self._stream and self._options.buffersize is not None:
            size = min(size, self._options.buffersize - len(self._caller.out))
        return max(1, size)

    def _due(self, since: float) -> bool:
        """Whether the reader gets what is there now."""
        if not self._stream:
            return False
        full = len(self._caller.out) >= (self._options.buffersize or MAX_WAITING_RESULTS)
        decided = self._controller.forced == "loop" or self._controller.planned
        return full or decided or since > FIRST_RESULTS_S
