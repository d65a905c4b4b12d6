"""Starting worker processes: from the zygote where there is one, else by executing Python.

Guarantees: the caller's process is never forked; starting returns before the worker is up; a
worker's exit status can be asked for afterwards. A module that keeps the zygote from forking is
found out by name, and not imported ahead again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from parallax._backends.processes.common.process_tree import kill_tree
from parallax._backends.processes.start.initializer import Initializer
from parallax._backends.processes.start.spawn import OUTPUT_FDS, execute, import_seconds, output_of
from parallax._core.cores import start_methods
from parallax._core.errors import WorkerStartError, exit_reason
from parallax._shm.segment import Handle

_log = logging.getLogger("parallax")

__all__ = ["StartedProcess", "Starter"]


#: Seconds that a worker may take to say hello. Shorter gives up on a loaded machine, longer makes
#: whoever waits for one that hangs wait longer.
HELLO_TIMEOUT_S = 30.0

#: The same while the zygote imports: base, and per second that it should take. Giving up too early
#: costs an import per worker, so it may be much shorter.
IMPORT_TIMEOUT_S, IMPORT_TIMEOUT_FACTOR = 5.0, 10.0

#: Seconds to wait for what a zygote says of a worker that did not come up. It says so at once.
ZYGOTE_REPORT_S = 0.1

#: Times that the zygote may end while it imports a module, until that is not imported ahead again.
#: More repeat what breaks it, one gives up a module for what somebody else did (a kill).
#: Zygotes that end before they had a worker are also given up after so many.
MAX_BLAMES = 2

#: How often each module kept a zygote of this program from forking.
_blames: dict[str, int] = {}


class StartedProcess:
    """One process that was asked to start, and how to learn of its end."""

    def __init__(self, popen: subprocess.Popen[bytes] | None, zygote: _Zygote | None) -> None:
        self._popen = popen
        self._zygote = zygote
        self._code: int | None = None
        self.pid = popen.pid if popen is not None else None

    def kill(self) -> None:
        """End the process and what it has started, at once, if it is known and still there."""
        self._reach(kill_tree)

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it is known and still there."""
        self._reach(lambda pid: os.kill(pid, number))

    def _reach(self, act: Callable[[int], None]) -> None:
        if self._popen is not None:
            there = self._popen.poll() is None
        else:
            there = self._code is None and (
                self._zygote is None or self.pid not in self._zygote.exits
            )
        if there and self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                act(self.pid)

    @property
    def zygote(self) -> _Zygote | None:
        """What was to fork it, if anything."""
        return self._zygote

    def exitcode(self, timeout: float) -> int | None:
        """Exit status, negative for a signal; None if it is not known within ``timeout``."""
        if self._popen is not None:
            try:
                return self._popen.wait(timeout)
            except subprocess.TimeoutExpired:
                return None
        if self._code is None and self._zygote is not None and self.pid is not None:
            self._code = self._zygote.exitcode(self.pid, timeout)
        return self._code

    def up(self, pid: int) -> None:
        """Note that the process said hello.

        Args:
            pid: its process id.
        """
        self.pid = pid
        if self._zygote is not None:
            self._zygote.proven = True

    def gone(self) -> bool:
        """Whether a process that is leaving needs no more looking after."""
        if self._popen is not None:
            return self._popen.poll() is not None
        if self._zygote is not None and self.pid is not None:
            self._zygote.disregard(self.pid)
        return True  # the zygote reaps it


