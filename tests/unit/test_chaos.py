"""The ledger of the chaos runs: it finds what is lost, wrong or twice, and nothing else."""

from __future__ import annotations

import pytest
from chaos.ledger import Injected, Ledger
from chaos.plan import Call, plan
from chaos.work import EXIT, Item, SourError, work, work_and_draw

from parallax import WorkerDiedError, parallel_map


def ledger_of(*actions, **fields):
    items = [Item(index, action, size=10) for index, action in enumerate(actions)]
    return Ledger(Call("map", "parallel", "processes", "auto", items, **fields), "")


def whole(*actions, **fields):
    """One whose items have all come back."""
    ledger = ledger_of(*actions, **fields)
    for item in ledger.call.items:
        ledger.value(item.index, work(item))
    ledger.complete = True
    return ledger


def kinds(ledger, injected=None):
    return [fault.partition(":")[0] for fault in ledger.faults(injected or Injected())]


def test_a_round_follows_from_its_seed():
    assert plan(7) == plan(7)
    assert plan(7) != plan(8)


def test_all_is_well():
    assert kinds(whole("plain", "plain")) == []


def test_an_item_is_lost():
    ledger = ledger_of("plain", "plain")
    ledger.value(1, work(ledger.call.items[1]))
    assert kinds(ledger) == []  # the reader has left
    ledger.complete = True
    assert kinds(ledger) == ["lost"]


def test_an_item_ends_twice():
    ledger = whole("plain", "plain")
    ledger.value(1, work(ledger.call.items[1]))
    assert kinds(ledger) == ["twice"]


def test_a_result_is_that_of_another_item():
    ledger = ledger_of("plain", "plain")
    ledger.value(0, work(ledger.call.items[1]))
    assert kinds(ledger) == ["wrong"]


@pytest.mark.parametrize(
    ("action", "error", "good"),
    [
        ("raise", SourError(0), True),
        ("raise", SourError(1), False),
        ("plain", SourError(0), False),
        ("exit", WorkerDiedError(0, 55, EXIT), True),
        ("exit", WorkerDiedError(1, 55, EXIT), False),
        ("exit", WorkerDiedError(0, 55, -9), False),
        ("plain", WorkerDiedError(0, 55, -9), False),
        ("plain", WorkerDiedError(0, 77, -9), True),
        ("plain", WorkerDiedError(0, 77, None), False),
        ("plain", WorkerDiedError(0, 78, None), True),
    ],
)
def test_errors_have_a_cause(action, error, good):
    """77 was killed from outside; so was 78, whose zygote was killed before."""
    ledger = ledger_of(action)
    ledger.failed(0, error)
    found = kinds(ledger, Injected(killed={77, 78}, orphans={78}))
    assert found == ([] if good else ["wrong"])


def test_effects_are_those_of_the_loop():
    ledger = ledger_of("plain", "plain", stateful=True)
    for item in ledger.call.items:
        ledger.value(item.index, ledger.fn(item))
    ledger.complete = True
    assert kinds(ledger) == []
    ledger.fn.ran.reverse()
    assert kinds(ledger) == ["wrong"]


def test_seeded_items_draw_the_same_numbers_as_in_a_loop():
    items = [Item(index, seed=1) for index in range(2)]
    call = Call("map", "parallel", "serial", "auto", items)
    results = parallel_map(work_and_draw, items, backend="serial", seed=1)
    for found, faults in (results, []), (reversed(results), ["wrong", "wrong"]):
        ledger = Ledger(call, "")
        for index, value in enumerate(found):
            ledger.value(index, value._replace(index=index))
        ledger.complete = True
        assert kinds(ledger) == faults
