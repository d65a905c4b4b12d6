"""How long big data lives: what is kept stays right, and what is dropped goes back."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading

import jobs
import numpy as np
import pytest
from helpers.shm import usage
from jobs import data as data_jobs
from jobs import pool as pool_jobs
from jobs.data import BIG, describe, in_memory

from parallax import ProcessPoolExecutor, options, parallel_imap, parallel_map
from parallax._shm.arena import arena_sender

MEGABYTE = 1 << 20
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


def lent_out():
    """Bytes that are lent to workers, or shared by name."""
    sender = arena_sender()
    assert sender is not None
    return usage(sender)[0]


@pytest.fixture
def come_back(eventually):
    """Whether what was lent since the beginning of the test comes back."""
    before = lent_out()
    return lambda: eventually(lambda: lent_out() <= before)


@pytest.fixture
def pool():
    with ProcessPoolExecutor(2) as executor:
        yield executor


# -- memory goes back ------------------------------------------------------------------------------


@pytest.mark.cold_pool
def test_streamed_and_dropped_results_need_little_memory():
    """Of 100 results of 8 MB only the few on their way are in memory at a time."""
    job = functools.partial(data_jobs.filled_of, MEGABYTE)
    start = most = in_memory()
    for value, back in enumerate(parallel_imap(job, range(100), backend="processes", buffersize=4)):
        assert back[0] == back[-1] == value
        most = max(most, in_memory())
    assert most <= start + 400 * MEGABYTE
    del back


@pytest.mark.cold_pool
def test_a_kept_result_holds_its_own_memory_only(cold_pool):
    """After 200 others were dropped, and again after all workers are gone."""
    start = in_memory()
    (kept,) = parallel_map(functools.partial(data_jobs.filled_of, BIG), [5.0], backend="processes")
    for _ in range(5):
        others = parallel_map(data_jobs.filled, range(40), backend="processes")
        assert [other[0] for other in others] == list(range(40))
        del others
    cold_pool()
    assert in_memory() <= start + kept.nbytes + (1 << 16)
    assert (kept == 5.0).all()
    kept[:] = 6.0
    assert parallel_map(data_jobs.total, [kept] * 2, backend="processes") == [6.0 * BIG] * 2
    cold_pool()
    del kept
    gc.collect()
    assert in_memory() <= start


@pytest.mark.cold_pool
def test_part_of_a_result_keeps_that_result_only(cold_pool):
    """A view of a view, and the array that it is of is dropped."""
    start = in_memory()
    parts = [
        back[10:20] for back in parallel_imap(data_jobs.filled, range(30), backend="processes")
    ]
    cold_pool()
    assert in_memory() <= start + 30 * (BIG * 8 + (1 << 17))
    assert [part.tolist() for part in parts] == [[float(n)] * 10 for n in range(30)]


def test_arguments_come_back(come_back):
    """When a call has ended, nothing that it sent is in use."""
    arrays = [np.full(BIG, float(n)) for n in range(20)]
    base = arrays[0]
    assert parallel_map(data_jobs.total, arrays, backend="processes") == [
        n * BIG for n in range(20)
    ]
    assert parallel_map(lambda i: base[i], range(20), backend="processes") == [0.0] * 20
    assert come_back()


def test_items_that_fail_give_back_their_arguments(pool, come_back):
    """As arguments of an item that raises, and captured by it; the error has its own memory."""
    made = np.arange(BIG, dtype=float)
    (error,) = parallel_map(data_jobs.hurt, [made], backend="processes", on_error="return")
    assert isinstance(error, data_jobs.Painful)
    assert np.array_equal(error.data, made * 2)
    assert error.data.flags.writeable
    with pytest.raises(data_jobs.Painful) as info:
        parallel_map(lambda i: data_jobs.hurt(made), range(3), backend="processes")
    assert np.array_equal(info.value.data, made * 2)
    future = pool.submit(data_jobs.hurt, made)
    assert np.array_equal(future.exception().data, made * 2)
    list(pool.map(jobs.nap_square, range(8), chunksize=1))  # until the one that failed has a task
    assert come_back()


def test_cancelled_calls_give_back_their_arguments(tmp_path, come_back):
    """Whether they were on their way to a worker or not."""
    go, started = str(tmp_path / "go"), str(tmp_path / "started")
    with ProcessPoolExecutor(1) as executor:
        first = executor.submit(pool_jobs.started_then_wait, started, go)
        pool_jobs.wait_for(started)
        futures = [executor.submit(data_jobs.total, np.full(BIG, float(n))) for n in range(30)]
        cancelled = [future.cancel() for future in futures[1::2]]
        pool_jobs.touch(go)
        first.result()
        assert [f.result() for f in futures[::2]] == [float(n * BIG) for n in range(0, 30, 2)]
        assert all(cancelled)
        assert executor.submit(jobs.square, 3).result() == 9
        assert come_back()


def test_an_abandoned_stream_gives_back_its_arguments(come_back):
    """A stream that is closed in the middle."""
    stream = parallel_imap(
        data_jobs.doubled, (np.full(BIG, float(n)) for n in range(1000)), backend="processes"
    )
    firsts = [next(stream)[0] for _ in range(5)]
    stream.close()
    assert firsts == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert parallel_map(data_jobs.total, [np.ones(BIG)], backend="processes") == [BIG]
    assert come_back()


# -- who has it ------------------------------------------------------------------------------------


def test_an_initializer_with_big_arguments(come_back):
    """It comes to every worker, also to one that replaces another."""
    made = np.arange(BIG, dtype=float)
    want = describe(made)
    with ProcessPoolExecutor(
        2, initializer=data_jobs.keep, initargs=(made,), max_tasks_per_child=5
    ) as executor:
        first = [executor.submit(data_jobs.kept_described, n) for n in range(10)]
        assert [f.result() for f in first] == [want] * 10
        others = [executor.submit(data_jobs.total, np.full(BIG, float(n))) for n in range(20)]
        assert [f.result() for f in others] == [float(n * BIG) for n in range(20)]
        assert executor.submit(data_jobs.kept_described, 0).result() == want
    del executor, first, others
    assert come_back()


def test_a_big_callable_and_workers_that_are_replaced(come_back):
    """Each new worker is told it again, from the same memory."""
    made = np.arange(BIG, dtype=float)
    job = functools.partial(data_jobs.at, made)
    found = parallel_map(job, range(40), backend="processes", max_tasks_per_child=3, chunksize=1)
    assert found == list(range(40))
    assert found.report.workers_recycled >= 10
    assert found.report.bytes_once == made.nbytes
    assert come_back()


@pytest.mark.parametrize("variant", ["map", "pool"])
def test_one_slow_item_among_quick_ones(tmp_path, variant, come_back):
    """What waits behind it with big arguments runs elsewhere, and once."""
    count = 60
    items = [(np.full(40_000 + n, float(n)), n, count - 1) for n in range(count)]
    job = functools.partial(data_jobs.patient_total, str(tmp_path))
    if variant == "map":
        found = list(parallel_map(job, items, backend="processes", max_workers=2))
    else:
        with ProcessPoolExecutor(2) as executor:
            found = [f.result() for f in [executor.submit(job, item) for item in items]]
    assert found == [(n, float(n) * (40_000 + n)) for n in range(count)]
    assert come_back()


def test_several_threads_at_once(pool):
    """Each gets its own results, over the same workers' memory."""
    wrong = []

    def work(me):
        mine = np.full(BIG, float(me))
        for turn in range(6):
            mine[:] = me * 100 + turn
            if turn % 2:
                found = parallel_map(data_jobs.doubled, [mine] * 4, backend="processes")
            else:
                found = list(pool.map(data_jobs.doubled, [mine] * 4))
            if any((back != 2.0 * mine).any() for back in found):
                wrong.append((me, turn))

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("level", ["map", "pool"])
def test_calls_inside_calls(level, pool):
    """With the item's array, and with one that the item makes."""
    items = [(np.full(BIG, float(n)), n) for n in range(3)]
    made = [describe(np.full(BIG, float(n))) for n in range(3)]
    if level == "map":
        found = parallel_map(data_jobs.nested_totals, items, backend="processes")
    else:
        found = pool.map(data_jobs.nested_totals, items)
    for n, (totals, described, own) in enumerate(found):
        assert totals == [float(n) * BIG] * 3
        assert described == made
        assert own == [float(n)] * 3


