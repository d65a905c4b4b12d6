"""The answer is the loop's: results and side effects, with work for which processes would pay."""

from __future__ import annotations

import warnings

import pytest
from helpers.guard_cases import EFFECTS, PURE, Case

from parallax import SharedStateWarning, parallel_map
from parallax._core.cores import gil_enabled


@pytest.mark.sampled(12)
@pytest.mark.parametrize("case", EFFECTS, ids=lambda c: c.name)
def test_results_and_side_effects_are_those_of_the_loop(case: Case) -> None:
    """Whatever the callable changes, it is changed as a for loop would have changed it."""
    fn, items, state = case.make()
    expected = [fn(x) for x in items]
    expected_state = state()
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
    fn, items, _ = case.make()
    expected = [fn(x) for x in items]
    fn, items, _ = case.make()
    results = parallel_map(fn, items)
    assert results == expected
    wanted = {"processes"} if gil_enabled() else {"processes", "threads"}
    assert wanted.intersection(c.route for c in results.report.changes), str(results.report)
