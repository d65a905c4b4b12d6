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
from parallax._backends.processes.parent.output_receiver import OutputDecoder, OutputReceiver
from parallax._transport.framing import Frame

FIRST, MORE = protocol.FIRST, protocol.MORE


def out(text):
    data = text.encode() if isinstance(text, str) else text
    return Frame(protocol.OUTPUT, protocol.OUT | FIRST, data, [])


def record(message, name="output"):
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
    output = OutputReceiver()
    yield output
    output.close()


def test_in_order_and_by_this_thread(made):
    decoder, threads = OutputDecoder(), []
    for number in range(100):
        made.receive(decoder, out(f"{number}\n"))
    with written(lambda: threads.append(threading.current_thread())) as stream:
        made.deliver()
    assert stream.getvalue().split() == [str(number) for number in range(100)]
    assert set(threads) == {threading.current_thread()}
    assert len(threads) == 1  # what was written in a row is written at once


def test_by_another_thread_and_before_it_is_settled(made):
    decoder, threads = OutputDecoder(), []
    with written(lambda: threads.append(threading.current_thread())) as stream:
        for number in range(100):
            made.receive(decoder, out(f"{number}\n"))
            made.wait_delivered()
            assert stream.getvalue().endswith(f"{number}\n")
    assert threading.current_thread() not in threads


def test_a_handler_that_comes_back_here(made):
    """It is not called again inside itself; what came meanwhile follows."""
    decoder = OutputDecoder()

    def again():
        if len(stream.getvalue()) < 10:
            made.receive(decoder, out("."))
            made.deliver()
            made.wait_delivered()

    made.receive(decoder, out("."))
    with written(again) as stream:
        made.deliver()
    assert stream.getvalue() == "." * 10


def test_a_handler_that_is_stuck_holds_up_nobody(made, monkeypatch):
    """Those who wait for it go on, each as soon as one has waited in vain; nothing gets lost."""
    monkeypatch.setattr(module, "PROGRESS_TIMEOUT_S", 0.05)
    decoder, stuck, free = OutputDecoder(), threading.Event(), threading.Event()
    waited = []

    def block():
        stuck.set()
        if not free.wait(30.0):
            raise AssertionError("nobody went on")

    with written(block) as stream:
        made.receive(decoder, out("first\n"))
        made.deliver_soon()
        assert stuck.wait(30.0)
        made.receive(decoder, out("second\n"))
        for wait in (made.deliver, made.wait_delivered, made.deliver_soon):
            wait()
            waited.append(stream.getvalue())
        free.set()
        with made._change:
            assert made._change.wait_for(lambda: not made._size, 30.0)
    assert waited == ["first\n"] * 3
    assert stream.getvalue() == "first\nsecond\n"


def test_too_much_is_waited_for(made, monkeypatch):
    """Whoever reads a worker's socket must not read faster than a handler writes."""
    monkeypatch.setattr(module, "MAX_WAITING_OUTPUT_BYTES", 10_000)
    monkeypatch.setattr(module, "MAX_WRITE_BYTES", 1)
    sizes = []
    with written() as stream:
        for _ in range(100):
            made.receive(OutputDecoder(), out("x" * 1000))
            made.deliver_soon()
            sizes.append(made._size)
        made.wait_delivered()
    assert max(sizes) < 20_000
    assert len(stream.getvalue()) == 100_000


def test_closing_says_the_rest():
    output, decoder = OutputReceiver(), OutputDecoder()
    with written() as stream:
        output.receive(decoder, out("a"))
        output.deliver_soon()
        output.receive(decoder, out("b"))
        output.close()
    assert stream.getvalue() == "ab"
    assert "parallax-voices" not in [thread.name for thread in threading.enumerate()]


def test_no_thread_is_to_be_had(made, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with written() as stream:
        made.receive(OutputDecoder(), out("a"))
        made.wait_delivered()
    assert stream.getvalue() == "a"


def test_ending_the_program_from_a_handler(made):
    """Reaches whoever waits in the main thread; in another one it is a complaint."""
    decoder = OutputDecoder()

    def leave():
        raise SystemExit(3)

    with written(leave), contextlib.redirect_stderr(io.StringIO()) as err:
        made.receive(decoder, out("a"))
        made.wait_delivered()
        assert "SystemExit: 3" in err.getvalue()
        if (thread := made._thread) is not None:
            thread.join(30.0)  # else it may be the one that delivers the rest
        made.receive(decoder, out("b"))
        made.receive(decoder, record("c"))
        with pytest.raises(SystemExit):
            made.deliver()
    made.deliver()  # the rest is not lost, and somebody else may be the next


def test_a_program_without_output(made, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    made.receive(OutputDecoder(), out("a"))
    made.deliver()


# -- parts -----------------------------------------------------------------------------------------


def test_characters_in_parts():
    decoder = OutputDecoder()
    assert decoder.text(protocol.OUT, "a\u20ac".encode()[:-1]) == "a"
    assert decoder.text(protocol.ERR, b"b") == "b"
    assert decoder.text(protocol.OUT, "\u20ac".encode()[-1:]) == "\u20ac"
    assert decoder.text(protocol.OUT, b"\xed\xb2\x80\xff\xe2(") == "\udc80\\xff\\xe2("


def test_records_in_parts():
    decoder = OutputDecoder()
    assert decoder.record(FIRST, b"one") == b"one"
    assert decoder.record(FIRST | MORE, b"bro") is None
    assert decoder.record(FIRST | MORE, b"t") is None  # an exception broke the one before off
    assert decoder.record(MORE, b"w") is None
    assert decoder.record(0, b"o") == b"two"
    assert decoder.record(0, b"rest of one that was broken off") is None
