"""When nothing ends for long, one line of the log says what is in flight, and where it is."""

from __future__ import annotations

import functools
import logging
import os
import signal
import time
from pathlib import Path

import pytest

from parallax import (
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    configure,
    options,
    parallel_imap,
    parallel_map,
)

pytestmark = pytest.mark.sampled(2)

BACKENDS = ("serial", "threads", "processes", "spawn", "auto")
LIMIT = 0.25


class Gate(logging.Handler):
    """Opens when the stall is told."""

    def __init__(self, path):
        super().__init__()
        self.path = Path(path)
        self.told = []

    def emit(self, record):
        if record.name == "parallax" and "has finished for" in record.getMessage():
            self.told.append(record)
            self.path.touch()


@pytest.fixture
def gate(tmp_path):
    """A file that appears when a stall is told; who waits for it hangs until then."""
    handler = Gate(tmp_path / "gate")
    logging.getLogger("parallax").addHandler(handler)
    yield handler
    logging.getLogger("parallax").removeHandler(handler)


def hangs_at(bad, path, x):
    """Returns once the stall was told."""
    if x == bad:
        deadline = time.monotonic() + 30
        while not Path(path).exists():
            time.sleep(0.01)
            assert time.monotonic() < deadline, "nobody told of the stall"
    return x


def called(how, limit=LIMIT):
    if how == "spawn":
        return options(stall_warn=limit, start_method="spawn", backend="processes")
    return options(stall_warn=limit, backend=how)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("how", BACKENDS)
def test_a_stall_is_told(how, gate):
    """Once, with the item, who has it and where that is."""
    with called(how, 0):  # workers that import are silent, too
        parallel_map(functools.partial(hangs_at, -1, ""), range(8), max_workers=2)
    with called(how):
        work = functools.partial(hangs_at, 3, str(gate.path))
        assert parallel_map(work, range(8), max_workers=2) == list(range(8))
    (record,) = gate.told
    text = record.getMessage()
    assert record.levelno == logging.WARNING
    assert "item 3" in text
    assert "in hangs_at" in text
    who = {
        "serial": "the caller's thread",
        "threads": "thread parallax-",
        "processes": "worker process ",
        "spawn": "worker process ",
        "auto": "the caller's thread",
    }
    assert who[how] in text
    assert "run_chunk" not in text


@pytest.mark.sampled(2)
@pytest.mark.parametrize("how", BACKENDS)
def test_what_goes_on_is_no_stall(how, gate):
    """However long it takes in all."""
    with called(how, 0):
        parallel_map(time.sleep, [0] * 4, max_workers=1)
    with called(how):
        parallel_map(functools.partial(time.sleep), [0.03] * 12, max_workers=1)
    assert gate.told == []


def test_a_stream_that_nobody_reads_is_no_stall(gate):
    """Its workers wait for the reader, and nothing is in flight."""
    with options(stall_warn=0.2):
        stream = parallel_imap(abs, range(1000), backend="processes", buffersize=4)
        assert next(stream) == 0
        time.sleep(0.3)  # what must not be said has no event
        stream.close()
    assert gate.told == []


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor, Executor])
def test_a_stall_of_an_executor_is_told(kind, gate):
    """With the defaults that were in force when it was made."""
    with options(stall_warn=LIMIT):
        executor = kind(2)
    with executor:
        executor.submit(hangs_at, -1, "", 0).result(30)
        gate.told.clear()  # where a worker starts slowly
        gate.path.unlink(missing_ok=True)
        work = functools.partial(hangs_at, 3, str(gate.path))
        assert [executor.submit(work, n).result(30) for n in range(5)] == list(range(5))
    (record,) = gate.told
    assert "in hangs_at" in record.getMessage()
    assert "no call of an executor" in record.getMessage()


def test_an_executor_that_rests_is_no_stall(gate):
    """A call after a long rest has not been running since."""
    with options(stall_warn=LIMIT):
        executor = ThreadPoolExecutor(1)
    with executor:
        executor.submit(abs, 1).result()
        time.sleep(0.3)
        executor.submit(time.sleep, 0.1).result()
    assert gate.told == []


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="signals")
def test_a_process_that_was_stopped(gate):
    """It does not say where it is: its state does."""

    def stops(x):
        if x == 3:
            os.kill(os.getpid(), signal.SIGSTOP)
        return x

    parallel_map(abs, range(8), backend="processes")
    with options(stall_warn=LIMIT):
        results = parallel_map(
            stops, range(8), backend="processes", item_timeout=1.2, on_error="return"
        )
    assert isinstance(results[3], TimeoutError)
    (record,) = gate.told
    assert "item 3" in record.getMessage()
    assert "SIGSTOP" in record.getMessage()


def test_it_can_be_switched_off(gate):
    """With 0, by ``configure``."""
    configure(stall_warn=0)
    try:
        parallel_map(time.sleep, [0.3], backend="threads")
    finally:
        configure(stall_warn=None)
    assert gate.told == []


@pytest.mark.parametrize("value", [-1, "1", True, float("nan")])
def test_wrong_limits_are_refused(value):
    """Before anything starts."""
    with pytest.raises((TypeError, ValueError), match="stall_warn"):
        configure(stall_warn=value)
