"""Ctrl-C at any moment: between any two lines of parallax, nothing is torn apart.

A tracer sends SIGINT at the k-th line of parallax that the main thread runs in a call. Whatever k
is, there is at most one KeyboardInterrupt, the next call works, no warm worker stays lent, and at
the end nothing is left, which every test here is checked for.
"""

from __future__ import annotations

import contextlib
import itertools
import linecache
import os
import signal
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

import parallax
from parallax import (
    Executor,
    ProcessPoolExecutor,
    SerializationError,
    ThreadPoolExecutor,
    parallel_imap,
    parallel_map,
)
from parallax._backends.processes.parent.map_workers import ProcessCrew
from parallax._backends.processes.parent.warm_pool import warm_pool
from parallax._core.nesting import here

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

OURS = str(Path(parallax.__file__).parent)


def double(x):
    return 2 * x


def through_map():
    return parallel_map(double, range(20), backend="processes", max_workers=2)


def through_threads():
    return parallel_map(double, range(20), backend="threads", max_workers=2)


def through_auto():
    return parallel_map(double, range(20))


def through_stream():
    return list(parallel_imap(double, range(20), backend="processes", max_workers=2))


def through_executor(make):
    def call():
        with make() as pool:
            first = pool.submit(double, 0).result()
            return [first, *pool.map(double, range(1, 20))]

    return call


WAYS = {
    "map": through_map,
    "map threads": through_threads,
    "map auto": through_auto,
    "imap": through_stream,
    "processes": through_executor(lambda: ProcessPoolExecutor(2)),
    "threads": through_executor(lambda: ThreadPoolExecutor(2)),
    "auto": through_executor(lambda: Executor(2)),
}


def finalizes(frame):
    """Whether the interpreter prints what this call raises, and goes on."""
    by = frame.f_back
    return frame.f_code.co_name == "__del__" or (
        by is not None and by.f_code is weakref.finalize.__call__.__code__
    )


class Tracer:
    """Counts lines of parallax in this thread, and sends SIGINT at one of them.

    Leaving a ``with`` block is a line, too, and what is raised there keeps it from being left: a
    lock would stay locked. The interpreter itself looks at signals before that, and after.
    Finalizers are left out with all that they call: the interpreter prints what they raise and
    goes on, an interrupt as anything else.
    """

    def __init__(self, moment=None, number=signal.SIGINT):
        self.number = number
        self.count = 0
        self.last: dict[object, int] = {}
        self.moment = moment
        self.where = "nowhere"
        self.finalizer = None

    def __call__(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if event == "call" and self.finalizer is None and finalizes(frame):
            self.finalizer = frame
        if event == "return" and frame is self.finalizer:
            self.finalizer = None
        if event == "return":
            self.last.pop(frame, None)
        if event != "line" or frame.f_lineno is None:
            return self
        last, self.last[frame] = self.last.get(frame, 0), frame.f_lineno
        code = linecache.getline(frame.f_code.co_filename, frame.f_lineno).split(maxsplit=1)
        if self.finalizer is None and not (frame.f_lineno < last and code[:1] == ["with"]):
            self.count += 1
            if self.count == self.moment:
                sys.settrace(None)
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                signal.raise_signal(self.number)
        return self

    def run(self, call):
        """Make the call; its results, or the exception that it ended with."""
        sys.settrace(self)
        try:
            return call()
        except (KeyboardInterrupt, LimitError) as error:
            return error
        except SerializationError as error:
            # It came while something was pickled, which calls much code that may raise.
            return error.__cause__
        finally:
            sys.settrace(None)
            self.last.clear()  # these frames would keep a stream that was cut short


def settled():
    """Wait until no warm worker is lent, for as long as a run may need to let go of them."""
    pool = warm_pool("auto")
    until = time.monotonic() + 5
    while (lent := set(pool._alive) - set(pool._idle)) and time.monotonic() < until:
        time.sleep(0.001)
    return not lent


def interrupt(call, moment, number=signal.SIGINT):
    tracer = Tracer(moment, number)
    before = handlers()
    result = tracer.run(call)
    where = f"line {moment}: {tracer.where}"
    assert handlers() == before, where
    if not isinstance(result, KeyboardInterrupt | LimitError):
        assert result == [2 * x for x in range(20)], where
    del result
    assert settled(), where
    assert here().depth == 0, where
    assert call() == [2 * x for x in range(20)], where


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)]


