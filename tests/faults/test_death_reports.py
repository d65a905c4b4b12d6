"""What is told of a worker's end, and what goes with it: stacks, the kernel's killer, children."""

from __future__ import annotations

import ctypes
import functools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jobs
import pytest
from helpers.process_ends import living

from parallax import ProcessPoolExecutor, WorkerDiedError, options, parallel_map
from parallax._backends.processes.common.process_tree import descendants
from parallax._backends.processes.parent import exit_diagnosis as ends
from parallax._backends.processes.parent import warm_pool as pool
from parallax._core.errors import RemoteTraceback

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals"),
    pytest.mark.sampled(2),
]

METHODS = ("zygote", "spawn")


@pytest.fixture(params=METHODS, autouse=True)
def method(request):
    """Each way of starting worker processes."""
    if request.param in {"snapshot", "zygote"} and not sys.platform.startswith("linux"):
        pytest.skip("for Linux")
    with options(start_method=request.param):
        yield request.param


def crashes(x):
    if x == 3:
        ctypes.string_at(0)
    return x


def lost(fn, count=6, **kwargs):
    results = parallel_map(fn, range(count), backend="processes", on_error="return", **kwargs)
    (error,) = [v for v in results if not isinstance(v, int)]
    return error


def test_a_crash_tells_where_it_was():
    """The stack of the interpreter that crashed is in the error, without frames of parallax."""
    error = lost(crashes)
    assert type(error) is WorkerDiedError
    assert error.signal == "SIGSEGV"
    assert "Segmentation fault" in error.stack
    assert "in crashes" in error.stack
    assert "run_chunk" not in error.stack
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in string_at" in str(error)


def test_the_stack_survives_pickling():
    """With the other fields, and as the cause."""
    error = lost(crashes)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.stack, copy.index, str(copy)) == (error.stack, 3, str(error))
    assert "in crashes" in str(copy.__cause__)


def test_an_executor_tells_where_it_was(method):
    """A lost call of an executor says as much."""
    context = None
    if method == "spawn":
        import multiprocessing

        context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as executor:
        error = executor.submit(crashes, 3).exception(30)
    assert isinstance(error, WorkerDiedError)
    assert "in crashes" in error.stack


def test_an_exit_has_no_stack():
    """Who calls ``os._exit`` leaves none, and the next crash does not show an older one."""
    error = lost(functools.partial(jobs.dies_at, {3}, "exit"))
    assert error.stack is None
    assert error.signal is None
    assert error.oom is None


@pytest.mark.parametrize(
    ("counts", "oom", "words"),
    [
        ([0, 0], False, "kill -9 by somebody"),
        ([4, 5], True, "no memory left"),
        ([None], None, "often the system's out-of-memory killer"),
    ],
    ids=["somebody", "kernel", "unknown"],
)
def test_who_killed_it(monkeypatch, counts, oom, words):
    """The kernel's count tells whether its out-of-memory killer ended a worker."""
    told = iter(counts)
    monkeypatch.setattr(ends, "oom_kills", lambda: next(told))
    monkeypatch.setattr(ends, "ledger", ends.Ledger())
    ends.ledger.begin()
    error = lost(functools.partial(jobs.dies_at, {3}, "kill"), chunksize=1)
    assert error.exitcode == -signal.SIGKILL
    assert error.oom is oom
    assert words in str(error)


def test_one_kill_of_the_kernel_accounts_for_one_worker(monkeypatch):
    """The second worker that is killed was killed by somebody else."""
    told = iter([2, 3, 3])
    monkeypatch.setattr(ends, "oom_kills", lambda: next(told))
    monkeypatch.setattr(ends, "ledger", ends.Ledger())
    ends.ledger.begin()
    assert [lost(functools.partial(jobs.dies_at, {3}, "kill"), chunksize=1).oom for _ in "12"] == [
        True,
        False,
    ]


@pytest.fixture
def little_memory():
    """A control group of 300 MB, if this user may make one; what to run to be in it."""
    for parent, limit in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ):
        group = Path(parent, f"parallax-test-{os.getpid()}")
        try:
            group.mkdir()
        except OSError:
            continue
        if not (group / limit).exists():  # a plain folder
            group.rmdir()
            continue
        (group / limit).write_text("300000000")
        yield f"echo $$ > {group}/cgroup.procs; exec "
        deadline = time.monotonic() + 10
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        group.rmdir()
        return
    pytest.skip("no control group can be made here")


