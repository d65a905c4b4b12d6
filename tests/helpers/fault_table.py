"""A table of faults as data: what one item of several does, and what must come of it.

``test_fault_table.py`` runs each row on every backend, start method and kind of executor that it
applies to; ``jobs/deeds.py`` has the deeds.
"""

from __future__ import annotations

import builtins
import functools
import os
import signal
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jobs
from jobs import deeds
from jobs.deeds import DONE


class Row(NamedTuple):
    """One fault."""

    name: str
    #: what the item at BAD does in the place of squaring a number.
    deed: Callable[[], Any]
    #: the type of its error; None if it returns ``value``. By name if the module that it is in
    #: would take workers long to import.
    error: type[BaseException] | str | None = None
    #: in the error's message.
    words: str = ""
    #: attributes of the error.
    fields: Mapping[str, Any] = MappingProxyType({})
    #: what it returns, or its type.
    value: Any = DONE
    #: it may be done in the caller's own process; what does not travel need not travel there.
    inside: bool = False
    #: makes the item, if it is not a plain number.
    argument: Callable[[], Any] | None = None
    #: further options of the call; it has no counterpart in executors then.
    wishes: Mapping[str, Any] = MappingProxyType({})
    #: takes more than a second.
    full: bool = False
    #: worth the time of an interpreter's start for each worker by default.
    spawn: bool = False
    #: it leaves a worker behind that is good for nothing more.
    cold: bool = False


# -- the table -------------------------------------------------------------------------------------

p = functools.partial


def died(name, deed, words, exitcode, **rest):
    """A row whose item ends its worker."""
    return Row(name, deed, "WorkerDiedError", words, fields={"exitcode": exitcode}, **rest)


def stuck(name, what, words, deed=deeds.nothing, **rest):
    """A row in which something does not travel."""
    return Row(name, deed, "SerializationError", words, fields={"what": what}, **rest)


