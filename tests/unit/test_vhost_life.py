"""What outlives a switch: features that guests took, and where packed rings stand."""

import errno
import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.frontend import MERGEABLE, FrontEnd
from tests.fakes.ring import AVAIL, USED
from tests.fakes.vhostbox import VhostBox, frame, pair
from tests.unit.test_vhost_port import listener, pump_until
from vhost import messages as m
from vhost import port
from vhost.core import RING_STATE_BYTES
from vhost.messages import Feature
from vhost.statefile import file_name


def notes(box: VhostBox, number: int = 0) -> list[str]:
    status: dict[str, Any] = box.ports[number].status()
    return list(status["notes"])


def without(monkeypatch: pytest.MonkeyPatch, feature: Feature) -> None:
    """This switch offers less than the one before."""
    monkeypatch.setattr(m, "OFFERED_FEATURES", m.OFFERED_FEATURES & ~feature)


def test_a_switch_that_offers_less_says_why_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VhostBox(1, folder=tmp_path) as box:
        box.front(0).boot(MERGEABLE | Feature.EVENT_IDX)
        assert notes(box) == []
    without(monkeypatch, Feature.EVENT_IDX)
    with VhostBox(1, folder=tmp_path) as box:
        front = box.front(0)
        front.settle()
        (note,) = notes(box)
        assert "took EVENT_IDX from a former switch" in note
        box.fronts.remove(front)
        front.close()
        for _ in range(3):
            box.pump()
        assert notes(box) == [note], "while nobody is connected, too"
        box.front(0).boot(MERGEABLE)
        assert notes(box) == [], "another guest, which takes what there is"
    with VhostBox(1, folder=tmp_path) as box:
        box.front(0).settle()
        assert notes(box) == []


def test_a_switch_that_offers_more_has_nothing_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, VhostBox(1, folder=tmp_path) as box:
        without(patch, Feature.EVENT_IDX)
        box.front(0).boot()
    with VhostBox(1, folder=tmp_path) as box:
        box.front(0).boot()
        assert notes(box) == []


def test_a_front_end_that_goes_at_once_is_not_called_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port, "RETRY_S", 3600.0)
    box = VhostBox(1, mode="client", folder=tmp_path)
    with box, listener(box.ports[0].config.path) as sock:
        box.ports[0].start()
        front = FrontEnd(box.pump)
        front.accept(sock)
        front.settle()
        front.close()
        pump_until(box, "connecting")
        for _ in range(10):
            box.pump()
        assert box.ports[0].status()["connections"] == 1


def test_a_port_works_without_a_state_file(tmp_path: Path) -> None:
    with VhostBox(1, folder=tmp_path) as box:
        os.mkdir(tmp_path / file_name(box.ports[0].config.path))
        box.front(0).boot()
        (note,) = notes(box)
        assert "Is a directory: packed rings will not outlive the switch" in note


def test_a_port_nobody_used_leaves_no_file(tmp_path: Path) -> None:
    with VhostBox(1, folder=tmp_path) as box:
        box.front(0).settle()
        assert (tmp_path / file_name(box.ports[0].config.path)).exists()
    assert list(tmp_path.iterdir()) == []


# ---- packed rings

PACKED = int(MERGEABLE | Feature.RING_PACKED)
RING = 8
STATE = struct.Struct("<IIHH")  # count, last, position, next position: struct vhost_ring_state
NO_SLOT = 65536  # VHOST_NO_SLOT


def lose(box: VhostBox, number: int, front: FrontEnd) -> None:
    """The connection."""
    assert front.sock is not None
    front.sock.close()
    pump_until(box, "listening", number)


def come_back(
    box: VhostBox, number: int, front: FrontEnd, *, bases: tuple[int | None, ...] = (None, None)
) -> None:
    """Memory and rings are what they were."""
    front.connect(box.ports[number].config.path)
    front.negotiate(front.features)
    front.share_memory()
    for index, base in enumerate(bases):
        front.start_ring(index, base=base)
    front.settle()


def again(
    box: VhostBox, number: int, front: FrontEnd, *, bases: tuple[int | None, ...] = (None, None)
) -> None:
    lose(box, number, front)
    come_back(box, number, front, bases=bases)


def record(box: VhostBox, number: int, index: int) -> memoryview:
    states = box.ports[number]._device.states
    assert states is not None
    return states.record(index)


def packed_pair(box: VhostBox) -> tuple[FrontEnd, FrontEnd]:
    return pair(box, MERGEABLE, PACKED, ring_size=RING)


def arrives(box: VhostBox, a: FrontEnd, b: FrontEnd, seed: int) -> None:
    """One frame to B, which had room for it."""
    a.transmit(frame(100, seed))
    box.settle()
    a.ring(1).reap()
    assert b.frames() == [frame(100, seed)], box.ports[1].status()


@pytest.mark.parametrize("before", range(3 * RING))
def test_a_packed_ring_goes_on_wherever_it_is(before: int) -> None:
    """In every position of either round, with nothing offered, something, and as much as fits."""
    with VhostBox(2) as box:
        a, b = packed_pair(box)
        for seed in range(before):
            b.post(1, 256)
            arrives(box, a, b, seed)
        for more in (0, 1, RING):
            b.post(more - len(b.ring(0).chains), 256)
            again(box, 1, b)
            assert notes(box) == []
        arrives(box, a, b, 99)


