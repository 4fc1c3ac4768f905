"""Rings of any size, and as many as there can be."""

import os

import pytest

from tests.fakes.frontend import MERGEABLE, FrontEnd
from tests.fakes.ram import Ram
from tests.fakes.ring import AVAIL, DESC, USED, PackedRing, Ring
from tests.fakes.vhostbox import A, B, VhostBox, frame, mac
from vhost import messages as m
from vhost.messages import Feature, ProtocolFeature, Request

RAM = [(0x1000_0000, 16 << 20)]
SPLIT = {"split": MERGEABLE, "split_in_order": MERGEABLE | Feature.IN_ORDER}
PACKED = {name.replace("split", "packed"): f | Feature.RING_PACKED for name, f in SPLIT.items()}


# ---- how large


@pytest.mark.parametrize("num", [1, 2, 3, 7, 255, 1000, 32768])
@pytest.mark.parametrize("kind", PACKED)
def test_packed_rings_of_any_size(num: int, kind: str) -> None:
    with VhostBox() as box:
        a, b = box.front(0, Ram(RAM), num), box.front(1, Ram(RAM), num)
        for front in (a, b):
            front.boot(PACKED[kind])
        one_by_one(box, a, b, min(2 * num, 30))


@pytest.mark.parametrize("num", [0, 32769, 65535, 1 << 31])
def test_sizes_that_no_ring_has(num: int) -> None:
    with VhostBox(1) as box:
        front = box.front(0)
        front.negotiate(PACKED["packed"])
        assert front.tell(Request.SET_VRING_NUM, m.VRING_STATE.pack(0, num)) != 0


def test_a_split_ring_is_a_power_of_two() -> None:
    with VhostBox(1) as box:
        front = box.front(0)
        front.negotiate(MERGEABLE)
        assert front.tell(Request.SET_VRING_NUM, m.VRING_STATE.pack(0, 96)) != 0


def test_a_size_from_before_the_features_changed() -> None:
    with VhostBox(1) as box:
        front = box.front(0, ring_size=96)
        front.negotiate(PACKED["packed"])
        front.share_memory()
        front.start_ring(0)
        front.settle()
        front.send(Request.SET_FEATURES, m.U64.pack(MERGEABLE))
        assert front.is_closed()


@pytest.mark.parametrize("part", ["avail", "used", "desc"])
@pytest.mark.parametrize("kind", [*SPLIT, *PACKED])
def test_parts_that_are_not_in_memory(kind: str, part: str) -> None:
    refused(kind, part, 1 << 30)


@pytest.mark.parametrize(("part", "by"), [("avail", 1), ("used", 2), ("desc", 8)])
@pytest.mark.parametrize("kind", [*SPLIT, *PACKED])
def test_parts_that_are_not_aligned(kind: str, part: str, by: int) -> None:
    refused(kind, part, by)


def refused(kind: str, part: str, by: int) -> None:
    with VhostBox(1) as box:
        front = box.front(0)
        front.negotiate((SPLIT | PACKED)[kind])
        front.share_memory()
        front.start_ring(0)
        front.settle()
        ring = front.ring(0)
        at = {name: front.ram.user(getattr(ring, name)) for name in ("desc", "used", "avail")}
        at[part] += by
        front.send(
            Request.SET_VRING_ADDR,
            m.VRING_ADDR.pack(0, 0, at["desc"], at["used"], at["avail"], 0),
        )
        assert front.is_closed()


def one_by_one(box: VhostBox, a: FrontEnd, b: FrontEnd, count: int) -> None:
    for seed in range(count):
        b.post(1, 300)
        a.transmit(frame(64, seed))
        box.settle()
        assert b.frames() == [frame(64, seed)]
        assert len(a.ring(1).reap()) == 1


def all_at_once(box: VhostBox, a: FrontEnd, b: FrontEnd, count: int) -> None:
    b.post(count, 300)
    for seed in range(count):
        a.transmit(frame(64, seed))
    box.settle()
    assert b.frames() == [frame(64, seed) for seed in range(count)]
    assert len(a.ring(1).reap()) == count


@pytest.mark.parametrize("start", [0, 32768 - 40, 65536 - 40])
@pytest.mark.parametrize("num", [1, 2, 32768])
@pytest.mark.parametrize("kind", SPLIT)
def test_split_rings_over_the_end_of_ring_and_index(kind: str, num: int, start: int) -> None:
    with VhostBox() as box:
        fronts = [box.front(number, Ram(RAM), num) for number in (0, 1)]
        for front in fronts:
            front.negotiate(SPLIT[kind])
            front.share_memory()
            for index in (0, 1):
                ring = front.ring(index)
                assert isinstance(ring, Ring)
                ring.set_avail_idx(start)
                ring.used_seen = start
                ring.ram.write(ring.used + 2, start.to_bytes(2, "little"))
                front.start_ring(index, base=start)
            front.settle()
        one_by_one(box, *fronts, 30)
        if num > 100:
            all_at_once(box, *fronts, 100)


