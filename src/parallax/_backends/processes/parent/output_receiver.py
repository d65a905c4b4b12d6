"""What workers print, log and warn, in the program that started them.

The receiver of one run, executor or pool keeps the workers' output until a thread delivers it: to
``sys.stdout`` and ``sys.stderr``, the program's log handlers and its way of showing warnings, as
they are at that moment. The thread that waits for results delivers; where there is none, or it is
busy with an item, a thread of its own, which lives as long as there is output.

Guarantees: the output of one worker is delivered in order, and before its later results are given
out, with no lock of ours held; a handler that raises harms nothing else. A handler that blocks for
ever, or that waits for parallax itself, delays results by ``PROGRESS_TIMEOUT_S`` and not for ever.
"""

from __future__ import annotations

import builtins
import codecs
import sys
import threading
import warnings
from collections import deque
from threading import get_ident

from parallax._backends.processes.common import protocol
from parallax._core.lazy_import import logging, traceback
from parallax._core.light_stdlib import Any, loads
from parallax._transport import codec
from parallax._transport.framing import Frame
from parallax._transport.shm_channel import SharedFrame

#: Seconds without progress after which a thread that waits for another thread's handlers goes on.
#: Shorter gives out results before their output, longer delays them where a handler blocks.
PROGRESS_TIMEOUT_S = 0.5

#: Seconds that the receiver's own thread waits for more output before it ends.
THREAD_LINGER_S = 0.2

#: Bytes that may wait. Less makes threads that read sockets wait for handlers more often, more
#: takes memory.
MAX_WAITING_OUTPUT_BYTES = 1 << 20

MAX_WRITE_BYTES = 1 << 16

#: Bytes that a frame takes besides its content, roughly.
FRAME_OVERHEAD_BYTES = 200

_TEXT = frozenset({protocol.OUT, protocol.ERR})
_KIND = protocol.FIRST - 1


#: The error handler for bytes that are no text: an item wrote them to ``sys.stdout.buffer``.
_INVALID_UTF8 = "parallax-heard"


