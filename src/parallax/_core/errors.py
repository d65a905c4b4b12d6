"""Every error and warning that parallax raises on its own account.

Purpose: one small class per thing that can go wrong, with fields first and the message built
from the fields: what happened, to which item, the likely cause, what to do next.
Guarantees: every class survives pickling with its fields, and is a subclass of the standard
library's error for the same event, so that ``except`` clauses written for ``concurrent.futures``
go on working. Misuse of an argument is a plain ``TypeError`` or ``ValueError``.
"""

from __future__ import annotations

import errno
from concurrent.futures import BrokenExecutor

from parallax._core.light_stdlib import Any, PicklingError
from parallax._core.own_code import is_own

#: The names that the package exports.
__all__ = [
    "BackendMissingError",
    "ItemTimeoutError",
    "ParallaxError",
    "RemoteTraceback",
    "SerializationError",
    "SharedStateWarning",
    "WorkerDiedError",
    "WorkerStartError",
]


#: What to do when no descriptor is left.
_FREE_DESCRIPTORS = (
    "No file descriptor is left: close files and sockets, raise the limit on open files "
    "(ulimit -n), or pass backend='threads'"
)


def lacks_descriptors(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}


def _advice(reason: str | None, otherwise: str) -> str:
    # By the text: the reason may come from another process, or be one of several.
    short = any(f"[Errno {number}]" in (reason or "") for number in (errno.EMFILE, errno.ENFILE))
    return _FREE_DESCRIPTORS if short else otherwise


class ParallaxError(Exception):
    """Base class of the errors that parallax raises on its own account.

    Errors raised by the user's callable are never wrapped: they keep their type.
    """

    _fields: tuple[str, ...] = ()

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = dict(zip(self._fields, values, strict=False))
        fields.update(named)
        for name in self._fields:
            setattr(self, name, fields.get(name))
        super().__init__(self._message())

    def _message(self) -> str:
        return type(self).__doc__ or type(self).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, name) for name in self._fields), self.__dict__


class WorkerDiedError(ParallaxError, BrokenExecutor):
    """A worker process ended while it ran an item.

    Attributes:
        index: position of the item in the input, from 0; None if no item can be named.
        pid: process id of the worker; None if it ended before it was known.
        exitcode: exit status; negative for a signal, as in ``subprocess``; None if unknown.
        attempts: number of workers that ended while running this item.
        detail: why parallax ended the worker; None if it ended by itself.
        oom: whether the kernel's out-of-memory killer ended it; None if that is not known.
        stack: stacks of the worker's threads when its interpreter crashed, also available as
            ``__cause__``. None if there are none: a process that is killed, or calls ``os._exit``,
            writes no traceback.
    """

    _fields = ("index", "pid", "exitcode", "attempts", "detail", "oom", "stack")
    index: int | None
    pid: int | None
    exitcode: int | None
    attempts: int | None
    detail: str | None
    oom: bool | None
    stack: str | None

    def __init__(self, *values: Any, **named: Any) -> None:
        super().__init__(*values, **named)
        if self.stack:
            set_cause(self, RemoteTraceback(self.stack))

    @property
    def signal(self) -> str | None:
        """The name of the signal that ended the worker, for example "SIGSEGV"; None if none did."""
        return None if self.exitcode is None or self.exitcode >= 0 else _signal_name(self.exitcode)

    def _reason(self) -> str:
        """How the worker ended, and in which frame."""
        text = self.detail or exit_reason(self.exitcode, oom=self.oom)
        if place := _innermost(self.stack):
            text += f" in {place}"
        if self.attempts and self.attempts > 1:
            text += f" ({self.attempts} attempts, one worker lost in each)"
        return text

    def _message(self) -> str:
        item = "an item" if self.index is None else f"item {self.index}"
        who = "its worker process" if self.pid is None else f"worker process {self.pid}"
        return (
            f"{who} ended while running {item}: {self._reason()}. The other items are not "
            f"affected; pass on_error='return' to keep their results, or retries=n to run lost "
            f"items again"
        )


class WorkerStartError(ParallaxError, BrokenExecutor):
    """Worker processes could not be started.

    Attributes:
        method: the start method, "zygote" or "spawn".
        detail: the message of the system or of the worker.
    """

    _fields = ("method", "detail")
    method: str
    detail: str

    def _message(self) -> str:
        usual = "Check the limits on processes, memory and open files, or pass backend='threads'"
        return (
            f"no worker process could be started (start method {self.method!r}): {self.detail}. "
            f"{_advice(self.detail, usual)}"
        )


