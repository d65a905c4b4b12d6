"""State of the program's modules in workers that import them anew: the answer is the loop's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: The end of each program.
RUN = """
if __name__ == "__main__":
    end = threading.Event()
    threading.Thread(target=end.wait).start()  # so that the program is not forked
    try:
        with options(start_method=METHOD):
            main()
    finally:
        end.set()
    print("done")
"""

SUBJECT = """
import collections, ctypes, datetime, decimal, enum, functools, logging, random, re, threading, uuid

MISSING = object()
class Marker:
    pass
MARKER = Marker()
class Level(enum.Enum):
    LOW = 1
TABLE = list(range(200_000))
SETTING = 1
NAMES = ["a"]
CONFIG = {"depth": {"a": [1]}}
RUN_ID = uuid.uuid4().hex
LIBC = ctypes.CDLL(None)
LOCK = threading.Lock()
EVENT = threading.Event()
PATTERN = re.compile("a+")
DIGITS = decimal.Decimal("1.5")
COUNTER = collections.Counter("aab")
logger = lock = connection = day = handlers = level = None
opened = 0

class Connection:
    pass

def connect():
    global connection, opened
    if connection is None:
        connection, opened = Connection(), opened + 1
    return opened

def set_up():
    global logger, day, handlers, level
    logger = logging.getLogger("subject.of.tests")
    day = datetime.date(2020, 2, 29)
    handlers = {"double": double}
    level = Level.LOW

def set_up_lock():
    global lock
    lock = threading.Lock()

def double(x): return 2 * x
def missing(x, default=MISSING): return default is MISSING
def marker(x, default=MARKER): return default is MARKER
def keyword(x, *, default=MISSING): return default is MISSING
def inside(x): return missing(x) and marker(x)
def setting(x): return SETTING
def names(x): return list(NAMES)
def config(x): return CONFIG["depth"]["a"]
def run_id(x): return RUN_ID
def libc(x): return LIBC.abs(-x)
def locked(x):
    with LOCK:
        return EVENT.is_set()
def plain(x): return PATTERN.match("aab").end(), DIGITS, COUNTER["a"]
def has_set_up(x): return logger.name, day.year, handlers["double"](x), level is Level.LOW
def takes_lock(x):
    with lock:
        return x
class Holder:
    def __init__(self, x): self.x = x
    def entry(self, x): return TABLE[x] + self.x
    def opened(self, x): return connect()
    def missing(self, x): return missing(x)
"""

CASES = """
import functools, pickle, sys, threading, time
import subject
from parallax import ProcessPoolExecutor, options, parallel_map
METHOD = sys.argv[1]

def same(work):
    "Workers give the loop's answer."
    wanted = [work(x) for x in range(4)]
    found = list(parallel_map(work, range(4), backend="processes", max_workers=2))
    assert found == wanted, (work, found, wanted)

def main():
    works = [subject.missing, subject.marker, subject.keyword, subject.inside, subject.setting,
             subject.names, subject.config, subject.run_id, subject.libc, subject.locked,
             subject.plain, subject.Holder(3).entry, subject.Holder(3).missing]
    for work in works * 2:
        same(work)
    subject.SETTING = 2
    same(subject.setting)
    subject.SETTING = 1
    same(subject.setting)
    subject.NAMES.append("b")
    subject.CONFIG["depth"]["a"].append(2)
    subject.TABLE[1] = 7
    for work in works:
        same(work)
    del subject.NAMES[1:]
    same(subject.names)
    first, subject.MISSING = subject.MISSING, "patched"
    same(subject.missing)
    subject.MISSING = first
    same(subject.missing)
    subject.set_up()
    same(subject.has_set_up)
    with options(start_method="spawn"):
        hashes = set(parallel_map(hash, ["key"] * 8, backend="processes", max_workers=2))
        assert len(hashes) == 1, "workers have one hash seed"
    subject.set_up_lock()
    def busy(x):
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass
        return subject.takes_lock(x)
    for _ in range(20):  # while other programs have the cores it stays for that reason
        found = parallel_map(busy, range(30), max_workers=2)
        assert found == list(range(30))
        said = "subject.lock is a _thread.lock that cannot travel" in str(found.report)
        if said or found.report.route != "loop":
            break
    else:
        raise AssertionError(str(found.report))

    with ProcessPoolExecutor(1) as executor:
        for work in works:
            assert executor.submit(work, 1).result() == work(1), work
        calls = [subject.Holder(x).opened for x in range(9)]
        calls += [functools.partial(call, 0) for call in calls]
        opened = {executor.submit(c, *[0] * hasattr(c, "__self__")).result() for c in calls}
        assert opened == {1}, "a connection of the worker's own stays open"
        def seconds(make):
            begin = time.perf_counter()
            assert executor.submit(make().entry, 5).result() >= 5
            return time.perf_counter() - begin
        seconds(lambda: subject.Holder(0))
        call = min(seconds(lambda: subject.Holder(1)) for x in range(30))
        begin = time.perf_counter()
        pickle.dumps(subject.TABLE, 5)
        assert call < max(0.0005, (time.perf_counter() - begin) / 2), "TABLE is sent with each call"
