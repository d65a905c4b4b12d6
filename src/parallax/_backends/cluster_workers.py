"""Workers of a cluster, behind an executor that can keep an object where its workers are.

Guarantees: the callable is encoded once, and a large one handed over once; what cannot be encoded
or decoded costs its item, or the callable's run; other versions there end the run and are named.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Executor

from parallax._backends.capture import run_chunk
from parallax._backends.contract import CrewSetup, Refused
from parallax._backends.executor_workers import ExternalCrew, Parcel
from parallax._backends.result_encoding import encode_result
from parallax._core.chunks import Chunk
from parallax._core.errors import SerializationError, set_cause
from parallax._core.light_stdlib import Any, NamedTuple
from parallax._core.nesting import Place, enter
from parallax._transport import codec
from parallax._transport.pickle_diagnosis import find_unpicklable

#: Bytes of a callable from which it is handed over on its own. Smaller costs a short run a round
#: trip to all workers, larger sends it through the scheduler with each chunk.
MIN_HANDED_BYTES = 64 << 10

#: Workers of a cluster are sent half as many chunks more than they run, and two at least: the next
#: one travels meanwhile, and the cluster gives it to whoever is free.
AHEAD = 2


class Cluster(Executor):
    """What an engine of several machines provides as a backend, besides ``submit``."""

    #: the name in reports.
    parallax_name = "cluster"
    #: calls that can run at a time; None if there are no workers yet.
    _max_workers: int | None = None
    #: holds the running thread if that is inside of one of the cluster's calls.
    _threads: Collection[threading.Thread] = ()

    def share(self, obj: Any) -> Any:
        """Keep an object where calls run; those that get what is returned as argument get it."""
        return obj


class Unread(NamedTuple):
    """What of a chunk could not be decoded in its worker, and why."""

    what: str
    error: str


#: Evaluated where parallax may be missing: Python's version, and that of parallax or None.
VERSIONS = (
    "(__import__('sys').version, __import__('importlib.util').util.find_spec('parallax')"
    " and __import__('parallax').__version__)"
)


def versions(python: str = sys.version, package: str | None = "") -> str:
    """What has to be the same in the program and in all workers; by default those of here."""
    package = sys.modules["parallax"].__version__ if package == "" else package
    minor = ".".join(python.split(".")[:2])
    return f"Python {minor} and {f'parallax {package}' if package else 'no parallax'}"


def skew(where: str, found: str, expected: str) -> RuntimeError:
    return RuntimeError(
        f"{where} has {found}, and this program {expected}. Objects travel only between the same "
        f"versions: install them there, or run the program with those (the package of parallax is "
        f"called parallax-executor)"
    )


def run_sent(
    expected: str, call: Parcel, items: Parcel, place: tuple[Any, ...], star: bool, stop: bool
) -> Any:
    """Run a chunk; in a worker of the cluster."""
    if expected != versions():
        raise skew("a worker of the cluster", versions(), expected)
    before = enter(Place(*place))
    what = "callable"
    try:
        fn = call.value
        what = "item"
        arrived = items.value
        what = ""
        result = run_chunk(fn, arrived, star=star, stop=stop)
    except BaseException as error:
        if not what:
            raise
        return Unread(what, f"{type(error).__name__}: {error}, in a worker of the cluster")
    finally:
        enter(before)
    return Parcel(*encode_result(result)[:2])


class ClusterCrew(ExternalCrew):
    _executor: Cluster
    #: Seconds of work per chunk. Less lets the way to a worker and the scheduler's work show.
    chunk_s = 0.1

    def __init__(self, setup: CrewSetup, executor: Cluster) -> None:
        super().__init__(setup, executor)
        self._shared: Any = None

    def open(self, count: int) -> None:
        if self._shared is None:
            self._shared = self._hand_over()
        super().open(count + max(AHEAD, count // 2))

    def _hand_over(self) -> Any:
        try:
            parcel = Parcel(*codec.encode(self._call.fn)[:2])
        except BaseException as error:
            stuck = SerializationError(
                "callable", None, *find_unpicklable(self._call.fn, "callable")
            )
            set_cause(stuck, error)
            raise stuck from error
        large = parcel.__sizeof__() >= MIN_HANDED_BYTES
        return self._executor.share(parcel) if large else parcel

    def send(self, worker: int, chunk: Chunk, items: Sequence[Any]) -> None:
        listed = list(items)
        try:
            parcel = Parcel(*codec.encode(listed)[:2])
        except BaseException as error:  # noqa: BLE001 - any __reduce__ may raise anything
            only = listed[0] if len(listed) == 1 else listed
            path, reason = find_unpicklable(only, "item")
            self._report(Refused(worker, chunk.id, "item", path, reason, error))
            return
        _, star, stop = self._call
        place = self._place.packed()
        call = run_sent, versions(), self._shared, parcel, place, star, stop
        self._submit(worker, chunk, None, *call, sent=parcel.__sizeof__())

    def _arrived(self, worker: int, chunk: Chunk, result: Any, sent: int) -> None:
        if type(result) is Unread:
            self._report(Refused(worker, chunk.id, result.what, result.what, result.error))
        else:
            super()._arrived(worker, chunk, result, sent)
