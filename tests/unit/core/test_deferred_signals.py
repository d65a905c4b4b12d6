"""The shield: handlers run after its block, each once, and are back in their places."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading

import pytest

from parallax._core import deferred_signals
from parallax._core.deferred_signals import Shield
from parallax._core.futures import _Condition

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class RangError(Exception):
    """What a handler raises."""


@pytest.fixture
def rang():
    """Handlers that note their calls, and raise; the calls so far."""
    calls: list[int] = []

    def ring(number, frame):
        calls.append(number)
        raise RangError(number)

    before = [(number, signal.signal(number, ring)) for number in NUMBERS]
    yield calls
    now = [signal.getsignal(number) for number in NUMBERS]
    for each in before:
        signal.signal(*each)
    assert now == [ring] * len(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_handler_raises_at_the_end(rang, number):
    """Of a block that has run through."""
    steps = []
    with pytest.raises(RangError), Shield():
        signal.raise_signal(number)
        steps.append(list(rang))
    assert steps == [[]]
    assert rang == [number]


def test_several_signals(rang):
    """All handlers run, even if the first of them raises."""
    with pytest.raises(RangError), Shield():
        for number in (*NUMBERS, *NUMBERS):
            signal.raise_signal(number)
        assert rang == []
    assert sorted(rang) == sorted(NUMBERS)


def test_an_error_of_the_block(rang):
    """It is the context of what the handler raises."""
    with pytest.raises(RangError) as info, Shield():
        signal.raise_signal(signal.SIGTERM)
        raise ValueError
    assert isinstance(info.value.__context__, ValueError)


def test_what_is_ignored_stays_ignored(rang):
    """There is nothing to be called."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Shield():
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    signal.signal(signal.SIGTERM, before)
    assert rang == []


def test_lifted(rang):
    """What came before is called then; the program may change its handlers meanwhile."""
    steps = []
    with Shield() as shield:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(RangError), shield.lifted():
            steps.append("not reached")
        assert rang == [signal.SIGINT]
        with shield.lifted():
            changed = signal.signal(signal.SIGTERM, lambda *_: steps.append("changed"))
        signal.raise_signal(signal.SIGTERM)
        assert steps == []
    assert steps == ["changed"]
    signal.signal(signal.SIGTERM, changed)


def test_other_threads(rang):
    """Handlers run in the main thread only, so there is nothing to hold."""
    seen = []

    def shielded():
        with Shield():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=shielded)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
    assert rang == []


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("after", [False, True])
def test_a_signal_at_each_step(rang, monkeypatch, number, after):
    """While handlers are exchanged: all are put back, and the one that it is for runs, once."""
    exchange = signal.signal

    class Signals:
        getsignal = staticmethod(signal.getsignal)

        @staticmethod
        def signal(which, handler):
            now = next(steps) == moment
            if now and not after:
                signal.raise_signal(number)
            result = exchange(which, handler)
            if now and after:
                signal.raise_signal(number)
            return result

    monkeypatch.setattr(deferred_signals, "signals", Signals)
    for moment in range(4 * len(NUMBERS)):
        steps = itertools.count()
        try:
            with Shield():
                pass
        except RangError:
            pass
        came = next(steps) > moment
        assert rang == [number] * came, moment
        rang.clear()
    assert moment > 2 * len(NUMBERS)


def test_another_interpreter(rang, monkeypatch):
    """Its main thread runs no handlers, and may set none."""

    class Signals:
        getsignal = staticmethod(signal.getsignal)

        @staticmethod
        def signal(which, handler):
            raise ValueError("signal only works in main thread of the main interpreter")

    monkeypatch.setattr(deferred_signals, "signals", Signals)
    steps = []
    with Shield() as shield:
        with shield.lifted():
            steps.append("lifted")
        steps.append("held")
    assert steps == ["lifted", "held"]
    assert rang == []


def test_a_futures_condition_runs_no_python_code_while_it_is_entered_and_left():
    """There is no bytecode at which a signal could come and keep it locked."""
    frames = []
    condition = _Condition()
    with condition:  # it works as one
        condition.notify_all()
    sys.setprofile(lambda frame, event, arg: frames.append(frame) if event == "call" else None)
    with condition:
        pass
    sys.setprofile(None)
    assert frames == []
    assert condition.acquire(blocking=False)
    condition.release()
