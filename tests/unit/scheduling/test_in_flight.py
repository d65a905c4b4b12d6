"""Where items are between the input and their results."""

from __future__ import annotations

import gc
import weakref

from hypothesis import given
from hypothesis import strategies as st

from parallax._core.chunks import Chunk
from parallax._scheduling.in_flight import ItemsInFlight


class Thing:
    """An item that can be referred to weakly."""


@given(
    st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=12),
    st.lists(st.integers(1, 9), max_size=40),
    st.integers(0, 3),
)
def test_items_go_out_in_order_whatever_the_pieces_they_came_in(lists, sizes, first):
    """Slices cut across the lists and ranges that were added; what has a result is gone."""
    in_flight = ItemsInFlight(first)
    end = first
    for length, plain in lists:
        items = range(end, end + length)
        in_flight.add(list(items) if plain else items)
        end += length
    start, out = first, []
    for number, size in enumerate(sizes):
        taken = min(size, end - start)
        if taken == 0:
            assert list(in_flight.first()) == []
            break
        assert list(in_flight.first()) == [start]
        out.append(Chunk(number, start, taken))
        assert list(in_flight.hand_out(out[-1])) == list(range(start, start + taken))
        start += taken
    for chunk in reversed(out):
        in_flight.finish(chunk.start, chunk.size)
    assert sum(part.left for part in in_flight._parts) == end - start
    assert all(part.left for part in in_flight._parts)


def test_what_came_back_goes_out_again():
    """By index, also in other pieces than before; what may have been run is counted once."""
    in_flight = ItemsInFlight()
    in_flight.add(list("abcdef"))
    in_flight.hand_out(Chunk(1, 0, 4))
    in_flight.hand_out(Chunk(2, 4, 2))
    assert list(in_flight.may_have_run(0, 3)) == [0, 1, 2]
    assert in_flight.hand_out(Chunk(3, 1, 2)) == ["b", "c"]
    assert in_flight.hand_out(Chunk(4, 0, 1)) == ["a"]
    assert in_flight.hand_out(Chunk(5, 3, 1)) == ["d"]
    assert in_flight.rerun == 3


def test_an_item_is_not_kept_when_its_result_is_there():
    """Also when the list that it came in has more."""
    in_flight = ItemsInFlight()
    things = [Thing() for _ in range(4)]
    first = weakref.ref(things[0])
    in_flight.add(things)
    del things
    in_flight.hand_out(Chunk(1, 0, 1))
    gc.collect()
    assert first() is not None
    in_flight.finish(0)
    gc.collect()
    assert first() is None