@pytest.mark.parametrize("offered", [0, 1, RING // 2, RING])
@pytest.mark.parametrize("before", range(3 * RING))
def test_a_driver_that_begins_anew_is_noticed(before: int, offered: int) -> None:
    """DPDK's zeroes its rings whenever the connection comes back; addresses stay."""
    with VhostBox(2) as box:
        a, b = packed_pair(box)
        for seed in range(before):
            b.post(1, 256)
            arrives(box, a, b, seed)
        for index in (0, 1):
            ring = b.packed[index]
            b.ram.write(ring.desc, bytes(16 * RING))
            ring.offered = ring.used_seen = 0
            ring.chains, ring.free = {}, list(range(RING))
        b.post(offered, 256)
        again(box, 1, b)
        b.post(RING - offered, 256)
        arrives(box, a, b, 99)
        b.transmit(frame(100))
        box.settle()
        assert len(b.packed[1].reap()) == 1


@pytest.mark.parametrize("stage", ["begun", "half", "all but first", "all", "position", "done"])
@pytest.mark.parametrize("before", [0, 3, RING - 2, RING + 3])
def test_a_batch_that_was_begun_is_finished(before: int, stage: str) -> None:
    """Killed between any two steps of packed_publish()."""
    frames = [frame(100, seed) for seed in range(4)]
    with VhostBox(2) as box:
        a, b = packed_pair(box)
        for seed in range(before):
            b.post(1, 256)
            arrives(box, a, b, seed)
        b.post(RING, 256)
        ring, state = b.packed[0], record(box, 1, 0)
        table_before = b.ram.read(ring.desc, 16 * RING)
        _, last_before, position_before, _ = STATE.unpack_from(state)
        for one in frames:
            a.transmit(one)
        box.settle()
        table = b.ram.read(ring.desc, 16 * RING)
        count, last, position, following = STATE.unpack_from(state)
        assert (count, following) == (0, position)
        slots = [(before + i) % RING for i in range(len(frames))]
        unwritten = {
            "begun": slots,
            "half": [slots[0], *slots[2:]],
            "all but first": slots[:1],
        }.get(stage, [])
        for slot in unwritten:
            at = 16 * slot
            b.ram.write(ring.desc + at, table_before[at : at + 16])
        if stage != "done":
            count = len(frames)
            if stage != "position":
                last, position = last_before, position_before
            STATE.pack_into(state, 0, count, last, position, following)
        state.release()
        again(box, 1, b)
        assert b.ram.read(ring.desc, 16 * RING) == table
        assert b.frames() == frames
        arrives(box, a, b, 99)


def both_packed(box: VhostBox) -> tuple[FrontEnd, FrontEnd]:
    """Nothing was sent yet."""
    a, b = (box.front(number, ring_size=RING) for number in (0, 1))
    for front in (a, b):
        front.boot(PACKED)
    return a, b


class Vmm:
    """Throws away what its guest sends while there is no switch, as QEMU does, from where it last
    heard that the ring is.  count: that place, as PackedRing counts."""

    def __init__(self, front: FrontEnd, count: int = 0) -> None:
        self.ring = front.packed[1]
        self.count = count

    @property
    def bases(self) -> tuple[None, int]:
        """Of both rings, for SET_VRING_BASE."""
        position = self.ring.position(self.count)
        return None, position << 16 | position

    def throw_away(self) -> int:
        """Returns how many chains."""
        ring, thrown = self.ring, 0
        slots = {}  # where the chains lie that are offered
        at = ring.offered
        for buffer_id, (parts, _) in reversed(ring.chains.items()):
            at -= parts
            slots[at % ring.num] = buffer_id, parts
        while (
            ring.flags(self.count) & (AVAIL | USED) == ring.bits(self.count)
            and self.count % ring.num in slots
        ):
            buffer_id, parts = slots.pop(self.count % ring.num)
            used = (AVAIL | USED) * ring.slot(self.count)[1]
            ring.describe(self.count, 0, 0, used, buffer_id)
            self.count += parts
            thrown += 1
        return thrown


def offer(front: FrontEnd, frames: int, parts: int) -> None:
    ring = front.packed[1]
    for _ in range(frames):
        ring.add([(front.ram.alloc(64), 64, False)] * parts)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("taken", [1, 3])
@pytest.mark.parametrize("first", [0, 5, RING, RING + 3])
@pytest.mark.parametrize("before", range(RING))
def test_what_the_front_end_used_meanwhile_is_passed_over(
    before: int, first: int, taken: int, parts: int
) -> None:
    """Where it heard of the ring last was so many slots into a round; we are so many before the
    same place, two rounds on."""
    with VhostBox(2) as box:
        a, b = both_packed(box)
        for seed in range(first):
            b.post(1, 256)
            arrives(box, a, b, seed)
        vmm = Vmm(a, first)
        again(box, 0, a, bases=vmm.bases)
        for seed in range(2 * RING - before):
            b.post(1, 256)
            arrives(box, a, b, seed)
        lose(box, 0, a)
        offer(a, before, 1)
        offered = min(taken, (RING - before) // parts)
        offer(a, offered, parts)
        vmm.count += 2 * RING
        assert vmm.throw_away() == offered
        come_back(box, 0, a, bases=vmm.bases)
        assert len(a.packed[1].reap()) == before + offered
        again(box, 0, a, bases=vmm.bases)
        for seed in range(3 * RING):
            b.post(1, 256)
            arrives(box, a, b, seed)
        assert notes(box) == []


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_front_end_that_went_on_for_us_knows_better(rounds: int) -> None:
    with VhostBox(2) as box:
        a, b = both_packed(box)
        vmm = Vmm(a)
        lose(box, 0, a)
        for _ in range(rounds):
            offer(a, RING, 1)
            assert vmm.throw_away() == RING
            a.packed[1].reap()
        come_back(box, 0, a, bases=vmm.bases)
        for seed in range(3 * RING):
            b.post(1, 256)
            arrives(box, a, b, seed)


@pytest.mark.parametrize("written", [(), (1,), (1, 2), (1, 2, 3), (0, 1, 2, 3)])
def test_a_batch_that_the_front_end_also_used(written: tuple[int, ...]) -> None:
    """Killed while some of four used descriptors were written, the first one last."""
    with VhostBox(2) as box:
        a, b = both_packed(box)
        vmm = Vmm(a)
        b.post(RING, 256)
        offer(a, 4, 1)
        ring = a.packed[1]
        before = a.ram.read(ring.desc, 16 * RING)
        box.settle()
        lose(box, 0, a)
        state = record(box, 0, 1)
        _, _, position, following = STATE.unpack_from(state)
        assert (position, following) == (0x8004, 0x8004)
        for slot in set(range(4)) - set(written):
            a.ram.write(ring.desc + 16 * slot, before[16 * slot :][:16])
        STATE.pack_into(state, 0, 4, NO_SLOT, 0x8000, following)
        state.release()
        assert vmm.throw_away() == (4 if not written else 0 if 0 in written else 1)
        early = len(ring.reap())
        offer(a, RING - 4 + early, 1)  # where those were that came back
        come_back(box, 0, a, bases=vmm.bases)
        assert early + len(ring.reap()) == RING + early
        b.frames()
        for seed in range(3 * RING):
            arrives(box, a, b, seed)
            b.post(1, 256)


def test_a_ring_that_was_stopped_begins_where_it_is_told() -> None:
    with VhostBox(2) as box:
        a, b = packed_pair(box)
        for seed in range(3):
            b.post(1, 256)
            arrives(box, a, b, seed)
        bases = [b.stop_ring(index) for index in (0, 1)]
        assert bases[0] == 0x80038003
        record(box, 1, 0)[:] = b"\xff" * RING_STATE_BYTES
        for index in (0, 1):
            b.start_ring(index, base=bases[index])
        b.settle()
        b.post(1, 256)
        arrives(box, a, b, 99)


def test_another_memory_begins_anew_and_the_port_says_so() -> None:
    with VhostBox(2) as box:
        a, b = packed_pair(box)
        b.post(1, 256)
        arrives(box, a, b, 1)
        box.fronts.remove(b)
        b.close()
        pump_until(box, "listening", 1)
        b = box.front(1, ring_size=RING)
        b.boot(PACKED)
        assert box.ports[1].status()["notes"] == [
            f"packed ring {index} begins anew: memory is another one" for index in (0, 1)
        ]
        b.post(1, 256)
        arrives(box, a, b, 2)


def test_torn_records_break_nothing() -> None:
    seed = random.randrange(2**32)
    print(f"seed={seed}")
    rng = random.Random(seed)
    with VhostBox(2) as box:
        a, b = packed_pair(box)
        b.post(1, 256)
        arrives(box, a, b, 1)
        for _ in range(300):
            state = record(box, 1, rng.randrange(2))
            for _ in range(rng.randrange(1, 12)):
                state[rng.choice([rng.randrange(12), rng.randrange(100)])] = rng.choice(
                    [0, 1, 0x80, 0xFF, rng.randrange(256)]
                )
            state.release()
            again(box, 1, b)
            a.transmit(frame(60))
            box.settle()
            a.rings[1].reap()
        assert box.ports[0].status()["state"] == "connected"


def test_a_packed_ring_works_where_there_is_no_room_for_its_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with VhostBox(2) as box:
        for port_ in box.ports:
            port_.start()
        monkeypatch.setattr(os, "posix_fallocate", full)
        a, b = packed_pair(box)
        assert all("cannot outlive the switch: no room" in note for note in notes(box, 1))
        b.post(1, 256)
        arrives(box, a, b, 1)
        bases = [b.packed[index].position(b.packed[index].used_seen) for index in (0, 1)]
        for index in (0, 1):
            b.stop_ring(index)
            b.start_ring(index, base=bases[index])
        b.settle()
        b.post(1, 256)
        arrives(box, a, b, 2)
