"""How much memory there is, and whom the kernel has ended for the lack of it.

Guarantees: nothing raises; control groups and the system's own files are asked at every call.
"""

from __future__ import annotations

import os

from parallax._core.cgroups import CGROUPS


def memory_total() -> int:
    """Bytes of memory that this process could ever have; 0 where nothing tells."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        total = _psutil_memory("total")
    limit = CGROUPS.memory_limit()
    return total if limit is None else min(total or limit, limit)


def memory_available() -> int:
    """Bytes that can be taken now without swapping or meeting a limit; 0 where nothing tells."""
    kibibytes = _system_count("meminfo", "MemAvailable:")
    free = _psutil_memory("available") if kibibytes is None else kibibytes * 1024
    left = CGROUPS.memory_available()
    return free if left is None else min(free or left, left)


def oom_kills() -> int | None:
    """Processes that lack of memory ended here, or anywhere; None where nobody counts."""
    count = CGROUPS.oom_kills()
    return _system_count("vmstat", "oom_kill ") if count is None else count


def _system_count(file: str, key: str) -> int | None:
    try:
        with open(f"/proc/{file}", encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith(key):
                    return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None


def _psutil_memory(field: str) -> int:
    try:
        import psutil

        return int(getattr(psutil.virtual_memory(), field))
    except Exception:  # noqa: BLE001 - nothing here may raise
        return 0
