"""The estimator under a simulated GIL, the meters, and a few real readings with generous bounds."""

from __future__ import annotations

import _thread
import hashlib
import math
import os
import queue
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from parallax._core.cores import gil_enabled, running_threads
from parallax._core.thread_clocks import ClockedThread, RunDelay
from parallax._profiling import caller_meter, gil_estimate, gil_sampler
from parallax._profiling.caller_meter import TREND_BLOCKS, CallerMeter
from parallax._profiling.gil_estimate import (
    GilReading,
    GilSamples,
    estimate,
    held_throughout,
    is_late,
    mean_sleep,
)
from parallax._profiling.gil_sampler import GilSampler
from parallax._profiling.meters import CoresMeter, FreeCores, ItemMeter, native_threads

INTERVAL = 0.005
WAKE = 0.00006

# -- a GIL in simulated time ---------------------------------------------------------------------

# Given a moment, when can a waiting thread have the GIL?
Holder = Callable[[float], float]


def free(now: float) -> float:
    return now


def pure_python(now: float) -> float:
    return now + INTERVAL


def c_calls(seconds: float) -> Holder:
    """C code that holds the GIL and lets go only between calls, when somebody has waited."""
    return lambda now: (math.floor((now + INTERVAL) / seconds) + 1) * seconds


def alternating(held: float, released: float) -> Holder:
    period = held + released

    def when(now: float) -> float:
        phase = now % period
        return now if phase >= held else now + held - phase

    return when


def simulate(
    holder: Holder, span: float, seed: int, *, wake: float = WAKE, counted: bool = True
) -> tuple[GilSamples, float]:
    """What the sampler would see in `span` seconds: the samples, and when its last sleep ends."""
    rng = random.Random(seed)
    samples, now, least, lateness, forced = GilSamples(), 0.0, math.inf, 0.0, 0
    while True:
        mean = mean_sleep(now, forced if lateness > 0.8 * INTERVAL else 0)
        due = now + max(gil_estimate.MIN_SLEEP_S, rng.expovariate(1.0 / mean))
        awake = due + wake
        has_gil = holder(awake)
        if has_gil >= span:
            return samples, due
        lateness = has_gil - due
        least = min(least, lateness)
        forced += lateness > 0.8 * INTERVAL
        waited = has_gil - awake
        switches = 0 if not counted else 1 if waited <= 0 else 2 + int(waited / INTERVAL)
        late = is_late(lateness, switches, least, INTERVAL)
        throughout = held_throughout(lateness, switches, INTERVAL)
        samples = samples.tick(mean, lateness, late=late, throughout=throughout, guess=not counted)
        now = has_gil


def read(holder: Holder, span: float, seed: int, **how: object) -> GilReading:
    samples, due = simulate(holder, span, seed, **how)  # type: ignore[arg-type]
    return estimate(samples, span, pending=span - due - samples.base())


SEEDS = range(60)


@pytest.mark.parametrize(
    ("holder", "least"),
    [
        (pure_python, 0.9),
        (c_calls(0.003), 0.9),
        (c_calls(0.04), 0.9),
        (c_calls(60.0), 0.9),
    ],
    ids=["pure-python", "short-c-calls", "long-c-calls", "one-endless-c-call"],
)
@pytest.mark.parametrize("counted", [True, False], ids=["kernel-counts", "lateness-only"])
def test_a_held_gil_is_seen_within_25_ms(holder: Holder, least: float, counted: bool) -> None:
    for seed in SEEDS:
        reading = read(holder, 0.025, seed, counted=counted)
        assert reading.held is not None
        assert reading.held >= least
        assert reading.error <= (0.3 if counted else 0.5)


@pytest.mark.parametrize("counted", [True, False], ids=["kernel-counts", "lateness-only"])
def test_a_free_gil_is_seen_within_25_ms(counted: bool) -> None:
    for seed in SEEDS:
        reading = read(free, 0.025, seed, counted=counted)
        assert reading.held == 0.0
        assert reading.error <= (0.15 if counted else 0.3)
        assert reading.ticks >= 15
        assert reading.late == 0


