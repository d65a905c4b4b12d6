"""An error of the input is never lost: nobody reads, and somebody is told all the same.

An item's error that nobody reads is silent, as in the standard library.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import gc
import itertools
import logging
import subprocess
import sys
import textwrap
import threading
import weakref

import jobs
import pytest
from helpers.executor_kinds import CONCURRENT, KINDS, OUTSIDE, SOON, held

import parallax
from parallax import explain, parallel_imap
from tests.helpers.leaks import close_default_executors

pytestmark = pytest.mark.sampled(3)

COUNTS = [1, 20, 900]


def rows(count, error=None):
    yield from range(count)
    raise error or ValueError("row")


@pytest.fixture
def told():
    """What was logged of errors of inputs: their texts. The errors themselves are not kept."""
    texts = []

    class Texts(logging.Handler):
        def emit(self, record):
            texts.append(str(record.exc_info[1]))

    def found():
        gc.collect()
        return list(texts)

    log, handler = logging.getLogger("parallax"), Texts()
    log.addHandler(handler)
    log.propagate = False
    yield found
    log.removeHandler(handler)
    log.propagate = True


# -- the end of the executor -----------------------------------------------------------------------


@pytest.mark.sampled(12)
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("given", [{}, {"chunksize": 7}, {"buffersize": 2000}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_end_of_the_block_raises_it(kind, given, count, keep, told):
    """The iterator was dropped at once, or is kept and nobody has read it. All items before ran."""
    kept = []
    with pytest.raises(ValueError, match="row"), KINDS[kind](2) as executor:
        results = executor.map(jobs.square, rows(count), **given)
        if keep:
            kept.append(results)
        del results
    assert told() == []
    for results in kept:  # who reads it later gets what there is, and no more
        found = []
        with pytest.raises(ValueError, match="row"):
            found.extend(results)
        assert found == [n * n for n in range(count)]


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_shutdown_that_waits_raises_it(kind, cancel, told):
    """Once, after everything has ended."""
    executor = KINDS[kind](2)
    results = executor.map(jobs.square, rows(1))
    known = kind != "serial" or not cancel  # one that runs the calls itself has read one item
    with pytest.raises(ValueError, match="row") if known else contextlib.nullcontext():
        executor.shutdown(cancel_futures=cancel)
    with pytest.raises(RuntimeError):
        executor.submit(jobs.square, 1)
    executor.shutdown()
    del results
    assert told() == []


@pytest.mark.parametrize("kind", CONCURRENT)
def test_a_shutdown_that_does_not_wait_raises_nothing(kind, told):
    """Whoever has the iterator can read it; if it is dropped instead, the log has it."""
    executor = KINDS[kind](2)
    results, other = (executor.map(jobs.square, rows(30)) for _ in range(2))
    executor.shutdown(wait=False)
    found = []
    with pytest.raises(ValueError, match="row"):
        found.extend(results)
    assert found == [n * n for n in range(30)]
    assert told() == []
    del other
    assert told() == ["row"]
    with contextlib.suppress(ValueError):
        executor.shutdown()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_read_is_not_told_twice(kind, told):
    """Neither by the end of the block nor by the log."""
    with KINDS[kind](2) as executor:
        results = executor.map(jobs.square, rows(20))
        with pytest.raises(ValueError, match="row"):
            list(results)
        assert list(results) == []
        with pytest.raises(
            ValueError, match="row"
        ):  # there is not even one result: as the standard library
            executor.map(jobs.square, rows(0))
        del results
    assert told() == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_block_has_an_error_of_its_own(kind, told):
    """That is raised, and the input's is logged."""
    with pytest.raises(KeyError, match="mine"), KINDS[kind](2) as executor:
        executor.map(jobs.square, rows(20))
        raise KeyError("mine")
    assert told() == ["row"]


@pytest.mark.parametrize("kind", KINDS)
def test_several_inputs_that_raise(kind, told):
    """One is raised, the others are logged."""
    with pytest.raises(jobs.Oops, match="0"), KINDS[kind](2) as executor:
        for n in range(3):
            executor.map(jobs.square, rows(20, jobs.Oops(n)))
    assert told() == [str(jobs.Oops(n)) for n in (1, 2)]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_items_are_silent(kind, told):
    """As in the standard library: nothing was lost of which a result does not tell."""
    with KINDS[kind](2) as executor:
        executor.map(functools.partial(jobs.oops_at, {3}), range(20))
        executor.map(jobs.square, itertools.chain(range(20)))
    assert told() == []


def test_an_item_that_fails_hides_nothing(told):
    """The reader knows that this is not all, and the loop would not have come to the input's."""
    with parallax.ThreadPoolExecutor(2) as executor, pytest.raises(jobs.Oops):
        list(executor.map(functools.partial(jobs.oops_at, {0}), rows(3, KeyError("later"))))
    assert told() == []


