"""One moment per peer, and which comes first."""

from __future__ import annotations

import heapq


class Timers:
    """Moments: monotonic ns."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int]] = []  # (when, peer); valid where _when agrees
        self._when: dict[int, int] = {}

    def set(self, peer: int, when: int | None) -> None:
        """In place of the peer's moment before.  None: it has none."""
        if when is None:
            self._when.pop(peer, None)
        elif self._when.get(peer) != when:
            self._when[peer] = when
            heapq.heappush(self._heap, (when, peer))

    def next(self) -> int | None:
        """The first moment."""
        while self._heap:
            when, peer = self._heap[0]
            if self._when.get(peer) == when:
                return when
            heapq.heappop(self._heap)
        return None

    def take(self, now: int) -> int | None:
        """The peer whose moment came first, which it then has no more; None: none until now."""
        when = self.next()
        if when is None or when > now:
            return None
        _, peer = heapq.heappop(self._heap)
        del self._when[peer]
        return peer
