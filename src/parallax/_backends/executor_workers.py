"""Any ``concurrent.futures.Executor`` as a backend; the program starts and ends it.

Guarantees: only ``submit`` of the executor is used; an executor that breaks is given no more, and
its own error ends the run: which of the items in flight broke it cannot be told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from parallax._backends.capture import run_chunk
from parallax._backends.contract import CrewSetup, Died, Done, Joined, Refused, WorkerEnd
from parallax._backends.thread_workers import SelfReportingCrew
from parallax._core.chunks import Chunk, ChunkResult
from parallax._core.contexts import snapshot
from parallax._core.lazy_import import futures
from parallax._core.light_stdlib import TYPE_CHECKING, Any
from parallax._core.nesting import Place, enter
from parallax._reporting.stall_policy import WorkerSnapshot

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future


_CANCELLED_CALLS = (
    "the executor that was passed as backend= has cancelled calls of this run, as "
    "shutdown(cancel_futures=True) does. Keep it open until the run has ended"
)


def _run_in(
    place: tuple[Any, ...], fn: Callable[..., Any], items: Sequence[Any], star: bool, stop: bool
) -> ChunkResult:  # executors take positional arguments, and some pickle them
    before = enter(Place(*place))
    try:
        return run_chunk(fn, items, star=star, stop=stop)
    finally:
        enter(before)


class ExternalCrew(SelfReportingCrew):
    """Slots of an executor of the program, at work for one run."""

    def __init__(self, setup: CrewSetup, executor: Executor) -> None:
        super().__init__(setup)
        self._executor = executor
        self._names: list[int] = []
        self._pending: set[Future[ChunkResult]] = set()
        self._broken: BaseException | None = None

    @property
    def size(self) -> int:
        return len(self._names)

    def delay(self) -> float:
        return 0.0

    def open(self, count: int) -> None:
        if self._broken is not None:
            raise self._broken
        self._place = self._outer.worker(max(count, len(self._names)))
        while len(self._names) < count:
            name = self._new_id()
            self._names.append(name)
            self._report(Joined(name))

    def send(self, worker: int, chunk: Chunk, items: Sequence[Any]) -> None:
        fn, star, stop = self._call
        submit: Callable[..., Future[ChunkResult]] = self._executor.submit
        call: tuple[Any, ...] = (_run_in, self._place.packed(), fn, items, star, stop)
        if isinstance(self._executor, futures.ThreadPoolExecutor):
            call = snapshot(self._context).run, *call
        try:
            future = self._context.copy().run(submit, *call)
        except futures.BrokenExecutor as error:
            self._lost(worker, error)
            return
        self._pending.add(future)

        def finished(done: Future[ChunkResult]) -> None:
            self._pending.discard(done)
            if done.cancelled():
                self._lost(worker, futures.CancelledError(_CANCELLED_CALLS))
            elif (error := done.exception()) is None:
                self._report(Done(worker, chunk.id, done.result()))
            elif isinstance(error, futures.BrokenExecutor):
                self._lost(worker, error)
            else:
                words = f"{type(error).__name__}: {error}"
                self._report(Refused(worker, chunk.id, "item", "item", words, error))

        future.add_done_callback(finished)

    def _lost(self, worker: int, error: BaseException) -> None:
        """End the run with the error: its turn takes the items back, and asks for a worker."""
        self._broken = self._broken or error
        self._report(Died(worker, WorkerEnd(), began=False))

    def name(self, worker: int) -> str:
        return f"{type(self._executor).__name__} ({self._names.index(worker) + 1})"

    def where(self, worker: int) -> WorkerSnapshot:  # noqa: ARG002 - the contract's parameter
        return WorkerSnapshot(type(self._executor).__name__)

    def close(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        for future in list(self._pending):
            future.cancel()
        futures.wait(list(self._pending), max(0.0, deadline - time.monotonic()))
