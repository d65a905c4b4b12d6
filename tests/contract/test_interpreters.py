"""Interpreters as workers: what is different from processes, and what sends work there."""

from __future__ import annotations

import array
import asyncio
import functools
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import jobs
import pytest
from helpers.backends import INTERPRETERS
from helpers.executor_kinds import SOON
from helpers.leaks import shutdown_pool
from jobs import extensions
from jobs import pool as pool_jobs

from parallax import Executor, SerializationError, explain, options, parallel_imap, parallel_map

needs_interpreters = pytest.mark.skipif(not INTERPRETERS, reason="from Python 3.14 on")

#: A script that fails unless it ends as it should.
SCRIPT = """
import os, signal, sys, threading, time
from parallax import Executor, parallel_map

def nap(x):
    import time
    time.sleep(0.03)
    return x

def endless(x):
    import time
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            pass
"""


def run_script(text, seconds=SOON):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT + text], capture_output=True, text=True, timeout=seconds
    )


@pytest.fixture
def lines(tmp_path):
    """Returns what the items have noted in a file, and forgets it."""
    path = tmp_path / "lines"

    def read():
        found = path.read_text().split()
        path.unlink()
        return found

    read.path = str(path)
    return read


def test_older_interpreters_refuse_at_once(monkeypatch):
    """Before any worker starts, with what is missing and what to do."""
    monkeypatch.setattr(sys, "version_info", (3, 13, 5, "final", 0))
    threads = threading.active_count()
    for call in (
        lambda: parallel_map(abs, [1], backend="interpreters"),
        lambda: explain(abs, [1], backend="interpreters"),
        lambda: Executor(backend="interpreters"),
    ):
        with pytest.raises(ValueError, match=r"needs Python 3.14 or newer, and this is 3.13"):
            call()
    assert threading.active_count() == threads


@needs_interpreters
def test_items_run_in_this_process_on_copies():
    """The process is this one, the modules are not."""
    got = parallel_map(jobs.process_and_setting, range(8), backend="interpreters")
    assert {pid for pid, _ in got} == {os.getpid()}
    assert jobs.SETTING == 1
    assert got.report.route == got.report.backend == "interpreters"
    assert "interpreter" in str(got.report).splitlines()[0]


@needs_interpreters
@pytest.mark.parametrize(
    "option", [{"item_timeout": 1}, {"max_tasks_per_child": 3}, {"max_memory_per_worker": 1 << 30}]
)
def test_options_of_processes_are_refused(option):
    """Nothing ends an interpreter for certain."""
    (name,) = option
    with pytest.raises(ValueError, match=f"{name} cannot be kept with backend='interpreters'"):
        parallel_map(abs, [1], backend="interpreters", **option)


FUNCTIONS = (
    extensions.with_or_without,
    extensions.in_its_body,
    extensions.after_some,
    extensions.number_of,
)


def items_for(function):
    return [extensions.Loaded(x) if function is extensions.number_of else x for x in range(30)]


@needs_interpreters
@pytest.mark.sampled(3)
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("how", ["map", "return", "imap", "chunks", "submit", "executor map"])
def test_a_module_that_does_not_load_sends_the_rest_to_processes(function, how, lines):
    """The answers are those of a loop, and every item ran once to its end."""
    call = functools.partial(function, lines.path)
    expected = [function(lines.path, item) for item in items_for(function)]
    lines()
    if how in {"submit", "executor map"}:
        with Executor(2, backend="interpreters") as executor:
            if how == "submit":
                futures = [executor.submit(call, item) for item in items_for(function)]
                got = [future.result(SOON) for future in futures]
            else:
                got = list(executor.map(call, items_for(function), timeout=SOON))
    else:
        kwargs = {"return": {"on_error": "return"}, "chunks": {"chunksize": 5}}.get(how, {})
        run = parallel_imap if how == "imap" else parallel_map
        results = run(call, items_for(function), backend="interpreters", max_workers=2, **kwargs)
        got = list(results)
        if how != "imap":
            report = results.report
            assert report.route == "processes"
            assert "does not support loading in subinterpreters" in report.reason
            assert [change.route for change in report.changes] == ["interpreters", "processes"]
    assert got == expected
    ran = lines()
    assert sorted(map(int, ran)) == list(range(30))


