"""Sentences for groups of threads, from figures that a program could have had."""

from __future__ import annotations

import pytest

from parallax._cli.profile_advice import advise
from parallax._profiling.program_profile import FunctionProfile, Spent, ThreadGroup


def group(kind: str, threads: int, spent: Spent, wall: float = 2.0) -> ThreadGroup:
    functions = [FunctionProfile("parse", "/app/jobs.py", 7, spent)]
    return ThreadGroup(kind, "work", threads, wall, spent, functions)


#: Two threads that take turns for two seconds.
TURNS = Spent(ran=2.0, held=1.96, gil_wait=2.0)


@pytest.mark.parametrize(
    ("found", "cores", "gil", "words", "speed_up"),
    [
        (group("ThreadPoolExecutor", 2, TURNS), 2, True, "`parallax.Executor`", 1.92),
        (group("ThreadPoolExecutor", 2, TURNS), 8, True, "on 8 cores", 7.68),
        (group("ThreadPool", 2, TURNS), 2, True, "`parallax.parallel_map`", 1.92),
        (group("Thread", 2, TURNS), 1, True, "only one core", 1.0),
        (group("Thread", 2, Spent(ran=4.0, held=0.1)), 2, True, "threads are right", 1.0),
        (group("Thread", 2, Spent(ran=4.0, held=0.1)), 8, True, "8 threads would make", 4.0),
        (group("Thread", 2, Spent(ran=4.0)), 2, False, "runs without any GIL", 1.0),
        (group("Thread", 8, Spent(ran=0.1, other_wait=15.9)), 2, True, "not for the GIL", 1.0),
        # Short holds of eight threads that wait for something else now and then.
        (group("Thread", 8, Spent(ran=2.0, held=1.9, gil_wait=13.0, other_wait=1.0)), 4, True,
         "holds the GIL 63%", 3.84),
        # A server's threads, which wait for requests most of the time: that is nobody's fault.
        (group("Thread", 4, Spent(4.0, held=3.5, gil_wait=8.0, other_wait=25.0, idle=25.0), 3.0),
         2, True, "holds the GIL 88%", 1.44),
        # Downloads whose threads also wait for work.
        (group("Thread", 8, Spent(ran=0.1, other_wait=15.9, idle=8.0)), 2, True, "waits 99%", 1.0),
        # A server's threads for one request each: one of them was there for the whole time.
        (group("Thread", 11, Spent(ran=0.5, held=0.3, gil_wait=2.0), 5.0), 2, True,
         "holds the GIL 60%", 1.92),
        # A timer.
        (group("Thread", 1, Spent(other_wait=2.0, idle=2.0)), 2, True, "nothing in this pro", 1.0),
        (group("main", 1, Spent(ran=2.0, held=2.0)), 2, True, "processes would make", 1.92),
        (group("main", 1, Spent(ran=1.0, held=1.0, other_wait=1.0)), 2, True, "processes", 1.32),
        (group("main", 1, Spent(ran=2.0, held=0.1)), 2, True, "threads would make", 1.92),
        (group("main", 1, Spent(ran=2.0, held=2.0)), 1, True, "only one core", 1.0),
        (group("main", 1, Spent(other_wait=2.0)), 2, True, "nothing in this program", 1.0),
        (group("asyncio event loop", 1, Spent(ran=2.0, held=2.0)), 2, True, "run_in_exec", 1.92),
    ],
)  # fmt: skip
def test_one_sentence(
    found: ThreadGroup, cores: int, gil: bool, words: str, speed_up: float
) -> None:
    (advice,) = advise([found], span=2.0, children=0.0, cores=cores, gil=gil)
    assert words in advice.text
    assert advice.speed_up == pytest.approx(speed_up, abs=0.02)


def test_work_in_many_functions_is_told_as_such() -> None:
    short = [
        FunctionProfile(f"f{i}", "/app/jobs.py", i, Spent(ran=0.2, held=0.2)) for i in range(9)
    ]
    many = ThreadGroup("main", "<module>", 1, 2.0, Spent(ran=1.8, held=1.8), short)
    (advice,) = advise([many], span=2.0, children=0.0, cores=2, gil=True)
    assert "1.8 s and held the GIL 100% of that" in advice.text
    assert "11%" in advice.text


def test_threads_of_several_kinds_that_take_turns() -> None:
    """As of an event loop that hands its requests to threads: none gains by itself."""
    threads = group("Thread", 4, Spent(1.5, 1.4, 2.9, 20.0, idle=20.0), 0.85)
    loop = group("asyncio event loop", 1, Spent(1.0, 1.0, 1.4, 4.0), 8.0)
    (advice,) = advise([threads, loop], span=8.0, children=0.0, cores=2, gil=True)
    assert "waited 4.3 s for the GIL" in advice.text
    assert (advice.kind, advice.subject) == ("program", "parse")
    # Where nobody waits for it, it is nobody's fault.
    idle = group("asyncio event loop", 1, Spent(1.0, 1.0, 0.1, 6.9), 8.0)
    (advice,) = advise([idle], span=8.0, children=0.0, cores=2, gil=True)
    assert "nothing in this program" in advice.text


def test_processes_are_told_apart_by_what_they_used() -> None:
    pool = group("multiprocessing.Pool", 3, Spent(other_wait=6.0))
    each = dict.fromkeys(range(10), 0.2) | {99: 1.9}
    (busy,) = advise([pool], span=2.0, children=3.9, by_child=each, cores=2, gil=True)
    assert "2.0 of 2 cores" in busy.text or "1.9 of 2 cores" in busy.text
    assert "(one by one: 0.95, 0.10, 0.10, 0.10, 0.10, 0.10, 0.10, 0.10 and 3 more)" in busy.text
    assert busy.text.endswith("Functions in child processes are not sampled.")
    (idle,) = advise([pool], span=2.0, children=1.0, cores=2, gil=True)
    assert "chunksize" in idle.text


@pytest.mark.parametrize(("children", "first"), [(0.01, "main"), (1.5, "multiprocessing.Pool")])
def test_a_pool_that_did_next_to_nothing_is_told_last(children: float, first: str) -> None:
    groups = [group("main", 1, Spent(ran=1.9, held=1.9)), group("multiprocessing.Pool", 3, Spent())]
    found = advise(groups, span=2.0, children=children, cores=2, gil=True)
    assert len(found) == 2
    assert found[0].kind == first
