"""Between bridge and mesh: routes, source checks, ARP and ND by proxy, neighbours, too-big."""

import socket

import pytest
from _dataplane import lib
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from tests.fakes.switchbox import NEEDS_CSUM, ROUTER_MAC, SwitchBox, vnet_header

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
BROADCAST = "ff:ff:ff:ff:ff:ff"
PEER = 5

HERE = {4: ("10.5.0.1", "10.5.0.2"), 6: ("fd00::1", "fd00::2")}  # behind ports 0 and 1
THERE = {4: "10.5.0.9", 6: "fd00::9"}  # behind the mesh peer
NOBODY = {4: "10.5.0.77", 6: "fd00::77"}
OUTSIDE = {4: "10.6.0.9", 6: "fd01::9"}  # the peer's too, but in no subnet of the bridge
LINK_LOCAL = {4: "169.254.0.9", 6: "fe80::9"}


def box() -> SwitchBox:
    routes = []
    for version, length in ((4, 32), (6, 128)):
        routes += [(HERE[version][i], length, lib.ROUTE_PORT + i) for i in (0, 1)]
        routes.append((THERE[version], length, lib.ROUTE_PEER + PEER))
        routes.append((OUTSIDE[version], length, lib.ROUTE_PEER + PEER))
    return SwitchBox(
        2, mesh=True, routes=routes, subnets=[("10.5.0.0", 24), ("fd00::", 64)], mtu_bytes=1400
    )


def packet(version: int, source: str, to: str, length: int = 100) -> Packet:
    """An IP packet of length bytes."""
    if version == 4:
        return IP(src=source, dst=to, flags="DF") / UDP() / Raw(b"p" * (length - 28))
    return IPv6(src=source, dst=to) / UDP() / Raw(b"p" * (length - 48))


def question(version: int, source: str, target: str, mac: str = A) -> Packet:
    if version == 4:
        arp = ARP(op=1, hwsrc=mac, psrc=source, pdst=target)
        return Ether(dst=BROADCAST, src=mac) / arp
    nd = IPv6(src=source, dst="ff02::1:ff00:9", hlim=255) / ICMPv6ND_NS(tgt=target)
    return Ether(dst="33:33:ff:00:00:09", src=mac) / nd / ICMPv6NDOptSrcLLAddr(lladdr=mac)


def answer(version: int, address: str, mac: str) -> Packet:
    """What the owner of an address replies to the router."""
    if version == 4:
        arp = ARP(op=2, hwsrc=mac, psrc=address, hwdst=ROUTER_MAC, pdst="10.5.0.9")
        return Ether(dst=ROUTER_MAC, src=mac) / arp
    nd = IPv6(src=address, dst="fd00::9", hlim=255) / ICMPv6ND_NA(tgt=address, S=1)
    return Ether(dst=ROUTER_MAC, src=mac) / nd / ICMPv6NDOptDstLLAddr(lladdr=mac)


def checksums_right(frame: Packet) -> bool:
    """Whether building the packet anew gives the same bytes."""
    again = frame.copy()
    for layer in (IP, ICMP, UDP, TCP, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6PacketTooBig):
        if again.haslayer(layer):
            name = "cksum" if "cksum" in again[layer].fields else "chksum"
            delattr(again[layer], name)
    return bytes(again) == bytes(frame)


@pytest.mark.parametrize("version", [4, 6])
def test_an_address_that_lives_elsewhere_is_answered_with_the_router(version):
    with box() as b:
        b.ports[0].send(question(version, HERE[version][0], THERE[version]))
        b.settle()
        (reply,) = b.ports[0].receive()
        assert (reply.src, reply.dst) == (ROUTER_MAC, A)
        assert checksums_right(reply)
        if version == 4:
            assert (reply[ARP].op, reply[ARP].psrc) == (2, THERE[4])
            assert (reply[ARP].hwsrc, reply[ARP].pdst) == (ROUTER_MAC, HERE[4][0])
        else:
            assert (reply[ICMPv6ND_NA].tgt, reply[ICMPv6ND_NA].S) == (THERE[6], 1)
            assert reply[ICMPv6NDOptDstLLAddr].lladdr == ROUTER_MAC
            assert reply[IPv6].dst == HERE[6][0]
        assert b.ports[1].receive() == [], "it was answered, not bridged"
        assert b.ports[2].receive() == [], "broadcast never crosses"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("table", [NOBODY, OUTSIDE, LINK_LOCAL, {4: HERE[4][1], 6: HERE[6][1]}])
def test_all_other_questions_are_bridged(version, table):
    with box() as b:
        b.ports[0].send(question(version, HERE[version][0], table[version]))
        b.settle()
        assert [len(port.receive()) for port in b.ports] == [0, 1, 0]


