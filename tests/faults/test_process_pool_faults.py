"""What dies under an executor: only the call that it was running fails, and the pool goes on."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError, wait
from concurrent.futures.process import BrokenProcessPool

import jobs
import psutil
import pytest
from helpers.effort import examples
from helpers.process_ends import living
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jobs import pool as pool_jobs

from parallax import ProcessPoolExecutor, WorkerDiedError

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals"),
    pytest.mark.sampled(2),
]


@pytest.fixture(params=["auto", pytest.param("spawn", marks=pytest.mark.full), "fork"])
def make(request):
    """Makes executors; they are shut down at the end."""
    made = []

    def new(max_workers=2, **kwargs):
        if request.param != "auto":
            kwargs["mp_context"] = multiprocessing.get_context(request.param)
        made.append(ProcessPoolExecutor(max_workers, **kwargs))
        return made[-1]

    new.method = request.param
    yield new
    for executor in made:
        executor.shutdown()


def lost(error):
    """Whether that is the error of a call whose worker died, with all that it can say."""
    assert isinstance(error, BrokenProcessPool)
    assert isinstance(error, WorkerDiedError)
    assert error.index is None
    assert isinstance(error.pid, int)
    assert "item" not in str(error)
    return True


def end(pid, number=signal.SIGKILL):
    """Send it a signal and wait until it is gone, or a zombie."""
    os.kill(pid, number)
    assert living([pid], 10) == []


@pytest.mark.sampled(4)
@pytest.mark.parametrize("patient", [True, False], ids=["gone", "going"])
def test_an_idle_worker_is_killed(make, patient):
    """Nobody was using it: no call fails, though its death may not be known yet."""
    executor = make(1)
    for n in range(10):
        pid = executor.submit(os.getpid).result()
        if patient:
            end(pid)
        else:
            os.kill(pid, signal.SIGKILL)
        assert executor.submit(jobs.square, n).result(30) == n * n


def test_a_working_worker_is_killed(make, tmp_path):
    """Its call fails, with words; those that wait run elsewhere."""
    executor = make(1)
    go, started = str(tmp_path / "go"), str(tmp_path / "started")
    future = executor.submit(pool_jobs.started_then_wait, started, go)
    others = [executor.submit(jobs.square, n) for n in range(50)]
    pid = int((tmp_path / "started").read_text()) if pool_jobs.wait_for(started) else 0
    os.kill(pid, signal.SIGKILL)
    assert lost(error := future.exception(30))
    assert (error.pid, error.exitcode, error.attempts) == (pid, -signal.SIGKILL, 1)
    assert "SIGKILL" in str(error)
    assert [f.result(30) for f in others] == [n * n for n in range(50)]


def test_a_waiting_thread_hears_of_the_death(make, tmp_path):
    """Whether it reads the worker's socket itself or not."""
    executor = make(1)
    go, started = str(tmp_path / "go"), str(tmp_path / "started")
    future = executor.submit(pool_jobs.started_then_wait, started, go)
    pool_jobs.wait_for(started)
    errors = []
    threads = [threading.Thread(target=lambda: errors.append(future.exception(30))) for _ in "123"]
    for thread in threads:
        thread.start()
    os.kill(int((tmp_path / "started").read_text()), signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert len(errors) == 3
    assert all(lost(error) for error in errors)


@pytest.mark.parametrize("action", ["exit", "kill"])
def test_one_call_of_many_ends_its_worker(make, tmp_path, action):
    """Exactly that one fails; each other one runs at least once, and its result is not lost."""
    executor = make(2)
    log = str(tmp_path / "log")
    for n in range(20):
        executor.submit(pool_jobs.noted_then, os.devnull, n, "").result()
    futures = [
        executor.submit(pool_jobs.noted_then, log, n, action if n == 500 else "")
        for n in range(1000)
    ]
    assert lost(error := futures[500].exception(30))
    assert error.exitcode == (3 if action == "exit" else -signal.SIGKILL)
    others = [n for n in range(1000) if n != 500]
    assert [futures[n].result(30) for n in others] == others
    ran = Counter(pool_jobs.noted(log))
    assert set(ran) == set(range(1000))
    # Only what was in one frame with the fatal one may have been run again.
    again = {n for n, times in ran.items() if times > 1}
    assert max(ran.values()) == 2 or not again
    assert len(again) <= 512
    assert all(abs(n - 500) <= 512 for n in again)


def test_long_calls_run_once(make, tmp_path):
    """What travels alone is not suspected of another one's action."""
    executor = make(2)
    log = str(tmp_path / "log")

    def work(n):
        pool_jobs.note(log, n)
        time.sleep(0.005)
        if n == 7:
            os._exit(1)
        return n

    futures = [executor.submit(work, n) for n in range(20)]
    wait(futures, timeout=30)
    assert [n for n, f in enumerate(futures) if f.exception()] == [7]
    assert sorted(pool_jobs.noted(log)) == list(range(20))


def test_every_call_ends_its_worker(make):
    """Each is an error of its own, and then all is as ever."""
    executor = make(2)
    futures = [executor.submit(os._exit, 5) for _ in range(6)]
    assert all(lost(f.exception(30)) and f.exception().exitcode == 5 for f in futures)
    assert executor.submit(jobs.square, 3).result(30) == 9


def test_an_argument_that_ends_the_worker(make):
    """It is not tried on one worker after the other."""
    executor = make(2)
    executor.submit(jobs.square, 1).result()
    futures = [executor.submit(jobs.described, x) for x in (1, jobs.Bomb(), 2)]
    assert lost(futures[1].exception(30))
    assert [futures[0].result(30), futures[2].result(30)] == ["int:1", "int:2"]


def test_a_stopped_worker_goes_on(make, tmp_path):
    """What it holds comes when it is continued; the other one works on meanwhile."""
    executor = make(2)
    go = str(tmp_path / "go")
    gates = [executor.submit(pool_jobs.started_then_wait, f"{go}{n}", go) for n in range(2)]
    for n in range(2):
        pool_jobs.wait_for(f"{go}{n}")
    pool_jobs.touch(go)
    victim = gates[0].result(30)
    os.kill(victim, signal.SIGSTOP)
    try:
        futures = [executor.submit(jobs.square, n) for n in range(100)]
        while not any(f.done() for f in futures):
            wait(futures, timeout=0.1)
    finally:
        os.kill(victim, signal.SIGCONT)
    assert [f.result(30) for f in futures] == [n * n for n in range(100)]
    assert victim in {w.pid for w in executor._engine.workers}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the zygote is for Linux")
def test_the_zygote_is_killed(tmp_path, cold_pool):
    """At most what runs is lost; the rest is run by workers of another one."""
    with ProcessPoolExecutor(2) as executor:
        pid = executor.submit(os.getpid).result()
        zygote = psutil.Process(pid).ppid()
        assert zygote != os.getpid()

        def work(n):
            time.sleep(0.002)
            if n == 30:
                os.kill(zygote, signal.SIGKILL)
            return n

        futures = [executor.submit(work, n) for n in range(100)]
        wrong = [n for n, f in enumerate(futures) if f.exception(30) and lost(f.exception())]
        assert len(wrong) <= 2
        assert [f.result() for n, f in enumerate(futures) if n not in wrong] == [
            n for n in range(100) if n not in wrong
        ]
        assert executor.submit(jobs.square, 3).result(30) == 9


def test_workers_are_killed_again_and_again(make):
    """Twenty times at any moment: every call has its result or names its worker's death."""
    executor = make(3)
    rng = random.Random(7)
    over = threading.Event()

    def killer():
        for _ in range(20):
            over.wait(rng.random() * 0.04)
            workers = [w for w in executor._engine.workers if w.pid is not None]
            if workers and not over.is_set():
                try:
                    os.kill(rng.choice(workers).pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    thread = threading.Thread(target=killer)
    thread.start()
    futures, rounds = [], 0
    try:
        while thread.is_alive():
            rounds += 1
            more = [executor.submit(jobs.spin, 0.0001 * (n % 3)) for n in range(40)]
            more += [executor.submit(bytes, 100_000) for _ in range(3)]
            futures += more
            wait(more, timeout=30)
    finally:
        over.set()
        thread.join()
    failed = [f for f in futures if f.exception(30) is not None]
    assert all(lost(f.exception()) for f in failed)
    assert len(failed) <= 20
    assert executor.submit(jobs.square, 3).result(30) == 9


# -- any sequence of actions -----------------------------------------------------------------------

ACTIONS = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 40)),
    st.tuples(st.just("long"), st.integers(1, 3)),
    st.tuples(st.just("raise"), st.integers(1, 5)),
    st.tuples(st.just("die"), st.integers(1, 2)),
    st.tuples(st.just("large"), st.integers(1, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 200)),
    st.tuples(st.just("result"), st.integers(0, 200)),
    st.tuples(st.just("kill"), st.integers(0, 3)),
)

