"""The ways to run a workload: those chosen by hand, and parallax with no option at all.

A way is opened, called once or twice, and closed. For the hand-made ways the second call reuses the
pool of the first, which is the better choice a programmer has; joblib and parallax keep
their workers warm by themselves. Opening and closing count as part of the first call.
Importing the library does not count for anyone.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.common.machine import cores

Handle = Any
Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Way:
    """How to open, use and close one way of mapping a function over a list."""

    name: str
    libraries: tuple[str, ...]
    open: Callable[[], Handle]
    call: Callable[[Handle, Function, list[Any]], list[Any]]
    close: Callable[[Handle], None]
    start_up: float
    """Seconds by which a first call may be slower than a second; see `routing`."""

    def load(self) -> None:
        for library in self.libraries:
            module, _, attribute = library.partition(":")
            loaded = importlib.import_module(module)
            if attribute:  # resolves what a lazy package imports only when it is used
                getattr(loaded, attribute)


def _nothing() -> None:
    return None


def _leave(handle: Handle) -> None:
    return None


def _loop(handle: Handle, function: Function, items: list[Any]) -> list[Any]:
    return [function(item) for item in items]


def _threads(workers: int | None) -> Callable[[], Handle]:
    def start() -> Handle:
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(workers)

    return start


def _processes() -> Handle:
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(cores())


def _map(handle: Handle, function: Function, items: list[Any]) -> list[Any]:
    return list(handle.map(function, items))


def _map_chunks(handle: Handle, function: Function, items: list[Any]) -> list[Any]:
    return list(handle.map(function, items, chunksize=max(1, len(items) // (4 * cores()))))


def _shut_down(handle: Handle) -> None:
    handle.shutdown()


def _joblib(handle: Handle, function: Function, items: list[Any]) -> list[Any]:
    import joblib

    return list(joblib.Parallel(n_jobs=cores())(joblib.delayed(function)(item) for item in items))


def _open_mpire() -> Handle:
    from mpire.pool import WorkerPool

    return WorkerPool(n_jobs=cores(), keep_alive=True)


def _mpire(handle: Handle, function: Function, items: list[Any]) -> list[Any]:
    from mpire.utils import make_single_arguments

    # mpire unpacks an item that is iterable, and joins results that are arrays, unless told.
    arguments = make_single_arguments(items, generator=False)
    return list(handle.map(function, arguments, concatenate_numpy_output=False))


def _close_mpire(handle: Handle) -> None:
    handle.stop_and_join()


def _parallax(
    handle: Handle, function: Function, items: list[Any], backend: str = "auto"
) -> list[Any]:
    from parallax import parallel_map

    results: list[Any] = parallel_map(function, items, backend=backend)
    return results


LOOP = "loop"
PARALLAX = "parallax"
_POOLS = ("concurrent.futures.thread", "concurrent.futures.process")

# In the order of the first round. The ways that stand for a whole kind come first: once they
# are known, a way that cannot become the best any more is cut short.
PEERS: tuple[Way, ...] = (
    Way("processes-n", _POOLS[1:], _processes, _map_chunks, _shut_down, 0.3),
    Way("threads-32", _POOLS[:1], _threads(32), _map, _shut_down, 0.1),
    Way(LOOP, (), _nothing, _loop, _leave, 0.1),
    Way("threads-2", _POOLS[:1], _threads(2), _map, _shut_down, 0.1),
    Way("threads", _POOLS[:1], _threads(None), _map, _shut_down, 0.1),
    Way("processes-1", _POOLS[1:], _processes, _map, _shut_down, 0.3),
    Way("joblib", ("joblib",), _nothing, _joblib, _leave, 1.0),
    Way("mpire", ("mpire.pool", "mpire.utils"), _open_mpire, _mpire, _close_mpire, 0.4),
)
WAYS: dict[str, Way] = {way.name: way for way in PEERS}
WAYS[PARALLAX] = Way(PARALLAX, ("parallax:parallel_map",), _nothing, _parallax, _leave, 1.0)

#: The routes of parallax, each forced: what its estimates of them are compared with.
FORCED = {
    f"parallax-{route}": Way(
        f"parallax-{route}",
        ("parallax:parallel_map",),
        _nothing,
        functools.partial(_parallax, backend=route),
        _leave,
        1.0,
    )
    for route in ("threads", "processes")
}
WAYS.update(FORCED)
