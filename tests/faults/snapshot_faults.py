"""What may go wrong with forks of the program; run by ``contract/test_snapshot.py``."""

from __future__ import annotations

import contextlib
import errno
import gc
import multiprocessing
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
import types

import psutil
import pytest
from helpers.leaks import Held, wait_until_clean

import parallax
from parallax import options, parallel_imap, parallel_map
from parallax._backends.processes.parent import warm_pool
from parallax._backends.processes.start import fork_safety
from parallax._backends.processes.start import snapshot as snapshots
from parallax._shm import arena

ITEMS = range(12)


@pytest.fixture(autouse=True)
def snapshot():
    with options(start_method="snapshot", backend="processes", max_workers=2):
        yield


def busy(x):
    end = time.thread_time() + 0.01
    while time.thread_time() < end:
        pass
    return x


def goes_on(why):
    """The call fails with the reason, and ``auto`` goes on, says why once, and leaves nothing."""
    before = Held.now()
    with pytest.raises(parallax.WorkerStartError, match=why):
        parallel_map(busy, ITEMS)
    with options(start_method="auto", backend="auto", max_workers=None):
        got = parallel_map(busy, range(30))
    assert got == [*range(30)]
    if got.report.route == "processes":
        # A thread of ours that has not begun may be counted in the place of the program's.
        assert re.search(f"{why}|of its threads are neither", got.report.start)
        assert str(got.report).count(why) <= 1
    assert wait_until_clean(before) == []


def test_a_thread_that_holds_a_lock():
    """Its lock would stay locked for ever in a fork."""
    lock, held, end = threading.Lock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        goes_on("the program has 1 other thread")
    finally:
        end.set()
        thread.join()


def test_a_thread_that_starts_between_the_check_and_the_fork(monkeypatch):
    """It is seen after the fork, before the fork has done anything."""
    end, threads, fork = threading.Event(), [], snapshots.quiet_fork

    def late():
        threads.append(threading.Thread(target=end.wait))
        threads[-1].start()
        return fork()

    monkeypatch.setattr(snapshots, "quiet_fork", late)
    before = Held.now()
    try:
        with pytest.raises(parallax.WorkerStartError, match="1 of its threads"):
            parallel_map(busy, ITEMS)
        assert len(threads) == 1
    finally:
        end.set()
        threads[0].join()
    assert wait_until_clean(before) == []


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EAGAIN])
def test_the_system_refuses_to_fork(monkeypatch, number):
    """For want of memory, or of processes."""

    def refuse():
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fork", refuse)
    goes_on(os.strerror(number))


@pytest.mark.parametrize("name", fork_safety.UNSAFE_MODULES)
def test_modules_that_do_not_survive_a_fork(monkeypatch, name):
    """The table has a source for each of them."""
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    with pytest.raises(parallax.WorkerStartError, match=f"{name} is loaded: "):
        parallel_map(abs, ITEMS)


def test_a_program_that_waits_for_the_end_of_a_pipe():
    """No worker keeps the pipe open that the program closes during the call."""
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; print(len(sys.stdin.read()))"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        stream = parallel_imap(busy, range(20))
        next(stream)
        assert other.communicate("abc", timeout=20)[0] == "3\n"
        stream.close()


def test_connections_are_not_used_by_two_processes(monkeypatch):
    """One that a module has is found closed, loudly; its other end gets nothing."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    module = types.ModuleType("snapshot_client")
    module.connection = ours
    exec("def send(x): return connection.send(b'x')", vars(module))
    monkeypatch.setitem(sys.modules, "snapshot_client", module)
    module.send.__module__ = "snapshot_client"
    with contextlib.closing(ours), contextlib.closing(theirs):
        got = parallel_map(module.send, ITEMS, on_error="return")
        assert {type(each) for each in got} <= {OSError, parallax.SerializationError}
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        with pytest.raises(parallax.SerializationError, match="socket"):
            parallel_map(lambda x: ours.send(b"x"), ITEMS)


@pytest.mark.full
def test_64_workers():
    """More than there are cores."""
    assert parallel_map(busy, range(100), max_workers=64, chunksize=1) == [*range(100)]


def call_in_child(queue):
    try:
        queue.put([*parallel_map(busy, ITEMS)])
    except BaseException as error:
        queue.put(repr(error))


@pytest.mark.parametrize("daemon", [False, True])
def test_a_caller_that_is_a_fork_itself(daemon):
    """Of multiprocessing, where daemons have no children of their own, or by hand."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=call_in_child, args=(queue,), daemon=daemon)
    process.start()
    assert queue.get() == [*ITEMS]
    process.join()
    queue.close()
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = 0 if parallel_map(busy, ITEMS) == [*ITEMS] else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def kills_at_random(item):
    """Kills the template or a worker, itself perhaps, unless it runs for the second time."""
    number, what, flag, program = item
    time.sleep(0.002)
    if what and not flag.exists():
        flag.touch()
        with contextlib.suppress(psutil.Error, IndexError):
            template = psutil.Process().parent()
            # An orphan's parent is anybody.
            if template is not None and template.ppid() == program:
                victims = [template] if what == "template" else template.children()
                random.choice(victims).kill()
        time.sleep(0.01)
    return number


