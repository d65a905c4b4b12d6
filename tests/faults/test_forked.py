"""Workers that are forked from the program: nothing of it goes on in them, and they end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
from helpers.process_ends import living

from parallax import options, parallel_map
from parallax._core.fork_pauses import quiet_fork

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")

BEGIN = """
import multiprocessing, os, signal, sys, threading, time
from parallax import ProcessPoolExecutor, parallel_map
fork = multiprocessing.get_context("fork")
"""


def program(text, *flags, limit=50):
    """Run a program to its end; what it printed."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", BEGIN + textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_killed_program_leaves_none(busy):
    """Not even one that is in the middle of a long call."""
    text = f"""
    pool = ProcessPoolExecutor(2, mp_context=fork)
    pids = set()
    while len(pids) < 2:
        pids |= set(pool.map(lambda n: (time.sleep(0.01), os.getpid())[1], range(10)))
    if {busy}:
        running = [pool.submit(time.sleep, 60) for _ in range(2)]
        while not all(future.running() for future in running):
            time.sleep(0.001)
    print(*pids, flush=True)
    time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN + textwrap.dedent(text)], stdout=subprocess.PIPE, text=True
    ) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        process.kill()
    assert living(pids, 10) == []


def test_exit_handlers_and_buffers_are_the_programs():
    """They run once, and what was not written yet is written once."""
    out = program("""
    import atexit
    atexit.register(print, "at the end")
    sys.stdout.write("begun ")
    with ProcessPoolExecutor(2, mp_context=fork) as pool:
        assert list(pool.map(abs, range(-9, 1))) == list(range(9, -1, -1))
    """)
    assert out == "begun at the end\n"


def test_classes_and_globals_of_the_main_script():
    """They are the program's own in a worker, whether they were there at the fork or not."""
    out = program("""
    import enum
    class Item:
        def __init__(self, x):
            self.x = x
    class Colour(enum.Enum):
        RED = 1
    def keep(*things):
        global kept
        kept = things
    def work(item, colour):
        item.x += kept[1].x
        with kept[0]:
            return isinstance(item, Item) and colour is Colour.RED and type(kept[1]) is Item, item
    lock = fork.Lock()
    with ProcessPoolExecutor(2, fork, initializer=keep, initargs=(lock, Item(3))) as pool:
        found, item = pool.submit(work, Item(4), Colour.RED).result()
        assert found and type(item) is Item and item.x == 7
        class Later(Item):
            pass
        def later(item):
            return isinstance(item, Later) and isinstance(item, Item) and kept[1].x, item
        found, item = pool.submit(later, Later(5)).result()
        assert found == 3 and type(item) is Later
    """)
    assert out == ""


def test_from_a_loop_of_asyncio():
    """What it set up for signals stays the program's."""
    out = program("""
    import asyncio
    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, print, "terminated")
        with ProcessPoolExecutor(2, mp_context=fork) as pool:
            calls = [loop.run_in_executor(pool, abs, -n) for n in range(20)]
            assert await asyncio.gather(*calls) == list(range(20))
            run = lambda: asyncio.run(asyncio.sleep(0, 5))
            assert await loop.run_in_executor(pool, run) == 5
            print(signal.Signals(-1 * await ended(loop, pool)).name)
    async def ended(loop, pool):
        try:
            await loop.run_in_executor(pool, terminate)
        except Exception as error:
            return error.exitcode
    def terminate():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    asyncio.run(main())
    """)
    assert out == "SIGTERM\n"


@pytest.mark.parametrize("how", ["signal.SIG_IGN", "reap"])
def test_a_program_that_takes_the_status_of_its_children(how):
    """The call that a worker died in fails all the same, and the worker is replaced."""
    out = program(f"""
    def reap(*_):
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
    signal.signal(signal.SIGCHLD, {how})
    with ProcessPoolExecutor(1, mp_context=fork) as pool:
        for n in range(5):
            assert pool.submit(abs, -n).result() == n
            error = pool.submit(os._exit, 3).exception()
            assert type(error).__name__ == "LostCallError", error
    print("done")
    """)
    assert out == "done\n"


