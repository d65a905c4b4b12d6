"""What goes wrong in the callable or the input: the loop's exception, at the loop's item."""

from __future__ import annotations

import functools
import sys
import threading

import jobs
import pytest
from helpers.backends import INTERPRETERS, OUTSIDE, notes_of

from parallax import RemoteTraceback, parallel_imap, parallel_map


@pytest.mark.parametrize("bad", [0, 1, 17, 39])
def test_exception_keeps_type_fields_and_item(backend, variant, bad):
    """The callable's exception is raised with its type and fields, and a note names the item."""
    with pytest.raises(jobs.Oops) as info:
        parallel_map(functools.partial(jobs.oops_at, {bad}), range(40), backend=backend)
    error = info.value
    assert error.number == bad
    assert error.text == "oops"
    assert any(f"item {bad}" in note for note in notes_of(error))
    if variant in (*OUTSIDE, *INTERPRETERS):
        assert isinstance(error.__cause__, RemoteTraceback)
        assert "oops_at" in str(error.__cause__)
        assert "run_chunk" not in str(error.__cause__)


def test_traceback_leads_to_the_users_line_in_this_process(backend, variant):
    """Where nothing is copied the real traceback is kept."""
    if variant not in {"serial", "threads", "executor"}:
        pytest.skip("the traceback of another process is text")
    with pytest.raises(jobs.Oops) as info:
        parallel_map(functools.partial(jobs.oops_at, {2}), range(4), backend=backend)
    assert info.traceback[-1].name == "oops_at"
    assert info.value.__cause__ is None


def test_code_that_travels_by_value_keeps_its_file(backend, variant):
    """Tracebacks, and all else that reads a code object's file, name it as in a loop."""

    def place(x):
        def inner():
            return x and 1 / 0

        inner()
        return sys._getframe().f_code.co_filename, inner

    file, inner = parallel_map(place, [0], backend=backend)[0]
    assert file == inner.__code__.co_filename == __file__
    with pytest.raises(ZeroDivisionError) as info:
        parallel_map(place, [0, 1], backend=backend)
    if variant in (*OUTSIDE, *INTERPRETERS):
        text = str(info.value.__cause__)
        assert text.count(__file__) == 2
        assert "return x and 1 / 0" in text


def test_the_users_own_cause_is_kept(backend):
    """``raise ... from ...`` in the callable can still be seen by the caller."""

    def chained(x):
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise jobs.Oops(x) from error

    with pytest.raises(jobs.Oops) as info:
        parallel_map(chained, [1], backend=backend)
    assert "inner" in str(info.value.__cause__)


def test_lowest_failing_item_is_reported(backend):
    """Of two failing items the first one's error is raised, though it fails later."""
    with pytest.raises(jobs.Oops) as info:
        parallel_map(functools.partial(jobs.late_oops_at, 0, 1), range(40), backend=backend)
    assert info.value.number == 0


def test_on_error_return(backend):
    """``on_error="return"`` puts exceptions in their places and runs all the rest."""
    bad = {0, 3, 4, 5, 21, 39}
    got = parallel_map(
        functools.partial(jobs.oops_at, bad), range(40), on_error="return", backend=backend
    )
    for index, value in enumerate(got):
        if index in bad:
            assert type(value) is jobs.Oops
            assert value.number == index
            assert any(f"item {index}" in note for note in notes_of(value))
        else:
            assert value == index * index


def test_on_error_return_when_everything_fails(backend):
    """No result at all is a list of errors, not an error."""
    got = parallel_map(
        functools.partial(jobs.oops_at, set(range(30))),
        range(30),
        on_error="return",
        backend=backend,
    )
    assert [e.number for e in got] == list(range(30))


def test_raise_stops_the_rest(backend, tmp_path):
    """After the first error items that were not begun are not run."""

    def run(x):
        jobs.note_call(tmp_path, x)
        jobs.spin(0.002)
        if x == 0:
            raise jobs.Oops(x)
        return x

    with pytest.raises(jobs.Oops):
        parallel_map(run, range(2000), backend=backend)
    assert len(jobs.calls(tmp_path)) < 1000


def test_retries(backend, tmp_path):
    """A failed item is run again as often as asked, alone, and its success counts."""
    run = functools.partial(jobs.fails_first, tmp_path, 2)
    got = parallel_map(run, range(20), retries=2, backend=backend)
    assert got == list(range(20))
    assert jobs.calls(tmp_path) == {x: 3 if x % 2 else 1 for x in range(20)}
    assert (got.report.retried, got.report.raised) == (20, 20)


def test_retries_used_up(backend, tmp_path):
    """When all retries failed the last error is the result."""
    run = functools.partial(jobs.fails_first, tmp_path, 99)
    got = parallel_map(run, range(10), retries=1, on_error="return", backend=backend)
    assert [type(v) is jobs.Oops for v in got] == [bool(x % 2) for x in range(10)]
    assert jobs.calls(tmp_path) == {x: 2 if x % 2 else 1 for x in range(10)}


