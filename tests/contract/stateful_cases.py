# ruff: noqa: E501, RUF012, B006
"""Callables with state of many kinds beside the loop, in answer and in the state left: a program.

    python stateful_cases.py START_METHOD FIRST_ITEM|=ITEM TWINS [PART PARTS | CASE ...]

Each case gives what items do, from the first or one only, and the state as text. Its twin reads
that state, and must not be held at home for it. Prints each case that differs.
"""

import abc
import array
import asyncio
import calendar
import collections
import configparser
import contextlib
import contextvars
import copy
import csv
import ctypes
import dataclasses
import decimal
import difflib
import email.message
import enum
import fractions
import functools
import gc
import heapq
import html.parser
import http.cookies
import inspect
import io
import itertools
import json
import linecache
import locale
import logging
import operator
import os
import pickle
import queue
import random
import re
import sched
import shelve
import sqlite3
import string
import sys
import threading
import time
import traceback
import types
import typing
import uuid
import warnings
import weakref
import xml.dom.minidom
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from unittest import mock

import numpy as np

from parallax import options, parallel_map
from parallax._core.records import replace
from parallax._routing import planner
from parallax._run.controller import Controller

try:
    import pandas as pd
except ImportError:
    pd = None
try:
    import lxml.etree as lxml
except ImportError:
    lxml = None
try:
    from PIL import Image as image  # noqa: N813
except ImportError:
    image = None
try:
    import scipy.sparse as sparse
except ImportError:
    sparse = None

ITEMS = 60
busy = True
affected = range(ITEMS)
facts_of = Controller._facts


def no_threads(self, current):
    """Facts for runs that are about processes: on a busy machine items seem to wait."""
    return replace(facts_of(self, current), allowed=frozenset({"loop", "processes"}))


def processes_if_open(costs, facts):
    """A choice that does not depend on how busy the machine is."""
    return "processes" if "processes" in costs else "loop"


def work():
    total = 0
    for n in range(50_000 if busy else 0):
        total += n
    return total


CASES = {}
HOME = set()  # twins of these stay at home: what they read cannot travel
MAY = set()  # other than the loop, as docs/routing.md says


def case(make=None, *, home=False):
    if make is None:
        return functools.partial(case, home=home)
    CASES[make.__name__] = make
    if home:
        HOME.add(make.__name__)
    return make


def simple(name, make, effect, state=repr, *, home=False, when=True):
    """An object of the closure."""

    def closure():
        obj = make()
        return functools.partial(effect, obj), functools.partial(state, obj)

    closure.__name__ = name
    if when:
        case(closure, home=home)


# -- classes of the program --------------------------------------------------------------------


class Counter:
    total = 0
    log = []

    def __init__(self):
        self.n, self.cache, self.inner = 0, {}, types.SimpleNamespace(values=[])

    def __getattr__(self, name):
        if name.startswith("lazy_"):
            value = len(self.__dict__)
            object.__setattr__(self, name, value)
            return value
        raise AttributeError(name)

    @property
    def next(self):
        vars(self).update(n=self.n + 1)
        return self.n

    @classmethod
    def count(cls):
        type.__setattr__(cls, "total", cls.total + 1)
        return cls.total

    @staticmethod
    def note(i):
        list.append(Counter.log, i)

    def __iadd__(self, other):
        vars(self).update(n=self.n + other)
        return self

    def __contains__(self, item):
        vars(self).update(n=item)
        return True

    def __hash__(self):
        vars(self).update(n=self.n + 1)
        return 1

    def __eq__(self, other):
        return self is other

    def __bool__(self):
        vars(self).update(n=self.n + 1)
        return True

    def __len__(self):
        vars(self).update(n=self.n + 1)
        return 3

    def __iter__(self):
        vars(self).update(n=self.n + 1)
        return iter(())

    def __format__(self, spec):
        vars(self).update(n=self.n + 1)
        return ""

    def __call__(self, *args):
        vars(self).update(n=self.n + 1)
        return self.n

    def __enter__(self):
        vars(self).update(n=self.n + 1)
        return self

    def __exit__(self, *exc):
        vars(self).update(n=self.n + 1)

    def __str__(self):
        vars(self).update(n=self.n + 1)
        return "c"

    def __index__(self):
        vars(self).update(n=self.n + 1)
        return 1


def of_counter(name, effect, state=lambda c: f"{c.n} {sorted(vars(c))} {c.inner.values}"):
    simple(name, Counter, effect, state)


of_counter("getattr_cache", lambda c, i: getattr(c, f"lazy_{i % 7}"))
of_counter("property_counts", lambda c, i: c.next)
of_counter("iadd", lambda c, i: operator.iadd(c, i).n)
of_counter("contains", lambda c, i: i in c)
of_counter("hash_counts", lambda c, i: len({c}))
of_counter("bool_counts", lambda c, i: 1 if c else 2)
of_counter("len_counts", lambda c, i: len(c))
of_counter("iter_counts", lambda c, i: list(c))
of_counter("format_counts", lambda c, i: f"{c}")
of_counter("str_counts", lambda c, i: "%s" % c)  # noqa: UP031
of_counter("called", lambda c, i: c(i))
of_counter("called_by_map", lambda c, i: list(map(c, [i])))
of_counter("called_by_re", lambda c, i: re.sub("a", lambda m: str(c(m)), "aaa"))
of_counter("called_as_key", lambda c, i: sorted([3, 1], key=c))
of_counter("called_by_reduce", lambda c, i: functools.reduce(c, [1, 2, 3]))
of_counter("context_manager", lambda c, i: c.__enter__() and c.__exit__())
of_counter("index_counts", lambda c, i: [1, 2, 3][c])
of_counter("setattr_dynamic", lambda c, i: setattr(c, "n" + "", i))
of_counter("delattr_then_set", lambda c, i: vars(c).__setitem__("n", c.n * 3 % 101 + i))
of_counter("inner_values", lambda c, i: operator.methodcaller("append", i)(c.inner.values))
of_counter("deep_attribute", lambda c, i: operator.attrgetter("inner.values")(c).extend([i]))


