"""What must hold on every platform, as one program; run on forced ones by ``test_portability``.

Each function ``check_...`` is one check: the program prints "ok" or the error under its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback

import numpy as np
import psutil

import parallax
from parallax import Executor, ProcessPoolExecutor, ThreadPoolExecutor, parallel_map
from parallax._backends.processes.common import process_exit
from parallax._backends.processes.parent.warm_pool import shutdown_warm_pool
from parallax._core import cores, deferred_signals
from parallax._profiling import gil_sampler
from parallax._shm import segment
from parallax._transport import wakeup

BIG = 300_000
WINDOWS = cores.sys.platform == "win32"


def square(x):
    return x * x


def fails_at_3(x):
    if x == 3:
        raise ValueError(f"not {x}")
    return x


def filled(x):
    return np.full(BIG, float(x))


def total(array):
    return float(array.sum())


def mark(array, at):
    array[at] = at + 1.0


def add_there(array):
    array += 1
    return float(array[0])


def sleeps_at_2(x):
    time.sleep(60 if x == 2 else 0)
    return x


def crashes_at_2(x):
    if x == 2:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump takes time
        ctypes.string_at(0)
    return x


def speaks(x):
    print("item", x)
    return x


def cannot():
    raise LookupError("no such table")


def pid_of(_):
    return os.getpid()


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def check_backends_agree():
    for backend in ("serial", "threads", "processes", "auto"):
        assert parallel_map(square, range(30), backend=backend) == [x * x for x in range(30)]
    assert os.getpid() not in parallel_map(pid_of, range(4), backend="processes")


def check_executors_agree():
    for kind in (Executor, ThreadPoolExecutor, ProcessPoolExecutor):
        with kind(2) as executor:
            assert list(executor.map(square, range(20))) == [x * x for x in range(20)]
            assert executor.submit(square, 7).result(30) == 49


def check_errors_come_home():
    error = raises(ValueError, lambda: parallel_map(fails_at_3, range(8), backend="processes"))
    assert str(error) == "not 3"
    assert error.__cause__ is not None


def check_big_arguments_and_results():
    for backend in ("threads", "processes"):
        arrays = parallel_map(filled, range(4), backend=backend)
        assert [total(array) for array in arrays] == [x * float(BIG) for x in range(4)]
        assert parallel_map(total, arrays, backend=backend) == [x * float(BIG) for x in range(4)]
    with ProcessPoolExecutor(2) as executor:
        one = np.zeros(BIG)
        # A copy of its own for each call, and the program's own array as it was.
        assert [executor.submit(add_there, one).result(30) for _ in range(4)] == [1.0] * 4
        assert not one.any()


def check_shared_memory():
    shared = parallax.shared_empty(BIG)
    shared[:] = 0
    parallel_map(mark, [shared] * 8, range(8), backend="processes")
    assert shared[:8].tolist() == [x + 1.0 for x in range(8)]


def check_nothing_is_lost_when_a_worker_leaves():
    options = {"backend": "processes", "max_tasks_per_child": 1, "max_workers": 2}
    arrays = parallel_map(filled, range(3), **options)
    assert [array[-1] for array in arrays] == [float(x) for x in range(3)]
    with ProcessPoolExecutor(1, max_tasks_per_child=1) as executor:
        assert [a[0] for a in executor.map(filled, range(2))] == [0.0, 1.0]


def check_an_item_that_takes_too_long_is_ended():
    found = parallel_map(
        sleeps_at_2, range(4), backend="processes", item_timeout=0.6, on_error="return"
    )
    assert [found[n] for n in (0, 1, 3)] == [0, 1, 3], found
    assert isinstance(found[2], parallax.ItemTimeoutError)


def check_a_call_that_is_cancelled_ends():
    async def run():
        with ProcessPoolExecutor(1) as executor:
            await asyncio.get_running_loop().run_in_executor(executor, square, 2)
            (worker,) = executor._processes
            call = asyncio.get_running_loop().run_in_executor(executor, sleeps_at_2, 2)
            await asyncio.sleep(0.1)
            call.cancel()
            deadline = time.monotonic() + 20
            while psutil.pid_exists(worker) and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert not psutil.pid_exists(worker)
            assert executor.submit(square, 3).result(30) == 9

    asyncio.run(run())


def check_a_crash_is_told():
    found = parallel_map(crashes_at_2, range(4), backend="processes", on_error="return")
    assert [found[n] for n in (0, 1, 3)] == [0, 1, 3], found
    assert isinstance(found[2], parallax.WorkerDiedError)
    assert ("access violation" if WINDOWS else "SIGSEGV") in str(found[2])
    assert found[2].attempts in {1, 2}  # once more alone, if it had a neighbour


def check_output_comes_home():
    import io

    with contextlib.redirect_stdout(io.StringIO()) as heard:
        parallel_map(speaks, range(3), backend="processes")
    assert sorted(heard.getvalue().split("\n")) == ["", "item 0", "item 1", "item 2"]


def check_an_initializer_that_fails_is_told():
    with ProcessPoolExecutor(1, initializer=cannot) as executor:
        error = raises(RuntimeError, executor.submit(square, 1).result)
    assert "no such table" in str(error)


def check_ctrl_c_ends_every_wait():
    """On Windows it interrupts neither a lock nor select, so waits are short there."""
    here = threading.get_ident()

    def interrupted(call):
        threading.Timer(0.15, lambda: signal.pthread_kill(here, signal.SIGINT)).start()
        begun = time.monotonic()
        raises(KeyboardInterrupt, call)
        assert time.monotonic() - begun < 20

    for backend in ("threads", "processes"):
        interrupted(lambda b=backend: parallel_map(waits, [0.01, 3, 3, 3], backend=b))
    with ProcessPoolExecutor(1) as executor:
        interrupted(executor.submit(sleeps_at_2, 2).result)


def waits(seconds):
    time.sleep(seconds)


def check_the_end_of_a_process_is_seen():
    import subprocess

    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert process_exit.wait_for_exit(child.pid, 0.0) is False
        child.stdin.close()
        assert process_exit.wait_for_exit(child.pid, 30.0) is True
    finally:
        child.stdin.close()
        child.wait()


def check_small_messages_are_not_held_back():
    import socket

    ours, theirs = wakeup.socket_pair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        assert (ours.family == socket.AF_INET) == WINDOWS
        if WINDOWS:
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def check_what_cannot_be_had_is_refused():
    error = raises(ValueError, lambda: parallax.configure(start_method="zygote"))
    assert "needs Linux" in str(error)
    if WINDOWS:
        error = raises(ValueError, lambda: ProcessPoolExecutor(62))
        assert "max_workers must be <= 61" in str(error)
        cores._affinity = lambda: 200
        ProcessPoolExecutor().shutdown()
        lock = multiprocessing.get_context("spawn").Lock()
        start = functools.partial(ProcessPoolExecutor, 1, initializer=print, initargs=(lock,))
        assert "initializer[1][0]" in str(raises(parallax.SerializationError, start))


def check_facts_of_the_machine():
    assert cores.start_methods() == ("spawn",)
    assert cores.usable_cores() >= 1
    made = segment.create_segment()
    assert isinstance(made.handle, int) is not WINDOWS
    made.close()
    assert (deferred_signals.MAX_WAIT_S < 1) == WINDOWS
    sampler = gil_sampler.GilSampler()
    sampler.start()
    sampler.stop()


def check_nothing_is_left():
    shutdown_warm_pool()
    deadline = time.monotonic() + 20
    while (left := children()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == []


def children():
    """All but the resource tracker of ``multiprocessing``, which lives as long as the program."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "resource_tracker" not in " ".join(child.cmdline()):
                found.append(child)
    return found


if __name__ == "__main__":
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            begun = time.perf_counter()
            try:
                check()
            except BaseException:
                print(f"{name}: {traceback.format_exc()!r}", flush=True)
            else:
                print(f"{name}: ok ({time.perf_counter() - begun:.2f} s)", flush=True)
