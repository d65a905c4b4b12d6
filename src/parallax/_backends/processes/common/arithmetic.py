"""Settings that arithmetic depends on: those of ``decimal``, and NumPy's about errors.

Guarantees: reading them never raises and imports nothing.
"""

from __future__ import annotations

import sys
from contextvars import copy_context
from operator import attrgetter

from parallax._core.contexts import settings_variable
from parallax._core.light_stdlib import Any, TypeAlias

#: The settings of both; None for the usual ones.
Arithmetic: TypeAlias = "tuple[tuple[Any, ...] | None, dict[str, str] | None]"

#: What NumPy does about floating-point errors unless told otherwise.
NUMPY_ERROR_DEFAULTS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


def arithmetic() -> Arithmetic:
    """The settings of the running code; quick as long as it has never asked for any."""
    context = copy_context()
    decimal, numpy = (
        settings_variable("decimal", "getcontext"),
        settings_variable("numpy", "seterr"),
    )
    return (
        decimal_settings() if decimal is not None and decimal in context else None,
        numpy_settings() if numpy is not None and numpy in context else None,
    )


def set_arithmetic(settings: Arithmetic) -> None:
    decimal, numpy = settings
    if decimal is not None or "decimal" in sys.modules:
        set_decimal(decimal)
    if numpy is not None or "numpy" in sys.modules:
        set_numpy(numpy)


def decimal_settings() -> tuple[Any, ...] | None:
    decimal = sys.modules.get("decimal")
    if decimal is None:
        return None
    now, usual = decimal.getcontext(), decimal.DefaultContext
    fields = _fields(now)
    if fields == _fields(usual) and now.traps == usual.traps:  # to list them takes 10 us
        return None
    return *fields, tuple(signal for signal, on in now.traps.items() if on)


_fields = attrgetter("prec", "rounding", "Emin", "Emax", "capitals", "clamp")


def numpy_settings() -> dict[str, str] | None:
    """What NumPy does about errors of the running code; None if it is the usual."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    try:
        errors: dict[str, str] = numpy.geterr()
    except Exception:  # noqa: BLE001 - it may be in the middle of its import
        return None
    return None if errors == NUMPY_ERROR_DEFAULTS else errors


def set_decimal(now: tuple[Any, ...] | None, _: object = None) -> None:
    import decimal

    if now is None:
        decimal.setcontext(decimal.DefaultContext.copy())
        return
    prec, rounding, least, most, capitals, clamp, traps = now
    decimal.setcontext(
        decimal.Context(prec, rounding, least, most, capitals, clamp, [], list(traps))
    )


def set_numpy(now: dict[str, str] | None, _: object = None) -> None:
    try:
        import numpy as np
    except ImportError:
        return
    np.seterr(**(now or NUMPY_ERROR_DEFAULTS))  # type: ignore[arg-type]
