"""Times in which a thread has to let go of the GIL sooner than usual, unseen by the program.

A thread that lets go of the GIL often is never made to, and always seen in the functions that do
so. Made to let go after 0.1 ms it shows the others, too.
"""

from __future__ import annotations

import sys

from parallax._core.light_stdlib import TYPE_CHECKING

if TYPE_CHECKING:
    from parallax._profiling.gil_sampler import GilSampler

#: Seconds after which a thread has to let go of the GIL. With shorter ones threads would take turns
#: more often than they do in the program.
_SHORT_TURN_S = 0.0001


class ShortTurns:
    """The switch interval of a program that a sampler watches; one short turn at a time."""

    def __init__(self, sampler: GilSampler) -> None:
        self._sampler = sampler
        self._get, self._set = sys.getswitchinterval, sys.setswitchinterval
        self._usual = 0.0  # the program's switch interval, while a short turn goes on

    def begin(self) -> None:
        self._usual = self._get()
        self._change(_SHORT_TURN_S)

    def end(self) -> bool:
        """Back to the program's switch interval; tells whether there was a short turn."""
        usual, self._usual = self._usual, 0.0
        if usual:
            self._change(usual)
        return usual > 0.0

    def hide(self) -> None:
        """A program that asks for the switch interval, and sets it again, is told the usual one."""
        sys.getswitchinterval = lambda: self._usual or self._get()

        def setswitchinterval(interval: float, /) -> None:
            self.end()
            self._change(interval)

        sys.setswitchinterval = setswitchinterval

    def _change(self, interval: float) -> None:
        self._set(interval)
        self._sampler.turn = self._get()
