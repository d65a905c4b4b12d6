"""The answer is the loop's: results and side effects, with work for which processes would pay."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from helpers import guard_cases
from helpers.guard_cases import EFFECTS, PURE, Case

from parallax import SharedStateWarning, parallel_map
from parallax._core.cores import gil_enabled


def looped(case: Case) -> tuple[list[Any], Any]:
    """What a for loop makes of it, and the state that it leaves."""
    fn, items, state = case.make()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard_cases, "LOOPS", 0)
        return [fn(x) for x in items], state()


@pytest.mark.sampled(12)
@pytest.mark.parametrize("case", EFFECTS, ids=lambda c: c.name)
def test_results_and_side_effects_are_those_of_the_loop(case: Case) -> None:
    """Whatever the callable changes, it is changed as a for loop would have changed it."""
    expected, expected_state = looped(case)
    fn, items, state = case.make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SharedStateWarning)
        results = parallel_map(fn, items)
    assert results == expected
    assert state() == expected_state
    assert results.report.route != "processes", str(results.report)


@pytest.mark.sampled(6)
@pytest.mark.parametrize("case", PURE, ids=lambda c: c.name)
def test_a_counterpart_without_side_effect_goes_to_processes(case: Case) -> None:
    """The guard costs no speed where there is nothing to guard."""
    expected, _ = looped(case)
    fn, items, _ = case.make()
    results = parallel_map(fn, items)
    assert results == expected
    wanted = {"processes"} if gil_enabled() else {"processes", "threads"}
    assert wanted.intersection(c.route for c in results.report.changes), str(results.report)
