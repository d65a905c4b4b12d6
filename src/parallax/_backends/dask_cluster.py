"""Clusters of Dask as a backend. Loaded only when one is asked for.

Guarantees: an object that is kept on the cluster is there again when the workers that held it have
died; a scheduler that goes away fails all calls at once. Nothing here starts or ends a cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future

from parallax._backends.cluster_workers import VERSIONS, Cluster, skew, versions
from parallax._core.errors import BackendMissingError
from parallax._core.light_stdlib import Any

try:
    import dask
    import distributed
except ImportError:
    raise BackendMissingError("backend='dask'", "distributed") from None

_LARGE_GRAPHS = "distributed.admin.large-graph-warning-threshold"

#: Seconds that workers have to tell their versions. Less passes over busy ones, more delays runs.
VERSIONS_S = 5.0

#: the clients that were made for addresses. Dask closes them at the end of the program.
_clients: dict[str, Any] = {}
#: the workers whose versions were looked at, by client.
_verified: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


class Dask(Cluster):
    """The workers of the cluster that a ``distributed.Client`` is connected to."""

    parallax_name = "dask"

    def __init__(self, client: Any, resources: dict[str, float] | None) -> None:
        if client.asynchronous:
            raise ValueError(
                "a distributed.Client that is asynchronous cannot be a backend; make it without "
                "asynchronous=True, outside of coroutines"
            )
        self._client, self._resources = client, resources
        self._check()
        try:
            threads = client.nthreads()
            if new := threads.keys() - _verified.setdefault(client, set()):
                with contextlib.suppress(TimeoutError):  # in an item that keeps the GIL
                    self._verify([*new])
                    _verified[client] |= new
        except (OSError, CancelledError) as error:
            raise self._gone() from error
        self._max_workers = sum(threads.values()) or None

    @property
    def _threads(self) -> Collection[threading.Thread]:  # type: ignore[override]
        try:
            distributed.get_worker()
        except ValueError:
            return ()
        return (threading.current_thread(),)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Dask):
            return NotImplemented
        return self._client is other._client and self._resources == other._resources

    def __hash__(self) -> int:
        return id(self._client)

    def share(self, obj: Any) -> Any:
        self._check()
        if self._max_workers is None:
            return _Kept(obj, self._computed(obj))
        try:
            return _Kept(obj, self._client.scatter(obj, broadcast=True, hash=False))
        except (OSError, CancelledError) as error:
            raise self._gone() from error

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self._check()
        call = functools.partial(fn, **kwargs) if kwargs else fn  # Dask has keywords of its own
        return asyncio.run_coroutine_threadsafe(
            self._run(call, args), self._client.loop.asyncio_loop
        )

    async def _run(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        client, kept = self._client, [each for each in args if type(each) is _Kept]
        while True:
            self._check()
            sent = [each.future if type(each) is _Kept else each for each in args]
            # To drop the future is to cancel the call.
            future = client.submit(fn, *sent, pure=False, resources=self._resources)
            # Cancelled itself, it would leave tasks behind that fail, which is logged.
            gathering = asyncio.ensure_future(client.gather(future, asynchronous=True))
            gathering.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            try:
                return await asyncio.shield(gathering)
            except (CancelledError, OSError) as error:
                if client.status != "running":
                    raise self._gone() from error
                lost = [each for each in kept if each.future.status != "finished"]
                if not lost or future.status == "error":
                    raise
                for each in lost:
                    each.future = self._computed(each.obj)

    def _computed(self, obj: Any) -> Any:
        """The object as a result, which the scheduler has made anew wherever it gets lost."""
        with dask.config.set({_LARGE_GRAPHS: "1 PiB"}):
            return self._client.submit(_same, obj, pure=False)

    def _verify(self, workers: list[str]) -> None:
        """Find other versions while they can be named: who cannot import parallax breaks."""
        client = self._client

        async def ask() -> dict[str, tuple[str, str | None]]:
            found = await client.run(eval, VERSIONS, workers=workers, on_error="ignore")
            there = {f"the Dask worker {at}": each for at, each in found.items()}
            there["the scheduler of Dask"] = await client.run_on_scheduler(eval, VERSIONS)
            return there

        for where, found in client.sync(ask, callback_timeout=VERSIONS_S).items():
            if (there := versions(*found)) != versions():
                raise skew(where, there, versions())

    def _check(self) -> None:
        if self._client.status != "running":
            raise self._gone()

    def _gone(self) -> ConnectionError:
        scheduler = self._client.scheduler
        where = f" at {scheduler.address}" if scheduler is not None else ""
        return ConnectionError(
            f"the scheduler of Dask{where} cannot be reached (the client is "
            f"{self._client.status!r}): it has ended, its network is down, or the client was "
            f"closed. What it had not given back is lost; results until then were handed out"
        )


class _Kept:
    """An object that calls get, and its future on the cluster."""

    def __init__(self, obj: Any, future: Any) -> None:
        self.obj, self.future = obj, future


def _same(obj: Any) -> Any:
    return obj


def connect(backend: Any, resources: dict[str, float] | None) -> Dask:
    """The cluster that "dask", an address or a client stands for."""
    if not isinstance(backend, str):
        return Dask(backend, resources)
    if backend == "dask":
        try:
            client = distributed.get_client()
        except ValueError:
            raise ValueError(
                "backend='dask' finds no cluster: make a distributed.Client first, or pass one, or "
                "the address of a scheduler (backend='tcp://host:8786')"
            ) from None
        return Dask(client, resources)
    client = _clients.get(backend)
    if client is None or client.status != "running":
        try:
            distributed.comm.resolve_address(backend)  # a client of a wrong one takes long to end
            client = distributed.Client(backend, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"no scheduler of Dask answers at {backend!r} ({error}); it may have ended, or the "
                f"address is another one"
            ) from error
        _clients[backend] = client
    return Dask(client, resources)
