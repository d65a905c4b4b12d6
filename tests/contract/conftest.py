"""One fixture runs each contract test on every backend and start method."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.backends import WAYS

from parallax import ProcessPoolExecutor, options

#: Where executed workers are tried by default. They differ from forked ones in how they start and
#: in what they inherit, which tests of their own are about; `make test-full` has them everywhere.
EXECUTED = {"test_results", "test_exceptions"}


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("ways")
        ways = list(mark.args if mark else WAYS)
        if "spawn" in ways and metafunc.module.__name__ not in EXECUTED:
            ways[ways.index("spawn")] = pytest.param("spawn", marks=pytest.mark.full)
        metafunc.parametrize("way", ways, scope="function")


def pytest_configure(config):
    config.addinivalue_line("markers", "ways(*names): the backends that a contract test is for")


@pytest.fixture
def backend(way):
    """What to pass as ``backend=``, for each way in turn."""
    if way == "spawn":
        with options(start_method="spawn"):
            yield "processes"
    elif way == "executor":
        with ThreadPoolExecutor(2) as executor:
            yield executor
    else:
        yield way


@pytest.fixture(params=["auto", "spawn"])
def make_pool(request):
    """Makes executors, of each start method in turn; they are shut down at the end."""
    made = []

    def new(max_workers=2, **wishes):
        if request.param == "spawn":
            wishes["mp_context"] = multiprocessing.get_context("spawn")
        made.append(ProcessPoolExecutor(max_workers, **wishes))
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
