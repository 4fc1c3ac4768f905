"""A switch on the bench: one worker, breathed by hand; its tap ports' devices are socket pairs.

A tap file reads and writes one frame at a time behind a 12-byte virtio-net header, and so does a
SOCK_SEQPACKET socket: no privilege, no kernel network, every frame in the test's hands.
"""

import ipaddress
import socket
import struct
from collections.abc import Iterable

from _dataplane import ffi, lib
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.fakes.closing import Closing

ROUTER_MAC = "02:00:00:00:00:fe"
NO_OFFLOAD = bytes(12)
NEEDS_CSUM = 1
BRIDGE = 0
MESH = -1


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def mapped(address: str) -> bytes:
    """16 bytes, IPv4 as ::ffff:a.b.c.d."""
    ip = ipaddress.ip_address(address)
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


def vnet_header(
    flags: int = 0, gso_type: int = 0, gso_size: int = 0, csum_start: int = 0, csum_offset: int = 0
) -> bytes:
    return struct.pack("<BBHHHHH", flags, gso_type, 0, gso_size, csum_start, csum_offset, 0)


class BoxPort:
    """One port: what its device would send and receive.  uso: whether it takes USO frames."""

    def __init__(self, port_id: int, *, uso: bool = True) -> None:
        self.id = port_id
        self.device, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.device.setblocking(False)
        ours.setblocking(False)
        # The port closes its file when it is freed.
        self.c_port = lib.tap_port_new(port_id, ours.detach(), uso)
        self.c_rxq = lib.tap_port_rxq(self.c_port)
        self.c_rxqs = [self.c_rxq]

    def close(self) -> None:
        lib.tap_port_free(self.c_port)
        self.device.close()

    def send(self, frame: Packet | bytes, header: bytes = NO_OFFLOAD) -> None:
        self.device.send(header + bytes(frame))

    def receive_raw(self) -> list[tuple[bytes, bytes]]:
        """All (virtio-net header, frame) that arrived."""
        got: list[tuple[bytes, bytes]] = []
        while True:
            try:
                data = self.device.recv(70000)
            except BlockingIOError:
                return got
            got.append((data[:12], data[12:]))

    def receive(self) -> list[Packet]:
        return [Ether(frame) for _, frame in self.receive_raw()]

    @property
    def drops(self) -> dict[str, int]:
        """Drops by reason, those that are not zero."""
        counters = ffi.new("struct counters *")
        lib.port_counters_read(self.c_port, counters)
        names = ffi.typeof("enum drop").elements
        return {
            names[i].removeprefix("DROP_").lower(): counters.drops[i]
            for i in range(lib.DROP_REASONS)
            if counters.drops[i]
        }

    def count(self, name: str) -> int:
        counters = ffi.new("struct counters *")
        lib.port_counters_read(self.c_port, counters)
        return int(getattr(counters, name))


class SwitchBox(Closing):
    """ports: how many on the bridge; mesh: whether a port stands for the mesh (id = ports).

    routes: (address, prefix, value) with value a port's id or lib.ROUTE_PEER + peer.
    uso: whether the taps' kernel takes USO frames.
    """

    def __init__(
        self,
        ports: int = 3,
        *,
        mesh: bool = False,
        routes: Iterable[tuple[str, int, int]] = (),
        subnets: Iterable[tuple[str, int]] = (),
        mtu_bytes: int = 1400,
        macs: int = 1024,
        uso: bool = True,
    ) -> None:
        self.now_ns = 10**9
        self.worker = lib.worker_new(0)
        self.fdb = lib.fdb_new(macs, 12345)
        self.neighbours = lib.neighbours_new(64)
        self.ports = [BoxPort(i, uso=uso) for i in range(ports + int(mesh))]
        self.routes = lib.lpm_new(64)
        for address, prefix, value in routes:
            bits = prefix if ":" in address else prefix + 96
            assert lib.lpm_add(self.routes, mapped(address), bits, value) == 0
        self.snapshot = lib.snapshot_new(1)
        assert (
            lib.snapshot_add_bridge(self.snapshot, self.fdb, mac_bytes(ROUTER_MAC), mtu_bytes) == 0
        )
        for address, prefix in subnets:
            bits = prefix if ":" in address else prefix + 96
            assert lib.snapshot_add_subnet(self.snapshot, 0, mapped(address), bits) == 0
        for port in self.ports:
            bridge = MESH if mesh and port.id == ports else BRIDGE
            assert lib.snapshot_add_port(self.snapshot, port.c_port, bridge) == 0
            assert lib.snapshot_add_rxq(self.snapshot, 0, port.c_rxq) == 0
        lib.snapshot_set_routes(self.snapshot, self.routes, self.neighbours)
        lib.worker_publish(self.worker, self.snapshot)

    def breathe(self, advance_ns: int = 1000) -> int:
        self.now_ns += advance_ns
        return int(lib.worker_breathe(self.worker, self.now_ns))

    def settle(self) -> None:
        """Breathe until nothing moves; bounded."""
        for _ in range(1000):
            if self.breathe() == 0:
                return
        raise AssertionError("the switch does not come to rest")

    def close(self) -> None:
        lib.worker_publish(self.worker, ffi.NULL)
        lib.worker_breathe(self.worker, self.now_ns)
        lib.worker_free(self.worker)
        lib.snapshot_free(self.snapshot)
        for port in self.ports:
            port.close()
        lib.fdb_free(self.fdb)
        lib.neighbours_free(self.neighbours)
        lib.lpm_free(self.routes)

    def __enter__(self) -> "SwitchBox":
        return self
