"""``parallel_imap`` reads its input as it is read itself: the input may be endless."""

import itertools

from parallax import parallel_imap

taken = 0


def numbers():
    """An endless input that counts how far it was read."""
    global taken
    for number in itertools.count(10**9 + 1, 2):
        taken += 1
        yield number


def smallest_factor(number):
    """The smallest prime factor of an odd number, by trial division."""
    for candidate in range(3, int(number**0.5) + 1, 2):
        if number % candidate == 0:
            return candidate
    return number


factors = parallel_imap(smallest_factor, numbers(), buffersize=64)
primes = []
for number, factor in zip(itertools.count(10**9 + 1, 2), factors):
    if number == factor:
        primes.append(number)
        if len(primes) == 10:
            break
factors.close()  # cancels what is under way; dropping the iterator does the same

print("example: stream")
print(f"first primes above a billion: {primes[0]} ... {primes[-1]}, {taken} numbers were read")

assert primes[:2] == [1000000007, 1000000009]
# What was used, what may be read ahead, and the number that zip() took last.
assert taken <= (primes[-1] - 10**9) // 2 + 64 + 2
