"""Another platform, as far as parallax can see: forced on Linux, in workers too.

What modules of parallax import are *views* of the standard library's modules, without what the
platform does not have, and with what it does otherwise. Everything else (the standard library
itself, pytest, psutil) sees Linux and works as ever. A view of a class is a subclass of it.

`HIDDEN` is checked against typeshed, which knows the names of each platform, by
`tests/test_portability.py`. `ABSENT` and the classes below rest on the documentation and sources of
CPython: no line of this file was compared with the real thing.
"""

from __future__ import annotations

import builtins
import os
import sys
import types

#: Names that a platform lacks, of those that the sources of parallax mention.
HIDDEN = {
    "win32": {
        "_signal": "SIGALRM SIGBUS SIGCHLD SIGHUP SIGKILL SIGRTMAX SIGSTOP SIGURG SIGUSR1 SIGUSR2 "
        "SIG_BLOCK SIG_SETMASK SIG_UNBLOCK alarm getitimer ITIMER_REAL pause "
        "pthread_kill pthread_sigmask setitimer siginterrupt sigpending",
        "_socket": "AF_UNIX CMSG_LEN MSG_DONTWAIT SCM_RIGHTS socketpair",
        "faulthandler": "register unregister",
        "mmap": "MADV_DONTNEED MADV_REMOVE MAP_PRIVATE MAP_SHARED PROT_READ PROT_WRITE",
        "os": "EFD_CLOEXEC O_CLOEXEC PRIO_PROCESS RTLD_NOLOAD WNOHANG copy_file_range eventfd "
        "fchdir fchmod fdatasync fork getegid geteuid getgid getgroups getloadavg getpriority "
        "getresgid getresuid getuid memfd_create minor nice pidfd_open posix_fallocate pread "
        "preadv pwrite pwritev readv register_at_fork sched_getaffinity sched_setaffinity "
        "sendfile set_blocking setpriority setresgid setresuid splice sync sysconf wait writev",
        "select": "EPOLLRDHUP POLLIN POLLOUT epoll poll",
        "selectors": "EpollSelector KqueueSelector",
        "signal": "SIGALRM SIGBUS SIGCHLD SIGHUP SIGKILL SIGRTMAX SIGSTOP SIGURG SIGUSR1 SIGUSR2 "
        "SIG_BLOCK SIG_SETMASK SIG_UNBLOCK alarm getitimer ITIMER_REAL pause "
        "pthread_kill pthread_sigmask setitimer siginterrupt sigpending",
        "socket": "AF_UNIX CMSG_LEN MSG_DONTWAIT SCM_RIGHTS recv_fds send_fds",
        "time": "clock_gettime pthread_getcpuclockid tzset",
    },
    "darwin": {
        "_signal": "SIGRTMAX",
        "mmap": "MADV_REMOVE",
        "os": "EFD_CLOEXEC copy_file_range eventfd fdatasync getresgid getresuid memfd_create "
        "pidfd_open posix_fallocate sched_getaffinity sched_setaffinity setresgid setresuid splice",
        "resource": "RUSAGE_THREAD",
        "select": "EPOLLRDHUP epoll",
        "selectors": "EpollSelector",
        "signal": "SIGRTMAX",
        "time": "pthread_getcpuclockid",
    },
}

#: Modules that a platform lacks.
ABSENT = {
    "win32": {"_posixshmem", "_posixsubprocess", "fcntl", "grp", "pwd", "resource"}
    | {"readline", "syslog", "termios"},
    "darwin": {"_winapi", "msvcrt", "winreg"},
}

#: Folders that only Linux has.
_LINUX_FOLDERS = ("/proc", "/sys", "/dev/shm")

#: The step of the clocks of Windows, in seconds: 64 per second.
TICK_S = 1 / 64

_real_import = builtins.__import__
_real_open = builtins.open
_views: dict[str, types.ModuleType] = {}


class _View(types.ModuleType):
    """A module as parallax sees it."""

    def __init__(self, module: types.ModuleType, hidden: set[str], **changed: object) -> None:
        super().__init__(module.__name__)
        object.__setattr__(self, "_at", (module, hidden))
        self.__dict__.update(changed)

    def __getattr__(self, name: str) -> object:
        module, hidden = self.__dict__["_at"]
        if name in hidden:
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r} here")
        return getattr(module, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.__dict__["_at"][0], name, value)


def _ours(depth: int) -> bool:
    name = sys._getframe(depth + 1).f_globals.get("__name__") or ""
    return name.partition(".")[0] == "parallax"


