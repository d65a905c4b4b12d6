"""What every executor of parallax shares: a ``concurrent.futures.Executor`` on top of an engine.

Guarantees: the signatures of ``concurrent.futures``; calls are submitted to the engine directly,
except where a subclass or a tool has replaced ``submit``.
"""

from __future__ import annotations

import concurrent.futures
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType

from parallax._core.futures import Future as OwnFuture
from parallax._core.lazy_import import lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING, Any
from parallax._core.options import CALL_OPTIONS, CallOptions, check, check_names, resolve
from parallax._executors.lifetimes import Maps, ends_with
from parallax._executors.map_results import MapResults

if TYPE_CHECKING:
    from typing import ParamSpec, TypeVar

    from typing_extensions import Self, Unpack

    from parallax._backends.contract import Engine
    from parallax._guard import seeding
    from parallax._reporting.executor_reports import ExecutorReport

    P = ParamSpec("P")
    T = TypeVar("T")
else:
    seeding = lazy_module("parallax._guard.seeding")


def check_arguments(
    max_workers: int | None, initializer: object, idle_timeout: float | None = None
) -> None:
    """Raise for arguments that no executor takes, in the words of the standard library."""
    if max_workers is not None and max_workers <= 0:
        raise ValueError(f"max_workers must be greater than 0, not {max_workers}")
    check({"idle_timeout": idle_timeout})
    if initializer is not None and not callable(initializer):
        raise TypeError(f"initializer must be a callable, not {initializer!r}")


