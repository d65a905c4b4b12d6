"""``Executor()`` finds out how calls are best run, and never changes what they mean."""

from __future__ import annotations

import functools
import operator
import os
import threading
import time
import warnings
from concurrent.futures import BrokenExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import jobs
import pytest
from helpers.executor_kinds import SOON
from jobs import pool as pool_jobs

import parallax
from parallax import Executor, SharedStateWarning
from parallax._core.cores import gil_enabled

pytestmark = [
    pytest.mark.skipif(parallax.cpu_count() < 2, reason="needs two cores"),
    pytest.mark.sampled(2),
]

HERE = os.getpid()
SEEN: list[int] = []
TOTAL = 0


def spin(x=0, seconds=0.005):
    """Hold the GIL; who ran it."""
    jobs.spin(seconds)
    return os.getpid()


def mark(x=0):
    jobs.spin(0.005)
    SEEN.append(x)
    return os.getpid()


def total(x):
    global TOTAL
    jobs.spin(0.002)
    TOTAL += x
    return os.getpid()


def put(x=0, out=None):
    jobs.spin(0.005)
    if out is not None:
        out.append(x)
    return os.getpid()


def apply(fn):
    return fn()


def timed(fn):
    """A decorator: all that it makes have the same code."""

    @functools.wraps(fn)
    def wrapper(*args):
        return fn(*args)

    return wrapper


def locked(n):
    jobs.spin(0.1)  # the verdict comes before the first result
    return threading.Lock()


class GilSamples:
    def __init__(self):
        self.seen = []
        self.last = None

    def add(self, x):
        jobs.spin(0.002)
        self.seen.append(x)

    def keep(self, x):
        jobs.spin(0.002)
        self.last = x

    def pure(self, x):
        jobs.spin(0.005)
        return os.getpid()


def results(futures):
    return [future.result(SOON) for future in futures]


def far(executor, fn=spin, *args):
    """Have a function's calls go to processes, however loaded the machine is."""
    if not gil_enabled():
        pytest.skip("without a GIL threads are as good")
    for _ in range(20):
        if set(results([executor.submit(fn, *args) for _ in range(20)])) - {HERE}:
            return
    pytest.fail(f"never left this process: {executor.report()}")


# -- where calls go --------------------------------------------------------------------------------


def test_pure_python_goes_to_processes():
    """What was submitted before the verdict follows it; the report says so."""
    for _ in range(20):  # while other programs have the cores it may come home again
        with Executor() as executor:
            first = results([executor.submit(spin) for _ in range(60)])
            far(executor)
            report = executor.report()
        if report.functions[0].route == "processes":
            break
    [function] = report.functions
    assert function.name == "spin"
    assert function.route == "processes"
    assert function.processes >= 1
    assert function.threads + function.processes >= 60
    assert "spin" in str(report)
    assert len(first) == 60


@pytest.mark.parametrize("workers", [None, 10])
def test_calls_that_meet(workers):
    """Ten calls wait for each other, the first of them while it is measured."""
    gate = threading.Barrier(10, timeout=SOON)
    with Executor(workers) as executor:
        assert sorted(results([executor.submit(gate.wait) for _ in range(10)])) == list(range(10))


def test_calls_that_wait_for_what_is_submitted_later():
    """An event that a call of another function sets."""
    event = threading.Event()
    with Executor() as executor:
        waiting = [executor.submit(event.wait, SOON) for _ in range(4)]
        executor.submit(event.set)
        assert results(waiting) == [True] * 4


def test_two_functions_have_their_own_routes():
    """One goes to processes, one stays."""
    for _ in range(20):  # while other programs have the cores it may come home again
        with Executor() as executor:
            far(executor)
            nothing = results([executor.submit(time.sleep, 0.001) for _ in range(30)])
            report = executor.report()
        assert nothing == [None] * 30
        if {f.name: f.route for f in report.functions} == {"spin": "processes", "sleep": "threads"}:
            return
    pytest.fail(str(report))


