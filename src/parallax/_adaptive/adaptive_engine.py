"""An executor that finds out for each function how its calls are best run.

Joins the choices, which decide, with the engines, which run: threads of its own and, from the first
call on that is better off there, worker processes. All of it is guarded by one lock.

Guarantees: every call ends in its result or an error. It runs once, unless its worker died or its
result could not be sent: then again here. At most ``max_workers`` calls, if given, run at a time.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from contextvars import Context
from typing import Any

from parallax._adaptive.call import Asked, Errand, RoutedCall
from parallax._adaptive.functions import Path, Paths
from parallax._adaptive.process_route import Far, Settings, Stoppable
from parallax._adaptive.trial import Inquiry
from parallax._backends.thread_engine import ThreadEngine
from parallax._core.callables import name_of
from parallax._core.deferred_signals import Shield
from parallax._core.errors import SerializationError
from parallax._core.nesting import here
from parallax._core.plans import Plan
from parallax._routing.requested import MOST_THREADS, THREADS
from parallax._routing.route_choice import RouteChoice, ThreadGrowth

__all__ = ["AdaptiveEngine", "Settings"]

clock = time.perf_counter


class AdaptiveEngine(Stoppable):
    """Runs calls where they are best run. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; nothing is started yet."""
        self.lock: Any = threading.RLock()
        self._place = here()
        self.cores = self._place.cores
        given = settings.max_workers
        self._errors = settings.errors
        if settings.initializer is not None:
            self._errors()  # while it can be imported, see there
        self.threads = ThreadEngine(
            given or settings.default_threads,
            name=settings.name,
            broken=self._broken,
            initializer=settings.initializer,
            initargs=settings.initargs,
            failed=self.fail_waiting,
            lock=self.lock,
            stall_warn=settings.stall_warn,
        )
        self._limit = given
        self._growth = None if given else ThreadGrowth(THREADS, MOST_THREADS)
        self.far = Far(settings, self._place, self.lock)
        self.expected_start, self.prepare = self.far.expected_start, self.far.prepare
        self._paths = Paths()
        #: calls that wait because ``max_workers`` run.
        self._line: deque[RoutedCall] = deque()
        #: calls that were handed on, if their number is limited; and calls that have not ended.
        self._flight = {"threads": 0, "processes": 0}
        self._open: set[RoutedCall] = set()
        self._closing = False
        self._over = threading.Condition(self.lock)

    # -- the face ------------------------------------------------------------------------------

    @property
    def max_workers(self) -> int:
        """Most calls that run at a time in threads."""
        return self.threads.max_workers

    @property
    def failed(self) -> Callable[[BaseException], BaseException] | None:
        """Converts the error of a call; None as long as no worker process may have raised it."""
        engine = self.far.engine
        return None if engine is None else engine.failed

    def rest_after(self, seconds: float) -> None:
        """Have worker processes leave that have had nothing to do for so long."""
        self.far.rest_after(seconds)

    @property
    def ahead(self) -> int:
        """Calls that should be submitted at a time."""
        return 2 * self.threads.max_workers

    @property
    def choices(self) -> list[RouteChoice]:
        """What is known of each function, oldest first."""
        with self.lock:
            return [path.choice for path in self._paths.all()]

    def pieces(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        """Whether such calls travel to processes now."""
        with self.lock:
            path = self._paths.quick(fn, args, {})
        return path is not None and path.choice.route == "processes"

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None = None,
    ) -> RoutedCall:
        """Take a call.

        Args:
            fn: the callable.
            args: its arguments.
            kwargs: its keyword arguments.
            context: what the call runs in, if it runs in a thread.

        Raises:
            RuntimeError: the engine was shut down.
            BrokenExecutor: an initializer has failed.
        """
        return self._submit(self._path(fn, args, kwargs), (fn, args, kwargs), context)

    def submit_piece(
        self, fn: Callable[..., Any], piece: tuple[tuple[Any, ...], ...]
    ) -> RoutedCall:
        """Take several calls as one, whose result is a ``PieceResult``.

        Raises:
            RuntimeError: the engine was shut down.
            BrokenExecutor: an initializer has failed.
        """
        return self._submit(self._path(fn, piece[0], {}), (fn, piece, None))

    def _submit(self, path: Path, what: Asked, context: Context | None = None) -> RoutedCall:
        call = RoutedCall(self, path, what, context)
        if path.choice.route == "processes":
            self.far.encode(call)
        with Shield(), self.lock:
            self._check()
            self._open.add(call)
            try:
                self._enter(call)
            except BaseException:  # no thread can be had
                self._open.discard(call)
                raise
        return call

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """Take no more calls; end when all are done.

        Args:
            wait: return only when nothing is left of the engine.
            cancel: cancel the calls that no worker has yet.
        """
        with self.lock:
            self._closing = True
        if cancel:
            self.cancel_waiting()
            self.threads.cancel_queued()
            if self.far.engine is not None:
                self.far.engine.cancel_queued()
        engine = self.far.engine
        if self.threads.mine() or (engine is not None and engine.mine()):
            wait = False  # for ourselves
        with self.lock:
            self._finish_if_done()
            if wait:
                self._over.wait_for(lambda: self._done)
        if wait:
            self.threads.shutdown(wait=True, cancel=False)
            if self.far.engine is not None:
                self.far.engine.shutdown(wait=True, cancel=False)

    def cancel_waiting(self) -> None:
        """Cancel the calls that were not handed on."""
        for call in self._take_waiting():
            call.cancel()

    def forget(self) -> None:
        """Start afresh: this process is a forked copy, in which no worker exists."""
        lost = BrokenExecutor("this call belongs to the process that forked this one")
        self.lock = threading.RLock()
        held = self._take_waiting()
        self._over = threading.Condition(self.lock)
        self._paths = Paths()
        self.far.forget(self.lock)
        self.threads.forget(self.lock)
        for call in held:
            call.abandon(lost)
        self._flight = {"threads": 0, "processes": 0}
        self._open.clear()

    def _broken(self, cause: BaseException) -> BaseException:
        return self._errors().broken_pool(cause)

    # -- asked by futures ----------------------------------------------------------------------

    def help(self, call: Any, timeout: float | None) -> float | None:
        """Do what brings a call nearer to its end; see the engines."""
        if call.via == "processes":
            engine = self.far.engine
            return timeout if engine is None else engine.help(call, timeout)
        return self.threads.help(call, timeout)

    def withdraw(self, call: Any) -> None:
        """A call was cancelled; the lock is held. It leaves its queue when its turn comes."""
        call.drop()
        self._open.discard(call)
        if call.via:
            self._flight[call.via] -= 1
            call.via = "cancelled"
        self._advance()

    def kill(self, call: RoutedCall) -> None:
        """End a call that a worker process may be at, with that worker."""
        if call.via == "processes" and self.far.engine is not None:
            self.far.engine.kill(call)

    # -- how functions are run -----------------------------------------------------------------

    def _path(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Path:
        path = self._paths.quick(fn, args, kwargs)
        if path is None:
            with self.lock:
                path = self._paths.find(fn, args, kwargs)
            if path is None:
                path = self._explore(fn, args, kwargs, crowded=bool(self._open))
            with self.lock:
                path = self._paths.add(fn, args, kwargs, path)
        elif path.due() and (reason := path.inquiry.changed(fn, args)):
            with self.lock:
                path.choice.keep(reason, clock())
        return path

    def _explore(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        crowded: bool,
    ) -> Path:
        choice = RouteChoice(name_of(fn), cores=self.cores, workers=self.workers())
        whole = functools.partial(fn, **kwargs) if kwargs else fn
        inquiry = Inquiry(self, whole, args, choice, crowded=crowded)
        path = Path(inquiry)
        verdict, now = inquiry.verdict, clock()
        inquiry.warn(args)
        if verdict.limit == "free" or not verdict.settled:
            self.far.load()
        if self.workers() < 2:
            choice.keep(self.far.why_none, now)
        elif verdict.limit != "free" and (verdict.settled or kwargs):
            choice.keep(verdict.reason, now)
        elif plan := inquiry.remembered():
            self._follow(path, plan, now)
        return path

    def workers(self) -> int:
        """Most worker processes, 1 if there may be none."""
        return self.far.workers

    # -- where calls go ------------------------------------------------------------------------

    def _check(self) -> None:
        if self._closing:
            raise RuntimeError("cannot schedule new futures after shutdown")
        self.threads.fatal = self.threads.fatal or self.far.spoilt
        self.threads.check()

    def _enter(self, call: RoutedCall) -> None:
        """Place a call, or have it wait in the line. The lock is held."""
        if self._line or not self._place_call(call):
            self._line.append(call)

    def _place_call(self, call: RoutedCall) -> bool:
        """Hand a call on; False if it has to wait for others to end."""
        path, now = call.path, clock()
        where = path.choice.place(now)
        if where == "hold":
            path.held.append(call)
            path.inquiry.held = len(path.held)
            if not path.inquiry.timed:
                # Nobody looks at the clock for calls that have been short so far.
                path.choice.give_up(now)
                self.threads.take(Errand(self, path, self._release))
            return True
        if not self._fits("processes" if where == "processes" else "threads"):
            return False
        if where == "probe":
            self._begin_probe(path, now)
            path.held.append(call)
        elif where == "threads" or not self._to_process(call):
            self.threads.take(call)
            self.starts(call, "threads")
        return True

    def _fits(self, via: str) -> bool:
        """Whether another call of that kind keeps within ``max_workers``.

        One behind others that fill their own kind's part takes no further place.
        """
        if self._limit is None:
            return True
        threads = min(self._flight["threads"] + (via == "threads"), self._limit)
        processes = min(self._flight["processes"] + (via == "processes"), self.workers())
        return threads + processes <= self._limit

    def starts(self, call: RoutedCall, via: str) -> None:
        """Count a call as handed on; the lock is held."""
        call.via = via
        self._flight[via] += 1

    def _to_process(self, call: RoutedCall) -> bool:
        """Hand a call to the worker processes; False if it cannot go there. The lock is held."""
        if call.data is None:
            self.far.encode(call)
        if call.data is None:
            return False
        self.starts(call, "processes")
        if self.far.take(call):
            return True
        self._flight["processes"] -= 1
        self._keep_all()
        return False

    def _keep_all(self) -> None:
        for path in self._paths.all():
            path.choice.keep(self.far.why_none, clock())

    def bring_back(self, call: RoutedCall, error: BaseException) -> bool:
        """A call has failed in worker processes; True if that is their fault, and it runs here.

        Either none can be had, or what it came to cannot be pickled. The lock is held.
        """
        if type(error) is SerializationError and error.what in {"result", "exception"}:
            if error.what == "result":
                call.path.choice.keep(str(error), clock())
        elif self.far.failed():
            self._keep_all()
        else:
            return False
        self._flight["processes"] -= 1
        self.starts(call, "threads")
        self.threads.take(call)
        return True

    # -- measuring -----------------------------------------------------------------------------

    def _begin_probe(self, path: Path, now: float) -> None:
        self.threads.take(Errand(self, path, self._probe))
        path.choice.begin_probe(now)
        # Counted from here to its end, whatever it runs: between two calls its place is not free.
        self._flight["threads"] += 1

    def _probe(self, path: Path) -> None:
        """Run what is held, one by one, until there is a verdict or nothing left."""
        inquiry, ident = path.inquiry, threading.get_ident()
        inquiry.begin()
        try:
            while (call := self._next_held(path, ident)) is not None:
                call.execute_with(inquiry.run)
        finally:
            inquiry.end()
            with self.lock:
                path.choice.end_probe()
                if not path.held:
                    path.choice.rest()
                self._flight["threads"] -= 1
                self._advance()
            self._release(path)

    def _next_held(self, path: Path, ident: int) -> RoutedCall | None:
        with self.lock:
            while path.choice.route is None and path.held:
                call: RoutedCall = path.held.popleft()
                path.inquiry.held = len(path.held)
                if call.claim():
                    call.via = "probe"
                    path.choice.began(ident, clock())
                    return call
            return None

    def decided(self, choice: RouteChoice, plan: Plan | None) -> None:
        """There is a verdict, None if it cannot be waited for any longer."""
        with self.lock:
            path = next((p for p in self._paths.all() if p.choice is choice), None)
            if path is None:
                return
            if plan is None:
                choice.give_up(clock())
            else:
                self._follow(path, plan, clock())
            if path.held:
                self.threads.take(Errand(self, path, self._release))

    def _follow(self, path: Path, plan: Plan, now: float) -> None:
        choice, verdict = path.choice, path.inquiry.verdict
        choice.decide("processes" if plan.route == "processes" else "threads", plan.reason, now)
        if plan.route == "threads" and self._growth is not None:
            self.threads.widen(min(plan.workers, THREADS))
        if verdict.limit != "free":
            choice.keep(verdict.reason, now)

    def _release(self, path: Path) -> None:
        """Let go of the calls that were held."""
        while True:
            with self.lock:
                if not path.held:
                    return
                if path.choice.route is None:
                    if path.choice.probing:
                        return
                    if self._fits("threads"):
                        self._begin_probe(path, clock())
                    else:
                        self._line.extend(path.held)
                        path.held.clear()
                    return
                call = path.held.popleft()
            if path.choice.route == "processes":
                self.far.encode(call)
            with self.lock:
                fatal = self.threads.fatal
                if call.waits and fatal is None:
                    self._enter(call)
            if fatal is not None:
                call.fail(self._broken(fatal))

    def fail_waiting(self, error: BaseException) -> None:
        """An initializer has failed: what waits for its turn fails, too."""
        for call in self._take_waiting():
            call.fail(error)

    def _take_waiting(self) -> list[RoutedCall]:
        with self.lock:
            waiting, self._line = list(self._line), deque()
            for path in self._paths.all():
                waiting += path.held
                path.held.clear()
        return waiting

    # -- what has ended ------------------------------------------------------------------------

    def ran(self, call: RoutedCall, wall: float, cpu: float, ident: int) -> None:
        """A thread has run a call."""
        with self.lock:
            now, choice = clock(), call.path.choice
            choice.took(wall / call.count, cpu / call.count, now, ident)
            waiting = self.threads.queue.qsize()
            if self._growth is not None and waiting and choice.waits(now):
                self.threads.widen(self._growth.ended(now, waiting))
            self.review(call.path, now)

    def review(self, path: Path, now: float) -> None:
        """See whether a function had better go another way, and turn what waits; lock held."""
        if self.threads.fatal is not None or not path.choice.review(now):
            return

        def waits(call: Any) -> bool:
            return isinstance(call, RoutedCall) and call.path is path and call.waits

        engine = self.far.engine
        back = self.threads.take_back(waits)
        back += engine.take_back(waits) if engine is not None else []
        for call in back:
            self._flight[call.via] -= 1
            call.via, call.data = "", None
        path.held.extend(back)
        if back:
            self.threads.take(Errand(self, path, self._release))

    def ended(self, call: RoutedCall) -> None:
        """A call has ended."""
        self._open.discard(call)
        if call.via == "processes" and self.far.spoilt is not None:
            self.fail_waiting(self._broken(self.far.spoilt))
        # The set first and then the flag, as shutdown does it the other way round: one of the two
        # threads sees that all is over.
        if self._limit is None and not self._closing:
            return
        with self.lock:
            if call.via in self._flight:
                self._flight[call.via] -= 1
            self._advance()

    def _advance(self) -> None:
        """Hand on what waits in the line; the lock is held."""
        while self._line:
            if self._line[0].waits and not self._place_call(self._line[0]):
                break
            self._line.popleft()
        self._finish_if_done()

    @property
    def _done(self) -> bool:
        return not self._open

    def _finish_if_done(self) -> None:
        if self._closing and self._done:
            self.threads.shutdown(wait=False, cancel=False)
            if self.far.engine is not None:
                self.far.engine.shutdown(wait=False, cancel=False)
            self._over.notify_all()
