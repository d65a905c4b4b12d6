"""What a backend is to the run loop: a crew of workers and the events that it reports.

A crew is opened for one run. ``send`` hands a chunk to a worker and returns at once; what becomes
of it is reported as an event, from any thread, through the ``report`` function that the crew was
made with::

    Joined(worker)            it can take chunks
    Done(worker, chunk, ...)  a chunk was run
    Refused(...)              a chunk could not travel; it was not run
    Died(worker, ...)         the worker ended; its chunks in flight are lost
    Left(worker, ...)         the worker left by itself, with nothing begun
    Unable(reason)            no worker of this kind can be had

Guarantees asked of a crew: events of one worker come in order; after ``close`` returns nothing of
the crew is left behind, except threads inside a user's item, which cannot be ended.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from parallax._core.chunks import Chunk, ChunkResult, Failure, Route
from parallax._reporting.stall_policy import Where

__all__ = [
    "Call",
    "Crew",
    "CrewEvent",
    "Died",
    "Done",
    "Joined",
    "Left",
    "Refused",
    "Report",
    "Unable",
    "WorkerEnd",
    "Yielded",
    "refusal",
]


class Joined(NamedTuple):
    """A worker can take chunks; of ``quota`` items in all, if that is not None."""

    worker: int
    quota: int | None = None


class Done(NamedTuple):
    """A chunk was run."""

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
    """A worker left by itself; it began nothing of what it has not answered.

    ``worn`` if it did so at a limit on its items or memory.
    """

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
    #: how workers were to be started.
    method: str = ""


CrewEvent: TypeAlias = Joined | Done | Refused | Died | Left | Yielded | Unable
Report: TypeAlias = Callable[[CrewEvent], None]


class Call(NamedTuple):
    """The callable of one run and how its items are passed."""

    fn: Callable[..., Any]
    #: items are tuples of arguments.
    star: bool
    #: a worker stops at the first failure of a chunk.
    stop: bool


class Crew(Protocol):
    """A number of workers of one kind, lent to one run."""

    route: Route
    #: whether workers can be asked for what they have not begun.
    recalls: bool

    @property
    def size(self) -> int:
        """Workers that this crew has, starting ones included."""

    def owns(self, worker: int) -> bool:
        """Whether this crew made that worker."""

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

    def kill(self, worker: int) -> bool:
        """End a worker in the middle of its item; False if this kind cannot."""

    def where(self, worker: int) -> Where:
        """What a worker is called, and what it is at.

        Called from any thread; may take a moment.
        """

    def poll(self, timeout: float | None) -> None:
        """Wait for events of workers that do not report by themselves, and report them."""

    def close(self, grace: float) -> None:
        """End the crew. Items still running may take ``grace`` seconds to finish."""