def install(name: str) -> None:
    """Force a platform: "win32" or "darwin", with "+coarse" also clocks of 15.6 ms."""
    platform, _, more = name.partition("+")
    hidden = {module: set(names.split()) for module, names in HIDDEN[platform].items()}
    absent = ABSENT[platform]
    makers = _WINDOWS if platform == "win32" else _DARWIN

    def view(module: types.ModuleType) -> types.ModuleType:
        found = _views.get(module.__name__)
        if found is None:
            make = makers.get(module.__name__)
            if module.__name__ == "sys":
                changed: dict[str, object] = {"platform": platform}
            elif module.__name__ == "time":
                changed = _clocks(platform, coarse=more == "coarse")
            else:
                changed = make() if make is not None else {}
            if not changed and module.__name__ not in hidden:
                return module
            found = _View(module, hidden.get(module.__name__, set()), **changed)
            _views[module.__name__] = found
        return found

    def forced_import(name, globals=None, locals=None, fromlist=(), level=0):  # noqa: A002
        importer = globals if globals is not None else sys._getframe(1).f_globals
        package = (importer.get("__name__") or "").partition(".")[0]
        if package != "parallax" or level or name.partition(".")[0] == "parallax":
            return _real_import(name, globals, locals, fromlist, level)
        if name in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in _INVENTED and platform == "win32":
            return _INVENTED[name]()
        return view(_real_import(name, globals, locals, fromlist, level))

    def forced_open(file, *args, **kwargs):
        if _ours(1):
            _refuse(file)
        return _real_open(file, *args, **kwargs)

    builtins.__import__ = forced_import
    builtins.open = forced_open


def _refuse(path: object) -> None:
    if isinstance(path, str) and path.startswith(_LINUX_FOLDERS):
        raise FileNotFoundError(2, "No such file or directory", path)


def _without_linux(name: str) -> object:
    real = getattr(os, name)

    def looked_at(path, *args, **kwargs):
        _refuse(path)
        return real(path, *args, **kwargs)

    return looked_at


def _os(**changed: object) -> dict[str, object]:
    def exists(path):
        return not str(path).startswith(_LINUX_FOLDERS) and os.path.exists(path)  # noqa: PTH110

    def isdir(path):
        return not str(path).startswith(_LINUX_FOLDERS) and os.path.isdir(path)  # noqa: PTH112

    looks = {name: _without_linux(name) for name in ("open", "listdir", "stat", "scandir")}
    return {**looks, "path": _View(os.path, set(), exists=exists, isdir=isdir), **changed}


def _clocks(platform: str, *, coarse: bool) -> dict[str, object]:
    import time

    def stepped(clock):
        return lambda: clock() // TICK_S * TICK_S

    if coarse:
        names = ["monotonic", "perf_counter", "process_time", "thread_time"]
    else:  # before Python 3.13 the monotonic clock of Windows moves with the tick, too
        names = ["monotonic", "process_time", "thread_time"] if platform == "win32" else []
    return {name: stepped(getattr(time, name)) for name in names}


def _lacking(base: type, *names: str) -> type:
    def lacks(self):
        raise AttributeError("not on this platform")

    return type(base.__name__, (base,), {name: property(lacks) for name in names})


# -- Windows -------------------------------------------------------------------------------------


def _uninterrupted():
    """In this block Ctrl-C waits, as for whatever waits in C on Windows; in the main thread."""
    import contextlib
    import signal
    import threading

    @contextlib.contextmanager
    def block():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    if threading.current_thread() is not threading.main_thread():
        return contextlib.nullcontext()
    return block()


def _windows_os() -> dict[str, object]:
    import signal
    import stat

    def kill(pid: int, number: int) -> None:
        # TerminateProcess; the number becomes the exit status.
        _ended[pid] = number
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            raise OSError(22, "The parameter is incorrect") from None

    def of_files_only(name):
        real = getattr(os, name)

        def checked(fd, *args):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                raise OSError(9, "Bad file descriptor")  # sockets are handles
            return real(fd, *args)

        return checked

    names = ("set_inheritable", "get_inheritable", "fstat", "dup", "close", "read", "write")
    return _os(name="nt", kill=kill, **{name: of_files_only(name) for name in names})


#: the exit status of processes that were terminated from here.
_ended: dict[int, int] = {}


