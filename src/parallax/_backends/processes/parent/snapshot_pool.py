"""Pools of one run or executor whose workers are forks of this program; see ``start.snapshot``."""

from __future__ import annotations

from collections.abc import Iterable

from parallax._backends.contract import Call
from parallax._backends.processes.common.heritage import Heritage
from parallax._backends.processes.parent.known_objects import known_objects
from parallax._backends.processes.parent.pool import Pool
from parallax._backends.processes.parent.warm_pool import keep_registered
from parallax._backends.processes.parent.worker_client import WorkerClient
from parallax._backends.processes.start import fork_safety
from parallax._backends.processes.start.snapshot import fork_template
from parallax._backends.processes.start.started_process import Inherited
from parallax._backends.processes.start.starter import Starter
from parallax._backends.processes.start.zygote_client import ZygoteClient
from parallax._core import fork_pauses
from parallax._core.light_stdlib import Any
from parallax._core.nesting import Place

#: Seconds until forks of a template take work.
TEMPLATE_FORK_S = 0.005


class SnapshotPool(Pool):
    """Has workers for the one run or executor that it was made for, and ends with it."""

    imports = False

    def __init__(self, template: ZygoteClient, inherits: Inherited) -> None:
        super().__init__(starter=Starter("auto", template, inherits))
        self._heritage = inherits.heritage
        keep_registered(self, alive=True)

    def expected_start(self, *_: object) -> float:
        """Seconds until workers, which import nothing, would take work."""
        return TEMPLATE_FORK_S

    def prepare(self, modules: Iterable[str]) -> None:
        """Nothing: a fork has imported what the program has."""

    def finish(self, timeout: float) -> None:  # noqa: ARG002 - it takes no longer than that
        """End the workers and the template; returns when they are gone."""
        keep_registered(self, alive=False)
        self.shutdown()
        if self._heritage is not None:
            self._heritage.clear()

    def _attend(self, *workers: WorkerClient) -> None:
        """Look after the workers of an executor, whose thread is in the way of forks anyway."""
        if self._heritage is None:
            super()._attend(*workers)


def fork_pool(
    call: Call, key: int, place: Place, context: bytes, inputs: tuple[Iterable[Any], ...]
) -> SnapshotPool | str:
    """Fork this process for one call, in the calling thread; or why that is impossible."""
    heritage = Heritage(inputs, [each for each, _ in known_objects(call.fn)])
    made = fork_template({key: (call.fn, call.star, call.stop, [], heritage)}, place)
    if isinstance(made, str):
        return made
    return SnapshotPool(ZygoteClient(made), Inherited(context, (key,), heritage))


def fork_executor_pool(place: Place, context: bytes) -> SnapshotPool | str:
    """The same for an executor, whose workers get what they run like others.

    Its callables are not known, so nothing may be open that they would find closed.
    """
    made = (
        fork_safety.unsafe_reason(fork_pauses.running())  # no waiting for threads that stay
        or fork_safety.open_files_reason()
        or fork_template({}, place)
    )
    if isinstance(made, str):
        return made
    return SnapshotPool(ZygoteClient(made), Inherited(context))
