"""Context variables: calls and items in threads see those of the code that submitted them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import decimal
import gc
import threading
import weakref

import numpy as np
import pytest
from helpers.executor_kinds import APART, INSIDE, KINDS, SOON
from jobs import nested as nested_jobs

import parallax
from tests.helpers.leaks import close_default_executors

user: contextvars.ContextVar[object] = contextvars.ContextVar("user", default="nobody")

#: Kinds that run these calls in threads of their own.
THREADED = tuple(kind for kind in KINDS if kind not in APART and kind != "serial")


def read(*_):
    return user.get()


def change(value):
    """Set the variable; return what it was."""
    before = user.get()
    user.set(value)
    return before


def third_with(digits):
    """One third to so many digits, set as programs do it; then others get their turn."""
    decimal.getcontext().prec = digits
    BARRIER.wait(SOON)
    return len(str(decimal.Decimal(1) / 3)) - 2


BARRIER = threading.Barrier(2)


@pytest.fixture(params=THREADED)
def executor(request):
    """An executor with two threads."""
    with KINDS[request.param](2) as executor:
        yield executor


@pytest.fixture
def set_to():
    """Sets the variable until the end of the test."""
    tokens = []
    yield lambda value: tokens.append(user.set(value))
    for token in reversed(tokens):
        user.reset(token)


@pytest.fixture
def no_default_executors():
    """The executors that are made for calls without one end with the test."""
    yield
    close_default_executors()


# -- executors -------------------------------------------------------------------------------------


def test_a_call_sees_what_was_set_when_it_was_submitted(executor, set_to):
    """Not what is set later, nor in another thread."""
    futures = []
    for name in ("ada", "bob", "cleo"):
        set_to(name)
        futures.append(executor.submit(read))
    assert [future.result(SOON) for future in futures] == ["ada", "bob", "cleo"]


def test_map_sees_what_was_set_when_it_was_called(executor, set_to):
    """Its calls are submitted later, some of them by another thread than the caller's."""
    set_to("ada")
    results = executor.map(read, range(500))
    dropped = []
    executor.map(lambda _: dropped.append(user.get()), range(500))
    set_to("bob")
    assert set(results) == {"ada"}
    executor.shutdown()
    assert dropped == ["ada"] * 500


