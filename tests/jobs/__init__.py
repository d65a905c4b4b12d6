"""Callables for the tests, in a module that worker processes import quickly (no pytest here)."""

from __future__ import annotations

import contextvars
import functools
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")
SETTING = 1


def square(x):
    return x * x


@functools.lru_cache
def cached_square(x):
    return x * x


def add(a, b):
    return a + b


def spin(seconds):
    """Hold the GIL in pure Python for so many seconds."""
    end = time.perf_counter() + seconds
    count = 0
    while time.perf_counter() < end:
        count += 1
    return count


def spin_square(x):
    spin(0.01)
    return x * x


def nap_square(x):
    time.sleep(0.005)
    return x * x


def described(x):
    return f"{type(x).__name__}:{x!r}"


class Adder:
    """A callable instance, and a bound method, that change nothing."""

    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return x + self.by

    def method(self, x):
        return x + self.by

    @staticmethod
    def static(x):
        return x + 1

    @classmethod
    def of_class(cls, x):
        return cls.__name__ * x


class Thing:
    """Something that can be referenced weakly."""

    def __init__(self, number):
        self.number = number


# -- failing ---------------------------------------------------------------------------------------


class Oops(Exception):  # noqa: N818 - short for many uses
    """An error of the user's, with fields."""

    def __init__(self, number, text="oops"):
        super().__init__(number, text)
        self.number = number
        self.text = text


