"""Never run: what type checkers infer for users' calls (checked by test_typing.py)."""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Iterator
from concurrent.futures import Future

from typing_extensions import assert_type

from parallax import (
    Executor,
    ProcessPoolExecutor,
    Report,
    Results,
    ResultStream,
    ThreadPoolExecutor,
    available_cores,
    cpu_count,
    explain,
    nesting_depth,
    options,
    parallel,
    parallel_imap,
    parallel_map,
)


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
assert_type(parallel_imap(halve, numbers), ResultStream[float])
assert_type(parallel_imap(halve, numbers).report, Report)
assert_type(next(parallel_imap(halve, numbers)), float)
as_iterator: Iterator[float] = parallel_imap(halve, numbers)
assert_type(parallel_imap(add, numbers, "abc", ordered=False, buffersize=3), ResultStream[str])
assert_type(explain(halve, numbers), Report)
assert_type(explain(halve, numbers, max_tasks_per_child=2), Report)
assert_type(parallel_map(halve, numbers, max_tasks_per_child=2), Results[float])
assert_type(parallel_map(add, numbers, "abc", max_memory_per_worker=1 << 30), Results[str])
assert_type(parallel_imap(halve, numbers, max_memory_per_worker=1 << 30), ResultStream[float])
assert_type(cpu_count(), int)
assert_type(Executor().options(item_timeout=2, retries=1), Executor)
assert_type(ProcessPoolExecutor().options(retries=1).submit(halve, 2), Future[float])
assert_type(list(ThreadPoolExecutor().options(retries=None).map(halve, numbers)), list[float])
Executor().options(retries="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Executor().options(chunksize=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
assert_type(available_cores(), int)
assert_type(nesting_depth(), int)
assert_type(Executor(idle_timeout=2.5).closed, bool)
assert_type(ThreadPoolExecutor(2, idle_timeout=1).broken, BaseException | None)
assert_type(ProcessPoolExecutor().cancel(Executor().submit(halve, 2)), bool)

with concurrent.futures.ThreadPoolExecutor() as executor, options(max_workers=2):
    assert_type(parallel_map(halve, numbers, backend=executor), Results[float])

as_list: list[float] = parallel_map(halve, numbers)

parallel_map(halve, ["text"])  # type: ignore[arg-type]
parallel_map(halve, numbers, backend=4)  # type: ignore[call-overload]
assert_type(parallel_map(halve, numbers, backend="tcp://scheduler:8786"), Results[float])
parallel_map(halve, numbers, on_error="ignore")  # type: ignore[call-overload]
parallel_map(halve, numbers, max_worker=2)  # type: ignore[call-overload]
parallel_map(halve, 5)  # type: ignore[call-overload]


# -- @parallel ------------------------------------------------------------------------------------


@parallel
def scaled(x: int, by: float = 1.0) -> float:
    return x * by


@parallel
def instance_of(kind: type[object], count: int) -> object:
    return kind()


@parallel(max_workers=4, backend="threads", on_error="return")
def joined(x: int, y: str) -> str:
    return f"{x}{y}"


class Shape:
    @parallel
    def area(self, width: int, height: int) -> float:
        return width * height

    @parallel(retries=1)
    def name(self) -> str:
        return ""

    @parallel
    @staticmethod
    def parse(text: str) -> bytes:
        return text.encode()

    @parallel(chunksize=2)
    @classmethod
    def make(cls, text: str) -> bool:
        return bool(text)

    @staticmethod
    @parallel
    def join(text: str) -> str:
        return text


assert_type(scaled(2, by=3.0), float)
assert_type(scaled.map(numbers), Results[float])
assert_type(scaled.map(numbers, [1.0], max_workers=2, strict=True), Results[float])
assert_type(scaled.imap(numbers, ordered=False), ResultStream[float])
assert_type(scaled.starmap([(1, 2.0)], backend="processes"), Results[float])
assert_type(scaled.submit(1, by=2.0), Future[float])
assert_type(scaled.submit(1).result(), float)
assert_type(scaled.explain(numbers), Report)
assert_type(scaled.options(max_workers=2)(1), float)
assert_type(scaled.options(max_workers=2).map(numbers), Results[float])
assert_type(joined(1, "a"), str)
assert_type(joined.map(numbers, "abc").report, Report)
assert_type(Shape().area(1, 2), float)
assert_type(Shape().area.map(numbers, numbers), Results[float])
assert_type(Shape().area.submit(1, height=2), Future[float])
assert_type(Shape().name(), str)
assert_type(Shape.area(Shape(), 1, 2), float)
assert_type(Shape.area.map([Shape()], numbers, numbers), Results[float])
assert_type(Shape.parse("a"), bytes)
assert_type(Shape.parse.map(["a"]), Results[bytes])
assert_type(Shape.parse.imap(["a"]), ResultStream[bytes])
assert_type(Shape.make("a"), bool)
assert_type(Shape.make.map(["a"]), Results[bool])
assert_type(Shape.make.submit("a"), Future[bool])
assert_type(Shape().make.map(["a"]), Results[bool])
assert_type(Shape.join("a"), str)
assert_type(Shape.join.map(["a"]), Results[str])
assert_type(parallel_map(scaled, numbers), Results[float])
assert_type(instance_of(dict, 2), object)
assert_type(instance_of.map([dict], [2]), Results[object])
assert_type(list(map(scaled, numbers)), list[float])

scaled("text")  # type: ignore[arg-type]
scaled(1, to=2.0)  # type: ignore[call-arg]
scaled.submit("text")  # type: ignore[arg-type]
scaled.map(numbers, max_worker=2)  # type: ignore[call-arg]
scaled.map(numbers, on_error="ignore")  # type: ignore[arg-type]
scaled.options(retries="2")  # type: ignore[arg-type]
Shape().area("text", 2)  # type: ignore[arg-type]
Shape.make(1)  # type: ignore[arg-type]
parallel(5)  # type: ignore[call-overload]
parallel(max_worker=2)  # type: ignore[call-overload]

# -- executors ------------------------------------------------------------------------------------

with ProcessPoolExecutor(2, initializer=halve, initargs=(1,), max_tasks_per_child=3) as pool:
    assert_type(pool, ProcessPoolExecutor)
    assert_type(pool.submit(add, 1, "a"), Future[str])
    assert_type(pool.submit(add, 1, y="a").result(), str)
    assert_type(pool.map(halve, numbers, chunksize=2), Iterator[float])
    assert_type(pool.shutdown(wait=False, cancel_futures=True), None)
    as_stdlib: concurrent.futures.Executor = pool
    pool.submit(halve, "text")  # type: ignore[arg-type]

with ThreadPoolExecutor(2, "name", halve, (1,)) as threads:
    assert_type(threads, ThreadPoolExecutor)
    assert_type(threads.submit(add, 1, y="a"), Future[str])
    assert_type(threads.map(halve, numbers), Iterator[float])
    as_stdlib = threads
    threads.submit(halve, "text")  # type: ignore[arg-type]

with Executor(2, backend="auto") as routing:
    assert_type(routing, Executor)
    assert_type(routing.submit(add, 1, y="a"), Future[str])
    assert_type(routing.map(add, numbers, "abc", buffersize=2), Iterator[str])
    assert_type(parallel_map(halve, numbers, backend=routing), Results[float])
    as_stdlib = routing
    routing.submit(halve, "text")  # type: ignore[arg-type]
