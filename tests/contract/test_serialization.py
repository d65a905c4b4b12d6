"""What cannot travel: an error that names it where processes were asked for, else no matter."""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import io
import threading
from pathlib import Path

import jobs
import pytest

from parallax import SerializationError, parallel_map

pytestmark = pytest.mark.sampled(2)

LOCK = threading.Lock()


def _spinning(fn):
    """Makes each item expensive enough for processes to be wanted."""

    def slow(x):
        jobs.spin(0.005)
        return fn(x)

    return slow


@pytest.mark.variants("processes", "spawn")
def test_unpicklable_callable(backend):
    """A callable that holds a lock is refused by name, before an item is run."""
    lock = threading.Lock()
    with pytest.raises(SerializationError) as info:
        parallel_map(lambda x: (lock, x), range(5), backend=backend)
    assert info.value.what == "callable"
    assert info.value.index is None
    assert "closure variable 'lock'" in info.value.path
    assert "lock" in str(info.value)
    assert "backend='threads'" in str(info.value)


@pytest.mark.variants("processes", "spawn")
def test_unpicklable_attribute_of_a_callable(backend):
    """The path goes through attributes of a callable instance and of a bound method's self."""
    adder = jobs.Adder(threading.Lock())
    with pytest.raises(SerializationError, match=r"\.by"):
        parallel_map(adder, range(5), backend=backend)
    with pytest.raises(SerializationError, match=r"__self__.*\.by"):
        parallel_map(adder.method, range(5), backend=backend)


@pytest.mark.variants("processes", "spawn")
@pytest.mark.parametrize("bad", [0, 11, 19])
def test_unpicklable_item(backend, bad):
    """An item that does not travel is an error of that item alone, with the path in it."""
    items = [{"deep": [0, x]} for x in range(20)]
    items[bad]["deep"][1] = threading.Lock()
    with pytest.raises(SerializationError) as info:
        parallel_map(len, items, backend=backend)
    assert (info.value.what, info.value.index) == ("item", bad)
    assert info.value.path == "item['deep'][1]"
    got = parallel_map(len, items, backend=backend, on_error="return")
    assert [v for i, v in enumerate(got) if i != bad] == [1] * 19
    assert isinstance(got[bad], SerializationError)
    assert got[bad].index == bad


@pytest.mark.variants("processes", "spawn")
@pytest.mark.parametrize("chunksize", [None, 5])
def test_unpicklable_result(backend, chunksize):
    """A result that does not travel is an error of that item alone, with the path in it."""
    got = parallel_map(
        functools.partial(jobs.lock_at, 7),
        range(20),
        backend=backend,
        on_error="return",
        chunksize=chunksize,
    )
    assert isinstance(got[7], SerializationError)
    assert (got[7].what, got[7].index) == ("result", 7)
    assert got[7].path == "result['inner'][0]"
    assert [v for i, v in enumerate(got) if i != 7] == [x for x in range(20) if x != 7]
    with pytest.raises(SerializationError, match=r"result of item 7 .*\['inner'\]\[0\]"):
        parallel_map(functools.partial(jobs.lock_at, 7), range(20), backend=backend)


@pytest.mark.variants("processes", "spawn")
@pytest.mark.parametrize("chunksize", [None, 5])
def test_exception_that_does_not_unpickle(backend, chunksize):
    """An exception whose ``__reduce__`` breaks unpickling is an error of its item alone."""
    got = parallel_map(
        functools.partial(jobs.awkward_at, 7),
        range(20),
        backend=backend,
        on_error="return",
        chunksize=chunksize,
    )
    assert isinstance(got[7], SerializationError)
    assert (got[7].what, got[7].index) == ("exception", 7)
    assert "Awkward" in str(got[7])
    assert "awkward_at" in str(got[7].__cause__)
    assert [v for i, v in enumerate(got) if i != 7] == [x for x in range(20) if x != 7]


@pytest.mark.variants("processes", "spawn")
def test_exception_with_an_unpicklable_field(backend):
    """An exception that carries a lock is an error of its item alone."""

    def fail(x):
        if x == 3:
            raise ValueError(threading.Lock())
        return x

    got = parallel_map(fail, range(6), backend=backend, on_error="return")
    assert isinstance(got[3], SerializationError)
    assert got[3].what == "exception"
    assert got[:3] + got[4:] == [0, 1, 2, 4, 5]


@pytest.mark.variants("processes", "spawn")
@pytest.mark.parametrize("chunksize", [None, 5])
def test_result_that_does_not_unpickle(backend, chunksize):
    """A result that breaks on its way in is an error of its item alone."""
    got = parallel_map(
        functools.partial(jobs.trap_at, 7),
        range(20),
        backend=backend,
        on_error="return",
        chunksize=chunksize,
    )
    assert isinstance(got[7], SerializationError)
    assert (got[7].what, got[7].index) == ("result", 7)
    assert "the trap sprang" in str(got[7])
    assert [v for i, v in enumerate(got) if i != 7] == [x for x in range(20) if x != 7]


