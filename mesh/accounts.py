"""What is told of peers: the node's view of one beside what the data plane counted for it.

Sessions come and go and take their counters along; what those had counted stays here.

Owner: the control thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mesh.address import Address
from mesh.core import SessionStats
from mesh.handshake import State
from mesh.identity import encode_key
from mesh.peer import PeerStatus
from mesh.relay import Through

_NS_PER_S = 1_000_000_000

# What users see; whether a fresh key is on its way is no concern of theirs.
_STATE_NAMES = {
    State.IDLE: "idle",
    State.INITIATING: "connecting",
    State.READY: "connected",
    State.REKEYING: "connected",
}


@dataclass(frozen=True, slots=True)
class Moved:
    """Bytes of records, sealed; relayed: others', passed on to the peer."""

    rx: int = 0
    tx: int = 0
    relayed: int = 0

    def and_of(self, sessions: Iterable[SessionStats]) -> Moved:
        total = self
        for s in sessions:
            total = Moved(
                total.rx + s.rx_bytes, total.tx + s.tx_bytes, total.relayed + s.relayed_bytes
            )
        return total


class Accounts:
    """One for each peer, from open() to close()."""

    def __init__(self) -> None:
        self._of_removed: dict[int, Moved] = {}

    def open(self, peer: int) -> None:
        self._of_removed[peer] = Moved()

    def close(self, peer: int) -> None:
        del self._of_removed[peer]

    def session_removed(self, peer: int, stats: SessionStats) -> None:
        self._of_removed[peer] = self._of_removed[peer].and_of([stats])

    def status(
        self, peer: PeerStatus, sessions: Sequence[SessionStats], names: Mapping[int, str]
    ) -> dict[str, object]:
        """Bytes: since the peer is known.  names: public keys of peers, by number."""
        moved = self._of_removed[peer.peer].and_of(sessions)
        path = next((s.endpoint for s in sessions if s.current), peer.endpoint)
        age_ns = peer.last_handshake_ns
        return {
            "public_key": encode_key(peer.public_key),
            "state": _STATE_NAMES[peer.state],
            "endpoint": str(path) if isinstance(path, Address) else None,
            "via": names.get(path.peer) if isinstance(path, Through) else None,
            "last_handshake_s": None if age_ns is None else age_ns / _NS_PER_S,
            "rx_bytes": moved.rx,
            "tx_bytes": moved.tx,
            "relayed_bytes": moved.relayed,
            "cipher": next((s.cipher for s in peer.sessions), None),
            "lanes_used": lanes_used(sessions),
            "addresses": [str(network) for network in peer.addresses],
        }


def lanes_used(sessions: Iterable[SessionStats]) -> int | None:
    """How many send to the peer by different ports: lane 0, which needs no proof, and those that
    were proven.  None by way of another node, which has its own."""
    current = next((s for s in sessions if s.current), None)
    if current is None or not isinstance(current.endpoint, Address):
        return None
    return 1 + current.own_lanes.bit_count()
