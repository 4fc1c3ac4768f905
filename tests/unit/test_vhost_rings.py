"""Rings over time: full, asleep, stopped, disabled, moved, wrapped; the control queue."""

import os

import pytest

from tests.fakes.frontend import BASIC, MERGEABLE, FrontEnd
from tests.fakes.ram import Ram
from tests.fakes.ring import Ring
from tests.fakes.vhostbox import A, VhostBox, frame, mac, pair
from vhost import messages as m
from vhost.messages import Feature, Request

WAIT_NS = 100_000
CONTROL = MERGEABLE | Feature.CTRL_VQ | Feature.CTRL_RX | Feature.CTRL_VLAN
CONTROL |= Feature.CTRL_MAC_ADDR | Feature.GUEST_ANNOUNCE | Feature.MQ


# ---- full destinations


def test_a_full_destination_holds_its_source_back_and_loses_nothing() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        b.post(3)
        for seed in range(5):
            a.transmit(frame(100, seed))
        box.breathe()
        assert len(b.frames()) == 3
        assert len(a.rings[1].reap()) == 3
        box.breathe(WAIT_NS // 2)
        assert a.rings[1].reap() == []
        b.post(5)
        box.settle()
        assert b.frames() == [frame(100, 3), frame(100, 4)]
        assert len(a.rings[1].reap()) == 2
        assert box.drops(1) == {}


def test_a_destination_that_stays_full_is_waited_for_once() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        a.transmit(frame(100))
        box.breathe()
        box.breathe(WAIT_NS - 2000)
        assert box.drops(1) == {}
        box.breathe(WAIT_NS)
        assert box.drops(1) == {"ring_full": 1}
        assert len(a.rings[1].reap()) == 1
        a.transmit(frame(101))
        box.breathe()  # no second wait
        assert box.drops(1) == {"ring_full": 2}
        b.post(1)
        a.transmit(frame(102))
        a.transmit(frame(103))
        box.breathe()
        assert b.frames() == [frame(102)]
        assert box.drops(1) == {"ring_full": 2}
        box.breathe()
        assert len(a.rings[1].reap()) == 2, "the next wait has begun"
        b.post(1)
        box.settle()
        assert b.frames() == [frame(103)]


def test_a_full_destination_does_not_hold_up_another_one() -> None:
    with VhostBox(3) as box:
        a, b = pair(box)
        c = box.front(2)
        c.boot()
        c.post(4)
        a.transmit(frame(100))  # for b, which has no room
        to_c = bytes.fromhex("02000000000c02000000000a88b5") + bytes(50)
        c.transmit(bytes.fromhex("02000000000a02000000000c88b5") + bytes(50))
        box.breathe()
        a.transmit(to_c)
        box.breathe()
        assert c.frames() == [to_c]
        assert b.frames() == []


@pytest.mark.parametrize("features", [BASIC, MERGEABLE], ids=["single", "mergeable"])
def test_what_no_buffers_can_hold_is_not_waited_for(features: int) -> None:
    with VhostBox() as box:
        a, b = pair(box, receiver=features, ring_size=4)
        b.post(4, 300)
        a.transmit(frame(1300))
        a.transmit(frame(100))
        box.breathe()
        assert b.frames() == [frame(100)]
        assert box.drops(1) == {"oversize": 1}


def test_a_large_burst_is_delivered_in_several_holds() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        b.post(250, 2048)
        for seed in range(5):
            a.transmit(frame(60000, seed))
        box.settle()
        assert b.frames() == [frame(60000, seed) for seed in range(5)]


# ---- notifications


def calls_for(b: FrontEnd, a: FrontEnd, box: VhostBox, count: int) -> int:
    b.rings[0].calls()
    for _ in range(count):
        a.transmit(frame(64))
    box.settle()
    return b.rings[0].calls()


def test_one_call_for_a_burst_and_none_when_not_wanted() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        b.post(100)
        assert calls_for(b, a, box, 10) == 1
        b.rings[0].set_avail_flags(1)
        assert calls_for(b, a, box, 10) == 0
        b.rings[0].set_avail_flags(0)
        assert calls_for(b, a, box, 1) == 1


def test_event_index_says_when_to_call() -> None:
    with VhostBox() as box:
        a, b = pair(box, receiver=MERGEABLE | Feature.EVENT_IDX)
        b.post(100)
        ring = b.rings[0]
        ring.set_used_event(ring.used_idx + 4)  # at the fifth from here
        assert calls_for(b, a, box, 4) == 0
        assert calls_for(b, a, box, 1) == 1
        assert calls_for(b, a, box, 20) == 0
        ring.set_used_event(ring.used_idx)
        assert calls_for(b, a, box, 20) == 1


@pytest.mark.parametrize("event_idx", [0, Feature.EVENT_IDX], ids=["flags", "event_idx"])
def test_a_quiet_ring_asks_for_kicks_and_wakes_up(event_idx: int) -> None:
    with VhostBox() as box:
        a, b = pair(box, sender=MERGEABLE | event_idx)
        b.post(20)
        ring = a.rings[1]
        for _ in range(3):
            a.transmit(frame(64))
        box.settle()
        if not event_idx:
            assert ring.used_flags == 1
        for _ in range(10):
            box.breathe(10_000_000)
        if event_idx:
            assert ring.avail_event == ring.avail_idx
        else:
            assert ring.used_flags == 0
        a.transmit(frame(64))
        box.breathe()
        assert len(b.frames()) == 3, "it sleeps"
        os.eventfd_write(ring.kick, 1)
        box.settle()
        assert len(b.frames()) == 1
        assert box.count(0, "wakeups") >= 1


def test_a_full_call_descriptor_stops_nobody() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        b.rings[0].calls()
        os.eventfd_write(b.rings[0].call, 2**64 - 2)
        b.post(2)
        a.transmit(frame(64))
        box.settle()
        assert b.frames() == [frame(64)]


def test_another_call_descriptor_is_called_from_now_on() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        b.post(2)
        other = os.eventfd(0, os.EFD_NONBLOCK)
        b.send(Request.SET_VRING_CALL, m.U64.pack(0), [other])
        b.settle()
        assert os.eventfd_read(other) == 1, "what the former one may have missed"
        b.rings[0].calls()
        a.transmit(frame(64))
        box.settle()
        assert os.eventfd_read(other) == 1
        assert b.rings[0].calls() == 0
        os.close(other)


# ---- states


def test_a_disabled_ring_is_drained_and_gets_nothing() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        b.post(5)
        a.send(Request.SET_VRING_ENABLE, m.VRING_STATE.pack(1, 0))
        a.settle()
        for _ in range(40):
            a.transmit(frame(64))
        box.breathe()
        box.breathe()
        assert len(a.rings[1].reap()) == 40
        assert box.drops(0) == {"disabled_queue": 40}
        a.send(Request.SET_VRING_ENABLE, m.VRING_STATE.pack(1, 1))
        b.send(Request.SET_VRING_ENABLE, m.VRING_STATE.pack(0, 0))
        a.settle()
        b.settle()
        a.transmit(frame(64))
        box.settle()
        assert b.frames() == []
        assert box.drops(1) == {"port_down": 1}
        b.send(Request.SET_VRING_ENABLE, m.VRING_STATE.pack(0, 1))
        b.settle()
        a.transmit(frame(65))
        box.settle()
        assert b.frames() == [frame(65)]


def test_without_protocol_features_rings_are_enabled() -> None:
    with VhostBox() as box:
        a, b = pair(box, Feature.VERSION_1, Feature.VERSION_1)
        b.post(1)
        a.transmit(frame(64))
        box.settle()
        assert b.frames() == [frame(64)]


def test_stopped_and_started_again_nothing_is_lost_or_repeated() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        b.post(4)
        a.transmit(frame(64))
        box.settle()
        used = b.rings[0].used_idx
        assert b.stop_ring(0) == used
        assert a.stop_ring(1) == a.rings[1].used_idx
        a.transmit(frame(65))
        box.settle()
        b.start_ring(0, base=used)
        b.settle()
        a.start_ring(1, base=1)
        a.settle()
        box.settle()
        assert b.frames() == [frame(64), frame(65)]


def test_a_new_connection_goes_on_at_the_used_index_whatever_the_base_says() -> None:
    """Cloud Hypervisor sends the available index, which would skip every posted buffer."""
    with VhostBox() as box:
        a, b = pair(box)
        b.post(10)
        a.transmit(frame(64))
        box.settle()
        assert b.sock is not None
        b.sock.close()
        for _ in range(5):
            box.pump()
        b.connect(box.ports[1].config.path)
        b.negotiate(MERGEABLE)
        b.share_memory()
        for index in (0, 1):
            b.start_ring(index, base=b.rings[index].avail_idx)
        b.settle()
        a.transmit(frame(65))
        box.settle()
        assert b.frames() == [frame(64), frame(65)]


def test_indices_wrap() -> None:
    with VhostBox() as box:
        a, b = box.front(0), box.front(1)
        for front in (a, b):
            front.negotiate(MERGEABLE)
            front.share_memory()
            for index in (0, 1):
                ring = front.rings[index] = Ring(front.ram, 16)
                ring.set_avail_idx(65530)
                ring.used_seen = 65530
                front.ram.write(ring.used + 2, (65530).to_bytes(2, "little"))
                front.start_ring(index)
            front.settle()
        for seed in range(40):
            b.post(1)
            a.transmit(frame(64, seed))
            box.settle()
            assert b.frames() == [frame(64, seed)]
            assert len(a.rings[1].reap()) == 1


def test_memory_is_replaced_under_running_rings() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        b.post(4)
        a.transmit(frame(64))
        box.settle()
        b.share_memory()
        b.settle()
        a.transmit(frame(65))
        box.settle()
        assert b.frames() == [frame(64), frame(65)]


def test_memory_without_the_rings_stops_them_and_says_so() -> None:
    with VhostBox() as box:
        _, b = pair(box)
        other = Ram([(0x9000_0000, 1 << 20)])
        b.ram, former = other, b.ram
        payload = m.MEMORY_HEADER.pack(1, 0)
        payload += m.MEMORY_REGION.pack(0x9000_0000, 1 << 20, 0x9000_0000, 0)
        assert b.tell(Request.SET_MEM_TABLE, payload, [other.regions[0].fd]) == 0
        queues = box.ports[1].status()["queues"]
        assert isinstance(queues, list)
        assert [q["started"] for q in queues] == [False, False]
        assert {q["reason"] for q in queues} == {"its memory was removed"}
        former.close()


def test_each_worker_prefers_a_queue_of_its_own_and_pairs_all_work() -> None:
    with VhostBox() as box:
        a, b = box.front(0), box.front(1)
        a.boot(MERGEABLE | Feature.MQ, pairs=4)
        b.boot(MERGEABLE | Feature.MQ, pairs=2)
        b.post(8)
        for number in range(4):
            a.transmit(frame(64, number), pair=number)
        box.settle()
        assert b.frames() == [frame(64, number) for number in range(4)]


# ---- the control queue


def command(front: FrontEnd, box: VhostBox, data: bytes, *, pieces: int = 1) -> int:
    """The answer to a command."""
    ring = front.rings[2]
    gpa, answer = front.ram.alloc(len(data)), front.ram.alloc(1)
    front.ram.write(gpa, data)
    front.ram.write(answer, b"\xff")
    step = -(-len(data) // pieces)
    buffers = [(gpa + i, min(step, len(data) - i), False) for i in range(0, len(data), step)]
    ring.add([*buffers, (answer, 1, True)])
    box.settle()
    ((_, written, _),) = ring.reap()
    assert written == 1
    return front.ram.read(answer, 1)[0]


OK, ERROR = 0, 1


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (bytes([0, 0, 1]), OK),
        (bytes([0, 5, 0]), OK),
        (bytes([0, 6, 0]), ERROR),
        (bytes([0, 0]), ERROR),
        (bytes([1, 0]) + bytes(8), OK),
        (bytes([1, 1]) + bytes(6), OK),
        (bytes([1, 1]) + bytes(5), ERROR),
        (bytes([2, 0, 5, 0]), OK),
        (bytes([2, 1, 5, 0]), OK),
        (bytes([2, 2, 5, 0]), ERROR),
        (bytes([3, 0]), OK),
        (bytes([4, 0, 1, 0]), OK),
        (bytes([4, 0, 0, 0]), ERROR),
        (bytes([4, 0, 2, 0]), ERROR),
        (bytes([4, 1, 1, 0]), ERROR),
        (bytes([5, 0, 0, 0, 0, 0, 0, 0, 0, 0]), ERROR),
        (bytes([77]), ERROR),
    ],
    ids=lambda v: v.hex() if isinstance(v, bytes) else str(v),
)
@pytest.mark.parametrize("pieces", [1, 3])
def test_control_commands(data: bytes, answer: int, pieces: int) -> None:
    with VhostBox(1) as box:
        front = box.front(0)
        front.negotiate(CONTROL)
        # A front-end without MQ cannot tell us about more than one pair.
        front.send(Request.SET_PROTOCOL_FEATURES, m.U64.pack(1 << 3))
        front.share_memory()
        for index in range(3):
            front.start_ring(index)
        front.settle()
        assert command(front, box, data, pieces=pieces) == answer


