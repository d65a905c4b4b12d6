"""One item of many fails, dies or does not end: the others are not touched."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import time
from concurrent.futures import CancelledError
from pathlib import Path

import jobs
import psutil
import pytest
from jobs import actions
from jobs import faults as fault_jobs
from jobs import pool as pool_jobs

from parallax import (
    Executor,
    ItemTimeoutError,
    ProcessPoolExecutor,
    SerializationError,
    ThreadPoolExecutor,
    WorkerDiedError,
    options,
    parallel_imap,
    parallel_map,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

METHODS = ("zygote", pytest.param("spawn", marks=pytest.mark.full))

MANY, FATAL = 1000, 500


@pytest.fixture(params=METHODS)
def method(request):
    """Each way of starting worker processes."""
    if request.param in {"snapshot", "zygote"} and not sys.platform.startswith("linux"):
        pytest.skip("for Linux")
    with options(start_method=request.param, backend="processes"):
        yield request.param


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def eventually(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


def others(found, bad=FATAL):
    return [value for x, value in enumerate(found) if x != bad]


# -- dying -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [None, 100])
def test_one_of_a_thousand_ends_its_worker(method, chunksize, tmp_path):
    """It fails alone; who was in flight with it may run again, and the report says who that is."""
    work = functools.partial(fault_jobs.notes_and_exits, str(tmp_path), FATAL)
    results = parallel_map(work, range(MANY), on_error="return", chunksize=chunksize)
    error = results[FATAL]
    assert type(error) is WorkerDiedError
    assert (error.index, error.exitcode, error.signal, error.oom) == (FATAL, 1, None, None)
    assert isinstance(error.pid, int)
    assert gone(error.pid)
    assert others(results) == others(range(MANY))
    ran = jobs.calls(tmp_path)
    again = {x for x, times in ran.items() if times > 1} - {FATAL}
    told = set()
    for note in results.report.notes:
        for first, last in re.findall(r"lost with items? (\d+)(?: to (\d+))?", note):
            told |= set(range(int(first), int(last or first) + 1))
    assert again <= told
    assert results.report.retried >= len(again)
    assert len(ran) == MANY
    assert max(ran.values()) <= 2


def test_alone_it_is_run_once(method, tmp_path):
    """Where each item travels alone nothing is run twice, by nobody."""
    work = functools.partial(fault_jobs.notes_and_exits, str(tmp_path), 50)
    results = parallel_map(work, range(100), on_error="return", chunksize=1)
    assert others(results, 50) == others(range(100), 50)
    assert results[50].attempts == 1
    assert jobs.calls(tmp_path) == dict.fromkeys(range(100), 1)
    assert results.report.retried == 0


def test_a_result_that_does_not_arrive(method, tmp_path):
    """Its neighbours come in the same pickle: they may run again, and the report counts them."""
    work = functools.partial(fault_jobs.notes_and_sticks, str(tmp_path), 50)
    results = parallel_map(work, range(100), on_error="return", chunksize=10)
    assert type(results[50]) is SerializationError
    assert others(results, 50) == others(range(100), 50)
    ran = jobs.calls(tmp_path)
    assert set(ran) == set(range(100))
    assert {x for x, times in ran.items() if times > 1} <= set(range(50, 60))
    assert results.report.retried == sum(ran.values()) - 100
    assert results.report.workers_lost == 0


def test_retries_run_only_what_failed(method, tmp_path):
    """Two items fail twice, one by an exception and one with its worker: each is run thrice."""
    work = functools.partial(fault_jobs.fails_twice, str(tmp_path), 30, 60)
    results = parallel_map(work, range(100), retries=2, chunksize=1)
    assert results == list(range(100))
    assert jobs.calls(tmp_path) == {x: 3 if x in {30, 60} else 1 for x in range(100)}
    assert results.report.retried == 4


def test_the_same_executor_takes_more(method):
    """After a death the executor is as it was: the same futures, as many workers."""
    import multiprocessing

    context = multiprocessing.get_context("spawn") if method == "spawn" else None
    with ProcessPoolExecutor(2, context) as executor:
        for _ in range(3):
            futures = [executor.submit(fault_jobs.exits_at, 20, x) for x in range(40)]
            found = [f.exception(30) or f.result() for f in futures]
            assert isinstance(found[20], WorkerDiedError)
            assert others(found, 20) == others(range(40), 20)
        assert len(executor._engine.workers) <= 2


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, actions.Halt])
@pytest.mark.parametrize("make", [ProcessPoolExecutor, ThreadPoolExecutor, Executor])
def test_a_callback_that_raises(make, kind, tmp_path, caplog):
    """It costs nobody anything: not the other callbacks, not the thread that others depend on."""
    called = []
    gate = str(tmp_path / "gate")
    with make(2) as executor:
        futures = [executor.submit(pool_jobs.wait_for, gate) for _ in range(2)]
        for future in futures:
            future.add_done_callback(lambda _: actions.throws(kind))
            future.add_done_callback(called.append)
        Path(gate).touch()
        # Nobody asks for these results: an executor's own thread takes them.
        assert eventually(lambda: len(called) == 2)
        assert [future.result(30) for future in futures] == [gate, gate]
        assert executor.submit(jobs.square, 3).result(30) == 9
    assert [record.getMessage()[:26] for record in caplog.records] == [
        "exception calling callback"
    ] * 2


def test_an_interrupt_in_a_callback():
    """It may reach who waits for a result, and then ends the calls; each of them ends."""
    with ProcessPoolExecutor(1) as executor:
        futures = [executor.submit(jobs.nap_square, x) for x in range(6)]
        for future in futures:
            future.add_done_callback(lambda _: actions.throws(KeyboardInterrupt))
        for future in futures:
            with contextlib.suppress(KeyboardInterrupt, CancelledError):
                future.result(30)
        assert all(future.done() for future in futures)


# -- failing at once -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["threads", *METHODS])
@pytest.mark.parametrize("call", ["map", "imap"])
def test_the_first_failure_is_raised_while_another_item_runs(way, call, tmp_path):
    """Item 0 ends only after the call has: nobody waits for it, and nothing more is begun."""
    work = functools.partial(fault_jobs.fails_beside, str(tmp_path))
    backend = "threads" if way == "threads" else "processes"
    kwargs = {"backend": backend, "chunksize": 1, "max_workers": 2}
    with options(start_method="auto" if way == "threads" else way):
        try:
            with pytest.raises(jobs.Oops) as info:
                if call == "map":
                    parallel_map(work, range(MANY), **kwargs)
                else:
                    list(parallel_imap(work, range(MANY), ordered=False, **kwargs))
            assert info.value.number == 1
        finally:
            assert not (tmp_path / "over").exists()
            (tmp_path / "release").touch()
        ran = [name for name in os.listdir(tmp_path) if name.isdigit()]
        assert len(ran) < MANY // 2
        if way == "threads":
            assert eventually((tmp_path / "over").exists)


# -- not ending ------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_error", ["return", "raise"])
def test_one_of_a_hundred_does_not_end(method, on_error):
    """It raises, its process is gone and replaced, and the others come back."""
    work = functools.partial(jobs.endless_at, 50)
    if on_error == "return":
        results = parallel_map(work, range(100), item_timeout=0.3, on_error="return", max_workers=2)
        error = results[50]
        assert others(results, 50) == others(range(100), 50)
        assert results.report.workers_lost == 1
    else:
        with pytest.raises(ItemTimeoutError) as info:
            parallel_map(work, range(100), item_timeout=0.3, max_workers=2)
        error = info.value
    assert type(error) is ItemTimeoutError
    assert (error.index, error.seconds) == (50, 0.3)
    assert eventually(lambda: gone(error.pid))
    after = set(parallel_map(jobs.pid_of, range(8), max_workers=2, chunksize=1))
    assert error.pid not in after
    assert 1 <= len(after) <= 2


def test_a_whole_call_does_not_end(method):
    """``timeout`` ends the call, and the processes that are at it."""
    begin = set(parallel_map(jobs.pid_of, range(8), max_workers=2, chunksize=1))
    with pytest.raises(TimeoutError, match=r"timeout=0\.3 s was over"):
        parallel_map(actions.never_ends, range(8), timeout=0.3, max_workers=2, chunksize=1)
    assert eventually(lambda: all(map(gone, begin)))
    assert parallel_map(jobs.square, range(4)) == [0, 1, 4, 9]