class Awkward(Exception):  # noqa: N818
    """An error that pickles, and fails to unpickle: by its __reduce__ it lacks an argument."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")

    def __reduce__(self):
        return Awkward, self.args


def oops_at(bad, x):
    if x in bad:
        raise Oops(x)
    return x * x


def late_oops_at(late, early, x):
    """Fails slowly at one item and at once at another."""
    if x == late:
        time.sleep(0.02)
        raise Oops(x)
    if x == early:
        raise KeyError(x)
    return x


def awkward_at(bad, x):
    if x == bad:
        raise Awkward(x, x)
    return x


def raise_at(bad, kind, x):
    if x == bad:
        raise kind(3)
    return x


def lock_at(bad, x):
    """Return something that cannot be pickled."""
    return {"inner": [threading.Lock()]} if x == bad else x


class Trap:
    """Pickles, and raises when it is unpickled."""

    def __reduce__(self):
        return _spring, ()


def _spring():
    raise RuntimeError("the trap sprang")


def trap_at(bad, x):
    return Trap() if x == bad else x


class Bomb:
    """Pickles, and ends the process that unpickles it, unless that is the one that made it."""

    def __init__(self):
        self.pid = os.getpid()

    def __reduce__(self):
        return _explode, (self.pid,)


def _explode(pid):
    if os.getpid() != pid:
        os._exit(9)
    return "dud"


# -- counting calls, across processes --------------------------------------------------------------


def note_call(folder, x):
    fd = os.open(Path(folder) / str(x), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(fd, b".")
    finally:
        os.close(fd)


def calls(folder):
    """How often each item was run."""
    return {int(path.name): path.stat().st_size for path in Path(folder).iterdir()}


def counted(folder, x):
    note_call(folder, x)
    return x


def fails_first(folder, times, x):
    """Fails the first calls for an odd item."""
    note_call(folder, x)
    if x % 2 and (Path(folder) / str(x)).stat().st_size <= times:
        raise Oops(x)
    return x


_birth = (os.getpid(), time.monotonic())


def noted_worker(log, x, nap=0.0):
    """Appends the item to a file; returns it with a name for the worker, never used again."""
    global _birth
    if _birth[0] != os.getpid():  # this module was imported before the worker was forked
        _birth = (os.getpid(), time.monotonic())
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(fd, b"%d\n" % x)
    finally:
        os.close(fd)
    if nap:
        time.sleep(nap)
    return x, _birth


_hoard = []


def hoards(log, megabytes, x):
    """As ``noted_worker``, and allocate memory that the worker keeps."""
    _hoard.append(bytearray(b"x") * (megabytes << 20))
    return noted_worker(log, x, nap=0.002)


def memory(_):
    """Resident bytes of this process."""
    import psutil

    return psutil.Process().memory_info().rss


# -- dying -----------------------------------------------------------------------------------------


def die(how):
    if how == "exit":
        os._exit(3)
    elif how == "segfault":
        import ctypes
        import faulthandler

        faulthandler.disable()
        ctypes.string_at(0)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    elif how == "abort":
        import faulthandler

        faulthandler.disable()
        os.abort()
    elif how == "close":
        # What a careless daemonizing library does: every descriptor from 3 on.
        os.closerange(3, 1024)


def dies_at(bad, how, x):
    if x in bad:
        die(how)
        time.sleep(30)
    return x * x


def dies_first(folder, x):
    """Ends its worker the first time that an item divisible by five is run."""
    note_call(folder, x)
    if x % 5 == 0 and (Path(folder) / str(x)).stat().st_size == 1:
        os._exit(3)
    return x


def garbles_at(bad, garbage, x):
    """Writes into every socket that its process has open, as a confused library might."""
    if x == bad:
        import socket
        import stat

        for fd in range(3, 256):
            try:
                if stat.S_ISSOCK(os.fstat(fd).st_mode):
                    with socket.socket(fileno=os.dup(fd)) as found:
                        found.sendall(garbage)
            except OSError:
                continue
    return x


def endless_at(bad, x):
    while x == bad:
        pass
    return x


def pid_of(_):
    time.sleep(0.002)
    return os.getpid()


def parent_pid_of(_):
    return os.getppid()


# -- the surroundings ------------------------------------------------------------------------------


def read_variable(x):
    return VARIABLE.get(), x


def spin_variable(x):
    spin(0.01)
    return VARIABLE.get(), x


def read_setting(x):
    return SETTING + x


def spin_setting(x):
    spin(0.01)
    return SETTING + x


def surroundings(name):
    return os.environ.get(name), os.getcwd(), sys.path[0]


def warns(x):
    warnings.warn("careful", UserWarning, stacklevel=1)
    return x


def argv(_):
    return list(sys.argv)


def numpy_double(array):
    array[0] = 7.0  # must be writable, and must not reach the caller from another process
    return array * 2


def numpy_zeros(megabytes):
    import numpy as np

    return np.zeros(int(megabytes * (1 << 20)), dtype=np.uint8)


def length(x):
    return len(x)


def thread_name(_):
    time.sleep(0.002)
    return threading.current_thread().name


def note(log, x):
    """Append an item's number to a file, in one write, so that each run of it leaves one line."""
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(fd, b"%d\n" % x)
    finally:
        os.close(fd)


def waits_for(waiter, other, folder, x):
    """One item ends only after a later one has run."""
    note(str(Path(folder, "log")), x)
    flag = Path(folder, "flag")
    if x == other:
        flag.touch()
    deadline = time.monotonic() + 20
    while x == waiter and not flag.exists():
        if time.monotonic() > deadline:
            return "it never ran"
        time.sleep(0.002)
    return x


def waits_and_fails(waiter, other, folder, x):
    """As ``waits_for``, and the one that waited raises."""
    found = waits_for(waiter, other, folder, x)
    if x == waiter:
        raise KeyError(found)
    return found


def first_of(fn, first, second):
    """Call ``fn`` with the first of two arguments."""
    assert first == second
    return fn(first)


def process_and_setting(x):
    global SETTING
    SETTING += 1
    return os.getpid(), SETTING


def imports(name):
    return __import__(name)


def nested_reports(x):
    """The routes of parallel calls inside of an item."""
    import parallax

    return [
        parallax.parallel_map(square, [x, x + 1], **({"backend": b} if b else {})).report.route
        for b in (None, "threads", "processes", "interpreters")
    ]


def fails_or_never_ends(x, path):
    if x:
        Path(path).touch()
        while True:
            time.sleep(0.001)
    while not Path(path).exists():
        time.sleep(0.001)
    raise ValueError("first")
