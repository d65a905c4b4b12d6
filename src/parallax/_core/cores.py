"""What this machine, this container and this interpreter offer, asked now.

Purpose: the figures that planning needs: usable cores, memory, whether the GIL is on, how workers
can be started, clocks of other threads.
Guarantees: no function raises, whatever the system's files look like; cores are never below 1;
answers that may change at run time (affinity, GIL, memory) are asked again at every call, and the
cgroup files, which cost tens of microseconds, at most once a second.
Assumptions: none about the platform. Linux answers come from /proc and the cgroup files, others
from psutil, which is imported only there and only when asked: every worker imports this module.
"""

from __future__ import annotations

import os
import sys
import time

# Type checkers take this for typing's own constant.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "CgroupReader",
    "clock_tick",
    "cpu_count",
    "free_threaded_build",
    "gil_enabled",
    "load_per_core",
    "memory_available",
    "memory_total",
    "oom_kills",
    "start_methods",
    "thread_count",
    "thread_cpu_clock",
    "usable_cores",
]

# Smaller: a program that maps many short lists reads the files again and again (about 0.1 ms).
# Larger: a container whose quota is changed while it runs is believed too late.
_CGROUP_SECONDS = 1.0

# GetThreadTimes moves with the scheduler's tick, though Windows reports a resolution of 100 ns.
_WINDOWS_TICK = 0.015625

_DEFAULT_PERIOD_US = 100_000

# Where each version of control groups counts whom the out-of-memory killer has ended.
_OOM_COUNTS = {1: "memory.oom_control", 2: "memory.events"}


class CgroupReader:
    """Reads the CPU and memory limits of the control groups that this process is in.

    Both hierarchies count, v1 and v2, and within each every ancestor that is visible: a limit may
    sit above the group of the process, as in a systemd slice. In a container without a cgroup
    namespace /proc/self/cgroup names a path of the host; the mount's own root says which part of
    that path is above the mount. A file that is missing, unreadable or nonsense sets no limit.

    Args:
        root: Where "/" is; tests put a tree of fixture files there.
        ttl: For how many seconds an answer about the CPU is kept.
        clock: Tells the time for that.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "/",
        *,
        ttl: float = _CGROUP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = os.fspath(root)
        self._ttl = ttl
        self._clock = clock
        # One tuple, replaced as a whole: two threads may both read the files, neither sees half.
        self._cached: tuple[float, float | None] | None = None

    def cpu_limit(self) -> float | None:
        """The lowest CPU quota that applies, in cores (1.5, say), or None without one."""
        now = self._clock()
        cached = self._cached
        if cached is not None and 0 <= now - cached[0] < self._ttl:
            return cached[1]
        limits = [
            quota
            for version, folder in self._folders("cpu")
            if (quota := self._cpu_quota(version, folder)) is not None
        ]
        limit = min(limits, default=None)
        self._cached = (now, limit)
        return limit

    def memory_limit(self) -> int | None:
        """The lowest memory limit that applies, in bytes, or None without one."""
        limits = [
            limit
            for version, folder in self._folders("memory")
            if (limit := self._memory_limit(version, folder)) is not None
        ]
        return min(limits, default=None)

    def memory_available(self) -> int | None:
        """Bytes that can still be taken below every limit, or None without a limit.

        File pages that the kernel would drop first count as available, as they do in /proc/meminfo.
        """
        left = []
        for version, folder in self._folders("memory"):
            limit = self._memory_limit(version, folder)
            if limit is None:
                continue
            v2 = version == 2
            used = _number(self._text(folder, "memory.current" if v2 else "memory.usage_in_bytes"))
            cache = self._stat(folder, "inactive_file" if v2 else "total_inactive_file")
            left.append(max(0, min(limit, limit - (used or 0) + cache)))
        return min(left, default=None)

    def oom_kills(self) -> int | None:
        """Processes of this process's group that the out-of-memory killer has ended, if counted."""
        for version, folder in self._folders("memory"):
            for line in self._text(folder, _OOM_COUNTS[version]).splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return _number(value)
        return None

    def _cpu_quota(self, version: int, folder: str) -> float | None:
        if version == 2:
            words = self._text(folder, "cpu.max").split()
            quota = _number(words[0]) if words else None
            period = _number(words[1]) if len(words) > 1 else _DEFAULT_PERIOD_US
        else:
            quota = _number(self._text(folder, "cpu.cfs_quota_us"))
            period = _number(self._text(folder, "cpu.cfs_period_us"))
        return quota / period if quota and period else None

    def _memory_limit(self, version: int, folder: str) -> int | None:
        # Above memory.high the kernel slows the process down to reclaim: as good as a limit.
        names = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",)
        found = (_number(self._text(folder, name)) for name in names)
        return min((limit for limit in found if limit is not None), default=None)

    def _folders(self, controller: str) -> Iterator[tuple[int, str]]:
        """The version and folder of each group in force: the process's own, then its ancestors."""
        groups = self._groups()
        for version, mount_root, mount_point in self._mounts(controller):
            group = groups.get("" if version == 2 else controller, "/")
            parts = _below(group, mount_root)
            for depth in range(len(parts), -1, -1):
                yield version, "/".join((mount_point, *parts[:depth]))

    def _groups(self) -> dict[str, str]:
        """The group of this process per v1 controller, and under "" that of the v2 hierarchy."""
        groups = {}
        for line in self._text("/proc/self", "cgroup").splitlines():
            number, _, rest = line.partition(":")
            controllers, separator, path = rest.partition(":")
            if separator and number.isdigit():
                for controller in controllers.split(","):
                    groups[controller] = path
        return groups

    def _mounts(self, controller: str) -> list[tuple[int, str, str]]:
        """Version, root and mount point of each hierarchy that may limit the controller."""
        mounts = []
        for line in self._text("/proc/self", "mountinfo").splitlines():
            mount, separator, filesystem = line.partition(" - ")
            fields, kind = mount.split(), filesystem.split()
            if not separator or len(fields) < 5 or len(kind) < 2:
                continue
            where = (_unescape(fields[3]), _unescape(fields[4]))
            if kind[0] == "cgroup2":
                mounts.append((2, *where))
            elif kind[0] == "cgroup" and controller in kind[-1].split(","):
                mounts.append((1, *where))
        # Without a mount table (an odd sandbox) the usual places are worth a look.
        return mounts or [(2, "/", "/sys/fs/cgroup"), (1, "/", f"/sys/fs/cgroup/{controller}")]

    def _stat(self, folder: str, key: str) -> int:
        for line in self._text(folder, "memory.stat").splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return _number(value) or 0
        return 0

    def _text(self, folder: str, name: str) -> str:
        path = os.path.join(self._root, folder.lstrip("/"), name)
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except (OSError, ValueError):
            return ""


