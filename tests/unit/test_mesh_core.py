"""mesh/core.py and the C behind it: frames between two switches through loopback sockets.

Each side is a switch with one device (a socket pair in place of a tap) on its bridge and a mesh
port, breathed by hand.  What happens to single records on the wire is tests/c/mesh_*.c's.
"""

import errno
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from _dataplane import ffi, lib
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from mesh.address import Address
from mesh.core import CONTROL_LANE, KEY_BYTES, MeshCore, MeshCoreError, Punt, PuntKind, steer
from tests.fakes.switchbox import NEEDS_CSUM, ROUTER_MAC, BoxPort, mac_bytes, mapped, vnet_header

PEER = 3
MTU = 1400
UDP_GRO = 104
DEADLINE_S = 5.0
MACS = ("02:00:00:00:00:0a", "02:00:00:00:00:0b")
IPS = ("10.5.0.1", "10.5.0.9")
KEYS = (bytes(range(32)), bytes(range(32, 64)))
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "mesh_records.json").read_text())
GSO_TCP4 = 1


def udp_socket(host: str = "127.0.0.1") -> socket.socket:
    """host "::" takes IPv4 as well."""
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    if ":" in host:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    s.setblocking(False)
    s.bind((host, 0))
    return s


def address_of(s: socket.socket) -> Address:
    host, port = s.getsockname()[:2]
    return Address(ip_address("127.0.0.1" if host == "::" else host), port)


class Side:
    """Number 0 or 1; the other one's address is routed to PEER."""

    def __init__(self, number: int, node_id: bytes | None = None, host: str = "127.0.0.1") -> None:
        self.number = number
        self.syncs = 0
        self.now_ns = time.monotonic_ns()
        self.node_id = node_id or bytes([number + 1] * 8)
        self.socket = udp_socket(host)
        self.at = address_of(self.socket)
        self.core = MeshCore(1, self.node_id, bytes(32), MTU, self.sync)
        self.worker = lib.worker_new(0)
        self.fdb = lib.fdb_new(64, 1)
        self.neighbours = lib.neighbours_new(16)
        self.routes = lib.lpm_new(8)
        lib.lpm_add(self.routes, mapped(IPS[number]), 128, lib.ROUTE_PORT)
        lib.lpm_add(self.routes, mapped(IPS[1 - number]), 128, lib.ROUTE_PEER + PEER)
        self.device = BoxPort(0)
        self.snapshot = lib.snapshot_new(1)
        lib.snapshot_add_bridge(self.snapshot, self.fdb, mac_bytes(ROUTER_MAC), MTU)
        lib.snapshot_add_subnet(self.snapshot, 0, mapped("10.5.0.0"), 24 + 96)
        lib.snapshot_add_port(self.snapshot, self.device.c_port, 0)
        lib.snapshot_add_port(self.snapshot, self.core.c_port, -1)
        lib.snapshot_add_rxq(self.snapshot, 0, self.device.c_rxq)
        lib.snapshot_add_rxq(self.snapshot, 0, self.core.add_lane(0, self.socket.fileno()))
        lib.snapshot_set_routes(self.snapshot, self.routes, self.neighbours)
        lib.worker_publish(self.worker, self.snapshot)

    def sync(self) -> None:
        self.syncs += 1
        assert lib.worker_sync(self.worker, 10**9) == 0

    def breathe(self) -> None:
        self.now_ns += 1000
        lib.worker_breathe(self.worker, self.now_ns)

    def send(self, packet: Packet, header: bytes = bytes(12)) -> None:
        self.device.send(Ether(src=MACS[self.number], dst=ROUTER_MAC, type=0x0800) / packet, header)
        self.breathe()

    def install(self, other: "Side", index: int = 0x1000, *, initiator: bool) -> None:
        send, receive = KEYS if initiator else KEYS[::-1]
        self.core.install_session(
            PEER, index, index, send, receive, initiator=initiator, endpoint=other.at, cipher=1
        )

    def punts(self) -> list[Punt]:
        out, found = ffi.new("struct punt *"), []
        while lib.worker_punt_next(self.worker, out):
            data = bytes(ffi.buffer(out.data, out.len_bytes))
            fields = (out.kind, out.id, out.socket, bytes(out.address), out.port, data)
            found.append(Punt(*fields))
        return found

    @property
    def drops(self) -> dict[str, int]:
        counters: Any = ffi.new("struct counters *")
        lib.port_counters_read(self.core.c_port, counters)
        names = ffi.typeof("enum drop").elements
        return {
            names[i].removeprefix("DROP_").lower(): counters.drops[i]
            for i in range(lib.DROP_REASONS)
            if counters.drops[i]
        }

    def close(self) -> None:
        lib.worker_publish(self.worker, ffi.NULL)
        self.breathe()
        lib.worker_free(self.worker)
        lib.snapshot_free(self.snapshot)
        lib.tap_port_free(self.device.c_port)
        self.device.device.close()
        self.core.close()
        self.socket.close()
        lib.fdb_free(self.fdb)
        lib.neighbours_free(self.neighbours)
        lib.lpm_free(self.routes)


