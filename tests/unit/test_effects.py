"""The guard: what it finds in code, what it sees while items run, and what follows from both.

Three tables: KINDS holds each kind of side effect with its harmless twin, HARMLESS common idioms
that must never be held back, MISSED changes that are easy to overlook.
"""

import array
import collections
import copy
import dataclasses
import functools
import heapq
import io
import itertools
import json
import os
import queue
import random
import sys
import threading
import types
from collections import Counter, defaultdict, deque

import pytest
from parallax import _effects
from parallax._effects import Effects, Finding, Observer, judge, scan


def watch(fn, items, looks=4):
    """The verdict after running the first items under observation, as the run loop does."""
    rows = [item if isinstance(item, Row) else Row((item,)) for item in items]
    effects = scan(fn, rows[0].args)
    observer = Observer(fn, effects)
    for row in rows[:looks]:
        observer.before(row.args)
        fn(*row.args)
        observer.after()
    return judge(effects, observer.history)


@dataclasses.dataclass
class Row:
    """An item of several arguments."""

    args: tuple


def limit_of(make, looks=4):
    fn, items = make()
    return watch(fn, items, looks).limit


NUMBERS = range(1, 40)


# ---------------------------------------------------------------- one pair for each kind

LOG: list = []
TABLE = {"a": 1, "b": 2}
CACHE: dict = {}
MODEL = None
TOTAL = 0
SCALE = 3
COUNTS: dict = {}
TALLY: Counter = Counter()


def square(x):
    return x * x


def append_to_global(x):
    LOG.append(x)
    return x


def append_to_local(x):
    out = []
    out.append(x)
    return out


def lazy_model(x):
    global MODEL
    if MODEL is None:
        MODEL = [1, 2, 3]
    return MODEL[0] + x


def lazy_table(x):
    if "primes" not in CACHE:
        CACHE["primes"] = [2, 3, 5]
    return x in CACHE["primes"]


def memo_by_item(x):
    if x not in CACHE:
        CACHE[x] = x * x
    return CACHE[x]


def count_globally(x):
    global TOTAL
    TOTAL += x
    return x


def read_global(x):
    total = TOTAL
    total += x
    return total


@functools.lru_cache(maxsize=None)
def cached(x):
    return x * 2


def calls_cached(x):
    return cached(x % 3) + x


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


class Registered:
    instances: list = []

    def __init__(self, x):
        self.x = x
        Registered.instances.append(self)


class Plain:
    def __init__(self, x):
        self.x = x
        self.parts = []
        self.parts.append(x)


class Node:
    def __init__(self, value):
        self.value = value
        self.done = False
        self.children = []


def default_log(x, log=[]):  # noqa: B006
    log.append(x)
    return x


def default_read(x, table={"k": 3}):  # noqa: B006
    return table["k"] + x


def attribute_on_itself(x):
    attribute_on_itself.calls += 1
    return x


attribute_on_itself.calls = 0


def attribute_read(x):
    return attribute_read.scale * x


attribute_read.scale = 2


def helper_appends(target, x):
    target.append(x)


def through_helper(x):
    helper_appends(LOG, x)
    return x


def through_helper_locally(x):
    mine = []
    helper_appends(mine, x)
    return mine


def from_item_20(x):
    if x >= 20:
        LOG.append(x)
    return x


def branch_at_item_20(x):
    out = [x]
    if x >= 20:
        out.append(-x)
    return out


def sets_environ(x):
    os.environ["PARALLAX_TEST_EFFECT"] = str(x)
    return x


def reads_environ(x):
    return os.environ.get("PARALLAX_TEST_EFFECT", "") + str(x)


def mark_done(node):
    node.done = True
    return node.value


def read_done(node):
    return node.done, node.value


def append_child(node):
    node.children.append(1)
    return node.value


def closure_pairs():
    n, table, log, total = 5, {"a": 1}, [], 0
    cells = array.array("d", [0.0] * 64)
    work = queue.Queue()

    def over_int(x):
        return x + n

    def over_dict(x):
        return table["a"] + x

    def over_list(x):
        log.append(x)
        return x

    def over_list_read(x):
        return len(log) + x

    def over_nonlocal(x):
        nonlocal total
        total += x
        return total

    def over_array(x):
        cells[x] = x / 2
        return x

    def over_array_read(x):
        return cells[x] + x

    def puts(x):
        work.put(x)
        return x

    def local_queue(x):
        mine = queue.Queue()
        mine.put(x)
        return mine.get()

    def inner_nonlocal(x):
        seen = 0

        def step():
            nonlocal seen
            seen += 1

        for _ in range(3):
            step()
        return seen + x

    return types.SimpleNamespace(**locals())


