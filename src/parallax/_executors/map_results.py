"""``Executor.map``: lazy at both ends, for every kind of executor.

Calls are submitted ahead of the reader, inside a window that moves as results are read; short ones
travel to processes many at a time. The window grows while results are read as quickly as they come,
and is held small by results that are large.

Guarantees: results in order, and what the reader has taken is not kept alive here. Without a bound
that was asked for no item is left out: results that nobody reads, or not before the executor is
shut down, are worked out all the same.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import BrokenExecutor, Future
from itertools import islice
from typing import Any, Protocol, TypeVar

from parallax._backends.processes.parent.task import unpack
from parallax._backends.result_encoding import PieceResult, run_piece
from parallax._core.errors import SerializationError

__all__ = ["MapResults", "check_window", "submitter"]

T = TypeVar("T")

#: Most calls between submission and reading, if nobody says.
WIDEST = 4096

#: Seconds of reading that a window lasts at least; else it is doubled. Longer keeps more results in
#: memory, shorter lets workers run dry while the reader looks away.
LASTS = 0.05

#: Bytes of results up to which a window grows.
ROOM = 1 << 26

#: Results that are looked at to learn their size, one in so many.
LOOKS = 8

#: Seconds that an item takes, its way included, below which items travel several at a time.
SHORT = 5e-5

#: Items of the first piece; seconds that a later one takes; its most items.
FIRST, TAKES, LONGEST = 16, 0.004, 1024


class Submitter(Protocol):
    """What a map submits its calls to."""

    @property
    def max_workers(self) -> int:
        """Most calls that run at a time."""

    def submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        """Queue a call."""

    def submit_piece(
        self, fn: Callable[..., Any], piece: tuple[tuple[Any, ...], ...]
    ) -> Future[Any]:
        """Queue several calls as one, whose result is a ``PieceResult``."""

    @property
    def ahead(self) -> int:
        """Calls that should be submitted at a time, as long as their results are small."""

    def pieces(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        """Whether such calls travel to another process now."""


class Through:
    """Submits by way of an executor's own ``submit``, which a subclass or a tool has replaced.

    Args:
        engine: the executor's.
        submit: the replacement.
    """

    def __init__(self, engine: Submitter, submit: Callable[..., Future[Any]]) -> None:
        self._engine = engine
        self._submit = submit

    @property
    def max_workers(self) -> int:
        """As the engine's."""
        return self._engine.max_workers

    @property
    def ahead(self) -> int:
        """As the engine's."""
        return self._engine.ahead

    def submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        """Queue a call."""
        return self._submit(fn, *args, **kwargs)

    def submit_piece(
        self, fn: Callable[..., Any], piece: tuple[tuple[Any, ...], ...]
    ) -> Future[Any]:
        """Queue several calls as one."""
        return self._submit(run_piece, fn, piece)

    def pieces(self, *_: Any) -> bool:
        """Whoever replaces ``submit`` wants to see each call."""
        return False


def submitter(executor: Any, engine: Submitter, genuine: Callable[..., Any]) -> Submitter:
    """What a map of that executor submits to.

    Args:
        executor: it.
        engine: its engine.
        genuine: the ``submit`` of our own class.
    """
    submit = executor.submit
    # As the standard library's map calls self.submit. The bound method keeps the executor alive.
    return engine if getattr(submit, "__func__", None) is genuine else Through(engine, submit)


def check_window(buffersize: Any) -> None:
    """Refuse a ``buffersize`` that cannot be used, in the standard library's words.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is less than 1.
    """
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")


