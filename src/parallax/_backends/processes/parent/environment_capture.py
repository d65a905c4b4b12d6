"""The environment of an item besides its arguments, captured for workers to take over.

Purpose: an item finds in a worker what it would find in the caller's own thread: folder,
environment variables, search path, warnings filters, logging levels, limits of the interpreter,
arithmetic settings, defaults of nested calls, its place among other parallel work, and whether what
it prints, logs and warns goes to the caller's process.
Guarantees: capturing costs tens of microseconds and never raises.
"""

from __future__ import annotations

import os
import sys
import warnings

from parallax._backends.processes.common import process_identity
from parallax._backends.processes.common.arithmetic import decimal_settings, numpy_settings
from parallax._backends.processes.common.carried_settings import library_settings
from parallax._backends.processes.common.output_needs import wanted_output
from parallax._core.light_stdlib import Any, dumps
from parallax._core.nesting import Place
from parallax._core.process_rights import habits
from parallax._transport.main_module import MAIN_NAMES

#: Defaults of nested calls that travel. Not max_workers: it is a limit of the whole, of which a
#: nested call gets a part.
_TRAVELLING_OPTIONS = frozenset(
    {"chunksize", "buffersize", "timeout", "item_timeout", "on_error", "retries", "seed"}
)

_captured: tuple[dict[str, Any], bytes] = ({}, b"")

#: The live settings that were captured last, and their pickle.
_live: tuple[Any, bytes | None] = ((None, None, None), None)

#: The environment variables that were seen last, raw and decoded.
_variables_seen: tuple[Any, dict[str, str]] = (None, {})

#: The objects that decide on the wanted output when it was looked at last, and the result.
_output_seen: tuple[Any, tuple[Any, Any]] = (None, (None, None))


def capture_environment(place: Place) -> bytes:
    """The environment of the running code, encoded for ``WorkerEnvironment.apply``."""
    global _captured  # noqa: PLW0603 - a cache
    try:
        cwd: str | None = os.getcwd()
    except OSError:
        cwd = None
    values: dict[str, Any] = {
        "path": list(sys.path),
        "argv": list(getattr(sys, "argv", [])),
        "cwd": cwd,
        "env": _variables(),
        "place": place.packed(),
        "habits": habits(),
        "recursion": sys.getrecursionlimit(),
        "filters": _filters(),
        # Each of these is None as long as nobody changed it, and then costs workers no import.
        "digits": _digits(),
        "logging": _logging(),
        "decimal": decimal_settings(),
        "numpy": numpy_settings(),
        "settings": library_settings(),
        "options": _options(),
        "multiprocessing": process_identity.shared(),
        "output": wanted_output(),
    }
    found = _captured  # another thread, with other settings, may replace it at any moment
    if values != found[0]:
        _captured = found = (values, dumps(values, 5))
    return found[1]


def capture_live() -> bytes | None:
    """What a living executor's workers take over of changes; None as long as all is usual."""
    global _live  # noqa: PLW0603 - a cache
    output, levels = _output_and_levels()
    seen = process_identity.shared(), output, levels
    found = _live  # as above
    if seen != found[0]:
        settings = {"multiprocessing": seen[0], "output": output, "logging": levels}
        _live = found = seen, dumps(settings, 5)
    return found[1]


def _variables() -> dict[str, str]:
    global _variables_seen  # noqa: PLW0603 - a cache
    environ: Any = os.environ
    raw = getattr(environ, "_data", None)
    if raw is None:
        return dict(environ)
    # A copy: another thread may remove a variable between its name and its value.
    raw, found = dict(raw), _variables_seen
    if raw != found[0]:
        # Decoding it takes longer than all the rest of a short call.
        text = {environ.decodekey(k): environ.decodevalue(v) for k, v in raw.items()}
        _variables_seen = found = raw, text
    return found[1]


def _filters() -> bytes:
    try:
        # Without categories of the main script, which workers cannot import.
        known = [f for f in warnings.filters if f[2].__module__ not in MAIN_NAMES]
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


def _options() -> dict[str, Any] | None:
    options = sys.modules.get("parallax._core.options")
    if options is None:
        return None
    return {k: v for k, v in options.defaults().items() if k in _TRAVELLING_OPTIONS} or None


def _output_and_levels() -> tuple[Any, Any]:
    """``wanted_output`` and ``_logging``, found anew only when something at the root changed."""
    global _output_seen  # noqa: PLW0603 - a cache
    out, err, logging = sys.stdout, sys.stderr, sys.modules.get("logging")
    log: Any = logging
    if logging is not None:
        log = bool(logging.root.handlers), logging.root.level, logging.root.manager.disable
    show = warnings.showwarning, getattr(warnings, "_showwarnmsg_impl", None)
    # By id: an open file must not live on because it was standard output once.
    seen = id(out), type(out), id(err), type(err), *show, log
    found = _output_seen
    if seen != found[0]:
        _output_seen = found = seen, (wanted_output(root_only=True), _logging())
    return found[1]
