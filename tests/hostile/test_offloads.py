"""Offload headers that lie about their frame, one test for each row of docs/hostile.md."""

import itertools
import os
import struct
import threading

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.fakes.frontend import GUEST_OFFLOADS, HOST_OFFLOADS
from tests.fakes.neighbourhood import ENOUGH, OFFENDER, PARTNER, Neighbourhood
from tests.fakes.vhostbox import A, B

RX, TX = 0, 1
NEEDS_CSUM = 1
GSO_TYPES = [1, 3, 4, 5, 0x80, 0x81, 0x84, 0x85, 2, 0xFF]
EDGES = [0, 1, 13, 14, 15, 33, 34, 35, 52, 53, 54, 55, 60, 64, 157, 158, 159, 160, 161]
EDGES += [1000, 1013, 1014, 1015, 0x7FFF, 0x8000, 0xFFEF, 0xFFF0, 0xFFFE, 0xFFFF]
FRAMES = {
    "v4": bytes(Ether(src=A, dst=B) / IP(src="10.5.0.1", dst="10.5.0.2") / TCP() / Raw(bytes(960))),
    "v6": bytes(Ether(src=A, dst=B) / IPv6(src="fd00::1", dst="fd00::2") / TCP() / Raw(bytes(940))),
    "other": bytes.fromhex(B.replace(":", "") + A.replace(":", "") + "88b5") + bytes(1000),
    "short": bytes.fromhex(B.replace(":", "") + A.replace(":", "") + "0800"),
}
RECEIVERS = {"grants all": ENOUGH | GUEST_OFFLOADS, "grants nothing": ENOUGH}


def header(flags: int, kind: int, size: int, start: int, offset: int) -> bytes:
    return struct.pack("<BBHHHHH", flags, kind, 0xFFFF, size, start, offset, 0)


def all_of(block: Neighbourhood, data: bytes, headers: list[bytes]) -> None:
    """Sends the frame under each header; each comes out whole and in bounds, or is dropped."""
    a, b = block.offender, block.partner
    gpa = a.ram.alloc(12 + len(data))
    for _ in range(128):
        b.rings[RX].add([(b.ram.alloc(2048), 2048, True)])
    arrived = 0
    for number, head in enumerate(headers):
        a.ram.write(gpa, head + data)
        a.rings[TX].add([(gpa, 12 + len(data), False)])
        os.eventfd_write(a.rings[TX].kick, 1)
        before = arrived + dropped(block)
        # In segments of a byte each a frame takes the ring several times.
        for _ in range(300):
            block.breathe()
            arrived += collect(block)
            if a.rings[TX].reap():
                break
        else:
            raise AssertionError(f"{head.hex()}: the sender is held up")
        assert arrived + dropped(block) > before, f"{head.hex()}: neither delivered nor counted"
        if number % 8 == 0:
            block.turn()
    assert arrived > 0, "something must have been right, or this proves nothing"
    assert block.drops(OFFENDER)["bad_offload"] > 0


def dropped(block: Neighbourhood) -> int:
    return sum(block.drops(OFFENDER).values()) + sum(block.drops(PARTNER).values())


def collect(block: Neighbourhood) -> int:
    """Frames that came to the partner, whose headers are true."""
    b = block.partner
    chains = b.rings[RX].reap()
    for _, size, buffers in chains:
        in_bounds(b.ram.read(buffers[0][0], size))
        b.rings[RX].add(buffers)
    return len(chains)


def in_bounds(received: bytes) -> None:
    """What a receiver is told to sum lies in what it got."""
    flags, kind, _, size, start, offset, _ = struct.unpack("<BBHHHHH", received[:12])
    if flags & NEEDS_CSUM:
        assert start + offset + 2 <= len(received) - 12
    assert (kind == 0) == (size == 0)


@pytest.mark.parametrize("receiver", RECEIVERS)
@pytest.mark.parametrize("kind", FRAMES)
def test_cve_2024_11614_checksums_beyond_the_frame(kind: str, receiver: str) -> None:
    """[HEAD]: start and offset at every edge, also such that their sum wraps 16 bits."""
    with Neighbourhood(ENOUGH | HOST_OFFLOADS, RECEIVERS[receiver]) as block:
        headers = [header(0, 0, 0, 0, 0)]
        headers += [header(1, 0, 0, s, o) for s, o in itertools.product(EDGES, EDGES)]
        all_of(block, FRAMES[kind], headers)


@pytest.mark.parametrize("receiver", RECEIVERS)
@pytest.mark.parametrize("kind", FRAMES)
def test_dpdk_7023f3e532_segment_sizes(kind: str, receiver: str) -> None:
    """And e31b57e732: 0, 1, 65535 with every type, also those that nobody offered."""
    with Neighbourhood(ENOUGH | HOST_OFFLOADS, RECEIVERS[receiver]) as block:
        headers = [header(0, 0, 0, 0, 0)]
        sizes = [0, 1, 2, 500, 1446, 1460, 65535]
        starts = [(34, 16), (54, 16), (34, 6), (0, 0), (34, 0xFFF0)]
        for flags, gso, size, at in itertools.product((0, 1), GSO_TYPES, sizes, starts):
            headers.append(header(flags, gso, size, *at))
        all_of(block, FRAMES[kind], headers)


def test_dpdk_e31b57e732_frames_shorter_than_what_their_header_says() -> None:
    """Cut off anywhere in their own headers."""
    with Neighbourhood(ENOUGH | HOST_OFFLOADS) as block:
        a = block.offender
        for length in range(14, 60):
            for kind, data in ((1, FRAMES["v4"]), (4, FRAMES["v6"])):
                start = 34 if kind == 1 else 54
                a.transmit(data[:length], header(1, kind, 500, start, 16))
                os.eventfd_write(a.rings[TX].kick, 1)
                block.turn()
                assert len(a.rings[TX].reap()) == 1
        assert block.drops(OFFENDER)["bad_offload"] >= 46
        block.works()


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_dpdk_285e6b8b18_a_header_that_changes_while_it_is_read(receiver: str) -> None:
    """Double fetch: another thread turns csum_start and gso_size over all the time.

    What arrives was checked: its bounds hold, whichever of the values was read.
    """
    with Neighbourhood(ENOUGH | HOST_OFFLOADS, RECEIVERS[receiver]) as block:
        a, b, stop = block.offender, block.partner, threading.Event()
        data = FRAMES["v4"]
        gpa = a.ram.alloc(12 + len(data))
        values = [header(1, 0, 0, 34, 16), header(1, 0, 0, 0xFFF0, 16), header(1, 1, 500, 34, 16)]
        values += [header(1, 1, 0, 34, 16), header(1, 1, 500, 0xFFFF, 0xFFFF)]
        a.ram.write(gpa, values[0] + data)

        def change() -> None:
            while not stop.is_set():
                for value in values:
                    a.ram.write(gpa, value)

        for _ in range(64):
            b.rings[RX].add([(b.ram.alloc(2048), 2048, True)])
        thread = threading.Thread(target=change)
        thread.start()
        try:
            for _ in range(1000):
                a.rings[TX].add([(gpa, 12 + len(data), False)])
                os.eventfd_write(a.rings[TX].kick, 1)
                block.breathe()
                assert len(a.rings[TX].reap()) == 1
                collect(block)
        finally:
            stop.set()
            thread.join()
        block.works()
