"""Medians, spreads and bootstrapped ratios on samples whose answers are known."""

import random

import pytest

from qperf_suite.statistics import Ratio, compare, summarize


def test_cell_is_median_and_half_the_range() -> None:
    cell = summarize([10.0, 12.0, 11.0])
    assert (cell.median, cell.count) == (11.0, 3)
    assert cell.spread == pytest.approx(1 / 11)


@pytest.mark.parametrize(
    ("smaller_is_better", "expected"), [(True, 2.0), (False, 0.5)], ids=["latency", "bandwidth"]
)
def test_ratio_is_turned_so_that_larger_is_better(smaller_is_better: bool, expected: float) -> None:
    ratio = compare([10.0] * 5, [20.0] * 5, smaller_is_better=smaller_is_better)
    assert (ratio.median, ratio.low, ratio.high) == (expected, expected, expected)


def test_rounds_are_paired() -> None:
    # Both systems drift by the same factor from round to round: the ratio does not.
    ours, theirs = [1.0, 2.0, 4.0], [3.0, 6.0, 12.0]
    ratio = compare(ours, theirs, smaller_is_better=True)
    assert ratio.low == ratio.high == 3.0


def test_three_rounds_give_about_the_range() -> None:
    ratio = compare([1.0, 1.0, 1.0], [1.1, 1.2, 1.3], smaller_is_better=True)
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((1.2, 1.1, 1.3))


def test_same_seed_same_interval() -> None:
    rng = random.Random(7)
    ours = [rng.uniform(9, 11) for _ in range(12)]
    theirs = [rng.uniform(9, 11) for _ in range(12)]
    first = compare(ours, theirs, smaller_is_better=True, seed=3)
    assert first == compare(ours, theirs, smaller_is_better=True, seed=3)
    assert first.low <= first.median <= first.high


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = random.Random(11)
    covered = 0
    for trial in range(200):
        ours = [rng.lognormvariate(0, 0.1) for _ in range(15)]
        theirs = [rng.lognormvariate(0, 0.1) for _ in range(15)]
        ratio = compare(ours, theirs, smaller_is_better=True, seed=trial)
        covered += ratio.low <= 1 <= ratio.high
    assert covered >= 0.9 * 200


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.01, 1.4, "ahead"),
        (0.6, 0.9, "behind"),
        (0.98, 1.02, "tie"),
        (1.001, 1.02, "tie"),
        (0.9, 1.2, "undecided"),
    ],
)
def test_verdict(low: float, high: float, verdict: str) -> None:
    assert Ratio((low + high) / 2, low, high).verdict == verdict
