"""The leak check: what this process holds, and what is left of it that was not there before.

The warm worker pool may live on, that is what it is for: what it holds is not counted.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

import psutil

__all__ = [
    "Held",
    "children_of",
    "descendants",
    "shutdown_pool",
    "stdlib_helpers",
    "wait_until_clean",
]

# Longer than a worker needs to notice that its socket was closed, on a loaded machine.
GRACE_SECONDS = 5.0
# A thread of the pool itself, not of a run, is named like this.
POOL_THREADS = "parallax-pool"

_CHILDREN_TOLD = Path("/proc/thread-self/children").exists()
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGCHLD", "SIGPIPE", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
]
_OF_PYTEST = ("PYTEST_CURRENT_TEST", b"PYTEST_CURRENT_TEST")

_POOL = "parallax._backends.processes.parent.warm_pool"
_SHM = Path("/dev/shm")


def close_default_executors() -> None:
    """Shut the executors down that calls share which are given none."""
    module = sys.modules.get("parallax._executors.executor")
    if module is not None:
        with module._defaults_lock:
            executors = list(module._defaults.values())
            module._defaults.clear()
        for executor in executors:
            executor.shutdown()


def shutdown_pool() -> None:
    # Not imported: a pool that was never imported has no workers.
    pool = sys.modules.get(_POOL)
    if pool is not None and hasattr(pool, "shutdown_warm_pool"):
        pool.shutdown_warm_pool()


@dataclass
class Held:
    """What this process holds at one moment, each thing with a name fit for a message."""

    processes: dict[object, str] = field(default_factory=dict)
    threads: dict[object, str] = field(default_factory=dict)
    descriptors: dict[object, str] = field(default_factory=dict)
    shared_memory: dict[object, str] = field(default_factory=dict)
    temporary_files: dict[object, str] = field(default_factory=dict)
    settings: dict[object, object] = field(default_factory=dict)

    @classmethod
    def now(cls) -> Held:
        warm_pids, warm_fds = warm_resources()
        return cls(
            _processes(warm_pids),
            _threads(),
            _descriptors(warm_fds),
            _files(_SHM, _may_be_our_shared_memory),
            # pytest's own tmp_path folders are kept on purpose.
            _files(Path(tempfile.gettempdir()), lambda name: not name.startswith("pytest-of-")),
            _settings(),
        )

    def minus(self, before: Held) -> list[str]:
        left = []
        for kind in fields(self):
            new, old = getattr(self, kind.name), getattr(before, kind.name)
            left += [f"{kind.name}: {_words(new[key])}" for key in new if key not in old]
        return [each for each in left if not _used_elsewhere(each)]


def _words(thing: object) -> str:
    return "{} is now {!r}".format(*thing) if isinstance(thing, tuple) else str(thing)


def warm_resources() -> tuple[set[int], set[int]]:
    """Process ids and descriptors that are held between runs."""
    pool = sys.modules.get(_POOL)
    if pool is None or not hasattr(pool, "_pools_lock"):
        return set(), set()
    with pool._pools_lock:
        found = [pool_resources(each) for each in list(pool._pools.values())]
    return set().union(*(pids for pids, _ in found)), set().union(*(fds for _, fds in found))


def pool_resources(pool) -> tuple[set[int], set[int]]:
    """Process ids and descriptors that a pool of workers holds between runs."""
    attendant = sys.modules["parallax._backends.processes.start.attendant"].attendant()
    with pool._lock:
        pool._weed()
        zygotes = pool._starter.zygotes()
        pids = {z.process.pid for z in zygotes if z.process.pid}
        fds = {fd for z in zygotes for fd in (z.fileno(), z.process.fileno())}
        # Those that interpreters have.
        fds |= {fd for each in getattr(pool._starter, "_started", ()) for fd in each.fds}
        for worker in pool._alive:
            if worker.pid is not None:
                pids.add(worker.pid)
            fds.add(worker.channel.fileno())
            if worker.dump is not None:
                fds.add(worker.dump.handle)
        pids |= {w.pid for w in pool._leaving if w.pid is not None}
        fds |= {w.started.fileno() for w in pool._all()} | set(attendant._wake)
        return pids, fds


def _pooled() -> bool:
    """Whether there is a warm pool, with workers or without."""
    pool = sys.modules.get(_POOL)
    return pool is not None and bool(pool._pools)


def stdlib_helpers() -> tuple[set[int], set[int]]:
    """The standard library's own helpers, which live as long as the process, by its design."""
    pids, fds = set(), set()
    for module, name in (
        ("multiprocessing.resource_tracker", "_resource_tracker"),
        ("multiprocessing.forkserver", "_forkserver"),
    ):
        helper = getattr(sys.modules.get(module), name, None)
        for attribute, found in (
            ("_pid", pids),
            ("_fd", fds),
            ("_forkserver_pid", pids),
            ("_forkserver_alive_fd", fds),
        ):
            number = getattr(helper, attribute, None)
            if isinstance(number, int):
                found.add(number)
    return pids, fds


