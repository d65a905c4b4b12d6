"""When a worker is killed from outside, and what becomes of the items around that moment.

The moments are a table. An item kills while it is pickled, so it is known what its worker has
received by then and what it has not.
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

#: The item that injects the fault, and the number of items.
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
    return not names.isdisjoint({"poll", "select", "wait", "result", "_wait"})


def item_says_so(_, flag):
    return flag.exists()


class Injection(NamedTuple):
    """A fault that is injected into the workers, and what must follow."""

    name: str
    #: called with the workers' process ids before the item is sent.
    inject: Callable[[Iterable[int]], None] = lambda _: None
    #: the workers are killed when this is true, seen from another thread.
    later: Callable[[int, Path], bool] | None = None
    #: further content of the item.
    ballast: object = None
    #: where in its worker the item waits to be killed.
    waits: str = ""
    #: whether the item was begun, and so is lost.
    lost: bool = False
    #: whether the workers survive.
    spares: bool = False


INJECTIONS = (
    Injection("before it is sent", kill_and_wait),
    Injection("while it is sent", kill),
    Injection("before it is received", stop, this_thread_waits),
    Injection("while it is received", stop, this_thread_waits, LARGE),
    Injection("while it is unpickled", later=item_says_so, waits="unpickled", lost=True),
    Injection("while it runs", later=item_says_so, waits="running", lost=True),
    Injection("the zygote, before it is sent", kill_zygote, spares=True),
)


class InjectingItem:
    """An item that injects a fault when it is pickled for the first time."""

    def __init__(self, injection, pids, flag):
        self.injection = injection
        self.pids = pids
        self.flag = flag
        self.thread = threading.Thread(target=self.inject, args=(pids, threading.get_ident()))

    def __reduce__(self):
        pids, self.pids = self.pids, []
        if pids:
            self.injection.inject(pids)
            if self.injection.later is not None:
                self.thread.start()
        return fault_jobs.received, (self.injection.waits, str(self.flag), self.injection.ballast)

    def inject(self, pids, thread):
        deadline = time.monotonic() + 30
        while not self.injection.later(thread, self.flag) and time.monotonic() < deadline:
            time.sleep(0.001)
        kill(pids)


def items_of(injecting):
    return [injecting if x == BAD else x for x in range(COUNT)]


def check(injecting, found, index):
    """The others come back, and the item too if it was not begun."""
    injection, error = injecting.injection, found[BAD]
    if injection.lost:
        assert isinstance(error, WorkerDiedError)
        assert error.index == index
        assert error.signal == "SIGKILL"
        found[BAD] = BAD
    assert found == [BAD if x == BAD else x * x for x in range(COUNT)]
    if injection.later is not None:
        injecting.thread.join()


def cases(**ids):
    return pytest.mark.parametrize(
        ("injection", "method"),
        [
            pytest.param(
                injection,
                method,
                id=f"{injection.name}-{name}",
                marks=[
                    *[pytest.mark.cold_pool] * (injection.spares or name == "spawn"),
                    *[pytest.mark.full] * (name == "spawn"),
                ],
            )
            for name, method in ids.items()
            for injection in INJECTIONS
            if name == "zygote" or not injection.spares
        ],
    )


@pytest.mark.sampled(2)
@cases(zygote="zygote", spawn="spawn")
def test_calls(injection, method, tmp_path):
    """Who has not begun is not blamed: it runs in another worker."""
    with options(start_method=method, backend="processes", max_workers=1):
        pids = list(set(parallel_map(jobs.pid_of, range(4))))
        injecting = InjectingItem(injection, pids, tmp_path / "flag")
        # One item at a time: when it is pickled the ones before it have come back.
        stream = parallel_imap(
            fault_jobs.squared, items_of(injecting), buffersize=1, chunksize=1, on_error="return"
        )
        check(injecting, list(stream), BAD)
        assert any(map(alive, pids)) == injection.spares
        assert parallel_map(jobs.square, range(4), max_workers=2) == [0, 1, 4, 9]


@pytest.mark.sampled(2)
@cases(zygote=None, spawn="spawn")
def test_executors(injection, method, tmp_path):
    """The same with the calls of an executor."""
    context = multiprocessing.get_context(method) if method else None
    with ProcessPoolExecutor(1, context) as executor:
        pids = [executor.submit(os.getpid).result(30)]
        injecting = InjectingItem(injection, pids, tmp_path / "flag")
        found = []
        for item in items_of(injecting):
            future = executor.submit(fault_jobs.squared, item)
            found.append(future.exception(30) or future.result())
        check(injecting, found, None)
        assert any(map(alive, pids)) == injection.spares
