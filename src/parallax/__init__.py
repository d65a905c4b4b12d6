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

    from ._asyncio import amap as amap
    from ._asyncio import arun as arun
    from ._decorator import parallel as parallel
    from ._errors import BackendMissingError as BackendMissingError
    from ._errors import ItemTimeoutError as ItemTimeoutError
    from ._errors import ParallaxError as ParallaxError
    from ._errors import RemoteTraceback as RemoteTraceback
    from ._errors import SerializationError as SerializationError
    from ._errors import SharedStateWarning as SharedStateWarning
    from ._errors import WorkerDiedError as WorkerDiedError
    from ._errors import WorkerStartError as WorkerStartError
    from ._executor import Executor as Executor
    from ._machine import cpu_count as cpu_count
    from ._map import Results as Results
    from ._map import explain as explain
    from ._map import parallel_imap as parallel_imap
    from ._map import parallel_map as parallel_map
    from ._options import configure as configure
    from ._options import options as options
    from ._process_executor import ProcessPoolExecutor as ProcessPoolExecutor
    from ._report import Report as Report
    from ._share import share as share
    from ._share import shared_copy as shared_copy
    from ._share import shared_empty as shared_empty
    from ._tally import ExecutorReport as ExecutorReport
    from ._tally import FunctionReport as FunctionReport
    from ._thread_executor import ThreadPoolExecutor as ThreadPoolExecutor

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
    "Results",
    "SerializationError",
    "SharedStateWarning",
    "ThreadPoolExecutor",
    "WorkerDiedError",
    "WorkerStartError",
    "amap",
    "arun",
    "configure",
    "cpu_count",
    "explain",
    "options",
    "parallel",
    "parallel_imap",
    "parallel_map",
    "share",
    "shared_copy",
    "shared_empty",
]

_HOME = {
    "amap": "_asyncio",
    "arun": "_asyncio",
    "BackendMissingError": "_errors",
    "ItemTimeoutError": "_errors",
    "ParallaxError": "_errors",
    "RemoteTraceback": "_errors",
    "SerializationError": "_errors",
    "SharedStateWarning": "_errors",
    "WorkerDiedError": "_errors",
    "WorkerStartError": "_errors",
    "Executor": "_executor",
    "ExecutorReport": "_tally",
    "FunctionReport": "_tally",
    "ProcessPoolExecutor": "_process_executor",
    "ThreadPoolExecutor": "_thread_executor",
    "parallel": "_decorator",
    "cpu_count": "_machine",
    "Results": "_map",
    "explain": "_map",
    "parallel_imap": "_map",
    "parallel_map": "_map",
    "configure": "_options",
    "options": "_options",
    "Report": "_report",
    "share": "_share",
    "shared_copy": "_share",
    "shared_empty": "_share",
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