class ItemTimeoutError(ParallaxError, TimeoutError):
    """An item ran longer than ``item_timeout`` and its worker was ended.

    Attributes:
        index: position of the item in the input, from 0; None for a call of an executor.
        seconds: the limit, ``item_timeout``.
        pid: process id of the worker that was ended.
    """

    _fields = ("index", "seconds", "pid")
    index: int | None
    seconds: float
    pid: int | None

    def _message(self) -> str:
        one, others = f"item {self.index}", "items"
        if self.index is None:
            one, others = "this call", "calls"
        return (
            f"{one} ran longer than item_timeout={self.seconds:g} s; its worker "
            f"process {self.pid} was ended and replaced, the other {others} are not affected"
        )


class SerializationError(ParallaxError, PicklingError):
    """Something that had to travel between processes cannot be pickled or unpickled.

    Attributes:
        what: "callable", "item", "result" or "exception".
        index: position of the item in the input, from 0; None for the callable.
        path: the part that cannot be pickled, for example ``item.connection``.
        reason: the serializer's message.
    """

    _fields = ("what", "index", "path", "reason")
    what: str
    index: int | None
    path: str
    reason: str

    def _message(self) -> str:
        of = "" if self.index is None else f" of item {self.index}" * (self.what != "item")
        name = f"item {self.index}" if self.what == "item" else f"the {self.what}{of}"
        if self.what == "item" and self.index is None:
            name = "an argument of the call"
        where = "" if self.path in {"", self.what} else f" at {self.path}"
        usual = (
            "Leave the unpicklable part out, or use threads (backend='threads'), which stay in "
            "this process"
        )
        return (
            f"{name} cannot travel between processes{where}: {self.reason}. "
            f"{_advice(self.reason, usual)}"
        )


class UnreadableError(SerializationError):
    """Something was sent to another process and cannot be unpickled there."""


class InheritanceError(SerializationError):
    """An object reaches only workers that are forked from this process."""


class BackendMissingError(ParallaxError, ImportError):
    """An optional package is not installed.

    Attributes:
        feature: the argument or function that needs the package.
        package: the distribution to install.
    """

    _fields = ("feature", "package")
    feature: str
    package: str

    def _message(self) -> str:
        return (
            f"{self.feature} needs the package {self.package!r}, which is not installed. "
            f"Install it with: pip install {self.package}"
        )


#: Likely senders of SIGKILL, by whether it was the kernel's out-of-memory killer.
_SIGKILL_CAUSES = {
    None: "often the system's out-of-memory killer, or a kill -9",
    True: "by the kernel's out-of-memory killer: the machine or the container had no memory left. "
    "Give it fewer workers with max_workers, or smaller items",
    False: "a kill -9 by somebody; the kernel's out-of-memory killer has ended nothing here",
}


#: How processes of Windows end other than by exiting, by NTSTATUS.
_WINDOWS_STATUS = {
    0xC0000005: "access violation: a crash in native code",
    0xC00000FD: "stack overflow: a recursion in native code that is too deep",
    0xC0000142: "a library failed to load: the session may have no memory left for its windows",
    0xC000013A: "ended by Ctrl-C",
    0xC0000374: "heap corruption: a crash in native code",
    0xC0000409: "native code called abort(), or overran a buffer",
}


class SharedStateWarning(UserWarning):
    """The callable changes shared state item by item, so it runs as a plain loop.

    Threads would race on the change and processes would lose it.
    """


