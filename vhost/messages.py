"""The vhost-user messages we know: numbers, shapes and names.

Source: vhost-user specification (QEMU's docs/interop/vhost-user), "Message types"; virtio 1.2,
section 5.1.3 for the feature bits, virtio 1.3 there for USO.  All fields are in the machine's own
byte order.
"""

import enum
import struct
from collections.abc import Collection
from dataclasses import dataclass, field

HEADER = struct.Struct("=III")  # request, flags, payload bytes
VERSION = 1
FLAG_VERSION_MASK = 3
FLAG_REPLY = 4
FLAG_NEED_REPLY = 8

MAX_PAYLOAD_BYTES = 4096
MAX_FDS = 8
MAX_RINGS = 257
MAX_MEM_SLOTS = 509

U64 = struct.Struct("=Q")
VRING_STATE = struct.Struct("=II")  # index, number
VRING_ADDR = struct.Struct("=IIQQQQ")  # index, flags, descriptors, used, available, log
MEMORY_HEADER = struct.Struct("=II")  # regions, padding
MEMORY_REGION = struct.Struct("=QQQQ")  # guest address, bytes, user address, offset in the file
MEMORY_SLOT = struct.Struct("=QQQQQ")  # padding and one region
DEVICE_STATE_FD = struct.Struct("=II")  # direction, phase
LOG = struct.Struct("=QQ")  # bytes, offset in the file
CONFIG_HEADER = struct.Struct("=III")  # offset, bytes, flags

VRING_F_LOG = 1  # of SET_VRING_ADDR: what is written to the used ring is logged
VRING_INDEX_MASK = 0xFF
VRING_NO_FD = 0x100

STATE_SAVE, STATE_LOAD = 0, 1  # directions of SET_DEVICE_STATE_FD
STATE_STOPPED = 0  # its only phase

# struct virtio_net_config up to the MTU: MAC, status, pairs, MTU (virtio 1.2, 5.1.4).
NET_CONFIG = struct.Struct("=6sHHH")
NET_CONFIG_BYTES = 256  # as much as a front-end may ask for; zeros behind what we have
NET_STATUS_LINK_UP = 1


class Request(enum.IntEnum):
    """What a front-end may ask, also of backends unlike us."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
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
    SEND_RARP = 19
    NET_SET_MTU = 20
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22
    SET_VRING_ENDIAN = 23
    GET_CONFIG = 24
    SET_CONFIG = 25
    CREATE_CRYPTO_SESSION = 26
    CLOSE_CRYPTO_SESSION = 27
    POSTCOPY_ADVISE = 28
    POSTCOPY_LISTEN = 29
    POSTCOPY_END = 30
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    GPU_SET_SOCKET = 33
    RESET_DEVICE = 34
    VRING_KICK = 35
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40
    GET_SHARED_OBJECT = 41
    SET_DEVICE_STATE_FD = 42
    CHECK_DEVICE_STATE = 43
    GET_SHMEM_CONFIG = 44


class ProtocolFeature(enum.IntFlag):
    """Bits of GET_PROTOCOL_FEATURES, by name also where we do not offer them."""

    MQ = 1 << 0
    LOG_SHMFD = 1 << 1
    RARP = 1 << 2
    REPLY_ACK = 1 << 3
    MTU = 1 << 4
    BACKEND_REQ = 1 << 5
    CROSS_ENDIAN = 1 << 6
    CRYPTO_SESSION = 1 << 7
    PAGEFAULT = 1 << 8
    CONFIG = 1 << 9
    BACKEND_SEND_FD = 1 << 10
    HOST_NOTIFIER = 1 << 11
    INFLIGHT_SHMFD = 1 << 12
    RESET_DEVICE = 1 << 13
    INBAND_NOTIFICATIONS = 1 << 14
    CONFIGURE_MEM_SLOTS = 1 << 15
    STATUS = 1 << 16
    XEN_MMAP = 1 << 17
    SHARED_OBJECT = 1 << 18
    DEVICE_STATE = 1 << 19


class DeviceStatus(enum.IntFlag):
    """The driver's progress (virtio 1.2, 2.1)."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


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
    LOG_ALL = 1 << 26  # VHOST_F_LOG_ALL
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
    | ProtocolFeature.LOG_SHMFD
    | ProtocolFeature.RARP
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.MTU
    | ProtocolFeature.BACKEND_REQ
    | ProtocolFeature.CONFIG
    | ProtocolFeature.RESET_DEVICE
    | ProtocolFeature.CONFIGURE_MEM_SLOTS
    | ProtocolFeature.STATUS
    | ProtocolFeature.DEVICE_STATE
)

# Every port's, but for what its offloads leave out, and always: a set that changed over a restart
# makes QEMU drop the connection.  MAC joins them when the configuration names one.
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
    | Feature.LOG_ALL
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
    """One region of guest memory; equal when it is the same memory at the same places.

    file: what fd is open on, as (device, inode).  fd: stays the caller's; it may be closed once the
    region is mapped.
    """

    guest: int
    size_bytes: int
    user: int
    offset: int
    file: tuple[int, int]
    fd: int = field(compare=False)


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
