"""The warm pools of this process: one per start method and rights, shared by runs and executors.

Guarantees: a worker runs items of callers that have its rights only: after a change of user ids
others are started; at exit no process is left behind; a forked copy of this process starts afresh.
"""

from __future__ import annotations

import atexit
import os
import threading

from parallax._backends.processes.parent.pool import Pool, hired_anywhere
from parallax._core.process_rights import Rights, can_assume, own_rights
from parallax._shm.arena import release_when_unused

#: Pools of one start method that are kept beside each other when the rights of the program change.
#: Fewer start workers anew when it changes them back, more keep idle workers.
MAX_RIGHTS = 2

#: by start method and rights; those of one run by themselves.
_pools: dict[tuple[str, Rights] | Pool, Pool] = {}
_pools_lock = threading.Lock()


def warm_pool(method: str, rights: Rights | None = None) -> Pool:
    """The pool for a start method with those rights, or those of now; none for snapshots."""
    key = "auto" if method == "snapshot" else method, rights or own_rights()
    with _pools_lock:
        pool = _pools.get(key)
        if pool is None:
            others = [k for k, p in list(_pools.items()) if type(k) is tuple and p.resting]
            same = [k for k in others if k[0] == key[0]][: 1 - MAX_RIGHTS]
            # Of a program that has given up ids for good nobody with these may be left.
            spare = [_pools.pop(k) for k in others if k in same or not can_assume(k[1].ids)]
            pool = _pools[key] = Pool(key[0], rights=key[1])
        else:
            return pool
    for each in spare:
        each.shutdown()
    return pool


def keep_registered(pool: Pool, *, alive: bool) -> None:
    """Have a pool of one run end with this process, and be dropped in forks of it."""
    # Without the lock: a run may end in the garbage collector, while this thread has it.
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
