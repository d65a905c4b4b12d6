"""How executors and the programs that use them end; scripts, forks, the collector."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import weakref

import jobs
import pytest
from jobs import pool as pool_jobs

from parallax import ProcessPoolExecutor

pytestmark = pytest.mark.sampled(2)

posix = pytest.mark.skipif(os.name != "posix", reason="fork")


def script(tmp_path, body, *, ok=True):
    """Run a program; what it printed."""
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(body))
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=40, check=False
    )
    assert (done.returncode == 0) is ok, done.stderr
    assert ok is False or done.stderr == ""
    return done.stdout


# -- shutdown --------------------------------------------------------------------------------------


def test_shutdown_waits():
    """All calls are done then; a second one changes nothing, and no call is taken."""
    executor = ProcessPoolExecutor(2)
    futures = [executor.submit(jobs.nap_square, n) for n in range(20)]
    executor.shutdown()
    assert all(f.done() for f in futures)
    assert [f.result() for f in futures] == [n * n for n in range(20)]
    executor.shutdown()
    executor.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(jobs.square, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(threading.Lock().acquire)


def test_shutdown_without_waiting(tmp_path):
    """The calls go on, and the executor ends by itself after them."""
    go = str(tmp_path / "go")
    executor = ProcessPoolExecutor(1)
    futures = [executor.submit(pool_jobs.wait_for, go), executor.submit(jobs.square, 3)]
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(jobs.square, 1)
    assert not futures[0].done()
    pool_jobs.touch(go)
    assert [f.result(30) for f in futures] == [go, 9]
    executor.shutdown()


@pytest.mark.parametrize("wait", [False, True])
def test_shutdown_cancels(tmp_path, wait):
    """What no worker has is cancelled, what one has is finished."""
    go, started = str(tmp_path / "go"), str(tmp_path / "started")
    executor = ProcessPoolExecutor(1)
    running = executor.submit(pool_jobs.started_then_wait, started, go)
    pool_jobs.wait_for(started)
    waiting = [executor.submit(jobs.square, n) for n in range(50)]
    waiting[-1].add_done_callback(lambda _: pool_jobs.touch(go))
    executor.shutdown(wait=wait, cancel_futures=True)
    assert all(f.cancelled() for f in waiting)
    assert running.result(30) > 0
    executor.shutdown()


def test_shutdown_at_once():
    """Before anything was submitted, and right after."""
    ProcessPoolExecutor(2).shutdown()
    for _ in range(5):
        executor = ProcessPoolExecutor(2)
        futures = [executor.submit(jobs.square, n) for n in range(3)]
        executor.shutdown(cancel_futures=True)
        assert all(f.cancelled() or f.result() == n * n for n, f in enumerate(futures))


def test_shutdown_from_several_threads():
    """All return when it is over."""
    executor = ProcessPoolExecutor(2)
    future = executor.submit(jobs.nap_square, 3)
    threads = [threading.Thread(target=executor.shutdown) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert future.result() == 9


def test_shutdown_in_a_callback():
    """The thread that would be waited for does not wait for itself."""
    executor = ProcessPoolExecutor(1)
    done = threading.Event()

    def end(_):
        executor.shutdown()
        done.set()

    executor.submit(jobs.nap_square, 3).add_done_callback(end)
    assert done.wait(30)
    executor.shutdown()


def test_while_one_thread_waits_another_shuts_down(tmp_path):
    """The waiting one gets its result."""
    go = str(tmp_path / "go")
    executor = ProcessPoolExecutor(1)
    future = executor.submit(pool_jobs.wait_for, go)
    got = []
    waiter = threading.Thread(target=lambda: got.append(future.result()))
    waiter.start()
    ender = threading.Thread(target=executor.shutdown)
    ender.start()
    pool_jobs.touch(go)
    waiter.join()
    ender.join()
    assert got == [go]


def test_with_block_that_raises():
    """It waits for the calls, as ever, and lets the exception through."""
    with pytest.raises(KeyError), ProcessPoolExecutor(2) as executor:
        future = executor.submit(jobs.nap_square, 3)
        raise KeyError
    assert future.result() == 9


@pytest.mark.parametrize("cycle", [False, True])
def test_garbage(cycle):
    """An executor that nobody has any more finishes its calls and is gone."""
    executor = ProcessPoolExecutor(2)
    futures = [executor.submit(jobs.nap_square, n) for n in range(10)]
    gone = weakref.ref(executor)
    if cycle:
        executor.me = executor
    del executor
    gc.collect()
    assert gone() is None
    assert [f.result(30) for f in futures] == [n * n for n in range(10)]


# -- programs --------------------------------------------------------------------------------------

METHODS = (
    pytest.param("None", id="auto"),
    pytest.param(
        "__import__('multiprocessing').get_context('spawn')", id="spawn", marks=pytest.mark.full
    ),
)


@pytest.mark.parametrize("context", METHODS)
def test_main_script(tmp_path, context):
    """Functions of ``__main__``, without a guard, and globals that an initializer has set."""
    out = script(
        tmp_path,
        f"""
        from parallax import ProcessPoolExecutor
        class Point:
            def __init__(self, x): self.x = x
        STATE, FILLED, FACTOR = "unset", {{}}, 2
        def setup(value):
            global STATE
            STATE = value
            FILLED["key"] = value
        def state(): return STATE, FILLED, FACTOR
        def indirectly(): return state()
        def change(): FILLED["more"] = 1
        def point(p):
            assert type(p) is Point
            return Point(p.x * FACTOR)
        with ProcessPoolExecutor(1, {context}, setup, ("set",)) as ex:
            print(ex.submit(state).result())
            print(ex.submit(indirectly).result())
            ex.submit(change).result()
            print(ex.submit(lambda: FILLED).result())
        print(STATE)
        with ProcessPoolExecutor(2, {context}) as ex:
            p = ex.submit(point, Point(3)).result()
            print(type(p) is Point, p.x)
            for FACTOR in (3, 4):
                print(ex.submit(point, Point(1)).result().x, ex.submit(indirectly).result()[2])
            def late(): return LATER
            assert type(ex.submit(late).exception()) is NameError
            LATER = 5
            print(ex.submit(late).result())
            print(list(ex.map(lambda x: x + FACTOR, range(5), chunksize=2)))
        """,
    )
    assert out.splitlines() == [
        "('set', {'key': 'set'}, 2)",
        "('set', {'key': 'set'}, 2)",
        "{'key': 'set', 'more': 1}",
        "unset",
        "True 6",
        "3 3",
        "4 4",
        "5",
        "[4, 5, 6, 7, 8]",
    ]


@pytest.mark.parametrize("context", METHODS)
def test_initializer_fills_what_a_module_holds(tmp_path, context):
    """A resource that is kept in a module's dictionary is there for the calls."""
    (tmp_path / "shelf.py").write_text(
        "HELD, COUNT = {}, 0\n"
        "def fill(x):\n  global COUNT\n  COUNT = 1\n  HELD['x'] = x\n"
        "def held(): return HELD, COUNT\n"
        "def again(): return dict(HELD), COUNT\n"
    )
    out = script(
        tmp_path,
        f"""
        import shelf
        from parallax import ProcessPoolExecutor
        shelf.COUNT = 7
        with ProcessPoolExecutor(1, {context}, shelf.fill, (3,)) as ex:
            print(ex.submit(shelf.held).result(), ex.submit(shelf.again).result())
        with ProcessPoolExecutor(1, {context}) as ex:
            print(ex.submit(shelf.held).result())
        """,
    )
    assert out == "({'x': 3}, 1) ({'x': 3}, 1)\n({}, 7)\n"


