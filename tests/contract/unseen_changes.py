"""Items that change state in ways that the code does not show, beside the loop: a program.

    python unseen_changes.py START_METHOD FIRST_ITEM [CASE ...]

Prints each case that differs from the loop, and how often items had to run again at home.
"""

import array
import bisect
import collections
import ctypes
import functools
import heapq
import io
import itertools
import json
import logging
import operator
import struct
import sys
import types
import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np

from parallax import SharedStateWarning, options, parallel_map
from parallax._core.records import replace
from parallax._run.controller import Controller

ITEMS = 40
busy = True
facts_of = Controller._facts


def no_threads(self, current):
    """Facts for runs that are about processes: on a busy machine items seem to wait."""
    return replace(facts_of(self, current), allowed=frozenset({"loop", "processes"}))


first = 0


def work():
    total = 0
    for n in range(60_000 if busy else 0):
        total += n
    return total


class Counting:
    """Counts comparisons of all objects."""

    total = 0

    def __init__(self, value):
        self.value = value

    def __lt__(self, other):
        Counting.total += 1
        return self.value < other.value


class Remembering:
    """Counts comparisons of each object."""

    def __init__(self, value):
        self.value, self.count = value, 0

    def __lt__(self, other):
        self.count += 1
        return self.value < other.value


class Slotted:
    """State without a ``__dict__``."""

    __slots__ = ("log",)

    def __init__(self):
        self.log = []

    def __contains__(self, item):
        list.append(self.log, item)
        return True


class Registry(dict):
    """A mapping that makes what is missing."""

    def __missing__(self, key):
        dict.__setitem__(self, key, [key])
        return self[key]


class Meter:
    """An object whose method is the callable."""

    def __init__(self):
        self.seen, self.high = collections.deque(maxlen=5), np.zeros(1)

    def __call__(self, i):
        work()
        if i >= first:
            deque_append(self.seen, i)
            np.maximum.at(self.high, 0, i)
        return list(self.seen)


deque_append = collections.deque.append
names = logging.getLogger("unseen_changes")
table = collections.defaultdict(list)
best = np.zeros(3)


def global_defaultdict():
    table.clear()
    return (lambda i: table[i % 9]), (lambda: list(table))


def global_array():
    best[:] = 0
    return (lambda i: np.add.at(best, i % 3, i)), best.tolist


def arrays(shape, dtype, effect, order="C"):
    def make():
        a = np.zeros(shape, dtype, order=order)
        return functools.partial(effect, a), a.tolist

    return make


def made(make, effect, state=list):
    def case():
        obj = make()
        return functools.partial(effect, obj), functools.partial(state, obj)

    return case


def counting(kind, effect, state):
    def case():
        Counting.total = 0
        objs = [kind(n) for n in (3, 1, 2)]
        return functools.partial(effect, objs), functools.partial(state, objs)

    return case


def nested():
    data = {"a": [{"b": collections.deque([0])}]}
    return (lambda i: operator.iadd(data["a"][0]["b"], [i])), (lambda: list(data["a"][0]["b"]))


def level():
    names.setLevel(10)
    return (lambda i: names.setLevel(10 + i)), (lambda: names.level)


def default():
    def effect(i, found=[]):  # noqa: B006 - the state that is looked at
        list.append(found, i)

    effect.__defaults__[0].clear()
    return effect, effect.__defaults__[0].copy


def attribute():
    def effect(i):
        list.append(effect.found, i)

    effect.found = []
    return effect, effect.found.copy


def iterator():
    left = iter(range(1000))
    return (lambda i: list(itertools.islice(left, 2))), left.__length_hint__


def cells():
    values = (ctypes.c_int * 4)()
    return (lambda i: operator.setitem(values, i % 4, i)), (lambda: list(values))


