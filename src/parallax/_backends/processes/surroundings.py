"""What surrounds an item besides its arguments: captured in the parent, taken over by workers.

Purpose: an item finds in a worker what it would find in the caller's own thread: folder,
environment, search path, warnings filters, logging levels, limits of the interpreter, arithmetic
settings, defaults of nested calls, and its place among other parallel work.
Guarantees: capturing costs tens of microseconds and never raises; a setting that its owner has
taken back is taken back in warm workers too.
"""

from __future__ import annotations

import os
import sys
import time
import warnings

from ..._lean import dumps, loads
from ..._nesting import Place, settle
from .native import NATIVE, limit_loaded, variables

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

__all__ = ["Surroundings", "capture", "kinship"]

#: Defaults of nested calls that travel. Not max_workers: it is a limit of the whole, of which a
#: nested call gets a part.
OPTIONS = frozenset({"chunksize", "buffersize", "timeout", "item_timeout", "on_error", "retries"})


def capture(place: Place) -> bytes:
    """The surroundings of the running code, encoded for ``Surroundings.apply``.

    Args:
        place: where items will run.
    """
    try:
        cwd: str | None = os.getcwd()
    except OSError:
        cwd = None
    values: dict[str, Any] = {
        "path": list(sys.path),
        "argv": list(getattr(sys, "argv", [])),
        "cwd": cwd,
        "env": _environment(),
        "place": place.packed(),
        "recursion": sys.getrecursionlimit(),
        "filters": _filters(),
        # Each of these is None as long as nobody changed it, and then costs workers no import.
        "digits": _digits(),
        "logging": _logging(),
        "decimal": _decimal(),
        "numpy": _numpy(),
        "options": _options(),
        "relation": _relation(),
    }
    global _captured  # noqa: PLW0603 - a cache
    if values != _captured[0]:
        _captured = (values, dumps(values, 5))
    return _captured[1]


def kinship() -> bytes | None:
    """What makes a worker a relative of this process to ``multiprocessing``.

    Returns:
        Something for ``Surroundings.apply``; None as long as it does not matter here.
    """
    global _kinship  # noqa: PLW0603 - a cache
    relation = _relation()
    if relation is None:
        return None
    if relation != _kinship[0]:
        _kinship = relation, dumps({"relation": relation}, 5)
    return _kinship[1]


#: The relation that was told last, and how.
_kinship: tuple[Any, bytes] = (None, b"")


#: What was captured last, and its pickle.
_captured: tuple[dict[str, Any], bytes] = ({}, b"")

#: The environment as it was last, raw and decoded.
_env: tuple[Any, dict[str, str]] = (None, {})


def _environment() -> dict[str, str]:
    global _env  # noqa: PLW0603 - a cache
    raw = getattr(os.environ, "_data", None)
    if raw is None or raw != _env[0]:
        # Decoding it takes longer than all the rest of a short call.
        _env = (None if raw is None else dict(raw), dict(os.environ))
    return _env[1]


def _filters() -> bytes:
    try:
        # Without categories of the main script, which workers cannot import.
        known = [f for f in warnings.filters if f[2].__module__ != "__main__"]
        return dumps(known, 5)
    except Exception:  # noqa: BLE001 - whatever a filter's category does when pickled
        return b""


def _digits() -> int | None:
    get = getattr(sys, "get_int_max_str_digits", None)
    digits: int | None = get() if get is not None else None
    return None if digits == getattr(sys.int_info, "default_max_str_digits", None) else digits


def _logging() -> tuple[int, dict[str, int]] | None:
    """The level below which all logging is off, and the level of each logger that has its own."""
    logging = sys.modules.get("logging")
    if logging is None:
        return None
    try:
        manager = logging.root.manager
        levels = {"": logging.root.level}
        for name, logger in list(manager.loggerDict.items()):
            level = getattr(logger, "level", 0)  # there are placeholders among them
            if level:
                levels[name] = level
        off = int(manager.disable)
    except Exception:  # noqa: BLE001 - loggers may be anything that somebody put there
        return None
    return None if levels == {"": logging.WARNING} and not off else (off, levels)


def _decimal() -> tuple[Any, ...] | None:
    decimal = sys.modules.get("decimal")
    if decimal is None:
        return None
    now, usual = (_arithmetic(c) for c in (decimal.getcontext(), decimal.DefaultContext))
    return None if now == usual else now


def _arithmetic(c: Any) -> tuple[Any, ...]:
    traps = tuple(signal for signal, on in c.traps.items() if on)
    return c.prec, c.rounding, c.Emin, c.Emax, c.capitals, c.clamp, traps


def _numpy() -> dict[str, str] | None:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    try:
        errors: dict[str, str] = numpy.geterr()
    except Exception:  # noqa: BLE001 - it may be in the middle of its import
        return None
    return None if errors == NUMPY_ERRORS else errors


#: What NumPy does about floating-point errors unless told otherwise.
NUMPY_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


