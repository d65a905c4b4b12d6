"""The calls of an adaptive executor, and the other work of its threads.

Guarantees: a call is begun once, by a thread or by a worker process, or is cancelled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import Context
from operator import attrgetter
from typing import Any, TypeAlias

from parallax._adaptive.functions import FunctionState
from parallax._adaptive.process_route import ProcessRoute, Submitted
from parallax._backends.capture import capture
from parallax._backends.processes.parent.task import Task
from parallax._backends.result_encoding import run_piece
from parallax._core.contexts import assign
from parallax._core.futures import Helper

clock = time.perf_counter

#: What running a call gives: its result, its exception, its wall and CPU seconds.
_Outcome: TypeAlias = "tuple[Any, BaseException | None, float, float]"


class AdaptiveCall(Task):
    def __init__(
        self,
        engine: Helper,
        function: FunctionState,
        submitted: Submitted,
        context: Context,
    ) -> None:
        super().__init__(engine, None, None)
        self.function = function
        self._context: Context | None = context
        #: the callable and its arguments; None when they are not needed any more.
        self.submitted: Submitted | None = submitted
        #: number of calls of the user's function.
        self.count = 1 if submitted[2] is not None else len(submitted[1])
        #: where it is: "threads", "processes" or "trial", the thread that measures the
        #: calls of its function; "" before; then "ended" or "cancelled", if these were counted.
        self.route = ""

    @property
    def waits(self) -> bool:
        """Whether it has neither begun nor was cancelled."""
        return self._state == "PENDING"

    #: the ``AdaptiveEngine`` that it was submitted to.
    engine: Any = property(attrgetter("_helper"))

    def encode(self, processes: ProcessRoute) -> None:
        """Encode it for a worker process; without effect if that is impossible."""
        submitted, context = self.submitted, self._context
        if submitted is not None and context is not None:
            encoded = context.run(processes.encode, submitted, self.function.choice)
            if encoded is not None:
                self.known, self.data = encoded

    def execute(self) -> None:
        """Run it in this thread, unless it was cancelled or runs elsewhere."""
        engine = self.engine
        with engine.lock:
            if self.route == "processes" or not self.claim():
                return
            if not self.route:  # a thread of this executor waits for it and runs it out of turn
                engine.counts.add(self, "threads")
            measured = self.function.choice.samples()
            if measured:
                self.function.choice.began(threading.get_ident(), clock())
        try:
            self.execute_with(capture if measured else _run)
        finally:
            del self, engine  # the traceback of an error refers to this frame

    def execute_with(self, run: Callable[..., _Outcome]) -> None:
        """Run it in this thread, which has claimed it; ``run`` is, or returns as, ``capture``."""
        submitted, self.submitted = self.submitted, None
        context, self._context = self._context, None
        assert submitted is not None
        assert context is not None
        if submitted[2] is None:
            submitted = run_piece, submitted[:2], {}
        if (recording := self.engine.threads.recording) is not None:
            submitted = recording.around(submitted[0], self.count), *submitted[1:]
        if initial := self.engine.threads.initial:
            assign(context, initial.get(threading.get_ident(), ()))
        while True:
            try:
                value, error, wall, cpu = context.run(run, *submitted)
            except BaseException as raised:  # noqa: BLE001 - also a mistake of ours ends the call
                value, error, wall, cpu = None, raised, 0.0, 0.0
            if error is None or not self.again(error):
                break
        if run is not _run:
            self.engine.ran(self, wall, cpu, threading.get_ident())
        self.settle(value, error)
        # The traceback of an error refers to this frame.
        del self, submitted, context, error, value

    def drop(self) -> None:
        self.submitted = self._context = self.data = None

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Enter FINISHED and wake the threads that wait; not under the engine's lock."""
        engine = self.engine
        if error is not None and self.route == "processes" and self.submitted is not None:
            with engine.lock:
                if self._state == "RUNNING":  # else it was revoked
                    self._state = "PENDING"
                    if engine.bring_back(self, error):
                        return
                    self._state = "RUNNING"
        self.submitted = self._context = None
        super().settle(value, error)
        engine.ended(self)


def _run(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Outcome:
    return fn(*args, **kwargs), None, 0.0, 0.0


class ThreadJob:
    """Work for a thread of the executor that is not a call, on behalf of calls that wait."""

    def __init__(self, engine: Any, do: Callable[[], None]) -> None:
        self.execute = do
        # What happens to it as one of the queued calls happens to all calls that wait.
        self.cancel, self.fail = engine.cancel_waiting, engine.fail_waiting

    def abandon(self, error: BaseException) -> None:
        """Nothing: in a forked copy of the program the engine abandons the calls itself."""


class CallCounts:
    """How many calls each engine has, and whether ``max_workers`` allows more.

    The lock of the executor guards them. They are exact only with a limit.
    """

    def __init__(self, limit: int | None, processes: ProcessRoute) -> None:
        self._limit = limit
        self._processes = processes
        self.by_route = {"threads": 0, "processes": 0}

    def fits(self, route: str) -> bool:
        """Whether one more call on a route keeps within the limit.

        A call that queues behind those that use all workers of its route counts as none.
        """
        if self._limit is None:
            return True
        threads = min(self.by_route["threads"] + (route == "threads"), self._limit)
        processes = self.by_route["processes"] + (route == "processes")
        return threads + min(processes, self._processes.workers) <= self._limit

    def add(self, call: AdaptiveCall, route: str) -> None:
        call.route = route
        self.by_route[route] += 1

    def remove(self, call: AdaptiveCall, route: str = "") -> None:
        """Count a call as no longer in its engine; ``route`` is its next state."""
        if call.route in self.by_route:
            self.by_route[call.route] -= 1
        call.route = route