@contextmanager
def joined(*hosts: str) -> Iterator[tuple[Side, Side]]:
    pair = Side(0, host=hosts[0]), Side(1, host=hosts[1])
    for side in pair:
        side.core.create_peer(PEER, pair[1 - side.number].node_id)
    yield pair
    for side in pair:
        side.close()


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    with joined("127.0.0.1", "127.0.0.1") as pair:
        yield pair


def until(sides: tuple[Side, Side], condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"drops: {sides[0].drops}, {sides[1].drops}"
        for side in sides:
            side.breathe()


def received(sides: tuple[Side, Side], side: Side) -> tuple[bytes, Packet]:
    """The next frame at side's device that is not ARP; its questions are answered."""
    found: list[tuple[bytes, Packet]] = []

    def look() -> bool:
        for header, frame in side.device.receive_raw():
            packet = Ether(frame)
            if packet.haslayer(ARP):
                reply = ARP(op=2, hwsrc=MACS[side.number], psrc=IPS[side.number])
                reply.hwdst, reply.pdst = packet[ARP].hwsrc, packet[ARP].psrc
                side.device.send(Ether(src=MACS[side.number], dst=ROUTER_MAC) / reply)
            else:
                found.append((header, packet))
        return bool(found)

    until(sides, look)
    assert len(found) == 1
    return found[0]


def datagram(number: int, payload: bytes) -> Packet:
    return IP(src=IPS[number], dst=IPS[1 - number]) / UDP(sport=7, dport=9) / Raw(payload)


def connect(sides: tuple[Side, Side]) -> None:
    sides[1].install(sides[0], initiator=False)
    sides[0].install(sides[1], initiator=True)


def test_frames_pass_both_ways(sides):
    connect(sides)
    sides[0].send(datagram(0, b"there"))
    _, frame = received(sides, sides[1])
    assert (frame.src, frame.dst) == (ROUTER_MAC, MACS[1])
    assert bytes(frame[UDP].payload) == b"there"
    assert frame[IP].ttl == 64, "the mesh is one subnet"
    assert [p.kind for p in sides[1].punts()] == [PuntKind.SESSION_CONFIRMED]
    sides[1].send(datagram(1, b"and back"))
    _, frame = received(sides, sides[0])
    assert bytes(frame[UDP].payload) == b"and back"
    assert sides[0].drops == sides[1].drops == {}


@pytest.mark.parametrize(
    "hosts", [("::1", "::1"), ("::", "127.0.0.1"), ("127.0.0.1", "::")], ids=" to ".join
)
def test_sockets_of_either_family(hosts):
    with joined(*hosts) as sides:
        connect(sides)
        sides[0].send(datagram(0, b"there"))
        received(sides, sides[1])
        sides[1].send(datagram(1, b"and back"))
        received(sides, sides[0])
        assert sides[1].core.session_stats(0x1000).endpoint == sides[0].at
        assert [p.kind for p in sides[1].punts()] == [PuntKind.SESSION_CONFIRMED]


def test_an_endpoint_that_the_socket_cannot_reach_loses_the_packet(sides):
    connect(sides)
    sides[0].core.set_endpoint(0x1000, Address.parse("[::1]:9"))
    sides[0].send(datagram(0, b"nowhere"))
    assert sides[0].drops == {"send": 1}
    with pytest.raises(MeshCoreError):
        sides[0].core.send_keepalive(PEER)


def test_a_large_frame_stays_large(sides):
    connect(sides)
    payload = bytes(i % 251 for i in range(20000))
    tcp = TCP(sport=1, dport=2, seq=5, flags="PA", chksum=0x1234)
    sides[0].send(datagram(0, b"resolve me"))
    received(sides, sides[1])
    offload = vnet_header(NEEDS_CSUM, GSO_TCP4, 1448, 34, 16)
    sides[0].send(IP(src=IPS[0], dst=IPS[1]) / tcp / Raw(payload), offload)
    header, frame = received(sides, sides[1])
    flags, gso_type, _, gso_size, csum_start, csum_offset, _ = struct.unpack("<BBHHHHH", header)
    assert (flags, gso_type, csum_start, csum_offset) == (NEEDS_CSUM, GSO_TCP4, 34, 16)
    assert gso_size == MTU - 40, "recut to what a record carries"
    assert bytes(frame[TCP].payload) == payload
    assert frame[TCP].flags == "PA"
    assert frame[IP].len == 20040


def test_nothing_is_sent_without_keys(sides):
    for _ in range(3):
        sides[0].send(datagram(0, b"early"))
    assert sides[0].drops == {"no_session": 3}
    (punt,) = sides[0].punts()
    assert (punt.kind, punt.id) == (PuntKind.NEED_SESSION, PEER)
    # A responder waits for the proof that the peer has the key.
    sides[0].install(sides[1], initiator=False)
    sides[0].send(datagram(0, b"early"))
    assert sides[0].drops == {"no_session": 4}
    sides[0].core.promote_session(0x1000)
    sides[0].send(datagram(0, b"now"))
    assert sides[0].core.session_stats(0x1000).tx_records == 1


def test_a_keepalive_confirms(sides):
    connect(sides)
    sides[0].core.send_keepalive(PEER)
    until(sides, lambda: sides[1].core.session_stats(0x1000).rx_records)
    stats = sides[1].core.session_stats(0x1000)
    assert (stats.confirmed, stats.current, stats.last_rx_packet_ns) == (True, True, 0)
    assert stats.last_rx_ns > 0
    assert stats.endpoint == sides[0].at
    sent = sides[0].core.session_stats(0x1000)
    assert (sent.tx_records, sent.tx_bytes, sent.last_tx_ns) == (1, 48, 0)
    assert sent.last_keepalive_ns > 0
    assert sides[1].device.receive_raw() == [], "nothing to deliver"


def test_the_endpoint_follows_the_peer(sides):
    connect(sides)
    sides[0].send(datagram(0, b"record"))
    received(sides, sides[1])
    with udp_socket() as elsewhere:
        sides[0].core.set_endpoint(0x1000, address_of(elsewhere))
        sides[0].core.send_keepalive(PEER)
        elsewhere.sendto(elsewhere.recv(2000), (str(sides[1].at.ip), sides[1].at.port))
        sides[1].punts()
        until(sides, lambda: sides[1].core.session_stats(0x1000).endpoint == address_of(elsewhere))
        (punt,) = sides[1].punts()
        assert (punt.kind, punt.id, punt.source) == (
            PuntKind.ENDPOINT, 0x1000, address_of(elsewhere),
        )  # fmt: skip


def test_removing_waits_for_the_workers_twice(sides):
    connect(sides)
    sides[0].core.remove_session(0x1000)
    assert sides[0].syncs == 2
    sides[0].send(datagram(0, b"late"))
    assert sides[0].drops == {"no_session": 1}
    sides[0].core.remove_peer(PEER)
    assert sides[0].syncs == 3
    sides[0].send(datagram(0, b"late"))
    assert sides[0].drops == {"no_session": 1, "no_route": 1}


def test_keys_that_were_handed_over_are_wiped(sides):
    keys = [bytearray(KEYS[0]), bytearray(KEYS[1])]
    at = sides[1].at
    sides[0].core.install_session(PEER, 1, 1, *keys, initiator=True, endpoint=at, cipher=1)
    assert keys == [bytearray(KEY_BYTES)] * 2
    keys = [bytearray(KEYS[0]), bytearray(b"short")]
    with pytest.raises(MeshCoreError):
        sides[0].core.install_session(PEER, 2, 2, *keys, initiator=True, endpoint=at, cipher=1)
    assert keys == [bytearray(KEY_BYTES), bytearray(5)]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda s, _: s.core.create_peer(PEER, bytes(8)), errno.EEXIST),
        (lambda s, _: s.core.create_peer(65536, bytes(8)), errno.EINVAL),
        (lambda s, _: s.core.create_peer(4, bytes(7)), errno.EINVAL),
        (lambda s, _: s.core.remove_peer(4), errno.ENOENT),
        (lambda s, _: s.core.remove_session(1), errno.ENOENT),
        (lambda s, _: s.core.promote_session(1), errno.ENOENT),
        (lambda s, _: s.core.set_endpoint(1, s.at), errno.ENOENT),
        (lambda s, _: s.core.session_stats(1), errno.ENOENT),
        (lambda s, _: s.core.send_keepalive(PEER), errno.ENOKEY),
        (lambda s, _: s.core.send_keepalive(4), errno.ENOENT),
        (lambda s, _: s.core.add_lane(0, s.socket.fileno()), errno.EEXIST),
        (lambda s, _: s.core.add_lane(1, s.socket.fileno()), errno.EINVAL),
        (lambda s, _: s.core.set_lanes(2), errno.EBUSY),
        (lambda s, _: s.core.lane_rxq(5), errno.ENOENT),
        (lambda s, _: steer(s.socket.fileno(), 0), errno.EINVAL),
        (lambda s, o: [s.install(o, i, initiator=True) for i in (5, 5 + 65536)], errno.EEXIST),
        (lambda s, _: MeshCore(1, bytes(8), bytes(32), 100, s.sync), errno.EINVAL),
        (lambda s, _: MeshCore(1, bytes(9), bytes(32), MTU, s.sync), errno.EINVAL),
    ],
)
def test_misuse_is_refused(sides, call, reason):
    with pytest.raises(MeshCoreError) as error:
        call(*sides)
    assert error.value.errno_ == reason