def test_a_fork_inside_an_item():
    """The copy of the worker and the worker do not see each other's writes to the argument."""
    found = parallel_map(data_jobs.forks, [np.ones(BIG)] * 4, backend="processes")
    assert found == [(0, 1.0, 55.0)] * 4


def test_where_workers_are_executed(pool):
    """The slow way of starting workers gives them the same memory."""
    made = [np.full(BIG, float(n)) for n in range(4)]
    with options(start_method="spawn"):
        found = parallel_map(data_jobs.doubled, made, backend="processes")
        assert [back[-1] for back in found] == [0.0, 2.0, 4.0, 6.0]
        report = parallel_map(lambda i: made[i][0], range(9)[:4], backend="processes").report
        assert report.bytes_once == 4 * BIG * 8
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        found = list(executor.map(data_jobs.doubled, made))
        assert [back[-1] for back in found] == [0.0, 2.0, 4.0, 6.0]
    assert [back.flags.writeable for back in found] == [True] * 4


FORK = """
    import os, sys, gc, warnings
    import numpy as np
    from jobs import data as data_jobs
    from parallax import parallel_map, share, shared_copy, ProcessPoolExecutor
    warnings.simplefilter("ignore", DeprecationWarning)
    def in_child(fn):
        pid = os.fork()
        if pid == 0:
            fn()
            sys.exit(7)
        return pid
    def wait(pid): return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    {body}
"""


