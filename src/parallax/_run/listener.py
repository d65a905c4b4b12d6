"""What a run is told of the events of its workers."""

from __future__ import annotations

from collections.abc import Callable

from parallax._backends.contract import Died, Done, Refused, Unable
from parallax._core.chunks import ChunkResult, Route
from parallax._core.light_stdlib import NamedTuple


class Listener(NamedTuple):
    """What a run calls on events."""

    #: for each chunk that came back, with its route and the index of its first item.
    on_done: Callable[[Done, Route, int], None]
    #: for a chunk or a route that failed; True if another route for the items was found.
    on_trouble: Callable[[Refused | Unable], bool]
    #: after events were handled.
    on_turn: Callable[[], None]
    #: for a chunk, at an index, whose items have changed a worker's copies; False if they count.
    on_change: Callable[[int, ChunkResult], bool] = lambda _, __: False
    #: for an item that was taken from an input with code of its own; True if that changed state.
    on_take: Callable[[int], bool] = lambda _: False
    #: for a worker that died, with the items that it may have run.
    on_death: Callable[[Died, range], None] = lambda *_: None


#: Of a run that has ended.
NO_LISTENER = Listener(lambda *_: None, lambda _: False, lambda: None)