def as_after(ring: PackedRing, count: int) -> None:
    """As if so many descriptors had gone through it."""
    slot, wrap = ring.slot(count)
    now, before = (AVAIL | USED) * wrap, (AVAIL | USED) * (1 - wrap)
    entries = [DESC.pack(0, 0, 0, now)] * slot + [DESC.pack(0, 0, 0, before)] * (ring.num - slot)
    ring.ram.write(ring.desc, b"".join(entries))
    ring.offered = ring.used_seen = count


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("num", [1, 2, 3, 5, 32767, 32768])
@pytest.mark.parametrize("kind", PACKED)
def test_packed_rings_over_their_end(kind: str, num: int, rounds: int) -> None:
    with VhostBox() as box:
        fronts = [box.front(number, Ram(RAM), num) for number in (0, 1)]
        for front in fronts:
            front.negotiate(PACKED[kind])
            front.share_memory()
            for index in (0, 1):
                ring = front.ring(index)
                assert isinstance(ring, PackedRing)
                as_after(ring, rounds * num - min(num, 40))
                front.start_ring(index, base=ring.position(ring.offered) * 0x1_0001)
            front.settle()
        one_by_one(box, *fronts, 30)
        if num > 100:
            all_at_once(box, *fronts, 100)


# ---- how many


def enable(front: FrontEnd, index: int, enabled: bool) -> None:
    front.send(Request.SET_VRING_ENABLE, m.VRING_STATE.pack(index, int(enabled)))


def boot_many(front: FrontEnd, features: int, protocol: ProtocolFeature, pairs: int) -> None:
    front.negotiate(MERGEABLE | Feature.MQ | Feature.CTRL_VQ | features)
    wanted = front.protocol_features | protocol
    front.send(Request.SET_PROTOCOL_FEATURES, m.U64.pack(wanted))
    front.share_memory()
    for index in range(2 * pairs):
        front.start_ring(index)
        if index % 16 == 0:
            front.settle()  # a socket holds so many messages
    front.settle()


def each_pair_works(box: VhostBox, many: FrontEnd, one: FrontEnd, pairs: int) -> None:
    one.post(pairs)
    for number in range(pairs):
        many.transmit(frame(64, number), pair=number)
    box.settle()
    assert sorted(one.frames()) == sorted(frame(64, number) for number in range(pairs))
    for number in range(pairs):
        assert len(many.ring(2 * number + 1).reap()) == 1
        enable(many, 2 * number, enabled=False)
    for number in range(pairs):  # frames can come to no other
        enable(many, 2 * number, enabled=True)
        many.post(1, pair=number)
        many.settle()
        back = mac(A) + mac(B) + b"\x88\xb5" + bytes([number]) * 50
        one.transmit(back)
        box.settle()
        assert many.frames(pair=number) == [back]
        enable(many, 2 * number, enabled=False)
    assert box.drops(0) == box.drops(1) == {}


@pytest.mark.parametrize("kind", [0, Feature.RING_PACKED], ids=["split", "packed"])
def test_128_pairs_whose_front_end_keeps_the_control_queue(kind: int) -> None:
    with VhostBox() as box:
        many, one = box.front(0, ring_size=4), box.front(1)
        boot_many(many, kind, ProtocolFeature(0), 128)
        one.boot()
        each_pair_works(box, many, one, 128)
        queues = box.ports[0].status()["queues"]
        assert isinstance(queues, list)
        assert [q["started"] for q in queues] == [True] * 256


@pytest.mark.parametrize("kind", [0, Feature.RING_PACKED], ids=["split", "packed"])
def test_127_pairs_and_a_control_queue_of_ours(kind: int) -> None:
    control, pairs = 254, 127
    with VhostBox() as box:
        many, one = box.front(0, ring_size=4), box.front(1)
        boot_many(many, kind, ProtocolFeature.CONFIG, pairs)
        many.start_ring(control)
        one.boot()
        many.settle()
        each_pair_works(box, many, one, pairs)
        ring = many.ring(control)
        gpa = many.ram.alloc(8)
        for wanted, answer in ((pairs, 0), (pairs + 1, 1), (1, 0)):
            many.ram.write(gpa, bytes([4, 0, wanted, 0, 0xFF]))
            ring.add([(gpa, 4, False), (gpa + 4, 1, True)])
            os.eventfd_write(ring.kick, 1)
            box.settle()
            assert [chain[1] for chain in ring.reap()] == [1]
            assert many.ram.read(gpa + 4, 1) == bytes([answer])