@needs_interpreters
def test_failures_beside_a_module_that_does_not_load(lines):
    """An item's own error is its own wherever it ran."""
    call = functools.partial(extensions.not_always, lines.path)
    got = parallel_map(call, range(30), backend="interpreters", on_error="return", chunksize=10)
    assert [x for x in got if not isinstance(x, ValueError)] == [x for x in range(30) if x % 3]
    assert [e.args for e in got if isinstance(e, ValueError)] == [(x,) for x in range(0, 30, 3)]
    assert sorted(map(int, lines())) == [x for x in range(30) if x % 3]


@needs_interpreters
def test_an_initializer_may_meet_the_module(lines):
    """It runs again where the calls run."""
    with Executor(
        1, backend="interpreters", initializer=extensions.prepare, initargs=(lines.path,)
    ) as executor:
        assert executor.submit(os.getpid).result(SOON) != os.getpid()


@needs_interpreters
def test_that_is_said_once(lines, caplog, monkeypatch):
    """In the log, with the module and the reason."""
    from parallax._backends.processes.parent import worker_set

    monkeypatch.setattr(worker_set, "_told", set())
    call = functools.partial(extensions.with_or_without, lines.path)
    with caplog.at_level(logging.WARNING, "parallax"):
        for _ in range(2):
            parallel_map(call, range(8), backend="interpreters")
        with Executor(2, backend="interpreters") as executor:
            list(executor.map(call, range(8)))
    (record,) = caplog.records
    assert "module faulthandler does not support loading" in record.getMessage()
    assert record.getMessage().endswith("worker processes are used instead")


@needs_interpreters
def test_an_import_error_of_the_items_own():
    """What could not be imported anywhere is the item's error, and no reason to go elsewhere."""
    for backend in ("processes", "interpreters"):
        with pytest.raises(ModuleNotFoundError, match="no_such_module") as info:
            parallel_map(jobs.imports, ["no_such_module"] * 4, backend=backend)
        assert any("item 0" in note for note in info.value.__notes__)
    got = parallel_map(jobs.imports, ["no_such_module"], backend="interpreters", on_error="return")
    assert got.report.route == "interpreters"


@needs_interpreters
def test_what_does_not_pickle_is_refused_as_for_processes():
    """Interpreters share no objects."""
    with pytest.raises(SerializationError, match="item 1"):
        parallel_map(type, [1, threading.Lock()], backend="interpreters")


@needs_interpreters
@pytest.mark.parametrize(
    "make", [bytes, bytearray, lambda data: array.array("B", data), memoryview]
)
def test_large_data(make):
    """It arrives whole, writable if it was, and does not change what was sent."""
    captured = make(bytes(range(256)) * 8000)
    items = [make(bytes([n]) * 3_000_000) for n in range(5)]

    def mark(data):
        if type(data) in {bytearray, array.array}:
            data[0] = 77
        return bytes(data[:2]) + bytes(captured[-2:]), data

    got = parallel_map(mark, items, backend="interpreters", max_workers=2)
    for n, (edges, data) in enumerate(got):
        first = n if make in {bytes, memoryview} else 77
        assert edges == bytes([first, n, 254, 255])
        assert (data[0], data[-1], len(data), type(data)) == (first, n, 3_000_000, type(items[n]))
        assert items[n][0] == n


@needs_interpreters
def test_calls_inside_of_calls_are_loops():
    """Interpreters have no threads that may be left behind."""
    got = parallel_map(jobs.nested_reports, [3, 4], backend="interpreters")
    assert got == [["loop"] * 4] * 2


@needs_interpreters
@pytest.mark.cold_pool
def test_no_interpreter_is_left():
    """With the pool, and with the executor."""
    from concurrent import interpreters

    before = len(interpreters.list_all())
    parallel_map(jobs.square, range(20), backend="interpreters", max_workers=2)
    with Executor(2, backend="interpreters") as executor:
        list(executor.map(jobs.square, range(20)))
    shutdown_pool()
    assert len(interpreters.list_all()) == before


