"""Running functions at the same moment in several threads, which take turns as often as can be."""

from __future__ import annotations

import contextlib
import sys
import threading

#: Seconds between two offers of the GIL. Each bytecode that may be interrupted soon is.
SWITCH_S = 1e-6


@contextlib.contextmanager
def switching():
    """Threads take turns all the time; without effect where there is no GIL."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def together(*functions, rounds=1):
    """Call each function in a thread of its own, ``rounds`` times, all beginning each at once.

    Returns:
        The results by round, in the order of the functions. Raises the first error of any.
    """
    begin = threading.Barrier(len(functions))
    results = [[None] * len(functions) for _ in range(rounds)]
    errors = []

    def work(place, function):
        try:
            for number in range(rounds):
                begin.wait(30.0)
                results[number][place] = function()
        except threading.BrokenBarrierError:
            return
        except BaseException as error:
            errors.append(error)
            begin.abort()

    threads = [
        threading.Thread(target=work, args=(place, function))
        for place, function in enumerate(functions)
    ]
    with switching():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60.0)
    if errors:
        raise errors[0]
    return results
