"""One run: from a loop in the caller's thread to workers, and back if the plan was wrong.

A run begins *inline*: the caller's thread works through the items as a loop would, while the
profiler measures. When a plan says so, the run *opens*: from then on the dispatcher hands chunks
to workers, of which the caller's thread may go on being one until the others are up.

The caller's thread turns the loop. While it is inside an item, worker threads report their own
outcomes and the sampler's thread looks after worker processes and the plan, all under the
dispatcher's lock, so that nothing waits for a long item of the caller's.

Guarantees: an item runs once, except after its worker died or for ``retries``; ``close`` leaves
nothing behind. Assumption: ``batches`` is advanced by one thread at a time.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator

from parallax._backends.capture import run_chunk
from parallax._backends.contract import Call
from parallax._core.deferred_signals import Shield
from parallax._core.lazy_import import futures, lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING, Any
from parallax._core.nesting import here
from parallax._core.options import BACKENDS, Options
from parallax._reporting.recording import Recording
from parallax._reporting.reports import Report
from parallax._reporting.stall_monitor import StallMonitor
from parallax._reporting.unread import log_unread
from parallax._run.caller_loop import CallerLoop
from parallax._run.caller_state import CallerState, RunSetup
from parallax._run.controller import Controller
from parallax._run.first_items import FirstItems
from parallax._run.map_stall_view import MapStallView
from parallax._scheduling.input import Input

if TYPE_CHECKING:
    from parallax._backends import clusters
else:
    clusters = lazy_module("parallax._backends.clusters")

clock = time.perf_counter

#: Seconds that items in flight get when the run fails: an earlier item may fail too, and that is
#: the one whose error the loop would have raised.
EARLIER_FAILURE_WAIT_S = 0.05

#: Seconds that items in flight get when the error is known: a worker that ends its item stays warm.
FAILED_CLOSE_GRACE_S = 0.02

#: Seconds that items in flight get at the end of a run that did not fail.
CLOSE_GRACE_S = 5.0

#: Bytes of results, and seconds of work, that may wait for the reader of a stream.
STREAM_WAITING_BYTES = 64e6
STREAM_WAITING_WORK_S = 0.25


class Run:
    """One call of ``parallel_map``, ``parallel_imap`` or ``explain``."""

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        source: Input,
        options: Options,
        *,
        stream: bool,
        first: FirstItems | None = None,
    ) -> None:
        """Check what can be checked; nothing is started yet. ``name`` is the callable's."""
        if options.backend not in BACKENDS:
            options = clusters.connected(options)
        self._source = source
        self._options = options
        self._stream = stream
        self._call = Call(fn, source.star, options.on_error == "raise")
        self.report = Report(callable=name, work=Recording(keep=options.record))
        bar = None
        if options.progress is not False:
            from parallax._reporting.progress import make_progress

            bar = make_progress(options.progress, source.total)
        self._caller = CallerState(self.report, bar, options.timeout)
        setup = RunSetup(self._call, source, options, self.report, self._caller, stream, first)
        self._first = first
        self._controller = Controller(setup)
        self._loop = CallerLoop(setup, self._controller)
        self._forced = self._controller.forced
        self._profiler = self._controller.profiler
        self._dispatch = self._controller.dispatch
        watched = MapStallView(name, source, self._dispatch, self._caller)
        # Calls inside of calls are part of what the outer one's monitor sees.
        self._stall_monitor = StallMonitor(watched, 0.0 if here().level else options.stall_warn)
        self._failed_at: float | None = None
        self._closed = False

    def overtake(self) -> None:
        """Have others run items while the caller's thread is inside of the first ones."""
        first, caller, profiler = self._first, self._caller, self._profiler
        assert first is not None
        limits, items, measuring = profiler.limits, first.items, self._forced is None
        caller.thread, caller.block = first.thread.ident, first.block
        profiler.caller.begin(first.block[0])
        self._dispatch.read_here(caller.thread)
        self._stall_monitor.start()
        if not measuring or first.process is None or len(items) != 1:
            return
        limits.inspect(self._source.arguments(items[0]), self._source.some_calls)
        if not limits.watching and not limits.find_one_thread():
            caller.sample, caller.inside = [*items], items
        profiler.caller.start_sampler(self._controller.on_sample, first.thread)

    # -- for the api ---------------------------------------------------------------------------

    def batches(self) -> Generator[list[Any], None, None]:
        """Yield results in batches, in order (or as they come, with ``ordered=False``)."""
        batches = self._batches()
        caller = self._caller
        try:
            for batch in batches:
                caller.away = True
                yield batch
                del batch  # the frames of the errors in it lead here
                caller.away, caller.last = False, clock()
        except BaseException as raised:
            self.close(0.0)  # an interrupt may have come before the one below began
            self.report.cut(raised)
            if isinstance(raised, GeneratorExit) and (error := self._source.take_error()):
                log_unread(self.report.callable, error)
            raise
        finally:
            caller.away = False
            batches.close()

    def _batches(self) -> Generator[list[Any], None, None]:
        self._caller.thread = threading.get_ident()
        self._dispatch.read_here()
        grace = 0.0
        try:
            yield from self._inline()
            if self._dispatch.flow.scheduler is not None or not self._source.ended:
                if self._dispatch.flow.scheduler is None:
                    self._controller.open(self._controller.forced_plan())
                yield from self._drive()
            if (error := self._source.take_error()) is not None:
                if self._call.stop:
                    raise error
                self.report.note(f"the input itself raised, after {self._caller.delivered} items")
                yield [error]
            grace = CLOSE_GRACE_S
        except Exception:
            grace = FAILED_CLOSE_GRACE_S
            raise
        finally:
            error = None  # its traceback refers to this frame
            self.close(grace)

    def explain(self, budget: float) -> Report:
        """Run the first items, keep nothing, and say what would be done with the rest."""
        self._caller.thread = threading.get_ident()
        self._dispatch.read_here()
        self._controller.explaining = True
        try:
            if self._forced in {None, "loop"}:
                for _ in self._inline():
                    if self._controller.planned or clock() > self._controller.begin + budget:
                        break
            else:
                self._controller.adopt(self._controller.forced_plan(), clock())
            if (error := self._source.take_error()) is not None:
                raise error
        except BaseException as raised:
            self.report.cut(raised)
            raise
        finally:
            error = None  # as in _batches
            self.close(0.0)
        self.report.explained = True
        return self.report

    def report_now(self) -> Report:
        """The report, brought up to date while the run goes on."""
        if not self._closed:
            self.report.seconds = clock() - self._controller.begin
        return self.report

    def cancel(self) -> None:
        """Have the thread that waits in ``batches`` raise CancelledError after what is ready."""
        self._dispatch.fail(futures.CancelledError("the iterator was closed by another thread"))

    def close(self, grace: float, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        """End all workers of this run; idempotent."""
        if ending():  # all have ended, and modules may be empty already
            return
        with Shield():
            if self._closed:
                return
            self._closed = True
            self._caller.leave(self._controller.inside)
            self._stall_monitor.stop()
            try:
                self._profiler.caller.stop_sampler()  # raises what was wrong in its thread
            finally:
                self._dispatch.close(grace)
                self._caller.close()
                self._controller.close()
                self._source.whole = ()
        self._controller.tell(last=True)  # handlers of the program, which Ctrl-C may end

    def _inline(self) -> Iterator[list[Any]]:
        """The caller's thread works as a loop, unless an earlier call tells what to do."""
        # A block of the first items may have to come in: another call of the callable, in another
        # thread, may have made history while this one was inside of it.
        first = self._first is not None and self._first.result is not None
        if first or (
            self._forced in {None, "loop"}
            and not (self._forced is None and self._controller.open_from_history())
        ):
            self._stall_monitor.start()
            yield from self._loop.batches()

    # -- workers -------------------------------------------------------------------------------

    def _drive(self) -> Iterator[list[Any]]:
        """Turn the loop until all results are out."""
        dispatch, flow = self._dispatch, self._dispatch.flow
        self._stall_monitor.start()
        if self._caller.out:
            yield self._caller.flush()
        while True:
            ready, over = dispatch.take()
            self._controller.tell()  # first, what these items printed
            if ready:
                self._caller.count(len(ready))
                yield ready
            if flow.fatal is not None:
                raise flow.fatal
            if (error := dispatch.failure()) is not None:
                self._failed_at = self._failed_at or clock()
                if over or clock() > self._failed_at + EARLIER_FAILURE_WAIT_S:
                    if ready := dispatch.take()[0]:
                        self._caller.count(len(ready))
                        yield ready
                    try:
                        raise error
                    finally:
                        del error  # its traceback refers to this frame
            elif over:
                return
            self._move_window()
            if flow.caller_task is not None:
                self._caller.check_deadline(clock())
                self._work()
            elif not dispatch.pull():
                self._profiler.caller.stop_sampler()
                dispatch.wait(self._patience())

    def _work(self) -> None:
        """The caller's thread runs a chunk like any other worker."""
        dispatch, caller = self._dispatch, self._profiler.caller
        task = dispatch.take_task()
        assert task is not None  # only this thread takes any
        (chunk, items), call = task, self._call
        if self._forced is None and "processes" in dispatch.flow.table.crews:
            caller.start_sampler(self._controller.on_sample)
        limits, watch = self._profiler.limits, self._profiler.limits.watch
        suspected = watch is not None and chunk.start in watch.suspected
        if watch is not None and suspected:
            watch.before(self._source.arguments(items[0]))
        result = self._caller.run(
            lambda values: run_chunk(call.fn, items, values, star=call.star, stop=call.stop),
            chunk.size,
            self._controller.inside,
            dispatch.lock,
            items,
        )
        if watch is not None and suspected:
            watch.confirm(chunk.start)
            limits.warn()
        dispatch.post_caller(result)
        if dispatch.flow.caller_task is None:
            caller.stop_sampler()

    def _patience(self) -> float | None:
        """How long the caller's thread may wait for events."""
        left = self._left()
        if left > 0:
            return None if left == math.inf else left
        self._caller.check_deadline(clock())
        # Who has answered meanwhile is not late.
        self._dispatch.poll()
        self._dispatch.tick()
        # What that has changed is to be looked at before anything is waited for.
        return 0.0 if self._left() > 0 else 0.01

    def _left(self) -> float:
        """Seconds until something has to be looked at."""
        failed = None if self._failed_at is None else self._failed_at + EARLIER_FAILURE_WAIT_S
        moments = (self._caller.deadline, self._dispatch.deadline(), failed)
        return min((m for m in moments if m is not None), default=math.inf) - clock()

    def _move_window(self) -> None:
        """Bound how far a stream runs ahead of its reader, by time and by bytes."""
        scheduler = self._dispatch.flow.scheduler
        if not self._stream or self._options.buffersize is not None or scheduler is None:
            return
        crew = max(2, self._dispatch.flow.wanted)
        window = 4.0 * crew
        if scheduler.mean:
            window = max(window, crew * STREAM_WAITING_WORK_S / scheduler.mean)
        if self.report.bytes_out and self._caller.delivered:
            window = min(
                window, STREAM_WAITING_BYTES / (self.report.bytes_out / self._caller.delivered)
            )
        with self._dispatch.lock:
            scheduler.move_window(int(max(2 * crew + 1, min(window, 1e6))))
