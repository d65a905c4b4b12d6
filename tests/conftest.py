"""What every test gets: the proof that it left nothing behind, and the backends to run on.

The warm worker pool may live from test to test, that is what it is for: what it holds is subtracted
before and after. It is shut down at the end of the session, and around a test marked `cold_pool`
or using the fixture of that name; after that nothing at all may be left.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
import zlib

import psutil
import pytest
from helpers.leaks import Held, shutdown_pool, stdlib_helpers, wait_until_clean

BACKENDS = ("serial", "threads", "processes", "auto")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend in turn; a contract test that takes it runs once on each."""
    return request.param


@pytest.fixture
def cold_pool():
    """No warm worker before this test and none after it; call it for none in between."""
    return shutdown_pool


@pytest.hookimpl(tryfirst=True)  # before pytest looks at -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all but one in n variants of a test that is marked `sampled(n)` as `full`."""
    variants: dict[tuple[object, str], list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled") and not item.get_closest_marker("full"):
            name = getattr(item, "originalname", item.name)
            variants.setdefault((item.parent, name), []).append(item)
    for (_, name), found in variants.items():
        n = min(found[0].get_closest_marker("sampled").args[0], len(found))
        # Not always the first ones, which are the same backends everywhere.
        kept = zlib.crc32(name.encode()) % n
        for number, item in enumerate(found):
            if number % n != kept:
                item.add_marker("full")


def pytest_collection_finish() -> None:
    """Let the collector, which many tests call, pass over all that there is before the first."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest):
    cold = request.node.get_closest_marker("cold_pool") or "cold_pool" in request.fixturenames
    if cold:
        shutdown_pool()
    before = Held.now()
    yield
    if cold:
        shutdown_pool()
    left = wait_until_clean(before)
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _cores_of_its_own():
    """What else runs on the machine decides no test; those of the decisions say what is seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("parallax._routing.profiler.running_threads", lambda: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_at_the_end():
    before = Held.now()
    yield
    shutdown_pool()
    left = wait_until_clean(before)
    for child in psutil.Process().children(recursive=True):
        if child.pid not in stdlib_helpers()[0]:
            child.kill()
    if left:
        pytest.fail("after the last test there was left:\n  " + "\n  ".join(left), pytrace=False)


_own_tmp: list[tuple[str, dict[str, str | None]]] = []


def pytest_configure() -> None:
    """Give the session a folder for temporary files of its own, so that each one is seen.

    With ``TEST_SWITCH_INTERVAL=1e-6`` threads take turns as often as can be, which finds races.
    """
    gc.disable()  # until all tests are collected: what they are made of stays
    if interval := os.environ.get("TEST_SWITCH_INTERVAL"):
        sys.setswitchinterval(float(interval))
    shared = tempfile.gettempdir()
    own = tempfile.mkdtemp(prefix="parallax-tests-")
    changed = {"TMPDIR": own, "TEMP": own, "TMP": own, "PYTEST_DEBUG_TEMPROOT": shared}
    _own_tmp.append((own, {name: os.environ.get(name) for name in changed}))
    os.environ.update(changed)
    tempfile.tempdir = None


def pytest_unconfigure() -> None:
    while _own_tmp:
        own, old = _own_tmp.pop()
        for name, value in old.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        tempfile.tempdir = None
        shutil.rmtree(own, ignore_errors=True)
