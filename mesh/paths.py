"""The ways to each peer: measured by probes, the best one used, another when it dies.

Sans-IO, beside the Node: the owner passes in what arrived and what time it is, and carries out
events().  A way is probed with the largest packet that it is believed to carry, every second while
there is traffic.  A probe without an answer begins a search (pathmtu.py), which tells a way that
carries less from one that is dead.

A peer with one configured way, or none, has one, where it was heard last.  One with several,
endpoints or the peer in between, is pinned to the best of them: then its packets from elsewhere do
not move it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from mesh.pathmtu import FLOOR_BYTES, Search
from mesh.relay import Path, Through
from mesh.timers import Timers

MS = 1_000_000
S = 1000 * MS
BUSY_INTERVAL_NS = 1 * S
QUIET_INTERVAL_NS = 15 * S
RAISE_NS = 60 * S  # after this the way may carry more again
FIRST_TIMEOUT_NS = 1 * S
TIMEOUT_MIN_NS = 200 * MS
TIMEOUT_MAX_NS = 3 * S
LATE_NS = 10 * S  # an answer is of use for so long
TRIES = 3
TRIES_MAX = 10
RESULTS = 64
# Another way is better when it costs less than three quarters, by a millisecond, for so long.
BETTER_FOR_NS = 5 * S
BETTER_BY_NS = 1 * MS
LOSS_IGNORED = 0.05
LOSS_COST_NS = 1 * S
RELAY_COST_NS = 5 * MS  # what a way by another node costs that node
PROBE_IDS = 1 << 31  # greater ones are others' probes (inquiries.py)


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Ask the session's peer, by that way, whether a packet of ip_bytes arrives; failures to send
    go to Paths.unsent()."""

    local_index: int
    path: Path
    probe: int
    ip_bytes: int


@dataclass(frozen=True, slots=True)
class UsePath:
    """Send what the session seals by that way, wherever the peer's packets come from."""

    local_index: int
    path: Path


@dataclass(frozen=True, slots=True)
class MtuChanged:
    """The largest IP packet for the peer."""

    peer: int
    mtu_bytes: int


@dataclass(frozen=True, slots=True)
class StillHere:
    """Tell a peer where we are: it does not learn that from probes."""

    peer: int


PathEvent = SendProbe | UsePath | MtuChanged | StillHere


@dataclass(frozen=True, slots=True)
class WayStatus:
    """rtt_ns: None before the first answer.  loss: 0 to 1, of the last probes."""

    path: Path
    used: bool
    alive: bool
    rtt_ns: int | None
    loss: float
    mtu_bytes: int


def timeout_ns(rtt_ns: int | None) -> int:
    """How long an answer is waited for.  rtt_ns: None before the first one."""
    if rtt_ns is None:
        return FIRST_TIMEOUT_NS
    return min(max(3 * rtt_ns, TIMEOUT_MIN_NS), TIMEOUT_MAX_NS)


@dataclass(slots=True)
class _Way:
    path: Path
    search: Search
    next_at: int
    raise_at: int
    alive: bool = False
    rtt_ns: int | None = None
    results: deque[bool] = field(default_factory=lambda: deque(maxlen=RESULTS))
    asked: dict[int, int] = field(default_factory=dict)  # probe -> size: not answered yet
    deadline: int = 0  # of those

    @property
    def loss(self) -> float:
        return self.results.count(False) / len(self.results) if self.results else 0.0

    @property
    def cost_ns(self) -> float:
        loss = self.loss if self.loss > LOSS_IGNORED else 0.0
        relay_ns = RELAY_COST_NS if isinstance(self.path, Through) else 0
        return (self.rtt_ns or 0) + loss * LOSS_COST_NS + relay_ns

    @property
    def timeout_ns(self) -> int:
        return timeout_ns(self.rtt_ns)

    @property
    def tries(self) -> int:
        """Enough that loss alone explains no answer only once in a thousand times."""
        tries, chance = TRIES, self.loss**TRIES
        while chance > 0.001 and tries < TRIES_MAX:
            tries, chance = tries + 1, chance * self.loss
        return tries

    def measured(self, rtt_ns: int) -> None:
        self.rtt_ns = rtt_ns if self.rtt_ns is None else (7 * self.rtt_ns + rtt_ns) // 8


@dataclass(slots=True)
class _Peer:
    configured: tuple[Path, ...] = ()
    ways: dict[Path, _Way] = field(default_factory=dict)
    used: _Way | None = None
    session: int | None = None
    busy: bool = False
    better: Path | None = None
    better_since: int = 0
    mtu_bytes: int = 0  # as told

    @property
    def pinned(self) -> bool:
        return len(self.configured) > 1


