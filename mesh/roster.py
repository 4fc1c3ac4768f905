"""The peers of a node: found by number or key, and who is behind whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from mesh.config import PeerConfig
from mesh.cookie import Sender
from mesh.handshake import PeerKeys
from mesh.peer import Peer

_PEER_IDS = 1 << 16


class Roster:
    """Numbers go round: routes that still name a removed peer must not mean a new one."""

    def __init__(self) -> None:
        self._by_id: dict[int, Peer] = {}
        self._by_public: dict[bytes, Peer] = {}
        self._by_static: dict[bytes, Peer] = {}
        self._behind: defaultdict[int, set[int]] = defaultdict(set)  # neighbour -> peers
        self._next_id = 0

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._by_id.values()))

    def get(self, number: int) -> Peer | None:
        return self._by_id.get(number)

    def by_public(self, key: bytes) -> Peer | None:
        return self._by_public.get(key)

    def by_static(self, key: bytes) -> Peer | None:
        """key: the X25519 image, as a handshake shows it."""
        return self._by_static.get(key)

    def ids(self) -> dict[bytes, int]:
        """Public key to number."""
        return {key: peer.id for key, peer in self._by_public.items()}

    def behind(self, neighbour: Peer) -> list[Peer]:
        """Those whose configuration says so, and those behind them in turn."""
        found = [neighbour.id]
        for number in found:
            found += sorted(self._behind.get(number, ()))
        return [self._by_id[number] for number in found[1:]]

    def add(self, config: PeerConfig, keys: PeerKeys) -> Peer:
        while self._next_id in self._by_id:
            self._next_id = (self._next_id + 1) % _PEER_IDS
        peer = Peer(self._next_id, config, keys, Sender(keys.public_key))
        self._next_id = (self._next_id + 1) % _PEER_IDS
        self._by_id[peer.id] = peer
        self._by_public[keys.public_key] = peer
        self._by_static[keys.static_public] = peer
        return peer

    def remove(self, peer: Peer) -> None:
        self.place(peer, None)
        del self._by_id[peer.id]
        del self._by_public[peer.keys.public_key]
        del self._by_static[peer.keys.static_public]

    def place(self, peer: Peer, neighbour: Peer | None) -> None:
        """From now on the peer is behind neighbour."""
        if peer.via is not None:
            self._behind[peer.via].discard(peer.id)
            if not self._behind[peer.via]:
                del self._behind[peer.via]
        peer.via = neighbour.id if neighbour is not None else None
        if neighbour is not None:
            self._behind[neighbour.id].add(peer.id)
