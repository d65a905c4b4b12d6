"""Locks, queues and the like of ``multiprocessing`` reach workers through the initializer.

By the descriptors and names that they have, or by a fork of the program.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool

import jobs
import pytest
from jobs import inherited as work
from jobs import pool as pool_jobs

from parallax import ProcessPoolExecutor, SerializationError
from parallax._backends.processes.start.initializer import MAX_INHERITED_FDS

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="handles go another way"),
    pytest.mark.cold_pool,
    pytest.mark.sampled(4),
]

NAMES = [n for n in ("fork", "forkserver", "spawn") if n in multiprocessing.get_all_start_methods()]


@pytest.fixture(params=[*NAMES, None])
def context(request):
    """What the primitives are made with: each start method in turn, and no context at all."""
    return multiprocessing.get_context(request.param)


@pytest.fixture
def make(request, context):
    """Makes executors of that context, whose workers keep what they are given."""
    named = context is not multiprocessing.get_context()
    made = []

    def new(*things, workers=2, **kwargs):
        kwargs = {"initializer": work.keep, "initargs": things, **kwargs}
        pool = ProcessPoolExecutor(workers, mp_context=context if named else None, **kwargs)
        made.append(pool)
        return pool

    yield new
    for pool in made:
        pool.shutdown()


def test_queue(make, context):
    """What both workers put in arrives, from the very process that the call ran in."""
    queue = context.Queue()
    pool = make(queue)
    futures = [pool.submit(work.put, n) for n in range(50)]
    got = [queue.get(timeout=30) for _ in futures]
    assert sorted(n for _, n in got) == list(range(50))
    assert os.getpid() not in {pid for pid, _ in got}
    assert wait(futures, 30).not_done == set()
    queue.close()
    queue.join_thread()


def test_simple_queue_both_ways(make, context):
    """A worker reads what the program wrote."""
    queue = context.SimpleQueue()
    pool = make(queue)
    pool.submit(work.put, 7).result(30)
    assert queue.get()[1] == 7
    queue.close()


def test_queue_is_written_to_its_end(make, context):
    """A worker that leaves has written what its last call put in."""
    queue = context.Queue()
    pool = make(queue, workers=1)
    pool.submit(work.put_many, 3000)
    pool.shutdown()
    assert [queue.get(timeout=30) for _ in range(3000)] == list(range(3000))
    queue.close()
    queue.join_thread()


def test_value(make, context):
    """Its lock holds between the workers: no addition is lost."""
    value = context.Value("i", 0)
    pool = make(value)
    futures = [pool.submit(work.add, 500) for _ in range(8)]
    assert os.getpid() not in {future.result(30) for future in futures}
    assert value.value == 8 * 500


def test_array(make, context):
    """Each worker writes to the same memory."""
    array = context.Array("i", 20, lock=context.RLock())
    pool = make(array)
    assert list(pool.map(work.fill, range(20))) == [None] * 20
    assert list(array) == list(range(20))


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])
def test_lock(make, context, kind):
    """What the program holds no worker gets."""
    lock = getattr(context, kind)()
    pool = make(lock, workers=1)
    with lock:
        assert pool.submit(work.acquire).result(30) is False
    assert pool.submit(work.acquire).result(30) is True
    assert lock.acquire(block=False) is False
    pool.submit(work.release).result(30)
    assert lock.acquire(block=False) is True
    lock.release()


def test_event(make, context):
    """Workers wait for the program."""
    event = context.Event()
    pool = make(event)
    futures = [pool.submit(work.wait) for _ in range(2)]
    assert not any(future.done() for future in futures)
    event.set()
    assert [future.result(30) for future in futures] == [True, True]


def test_condition_and_barrier(make, context):
    """The program waits for a worker, and both workers for the program."""
    condition = context.Condition()
    pool = make(condition)
    with condition:
        pool.submit(work.answer)
        assert condition.wait(30)
    barrier = context.Barrier(3)
    pool = make(barrier)
    futures = [pool.submit(work.meet) for _ in range(2)]
    assert sorted([barrier.wait(30), *(future.result(30) for future in futures)]) == [0, 1, 2]


def test_pipe(make, context):
    """Each end is one of its own: closing the program's leaves the worker's open."""
    ours, theirs = context.Pipe()
    pool = make(theirs, workers=1)
    pool.submit(int).result(30)
    theirs.close()
    for n in range(3):
        ours.send(n)
        pool.submit(work.echo).result(30)
        assert ours.recv() == 2 * n
    ours.close()


def test_socket_and_the_same_thing_twice(make):
    """What is rebuilt from one descriptor is two things that are closed one by one."""
    ours, theirs = socket.socketpair()
    with ours, theirs, theirs.dup() as again:
        pool = make(theirs, again, [theirs], workers=1)
        assert pool.submit(jobs.square, 3).result(30) == 9


def test_manager(make):
    """Its proxies know the key that its server asks for."""
    with multiprocessing.get_context(NAMES[-1]).Manager() as manager:
        things = manager.list()
        pool = make(things)
        assert wait([pool.submit(work.append, n) for n in range(6)], 30).not_done == set()
        assert sorted(things) == list(range(6))


def test_workers_that_replace_others_have_it_too(make, context):
    """It is ready for each worker that is ever started."""
    value = context.Value("i", 0)
    pool = make(value, workers=1)
    pids = set()
    for _ in range(4):
        pid = pool.submit(work.add, 1).result(30)
        os.kill(pid, signal.SIGKILL)
        pids.add(pid)
    assert value.value == 4
    assert len(pids) == 4


def test_initializer_that_fails_says_so_in_the_log(make, context):
    """In the worker's, as in the standard library; what it says there arrives."""
    queue = context.Queue()
    pool = make(initializer=work.keep_and_fail, initargs=(queue,))
    with pytest.raises(BrokenProcessPool, match="not today"):
        pool.submit(jobs.square, 1).result(30)
    message = queue.get(timeout=30).getMessage()
    assert message.startswith("Exception in initializer:")
    assert "ValueError: not today" in message
    queue.close()
    queue.join_thread()


