"""Ways by another node: what stands in place of an address, and what a configuration may ask for.

A peer is behind another one, its neighbour, when what is meant for it goes to that one, who passes
it on.  A neighbour may itself be behind another; the first in such a row has an address.  A peer
with addresses of its own may have a neighbour as well, for when none of them can be reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.address import Address
from mesh.config import PeerConfig

HOPS = 8  # nodes that may pass a message on: MESH_RELAY_HOPS of the data plane
MAX_IN_ROW = HOPS - 1  # neighbours behind each other, as the data plane follows them


@dataclass(frozen=True, slots=True)
class Through:
    """In place of an address: by way of the peer with that number."""

    peer: int

    def __str__(self) -> str:
        return f"peer {self.peer}"


Path = Address | Through


@dataclass(frozen=True, slots=True)
class WrongVia:
    """public_key: of the peer that is not where its configuration says."""

    public_key: bytes
    what: str
    remedy: str


def wrong_via(own: bytes, peers: Mapping[bytes, PeerConfig]) -> WrongVia | None:
    """The first mistake.  own: this node's public key.  peers: all of them, by theirs."""
    for key, peer in peers.items():
        via = peer.via
        if via is None:
            continue
        if via == own:
            return WrongVia(
                key, "this node itself", "name the node in between, or write endpoints instead"
            )
        if via == key:
            return WrongVia(
                key, "the peer itself", "name the node in between, or write endpoints instead"
            )
        if via not in peers:
            return WrongVia(
                key,
                "no peer has this public key",
                "add the node in between to mesh.peers, or correct the key",
            )
    return next((wrong for key in peers if (wrong := _wrong_row(key, peers))), None)


def _wrong_row(key: bytes, peers: Mapping[bytes, PeerConfig]) -> WrongVia | None:
    """All neighbours are peers.  Behind the first one, a row ends at who has an address."""
    row, via = [key], peers[key].via
    while via is not None:
        if via in row:
            others = len(row) - row.index(via) - 1
            return WrongVia(
                via,
                f"the peer is behind itself, by way of {others} other{'s' * (others != 1)}",
                "give one of them endpoints instead of via",
            )
        row.append(via)
        if len(row) > MAX_IN_ROW + 1:
            return WrongVia(
                key,
                f"more than {MAX_IN_ROW} nodes in between",
                "name a node in between that is nearer",
            )
        via = None if peers[via].endpoints else peers[via].via
    return None