@case
def class_attribute():
    Counter.total = 0
    return (lambda i: Counter.count()), (lambda: Counter.total)


@case
def static_method_notes():
    Counter.log.clear()
    return Counter.note, (lambda: Counter.log)


class Base:
    registry = {}

    def __init_subclass__(cls):
        dict.__setitem__(Base.registry, cls.__name__, len(Base.registry))


@case
def init_subclass_registers():
    Base.registry.clear()
    return (lambda i: type(f"Sub{i}", (Base,), {}) and None), (lambda: Base.registry)


class Meta(type):
    made = []

    def __call__(cls, *args):
        list.append(Meta.made, len(Meta.made))
        return super().__call__(*args)


class Made(metaclass=Meta):
    pass


@case
def metaclass_counts():
    Meta.made.clear()
    return (lambda i: Made() and None), (lambda: Meta.made)


class Singleton:
    instance = None

    def __new__(cls):
        if cls.instance is None:
            type.__setattr__(cls, "instance", object.__new__(cls))
            cls.instance.n = 0
        return cls.instance


@case
def singleton_counts():
    Singleton.instance = None
    Singleton()

    def effect(i):
        one = Singleton()
        vars(one)["n"] += i
        return one.n

    return effect, (lambda: Singleton().n)


class Numbered:
    ids = itertools.count()

    def __init__(self):
        self.id = next(Numbered.ids)


@case
def numbers_objects():
    Numbered.ids = itertools.count()
    return (lambda i: Numbered().id), (lambda: repr(Numbered.ids))


@dataclasses.dataclass
class Data:
    value: int = 0
    items: list = dataclasses.field(default_factory=list)
    when: typing.ClassVar[list] = []


simple("dataclass_list", Data, lambda d, i: list.append(d.items, i))
simple("dataclass_field", Data, lambda d, i: object.__setattr__(d, "value", i))
simple("dataclass_classvar", lambda: Data.when.clear() or Data(),
       lambda d, i: list.append(d.when, i), lambda d: repr(len(d.when)))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Frozen:
    value: int = 0
    cells: tuple = dataclasses.field(default_factory=lambda: ([],))


simple("frozen_set", Frozen, lambda d, i: object.__setattr__(d, "value", d.value + i))
simple("frozen_inner", Frozen, lambda d, i: list.append(d.cells[0], i))


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@case
def enum_attribute():
    Colour.RED.seen = 0

    def effect(i):
        vars(Colour.RED)["seen"] = i
        return Colour.RED.seen

    return effect, (lambda: Colour.RED.seen)


class Descriptor:
    def __set_name__(self, owner, name):
        self.values = {}

    def __get__(self, obj, owner):
        return self.values.get(id(obj), 0)

    def __set__(self, obj, value):
        dict.__setitem__(self.values, id(obj), value)


class Described:
    field = Descriptor()


simple("descriptor", Described, lambda d, i: setattr(d, "field", d.field + i), lambda d: d.field)


class Slots:
    __slots__ = ("a", "b")

    def __init__(self):
        self.a, self.b = 0, []


simple("slot_set", Slots, lambda s, i: Slots.a.__set__(s, s.a + i), lambda s: s.a)
simple("slot_list", Slots, lambda s, i: list.append(s.b, i), lambda s: s.b)


class Linked:
    def __init__(self, n):
        self.value, self.next = 0, Linked(n - 1) if n else None


def last(node):
    while node.next:
        node = node.next
    return node


simple("linked_end", lambda: Linked(30), lambda n, i: vars(last(n)).update(value=i),
       lambda n: last(n).value)  # fmt: skip


class Lazy:
    @functools.cached_property
    def table(self):
        return {}


simple("cached_property_table", Lazy, lambda o, i: dict.__setitem__(o.table, i % 5, i),
       lambda o: o.table)  # fmt: skip


class ListOf(list):
    def append(self, value):
        super().append(value)
        vars(self)["last"] = value


simple("list_subclass", ListOf, lambda o, i: ListOf.append(o, i), lambda o: f"{list(o)} {vars(o)}")


class Default(collections.UserDict):
    def __missing__(self, key):
        self.data[key] = value = len(self.data)
        return value


simple("user_dict_missing", Default, lambda o, i: o[i % 9], lambda o: o.data)
simple("user_list", collections.UserList, lambda o, i: operator.iadd(o, [i]), lambda o: o.data)


class Str(str):
    pass


def str_with_dict():
    value = Str("a")
    value.n = 0
    return value


simple("str_subclass", str_with_dict, lambda s, i: vars(s).update(n=i), lambda s: s.n)


class Tuple(collections.namedtuple("Tuple", "a b")):
    pass


simple("namedtuple_inner", lambda: Tuple([], {}), lambda t, i: list.append(t.a, i))
simple("namedtuple_dict", lambda: Tuple([], {}), lambda t, i: dict.update(t.b, {i % 4: i}))


