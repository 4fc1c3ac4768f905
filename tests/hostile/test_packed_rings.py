"""Packed rings whose driver lies: each breaks its own ring, for a reason with a name.

One test for each row of docs/hostile.md; the tables are of descriptors as they stand in the ring,
their wrap bits turned over where the flags have AVAIL or USED.
"""

import os
import threading

import pytest

from tests.fakes.neighbourhood import ENOUGH, OFFENDER, PARTNER, Neighbourhood
from tests.fakes.ring import AVAIL, DESC, INDIRECT, NEXT, USED, WRITE, PackedRing
from tests.fakes.vhostbox import frame
from vhost import messages as m
from vhost.messages import Feature, Request

RAM = 0x1000_0000
END = RAM + (8 << 20)
OUTSIDE = 0x4000_0000
RX, TX = 0, 1
KINDS = {
    "packed": ENOUGH | Feature.RING_PACKED,
    "in order": ENOUGH | Feature.RING_PACKED | Feature.IN_ORDER,
}

Descriptor = tuple[int, int, int]  # guest address, bytes, flags

kinds = pytest.mark.parametrize("kind", KINDS)


def ring_of(block: Neighbourhood, index: int = TX) -> PackedRing:
    return block.offender.packed[index]


def offer(ring: PackedRing, chain: list[Descriptor], buffer_id: int = 7) -> None:
    """As they are, at the next slots, the first one last; nobody remembers them."""
    for number in reversed(range(len(chain))):
        gpa, size, flags = chain[number]
        count = ring.offered + number
        ring.describe(count, gpa, size, flags ^ ring.bits(count), buffer_id)
    os.eventfd_write(ring.kick, 1)


def breaks(kind: str, reason: str, chain: list[Descriptor]) -> None:
    """The offender's TX ring breaks; started anew it works."""
    with Neighbourhood(KINDS[kind]) as block:
        block.works()
        offer(ring_of(block), chain)
        block.expect_broken(TX, reason)
        assert os.eventfd_read(ring_of(block).error) == 1
        block.check()
        a = block.offender
        a.stop_ring(TX)
        a.packed.pop(TX).close()
        a.start_ring(TX)
        a.settle()
        block.repaired(TX)
        block.works()


def breaks_receiver(reason: str, chain: list[Descriptor]) -> None:
    with Neighbourhood(ENOUGH, KINDS["packed"]) as block:
        offer(block.partner.packed[RX], chain)
        block.offender.transmit(frame(64))
        block.expect_broken(RX, reason, PARTNER)
        assert len(block.offender.ring(TX).reap()) == 1, "the sender is not held up"


CVE_2018_1059: dict[str, list[Descriptor]] = {
    "over the end of memory": [(END - 50, 100, 0)],
    "4 GiB": [(RAM, 2**32 - 1, 0)],
    "wraps": [(2**64 - 50, 100, 0)],
    "the second one": [(RAM, 100, NEXT), (OUTSIDE, 1, 0)],
    "table not there": [(OUTSIDE, 16, INDIRECT)],
    "table over the end": [(END - 8, 16, INDIRECT)],
    "table wraps": [(2**64 - 8, 16, INDIRECT)],
}


@kinds
@pytest.mark.parametrize("case", CVE_2018_1059)
def test_packed_cve_2018_1059_buffers_that_end_outside_of_memory(case: str, kind: str) -> None:
    breaks(kind, "address", CVE_2018_1059[case])


def test_packed_cve_2018_1059_room_that_ends_outside_of_memory() -> None:
    breaks_receiver("address", [(END - 50, 2000, WRITE)])


@kinds
def test_packed_cve_2020_10725_empty_buffers_in_a_batch(kind: str) -> None:
    """Length 0 at an address that is not there, among frames."""
    with Neighbourhood(KINDS[kind]) as block:
        a, b, ring = block.offender, block.partner, ring_of(block)
        b.post(3)
        gpa = a.ram.alloc(100)
        a.ram.write(gpa, bytes(12) + frame(64))
        ring.add([(gpa, 76, False)])
        ring.add([(OUTSIDE, 0, False)])
        ring.add([(OUTSIDE, 0, False), (gpa, 76, False), (2**64 - 1, 0, False)])
        assert len(block.given_back(ring, 3)) == 3
        assert b.frames() == [frame(64)] * 2
        assert block.drops(OFFENDER) == {"short": 1}