def test_pairs_in_use_are_the_drivers_choice() -> None:
    with VhostBox(1) as box:
        front = box.front(0)
        front.boot(CONTROL, pairs=2)
        # The control queue of 128 pairs is ring 256, which no kick message can name; so a front-end
        # with MQ serves that queue itself, and we never see it.
        assert box.ports[0].status()["pairs"] == 128


def test_a_command_without_room_for_its_answer_breaks_the_control_queue_alone() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        b.post(1)
        c = box.ports[0].status()
        assert c["state"] == "connected"
        front = a
        front.send(Request.SET_PROTOCOL_FEATURES, m.U64.pack(1 << 3))
        front.send(Request.SET_FEATURES, m.U64.pack(CONTROL))
        front.start_ring(2)
        front.settle()
        gpa = front.ram.alloc(4)
        front.rings[2].add([(gpa, 4, False)])
        box.settle()
        assert box.ring_state(0, 2) == "control_shape"
        a.transmit(frame(64))
        box.settle()
        assert b.frames() == [frame(64)]


def test_what_is_forgotten_with_a_disabled_ring_does_not_count_for_the_next_frames() -> None:
    """A frame that waits keeps those behind it in the ring, marked as sent."""
    with VhostBox(3) as box:
        a, _ = pair(box)
        c = box.front(2)
        c.boot()
        to_c = mac("02:00:00:00:00:0c")
        a.post(2)
        c.transmit(mac(A) + to_c + bytes([0x88, 0xB5]) + bytes(46))
        box.settle()
        c.post(8)
        a.transmit(frame(64))  # the other guest has no buffers
        passed = [to_c + frame(64, seed)[6:] for seed in range(4)]
        a.transmit(passed[0])
        a.transmit(passed[1])
        box.breathe()
        assert c.frames() == passed[:2]
        a.tell(Request.SET_VRING_ENABLE, m.VRING_STATE.pack(1, 0))
        box.breathe()
        a.tell(Request.SET_VRING_ENABLE, m.VRING_STATE.pack(1, 1))
        for seed in (2, 3):
            a.transmit(passed[seed])
        a.transmit(passed[0])
        box.settle()
        assert c.frames() == [passed[2], passed[3], passed[0]]
