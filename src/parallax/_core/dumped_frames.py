"""What stands for the frames of all threads on the free-threaded build of 3.13.

There the interpreter crashes when frames of threads that run are read (gh-152355, mended in 3.14
only): ``f_back`` makes frame objects of memory that the thread is about to leave. So stacks are
read from a dump of faulthandler's, for which all threads stop (since 3.13.2, gh-128400).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from types import FrameType

from parallax._core.cores import gil_enabled
from parallax._core.lazy_import import faulthandler
from parallax._core.light_stdlib import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from typing import IO

#: A dump ends with this at a thread that has just been made and does not run yet; the threads that
#: were made before it are left out. How often it is tried again, after so many seconds.
CUT_SHORT = "<freed thread state>"
DUMP_TRIES, DUMP_POLL_S = 20, 0.0005


class DumpedCode(NamedTuple):
    """A function, and the first line of it that was seen."""

    co_filename: str
    co_name: str
    co_firstlineno: int


class DumpedFrame(NamedTuple):
    """A frame, without its variables."""

    f_code: DumpedCode
    f_lineno: int
    f_back: DumpedFrame | None


_codes: dict[tuple[str, str], DumpedCode] = {}


def dumped_frames() -> dict[int, FrameType]:
    """Frames of at most 100 threads, the innermost 100 of each."""
    if gil_enabled():
        return sys._current_frames()
    for _ in range(DUMP_TRIES):
        with _file() as file:
            faulthandler.dump_traceback(file.fileno())
            file.seek(0)
            dump = file.read().decode(errors="replace")
        if CUT_SHORT not in dump:
            break
        time.sleep(DUMP_POLL_S)
    return parsed(dump)


def _file() -> IO[bytes]:
    # No pipe, which nobody would read while all threads stop; and tempfile sets its ``tempdir``.
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("parallax-stacks"), "w+b")
    return tempfile.NamedTemporaryFile()


def parsed(dump: str) -> dict[int, Any]:
    """The innermost frames in a dump, by the identifiers of threads."""
    frames: dict[int, DumpedFrame] = {}
    frame = None
    for line in reversed(dump.splitlines()):  # the outermost frame of a thread comes last
        if line.startswith('  File "'):
            name, _, rest = line[8:].rpartition('", line ')
            number, _, function = rest.partition(" in ")
            code = DumpedCode(name, function, int(number))
            code = _codes.setdefault(code[:2], code)
            frame = DumpedFrame(code, int(number), frame)
        elif "hread 0x" in line:  # "Thread" or "Current thread"
            if frame is not None:
                frames[int(line.partition("hread ")[2].split()[0], 16)] = frame
            frame = None
    return frames
