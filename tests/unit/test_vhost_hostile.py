"""Guests and front-ends that do wrong: each breaks its own ring or connection, for a reason with a
name, and nobody else notices.  Names in brackets are those of the published vulnerabilities."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.frontend import MERGEABLE, FrontEnd
from tests.fakes.ring import DESC, INDIRECT, NEXT, WRITE, Ring
from tests.fakes.vhostbox import VhostBox, frame, pair
from vhost import messages as m
from vhost.messages import Feature, Request

RAM = 0x1000_0000
END = RAM + (8 << 20)
OUTSIDE = 0x4000_0000

Wrong = Callable[[FrontEnd, Ring], None]


def chain(*entries: tuple[int, int, int, int]) -> Wrong:
    """Descriptors 0, 1, … as given, offered at 0."""

    def do(_: FrontEnd, ring: Ring) -> None:
        for index, entry in enumerate(entries):
            ring.describe(index, *entry)
        ring.offer(0)

    return do


def table(*entries: tuple[int, int, int, int], flags: int = 0, size: int | None = None) -> Wrong:
    """An indirect table."""

    def do(front: FrontEnd, ring: Ring) -> None:
        gpa = front.ram.alloc(16 * len(entries) + 16)
        front.ram.write(gpa, b"".join(DESC.pack(*entry) for entry in entries))
        ring.describe(0, gpa, 16 * len(entries) if size is None else size, INDIRECT | flags, 1)
        ring.offer(0)

    return do


def head(number: int) -> Wrong:
    return lambda _, ring: ring.offer(number)


def jump(by: int) -> Wrong:
    return lambda _, ring: ring.set_avail_idx(ring.avail_idx + by)


def circle(_: FrontEnd, ring: Ring) -> None:
    for index in range(ring.num):
        ring.describe(index, RAM, 100, NEXT, (index + 1) % ring.num)
    ring.offer(0)


OK = (RAM, 100)
TX_CASES: dict[str, tuple[str, Wrong]] = {
    "avail index jumps": ("avail_jump", jump(257)),
    "avail index goes backwards": ("avail_jump", jump(-1)),
    "head beyond the table": ("head_range", head(256)),
    "head 65535": ("head_range", head(65535)),
    "next beyond the table": ("next_range", chain((*OK, NEXT, 256))),
    "chain that loops on itself": ("loop", chain((*OK, NEXT, 0))),
    "chain longer than the ring": ("loop", circle),
    "unmapped address": ("address", chain((OUTSIDE, 100, 0, 0))),
    "address zero": ("address", chain((0, 100, 0, 0))),
    "buffer over the end of memory [CVE-2018-1059]": ("address", chain((END - 50, 100, 0, 0))),
    "buffer of 4 GiB": ("address", chain((RAM, 2**32 - 1, 0, 0))),
    "address that wraps": ("address", chain((2**64 - 50, 100, 0, 0))),
    "second buffer unmapped": ("address", chain((*OK, NEXT, 1), (OUTSIDE, 1, 0, 0))),
    "writable buffer to send": ("direction", chain((*OK, WRITE, 0))),
    "writable second buffer": ("direction", chain((*OK, NEXT, 1), (*OK, WRITE, 0))),
    "indirect and next": ("indirect_next", table((*OK, 0, 0), flags=NEXT)),
    "nested indirect": ("indirect_nested", table((RAM, 16, INDIRECT, 0))),
    "indirect table of length 0": ("indirect_size", table(size=0)),
    "indirect table of 17 bytes": ("indirect_size", table((*OK, 0, 0), size=17)),
    "indirect table that is too long": ("indirect_size", table((*OK, 0, 0), size=16 * 1025)),
    "indirect next beyond [QEMU 2149]": ("next_range", table((*OK, NEXT, 1))),
    "indirect loop": ("loop", table((*OK, NEXT, 0))),
    "indirect writable": ("direction", table((*OK, WRITE, 0))),
    "indirect table unmapped": ("address", chain((OUTSIDE, 16, INDIRECT, 0))),
    "indirect table over the end": ("address", chain((END - 8, 16, INDIRECT, 0))),
}
RX_CASES: dict[str, tuple[str, Wrong]] = {
    "read-only buffer to receive": ("direction", chain((*OK, 0, 0))),
    "unmapped": ("address", chain((OUTSIDE, 2000, WRITE, 0))),
    "over the end": ("address", chain((END - 50, 2000, WRITE, 0))),
    "avail index jumps": ("avail_jump", jump(257)),
    "head beyond the table": ("head_range", head(256)),
    "loop": ("loop", chain((RAM, 10, WRITE | NEXT, 0))),
    "nested indirect": ("indirect_nested", table((RAM, 16, INDIRECT, 0))),
}
FEATURES = MERGEABLE | Feature.INDIRECT_DESC


@pytest.mark.parametrize("case", TX_CASES)
def test_a_wrong_chain_to_send_breaks_its_ring_alone(case: str) -> None:
    reason, wrong = TX_CASES[case]
    with VhostBox(3) as box:
        a, b = pair(box, FEATURES)
        c = box.front(2)
        c.boot()
        b.post(10)
        a.transmit(frame(64))
        box.settle()
        wrong(a, a.rings[1])
        for _ in range(3):
            box.breathe()
        box.pump()
        assert box.ring_state(0, 1) == reason
        assert box.ring_state(0, 0) == "ok"
        assert os.eventfd_read(a.rings[1].error) == 1
        c.transmit(frame(65))
        box.settle()
        assert b.frames() == [frame(64), frame(65)]
        # Started anew the ring works again.
        a.stop_ring(1)
        a.rings.pop(1).close()
        a.start_ring(1)
        a.settle()
        a.transmit(frame(66))
        box.settle()
        assert b.frames() == [frame(66)]


@pytest.mark.parametrize("case", RX_CASES)
def test_a_wrong_chain_to_receive_breaks_its_ring_alone(case: str) -> None:
    reason, wrong = RX_CASES[case]
    with VhostBox(3) as box:
        a, b = pair(box, FEATURES, FEATURES)
        wrong(b, b.rings[0])
        a.transmit(frame(64))
        box.settle()
        box.pump()
        assert box.ring_state(1, 0) == reason
        assert len(a.rings[1].reap()) == 1, "the sender is not held up"
        assert box.drops(1) == {"port_down": 1}


def test_indirect_chains_that_were_not_negotiated() -> None:
    with VhostBox() as box:
        a, _ = pair(box)
        table((*OK, 0, 0))(a, a.rings[1])
        box.settle()
        assert box.ring_state(0, 1) == "indirect_unasked"


@pytest.mark.parametrize("length", range(26))
@pytest.mark.parametrize("pieces", [1, 4])
def test_chains_no_longer_than_headers(length: int, pieces: int) -> None:
    """[CVE-2022-2132]"""
    with VhostBox() as box:
        a, b = pair(box)
        b.post(2)
        gpa = a.ram.alloc(64)
        step = max(1, length // pieces)
        buffers = [(gpa + i, min(step, length - i), False) for i in range(0, length, step)]
        a.rings[1].add(buffers or [(gpa, 0, False)])
        a.transmit(frame(64))
        box.settle()
        assert box.drops(0) == {"short": 1}
        assert b.frames() == [frame(64)]
        assert len(a.rings[1].reap()) == 2


def test_empty_buffers_are_nothing_even_at_addresses_that_are_not_there() -> None:
    """[CVE-2020-10725]"""
    with VhostBox() as box:
        a, b = pair(box)
        b.post(1)
        gpa = a.ram.alloc(100)
        a.ram.write(gpa, bytes(12) + frame(64))
        a.rings[1].add([(OUTSIDE, 0, False), (gpa, 76, False), (OUTSIDE, 0, False)])
        box.settle()
        assert b.frames() == [frame(64)]


def test_too_many_pieces_and_too_many_bytes_are_dropped_and_counted() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        b.post(2, 70000)
        a.transmit(frame(1000), pieces=(1,) * 200)
        a.transmit(frame(65563))
        a.transmit(frame(65562))
        box.settle()
        assert box.drops(0) == {"segments": 1, "oversize": 1}
        assert b.frames() == [frame(65562)]


def test_memory_that_shrinks_costs_its_owner_the_connection_and_nobody_else() -> None:
    with VhostBox(3) as box:
        a, b = pair(box)
        c = box.front(2)
        c.boot()
        b.post(10)
        a.transmit(frame(64))
        box.settle()
        os.ftruncate(a.ram.regions[0].fd, 0)
        for _ in range(3):
            box.breathe()
        assert a.is_closed()
        assert box.ports[0].status()["state"] == "listening"
        assert "memory" in str(box.ports[0].status()["reason"])
        c.transmit(frame(65))
        box.settle()
        assert b.frames() == [frame(64), frame(65)]


def test_memory_that_shrinks_while_it_is_written_to() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        b.post(1)
        gpa = b.ram.alloc(4096, 4096)
        b.rings[0].reap()
        b.post(1)
        os.ftruncate(b.ram.regions[0].fd, gpa - RAM)
        a.transmit(frame(1000))
        a.transmit(frame(1001))
        box.settle()
        assert b.is_closed()
        assert len(a.rings[1].reap()) == 2


# ---- memory tables


def region(gpa: int, size: int, user: int, offset: int) -> bytes:
    return m.MEMORY_HEADER.pack(1, 0) + m.MEMORY_REGION.pack(gpa, size, user, offset)


@pytest.mark.parametrize(
    ("gpa", "size", "user", "offset"),
    [
        (0, 0, 0, 0),
        (0, 8193, 0, 0),
        (0, 4096, 0, 8192),
        (2**64 - 4096, 8192, 0, 0),
        (0, 8192, 2**64 - 4096, 0),
        (0, 8192, 0, 2**64 - 4096),
        (0, 2**63, 0, 0),
        (0, 2**64 - 1, 0, 1),
    ],
    ids=str,
)
def test_regions_that_cannot_be(gpa: int, size: int, user: int, offset: int) -> None:
    with VhostBox(1) as box:
        front = box.front(0)
        front.negotiate()
        fd = os.memfd_create("small")
        os.ftruncate(fd, 8192)
        assert front.tell(Request.SET_MEM_TABLE, region(gpa, size, user, offset), [fd]) != 0
        assert front.tell(Request.SET_MEM_TABLE, region(0, 8192, 0, 0), [fd]) == 0
        os.close(fd)


def test_regions_that_overlap() -> None:
    with VhostBox(1) as box:
        front = box.front(0)
        front.negotiate()
        fd = front.ram.regions[0].fd
        for second in ((4096, 8192, 0x100000, 0), (0x10000, 8192, 4096, 0)):
            payload = m.MEMORY_HEADER.pack(2, 0)
            payload += m.MEMORY_REGION.pack(0, 8192, 0, 0) + m.MEMORY_REGION.pack(*second)
            assert front.tell(Request.SET_MEM_TABLE, payload, [fd, fd]) != 0


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "socket", "eventfd"])
def test_what_is_no_memory_file(kind: str) -> None:
    with VhostBox(1) as box:
        front = box.front(0)
        front.negotiate()
        opened = []
        if kind == "pipe":
            opened = list(os.pipe())
        elif kind == "device":
            opened = [os.open("/dev/zero", os.O_RDWR)]
        elif kind == "directory":
            opened = [os.open("/tmp", os.O_RDONLY)]
        elif kind == "eventfd":
            opened = [os.eventfd(0)]
        else:
            assert front.sock is not None
            opened = [os.dup(front.sock.fileno())]
        assert front.tell(Request.SET_MEM_TABLE, region(0, 4096, 0, 0), opened[:1]) != 0
        for fd in opened:
            os.close(fd)


def test_a_call_descriptor_that_could_block_is_refused(tmp_path: Path) -> None:
    with VhostBox() as box:
        a, b = pair(box)
        b.post(2)
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        before = len(os.listdir("/proc/self/fd"))
        assert b.tell(Request.SET_VRING_CALL, m.U64.pack(0), [fd]) != 0
        assert len(os.listdir("/proc/self/fd")) == before
        a.transmit(frame(64))
        box.settle()
        assert os.fstat(fd).st_size == 0
        assert b.rings[0].calls() > 0, "the former one is still in use"
        b.stop_ring(0)
        assert b.tell(Request.SET_VRING_CALL, m.U64.pack(0), [fd]) == 0
        assert b.tell(Request.SET_VRING_KICK, m.U64.pack(0), [b.rings[0].kick]) != 0
        os.close(fd)


@pytest.mark.parametrize("which", ["desc", "avail", "used"])
@pytest.mark.parametrize("problem", ["unmapped", "over the end", "misaligned"])
def test_rings_that_are_not_in_memory(which: str, problem: str) -> None:
    with VhostBox(1) as box:
        front = box.front(0)
        front.negotiate()
        front.share_memory()
        ring = front.rings[1] = Ring(front.ram, 256)
        wrong = {"unmapped": 0x1234_0000, "over the end": front.ram.user(END - 64), "misaligned": 0}
        users = {name: front.ram.user(getattr(ring, name)) for name in ("desc", "avail", "used")}
        users[which] = wrong[problem] or users[which] + 1
        front.send(Request.SET_VRING_NUM, m.VRING_STATE.pack(1, 256))
        addresses = m.VRING_ADDR.pack(1, 0, users["desc"], users["used"], users["avail"], 0)
        assert front.tell(Request.SET_VRING_ADDR, addresses) == 0
        assert front.tell(Request.SET_VRING_KICK, m.U64.pack(1), [ring.kick]) != 0
        front.start_ring(1)
        front.settle()
        assert box.ring_state(0, 1) == "ok"


# ---- nothing is left behind


def usage() -> tuple[int, int]:
    gc.collect()
    maps = Path("/proc/self/maps").read_text()
    return len(os.listdir("/proc/self/fd")), maps.count("memfd:ram")


def test_a_hundred_connections_leave_nothing_behind() -> None:
    with VhostBox(1) as box:
        box.front(0).boot()
        box.fronts.pop().close()
        for _ in range(5):
            box.pump()
        before = usage()
        for _ in range(100):
            front = box.front(0)
            front.boot()
            front.post(2)
            front.stop_ring(0)
            front.start_ring(0)
            front.share_memory()
            front.settle()
            box.breathe()
            front.close()
            box.fronts.clear()
            for _ in range(5):
                box.pump()
        assert usage() == before


def test_chains_of_empty_buffers_cost_no_more_than_a_few_frames() -> None:
    """Each of 32 chains takes the whole of the largest ring: a million descriptors to read."""
    with VhostBox() as box:
        a, _ = pair(box, ring_size=32768)
        a.stop_ring(1)
        ring = a.rings[1] = Ring(a.ram, 32768)
        entries = (DESC.pack(RAM, 0, NEXT, i + 1) for i in range(32767))
        a.ram.write(ring.desc, b"".join(entries) + DESC.pack(RAM, 0, 0, 0))
        a.start_ring(1)
        a.settle()
        for _ in range(32):
            ring.offer(0)
        box.breathe()
        assert box.drops(0) == {"short": 1}


def test_a_chain_of_empty_buffers_to_receive_breaks_its_ring() -> None:
    """Nothing will ever fit, and every sender would walk it again."""
    with VhostBox() as box:
        a, b = pair(box, ring_size=4096)
        ring = b.rings[0]
        entries = (DESC.pack(RAM, 0, NEXT | WRITE, i + 1) for i in range(2000))
        b.ram.write(ring.desc, b"".join(entries) + DESC.pack(RAM, 2048, WRITE, 0))
        ring.offer(0)
        a.transmit(frame(64))
        box.settle()
        box.pump()
        assert box.ring_state(1, 0) == "loop"
        assert len(a.rings[1].reap()) == 1, "the sender is not held up"
