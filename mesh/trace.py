"""The nodes on the way to a peer, one after the other.

Asks are sent that may be passed on not at all, once, twice, …; the node at which one can go no
further answers (core/trace.h).  What it says is proved only of the neighbour, so nothing is done
with it but to show it.
"""

from __future__ import annotations

from mesh.inquiry import (
    SESSION_RETRY_NS,
    SESSION_WAIT_NS,
    Hop,
    Inquiry,
    NewId,
    PingAnswer,
    S,
    SendTrace,
    TraceAnswer,
    TraceEnd,
    Unsent,
    WayEnd,
)
from mesh.relay import HOPS, Path

ANSWER_WAIT_NS = 1 * S
TRIES = 3
SILENT_MAX = 2  # nodes in a row that do not answer

REACHED = "reached"
_ENDS = {
    TraceEnd.REACHED: REACHED,
    TraceEnd.NO_SESSION: "no session with the next node",
    TraceEnd.UNKNOWN: "does not know the destination, or a way there",
}


class Trace(Inquiry):
    def __init__(self, new_id: NewId, now: int, *, target: bytes) -> None:
        """target: the public key of whom it is for."""
        super().__init__(new_id)
        self._target = target
        self._hops = 0  # that the present ask may be passed on
        self._tries = 0
        self._silent = 0
        self._last: bytes | None = None  # who answered last
        self._asked: dict[int, int] = {}  # id -> when, of the present number of hops
        self._begun = now
        self._timer: int | None = now

    def next_timer(self) -> int | None:
        return self._timer

    def poll(self, now: int) -> None:
        if self._timer is None or now < self._timer:
            return
        if self._tries == TRIES:
            self._results.append(Hop(self._hops + 1, None, None, proved=False))
            self._silent += 1
            if self._silent == SILENT_MAX:
                self._end("no answer", self._last)
            else:
                self._go_on(now)
        else:
            self._ask(now)

    def _ask(self, now: int) -> None:
        """Until sent() or unsent() says more, it counts as lost."""
        self._timer = now + ANSWER_WAIT_NS
        self._requests.append(SendTrace(self._new_id(), self._hops))

    def sent(self, number: int, path: Path | None, now: int) -> None:
        self._asked[number] = now
        self._tries += 1
        self._timer = now + ANSWER_WAIT_NS

    def unsent(self, number: int, why: Unsent, now: int) -> None:
        if why is Unsent.NO_SESSION and now < self._begun + SESSION_WAIT_NS:
            self._timer = now + SESSION_RETRY_NS
        else:
            self._end(why.value, None)

    def answered(self, answer: PingAnswer | TraceAnswer, received: int, now: int) -> None:
        if not isinstance(answer, TraceAnswer) or answer.id not in self._asked:
            return
        if answer.end is TraceEnd.REACHED and answer.public_key != self._target:
            return  # a lie
        rtt_ns = max(received - self._asked[answer.id], 0)
        if answer.public_key != self._last:
            proved = self._hops == 0 and answer.public_key == answer.by
            self._results.append(Hop(self._hops + 1, answer.public_key, rtt_ns, proved))
        self._last = answer.public_key
        self._silent = 0
        if answer.end is TraceEnd.HOPS:
            self._go_on(now)
        else:
            self._end(_ENDS[answer.end], answer.public_key)

    def _go_on(self, now: int) -> None:
        self._asked.clear()
        if self._hops == HOPS:
            self._end("hop limit used up", self._last)
            return
        self._hops += 1
        self._tries = 0
        self._ask(now)

    def _end(self, reason: str, public_key: bytes | None) -> None:
        self._results.append(WayEnd(reason, public_key))
        self._asked.clear()
        self._timer = None
