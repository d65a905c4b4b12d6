"""The zygote: a small single-threaded process that imports once and then forks workers.

Forking the caller's own process would be faster still, and wrong as soon as it has threads: the
child inherits locks that nobody will release. ``multiprocessing.forkserver`` takes 9 ms per worker
and re-runs the main script on many Python versions (docs/design.md). This helper is executed
fresh, never sees ``__main__``, and forks in about a millisecond.

    parent -> zygote (one message each, SOCK_SEQPACKET)     zygote -> parent
    ("import", [module, ...])                                ("exit", pid, exitcode)
    ("fork", fd of the worker's socket)                      ("threads", count)
                                                             ("failed", words)

Guarantees: never forks while a second thread exists; when the parent's end closes it ends its
children (at once, if they do not leave by themselves) and itself.
Assumptions: Linux.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import sys
import time
from typing import Any

__all__ = ["main"]

#: Bytes of the longest message. A list of module names is a few kilobytes.
MESSAGE = 1 << 17

#: Seconds that workers have to leave by themselves when the parent is gone.
GRACE = 0.3


def main(fd: int) -> None:
    """Entry point.

    Args:
        fd: descriptor of the control socket.
    """
    control = socket.socket(fileno=fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)

    # What every worker needs, imported once.
    from . import worker

    children: set[int] = set()
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    frozen = False
    while True:
        for ready, _ in poll.poll():
            if ready == wake_read:
                _drain(wake_read)
                _reap(children, control)
                continue
            try:
                data, fds, _, _ = socket.recv_fds(control, MESSAGE, 1)
            except ConnectionResetError:  # the parent left without reading our last words
                data, fds = b"", []
            if not data:
                _end(children)
                os._exit(0)
            kind, argument = pickle.loads(data)
            if kind == "import":
                _import(argument, control)
                frozen = False
            elif kind == "fork":
                threads = len(os.listdir("/proc/self/task"))
                if threads > 1:
                    os.close(fds[0])
                    _say(control, ("threads", threads))
                    continue
                if not frozen:
                    gc.collect()
                    gc.freeze()
                    frozen = True
                try:
                    pid = os.fork()
                except OSError as error:
                    os.close(fds[0])
                    _say(control, ("failed", f"fork: {error}"))
                    continue
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(wake_read)
                    os.close(wake_write)
                    control.close()
                    _reseed()
                    worker.serve(socket.socket(fileno=fds[0]))
                children.add(pid)
                os.close(fds[0])


def _import(names: list[str], control: socket.socket) -> None:
    path, *modules = names
    sys.path[:] = path
    for name in modules:
        if name in sys.modules:
            continue
        try:
            importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001 - workers import it again and report it
            _say(control, ("failed", f"import {name}: {error!r}"))


def _reseed() -> None:
    # The random module reseeds itself after a fork, numpy's global generator does not.
    random = getattr(sys.modules.get("numpy"), "random", None)
    if random is not None:
        random.seed()


def _say(control: socket.socket, message: tuple[Any, ...]) -> None:
    try:
        control.send(pickle.dumps(message), socket.MSG_DONTWAIT)
    except OSError:
        return  # the parent reads these only when it wants to know; nothing depends on them


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        return


def _reap(children: set[int], control: socket.socket | None) -> None:
    while children:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except OSError as error:
            if error.errno == errno.ECHILD:
                children.clear()
            return
        if pid == 0:
            return
        children.discard(pid)
        if control is not None:
            _say(control, ("exit", pid, os.waitstatus_to_exitcode(status)))


def _end(children: set[int]) -> None:
    """Wait for the children to leave, then make them."""
    deadline = time.monotonic() + GRACE
    while children and time.monotonic() < deadline:
        _reap(children, None)
        if children:
            time.sleep(0.001)
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    while children:
        try:
            children.discard(os.wait()[0])
        except OSError:
            return