def _windows_signal() -> dict[str, object]:
    import signal as real

    known = {real.SIGINT, real.SIGTERM, real.SIGABRT, real.SIGFPE, real.SIGILL, real.SIGSEGV, 21}

    def signal(number, handler):
        if number not in known:
            raise ValueError("invalid signal value")
        return real.signal(number, handler)

    return {"SIGBREAK": 21, "signal": signal}


def _windows_subprocess() -> dict[str, object]:
    import subprocess

    class Popen(subprocess.Popen):
        def __init__(self, args, *, stdin=None, env=None, creationflags=0):
            # A group of its own: Ctrl-C of the console does not reach it.
            group = bool(creationflags & 0x200)
            super().__init__(args, stdin=stdin, env=env, start_new_session=group)

        @property
        def returncode(self):
            return self.__dict__.get("returncode")

        @returncode.setter
        def returncode(self, code):
            if code is not None and code < 0:
                crashes = {-11: 0xC0000005, -6: 3}
                code = crashes.get(code) or _ended.pop(self.pid, 1)
            self.__dict__["returncode"] = code

    return {"Popen": Popen, "CREATE_NEW_PROCESS_GROUP": 0x200}


def _windows_socket() -> dict[str, object]:
    import socket
    import struct

    class WindowsSocket(_lacking(socket.socket, "sendmsg", "recvmsg", "recvmsg_into")):
        def share(self, pid: int) -> bytes:
            """Hand a duplicate to a process; WSADuplicateSocket does that at once."""
            import secrets
            import select
            import threading

            name = secrets.token_bytes(16)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(b"\0" + name)
            listener.listen(1)
            duplicate = os.dup(self.fileno())

            ended = os.pidfd_open(pid)

            def hand_over():
                try:
                    poll = select.poll()
                    poll.register(listener, select.POLLIN)
                    poll.register(ended, select.POLLIN)
                    if (listener.fileno(), select.POLLIN) not in poll.poll(30_000):
                        return
                    connection, _ = listener.accept()
                    socket.send_fds(connection, [b"x"], [duplicate])
                    connection.close()
                except OSError:
                    pass  # the process has ended
                finally:
                    os.close(duplicate)
                    os.close(ended)
                    listener.close()

            thread = threading.Thread(target=hand_over, name="parallax-pool-share", daemon=True)
            thread.start()
            return name.ljust(628, b"\0")  # of a WSAPROTOCOL_INFOW

        def recv_into(self, *args):
            # A reset connection loses what was received and not read.
            if self.family == socket.AF_INET and self.type == socket.SOCK_STREAM:
                state = self.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
                if state == 7:  # TCP_CLOSE: a RST came
                    raise ConnectionResetError(104, "forcibly closed by the remote host")
            return super().recv_into(*args)

        def close(self):
            if self.fileno() >= 0:  # in order
                self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
            super().close()

    def _as_windows(sock):
        return WindowsSocket(fileno=sock.detach())

    def socketpair(*family):
        assert not family
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            ours = WindowsSocket()
            ours.connect(listener.getsockname())
            theirs, _ = listener.accept()
        return ours, _as_windows(theirs)

    def fromshare(info: bytes):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(b"\0" + info[:16])
            _, fds, _, _ = socket.recv_fds(connection, 1, 1)
        shared = WindowsSocket(fileno=fds[0])
        # A process that ends without having closed it in order resets the connection.
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return shared

    return {"socket": WindowsSocket, "socketpair": socketpair, "fromshare": fromshare}


def _windows_select() -> dict[str, object]:
    return {"select": _windows_select_call}


def _windows_select_call(readers, writers, others, timeout=None):
    import select
    import stat

    every = [*readers, *writers, *others]
    if not every:
        raise OSError(10022, "An invalid argument was supplied")
    if max(len(readers), len(writers), len(others)) > 512:
        raise ValueError("too many file descriptors in select()")
    for each in every:
        number = each if isinstance(each, int) else each.fileno()
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise OSError(10038, "An operation was attempted on something that is not a socket")
    numbers = [each if isinstance(each, int) else each.fileno() for each in every]
    with _uninterrupted():
        found = select.select(readers, writers, others, timeout)
    try:
        for number in numbers:
            os.fstat(number)
    except OSError:
        raise OSError(10038, "a socket was closed meanwhile") from None
    return found


def _windows_selectors() -> dict[str, object]:
    import selectors

    class WindowsSelector(selectors.SelectSelector):
        def _select(self, readers, writers, _, timeout=None):
            r, w, x = _windows_select_call(list(readers), list(writers), list(writers), timeout)
            return r, w + x, []

    return {"DefaultSelector": WindowsSelector, "SelectSelector": WindowsSelector}


