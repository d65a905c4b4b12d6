"""A thread that notices which processes have ended while no call is there to see it.

Between calls nobody reads the sockets of idle workers, and a child that has ended is a zombie until
its status is collected. This thread sleeps until the system says that one has ended.

Guarantees: there is no such thread as long as there is nothing to watch, nor during a fork, and it
holds up no exit; no handler of a signal is set, and nobody else's child is waited for.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from _thread import RLock, allocate_lock, start_new_thread
from collections.abc import Callable

from parallax._core.fork_pauses import pause_at_forks
from parallax._core.light_stdlib import Protocol
from parallax._core.thread_clocks import native_id


class Attended(Protocol):
    """What has a descriptor that is readable when there is something to look after."""

    @property
    def over(self) -> bool:
        """Whether there is nothing to look after any more."""

    def fileno(self) -> int:
        """The descriptor; -1 for none."""


#: Seconds between two looks where the system cannot tell, or has no descriptor left for it. Longer
#: leaves zombies longer, shorter wakes the program more often.
LOOK_INTERVAL_S = 0.2

#: Seconds after each end, for others to end as well: then all are looked after at once.
GATHER_S = 0.005


class Attendant:
    """The thread, and what it watches. Thread-safe."""

    def __init__(self) -> None:
        self._lock = RLock()  # reentrant: the handler of a signal may make a call
        self._watched: dict[Attended, Callable[[], object]] = {}
        #: what ends the thread's sleep: one descriptor, or two of a pipe, or none.
        self._wake: tuple[int, ...] = ()
        self._started = self._paused = False
        #: held from before the start of the thread to its end.
        self.running = allocate_lock()
        self.native_id: int | None = 0

    def watch(self, watched: Attended, tidy: Callable[[], object]) -> None:
        """Call a function whenever there is something to look after, until it is over."""
        with self._lock:
            if not watched.over and watched not in self._watched:
                self._watched[watched] = tidy
                self._paused = False
                self._start() if not self._started else self._ring()

    def look_again(self) -> None:
        """Something is over, and its descriptor closed: another file may get the number."""
        with self._lock:
            self._ring()

    def _start(self) -> None:
        if self._paused or not hasattr(select, "poll"):
            return
        with contextlib.suppress(OSError):  # no descriptor is left
            self._wake = _open_wake()
        pause_at_forks(self)
        self.running.acquire()  # one that ends holds it no longer than it takes to return
        try:
            # Not threading.Thread, whose start waits for the new thread.
            start_new_thread(self._run, ())
        except RuntimeError:  # no more threads, or the interpreter is ending
            self.running.release()
            self._close()
        else:
            self._started = True

    def _ring(self) -> None:
        if self._wake:
            with contextlib.suppress(OSError):
                os.write(self._wake[-1], (1).to_bytes(8, "little"))

    def _close(self) -> None:
        wake, self._wake = self._wake, ()
        for fd in wake:
            os.close(fd)

    def _run(self) -> None:
        self.native_id = native_id()
        try:
            while watched := self._left():
                tidy = self._wait(watched)
                for each in tidy:
                    each()
                if tidy:
                    time.sleep(GATHER_S)
        finally:
            self.running.release()

    def _left(self) -> dict[Attended, Callable[[], object]]:
        """What is to be watched; with nothing the thread ends."""
        with self._lock:
            for watched in [each for each in self._watched if each.over]:
                del self._watched[watched]
            if self._watched and not self._paused:
                return dict(self._watched)
            self._started = False
            self._close()
            return {}

    def _wait(self, watched: dict[Attended, Callable[[], object]]) -> set[Callable[[], object]]:
        if not hasattr(select, "poll"):  # a library may remove it
            time.sleep(LOOK_INTERVAL_S)
            return set(watched.values())
        poll = select.poll()
        wake = self._wake
        for fd in wake[:1]:
            poll.register(fd, select.POLLIN)
        by_fd = {}
        tidy = set()
        for each, act in watched.items():
            if (fd := each.fileno()) >= 0:
                by_fd[fd] = act
                poll.register(fd, select.POLLIN)
            else:
                tidy.add(act)
        for fd, _ in poll.poll(LOOK_INTERVAL_S * 1000 if tidy or not wake else None):
            if fd in by_fd:
                tidy.add(by_fd[fd])
            else:
                os.read(fd, 8)
        return tidy

    def pause(self) -> None:
        """End the thread, before a fork."""
        with self._lock:
            self._paused = True
            self._ring()

    def resume(self) -> None:
        """Start it again, after a fork."""
        with self._lock:
            self._paused = False
            if self._watched and not self._started:
                self._start()


def _open_wake() -> tuple[int, ...]:
    return (os.eventfd(0, os.EFD_CLOEXEC),) if hasattr(os, "eventfd") else os.pipe()


def attendant() -> Attendant:
    return _attendant


def _start_afresh() -> None:
    global _attendant  # noqa: PLW0603 - the parent's locks may be held by threads that are gone
    _attendant._close()
    _attendant = Attendant()


_attendant = Attendant()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