CLOSED = closure_pairs()

# kind, callable, limit, twin without the side effect, items
KINDS = [
    ("module function", append_to_global, "process", square, NUMBERS),
    ("lambda", lambda x: LOG.append(x), "process", lambda x: x + SCALE, NUMBERS),
    (
        "partial",
        functools.partial(helper_appends, LOG),
        "process",
        functools.partial(pow, 2),
        NUMBERS,
    ),
    ("closure over an int", CLOSED.over_nonlocal, "loop", CLOSED.over_int, NUMBERS),
    ("closure over a read dict", CLOSED.over_list, "process", CLOSED.over_dict, NUMBERS),
    ("closure over a list", CLOSED.over_list, "process", CLOSED.over_list_read, NUMBERS),
    ("memo by item", memo_by_item, "process", lazy_model, NUMBERS),
    ("memo by item, keyed table", memo_by_item, "process", lazy_table, NUMBERS),
    ("lru_cache", memo_by_item, "process", cached, NUMBERS),
    ("lru_cache in a helper", memo_by_item, "process", calls_cached, NUMBERS),
    ("global", count_globally, "loop", read_global, NUMBERS),
    ("nonlocal", CLOSED.over_nonlocal, "loop", CLOSED.inner_nonlocal, NUMBERS),
    ("bound method", Accumulator().add, "loop", Accumulator(3).scaled, NUMBERS),
    ("queue", CLOSED.puts, "process", CLOSED.local_queue, NUMBERS),
    ("queue.put itself", queue.Queue().put, "process", [1].count, NUMBERS),
    ("SimpleQueue.put itself", queue.SimpleQueue().put, "process", {1: 2}.get, NUMBERS),
    ("callable instance", Accumulator(), "loop", Scaler(3), NUMBERS),
    ("class", Registered, "process", Plain, NUMBERS),
    ("default argument", default_log, "process", default_read, NUMBERS),
    ("function attribute", attribute_on_itself, "loop", attribute_read, NUMBERS),
    ("class attribute", Accumulator().bump_class, "loop", Accumulator(2).scaled, NUMBERS),
    ("shared list", Accumulator().share, "process", Accumulator(2).scaled, NUMBERS),
    ("array element", CLOSED.over_array, "process", CLOSED.over_array_read, NUMBERS),
    ("the item", mark_done, "process", read_done, [Node(k) for k in range(9)]),
    ("deep in the item", append_child, "process", read_done, [Node(k) for k in range(9)]),
    ("two levels deep", Accumulator().deep, "process", Accumulator().deep_read, NUMBERS),
    ("from item 20 on", from_item_20, "process", branch_at_item_20, NUMBERS),
    ("helper", through_helper, "process", through_helper_locally, NUMBERS),
    ("os.environ", sets_environ, "process", reads_environ, NUMBERS),
    ("list.append itself", LOG.append, "process", LOG.count, NUMBERS),
]


@pytest.fixture(autouse=True)
def _fresh_state(monkeypatch):
    global MODEL, TOTAL
    monkeypatch.setenv("PARALLAX_TEST_EFFECT", "")
    LOG.clear()
    CACHE.clear()
    COUNTS.clear()
    MODEL, TOTAL = None, 0


@pytest.mark.parametrize(
    ("fn", "limit", "items"), [row[1:3] + row[4:] for row in KINDS], ids=[row[0] for row in KINDS]
)
def test_side_effect_is_held(fn, limit, items):
    verdict = watch(fn, items)
    assert verdict.limit == limit
    assert verdict.finding is not None
    assert str(verdict.finding) in verdict.reason


@pytest.mark.parametrize(
    ("fn", "items"), [row[3:] for row in KINDS], ids=[row[0] for row in KINDS]
)
def test_twin_without_it_is_free(fn, items):
    verdict = watch(fn, items)
    assert verdict.limit == "free", verdict.reason
    assert verdict.settled


