"""The vhost-user messages we know: numbers, shapes and names.

Source: vhost-user specification (QEMU's docs/interop/vhost-user), "Message types"; virtio 1.2,
section 5.1.3 for the feature bits, virtio 1.3 there for USO.  All fields are in the machine's own
byte order.
"""

import enum
import struct
from collections.abc import Collection
from dataclasses import dataclass

HEADER = struct.Struct("=III")  # request, flags, payload bytes
VERSION = 1
FLAG_VERSION_MASK = 3
FLAG_REPLY = 4
FLAG_NEED_REPLY = 8

MAX_PAYLOAD_BYTES = 4096
MAX_FDS = 8
MAX_RINGS = 257

U64 = struct.Struct("=Q")
VRING_STATE = struct.Struct("=II")  # index, number
VRING_ADDR = struct.Struct("=IIQQQQ")  # index, flags, descriptors, used, available, log
MEMORY_HEADER = struct.Struct("=II")  # regions, padding
MEMORY_REGION = struct.Struct("=QQQQ")  # guest address, bytes, user address, offset in the file
CONFIG_HEADER = struct.Struct("=III")  # offset, bytes, flags

VRING_INDEX_MASK = 0xFF
VRING_NO_FD = 0x100

# struct virtio_net_config up to the MTU: MAC, status, pairs, MTU (virtio 1.2, 5.1.4).
NET_CONFIG = struct.Struct("=6sHHH")
NET_CONFIG_BYTES = 256  # as much as a front-end may ask for; zeros behind what we have
NET_STATUS_LINK_UP = 1


class Request(enum.IntEnum):
    """What a front-end may ask of us."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SET_BACKEND_REQ_FD = 21
    GET_CONFIG = 24
    SET_CONFIG = 25


class ProtocolFeature(enum.IntFlag):
    """Bits of GET_PROTOCOL_FEATURES that we offer."""

    MQ = 1 << 0
    REPLY_ACK = 1 << 3
    BACKEND_REQ = 1 << 5
    CONFIG = 1 << 9


class Feature(enum.IntFlag):
    """Virtio and vhost-user bits of GET_FEATURES that we know."""

    CSUM = 1 << 0
    GUEST_CSUM = 1 << 1
    MTU = 1 << 3
    MAC = 1 << 5
    GUEST_TSO4 = 1 << 7
    GUEST_TSO6 = 1 << 8
    GUEST_ECN = 1 << 9
    HOST_TSO4 = 1 << 11
    HOST_TSO6 = 1 << 12
    HOST_ECN = 1 << 13
    MRG_RXBUF = 1 << 15
    STATUS = 1 << 16
    CTRL_VQ = 1 << 17
    CTRL_RX = 1 << 18
    CTRL_VLAN = 1 << 19
    GUEST_ANNOUNCE = 1 << 21
    MQ = 1 << 22
    CTRL_MAC_ADDR = 1 << 23
    INDIRECT_DESC = 1 << 28
    EVENT_IDX = 1 << 29
    PROTOCOL_FEATURES = 1 << 30
    VERSION_1 = 1 << 32
    RING_PACKED = 1 << 34
    IN_ORDER = 1 << 35
    GUEST_USO4 = 1 << 54
    GUEST_USO6 = 1 << 55
    HOST_USO = 1 << 56


OFFERED_PROTOCOL_FEATURES = (
    ProtocolFeature.MQ
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.BACKEND_REQ
    | ProtocolFeature.CONFIG
)

# Every port's, always: a set that changed over a restart makes QEMU drop the connection.  MAC joins
# them when the configuration names one.
OFFERED_FEATURES = (
    Feature.CSUM
    | Feature.GUEST_CSUM
    | Feature.MTU
    | Feature.GUEST_TSO4
    | Feature.GUEST_TSO6
    | Feature.GUEST_ECN
    | Feature.HOST_TSO4
    | Feature.HOST_TSO6
    | Feature.HOST_ECN
    | Feature.MRG_RXBUF
    | Feature.STATUS
    | Feature.CTRL_VQ
    | Feature.CTRL_RX
    | Feature.CTRL_VLAN
    | Feature.GUEST_ANNOUNCE
    | Feature.MQ
    | Feature.CTRL_MAC_ADDR
    | Feature.INDIRECT_DESC
    | Feature.EVENT_IDX
    | Feature.PROTOCOL_FEATURES
    | Feature.VERSION_1
    | Feature.RING_PACKED
    | Feature.IN_ORDER
    | Feature.GUEST_USO4
    | Feature.GUEST_USO6
    | Feature.HOST_USO
)


# What a configuration may leave out, by its name there: what the guest sends, and what it gets.
OFFLOADS = {
    "csum": Feature.CSUM | Feature.GUEST_CSUM,
    "tso4": Feature.HOST_TSO4 | Feature.GUEST_TSO4,
    "tso6": Feature.HOST_TSO6 | Feature.GUEST_TSO6,
    "ecn": Feature.HOST_ECN | Feature.GUEST_ECN,
    "uso": Feature.HOST_USO | Feature.GUEST_USO4 | Feature.GUEST_USO6,
}


def offered_features(offloads: Collection[str]) -> int:
    """OFFERED_FEATURES, but of OFFLOADS only these."""
    bits = int(OFFERED_FEATURES)
    for name, features in OFFLOADS.items():
        if name not in offloads:
            bits &= ~int(features)
    return bits


@dataclass(frozen=True)
class Header:
    """The 12 bytes in front of every message."""

    request: int
    flags: int
    size_bytes: int

    @property
    def version(self) -> int:
        return self.flags & FLAG_VERSION_MASK

    @property
    def is_reply(self) -> bool:
        return bool(self.flags & FLAG_REPLY)

    @property
    def needs_reply(self) -> bool:
        return bool(self.flags & FLAG_NEED_REPLY)


@dataclass(frozen=True)
class RegionSpec:
    """One region of SET_MEM_TABLE.

    fd: stays the caller's; it may be closed once the region is mapped.
    """

    guest: int
    size_bytes: int
    user: int
    offset: int
    fd: int


def request_name(number: int) -> str:
    """The request's name, or its number when we do not know it."""
    try:
        return Request(number).name
    except ValueError:
        return f"request {number}"


def feature_names(bits: int, kind: type[enum.IntFlag] = Feature) -> list[str]:
    """Names in order of the bits; unknown ones as BIT_<n>."""
    names = []
    for bit in range(bits.bit_length()):
        if bits >> bit & 1:
            member = {int(flag): flag.name for flag in kind}.get(1 << bit)
            names.append(member or f"BIT_{bit}")
    return names