@pytest.mark.parametrize("version", [4, 6])
def test_the_mesh_has_no_link_local_addresses(version):
    """Not even where a peer has everything."""
    everything = {4: ("0.0.0.0", 0), 6: ("::", 0)}
    routes = [(*prefix, lib.ROUTE_PEER + PEER) for prefix in everything.values()]
    with SwitchBox(2, mesh=True, routes=routes, subnets=list(everything.values())) as b:
        for table, bridged in ((LINK_LOCAL, 1), (NOBODY, 0)):
            b.ports[0].send(question(version, HERE[version][0], table[version]))
            b.settle()
            assert [len(port.receive()) for port in b.ports] == [1 - bridged, bridged, 0]


def test_duplicate_address_detection_hears_of_addresses_elsewhere():
    with box() as b:
        b.ports[0].send(question(6, "::", THERE[6]))
        b.settle()
        (reply,) = b.ports[0].receive()
        assert (reply.dst, reply[IPv6].dst, reply[ICMPv6ND_NA].S) == (
            "33:33:00:00:00:01",
            "ff02::1",
            0,
        )
        assert checksums_right(reply)


def test_neighbour_discovery_from_beyond_a_router_is_not_answered():
    with box() as b:
        forged = question(6, HERE[6][0], THERE[6])
        forged[IPv6].hlim = 64
        b.ports[0].send(forged)
        b.settle()
        assert b.ports[0].receive() == []


@pytest.mark.parametrize("version", [4, 6])
def test_to_the_mesh(version):
    with box() as b:
        sent = Ether(dst=ROUTER_MAC, src=A) / packet(version, HERE[version][0], THERE[version])
        b.ports[0].send(sent)
        b.settle()
        assert [frame for _, frame in b.ports[2].receive_raw()] == [bytes(sent)]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("source", "to", "reason"),
    [
        (lambda v: HERE[v][1], lambda v: THERE[v], "source"),  # the neighbour's
        (lambda v: THERE[v], lambda v: OUTSIDE[v], "source"),  # the peer's
        (lambda v: NOBODY[v], lambda v: THERE[v], "source"),
        (lambda v: HERE[v][0], lambda v: NOBODY[v], "no_route"),
        (lambda v: HERE[v][0], lambda v: HERE[v][0], "same_port"),
    ],
)
def test_what_may_not_leave(version, source, to, reason):
    with box() as b:
        b.ports[0].send(
            Ether(dst=ROUTER_MAC, src=A) / packet(version, source(version), to(version))
        )
        b.settle()
        assert b.ports[2].receive() == []
        assert b.ports[0].drops == {reason: 1}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x45" + bytes(18),
        bytes(IP(len=2000) / UDP()),
        bytes(IP(ihl=15)),
        bytes(IP(version=6, ihl=5)),
        b"\x44" + bytes(IP() / UDP())[1:],
    ],
    ids=["empty", "short", "length beyond", "options beyond", "wrong version", "ihl 4"],
)
def test_malformed_ip_is_dropped(data):
    with box() as b:
        b.ports[0].send(Ether(dst=ROUTER_MAC, src=A, type=0x0800) / Raw(data))
        b.settle()
        assert b.ports[0].drops == {"not_ip": 1}


def from_mesh(version: int, source: str, to: str) -> tuple[Packet, bytes]:
    """As the mesh delivers it: no MAC addresses, and parsed (the offload field sees to that)."""
    zero = "00:00:00:00:00:00"
    ip_bytes = 20 if version == 4 else 40
    header = vnet_header(NEEDS_CSUM, csum_start=14 + ip_bytes, csum_offset=6)
    return Ether(dst=zero, src=zero) / packet(version, source, to), header


def box_of_peer_zero() -> SwitchBox:
    """The fake mesh port can't say who sent a packet, so its packets come from peer 0."""
    routes = []
    for version, length in ((4, 32), (6, 128)):
        routes += [(HERE[version][i], length, lib.ROUTE_PORT + i) for i in (0, 1)]
        routes.append((THERE[version], length, lib.ROUTE_PEER))
        routes.append((OUTSIDE[version], length, lib.ROUTE_PEER + PEER))
    return SwitchBox(2, mesh=True, routes=routes, subnets=[("10.5.0.0", 24), ("fd00::", 64)])


@pytest.mark.parametrize("version", [4, 6])
def test_from_the_mesh_to_a_silent_guest(version):
    """The first packet waits while the owner of the address is asked, and arrives first."""
    with box_of_peer_zero() as b:
        frame, header = from_mesh(version, THERE[version], HERE[version][1])
        b.ports[2].send(frame, header)
        b.settle()
        (asked,) = b.ports[1].receive()
        assert b.ports[0].receive() == [], "only the owner is asked"
        assert asked.src == ROUTER_MAC
        assert checksums_right(asked)
        wanted = asked[ARP].pdst if version == 4 else asked[ICMPv6ND_NS].tgt
        assert wanted == HERE[version][1]

        b.ports[1].send(answer(version, HERE[version][1], B))
        b.settle()
        ((got_header, got),) = b.ports[1].receive_raw()
        assert got_header == header
        assert got[:12] == bytes.fromhex((B + ROUTER_MAC).replace(":", ""))
        assert got[12:] == bytes(frame)[12:]

        b.ports[2].send(frame, header)
        b.settle()
        assert len(b.ports[1].receive()) == 1, "known from now on"


