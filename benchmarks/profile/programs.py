"""Five programs of two threads or more: `python programs.py NAME SECONDS`.

With `ITERATIONS:n` for the seconds a thread does so much work and says how long that took.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time

SMALL, LARGE = bytes(400_000), bytes(2_000_000)
DOCUMENT = json.dumps([{"id": i, "tags": ["a", "b", "c"], "value": i / 7} for i in range(4000)])


def python() -> None:
    total = 0
    for i in range(20_000):
        total += i * i % 7


def hashing() -> None:
    hashlib.sha256(LARGE).hexdigest()


def sleeping() -> None:
    time.sleep(0.01)


def parsing() -> None:
    json.loads(DOCUMENT)


def count() -> None:
    total = 0
    for i in range(8_000):
        total += i * i % 7


def mixed() -> None:
    hashlib.sha256(SMALL).hexdigest()
    count()
    time.sleep(0.0005)


PROGRAMS = {"python": python, "hashing": hashing, "sleeping": sleeping, "json": parsing,
            "mixed": mixed}  # fmt: skip


def main(name: str, amount: str) -> None:
    step = PROGRAMS[name]
    seconds, _, turns = amount.partition(":")
    end = None if turns else time.perf_counter() + float(seconds)

    def work() -> None:
        left = int(turns or 0)
        while left > 0 if end is None else time.perf_counter() < end:
            left -= 1
            step()

    threads = [threading.Thread(target=work) for _ in range(8 if name == "sleeping" else 2)]
    began, cpu = time.perf_counter(), time.process_time()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    print(json.dumps([time.perf_counter() - began, time.process_time() - cpu]))


if __name__ == "__main__":
    main(*sys.argv[1:])