# -- side effects ----------------------------------------------------------------------------------


def test_appending_to_a_global_list():
    """Each call's effect is seen here."""
    SEEN.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SharedStateWarning)
        with Executor() as executor:
            futures = [executor.submit(mark, n) for n in range(30)]
    assert sorted(SEEN) == list(range(30))
    assert set(results(futures)) == {HERE}


@pytest.mark.parametrize("method", ["add", "keep"])
def test_a_bound_method_that_changes_its_object(method):
    """It is this object."""
    tally = GilSamples()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SharedStateWarning)
        with Executor() as executor:
            wait([executor.submit(getattr(tally, method), n) for n in range(20)])
    assert sorted(tally.seen) == (list(range(20)) if method == "add" else [])
    assert (tally.last is None) is (method == "add")


def hidden(x):
    """The code does not show that a list grows."""
    jobs.spin(0.003)
    operator.methodcaller("append", x)(SEEN)
    return os.getpid()


@pytest.mark.parametrize("how", ["map", "submit"])
def test_what_first_calls_are_seen_to_change(how):
    """Calls stay in this process, whose list it is."""
    SEEN.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SharedStateWarning)
        with Executor(max_workers=2) as executor:
            if how == "map":
                pids = {*executor.map(hidden, range(80))}
            else:
                pids = {*results([executor.submit(hidden, n) for n in range(80)])}
            [function] = executor.report().functions
    assert sorted(SEEN) == [*range(80)]
    assert pids == {HERE}
    assert "changes `SEEN` (seen at" in function.reason


def test_a_counter_warns_once():
    """Threads race for it, and processes would not count at all."""
    global TOTAL
    TOTAL = 0
    with warnings.catch_warnings(record=True) as caught, Executor(1) as executor:
        warnings.simplefilter("always")
        pids = results([executor.submit(total, 1) for _ in range(20)])
    assert TOTAL == 20
    assert set(pids) == {HERE}
    assert [w.category for w in caught] == [SharedStateWarning]


def test_callables_as_arguments_are_told_apart():
    """A harmless one says nothing of another of the same type."""
    SEEN.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SharedStateWarning)
        with Executor() as executor:
            far(executor, apply, spin)
            futures = [executor.submit(apply, mark) for _ in range(10)]
            futures += [executor.submit(apply, functools.partial(mark, 1)) for _ in range(10)]
            assert set(results(futures)) == {HERE}
    assert len(SEEN) == 20


def test_decorated_functions_are_told_apart():
    """Though their code is the same."""
    SEEN.clear()
    harmless, harmful = timed(spin), timed(mark)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SharedStateWarning)
        with Executor() as executor:
            far(executor, harmless)
            assert set(results([executor.submit(harmful) for _ in range(10)])) == {HERE}
    assert len(SEEN) == 10


def test_defaults_are_told_apart():
    """``lambda f=f: f()`` in a loop."""
    SEEN.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SharedStateWarning)
        with Executor() as executor:
            for fn in (spin, mark):
                call = lambda fn=fn: fn()
                for _ in range(3):
                    results([executor.submit(call) for _ in range(10)])
    assert len(SEEN) == 30


@pytest.mark.parametrize("named", [True, False])
def test_keywords_are_told_apart(named):
    """What is given by name changes what a call does, too."""
    out: list[int] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SharedStateWarning)
        with Executor() as executor:
            for _ in range(3):
                results([executor.submit(put, x=1) for _ in range(20)])
            if named:
                calls = [executor.submit(put, x=n, out=out) for n in range(10)]
            else:
                calls = [executor.submit(functools.partial(put, out=out), n) for n in range(10)]
            assert set(results(calls)) == {HERE}
    assert sorted(out) == list(range(10))


# -- what cannot travel ----------------------------------------------------------------------------


