"""Times in buckets whose width is a thirty-second of their value."""

from collections import Counter
from collections.abc import Iterable

BITS = 5


def bucket(value: int) -> int:
    """The largest value of its bucket."""
    shift = max(0, value.bit_length() - BITS - 1)
    return (value >> shift << shift) + (1 << shift) - 1


class Histogram:
    """Of integers that are not negative."""

    def __init__(self, values: Iterable[int]) -> None:
        self._counts: Counter[int] = Counter()
        self.max = 0
        for value in values:
            self._counts[bucket(value)] += 1
            self.max = max(self.max, value)
        self.count = self._counts.total()

    def percentile(self, percent: float) -> int:
        """The smallest bound that so many percent do not exceed.  There must be a value."""
        wanted, seen = percent / 100 * self.count, 0
        for bound in sorted(self._counts):
            seen += self._counts[bound]
            if seen >= wanted:
                break
        return min(bound, self.max)
