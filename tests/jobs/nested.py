"""Callables that make parallel calls themselves, or tell where they run, for the tests."""

from __future__ import annotations

import decimal
import logging
import os
import random
import sys
import threading
import time
from pathlib import Path

import jobs
from parallax import cpu_count, parallel_imap, parallel_map
from parallax._core.nesting import here


def squares(backend, n):
    return list(parallel_map(jobs.square, range(n), backend=backend, max_workers=2))


def streamed_squares(backend, n):
    return list(parallel_imap(jobs.square, range(n), backend=backend))


def tree(backend, depth):
    """Leaves below a call that calls itself."""
    if depth == 0:
        return 1
    return sum(parallel_map(lambda d: tree(backend, d), [depth - 1] * 2, backend=backend))


def report_of(backend, items, work, **options):
    report = parallel_map(work, range(items), backend=backend, **options).report
    return report.route, report.workers, report.reason


def threads_of(backend, items):
    """This thread, and those that a nested call ran on."""
    got = parallel_map(_thread, range(items), backend=backend, chunksize=1)
    return threading.get_ident(), set(got)


def _thread(_):
    time.sleep(0.002)
    return threading.get_ident()


def route_two_levels_down(backend):
    inner = parallel_map(_route, [1, 2], backend=backend, max_workers=2)
    return list(inner)


def _route(_):
    return parallel_map(jobs.square, range(3), backend="threads").report.route


def fails_at(bad, x):
    return list(parallel_map(lambda y: jobs.oops_at({bad}, y), range(5))) if x == 2 else x


def timed(seconds, x):
    return list(parallel_map(jobs.square, [x], item_timeout=seconds))


def endless_inside(x):
    return list(parallel_map(lambda y: jobs.endless_at(1, y), [x], item_timeout=0.2))


def long_nap(_):
    time.sleep(0.05)


def nap_variable(_):
    time.sleep(0.05)
    return jobs.VARIABLE.get()


def meets(_):
    """Two items at a time wait for each other."""
    barrier = threading.Barrier(2)
    return list(
        parallel_map(
            lambda x: (barrier.wait(10), x)[1],
            range(6),
            backend="threads",
            max_workers=2,
            chunksize=1,
        )
    )


def fails_once_each(_):
    seen = []

    def work(x):
        seen.append(x)
        return 1 // (seen.count(x) - 1) + x

    return list(parallel_map(work, range(6), backend="threads", max_workers=2, retries=1))


def errors(_):
    got = parallel_map(
        lambda x: 1 // (x - 3), range(6), backend="threads", max_workers=3, on_error="return"
    )
    return [type(value).__name__ for value in got]


def times_out(_):
    """How many naps of 50 ms were begun of those that two threads would take 2.5 s for."""
    begun = []

    def nap(x):
        begun.append(x)
        time.sleep(0.05)

    try:
        parallel_map(nap, range(100), backend="threads", max_workers=2, timeout=0.2)
    except TimeoutError:
        return len(begun)
    return None


def place(_):
    here_now = here()
    return here_now.level, here_now.budget, here_now.crowd, cpu_count()


# -- surroundings ----------------------------------------------------------------------------------


def levels(name):
    logger = logging.getLogger(name)
    return logging.root.manager.disable, logging.root.level, logger.level, logger.isEnabledFor(10)


def deep(depth):
    return 1 + deep(depth - 1) if depth else 0


def third(_):
    return str(decimal.Decimal(1) / 3)


def long_number(digits):
    return len(str(10**digits))


def divide(x):
    import numpy as np

    return float(np.float64(1.0) / np.float64(x))


def nested_failure(_):
    return [type(v).__name__ for v in parallel_map(lambda y: 1 // y, [0, 1])]


def hour(_):
    return time.localtime(0).tm_hour


def draws(folder, x):
    """The first numbers of a worker, once two workers are there."""
    import numpy as np

    Path(folder, str(os.getpid())).touch()
    deadline = time.monotonic() + 10
    while len(os.listdir(folder)) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    return os.getpid(), random.random(), float(np.random.random())


def native(_):
    """Variables for native threads, and what the loaded libraries make of them."""
    import numpy as np
    import threadpoolctl

    np.dot(np.ones((2, 2)), np.ones((2, 2)))
    pools = threadpoolctl.threadpool_info()
    return os.environ["OPENBLAS_NUM_THREADS"], {p["num_threads"] for p in pools}


def standard_input(_):
    return sys.stdin.read()
