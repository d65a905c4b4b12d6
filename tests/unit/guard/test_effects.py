"""The guard: what it finds in code, what it sees while items run, and what follows from both.

KINDS holds each kind of side effect with its harmless twin. Many more harmless idioms stand in
`test_effects_idioms`, and changes that are easy to overlook in `test_effects_missed`.
"""
# ruff: noqa: RUF012, F821

import array
import codecs
import csv
import functools
import importlib
import io
import operator
import os
import pickle
import queue
import sched
import tarfile
import types
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib

import numpy as np
import pytest
from helpers.guard import Node, watch

from parallax._guard import effects as _effects
from parallax._guard import lookup
from parallax._guard.effects import Effects, Finding, Observer, judge, scan
from parallax._guard.frame import TooBig
from parallax._guard.scan import Scan
from parallax._routing.route_limits import RouteLimits

NUMBERS = range(1, 40)


# ---------------------------------------------------------------- one pair for each kind

LOG: list = []
TABLE = {"a": 1, "b": 2}
CACHE: dict = {}
MODEL = None
TOTAL = 0
SCALE = 3


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


@functools.cache
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


def reads_table(x):
    return [key for key, value in TABLE.items() if value == x] + sorted(TABLE)


def every_third(x):
    if x % 3 == 1:
        LOG.append(x)


# kind, callable, limit, twin without the side effect, items
KINDS = [
    ("module function", append_to_global, "loop", square, NUMBERS),
    ("lambda", lambda x: LOG.append(x), "loop", lambda x: x + SCALE, NUMBERS),
    (
        "partial",
        functools.partial(helper_appends, LOG),
        "loop",
        functools.partial(pow, 2),
        NUMBERS,
    ),
    ("closure over an int", CLOSED.over_nonlocal, "loop", CLOSED.over_int, NUMBERS),
    ("closure over a read dict", CLOSED.over_list, "loop", CLOSED.over_dict, NUMBERS),
    ("closure over a list", CLOSED.over_list, "loop", CLOSED.over_list_read, NUMBERS),
    ("memo by item", memo_by_item, "process", lazy_model, NUMBERS),
    ("memo by item, keyed table", memo_by_item, "process", lazy_table, NUMBERS),
    ("lru_cache", memo_by_item, "process", cached, NUMBERS),
    ("lru_cache in a helper", memo_by_item, "process", calls_cached, NUMBERS),
    ("global", count_globally, "loop", read_global, NUMBERS),
    ("nonlocal", CLOSED.over_nonlocal, "loop", CLOSED.inner_nonlocal, NUMBERS),
    ("bound method", Accumulator().add, "loop", Accumulator(3).scaled, NUMBERS),
    ("queue", CLOSED.puts, "loop", CLOSED.local_queue, NUMBERS),
    ("queue.put itself", queue.Queue().put, "loop", [1].count, NUMBERS),
    ("SimpleQueue.put itself", queue.SimpleQueue().put, "loop", {1: 2}.get, NUMBERS),
    ("callable instance", Accumulator(), "loop", Scaler(3), NUMBERS),
    ("class", Registered, "loop", Plain, NUMBERS),
    ("default argument", default_log, "loop", default_read, NUMBERS),
    ("function attribute", attribute_on_itself, "loop", attribute_read, NUMBERS),
    ("class attribute", Accumulator().bump_class, "loop", Accumulator(2).scaled, NUMBERS),
    ("shared list", Accumulator().share, "loop", Accumulator(2).scaled, NUMBERS),
    ("array element", CLOSED.over_array, "process", CLOSED.over_array_read, NUMBERS),
    ("the item", mark_done, "process", read_done, [Node(k) for k in range(9)]),
    ("deep in the item", append_child, "process", read_done, [Node(k) for k in range(9)]),
    ("two levels deep", Accumulator().deep, "loop", Accumulator().deep_read, NUMBERS),
    ("from item 20 on", from_item_20, "loop", branch_at_item_20, NUMBERS),
    ("helper", through_helper, "loop", through_helper_locally, NUMBERS),
    ("os.environ", sets_environ, "loop", reads_environ, NUMBERS),
    ("list.append itself", LOG.append, "loop", LOG.count, NUMBERS),
]


