"""The pool of one run whose workers are forks of this program; see ``start.snapshot``."""

from __future__ import annotations

from parallax._backends.processes.parent.pool import Pool
from parallax._backends.processes.parent.warm_pool import keep_registered
from parallax._backends.processes.start.snapshot import fork_template
from parallax._backends.processes.start.started_process import Inherited
from parallax._backends.processes.start.starter import Starter
from parallax._backends.processes.start.zygote_client import ZygoteClient
from parallax._core.light_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from parallax._backends.contract import Call
    from parallax._backends.processes.parent.worker_client import WorkerClient
    from parallax._core.nesting import Place


class SnapshotPool(Pool):
    """Lends workers to the one run that it was made for, and ends with it."""

    def __init__(self, template: ZygoteClient, inherits: Inherited) -> None:
        super().__init__(starter=Starter("auto", template, inherits))
        keep_registered(self, alive=True)

    def settle(self, timeout: float) -> None:  # noqa: ARG002 - it takes no longer than that
        """The run is over: end the workers and the template; returns when they are gone."""
        keep_registered(self, alive=False)
        self.shutdown()

    def _attend(self, *workers: WorkerClient) -> None:
        """Nothing: the run looks after its workers, and a thread would be in the way of forks."""


def fork_pool(call: Call, key: int, place: Place, context: bytes) -> SnapshotPool | str:
    """Fork this process as it is now, in the calling thread.

    Args:
        call: the callable of the run.
        key: the number of the callable in workers.
        place: the place of the items that workers run.
        context: the environment of this process, as ``capture_environment`` encodes it.

    Returns:
        The pool, or why there is none.
    """
    made = fork_template({key: (call.fn, call.star, call.stop, [])}, place)
    if isinstance(made, str):
        return made
    return SnapshotPool(ZygoteClient(made), Inherited(context, (key,)))