def test_templates_and_workers_that_are_killed(tmp_path):
    """No item is lost or left out, and a template that dies is replaced."""
    before, me = Held.now(), os.getpid()
    seed = random.SystemRandom().getrandbits(32)
    rng = random.Random(seed)
    for round_ in range(4):
        whats = [rng.choice(["", "", "", "worker", "template"]) for _ in range(30)]
        items = [(n, what, tmp_path / f"{round_}-{n}", me) for n, what in enumerate(whats)]
        got = parallel_map(kills_at_random, items, retries=20, max_workers=3)
        assert got == [*range(30)], seed
        got = parallel_map(kills_at_random, items, on_error="return")
        assert got == [*range(30)], seed
    assert wait_until_clean(before) == []


class EndsOnce:
    """What only forks of the program may have: copies elsewhere would end as well."""

    def __del__(self):
        pass


ONLY_FORKS = {
    "a lock deep inside": [*[0] * 3000, threading.Lock(), *[0] * 3000],
    "an end": EndsOnce(),
}


@pytest.mark.parametrize("what", ONLY_FORKS)
def test_a_template_is_killed_and_other_workers_cannot_have_the_callable(what, tmp_path):
    """The call comes home; nothing is lost."""
    held, flag, program = ONLY_FORKS[what], tmp_path / "flag", os.getpid()

    def item(n):
        busy(n)
        if n >= 30 and os.getpid() != program and not flag.exists():
            flag.touch()
            psutil.Process().parent().kill()
            psutil.Process().kill()
        return n, held is not None

    before = Held.now()
    with options(backend="auto", start_method="auto"):
        for _ in range(20):  # while other programs have the cores the items stay
            got = parallel_map(item, range(60), retries=3)
            assert got == [(n, True) for n in range(60)]
            if flag.exists():
                break
    assert any(each.startswith("workers: the callable") for each in got.report.notes)
    assert wait_until_clean(before) == []


@pytest.mark.full
def test_200_calls_in_a_row():
    """Nothing adds up: descriptors, processes, memory."""
    parallel_map(abs, ITEMS)
    before, memory = Held.now(), psutil.Process().memory_info().rss
    for _ in range(200):
        assert parallel_map(abs, range(-4, 0)) == [4, 3, 2, 1]
    assert wait_until_clean(before) == []
    assert psutil.Process().memory_info().rss < memory + (10 << 20)


def parent_and_command(_=None):
    return os.getppid(), psutil.Process().parent().cmdline()


def test_an_executor_whose_template_or_workers_are_killed():
    """It goes on, with workers of the zygote if the template is gone."""
    before = Held.now()
    with options(backend="auto"), parallax.ProcessPoolExecutor(2) as executor:
        template, command = executor.submit(parent_and_command).result()
        assert psutil.Process(template).ppid() == os.getpid()
        assert command == psutil.Process().cmdline()
        with pytest.raises(parallax.WorkerDiedError):
            executor.submit(os._exit, 3).result()
        assert executor.submit(parent_and_command).result()[0] == template
        psutil.Process(template).kill()
        for _ in range(3):
            for future in [executor.submit(os._exit, 3) for _ in range(2)]:
                assert isinstance(future.exception(), parallax.WorkerDiedError)
            assert executor.submit(parent_and_command).result()[0] != template
        assert [*executor.map(busy, ITEMS)] == [*ITEMS]
    assert wait_until_clean(before) == []


def test_a_run_that_ends_in_the_garbage_collector():
    """Whatever locks this thread has at that moment, it waits for none of them."""
    stream = parallel_imap(busy, range(60))
    next(stream)
    with arena._lock, warm_pool._pools_lock:
        del stream
        gc.collect()
    assert parallel_map(abs, ITEMS) == [*ITEMS]
