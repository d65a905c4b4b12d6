"""Calls of the user's function on items in the caller's thread: the functions that run a block."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from parallax._backends.capture import run_calls
from parallax._core.chunks import ChunkResult, Failure
from parallax._core.light_stdlib import Any
from parallax._scheduling.input import Input
from parallax._scheduling.reorder_buffer import prepare


class EndedItems:
    """As many as the items that have ended while the caller's thread takes them off an iterator."""

    def __init__(self, iterator: Any) -> None:
        self._left = iterator.__length_hint__
        self._before = self._left()

    def __len__(self) -> int:
        return max(0, int(self._before - self._left()) - 1)  # it is inside of the last one


def run_plain(fn: Callable[..., Any], source: Input, count: int, ended: EndedItems) -> ChunkResult:
    """Run the next ``count`` items of one plain container, until one fails, as fast as a loop."""
    values: list[Any] = []
    failures: tuple[Failure, ...] = ()
    cpu, begun = time.thread_time(), time.perf_counter()
    try:
        values = [fn(item) for item in source.each(count)]
    except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
        values = [None] * (len(ended) + 1)
        failures = (Failure(len(values) - 1, error),)
    wall, cpu = time.perf_counter() - begun, time.thread_time() - cpu
    source.took(len(values), count, failed=bool(failures))
    try:
        return ChunkResult(values, failures, wall, cpu, begun=begun)
    finally:
        del fn, values, failures  # as in run_calls


def run_next(
    fn: Callable[..., Any],
    source: Input,
    count: int,
    values: list[Any],
    *,
    stop: bool,
    within: float = math.inf,
) -> ChunkResult:
    """Run the next ``count`` items off the input, of which the last begins ``within`` seconds."""
    begun = time.perf_counter()
    called = run_calls(fn, source.each(count, begun + within), values, star=source.star, stop=stop)
    result = ChunkResult(values, *called, begun=begun)
    source.took(len(values), count, failed=bool(result.failures))
    return result


def with_errors(
    result: ChunkResult, start: int, *, stop: bool
) -> tuple[list[Any], BaseException | None]:
    """The values of a block, with exceptions in their places, and the one that ends the run."""
    values = result.values
    for failure in result.failures:
        error = prepare(failure, start + failure.offset)
        if stop or not isinstance(error, Exception):
            return values[: failure.offset], error
        values[failure.offset] = error
    return values, None