class Starter:
    """Starts workers by one method. Not thread-safe; the pool's lock guards it."""

    def __init__(self, method: str) -> None:
        """Choose how to start.

        Args:
            method: "zygote", "spawn", or "auto" for the best that this system has.
        """
        self.method = start_methods()[0] if method == "auto" else method
        self._zygote: _Zygote | None = None
        self._retired: list[_Zygote] = []
        #: zygotes that ended without ever having had a worker.
        self._useless = 0

    def prepare(self, modules: set[str]) -> None:
        """Import modules ahead where that helps, in the background."""
        if self.method == "zygote":
            spoiled = {name for name, times in _blames.items() if times >= MAX_BLAMES}
            self._ensure().prepare(modules - spoiled)

    def expected_import(self, modules: Collection[str]) -> float:
        """Seconds that importing modules for workers is still going to take, roughly.

        A package is taken with all its submodules that this process has loaded.
        """
        packages = {name.partition(".")[0] for name in modules}
        if self._zygote is not None:
            packages -= {name.partition(".")[0] for name in self._zygote.imported}
            if not packages:
                since = time.monotonic() - self._zygote.asked
                return max(0.0, self._zygote.cost - since)
        return import_seconds(packages)

    def start(
        self,
        sock: socket.socket,
        segments: Sequence[Handle] = (),
        initializer: Initializer | None = None,
        *,
        load: Sequence[str] = (),
    ) -> StartedProcess:
        """Start a worker on its end of a socket pair; the caller closes its copy afterwards.

        Args:
            sock: the worker's end.
            segments: what it opens the segments by that it receives from, and sends by; or nothing.
            initializer: what it is going to call first.
            load: modules of ours that it will want, and the next ones, too.

        Raises:
            WorkerStartError: the system refused.
        """
        fds = initializer.fds if initializer is not None else ()
        while self.method == "zygote":
            zygote = self._ensure()
            try:
                zygote.load(load)
                zygote.fork(sock, segments, fds)
            except ConnectionError:  # it is gone
                self._bury(zygote)
            else:
                return StartedProcess(None, zygote)
        return StartedProcess(execute("worker", sock, segments, fds), None)

    def deadline(self, started: StartedProcess, born: float) -> float:
        """When a worker that is not up by then is given up, on the monotonic clock.

        Args:
            started: the worker.
            born: when it was asked for.
        """
        zygote = started.zygote
        if zygote is not None and zygote is self._zygote:
            zygote.listen(0)
            due = max(born, zygote.asked) + IMPORT_TIMEOUT_S + IMPORT_TIMEOUT_FACTOR * zygote.cost
            # One that has not come as far as to import is a slow starter.
            if zygote.imports and (zygote.importing or time.monotonic() < due):
                return due
        return born + HELLO_TIMEOUT_S

    def trouble(self, started: StartedProcess | None, *, late: bool = False) -> tuple[str, bool]:
        """Why a worker did not come up, as far as that is known, and whether to try again.

        A zygote that found itself threaded, or hangs in an import, cannot fork any more. It stays
        for the sake of the workers that it has; the next one leaves out what is to blame.

        Args:
            started: the worker; None for any.
            late: it did not end, it took too long.
        """
        zygote = self._zygote if started is None else started.zygote
        if zygote is None:
            return "", False
        # A worker's socket may be seen to close a moment before its zygote's.
        zygote.listen(0 if late or zygote.complaints else ZYGOTE_REPORT_S)
        if zygote is not self._zygote:  # another worker's trouble had it replaced
            return zygote.verdict, zygote.replaced
        if zygote.threaded:
            culprits, times = set(zygote.suspects) or zygote.imported, MAX_BLAMES
            did = f"{_named(zygote.suspects)} started threads ({zygote.threaded} in all)"
        elif zygote.gone or (late and zygote.importing):
            culprits, times = {zygote.importing} - {""}, 1
            did = f"importing {zygote.importing} ahead "
            did += "took too long" if late else f"broke it: {zygote.end()}"
        else:
            words = "; ".join(zygote.complaints)
            zygote.complaints.clear()
            return words, False
        if zygote.gone and not culprits:
            return self._drop(zygote)
        self._zygote = None
        zygote.stuck = late
        if not zygote.gone:
            self._retired.append(zygote)
        for name in culprits:
            _blames[name] = _blames.get(name, 0) + times
        if culprits:
            with contextlib.suppress(WorkerStartError, OSError):  # told when a worker is asked for
                self._ensure().prepare(zygote.imported - culprits)
        else:
            self.method = "spawn"
        if zygote.gone:
            zygote.close()
        zygote.verdict, zygote.replaced = did, True
        _log.warning("parallax: %s; starting workers another way", did)
        return did, True

    def close(self) -> None:
        """End the zygote and, with it, workers that are still there."""
        for zygote in self._zygotes():
            zygote.close()
        self._zygote, self._retired = None, []

    def forget(self) -> None:
        """Drop the zygote without ending it: this process is a forked copy of its parent."""
        for zygote in self._zygotes():
            zygote.forget()
        self._zygote, self._retired = None, []

    def resources(self) -> tuple[set[int], set[int]]:
        """Process ids and descriptors that are held between runs."""
        zygotes = self._zygotes()
        return {z.pid for z in zygotes}, {z.control.fileno() for z in zygotes}

    def _zygotes(self) -> list[_Zygote]:
        return [*self._retired, *([self._zygote] if self._zygote is not None else [])]

    def _ensure(self) -> _Zygote:
        zygote = self._zygote
        if zygote is not None:
            zygote.listen(0)  # what it says piles up otherwise
            if zygote.gone:
                self._bury(zygote)
        if self._zygote is None:
            self._zygote = _Zygote()
        return self._zygote

    def _bury(self, zygote: _Zygote) -> None:
        """Let go of a zygote that ended."""
        zygote.gone = True
        if zygote.importing:
            self.trouble(None)
        else:
            self._drop(zygote)

    def _drop(self, zygote: _Zygote) -> tuple[str, bool]:
        """Let go of a zygote that ended, nobody knows why; see ``trouble``.

        The second one to do so before it had a worker is the last: it does not work here.
        """
        self._zygote = None
        zygote.verdict = f"the process that forks workers ended: {zygote.end()}"
        zygote.close()
        zygote.replaced = True
        self._useless += not zygote.proven
        if self._useless >= MAX_BLAMES and self.method == "zygote":
            self.method = "spawn"
            _log.warning("parallax: %s; starting workers another way", zygote.verdict)
        return zygote.verdict, zygote.replaced


