"""The warm pools of this process: one per start method, shared by all runs and executors.

Guarantees: at exit no process is left behind; a forked copy of this process starts afresh.
"""

from __future__ import annotations

import atexit
import os
import threading

from parallax._backends.processes.parent.pool import Pool, hired_anywhere
from parallax._shm.arena import release_when_unused

#: by start method; those of one run by themselves.
_pools: dict[str | Pool, Pool] = {}
_pools_lock = threading.Lock()


def warm_pool(method: str) -> Pool:
    """The pool of this process for a start method; snapshots have a pool for each run."""
    method = "auto" if method == "snapshot" else method
    with _pools_lock:
        pool = _pools.get(method)
        if pool is None:
            pool = _pools[method] = Pool(method)
        return pool


def keep_registered(pool: Pool, *, alive: bool) -> None:
    """Have a pool of one run end with this process, and be dropped in forks of it."""
    with _pools_lock:
        _pools.pop(pool, None)
        if alive:
            _pools[pool] = pool
    _release_memory()


def shutdown_warm_pool() -> None:
    """End all warm workers now; the next run starts new ones."""
    with _pools_lock:
        pools = list(_pools.values())
        _pools.clear()
    for pool in pools:
        pool.shutdown()
    _release_memory()


def _release_memory() -> None:
    """Let go of the arena if no worker is left that has its descriptor."""
    if not hired_anywhere and not any(pool.workers for pool in list(_pools.values())):
        release_when_unused()


def warm_resources() -> tuple[set[int], set[int]]:
    """Process ids and descriptors that are held between runs."""
    pids: set[int] = set()
    fds: set[int] = set()
    with _pools_lock:
        for pool in _pools.values():
            more_pids, more_fds = pool.resources()
            pids |= more_pids
            fds |= more_fds
    return pids, fds


def _after_fork() -> None:
    global _pools_lock  # noqa: PLW0603 - the parent's lock may be held by a thread that is gone
    _pools_lock = threading.Lock()
    for pool in _pools.values():
        pool.forget()
    _pools.clear()
    hired_anywhere.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(shutdown_warm_pool)
