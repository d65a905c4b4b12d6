"""Whether this process may be forked now: provably, its calling thread is the only one.

A fork copies the calling thread alone. A lock that another thread holds stays locked for ever in
the child.
"""

from __future__ import annotations

import os
import sys

from parallax._backends.processes.common.native_threads import native_pools
from parallax._core.current_frames import thread_idents
from parallax._core.light_stdlib import sockets

if sys.platform != "win32":
    from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit

#: Modules that do not survive a fork of a program that uses them, and the source of that.
UNSAFE_MODULES = {
    "gevent": "its hub and greenlets are copied with the fork (gevent: gevent.os.fork)",
    "eventlet": "its hub is copied with the fork (eventlet: patching os.fork)",
    "grpc": "its threads hold locks across a fork (gRPC: Fork Support)",
    "ray": "its connections are shared with the fork (Ray: anti-pattern fork)",
    "mpi4py.MPI": "MPI forbids forks while it is initialized (Open MPI: FAQ on fork)",
    "jpype": "a Java VM does not survive a fork (JPype: user guide, multiprocessing)",
    "tensorflow": "its thread pools do not survive a fork (TensorFlow: issue 5448)",
    "jax": "it is multithreaded and warns of deadlocks in forks (JAX: os.fork warning)",
}


#: Where files lie that are no files of the program.
_OTHER_FILES = ("/dev/", "/memfd:", "/proc/", "/sys/")

#: Free descriptors below which a program is not forked: in the fork all of its others stay in use.
MIN_FREE_DESCRIPTORS = 32


def openblas_threads(*, again: bool = False) -> int:
    """The most threads that OpenBLAS has besides the calling ones; see ``native_pools``."""
    pools = [p for p in native_pools(again=again) if p.variable == "OPENBLAS_NUM_THREADS"]
    return sum(max(0, pool.threads() - 1) for pool in pools)


def unsafe_reason(ending: int = 0) -> str:
    """Why this process must not be forked now, with ``ending`` threads ended; "" if it may."""
    if sys.platform != "linux":
        return "programs are forked on Linux only"
    for name, why in UNSAFE_MODULES.items():
        if name in sys.modules:
            return f"{name} is loaded: {why}"
    cuda = sys.modules.get("torch.cuda")
    if getattr(cuda, "_initialized", False):
        return "a CUDA context does not survive a fork"
    if (others := len(thread_idents()) - 1 - ending) > 0:
        return f"the program has {others} other thread{'s' * (others > 1)}"
    try:
        limit = getrlimit(RLIMIT_NOFILE)[0]
        free = limit - len(os.listdir("/proc/self/fd"))
        if limit != RLIM_INFINITY and free < MIN_FREE_DESCRIPTORS:
            return f"only {max(0, free)} more files may be open"
        natives = count_threads() - 1 - ending
        if natives > 0 and natives > openblas_threads():
            natives -= openblas_threads(again=True)
            if natives > 0:
                return f"{natives} of its threads are neither Python's nor OpenBLAS's"
    except OSError as error:
        return f"its threads and files cannot be counted: {error}"
    return ""


def open_files_reason() -> str:
    """Which file or connection a fork would not have, where anything may be used; "" if none."""
    try:
        for fd in map(int, os.listdir("/proc/self/fd")):
            path = _path_of(fd) if fd > 2 else ""
            code = ".so" in path.rpartition("/")[2]  # a loader may have left it open
            if path.startswith("/") and not path.startswith(_OTHER_FILES) and not code:
                return f"it has opened {path}"
            if path.startswith("socket:") and _family_of(fd) != sockets.AF_UNIX:
                return "it has a connection"
    except OSError as error:
        return f"its files cannot be listed: {error}"
    return ""


def _path_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:  # the listing itself
        return ""


def _family_of(fd: int) -> int:
    copy = sockets.socket(fileno=os.dup(fd))
    try:
        return copy.family
    finally:
        copy.close()


def count_threads() -> int:
    """The threads of this process. OSError if the system does not tell."""
    return len(os.listdir("/proc/self/task"))