def run(body, timeout=40):
    """Run a program with that in it; what it printed, and its errors."""
    code = textwrap.dedent(FORK).format(body=textwrap.dedent(body))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return done.stdout, done.stderr


def test_a_fork_of_the_caller_with_results():
    """Neither sees what the other writes, and what the parent drops stays right in the copy."""
    out, err = run(
        """
        results = parallel_map(data_jobs.filled, range(6), backend="processes")
        go, told = os.pipe()
        def child():
            results[0][:] = 100.0
            os.read(go, 1)
            assert (results[0] == 100.0).all()
            assert [r.min() for r in results[1:]] == [1.0, 2.0, 3.0, 4.0, 5.0]
            assert [r.max() for r in results[1:]] == [1.0, 2.0, 3.0, 4.0, 5.0]
            again = parallel_map(data_jobs.doubled, results, backend="processes")
            assert [r[5] for r in again] == [200.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        pid = in_child(child)
        assert (results[0] == 0.0).all()
        results[1][:] = -1.0
        last = results[5]
        del results
        gc.collect()
        for _ in range(5):
            others = parallel_map(data_jobs.filled, range(50, 60), backend="processes")
            assert [o.sum() / len(o) for o in others] == list(range(50, 60))
        os.write(told, b".")
        print(wait(pid), last.min(), last.max())
        """
    )
    assert (out, err) == ("7 5.0 5.0\n", "")


def test_a_fork_of_the_caller_with_shared_arrays():
    """The copy of the program has workers of its own, and sends them what they cannot map."""
    out, err = run(
        """
        fixed, free = share(np.full(300_000, 3.0)), shared_copy(np.full(300_000, 4.0))
        def use():
            found = parallel_map(data_jobs.total, [fixed, free] * 2, backend="processes")
            assert found == [900_000.0, 1_200_000.0] * 2, found
            assert parallel_map(lambda i: fixed[i] + free[i], [5], backend="processes") == [7.0]
        use()
        pid = in_child(use)
        print(wait(pid))
        use()
        pid = in_child(use)
        del fixed
        gc.collect()
        others = [np.full(300_000, float(n)) for n in range(10)]
        parallel_map(data_jobs.total, others, backend="processes")
        print(wait(pid))
        """
    )
    assert (out, err) == ("7\n7\n", "")
