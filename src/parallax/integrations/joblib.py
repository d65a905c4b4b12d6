"""The joblib backend "parallax": what scikit-learn and others run by joblib is measured and routed.

    import joblib
    from parallax.integrations.joblib import register

    register()
    with joblib.parallel_config(backend="parallax"):
        cross_val_score(model, X, y, n_jobs=-1)

Work that lets go of the GIL runs in threads, other work in worker processes, to which arrays go
through shared memory. The workers stay for later calls, and leave when they are idle for a minute.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from parallax import BackendMissingError, Executor, available_cores, nesting_depth

try:
    import joblib
    from joblib._parallel_backends import (
        AutoBatchingMixin,
        FallbackToBackend,
        ParallelBackendBase,
        SequentialBackend,
    )
except ImportError:
    raise BackendMissingError("parallax.integrations.joblib", "joblib") from None

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

#: Seconds that idle workers of a shared executor stay.
IDLE_TIMEOUT_S = 60.0


def register(*, default: bool = False) -> None:
    """Make joblib know the backend "parallax".

    Args:
        default: make it joblib's default, too: every ``joblib.Parallel`` uses it then that names
            no other one.
    """
    joblib.register_parallel_backend("parallax", _ParallaxBackend, make_default=default)


#: One for all calls with the same number of workers, backend and depth: its workers are warm, it
#: knows what it has measured. Nested calls have others than those around them, which wait for them.
_executors: dict[tuple[int, str, int], Executor] = {}


def close() -> None:
    """End the workers that stay for later calls, now."""
    while _executors:
        _, executor = _executors.popitem()
        executor.shutdown(cancel_futures=True)


class _ParallaxBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs the batches of ``joblib.Parallel`` by an ``Executor``.

    ``require="sharedmem"`` runs them in threads; ``prefer`` changes nothing, because what fits is
    measured. ``inner_max_num_threads`` needs threadpoolctl.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    supports_sharedmem = True
    uses_threads = False

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return the number of workers for an ``n_jobs``: -1 for all cores that are to be had."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(available_cores() + 1 + n_jobs, 1)

    def configure(
        self,
        n_jobs: int | None = 1,
        parallel: Any = None,
        prefer: str | None = None,  # noqa: ARG002 - it is measured
        require: str | None = None,
        **given: Any,
    ) -> int:
        """Get an executor; returns the number of its workers.

        Of ``given``, ``initializer`` and ``initargs`` count; arrays need no settings.
        """
        workers = self.effective_n_jobs(n_jobs)
        if workers == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        kind: Any = "threads" if require == "sharedmem" else "auto"
        key = workers, kind, nesting_depth()
        given = {**self.backend_kwargs, **given}
        if (initializer := given.get("initializer")) is not None:
            initargs = tuple(given.get("initargs", ()))
            self._pool = Executor(workers, backend=kind, initializer=initializer, initargs=initargs)
        elif key in _executors:
            self._pool = _executors[key]
        else:
            made = Executor(workers, backend=kind, idle_timeout=IDLE_TIMEOUT_S)
            self._pool = _executors.setdefault(key, made)  # another thread may have been faster
        self._futures: set[Future[Any]] = set()
        return workers

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Future[Any]], Any] | None = None
    ) -> Future[Any]:
        """Have a batch run; ``callback`` gets its future when it has ended."""
        if self.inner_max_num_threads is None:
            future = self._pool.submit(_Batch(func))
        else:
            future = self._pool.submit(_limited, self.inner_max_num_threads, _Batch(func))
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return what a batch has returned, or raise what it raised."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: ARG002
        """End the batches of this call, running ones with their worker processes."""
        for future in tuple(self._futures):
            with contextlib.suppress(KeyError):
                self._pool.cancel(future)
        self._futures.clear()

    def terminate(self) -> None:
        """The call is over; workers stay for the next one."""
        self.reset_batch_stats()


class _Batch:
    """A batch; what it calls may name the backend where it arrives as well."""

    def __init__(self, func: Callable[[], Any]) -> None:
        self.func = func

    def __call__(self) -> Any:
        return self.func()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "parallax" not in joblib.parallel.BACKENDS:
            register()


def _limited(threads: int, func: Callable[[], Any]) -> Any:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads):
        return func()
