"""How the calls of one function are run: the state machine alone, under any sequence of events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parallax._routing.route_choice import (
    MAX_CHOICE_CHANGES,
    MAX_TRIAL_WAIT_S,
    RouteChoice,
    ThreadGrowth,
)

TIMES = st.floats(0.0, 0.3)
SECONDS = st.one_of(st.floats(0.0, 1e-4), st.floats(0.0, 0.5))

EVENTS = st.one_of(
    st.tuples(st.just("place"), TIMES),
    st.tuples(st.just("end_probe"), TIMES),
    st.tuples(st.just("rest"), TIMES),
    st.tuples(st.just("decide"), TIMES, st.sampled_from(["threads", "processes"])),
    st.tuples(st.just("keep"), TIMES),
    st.tuples(st.just("call"), TIMES, SECONDS, SECONDS, st.integers(0, 3)),
    st.tuples(st.just("sent"), TIMES, SECONDS),
    st.tuples(st.just("review"), TIMES),
)


@given(st.lists(EVENTS, max_size=80), st.integers(1, 8), st.integers(1, 8))
def test_a_choice(events, cores, workers):
    """At most one call before the verdict; nobody waits long; changes end; what stays, stays."""
    choice = RouteChoice("fn", cores=cores, workers=workers)
    now, ended, reviews, since, held = 0.0, 0, 0, None, 0
    for event, pause, *values in events:
        now += pause
        before, probing, stay = choice.route, choice.probing, choice.stay
        if event == "place":
            where = choice.place(now)
            if before is not None:
                assert where == before
            elif where == "probe":
                assert not probing
                choice.begin_probe(now)
                since = since if since is not None else now
            elif where == "hold":
                assert probing
                assert now - since <= MAX_TRIAL_WAIT_S
                held += 1
            else:
                assert where == "threads"
                assert choice.provisional
                assert now - since > MAX_TRIAL_WAIT_S
        elif event == "end_probe":
            choice.end_probe()
            assert choice.probing is False
        elif event == "rest":
            choice.rest()
            since = None
            if choice.probing:
                choice.end_probe()
        elif event == "decide" and not choice.stay:
            choice.decide(values[0], "so", now)
            assert (choice.route, choice.reason, choice.provisional) == (values[0], "so", False)
        elif event == "keep":
            choice.keep("it must", now)
            assert choice.route == "threads"
        elif event == "call":
            wall, cpu, worker = values
            if worker:
                if choice.samples():
                    choice.began(worker, now)
                    choice.took(wall, min(wall, cpu), now + wall, worker)
            else:
                choice.took(wall, min(wall, cpu), now + wall)
            now += wall
            ended += 1
        elif event == "sent":
            choice.sent(values[0])
            assert choice.sending >= 0
        elif event == "review":
            changed = choice.review(now)
            assert changed is (choice.route != before)
            reviews += changed
            if changed:
                assert before is not None
                assert not stay
        if choice.stay:
            assert choice.route == "threads"
        assert choice.calls == ended
        assert choice.wall >= 0
        assert choice.cpu >= 0
        assert reviews <= MAX_CHOICE_CHANGES
        assert isinstance(choice.waits(now), bool)


@given(
    st.integers(1, 64),
    st.integers(0, 1000),
    st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(0, 3000)), max_size=60),
)
def test_growth(first, more, events):
    """Threads never become fewer, double at most at a time, and keep within the bound."""
    growth = ThreadGrowth(first, first + more)
    now, threads = 0.0, first
    for pause, waiting in events:
        now += pause
        found = growth.ended(now, waiting)
        assert threads <= found <= min(2 * threads, first + more)
        assert found == growth.threads
        if waiting < threads:
            assert found == threads
        threads = found


def test_growth_ends_where_more_bring_nothing():
    """The same number of calls per second, whatever the threads: they are doubled once."""
    growth = ThreadGrowth(8, 1024)
    seen = [growth.ended(number * 0.001, 5000) for number in range(5000)]
    assert set(seen) == {8, 16}


def test_growth_goes_on_while_more_bring_more():
    """Twice the threads, twice the calls: up to the bound."""
    growth = ThreadGrowth(8, 100)
    now = 0.0
    for _ in range(5000):
        now += 0.1 / growth.threads
        growth.ended(now, 5000)
    assert growth.threads == 100
