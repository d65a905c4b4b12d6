"""Chunks and their results: the values that are exchanged with workers.

Guarantees: values without behaviour; cheap to import, because every worker process loads this.
"""

from __future__ import annotations

from parallax._core.light_stdlib import Any, Literal, NamedTuple, TypeAlias

Route: TypeAlias = "Literal['loop', 'threads', 'interpreters', 'processes', 'executor']"


class Chunk(NamedTuple):
    """Consecutive items that are sent to one worker together."""

    id: int
    start: int
    size: int
    #: how often these items were sent to a worker before.
    attempt: int = 0


class Failure(NamedTuple):
    """An exception in the place of one item's result."""

    #: position within the chunk, from 0.
    offset: int
    error: BaseException
    #: the traceback as text if the exception was raised in another process, else "".
    traceback: str = ""


class ChunkResult(NamedTuple):
    """The outcome of one chunk.

    ``values`` has one entry per item that was run; the entry of a failed item is None, and
    ``failures`` has its exception. Fewer values than items means that the worker stopped at a
    failure because only the first error is wanted.
    """

    values: list[Any]
    failures: tuple[Failure, ...]
    #: wall seconds and CPU seconds of the worker's thread for the whole chunk.
    wall: float
    cpu: float
    #: seconds of the wall time in which the thread was runnable and had no core.
    delay: float = 0.0
    #: what the items were seen to change of the worker's copies, and the seconds of looking.
    changed: tuple[str, ...] = ()
    looked: float = 0.0
    #: when the first item began, by the worker's ``time.perf_counter``; 0 if not known.
    begun: float = 0.0
