"""What may befall shared memory: dead workers, a dead caller, no room, no place for it at all."""

from __future__ import annotations

import errno
import functools
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import jobs
import numpy as np
import psutil
import pytest
from helpers.shm import usage
from jobs import data as data_jobs
from jobs.data import BIG, in_memory
from jobs.pool import wait_for

from parallax import ProcessPoolExecutor, WorkerDiedError, parallel_map
from parallax._shm import arena
from parallax._shm.segment import Segment
from parallax._transport import shm_channel

MEGABYTE = 1 << 20
TESTS = str(Path(data_jobs.__file__).parents[1])
pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
    pytest.mark.sampled(2),
]


def eventually(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def lent_out():
    slab_sender = arena.arena_sender()
    assert slab_sender is not None
    return usage(slab_sender)[0]


@pytest.fixture
def come_back():
    """Whether what was lent since the beginning of the test comes back."""
    before = lent_out()
    return lambda: eventually(lambda: lent_out() <= before)


# -- workers that are killed -----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["map", "pool"])
def test_items_that_end_their_workers(way, come_back):
    """Only they fail; the results of all others are right, and their arguments come back."""
    items = [np.full(BIG, float(n)) for n in range(30)]
    job = functools.partial(data_jobs.dies_or_doubles, 7.0)
    if way == "map":
        found = parallel_map(job, items, backend="processes", on_error="return", chunksize=1)
        lost = [n for n, back in enumerate(found) if isinstance(back, WorkerDiedError)]
    else:
        with ProcessPoolExecutor(2) as executor:
            futures = [executor.submit(job, item) for item in items]
            lost = [n for n, future in enumerate(futures) if future.exception() is not None]
            found = [None if n in lost else future.result() for n, future in enumerate(futures)]
        del futures
    assert lost == [7]
    for n, back in enumerate(found):
        if n != 7:
            assert back[0] == back[-1] == 2.0 * n
    assert all((item == n).all() for n, item in enumerate(items))
    assert come_back()


def test_a_worker_is_killed_that_holds_an_argument(tmp_path, come_back):
    """Its slab comes back; another worker that has the same array keeps it."""
    made = np.full(BIG, 3.0)
    names = [(str(tmp_path / f"started{n}"), str(tmp_path / f"go{n}")) for n in range(2)]
    with ProcessPoolExecutor(2) as executor:
        futures = [executor.submit(data_jobs.hold, *name, made) for name in names]
        for started, _ in names:
            wait_for(started)
        os.kill(int(Path(names[0][0]).read_text()), signal.SIGKILL)
        assert isinstance(futures[0].exception(20), WorkerDiedError)
        # What comes now must not be put where the other one's argument is.
        others = [executor.submit(data_jobs.total, np.full(BIG, float(n))) for n in range(20)]
        assert [f.result(20) for f in others] == [float(n * BIG) for n in range(20)]
        Path(names[1][1]).touch()
        assert futures[1].result(20) == 3.0 * BIG
    assert come_back()


@pytest.mark.cold_pool
def test_a_worker_is_killed_while_it_writes_a_result(cold_pool):
    """A result of 500 MB that is half there: its memory comes back, kept results stay right."""
    size, before = 500 * MEGABYTE, in_memory()
    with ProcessPoolExecutor(1) as executor:
        kept = executor.submit(data_jobs.filled, 4).result()
        pid = executor.submit(os.getpid).result()
        start = in_memory()
        future = executor.submit(data_jobs.ones, size // 8)
        assert eventually(lambda: in_memory() > start + 50 * MEGABYTE, 20)
        os.kill(pid, signal.SIGKILL)
        assert isinstance(future.exception(20), WorkerDiedError)
        assert executor.submit(data_jobs.total, kept).result(20) == 4.0 * BIG
        assert eventually(lambda: in_memory() <= start + 2 * kept.nbytes)
    assert (kept == 4.0).all()
    cold_pool()
    assert in_memory() <= before + kept.nbytes + (1 << 16)


def test_views_outlive_the_worker_that_made_them():
    """They stay right, writable, and can be sent on."""
    with ProcessPoolExecutor(2) as executor:
        kept = list(executor.map(data_jobs.filled, range(10)))
        for pid in set(executor.map(jobs.pid_of, range(10))):
            os.kill(pid, signal.SIGKILL)
        for turn in range(3):
            others = list(executor.map(data_jobs.filled, range(20, 30)))
            assert [other.max() for other in others] == list(range(20, 30)), turn
        assert list(executor.map(data_jobs.total, kept)) == [n * BIG for n in range(10)]
    for n, back in enumerate(kept):
        assert (back == n).all()
        back += 1.0
        assert (back == n + 1).all()


# -- nothing is left -------------------------------------------------------------------------------

SCRIPT = """
    import faulthandler, gc, logging, os, random, signal, sys, threading, time
    faulthandler.enable()
    import numpy as np
    from jobs import data as data_jobs
    {before}
    from parallax import parallel_map, parallel_imap, ProcessPoolExecutor, WorkerDiedError
    {body}
"""


def program(body, before="pass"):
    return textwrap.dedent(SCRIPT).format(
        before=textwrap.dedent(before), body=textwrap.dedent(body)
    )


def run(body, before="pass", *, wrap=(), timeout=50):
    """Run a program with that in it; what it printed, and its errors."""
    done = subprocess.run(
        [*wrap, sys.executable, "-c", program(body, before)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([TESTS, *sys.path])},
    )
    return done.stdout, done.stderr


def shared_in_system():
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Shmem:"))


def ours():
    """Files of ours where files might be left."""
    names = [*os.listdir("/dev/shm"), *os.listdir(tempfile.gettempdir())]
    return {name for name in names if name.startswith("parallax")}


@pytest.fixture
def nothing_left():
    """No file is left behind, and the system has as much shared memory in use as before."""
    files, memory = ours(), shared_in_system()
    yield
    assert ours() <= files
    assert eventually(lambda: shared_in_system() <= memory + 50 * MEGABYTE)


RUNS = """
    random.seed({seed})
    for run in range({runs}):
        items = [np.full(200_000 + n, float(n + run)) for n in range(20)]
        want = [2.0 * (n + run) for n in range(20)]
        fatal = run % 10 == 5
        if run % 2:
            job = lambda a: data_jobs.dies_or_doubles(float(run + 11) if fatal else -1.0, a)
            found = parallel_map(job, items, backend="processes", on_error="return", chunksize=1)
            lost = [n for n, r in enumerate(found) if isinstance(r, WorkerDiedError)]
            assert lost == ([11] if fatal else []), lost
        else:
            with ProcessPoolExecutor(2) as executor:
                found = list(executor.map(data_jobs.doubled, items))
        for n, back in enumerate(found):
            assert n == 11 and fatal or back[0] == back[-1] == want[n], (run, n)
        del found
    print("done")
"""


def workers_lost(runs):
    assert run(RUNS.format(seed=1, runs=runs), timeout=280) == ("done\n", "")


def callers_killed(runs):
    body = """
        print("ready", flush=True)
        keep = []
        while True:
            items = [np.full(300_000, float(n)) for n in range(8)]
            keep += parallel_map(data_jobs.doubled, items, backend="processes")
            keep[:-20] = []
            print(".", end="", flush=True)
    """
    random.seed(2)
    for _ in range(runs):
        process = subprocess.Popen(
            [sys.executable, "-c", program(body)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([TESTS, *sys.path])},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdout.read(random.randrange(1, 4))
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        # The pipe ends when the last worker that could write to it has ended.
        _, err = process.communicate(timeout=20)
        assert err == ""
        assert psutil.wait_procs(children, timeout=10)[1] == []


def test_some_runs_lose_a_worker(nothing_left):
    """Ten runs, one of which loses a worker: nothing is left, nothing is said."""
    workers_lost(10)


def test_the_caller_is_killed(nothing_left):
    """In the middle of its work: nothing is left, nothing is said."""
    callers_killed(1)


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_hundred_runs_of_which_ten_lose_a_worker(nothing_left):
    """The same at full size."""
    workers_lost(100)


@pytest.mark.full
@pytest.mark.timeout(300)
def test_ten_callers_are_killed(nothing_left):
    """The same at full size."""
    callers_killed(10)


# -- no memory to be had ---------------------------------------------------------------------------

USE = """
    records = []
    class Keep(logging.Handler):
        def emit(self, record): records.append(record)
    logging.getLogger("parallax").addHandler(Keep())
    logging.getLogger("parallax").propagate = False
    made = np.arange({count}, dtype=float)
    (back,) = parallel_map(data_jobs.doubled, [made], backend="processes")
    assert back[0] == 0 and np.array_equal(back, made * 2) and back.flags.writeable
    with ProcessPoolExecutor(1) as executor:
        again = executor.submit(data_jobs.tail, back).result()
        assert np.array_equal(again, made[len(made) // 2 :] * 2)
    assert parallel_map(lambda i: made[i], range(5), backend="processes") == [0, 1, 2, 3, 4]
    print(*[(r.levelname, r.getMessage()[:52]) for r in records])
"""
SAID = "('WARNING', 'parallax: there is no shared memory to be had ([Errn')\n"


def test_no_file_may_be_large():
    """A limit of 1 MB for files: data goes through sockets, and the caller says so once."""
    out, err = run(
        USE.format(count=BIG),
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))",
    )
    assert (out, err) == (SAID, "")


def test_the_device_is_full(monkeypatch, cold_pool, caplog):
    """The caller can put nothing there, or only a part: right results, one line, nothing left."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    made = [np.full(BIG, float(n)) for n in range(10)]
    monkeypatch.setattr(shm_channel, "_warned", False)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "parallax"):
        patch.setattr(Segment, "grow", full)
        for _ in range(2):
            found = parallel_map(data_jobs.doubled, made, backend="processes")
            assert [(back[0], back[-1]) for back in found] == [
                (2.0 * n, 2.0 * n) for n in range(10)
            ]
            assert parallel_map(lambda i: made[i][i], range(10), backend="processes") == list(
                range(10)
            )
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("parallax", "WARNING")
    assert "No space left on device" in record.getMessage()
    # There is room again.
    report = parallel_map(lambda i: made[i][i], range(10), backend="processes").report
    assert report.bytes_once == 10 * BIG * 8
    assert len(caplog.records) == 1


def test_no_place_for_it(monkeypatch, cold_pool, caplog):
    """No anonymous memory, and no folder for a file."""

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(shm_channel, "_warned", False)
    made = np.arange(BIG, dtype=float)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "parallax"):
        arena.reset()
        patch.delattr(os, "memfd_create")
        patch.setattr(tempfile, "mkstemp", refuse)
        for _ in range(2):
            (back,) = parallel_map(data_jobs.doubled, [made], backend="processes")
            assert np.array_equal(back, made * 2)
            assert back.flags.writeable
            with ProcessPoolExecutor(1) as executor:
                assert np.array_equal(
                    executor.submit(data_jobs.tail, back).result(), back[BIG // 2 :]
                )
        cold_pool()
    arena.reset()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("parallax", "WARNING")
    assert "Read-only file system" in record.getMessage()


NAMESPACE = """
mount -t tmpfs -o size=64m tmpfs /dev/shm && mount -t tmpfs -o ro tmpfs "$TMPDIR" && exec "$@"
"""
ALONE = ("unshare", "-m", "sh", "-c", NAMESPACE, "sh")


def in_a_small_system(body, before="pass"):
    """Run a program with 64 MB in /dev/shm and a temporary folder that is read-only."""
    probe = (*ALONE, "true")
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    check = "import tempfile, shutil; assert shutil.disk_usage('/dev/shm').total == 64 << 20"
    return run(body, f"{check}\n{before}", wrap=ALONE, timeout=200)


@pytest.mark.full
def test_a_small_device_does_not_matter():
    """300 MB there and back."""
    assert in_a_small_system(USE.format(count=300 * MEGABYTE // 8)) == ("\n", "")


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_small_device_does_not_matter_for_a_gigabyte():
    """1 GB there and back."""
    assert in_a_small_system(USE.format(count=(1 << 30) // 8)) == ("\n", "")


@pytest.mark.parametrize("where", ["caller", "worker"])
def test_a_small_device_and_nothing_else(where):
    """Without anonymous memory it fills up: what is too large goes through sockets.

    What was written until it was full is given back, and there is one line for all processes.
    """
    body = USE.format(count=BIG if where == "worker" else 100 * MEGABYTE // 8)
    body += """
    del back, again
    (ones,) = parallel_map(data_jobs.ones, [13_000_000], backend="processes")
    assert ones.sum() == 13_000_000 and ones.flags.writeable
    print(shutil.disk_usage("/dev/shm").used < 20 << 20, len(records))
    """
    out, err = in_a_small_system(body, "import os; del os.memfd_create")
    assert err == ""
    said, left = out.splitlines()
    assert said == ("" if where == "worker" else SAID.strip())
    assert left == "True 1"
