"""What the mesh is told: its own address and key, and its peers."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from mesh.address import Address
from mesh.wire import Cipher

MAX_PEERS = 8192  # three sessions and a handshake each must find places in a table of 65536


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """One other node.

    public_key: 32 bytes, Ed25519.  endpoints: tried in turn; none when only the peer can begin.
    via: public key of the peer that passes on what is meant for this one; with endpoints, when
        none of them can be reached.
    preshared_key: 32 bytes or None.
    """

    public_key: bytes
    endpoints: tuple[Address, ...] = ()
    addresses: tuple[IPv4Network | IPv6Network, ...] = ()
    preshared_key: bytes | None = field(default=None, repr=False)
    via: bytes | None = None


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """mtu_bytes: the largest IP packet in one record.  ciphers: in order of preference."""

    listen: Address
    private_key_file: str
    peers: tuple[PeerConfig, ...]
    mtu_bytes: int
    ciphers: tuple[Cipher, ...] = tuple(Cipher)