@kinds
@pytest.mark.parametrize("length", range(26))
def test_packed_cve_2022_2132_chains_no_longer_than_headers(length: int, kind: str) -> None:
    """And e31b57e732, in one buffer and in buffers of a byte."""
    with Neighbourhood(KINDS[kind]) as block:
        ring = ring_of(block)
        gpa = block.offender.ram.alloc(64)
        ring.add([(gpa, length, False)])
        ring.add([(gpa + i, 1, False) for i in range(length)] or [(gpa, 0, False)])
        block.given_back(ring, 2)
        assert block.drops(OFFENDER) == {"short": 2}
        block.works()


@kinds
@pytest.mark.parametrize("size", [0, 100])
def test_packed_dpdk_a436f53ebf_a_chain_all_around_the_ring(kind: str, size: int) -> None:
    breaks(kind, "loop", [(RAM, size, NEXT)] * 256)


@kinds
@pytest.mark.parametrize("pieces", [200, 256])
def test_packed_dpdk_06fc8545fd_more_pieces_than_a_packet_has(kind: str, pieces: int) -> None:
    with Neighbourhood(KINDS[kind]) as block:
        block.offender.transmit(frame(1000), pieces=(1,) * (pieces - 1))
        block.given_back(ring_of(block), 1)
        assert block.drops(OFFENDER) == {"segments": 1}
        block.works()


@kinds
@pytest.mark.parametrize("size", [0, 8, 17, 16 * 1025, 2**32 - 16])
def test_packed_qemu_2149_tables_of_a_wrong_size(kind: str, size: int) -> None:
    breaks(kind, "indirect_size", [(RAM, size, INDIRECT)])


LIES: dict[str, tuple[str, list[Descriptor]]] = {
    "next one not offered": ("next_unavailable", [(RAM, 100, NEXT)]),
    "next one used": ("next_unavailable", [(RAM, 100, NEXT), (RAM, 100, AVAIL | USED)]),
    "next one of another round": ("next_unavailable", [(RAM, 100, NEXT), (RAM, 9, AVAIL)]),
    "writable to send": ("direction", [(RAM, 100, WRITE)]),
    "writable second": ("direction", [(RAM, 100, NEXT), (RAM, 100, WRITE)]),
    "indirect and next": ("indirect_next", [(RAM, 16, INDIRECT | NEXT)]),
}
LIES_TO_RECEIVE: dict[str, tuple[str, list[Descriptor]]] = {
    "read-only to receive": ("direction", [(RAM, 100, 0)]),
    "next one not offered": ("next_unavailable", [(RAM, 10, WRITE | NEXT)]),
    "all around": ("loop", [(RAM, 0, WRITE | NEXT)] * 256),
    "indirect and next": ("indirect_next", [(RAM, 16, INDIRECT | NEXT)]),
}


@kinds
@pytest.mark.parametrize("case", LIES)
def test_packed_lies_of_a_sender(case: str, kind: str) -> None:
    breaks(kind, *LIES[case])


@pytest.mark.parametrize("case", LIES_TO_RECEIVE)
def test_packed_lies_of_a_receiver(case: str) -> None:
    breaks_receiver(*LIES_TO_RECEIVE[case])


@kinds
def test_packed_nested_tables(kind: str) -> None:
    with Neighbourhood(KINDS[kind]) as block:
        gpa = block.offender.ram.alloc(16)
        block.offender.ram.write(gpa, DESC.pack(RAM, 16, 0, INDIRECT))
        offer(ring_of(block), [(gpa, 16, INDIRECT)])
        block.expect_broken(TX, "indirect_nested")


