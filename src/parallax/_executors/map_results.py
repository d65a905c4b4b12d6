"""``Executor.map``: reads its input and submits calls as its results are read.

Calls are submitted ahead of the reader, inside a window that moves as results are read; short ones
are sent to processes many at a time.

Guarantees: results come in order, and results that the reader has taken are not kept alive here.
Without a ``buffersize`` no item is left out: calls whose results nobody reads, or not before the
executor is shut down, are run all the same. A map that was ended from elsewhere does not end like a
complete one: after the finished results its reader gets an error.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import BrokenExecutor, CancelledError, Future
from itertools import islice, takewhile
from operator import length_hint

from parallax._backends.result_encoding import PieceResult, run_piece
from parallax._core.callables import name_of
from parallax._core.contexts import snapshot
from parallax._core.errors import SerializationError
from parallax._core.light_stdlib import TYPE_CHECKING, Any, NamedTuple
from parallax._core.options import CallOptions
from parallax._executors.lifetimes import Maps
from parallax._executors.map_window import MapWindow
from parallax._reporting.progress import make_progress

if TYPE_CHECKING:
    from parallax._backends.contract import Engine

#: Inputs whose iterators tell exactly how many items are left.
_COUNTED_TYPES = (list, tuple, range, str, bytes)


class MapResults(Iterator):  # type: ignore[type-arg] # a subscript would cost at run time
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
        maps: Maps,
        options: CallOptions | None,
        progress: Any,
    ) -> None:
        """Submit the first calls; see ``EngineExecutor.map``.

        A ``buffersize`` of None adapts to the reader, a ``chunksize`` of None to the measured time
        of items. ``submit`` is that of the executor if a subclass or a tool has replaced it; every
        call then goes through the replacement. The map joins the executor's ``maps``.
        """
        sizes = [len(each) for each in iterables if progress and isinstance(each, Sized)]
        whole = len(sizes) == len(iterables)
        self._bar = make_progress(progress, min(sizes, default=0) if whole else None)
        self._engine = engine
        self._fn = fn
        self._submit = submit
        self._options = options
        #: the caller's, whichever thread submits the calls.
        self._context = snapshot()
        self._deadline = None if timeout is None else time.monotonic() + timeout
        # Known to end: at a shutdown the rest may be submitted.
        self._finite = any(isinstance(each, Sized) for each in iterables)
        sources = [iter(each) for each in iterables]
        pairs = zip(sources, iterables, strict=True)
        self._counted = [source for source, each in pairs if type(each) in _COUNTED_TYPES]
        #: None when nothing more will be submitted.
        self._items: Iterator[tuple[Any, ...]] | None = zip(*sources, strict=False)
        self._window = MapWindow(engine, buffersize, chunksize)
        self._lock = threading.RLock()
        #: the arguments of the latest submitted call.
        self._latest: tuple[Any, ...] = ()
        #: results of the message that is being read, last first.
        self._ready: list[Any] = []
        #: why the rest of the input was not submitted: raised to the reader where the item would
        #: be; and whether that is a fault of which nobody was told.
        self._failed: BaseException | None = None
        self._untold = False
        #: "cut" from elsewhere, or "closed" by the reader.
        self._state = "open"
        #: the thread that has asked for a result; None if nobody has.
        self._reader: int | None = None
        self._maps = maps
        #: what was submitted and not read yet: a future each, the number of its items, and the
        #: items themselves if they are several. Set last, see __del__.
        self._ahead: deque[tuple[Future[Any], int, Any]] = deque()
        maps.live.add(self)
        try:
            self._fill()
            if not self._ahead:
                self._raise_failed()
        finally:
            self = None  # type: ignore[assignment]  # noqa: PLW0642 - see _fill

    def __next__(self) -> Any:
        self._reader = threading.get_ident()
        try:
            while not self._ready:
                if self._state == "closed":
                    raise StopIteration
                if not self._ahead:
                    self._raise_failed()
                    raise StopIteration
                self._read(*self._advance())
            value = self._ready.pop()
            if type(value) is not _Raised:
                if self._bar is not None:
                    self._bar.update(1)
                return value
            try:
                raise value.error
            except StopIteration as error:
                raise RuntimeError("the callable raised StopIteration") from error
            finally:
                del value
        except BaseException:
            # The reader knows now that this is not all, unless it has given up before.
            self._untold = self._untold and self._state == "closed"
            self._close()
            raise
        finally:
            self = None  # type: ignore[assignment]  # noqa: PLW0642 - see _fill

    def close(self) -> None:
        """Cancel the calls that have not begun; no more results come.

        A thread that has read from it and did not close it itself gets CancelledError after the
        finished results.
        """
        if self._reader not in {None, threading.get_ident()}:
            self.cut()
            return
        self._reader = threading.get_ident()
        self._close()

    def _close(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()
        self.cut()
        self._state = "closed"
        self._ahead.clear()
        self._ready.clear()

    def cut(self) -> None:
        """Cancel the calls that have not begun; what is finished can still be read.

        Takes no lock: a thread that fills the window may be inside the input for long.
        """
        # The error first: who finds no more input looks for it.
        at_end = any(length_hint(source) == 0 for source in self._counted)
        if self._items is not None and not self._failed and not at_end:
            self._failed = CancelledError("the map was cancelled before it had run all items")
        self._items, self._state = None, "cut"
        # From the last one: a worker must not begin what comes next. By index: a reader may take
        # some meanwhile, during which a copy would raise in a build without the GIL.
        for index in reversed(range(len(self._ahead))):
            with contextlib.suppress(IndexError):
                self._ahead[index][0].cancel()

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
            if self._reader is None:
                self.submit_rest()  # nobody wants the results, only that the calls are run
            else:
                self.cut()
        except BaseException as error:  # noqa: BLE001 - Ctrl-C: from here it would reach nobody
            self._failed, self._untold = error.with_traceback(None), True
        finally:
            self._lock.release()
        if self._untold and self._failed is not None:
            self._untold = False
            self._maps.dropped(name_of(self._fn), self._failed, begun=self._reader is not None)
        self = None  # type: ignore[assignment]  # noqa: PLW0642 - see _fill

    def forget(self) -> None:
        """Submit nothing more: this process is a forked copy of the one that does."""
        self._lock = threading.RLock()
        self._reader, self._untold = threading.get_ident(), False
        finished = deque(takewhile(lambda each: each[0].done(), self._ahead))
        if self._items is not None or len(finished) < len(self._ahead):
            self._failed = BrokenExecutor("this map belongs to the process that forked this one")
        self._items, self._ahead = None, finished

    def submit_rest(self) -> None:
        """Submit the rest of the input: the executor is about to accept no more calls.

        Not if the reader has begun and the input may be endless; a reader that reads on gets the
        error of the refused ``submit``.
        """
        try:
            if not self._window.fixed and (self._reader is None or self._finite):
                with self._lock:
                    self._window.unlimited = True
                    self._fill()
        finally:
            self = None  # type: ignore[assignment]  # noqa: PLW0642 - see _fill

    def take_untold(self, ending: bool) -> tuple[str, BaseException] | None:
        """Why items were not run that run without a reader, if nobody was told so far.

        With ``ending`` also why others were not run, unless a thread reads that goes on.
        """
        if not self._untold or self._failed is None:
            return None
        if self._reader is not None and not self._finite:
            others = {t.ident for t in threading.enumerate()} - {threading.get_ident()}
            if not ending or self._reader in others:
                return None
        self._untold = False
        return name_of(self._fn), self._failed

    # -- ahead of the reader -------------------------------------------------------------------

    def _fill(self) -> None:
        """Submit calls as far as the window reaches."""
        try:
            with self._lock:
                while (items := self._items) is not None:
                    room = self._window.room()
                    if room <= 0:
                        return
                    size = self._window.next_message(room)
                    calls: list[tuple[Any, ...]] = []
                    try:
                        calls.extend(islice(items, size))
                    except BaseException as error:  # noqa: BLE001 - the user's iterable may raise anything
                        self._fail(error, fault=True)
                    try:
                        if calls:
                            self._ahead.append(self._submitted(calls))
                    except BaseException as error:  # noqa: BLE001 - no more calls are accepted
                        self._fail(error, fault=self._reader is None)
                    if len(calls) < size:
                        self._items = None
        finally:
            # The traceback of an error of the input refers to all frames that it went through, and
            # those to their callers. No frame may keep this object, which has the error.
            self = None  # type: ignore[assignment]  # noqa: PLW0642

    def _fail(self, error: BaseException, *, fault: bool) -> None:
        """Keep an error for the reader, where the item would be; what ends programs is raised."""
        if not isinstance(error, Exception):
            self.cut()
            raise error
        if self._state == "open" or self._failed is None:
            self._failed = error
        self._untold = self._state == "open" and (self._untold or fault)
        self._items = None

    def _submitted(self, calls: list[tuple[Any, ...]]) -> tuple[Future[Any], int, Any]:
        """Submit calls as one message; returns the entry of ``_ahead``."""
        several = tuple(calls) if len(calls) > 1 else None
        if self._submit is not None:
            args = calls[0] if several is None else (self._fn, several)
            fn = self._fn if several is None else run_piece
            future = self._context.copy().run(self._submit, fn, *args)
        elif several is None:
            future = self._engine.submit(
                self._fn, calls[0], {}, snapshot(self._context), self._options
            )
        else:
            future = self._engine.submit_piece(self._fn, several, snapshot(self._context))
        self._latest = calls[0]
        self._window.waiting += len(calls)
        try:
            return future, len(calls), several
        finally:
            del future  # an error that it ended with here refers to this frame

    # -- reading -------------------------------------------------------------------------------

    def _raise_failed(self) -> None:
        failed, self._failed = self._failed, None
        try:
            if failed is not None:
                raise failed
        finally:
            del failed  # its traceback refers to this frame

    def _advance(self) -> tuple[Future[Any], int, Any]:
        """Move the window behind the next message, so that there is work while it is waited for."""
        try:
            with self._lock:
                self._window.waiting -= self._ahead[0][1]
                self._fill()
                return self._ahead.popleft()
        finally:
            self = None  # type: ignore[assignment]  # noqa: PLW0642 - see _fill

    def _read(self, future: Future[Any], count: int, several: Any) -> None:
        try:
            left = None if self._deadline is None else self._deadline - time.monotonic()
            result = future.result(left)
        except StopIteration as error:
            # Passed on, it would end the reader's loop as if there were no more items (PEP 479).
            raise RuntimeError("the callable raised StopIteration") from error
        except (BrokenExecutor, SerializationError):
            if several is None or self._state != "open":
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


class _Raised(NamedTuple):
    error: BaseException


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
