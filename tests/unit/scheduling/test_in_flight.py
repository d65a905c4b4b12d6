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


@given(st.lists(st.integers(1, 9), max_size=12), st.lists(st.integers(1, 9), max_size=40))
def test_items_go_out_in_order_whatever_the_pieces_they_came_in(lists, sizes):
    """Slices cut across the lists that were added."""
    in_flight = ItemsInFlight()
    total = 0
    for length in lists:
        in_flight.add(list(range(total, total + length)))
        total += length
    start = 0
    for number, size in enumerate(sizes):
        taken = min(size, total - start)
        if taken == 0:
            assert in_flight.first() == []
            break
        assert in_flight.first() == [start]
        items = in_flight.hand_out(1, Chunk(number, start, taken))
        assert items == list(range(start, start + taken))
        start += taken


def test_what_came_back_goes_out_again_and_once():
    """By index, also in other pieces than before."""
    in_flight = ItemsInFlight()
    in_flight.add(list("abcdef"))
    in_flight.hand_out(1, Chunk(1, 0, 4))
    in_flight.hand_out(2, Chunk(2, 4, 2))
    assert list(in_flight.abandoned(1, began=True)) == [0, 1, 2, 3]
    assert in_flight.answered(1) is None
    assert in_flight.hand_out(2, Chunk(3, 1, 2)) == ["b", "c"]
    assert in_flight.hand_out(2, Chunk(4, 0, 1)) == ["a"]
    assert in_flight.hand_out(2, Chunk(5, 3, 1)) == ["d"]
    assert list(in_flight.abandoned(1, began=True)) == []
    assert in_flight.rerun == 4


def test_only_the_chunk_that_was_sent_first_may_have_been_begun():
    """Whatever their numbers: one that came back has an older one."""
    in_flight = ItemsInFlight()
    in_flight.add(list(range(4)))
    in_flight.hand_out(1, Chunk(9, 0, 2))
    in_flight.hand_out(1, Chunk(5, 2, 2))
    assert in_flight.cut(9, 1)
    assert list(in_flight.abandoned(1, began=True)) == [0]
    assert list(in_flight.hand_out(2, Chunk(10, 0, 4))) == [0, 1, 2, 3]
    assert in_flight.rerun == 1


def test_a_cut_leaves_the_front_with_the_worker():
    """The rest goes out again; a cut of a chunk that has been answered is no news."""
    in_flight = ItemsInFlight()
    in_flight.add(list(range(10)))
    in_flight.hand_out(1, Chunk(1, 0, 6))
    assert in_flight.cut(1, 2)
    assert in_flight.hand_out(2, Chunk(2, 2, 4)) == [2, 3, 4, 5]
    held = in_flight.answered(1)
    assert held is not None
    assert (held.chunk.size, held.items) == (2, [0, 1])
    assert not in_flight.cut(1, 1)


def test_a_cut_of_a_whole_chunk_takes_it_away():
    """With nothing kept the worker has nothing of it."""
    in_flight = ItemsInFlight()
    in_flight.add([7, 8])
    in_flight.hand_out(1, Chunk(1, 0, 2))
    assert in_flight.cut(1, 0)
    assert in_flight.answered(1) is None
    assert in_flight.hand_out(2, Chunk(2, 0, 2)) == [7, 8]


def test_an_item_is_not_kept_after_it_was_given_out_and_answered():
    """Also when the list that it came in has more."""
    in_flight = ItemsInFlight()
    things = [Thing() for _ in range(4)]
    first = weakref.ref(things[0])
    in_flight.add(things)
    del things
    in_flight.hand_out(1, Chunk(1, 0, 1))
    in_flight.answered(1)
    gc.collect()
    assert first() is None
