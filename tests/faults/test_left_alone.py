"""Processes that end while no call is there to see it: nothing of them waits for a later call."""

from __future__ import annotations

import gc
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import jobs
import pytest
from helpers.leaks import Held, children_of

from parallax import ProcessPoolExecutor, options, parallel_map
from parallax._backends.processes.parent.pool import hired_anywhere
from parallax._backends.processes.parent.warm_pool import warm_pool
from parallax._backends.processes.start import attendant as attendants
from parallax._backends.processes.start import started_process
from parallax._core.cores import start_methods
from parallax._core.fork_pauses import COUNTS_LATE
from tests.helpers.worker_checks import check_pool

pytestmark = [
    pytest.mark.cold_pool,
    pytest.mark.skipif(os.name != "posix", reason="there are no zombies"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.sampled(2),
]

CONTEXTS = [None, *multiprocessing.get_all_start_methods()]


@pytest.fixture(params=["pidfd", "nothing"])
def system(request, monkeypatch):
    """With a descriptor for processes, and with nothing to wait for."""
    if request.param == "nothing":

        def refuse(*_):
            raise OSError("no such system call, or no descriptor is left")

        monkeypatch.setattr(started_process, "open_pidfd", refuse)
        monkeypatch.setattr(attendants, "_open_wake", refuse)
    return request.param


def processes_of(pool):
    """Process ids of idle workers and of the zygotes, without a look that would tidy."""
    pids = [worker.pid for worker in pool._idle]
    return pids, [zygote.pid for zygote in pool._starter.zygotes()]


def wait_until_gone(pids, seconds=10.0):
    """Until none of them is there, not even as a zombie."""
    deadline = time.monotonic() + seconds
    while left := set(pids) & set(children_of(os.getpid()) + grandchildren()):
        assert time.monotonic() < deadline, left
        time.sleep(0.002)


def grandchildren():
    return [pid for child in children_of(os.getpid()) for pid in children_of(child)]


def workers_of(method, timeout):
    """Run something on two workers; their pool, and the process ids of them and of the zygotes."""
    with options(start_method=method, idle_timeout=timeout):
        parallel_map(jobs.nap_square, range(8), backend="processes", max_workers=2)
    pool = warm_pool(method)
    return (pool, *processes_of(pool))


@pytest.mark.parametrize("method", start_methods())
def test_idle_workers_that_leave(method, system):
    """They are collected and their connections closed as soon as they have left."""
    before = Held.now().descriptors
    pool, pids, _ = workers_of(method, 0.1)
    wait_until_gone(pids)
    deadline = time.monotonic() + 5
    while pool._idle or pool._leaving:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    gc.collect()
    left = {fd: what for fd, what in Held.now().descriptors.items() if fd not in before}
    assert not [what for what in left.values() if "socket" in what], left


@pytest.mark.parametrize("method", start_methods())
def test_idle_workers_that_are_killed(method, system):
    pool, pids, _ = workers_of(method, 60)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until_gone(pids)
    check_pool(pool)
    assert parallel_map(jobs.square, range(4), backend="processes") == [0, 1, 4, 9]


@pytest.mark.skipif(sys.platform != "linux", reason="the zygote")
def test_a_zygote_that_is_killed(system):
    """Its workers leave, and the next call starts another one."""
    _, workers, zygotes = workers_of("zygote", 60)
    assert len(zygotes) == 1
    os.kill(zygotes[0], signal.SIGKILL)
    wait_until_gone(zygotes)
    assert parallel_map(jobs.square, range(4), backend="processes") == [0, 1, 4, 9]
    for pid in workers:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.skipif(sys.platform != "linux", reason="the zygote")
def test_a_zygote_learns_at_once_that_its_pool_is_closed(system):
    """Although a thread polls the socket that is closed: it would be killed after two seconds."""
    pool, _, _ = workers_of("zygote", 60)
    [zygote] = pool._starter.zygotes()
    pool.shutdown()
    assert zygote.process.exitcode(0) == 0


@pytest.mark.sampled(4)
@pytest.mark.parametrize("start", CONTEXTS)
@pytest.mark.parametrize("end", ["drop", "kill", "idle", "shutdown"])
def test_workers_of_an_executor(start, end):
    """Of one that is dropped; that are killed, or leave, while the executor lives."""
    context = None if start is None else multiprocessing.get_context(start)
    executor = ProcessPoolExecutor(2, context)
    executor.map(jobs.nap_square, range(4))
    pids = list(executor._processes)
    assert len(set(executor.map(jobs.pid_of, range(4)))) >= 1
    if end == "kill":
        for process in executor._processes.values():
            process.kill()
    elif end == "idle":
        executor._engine.rest_after(0.05)
        executor.submit(jobs.square, 3).result(30)
    elif end == "shutdown":
        executor.shutdown(wait=False)
    else:
        gone = weakref.ref(executor)
        del executor
        assert gone() is None
    if end == "idle":
        deadline = time.monotonic() + 10
        while len(set(pids) & set(children_of(os.getpid()) + grandchildren())) == len(pids):
            assert time.monotonic() < deadline
            time.sleep(0.002)
    else:
        wait_until_gone(pids)
    if end in {"kill", "idle"}:
        executor.shutdown()
    deadline = time.monotonic() + 10
    while hired_anywhere:  # the executor's thread is late with what is not to be seen from outside
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_children_of_the_program_are_its_own():
    """Nobody else's exit status is collected, whatever ends at the time."""
    own = subprocess.Popen([sys.executable, "-S", "-E", "-c", "raise SystemExit(7)"])
    _, pids, _ = workers_of("spawn", 0.05)
    wait_until_gone(pids)
    os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
    time.sleep(0.05)
    assert os.waitpid(own.pid, 0)[1] == 7 << 8
    own.returncode = 7
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL


def test_a_program_that_collects_every_child():
    """By a handler of its own: it takes ours as well, and nothing waits for them."""
    taken = []

    def collect(*_):
        try:
            while (found := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                taken.append(found)
        except ChildProcessError:
            return

    before = signal.signal(signal.SIGCHLD, collect)
    try:
        _, pids, _ = workers_of("spawn", 0.05)
        wait_until_gone(pids)
        assert parallel_map(jobs.square, range(4), backend="processes") == [0, 1, 4, 9]
    finally:
        signal.signal(signal.SIGCHLD, before)


# -- the thread ------------------------------------------------------------------------------------


class Ended:
    """Something that a pipe stands for."""

    def __init__(self):
        self.read, self.write = os.pipe()
        self.over = False
        self.seen = threading.Event()

    def fileno(self):
        return self.read

    def tidy(self):
        self.over = bool(os.read(self.read, 1))
        self.seen.set()

    def close(self):
        os.close(self.read)
        os.close(self.write)


@pytest.fixture
def made(monkeypatch):
    """An attendant of the test's own."""
    new = attendants.Attendant()
    monkeypatch.setattr(attendants, "_attendant", new)
    yield new
    assert new.running.acquire(timeout=10)  # nothing is left to watch: no thread
    new.running.release()  # every later fork would wait for the thread that holds it
    assert not new._wake


@pytest.mark.skipif(not hasattr(select, "poll"), reason="no poll")
def test_the_thread_is_there_as_long_as_there_is_something_to_watch(made):
    watched = [Ended(), Ended()]
    for each in watched:
        made.watch(each, each.tidy)
        made.watch(each, each.tidy)
    while not attendants.attendant().running.locked():
        time.sleep(0.001)
    for each in watched:
        assert attendants.attendant().running.locked()
        assert not each.seen.is_set()
        os.write(each.write, b"x")
        assert each.seen.wait(10)
    assert made.running.acquire(timeout=10)
    made.running.release()
    third = Ended()
    made.watch(third, third.tidy)
    os.write(third.write, b"x")
    assert third.seen.wait(10)
    for each in (*watched, third):
        each.close()


@pytest.mark.skipif(not hasattr(select, "poll"), reason="no poll")
@pytest.mark.filterwarnings("error")
def test_a_fork_meets_no_thread(made):
    """It ends before, and watches on in the parent only."""
    watched = Ended()
    made.watch(watched, watched.tidy)
    while not attendants.attendant().running.locked():
        time.sleep(0.001)
    pid = os.fork()
    if pid == 0:
        here = attendants.attendant()
        os._exit(int(here.running.locked()) + len(here._watched))
    assert os.waitpid(pid, 0)[1] == 0
    following = Ended()
    if COUNTS_LATE:  # what is watched next starts it
        made.watch(following, following.tidy)
    os.write(watched.write, b"x")
    assert watched.seen.wait(10)
    watched.close()
    if COUNTS_LATE:
        os.write(following.write, b"x")
        assert following.seen.wait(10)
    following.close()


def test_a_program_that_forks_beside_warm_workers_is_not_warned():
    """Neither of our threads nor of anything else."""
    program = """
        import os, sys, time
        from parallax import options, parallel_map
        for method in METHODS:
            with options(start_method=method, backend="processes", max_workers=2):
                parallel_map(abs, range(8))
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print("fine")
        """
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            f"METHODS = {start_methods()!r}\n{textwrap.dedent(program)}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