@needs_interpreters
@pytest.mark.cold_pool
@pytest.mark.parametrize("seconds", [0, 0.05])
def test_idle_interpreters_leave(seconds, eventually):
    """After ``idle_timeout``."""
    from concurrent import interpreters

    with options(idle_timeout=seconds):
        parallel_map(jobs.square, range(20), backend="interpreters")
    assert eventually(lambda: len(interpreters.list_all()) == 1)


@needs_interpreters
@pytest.mark.cold_pool
def test_a_failed_call_does_not_wait_for_items_and_ends_them(tmp_path, eventually):
    """Those that run Python code; the others end by themselves."""
    from concurrent import interpreters

    with pytest.raises(ValueError, match="first"):
        parallel_map(
            jobs.fails_or_never_ends, [0, 1], [str(tmp_path / "begun")] * 2, backend="interpreters"
        )
    shutdown_pool()
    assert eventually(lambda: len(interpreters.list_all()) == 1)


@needs_interpreters
def test_a_cancelled_task_of_asyncio_leaves_other_calls_alone(tmp_path):
    """The call goes on, as in a thread; nobody waits for it."""
    go = str(tmp_path / "go")

    async def main(executor):
        loop = asyncio.get_running_loop()
        started = str(tmp_path / "started")
        running = loop.run_in_executor(executor, pool_jobs.started_then_wait, started, go)
        await asyncio.to_thread(pool_jobs.wait_for, started)
        running.cancel()
        others = [loop.run_in_executor(executor, jobs.square, x) for x in range(20)]
        assert await asyncio.gather(*others) == [x * x for x in range(20)]

    with Executor(2, backend="interpreters") as executor:
        try:
            asyncio.run(main(executor))
        finally:
            Path(go).touch()


@needs_interpreters
@pytest.mark.parametrize(
    "text",
    [
        "parallel_map(abs, range(9), backend='interpreters')",
        "e = Executor(2, backend='interpreters'); fs = [e.submit(nap, i) for i in range(9)]",
        "next(iter(map(Executor(2, backend='interpreters').submit, [nap], [1])))",
        """
e = Executor(2, backend='interpreters')
fs = [e.submit(endless, i) for i in range(3)]
while not fs[1].running(): time.sleep(0.01)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    fs[0].result()
except KeyboardInterrupt:
    pass
""",
        """
threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    parallel_map(endless, range(3), backend='interpreters')
except KeyboardInterrupt:
    pass
""",
    ],
    ids=["map", "calls", "dropped", "interrupted calls", "interrupted map"],
)
def test_a_program_ends_in_order(text):
    """No crash, and no warning about interpreters that are left."""
    done = run_script(text)
    assert (done.returncode, done.stderr) == (0, "")


@needs_interpreters
def test_a_program_may_fork_beside_interpreters():
    """CPython crashes in a fork while there is another interpreter (gh-139759): they end first."""
    done = run_script("""
out = []
run = lambda: out.append(list(parallel_map(nap, range(40), backend='interpreters')))
thread = threading.Thread(target=run)
thread.start()
e = Executor(2, backend='interpreters')
fs = [e.submit(nap, i) for i in range(20)]
import warnings
warnings.simplefilter('ignore', DeprecationWarning)
for _ in range(3):
    fs[0].result()
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
thread.join()
assert out == [list(range(40))]
assert [f.result() for f in fs] == list(range(20))
assert e.submit(nap, 5).result() == 5
""")
    assert (done.returncode, done.stderr) == (0, "")


@needs_interpreters
def test_options_and_cancelling_of_single_calls(tmp_path):
    """As for threads: no time limit, and a running call that was cancelled goes on for nobody."""
    go, started = str(tmp_path / "go"), str(tmp_path / "started")
    with Executor(1, backend="interpreters") as executor:
        with pytest.raises(ValueError, match="item_timeout cannot be kept"):
            executor.options(item_timeout=1)
        assert executor.options(retries=1).submit(jobs.square, 3).result(SOON) == 9
        running = executor.submit(pool_jobs.started_then_wait, started, go)
        pool_jobs.wait_for(started)
        assert executor.cancel(running)
        assert running.cancelled()
        Path(go).touch()
        assert executor.submit(jobs.square, 4).result(SOON) == 16
        executor.kill_workers()
        assert executor.submit(jobs.square, 5).result(SOON) == 25
