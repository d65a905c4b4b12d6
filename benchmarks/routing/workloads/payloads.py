"""Work whose data is large, or cannot travel: the copies decide, or forbid processes."""

from __future__ import annotations

import random
import re
import tempfile
import threading
import zlib
from collections.abc import Callable
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from benchmarks.routing.workloads.definition import Workload
from benchmarks.routing.workloads.pure_python import count_primes

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, np.dtype[Any]]


def spectrum_peak(signal: Array) -> int:
    """The strongest tone of a signal of 8 MB; NumPy releases the GIL in it."""
    ranked = np.sort(signal)
    return int(np.abs(signal - ranked[len(ranked) // 2]).argmax())


def big_arguments() -> tuple[Callable[[Array], int], list[Array]]:
    return spectrum_peak, [np.random.default_rng(seed).random(1_000_000) for seed in range(16)]


_WORD = re.compile(rb"\b[a-f]\w*7\b")


def count_words(page: bytes) -> int:
    """A scan of a text of 2 MB, with the GIL held."""
    return len(_WORD.findall(page))


def big_arguments_held() -> tuple[Callable[[bytes], int], list[bytes]]:
    source = random.Random(20)
    pages = [source.randbytes(1_000_000).hex(" ", 4).encode() for _ in range(36)]
    return count_words, pages


def fill_array(seed: int) -> Array:
    """Some Python work, and an array of 8 MB as its result."""
    found = sum(count_primes(100_000 + seed + 4000 * step) for step in range(3))
    return np.arange(1_000_000, dtype=np.float64) + found


def big_results() -> tuple[Callable[[int], Array], list[int]]:
    return fill_array, list(range(24))


def walk(landscape: Array, start: int) -> int:
    """A walk of single steps through an array, reading one element at a time, in Python."""
    position = start
    total = 0
    for _ in range(100_000):
        value = int(landscape[position])
        total += value
        position = (position * 5 + value) % 5_000_000
    return total


def captured_array() -> tuple[Callable[[int], int], list[int]]:
    landscape = np.random.default_rng(21).integers(0, 1000, 5_000_000)  # 40 MB
    return partial(walk, landscape), list(range(64))


def shop_revenue(sales: pd.DataFrame, shop: int) -> int:
    """Each day's sum for one shop, the busiest of them: pandas holds the GIL for most of it."""
    mine = sales[sales["shop"] == shop]
    labels = mine["label"].map(lambda label: int(label[4:]))
    return int((mine["price"] * labels).groupby(mine["day"]).sum().max())


def captured_frame() -> tuple[Callable[[int], int], list[int]]:
    import pandas as pd

    source = np.random.default_rng(22)
    size = 300_000
    sales = pd.DataFrame(
        {
            "shop": source.integers(0, 24, size),
            "day": source.integers(0, 365, size),
            "price": source.integers(1, 1000, size),
            "label": [f"item{number}" for number in source.integers(0, 99, size)],
        }
    )
    return partial(shop_revenue, sales), [shop % 24 for shop in range(72)]


def closure() -> tuple[Callable[[str], int], list[str]]:
    """A lambda over a dictionary: plain pickle cannot send it."""
    source = random.Random(23)
    words = [format(source.getrandbits(40), "x") for _ in range(20_000)]
    weights = {word: source.randrange(100) for word in words}
    texts = [" ".join(source.choices(words, k=12_000)) for _ in range(8)]
    return (
        lambda text: sum(weights[word] * len(word) for word in text.split() if word in weights),
        [texts[index % 8] + "\n" for index in range(400)],
    )


class Account:
    """An object with a lock, as objects of threaded programs have: pickle refuses it."""

    def __init__(self, number: int) -> None:
        self.lock = threading.Lock()
        self.number = number


def audit(account: Account) -> int:
    with account.lock:
        return count_primes(100_000 + account.number)


def items_with_locks() -> tuple[Callable[[Account], int], list[Account]]:
    return audit, [Account(number) for number in range(80)]


def checksum(file: IO[bytes]) -> tuple[int, int]:
    """Size of an open file as it is and compressed."""
    file.seek(0)
    content = file.read()
    return len(content), len(zlib.decompress(zlib.compress(content, 6)))


def open_files() -> tuple[Callable[[IO[bytes]], tuple[int, int]], list[IO[bytes]]]:
    source = random.Random(24)
    words = [format(source.getrandbits(30), "x").encode() for _ in range(3000)]
    files: list[IO[bytes]] = []
    for _ in range(26):
        file = tempfile.TemporaryFile()  # noqa: SIM115
        file.write(b" ".join(source.choices(words, k=100_000)))
        files.append(file)
    return checksum, files


WORKLOADS = (
    Workload("big_arguments", "big arguments, released", big_arguments, "f2d7b7c8d013", quick=True),
    Workload("big_arguments_held", "big arguments, held", big_arguments_held, "631736274cfe"),
    Workload("big_results", "big results", big_results, "eca7211d1dbd"),
    Workload("captured_array", "a captured 40 MB array", captured_array, "494d2a87de5e"),
    Workload("captured_frame", "a captured DataFrame", captured_frame, "f2d82207e2c9"),
    Workload("closure", "a lambda with captured data", closure, "d8594ea3aee0"),
    Workload(
        "unpicklable_locks", "unpicklable items, held", items_with_locks, "4b3a0520dcff", quick=True
    ),
    Workload("unpicklable_files", "unpicklable items, released", open_files, "c3433022a31a"),
)
