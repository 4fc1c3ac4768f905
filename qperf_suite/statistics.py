"""Medians, spreads, and ratios with their uncertainty."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

RESAMPLES = 4000
TIE = (0.97, 1.03)


@dataclass(frozen=True)
class Cell:
    """The values of one system in one case. spread: half the range, as a share of the median."""

    median: float
    spread: float
    count: int


@dataclass(frozen=True)
class Ratio:
    """Median of the rounds' ratios, larger is better for us; low, high: 95 % of resamples."""

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


def compare(
    ours: Sequence[float], theirs: Sequence[float], *, smaller_is_better: bool, seed: int = 1
) -> Ratio:
    """Ratio of paired values, round by round, with a percentile bootstrap of its median.

    ours, theirs: same length, at least one pair, all positive.  Few rounds make an interval
    wide and coarse: with three it is about the range of the ratios.
    """
    pairs = zip(ours, theirs, strict=True)
    ratios = [b / a if smaller_is_better else a / b for a, b in pairs]
    rng = random.Random(seed)
    medians = sorted(median(rng.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    low = medians[int(0.025 * RESAMPLES)]
    high = medians[int(0.975 * RESAMPLES) - 1]
    return Ratio(median(ratios), low, high)
