"""Callables with a side effect, and callables without, as data for the end-to-end guard test.

Every case makes fresh state: ``make()`` returns the callable, its items and a function that reads
the state afterwards, so that the loop's run and the library's can be compared.
"""

from __future__ import annotations

import array
import collections
import functools
import os
import queue
from collections.abc import Callable
from typing import Any, NamedTuple

N = 24
#: Of an item; none in the loop that is compared with.
LOOPS = 220_000


def work() -> int:
    """About 15 ms of pure Python, so that processes would pay, and 0."""
    total = 0
    for i in range(LOOPS):
        total += i * i % 7
    return min(total, 0)


class Case(NamedTuple):
    name: str
    make: Callable[[], tuple[Callable[..., Any], list[Any], Callable[[], Any]]]


EFFECTS: list[Case] = []
PURE: list[Case] = []


def effect(make: Callable[[], Any]) -> Callable[[], Any]:
    EFFECTS.append(Case(make.__name__, make))
    return make


def pure(make: Callable[[], Any]) -> Callable[[], Any]:
    PURE.append(Case(make.__name__, make))
    return make


def nothing() -> None:
    return None


def pure_module_function(x: int) -> int:
    return work() + x


@pure
def module_function():
    return pure_module_function, list(range(N)), nothing


@pure
def a_lambda():
    return lambda x: work() + x, list(range(N)), nothing


def _two(a: int, x: int) -> int:
    return work() + a * x


@pure
def a_partial():
    return functools.partial(_two, 3), list(range(N)), nothing


@pure
def closure_over_an_int():
    k = 5

    def f(x):
        return work() + k + x

    return f, list(range(N)), nothing


@pure
def closure_over_a_read_dict():
    table = {i: i * i for i in range(N)}

    def f(x):
        return work() + table[x]

    return f, list(range(N)), nothing


@effect
def closure_over_a_list_it_appends_to():
    log: list[int] = []

    def f(x):
        log.append(work() + x)
        return x

    return f, list(range(N)), lambda: log


@pure
def a_list_of_its_own():
    def f(x):
        log = []
        log.append(work() + x)
        return log

    return f, list(range(N)), nothing


_lazy: dict[str, Any] = {}


def _lazy_function(x: int) -> int:
    if "table" not in _lazy:
        _lazy["table"] = list(range(100))
    return work() + _lazy["table"][x]


@pure
def lazily_filled_module_cache():
    _lazy.clear()
    return _lazy_function, list(range(N)), nothing


@functools.cache
def _cached(x: int) -> int:
    return work() + x


@pure
def an_lru_cache():
    _cached.cache_clear()
    return _cached, list(range(N)), nothing


total = 0


@effect
def global_total():
    global total
    total = 0

    def f(x):
        global total
        total += work() + x
        return x

    return f, list(range(N)), lambda: total


@effect
def a_nonlocal():
    count = 0

    def f(x):
        nonlocal count
        work()
        count += x
        return x

    return f, list(range(N)), lambda: count


class Counter:
    shared: dict[int, int] = {}  # noqa: RUF012

    def __init__(self):
        self.n = 0
        self.base = 7

    def change(self, x):
        work()
        self.n += x
        return x

    def read(self, x):
        return work() + self.base + x

    def deep(self, x):
        self._keep(work() + x)
        return x

    def _keep(self, value):
        self.n += value


@effect
def bound_method_that_changes_self():
    c = Counter()
    return c.change, list(range(N)), lambda: c.n


@pure
def bound_method_that_does_not():
    return Counter().read, list(range(N)), nothing


@effect
def method_that_changes_self_in_a_helper():
    c = Counter()
    return c.deep, list(range(N)), lambda: c.n


@effect
def a_queue():
    q: queue.Queue[int] = queue.Queue()

    def f(x):
        work()
        q.put(x)
        return x

    return f, list(range(N)), lambda: list(q.queue)


class Changing:
    def __init__(self):
        self.seen = []

    def __call__(self, x):
        work()
        self.seen.append(x)
        return x