@pytest.mark.parametrize(("held", "released"), [(0.0005, 0.0003), (0.0003, 0.0005), (0.004, 0.002)])
def test_a_mixture_is_read_as_one(held: float, released: float) -> None:
    truth = held / (held + released)
    readings = [read(alternating(held, released), 0.25, seed) for seed in SEEDS]
    values = [reading.held for reading in readings if reading.held is not None]
    assert len(values) == len(readings)
    assert sum(values) / len(values) == pytest.approx(truth, abs=0.12)
    inside = sum(
        abs(reading.held - truth) <= reading.error
        for reading in readings
        if reading.held is not None
    )
    assert inside >= 0.85 * len(readings)


def test_lateness_alone_is_blind_to_short_holds_and_says_so() -> None:
    reading = read(alternating(0.00002, 0.00004), 0.05, 1, counted=False)
    counted = read(alternating(0.00002, 0.00004), 0.05, 1)
    assert reading.held is not None
    assert counted.held is not None
    assert counted.held > 0.15
    assert reading.error >= 0.1


def test_slow_timers_are_not_taken_for_a_held_gil() -> None:
    for seed in SEEDS:
        reading = read(free, 0.05, seed, wake=0.001, counted=False)
        assert reading.held is not None
        # The first wake-ups are judged by the default threshold, the others by what was learnt.
        assert reading.held <= 0.2 or reading.error >= 0.2


def test_no_sample_is_no_verdict() -> None:
    reading = estimate(GilSamples(), 0.01)
    assert (reading.held, reading.error) == (None, 1.0)
    assert estimate(GilSamples(), 0.0).held is None


def test_one_wait_that_covers_the_time_is_a_verdict() -> None:
    pending = estimate(GilSamples(), 0.025, pending=0.0249)
    assert pending.held == pytest.approx(1.0)
    assert pending.error < 0.05
    assert pending.late == pending.ticks == 1
    add_startup_wait = estimate(GilSamples().add_startup_wait(0.05), 0.051)
    assert add_startup_wait.held is not None
    assert add_startup_wait.held > 0.9
    assert add_startup_wait.error < 0.1


def test_waits_weigh_by_their_length() -> None:
    """gh dask/distributed#8557: one long wait is not one short wait."""
    samples = GilSamples()
    for _ in range(9):
        samples = samples.tick(0.001, WAKE, late=False)
    samples = samples.tick(0.001, 0.09, late=True)
    reading = estimate(samples, 0.1)
    assert reading.held is not None
    assert reading.held > 0.85


def test_a_busy_machine_makes_the_reading_doubtful() -> None:
    pending = estimate(GilSamples(), 0.025, pending=0.0249, delayed=0.6)
    assert pending.error > 0.4
    samples = GilSamples()
    for late in (True, False, True, True):
        samples = samples.tick(0.0005, 0.004 if late else WAKE, late=late)
    calm, loaded = estimate(samples, 0.02), estimate(samples, 0.02, delayed=0.5)
    assert loaded.error > calm.error + 0.2
    assert loaded.delayed == 0.5
    # Where the GIL is free, being kept from a core changes nothing.
    released, _ = simulate(free, 0.05, 1)
    assert estimate(released, 0.05, delayed=0.5).held == 0.0
    assert estimate(released, 0.05, delayed=0.5).error < 0.3
    # Load counts where only lateness is known.
    guessed, _ = simulate(free, 0.05, 1, counted=False)
    assert estimate(guessed, 0.05, load=2.0).error > estimate(guessed, 0.05, load=0.1).error + 0.3


def test_other_python_threads_are_not_blamed_on_the_callable() -> None:
    samples, _ = simulate(pure_python, 0.05, 1)
    shared = estimate(samples, 0.05, busy=0.5, others=0.5)
    assert shared.held == pytest.approx(0.5, abs=0.1)
    # It released the GIL all the time, or held it all the time: from outside both look the same.
    unclear = estimate(samples, 0.05, busy=0.95, others=1.0)
    assert unclear.error > 0.4
    # Whoever sleeps with the GIL held is to blame, for nobody else ran.
    asleep = estimate(samples, 0.05, busy=0.0, others=0.0)
    assert asleep.held == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("lateness", "switches", "least", "late"),
    [
        (0.00006, 1, 0.00006, False),
        (0.003, 1, 0.00006, False),  # the machine is busy, the GIL is free
        (0.00009, 2, 0.00006, True),  # held for a moment
        (0.005, 3, 0.005, True),
        (0.005, 0, 0.005, True),  # from here on the kernel does not count
        (0.00006, 0, 0.00006, False),
        (0.0018, 0, 0.001, False),
        (0.0028, 0, 0.001, True),
    ],
)
def test_is_late(lateness: float, switches: int, least: float, late: bool) -> None:
    assert is_late(lateness, switches, least, INTERVAL) is late


