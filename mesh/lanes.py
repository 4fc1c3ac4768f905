"""Which lanes send by a UDP port of their own: those for which a probe has proven it.

Sans-IO, beside Paths.  A lane that sends to a peer is probed by its own port, with as large a
packet as the way is believed to carry; the answer must come back to that port, from where the peer
is.  From then on the lane sends by it, as long as each second's probe is answered; before and
after, and when the peer moves, it sends by the common port, as lane 0 always does.  So records of
several workers are several 5-tuples where that passes, and lose nothing for long where it does not.

A lane's own port says nothing about where this node is, so while one is used an empty record goes
by the common port each second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.address import Address
from mesh.pathmtu import FLOOR_BYTES
from mesh.paths import BUSY_INTERVAL_NS, PROBE_IDS, TRIES, S, StillHere, timeout_ns
from mesh.relay import Path
from mesh.timers import Timers

AGAIN_NS = 60 * S  # after it was given up
LANES_MAX = 1024  # probed at the same time, of all peers: others send by the common port


@dataclass(frozen=True, slots=True)
class ProbeLane:
    """Ask the session's peer, by the lane's own port, whether a packet of ip_bytes arrives."""

    local_index: int
    path: Address
    lane: int
    probe: int
    ip_bytes: int


@dataclass(frozen=True, slots=True)
class UseLanes:
    """These lanes, a bit each, send by their own ports while the session's peer is at path."""

    local_index: int
    path: Address
    lanes: int


@dataclass(frozen=True, slots=True)
class Answer:
    """lane: by whose port it came, from source.  received: when, monotonic ns."""

    lane: int
    probe: int
    source: Path
    received: int


LaneEvent = ProbeLane | UseLanes | StillHere


@dataclass(slots=True)
class _Lane:
    next_at: int
    proven: bool = False
    asked: int | None = None  # a probe without an answer
    asked_at: int = 0
    missed: int = 0  # one after the other
    rtt_ns: int | None = None

    @property
    def due(self) -> int:
        return self.next_at if self.asked is None else self.asked_at + timeout_ns(self.rtt_ns)


@dataclass(slots=True)
class _Peer:
    session: int | None = None
    path: Path | None = None
    ip_bytes: int = FLOOR_BYTES
    lanes: dict[int, _Lane] = field(default_factory=dict)  # that send
    told: int = 0
    shown_at: int = 0


