"""Where a worker's stacks are written to: when it crashes, and when its parent asks.

The interpreter's faulthandler writes them from inside a signal handler, so a thread is seen that is
in native code and keeps the GIL. The file has no name and belongs to the parent, which can read
what a worker wrote that is gone.

Guarantees: reading never blocks for longer than it was told to; where a system has no such signals
there are no traces, and nothing else is different.
"""

from __future__ import annotations

import faulthandler
import os
import time

from parallax._core.light_stdlib import signals
from parallax._core.own_code import FOLDER

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable

    from parallax._shm.segment import Segment

__all__ = ["DUMP_SIGNAL", "StackDump", "enable_stack_dumps", "open_stack_dump"]

#: Asks a worker for the stacks of its threads. One that nobody uses by name: the C library takes
#: the lowest real-time signals, programs that count take them from there.
DUMP_SIGNAL: int | None = None
if hasattr(signals, "SIGRTMAX"):
    DUMP_SIGNAL = int(signals.SIGRTMAX) - 3
elif hasattr(signals, "SIGINFO"):
    DUMP_SIGNAL = int(signals.SIGINFO)

#: Bytes of a trace that are shown: about 200 frames.
_MAX_SHOWN_BYTES = 16_384

#: Seconds between two looks whether it is complete: it is written frame by frame.
_DUMP_POLL_S = 0.005


#: In the lines of frames of our own.
_OURS = f'File "{FOLDER}'


class StackDump:
    """The parent's side of one worker's traces.

    Args:
        segment: the file.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._seen = 0

    @property
    def handle(self) -> int:
        """Its descriptor, for the worker."""
        handle = self._segment.handle
        assert isinstance(handle, int)
        return handle

    def text(self) -> str:
        """What was written since the last look, "" if nothing; its end if that is long."""
        try:
            size = os.fstat(self.handle).st_size
            start = max(self._seen, size - _MAX_SHOWN_BYTES)
            data = os.pread(self.handle, size - start, start)
        except OSError:  # closed by a fork or at the interpreter's end
            return ""
        self._seen = size
        return _without_ours(data.decode("utf-8", "replace"))

    def ask(self, send: Callable[[int], None], timeout: float) -> str:
        """The stacks of all threads of a worker that runs.

        Args:
            send: sends it a signal.
            timeout: seconds to wait at most. A process that is stopped says nothing.
        """
        if DUMP_SIGNAL is None:
            return ""
        self.text()
        send(DUMP_SIGNAL)
        deadline = time.monotonic() + timeout
        found = ""
        while time.monotonic() < deadline:
            time.sleep(_DUMP_POLL_S)
            more = self.text()
            if found and not more:
                break
            found += f"\n{more}" if found and more else more
        return found

    def close(self) -> None:
        """Let go of the file."""
        self._segment.close()


def _without_ours(text: str) -> str:
    """A trace without the frames that called the user's function: the outer ones come last."""
    kept: list[str] = []
    ours = False
    for line in text.strip().splitlines():
        frame = line.startswith("  File ")
        ours = frame and (ours or _OURS in line)
        if not ours:
            kept.append(line)
    return "\n".join(kept)


def open_stack_dump(make: Callable[[], Segment]) -> StackDump | None:
    """The parent's side for a new worker; None where there can be none.

    Args:
        make: makes a file without a name.
    """
    if DUMP_SIGNAL is None:
        return None
    try:
        segment = make()
    except OSError:  # no descriptor is left: it works without
        return None
    return StackDump(segment)


def enable_stack_dumps(fd: int) -> None:
    """From now on write this process's stacks to a file: at a crash, and when asked.

    Args:
        fd: its descriptor.
    """
    os.set_inheritable(fd, False)
    try:
        faulthandler.enable(fd)
        if DUMP_SIGNAL is not None:
            faulthandler.register(DUMP_SIGNAL, fd)
    except (OSError, RuntimeError, ValueError):  # no memory for the handler's stack
        return