class RemoteTraceback(Exception):  # noqa: N818 - the standard library's word for it
    """The traceback of an exception as text: its frames were in a worker process, or are dropped.

    It is the ``__cause__`` of the exception; of the first of its causes if it has some of its own.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def set_cause(error: BaseException, cause: BaseException | None) -> None:
    """Set the cause of an exception and nothing else, even if its class forbids it."""
    suppressed = error.__suppress_context__
    BaseException.__setattr__(error, "__cause__", cause)
    BaseException.__setattr__(error, "__suppress_context__", suppressed)


def copy_chain(source: BaseException, target: BaseException) -> None:
    """Give an exception the causes, the context and the notes of another one."""
    for name in ("__cause__", "__context__", "__suppress_context__", "__notes__"):
        if hasattr(source, name):
            BaseException.__setattr__(target, name, getattr(source, name))


def causes_of(error: BaseException) -> list[BaseException]:
    found: dict[int, BaseException] = {}
    last: BaseException | None = error
    while last is not None and id(last) not in found:
        found[id(last)] = last
        last = BaseException.__getattribute__(last, "__cause__")
    return [*found.values()]


def add_traceback(error: BaseException, text: str) -> None:
    """Show a traceback that is known as text as the first of an exception's causes.

    It takes the place of one that is there, which is a part of the text. Where the causes form a
    circle it is a note.
    """
    *_, last = (each for each in causes_of(error) if type(each) is not RemoteTraceback)
    if last.__cause__ is None or type(last.__cause__) is RemoteTraceback:
        set_cause(last, RemoteTraceback(text))
    else:
        add_note(error, text)


def traceback_of(error: BaseException) -> str:
    """The traceback as text, without the frames above the user's callable."""
    import traceback

    try:
        tb = error.__traceback__
        while tb is not None and is_own(tb.tb_frame.f_code.co_filename):
            tb = tb.tb_next
        return "".join(traceback.format_exception(type(error), error, tb))
    except Exception as problem:  # noqa: BLE001 - whatever its class does when it is formatted
        return f"no traceback of {type(error).__qualname__}: {type(problem).__name__}"


def without_frames(error: BaseException) -> BaseException:
    """An exception of parallax's own work, to be kept: its traceback becomes text.

    Frames keep their variables alive, and the frames that called them: down to those of the user's,
    where what the exception is kept in may be a variable.
    """
    text = traceback_of(error)
    for each in causes_of(error):
        BaseException.with_traceback(each, None)
        BaseException.__setattr__(each, "__context__", None)
    add_traceback(error, text)
    return error


def unreadable(
    what: str,
    problem: BaseException,
    kind: type[SerializationError] = SerializationError,
    where: str = "",
) -> SerializationError:
    """The error of something that cannot be unpickled in this process."""
    refused = kind(what, None, what, f"{where}{type(problem).__name__}: {problem}")
    set_cause(refused, problem)
    return refused


def add_note(error: BaseException, note: str) -> None:
    """Add a note, on Python 3.10 too, even if the exception's class forbids it."""
    try:
        notes = [*getattr(error, "__notes__", ()), note]
        BaseException.__setattr__(error, "__notes__", notes)
    except Exception:  # noqa: BLE001 - whatever its class does
        return


def _innermost(stack: str | None) -> str:
    """The innermost frame of the crashed thread, from faulthandler's text."""
    lines = (stack or "").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("Current thread") and lines[number + 1 : number + 2]:
            # '  File "/there/it.py", line 3 in f'
            place = lines[number + 1].strip()
            return place.removeprefix("File ") if place.startswith("File ") else ""
    return ""


def _signal_name(exitcode: int) -> str:
    import signal

    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"


def exit_reason(exitcode: int | None, *, at_work: bool = True, oom: bool | None = None) -> str:
    """Describe how a process ended; the user's callable may be the cause if it was `at_work`.

    The exit status is as in ``subprocess``: negative for signals, None if unknown. `oom` is None
    if it is not known whether the kernel's out-of-memory killer ended the process.
    """
    if exitcode is None:
        return "it closed its connection; the exit status is not known"
    if exitcode >= 0xC0000000:
        words = _WINDOWS_STATUS.get(exitcode, "it ended with status")
        return f"{words} ({exitcode:#x})"
    if exitcode >= 0:
        hint = " (did the callable call os._exit or sys.exit in a C library?)"
        return f"it exited with status {exitcode}" + (hint if exitcode and at_work else "")
    name = _signal_name(exitcode)
    likely = {
        "SIGKILL": _SIGKILL_CAUSES[oom],
        "SIGSEGV": f"a crash in native code{' that the callable uses' * at_work}",
        "SIGBUS": "memory or disk ran out under a memory mapping, or a crash in native code",
        "SIGABRT": "native code called abort(), often a failed assertion",
        "SIGTERM": "another process asked it to end",
        "SIGILL": "native code was built for another processor",
    }.get(name)
    return f"ended by {name}" + (f" ({likely})" if likely else "")
