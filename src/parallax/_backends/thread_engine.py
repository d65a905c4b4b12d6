"""Single calls on threads: what an executor's ``submit`` needs.

Threads start as calls come in, as many as there are calls that no idle thread will take. A thread
of the pool that waits for a call which still queues runs it itself, so that calls which submit to
their own executor and wait cannot starve it.

Guarantees: every call ends in its result or an error; ``cancel`` and the start of a call exclude
each other; nothing that a call was given is kept after it has ended. A thread inside a call cannot
be ended.
Assumes: the process engine may share this engine's lock, see ``lock``.
"""

from __future__ import annotations

import contextlib
import logging
import queue as queues  # not its class: a library may patch it, as it does threads
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextvars import Context
from typing import Any

from parallax._backends.simple_engines import LocalPieces
from parallax._core.contexts import Assignments, assign, set_by, snapshot
from parallax._core.deferred_signals import Shield
from parallax._core.futures import RUNNING, Future
from parallax._core.nesting import enter, here
from parallax._core.options import CallOptions
from parallax._reporting.stall_monitor import StallMonitor, stack_of
from parallax._reporting.stall_policy import InFlight

clock = time.monotonic

#: Most calls of a ``map`` that wait for a thread. With fewer, threads run out of work; more keep
#: more items and results in memory.
MAX_QUEUED_AHEAD = 8


