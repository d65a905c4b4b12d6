"""Running the items of a chunk: the only place that calls the user's callable.

Guarantees: every item that was run has an entry, in order; an exception of one item does not
touch the others; times are those of the items alone.
"""

from __future__ import annotations

import time
from itertools import starmap

from parallax._core.chunks import ChunkResult, Failure
from parallax._core.light_stdlib import signals

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

__all__ = ["run_chunk", "unblock_interrupts"]


def unblock_interrupts() -> None:
    """Let this thread take Ctrl-C again.

    The thread that measures blocks it, so that the main thread gets it, and what is started from
    there inherits that; programs that items start would inherit it from us.
    """
    if hasattr(signals, "pthread_sigmask"):
        signals.pthread_sigmask(signals.SIG_UNBLOCK, {signals.SIGINT})


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
        items: one argument each, or with ``star`` one tuple of arguments each. While they run, the
            end of a list may be cut off by a signal handler.
        values: an empty list to fill with the results, for others to see how far it is.
        star: spread the items over the arguments.
        stop: stop at the first failure.
        delays: seconds that this thread has waited for a core since it began, if that is known.
    """
    values = [] if values is None else values
    failures: list[Failure] = []
    iterator = iter(items)
    calls = starmap(fn, iterator) if star else map(fn, iterator)
    delay = delays() if delays is not None else 0.0
    cpu = time.thread_time()
    begin = time.perf_counter()
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
        if len(values) == len(items):
            break
        # The callable raised StopIteration, which map took for the end of its input.
        failures.append(Failure(len(values), StopIteration()))
        values.append(None)
        if stop:
            break
    wall = time.perf_counter() - begin
    cpu = time.thread_time() - cpu
    delay = delays() - delay if delays is not None else 0.0
    return ChunkResult(values, tuple(failures), wall, cpu, delay)
