"""Which output of workers this process must receive: standard streams, log records, warnings.

Guarantees: looking costs microseconds, imports nothing and never raises. Output that reaches its
destination without this process, by the descriptors that workers share with it, is not wanted here.
"""

from __future__ import annotations

import io
import os
import sys
import warnings

from parallax._core.light_stdlib import Any

#: The modules of the functions that show a warning, as long as nobody has replaced them.
_WARNING_MODULES = frozenset({"warnings", "_py_warnings"})


def wanted_output(*, root_only: bool = False) -> tuple[bool, ...] | None:
    """Which output, errors, records and warnings must come here; None if none of them."""
    out, err = not _is_plain(sys.stdout, 1), not _is_plain(sys.stderr, 2)
    show = getattr(warnings, "_showwarnmsg_impl", None), warnings.showwarning
    # Recorded, or handed to logging. What this process shows it shows once, and not per worker.
    shown = err or not all(getattr(f, "__module__", None) in _WARNING_MODULES for f in show)
    found = out, err, _has_log_handlers(root_only=root_only), shown
    return found if any(found) else None


def modules_for_output() -> list[str]:
    """The modules of ours that workers which start now will load, to send what is wanted here."""
    wanted = wanted_output(root_only=True)
    if wanted is None:
        return []
    package = "parallax._backends.processes"
    modules = [f"{package}.worker.output_sender"]
    return [*modules, f"{package}.common.log_records"] if wanted[2] else modules


def _is_plain(stream: Any, number: int) -> bool:
    """Whether what is written to a stream goes where that descriptor leads, and nowhere else."""
    if stream is None:
        return True
    write = getattr(type(stream), "write", None)
    if write is not io.TextIOWrapper.write or "write" in getattr(stream, "__dict__", ()):
        return False
    try:
        buffer = stream.buffer
        if type(getattr(buffer, "raw", buffer)).__module__ != "_io":
            return False  # the stream of a worker, for example
        fd = stream.fileno()
        return fd == number or os.path.sameopenfile(fd, number)
    except (AttributeError, OSError, ValueError):
        return False


def _has_log_handlers(*, root_only: bool) -> bool:
    logging = sys.modules.get("logging")
    if logging is None:
        return False
    try:
        if logging.root.handlers or root_only:
            return bool(logging.root.handlers)
        return any(
            not isinstance(handler, logging.NullHandler)
            for logger in list(logging.root.manager.loggerDict.values())
            for handler in getattr(logger, "handlers", ())
        )
    except Exception:  # noqa: BLE001 - loggers may be anything that somebody put there
        return False
