"""The worker processes of a routing executor: none until a function is better off there.

Guarantees: a call that cannot travel, or for which no worker process can be had, is told, and not
lost: it may run in this process instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from parallax._adaptive.call import RoutedCall
from parallax._backends.contract import WorkerEnd
from parallax._backends.processes.parent.process_engine import ProcessEngine
from parallax._backends.processes.parent.task import Task
from parallax._backends.processes.parent.warm_pool import Pool, warm_pool
from parallax._backends.thread_engine import ThreadEngine
from parallax._core.deferred_signals import Shield
from parallax._core.errors import SerializationError, WorkerStartError
from parallax._core.nesting import Place

__all__ = ["Far", "Settings", "Stoppable"]

clock = time.perf_counter

#: Seconds that worker processes are taken to need at most until they are up, where other calls
#: have them all: this executor's are its own.
SLOW_START = 0.5


class ProcessErrors(Protocol):
    """Makes the errors of calls in worker processes."""

    def lost_call(self, end: WorkerEnd, attempts: int, /) -> BaseException:
        """The error of a call whose worker ended while it ran the call."""

    def broken_pool(self, cause: BaseException, /) -> BaseException:
        """The error of all calls when no worker can be started, or an initializer has failed."""

    def standard_error(self, error: BaseException, /) -> BaseException:
        """The error of a call, converted to a type that the standard library's pool raises."""


@dataclass(frozen=True)
class Settings:
    """What an executor was made with; see ``Executor``."""

    max_workers: int | None
    #: threads if nobody said how many, and as long as calls do not wait.
    default_threads: int
    #: first part of the threads' names.
    name: str
    #: imports the functions that make the errors of calls in worker processes.
    errors: Callable[[], ProcessErrors]
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    max_tasks: int | None
    #: how worker processes are started.
    method: str
    #: seconds without an end of any call after which that is logged; 0 for never.
    stall_warn: float


class Far:
    """Where calls go that leave this process.

    Args:
        settings: the executor's.
        place: where the executor was made.
        lock: the executor's.
    """

    def __init__(self, settings: Settings, place: Place, lock: Any) -> None:
        self._settings = settings
        self._place = place
        self._lock = lock
        self.engine: ProcessEngine | None = None
        #: why no worker process can be had.
        self._none = ""
        self._rest: float | None = None

    @property
    def workers(self) -> int:
        """Most worker processes, 1 if there may be none."""
        if self._place.level or self._none:
            return 1
        return min(self._settings.max_workers or self._place.cores, self._place.cores)

    @property
    def why_none(self) -> str:
        """Why there may be none."""
        if self._none:
            return self._none
        if self._place.level:
            return "this executor is used inside another call's worker"
        one = self._settings.max_workers == 1
        return "max_workers=1" if one else "there is one core for it"

    def expected_start(self, modules: frozenset[str]) -> float:
        """Seconds until worker processes would take calls."""
        if self.engine is not None and self.engine.workers:
            return 0.0
        return min(self._pool().expected_start(self.workers, 1 << 30, modules), SLOW_START)

    def prepare(self, modules: frozenset[str]) -> None:
        """Begin to make worker processes ready, in the background."""
        self._pool().prepare(modules)

    def rest_after(self, seconds: float) -> None:
        """Have worker processes leave that have had nothing to do for so long."""
        self._rest = seconds

    def load(self) -> None:
        """Import what worker processes need, if they may be needed; later it may be too late."""
        try:
            self._settings.errors()
        except RuntimeError as error:  # the interpreter is shutting down
            self._none = f"no worker process can be had: {error}"

    def encode(self, call: RoutedCall) -> None:
        """Make a call ready to travel; it has no data if it cannot."""
        if call.call is None:
            return
        begun = time.thread_time()  # the GIL may be waited for meanwhile
        try:
            call.known, call.data = self._made().encode(*call.call)
        except SerializationError as error:
            if error.what == "callable":
                with self._lock:
                    call.path.choice.keep(str(error), clock())
        else:
            call.path.choice.sent(time.thread_time() - begun)

    def take(self, call: RoutedCall) -> bool:
        """Hand an encoded call to the worker processes; the lock is held.

        Returns:
            False if none can be had.
        """
        try:
            self._made().take(call)
        except BrokenExecutor as error:
            call.data = None
            self._none = f"no worker process can be had: {error}"
            return False
        return True

    @property
    def spoilt(self) -> BaseException | None:
        """What the initializer raised in a worker process."""
        fatal = self.engine.fatal if self.engine is not None else None
        return None if isinstance(fatal, WorkerStartError) else fatal

    def failed(self) -> bool:
        """Whether worker processes turned out not to be had."""
        fatal = self.engine.fatal if self.engine is not None else None
        if not isinstance(fatal, WorkerStartError):
            return False
        self._none = f"no worker process can be had: {fatal}"
        return True

    def forget(self, lock: Any) -> None:
        """Start afresh: this process is a forked copy, in which no worker exists."""
        self._lock = lock
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.forget()

    def _pool(self) -> Pool:
        return warm_pool(self._settings.method)

    def _made(self) -> ProcessEngine:
        with self._lock:
            if self.engine is None:
                settings, errors = self._settings, self._settings.errors()
                self.engine = ProcessEngine(
                    self.workers,
                    self._pool(),
                    died=errors.lost_call,
                    broken=errors.broken_pool,
                    failed=errors.standard_error,
                    initializer=settings.initializer,
                    initargs=settings.initargs,
                    max_tasks=settings.max_tasks,
                    timed=_timed,
                    lock=self._lock,
                    stall_warn=settings.stall_warn,
                )
                if self._rest is not None:
                    self.engine.rest_after(self._rest)
            return self.engine


class Stoppable:
    """How an engine with threads and worker processes ends calls before their time."""

    threads: ThreadEngine
    far: Far

    def interrupt(self) -> None:
        """End what can be ended: calls that worker processes have, and those that nobody has."""
        with Shield():
            self.cancel_waiting()
            self.threads.interrupt()
            if self.far.engine is not None:
                self.far.engine.interrupt()

    def stop(self) -> None:
        """End what can be ended, and the engines; threads inside a call are left to themselves."""
        with Shield():
            self.shutdown(wait=False, cancel=True)
            self.threads.stop()
            if self.far.engine is not None:
                self.far.engine.stop()

    def cancel_waiting(self) -> None:
        """Cancel the calls that were not handed on."""
        raise NotImplementedError

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """Take no more calls; end when all are done."""
        raise NotImplementedError


def _timed(task: Task, wall: float, cpu: float) -> None:
    assert isinstance(task, RoutedCall)
    now = clock()
    task.path.choice.took(wall / task.count, cpu / task.count, now)
    task.engine.review(task.path, now)
