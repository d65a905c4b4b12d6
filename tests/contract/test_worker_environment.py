"""What worker processes take over besides folder and environment, and what they keep apart."""

from __future__ import annotations

import contextvars
import decimal
import functools
import logging
import os
import subprocess
import sys
import threading
import time
from importlib.util import find_spec

import jobs
import numpy as np
import pytest
from helpers.backends import OUTSIDE
from jobs import nested as nested_jobs

from parallax import cpu_count, options, parallel_map

#: Not imported here: it sets a variable in the environment.
THREADPOOLCTL = pytest.mark.skipif(find_spec("threadpoolctl") is None, reason="no threadpoolctl")


@pytest.fixture
def two(backend):
    """Runs a callable on the same argument twice, on workers that may be warm."""
    return lambda work, item: list(parallel_map(work, [item, item], backend=backend))


# -- settings of the interpreter and of libraries --------------------------------------------------


def test_logging_levels(two):
    """The root's level, levels of single loggers, and what is switched off altogether."""
    root, logger = logging.getLogger(), logging.getLogger("parallax_tests.surroundings")
    before = root.level
    try:
        usual = two(nested_jobs.levels, logger.name)[0]
        root.setLevel(logging.DEBUG)
        assert two(nested_jobs.levels, logger.name) == [(0, 10, 0, True)] * 2
        logger.setLevel(logging.ERROR)
        assert two(nested_jobs.levels, logger.name) == [(0, 10, 40, False)] * 2
        logger.setLevel(logging.NOTSET)
        logging.disable(logging.INFO)
        assert two(nested_jobs.levels, logger.name) == [(20, 10, 0, False)] * 2
    finally:
        logging.disable(logging.NOTSET)
        logger.setLevel(logging.NOTSET)
        root.setLevel(before)
    assert two(nested_jobs.levels, logger.name) == [usual] * 2


def test_recursion_limit(two):
    """A recursion that the caller allowed is allowed in workers; a forbidden one stays so."""
    before = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(before + 2000)
        assert two(nested_jobs.deep, before + 1000) == [before + 1000] * 2
    finally:
        sys.setrecursionlimit(before)
    with pytest.raises(RecursionError):
        two(nested_jobs.deep, before + 1000)


@pytest.mark.skipif(not hasattr(sys, "set_int_max_str_digits"), reason="a later 3.10, or 3.11")
def test_digits_of_whole_numbers(two):
    """How long a number may be to be written out is the caller's choice."""
    before = sys.get_int_max_str_digits()
    try:
        sys.set_int_max_str_digits(0)
        assert two(nested_jobs.long_number, 6000) == [6001] * 2
    finally:
        sys.set_int_max_str_digits(before)
    with pytest.raises(ValueError, match="limit"):
        two(nested_jobs.long_number, 6000)


def test_decimal_precision(two):
    """Decimal arithmetic has the caller's precision: another one would be another answer."""
    usual = two(nested_jobs.third, 0)
    with decimal.localcontext() as context:
        context.prec = 5
        assert two(nested_jobs.third, 0) == ["0.33333"] * 2
    assert two(nested_jobs.third, 0) == usual


def test_numpy_errors(two):
    """What NumPy does about a division by zero is the caller's choice."""
    with np.errstate(divide="ignore"):
        assert two(nested_jobs.divide, 0.0) == [float("inf")] * 2
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        two(nested_jobs.divide, 0.0)
    assert two(nested_jobs.divide, 2.0) == [0.5] * 2


def test_defaults_of_nested_calls(two):
    """Options set around a call hold for the calls that its items make."""
    with options(on_error="return"):
        assert two(nested_jobs.nested_failure, 0) == [["ZeroDivisionError", "int"]] * 2
    with pytest.raises(ZeroDivisionError):
        two(nested_jobs.nested_failure, 0)


@pytest.mark.variants(*OUTSIDE)
@pytest.mark.skipif(not hasattr(time, "tzset"), reason="no time zones by environment")
def test_time_zone(two, monkeypatch):
    """A time zone that the environment names is in force."""
    for zone, hour in (("UTC0", 0), ("XYZ-5", 5), ("UTC0", 0)):
        monkeypatch.setenv("TZ", zone)
        assert two(nested_jobs.hour, 0) == [hour] * 2


