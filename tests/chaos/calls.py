"""Making the calls of a plan, each by its own door, and entering what comes into its ledger."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import parallax

from .ledger import BrokenInputError, Ledger
from .plan import ASYNC, Call
from .work import Item, ballast_of, work, work2

__all__ = ["make"]

spread = parallax.parallel(work2)


def make(ledger: Ledger) -> None:
    """Make one call; what it comes to is in the ledger afterwards.

    Raises:
        BaseException: a mistake of this program, not of parallax.
    """
    call = ledger.call
    with parallax.options(start_method=call.start_method):
        try:
            if call.api in ASYNC:
                asyncio.run(_asynchronous(ledger))
            elif call.face == "parallel":
                _maps(ledger)
            else:
                _executor(ledger)
        except (Exception, asyncio.CancelledError) as error:
            ledger.error = error


def _input(ledger: Ledger) -> Any:
    """The items with what goes in with them."""
    call = ledger.call

    def each() -> Iterator[Item]:
        for item in call.items:
            if call.source == "broken" and item.index >= len(call.items) // 2:
                raise BrokenInputError
            yield item._replace(trail=ledger.trail, ballast=ballast_of(item.index, item.weight))

    return list(each()) if call.source == "list" else each()


def _maps(ledger: Ledger) -> None:
    call = ledger.call
    options = {"backend": call.backend, **call.options}
    if call.api == "starmap":
        items = _input(ledger)
        tuples = ((item, item.index) for item in items)
        results = spread.options(**options).starmap(tuples)
    elif call.api == "map":
        results = parallax.parallel_map(ledger.fn, _input(ledger), **options)
    else:
        _stream(ledger, parallax.parallel_imap(ledger.fn, _input(ledger), **options))
        return
    for index, value in enumerate(results):
        ledger.value(index, value)
    ledger.complete = True


def _stream(ledger: Ledger, results: Any) -> None:
    """Read results as far as the plan says."""
    unordered = ledger.call.api == "imap_unordered"
    with contextlib.nullcontext() if ledger.call.drop else contextlib.closing(results):
        for index, value in enumerate(itertools.islice(results, ledger.call.leave)):
            ledger.value(None if unordered else index, value)
        ledger.complete = ledger.call.leave is None


# -- executors ---------------------------------------------------------------------------------


def _new_executor(call: Call) -> Any:
    options = {name: value for name, value in call.options.items() if name != "seed"}
    if call.face == "ThreadPoolExecutor":
        return parallax.ThreadPoolExecutor(**options)
    if call.face == "Executor":
        return parallax.Executor(backend=call.backend, **options)
    if call.backend in {"spawn", "fork"}:
        if call.backend == "fork":
            options.pop("max_tasks_per_child", None)
        options["mp_context"] = multiprocessing.get_context(call.backend)
    return parallax.ProcessPoolExecutor(**options)


def _executor(ledger: Ledger) -> None:
    call = ledger.call
    seed = {"seed": call.options["seed"]} if "seed" in call.options else {}
    with _new_executor(call) as executor:
        if call.api == "executor_map":
            _stream(ledger, executor.map(ledger.fn, _input(ledger), **seed))
            return
        items = list(_input(ledger))
        shares = [items[first :: call.callers] for first in range(call.callers)]
        threads = [
            threading.Thread(target=_submit, args=(ledger, executor, share), daemon=True)
            for share in shares[1:]
        ]
        for thread in threads:
            thread.start()
        _submit(ledger, executor, shares[0])
        for thread in threads:
            thread.join()
    ledger.complete = True


def _submit(ledger: Ledger, executor: Any, items: list[Item]) -> None:
    """Submit items, cancel some, and wait for all."""
    call = ledger.call
    futures: dict[int, Future[Any]] = {}
    for item in items:
        try:
            futures[item.index] = executor.submit(work, item)
        except Exception as error:  # it gave up, or another thread has shut it down
            ledger.failed(item.index, error)
        if item.index - 3 in call.cancel and item.index - 3 in futures:
            futures[item.index - 3].cancel()
        time.sleep(call.pause)
    if call.leave is not None:
        executor.shutdown(wait=False, cancel_futures=True)
    for index, future in futures.items():
        if index % 5 == 0:
            with contextlib.suppress(Exception, CancelledError):
                future.result(0.001)
        _settled(ledger, index, future)


def _settled(ledger: Ledger, index: int, future: Future[Any]) -> None:
    try:
        value = future.result()
    except CancelledError:
        ledger.cancelled(index)
    except Exception as error:
        ledger.failed(index, error)
    else:
        ledger.value(index, value)


# -- asyncio -----------------------------------------------------------------------------------


async def _asynchronous(ledger: Ledger) -> None:
    call = ledger.call
    with parallax.options(backend=call.backend, max_workers=call.options.get("max_workers")):
        if call.api == "arun":
            await _arun(ledger)
            return
        ordered = call.api == "amap"
        async with contextlib.aclosing(
            parallax.amap(work, _input(ledger), ordered=ordered)
        ) as results:
            index = 0
            if call.leave == 0:
                return
            async for value in results:
                ledger.value(index if ordered else None, value)
                index += 1
                if index == call.leave:
                    return
        ledger.complete = True


async def _arun(ledger: Ledger) -> None:
    tasks = []
    for item in _input(ledger):
        tasks.append(asyncio.ensure_future(parallax.arun(work, item)))
        if item.index in ledger.call.cancel:
            await asyncio.sleep(0.002)
            tasks[-1].cancel()
    for index, task in enumerate(tasks):
        await _entered(ledger, index, lambda task=task: task)
    ledger.complete = True


async def _entered(ledger: Ledger, index: int, task: Callable[[], Any]) -> None:
    try:
        value = await task()
    except (Exception, asyncio.CancelledError) as error:  # the second one is a BaseException
        ledger.failed(index, error)
    else:
        ledger.value(index, value)
