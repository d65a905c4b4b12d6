"""Ending a process together with its descendants.

What an item has started (a converter, a compiler, a pool of its own) would outlive its worker. The
descendants of a process that has ended by itself cannot be found any more, and live on.

Guarantees: a process starts nothing while it is ended, for it is stopped first (not on Windows).
"""

from __future__ import annotations

import os

from parallax._core.light_stdlib import signals

#: Ends a process at once.
KILL: int = getattr(signals, "SIGKILL", signals.SIGTERM)


def kill_tree(pid: int, *, itself: bool = True) -> None:
    """End a process and its descendants at once, as far as they exist and may be ended."""
    if itself and hasattr(signals, "SIGSTOP"):
        _send(pid, signals.SIGSTOP)
    found = descendants(pid)
    if itself:
        _send(pid, KILL)
    for each in found:
        _send(each, KILL)


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    look = [pid]
    while look:
        children = _children(look.pop())
        if children is None:
            return _descendants_by_psutil(pid)
        found += children
        look += children
    return found


def _children(pid: int) -> list[int] | None:
    """Process ids of the children of a process; None where the system does not list them."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return [] if os.path.exists("/proc/self/task") else None
    found: list[int] = []
    for task in tasks:
        try:
            fd = os.open(f"/proc/{pid}/task/{task}/children", os.O_RDONLY)
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/task/{task}"):
                return None  # a kernel without such lists
            continue
        except OSError:
            continue
        data = b""
        try:
            while more := os.read(fd, 1 << 16):
                data += more
        except OSError:
            continue
        finally:
            os.close(fd)
        found += map(int, data.split())
    return found


def _descendants_by_psutil(pid: int) -> list[int]:
    try:
        import psutil

        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except Exception:  # noqa: BLE001 - it is gone, or psutil is not there
        return []


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        return  # it has ended, or belongs to another user
