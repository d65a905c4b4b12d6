"""Rows of "What is not noticed" in docs/routing.md: the items run in processes, and it is lost.

A second thread keeps the program from being forked.
"""

from __future__ import annotations

import calendar
import functools
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

from parallax import parallel_map

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
    print("done")


if __name__ == "__main__":
    end = threading.Event()
    threading.Thread(target=end.wait).start()
    try:
        main()
    finally:
        end.set()
