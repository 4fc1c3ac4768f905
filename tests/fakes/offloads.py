"""Frames as a driver with offloads hands them over, and what a receiver makes of those it gets.

Written after the RFCs, not after our C: checksums are computed with a remainder, which is what a
one's-complement sum is (RFC 1071, section 2: the sum of 16-bit words modulo 65535).
"""

import struct
from dataclasses import dataclass, field

NEEDS_CSUM, DATA_VALID = 1, 2
TCP4, TCP6, UDP_L4, ECN = 1, 4, 5, 0x80
TCP, UDP = 6, 17
FIN, PSH, ACK, CWR = 0x01, 0x08, 0x10, 0x80
VLAN_TAG = struct.pack(">HH", 0x8100, 5)
VNET = struct.Struct("<BBHHHH")
ADDRESSES = {
    4: bytes([10, 5, 0, 1, 10, 5, 0, 9]),
    6: bytes.fromhex("fd00000000000000000000000000000afd00000000000000000000000000000b"),
}
TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")  # an option of TCP
DESTINATION_OPTIONS = 60
PADDING = bytes([DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0])  # an extension header of nothing


def words_sum(data: bytes) -> int:
    """0 and 65535 are the same number here."""
    return int.from_bytes(data + b"\0" * (len(data) % 2), "big") % 65535


def pseudo_header(addresses: bytes, protocol: int, length: int) -> bytes:
    return addresses + struct.pack(">II", length, protocol)


@dataclass(frozen=True)
class Flow:
    """One direction of a connection between two guests.

    macs: to and from, 12 bytes.  options: TCP's, whole words.  extra: IPv4 options, whole words, or
    IPv6 extension headers of 8 bytes each that all are destination options.
    """

    macs: bytes
    version: int
    protocol: int
    vlan: bool = False
    options: bytes = TIMESTAMPS
    extra: bytes = b""

    @property
    def l3(self) -> int:
        return 18 if self.vlan else 14

    @property
    def l4(self) -> int:
        return self.l3 + (20 if self.version == 4 else 40) + len(self.extra)

    @property
    def headers_bytes(self) -> int:
        return self.l4 + (20 + len(self.options) if self.protocol == TCP else 8)

    @property
    def csum_offset(self) -> int:
        return 16 if self.protocol == TCP else 6

    @property
    def gso_type(self) -> int:
        if self.protocol == UDP:
            return UDP_L4
        return TCP4 if self.version == 4 else TCP6

    def _ip(self, l4_bytes: int, ident: int) -> bytes:
        addresses = ADDRESSES[self.version]
        if self.version == 6:
            following = DESTINATION_OPTIONS if self.extra else self.protocol
            length = len(self.extra) + l4_bytes
            ip = struct.pack(">IHBB", 0x6AB12345, length, following, 61) + addresses
            if not self.extra:
                return ip
            return ip + self.extra[:-8] + bytes([self.protocol]) + self.extra[-7:]
        total = 20 + len(self.extra) + l4_bytes
        first = 0x45 + len(self.extra) // 4
        ip = struct.pack(">BBHHHBBH", first, 0x02, total, ident, 0x4000, 61, self.protocol, 0)
        ip += addresses + self.extra
        return ip[:10] + struct.pack(">H", 65535 - words_sum(ip)) + ip[12:]

    def frame(self, payload: bytes, *, seq: int = 0, flags: int = ACK, ident: int = 0) -> bytes:
        """With the sum of the pseudo-header in the checksum field."""
        if self.protocol == TCP:
            offset = (20 + len(self.options)) // 4 << 4
            l4 = struct.pack(">HHIIBBHHH", 1000, 2000, seq, 77, offset, flags, 500, 0, 0)
            l4 += self.options
        else:
            l4 = struct.pack(">HHHH", 1000, 2000, 8 + len(payload), 0)
        length = len(l4) + len(payload)
        partial = words_sum(pseudo_header(ADDRESSES[self.version], self.protocol, length))
        at = self.csum_offset
        l4 = l4[:at] + struct.pack(">H", partial) + l4[at + 2 :]
        tag = VLAN_TAG if self.vlan else b""
        ethertype = b"\x08\x00" if self.version == 4 else b"\x86\xdd"
        return self.macs + tag + ethertype + self._ip(length, ident) + l4 + payload

    def finished(self, frame: bytes) -> bytes:
        """The same frame with its checksum complete."""
        at = self.l4 + self.csum_offset
        value = 65535 - words_sum(frame[self.l4 :])
        return frame[:at] + struct.pack(">H", value or 65535) + frame[at + 2 :]

    def header(self, gso_size: int = 0, *, ecn: bool = False) -> bytes:
        """Ten bytes of virtio-net header in front of frame(); gso_size 0: not a large one."""
        kind = (self.gso_type | (ECN if ecn else 0)) if gso_size else 0
        return VNET.pack(
            NEEDS_CSUM,
            kind,
            self.headers_bytes if gso_size else 0,
            gso_size,
            self.l4,
            self.csum_offset,
        )


