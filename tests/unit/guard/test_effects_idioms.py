"""Common code without side effects, and lazily filled caches: the guard must not hold it back."""
# ruff: noqa: B905, C416, F841, PERF402, PERF403, PTH118, PTH123, RET503, RUF005, RUF012

import ast
import asyncio
import collections
import contextlib
import copy
import csv
import decimal
import functools
import hashlib
import heapq
import io
import itertools
import json
import logging
import operator
import os
import random
import re
import sqlite3
import struct
import sys
import threading
import time
import xml.etree.ElementTree as ET
import zlib
from collections import Counter, defaultdict, deque

import pytest
from helpers.guard import Parser, Point, name_of, watch, watch_copies, wrapped_by_own

from parallax._guard.effects import scan

LOG: list = []
TABLE = {"a": 1, "b": 2}
CACHE: dict = {}
MODEL = None


@pytest.fixture(autouse=True)
def _fresh_state():
    global MODEL
    LOG.clear()
    CACHE.clear()
    MODEL = None


def square(x):
    return x * x


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
    add = lambda y: total.append(y)
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
    for a, b in zip(items, items):
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
    (square, 3), (split_and_sort, "b a"), (copy_first, [3, 2]),
    (sliced, [1, 2, 3]), (listed, (1, 2)), (count_words, "a b a"), (grouped, ["a", "bc"]),
    (halves, 9), (text_grows, "a"), (rebuilt, {"a": 1}), (dict_of, {"a": 1}),
    (deep_copied, {"list": []}), (from_json, {"text": '{"a": 1}'}), (parse, "a,b c,d"),
    (parse_slowly, "a,b"), (seeded, 3), (heap_local, [3, 1, 2]),
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


@pytest.mark.parametrize(("fn", "item"), HARMLESS, ids=[name_of(fn) for fn, _ in HARMLESS])
def test_harmless_idioms_are_free(fn, item):
    verdict = watch_copies(fn, item)
    assert verdict.limit == "free", verdict.reason


# ---------------------------------------------------------------- small real programs

PAT = re.compile(r"\w+")
STOP = frozenset({"a"})
log = logging.getLogger(__name__)


