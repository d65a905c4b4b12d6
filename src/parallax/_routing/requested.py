"""The route that a caller's choice of backend leads to, at the place where the call is made.

Purpose: a named backend is obeyed, except where the call would wait for itself or use the machine
twice: inside another call's workers. The reason is in the report.
Guarantees: an ``item_timeout`` is kept or refused, never dropped.
"""

from __future__ import annotations

import threading

from parallax._core.chunks import Route
from parallax._core.light_stdlib import Any, NamedTuple
from parallax._core.nesting import Place, loading
from parallax._core.options import BACKENDS, Options, name_of
from parallax._guard.process_state import importing

#: Threads for waiting work at first, and at most, as long as more of them bring more.
THREADS = 32
MOST_THREADS = 256


class RequestedRoute(NamedTuple):
    """A route that was asked for; None leaves the choice to the planner."""

    route: Route | None
    workers: int
    reason: str = ""
    #: whether the caller's own thread is one of the workers.
    joins: bool = False


def requested_route(options: Options, place: Place, *, stream: bool) -> RequestedRoute:
    """The route that a call's options ask for at this place.

    ``stream``: the caller's thread reads results one by one. Raises a ValueError for an
    ``item_timeout`` that cannot be kept here.
    """
    backend = options.backend if options.backend in BACKENDS else "executor"
    cores = options.max_workers or place.cores
    if loading():
        return RequestedRoute("loop", 1, "this call is made while a worker imports or unpickles")
    if options.item_timeout is not None:
        return _limited(options.item_timeout, place, cores)
    inside = "this call is made inside a worker of another parallel call"
    if place.innermost:
        return RequestedRoute("loop", 1, f"this call is made inside {place.depth} parallel calls")
    if place.level and backend in {"executor", "interpreters", "processes"}:
        # An executor's threads may all be inside items that wait for this call.
        return RequestedRoute("loop", 1, f"{inside}, which uses the cores already")
    if backend == "executor" and _runs(options.backend, threading.current_thread()):
        return RequestedRoute("loop", 1, "this call is made inside a thread of that executor")
    if backend == "auto":
        if module := importing():
            reason = f"`{module}` is being imported, and workers might have to wait for that"
            return RequestedRoute("loop", 1, reason)
        if place.level and place.cores == 1 and place.part(THREADS) == 1:
            return RequestedRoute("loop", 1, f"{inside}, which uses the cores already")
        return RequestedRoute(None, cores)
    reason = f"backend={backend!r} was asked for"
    if backend == "serial":
        return RequestedRoute("loop", 1, reason)
    if backend == "interpreters":
        return RequestedRoute("interpreters", cores, reason)
    if backend == "processes":
        return RequestedRoute("processes", cores, reason)
    if backend == "executor":
        default = getattr(options.backend, "_max_workers", None)
        if not isinstance(default, int) or default < 1:
            default = place.cores
        reason = f"{name_of(options.backend)} was passed as backend"
        return RequestedRoute("executor", options.max_workers or default, reason)
    count = options.max_workers or _usual_threads(place)
    if not place.level or stream:
        return RequestedRoute("threads", count, reason)
    if count == 1:
        return RequestedRoute("loop", 1, f"{inside}, and its share of threads is one: this one")
    return RequestedRoute("threads", count, reason, joins=True)


def _limited(seconds: float, place: Place, cores: int) -> RequestedRoute:
    if not place.movable:
        reason = "item_timeout needs worker processes, which can be ended"
        return RequestedRoute("processes", cores, reason)
    if place.limit is not None and place.limit <= seconds:
        reason = f"the outer call ends items like this one after {place.limit:g} s"
        return RequestedRoute("loop", 1, reason)
    raise ValueError(
        "item_timeout cannot be kept in a call that is made inside an item of another parallel "
        "call: only a process can be ended in the middle of an item, and workers start none of "
        "their own. Pass item_timeout to the outer call, or backend='serial'"
    )


def _usual_threads(place: Place) -> int:
    """Threads of a call that asks for threads and not how many."""
    if not place.level:
        return min(THREADS, place.cores + 4)
    # All workers together get as many as a call that is not nested.
    return max(place.cores, place.part(min(THREADS, place.cores * place.crowd + 4)))


def _runs(executor: Any, thread: threading.Thread) -> bool:
    """Whether a thread is one of an executor's, as far as that can be told."""
    threads = getattr(executor, "_threads", None)  # the standard library's; others' may be anything
    if isinstance(threads, (set, frozenset, list, tuple)) and thread in threads:
        return True
    # The standard library lists a thread only after it was started. Prefixes of its own making
    # belong to one executor.
    prefix = getattr(executor, "_thread_name_prefix", None)
    if not isinstance(prefix, str):
        return False
    return prefix.startswith("ThreadPoolExecutor-") and thread.name.startswith(f"{prefix}_")
