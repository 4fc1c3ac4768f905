"""Bridging: learning, flooding, back-pressure, and what is dropped under which name."""

import socket

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from tests.fakes.switchbox import NEEDS_CSUM, ROUTER_MAC, SwitchBox, vnet_header

A, B, C = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"
BROADCAST = "ff:ff:ff:ff:ff:ff"
RX_BURST_BYTES = 256 * 1024  # port.h


def frame(to: str, source: str, payload: bytes = b"x" * 46) -> Ether:
    return Ether(dst=to, src=source, type=0x88B5) / Raw(payload)


def teach(box: SwitchBox) -> None:
    """Every port announces itself, everyone's inbox is emptied."""
    for port, mac in zip(box.ports, (A, B, C), strict=False):
        port.send(frame(BROADCAST, mac))
    box.settle()
    for port in box.ports:
        port.receive()


def test_unknown_destination_is_flooded_to_all_but_the_sender():
    with SwitchBox() as box:
        box.ports[0].send(frame(B, A))
        box.settle()
        assert [len(port.receive()) for port in box.ports] == [0, 1, 1]


def test_known_destination_gets_it_alone():
    with SwitchBox() as box:
        teach(box)
        box.ports[0].send(frame(B, A, b"hello" * 10))
        box.settle()
        assert [len(port.receive()) for port in box.ports] == [0, 1, 0]


def test_payload_arrives_as_it_was_sent():
    with SwitchBox() as box:
        teach(box)
        for length in (46, 100, 159, 160, 161, 1500, 9000, 60000):
            sent = frame(B, A, bytes(i % 251 for i in range(length)))
            box.ports[0].send(sent)
            box.settle()
            assert [raw for _, raw in box.ports[1].receive_raw()] == [bytes(sent)]


def test_a_mac_that_moves_is_followed():
    with SwitchBox() as box:
        teach(box)
        box.ports[2].send(frame(A, B))  # B now speaks from port 2
        box.settle()
        box.ports[0].receive()
        box.ports[0].send(frame(B, A))
        box.settle()
        assert [len(port.receive()) for port in box.ports] == [0, 0, 1]


def test_destination_behind_the_same_port_is_dropped():
    with SwitchBox() as box:
        teach(box)
        box.ports[0].send(frame(A, "02:00:00:00:00:1a"))
        box.settle()
        assert box.ports[0].drops == {"same_port": 1}
        assert [len(port.receive()) for port in box.ports] == [0, 0, 0]


def test_nobody_may_speak_as_the_router():
    with SwitchBox() as box:
        box.ports[0].send(frame(B, ROUTER_MAC))
        box.settle()
        assert box.ports[0].drops == {"source": 1}


@pytest.mark.parametrize("length", [0, 1, 13])
def test_short_frames_are_dropped(length):
    with SwitchBox() as box:
        box.ports[0].send(b"\x02" * length)
        box.settle()
        assert box.ports[0].drops == {"short": 1}


def test_order_is_kept_within_a_burst_and_across_bursts():
    with SwitchBox() as box:
        teach(box)
        sent = [bytes(frame(B, A, i.to_bytes(4, "big") * 12)) for i in range(100)]
        for data in sent:
            box.ports[0].send(data)
            box.breathe()
        box.settle()
        assert [raw for _, raw in box.ports[1].receive_raw()] == sent


def test_offload_fields_pass_untouched():
    inner = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / Raw(b"z" * 100)
    sent = Ether(dst=B, src=A) / inner
    header = vnet_header(flags=NEEDS_CSUM, csum_start=34, csum_offset=6)
    with SwitchBox() as box:
        teach(box)
        box.ports[0].send(sent, header)
        box.settle()
        assert box.ports[1].receive_raw() == [(header, bytes(sent))]


TCP4 = 1
UDP_L4 = 5
BAD_OFFLOADS = {
    "checksum field beyond the frame": vnet_header(NEEDS_CSUM, csum_start=34, csum_offset=60000),
    "start and offset wrap": vnet_header(NEEDS_CSUM, csum_start=65535, csum_offset=2),
    "checksum inside the network header": vnet_header(NEEDS_CSUM, csum_start=20, csum_offset=2),
    "checksum inside the Ethernet header": vnet_header(NEEDS_CSUM, csum_start=0, csum_offset=6),
    "segments of zero bytes": vnet_header(NEEDS_CSUM, TCP4, 0, 34, 16),
    "TSO of a UDP packet": vnet_header(NEEDS_CSUM, TCP4, 100, 34, 16),
    "USO without checksum": vnet_header(0, UDP_L4, 20, 34, 6),
    "unknown GSO type": vnet_header(NEEDS_CSUM, 3, 20, 34, 6),
}


@pytest.mark.parametrize("header", BAD_OFFLOADS.values(), ids=BAD_OFFLOADS)
def test_offload_fields_that_contradict_the_frame_are_dropped(header):
    sent = Ether(dst=B, src=A) / IP(dst="10.0.0.2") / UDP() / Raw(b"z" * 100)
    with SwitchBox() as box:
        teach(box)
        box.ports[0].send(sent, header)
        box.settle()
        assert box.ports[1].receive_raw() == []
        assert box.ports[0].drops == {"bad_offload": 1}


