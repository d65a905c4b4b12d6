"""What the executor benchmark submits. Workers import this module, so it imports little."""

from __future__ import annotations

import time
from typing import Any

NAP_S = 0.002  # seconds


def pure_python(item: int) -> int:
    """About 5 ms of Python code, which holds the GIL."""
    total = 0
    for number in range(100_000):
        total += number ^ item
    return total


def nap(item: int) -> int:
    time.sleep(NAP_S)
    return item


def long_nap(item: int) -> int:
    """Stands for a short request over a network."""
    time.sleep(0.01)
    return item


def squash(blob: bytes) -> bytes:
    """C code that lets go of the GIL."""
    import hashlib
    import zlib

    return hashlib.sha256(zlib.compress(blob, 1)).digest()


def derive(item: int) -> bytes:
    """About 10 ms of C code that lets go of the GIL, with tiny arguments and results."""
    import hashlib

    return hashlib.pbkdf2_hmac("sha256", b"%d" % item, b"salt", 20_000)


def fail(item: int) -> int:
    """Raises an exception that has a cause, from some frames down."""
    try:
        return _below(item, 5)
    except KeyError as error:
        raise ValueError(item) from error


def _below(item: int, depth: int) -> int:
    if depth:
        return _below(item, depth - 1)
    raise KeyError(item)


def megabyte(item: int) -> bytes:
    return bytes([item % 256]) * 1_000_000


def array(item: int) -> Any:
    """5,000,000 float64: 40 MB."""
    import numpy as np

    return np.full(5_000_000, float(item))


_table: dict[int, int] = {}


def set_up(limit: int) -> None:
    """An initializer."""
    _table.update((number, number * number) for number in range(limit))


def look_up(item: int) -> int:
    return _table[item]