def test_what_cannot_travel_stays():
    """Arguments, results, closures: their calls succeed, in this process."""
    lock = threading.Lock()

    def guarded(x):
        jobs.spin(0.005)
        with lock:
            return x

    def take(x):
        jobs.spin(0.005)
        return x is not None

    with Executor() as executor:
        assert results([executor.submit(guarded, n) for n in range(20)]) == list(range(20))
        assert results([executor.submit(take, lock) for _ in range(20)]) == [True] * 20
        far(executor, spin)
        mixed = [executor.submit(spin, n if n % 2 else lock) for n in range(20)]
        assert set(results(mixed[::2])) == {HERE}
        assert len(results(mixed[1::2])) == 10


def test_results_that_cannot_travel():
    """Calls that were sent before a result was seen are run again here; later ones stay."""
    with Executor(2) as executor:
        for _ in range(2):
            for lock in results([executor.submit(locked, n) for n in range(6)]):
                assert lock.acquire(blocking=False)
        [function] = executor.report().functions
    assert function.route == "threads"


def locked_error(n):
    jobs.spin(0.02)
    if n == 15:
        raise LockedError
    return n


class LockedError(Exception):
    def __init__(self):
        super().__init__("it stays where it is")
        self.lock = threading.Lock()


def test_an_exception_that_cannot_travel():
    """It is raised as it is, like the one of any other call that runs here."""
    with Executor(2) as executor:
        futures = [executor.submit(locked_error, n) for n in range(30)]
        for n, future in enumerate(futures):
            if n == 15:
                with pytest.raises(LockedError) as raised:
                    future.result(30)
                assert raised.value.lock.acquire(blocking=False)
            else:
                assert future.result(30) == n


@pytest.mark.parametrize(
    "fn",
    [
        jobs.Adder(3),
        jobs.Adder(3).method,
        functools.partial(jobs.add, 3),
        functools.partial(jobs.add, b=3),
        lambda x: x + 3,
        (3).__add__,
    ],
    ids=["object", "method", "partial", "keyword", "lambda", "builtin"],
)
def test_kinds_of_callables(fn):
    """All are run, many times."""
    with Executor() as executor:
        for _ in range(3):
            assert results([executor.submit(fn, n) for n in range(40)]) == list(range(3, 43))
        assert executor.submit(dict, a=1).result(SOON) == {"a": 1}
        assert executor.submit(put, x=1).result(SOON)


# -- max_workers -----------------------------------------------------------------------------------


def running(folder, slot, work, seconds):
    """Say that it runs, by a file; how many others did meanwhile."""
    mine = os.open(f"{folder}/{slot}", os.O_CREAT | os.O_EXCL)
    os.close(mine)
    count = len(os.listdir(folder))
    work(seconds)
    count = max(count, len(os.listdir(folder)))
    Path(folder, str(slot)).unlink()
    return count


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_more_calls_run_at_a_time(workers, tmp_path):
    """In threads and processes together, while routes are found and change."""
    folder = str(tmp_path)

    def most(slot, seconds):
        return running(folder, slot, jobs.spin, seconds)

    def nap(slot):
        return running(folder, slot, time.sleep, 0.002)

    with Executor(workers) as executor:
        futures = []
        for slot in range(0, 200, 4):
            futures.append(executor.submit(most, slot, 0.003))
            futures.append(executor.submit(nap, slot + 1))
            if slot % 40 == 0:  # new functions, each to be measured
                other = functools.partial(nap, slot + 2)
                futures.append(executor.submit(other))
                futures.append(executor.submit(lambda s=slot: most(s + 3, 0.003)))
        assert max(results(futures)) <= workers


# -- initializers and deaths -----------------------------------------------------------------------


def test_initializer_runs_once_per_worker(tmp_path):
    """In threads and in processes."""
    log = str(tmp_path / "log")

    def setup(path):
        pool_jobs.note(path, threading.get_ident() + os.getpid())

    with Executor(2, initializer=setup, initargs=(log,)) as executor:
        far(executor)
        results([executor.submit(time.sleep, 0.001) for _ in range(10)])
    noted = pool_jobs.noted(log)
    assert 2 <= len(noted) <= 4
    assert len(set(noted)) == len(noted)


