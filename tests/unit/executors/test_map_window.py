"""How far a map submits ahead, and how many items it sends at once: values in, values out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from parallax._executors import map_window
from parallax._executors.map_window import MapWindow

ENGINE = SimpleNamespace(ahead=8, max_workers=4)


def read(window, results, *, seconds, travels=True):
    """Read results one after the other, ``seconds`` apart."""
    now = getattr(window, "test_now", 1.0)
    for result in results:
        now += seconds
        window.read(1, [result], now, lambda: travels)
    window.test_now = now


def room(window, waiting):
    window.waiting = waiting
    return window.room()


def test_quick_readers_get_a_wider_window():
    """Up to the maximum, and not for slow readers."""
    window = MapWindow(ENGINE, None, None)
    read(window, [1] * 8, seconds=1e-4)
    assert room(window, 0) == 8  # the first round tells when the second began
    read(window, [1] * 8, seconds=1e-4)
    assert room(window, 0) == 16
    read(window, [1] * 100_000, seconds=1e-7)
    assert room(window, 0) == map_window.MAX_WINDOW_ITEMS
    slow = MapWindow(ENGINE, None, None)
    read(slow, [1] * 64, seconds=0.1)
    assert room(slow, 3) == 5


def test_large_results_keep_the_window_small():
    """Their memory is bounded, and no worker runs dry."""
    window = MapWindow(ENGINE, None, None)
    big = SimpleNamespace(nbytes=1 << 30)
    read(window, [big] * 64, seconds=1e-4)
    assert room(window, 0) == ENGINE.max_workers + 1


def test_buffersize_fixes_the_window():
    """Whatever is read."""
    window = MapWindow(ENGINE, 3, None)
    read(window, [1] * 100, seconds=1e-6)
    assert (room(window, 0), room(window, 2), window.message) == (3, 1, 1)


@pytest.mark.parametrize("travels", [True, False])
def test_short_items_travel_several_at_a_time(travels):
    """If they travel at all."""
    window = MapWindow(ENGINE, None, None)
    read(window, [1] * 24, seconds=1e-6, travels=travels)
    assert window.message == (map_window.FIRST_MESSAGE_ITEMS if travels else 1)


def test_the_size_of_messages_follows_the_time_of_an_item():
    """Long items travel one by one again."""
    window = MapWindow(ENGINE, None, None)
    read(window, [1] * 4096, seconds=1e-6)
    window.timed(1e-5, lambda: True)
    assert 1 < window.message <= map_window.MAX_MESSAGE_ITEMS
    for _ in range(20):
        window.timed(0.01, lambda: True)
    assert window.message == 1


def test_chunksize_fixes_messages():
    """Also where less than that fits into the window."""
    window = MapWindow(ENGINE, None, 20)
    window.timed(1.0, lambda: True)
    assert window.next_message(5) == 20
    window.send_singly()
    assert window.next_message(5) == 1


def test_an_open_window_takes_the_rest():
    """At a shutdown, whatever the reader does meanwhile."""
    window = MapWindow(ENGINE, None, None)
    window.unlimited = True
    read(window, [SimpleNamespace(nbytes=1 << 30)] * 64, seconds=1e-4)
    assert room(window, 10**6) > 10**9