@pytest.mark.parametrize("row", KINDS, ids=[row[0] for row in KINDS])
def test_side_effect_is_seen_without_a_sample(row):
    assert scan(row[1]).findings


# ---------------------------------------------------------------- no false alarms

def split_and_sort(text):
    words = text.split()
    words.sort()
    return words


def copy_first(item):
    item = item.copy()
    item[0] = 1
    return item


def sliced(item):
    head = item[:2]
    head.append(3)
    return head


def listed(item):
    item = list(item)
    item.append(4)
    return item


def count_words(text):
    counts = {}
    for word in text.split():
        counts[word] = counts.get(word, 0) + 1
    return counts


def grouped(words):
    groups = {}
    for word in words:
        groups.setdefault(len(word), []).append(word)
    by = defaultdict(list)
    for word in words:
        by[word[0]].append(word)
    return groups, dict(by)


def halves(n):
    steps = 0
    while n > 1:
        n //= 2
        n += 1 if n % 5 == 7 else 0
        steps += 1
    return steps


def text_grows(text):
    text += "!"
    text = text.strip()
    text *= 2
    return text


def rebuilt(record):
    record = {**record, "new": 1}
    record["more"] = 2
    record.pop("new")
    return record


def dict_of(record):
    record = dict(record, x=1)
    record.update(y=2)
    return record


def deep_copied(record):
    record = copy.deepcopy(record)
    record["list"].append(3)
    return record


def from_json(record):
    data = json.loads(record["text"])
    data["new"] = 1
    data.setdefault("list", []).append(2)
    return data


class Parser:
    def __init__(self, sep=","):
        self.sep = sep
        self.rows = []
        self.state = {"depth": 0}

    def feed(self, text):
        for line in text.split():
            self._line(line)
        self.state["depth"] += 1

    def _line(self, line):
        self.rows.append(line.split(self.sep))
        self.last = line

    @property
    def size(self):
        return len(self.rows)


def parse(text):
    parser = Parser()
    parser.feed(text)
    parser.sep = ";"
    return parser.rows, parser.size


class SlowParser(Parser):
    def __init__(self):
        super().__init__("-")
        self.extra = []

    def feed(self, text):
        self.extra.append(text)
        super().feed(text)


def parse_slowly(text):
    parser = SlowParser()
    parser.feed(text)
    return parser.extra


def seeded(seed):
    rng = random.Random(seed)
    values = [rng.random() for _ in range(3)]
    rng.shuffle(values)
    return values


def global_random(x):
    return random.random() + x


def heap_local(items):
    heap = []
    for item in items:
        heapq.heappush(heap, item)
    return [heapq.heappop(heap) for _ in range(len(heap))]


def sorted_by_helper(items):
    return sorted(items, key=square), list(map(square, items)), sum(square(i) for i in items)


def string_io(text):
    out = io.StringIO()
    out.write(text)
    print(text, file=out)
    return out.getvalue()


def writes_own_file(path):
    with io.BytesIO() as handle:
        handle.write(path.encode())
    return path


def prints(x):
    sys.stderr.write("")
    print(end="", file=sys.stdout)
    return x


def recursive(n):
    return n if n < 2 else recursive(n - 1) + recursive(n - 2)


def generator_inside(n):
    def produce():
        seen = set()
        for k in range(n):
            if k not in seen:
                seen.add(k)
                yield k

    return list(produce())


def own_generator(n):
    out = []
    for part in countdown(n):
        out.append(part)
    return out


def countdown(n):
    box = [n]
    while box[0]:
        yield box[0]
        box[0] -= 1


def nested_lambda(x):
    total = [0]
    add = lambda y: total.append(y)  # noqa: E731
    add(x)
    return total


def alias_of_method(n):
    out = []
    push = out.append
    for k in range(n):
        push(k)
    return out


def matrix(n):
    rows = [[0] * n for _ in range(n)]
    for i in range(n):
        for j in range(n):
            rows[i][j] += i * j
    first, *rest = rows
    first[0] = 9
    rest.append(first)
    return rows


def swaps(items):
    values = sorted(items)
    values[0], values[-1] = values[-1], values[0]
    del values[0]
    values[1:] = [5]
    return values


def handles_errors(x):
    errors = []
    try:
        return TABLE[x]
    except KeyError as error:
        errors.append(str(error))
        return errors
    finally:
        errors.clear()


