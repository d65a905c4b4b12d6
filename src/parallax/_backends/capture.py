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
from itertools import starmap

from parallax._core.chunks import ChunkResult, Failure
from parallax._core.light_stdlib import TYPE_CHECKING, signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any


def unblock_interrupts() -> None:
    """Let this thread take Ctrl-C again.

    The sampler's thread blocks the signal, so that the main thread gets it, and threads and
    processes started from there inherit that. Programs that items start would inherit it in turn.
    """
    if hasattr(signals, "pthread_sigmask"):
        signals.pthread_sigmask(signals.SIG_UNBLOCK, {signals.SIGINT})


def capture(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, BaseException | None, float, float]:
    """Call ``fn`` once.

    Returns:
        Its result, the exception that it raised or None, and the seconds that it took: wall time,
        and CPU time of this thread.
    """
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
    calls: Iterator[Any], values: list[Any], complete: Callable[[], bool], *, stop: bool
) -> tuple[list[Failure], float, float]:
    """Take results from an iterator that calls the user's function.

    Args:
        calls: a ``map`` or ``starmap`` of the function over items.
        values: an empty list to fill with the results; None for a call that failed.
        complete: tells, when ``calls`` has ended, whether ``values`` has an entry for each item.
        stop: stop at the first failure.

    Returns:
        The failures, and the seconds of all calls: wall time, and CPU time of this thread.
    """
    failures: list[Failure] = []
    cpu, begun = time.thread_time(), time.perf_counter()
    while True:
        try:
            # extend keeps what it got before an exception, so the failed item's place is known,
            # and runs at the speed of list(map(...)).
            values.extend(calls)
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            failures.append(Failure(len(values), error))
            values.append(None)
            if stop or not isinstance(error, Exception):
                break
            continue
        if complete():
            break
        # The callable raised StopIteration, which map took for the end of its input.
        failures.append(Failure(len(values), StopIteration()))
        values.append(None)
        if stop:
            break
    return failures, time.perf_counter() - begun, time.thread_time() - cpu


def run_chunk(
    fn: Callable[..., Any],
    items: Sequence[Any],
    values: list[Any] | None = None,
    *,
    star: bool,
    stop: bool,
    delays: Callable[[], float] | None = None,
) -> ChunkResult:
    """Call ``fn`` on each item.

    Args:
        fn: the user's callable.
        items: one argument each, or with ``star`` one tuple of arguments each. While they run, a
            signal handler may cut off the end of a list.
        values: an empty list to fill with the results, for others to see how far it is.
        star: spread the items over the arguments.
        stop: stop at the first failure.
        delays: returns the seconds that this thread has waited for a core since it began; None
            where that is not known.
    """
    filled = [] if values is None else values
    calls = starmap(fn, items) if star else map(fn, items)
    delay = delays() if delays is not None else 0.0
    # Not the number of items at first: the list may have become shorter.
    failures, wall, cpu = run_calls(calls, filled, lambda: len(filled) == len(items), stop=stop)
    delay = delays() - delay if delays is not None else 0.0
    return ChunkResult(filled, tuple(failures), wall, cpu, delay)
