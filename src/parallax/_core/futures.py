"""Futures that cost little until a thread waits on them.

A ``concurrent.futures.Future`` makes a condition variable when it is created, which takes longer
than sending a short task. This one makes it on first use: by a waiter, a callback, ``wait`` or
``as_completed``. And a thread that asks for a result may be given work to do (`Helper`) instead of
being put to sleep, so that no other thread has to wake it.

Guarantees: for its users this is the standard library's future; a transition out of PENDING happens
once, under the owner's lock or by an atomic `claim`; FINISHED is entered once.
Assumes: other threads see attribute stores in the order in which they were made (the GIL, or the
per-object locks of a free-threaded build, ensure that).
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from concurrent.futures import (
    CancelledError,
    TimeoutError,  # noqa: A004 - another one before 3.11
)
from concurrent.futures import Future as StandardFuture
from operator import attrgetter
from typing import Protocol, TypeVar

from parallax._core.deferred_signals import MAX_WAIT_S
from parallax._core.light_stdlib import Any

_log = logging.getLogger("concurrent.futures")

T = TypeVar("T")

PENDING = "PENDING"
RUNNING = "RUNNING"
CANCELLED = ("CANCELLED", "CANCELLED_AND_NOTIFIED")
FINISHED = "FINISHED"
NOT_DONE = (PENDING, RUNNING)

#: Seconds of the first slice of a wait. A signal that arrives just before a wait begins is noticed
#: when its slice ends; shorter slices wake the thread more often.
FIRST_WAIT_SLICE_S = 0.05

#: Stored instead of a condition: the future ended before one was needed.
NO_CONDITION = object()


class Helper(Protocol):
    lock: Any

    def help(self, future: Any, timeout: float | None) -> float | None:
        """Work towards the end of the future; return the seconds left of ``timeout``."""

    def withdraw(self, future: Any) -> None:
        """Take a cancelled task back; the lock is held."""

    def kill(self, future: Any) -> None:
        """End a call that is running, if that is possible."""

    def interrupt(self) -> None:
        """End every call that can be ended: a thread that waited for a future was interrupted."""


class _Condition(threading.Condition):
    """Entered and left in C: a signal during Python code could leave it locked for ever."""

    __enter__ = property(attrgetter("_lock.__enter__"))
    __exit__ = property(attrgetter("_lock.__exit__"))


class _LazyCondition:
    """Makes the condition of a future when it is first needed."""

    def __get__(self, future: Future[Any] | None, owner: type | None = None) -> Any:
        if future is None:
            raise AttributeError("_condition")
        # setdefault is atomic: of the threads that race here and in `settle` one stores a value.
        gate = future.__dict__.setdefault("_gate", _Condition())
        if gate is NO_CONDITION:
            # `settle` does the same next. Whoever gets a condition now must see a finished future.
            future._state = FINISHED
            gate = _Condition()
        return future.__dict__.setdefault("_condition", gate)


class Future(StandardFuture[T]):
    """The future of one task of an executor."""

    # Not __getattr__: that is called only after an AttributeError was created and dropped.
    _condition: Any = _LazyCondition()

    #: how often the call is run again if it fails.
    retries = 0

    #: locks of the threads that wait for a result; replaced by a list of its own on first use.
    _sleepers: Any = ()

    def __init__(self, helper: Helper) -> None:
        # Not StandardFuture.__init__: it makes the condition.
        self._state = PENDING
        self._result: Any = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []
        self._helper = helper

    # -- for users -----------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> T:
        """Return the call's result or raise its exception, as ``concurrent.futures.Future``."""
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
        """Return the call's exception, or None, as ``concurrent.futures.Future``."""
        if self._state != FINISHED:
            self._wait(timeout)
        if isinstance(self._exception, StopIteration) and _called_by("_copy_future_state"):
            # Before Python 3.12 asyncio refuses a StopIteration, and its awaiter waits for ever.
            error = RuntimeError("the call raised StopIteration, which no coroutine can pass on")
            error.__cause__ = self._exception
            return error
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        """Wait until the future is done; raises TimeoutError or CancelledError."""
        try:
            timeout = self._helper.help(self, timeout)
            if self._state in NOT_DONE:
                self._sleep(timeout)
            if self._state in CANCELLED:
                raise CancelledError
        except (KeyboardInterrupt, SystemExit):
            # Raised by Ctrl-C or a SIGTERM handler: the call's own error is not raised here.
            self._helper.interrupt()
            raise
        finally:
            # As in `result`: no reference from the traceback.
            self = None  # type: ignore[assignment]  # noqa: PLW0642

    def _sleep(self, timeout: float | None) -> None:
        """Sleep until the future is done; raises TimeoutError after ``timeout`` seconds.

        Each sleeper has a lock of its own. With the shared condition, an exception from a signal
        handler could arrive after the condition is locked and before the block that unlocks it;
        the thread that finishes calls would then wait for the condition for ever.
        """
        sleeper = threading.Lock()
        sleeper.acquire()
        # setdefault and append are atomic. This adds the lock, then reads the state; `_wake` runs
        # after the state was set, then reads the list: one of both sees the other.
        sleepers = self.__dict__.setdefault("_sleepers", [])
        sleepers.append(sleeper)
        part = FIRST_WAIT_SLICE_S
        try:
            while self._state in NOT_DONE:
                if timeout is not None and timeout <= 0:
                    raise TimeoutError
                # In slices that double in length: see FIRST_WAIT_SLICE_S, MAX_WAIT_S.
                nap = part if timeout is None else min(part, timeout)
                sleeper.acquire(timeout=nap)
                timeout = None if timeout is None else timeout - nap
                part = min(2 * part, MAX_WAIT_S)
        finally:
            with contextlib.suppress(ValueError):
                sleepers.remove(sleeper)
            # As in `result`: no reference from the traceback.
            self = None  # type: ignore[assignment]  # noqa: PLW0642

    def _wake(self) -> None:
        """Wake the threads that sleep on this future; the state was changed before."""
        for sleeper in list(self._sleepers):
            with contextlib.suppress(RuntimeError):  # already released
                sleeper.release()

    def done(self) -> bool:
        """Whether the call has ended or was cancelled."""
        return self._state not in NOT_DONE

    def cancel(self) -> bool:
        """Cancel the call if no worker has it, as ``concurrent.futures.Future``.

        When asyncio cancels, because a task that awaits the call was cancelled, it is ``revoke``.
        """
        with self._helper.lock:
            if self._state in CANCELLED:
                return True
            if claimed := self.claim():
                self._state = CANCELLED[0]
                self._helper.withdraw(self)
        if not claimed:
            return _called_by("_call_check_cancel") and self._revoke()
        with self._condition:
            self._tell_cancelled()
        self._invoke_callbacks()
        return True

    def revoke(self) -> bool:
        """Cancel the call even if it runs; False if it has ended.

        Its worker is ended if that is a process. A thread goes on; what it returns is dropped.
        """
        return self.cancel() or self._revoke()

    def _revoke(self) -> bool:
        while self._state == PENDING:
            time.sleep(0)  # claimed by a thread that is about to say so
        with self._helper.lock:
            with self._condition:
                if self._state != RUNNING:
                    return self._state in CANCELLED
                self._tell_cancelled()
            self._helper.kill(self)
        self._invoke_callbacks()
        return True

    def _tell_cancelled(self) -> None:
        """Enter the last state of a cancelled call; the condition is held."""
        self._state = CANCELLED[1]
        for waiter in self._waiters:
            waiter.add_cancelled(self)
        self._condition.notify_all()

    def _invoke_callbacks(self) -> None:
        """Call every callback; an exception of one stops neither the others nor this thread.

        All other calls may depend on this thread.
        """
        self._wake()  # here because the standard library's ``set_result`` ends in this method, too
        for callback in self._done_callbacks:
            try:
                callback(self)
            except KeyboardInterrupt:
                if threading.current_thread() is threading.main_thread():
                    raise  # more likely from the user's Ctrl-C than from the callback
                _log.exception("exception calling callback for %r", self)
            except BaseException:  # noqa: BLE001 - SystemExit, for one
                _log.exception("exception calling callback for %r", self)

    # -- used by the owner ---------------------------------------------------------------------

    def begin(self) -> bool:
        """Enter RUNNING under the owner's lock; False if the future is cancelled or finished."""
        if self._state == PENDING:
            self._state = RUNNING
        return self._state == RUNNING

    def claim(self) -> bool:
        """Enter RUNNING from PENDING under the owner's lock; True for exactly one caller."""
        if self._state != PENDING:
            return False
        self._state = RUNNING
        return True

    def again(self, error: BaseException) -> bool:
        """Whether the call, which has failed, is to run again; counts that."""
        if not self.retries or not isinstance(error, Exception) or self._state in CANCELLED:
            return False
        self.retries -= 1
        return True

    def drop(self) -> None:
        """Drop the references to the callable and its arguments."""

    def fail(self, error: BaseException) -> None:
        """Finish with an error, unless the call has begun or was cancelled."""
        with self._helper.lock:
            if not self.claim():
                return
        self.drop()
        self.settle(None, error)

    def abandon(self, error: BaseException, *, running: bool = False) -> None:
        """Finish with an error in a forked child, which has no worker to finish the call.

        No callback runs here: callbacks belong to the parent process. A call that is running is
        finished only with ``running``.
        """
        if self.done() or not ((running and self._state == RUNNING) or self.claim()):
            return
        self.drop()
        self._done_callbacks.clear()
        self._waiters.clear()
        # A thread that does not exist in the child may hold its lock.
        self.__dict__.pop("_condition", None)
        self.__dict__["_gate"] = NO_CONDITION
        self._exception = error
        self._state = FINISHED

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Enter FINISHED and notify all waiters, unless it was revoked; no lock is held."""
        self._result = value
        self._exception = error
        if self.__dict__.setdefault("_gate", NO_CONDITION) is NO_CONDITION:
            self._state = FINISHED  # no thread has a condition, and none will get one
            if self._sleepers:
                self._wake()
            return
        with self._condition:
            if self._state in CANCELLED:
                self._result = self._exception = None
                return
            # Under the condition: `wait` would count a finished future and be notified again.
            self._state = FINISHED
            for waiter in self._waiters:
                if error is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            self._condition.notify_all()
        self._invoke_callbacks()


def _called_by(name: str) -> bool:
    """Whether the calling method was called by this function of ``asyncio.futures``."""
    frame = sys._getframe(2)
    return (frame.f_code.co_name, frame.f_globals.get("__name__")) == (name, "asyncio.futures")
