"""Split rings whose driver lies: each breaks its own ring, for a reason with a name.

One test for each row of docs/hostile.md; the tables are of descriptors as they stand in the ring.
"""

import os
import threading
from collections.abc import Callable

import pytest

from tests.fakes.frontend import FrontEnd
from tests.fakes.neighbourhood import ENOUGH, OFFENDER, PARTNER, Neighbourhood
from tests.fakes.ring import DESC, INDIRECT, NEXT, WRITE, Ring
from tests.fakes.vhostbox import frame
from vhost.messages import Feature

RAM = 0x1000_0000
END = RAM + (8 << 20)
OUTSIDE = 0x4000_0000
OK = (RAM, 100)
RX, TX = 0, 1

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


def later_in_the_table(front: FrontEnd, ring: Ring) -> None:
    """The table's first entry goes on to its third, which is not in memory any more."""
    front.ram.write(END - 32, DESC.pack(*OK, NEXT, 2) + DESC.pack(*OK, 0, 0))
    ring.describe(0, END - 32, 48, INDIRECT)
    ring.offer(0)


def head(number: int) -> Wrong:
    return lambda _, ring: ring.offer(number)


def jump(by: int) -> Wrong:
    return lambda _, ring: ring.set_avail_idx(ring.avail_idx + by)


def circle(length: int) -> Wrong:
    """So many descriptors that follow each other and begin again."""

    def do(_: FrontEnd, ring: Ring) -> None:
        for index in range(length):
            ring.describe(index, RAM, 100, NEXT, (index + 1) % length)
        ring.offer(0)

    return do


def to_send(reason: str, wrong: Wrong) -> None:
    """The offender's TX ring breaks, its RX ring and its partner do not; anew it works again."""
    with Neighbourhood() as block:
        a, b = block.offender, block.partner
        block.works()
        wrong(a, a.rings[TX])
        os.eventfd_write(a.rings[TX].kick, 1)
        block.expect_broken(TX, reason)
        assert os.eventfd_read(a.rings[TX].error) == 1
        a.post(1)
        b.transmit(frame(14)[6:12] + frame(14)[:6] + b"\x88\xb5" + bytes(46))
        block.turns(3)
        assert len(a.frames()) == 1, "what it receives has nothing to do with it"
        block.check()
        a.stop_ring(TX)
        a.rings.pop(TX).close()
        a.start_ring(TX)
        a.settle()
        block.repaired(TX)
        block.works()


def to_receive(reason: str, wrong: Wrong) -> None:
    """The offender is the one who receives here: its RX ring breaks, the sender is not held up."""
    with Neighbourhood() as block:
        a, b = block.offender, block.partner
        wrong(b, b.rings[RX])
        a.transmit(frame(64))
        block.expect_broken(RX, reason, PARTNER)
        assert len(a.rings[TX].reap()) == 1
        assert block.drops(PARTNER) == {"port_down": 1}
        assert os.eventfd_read(b.rings[RX].error) == 1


# ---- addresses


CVE_2018_1059 = {
    "over the end of memory": chain((END - 50, 100, 0, 0)),
    "4 GiB": chain((RAM, 2**32 - 1, 0, 0)),
    "wraps": chain((2**64 - 50, 100, 0, 0)),
    "the second one": chain((*OK, NEXT, 1), (OUTSIDE, 1, 0, 0)),
    "not there": chain((OUTSIDE, 100, 0, 0)),
    "address zero": chain((0, 100, 0, 0)),
    "table not there": chain((OUTSIDE, 16, INDIRECT, 0)),
    "table over the end": chain((END - 8, 16, INDIRECT, 0)),
    "table over the end, later": later_in_the_table,
    "table wraps": chain((2**64 - 8, 16, INDIRECT, 0)),
    "in a table": table((END - 50, 100, 0, 0)),
}


@pytest.mark.parametrize("case", CVE_2018_1059)
def test_cve_2018_1059_buffers_that_end_outside_of_memory(case: str) -> None:
    to_send("address", CVE_2018_1059[case])


