"""Quick start: a slow function, a list of items, all cores.

Run it: python examples/quickstart.py
"""

from parallax import parallel_map


def collatz(start):
    """Steps until the Collatz sequence reaches 1: plain Python that keeps a core busy."""
    steps = 0
    while start != 1:
        start = start // 2 if start % 2 == 0 else 3 * start + 1
        steps += 1
    return steps


def longest(block):
    """The number with the longest sequence in a block of 2,000 numbers."""
    return max(range(block, block + 2000), key=collatz)


blocks = range(1, 120_000, 2000)
results = parallel_map(longest, blocks)  # a list, in the order of the blocks

print("example: quickstart")
print(results.report)

assert results[0] == 1161
assert max(results, key=collatz) == 106239
