"""The environment of items in a worker: taken over from the caller's process.

Guarantees: a setting that the program has taken back is taken back in warm workers too; each
setting is touched only when it has changed, for most cost an import.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable

from parallax._backends.processes.common import native_threads, process_identity
from parallax._backends.processes.common.arithmetic import set_decimal, set_numpy
from parallax._backends.processes.common.carried_settings import LibrarySettings
from parallax._backends.processes.common.protocol import RECALL
from parallax._backends.processes.common.stack_dumps import DUMP_SIGNAL
from parallax._core.light_stdlib import Any, loads
from parallax._core.nesting import Place, settle
from parallax._core.process_rights import take_over

_SIGNALS = {int(each) for each in (RECALL, DUMP_SIGNAL) if each is not None}


class WorkerEnvironment:
    """Takes over what ``capture_environment`` and ``capture_live`` encode."""

    def __init__(self, send_output: Callable[[tuple[bool, ...]], None]) -> None:
        """Prepare; ``send_output`` has output sent as ``wanted_output`` says."""
        self._send_output = send_output
        self._settings = LibrarySettings()
        self._last: dict[str, Any] = {}
        #: this process cannot take over limits or niceness.
        self.unfit = False
        #: the raw environment variables that items were to find.
        self._raw: dict[Any, Any] | None = None
        self._native: tuple[str | None, ...] = native_threads.variables(os.environ)

    def apply(self, context: dict[str, Any], *, initialized: bool = False) -> None:
        """Take over a captured environment; ``initialized``: but for the levels of loggers."""
        if context["output"] is not None:
            self._send_output(context["output"])
        if "place" not in context:
            _set_multiprocessing(context["multiprocessing"])
            if not initialized and context["logging"] != self._last.get("logging"):
                _set_logging(context["logging"], self._last.get("logging"))
                self._last["logging"] = context["logging"]
            return
        last, self._last = self._last, context
        _set_multiprocessing(context["multiprocessing"])
        settle(Place(*context["place"]))
        self._set_paths()
        self._set_folder()
        self._set_habits()
        self._set_variables()
        _set_filters(context["filters"])
        _set_limits(context)
        self._settings.apply(context["settings"])
        for name, change in (
            ("logging", _set_logging),
            ("decimal", set_decimal),
            ("numpy", set_numpy),
            ("options", _set_options),
        ):
            if context[name] != last.get(name):
                change(context[name], last.get(name))

    def renew(self) -> None:
        """Take back what the items of earlier runs have done to folder, environment and paths."""
        if self._last:
            self._set_paths()
            self._set_folder()
            self._set_habits()
            if self._raw is not None and getattr(os.environ, "_data", None) != self._raw:
                self._set_variables()

    def _set_paths(self) -> None:
        sys.path[:] = self._last["path"]
        sys.argv[:] = self._last["argv"]

    def _set_folder(self) -> None:
        if self._last["cwd"] is not None:
            try:
                os.chdir(self._last["cwd"])
            except OSError:  # it was removed
                pass

    def _set_habits(self) -> None:
        if self._last["habits"] is not None:
            self.unfit = not take_over(self._last["habits"], _SIGNALS)

    def _set_variables(self) -> None:
        place = Place(*self._last["place"])
        # Not place.cores alone: the parent has looked at the machine, which takes a millisecond.
        threads = str(place.budget or place.cores)
        # The program's own variables win.
        env = {**dict.fromkeys(native_threads.THREAD_COUNT_VARIABLES, threads), **self._last["env"]}
        zone = os.environ.get("TZ")
        for name in set(os.environ) - set(env):
            del os.environ[name]
        for name, value in env.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        if os.environ.get("TZ") != zone and hasattr(time, "tzset"):
            time.tzset()
        native = native_threads.variables(os.environ)
        if native != self._native:
            self._native = native
            native_threads.limit_loaded(os.environ)
        raw = getattr(os.environ, "_data", None)
        self._raw = None if raw is None else dict(raw)


def _set_multiprocessing(shared: process_identity.Shared | None) -> None:
    if shared is not None:
        process_identity.share(shared)


def adopt_place(place: Place) -> Callable[[], None]:
    """Put this fork in its workers' place; returns what each of them has to do."""
    settle(place)
    threads = str(place.budget or place.cores)
    for name in native_threads.THREAD_COUNT_VARIABLES:
        os.environ.setdefault(name, threads)
    # Without ctypes nothing native is loaded.
    pools = native_threads.native_pools() if "ctypes" in sys.modules else []

    sizes = [
        (pool, int(number))
        for pool in pools
        for number in [os.environ[pool.variable]]
        if number.isdecimal() and int(number) not in {0, pool.threads()}
    ]
    left = [(pool, size) for pool, size in sizes if not pool.shrink(size)]

    def limit() -> None:
        for pool, size in left:
            pool.resize(size)

    return limit


def _set_filters(encoded: bytes) -> None:
    try:
        filters = loads(encoded) if encoded else None
    except Exception:  # noqa: BLE001 - a category in a module that cannot be imported here
        return
    if filters is not None:
        warnings.resetwarnings()  # for its other effect: what was shown once may show again
        warnings.filters[:] = filters  # type: ignore[index]


def _set_limits(context: dict[str, Any]) -> None:
    if context["recursion"] != sys.getrecursionlimit():
        sys.setrecursionlimit(context["recursion"])
    if hasattr(sys, "set_int_max_str_digits"):
        digits = context["digits"]
        sys.set_int_max_str_digits(
            sys.int_info.default_max_str_digits if digits is None else digits
        )


def _set_logging(
    now: tuple[int, dict[str, int]] | None, last: tuple[int, dict[str, int]] | None
) -> None:
    import logging

    off, levels = now or (0, {"": logging.WARNING})
    logging.disable(off)
    for name in (last[1] if last else {}).keys() - levels.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)


def _set_options(now: dict[str, Any] | None, last: dict[str, Any] | None) -> None:
    from parallax._core.options import adopt

    adopt(now or {})