def test_a_wait_with_many_wake_ups_was_not_solid() -> None:
    assert held_throughout(0.0052, 3, INTERVAL)
    assert held_throughout(0.05, 12, INTERVAL)
    assert held_throughout(0.05, 0, INTERVAL)
    assert not held_throughout(0.004, 9, INTERVAL)
    base = GilSamples().tick(0.001, WAKE, late=False)
    assert base.tick(0.001, 0.004, late=True, throughout=False).waited == 0.0
    assert base.tick(0.001, 0.004, late=True).waited == pytest.approx(0.004, abs=0.0002)


def test_sleeps_grow_with_time_and_with_forced_hand_overs() -> None:
    assert mean_sleep(0.0, 0) == mean_sleep(0.01, 0) == 0.0005
    assert mean_sleep(10.0, 0) == 0.005
    means = [mean_sleep(0.02, forced) for forced in range(1, 30)]
    assert all(a <= b for a, b in pairwise(means))
    assert means[0] < 0.001
    assert means[-1] == mean_sleep(0.02, 10_000) == 0.02


def test_forced_hand_overs_stay_rare() -> None:
    """Each costs some 0.1 ms of the callable: under 1 % from 50 ms on."""
    for span, most in ((0.05, 8), (1.0, 75)):
        late = [simulate(pure_python, span, seed)[0].late for seed in SEEDS]
        assert sorted(late)[len(late) // 2] <= most


def test_tallies_subtract() -> None:
    first = GilSamples().tick(0.001, 0.01, late=True).add_startup_wait(0.002)
    both = first.tick(0.002, 0.004, late=True).tick(0.002, WAKE, late=False, cpu=0.5)
    window = both.since(first)
    assert (window.ticks, window.late) == (2, 1)
    assert window.weight == pytest.approx(0.004)
    assert window.waited == pytest.approx(0.004, abs=0.0002)
    assert window.startup_wait == 0.0
    assert window.cpu == 0.5


# -- the thread ----------------------------------------------------------------------------------


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.001)
    return True


def spin(seconds: float) -> None:
    """Pure Python for that long."""
    end = time.perf_counter() + seconds
    total = 0
    while time.perf_counter() < end:
        for number in range(200):
            total += number * number


def observe(work: Callable[[], object], seconds: float = 0.04) -> tuple[GilReading, float | None]:
    sampler = GilSampler()
    sampler.start()
    try:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            work()
        return sampler.reading(), sampler.busy()
    finally:
        sampler.stop()


needs_gil = pytest.mark.skipif(not gil_enabled(), reason="no GIL to look at")


@needs_gil
@pytest.mark.parametrize(
    "work",
    [lambda: spin(0.005), lambda: sum(range(1_000_000)), lambda: sorted(range(300_000, 0, -1))],
    ids=["pure-python", "sum", "sorted"],
)
def test_real_work_that_holds_the_gil(work: Callable[[], object]) -> None:
    readings = []
    for _ in range(20):
        reading, _ = observe(work)
        readings.append(reading)
        assert reading.held is None or reading.held + reading.error >= 0.6
        clear = reading.error < 0.4 or reading.delayed > 0.2  # sure, or unsure with a reason
        if reading.held is not None and reading.held > 0.7 and clear:
            return
    pytest.fail(f"never seen: {readings}")


@needs_gil
def test_real_work_that_releases_the_gil() -> None:
    block = bytes(4_000_000)
    readings = []
    for _ in range(20):
        reading, _ = observe(lambda: hashlib.sha256(block).digest())
        readings.append(reading)
        assert reading.held is None or reading.held - reading.error <= 0.4
        clear = reading.error < 0.4 or reading.delayed > 0.2
        if reading.held is not None and reading.held < 0.3 and clear:
            return
    pytest.fail(f"never seen: {readings}")


def test_real_waiting_is_neither_busy_nor_holding() -> None:
    wait = threading.Event().wait
    reading, busy = observe(lambda: wait(0.002))
    assert reading.held is not None
    assert reading.held - reading.error <= 0.3
    assert busy is None or busy < 0.5


