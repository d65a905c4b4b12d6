"""Workers that do not come up in time: they are given up, and what waits is not forgotten."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import jobs
import psutil
import pytest

from parallax import ProcessPoolExecutor, WorkerStartError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the zygote")


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_another_one_is_started_for_the_only_one(monkeypatch):
    """Nobody else would ever ask for one: no call ends, and none is submitted."""
    with ProcessPoolExecutor(1) as executor:
        engine = executor._engine
        pid = executor.submit(os.getpid).result(30)
        zygote = psutil.Process(pid).parent()
        os.kill(pid, signal.SIGKILL)
        until(lambda: not engine.workers)
        zygote.suspend()
        try:
            monkeypatch.setattr(engine.pool, "deadline", lambda worker: worker.born + 0.05)
            future = executor.submit(jobs.square, 7)
            (first,) = engine.workers
            until(lambda: engine.workers and engine.workers[0] is not first)
            monkeypatch.undo()
        finally:
            zygote.resume()
        assert future.result(30) == 49


def test_when_none_can_be_had_every_call_ends(monkeypatch):
    """Several are given up in one go, and with the last of them the executor."""
    with ProcessPoolExecutor(1) as executor:
        zygote = psutil.Process(executor.submit(os.getpid).result(30)).parent()
    zygote.suspend()
    try:
        with ProcessPoolExecutor(6) as executor:
            engine = executor._engine
            monkeypatch.setattr(engine.pool, "deadline", lambda worker: worker.born + 0.05)
            futures = [executor.submit(jobs.square, n) for n in range(12)]
            errors = [future.exception(30) for future in futures]
            assert {type(error) for error in errors} == {BrokenProcessPool}
            assert {type(error.__cause__) for error in errors} == {WorkerStartError}
    finally:
        zygote.resume()


def stop_soon():
    """Return, and stop the worker a little later."""
    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGSTOP)).start()


def test_a_call_that_was_never_read_is_not_to_blame():
    """Two frames were sent ahead to a worker that read neither."""
    with ProcessPoolExecutor(1) as executor:
        engine = executor._engine
        pid = executor.submit(os.getpid).result(30)
        for _ in range(5):
            executor.submit(len, b"known to be short").result(30)
        with engine.lock:  # nobody hears of its end before it has stopped
            executor.submit(stop_soon)
            first = executor.submit(len, bytes(70_000))  # alone in its frame
            second = executor.submit(len, b"two")
            until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        until(lambda: first.running() and second.running())
        os.kill(pid, signal.SIGKILL)
        assert (first.result(30), second.result(30)) == (70_000, 3)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_mistake_of_ours_is_told_to_all_who_wait(monkeypatch):
    """The thread that they all depend on has ended."""
    with ProcessPoolExecutor(1) as executor:
        assert executor.submit(jobs.square, 7).result(30) == 49
        workers = executor._engine._workers

        def mistaken():
            raise LookupError("of ours")

        with executor._engine.lock:
            futures = [executor.submit(jobs.nap_square, n) for n in range(20)]
            monkeypatch.setattr(workers, "look_after", mistaken)
            workers.look_at = 0.0
            executor._engine._wake()
        errors = [future.exception(30) for future in futures]
        assert any(isinstance(error.__cause__, LookupError) for error in errors if error)
        with pytest.raises(BrokenProcessPool):
            executor.submit(jobs.square, 7)
