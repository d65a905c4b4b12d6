"""Blows from outside: when a worker is killed, and what becomes of the items around that moment.

A table as data. A blow is struck by an item while it is pickled, so that it is known what its
worker has received by then and what it has not.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jobs
import psutil
import pytest
from jobs import faults as fault_jobs

from parallax import ProcessPoolExecutor, WorkerDiedError, options, parallel_imap, parallel_map

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")

#: More than a socket takes while nobody reads it, in parts that are too small for shared memory.
LARGE = [bytes([n]) * 20_000 for n in range(24)]

#: The item that strikes, and how many there are.
BAD, COUNT = 5, 10


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_and_wait(pids):
    kill(pids)
    while any(map(alive, pids)):
        time.sleep(0.001)


def stop(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def kill_zygote(pids):
    """It ends no worker that is at work, and there are others."""
    kill_and_wait({psutil.Process(pid).ppid() for pid in pids} - {os.getpid()})


def this_thread_waits(thread, _):
    """Its work is handed over, and it has nothing else to do."""
    frame, names = sys._current_frames()[thread], set()
    while frame is not None:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    return not names.isdisjoint({"poll", "select", "wait", "result"})


def item_says_so(_, flag):
    return flag.exists()


class Blow(NamedTuple):
    """Something that befalls the workers."""

    name: str
    #: is given their process ids, before the item is sent.
    strike: Callable[[Iterable[int]], None] = lambda _: None
    #: they are killed when this is so, seen from another thread.
    later: Callable[[int, Path], bool] | None = None
    #: what the item holds besides.
    ballast: object = None
    #: where the item waits to be killed in its worker, if it does.
    waits: str = ""
    #: the item was begun, so that it is lost.
    lost: bool = False
    #: it is not the workers that die.
    spares: bool = False


BLOWS = (
    Blow("before it is sent", kill_and_wait),
    Blow("while it is sent", kill),
    Blow("before it is received", stop, this_thread_waits),
    Blow("while it is received", stop, this_thread_waits, LARGE),
    Blow("while it is unpickled", later=item_says_so, waits="unpickled", lost=True),
    Blow("while it runs", later=item_says_so, waits="running", lost=True),
    Blow("the zygote, before it is sent", kill_zygote, spares=True),
)


class Struck:
    """An item that strikes when it is pickled for the first time."""

    def __init__(self, blow, pids, flag):
        self.blow = blow
        self.pids = pids
        self.flag = flag
        self.thread = threading.Thread(target=self.strike, args=(pids, threading.get_ident()))

    def __reduce__(self):
        pids, self.pids = self.pids, []
        if pids:
            self.blow.strike(pids)
            if self.blow.later is not None:
                self.thread.start()
        return fault_jobs.received, (self.blow.waits, str(self.flag), self.blow.ballast)

    def strike(self, pids, thread):
        deadline = time.monotonic() + 30
        while not self.blow.later(thread, self.flag) and time.monotonic() < deadline:
            time.sleep(0.001)
        kill(pids)


def items_of(struck):
    return [struck if x == BAD else x for x in range(COUNT)]


def check(struck, found, index):
    """The others come back, and the item too if it was not begun."""
    blow, error = struck.blow, found[BAD]
    if blow.lost:
        assert isinstance(error, WorkerDiedError)
        assert error.index == index
        assert error.signal == "SIGKILL"
        found[BAD] = BAD
    assert found == [BAD if x == BAD else x * x for x in range(COUNT)]
    if blow.later is not None:
        struck.thread.join()


def cases(**ids):
    return pytest.mark.parametrize(
        ("blow", "method"),
        [
            pytest.param(
                blow,
                method,
                id=f"{blow.name}-{name}",
                marks=[
                    *[pytest.mark.cold_pool] * (blow.spares or name == "spawn"),
                    *[pytest.mark.full] * (name == "spawn"),
                ],
            )
            for name, method in ids.items()
            for blow in BLOWS
            if name == "zygote" or not blow.spares
        ],
    )


@cases(zygote="zygote", spawn="spawn")
def test_calls(blow, method, tmp_path):
    """Who has not begun is not blamed: it runs in another worker."""
    with options(start_method=method, backend="processes", max_workers=1):
        pids = list(set(parallel_map(jobs.pid_of, range(4))))
        struck = Struck(blow, pids, tmp_path / "flag")
        # One item at a time: when it is pickled the ones before it have come back.
        stream = parallel_imap(
            fault_jobs.squared, items_of(struck), buffersize=1, chunksize=1, on_error="return"
        )
        check(struck, list(stream), BAD)
        assert any(map(alive, pids)) == blow.spares
        assert parallel_map(jobs.square, range(4), max_workers=2) == [0, 1, 4, 9]


@cases(zygote=None, spawn="spawn")
def test_executors(blow, method, tmp_path):
    """The same with the calls of an executor."""
    context = multiprocessing.get_context(method) if method else None
    with ProcessPoolExecutor(1, context) as executor:
        pids = [executor.submit(os.getpid).result(30)]
        struck = Struck(blow, pids, tmp_path / "flag")
        found = []
        for item in items_of(struck):
            future = executor.submit(fault_jobs.squared, item)
            found.append(future.exception(30) or future.result())
        check(struck, found, None)
        assert any(map(alive, pids)) == blow.spares
