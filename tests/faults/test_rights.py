"""Workers may do what their caller may do, no more and no less, in programs of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what Linux tells of processes")

START = """
import os, resource, signal, sys, threading, time
from concurrent.futures import BrokenExecutor
from parallax import Executor, ProcessPoolExecutor, WorkerStartError, options, parallel_map
METHOD = sys.argv[1]
def ids(x=0):
    return os.getresuid(), os.getresgid(), tuple(os.getgroups())
def pid(x):
    return os.getpid()
def run(work, **given):
    given = {"backend": "processes", **given}
    return set(map(repr, parallel_map(work, range(8), max_workers=2, **given)))
def same(work):
    found = run(work)
    assert found == {repr(work(0))}, (found, work(0))
"""

IDS = """
def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as listing:
        return set(listing.read().split())
def change(set, reset):
    set()
    same(ids)
    reset()
    same(ids)
def main():
    same(ids)
    change(lambda: os.setgroups([5, 7]), lambda: os.setgroups([]))
    change(lambda: os.setegid(65534), lambda: os.setegid(0))
    change(lambda: os.setresgid(1, 2, 2), lambda: os.setresgid(0, 0, 0))
    change(lambda: os.setresuid(65534, 0, 65534), lambda: os.setresuid(0, 0, 0))
    os.setresuid(65534, 0, 4321)  # an executed process could not have this saved id
    try:
        run(ids)
    except WorkerStartError as error:
        assert "saved user" in str(error), error
    else:
        raise AssertionError
    os.setresuid(0, 0, 0)
    warm = run(pid)
    assert len(warm & run(pid)), "workers of the caller's own ids stay warm"

    def busy(x):
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass
        return ids()
    os.seteuid(65534)  # nobody may not be allowed to execute Python
    assert run(busy, backend="auto") == {repr(ids())}
    try:
        assert run(ids) == {repr(ids())}
    except WorkerStartError:
        pass
    os.seteuid(0)

    def drop(x):
        os.setgroups([9])
        return ids()
    run(drop)
    same(ids)  # not in the workers that have dropped something

    for kind in (ProcessPoolExecutor, lambda n: Executor(n, backend="processes")):
        with kind(2) as executor:
            os.setegid(65534)
            assert executor.submit(ids).result() == ids()
            os.setegid(0)
            assert executor.submit(ids).result() == ids()
            assert set(executor.map(ids, range(9))) == {ids()}
            ended = executor.submit(time.sleep, 0.2)
            os.setegid(65534)
            try:
                executor.submit(ids)
            except BrokenExecutor as error:
                assert "other user or group ids" in str(error), error
            else:
                raise AssertionError("a worker would run it with other ids")
            ended.result()
            assert executor.submit(ids).result() == ids()
            os.setegid(0)
    with Executor(2) as executor:
        calls = [executor.submit(busy, x) for x in range(30)]
        os.setegid(65534)
        calls += [executor.submit(ids) for x in range(9)]
        assert {call.result() for call in calls[-9:]} == {ids()}
        os.setegid(0)
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    same(ids)
    zygotes = children()
    assert zygotes
    os.setresuid(65534, 65534, 65534)
    try:
        same(ids)
    except WorkerStartError:
        pass
    assert not zygotes & children(), "a program that has dropped ids for good has no such helper"
"""

HABITS = """
def habits(x=0):
    umask = os.umask(0)
    os.umask(umask)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ()) - {signal.SIGURG, signal.SIGINT}
    kinds = [signal.getsignal(n) for n in (signal.SIGUSR2, signal.SIGPIPE, signal.SIGTERM)]
    limits = [resource.getrlimit(n) for n in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE)]
    cores = os.sched_getaffinity(0)
    return umask, blocked, kinds, limits, os.getpriority(os.PRIO_PROCESS, 0), cores
def spoil(x):
    os.umask(0o7)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    os.nice(3)
    time.sleep(0.01)
def main():
    same(habits)
    usual = os.umask(0o077)
    same(habits)
    os.umask(usual)
    same(habits)
    signals = {signal.SIGUSR1, signal.SIGURG, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    same(habits)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    same(habits)
    for number in (signal.SIGUSR2, signal.SIGPIPE, signal.SIGTERM):
        before = signal.getsignal(number)
        for disposition in (signal.SIG_IGN, signal.SIG_DFL, before):
            signal.signal(number, disposition)
            same(habits)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    same(habits)
    os.sched_setaffinity(0, cores)
    for number in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE):
        soft, hard = resource.getrlimit(number)
        resource.setrlimit(number, (256, hard))
        same(habits)
        resource.setrlimit(number, (soft, hard))
        same(habits)
    run(spoil)
    same(habits)  # what items have done to their workers is no concern of others
    os.nice(2)
    same(habits)
"""

END = """
if __name__ == "__main__":
    with options(start_method=METHOD):
        main()
    print("done")
"""


@pytest.mark.parametrize("method", ["zygote", pytest.param("spawn", marks=pytest.mark.full)])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            IDS,
            marks=pytest.mark.skipif(
                getattr(os, "getuid", int)() != 0, reason="root may change its ids"
            ),
        ),
        HABITS,
    ],
    ids=["ids", "habits"],
)
def test_workers_have_the_rights_of_the_caller(tmp_path, text, method):
    """Ids are those at the call; umask, limits and signals, too, whatever warm workers have."""
    script = tmp_path / "rights.py"
    script.write_text(START + text + END)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), method],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "done\n", done.stdout + done.stderr
