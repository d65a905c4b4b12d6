"""What the items of the fault table do, in a module that worker processes import quickly.

No pytest here, and nothing of parallax that a worker does not have anyway.
"""

from __future__ import annotations

import _thread
import builtins
import dataclasses
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import jobs

#: What an action returns that does not fail its item.
DONE = "done"

#: The item that performs the action, and the number of items.
BAD, COUNT = 5, 12


def run(action, x):
    """The callable of the calls: one item performs the action of a row, the others are squared."""
    if _forked:
        os._exit(99)
    return x * x if isinstance(x, int) and x != BAD else action()


# -- exceptions ------------------------------------------------------------------------------------


class Halt(BaseException):
    """An exception that ``except Exception`` does not catch."""


class Mute(Exception):  # noqa: N818
    def __str__(self):
        raise ValueError("no words")

    __repr__ = __str__


class Hollow(Exception):  # noqa: N818
    """False, empty, equal to everything and not hashable."""

    __hash__ = None

    def __bool__(self):
        return False

    def __len__(self):
        return 0

    def __eq__(self, other):
        return True


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):  # noqa: N818
    """It refuses a traceback, a cause and notes."""


class Hostile:
    """A result that raises on any use."""

    def no(self, *_):
        raise RuntimeError("hands off")

    __eq__ = __bool__ = __len__ = __hash__ = __repr__ = __iter__ = __getitem__ = no
    __contains__ = __float__ = __call__ = __array__ = no


class Demanding(Exception):  # noqa: N818
    """Pickle cannot make it again: its argument has no default."""

    def __init__(self, *, code):
        super().__init__("a code")
        self.code = code


