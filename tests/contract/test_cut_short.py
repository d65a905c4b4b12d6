"""What was cut short does not look complete, however it was cut: its reader gets an error.

Before the error come the results that were finished, in order and without a gap; after it the
iterator is at its end, as a generator is.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import itertools
import signal
import subprocess
import sys
import textwrap
import threading
import time

import jobs
import pytest
from helpers.executor_kinds import CONCURRENT, KINDS, OUTSIDE, SOON
from jobs import pool as pool_jobs

import parallax
from parallax import parallel, parallel_imap
from tests.helpers.leaks import close_default_executors

pytestmark = pytest.mark.sampled(3)

CUT = (concurrent.futures.CancelledError, concurrent.futures.BrokenExecutor)
COUNT = 200


def gated(go, n):
    """The first items return at once, the others when there is a file."""
    if n > 2:
        pool_jobs.wait_for(go)
    return n * n


def function(kind, go):
    """Of a serial executor the thread that would open the gate runs the items."""
    return jobs.square if kind == "serial" else functools.partial(gated, str(go))


def read(results):
    """All results, and what ended them: None if nothing did."""
    found = []
    try:
        found.extend(results)
    except Exception as error:
        return found, error
    return found, None


def check_cut(results, start=0, error=CUT, count=COUNT):
    """They end with an error before all are there; afterwards there is nothing."""
    found, ended = read(results)
    assert isinstance(ended, error)
    assert found == [n * n for n in range(start, start + len(found))]
    assert start + len(found) < count
    assert [next(results, "nothing") for _ in range(3)] == ["nothing"] * 3


def interrupted(executor):
    """Leave a block by Ctrl-C."""
    with pytest.raises(KeyboardInterrupt), executor:
        raise KeyboardInterrupt


CUTS = {
    "shutdown": lambda e: e.shutdown(cancel_futures=True),
    "shutdown without waiting": lambda e: e.shutdown(wait=False, cancel_futures=True),
    "interrupt": interrupted,
    "kill": lambda e: getattr(e, "kill_workers", functools.partial(interrupted, e))(),
    "terminate": lambda e: getattr(e, "terminate_workers", functools.partial(interrupted, e))(),
}


@pytest.mark.sampled(22)
@pytest.mark.parametrize("form", [list, iter, "chunks", "buffer"])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_map_that_is_cut_short(kind, cut, begun, form, tmp_path):
    """By a shutdown that cancels, by Ctrl-C, or by the end of the workers."""
    go = tmp_path / "go"
    given = {"chunks": {"chunksize": 3}, "buffer": {"buffersize": 4}}.get(form, {})
    executor = KINDS[kind](2)
    timer = threading.Timer(0.1, go.touch)  # a shutdown that waits waits for the calls that run
    try:
        items = form(range(COUNT)) if callable(form) else range(COUNT)
        results = executor.map(function(kind, go), items, **given)
        if begun:
            assert next(results) == 0
        timer.start()
        CUTS[cut](executor)
        check_cut(results, int(begun))
    finally:
        go.touch()
        timer.cancel()
        executor.shutdown()


def telling(results, some):
    """The results; the event is set when one was read."""
    for result in results:
        some.set()
        yield result


@pytest.mark.parametrize("kind", CONCURRENT)
def test_a_reader_in_another_thread(kind, tmp_path):
    """It waits for a call that runs while the executor is shut down."""
    go, some = tmp_path / "go", threading.Event()
    executor = KINDS[kind](2)
    results = executor.map(functools.partial(gated, str(go)), iter(range(COUNT)))
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        try:
            outcome = other.submit(read, telling(results, some))
            assert some.wait(SOON)
            executor.shutdown(wait=False, cancel_futures=True)
        finally:
            go.touch()
        found, error = outcome.result(SOON)
    executor.shutdown()
    assert isinstance(error, CUT)
    assert found == [n * n for n in range(len(found))]
    assert len(found) < COUNT


@pytest.mark.sampled(6)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 3, "window"])
def test_a_complete_map_stays_complete(kind, count):
    """Nothing is missing where all items were run before the executor is shut down."""
    with KINDS[kind](2) as executor:
        executor.submit(jobs.square, 1).result(SOON)
        ahead = executor._engine.ahead
        count = ahead if count == "window" else min(count, ahead)
        results = executor.map(jobs.square, list(range(count)))
        concurrent.futures.wait([each[0] for each in results._ahead], SOON)
        executor.shutdown(cancel_futures=True)
    assert list(results) == [n * n for n in range(count)]


def test_a_cut_waits_for_no_input():
    """A thread that waits inside the input keeps nobody from ending the map."""
    inside, go = threading.Event(), threading.Event()

    def items():
        yield from range(50)
        inside.set()
        go.wait(SOON)
        yield from range(50, COUNT)

    executor = parallax.ThreadPoolExecutor(1)
    results = executor.map(jobs.square, items())
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        try:
            outcome = other.submit(read, results)
            assert inside.wait(SOON)
            executor.shutdown(wait=False, cancel_futures=True)
            assert not go.is_set()
        finally:
            go.set()
        found, error = outcome.result(SOON)
    assert isinstance(error, CUT)
    assert found == [n * n for n in range(len(found))]
    assert len(found) < COUNT


@pytest.mark.parametrize("kind", OUTSIDE)
def test_items_of_killed_workers_are_not_run_again(kind, tmp_path):
    """Those of one message are otherwise, to find the one that killed its worker."""
    log, go = str(tmp_path / "log"), str(tmp_path / "go")

    def work(n):
        pool_jobs.note(log, n)
        pool_jobs.wait_for(go)

    executor = KINDS[kind](1)
    results = executor.map(work, range(20), chunksize=10)
    pool_jobs.wait_for(log)
    interrupted(executor)
    ran = pool_jobs.noted(log)
    check_cut(results)
    assert pool_jobs.noted(log) == ran
    assert set(ran) <= {0}  # the worker may have been ended before it had written that


# -- closing ---------------------------------------------------------------------------------------


def stream(kind, go):
    """An iterator of squares, and what keeps it alive."""
    fn = functools.partial(gated, str(go))
    if kind in KINDS:
        executor = KINDS[kind](2)
        return executor.map(fn, iter(range(COUNT))), executor.shutdown
    if kind == "decorated":
        return parallel(fn, backend="threads").imap(iter(range(COUNT))), int
    return kind(fn, iter(range(COUNT))), int


def imap(**options):
    return functools.partial(parallel_imap, **options)


STREAMS = [
    pytest.param("ThreadPoolExecutor", id="executor"),
    "processes",
    "auto",
    "decorated",
    pytest.param(imap(backend="threads"), id="imap threads"),
    pytest.param(imap(backend="processes", max_workers=2), id="imap processes"),
    pytest.param(imap(backend="threads", ordered=False), id="imap unordered"),
    pytest.param(imap(backend="threads", retries=2, on_error="return"), id="imap retries"),
    pytest.param(imap(backend="processes", item_timeout=60, max_workers=2), id="imap timeout"),
]


@pytest.mark.parametrize("kind", STREAMS)
def test_who_closes_it_gets_no_more(kind, tmp_path):
    """As with a generator: quietly."""
    results, end = stream(kind, tmp_path / "go")
    assert next(results) in {0, 1, 4}
    results.close()
    assert list(results) == []
    (tmp_path / "go").touch()
    end()


@pytest.mark.parametrize("kind", STREAMS)
def test_another_thread_closes_it_between_two_reads(kind, tmp_path):
    """The reader, which knows nothing of that, is told."""
    go = tmp_path / "go"
    results, end = stream(kind, go)
    try:
        assert next(results) in {0, 1, 4}
        closer = threading.Thread(target=results.close)
        closer.start()
        closer.join(SOON)
    finally:
        go.touch()
    found, error = read(results)
    assert isinstance(error, concurrent.futures.CancelledError)
    assert len(found) < COUNT - 1
    assert list(results) == []
    end()


@pytest.mark.parametrize("kind", STREAMS)
def test_another_thread_closes_it_while_the_reader_waits(kind, tmp_path):
    """That ends the wait, or the wait ends with the call that is waited for."""
    go = tmp_path / "go"
    results, end = stream(kind, go)
    some = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        try:
            outcome = other.submit(read, telling(results, some))
            assert some.wait(SOON)
            time.sleep(0.02)
            results.close()
            if kind not in KINDS:
                outcome.exception(SOON)
        finally:
            go.touch()
        found, error = outcome.result(SOON)
    assert isinstance(error, concurrent.futures.CancelledError)
    assert len(found) < COUNT
    end()


def test_a_stream_in_a_loop_is_closed_by_another_thread():
    """The reader itself runs the items: it is told when it is back from them."""
    inside, go = threading.Event(), threading.Event()

    def item(n):
        if n == 3:
            inside.set()
            go.wait(SOON)
        return n * n

    results = parallel_imap(item, range(COUNT), backend="serial")
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        try:
            outcome = other.submit(read, results)
            assert inside.wait(SOON)
            results.close()
        finally:
            go.set()
        found, error = outcome.result(SOON)
    assert isinstance(error, concurrent.futures.CancelledError)
    assert found == [n * n for n in range(len(found))]
    assert len(found) < COUNT


# -- coroutines ------------------------------------------------------------------------------------


async def found_until(results, error):
    found = []
    with pytest.raises(error):
        async for each in results:
            found.append(each)  # noqa: PERF401 - what came before the error counts
    assert [each async for each in results] == []
    return found


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor", "auto"])
def test_amap_whose_executor_is_shut_down(kind, ordered, tmp_path):
    """As for any awaitable: what was cancelled raises asyncio's CancelledError, or the refusal."""
    go = tmp_path / "go"
    executor = KINDS[kind](1)

    async def main():
        with parallax.options(backend=executor):
            results = parallax.amap(functools.partial(gated, str(go)), range(20), ordered=ordered)
        loop = asyncio.get_running_loop()
        loop.call_later(0.1, functools.partial(executor.shutdown, False, cancel_futures=True))
        try:
            loop.call_later(0.2, go.touch)
            found = await found_until(results, (asyncio.CancelledError, RuntimeError))
        finally:
            go.touch()
        assert found == [n * n for n in range(len(found))]
        assert len(found) < 20

    asyncio.run(main())
    executor.shutdown()


