"""What items print, log and warn, sent to the parent; loaded when the parent wants it.

Output goes through the worker's socket, in frames of kind OUTPUT among the answers: so the output
of an item arrives before its result, in the order in which it was made.

Guarantees: any thread of an item may send, and signal handlers; frames do not mix; a recall that
comes while a frame is written is answered after it. A fork that an item makes writes to the
descriptors that it has inherited. A sender waits while the parent does not read.
Assumptions: one write of a small frame to a stream socket is all or nothing, as on Linux; elsewhere
an exception that a signal handler raises in the middle of one breaks the connection.
"""

from __future__ import annotations

import io
import os
import select
import sys
import warnings
from _thread import RLock, get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from parallax._backends.processes.common import protocol
from parallax._core.light_stdlib import TYPE_CHECKING, Any, dumps
from parallax._transport import codec
from parallax._transport.framing import pack_small_frame
from parallax._transport.shm_channel import SharedMemoryChannel

if TYPE_CHECKING:
    from parallax._backends.processes.common.log_records import RecordSender

#: Most bytes in one frame. Smaller costs more system calls; from 32 KB on the system may accept a
#: part of a frame only.
MAX_OUTPUT_FRAME_BYTES = 1 << 14

#: ``os.write`` writes to sockets.
_SOCKETS_ARE_FILES = os.name == "posix"


