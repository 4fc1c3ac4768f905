"""What a Node asks its owner to do, in the order in which it asks."""

from __future__ import annotations

from dataclasses import dataclass, field

from mesh.relay import Path
from mesh.wire import Cipher


@dataclass(frozen=True, slots=True)
class PeerAdded:
    """peer: a number that no other peer has had for a long time.  node_id: 8 bytes."""

    peer: int
    node_id: bytes


@dataclass(frozen=True, slots=True)
class PeerRemoved:
    """All its keys were removed before."""

    peer: int


@dataclass(frozen=True, slots=True)
class PeerPlaced:
    """Where the peer is while no session knows better: behind neighbour, a peer's number, or
    nobody knows."""

    peer: int
    neighbour: int | None


@dataclass(frozen=True, slots=True)
class PathChanged:
    """Where the peer proved to be, or will be looked for first."""

    peer: int
    path: Path


@dataclass(frozen=True, slots=True)
class SessionReady:
    """The peer's packets are sealed with this session from now on, and sent to path."""

    peer: int
    local_index: int
    path: Path


@dataclass(frozen=True, slots=True)
class InstallKeypair:
    """Receive with these keys from now on.

    initiator: also send with them from now on; otherwise only once a record under them has
    authenticated the peer, which session_confirmed() then reports.
    """

    peer: int
    local_index: int
    remote_index: int
    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)
    relay_send_key: bytes = field(repr=False)
    relay_receive_key: bytes = field(repr=False)
    initiator: bool
    endpoint: Path
    cipher: Cipher


@dataclass(frozen=True, slots=True)
class RemoveKeypair:
    """Wipe the keys."""

    peer: int
    local_index: int


@dataclass(frozen=True, slots=True)
class SendKeepalive:
    """Send an empty record: it confirms a key, or shows that we are there."""

    peer: int


@dataclass(frozen=True, slots=True)
class SendThrough:
    """Send a handshake message to a node, by way of a peer.  node_id: 8 bytes."""

    neighbour: int
    node_id: bytes
    data: bytes


Event = (
    PeerAdded
    | PeerRemoved
    | PeerPlaced
    | PathChanged
    | SessionReady
    | InstallKeypair
    | RemoveKeypair
    | SendKeepalive
    | SendThrough
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the data plane saw of one session.  Times: monotonic ns, 0 for never."""

    sent_records: int = 0
    failed_records: int = 0
    last_packet_sent: int = 0
    last_keepalive_sent: int = 0
    last_received: int = 0
    last_packet_received: int = 0