class Lanes:
    """All peers'.  now: monotonic ns, never decreasing."""

    def __init__(self, count: int) -> None:
        """count: this node's lanes."""
        self._own = range(1, count)
        self._peers: dict[int, _Peer] = {}
        self._timers = Timers()
        self._events: list[LaneEvent] = []
        self._next_id = 0
        self._probed = 0

    # ---- outputs

    def events(self) -> list[LaneEvent]:
        """And forgets them."""
        drained, self._events = self._events, []
        return drained

    def next_timer(self) -> int | None:
        return self._timers.next()

    # ---- inputs

    def moved(self, peer_id: int, path: Path, now: int) -> None:
        """The peer is at path; its session's records go there by the common port at first."""
        peer = self._peers.setdefault(peer_id, _Peer())
        if peer.path != path:
            self._begin_anew(peer_id, peer, path, now)

    def ready(self, peer_id: int, local_index: int, path: Path, now: int) -> None:
        """A fresh session, whose records go to path."""
        self.moved(peer_id, path, now)
        peer = self._peers[peer_id]
        peer.session, peer.told = local_index, 0
        self._tell(peer)  # what was proven under the one before

    def lost(self, peer_id: int, local_index: int) -> None:
        """The session is no more."""
        peer = self._peers.get(peer_id)
        if peer is not None and peer.session == local_index:
            peer.session = None
            self._forget(peer_id, peer)

    def remove(self, peer_id: int) -> None:
        peer = self._peers.pop(peer_id, None)
        if peer is not None:
            self._forget(peer_id, peer)

    def resize(self, peer_id: int, ip_bytes: int, now: int) -> None:
        """The largest packet for the peer changed: whether lanes carry it is asked at once."""
        peer = self._peers.setdefault(peer_id, _Peer())
        peer.ip_bytes = ip_bytes
        for lane in peer.lanes.values():
            lane.asked, lane.missed, lane.next_at = None, 0, now
        self._arm(peer_id, peer)

    def busy(self, sending: Mapping[int, int], now: int) -> None:
        """Peer -> lanes that send to it, a bit each; about once a second."""
        for peer_id, peer in self._peers.items():
            lanes = sending.get(peer_id, 0)
            wanted = [n for n in self._own if lanes >> n & 1]
            if peer.session is None or not isinstance(peer.path, Address):
                wanted = []
            if wanted == list(peer.lanes):
                continue
            room = LANES_MAX - self._probed + len(peer.lanes)
            wanted = wanted[:room]
            self._probed += len(wanted) - len(peer.lanes)
            peer.lanes = {n: peer.lanes.get(n) or _Lane(now) for n in wanted}
            self._tell(peer)
            self._arm(peer_id, peer)

    def answered(self, peer_id: int, answer: Answer, now: int) -> None:
        peer = self._peers.get(peer_id)
        lane = peer.lanes.get(answer.lane) if peer is not None else None
        if peer is None or lane is None:
            return
        if lane.asked != answer.probe or answer.source != peer.path:
            return
        lane.rtt_ns = max(answer.received - lane.asked_at, 0)
        lane.asked, lane.missed, lane.proven = None, 0, True
        lane.next_at = now + BUSY_INTERVAL_NS
        self._tell(peer)
        self._arm(peer_id, peer)

    def poll(self, now: int) -> None:
        """Run every timer that is due."""
        while (peer_id := self._timers.take(now)) is not None:
            peer = self._peers[peer_id]
            for number, lane in peer.lanes.items():
                if now >= lane.due:
                    self._run(peer, number, lane, now)
            if peer.told and now - peer.shown_at >= BUSY_INTERVAL_NS:
                peer.shown_at = now
                self._events.append(StillHere(peer_id))
            self._tell(peer)
            self._arm(peer_id, peer)

    # ---- one lane, one peer

    def _run(self, peer: _Peer, number: int, lane: _Lane, now: int) -> None:
        assert peer.session is not None, "who is probed has a session"
        assert isinstance(peer.path, Address), "and an address"
        if lane.asked is not None:
            lane.asked = None
            lane.missed += 1
            if lane.missed == TRIES:
                lane.missed, lane.proven, lane.next_at = 0, False, now + AGAIN_NS
                return
        lane.asked, lane.asked_at = self._next_id, now
        self._next_id = (self._next_id + 1) % PROBE_IDS
        self._events.append(ProbeLane(peer.session, peer.path, number, lane.asked, peer.ip_bytes))

    def _begin_anew(self, peer_id: int, peer: _Peer, path: Path, now: int) -> None:
        known = peer.lanes if isinstance(path, Address) else {}
        self._probed += len(known) - len(peer.lanes)
        peer.lanes = {}
        self._tell(peer)  # nobody asks any more whether the old path carries what was proven
        peer.path = path
        peer.lanes = {number: _Lane(now) for number in known}
        self._arm(peer_id, peer)

    def _forget(self, peer_id: int, peer: _Peer) -> None:
        self._probed -= len(peer.lanes)
        peer.lanes, peer.told = {}, 0
        self._arm(peer_id, peer)

    def _tell(self, peer: _Peer) -> None:
        lanes = sum(1 << number for number, lane in peer.lanes.items() if lane.proven)
        if lanes == peer.told or peer.session is None or not isinstance(peer.path, Address):
            return
        peer.told = lanes
        self._events.append(UseLanes(peer.session, peer.path, lanes))

    def _arm(self, peer_id: int, peer: _Peer) -> None:
        self._timers.set(peer_id, min((lane.due for lane in peer.lanes.values()), default=None))
