"""What workers print, log and warn, in the program that started them.

A *hearing* keeps what the workers of one run, executor or pool said until somebody passes it on:
to ``sys.stdout`` and ``sys.stderr``, the program's log handlers and its way of showing warnings, as
they are at that moment. The thread that waits for results does so itself; where there is none, or
it is busy with an item, a thread that lives as long as there is something to say.

Guarantees: what one worker said is passed on in its order, and before its later results are given
out, with no lock of ours held; a handler that raises harms nobody. A handler that blocks for ever,
or that waits for parallax itself, holds up results for ``PATIENCE`` seconds and not for ever.
"""

from __future__ import annotations

import builtins
import codecs
import logging
import sys
import threading
import traceback
import warnings
from collections import deque
from threading import get_ident
from typing import Any

from parallax._backends.processes.common import protocol
from parallax._core.light_stdlib import loads
from parallax._transport import codec
from parallax._transport.framing import Frame
from parallax._transport.shm_channel import SharedFrame

__all__ = ["Ear", "Hearing"]

#: Seconds without progress after which whoever waits for another thread's handlers goes on.
PATIENCE = 0.5

#: Seconds that a thread of ours waits for more.
LINGER = 0.2

#: Bytes that may wait. Less makes those who read the sockets wait for handlers more often.
MUCH = 1 << 20

#: Bytes of output that are written at once.
TOGETHER = 1 << 16

#: Bytes that a frame takes besides its content, roughly.
FRAME = 200

_TEXT = frozenset({protocol.OUT, protocol.ERR})
_KIND = protocol.FIRST - 1


#: What is done about bytes that are no text: somebody wrote them to ``sys.stdout.buffer``.
WRONG = "parallax-heard"


def _decode_wrong(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogatepass")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error(WRONG, _decode_wrong)


class Ear:
    """What was heard of one worker and makes no sense yet: parts of characters, of records."""

    __slots__ = ("decoders", "part")

    def __init__(self) -> None:
        self.part: bytearray | None = None
        self.decoders: dict[int, codecs.IncrementalDecoder] = {}

    def text(self, kind: int, data: bytes) -> str:
        """Decode output."""
        decoder = self.decoders.get(kind)
        if decoder is None:
            decoder = codecs.getincrementaldecoder("utf-8")(WRONG)
            self.decoders[kind] = decoder
        return decoder.decode(data)

    def whole(self, tag: int, data: bytes) -> Any:
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


class Hearing:
    """What was said, and who passes it on. Thread-safe."""

    def __init__(self, name: str = "parallax-voices") -> None:
        """Prepare.

        Args:
            name: of the thread that passes on what nobody else does.
        """
        self._name = name
        # Reentrant: the garbage collector may run a finalizer that logs.
        self._lock = threading.RLock()
        # Entered by its lock: an exception by a signal would leave a condition locked, whose
        # ``__enter__`` is Python code.
        self._change = threading.Condition(self._lock)
        self._said: deque[tuple[Ear, int, bytes]] = deque()
        #: bytes that were said and are not passed on.
        self._size = 0
        #: the thread that is passing on, 0 for none.
        self._teller = 0
        #: how often something was passed on, and that when somebody last gave up waiting.
        self._told, self._stuck = 0, -1
        self._thread: threading.Thread | None = None
        self._closed = False

    def take(self, ear: Ear, frame: Frame | SharedFrame) -> None:
        """Keep what a worker said; never blocks for long.

        Args:
            ear: the worker's.
            frame: a frame of kind OUTPUT.
        """
        data = bytes(frame.open()[0])
        with self._lock:
            self._said.append((ear, frame.tag, data))
            self._size += len(data) + FRAME

    def tell(self) -> None:
        """Pass on all that was said, in this thread or by waiting for the one that is at it.

        No lock may be held that a handler could want.
        """
        while self._size:
            free = False
            try:
                with self._lock:
                    if self._teller == get_ident():
                        return  # a handler of the program's has come back here
                    free = not self._teller
                    if free:
                        self._teller = get_ident()
                if free:
                    self._drain()
            finally:  # also if Ctrl-C came at any point of this
                if free:
                    self._release()
            if not free and not self._wait(0):
                return

    def pass_on(self) -> None:
        """Have all that was said passed on, by another thread; wait only while it is too much."""
        if not self._size:
            return
        with self._lock:
            if self._teller == get_ident():
                return
            if self._thread is None and not self._teller:
                thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                try:
                    thread.start()
                    self._thread = thread
                except RuntimeError:  # there are too many threads, or the interpreter is ending
                    pass
            self._change.notify_all()
        if self._thread is None and not self._teller:
            self.tell()
        elif self._size > MUCH:
            self._wait(MUCH)

    def settle(self) -> None:
        """Wait until all that was said is passed on, by another thread."""
        self.pass_on()
        if self._size and self._teller != get_ident():
            self._wait(0)

    def close(self) -> None:
        """Pass on what is left; no thread is left behind, unless a handler holds it."""
        self._closed = True
        self.tell()
        thread = self._thread
        if thread is not None:
            with self._lock:
                self._change.notify_all()
            if thread is not threading.current_thread():
                thread.join(PATIENCE)

    # -- parts ---------------------------------------------------------------------------------

    def _serve(self) -> None:
        """The thread."""
        while True:
            with self._lock:
                while self._teller or not self._said:
                    if self._closed or (not self._change.wait(LINGER) and not self._said):
                        self._thread = None
                        return
                self._teller = get_ident()
            try:
                self._drain()
            finally:
                self._release()

    def _release(self) -> None:
        with self._lock:
            self._teller = 0
            self._change.notify_all()

    def _wait(self, limit: int) -> bool:
        """Wait until no more than so much is left, or nobody is at it; False if that takes long."""
        with self._lock:
            while self._size > limit and (self._teller or self._thread is not None):
                told = self._told
                if self._stuck == told:
                    return False  # it has been waited for, and nothing has happened since
                if not self._change.wait(PATIENCE) and self._told == told:
                    self._stuck = told
        return True

    def _drain(self) -> None:
        """Pass on what there is; this thread is the teller."""
        while True:
            with self._lock:
                if not self._said:
                    self._size = 0
                    return
                ear, tag, data, size = self._cut()
            try:
                _tell(ear, tag, data)
            finally:
                with self._lock:
                    self._size -= size
                    self._told += 1
                    self._change.notify_all()

    def _cut(self) -> tuple[Ear, int, bytes, int]:
        """The next thing to pass on: what a worker wrote in a row is one."""
        ear, tag, data = self._said.popleft()
        size = len(data) + FRAME
        kind = tag & _KIND
        if kind in _TEXT:
            parts = [data]
            while self._said and size < TOGETHER:
                other, next_tag, data = self._said[0]
                if other is not ear or next_tag & _KIND != kind:
                    break
                self._said.popleft()
                parts.append(data)
                size += len(data) + FRAME
            data = b"".join(parts)
        return ear, tag, data, size


def _tell(ear: Ear, tag: int, data: bytes) -> None:
    """Pass one thing on."""
    kind = tag & _KIND
    try:
        if kind in _TEXT:
            _write(sys.stdout if kind == protocol.OUT else sys.stderr, ear.text(kind, data))
        elif (whole := ear.whole(tag, data)) is not None:
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