def test_another_cipher_is_refused(sides):
    with pytest.raises(MeshCoreError, match="cannot install keys for peer 3"):
        sides[0].core.install_session(
            PEER, 1, 1, *KEYS, initiator=True, endpoint=sides[1].at, cipher=2
        )


# ---- tests/golden/mesh_records.json


def golden_side(number: int, endpoint: Address) -> Side:
    """A side whose node id, and its peer's, are the vectors' destination."""
    node_id, key = bytes.fromhex(GOLDEN["node_id"]), bytes.fromhex(GOLDEN["key"])
    side = Side(number, node_id)
    side.core.create_peer(PEER, node_id)
    index = GOLDEN["index"]
    side.core.install_session(
        PEER, index, index, key, key, initiator=True, endpoint=endpoint, cipher=1
    )
    return side


@pytest.mark.parametrize("vector", GOLDEN["vectors"], ids=lambda vector: vector["name"])
def test_golden_records_open(vector):
    with udp_socket() as wire:
        side = golden_side(0, address_of(wire))
        wire.sendto(bytes.fromhex(vector["record"]), (str(side.at.ip), side.at.port))
        until((side, side), lambda: side.core.session_stats(GOLDEN["index"]).rx_records)
        if packet := bytes.fromhex(vector["packet"]):
            _, frame = received((side, side), side)
            assert bytes(frame)[14:] == packet
        assert side.drops == {}
        side.close()


def test_golden_records_are_what_is_sent():
    vectors = {vector["name"]: vector for vector in GOLDEN["vectors"]}
    with udp_socket() as wire:
        side = golden_side(1, address_of(wire))
        side.core.send_keepalive(PEER)
        assert wire.recv(2000).hex() == vectors["keepalive"]["record"]
        for name in ("packet", "longest packet"):
            side.send(Raw(bytes.fromhex(vectors[name]["packet"])))
            assert wire.recv(2000).hex() == vectors[name]["record"]
        side.close()


def test_the_control_lane_is_no_workers():
    assert CONTROL_LANE == lib.MAX_WORKERS - 1