class Observed:
    def __init__(self):
        self.hooks, self.seen = [self.notice], []

    def notice(self, value):
        list.append(self.seen, value)

    def __getstate__(self):
        return vars(self)


simple("observers", Observed, lambda o, i: [hook(i) for hook in o.hooks] and None,
       lambda o: o.seen)  # fmt: skip


class AbstractThing(abc.ABC):
    @abc.abstractmethod
    def go(self): ...


class Thing(AbstractThing):
    def __init__(self):
        self.gone = array.array("q")

    def go(self):
        array.array.append(self.gone, 1)


simple("abstract", Thing, lambda t, i: t.go(), lambda t: list(t.gone))


# -- functions, closures, generators -----------------------------------------------------------


@case
def nonlocal_count():
    n = 0

    def up(i):
        nonlocal n
        n = n + i
        return n

    return (lambda i: [*map(up, [i])]), (lambda: n)


@case
def cell_contents():
    n = 0

    def read():
        return n

    cell = read.__closure__[0]

    def effect(i):
        setattr(cell, "cell_" + "contents", i)
        return read()

    return effect, read


@case(home=True)
def generator_next():
    gen = (n * n for n in range(1000))
    return (lambda i: next(gen)), (lambda: gen.gi_frame.f_lasti)


@case(home=True)
def generator_send():
    def gen():
        total = 0
        while True:
            total += yield total

    it = gen()
    next(it)
    return it.send, (lambda: it.gi_frame.f_locals["total"])


simple("list_iterator", lambda: iter(range(500)), lambda it, i: next(it),
       lambda it: it.__length_hint__())  # fmt: skip
simple("dict_iterator", lambda: iter(dict.fromkeys(range(500))), lambda it, i: next(it),
       lambda it: it.__length_hint__())  # fmt: skip
simple(
    "enumerate",
    lambda: enumerate(range(500)),
    lambda it, i: next(it),
    lambda it: it.__reduce__()[1][0].__length_hint__(),
)
simple("zip", lambda: zip(range(500), range(500), strict=True), lambda it, i: next(it),
       lambda it: copy.deepcopy(list(it.__reduce__()[1][0:1]))[0].__length_hint__(), home=True)  # fmt: skip
simple("cycle", lambda: itertools.cycle("abc"), lambda it, i: next(it), lambda it: "", home=True)
simple("chain", lambda: itertools.chain(range(5), range(500)), lambda it, i: next(it),
       lambda it: "", home=True)  # fmt: skip
simple("count_next", lambda: itertools.count(10, 3), lambda it, i: next(it))
simple("count_in_dict", lambda: {"n": itertools.count()}, lambda d, i: next(d["n"]))
simple("reversed", lambda: reversed([*range(500)]), lambda it, i: next(it),
       lambda it: it.__length_hint__())  # fmt: skip
simple("defaultdict_count", lambda: collections.defaultdict(itertools.count().__next__),
       lambda d, word: d[f"w{word % 20}"], dict, home=True)  # fmt: skip
simple(
    "defaultdict_len", lambda: collections.defaultdict(list), lambda d, i: d[i % 5].append(i), dict
)


@case
def mutable_default():
    def effect(i, seen={}):
        dict.setdefault(seen, i % 11, i)
        return len(seen)

    return effect, (lambda: effect.__defaults__)


@case
def function_attribute():
    def effect(i):
        vars(effect)["calls"] += 1
        return effect.calls

    effect.calls = 0
    return effect, (lambda: effect.calls)


@case
def kwdefault():
    def effect(i, *, seen=[]):
        list.append(seen, i)
        return len(seen)

    return effect, (lambda: effect.__kwdefaults__)


@case
def wrapped_counts():
    calls = collections.Counter()

    def counted(fn):
        @functools.wraps(fn)
        def wrapper(*args):
            collections.Counter.update(calls, [fn.__name__])
            return fn(*args)

        return wrapper

    @counted
    def effect(i):
        return i

    return effect, (lambda: calls)


@case
def partial_argument():
    found = {}
    fn = functools.partial(lambda d, i: dict.__setitem__(d, i % 3, i), found)
    return (lambda i: fn(i)), (lambda: found)


@case
def single_dispatch():
    seen = []

    @functools.singledispatch
    def effect(i):
        return None

    @effect.register
    def _(i: int):
        list.append(seen, i)

    return effect, (lambda: seen)


@functools.cache
def registry_of(name):
    return []


@case
def lru_as_registry():
    registry_of.cache_clear()
    registry_of("x")
    return (lambda i: list.append(registry_of("x"), i)), (lambda: registry_of("x"))


MAY.add("lru_as_registry")


@case
def exec_counts():
    space = {"n": 0}
    code = compile("n = n + 1", "code", "exec")
    return (lambda i: exec(code, space)), (lambda: space["n"])


@case
def globals_dict():
    globals()["number"] = 0
    return (lambda i: globals().update(number=number + i)), (lambda: globals()["number"])


number = 0


@case
def module_vars():
    this = sys.modules[__name__]
    this.number = 0
    return (lambda i: vars(this).update(number=i)), (lambda: number)


@case
def setattr_module():
    globals()["number"] = 0
    return (lambda i: setattr(sys.modules[__name__], "number", i)), (lambda: number)


# -- contextvars, weakrefs, sentinels -----------------------------------------------------------

variable = contextvars.ContextVar("variable", default=0)
holder = contextvars.ContextVar("holder")


