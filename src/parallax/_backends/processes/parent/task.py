"""A submitted call, the worker that has it, and how both the call and its outcome travel."""

from __future__ import annotations

import itertools
import pickle
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from parallax._backends.contract import WorkerEnd
from parallax._backends.processes.common import protocol
from parallax._backends.processes.common.arithmetic import Arithmetic
from parallax._backends.processes.common.stack_dumps import StackDump
from parallax._backends.processes.parent.environment_capture import capture_live
from parallax._backends.processes.parent.function_cache import Known
from parallax._backends.processes.parent.worker_client import Outputs, WorkerClient
from parallax._backends.processes.start.started_process import StartedProcess
from parallax._backends.result_encoding import Packed, PieceResult
from parallax._core.chunks import ChunkResult, Failure, Route
from parallax._core.futures import Future, Helper
from parallax._core.lazy_import import errors
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.options import CallOptions
from parallax._transport import codec
from parallax._transport.framing import Frame
from parallax._transport.pickle_diagnosis import find_unpicklable
from parallax._transport.shm_channel import SharedFrame, SharedMemoryChannel

if TYPE_CHECKING:
    from parallax._reporting.recording import CallRecording

#: Seconds that a batch with tasks in it takes at least, however long it has taken already.
MIN_BATCH_S = 1e-9


class Task(Future[Any]):
    #: seconds after which it is killed; how it ends then.
    limit: float | None = None
    verdict: BaseException | None = None

    def __init__(
        self,
        engine: Helper,
        known: Known | None,
        data: codec.Encoded | None,
        options: CallOptions | None = None,
    ) -> None:
        super().__init__(engine)
        if options:
            self.limit, self.retries = options.get("item_timeout"), options.get("retries") or 0
        self.known = known
        self.data = data
        #: the worker that it was sent to; None while it queues.
        self.worker: TaskWorker | None = None
        #: it travels alone, because a worker died with it and others.
        self.alone = False
        #: since when it is to be killed, whoever has it.
        self.killed_at: float | None = None
        self.attempts = 0

    def again(self, error: BaseException) -> bool:
        """See ``Future``; what cannot travel will not do so in another attempt."""
        return not isinstance(error, errors.SerializationError) and super().again(error)


class Batch:
    """Tasks that travelled in one frame and are not answered yet."""

    __slots__ = ("expected", "id", "recalled", "since", "tasks")

    def __init__(self, number: int, tasks: deque[Task], expected: float) -> None:
        self.id = number
        self.tasks = tasks
        self.expected = expected
        self.since = time.monotonic()
        self.recalled = False


class TaskWorker(WorkerClient):
    def __init__(
        self,
        started: StartedProcess,
        channel: SharedMemoryChannel,
        outputs: Outputs,
        dump: StackDump | None = None,
    ) -> None:
        super().__init__(started, channel, outputs, dump)
        #: what was sent and not answered, oldest first.
        self.batches: deque[Batch] = deque()
        #: tasks that it was given in its life.
        self.given = 0
        #: the settings of the program that were sent last.
        self.live_settings: bytes | None = None
        self.idle_since = 0.0
        #: when it was last asked to give back what it has not begun.
        self.recalled_at = 0.0

    @property
    def owed(self) -> int:
        return len(self.batches)

    @property
    def tasks(self) -> list[Task]:
        return [task for batch in self.batches for task in batch.tasks]

    def expected(self) -> float:
        """Seconds of work that it has, as far as is known; 0 only if it has none."""
        return sum(max(MIN_BATCH_S, batch.expected) for batch in self.batches)

    def recall(self) -> None:
        """Ask it to give back what it has not begun."""
        if self.started.recalls:
            assert protocol.RECALL is not None
            for batch in self.batches:
                batch.recalled = True
            self.started.signal(protocol.RECALL)

    def send(self, batch: Batch) -> None:
        """Send tasks in one frame; OSError if it is gone, but what it holds is known."""
        frame: list[tuple[int, bytes]] = []
        buffers: list[memoryview] = []
        self.batches.append(batch)
        self.given += len(batch.tasks)
        if (settings := capture_live()) != self.live_settings and settings is not None:
            self.live_settings = settings
            self.channel.send(protocol.CONTEXT, 0, settings, hold=True)
        for task in batch.tasks:
            task.worker = self
            assert task.known is not None
            assert task.data is not None
            self.teach(task.known.key, task.known.encoded)
            frame.append((task.known.key, task.data.payload))
            buffers += task.data.buffers
        self.channel.send(protocol.BATCH, batch.id, pickle.dumps(frame, 5), buffers)

    def answered(
        self, frame: Frame | SharedFrame, recording: CallRecording | None
    ) -> tuple[Finished, float, float]:
        """Take off the tasks that a frame answers; with wall (0: not known) and CPU seconds."""
        batch, now = self.batches[0], time.monotonic()
        found, wall, cpu = outcomes(frame)
        finished = [(batch.tasks.popleft(), value, error) for value, error in found]
        batch.since = now
        batch.expected -= wall
        if not batch.tasks:
            self.batches.popleft()
            if self.batches:
                self.batches[0].since = now
        if recording is not None:
            calls = sum(len(v.packed[0]) if type(v) is PieceResult else 1 for v, _ in found)
            times = 0.0, wall, cpu  # its clock is not asked: it answers at once
            recording.ended(*self._recorded_as(), times, calls, now - self.born)
        return finished, wall / len(found), cpu / len(found)

    def _recorded_as(self) -> tuple[int, str, Route]:
        route: Route = "processes" if self.started.killable else "interpreters"
        return self.number, self.started.title, route

    def record_death(
        self, recording: CallRecording | None, suspects: int, failed: int, end: WorkerEnd
    ) -> None:
        """Record its death, if that is wanted, with calls that it may have run or that failed."""
        if recording is None or not self.given:
            return
        reason = end.detail or errors.exit_reason(end.exitcode, oom=end.oom)
        killed = next((task for task in self.tasks if task.killed_at is not None), None)
        if killed is not None:
            over = f"took longer than item_timeout={killed.limit}"
            reason = f"ended because its call {over if killed.verdict else 'was cancelled'}"
        counts = max(suspects, failed), failed
        age = time.monotonic() - self.born
        recording.lost(*self._recorded_as(), age, *counts, reason)

    def returned(self, frame: Frame | SharedFrame) -> list[Task]:
        """Take off the tasks that the worker gives back, not begun."""
        back: list[Task] = []
        for number, count in pickle.loads(frame.open()[0]):
            batch = next(b for b in self.batches if b.id == number)
            keep = 0 if count < 0 else len(batch.tasks) - count
            back += itertools.islice(batch.tasks, keep, None)
            while len(batch.tasks) > keep:
                batch.tasks.pop()
            if not batch.tasks:
                self.batches.remove(batch)
        self.given -= len(back)
        return back


