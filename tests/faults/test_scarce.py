"""Few descriptors, no /proc, a patched standard library: another way, or an error that says why."""

from __future__ import annotations

import os
import queue
import select
import shutil
import subprocess
import sys
import textwrap
import threading
from multiprocessing import resource_tracker

import jobs
import pytest

from parallax import ProcessPoolExecutor, SerializationError, ThreadPoolExecutor, WorkerStartError
from parallax import parallel_map as pmap
from parallax._backends.processes.common import process_identity
from parallax._backends.processes.start import zygote
from parallax._backends.processes.worker import limits
from parallax._core.cores import start_methods

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")


def run(program, *before, timeout=55):
    done = subprocess.run(
        [*before, sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return done.stdout, done.stderr


# -- descriptors -----------------------------------------------------------------------------------

# Forks a copy of the program for each number of descriptors that are left.
FEW = """
import concurrent.futures, multiprocessing, os, resource, signal, sys, time, warnings
import parallax
multiprocessing.get_context()  # it imports more from 3.15 on
from parallax import Executor, ProcessPoolExecutor, options, parallel_map

def work(x):
    return x * x

def heavy(x):
    end = time.perf_counter() + 0.03
    while time.perf_counter() < end:
        pass
    return x * x

def call():
    if KIND == "executor":
        with ProcessPoolExecutor(2) as executor:
            return list(executor.map(work, range(12)))
    if KIND == "submit":
        with ProcessPoolExecutor(2) as executor:
            futures = [executor.submit(work, x) for x in range(12)]
            return [future.result() for future in futures]
    if KIND == "auto":
        return list(parallel_map(heavy, range(12)))
    with options(start_method=KIND):
        return list(parallel_map(work, range(12), backend="processes", max_workers=2))

def try_with(left):
    os.closerange(3, 256)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (3 + left, hard))
    signal.alarm(20)
    try:
        told = "right" if call() == [x * x for x in range(12)] else "wrong"
    except (parallax.WorkerStartError, concurrent.futures.BrokenExecutor) as error:
        told = "told" if "No file descriptor is left" in str(error) else repr(error)
    except BaseException as error:
        told = repr(error)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    from parallax._backends.processes.parent.warm_pool import shutdown_warm_pool
    shutdown_warm_pool()
    try:
        while os.waitpid(-1, 0):
            told += ", and left a child behind"
    except ChildProcessError:
        pass
    print(left, told, flush=True)

for left in LEFT:
    if (pid := os.fork()) == 0:
        try_with(left)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if status:
        print(left, "status", status)
"""

SOME = [0, 3, 6, 8, 12, 14]


@pytest.mark.sampled(2)
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("kind", [*start_methods(), "executor", "submit", "auto"])
@pytest.mark.parametrize("left", [SOME, pytest.param(list(range(61)), marks=pytest.mark.full)])
def test_few_descriptors(kind, left):
    """Right results, by fewer means if need be, or an error that says what is missing."""
    out, err = run(f"KIND, LEFT = {kind!r}, {left}\n{FEW}", timeout=59)
    told = {line.partition(" ")[2] for line in out.splitlines()}
    wanted = {"right"} if kind == "auto" else {"right", "told"}
    assert told == wanted, (out, err)
    assert len(out.splitlines()) == len(left)


def test_errors_that_tell_of_descriptors():
    """Whatever could not be sent for want of one, here or in a worker."""
    usual = SerializationError("item", 3, "item", "TypeError: cannot pickle 'lock' object")
    assert "Leave the unpicklable part out" in str(usual)
    short = SerializationError("item", 3, "item", "in the worker: OSError: [Errno 24] Too many")
    assert "No file descriptor is left" in str(short)
    assert "unpicklable" not in str(short)
    assert "limits on processes, memory" in str(WorkerStartError("spawn", "no memory"))
    assert "No file descriptor is left" in str(WorkerStartError("spawn", "[Errno 24] Too many"))


# -- /proc -----------------------------------------------------------------------------------------

WITHOUT = """
import os, time
from parallax import ProcessPoolExecutor, cpu_count, options, parallel_map

def work(x):
    return x * x

assert not os.path.exists("/proc/self")
assert cpu_count() >= 1
right = [x * x for x in range(6)]
assert list(parallel_map(work, range(6))) == right
for method in METHODS:
    with options(start_method=method, backend="processes", item_timeout=30, max_workers=2):
        assert list(parallel_map(work, range(6))) == right
        assert list(parallel_map(work, range(6), max_memory_per_worker=1 << 34)) == right
    with ProcessPoolExecutor(2) as executor:
        assert list(executor.map(work, range(6))) == right
late = parallel_map(time.sleep, [60], backend="processes", item_timeout=0.2, on_error="return")
assert isinstance(late[0], TimeoutError)
print("fine")
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare")
def test_without_proc():
    """In a container, or chroot, that does not have it mounted."""
    try:
        probe = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /proc"]
        subprocess.run(probe, check=True, capture_output=True, timeout=20)
    except subprocess.CalledProcessError:
        pytest.skip("no right to do that")
    hide = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "-"]
    assert run(f"METHODS = {start_methods()!r}\n{WITHOUT}", *hide) == ("fine\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="the zygote")
def test_threads_are_counted_without_proc(monkeypatch):
    """The zygote must not fork with several."""

    def refuse(path="."):
        raise FileNotFoundError(path)

    monkeypatch.setattr(zygote.os, "listdir", refuse)
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    assert zygote._threads() > 1
    go.set()
    thread.join()
    assert zygote._threads() >= 1


def test_the_memory_of_a_worker_without_proc(monkeypatch):
    """As much as the system tells: not none, and no error."""
    held = bytearray(1 << 24)
    now = limits.private_memory()
    assert now > len(held)

    def refuse(*_):
        raise OSError("no such file")

    monkeypatch.setattr(limits.os, "open", refuse)
    assert limits.private_memory() > len(held)
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert limits.private_memory() > len(held)


def test_the_resource_tracker_without_proc(monkeypatch):
    """What it cannot reach it replaces by nothing, which removes nobody's memory."""
    mine = resource_tracker.ResourceTracker()
    monkeypatch.setattr(resource_tracker, "_resource_tracker", mine)
    monkeypatch.setattr(process_identity, "_shared", (None, (0, 0), None))
    monkeypatch.setattr(process_identity, "_tracker", None)
    process_identity._use_tracker(resource_tracker)
    assert os.readlink(f"/proc/self/fd/{mine._fd}") == os.devnull
    mine.ensure_running()  # takes it for a tracker that runs
    assert getattr(mine, "_pid", None) is None
    os.close(mine._fd)
    mine._fd = None


# -- a patched standard library --------------------------------------------------------------------


@pytest.mark.cold_pool
def test_a_library_that_removes_poll(monkeypatch):
    """As eventlet does, before a first call and between two."""
    for _ in range(2):
        assert pmap(jobs.square, range(8), backend="processes") == [x * x for x in range(8)]
        with ProcessPoolExecutor(2) as executor:
            assert list(executor.map(jobs.square, range(8))) == [x * x for x in range(8)]
        monkeypatch.delattr(select, "poll", raising=False)


@pytest.mark.parametrize("kind", ["call", "executor"])
def test_queues_that_were_replaced_late(monkeypatch, kind):
    """Threads that are greenlets wait in queues for greenlets, or they wait for ever."""
    made = []

    class Patched(queue.SimpleQueue):
        def __init__(self):
            made.append(self)

    assert pmap(jobs.square, range(8), backend="threads") == [x * x for x in range(8)]
    monkeypatch.setattr(queue, "SimpleQueue", Patched)
    if kind == "call":
        got = pmap(jobs.nap_square, range(8), backend="threads")
    else:
        with ThreadPoolExecutor(2) as executor:
            got = list(executor.map(jobs.nap_square, range(8)))
    assert got == [x * x for x in range(8)]
    assert made


PATCHED = """
import faulthandler
faulthandler.dump_traceback_later(40, exit=True)
from parallax import Executor, ProcessPoolExecutor, ThreadPoolExecutor, parallel_map

def work(x):
    return x * x

def patch():
    if LIBRARY == "gevent":
        from gevent import monkey
        monkey.patch_all()
    else:
        import eventlet
        eventlet.monkey_patch()

def use():
    for backend in ("auto", "threads", "processes"):
        assert list(parallel_map(work, range(60), backend=backend)) == [x * x for x in range(60)]
    for kind in (ThreadPoolExecutor, Executor, ProcessPoolExecutor):
        with kind(2) as executor:
            assert list(executor.map(work, range(60))) == [x * x for x in range(60)]
            assert executor.submit(work, 5).result() == 25

if EARLY:
    patch()
else:
    use()
    patch()
use()
use()
print("fine")
"""


@pytest.mark.parametrize(
    ("library", "early"), [("gevent", True), ("gevent", False), ("eventlet", True)]
)
def test_patched(library, early):
    """Before parallax is imported, and after a first call; eventlet's does not allow the latter."""
    pytest.importorskip(library)
    out, err = run(f"LIBRARY, EARLY = {library!r}, {early}\n{PATCHED}")
    assert out == "fine\n", err