def test_process_map_of_tqdm(monkeypatch):
    """It passes a lock of the default context to its workers."""
    concurrent = pytest.importorskip("tqdm.contrib.concurrent")
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", ProcessPoolExecutor)
    # Its bar would be drawn by a thread that stays.
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)
    found = concurrent.process_map(jobs.square, range(30), max_workers=2, chunksize=1)
    assert found == [n * n for n in range(30)]


# -- what does not go ------------------------------------------------------------------------------


@pytest.mark.skipif("fork" not in NAMES, reason="no fork")
@pytest.mark.parametrize("method", [n for n in NAMES if n != "fork"])
def test_what_only_a_fork_has(method):
    """It is refused where the program asked for workers that are not forked from it."""
    lock = multiprocessing.get_context("fork").Lock()
    with pytest.raises(SerializationError, match=r"initializer\[1\]\[0\]\['lock'\]"):
        ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context(method),
            initializer=work.keep,
            initargs=({"lock": lock},),
        )


def test_too_many_descriptors():
    """They are counted, and given back."""
    with socket.socket() as one:
        many = [one.dup() for _ in range(MAX_INHERITED_FDS + 1)]
        try:
            with pytest.raises(SerializationError, match=f"{MAX_INHERITED_FDS + 1} descriptors"):
                ProcessPoolExecutor(1, initializer=work.keep, initargs=tuple(many))
            with ProcessPoolExecutor(1, initializer=work.keep, initargs=tuple(many[1:])) as pool:
                assert pool.submit(jobs.square, 3).result(30) == 9
        finally:
            for each in many:
                each.close()


# -- workers that are forked from the program ------------------------------------------------------


@pytest.fixture
def forked():
    """Makes executors whose workers are forked from this process."""
    if "fork" not in NAMES:
        pytest.skip("no fork")
    made = []

    def new(workers=2, **kwargs):
        fork = multiprocessing.get_context("fork")
        made.append(ProcessPoolExecutor(workers, mp_context=fork, **kwargs))
        return made[-1]

    yield new
    for pool in made:
        pool.shutdown()


def test_forked_workers_have_what_cannot_be_pickled(forked, tmp_path):
    """Initializer and arguments are those of the program."""
    with open(tmp_path / "file", "w") as file:  # noqa: PTH123 - an open one is what is meant
        things = (file, lambda: 5)
        pool = forked(1, initializer=lambda *things: work.keep(*things), initargs=things)
        pool.submit(jobs.square, 1).result(30)
        assert work.THINGS == ()


def test_forked_at_once(forked):
    """All of them at the first call, when the program has fewest threads."""
    pool = forked(3)
    pool.submit(jobs.square, 1)
    assert len(pool._engine.workers) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_forked_workers_have_no_others_sockets(forked):
    """Neither those of their siblings nor those of other executors; nor their threads."""
    with ProcessPoolExecutor(2) as other:
        assert other.submit(jobs.square, 2).result(30) == 4
        pools = [forked(2), forked(2)]
        found = [pool.submit(work.sockets).result(30) for pool in pools for _ in range(4)]
        # What watches the program is no thread of ``threading``.
        assert set(found) == {(1, 1)}


def test_the_end_of_each_worker_is_seen(forked, tmp_path):
    """Whoever was forked meanwhile."""
    with ProcessPoolExecutor(1) as other:
        first = other.submit(os.getpid).result(30)
        pool = forked(2)
        second = pool.submit(os.getpid).result(30)
        assert other.submit(os.getpid).result(30) == first
        started = str(tmp_path / "started")
        running = other.submit(pool_jobs.started_then_wait, started, "never")
        pool_jobs.wait_for(started)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            running.result(30)
        os.kill(second, signal.SIGKILL)
        assert pool.submit(jobs.square, 3).result(30) == 9
        assert other.submit(jobs.square, 3).result(30) == 9


def test_forked_workers_take_signals_as_others_do(forked):
    """Handlers of the program are not the workers'."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        pool = forked(1)
        assert pool.submit(work.handlers).result(30) == [signal.SIG_DFL, signal.SIG_DFL]
        assert pool.submit(work.read_stdin).result(30) == ""
    finally:
        signal.signal(signal.SIGUSR1, before)
