"""Callables for the tests of the executor, in a module that workers import quickly."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from jobs import note

STATE = "unset"


def noted(log):
    """The numbers that `note` has written to a file."""
    return [int(line) for line in Path(log).read_text().split()] if Path(log).exists() else []


def keywords(*args, **kwargs):
    return args, kwargs


def wait_for(path, seconds=30.0):
    """Return when the file exists."""
    deadline = time.monotonic() + seconds
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.001)
    return path


def touch(path):
    Path(path).touch()
    return path


def started_then_wait(started, release):
    """Write this process id to a file, then wait for another file."""
    Path(f"{started}.new").write_text(str(os.getpid()))
    Path(f"{started}.new").rename(started)
    wait_for(release)
    return os.getpid()


def noted_then(log, x, action):
    note(log, x)
    if action == "exit":
        os._exit(3)
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "raise":
        raise KeyError(x)
    return x


def set_state(value):
    global STATE
    STATE = value


def get_state():
    return STATE


def fail(kind, *args):
    raise kind(*args)


def leave(status):
    os._exit(status)


def lines(count):
    for number in range(count):
        sys.stdout.write(f"{number}\n")
    return count


class Here:
    """Pickles anywhere, unpickles only in the process that made it."""

    def __init__(self, elsewhere=False, ballast=None):
        self.pid = os.getpid()
        self.elsewhere = elsewhere
        self.ballast = ballast

    def __reduce__(self):
        return _arrive, (self.pid, self.elsewhere, self.ballast)


def _arrive(pid, elsewhere, ballast):
    if (os.getpid() == pid) is elsewhere:
        raise RuntimeError("wrong place")
    return Here(elsewhere)


class HereError(Exception):
    """An exception that unpickles only in the process that made it."""

    def __init__(self, pid=None):
        super().__init__("here")
        self.pid = os.getpid()

    def __reduce__(self):
        return _raised, (self.pid,)


def _raised(pid):
    if os.getpid() != pid:
        raise RuntimeError("wrong place")
    return HereError()


def stays(ballast=None):
    """A result that the parent cannot unpickle."""
    return Here(ballast=ballast)


def raises_here():
    raise HereError


class Payload(bytearray):
    """Large, and can be referenced weakly."""


def turned(data):
    return Payload(data[::-1])


def slow_state(value):
    """Takes so many seconds to unpickle."""
    time.sleep(value)
    return value


class Slow:
    def __init__(self, seconds):
        self.seconds = seconds

    def __reduce__(self):
        return slow_state, (self.seconds,)
