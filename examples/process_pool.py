"""``ProcessPoolExecutor`` in the place of the standard library's, by one import line."""

import os
from concurrent.futures import as_completed

from parallax import ProcessPoolExecutor

numbers = {}


def load(limit):
    """Runs once in each worker, before its first call."""
    global numbers
    numbers = {number: number * number for number in range(limit)}


def look_up(number):
    """Reads what ``load`` has set; -1 stands for a crash in native code."""
    if number == -1:
        os._exit(1)
    return numbers[number]


# No `if __name__ == "__main__"` is needed: the main script is never run again.
with ProcessPoolExecutor(2, initializer=load, initargs=(1000,)) as executor:
    print("example: process_pool")
    print("one call:", executor.submit(look_up, 12).result())

    futures = {executor.submit(look_up, number): number for number in (1, 2, -1, 3)}
    squares = {}
    for future in as_completed(futures):
        if error := future.exception():
            print(f"call with {futures[future]}: {type(error).__mro__[1].__name__}: {error}")
        else:
            squares[futures[future]] = future.result()

    # A worker that dies fails its own call only; the pool lives on.
    print("the others:", dict(sorted(squares.items())))
    assert squares == {1: 1, 2: 4, 3: 9}
    assert list(executor.map(look_up, range(100), chunksize=10)) == [n * n for n in range(100)]