@case
def context_variable():
    variable.set(0)
    return (lambda i: variable.set(variable.get() + i) and None), variable.get


@case
def context_variable_list():
    holder.set([])
    return (lambda i: list.append(holder.get(), i)), holder.get


class Target:
    def __init__(self):
        self.n = 0


@case
def weak_dictionary():
    keys = [Target() for _ in range(5)]
    seen = weakref.WeakKeyDictionary()
    return (lambda i: seen.__setitem__(keys[i % 5], i)), (lambda: [seen.get(k) for k in keys])


@case(home=True)
def weak_reference():
    target = Target()
    ref = weakref.ref(target)
    return (lambda i: vars(ref()).update(n=i)), (lambda: target.n)


@case
def proxied():
    target = Target()
    proxy = weakref.proxy(target)
    return (lambda i: setattr(proxy, "n", i)), (lambda: target.n)


HOME.add("proxied")
UNSET = object()


@case
def sentinel_in_list():
    table = [UNSET, 1, None]
    return (lambda i: [each is UNSET for each in table]), (lambda: "")


@case
def sentinel_of_item():
    return (lambda i: UNSET if i % 2 else None), (lambda: "")


class Interned:
    known = {}

    def __new__(cls, name):
        found = cls.known.get(name)
        if found is None:
            found = dict.setdefault(cls.known, name, object.__new__(cls))
        return found

    def __getnewargs__(self):
        return ("a",)


@case
def interned_new():
    Interned.known.clear()
    Interned("n0")
    return (lambda i: Interned(f"n{i}") and None), (lambda: sorted(Interned.known))


@case
def identity_sets():
    objects = [Target() for _ in range(4)]
    return (lambda i: objects[i % 4] in objects and objects.index(objects[i % 4])), (lambda: "")


# -- the standard library ------------------------------------------------------------------------

simple(
    "deque_rotate", lambda: collections.deque(range(9)), lambda d, i: collections.deque.rotate(d, i)
)
simple("counter_update", collections.Counter, lambda c, i: collections.Counter.update(c, [i % 3]))
simple("counter_subtract", collections.Counter, lambda c, i: c.subtract([i % 3]))
simple("ordered_move", lambda: collections.OrderedDict.fromkeys(range(5)),
       lambda d, i: collections.OrderedDict.move_to_end(d, i % 5))  # fmt: skip
simple("chain_map_child", lambda: collections.ChainMap({}, {1: 2}),
       lambda m, i: collections.ChainMap.update(m, {i % 7: i}))  # fmt: skip
simple("heap_replace", lambda: [*range(10)], lambda h, i: heapq.heapreplace(h, i * 7 % 23))
simple("set_xor", set, lambda s, i: operator.ixor(s, {i % 5}), sorted)
simple("string_io", io.StringIO, lambda f, i: io.StringIO.write(f, f"{i} "), lambda f: f.getvalue())
simple("bytes_io_seek", lambda: io.BytesIO(b"x" * 500), lambda f, i: f.read(3), lambda f: f.tell())
simple("text_wrapper", lambda: io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True),
       lambda f, i: print(i, file=f), lambda f: f.buffer.getvalue(), home=True)  # fmt: skip
simple("csv_reader", lambda: csv.reader(io.StringIO("a,b\n" * 200)), lambda r, i: next(r),
       lambda r: r.line_num, home=True)  # fmt: skip


@case
def csv_writer_buffer():
    out = io.StringIO()
    return (lambda i: csv.writer(out).writerow([i, "x"])), out.getvalue


@case
def csv_dict_writer():
    out = io.StringIO()
    return (lambda i: csv.DictWriter(out, ["a", "b"]).writerows([{"a": i, "b": 1}])), out.getvalue


simple("config_parser", configparser.ConfigParser,
       lambda c, i: c.read_dict({f"s{i % 4}": {"k": str(i)}}),
       lambda c: {s: dict(c[s]) for s in c.sections()})  # fmt: skip
simple("email", email.message.Message, lambda m, i: email.message.Message.add_header(m, "X", str(i)),
       str)  # fmt: skip
simple("cookies", http.cookies.SimpleCookie, lambda c, i: c.load(f"a{i % 3}={i}"), str)
simple(
    "html_parser", html.parser.HTMLParser, lambda p, i: p.feed(f"<b>{i}\n"), lambda p: p.getpos()
)
simple("minidom", xml.dom.minidom.Document,
       lambda d, i: d.appendChild(d.createElement("a")) is None if not d.documentElement
       else d.documentElement.setAttribute(f"k{i}", "v"),
       lambda d: d.toxml())  # fmt: skip
simple("element_attribute", lambda: ElementTree.fromstring("<a><b/><c/></a>"),
       lambda e, i: ElementTree.Element.set(e[i % 2], "n", str(i)), ElementTree.tostring)  # fmt: skip
simple("element_text", lambda: ElementTree.fromstring("<a><b/><c/></a>"),
       lambda e, i: setattr(e.find("b"), "text", str(i)), ElementTree.tostring)  # fmt: skip
simple("element_deep", lambda: ElementTree.fromstring("<a>" * 20 + "</a>" * 20),
       lambda e, i: [*e.iter()][-1].attrib.update(n=str(i)), ElementTree.tostring)  # fmt: skip
simple("tree_builder", ElementTree.TreeBuilder, lambda b, i: b.start("a", {}) is None,
       lambda b: "", home=True)  # fmt: skip
