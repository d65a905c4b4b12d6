"""Starting worker processes: from the zygote where there is one, else by executing Python.

Guarantees: the caller's process is never forked; starting returns before the worker is up; a
worker's exit status can be asked for afterwards.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from typing import Any

from ..._errors import WorkerStartError
from ..._machine import start_methods
from . import protocol

_log = logging.getLogger("parallax")

__all__ = ["Started", "Starter", "installed"]


#: Seconds to import one module, in the mean over large packages.
MODULE = 0.0005


class Started:
    """One process that was asked to start, and how to learn of its end."""

    def __init__(self, popen: subprocess.Popen[bytes] | None, zygote: _Zygote | None) -> None:
        self._popen = popen
        self._zygote = zygote
        self.pid = popen.pid if popen is not None else None

    def kill(self) -> None:
        """End the process at once, if it is known and still there."""
        if self._popen is not None:
            self._popen.kill()
        elif self.pid is not None and (self._zygote is None or self.pid not in self._zygote.exits):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

    def exitcode(self, timeout: float) -> int | None:
        """Exit status, negative for a signal; None if it is not known within ``timeout``."""
        if self._popen is not None:
            try:
                return self._popen.wait(timeout)
            except subprocess.TimeoutExpired:
                return None
        if self._zygote is None or self.pid is None:
            return None
        return self._zygote.exitcode(self.pid, timeout)


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
        self._spoiled: set[str] = set()

    def prepare(self, modules: set[str]) -> None:
        """Import modules ahead where that helps, in the background."""
        if self.method == "zygote":
            self._ensure().prepare(modules - self._spoiled)

    def expected_import(self, modules: set[str]) -> float:
        """Seconds that importing modules for workers is still going to take, roughly.

        A package is taken with all its submodules that this process has loaded.
        """
        packages = {name.partition(".")[0] for name in modules}
        if self._zygote is not None:
            packages -= {name.partition(".")[0] for name in self._zygote.imported}
            if not packages:
                since = time.monotonic() - self._zygote.asked
                return max(0.0, self._zygote.cost - since)
        return _import_seconds(packages)

    def start(self, sock: socket.socket) -> Started:
        """Start a worker on its end of a socket pair; the caller closes its copy afterwards.

        Raises:
            WorkerStartError: the system refused.
        """
        if self.method == "zygote":
            zygote = self._ensure()
            try:
                zygote.fork(sock)
            except OSError:  # it is gone, and its workers with it
                zygote.close()
                self._zygote = None
                zygote = self._ensure()
                zygote.fork(sock)
            return Started(None, zygote)
        return Started(_execute("worker", sock), None)

    def trouble(self) -> tuple[str, bool]:
        """What the zygote complained of since the last question, and whether to try again.

        A zygote that found itself threaded cannot fork any more. It stays for the sake of the
        workers that it has, and the modules that it had imported are not imported ahead by the
        next one.
        """
        if self._zygote is None:
            return "", False
        self._zygote.listen(0)
        words = "; ".join(self._zygote.complaints)
        self._zygote.complaints.clear()
        if not self._zygote.threaded:
            return words, False
        again = bool(self._zygote.imported)
        self._spoiled |= self._zygote.imported
        self._retired.append(self._zygote)
        self._zygote = None
        if not again:
            self.method = "spawn"
        _log.warning("parallax: %s; starting workers another way", words)
        return words, True

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
        if self._zygote is not None and not self._zygote.alive():
            self._zygote.close()
            self._zygote = None
        if self._zygote is None:
            self._zygote = _Zygote()
        return self._zygote


class _Zygote:
    """The parent's end of the zygote."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._popen = _execute("zygote", theirs)
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
        self.threaded = False

    def alive(self) -> bool:
        return self._popen.poll() is None

    def prepare(self, modules: set[str]) -> None:
        # In the order in which this process imported them: a package's own order is the safe one.
        fresh = [m for m in list(sys.modules) if m in modules and m not in self.imported]
        if fresh:
            self.asked = time.monotonic()
            self.cost = _import_seconds({name.partition(".")[0] for name in fresh})
            self.imported.update(fresh)
            self._say(("import", [list(sys.path), *fresh]))

    def fork(self, sock: socket.socket) -> None:
        socket.send_fds(self.control, [pickle.dumps(("fork", None))], [sock.fileno()])

    def _say(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # a dead zygote is noticed when it is to fork
            self.control.send(pickle.dumps(message))

    def listen(self, timeout: float) -> bool:
        """Take one message if there is one within ``timeout`` seconds."""
        if self.control.fileno() < 0:
            return False  # closed at the interpreter's exit, before the last run
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        heard = False
        while poll.poll(0 if heard else timeout * 1000):
            try:
                data = self.control.recv(1 << 16)
            except OSError:
                return heard
            if not data:
                return heard
            kind, *rest = pickle.loads(data)
            if kind == "exit":
                self.exits[rest[0]] = rest[1]
            elif kind == "threads":
                self.threaded = True
                self.complaints.append(f"an imported module started threads ({rest[0]} in all)")
            else:
                self.complaints.append(str(rest[0]))
            heard = True
        return heard

    def exitcode(self, pid: int, timeout: float) -> int | None:
        deadline = time.monotonic() + timeout
        while pid not in self.exits:
            left = deadline - time.monotonic()
            if left <= 0 or not self.listen(left):
                break
        return self.exits.get(pid)

    def close(self) -> None:
        self.control.close()
        try:
            self._popen.wait(2.0)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def forget(self) -> None:
        self.control.close()
        self._popen.returncode = 0  # not our child: never wait for it, never warn about it


def _execute(what: str, sock: socket.socket) -> subprocess.Popen[bytes]:
    """Execute a fresh Python that runs ``<what>.main(fd)``."""
    if not sys.executable or getattr(sys, "frozen", False):
        raise WorkerStartError("spawn", "this program has no Python interpreter of its own to run")
    # The search path goes along on the command line, because parallax itself may have been found
    # on a path that this program added at run time.
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from parallax._backends.processes.{what} import main; main({sock.fileno()})"
    )
    env = dict(os.environ)
    for name in protocol.NATIVE_THREADS:
        env.setdefault(name, "1")
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    try:
        return subprocess.Popen(
            [sys.executable, *flags, "-c", code],
            stdin=subprocess.DEVNULL,
            pass_fds=(sock.fileno(),),
            env=env,
        )
    except OSError as error:
        raise WorkerStartError("spawn", str(error)) from error


def _import_seconds(packages: set[str]) -> float:
    """Rough seconds to import packages as far as this process has loaded them."""
    loaded = sum(1 for name in list(sys.modules) if name.partition(".")[0] in packages)
    return loaded * MODULE


def installed(name: str) -> bool:
    """Whether a loaded module belongs to the standard library or an installed distribution.

    Only such modules are imported ahead: importing the program's own could have side effects
    that the program would not expect in a helper.
    """
    module = sys.modules.get(name)
    if name.partition(".")[0] in {"__main__", "__mp_main__", "parallax"} or module is None:
        return False
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return False
    if spec.origin in {"built-in", "frozen"}:
        return True
    origin = spec.origin or next(iter(spec.submodule_search_locations or ()), "")
    return origin.startswith(_INSTALLED)


_INSTALLED = tuple(
    {
        path
        for path in (
            sysconfig.get_path("stdlib"),
            sysconfig.get_path("platstdlib"),
            sysconfig.get_path("purelib"),
            sysconfig.get_path("platlib"),
        )
        if path
    }
)
