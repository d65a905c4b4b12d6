"""What dies, how, and what becomes of it: a table as data, run on each start method.

However a worker ends, exactly the item that ended it is an error that names it, the others come
back, and the next call finds working processes.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import jobs
import psutil
import pytest
from helpers.leaks import stdlib_helpers

from parallax import SerializationError, WorkerDiedError, options, parallel_imap, parallel_map

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals"),
    pytest.mark.sampled(2),
]

METHODS = ("zygote", "spawn")


class Fault(NamedTuple):
    """A way for an item to end its worker."""

    how: str
    exitcode: int | None
    #: in the error's message.
    words: str


FAULTS = (
    Fault("exit", 3, "exited with status 3"),
    Fault("segfault", -signal.SIGSEGV, "SIGSEGV"),
    Fault("kill", -signal.SIGKILL, "out-of-memory"),
    Fault("term", -signal.SIGTERM, "SIGTERM"),
    Fault("abort", -signal.SIGABRT, "SIGABRT"),
    Fault("close", None, "closed its connection"),
)

#: Each way of dying in the middle, and one way of it at each place:
#: (fault, index of the fatal item, number of items, chunk size).
DEATHS = (
    *((fault, 7, 20, None) for fault in FAULTS),
    (FAULTS[0], 0, 20, None),
    (FAULTS[0], 19, 20, None),
    (FAULTS[0], 7, 20, 5),
    (FAULTS[0], 0, 1, None),
)


@pytest.fixture(params=METHODS, autouse=True)
def method(request):
    """Each way of starting worker processes."""
    if request.param in {"snapshot", "zygote"} and not sys.platform.startswith("linux"):
        pytest.skip("for Linux")
    with options(start_method=request.param, backend="processes"):
        yield request.param


def squares(n):
    return [x * x for x in range(n)]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("fault", "bad", "count", "chunksize"), DEATHS, ids=lambda v: getattr(v, "how", None)
)
def test_one_item_dies(fault, bad, count, chunksize):
    """Exactly the fatal item is a WorkerDiedError with all it can say; the others return."""
    work = functools.partial(jobs.dies_at, {bad}, fault.how)
    results = parallel_map(work, range(count), on_error="return", chunksize=chunksize)
    error = results[bad]
    assert type(error) is WorkerDiedError
    assert error.index == bad
    assert isinstance(error.pid, int)
    assert error.pid != os.getpid()
    if fault.exitcode is not None:
        assert error.exitcode == fault.exitcode
        assert fault.words in str(error)
    assert f"item {bad}" in str(error)
    _wait_gone([error.pid])
    assert not _works(error.pid)
    assert [v for i, v in enumerate(results) if i != bad] == [
        x * x for x in range(count) if x != bad
    ]
    assert results.report.workers_lost >= 1
    assert parallel_map(jobs.square, range(count)) == squares(count)


def _works(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_death_is_raised():
    """With ``on_error="raise"`` the death is the call's error."""
    with pytest.raises(WorkerDiedError, match="item 4"):
        parallel_map(functools.partial(jobs.dies_at, {4}, "exit"), range(10))


def test_several_items_die():
    """Three fatal items are three errors."""
    bad = {2, 3, 11}
    results = parallel_map(
        functools.partial(jobs.dies_at, bad, "kill"), range(20), on_error="return"
    )
    assert [i for i, v in enumerate(results) if isinstance(v, WorkerDiedError)] == sorted(bad)
    assert [results[i].index for i in sorted(bad)] == sorted(bad)


def test_every_item_dies():
    """When each item ends its worker the call ends too, with an error for each."""
    results = parallel_map(
        functools.partial(jobs.dies_at, set(range(6)), "exit"), range(6), on_error="return"
    )
    assert [type(v) for v in results] == [WorkerDiedError] * 6
    assert [v.index for v in results] == list(range(6))


def test_poison_item_with_retries(tmp_path):
    """A fatal item is tried as often as asked, alone; its neighbours are not lost with it."""

    def work(x):
        jobs.note_call(tmp_path, x)
        if x == 5:
            os._exit(3)
        return x

    results = parallel_map(work, range(12), on_error="return", retries=2, chunksize=1)
    assert type(results[5]) is WorkerDiedError
    assert results[5].attempts == 3
    assert jobs.calls(tmp_path)[5] == 3
    assert [v for i, v in enumerate(results) if i != 5] == [x for x in range(12) if x != 5]


