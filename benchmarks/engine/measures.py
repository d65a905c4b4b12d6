"""What a sample of the engine benchmark does and times: a function for each cell.

Each takes the side, PEER or PARALLAX or one that only serves as a reference, and whether the run
is a quick one. It returns seconds, or seconds per task, by name. Importing the libraries is never
timed, except where the import is what is measured. Results are checked outside the timed part.

Only what every side needs is imported at the top: see `common.cell`.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common.pools import PARALLAX, PEER, Facts, check_all_met, executor, median, warm_up
from benchmarks.common.work import meet, noop, open_gate, short

# References.
SOCKET = "socket"
POOL_TOO = "pool too"
OURS = (PARALLAX, POOL_TOO)

# Many enough that a pool's start-up thoughts do not show, few enough for a second per sample.
BURST_TASKS = 20_000
ROUND_TRIPS = 2_000
MAP_ITEMS = 100_000
MAP_CALLS = 5
INTERPRETERS = 3
QUICK = 10  # a quick run does this many times less


def _warm_up(pool: Any, workers: int) -> int:
    """Uses the pool until every worker has worked; returns how many have."""
    seen = warm_up(pool.map, workers)
    for item in range(20):
        pool.submit(noop, item).result()
    return seen


def burst(side: str, quick: bool) -> Facts:
    """Submits no-ops all at once and awaits them in order; also the CPU time this process took."""
    number = BURST_TASKS // QUICK if quick else BURST_TASKS
    with executor(side, 2)() as pool:
        seen = _warm_up(pool, 2)
        gc.collect()
        cpu = time.process_time()
        started = time.perf_counter()
        futures = [pool.submit(noop, item) for item in range(number)]
        results = [future.result() for future in futures]
        seconds = time.perf_counter() - started
        cpu = time.process_time() - cpu
        assert results == list(range(number)), "wrong results"
    return {"per_task": seconds / number, "parent_cpu": cpu / number, "workers_seen": seen}


def latency(side: str, quick: bool) -> Facts:
    """Round trips one after the other: `submit().result()`, or a bare socket pair."""
    number = ROUND_TRIPS // QUICK if quick else ROUND_TRIPS
    if side == SOCKET:
        return {"median": median(_socket_round_trips(number))}
    with executor(side, 2)() as pool:
        seen = _warm_up(pool, 2)
        gc.collect()
        times = []
        for item in range(number):
            started = time.perf_counter()
            result = pool.submit(noop, item).result()
            times.append(time.perf_counter() - started)
            assert result == item, "wrong result"
    return {
        "median": median(times),
        "p95": sorted(times)[number * 95 // 100],
        "workers_seen": seen,
    }


def _socket_round_trips(number: int) -> list[float]:
    """A pickled tuple to a forked child and back: what no pool of processes can beat."""
    import os
    import pickle
    import socket

    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        ours.close()
        while frame := theirs.recv(4096):
            key, item = pickle.loads(frame)
            theirs.sendall(pickle.dumps((key, noop(item))))
        os._exit(0)
    theirs.close()
    times = []
    for item in range(number):
        started = time.perf_counter()
        ours.sendall(pickle.dumps((1, item)))
        result = pickle.loads(ours.recv(4096))
        times.append(time.perf_counter() - started)
        assert result == (1, item), "wrong result"
    ours.close()
    os.waitpid(child, 0)
    return times


def mapping(side: str, quick: bool) -> Facts:
    """A map of no-ops in processes: the first call with the start of the pool, and later ones."""
    items = range(MAP_ITEMS // QUICK if quick else MAP_ITEMS)
    calls = 3 if quick else MAP_CALLS
    close: Callable[[], None] | None = None
    if side == PARALLAX:
        from parallax import parallel_map

        def call() -> list[int]:
            return parallel_map(noop, items, backend="processes", max_workers=2)

        started = time.perf_counter()
    else:
        import multiprocessing.pool

        context = multiprocessing.get_context("fork")
        started = time.perf_counter()
        pool = context.Pool(2)
        close = pool.terminate

        def call() -> list[int]:
            return pool.map(noop, items)

    results = call()
    cold = time.perf_counter() - started
    expected = list(items)
    assert results == expected, "wrong results"
    times = []
    for _ in range(calls):
        del results
        gc.collect()
        started = time.perf_counter()
        results = call()
        times.append(time.perf_counter() - started)
        assert results == expected, "wrong results"
    if close is not None:
        close()
    return {"call": median(times), "cold": cold}


def cold_first(side: str, quick: bool) -> Facts:
    """From constructing a pool of two to the result of the first task."""
    construct = executor(side, 2)
    gc.collect()
    started = time.perf_counter()
    pool = construct()
    result = pool.submit(noop, 7).result()
    seconds = time.perf_counter() - started
    pool.shutdown()
    assert result == 7, "wrong result"
    return {"seconds": seconds}


def cold_all(side: str, quick: bool) -> Facts:
    """From constructing a pool of two until both workers have answered."""
    return _all_workers(side, meet, 2)


def cold_pandas(side: str, quick: bool) -> Facts:
    """From constructing a pool of four until each worker has used pandas."""
    from benchmarks.engine.pandas_work import use_pandas

    return _all_workers(side, use_pandas, 4)


def _all_workers(side: str, task: Callable[[str, int], tuple[int, bool]], workers: int) -> Facts:
    import tempfile

    construct = executor(side, workers)
    with tempfile.TemporaryDirectory() as folder:
        open_gate(folder)
        gc.collect()
        started = time.perf_counter()
        pool = construct()
        futures = [pool.submit(task, folder, workers) for _ in range(workers)]
        answers = [future.result() for future in futures]
        seconds = time.perf_counter() - started
        pool.shutdown()
    check_all_met(answers, workers)
    return {"seconds": seconds}


def second_short(side: str, quick: bool) -> Facts:
    """Four short items, the second time: a warm call, or one more pool made and shut down."""
    items = [1, 2, 3, 4]
    if side == PARALLAX:
        from parallax import parallel_map

        def call() -> list[int]:
            return parallel_map(short, items, backend="processes", max_workers=2)

    else:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        context = multiprocessing.get_context("fork")

        def call() -> list[int]:
            with ProcessPoolExecutor(2, mp_context=context) as pool:
                return list(pool.map(short, items))

    expected = [short(item) for item in items]
    times = []
    for _ in range(5 if quick else 12):
        gc.collect()
        started = time.perf_counter()
        results = call()
        times.append(time.perf_counter() - started)
        assert results == expected, "wrong results"
    return {"first": times[0], "second": times[1], "later": median(times[2:])}


_STATEMENTS = {
    PEER: "import concurrent.futures.process",
    PARALLAX: "from parallax import parallel_map",
    POOL_TOO: "from parallax import parallel_map, ProcessPoolExecutor",
}
_IMPORT = """
import time
started = time.perf_counter()
{}
print(time.perf_counter() - started)
"""


def importing(side: str, quick: bool) -> Facts:
    """An import statement, in fresh interpreters that time it themselves."""
    return {"seconds": _in_fresh_interpreters(_IMPORT.format(_STATEMENTS[side]))}


_MAPS = {
    PEER: (
        "from concurrent.futures import ThreadPoolExecutor",
        "list(ThreadPoolExecutor().map(f, items))",
    ),
    PARALLAX: ("from parallax import parallel_map", "parallel_map(f, items)"),
}
_FIRST_CALL = """
import time
{}
def f(x):
    return x + 1
items = range(10)
started = time.perf_counter()
expected = [f(x) for x in items]
looped = time.perf_counter()
found = {}
ended = time.perf_counter()
assert found == expected, "wrong results"
print((ended - looped) - (looped - started))
"""


def first_call(side: str, quick: bool) -> Facts:
    """What the first map of ten trivial items takes more than their loop, after the import."""
    return {"seconds": _in_fresh_interpreters(_FIRST_CALL.format(*_MAPS[side]))}


def _in_fresh_interpreters(program: str) -> float:
    """The median of what some runs of a program print."""
    import subprocess
    import sys

    times = []
    for _ in range(1 + INTERPRETERS):  # the first one may have to compile
        command = [sys.executable, "-c", program]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        times.append(float(output))
    return median(times[1:])


MEASURES = {
    "burst": burst,
    "latency": latency,
    "map": mapping,
    "cold_first": cold_first,
    "cold_all": cold_all,
    "cold_pandas": cold_pandas,
    "second_short": second_short,
    "import": importing,
    "first_call": first_call,
}
