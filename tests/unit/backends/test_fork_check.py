"""What forks may use is what travels: the check agrees with the encoding, and copies nothing."""

from __future__ import annotations

import functools
import io
import math
import socket
import sys
import threading
import types

import numpy as np
import pytest

from parallax._backends.processes.parent import fork_check
from parallax._transport import codec

LOCK = threading.Lock()


def plain(x):
    return x + 1


def closure(captured):
    def inner(x):
        return x, captured

    return inner


def recursive():
    def inner(x):
        return inner(x - 1) if x else x

    return inner


def of_main(fn, **names):
    """The function as one of the main script, with these globals."""
    space = {**fn.__globals__, "__name__": "__main__", **names}
    made = types.FunctionType(fn.__code__, space, fn.__name__, fn.__defaults__, fn.__closure__)
    made.__module__ = "__main__"
    return made


def reads_data(x):
    return DATA[x]  # noqa: F821 - a global of the main script


DEEP = [[LOCK]] + [0] * 10

TRAVEL = {
    "function": plain,
    "builtin": math.sqrt,
    "lambda": lambda x: x,
    "closure": closure([1, 2]),
    "closure over a module": closure(math),
    "closure over a function": closure(closure(3)),
    "recursive": recursive(),
    "partial": functools.partial(plain, 1),
    "method": "text".join,
    "main": of_main(plain),
    "main that reads": of_main(reads_data, DATA=[1, 2]),
    "main that reads much": of_main(reads_data, DATA=list(range(100_000))),
    "array": closure(np.zeros(1_000_000)),
    "repeating array": closure(np.broadcast_to(2.5, (15_000, 15_000))),
}

STAY = {
    "lock": closure(LOCK),
    "lock in a list": closure(DEEP),
    "lock in a closure of a closure": closure(closure(LOCK)),
    "lock among many": closure([LOCK, *range(5000)]),
    "lock of the main script": of_main(reads_data, DATA=LOCK),
    "default": functools.partial(plain, threading.Event()),
    "generator": closure(x for x in [1]),
    "file": closure(sys.__stderr__),
    "stream": closure(io.TextIOWrapper(io.BytesIO())),
}


@pytest.mark.parametrize("name", TRAVEL)
def test_what_travels(name):
    assert fork_check.weigh(TRAVEL[name], [], [1], [2]) is not None
    if "repeating" not in name:
        codec.encode(TRAVEL[name])


@pytest.mark.parametrize("name", STAY)
def test_what_does_not(name):
    assert fork_check.weigh(STAY[name], [], [], []) is None
    with pytest.raises((TypeError, AttributeError)):
        codec.encode(STAY[name])


@pytest.mark.parametrize(("items", "results"), [([LOCK], []), ([], [LOCK]), ([[DEEP]], [1])])
def test_items_and_results_that_do_not(items, results):
    assert fork_check.weigh(plain, [], items, results) is None


def test_an_open_socket_does_not():
    with socket.socket() as each:
        assert fork_check.weigh(closure(each), [], [], []) is None


def test_globals_of_modules_that_are_read():
    here = sys.modules[__name__]
    assert fork_check.weigh(plain, [(here.__name__, "TRAVEL")], [], []) is not None
    assert fork_check.weigh(plain, [(here.__name__, "DEEP")], [], []) is None


def test_sizes():
    found = fork_check.weigh(plain, [], [b"x" * 1000], [np.zeros(1000)])
    assert 1000 < found.bytes_in < 1100
    assert 8000 < found.bytes_out < 8500
    assert found.callable_bytes == 0.0