STATE = {
    "global defaultdict": global_defaultdict,
    "global array": global_array,
    "add.at": arrays(4, float, lambda a, i: np.add.at(a, [i % 4], 1)),
    "maximum.at": arrays(4, int, lambda a, i: np.maximum.at(a, 0, i)),
    "copyto": arrays((3, 3), int, lambda a, i: np.copyto(a[1], i)),
    "out": arrays(4, int, lambda a, i: np.add(a, i, out=a)),
    "column order": arrays((3, 3), int, lambda a, i: np.put(a, i % 9, i), "F"),
    "objects": arrays(4, object, lambda a, i: np.put(a, i % 4, i)),
    "dates": arrays(4, "M8[D]", lambda a, i: np.put(a, i % 4, np.datetime64(i, "D"))),
    "fill": arrays(4, int, lambda a, i: operator.methodcaller("fill", i)(a)),
    "sub-element": made(
        lambda: ElementTree.Element("r"),
        lambda root, i: ElementTree.SubElement(root, "a", n=str(i)),
        ElementTree.tostring,
    ),
    "defaultdict": made(lambda: collections.defaultdict(list), lambda d, i: d[i % 7]),
    "missing": made(Registry, lambda d, i: d[i % 7]),
    "print": made(io.StringIO, lambda f, i: print(i, file=f), io.StringIO.getvalue),
    "json.dump": made(io.StringIO, lambda f, i: json.dump(i, f), io.StringIO.getvalue),
    "bytes": made(io.BytesIO, lambda f, i: io.BytesIO.write(f, b"%d" % i), io.BytesIO.getvalue),
    "sorted counts": counting(Counting, lambda o, i: sorted(o) and 0, lambda _: Counting.total),
    "max counts": counting(Counting, lambda o, i: max(o) and 0, lambda _: Counting.total),
    "sorted remembers": counting(
        Remembering, lambda o, i: sorted(o) and 0, lambda o: [each.count for each in o]
    ),
    "bisect remembers": counting(
        Remembering, lambda o, i: bisect.bisect(o, o[0]), lambda o: [each.count for each in o]
    ),
    "contains": made(Slotted, lambda o, i: i in o, lambda o: list(o.log)),
    "logger": level,
    "heap": made(list, lambda h, i: heapq.heappush(h, -i)),
    "heapreplace": made(lambda: [0, 1], lambda h, i: heapq.heappushpop(h, i)),
    "insort": made(list, lambda o, i: bisect.insort(o, -i)),
    "pack_into": made(lambda: bytearray(8), lambda b, i: struct.pack_into("i", b, 0, i)),
    "memoryview": made(lambda: bytearray(8), lambda b, i: operator.setitem(memoryview(b), 0, i)),
    "array": made(lambda: array.array("i", [0] * 4), lambda a, i: operator.setitem(a, i % 4, i)),
    "array extends": made(lambda: array.array("i"), lambda a, i: array.array.append(a, i)),
    "deque": made(lambda: collections.deque([1, 2, 3]), lambda d, i: d.rotate(i)),
    "order": made(
        lambda: collections.OrderedDict.fromkeys("abc"), lambda d, i: d.move_to_end("abc"[i % 3])
    ),
    "counter": made(collections.Counter, lambda c, i: collections._count_elements(c, "ab"), dict),
    "set": made(set, lambda s, i: set.update(s, (i % 9,)), sorted),
    "setattr": made(
        lambda: types.SimpleNamespace(x=0), lambda o, i: object.__setattr__(o, "x", i), vars
    ),
    "dict": made(dict, lambda d, i: dict.update(d, {i % 7: i})),
    "setdefault": made(dict, lambda d, i: dict.setdefault(d, i, i)),
    "map": made(list, lambda o, i: [*map(functools.partial(list.append, o), (i,))]),
    "exec": made(list, lambda o, i: eval("o.append(i)", {"o": o, "i": i})),
    "getattr": made(list, lambda o, i: getattr(o, "app" + "end")(i)),
    "nested": nested,
    "default": default,
    "attribute": attribute,
    "iterator": iterator,
    "cells": cells,
    "count": made(lambda: itertools.count(5), lambda c, i: next(c), repr),
    "chain map": made(
        lambda: collections.ChainMap({}, {}), lambda m, i: m.update({i % 7: i}), dict
    ),
}


def with_effect(effect, state):
    def f(i):
        work()
        if i >= first:
            effect(i)
        return repr(state())[-30:]

    return f


@functools.cache
def cached(i):
    return [i]


PURE = {
    "reads an array": lambda i: (work(), float(best.sum()))[1],
    "reads a dict": lambda i: (work(), table.get(i))[1],
    "caches": lambda i: (work(), cached(i % 5)[0])[1],
    "logs": lambda i: (work(), names.isEnabledFor(10))[1],
    "makes objects": lambda i: (work(), sorted(map(Remembering, (3, i, 1)))[0].value)[1],
}
current = None


def reads_current(i):
    work()
    return current, i


def setting(late):
    global current
    current = None
    for i in range(ITEMS):
        if i >= late:
            current = i
        yield i


def compare(name, make, state, again):
    """Whether a call gives the loop's results and leaves its state."""
    global busy
    busy = False
    fn, items = make()
    expected = [fn(i) for i in items], state(fn)
    busy = True
    fn, items = make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SharedStateWarning)
        got = parallel_map(fn, items)
    if (list(got), state(fn)) != expected:
        print(
            "differs:", name, (got, state(fn)), expected, got.report, *(w.message for w in caught)
        )
    again.append(got.report.retried)
    return got.report.route


def main():
    """Compare all cases, or those that are named."""
    global first
    Controller._facts = no_threads
    method, first = sys.argv[1], int(sys.argv[2])
    chosen, again, states = sys.argv[3:], [], {}
    with options(start_method=method, max_workers=2):
        for name, case in STATE.items():
            if chosen and name not in chosen:
                continue

            def make(case=case):
                effect, state = case()
                fn = with_effect(effect, state)
                states[fn] = state
                return fn, range(ITEMS)

            compare(name, make, lambda fn: repr(states[fn]()), again)
        if not chosen or "callable" in chosen:
            compare("callable", lambda: (Meter(), range(ITEMS)), lambda m: list(m.seen), again)
        for late in (0,) if chosen else (0, 1, 5):
            compare(f"input from {late}", lambda n=late: (reads_current, setting(n)), id, again)
        routes = [
            compare(name, lambda fn=fn: (fn, range(ITEMS)), id, [])
            for name, fn in PURE.items()
            if not chosen
        ]
    print("again:", sum(map(bool, again)), "routes:", *routes)


if __name__ == "__main__":
    main()
