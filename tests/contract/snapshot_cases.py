"""Workers that are forks of the program know what the program knows: the answer is the loop's."""

import contextvars
import csv
import decimal
import functools
import importlib.util
import json
import locale
import mimetypes
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import parallax
from parallax import Executor, ProcessPoolExecutor, options, parallel_imap, parallel_map
from parallax._backends.processes.parent.known_objects import known_objects
from tests.helpers.leaks import Held, wait_until_clean

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are forked on Linux")

ITEMS = range(12)


@pytest.fixture(autouse=True)
def snapshot():
    with options(start_method="snapshot", backend="processes", max_workers=2):
        yield


def module(tmp_path, monkeypatch, text, name="snapshot_subject"):
    """A module of the program, imported from its folder."""
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


SUBJECT = """
    import functools
    class Settings: debug = False
    logger = None
    registry = {}
    def helper(x): return x
    def setup():
        global logger
        logger = print
    @functools.lru_cache(None)
    def table(): return object()
    def f(x): return helper(x), Settings.debug, logger is not None, sorted(registry)
"""


def test_the_modules_of_the_program_are_as_they_are_now(tmp_path, monkeypatch):
    """Attributes of classes, patched helpers, what a setup has set, registries, reloads."""
    m = module(tmp_path, monkeypatch, SUBJECT)
    m.Settings.debug = True
    m.registry["late"] = 1
    m.setup()
    with mock.patch("snapshot_subject.helper", lambda x: -x):
        expected = [m.f(x) for x in ITEMS]
        assert parallel_map(m.f, ITEMS) == expected
    (tmp_path / "snapshot_subject.py").write_text("def f(x): return 'new', x\n")
    os.utime(tmp_path / "snapshot_subject.py", (1, 1))
    importlib.invalidate_caches()
    importlib.reload(m)
    assert parallel_map(m.f, ITEMS) == [m.f(x) for x in ITEMS]


def test_a_module_from_a_path_and_one_made_by_hand(tmp_path):
    """Neither can be imported by a worker."""
    (tmp_path / "plug.py").write_text("calls = 7\ndef f(x): return x + calls\n")
    spec = importlib.util.spec_from_file_location("a_plugin", tmp_path / "plug.py")
    plugin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plugin)
    assert parallel_map(plugin.f, ITEMS) == [plugin.f(x) for x in ITEMS]
    made = types.ModuleType("made_by_hand")
    made.offset = 3
    sys.modules["made_by_hand"] = made
    try:
        assert parallel_map(lambda x: sys.modules["made_by_hand"].offset + x, ITEMS) == [
            x + 3 for x in ITEMS
        ]
    finally:
        del sys.modules["made_by_hand"]


def encoded_by_patch(x):
    return json.dumps({"x": {x}})


@pytest.fixture
def settings(monkeypatch):
    """Settings of libraries, changed at run time and taken back."""
    limit, dates = csv.field_size_limit(10**9), locale.setlocale(locale.LC_NUMERIC)
    monkeypatch.setattr(json.JSONEncoder, "default", lambda self, o: sorted(o))
    monkeypatch.setitem(mimetypes.types_map, ".plx", "text/x-plx")
    monkeypatch.setenv("SNAPSHOT", "1")
    umask = os.umask(0o27)
    with np.printoptions(precision=2), decimal.localcontext() as context:
        context.prec = 5
        yield
    os.umask(umask)
    csv.field_size_limit(limit)
    locale.setlocale(locale.LC_NUMERIC, dates)


VARIABLE = contextvars.ContextVar("snapshot", default="unset")


READS = [
    lambda x: hash("key") % 1000 + x,
    lambda x: csv.field_size_limit(),
    lambda x: str(np.array([1 / 3, x])),
    encoded_by_patch,
    lambda x: mimetypes.types_map.get(".plx"),
    lambda x: os.environ["SNAPSHOT"],
    lambda x: str(decimal.Decimal(1) / 3),
    lambda x: oct(os.umask(os.umask(0))),
    lambda x: [v for k, v in contextvars.copy_context().items() if k.name == "snapshot"],
    lambda x: sys.getrecursionlimit(),
    lambda x: os.getcwd(),
]


@pytest.mark.usefixtures("settings")
def test_settings_are_those_of_the_program():
    """Of libraries, of the process and of the context."""

    def read(x):
        return [read(x) for read in READS]

    token = VARIABLE.set("set")
    expected = [read(x) for x in ITEMS]
    assert parallel_map(read, ITEMS) == expected
    assert list(parallel_imap(read, ITEMS)) == expected
    VARIABLE.reset(token)


