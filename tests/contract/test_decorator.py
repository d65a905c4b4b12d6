"""@parallel on every backend: the loop's answer, and the module's own function in workers."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import pickle
import threading

import pytest
from helpers.backends import INSIDE, notes_of
from jobs import decorated as jobs
from jobs.decorated import Model, Wider

from parallax import Results, options, parallel, parallel_imap, parallel_map
from parallax._executors import executor

ITEMS = range(12)


@pytest.fixture
def _no_default_executors():
    """Those that ``submit`` makes live as long as the program; here as long as the test."""
    yield
    while executor._defaults:
        executor._defaults.popitem()[1].shutdown()


def test_map(backend):
    """Results in order, with a report that names the function."""
    got = jobs.square.map(ITEMS, backend=backend)
    assert got == [x * x for x in ITEMS]
    assert type(got) is Results
    assert got.report.callable == "square"
    assert jobs.add.map(ITEMS, [1, 2], backend=backend) == [1, 3]
    assert parallel_map(jobs.square, ITEMS, backend=backend) == got


def test_imap(backend):
    """Lazy; in order or as they come; the input may be endless."""
    got = jobs.square.imap(itertools.count(), backend=backend, buffersize=8)
    assert list(itertools.islice(got, 20)) == [x * x for x in range(20)]
    got.close()
    unordered = jobs.square.imap(ITEMS, ordered=False, backend=backend)
    assert sorted(unordered) == [x * x for x in ITEMS]
    assert list(parallel_imap(jobs.square, ITEMS, backend=backend)) == [x * x for x in ITEMS]


def test_imap_holds_the_call_s_order_option(backend):
    """``ordered=True`` is what it is without the word."""
    assert list(jobs.square.imap(ITEMS, ordered=True, backend=backend)) == [x * x for x in ITEMS]


@pytest.mark.parametrize("kind", [list, iter, tuple])
def test_starmap(backend, kind):
    """Tuples of arguments, one and more; lists and named tuples too; defaults may be left out."""
    tuples = kind([(1, 2), [3], "ab", (x for x in (5, 6))])
    assert jobs.pair.starmap(tuples, backend=backend) == [(1, 2), (3, 0), ("a", "b"), (5, 6)]


def test_starmap_long(backend):
    """Enough for chunks; with a report of the user's function."""
    got = jobs.add.starmap(((x, x) for x in range(3000)), backend=backend)
    assert got == [2 * x for x in range(3000)]
    assert type(got) is Results
    assert got.report.callable == "add"
    assert got.report.items == 3000
    assert jobs.add.starmap([], backend=backend) == []


def test_starmap_reads_its_input_once_and_late(backend):
    """It is not unzipped: a generator gives its tuples one by one, to its end."""
    taken = []

    def tuples():
        for x in range(50):
            taken.append(x)
            yield x, 1

    assert jobs.add.starmap(tuples(), backend=backend) == [x + 1 for x in range(50)]
    assert taken == list(range(50))


def test_starmap_with_a_tuple_of_another_length(backend):
    """The error is the call's, of that item; the others are not touched."""
    tuples = [(x, x) for x in range(9)]
    tuples[5] = (1, 2, 3)
    with pytest.raises(TypeError, match="takes from 1 to 2 positional arguments but 3") as info:
        jobs.add.starmap(tuples, backend=backend)
    assert any("5" in note for note in notes_of(info.value))
    got = jobs.add.starmap(tuples, backend=backend, on_error="return")
    assert isinstance(got[5], TypeError)
    assert [x for x in got if not isinstance(x, TypeError)] == [0, 2, 4, 6, 8, 12, 14, 16]
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        jobs.add.starmap([()], backend=backend)


def test_starmap_with_what_is_no_tuple(backend):
    """As ``itertools.starmap`` says it."""
    with pytest.raises(TypeError, match="'int' object is not iterable"):
        jobs.add.starmap([(1, 2), 5], backend=backend)
    with pytest.raises(TypeError, match="not iterable"):
        jobs.add.starmap(5, backend=backend)


def test_errors_keep_their_type(backend):
    """As without the decorator."""
    with pytest.raises(ZeroDivisionError) as info:
        jobs.inverse.map([1, 2, 0, 4], backend=backend)
    assert any("2" in note for note in notes_of(info.value))


def test_recursion_by_the_decorated_name(backend):
    """The name in the worker's module is the decorated function, and calls are plain ones."""
    assert jobs.fibonacci.map(range(12), backend=backend) == [
        0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89,
    ]  # fmt: skip


def test_methods(backend):
    """A bound method takes its object along, a class method its class."""
    assert Model(7).times.map([1, 2], backend=backend) == [7, 14]
    assert Wider(2).times.map([1, 2], backend=backend) == [200, 400]
    assert Model.times.map([Model(1), Model(2)], [5, 6], backend=backend) == [5, 12]
    assert Model(7).times.starmap([(1,), (2,)], backend=backend) == [7, 14]
    assert Model.over_class.map([1, 2], backend=backend) == [3, 6]
    assert Wider.over_class.map([1, 2], backend=backend) == [5, 10]
    assert Wider().over_class.map([1, 2], backend=backend) == [5, 10]
    assert Model.over_static.map([1, 2], backend=backend) == [2, 3]
    assert Model().under_static.map([1, 2], backend=backend) == [3, 4]
    assert Model.Inner().deep.map([1], backend=backend) == [(1, "deep")]


def test_local_functions(backend):
    """By value, with what they capture."""
    offset = 5

    @parallel(backend=backend)
    def local(x):
        return x + offset if x < 10 else local(x - 1)

    assert local.map(ITEMS) == [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 14, 14]
    assert parallel(lambda x: x + offset).map([1], backend=backend) == [6]


