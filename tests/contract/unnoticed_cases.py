"""Rows of "What is not noticed" in docs/routing.md: the items run in processes, and it is lost.

A second thread keeps the program from being forked.
"""

from __future__ import annotations

import calendar
import fnmatch
import functools
import glob
import logging
import operator
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parallax import Executor, parallel_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ITEMS, PLACE = range(100), Path(sys.argv[1])


def work() -> None:
    end = time.thread_time() + 0.004
    while time.thread_time() < end:
        pass


LARGE = np.zeros(500_000)


class Odd:
    def __init__(self, value: int) -> None:
        self.value = value

    def __getstate__(self) -> dict[str, int]:
        return {"value": self.value + 1}


ODD = Odd(1)
came: list[int] = []


@functools.lru_cache(None)
def first_comer(key: int) -> int:
    return os.getpid()


def unnoticed(x: int) -> tuple[int, int, Exception, int]:
    work()
    with PLACE.open("a") as file:
        file.write(f"{x}\n")
    if x > 70:
        np.put(LARGE, [123_456], 1.0)
        calendar.setfirstweekday(5)
        import colorsys  # noqa: F401
    try:
        raise ValueError(x)
    except ValueError as error:
        return ODD.value, first_comer(x // 20), error, os.getpid()


def named(x: int) -> int:
    came.append(x)
    return x


late: list[int] = []
fnmatch.set_by_the_program = True  # type: ignore[attr-defined]


def changes_late(x: int) -> int:
    work()
    if x >= 90:
        operator.methodcaller("append", x)(late)
    return os.getpid()


def reads_what_the_program_set(x: int) -> bool:
    work()
    return getattr(fnmatch, "set_by_the_program", False)


NAN = float("nan")
opened: list[str] = []
sys.addaudithook(lambda event, args: opened.append(event) if event == "glob.glob" else None)


def compares_by_identity(x: float) -> bool:
    work()
    logging.getLogger(f"of a worker.{os.getpid()}.{time.monotonic_ns()}")
    glob.glob("/nowhere")  # noqa: PTH207 - it calls an audit hook
    return x is NAN


def made_and_removed() -> Iterator[str]:
    for _ in range(40):
        with tempfile.NamedTemporaryFile() as file:
            yield file.name


def finds(name: str) -> bool:
    time.sleep(0.01)
    return Path(name).exists()


def waits(x: int) -> int:
    time.sleep(0.02 if x % 2 else 0.005)
    if x >= 40:
        operator.methodcaller("append", x)(late)
    return threading.get_ident()


def raises(x: int) -> None:
    work()
    with PLACE.open("a") as file:
        file.write(f"{x}\n")
    if x == 80:
        raise ValueError(x)


def in_processes(call: Callable[[], Any]) -> Any:
    """What a call gives whose items have left: while other programs have the cores they stay."""
    for _ in range(20):
        found, left = call()
        if left:
            return found
    raise AssertionError(found)


def rest() -> None:
    """Rows of executors, of threads, of errors, and of what workers are not told."""

    def submit() -> Any:
        late.clear()
        with Executor(max_workers=2) as executor:
            places = [*executor.map(changes_late, ITEMS)]
        return places, all(place != os.getpid() for place in places[90:])

    in_processes(submit)
    assert late == [], "late changes of an executor's calls are noticed"

    def read() -> Any:
        found = parallel_map(reads_what_the_program_set, ITEMS, max_workers=2)
        return found, found.report.route == "processes"

    assert False in in_processes(read), "what is set on modules of packages is carried"

    def compare() -> Any:
        opened.clear()
        found = parallel_map(compares_by_identity, [NAN] * 100, max_workers=2)
        return found, found.report.route == "processes"

    assert False in in_processes(compare), "a number is the same object in workers"
    assert len(opened) < 100, "what a hook of the interpreter collects is noticed"
    made = sum(name.startswith("of a worker.") for name in logging.root.manager.loggerDict)
    assert made < 100, "loggers of workers are made here, too"

    def find() -> Any:
        found = parallel_map(finds, made_and_removed(), max_workers=2)
        return found, found.report.route == "threads"

    assert False in in_processes(find), "an input waits for its items without need"

    def wait() -> Any:
        late.clear()
        found = parallel_map(waits, range(60), max_workers=8)
        return found, len({*found[40:]}) > 1

    in_processes(wait)
    assert sorted(late) == [*range(40, 60)]
    assert late != [*range(40, 60)], "changes that begin in threads are put in order"

    def fail() -> Any:
        PLACE.write_text("")
        try:
            parallel_map(raises, range(200), max_workers=2)
        except ValueError:
            ran = {*map(int, PLACE.read_text().split())}
        return ran, bool(ran - {*range(81)})

    in_processes(fail)


def main() -> None:
    for _ in range(20):  # while other programs have the cores the items stay
        PLACE.write_text("")
        calendar.setfirstweekday(0)
        sys.modules.pop("colorsys", None)
        LARGE[123_456], found = 0.0, parallel_map(unnoticed, ITEMS, max_workers=2)
        if all(place != os.getpid() for *_, place in found[70:]):
            break
    else:
        raise AssertionError(found.report)
    assert len(PLACE.read_text().split()) >= len(ITEMS), "files are the same for all"
    assert LARGE[123_456] == 0, "a change between the samples is noticed"
    assert calendar.firstweekday() == 0, "globals of libraries are noticed"
    assert "colorsys" not in sys.modules, "what items import is imported here, too"
    value, process, error, _ = found[-1]
    assert value == 2, "objects that are unlike their copies are noticed"
    assert process != os.getpid(), "caches are shared"
    assert error.__traceback__ is None
    assert list(parallel_map(named, ITEMS, backend="processes")) == [*ITEMS]
    assert came == [], "a named backend is obeyed"
    rest()
    print("done")


if __name__ == "__main__":
    end = threading.Event()
    threading.Thread(target=end.wait).start()
    try:
        main()
    finally:
        end.set()
