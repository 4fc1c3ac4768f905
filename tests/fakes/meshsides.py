"""Two switches joined by the mesh through loopback sockets.

Each side is a switch with one device (a socket pair in place of a tap) on its bridge and a mesh
port, breathed by hand.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

from _dataplane import ffi, lib
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from mesh.address import Address
from mesh.core import RELAY_KEY_BYTES, MeshCore, Punt
from tests.fakes.switchbox import ROUTER_MAC, BoxPort, mac_bytes, mapped

PEER = 3
MTU = 1400
UDP_GRO = 104
DEADLINE_S = 5.0
MACS = ("02:00:00:00:00:0a", "02:00:00:00:00:0b")
IPS = ("10.5.0.1", "10.5.0.9")
IPS6 = ("fd00::a", "fd00::b")
KEYS = (bytes(range(32)), bytes(range(32, 64)))


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
        lib.lpm_add(self.routes, mapped(IPS6[number]), 128, lib.ROUTE_PORT)
        lib.lpm_add(self.routes, mapped(IPS6[1 - number]), 128, lib.ROUTE_PEER + PEER)
        self.device = BoxPort(0)
        self.snapshot = lib.snapshot_new(1)
        lib.snapshot_add_bridge(self.snapshot, self.fdb, mac_bytes(ROUTER_MAC), MTU)
        lib.snapshot_add_subnet(self.snapshot, 0, mapped("10.5.0.0"), 24 + 96)
        lib.snapshot_add_port(self.snapshot, self.device.c_port, 0)
        lib.snapshot_add_port(self.snapshot, self.core.c_port, -1)
        lib.snapshot_add_rxq(self.snapshot, 0, self.device.c_rxq)
        for rxq in self.core.add_lane(0, self.socket.fileno()):
            lib.snapshot_add_rxq(self.snapshot, 0, rxq)
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
            PEER,
            index,
            index,
            send,
            receive,
            relay_send_key=send[:RELAY_KEY_BYTES],
            relay_receive_key=receive[:RELAY_KEY_BYTES],
            initiator=initiator,
            endpoint=other.at,
            cipher=1,
        )

    def punts(self) -> list[Punt]:
        out, found = ffi.new("struct punt *"), []
        while lib.worker_punt_next(self.worker, out):
            data = bytes(ffi.buffer(out.data, out.len_bytes))
            fields = (out.kind, out.id, out.socket, bytes(out.address), out.port, data, out.via)
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


def connect(sides: tuple[Side, Side]) -> None:
    sides[1].install(sides[0], initiator=False)
    sides[0].install(sides[1], initiator=True)
