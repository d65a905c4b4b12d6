"""The initializer of an executor, which each worker calls first.

Locks, queues and shared values of ``multiprocessing`` pickle only while a process is being started.
They are pickled as if one were: the pickle then names semaphores, and refers to descriptors, which
each worker inherits. Objects that were made for the fork start method have no name, and only a fork
of this process has them.

Guarantees: a program that does not use ``multiprocessing`` never loads it for this; duplicates of
descriptors are closed with the initializer.
Assumptions: on Windows no such object travels, because handles are copied to a known process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from parallax._backends.processes.common.inherited_fds import InheritedFd
from parallax._core.lazy_import import errors
from parallax._core.light_stdlib import Any
from parallax._transport import codec
from parallax._transport.encoded import Reducers
from parallax._transport.pickle_diagnosis import find_unpicklable

#: The key of the initializer in a worker; callables have others.
INITIALIZER_KEY = 0

#: Most descriptors for an initializer: what the system sends at a time, less those of the worker.
MAX_INHERITED_FDS = 240

#: Packages for whose types the reducers of ``multiprocessing`` are no better than pickle's, or
#: change what is sent.
_MODULES_WITHOUT_REDUCERS = ("builtins", "functools", "torch")


class Initializer:
    def __init__(
        self, call: Callable[..., Any], args: tuple[Any, ...], *, inherited: bool = False
    ) -> None:
        """Encode it unless ``inherited``; InheritanceError if only forks could have it."""
        #: descriptors that each worker inherits.
        self.fds: list[int] = []
        #: callables that a forked worker has, under their keys.
        self.inherited: dict[int, tuple[Any, ...]] = {}
        #: the pickle; None if the initializer is inherited, or closed.
        self.encoded: codec.Encoded | None = None
        if inherited:
            self.inherited[INITIALIZER_KEY] = (call, args, None, [])
            return
        try:
            self.encoded = self._encode((call, args, None, []))._replace(slabs={})
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the arguments and descriptors; idempotent."""
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
                    raise errors.SerializationError("callable", None, "initializer", words)
                return encoded
        # Outside of _as_spawning, where the object at fault raises its own error.
        refusal = _refusal(parts)
        refusal = errors.InheritanceError("callable", None, refusal.path, refusal.reason)
        try:
            raise refusal from failure
        finally:
            del refusal, failure  # their tracebacks refer to this frame


def forks_by_default() -> bool:
    """Whether processes of ``multiprocessing`` are forked from this one unless told otherwise."""
    context = sys.modules.get("multiprocessing.context")
    if context is None or not hasattr(os, "fork"):
        return False
    # The public function would fix the start method for good.
    found: str | None = context._default_context.get_start_method(allow_none=True)
    if found is None:
        found = context._default_context._default_context.get_start_method()
    return found == "fork"


def _refusal(parts: tuple[Any, ...]) -> errors.SerializationError:
    path, reason = find_unpicklable(parts[:2], "initializer")
    return errors.SerializationError("callable", None, path, reason)


class _Spawning:
    """Stands for the process that ``multiprocessing`` believes to be starting."""

    DupFd = InheritedFd

    def __init__(self, fds: list[int]) -> None:
        self._fds = fds
        self._numbers: dict[int, int] = {}
        #: a semaphore without a name was found.
        self.unnamed = False

    def duplicate_for_child(self, fd: int) -> int:
        if fd not in self._numbers:
            self._fds.append(os.dup(fd))
            self._numbers[fd] = len(self._fds) - 1
        return self._numbers[fd]

    def reduce_semaphore(self, semaphore: Any) -> Any:
        # Older versions of Python pickle the address of the semaphore in this process.
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


def _reducers(spawning: _Spawning) -> Reducers:
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
