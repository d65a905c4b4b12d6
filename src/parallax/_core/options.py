"""The options of a call: one checked, frozen value, and where its defaults come from.

Every option is checked here, before any worker starts, with a message that says what is wrong and
what would be right.
Precedence, strongest first: the call's own argument, the innermost ``options(...)`` block,
``configure(...)``, the ``PARALLAX_*`` environment variables, the built-in default.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import os
import sys
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache

from parallax._core.cores import start_methods
from parallax._core.light_stdlib import Any, Literal, Protocol, TypeAlias, TypedDict
from parallax._core.records import record, replace
from parallax._core.seeds import stream_of


class Submits(Protocol):
    """What can run calls: a ``concurrent.futures.Executor``, or a ``Client`` of Dask."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Begin a call."""


#: A name, the address of a scheduler of Dask, or an object that runs calls.
Backend: TypeAlias = (
    "Literal['auto', 'serial', 'threads', 'interpreters', 'processes', 'dask'] | str | Submits"
)


class CallOptions(TypedDict, total=False):
    """The keyword options of an executor's calls; see ``Executor.options``."""

    item_timeout: float | None
    retries: int | None
    record: bool | None


class ExplainOptions(TypedDict, total=False):
    """The keyword options of ``explain``."""

    backend: Backend | None
    max_workers: int | None
    max_tasks_per_child: int | None
    max_memory_per_worker: int | None
    seed: Any
    resources: dict[str, float] | None


class MapOptions(CallOptions, ExplainOptions, total=False):
    """The keyword options of ``parallel_map``; see there for what each means."""

    chunksize: int | None
    buffersize: int | None
    timeout: float | None
    on_error: Literal["raise", "return"] | None
    progress: Any
    strict: bool | None


class StreamOptions(MapOptions, total=False):
    """The keyword options of ``parallel_imap``."""

    ordered: bool | None


#: Engines of several machines. Any text with a colon is the address of a scheduler of Dask.
CLUSTERS = ("dask",)

#: Backends with a name; any ``concurrent.futures.Executor`` object is one too.
BACKENDS = ("auto", "serial", "threads", "processes", "interpreters")

#: Options that need worker processes. As defaults they apply only to calls that may use processes.
RECYCLING = ("max_tasks_per_child", "max_memory_per_worker")

#: Options that only processes can keep: what a process can be and a thread cannot.
_PROCESS_ONLY = {
    "item_timeout": "ended in the middle of an item, a thread cannot",
    **dict.fromkeys(RECYCLING, "replaced by a fresh one"),
}

START_METHODS = ("auto", "snapshot", "zygote", "spawn")


@record(frozen=True, slots=True)
class Options:
    """All options of one call, checked. See ``parallel_map`` for what each means."""

    backend: Any = "auto"
    max_workers: int | None = None
    chunksize: int | None = None
    buffersize: int | None = None
    timeout: float | None = None
    item_timeout: float | None = None
    on_error: Literal["raise", "return"] = "raise"
    retries: int = 0
    progress: Any = False
    ordered: bool = True
    strict: bool = False
    max_tasks_per_child: int | None = None
    max_memory_per_worker: int | None = None
    seed: Any = None
    resources: dict[str, float] | None = None
    record: bool = False
    idle_timeout: float = 60.0
    stall_warn: float = 60.0
    start_method: str = "auto"


#: The options of configure(), of each public function, of calls, and those that explain() takes.
OPTION_NAMES = Options.__match_args__
STREAM_OPTIONS = frozenset(OPTION_NAMES) - {"idle_timeout", "stall_warn", "start_method"}
MAP_OPTIONS = STREAM_OPTIONS - {"ordered"}
CALL_OPTIONS = frozenset({"item_timeout", "retries", "record"})
EXPLAIN_OPTIONS = frozenset({"backend", "max_workers", "seed", "resources", *RECYCLING})


def check_names(who: str, given: Any, known: Collection[str] = OPTION_NAMES) -> None:
    """Raise TypeError for an option that is not known to the function called `who`."""
    for name in given:
        if name not in known:
            listed = ", ".join(each for each in OPTION_NAMES if each in known)
            raise TypeError(f"{who}: unknown option {name!r}; known options: {listed}")


