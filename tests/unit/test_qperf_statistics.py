"""Medians, spreads and bootstrapped ratios on samples whose answers are known."""

import json
import math
import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from qperf_suite.statistics import (
    Ratio,
    bootstrap,
    compare,
    interval,
    percentile,
    student,
    summarize,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "qperf"


def test_cell_is_median_and_half_the_range() -> None:
    cell = summarize([10.0, 12.0, 11.0])
    assert (cell.median, cell.count) == (11.0, 3)
    assert cell.spread == pytest.approx(1 / 11)


@pytest.mark.parametrize(
    ("smaller_is_better", "expected"), [(True, 2.0), (False, 0.5)], ids=["latency", "bandwidth"]
)
def test_ratio_is_turned_so_that_larger_is_better(smaller_is_better: bool, expected: float) -> None:
    ratio = compare([10.0] * 5, [20.0] * 5, smaller_is_better=smaller_is_better)
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((expected,) * 3)


def test_rounds_are_paired() -> None:
    # Both systems drift by the same factor from round to round: the ratio does not.
    ours, theirs = [1.0, 2.0, 4.0], [3.0, 6.0, 12.0]
    ratio = compare(ours, theirs, smaller_is_better=True)
    assert (ratio.low, ratio.high) == pytest.approx((3.0, 3.0))


def test_few_rounds_reach_beyond_what_was_seen() -> None:
    ratio = compare([1.0, 1.0, 1.0], [1.1, 1.2, 1.3], smaller_is_better=True)
    assert ratio.median == pytest.approx(1.2)
    assert ratio.low < 1
    assert ratio.high > 1.3
    assert ratio.verdict == "undecided"


@pytest.mark.parametrize("count", [2, 3, 5, 10, 30])
def test_the_interval_of_a_median_is_within_the_range_and_narrows(count: int) -> None:
    values = [math.exp(value) for value in np.random.default_rng(1).normal(3, 0.3, count)]
    low, high = interval(values)
    assert min(values) <= low <= np.median(values) <= high <= max(values)
    if count <= 3:
        assert (low, high) == pytest.approx((min(values), max(values)))
    if count >= 10:
        assert min(values) < low < high < max(values)


def test_one_round_decides_nothing() -> None:
    ratio = compare([1.0], [9.0], smaller_is_better=True)
    assert (ratio.median, ratio.verdict) == (pytest.approx(9.0), "undecided")


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
    assert covered >= 0.93 * 200


# ---- against SciPy


@pytest.mark.parametrize("freedom", [*range(1, 16), 30, 100, 1000])
def test_student_is_scipys(freedom: int) -> None:
    assert student(freedom) == pytest.approx(scipy_stats.t.ppf(0.975, freedom), rel=1e-3)


@pytest.mark.parametrize("percent", [0, 2.5, 50, 61.8, 99, 100])
@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_percentiles_are_scipys(percent: float, count: int) -> None:
    rng = random.Random(count)
    values = sorted(rng.expovariate(1) for _ in range(count))
    expected = scipy_stats.scoreatpercentile(values, percent)
    assert percentile(values, percent) == pytest.approx(expected)


@pytest.mark.parametrize("count", [10, 20, 40])
def test_bootstrap_is_scipys(count: int) -> None:
    rng = random.Random(count)
    values = [rng.gauss(0, 1) for _ in range(count)]
    # Expanded for small samples: SciPy is told the level that this comes to.
    tail = scipy_stats.norm.cdf(
        -math.sqrt(count / (count - 1)) * scipy_stats.t.ppf(0.975, count - 1)
    )
    expected = scipy_stats.bootstrap(
        (values,),
        np.median,
        confidence_level=1 - 2 * tail,
        n_resamples=20000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    found = bootstrap(values, random.Random(1))
    near = sorted(values)
    # Medians of resamples come in steps, so the same step or the one beside it.
    step = max(after - before for before, after in pairwise(near[2:-2])) / 2
    assert found == pytest.approx((expected.low, expected.high), abs=step)


@pytest.mark.parametrize("count", [3, 4, 5])
def test_few_rounds_have_scipys_interval_of_the_mean(count: int) -> None:
    rng = random.Random(count)
    ours, theirs = ([rng.lognormvariate(0, 0.1) for _ in range(count)] for _ in range(2))
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    expected = scipy_stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    found = compare(ours, theirs, smaller_is_better=False)
    assert math.log(found.low) == pytest.approx(min(expected.low, *logs), rel=1e-3)
    assert math.log(found.high) == pytest.approx(max(expected.high, *logs), rel=1e-3)


# ---- a system against itself


def normal(rng: random.Random) -> float:
    return math.exp(rng.gauss(0, 0.05))


def heavy_tail(rng: random.Random) -> float:
    return math.exp(rng.gauss(0, 0.05)) + 0.02 * rng.paretovariate(1.5)


def spikes(rng: random.Random) -> float:
    """Now and then a point is disturbed, and has several times its value."""
    return math.exp(rng.gauss(0, 0.05)) * (rng.uniform(1.5, 10) if rng.random() < 0.1 else 1)


@pytest.mark.parametrize("rounds", [3, 5, 10])
@pytest.mark.parametrize("noise", [normal, heavy_tail, spikes])
def test_a_system_against_itself_is_undecided(
    noise: Callable[[random.Random], float], rounds: int
) -> None:
    rng = random.Random(rounds)
    verdicts: Counter[str] = Counter()
    for trial in range(400):
        drift = [rng.uniform(0.5, 2) for _ in range(rounds)]
        ours, theirs = ([factor * noise(rng) for factor in drift] for _ in range(2))
        verdicts[compare(ours, theirs, smaller_is_better=True, seed=trial).verdict] += 1
    assert verdicts["undecided"] >= 0.92 * 400
    assert verdicts["ahead"] + verdicts["behind"] <= 0.08 * 400


def test_measured_samples_of_a_system_against_itself_are_undecided() -> None:
    """420 comparisons of three rounds each: medians of UDP round trips on a busy machine."""
    pairs = json.loads((GOLDEN / "same_system.json").read_text())["comparisons"]
    assert len(pairs) >= 400
    verdicts = Counter(compare(*pair, smaller_is_better=True).verdict for pair in pairs)
    assert verdicts["ahead"] + verdicts["behind"] <= 0.08 * len(pairs)


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