@kinds
@pytest.mark.parametrize("flags", [AVAIL, AVAIL | USED, USED], ids=["none", "used", "round before"])
def test_packed_wrap_bits_that_lie(kind: str, flags: int) -> None:
    """What is not offered is not taken, and the ring goes on with what is."""
    with Neighbourhood(KINDS[kind]) as block:
        ring = ring_of(block)
        turned = flags if flags != USED else AVAIL | USED
        offer(ring, [(RAM, 100, turned)])
        block.turns(5)
        assert block.drops(OFFENDER) == {}
        block.works()


@kinds
def test_packed_all_slots_offered_for_ever(kind: str) -> None:
    """Every slot says that it is offered, whatever was given back: one round, and no more."""
    with Neighbourhood(KINDS[kind]) as block:
        ring = ring_of(block)
        gpa = block.offender.ram.alloc(100)
        block.offender.ram.write(gpa, bytes(12) + frame(64))
        block.partner.post(250)
        for count in range(ring.num):
            ring.describe(ring.offered + count, gpa, 76, ring.bits(ring.offered + count), 0)
        os.eventfd_write(ring.kick, 1)
        block.turns(60)
        assert len(block.partner.frames()) == 250
        assert block.ring_state(OFFENDER, TX) == "ok"


@kinds
@pytest.mark.parametrize("num", [1, 2, 3, 5, 16])
def test_packed_slots_turned_over_while_they_are_read(kind: str, num: int) -> None:
    """Another thread offers again and again what is being taken, in rings that end with memory.

    A burst must not go round the ring twice, and nothing behind its end is read.
    """
    with Neighbourhood(None) as block:
        a = block.offender
        a.negotiate(KINDS[kind])
        a.share_memory()
        ring = a.packed[TX] = PackedRing(a.ram, num)
        ring.desc = END - 16 * num
        a.start_ring(TX)
        a.settle()
        a.ram.write(RAM, bytes(12) + frame(64))
        stop = threading.Event()

        def turn_over() -> None:
            while not stop.is_set():
                for bits in (AVAIL, USED):
                    entry = DESC.pack(RAM, 76, 0, bits)
                    a.ram.write(ring.desc, entry * num)

        thread = threading.Thread(target=turn_over)
        thread.start()
        try:
            for _ in range(300):
                os.eventfd_write(ring.kick, 1)
                block.turn()
        finally:
            stop.set()
            thread.join()
        block.may_break(TX)


@pytest.mark.parametrize("base", [256, 0x7FFF, 0xFFFF], ids=hex)
def test_packed_a_position_beyond_the_ring(base: int) -> None:
    with Neighbourhood(KINDS["packed"]) as block:
        a = block.offender
        a.stop_ring(TX)
        a.send(Request.SET_VRING_BASE, m.VRING_STATE.pack(TX, base | base << 16))
        ring = a.packed[TX]
        assert a.tell(Request.SET_VRING_KICK, m.U64.pack(TX), [ring.kick]) != 0


@kinds
def test_packed_any_id_comes_back_as_it_is(kind: str) -> None:
    with Neighbourhood(KINDS[kind]) as block:
        ring = ring_of(block)
        gpa = block.offender.ram.alloc(100)
        block.offender.ram.write(gpa, bytes(12) + frame(64))
        block.partner.post(1)
        offer(ring, [(gpa, 76, 0)], 0xFFFF)
        block.turns(5)
        assert block.partner.frames() == [frame(64)]
        at = ring.desc + 16 * ring.slot(ring.offered)[0]
        assert block.offender.ram.read(at + 12, 2) == b"\xff\xff"


@kinds
@pytest.mark.parametrize("part", ["desc", "avail", "used"])
def test_packed_a_payload_that_is_the_ring_itself(kind: str, part: str) -> None:
    with Neighbourhood(KINDS[kind]) as block:
        ring = ring_of(block)
        gpa = block.offender.ram.alloc(100)
        block.offender.ram.write(gpa, bytes(12) + frame(64))
        size = 500 if part == "desc" else 4
        block.partner.post(1)
        ring.add([(gpa, 76, False), (getattr(ring, part), size, False)])
        block.given_back(ring, 1)
        assert [len(f) for f in block.partner.frames()] == [64 + size]
        block.works()