Outcome: TypeAlias = "tuple[Any, BaseException | None]"
#: Tasks that have ended, each with its value or its error.
Finished: TypeAlias = "list[tuple[Task, Any, BaseException | None]]"


def encode_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any] | None, settings: Arithmetic | None
) -> codec.Encoded:
    """Encode a call's arguments, and its settings of arithmetic if workers have others."""
    call = (args, kwargs) if settings is None else (args, kwargs, settings)
    try:
        return codec.encode(call, shared=True)
    except Exception as error:  # noqa: BLE001 - whatever a __reduce__ raises
        path, reason = "item", str(error)
        named = {f"argument {number}": each for number, each in enumerate(args)}
        for name, part in {**named, **(kwargs or {})}.items():
            try:
                codec.encode(part)
            except Exception:  # noqa: BLE001 - as above
                path, reason = find_unpicklable(part, name)
                break
        cause = errors.without_frames(error)  # the future keeps it
        raise errors.SerializationError("item", None, path, reason) from cause


def _with_cause(failure: Failure) -> BaseException:
    """The error of a task, with the traceback that its worker saw as its cause."""
    if failure.traceback:
        errors.add_traceback(failure.error, failure.traceback)
    return failure.error


def settle(finished: Finished, failed: Callable[[BaseException], BaseException] | None) -> None:
    """Tell those who wait, without a lock; a callback's KeyboardInterrupt is raised at the end."""
    interrupt = None
    for task, value, error in finished:
        if error is not None and failed is not None:
            try:
                error = failed(error)  # noqa: PLW2901 - the same in another form
            except Exception:  # noqa: BLE001 - its class may do anything; nobody may hang for it
                pass
        try:
            task.settle(value, error)
        except KeyboardInterrupt as raised:
            interrupt = raised
    if interrupt is not None:
        raise interrupt


def outcomes(frame: Frame | SharedFrame) -> tuple[list[Outcome], float, float]:
    """Decode an answer: outcomes in order, with their wall (0: one is running) and CPU seconds."""
    try:
        payload, buffers = frame.open()
        fields = codec.decode(payload, buffers)
    except BaseException as problem:  # noqa: BLE001 - any __setstate__ may raise anything
        return [(None, _unreadable(problem))], 0.0, 0.0  # only an answer with one can be like this
    if len(fields) == len(ChunkResult._fields):
        result = ChunkResult(*fields)
        error = _with_cause(result.failures[0]) if result.failures else None
        return [(result.values[0], error)], result.wall, result.cpu
    values, errors = unpack(fields, buffers)
    found: list[Outcome] = [(value, None) for value in values]
    for offset, error in errors.items():
        found[offset] = None, error
    return found, *fields[1]


def unpack(packed: Packed, buffers: Sequence[Any]) -> tuple[list[Any], dict[int, BaseException]]:
    """Decode packed results: the values, and by offset the errors of those that have none."""
    values, _, parts, failed = packed
    errors: dict[int, BaseException] = {}
    for offset, (payload, first, count) in (*parts.items(), *failed.items()):
        try:
            found = codec.decode(payload, buffers[first : first + count])
        except BaseException as error:  # noqa: BLE001 - any __setstate__ may raise anything
            errors[offset] = _unreadable(error)
            continue
        if offset in failed:
            errors[offset] = _with_cause(found)
        else:
            values[offset] = found
    return values, errors


def _unreadable(problem: BaseException) -> errors.SerializationError:
    return errors.unreadable("result", errors.without_frames(problem), errors.UnreadableError)