def test_retries_then_raise(backend, tmp_path):
    """With ``on_error="raise"`` the error comes after the retries."""
    run = functools.partial(jobs.fails_first, tmp_path, 99)
    with pytest.raises(jobs.Oops):
        parallel_map(run, range(10), retries=2, backend=backend)
    assert jobs.calls(tmp_path)[1] == 3


def test_stop_iteration_in_the_callable(backend):
    """``StopIteration`` out of the callable is an error of that item, not the end of the input."""
    fail = functools.partial(jobs.raise_at, 5, StopIteration)
    with pytest.raises(StopIteration):
        parallel_map(fail, range(12), backend=backend)
    got = parallel_map(fail, range(12), on_error="return", backend=backend)
    assert len(got) == 12
    assert type(got[5]) is StopIteration
    assert got[:5] + got[6:] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("on_error", ["raise", "return"])
def test_interrupts_in_the_callable(backend, kind, on_error):
    """``KeyboardInterrupt`` and ``SystemExit`` always reach the caller."""
    with pytest.raises(kind) as info:
        parallel_map(
            functools.partial(jobs.raise_at, 7, kind),
            range(12),
            on_error=on_error,
            backend=backend,
        )
    assert info.value.args == (3,)
    # And the machinery is whole afterwards.
    assert parallel_map(jobs.square, range(12), backend=backend) == [x * x for x in range(12)]


class HalfError(Exception):
    pass


def _half(good, error):
    yield from range(good)
    raise error


@pytest.mark.parametrize("good", [0, 1, 13])
def test_input_that_raises(backend, good):
    """The input's own error reaches the caller as it is."""
    with pytest.raises(HalfError, match="input"):
        parallel_map(jobs.square, _half(good, HalfError("input")), backend=backend)


@pytest.mark.parametrize("good", [0, 1, 13])
def test_input_that_raises_keeps_results(backend, good):
    """With ``on_error="return"`` the results so far are kept and the error ends them."""
    got = parallel_map(
        jobs.square, _half(good, HalfError("input")), on_error="return", backend=backend
    )
    assert got[:-1] == [x * x for x in range(good)]
    assert type(got[-1]) is HalfError


def test_input_that_raises_in_a_stream(backend):
    """A stream gives what came before the input's error, then raises it."""
    stream = parallel_imap(jobs.square, _half(6, HalfError("input")), backend=backend)
    got = []
    with pytest.raises(HalfError):
        got.extend(stream)
    assert got == [x * x for x in range(6)]


def test_input_that_is_interrupted(backend):
    """A ``KeyboardInterrupt`` inside the input reaches the caller under both modes."""
    for on_error in ("raise", "return"):
        with pytest.raises(KeyboardInterrupt):
            parallel_map(
                jobs.square, _half(5, KeyboardInterrupt()), on_error=on_error, backend=backend
            )


@pytest.mark.sampled(3)
def test_input_runs_in_the_callers_thread(backend):
    """A generator is advanced in the caller's thread only: it may use thread-bound things."""
    seen = set()

    def source():
        for x in range(50):
            seen.add(threading.get_ident())
            yield x

    assert parallel_map(jobs.nap_square, source(), backend=backend) == [x * x for x in range(50)]
    assert list(parallel_imap(jobs.square, source(), backend=backend))[-1] == 49 * 49
    assert seen == {threading.get_ident()}


def test_error_in_a_stream_comes_at_its_place(backend):
    """A stream yields all results before the failing item, in order, then raises."""
    stream = parallel_imap(functools.partial(jobs.oops_at, {9}), range(40), backend=backend)
    got = []
    with pytest.raises(jobs.Oops) as info:
        got.extend(stream)
    assert info.value.number == 9
    assert got == [x * x for x in range(9)]
    with pytest.raises(StopIteration):
        next(stream)


def test_after_an_error_the_next_call_works(backend):
    """An error leaves nothing that the next call would meet."""
    for _ in range(5):
        with pytest.raises(jobs.Oops):
            parallel_map(functools.partial(jobs.oops_at, {3}), range(9), backend=backend)
        assert parallel_map(jobs.square, range(9), backend=backend) == [x * x for x in range(9)]


def test_an_error_without_a_dict(backend):
    """An exception that refuses attributes keeps its type all the same."""

    def fail(x):
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad byte")

    with pytest.raises(UnicodeDecodeError, match="bad byte"):
        parallel_map(fail, [1, 2], backend=backend)


def test_exception_groups_of_the_same_object(backend):
    """One exception object raised by two items is one error per item."""
    error = jobs.Oops(1)

    def fail(x):
        raise error

    got = parallel_map(fail, [1, 2, 3], on_error="return", backend=backend)
    assert [type(e) for e in got] == [jobs.Oops] * 3
