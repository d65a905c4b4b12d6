"""The workers that a run lost: how each ended, and the error of an item that ended its worker."""

from __future__ import annotations

from parallax._backends.contract import WorkerEnd
from parallax._core.lazy_import import lazy_module
from parallax._core.light_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from parallax._backends.contract import Died
    from parallax._core import errors
    from parallax._scheduling.events import Blame
else:
    errors = lazy_module("parallax._core.errors")

#: Lost workers of which the report tells which items they had. More would fill the report.
MAX_REPORTED_LOSSES = 5


class WorkerLosses:
    """The lost workers of one run."""

    def __init__(self, item_timeout: float | None) -> None:
        self._item_timeout = item_timeout
        self._ends: dict[int, WorkerEnd] = {}
        #: workers that are ended because their items overran the time limit.
        self.overran: set[int] = set()
        self._lost: list[tuple[int | None, range]] = []  # process id, items it may have run
        #: workers that were replaced at a limit on their items or memory.
        self.recycled = 0

    @property
    def count(self) -> int:
        """Workers that died with items that they may have run."""
        return len(self._lost)

    def died(self, event: Died, indices: range) -> None:
        """A worker died; ``indices`` are those of the items that it may have run."""
        self._ends[event.worker] = event.end
        if event.began:
            self._lost.append((event.end.pid, indices))

    def error(self, blame: Blame) -> Exception:
        """The error of an item that ended its worker."""
        end = self._ends.get(blame.worker, WorkerEnd())
        if blame.worker in self.overran:
            return errors.ItemTimeoutError(blame.item, self._item_timeout, end.pid)
        return errors.WorkerDiedError(blame.item, attempts=blame.attempts, **end._asdict())

    def notes(self) -> list[str]:
        """A sentence for the report on each of the first workers lost with several items."""
        return [
            f"worker process {pid} was lost with items {indices[0]} to {indices[-1]} in flight; "
            f"they were run again one by one, also those that it had finished"
            for pid, indices in self._lost[:MAX_REPORTED_LOSSES]
            if len(indices) > 1
        ]
