"""The rows of the data benchmark as data."""

from __future__ import annotations

from benchmarks.common.figures import Cell, Figure, Note, Row, Table
from benchmarks.common.pools import PARALLAX, PEER
from benchmarks.data.sides import CHUNKED, JOBLIB

_CELLS = (
    Cell("captured", (PEER, CHUNKED, JOBLIB, PARALLAX)),
    Cell("frames", (PEER, CHUNKED, JOBLIB, PARALLAX)),
    Cell("four", (PEER, JOBLIB, PARALLAX)),
)

_POOL = "ProcessPoolExecutor (forkserver)"
_COPY = "ndarray.copy()"

_ROWS = (
    Row(
        "argument",
        "40 MB array as argument",
        _POOL,
        Figure("argument", "call", "ms"),
        1 / 12,
        (
            Note("parallel_map(fn, [array]), pool.map", "map"),
            Note("the worker sums it", "read"),
            Note("first call", "first"),
        ),
        goal_text="1/12",
    ),
    Row(
        "result",
        "40 MB array as result, which the worker has",
        _POOL,
        Figure("result", "call", "ms"),
        1 / 10,
        (Note("the parent sums it", "summed"), Note("first call", "first")),
        goal_text="1/10",
    ),
    Row(
        "both",
        "40 MB array as argument and result",
        _POOL,
        Figure("both", "call", "ms"),
        1 / 10,
        (Note("first call", "first"),),
        goal_text="1/10",
    ),
    Row("huge", "1 GB array as argument, first call", _COPY, Figure("huge", "first", "ms"), 2.0),
    Row(
        "huge_again",
        "1 GB array as argument, second call",
        _COPY,
        Figure("huge", "second", "ms"),
        2.0,
        (Note("third and fourth", "later"),),
    ),
    Row(
        "huge_memory",
        "1 GB array as argument twice, peak extra memory",
        _COPY,
        Figure("huge_memory", "peak", "copies"),
        1.1,
        absolute=True,
    ),
    Row(
        "captured",
        "40 MB array captured by a closure, 100 items",
        "joblib, array as argument (memmap)",
        Figure("captured", "call", "ms"),
        0.5,
        (Note("first call", "first"),),
        peers=(JOBLIB,),
    ),
    Row(
        "captured_ppe",
        "40 MB array captured by a closure, 100 items",
        "ProcessPoolExecutor.map, partial",
        Figure("captured", "call", "ms"),
        1 / 50,
        (Note("the peer with one chunk for each worker", "call", CHUNKED),),
        goal_text="1/50",
    ),
    Row(
        "stream",
        "200 results of 8 MB, streamed and dropped",
        "ProcessPoolExecutor.map",
        Figure("stream", "call", "ms"),
        1 / 5,
        (Note("each summed by the parent", "summed"), Note("first time", "first")),
        goal_text="1/5",
    ),
    Row(
        "stream_peak",
        "200 results of 8 MB, peak memory over the start",
        "ProcessPoolExecutor.map",
        Figure("stream_memory", "peak", "MB"),
        200e6,
        absolute=True,
        goal_text="200",
    ),
    Row(
        "frames",
        "1,000 DataFrames of 1 MB in and out",
        "the better of ProcessPoolExecutor.map, with chunksize=10, joblib",
        Figure("frames", "call", "ms"),
        1 / 3,
        (
            Note("ProcessPoolExecutor.map", "call", PEER),
            Note("with chunksize=10", "call", CHUNKED),
            Note("joblib", "call", JOBLIB),
        ),
        peers=(PEER, CHUNKED, JOBLIB),
        goal_text="1/3",
    ),
    Row(
        "small",
        "64 KB array as argument and result, median",
        _POOL,
        Figure("small", "call", "us"),
        1.0,
        (Note("95th percentile", "p95"),),
    ),
    Row(
        "four",
        "four workers read one array of 1 GB, sum of PSS",
        "ProcessPoolExecutor.map, partial (a copy for each)",
        Figure("four", "proportional", "copies"),
        1.1,
        (
            Note("private memory and shared, mapped or not", "held"),
            Note("joblib (memmap)", "proportional", JOBLIB),
        ),
        absolute=True,
    ),
)

TABLE = Table(_CELLS, _ROWS, digits=3)
