"""Packed rings: wrap counters, event areas, positions, and drivers that lie about them."""

import os
import struct

import pytest

from tests.fakes.frontend import MERGEABLE, FrontEnd
from tests.fakes.ram import Ram
from tests.fakes.ring import AVAIL, INDIRECT, NEXT, USED, WRITE, PackedRing
from tests.fakes.vhostbox import VhostBox, frame, pair
from vhost import messages as m
from vhost.messages import Feature, Request

PACKED = MERGEABLE | Feature.RING_PACKED
IN_ORDER = PACKED | Feature.IN_ORDER


def ring_of(front: FrontEnd, index: int) -> PackedRing:
    return front.packed[index]


def test_a_batch_comes_back_by_its_last_chain_alone() -> None:
    with VhostBox() as box:
        a, b = pair(box, IN_ORDER, PACKED)
        b.post(8)
        ring = ring_of(a, 1)
        first = ring.offered
        for seed in range(5):
            a.transmit(frame(100, seed), pieces=[12])
        box.breathe()
        assert [ring.flags(first + i) & USED != 0 for i in range(0, 10, 2)] == [True, *[False] * 4]
        assert len(ring.reap()) == 5
        assert b.frames() == [frame(100, seed) for seed in range(5)]


def test_a_split_batch_comes_back_with_one_entry() -> None:
    with VhostBox() as box:
        a, b = pair(box, MERGEABLE | Feature.IN_ORDER)
        b.post(8)
        ring = a.rings[1]
        for seed in range(5):
            a.transmit(frame(100, seed))
        box.breathe()
        assert ring.used_idx == 5
        entries = [ring.ram.read(ring.used + 4 + 8 * i, 4) for i in range(5)]
        assert entries == [bytes([4, 0, 0, 0]), *[bytes(4)] * 4]
        assert len(ring.reap()) == 5


# ---- notifications


def call_count(a: FrontEnd, b: FrontEnd, box: VhostBox, count: int) -> int:
    ring_of(b, 0).calls()
    for _ in range(count):
        a.transmit(frame(64))
    box.settle()
    return ring_of(b, 0).calls()


@pytest.mark.parametrize("event_idx", [0, Feature.EVENT_IDX], ids=["flags", "event_idx"])
def test_calls_can_be_switched_off(event_idx: int) -> None:
    with VhostBox() as box:
        a, b = pair(box, receiver=PACKED | event_idx)
        b.post(60)
        assert call_count(a, b, box, 10) == 1
        ring_of(b, 0).set_call_flags(1)
        assert call_count(a, b, box, 10) == 0
        ring_of(b, 0).set_call_flags(0)
        assert call_count(a, b, box, 1) == 1


@pytest.mark.parametrize("already", [0, 5, 250])
def test_a_call_at_a_descriptor(already: int) -> None:
    """In this round of the ring, or behind its end."""
    with VhostBox() as box:
        a, b = pair(box, receiver=PACKED | Feature.EVENT_IDX)
        ring = ring_of(b, 0)
        ring.set_call_flags(1)
        b.post(already, 300)
        call_count(a, b, box, already)
        assert len(b.frames()) == already
        a.ring(1).reap()
        b.post(100, 300)
        ring.set_call_flags(2, ring.position(ring.used_seen + 10))
        assert call_count(a, b, box, 10) == 0
        assert call_count(a, b, box, 1) == 1
        assert call_count(a, b, box, 20) == 0


@pytest.mark.parametrize("event_idx", [0, Feature.EVENT_IDX], ids=["flags", "event_idx"])
def test_a_quiet_ring_asks_for_kicks_and_wakes_up(event_idx: int) -> None:
    with VhostBox() as box:
        a, b = pair(box, sender=PACKED | event_idx)
        b.post(20)
        ring = ring_of(a, 1)
        for _ in range(3):
            a.transmit(frame(64))
        box.settle()
        assert ring.kick_event[1] == 1
        for _ in range(10):
            box.breathe(10_000_000)
        if event_idx:
            assert ring.kick_event == (ring.position(ring.offered), 2)
        else:
            assert ring.kick_event[1] == 0
        a.transmit(frame(64))
        box.breathe()
        assert len(b.frames()) == 3, "it sleeps"
        os.eventfd_write(ring.kick, 1)
        box.settle()
        assert len(b.frames()) == 1


