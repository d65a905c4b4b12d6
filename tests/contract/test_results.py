"""The answer is the loop's: values, order, number, on every backend."""

from __future__ import annotations

import functools
import itertools
import math
import operator
import sys
import threading

import jobs
import pytest

from parallax import Results, parallel_imap, parallel_map


def test_order_and_values(backend):
    """Results come in the order of the input whatever order the items finish in."""
    delays = [0.02, 0.0, 0.01, 0.0, 0.005] * 4

    def wait(pair):
        index, delay = pair
        threading.Event().wait(delay)
        return index

    assert parallel_map(wait, list(enumerate(delays)), backend=backend) == list(range(20))


def test_result_is_a_list_with_a_report(backend):
    """``Results`` is a list of a class of its own, and carries the run's report."""
    results = parallel_map(jobs.square, [1, 2, 3], backend=backend)
    assert type(results) is Results
    assert isinstance(results, list)
    assert results == [1, 4, 9]
    assert results.report.items == 3
    assert "3 items" in str(results.report)


@pytest.mark.parametrize(
    "make",
    [
        lambda: [3, 1, 2],
        lambda: (3, 1, 2),
        lambda: range(5, 90, 7),
        lambda: {5, 3, 9},
        lambda: frozenset({"b", "a"}),
        lambda: {"x": 1, "y": 2},
        lambda: {"x": 1, "y": 2}.items(),
        lambda: {"x": 1, "y": 2}.values(),
        lambda: "text",
        lambda: b"bytes",
        lambda: bytearray(b"mutable"),
        lambda: (x * 2 for x in range(40)),
        lambda: iter([1, 2]),
        lambda: map(str, range(9)),
        lambda: itertools.islice(itertools.count(3), 11),
        lambda: zip("ab", "cd", strict=True),
        lambda: reversed([1, 2, 3]),
        lambda: memoryview(b"view"),
    ],
)
def test_kinds_of_iterables(backend, make):
    """Any iterable gives what the loop over it gives."""
    assert parallel_map(jobs.described, make(), backend=backend) == [
        jobs.described(x) for x in make()
    ]


def test_old_style_sequence(backend):
    """A sequence with only ``__getitem__`` is iterable, as in a for loop."""

    class Old:
        def __getitem__(self, index):
            if index >= 7:
                raise IndexError(index)
            return index

    assert parallel_map(jobs.square, Old(), backend=backend) == [x * x for x in range(7)]


def test_several_iterables(backend):
    """Several iterables give several arguments, and the shortest ends the call."""
    assert parallel_map(jobs.add, [1, 2, 3], (10, 20, 30, 40), backend=backend) == [11, 22, 33]
    got = parallel_map(max, [1, 9, 3], iter([4, 5, 6]), range(7, 100), backend=backend)
    assert got == [7, 9, 9]
    assert parallel_map(jobs.add, [], [1, 2], backend=backend) == []


def test_items_that_are_tuples_stay_one_argument(backend):
    """One iterable of tuples gives one argument each, as in ``map``."""
    assert parallel_map(sum, [(1, 2), (3, 4)], backend=backend) == [3, 7]


def test_strict(backend):
    """``strict=True`` refuses iterables of different lengths, as ``zip`` does."""
    assert parallel_map(jobs.add, [1, 2], [3, 4], strict=True, backend=backend) == [4, 6]
    with pytest.raises(ValueError, match=r"shorter|longer"):
        parallel_map(jobs.add, [1, 2, 3], [3, 4], strict=True, backend=backend)


def test_no_items(backend):
    """Nothing in, nothing out, from a list and from a generator."""
    assert parallel_map(jobs.square, [], backend=backend) == []
    assert parallel_map(jobs.square, (x for x in ()), backend=backend) == []
    assert list(parallel_imap(jobs.square, [], backend=backend)) == []
    assert list(parallel_imap(jobs.square, iter(()), backend=backend, ordered=False)) == []


def test_one_item(backend):
    """One item is no special case."""
    assert parallel_map(jobs.square, [7], backend=backend) == [49]
    assert parallel_map(jobs.square, iter([7]), backend=backend) == [49]
    assert list(parallel_imap(jobs.square, [7], backend=backend)) == [49]


@pytest.mark.parametrize("make", [list, iter])
def test_many_tiny_items(backend, variant, make):
    """A huge number of tiny items comes back whole and in order."""
    count = 20_000 if variant == "executor" else 100_000
    got = parallel_map(operator.neg, make(range(count)), backend=backend)
    assert got == [-x for x in range(count)]


