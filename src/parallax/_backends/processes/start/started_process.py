"""Processes whose start was requested: forked by the zygote, or children of this one.

Guarantees: a process id is signalled only as long as the process has it: the status of a child is
collected under a lock, by whichever thread comes first.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable

from parallax._backends.processes.common import protocol
from parallax._backends.processes.common.process_exit import open_pidfd, wait_for_exit
from parallax._backends.processes.common.process_tree import kill_tree
from parallax._backends.processes.start.attendant import attendant
from parallax._core.light_stdlib import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from parallax._backends.processes.common.heritage import Heritage

#: Seconds between two looks at a child that is about to end, where the system cannot wait for it.
#: Shorter burns CPU, longer delays a shutdown.
EXIT_POLL_S = 0.005


class Inherited(NamedTuple):
    """What a worker has of this process because it is a fork of it."""

    #: its environment, as ``capture_environment`` encodes it.
    context: bytes = b""
    keys: tuple[int, ...] = ()
    #: what it has of the objects of one call.
    heritage: Heritage | None = None


NOTHING = Inherited()


class StartedProcess:
    """A process that a zygote was asked for."""

    #: what it has of this process without being sent it.
    inherits = NOTHING
    #: whether it can be asked for what it has not begun.
    recalls = protocol.RECALL is not None
    #: nothing about it is left to this process; true of a zygote's from the start.
    over = True
    #: whether it can be ended in the middle of an item.
    killable = True

    def __init__(self, name: str, zygote: Any = None) -> None:
        self.name = name
        self.zygote = zygote
        #: known when it is up, at the latest.
        self.pid: int | None = None
        self._code: int | None = None

    @property
    def title(self) -> str:
        return f"worker process {self.pid}"

    def kill(self) -> None:
        """End the process and its descendants at once, if it is known and still there."""
        self._reach(kill_tree)

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it is known and still there."""
        self._reach(lambda pid: os.kill(pid, number))

    def _reach(self, act: Callable[[int], None]) -> None:
        ended = self._code is not None or (self.zygote and self.pid in self.zygote.exits)
        if not ended and self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                act(self.pid)

    def exitcode(self, timeout: float) -> int | None:
        """Exit status, negative for a signal; None if it is not known within ``timeout``."""
        if self._code is None and self.zygote is not None and self.pid is not None:
            self._code = self.zygote.exitcode(self.pid, timeout)
        return self._code

    def up(self, pid: int) -> None:
        """Note the process id that came with the HELLO of the process."""
        self.pid = pid
        if self.zygote is not None:
            self.zygote.proven = True

    def fileno(self) -> int:
        """A descriptor that is readable when a child has ended; -1 without one."""
        return -1

    def look(self) -> None:
        """Collect the exit status of a child that has ended."""

    def close(self) -> None:
        """Close the descriptor; in a forked copy of the parent there is nothing else to do."""

    def gone(self) -> bool:
        """Whether a process that is leaving has ended, or is the zygote's to collect."""
        if self.zygote is not None and self.pid is not None:
            self.zygote.disregard(self.pid)
        return True  # the zygote reaps it


class ChildProcess(StartedProcess):
    def __init__(self, name: str, pid: int, poll: Callable[[], int | None] | None = None) -> None:
        """Take charge of a child, whose status ``poll`` collects if ``subprocess`` started it."""
        super().__init__(name)
        self.pid = pid
        self._poll = poll
        # Another process must not get the process id between a look and a signal.
        self._lock = threading.Lock()
        self.over = False
        # In a list, because an interrupt may come between any two lines.
        self._pidfds: list[int] = []
        with contextlib.suppress(OSError):
            self._pidfds.append(open_pidfd(pid))

    def fileno(self) -> int:
        return self._pidfds[0] if self._pidfds else -1

    def look(self) -> None:
        self.gone()

    def _reach(self, act: Callable[[int], None]) -> None:
        with self._lock:
            if not self.over and self.pid is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    act(self.pid)

    def exitcode(self, timeout: float) -> int | None:
        deadline = time.monotonic() + timeout
        while not self.gone() and (left := deadline - time.monotonic()) > 0:
            assert self.pid is not None
            if wait_for_exit(self.pid, left) is None:
                time.sleep(EXIT_POLL_S)
        return self._code

    def gone(self) -> bool:
        """Whether the child has ended; its status is collected then."""
        with self._lock:
            if not self.over and self._collected():
                self.close()
                self.over = True
                attendant().look_again()
            return self.over

    def _collected(self) -> bool:
        assert self.pid is not None
        if self._poll is not None:
            self._code = self._poll()
            return self._code is not None
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # the program waits for any child, or ignores their end
            return True
        if pid:
            self._code = os.waitstatus_to_exitcode(status)
        return pid != 0

    def close(self) -> None:
        while self._pidfds:
            os.close(self._pidfds.pop())