class Paths:
    """All peers' ways.  now: monotonic ns, never decreasing."""

    def __init__(self, mtu_bytes: int, relay_bytes: int) -> None:
        """mtu_bytes: the largest IP packet of the mesh; relay_bytes: what a way by another node
        takes of it."""
        self._mtu_bytes = mtu_bytes
        self._relay_bytes = relay_bytes
        self._peers: dict[int, _Peer] = {}
        self._timers = Timers()
        self._events: list[PathEvent] = []
        self._next_id = 0
        self._sent: dict[int, tuple[int, _Way, int, int]] = {}  # probe -> peer, way, size, when

    # ---- outputs

    def events(self) -> list[PathEvent]:
        """And forgets them."""
        drained, self._events = self._events, []
        return drained

    def next_timer(self) -> int | None:
        return self._timers.next()

    def status(self, peer_id: int) -> list[WayStatus]:
        peer = self._peers.get(peer_id, _Peer())
        return [
            WayStatus(w.path, w is peer.used, w.alive, w.rtt_ns, w.loss, w.search.mtu_bytes)
            for w in peer.ways.values()
        ]

    def in_use(self, peer_id: int) -> tuple[int, Path] | None:
        """The session and way of the peer's packets; None without either."""
        peer = self._peers.get(peer_id, _Peer())
        if peer.session is None or peer.used is None:
            return None
        return peer.session, peer.used.path

    # ---- inputs: the node

    def configure(self, peer_id: int, paths: Collection[Path], now: int) -> None:
        """A new peer, or other configured ways to one."""
        peer = self._peers.setdefault(peer_id, _Peer())
        if peer.configured == tuple(paths):
            return
        peer.configured = tuple(paths)
        for path in list(peer.ways):
            if path not in peer.configured and (peer.used is None or peer.used.path != path):
                del peer.ways[path]
        self._look_around(peer, now)
        self._arm(peer_id, peer)

    def remove(self, peer_id: int) -> None:
        self._timers.set(peer_id, None)
        self._peers.pop(peer_id, None)

    def moved(self, peer_id: int, path: Path, now: int) -> None:
        """The peer is at path, as far as the node knows."""
        peer = self._peers.setdefault(peer_id, _Peer())
        if peer.used is None or peer.used.path != path:
            self._use(peer_id, peer, path, now)
            self._arm(peer_id, peer)

    def ready(self, peer_id: int, local_index: int, path: Path, now: int) -> None:
        """A fresh session: what the peer's packets are sealed with.  path: where it sends."""
        peer = self._peers.setdefault(peer_id, _Peer())
        peer.session = local_index
        used = peer.used
        chosen = used.path if used is not None and used.alive and peer.pinned else path
        if used is None or used.path != chosen:
            self._use(peer_id, peer, chosen, now)
        elif peer.pinned:
            self._events.append(UsePath(local_index, chosen))
        if chosen == path:
            self._way(peer, path, now).alive = True  # keys were agreed on by it
        self._look_around(peer, now)
        self._arm(peer_id, peer)

    def lost(self, peer_id: int, local_index: int) -> None:
        """The session is no more."""
        peer = self._peers.get(peer_id)
        if peer is not None and peer.session == local_index:
            peer.session = None
            for way in peer.ways.values():
                way.asked.clear()
            self._arm(peer_id, peer)

    def follows(self, peer_id: int, path: Path) -> bool:
        """Whether packets from path mean that the peer is there now: not when it is one of several
        ways, of which the one in use is alive."""
        peer = self._peers.get(peer_id, _Peer())
        known = path in peer.ways and peer.used is not None and peer.used.alive
        return not (peer.pinned and known)

    def busy(self, peers: Collection[int], now: int) -> None:
        """Those that there is traffic for; about once a second."""
        for peer_id, peer in self._peers.items():
            if peer.busy == (peer_id in peers):
                continue
            peer.busy = not peer.busy
            if peer.busy and peer.session is not None:
                for way in peer.ways.values():
                    way.next_at = min(way.next_at, now + BUSY_INTERVAL_NS)
                self._arm(peer_id, peer)

    # ---- inputs: probes

    def answered(self, peer_id: int, probe: int, received: int, now: int) -> None:
        """received: when the answer came.  One to a probe of another peer counts for nothing."""
        if self._sent.get(probe, (-1,))[0] != peer_id:
            return
        _, way, size, sent = self._sent.pop(probe)
        peer = self._peers.get(peer_id)
        if peer is None or peer.ways.get(way.path) is not way:
            return
        way.measured(max(received - sent, 0))
        way.results.append(True)
        way.alive = True
        way.asked.pop(probe, None)
        if way.search.running:
            way.search.answered(size)
            if not way.search.running:
                self._conclude(peer, way, now)
            elif not way.asked:
                self._ask(peer_id, peer, way, now)
        self._choose(peer_id, peer, now)
        self._arm(peer_id, peer)

    def unsent(self, probe: int, *, too_long: bool, now: int) -> None:
        """The kernel did not take it.  too_long: nor will it; that need not be tried again."""
        peer_id, way, size, _ = self._sent.pop(probe, (-1, None, 0, 0))
        peer = self._peers.get(peer_id)
        if way is None or peer is None or probe not in way.asked:
            return
        del way.asked[probe]
        if not way.search.running:
            way.search.begin(upwards=False)
        way.search.missed(size, 1 if too_long else way.tries)
        if not way.search.running:
            self._conclude(peer, way, now)
        elif not way.asked:
            way.deadline = now + (0 if too_long else way.timeout_ns)
        self._choose(peer_id, peer, now)
        self._arm(peer_id, peer)

    def poll(self, now: int) -> None:
        """Run every timer that is due."""
        while (peer_id := self._timers.take(now)) is not None:
            peer = self._peers[peer_id]
            for way in list(peer.ways.values()):
                self._run(peer_id, peer, way, now)
            self._choose(peer_id, peer, now)
            self._arm(peer_id, peer)
        # In the order in which they were sent.
        while self._sent:
            probe = next(iter(self._sent))
            if now - self._sent[probe][3] <= LATE_NS:
                break
            del self._sent[probe]

    # ---- one way

    def _run(self, peer_id: int, peer: _Peer, way: _Way, now: int) -> None:
        if peer.session is None:
            return
        if way.asked:
            if now < way.deadline:
                return
            self._missed(way)
            if not way.search.running:
                self._conclude(peer, way, now)
                return
        elif not way.search.running:
            if now < way.next_at:
                return
            if way is peer.used and not peer.busy:
                # A router in between may have forgotten us, and know us by another port now.
                self._events.append(StillHere(peer_id))
            if not way.alive or now >= way.raise_at:
                way.search.begin(upwards=True)
                way.raise_at = now + RAISE_NS
        elif now < way.deadline:
            return
        self._ask(peer_id, peer, way, now)

    def _missed(self, way: _Way) -> None:
        missed, tries = list(way.asked.values()), way.tries
        way.asked.clear()
        if way.search.running:
            for size in missed:
                way.search.missed(size, tries)
            if FLOOR_BYTES in missed:
                way.results.append(False)
        else:
            way.results.append(False)
            way.search.begin(upwards=False)

    def _conclude(self, peer: _Peer, way: _Way, now: int) -> None:
        """The search is over."""
        way.alive = way.search.arrived
        way.asked.clear()
        way.next_at = now + (BUSY_INTERVAL_NS if peer.busy else QUIET_INTERVAL_NS)

    def _ask(self, peer_id: int, peer: _Peer, way: _Way, now: int) -> None:
        assert peer.session is not None, "who asks has a session"
        sizes = way.search.sizes() or [way.search.mtu_bytes]
        way.deadline = now + way.timeout_ns
        way.next_at = now + (BUSY_INTERVAL_NS if peer.busy else QUIET_INTERVAL_NS)
        for size in sizes:
            probe, self._next_id = self._next_id, (self._next_id + 1) % PROBE_IDS
            way.asked[probe] = size
            self._sent[probe] = peer_id, way, size, now
            self._events.append(SendProbe(peer.session, way.path, probe, size))

    # ---- one peer

    def _arm(self, peer_id: int, peer: _Peer) -> None:
        if peer.used is not None and peer.used.search.mtu_bytes != peer.mtu_bytes:
            peer.mtu_bytes = peer.used.search.mtu_bytes
            self._events.append(MtuChanged(peer_id, peer.mtu_bytes))
        moments = [
            w.deadline if w.asked or w.search.running else w.next_at for w in peer.ways.values()
        ]
        when = min(moments, default=None) if peer.session is not None else None
        self._timers.set(peer_id, when)

    def _way(self, peer: _Peer, path: Path, now: int) -> _Way:
        if path not in peer.ways:
            relayed = self._relay_bytes if isinstance(path, Through) else 0
            search = Search(self._mtu_bytes - relayed)
            peer.ways[path] = _Way(path, search, next_at=now, raise_at=now)
        return peer.ways[path]

    def _look_around(self, peer: _Peer, now: int) -> None:
        if peer.pinned:
            for path in peer.configured:
                self._way(peer, path, now)

    def _use(self, peer_id: int, peer: _Peer, path: Path, now: int) -> None:
        old, peer.used = peer.used, self._way(peer, path, now)
        if old is not None and not (peer.pinned and old.path in peer.configured):
            del peer.ways[old.path]
        if peer.pinned and peer.session is not None:
            self._events.append(UsePath(peer.session, path))

    def _choose(self, peer_id: int, peer: _Peer, now: int) -> None:
        """Another way when the one in use is dead, or that one was better for long enough."""
        alive = [way for way in peer.ways.values() if way.alive]
        if peer.used is None or not peer.pinned or not alive:
            return
        best = min(alive, key=lambda way: way.cost_ns)
        if not peer.used.alive:
            self._use(peer_id, peer, best.path, now)
            return
        if best.cost_ns + BETTER_BY_NS >= 0.75 * peer.used.cost_ns:
            peer.better = None
        elif peer.better != best.path:
            peer.better, peer.better_since = best.path, now
        elif now - peer.better_since >= BETTER_FOR_NS:
            peer.better = None
            self._use(peer_id, peer, best.path, now)
