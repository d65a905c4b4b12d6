"""Finished items until they are delivered: their order, their values and exceptions.

Guarantees: an exception keeps its type, carries a note that names its item, and has the worker's
traceback as its cause; a delivered value is not referenced any more.
"""

from __future__ import annotations

import contextlib

from parallax._core.chunks import ChunkResult, Failure
from parallax._core.lazy_import import errors
from parallax._core.light_stdlib import Any
from parallax._core.own_code import is_own
from parallax._scheduling.events import Command, Emit


class EmitOrder:
    """Decides when finished items may be delivered."""

    def __init__(self, first: int, *, ordered: bool) -> None:
        self.ordered = ordered
        #: the number of items delivered; in ordered mode also the index of the next one.
        self.emitted = first
        #: finished and not delivered, sizes by first index.
        self.waiting: dict[int, int] = {}
        self._waiting_items = 0

    @property
    def finished(self) -> int:
        return self.emitted + self._waiting_items

    def finish(self, start: int, size: int, out: list[Command]) -> None:
        """Items are finished; ``out`` gets what may be delivered now."""
        if size <= 0:
            return
        if not self.ordered:
            self.emitted += size
            out.append(Emit(start, size))
            return
        self.waiting[start] = size
        self._waiting_items += size
        begin = self.emitted
        while (ready := self.waiting.pop(self.emitted, None)) is not None:
            self.emitted += ready
        if self.emitted > begin:
            self._waiting_items -= self.emitted - begin
            out.append(Emit(begin, self.emitted - begin))


class ReorderBuffer:
    """The values and exceptions of one run's finished items."""

    def __init__(self) -> None:
        self._values: dict[int, list[Any]] = {}  # consecutive ones, by first index
        #: exceptions by index, for a run that stops at the first.
        self.errors: dict[int, BaseException] = {}

    def put(self, start: int, result: ChunkResult, *, split: bool = False) -> BaseException | None:
        """Keep a chunk's values; the exception of a failed item is kept as its value.

        With ``split`` some of the items are run again, so each value is kept by itself. Returns an
        exception that ends the run whatever ``on_error`` says (``KeyboardInterrupt``), or None.
        """
        if not result.failures and not split:
            self._values[start] = result.values
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
            self._values[start + offset] = [value]
        return fatal

    def put_one(self, index: int, value: Any) -> None:
        """Keep one item's value or exception."""
        self._values[index] = [value]
        if isinstance(value, BaseException):
            self.errors[index] = value

    def take(self, start: int, size: int) -> list[Any]:
        """Hand over the values of ``size`` consecutive finished items."""
        first = self._values.pop(start)
        if len(first) == size:
            return first
        values = list(first)
        while len(values) < size:
            values.extend(self._values.pop(start + len(values)))
        return values


def prepare(failure: Failure, index: int) -> BaseException:
    """An item's exception for the caller, with the item's index and the worker's traceback."""
    error = failure.error
    _release(error)
    if isinstance(error, errors.SerializationError) and error.index is None:
        located = errors.SerializationError(error.what, index, error.path, error.reason)
        errors.copy_chain(error, located)
        error = located
    if failure.traceback:
        errors.add_traceback(error, failure.traceback)
    errors.add_note(error, f"parallax: raised by item {index}")
    return error


def _release(error: BaseException) -> None:
    """Clear our own frames that have called the user's function and are finished.

    The frame of a call keeps those that it was called from, with their variables: among them the
    results, and the exception itself.
    """
    frame = None if error.__traceback__ is None else error.__traceback__.tb_frame
    while frame is not None and is_own(frame.f_code.co_filename):
        with contextlib.suppress(RuntimeError):  # it is not finished
            frame.clear()
        frame = frame.f_back