HOG = """
from parallax import parallel_map
def work(x):
    kept = []
    while x == 3:
        kept.append(b"x" * 20_000_000)
    return x
results = parallel_map(work, range(8), backend="processes", on_error="return", chunksize=1)
print([type(r).__name__ for r in results if r not in range(8)], results[3].oom, results[3].signal)
"""


def test_out_of_memory(method, little_memory):
    """The item that takes all the memory is named, and what ended it; the others come back."""
    done = subprocess.run(
        ["sh", "-c", f'{little_memory} "$@"', "sh", sys.executable, "-c", HOG],
        env={**os.environ, "PARALLAX_START_METHOD": method},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "['WorkerDiedError'] True SIGKILL\n", done.stderr


def starts_a_child(folder, x):
    if x == 1:
        child = subprocess.Popen(["sleep", "60"])
        Path(folder, "writing").write_text(str(child.pid))
        Path(folder, "writing").rename(Path(folder, "child"))  # it is there as a whole
        time.sleep(60)
    return x


def test_what_an_item_started_ends_with_it(tmp_path):
    """When ``item_timeout`` ends a worker, the processes that it started end as well."""

    def work(x):
        return starts_a_child(tmp_path, x)

    results = parallel_map(work, range(3), backend="processes", item_timeout=1.5, on_error="return")
    assert isinstance(results[1], TimeoutError)
    assert (results[0], results[2]) == (0, 2)
    assert living([int((tmp_path / "child").read_text())], 5) == []


def test_what_a_cancelled_call_started_ends_with_it(tmp_path):
    """So it is when an executor's workers are killed."""
    executor = ProcessPoolExecutor(1)
    future = executor.submit(starts_a_child, str(tmp_path), 1)
    deadline = time.monotonic() + 30
    while not (tmp_path / "child").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    executor.kill_workers()
    assert future.exception(10) is not None
    executor.shutdown()
    assert living([int((tmp_path / "child").read_text())], 5) == []


def test_descendants_are_found():
    """Children of children, too."""
    code = (
        "import subprocess, sys; "
        "p = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE); "
        "print(p.pid, flush=True); input(); p.communicate(b'x\\n')"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    inner = int(parent.stdout.readline())
    try:
        assert {parent.pid, inner} <= set(descendants(os.getpid()))
        assert descendants(parent.pid) == [inner]
    finally:
        parent.communicate(b"x\n", timeout=20)


def test_where_a_busy_worker_is(tmp_path):
    """A worker tells where its threads are, while it runs."""

    def waits_here(x):
        Path(tmp_path, f"at{x}").touch()
        while not Path(tmp_path, "go").exists():
            time.sleep(0.01)
        return x

    results = []

    def call():
        results.extend(parallel_map(waits_here, range(2), backend="processes", max_workers=2))

    thread = threading.Thread(target=call)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not all((tmp_path / f"at{x}").exists() for x in range(2)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        workers = [w for p in pool._pools.values() for w in p._alive if w.begun]
        stacks = [w.stacks(5) for w in workers]
    finally:
        (tmp_path / "go").touch()
        thread.join()
    assert results == [0, 1]
    assert sum("in waits_here" in stack for stack in stacks) == 2


def test_what_was_run_again_is_told():
    """The report names the items in flight with a lost worker, and counts what ran twice."""
    results = parallel_map(
        functools.partial(jobs.dies_at, {7}, "exit"),
        range(20),
        backend="processes",
        on_error="return",
        chunksize=5,
    )
    report = results.report
    assert report.workers_lost == 2
    assert report.retried == 5
    (note,) = [note for note in report.notes if "in flight" in note]
    assert "items 5 to 9" in note


def test_nothing_is_told_of_what_ran_once():
    """An item that is alone with its worker takes nobody along."""
    results = parallel_map(
        functools.partial(jobs.dies_at, {7}, "exit"),
        range(20),
        backend="processes",
        on_error="return",
        chunksize=1,
    )
    assert (results.report.workers_lost, results.report.retried) == (1, 0)
    assert not any("in flight" in note for note in results.report.notes)