def test_forking_while_threads_hold_locks():
    """Those of the executor, of its pool and of the standard library's streams are made anew."""
    out = program(
        """
    import logging
    from concurrent.futures import wait
    stop = threading.Event()
    sink = logging.FileHandler(os.devnull)
    logging.getLogger().addHandler(sink)
    def noise():
        while not stop.is_set():
            logging.warning("noise")
            wait([pool.submit(abs, -1) for _ in range(20)])
    def calls():
        while not stop.is_set():
            assert parallel_map(abs, range(20), backend="processes") == list(range(20))
    pool = ProcessPoolExecutor(2, mp_context=fork)
    threads = [threading.Thread(target=noise), threading.Thread(target=calls)]
    for thread in threads:
        thread.start()
    for n in range(5):
        error = pool.submit(os._exit, 3).exception()
        assert type(error).__name__ == "LostCallError", error
        with ProcessPoolExecutor(2, mp_context=fork) as other:
            assert list(other.map(abs, range(5))) == list(range(5))
    stop.set()
    for thread in threads:
        thread.join()
    pool.shutdown()
    print("done")
    """,
        "-W",
        "ignore::DeprecationWarning",
    )
    assert out == "done\n"


@pytest.mark.cold_pool
def test_no_fork_while_another_thread_executes(monkeypatch):
    """It would keep the pipe open by which ``subprocess`` hears that the program was executed."""
    forked, waited = threading.Event(), []

    def fork():
        if (pid := quiet_fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        forked.set()

    class Popen(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            threading.Thread(target=fork).start()
            waited.append(not forked.wait(0.1))
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    with options(start_method="spawn"):
        assert parallel_map(abs, [-1], backend="processes", max_workers=1) == [1]
    assert forked.wait(30)
    assert waited
    assert waited[0]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("count", [10, pytest.param(500, marks=pytest.mark.full)])
def test_pools_started_beside_threads_and_blas(count):
    """No worker inherits a lock that is held, and Python does not warn of one."""
    out = program(
        f"""
    import numpy as np
    stop = threading.Event()
    matrix = np.ones((200, 200))
    def work():
        while not stop.is_set():
            np.dot(matrix, matrix)
    np.dot(matrix, matrix)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    def dot(x):
        return float(np.dot(matrix, matrix)[0, 0]) + x
    for _ in range({count}):
        with ProcessPoolExecutor(2) as pool:
            assert pool.submit(dot, 1).result(30) == 201
    assert parallel_map(dot, range(4), backend="processes") == [200, 201, 202, 203]
    stop.set()
    for thread in threads:
        thread.join()
    print("done")
    """,
        "-W",
        "error::DeprecationWarning",
        limit=170,
    )
    assert out == "done\n"


def test_no_warning_about_our_own_threads():
    """A worker is replaced when the executor has a thread of its own."""
    out = program(
        """
    with ProcessPoolExecutor(1, mp_context=fork) as pool:
        for _ in range(3):
            assert type(pool.submit(os._exit, 3).exception()).__name__ == "LostCallError"
    print(threading.active_count())
    """,
        "-W",
        "always",
    )
    assert out == "1\n"


def test_what_multiprocessing_starts_by_default():
    """Asking for it does not choose it."""
    out = program("""
    from parallax._backends.processes.start.initializer import forks_by_default
    assert forks_by_default() == (multiprocessing.get_all_start_methods()[0] == "fork")
    assert multiprocessing.get_start_method(allow_none=True) is None
    multiprocessing.set_start_method("spawn")
    assert not forks_by_default()
    multiprocessing.set_start_method("fork", force=True)
    assert forks_by_default()
    """)
    assert out == ""


def test_ctrl_c_reaches_the_program_only():
    """Its workers go on: the program decides what becomes of them."""
    text = """
    pool = ProcessPoolExecutor(1, mp_context=fork)
    pool.submit(abs, 1).result()
    go = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: go.set())
    running = pool.submit(lambda: (print("begun", flush=True), time.sleep(0.2), 7)[2])
    go.wait()
    print(running.result(), flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN + textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "begun\n"
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (out, err) == ("7\n", "")