@pytest.mark.parametrize("ordered", [True, False])
def test_amap_whose_tasks_are_cancelled_by_another(ordered):
    """As programs do that end all tasks but the present one. It used to wait for ever."""

    async def item(n):
        if n > 2:
            await asyncio.sleep(60)
        return n

    async def main():
        me = asyncio.current_task()
        results = parallax.amap(item, itertools.count(), concurrency=8, ordered=ordered)

        def cancel_others():
            for task in asyncio.all_tasks() - {me}:
                task.cancel()

        asyncio.get_running_loop().call_later(0.05, cancel_others)
        assert sorted(await found_until(results, asyncio.CancelledError)) == [0, 1, 2]

    asyncio.run(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_amap_whose_input_was_cancelled(ordered):
    """The input awaits something that is cancelled. It used to wait for ever."""

    async def items():
        yield 1
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def main():
        results = parallax.amap(jobs.square, items(), ordered=ordered)
        assert await found_until(results, asyncio.CancelledError) == [1]

    with parallax.options(backend="threads"):
        asyncio.run(asyncio.wait_for(main(), SOON))
    close_default_executors()


# -- the end of the program ------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals")
@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor", "Executor"])
@pytest.mark.parametrize("end", ["raise KeyboardInterrupt", "pass"])
def test_a_thread_reads_when_the_program_ends(kind, end, tmp_path):
    """Of an input that may be endless not all items are run; the thread is told."""
    path = tmp_path / "script.py"
    path.write_text(
        textwrap.dedent(f"""
        import itertools, threading, time, parallax
        def item(n):
            time.sleep(0.005)
            return n
        def read():
            executor = parallax.{kind}(2)
            found = []
            try:
                for n in executor.map(item, itertools.count()):
                    found.append(n)
                    some.set()
            except Exception as error:
                print(type(error).__name__, found == list(range(len(found))))
            else:
                print("complete")
        some = threading.Event()
        threading.Thread(target=read).start()
        some.wait(30)
        {end}
        """)
    )
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=40, check=False
    )
    name, in_order = done.stdout.split()
    assert name in {"CancelledError", "RuntimeError", "LostCallError", "BrokenProcessPool"}
    assert in_order == "True"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="fork")
@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor", "Executor"])
def test_a_map_in_a_forked_child(kind, tmp_path):
    """It is the parent's; the child gets what was finished, and an error, and does not wait."""
    path = tmp_path / "script.py"
    path.write_text(
        textwrap.dedent(f"""
        import os, sys, threading, time, warnings
        import parallax
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork with threads
        def item(n):
            if n > 3:
                time.sleep(0.06)
            return n
        executor = parallax.{kind}(2)
        results = executor.map(item, range(30))
        first = next(results)
        pid = os.fork()
        if pid == 0:
            found = [first]
            try:
                found.extend(results)
            except parallax._executors.map_results.BrokenExecutor as error:
                assert "process that forked" in str(error)
                assert found == list(range(len(found))) and len(found) < 30
                os._exit(0)
            os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert [first, *results] == list(range(30))
        executor.shutdown()
        sys.exit(status)
        """)
    )
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=40, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
