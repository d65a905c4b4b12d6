"""Changes that are easy to overlook: behind aliases, helpers, containers, protocols, builtins."""
# ruff: noqa: RUF012, PERF102, PTH123

import copy
import functools
import heapq
import io
import itertools
import os
import random
import sys
import threading
import types
from collections import Counter

import pytest
from helpers.guard import Node, Parser, Point, Row, watch, wrapped_by_own

from parallax._guard.effects import judge, scan

NUMBERS = range(1, 40)
LOG: list = []
CACHE: dict = {}
COUNTS: dict = {}
TALLY: Counter = Counter()
TOTAL = 0


@pytest.fixture(autouse=True)
def _fresh_state():
    global TOTAL
    LOG.clear()
    CACHE.clear()
    COUNTS.clear()
    TOTAL = 0


def square(x):
    return x * x


def append_to_global(x):
    LOG.append(x)
    return x


class Accumulator:
    shared: list = []
    number = 0

    def __init__(self, scale=1):
        self.n = 0
        self.scale = scale
        self.inner = types.SimpleNamespace(log=[], sizes={})

    def add(self, x):
        self.n += x
        return x

    def scaled(self, x):
        return self.scale * x

    def deep(self, x):
        self.inner.log.append(x)
        return x

    def deep_read(self, x):
        return len(self.inner.log) + x

    def share(self, x):
        self.shared.append(x)
        return x

    def bump_class(self, x):
        Accumulator.number += 1
        return x

    def __call__(self, x):
        self.n = self.n + x
        return x


class Scaler:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, x):
        return self.scale * x


class Plain:
    def __init__(self, x):
        self.x = x
        self.parts = []
        self.parts.append(x)


def helper_appends(target, x):
    target.append(x)


def through_helper(x):
    helper_appends(LOG, x)
    return x


# ---------------------------------------------------------------- nothing overlooked


def alias_then_append(x):
    log = LOG
    more = log if x else []
    more.append(x)


def through_subscript(x):
    STATE["logs"][0].append(x)


def through_loop(x):
    for log in STATE["logs"]:
        log.append(x)


def through_values(x):
    for log in STATE.values():
        log.append([x])


def through_items(x):
    for _, log in STATE.items():
        log.append([x])


def through_get(x):
    STATE.get("logs", []).append(x)


STATE = {"logs": [[]]}


def bound_append_alias(x):
    push = LOG.append
    push(x)


def mapped_append(x):
    list(map(LOG.append, [x]))


def lambda_inside(x):
    add = lambda y: LOG.append(y)
    add(x)


def comprehension_append(x):
    return [LOG.append(y) for y in range(x)]


def generator_append(x):
    return sum(1 for y in range(x) if LOG.append(y) is None)


def setattr_on_global(x):
    setattr(BOX, "value", x)  # noqa: B010


def setattr_dynamic(x):
    setattr(BOX, f"v{x}", x)


def vars_of_global(x):
    vars(BOX)[str(x)] = x


def dict_of_global(x):
    BOX.__dict__[str(x)] = x


def globals_store(x):
    globals()["TOTAL"] = x


BOX = types.SimpleNamespace(value=0)
HEAP: list = []


def pushes_heap(x):
    heapq.heappush(HEAP, x)


def unbound_append(x):
    list.append(LOG, x)


def shuffles_item(items):
    random.shuffle(items)
    return items


def sorts_item(items):
    items.sort()
    return items[0]


def in_place_list(items):
    items += [1]
    return items


def in_place_alias(items):
    mine = items
    mine *= 2
    return mine


def deletes_key(record):
    del record["a"]


def pops_key(record):
    return record.pop("a", None)


def nested_item(record):
    record["children"].append(1)


def nested_loop_item(record):
    for child in record["children"]:
        child["seen"] = True


def sorted_then_mutated(nodes):
    for node in sorted(nodes, key=lambda n: n.value):
        node.done = True


def slice_assign(items):
    items[1:] = [0]


def unpacked_item(pair):
    _first, second = pair
    second.append(1)