@pytest.mark.parametrize("context", METHODS)
@pytest.mark.parametrize("end", ["", "raise SystemExit(0)"])
def test_pending_calls_are_finished_at_exit(tmp_path, context, end):
    """As the standard library does: a program that falls off its end loses nothing."""
    out = script(
        tmp_path,
        f"""
        import os, time
        from parallax import ProcessPoolExecutor
        def work(x):
            time.sleep(0.01)
            return x
        ex = ProcessPoolExecutor(2, {context})
        futures = [ex.submit(work, n) for n in range(12)]
        for f in futures:
            f.add_done_callback(lambda f: print(f.result(), flush=True))
        {end}
        """,
    )
    assert sorted(map(int, out.split())) == list(range(12))


def test_callbacks_and_threads_at_exit(tmp_path):
    """A thread that is still waiting for a result gets it."""
    out = script(
        tmp_path,
        """
        import threading, time
        from parallax import ProcessPoolExecutor
        ex = ProcessPoolExecutor(1)
        f = ex.submit(time.sleep, 0.1)
        threading.Thread(target=lambda: print(f.result())).start()
        """,
    )
    assert out == "None\n"


@posix
def test_a_forked_child(tmp_path):
    """It cannot use its parent's executor, harms nothing, and can have its own."""
    out = script(
        tmp_path,
        """
        import os, sys, warnings
        warnings.simplefilter("ignore")
        from parallax import ProcessPoolExecutor
        ex = ProcessPoolExecutor(2)
        futures = [ex.submit(pow, n, 2) for n in range(20)]
        pid = os.fork()
        if pid == 0:
            try:
                ex.submit(pow, 2, 2)
            except Exception as error:
                print(type(error).__name__, error, flush=True)
            ex.shutdown()
            with ProcessPoolExecutor(1) as own:
                print(own.submit(pow, 3, 2).result(), flush=True)
            del ex
            sys.exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        futures += [ex.submit(pow, n, 2) for n in range(20)]
        assert [f.result() for f in futures] == [n * n for n in range(20)] * 2
        print("fine")
        """,
    )
    assert out.splitlines() == [
        "BrokenProcessPool this executor belongs to the process that forked this one",
        "9",
        "0",
        "fine",
    ]


def test_calls_use_executors_of_their_own():
    """A call may do what the program does."""

    def nested(x):
        from parallax import ProcessPoolExecutor

        with ProcessPoolExecutor(1) as executor:
            return executor.submit(pow, x, 2).result()

    with ProcessPoolExecutor(2) as executor:
        assert list(executor.map(nested, range(3))) == [0, 1, 4]


@posix
def test_workers_of_a_pool_that_recycles_are_reaped():
    """No zombie is left behind by each of them."""
    import psutil

    with ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as executor:
        for n in range(5):
            assert executor.submit(jobs.square, n).result() == n * n
    zombies = [p for p in psutil.Process().children() if p.status() == psutil.STATUS_ZOMBIE]
    assert zombies == []
