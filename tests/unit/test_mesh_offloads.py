"""Large frames through the mesh: cut to the path, sealed, opened, merged; nothing lost of them."""

from collections.abc import Iterator

import pytest

from tests.fakes.meshsides import MACS, MTU, PEER, Side, connect, joined, until
from tests.fakes.offloads import ACK, CWR, FIN, PSH, TCP, UDP, Flow, receive
from tests.fakes.switchbox import ROUTER_MAC, mac_bytes

ROUTER = mac_bytes(ROUTER_MAC)
ENDS = [mac_bytes(mac) for mac in MACS]
PAYLOAD = bytes((i * 31 + i // 256) & 0xFF for i in range(20000))
SEQ = 70000

Sides = tuple[Side, Side]


@pytest.fixture
def sides() -> Iterator[Sides]:
    with joined("127.0.0.1", "127.0.0.1") as pair:
        connect(pair)
        pair[0].core.send_keepalive(PEER)  # so that side 1 may send as well
        until(pair, lambda: pair[1].core.session_stats(0x1000).rx_records)
        yield pair


def flows(version: int, protocol: int) -> tuple[Flow, Flow]:
    """What side 0 sends, and the same as side 1's device gets it."""
    sent = Flow(ROUTER + ENDS[0], version, protocol)
    got = Flow(ENDS[1] + ROUTER, version, protocol)
    return sent, got


def introduce(sides: Sides, version: int) -> None:
    """Side 1 sends something, so its switch knows its MAC address: large frames do not wait."""
    there = Flow(ROUTER + ENDS[1], version, UDP)
    addresses = there.l3 + (12 if version == 4 else 8)
    size = 4 if version == 4 else 16
    frame = there.finished(there.frame(b"here I am"))
    swapped = frame[addresses + size : addresses + 2 * size] + frame[addresses : addresses + size]
    sides[1].device.send(frame[:addresses] + swapped + frame[addresses + 2 * size :])
    until(sides, sides[0].device.receive_raw)


def arrived(sides: Sides) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []

    def look() -> bool:
        found.extend(sides[1].device.receive_raw())
        return bool(found)

    until(sides, look)
    return found


@pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
def test_large_datagrams_keep_their_boundaries(sides: Sides, version: int) -> None:
    sent, expected = flows(version, UDP)
    introduce(sides, version)
    size = 1237
    sides[0].device.send(sent.frame(PAYLOAD, ident=9), sent.header(size) + bytes(2))
    got = receive(expected, 0, arrived(sides))
    assert got.large == 1
    assert got.datagrams == [PAYLOAD[i : i + size] for i in range(0, len(PAYLOAD), size)]
    assert sides[0].drops == sides[1].drops == {}


@pytest.mark.parametrize("flags", [ACK | PSH, ACK | CWR | FIN], ids=["plain", "congestion"])
@pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
def test_large_segments_are_recut_and_joined(sides: Sides, version: int, flags: int) -> None:
    sent, expected = flows(version, TCP)
    introduce(sides, version)
    frame = sent.frame(PAYLOAD, seq=SEQ, flags=flags)
    sides[0].device.send(frame, sent.header(1448, ecn=bool(flags & CWR)) + bytes(2))
    header_and_frame = arrived(sides)
    got = receive(expected, SEQ, header_and_frame)
    assert (got.large, got.ecn) == (1, int(bool(flags & CWR)))
    assert got.tcp_flags == [flags]
    assert got.stream == PAYLOAD
    ((header, _),) = header_and_frame
    assert int.from_bytes(header[4:6], "little") == MTU - (sent.headers_bytes - sent.l3)


@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
def test_a_checksum_stays_to_be_done(sides: Sides, version: int, protocol: int) -> None:
    sent, expected = flows(version, protocol)
    introduce(sides, version)
    sides[0].device.send(sent.frame(PAYLOAD[:777], seq=SEQ), sent.header() + bytes(2))
    got = receive(expected, SEQ, arrived(sides))
    assert (got.needs_csum, got.large) == (1, 0)
    assert got.stream + b"".join(got.datagrams) == PAYLOAD[:777]


@pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
def test_datagrams_that_do_not_fit_the_path_are_answered(sides: Sides, version: int) -> None:
    """Where a datagram ends is its sender's to say, so none is made shorter."""
    sent, _ = flows(version, UDP)
    size = MTU - (sent.headers_bytes - sent.l3) + 1
    sides[0].device.send(sent.frame(PAYLOAD), sent.header(size) + bytes(2))
    sides[0].breathe()
    ((_, answer),) = sides[0].device.receive_raw()
    assert sides[0].device.drops == {"too_big": 1}
    assert answer[:12] == ENDS[0] + ROUTER
    icmp = answer[sent.l3 + (20 if version == 4 else 40) :]
    assert icmp[:2] == (b"\x03\x04" if version == 4 else b"\x02\x00")
    assert int.from_bytes(icmp[4:8], "big") == MTU
