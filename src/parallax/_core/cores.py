"""What this machine and this interpreter offer: cores, the GIL, ways to start processes.

Guarantees: no function raises; cores are never below 1; answers that may change at run time
(affinity, quota, GIL) are asked again at every call.
Assumptions: none about the platform. Linux answers come from /proc and the cgroup files, others
from psutil, which is imported only there and only when asked: every worker imports this module.
"""

from __future__ import annotations

import os
import sys

from parallax._core.cgroups import CGROUPS
from parallax._core.light_stdlib import TYPE_CHECKING

#: Most worker processes that one call or executor listens to: select of Windows takes 512 sockets.
MAX_PROCESSES = 500 if sys.platform == "win32" else sys.maxsize

if TYPE_CHECKING:
    from collections.abc import Callable


def usable_cores() -> int:
    """How many cores this process may keep busy at once; at least 1.

    The lowest of: the cores in the calling thread's affinity mask, the cgroup CPU quota rounded up
    (1.5 cores keep two workers busy), and Python's own ``-X cpu_count`` and ``PYTHON_CPU_COUNT``.
    """
    cores = _affinity()
    quota = CGROUPS.cpu_limit()
    if quota is not None:
        cores = min(cores, int(-(-quota // 1)))
    if sys.version_info >= (3, 13):
        cores = min(cores, os.process_cpu_count() or cores)
    return max(1, cores)


def _affinity() -> int:
    cores = 0
    try:
        if hasattr(os, "sched_getaffinity"):
            cores = len(os.sched_getaffinity(0))
        elif sys.platform == "win32":
            import psutil

            cores = len(psutil.Process().cpu_affinity() or ())
    except Exception:  # noqa: BLE001 - nothing here may raise, whatever psutil meets
        pass
    return cores or installed_cores()


def installed_cores() -> int:
    """Cores of the machine, whoever may use them; at least 1."""
    # Not os.cpu_count() first: -X cpu_count changes its answer.
    try:
        return max(1, os.sysconf("SC_NPROCESSORS_ONLN"))
    except (AttributeError, ValueError, OSError):
        return os.cpu_count() or 1


def gil_enabled() -> bool:
    """Whether the GIL is on now; importing an extension module may switch it back on."""
    is_enabled: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)
    return True if is_enabled is None else is_enabled()


def free_threaded_build() -> bool:
    """Whether this interpreter was built so that it can run without the GIL."""
    # sysconfig knows as well, but loading its data costs milliseconds.
    return "free-threading build" in sys.version


def start_methods() -> tuple[str, ...]:
    """The ways worker processes can be started here, the cheapest first.

    "zygote" is a small helper process that forks workers: on Linux only, for the frameworks of
    macOS break in forked children. "spawn" is a fresh interpreter. Empty where the platform has no
    processes at all (WebAssembly).
    """
    if sys.platform in {"emscripten", "wasi"}:
        return ()
    return ("zygote", "spawn") if sys.platform == "linux" else ("spawn",)


def running_threads() -> int | None:
    """Threads of the whole machine that run or wait for a core right now; None: not told."""
    try:
        with open("/proc/loadavg", "rb") as file:
            return int(file.read().split()[3].partition(b"/")[0])
    except (OSError, ValueError, IndexError):
        return None


def load_per_core() -> float | None:
    """The machine's load average of the last minute per installed core; None without one."""
    try:
        return os.getloadavg()[0] / installed_cores()
    except (AttributeError, OSError):
        return None


def cpu_count() -> int:
    """Number of cores that this process may really use, at least 1.

    Unlike ``os.cpu_count`` it minds CPU affinity and the CPU quota of the container (cgroup v1
    and v2, all ancestors).
    """
    return usable_cores()
