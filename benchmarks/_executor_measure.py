"""The measures of the executor benchmark by cell; each is explained where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import _executor_processes, _executor_routed, _executor_threads

MEASURES: dict[str, Callable[[str, bool], dict[str, Any]]] = {
    **_executor_threads.MEASURES,
    **_executor_processes.MEASURES,
    **_executor_routed.MEASURES,
}