def test_retries_save_an_item_that_dies_once(tmp_path):
    """An item that ends its worker once is run again where the caller asked for it."""
    work = functools.partial(jobs.dies_first, tmp_path)
    assert parallel_map(work, range(12), retries=1, chunksize=1) == list(range(12))
    assert jobs.calls(tmp_path) == {x: 2 if x % 5 == 0 else 1 for x in range(12)}


def test_other_items_run_once_when_alone(tmp_path):
    """In chunks of one, nothing but the fatal item is ever run again."""

    def work(x):
        jobs.note_call(tmp_path, x)
        if x == 6:
            os._exit(3)
        return x

    parallel_map(work, range(20), on_error="return", chunksize=1)
    assert jobs.calls(tmp_path) == dict.fromkeys(range(20), 1)


def test_stream_goes_on_after_a_death():
    """A stream yields the death in its place and goes on."""
    work = functools.partial(jobs.dies_at, {3}, "kill")
    got = list(parallel_imap(work, iter(range(15)), on_error="return"))
    assert type(got[3]) is WorkerDiedError
    assert [v for i, v in enumerate(got) if i != 3] == [x * x for x in range(15) if x != 3]
    got = list(parallel_imap(work, range(15), on_error="return", ordered=False))
    assert sorted(v for v in got if isinstance(v, int)) == [x * x for x in range(15) if x != 3]


# -- between and during calls ----------------------------------------------------------------------


def workers():
    return set(parallel_map(jobs.pid_of, range(20)))


def _wait_gone(pids, seconds=5.0):
    deadline = time.monotonic() + seconds
    while any(_works(p) for p in pids) and time.monotonic() < deadline:
        time.sleep(0.002)


@pytest.mark.parametrize("which", ["one", "all"])
@pytest.mark.parametrize("method", METHODS, indirect=True)
def test_idle_worker_killed_between_calls(which):
    """A worker that was killed while it had nothing to do is replaced without a word."""
    pids = sorted(workers())
    victims = pids if which == "all" else pids[:1]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    _wait_gone(victims)
    assert parallel_map(jobs.square, range(20)) == squares(20)
    assert not workers() & set(victims)


@pytest.mark.parametrize("method", METHODS, indirect=True)
def test_idle_worker_killed_at_the_moment_of_the_call():
    """Nor does it matter if its death is not known yet when the call begins."""
    for _ in range(5):
        for pid in workers():
            os.kill(pid, signal.SIGKILL)
        results = parallel_map(jobs.square, range(20))
        assert results == squares(20)


def test_stopped_worker_is_replaced_when_an_item_times_out():
    """A worker that was stopped (SIGSTOP) in its item is ended like any that overruns."""

    def work(x):
        if x == 3:
            os.kill(os.getpid(), signal.SIGSTOP)
        return x

    results = parallel_map(work, range(8), item_timeout=0.3, on_error="return")
    assert isinstance(results[3], TimeoutError)
    assert [v for i, v in enumerate(results) if i != 3] == [0, 1, 2, 4, 5, 6, 7]


def zygote():
    """The process that forks workers: their parent, if that is not this one."""
    found = {psutil.Process(pid).ppid() for pid in workers()} - {os.getpid()}
    assert len(found) == 1
    return found.pop()


def test_zygote_killed_between_calls(method, cold_pool):
    """Without its zygote the next call starts another one."""
    if method != "zygote":
        pytest.skip("there is none")
    pid = zygote()
    os.kill(pid, signal.SIGKILL)
    _wait_gone([pid])
    assert parallel_map(jobs.square, range(20)) == squares(20)
    assert parallel_map(jobs.square, range(20), max_workers=4) == squares(20)


def test_zygote_killed_during_a_call(method, cold_pool):
    """The call goes on: at most the items in flight are errors that name them."""
    if method != "zygote":
        pytest.skip("there is none")
    pid = zygote()

    def work(x):
        time.sleep(0.01)
        if x == 5:
            os.kill(pid, signal.SIGKILL)
        return x * x

    results = parallel_map(work, range(40), on_error="return")
    wrong = [(i, v) for i, v in enumerate(results) if v != i * i]
    assert all(isinstance(v, WorkerDiedError) and v.index == i for i, v in wrong)
    assert len(wrong) <= 8
    assert parallel_map(jobs.square, range(20)) == squares(20)