def with_local_class(x):
    class Local:
        def __init__(self):
            self.items = []

        def add(self, y):
            self.items.append(y)

    local = Local()
    local.add(x)
    return local.items


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    tags: list = dataclasses.field(default_factory=list)

    def moved(self, dx):
        return dataclasses.replace(self, x=self.x + dx)


def makes_points(x):
    point = Point(x)
    point.y = 3
    point.tags.append("t")
    return point.moved(1).x


class Pair(collections.namedtuple("Pair", "left right")):
    __slots__ = ()


def pairs(x):
    pair = Pair(x, [1])
    return pair._replace(left=2).left


LOCAL = threading.local()


def per_thread(x):
    if not hasattr(LOCAL, "buffer"):
        LOCAL.buffer = []
    LOCAL.buffer.append(x)
    return len(LOCAL.buffer) and x


def reads_table(x):
    return [key for key, value in TABLE.items() if value == x] + sorted(TABLE)


def returns_closure_state(x):
    count = 0

    def bump():
        nonlocal count
        count += 1
        return count

    return [bump() for _ in range(3)] + [x]


def sets(items):
    a = set(items)
    b = {1, 2}
    a |= b
    a &= {1}
    b.update(items)
    return a | b


def builds_bytes(text):
    buffer = bytearray()
    buffer += text.encode()
    buffer.extend(b"x")
    buffer[0] = 1
    return bytes(buffer)


def enumerates(items):
    out = {}
    for k, item in enumerate(items):
        out[k] = item
    for a, b in zip(items, items):  # noqa: B905
        out[a] = out.get(b, 0) + 1
    return out


def keyword_only(x, *, limit=3):
    limit -= 1
    return x + limit


def star_args(*args, **kwargs):
    args = list(args)
    args.append(1)
    kwargs["k"] = 2
    return args


def counter_local(text):
    counter = Counter(text)
    counter.update(text)
    counter["x"] += 1
    queue_ = deque(text, maxlen=3)
    queue_.append("z")
    queue_.rotate(1)
    return counter.most_common(1)


VERBOSE = False


def debug_log(x):
    if VERBOSE:
        LOG.append(x)
    return x


class Lazy:
    def __init__(self):
        self._table = None

    @property
    def table(self):
        if self._table is None:
            self._table = {k: k for k in range(9)}
        return self._table

    @functools.cached_property
    def squares(self):
        return [k * k for k in range(9)]

    def look(self, x):
        return self.table.get(x, 0) + self.squares[x % 9]

    @staticmethod
    def twice(x):
        return 2 * x

    @classmethod
    def make(cls, x):
        lazy = cls()
        lazy._table = {x: x}
        return lazy._table


def early_return_cache(x):
    global MODEL
    if MODEL is not None:
        return MODEL[0] + x
    MODEL = [1]
    return MODEL[0] + x


def try_cache(x):
    try:
        return CACHE["t"] + x
    except KeyError:
        CACHE["t"] = 5
    return CACHE["t"] + x


def get_cache(x):
    table = CACHE.get("table")
    if table is None:
        table = CACHE["table"] = {1: 2}
    return table.get(x)


def update_if_empty(x):
    if not CACHE:
        CACHE.update({"a": 1})
    return CACHE["a"] + x


def wrapped_by_own(fn):
    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        return fn(*args, **kwargs)

    return wrapper


@wrapped_by_own
def decorated(x):
    out = []
    out.append(x)
    return out


@functools.singledispatch
def dispatched(x):
    return x


class Celsius:
    def __init__(self, value):
        self.value = value

    def __add__(self, other):
        return Celsius(self.value + other.value)

    def __iadd__(self, other):
        self.value += other.value
        return self


def iadd_local(x):
    total = Celsius(0)
    total += Celsius(x)
    return total.value


def unpack_item(pair):
    a, b = pair
    a += 1
    b *= 2
    return a, b


def augmented_field(record):
    size = record["size"]
    size += 1
    parts = record["text"].split()
    parts += ["x"]
    return size, parts


def local_import(x):
    import math as m
    from os import path

    return m.sqrt(x), path.join("a", str(x))


