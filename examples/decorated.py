"""``@parallel``: decorate a function or method once, then call it, map it or submit it."""

from parallax import parallel


@parallel
def divisors(number):
    """How many numbers divide this one."""
    return sum(number % n == 0 for n in range(1, number + 1))


class Scale:
    """A method takes its object along."""

    def __init__(self, factor):
        self.factor = factor

    @parallel(max_workers=2, chunksize=8)
    def grow(self, number):
        """A multiple, for what it is worth."""
        return self.factor * divisors(number)  # a plain call


print("example: decorated")

# A plain call, as without the decorator.
assert divisors(12) == 6

counts = divisors.map(range(1, 4000))
print(counts.report)
assert counts[11] == 6

# Tuples of arguments, an endless input, and other options for one use.
assert Scale(10).grow.map(range(1, 50)) == [10 * count for count in counts[:49]]
assert divisors.starmap([(6,), (7,)]) == [4, 2]
assert list(divisors.options(retries=1).imap(iter([6, 7]))) == [4, 2]