def test_busy_tells_computing_from_waiting_before_the_item_ends() -> None:
    seen: list[float | None] = []
    enough = threading.Event()
    sampler: GilSampler

    def on_sample(now: float) -> None:
        seen.append(sampler.busy())
        if len(seen) >= 20:
            enough.set()

    sampler = GilSampler(on_sample)
    sampler.start()
    assert enough.wait(10)
    sampler.stop()
    assert all(share is None or 0.0 <= share <= 1.0 for share in seen)
    assert seen[-1] is None or seen[-1] < 0.5


def test_another_thread_can_be_watched() -> None:
    made: queue.SimpleQueue[GilSampler] = queue.SimpleQueue()
    leave = threading.Event()

    def rest() -> None:
        made.put(GilSampler())
        leave.wait(10)

    thread = threading.Thread(target=rest)
    thread.start()
    try:
        sampler = made.get(timeout=10)
        sampler.start()
        spin(0.02)
        busy = sampler.busy()
        sampler.stop()
        assert busy is None or busy < 0.5
    finally:
        leave.set()
        thread.join()


def test_a_window_leaves_out_what_was_before_it() -> None:
    ticks = threading.Semaphore(0)
    sampler = GilSampler(lambda now: ticks.release())
    sampler.start()
    for _ in range(3):
        assert ticks.acquire(timeout=10)
    mark = sampler.mark()
    for _ in range(20):
        assert ticks.acquire(timeout=10)
    whole, window = sampler.reading(), sampler.reading(since=mark)
    sampler.stop()
    assert window.span < whole.span
    assert window.ticks < whole.ticks
    assert mark.samples.cpu >= 0.0


def test_what_on_tick_raises_comes_out_of_stop_once() -> None:
    called = threading.Event()

    def broken(now: float) -> None:
        called.set()
        raise LookupError("on purpose")

    sampler = GilSampler(broken)
    sampler.start()
    assert called.wait(10)
    ticks = sampler.reading().ticks
    assert wait_for(lambda: sampler.reading().ticks > ticks + 1), "sampling goes on"
    with pytest.raises(LookupError, match="on purpose"):
        sampler.stop()
    sampler.stop()


def test_stop_may_come_at_any_time() -> None:
    sampler = GilSampler()
    assert sampler.reading() == GilReading(0, 0, None, 1.0, 0.0)
    assert sampler.busy() is None
    sampler.stop()
    sampler.start()
    sampler.stop()
    first = sampler.reading()
    sampler.stop()
    assert sampler.reading().span == first.span, "time stands still after stop"
    with pytest.raises(RuntimeError, match="starts once"):
        sampler.start()


def test_stop_from_on_tick_does_not_wait_for_itself() -> None:
    stopped = threading.Event()

    def on_sample(now: float) -> None:
        sampler.stop()
        stopped.set()

    sampler = GilSampler(on_sample)
    sampler.start()
    assert stopped.wait(10)
    sampler.stop()


def test_nothing_is_left_behind() -> None:
    before, interval = _thread._count(), sys.getswitchinterval()
    for _ in range(20):
        sampler = GilSampler()
        sampler.start()
        spin(0.001)
        sampler.stop()
    assert wait_for(lambda: _thread._count() <= before)
    assert sys.getswitchinterval() == interval


def test_start_and_stop_are_cheap() -> None:
    starts, stops = [], []
    for _ in range(30):
        sampler = GilSampler()
        began = time.perf_counter()
        sampler.start()
        started = time.perf_counter()
        sampler.reading()
        stopping = time.perf_counter()
        sampler.stop()
        starts.append(started - began)
        stops.append(time.perf_counter() - stopping)
    # Usually 0.03 and 0.1 ms; a busy machine takes a few milliseconds to wake a thread.
    assert min(starts) < 0.002
    assert min(stops) < 0.02


def test_without_threads_it_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(gil_sampler._thread, "start_new_thread", refuse)
    sampler = GilSampler()
    sampler.start()
    spin(0.003)
    assert sampler.reading().held in {None, 0.0}
    sampler.stop()