class ThreadCall(Future[Any]):
    def __init__(
        self,
        engine: ThreadEngine,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context,
    ) -> None:
        super().__init__(engine)
        self._call = context, fn, args, kwargs

    def execute(self) -> None:
        """Run the call in this thread, unless it was cancelled or runs elsewhere."""
        call = self._take()
        if call is None:
            return
        if initial := self._helper.initial:  # type: ignore[attr-defined]
            assign(call[0], initial.get(threading.get_ident(), ()))
        while True:
            try:
                value = call[0].run(call[1], *call[2], **call[3])
            except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
                if self.again(error):
                    continue
                self.settle(None, error)
                # The traceback refers to this frame.
                del self, call
            else:
                self.settle(value, None)
            return

    def claim(self) -> bool:
        """Enter RUNNING; True for one caller only, before any cancelling."""
        return self._take() is not None

    def _take(self) -> tuple[Context, Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None:
        # pop is atomic: the thread that gets the call has claimed it. With the lock instead,
        # threads would queue behind the one that submits, and look busy to it.
        call: tuple[Context, Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None
        call = self.__dict__.pop("_call", None)
        if call is not None:
            self._state = RUNNING
        return call


class ThreadEngine(LocalPieces):
    """Runs single calls on up to ``max_workers`` threads. Thread-safe."""

    backend = "threads"
    ahead = property(lambda self: self.max_workers + min(self.max_workers, MAX_QUEUED_AHEAD))

    def __init__(
        self,
        max_workers: int,
        *,
        name: str,
        broken: Callable[[BaseException], BaseException],
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        failed: Callable[[BaseException], None] | None = None,
        lock: Any = None,
        stall_warn: float = 0.0,
    ) -> None:
        """Prepare; no thread is started yet.

        If an initializer fails, ``broken`` makes the error of all calls from its exception, and
        ``failed`` is called with that. A reentrant ``lock`` may be shared with another engine.
        ``stall_warn``: seconds without an end of any call until a stall is logged; 0 for never.
        """
        self.max_workers = max_workers
        #: guards the state of the engine; who holds the lock may submit.
        self.lock = lock if lock is not None else threading.RLock()
        self._name = name
        self._broken = broken
        self._initializer = initializer
        self._initargs = initargs
        self._failed = failed
        #: calls that wait for a thread, and at the end a None.
        self.queue: queues.SimpleQueue[Any] = queues.SimpleQueue()
        #: tokens for idle threads: at most as many as threads exceed calls that run or wait. A
        #: thread adds a token after a call, without the lock, for which it would queue behind the
        #: thread that submits; a new call takes a token, or has a thread started. With one token
        #: too many a call may wait for ever. Once all threads exist the tokens mean nothing.
        self._free: deque[None] = deque()
        #: seconds after which an idle thread ends; None for never.
        self._idle_limit: float | None = None
        self._place = here().item(movable=False)
        self.closing = False
        self._idents: set[int] = set()
        #: the context variables that the initializer has set in each thread, by ident: its calls
        #: find them, as in the standard library, where calls run in the contexts of the threads.
        self.initial: dict[int, Assignments] = {}
        self.threads: set[threading.Thread] = set()
        #: the exception of an initializer; nothing runs any more.
        self.fatal: BaseException | None = None
        #: since when each busy thread is at its call, by ident; and when a call has ended last.
        self._busy: dict[int, float] = {}
        self._last = 0.0
        self._stall_warn = stall_warn
        self._stall_monitor = StallMonitor(self, stall_warn)

    def quiet_since(self) -> float | None:
        begun = list(self._busy.values())
        return max(self._last, min(begun)) if begun else None

    def details(self) -> tuple[str, Sequence[InFlight], int | None]:
        now, flights = clock(), []
        threads = {thread.ident: f"thread {thread.name}" for thread in list(self.threads)}
        for ident, begun in list(self._busy.items()):
            who = threads.get(ident, "a thread")
            flights.append(InFlight("a call", who, now - begun, stack_of(ident)))
        return "call of an executor", flights, self.queue.qsize()

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None = None,
        options: CallOptions | None = None,
    ) -> ThreadCall:
        if self.recording is not None:
            fn = self._recorded(fn, args, "threads")
        call = ThreadCall(self, fn, args, kwargs, snapshot() if context is None else context)
        if options:
            call.retries = options.get("retries") or 0
        with self.lock:
            self.check()
            self.take(call)
        return call

    def check(self) -> None:
        """Raise if nothing can be submitted any more; the lock is held."""
        if self.fatal is not None:
            raise self._broken(self.fatal)
        if self.closing:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def take(self, call: Any) -> None:
        """Queue what has ``execute``, the lock held; RuntimeError if no thread can be had."""
        self.queue.put(call)
        if self._free:
            self._free.pop()  # nobody else does, with the lock
        elif len(self.threads) < self.max_workers:
            try:
                self._start()
            except RuntimeError:
                if not self.threads:
                    self.queue.get_nowait()
                    raise

    def rest_after(self, seconds: float) -> None:
        self._idle_limit = seconds

    def widen(self, max_workers: int) -> None:
        """Allow more threads, and start them for what waits; the lock is held."""
        self.max_workers = max(max_workers, self.max_workers)
        for _ in range(min(self.queue.qsize(), self.max_workers - len(self.threads))):
            try:
                self._start()
            except RuntimeError:
                break
        # A call that ended meanwhile has added a token, and its thread may have taken a waiting
        # call before these were counted.
        self._free.clear()

    def take_back(self, wanted: Callable[[Any], bool]) -> list[Any]:
        """Take the calls out of the queue that are wanted; the lock is held."""
        back: list[Any] = []
        others: list[Any] = []
        for call in _drain(self.queue):
            (back if call is not None and wanted(call) else others).append(call)
        for call in others:
            self.queue.put(call)
        return back

    def mine(self) -> bool:
        return threading.get_ident() in self._idents

    def cancel_queued(self, *_: object) -> None:
        """Cancel the calls that no thread has yet; the others cannot be ended."""
        for call in _drain(self.queue):
            if call is not None:
                call.cancel()
        if self.closing:
            self.queue.put(None)  # the mark by which threads end was taken out with the calls

    end_workers = cancel_queued

    def interrupt(self) -> None:
        with Shield():
            self.cancel_queued()

    def stop(self) -> None:
        with Shield():
            self.shutdown(wait=False, cancel=True)

    def withdraw(self, call: Any) -> None:
        call.drop()  # it leaves the queue when its turn comes

    def kill(self, call: Any) -> None:
        """A thread cannot be ended; what the call returns is dropped."""

    def help(self, call: Any, timeout: float | None) -> float | None:
        # Not with a timeout, which a call that runs here could not keep.
        if timeout is None and self.mine():
            call.execute()
        return timeout

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        with self.lock:
            self.closing = True
        if cancel:
            self.cancel_queued()
        else:
            self.queue.put(None)
        # Not in a thread of ours: two of them would wait for each other.
        if wait and not self.mine():
            for thread in list(self.threads):
                thread.join()

    def forget(self, lock: Any = None) -> None:
        """Start afresh: this process is a forked copy, in which the threads do not exist."""
        self.lock = lock if lock is not None else threading.RLock()
        queue, self.queue = self.queue, queues.SimpleQueue()
        self._free.clear()
        self._idents.clear()
        self.initial.clear()
        self.threads = set()
        self._busy = {}
        self._stall_monitor = StallMonitor(self, self._stall_warn)
        lost = BrokenExecutor("this call belongs to the process that forked this one")
        for call in _drain(queue):
            if call is not None:
                call.abandon(lost)

    def _start(self) -> None:
        # A daemon: lifetimes.py has the interpreter wait for the thread, unless Ctrl-C ends it.
        # Named explicitly: to inherit the flag from a thread like the sampler's, which threading
        # does not know, would enter that thread into threading's list for good.
        thread = threading.Thread(
            target=self._work, name=f"{self._name}_{len(self.threads)}", daemon=True
        )
        # In no context: some builds would give the thread that of the call that needs it first.
        Context().run(thread.start)
        self.threads.add(thread)
        self._stall_monitor.start()

    def _work(self) -> None:
        queue, busy = self.queue, self._busy
        me = threading.get_ident()
        self._idents.add(me)
        if self._initializer is not None:
            self._initialize()
        enter(self._place)
        while True:
            try:
                call = queue.get(timeout=self._idle_limit)
            except queues.Empty:
                if self._left():
                    return
                continue
            if call is None:
                queue.put(None)  # for the others
                if not busy:
                    self._stall_monitor.stop()
                del self, queue, busy  # the traceback of an error refers to this frame
                return
            busy[me] = clock()
            call.execute()
            # What it refers to must not live until the next one comes.
            del call, busy[me]
            self._last = clock()
            if len(self.threads) < self.max_workers:
                self._free.append(None)

    def _left(self) -> bool:
        """Part with this thread, which has been idle for long, unless a call came just now."""
        with self.lock:
            if not self.queue.empty():
                return False
            me = threading.get_ident()
            self.threads = {thread for thread in self.threads if thread.ident != me}
            self._idents.discard(me)
            self.initial.pop(me, None)
            if self._free:  # the token that this thread may have added
                self._free.pop()
            return True

    def _initialize(self) -> None:
        """Call the initializer; if it fails all calls end, and so do all threads."""
        assert self._initializer is not None
        try:
            initial = set_by(self._initializer, self._initargs)
        except BaseException as error:
            logging.getLogger("concurrent.futures").critical(
                "Exception in initializer:", exc_info=True
            )
            with self.lock:
                self.fatal = self.fatal or error
            if self._failed is not None:
                self._failed(self._broken(error))
            for call in _drain(self.queue):
                if call is not None:
                    call.fail(self._broken(error))
            self.queue.put(None)
            self = call = None  # type: ignore[assignment]  # noqa: PLW0642 - as in _work
            return
        if initial:
            self.initial[threading.get_ident()] = initial


def _drain(queue: queues.SimpleQueue[Any]) -> Iterator[Any]:
    """Take out one entry after the other until the queue is empty."""
    with contextlib.suppress(queues.Empty):
        while True:
            yield queue.get_nowait()