def _decode_invalid(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogatepass")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error(_INVALID_UTF8, _decode_invalid)


class OutputDecoder:
    """Decodes the output of one worker; keeps incomplete characters and records."""

    __slots__ = ("decoders", "part")

    def __init__(self) -> None:
        self.part: bytearray | None = None
        self.decoders: dict[int, codecs.IncrementalDecoder] = {}

    def text(self, kind: int, data: bytes) -> str:
        decoder = self.decoders.get(kind)
        if decoder is None:
            decoder = codecs.getincrementaldecoder("utf-8")(_INVALID_UTF8)
            self.decoders[kind] = decoder
        return decoder.decode(data)

    def record(self, tag: int, data: bytes) -> Any:
        """A record or warning, if this is the last part of it; else None."""
        if tag & protocol.FIRST:
            if not tag & protocol.MORE:
                return data
            self.part = bytearray()  # what came before was broken off
        if self.part is None:
            return None
        self.part += data
        if tag & protocol.MORE:
            return None
        whole, self.part = self.part, None
        return whole


class OutputReceiver:
    """Output that waits, and the threads that deliver it. Thread-safe."""

    def __init__(self, name: str = "parallax-voices") -> None:
        self._name = name
        # Reentrant: the garbage collector may run a finalizer that logs.
        self._lock = threading.RLock()
        # Entered by its lock: an exception by a signal would leave a condition locked, whose
        # ``__enter__`` is Python code.
        self._change = threading.Condition(self._lock)
        self._waiting: deque[tuple[OutputDecoder, int, bytes]] = deque()
        self._size = 0
        #: the thread that is delivering, 0 for none.
        self._deliverer = 0
        #: deliveries, and their number when a thread last gave up waiting for the next one.
        self._delivered, self._stuck = 0, -1
        self._thread: threading.Thread | None = None
        self._closed = False

    def receive(self, decoder: OutputDecoder, frame: Frame | SharedFrame) -> None:
        """Keep a piece of output; never blocks for long."""
        data = bytes(frame.open()[0])
        with self._lock:
            self._waiting.append((decoder, frame.tag, data))
            self._size += len(data) + FRAME_OVERHEAD_BYTES

    def deliver(self) -> None:
        """Deliver all output, or wait for who does; no lock is held that a handler wants."""
        while self._size:
            free = False
            try:
                with self._lock:
                    if self._deliverer == get_ident():
                        return  # a handler of the program's has come back here
                    free = not self._deliverer
                    if free:
                        self._deliverer = get_ident()
                if free:
                    self._drain()
            finally:  # also if Ctrl-C came at any point of this
                if free:
                    self._release()
            if not free and not self._wait(0):
                return

    def deliver_soon(self) -> None:
        """Have all output delivered by another thread; wait only while too much is waiting."""
        if not self._size:
            return
        with self._lock:
            if self._deliverer == get_ident():
                return
            if self._thread is None and not self._deliverer:
                thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                try:
                    thread.start()
                    self._thread = thread
                except RuntimeError:  # there are too many threads, or the interpreter is ending
                    pass
            self._change.notify_all()
        if self._thread is None and not self._deliverer:
            self.deliver()
        elif self._size > MAX_WAITING_OUTPUT_BYTES:
            self._wait(MAX_WAITING_OUTPUT_BYTES)

    def wait_delivered(self) -> None:
        self.deliver_soon()
        if self._size and self._deliverer != get_ident():
            self._wait(0)

    def close(self) -> None:
        """Deliver what is left; no thread is left behind, unless a handler holds it."""
        self._closed = True
        self.deliver()
        thread = self._thread
        if thread is not None:
            with self._lock:
                self._change.notify_all()
            if thread is not threading.current_thread():
                thread.join(PROGRESS_TIMEOUT_S)

    # -- parts ---------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            with self._lock:
                while self._deliverer or not self._waiting:
                    closed = self._closed
                    timed_out = not closed and not self._change.wait(THREAD_LINGER_S)
                    if closed or (timed_out and not self._waiting):
                        self._thread = None
                        return
                self._deliverer = get_ident()
            try:
                self._drain()
            finally:
                self._release()

    def _release(self) -> None:
        with self._lock:
            self._deliverer = 0
            self._change.notify_all()

    def _wait(self, limit: int) -> bool:
        """Wait until no more than so much is left, or nobody is at it; False if that takes long."""
        with self._lock:
            while self._size > limit and (self._deliverer or self._thread is not None):
                told = self._delivered
                if self._stuck == told:
                    return False  # it has been waited for, and nothing has happened since
                if not self._change.wait(PROGRESS_TIMEOUT_S) and self._delivered == told:
                    self._stuck = told
        return True

    def _drain(self) -> None:
        """Deliver what there is; this thread is the deliverer."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._size = 0
                    return
                decoder, tag, data, size = self._cut()
            try:
                _deliver_one(decoder, tag, data)
            finally:
                with self._lock:
                    self._size -= size
                    self._delivered += 1
                    self._change.notify_all()

    def _cut(self) -> tuple[OutputDecoder, int, bytes, int]:
        """The next thing to pass on: what a worker wrote in a row is one."""
        decoder, tag, data = self._waiting.popleft()
        size = len(data) + FRAME_OVERHEAD_BYTES
        kind = tag & _KIND
        if kind in _TEXT:
            parts = [data]
            while self._waiting and size < MAX_WRITE_BYTES:
                other, next_tag, data = self._waiting[0]
                if other is not decoder or next_tag & _KIND != kind:
                    break
                self._waiting.popleft()
                parts.append(data)
                size += len(data) + FRAME_OVERHEAD_BYTES
            data = b"".join(parts)
        return decoder, tag, data, size


def _deliver_one(decoder: OutputDecoder, tag: int, data: bytes) -> None:
    kind = tag & _KIND
    try:
        if kind in _TEXT:
            _write(sys.stdout if kind == protocol.OUT else sys.stderr, decoder.text(kind, data))
        elif (whole := decoder.record(tag, data)) is not None:
            if kind == protocol.RECORD:
                # Programs that log nothing never need it.
                from parallax._backends.processes.common.log_records import replay, unpack

                replay(*unpack(whole))
            else:
                _warn(*loads(whole))
    except Exception as error:  # noqa: BLE001 - whatever handlers and streams do
        _complain(error)
    except BaseException as error:
        # Ctrl-C, or somebody wants to end the program: for whoever waits for results there.
        if threading.current_thread() is threading.main_thread():
            raise
        _complain(error)


def _write(stream: Any, text: str) -> None:
    if stream is None:
        return
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    if not text.endswith("\n") and hasattr(stream, "flush"):
        stream.flush()  # the worker has sent it before its line was complete


def _warn(
    packed: bytes | None, text: str, kin: str, filename: str, lineno: int, module: str | None
) -> None:
    """Warn as if the item had run here: by this process's filters, and of what it has not shown."""
    message: Any = text
    category: Any = getattr(builtins, kin)
    if packed is not None:
        try:
            message, category = codec.decode(packed)
        except Exception:  # noqa: BLE001 - it is known in the worker only
            message = text
    home = sys.modules.get(module or "")
    space = _registries.setdefault(module or filename, {}) if home is None else vars(home)
    registry = space.setdefault("__warningregistry__", {})
    try:
        warnings.warn_explicit(message, category, filename, lineno, module, registry)
    except Warning:
        # The filters have become stricter since. The item has got through with it.
        warnings.showwarning(message, category, filename, lineno)


#: What was shown of modules that are only known in workers.
_registries: dict[str, dict[str, Any]] = {}


def _complain(error: BaseException) -> None:
    """Say that what a worker said got lost; as ``logging`` does, and as long as that is wanted."""
    if not logging.raiseExceptions or sys.stderr is None:
        return
    try:
        sys.stderr.write("--- parallax: what a worker process said could not be passed on ---\n")
        traceback.print_exception(type(error), error, error.__traceback__, file=sys.stderr)
    except Exception:  # noqa: BLE001 - standard error is what is broken
        return
