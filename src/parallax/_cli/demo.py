"""``parallax demo``: four kinds of work, each as a for loop, with plain threads and with parallax.

Guarantees: every figure is the wall time of a first call, measured here and now: worker processes
are ended between the kinds of work, so that their start is paid for; all answers are compared with
the loop's. Files are read once before, so that the disk is not what is measured.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from parallax._api.map import parallel_map
from parallax._backends.processes.parent.warm_pool import shutdown_warm_pool
from parallax._cli import demo_work as work
from parallax._cli.terminal import bold, write
from parallax._core.cores import load_per_core, usable_cores

_SERVER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo_server.py")

#: Milliseconds that the server takes to answer, like one in the same country.
_LATENCY = 20

#: Load per core above which the figures are not to be trusted.
_BUSY = 0.6

_WIDTH = 98


@dataclass
class Row:
    """One kind of work, timed in three ways; seconds each."""

    name: str
    items: int
    loop: float
    threads: float
    threads_cores: float
    parallax: float
    parallax_cores: float
    route: str
    workers: int
    reason: str
    changes: list[str]
    report: str
    same: bool

    @property
    def way(self) -> str:
        """The route in words."""
        return "the loop" if self.route == "loop" else f"{self.workers} {self.route}"


def run_demo(*, quick: bool = False, json_file: str | None = None) -> int:
    """Run the demo and print it; returns 1 if an answer differed from the loop's, otherwise 0."""
    begin = time.perf_counter()
    files = work.sources(1_200_000 if quick else 12_000_000)
    busy = _introduce(files)
    rows = []
    with _server(work.root()) as address:
        jobs = _jobs(files, address, quick=quick)
        for number, (name, fn, items) in enumerate(jobs, 1):
            print(bold(f"{number}/{len(jobs)}  {name} ({len(items):,} items)"))
            rows.append(_measure(name, fn, items))
    _conclude(rows, time.perf_counter() - begin, busy=busy)
    if json_file is not None:
        figures = {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "cores": usable_cores(),
            "load_per_core": load_per_core(),
            "quick": quick,
            "rows": [{**asdict(row), "speed_up": row.loop / row.parallax} for row in rows],
        }
        write(figures, json_file)
    return 0 if all(row.same for row in rows) else 1


def _jobs(
    files: list[str], address: str, *, quick: bool
) -> list[tuple[str, Callable[[Any], Any], Sequence[Any]]]:
    below = [os.path.relpath(path, work.root()).replace(os.sep, "/") for path in files]
    urls = [address + quote(path) for path in below]
    return [
        ("parse each file with ast", work.parse, files),
        ("hash and compress each file", work.pack, files),
        ("fetch each over HTTP", work.fetch, urls[: 25 if quick else 200]),
        ("double each number", work.double, range(20_000 if quick else 100_000)),
    ]


def _measure(name: str, fn: Callable[[Any], Any], items: Sequence[Any]) -> Row:
    step = _Step("for loop")
    expected = [fn(item) for item in items]
    loop, _ = step.done()

    step = _Step("plain threads")
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(fn, items))
    threads = step.done(show_cores=True)

    shutdown_warm_pool()
    step = _Step("parallax")
    results = parallel_map(fn, items)
    parallax, _ = step.done(last=False)
    shutdown_warm_pool()
    report = results.report
    figures = len(items), loop, *threads, parallax, report.cores_busy
    way = report.route, report.workers, report.reason
    changes = [f"{c.route} after {c.items} items" for c in report.changes]
    row = Row(name, *figures, *way, changes, str(report), answers == expected == results)
    print(f"   {row.parallax_cores:.1f} cores busy, {row.way}")
    return row


class _Step:
    """One timed step: its name is printed when it begins, its time when it ends."""

    def __init__(self, name: str) -> None:
        print(f"       {name + ' ':.<16} ", end="", flush=True)
        gc.collect()
        self._cpu = time.process_time()
        self._begin = time.perf_counter()

    def done(self, *, show_cores: bool = False, last: bool = True) -> tuple[float, float]:
        """Say how long it took; also return it, with the cores that this process kept busy."""
        wall = time.perf_counter() - self._begin
        cores = (time.process_time() - self._cpu) / wall
        text = f"{_seconds(wall):>8}"
        if show_cores:
            text += f"   {cores:.1f} cores busy"
        print(text, end="\n" if last else "", flush=True)
        return wall, cores


@contextlib.contextmanager
def _server(folder: str) -> Iterator[str]:
    """Serve a folder from a process of its own while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-I", _SERVER, folder, str(_LATENCY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise OSError("the demo's HTTP server did not start")
            yield f"http://127.0.0.1:{port}/"
        finally:
            # Whatever happens to its last requests, it must not outlive the demo.
            process.stdin.close()
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                process.kill()


# -- words -----------------------------------------------------------------------------------------


def _introduce(files: list[str]) -> bool:
    """Say what is coming; whether other programs are busy on this machine."""
    size = 0
    for path in files:  # also brings them into the system's cache
        with open(path, "rb") as file:
            size += len(file.read())
    cores = usable_cores()
    print(bold("Four kinds of work: as a for loop, with plain threads, and with parallax."))
    _say(
        f"Input: {len(files)} files of the standard library of Python "
        f"{platform.python_version()}, {size / 1e6:.1f} MB. This machine gives "
        f"{cores} core{'s' * (cores != 1)}. Plain threads are ThreadPoolExecutor() as it comes. "
        f"The HTTP server is a process of its own on this machine and takes {_LATENCY} ms to "
        f"answer. Every time is that of a first call, starting workers included."
    )
    load = load_per_core()
    busy = load is not None and load > _BUSY
    if busy:
        _say(f"Other programs are busy here: the load was {load:.1f} per core in the last minute.")
    print()
    return busy


def _conclude(rows: list[Row], seconds: float, *, busy: bool = False) -> None:
    print()
    print(bold(_line("", "for loop", "plain threads", "parallax", "route", "speed-up")))
    for row in rows:
        threads = f"{_seconds(row.threads)} ({row.threads_cores:.1f} cores)"
        parallax = f"{_seconds(row.parallax)} ({row.parallax_cores:.1f} cores)"
        speed = row.loop / row.parallax
        faster = f"{speed:.0f}x" if speed >= 10 else f"{speed:.1f}x"
        print(_line(row.name, _seconds(row.loop), threads, parallax, row.way, faster))
        _say(f"because {row.reason}", "    ")
        if len(row.changes) > 1:
            _say(f"on the way: {', '.join(row.changes)}", "    ")
    print()
    if all(row.same for row in rows):
        print("All answers are those of the for loop, in the same order.")
    for row in rows:
        if not row.same:
            print(f"WRONG: {row.name}: an answer is not that of the for loop. Please report it.")
    if busy:
        _say(
            "Other programs were busy when the demo began, so cores were fewer and measurements "
            "harder than they need be: run it again when the machine is quiet."
        )
    print(f"The demo took {seconds:.0f} s. For your own function:")
    print()
    print("    from parallax import parallel_map")
    print("    results = parallel_map(your_function, your_items)   # a list, as from [f(x) for x]")
    print("    print(results.report)                               # what it did, and why")


def _line(name: str, loop: str, threads: str, parallax: str, route: str, speed: str) -> str:
    return f"{name:<28}{loop:>8}{threads:>20}{parallax:>20}  {route:<12}{speed:>8}"


def _say(text: str, indent: str = "") -> None:
    print(textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent))


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.1 else f"{value * 1000:.1f} ms"