def test_a_large_frame_without_payload_is_dropped():
    """Its IP length ends with the headers, so there is nothing to make segments of."""
    sent = Ether(dst=B, src=A) / IP(dst="10.0.0.2", len=40) / TCP() / Raw(b"z" * 100)
    with SwitchBox() as box:
        teach(box)
        box.ports[0].send(sent, vnet_header(NEEDS_CSUM, TCP4, 50, 34, 16))
        box.settle()
        assert box.ports[1].receive_raw() == []
        assert box.ports[0].drops == {"bad_offload": 1}


def test_vlan_tagged_frames_are_bridged():
    sent = Ether(dst=B, src=A) / Dot1Q(vlan=7) / IP(dst="10.0.0.2") / UDP() / Raw(b"v" * 30)
    with SwitchBox() as box:
        teach(box)
        box.ports[0].send(sent)
        box.settle()
        assert [raw for _, raw in box.ports[1].receive_raw()] == [bytes(sent)]


def fill(box: SwitchBox, index: int) -> int:
    """Sends from port 0 to a port that reads nothing until the source is held back."""
    box.ports[index].device.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sent = 0
    big = bytes(frame((A, B, C)[index], A, b"f" * 30000))
    while box.ports[index].drops.get("ring_full", 0) == 0 and sent < 500:
        before = box.ports[0].count("rx_packets")
        box.ports[0].send(big)
        sent += 1
        box.breathe()
        if box.ports[0].count("rx_packets") == before:
            return sent
    raise AssertionError("the destination never filled up")


def test_a_full_destination_holds_its_source_and_then_loses_packets():
    with SwitchBox() as box:
        teach(box)
        sent = fill(box, 1)
        assert box.ports[1].drops == {}
        box.breathe(advance_ns=90_000)
        assert box.ports[0].count("rx_packets") == 1 + sent - 1, "it waits"
        box.breathe(advance_ns=20_000)
        assert box.ports[0].count("rx_packets") == 1 + sent
        assert box.ports[1].drops == {"ring_full": 1}


def test_packets_to_others_pass_one_that_waits():
    with SwitchBox() as box:
        teach(box)
        fill(box, 1)
        box.ports[0].send(frame(C, A, b"passes" * 10))
        box.breathe()
        assert len(box.ports[2].receive()) == 1
        box.breathe()
        assert len(box.ports[2].receive()) == 0, "sent twice"


def test_what_waited_arrives_once_there_is_room():
    with SwitchBox() as box:
        teach(box)
        sent = fill(box, 1)
        got = len(box.ports[1].receive_raw())
        box.settle()
        got += len(box.ports[1].receive_raw())
        assert got == sent
        assert box.ports[1].drops == {}


def test_flooding_has_a_budget_that_time_fills_again():
    with SwitchBox(ports=8) as box:
        for _ in range(6):
            box.ports[0].send(frame(BROADCAST, A, b"b" * 30000))
        box.breathe()
        # 256 KiB of copies beyond the first, six for each frame: overdrawn by the second.
        assert box.ports[0].drops == {"flood_limit": 4}
        assert len(box.ports[1].receive()) == 2
        box.ports[0].send(frame(BROADCAST, A, b"b" * 30000))
        box.breathe(advance_ns=90_000)
        assert box.ports[0].drops == {"flood_limit": 5}
        box.ports[0].send(frame(BROADCAST, A, b"b" * 30000))
        box.breathe(advance_ns=20_000)
        assert box.ports[0].drops == {"flood_limit": 5}


def test_one_frame_reaches_any_number_of_ports():
    with SwitchBox(ports=300) as box:
        sent = [bytes(frame(BROADCAST, A, bytes([i]) * 1486)) for i in range(20)]
        for data in sent:
            box.ports[0].send(data)
            box.breathe(advance_ns=500_000)
        for port in box.ports[1:]:
            assert [raw for _, raw in port.receive_raw()] == sent


def test_two_ports_may_flood_for_ever():
    with SwitchBox(ports=2) as box:
        for _ in range(40):
            box.ports[0].send(frame(B, A, b"b" * 60000))
            box.breathe(advance_ns=0)
            assert len(box.ports[1].receive_raw()) == 1
        assert box.ports[0].drops == {}


def offer_large(box: SwitchBox, count: int = 100) -> int:
    """How many large frames the first port's device takes, with a breath behind each."""
    for sent in range(count):
        try:
            box.ports[0].send(frame(B, A, b"b" * 60000))
        except BlockingIOError:
            return sent
        box.breathe(1)
    raise AssertionError("the device takes whatever it is given")


def test_a_burst_is_bounded_in_bytes():
    """Of frames that wait for a full destination, a tap port reads no more than one burst."""
    with SwitchBox(ports=2) as box:
        teach(box)
        sent = offer_large(box)
        waiting = 0  # in the device
        while True:
            try:
                box.ports[1].send(frame(A, B, b"b" * 60000))
            except BlockingIOError:
                break
            waiting += 1
        delivered = len(box.ports[1].receive())
        assert 0 < sent - waiting - delivered <= RX_BURST_BYTES // 60000 + 1
