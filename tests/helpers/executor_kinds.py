"""The kinds of executor that tests run on."""

from __future__ import annotations

import functools

from jobs import pool as pool_jobs

import parallax
from helpers.backends import INTERPRETERS

KINDS = {
    "ThreadPoolExecutor": parallax.ThreadPoolExecutor,
    "ProcessPoolExecutor": parallax.ProcessPoolExecutor,
    "auto": parallax.Executor,
    "threads": functools.partial(parallax.Executor, backend="threads"),
    "processes": functools.partial(parallax.Executor, backend="processes"),
    "serial": functools.partial(parallax.Executor, backend="serial"),
    **{name: functools.partial(parallax.Executor, backend=name) for name in INTERPRETERS},
}

#: Kinds whose calls run concurrently with the program.
CONCURRENT = tuple(kind for kind in KINDS if kind != "serial")

#: Kinds whose calls always stay in this process.
INSIDE = ("ThreadPoolExecutor", "threads", "serial")

#: Kinds whose calls always run in other processes.
OUTSIDE = ("ProcessPoolExecutor", "processes")

#: Kinds whose calls always run on copies.
APART = (*OUTSIDE, *INTERPRETERS)

#: Seconds after which a call counts as hanging, even on a loaded machine.
SOON = 30


def held(executor, path):
    """A call that is running and ends when there is a file ``path``."""
    started = f"{path}.started"
    future = executor.submit(pool_jobs.started_then_wait, started, str(path))
    pool_jobs.wait_for(started)
    return future