class EngineExecutor(concurrent.futures.Executor):
    """An executor whose calls an engine runs."""

    _engine: Engine
    _maps: Maps
    _call_options: CallOptions | None = None

    def _use(self, engine: Engine, idle_timeout: float | None = None) -> None:
        """Run calls on an engine, which ends with this executor or with the program."""
        if idle_timeout is not None:
            engine.rest_after(idle_timeout)
        self._engine = engine
        self._maps = ends_with(self, engine)
        if resolve({}).record:
            self._record()

    def _record(self) -> None:
        if self._maps.recording is None:
            from parallax._reporting.recording import CallRecording

            self._maps.recording = CallRecording()
            self._engine.record(self._maps.recording)

    def report(self) -> ExecutorReport:
        """What was chosen for each function so far, and why; ``print`` it, or read its fields.

        After ``options(record=True)`` also what workers did: see ``ExecutorReport.to_html``.
        """
        from parallax._reporting.executor_reports import executor_report

        return executor_report(self._engine, self._maps.recording)

    def options(self, **options: Unpack[CallOptions]) -> Self:
        """The same executor with options for its calls.

            executor.options(item_timeout=5, retries=2).submit(fetch, url)

        It shares the workers and everything else, and can be used in every place of an executor:
        shutting it down ends this one, too. Options of options add up.

        Args:
            **options: ``item_timeout``, seconds that a call may run: then its worker process is
                ended and replaced, and the call fails with ``ItemTimeoutError``; an ``Executor``
                sends such calls to processes. ``retries``, how often a call is run again that
                raised an exception or whose worker died; not one that ran out of time. None takes
                back what was set. ``record``: True to record from now on what workers do with all
                calls of this executor, for ``report().to_html(path)``.

        Raises:
            TypeError: an unknown option, or one of the wrong type.
            ValueError: a value that cannot be used, or a time limit where calls run in threads,
                which cannot be ended.
        """
        check_names("options()", options, CALL_OPTIONS)
        given = {
            k: v for k, v in {**(self._call_options or {}), **options}.items() if v is not None
        }
        check({**given, "backend": self._engine.backend})
        if given.pop("record", False):
            self._record()
        view = object.__new__(type(self))
        # It refers to this executor, with which the engine ends.
        view.__dict__.update(self.__dict__, _call_options=given, _owner=self)
        return view

    @property
    def closed(self) -> bool:
        """Whether the executor takes no more calls: it was shut down, or the program is ending."""
        return self._engine.closing

    @property
    def broken(self) -> BaseException | None:
        """Why no call can be run; None as long as calls can.

        The exception of an initializer, or what keeps worker processes from starting. ``submit``
        then raises a ``BrokenExecutor`` that has it as its ``__cause__``. Of an executor that was
        given as the backend it is not known.
        """
        return self._engine.fatal

    def cancel(self, future: Future[Any]) -> bool:
        """Cancel a call, even if it is running.

        ``Future.cancel`` leaves a running call alone, as in the standard library. After this one
        the future is cancelled. A worker process that runs the call is ended and replaced; other
        calls that it holds run elsewhere. A thread cannot be ended: it goes on with the call, whose
        result is dropped.

        Args:
            future: what ``submit`` has returned. One of an executor that was given as the backend
                is cancelled if it has not begun.

        Returns:
            False if the call has ended, or goes on.
        """
        return future.revoke() if isinstance(future, OwnFuture) else future.cancel()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)``.

        In a thread it sees the context variables of the code that submits it, as they are now.

        Returns:
            The future of the call.

        Raises:
            RuntimeError: the executor was shut down.
            BrokenExecutor: an initializer has failed, or no worker can be started. Pools raise
                ``BrokenThreadPool`` and ``BrokenProcessPool``.
        """
        return self._engine.submit(fn, args, kwargs, None, self._call_options)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        seed: Any = None,
        progress: Any = False,
        record: bool = False,
    ) -> Iterator[T]:
        """Call ``fn`` on every item; results come in input order.

        The input is read as results are read, and may be endless. If nobody reads the results,
        ``shutdown``, and so the end of a ``with`` block, runs ``fn`` on the rest of the input.
        Context variables reach threads as from ``submit``.

        An error is raised where the result would be, and ends the iterator: what follows is
        StopIteration, as with a generator. An error of the input that no reader got is raised by
        the end of the ``with`` block and by ``shutdown``; see there. If the map is ended from
        elsewhere (``shutdown(cancel_futures=True)``, Ctrl-C, ``close`` in another thread, the end
        of the program), the reader gets the finished results up to the first one that is missing,
        and then ``concurrent.futures.CancelledError`` or the error of the call that was ended. Only
        ``close`` in the reader's own thread ends it quietly.

        Args:
            fn: the callable.
            *iterables: the arguments of the calls, one iterable per parameter; the shortest one
                ends the map.
            timeout: seconds from now until which results must have come.
            chunksize: items that are sent to a worker process in one message. With the default, 1,
                short items are sent many at a time and long ones one by one. Without effect in
                threads, as in the standard library.
            buffersize: maximum number of items that are submitted and whose results are not read
                yet; the input is then read by the reader of the results only. Default: as many as
                keep the workers busy.
            seed: as for ``parallel_map``: random numbers that depend on the item alone.
            progress: as for ``parallel_map``; an item counts when its result is read.
            record: as ``options(record=True)``: from now on all calls are recorded.

        Raises:
            ValueError: ``chunksize`` or ``buffersize`` is less than 1, or ``seed`` less than 0.
            TypeError: ``buffersize`` is not an integer, ``seed`` no seed, or ``record`` no bool.
            BackendMissingError: ``progress=True`` without tqdm.
        """
        message_size = self._message_size(chunksize)
        if self._call_options:
            check({**self._call_options, "chunksize": chunksize})
            message_size = 1  # each call keeps its own limits
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        default = resolve({"seed": seed, "record": record}).seed
        if record:
            self._record()
        if default is not None and iterables:
            called = seeding.seeded(fn, seed, default)
            iterables = iterables if called is fn else (itertools.count(), *iterables)
            fn = called
        submit = self.submit
        # As the standard library's map calls self.submit. The bound method keeps the executor alive
        # as long as the map; without one a dropped executor must be able to end.
        replaced = getattr(submit, "__func__", None) is not EngineExecutor.submit
        try:
            return MapResults(
                self._engine,
                fn,
                iterables,
                timeout=timeout,
                buffersize=buffersize,
                chunksize=message_size,
                submit=submit if replaced else None,
                maps=self._maps,
                options=self._call_options,
                progress=progress,
            )
        finally:
            self = submit = None  # type: ignore[assignment]  # noqa: PLW0642 - see MapResults._fill

    def _message_size(self, chunksize: int) -> int | None:
        """The number of items of each message to a worker; None to choose by measured time."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        return chunksize if chunksize > 1 else None

    def __enter__(self) -> Self:
        self._maps.in_block = True
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Shut down: wait for all calls, or after Ctrl-C end those that can be ended.

        Raises:
            Exception: as ``shutdown``. If the block has failed itself, that is logged instead.
        """
        maps = self._maps
        maps.in_block, maps.failing = False, exc_type is not None
        interrupted = exc_type is not None and issubclass(exc_type, KeyboardInterrupt)
        if interrupted:
            maps.stop(self._engine)
        self.shutdown(wait=not interrupted)
        maps.raise_unread()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls; workers end when all calls are done.

        Args:
            wait: return only when all calls are done and the workers have ended.
            cancel_futures: cancel the calls that no worker has begun.

        Raises:
            Exception: with ``wait``, what the input of a ``map`` has raised if nobody reads its
                results: part of the items did not run. All other calls are done then. Without
                ``wait`` that is logged when the iterator is dropped.
        """
        self._maps.shutdown(self._engine, wait=wait, cancel=cancel_futures)
        if wait:
            self._maps.raise_unread()

    @property
    def _max_workers(self) -> int:
        return self._engine.max_workers
