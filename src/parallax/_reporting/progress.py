"""Progress: one tick per finished item, at any chunk size and on every backend.

Guarantees: ticks come in the thread that reads the results; a bar that parallax made is closed when
the run is over, however it ends.
"""

from __future__ import annotations

from collections.abc import Callable

from parallax._core.lazy_import import errors
from parallax._core.light_stdlib import Any, NamedTuple


class Progress(NamedTuple):
    """Where ticks of finished items go."""

    update: Callable[[int], Any]
    close: Callable[[], Any]


def make_progress(wanted: Any, total: int | None) -> Progress | None:
    """Make what ``progress=`` asks for.

    That is False, True (a tqdm bar), a tqdm-like object with ``update(n)``, a pair of rich's
    ``Progress`` and one of its tasks, or a callable that takes the number of items finished since
    its last call.
    """
    if wanted is False or wanted is None:
        return None
    if wanted is True:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            raise errors.BackendMissingError("progress=True", "tqdm") from None
        bar = tqdm(total=total, unit="item")
        return Progress(bar.update, bar.close)
    if isinstance(wanted, tuple) and len(wanted) == 2 and hasattr(wanted[0], "advance"):
        bar, task = wanted
        if total is not None and any(each.id == task and each.total is None for each in bar.tasks):
            bar.update(task, total=total)
        return Progress(lambda finished: bar.advance(task, finished), lambda: None)
    update = getattr(wanted, "update", None)
    if callable(update) and not isinstance(wanted, type):
        if total is not None and getattr(wanted, "total", 0) is None:
            wanted.total = total
        # A bar that the caller made is the caller's to close; it only is brought up to date.
        return Progress(update, getattr(wanted, "refresh", lambda: None))
    if callable(wanted):
        return Progress(wanted, lambda: None)
    raise TypeError(
        f"progress must be True, False, a tqdm object, a pair of rich's Progress and a task, or a "
        f"callable that takes the number of items just finished, not {wanted!r}"
    )