def fails_anywhere():
    raise ValueError("not today")


def fails_elsewhere(pid):
    if os.getpid() != pid:
        raise ValueError("not today")


@pytest.mark.parametrize("where", ["anywhere", "elsewhere"])
@pytest.mark.parametrize("workers", [2, None])
def test_initializer_that_fails(where, workers, caplog):
    """Every call fails with it, whether it was submitted before or after."""
    if where == "elsewhere" and not gil_enabled():
        pytest.skip("threads of this process are taken")
    initializer = {"anywhere": fails_anywhere, "elsewhere": fails_elsewhere}[where]
    initargs = () if where == "anywhere" else (HERE,)
    errors, futures = [], []
    with Executor(workers, initializer=initializer, initargs=initargs) as executor:
        for _ in range(100):
            try:
                futures = [executor.submit(spin, n) for n in range(20)]
            except BrokenExecutor as error:
                errors.append(error)
                break
            wait(futures, timeout=SOON)
            errors += [f.exception(0) for f in futures if f.exception(0)]
    assert errors
    assert all(isinstance(error, BrokenExecutor) for error in errors)
    assert {type(error.__cause__) for error in errors} == {ValueError}
    with pytest.raises((BrokenExecutor, RuntimeError)):
        executor.submit(spin)


def test_a_worker_that_dies_fails_its_own_call():
    """The executor lives on."""

    def maybe(n):
        jobs.spin(0.005)
        if n == 7 and os.getpid() != HERE:
            os._exit(3)
        return n

    with Executor(2) as executor:
        for _ in range(3):
            results([executor.submit(maybe, n) for n in range(5)])
        futures = [executor.submit(maybe, n) for n in range(20)]
        wait(futures, timeout=SOON)
        for n, future in enumerate(futures):
            error = future.exception(0)
            assert error is None or (n == 7 and isinstance(error, BrokenProcessPool))
        assert executor.submit(maybe, 3).result(SOON) == 3


# -- surroundings ----------------------------------------------------------------------------------


def test_options_around_it():
    """They say what was not said."""
    with parallax.options(backend="threads", max_workers=3), Executor() as executor:
        assert executor._max_workers == 3
        assert set(results([executor.submit(spin) for _ in range(20)])) == {HERE}
        assert "threads" in str(executor.report())
    with parallax.options(backend="threads"), Executor(backend="processes") as executor:
        assert executor.submit(os.getpid).result(SOON) != HERE


def nested(n):
    with Executor(2) as executor:
        return sum(executor.map(jobs.square, range(n)))


@pytest.mark.parametrize("name", ["threads", "processes", "auto"])
def test_inside_an_item(name):
    """Items make executors of their own, in whatever worker they run."""
    expected = [sum(k * k for k in range(n)) for n in range(12)]
    assert list(parallax.parallel_map(nested, range(12), backend=name)) == expected
    with Executor(backend=name) as executor:
        assert list(executor.map(nested, range(12))) == expected


@pytest.mark.parametrize("first", ["short", "long", "cpu", "waits"])
def test_calls_that_change_their_minds(first):
    """Whatever the first calls were like, all have their results."""

    def work(n, what):
        if what == "long":
            jobs.spin(0.01)
        elif what == "cpu":
            jobs.spin(0.003)
        elif what == "waits":
            time.sleep(0.003)
        return n

    then = {"short": "long", "long": "short", "cpu": "waits", "waits": "cpu"}[first]
    with Executor() as executor:
        for what in (first, then, first):
            calls = [executor.submit(work, n, what) for n in range(60)]
            assert results(calls) == list(range(60))
        [function] = executor.report().functions
    assert function.threads + function.processes <= 180
    assert function.route is not None