def _windows_threading() -> dict[str, object]:
    import _thread

    class Lock:
        """As a lock of Windows, which Ctrl-C does not interrupt."""

        def __init__(self):
            self._lock = _thread.allocate_lock()
            self.release = self._lock.release
            self.locked = self._lock.locked

        def acquire(self, blocking=True, timeout=-1):
            if self._lock.acquire(False):
                return True
            if not blocking:
                return False
            with _uninterrupted():
                return self._lock.acquire(True, timeout)

        def __enter__(self):
            return self.acquire()

        def __exit__(self, *_):
            self.release()

    return {"Lock": Lock}


def _windows_mmap() -> dict[str, object]:
    import fcntl
    import mmap as real
    import weakref

    class mmap(_lacking(real.mmap, "madvise")):
        """Memory with a tag lives as long as any process maps it, and is zero at first."""

        def __new__(cls, fileno, length, tagname=None, access=real.ACCESS_WRITE, offset=0):
            if tagname is None:
                return super().__new__(cls, fileno, length, access=access, offset=offset)
            assert fileno == -1
            folder = os.environ["PARALLAX_TESTS_TAGS"]
            fd = os.open(f"{folder}/{tagname}", os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(fd, 0)  # nobody has it any more
            except BlockingIOError:
                pass
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.fstat(fd).st_size < length:
                os.ftruncate(fd, length)
            made = super().__new__(cls, fd, length, access=access)
            weakref.finalize(made, os.close, fd).atexit = False
            return made

    return {"mmap": mmap, "ALLOCATIONGRANULARITY": 1 << 16}


def _winapi() -> types.ModuleType:
    """What parallax uses of the module: to wait for the end of a process."""
    import select

    made = types.ModuleType("_winapi")
    made.SYNCHRONIZE, made.INFINITE, made.WAIT_OBJECT_0, made.WAIT_TIMEOUT = 1 << 20, -1, 0, 258

    def open_process(access, inherit, pid):
        try:
            return os.pidfd_open(pid)
        except ProcessLookupError:
            raise OSError(22, "The parameter is incorrect") from None

    def wait(handle, milliseconds):
        with _uninterrupted():
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            return 0 if poll.poll(None if milliseconds < 0 else milliseconds) else 258

    made.OpenProcess, made.WaitForSingleObject, made.CloseHandle = open_process, wait, os.close
    return made


_INVENTED = {"_winapi": _winapi}
_WINDOWS = {
    "os": _windows_os,
    "signal": _windows_signal,
    "_signal": _windows_signal,
    "subprocess": _windows_subprocess,
    "socket": _windows_socket,
    "select": _windows_select,
    "selectors": _windows_selectors,
    "threading": _windows_threading,
    "mmap": _windows_mmap,
}


# -- macOS ---------------------------------------------------------------------------------------


def _darwin_select() -> dict[str, object]:
    import select
    from collections import namedtuple

    class kqueue:
        """Waits for the end of processes and for data, and nothing else."""

        def __init__(self):
            self._poll = select.epoll()
            self._fds = []
            self.fileno = self._poll.fileno

        def control(self, events, most, timeout=None):
            for number, kind, flags, note in events or ():
                assert (kind, flags, note) in {(-5, 1, 1 << 31), (-1, 1, 0)}
                if kind == -5:
                    number = os.pidfd_open(number)  # ESRCH, as without room for an EV_ERROR
                    self._fds.append(number)
                self._poll.register(number, select.EPOLLIN)
            found = self._poll.poll(timeout) if most else []
            return [kevent(n, -5 if n in self._fds else -1, 1) for n, _ in found]

        def close(self):
            while self._fds:
                os.close(self._fds.pop())
            self._poll.close()

    kevent = namedtuple("kevent", "ident filter flags fflags", defaults=(-1, 1, 0))
    names = {"KQ_FILTER_PROC": -5, "KQ_FILTER_READ": -1, "KQ_EV_ADD": 1, "KQ_NOTE_EXIT": 1 << 31}
    return {"kqueue": kqueue, "kevent": kevent, **names}


def _darwin_signal() -> dict[str, object]:
    return {"SIGINFO": 29}


_DARWIN = {
    "os": _os,
    "select": _darwin_select,
    "signal": _darwin_signal,
    "_signal": _darwin_signal,
}
