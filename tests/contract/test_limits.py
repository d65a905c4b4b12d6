"""Timeouts, read-ahead, streams, progress: what bounds a run and what is told of it."""

from __future__ import annotations

import functools
import gc
import itertools
import threading
import time
import weakref
from pathlib import Path

import jobs
import psutil
import pytest

from parallax import ItemTimeoutError, parallel_imap, parallel_map
from parallax._core.cores import gil_enabled

pytestmark = pytest.mark.sampled(2)

# -- time ------------------------------------------------------------------------------------------


@pytest.mark.sampled(2)
def test_timeout(backend):
    """The call's time is over: TimeoutError that says how much was done."""
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"timeout=0\.2"):
        parallel_map(functools.partial(_wait, 0.05), range(400), timeout=0.2, backend=backend)
    assert time.monotonic() - begin < 5
    assert parallel_map(jobs.square, range(5), backend=backend) == [0, 1, 4, 9, 16]


def _wait(seconds, x):
    time.sleep(seconds)
    return x


def test_timeout_that_is_not_reached(backend):
    """A generous timeout changes nothing."""
    got = parallel_map(jobs.nap_square, range(20), timeout=60, backend=backend)
    assert got == [x * x for x in range(20)]


@pytest.mark.variants("processes", "spawn", "auto")
def test_item_timeout(backend, eventually):
    """One endless item of 40 fails alone, its process is gone, the others come back."""
    got = parallel_map(
        functools.partial(jobs.endless_at, 7),
        range(40),
        item_timeout=0.3,
        on_error="return",
        backend=backend,
    )
    error = got[7]
    assert type(error) is ItemTimeoutError
    assert (error.index, error.seconds) == (7, 0.3)
    assert eventually(lambda: not _runs(error.pid))
    assert got[:7] + got[8:] == [x for x in range(40) if x != 7]


def _runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.variants("processes", "spawn", "auto")
def test_item_timeout_raises(backend):
    """With ``on_error="raise"`` the overrun is the call's error."""
    with pytest.raises(ItemTimeoutError, match="item 2 ran longer than item_timeout"):
        parallel_map(
            functools.partial(jobs.endless_at, 2), range(10), item_timeout=0.3, backend=backend
        )


@pytest.mark.variants("serial", "threads", "executor")
def test_item_timeout_is_refused_where_it_cannot_be_kept(backend):
    """Where nothing can be ended an item timeout is refused, never ignored."""
    with pytest.raises(ValueError, match="item_timeout cannot be kept"):
        parallel_map(jobs.square, range(3), item_timeout=1, backend=backend)


# -- streams ---------------------------------------------------------------------------------------


class _Source:
    """A generator of numbers that knows how far it is ahead of its reader."""

    def __init__(self, numbers):
        self.numbers = numbers
        self.taken = 0
        self.read = 0
        self.ahead = 0

    def __iter__(self):
        for number in self.numbers:
            self.taken += 1
            self.ahead = max(self.ahead, self.taken - self.read)
            yield number


@pytest.mark.parametrize("buffersize", [1, 2, 5, 16])
@pytest.mark.parametrize("ordered", [True, False])
def test_read_ahead_is_bounded(backend, buffersize, ordered):
    """The source is never more than ``buffersize`` items ahead of the reader."""
    source = _Source(range(60))
    got = []
    for value in parallel_imap(
        jobs.square, source, buffersize=buffersize, ordered=ordered, backend=backend
    ):
        got.append(value)
        source.read += 1
    assert sorted(got) == [x * x for x in range(60)]
    assert source.ahead <= buffersize


def test_endless_input(backend):
    """An endless input is fine, and little of it is read."""
    source = _Source(itertools.count())
    stream = parallel_imap(jobs.square, source, backend=backend)
    assert [next(stream) for _ in range(20)] == [x * x for x in range(20)]
    stream.close()
    assert source.taken < 100_000


@pytest.mark.sampled(3)
def test_endless_input_of_slow_items(backend):
    """The same with items that are worth workers."""
    stream = parallel_imap(jobs.spin_square, itertools.count(), backend=backend)
    assert [next(stream) for _ in range(20)] == [x * x for x in range(20)]
    stream.close()


def test_nothing_is_read_before_the_first_next(backend):
    """A stream that is never read takes nothing from its input."""
    source = _Source(range(10))
    stream = parallel_imap(jobs.square, source, backend=backend)
    assert source.taken == 0
    del stream


def test_unordered(backend):
    """``ordered=False`` gives every result once."""
    stream = parallel_imap(jobs.nap_square, range(30), ordered=False, backend=backend)
    assert sorted(stream) == [x * x for x in range(30)]


@pytest.mark.variants("threads", "processes", "spawn", "executor")
def test_unordered_does_not_wait_for_a_slow_item(backend, tmp_path):
    """Finished results come while an earlier item still runs; one chunk may queue behind it."""
    gate = str(tmp_path / "gate")
    stream = parallel_imap(
        functools.partial(_waits_for, gate),
        range(6),
        ordered=False,
        backend=backend,
        chunksize=1,
        max_workers=2,
    )
    got = [next(stream) for _ in range(4)]
    assert 0 not in got
    Path(gate).touch()
    assert sorted([*got, *stream]) == [0, 1, 2, 3, 4, 5]


def _waits_for(gate, x):
    deadline = time.monotonic() + 8
    while x == 0 and not Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return x


@pytest.mark.sampled(3)
@pytest.mark.parametrize("read", [0, 1, 7])
@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_stream_that_is_left_early_leaves_nothing(backend, read, how):
    """Closing or dropping a stream ends its workers; the leak fixture looks after it."""
    stream = parallel_imap(jobs.nap_square, itertools.count(), backend=backend)
    for _ in range(read):
        next(stream)
    if how == "close":
        stream.close()
        assert list(stream) == []
    del stream


def test_read_results_are_not_kept_alive(backend, eventually):
    """A result that was read and dropped is gone: a long stream needs little memory."""
    stream = parallel_imap(jobs.Thing, range(30), backend=backend)
    for number in range(30):
        thing = next(stream)
        assert thing.number == number
        ref = weakref.ref(thing)
        del thing
        if not gil_enabled():
            gc.collect()  # else a thread that idles keeps what it made until it has work again
        assert eventually(lambda ref=ref: ref() is None, 2.0)


def test_read_items_are_not_kept_alive(backend, eventually):
    """Nor are items whose results were read."""
    refs = []

    def source():
        for number in range(20):
            thing = jobs.Thing(number)
            refs.append(weakref.ref(thing))
            yield thing
            del thing

    stream = parallel_imap(_number, source(), buffersize=4, backend=backend)
    for number in range(10):
        assert next(stream) == number
    assert eventually(lambda: not any(ref() for ref in refs[:9]), 2.0)
    stream.close()


def _number(thing):
    return thing.number


def test_a_stream_may_move_between_threads(backend):
    """A stream that was begun in one thread can be read on in another."""
    stream = parallel_imap(jobs.nap_square, range(30), backend=backend)
    got = [next(stream), next(stream)]
    thread = threading.Thread(target=lambda: got.extend(stream))
    thread.start()
    thread.join(20)
    assert got == [x * x for x in range(30)]


@pytest.mark.sampled(5)
def test_two_streams_at_once(backend):
    """Two streams read in turns do not wait for each other."""
    first = parallel_imap(jobs.nap_square, range(12), backend=backend)
    second = parallel_imap(jobs.spin_square, range(12), backend=backend)
    assert list(zip(first, second, strict=True)) == [(x * x, x * x) for x in range(12)]