def test_caches_under_and_over(backend):
    """``functools.lru_cache`` on either side."""
    assert jobs.cached.map(ITEMS, backend=backend) == [x + 1 for x in ITEMS]
    assert parallel_map(jobs.cached_over, ITEMS, backend=backend) == [x + 1 for x in ITEMS]


def test_as_an_argument_and_a_result(backend):
    """Decorated functions travel as items and come back as themselves."""
    functions = [jobs.square, jobs.add, Model.over_class, Model.times]
    got = parallel_map(jobs.itself, functions, backend=backend)
    assert got == functions
    assert got[0] is jobs.square


@pytest.mark.variants("processes", "spawn")
@pytest.mark.parametrize(
    "fn",
    [
        jobs.counting,
        jobs.counting.__wrapped__,
        jobs.traced_counting,
        jobs.traced_counting.__wrapped__,
        Model.counting,
        Model().counting_too,
        lambda x: jobs.counting(x),
    ],
)
def test_the_state_in_a_worker_is_the_module_s_own(backend, fn):
    """By value, each would have globals of its own, and the module would see no call.

    ``calls_here`` is reached through the imported module, not through the function's globals.
    """
    before = jobs.calls_here()
    for pid, seen, counted in parallel_map(fn, [0] * 4, backend=backend):
        assert pid != os.getpid()
        assert counted == seen + 1
    assert jobs.calls_here() == before


@pytest.mark.variants("processes", "spawn")
def test_a_round_trip_through_plain_pickle_in_a_worker(backend):
    """The worker's pickles of it are references as well."""
    pickles = parallel_map(pickle.dumps, [jobs.square, Model.times], backend=backend)
    assert [pickle.loads(data) for data in pickles] == [jobs.square, Model.times]
    assert pickle.loads(pickles[0]) is jobs.square


@pytest.mark.variants("auto")
def test_side_effects_are_not_lost(backend):
    """The guard looks through decorated functions: the log is filled in this process."""
    for fn in (jobs.logged, jobs.calls_logged, jobs.maps_logged):
        jobs.LOG.clear()
        parallel_map(jobs.slowly(fn), range(30), backend=backend)
        times = 2 if fn is jobs.maps_logged else 1
        assert sorted(jobs.LOG) == sorted(list(range(30)) * times)
    jobs.LOG.clear()


@pytest.mark.variants("auto")
def test_hot_functions_leave_the_process(backend):
    """Measuring sees the user's function; the route is that of the bare one."""
    for _ in range(20):  # while other programs have the cores it may stay
        got = jobs.spinning_square.map(range(40), backend=backend)
        assert got == [x * x for x in range(40)]
        if got.report.route in {"processes", "threads"}:
            return
    pytest.fail(str(got.report))


def test_through_a_process_pool(make_pool):
    """``submit`` of the engine's executor, by reference and encoded once."""
    pool = make_pool(2)
    assert pool.submit(jobs.square, 3).result() == 9
    assert pool.submit(Model(3).times, 2).result() == 6
    assert pool.submit(Wider.over_class, 2).result() == 10
    assert list(pool.map(jobs.square, range(50))) == [x * x for x in range(50)]
    pid, before, after = pool.submit(jobs.counting, 0).result()
    assert (pid != os.getpid(), after) == (True, before + 1)
    assert pool.submit(jobs.counting.__wrapped__, 0).result()[0] != os.getpid()


@pytest.mark.usefixtures("_no_default_executors")
def test_submit(backend):
    """A real future of one call, with all arguments; errors keep their type."""
    future = jobs.add.options(backend=backend).submit(1, b=2)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result() == 3
    assert Model(7).times.options(backend=backend).submit(x=2).result() == 14
    assert Wider.over_class.options(backend=backend).submit(2).result() == 10
    assert Model.over_static.options(backend=backend).submit(2).result() == 3
    failed = jobs.inverse.options(backend=backend).submit(0)
    assert isinstance(failed.exception(), ZeroDivisionError)
    futures = [jobs.square.options(backend=backend).submit(x) for x in ITEMS]
    assert [future.result() for future in futures] == [x * x for x in ITEMS]


@pytest.mark.variants("threads")
@pytest.mark.usefixtures("_no_default_executors")
def test_submit_shares_executors(backend):
    """One for each pair of backend and number of workers, whatever else the options are."""
    functions = [
        jobs.add.options(backend=backend),
        jobs.square.options(backend=backend, retries=2),
        Model().times.options(backend=backend),
    ]
    for fn in functions:
        fn.submit(1).result()
    assert len(executor._defaults) == 1
    with options(backend=backend):
        jobs.add.submit(1).result()  # a default in force counts as well
    assert len(executor._defaults) == 1
    functions[0].options(max_workers=1).submit(1).result()
    assert len(executor._defaults) == 2


@pytest.mark.variants("executor")
@pytest.mark.usefixtures("_no_default_executors")
def test_submit_to_an_executor_that_was_named(backend):
    """It is used itself, and gets the user's own function."""
    name = parallel(backend=backend)(lambda: threading.current_thread().name).submit()
    assert name.result().startswith("ThreadPoolExecutor-")
    assert executor._defaults == {}


@pytest.mark.variants(*INSIDE)
def test_threads_share_the_state(backend):
    """In this process it is the module's state anyway."""
    before = jobs.calls_here()
    jobs.counting.map([0] * 5, backend=backend, max_workers=1)
    assert jobs.calls_here() == before + 5
