"""Where items run: context, environment, globals, big data, nesting, many callers."""

from __future__ import annotations

import contextvars
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import jobs
import numpy as np
import pytest
from helpers.backends import INSIDE, OUTSIDE

from parallax import parallel_imap, parallel_map

pytestmark = pytest.mark.sampled(2)


@pytest.mark.variants("serial", "threads", "auto")
def test_context_variables(backend):
    """A context variable that the caller set is seen in items."""
    token = jobs.VARIABLE.set("set")
    try:
        got = parallel_map(jobs.read_variable, range(10), backend=backend)
    finally:
        jobs.VARIABLE.reset(token)
    assert got == [("set", x) for x in range(10)]


def test_context_variables_under_auto_when_items_are_dear():
    """Nor does ``auto`` lose them by going to processes: the answer is the loop's."""
    token = jobs.VARIABLE.set("set")
    try:
        got = parallel_map(jobs.spin_variable, range(40))
    finally:
        jobs.VARIABLE.reset(token)
    assert got == [("set", x) for x in range(40)]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("work", [jobs.read_setting, jobs.spin_setting])
def test_module_global_changed_at_run_time(backend, monkeypatch, work):
    """Workers see the value that a module's global has at the call, not the one of its import."""
    for value in (100, 200):
        monkeypatch.setattr(jobs, "SETTING", value)
        got = parallel_map(work, range(30), backend=backend)
        assert got == [value + x for x in range(30)]


def test_environment_and_folder(backend, monkeypatch, tmp_path):
    """Environment, working directory and search path are the caller's, of now."""
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setenv("PARALLAX_TEST_VARIABLE", name)
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(str(folder))
        got = parallel_map(jobs.surroundings, ["PARALLAX_TEST_VARIABLE"] * 8, backend=backend)
        assert got == [(name, str(folder), str(folder))] * 8
    monkeypatch.delenv("PARALLAX_TEST_VARIABLE")
    got = parallel_map(jobs.surroundings, ["PARALLAX_TEST_VARIABLE"] * 8, backend=backend)
    assert got[0][0] is None


def test_module_made_at_run_time(backend, monkeypatch, tmp_path):
    """A module that was written and put on the path at run time can be used by items."""
    name = f"made_at_run_time_{os.getpid()}"
    (tmp_path / f"{name}.py").write_text("def triple(x):\n    return 3 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__(name)
    try:
        assert parallel_map(module.triple, range(5), backend=backend) == [0, 3, 6, 9, 12]
    finally:
        del sys.modules[name]


def test_warnings_filters(backend):
    """The caller's filters hold in workers: ignored is ignored, an error is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="careful"):
            parallel_map(jobs.warns, range(5), backend=backend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert parallel_map(jobs.warns, range(5), backend=backend) == list(range(5))


def test_arguments_of_the_program(backend, monkeypatch):
    """``sys.argv`` is the caller's."""
    monkeypatch.setattr(sys, "argv", ["program", "--flag"])
    assert parallel_map(jobs.argv, [1, 2], backend=backend) == [["program", "--flag"]] * 2


# -- data ------------------------------------------------------------------------------------------


def test_numpy_arrays(backend, variant):
    """Arrays arrive writable and come back equal and writable; in processes they are copies."""
    for size in (3, 100_000):
        arrays = [np.full(size, float(i)) for i in range(4)]
        got = parallel_map(jobs.numpy_double, arrays, backend=backend)
        for index, array in enumerate(got):
            expected = np.full(size, 2.0 * index)
            expected[0] = 14.0
            np.testing.assert_array_equal(array, expected)
            array[:] = 1.0
        if variant in OUTSIDE:
            assert [a[0] for a in arrays] == [0.0, 1.0, 2.0, 3.0]
        elif variant in INSIDE or variant == "auto":
            assert [a[0] for a in arrays] == [7.0] * 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.asfortranarray(np.arange(60_000.0).reshape(200, 300)),
        lambda: np.arange(100_000)[::2],
        lambda: np.array(["a", None, 3], dtype=object),
        lambda: np.zeros(0),
        lambda: np.array(5),
        lambda: np.arange(50_000).astype("M8[s]"),
        lambda: np.zeros(20_000, dtype=[("a", "i4"), ("b", "f8")]),
        lambda: np.ma.masked_array(np.arange(20_000), mask=np.arange(20_000) % 2),
    ],
)
def test_odd_arrays(backend, make):
    """Arrays of any layout and type come back equal."""
    got = parallel_map(_itself, [make(), make()], backend=backend)
    for array in got:
        assert array.dtype == make().dtype
        assert array.shape == make().shape
        assert array.tolist() == make().tolist()


def _itself(x):
    return x


