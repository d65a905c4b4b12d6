"""What becomes of items that fail, die, or take too long; the others keep their results."""

import os
import time

import parallax
from parallax import parallel_map


def invert(number):
    """Fails for 0."""
    return 1 / number


# The default: the first error is raised, as the loop would raise it. A note names the item.
try:
    parallel_map(invert, [4, 2, 0, 1])
except ZeroDivisionError as error:
    note = error.__notes__[0]
assert note == "parallax: raised by item 2"

# on_error="return": the exception stands in the place of the result.
results = parallel_map(invert, [4, 2, 0, 1], on_error="return")
assert results[:2] + results[3:] == [0.25, 0.5, 1.0]
assert isinstance(results[2], ZeroDivisionError)


def treacherous(number):
    """Number 3 ends its worker process, number 5 hangs."""
    if number == 3:
        os._exit(1)
    if number == 5:
        time.sleep(60)
    return number


# A worker that dies takes one item with it; an item that overruns is ended alone.
survivors = parallel_map(
    treacherous, range(8), backend="processes", max_workers=2, item_timeout=1.0, on_error="return"
)
assert isinstance(survivors[3], parallax.WorkerDiedError)
assert survivors[3].index == 3
assert survivors[3].exitcode == 1
assert isinstance(survivors[5], parallax.ItemTimeoutError)
assert [r for r in survivors if isinstance(r, int)] == [0, 1, 2, 4, 6, 7]

attempts = 0


def flaky(number):
    """Fails at first, as a network does."""
    global attempts
    attempts += 1
    if attempts % 2:
        raise ConnectionError("try again")
    return number


# retries: failed items are run again.
again = parallel_map(flaky, range(5), retries=2, backend="serial")
assert again == [0, 1, 2, 3, 4]

print("example: errors")
print(note)
print(survivors[3])
print(survivors[5])
print(survivors.report)
