"""Workers in interpreters of this process (Python 3.14 and later), each in a thread of its own.

Interpreters share no objects, and none waits for another's GIL. But nothing ends one inside native
code, and a crash is the program's.

Guarantees: starting returns before the interpreter exists; an interpreter that has ended is closed.
When the socket of one that is inside an item is closed, an exception ends the item, at its next
line of Python; nobody waits for that but a fork and the exit of the program. CPython crashes in a
fork beside other interpreters (python/cpython gh-139759), and now and then at an exit.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Collection, Sequence
from concurrent import interpreters  # type: ignore[attr-defined]

from parallax._backends.processes.start.initializer import Initializer
from parallax._backends.processes.start.started_process import StartedProcess
from parallax._backends.processes.start.starter import HELLO_TIMEOUT_S, Starter
from parallax._core.lazy_import import errors
from parallax._core.light_stdlib import sockets
from parallax._shm.segment import Handle

#: Seconds to import the worker's modules in a fresh interpreter, roughly.
INTERPRETER_START_S = 0.06

#: Seconds that a fork waits for items. Shorter crashes the new process, longer keeps the program
#: waiting.
MAX_FORK_DELAY_S = 60.0

#: held while an interpreter is started, and while this process forks.
_gate = threading.RLock()
_living: set[StartedInterpreter] = set()

_ENTRY_MODULE = "parallax._backends.processes.worker.interpreter"


class StartedInterpreter(StartedProcess):
    killable = recalls = False  # no signal reaches it

    def __init__(self, fd: int, segments: list[Handle], initializer_fds: list[int]) -> None:
        super().__init__("parallax-interpreter")
        #: descriptors that belong to the worker, as long as it is there.
        self.fds = [fd, *(each for each in (*segments, *initializer_fds) if isinstance(each, int))]
        #: why it did not come up.
        self.trouble = ""
        self._came_up = self._abandoned = False
        self._number = 0
        self.thread = threading.Thread(
            target=self._live,
            args=(fd, segments, initializer_fds),
            name="parallax-pool-interpreter",
            daemon=True,
        )
        with _gate:
            self.thread.start()
            _living.difference_update([each for each in _living if each.gone()])
            _living.add(self)

    @property
    def title(self) -> str:
        return f"interpreter {self._number}"

    def kill(self) -> None:
        """Wait no more for the end of its item, of which nobody knows when it comes."""
        self._abandoned = self._came_up

    def signal(self, number: int) -> None:
        """No signal reaches it."""

    def exitcode(self, timeout: float) -> int | None:
        self.thread.join(0.0 if self._abandoned else timeout)
        return None if self.thread.is_alive() else 0

    def leave(self, how: int) -> None:
        """Have it end: after what it is at (``SHUT_RD``), or as if its socket were closed."""
        # Or it has ended meanwhile.
        with (
            contextlib.suppress(OSError, IndexError),
            socket.socket(fileno=os.dup(self.fds[0])) as sock,
        ):
            sock.shutdown(how)

    def up(self, pid: int) -> None:  # noqa: ARG002 - see StartedProcess
        """Its process id is that of this process, which nobody may signal for it."""
        self._came_up = True

    def gone(self) -> bool:
        return not self.thread.is_alive()

    def _live(self, fd: int, segments: list[Handle], initializer_fds: list[int]) -> None:
        taken = False
        try:
            with contextlib.closing(interpreters.create()) as interpreter:
                self._number = interpreter.id
                interpreter.exec(f"import sys; sys.path[:] = {sys.path!r}; import {_ENTRY_MODULE}")
                taken = True
                try:
                    interpreter.exec(
                        f"{_ENTRY_MODULE}.main({fd}, {segments!r}, {initializer_fds!r})"
                    )
                finally:
                    self.fds = []
        except Exception as error:  # noqa: BLE001 - told by whoever misses the worker
            self.trouble = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        finally:
            if not taken:
                for each in self.fds:
                    os.close(each)
                self.fds = []
            _living.discard(self)


class InterpreterStarter(Starter):
    """Starts workers in interpreters. Not thread-safe; the pool's lock guards it."""

    processes = False

    def __init__(self, spare: str) -> None:
        super().__init__("interpreters")
        self.spare = spare
        self._started: list[StartedInterpreter] = []

    def expected_import(self, modules: Collection[str]) -> float:  # noqa: ARG002 - see Starter
        return INTERPRETER_START_S

    def start(
        self,
        sock: socket.socket,
        segments: Sequence[Handle] = (),
        initializer: Initializer | None = None,
        *,
        load: Sequence[str] = (),  # noqa: ARG002 - the parameter of what this overrides
    ) -> StartedProcess:
        copies: list[Handle] = []
        fds: list[int] = []
        try:
            copies += (os.dup(each) if isinstance(each, int) else each for each in segments)
            fds += map(os.dup, initializer.fds if initializer is not None else ())
            started = StartedInterpreter(sockets.dup(sock.fileno()), copies, fds)
        except (OSError, RuntimeError) as error:  # the latter if there can be no other thread
            for each in (*copies, *fds):
                if isinstance(each, int):
                    os.close(each)
            raise errors.WorkerStartError(self.method, str(error)) from error
        self._started = [*(each for each in self._started if not each.gone()), started]
        return started

    def deadline(self, started: StartedProcess, born: float) -> float:  # noqa: ARG002 - see Starter
        return born + HELLO_TIMEOUT_S

    def trouble(self, started: StartedProcess | None, *, late: bool = False) -> tuple[str, bool]:  # noqa: ARG002 - see Starter
        words = started.trouble if isinstance(started, StartedInterpreter) else ""
        return words, False

    def forget(self) -> None:
        """Close what belongs to interpreters: this process is a fork, in which they are not."""
        for started in self._started:
            for fd in started.fds:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._started = []


def _await_ends() -> None:
    """The program exits; executors have ended by now."""
    living = list(_living)
    for started in living:
        started.leave(socket.SHUT_RDWR)
    for started in living:
        started.thread.join()


def _before_fork() -> None:
    _gate.acquire()
    living, deadline = list(_living), time.monotonic() + MAX_FORK_DELAY_S
    for started in living:
        started.leave(socket.SHUT_RD)
    for started in living:
        started.thread.join(max(0.0, deadline - time.monotonic()))


def _after_fork() -> None:
    global _gate  # noqa: PLW0603 - another thread may have had it
    _gate = threading.RLock()
    _living.clear()


atexit.register(_await_ends)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_gate.release, after_in_child=_after_fork
    )
