"""A worker in an interpreter of its own inside the parent's process (Python 3.14 and later).

It is the worker of ``main``, on the same kind of socket, without what belongs to a whole process:
signal handlers, the working folder, environment variables, the exit.

Guarantees: an extension module that does not load in an interpreter ends the worker, which has then
answered what it has run; the call that met the module counts as not begun, and all that the worker
owes runs elsewhere. Third-party modules that a function imports in its own body are tried before
its first call, so that it rarely meets one halfway.
"""

from __future__ import annotations

import _imp
import contextlib
import functools
import os
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from types import CodeType

from parallax._backends.capture import run_chunk
from parallax._backends.processes.common import protocol
from parallax._backends.processes.common.channel_setup import open_channel
from parallax._backends.processes.worker.batches import BatchRunner, flush_output
from parallax._backends.processes.worker.environment_setup import WorkerEnvironment
from parallax._backends.processes.worker.limits import WorkerLimits
from parallax._backends.processes.worker.main import Worker
from parallax._core.chunks import ChunkResult, Failure
from parallax._core.interrupt_mask import unblock_interrupts
from parallax._core.lazy_import import lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING, Any, NoReturn, sockets
from parallax._core.nesting import MAX_WORKER_LEVELS
from parallax._shm.segment import Handle
from parallax._transport.framing import Frame
from parallax._transport.shm_channel import SharedFrame, SharedMemoryChannel

if TYPE_CHECKING:
    import dis
    import importlib.util as importlib_util
else:
    dis = lazy_module("dis")
    importlib_util = lazy_module("importlib.util")

_LOADERS = ("create_dynamic", "exec_dynamic", "create_builtin", "exec_builtin")

#: Seconds between two exceptions raised in an item that is not waited for any more. Shorter strikes
#: its handlers, longer leaves it running.
INTERRUPT_INTERVAL_S = 0.1

#: What loading extension modules has raised since the last frame, whoever caught it.
_refusals: list[Exception] = []


class _AbandonedError(BaseException):
    """Raised in an item whose parent has closed its end of the socket."""


class _CannotLoadError(BaseException):
    """An extension module does not load here; not for the handlers of items."""

    def __init__(self, refusal: BaseException) -> None:
        super().__init__(f"{type(refusal).__name__}: {refusal}".split("\n", 1)[0])


def main(fd: int, segments: Sequence[Handle], initializer_fds: Sequence[int]) -> None:
    """Work until the parent closes its end of the socket; takes ownership of the descriptors."""
    protocol.RECALL = None  # handlers of signals run in the main interpreter only
    unblock_interrupts()
    for name in _LOADERS:
        setattr(_imp, name, _watched(getattr(_imp, name)))
    channel = open_channel(sockets.socket(fileno=fd), segments)
    worker = _InterpreterWorker(channel, initializer_fds, None, segments[1:])
    with contextlib.suppress(RuntimeError):  # there can be no other thread
        worker.interrupter.start()
    # A late exception may come as the worker closes.
    for step in (worker.run, worker.close, worker.close):
        with contextlib.suppress(EOFError, OSError, _AbandonedError):
            step()


class _InterpreterWorker(Worker):
    def __init__(
        self,
        channel: SharedMemoryChannel,
        initializer_fds: Sequence[int],
        inherited: dict[int, tuple[Any, ...]] | None,
        sending: Sequence[Handle],
    ) -> None:
        super().__init__(channel, initializer_fds, inherited)
        self._batches = _Batches(channel, self._call_of, self._take_unbegun, self._examine)
        self._environment = _Environment(self._send_output)
        self._limits: _Limits = _Limits()
        self._delays.close()  # who asks for interpreters has nothing measured
        self._sending = sending
        #: a frame is being handled.
        self._busy = False
        self._over = threading.Event()
        self.interrupter = threading.Thread(target=self._interrupt, args=(threading.get_ident(),))

    def run(self) -> None:
        try:
            super().run()
        except EOFError:
            # Nothing more is sent here, and what comes all the same is not begun.
            self._channel.send(protocol.BYE)
        except _CannotLoadError as refused:
            self._batches.answer()
            self._channel.send(protocol.BYE, protocol.CANNOT_LOAD, str(refused).encode())

    def close(self) -> None:
        """Close what the end of a process would. Idempotent."""
        self._over.set()
        flush_output()
        with contextlib.suppress(OSError):
            # A fork of the program may have this end as well, and would hide that it ends here.
            self._channel.sock.shutdown(sockets.SHUT_RDWR)
        if self.interrupter.is_alive():
            self.interrupter.join()
        self._channel.close()
        if self._channel._segment is not None:  # something that it received may be alive
            self._channel._segment.close()
        handles, self._sending, self._initializer_fds = (
            (*self._sending, *self._initializer_fds),
            (),
            (),
        )
        for handle in handles:
            if isinstance(handle, int):
                os.close(handle)

    def _interrupt(self, ident: int) -> None:
        """Raise an exception in what runs in that thread once the parent's end is closed."""
        if not hasattr(select, "poll"):
            return
        poll = select.poll()
        poll.register(self._channel, 0)  # for the end of the connection only
        poll.poll()
        while self._busy and not self._over.wait(INTERRUPT_INTERVAL_S):
            if self._batches.inside or self._limits.inside:
                import ctypes

                thread, error = ctypes.c_ulong(ident), ctypes.py_object(_AbandonedError)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)

    def _first(self, key: int) -> tuple[Any, ...]:
        try:
            return super()._first(key)
        finally:
            self._initializer_fds = ()  # they are closed

    def _handle(self, frame: Frame | SharedFrame) -> None:
        _refusals.clear()
        self._busy = True
        try:
            super()._handle(frame)
        finally:
            self._busy = False

    def _call_of(self, key: int) -> tuple[Any, ...]:
        known = type(self._calls[key]) is tuple
        call = super()._call_of(key)
        if not known:
            _try_imports(call[0])
        return call

    def _examine(self, error: BaseException) -> None:
        super()._examine(error)
        if isinstance(error, _CannotLoadError):
            raise error
        if (refusal := _refusal_in(error)) is not None:
            raise _CannotLoadError(refusal)

    def _leave_at_limit(self) -> NoReturn:
        assert self._limits.refusal is not None
        raise _CannotLoadError(self._limits.refusal)


