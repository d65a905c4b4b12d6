"""The input: taken once, in order, never ahead of need; its errors kept."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallax._scheduling.input import Input


def feed(*iterables, strict=False):
    return Input(iterables, strict=strict)


@given(st.integers(0, 50), st.lists(st.integers(1, 9), min_size=1), st.booleans())
def test_taken_once_in_order(count, sizes, as_iterator):
    """In whatever portions it is taken, nothing is lost or doubled."""
    source = iter(range(count)) if as_iterator else range(count)
    f = feed(source)
    got = []
    for size in itertools.cycle(sizes):
        items = f.take(size)
        got += items
        assert len(items) <= size
        assert f.taken == len(got)
        if not items:
            break
    assert got == list(range(count))
    assert f.ended
    assert f.left == 0
    assert f.take(3) == []


def test_length():
    """The length is the shortest's, if all have one."""
    assert feed([1, 2, 3]).left == 3
    assert feed([1, 2, 3], "ab").left == 2
    assert feed([1, 2, 3], iter("ab")).left is None
    assert feed({1: 2}.items()).left == 1
    assert feed(iter([])).left is None


def test_length_that_lies_or_fails():
    """A ``__len__`` that raises or is wrong does no harm."""

    class Odd(list):
        def __len__(self):
            raise ZeroDivisionError

    class Liar(list):
        def __len__(self):
            return 100

    assert feed(Odd([1])).left is None
    f = feed(Liar([1, 2]))
    assert f.take(10) == [1, 2]
    assert f.left == 0


def test_peek():
    """A look ahead takes nothing."""
    f = feed(iter("abc"))
    assert f.peek() == ["a"]
    assert f.taken == 0
    assert f.peek() == ["a"]
    assert f.take(5) == ["a", "b", "c"]
    assert f.peek() == []
    assert f.taken == 3


def test_error_of_the_input():
    """It ends the input and is kept, with the items before it."""

    def broken():
        yield 1
        yield 2
        raise KeyError("input")

    f = feed(broken())
    assert f.take(5) == [1, 2]
    assert isinstance(f.take_error(), KeyError)
    assert f.ended
    assert f.take(1) == []


def test_interrupt_in_the_input_is_not_kept():
    """``KeyboardInterrupt`` is for the caller, at once."""

    def interrupted():
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        feed(interrupted()).take(5)


def test_strict():
    """Different lengths are an error of the input where equal ones are asked for."""
    f = feed([1, 2], [3], strict=True)
    assert f.take(5) == [(1, 3)]
    assert isinstance(f.take_error(), ValueError)


def test_where_it_may_be_advanced():
    """Built-in containers anywhere; whatever runs the user's code in the caller's thread only."""

    class Mine(list):
        pass

    assert feed([1], (2,), range(3), "a", {1}, {1: 1}).anywhere
    for source in (iter([1]), (x for x in "a"), Mine([1]), {1: 1}.items(), map(abs, [1])):
        assert not feed(source).anywhere


def test_refused():
    """No input and no iterable are errors at once."""
    with pytest.raises(TypeError, match="no input"):
        feed()
    with pytest.raises(TypeError, match="int object is not iterable"):
        feed(5)
    with pytest.raises(TypeError, match="not iterable"):
        feed([1], 5)


def test_iterable_whose_iter_raises():
    """Its error is the caller's."""

    class Bad:
        def __iter__(self):
            raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        feed(Bad())


@given(st.integers(-5, 60), st.integers(-5, 60), st.integers(1, 4), st.data())
def test_a_range_is_taken_in_any_mixture_of_ways(start, stop, step, data):
    """As slices, as lists, straight from the iterator, with a look ahead in between."""
    source = feed(range(start, stop, step))
    seen = []
    while not source.ended:
        way = data.draw(st.sampled_from(["slice", "take", "iterator", "peek"]))
        if way == "peek":
            assert source.peek() == list(range(start, stop, step))[len(seen) : len(seen) + 1]
        elif way == "iterator":
            items = list(itertools.islice(source.iterator, 2))
            source.taken += len(items)
            seen += items
        else:
            seen += getattr(source, way)(data.draw(st.integers(1, 9)))
    assert seen == list(range(start, stop, step))