"""

CODE = """
import functools, collections
class Settings:
    debug = False
    opts = {"a": 1}
    @classmethod
    def get(cls): return cls.debug
class Base:
    scale = 1
class Item(Base):
    def __init__(s, x): s.x = x
    def value(s): return s.x * s.scale
    @property
    def prop(s): return s.x + 1
    @staticmethod
    def stat(x): return x + 10
Pt = collections.namedtuple("Point", "x y")
lam = lambda x: x + 1
def helper(x): return x
def deco(f):
    @functools.wraps(f)
    def w(*a): return f(*a) * 2
    return w
@deco
def decorated(x): return x
@functools.lru_cache(None)
def cached(x): return x
registry = {}
def register(name):
    def d(f): registry[name] = f; return f
    return d
@register("a")
def ra(x): return x
def f_debug(x): return Settings.debug
def f_get(x): return Settings.get()
def f_opts(x): return dict(Settings.opts)
def f_helper(x): return helper(x)
def f_item(x): return Item(x).value()
def f_prop(x): return Item(x).prop
def f_stat(x): return Item.stat(x)
def f_pt(x): return Pt(x, x)
def f_lam(x): return lam(x)
def f_deco(x): return decorated(x)
def f_cached(x): return cached(x)
def f_reg(x): return registry["b" if "b" in registry else "a"](x)
def f_mark(x): return getattr(helper, "mark", None)
def f_default(x, y=1): return x + y
"""

CODE_CASES = """
import importlib, sys, threading, time
from unittest import mock
import code_subject as subject
from parallax import ProcessPoolExecutor, SerializationError, options, parallel_map
METHOD = sys.argv[1]
FILE = subject.__file__

def same(work, why):
    wanted = [work(x) for x in range(4)]
    found = list(parallel_map(work, range(4), backend="processes", max_workers=2))
    assert found == wanted, (why, work, found, wanted)

def hundredfold(x):
    return x * 100

def main():
    works = [getattr(subject, name) for name in dir(subject) if name.startswith("f_")]
    for work in works:
        same(work, "as imported")
    subject.Settings.debug = True
    subject.Settings.opts["b"] = 2
    same(subject.f_debug, "class attribute")
    same(subject.f_get, "class method that reads it")
    same(subject.f_opts, "class attribute changed inside")
    subject.Base.scale = 3
    same(subject.f_item, "of a base class")
    subject.Item.scale = 4
    same(subject.f_item, "one that hides it")
    del subject.Item.scale
    same(subject.f_item, "and is gone again")
    for new in (lambda x: x + 7, hundredfold, subject.f_lam, abs):
        with mock.patch("code_subject.helper", new):
            same(subject.f_helper, "replaced function")
    same(subject.f_helper, "restored function")
    with mock.patch("code_subject.helper", return_value=3):
        try:
            same(subject.f_helper, "a mock")
        except SerializationError as error:  # as it may be
            assert "code_subject.helper is a unittest.mock.MagicMock" in str(error), error
        def busy(x):
            end = time.thread_time() + 0.01
            while time.thread_time() < end:
                pass
            return subject.f_helper(x)
        assert parallel_map(busy, range(30), max_workers=2) == [3] * 30
    for name, new, work in (
        ("Item.value", lambda self: -self.x, subject.f_item),
        ("Item.prop", property(lambda self: -self.x), subject.f_prop),
        ("Item.stat", staticmethod(lambda x: -x), subject.f_stat),
        ("lam", lambda x: -x, subject.f_lam),
        ("decorated", lambda x: -x, subject.f_deco),
        ("cached", lambda x: -x, subject.f_cached),
    ):
        for _ in range(2):
            with mock.patch(f"code_subject.{name}", new):
                same(work, f"replaced {name}")
            same(work, f"restored {name}")
    with mock.patch.dict(subject.registry, {"b": hundredfold}):
        same(subject.f_reg, "registry")
    subject.register("b")(lambda x: x - 5)
    same(subject.f_reg, "registry with a lambda")
    subject.helper.mark = 5
    same(subject.f_mark, "attribute of a function")
    subject.f_default.__defaults__ = (50,)
    same(subject.f_default, "defaults")
    points = parallel_map(subject.f_pt, range(4), backend="processes")
    assert all(isinstance(point, subject.Pt) for point in points)
    assert list(parallel_map(type, points, backend="processes")) == [subject.Pt] * 4

    with open(FILE) as file:
        text = file.read()
    assert "return x + 10" in text
    with open(FILE, "w") as file:
        newer = text.replace("return f(*a) * 2", "return f(*a)")
        file.write(newer.replace("return x + 10", "return x + 1000"))
    importlib.reload(subject)
    assert subject.f_stat(0) == 1000
    for name in dir(subject):
        if name.startswith("f_"):
            same(getattr(subject, name), "reloaded")
    with open(FILE, "w") as file:
        file.write(text.replace("return x + 10", "return x - 1"))
    with ProcessPoolExecutor(1) as executor:  # edited, and not reloaded
        try:
            assert executor.submit(subject.f_stat, 0).result() == 1000
        except SerializationError as error:
            assert "is other code than an import makes" in str(error), error