@pytest.mark.parametrize("size", [100, 2000, 2**32 - 1])
def test_cve_2018_1059_room_that_ends_outside_of_memory(size: int) -> None:
    to_receive("address", chain((END - 50, size, WRITE, 0)))


def test_cve_2020_10725_empty_buffers_at_addresses_that_are_not_there() -> None:
    with Neighbourhood() as block:
        a, b = block.offender, block.partner
        b.post(1)
        gpa = a.ram.alloc(100)
        a.ram.write(gpa, bytes(12) + frame(64))
        a.rings[TX].add([(OUTSIDE, 0, False), (gpa, 76, False), (OUTSIDE, 0, False)])
        block.turns(3)
        assert b.frames() == [frame(64)]


def test_cve_2020_10725_only_empty_buffers() -> None:
    with Neighbourhood() as block:
        a = block.offender
        a.rings[TX].add([(OUTSIDE, 0, False)] * 3)
        block.turns(3)
        assert block.drops(OFFENDER) == {"short": 1}
        assert len(a.rings[TX].reap()) == 1


# ---- chains


@pytest.mark.parametrize("length", range(26))
@pytest.mark.parametrize("pieces", [1, 4, 26])
def test_cve_2022_2132_chains_no_longer_than_headers(length: int, pieces: int) -> None:
    with Neighbourhood() as block:
        a = block.offender
        gpa = a.ram.alloc(64)
        step = max(1, length // pieces)
        buffers = [(gpa + i, min(step, length - i), False) for i in range(0, length, step)]
        a.rings[TX].add(buffers or [(gpa, 0, False)])
        block.turns(3)
        assert block.drops(OFFENDER) == {"short": 1}
        block.works()


@pytest.mark.parametrize("indirect", [False, True])
def test_cve_2022_2132_a_header_in_buffers_of_one_byte(indirect: bool) -> None:
    with Neighbourhood() as block:
        block.partner.post(1)
        block.offender.transmit(frame(64), pieces=(1,) * 12, indirect=indirect)
        block.turns(3)
        assert block.partner.frames() == [frame(64)]


@pytest.mark.parametrize("length", [1, 2, 256])
def test_dpdk_a436f53ebf_chains_that_loop(length: int) -> None:
    """And cc7301908c, c687b0b635."""
    to_send("loop", circle(length))


def test_dpdk_a436f53ebf_tables_that_loop() -> None:
    to_send("loop", table((*OK, NEXT, 0)))


def test_dpdk_c687b0b635_chains_of_empty_buffers_that_loop() -> None:
    to_send("loop", chain((RAM, 0, NEXT, 1), (RAM, 0, NEXT, 0)))


def test_dpdk_a436f53ebf_room_that_loops() -> None:
    to_receive("loop", chain((RAM, 10, WRITE | NEXT, 0)))


def test_dpdk_cc7301908c_empty_room_that_loops() -> None:
    to_receive("loop", chain((RAM, 0, WRITE | NEXT, 0)))


@pytest.mark.parametrize("pieces", [200, 255, 256])
def test_dpdk_06fc8545fd_more_pieces_than_a_packet_has(pieces: int) -> None:
    """And 134228ca39: 257 of them in a ring that has so many."""
    with Neighbourhood() as block:
        block.offender.transmit(frame(1000), pieces=(1,) * (pieces - 1))
        block.turns(3)
        assert block.drops(OFFENDER) == {"segments": 1}
        assert len(block.offender.rings[TX].reap()) == 1
        block.works()


@pytest.mark.parametrize("count", [257, 1024])
def test_dpdk_134228ca39_tables_longer_than_the_ring(count: int) -> None:
    """[QEMU 3882]: an indirect table may have more entries than the ring."""
    with Neighbourhood() as block:
        gpa = block.offender.ram.alloc(2000)
        entries = [(gpa + i, 1, NEXT if i < count - 1 else 0, i + 1) for i in range(count)]
        table(*entries)(block.offender, block.offender.rings[TX])
        block.turns(3)
        assert block.drops(OFFENDER) == {"segments": 1}


@pytest.mark.parametrize("size", [0, 8, 17, 16 * 1025, 2**32 - 16], ids=str)
def test_qemu_2149_tables_of_a_wrong_size(size: int) -> None:
    to_send("indirect_size", table((*OK, 0, 0), size=size))


@pytest.mark.parametrize("following", [1, 2, 255, 65535])
def test_qemu_2149_tables_that_point_beyond_themselves(following: int) -> None:
    to_send("next_range", table((*OK, NEXT, following)))


# ---- lies without a number


LIES: dict[str, tuple[str, Wrong]] = {
    "avail index one ring and one ahead": ("avail_jump", jump(257)),
    "avail index half way round": ("avail_jump", jump(32768)),
    "avail index backwards": ("avail_jump", jump(-1)),
    "head beyond the table": ("head_range", head(256)),
    "head 65535": ("head_range", head(65535)),
    "next beyond the table": ("next_range", chain((*OK, NEXT, 256))),
    "next 65535": ("next_range", chain((*OK, NEXT, 65535))),
    "writable to send": ("direction", chain((*OK, WRITE, 0))),
    "writable second": ("direction", chain((*OK, NEXT, 1), (*OK, WRITE, 0))),
    "writable in a table": ("direction", table((*OK, WRITE, 0))),
    "indirect and next": ("indirect_next", table((*OK, 0, 0), flags=NEXT)),
    "nested indirect": ("indirect_nested", table((RAM, 16, INDIRECT, 0))),
}
LIES_TO_RECEIVE: dict[str, tuple[str, Wrong]] = {
    "read-only to receive": ("direction", chain((*OK, 0, 0))),
    "read-only second": ("direction", chain((RAM, 10, WRITE | NEXT, 1), (*OK, 0, 0))),
    "avail index jumps": ("avail_jump", jump(257)),
    "avail index backwards": ("avail_jump", jump(-1)),
    "head beyond the table": ("head_range", head(256)),
    "next beyond the table": ("next_range", chain((RAM, 10, WRITE | NEXT, 256))),
    "nested indirect": ("indirect_nested", table((RAM, 16, INDIRECT, 0))),
    "indirect and next": ("indirect_next", table((RAM, 2000, WRITE, 0), flags=NEXT)),
}


@pytest.mark.parametrize("case", LIES)
def test_lies_of_a_sender(case: str) -> None:
    to_send(*LIES[case])


@pytest.mark.parametrize("case", LIES_TO_RECEIVE)
def test_lies_of_a_receiver(case: str) -> None:
    to_receive(*LIES_TO_RECEIVE[case])


def test_tables_that_were_not_negotiated() -> None:
    with Neighbourhood(ENOUGH & ~Feature.INDIRECT_DESC) as block:
        table((*OK, 0, 0))(block.offender, block.offender.rings[TX])
        block.expect_broken(TX, "indirect_unasked")


# ---- rings that lie upon each other


@pytest.mark.parametrize("where", ["desc", "avail", "used"])
def test_a_payload_that_is_the_ring_itself(where: str) -> None:
    """What arrives is what stood there when it was copied; the ring goes on."""
    with Neighbourhood() as block:
        a, b = block.offender, block.partner
        b.post(1)
        gpa = a.ram.alloc(12)
        a.rings[TX].add([(gpa, 12, False), (getattr(a.rings[TX], where), 60, False)])
        block.turns(3)
        assert [len(f) for f in b.frames()] in ([60], [])
        block.works()


@pytest.mark.parametrize("where", ["desc", "avail", "used"])
def test_room_that_is_the_ring_itself(where: str) -> None:
    """The guest has its own ring overwritten: that is its own loss, with a reason."""
    with Neighbourhood() as block:
        a, b = block.offender, block.partner
        b.rings[RX].add([(getattr(b.rings[RX], where), 500, True)])
        a.transmit(b"\xff" * 6 + frame(500)[6:])
        block.turns(3)
        block.may_break(RX, PARTNER)
        assert len(a.rings[TX].reap()) == 1, "the sender is not held up"


@pytest.mark.parametrize("mine", ["desc", "avail", "used"])
@pytest.mark.parametrize("other", ["desc", "avail", "used"])
def test_two_rings_in_one_place(mine: str, other: str) -> None:
    """The RX ring's part lies where a part of the TX ring lies."""
    with Neighbourhood(None) as block:
        a = block.offender
        a.negotiate(ENOUGH)
        a.share_memory()
        tx = a.rings[TX] = Ring(a.ram, 256)
        rx = a.rings[RX] = Ring(a.ram, 256)
        tx.avail, tx.used = a.ram.alloc(1024), a.ram.alloc(4096)  # aligned for any part
        setattr(rx, mine, getattr(tx, other))
        a.start_ring(TX)
        a.start_ring(RX)
        a.settle()
        for _ in range(20):
            tx.add([(RAM + (1 << 20), 100, False)])
            rx.add([(RAM + (2 << 20), 100, True)])
            block.partner.transmit(b"\xff" * 6 + frame(64)[6:])
            block.turns(1)
            tx.free, rx.free = list(range(256)), list(range(256))
        block.may_break(RX)
        block.may_break(TX)


# ---- what costs time


def test_chains_of_empty_buffers_cost_no_more_than_a_few_frames() -> None:
    """Each of 32 chains takes the whole of the largest ring: a million descriptors to read."""
    with Neighbourhood(ring_size=32768) as block:
        a = block.offender
        a.stop_ring(TX)
        a.rings.pop(TX).close()
        ring = a.rings[TX] = Ring(a.ram, 32768)
        entries = (DESC.pack(RAM, 0, NEXT, i + 1) for i in range(32767))
        a.ram.write(ring.desc, b"".join(entries) + DESC.pack(RAM, 0, 0, 0))
        a.start_ring(TX)
        a.settle()
        for _ in range(32):
            ring.offer(0)
        block.breathe()
        assert block.drops(OFFENDER) == {"short": 1}, "one of them in a breath"


def test_a_chain_of_empty_buffers_to_receive_breaks_its_ring() -> None:
    """Nothing will ever fit, and every sender would walk it again."""
    with Neighbourhood(ring_size=4096) as block:
        a, b = block.offender, block.partner
        entries = (DESC.pack(RAM, 0, NEXT | WRITE, i + 1) for i in range(2000))
        b.ram.write(b.rings[RX].desc, b"".join(entries) + DESC.pack(RAM, 2048, WRITE, 0))
        b.rings[RX].offer(0)
        a.transmit(frame(64))
        block.expect_broken(RX, "loop", PARTNER)
        assert len(a.rings[TX].reap()) == 1, "the sender is not held up"


def test_frames_that_are_too_long_are_dropped_and_counted() -> None:
    with Neighbourhood() as block:
        block.partner.post(2, 70000)
        block.offender.transmit(frame(65563))
        block.offender.transmit(frame(65562))
        block.turns(4)
        assert block.drops(OFFENDER) == {"oversize": 1}
        assert block.partner.frames() == [frame(65562)]


# ---- changed while it is read


def test_a_ring_that_changes_while_it_is_read() -> None:
    """Another thread writes descriptors, heads and the index; what breaks is that ring alone."""
    with Neighbourhood() as block:
        a = block.offender
        ring, stop = a.rings[TX], threading.Event()
        good, bad = DESC.pack(*OK, 0, 0), DESC.pack(OUTSIDE, 2**32 - 1, NEXT, 65535)

        def change() -> None:
            while not stop.is_set():
                a.ram.write(ring.desc, bad)
                a.ram.write(ring.desc, good)

        thread = threading.Thread(target=change)
        thread.start()
        try:
            for _ in range(300):
                ring.offer(0)
                os.eventfd_write(ring.kick, 1)
                block.turn()
        finally:
            stop.set()
            thread.join()
        block.may_break(TX)
