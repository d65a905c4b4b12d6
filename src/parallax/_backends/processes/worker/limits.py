"""Limits on a worker's life: on the items that it runs, and on its memory.

At a limit a worker stops inside its chunk, answers with what it has run, and leaves; the parent
sends the rest to another worker.

Guarantees: at least one item of each chunk is run, so that a limit which a fresh worker exceeds
makes progress all the same; without limits a chunk is run as if this module did not exist.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from parallax._backends.capture import run_chunk
from parallax._core.chunks import ChunkResult, Failure
from parallax._core.light_stdlib import TYPE_CHECKING, Any
from parallax._core.process_rights import Rights, own_rights

if TYPE_CHECKING:
    from parallax._guard.net import WorkerNet

#: Seconds between two looks at the memory. A look takes 10 us, so shorter slows short items down;
#: with longer, memory may grow further before it is noticed.
MEMORY_CHECK_S = 0.001


class WorkerLimits:
    def __init__(self) -> None:
        #: items that were run in the worker's life.
        self.items_run = 0
        #: a limit was reached: the worker is to leave.
        self.reached = False
        self._items: int | None = None
        self._memory: int | None = None
        self._checked = 0.0
        #: what this process may do, since its first run.
        self._rights: Rights | None = None
        #: looks for changes of the copies that are here; None if that is not wanted.
        self._net: WorkerNet | None = None

    def limit(self, limits: dict[str, Any]) -> None:
        """Take over a run's limits, "items" and "memory", and the arguments of its "net"."""
        self._items = limits.get("items")
        self._memory = limits.get("memory")
        rights = own_rights()
        # Has an item of an earlier run changed what the items of this one would have?
        self.reached = rights != (self._rights or rights)
        self._rights = rights
        self._net = None
        if (net := limits.get("net")) is not None:
            from parallax._guard.net import WorkerNet

            self._net = WorkerNet(*net)

    def run(
        self,
        fn: Callable[..., Any],
        items: list[Any],
        values: list[Any],
        *,
        star: bool,
        stop: bool,
        delays: Callable[[], float],
    ) -> ChunkResult:
        """Run a chunk, or as much of it as the limits allow; see ``run_chunk``."""
        if self._items is not None:
            del items[max(1, self._items - self.items_run) :]
        if self._net is not None:
            self._net.before(fn, items)
        if self._memory is None:
            result = run_chunk(fn, items, values, star=star, stop=stop, delays=delays)
        else:
            delay = delays()
            result = self._run_one_by_one(fn, items, values, self._memory, star=star, stop=stop)
            result = result._replace(delay=delays() - delay)
        if self._net is not None:
            result = self._net.after(result)
        self.items_run += len(result.values)
        if self._items is not None and self.items_run >= self._items:
            self.reached = True
        return result

    def _run_one_by_one(
        self,
        fn: Callable[..., Any],
        items: list[Any],
        values: list[Any],
        memory: int,
        *,
        star: bool,
        stop: bool,
    ) -> ChunkResult:
        failures: list[Failure] = []
        wall = cpu = 0.0
        begun = time.perf_counter()
        for item in items:
            part = run_chunk(fn, (item,), star=star, stop=stop)
            wall += part.wall
            cpu += part.cpu
            failures += [f._replace(offset=len(values)) for f in part.failures]
            values += part.values
            if any(stop or not isinstance(f.error, Exception) for f in part.failures):
                break
            now = time.perf_counter()
            if now - self._checked >= MEMORY_CHECK_S:
                self._checked = now
                if private_memory() > memory:
                    self.reached = True
                    break
        return ChunkResult(values, tuple(failures), wall, cpu, begun=begun)


def private_memory() -> int:
    """Bytes that this process has for itself, without its parent's, where arguments lie."""
    try:
        # Opened anew each time: an item may close descriptors that are not its own.
        fd = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return _resident_memory()
    try:
        _, resident, shared, *_ = map(int, os.read(fd, 200).split())
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
    finally:
        os.close(fd)


def _resident_memory() -> int:
    """Bytes of memory that this process has, or has had at most where nothing tells more."""
    try:
        import psutil  # slow to load, and installed wherever there is no /proc by nature

        return int(psutil.Process().memory_info().rss)
    except Exception:  # noqa: BLE001 - it is not there, or finds no /proc either
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
