"""Calls that are cancelled while things go wrong: nothing begins afterwards."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import time
from concurrent.futures import CancelledError

import jobs
import psutil
import pytest

import parallax
from parallax import Executor, ProcessPoolExecutor
from tests.helpers.leaks import close_default_executors


def noted(path, gate=None):
    path.touch()
    deadline = time.monotonic() + 30
    while gate is not None and not gate.exists() and time.monotonic() < deadline:
        time.sleep(0.002)


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_a_worker_gave_back_does_not_begin_after_it_was_cancelled(tmp_path):
    """It was sent ahead, waited behind a long call, was recalled, and then it was to be ended."""
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    with ProcessPoolExecutor(1) as executor:
        for _ in range(5):
            executor.submit(noted, tmp_path / "other").result(30)  # known to be short
        engine = executor._engine
        with engine.lock:  # so that they travel in one frame
            executor.submit(noted, tmp_path / "other")
            executor.submit(noted, tmp_path / "long", gate)
            future = executor.submit(noted, begun)
        until(future.running)
        until(lambda: future.worker is None)
        engine.kill(future)
        with pytest.raises(CancelledError):
            future.result(30)
        gate.touch()
        executor.submit(noted, tmp_path / "other").result(30)
    assert (tmp_path / "long").exists()
    assert not begun.exists()


@pytest.mark.parametrize("ordered", [True, False])
def test_amap_takes_note_of_the_errors_that_it_does_not_raise(ordered):
    """Otherwise asyncio tells of each, when it is collected."""
    told = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        failed = asyncio.Event()

        async def fail(x):
            if x == 3:
                failed.set()
            await failed.wait()
            raise jobs.Oops(x)

        with pytest.raises(jobs.Oops):
            async for _ in parallax.amap(fail, range(4), ordered=ordered):
                pass
        gc.collect()

    asyncio.run(main())
    assert told == []


def pid_and_sleep(path):
    path.write_text(str(os.getpid()))
    time.sleep(60)


@pytest.mark.parametrize("how", ["cancel", "wait_for"])
@pytest.mark.parametrize(
    "kind", [ProcessPoolExecutor, functools.partial(Executor, backend="processes")]
)
def test_a_task_that_is_cancelled_ends_the_worker_behind_run_in_executor(kind, how, tmp_path):
    """The event loop's cancelling, unlike ``Future.cancel``, ends a call that has begun."""
    begun = tmp_path / "begun"

    async def main(executor):
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(executor, pid_and_sleep, begun)
        await asyncio.to_thread(until, lambda: begun.exists() and begun.read_text())
        pid = int(begun.read_text())
        if how == "wait_for":
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(call, 0.01)
        else:
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        await asyncio.to_thread(until, lambda: not psutil.pid_exists(pid))
        assert await loop.run_in_executor(executor, jobs.square, 3) == 9

    with kind(2) as executor:
        asyncio.run(main(executor))


def test_a_future_that_runs_is_not_ended_by_its_own_cancel(tmp_path):
    """As in the standard library, whoever else waits for it."""
    gate, begun = tmp_path / "gate", tmp_path / "begun"

    async def main(executor):
        future = executor.submit(noted, begun, gate)
        wrapped = asyncio.wrap_future(future)
        await asyncio.to_thread(until, begun.exists)
        assert not future.cancel()
        gate.touch()
        await wrapped

    with ProcessPoolExecutor(1) as executor:
        asyncio.run(main(executor))


@pytest.mark.parametrize("backend", ["threads", "processes", "auto"])
def test_a_call_that_raises_stop_iteration_does_not_hang_who_awaits_it(backend):
    """An empty iterator that somebody calls ``next`` on is a common mistake."""

    async def main():
        with pytest.raises(RuntimeError, match="StopIteration") as raised:
            await asyncio.wait_for(parallax.arun(next, iter(())), 20)
        assert isinstance(raised.value.__cause__, StopIteration)
        with pytest.raises(RuntimeError, match="StopIteration"):
            async for _ in parallax.amap(next, [iter(())]):
                pass

    with parallax.options(backend=backend):
        asyncio.run(main())
    close_default_executors()