def match_statement(x):
    out = []
    for part in (x, [x], {"k": x}):
        if isinstance(part, list):
            out.extend(part)
        elif isinstance(part, dict):
            out.append(part["k"])
    return out


def itertools_local(items):
    counter = itertools.count()
    pairs_ = [(next(counter), item) for item in items]
    for a, b in itertools.chain(pairs_, pairs_):
        a += b
    it = iter(items)
    next(it)
    return list(it), list(itertools.accumulate(items))


HARMLESS = [
    (square, 3), (append_to_local, 3), (split_and_sort, "b a"), (copy_first, [3, 2]),
    (sliced, [1, 2, 3]), (listed, (1, 2)), (count_words, "a b a"), (grouped, ["a", "bc"]),
    (halves, 9), (text_grows, "a"), (rebuilt, {"a": 1}), (dict_of, {"a": 1}),
    (deep_copied, {"list": []}), (from_json, {"text": '{"a": 1}'}), (parse, "a,b c,d"),
    (parse_slowly, "a,b"), (seeded, 3), (global_random, 3), (heap_local, [3, 1, 2]),
    (sorted_by_helper, [1, 2]), (string_io, "a"), (writes_own_file, "a"), (prints, 3),
    (recursive, 6), (generator_inside, 3), (own_generator, 3), (nested_lambda, 3),
    (alias_of_method, 3), (matrix, 3), (swaps, [3, 1, 2]), (handles_errors, "z"),
    (with_local_class, 3), (makes_points, 3), (pairs, 3), (per_thread, 3), (reads_table, 1),
    (returns_closure_state, 3), (sets, [1, 5]), (builds_bytes, "abc"), (enumerates, [1, 2]),
    (keyword_only, 3), (star_args, 3), (counter_local, "abc"), (debug_log, 3),
    (Lazy().look, 3), (Lazy.twice, 3), (Lazy().twice, 3), (Lazy.make, 3), (early_return_cache, 3),
    (try_cache, 3), (get_cache, 3), (update_if_empty, 3), (decorated, 3), (dispatched, 3),
    (iadd_local, 3), (unpack_item, (1, 2)), (augmented_field, {"size": 1, "text": "a b"}),
    (local_import, 3), (match_statement, 3), (itertools_local, [1, 2, 3]),
    (Point(1).moved, 3), (json.dumps, 3), (str.upper, "a"), ("a".join, ["b"]), (len, "abc"),
    (int, "3"), (dict, [(1, 2)]), (functools.partial(int, base=2), "11"), (os.path.basename, "a/b"),
    (functools.partial(sorted, reverse=True), [1, 2]), (Point, 3), (Parser, ","),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fn", "item"), HARMLESS, ids=[getattr(fn, "__qualname__", repr(fn)) for fn, _ in HARMLESS]
)
def test_harmless_idioms_are_free(fn, item):
    verdict = watch(fn, [copy.deepcopy(item) for _ in range(5)])
    assert verdict.limit == "free", verdict.reason


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
    add = lambda y: LOG.append(y)  # noqa: E731
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


@functools.lru_cache(maxsize=None)
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


