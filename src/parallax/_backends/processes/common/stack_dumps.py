"""Stack dumps of workers: when one crashes, and when its parent asks for the stacks.

The interpreter's faulthandler writes them from inside a signal handler, also for a thread that is
in native code and keeps the GIL. The file has no name and belongs to the parent, which can read
it after the worker's end.

Guarantees: reading blocks no longer than its time limit; where a system has no such signals there
are no dumps, and nothing else is different.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from parallax._core.cores import gil_enabled
from parallax._core.lazy_import import faulthandler
from parallax._core.light_stdlib import signals
from parallax._core.own_code import FOLDER
from parallax._shm.segment import Segment

#: Asks a worker for the stacks of its threads. A signal that has no common use: the C library takes
#: the lowest real-time signals, and so do programs that count upwards.
DUMP_SIGNAL: int | None = None
if hasattr(signals, "SIGRTMAX"):
    DUMP_SIGNAL = int(signals.SIGRTMAX) - 3
elif hasattr(signals, "SIGINFO"):
    DUMP_SIGNAL = int(signals.SIGINFO)

#: Most bytes of a dump that are shown: about 200 frames. Fewer cut off the outer frames of deep
#: recursion, more make error messages unreadable.
_MAX_SHOWN_BYTES = 16_384

#: Seconds between two looks whether a dump is complete. It is written frame by frame, so shorter
#: may find a part of one, longer delays the report.
_DUMP_POLL_S = 0.005


#: Begins the lines of frames of parallax.
_OURS = f'File "{FOLDER}'


class StackDump:
    """The parent's side of one worker's dumps."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._seen = 0

    @property
    def handle(self) -> int:
        handle = self._segment.handle
        assert isinstance(handle, int)
        return handle

    def text(self) -> str:
        """What was written since the last call, or the end of it if it is long; "" if nothing."""
        try:
            size = os.fstat(self.handle).st_size
            start = max(self._seen, size - _MAX_SHOWN_BYTES)
            data = os.pread(self.handle, size - start, start)
        except OSError:  # closed by a fork or at the interpreter's end
            return ""
        self._seen = size
        return _without_ours(data.decode("utf-8", "replace"))

    def ask(self, send: Callable[[int], None], timeout: float) -> str:
        """The stacks of all threads of a running worker; "" for a process that is stopped."""
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
        self._segment.close()


def _without_ours(text: str) -> str:
    """A dump without the frames that called the user's function: the outer ones come last."""
    kept: list[str] = []
    ours = False
    for line in text.strip().splitlines():
        frame = line.startswith("  File ")
        ours = frame and (ours or _OURS in line)
        if not ours:
            kept.append(line)
    return "\n".join(kept)


def open_stack_dump(make: Callable[[], Segment]) -> StackDump | None:
    """The parent's side for a new worker; None where there are no dumps."""
    if DUMP_SIGNAL is None:
        return None
    try:
        segment = make()
    except OSError:  # no descriptor is left
        return None
    return StackDump(segment)


def enable_stack_dumps(fd: int) -> None:
    """From now on dump this process's stacks to the file of a descriptor."""
    os.set_inheritable(fd, False)
    try:
        faulthandler.enable(fd)
        if DUMP_SIGNAL is not None:
            # Without a GIL the handler would read stacks that other threads change, and crash.
            faulthandler.register(DUMP_SIGNAL, fd, all_threads=gil_enabled())
    except (OSError, RuntimeError, ValueError):  # no memory for the handler's stack
        return
