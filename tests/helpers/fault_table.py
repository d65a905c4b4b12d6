"""A table of faults as data: what one item of several does, and what must follow.

``test_fault_table.py`` runs each row on every backend, start method and kind of executor that it
applies to; ``jobs/actions.py`` has the actions.
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
from jobs import actions
from jobs.actions import DONE


class Row(NamedTuple):
    """One fault."""

    name: str
    #: what the item at BAD does instead of squaring a number.
    action: Callable[[], Any]
    #: the type of the item's error; None if the item returns ``value``. A name where importing the
    #: type's module would take workers long.
    error: type[BaseException] | str | None = None
    #: a part of the error's message.
    words: str = ""
    #: attributes of the error.
    fields: Mapping[str, Any] = MappingProxyType({})
    #: the item's value, or the value's type.
    value: Any = DONE
    #: whether the action may run in the caller's own process, where nothing has to be pickled.
    inside: bool = False
    #: makes the item, unless it is a plain number.
    argument: Callable[[], Any] | None = None
    #: further options of the call; with any, the row does not apply to executors.
    kwargs: Mapping[str, Any] = MappingProxyType({})
    #: whether the row takes more than a second.
    full: bool = False
    #: whether the row runs on spawned workers by default.
    spawn: bool = False
    #: whether the row leaves an unusable worker behind.
    cold: bool = False


# -- the table -------------------------------------------------------------------------------------

p = functools.partial


def died(name, action, words, exitcode, **rest):
    """A row whose item ends its worker."""
    return Row(name, action, "WorkerDiedError", words, fields={"exitcode": exitcode}, **rest)


def stuck(name, what, words, action=actions.nothing, **rest):
    """A row in which something does not travel."""
    return Row(name, action, "SerializationError", words, fields={"what": what}, **rest)


ROWS = [
    # The callable raises.
    Row("raises", p(actions.throws, jobs.Oops, 7), jobs.Oops, fields={"number": 7}, inside=True),
    Row("raises a BaseException", p(actions.throws, actions.Halt), actions.Halt, inside=True),
    Row(
        "raises KeyboardInterrupt",
        p(actions.throws, KeyboardInterrupt),
        KeyboardInterrupt,
        inside=True,
    ),
    Row("raises SystemExit", p(sys.exit, 3), SystemExit, fields={"code": 3}, inside=True),
    Row("raises GeneratorExit", p(actions.throws, GeneratorExit), GeneratorExit, inside=True),
    Row("raises EOFError", p(actions.throws, EOFError, 3), EOFError, inside=True),
    Row("raises BrokenPipeError", p(actions.throws, BrokenPipeError), BrokenPipeError, inside=True),
    Row("raises MemoryError", p(bytes, 1 << 62), MemoryError, inside=True),
    Row(
        "raises what a future raises",
        p(actions.throws_named, "CancelledError"),
        "CancelledError",
        inside=True,
    ),
    Row(
        "raises what an executor raises",
        p(actions.throws_named, "BrokenExecutor", "mine"),
        "BrokenExecutor",
        "mine",
        inside=True,
    ),
    Row(
        "raises what parallax raises",
        p(actions.throws_named, "WorkerDiedError", 77, 4711),
        "WorkerDiedError",
        fields={"index": 77, "pid": 4711},
        inside=True,
    ),
    Row("raises a mute one", p(actions.throws, actions.Mute), actions.Mute, inside=True),
    Row("raises a hollow one", p(actions.throws, actions.Hollow), actions.Hollow, inside=True),
    Row("raises a frozen one", p(actions.throws, actions.Frozen), actions.Frozen, inside=True),
    Row("raises a circle", actions.throws_circle, jobs.Oops, inside=True),
    Row(
        "raises a large one",
        p(actions.throws, jobs.Oops, b"x" * (1 << 20)),
        jobs.Oops,
        fields={"number": b"x" * (1 << 20)},
        inside=True,
    ),
    Row("recurses", actions.recurse, RecursionError, inside=True, spawn=True),
    # It ends its process.
    died("exits with 0", p(os._exit, 0), "exited with status 0", 0),
    died("exits with 1", p(os._exit, 1), "exited with status 1", 1, spawn=True),
    died("segfaults", actions.segfault, "SIGSEGV", -signal.SIGSEGV, spawn=True),
    died("aborts", os.abort, "SIGABRT", -signal.SIGABRT),
    died("kills itself", p(actions.kill_self, signal.SIGKILL), "SIGKILL", -signal.SIGKILL),
    died("terminates itself", p(actions.kill_self, signal.SIGTERM), "SIGTERM", -signal.SIGTERM),
    died("overflows the C stack", actions.overflow_c_stack, "SIGSEGV", -signal.SIGSEGV),
    Row(
        "closes its descriptors",
        p(actions.closes, 3),
        "WorkerDiedError",
        "its connection",
        full=True,
    ),
    Row(
        "closes all descriptors",
        p(actions.closes, 0),
        "WorkerDiedError",
        "its connection",
        full=True,
    ),
    died("dies while it writes its result", actions.dies_while_writing, "SIGKILL", -signal.SIGKILL),
    died("executes something else", p(os.execv, "/bin/true", ["true"]), "with status 0", 0),
    died("becomes a daemon", actions.daemonizes, "exited with status 0", 0),
    # It does not end.
    Row(
        "is stopped",
        p(actions.kill_self, getattr(signal, "SIGSTOP", 0)),
        "ItemTimeoutError",
        fields={"seconds": 0.3},
        kwargs={"item_timeout": 0.3, "chunksize": 1},
    ),
    Row(
        "ignores signals and does not end",
        actions.deaf_and_endless,
        "ItemTimeoutError",
        fields={"seconds": 0.3},
        kwargs={"item_timeout": 0.3, "chunksize": 1},
    ),
    # It leaves its process in another state.
    Row("runs out of memory", actions.out_of_memory, MemoryError),
    Row("forks", p(actions.forks, returns=False)),
    Row("forks and both return", p(actions.forks, returns=True), spawn=True),
    Row("forks and both return much", actions.forks_large, value=b"\1" * (1 << 20)),
    Row("starts threads", actions.starts_threads, spawn=True),
    Row("exits in a thread", p(actions.thread_raises, SystemExit)),
    Row("raises in a thread", p(actions.thread_raises, KeyError)),
    Row("interrupts its main thread", actions.interrupts_main),
    Row("moves", actions.moves, spawn=True),
    Row("urges itself", actions.urges_itself),
    Row("returns what is hostile", actions.Hostile, value=actions.Hostile, inside=True),
    Row("handles signals", actions.handles_signals),
    Row("masks signals", actions.masks_signals),
    Row("closes its streams", actions.closes_stdout, cold=True),
    Row("has no streams", p(actions.replaces_stdout, None), cold=True),
    Row("has broken streams", p(actions.replaces_stdout, actions.Broken()), cold=True),
    Row("leads its streams elsewhere", actions.leads_nowhere, cold=True),
    Row("closes its output", actions.closes_output, cold=True),
    Row("forgets modules", actions.forgets_modules, cold=True),
    Row("spoils settings", actions.spoils_settings, cold=True),
    # An argument.
    stuck(
        "argument fails to pickle",
        "item",
        "it will not go",
        argument=p(actions.Reduced, "fails"),
        inside=True,
    ),
    Row(
        "argument exits while pickled",
        actions.nothing,
        SystemExit,
        argument=p(actions.Reduced, "exits"),
    ),
    stuck(
        "argument fails to unpickle",
        "item",
        "the trap sprang",
        argument=p(actions.Reduced, "arrives and fails"),
        spawn=True,
    ),
    stuck(
        "argument exits while unpickled",
        "item",
        "SystemExit: 4",
        argument=p(actions.Reduced, "arrives and exits"),
    ),
    died(
        "argument crashes while unpickled",
        actions.nothing,
        "exited with status 8",
        8,
        argument=actions.arrives_elsewhere,
        spawn=True,
    ),
    Row(
        "argument does not end while unpickled",
        actions.nothing,
        "ItemTimeoutError",
        argument=p(actions.Endless, "unpickled"),
        kwargs={"item_timeout": 0.3, "chunksize": 1},
        full=True,
    ),
    stuck("argument is too deep", "item", "recursion", argument=actions.nested),
    # A result.
    stuck("result fails to pickle", "result", "it will not go", action=p(actions.Reduced, "fails")),
    Row("result exits while pickled", p(actions.Reduced, "exits"), SystemExit, fields={"code": 4}),
    died("result crashes while pickled", p(actions.Reduced, "dies"), "exited with status 7", 7),
    stuck(
        "result fails to unpickle",
        "result",
        "the trap sprang",
        action=p(actions.Reduced, "arrives and fails"),
    ),
    stuck(
        "result exits while unpickled",
        "result",
        "SystemExit: 4",
        action=p(actions.Reduced, "arrives and exits"),
    ),
    Row(
        "result does not end while pickled",
        p(actions.Endless, "pickled"),
        "ItemTimeoutError",
        kwargs={"item_timeout": 0.3, "chunksize": 1},
        full=True,
    ),
    stuck("result is too deep", "result", "recursion", action=actions.nested),
    # An exception.
    stuck(
        "exception fails to pickle",
        "exception",
        "it will not go",
        action=p(actions.throws, actions.Reducing, "fails"),
    ),
    stuck(
        "exception exits while pickled",
        "exception",
        "SystemExit: 4",
        action=p(actions.throws, actions.Reducing, "exits"),
    ),
    died(
        "exception crashes while pickled",
        p(actions.throws, actions.Reducing, "dies"),
        "with status 7",
        7,
    ),
    stuck(
        "exception fails to unpickle",
        "exception",
        "the trap sprang",
        action=p(actions.throws, actions.Reducing, "arrives and fails"),
    ),
    stuck(
        "exception exits while unpickled",
        "exception",
        "SystemExit: 4",
        action=p(actions.throws, actions.Reducing, "arrives and exits"),
    ),
    Row(
        "exception wants an argument",
        p(actions.throws, actions.Demanding, code=3),
        actions.Demanding,
        "a code",
        inside=True,
    ),
    stuck(
        "exception exits while unpickled in the program",
        "result",
        "SystemExit: 6",
        action=p(actions.throws, actions.Homesick),
    ),
    stuck("exception is too deep", "exception", "recursion", action=actions.throws_deep),
]

if sys.version_info >= (3, 11):
    ROWS.append(
        Row("raises a group", actions.throws_group, builtins.ExceptionGroup, "two", inside=True),
    )