"""

LARGE = """
import array, collections
class Row:
    def __init__(self, x): self.x = x
FLAT = list(range(60_000))
TEXTS = [str(x) for x in range(30_000)]
BY_KEY = dict.fromkeys(range(60_000), 1)
NUMBERS = set(range(60_000))
NESTED = {str(x): [x, {"at": x}] for x in range(9000)}
ROWS = [Row(x) for x in range(5000)]
ARRAY = array.array("q", range(60_000))
BYTES = bytearray(200_000)
QUEUE = collections.deque(range(60_000))
FROZEN = tuple(range(60_000))
MIXED = ["", *range(60_000), [1, [2]]]
def flat(x): return FLAT[30_001], len(FLAT)
def texts(x): return TEXTS[15_001]
def by_key(x): return BY_KEY.get(30_001), next(iter(BY_KEY))
def numbers(x): return 30_001 in NUMBERS, len(NUMBERS)
def nested(x): return NESTED["4501"], len(NESTED)
def rows(x): return ROWS[2501].x
def array_(x): return ARRAY[30_001]
def bytes_(x): return BYTES[100_001]
def queue(x): return QUEUE[30_001]
def frozen(x): return FROZEN[30_001]
def mixed(x): return MIXED[-1], MIXED[30_000]
class Reads:
    def flat(self, x): return FLAT[30_001] + x
    def __call__(self, x): return FLAT[30_001] - x
"""

LARGE_CASES = """
import functools, sys, threading
import large_subject as subject
from parallax import options, parallel_map
from parallax._backends.processes.parent import captured_state
METHOD = sys.argv[1]
packed = []
pack = captured_state.pack

def noted(key, value):
    packed.append(key)
    return pack(key, value)

captured_state.pack = noted

def sent(work):
    "Workers give the loop's answer; whether the caller packed a value for that, and sent bytes."
    packed.clear()
    wanted = [work(x) for x in range(4)]
    found = parallel_map(work, range(4), backend="processes", max_workers=2)
    assert list(found) == wanted, (work, found, wanted)
    return bool(packed)

def swap(space, name, value):
    setattr(space, name, value)

def main():
    names = "flat texts by_key numbers nested rows array_ bytes_ queue frozen mixed".split()
    works = [getattr(subject, name) for name in names]
    for work in works:
        assert sent(work), work
    more = [subject.Reads().flat, functools.partial(subject.Reads().flat), subject.Reads()]
    for work in works + more:
        assert not sent(work), f"{work}: a value that workers have is packed again"
    for change, work in [
        (lambda: subject.FLAT.__setitem__(30_001, -1), subject.flat),
        (lambda: subject.FLAT.append(1), subject.flat),
        (lambda: subject.TEXTS.__setitem__(15_001, "changed"), subject.texts),
        (lambda: subject.BY_KEY.__setitem__(30_001, 2), subject.by_key),
        (lambda: subject.BY_KEY.__setitem__(0, subject.BY_KEY.pop(0)), subject.by_key),
        (lambda: subject.NUMBERS.discard(30_001), subject.numbers),
        (lambda: subject.NESTED["4501"][1].__setitem__("at", "changed"), subject.nested),
        (lambda: swap(subject.ROWS[2501], "x", "changed"), subject.rows),
        (lambda: subject.ARRAY.__setitem__(30_001, -1), subject.array_),
        (lambda: subject.BYTES.__setitem__(100_001, 1), subject.bytes_),
        (lambda: subject.QUEUE.__setitem__(30_001, -1), subject.queue),
        (lambda: swap(subject, "FROZEN", tuple(range(1, 60_001))), subject.frozen),
        (lambda: subject.MIXED[-1][1].append(3), subject.mixed),
        (lambda: swap(subject, "FLAT", list(range(60_000))), subject.flat),
    ]:
        change()
        assert sent(work), f"{work}: the change is not seen"
        assert not sent(work), work
"""


@pytest.mark.parametrize("method", ["zygote", pytest.param("spawn", marks=pytest.mark.full)])
@pytest.mark.parametrize("cases", [CASES, CODE_CASES, LARGE_CASES], ids=["data", "code", "large"])
@pytest.mark.skipif(sys.platform == "win32", reason="the C library by name")
def test_the_answer_is_the_loops(tmp_path, method, cases):
    """Also where the program has changed what an import of its modules would make."""
    if method == "zygote" and sys.platform != "linux":
        pytest.skip("there is no zygote")
    (tmp_path / "subject.py").write_text(SUBJECT)
    (tmp_path / "code_subject.py").write_text(CODE)
    (tmp_path / "large_subject.py").write_text(LARGE)
    (tmp_path / "cases.py").write_text(cases + RUN)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "cases.py"), method],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout == "done\n", done.stdout + done.stderr