@pytest.mark.parametrize("version", [4, 6])
def test_a_silent_address_is_asked_for_once_a_second(version):
    with box_of_peer_zero() as b:
        frame, header = from_mesh(version, THERE[version], HERE[version][1])
        for _ in range(20):
            b.ports[2].send(frame, header)
            b.breathe()
        assert len(b.ports[1].receive()) == 1
        assert b.ports[2].drops == {"no_neighbour": 19}
        b.breathe(advance_ns=10**9)
        b.ports[2].send(frame, header)
        b.breathe()
        assert len(b.ports[1].receive()) == 1


@pytest.mark.parametrize("version", [4, 6])
def test_peers_speak_for_their_own_addresses_only(version):
    with box_of_peer_zero() as b:
        for source in (OUTSIDE[version], HERE[version][0], NOBODY[version]):
            b.ports[2].send(*from_mesh(version, source, HERE[version][1]))
        b.settle()
        assert b.ports[2].drops == {"source": 3}
        b.ports[2].send(*from_mesh(version, THERE[version], OUTSIDE[version]))
        b.settle()
        assert b.ports[2].drops == {"source": 3, "no_route": 1}


@pytest.mark.parametrize("whose", [lib.ROUTE_PORT, lib.ROUTE_PEER], ids=["port", "peer"])
def test_all_of_ipv6_is_nothing_of_ipv4(whose):
    """Who may have any IPv6 address speaks for no IPv4 address, and gets none of its packets."""
    routes = [(HERE[4][0], 32, 0), (THERE[4], 32, lib.ROUTE_PEER), ("::", 0, whose)]
    with SwitchBox(2, mesh=True, routes=routes, mtu_bytes=1400) as b:
        b.ports[2].send(*from_mesh(4, NOBODY[4], HERE[4][0]))
        b.ports[2].send(*from_mesh(4, THERE[4], NOBODY[4]))
        b.ports[0].send(Ether(dst=ROUTER_MAC, src=A) / packet(4, NOBODY[4], THERE[4]))
        b.ports[0].send(Ether(dst=ROUTER_MAC, src=A) / packet(4, HERE[4][0], NOBODY[4]))
        b.settle()
        for port in (b.ports[0], b.ports[2]):
            assert port.drops == {"source": 1, "no_route": 1}


@pytest.mark.parametrize("mapped", [0, 1], ids=["source", "destination"])
def test_ipv4_spelt_as_ipv6_is_no_address(mapped):
    """To the routes it would look like IPv4: a way past what is said of IPv4 behind them."""
    reason = ["source", "no_route"][mapped]

    def spelt(*pairs: tuple[str, str]) -> list[str]:
        return [f"::ffff:{a}" if i == mapped else b for i, (a, b) in enumerate(pairs)]

    with box_of_peer_zero() as b:
        peers = spelt((THERE[4], THERE[6]), (HERE[4][1], HERE[6][1]))
        b.ports[2].send(*from_mesh(6, *peers))
        guests = spelt((HERE[4][0], HERE[6][0]), (THERE[4], THERE[6]))
        b.ports[0].send(Ether(dst=ROUTER_MAC, src=A) / packet(6, *guests))
        b.settle()
        assert b.ports[2].drops == b.ports[0].drops == {reason: 1}
        assert [port.receive() for port in b.ports] == [[], [], []]


@pytest.mark.parametrize("version", [4, 6])
def test_a_guest_cannot_take_its_neighbours_address(version):
    """Port 0 claims port 1's address; what the mesh sends there must not follow."""
    with box_of_peer_zero() as b:
        b.ports[0].send(answer(version, HERE[version][1], A))
        b.ports[0].send(question(version, HERE[version][1], NOBODY[version]))
        b.settle()
        for port in b.ports:
            port.receive()
        b.ports[2].send(*from_mesh(version, THERE[version], HERE[version][1]))
        b.settle()
        assert b.ports[0].receive() == []
        (asked,) = b.ports[1].receive()
        assert asked.src == ROUTER_MAC