@dataclass
class Received:
    """What a receiver's stack got.

    stream: TCP's bytes.  datagrams: UDP's, large frames taken apart.  large: frames that came
    large.  ecn: of those, how many said that CWR belongs to the first segment only.
    tcp_flags, idents: of each frame in turn.
    """

    stream: bytes = b""
    datagrams: list[bytes] = field(default_factory=list)
    large: int = 0
    ecn: int = 0
    needs_csum: int = 0
    tcp_flags: list[int] = field(default_factory=list)
    idents: list[int] = field(default_factory=list)


def receive(flow: Flow, first_seq: int, got: list[tuple[bytes, bytes]]) -> Received:
    """Check each (virtio-net header, frame) of a flow and take its payload.

    Every length and checksum must be right, TCP without gaps from first_seq on.
    """
    result = Received()
    for header, frame in got:
        flags, kind, hdr_len, gso_size, start, offset = VNET.unpack(header[:10])
        assert frame[: flow.l3] == flow.frame(b"")[: flow.l3]
        check_ip(flow, frame)
        if flags & NEEDS_CSUM:
            assert (start, offset) == (flow.l4, flow.csum_offset)
            check_partial(flow, frame)
            result.needs_csum += 1
        else:
            assert flags & ~DATA_VALID == 0
            assert (start, offset) == (0, 0)
            check_l4(flow, frame)
        payload = frame[flow.headers_bytes :]
        if kind:
            assert flags & NEEDS_CSUM
            assert kind & ~ECN == flow.gso_type
            assert hdr_len == flow.headers_bytes
            assert gso_size > 0
            result.large += 1
            result.ecn += bool(kind & ECN)
        if flow.version == 4:
            result.idents.append(struct.unpack(">H", frame[flow.l3 + 4 : flow.l3 + 6])[0])
        if flow.protocol == TCP:
            seq, _ack, _offset, tcp_flags = struct.unpack_from(">IIBB", frame, flow.l4 + 4)
            assert seq == first_seq + len(result.stream)
            assert frame[flow.l4 + 20 : flow.headers_bytes] == flow.options
            result.tcp_flags.append(tcp_flags)
            result.stream += payload
        else:
            size = gso_size if kind else len(payload)
            result.datagrams += [payload[i : i + size] for i in range(0, len(payload), size)]
    return result


def check_ip(flow: Flow, frame: bytes) -> None:
    ip = frame[flow.l3 : flow.l4]
    if flow.version == 4:
        assert words_sum(ip) == 0, "the IPv4 header's checksum is wrong"
        assert struct.unpack(">H", ip[2:4])[0] == len(frame) - flow.l3
        assert ip[12:] == ADDRESSES[4] + flow.extra
    else:
        assert struct.unpack(">H", ip[4:6])[0] == len(frame) - flow.l3 - 40
        assert ip[8:40] == ADDRESSES[6]
    if flow.protocol == UDP:
        assert struct.unpack_from(">H", frame, flow.l4 + 4)[0] == len(frame) - flow.l4


def check_partial(flow: Flow, frame: bytes) -> None:
    (value,) = struct.unpack_from(">H", frame, flow.l4 + flow.csum_offset)
    pseudo = pseudo_header(ADDRESSES[flow.version], flow.protocol, len(frame) - flow.l4)
    assert value % 65535 == words_sum(pseudo), "not the pseudo-header's sum"


def check_l4(flow: Flow, frame: bytes) -> None:
    l4 = frame[flow.l4 :]
    pseudo = pseudo_header(ADDRESSES[flow.version], flow.protocol, len(l4))
    assert words_sum(pseudo + l4) == 0, "the checksum is wrong"
    assert l4[flow.csum_offset : flow.csum_offset + 2] != b"\0\0", "zero means no checksum"