class _Batches(BatchRunner):
    def decode(self, payload: Any, buffers: Any) -> Any:
        with _all_loaded():
            return super().decode(payload, buffers)


class _Limits(WorkerLimits):
    #: an item runs.
    inside = False
    #: what ended the last chunk early.
    refusal: BaseException | None = None

    def run(
        self,
        fn: Callable[..., Any],
        items: list[Any],
        values: list[Any],
        *,
        star: bool,
        stop: bool,
        delays: Callable[[], float],
    ) -> ChunkResult:
        if _refusals:  # as the items were decoded
            raise _CannotLoadError(_refusals[0])
        failures: list[Failure] = []
        wall = cpu = begun = 0.0
        while True:
            self.inside = True
            part = run_chunk(fn, items[len(values) :], star=star, stop=True, delays=delays)
            self.inside = False
            begun = begun or part.begun
            wall += part.wall
            cpu += part.cpu
            values += part.values
            if not part.failures:
                break
            (failure,) = part.failures
            self.refusal = _refusal_in(failure.error)
            if self.refusal is not None:
                values.pop()
                self.reached = True
                if not values:
                    raise _CannotLoadError(self.refusal)
                break
            failures.append(failure._replace(offset=len(values) - 1))
            if stop or len(values) == len(items) or not isinstance(failure.error, Exception):
                break
        return ChunkResult(values, tuple(failures), wall, cpu, begun=begun)


class _Environment(WorkerEnvironment):
    def apply(self, context: dict[str, Any], *, initialized: bool = False) -> None:
        context = {**context, "multiprocessing": None, "habits": None}
        if "place" in context:
            # Parallel calls of items are loops: an interpreter has no threads that end with it.
            context["place"] = MAX_WORKER_LEVELS, *context["place"][1:]
        super().apply(context, initialized=initialized)

    def _set_folder(self) -> None:
        """It is the program's own."""

    def _set_variables(self) -> None:
        """Have the copy that this interpreter has of them agree with the program's."""
        environ: Any = os.environ  # setting its items would change the process
        known = {environ.encodekey(k): environ.encodevalue(v) for k, v in self._last["env"].items()}
        environ._data.clear()
        environ._data.update(known)


def _watched(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def watched(*args: Any) -> Any:
        try:
            return load(*args)
        except Exception as error:
            _refusals.append(error)
            raise

    return watched


def _refusal_in(error: BaseException) -> BaseException | None:
    chain: list[BaseException | None] = [error]
    for each in chain:
        if each is None:
            continue
        if any(each is refusal for refusal in _refusals):
            return each
        chain += (e for e in (each.__cause__, each.__context__) if not any(e is c for c in chain))
    return None


@contextlib.contextmanager
def _all_loaded() -> Iterator[None]:
    """In this block no refusal may go unnoticed: a module may do without, and work otherwise."""
    before = len(_refusals)
    yield
    if len(_refusals) > before:
        raise _CannotLoadError(_refusals[before])


def _try_imports(fn: Any) -> None:
    """Import the third-party modules that a function's own code imports."""
    code = getattr(getattr(fn, "func", fn), "__code__", None)
    if code is None:
        return
    with _all_loaded():
        for name in _imported_names(code):
            with contextlib.suppress(Exception):
                if _is_third_party(name):
                    __import__(name)


def _imported_names(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            yield instruction.argval
        elif isinstance(instruction.argval, type(code)):
            yield from _imported_names(instruction.argval)


def _is_third_party(name: str) -> bool:
    spec = importlib_util.find_spec(name.partition(".")[0])
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    return any("-packages" in (place or "") for place in places)