def test_without_gil_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gil_sampler, "gil_enabled", lambda: False)
    reading, _ = observe(lambda: spin(0.002), 0.01)
    assert (reading.held, reading.error) == (0.0, 0.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_can_stop_a_sampler_that_it_does_not_have() -> None:
    sampler = GilSampler()
    sampler.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forks with the sampler's thread
        child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            sampler.stop()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    sampler.stop()
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_missing_or_odd_schedstat_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "odd").write_text("nonsense\n")
    (tmp_path / "good").write_text("123 2500000000 7\n")
    for name, seconds in (("none", 0.0), ("odd", 0.0), ("good", 2.5)):
        delay = RunDelay(str(tmp_path / name))
        assert delay() == pytest.approx(seconds)
        delay.close()


# -- the meters ----------------------------------------------------------------------------------


def test_meter_adds_up() -> None:
    meter = ItemMeter()
    assert meter.summary().items == 0
    for items, wall in ((1, 0.01), (2, 0.02), (4, 0.04)):
        meter.add(items, wall, wall / 2)
    cost = meter.summary()
    assert cost.items == 7
    assert cost.wall == pytest.approx(0.01)
    assert cost.cpu == pytest.approx(0.005)
    assert cost.spread == pytest.approx(0.0, abs=1e-6)
    assert not cost.dear_first


def test_a_dear_first_item_is_left_out_but_told() -> None:
    meter = ItemMeter()
    meter.add(1, 0.5, 0.4)
    assert meter.summary().wall == 0.5
    for _ in range(3):
        meter.add(1, 0.01, 0.01)
    cost = meter.summary()
    assert cost.dear_first
    assert cost.first_wall == 0.5
    assert cost.wall == cost.cpu == pytest.approx(0.01)
    assert cost.items == 4


def test_meter_shows_unevenness_and_trend() -> None:
    meter = ItemMeter()
    for number in range(1, 21):
        meter.add(1, number * 0.001, number * 0.001)
    cost = meter.summary()
    assert cost.wall == pytest.approx(0.0105)
    assert cost.recent_wall > 0.015
    assert 0.4 < cost.spread < 0.7


def test_many_items_in_few_blocks_show_a_trend_as_well() -> None:
    """As do blocks: a settled loop makes large ones."""
    meter = ItemMeter()
    for each in (0.003, 0.001, 0.001):
        meter.add(20, 20 * each, 20 * each)
    cost = meter.summary()
    assert cost.recent_blocks >= TREND_BLOCKS
    assert cost.recent_wall == pytest.approx(0.001)


def test_meter_takes_odd_blocks() -> None:
    meter = ItemMeter()
    meter.add(0, 1.0, 1.0)
    assert meter.summary().items == 0
    meter.add(3, 0.0, -1.0)
    cost = meter.summary()
    assert (cost.items, cost.wall, cost.cpu, cost.spread) == (3, 0.0, 0.0, 0.0)


def work_in_parallel(
    meter: CoresMeter, workers: int, chunk: float, share: float, span: float, start: float = 0.0
) -> float:
    """Each worker does chunk after chunk, of which it computes that share of the time."""
    now = start
    for worker in range(workers):
        meter.started(worker, now)
    while now < start + span:
        now += chunk
        for worker in range(workers):
            meter.finished(worker, now, chunk * share)
            meter.started(worker, now)
    return now


@pytest.mark.parametrize(
    ("workers", "share"), [(2, 0.5), (2, 1.0), (4, 0.25), (8, 0.5), (32, 0.01)]
)
def test_effective_cores(workers: int, share: float) -> None:
    meter = CoresMeter()
    now = work_in_parallel(meter, workers, 0.01, share, 0.3)
    seen = meter.cores(now)
    assert seen is not None
    cores, busy, seconds = seen
    assert cores == pytest.approx(workers * share, rel=0.01)
    assert busy == pytest.approx(workers)
    assert seconds == pytest.approx(0.3, rel=0.1)


def test_cores_need_two_workers_at_once() -> None:
    meter = CoresMeter()
    assert meter.cores(0.0) is None
    now = work_in_parallel(meter, 1, 0.01, 1.0, 0.1)
    assert meter.cores(now) is None
    meter.finished("stranger", now, 1.0)
    assert meter.cores(now) is None


def test_a_lonely_tail_does_not_count() -> None:
    meter = CoresMeter(window=100.0)
    meter.started("a", 0.0)
    meter.started("b", 0.0)
    meter.finished("b", 1.0, 1.0)
    meter.finished("a", 9.0, 9.0)
    seen = meter.cores(9.0)
    assert seen == pytest.approx((2.0, 2.0, 1.0))


