"""Items that have an object in common: what one changes the others see."""

from __future__ import annotations

import itertools

import pytest

from parallax._guard.common_objects import except_own
from parallax._guard.effects import ITEM, judge, scan
from parallax._scheduling.input import Input


class Account:
    total = 0


class Order:
    def __init__(self, account, amount=1):
        self.account, self.amount = account, amount


def pays(order):
    if order.account.total < 20:
        order.account.total += order.amount


def counts(row):
    row["n"] = row.get("n", 0) + 1


def appends(pair):
    pair[1].append(pair[0])


def draws(pair):
    return next(pair[1])


def removes(pair):
    pair[1].pop()


def marks(order):
    order.account = None


def two(order, log):
    log.append(order)


def some(make, n=100):
    return [make(k) for k in range(n)]


ONE, LOG, NUMBERS, ROW = Account(), [0] * 100, itertools.count(), {}
ACCOUNTS = [Account() for _ in range(7)]

CHAIN = some(Order)
for one, following in itertools.pairwise(CHAIN):
    one.following = following


def adds_to_the_next(order):
    order.following.n = 1


COMMON = {
    "the next item": (adds_to_the_next, [CHAIN]),
    "one account": (pays, [some(lambda _: Order(ONE))]),
    "a few accounts": (pays, [some(lambda k: Order(ACCOUNTS[k % 7]))]),
    "the same item": (counts, [[ROW] * 100]),
    "a list in tuples": (appends, [some(lambda k: (k, LOG))]),
    "a list that is emptied": (removes, [some(lambda k: (k, LOG))]),
    "an iterator in tuples": (draws, [some(lambda k: (k, NUMBERS))]),
    "a column of one object": (two, [some(Order), [LOG] * 100]),
}
OWN = {
    "accounts": (pays, [some(lambda _: Order(Account()))]),
    "rows": (counts, [some(lambda k: {"k": k})]),
    "lists": (appends, [some(lambda k: (k, []))]),
    "an attribute that is set": (marks, [some(lambda _: Order(ONE))]),
    "columns": (two, [some(Order), some(lambda _: [])]),
}


def limit(fn, columns):
    source = Input(tuple(columns), strict=False)
    source.whole = tuple(columns)
    calls = source.some_calls()
    effects = except_own(scan(fn, calls[0]), fn, lambda: calls)
    assert source.taken == 0
    return judge(effects, (True,)).limit, [each.target for each in effects.findings]


@pytest.mark.parametrize("name", COMMON)
def test_what_items_have_in_common(name):
    """Threads would mix the changes, or race."""
    found, targets = limit(*COMMON[name])
    assert found == "loop"
    assert ITEM not in targets


@pytest.mark.parametrize("name", OWN)
def test_what_is_each_items_own(name):
    """Threads are right for it."""
    found, targets = limit(*OWN[name])
    assert found == "process"
    assert targets == [ITEM]


def test_inputs_whose_items_only_their_code_gives():
    """They are asked for nothing."""
    source = Input((itertools.count(),), strict=False)
    source.whole = (itertools.count(),)
    assert source.some_calls() == []
