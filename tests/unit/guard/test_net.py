"""What the net sees: changes that the bytecode does not show, and nothing where nothing changes."""

from __future__ import annotations

import abc
import array
import bisect
import collections
import contextvars
import csv
import ctypes
import decimal
import functools
import gc
import heapq
import io
import itertools
import json
import logging
import math
import mmap
import operator
import random
import re
import sqlite3
import struct
import types
import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from parallax._guard import net
from parallax._guard.digest import Walk
from parallax._guard.effects import Finding
from parallax._guard.net import Mesh, Net
from parallax._guard.watch import CHANGES, Watch

STEPS = 200


class Counting:
    """Counts comparisons of all its objects."""

    total = 0

    def __init__(self, value):
        self.value = value

    def __lt__(self, other):
        Counting.total += 1
        return self.value < other.value


class Remembering:
    """Counts comparisons of each object."""

    __slots__ = ("count", "value")

    def __init__(self, value):
        self.value, self.count = value, 0

    def __lt__(self, other):
        self.count += 1
        return self.value < other.value


class Registry(dict):
    """A mapping that makes what is missing."""

    def __missing__(self, key):
        self[key] = made = [key]
        return made


class Tree:
    """Nested state."""

    def __init__(self):
        self.parts = {"leaves": collections.deque(), "depth": [[0]]}


numbers = np.zeros(8)
matrix = np.zeros((6, 6))
columns = np.zeros((6, 6), order="F")
times = np.zeros(8, "M8[s]")
objects = np.array([None] * 8, dtype=object)
records = np.zeros(8, [("a", "i4"), ("b", "f8")])
root = ElementTree.Element("root")
lists = collections.defaultdict(list)
text = io.StringIO()
raw = io.BytesIO()
writer = csv.writer(text)
counted = [Counting(n) for n in (3, 1, 2)]
remembered = [Remembering(n) for n in (3, 1, 2)]
logger = logging.getLogger("tests.net")
heap, ordered = [], []
packed, vector = bytearray(64), array.array("d", [0.0] * 4)
queue = collections.deque([1, 2, 3])
every_second = memoryview(bytearray(8))[::2]
counter, iterator = itertools.count(), iter(range(10**6))
moved = collections.OrderedDict.fromkeys("ab")
drawn, legacy, python = np.random.default_rng(1), np.random.RandomState(1), random.Random(1)
seen, tally = set(), collections.Counter()
space = types.SimpleNamespace(x=0)
chain = collections.ChainMap({}, {})
tree, registry = Tree(), Registry()
cells = (ctypes.c_int * 4)()
nested = {"a": {"b": {"c": [[0]]}}}
shared = np.frombuffer(mmap.mmap(-1, 4096), np.uint8)
large, wide = np.zeros(4_000_000), dict.fromkeys(range(10**6), 0)


@functools.lru_cache(None)
def cached(x):
    return x


def with_default(x, found=[]):  # noqa: B006 - the state that is looked at
    list.append(found, x)


def with_attribute(x):
    list.append(with_attribute.found, x)


with_attribute.found = []


def captures():
    total = np.zeros(1)
    return lambda i: np.add(total, i + 1, out=total)


class Shape(abc.ABC):  # noqa: B024 - others are registered with it
    pass


connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
connection.execute("create table t(a)")


@functools.lru_cache
def only_one():
    return []


@functools.cache
def only_dict():
    return {}


