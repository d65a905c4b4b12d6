"""Clocks of threads: CPU seconds of another one, and seconds without a core.

Guarantees: nothing raises; what a platform cannot tell is None, or 0.
"""

from __future__ import annotations

import _thread
import os
import sys
import time
from collections.abc import Callable

from parallax._core.current_frames import thread_idents
from parallax._core.light_stdlib import NamedTuple

# GetThreadTimes moves with the scheduler's tick, though Windows reports a resolution of 100 ns.
_WINDOWS_TICK_S = 0.015625

#: Steps of a CPU clock that a time must have for the clock to tell computing from waiting. Fewer
#: take a calculation for a wait that no step happened to fall into, more learn late.
MIN_TICKS = 10


def native_id() -> int | None:
    """The kernel's number of this thread; None on systems that number none."""
    numbered = getattr(_thread, "get_native_id", None)
    return None if numbered is None else int(numbered())


class ClockedThread(NamedTuple):
    """A thread, and the seconds that it had worked, and waited for a core, at some moment."""

    ident: int
    native_id: int | None = None
    cpu: float = 0.0
    delay: float = 0.0

    @classmethod
    def current(cls) -> ClockedThread:
        number = native_id()
        return cls(_thread.get_ident(), number, time.thread_time(), thread_delay(number))


def thread_cpu_clock(ident: int) -> Callable[[], float] | None:
    """A clock of the CPU seconds that another thread of this process has used.

    After that thread has ended the clock stands still. None where the platform cannot tell (macOS,
    Windows) or no thread of that ``Thread.ident`` is running.
    """
    get_clock: Callable[[int], int] | None = getattr(time, "pthread_getcpuclockid", None)
    # The C library crashes on the ident of a thread that has ended, so ask the interpreter first.
    if get_clock is None or ident not in thread_idents():
        return None
    try:
        clock = get_clock(ident)
        last = time.clock_gettime(clock)
    except OSError:
        return None

    def read() -> float:
        nonlocal last
        try:
            last = time.clock_gettime(clock)
        except OSError:
            pass
        return last

    return read


def thread_delay(native_id: int | None) -> float:
    """Seconds that a thread of this process could run and got no core; 0 if not known."""
    delay = RunDelay(f"/proc/self/task/{native_id}/schedstat")
    try:
        return delay()
    finally:
        delay.close()


class RunDelay:
    """Seconds that this thread was able to run and got no core, for another thread to read too.

    Without it, work on a loaded machine looks like waiting: in both the CPU clock stands still.
    Linux only; elsewhere it reads 0.
    """

    def __init__(self, path: str = "/proc/thread-self/schedstat") -> None:
        # In a list, because an interrupt may come between any two lines.
        self._fds: list[int] = []
        try:
            self._fds.append(os.open(path, os.O_RDONLY))
        except OSError:
            pass

    def __call__(self) -> float:
        try:
            (fd,) = self._fds  # first: where there is no such file, there may be no pread
            return int(os.pread(fd, 100, 0).split()[1]) * 1e-9
        except (OSError, IndexError, ValueError):
            return 0.0

    def close(self) -> None:
        """Give the descriptor back; idempotent."""
        while self._fds:
            os.close(self._fds.pop())

    def __del__(self) -> None:
        self.close()  # an interrupt may come before anybody has it


def clock_tick() -> float:
    """The step, in seconds, in which ``time.thread_time`` moves; shorter spans mean nothing."""
    try:
        resolution = time.get_clock_info("thread_time").resolution
    except ValueError:
        resolution = _WINDOWS_TICK_S
    return max(resolution, _WINDOWS_TICK_S) if sys.platform == "win32" else resolution
