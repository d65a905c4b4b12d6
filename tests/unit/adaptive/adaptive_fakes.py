"""An adaptive engine without threads, processes or a clock: tests say what happens, and when."""

from __future__ import annotations

from collections import deque
from concurrent.futures import BrokenExecutor
from types import SimpleNamespace

from parallax._adaptive import adaptive_engine, call, functions, process_route, trial, trial_runs
from parallax._adaptive.adaptive_engine import AdaptiveEngine, Settings
from parallax._core.errors import SerializationError
from parallax._core.nesting import Place
from parallax._core.plans import Measurement, Plan
from parallax._guard.effects import Verdict


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class FakeEngine:
    """What the thread engine and the process engine have in common."""

    recording = None

    def record(self, recording):
        self.recording = recording

    def __init__(self, max_workers, lock):
        self.max_workers, self.lock = max_workers, lock
        self.waiting = deque()
        self.fatal = None
        self.closing = self.stopped = self.interrupted = False
        self.queue = SimpleNamespace(qsize=lambda: len(self.waiting))

    def take(self, job):
        """Queue a call or a job."""
        self.waiting.append(job)

    def take_back(self, wanted):
        """Remove queued calls."""
        back = [job for job in self.waiting if wanted(job)]
        self.waiting = deque(job for job in self.waiting if not wanted(job))
        return back

    def cancel_queued(self):
        """Cancel what is queued."""
        waiting, self.waiting = list(self.waiting), deque()
        for job in waiting:
            job.cancel()

    def mine(self):
        """No test runs in a thread of the engine."""
        return False

    def help(self, call, timeout):
        """The test's thread helps by other means."""
        return timeout

    def interrupt(self):
        """End what can be ended."""
        self.interrupted = True
        self.cancel_queued()

    def stop(self):
        """End what can be ended, and the engine."""
        self.stopped = True

    def shutdown(self, *, wait, cancel):
        """Take no more calls."""
        self.closing = True


class FakeThreads(FakeEngine):
    """Runs a queued call or job in the test's thread when the test says so."""

    def __init__(self, max_workers, *, lock, broken, failed, **_):
        super().__init__(max_workers, lock)
        self.initial = {}
        self._broken, self._failed = broken, failed

    def check(self):
        """Raise if nothing can be submitted."""
        if self.fatal is not None:
            raise self._broken(self.fatal)

    def widen(self, max_workers):
        """Allow more threads."""
        self.max_workers = max(max_workers, self.max_workers)

    def run_next(self):
        """A thread runs what was queued first."""
        self.waiting.popleft().execute()

    def run_all(self):
        """Threads run everything."""
        while self.waiting:
            self.run_next()

    def initializer_fails(self, error):
        """An initializer has failed in a thread."""
        self.fatal = error
        self._failed(self._broken(error))


class FakeProcesses(FakeEngine):
    """Holds encoded calls until a test says what a worker process answers."""

    def __init__(self, max_workers, lock, timed):
        super().__init__(max_workers, lock)
        self._timed = timed
        self.failed = None
        self.workers = []
        self.killed = []

    def encode(self, fn, args, kwargs):
        """Pretend to pickle; some arguments refuse."""
        if "unpicklable" in args:
            raise SerializationError("item", None, "item", "as the test wants it")
        return "known", ("data", fn, args, kwargs)

    def kill(self, task):
        """End a running call."""
        self.killed.append(task)

    def answer(self, wall=0.01, cpu=0.01):
        """A worker runs the call that was queued first."""
        task = self.begin()
        _, fn, args, kwargs = task.data
        with self.lock:
            self._timed(task, wall, cpu)
        task.settle(fn(*args, **kwargs), None)
        return task

    def begin(self):
        """A worker begins the call that was queued first."""
        task = self.waiting.popleft()
        assert task.begin()
        return task


class FakeProfiler:
    """Knows what the test has said of the function."""

    def __init__(self, fn, *, guard, crowded):
        self.limits = SimpleNamespace(
            cast_net=lambda: None,
            looking=False,
            inspect=lambda _: None,
            verdict=VERDICTS.get(fn, Verdict("free", "", None, True)),
            watching=False,
            reads=(),
            stay_reason="",
            warn=lambda: None,
        )
        self.caller = SimpleNamespace(
            sampling=False,
            start_sampler=self._start_sampler,
            stop_sampler=self._stop_sampler,
            begin=lambda _: None,
            end=lambda *_, **__: None,
        )
        self.workers = SimpleNamespace(payload=None)
        self.past_run = None
        self.weighed = True
        self.plans = PLANS.setdefault(fn, [])
        self.asked = []
        PROFILERS[fn] = self

    def _start_sampler(self, on_sample):
        self.on_sample, self.caller.sampling = on_sample, True

    def _stop_sampler(self):
        self.on_sample, self.caller.sampling = None, False

    def measurement(self, _):
        """Something."""
        return Measurement(1, 0.001, 0.001)

    def plan(self, _, remaining, facts):
        """The next plan that the test has prepared; None if there is none."""
        self.asked.append((remaining, facts))
        plan = self.plans.pop(0) if self.plans else None
        return None if plan is None else (self.measurement(0), plan)

    def remember(self, _):
        """Nothing."""


def fake_processes(route):
    """Takes the place of ``ProcessRoute._new_engine``."""
    return FakeProcesses(route.workers, route._lock, route._timed)


PLANS = {}
VERDICTS = {}
PROFILERS = {}

THREADS = Plan("threads", 4, "it waits")
PROCESSES = Plan("processes", 4, "it holds the GIL")


class World:
    """An engine on fakes, and what tests look at."""

    def __init__(self, monkeypatch, max_workers=None, cores=4):
        for table in (PLANS, VERDICTS, PROFILERS):
            table.clear()
        self.clock = Clock()
        for module in (adaptive_engine, call, functions, trial, trial_runs):
            monkeypatch.setattr(module, "clock", self.clock)
        monkeypatch.setattr(trial, "Profiler", FakeProfiler)
        monkeypatch.setattr(adaptive_engine, "ThreadEngine", FakeThreads)
        monkeypatch.setattr(adaptive_engine, "here", lambda: Place(budget=cores))
        monkeypatch.setattr(Place, "cores", property(lambda place: place.budget))
        route = process_route.ProcessRoute
        monkeypatch.setattr(route, "_new_engine", fake_processes)
        monkeypatch.setattr(route, "expected_start", lambda *_: 0.0)
        monkeypatch.setattr(route, "load", lambda _: None)
        monkeypatch.setattr(route, "prepare", lambda _, modules: self.prepared.append(modules))
        self.prepared = []
        errors = SimpleNamespace(broken_pool=lambda cause: BrokenExecutor(str(cause)))
        settings = Settings(max_workers, 8, "t", lambda: errors, None, (), None, "auto", 0.0)
        self.engine = AdaptiveEngine(settings)
        self.threads = self.engine.threads

    @property
    def processes(self):
        """The fake process engine; None before its first call."""
        return self.engine.processes.engine

    def submit(self, fn, *args):
        """Submit a call."""
        return self.engine.submit(fn, args, {})

    def decide(self, fn, plan, *args):
        """Have a first call of a function lead to a plan."""
        PLANS[fn] = [plan]
        first = self.submit(fn, *args)
        self.threads.run_all()
        assert first.result(0) == fn(*args)

    def choice(self):
        """The route choice of the only function."""
        (choice,) = self.engine.functions.choices()
        return choice
