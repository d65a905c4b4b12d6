"""The errors of calls in worker processes, as programs expect them of the standard library's pool.

Guarantees: ``except`` clauses that are written for the standard library's pool catch each of them.
Assumes: imported before the interpreter shuts down, when ``concurrent.futures.process`` cannot be
imported any more.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback

from parallax._backends.contract import WorkerEnd
from parallax._core import errors


class LostCallError(errors.WorkerDiedError, BrokenProcessPool):
    """A worker process ended while it ran a call."""

    def _message(self) -> str:
        text = f"worker process {self.pid} ended while running this call: {self._reason()}"
        return f"{text}. Other calls are not affected; submit it again to run it again"


class UnreadableCallError(errors.UnreadableError, BrokenProcessPool):
    """The arguments or the result of a call cannot be unpickled where they were received."""


def lost_call(end: WorkerEnd, attempts: int) -> BaseException:
    """The error of a call whose worker process ended while it ran the call."""
    return LostCallError(attempts=attempts, **end._asdict())


def broken_pool(cause: BaseException) -> BaseException:
    """The error of all calls when no worker can be started, or an initializer has failed."""
    text = str(cause)
    if not isinstance(cause, BrokenExecutor):  # a WorkerStartError is one
        text = f"the initializer raised {type(cause).__name__}: {cause}"
    error = BrokenProcessPool(text)
    error.__cause__ = cause
    return error


def standard_error(error: BaseException) -> BaseException:
    """The error of a call, converted to a type that the standard library's pool raises."""
    if type(error) is errors.UnreadableError:
        unreadable = error
        error = UnreadableCallError(error.what, error.index, error.path, error.reason)
        errors.copy_chain(unreadable, error)
    *_, first = causes = errors.causes_of(error)
    if type(first) is errors.RemoteTraceback:
        errors.set_cause(causes[-2], _RemoteTraceback(str(first)))  # type: ignore[arg-type]
    return error
