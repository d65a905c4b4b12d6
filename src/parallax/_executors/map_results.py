"""``Executor.map``: reads its input and submits calls as its results are read.

Calls are submitted ahead of the reader, inside a window that moves as results are read; short ones
are sent to processes many at a time.

Guarantees: results come in order, and results that the reader has taken are not kept alive here.
Without a ``buffersize`` no item is left out: calls whose results nobody reads, or not before the
executor is shut down, are run all the same.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sized
from concurrent.futures import BrokenExecutor
from itertools import islice

from parallax._backends.result_encoding import PieceResult, run_piece
from parallax._core.contexts import snapshot
from parallax._core.errors import SerializationError
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._executors.map_window import MapWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from typing import Any

    from parallax._backends.contract import Engine


class MapResults(Iterator):  # type: ignore[type-arg] # a subscript would cost at run time
    """The results of one ``map``."""

    def __init__(
        self,
        engine: Engine,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        *,
        timeout: float | None,
        buffersize: int | None,
        chunksize: int | None,
        submit: Callable[..., Future[Any]] | None,
    ) -> None:
        """Submit the first calls.

        Args:
            engine: runs the calls.
            fn: the callable.
            iterables: the arguments of the calls, one iterable per parameter.
            timeout: seconds from now until which results must have come.
            buffersize: most items that are submitted and not yet read; None to adapt to the reader.
            chunksize: items of each message to a worker; None to adapt to their measured time.
            submit: ``submit`` of the executor if a subclass or a tool has replaced that method;
                every call then goes through the replacement.
        """
        self._engine = engine
        self._fn = fn
        self._submit = submit
        #: the caller's, whichever thread submits the calls.
        self._context = snapshot()
        self._deadline = None if timeout is None else time.monotonic() + timeout
        # Known to end: at a shutdown the rest may be submitted.
        self._finite = any(isinstance(each, Sized) for each in iterables)
        self._items: Iterator[tuple[Any, ...]] | None = zip(*iterables, strict=False)
        self._window = MapWindow(engine, buffersize, chunksize)
        self._lock = threading.RLock()
        #: items that are submitted and not read yet; the arguments of the latest submitted call.
        self._waiting = 0
        self._latest: tuple[Any, ...] = ()
        #: results of the message that is being read, last first.
        self._ready: list[Any] = []
        #: what the input or ``submit`` raised: raised to the reader where the item would be.
        self._failed: BaseException | None = None
        #: the reader has asked for a result.
        self._begun = False
        #: what was submitted and not read yet: a future each, the number of its items, and the
        #: items themselves if they are several. Set last, see __del__.
        self._ahead: deque[tuple[Future[Any], int, Any]] = deque()
        self._fill()
        if not self._ahead:
            self._raise_failed()

    def __iter__(self) -> MapResults:
        return self

    def __next__(self) -> Any:
        self._begun = True
        try:
            while not self._ready:
                if not self._ahead:
                    self._raise_failed()
                    raise StopIteration
                self._read()
            value = self._ready.pop()
        except BaseException:
            self.close()
            raise
        if type(value) is _Raised:
            self.close()
            try:
                raise value.error
            except StopIteration as error:
                raise RuntimeError("the callable raised StopIteration") from error
            finally:
                del value
        return value

    def close(self) -> None:
        """Cancel the calls that have not begun; no more results come."""
        with self._lock:
            self._begun = True
            self._items = None
            ahead, self._ahead = self._ahead, deque()
            self._ready.clear()
        for future, _, _ in ahead:
            future.cancel()

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        # __init__ may have raised. At the end of the interpreter all was submitted before, and
        # modules may be empty already.
        if ending() or self.__dict__.get("_ahead") is None:
            return
        # No other thread has this object: the lock is free, unless an interrupt came just before
        # its release. Waiting could block for ever: the collector runs in any thread.
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._begun:
                self.close()
            else:
                self.submit_rest()  # the reader wants no results, only that the calls are run
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Submit nothing more: this process is a forked copy of the one that does."""
        self._lock = threading.RLock()
        self._items, self._begun = None, True

    def submit_rest(self) -> None:
        """Submit the rest of the input: the executor is about to accept no more calls.

        Not if the reader has begun and the input may be endless; a reader that reads on gets the
        error of the refused ``submit``.
        """
        if self._window.fixed or (self._begun and not self._finite):
            return
        with self._lock, contextlib.suppress(RuntimeError):
            self._window.open()
            self._fill()

    # -- ahead of the reader -------------------------------------------------------------------

    def _fill(self) -> None:
        """Submit calls as far as the window reaches."""
        with self._lock:
            while self._items is not None and self._failed is None:
                room = self._window.room(self._waiting)
                if room <= 0:
                    return
                size = self._window.next_message(room)
                calls: list[tuple[Any, ...]] = []
                try:
                    calls.extend(islice(self._items, size))
                except BaseException as error:  # noqa: BLE001 - raised where the item would be
                    self._failed = error
                try:
                    if calls:
                        self._ahead.append(self._submitted(calls))
                except (RuntimeError, BrokenExecutor) as error:  # no more calls are accepted
                    self._failed = error
                if len(calls) < size:
                    self._items = None

    def _submitted(self, calls: list[tuple[Any, ...]]) -> tuple[Future[Any], int, Any]:
        """Submit calls as one message; returns the entry of ``_ahead``."""
        several = tuple(calls) if len(calls) > 1 else None
        if self._submit is not None:
            args = calls[0] if several is None else (self._fn, several)
            fn = self._fn if several is None else run_piece
            future = self._context.copy().run(self._submit, fn, *args)
        elif several is None:
            future = self._engine.submit(self._fn, calls[0], {}, snapshot(self._context))
        else:
            future = self._engine.submit_piece(self._fn, several, snapshot(self._context))
        self._latest = calls[0]
        self._waiting += len(calls)
        return future, len(calls), several

    # -- reading -------------------------------------------------------------------------------

    def _raise_failed(self) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def _read(self) -> None:
        """Wait for the results of the next message."""
        with self._lock:
            future, count, several = self._ahead.popleft()
            self._waiting -= count
        try:
            # First, so that there is work while this one is waited for.
            self._fill()
            left = None if self._deadline is None else self._deadline - time.monotonic()
            result = future.result(left)
        except StopIteration as error:
            # Passed on, it would end the reader's loop as if there were no more items (PEP 479).
            raise RuntimeError("the callable raised StopIteration") from error
        except (BrokenExecutor, SerializationError):
            if several is None:
                raise
            # It names no item, and the other items may be well: submit them one by one.
            with self._lock:
                self._window.send_singly()
                self._ahead.extendleft(self._submitted([args]) for args in reversed(several))
            return
        finally:
            future.cancel()
            del future  # an exception's traceback refers to this frame
        if type(result) is PieceResult:
            self._ready = _opened(result, getattr(self._engine, "failed", None))
            self._window.timed(result.packed[1][0] / count, self._travels)
        else:
            self._ready.append(result)
        self._window.read(count, self._ready, time.perf_counter(), self._travels)

    def _travels(self) -> bool:
        """Whether such calls are sent to another process; a replaced ``submit`` gets each one."""
        return self._submit is None and self._engine.pieces(self._fn, self._latest)


class _Raised:
    """Stands for the result of an item that raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _opened(
    piece: PieceResult, failed: Callable[[BaseException], BaseException] | None
) -> list[Any]:
    """The results of a message, last first; those of failed calls as ``_Raised``."""
    from parallax._backends.processes.parent.task import unpack

    values, errors = unpack(piece.packed, piece.buffers)
    for offset, error in errors.items():
        values[offset] = _Raised(error if failed is None else failed(error))
    values.reverse()
    return values
