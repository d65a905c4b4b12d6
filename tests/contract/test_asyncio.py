"""``arun`` and ``amap``: from coroutines, on every backend."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import os
import threading
import time

import psutil
import pytest

import parallax
from tests import jobs
from tests.helpers.leaks import close_default_executors

BACKENDS = ("auto", "threads", "processes", "serial")

user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


@pytest.fixture(params=BACKENDS)
def where(request):
    """Each backend, as a default; no executor of the program's is left afterwards."""
    with parallax.options(backend=request.param):
        yield request.param
    close_default_executors()


@pytest.fixture(autouse=True)
def closed():
    """No default executor outlives a test."""
    yield
    close_default_executors()


async def collect(results):
    return [result async for result in results]


def whose():
    return user.get()


def long(path):
    path.write_text(str(os.getpid()))
    time.sleep(60)


async def twice(x):
    await asyncio.sleep(0)
    return 2 * x


def test_arun_returns_what_the_call_returns(where):
    async def main():
        assert await parallax.arun(jobs.square, 7) == 49
        assert await parallax.arun(divmod, 7, 2) == (3, 1)
        assert await parallax.arun(int, "ff", base=16) == 255
        return await asyncio.gather(*(parallax.arun(jobs.square, n) for n in range(50)))

    assert asyncio.run(main()) == [n * n for n in range(50)]


def test_arun_raises_what_the_call_raises(where):
    async def main():
        await parallax.arun(jobs.oops_at, {3}, 3)

    with pytest.raises(jobs.Oops):
        asyncio.run(main())


def test_two_loops_one_after_the_other(where):
    for _ in range(2):
        assert asyncio.run(parallax.arun(jobs.square, 3)) == 9


def test_coroutine_functions_run_on_the_loop():
    async def main():
        loop_thread = threading.get_ident()

        async def here(x):
            await asyncio.sleep(0)
            return x, threading.get_ident() == loop_thread

        assert await parallax.arun(here, 1) == (1, True)
        assert await collect(parallax.amap(here, range(3))) == [(n, True) for n in range(3)]

    asyncio.run(main())


@pytest.mark.parametrize("where", ["threads", "serial"], indirect=True)
def test_context_variables_are_carried_into_threads(where):
    async def main():
        user.set("ada")
        assert await parallax.arun(whose) == "ada"
        assert await collect(parallax.amap(lambda _: whose(), range(3))) == ["ada"] * 3

    asyncio.run(main())


def test_context_variables_are_carried_into_threads_of_auto():
    async def main():
        user.set("ada")
        assert await parallax.arun(lambda log: log.append(whose()) or log, []) == ["ada"]

    asyncio.run(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_amap_gives_every_result(where, ordered):
    async def main():
        return await collect(parallax.amap(jobs.square, range(300), ordered=ordered))

    found = asyncio.run(main())
    assert (found if ordered else sorted(found)) == [n * n for n in range(300)]


def test_amap_of_several_iterables_and_asynchronous_ones(where):
    async def numbers():
        for n in itertools.count():
            await asyncio.sleep(0)
            yield n

    async def main():
        assert await collect(parallax.amap(pow, [2, 3, 4], [2, 2, 2])) == [4, 9, 16]
        return await collect(parallax.amap(pow, numbers(), [2, 2, 2]))

    assert asyncio.run(main()) == [0, 1, 4]


def test_amap_reads_no_further_than_it_must(where):
    taken = []

    def numbers():
        for n in itertools.count():
            taken.append(n)
            yield n

    async def main():
        async with contextlib.aclosing(
            parallax.amap(jobs.square, numbers(), concurrency=2)
        ) as results:
            found = [await results.__anext__() for _ in range(5)]
        assert found == [0, 1, 4, 9, 16]

    asyncio.run(main())
    assert len(taken) <= 5 + 4


def test_amap_bounds_what_runs_at_a_time():
    async def main():
        running, most = 0, 0

        async def count(x):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001)
            running -= 1
            return x

        assert await collect(parallax.amap(count, range(50), concurrency=3)) == list(range(50))
        assert most == 3

    asyncio.run(main())


def test_amap_gives_results_as_they_finish_if_asked():
    async def main():
        first = asyncio.Event()

        async def wait(x):
            if x == 0:
                await first.wait()
            return x

        found = []
        async for x in parallax.amap(wait, range(3), ordered=False):
            found.append(x)
            if len(found) == 2:
                first.set()
        assert sorted(found[:2]) == [1, 2]
        assert found[2] == 0

    asyncio.run(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_amap_ends_at_the_first_error_and_cancels_the_rest(ordered):
    async def main():
        cancelled = []

        async def work(x):
            if x == 2:
                raise jobs.Oops(x)
            if x > 2:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    cancelled.append(x)
                    raise
            return x

        found = []
        with pytest.raises(jobs.Oops):
            async for x in parallax.amap(work, range(6), ordered=ordered):
                found.append(x)  # noqa: PERF401 - what came before the error counts
        assert sorted(found) == [0, 1]
        assert sorted(cancelled) == [3, 4, 5]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_amap_gives_what_comes_before_an_error_of_the_input(where, ordered):
    def numbers():
        yield from range(3)
        raise jobs.Oops("input")

    async def main():
        found = []
        with pytest.raises(jobs.Oops, match="input"):
            async for x in parallax.amap(jobs.square, numbers(), ordered=ordered):
                found.append(x)  # noqa: PERF401 - as above
        assert sorted(found) == [0, 1, 4]

    asyncio.run(main())


@pytest.mark.parametrize("many", [False, True])
def test_cancelling_kills_the_call_in_its_process(tmp_path, many):
    async def main():
        path = tmp_path / "pid"
        if many:
            task = asyncio.ensure_future(collect(parallax.amap(long, [path])))
        else:
            task = asyncio.ensure_future(parallax.arun(long, path))
        while not path.exists() or not path.read_text():  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.01)
        process = psutil.Process(int(path.read_text()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(process.wait, 5)
        # The others are not affected.
        assert await parallax.arun(jobs.square, 5) == 25

    with parallax.options(backend="processes"):
        asyncio.run(main())


def test_a_task_that_is_cancelled_before_its_turn_is_not_begun(tmp_path):
    begun = []
    gate = threading.Event()

    def wait():
        gate.wait(30)

    async def main():
        first = asyncio.ensure_future(parallax.arun(wait))
        second = asyncio.ensure_future(parallax.arun(begun.append, 1))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.set()
        await first

    with parallax.options(backend="threads", max_workers=1):
        asyncio.run(main())
    assert begun == []


def test_the_loop_goes_on_meanwhile():
    gate = threading.Event()

    async def main():
        task = asyncio.ensure_future(parallax.arun(gate.wait, 30))
        await asyncio.sleep(0.01)
        gate.set()
        assert await task

    asyncio.run(main())


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: parallax.amap(3, [1]), TypeError, "callable"),
        (lambda: parallax.amap(abs), TypeError, "at least one iterable"),
        (lambda: parallax.amap(abs, 5), TypeError, "not iterable"),
        (lambda: parallax.amap(abs, [1], concurrency=0), ValueError, "at least 1"),
        (lambda: parallax.amap(abs, [1], concurrency=1.5), TypeError, "whole number"),
        (lambda: parallax.amap(abs, [1], ordered="yes"), TypeError, "True or False"),
    ],
)
def test_amap_refuses_what_cannot_be(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


def test_arun_refuses_what_cannot_be_called():
    async def main():
        await parallax.arun(3)

    with pytest.raises(TypeError, match="callable"):
        asyncio.run(main())
