"""Who had the GIL in one sample, and what the samples of a thread say about its functions."""

from __future__ import annotations

import dis
import time
from types import SimpleNamespace
from typing import Any

import pytest

from parallax._profiling.program_profile import Spent, ThreadProfile, grouped, settle_all
from parallax._profiling.thread_tally import (
    GIL_WAIT,
    HELD,
    NATIVE,
    OTHER_WAIT,
    Places,
    SeenThread,
    Tally,
    ThreadTally,
    find_holder,
)


def counts() -> None:
    for _ in range(1000):
        pass


def pauses() -> None:
    time.sleep(0.001)


def matches() -> None:
    max([1])


def seen(function: Any, state: int, tally: ThreadTally | None = None) -> SeenThread:
    """A thread that has worked for a millisecond and is in the function's loop, or in its call."""
    code, word = function.__code__, "JUMP" if function is counts else "CALL"
    at = next(
        i.offset for i in reversed([*dis.get_instructions(code)]) if i.opname.startswith(word)
    )
    top: Any = SimpleNamespace(f_code=code, f_lasti=at, f_lineno=code.co_firstlineno)
    made = SeenThread(tally or ThreadTally(1, 0.0), None, 0.001, top, code, 1)
    made.state = state
    return made


@pytest.fixture
def places() -> Places:
    """Before: threads were in a call that lets go of the GIL, and after one that does not."""
    made = Places()
    for state in (OTHER_WAIT, *[GIL_WAIT] * 20):
        made.see(seen(pauses, state), forced=False)
    for _ in range(20):
        made.see(seen(matches, GIL_WAIT), forced=True)
    made.see(seen(matches, NATIVE), forced=True)  # a mistake
    return made


@pytest.mark.parametrize("busy", [counts, matches])
def test_who_let_go_by_itself_is_not_the_holder(places: Places, busy: Any) -> None:
    made_to, waits = seen(busy, GIL_WAIT), seen(pauses, GIL_WAIT)
    waits.used = 10.0
    assert find_holder([waits, made_to], 0.0, places, forced=True)
    assert (made_to.holds, waits.holds) == (1.0, 0.0)


def test_who_runs_a_loop_did_not_let_go_by_itself_whatever_else_its_line_does(
    places: Places,
) -> None:
    for _ in range(5):
        places.see(seen(counts, OTHER_WAIT), forced=False)
    assert not places.let_go(seen(counts, GIL_WAIT))
    assert places.let_go(seen(pauses, GIL_WAIT))


@pytest.mark.parametrize("forced", [True, False])
def test_it_is_unclear_where_nobody_was_made_to(places: Places, forced: bool) -> None:
    threads = [seen(pauses, GIL_WAIT), seen(pauses, GIL_WAIT)]
    assert not find_holder(threads, 0.0, places, forced=forced)
    assert [each.holds for each in threads] == [0.5, 0.5]


def test_unclear_seconds_are_those_of_functions_seen_in_short_turns() -> None:
    tally = ThreadTally(1, 0.0)
    tally.name, loop, call = "t", counts.__code__, pauses.__code__
    for code, held, blurred in ((loop, 0.2, 0.0), (call, 0.8, 0.8)):
        function = tally.functions[code] = Tally()
        for sum_ in (tally, function):
            sum_.add(HELD, held, 1)
            sum_.blurred += blurred
    assert held_by(tally) == {loop.co_name: 0.2, call.co_name: 0.8}
    tally.short = {loop: 9.0}
    assert held_by(tally) == pytest.approx({loop.co_name: 0.92, call.co_name: 0.08})


def held_by(tally: ThreadTally) -> dict[str, float]:
    """Seconds with the GIL of each function, in a program of one second."""
    sampler: Any = SimpleNamespace(threads={1: tally}, ended=0.0, weight=1.0)
    (thread,) = settle_all(sampler, 1.0)
    return {each.name: each.spent.held for each in thread.functions}


def test_threads_that_follow_each_other_take_as_long_as_they_hold_the_gil() -> None:
    spent = Spent(ran=0.5, held=0.5, gil_wait=0.5)
    threads = [ThreadProfile(str(i), "Thread", "do_GET", False, spent) for i in range(8)]
    (group,) = grouped(threads, 4.5)
    assert group.wall == 4.0
