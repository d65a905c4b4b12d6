"""Generators of random numbers: those that all code shares, and what saves and seeds one.

Guarantees: nothing is imported.
"""

from __future__ import annotations

import sys

from parallax._core.light_stdlib import TYPE_CHECKING
from parallax._guard.lookup import (
    is_a,
)

if TYPE_CHECKING:
    from typing import Any, Final

    from parallax._core.seeds import RandomStream

# The generators that all code of a process shares: title, module, name.
SHARED_GENERATORS: Final = (
    ("random", "random", "_inst"),
    ("numpy.random", "numpy.random.mtrand", "_rand"),
    ("torch", "torch", "default_generator"),
)
SHARED_TITLES: Final = tuple(title for title, _, _ in SHARED_GENERATORS)


class PythonGenerator:
    """A `random.Random`."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator
        self._class: Any = _loaded("random", "Random")  # a subclass may have replaced the methods

    def state(self) -> Any:
        """The present state."""
        return self._class.getstate(self._generator)

    def restore(self, state: Any) -> None:
        """Take a state back."""
        self._class.setstate(self._generator, state)

    def seed(self, stream: RandomStream) -> None:
        """Begin with a stream."""
        seed = sum(word << 32 * k for k, word in enumerate(stream.words(8)))
        self._class.seed(self._generator, seed)

    def drawn(self, seeded: Any) -> bool:
        """Whether numbers were drawn since the state was `seeded`."""
        return bool(self.state() != seeded)


class NumpyGenerator(PythonGenerator):
    """A `Generator`, `RandomState` or `BitGenerator` of NumPy."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator
        # A RandomState holds a number of its own besides the state of its bit generator.
        self._legacy = hasattr(generator, "set_state")

    def _bits(self) -> Any:
        name = "_bit_generator" if self._legacy else "bit_generator"
        return getattr(self._generator, name, self._generator)

    def state(self) -> Any:
        return self._generator.get_state(legacy=False) if self._legacy else self._bits().state

    def restore(self, state: Any) -> None:
        if self._legacy:
            self._generator.set_state(state)
        else:
            self._bits().state = state

    def seed(self, stream: RandomStream) -> None:
        numpy: Any = sys.modules["numpy.random"]
        bits = self._bits()
        fresh = type(bits)(
            numpy.SeedSequence(stream.entropy, spawn_key=stream.key, pool_size=stream.pool_size)
        )
        self.restore(
            numpy.RandomState(fresh).get_state(legacy=False) if self._legacy else fresh.state
        )

    def drawn(self, seeded: Any) -> bool:
        return bool(_plain(self.state()) != _plain(seeded))


class TorchGenerator(PythonGenerator):
    """A generator of PyTorch."""

    _generator: Any

    def state(self) -> Any:
        return self._generator.get_state()

    def restore(self, state: Any) -> None:
        self._generator.set_state(state)

    def seed(self, stream: RandomStream) -> None:
        low, high = stream.words(2)
        self._generator.manual_seed(low | high << 32)

    def drawn(self, seeded: Any) -> bool:
        return not bool((self.state() == seeded).all())


_HANDLERS: Final[Any] = (
    ("random", "Random", PythonGenerator),
    ("numpy.random", "Generator", NumpyGenerator),
    ("numpy.random", "RandomState", NumpyGenerator),
    ("numpy.random", "BitGenerator", NumpyGenerator),
    ("torch", "Generator", TorchGenerator),
)


def _plain(state: Any) -> Any:
    """A state with its arrays as bytes, to be compared."""
    if type(state) is dict:
        return {name: _plain(value) for name, value in state.items()}
    return state.tobytes() if hasattr(state, "tobytes") else state


def _loaded(module: str, name: str) -> Any:
    """What a module has under a name; None if it is not loaded."""
    return getattr(sys.modules.get(module), name, None)


def shared_generators() -> list[tuple[str, Any]]:
    """Those of SHARED_GENERATORS whose libraries are loaded, with their titles."""
    found = [(title, _loaded(module, name)) for title, module, name in SHARED_GENERATORS]
    return [(title, generator) for title, generator in found if generator is not None]


def handle(generator: Any) -> PythonGenerator | None:
    """What saves, seeds and restores an object; None if it is no generator that can be."""
    for module, name, made in _HANDLERS:
        cls = _loaded(module, name)
        if is_a(cls, type) and is_a(generator, cls):
            system = module == "random" and is_a(generator, _loaded(module, "SystemRandom"))
            return None if system else made(generator)
    return None
