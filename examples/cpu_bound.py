"""Pure Python work holds the GIL: threads would take turns, so it goes to processes.

There is no ``if __name__ == "__main__"`` here, and none is needed: workers never run this file.
"""

from parallax import parallel_map

WORDS = [f"{n:x}" * 40 for n in range(400)]


def distance(first, second):
    """Levenshtein distance, written plainly."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return row[-1]


# Two iterables give the function two arguments, as in map().
distances = parallel_map(distance, WORDS, WORDS[1:])

print("example: cpu_bound")
print(distances.report)

assert len(distances) == len(WORDS) - 1
assert distances[:3] == list(map(distance, WORDS[:3], WORDS[1:4]))
