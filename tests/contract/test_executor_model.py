"""Any sequence of what can be done to an executor, against a model of what must come of it."""

from __future__ import annotations

import shutil
import signal
import tempfile
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import jobs
import pytest
from helpers.executor_kinds import KINDS, SOON
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from jobs import pool as pool_jobs

#: What a call does and what must come of it, given a number.
ACTIONS = {
    "return": lambda n: n * n,
    "burn": lambda n: n * n,
    "nap": lambda n: n * n,
    "raise": lambda n: n,
}


def work(log, n, action):
    """Note that it ran; then as it is told."""
    pool_jobs.note(log, n)
    if action == "burn":
        jobs.spin(0.003)
    elif action == "nap":
        return jobs.nap_square(n)
    elif action == "raise":
        raise KeyError(n)
    return n * n


def slow(log, n, go):
    pool_jobs.note(log, n)
    pool_jobs.wait_for(go, SOON)
    return n * n


class Model(RuleBasedStateMachine):
    """An executor with one to three workers."""

    kind = "ThreadPoolExecutor"

    @initialize(workers=st.integers(1, 3), limit=st.sampled_from([None, None, 2]))
    def make(self, workers, limit):
        self.folder = tempfile.mkdtemp(prefix="model-")
        self.log, self.go = f"{self.folder}/log", f"{self.folder}/go"
        kwargs = {} if self.kind == "ThreadPoolExecutor" else {"max_tasks_per_child": limit}
        self.executor = KINDS[self.kind](workers, **kwargs)
        #: per call its future and what must come of it.
        self.calls = []
        self.cancelled = set()
        self.closed = self.cancels = False
        self.killed = 0

    def note(self, future, action, value):
        self.calls.append((future, action, value))

    @precondition(lambda self: not self.closed)
    @rule(action=st.sampled_from(sorted(ACTIONS)), count=st.integers(1, 12))
    def submit(self, action, count):
        for _ in range(count):
            n = len(self.calls)
            self.note(self.executor.submit(work, self.log, n, action), action, n)

    @precondition(lambda self: not self.closed)
    @rule()
    def submit_slow(self):
        n = len(self.calls)
        self.note(self.executor.submit(slow, self.log, n, self.go), "slow", n)

    @rule()
    def let_go(self):
        Path(self.go).touch()

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 1000))
    def cancel(self, which):
        n = which % len(self.calls)
        if self.calls[n][0].cancel():
            self.cancelled.add(n)

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 1000))
    def result(self, which):
        n = which % len(self.calls)
        Path(self.go).touch()
        self.check(n)

    @precondition(lambda self: not self.closed)
    @rule(count=st.integers(0, 40), size=st.sampled_from([None, 1, 3]), read=st.integers(0, 40))
    def map(self, count, size, read):
        Path(self.go).touch()
        results = self.executor.map(jobs.square, range(count), buffersize=size)
        try:
            for n, value in zip(range(read), results):  # noqa: B905 - it may be longer
                assert value == n * n
        except BrokenProcessPool:
            assert self.killed
        results.close()

    @precondition(lambda self: self.kind == "ProcessPoolExecutor")
    @rule()
    def kill(self):
        for worker in self.executor._engine.workers[:1]:
            if worker.pid is not None:
                worker.started.signal(signal.SIGKILL)
                self.killed += 1

    @rule(cancel=st.booleans())
    def shut_down(self, cancel):
        self.executor.shutdown(wait=False, cancel_futures=cancel)
        self.closed, self.cancels = True, self.cancels or cancel
        with pytest.raises(RuntimeError):
            self.executor.submit(jobs.square, 1)

    @invariant()
    def those_that_were_cancelled_stay_so(self):
        for n in getattr(self, "cancelled", ()):
            assert self.calls[n][0].cancelled()

    def check(self, n):
        future, action, value = self.calls[n]
        try:
            error = future.exception(SOON)
        except CancelledError:
            assert n in self.cancelled or self.cancels
            return
        assert n not in self.cancelled
        if isinstance(error, BrokenProcessPool):
            assert self.killed
        elif action == "raise":
            assert type(error) is KeyError
            assert error.args == (value,)
        else:
            assert error is None, error
            assert future.result() == value * value

    def teardown(self):
        if not hasattr(self, "executor"):
            return
        try:
            Path(self.go).touch()
            self.executor.shutdown()
            assert all(future.done() for future, *_ in self.calls)
            for n in range(len(self.calls)):
                self.check(n)
            ran = pool_jobs.noted(self.log)
            assert self.cancelled.isdisjoint(ran)
            lost = sum(isinstance(self.error(n), BrokenProcessPool) for n in range(len(self.calls)))
            assert lost <= self.killed
            done = {n for n, (future, *_) in enumerate(self.calls) if not future.cancelled()}
            assert lost or done == set(ran)
            assert self.killed or len(ran) == len(set(ran))
        finally:
            shutil.rmtree(self.folder)

    def error(self, n):
        future = self.calls[n][0]
        return None if future.cancelled() else future.exception(0)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals")
@pytest.mark.parametrize("examples", [6, pytest.param(50, marks=pytest.mark.full)])
@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor", "auto"])
def test_any_sequence(kind, examples):
    """Every future ends, with what its call came to; each call runs at most once."""
    machine = type(f"Model_{kind}", (Model,), {"kind": kind})
    checks = list(HealthCheck)
    kwargs = settings(
        max_examples=examples, stateful_step_count=20, deadline=None, suppress_health_check=checks
    )
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(machine, settings=kwargs)
