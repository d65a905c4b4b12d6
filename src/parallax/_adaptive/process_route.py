"""The process route of an adaptive executor: no worker processes until a function needs them.

Guarantees: a call that cannot be sent to a worker process, or for which none can be started, is
reported and not lost: it may run in this process instead. The process engine is imported with the
first function that may use it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeAlias

from parallax._core.errors import SerializationError, WorkerStartError
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.nesting import Place
from parallax._core.records import record
from parallax._routing.route_choice import RouteChoice
from parallax._transport.codec import Encoded

if TYPE_CHECKING:
    from parallax._backends.processes.parent.function_cache import Known
    from parallax._backends.processes.parent.pool import Pool
    from parallax._backends.processes.parent.process_engine import ProcessEngine
    from parallax._backends.processes.parent.task import Task
    from parallax._reporting.recording import CallRecording

#: A callable with its arguments, or with the arguments of several calls and None.
Submitted: TypeAlias = "tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any] | None]"

#: Upper bound of the predicted seconds until worker processes are up. The prediction is infinite
#: while other calls have all processes, but this executor starts its own.
MAX_EXPECTED_START_S = 0.5


@record(frozen=True, slots=True)
class Settings:
    """The arguments of ``Executor``, checked."""

    max_workers: int | None
    #: number of threads if ``max_workers`` is None, and as long as calls do not wait.
    default_threads: int
    #: first part of the threads' names.
    name: str
    #: imports and returns ``process_errors``, the functions that make the errors of worker
    #: processes; raises RuntimeError when the interpreter is shutting down.
    errors: Callable[[], Any]
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    #: calls after which a worker process is replaced.
    max_tasks: int | None
    #: how worker processes are started; see the option ``start_method``.
    method: str
    #: seconds without an end of any call after which that is logged; 0 for never.
    stall_warn: float


class ProcessRoute:
    def __init__(
        self,
        settings: Settings,
        place: Place,
        lock: Any,
        timed: Callable[[Task, float, float], None],
    ) -> None:
        self._settings = settings
        self._place = place
        self._lock = lock
        self._timed = timed  # see ``ProcessEngine``
        #: the engine; None until the first call is sent.
        self.engine: ProcessEngine | None = None
        #: why no worker process can be started; "" as far as is known.
        self._unavailable = ""
        self._idle_timeout: float | None = None
        self._recording: CallRecording | None = None
        self._fork_wanted = settings.method == "snapshot"

    def begin(self) -> None:
        """Fork the program if that is wanted: at the first call, for then come threads."""
        if self._fork_wanted:
            self._fork_wanted = False
            try:
                self.started().begin()
            except (RuntimeError, OSError) as error:
                self._set_unavailable(error)

    cores: int = property(attrgetter("_place.cores"))  # type: ignore[assignment]

    @property
    def workers(self) -> int:
        """Maximum number of worker processes; 1 if this route cannot be used."""
        if self._place.level or self._unavailable:
            return 1
        return min(self._settings.max_workers or self.cores, self.cores)

    @property
    def why_unavailable(self) -> str:
        """Why this route cannot be used."""
        if self._unavailable:
            return self._unavailable
        if self._place.level:
            return "this executor is used inside another call's worker"
        one = self._settings.max_workers == 1
        return "max_workers=1" if one else "there is one core for it"

    def load(self) -> None:
        """Import what worker processes need: when the first call is sent it may be too late."""
        try:
            self._settings.errors()
        except RuntimeError as error:  # the interpreter is shutting down
            self._set_unavailable(error)
        else:
            import parallax._backends.processes.parent.process_engine  # noqa: F401

    def expected_start(self, modules: frozenset[str]) -> float:
        """Seconds until worker processes, which have to import modules, would accept calls."""
        if self.engine is not None and self.engine.workers:
            return 0.0
        expected = self._pool().expected_start(self.workers, 1 << 30, modules)
        return min(expected, MAX_EXPECTED_START_S)

    def prepare(self, modules: frozenset[str]) -> None:
        """Begin to start worker processes, and have them import modules, in the background."""
        self._pool().prepare(modules)

    def record(self, recording: CallRecording | None) -> None:
        """Record what worker processes do, if there are any; None ends that."""
        with self._lock:
            self._recording = recording
            if self.engine is not None:
                self.engine.record(recording)

    def rest_after(self, seconds: float) -> None:
        self._idle_timeout = seconds

    def encode(self, submitted: Submitted, choice: RouteChoice) -> tuple[Known, Encoded] | None:
        """Encode a call for a worker process, and tell ``choice`` the cost; None if impossible."""
        begun = time.thread_time()  # not wall time: this thread may wait for the GIL
        try:
            encoded = self.started().encode(*submitted)
        except SerializationError as error:
            if error.what == "callable":
                with self._lock:
                    choice.keep(str(error), time.perf_counter())
            return None
        except (RuntimeError, OSError) as error:  # the latter from loading modules
            self._set_unavailable(error)
            return None
        spent = time.thread_time() - begun
        with self._lock:
            choice.sent(spent)
        return encoded

    def take(self, task: Task) -> bool:
        """Hand an encoded task over, lock held; False if no worker process can be started."""
        try:
            self.started().take(task)
        except RuntimeError as error:  # BrokenExecutor is one, and so is that of a thread's start
            task.data = None
            self._set_unavailable(error)
            return False
        return True

    @property
    def initializer_error(self) -> BaseException | None:
        """The exception of an initializer that failed in a worker process."""
        fatal = self.engine.fatal if self.engine is not None else None
        return None if isinstance(fatal, WorkerStartError) else fatal

    def start_failed(self) -> bool:
        """Whether worker processes turned out not to start."""
        fatal = self.engine.fatal if self.engine is not None else None
        if not isinstance(fatal, WorkerStartError):
            return False
        self._set_unavailable(fatal)
        return True

    def forget(self, lock: Any) -> None:
        """Start afresh with a new lock: this process is a forked copy, without workers."""
        self._lock = lock
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.forget()

    def _set_unavailable(self, cause: BaseException) -> None:
        self._unavailable = f"no worker process can be started: {cause}"

    def _pool(self) -> Pool:
        if self.engine is not None:  # a fork of the program needs no preparation
            pool: Pool = self.engine.pool
            return pool
        from parallax._backends.processes.parent.warm_pool import warm_pool

        return warm_pool(self._settings.method)

    def started(self) -> ProcessEngine:
        """The engine, which is made if there is none."""
        with self._lock:
            if self.engine is None:
                self.engine = self._new_engine()
                if self._idle_timeout is not None:
                    self.engine.rest_after(self._idle_timeout)
                self.engine.record(self._recording)
            return self.engine

    def _new_engine(self) -> ProcessEngine:
        from parallax._backends.processes.parent.process_engine import ProcessEngine

        settings, errors = self._settings, self._settings.errors()
        return ProcessEngine(
            self.workers,
            self._pool(),
            call_errors=errors,
            initializer=settings.initializer,
            initargs=settings.initargs,
            max_tasks=settings.max_tasks,
            timed=self._timed,
            lock=self._lock,
            stall_warn=settings.stall_warn,
            snapshot=settings.method in {"auto", "snapshot"},
        )
