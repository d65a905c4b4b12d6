"""Any ``concurrent.futures.Executor`` as a backend; the program starts and ends it.

Guarantees: only ``submit`` of the executor is used. What cannot travel costs its item, and so does
what an engine says has ended its worker. Any other error of a future is the engine's own, since
those of items are results: the executor is given no more, and that error ends the run.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

from parallax._backends.capture import run_chunk
from parallax._backends.contract import CrewSetup, Died, Done, Joined, Refused, WorkerEnd
from parallax._backends.result_encoding import encode_result
from parallax._backends.thread_workers import SelfReportingCrew
from parallax._core.chunks import Chunk, ChunkResult
from parallax._core.contexts import snapshot
from parallax._core.lazy_import import futures, lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING, Any, PickleBuffer
from parallax._core.nesting import Place, enter
from parallax._core.options import name_of
from parallax._reporting.stall_policy import WorkerSnapshot
from parallax._transport import codec
from parallax._transport.pickle_diagnosis import UNKNOWN_REASON, find_unpicklable

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from parallax._core import errors
else:
    errors = lazy_module("parallax._core.errors")


_CANCELLED_CALLS = (
    "the executor that was passed as backend= has cancelled calls of this run, as "
    "shutdown(cancel_futures=True) does, and a cluster that goes away. Keep it open until the run "
    "has ended"
)

#: What engines raise for a call whose worker died, while they themselves go on: package, class.
_WORKER_LOST = frozenset({("distributed", "KilledWorker"), ("ray", "WorkerCrashedError")})


class _Mark:
    """Stands in a pickle where a part of a call begins, and notes that a pickler came so far."""

    def __init__(self, call: _ChunkCall, part: str) -> None:
        self._call, self._part = call, part

    def __reduce__(self) -> tuple[Any, ...]:
        self._call.packing = self._part
        return int, ()


class _ChunkCall:
    """A chunk on its way through an executor, which may pickle it, in any thread, or may not."""

    #: the part that a pickler has begun and not finished; "" if there is none.
    packing = ""

    def __init__(self, *parts: Any, away: bool = False) -> None:
        self._parts, self._away = parts, away
        self.__name__ = getattr(parts[1], "__name__", "call")  # Dask shows it

    def __reduce__(self) -> tuple[Any, ...]:
        place, fn, items, *rest = self._parts
        marks = (_Mark(self, part) for part in ("callable", "item", ""))
        return _unpacked, (next(marks), fn, next(marks), items, next(marks), place, *rest)

    def diagnosis(self, error: BaseException) -> tuple[str, str]:
        """What of the call does not pickle, and why: by the engine's error if parallax could."""
        _, fn, items, *_ = self._parts
        stuck = fn if self.packing == "callable" else items[0] if len(items) == 1 else items
        path, reason = find_unpicklable(stuck, self.packing)
        return path, f"{type(error).__name__}: {error}" if reason == UNKNOWN_REASON else reason

    def __call__(self) -> Any:
        place, fn, items, star, stop = self._parts
        before = enter(Place(*place))
        try:
            result = run_chunk(fn, items, star=star, stop=stop)
        finally:
            enter(before)
        return Parcel(*encode_result(result)[:2]) if self._away else result


def _unpacked(_: int, fn: Any, __: int, items: Any, ___: int, place: Any, *rest: Any) -> _ChunkCall:
    return _ChunkCall(place, fn, items, *rest, away=True)


class Parcel:
    """An object that is encoded: what of it does not travel, or not arrive, fails no engine."""

    def __init__(self, payload: bytes, buffers: Sequence[Any]) -> None:
        self._encoded = payload, buffers

    def __reduce__(self) -> tuple[Any, ...]:
        payload, buffers = self._encoded
        return Parcel, (payload, [PickleBuffer(each) for each in buffers])

    def __sizeof__(self) -> int:
        payload, buffers = self._encoded
        return len(payload) + sum(memoryview(each).nbytes for each in buffers)

    @functools.cached_property
    def value(self) -> Any:
        """The object; made once in a process that keeps the parcel."""
        return codec.decode(*self._encoded)


