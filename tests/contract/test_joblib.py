"""The joblib backend: what joblib promises of any, and that its work is routed."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time

import jobs
import numpy as np
import pytest

joblib = pytest.importorskip("joblib", minversion="1.4")
pytest.importorskip("threadpoolctl")  # sets a variable of the environment when it is imported
from parallax._core.cores import gil_enabled  # noqa: E402
from parallax.integrations import joblib as integration  # noqa: E402


@pytest.fixture(autouse=True)
def _active():
    """The backend is the active one; no executor of it is left."""
    integration.register()
    with joblib.parallel_config(backend="parallax"):
        yield
    integration.close()


def each(fn, items, n_jobs=2, **options):
    return joblib.Parallel(n_jobs=n_jobs, **options)(joblib.delayed(fn)(x) for x in items)


@pytest.mark.parametrize("n_jobs", [1, 2, 3, -1, None])
@pytest.mark.parametrize("batch_size", ["auto", 1, 7])
def test_results_in_order(n_jobs, batch_size):
    assert each(jobs.square, range(40), n_jobs, batch_size=batch_size) == [x * x for x in range(40)]


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_generators(return_as):
    found = each(jobs.nap_square, range(12), return_as=return_as)
    assert sorted(found) == [x * x for x in range(12)]


def test_the_first_error_ends_the_call():
    """As itself; what has begun is ended, and the next call works."""
    begun = time.perf_counter()
    with pytest.raises(jobs.Oops):
        each(oops_or_sleep, range(200))
    assert time.perf_counter() - begun < 60
    assert each(jobs.square, range(5)) == [0, 1, 4, 9, 16]


def oops_or_sleep(x):
    if x == 3:
        raise jobs.Oops(x)
    time.sleep(0.2)


def test_a_time_limit():
    with pytest.raises(multiprocessing.TimeoutError):
        each(time.sleep, [0.25] * 3, timeout=0.05)


def test_shared_memory_is_threads():
    """Items see the caller's own objects."""
    seen = []
    each(lambda _: seen.append(os.getpid()), range(20), require="sharedmem")
    assert seen == [os.getpid()] * 20


def test_work_that_holds_the_gil_leaves_the_process():
    if integration.available_cores() < 2:
        pytest.skip("one core")
    for _ in range(20):  # while other programs have the cores it may stay
        if os.getpid() not in each(spin_where, [0.01] * 60)[-4:]:
            return
    pytest.fail(str(next(iter(integration._executors.values())).report()))


def spin_where(seconds):
    jobs.spin(seconds)
    return os.getpid()


def test_arrays_arrive():
    table = np.arange(400_000.0)
    assert each(np.sum, [table] * 6) == [table.sum()] * 6


def spins_and_nests():
    jobs.spin(0.02)
    return os.getpid(), inner(3)


def inner(x):
    with joblib.parallel_config(backend="parallax"):
        return sum(each(jobs.square, range(x)))


def test_nested_calls():
    """Also with the backend named inside: nobody waits for who waits."""
    assert each(inner, [3] * 8) == [5] * 8


@pytest.mark.sampled(1)
@pytest.mark.parametrize("limit", [None, 1])
def test_worker_processes_know_the_name(limit):
    """What items call may name the backend that the program has registered."""
    before = os.getpid()
    with joblib.parallel_config(backend="parallax", inner_max_num_threads=limit):
        found = joblib.Parallel(n_jobs=2)(joblib.delayed(spins_and_nests)() for _ in range(12))
    assert {value for _, value in found} == {5}
    if gil_enabled():
        assert {pid for pid, _ in found} - {before}


def limit(_):
    import threadpoolctl

    return max((each["num_threads"] for each in threadpoolctl.threadpool_info()), default=1)


def test_inner_max_num_threads():
    with joblib.parallel_config(backend="parallax", inner_max_num_threads=1):
        assert each(limit, range(4)) == [1] * 4


def test_an_initializer():
    with joblib.parallel_config(backend="parallax", initializer=os.putenv, initargs=("A", "B")):
        assert each(jobs.square, range(4)) == [0, 1, 4, 9]


def test_no_jobs():
    with pytest.raises(ValueError, match="n_jobs == 0"):
        each(jobs.square, range(4), 0)


def test_workers_are_shared_by_calls():
    """A new Parallel makes no new executor."""
    each(jobs.square, range(4))
    each(jobs.square, range(4))
    assert len(integration._executors) == 1


def test_without_joblib():
    code = "import sys; sys.modules['joblib'] = None; import parallax.integrations.joblib"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "BackendMissingError" in done.stderr
    assert "pip install joblib" in done.stderr
