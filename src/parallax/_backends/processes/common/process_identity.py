"""Who a process is among others, as ``multiprocessing`` and code that asks it see it.

A worker is a child of the program, by a name and numbers like those of a ``Process`` of the
standard library: code that decides by ``current_process()`` or ``parent_process()`` decides as in
any other pool. The zygote is one too, because modules may decide when they are imported.

Guarantees: nothing here imports ``multiprocessing``, which takes 10 ms. A process that imports it
later is told at once, before any other code can ask.
"""

from __future__ import annotations

import itertools
import os
import sys
from _thread import allocate_lock
from collections.abc import Callable

from parallax._core.light_stdlib import Any, NamedTuple, TypeAlias, sockets

#: The key of managers and connections, where the resource tracker listens (process id and
#: descriptor), and the start method that was set; None for each that the program does not have.
Shared: TypeAlias = "tuple[bytes | None, tuple[int, int] | None, str | None]"

#: The class of workers in their names. Programs split off the number at the hyphen.
WORKER = "ParallaxWorker"

#: The numbers of a zygote. Workers count from 1.
ZYGOTE_NUMBER = 0


class Identity(NamedTuple):
    """A process that parallax has started."""

    name: str
    #: its number among the children of its parent, after the numbers of the parent.
    numbers: tuple[int, ...]
    parent_name: str
    parent_pid: int


_mine: Identity | None = None
#: becomes readable when the parent ends; kept here, for some must not be collected.
_sentinel: Any = None
_shared: Shared = (None, None, None)
#: what this process has instead of a resource tracker of its own.
_tracker: tuple[Any, int] | None = None
_connection: Any = None
_lock = allocate_lock()
_last = 0


def child_identity(kind: str = WORKER, number: int | None = None) -> Identity:
    """The identity of the next child of this process, or of one that was counted already."""
    global _last  # noqa: PLW0603 - a counter of the process
    module: Any = sys.modules.get("multiprocessing.process")
    counter: Any = getattr(module, "_process_counter", None)
    if counter is None:
        name, numbers = (_mine.name, _mine.numbers) if _mine else ("MainProcess", ())
    else:
        me = module.current_process()
        name, numbers = me.name, me._identity
    with _lock:
        if number is None:
            number = _last + 1 if counter is None else next(counter)
        # Workers were counted here before the program loaded the other counter.
        while 0 < number <= _last:
            number = next(counter)
        _last = max(_last, number)
    own = (*numbers, number)
    return Identity(f"{kind}-{':'.join(map(str, own))}", own, name, os.getpid())


def assume(identity: Identity, connection: sockets.socket) -> None:
    """Be that process, whose parent alone has the other end of the connection."""
    global _mine, _sentinel, _connection, _last
    _mine, _sentinel, _connection, _last = identity, None, connection, 0
    if _watcher not in sys.meta_path:
        sys.meta_path.insert(0, _watcher)
    for name, act in _ACTIONS.items():
        if name in sys.modules:
            act(sys.modules[name])


def share(shared: Shared) -> None:
    """Take over what a program shares with its children."""
    global _shared
    before, _shared = _shared, shared
    modules = sys.modules
    if shared[0] is not None and "multiprocessing.process" in modules:
        modules["multiprocessing.process"].current_process().authkey = shared[0]
    if shared[1] != before[1] and "multiprocessing.resource_tracker" in modules:
        _use_tracker(modules["multiprocessing.resource_tracker"])
    if shared[2] != before[2] and "multiprocessing.context" in modules:
        _set_start_method(modules["multiprocessing.context"])


def shared() -> Shared | None:
    """What this process shares with its children; None if nothing."""
    modules = sys.modules
    key, tracker, method = _shared
    try:
        if "multiprocessing.process" in modules:
            key = bytes(modules["multiprocessing.process"].current_process().authkey)
        if "multiprocessing.resource_tracker" in modules:
            fd = modules["multiprocessing.resource_tracker"]._resource_tracker._fd
            tracker = None if fd is None else (os.getpid(), fd)
        if "multiprocessing.context" in modules:
            context = modules["multiprocessing.context"]._default_context
            method = context.get_start_method(allow_none=True)
    except AttributeError:  # another thread is importing it
        pass
    found = key, tracker, method
    return None if found == (None, None, None) else found


# -- telling multiprocessing -----------------------------------------------------------------------


def _enter(process: Any) -> None:
    global _sentinel  # noqa: PLW0603 - state of the process
    from parallax._backends.processes.common.process_exit import exit_sentinel

    identity = _mine
    if identity is None:
        return
    kind = identity.name.partition("-")[0]
    # As in the standard library's executors: not a daemon, which could have no children.
    me = type(kind, (process.BaseProcess,), {"__module__": __name__})(
        name=identity.name, daemon=False
    )
    me._identity = identity.numbers
    me._parent_pid, me._parent_name = identity.parent_pid, identity.parent_name
    if _shared[0] is not None:
        me.authkey = _shared[0]
    _sentinel = exit_sentinel(identity.parent_pid, _connection)
    process._parent_process = process._ParentProcess(
        identity.parent_name,
        identity.parent_pid,
        _sentinel if isinstance(_sentinel, int) else _sentinel.fileno(),
    )
    process._current_process = me
    process._process_counter = itertools.count(1)
    process._children = set()


def _set_start_method(context: Any) -> None:
    default, method = context._default_context, _shared[2]
    default._actual_context = None if method is None else default.get_context(method)


def _use_tracker(module: Any) -> None:
    """Use the program's resource tracker.

    One of our own would remove what the program has shared by name, as soon as this worker leaves.
    The standard library hands the descriptor down in the same way.
    """
    global _tracker  # noqa: PLW0603 - state of the process
    if _shared[1] is None:
        return
    pid, number = _shared[1]
    try:
        fd = os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        # There is no such folder, or it is closed to us: none at all, which removes nothing.
        fd = os.open(os.devnull, os.O_WRONLY | getattr(os, "O_CLOEXEC", 0))
    ours = module._resource_tracker
    if _tracker == (ours, ours._fd):
        os.close(ours._fd)
    ours._fd = fd
    _tracker = ours, fd


def _name_records(logging: Any) -> None:
    """Have log records carry the name of this process; they ask only a loaded multiprocessing."""
    make = logging.getLogRecordFactory()

    def named(*args: Any, **kwargs: Any) -> Any:
        record = make(*args, **kwargs)
        if _mine is not None and getattr(record, "processName", None) == "MainProcess":
            record.processName = _mine.name
        return record

    if getattr(make, "__module__", None) != __name__:
        logging.setLogRecordFactory(named)


_ACTIONS: dict[str, Callable[[Any], None]] = {
    "multiprocessing.process": _enter,
    "multiprocessing.context": _set_start_method,
    "multiprocessing.resource_tracker": _use_tracker,
    "logging": _name_records,
}


def when_imported(name: str, act: Callable[[Any], None]) -> None:
    """Have a module acted upon as soon as it is imported, before any other code has it."""
    _ACTIONS[name] = act
    if _watcher not in sys.meta_path:
        sys.meta_path.insert(0, _watcher)


class _Watcher:
    """A finder that has modules of ``_ACTIONS`` acted upon as soon as they are imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        act = _ACTIONS.get(name)
        if act is None:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find is not None else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, act)
                return spec
        return None


class _Loader:
    """A loader that acts on the module afterwards, and leaves no trace in it."""

    def __init__(self, loader: Any, act: Callable[[Any], None]) -> None:
        self._loader = loader
        self._act = act

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._act(module)


_watcher: Any = _Watcher()