def test_a_replaced_submit_is_called_in_the_context_of_the_map(set_to):
    """Tools replace it to take something along."""

    class Traced(parallax.ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            seen.append(user.get())
            return super().submit(fn, *args, **kwargs)

    seen = []
    set_to("ada")
    with Traced(2) as executor:
        results = executor.map(read, range(200))
        set_to("bob")
        assert set(results) == set(seen) == {"ada"}


def test_what_a_call_sets_ends_with_it(executor, set_to):
    """It reaches neither other calls nor the code that submitted it."""
    set_to("ada")
    assert set(executor.map(change, range(50))) == {"ada"}
    assert executor.submit(read).result(SOON) == user.get() == "ada"


def test_a_call_of_a_call(executor, set_to):
    """The context is that of the call that submits."""

    def outer():
        user.set("bob")
        return executor.submit(read).result(SOON)

    set_to("ada")
    assert executor.submit(outer).result(SOON) == "bob"


def test_serial_calls_run_in_the_context_of_the_caller(set_to):
    """As in a loop."""
    set_to("ada")
    with parallax.Executor(backend="serial") as executor:
        assert executor.submit(change, "bob").result() == "ada"
    assert user.get() == "bob"


def test_an_ended_call_keeps_no_context_alive(executor, set_to):
    """Its future may be kept for long."""

    class Request:
        pass

    request = Request()
    gone = weakref.ref(request)
    token = user.set(request)
    futures = [executor.submit(id), executor.submit(threading.get_ident)]
    futures += [executor.submit(BARRIER.wait, SOON), executor.submit(BARRIER.wait, SOON)]
    cancelled = [executor.submit(threading.get_ident) for _ in range(20)]
    for future in cancelled:
        future.cancel()
    concurrent.futures.wait([*futures, *cancelled], SOON)
    user.reset(token)
    del request, token
    gc.collect()
    assert gone() is None


def test_what_an_initializer_sets_is_found_by_calls(set_to):
    """As in the standard library; what the submitter has set does not hide it."""
    set_to("ada")
    with decimal.localcontext(decimal.Context(prec=4)):
        for kind in THREADED:
            with KINDS[kind](2, initializer=_set_up) as executor:
                found = executor.map(lambda _: (user.get(), third(), change("cleo")), range(50))
                assert set(found) == {("worker", "0.3333333", "worker")}
    assert user.get() == "ada"


def _set_up():
    user.set("worker")
    decimal.getcontext().prec = 7


def third(*_):
    return str(decimal.Decimal(1) / 3)


def test_a_failed_initializer_beside_context_variables(set_to):
    """It is told as ever."""
    set_to("ada")
    with (
        parallax.ThreadPoolExecutor(1, initializer=read, initargs=(1, 2)) as fine,
        parallax.ThreadPoolExecutor(1, initializer=_set_up, initargs=(1,)) as failing,
    ):
        assert fine.submit(read).result(SOON) == "ada"
        with pytest.raises(concurrent.futures.BrokenExecutor):
            failing.submit(read).result(SOON)


# -- arithmetic ------------------------------------------------------------------------------------


def test_arithmetic_of_the_submitter(executor):
    """Its precision, and what NumPy does about errors, as in a loop."""
    with decimal.localcontext() as context, np.errstate(divide="raise"):
        context.prec = 5
        assert executor.submit(third).result(SOON) == "0.33333"
        with pytest.raises(FloatingPointError):
            executor.submit(nested_jobs.divide, 0.0).result(SOON)
        context.prec = 6
        assert set(executor.map(nested_jobs.third, range(20))) == {"0.333333"}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", KINDS)
def test_arithmetic_is_that_of_the_submitter_on_every_route(kind):
    """Not that of whoever made the executor, and in processes as in threads."""
    with decimal.localcontext(decimal.Context(prec=4)), KINDS[kind](2) as executor:
        found = [executor.submit(third).result(SOON)]
        with decimal.localcontext(decimal.Context(prec=5)), np.errstate(divide="raise"):
            found.append(executor.submit(third).result(SOON))
            found += set(executor.map(third, range(50)))
            waiting = executor.map(third, range(500))
            error = executor.submit(nested_jobs.divide, 0.0) if kind != "serial" else None
        found.append(executor.submit(third).result(SOON))
        found += set(waiting) if kind != "serial" else ()
        assert executor.submit(nested_jobs.divide, 1.0).result(SOON) == 1.0
        if error is not None:
            assert type(error.exception(SOON)) is FloatingPointError
    decimals = [len(each) - 2 for each in found]
    assert decimals == [4, 5, 5, 4, 5][: len(decimals)]


@pytest.mark.parametrize("kind", [*THREADED, *APART])
def test_arithmetic_of_an_initializer_stays(kind):
    """One that sets none leaves that of the submitter."""
    for initializer, digits in ((_set_precision, 7), (read, 3)):
        with KINDS[kind](2, initializer=initializer) as executor:
            executor.submit(third).result(SOON)
            with decimal.localcontext(decimal.Context(prec=3)):
                assert len(executor.submit(third).result(SOON)) - 2 == digits


def _set_precision():
    decimal.getcontext().prec = 7


def test_calls_that_are_routed_keep_their_arithmetic():
    """Wherever each of them has run."""
    with parallax.Executor(2) as executor:
        with decimal.localcontext(decimal.Context(prec=9)):
            calls = [executor.submit(spins, n) for n in range(25)]
        others = [executor.submit(spins, n) for n in range(10)]
        assert {call.result(SOON) for call in calls} == {9}
        assert {call.result(SOON) for call in others} == {decimal.getcontext().prec}


def spins(n):
    for _ in range(100_000):
        n += 1
    return len(str(decimal.Decimal(1) / 3)) - 2


def test_calls_do_not_change_the_arithmetic_of_each_other(executor):
    """``getcontext()`` is what the docs of ``decimal`` tell each thread to change."""
    before = decimal.getcontext().prec
    futures = [executor.submit(third_with, digits) for digits in (3, 9) * 5]
    assert [future.result(SOON) for future in futures] == [3, 9] * 5
    assert decimal.getcontext().prec == before


@pytest.mark.variants("threads", "executor")
def test_items_do_not_change_the_arithmetic_of_each_other(backend):
    """Two threads of one map work at the same time, each with its precision."""
    before = decimal.getcontext().prec
    got = parallax.parallel_map(third_with, [3, 9] * 5, backend=backend, max_workers=2, chunksize=1)
    assert got == [3, 9] * 5
    assert decimal.getcontext().prec == before


# -- maps and coroutines ---------------------------------------------------------------------------


@pytest.mark.variants("serial", "threads", "executor", "auto")
def test_every_entry_sees_the_variables_of_its_caller(backend, set_to, no_default_executors):
    """On whichever threads."""
    decorated = parallax.parallel(backend=backend)(lambda x: (x, user.get())[1])

    async def in_coroutines():
        with parallax.options(backend=backend):
            several = {value async for value in parallax.amap(read, range(30))}
            return await parallax.arun(read), several

    set_to("ada")
    assert set(parallax.parallel_map(read, range(30), backend=backend)) == {"ada"}
    assert set(parallax.parallel_imap(read, range(30), backend=backend)) == {"ada"}
    assert set(decorated.map(range(30))) == set(decorated.imap(range(30))) == {"ada"}
    assert asyncio.run(in_coroutines()) == ("ada", {"ada"})
    with parallax.Executor(2, backend=backend) as executor:
        assert executor.submit(read).result(SOON) == "ada"
        assert set(executor.map(read, range(30))) == {"ada"}
    if backend in INSIDE or backend == "auto":
        assert decorated.submit(1).result(SOON) == "ada"


def test_an_executor_of_ours_as_the_backend_of_a_map(executor, set_to):
    """Whichever thread hands its chunks out."""
    set_to("ada")
    assert set(parallax.parallel_map(read, range(100), backend=executor)) == {"ada"}