MISSED = [
    (alias_then_append, 3, "process"), (through_subscript, 3, "process"),
    (through_loop, 3, "process"), (through_values, 3, "process"), (through_items, 3, "process"),
    (through_get, 3, "process"), (bound_append_alias, 3, "process"), (mapped_append, 3, "process"),
    (lambda_inside, 3, "process"), (comprehension_append, 3, "process"),
    (generator_append, 3, "process"), (setattr_on_global, 3, "process"),
    (setattr_dynamic, 3, "process"), (vars_of_global, 3, "process"),
    (dict_of_global, 3, "process"), (globals_store, 3, "process"), (pushes_heap, 3, "process"),
    (unbound_append, 3, "process"), (shuffles_item, [1, 2], "process"),
    (sorts_item, [2, 1], "process"), (in_place_list, [1], "process"),
    (in_place_alias, [1], "process"), (deletes_key, {"a": 1}, "process"),
    (pops_key, {"a": 1}, "process"), (nested_item, {"children": []}, "process"),
    (nested_loop_item, {"children": [{}]}, "process"),
    (sorted_then_mutated, [Node(1)], "process"), (slice_assign, [1, 2], "process"),
    (unpacked_item, (1, []), "process"), (put_in_local_then_mutated, Node(1), "process"),
    (held_by_own_object, Node(1), "process"), (through_getter, 3, "process"),
    (two_helpers_deep, 3, "process"), (recursion_effect, 3, "process"),
    (Counting().run, 3, "process"), (PropertySetter().read, 3, "loop"), (uses_getitem, 3, "loop"),
    (uses_iter, 3, "loop"), (uses_with, 3, "loop"), (WithClassMethod.make, 3, "process"),
    (WithClassMethod().make, 3, "process"), (WithClassMethod.static, 3, "process"),
    (WithClassMethod().of_type, 3, "process"), (WithClassMethod().of_class, 3, "process"),
    (decorated_effect, 3, "process"), (counted, 3, "process"), (cached_effect, 3, "process"),
    (draws_ids, 3, "loop"), (eats_generator, 3, "loop"), (draws_seeded, 3, "loop"),
    (RNG.random, None, "loop"), (max_so_far, 3, "loop"), (max_by_builtin, 3, "loop"),
    (counts_words, "a b", "loop"), (counts_plainly, 3, "loop"), (sets_then_reads, 3, "loop"),
    (append_and_number, 3, "loop"), (intern_word, 3, "loop"), (print_to_outer, 3, "process"),
    (writes_outer, 3, "process"), (in_except, 3, "process"), (in_finally, 3, "process"),
    (in_with, 3, "process"), (in_while_else, 3, "process"), (walrus_effect, 3, "process"),
    (conditional_expression, 3, "process"), (star_target, 3, "process"),
    (dict_update_method, 3, "process"), (partial_inside, 3, "process"), (reduces, 3, "process"),
    (key_function, [1, 2], "process"), (deep_chain, 3, "process"),
    (closure_made_inside, 3, "process"), (kwonly_default, 3, "process"),
    (mutates_star, [1], "process"), (environ_pop, 3, "loop"), (put_environ, 3, "loop"),
    (path_append, 3, "loop"), (local_class_effect, 3, "process"),
    (cache_with_statistics, 3, "loop"), (every_third, 1, "process"),
    (once_per_key_index, 3, "process"), (Singleton, 3, "process"), (own_iterator, 3, "loop"),
    (bytes_in_place, bytearray(b"a"), "process"), (memory_of_item, bytearray(b"ab"), "process"),
    (event_set, 3, "process"), (created_list, 3, "loop"), (created_global, 3, "process"),
    (Creating().add, 3, "process"), (Creating().count, 3, "loop"),
    (Creating().parse, "a,b", "loop"), (created_on_function, 3, "process"),
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


# ---------------------------------------------------------------- words

def test_reason_names_function_target_and_line():
    verdict = judge(scan(append_to_global, (3,)), (True,))
    line = append_to_global.__code__.co_firstlineno + 1
    assert verdict.reason == (
        f"`append_to_global` appends to `LOG` (line {line}); "
        "return the value instead, or pass backend='processes'"
    )


WORDS = [
    (count_globally, "adds to", "global TOTAL"), (Accumulator().add, "adds to", "self.n"),
    (mark_done, "sets an attribute of", "the item"), (CLOSED.over_nonlocal, "adds to",
    "nonlocal total"), (sets_environ, "assigns an item of", "os.environ"),
    (default_log, "appends to", "log"), (Accumulator().deep, "appends to", "self.inner.log"),
    (attribute_on_itself, "adds to", "attribute_on_itself.calls"),
    (Registered, "appends to", "Registered.instances"), (lazy_model, "rebinds", "global MODEL"),
    (deep_chain, "appends to", "HOLDER.a.b"),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "how", "target"), WORDS)
def test_words(fn, how, target):
    item = Node(1) if target == "the item" else 3
    finding = scan(fn, (item,)).findings[0]
    assert (finding.how, finding.target) == (how, target)
    assert finding.filename == __file__


# ---------------------------------------------------------------- the table, as a pure function

def finding(kind="grow", guarded=False, constant=False):
    return Finding(kind, "x", "f", "f.py", 3, "changes", guarded, constant)