def test_cores_follow_a_change() -> None:
    meter = CoresMeter(window=0.5)
    now = work_in_parallel(meter, 4, 0.01, 1.0, 2.0)
    for worker in range(4):
        meter.finished(worker, now, 0.0)
    now = work_in_parallel(meter, 4, 0.01, 0.25, 0.6, now)
    seen = meter.cores(now)
    assert seen is not None
    assert seen[0] == pytest.approx(1.0, rel=0.05)
    assert seen[2] <= 0.55


def test_cores_forget_on_request() -> None:
    meter = CoresMeter(window=10.0)
    now = work_in_parallel(meter, 2, 0.01, 1.0, 0.5)
    meter.clear()
    assert meter.cores(now) is None
    for worker in range(2):
        meter.finished(worker, now + 0.1, 0.05)
    seen = meter.cores(now + 0.1)
    assert seen == pytest.approx((1.0, 2.0, 0.1))


@pytest.mark.parametrize(
    ("process", "thread", "other", "factor"),
    [(4.0, 1.0, 0.0, 4.0), (1.0, 1.0, 0.0, 1.0), (0.9, 1.0, 0.0, 1.0), (3.1, 1.5, 0.1, 2.0)],
)
def test_native_threads(process: float, thread: float, other: float, factor: float) -> None:
    assert native_threads(process, thread, other) == pytest.approx(factor)


def test_native_threads_of_a_callable_that_only_waits() -> None:
    assert native_threads(0.1, 0.0, 0.0) == 1.0


@pytest.mark.parametrize(
    ("installed", "looks", "own", "free"),
    [
        (4, [], 1, 4.0),
        (4, [None], 1, 4.0),  # a system that does not tell
        (4, [1, 1, 1], 1, 4.0),
        (4, [2, 1, 3, 2], 1, 3.0),
        (4, [2, 2], 2, 4.0),
        (2, [2, 2], 1, 1.0),
        (2, [4, 4], 1, 0.5),  # three others and this one share two cores
        (1, [1], 1, 1.0),
        (2, [0], 1, 2.0),  # the count may be a moment old
    ],
)
def test_free_cores_are_what_others_leave(
    installed: int, looks: list[int | None], own: int, free: float
) -> None:
    cores = FreeCores(installed)
    for running in looks:
        cores.add(running, own)
    assert cores.cores() == pytest.approx(free)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_the_own_thread_is_among_those_that_run() -> None:
    running = running_threads()
    assert running is not None
    assert running >= 1


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals of POSIX")
@pytest.mark.parametrize("starts", [True, False])
def test_signals_of_the_thread_that_samples(starts):
    """Processes that it starts must not block all signals: they could not be ended."""
    found = queue.SimpleQueue()
    sampler = GilSampler(
        lambda _: found.put(signal.pthread_sigmask(signal.SIG_BLOCK, ())), starts=starts
    )
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        sampler.start()
        blocked = found.get(timeout=10)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)
        sampler.stop()
    if starts:
        assert blocked == {*usual, signal.SIGINT, signal.SIGUSR2}
    else:
        assert blocked >= {signal.SIGTERM, signal.SIGSEGV, signal.SIGINT}


def test_queueing_for_a_core_is_no_waiting_from_the_first_block_on(monkeypatch):
    """Where it is not known what the delay was at its beginning, all of it may be the block's."""
    monkeypatch.setattr(caller_meter, "thread_delay", lambda _: 0.05)
    for cpu, working in [(0.02, 1.0), (0.0, 0.0)]:
        meter = CallerMeter(crowded=False)
        meter.begin(1.0)
        meter.end(1, 0.06, cpu, alone=True)
        assert meter.cost().cpu == pytest.approx(0.06 * working)


def test_sampling_that_begins_near_the_end_of_an_item():
    """It held the GIL until then, so that the sampler's own time tells nothing of it."""
    thread, began = ClockedThread.current(), time.perf_counter()
    while time.thread_time() - thread.cpu < 0.03:
        pass
    meter = CallerMeter(crowded=False)
    meter.begin(began)
    meter.start_sampler(lambda _: None, thread)
    items, wall, cpu = meter.times(time.perf_counter())
    meter.stop_sampler()
    assert items == 0
    assert wall >= cpu >= 0.03
