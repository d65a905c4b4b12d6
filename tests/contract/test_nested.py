"""Calls inside items: right answers, no deadlock, and no more workers than the machine has."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading

import jobs
import pytest
from helpers.backends import OUTSIDE, notes_of
from jobs import nested as nested_jobs

from parallax import ItemTimeoutError, cpu_count, parallel_imap, parallel_map
from parallax._core import nesting

pytestmark = pytest.mark.sampled(2)

INNER = ["auto", "serial", "threads", "processes"]


@pytest.mark.parametrize("inner", INNER)
def test_answers(backend, inner):
    """A ``parallel_map`` inside an item gives right results, whatever the two ways are."""
    work = functools.partial(nested_jobs.squares, inner)
    got = parallel_map(work, [0, 1, 5, 20], backend=backend)
    assert got == [[x * x for x in range(n)] for n in (0, 1, 5, 20)]


@pytest.mark.parametrize("inner", INNER)
def test_streams(backend, inner):
    """A stream read inside the items of a stream."""
    work = functools.partial(nested_jobs.streamed_squares, inner)
    got = list(parallel_imap(work, [0, 1, 5, 20], backend=backend))
    assert got == [[x * x for x in range(n)] for n in (0, 1, 5, 20)]


@pytest.mark.parametrize("inner", ["auto", "threads"])
def test_recursion(backend, inner):
    """A function that calls ``parallel_map`` on itself, six deep."""
    assert parallel_map(functools.partial(nested_jobs.tree, inner), [6], backend=backend) == [64]


def test_an_exception_names_the_item_of_each_call(backend):
    """The notes say which item failed in the inner call, then in the outer one."""
    with pytest.raises(jobs.Oops) as caught:
        parallel_map(functools.partial(nested_jobs.fails_at, 3), range(4), backend=backend)
    notes = [note for note in notes_of(caught.value) if "item" in note]
    assert ["item 3" in notes[0], "item 2" in notes[1]] == [True, True]


# -- who works -------------------------------------------------------------------------------------


@pytest.mark.variants("threads", "processes", "spawn", "executor")
def test_processes_are_not_started_by_workers(backend):
    """Asked for by name inside a worker they are a loop, and the report says so."""
    work = functools.partial(nested_jobs.report_of, "processes", 4)
    for route, workers, reason in parallel_map(work, [jobs.square] * 2, backend=backend):
        assert (route, workers) == ("loop", 1)
        assert "inside a worker of another parallel call" in reason


@pytest.mark.variants(*OUTSIDE)
def test_waiting_work_gets_threads_in_a_worker_process(backend):
    """Work that waits is spread over threads whatever the budget of cores is."""
    work = functools.partial(nested_jobs.report_of, "auto", 12)
    got = parallel_map(work, [nested_jobs.long_nap] * 2, backend=backend, max_workers=2)
    assert {route for route, _, _ in got} == {"threads"}
    assert max(workers for _, workers, _ in got) <= 16


@pytest.mark.variants("threads", "processes", "spawn", "executor")
def test_the_thread_that_calls_works_too(backend):
    """Threads asked for by name inside a worker: its own thread is one of them."""
    work = functools.partial(nested_jobs.threads_of, "threads")
    for caller, used in parallel_map(work, [12, 12], backend=backend, max_workers=2):
        assert caller in used
        assert len(used) <= max(cpu_count(), (cpu_count() + 4) // 2)


@pytest.mark.variants("threads", "processes", "auto")
def test_options_hold_where_the_calling_thread_works_too(backend):
    """Items that wait for each other, retries, errors as results and the limit of the whole."""
    assert parallel_map(nested_jobs.meets, [0, 1], backend=backend) == [list(range(6))] * 2
    got = parallel_map(nested_jobs.fails_once_each, [0, 1], backend=backend)
    assert got == [[x + 1 for x in range(6)]] * 2
    names = ["int"] * 3 + ["ZeroDivisionError"] + ["int"] * 2
    assert parallel_map(nested_jobs.errors, [0, 1], backend=backend) == [names] * 2
    for begun in parallel_map(nested_jobs.times_out, [0, 1], backend=backend):
        assert begun < 100


@pytest.mark.variants("threads", "processes")
def test_the_third_level_is_a_loop(backend):
    """Work that was divided twice is not divided again."""
    got = parallel_map(nested_jobs.route_two_levels_down, ["threads"] * 2, backend=backend)
    assert got == [["loop"] * 2] * 2


def test_items_that_are_parallel_themselves_keep_the_outer_call_a_loop():
    """Seen from outside such items wait; threads for them would only divide the same cores."""
    work = functools.partial(nested_jobs.report_of, "threads", 6)
    got = parallel_map(work, [nested_jobs.long_nap] * 6)
    assert {route for route, _, _ in got} == {"threads"}
    assert got.report.route == "loop"
    assert "parallel calls" in got.report.reason


# -- budgets ---------------------------------------------------------------------------------------


@pytest.mark.variants("threads", "processes", "spawn", "executor")
@pytest.mark.parametrize(("cores", "workers"), [(8, 2), (2, 2), (3, 2), (1, 2), (9, 1)])
def test_budget(backend, monkeypatch, cores, workers):
    """Each of W workers on C cores has C // W of them; the public count stays what it is."""
    monkeypatch.setattr(nesting, "usable_cores", lambda: cores)
    got = parallel_map(nested_jobs.place, range(8), backend=backend, max_workers=workers)
    assert set(got) == {(1, max(1, cores // workers), workers, cpu_count())}


@pytest.mark.variants("serial")
def test_a_loop_keeps_the_whole_budget(backend):
    """Items of a plain loop are in no worker."""
    assert set(parallel_map(nested_jobs.place, range(4), backend=backend)) == {
        (0, None, 1, cpu_count())
    }


@pytest.mark.cold_pool
@pytest.mark.variants("processes", "auto")
def test_sixteen_callers_share_the_workers(backend):
    """Sixteen threads that call at once get right results from at most ``cpu_count()`` workers."""
    barrier = threading.Barrier(16)
    answers = {}

    def call(caller):
        barrier.wait(10)
        pids = parallel_map(jobs.pid_of, range(12), backend=backend)
        answers[caller] = set(pids), parallel_map(lambda x: (caller, x), range(9), backend=backend)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {c: r for c, (_, r) in answers.items()} == {
        c: [(c, x) for x in range(9)] for c in range(16)
    }
    here = {jobs.pid_of(0)}
    assert len(set().union(*(pids for pids, _ in answers.values())) - here) <= cpu_count()


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.variants("threads", "processes", "spawn", "auto", "executor")
def test_item_timeout_is_refused_where_it_cannot_be_kept(backend):
    """Only a process can be ended, and workers start none: no route may drop the limit."""
    with pytest.raises(ValueError, match="item_timeout cannot be kept in a call that is made"):
        parallel_map(functools.partial(nested_jobs.timed, 5), range(4), backend=backend)


@pytest.mark.variants("processes", "spawn", "auto")
def test_item_timeout_inside_a_call_with_a_shorter_one(backend):
    """The outer limit ends the inner item in time, so the inner one is kept."""
    work = functools.partial(nested_jobs.timed, 9)
    assert parallel_map(work, range(4), backend=backend, item_timeout=8) == [[0], [1], [4], [9]]


def test_item_timeout_inside_a_loop():
    """Items of a serial call are in no worker, so their own calls may have any."""
    got = parallel_map(nested_jobs.endless_inside, [0, 1], backend="serial", on_error="return")
    assert got[0] == [0]
    assert isinstance(got[1], ItemTimeoutError)


# -- executors of the caller's ---------------------------------------------------------------------

WAITING = """
import threading
from concurrent.futures import ThreadPoolExecutor
from parallax import parallel_map
executor = ThreadPoolExecutor(2)
barrier = threading.Barrier(2)
def outer(n):
    barrier.wait(5)  # both threads of the executor are inside an item now
    return list(parallel_map(abs, range(n), backend=executor))
"""


@pytest.mark.parametrize(
    "call",
    ["parallel_map(outer, [3, 3], backend=executor, chunksize=1)", "executor.map(outer, [3, 3])"],
)
def test_an_executor_used_inside_its_own_threads(call):
    """It does not wait for itself for ever, whoever gave it the outer items."""
    program = f"{WAITING}\nprint(list({call}))\n"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.stdout, done.stderr) == ("[[0, 1, 2], [0, 1, 2]]\n", "")
