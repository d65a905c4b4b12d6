"""``Executor.map`` with ``progress=``: an item counts when its result is read."""

from __future__ import annotations

from collections.abc import Sized

from parallax._core.light_stdlib import TYPE_CHECKING, Any
from parallax._executors.map_results import MapResults
from parallax._reporting.progress import make_progress

if TYPE_CHECKING:
    from parallax._backends.contract import Engine


class MapWithProgress(MapResults):
    """The results of one ``map``, told to a bar that is closed with it."""

    def __init__(
        self, engine: Engine, fn: Any, iterables: tuple[Any, ...], *, progress: Any, **rest: Any
    ) -> None:
        sized = all(isinstance(each, Sized) for each in iterables)
        total = min(map(len, iterables), default=0) if sized else None
        self._bar = make_progress(progress, total)
        super().__init__(engine, fn, iterables, **rest)

    def __next__(self) -> Any:
        try:
            value = super().__next__()
            if self._bar is not None:
                self._bar.update(1)
            return value
        finally:
            self = None  # type: ignore[assignment]  # noqa: PLW0642 - see MapResults._fill

    def _close(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()
        super()._close()
