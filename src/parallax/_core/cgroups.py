"""The CPU and memory limits of the control groups that this process is in, version 1 and 2.

Guarantees: nothing raises, whatever the system's files look like; the files, which cost tens of
microseconds, are read at most once a second for the CPU limit.
"""

from __future__ import annotations

import os
import time

from parallax._core.light_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds that a CPU limit is kept. Smaller: a program that maps many short lists reads the files
#: again and again (about 0.1 ms). Larger: a changed quota is believed too late.
CPU_LIMIT_TTL_S = 1.0

_DEFAULT_PERIOD_US = 100_000

# Where each version of control groups counts whom the out-of-memory killer has ended.
_OOM_COUNT_FILES = {1: "memory.oom_control", 2: "memory.events"}


class CgroupReader:
    """Reads the CPU and memory limits of the control groups that this process is in.

    Both hierarchies count, v1 and v2, and within each every ancestor that is visible: a limit may
    sit above the group of the process, as in a systemd slice. In a container without a cgroup
    namespace /proc/self/cgroup names a path of the host; the mount's own root says which part of
    that path is above the mount. A file that is missing, unreadable or nonsense sets no limit.

    Tests put a tree of fixture files under another `root`. An answer about the CPU is kept for
    `ttl` seconds of the `clock`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "/",
        *,
        ttl: float = CPU_LIMIT_TTL_S,
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
        quotas = (self._cpu_quota(*group) for group in self._folders("cpu"))
        limit = min((quota for quota in quotas if quota is not None), default=None)
        self._cached = (now, limit)
        return limit

    def memory_limit(self) -> int | None:
        """The lowest memory limit that applies, in bytes, or None without one."""
        limits = (self._memory_limit(*group) for group in self._folders("memory"))
        return min((limit for limit in limits if limit is not None), default=None)

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
            key = "inactive_file" if v2 else "total_inactive_file"
            cache = self._entry(folder, "memory.stat", key) or 0
            left.append(max(0, min(limit, limit - (used or 0) + cache)))
        return min(left, default=None)

    def oom_kills(self) -> int | None:
        """Processes of this process's group that the out-of-memory killer has ended, if counted."""
        for version, folder in self._folders("memory"):
            count = self._entry(folder, _OOM_COUNT_FILES[version], "oom_kill")
            if count is not None:
                return count
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

    def _entry(self, folder: str, file: str, key: str) -> int | None:
        for line in self._text(folder, file).splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return _number(value)
        return None

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


#: The machine's own.
CGROUPS = CgroupReader()
