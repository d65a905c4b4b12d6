"""What each worker of an executor calls first, and how it gets there.

Locks, queues and shared values of ``multiprocessing`` travel only while a process is being started.
They are pickled as if one were: the pickle then names semaphores, and refers to descriptors, which
are given to each worker beside it. What was made for the fork start method has no name, and only a
fork of this process has it.

Guarantees: a program that does not use ``multiprocessing`` never loads it for this; copies of
descriptors are closed with the initializer.
Assumptions: on Windows nothing of the kind travels, for handles are copied to a process that is
known by then.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from parallax._backends.processes.common.inherited_fds import InheritedFd
from parallax._core.errors import SerializationError
from parallax._transport import codec
from parallax._transport.pickle_diagnosis import find_unpicklable

__all__ = ["InheritanceError", "Initializer", "forks_by_default"]

#: Under which key a worker knows it; callables have others.
INITIALIZER_KEY = 0

#: Descriptors that the initializer may need: what the system sends at a time, without the worker's.
MAX_INHERITED_FDS = 240

#: Where types are defined for which ``multiprocessing`` has reducers that are no better than what
#: pickle does, or that change what is sent.
_MODULES_WITHOUT_REDUCERS = ("builtins", "functools", "torch")


class InheritanceError(SerializationError):
    """Something travels only by inheritance, to workers that are forked from this process."""


class Initializer:
    """The initializer of an executor, with its arguments."""

    def __init__(
        self, call: Callable[..., Any], args: tuple[Any, ...], *, inherited: bool = False
    ) -> None:
        """Make it ready to travel.

        Args:
            call: the initializer.
            args: its arguments.
            inherited: workers are forked from this process and have it already.

        Raises:
            SerializationError: it cannot travel.
            InheritanceError: it could be inherited.
        """
        #: descriptors that are given to each worker.
        self.fds: list[int] = []
        #: callables that a forked worker has, under their keys.
        self.inherited: dict[int, tuple[Any, ...]] = {}
        #: as it is sent; None if it is inherited, or was let go.
        self.encoded: codec.Encoded | None = None
        if inherited:
            self.inherited[INITIALIZER_KEY] = (call, args, None, [])
            return
        try:
            self.encoded = self._encode((call, args, None, []))._replace(slabs={})
        except BaseException:
            self.close()
            raise

    @property
    def shared(self) -> bool:
        """Whether workers may have queues or the like in common with others."""
        return bool(self.fds or self.inherited)

    def close(self) -> None:
        """Let go of it; idempotent."""
        self.encoded = None  # its arguments may be large
        self.inherited.clear()
        while self.fds:
            os.close(self.fds.pop())

    def _encode(self, parts: tuple[Any, ...]) -> codec.Encoded:
        modules = sys.modules
        if sys.platform == "win32" or "multiprocessing.reduction" not in modules:
            try:
                return codec.encode(parts, shared=True)
            except Exception as error:
                raise _refusal(parts) from error
        spawning = _Spawning(self.fds)
        with _as_spawning(spawning):
            try:
                encoded = codec.encode(parts, shared=True, reducers=_reducers(spawning))
            except Exception as error:
                if not spawning.unnamed:
                    raise _refusal(parts) from error
                failure = error
            else:
                if len(self.fds) > MAX_INHERITED_FDS:
                    needs = f"it needs {len(self.fds)} descriptors"
                    words = f"{needs}, and {MAX_INHERITED_FDS} can be passed on"
                    raise SerializationError("callable", None, "initializer", words)
                return encoded
        # Outside, where what stands in the way is found by what it says itself.
        refusal = _refusal(parts)
        raise InheritanceError(refusal.what, None, refusal.path, refusal.reason) from failure


def forks_by_default() -> bool:
    """Whether processes of ``multiprocessing`` are forked from this one unless told otherwise."""
    context = sys.modules.get("multiprocessing.context")
    if context is None or not hasattr(os, "fork"):
        return False
    # Asked in the ordinary way it would be decided for good.
    found: str | None = context._default_context.get_start_method(allow_none=True)
    if found is None:
        found = context._default_context._default_context.get_start_method()
    return found == "fork"


def _refusal(parts: tuple[Any, ...]) -> SerializationError:
    path, reason = find_unpicklable(parts[:2], "initializer")
    return SerializationError("callable", None, path, reason)


class _Spawning:
    """What ``multiprocessing`` takes for the process that is being started."""

    DupFd = InheritedFd

    def __init__(self, fds: list[int]) -> None:
        self._fds = fds
        self._numbers: dict[int, int] = {}
        #: there was a semaphore without a name.
        self.unnamed = False

    def duplicate_for_child(self, fd: int) -> int:
        if fd not in self._numbers:
            self._fds.append(os.dup(fd))
            self._numbers[fd] = len(self._fds) - 1
        return self._numbers[fd]

    def reduce_semaphore(self, semaphore: Any) -> Any:
        # Older versions of Python pickle its address in this process.
        if semaphore._semlock.name is None:
            self.unnamed = True
            raise RuntimeError("it was made for the fork start method")
        return semaphore.__reduce_ex__(2)


@contextmanager
def _as_spawning(spawning: _Spawning) -> Iterator[None]:
    context = sys.modules["multiprocessing.context"]
    before = context.get_spawning_popen()
    context.set_spawning_popen(spawning)  # of this thread
    try:
        yield
    finally:
        context.set_spawning_popen(before)


def _reducers(spawning: _Spawning) -> codec.Reducers:
    known = sys.modules["multiprocessing.reduction"].ForkingPickler._extra_reducers
    reducers: dict[type, Callable[[Any], Any]] = {
        kind: reduce
        for kind, reduce in known.items()
        if kind.__module__.partition(".")[0] not in _MODULES_WITHOUT_REDUCERS
    }
    synchronize = sys.modules.get("multiprocessing.synchronize")
    if synchronize is not None:
        for name in ("SemLock", "Semaphore", "BoundedSemaphore", "Lock", "RLock"):
            reducers[getattr(synchronize, name)] = spawning.reduce_semaphore
    return reducers
