"""The table of faults, run on every backend, start method and kind of executor that applies."""

from __future__ import annotations

import functools
import multiprocessing
import sys

import jobs
import psutil
import pytest
from helpers.backends import INTERPRETERS
from helpers.fault_table import ROWS
from jobs import actions
from jobs.actions import BAD, COUNT

from parallax import (
    Executor,
    ProcessPoolExecutor,
    SerializationError,
    WorkerDiedError,
    options,
    parallel_map,
)
from parallax._backends.processes.parent.warm_pool import shutdown_warm_pool

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, /proc"),
    pytest.mark.sampled(2),
]

NUMBERS = [x for x in range(COUNT) if x != BAD]
SQUARES = [x * x for x in NUMBERS]

#: Seconds in which everything that does not hang is over, on a loaded machine.
SOON = 30


def cases(wanted=lambda row: True, *, full=lambda row: row.full):
    """The rows that something is for, by name; some of them at full size only."""
    return [
        pytest.param(row, id=row.name, marks=[pytest.mark.full] if full(row) else [])
        for row in ROWS
        if wanted(row)
    ]


def submits(row):
    """Whether it has a counterpart in executors."""
    # An argument that ends the program while it is pickled is never submitted.
    return not row.kwargs and (row.argument is None or row.error is not SystemExit)


def kind_of(row, *, inside=False):
    kind = actions.kind_of(row.error) if isinstance(row.error, str) else row.error
    # Where nothing has to travel nothing fails to.
    return None if inside and kind is SerializationError else kind


def items_of(row):
    return [row.argument() if x == BAD and row.argument else x for x in range(COUNT)]


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def check(row, error, kind, index):
    """The error is the one of the table, with all that it says; it names its item."""
    # An executor's are subclasses, of the standard library's types too.
    assert type(error) is kind or (index is None and isinstance(error, kind))
    assert row.error is actions.Mute or row.words in str(error)
    for name, value in row.fields.items():
        assert getattr(error, name) == value, name
    if "index" in row.fields:
        return  # the item's own
    if kind in {WorkerDiedError, SerializationError}:
        assert error.index == index
    if kind is WorkerDiedError:
        assert isinstance(error.pid, int)
        assert not alive(error.pid)


def check_value(row, value):
    assert type(value) is row.value if isinstance(row.value, type) else value == row.value


def call(row, backend, *, inside=False):
    """One call for each ``on_error``, and another call after them."""
    kind = kind_of(row, inside=inside)
    ends = kind is not None and not issubclass(kind, Exception)
    work = functools.partial(actions.run, row.action)
    kwargs = {"backend": backend, **row.kwargs}
    if kind is not None:
        for on_error in ("raise", "return") if ends else ("raise",):
            with pytest.raises(kind) as info:
                parallel_map(work, items_of(row), on_error=on_error, **kwargs)
            check(row, info.value, kind, BAD)
            del info
    if not ends:
        # It has neighbours in its chunk.
        results = parallel_map(work, items_of(row), on_error="return", **{"chunksize": 4, **kwargs})
        if kind is None:
            check_value(row, results[BAD])
        else:
            check(row, results[BAD], kind, BAD)
        assert len(results) == COUNT
        assert [results[x] for x in NUMBERS] == SQUARES
    assert parallel_map(jobs.square, NUMBERS, backend=backend) == SQUARES
    if not inside and row.action is actions.moves:
        got = parallel_map(actions.where, NUMBERS, backend=backend, chunksize=1)
        expected = actions.where(None)
        assert [(cwd, path, argv) for cwd, _, path, argv in got] == [
            (expected[0], *expected[2:])
        ] * len(NUMBERS)
        assert all(env.items() >= expected[1].items() for _, env, _, _ in got)
        assert not any("TABLE_ROW" in env for _, env, _, _ in got)
    if row.cold:
        shutdown_warm_pool()


def submit(row, executor, *, inside=False):
    """The call with the fault among others, and another call after them."""
    kind = kind_of(row, inside=inside)
    work = functools.partial(actions.run, row.action)
    futures = [executor.submit(work, item) for item in items_of(row)]
    error = futures[BAD].exception(SOON)
    if kind is None:
        assert error is None
        check_value(row, futures[BAD].result())
    else:
        check(row, error, kind, None)
    assert [futures[x].result(SOON) for x in NUMBERS] == SQUARES
    assert executor.submit(jobs.square, 3).result(SOON) == 9


@pytest.mark.parametrize("row", cases())
def test_calls(row):
    """``parallel_map`` in workers of the zygote."""
    call(row, "processes")


@pytest.mark.parametrize("row", cases(full=lambda row: not row.spawn))
def test_calls_of_spawned_workers(row):
    """The same in workers that are executed."""
    with options(start_method="spawn"):
        call(row, "processes")


@pytest.mark.parametrize("row", cases(lambda row: row.inside))
def test_calls_in_this_process(row):
    """The same in the caller's own process, where nothing has to travel."""
    for backend in ("serial", "threads", "auto"):
        call(row, backend, inside=True)


@pytest.mark.skipif(not INTERPRETERS, reason="from Python 3.14 on")
@pytest.mark.parametrize(
    "row", cases(lambda row: row.inside or (row.error == "SerializationError" and not row.cold))
)
def test_calls_in_interpreters(row):
    """The same in interpreters, but for what ends a process."""
    call(row, "interpreters")


@pytest.mark.full
@pytest.mark.parametrize("row", cases(submits))
def test_executors(row):
    """A lost call of an executor costs no other one."""
    with ProcessPoolExecutor(2) as executor:
        submit(row, executor)


@pytest.mark.parametrize("row", cases(submits, full=lambda row: not row.spawn))
def test_executors_of_spawned_workers(row):
    """The same in workers that are executed."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        submit(row, executor)


@pytest.mark.parametrize("row", cases(lambda row: row.inside))
def test_executors_in_this_process(row):
    """``Executor`` runs short calls in threads, ``backend="processes"`` does not."""
    with Executor(2) as executor:
        submit(row, executor, inside=True)


def test_one_executor_for_the_whole_table():
    """Whatever its calls do, an executor goes on."""
    wrong = {}
    with ProcessPoolExecutor(2) as executor:
        for row in filter(submits, ROWS):
            if row.cold or row.full:
                continue
            try:
                submit(row, executor)
            except BaseException as error:
                wrong[row.name] = error
    assert not wrong


def test_the_table_is_large():
    """Each row is told apart by its name."""
    assert len({row.name for row in ROWS}) == len(ROWS) >= 40
