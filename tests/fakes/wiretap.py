"""Sees every frame of a device, and says of each whether it may be on the underlay.

What may: the mesh's datagrams; ARP, ND and MLD; ICMP errors about the mesh's datagrams, from hosts
whose daemon is away and from routers.  Nothing of what is inside may show: no marker, no pair of
inner addresses.
"""

import errno
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import permutations

from mesh import wire
from tests.fakes.closing import Closing
from tests.fakes.netns import inside

PORT = 7400
MARKER = b"meshswitch-mark!"  # what tests send through the mesh is full of it
IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
ICMP, UDP, ICMPV6 = 1, 17, 58
HOP_BY_HOP = 0
ICMP_ERRORS = {3, 11}  # unreachable or too large; too many hops
ICMPV6_ERRORS = {1, 2, 3}
ICMPV6_LINK = {130, 131, 132, 133, 134, 135, 136, 143}  # MLD, ND
MESSAGES = {
    wire.TYPE_INITIATION,
    wire.TYPE_RESPONSE,
    wire.TYPE_COOKIE,
    wire.TYPE_RECORD,
    wire.TYPE_RELAY,
}

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_STATISTICS = 263, 6
BUFFER_BYTES = 64 << 20
SHOWN = 10


def pairs(net: int) -> list[bytes]:
    """What is in every IP header inside a mesh of 10.net.0.0/24 and fd00:net::/64."""
    inner = [ip_address(f"10.{net}.0.{n}") for n in range(1, 5)]
    inner += [ip_address(f"fd00:{net}::{n}") for n in range(1, 5)]
    return [a.packed + b.packed for a, b in permutations(inner, 2) if a.version == b.version]


@dataclass(frozen=True)
class Rules:
    """Of an underlay.  pairs: what must not show."""

    port: int = PORT
    pairs: Sequence[bytes] = tuple(pairs(5))


UNDERLAY = Rules()


def complaint(frame: bytes, rules: Rules) -> str | None:
    """Why the frame must not be there."""
    if MARKER in frame:
        return "what is inside is in clear"
    if any(pair in frame for pair in rules.pairs):
        return "inner addresses are in clear"
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == ARP:
        return None
    return _packet(frame[14:], kind, rules.port)


def _packet(packet: bytes, kind: int, port: int) -> str | None:
    if kind == IPV4 and len(packet) >= 20:
        if struct.unpack_from("!H", packet, 6)[0] & 0x3FFF:
            return "a fragment"
        protocol, at = packet[9], 4 * (packet[0] & 15)
    elif kind == IPV6 and len(packet) >= 40:
        protocol, at = packet[6], 40
        if protocol == HOP_BY_HOP:
            protocol, at = packet[40], 48
    else:
        return f"a frame of type {kind:#06x}"
    body = packet[at:]
    if protocol == UDP:
        ports = struct.unpack_from("!HH", body)
        if port not in ports and not _by_own_port(body[8:]):
            return f"UDP between ports {ports}"
        return None if body[8] in MESSAGES else f"no message of the mesh: type {body[8]}"
    if protocol == ICMPV6 and body[0] in ICMPV6_LINK:
        return None
    errors = {ICMP: ICMP_ERRORS, ICMPV6: ICMPV6_ERRORS}.get(protocol, set())
    if body[0] in errors:
        return _packet(body[8:], kind, port)
    return f"protocol {protocol}"


def _by_own_port(message: bytes) -> bool:
    """Whether a record says so; it may go to a port that a router made up."""
    return message[0] in {wire.TYPE_RECORD, wire.TYPE_RELAY} and bool(message[3] & 0x80)


class WireTap(Closing):
    """On a device, from now on until check()."""

    def __init__(self, netns: str, device: str, rules: Rules) -> None:
        self.datagrams = 0  # or trains of them
        self._rules = rules
        self._port = rules.port.to_bytes(2)
        self._name = f"{device} of {netns}"
        self._complaints: list[str] = []
        self._ending = threading.Event()
        self._socket = inside(netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        self._socket.bind((device, ETH_P_ALL))
        self._socket.settimeout(0.05)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                frame = self._socket.recv(1 << 17)
            except TimeoutError:
                if self._ending.is_set():
                    return  # nothing is left
                continue
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise
                continue
            why = complaint(frame, self._rules)
            if why is None:
                self.datagrams += self._port in frame[34:58]
            elif len(self._complaints) < SHOWN:
                self._complaints.append(f"{why}: {frame[:96].hex()}")

    def check(self, *, may_be_quiet: bool = False) -> None:
        """Raises when there was a frame that must not be, or one that was not seen; or none."""
        self._ending.set()
        self._thread.join(20)
        assert not self._thread.is_alive(), f"{self._name} is never quiet"
        assert not self._complaints, f"{self._name}: " + "\n".join(self._complaints)
        statistics = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        assert struct.unpack("II", statistics)[1] == 0, f"{self._name}: frames were not seen"
        assert self.datagrams > 0 or may_be_quiet, f"{self._name}: nothing of the mesh was seen"

    def close(self) -> None:
        self._ending.set()
        self._thread.join(20)
        self._socket.close()
