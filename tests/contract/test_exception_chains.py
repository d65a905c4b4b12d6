"""What an exception is made of and chained to is there for the caller, from every backend."""

from __future__ import annotations

import asyncio
import functools
import sys
import traceback

import jobs
import pytest
from helpers.backends import OUTSIDE, notes_of
from helpers.executor_kinds import KINDS, SOON
from helpers.executor_kinds import OUTSIDE as OUTSIDE_KINDS
from jobs import chains
from jobs import pool as pool_jobs

from parallax import SerializationError, amap, options, parallel_imap, parallel_map
from tests.helpers.leaks import close_default_executors

pytestmark = pytest.mark.sampled(3)

groups = pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups")


@pytest.fixture(params=["map", *KINDS])
def error_of(request):
    """Calls a function that raises; its exception."""
    if request.param == "map":
        yield lambda fn: parallel_map(fn, [0, 0], backend="processes", on_error="return")[1]
    else:
        with KINDS[request.param](1) as executor:
            yield lambda fn: executor.submit(fn, 0).exception(SOON)


def printed(error):
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def own_notes(error):
    return [note for note in notes_of(error) if not note.startswith("parallax: raised by item")]


def is_text(error):
    return error is None or type(error).__name__ in {"RemoteTraceback", "_RemoteTraceback"}


def test_causes(error_of):
    """With arguments, notes and causes of their own; the lines of all of them are printed."""
    error = error_of(chains.by_cause)
    assert (type(error), error.args, own_notes(error)) == (
        ValueError,
        ("outer",),
        ["first", "second"],
    )
    middle = error.__cause__
    assert (type(middle), middle.number, notes_of(middle)) == (jobs.Oops, 2, ["of the middle"])
    inner = middle.__cause__
    assert (type(inner), inner.args) == (KeyError, ("inner", 1))
    assert middle.__context__ is inner
    assert error.__context__ is middle
    assert error.__suppress_context__
    assert is_text(inner.__cause__)
    text = printed(error)
    for line in ('raise KeyError("inner", 1)', "raise noted(jobs.Oops(2)", 'ValueError("outer")'):
        assert line in text


def test_contexts(error_of):
    """What was being handled; it is shown, or hidden as ``from None`` wants it."""
    error = error_of(chains.by_context)
    assert (type(error.__context__), error.__suppress_context__) == (jobs.Oops, False)
    assert is_text(error.__cause__)
    assert "raise jobs.Oops(2)" in printed(error)
    error = error_of(chains.hidden)
    assert (type(error.__context__), error.__suppress_context__) == (jobs.Oops, True)
    assert "raise jobs.Oops(2)" not in printed(error)
    assert 'raise ValueError("outer") from None' in printed(error)


def test_circles_and_long_chains(error_of):
    """A circle stays one; of very many exceptions the first ones travel."""
    error = error_of(chains.circle)
    assert (error.number, error.__cause__.number) == (1, 2)
    assert error.__cause__.__cause__ is error
    assert "in circle" in printed(error) or sys.version_info < (3, 11)
    error = error_of(chains.shared)
    assert error.__cause__ is error.__context__
    error = error_of(chains.long)
    assert [error.args, error.__context__.args] == [(4999,), (4998,)]


@pytest.mark.parametrize("how", ["strict", "lock"])
def test_a_cause_that_does_not_travel(how):
    """An error stands in its place that names it, and its own cause behind that."""
    call = functools.partial(chains.stuck_cause, how)
    for backend in ("processes", "auto"):
        results = parallel_map(lambda _: call(), [1, 2], backend=backend, on_error="return")
        error = results[0]
        assert (type(error), own_notes(error)) == (jobs.Oops, ["kept"])
        assert type(error.__cause__.__cause__) is KeyError
    with KINDS["ProcessPoolExecutor"](1) as executor:
        error = executor.submit(call).exception(SOON)
    assert (type(error), notes_of(error)) == (jobs.Oops, ["kept"])
    assert isinstance(error.__cause__, SerializationError)
    assert "Strict" in error.__cause__.path or how == "lock"
    assert type(error.__cause__.__cause__) is KeyError
    assert "in stuck_cause" in printed(error)