ROWS = [
    # The callable raises.
    Row("raises", p(deeds.throws, jobs.Oops, 7), jobs.Oops, fields={"number": 7}, inside=True),
    Row("raises a BaseException", p(deeds.throws, deeds.Halt), deeds.Halt, inside=True),
    Row(
        "raises KeyboardInterrupt",
        p(deeds.throws, KeyboardInterrupt),
        KeyboardInterrupt,
        inside=True,
    ),
    Row("raises SystemExit", p(sys.exit, 3), SystemExit, fields={"code": 3}, inside=True),
    Row("raises GeneratorExit", p(deeds.throws, GeneratorExit), GeneratorExit, inside=True),
    Row("raises EOFError", p(deeds.throws, EOFError, 3), EOFError, inside=True),
    Row("raises BrokenPipeError", p(deeds.throws, BrokenPipeError), BrokenPipeError, inside=True),
    Row("raises MemoryError", p(bytes, 1 << 46), MemoryError, inside=True),
    Row(
        "raises what a future raises",
        p(deeds.throws_named, "CancelledError"),
        "CancelledError",
        inside=True,
    ),
    Row(
        "raises what an executor raises",
        p(deeds.throws_named, "BrokenExecutor", "mine"),
        "BrokenExecutor",
        "mine",
        inside=True,
    ),
    Row(
        "raises what parallax raises",
        p(deeds.throws_named, "WorkerDiedError", 77, 4711),
        "WorkerDiedError",
        fields={"index": 77, "pid": 4711},
        inside=True,
    ),
    Row("raises a mute one", p(deeds.throws, deeds.Mute), deeds.Mute, inside=True),
    Row("raises a hollow one", p(deeds.throws, deeds.Hollow), deeds.Hollow, inside=True),
    Row("raises a frozen one", p(deeds.throws, deeds.Frozen), deeds.Frozen, inside=True),
    Row("raises a circle", deeds.throws_circle, jobs.Oops, inside=True),
    Row(
        "raises a large one",
        p(deeds.throws, jobs.Oops, b"x" * (1 << 20)),
        jobs.Oops,
        fields={"number": b"x" * (1 << 20)},
        inside=True,
    ),
    Row("recurses", deeds.recurse, RecursionError, inside=True, spawn=True),
    # It ends its process.
    died("exits with 0", p(os._exit, 0), "exited with status 0", 0),
    died("exits with 1", p(os._exit, 1), "exited with status 1", 1, spawn=True),
    died("segfaults", deeds.segfault, "SIGSEGV", -signal.SIGSEGV, spawn=True),
    died("aborts", os.abort, "SIGABRT", -signal.SIGABRT),
    died("kills itself", p(deeds.kill_self, signal.SIGKILL), "SIGKILL", -signal.SIGKILL),
    died("terminates itself", p(deeds.kill_self, signal.SIGTERM), "SIGTERM", -signal.SIGTERM),
    died("overflows the C stack", deeds.overflow_c_stack, "SIGSEGV", -signal.SIGSEGV),
    Row(
        "closes its descriptors",
        p(deeds.closes, 3),
        "WorkerDiedError",
        "its connection",
        full=True,
    ),
    Row(
        "closes all descriptors",
        p(deeds.closes, 0),
        "WorkerDiedError",
        "its connection",
        full=True,
    ),
    died("dies while it writes its result", deeds.dies_while_writing, "SIGKILL", -signal.SIGKILL),
    died("executes something else", p(os.execv, "/bin/true", ["true"]), "with status 0", 0),
    died("becomes a daemon", deeds.daemonizes, "exited with status 0", 0),
    # It does not end.
    Row(
        "is stopped",
        p(deeds.kill_self, getattr(signal, "SIGSTOP", 0)),
        "ItemTimeoutError",
        fields={"seconds": 0.3},
        wishes={"item_timeout": 0.3, "chunksize": 1},
    ),
    Row(
        "ignores signals and does not end",
        deeds.deaf_and_endless,
        "ItemTimeoutError",
        fields={"seconds": 0.3},
        wishes={"item_timeout": 0.3, "chunksize": 1},
    ),
    # It leaves its process in another state.
    Row("runs out of memory", deeds.out_of_memory, MemoryError),
    Row("forks", p(deeds.forks, returns=False)),
    Row("forks and both return", p(deeds.forks, returns=True), spawn=True),
    Row("forks and both return much", deeds.forks_large, value=b"\1" * (1 << 20)),
    Row("starts threads", deeds.starts_threads, spawn=True),
    Row("exits in a thread", p(deeds.thread_raises, SystemExit)),
    Row("raises in a thread", p(deeds.thread_raises, KeyError)),
    Row("interrupts its main thread", deeds.interrupts_main),
    Row("moves", deeds.moves, spawn=True),
    Row("urges itself", deeds.urges_itself),
    Row("returns what is hostile", deeds.Hostile, value=deeds.Hostile, inside=True),
    Row("handles signals", deeds.handles_signals),
    Row("masks signals", deeds.masks_signals),
    Row("closes its streams", deeds.closes_stdout, cold=True),
    Row("has no streams", p(deeds.replaces_stdout, None), cold=True),
    Row("has broken streams", p(deeds.replaces_stdout, deeds.Broken()), cold=True),
    Row("leads its streams elsewhere", deeds.leads_nowhere, cold=True),
    Row("closes its output", deeds.closes_output, cold=True),
    Row("forgets modules", deeds.forgets_modules, cold=True),
    Row("spoils settings", deeds.spoils_settings, cold=True),
    # An argument.
    stuck(
        "argument fails to pickle",
        "item",
        "it will not go",
        argument=p(deeds.Reduced, "fails"),
        inside=True,
    ),
    Row(
        "argument exits while pickled",
        deeds.nothing,
        SystemExit,
        argument=p(deeds.Reduced, "exits"),
    ),
    stuck(
        "argument fails to unpickle",
        "item",
        "the trap sprang",
        argument=p(deeds.Reduced, "arrives and fails"),
        spawn=True,
    ),
    stuck(
        "argument exits while unpickled",
        "item",
        "SystemExit: 4",
        argument=p(deeds.Reduced, "arrives and exits"),
    ),
    died(
        "argument crashes while unpickled",
        deeds.nothing,
        "exited with status 8",
        8,
        argument=deeds.arrives_elsewhere,
        spawn=True,
    ),
    Row(
        "argument does not end while unpickled",
        deeds.nothing,
        "ItemTimeoutError",
        argument=p(deeds.Endless, "unpickled"),
        wishes={"item_timeout": 0.3, "chunksize": 1},
        full=True,
    ),
    stuck("argument is too deep", "item", "recursion", argument=deeds.nested),
    # A result.
    stuck("result fails to pickle", "result", "it will not go", deed=p(deeds.Reduced, "fails")),
    Row("result exits while pickled", p(deeds.Reduced, "exits"), SystemExit, fields={"code": 4}),
    died("result crashes while pickled", p(deeds.Reduced, "dies"), "exited with status 7", 7),
    stuck(
        "result fails to unpickle",
        "result",
        "the trap sprang",
        deed=p(deeds.Reduced, "arrives and fails"),
    ),
    stuck(
        "result exits while unpickled",
        "result",
        "SystemExit: 4",
        deed=p(deeds.Reduced, "arrives and exits"),
    ),
    Row(
        "result does not end while pickled",
        p(deeds.Endless, "pickled"),
        "ItemTimeoutError",
        wishes={"item_timeout": 0.3, "chunksize": 1},
        full=True,
    ),
    stuck("result is too deep", "result", "recursion", deed=deeds.nested),
    # An exception.
    stuck(
        "exception fails to pickle",
        "exception",
        "it will not go",
        deed=p(deeds.throws, deeds.Reducing, "fails"),
    ),
    stuck(
        "exception exits while pickled",
        "exception",
        "SystemExit: 4",
        deed=p(deeds.throws, deeds.Reducing, "exits"),
    ),
    died(
        "exception crashes while pickled",
        p(deeds.throws, deeds.Reducing, "dies"),
        "with status 7",
        7,
    ),
    stuck(
        "exception fails to unpickle",
        "exception",
        "the trap sprang",
        deed=p(deeds.throws, deeds.Reducing, "arrives and fails"),
    ),
    stuck(
        "exception exits while unpickled",
        "exception",
        "SystemExit: 4",
        deed=p(deeds.throws, deeds.Reducing, "arrives and exits"),
    ),
    stuck(
        "exception wants an argument",
        "exception",
        "argument",
        deed=p(deeds.throws, deeds.Demanding, code=3),
    ),
    stuck(
        "exception exits while unpickled in the program",
        "result",
        "SystemExit: 6",
        deed=p(deeds.throws, deeds.Homesick),
    ),
    stuck("exception is too deep", "exception", "recursion", deed=deeds.throws_deep),
]

if sys.version_info >= (3, 11):
    ROWS.append(
        Row("raises a group", deeds.throws_group, builtins.ExceptionGroup, "two", inside=True),
    )