class Steady:
    def __init__(self):
        self.k = 3

    def __call__(self, x):
        return work() + self.k * x


@effect
def callable_instance():
    c = Changing()
    return c, list(range(N)), lambda: c.seen


@pure
def steady_callable_instance():
    return Steady(), list(range(N)), nothing


class Made:
    def __init__(self, x):
        self.value = work() + x

    def __eq__(self, other):
        return isinstance(other, Made) and self.value == other.value

    __hash__ = None


@pure
def a_class():
    return Made, list(range(N)), nothing


class Registered(Made):
    registry: list[int] = []  # noqa: RUF012

    def __init__(self, x):
        super().__init__(x)
        Registered.registry.append(x)


@effect
def a_class_that_registers():
    Registered.registry.clear()
    return Registered, list(range(N)), lambda: list(Registered.registry)


@effect
def a_default_argument():
    def f(x, seen=[]):  # noqa: B006
        work()
        seen.append(x)
        return len(seen)

    return f, list(range(N)), lambda: f.__defaults__[0]


@pure
def a_default_argument_that_is_read():
    def f(x, table=(1, 2, 3)):
        return work() + table[x % 3]

    return f, list(range(N)), nothing


@effect
def a_function_attribute():
    def f(x):
        work()
        f.calls += 1
        return x

    f.calls = 0
    return f, list(range(N)), lambda: f.calls


@effect
def a_class_attribute():
    class Stats:
        count = 0

    def f(x):
        work()
        Stats.count += 1
        return x

    return f, list(range(N)), lambda: Stats.count


@effect
def an_array_element():
    a = array.array("q", [0] * N)

    def f(x):
        a[x] = work() + x
        return x

    return f, list(range(N)), lambda: list(a)


class Item:
    def __init__(self, v):
        self.v = v
        self.done = False


@effect
def the_item_itself():
    items = [Item(i) for i in range(N)]

    def f(item):
        work()
        item.done = True
        return item.v

    return f, items, lambda: [i.done for i in items]


@pure
def an_item_that_is_read():
    def f(item):
        return work() + item["v"]

    return f, [{"v": i} for i in range(N)], nothing


@effect
def state_two_levels_deep():
    config = {"stats": {"seen": []}}

    def f(x):
        work()
        config["stats"]["seen"].append(x)
        return x

    return f, list(range(N)), lambda: config


@effect
def a_change_that_begins_at_item_20():
    late: list[int] = []

    def f(x):
        work()
        if x >= 20:
            late.append(x)
        return x

    return f, list(range(N)), lambda: late


def _note(log, x):
    log.append(x)


@effect
def a_change_made_by_a_helper():
    log: list[int] = []

    def f(x):
        work()
        _note(log, x)
        return x

    return f, list(range(N)), lambda: log


@pure
def a_helper_that_changes_a_local():
    def f(x):
        log: list[int] = []
        _note(log, x)
        return work() + log[0]

    return f, list(range(N)), nothing


@effect
def the_environment():
    os.environ.pop("PARALLAX_GUARD_CASE", None)

    def f(x):
        work()
        os.environ["PARALLAX_GUARD_CASE"] = str(x)
        return x

    return f, list(range(N)), lambda: os.environ.pop("PARALLAX_GUARD_CASE", None)


@effect
def counting_by_key():
    counts = collections.Counter()

    def f(x):
        work()
        counts[x % 3] += 1
        return x

    return f, list(range(N)), lambda: dict(counts)


@effect
def a_memo_by_argument():
    memo: dict[int, int] = {}

    def f(x):
        if x not in memo:
            memo[x] = work() + x
        return memo[x]

    return f, list(range(N)), lambda: memo


@pure
def counting_in_a_local():
    def f(x):
        counts: dict[int, int] = {}
        for i in range(5):
            counts[i % 3] = counts.get(i % 3, 0) + 1
        return work() + counts[0] + x

    return f, list(range(N)), nothing
