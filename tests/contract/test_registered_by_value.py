"""``cloudpickle.register_pickle_by_value``: modules that no worker can import."""

from __future__ import annotations

import functools
import sys
import types

import cloudpickle
import pytest
from helpers.executor_kinds import KINDS, OUTSIDE, SOON

from parallax import SerializationError, parallel_map

SOURCE = """
import enum, functools

FACTOR = 2

class Point:
    def __init__(self, x):
        self.x = x

    def double(self):
        return Point(self.x * FACTOR)

class Color(enum.Enum):
    RED = 1

class Refusal(Exception):
    pass

def times(x):
    return x * FACTOR

def indirectly(x):
    return times(x)

@functools.lru_cache
def cached(x):
    return times(x)

def refuse(x):
    raise Refusal(x) from Refusal("why")
"""


@pytest.fixture
def hidden():
    """A module, and a submodule of a package, that are only in this process."""
    made = []
    for name in ("hidden_module", "hidden_package", "hidden_package.inner"):
        made.append(types.ModuleType(name))
        sys.modules[name] = made[-1]
        exec(SOURCE, vars(made[-1]))
    try:
        yield made
    finally:
        for module in made:
            del sys.modules[module.__name__]
            if module.__name__ in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(params=[0, 2], ids=["module", "submodule"])
def registered(request, hidden):
    """One of them, which is registered itself or with its package."""
    cloudpickle.register_pickle_by_value(hidden[min(request.param, 1)])
    return hidden[request.param]


@pytest.fixture(params=[*OUTSIDE])
def executor(request):
    """An executor of worker processes."""
    with KINDS[request.param](1) as made:
        yield made


def test_calls(executor, registered):
    """Callables of every kind, arguments and results; classes come back as what they are."""
    m = registered
    for fn, argument, x in [
        (m.Point, 3, 3),
        (m.Point.double, m.Point(2), 4),
        (functools.partial(m.Point.double), m.Point(2), 4),
        (lambda bound: bound(), m.Point(5).double, 10),
        (lambda nested: nested["a"][0][1], {"a": [(0, m.Point(6))]}, 6),
    ]:
        result = executor.submit(fn, argument).result(SOON)
        assert (type(result), result.x) == (m.Point, x)
    assert executor.submit(m.Point(3).double).result(SOON).x == 6
    for fn in (m.times, m.indirectly, m.cached, functools.partial(m.times)):
        assert executor.submit(fn, 3).result(SOON) == 6
    assert executor.submit(list, [m.Color.RED]).result(SOON) == [m.Color.RED]
    assert [p.x for p in executor.map(m.Point, range(20))] == list(range(20))


def test_exceptions(executor, registered):
    """With what they are chained to."""
    error = executor.submit(registered.refuse, 3).exception(SOON)
    assert (type(error), error.args) == (registered.Refusal, (3,))
    assert type(error.__cause__) is registered.Refusal


@pytest.mark.variants("processes", "spawn", "auto")
def test_maps(backend, registered):
    """As calls."""
    m = registered
    assert parallel_map(m.times, range(9), backend=backend) == [x * 2 for x in range(9)]
    assert [p.x for p in parallel_map(m.Point, range(9), backend=backend)] == list(range(9))
    points = parallel_map(m.Point.double, [m.Point(1)] * 3, backend=backend)
    assert [(type(p), p.x) for p in points] == [(m.Point, 2)] * 3
    with pytest.raises(m.Refusal):
        parallel_map(m.refuse, range(3), backend=backend)


def test_while_it_is_registered(executor, hidden):
    """What is remembered of a function does not outlive the decision, nor a change of a global."""
    m = hidden[0]
    for _ in range(2):
        assert isinstance(executor.submit(m.times, 3).exception(SOON), SerializationError)
        cloudpickle.register_pickle_by_value(m)
        for m.FACTOR in (2, 5):
            assert executor.submit(m.times, 3).result(SOON) == 3 * m.FACTOR
            assert executor.submit(m.indirectly, 3).result(SOON) == 3 * m.FACTOR
        cloudpickle.unregister_pickle_by_value(m)