class LimitError(Exception):
    """What a time limit of the program's own raises."""


@pytest.fixture
def alarm():
    """A handler that raises, as that of a decorator for time limits; pytest-timeout has SIGALRM."""

    def ring(number, frame):
        raise LimitError

    before = signal.signal(signal.SIGUSR1, ring)
    yield signal.SIGUSR1
    signal.signal(signal.SIGUSR1, before)


def moments(call, count):
    """That many moments, spread over the call."""
    call()  # what is imported, and started, once
    tracer = Tracer()
    tracer.run(call)
    return [1 + (number * tracer.count) // count for number in range(count)]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", WAYS)
def test_an_interrupt_at_any_line(name):
    """A few moments of each way."""
    for moment in moments(WAYS[name], 3):
        interrupt(WAYS[name], moment)


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", WAYS)
def test_an_interrupt_at_many_lines(name):
    """Scores of moments of each way."""
    for moment in moments(WAYS[name], 80):
        interrupt(WAYS[name], moment)


@pytest.mark.sampled(7)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", WAYS)
def test_a_time_limit_at_any_line(name, alarm):
    """What the handler of another signal raises tears no more apart than Ctrl-C does."""
    for moment in moments(WAYS[name], 20):
        interrupt(WAYS[name], moment, alarm)


class Torn:
    """A socket; a signal's handler raises after a system call, before anybody looks at the result.

    Args:
        sock: the real one.
        calls: counts the calls of all such sockets; the one for 0 raises.
        error: what it raises.
    """

    def __init__(self, sock, calls, error):
        self.sock, self.calls, self.error = sock, calls, error

    def __getattr__(self, name):
        return getattr(self.sock, name)

    def _tear(self, done):
        if next(self.calls) == 0:
            raise self.error
        return done

    def sendmsg(self, *args):
        return self._tear(self.sock.sendmsg(*args))

    def recv_into(self, *args):
        return self._tear(self.sock.recv_into(*args))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("error", [KeyboardInterrupt, LimitError, TimeoutError])
def test_between_a_system_call_and_its_bookkeeping(monkeypatch, error):
    """Nobody knows what was sent, or heard: no later run gets that worker, and its answers."""
    close, owed = ProcessCrew.close, []

    def look(crew, grace):
        if grace >= 1:  # all has come
            owed.extend(worker.owed for worker in crew.workers.values())
        close(crew, grace)

    monkeypatch.setattr(ProcessCrew, "close", look)
    pool, torn = warm_pool("auto"), 0
    for moment in range(12):
        through_map()
        calls = itertools.count(-moment)
        for worker in pool._idle:
            worker.channel.sock = Torn(worker.channel.sock, calls, error)
        with contextlib.suppress(error):
            assert through_map() == [2 * x for x in range(20)], moment
        torn += next(calls) > 0  # a worker that was not idle yet may have had most of the calls
        for worker in pool._idle:
            worker.channel.sock = getattr(worker.channel.sock, "sock", worker.channel.sock)
        for _ in range(3):
            assert through_map() == [2 * x for x in range(20)], moment
        assert set(owed) == {0}, moment
    assert torn > 3


def says(x):
    time.sleep(0.002)
    print("said", x, flush=True)
    return 2 * x


@pytest.mark.parametrize("make", [Executor, ProcessPoolExecutor, ThreadPoolExecutor])
def test_between_a_condition_and_its_block(monkeypatch, capsys, make):
    """The main thread locks none that others need: it might keep it locked."""
    enter, main = threading.Condition.__enter__, threading.get_ident()
    left = [0]

    def torn(condition):
        entered = enter(condition)
        # Not current_thread(): in a thread that starts it would come back here.
        if threading.get_ident() == main:
            left[0] -= 1
            if left[0] < 0:
                raise LimitError
        return entered

    for moment in range(3):
        left[0] = moment
        with make(2) as pool:
            assert pool.submit(says, 1).result(30) == 2
            futures = [pool.submit(says, x) for x in range(30)]
            monkeypatch.setattr(threading.Condition, "__enter__", torn)
            with contextlib.suppress(LimitError):
                assert [future.result(30) for future in futures[:20]] == list(range(0, 40, 2))
            monkeypatch.setattr(threading.Condition, "__enter__", enter)
            assert [future.result(10) for future in futures] == list(range(0, 60, 2))
    assert capsys.readouterr().out.count("said") == 3 * 31
