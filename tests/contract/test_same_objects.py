"""Who is who in workers that are no forks of the program: what was one object is one object."""

from __future__ import annotations

import functools
import sys

import pytest
from jobs import same

from parallax import options, parallel_map

METHODS = ["zygote", "spawn"] if sys.platform == "linux" else ["spawn"]
COUNT = 12


@pytest.fixture(params=METHODS)
def workers(request):
    with options(backend="processes", start_method=request.param, max_workers=2):
        yield


@pytest.mark.sampled(2)
@pytest.mark.usefixtures("workers")
def test_items_are_the_objects_of_the_callable():
    """Globals of a module, captured variables, defaults, arguments; also deep inside of items."""
    assert all(parallel_map(same.is_unset, [same.UNSET] * COUNT))
    assert parallel_map(same.is_unset, [same.UNSET, object(), None]) == [True, False, False]
    assert all(parallel_map(same.default, [same.UNSET, same.MISSING] * COUNT))
    key, shared = object(), {"a": [1]}
    assert all(parallel_map(lambda x: x is key, [key] * COUNT))
    assert all(parallel_map(lambda x, d=shared: x[1]["d"] is d, [(0, {"d": shared})] * COUNT))
    assert all(parallel_map(functools.partial(lambda a, b: a is b, key), [key] * COUNT))
    found = parallel_map(same.reads, [{"config": same.CONFIG}] * COUNT)
    assert all(one and other and config is same.CONFIG for one, other, config in found)


@pytest.mark.sampled(2)
@pytest.mark.usefixtures("workers")
def test_results_are_the_objects_of_the_program():
    """What a callable captured, reads or was given comes back as the very object, if unchanged."""
    assert all(x is same.MISSING for x in parallel_map(same.missing, range(COUNT)))
    captured = {"a": 1}
    assert all(x is captured for x in parallel_map(lambda _: captured, range(COUNT)))
    rows = [same.Row(n) for n in range(COUNT)]
    assert all(map(lambda a, b: a is b, parallel_map(same.itself, rows), rows))
    for row, held in zip(rows, parallel_map(same.held, rows), strict=True):
        assert held == (row, same.MISSING)
    for row, other in zip(rows, parallel_map(same.changed, rows), strict=True):
        assert (row.number + 1, row is other) == (other.number, False)


@pytest.mark.sampled(2)
@pytest.mark.usefixtures("workers")
def test_large_items_and_many_short_ones_are_copies():
    """To compare them would take longer than to send them."""
    large = [b"x" * 100_000, list(range(20_000))]
    got = parallel_map(same.itself, large)
    assert got == large
    assert got[1] is not large[1]
    many = [[n] for n in range(20_000)]
    assert parallel_map(same.itself, many) == many
