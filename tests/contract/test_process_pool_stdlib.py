"""What programs know of the standard library's process pool beyond submit, map and shutdown."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import shared_memory

import pytest

from parallax import ProcessPoolExecutor, SerializationError, WorkerDiedError
from tests import jobs

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals"),
    pytest.mark.sampled(2),
]


@pytest.fixture(params=["fork", "forkserver", pytest.param("spawn", marks=pytest.mark.full), None])
def context(request):
    """Every way to start workers."""
    return None if request.param is None else multiprocessing.get_context(request.param)


@pytest.fixture
def pool(context):
    """A pool of two workers."""
    with ProcessPoolExecutor(2, context) as executor:
        yield executor


class Leaves:
    """Ends the process that pickles, or unpickles, it, as far as that is up to ``sys.exit``."""

    def __init__(self, when):
        self.when = when

    def __reduce__(self):
        if self.when == "pickling":
            sys.exit(3)
        return sys.exit, (3,)


def leaves(when):
    return Leaves(when)


def waits(folder):
    (folder / f"{os.getpid()}").write_text("")
    time.sleep(60)


def begun(folder, count):
    deadline = time.monotonic() + 30
    while len(list(folder.iterdir())) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_is_one_of_the_standard_library(pool):
    assert isinstance(pool, concurrent.futures.ProcessPoolExecutor)


def test_a_killed_worker_fails_its_call_and_the_pool_lives_on(pool, tmp_path):
    lost = pool.submit(waits, tmp_path)
    begun(tmp_path, 1)
    other = pool.submit(jobs.square, 3)
    (pid,) = [int(path.name) for path in tmp_path.iterdir()]
    pool._processes[pid].terminate()
    error = lost.exception(30)
    assert isinstance(error, BrokenProcessPool)
    assert isinstance(error, WorkerDiedError)
    assert (error.pid, error.exitcode) == (pid, -signal.SIGTERM)
    assert other.result(30) == 9
    assert pool.submit(jobs.square, 4).result(30) == 16


def test_each_lost_call_has_an_error_of_its_own(pool, tmp_path):
    """A shared one would collect the tracebacks of all who raise it."""
    lost = [pool.submit(waits, tmp_path) for _ in range(2)]
    begun(tmp_path, 2)
    for process in list(pool._processes.values()):
        process.kill()
    errors = []
    for future in lost:
        with pytest.raises(BrokenProcessPool) as caught:
            future.result(30)
        frames = traceback.extract_tb(caught.tb)
        assert [frame.filename for frame in frames].count(__file__) == 1
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert pool.submit(jobs.square, 4).result(30) == 16


def test_each_call_starts_a_worker_until_one_is_idle(eventually):
    """Also one that cannot be sent; a worker that has come up and done nothing is not idle."""
    lock = threading.Lock()
    with ProcessPoolExecutor(4, multiprocessing.get_context("forkserver")) as pool:
        for count in (1, 2, 3):
            with pytest.raises(SerializationError):
                pool.submit(jobs.square, lock).result(30)
            assert len(pool._processes) == count
            assert eventually(lambda: all(w.state == "idle" for w in pool._engine.workers))


def test_the_processes(pool):
    assert pool._max_workers == 2
    assert pool.submit(jobs.square, 2).result(30) == 4
    for pid, process in pool._processes.items():
        assert process.pid == pid
        assert process.is_alive()
        assert process.exitcode is None
        assert str(pid) in repr(process)
        process.join(0.0)
        assert process.is_alive()
    processes = pool._processes
    pool.shutdown()
    for process in processes.values():
        process.join(30)
        assert not process.is_alive()
        assert "ended" in repr(process)


@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
def test_ending_the_workers(context, how, tmp_path):
    """What runs fails, what waits is cancelled, nothing is left and nothing can be submitted."""
    pool = ProcessPoolExecutor(1, context)
    running = pool.submit(waits, tmp_path)
    begun(tmp_path, 1)
    waiting = pool.submit(jobs.square, 2)
    processes = pool._processes
    getattr(pool, how)()
    assert isinstance(running.exception(30), BrokenProcessPool)
    assert waiting.cancelled()
    for process in processes.values():
        process.join(30)
        assert not process.is_alive()
    with pytest.raises(RuntimeError):
        pool.submit(jobs.square, 2)
    pool.shutdown()


@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
def test_ending_workers_that_there_are_not(how):
    pool = ProcessPoolExecutor(1)
    getattr(pool, how)()
    with pytest.raises(RuntimeError, match="cannot schedule new futures"):
        pool.submit(jobs.square, 2)


def test_what_leaves_while_it_is_unpickled(pool):
    argument = pool.submit(type, Leaves("unpickling"))
    result = pool.submit(leaves, "unpickling")
    for future in (argument, result):
        assert isinstance(future.exception(30), BrokenProcessPool)
        assert isinstance(future.exception(), SerializationError)
        assert "SystemExit" in str(future.exception())
    assert pool.submit(jobs.square, 3).result(30) == 9


def test_what_leaves_while_it_is_pickled(pool):
    """In the worker, as if the call had left."""
    future = pool.submit(leaves, "pickling")
    assert isinstance(future.exception(30), SystemExit)
    assert pool.submit(jobs.square, 3).result(30) == 9


def test_arguments_that_cannot_be_pickled(pool):
    """They are no fault of the pool's; and a worker is there afterwards, as programs expect."""
    error = pool.submit(len, threading.Lock()).exception(30)
    assert isinstance(error, pickle.PicklingError)
    assert not isinstance(error, BrokenProcessPool)
    assert len(pool._processes) >= 1
    assert not pool._broken