# ---- positions


@pytest.mark.parametrize("before", [0, 3, 200, 256, 300])
def test_stopped_and_started_again_nothing_is_lost_or_repeated(before: int) -> None:
    with VhostBox() as box:
        a, b = pair(box, PACKED, PACKED)
        for seed in range(before):
            b.post(1, 256)
            a.transmit(frame(64, seed))
            box.settle()
            assert b.frames() == [frame(64, seed)]
            ring_of(a, 1).reap()
        b.post(2, 256)
        base = a.stop_ring(1)
        assert base == ring_of(a, 1).position(before) * 0x1_0001
        a.transmit(frame(65))
        a.start_ring(1, base=base)
        b.start_ring(0, base=b.stop_ring(0))
        a.settle()
        b.settle()
        a.transmit(frame(66))
        box.settle()
        assert b.frames() == [frame(65), frame(66)]


def test_an_untouched_ring_is_new_whatever_its_base_says() -> None:
    """User Mode Linux says 0, though the wrap counters of a new ring are 1."""
    with VhostBox() as box:
        a, b = box.front(0), box.front(1)
        for front in (a, b):
            front.negotiate(PACKED)
            front.share_memory()
            for index in (0, 1):
                front.start_ring(index, base=0)
            front.settle()
        b.post(2)
        for seed in (1, 2):
            a.transmit(frame(64, seed))
        box.settle()
        assert b.frames() == [frame(64, 1), frame(64, 2)]
        assert len(ring_of(a, 1).reap()) == 2


def test_a_base_beyond_the_ring_is_refused() -> None:
    with VhostBox(1) as box:
        front = box.front(0)
        front.negotiate(PACKED)
        front.share_memory()
        front.tell(Request.SET_VRING_NUM, m.VRING_STATE.pack(0, 256))
        front.start_ring(0, base=256 | 1 << 15)
        assert front.is_closed()


def test_memory_is_replaced_under_packed_rings() -> None:
    with VhostBox() as box:
        a, b = pair(box, PACKED, PACKED)
        b.post(4)
        a.transmit(frame(64))
        box.settle()
        a.share_memory()
        b.share_memory()
        a.settle()
        b.settle()
        a.transmit(frame(65))
        box.settle()
        assert b.frames() == [frame(64), frame(65)]


def test_the_control_queue_may_be_packed() -> None:
    features = PACKED | Feature.CTRL_VQ | Feature.MQ
    with VhostBox(1) as box:
        front = box.front(0)
        front.negotiate(features)
        front.send(Request.SET_PROTOCOL_FEATURES, m.U64.pack(1 << 3))
        front.share_memory()
        for index in range(3):
            front.start_ring(index)
        front.settle()
        gpa, answer = front.ram.alloc(4), front.ram.alloc(1)
        front.ram.write(gpa, bytes([4, 0, 1, 0]))
        front.ram.write(answer, b"\xff")
        ring_of(front, 2).add([(gpa, 4, False), (answer, 1, True)])
        box.settle()
        assert [written for _, written, _ in ring_of(front, 2).reap()] == [1]
        assert front.ram.read(answer, 1) == b"\0"


# ---- liars


def transmit_raw(a: FrontEnd, chain: list[tuple[int, int, int]]) -> None:
    """(guest address, bytes, flags) of each; the wrap bits are added to flags."""
    ring = ring_of(a, 1)
    for number in reversed(range(len(chain))):
        gpa, size, flags = chain[number]
        count = ring.offered + number
        ring.describe(count, gpa, size, flags ^ ring.bits(count), 7)