simple("difflib", lambda: difflib.SequenceMatcher(None, "abc", "abd"),
       lambda m, i: m.set_seq1("x" * (i % 5)), lambda m: m.a)  # fmt: skip
simple("scheduler", lambda: sched.scheduler(time.time, time.sleep),
       lambda s, i: s.enterabs(i, 1, print) and None, lambda s: len(s.queue), home=True)  # fmt: skip
simple("queue", queue.Queue, lambda q, i: q.put(i), lambda q: [*q.queue], home=True)
simple("simple_queue", queue.SimpleQueue, lambda q, i: q.put(i), lambda q: q.qsize(), home=True)
simple("priority_queue", queue.PriorityQueue, lambda q, i: q.put_nowait(-i), lambda q: [*q.queue],
       home=True)  # fmt: skip
simple("decompressor", lambda: zlib.compressobj(), lambda c, i: len(c.compress(b"x%d" % i * 99)),
       lambda c: "", home=True)  # fmt: skip
simple("codec_decoder", lambda: __import__("codecs").getincrementaldecoder("utf-8")(),
       lambda d, i: d.decode(b"\xe2") if not d.getstate()[0] else d.decode(b"\x82\xac"),
       lambda d: d.getstate())  # fmt: skip
simple("hash_object", lambda: __import__("hashlib").sha256(b""), lambda h, i: h.update(b"x"),
       lambda h: h.hexdigest(), home=True)  # fmt: skip
simple("pickler_memo", lambda: pickle.Pickler(io.BytesIO()), lambda p, i: p.dump([i]) and None,
       lambda p: "", home=True)  # fmt: skip
simple("zip_file", lambda: zipfile.ZipFile(io.BytesIO(), "w"), lambda z, i: z.writestr(f"{i}", "x"),
       lambda z: z.namelist(), home=True)  # fmt: skip
simple("shelf", lambda: shelve.Shelf({}), lambda s, i: s.__setitem__(str(i % 5), i),
       lambda s: dict(s))  # fmt: skip
simple("template", lambda: types.SimpleNamespace(t=string.Template("$a")),
       lambda n, i: setattr(n.t, "template", f"{i}$a"), lambda n: n.t.template)  # fmt: skip
simple("simple_namespace", lambda: types.SimpleNamespace(a={}), lambda n, i: vars(n).update(b=i))
simple("mapping_proxy", lambda: types.SimpleNamespace(d={}, p=None),
       lambda n, i: dict.update(n.d, {i % 3: i}))  # fmt: skip
simple(
    "uuid_list", lambda: [uuid.UUID(int=1)], lambda u, i: list.__setitem__(u, 0, uuid.UUID(int=i))
)
simple("array_frombytes", lambda: array.array("i"), lambda a, i: a.frombytes(b"\1\0\0\0"))
simple(
    "array_byteswap", lambda: array.array("i", [1]), lambda a, i: a.byteswap() if i % 3 else None
)
simple("bytearray_extend", bytearray, lambda b, i: bytearray.extend(b, b"x"))
simple("memoryview_write", lambda: bytearray(40), lambda b, i: memoryview(b).__setitem__(i % 40, i))
simple("readinto", lambda: bytearray(8), lambda b, i: io.BytesIO(b"%08d" % i).readinto(b))
simple("ctypes_structure",
       lambda: (ctypes.c_int * 3)(), lambda c, i: ctypes.memset(c, i % 7, 4) and None, list,
       home=True)  # fmt: skip
simple("ctypes_buffer", lambda: ctypes.create_string_buffer(20),
       lambda c, i: ctypes.memmove(c, b"%03d" % i, 3) and None, lambda c: c.value)  # fmt: skip
simple("mock_calls", mock.Mock, lambda m, i: m(i) and None, lambda m: m.call_count, home=True)
simple("magic_mock", mock.MagicMock, lambda m, i: m.method(i) and None,
       lambda m: len(m.mock_calls), home=True)  # fmt: skip
simple("fraction_cell", lambda: [fractions.Fraction(1)],
       lambda c, i: c.__setitem__(0, c[0] + fractions.Fraction(1, i + 1)))  # fmt: skip
simple("event", threading.Event, lambda e, i: (e.set(), None)[1], lambda e: e.is_set(), home=True)
simple("semaphore", lambda: threading.Semaphore(500), lambda s, i: s.acquire(), lambda s: s._value,
       home=True)  # fmt: skip
simple(
    "thread_local", threading.local, lambda t, i: setattr(t, "x", i), lambda t: vars(t), home=True
)
simple("text_calendar", calendar.TextCalendar, lambda c, i: c.setfirstweekday(i % 7),
       lambda c: c.firstweekday)  # fmt: skip
simple("async_queue", collections.deque, lambda d, i: asyncio.run(_put(d, i)), list)
simple("exit_stack", contextlib.ExitStack, lambda s, i: s.callback(int) and None,
       lambda s: len(s._exit_callbacks))  # fmt: skip
simple("json_encoder", json.JSONEncoder, lambda e, i: setattr(e, "indent", i), lambda e: e.indent)
simple("exception_args", lambda: ValueError([]), lambda e, i: list.append(e.args[0], i),
       lambda e: e.args)  # fmt: skip
simple(
    "signature_cell",
    lambda: {"s": inspect.Signature()},
    lambda d, i: d.update(n=i),
    lambda d: d.get("n"),
)
simple("traceback_list", list, lambda o, i: list.extend(o, [len(traceback.format_stack()) and i]))


async def _put(target, value):
    collections.deque.append(target, value)