@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_larger_than_the_path_is_answered(version):
    with box() as b:
        source, there = HERE[version][0], THERE[version]
        b.ports[0].send(Ether(dst=ROUTER_MAC, src=A) / packet(version, source, there, 1400))
        b.ports[0].send(Ether(dst=ROUTER_MAC, src=A) / packet(version, source, there, 1401))
        b.settle()
        assert len(b.ports[2].receive()) == 1
        assert b.ports[0].drops == {"too_big": 1}
        (reply,) = b.ports[0].receive()
        assert (reply.src, reply.dst) == (ROUTER_MAC, A)
        assert checksums_right(reply)
        if version == 4:
            assert (reply[IP].src, reply[IP].dst) == (there, source)
            assert (reply[ICMP].type, reply[ICMP].code, reply[ICMP].nexthopmtu) == (3, 4, 1400)
        else:
            assert (reply[IPv6].src, reply[IPv6].dst) == (there, source)
            assert reply[ICMPv6PacketTooBig].mtu == 1400


def test_too_big_is_never_said_about_an_icmp_error():
    with box() as b:
        error = IP(src=HERE[4][0], dst=THERE[4]) / ICMP(type=3, code=4) / Raw(b"e" * 1500)
        b.ports[0].send(Ether(dst=ROUTER_MAC, src=A) / error)
        b.settle()
        assert b.ports[0].receive() == []


def test_too_big_is_never_said_about_a_later_fragment():
    with box() as b:
        fragment = IP(src=HERE[4][0], dst=THERE[4], proto=17, frag=100) / Raw(b"f" * 1500)
        b.ports[0].send(Ether(dst=ROUTER_MAC, src=A) / fragment)
        b.settle()
        assert b.ports[0].receive() == []
        assert b.ports[0].drops == {"too_big": 1}


def test_tso_frames_pass_whatever_their_size_but_datagrams_keep_theirs():
    tcp = IP(src=HERE[4][0], dst=THERE[4]) / TCP() / Raw(b"t" * 20000)
    udp = IP(src=HERE[4][0], dst=THERE[4]) / UDP() / Raw(b"u" * 20000)
    with box() as b:
        b.ports[0].send(Ether(dst=ROUTER_MAC, src=A) / tcp, vnet_header(1, 1, 8960, 34, 16))
        b.ports[0].send(Ether(dst=ROUTER_MAC, src=A) / udp, vnet_header(1, 5, 1372, 34, 6))
        b.ports[0].send(Ether(dst=ROUTER_MAC, src=A) / udp, vnet_header(1, 5, 1373, 34, 6))
        b.settle()
        assert len(b.ports[2].receive_raw()) == 2
        assert b.ports[0].drops == {"too_big": 1}


def test_what_waits_for_a_full_guest_is_routed_anew_as_it_came():
    with box() as b:
        b.ports[1].send(answer(4, HERE[4][1], B))
        b.settle()
        b.ports[1].device.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sent = Ether(dst=ROUTER_MAC, src=A) / packet(4, HERE[4][0], HERE[4][1], 30000)
        moved, count = 1, 0
        while moved:
            b.ports[0].send(sent)
            count += 1
            moved = b.breathe()
            assert b.ports[0].drops == {}
            assert count < 500
        b.breathe()
        assert b.ports[0].drops == {}, "it waits"
        got = len(b.ports[1].receive_raw())
        b.settle()
        assert got + len(b.ports[1].receive_raw()) == count


def test_a_port_of_many_addresses_leaves_room_for_others():
    routes = [("10.5.0.0", 24, 0), ("10.6.0.0", 28, 1), (THERE[4], 32, lib.ROUTE_PEER)]
    with SwitchBox(2, mesh=True, routes=routes, subnets=[("10.5.0.0", 24)]) as b:
        for last in range(256):  # the table has room for 128
            b.ports[0].send(question(4, f"10.5.0.{last}", "10.5.0.1"))
            b.settle()
        for last in range(8):
            b.ports[1].send(question(4, f"10.6.0.{last}", "10.5.0.1", B))
            b.settle()
        b.ports[1].receive_raw()
        for last in range(8):
            b.ports[2].send(*from_mesh(4, THERE[4], f"10.6.0.{last}"))
            b.settle()
        assert [f.dst for f in b.ports[1].receive()] == [B] * 8
        assert b.ports[2].drops == {}


@pytest.mark.parametrize("network", ["10.5.0.", "fd00::"])
def test_every_guest_of_a_host_is_known(network):
    version = 6 if ":" in network else 4
    routes = [(f"{network}", 64, 1)] if version == 6 else [("10.5.0.0", 24, 1)]
    routes.append((OUTSIDE[version], 128 if version == 6 else 32, lib.ROUTE_PEER))
    with SwitchBox(2, mesh=True, routes=routes) as b:
        for last in range(10, 40):
            b.ports[1].send(answer(version, f"{network}{last}", B))
            b.settle()
        for last in range(10, 40):
            b.ports[2].send(*from_mesh(version, OUTSIDE[version], f"{network}{last}"))
            b.settle()
        assert [f.dst for f in b.ports[1].receive()] == [B] * 30