def resolve(given: Any) -> Options:
    """Merge a call's arguments (None: "not given") with the defaults in force; check the result."""
    merged = {name: value for name, value in given.items() if value is not None}
    for source in (_scope.get(), _configured, _from_environment()):
        merged = {**source, **merged}
    if merged.get("backend", "auto") not in ("auto", "processes"):
        for name in RECYCLING:
            if given.get(name) is None:
                merged.pop(name, None)
    if "resources" in merged and not is_cluster(backend := merged.get("backend", "auto")):
        if given.get("resources") is not None:
            raise ValueError(
                f"resources are those of a cluster's workers, and backend={_quoted(backend)} has "
                f"none. Pass backend='dask', a Client of Dask or the address of its scheduler"
            )
        del merged["resources"]
    return _check(Options(**merged)) if merged else _DEFAULT


def check(given: Any) -> None:
    """Check options (None: "not given") independently of the defaults that will be in force."""
    _check(replace(_DEFAULT, **{k: v for k, v in given.items() if v is not None}))


def configure(**defaults: Any) -> None:
    """Set process-wide defaults for the options of every later call.

    Args:
        **defaults: any keyword option of ``parallel_map``, and ``idle_timeout`` (seconds after
            which idle worker processes end, default 60), ``stall_warn`` (seconds without any
            finished item after which the logger "parallax" lists what is running, default 60,
            0 for never) and ``start_method`` (how worker processes start: "snapshot", "zygote",
            "spawn", or "auto"; executors take "zygote" where a snapshot is not safe). None removes
            an earlier setting.

    Raises:
        TypeError: an unknown option, or one of the wrong type.
        ValueError: a value that cannot be used.
    """
    check_names("configure()", defaults)
    merged = {k: v for k, v in {**_configured, **defaults}.items() if v is not None}
    check(merged)
    adopt(merged)


@contextlib.contextmanager
def options(**defaults: Any) -> Iterator[None]:
    """Set defaults for the calls inside a ``with`` block, in this thread or task only.

    Args:
        **defaults: as for ``configure``. Blocks nest; the innermost wins.

    Raises:
        TypeError: an unknown option, or one of the wrong type.
        ValueError: a value that cannot be used.
    """
    check_names("options()", defaults)
    merged = {k: v for k, v in {**_scope.get(), **defaults}.items() if v is not None}
    check(merged)
    token = _scope.set(merged)
    try:
        yield
    finally:
        _scope.reset(token)


def defaults() -> dict[str, Any]:
    """The defaults that ``configure`` and ``options`` have set for the running code."""
    return {**_configured, **_scope.get()}


def adopt(configured: dict[str, Any]) -> None:
    """Replace the defaults of this process by those of another one."""
    global _configured  # noqa: PLW0603 - replaced as a whole: calls of other threads may read it
    _configured = configured


_scope: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar(
    "parallax_options",
    default={},  # noqa: B039 - never mutated, only replaced
)
_configured: dict[str, Any] = {}

_ENVIRONMENT: dict[str, Callable[[str], Any]] = {
    "PARALLAX_BACKEND": str,
    "PARALLAX_MAX_WORKERS": int,
    "PARALLAX_CHUNKSIZE": int,
    "PARALLAX_RETRIES": int,
    "PARALLAX_MAX_TASKS_PER_CHILD": int,
    "PARALLAX_MAX_MEMORY_PER_WORKER": int,
    "PARALLAX_IDLE_TIMEOUT": float,
    "PARALLAX_STALL_WARN": float,
    "PARALLAX_START_METHOD": str,
}

_ENVIRONMENT_KEYS = (*_ENVIRONMENT, *map(os.fsencode, _ENVIRONMENT))


def _from_environment() -> dict[str, Any]:
    found: dict[str, Any] = {}
    # Not by its own methods, which take 10 us to say that there is nothing.
    if not any(map(getattr(os.environ, "_data", os.environ).__contains__, _ENVIRONMENT_KEYS)):
        return found
    for name in _ENVIRONMENT:
        if text := os.environ.get(name):
            found[name.removeprefix("PARALLAX_").lower()] = _from_text(name, text)
    return found


