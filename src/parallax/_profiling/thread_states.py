"""What other threads do at one moment, seen by a thread that holds the GIL and keeps it meanwhile.

Linux tells for each thread in which system call it waits, and at which address. A thread that waits
for the GIL waits at the address of the GIL's condition variable, which `ThreadStates` learns by
having a thread of its own wait for it.

Guarantees: nothing here lets go of the GIL, except `ThreadStates()` itself, or leaves a file open;
what a system does not tell is `UNKNOWN`.
"""

from __future__ import annotations

import _thread
import sys
import threading
import time

from parallax._core.cores import gil_enabled
from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._core.thread_clocks import native_id

if TYPE_CHECKING:
    from collections.abc import Callable

#: On a core, or ready for one; waiting for the GIL; waiting for anything else.
RUNNING, FOR_GIL, FOR_OTHER, UNKNOWN = "running", "gil", "other", "unknown"

_O_CLOEXEC = 0o2000000
#: Of the number of a clock, which else is made of the thread's: CPU time of one thread.
_OF_THREAD = 6
#: The GIL's two condition variables and their mutexes are this close to each other. One is for who
#: wants it; who is made to give it up waits at the other until somebody has taken it.
_GIL_BYTES = 160
#: Seconds that a thread which wants the GIL is looked for. It gets it by force after 5 ms.
_LEARN_S = 0.004
_LEARN_TRIES = 20


def keep_reading() -> Callable[[str], bytes] | None:
    """A function that reads a small file without letting go of the GIL; None: not here."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        library = ctypes.PyDLL(None)
        opens, reads, closes = library.open, library.read, library.close
    except (ImportError, OSError, AttributeError):
        return None
    reads.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    buffer = ctypes.create_string_buffer(1024)
    address = ctypes.addressof(buffer)

    def read(path: str) -> bytes:
        # Left open, the files would shift the numbers of those that the program opens.
        file = opens(path.encode(), _O_CLOEXEC)
        if file < 0:
            return b""
        count = reads(file, address, 1024)
        closes(file)
        return buffer.raw[: max(0, count)]

    return read


def clock_of(ident: int) -> tuple[int, int] | None:
    """The CPU clock and the kernel's number of a thread that runs Python; None: not told."""
    get_clock: Callable[[int], int] | None = getattr(time, "pthread_getcpuclockid", None)
    if get_clock is None or sys.platform != "linux":
        return None
    if not gil_enabled():  # it may end now, and the C library crashes on one that has ended
        thread = threading._active.get(ident)  # type: ignore[attr-defined]
        number = getattr(thread, "native_id", None)
        return None if number is None else (~number << 3 | _OF_THREAD, number)
    try:
        clock = get_clock(ident)
    except OSError:
        return None
    return clock, ~(clock >> 3)


class ThreadStates:
    """Looks at threads by their kernel's number."""

    def __init__(self) -> None:
        self._read = keep_reading()
        #: system call and address at which threads wait for the GIL.
        self._gil_wait: tuple[bytes, int] | None = None
        self.told = bool(self._syscall(native_id()))
        if self.told and gil_enabled():
            for _ in range(_LEARN_TRIES):
                self._gil_wait = self._learn()
                if self._gil_wait:
                    break
            self.told = self._gil_wait is not None

    def look(self, thread: int) -> str:
        """RUNNING, FOR_GIL, FOR_OTHER, or UNKNOWN."""
        if not self.told:
            return UNKNOWN
        fields = self._syscall(thread)
        if not fields:
            return UNKNOWN
        if fields[0] == b"running":
            return RUNNING
        learned, place = self._gil_wait, _place(fields)
        if learned is None or place is None or place[0] != learned[0]:
            return FOR_OTHER
        return FOR_GIL if abs(place[1] - learned[1]) <= _GIL_BYTES else FOR_OTHER

    def _syscall(self, thread: int | None) -> list[bytes]:
        if self._read is None:
            return []
        return self._read(f"/proc/self/task/{thread}/syscall").split()

    def _learn(self) -> tuple[bytes, int] | None:
        """Where a thread waits after it was let out of a lock while this one kept the GIL."""
        lock, threads = _thread.allocate_lock(), []
        lock.acquire()

        def want() -> None:
            threads.append(native_id())
            lock.acquire()
            lock.release()

        try:
            _thread.start_new_thread(want, ())
            at_lock: list[bytes] = []
            for _ in range(100):
                time.sleep(0.0002)
                at_lock = self._syscall(threads[0]) if threads else []
                if len(at_lock) > 1:
                    break
        finally:
            lock.release()
        until = time.perf_counter() + _LEARN_S
        while time.perf_counter() < until:
            fields = self._syscall(threads[0]) if threads else []
            if len(fields) > 1 and len(at_lock) > 1 and fields[1] != at_lock[1]:
                return _place(fields)
        return None


def _place(fields: list[bytes]) -> tuple[bytes, int] | None:
    """System call and address."""
    return None if len(fields) < 2 else (fields[0], int(fields[1], 16))