@pytest.mark.variants("processes", "spawn")
@pytest.mark.parametrize("chunksize", [None, 5])
def test_item_that_does_not_unpickle(backend, chunksize):
    """An item that breaks in the worker is an error of that item alone."""
    items = [*range(7), jobs.Trap(), *range(8, 20)]
    got = parallel_map(
        jobs.described, items, backend=backend, on_error="return", chunksize=chunksize
    )
    assert isinstance(got[7], SerializationError)
    assert (got[7].what, got[7].index) == ("item", 7)
    assert "the trap sprang" in str(got[7])
    assert got[6] == "int:6"
    assert got[8] == "int:8"


@pytest.mark.variants("processes", "spawn")
def test_after_a_refusal_the_next_call_works(backend):
    """Whatever did not travel, the workers take the next call."""
    for bad in (lambda x, lock=LOCK: x, functools.partial(jobs.lock_at, 1)):
        with pytest.raises(SerializationError):
            parallel_map(bad, range(5), backend=backend)
        assert parallel_map(jobs.square, range(5), backend=backend) == [0, 1, 4, 9, 16]


@pytest.mark.variants("auto", "threads", "serial", "executor")
def test_unpicklable_callable_stays_here(backend):
    """Where the way is not prescribed, what does not travel stays, and the answer is right."""
    lock = threading.Lock()

    def run(x):
        jobs.spin(0.01)
        with lock:
            return x * x

    assert parallel_map(run, range(30), backend=backend) == [x * x for x in range(30)]


@pytest.mark.variants("auto", "threads", "serial", "executor")
def test_unpicklable_items_and_results_stay_here(backend):
    """The same for items and results, at the first item or late in the run."""
    locks = [threading.Lock() for _ in range(30)]
    got = parallel_map(_spinning(lambda x: x), locks, backend=backend)
    assert all(a is b for a, b in zip(got, locks, strict=True))
    for bad in (0, 25):
        got = parallel_map(
            _spinning(functools.partial(jobs.lock_at, bad)), range(30), backend=backend
        )
        assert isinstance(got[bad], dict)
        assert [v for i, v in enumerate(got) if i != bad] == [x for x in range(30) if x != bad]


@pytest.mark.variants("auto", "threads", "serial", "executor")
def test_late_unpicklable_item_stays_here(backend):
    """One item in the middle that does not travel is run here, the answer is right."""
    items = [*range(20), threading.Lock(), *range(21, 30)]
    got = parallel_map(_spinning(jobs.described), items, backend=backend)
    assert got == [jobs.described(x) for x in items]


@pytest.mark.variants("auto", "threads", "serial", "executor")
def test_unpicklable_exception_stays_here(backend):
    """Under ``auto`` an exception that does not travel keeps its type."""
    with pytest.raises(jobs.Awkward):
        parallel_map(_spinning(functools.partial(jobs.awkward_at, 22)), range(30), backend=backend)


def made_there(x):
    """A value of a class that is made where this runs, once per process."""
    kind = getattr(made_there, "kind", None)
    if kind is None:
        kind = made_there.kind = collections.namedtuple("Row", "a b")
    return kind(x, 2 * x)


def made_each_time(x):
    class LocalError(Exception):
        pass

    if x % 2:
        raise LocalError(x)
    return LocalError(x)


def test_classes_that_workers_make(backend):
    """This process forgets them as soon as it has no value of theirs; they come again."""
    for _ in range(3):
        assert [tuple(row) for row in parallel_map(made_there, range(4), backend=backend)] == [
            (x, 2 * x) for x in range(4)
        ]
        gc.collect()
        found = parallel_map(made_each_time, range(4), backend=backend, on_error="return")
        assert [(type(each).__name__, each.args) for each in found] == [
            ("LocalError", (x,)) for x in range(4)
        ]
        del found
        gc.collect()


def test_classes_that_workers_of_executors_make(make_pool):
    """The same, call by call, which the worker answers in one pickle or another."""
    pool = make_pool(1)
    for x in range(6):
        assert tuple(pool.submit(made_there, x).result(30)) == (x, 2 * x)
        gc.collect()
    for x in (1, 3):
        error = pool.submit(made_each_time, x).exception(30)
        assert (type(error).__name__, error.args) == ("LocalError", (x,))
        del error
        gc.collect()


def opened(x):
    jobs.spin(0.005)
    return Path(__file__).open()


def test_open_files_stay_here():
    """cloudpickle would make something else of them."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(file) for file in parallel_map(opened, range(40))]
        assert {type(file) for file in files} == {io.TextIOWrapper}
        assert parallel_map(io.TextIOWrapper.readline, files[:3], max_workers=2)[0].startswith(
            '"""'
        )


@pytest.mark.variants("processes", "spawn")
def test_open_files_are_refused(backend):
    """As results, as items and in closures."""
    with Path(__file__).open() as file:
        for call in (
            lambda: parallel_map(str, [file], backend=backend),
            lambda: parallel_map(lambda x: file.name, [1], backend=backend),
            lambda: parallel_map(opened, [1], backend=backend),
        ):
            with pytest.raises(SerializationError, match=r"open file|TextIOWrapper"):
                call()
