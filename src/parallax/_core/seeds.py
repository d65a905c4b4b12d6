"""Seeds of random numbers: the option ``seed``, and NumPy's ``SeedSequence`` in plain Python.

Guarantees: the words of a stream are those of ``numpy.random.SeedSequence(entropy, spawn_key=key,
pool_size=...).generate_state(n)``, whether NumPy is installed or not. NumPy is not imported.
"""

from __future__ import annotations

import os

from parallax._core.light_stdlib import Any, NamedTuple

_MASK = 0xFFFFFFFF
# The constants of SeedSequence (numpy/random/bit_generator.pyx), after M. E. O'Neill's seed_seq_fe.
_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875
_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED
_MIX_L, _MIX_R = 0xCA01F9DD, 0x4973F715


class RandomStream(NamedTuple):
    """A source of random numbers, named as NumPy names a ``SeedSequence``."""

    entropy: int | tuple[int, ...]
    key: tuple[int, ...] = ()
    pool_size: int = 4

    def child(self, *key: int) -> RandomStream:
        """The stream of a part: of an item, or of one generator in it."""
        return self._replace(key=(*self.key, *key))

    def words(self, count: int) -> list[int]:
        """The first 32-bit words of this stream's seed."""
        return _generate(_pool(self), count)


def stream_of(seed: Any) -> RandomStream | None:
    """The stream of the option ``seed``: True for any, None or False for none."""
    if seed is None or seed is False:
        return None
    if seed is True:
        return RandomStream(int.from_bytes(os.urandom(16), "little"))
    if hasattr(seed, "spawn_key") and hasattr(seed, "pool_size"):  # a SeedSequence
        entropy = seed.entropy
        whole = hasattr(entropy, "__index__")
        return RandomStream(
            int(entropy) if whole else tuple(map(int, entropy)),
            tuple(map(int, seed.spawn_key)),
            int(seed.pool_size),
        )
    try:
        number = int(seed.__index__())
    except (AttributeError, TypeError):
        raise TypeError(
            f"seed must be a whole number, a numpy.random.SeedSequence, or True for numbers that "
            f"differ each time, not {seed!r}"
        ) from None
    if number < 0:
        raise ValueError(f"seed must be at least 0, not {number}")
    return RandomStream(number)


def _words_of(value: Any) -> list[int]:
    if isinstance(value, tuple):
        return [word for each in value for word in _words_of(each)]
    words = [value & _MASK]
    while value := value >> 32:
        words.append(value & _MASK)
    return words


def _pool(stream: RandomStream) -> list[int]:
    size = stream.pool_size
    entropy, key = _words_of(stream.entropy), _words_of(stream.key)
    if key:
        entropy += [0] * (size - len(entropy))
    entropy += key
    factor = _INIT_A

    def hashed(value: int) -> int:
        nonlocal factor
        value ^= factor
        factor = factor * _MULT_A & _MASK
        value = value * factor & _MASK
        return value ^ value >> 16

    def mixed(x: int, y: int) -> int:
        result = (_MIX_L * x - _MIX_R * y) & _MASK
        return result ^ result >> 16

    pool = [hashed(entropy[k] if k < len(entropy) else 0) for k in range(size)]
    for source in range(size):
        for to in range(size):
            if source != to:
                pool[to] = mixed(pool[to], hashed(pool[source]))
    for word in entropy[size:]:
        for to in range(size):
            pool[to] = mixed(pool[to], hashed(word))
    return pool


def _generate(pool: list[int], count: int) -> list[int]:
    factor, words = _INIT_B, []
    for k in range(count):
        word = pool[k % len(pool)] ^ factor
        factor = factor * _MULT_B & _MASK
        word = word * factor & _MASK
        words.append(word ^ word >> 16)
    return words
