"""Structures that several threads use at once: what relied on the GIL would show here."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import functools
import gc
import itertools
import os
import queue
import socket
import sys
import threading

import numpy as np
import pytest
from helpers.races import together
from helpers.shm import lent, sender_and_receiver, slab_sender
from helpers.shm import view as array_of

from parallax import configure
from parallax._adaptive.functions import CALLS_PER_INSPECTION, FunctionState
from parallax._backends.contract import Call, CrewSetup
from parallax._backends.processes.parent import environment_capture
from parallax._backends.thread_engine import ThreadEngine
from parallax._backends.thread_workers import ThreadCrew
from parallax._core import options as options_module
from parallax._core.nesting import Place, here
from parallax._core.weak_table import WeakTable
from parallax._shm import arena
from parallax._shm.dedup import Deduplicator
from parallax._shm.segment import Segment
from parallax._transport.wakeup import Waker


class Thing:
    """Something that can be referenced weakly."""


def test_a_weak_table_is_read_while_others_add_and_drop():
    table = WeakTable()
    kept = [Thing() for _ in range(20)]
    for number, thing in enumerate(kept):
        table.add(thing, number)

    def come_and_go():
        for _ in range(100):
            things = [Thing() for _ in range(5)]
            for thing in things:
                table.add(thing, -1)

    def look():
        for _ in range(100):
            found = [value for _, value in table.living() if value >= 0]
            assert found == list(range(20))

    together(come_and_go, look, come_and_go, look)
    gc.collect()
    assert [value for _, value in table.living()] == list(range(20))


class Meeting(dict):
    """A dictionary whose users meet when each has removed something, if they are let."""

    def __init__(self, users):
        super().__init__()
        self.barrier = threading.Barrier(users)

    def pop(self, *args):
        value = super().pop(*args)
        with contextlib.suppress(threading.BrokenBarrierError):
            self.barrier.wait(0.1)
        return value


def test_the_last_two_views_end_at_once():
    """The memory of a sender that is gone is closed once: the number may be another file's soon."""
    closed = []

    class Counted(Segment):
        def close(self):
            closed.append(self.handle)
            super().close()

    with sender_and_receiver(private=False) as (ours, receiver):
        receiver._segment.__class__ = Counted
        receiver._views = Meeting(2)
        slabs = [lent(ours, n) for n in range(2)]
        ready = threading.Barrier(3)

        def hold(slab):
            view = [array_of(receiver, slab)]
            ready.wait(30.0)  # made
            ready.wait(30.0)  # abandoned
            view.clear()

        def abandon():
            ready.wait(30.0)
            receiver.abandon()
            assert closed == []
            ready.wait(30.0)

        together(*(functools.partial(hold, slab) for slab in slabs), abandon)
        gc.collect()
        assert len(closed) == 1


def test_views_of_one_buffer_end_at_once():
    """Each is counted, or a later item would see what an earlier one wrote."""
    with sender_and_receiver(private=True) as (ours, receiver):
        slab = lent(ours, 3)
        made = threading.Lock()

        def use():
            for _ in range(300):
                with made:  # one thread reads a channel at a time
                    view = [array_of(receiver, slab)]
                view.clear()

        together(use, use, use)
        gc.collect()
        assert receiver._users == {}
        assert receiver._views == {}
        assert receiver.take_returns() == [slab.extent.start] * 900


def test_owners_die_while_buffers_are_found_again():
    with slab_sender() as sender:
        dedup = Deduplicator(sender)
        sent = queue.SimpleQueue()

        def own():
            done = queue.SimpleQueue()
            for number in range(100):
                data = [np.full(1 << 16, number, np.uint8)]
                sent.put((data[0], done))
                done.get()
                data.clear()
            sent.put(None)

        def send():
            for _ in range(3):
                while (entry := sent.get()) is not None:
                    data, done = entry
                    assert dedup.slab(memoryview(data)) is not None
                    del data, entry
                    done.put(None)

        together(send, own, own, own)
        gc.collect()
        assert not dedup._recent


@pytest.fixture
def own_arena(monkeypatch):
    for name in ("_senders", "_trimmers", "_refused"):
        monkeypatch.setattr(arena, name, [])
    yield
    arena.reset()


def test_one_trimmer_for_all_threads(own_arena, monkeypatch):
    """Of threads that send large data at once one starts it; a thread can be started only once."""
    monkeypatch.setattr(arena, "SURPLUS_KEPT_S", 0.0)
    meeting, made = threading.Barrier(2), []

    class Thread(threading.Thread):
        def __init__(self, **settings):
            super().__init__(**settings)
            if self.name == "parallax-pool-memory":
                made.append(self)
                with contextlib.suppress(threading.BrokenBarrierError):
                    meeting.wait(0.1)

    trimmer = arena._IdleTrimmer()
    with monkeypatch.context() as patch:
        patch.setattr(arena.threading, "Thread", Thread)
        together(*[functools.partial(trimmer.on_allocate, large=True)] * 2)
    (thread,) = made
    thread.join(30.0)


