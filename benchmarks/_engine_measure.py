"""What a sample of the engine benchmark does and times: a function for each cell.

Each takes the side, PEER or PARALLAX or one that only serves as a reference, and whether the run
is a quick one. It returns seconds, or seconds per task, by name. Importing the libraries is never
timed, except where the import is what is measured. Results are checked outside the timed part.

Only what every side needs is imported at the top: see `_engine_cell`.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

from ._engine_work import meet, noop, open_gate, short
from ._pools import PARALLAX, PEER, executor, median, warm_up

# References.
SOCKET = "socket"
NAMES = "names"
OURS = (PARALLAX, NAMES)

Facts = dict[str, Any]

# Many enough that a pool's start-up thoughts do not show, few enough for a second per sample.
TASKS = 20_000
ROUND_TRIPS = 2_000
MAPPED = 100_000
MAP_CALLS = 5
IMPORTS = 3
QUICK = 10  # a quick run does this many times less


def _warm_up(pool: Any, workers: int) -> int:
    """Uses the pool until every worker has worked; returns how many have."""
    seen = warm_up(pool.map, workers)
    for item in range(20):
        pool.submit(noop, item).result()
    return seen


def burst(side: str, quick: bool) -> Facts:
    """Submits no-ops all at once and awaits them in order; also the CPU time this process took."""
    number = TASKS // QUICK if quick else TASKS
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
    items = range(MAPPED // QUICK if quick else MAPPED)
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
    from ._engine_pandas import use_pandas

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
    seen = {pid for pid, _ in answers}
    if len(seen) < workers or not all(met for _, met in answers):
        raise RuntimeError(f"{workers} tasks that wait for each other ran on {len(seen)} workers")
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
    PARALLAX: "import parallax",
    NAMES: "from parallax import parallel_map, ProcessPoolExecutor",
}
_TIMED = (
    "import time; started = time.perf_counter(); {}; print(repr(time.perf_counter() - started))"
)


def importing(side: str, quick: bool) -> Facts:
    """The time of an import statement in fresh interpreters, told by themselves."""
    import subprocess
    import sys

    command = [sys.executable, "-c", _TIMED.format(_STATEMENTS[side])]
    times = []
    for _ in range(1 + IMPORTS):  # the first one may have to compile
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        times.append(float(output))
    return {"seconds": median(times[1:])}


MEASURES: dict[str, Callable[[str, bool], Facts]] = {
    "burst": burst,
    "latency": latency,
    "map": mapping,
    "cold_first": cold_first,
    "cold_all": cold_all,
    "cold_pandas": cold_pandas,
    "second_short": second_short,
    "import": importing,
}
