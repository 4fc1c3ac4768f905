"""Round trips to a peer, inside the session with it: one probe after the other.

While there is no session, nothing more is asked than the one probe that waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.inquiry import (
    MS,
    SESSION_RETRY_NS,
    SESSION_WAIT_NS,
    Inquiry,
    NewId,
    PingAnswer,
    Ponged,
    S,
    SendPing,
    TraceAnswer,
    Unsent,
)
from mesh.relay import Path

INTERVAL_MIN_NS = 100 * MS
ANSWER_WAIT_NS = 3 * S


@dataclass(slots=True)
class _Probe:
    number: int
    sent: int
    path: Path | None


class Ping(Inquiry):
    def __init__(
        self, new_id: NewId, now: int, *, count: int | None, interval_ns: int, ip_bytes: int
    ) -> None:
        """count: None: until it is stopped."""
        super().__init__(new_id)
        self._count = count
        self._interval_ns = interval_ns
        self._ip_bytes = ip_bytes
        self._due = now  # the next probe
        self._begun = 0
        self._held: int | None = None  # id of the probe that is not sent yet
        self._held_since = 0
        self._retry_at: int | None = None
        self._waiting: dict[int, _Probe] = {}

    def next_timer(self) -> int | None:
        moments = [probe.sent + ANSWER_WAIT_NS for probe in self._waiting.values()]
        if self._held is not None:
            moments.append(self._retry_at if self._retry_at is not None else self._held_since)
        elif not self._all_begun:
            moments.append(self._due)
        return min(moments, default=None)

    @property
    def _all_begun(self) -> bool:
        return self._count is not None and self._begun >= self._count

    def poll(self, now: int) -> None:
        for number, probe in list(self._waiting.items()):
            if now >= probe.sent + ANSWER_WAIT_NS:
                del self._waiting[number]
                self._lose(probe.number, probe.path, "no answer")
        if self._held is not None:
            if self._retry_at is not None and now >= self._retry_at:
                self._retry_at = None
                self._requests.append(SendPing(self._held, self._ip_bytes))
        elif not self._all_begun and now >= self._due:
            self._begun += 1
            self._held, self._held_since = self._new_id(), now
            self._due = max(self._due + self._interval_ns, now)
            self._requests.append(SendPing(self._held, self._ip_bytes))

    def _lose(self, number: int, path: Path | None, why: str) -> None:
        self._results.append(Ponged(number, self._ip_bytes, path, None, why))

    def sent(self, number: int, path: Path | None, now: int) -> None:
        if number == self._held:
            self._held = None
            self._waiting[number] = _Probe(self._begun, now, path)
            self._due = max(self._due, now + self._interval_ns)

    def unsent(self, number: int, why: Unsent, now: int) -> None:
        if number != self._held:
            return
        if why is Unsent.NO_SESSION and now < self._held_since + SESSION_WAIT_NS:
            self._retry_at = now + SESSION_RETRY_NS
            return
        self._held = self._retry_at = None
        self._due = max(self._due, now + self._interval_ns)
        self._lose(self._begun, None, why.value)

    def answered(self, answer: PingAnswer | TraceAnswer, received: int, now: int) -> None:
        if isinstance(answer, PingAnswer) and answer.id in self._waiting:
            probe = self._waiting.pop(answer.id)
            rtt_ns = max(received - probe.sent, 0)
            self._results.append(Ponged(probe.number, answer.size_bytes, probe.path, rtt_ns))