def test_an_exception_that_does_not_travel():
    """Its causes and notes do."""
    with KINDS["ProcessPoolExecutor"](1) as executor:
        error = executor.submit(chains.stuck_itself, 0).exception(SOON)
    assert isinstance(error, SerializationError)
    assert type(error.__cause__) is KeyError
    assert notes_of(error) == ["kept"]
    assert "in stuck_itself" in printed(error)


def test_notes_that_pickle_drops(error_of):
    """Notes of a class with a ``__reduce__`` of its own."""
    error = error_of(chains.forgetful)
    assert (error.args, own_notes(error)) == ((1,), ["kept"])
    assert (error.__cause__.args, notes_of(error.__cause__)) == ((2,), ["kept, too"])


def _shown(error):
    code = getattr(error, "code", None)
    return type(error), str(error), error.args, code, getattr(error, "filename", None)


def test_classes_whose_init_takes_other_arguments(error_of):
    """They keep their type, text and fields, though pickle calls a class with its ``args``."""
    for how, make in chains.OTHER_ARGUMENTS.items():
        error = error_of(functools.partial(chains.raises_other_arguments, how))
        assert _shown(error) == _shown(make())
        assert type(error.__cause__) is KeyError


@groups
def test_members_whose_init_takes_other_arguments(error_of):
    """So do members of groups."""
    error = error_of(chains.group_of_other_arguments)
    made = [_shown(make()) for make in chains.OTHER_ARGUMENTS.values()]
    assert [_shown(each) for each in error.exceptions] == made


@groups
def test_groups(error_of):
    """Members keep their notes, causes and lines."""
    error = error_of(chains.group)
    first, inner = error.exceptions
    (second,) = inner.exceptions
    assert (type(first), first.args, notes_of(first)) == (ValueError, (1,), ["of a member"])
    assert (type(second), type(second.__cause__)) == (KeyError, jobs.Oops)
    assert (type(error.__cause__), error.__cause__.args) == (KeyError, ("why",))
    assert "in raised" in printed(first)
    assert "in raised" in printed(error)
    assert "in group" in printed(error)


@groups
def test_a_group_with_a_member_that_does_not_travel():
    """The others do."""
    with KINDS["ProcessPoolExecutor"](1) as executor:
        error = executor.submit(chains.group_with_a_stuck_member, 0).exception(SOON)
    first, second = error.exceptions
    assert (type(error).__name__, type(second)) == ("ExceptionGroup", ValueError)
    assert isinstance(first, SerializationError)
    assert "in raised" in printed(first)