def test_the_arena_is_wanted_again_as_it_closes(own_arena, monkeypatch):
    """Whoever asks gets one that is open and stays so."""
    close, begun, asked = arena._close_senders, threading.Event(), threading.Event()

    def slowly():
        begun.set()
        asked.wait(0.1)
        close()

    monkeypatch.setattr(arena, "_close_senders", slowly)

    def release():
        slab = [arena.arena_sender().reserve(1 << 16, 0)]
        arena.release_when_unused()
        slab.clear()

    def ask():
        begun.wait(30.0)
        found = arena.arena_sender()
        asked.set()
        return found

    _, found = together(release, ask)[0]
    assert not found._closed


class Switching(str):
    """An argument of the program that lets other threads run when it is compared."""

    during = None

    def __eq__(self, other):
        do, Switching.during = Switching.during, None
        if do is not None:
            do()
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_each_thread_gets_the_settings_that_it_captured(monkeypatch):
    """Though another thread has captured its own meanwhile."""
    one, two = Place(level=1, depth=1), Place(level=2, depth=2)
    monkeypatch.setattr(sys, "argv", [Switching("program")])
    capture = environment_capture.capture_environment
    expected = capture(one)
    Switching.during = lambda: capture(two)
    assert capture(one) == expected


def test_variables_come_and_go_while_they_are_captured(monkeypatch):
    done = threading.Event()

    def change():
        while not done.is_set():
            os.environ["RACE"] = "1"
            del os.environ["RACE"]

    def capture():
        try:
            for _ in range(200):
                environment_capture._variables()
        finally:
            done.set()

    together(change, capture)
    os.environ.pop("RACE", None)


def test_defaults_are_replaced_as_a_whole(monkeypatch):
    """A call never finds the moment between the old defaults and the new ones."""
    monkeypatch.setattr(options_module, "_configured", {"retries": 7})

    def set_them():
        for _ in range(200):
            configure(max_workers=3)

    def read_them():
        for _ in range(200):
            assert options_module.resolve({}).retries == 7

    together(set_them, read_them, read_them)


def test_no_inspection_is_skipped():
    """The guard looks again after so many calls, however many threads count them."""

    class Counted(FunctionState):
        stored = 0

        @property
        def _calls(self):
            return self.stored

        @_calls.setter
        def _calls(self, number):
            # Another thread counts a call before this one looks.
            self.stored = number + (number == CALLS_PER_INSPECTION)

    function = Counted(None, frozenset())
    assert sum(function.inspection_due() for _ in range(CALLS_PER_INSPECTION)) == 1


def test_a_wake_as_the_waker_closes():
    class Closing(Waker):
        """Closed by another thread as soon as somebody has looked at its sockets."""

        @property
        def _pair(self):
            found, self.pair = self.pair, None
            return found

        @_pair.setter
        def _pair(self, pair):
            self.pair = pair

    waker = Closing()
    waker.pair = ends = socket.socketpair()
    waker._ring()
    for end in ends:
        end.close()


def test_threads_are_looked_at_while_others_start():
    """What the stall monitor does, which has no lock of the run."""
    numbers, done = itertools.count(1), threading.Event()
    call = Call(abs, star=False, stop=True)
    context = contextvars.copy_context()
    crew = ThreadCrew(CrewSetup(lambda _: None, call, lambda: next(numbers), here(), context))

    def look():
        while not done.is_set():
            for worker in range(100):
                crew.where(worker)
            crew.delay()

    def start():
        try:
            crew.open(100)
        finally:
            done.set()

    together(start, look)
    crew.close(5.0)


def test_every_call_of_an_engine_runs_once():
    """Submitted, cancelled and waited for from all sides."""
    engine = ThreadEngine(4, name="races", broken=RuntimeError)
    ran = collections.Counter()
    ended = []

    def submit():
        mine = []
        for number in range(200):
            key = threading.get_ident(), number
            mine.append((key, engine.submit(lambda key=key: ran.update([key]), (), {})))
            if not number % 3:
                mine[-1][1].cancel()
        for key, future in mine:
            if not future.cancelled():
                future.result(30.0)
            ended.append((key, future.cancelled()))

    together(submit, submit, submit)
    engine.shutdown(wait=True, cancel=False)
    assert len(ended) == 600
    assert all((key in ran) != cancelled for key, cancelled in ended)
    assert set(ran.values()) <= {1}
