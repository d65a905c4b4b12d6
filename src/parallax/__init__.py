"""parallax: run a slow function on all cores, the way that fits it, with the loop's answer.

    >>> from parallax import parallel_map
    >>> results = parallel_map(fn, items)
    >>> print(results.report)

Names are loaded when they are first used: importing parallax costs next to nothing.
"""

from __future__ import annotations

# Type checkers take this for typing's own constant; importing it would cost as much as the rest.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from parallax._api.asyncio import amap as amap
    from parallax._api.asyncio import arun as arun
    from parallax._api.decorator import parallel as parallel
    from parallax._api.map import Results as Results
    from parallax._api.map import ResultStream as ResultStream
    from parallax._api.map import explain as explain
    from parallax._api.map import parallel_imap as parallel_imap
    from parallax._api.map import parallel_map as parallel_map
    from parallax._api.share import share as share
    from parallax._api.share import shared_copy as shared_copy
    from parallax._api.share import shared_empty as shared_empty
    from parallax._backends.processes.common.carried_settings import (
        carry_setting as carry_setting,
    )
    from parallax._core.cores import cpu_count as cpu_count
    from parallax._core.errors import BackendMissingError as BackendMissingError
    from parallax._core.errors import ItemTimeoutError as ItemTimeoutError
    from parallax._core.errors import ParallaxError as ParallaxError
    from parallax._core.errors import RemoteTraceback as RemoteTraceback
    from parallax._core.errors import SerializationError as SerializationError
    from parallax._core.errors import SharedStateWarning as SharedStateWarning
    from parallax._core.errors import WorkerDiedError as WorkerDiedError
    from parallax._core.errors import WorkerStartError as WorkerStartError
    from parallax._core.nesting import available_cores as available_cores
    from parallax._core.nesting import nesting_depth as nesting_depth
    from parallax._core.options import configure as configure
    from parallax._core.options import options as options
    from parallax._executors.executor import Executor as Executor
    from parallax._executors.process_executor import ProcessPoolExecutor as ProcessPoolExecutor
    from parallax._executors.thread_executor import ThreadPoolExecutor as ThreadPoolExecutor
    from parallax._reporting.executor_reports import ExecutorReport as ExecutorReport
    from parallax._reporting.executor_reports import FunctionReport as FunctionReport
    from parallax._reporting.reports import Report as Report

__version__ = "0.1.0"

__all__ = [
    "BackendMissingError",
    "Executor",
    "ExecutorReport",
    "FunctionReport",
    "ItemTimeoutError",
    "ParallaxError",
    "ProcessPoolExecutor",
    "RemoteTraceback",
    "Report",
    "ResultStream",
    "Results",
    "SerializationError",
    "SharedStateWarning",
    "ThreadPoolExecutor",
    "WorkerDiedError",
    "WorkerStartError",
    "amap",
    "arun",
    "available_cores",
    "carry_setting",
    "configure",
    "cpu_count",
    "explain",
    "nesting_depth",
    "options",
    "parallel",
    "parallel_imap",
    "parallel_map",
    "share",
    "shared_copy",
    "shared_empty",
]

_HOME = {
    "amap": "_api.asyncio",
    "arun": "_api.asyncio",
    "BackendMissingError": "_core.errors",
    "ItemTimeoutError": "_core.errors",
    "ParallaxError": "_core.errors",
    "RemoteTraceback": "_core.errors",
    "SerializationError": "_core.errors",
    "SharedStateWarning": "_core.errors",
    "WorkerDiedError": "_core.errors",
    "WorkerStartError": "_core.errors",
    "Executor": "_executors.executor",
    "ExecutorReport": "_reporting.executor_reports",
    "FunctionReport": "_reporting.executor_reports",
    "ProcessPoolExecutor": "_executors.process_executor",
    "ThreadPoolExecutor": "_executors.thread_executor",
    "parallel": "_api.decorator",
    "available_cores": "_core.nesting",
    "carry_setting": "_backends.processes.common.carried_settings",
    "cpu_count": "_core.cores",
    "nesting_depth": "_core.nesting",
    "ResultStream": "_api.map",
    "Results": "_api.map",
    "explain": "_api.map",
    "parallel_imap": "_api.map",
    "parallel_map": "_api.map",
    "configure": "_core.options",
    "options": "_core.options",
    "Report": "_reporting.reports",
    "share": "_api.share",
    "shared_copy": "_api.share",
    "shared_empty": "_api.share",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'parallax' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"parallax.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
