"""The GIL protects the interpreter, not your data: a bank whose threads lose money.

Run it: python examples/bank.py
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from parallax import parallel_map

print("example: bank")


class Account:
    """Without a lock: each payment reads, works the new balance out, and writes it."""

    def __init__(self):
        self.balance = 0
        self.lock = threading.Lock()

    def pay_in(self, times):
        for _ in range(times):
            before = self.balance
            after = self.plus(before, 1)  # another thread may pay in now
            self.balance = after  # and what it has written is overwritten

    def pay_in_locked(self, times):
        for _ in range(times):
            with self.lock:
                self.balance = self.plus(self.balance, 1)

    def plus(self, amount, more):
        return amount + more


payments = [50_000] * 4
usual = sys.getswitchinterval()
sys.setswitchinterval(1e-5)  # threads take turns more often: what is rare shows at once

careless = Account()
with ThreadPoolExecutor(4) as pool:
    list(pool.map(careless.pay_in, payments))
print(f"paid in: {sum(payments):,}; lost without a lock: {sum(payments) - careless.balance:,}")
assert careless.balance < sum(payments)

careful = Account()
with ThreadPoolExecutor(4) as pool:
    list(pool.map(careful.pay_in_locked, payments))
print(f"lost with a lock: {sum(payments) - careful.balance}")
assert careful.balance == sum(payments)
sys.setswitchinterval(usual)


def pay(times):
    """No state is shared: the total is added up where the results come in."""
    return sum(1 for _ in range(times))


assert sum(parallel_map(pay, payments)) == sum(payments)
print("lost where results are returned and summed: 0")
