"""The rows of the executor benchmark as data."""

from __future__ import annotations

from benchmarks.common.figures import Cell, Figure, Note, Row, Table
from benchmarks.common.pools import DEFAULT, FORKED, PARALLAX, PEER
from benchmarks.executor.automatic import PROCESSES, SIDES, THREADS

_BOTH = (PEER, DEFAULT, PARALLAX)
# Here the start of workers counts.
_FORKS = {"processes_cold", "processes_initializer", "processes_create"}

# What may be lost by a changed import line: what a repeated measurement cannot tell from nothing.
_SWAP = 1.05
# What measuring may cost, against the pool that a programmer who knows the work would choose.
_ROUTED = 1.15

_THREADS = "ThreadPoolExecutor"
_FORKSERVER = "ProcessPoolExecutor (forkserver)"
_DEFAULT = "ProcessPoolExecutor (default)"
_BETTER = "the better of ProcessPoolExecutor (forkserver), (default)"
_POOLS = "the better of ThreadPoolExecutor(), ProcessPoolExecutor()"


def _threads(name: str, what: str, fact: str = "seconds", unit: str = "ms") -> Row:
    figure = Figure(f"threads_{name}", fact, unit)
    return Row(f"t_{name}", f"threads: {what}", _THREADS, figure, _SWAP)


def _processes(name: str, what: str, fact: str = "seconds", unit: str = "ms") -> Row:
    """Against both start methods of the standard library."""
    figure = Figure(f"processes_{name}", fact, unit)
    notes = (Note("forkserver", fact, PEER), Note("default", fact, DEFAULT))
    return Row(
        f"p_{name}", f"processes: {what}", _BETTER, figure, _SWAP, notes, peers=(PEER, DEFAULT)
    )


def _default(name: str, what: str, figure: Figure) -> Row:
    notes: tuple[Note, ...] = ()
    if figure.cell in _FORKS:
        notes = (Note("with the context fork, as the peer's", figure.fact, FORKED),)
    return Row(f"p_{name}", f"processes: {what}", _DEFAULT, figure, _SWAP, notes, (DEFAULT,))


def _routed(name: str, what: str) -> Row:
    first = Figure(f"routed_{name}", "first", "ms")
    notes = (
        Note("ThreadPoolExecutor()", "first", THREADS),
        Note("ProcessPoolExecutor()", "first", PROCESSES),
        Note("the second time", "second"),
    )
    return Row(
        f"e_{name}",
        f"Executor(): {what}, cold",
        _POOLS,
        first,
        _ROUTED,
        notes,
        peers=(THREADS, PROCESSES),
    )


_ROWS = (
    _threads("submit", "20,000 no-ops, submit and result"),
    _threads("latency", "submit().result(), one by one", "per_task", "us"),
    _threads("map", "map of 20,000 no-ops"),
    _threads("as_completed", "as_completed over 10,000"),
    _threads("wait", "wait for 10,000"),
    _threads("sleeps", "map of 300 sleeps of 2 ms"),
    _threads("blobs", "map, packing and hashing 40 x 1 MB"),
    _threads("create", "make, ten tasks, shut down"),
    _threads("callbacks", "10,000 with a callback"),
    _threads("asyncio", "2,000 by run_in_executor"),
    _threads("errors", "5,000 that raise, with a cause"),
    Row(
        "p_submit",
        "processes: no-ops per second, 20,000 at once",
        _FORKSERVER,
        Figure("processes_submit", "per_task", "/s"),
        6.0,
    ),
    _default(
        "submit_default", "a no-op, 20,000 at once", Figure("processes_submit", "per_task", "us")
    ),
    Row(
        "p_latency",
        "processes: median submit().result()",
        _FORKSERVER,
        Figure("processes_latency", "median", "us"),
        0.5,
        (Note("95th percentile", "p95"),),
    ),
    _default(
        "latency_default", "median submit().result()", Figure("processes_latency", "median", "us")
    ),
    Row(
        "p_cold",
        "processes: cold pool to first result",
        _FORKSERVER,
        Figure("processes_cold", "seconds", "ms"),
        0.6,
    ),
    _default(
        "cold_default", "cold pool to first result", Figure("processes_cold", "seconds", "ms")
    ),
    _processes("map", "map of 20,000 no-ops"),
    _processes("chunks", "the same with chunksize=100"),
    _processes("long", "map of 200 x 5 ms of Python"),
    _processes("bytes", "map of 200 results of 1 MB"),
    _processes("arrays", "map of 10 results of 40 MB"),
    _processes("as_completed", "as_completed over 10,000"),
    Row(
        "p_initializer",
        "processes: cold, initializer, 1,000 tasks, shutdown",
        _FORKSERVER,
        Figure("processes_initializer", "seconds", "ms"),
        _SWAP,
    ),
    _default(
        "initializer_default",
        "cold, initializer, 1,000 tasks, shutdown",
        Figure("processes_initializer", "seconds", "ms"),
    ),
    Row(
        "p_create",
        "processes: make, ten tasks, shut down, repeatedly",
        _FORKSERVER,
        Figure("processes_create", "later", "ms"),
        _SWAP,
        (Note("the first time", "first"),),
    ),
    _default(
        "create_default",
        "make, ten tasks, shut down, repeatedly",
        Figure("processes_create", "later", "ms"),
    ),
    Row(
        "p_lives",
        "processes: 60 tasks, ten per worker (spawn)",
        "ProcessPoolExecutor (spawn)",
        Figure("processes_lives", "seconds", "ms"),
        _SWAP,
    ),
    _routed("python", "240 x 5 ms of Python"),
    _routed("waiting", "400 waits of 10 ms"),
    _routed("gil_free", "120 x 10 ms without the GIL"),
    _routed("mixed", "360, all three in turn"),
)

_SIDES = {
    "processes_lives": (PEER, PARALLAX),
    **dict.fromkeys(_FORKS, (*_BOTH, FORKED)),
}
# Those that vary most from sample to sample, and cost little.
_MORE = {"processes_cold", "processes_initializer", "threads_latency", "threads_create"}


def _cell(name: str) -> Cell:
    more = 3 if name in _MORE else 1
    if name.startswith("threads"):
        return Cell(name, more=more)
    if name.startswith("routed"):
        return Cell(name, SIDES)
    return Cell(name, _SIDES.get(name, _BOTH), more)


TABLE = Table(tuple(_cell(name) for name in dict.fromkeys(row.figure.cell for row in _ROWS)), _ROWS)
