"""Our fake drivers on a backend that is not ours: what they may do there they may do to us.

left ── net_vhost port 0 ┐ dpdk-testpmd gives each port's frames to the other as they are
right ─ net_vhost port 1 ┘
"""

import itertools
import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.daemons import until
from tests.fakes.frontend import MERGEABLE, FrontEnd
from tests.fakes.hugepages import reserve_hugepages
from tests.fakes.ram import Ram
from tests.fakes.ring import PackedRing, Ring
from tests.fakes.testpmd import HUGEPAGES_WANTED, Pmd
from vhost.messages import Feature

F = Feature
SIZES_BYTES = [60, 61, 127, 128, 159, 160, 161, 511, 1024, 1499, 1513, 1514]
FRAMES = 20 * len(SIZES_BYTES)  # several rounds of each ring
BATCH = 12  # frames on their way at once
PIECES_BYTES = [(), (12,), (10, 30), (12, 14, 20)]  # how frames are cut, header included
SPLIT_SIZE, PACKED_SIZE = 128, 100
BASIC = MERGEABLE & ~F.MRG_RXBUF
PLAIN = {
    "split": BASIC,
    "split-mergeable": MERGEABLE,
    "split-in_order": BASIC | F.IN_ORDER,
    "split-in_order-mergeable": MERGEABLE | F.IN_ORDER,
}
KINDS = PLAIN | {
    name.replace("split", "packed"): features | F.RING_PACKED for name, features in PLAIN.items()
}


@dataclass
class Ends:
    left: FrontEnd
    right: FrontEnd


@contextmanager
def between(folder: Path, features: int) -> Iterator[Ends]:
    """testpmd listens on the left and connects on the right."""
    left, right = folder / "left.sock", folder / "right.sock"
    size = PACKED_SIZE if features & F.RING_PACKED else SPLIT_SIZE
    never = threading.Event()
    reserve_hugepages(HUGEPAGES_WANTED)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(right))
        listener.listen()
        devices = [f"--vdev=net_vhost0,iface={left}", f"--vdev=net_vhost1,iface={right},client=1"]
        pmd = Pmd(
            ["-l", "0,1", "-m", "128", *devices],
            ["--forward-mode=io", "--total-num-mbufs=8192"],
        )
        stack.enter_context(pmd)
        pmd.ready()
        ends = []
        for _ in (left, right):
            ram = Ram([(0x1000_0000, 32 << 20)])
            ends.append(FrontEnd(lambda: never.wait(0.002) and None, ram, size))
            stack.callback(ends[-1].close)
        ends[0].connect(str(left))
        ends[1].accept(listener)
        for end in ends:
            end.boot(features)
        pmd.tell("start")
        yield Ends(*ends)


def bodies(seed: int) -> list[bytes]:
    rng = random.Random(seed)
    sizes = SIZES_BYTES * (FRAMES // len(SIZES_BYTES))
    rng.shuffle(sizes)
    return [rng.randbytes(size) for size in sizes]


def all_back(ring: Ring | PackedRing) -> bool:
    ring.reap()
    return not ring.chains


def across(source: FrontEnd, sink: FrontEnd, *, indirect: bool, room_bytes: int) -> None:
    """Every frame arrives as it was, and in order; every buffer comes back to its driver."""
    sent, got = bodies(1), []
    cuts = itertools.cycle(PIECES_BYTES)
    for start in range(0, len(sent), BATCH):
        batch = sent[start : start + BATCH]
        for frame in batch:
            source.transmit(frame, pieces=next(cuts), indirect=indirect)
        os.eventfd_write(source.ring(1).kick, 1)

        def arrived(count: int = start + len(batch)) -> bool:
            before = len(sink.ring(0).chains)
            got.extend(sink.frames())
            used = before - len(sink.ring(0).chains)
            sink.post(used, room_bytes, indirect=indirect)
            return len(got) >= count

        until(arrived, f"{start + len(batch)} frames")
        until(lambda: all_back(source.ring(1)), "what was sent to come back")
    assert got == sent


@pytest.mark.parametrize("indirect", [False, True], ids=["direct", "indirect"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_ring(tmp_path: Path, name: str, indirect: bool) -> None:
    features = KINDS[name] | (F.INDIRECT_DESC if indirect else 0)
    room = 600 if features & F.MRG_RXBUF else 1526
    with between(tmp_path, features) as ends:
        for end in (ends.left, ends.right):
            end.post(60, room, indirect=indirect)
        across(ends.left, ends.right, indirect=indirect, room_bytes=room)
        across(ends.right, ends.left, indirect=indirect, room_bytes=room)


def one_by_one(ends: Ends, count: int) -> None:
    """Frames to the right, each only when the one before has arrived."""
    for number in range(count):
        ends.left.transmit(bytes([number]) * 60)
        os.eventfd_write(ends.left.ring(1).kick, 1)
        got: list[bytes] = []
        until(lambda g=got: g.extend(ends.right.frames()) or bool(g), "the frame")
        assert got == [bytes([number]) * 60]
        until(lambda: bool(ends.left.ring(1).reap()), "its buffer to come back")


def called(ring: Ring | PackedRing) -> bool:
    return ring.calls() > 0


@pytest.mark.parametrize("name", ["split", "split-in_order", "packed", "packed-in_order"])
def test_calls_where_the_driver_wants_them(tmp_path: Path, name: str) -> None:
    with between(tmp_path, KINDS[name] | F.EVENT_IDX) as ends:
        ring = ends.right.ring(0)
        ends.right.post(90, 128)
        one_by_one(ends, 1)
        until(lambda: called(ring), "a call for the very first one")
        for wait in [1, 2, 5, 3, 40, 20]:  # over the end of the rings
            last = ring.used_seen + wait - 1
            if isinstance(ring, PackedRing):
                ring.set_call_flags(2, ring.position(last))
            else:
                ring.set_used_event(last)
            one_by_one(ends, wait - 1)
            assert not called(ring)
            one_by_one(ends, 1)
            until(lambda: called(ring), "the call")
            ends.right.post(wait, 128)


@pytest.mark.parametrize("name", ["split", "split-in_order", "packed", "packed-in_order"])
def test_calls_when_the_driver_wants_any(tmp_path: Path, name: str) -> None:
    with between(tmp_path, KINDS[name]) as ends:
        ring = ends.right.ring(0)
        ends.right.post(40, 128)
        one_by_one(ends, 2)
        until(lambda: called(ring), "a call")
        quiet, loud = (1, 0)  # of the driver's event area, and of the available ring's flags
        switch = ring.set_call_flags if isinstance(ring, PackedRing) else ring.set_avail_flags
        switch(quiet)
        one_by_one(ends, 1)  # behind any call for those before
        ring.calls()
        one_by_one(ends, 10)
        assert not called(ring)
        switch(loud)
        one_by_one(ends, 1)
        until(lambda: called(ring), "a call again")