def put_in_local_then_mutated(node):
    box = [node]
    box[0].done = True


def held_by_own_object(node):
    parser = Holder(node)
    parser.work()


class Holder:
    def __init__(self, node):
        self.node = node

    def work(self):
        self.node.children.append(1)


def returns_outer():
    return LOG


def through_getter(x):
    returns_outer().append(x)


def two_helpers_deep(x):
    one_helper(x)


def one_helper(x):
    through_helper(x)


def recursion_effect(n):
    if n > 0:
        recursion_effect(n - 1)
        LOG.append(n)


class Base:
    def run(self, x):
        return self.step(x)

    def step(self, x):
        return x


class Counting(Base):
    def __init__(self):
        self.seen = []

    def step(self, x):
        self.seen.append(x)
        return super().step(x)


class PropertySetter:
    def __init__(self):
        self._value = 0

    @property
    def value(self):
        self._value += 1
        return self._value

    def read(self, x):
        return self.value + x


class Items:
    def __init__(self):
        self.hits = 0

    def __getitem__(self, key):
        self.hits += 1
        return key

    def __iter__(self):
        self.hits += 1
        return iter([1])

    def __enter__(self):
        self.hits += 1
        return self

    def __exit__(self, *args):
        return None


ITEMS = Items()


def uses_getitem(x):
    return ITEMS[x]


def uses_iter(x):
    return [y for y in ITEMS] + [x]  # noqa: C416


def uses_with(x):
    with ITEMS:
        return x


class WithClassMethod:
    made: list = []

    @classmethod
    def make(cls, x):
        cls.made.append(x)
        return x

    @staticmethod
    def static(x):
        LOG.append(x)

    def of_type(self, x):
        type(self).last = x

    def of_class(self, x):
        self.__class__.last = x


@wrapped_by_own
def decorated_effect(x):
    LOG.append(x)


def counting_decorator(fn):
    calls = []

    def wrapper(x):
        calls.append(x)
        return fn(x)

    return wrapper


counted = counting_decorator(square)


@functools.cache
def cached_effect(x):
    LOG.append(x)
    return x


IDS = itertools.count()


def draws_ids(x):
    return next(IDS), x


def generator_of_numbers():
    yield from range(1000)


NUMBERS_LEFT = generator_of_numbers()


def eats_generator(x):
    for y in NUMBERS_LEFT:
        return x + y
    return x


RNG = random.Random(3)


def draws_seeded(x):
    return RNG.random() + x


def max_so_far(x):
    global TOTAL
    if x > TOTAL:
        TOTAL = x


def max_by_builtin(x):
    global TOTAL
    TOTAL = max(TOTAL, x)


def counts_words(text):
    for word in text.split():
        COUNTS[word] = COUNTS.get(word, 0) + 1


def counts_plainly(x):
    TALLY[x % 2] += 1


def sets_then_reads(x):
    BOX.value = x
    return BOX.value * 2


def append_and_number(x):
    LOG.append(x)
    return len(LOG)


def intern_word(x):
    return COUNTS.setdefault(x, len(COUNTS))


def print_to_outer(x):
    print(x, file=OUT)


OUT = io.StringIO()


def writes_outer(x):
    OUT.write(str(x))


def in_except(x):
    try:
        raise ValueError(x)
    except ValueError:
        LOG.append(x)


def in_finally(x):
    try:
        return x
    finally:
        LOG.append(x)


def in_with(x):
    with open(os.devnull) as _:
        LOG.append(x)


def in_while_else(x):
    while x > 100:
        x -= 1
    else:
        LOG.append(x)


def walrus_effect(x):
    if (n := LOG) is not None:
        n.append(x)


def conditional_expression(x):
    (LOG if x else [])[:0] = [x]


def star_target(x):
    first, *_rest = STATE["logs"]
    first.append(x)


def dict_update_method(x):
    dict.update(COUNTS, {x: 1})


def partial_inside(x):
    functools.partial(helper_appends, LOG)(x)