def test_caches_are_filled_and_captured_data_is_not_copied():
    """What the program has computed is there; an array arrives without being sent."""

    @functools.lru_cache
    def slow():
        return os.getpid()

    assert slow() == os.getpid()
    assert parallel_map(lambda x: slow(), ITEMS) == [os.getpid()] * len(ITEMS)
    big = np.arange(3_000_000.0)
    got = parallel_map(lambda x: float(big[x]), ITEMS)
    assert got == [float(x) for x in ITEMS]
    assert got.report.bytes_in < 100_000


def test_the_report_says_how_workers_started(monkeypatch):
    """By a fork, or why by none; the route "auto" goes on without one, and the option refuses."""

    def busy(x):
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass
        return x

    with options(start_method="auto", backend="auto"):
        report = parallel_map(busy, range(30)).report
        assert report.route != "processes" or report.start == "forked from the program"
        end = threading.Event()
        thread = threading.Thread(target=end.wait)
        thread.start()
        try:
            got = parallel_map(busy, range(30))
            assert got == list(range(30))
            assert got.report.start in {
                "",
                "not forked from the program: the program has 1 other thread",
            }
            with (
                options(start_method="snapshot", backend="processes"),
                pytest.raises(parallax.WorkerStartError, match="1 other thread"),
            ):
                parallel_map(abs, ITEMS)
        finally:
            end.set()
            thread.join()


def test_descriptors_of_the_program_are_not_kept_open():
    """Its pipes end when it closes them; objects that refer to one find nothing."""
    read, write = os.pipe()
    try:
        results = parallel_imap(lambda x: time.sleep(0.01) or x, range(200))
        next(results)
        os.close(write)
        assert os.read(read, 1) == b""
        results.close()
        found = parallel_map(lambda x: os.fstat(read).st_rdev, ITEMS)
        assert set(found) == {Path(os.devnull).stat().st_rdev}
    finally:
        os.close(read)


def test_nothing_of_the_program_is_finalized_or_written_twice(tmp_path):
    """Exit handlers, finalizers, ``__del__`` and buffers are the program's."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import atexit, gc, os, sys, weakref
            from parallax import options, parallel_map
            class Temporary:
                def __del__(self, write=os.write): write(1, b"del ")
            class Cycle: pass
            kept, cycle = Temporary(), Cycle()
            cycle.me, cycle.it = cycle, Temporary()
            weakref.finalize(kept, os.write, 1, b"finalize ")
            atexit.register(os.write, 1, b"exit ")
            log = open("log.txt", "w")
            log.write("once ")
            sys.stdout.write("buffered ")
            del cycle
            with options(start_method="snapshot", backend="processes", max_workers=2):
                got = parallel_map(lambda x: gc.collect() * 0 + x, range(9))
            assert got == list(range(9))
            sys.stdout.flush()
            gc.collect()
            """
        )
    )
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=50,
        check=True,
    )
    assert done.stderr == ""
    assert sorted(done.stdout.split()) == ["buffered", "del", "del", "exit", "finalize"]
    assert (tmp_path / "log.txt").read_text() == "once "


def test_many_calls_leave_nothing_behind():
    """No process, no descriptor."""
    assert parallel_map(abs, [-1, -2]) == [1, 2]
    before = Held.now()
    for _ in range(15):
        assert parallel_map(abs, range(-4, 0)) == [4, 3, 2, 1]
    assert wait_until_clean(before) == []


def test_threads_of_openblas_are_accounted_for():
    """They end before the fork, so a program that multiplies matrices can be forked."""
    a = np.ones((300, 300))
    assert (a @ a)[0, 0] == 300
    assert parallel_map(lambda x: float((a @ a)[0, x]), ITEMS) == [300.0] * len(ITEMS)


class Point:
    def __init__(self, x):
        self.x = x


POINTS = [Point(n) for n in range(12)]
TABLE = dict(enumerate(POINTS))
ARRAYS = [np.full(500_000, n, float) for n in range(12)]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("fn", "inputs"),
    [
        (lambda a: float(a[0] + a[-1]), (ARRAYS,)),
        (lambda a: float(a[0] + a[-1]), (tuple(ARRAYS),)),
        (lambda a: float(a.sum()), (np.array(ARRAYS),)),
        (lambda a: float(a.sum()), (np.array(ARRAYS)[:, ::-2],)),
        (lambda a: len(a), (dict.fromkeys(("a" * 1_000_000, "b" * 1_000_000)),)),
        (lambda kv: (kv[0], float(kv[1][0])), (dict(enumerate(ARRAYS)).items(),)),
        (lambda a: float(a[0]), (dict(enumerate(ARRAYS)).values(),)),
        (lambda i, a: i + float(a[-1]), (range(12), ARRAYS)),
        (lambda c, a: c + str(a[-1]), ("abcdefghijkl", np.array(ARRAYS))),
    ],
)
def test_items_that_were_there_are_not_sent(fn, inputs):
    """A list, a tuple, the rows of an array, parts of a dict, and several at once."""
    got = parallel_map(fn, *inputs)
    assert got == list(map(fn, *inputs))
    assert got.report.bytes_in < 20_000
    with options(chunksize=2, retries=1):  # and when they are sent once more
        assert parallel_map(fn, *inputs) == got


