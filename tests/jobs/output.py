"""Callables that print, log and warn, in a module that workers import quickly."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

from parallax import ProcessPoolExecutor

log = logging.getLogger("output.jobs")

#: A logger to which this module gives a handler, as many do: in workers, too.
own = logging.getLogger("output.own")
own.addHandler(logging.StreamHandler())


class Careful(UserWarning):
    """A category that only this module knows."""


class Alarm(BaseException):
    """An exception that the handlers of logging do not catch."""


class Odd:
    """Something that pickles."""

    def __eq__(self, other):
        return type(other) is Odd

    def __hash__(self):
        return 1


class Unloadable:
    """Something that pickles, and then does not unpickle."""

    def __reduce__(self):
        return int, ("no number",)

    def __repr__(self):
        return "<unloadable>"


def informs(x):
    log.info("item %d of %s", x, "output")
    log.debug("not wanted")
    return os.getpid()


def informs_loudly(x):
    """Log ``x`` records."""
    for number in range(x):
        log.info("%d of %d", number, x)
    return x


def fails_and_logs(x):
    try:
        return 1 // x
    except ZeroDivisionError:
        log.exception("cannot divide by %d", x, stack_info=True)
    return None


def logs_odd_things(x):
    lock = threading.Lock()
    adapter = logging.LoggerAdapter(log, {"odd": Odd(), "lock": lock, "unloadable": Unloadable()})
    adapter.info("%s and %s", Odd, lock)
    log.warning("not a %d", "number")
    return x


def logs_by_others(x):
    """A logger that does not propagate in the program, and one that has a handler here, too."""
    logging.getLogger("output.apart").warning("apart %d", x)
    own.warning("own %d", x)
    return x


def prints(x):
    print("out", x)
    print("err", x, file=sys.stderr)
    return x


def prints_parts(x):
    """Print lines in parts, bytes, and text that cannot be encoded."""
    print("a", x, sep="", end="")
    print("b\nc\u20ac", end="")
    sys.stdout.buffer.write(b"\xff\n")
    print("\udc80\N{SNOWMAN}")
    return x


def prints_much(count, x):
    """Print ``count`` lines of 100 bytes, in writes of 1 to 1000 lines."""
    line = "x" * 99 + "\n"
    left, size = count, 1
    while left:
        size = min(left, size * 10 if size < 1000 else 1)
        sys.stdout.write(line * size)
        left -= size
    return x


def warns(x):
    warnings.warn("carefully", Careful, stacklevel=1)
    warnings.warn(f"deprecated {x}", DeprecationWarning, stacklevel=1)
    return x


def says_all(x):
    """Print, log and warn in turns."""
    for turn in range(3):
        print("part", x, turn, end="")
        log.info("log %d %d", x, turn)
        print()
        print("print", x, turn)
        warnings.warn(f"warn {x} {turn}", Careful, stacklevel=1)
    return x


def says_by_threads(x):
    """Log from several threads of an item at once."""
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(informs_loudly, [50] * 3))
        print("done", x)
    return bytes(300_000)


def leaves_a_thread(x):
    """Leave a thread that logs after the item has ended."""
    go = threading.Event()

    def speak():
        go.wait(0.02)
        log.info("after %d", x)

    threading.Thread(target=speak).start()
    return x


def forks(x):
    """Print and log in a fork of the worker."""
    pid = os.fork()
    if pid == 0:
        try:
            print("child", x, flush=True)
            log.info("child %d", x)
            sys.stdout.flush()
        finally:
            os._exit(7)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    log.info("parent %d", x)
    return code


def dies(x):
    print("last words", x)
    log.error("dying")
    if x == 2:
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    return x


def signalled(x):
    """A signal handler that logs and raises while the item logs and prints."""

    def handler(*_):
        log.info("signal")
        raise Alarm

    signal.signal(signal.SIGALRM, handler)
    caught = 0
    while caught < 20:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0002 + 0.00005 * caught)
            for number in range(1000):
                log.info("%d", number)
                print(number)
        except Alarm:
            caught += 1
    return x


def prints_pid(x):
    print("out", x)
    return os.getpid()


def nested(x):
    with ProcessPoolExecutor(2) as pool:
        pids = list(pool.map(prints_pid, [10 * x, 10 * x + 1]))
    return os.getpid() not in pids


def set_up():
    """An initializer as programs written for the standard library's pools have it."""
    logging.basicConfig(level=logging.DEBUG, format="set up: %(message)s", stream=sys.stderr)


def waits_and_logs(work, x):
    """Log and print around an item of ``jobs``."""
    for number in range(5):
        log.info("before %d %d", x, number)
    value = work(x)
    print("after", x)
    return value