def _options() -> dict[str, Any] | None:
    options = sys.modules.get("parallax._options")
    if options is None:
        return None
    return {k: v for k, v in options.defaults().items() if k in OPTIONS} or None


def _relation() -> tuple[bytes | None, tuple[int, int] | None] | None:
    """The key that proxies of managers need, and where the resource tracker listens."""
    modules = sys.modules
    key = tracker = None
    if "multiprocessing.managers" in modules:
        key = bytes(modules["multiprocessing.process"].current_process().authkey)
    if "multiprocessing.resource_tracker" in modules:
        fd = modules["multiprocessing.resource_tracker"]._resource_tracker._fd
        tracker = None if fd is None else (os.getpid(), fd)
    return None if key is None and tracker is None else (key, tracker)


class Surroundings:
    """A worker's side: takes over what was captured."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}
        self._native: tuple[str | None, ...] = variables(os.environ)

    def apply(self, context: dict[str, Any]) -> None:
        """Take over captured surroundings.

        Args:
            context: the decoded result of ``capture``, or of ``kinship``.
        """
        if context.keys() == {"relation"}:
            _relate(context["relation"], None)
            return
        last, self._last = self._last, context
        place = Place(*context["place"])
        settle(place)
        sys.path[:] = context["path"]
        sys.argv[:] = context["argv"]
        if context["cwd"] is not None:
            try:
                os.chdir(context["cwd"])
            except OSError:
                pass
        # Not place.cores: the parent has looked at the machine, which takes a millisecond.
        self._environment(context["env"], place.budget or place.cores)
        _filter(context["filters"])
        _limits(context)
        for name, change in (
            ("logging", _log),
            ("decimal", _calculate),
            ("numpy", _floats),
            ("options", _defaults),
            ("relation", _relate),
        ):
            if context[name] != last.get(name):
                change(context[name], last.get(name))

    def _environment(self, given: dict[str, str], cores: int) -> None:
        before = os.environ.get("TZ")
        # The program's own variables win.
        env = {**dict.fromkeys(NATIVE, str(cores)), **given}
        for name in set(os.environ) - set(env):
            del os.environ[name]
        for name, value in env.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        if os.environ.get("TZ") != before and hasattr(time, "tzset"):
            time.tzset()
        native = variables(os.environ)
        if native != self._native:
            self._native = native
            limit_loaded(os.environ)


def _filter(encoded: bytes) -> None:
    try:
        filters = loads(encoded) if encoded else None
    except Exception:  # noqa: BLE001 - a category in a module that cannot be imported here
        return
    if filters is not None:
        warnings.resetwarnings()  # for its other effect: what was shown once may show again
        warnings.filters[:] = filters  # type: ignore[index]


def _limits(context: dict[str, Any]) -> None:
    if context["recursion"] != sys.getrecursionlimit():
        sys.setrecursionlimit(context["recursion"])
    if hasattr(sys, "set_int_max_str_digits"):
        digits = context["digits"]
        sys.set_int_max_str_digits(
            sys.int_info.default_max_str_digits if digits is None else digits
        )


def _log(now: tuple[int, dict[str, int]] | None, last: tuple[int, dict[str, int]] | None) -> None:
    import logging

    off, levels = now or (0, {"": logging.WARNING})
    logging.disable(off)
    for name in (last[1] if last else {}).keys() - levels.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)


def _calculate(now: tuple[Any, ...] | None, last: tuple[Any, ...] | None) -> None:
    import decimal

    if now is None:
        decimal.setcontext(decimal.DefaultContext.copy())
        return
    prec, rounding, least, most, capitals, clamp, traps = now
    decimal.setcontext(
        decimal.Context(prec, rounding, least, most, capitals, clamp, [], list(traps))
    )


def _floats(now: dict[str, str] | None, last: dict[str, str] | None) -> None:
    try:
        import numpy as np
    except ImportError:
        return
    np.seterr(**(now or NUMPY_ERRORS))  # type: ignore[arg-type]


def _relate(
    now: tuple[bytes | None, tuple[int, int] | None] | None,
    last: tuple[bytes | None, tuple[int, int] | None] | None,
) -> None:
    if now is None:
        return
    key, tracker = now
    if key is not None:
        from multiprocessing import process

        process.current_process().authkey = key
    if tracker is not None and (last is None or last[1] != tracker):
        from multiprocessing import resource_tracker

        # A tracker of our own would remove what the program has shared by name, as soon as this
        # worker leaves. The standard library hands the descriptor down in the same way.
        try:
            fd = os.open(f"/proc/{tracker[0]}/fd/{tracker[1]}", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:  # no Linux, or the parent is going
            return
        ours = resource_tracker._resource_tracker
        before, ours._fd = ours._fd, fd  # type: ignore[attr-defined]
        if before is not None and last is not None:
            os.close(before)


def _defaults(now: dict[str, Any] | None, last: dict[str, Any] | None) -> None:
    from ... import _options

    _options.adopt(now or {})
