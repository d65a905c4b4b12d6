"""The zygote: a small single-threaded process that imports modules once and then forks workers.

To fork the caller's own process would be faster, and wrong as soon as it has threads: the child
inherits locks that nobody will release. ``multiprocessing.forkserver`` takes 9 ms per worker and
re-runs the main script on many Python versions (docs/engine.md). The zygote is executed fresh,
never sees ``__main__``, and forks in about a millisecond.

    parent -> zygote (one message each, SOCK_SEQPACKET)     zygote -> parent
    ("import", [path, module, ...])                          ("importing", module, or "" at the end)
    ("fork", ([1, 2], 2, 0, identity)) with the worker's     ("threads", count, [module, ...])
        socket, so many segments of shared memory and          ("failed", words)
        so many descriptors for its initializer, and the
        parent's descriptors of these numbers                ("exit", pid, exitcode)

Guarantees: never forks while a second thread exists; when the parent's end closes it ends its
children (at once, if they do not leave by themselves) and itself.
Assumptions: Linux.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import sys
import time
from collections.abc import Callable

from parallax._backends.processes.common.process_identity import Identity, assume
from parallax._backends.processes.common.process_tree import kill_tree
from parallax._backends.processes.common.protocol import ORPHAN_GRACE_S
from parallax._core.current_frames import thread_idents
from parallax._core.light_stdlib import Any, dumps, loads, signals, sockets
from parallax._core.nesting import work_while
from parallax._core.process_rights import Ids, assume_ids

#: Bytes of the longest message. A list of module names is a few kilobytes.
MAX_MESSAGE_BYTES = 1 << 17

#: Descriptors that may come with a message: a worker's socket, its two segments, where it writes
#: to, and what its initializer needs. The system takes 253 at a time.
MAX_MESSAGE_FDS = 253

#: ``CLONE_THREAD`` of the system's headers.
_CLONE_THREAD = 0x10000


def main(fd: int, identity: tuple[Any, ...], ids: Ids) -> None:
    """Entry point; ``fd`` is the descriptor of the control socket."""
    assume_ids(ids)
    work_while(lambda: False)
    control = sockets.socket(fileno=fd)
    assume(Identity(*identity), control)  # modules may ask while they are imported
    while (free := os.open(os.devnull, os.O_WRONLY)) <= 2:
        pass  # a program without output: no other file may get these numbers
    os.close(free)
    serve(control)


def serve(
    control: sockets.socket,
    inherited: dict[int, tuple[Any, ...]] | None = None,
    at_birth: Callable[[], None] = lambda: None,
) -> None:
    """Fork workers until the parent closes its end, each with what is ``inherited``."""
    signals.signal(signals.SIGINT, signals.SIG_IGN)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signals.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signals.signal(signals.SIGCHLD, lambda *_: None)

    # What every worker needs, imported once.
    from parallax._backends.processes.worker import main as worker

    children: set[int] = set()
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    frozen = inherited is not None
    suspects: list[str] = []
    while True:
        for ready, _ in poll.poll():
            if ready == wake_read:
                _drain(wake_read)
                _reap(children, control)
                continue
            try:
                data, fds = _receive(control)
            except ConnectionResetError:  # the parent ended without reading all reports
                data, fds = b"", []
            if not data:
                _end(children, wake_read)
                os._exit(0)
            kind, argument = loads(data)
            if kind == "import":
                loaded = len(sys.modules)
                suspects += _import(argument, control)
                frozen = frozen and len(sys.modules) == loaded
            elif kind == "fork":
                try:
                    numbers, segments, initial, who = argument
                    first = 1 + segments  # of those that the initializer needs
                    last = first + initial
                    if len(fds) != last + len(numbers):
                        # The kernel drops what there is no room for.
                        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                    threads = _threads()
                    if threads > 1:
                        # Reported first: when the socket closes the parent looks for the reason.
                        _report(control, ("threads", threads, suspects))
                        _close(fds)
                        continue
                    if not frozen:
                        gc.collect()
                        gc.freeze()
                        frozen = True
                    pid = os.fork()
                except OSError as error:
                    _report(control, ("failed", f"fork: {error}"))
                    _close(fds)
                    continue
                if pid == 0:
                    signals.set_wakeup_fd(-1)
                    signals.signal(signals.SIGCHLD, signals.SIG_DFL)
                    os.close(wake_read)
                    os.close(wake_write)
                    control.close()
                    # The files that the parent writes to now, not those at the zygote's start.
                    for number, theirs in zip(numbers, fds[last:], strict=True):
                        os.dup2(theirs, number)
                    _close(fds[last:])
                    reseed()
                    at_birth()
                    sock = sockets.socket(fileno=fds[0])
                    assume(Identity(*who), sock)
                    worker.serve(
                        sock, *fds[1:first], initializer_fds=fds[first:last], inherited=inherited
                    )
                children.add(pid)
                _close(fds)


def _receive(control: sockets.socket) -> tuple[bytes, list[int]]:
    """One message with the descriptors that came with it; see ``socket.recv_fds``."""
    data, ancillary, _, _ = control.recvmsg(
        MAX_MESSAGE_BYTES, sockets.CMSG_LEN(MAX_MESSAGE_FDS * 4)
    )
    fds: list[int] = []
    for level, kind, numbers in ancillary:
        if (level, kind) == (sockets.SOL_SOCKET, sockets.SCM_RIGHTS):
            fds += memoryview(numbers[: len(numbers) // 4 * 4]).cast("i")
    return data, fds


def _threads() -> int:
    """The threads of this process; those of C libraries count as one where nothing tells more."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:  # there is no /proc, or it may not be read
        import ctypes

        # The system lets only a process with one thread stop to share it with others.
        alone = ctypes.CDLL(None, use_errno=True).unshare(_CLONE_THREAD) == 0
        several = not alone and ctypes.get_errno() == errno.EINVAL
        return max(len(thread_idents()), 1 + several)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _import(names: list[Any], control: sockets.socket) -> list[str]:
    """Import modules; return those that have started threads."""
    path, *modules = names
    sys.path[:] = path
    suspects = []
    for name in modules:
        if name in sys.modules:
            continue
        # Reported before the import, which may end this process.
        _report(control, ("importing", name))
        try:
            threads = _threads()
            __import__(name)
            if _threads() > threads:
                suspects.append(name)
        except BaseException as error:  # noqa: BLE001 - workers import it again and report it
            _report(control, ("failed", f"import {name}: {error!r}"))
    _report(control, ("importing", ""))
    return suspects


def reseed() -> None:
    """Give a fresh fork random numbers of its own, as ``random`` does by itself."""
    # Not by the attribute of numpy, which would import the module.
    for name in ("numpy.random", "torch"):
        if (seed := getattr(sys.modules.get(name), "seed", None)) is not None:
            seed()


def _report(control: sockets.socket, message: tuple[Any, ...]) -> None:
    try:
        control.send(dumps(message), sockets.MSG_DONTWAIT)
    except OSError:
        return  # reports serve for messages only


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        return


def _reap(children: set[int], control: sockets.socket | None) -> None:
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
            _report(control, ("exit", pid, os.waitstatus_to_exitcode(status)))


def _end(children: set[int], wake: int) -> None:
    """Wait for the children to leave, then kill them."""
    deadline = time.monotonic() + ORPHAN_GRACE_S
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    _reap(children, None)
    while children and (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            _drain(wake)
            _reap(children, None)
    for pid in children:
        kill_tree(pid)
    while children:
        try:
            children.discard(os.wait()[0])
        except OSError:
            return
