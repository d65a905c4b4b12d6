"""The engine of ``Executor``: it finds out for each function how calls are best run.

Route choices decide; engines run the calls, in threads and processes. One lock guards all of it.

Guarantees: every call ends in its result or an error. It runs once; again if its worker died or its
result does not pickle. At most ``max_workers`` calls, if given, run at a time.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from contextvars import Context
from operator import attrgetter
from typing import Any

from parallax._adaptive.call import AdaptiveCall, CallCounts
from parallax._adaptive.functions import FunctionCall, Functions, FunctionState
from parallax._adaptive.process_route import ProcessRoute, Settings, Submitted
from parallax._adaptive.trial_runs import TrialRuns, broken, clock
from parallax._backends.processes.parent.task import Task
from parallax._backends.thread_engine import ThreadEngine
from parallax._core.callables import weakly
from parallax._core.contexts import snapshot
from parallax._core.deferred_signals import Shield
from parallax._core.errors import SerializationError
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.nesting import here
from parallax._routing.requested import MOST_THREADS, THREADS
from parallax._routing.route_choice import ThreadGrowth

if TYPE_CHECKING:
    from parallax._core.options import CallOptions
    from parallax._reporting.recording import CallRecording

__all__ = ["AdaptiveEngine", "Settings"]


class AdaptiveEngine(TrialRuns):
    """Runs calls where they are best run. Thread-safe."""

    backend = "auto"

    def __init__(self, settings: Settings) -> None:
        self.lock: Any = threading.RLock()
        self._errors = settings.errors
        if settings.initializer is not None:
            self._errors()  # imported while that is possible: an initializer may fail at exit
        self.threads = ThreadEngine(
            settings.max_workers or settings.default_threads,
            name=settings.name,
            broken=functools.partial(broken, settings.errors),
            initializer=settings.initializer,
            initargs=settings.initargs,
            failed=weakly(self.fail_waiting),
            lock=self.lock,
            stall_warn=settings.stall_warn,
        )
        self._limit = settings.max_workers
        self._growth = None if self._limit else ThreadGrowth(THREADS, MOST_THREADS)
        self.processes = ProcessRoute(settings, here(), self.lock, weakly(self._ran_in_process))
        self.functions = Functions(self.lock, self.processes, weakly(self._decided))
        self.counts = CallCounts(self._limit, self.processes)
        #: calls that have not ended, in the order of submission; those beyond ``max_workers``.
        self._open: dict[AdaptiveCall, None] = {}
        self._line: deque[AdaptiveCall] = deque()
        self.closing = False
        self._all_ended = threading.Condition(self.lock)

    # -- the contract of an engine -------------------------------------------------------------

    max_workers = property(attrgetter("threads.max_workers"))
    ahead = property(lambda self: 2 * self.threads.max_workers)
    fatal = property(lambda self: self.threads.fatal or self.processes.initializer_error)

    @property
    def failed(self) -> Callable[[BaseException], BaseException] | None:
        """Converts the error of a call; None as long as no worker process can have raised one."""
        engine = self.processes.engine
        return None if engine is None else engine.failed

    def pieces(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        function = self.functions.quick((fn, args, {}))
        return function is not None and function.choice.route == "processes"

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None = None,
        options: CallOptions | None = None,
    ) -> Future[Any]:
        if options and "item_timeout" in options:
            return self._submit_limited((fn, args, kwargs), options)
        call = fn, args, kwargs
        function = self.functions.state(call, crowded=bool(self._open))
        return self._submit(function, call, context, (options or {}).get("retries") or 0)

    def _submit_limited(self, call: FunctionCall, options: CallOptions) -> Future[Any]:
        """Hand a call with a time limit to a worker process, which can be ended."""
        with self.lock:
            self._check()
            engine = self.processes.started()
        task = engine.submit(*call, None, options)

        def ended(_: object) -> None:
            with self.lock:
                self.counts.by_route["processes"] -= 1
                self._advance()

        with self.lock:  # others have to mind it; it minds only the number of worker processes
            self.counts.by_route["processes"] += 1
        task.add_done_callback(ended)
        return task

    def submit_piece(
        self, fn: Callable[..., Any], piece: tuple[tuple[Any, ...], ...], context: Context
    ) -> AdaptiveCall:
        function = self.functions.state((fn, piece[0], {}), crowded=bool(self._open))
        return self._submit(function, (fn, piece, None), context)

    def _submit(
        self,
        function: FunctionState,
        submitted: Submitted,
        context: Context | None,
        retries: int = 0,
    ) -> AdaptiveCall:
        call = AdaptiveCall(self, function, submitted, snapshot() if context is None else context)
        if retries:
            call.retries = retries
        if function.choice.route == "processes":
            call.encode(self.processes)
        with Shield(), self.lock:
            self._check()
            self._open[call] = None
            try:
                self._enter(call)
            except BaseException:  # no thread can be started
                del self._open[call]
                raise
        return call

    def _check(self) -> None:
        """Raise if nothing can be submitted any more, else get ready; the lock is held."""
        if self.closing:
            raise RuntimeError("cannot schedule new futures after shutdown")
        self.threads.fatal = self.fatal
        self.threads.check()
        self.processes.begin()

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        with self.lock:
            self.closing = True
        if cancel:
            self.cancel_waiting()
            for engine in self._engines():
                engine.cancel_queued()
        if any(engine.mine() for engine in self._engines()):
            wait = False  # a thread of an engine would wait for itself
        with self.lock:
            self._end_if_done()
            if wait:
                self._all_ended.wait_for(lambda: not self._open)
        if wait:
            for engine in self._engines():
                engine.shutdown(wait=True, cancel=False)

    def record(self, recording: CallRecording | None) -> None:
        self.threads.record(recording)
        self.processes.record(recording)

    def rest_after(self, seconds: float) -> None:
        self.threads.rest_after(seconds)
        self.processes.rest_after(seconds)

    def interrupt(self) -> None:
        with Shield():
            self.cancel_waiting()
            for engine in self._engines():
                engine.interrupt()

    def end_workers(self, end: Callable[[Any], object]) -> None:
        self.cancel_waiting()
        for engine in self._engines():
            engine.end_workers(end)

    def stop(self) -> None:
        with Shield():
            self.shutdown(wait=False, cancel=True)
            for engine in self._engines():
                engine.stop()

    def forget(self) -> None:
        lost = BrokenExecutor("this call belongs to the process that forked this one")
        self.lock = threading.RLock()
        waiting = self._take_waiting()
        self._all_ended = threading.Condition(self.lock)
        self.functions = Functions(self.lock, self.processes, weakly(self._decided))
        self.processes.forget(self.lock)
        self.threads.forget(self.lock)
        for call in waiting:
            call.abandon(lost)
        self.counts = CallCounts(self._limit, self.processes)
        self._open.clear()

    def _engines(self) -> list[Any]:
        """The engines that there are: threads, and worker processes if a call needed them."""
        processes = self.processes.engine
        return [self.threads] if processes is None else [self.threads, processes]

    def _take_waiting(self) -> list[AdaptiveCall]:
        """The calls that no engine has yet; none will be placed because another one has ended."""
        with self.lock:
            self._line.clear()
            return [call for call in [*self._open] if not call.route]

    def cancel_waiting(self) -> None:
        for call in self._take_waiting():
            call.cancel()

    def fail_waiting(self, error: BaseException) -> None:
        """End all calls that no engine has: an initializer has failed; without the lock."""
        for call in self._take_waiting():
            call.fail(error)

    # -- called by futures ---------------------------------------------------------------------

    def help(self, call: Any, timeout: float | None) -> float | None:
        engine: Any = self.processes.engine if call.route == "processes" else self.threads
        return timeout if engine is None else engine.help(call, timeout)

    def withdraw(self, call: Any) -> None:
        call.drop()  # it leaves its queue in its turn
        self._open.pop(call, None)
        self.counts.remove(call, "cancelled")
        self._advance()

    def kill(self, call: AdaptiveCall) -> None:
        if call.route == "processes" and self.processes.engine is not None:
            self.processes.engine.kill(call)

    # -- where calls go; all with the lock held ------------------------------------------------

    def _enter(self, call: AdaptiveCall) -> None:
        """Place a call, or have it wait in the line."""
        if self._line or not self._place(call):
            self._line.append(call)

    def _place(self, call: AdaptiveCall) -> bool:
        """Hand a call to an engine or hold it; False if it has to wait for others to end."""
        function, now = call.function, clock()
        where = function.choice.place(now)
        if where == "hold":
            function.held.append(call)
            if function.trial is not None and not function.trial.bounded:
                # The sampler does not watch calls that have been short so far.
                function.choice.give_up(now)
                self._queue(self._release, function)
            return True
        if not self.counts.fits("processes" if where == "processes" else "threads"):
            return False
        if where == "probe":
            self._begin_trial(function, now)
            function.held.append(call)
        elif where == "threads" or not self._to_process(call):
            self.threads.take(call)
            self.counts.add(call, "threads")
        return True

    def _to_process(self, call: AdaptiveCall) -> bool:
        """Hand a call to the worker processes; False if it has to run in a thread."""
        if call.data is None:
            call.encode(self.processes)
        if call.data is None:
            return False
        self.counts.add(call, "processes")
        if self.processes.take(call):
            return True
        self.counts.remove(call)
        self.functions.keep_in_threads()
        return False

    def bring_back(self, call: AdaptiveCall, error: BaseException) -> bool:
        """Whether a call that failed in a worker process runs in a thread instead.

        It does if worker processes cannot be started, or the result cannot be pickled.
        """
        if type(error) is SerializationError and error.what in {"result", "exception"}:
            if error.what == "result":
                call.function.choice.keep(str(error), clock())
        elif self.processes.start_failed():
            self.functions.keep_in_threads()
        else:
            return False
        self.counts.remove(call)
        self.counts.add(call, "threads")
        self.threads.take(call)
        return True

    # -- calls that have ended -----------------------------------------------------------------

    def ran(self, call: AdaptiveCall, wall: float, cpu: float, ident: int) -> None:
        """A thread has run a call and measured the call's seconds."""
        choice = call.function.choice
        with self.lock:
            now = clock()
            choice.took(wall / call.count, cpu / call.count, now, ident)
            queued = self.threads.queue.qsize()
            if self._growth is not None and queued and choice.waits(now):
                self.threads.widen(self._growth.ended(now, queued))
            self._review(call.function, now)

    def _ran_in_process(self, task: Task, wall: float, cpu: float) -> None:
        """A worker process has answered a call; the lock is held."""
        if not isinstance(task, AdaptiveCall):
            return  # it has a time limit, and with that its route
        now = clock()
        task.function.choice.took(wall / task.count, cpu / task.count, now)
        self._review(task.function, now)

    def _review(self, function: FunctionState, now: float) -> None:
        """Change the route if the other one is better, also of queued calls; the lock is held."""
        if self.threads.fatal is not None or not function.choice.review(now):
            return

        def waits(queued: Any) -> bool:
            mine = isinstance(queued, AdaptiveCall) and queued.function is function
            return mine and queued.waits

        back = [call for engine in self._engines() for call in engine.take_back(waits)]
        for call in back:
            self.counts.remove(call)
            call.data = None
        if back:
            function.held.extend(back)
            self._queue(self._release, function)

    def ended(self, call: AdaptiveCall) -> None:
        self._open.pop(call, None)
        if call.route == "processes" and (error := self.processes.initializer_error) is not None:
            self.fail_waiting(broken(self._errors, error))
        # First the set, then the flag, shutdown in reverse: one of both sees that all have ended.
        if self._limit is None and not self.closing:
            return
        with self.lock:
            self.counts.remove(call, "ended")
            self._advance()

    def _advance(self) -> None:
        """Place the calls of the line as far as they fit; the lock is held."""
        line = self._line
        while line and (not line[0].waits or self._place(line[0])):
            line.popleft()
        self._end_if_done()

    def _end_if_done(self) -> None:
        """End the engines after a shutdown when no call is left; the lock is held."""
        if self.closing and not self._open:
            for engine in self._engines():
                engine.shutdown(wait=False, cancel=False)
            self._all_ended.notify_all()