@pytest.fixture(autouse=True)
def _fresh_state(monkeypatch):
    global MODEL, TOTAL
    monkeypatch.setenv("PARALLAX_TEST_EFFECT", "")
    LOG.clear()
    CACHE.clear()
    MODEL, TOTAL = None, 0


@pytest.mark.parametrize(
    ("fn", "limit", "items"), [row[1:3] + row[4:] for row in KINDS], ids=[row[0] for row in KINDS]
)
def test_side_effect_is_held(fn, limit, items):
    verdict = watch(fn, items)
    assert verdict.limit == limit
    assert verdict.finding is not None
    assert str(verdict.finding) in verdict.reason


@pytest.mark.parametrize(("fn", "items"), [row[3:] for row in KINDS], ids=[row[0] for row in KINDS])
def test_twin_without_it_is_free(fn, items):
    verdict = watch(fn, items)
    assert verdict.limit == "free", verdict.reason
    assert verdict.settled


@pytest.mark.parametrize("row", KINDS, ids=[row[0] for row in KINDS])
def test_side_effect_is_seen_without_a_sample(row):
    assert scan(row[1]).findings


# ---------------------------------------------------------------- words


def test_reason_names_function_target_and_line():
    verdict = judge(scan(append_to_global, (3,)), (True,))
    line = append_to_global.__code__.co_firstlineno + 1
    assert verdict.reason == (
        f"`append_to_global` appends to `LOG` (line {line}); "
        "return the value instead, or pass backend='processes' if nobody needs it"
    )


WORDS = [
    (count_globally, "adds to", "global TOTAL"), (Accumulator().add, "adds to", "self.n"),
    (mark_done, "sets an attribute of", "the item"), (CLOSED.over_nonlocal, "adds to",
    "nonlocal total"), (sets_environ, "assigns an item of", "os.environ"),
    (default_log, "appends to", "log"), (Accumulator().deep, "appends to", "self.inner.log"),
    (attribute_on_itself, "adds to", "attribute_on_itself.calls"),
    (Registered, "appends to", "Registered.instances"), (lazy_model, "rebinds", "global MODEL"),
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
        ((finding(constant=True),), (False,), "process", False),
        ((finding(constant=True),), (False, False), "free", True),
        ((finding(constant=True), finding()), (False, False, False), "process", True),
        ((finding(constant=True), finding(guarded=True)), (True, False), "process", False),
        ((finding(constant=True), finding(guarded=True)), (True, False, False), "free", True),
        ((finding(guarded=True, constant=True),), (True, False), "free", True),
        ((finding(guarded=True, constant=True),), (False,), "process", False),
        ((finding(guarded=True, constant=True),), (False, False), "free", True),
    ],
)
def test_table(findings, history, limit, settled):
    verdict = judge(Effects(findings), history)
    assert (verdict.limit, verdict.settled) == (limit, settled)
    assert bool(verdict.reason) == bool(findings)


def test_opaque_code_stays_in_the_process():
    assert judge(Effects(opaque=True), (False,) * 5).limit == "process"
    assert judge(Effects((finding("update"),), opaque=True), ()).limit == "loop"


