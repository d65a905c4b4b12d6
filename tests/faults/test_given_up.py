"""Workers that do not come up in time: they are given up, and what waits is not forgotten."""

from __future__ import annotations

import os
import signal
import sys
import time

import jobs
import psutil
import pytest

from parallax import ProcessPoolExecutor

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
            monkeypatch.setattr(engine._pool, "deadline", lambda worker: worker.born + 0.05)
            future = executor.submit(jobs.square, 7)
            (first,) = engine.workers
            until(lambda: engine.workers and engine.workers[0] is not first)
            monkeypatch.undo()
        finally:
            zygote.resume()
        assert future.result(30) == 49
