"""A wake is never lost, whenever it comes."""

from __future__ import annotations

import selectors
import threading

import pytest

from parallax._transport.wakeup import Waker


@pytest.fixture
def selector():
    """What waits."""
    with selectors.DefaultSelector() as made:
        yield made


@pytest.fixture
def waker(selector):
    """What wakes it."""
    made = Waker()
    made.attach(selector)
    yield made
    made.close()


class Interfered:
    """A socket; something happens just before it is read."""

    def __init__(self, sock, happens):
        self.sock = sock
        self.happens = happens

    def recv(self, size):
        self.happens()
        return self.sock.recv(size)

    def close(self):
        self.sock.close()


def test_a_wake_ends_a_wait_and_is_forgotten(selector, waker):
    waker.wake()
    waker.wake()
    assert selector.select(5)
    waker.clear()
    assert not selector.select(0)


def test_a_wake_while_earlier_ones_are_forgotten(selector, waker):
    """It may count as one of them; the next one must not."""
    theirs, ours = waker._pair
    waker._pair = Interfered(theirs, waker.wake), ours
    waker.clear()
    waker.wake()
    assert selector.select(5)


def test_a_wake_before_there_is_a_selector(selector):
    waker = Waker()
    waker.wake()
    waker.attach(selector)
    assert selector.select(5)
    waker.close()


def test_waiting_without_a_selector():
    waker = Waker()
    waker.wait(0.0)
    thread = threading.Thread(target=waker.wake)
    thread.start()
    waker.wait(30)
    thread.join()
    waker.clear()
    waker.wait(0.0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
@pytest.mark.parametrize("sent", [False, True])
def test_an_exception_in_the_middle_of_a_wake(selector, waker, error, sent):
    """By the handler of a signal; the wait ends all the same, and so does the next one."""
    theirs, ours = waker._pair

    class Torn:
        def send(self, data):
            waker._pair = theirs, ours
            if sent:
                ours.send(data)
            raise error

    waker._pair = theirs, Torn()
    with pytest.raises(error):
        waker.wake()
    assert selector.select(5)
    waker.clear()
    waker.wake()
    assert selector.select(5)