@case
def sqlite_memory():
    con = sqlite3.connect(":memory:")
    con.execute("create table t (n int)")
    return (lambda i: con.execute("insert into t values (?)", (i,)) and None), (
        lambda: con.execute("select count(*), sum(n) from t").fetchall()
    )


HOME.add("sqlite_memory")


@case
def logging_handler_list():
    seen = []

    class Handler(logging.Handler):
        def emit(self, record):
            list.append(seen, record.getMessage())

    log = logging.getLogger(f"stateful.{time.monotonic_ns()}")
    log.propagate = False
    log.addHandler(Handler())
    return (lambda i: log.warning("%d", i)), (lambda: seen)


MAY.add("logging_handler_list")  # the order in which records of workers come


@case
def logging_level():
    log = logging.getLogger("stateful.level")
    log.setLevel(0)
    return (lambda i: log.setLevel(i + 1)), (lambda: log.level)


@case
def logging_disable():
    logging.disable(0)
    return (lambda i: logging.disable(i)), (lambda: logging.root.manager.disable)


@case
def logger_dict():
    def state():
        return sorted(n for n in logging.root.manager.loggerDict if n.startswith("made."))

    for name in state():
        del logging.root.manager.loggerDict[name]
    return (lambda i: logging.getLogger(f"made.{i}") is None), state


MAY.add("logger_dict")  # one that a worker has made logs nothing else than one made here


@case
def decimal_context():
    decimal.getcontext().prec = 28

    def effect(i):
        decimal.getcontext().prec = i + 2
        return str(decimal.Decimal(1) / 3)

    return effect, (lambda: decimal.getcontext().prec)


@case
def decimal_flags():
    decimal.getcontext().clear_flags()
    return (lambda i: str(decimal.Decimal(1) / 3)), (lambda: "")


@case
def environment():
    os.environ.pop("STATEFUL", None)
    return (lambda i: os.environ.update(STATEFUL=str(i))), (lambda: os.environ.get("STATEFUL"))


@case
def environment_putenv():
    os.environ["STATEFUL"] = "0"
    return (lambda i: os.environ.__setitem__("STATEFUL", os.environ["STATEFUL"][-5:] + str(i))), (
        lambda: os.environ["STATEFUL"]
    )


@case
def sys_path():
    sys.path[:] = [p for p in sys.path if not p.startswith("/nowhere")]
    return (lambda i: sys.path.append(f"/nowhere{i}")), (
        lambda: [p for p in sys.path if "nowhere" in p]
    )


@case
def sys_modules():
    for i in range(ITEMS):
        sys.modules.pop(f"stateful_{i}", None)
    return (lambda i: sys.modules.setdefault(f"stateful_{i}", types.ModuleType("x")) and None), (
        lambda: sum(n.startswith("stateful_") for n in sys.modules)
    )


@case
def recursion_limit():
    sys.setrecursionlimit(1000)
    return (lambda i: sys.setrecursionlimit(1000 + i)), sys.getrecursionlimit


@case
def warnings_filters():
    warnings.resetwarnings()
    return (lambda i: warnings.filterwarnings("ignore", message=f"m{i}")), (
        lambda: len(warnings.filters)
    )


@case
def linecache_entry():
    linecache.cache.clear()
    return (lambda i: linecache.cache.update({f"<{i}>": (1, None, ["x"], "x")})), (
        lambda: sum(n.startswith("<") for n in linecache.cache)
    )


@case
def copyreg_table():
    import copyreg

    copyreg.dispatch_table.pop(Target, None)
    return (lambda i: copyreg.pickle(Target, operator.attrgetter("n"))), (
        lambda: Target in copyreg.dispatch_table
    )


@case
def builtins_patched():
    import builtins

    builtins.stateful_value = 0
    return (lambda i: setattr(builtins, "stateful_value", i)), (lambda: builtins.stateful_value)


@case
def gc_threshold():
    gc.set_threshold(700, 10, 10)
    return (lambda i: gc.set_threshold(700 + i, 10, 10)), gc.get_threshold


@case
def locale_set():
    locale.setlocale(locale.LC_NUMERIC, "C")
    return (lambda i: locale.setlocale(locale.LC_NUMERIC, "C.UTF-8" if i % 2 == 0 else "C")), (
        lambda: locale.setlocale(locale.LC_NUMERIC)
    )


@case
def module_attribute():
    import fnmatch

    fnmatch.stateful = 0
    return (lambda i: setattr(fnmatch, "stateful", i)), (lambda: fnmatch.stateful)


@case
def csv_dialects():
    for name in csv.list_dialects():
        if name.startswith("s"):
            csv.unregister_dialect(name)
    return (lambda i: csv.register_dialect(f"s{i}", delimiter=";")), (
        lambda: sum(n.startswith("s") for n in csv.list_dialects())
    )


@case
def mock_patch_object():
    with_n = Target()

    def effect(i):
        with mock.patch.object(with_n, "n", i):
            return with_n.n

    return effect, (lambda: with_n.n)


@case
def swapped_list():
    now = [0]

    def effect(i):
        old, now[0] = now[0], i
        try:
            return now[0]
        finally:
            now[0] = old

    return effect, (lambda: now)


@case
def swapped_dict_of_module():
    def effect(i):
        old = globals()["number"]
        globals()["number"] = i
        try:
            return number
        finally:
            globals()["number"] = old

    globals()["number"] = 7
    return effect, (lambda: number)


# -- random numbers ------------------------------------------------------------------------------