def reduces(x):
    return functools.reduce(lambda a, b: LOG.append(b) or a, range(x), 0)


def key_function(items):
    return sorted(items, key=lambda i: LOG.append(i) or i)


def deep_chain(x):
    HOLDER.a.b["k"][0].append(x)


HOLDER = types.SimpleNamespace(a=types.SimpleNamespace(b={"k": [[]]}))


def closure_made_inside(x):
    def inner():
        def innermost():
            LOG.append(x)

        innermost()

    inner()


def kwonly_default(x, *, log=[]):  # noqa: B006
    log.append(x)


def mutates_star(*args):
    args[0].append(1)


def environ_pop(x):
    os.environ.pop(f"X{x}", None)


def put_environ(x):
    os.putenv("PARALLAX_TEST_EFFECT", str(x))


def path_append(x):
    sys.path.append("nowhere")
    sys.path.remove("nowhere")


def local_class_effect(x):
    class Local:
        def go(self):
            LOG.append(x)

    Local().go()


def cache_with_statistics(x):
    global TOTAL
    if x not in CACHE:
        TOTAL += 1
        CACHE[x] = x
    return CACHE[x]


def every_third(x):
    if x % 3 == 1:
        LOG.append(x)


def once_per_key_index(x):
    if x % 4 not in CACHE:
        CACHE[x % 4] = x


class Singleton:
    _only = None

    def __new__(cls, x):
        if cls._only is None:
            cls._only = super().__new__(cls)
            cls._only.seen = []
        return cls._only

    def __init__(self, x):
        self.seen.append(x)


class Descending:
    def __init__(self):
        self.left = 5

    def __iter__(self):
        return self

    def __next__(self):
        self.left -= 1
        return self.left


COUNTDOWN = Descending()


def own_iterator(x):
    return next(COUNTDOWN) + x


def bytes_in_place(buffer):
    buffer += b"x"
    return len(buffer)


def memory_of_item(buffer):
    view = memoryview(buffer)
    view[0] = 1


def event_set(x):
    FLAG.set()


FLAG = threading.Event()

BUFFER = None
INDEX = None


def created_list(x):
    global BUFFER
    if BUFFER is None:
        BUFFER = []
    BUFFER.append(x)
    return len(BUFFER)


def created_global(x):
    global INDEX
    if INDEX is None:
        INDEX = {}
    INDEX[x] = True


def created_on_function(x):
    if not hasattr(created_on_function, "log"):
        created_on_function.log = []
    created_on_function.log.append(x)


class Creating:
    def __init__(self):
        self.log = self.counts = self.parser = None

    def add(self, x):
        if self.log is None:
            self.log = []
        self.log.append(x)

    def count(self, x):
        self.counts = self.counts or {}
        self.counts[x] = self.counts.get(x, 0) + 1

    def parse(self, text):
        if self.parser is None:
            self.parser = Parser()
        self.parser.feed(text)


DESCRIPTOR = 9


class Opened:
    def __init__(self):
        self.number = 9

    def read(self, n):
        return os.read(self.number, n)

    def at(self, n):
        return os.pread(self.number, 1, n)


ONLY_SCANNED = [
    (lambda i: os.read(DESCRIPTOR, i), 3, "loop"),
    (lambda i: os.write(DESCRIPTOR, b""), 3, "loop"),
    (Opened().read, 3, "loop"),
    (Opened().at, 3, "process"),
    (lambda d: os.lseek(d, 0, 0), 3, "loop"),
    (lambda i: os.pread(DESCRIPTOR, i, 0), 3, "process"),
    (lambda i: os.kill(os.getpid(), 10), 3, "loop"),
    (lambda i: sys.set_int_max_str_digits(i), 3, "loop"),
    (lambda i: sys.audit("x", i), 3, "loop"),
]


@pytest.mark.parametrize(("fn", "item", "limit"), ONLY_SCANNED, ids=range(len(ONLY_SCANNED)))
def test_calls_that_reach_the_system(fn, item, limit):
    """None is made here."""
    assert judge(scan(fn, (item,)), ()).limit == limit


