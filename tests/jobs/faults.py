"""Callables for tests of faults outside the fault table, whose own are in ``actions.py``."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import jobs
from jobs import actions
from jobs.actions import BAD, DONE

# -- items whose worker is killed from outside -----------------------------------------------------


def received(waits, flag, ballast):
    """Unpickles the item that injects the fault."""
    arrived = Arrived(waits, flag)
    arrived.wait("unpickled")
    return arrived


class Arrived:
    """The item at BAD, in its worker."""

    def __init__(self, waits, flag):
        self.waits = waits
        self.flag = flag

    def wait(self, where):
        if self.waits == where:
            Path(self.flag).touch()
            time.sleep(30)


def squared(x):
    if isinstance(x, int):
        return x * x
    x.wait("running")
    return BAD


# -- faults of a whole program ---------------------------------------------------------------------


def prints(count):
    for _ in range(0, count, 1024):
        print("x" * 1024, end="")
    return DONE


def kills(pid, x):
    """Kill the program and go on."""
    if x == 1:
        os.kill(pid, signal.SIGKILL)
    while True:
        time.sleep(1)


def described(x):
    return f"{type(x).__name__}"


# -- one of many -----------------------------------------------------------------------------------


def exits_at(bad, x):
    if x == bad:
        os._exit(1)
    return x


def notes_and_exits(folder, bad, x):
    jobs.note_call(folder, x)
    return exits_at(bad, x)


def notes_and_sticks(folder, bad, x):
    jobs.note_call(folder, x)
    return actions.Reduced("arrives and fails") if x == bad else x


def fails_twice(folder, raising, dying, x):
    jobs.note_call(folder, x)
    first = Path(folder, str(x)).stat().st_size < 3
    if x == raising and first:
        raise jobs.Oops(x)
    return exits_at(dying if first else None, x)


def fails_beside(folder, x):
    """Item 1 fails while item 0 waits for the end of the call."""
    jobs.note_call(folder, x)
    Path(folder, f"at{x}").touch()
    deadline = time.monotonic() + 30
    if x == 0:
        while not Path(folder, "release").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        Path(folder, "over").touch()
    if x == 1:
        while not Path(folder, "at0").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        raise jobs.Oops(x)
    return x