class Sampler:
    def __init__(self):
        self.rng = random.Random(3)
        self.np = np.random.default_rng(3)
        self.old = np.random.RandomState(3)


def sampler_state(s):
    return (hash(s.rng.getstate()), str(s.np.bit_generator.state), s.old.get_state()[2])


simple("random_method", Sampler, lambda s, i: s.rng.random(), sampler_state)
simple("random_shuffle", Sampler, lambda s, i: s.rng.sample(range(9), 3), sampler_state)
simple("numpy_generator", Sampler, lambda s, i: s.np.normal(), sampler_state)
simple("numpy_state", Sampler, lambda s, i: s.old.rand(), sampler_state)
simple("bound_draw", lambda: {"draw": random.Random(1).gauss}, lambda d, i: d["draw"](0, 1),
       lambda d: hash(d["draw"].__self__.getstate()))  # fmt: skip


@case
def random_global():
    random.seed(5)
    return (lambda i: random.random()), (lambda: hash(random.getstate()))


@case
def numpy_global():
    np.random.seed(5)
    return (lambda i: np.random.normal()), (lambda: np.random.get_state()[2])


@case
def random_choices_inside():
    random.seed(5)
    return (lambda i: uuid.UUID(int=random.getrandbits(128)).hex), (lambda: hash(random.getstate()))


@case
def generator_permuted():
    rng, a = np.random.default_rng(1), np.arange(9)
    return (lambda i: rng.shuffle(a)), (lambda: a.tolist())


# -- NumPy and others ------------------------------------------------------------------------------

simple("ufunc_at", lambda: np.zeros(5), lambda a, i: np.add.at(a, [i % 5], 1), np.ndarray.tolist)
simple("ufunc_out", lambda: np.zeros(5), lambda a, i: np.add(a, i, out=a) is a, np.ndarray.tolist)
simple("put", lambda: np.zeros(5), lambda a, i: np.put(a, i % 5, i), np.ndarray.tolist)
simple("place", lambda: np.zeros(5), lambda a, i: np.place(a, a < i, [i]), np.ndarray.tolist)
simple("putmask", lambda: np.zeros(5), lambda a, i: np.putmask(a, a < i, i), np.ndarray.tolist)
simple(
    "view_write",
    lambda: np.zeros((5, 5))[::2, ::2],
    lambda a, i: np.copyto(a, i),
    np.ndarray.tolist,
)
simple("array_sort", lambda: np.arange(9) % 4, lambda a, i: a.sort() if i % 2 else np.put(a, 0, i),
       np.ndarray.tolist)  # fmt: skip
simple(
    "resize", lambda: np.zeros(3), lambda a, i: a.resize(3 + i, refcheck=False), np.ndarray.tolist
)
simple("record_field", lambda: np.zeros(3, [("a", "i4"), ("b", "f8")]),
       lambda a, i: np.copyto(a["b"], i), np.ndarray.tolist)  # fmt: skip
simple("masked", lambda: np.ma.zeros(4), lambda a, i: np.ma.put(a, i % 4, i), lambda a: a.tolist())
simple(
    "flat", lambda: np.zeros((2, 2)), lambda a, i: a.flat.__setitem__(i % 4, i), np.ndarray.tolist
)
simple(
    "scalar_array", lambda: np.zeros(()), lambda a, i: np.add(a, 1, out=a) is a, lambda a: float(a)
)
simple("object_array", lambda: np.array([[], []], object).reshape(2, 0).tolist() or [[]],
       lambda a, i: list.append(a[0], i))  # fmt: skip
simple("object_cells", lambda: np.array([{}, {}], object), lambda a, i: dict.update(a[i % 2], {i: i}),
       np.ndarray.tolist)  # fmt: skip
simple("set_flags", lambda: np.zeros(3), lambda a, i: a.setflags(write=bool(i % 2)),
       lambda a: a.flags.writeable)  # fmt: skip
simple("iterator_of_numpy", lambda: np.arange(400).flat, lambda it, i: int(next(it)),
       lambda it: it.index, home=True)  # fmt: skip
simple(
    "poly", lambda: np.poly1d([1, 2, 3]), lambda p, i: np.put(p.coeffs, 0, i + 1), lambda p: str(p)
)


@case
def numpy_errstate():
    np.seterr(all="warn")
    return (lambda i: np.seterr(divide="ignore" if i % 2 else "warn") and None), np.geterr


@case
def numpy_printoptions():
    np.set_printoptions(precision=8)
    return (lambda i: np.set_printoptions(precision=i % 9 + 1)), (
        lambda: np.get_printoptions()["precision"]
    )