class OutputSender:
    def __init__(
        self, channel: SharedMemoryChannel, recall: Callable[[], None], *, forked: bool
    ) -> None:
        """Have several threads send; ``recall`` answers what was deferred meanwhile."""
        self.lock = RLock()
        #: a warning was sent since the last answer.
        self.warned = False
        self._channel = channel
        self._recall = recall
        self._recalled = False
        self._forked = forked
        self._main = get_ident()
        #: frames that the main thread is writing: a signal handler may send, too.
        self._sending = 0
        #: nothing is sent: the parent is gone, or this is a fork that an item has made.
        self._disconnected = self._forked_off = False
        self._enabled: tuple[bool, ...] = (False,) * 4
        self._streams: list[io.TextIOWrapper] = []
        self._handler: RecordSender | None = None
        self._show = getattr(warnings, "_showwarning_orig", warnings.showwarning)
        channel.__class__ = _LockedChannel
        assert isinstance(channel, _LockedChannel)
        channel.output = self
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave_parent)

    def enable(self, wanted: tuple[bool, ...]) -> None:
        """Send more kinds of output, for good, unless the worker has redirected them."""
        new = [now and not before for now, before in zip(wanted, self._enabled, strict=True)]
        self._enabled = tuple(map(max, wanted, self._enabled))
        for name, kind, number in (("stdout", protocol.OUT, 1), ("stderr", protocol.ERR, 2)):
            ours = getattr(sys, name) is getattr(sys, f"__{name}__")
            if new[kind] and (ours or self._forked):
                setattr(sys, name, self._stream(kind, number))
        if new[protocol.RECORD]:
            from parallax._backends.processes.common.log_records import RecordSender

            self._handler = RecordSender(self._send_record, adopt=self._forked)
        if new[protocol.WARNING] and (self._forked or warnings.showwarning is self._show):
            warnings.showwarning = self._warn
        self._forked = False  # later handlers and streams were set up in this process

    def send(self, kind: int, data: bytes | memoryview) -> bool:
        """Send OUT, ERR, or a RECORD or WARNING; False in a fork, which has no parent."""
        if self._forked_off:
            return False
        if self._disconnected:
            return True
        mine = get_ident() == self._main
        self._sending += mine
        try:
            with self.lock:
                flags = protocol.FIRST
                for start in range(0, len(data), MAX_OUTPUT_FRAME_BYTES):
                    if start + MAX_OUTPUT_FRAME_BYTES < len(data):
                        flags |= protocol.MORE
                    piece = data[start : start + MAX_OUTPUT_FRAME_BYTES]
                    self._write(pack_small_frame(protocol.OUTPUT, kind | flags, piece))
                    flags = 0
        except OSError as error:
            if error.errno is None:
                raise  # an exception of a signal handler of the item
            self._disconnected = True  # the parent is gone, as the next read of a frame notices
        finally:
            self._sending -= mine
            if mine and self._recalled and not self._sending:
                self._recalled = False
                self._recall()
        return True

    def defer_recall(self) -> bool:
        """Whether a recall has to wait for a frame that is being written; it is noted then."""
        self._recalled = self._recalled or bool(self._sending)
        return bool(self._sending)

    def reset_warnings(self) -> None:
        """Have a warning that was sent once be sent again; the parent knows what it has shown."""
        self.warned = False
        with warnings.catch_warnings():
            pass  # the interpreter takes it for a change of the filters

    @contextmanager
    def logging_suspended(self) -> Iterator[None]:
        """While an initializer runs, it finds logging as in a fresh process."""
        if self._handler is None or self._handler.adopted:
            yield
        else:
            with self._handler.suspended():
                yield

    # -- parts ---------------------------------------------------------------------------------

    def _write(self, frame: bytes) -> None:
        fd = self._channel.sock.fileno()
        left = memoryview(frame)
        while left:
            try:
                # Not by the socket: the main thread may have set a time limit on it, and its
                # TimeoutError could as well be that of a signal handler of the item.
                left = left[
                    os.write(fd, left) if _SOCKETS_ARE_FILES else self._channel.sock.send(left) :
                ]
            except (BlockingIOError, TimeoutError) as error:
                if _SOCKETS_ARE_FILES and error.errno is None:
                    raise
                _wait_for_room(fd)

    def _stream(self, kind: int, number: int) -> io.TextIOWrapper:
        raw = _OutputStream(self, kind, number)
        buffer = io.BufferedWriter(raw, MAX_OUTPUT_FRAME_BYTES)
        stream = io.TextIOWrapper(
            buffer, "utf-8", "surrogatepass", newline="\n", line_buffering=True
        )
        self._streams.append(stream)
        return stream

    def _flush(self) -> None:
        """Send the beginnings of lines that were printed before."""
        for stream in self._streams:
            try:
                stream.flush()
            except (RuntimeError, ValueError):
                continue  # it is being flushed, and this a signal handler; or it was closed

    def _send_record(self, data: bytes) -> bool:
        self._flush()
        return self.send(protocol.RECORD, data)

    def _warn(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        """Takes the place of ``warnings.showwarning``."""
        if file is not None or self._forked_off:
            self._show(message, category, filename, lineno, file, line)
            return
        about = (filename, lineno, _module_at(filename, lineno))
        text = str(message)
        try:
            encoded = codec.encode_reply((message, category))
            packed = None if encoded.buffers else encoded.payload
        except Exception:  # noqa: BLE001 - whatever a __reduce__ raises
            packed = None
        # The parent may not know the category.
        base = next(kind for kind in category.__mro__ if kind.__module__ == "builtins")
        self.warned = True
        self._flush()
        self.send(protocol.WARNING, dumps((packed, text, base.__name__, *about), 5))

    def _leave_parent(self) -> None:
        """This is a fork that an item has made."""
        self._forked_off = True
        self.lock = RLock()  # another thread may have had it


class _LockedChannel(SharedMemoryChannel):
    """A worker's channel that several threads send by."""

    output: OutputSender

    def send(self, kind: int, *args: Any, **wishes: Any) -> bool:
        with self.output.lock:
            if self.output.warned:
                self.output.reset_warnings()
            return super().send(kind, *args, **wishes)

    def return_slabs(self, *, hold: bool = False) -> None:
        with self.output.lock:
            super().return_slabs(hold=hold)


class _OutputStream(io.RawIOBase):
    """The raw stream of a worker's ``sys.stdout`` or ``sys.stderr``."""

    def __init__(self, sender: OutputSender, kind: int, number: int) -> None:
        self._sender = sender
        self._kind = kind
        self._number = number
        self.name = ("<stdout>", "<stderr>")[kind]
        self.mode = "w"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """Where programs that an item starts write to."""
        return self._number

    def write(self, data: Any) -> int:
        """Send bytes to the parent; in a fork, write them where the worker would."""
        view = memoryview(data).cast("B")
        if self._sender.send(self._kind, view):
            return view.nbytes
        return os.write(self._number, view)


def _wait_for_room(fd: int) -> None:
    if not hasattr(select, "poll"):
        select.select([], [fd], [])
        return
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()


def _module_at(filename: str, lineno: int) -> str | None:
    """The name of the module whose code is at that line, if it is what runs now."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        if frame.f_lineno == lineno and frame.f_code.co_filename == filename:
            name = frame.f_globals.get("__name__")
            return name if type(name) is str else None
        frame = frame.f_back
    return None
