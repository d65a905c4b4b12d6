"""State that all threads of a process share, and objects that one thread alone may use.

Guarantees: looking at it imports nothing and changes nothing; one look takes about 20 us.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import types

from parallax._core.light_stdlib import TYPE_CHECKING, local
from parallax._guard.lookup import instance_dict, is_a, mro_of, top_module
from parallax._guard.other_threads import goes_on

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable
    from typing import Any, Final

# Loggers whose levels are looked at.
_MAX_LOGGERS: Final = 200
_WATCHED_SIGNALS: Final = (
    "SIGINT",
    "SIGTERM",
    "SIGALRM",
    "SIGHUP",
    "SIGUSR1",
    "SIGUSR2",
    "SIGCHLD",
)


def _descriptors(_: Any) -> Any:
    try:
        return os.lseek(0, 0, os.SEEK_CUR)
    except OSError:  # a terminal or a pipe has no place to read on from
        return None


def _signals(module: Any) -> list[int]:
    return [getattr(module, name) for name in _WATCHED_SIGNALS if hasattr(module, name)]


def _handlers(module: Any) -> Any:
    timer = module.getitimer(module.ITIMER_REAL)[0] > 0 if hasattr(module, "getitimer") else False
    return [*map(module.getsignal, _signals(module)), timer]


def _logging(module: Any) -> Any:
    manager = module.root.manager
    loggers = [*manager.loggerDict.items()][:_MAX_LOGGERS]
    set_ = [
        (name, space["level"], len(space["handlers"]), space["propagate"])
        for name, each in loggers
        if (space := vars(each)).get("level") or space.get("handlers")
    ]
    root = module.root
    return manager.disable, root.level, len(root.handlers), module.getLogRecordFactory(), set_


def _limits(module: Any) -> Any:
    digits = getattr(module, "get_int_max_str_digits", int)()
    return module.getrecursionlimit(), module.getswitchinterval(), digits


def _decimal(module: Any) -> Any:
    context = module.getcontext()
    return context.prec, context.rounding, context.traps


# What it is called, the module that must be loaded, and what is compared.
_STATES: Final[tuple[tuple[str, str, Callable[[Any], Any]], ...]] = (
    ("sys.stdout", "sys", lambda m: m.stdout),
    ("sys.stderr", "sys", lambda m: m.stderr),
    ("sys.stdin", "sys", lambda m: m.stdin),
    ("the warnings filters", "warnings", lambda m: (m.showwarning, *m.filters)),
    ("the working directory", "os", lambda m: m.getcwd()),
    ("os.environ", "os", lambda m: dict(getattr(m.environ, "_data", m.environ))),  # not decoded
    ("the collector", "gc", lambda m: (m.isenabled(), m.get_threshold())),
    ("logging", "logging", _logging),
    ("sys.path", "sys", lambda m: [*m.path]),
    ("sys.argv", "sys", lambda m: [*m.argv]),
    ("standard input", "os", _descriptors),
    ("limits of the interpreter", "sys", _limits),
    ("the CPU affinity", "os", lambda m: m.sched_getaffinity(0)),
    ("the signal handlers", "_signal", _handlers),
    ("the default timeout of sockets", "_socket", lambda m: m.getdefaulttimeout()),
    ("tempfile.tempdir", "tempfile", lambda m: m.tempdir),
    ("the locale", "_locale", lambda m: m.setlocale(m.LC_ALL, None)),
    ("the decimal context", "decimal", _decimal),
    ("NumPy's printing", "numpy", lambda m: m.get_printoptions()),
    ("the figures of pyplot", "matplotlib.pyplot", lambda m: m.get_fignums()),
)
#: What they are called.
PROCESS_TITLES: Final = frozenset(title for title, _, _ in _STATES)
# What modules change that are imported: once, for all items, so that it is no change of theirs.
_OF_IMPORTS: Final = frozenset({"the warnings filters", "os.environ", "sys.path", "logging"})
# Those that installed code, too, swaps for a moment: looked at while an item runs.
_BRIEF: Final = _STATES[:8]


class ProcessWatch:
    """Compares the state of the process before and after items, and while they run."""

    def __init__(self) -> None:
        self._before: list[Any] = []
        self._began, self._modules = 0.0, 0
        #: what other threads change all the time.
        self._others: set[str] = set()

    def before(self) -> None:
        """Items begin."""
        self._before, self._began = look_at_process(), time.perf_counter()
        self._modules = len(sys.modules)

    def _difference(self, before: list[Any], after: list[Any]) -> str:
        return process_difference(before, after, self._others | of_imports(self._modules))

    def changed(self) -> str:
        """What items have changed for good; "" for nothing."""
        before, self._before = self._before, []
        while title := self._difference(before, look_at_process()):
            if not self.changed_elsewhere(title):
                return title
        return ""

    def changed_elsewhere(self, title: str) -> bool:
        """Whether another thread goes on changing this; if so, it is looked at no more."""
        state = [each for each in _STATES if each[0] == title]
        found = goes_on(lambda: look_at_process(state), time.perf_counter() - self._began)
        if found:
            self._others.add(title)
        return found

    def swapped(self) -> str | None:
        """What an item that is running has changed, from another thread; None if none runs."""
        before = self._before[: len(_BRIEF)]
        found = self._difference(before, look_at_process(_BRIEF)) if before else ""
        return found if self._before else None  # it may have ended meanwhile


def of_imports(modules: int) -> frozenset[str]:
    """What need not be of the items, if there are not that many ``modules`` any more."""
    return _OF_IMPORTS if len(sys.modules) != modules else frozenset()


def look_at_process(
    looks: Iterable[tuple[str, str, Callable[[Any], Any]]] = _STATES,
) -> list[Any]:
    """What all threads share now, for ``process_difference``."""
    found = []
    for _, name, look in looks:
        module = sys.modules.get(name)
        try:
            found.append(None if module is None else look(module))
        except Exception:  # noqa: BLE001 - a module that is half imported, a folder that is gone
            found.append(None)
    return found


def process_difference(before: list[Any], after: list[Any], others: Container[str] = ()) -> str:
    """The title of the first state that differs, but for ``others``; "" if none does."""
    for (title, _, _), old, new in zip(_STATES, before, after, strict=False):
        # What was not there before was imported meanwhile.
        if old is not None and new is not old and new != old and title not in others:
            return title
    return ""


# Functions of the program that libraries call: title, module, and what gives them.
_HOOKS: Final[tuple[tuple[str, str, Callable[[Any], Any]], ...]] = (
    ("warnings.showwarning", "warnings", lambda m: [m.showwarning]),
    ("the factory of log records", "logging", lambda m: [m.getLogRecordFactory()]),
    ("gc.callbacks", "gc", lambda m: m.callbacks),
    ("numpy.seterrcall", "numpy", lambda m: [m.geterrcall()]),
    ("sys.unraisablehook", "sys", lambda m: [m.unraisablehook]),
    ("a signal handler", "_signal", lambda m: map(m.getsignal, _signals(m))),
)


def hooks() -> list[tuple[str, Any]]:
    """What libraries call, with titles: the callable need not mention it."""
    found: list[tuple[str, Any]] = []
    for title, name, get in _HOOKS:
        if (module := sys.modules.get(name)) is not None:
            with contextlib.suppress(Exception):  # a module that is half imported
                found += [(title, hook) for hook in get(module) if callable(hook)]
    return found


# Classes whose objects only the thread that made them may use: module, class, and what raises
# in any other thread and does nothing else; None where nothing harmless does.
_ONE_THREAD: Final[dict[tuple[str, str], Callable[[Any], Any] | None]] = {
    ("sqlite3", "Connection"): lambda obj: obj.cursor(),
    ("sqlite3", "Cursor"): None,
    ("tkinter", "Misc"): None,
    ("tkinter", "Variable"): None,
    ("curses", "window"): None,
    ("asyncio", "BaseEventLoop"): None,
    ("greenlet", "greenlet"): None,
    ("playwright", "SyncBase"): None,
    ("contextvars", "Context"): None,
}  # fmt: skip


def one_thread_object(found: Iterable[tuple[str, Any]], stored: set[str]) -> str:
    """The name of the first object that other threads cannot use; "" if there is none.

    `stored` are the attributes that the code sets: values of a `threading.local` that it sets
    itself are there in every thread.
    """
    for name, obj in found:
        if is_a(obj, local):
            space = instance_dict(obj)
            if any(key not in stored for key in (space if space is not None else vars(obj))):
                return name
            continue
        for cls in mro_of(type(obj)):
            key = top_module(cls), cls.__name__
            if key in _ONE_THREAD and not _works_elsewhere(obj, _ONE_THREAD[key]):
                return name
    return ""


def _works_elsewhere(obj: Any, probe: Callable[[Any], Any] | None) -> bool:
    if probe is None:
        return False
    from threading import Thread  # few callables hold such objects

    works = []

    def attempt() -> None:
        try:
            works.append((probe(obj), True))
        except Exception:  # noqa: BLE001 - an object that is closed works nowhere
            return

    thread = Thread(target=attempt, name="parallax-probe")
    thread.start()
    thread.join()
    return bool(works)


def importing() -> str:
    """The module whose import this thread is in the middle of; "" if there is none."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            spec = frame.f_globals.get("__spec__")
            if getattr(spec, "_initializing", False):
                return str(frame.f_globals.get("__name__"))
        frame = frame.f_back
    return ""
