"""Timed calls of the user's function: one call, or the items of a chunk.

Guarantees: the results of a chunk are in order, with an entry for every item that was run; the
exception of one item does not touch the others; times are those of the user's function alone.

Three places call the user's function without this module, because they need no times, and the
clocks cost 0.8 us a call where the rest of a submit takes 3 us: ``SerialEngine.submit``,
``ThreadCall.execute``, and ``BatchRunner`` of the worker, which also marks the
moments at which a recall may interrupt it. Even a helper without clocks would cost them 65 ns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from parallax._core.chunks import ChunkResult, Failure
from parallax._core.light_stdlib import Any


def capture(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, BaseException | None, float, float]:
    """Call ``fn`` once: its result, what it raised, wall seconds and CPU seconds of this thread."""
    value, error = None, None
    cpu, begun = time.thread_time(), time.perf_counter()
    try:
        value = fn(*args, **kwargs)
    except BaseException as raised:  # noqa: BLE001 - handed to the caller, whatever it is
        error = raised
    wall, cpu = time.perf_counter() - begun, time.thread_time() - cpu
    try:
        return value, error, wall, cpu
    finally:
        # The traceback of an error refers to this frame.
        del fn, args, kwargs, value, error


def run_calls(
    fn: Callable[..., Any], items: Iterable[Any], values: list[Any], *, star: bool, stop: bool
) -> tuple[tuple[Failure, ...], float, float]:
    """Call the user's function on items until there are no more, or with ``stop`` until one fails.

    With ``star`` an item is a tuple of arguments. ``values`` is filled with the results, with None
    for a call that failed. Returns the failures, and the seconds of all calls: wall time, and CPU
    time of this thread.
    """
    failures: list[Failure] = []
    left, add = iter(items), values.append
    cpu, begun = time.thread_time(), time.perf_counter()
    while True:
        try:
            # Not by map, which would end at the StopIteration of a call.
            if star:
                for args in left:
                    add(fn(*args))
            else:
                for item in left:
                    add(fn(item))
            break
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            failures.append(Failure(len(values), error))
            add(None)
            if stop or not isinstance(error, Exception):
                break
    wall, cpu = time.perf_counter() - begun, time.thread_time() - cpu
    try:
        return tuple(failures), wall, cpu
    finally:
        # The traceback of an error refers to this frame.
        del fn, items, values, failures, left, add


def run_chunk(
    fn: Callable[..., Any],
    items: Sequence[Any],
    values: list[Any] | None = None,
    *,
    star: bool,
    stop: bool,
    delays: Callable[[], float] | None = None,
) -> ChunkResult:
    """Call ``fn`` on each item; see ``run_calls``.

    While they run, a signal handler may cut off the end of a list of items, and others may see in
    ``values`` how far it is. ``delays`` returns the seconds that this thread has waited for a core
    since it began; None where that is not known.
    """
    filled = [] if values is None else values
    delay = delays() if delays is not None else 0.0
    begun = time.perf_counter()
    called = run_calls(fn, items, filled, star=star, stop=stop)
    delay = delays() - delay if delays is not None else 0.0
    try:
        return ChunkResult(filled, *called, delay, begun=begun)
    finally:
        del filled, called  # as in run_calls