def test_items_that_were_exchanged_meanwhile_are_sent():
    """What the loop would have taken counts, not what the list held at the fork."""
    work = [0] * 400

    def on_done(count):
        work[-1] = "late"

    got = parallel_map(lambda x: x, work, progress=on_done, chunksize=1)
    assert got[-1] in {0, "late"}
    work = [Point(0) for _ in range(300)]
    stream = parallel_imap(lambda p: p.x, work, buffersize=8)
    next(stream)
    work[-1].x = 5
    assert [*stream][-1] == 5


def test_an_item_that_cannot_be_pickled_stays_in_the_process():
    """A lock must not be used by two processes, whether it travels or not."""
    work = [1, 2, 3, threading.Lock()]
    with pytest.raises(parallax.SerializationError, match=r"item 3 .*_thread\.lock"):
        parallel_map(lambda x: x, work)
    got = parallel_map(lambda x: x, work, on_error="return")
    assert got[:3] == [1, 2, 3]
    assert isinstance(got[3], parallax.SerializationError)

    def busy(lock):
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass
        return os.getpid()

    with options(start_method="auto", backend="auto"):
        assert {*parallel_map(busy, [threading.Lock() for _ in range(30)])} == {os.getpid()}


MISSING, DEFAULT, OTHERS = object(), Point(-1), {"a": [1]}


class Holder:
    nothing = Point(0)

    def __init__(self):
        self.own = [2]

    def find(self, x):
        return (self, self.own, Holder.nothing)[x % 3]


def found(x, default=MISSING):
    return default if x % 2 else DEFAULT


class Slotted:
    def __init__(self, point):
        self.point = point


def identities():
    captured, holder = {"k": 5}, Holder()
    return {
        "item": lambda p: p,
        "first level": lambda p: (p, p.x),
        "list": lambda p: [p.x, p],
        "dict": lambda p: {"p": p},
        "key": lambda p: {p: 1},
        "attribute": lambda p: Slotted(p),
        "named tuple": lambda p: decimal.Decimal(1).as_tuple()._replace(sign=p),
        "sentinel": lambda p: MISSING,
        "by a helper": lambda p: found(p.x),
        "captured": lambda p: captured,
        "attribute of a class": lambda p: Holder.nothing,
        "method": lambda p, find=holder.find: find(p.x),
        "partial": functools.partial(lambda o, p: (o, p), OTHERS),
        "twice": lambda p: (p, [p, [p]]),
        "class": lambda p: (Holder, found, json),
    }


def shape(result, mine):
    """A result with the numbers of the program's own objects in the place of these objects."""
    if id(result) in mine:
        return mine[id(result)]
    if isinstance(result, (list, tuple)):
        return [shape(each, mine) for each in result]
    if isinstance(result, dict):
        return [(shape(k, mine), shape(v, mine)) for k, v in result.items()]
    if isinstance(result, Slotted):
        return [shape(result.point, mine)]
    return repr(result) if isinstance(result, (int, float, str)) else type(result)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", identities())
def test_objects_that_were_there_come_back_as_themselves(name):
    """Items, and what the callable captured or reads, at the first level of results."""
    fn = identities()[name]
    cells = [c.cell_contents for c in getattr(fn, "__closure__", None) or ()]
    own = [*POINTS, MISSING, DEFAULT, OTHERS, Holder.nothing, Holder, found, json, *cells]
    for find in getattr(fn, "__defaults__", None) or ():
        own += [find.__self__, find.__self__.own]
    mine = {id(each): n for n, each in enumerate(own)}
    expected = [shape(fn(p), mine) for p in POINTS]
    assert [shape(r, mine) for r in parallel_map(fn, POINTS)] == expected
    if name == "item":
        pairs = [*zip(range(12), POINTS, strict=True)]
        assert [shape(r, mine) for r in parallel_map(lambda pair: pair[1], pairs)] == expected


