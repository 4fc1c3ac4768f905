"""The largest packet that a way carries, found by probes alone (RFC 8899): no ICMP is asked.

A size is taken for too large when no probe of it was answered although a smaller one was: then the
way is alive, and the size is the reason.
"""

from __future__ import annotations

FLOOR_BYTES = 576  # what every way carries
_STEPS = 8  # sizes asked for at once


class Search:
    """Of one way.  Sizes: bytes of the IP packet inside a record.

    mtu_bytes: the result so far; what the configuration says is believed until it is disproved.
    """

    def __init__(self, ceiling_bytes: int) -> None:
        self.ceiling_bytes = ceiling_bytes
        self.mtu_bytes = ceiling_bytes
        self._low = 0  # arrived in this search
        self._high = ceiling_bytes  # did not, from the next byte on
        self._tries: dict[int, int] = {}

    @property
    def running(self) -> bool:
        return bool(self._tries)

    @property
    def arrived(self) -> bool:
        """Whether any size did in this search."""
        return self._low > 0

    def begin(self, *, upwards: bool) -> None:
        """upwards: the way may carry more than it did; else less, or nothing at all."""
        self._low = 0
        self._high = self.ceiling_bytes if upwards else self.mtu_bytes
        self._tries = dict.fromkeys((FLOOR_BYTES, self._high), 0)

    def sizes(self) -> list[int]:
        """Those to be probed now."""
        return sorted(self._tries)

    def answered(self, size_bytes: int) -> None:
        self._low = max(self._low, size_bytes)
        self._high = max(self._high, size_bytes)
        self._tries = {size: n for size, n in self._tries.items() if size > size_bytes}
        self._go_on()

    def missed(self, size_bytes: int, tries: int) -> None:
        """No answer in time; after tries of them there is none."""
        if size_bytes not in self._tries:
            return
        self._tries[size_bytes] += 1
        if self._tries[size_bytes] < tries:
            return
        del self._tries[size_bytes]
        self._high = min(self._high, size_bytes - 1)
        self._go_on()

    def _go_on(self) -> None:
        if self._tries or not self.arrived:
            return
        if self._low >= self._high:
            # Told only now: who learns a low value from us keeps it for minutes.
            self.mtu_bytes = self._low
            return
        step = -(-(self._high - self._low) // _STEPS)
        sizes = range(self._low + step, self._high, step)
        self._tries = dict.fromkeys([*sizes, self._high], 0)