MISSED = [
    (alias_then_append, 3, "loop"), (through_subscript, 3, "loop"),
    (through_loop, 3, "loop"), (through_values, 3, "loop"), (through_items, 3, "loop"),
    (through_get, 3, "loop"), (bound_append_alias, 3, "loop"), (mapped_append, 3, "loop"),
    (lambda_inside, 3, "loop"), (comprehension_append, 3, "loop"),
    (generator_append, 3, "loop"), (setattr_on_global, 3, "loop"),
    (setattr_dynamic, 3, "loop"), (vars_of_global, 3, "loop"),
    (dict_of_global, 3, "loop"), (globals_store, 3, "loop"), (pushes_heap, 3, "loop"),
    (unbound_append, 3, "loop"), (shuffles_item, [1, 2], "loop"),
    (sorts_item, [2, 1], "process"), (in_place_list, [1], "process"),
    (in_place_alias, [1], "process"), (deletes_key, {"a": 1}, "process"),
    (pops_key, {"a": 1}, "process"), (nested_item, {"children": []}, "process"),
    (nested_loop_item, {"children": [{}]}, "process"),
    (sorted_then_mutated, [Node(1)], "process"), (slice_assign, [1, 2], "process"),
    (unpacked_item, (1, []), "process"), (put_in_local_then_mutated, Node(1), "process"),
    (held_by_own_object, Node(1), "process"), (through_getter, 3, "loop"),
    (two_helpers_deep, 3, "loop"), (recursion_effect, 3, "loop"),
    (Counting().run, 3, "loop"), (PropertySetter().read, 3, "loop"), (uses_getitem, 3, "loop"),
    (uses_iter, 3, "loop"), (uses_with, 3, "loop"), (WithClassMethod.make, 3, "loop"),
    (WithClassMethod().make, 3, "loop"), (WithClassMethod.static, 3, "loop"),
    (WithClassMethod().of_type, 3, "loop"), (WithClassMethod().of_class, 3, "loop"),
    (decorated_effect, 3, "loop"), (counted, 3, "loop"), (cached_effect, 3, "loop"),
    (draws_ids, 3, "loop"), (eats_generator, 3, "loop"), (draws_seeded, 3, "loop"),
    (RNG.random, None, "loop"), (max_so_far, 3, "loop"), (max_by_builtin, 3, "loop"),
    (counts_words, "a b", "loop"), (counts_plainly, 3, "loop"), (sets_then_reads, 3, "loop"),
    (append_and_number, 3, "loop"), (intern_word, 3, "loop"), (print_to_outer, 3, "loop"),
    (writes_outer, 3, "loop"), (in_except, 3, "loop"), (in_finally, 3, "loop"),
    (in_with, 3, "loop"), (in_while_else, 3, "loop"), (walrus_effect, 3, "process"),
    (conditional_expression, 3, "process"), (star_target, 3, "loop"),
    (dict_update_method, 3, "loop"), (partial_inside, 3, "loop"), (reduces, 3, "loop"),
    (key_function, [1, 2], "loop"), (deep_chain, 3, "loop"),
    (closure_made_inside, 3, "loop"), (kwonly_default, 3, "loop"),
    (mutates_star, [1], "process"), (environ_pop, 3, "loop"), (put_environ, 3, "loop"),
    (path_append, 3, "loop"), (local_class_effect, 3, "loop"),
    (cache_with_statistics, 3, "loop"), (every_third, 1, "loop"),
    (once_per_key_index, 3, "process"), (Singleton, 3, "loop"), (own_iterator, 3, "loop"),
    (bytes_in_place, bytearray(b"a"), "process"), (memory_of_item, bytearray(b"ab"), "process"),
    (event_set, 3, "loop"), (created_list, 3, "loop"), (created_global, 3, "process"),
    (Creating().add, 3, "loop"), (Creating().count, 3, "loop"),
    (Creating().parse, "a,b", "loop"), (created_on_function, 3, "loop"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fn", "item", "limit"), MISSED, ids=[getattr(row[0], "__qualname__", "?") for row in MISSED]
)
def test_changes_are_not_overlooked(fn, item, limit):
    args = () if item is None else (item,)
    effects = scan(fn, args)
    assert not effects.opaque
    assert effects.findings
    assert judge(effects, ()).limit == limit
    # What may still come is not forgotten because a few items were quiet.
    if not any(each.guarded or each.constant for each in effects.findings):
        assert judge(effects, (True, False, False, False)).limit != "free"
        assert judge(effects, (False, False, False, False)).limit != "free"
    assert watch(fn, [Row(copy.deepcopy(args)) for _ in range(6)], looks=6).limit != "free"


def test_lock_makes_threads_safe_for_a_counter():
    lock = threading.Lock()
    box = types.SimpleNamespace(n=0)

    def locked(x):
        with lock:
            box.n += 1
        return x

    def locked_but_shown(x):
        with lock:
            box.n += 1
            return box.n

    def after_the_lock(x):
        with lock:
            pass
        box.n += 1

    assert judge(scan(locked, (1,)), ()).limit == "process"
    assert judge(scan(locked_but_shown, (1,)), ()).limit == "loop"
    assert judge(scan(after_the_lock, (1,)), ()).limit == "loop"


# ---------------------------------------------------------------- match statements


def match_mapping_effect(record):
    match record:
        case {"children": children}:
            children.append(1)


def match_class_effect(node):
    match node:
        case Node(children=[] as children):
            children.append(1)


def match_position_effect(point):
    match point:
        case Point(_, _, tags):
            tags.append(1)


def match_sequence_effect(pair):
    match pair:
        case [_, *rest]:
            rest[0].append(1)


@pytest.mark.parametrize(
    ("fn", "item"),
    [
        (match_mapping_effect, {"children": []}),
        (match_class_effect, Node(1)),
        (match_position_effect, Point(1)),
        (match_sequence_effect, [1, []]),
    ],
)
def test_what_a_match_statement_captures_belongs_to_the_item(fn, item):
    assert scan(fn, (item,)).findings[0].target == "the item"


# ---------------------------------------------------------------- tables of functions and objects


def plain_handler(x):
    return x


HANDLERS = {"plain": plain_handler, "log": append_to_global, "square": square}
QUIET_HANDLERS = {"plain": plain_handler, "square": square}
PLUGINS = [Scaler(2), Accumulator(), Plain(1)]
QUIET_PLUGINS = [Scaler(2), Scaler(3)]


def dispatches(x):
    return HANDLERS[("plain", "log")[x % 2]](x)


def dispatches_quietly(x):
    return QUIET_HANDLERS[("plain", "square")[x % 2]](x)


def gets_handler(x):
    return HANDLERS.get(str(x), plain_handler)(x)


def runs_plugins(x):
    return [plugin(x) for plugin in PLUGINS[:2]]


def runs_quiet_plugins(x):
    return [plugin(x) for plugin in QUIET_PLUGINS]


@functools.singledispatch
def described(x):
    return str(x)


@described.register
def _(x: int):
    LOG.append(x)
    return "int"


def describes(x):
    return described(x)


class Money:
    made = 0

    def __init__(self, value):
        self.value = value

    def __add__(self, other):
        Money.made += 1
        return Money(self.value + other)


def adds_money(x):
    return (Money(1) + x).value


def updates_dict_of_instance(x):
    BOX.__dict__.update(last=x)


def global_import(x):
    global json_module
    import json as json_module

    return json_module.dumps(x)


@pytest.mark.parametrize(
    "fn", [dispatches, gets_handler, runs_plugins, describes, adds_money, updates_dict_of_instance]
)
def test_every_entry_of_a_table_is_followed(fn):
    assert scan(fn, (3,)).findings


@pytest.mark.parametrize("fn", [dispatches_quietly, runs_quiet_plugins, global_import])
def test_quiet_tables_are_free(fn):
    assert watch(fn, NUMBERS).limit == "free"