@pytest.mark.parametrize("chunksize", [1, 2, 3, 7, 100])
def test_any_chunksize(backend, chunksize):
    """The chunk size never shows in the answer."""
    got = parallel_map(jobs.square, range(23), chunksize=chunksize, backend=backend)
    assert got == [x * x for x in range(23)]


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_any_number_of_workers(backend, workers):
    """Nor does the number of workers."""
    got = parallel_map(jobs.square, range(23), max_workers=workers, backend=backend)
    assert got == [x * x for x in range(23)]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("work", [jobs.spin_square, jobs.nap_square])
def test_work_worth_a_worker(backend, work):
    """Items of 5 or 10 ms, which bring real workers in: values and order are the loop's."""
    assert parallel_map(work, range(24), backend=backend) == [x * x for x in range(24)]
    assert parallel_map(work, iter(range(24)), backend=backend) == [x * x for x in range(24)]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("work", [jobs.spin, jobs.nap_square])
def test_each_item_runs_once(backend, tmp_path, work):
    """No item is run twice, not even to measure it."""

    def run(x):
        jobs.note_call(tmp_path, x)
        work(0.01)
        return x

    assert parallel_map(run, range(24), backend=backend) == list(range(24))
    assert jobs.calls(tmp_path) == dict.fromkeys(range(24), 1)


def _by(n):
    def inner(x):
        return x * n

    return inner


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda x: x + 1, [1, 2, 3]),
        (_by(5), [0, 5, 10]),
        (functools.partial(jobs.add, 7), [7, 8, 9]),
        (functools.partial(pow, 2), [1, 2, 4]),
        (functools.partial(functools.partial(jobs.add, b=3)), [3, 4, 5]),
        (jobs.Adder(4), [4, 5, 6]),
        (jobs.Adder(4).method, [4, 5, 6]),
        (jobs.Adder.static, [1, 2, 3]),
        (jobs.Adder.of_class, ["", "Adder", "AdderAdder"]),
        (str, ["0", "1", "2"]),
        (math.factorial, [1, 1, 2]),
        ("abc".__getitem__, ["a", "b", "c"]),
        (operator.attrgetter("real"), [0, 1, 2]),
        (operator.methodcaller("bit_length"), [0, 1, 2]),
        (jobs.cached_square, [0, 1, 4]),
        (complex, [0j, 1 + 0j, 2 + 0j]),
    ],
    ids=lambda v: None if isinstance(v, list) else type(v).__name__,
)
def test_kinds_of_callables(backend, fn, expected):
    """Whatever can be called can be mapped."""
    assert parallel_map(fn, [0, 1, 2], backend=backend) == expected


def test_recursive_local_function(backend):
    """A closure that refers to itself travels."""

    def fact(n):
        return 1 if n < 2 else n * fact(n - 1)

    assert parallel_map(fact, range(6), backend=backend) == [1, 1, 2, 6, 24, 120]


def test_identity_of_results_in_this_process(backend, variant):
    """In the caller's process results are the very objects; items are too."""
    if variant not in {"serial", "threads", "executor"}:
        pytest.skip("copies are made between processes")
    items = [object() for _ in range(5)]
    got = parallel_map(lambda x: x, items, backend=backend)
    assert all(a is b for a, b in zip(got, items, strict=True))


def test_results_may_be_exceptions_and_none(backend):
    """Returning an exception or None is not failing."""
    got = parallel_map(lambda x: ValueError(x) if x else None, [0, 1], backend=backend)
    assert got[0] is None
    assert type(got[1]) is ValueError


def test_deep_results(backend):
    """Nested containers of many small objects come back equal."""

    def build(n):
        return {"k": [(i, {str(i): float(i)}) for i in range(n)]}

    assert parallel_map(build, [0, 1, 500], backend=backend) == [build(n) for n in (0, 1, 500)]


def test_the_loop_leaves_items_alone(backend):
    """The list that was passed is not changed, and the result is another list."""
    items = [[1], [2]]
    got = parallel_map(len, items, backend=backend)
    assert items == [[1], [2]]
    assert got == [1, 1]


def test_recursion_limit_is_the_callers(backend):
    """A callable that recurses deeply works as in the loop."""

    def deep(n):
        return 0 if n == 0 else 1 + deep(n - 1)

    depth = sys.getrecursionlimit() // 2
    assert parallel_map(deep, [depth, depth], backend=backend) == [depth, depth]
