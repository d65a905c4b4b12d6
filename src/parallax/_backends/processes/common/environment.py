"""What surrounds an item besides its arguments: captured in the parent, taken over by workers.

Purpose: an item finds in a worker what it would find in the caller's own thread: folder,
environment, search path, warnings filters, logging levels, limits of the interpreter, arithmetic
settings, defaults of nested calls, its place among other parallel work, and whether what it prints,
logs and warns goes to the caller's process.
Guarantees: capturing costs tens of microseconds and never raises; a setting that its owner has
taken back is taken back in warm workers too.
"""

from __future__ import annotations

import io
import os
import sys
import time
import warnings

from parallax._backends.processes.common.native_threads import NATIVE, limit_loaded, variables
from parallax._core.light_stdlib import dumps, loads
from parallax._core.nesting import Place, settle

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Surroundings", "capture", "heard", "kinship"]

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
        "heard": heard(),
    }
    global _captured  # noqa: PLW0603 - a cache
    if values != _captured[0]:
        _captured = (values, dumps(values, 5))
    return _captured[1]


def kinship() -> bytes | None:
    """What may change while an executor lives: what makes workers relatives, and who hears them.

    Returns:
        Something for ``Surroundings.apply``; None as long as it does not matter here.
    """
    global _kinship  # noqa: PLW0603 - a cache
    heard_of, levels = _heard_lately()
    kin = _relation(), heard_of, levels
    if kin == _kinship[0]:
        return _kinship[1]
    told = {"relation": kin[0], "heard": heard_of, "logging": levels}
    _kinship = kin, dumps(told, 5)
    return _kinship[1]


#: What was told last, and how.
_kinship: tuple[Any, bytes | None] = ((None, None, None), None)


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
    options = sys.modules.get("parallax._core.options")
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


def heard(*, brief: bool = False) -> tuple[bool, ...] | None:
    """What workers must send here, because it would not get where it should by itself.

    Args:
        brief: look at the root logger only, not at all of them.

    Returns:
        For standard output, standard error, log records and warnings; None for none of them.
    """
    out, err = not _plain(sys.stdout, 1), not _plain(sys.stderr, 2)
    show = getattr(warnings, "_showwarnmsg_impl", None), warnings.showwarning
    # Recorded, or handed to logging. What this process shows it shows once, and not per worker.
    shown = err or not all(getattr(f, "__module__", None) in WARNINGS for f in show)
    found = out, err, _handled(brief=brief), shown
    return found if any(found) else None


def modules_to_be_heard() -> list[str]:
    """What workers started now will load of ours, because this process hears them."""
    wanted = heard(brief=True)
    if wanted is None:
        return []
    package = __name__.rpartition(".")[0]
    return [f"{package}.voices", *([f"{package}.records"] if wanted[2] else [])]


def _heard_lately() -> tuple[Any, Any]:
    """As ``heard``, and levels of loggers; looked into only when something of the root changed."""
    global _ears  # noqa: PLW0603 - a cache
    out, err, logging = sys.stdout, sys.stderr, sys.modules.get("logging")
    log: Any = logging
    if logging is not None:
        log = bool(logging.root.handlers), logging.root.level, logging.root.manager.disable
    show = warnings.showwarning, getattr(warnings, "_showwarnmsg_impl", None)
    # By number: an open file must not live on because it was standard output once.
    seen = id(out), type(out), id(err), type(err), *show, log
    if seen != _ears[0]:
        _ears = seen, (heard(brief=True), _logging())
    return _ears[1]


#: What was seen last, and what came of it.
_ears: tuple[Any, tuple[Any, Any]] = (None, (None, None))


#: Where the functions are at home that show a warning if nobody has replaced them.
WARNINGS = frozenset({"warnings", "_py_warnings"})


def _plain(stream: Any, number: int) -> bool:
    """Whether what is written to a stream goes where that descriptor leads, and nowhere else."""
    if stream is None:
        return True
    write = getattr(type(stream), "write", None)
    if write is not io.TextIOWrapper.write or "write" in getattr(stream, "__dict__", ()):
        return False
    try:
        buffer = stream.buffer
        if type(getattr(buffer, "raw", buffer)).__module__ != "_io":
            return False  # that of a worker, for one
        fd = stream.fileno()
        return fd == number or os.path.sameopenfile(fd, number)
    except (AttributeError, OSError, ValueError):
        return False


def _handled(*, brief: bool) -> bool:
    """Whether there is a handler for log records."""
    logging = sys.modules.get("logging")
    if logging is None:
        return False
    try:
        if logging.root.handlers or brief:
            return bool(logging.root.handlers)
        return any(
            not isinstance(handler, logging.NullHandler)
            for logger in list(logging.root.manager.loggerDict.values())
            for handler in getattr(logger, "handlers", ())
        )
    except Exception:  # noqa: BLE001 - as above
        return False


class Surroundings:
    """A worker's side: takes over what was captured."""

    def __init__(self, speak: Callable[[tuple[bool, ...]], None]) -> None:
        """Prepare.

        Args:
            speak: sends the parent what ``heard`` says.
        """
        self._speak = speak
        self._last: dict[str, Any] = {}
        #: the environment that items were to find.
        self._raw: dict[Any, Any] | None = None
        self._native: tuple[str | None, ...] = variables(os.environ)

    def apply(self, context: dict[str, Any], *, settled: bool = False) -> None:
        """Take over captured surroundings.

        Args:
            context: the decoded result of ``capture``, or of ``kinship``.
            settled: an initializer has run, which may have set levels of loggers.
        """
        if context["heard"] is not None:
            self._speak(context["heard"])
        if "place" not in context:
            _relate(context["relation"], None)
            if not settled and context["logging"] != self._last.get("logging"):
                _log(context["logging"], self._last.get("logging"))
                self._last["logging"] = context["logging"]
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

    def renew(self) -> None:
        """Take back what the items of earlier runs have done to folder, environment and paths."""
        last = self._last
        if not last:
            return
        sys.path[:] = last["path"]
        sys.argv[:] = last["argv"]
        try:
            moved = os.getcwd() != last["cwd"]
        except OSError:  # it was removed
            moved = True
        if moved and last["cwd"] is not None:
            try:
                os.chdir(last["cwd"])
            except OSError:
                pass
        if self._raw is not None and getattr(os.environ, "_data", None) != self._raw:
            place = Place(*last["place"])
            self._environment(last["env"], place.budget or place.cores)

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
        raw = getattr(os.environ, "_data", None)
        self._raw = None if raw is None else dict(raw)


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
    from parallax._core.options import adopt

    adopt(now or {})