#: The calls by kind.
CALLS = {
    "submit": (jobs.square, 3),
    "long": (jobs.spin_square, 3),
    "raise": (pool_jobs.fail, KeyError),
    "die": (os._exit, 3),
    "large": (bytearray, 200_000),
}


@settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    actions=st.lists(ACTIONS, min_size=1, max_size=25),
    workers=st.integers(1, 3),
    limit=st.sampled_from([None, None, 1, 5]),
    cancel=st.booleans(),
)
def test_any_sequence(actions, workers, limit, cancel):
    """Against a model: what each call may come to, given what was done before and after."""
    executor = ProcessPoolExecutor(workers, max_tasks_per_child=limit)
    futures, cancelled, kills = [], set(), 0

    def check(number, error):
        kind = futures[number][0]
        future = futures[number][1]
        if future.cancelled():
            assert number in cancelled or cancel
        elif kind == "die":
            assert lost(error)
        elif isinstance(error, BrokenProcessPool):
            assert kills
        elif kind == "raise":
            assert type(error) is KeyError
        else:
            assert error is None
            assert future.result() == (bytearray(CALLS[kind][1]) if kind == "large" else 9)

    try:
        for action, number in actions:
            if action in CALLS:
                futures += [(action, executor.submit(*CALLS[action])) for _ in range(number)]
            elif action == "kill":
                for worker in executor._engine.workers[:number]:
                    if worker.pid:
                        worker.started.kill()
                        kills += 1
            elif not futures:
                continue
            elif action == "cancel":
                if futures[number % len(futures)][1].cancel():
                    cancelled.add(number % len(futures))
            else:
                try:
                    error = futures[number % len(futures)][1].exception(30)
                except CancelledError:
                    error = None
                check(number % len(futures), error)
    finally:
        executor.shutdown(cancel_futures=cancel)
    broken = 0
    for number, (kind, future) in enumerate(futures):
        assert future.done()
        error = None if future.cancelled() else future.exception()
        check(number, error)
        broken += kind != "die" and isinstance(error, BrokenProcessPool)
    assert broken <= kills
    assert all(futures[number][1].cancelled() for number in cancelled)
