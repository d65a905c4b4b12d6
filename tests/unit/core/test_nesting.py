"""Depth and budget of nested calls, and what a named backend comes to inside a worker."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from parallax._core import nesting
from parallax._core.nesting import MAX_CALL_DEPTH, Place, enter, here
from parallax._core.options import Options
from parallax._routing.requested import requested_route


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch):
    monkeypatch.setattr(nesting, "usable_cores", lambda: 8)


TOP = Place()
IN_PROCESS = Place(1, 1, budget=4, crowd=2, movable=True)
IN_THREAD = Place(1, 1, budget=1, crowd=8, movable=True)
DEEP = IN_PROCESS.worker(2)


@pytest.mark.parametrize(
    ("workers", "cores", "threads"), [(1, 8, 32), (2, 4, 16), (3, 2, 10), (8, 1, 4), (100, 1, 1)]
)
def test_workers_share_cores_and_threads(workers, cores, threads):
    """All workers together get no more than one call that is not nested, and each at least 1."""
    place = TOP.worker(workers)
    assert (place.level, place.cores, place.part(32)) == (1, cores, threads)


def test_workers_of_workers():
    """Shares are shares of shares."""
    place = TOP.worker(2).worker(4)
    assert (place.level, place.depth, place.cores, place.part(32)) == (2, 2, 1, 4)
    assert place.innermost


def test_a_place_travels():
    """Packed, it comes to the same elsewhere."""
    place = TOP.worker(2, 5.0).item(movable=False)
    packed = pickle.loads(pickle.dumps(place.packed()))
    assert Place(*packed).packed() == place.packed()


def test_an_item_of_the_callers_thread_feels_workers_come_and_go():
    """While its run has workers its part is one of theirs; then it has all again."""
    item = TOP.item(movable=True)
    assert (item.level, item.cores, item.crowd) == (0, 8, 1)
    item.share(TOP, 4)
    assert (item.level, item.cores, item.crowd) == (1, 2, 4)
    item.share(TOP, 0)
    assert (item.level, item.cores, item.crowd) == (0, 8, 1)


@pytest.mark.parametrize(
    ("outer", "inner", "limit"),
    [(None, None, None), (3.0, None, 3.0), (3.0, 2.0, 2.0), (2.0, 3.0, 2.0)],
)
def test_the_shortest_limit_holds(outer, inner, limit):
    """An item inside an item is ended by whichever run ends its item first."""
    assert TOP.worker(2, outer).worker(2, inner).limit == limit


def test_depth_ends():
    """Loops within loops are followed so far and no further."""
    place = TOP
    for _ in range(MAX_CALL_DEPTH):
        assert not place.innermost
        place = place.item(movable=True)
    assert place.innermost


def test_a_thread_is_in_its_own_place():
    """What one thread enters another does not see."""
    seen = []
    before = enter(IN_THREAD)
    try:
        thread = threading.Thread(target=lambda: seen.append(here()))
        thread.start()
        thread.join()
        seen.append(here())
    finally:
        enter(before)
    assert seen[0].level == 0
    assert seen[1] is IN_THREAD
    assert here().level == 0


@pytest.mark.parametrize(
    ("place", "options", "route", "workers", "joins"),
    [
        (TOP, {}, None, 8, False),
        (TOP, {"backend": "threads"}, "threads", 12, False),
        (TOP, {"backend": "processes"}, "processes", 8, False),
        (TOP, {"backend": "processes", "max_workers": 3}, "processes", 3, False),
        (TOP, {"item_timeout": 1.0}, "processes", 8, False),
        (IN_PROCESS, {}, None, 4, False),
        (IN_PROCESS, {"backend": "serial"}, "loop", 1, False),
        (IN_PROCESS, {"backend": "processes"}, "loop", 1, False),
        (IN_PROCESS, {"backend": "processes", "max_workers": 3}, "loop", 1, False),
        (IN_PROCESS, {"backend": "threads"}, "threads", 6, True),
        (IN_PROCESS, {"backend": "threads", "max_workers": 20}, "threads", 20, True),
        (IN_PROCESS, {"backend": "threads", "max_workers": 1}, "loop", 1, False),
        (IN_THREAD, {"backend": "threads"}, "loop", 1, False),
        (TOP.worker(32), {}, "loop", 1, False),
        (DEEP, {}, "loop", 1, False),
        (DEEP, {"backend": "threads", "max_workers": 4}, "loop", 1, False),
        (TOP.worker(2, 1.0), {"item_timeout": 1.0}, "loop", 1, False),
        (TOP.item(movable=False), {"item_timeout": 1.0}, "processes", 8, False),
    ],
)
def test_what_is_asked_for(place, options, route, workers, joins):
    """The table of routes, places and options."""
    got = requested_route(Options(**options), place, stream=False)
    assert (got.route, got.workers, got.joins) == (route, workers, joins)


@pytest.mark.parametrize("place", [IN_PROCESS, TOP.worker(2, 1.5), TOP.item(movable=True)])
def test_an_item_timeout_that_cannot_be_kept_is_refused(place):
    """In a worker, and in items that may come to run in one: the answer must not depend on it."""
    with pytest.raises(ValueError, match="item_timeout"):
        requested_route(Options(item_timeout=1.0), place, stream=False)


def test_a_stream_has_threads_of_its_own():
    """Its reader's thread has other things to do."""
    got = requested_route(Options(backend="threads"), IN_PROCESS, stream=True)
    assert (got.route, got.joins) == ("threads", False)


def test_an_executor_is_not_used_from_its_own_threads():
    """All of them may wait for what was given to them."""
    with ThreadPoolExecutor(1) as executor:
        options = Options(backend=executor)
        assert requested_route(options, TOP, stream=False).route == "executor"
        assert executor.submit(requested_route, options, TOP, stream=False).result().route == "loop"
