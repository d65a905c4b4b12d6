"""Values and exceptions of finished items, kept until they are delivered in order.

Guarantees: an exception keeps its type, carries a note that names its item, and has the worker's
traceback as its cause; a delivered value is referenced no more.
"""

from __future__ import annotations

from typing import Any

from parallax._core.chunks import ChunkResult, Failure
from parallax._core.errors import RemoteTraceback, SerializationError, set_cause

__all__ = ["ReorderBuffer", "prepare"]


class ReorderBuffer:
    """Finished items of one run."""

    def __init__(self) -> None:
        self._runs: dict[int, list[Any]] = {}
        #: exceptions by index, for a run that stops at the first.
        self.errors: dict[int, BaseException] = {}

    def put(self, start: int, result: ChunkResult, *, split: bool = False) -> BaseException | None:
        """Keep a chunk's values; exceptions stand in their place.

        Args:
            start: index of the chunk's first item.
            result: what came back.
            split: some of the items will come again, so that each stands alone.

        Returns:
            An exception that ends the run whatever ``on_error`` says (``KeyboardInterrupt``,
            ``SystemExit``), or None.
        """
        if not result.failures and not split:
            self._runs[start] = result.values
            return None
        fatal: BaseException | None = None
        values = result.values
        for failure in result.failures:
            error = prepare(failure, start + failure.offset)
            values[failure.offset] = error
            self.errors[start + failure.offset] = error
            if not isinstance(error, Exception):
                fatal = fatal or error
        for offset, value in enumerate(values):
            self._runs[start + offset] = [value]
        return fatal

    def put_one(self, index: int, value: Any) -> None:
        """Keep one item's value or exception."""
        self._runs[index] = [value]
        if isinstance(value, BaseException):
            self.errors[index] = value

    def take(self, start: int, size: int) -> list[Any]:
        """Give up the values of consecutive finished items.

        Args:
            start: index of the first.
            size: how many.
        """
        first = self._runs.pop(start)
        if len(first) == size:
            return first
        values = list(first)
        while len(values) < size:
            values.extend(self._runs.pop(start + len(values)))
        return values


def prepare(failure: Failure, index: int) -> BaseException:
    """Dress an exception for the caller: which item, and where in the worker.

    Args:
        failure: as the worker reported it.
        index: position of the item in the input.
    """
    error = failure.error
    if isinstance(error, SerializationError) and error.index is None:
        error = SerializationError(error.what, index, error.path, error.reason)
    if failure.traceback:
        set_cause(error, RemoteTraceback(failure.traceback))
    note = f"parallax: raised by item {index}"
    try:
        if hasattr(error, "add_note"):
            error.add_note(note)
        else:
            setattr(error, "__notes__", [*getattr(error, "__notes__", ()), note])  # noqa: B010
    except Exception:  # noqa: BLE001 - a class that refuses attributes goes without a note
        return error
    return error