def children_of(pid: int) -> list[int]:
    """What a process has started, as Linux tells."""
    found: list[int] = []
    # A process or thread may end while we look.
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, _content(f"/proc/{pid}/task/{name}/children").split())
    return found


def _content(path: str) -> bytes:
    """What a small file has; each test pays for some of them twice."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1 << 20)
    finally:
        os.close(fd)


def descendants() -> list[int]:
    """All that this process has started, and what those have; psutil reads all processes."""
    if not _CHILDREN_TOLD:
        return [child.pid for child in psutil.Process().children(recursive=True)]
    found, look = [], [os.getpid()]
    while look:
        new = children_of(look.pop())
        found += new
        look += new
    return found


def _processes(warm: set[int]) -> dict[object, str]:
    allowed = warm | stdlib_helpers()[0]
    found: dict[object, str] = {}
    for pid in descendants():
        if pid in allowed:
            continue
        try:
            child = psutil.Process(pid)
            what = " ".join(child.cmdline())[:120] or child.status()
            found[child.pid, child.create_time()] = f"{child.pid} ({what})"
        except psutil.Error:
            continue  # It ended while we looked.
    return found


def _threads() -> dict[object, str]:
    return _pausing_forks() | {
        thread: f"{thread.name} (daemon={thread.daemon})"
        for thread in threading.enumerate()
        if not thread.name.startswith(POOL_THREADS)
        and not isinstance(thread, threading._DummyThread)
        and not type(thread).__module__.startswith("tqdm")  # Its monitor outlives its bars.
    }


def _pausing_forks() -> dict[object, str]:
    """Threads that every fork would wait for, in vain: they have ended and hold their lock."""
    module = sys.modules.get("parallax._core.fork_pauses")
    return {
        id(each): f"{type(each).__name__} that ended and holds its lock"
        for each in list(module._registered if module is not None else ())
        if each.running.locked() and not _is_there(each.native_id)
    }


def _is_there(thread: int | None) -> bool:
    if not thread or not Path("/proc/self/task").exists():
        return True
    return Path(f"/proc/self/task/{thread}").exists()


def _descriptors(warm: set[int]) -> dict[object, str]:
    folder = next((d for d in ("/proc/self/fd", "/dev/fd") if Path(d).is_dir()), None)
    if folder is None:
        return {}
    allowed = warm | stdlib_helpers()[1]
    tags = [path for path in [os.environ.get("PARALLAX_TESTS_TAGS")] if path]  # on forced Windows
    found: dict[object, str] = {}
    for name in os.listdir(folder):
        try:
            status = os.fstat(int(name))
        except OSError:
            continue  # The one that listed the folder.
        if int(name) not in allowed:
            try:
                target = os.readlink(f"{folder}/{name}")
            except OSError:
                target = stat.filemode(status.st_mode)
            if "/libffi." in target:
                continue  # ctypes keeps it open once it is loaded, in whatever interpreter.
            if "/pym-" in target:
                continue  # The heap of multiprocessing lives as long as the process, by its design.
            if _pooled() and (
                target.startswith(("/memfd:parallax", *tags))
                or ("/parallax-" in target and target.endswith(" (deleted)"))
            ):
                # The pool's shared memory outlives its last worker. Before Python 3.13 each mapping
                # has a descriptor, too, that it does not tell.
                continue
            found[int(name), status.st_dev, status.st_ino] = f"{name} -> {target}"
    return found


def _files(folder: Path, wanted: Callable[[str], bool]) -> dict[object, str]:
    try:
        return {name: f"{folder}/{name}" for name in os.listdir(folder) if wanted(name)}
    except OSError:
        return {}


def _may_be_our_shared_memory(name: str) -> bool:
    # tqdm's class keeps one; it has a name from Python 3.14 on, whose default is not to fork.
    lock = getattr(
        getattr(sys.modules.get("tqdm.std"), "TqdmDefaultWriteLock", None), "mp_lock", None
    )
    if lock is not None and f"/{name.removeprefix('sem.')}" == lock._semlock.name:
        return False
    # The folder is the whole machine's: others come and go there while a test runs.
    return name.startswith(("parallax", "psm_", "sem.mp-")) or f"{os.getpid()}" in name


def _used_elsewhere(thing: str) -> bool:
    """Whether this is shared memory that a process maps which has nothing to do with this one."""
    path = thing.removeprefix("shared_memory: ")
    if path == thing:
        return False
    ours = {os.getpid(), *(process.pid for process in psutil.Process().children(recursive=True))}
    try:
        # Mapped under another name: a semaphore is made as a temporary file first.
        wanted = f" {Path(path).stat().st_ino} "
    except OSError:
        return True  # it is gone by now
    for pid in set(psutil.pids()) - ours:
        with contextlib.suppress(OSError):
            maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
            if any(wanted in line and str(_SHM) in line for line in maps.splitlines()):
                return True
    return False


def _settings() -> dict[object, object]:
    """Process-wide settings: one that a run changed shows up as a new value."""
    values = {
        "switch interval": sys.getswitchinterval(),
        "recursion limit": sys.getrecursionlimit(),
        "working directory": os.getcwd(),
        "gc": (gc.isenabled(), gc.get_threshold()),
        "sys.path": tuple(sys.path),
        "sys.excepthook": sys.excepthook,
        "threading.excepthook": threading.excepthook,
        "threading.stack_size": threading.stack_size(),
        **{f"handler of {each.name}": signal.getsignal(each) for each in _SIGNALS},
        # As the system has it: nothing is decoded for each test.
        **{k: v for k, v in os.environ._data.items() if k not in _OF_PYTEST},  # type: ignore[attr-defined]
    }
    return {item: item for item in values.items()}


def _held_by_strangers(paths: set[str]) -> set[str]:
    """Those shared-memory files that a process which is not ours has open or mapped."""
    me = psutil.Process()
    ours = {me.pid} | {child.pid for child in me.children(recursive=True)}
    held: set[str] = set()
    for pid in psutil.pids():
        if pid in ours or not paths - held:
            continue
        try:
            held |= paths & {m.path for m in psutil.Process(pid).memory_maps()}
            held |= paths & {f.path for f in psutil.Process(pid).open_files()}
        except (psutil.Error, OSError):
            continue
    return held


def wait_until_clean(before: Held) -> list[str]:
    """What is still left of it when the grace is over; usually nothing, at once."""
    deadline = time.monotonic() + GRACE_SECONDS
    pause, collected = 0.001, False
    while True:
        now = Held.now()
        left = now.minus(before)
        if not left:
            return []
        if not collected:
            # Results that are views of shared memory give it back when they are collected.
            gc.collect()
            collected = True
        elif time.monotonic() > deadline:
            new = set(now.shared_memory.values()) - set(before.shared_memory.values())
            foreign = _held_by_strangers(new) if new else set()
            return [line for line in left if line.removeprefix("shared_memory: ") not in foreign]
        else:
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