@pytest.mark.variants("serial", "threads", "processes", "spawn", "auto")
def test_large_argument(backend):
    """50 MB go in."""
    data = np.ones(50 << 20, dtype=np.uint8)
    assert parallel_map(jobs.length, [data, data], backend=backend) == [50 << 20] * 2
    assert parallel_map(jobs.length, [bytes(50 << 20)], backend=backend) == [50 << 20]


@pytest.mark.variants("serial", "threads", "processes", "spawn", "auto")
def test_large_result(backend):
    """50 MB come back."""
    got = parallel_map(jobs.numpy_zeros, [50, 0, 50], backend=backend)
    assert [len(a) for a in got] == [50 << 20, 0, 50 << 20]


@pytest.mark.variants("processes", "spawn")
def test_large_both_ways_at_once(backend):
    """Both ends write much at the same time: neither waits for the other for ever."""
    blocks = [bytes([i]) * (8 << 20) for i in range(12)]
    got = parallel_map(_itself, blocks, backend=backend, chunksize=1)
    assert got == blocks


@pytest.mark.variants("processes", "spawn", "auto")
def test_captured_array(backend):
    """A large array that the callable captured is there in every item."""
    table = np.arange(2_000_000)
    got = parallel_map(lambda i: int(table[i]), range(0, 2_000_000, 50_000), backend=backend)
    assert got == list(range(0, 2_000_000, 50_000))


# -- many callers ---------------------------------------------------------------------------------


def test_sixteen_callers_at_once(backend):
    """Sixteen threads that call at the same moment all get their own answers."""
    barrier = threading.Barrier(16)
    answers: dict[int, object] = {}
    context = contextvars.copy_context()  # options(...) holds for the thread that set it

    def call(caller):
        barrier.wait(10)
        try:
            for _ in range(3):
                answers[caller] = parallel_map(
                    lambda x: (caller, x), range(20), backend=backend, max_workers=2
                )
        except BaseException as error:
            answers[caller] = error

    threads = [threading.Thread(target=context.copy().run, args=(call, i)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == {c: [(c, x) for x in range(20)] for c in range(16)}


@pytest.mark.variants("processes", "spawn")
def test_workers_stay_warm(backend):
    """The second call finds the workers of the first."""
    first = set(parallel_map(jobs.pid_of, range(20), backend=backend))
    second = set(parallel_map(jobs.pid_of, range(20), backend=backend))
    assert first & second
    assert os.getpid() not in first | second
    assert len(first | second) <= 2


@pytest.mark.variants("threads", "executor", "serial")
def test_these_stay_in_this_process(backend):
    """What was asked to stay in this process does."""
    assert set(parallel_map(jobs.pid_of, range(8), backend=backend)) == {os.getpid()}


@pytest.mark.variants("threads", "processes", "spawn")
def test_max_workers_is_kept(backend, variant):
    """No more workers than asked for take part."""
    if variant == "threads":
        got = set(parallel_map(jobs.thread_name, range(40), backend=backend, max_workers=2))
    else:
        got = set(parallel_map(jobs.pid_of, range(40), backend=backend, max_workers=2))
    assert 1 <= len(got) <= 2


@pytest.mark.variants("processes", "spawn")
def test_more_workers_than_cores(backend):
    """A caller who asks for more workers than cores gets them; the machine is theirs."""
    got = parallel_map(jobs.nap_square, range(20), backend=backend, max_workers=5)
    assert got == [x * x for x in range(20)]


def test_process_pool_executor_as_backend():
    """The standard library's process pool is a backend too."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        got = parallel_map(jobs.square, range(10), backend=executor)
        pids = parallel_map(jobs.pid_of, range(4), backend=executor)
    assert got == [x * x for x in range(10)]
    assert os.getpid() not in pids


def test_executor_that_was_shut_down():
    """An executor that takes no more work is an error at once, not a hang."""
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(Exception, match="shutdown"):
        parallel_map(jobs.square, range(10), backend=executor)


@pytest.mark.variants("threads", "processes", "auto", "spawn")
def test_call_in_a_thread(backend):
    """A call from a thread that is not the main one works; so does its stream."""
    got = []
    context = contextvars.copy_context()

    def call():
        got.append(parallel_map(jobs.spin_square, range(12), backend=backend))
        got.append(list(parallel_imap(jobs.spin_square, range(12), backend=backend)))

    thread = threading.Thread(target=context.run, args=(call,))
    thread.start()
    thread.join(20)
    assert got == [[x * x for x in range(12)]] * 2


def test_subprocesses_in_items(backend):
    """An item may start programs of its own."""
    got = parallel_map(_program, ["a", "b"], backend=backend)
    assert got == ["a\n", "b\n"]


def _program(text):
    return subprocess.run(["echo", text], capture_output=True, text=True, check=True).stdout
