"""Work that is too small for workers stays a plain loop, and the report says so."""

from parallax import parallel_map


def celsius(fahrenheit):
    """A few arithmetic operations."""
    return (fahrenheit - 32) * 5 / 9


degrees = parallel_map(celsius, range(20_000))

print("example: not_worth_it")
print(degrees.report)

assert degrees.report.route == "loop"
assert degrees[212] == 100