class Reducing(Exception):  # noqa: N818
    """Does something when it is pickled."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def __reduce__(self):
        return reduced(self.how)


class Reduced:
    """As ``Reducing``, but not an exception."""

    def __init__(self, how, home=None):
        self.how = how
        self.home = home

    def __reduce__(self):
        return reduced(self.how, self.home)


def reduced(how, home=None):
    """The result of ``__reduce__``, or its failure."""
    if how == "fails":
        raise TypeError("it will not go")
    if how == "halts":
        raise Halt
    if how == "exits":
        sys.exit(4)
    if how == "dies":
        os._exit(7)
    return arrives, (how, home)


class Homesick(Exception):  # noqa: N818
    """Unpickles only in the process that made it."""

    def __reduce__(self):
        return arrives_home, (os.getpid(),)


def arrives_home(pid):
    if pid != os.getpid():
        sys.exit(6)
    return Homesick()


class Endless:
    """Pickling does not end, or unpickling does not."""

    def __init__(self, where):
        self.where = where

    def __reduce__(self):
        if self.where == "pickled":
            never_ends(self)
        return never_ends, (None,)


def arrives_elsewhere():
    """Ends the process that unpickles it, which is not this one."""
    return Reduced("arrives and dies", os.getpid())


def nothing():
    """The action of an item whose unpickling is what is tested."""
    return DONE


def arrives(how, home):
    """Fails to unpickle, in all processes but ``home``."""
    if how == "arrives and dies" and os.getpid() != home:
        os._exit(8)
    if how == "arrives and exits":
        sys.exit(4)
    if how == "arrives and halts":
        raise Halt
    if how == "arrives and fails":
        raise RuntimeError("the trap sprang")
    return "dud"


def throws(error, *args, **named):
    raise error(*args, **named)


def throws_named(name, *args):
    """An exception of parallax or of ``concurrent.futures``."""
    raise kind_of(name)(*args)


def kind_of(name):
    """A type by its name."""
    import concurrent.futures

    import parallax

    return getattr(parallax, name, None) or getattr(concurrent.futures, name)


def throws_circle():
    error = jobs.Oops(1)
    error.__cause__ = error.__context__ = error
    raise error


def throws_group():
    raise builtins.ExceptionGroup("two", [jobs.Oops(1), KeyError(2)])


def nested(depth=100_000):
    """So deep that neither pickle nor repr can follow."""
    deep = []
    for _ in range(depth):
        deep = [deep]
    return deep


def throws_deep():
    raise jobs.Oops(nested())


def where(_):
    """State of the process that an item of a map must not change for later items."""
    return os.getcwd(), dict(os.environ), list(sys.path), list(sys.argv)


# -- ends ------------------------------------------------------------------------------------------


def kill_self(number):
    os.kill(os.getpid(), number)
    time.sleep(30)


def overflow_c_stack():
    """Recursion in C, which Python does not count."""
    it = iter([1])
    for _ in range(200_000):
        it = filter(None, it)
    return next(it)


def segfault():
    import ctypes

    ctypes.string_at(0)


def recurse():
    return recurse()


def closes(first):
    os.closerange(first, 1024)
    time.sleep(30)


def deaf_and_endless():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        time.sleep(1)


def out_of_memory():
    """A limit on the address space, as a batch system sets one."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (64 << 20), hard))
    try:
        return len(b"x" * (1 << 30))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def dies_while_writing():
    """Killed when half of its result is in the socket."""
    from parallax._transport import framing

    def write_half(channel):
        frame = b"".join(channel._unsent)
        channel.sock.sendall(frame[: len(frame) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    framing.Channel.flush = write_half
    return bytes(400_000)


# -- actions that affect later items ---------------------------------------------------------------

_forked = False


def forks(*, returns):
    """Fork a child that ends, or that returns as if it were the worker."""
    global _forked
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        if not returns:
            os._exit(0)
        _forked = True
        return "a child's answer"
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return DONE if status == 0 else f"the child ended with {status}"


def forks_large():
    """Worker and child both return a large result; only the worker's may arrive."""
    found = forks(returns=True)
    return bytes([found == DONE]) * (1 << 20)


def daemonizes():
    """Daemonize, as some libraries do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if os.fork():
            os._exit(0)
    os.setsid()
    return "a daemon's answer"


def urges_itself():
    """Send the recall signal without a recall."""
    for _ in range(100):
        os.kill(os.getpid(), signal.SIGURG)
    return DONE


def starts_threads():
    for _ in range(3):
        threading.Thread(target=threading.Event().wait).start()
    return DONE


def thread_raises(error):
    threading.excepthook = lambda *_: None
    thread = threading.Thread(target=throws, args=(error, 3))
    thread.start()
    thread.join()
    return DONE


def interrupts_main():
    """Interrupt the main thread, as some libraries do."""
    _thread.interrupt_main()
    return DONE


def moves():
    os.chdir("/")
    os.environ["TABLE_ROW"] = "moved"
    os.environ.pop("PATH", None)
    sys.argv[:] = ["moved"]
    sys.path.insert(0, "/nowhere")
    return DONE


def handles_signals():
    def handler(number, frame):
        raise RuntimeError("a handler of the item's")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD, signal.SIGURG):
        signal.signal(number, handler)
    return DONE


def masks_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return DONE


def closes_stdout():
    sys.stdout.close()
    sys.stderr.close()
    return DONE


def replaces_stdout(stream):
    sys.stdout = sys.stderr = stream
    return DONE


class Broken:
    """A stream as a careless test framework leaves it."""

    def write(self, text):
        raise OSError("broken")

    def flush(self):
        sys.exit("broken")


def leads_nowhere():
    fd = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(fd, number)
    os.close(fd)
    return DONE


def closes_output():
    """Close the output descriptors with text still in the buffer."""
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    print("lost")
    os.close(1)
    os.close(2)
    return DONE


def forgets_modules():
    for name in [*sys.modules]:
        if name.partition(".")[0] in {"parallax", "pickle", "traceback", "cloudpickle"}:
            del sys.modules[name]
    return DONE


def spoils_settings():
    import gc
    import socket

    sys.setrecursionlimit(120)
    sys.setswitchinterval(100)
    socket.setdefaulttimeout(0.0)
    gc.disable()
    sys.setprofile(lambda *_: None)
    sys.excepthook = None
    return DONE


def never_ends(_):
    while True:
        time.sleep(1)