def test_items_that_cannot_be_submitted(told):
    """They were not run either: the standard library raises that at the call of ``map``."""

    class Full(parallax.ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            if args[0] == 30:
                raise RuntimeError("the queue is full")
            return super().submit(fn, *args, **kwargs)

    with pytest.raises(RuntimeError, match="full"), Full(2) as executor:
        executor.map(jobs.square, range(50))
    assert told() == []


@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor", "auto"])
def test_ctrl_c_while_the_rest_is_read(kind):
    """It is read when the iterator is dropped, from where no exception reaches the program."""
    with pytest.raises(KeyboardInterrupt), KINDS[kind](2) as executor:
        executor.map(jobs.square, rows(50, KeyboardInterrupt()))


@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor", "auto", "serial"])
def test_ctrl_c_while_a_shutdown_reads_the_rest(kind):
    """It is raised at once, and nothing of the executor is left."""
    executor = KINDS[kind](2)
    results = executor.map(jobs.square, rows(50, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        executor.shutdown()
    with pytest.raises(concurrent.futures.CancelledError):
        list(results)
    executor.shutdown()


@pytest.mark.parametrize("kind", OUTSIDE)
def test_a_call_that_runs_when_ctrl_c_ends_the_executor(kind, tmp_path):
    """It is cancelled: nobody is told that a stranger has killed its worker."""
    executor = KINDS[kind](1)
    running = held(executor, tmp_path / "go")
    results = executor.map(jobs.square, rows(50, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        executor.shutdown()
    for cancelled in (lambda: running.result(0), lambda: next(results)):
        with pytest.raises(concurrent.futures.CancelledError):
            cancelled()


# -- iterators that are dropped --------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_executor_that_stays_open(kind, told):
    """What nobody reads is logged at once, with the line of the input; a shutdown raises it."""
    executor = KINDS[kind](2)
    executor.map(jobs.square, rows(300))
    assert told() == ["row"]
    with pytest.raises(ValueError, match="row"):
        executor.shutdown()
    executor.shutdown()
    assert told() == ["row"]


@pytest.mark.parametrize("end", ["close", "drop"])
@pytest.mark.parametrize("kind", CONCURRENT)
def test_a_reader_that_gives_up_before_it(kind, end, told):
    """It has asked for no more: that is logged, and raised by nobody."""
    with KINDS[kind](2) as executor:
        results = executor.map(jobs.square, rows(3))
        assert next(results) == 0
        assert told() == []
        if end == "close":
            results.close()
            assert list(results) == []
        del results
        assert told() == ["row"]


def test_who_is_kept_alive_by_an_error(told):
    """Nobody: the iterator goes when it is dropped, and so do the executor and its threads."""
    gc.disable()
    try:
        executor = parallax.ThreadPoolExecutor(2)
        results = executor.map(jobs.square, rows(1))
        refs = [weakref.ref(results), weakref.ref(executor)]
        del results
        assert refs[0]() is None
        del executor
        assert refs[1]() is None
    finally:
        gc.enable()
    assert told() == ["row"]


@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor", "Executor"])
@pytest.mark.parametrize("name", ["results = ", ""])
@pytest.mark.parametrize("read", ["", "next(results)"])
def test_a_program_that_ends(kind, name, read, tmp_path):
    """Its last words have the error, once."""
    if read and not name:
        pytest.skip("nobody has it")
    path = tmp_path / "script.py"
    path.write_text(
        textwrap.dedent(f"""
        import parallax
        def rows():
            yield from range(3)
            raise ValueError("row 3")
        def item(n):
            return n
        executor = parallax.{kind}(2)
        {name}executor.map(item, rows())
        {read}
        """)
    )
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=40, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("ValueError: row 3") == 1
    assert "in rows" in done.stderr
    assert "map of item" in done.stderr


# -- the other ways to map -------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("where", ["threads", "processes"])
def test_a_stream_that_is_closed_before_it(where, ordered, told):
    """The error is known, because the input is read ahead, and the reader has not come so far."""
    raised = threading.Event()

    def noted_rows():
        yield from range(40)
        raised.set()
        raise ValueError("row")

    results = parallel_imap(jobs.nap_square, noted_rows(), backend=where, ordered=ordered)
    for _ in range(40):
        assert next(results) is not None
        if raised.is_set():
            break
    assert told() == []
    del results
    assert told() == ["row"] * raised.is_set()
    assert raised.is_set() or where == "processes"  # one worker may do all of it


@pytest.mark.parametrize("on_error", ["raise", "return"])
@pytest.mark.parametrize("where", ["serial", "threads", "processes", "auto"])
def test_a_stream_that_is_read_to_it(where, on_error, told):
    """Is told once."""
    results = parallel_imap(jobs.square, rows(20), backend=where, on_error=on_error)
    found = []
    with (
        pytest.raises(ValueError, match="row") if on_error == "raise" else contextlib.nullcontext()
    ):
        found.extend(results)
    assert found[:20] == [n * n for n in range(20)]
    assert [type(each) for each in found[20:]] == [ValueError] * (on_error == "return")
    del results
    assert told() == []


def test_explain_raises_it():
    """The input that it was to explain has an error among the first items."""
    with pytest.raises(ValueError, match="row"):
        explain(jobs.square, rows(1))


@pytest.mark.parametrize("ordered", [True, False])
def test_amap_that_is_closed_before_it(ordered, told):
    """As a stream."""

    async def main():
        async with contextlib.aclosing(
            parallax.amap(jobs.square, rows(3), ordered=ordered)
        ) as results:
            async for _ in results:
                await asyncio.sleep(0.05)
                break

    with parallax.options(backend="threads"):
        asyncio.run(main())
    close_default_executors()
    assert told() == ["row"]


def test_a_thread_that_reads_while_the_block_ends(told):
    """The reader gets it, the end of the block raises nothing."""
    go = threading.Event()

    def late():
        yield from range(5)
        go.wait(SOON)
        raise ValueError("row")

    with concurrent.futures.ThreadPoolExecutor(1) as other:
        with parallax.ThreadPoolExecutor(2) as executor:
            outcome = other.submit(list, executor.map(jobs.square, late(), buffersize=2))
            threading.Timer(0.05, go.set).start()
        assert isinstance(outcome.exception(SOON), (ValueError, RuntimeError))
    assert told() == []
