"""Inputs for which an item is good until the next one is taken, as in a loop."""

from __future__ import annotations

import itertools
import random
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from parallax import parallel_map


def one_list(n):
    items = [0]
    for i in range(n):
        items[0] = i
        yield items


def one_array(n):
    array = np.zeros(3)
    for i in range(n):
        array += i
        yield array


def one_view(n):
    array = bytearray(8)
    for i in range(n):
        array[i % 8] += 1
        yield memoryview(array)


def cleared_elements(n):
    for i in range(n):
        element = ElementTree.Element("a", n=str(i))
        yield element
        element.clear()


def seeded(n):
    for i in range(n):
        random.seed(i)
        yield i


def groups(n):
    return itertools.groupby(range(2 * n), lambda k: k // 2)


consumed = iter(())


def also_read(n):
    global consumed
    consumed = iter(range(2 * n))
    return consumed


INPUTS = {
    one_list: lambda item: item[0],
    one_array: lambda item: float(item.sum()),
    one_view: bytes,
    cleared_elements: lambda item: item.get("n"),
    seeded: lambda item: random.random(),
    groups: lambda item: list(item[1]),
    also_read: lambda item: (item, next(consumed)),
}


@pytest.mark.slow
@pytest.mark.sampled(3)
@pytest.mark.parametrize("make", INPUTS, ids=lambda make: make.__name__)
@pytest.mark.parametrize(("n", "seconds"), [(1500, 1e-5), (80, 1e-3), (30, -0.003)])
@pytest.mark.filterwarnings("ignore::parallax.SharedStateWarning")
def test_items_are_not_taken_before_the_one_before_has_run(make, n, seconds):
    """Neither for workers nor for a block of short items; negative seconds are of waiting."""

    def work(item):
        end = time.perf_counter() + seconds
        time.sleep(max(0, -seconds))
        while time.perf_counter() < end:
            pass
        return INPUTS[make](item)

    expected = [work(item) for item in make(n)]
    assert [*parallel_map(work, make(n), max_workers=2)] == expected


def test_an_input_that_makes_new_items_is_read_ahead():
    """The twin: nothing that was taken changes."""

    def work(item):
        time.sleep(0.005)
        return item[0]

    results = parallel_map(work, ([i] for i in range(40)), max_workers=2)
    assert [*results] == [*range(40)]
    assert results.report.route == "threads"