def test_context_variables_of_work_that_waits():
    """Also if it is another thread that starts the workers, while the caller is in an item."""
    token = jobs.VARIABLE.set("set")
    try:
        got = parallel_map(nested_jobs.nap_variable, range(8))
    finally:
        jobs.VARIABLE.reset(token)
    assert got == ["set"] * 8


def test_settings_of_the_calling_thread(backend):
    """They are the caller's, not those of the main thread."""
    got = []

    def call():
        with decimal.localcontext() as context:
            context.prec = 3
            got.extend(parallel_map(nested_jobs.third, range(2), backend=backend))

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(call,))
    thread.start()
    thread.join(30)
    assert got == ["0.333"] * 2


# -- random numbers and streams --------------------------------------------------------------------


@pytest.mark.variants(*OUTSIDE)
def test_workers_draw_different_random_numbers(backend, tmp_path):
    """Python's and NumPy's global generators are seeded anew in each worker."""
    work = functools.partial(nested_jobs.draws, str(tmp_path))
    got = parallel_map(work, range(20), backend=backend, max_workers=2, chunksize=1)
    assert len({pid for pid, _, _ in got}) == 2
    assert len({number for _, number, _ in got}) == 20
    assert len({number for _, _, number in got}) == 20


@pytest.mark.variants(*OUTSIDE)
def test_standard_input_is_empty(backend):
    """Two workers cannot both read what the program is given."""
    assert parallel_map(nested_jobs.standard_input, [0, 1], backend=backend) == ["", ""]


REDIRECTED = """
import os, sys
from parallax import options, parallel_map
def say(word):
    # In one piece each: two workers write at once.
    sys.stdout.write(word + " out\\n")
    sys.stderr.write(word + " err\\n")
with options(start_method={method!r}, backend="processes"):
    parallel_map(say, ["first"] * 2)
    kept = os.dup(1), os.dup(2)
    with open({path!r}, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    parallel_map(say, ["second"] * 2)
    os.dup2(kept[0], 1)
    os.dup2(kept[1], 2)
    parallel_map(say, ["third"] * 2)
"""


@pytest.mark.parametrize("method", ["auto", "spawn"])
def test_output_that_was_redirected(method, tmp_path):
    """Workers write to where the program's descriptors lead now, warm workers or not."""
    path = tmp_path / "out"
    program = REDIRECTED.format(method=method, path=str(path))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert sorted(done.stdout.split("\n")) == ["", *["first out"] * 2, *["third out"] * 2]
    assert sorted(done.stderr.split("\n")) == ["", *["first err"] * 2, *["third err"] * 2]
    assert sorted(path.read_text().split("\n")) == ["", *["second err"] * 2, *["second out"] * 2]


@pytest.mark.parametrize("method", ["auto", "spawn"])
def test_a_program_without_output(method):
    """Closed descriptors, as in a daemon, are no hindrance, and sockets do not take their place."""
    program = f"""
import os
from parallax import parallel_map, options
os.close(1)
os.close(2)
with options(start_method={method!r}):
    got = parallel_map(lambda x: print(x) or x + 1, range(4), backend="processes")
os.write(0, repr(list(got)).encode())
"""
    read, write = os.pipe()
    try:
        subprocess.run([sys.executable, "-c", program], stdin=write, timeout=30, check=True)
    finally:
        os.close(write)
        with os.fdopen(read, "rb") as file:
            text = file.read()
    assert text == b"[1, 2, 3, 4]"


# -- threads of native libraries -------------------------------------------------------------------


@THREADPOOLCTL
@pytest.mark.variants(*OUTSIDE)
def test_native_threads_follow_the_budget(backend):
    """Each of W workers gets C // W native threads, also in a library that is loaded already."""
    for workers in (2, 1, 2):
        budget = max(1, cpu_count() // workers)
        got = parallel_map(
            nested_jobs.native, range(4), backend=backend, max_workers=workers, chunksize=1
        )
        assert {tuple(pools) for _, pools in got} == {(budget,)}
        assert {variable for variable, _ in got} == {str(budget)}


@THREADPOOLCTL
@pytest.mark.variants(*OUTSIDE)
def test_native_threads_as_the_program_says(backend, monkeypatch):
    """Variables that the program has set itself win."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    got = parallel_map(nested_jobs.native, range(2), backend=backend, max_workers=1)
    assert got == [("1", {1})] * 2
