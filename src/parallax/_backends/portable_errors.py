"""Exceptions of a worker, and results that cannot be sent, in a form that can be sent.

Loaded by a worker at its first failure only.
"""

from __future__ import annotations

import traceback

from parallax._core.chunks import ChunkResult, Failure
from parallax._core.errors import SerializationError
from parallax._core.own_code import is_own
from parallax._transport import codec
from parallax._transport.pickle_diagnosis import find_unpicklable


def portable(result: ChunkResult) -> ChunkResult:
    """Make every exception of a result safe to send."""
    if not result.failures:
        return result
    return result._replace(failures=tuple(_portable_failure(f) for f in result.failures))


def _portable_failure(failure: Failure) -> Failure:
    error = failure.error
    text = failure.traceback or _traceback(error)
    BaseException.with_traceback(error, None)  # whatever attributes its class allows
    try:
        reply = codec.encode_reply(error)
        # An exception whose __init__ takes other arguments than its args pickles and then fails
        # to unpickle: here that costs one item, in the parent it would cost the chunk.
        if type(codec.decode(reply.payload, reply.buffers)) is type(error):
            return Failure(failure.offset, error, text)
        reason = "it does not unpickle to its own type"
    except BaseException as problem:  # noqa: BLE001 - whatever __reduce__ or __init__ raises
        reason = "".join(traceback.format_exception_only(type(problem), problem)).strip()
    path = f"{type(error).__module__}.{type(error).__qualname__}"
    return Failure(failure.offset, SerializationError("exception", None, path, reason), text)


def isolate(result: ChunkResult) -> ChunkResult:
    """Replace values that cannot be sent by failures that say why."""
    values = list(result.values)
    failures = {f.offset: f for f in result.failures}
    for offset, value in enumerate(values):
        try:
            codec.encode_reply(value)
        except Exception:  # noqa: BLE001 - whatever __reduce__ raises
            path, reason = find_unpicklable(value, "result", reply=True)
            values[offset] = None
            failures[offset] = Failure(offset, SerializationError("result", None, path, reason))
        except BaseException as error:  # noqa: BLE001 - as if the callable had raised it
            values[offset] = None
            failures[offset] = Failure(offset, error)
    failed = tuple(f for _, f in sorted(failures.items()))
    return portable(result._replace(values=values, failures=failed))


def _traceback(error: BaseException) -> str:
    """The traceback as text, without the frames above the user's callable."""
    try:
        tb = error.__traceback__
        while tb is not None and is_own(tb.tb_frame.f_code.co_filename):
            tb = tb.tb_next
        return "".join(traceback.format_exception(type(error), error, tb))
    except Exception as problem:  # noqa: BLE001 - whatever its class does when it is formatted
        return f"no traceback of {type(error).__qualname__}: {type(problem).__name__}"