class ExternalCrew(SelfReportingCrew):
    """Slots of an executor of the program, at work for one run."""

    def __init__(self, setup: CrewSetup, executor: Executor) -> None:
        super().__init__(setup)
        self._executor = executor
        self._names: list[int] = []
        self._pending: set[Future[Any]] = set()
        self._broken: BaseException | None = None
        #: workers that the engine has lost. Its threads add to it.
        self._gone: set[int] = set()

    @property
    def size(self) -> int:
        return len(self._names) - len(self._gone)

    def delay(self) -> float:
        return 0.0

    def open(self, count: int) -> None:
        if self._broken is not None:
            raise self._broken
        self._place = self._outer.worker(max(count, self.size))
        while self.size < count:
            name = self._new_id()
            self._names.append(name)
            self._report(Joined(name))

    def send(self, worker: int, chunk: Chunk, items: Sequence[Any]) -> None:
        fn, star, stop = self._call
        call = _ChunkCall(self._place.packed(), fn, items, star, stop)
        if isinstance(self._executor, futures.ThreadPoolExecutor):
            self._submit(worker, chunk, call, snapshot(self._context).run, call)
        else:
            self._submit(worker, chunk, call, call)

    def _submit(
        self, worker: int, chunk: Chunk, call: _ChunkCall | None, *run: Any, sent: int = 0
    ) -> None:
        """Submit a chunk, of ``sent`` bytes: a ``call`` that the executor may pickle, or none."""
        submit: Callable[..., Future[Any]] = self._executor.submit
        try:
            future = self._context.copy().run(submit, *run)
        except Exception as error:
            if not ((call and call.packing) or isinstance(error, futures.BrokenExecutor)):
                raise
            self._failed(worker, chunk, call, error)
            return
        self._pending.add(future)

        def finished(done: Future[Any]) -> None:
            self._pending.discard(done)
            if done.cancelled():
                self._lost(worker, futures.CancelledError(_CANCELLED_CALLS))
            elif (error := done.exception()) is None:
                self._arrived(worker, chunk, done.result(), sent)
            else:
                self._failed(worker, chunk, call, error)

        future.add_done_callback(finished)

    def _arrived(self, worker: int, chunk: Chunk, result: Any, sent: int) -> None:
        received = 0
        if type(result) is Parcel:
            received = result.__sizeof__()
            try:
                result = ChunkResult(*result.value)
            except BaseException as error:  # noqa: BLE001 - any __setstate__ may raise anything
                words, cause = f"{type(error).__name__}: {error}", errors.without_frames(error)
                self._report(Refused(worker, chunk.id, "result", "result", words, cause))
                return
        self._report(Done(worker, chunk.id, result, sent, received))

    def _failed(
        self, worker: int, chunk: Chunk, call: _ChunkCall | None, error: BaseException
    ) -> None:
        """The engine did not run the call, or not to its end."""
        kinds = {(each.__module__.partition(".")[0], each.__name__) for each in type(error).__mro__}
        if kinds & _WORKER_LOST:
            self._gone.add(worker)
            detail = f"{type(error).__name__}: {error}"
            self._report(Died(worker, WorkerEnd(detail=detail), began=True))
        elif call and call.packing and not isinstance(error, futures.BrokenExecutor):
            path, reason = call.diagnosis(error)
            self._report(Refused(worker, chunk.id, call.packing, path, reason, error))
        else:
            self._lost(worker, error)

    def _lost(self, worker: int, error: BaseException) -> None:
        """End the run with the error: its turn takes the items back, and asks for a worker."""
        self._broken = self._broken or error
        self._report(Died(worker, WorkerEnd(), began=False))

    def name(self, worker: int) -> str:
        return f"{name_of(self._executor)} ({self._names.index(worker) + 1})"

    def where(self, worker: int) -> WorkerSnapshot:  # noqa: ARG002 - the contract's parameter
        return WorkerSnapshot(name_of(self._executor))

    def close(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        for future in list(self._pending):
            future.cancel()
        futures.wait(list(self._pending), max(0.0, deadline - time.monotonic()))