if pd is not None:
    frame = functools.partial(pd.DataFrame, {"a": [1.0, 2, 3], "b": list("xyz")})
    simple(
        "frame_loc", frame, lambda f, i: f.loc.__setitem__((i % 3, "a"), i), lambda f: f.to_csv()
    )
    simple("frame_insert", frame, lambda f, i: f.insert(1, f"c{i}", i), lambda f: f.to_csv())
    simple("frame_inplace", frame, lambda f, i: f.sort_values("a", ascending=bool(i % 2), inplace=True),
           lambda f: f.to_csv())  # fmt: skip
    simple("frame_rename", frame, lambda f, i: f.rename(columns={f.columns[0]: f"n{i}"}, inplace=True),
           lambda f: f.to_csv())  # fmt: skip
    simple(
        "frame_index",
        frame,
        lambda f, i: setattr(f, "index", [i, i + 1, i + 2]),
        lambda f: f.to_csv(),
    )
    simple("frame_attrs", frame, lambda f, i: f.attrs.update(n=i), lambda f: str(f.attrs))
    simple(
        "frame_update", frame, lambda f, i: f.update(pd.DataFrame({"a": [i]})), lambda f: f.to_csv()
    )
    simple(
        "frame_at", frame, lambda f, i: f.at.__setitem__((i % 3, "b"), str(i)), lambda f: f.to_csv()
    )
    simple(
        "series_pop",
        lambda: pd.Series(range(300)),
        lambda s, i: int(s.pop(i)),
        lambda s: s.to_csv(),
    )
    simple(
        "index_name", lambda: pd.Index([1, 2]), lambda x, i: setattr(x, "name", i), lambda x: x.name
    )
    simple(
        "series_name", lambda: pd.Series([1]), lambda x, i: setattr(x, "name", i), lambda x: x.name
    )
    simple("frame_flags", frame, lambda f, i: setattr(f.flags, "allows_duplicate_labels", bool(i % 2)),
           lambda f: f.flags.allows_duplicate_labels)  # fmt: skip
    simple("frame_in_dict", lambda: {"f": frame()}, lambda d, i: d["f"].eval("a = a + 1", inplace=True),
           lambda d: d["f"].to_csv())  # fmt: skip

    @case
    def pandas_option():
        pd.set_option("display.max_rows", 60)
        return (lambda i: pd.set_option("display.max_rows", i + 1)), (
            lambda: pd.get_option("display.max_rows")
        )


if lxml is not None:
    simple("lxml_append", lambda: lxml.Element("a"), lambda e, i: lxml.SubElement(e, "b") is None,
           lxml.tostring, home=True)  # fmt: skip
if image is not None:
    simple("pil_pixel", lambda: image.new("L", (4, 4)), lambda m, i: m.putpixel((i % 4, 0), i),
           lambda m: m.tobytes())  # fmt: skip
    simple("pil_paste", lambda: image.new("L", (4, 4)), lambda m, i: m.paste(i, (0, 0, 2, 2)),
           lambda m: m.tobytes())  # fmt: skip
    simple(
        "pil_info",
        lambda: image.new("L", (4, 4)),
        lambda m, i: m.info.update(n=i),
        lambda m: m.info,
    )
if sparse is not None:
    simple("sparse_set", lambda: sparse.lil_matrix((4, 4)),
           lambda m, i: m.__setitem__((i % 4, 0), i + 1), lambda m: m.toarray().tolist())  # fmt: skip
    simple("sparse_data", lambda: sparse.csr_matrix(np.eye(4)),
           lambda m, i: np.put(m.data, i % 4, i + 1), lambda m: m.toarray().tolist())  # fmt: skip
    simple("sparse_dok", lambda: sparse.dok_matrix((4, 4)),
           lambda m, i: m.__setitem__((i % 4, 0), i + 1), lambda m: m.toarray().tolist())  # fmt: skip


# -- comparing ---------------------------------------------------------------------------------

#: They read what cannot be pickled.
HOME |= {"context_variable", "context_variable_list", "weak_dictionary", "cached_property_table",
         "interned_new", "ctypes_buffer"}  # fmt: skip
#: Reading this sets it.
HOME.add("locale_set")
#: What workers that are no forks of the program do not have, as docs/routing.md says.
UNCARRIED = {"builtins_patched", "module_attribute", "enum_attribute", "globals_dict"}
HELD = re.compile("one after the other because|are not used because")


def with_effect(effect, state):
    def f(i):
        work()
        found = effect(i) if i in affected else None
        return found if not callable(found) else None

    return f


def twin_of(state):
    def f(i):
        work()
        return repr(state())

    return f


def comparable(values):
    return [repr(v) if v is not UNSET else "UNSET" for v in values]


def run_case(make):
    global busy
    busy = False
    fn, state = make()
    expected = comparable([with_effect(fn, state)(i) for i in range(ITEMS)]), repr(state())
    busy = True
    fn, state = make()
    got = parallel_map(with_effect(fn, state), range(ITEMS))
    found = comparable(got), repr(state())
    return expected, found, got.report


def main():
    global affected
    Controller._facts = no_threads
    planner._choose = processes_if_open
    method, first, twins, *chosen = sys.argv[1:]
    affected = {int(first[1:])} if first[0] == "=" else range(int(first), ITEMS)
    names = [*CASES]
    if len(chosen) == 2 and chosen[0].isdigit():
        names = names[int(chosen[0]) :: int(chosen[1])]
    elif chosen:
        names = chosen
    out = sys.stdout
    start = "auto" if method == "snapshot" else method
    with options(start_method=start, max_workers=2):
        for name in names:
            make = CASES[name]
            if int(twins):
                _, state = make()
                try:
                    report = parallel_map(twin_of(state), range(ITEMS)).report
                except (AttributeError, KeyError):
                    if method == "snapshot" or name not in UNCARRIED:
                        raise
                    continue
                if name not in HOME and HELD.search(report.reason):
                    print("twin:", name, report.route, report.reason[:300], file=out)
                continue
            try:
                expected, found, report = run_case(make)
            except Exception as error:
                print("raised:", name, repr(error)[:400], file=out)
                continue
            if found != expected and name not in MAY:
                which = [k for k, new in enumerate(map(operator.ne, expected[0], found[0])) if new]
                print("differs:", name, which[:9], expected[1], found[1], report, file=out)
    print("done", len(names))


if __name__ == "__main__":
    main()
