"""A data plane in miniature, as mesh/core does it: which key opens, which one seals, who is next.

A record is a tuple here, and a tag matches when the keys are the same.
"""

from dataclasses import dataclass, field

from mesh.events import InstallKeypair, Traffic
from mesh.relay import Path, Through

RELAY_HOPS = 8


@dataclass(frozen=True)
class Record:
    receiver: int
    key: bytes = field(repr=False)
    counter: int
    empty: bool


@dataclass(frozen=True)
class Relayed:
    """A message behind a relay header.  node: whom it is for."""

    receiver: int
    key: bytes = field(repr=False)
    counter: int
    hops_left: int
    node: bytes
    message: bytes | Record


@dataclass
class PlaneSession:
    keys: InstallKeypair
    generation: int
    confirmed: bool
    endpoint: Path
    counter: int = 0
    seen: set[int] = field(default_factory=set)
    relay_counter: int = 0
    relay_seen: set[int] = field(default_factory=set)
    last_packet_sent: int = 0
    last_keepalive_sent: int = 0
    last_received: int = 0
    last_packet_received: int = 0

    def traffic(self) -> Traffic:
        return Traffic(
            self.counter,
            0,
            self.last_packet_sent,
            self.last_keepalive_sent,
            self.last_received,
            self.last_packet_received,
        )


class Plane:
    """Sessions by local index, and the one that seals, by peer.  via: peer to neighbour."""

    def __init__(self) -> None:
        self.sessions: dict[int, PlaneSession] = {}
        self.current: dict[int, PlaneSession] = {}
        self.nodes: dict[bytes, int] = {}
        self.via: dict[int, int | None] = {}
        self._generation = 0

    def install(self, event: InstallKeypair) -> None:
        slot = event.local_index & 0xFFFF
        assert all(index & 0xFFFF != slot for index in self.sessions), "slot is taken"
        self._generation += 1
        session = PlaneSession(event, self._generation, event.initiator, event.endpoint)
        self.sessions[event.local_index] = session
        if event.initiator:
            self._promote(session)

    def remove(self, local_index: int) -> None:
        session = self.sessions.pop(local_index)
        if self.current.get(session.keys.peer) is session:
            del self.current[session.keys.peer]

    def seal(self, peer: int, now: int, *, empty: bool) -> tuple[Record, Path, bool] | None:
        """(record, where to, whether the peer has confirmed the key).  None: there is no key."""
        session = self.current.get(peer)
        if session is None:
            return None
        record = Record(session.keys.remote_index, session.keys.send_key, session.counter, empty)
        session.counter += 1
        if empty:
            session.last_keepalive_sent = now
        else:
            session.last_packet_sent = now
        return record, session.endpoint, session.confirmed

    def hop(self, peer: int | None) -> PlaneSession | int | None:
        """With which session a message for the peer goes on; a peer with whom one is missing; None:
        nobody knows the way."""
        for _ in range(RELAY_HOPS):
            if peer is None:
                return None
            session = self.current.get(peer)
            if session is not None and not isinstance(session.endpoint, Through):
                return session
            path = session.endpoint if session is not None else None
            if path is None and self.via.get(peer) is None:
                return peer
            peer = path.peer if isinstance(path, Through) else self.via[peer]
        return None

    def seal_relay(
        self, hop: PlaneSession, node: bytes, message: bytes | Record, hops_left: int, now: int
    ) -> Relayed:
        keys = hop.keys
        hop.relay_counter += 1
        hop.last_packet_sent = now
        return Relayed(
            keys.remote_index, keys.relay_send_key, hop.relay_counter, hops_left, node, message
        )

    def open(
        self, record: Record | Relayed, source: Path, now: int
    ) -> tuple[PlaneSession, bool, bool] | None:
        """(session, newly confirmed, from a new address); None: dropped."""
        session = self.sessions.get(record.receiver)
        if session is None:
            return None
        relayed = isinstance(record, Relayed)
        key = session.keys.relay_receive_key if relayed else session.keys.receive_key
        seen = session.relay_seen if relayed else session.seen
        if key != record.key or record.counter in seen:
            return None
        newest = record.counter > max(seen, default=-1)
        seen.add(record.counter)
        session.last_received = now
        if isinstance(record, Relayed) or not record.empty:
            session.last_packet_received = now
        confirmed = not session.confirmed
        if confirmed:
            session.confirmed = True
            self._promote(session)
        moved = newest and source != session.endpoint
        if moved:
            session.endpoint = source
        return session, confirmed, moved

    def _promote(self, session: PlaneSession) -> None:
        current = self.current.get(session.keys.peer)
        if current is None or current.generation < session.generation:
            self.current[session.keys.peer] = session