class _Zygote:
    """The parent's end of the zygote."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._popen = execute("zygote", theirs)
        except BaseException:
            self.control.close()
            raise
        finally:
            theirs.close()
        self.pid = self._popen.pid
        self.imported: set[str] = set()
        #: when modules were last asked for, and the seconds that they were expected to take.
        self.asked = time.monotonic()
        self.cost = 0.0
        self.exits: dict[int, int] = {}
        self.complaints: list[str] = []
        #: threads that it had when it was to fork, and the modules that started them.
        self.threaded = 0
        self.suspects: list[str] = []
        #: lists of modules that it was asked to import and is not through with.
        self.imports = 0
        #: the module that it is importing, "" between imports.
        self.importing = ""
        #: a worker of its came up.
        self.proven = False
        #: it closed its end; it hangs.
        self.gone = False
        self.stuck = False
        #: what it was given up for; another one, or another way, may do better.
        self.verdict = ""
        self.replaced = False
        self._ignored: set[int] = set()

    def prepare(self, modules: set[str]) -> None:
        # In the order in which this process imported them: a package's own order is the safe one.
        fresh = [m for m in list(sys.modules) if m in modules and m not in self.imported]
        if fresh:
            self.asked = time.monotonic()
            self.cost = import_seconds({name.partition(".")[0] for name in fresh})
            self.load(fresh)

    def load(self, modules: Sequence[str]) -> None:
        fresh = [name for name in modules if name not in self.imported]
        if fresh:
            self.imported.update(fresh)
            self.imports += 1
            self._say(("import", [list(sys.path), *fresh]))

    def fork(self, sock: socket.socket, segments: Sequence[Handle], given: Sequence[int]) -> None:
        numbers = [number for number in OUTPUT_FDS if output_of(number) is not None]
        message = pickle.dumps(("fork", (numbers, len(segments), len(given))))
        fds = [sock.fileno(), *(fd for fd in segments if isinstance(fd, int)), *given, *numbers]
        socket.send_fds(self.control, [message], fds)

    def _say(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # a dead zygote is noticed when it is to fork
            self.control.send(pickle.dumps(message))

    def listen(self, timeout: float) -> bool:
        """Take the messages that there are; wait ``timeout`` seconds for the first one."""
        if self.control.fileno() < 0:
            return False  # closed at the interpreter's exit, before the last run
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        heard = False
        while not self.gone and poll.poll(0 if heard else timeout * 1000):
            try:
                data = self.control.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return heard
            except ConnectionResetError:
                continue  # it ended with words of ours unread; its own come next
            except OSError:
                data = b""
            if data:
                self._hear(*pickle.loads(data))
            else:
                self.gone = True
            heard = True
        return heard

    def _hear(self, kind: str, *rest: Any) -> None:
        if kind == "exit":
            if rest[0] in self._ignored:
                self._ignored.remove(rest[0])
            else:
                self.exits[rest[0]] = rest[1]
        elif kind == "importing":
            self.importing = rest[0]
            self.imports -= not self.importing
        elif kind == "threads":
            self.threaded, self.suspects = rest
        else:
            self.complaints.append(str(rest[0]))

    def exitcode(self, pid: int, timeout: float) -> int | None:
        """Exit status of a worker, told once: its process id may be used again."""
        deadline = time.monotonic() + timeout
        while pid not in self.exits:
            left = deadline - time.monotonic()
            if left < 0 or not self.listen(left):
                break
        return self.exits.pop(pid, None)

    def disregard(self, pid: int) -> None:
        """Do not keep the exit status of a worker."""
        if self.exits.pop(pid, None) is None:
            self._ignored.add(pid)

    def end(self) -> str:
        """How it ended, in words."""
        try:
            status = self._popen.wait(1.0)
        except subprocess.TimeoutExpired:
            return "it closed its connection"
        return exit_reason(status, at_work=False)

    def close(self) -> None:
        self.listen(0)
        self.control.close()
        if self.stuck or self.imports > 0:
            # It would see the end of its socket after that import. It has no worker that was not
            # told to leave or killed by now.
            self._popen.kill()
        try:
            self._popen.wait(2.0)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def forget(self) -> None:
        self.control.close()
        self._popen.returncode = 0  # not our child: never wait for it, never warn about it


def _named(modules: list[str]) -> str:
    return f"importing {', '.join(modules)} ahead" if modules else "a module imported ahead"