def test_the_cause_of_an_error(pool):
    error = pool.submit(jobs.oops_at, {1}, 1).exception(30)
    assert type(error.__cause__) is concurrent.futures.process._RemoteTraceback
    assert "in oops_at" in error.__cause__.tb
    (error,) = [f.exception(30) for f in [pool.submit(jobs.oops_at, {1}, 1)]]
    with pytest.raises(jobs.Oops) as info:
        list(pool.map(jobs.oops_at, [{1}] * 3, range(3), chunksize=2))
    assert type(info.value.__cause__) is concurrent.futures.process._RemoteTraceback


def is_set(event):
    return event.is_set()


def test_proxies_of_managers_as_arguments(pool):
    """Even of one that was started after the workers."""
    assert pool.submit(jobs.square, 3).result(30) == 9
    with multiprocessing.get_context("spawn").Manager() as manager:
        event = manager.Event()
        assert pool.submit(is_set, event).result(30) is False
        event.set()
        assert pool.submit(is_set, event).result(30) is True


def test_the_context():
    fork = multiprocessing.get_context("fork")
    with pytest.raises(ValueError, match="max_tasks_per_child is incompatible with the 'fork'"):
        ProcessPoolExecutor(1, fork, max_tasks_per_child=2)
    with ProcessPoolExecutor(1, fork) as pool:
        assert pool._mp_context is fork
    with ProcessPoolExecutor(1, max_tasks_per_child=2) as pool:
        assert pool._mp_context.get_start_method() == "spawn"


def fill(name, value):
    memory = shared_memory.SharedMemory(name)
    memory.buf[0] = value
    memory.close()
    return os.getpid()


def test_memory_that_is_shared_by_name_outlives_the_workers(context):
    """They attach to it, and have no resource tracker of their own to remove it when they leave."""
    memory = shared_memory.SharedMemory(create=True, size=10)
    try:
        with ProcessPoolExecutor(2, context) as pool:
            assert pool.submit(fill, memory.name, 7).result(30) != os.getpid()
        again = shared_memory.SharedMemory(memory.name)
        assert again.buf[0] == 7
        again.close()
    finally:
        memory.close()
        memory.unlink()


@pytest.mark.parametrize("chunksize", [1, 3])
def test_map_goes_through_a_submit_that_was_replaced(chunksize):
    """As the standard library's does: subclasses count, log or bound what is submitted."""

    class Counting(ProcessPoolExecutor):
        count = 0

        def submit(self, fn, /, *args, **kwargs):
            self.count += 1
            return super().submit(fn, *args, **kwargs)

    with Counting(1) as pool:
        assert list(pool.map(jobs.square, range(9), chunksize=chunksize)) == [
            n * n for n in range(9)
        ]
        assert pool.count == 9 / chunksize