def names_in_source(p):
    with open(p, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    names = collections.Counter()
    for n in ast.walk(tree):
        if isinstance(n, ast.Name):
            names[n.id] += 1
        n.extra = 1
    return names.most_common(3)


def hash_in_blocks(b):
    h = hashlib.sha256()
    for i in range(0, len(b), 1024):
        h.update(b[i : i + 1024])
    return h.hexdigest()


def compress(b):
    c = zlib.compressobj()
    out = c.compress(b)
    out += c.flush()
    return len(out)


def database_in_memory(n):
    con = sqlite3.connect(":memory:")
    con.execute("create table t(x)")
    with con:
        con.executemany("insert into t values(?)", [(i,) for i in range(n)])
    cur = con.cursor()
    cur.execute("select sum(x) from t")
    r = cur.fetchone()[0]
    con.close()
    return r


def distinct_words(t):
    return {m.group(0).lower() for m in PAT.finditer(t)} - STOP


def csv_rows(t):
    rows = list(csv.DictReader(io.StringIO(t)))
    for r in rows:
        r["n"] = 1
    out = io.StringIO()
    w = csv.writer(out)
    w.writerow([1])
    return out.getvalue(), rows


def xml_tree(t):
    root = ET.fromstring(t)
    for e in root.iter("x"):
        e.set("a", "1")
        e.text = "z"
    root.append(ET.SubElement(root, "y"))
    return ET.tostring(root)


def estimate_pi(n):
    inside = 0
    draw = random.Random(n).random
    for _ in range(n):
        x, y = draw(), draw()
        if x * x + y * y < 1:
            inside += 1
    return 4 * inside / n


def sieve(n):
    s = bytearray([1]) * (n + 1)
    s[0:2] = b"\0\0"
    for i in range(2, int(n**0.5) + 1):
        if s[i]:
            s[i * i :: i] = bytearray(len(s[i * i :: i]))
    return sum(s)


def memo_inside(n):
    memo = {}

    def f(k):
        if k in memo:
            return memo[k]
        memo[k] = r = k if k < 2 else f(k - 1) + f(k - 2)
        return r

    return f(n)


def reachable(edges):
    g = collections.defaultdict(set)
    for a, b in edges:
        g[a].add(b)
        g[b].add(a)
    seen = set()
    stack = [edges[0][0]]
    while stack:
        v = stack.pop()
        if v in seen:
            continue
        seen.add(v)
        stack.extend(g[v] - seen)
    return len(seen)


def shortest_paths(g):
    dist = {0: 0}
    q = [(0, 0)]
    while q:
        d, u = heapq.heappop(q)
        for v, wt in g[u]:
            nd = d + wt
            if nd < dist.get(v, 1e9):
                dist[v] = nd
                heapq.heappush(q, (nd, v))
    return dist


def precise_root(x):
    with decimal.localcontext() as c:
        c.prec = 50
        return decimal.Decimal(x).sqrt()


def flatten(x):
    out = []

    def rec(v):
        if isinstance(v, list):
            for u in v:
                rec(u)
        else:
            out.append(v)

    rec(x)
    return out


def first_fibonacci(n):
    def g():
        a, b = 0, 1
        while True:
            yield a
            a, b = b, a + b

    return list(itertools.islice(g(), n))


class Tokens:
    KEYWORDS = {"if", "else"}

    def __init__(self, t):
        self.t = t
        self.i = 0
        self.out = []

    def run(self):
        while self.i < len(self.t):
            c = self.t[self.i]
            if c.isalpha():
                self.word()
            else:
                self.i += 1
        return self.out

    def word(self):
        s = self.i
        while self.i < len(self.t) and self.t[self.i].isalpha():
            self.i += 1
        w = self.t[s : self.i]
        self.out.append((w in self.KEYWORDS, w))


def tokens(t):
    return Tokens(t).run()


class Vec:
    __slots__ = ("x", "y")

    def __init__(self, x, y):
        self.x = x
        self.y = y

    def __add__(self, o):
        return Vec(self.x + o.x, self.y + o.y)

    def __iadd__(self, o):
        self.x += o.x
        self.y += o.y
        return self

    def scale(self, k):
        self.x *= k
        self.y *= k
        return self


def vectors(n):
    v = Vec(0, 0)
    for i in range(n):
        v += Vec(i, i)
        v = v + Vec(1, 1)
        v.scale(2)
    return v.x


class Model:
    def __init__(self, w):
        self.w = w
        self.bias = 1

    def predict(self, x):
        h = [a * b for a, b in zip(self.w, x)]
        h[0] += self.bias
        return self._act(h)

    def _act(self, h):
        for i in range(len(h)):
            h[i] = max(0, h[i])
        return h

    def __call__(self, x):
        return self.predict(x)


def predictions(x):
    return M.predict(x), M(x)


class Client:
    def __init__(self):
        self.session = {"h": 1}
        self.lock = threading.Lock()

    def get(self, u):
        with self.lock:
            h = dict(self.session)
        h["u"] = u
        return self.parse(h)

    @staticmethod
    def parse(h):
        h = h.copy()
        h.pop("u")
        return h


def answers(u):
    return CL.get(u)


def timed(fn):
    @functools.wraps(fn)
    def wrap(*a, **k):
        t = time.perf_counter()
        try:
            return fn(*a, **k)
        finally:
            log.debug("%s", time.perf_counter() - t)

    return wrap


def retried(n):
    def deco(fn):
        def wrap(*a, **k):
            for i in range(n):
                try:
                    return fn(*a, **k)
                except OSError:
                    if i == n - 1:
                        raise

        return wrap

    return deco


@timed
@retried(3)
def decorated_twice(x):
    return [x]


@contextlib.contextmanager
def collecting(x):
    state = [x]
    try:
        yield state
    finally:
        state.clear()


def own_context(x):
    with collecting(x) as s:
        s.append(1)
        return len(s)


def exit_stack(x):
    with contextlib.ExitStack() as st:
        f = st.enter_context(io.StringIO())
        f.write("x")
        return f.getvalue()


def packed(b):
    buf = bytearray(16)
    struct.pack_into("i", buf, 0, len(b))
    mv = memoryview(buf)
    mv[4:8] = b"abcd"
    return bytes(buf)


def nested(x):
    d = {"a": {"b": []}}
    d["a"]["b"].append(x)
    d["a"]["c"] = d["a"]["b"]
    return d


def by_key(recs):
    return sorted(recs, key=operator.itemgetter("a")), max(recs, key=lambda r: r["a"])["a"]


def groups_of(recs):
    out = {}
    for k, g in itertools.groupby(recs, key=lambda r: r["a"]):
        out[k] = list(g)
    return out


def new_lists(xs):
    ys = [x for x in xs]
    ys[0] = 5
    zs = xs + [1]
    zs.pop()
    ws = xs[:]
    ws.clear()
    vs = xs * 2
    vs.sort()
    us = list(map(str, xs))
    us.append("")
    return ys


def new_sets(xs):
    s = set(xs)
    s.discard(1)
    t = s | {2}
    t.add(3)
    u = s.copy()
    u.pop()
    f = frozenset(xs) | {1}
    return len(t)


def new_dicts(d):
    e = {k: v for k, v in d.items()}
    e["z"] = 1
    g = d | {"a": 2}
    g.pop("a")
    h = dict(d.items())
    h.clear()
    return e


def asynchronous(x):
    async def main():
        out = []

        async def one(i):
            out.append(i)
            return i

        r = await asyncio.gather(*(one(i) for i in range(3)))
        return out, r

    return asyncio.run(main())


M = Model([1, 2, 3])
CL = Client()


def own_descriptors(n):
    reading, writing = os.pipe()
    os.write(writing, bytes([n]))
    found = os.read(reading, 1)
    os.close(reading)
    os.close(writing)
    opened = os.open(os.devnull, os.O_RDONLY)
    try:
        os.write(1, b"")
        return found, os.read(opened, n), os.fstat(opened).st_size
    finally:
        os.close(opened)


PROGRAMS = [
    (own_descriptors, 3),
    (names_in_source, __file__),
    (hash_in_blocks, b"abc"),
    (compress, b"abc"),
    (database_in_memory, 3),
    (distinct_words, "a b"),
    (csv_rows, "a,b\n1,2"),
    (xml_tree, "<a><x/></a>"),
    (estimate_pi, 3),
    (sieve, 30),
    (memo_inside, 6),
    (reachable, [(1, 2)]),
    (shortest_paths, [[(0, 1)]]),
    (precise_root, 3),
    (flatten, [1, [2]]),
    (first_fibonacci, 3),
    (tokens, "if a"),
    (vectors, 3),
    (predictions, [1, 2, 3]),
    (answers, "u"),
    (decorated_twice, 3),
    (own_context, 3),
    (exit_stack, 3),
    (packed, b"a"),
    (new_lists, [1, 2]),
    (new_sets, [1, 2]),
    (new_dicts, {"a": 1}),
    (asynchronous, 3),
    (nested, 3),
    (by_key, [{"a": 1}]),
    (groups_of, [{"a": 1}]),
]


@pytest.mark.parametrize(("fn", "item"), PROGRAMS, ids=[name_of(fn) for fn, _ in PROGRAMS])
def test_small_programs_are_free(fn, item):
    verdict = watch_copies(fn, item)
    assert verdict.limit == "free", verdict.reason
    assert not scan(fn).findings


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

    assert watch(fills, range(1, 40)).limit == "process"
    for fn in (row, adds, out):
        assert watch(fn, range(1, 40)).limit == "loop", fn
    for fn in (item_in_place, item_view):
        assert watch(fn, [np.ones(3) for _ in range(4)]).limit == "process", fn
    for fn in (pure, copied):
        assert watch(fn, [np.ones(3) for _ in range(4)]).limit == "free", fn
    for fn in (np.sin, np.linalg.norm, data.sum):
        assert not scan(fn).findings
    assert scan(data.fill).findings
