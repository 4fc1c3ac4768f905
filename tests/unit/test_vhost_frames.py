"""Frames from one fake guest to another through real C ports: every shape of chain and buffer."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.fakes.frontend import BASIC, GUEST_OFFLOADS, HOST_OFFLOADS, MERGEABLE
from tests.fakes.ram import Ram
from tests.fakes.switchbox import BoxPort, vnet_header
from tests.fakes.vhostbox import A, B, VhostBox, frame, pair
from vhost.messages import Feature

PLAIN = {"mergeable": MERGEABLE, "single": BASIC, "legacy": Feature.PROTOCOL_FEATURES}
TCP4, TCP6, UDP_L4, ECN = 1, 4, 5, 0x80
NEEDS_CSUM = 1


def vnet(flags: int, gso_type: int, gso_size: int, start: int, offset: int) -> bytes:
    return struct.pack("<BBHHHHH", flags, gso_type, 0, gso_size, start, offset, 0)


def tcp_frame(version: int, payload: bytes, *, vlan: bool = False, flags: str = "A") -> Packet:
    ether = Ether(src=A, dst=B) / Dot1Q(vlan=5) if vlan else Ether(src=A, dst=B)
    ip = IP(src="10.5.0.1", dst="10.5.0.2") if version == 4 else IPv6(src="fd00::1", dst="fd00::2")
    return ether / ip / TCP(sport=1000, dport=2000, seq=5000, flags=flags) / Raw(payload)


def offloaded(packet: Packet, gso_type: int, gso_size: int) -> tuple[bytes, bytes]:
    """(header, frame) as a driver hands it over, the pseudo-header's sum in the checksum field."""
    data = bytearray(bytes(packet))
    start = len(data) - len(bytes(packet[TCP]))
    ip = packet[IP] if IP in packet else packet[IPv6]
    addresses = bytes.fromhex(
        "".join(f"{int(x):02x}" for a in (ip.src, ip.dst) for x in a.split("."))
        if IP in packet
        else "fd000000000000000000000000000001fd000000000000000000000000000002"
    )
    pseudo = addresses + struct.pack(">II", len(data) - start, 6)
    total = sum(struct.unpack(f">{len(pseudo) // 2}H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    data[start + 16 : start + 18] = struct.pack(">H", total)
    return vnet(NEEDS_CSUM, gso_type, gso_size, start, 16), bytes(data)


def is_right(data: bytes) -> bool:
    """Whether the checksums of a received frame are what they should be."""
    packet = Ether(data)
    again = packet.copy()
    del again[TCP].chksum
    if IP in again:
        del again[IP].chksum
    return bytes(Ether(bytes(again))) == data


@pytest.mark.parametrize("receiver", PLAIN)
@pytest.mark.parametrize("sender", PLAIN)
def test_bytes_arrive_as_they_were_sent(sender: str, receiver: str) -> None:
    lengths = [14, 60, 64, 159, 160, 161, 1000, 1514]
    with VhostBox() as box:
        a, b = pair(box, PLAIN[sender], PLAIN[receiver])
        b.post(len(lengths))
        for length in lengths:
            a.transmit(frame(length))
        box.settle()
        got = b.received()
        assert [f for _, f in got] == [frame(length) for length in lengths]
        empty = bytes(10) + b"\1\0" if b.header_bytes == 12 else bytes(10)
        assert {header for header, _ in got} == {empty}
        assert len(a.rings[1].reap()) == len(lengths)
        assert box.count(0, "rx_packets") == box.count(1, "tx_packets") == len(lengths)
        assert box.count(0, "rx_bytes") == box.count(1, "tx_bytes") == sum(lengths)


@pytest.mark.parametrize("indirect", [False, True])
@pytest.mark.parametrize(
    "pieces",
    [(12,), (5, 7), (12, 14), (13, 1), (1,) * 12, (1,) * 30, (100, 100, 100), (12, 160), (12, 159)],
    ids=str,
)
def test_any_layout_of_the_senders_chain(pieces: tuple[int, ...], indirect: bool) -> None:
    with VhostBox() as box:
        a, b = pair(box, MERGEABLE | Feature.INDIRECT_DESC)
        b.post(1)
        a.transmit(frame(700), pieces=pieces, indirect=indirect)
        box.settle()
        assert b.frames() == [frame(700)]


@pytest.mark.parametrize("indirect", [False, True])
@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
@pytest.mark.parametrize("features", PLAIN)
def test_any_layout_of_the_receivers_buffers(features: str, pieces: int, indirect: bool) -> None:
    with VhostBox() as box:
        a, b = pair(box, MERGEABLE, PLAIN[features] | Feature.INDIRECT_DESC)
        b.post(2, 1600, pieces=pieces, indirect=indirect)
        a.transmit(frame(1514))
        a.transmit(frame(60))
        box.settle()
        assert b.frames() == [frame(1514), frame(60)]


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(14, 9000),
    cuts=st.lists(st.integers(1, 700), max_size=12),
    size=st.integers(13, 3000),
    pieces=st.integers(1, 4),
)
def test_mergeable_buffers_of_any_size(
    length: int, cuts: list[int], size: int, pieces: int
) -> None:
    with VhostBox() as box:
        a, b = pair(box)
        while sum(cuts) >= length + 12:
            cuts.pop()
        count = -(-(length + 12) // size)
        if count > 256 // pieces:
            return
        b.post(256 // pieces, size, pieces=min(pieces, size))
        a.transmit(frame(length), pieces=cuts)
        box.settle()
        assert b.frames() == [frame(length)]
        assert box.drops(1) == {}


def test_a_buffer_that_lies_in_two_regions() -> None:
    border = 0x1000_0000 + (4 << 20)
    with VhostBox() as box:
        a, b = box.front(0, Ram([(0x1000_0000, 4 << 20), (border, 4 << 20)])), box.front(1)
        a.boot()
        b.boot()
        b.post(2)
        data = bytes(12) + frame(600)
        for before in (100, 6):  # within the frame, within the header
            a.ram.write(border - before, data)
            a.rings[1].add([(border - before, len(data), False)])
            box.settle()
        assert b.frames() == [frame(600)] * 2


def test_a_file_may_hold_memory_behind_an_offset() -> None:
    with VhostBox() as box:
        a, b = box.front(0, Ram([(0, 2 << 20)], offset=3 * 4096)), box.front(1)
        a.boot()
        b.boot()
        b.post(1)
        a.transmit(frame(100))
        box.settle()
        assert b.frames() == [frame(100)]


# ---- offloads

LARGE = bytes(i * 31 & 0xFF for i in range(20000))


@pytest.mark.parametrize("vlan", [False, True])
@pytest.mark.parametrize("version", [4, 6])
def test_a_large_frame_stays_large_between_guests_that_negotiated_it(
    version: int, vlan: bool
) -> None:
    with VhostBox() as box:
        a, b = pair(box, MERGEABLE | HOST_OFFLOADS, MERGEABLE | GUEST_OFFLOADS)
        b.post(40)
        header, data = offloaded(
            tcp_frame(version, LARGE, vlan=vlan), (TCP4 if version == 4 else TCP6) | ECN, 1360
        )
        a.transmit(data, header)
        box.settle()
        ((got_header, got),) = b.received()
        assert got == data
        assert got_header[:2] == header[:2]
        assert got_header[4:10] == header[4:10]
        headers = len(data) - len(LARGE)
        assert got_header[2:4] == struct.pack("<H", headers)
        assert box.count(0, "rx_gso_packets") == box.count(1, "tx_gso_packets") == 1


@pytest.mark.parametrize("vlan", [False, True])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("receiver", [0, Feature.GUEST_CSUM], ids=["nothing", "csum"])
def test_a_large_frame_is_cut_for_a_guest_that_did_not(
    version: int, vlan: bool, receiver: int
) -> None:
    with VhostBox() as box:
        a, b = pair(box, MERGEABLE | HOST_OFFLOADS, MERGEABLE | receiver)
        b.post(40)
        packet = tcp_frame(version, LARGE, vlan=vlan, flags="PA")
        header, data = offloaded(packet, TCP4 if version == 4 else TCP6, 1360)
        a.transmit(data, header)
        box.settle()
        got = b.received()
        assert len(got) == -(-len(LARGE) // 1360)
        assert b"".join(bytes(Ether(f)[TCP].payload) for _, f in got) == LARGE
        assert [Ether(f)[TCP].seq for _, f in got] == [5000 + 1360 * i for i in range(len(got))]
        assert [str(Ether(f)[TCP].flags) for _, f in got] == ["A"] * (len(got) - 1) + ["PA"]
        if receiver:
            assert all(h[0] == NEEDS_CSUM for h, _ in got)
        else:
            assert all(h[:10] == bytes(10) for h, _ in got)
            assert all(is_right(f) for _, f in got)
        assert box.count(1, "tx_gso_packets") == 0


@pytest.mark.parametrize("first", [0, 2])
def test_a_frame_that_is_half_cut_is_finished_before_another(first: int) -> None:
    """However late its sender's turn comes: a worker may nap for longer than it waits."""
    with VhostBox(3) as box:
        _, b = pair(box, MERGEABLE | HOST_OFFLOADS, MERGEABLE)
        box.front(2).boot(MERGEABLE | HOST_OFFLOADS)
        sent = {}
        for number in (first, 2 - first):
            payload = bytes([number + 1]) * 6 * 1360
            header, data = offloaded(tcp_frame(4, payload), TCP4, 1360)
            sent[number] = payload
            box.fronts[number].transmit(data, header)
            b.post(4 if number == first else 0)
            box.breathe()
        for _ in range(4):
            b.post(2)
            box.breathe(400_000)
        box.settle()
        got = [bytes(Ether(data)[TCP].payload) for _, data in b.received()]
        assert b"".join(got) == sent[first] + sent[2 - first]
        assert box.drops(1) == {}


@pytest.mark.parametrize("size", [0, 1, 7, 500, 1360])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("receiver", [0, Feature.GUEST_CSUM], ids=["completed", "passed"])
def test_checksums(version: int, size: int, receiver: int) -> None:
    with VhostBox() as box:
        a, b = pair(box, MERGEABLE | HOST_OFFLOADS, MERGEABLE | receiver)
        b.post(1)
        header, data = offloaded(tcp_frame(version, LARGE[:size]), 0, 0)
        a.transmit(data, header, pieces=(12, 30, 41) if size > 100 else ())
        box.settle()
        ((got_header, got),) = b.received()
        if receiver:
            assert (got_header[0], got) == (NEEDS_CSUM, data)
        else:
            assert got_header[:10] == bytes(10)
            assert is_right(got)


def udp() -> bytes:
    return bytes(Ether(src=A, dst=B) / IP() / UDP() / Raw(bytes(100)))


@pytest.mark.parametrize(
    "header",
    [
        vnet(NEEDS_CSUM, 0, 0, 0, 16),
        vnet(NEEDS_CSUM, 0, 0, 13, 0),
        vnet(NEEDS_CSUM, 0, 0, 5000, 16),
        vnet(NEEDS_CSUM, 0, 0, 0xFFFF, 0xFFFF),
        vnet(NEEDS_CSUM, 0, 0, 34, 200),
        vnet(NEEDS_CSUM, TCP4, 0, 34, 16),
        vnet(NEEDS_CSUM, TCP4, 1000, 34, 6),
        vnet(NEEDS_CSUM, TCP6, 1000, 34, 16),
        vnet(0, TCP4, 1000, 34, 16),
        vnet(NEEDS_CSUM, 3, 1000, 34, 6),
        vnet(NEEDS_CSUM, 99, 1000, 34, 6),
        vnet(NEEDS_CSUM, UDP_L4, 0, 34, 6),
        vnet(NEEDS_CSUM, UDP_L4, 50, 34, 16),
        vnet(0, UDP_L4, 50, 34, 6),
        vnet(0, UDP_L4 | ECN, 0, 0, 0),
        vnet(0, ECN, 0, 0, 0),
    ],
    ids=lambda h: h.hex(),
)
def test_offload_fields_that_contradict_the_frame(header: bytes) -> None:
    with VhostBox() as box:
        a, b = pair(box, MERGEABLE | HOST_OFFLOADS, MERGEABLE | GUEST_OFFLOADS)
        b.post(3)
        a.transmit(frame(60))
        a.transmit(udp(), header)
        a.transmit(frame(61))
        box.settle()
        assert b.frames() == [frame(60), frame(61)]
        assert box.drops(0) == {"bad_offload": 1}
        assert len(a.rings[1].reap()) == 3


def test_congestion_said_of_a_frame_that_is_not_cut_means_nothing() -> None:
    with VhostBox(2) as box:
        tap = BoxPort(2)
        box.ports.append(tap)  # type: ignore[arg-type]  # as much of a port as the box asks for
        _, b = pair(box)
        box.republish()
        b.post(1)
        tap.send(frame(100), vnet_header(gso_type=0x80))
        box.settle()
        assert b.frames() == [frame(100)]
