"""How the engine of ``Executor`` runs trials, and releases the calls that waited for their end.

Guarantees: a held call is released when its function is decided on, or when it has waited for long.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from parallax._adaptive.call import AdaptiveCall, CallCounts, ThreadJob
from parallax._adaptive.functions import FunctionState
from parallax._adaptive.process_route import ProcessRoute
from parallax._backends.thread_engine import ThreadEngine
from parallax._core.plans import Plan
from parallax._routing.requested import THREADS
from parallax._routing.route_choice import ThreadGrowth

clock = time.perf_counter


def broken(errors: Callable[[], Any], cause: BaseException) -> BaseException:
    """The error of all calls when no worker can be had, or an initializer has failed."""
    return errors().broken_pool(cause)  # type: ignore[no-any-return]


class TrialRuns:
    """The part of an adaptive engine that runs trials."""

    lock: Any
    threads: ThreadEngine
    processes: ProcessRoute
    counts: CallCounts
    _errors: Callable[[], Any]
    _line: deque[AdaptiveCall]
    _growth: ThreadGrowth | None

    def _enter(self, call: AdaptiveCall) -> None:
        """Place a call, or have it wait in the line; the lock is held."""

    def _advance(self) -> None:
        """Place the calls of the line as far as they fit; the lock is held."""

    def _queue(self, do: Callable[[FunctionState], None], function: FunctionState) -> None:
        """Have a thread do something for the calls of a function that wait."""
        self.threads.take(ThreadJob(self, functools.partial(do, function)))

    def _begin_trial(self, function: FunctionState, now: float) -> None:
        self._queue(self._run_trial, function)
        function.choice.begin_probe(now)
        # Counted until the trial ends: between two of its calls the thread is not free.
        self.counts.by_route["threads"] += 1

    def _run_trial(self, function: FunctionState) -> None:
        """Run held calls one by one, until there is a decision or none is left; in a thread."""
        trial = function.trial
        assert trial is not None
        try:
            trial.work(functools.partial(self._next_on_trial, function))
        finally:
            with self.lock:
                function.choice.end_probe()
                if not function.held:
                    function.choice.rest()
                if function.choice.route is not None:
                    function.trial = None
                self.counts.by_route["threads"] -= 1
                self._advance()
            self._release(function)

    def _next_on_trial(self, function: FunctionState) -> AdaptiveCall | None:
        with self.lock:
            while function.choice.route is None and function.held:
                call: AdaptiveCall = function.held.popleft()
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
            if function.held:
                self._queue(self._release, function)

    def _release(self, function: FunctionState) -> None:
        """Place the held calls of a function; in a thread, without the lock."""
        choice = function.choice
        while True:
            with self.lock:
                if not function.held or (choice.route is None and choice.probing):
                    return
                if choice.route is None:
                    if self.counts.fits("threads"):
                        self._begin_trial(function, clock())
                    else:
                        self._line.extend(function.held)
                        function.held.clear()
                    return
                call = function.held.popleft()
            if choice.route == "processes":
                call.encode(self.processes)
            with self.lock:
                fatal = self.threads.fatal
                if call.waits and fatal is None:
                    self._enter(call)
            if fatal is not None:
                call.fail(broken(self._errors, fatal))
