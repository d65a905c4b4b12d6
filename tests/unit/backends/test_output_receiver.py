"""Who passes on what workers said, when a handler is slow, stuck, or comes back here."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading

import pytest

from parallax._backends.processes.common import protocol
from parallax._backends.processes.common.log_records import pack
from parallax._backends.processes.parent import output_receiver as module
from parallax._backends.processes.parent.output_receiver import Ear, Hearing
from parallax._transport.framing import Frame

FIRST, MORE = protocol.FIRST, protocol.MORE


def out(text):
    data = text.encode() if isinstance(text, str) else text
    return Frame(protocol.OUTPUT, protocol.OUT | FIRST, data, [])


def record(message, name="hearing"):
    made = logging.LogRecord(name, logging.INFO, "file.py", 1, message, None, None)
    return Frame(protocol.OUTPUT, protocol.RECORD | FIRST, pack(made, []), [])


class Stream(io.StringIO):
    """Does something at each write, once it has it."""

    def __init__(self, then=lambda: None):
        super().__init__()
        self.then = then

    def write(self, text):
        super().write(text)
        self.then()
        return len(text)


@contextlib.contextmanager
def written(then=lambda: None):
    with contextlib.redirect_stdout(Stream(then)) as stream:
        yield stream


@pytest.fixture
def made():
    hearing = Hearing()
    yield hearing
    hearing.close()


def test_in_order_and_by_this_thread(made):
    ear, threads = Ear(), []
    for number in range(100):
        made.take(ear, out(f"{number}\n"))
    with written(lambda: threads.append(threading.current_thread())) as stream:
        made.tell()
    assert stream.getvalue().split() == [str(number) for number in range(100)]
    assert set(threads) == {threading.current_thread()}
    assert len(threads) == 1  # what was written in a row is written at once


def test_by_another_thread_and_before_it_is_settled(made):
    ear, threads = Ear(), []
    with written(lambda: threads.append(threading.current_thread())) as stream:
        for number in range(100):
            made.take(ear, out(f"{number}\n"))
            made.settle()
            assert stream.getvalue().endswith(f"{number}\n")
    assert threading.current_thread() not in threads


def test_a_handler_that_comes_back_here(made):
    """It is not called again inside itself; what came meanwhile follows."""
    ear = Ear()

    def again():
        if len(stream.getvalue()) < 10:
            made.take(ear, out("."))
            made.tell()
            made.settle()

    made.take(ear, out("."))
    with written(again) as stream:
        made.tell()
    assert stream.getvalue() == "." * 10


def test_a_handler_that_is_stuck_holds_up_nobody(made, monkeypatch):
    """Those who wait for it go on, each as soon as one has waited in vain; nothing gets lost."""
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    ear, stuck, free = Ear(), threading.Event(), threading.Event()
    waited = []

    def block():
        stuck.set()
        if not free.wait(30.0):
            raise AssertionError("nobody went on")

    with written(block) as stream:
        made.take(ear, out("first\n"))
        made.pass_on()
        assert stuck.wait(30.0)
        made.take(ear, out("second\n"))
        for wait in (made.tell, made.settle, made.pass_on):
            wait()
            waited.append(stream.getvalue())
        free.set()
        with made._change:
            assert made._change.wait_for(lambda: not made._size, 30.0)
    assert waited == ["first\n"] * 3
    assert stream.getvalue() == "first\nsecond\n"


def test_too_much_is_waited_for(made, monkeypatch):
    """Whoever reads a worker's socket must not read faster than a handler writes."""
    monkeypatch.setattr(module, "MUCH", 10_000)
    monkeypatch.setattr(module, "TOGETHER", 1)
    sizes = []
    with written() as stream:
        for _ in range(100):
            made.take(Ear(), out("x" * 1000))
            made.pass_on()
            sizes.append(made._size)
        made.settle()
    assert max(sizes) < 20_000
    assert len(stream.getvalue()) == 100_000


def test_closing_says_the_rest():
    hearing, ear = Hearing(), Ear()
    with written() as stream:
        hearing.take(ear, out("a"))
        hearing.pass_on()
        hearing.take(ear, out("b"))
        hearing.close()
    assert stream.getvalue() == "ab"
    assert "parallax-voices" not in [thread.name for thread in threading.enumerate()]


def test_no_thread_is_to_be_had(made, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with written() as stream:
        made.take(Ear(), out("a"))
        made.settle()
    assert stream.getvalue() == "a"


def test_ending_the_program_from_a_handler(made):
    """Reaches whoever waits in the main thread; in another one it is a complaint."""
    ear = Ear()

    def leave():
        raise SystemExit(3)

    with written(leave), contextlib.redirect_stderr(io.StringIO()) as err:
        made.take(ear, out("a"))
        made.settle()
        assert "SystemExit: 3" in err.getvalue()
        made.take(ear, out("b"))
        made.take(ear, record("c"))
        with pytest.raises(SystemExit):
            made.tell()
    made.tell()  # the rest is not lost, and somebody else may be the next


def test_a_program_without_output(made, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    made.take(Ear(), out("a"))
    made.tell()


# -- parts -----------------------------------------------------------------------------------------


def test_characters_in_parts():
    ear = Ear()
    assert ear.text(protocol.OUT, "a\u20ac".encode()[:-1]) == "a"
    assert ear.text(protocol.ERR, b"b") == "b"
    assert ear.text(protocol.OUT, "\u20ac".encode()[-1:]) == "\u20ac"
    assert ear.text(protocol.OUT, b"\xed\xb2\x80\xff\xe2(") == "\udc80\\xff\\xe2("


def test_records_in_parts():
    ear = Ear()
    assert ear.whole(FIRST, b"one") == b"one"
    assert ear.whole(FIRST | MORE, b"bro") is None
    assert ear.whole(FIRST | MORE, b"t") is None  # an exception broke the one before off
    assert ear.whole(MORE, b"w") is None
    assert ear.whole(0, b"o") == b"two"
    assert ear.whole(0, b"rest of one that was broken off") is None