def test_code_made_at_run_time():
    """It may change its globals, unless it was given some of its own."""

    def runs_text(x):
        exec("LOG.append(1)")

    def evaluates(x):
        return eval("LOG.append(x)", globals())

    def calculates(x):
        return eval("x * 2", {"x": x})

    assert [judge(scan(fn, (1,)), ()).limit for fn in (runs_text, evaluates)] == ["loop"] * 2
    assert judge(scan(calculates, (1,)), ()).limit == "free"


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
    # Of functions it is compared what a worker has of them.
    helped = scan(through_helper_locally, (1,)).reads
    assert all(callable(globals()[name]) for _, name in helped)
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
        return x == TOUCHY, [*TOUCHY], x in TOUCHY

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


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "module", ["argparse", "asyncio.tasks", "contextlib", "dataclasses", "html.parser", "textwrap"]
)
def test_no_code_is_too_odd(module, monkeypatch):
    """Every kind of statement that the standard library uses is understood, or taken as too big."""
    monkeypatch.setattr(lookup, "is_own_code", lambda filename: True)
    found = importlib.import_module(module)
    space = [*vars(found).values()]
    space += [fn for cls in space if isinstance(cls, type) for fn in vars(cls).values()]
    seen = 0
    for fn in space:
        if isinstance(fn, types.FunctionType) and fn.__module__ == module:
            seen += 1
            try:
                Scan(fn, (None,) * 3, 2_000).run()
            except TooBig:
                continue
    assert seen > 10


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


def test_views_of_every_second_byte_are_watched():
    every_second = memoryview(bytearray(8))[::2]

    def store(x):
        every_second[0] = x

    assert observe(store, 1, 2, 2) == (True, True, False)


def test_state_that_cannot_be_watched_counts_as_changed():
    waiting = queue.SimpleQueue()

    def put_some(x):
        for each in range(x):
            waiting.put(each)

    assert observe(put_some, 1, 0, 0) == (True, True, True)


def test_observer_survives_a_container_that_fails_to_be_read():
    class Odd(dict):
        def values(self):
            raise AssertionError

    odd = Odd()

    def store(x):
        odd["a"] = x

    assert observe(store, 1, 2) == (True, True)


def test_partials_that_bind_more_are_looked_at_anew():
    def put(x, out=None):
        if out is not None:
            out.append(x)

    assert scan(functools.partial(put, 1), ()).findings == ()
    assert scan(functools.partial(put, 1, out=[]), ()).findings
    assert scan(functools.partial(put, 1, []), ()).findings
    assert scan(functools.partial(put, out=[]), (1,)).findings


class Stateful:
    """Objects of the standard library that items go on with, and settings of all its users."""

    @staticmethod
    def archive():
        made = tarfile.open(fileobj=io.BytesIO(), mode="w")  # noqa: SIM115
        return lambda n: made.addfile(tarfile.TarInfo(str(n)))

    @staticmethod
    def zipped():
        made = zipfile.ZipFile(io.BytesIO(), "w")
        return lambda n: made.writestr(str(n), "x")

    @staticmethod
    def compressor():
        made = zlib.compressobj()
        return lambda n: made.compress(b"%d" % n)

    @staticmethod
    def decoder():
        made = codecs.getincrementaldecoder("utf-8")()
        return lambda n: made.decode(bytes([n]))

    @staticmethod
    def pickler():
        made = pickle.Pickler(io.BytesIO())
        return lambda n: made.dump(n)

    @staticmethod
    def seeds():
        made = np.random.SeedSequence(1)
        return lambda _: made.spawn(1)

    @staticmethod
    def scheduler():
        made = sched.scheduler()
        return lambda n: made.enter(n, 1, print)

    @staticmethod
    def dialect():
        return lambda n: csv.register_dialect(str(n))

    @staticmethod
    def namespace():
        return lambda n: ElementTree.register_namespace("x", str(n))


@pytest.mark.parametrize("name", [name for name in vars(Stateful) if name[0] != "_"])
def test_objects_and_settings_of_the_standard_library(name):
    """Threads would mix what they do, and workers would keep it."""
    assert judge(scan(getattr(Stateful, name)(), (1,)), (True,)).limit != "free"


class Step:
    """Its method counts all calls."""

    total = 0

    def run(self, by=1):
        Step.total += by
        return Step.total


@pytest.mark.parametrize("fn", [operator.methodcaller("run"), operator.methodcaller("run", by=2)])
def test_a_call_by_the_name_of_a_method(fn):
    """The method is looked into; one of an installed class has nothing to look into."""
    limits = RouteLimits(fn, ())
    limits.inspect((Step(),))
    assert limits.verdict.limit == "loop"
    assert lookup.called_method(operator.methodcaller("upper"), "text") is not str.upper