EFFECTS = [
    (lambda i: Shape.register(type("Round", (), {})), "Shape"),
    (lambda i: connection.execute("insert into t values (1)"), "connection"),
    (lambda i: only_one().append(i), "only_one"),
    (lambda i: only_dict().update({i: i}), "only_dict"),
    (lambda i: np.add.at(numbers, [i], 1), "numbers"),
    (lambda i: np.maximum.at(numbers, [0], i + 1), "numbers"),
    (lambda i: np.copyto(matrix[2], i + 1), "matrix"),
    (lambda i: np.put(columns, [3], i + 1), "columns"),
    (lambda i: np.put(times, [3], np.datetime64(i + 1, "s")), "times"),
    (lambda i: np.put(objects, [1], i), "objects"),
    (lambda i: np.copyto(records["a"], i + 1), "records"),
    (lambda i: np.cumsum([i + 1] * 8, out=numbers), "numbers"),
    (lambda i: ElementTree.SubElement(root, "a"), "root"),
    (lambda i: root.set("k", str(i)), "root"),
    (lambda i: lists[i], "lists"),
    (lambda i: writer.writerow([i]), "writer"),
    (lambda i: print(i, file=text), "text"),
    (lambda i: json.dump(i, text), "text"),
    (lambda i: raw.write(b"x"), "raw"),
    (lambda i: sorted(counted), "Counting"),
    (lambda i: sorted(remembered), "remembered"),
    (lambda i: max(counted), "Counting"),
    (lambda i: bisect.bisect(remembered, remembered[0]), "remembered"),
    (lambda i: logger.setLevel(10 + i), "logger"),
    (lambda i: logger.addFilter(str(i)), "logger"),
    (lambda i: heapq.heappush(heap, i), "heap"),
    (lambda i: bisect.insort(ordered, i), "ordered"),
    (lambda i: struct.pack_into("i", packed, 0, i + 1), "packed"),
    (lambda i: operator.setitem(vector, 0, i + 1.0), "vector"),
    (lambda i: operator.setitem(every_second, 0, i + 1), "every_second"),
    (lambda i: queue.rotate(1), "queue"),
    (lambda i: operator.methodcaller("append", i)(queue), "queue"),
    (lambda i: next(counter), "counter"),
    (lambda i: list(itertools.islice(iterator, 2)), "iterator"),
    (lambda i: moved.move_to_end("ba"[i % 2]), "moved"),
    (lambda i: drawn.normal(), "drawn"),
    (lambda i: legacy.rand(), "legacy"),
    (lambda i: python.random(), "python"),
    (lambda i: seen.update([i]), "seen"),
    (lambda i: collections._count_elements(tally, "ab"), "tally"),
    (lambda i: setattr(space, "x", i + 1), "space"),
    (lambda i: chain.update(a=i), "chain"),
    (lambda i: tree.parts["leaves"].extend([i]), "tree"),
    (lambda i: operator.iadd(tree.parts["depth"][0], [i]), "tree"),
    (lambda i: registry[i], "registry"),
    (lambda i: operator.setitem(cells, 0, i + 1), "cells"),
    (lambda i: functools.reduce(operator.getitem, "abc", nested)[0].append(i), "nested"),
    (lambda i: re.sub("a", lambda m: str(seen.add((i, 0))), "a"), "seen"),
    (with_default, "found"),
    (with_attribute, "with_attribute"),
    (captures(), "total"),
    ([].append, "self"),
    (functools.partial(list.append, []), "an argument of the partial"),
]  # fmt: skip

PURE = [
    lambda i: isinstance(i, Shape),
    lambda i: connection.execute("select a from t").fetchone(),
    lambda i: only_one()[:i],
    lambda i: float(numbers.sum() + matrix.T[i].sum() + columns[i].sum()),
    lambda i: [child.tag for child in root.iter()],
    lambda i: lists.get(i),
    lambda i: text.getvalue()[:i],
    lambda i: min(each.value for each in counted),
    lambda i: logger.isEnabledFor(10 + i),
    lambda i: heapq.nlargest(2, heap) + ordered[:i],
    lambda i: cached(i),
    lambda i: re.sub("a+", str(i), "baa"),
    lambda i: json.dumps({"x": [i]}),
    lambda i: struct.unpack_from("i", packed, 0),
    lambda i: [*moved, *chain, *seen, *registry],
    lambda i: float(large[i]) + wide[i],
    lambda i: shared.fill(i),  # all processes see it
    lambda i: decimal.Decimal(i) / 3,
    lambda i: math.fsum(vector) + len(queue),
    lambda i: isinstance(tree, collections.abc.Mapping),
]


def changes(fn, items=(1, 2, 3)):
    net = Net(fn, Mesh(STEPS))
    found = []
    for item in items:
        net.before([item])
        fn(item)
        found.append([each.name for each in net.after()])
    return found


@pytest.mark.parametrize(
    ("fn", "name"), EFFECTS, ids=[f"{k}-{n}" for k, (_, n) in enumerate(EFFECTS)]
)
def test_each_change_is_seen(fn, name):
    """At the first item and at later ones, by the name that the user knows."""
    assert all(name in found for found in changes(fn))


@pytest.mark.parametrize("fn", PURE, ids=range(len(PURE)))
def test_nothing_is_seen_where_nothing_changes(fn):
    """Reading, caching, and memory that is the same for all processes."""
    assert changes(fn) == [[], [], []]