PLAIN = [
    StopIteration(5),
    StopIteration(),
    StopIteration(1, 2),
    StopAsyncIteration(5),
    GeneratorExit(5),
    KeyError("a", 1),
    OSError(2, "no such file", "name"),
    FileNotFoundError(2, "no such file", "a", None, "b"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad byte"),
    UnicodeEncodeError("ascii", "\xff", 0, 1, "bad character"),
    SyntaxError("bad", ("name", 1, 2, "text")),
    ImportError("no", name="module", path="path"),
    chains.Slotted(5),
    SystemExit(5),
    SystemExit("words"),
]


def fields(error):
    names = "value", "code", "errno", "filename", "filename2", "reason", "msg", "path", "extra"
    found = {name: getattr(error, name, None) for name in names}
    return type(error), error.args, found


@pytest.mark.parametrize("plain", PLAIN, ids=lambda error: f"{error!r}")
def test_plain_exceptions_keep_all_they_have(backend, plain):
    """Their arguments, and what their types make of them."""
    fn = functools.partial(chains.raises, plain)
    if isinstance(plain, Exception):
        for error in parallel_map(fn, [1, 2], backend=backend, on_error="return"):
            assert fields(error) == fields(plain)
    with pytest.raises(type(plain)) as info:
        parallel_map(fn, [1, 2], backend=backend)
    assert fields(info.value) == fields(plain)


@pytest.mark.parametrize("plain", PLAIN, ids=lambda error: f"{error!r}")
def test_plain_exceptions_of_calls(error_of, plain):
    """As of maps."""
    if isinstance(plain, Exception):
        error = error_of(functools.partial(chains.raises, plain))
        assert fields(error) == fields(plain)


def stops(item):
    if item == 2:
        raise StopIteration(5)
    return item


def test_a_stop_iteration_never_ends_a_stream(backend):
    """It is the cause of a RuntimeError there, as in a generator (PEP 479)."""
    got = []
    with pytest.raises(RuntimeError) as info:
        got.extend(parallel_imap(stops, range(5), backend=backend))
    assert got == [0, 1]
    assert (type(info.value.__cause__), info.value.__cause__.value) == (StopIteration, 5)
    with pytest.raises(StopIteration) as info:
        parallel_map(stops, range(5), backend=backend)
    assert (info.value.value, info.value.__suppress_context__) == (5, False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_iteration_never_ends_a_map(kind):
    """Nor the iterator of an executor."""
    got = []
    with KINDS[kind](1) as executor, pytest.raises(RuntimeError) as info:
        got.extend(executor.map(stops, range(5)))
    assert got == [0, 1]
    assert info.value.__cause__.value == 5


@pytest.mark.parametrize("kind", ["auto", "threads", "processes"])
@pytest.mark.parametrize("error", [StopIteration(5), StopAsyncIteration(5)])
def test_neither_ends_an_asynchronous_stream(kind, error):
    """The same there."""
    got = []

    async def read():
        fn = functools.partial(chains.raises, error)
        async for each in amap(fn, range(5)):
            got.append(each)  # noqa: PERF401

    try:
        with options(backend=kind), pytest.raises(RuntimeError) as info:
            asyncio.run(read())
    finally:
        close_default_executors()
    assert got == []
    causes = [info.value, info.value.__cause__]
    assert fields(error)[:2] in [fields(each)[:2] for each in causes]


# -- errors of the way there and back --------------------------------------------------------------


@pytest.mark.parametrize("kind", OUTSIDE_KINDS)
def test_what_a_worker_cannot_unpickle_shows_why(kind):
    """The error of the unpickling is the cause, with the lines of the worker."""
    with KINDS[kind](1) as executor:
        for future, why, line in [
            (executor.submit(jobs.square, pool_jobs.Here()), "wrong place", "in _arrive"),
            (executor.submit(pool_jobs.stays), "wrong place", "in _arrive"),
            (executor.submit(jobs.square, jobs.Trap()), "the trap sprang", "in "),
        ]:
            error = future.exception(SOON)
            assert isinstance(error, SerializationError)
            assert why in str(error.__cause__)
            assert line in printed(error)
            assert type(error.__cause__) is not SerializationError


@pytest.mark.parametrize("kind", OUTSIDE_KINDS)
def test_what_does_not_pickle_shows_why(kind):
    """The error of the pickling is the cause, with the line of a ``__reduce__``."""

    class Bad:
        def __reduce__(self):
            raise LookupError("why")

    with KINDS[kind](1) as executor:
        for future in [
            executor.submit(jobs.square, Bad()),
            executor.submit(functools.partial(jobs.add, Bad()), 1),
        ]:
            error = future.exception(SOON)
            assert isinstance(error, SerializationError)
            assert type(error.__cause__) is LookupError
            assert "in __reduce__" in printed(error)
        error = executor.submit(chains.makes_lock, 0).exception(SOON)
        assert type(error.__cause__) is TypeError


@pytest.mark.variants(*OUTSIDE)
def test_what_maps_cannot_send_shows_why(backend):
    """As for calls."""

    class Bad:
        def __reduce__(self):
            raise LookupError("why")

    def cause(fn, item):
        (error,) = parallel_map(fn, [item], backend=backend, on_error="return")
        assert isinstance(error, SerializationError)
        assert error.index == 0
        return error.__cause__

    assert type(cause(jobs.described, Bad())) is LookupError
    assert "the trap sprang" in str(cause(jobs.described, jobs.Trap()))
    assert "in _arrive" in printed(cause(jobs.described, pool_jobs.Here()))
    assert "in _arrive" in printed(cause(lambda _: pool_jobs.stays(), 1))
    assert type(cause(chains.makes_lock, 1)) is TypeError
