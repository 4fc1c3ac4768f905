"""Memory that is not what the front-end says, one test for each row of docs/hostile.md."""

import os
from pathlib import Path

import pytest

from tests.fakes.frontend import FrontEnd
from tests.fakes.neighbourhood import OFFENDER, PARTNER, Neighbourhood, usage
from tests.fakes.ring import Ring
from tests.fakes.vhostbox import A, B, frame, mac
from vhost import messages as m
from vhost.messages import Request

RAM = 0x1000_0000
END = RAM + (8 << 20)
RX, TX = 0, 1
SIZE = 8192


def table(*regions: tuple[int, int, int, int]) -> bytes:
    """Regions as (guest address, bytes, user address, offset)."""
    payload = m.MEMORY_HEADER.pack(len(regions), 0)
    return payload + b"".join(m.MEMORY_REGION.pack(*region) for region in regions)


def small_file() -> int:
    fd = os.memfd_create("small")
    os.ftruncate(fd, SIZE)
    return fd


# ---- regions


IMPOSSIBLE = {
    "nothing": (0, 0, 0, 0),
    "more than the file": (0, SIZE + 1, 0, 0),
    "behind the file": (0, 4096, 0, SIZE),
    "guest address wraps": (2**64 - 4096, SIZE, 0, 0),
    "user address wraps": (0, SIZE, 2**64 - 4096, 0),
    "offset wraps": (0, SIZE, 0, 2**64 - 4096),
    "half of everything": (0, 2**63, 0, 0),
    "everything": (0, 2**64 - 1, 0, 1),
    "offset and size make 2^63": (0, SIZE, 0, 2**63 - 4096),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_cve_2018_1059_regions_that_cannot_be(case: str) -> None:
    with Neighbourhood(None) as block:
        front = block.offender
        front.negotiate()
        fd = small_file()
        assert front.tell(Request.SET_MEM_TABLE, table(IMPOSSIBLE[case]), [fd]) != 0
        assert front.tell(Request.SET_MEM_TABLE, table((0, SIZE, 0, 0)), [fd]) == 0
        os.close(fd)
        front.boot()
        block.works()


@pytest.mark.parametrize(
    "second",
    [(4096, SIZE, 0x100000, 0), (0x10000, SIZE, 4096, 0), (0, SIZE, 0, 0), (SIZE - 1, 1, SIZE, 0)],
    ids=str,
)
def test_regions_that_overlap(second: tuple[int, int, int, int]) -> None:
    with Neighbourhood(None) as block:
        block.offender.negotiate()
        fd = block.offender.ram.regions[0].fd
        payload = table((0, SIZE, 0, 0), second)
        assert block.offender.tell(Request.SET_MEM_TABLE, payload, [fd, fd]) != 0


def opened(kind: str, front: FrontEnd, tmp_path: Path) -> list[int]:
    """Descriptors of what is no memory; the first one is meant."""
    if kind == "pipe":
        return list(os.pipe())
    if kind == "directory":
        return [os.open(tmp_path, os.O_RDONLY)]
    if kind == "eventfd":
        return [os.eventfd(0)]
    if kind == "socket":
        assert front.sock is not None
        return [os.dup(front.sock.fileno())]
    if kind == "read-only":
        (tmp_path / "file").write_bytes(bytes(SIZE))
        return [os.open(tmp_path / "file", os.O_RDONLY)]
    if kind == "path":
        (tmp_path / "file").write_bytes(bytes(SIZE))
        return [os.open(tmp_path / "file", os.O_PATH)]
    if kind == "empty":
        return [os.memfd_create("empty")]
    return [os.open(kind, os.O_RDWR)]


KINDS = ["pipe", "/dev/zero", "/dev/null", "directory", "socket", "eventfd"]
KINDS += ["read-only", "path", "empty"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_memory_file(kind: str, tmp_path: Path) -> None:
    with Neighbourhood() as block:
        fds = opened(kind, block.offender, tmp_path)
        message = table((0, 4096, 0, 0))
        assert block.offender.tell(Request.SET_MEM_TABLE, message, fds[:1]) != 0
        block.works()
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("which", ["desc", "avail", "used"])
@pytest.mark.parametrize("problem", ["unmapped", "over the end", "misaligned", "wraps"])
def test_cve_2018_1059_rings_that_are_not_in_memory(which: str, problem: str) -> None:
    with Neighbourhood(None) as block:
        front = block.offender
        front.negotiate()
        front.share_memory()
        ring = front.rings[TX] = Ring(front.ram, 256)
        wrong = {"unmapped": 0x1234_0000, "over the end": front.ram.user(END - 64)}
        wrong["wraps"] = 2**64 - 16
        users = {name: front.ram.user(getattr(ring, name)) for name in ("desc", "avail", "used")}
        users[which] = wrong.get(problem, users[which] + 1)
        front.send(Request.SET_VRING_NUM, m.VRING_STATE.pack(TX, 256))
        addresses = m.VRING_ADDR.pack(TX, 0, users["desc"], users["used"], users["avail"], 0)
        assert front.tell(Request.SET_VRING_ADDR, addresses) == 0
        assert front.tell(Request.SET_VRING_KICK, m.U64.pack(TX), [ring.kick]) != 0
        front.start_ring(TX)
        front.start_ring(RX)
        front.settle()
        block.works()


# ---- memory that goes away


@pytest.mark.parametrize("left", [0, 4096, 1 << 20])
def test_a_file_that_shrinks_under_its_rings(left: int) -> None:
    """[SIGBUS]: the owner loses the connection, nobody else anything."""
    with Neighbourhood() as block:
        a = block.offender
        block.works()
        os.ftruncate(a.ram.regions[0].fd, left)
        if left >= 1 << 20:  # the rings are still there: only a buffer is not
            a.rings[TX].add([(RAM + (4 << 20), 100, False)])
            os.eventfd_write(a.rings[TX].kick, 1)
        block.turns(3)
        block.expect_gone("memory")
        block.come_back().boot()
        block.works()


def test_a_file_that_shrinks_while_it_is_written_to() -> None:
    """[SIGBUS]: the sender gets its buffers back and goes on."""
    with Neighbourhood() as block:
        a, b = block.partner, block.offender
        gpa = b.ram.alloc(4096, 4096)
        b.rings[RX].add([(gpa, 2048, True)])
        os.ftruncate(b.ram.regions[0].fd, gpa - RAM)
        for length in (1000, 1001):
            a.transmit(mac(A) + mac(B) + frame(length)[12:])
        block.expect_gone("memory")
        block.turns(3)
        assert len(a.rings[TX].reap()) == 2


def test_a_file_that_shrinks_and_grows_again() -> None:
    """What was lost stays lost until the next connection: zeros are mapped in its place."""
    with Neighbourhood() as block:
        fd = block.offender.ram.regions[0].fd
        os.ftruncate(fd, 0)
        block.breathe()
        os.ftruncate(fd, 8 << 20)
        block.expect_gone("memory")


# ---- tables that change under traffic


def test_a_memory_table_set_again_and_again_while_rings_are_polled() -> None:
    with Neighbourhood() as block:
        before = usage()
        for _ in range(200):
            block.offender.share_memory()
            block.turn()
        block.offender.settle()
        assert usage() == before
        block.works()


def test_a_memory_table_without_the_rings_stops_them() -> None:
    with Neighbourhood() as block:
        fd = small_file()
        assert block.offender.tell(Request.SET_MEM_TABLE, table((0, SIZE, 0, 0)), [fd]) == 0
        os.close(fd)
        block.turns(3)
        queues = block.ports[OFFENDER].status()["queues"]
        assert isinstance(queues, list)
        assert [q["started"] for q in queues] == [False, False]
        assert {q["reason"] for q in queues} == {"its memory was removed"}
        block.offender.share_memory()  # they are back, and go on
        block.offender.settle()
        block.works()


def slot(number: int) -> tuple[bytes, int]:
    """A small region of its own, as the payload of ADD_MEM_REG and REM_MEM_REG; and its file."""
    gpa, user = 0x8000_0000 + number * SIZE, 0x6000_0000_0000 + number * SIZE
    return bytes(8) + m.MEMORY_REGION.pack(gpa, SIZE, user, 0), small_file()


def test_regions_that_come_and_go_while_rings_are_polled() -> None:
    """ADD_MEM_REG and REM_MEM_REG, up to 509, a frame between any two of them."""
    with Neighbourhood() as block:
        before = usage()
        for _ in range(2):
            slots = [slot(number) for number in range(508)]
            for payload, fd in slots:
                block.offender.send(Request.ADD_MEM_REG, payload, [fd])
                os.close(fd)
                block.pump()
            one_more, fd = slot(508)
            assert block.offender.tell(Request.ADD_MEM_REG, one_more, [fd]) != 0
            os.close(fd)
            block.works()
            for payload, _ in slots:
                block.offender.send(Request.REM_MEM_REG, payload)
                block.pump()
            block.offender.settle()
        assert usage() == before
        block.works()


@pytest.mark.parametrize("change", ["guest address", "size", "user address"])
def test_regions_to_remove_that_are_not_there(change: str) -> None:
    with Neighbourhood() as block:
        region = [RAM, 8 << 20, block.offender.ram.user(RAM), 0]
        region[["guest address", "size", "user address"].index(change)] += 4096
        payload = bytes(8) + m.MEMORY_REGION.pack(*region)
        assert block.offender.tell(Request.REM_MEM_REG, payload) != 0
        block.works()


def test_a_region_removed_under_its_rings_while_they_are_polled() -> None:
    """They stop and say why; with the memory back they go on."""
    with Neighbourhood() as block:
        a = block.offender
        region = a.ram.regions[0]
        payload = bytes(8) + m.MEMORY_REGION.pack(region.gpa, region.size, region.user, 0)
        before = usage()
        for _ in range(50):
            a.transmit(frame(64))
            os.eventfd_write(a.rings[TX].kick, 1)
            assert a.tell(Request.REM_MEM_REG, payload, [region.fd]) == 0
            queues = block.ports[OFFENDER].status()["queues"]
            assert isinstance(queues, list)
            assert {q["reason"] for q in queues} == {"its memory was removed"}
            assert a.tell(Request.ADD_MEM_REG, payload, [region.fd]) == 0
        assert usage() == before
        block.turns(150)  # the partner has no room for what came: it is waited for, once
        block.works()


def test_memory_and_rings_of_two_connections_do_not_meet() -> None:
    """Two guests with the same file as memory: each breaks its own rings only."""
    with Neighbourhood() as block:
        a, b = block.offender, block.partner
        ours = table((RAM, 8 << 20, b.ram.user(RAM), 0))
        assert a.tell(Request.SET_MEM_TABLE, ours, [b.ram.regions[0].fd]) == 0
        block.turns(3)
        block.may_break(RX)
        block.may_break(TX)
        assert block.ring_state(PARTNER, RX) == block.ring_state(PARTNER, TX) == "ok"