@pytest.mark.parametrize("name", ["warnings", "logging", "gc"])
def test_what_libraries_call_is_reached(name, monkeypatch):
    """The callable mentions nothing of it."""
    collected = []

    def collect(*args, **kwargs):
        operator.methodcaller("append", len(args))(collected)
        return logging.LogRecord(*args[:7]) if name == "logging" else None

    if name == "gc":
        monkeypatch.setattr(gc, "callbacks", [collect])
    elif name == "warnings":
        monkeypatch.setattr(warnings, "showwarning", collect)
    else:
        monkeypatch.setattr(logging, "_logRecordFactory", collect)
    net = Net(len, Mesh(STEPS))
    net.before([1])
    collect("n", 1, "f", 1, "m", (), None)
    assert [each.name for each in net.after()] == ["collected"]


def test_changes_of_items_are_seen():
    """Also of an item whose class counts."""
    net = Net(sorted, Mesh(STEPS))
    items = [[Remembering(2), Remembering(1)], [1, 2]]
    net.before(items)
    sorted(items[0])
    assert [each.name for each in net.after()] == ["the item"]


def test_no_code_of_the_program_is_run():
    """Not even to pickle, compare or hash."""

    class Hostile:
        def __getattribute__(self, name):
            raise AssertionError(name)

        __eq__ = __hash__ = __len__ = __iter__ = __reduce_ex__ = __repr__ = __getattribute__

    hostile = Hostile()
    assert changes(lambda i: id(hostile)) == [[], [], []]


def test_what_changes_at_first_only_is_a_cache():
    """And what goes on changing keeps the callable at home."""
    state = {}
    watch = Watch(lambda i: state, "f", None)
    watch.cast(())
    for index in range(3):
        assert watch.looking
        watch.before((index,))
        state.setdefault("table", [])
        watch.after(index)
        assert watch.open == (index < 2)
    assert watch.finding is None
    assert watch.harmless == {"state"}
    watch = Watch(lambda i: state, "f", None)
    watch.cast(())
    for index in range(CHANGES):
        watch.before((index,))
        state.setdefault(index, [])
        watch.after(index)
    assert not watch.open
    assert str(watch.finding) == "`f` changes `state` (seen at item 0)"


def test_what_a_worker_says_is_confirmed_at_home():
    """Without a change there it was a cache of the worker's; with one it is the first item's."""
    state = []
    watch = Watch(lambda i: state, "f", None)
    assert not watch.suspect(["state"], (), range(5, 7))
    for index in (5, 6):
        assert watch.open
        watch.before((index,))
        watch.confirm(index)
    assert watch.finding is None
    assert watch.suspect(["state"], (), range(8, 9))
    watch = Watch(lambda i: state, "f", None)
    watch.suspect(["state"], (), range(5, 7))
    watch.before((5,))
    watch.confirm(5)
    watch.before((6,))
    state.append(1)
    watch.confirm(6)
    assert isinstance(watch.finding, Finding)
    assert watch.finding.item == 6
    assert not watch.open


def test_lists_of_c_code_with_empty_places():
    """Only the collector can pass over those; a slice of such a list would end the interpreter."""
    parser = ElementTree.XMLPullParser(["start"])
    parser.feed("<r>")
    before = Walk({}).digest(parser, 1000)
    assert Walk({}).digest(parser, 1000) == before
    parser.feed("<a/>")
    assert Walk({}).digest(parser, 1000) != before


def test_context_variables():
    """An item that sets one and leaves it set changes what the next one reads."""
    variable = contextvars.ContextVar("variable", default=0)
    net = Net(lambda n: variable.set(n), Mesh(STEPS))
    net.before((1,))
    variable.set(1)
    assert [each.name for each in net.after()] == ["variable"]


def test_looking_takes_a_hundredth_of_the_items_time(monkeypatch):
    """A worker looks at every chunk, and at less in each the more a look has cost."""
    now, state = [0.0], [0]
    digest = Walk.digest

    def costly(walk, obj, steps):
        now[0] += steps * 1e-6
        return digest(walk, obj, steps)

    monkeypatch.setattr(net, "clock", lambda: now[0])
    monkeypatch.setattr(Walk, "digest", costly)
    looking = Net(lambda i: state, Mesh(1000), share=net.MAX_SHARE)
    for i in range(2000):
        looking.before([i])
        state[0] = i // 100
        now[0] += 0.01
        assert bool(looking.after()) == (i % 100 == 0 < i), i
    assert looking.spent < 0.015 * 2000 * 0.01, looking.spent
