"""Futures that cost little until somebody waits on them.

A ``concurrent.futures.Future`` owns a condition variable from birth, which takes longer to make
than a short task takes to send. Here it is made by the first one who needs it: a waiter, a
callback, ``wait``, ``as_completed``. And a thread that asks for a result may be given work to do
(`Helper`) instead of being put to sleep, so that the answer needs no other thread to wake it.

Guarantees: to everybody else this is the standard library's future; a transition out of PENDING
happens once, under the owner's lock or by a `claim` that is atomic, and FINISHED is entered once.
Assumes: the order of attribute stores is the order in which other threads see them (the GIL, and
the free-threaded build's per-object locks, see to that).
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from concurrent.futures import (
    CancelledError,
    TimeoutError,  # noqa: A004 - another one before 3.11
)
from concurrent.futures import Future as StandardFuture
from operator import attrgetter
from typing import Any, Protocol, TypeVar

__all__ = ["Future", "Helper"]

_log = logging.getLogger("concurrent.futures")

T = TypeVar("T")

PENDING = "PENDING"
RUNNING = "RUNNING"
CANCELLED = ("CANCELLED", "CANCELLED_AND_NOTIFIED")
FINISHED = "FINISHED"
GOING = (PENDING, RUNNING)

#: Seconds of the first slice of a wait.
SLICE = 0.05

#: Stands where the condition would: the future ended before anybody needed one.
CLOSED = object()


class Helper(Protocol):
    """Who will finish a future."""

    lock: Any

    def help(self, future: Any, timeout: float | None) -> float | None:
        """Do what brings the future nearer to its end; returns what is left of ``timeout``."""

    def withdraw(self, future: Any) -> None:
        """A task was cancelled; the lock is held."""

    def kill(self, future: Any) -> None:
        """End a call that has begun, if it can be ended."""

    def interrupt(self) -> None:
        """A thread that waited for a future was interrupted: end all calls that can be ended."""


class _Condition(threading.Condition):
    """Entered and left in C: in Python code a signal could keep it locked for ever."""

    __enter__ = property(attrgetter("_lock.__enter__"))
    __exit__ = property(attrgetter("_lock.__exit__"))


class _FirstAsked:
    """The condition of a future, until it has one."""

    def __get__(self, future: Future[Any] | None, owner: type | None = None) -> Any:
        if future is None:
            raise AttributeError("_condition")
        # setdefault is atomic: of two threads that come first here or in `settle` one is.
        gate = future.__dict__.setdefault("_gate", _Condition())
        if gate is CLOSED:
            # What `settle` does next. Who gets a condition now must see that all is over.
            future._state = FINISHED
            gate = _Condition()
        return future.__dict__.setdefault("_condition", gate)


class Future(StandardFuture[T]):
    """The future of one task of an executor."""

    # Not __getattr__, which is asked after an AttributeError was made and dropped.
    _condition: Any = _FirstAsked()

    #: held locks of the threads that wait for a result; an own list as soon as there is one.
    _sleepers: Any = ()

    def __init__(self, helper: Helper) -> None:
        # Not StandardFuture.__init__: it makes the condition.
        self._state = PENDING
        self._result: Any = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []
        self._helper = helper

    # -- asked by users ------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> T:
        """Return what the call returned, or raise what it raised; see the standard library's."""
        try:
            if self._state != FINISHED:
                self._wait(timeout)
            if self._exception is None:
                return self._result  # type: ignore[no-any-return]
            raise self._exception
        finally:
            # The traceback refers to this frame: without this it would keep the future alive.
            self = None  # type: ignore[assignment]  # noqa: PLW0642

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, None if it returned; see the standard library's."""
        if self._state != FINISHED:
            self._wait(timeout)
        if isinstance(self._exception, StopIteration) and _called_by("_copy_future_state"):
            # Before Python 3.12 asyncio refuses it, and who awaits it waits for ever.
            error = RuntimeError("the call raised StopIteration, which no coroutine can pass on")
            error.__cause__ = self._exception
            return error
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        """Wait for the end; raises what the standard library does if it does not come."""
        try:
            timeout = self._helper.help(self, timeout)
            if self._state in GOING:
                self._sleep(timeout)
            if self._state in CANCELLED:
                raise CancelledError
        except (KeyboardInterrupt, SystemExit):
            # Not the call's own error, which is not raised here: the program's user, or a handler
            # of SIGTERM, wants an end to this.
            self._helper.interrupt()
            raise
        finally:
            # As in `result`.
            self = None  # type: ignore[assignment]  # noqa: PLW0642

    def _sleep(self, timeout: float | None) -> None:
        """Sleep until the end, or until there is none in time.

        Not by the condition: an exception by a signal, Ctrl-C or a time limit, may come between
        its being locked and the block that unlocks it; then whoever finishes the call, the thread
        of all calls, would wait for it for ever. A lock of our own is nobody else's.
        """
        sleeper = threading.Lock()
        sleeper.acquire()
        # setdefault and append are atomic. First the list, then the state; `_wake`, the reverse.
        sleepers = self.__dict__.setdefault("_sleepers", [])
        sleepers.append(sleeper)
        part = SLICE
        try:
            while self._state in GOING:
                if timeout is not None and timeout <= 0:
                    raise TimeoutError
                # In slices, each as long as all before it: a signal that comes just before a wait
                # begins is not noticed before that wait ends.
                nap = part if timeout is None else min(part, timeout)
                sleeper.acquire(timeout=nap)
                timeout = None if timeout is None else timeout - nap
                part *= 2
        finally:
            with contextlib.suppress(ValueError):
                sleepers.remove(sleeper)
            # As in `result`.
            self = None  # type: ignore[assignment]  # noqa: PLW0642

    def _wake(self) -> None:
        """The state is not what it was: have those look who sleep."""
        for sleeper in list(self._sleepers):
            with contextlib.suppress(RuntimeError):  # it was woken before
                sleeper.release()

    def done(self) -> bool:
        """Whether the call has ended or was cancelled."""
        return self._state not in GOING

    def cancel(self) -> bool:
        """Cancel the call unless it has been handed to a worker; see the standard library's.

        If asyncio does so, because a task that awaits the call was cancelled, a call that a worker
        process has begun is ended, too, with that worker.
        """
        with self._helper.lock:
            if self._state in CANCELLED:
                return True
            if claimed := self.claim():
                self._state = CANCELLED[0]
                self._helper.withdraw(self)
        if not claimed:
            # Nobody waits for the call any more, unlike after another cancel of a call that runs.
            if self._state == RUNNING and _called_by("_call_check_cancel"):
                self._helper.kill(self)
            return False
        with self._condition:
            self._state = CANCELLED[1]
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        self._invoke_callbacks()
        return True

    def _invoke_callbacks(self) -> None:
        """Call them. What one raises ends neither the others nor the thread that it runs in.

        That thread may be the one that all other calls depend on.
        """
        self._wake()  # here, for the standard library's ``set_result`` and its like come here, too
        for callback in self._done_callbacks:
            try:
                callback(self)
            except KeyboardInterrupt:
                if threading.current_thread() is threading.main_thread():
                    raise  # rather the user's than the callback's
                _log.exception("exception calling callback for %r", self)
            except BaseException:  # noqa: BLE001 - SystemExit, for one
                _log.exception("exception calling callback for %r", self)

    # -- used by the owner ---------------------------------------------------------------------

    def begin(self) -> bool:
        """Enter RUNNING under the owner's lock; False if it was cancelled or has ended."""
        if self._state == PENDING:
            self._state = RUNNING
        return self._state == RUNNING

    def claim(self) -> bool:
        """Enter RUNNING under the owner's lock; True for one caller only, before any cancelling."""
        if self._state != PENDING:
            return False
        self._state = RUNNING
        return True

    def drop(self) -> None:
        """Forget what was to be called."""

    def fail(self, error: BaseException) -> None:
        """End with an error, unless it has begun or was cancelled."""
        with self._helper.lock:
            if not self.claim():
                return
        self.drop()
        self.settle(None, error)

    def abandon(self, error: BaseException, *, running: bool = False) -> None:
        """End in a forked copy of the program, where nothing else will end it.

        No callback runs: that is left to the program that was forked.

        Args:
            error: what is raised to those who ask.
            running: also if it has begun.
        """
        if self.done() or not ((running and self._state == RUNNING) or self.claim()):
            return
        self.drop()
        self._done_callbacks.clear()
        self._waiters.clear()
        # Its lock may be held by a thread that is gone.
        self.__dict__.pop("_condition", None)
        self.__dict__["_gate"] = CLOSED
        self._exception = error
        self._state = FINISHED

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Enter FINISHED and tell those who wait; not under the owner's lock."""
        self._result = value
        self._exception = error
        if self.__dict__.setdefault("_gate", CLOSED) is CLOSED:
            self._state = FINISHED  # nobody has a condition so far, nobody will
            if self._sleepers:
                self._wake()
            return
        with self._condition:
            # Not before: `wait` would count a future that it sees finished, and be told again.
            self._state = FINISHED
            for waiter in self._waiters:
                if error is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            self._condition.notify_all()
        self._invoke_callbacks()


def _called_by(name: str) -> bool:
    """Whether our caller was called by that function of ``asyncio.wrap_future``'s."""
    frame = sys._getframe(2)
    return (frame.f_code.co_name, frame.f_globals.get("__name__")) == (name, "asyncio.futures")
