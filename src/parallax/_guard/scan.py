"""One analysis of one callable: a call with sample arguments, followed through its bytecode."""

from __future__ import annotations

import types

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.calls import Calls
from parallax._guard.frame import AbstractFrame
from parallax._guard.lookup import is_a, is_own_class, is_own_function, mro_of
from parallax._guard.opcodes_calls import CALL_OPERATIONS
from parallax._guard.opcodes_control import CONTROL_OPERATIONS
from parallax._guard.opcodes_values import VALUE_OPERATIONS
from parallax._guard.values import Fresh, Func, Outer, Value, exactly
from parallax._transport.main_module import MAIN_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar


def _driver(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return fn(*args)


class Scan(Calls):
    """The analysis of a callable; afterwards, `events` and `trail` hold what was found."""

    operations: ClassVar = {
        name: operation
        for names, operation in (VALUE_OPERATIONS | CONTROL_OPERATIONS | CALL_OPERATIONS).items()
        for name in names.split()
    }

    def __init__(self, fn: Callable[..., Any], sample: tuple[Any, ...], steps: int) -> None:
        super().__init__(fn, steps)
        self._items = [
            Outer(self.trail, None, "arg", k, value, "the item") for k, value in enumerate(sample)
        ]

    def run(self) -> Value:
        """Analyse `fn(*sample)`; what the callable returns."""
        args = Fresh()
        for k, node in enumerate(self._items):
            # What is computed from the item depends on it, even where the item is a plain number.
            args.fields["item", k] = Value(node.value().origins, frozenset((node,)))
        builtins = Outer([], None, "import", "builtins", {}, "")
        names = {"fn": self.root.value(), "args": exactly(args)}
        frame = AbstractFrame(self.budget, Func(_driver.__code__, builtins, {}), names, None)
        return frame.run(self, self.operations)

    def definitions(self) -> set[tuple[str, str]]:
        """The program's own functions and classes that were met, with the bases of these."""
        found: set[tuple[str, str]] = set()
        for node in self.trail:
            obj = node.obj
            met = (obj,) if is_own_function(obj) else mro_of(obj if is_a(obj, type) else type(obj))
            for each in met:
                if type(each) is types.FunctionType or is_own_class(each):
                    names = each.__module__, each.__qualname__
                    if names[0] not in MAIN_NAMES and "<" not in names[1]:
                        found.add(names)
        return found
