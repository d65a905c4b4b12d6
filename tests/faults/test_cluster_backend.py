"""Clusters as backend, by one that pickles what it runs in threads of this process."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from jobs.no_copies import Stuck, Unreadable

from parallax import BackendMissingError, SerializationError, options, parallel, parallel_map
from parallax._backends.cluster_workers import AHEAD, Cluster


class Kept:
    def __init__(self, number):
        self.number = number


class Near(Cluster):
    parallax_name = "near"
    _max_workers = 2

    def __init__(self, versions=None):
        self.kept, self.sent, self.most = [], [], 0
        self._versions = versions
        self._pool = ThreadPoolExecutor(8)
        self._lock = threading.Lock()
        self._open = 0

    def share(self, obj):
        self.kept.append(pickle.loads(pickle.dumps(obj, 5)))
        return Kept(len(self.kept) - 1)

    def submit(self, fn, /, *args, **kwargs):
        with self._lock:
            self._open += 1
            self.most = max(self.most, self._open)
        future = self._pool.submit(self._run, pickle.dumps((fn, args, kwargs), 5))
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _):
        with self._lock:
            self._open -= 1

    def _run(self, data):
        self.sent.append(len(data))
        fn, args, kwargs = pickle.loads(data)
        if self._versions:
            args = (self._versions, *args[1:])
        given = [self.kept[each.number] if isinstance(each, Kept) else each for each in args]
        return pickle.loads(pickle.dumps(fn(*given, **kwargs), 5))


@pytest.fixture
def near():
    cluster = Near()
    yield cluster
    cluster._pool.shutdown()


def square(item):
    return item * item


def same(item):
    return item


def test_large_callable_is_handed_over_once_and_a_small_one_with_each_chunk(near):
    large = bytes(1_000_000)
    got = parallel_map(lambda item: item + len(large), range(200), backend=near, chunksize=5)
    assert got == [item + 1_000_000 for item in range(200)]
    assert len(near.kept) == 1
    assert len(near.sent) == 40
    assert max(near.sent) < 100_000
    assert "in 2 workers of near" in str(got.report)
    assert (got.report.backend, got.report.route, got.report.workers) == ("near", "executor", 2)
    assert parallel_map(square, range(9), backend=near) == [item * item for item in range(9)]
    assert len(near.kept) == 1


def test_a_few_chunks_more_than_run_are_on_their_way(near):
    parallel_map(square, range(100), backend=near, chunksize=1)
    assert 2 <= near.most <= 2 + AHEAD


@pytest.mark.parametrize(
    ("what", "items", "fn"),
    [
        ("item", [0, 1, Stuck(), 3, 4], same),
        ("item", [0, 1, Unreadable(), 3, 4], same),
        ("result", [0, 1, 2, 3, 4], lambda item: Stuck() if item == 2 else item),
        ("result", [0, 1, 2, 3, 4], lambda item: Unreadable() if item == 2 else item),
    ],
)
def test_what_does_not_travel_costs_its_item(near, what, items, fn):
    kept = parallel_map(fn, items, backend=near, on_error="return")
    error = kept.pop(2)
    assert isinstance(error, SerializationError)
    assert (error.what, error.index) == (what, 2)
    assert kept == [0, 1, 3, 4]
    with pytest.raises(SerializationError, match="item 2"):
        parallel_map(fn, items, backend=near)


@pytest.mark.parametrize("captured", [Stuck(), Unreadable()])
def test_callable_that_does_not_travel_ends_the_run(near, captured):
    with pytest.raises(SerializationError) as caught:
        parallel_map(lambda item: (item, captured), range(9), backend=near, on_error="return")
    assert caught.value.what == "callable"


def test_arrays_arrive_writable_and_errors_show_the_lines_of_the_worker(near):
    np = pytest.importorskip("numpy")

    def fill(array):
        array[:] = 1
        return array

    got = parallel_map(fill, [np.zeros(100_000) for _ in range(4)], backend=near)
    assert all(each.all() for each in got)

    def fails(item):
        raise KeyError(item)

    with pytest.raises(KeyError) as caught:
        parallel_map(fails, range(9), backend=near)
    assert "in fails" in str(caught.value.__cause__)


def test_calls_inside_of_items_are_loops(near):
    with options(backend="dask"):  # which is not installed, or has no client
        got = parallel_map(lambda n: sum(parallel_map(square, range(n))), [3, 4], backend=near)
    assert got == [5, 14]


def test_other_versions_are_named():
    near = Near("Python 2.7 and parallax 0.0")
    with pytest.raises(RuntimeError, match=r"cluster has Python 3.* program Python 2"):
        parallel_map(square, range(9), backend=near, on_error="return", retries=2)
    near._pool.shutdown()


def test_decorated_functions_and_seeds(near):
    @parallel(backend=near)
    def half(item):
        return item / 2

    assert half.map([2, 4]) == [1, 2]

    def draws(_):
        import random

        return random.random()

    expected = parallel_map(draws, range(9), backend="serial", seed=3)
    assert parallel_map(draws, range(9), backend=near, seed=3) == expected


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (
            {"backend": "desk"},
            ValueError,
            "unknown backend 'desk'; known backends: .*'dask', the",
        ),
        ({"resources": {"GPU": 1}}, ValueError, "backend='auto' has none. Pass backend='dask'"),
        ({"backend": "threads", "resources": {"GPU": 1}}, ValueError, "backend='threads' has none"),
        ({"backend": "dask", "resources": 3}, TypeError, "resources must be a dict"),
        ({"backend": "dask", "item_timeout": 3}, ValueError, "item_timeout cannot be kept"),
    ],
)
def test_misuse_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        parallel_map(square, range(9), **given)


def test_resources_as_default_are_for_clusters_only(near):
    with options(resources={"GPU": 1}):
        assert parallel_map(square, [2], backend="threads") == [4]
        assert parallel_map(square, [2], backend=near) == [4]


MISSING = """
import sys
from parallax import BackendMissingError, Executor, parallel_map
assert parallel_map(abs, [-1] * 3, backend="threads") == [1] * 3
assert not {"dask", "distributed", "ray", "parallax._backends.clusters"} & set(sys.modules)
sys.modules["distributed"] = None
for backend in ("dask", "tcp://127.0.0.1:8786"):
    for call in (parallel_map, lambda *args, backend: Executor(backend=backend)):
        try:
            call(abs, [1], backend=backend)
        except BackendMissingError as error:
            assert "pip install distributed" in str(error), error
        else:
            raise AssertionError(backend)
"""


def test_missing_package_is_named_with_the_line_that_installs_it():
    assert issubclass(BackendMissingError, ImportError)
    done = subprocess.run(
        [sys.executable, "-c", MISSING], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
