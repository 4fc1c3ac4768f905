"""Medians, spreads, percentiles, and ratios with their uncertainty."""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist, fmean, median, stdev

RESAMPLES = 4000
TIE = (0.97, 1.03)
_TAIL = 0.025
# Student's t at 97.5 % for 1 to 10 degrees of freedom; from there on a series is exact enough.
_STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


@dataclass(frozen=True)
class Cell:
    """The values of one system in one case. spread: half the range, as a share of the median."""

    median: float
    spread: float
    count: int


@dataclass(frozen=True)
class Ratio:
    """Median of the rounds' ratios, larger is better for us; low, high: 95 % interval.

    A single round says nothing of its uncertainty: low is then 0 and high infinite.
    """

    median: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What can be said: ahead, behind, tie, or undecided."""
        if TIE[0] <= self.low and self.high <= TIE[1]:
            return "tie"
        if self.low > 1:
            return "ahead"
        if self.high < 1:
            return "behind"
        return "undecided"


def summarize(values: Sequence[float]) -> Cell:
    """values: at least one, all positive."""
    middle = median(values)
    return Cell(middle, (max(values) - min(values)) / 2 / middle, len(values))


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Interpolated between the nearest two, as NumPy does. ordered: ascending, at least one."""
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def student(freedom: int) -> float:
    """Student's t at 97.5 %. freedom: at least 1."""
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    z = NormalDist().inv_cdf(1 - _TAIL)
    # Abramowitz and Stegun, 26.7.5.
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def compare(
    ours: Sequence[float], theirs: Sequence[float], *, smaller_is_better: bool, seed: int = 1
) -> Ratio:
    """Ratio of paired values, round by round. ours, theirs: same length, at least one, positive.

    The interval covers two, both of the logarithms: a percentile bootstrap of the median, and
    Student's of the mean.  With few rounds a bootstrap cannot leave the range of what was seen,
    and three ratios are on the same side of 1 in a quarter of all comparisons of equals;
    with more rounds it is the one that outliers do not mislead.
    """
    pairs = zip(ours, theirs, strict=True)
    logs = [math.log(b / a if smaller_is_better else a / b) for a, b in pairs]
    middle = median(logs)
    if len(logs) == 1:
        return Ratio(math.exp(middle), 0.0, math.inf)
    low, high = bootstrap(logs, random.Random(seed))
    mean = fmean(logs)
    reach = student(len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    return Ratio(
        math.exp(middle), math.exp(min(low, mean - reach)), math.exp(max(high, mean + reach))
    )


def interval(values: Sequence[float], seed: int = 1) -> tuple[float, float]:
    """Bootstrap interval of the median of one system. values: at least two.

    Few rounds give no more than their range: what is decided, ratios decide.
    """
    return bootstrap(values, random.Random(seed))


def compare_unpaired(
    ours: Sequence[float], theirs: Sequence[float], *, smaller_is_better: bool, rng: random.Random
) -> Ratio:
    """Ratio of medians of values that were not measured side by side; at least one of each.

    The interval covers Welch's of the means of the logarithms, and a bootstrap of the medians.
    """
    sign = -1 if smaller_is_better else 1
    us, them = ([sign * math.log(value) for value in values] for values in (ours, theirs))
    middle = median(us) - median(them)
    if min(len(us), len(them)) == 1:
        return Ratio(math.exp(middle), 0.0, math.inf)
    shares = [stdev(values) ** 2 / len(values) for values in (us, them)]
    error = math.sqrt(sum(shares))
    # The smaller sample's degrees of freedom: Welch's own are never fewer.
    reach = student(min(len(us), len(them)) - 1) * error
    mean = fmean(us) - fmean(them)
    medians = sorted(
        median(rng.choices(us, k=len(us))) - median(rng.choices(them, k=len(them)))
        for _ in range(RESAMPLES)
    )
    low, high = (percentile(medians, 100 * tail) for tail in (_TAIL, 1 - _TAIL))
    return Ratio(
        math.exp(middle), math.exp(min(low, mean - reach)), math.exp(max(high, mean + reach))
    )


def bootstrap(values: Sequence[float], rng: random.Random) -> tuple[float, float]:
    """95 % percentile bootstrap of the median, expanded for small samples. values: at least two.

    Expanded as in Hesterberg, "What Teachers Should Know about the Bootstrap" (2015), 4.3.  Of few
    values all resamples are taken, each once.
    """
    count = len(values)
    resamples: Iterable[Sequence[float]] = (
        product(values, repeat=count)
        if count**count <= RESAMPLES
        else (rng.choices(values, k=count) for _ in range(RESAMPLES))
    )
    medians = sorted(map(median, resamples))
    tail = 100 * NormalDist().cdf(-math.sqrt(count / (count - 1)) * student(count - 1))
    return percentile(medians, tail), percentile(medians, 100 - tail)
