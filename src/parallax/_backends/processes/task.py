"""What the engine keeps of a submitted call, and how it travels there and back."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from ... import _codec
from ..._culprit import culprit
from ..._errors import RemoteTraceback, SerializationError
from ..._future import Future, Helper
from ..._messages import Failure
from .callables import Known
from .pool import Worker

__all__ = [
    "Batch",
    "Finished",
    "Lent",
    "Task",
    "encode_arguments",
    "encode_initializer",
    "unpack",
    "unreadable",
    "with_cause",
]


class Task(Future[Any]):
    """A submitted call, and its future."""

    def __init__(self, engine: Helper, known: Known | None, data: _codec.Encoded | None) -> None:
        super().__init__(engine)
        self.known = known
        self.data = data
        #: who has it; None while it queues.
        self.lent: Lent | None = None
        #: it travels alone, because a worker died with it and others.
        self.alone = False
        self.attempts = 0


class Batch:
    """Tasks that travelled in one frame and are not answered yet."""

    __slots__ = ("expected", "id", "recalled", "since", "tasks")

    def __init__(self, name: int, tasks: deque[Task], expected: float) -> None:
        self.id = name
        self.tasks = tasks
        self.expected = expected
        self.since = time.monotonic()
        self.recalled = False


class Lent:
    """A worker at the engine's service."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.flight: deque[Batch] = deque()
        #: tasks that it was given in its life.
        self.given = 0
        #: a thread that waits for one of its results reads its socket.
        self.borrowed = False
        self.idle = False
        self.alive = True

    def busy(self) -> float:
        """Seconds of work that it has, as far as is known."""
        return sum(batch.expected for batch in self.flight)


#: Tasks that have ended, each with its value or its error.
Finished: TypeAlias = list[tuple[Task, Any, "BaseException | None"]]


def encode_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _codec.Encoded:
    try:
        return _codec.encode((args, kwargs), shared=True)
    except Exception as error:
        for name, part in (*((f"argument {n}", a) for n, a in enumerate(args)), *kwargs.items()):
            try:
                _codec.encode(part)
            except Exception:  # noqa: BLE001 - whatever a __reduce__ raises
                path, reason = culprit(part, name)
                raise SerializationError("item", None, path, reason) from error
        raise SerializationError("item", None, "item", str(error)) from error


def encode_initializer(
    initializer: Callable[..., Any], initargs: tuple[Any, ...]
) -> tuple[int, _codec.Encoded]:
    try:
        return 0, _codec.encode((initializer, initargs, None, []), shared=True)
    except Exception as error:
        path, reason = culprit((initializer, initargs), "initializer")
        raise SerializationError("callable", None, path, reason) from error


def with_cause(failure: Failure) -> BaseException:
    """The error of a task, with the traceback that its worker saw as its cause."""
    if failure.traceback:
        failure.error.__cause__ = RemoteTraceback(failure.traceback)
    return failure.error


def unpack(payload: bytes) -> tuple[Any, BaseException | None]:
    """Decode one result of several; the error if it cannot be."""
    try:
        return _codec.decode(payload), None
    except Exception as error:  # noqa: BLE001 - any __setstate__ may raise anything
        return None, _unreadable(error)


def unreadable(error: Exception) -> tuple[Any, ...]:
    """The fields that stand for the answer of one task that cannot be decoded."""
    return [None], (Failure(0, _unreadable(error)),), 0.0, 0.0


def _unreadable(error: Exception) -> SerializationError:
    return SerializationError("result", None, "result", f"{type(error).__name__}: {error}")
