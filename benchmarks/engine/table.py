"""The rows of the engine benchmark as data."""

from __future__ import annotations

from benchmarks.common.figures import Cell, Figure, Note, Row, Table
from benchmarks.common.pools import PARALLAX, PEER
from benchmarks.engine.measures import POOL_TOO, SOCKET

_CELLS = (
    Cell("latency", (PEER, PARALLAX, SOCKET)),
    Cell("cold_first", more=3),
    Cell("cold_all", more=3),
    Cell("second_short", more=3),
    Cell("import", (PEER, PARALLAX, POOL_TOO), more=4),
    Cell("first_call", more=4),
)

_FORKSERVER = "ProcessPoolExecutor (forkserver)"
_ROWS = (
    Row(
        "submits",
        "submits per second of a no-op, 20,000 at once",
        _FORKSERVER,
        Figure("burst", "per_task", "/s"),
        6.0,
    ),
    Row(
        "latency",
        "median submit().result()",
        _FORKSERVER,
        Figure("latency", "median", "us"),
        0.5,
        (Note("a pickled round trip on a socket pair", "median", SOCKET),),
    ),
    Row(
        "map",
        "map of 100,000 no-ops, processes forced",
        "multiprocessing.Pool.map (fork)",
        Figure("map", "call", "ms"),
        1.0,
        (Note("first call, with the start of the pool", "cold"),),
    ),
    Row(
        "cold",
        "cold pool to first result, two workers",
        _FORKSERVER,
        Figure("cold_first", "seconds", "ms"),
        0.6,
        (Note("until both workers have answered", "seconds", cell="cold_all"),),
    ),
    Row(
        "pandas",
        "four workers cold, each having used pandas once",
        _FORKSERVER,
        Figure("cold_pandas", "seconds", "ms"),
        0.6,
    ),
    Row(
        "short",
        "second parallel_map of 4 short items, processes forced",
        "creating ProcessPoolExecutor (fork)",
        Figure("second_short", "second", "ms"),
        0.1,
        (Note("first", "first"), Note("third and later", "later")),
    ),
    Row(
        "import",
        "from parallax import parallel_map",
        "import concurrent.futures.process",
        Figure("import", "seconds", "ms"),
        1.0,
        (Note("with ProcessPoolExecutor, too", "seconds", POOL_TOO),),
    ),
    Row(
        "first_call",
        "first call of ten trivial items adds to the loop",
        "ThreadPoolExecutor().map, shown only",
        Figure("first_call", "seconds", "ms"),
        2e-3,
        absolute=True,
        goal_text="2",
    ),
    Row(
        "parent_cpu",
        "parent CPU per no-op task",
        _FORKSERVER,
        Figure("burst", "parent_cpu", "us"),
        0.25,
    ),
)

TABLE = Table(_CELLS, _ROWS)