GPA = 0x1000_0000 + 0x10_0000


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        ([(GPA, 100, NEXT)], "next_unavailable"),
        ([(GPA, 100, NEXT), (GPA, 100, AVAIL | USED)], "next_unavailable"),
        ([(GPA, 100, WRITE)], "direction"),
        ([(0xDEAD_0000_0000, 100, 0)], "address"),
        ([(2**64 - 10, 100, 0)], "address"),
        ([(GPA, 2**32 - 1, 0)], "address"),
        ([(GPA, 16, INDIRECT)], "indirect_unasked"),
        ([(GPA, 0, NEXT)] * 256, "loop"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(len(value)),
)
def test_a_lie_breaks_its_own_ring(chain: list[tuple[int, int, int]], reason: str) -> None:
    with VhostBox() as box:
        a, b = pair(box, PACKED, PACKED)
        b.post(4)
        transmit_raw(a, chain)
        box.settle()
        assert box.ring_state(0, 1) == reason
        assert box.ring_state(0, 0) == "ok"
        b.transmit(frame(64))
        box.settle()
        assert box.ring_state(1, 0) == box.ring_state(1, 1) == "ok"


@pytest.mark.parametrize(
    ("size", "flags", "reason"),
    [
        (0, INDIRECT, "indirect_size"),
        (17, INDIRECT, "indirect_size"),
        (16 * 1025, INDIRECT, "indirect_size"),
        (16, INDIRECT | NEXT, "indirect_next"),
    ],
)
def test_tables_that_are_none(size: int, flags: int, reason: str) -> None:
    with VhostBox() as box:
        a, _ = pair(box, PACKED | Feature.INDIRECT_DESC, PACKED)
        transmit_raw(a, [(GPA, size, flags)])
        box.settle()
        assert box.ring_state(0, 1) == reason


def test_an_id_is_the_drivers_own_affair() -> None:
    with VhostBox() as box:
        a, b = pair(box, PACKED, PACKED)
        b.post(1)
        ring = ring_of(a, 1)
        gpa = a.ram.alloc(200)
        a.ram.write(gpa, bytes(12) + frame(64))
        ring.describe(ring.offered, gpa, 76, ring.bits(ring.offered), 0xFFFF)
        box.settle()
        assert b.frames() == [frame(64)]
        at = ring.desc + 16 * ring.slot(ring.offered)[0]
        assert a.ram.read(at + 12, 2) == b"\xff\xff"


@pytest.mark.parametrize("flags", [USED, AVAIL | USED, 0])
def test_what_is_not_offered_is_not_taken(flags: int) -> None:
    """The first round's bits are AVAIL alone."""
    with VhostBox() as box:
        a, b = pair(box, PACKED, PACKED)
        b.post(1)
        ring = ring_of(a, 1)
        gpa = a.ram.alloc(200)
        ring.describe(ring.offered, gpa, 76, flags, 0)
        box.settle()
        assert b.frames() == []
        assert box.ring_state(0, 1) == "ok"


def test_a_ring_that_comes_round_in_one_burst_is_published() -> None:
    """Its only buffer is its only descriptor: the first frame offers it anew, in the next round."""
    with VhostBox() as box:
        ram = Ram([(0x1000_0000, 1 << 20)])
        ram.alloc(64)  # there is memory before the ring
        a, b = box.front(0), box.front(1, ram, 1)
        a.boot(MERGEABLE)
        b.boot(PACKED)
        ring = ring_of(b, 0)
        start = ring.desc - b.header_bytes
        again = struct.pack("<QIHH", start, 200, 0, WRITE | ring.bits(ring.offered + 1))
        b.transmit(bytes(6) + again[:6] + bytes(48))  # its address is the descriptor's first bytes
        box.settle()
        ring.add([(start, 200, True)])
        for last in range(2):
            a.transmit(again + bytes([last]) * 44)
        box.breathe()
        assert len(ring.reap()) == 1