@lru_cache(maxsize=32)
def _from_text(name: str, text: str) -> Any:
    """The checked value of an environment variable."""
    convert = _ENVIRONMENT[name]
    try:
        value = convert(text)
    except ValueError:
        kind = "a whole number" if convert is int else "a number"
        problem = f"the environment variable {name} must be {kind}, not {text!r}"
        raise ValueError(problem) from None
    try:
        check({name.removeprefix("PARALLAX_").lower(): value})
    except ValueError as error:
        raise ValueError(f"the environment variable {name}={text}: {error}") from None
    return value


def _check(o: Options) -> Options:
    _check_backend(o.backend)
    for name in ("max_workers", "chunksize", "buffersize", *RECYCLING):
        _check_count(name, getattr(o, name), 1)
    _check_count("retries", o.retries, 0)
    _check_seconds("timeout", o.timeout, zero=True)
    _check_seconds("item_timeout", o.item_timeout, zero=False)
    _check_seconds("idle_timeout", o.idle_timeout, zero=True)
    _check_seconds("stall_warn", o.stall_warn, zero=True)
    stream_of(o.seed)
    if o.on_error not in ("raise", "return"):
        raise ValueError(f"on_error must be 'raise' or 'return', not {o.on_error!r}")
    if o.start_method not in START_METHODS:
        known = ", ".join(repr(m) for m in START_METHODS)
        raise ValueError(f"unknown start_method {o.start_method!r}; known: {known}")
    known_here = ("snapshot" if m == "zygote" else m for m in start_methods())
    if o.start_method not in ("auto", *start_methods(), *known_here):
        raise ValueError(
            f"start_method={o.start_method!r} needs Linux; leave it out, and this system's is used"
        )
    for name in ("ordered", "strict", "record"):
        if not isinstance(getattr(o, name), bool):
            raise TypeError(f"{name} must be True or False, not {getattr(o, name)!r}")
    for name, why in _PROCESS_ONLY.items():
        if getattr(o, name) is not None and o.backend not in ("auto", "processes"):
            raise ValueError(
                f"{name} cannot be kept with backend={_quoted(o.backend)}: only a process can be "
                f"{why}. Pass backend='processes' or 'auto'"
            )
    if not isinstance(o.resources, (dict, type(None))):
        raise TypeError(f"resources must be a dict such as {{'GPU': 1}}, not {o.resources!r}")
    if o.item_timeout is not None and o.chunksize not in (None, 1):
        raise ValueError("item_timeout works item by item; leave chunksize out, or pass 1")
    return o


def _check_backend(backend: Any) -> None:
    if isinstance(backend, str):
        if backend not in BACKENDS and not is_cluster(backend):
            known = ", ".join(repr(b) for b in (*BACKENDS, *CLUSTERS))
            raise ValueError(
                f"unknown backend {backend!r}; known backends: {known}, the address of a scheduler "
                f"of Dask, or a concurrent.futures.Executor object"
            )
        if backend == "interpreters" and sys.version_info < (3, 14):
            raise ValueError(
                f"backend='interpreters' needs Python 3.14 or newer, and this is "
                f"{sys.version_info[0]}.{sys.version_info[1]}. Pass backend='processes'"
            )
    elif isinstance(backend, type) or not callable(getattr(backend, "submit", None)):
        raise TypeError(
            f"backend must be one of {', '.join(repr(b) for b in BACKENDS)} or a "
            f"concurrent.futures.Executor object, not {backend!r}"
        )


def _check_count(name: str, value: Any, least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value.__index__() < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def _check_seconds(name: str, value: Any, *, zero: bool) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if math.isnan(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name} must be {'>=' if zero else '>'} 0 seconds, not {value}")


def is_cluster(backend: Any) -> bool:
    """Whether a backend stands for a cluster of Dask: its name, an address, a client."""
    if isinstance(backend, str):
        return backend in CLUSTERS or ":" in backend
    kinds = {(each.__module__.partition(".")[0], each.__name__) for each in type(backend).__mro__}
    return ("distributed", "Client") in kinds


def _quoted(backend: Any) -> str:
    return repr(backend) if isinstance(backend, str) else name_of(backend)


def name_of(backend: Any) -> str:
    """What a backend is called in reports and messages."""
    if isinstance(backend, str):
        return backend
    return getattr(backend, "parallax_name", None) or type(backend).__name__


_DEFAULT = Options()