def test_an_object_that_a_worker_has_changed_comes_back_changed():
    """And the program's own stays as it is."""

    def change(p):
        p.x += 100
        return p

    def fill(x):
        OTHERS["a"].append(x)
        return OTHERS

    def write(a):
        a[0] = -1
        return a

    assert [p.x for p in parallel_map(change, POINTS)] == [n + 100 for n in range(12)]
    assert [p.x for p in POINTS] == [*range(12)]
    assert all(r["a"][-1] == x for x, r in enumerate(parallel_map(fill, range(4), chunksize=1)))
    assert OTHERS == {"a": [1]}
    assert [(r[0], r[1]) for r in parallel_map(write, ARRAYS)] == [(-1, n) for n in range(12)]
    assert [a[0] for a in ARRAYS] == [*range(12)]
    same = parallel_map(lambda a: a, ARRAYS)
    assert all(r is a for r, a in zip(same, ARRAYS, strict=True))


STATE = ["import"]


def state(_=None):
    return [*STATE]


def remember(what):
    STATE.append(what)


@pytest.fixture
def program_state():
    yield STATE
    del STATE[1:]


def counted(x, calls=[0]):  # noqa: B006 - of the process
    calls[0] += 1
    time.sleep(0.01)
    return calls[0], os.getppid()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["pool", "executor", "adaptive", "limited"])
def test_workers_of_an_executor_have_the_state_of_its_first_call(kind, program_state):
    """As in the standard library where it forks; also those that start later."""
    method = "snapshot" if kind == "adaptive" else "auto"
    with options(start_method=method, backend="auto", max_workers=None):
        make = {
            "pool": lambda **given: ProcessPoolExecutor(2, **given),
            "executor": lambda **given: Executor(2, backend="processes", **given),
        }.get(kind, lambda **given: Executor(2, **given))
        before = Held.now()
        with make(initializer=remember, initargs=("initialized",)) as executor:
            program_state.append("before")
            # With a time limit each call of an adaptive executor runs in a process, from the first.
            adaptive = kind in {"adaptive", "limited"}
            calls = executor.options(item_timeout=60) if adaptive else executor
            assert calls.submit(state).result() == ["import", "before", "initialized"]
            program_state.append("after")
            if kind != "pool":
                executor.kill_workers()
            assert calls.submit(state).result() == ["import", "before", "initialized"]
            assert list(executor.map(abs, range(-3, 0))) == [3, 2, 1]
        with make(max_tasks_per_child=1) as executor:
            if not adaptive:
                # All are forks of the same process, although they are replaced after each call.
                found = [*executor.map(counted, range(8), chunksize=1)]
                assert [count for count, _ in found] == [1] * 8
                assert len({parent for _, parent in found}) == 1
        make().shutdown()
        assert wait_until_clean(before) == []


@pytest.mark.sampled(2)
@pytest.mark.parametrize("why", ["thread", "file", "option", "context"])
def test_an_executor_does_without_a_fork_where_it_would_be_wrong(why, program_state, tmp_path):
    """A second thread; an open file, which workers would not have; or the program wants another."""
    program_state.append("before")
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    if why == "thread":
        thread.start()
    file = (tmp_path / "log").open("w") if why == "file" else None
    context = multiprocessing.get_context("forkserver") if why == "context" else None
    method = "zygote" if why == "option" else "auto"
    try:
        with (
            options(start_method=method, backend="auto"),
            ProcessPoolExecutor(1, context) as executor,
        ):
            # The module is imported anew, unless the value of its list were sent along.
            mine = executor.submit(os.getpid).result()
            parent = int(executor.submit(parent_of, mine).result())
            assert parent not in {os.getpid(), 0}
            assert "zygote" in Path(f"/proc/{parent}/cmdline").read_text()
    finally:
        end.set()
        if thread.ident:
            thread.join()
        if file is not None:
            file.close()


def parent_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]


class Unbound:
    """As proxies of web frameworks outside of a request: whatever is asked fails."""

    def __getattribute__(self, name):
        raise RuntimeError(f"no request: {name}")


def test_looking_for_known_objects_runs_nobody_s_code(tmp_path, monkeypatch):
    """Neither that of a proxy nor that of a module which is to load at its first use."""
    (tmp_path / "on_demand.py").write_text("raise RuntimeError('loaded')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = importlib.util.find_spec("on_demand")
    lazy = importlib.util.module_from_spec(spec)
    importlib.util.LazyLoader(spec.loader).exec_module(lazy)

    proxy = Unbound()

    def touches(x, one=proxy):
        return (proxy if x < 0 else x), one, lazy if x < 0 else None

    known = [each for each, _ in known_objects(touches)]
    assert any(each is proxy for each in known)
    assert any(each is lazy for each in known)
    with pytest.raises(RuntimeError, match="loaded"):
        _ = lazy.anything
