"""One fixture runs each contract test on every backend and start method."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.backends import VARIANTS
from helpers.executor_kinds import CONCURRENT, KINDS

from parallax import ProcessPoolExecutor, options

#: Where executed workers are tried by default. They differ from forked ones in how they start and
#: in what they inherit, which tests of their own are about; `make test-full` has them everywhere.
EXECUTED = {"test_results", "test_exceptions"}


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("variants")
        variants = list(mark.args if mark else VARIANTS)
        if "spawn" in variants and metafunc.module.__name__ not in EXECUTED:
            variants[variants.index("spawn")] = pytest.param("spawn", marks=pytest.mark.full)
        metafunc.parametrize("variant", variants, scope="function")


def pytest_configure(config):
    config.addinivalue_line("markers", "variants(*names): the backends that a contract test is for")


@pytest.fixture
def backend(variant):
    """What to pass as ``backend=``, for each variant in turn."""
    if variant == "spawn":
        with options(start_method="spawn"):
            yield "processes"
    elif variant == "executor":
        with ThreadPoolExecutor(2) as executor:
            yield executor
    else:
        yield variant


@pytest.fixture(params=["auto", pytest.param("spawn", marks=pytest.mark.full)])
def make_pool(request):
    """Makes executors, of each start method in turn; they are shut down at the end."""
    made = []

    def new(max_workers=2, **kwargs):
        if request.param == "spawn":
            kwargs["mp_context"] = multiprocessing.get_context("spawn")
        made.append(ProcessPoolExecutor(max_workers, **kwargs))
        return made[-1]

    yield new
    for executor in made:
        executor.shutdown()


@pytest.fixture
def eventually():
    """Polls a condition, for a bounded time."""

    def wait(condition, seconds=5.0):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    return wait


@pytest.fixture(params=KINDS)
def kind(request):
    """Each kind of executor in turn."""
    return request.param


@pytest.fixture(params=CONCURRENT)
def concurrent_kind(request):
    """Those whose calls run while the program goes on."""
    return request.param
