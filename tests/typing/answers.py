"""Never run: what type checkers infer for users' calls (checked by test_typing.py)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from typing_extensions import assert_type

from parallax import Report, Results, cpu_count, explain, options, parallel_imap, parallel_map


def halve(x: int) -> float:
    return x / 2


def add(x: int, y: str) -> str:
    return f"{x}{y}"


class Model:
    def predict(self, row: list[float]) -> bool:
        return bool(row)

    def __call__(self, row: list[float]) -> bytes:
        return b""


numbers = [1, 2, 3]

assert_type(parallel_map(halve, numbers), Results[float])
assert_type(parallel_map(halve, range(3))[0], float)
assert_type(parallel_map(halve, (n for n in numbers), backend="threads"), Results[float])
assert_type(parallel_map(add, numbers, "abc"), Results[str])
assert_type(parallel_map(add, numbers, iter("abc"), strict=True, max_workers=2), Results[str])
assert_type(parallel_map(len, ["a"]), Results[int])
assert_type(parallel_map(str, numbers), Results[str])
assert_type(parallel_map(lambda n: n + 1, numbers), Results[int])
assert_type(parallel_map(Model().predict, [[1.0]]), Results[bool])
assert_type(parallel_map(Model(), [[1.0]]), Results[bytes])
assert_type(parallel_map(functools.partial(add, 1), ["x"]), Results[str])
assert_type(parallel_map(halve, numbers).report, Report)
assert_type(parallel_imap(halve, numbers), Iterator[float])
assert_type(parallel_imap(add, numbers, "abc", ordered=False, buffersize=3), Iterator[str])
assert_type(explain(halve, numbers), Report)
assert_type(explain(halve, numbers, max_tasks_per_child=2), Report)
assert_type(parallel_map(halve, numbers, max_tasks_per_child=2), Results[float])
assert_type(parallel_map(add, numbers, "abc", max_memory_per_worker=1 << 30), Results[str])
assert_type(parallel_imap(halve, numbers, max_memory_per_worker=1 << 30), Iterator[float])
assert_type(cpu_count(), int)

with ThreadPoolExecutor() as executor, options(max_workers=2):
    assert_type(parallel_map(halve, numbers, backend=executor), Results[float])

as_list: list[float] = parallel_map(halve, numbers)

parallel_map(halve, ["text"])  # type: ignore[arg-type]
parallel_map(halve, numbers, backend="fibers")  # type: ignore[call-overload]
parallel_map(halve, numbers, on_error="ignore")  # type: ignore[call-overload]
parallel_map(halve, numbers, max_worker=2)  # type: ignore[call-overload]
parallel_map(halve, 5)  # type: ignore[call-overload]