class MapResults(Iterator[T]):
    """The results of one ``map``."""

    def __init__(
        self,
        engine: Submitter,
        fn: Callable[..., T],
        iterables: tuple[Iterable[Any], ...],
        *,
        timeout: float | None,
        buffersize: int | None,
        chunksize: int | None = None,
    ) -> None:
        """Submit the first calls.

        Args:
            engine: where to.
            fn: the callable.
            iterables: its arguments.
            timeout: seconds from now until which results must have come.
            buffersize: most items that are submitted and not yet read, None for our choice.
            chunksize: items that travel in one piece, None for our choice.
        """
        self._engine = engine
        self._fn = fn
        self._end = None if timeout is None else time.monotonic() + timeout
        # Known to end: what is left of it may be run through at a shutdown.
        self._finite = any(isinstance(each, Sized) for each in iterables)
        self._items: Iterator[tuple[Any, ...]] | None = zip(*iterables, strict=False)
        self._fixed = buffersize
        self._chunksize = chunksize
        self._window = buffersize or engine.ahead
        self._size = chunksize or 1
        self._lock = threading.RLock()
        self._waiting = 0
        self._first: tuple[Any, ...] = ()
        #: results of the piece that is being read, last first.
        self._ready: list[Any] = []
        self._failed: BaseException | None = None
        self._begun = False
        self._taken = 0
        self._since = 0.0
        self._bytes = 0.0
        self._each = 0.0
        #: what was submitted and not yet read: a future each, of so many items, with the items
        #: themselves if there are several. Last: who has it can be finalized.
        self._ahead: deque[tuple[Future[Any], int, Any]] = deque()
        self._fill()
        if not self._ahead:
            self._raise_failed()

    def __iter__(self) -> MapResults[T]:
        return self

    def __next__(self) -> T:
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
        return value  # type: ignore[no-any-return]

    def close(self) -> None:
        """Cancel what has not begun; nothing more comes."""
        with self._lock:
            self._begun = True
            self._items = None
            ahead, self._ahead = self._ahead, deque()
            self._ready.clear()
        for future, _, _ in ahead:
            future.cancel()

    def __del__(self) -> None:
        # It may be that __init__ raised.
        if self.__dict__.get("_ahead") is None:
            return
        # Nobody else has it: the lock is free, unless an interrupt came as it was let go. The
        # collector runs in any thread, also in one that others wait for.
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._begun:
                self.close()
            else:
                self.submit_rest()  # nobody wants the results, only that it is done
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Submit nothing more: this process is a forked copy of the one that does."""
        self._lock = threading.RLock()
        self._items, self._begun = None, True

    def submit_rest(self) -> None:
        """Submit what is left: the executor is about to take no more calls.

        Not if the reader has begun and the input may be endless: who reads on is told so.
        """
        if self._fixed is not None or (self._begun and not self._finite):
            return
        with self._lock, contextlib.suppress(RuntimeError):
            self._window = sys.maxsize
            self._fill()

    # -- ahead of the reader -------------------------------------------------------------------

    def _fill(self) -> None:
        with self._lock:
            while self._items is not None and self._failed is None:
                room = self._room() - self._waiting
                if room <= 0:
                    return
                size = min(self._size, room) if self._chunksize is None else self._size
                piece: list[tuple[Any, ...]] = []
                try:
                    piece.extend(islice(self._items, size))
                except BaseException as error:  # noqa: BLE001 - raised where the item would be
                    self._failed = error
                try:
                    if piece:
                        self._submit(piece)
                except (RuntimeError, BrokenExecutor) as error:  # it takes no more calls
                    self._failed = error
                if len(piece) < size:
                    self._items = None

    def _room(self) -> int:
        if self._fixed is not None or self._bytes * self._window > ROOM:
            return self._window
        return max(self._window, self._engine.ahead)

    def _submit(self, piece: list[tuple[Any, ...]], *, front: bool = False) -> None:
        several: Any = None
        if len(piece) == 1:
            future = self._engine.submit(self._fn, piece[0], {})
        else:
            several = tuple(piece)
            future = self._engine.submit_piece(self._fn, several)
        entry = future, len(piece), several
        self._first = piece[0]
        self._waiting += len(piece)
        if front:
            self._ahead.appendleft(entry)
        else:
            self._ahead.append(entry)

    # -- reading -------------------------------------------------------------------------------

    def _raise_failed(self) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def _read(self) -> None:
        """Wait for the next piece."""
        with self._lock:
            future, count, several = self._ahead.popleft()
            self._waiting -= count
        try:
            # First, so that there is work while this one is waited for.
            self._fill()
            left = None if self._end is None else self._end - time.monotonic()
            result = future.result(left)
        except StopIteration as error:
            # Passed on, it would end the reader's loop as if there were no more items (PEP 479).
            raise RuntimeError("the callable raised StopIteration") from error
        except (BrokenExecutor, SerializationError):
            if several is None or count == 1:
                raise
            # It names no item, and the others are not to blame.
            self._apart(several)
            return
        finally:
            future.cancel()
            del future  # an exception's traceback refers to this frame
        if type(result) is PieceResult:
            self._ready = _opened(result, getattr(self._engine, "failed", None))
            self._timed(result.packed[1][0] / count)
        else:
            self._ready.append(result)
        self._took(count)

    def _apart(self, items: tuple[tuple[Any, ...], ...]) -> None:
        with self._lock:
            self._size = self._chunksize = 1
            for args in reversed(items):
                self._submit([args], front=True)

    def _took(self, count: int) -> None:
        """Widen the window if results are read as quickly as they come."""
        if self._fixed is not None:
            return
        before = self._taken
        self._taken += count
        if before // LOOKS != self._taken // LOOKS or not before:
            sample = [_size(result) for result in self._ready[-LOOKS:]]
            size = sum(sample) / len(sample)
            self._bytes += (size - self._bytes) / 4 if before else size
        if self._taken < self._window:
            return
        now = time.perf_counter()
        took, self._since = (now - self._since) if self._since else 0.0, now
        each, self._taken = took / self._taken, 0
        if not took:
            return
        fits = self._bytes * 2 * self._window < ROOM
        if took < LASTS and fits and self._window < WIDEST:
            self._window *= 2
        elif self._bytes * self._window > ROOM:
            self._window = max(self._engine.max_workers + 1, int(ROOM / self._bytes))
        if self._chunksize is None and self._size == 1 and each < SHORT and fits:
            self._size = FIRST if self._travels() else 1

    def _travels(self) -> bool:
        return self._engine.pieces(self._fn, self._first)

    def _timed(self, each: float) -> None:
        """A piece has told how long an item takes."""
        if self._chunksize is not None:
            return
        self._each = each if not self._each else self._each + (each - self._each) / 4
        most = max(1, self._window // (4 * self._engine.max_workers))
        if self._each > 4 * SHORT or not self._travels():
            self._size = 1
        else:
            self._size = max(1, min(int(TAKES / max(self._each, 1e-9)), LONGEST, most))


class _Raised:
    """Stands for the result of an item that raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _opened(
    piece: PieceResult, failed: Callable[[BaseException], BaseException] | None
) -> list[Any]:
    """The results of a piece, last first; of failures a ``_Raised``.

    Args:
        piece: the results as they came.
        failed: gives errors another form.
    """
    values, errors = unpack(piece.packed, piece.buffers)
    for offset, error in errors.items():
        values[offset] = _Raised(error if failed is None else failed(error))
    values.reverse()
    return values


def _size(result: Any) -> int:
    """Bytes that a result keeps, as far as that is cheap to tell."""
    try:
        nbytes = getattr(result, "nbytes", None)
        return nbytes if type(nbytes) is int else sys.getsizeof(result)
    except Exception:  # noqa: BLE001 - a result's own __getattr__ or __sizeof__
        return 0
