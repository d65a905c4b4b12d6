"""The engine of ``Executor``: it finds out for each function how calls are best run.

Route choices decide; engines run the calls, in threads and processes. One lock guards all of it.

Guarantees: every call ends in its result or an error. It runs once; again if its worker died or its
result does not pickle. At most ``max_workers`` calls, if given, run at a time.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from contextvars import Context
from operator import attrgetter
from typing import Any

from parallax._adaptive.call import AdaptiveCall, CallCounts, ThreadJob, WaitingCalls
from parallax._adaptive.functions import Functions, FunctionState
from parallax._adaptive.process_route import ProcessRoute, Settings, Submitted
from parallax._backends.processes.parent.task import Task
from parallax._backends.thread_engine import ThreadEngine
from parallax._core.callables import weakly
from parallax._core.contexts import snapshot
from parallax._core.deferred_signals import Shield
from parallax._core.errors import SerializationError
from parallax._core.nesting import here
from parallax._core.plans import Plan
from parallax._routing.requested import MOST_THREADS, THREADS
from parallax._routing.route_choice import RouteChoice, ThreadGrowth

__all__ = ["AdaptiveEngine", "Settings"]

clock = time.perf_counter


class AdaptiveEngine:
    """Runs calls where they are best run. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; nothing is started yet."""
        self.lock: Any = threading.RLock()
        self._errors = settings.errors
        if settings.initializer is not None:
            self._errors()  # imported while that is possible: an initializer may fail at exit
        self._waiting = WaitingCalls(self.lock)
        self.threads = ThreadEngine(
            settings.max_workers or settings.default_threads,
            name=settings.name,
            broken=functools.partial(_broken, settings.errors),
            initializer=settings.initializer,
            initargs=settings.initargs,
            failed=self._waiting.fail,
            lock=self.lock,
            stall_warn=settings.stall_warn,
        )
        self._limit = settings.max_workers
        self._growth = None if self._limit else ThreadGrowth(THREADS, MOST_THREADS)
        self.processes = ProcessRoute(settings, here(), self.lock, weakly(self._ran_in_process))
        self.rest_after = self.processes.rest_after
        self._functions = Functions(self.lock, self.processes, weakly(self._decided))
        self.counts = CallCounts(self._limit, self.processes)
        #: calls that have not ended.
        self._open: set[AdaptiveCall] = set()
        self._closing = False
        self._all_ended = threading.Condition(self.lock)

    # -- the contract of an engine -------------------------------------------------------------

    max_workers = property(attrgetter("threads.max_workers"))
    ahead = property(lambda self: 2 * self.threads.max_workers)

    @property
    def failed(self) -> Callable[[BaseException], BaseException] | None:
        """Converts the error of a call; None as long as no worker process can have raised one."""
        engine = self.processes.engine
        return None if engine is None else engine.failed

    @property
    def choices(self) -> list[RouteChoice]:
        """The route choice of each function, oldest first."""
        return self._functions.choices()

    def pieces(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        """Whether such calls are sent to worker processes now."""
        function = self._functions.quick((fn, args, {}))
        return function is not None and function.choice.route == "processes"

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None = None,
    ) -> AdaptiveCall:
        """Take a call; see ``Engine``."""
        call = fn, args, kwargs
        return self._submit(self._functions.state(call, crowded=bool(self._open)), call, context)

    def submit_piece(
        self, fn: Callable[..., Any], piece: tuple[tuple[Any, ...], ...], context: Context
    ) -> AdaptiveCall:
        """Take several calls as one; see ``Engine``."""
        function = self._functions.state((fn, piece[0], {}), crowded=bool(self._open))
        return self._submit(function, (fn, piece, None), context)

    def _submit(
        self, function: FunctionState, submitted: Submitted, context: Context | None
    ) -> AdaptiveCall:
        call = AdaptiveCall(self, function, submitted, context or snapshot())
        if function.choice.route == "processes":
            call.encode(self.processes)
        with Shield(), self.lock:
            if self._closing:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self.threads.fatal = self.threads.fatal or self.processes.initializer_error
            self.threads.check()
            self._open.add(call)
            try:
                self._enter(call)
            except BaseException:  # no thread can be started
                self._open.discard(call)
                raise
        return call

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """Take no more calls, and end when all are done; see ``Engine``."""
        with self.lock:
            self._closing = True
        if cancel:
            self._waiting.cancel()
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

    def interrupt(self) -> None:
        """End what can be ended: the calls of worker processes, and those that have not begun."""
        with Shield():
            self._waiting.cancel()
            for engine in self._engines():
                engine.interrupt()

    def stop(self) -> None:
        """End what can be ended, and the engines; threads inside a call are left alone."""
        with Shield():
            self.shutdown(wait=False, cancel=True)
            for engine in self._engines():
                engine.stop()

    def forget(self) -> None:
        """Start afresh: this process is a forked copy, in which no worker exists."""
        lost = BrokenExecutor("this call belongs to the process that forked this one")
        self.lock = threading.RLock()
        waiting = self._waiting.forget(self.lock)
        self._all_ended = threading.Condition(self.lock)
        self._functions = Functions(self.lock, self.processes, weakly(self._decided))
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

    # -- called by futures ---------------------------------------------------------------------

    def help(self, call: Any, timeout: float | None) -> float | None:
        """Work towards the end of a call; return the seconds left of ``timeout``."""
        engine: Any = self.processes.engine if call.route == "processes" else self.threads
        return timeout if engine is None else engine.help(call, timeout)

    def withdraw(self, call: Any) -> None:
        """A call was cancelled; the lock is held. It leaves its queue in its turn."""
        call.drop()
        self._open.discard(call)
        self.counts.remove(call, "cancelled")
        self._advance()

    def kill(self, call: AdaptiveCall) -> None:
        """End a running call with its worker, if that is a process."""
        if call.route == "processes" and self.processes.engine is not None:
            self.processes.engine.kill(call)

    # -- where calls go; all with the lock held ------------------------------------------------

    def _enter(self, call: AdaptiveCall) -> None:
        """Place a call, or have it wait in the line."""
        if self._waiting.line or not self._place(call):
            self._waiting.line.append(call)

    def _place(self, call: AdaptiveCall) -> bool:
        """Hand a call to an engine or hold it; False if it has to wait for others to end."""
        function, now = call.function, clock()
        where = function.choice.place(now)
        if where == "hold":
            self._waiting.hold(function, call)
            if function.trial is not None and not function.trial.bounded:
                # The sampler does not watch calls that have been short so far.
                function.choice.give_up(now)
                self._queue(self._release, function)
            return True
        if not self.counts.fits("processes" if where == "processes" else "threads"):
            return False
        if where == "probe":
            self._begin_trial(function, now)
            self._waiting.hold(function, call)
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
        self._functions.keep_in_threads()
        return False

    def _queue(self, do: Callable[[FunctionState], None], function: FunctionState) -> None:
        """Have a thread do something for the calls of a function that wait."""
        self.threads.take(ThreadJob(self._waiting, functools.partial(do, function)))

    def bring_back(self, call: AdaptiveCall, error: BaseException) -> bool:
        """Whether a call that failed in a worker process runs in a thread instead.

        It does if worker processes cannot be started, or the result cannot be pickled.
        """
        if type(error) is SerializationError and error.what in {"result", "exception"}:
            if error.what == "result":
                call.function.choice.keep(str(error), clock())
        elif self.processes.start_failed():
            self._functions.keep_in_threads()
        else:
            return False
        self.counts.remove(call)
        self.counts.add(call, "threads")
        self.threads.take(call)
        return True

    # -- trials --------------------------------------------------------------------------------

    def _begin_trial(self, function: FunctionState, now: float) -> None:
        self._queue(self._run_trial, function)
        function.choice.begin_probe(now)
        # Counted until the trial ends: between two of its calls the thread is not free.
        self.counts.by_route["threads"] += 1

    def _run_trial(self, function: FunctionState) -> None:
        """Run held calls one by one, until there is a decision or none is left; in a thread."""
        trial = function.trial
        assert trial is not None
        trial.begin()
        try:
            while (call := self._next_on_trial(function)) is not None:
                call.execute_with(trial.run)
        finally:
            trial.end()
            with self.lock:
                function.choice.end_probe()
                if not self._waiting.holds(function):
                    function.choice.rest()
                if function.choice.route is not None:
                    function.trial = None
                self.counts.by_route["threads"] -= 1
                self._advance()
            self._release(function)

    def _next_on_trial(self, function: FunctionState) -> AdaptiveCall | None:
        with self.lock:
            while function.choice.route is None and (call := self._waiting.release(function)):
                if call.claim():
                    call.route = "trial"
                    function.choice.began(threading.get_ident(), clock())
                    return call
            return None

    def _decided(self, function: FunctionState, plan: Plan | None, stay: str) -> None:
        """Follow the decision of a trial; see ``Trial``."""
        choice = function.choice
        with self.lock:
            now = clock()
            if plan is None:
                choice.give_up(now)
            else:
                route = plan.route if plan.route == "processes" else "threads"
                choice.decide(route, plan.reason, now)
                if plan.route == "threads" and self._growth is not None:
                    self.threads.widen(min(plan.workers, THREADS))
                if stay:
                    choice.keep(stay, now)
            if self._waiting.holds(function):
                self._queue(self._release, function)

    def _release(self, function: FunctionState) -> None:
        """Place the held calls of a function; in a thread, without the lock."""
        choice = function.choice
        while True:
            with self.lock:
                if choice.route is None:
                    if choice.probing or not self._waiting.holds(function):
                        return
                    if self.counts.fits("threads"):
                        self._begin_trial(function, clock())
                    else:
                        self._waiting.to_line(function)
                    return
                call = self._waiting.release(function)
            if call is None:
                return
            if choice.route == "processes":
                call.encode(self.processes)
            with self.lock:
                fatal = self.threads.fatal
                if call.waits and fatal is None:
                    self._enter(call)
            if fatal is not None:
                call.fail(_broken(self._errors, fatal))

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
        assert isinstance(task, AdaptiveCall)
        now = clock()
        task.function.choice.took(wall / task.count, cpu / task.count, now)
        self._review(task.function, now)

    def _review(self, function: FunctionState, now: float) -> None:
        """Change the route if the other one is better, also of queued calls; the lock is held."""
        if self.threads.fatal is not None or not function.choice.review(now):
            return
        waits = functools.partial(AdaptiveCall.waits_in_queue, function)
        back = [call for engine in self._engines() for call in engine.take_back(waits)]
        for call in back:
            self.counts.remove(call)
            call.data = None
        if back:
            self._waiting.hold(function, *back)
            self._queue(self._release, function)

    def ended(self, call: AdaptiveCall) -> None:
        """A call has its result or error."""
        self._open.discard(call)
        if call.route == "processes" and (error := self.processes.initializer_error) is not None:
            self._waiting.fail(_broken(self._errors, error))
        # First the set, then the flag, shutdown in reverse: one of both sees that all have ended.
        if self._limit is None and not self._closing:
            return
        with self.lock:
            self.counts.remove(call, "ended")
            self._advance()

    def _advance(self) -> None:
        """Place the calls of the line as far as they fit; the lock is held."""
        line = self._waiting.line
        while line and (not line[0].waits or self._place(line[0])):
            line.popleft()
        self._end_if_done()

    def _end_if_done(self) -> None:
        """End the engines after a shutdown when no call is left; the lock is held."""
        if self._closing and not self._open:
            for engine in self._engines():
                engine.shutdown(wait=False, cancel=False)
            self._all_ended.notify_all()


def _broken(errors: Callable[[], Any], cause: BaseException) -> BaseException:
    return errors().broken_pool(cause)  # type: ignore[no-any-return]