@pytest.mark.parametrize(
    ("findings", "history", "limit", "settled"),
    [
        ((), (), "free", True),
        ((finding(),), (), "process", True),
        ((finding(),), (True, True, True), "process", True),
        ((finding(),), (True, False, False, False), "process", True),
        ((finding(),), (False,) * 9, "process", True),
        ((finding("update"),), (True, True), "loop", True),
        ((finding("update"),), (), "loop", True),
        ((finding(), finding("update")), (False,), "loop", True),
        ((finding(guarded=True),), (), "process", False),
        ((finding(guarded=True),), (True,), "process", False),
        ((finding(guarded=True),), (True, False), "process", False),
        ((finding(guarded=True),), (True, False, False), "free", True),
        ((finding(guarded=True),), (False, False, False), "process", False),
        ((finding(guarded=True),), (True, True, False, False), "free", True),
        ((finding(guarded=True),), (True, True, True, False, False), "process", False),
        ((finding(guarded=True),), (True,) * 8, "process", True),
        ((finding("update", guarded=True),), (True, False, False), "free", True),
        ((finding("update", guarded=True),), (True,), "loop", False),
        ((finding(constant=True),), (False, False), "process", False),
        ((finding(constant=True),), (False, False, False), "free", True),
        ((finding(constant=True), finding()), (False, False, False), "process", True),
        ((finding(constant=True), finding(guarded=True)), (True, False, False), "process", False),
        ((finding(constant=True), finding(guarded=True)), (True,) + (False,) * 3, "free", True),
    ],
)
def test_table(findings, history, limit, settled):
    verdict = judge(Effects(findings), history)
    assert (verdict.limit, verdict.settled) == (limit, settled)
    assert bool(verdict.reason) == bool(findings)


def test_opaque_code_stays_in_the_process():
    assert judge(Effects(opaque=True), (False,) * 5).limit == "process"
    assert judge(Effects((finding("update"),), opaque=True), ()).limit == "loop"


def test_code_made_at_run_time_is_opaque():
    def runs_text(x):
        exec("LOG.append(1)")
        return x

    assert scan(runs_text, (1,)).opaque


def test_warm_cache_is_free_on_the_next_call():
    assert watch(lazy_model, NUMBERS).limit == "free"
    assert watch(lazy_model, NUMBERS).limit == "free"


def test_cache_filled_in_a_rare_branch_is_not_taken_for_warm():
    def rare(x):
        global MODEL
        if x > 20 and MODEL is None:
            MODEL = [1]
        return x

    assert watch(rare, NUMBERS).limit == "process"


# ---------------------------------------------------------------- global data that workers need

def test_reads_lists_module_data():
    reads = scan(reads_table, (1,)).reads
    assert (__name__, "TABLE") in reads
    assert scan(square, (1,)).reads == ()
    assert scan(sorted_by_helper, ([1],)).reads == ()  # functions come with their module
    assert scan(os.path.join, ("a",)).reads == ()


# ---------------------------------------------------------------- caching and safety

def test_scan_is_remembered_and_forgotten_with_what_it_relied_on(monkeypatch):
    first = scan(through_helper, (3,))
    assert scan(through_helper, (4,)) is first
    monkeypatch.setitem(globals(), "helper_appends", lambda target, x: None)
    assert scan(through_helper, (3,)).findings == ()
    monkeypatch.undo()
    assert scan(through_helper, (3,)).findings


def test_scan_depends_on_the_type_of_the_item():
    def doubles(x):
        x *= 2
        return x

    assert not scan(doubles, (3,)).findings
    assert scan(doubles, ([3],)).findings
    assert not scan(doubles, (3,)).findings


def test_closures_with_one_code_are_told_apart():
    def make(target):
        return lambda x: target.add(x)

    class Quiet:
        def add(self, x):
            return x

    assert scan(make(set()), (1,)).findings
    assert not scan(make(Quiet()), (1,)).findings
    assert scan(make(set()), (1,)).findings


def test_memory_of_a_scan_keeps_no_user_data_alive():
    import gc
    import weakref

    class Big:
        pass

    big = Big()
    big.items = [1]
    ref = weakref.ref(big)
    assert scan(lambda x: big.items.append(x), (big,)).findings
    del big
    gc.collect()
    assert ref() is None


