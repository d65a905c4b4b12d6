"""The kinds of executor that the tests of executors run on."""

from __future__ import annotations

import functools

from jobs import pool as pool_jobs

import parallax

KINDS = {
    "ThreadPoolExecutor": parallax.ThreadPoolExecutor,
    "ProcessPoolExecutor": parallax.ProcessPoolExecutor,
    "auto": parallax.Executor,
    "threads": functools.partial(parallax.Executor, backend="threads"),
    "processes": functools.partial(parallax.Executor, backend="processes"),
    "serial": functools.partial(parallax.Executor, backend="serial"),
}

#: Those whose calls run while the program goes on.
CONCURRENT = tuple(kind for kind in KINDS if kind != "serial")

#: Those whose calls always stay in this process.
INSIDE = ("ThreadPoolExecutor", "threads", "serial")

#: Those whose calls always leave it.
OUTSIDE = ("ProcessPoolExecutor", "processes")

#: Seconds in which everything that does not hang is over, on a loaded machine.
SOON = 30


def held(executor, path):
    """A call that is running and ends when there is a file ``path``."""
    started = f"{path}.started"
    future = executor.submit(pool_jobs.started_then_wait, started, str(path))
    pool_jobs.wait_for(started)
    return future
