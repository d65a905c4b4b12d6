"""Items run in the caller's own thread, at the speed of the loop that they replace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice, starmap
from typing import Any

from parallax._backends.capture import run_calls, run_chunk
from parallax._backends.contract import Call
from parallax._core.chunks import ChunkResult, Failure
from parallax._scheduling.input import Input
from parallax._scheduling.reorder_buffer import prepare

__all__ = ["direct", "listed", "settle"]


def direct(
    fn: Callable[..., Any], source: Input, count: int, values: list[Any], *, stop: bool
) -> ChunkResult:
    """Run the next items straight off the input, without a list of them in between.

    Args:
        fn: the user's callable.
        source: the input, one that any thread may advance.
        count: how many items.
        values: an empty list to fill with the results, for others to see how far it is.
        stop: stop at the first failure; otherwise the rest of the block is run too.
    """
    items = islice(source.iterator, count)
    calls = starmap(fn, items) if source.star else map(fn, items)
    left = source.left
    # Without the length of the input its end looks like a StopIteration of the callable.
    enough = 0 if left is None else min(count, left)
    failures, wall, cpu = run_calls(calls, values, lambda: len(values) >= enough, stop=stop)
    source.took(len(values))
    if len(values) < count and not failures:
        source.ended = True
    return ChunkResult(values, tuple(failures), wall, cpu)


def listed(call: Call, items: Sequence[Any], retries: int, values: list[Any]) -> ChunkResult:
    """Run items, and failed ones again as often as ``retries`` allows.

    Args:
        call: the callable.
        items: the items.
        retries: how often a failed item is run again, at once.
        values: an empty list to fill with the results, for others to see how far it is.
    """
    result = run_chunk(call.fn, items, values, star=call.star, stop=call.stop and not retries)
    if not result.failures or not retries:
        return result
    values = list(result.values)
    failures = []
    for failure in result.failures:
        last = failure
        for _ in range(retries):
            item = items[failure.offset : failure.offset + 1]
            again = run_chunk(call.fn, item, star=call.star, stop=True)
            if not again.failures:
                values[failure.offset] = again.values[0]
                break
            last = Failure(failure.offset, again.failures[0].error)
        else:
            failures.append(last)
    return result._replace(values=values, failures=tuple(failures))


def settle(
    result: ChunkResult, start: int, *, stop: bool
) -> tuple[list[Any], BaseException | None]:
    """Turn the outcome of a block into values, with exceptions in their places.

    Args:
        result: the outcome.
        start: index of its first item.
        stop: the first exception ends the run.

    Returns:
        The values, and the exception that ends the run after them, or None.
    """
    values = result.values
    for failure in result.failures:
        error = prepare(failure, start + failure.offset)
        if stop or not isinstance(error, Exception):
            return values[: failure.offset], error
        values[failure.offset] = error
    return values, None