def _below(group: str, mount_root: str) -> list[str]:
    """The part of a group's path that lies below the root of a mount, as names."""
    parts = [part for part in group.split("/") if part]
    above = [part for part in mount_root.split("/") if part]
    if parts[: len(above)] == above:
        parts = parts[len(above) :]
    elif above:
        return []
    # A group outside this cgroup namespace reads "/../..": none of it can be seen from here.
    return [] if ".." in parts else parts


def _number(text: str) -> int | None:
    """A count that is not negative, or None: "max", -1, an empty file and nonsense set no limit."""
    text = text.strip()
    # isdecimal alone would let other alphabets' digits pass, and long nonsense is costly in int().
    return int(text) if len(text) < 20 and text.isascii() and text.isdecimal() else None


def _unescape(text: str) -> str:
    r"""A field of the mount table, where a space is written \040."""
    if "\\" not in text:
        return text
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


_cgroups = CgroupReader()


def usable_cores(cap: int | None = None, *, reader: CgroupReader | None = None) -> int:
    """How many cores this process may keep busy at once; at least 1.

    The lowest of: the cores in the calling thread's affinity mask, the cgroup CPU quota rounded up
    (1.5 cores keep two workers busy), Python's own ``-X cpu_count`` and ``PYTHON_CPU_COUNT``, and
    the cap.

    Args:
        cap: The user's own limit, such as ``PARALLAX_MAX_WORKERS``.
        reader: Where to read the quota; the machine's own files unless given.
    """
    cores = _affinity()
    quota = (reader or _cgroups).cpu_limit()
    if quota is not None:
        cores = min(cores, int(-(-quota // 1)))
    if sys.version_info >= (3, 13):
        cores = min(cores, os.process_cpu_count() or cores)
    if cap is not None:
        cores = min(cores, cap)
    return max(1, cores)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        try:
            return len(os.sched_getaffinity(0)) or _installed_cores()
        except OSError:
            return _installed_cores()
    if sys.platform == "win32":
        try:
            import psutil

            return len(psutil.Process().cpu_affinity() or ()) or _installed_cores()
        except Exception:  # noqa: BLE001 - nothing here may raise, whatever psutil meets
            return _installed_cores()
    return _installed_cores()


def _installed_cores() -> int:
    # Not os.cpu_count() first: -X cpu_count changes its answer.
    try:
        return max(1, os.sysconf("SC_NPROCESSORS_ONLN"))
    except (AttributeError, ValueError, OSError):
        return os.cpu_count() or 1


def memory_total(*, reader: CgroupReader | None = None) -> int:
    """Bytes of memory that this process could ever have; 0 where nothing tells."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        total = _psutil_memory("total")
    limit = (reader or _cgroups).memory_limit()
    return total if limit is None else min(total or limit, limit)


def memory_available(*, reader: CgroupReader | None = None) -> int:
    """Bytes that can be taken now without swapping or meeting a limit; 0 where nothing tells."""
    free = _meminfo_available()
    if free is None:
        free = _psutil_memory("available")
    left = (reader or _cgroups).memory_available()
    return free if left is None else min(free or left, left)


def oom_kills(*, reader: CgroupReader | None = None) -> int | None:
    """Processes that the kernel's out-of-memory killer has ended; None where it does not count.

    Those of this process's control group, else those of the whole system.
    """
    count = (reader or _cgroups).oom_kills()
    if count is not None:
        return count
    try:
        with open("/proc/vmstat", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None


def _meminfo_available() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _psutil_memory(field: str) -> int:
    try:
        import psutil

        return int(getattr(psutil.virtual_memory(), field))
    except Exception:  # noqa: BLE001 - nothing here may raise
        return 0


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


def thread_count() -> int:
    """The threads of this process as the system counts them, those of C libraries too."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        pass
    try:
        import psutil

        return int(psutil.Process().num_threads())
    except Exception:  # noqa: BLE001 - nothing here may raise
        import threading

        return threading.active_count()


def load_per_core() -> float | None:
    """The machine's load average of the last minute per installed core; None without one."""
    try:
        return os.getloadavg()[0] / _installed_cores()
    except (AttributeError, OSError):
        return None


def thread_cpu_clock(ident: int) -> Callable[[], float] | None:
    """A clock of the CPU seconds that another thread of this process has used.

    After that thread has ended the clock stands still. None where the platform cannot tell (macOS,
    Windows) or no such thread is running.

    Args:
        ident: As in ``Thread.ident``.
    """
    get_clock: Callable[[int], int] | None = getattr(time, "pthread_getcpuclockid", None)
    # The C library crashes on the ident of a thread that has ended, so ask the interpreter first.
    if get_clock is None or ident not in sys._current_frames():
        return None
    try:
        clock = get_clock(ident)
        last = time.clock_gettime(clock)
    except OSError:
        return None

    def read() -> float:
        nonlocal last
        try:
            last = time.clock_gettime(clock)
        except OSError:
            pass
        return last

    return read


def thread_delay(native_id: int | None) -> float:
    """Seconds that a thread of this process could run and got no core; 0 if not known."""
    try:
        with open(f"/proc/self/task/{native_id}/schedstat", "rb", buffering=0) as file:
            return int(file.read(100).split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):
        return 0.0


class RunDelay:
    """Seconds that this thread was able to run and got no core, for another thread to read too.

    Without it, work on a loaded machine looks like waiting: in both the CPU clock stands still.
    Linux only; elsewhere it reads 0.
    """

    def __init__(self) -> None:
        self._fd = -1
        if sys.platform == "linux":
            try:
                self._fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._fd = -1

    def __call__(self) -> float:
        """Seconds since the thread began."""
        if self._fd < 0:
            return 0.0
        try:
            return int(os.pread(self._fd, 100, 0).split()[1]) * 1e-9
        except (OSError, IndexError, ValueError):
            return 0.0

    def close(self) -> None:
        """Give the descriptor back; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def clock_tick() -> float:
    """The step, in seconds, in which ``time.thread_time`` moves; shorter spans mean nothing."""
    try:
        resolution = time.get_clock_info("thread_time").resolution
    except ValueError:
        resolution = _WINDOWS_TICK
    return max(resolution, _WINDOWS_TICK) if sys.platform == "win32" else resolution


def cpu_count() -> int:
    """Number of cores that this process may really use, at least 1.

    Unlike ``os.cpu_count`` it minds CPU affinity and the CPU quota of the container (cgroup v1
    and v2, all ancestors).
    """
    return usable_cores()
