"""What a backend provides: a ``Crew`` of workers for a map, an ``Engine`` for an executor.

``Crew.send`` hands a chunk to a worker and returns at once; its outcome is reported as an event,
from any thread, through the ``report`` function that the crew was made with: see ``CrewEvent``.
Guarantees required of a crew: the events of one worker come in order; after ``close`` returns
nothing of the crew is left behind, except threads inside a user's item, which cannot be ended.

Guarantees required of an engine: every call that was submitted ends in its result or an error;
``cancel`` and the start of a call exclude each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context

from parallax._core.chunks import Chunk, ChunkResult, Failure
from parallax._core.lazy_import import selectors
from parallax._core.light_stdlib import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias
from parallax._core.nesting import Place
from parallax._core.options import CallOptions
from parallax._reporting.stall_policy import WorkerSnapshot

if TYPE_CHECKING:
    from concurrent.futures import Future

    from parallax._reporting.recording import CallRecording


class Joined(NamedTuple):
    """A worker can take chunks; of ``quota`` items in all, if that is not None."""

    worker: int
    quota: int | None = None


class Done(NamedTuple):
    worker: int
    chunk: int
    result: ChunkResult
    #: bytes that this chunk moved to the worker and back, and seconds of this thread to do so.
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    #: bytes in shared memory that were sent once for many items, newly; and not sent once more.
    once: int = 0
    spared: int = 0


class Refused(NamedTuple):
    """A chunk, or the callable, could not be encoded or decoded; nothing of it was run."""

    worker: int
    chunk: int
    what: str
    path: str
    reason: str
    #: what the encoder or decoder raised.
    cause: BaseException | None = None


def refusal(done: Done, failure: Failure) -> Refused:
    """What is to be said of a result that was made and cannot travel."""
    error = failure.error
    path = getattr(error, "path", "") or "result"
    return Refused(done.worker, done.chunk, "result", path, getattr(error, "reason", str(error)))


class WorkerEnd(NamedTuple):
    """How a worker ended; see ``WorkerDiedError`` for what each means."""

    pid: int | None = None
    exitcode: int | None = None
    detail: str | None = None
    oom: bool | None = None
    stack: str | None = None


class Died(NamedTuple):
    """A worker ended; ``began`` is False if it cannot have started on its chunk."""

    worker: int
    end: WorkerEnd
    began: bool


class Left(NamedTuple):
    """A worker left by itself, ``worn`` at a limit; what it has not answered was not begun."""

    worker: int
    worn: bool


class Yielded(NamedTuple):
    """A recalled worker gave back the items of a chunk from offset ``keep`` on, not begun."""

    worker: int
    chunk: int
    keep: int


class Unable(NamedTuple):
    """Workers of this kind cannot be had now; ``fatal`` if not later either."""

    reason: str
    fatal: bool = True
    method: str = ""


CrewEvent: TypeAlias = "Joined | Done | Refused | Died | Left | Yielded | Unable"
Report: TypeAlias = "Callable[[CrewEvent], None]"


class Call(NamedTuple):
    """The callable of one run and how its items are passed."""

    fn: Callable[..., Any]
    #: items are tuples of arguments.
    star: bool
    #: a worker stops at the first failure of a chunk.
    stop: bool


class CrewSetup(NamedTuple):
    report: Report
    call: Call
    new_id: Callable[[], int]
    #: where the run was called, and the caller's context.
    place: Place
    context: Context


class Crew(Protocol):
    """A number of workers of one kind, lent to one run."""

    @property
    def recalls(self) -> bool:
        """Whether workers can be asked for what they have not begun."""

    @property
    def size(self) -> int:
        """Workers that this crew has, starting ones included."""

    def selector(self) -> selectors.BaseSelector | None:
        """What ``poll`` waits on, for others to add to; None if workers report by themselves."""

    def delay(self) -> float:
        """Seconds that the workers could run and had no core, all together; 0 if not known."""

    def open(self, count: int) -> None:
        """Begin to provide up to ``count`` workers in all; returns at once."""

    def recall(self, worker: int) -> None:
        """Ask a worker to give back what it has not begun; ``Yielded`` answers, perhaps."""

    def send(self, worker: int, chunk: Chunk, items: Sequence[Any]) -> None:
        """Hand a chunk to a worker; never blocks for long."""

    def kill(self, worker: int) -> object:
        """End a worker in the middle of its item, if this kind can be ended."""

    def name(self, worker: int) -> str:
        """What a worker is called that has just answered."""

    def where(self, worker: int) -> WorkerSnapshot:
        """What a worker is called, and what it is at; from any thread, and may take a moment."""

    def poll(self, timeout: float | None) -> None:
        """Wait for events of workers that do not report by themselves, and report them."""

    def close(self, grace: float) -> None:
        """End the crew. Items still running may take ``grace`` seconds to finish."""


class Engine(Protocol):
    """Runs the calls of one executor. Thread-safe.

    An engine whose futures are ours is also their ``Helper``.
    """

    #: the backend by which the calls are run, as the option names it.
    backend: Any
    #: no more calls are taken.
    closing: bool
    #: why no call can be run; None as long as calls can.
    fatal: BaseException | None
    #: most calls that run at a time.
    max_workers: int
    #: calls with small results that ``map`` should have submitted, so that no worker waits.
    ahead: int

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None = None,
        options: CallOptions | None = None,
    ) -> Future[Any]:
        """Take a call; returns at once, except where the submitting thread runs it.

        Where it runs in another thread of this process it sees the ``context``, by default that of
        the running code. ``options`` are checked, without any that is None. Raises a RuntimeError
        after a shutdown, a BrokenExecutor if no worker can be had.
        """

    def submit_piece(
        self, fn: Callable[..., Any], piece: tuple[tuple[Any, ...], ...], context: Context
    ) -> Future[Any]:
        """Take several calls as one, whose result is a ``PieceResult``. Raises as ``submit``."""

    def pieces(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        """Whether short calls like this one travel to another process, best several at a time."""

    def record(self, recording: CallRecording | None) -> None:
        """From now on record which worker runs what and when; None ends that."""

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """Take no more calls, and end when all are done."""

    def stop(self) -> None:
        """Take no more calls, and end all that can be ended."""

    def end_workers(self, end: Callable[[Any], object]) -> None:
        """Cancel what waits, end the worker processes, each by ``end``, and go on with new ones."""

    def rest_after(self, seconds: float) -> None:
        """From now on have workers end that have been idle for so long."""

    def forget(self) -> None:
        """Drop everything without ending it: this process is a forked copy of the owner's."""