def test_all_workers_killed_during_a_call(tmp_path):
    """All workers killed from outside at once: their items are named, the rest comes back."""
    stream = parallel_imap(jobs.nap_square, range(60), on_error="return", chunksize=1)
    got = [next(stream) for _ in range(5)]
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # one that left already waits to be reaped
            zygote = "zygote import main" in " ".join(child.cmdline())
            ours = child.ppid() == os.getpid()
            if not (ours and (zygote or child.pid in stdlib_helpers()[0])):
                child.kill()
    got.extend(stream)
    wrong = [(i, v) for i, v in enumerate(got) if v != i * i]
    assert len(got) == 60
    assert all(isinstance(v, WorkerDiedError) and v.index == i for i, v in wrong)
    assert len(wrong) <= 8


def test_random_kills():
    """A worker killed at random moments: no hang, and every error names its item."""
    stop, alive = threading.Event(), threading.Event()
    me = psutil.Process()

    def killer():
        while not stop.wait(0.15):
            if not alive.is_set():
                continue  # workers that never come up are an error of its own
            alive.clear()
            for child in me.children(recursive=True):
                try:
                    if child.pid in stdlib_helpers()[0]:
                        continue
                    if not child.children() and "zygote import" not in " ".join(child.cmdline()):
                        child.kill()
                        break
                    if child.ppid() != me.pid and not child.children():
                        child.kill()
                        break
                except psutil.Error:
                    continue

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        for _ in range(5):
            results = parallel_map(
                jobs.nap_square, range(40), on_error="return", progress=lambda _: alive.set()
            )
            for index, value in enumerate(results):
                assert value == index**2 or value.index == index
    finally:
        stop.set()
        thread.join()
    assert parallel_map(jobs.square, range(20)) == squares(20)


# -- what comes in, what comes back ----------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [None, 4])
def test_item_that_crashes_when_it_is_unpickled(chunksize):
    """A worker that dies while it unpickles an item: that item is named, others return."""
    items = [*range(6), jobs.Bomb(), *range(7, 12)]
    results = parallel_map(jobs.described, items, on_error="return", chunksize=chunksize)
    assert type(results[6]) is WorkerDiedError
    assert (results[6].index, results[6].exitcode) == (6, 9)
    assert [v for i, v in enumerate(results) if i != 6] == [f"int:{x}" for x in range(12) if x != 6]


def test_callable_that_crashes_when_it_is_unpickled():
    """A callable that ends every worker is an error, not an endless row of new workers."""
    bomb = jobs.Bomb()

    def work(x):
        return bomb, x

    with pytest.raises((WorkerDiedError, SerializationError)):
        parallel_map(work, range(6))
    assert parallel_map(jobs.square, range(6)) == squares(6)


def test_callable_that_cannot_be_imported(tmp_path, monkeypatch):
    """A module that fails to import in workers is an error that says so."""
    name = f"fails_elsewhere_{os.getpid()}"
    (tmp_path / f"{name}.py").write_text(
        f"import os\nif os.getpid() != {os.getpid()}: raise RuntimeError('not here')\n"
        f"def f(x): return x\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__(name)
    try:
        with pytest.raises(SerializationError, match="not here"):
            parallel_map(module.f, range(6))
    finally:
        del sys.modules[name]


def test_items_that_change_signals():
    """An item that installs handlers or masks signals does not keep its worker for ever."""

    def deaf(x):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        return x

    assert parallel_map(deaf, range(6)) == list(range(6))
    results = parallel_map(
        functools.partial(jobs.endless_at, 1), range(3), item_timeout=0.3, on_error="return"
    )
    assert isinstance(results[1], TimeoutError)


def test_item_that_leaves_a_child_holding_the_socket():
    """A worker's own child that lives on does not hide the worker's death."""

    def work(x):
        if x == 2:
            subprocess.Popen(["sleep", "20"], close_fds=False)
            os._exit(3)
        return x

    try:
        results = parallel_map(work, range(6), on_error="return")
    finally:
        for process in psutil.process_iter(["name", "cmdline"]):
            if process.info["cmdline"] == ["sleep", "20"]:
                process.kill()
    assert type(results[2]) is WorkerDiedError
    assert [v for i, v in enumerate(results) if i != 2] == [0, 1, 3, 4, 5]


def test_worker_whose_input_is_endless_dies():
    """A death in the middle of an endless stream is seen while the stream goes on."""
    work = functools.partial(jobs.dies_at, {10}, "kill")
    stream = parallel_imap(work, itertools.count(), on_error="return", buffersize=6)
    got = [next(stream) for _ in range(30)]
    stream.close()
    assert type(got[10]) is WorkerDiedError
    assert got[11:] == [x * x for x in range(11, 30)]