class Touchy:
    """Every way of looking at it that runs code fails the test."""

    def _no(self, *args):
        raise AssertionError("the guard ran the program's code")

    __getattr__ = __len__ = __iter__ = __eq__ = __hash__ = __bool__ = __repr__ = __contains__ = _no
    __getitem__ = __call__ = __get__ = _no

    @property
    def __class__(self):
        raise AssertionError("the guard asked for __class__")

    @property
    def __dict__(self):
        raise AssertionError("the guard asked for __dict__")

    @property
    def field(self):
        raise AssertionError("the guard ran a property")

    def __getattribute__(self, name):
        raise AssertionError("the guard ran __getattribute__")


TOUCHY = Touchy()


def test_scanning_runs_nothing():
    def uses(x):
        x.field.append(1)
        TOUCHY.other[0] = TOUCHY.field
        for y in TOUCHY:
            y.z = len(TOUCHY)
        return TOUCHY == x, [*TOUCHY], x in TOUCHY

    effects = scan(uses, (TOUCHY,))
    assert effects.findings
    assert not effects.opaque
    observer = Observer(uses, effects)
    observer.before((TOUCHY,))
    observer.after()
    scan(TOUCHY, (1,))


@pytest.mark.parametrize("fn", [None, 3, "text", object(), type, [].append, print, Touchy, 3j])
def test_scan_never_raises(fn):
    assert isinstance(scan(fn, (1,)), Effects)
    assert isinstance(scan(fn), Effects)


def test_failure_inside_means_opaque(monkeypatch):
    monkeypatch.setattr(_effects, "Scan", None)
    assert scan(lambda x: x * 1000003, (1,)).opaque


# ---------------------------------------------------------------- the observer

def observe(fn, *items):
    observer = Observer(fn, scan(fn, (items[0],)))
    for item in items:
        observer.before((item,))
        fn(item)
        observer.after()
    return observer.history


def test_observer_sees_each_kind_of_change():
    assert observe(append_to_global, 1, 2) == (True, True)
    assert observe(count_globally, 1, 0, 2) == (True, False, True)
    assert observe(lazy_model, 1, 2, 3) == (True, False, False)
    assert observe(lazy_table, 1, 2, 3) == (True, False, False)
    assert observe(memo_by_item, 1, 2, 2) == (True, True, False)
    assert observe(mark_done, Node(1), Node(2)) == (True, True)
    assert observe(append_child, Node(1)) == (True,)
    assert observe(Accumulator().deep, 1, 2) == (True, True)
    assert observe(Accumulator().add, 1, 2) == (True, True)
    assert observe(CLOSED.over_array, 7, 7) == (True, False)
    assert observe(CLOSED.puts, 7) == (True,)
    assert observe(queue.SimpleQueue().put, 7) == (True,)
    assert observe(every_third, 1, 2, 3, 4) == (True, False, False, True)
    assert observe(square, 1) == (False,)


def test_observer_survives_a_container_that_fails_to_be_read():
    class Odd(dict):
        def values(self):
            raise AssertionError

    odd = Odd()

    def store(x):
        odd["a"] = x

    assert observe(store, 1, 2) == (True, True)


# ---------------------------------------------------------------- NumPy

def test_numpy():
    np = pytest.importorskip("numpy")
    data = np.zeros(50)
    grid = np.zeros((5, 5))

    def fills(x):
        data[x] = x

    def adds(x):
        data[x] += x

    def row(x):
        line = grid[x % 5]
        line[0] = x

    def out(x):
        np.add(data, x, out=data)

    def item_in_place(a):
        a *= 2
        return a

    def item_view(a):
        b = np.asarray(a).reshape(-1)
        b[0] = 1

    def pure(a):
        a = np.asarray(a) * 2
        a[0] = 1
        b = a.copy()
        b += 1
        c = data.sum() + np.sin(data[3])
        return b.sum() + c

    def copied(a):
        a = np.array(a)
        a.sort()
        return a

    for fn in (fills, row):
        assert watch(fn, NUMBERS).limit == "process", fn
    for fn in (adds, out):
        assert watch(fn, NUMBERS).limit == "loop", fn
    for fn in (item_in_place, item_view):
        assert watch(fn, [np.ones(3) for _ in range(4)]).limit == "process", fn
    for fn in (pure, copied):
        assert watch(fn, [np.ones(3) for _ in range(4)]).limit == "free", fn
    for fn in (np.sin, np.linalg.norm, data.sum):
        assert not scan(fn).findings
    assert scan(data.fill).findings


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
