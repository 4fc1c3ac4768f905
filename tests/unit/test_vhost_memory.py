"""Guest memory that comes and goes under traffic, with real mappings; and device state through real
pipes and sockets."""

import mmap
import os
import socket
from pathlib import Path

import pytest

from tests.fakes.frontend import MERGEABLE, FrontEnd
from tests.fakes.ram import Ram
from tests.fakes.vhostbox import VhostBox, frame, mac, pair
from vhost import messages as m
from vhost.messages import ProtocolFeature, Request

SIZE = 64 * 1024
FAR = 0x9000_0000


def memfd(size: int = SIZE) -> int:
    fd = os.memfd_create("ram-slot")
    os.ftruncate(fd, size)
    return fd


def slot(gpa: int, size: int = SIZE, offset: int = 0) -> bytes:
    return m.MEMORY_SLOT.pack(0, gpa, size, gpa, offset)


def add(front: FrontEnd, gpa: int, fd: int, size: int = SIZE) -> int:
    return front.tell(Request.ADD_MEM_REG, slot(gpa, size), [fd])


def maps() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:ram-slot")


def test_slots_up_to_509_under_traffic_lose_nothing() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        fd, published = memfd(), box.publications
        before = maps()
        sent, got = [], []
        for number in range(508):
            b.post(1)
            sent.append(frame(64 + number % 900, number))
            a.transmit(sent[-1])
            assert add(a, FAR + number * SIZE, fd) == 0
            if number % 16 == 0:
                box.settle()
                got += b.frames()
                a.rings[1].reap()
        assert add(a, FAR - SIZE, fd) != 0, "509 and the first"
        box.settle()
        assert got + b.frames() == sent
        assert maps() == before + 508
        for number in range(508):
            assert a.tell(Request.REM_MEM_REG, slot(FAR + number * SIZE)) == 0
        assert maps() == before
        assert box.publications == published, "no ring noticed"
        os.close(fd)


@pytest.mark.parametrize("number", [0, 1, 254, 507])
def test_buffers_lie_in_any_slot(number: int) -> None:
    with VhostBox() as box:
        a, b = pair(box)
        fds = [memfd(4096) for _ in range(508)]
        for i, fd in enumerate(fds):
            assert add(a, FAR + i * 8192, fd, 4096) == 0
        gpa = FAR + number * 8192
        with mmap.mmap(fds[number], 4096) as window:
            window[:76] = bytes(12) + frame(64)
            b.post(1)
            a.rings[1].add([(gpa, 76, False)])
            box.settle()
            assert b.frames() == [frame(64)]
            a.rings[1].add([(gpa + 4090, 76, False)])  # over its end into the hole
            box.settle()
        assert box.ring_state(0, 1) == "address"
        for fd in fds:
            os.close(fd)


def test_buffers_in_memory_that_went_break_the_ring() -> None:
    with VhostBox() as box:
        a, _ = pair(box)
        fd = memfd()
        assert add(a, FAR, fd) == 0
        assert a.tell(Request.REM_MEM_REG, slot(FAR)) == 0
        a.rings[1].add([(FAR, 100, False)])
        box.settle()
        assert box.ring_state(0, 1) == "address"
        os.close(fd)


def test_a_slot_that_holds_running_rings_takes_them_along_and_brings_them_back() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        region = a.ram.regions[0]
        payload = m.MEMORY_SLOT.pack(0, region.gpa, region.size, region.user, 0)
        assert a.tell(Request.REM_MEM_REG, payload) == 0
        queues = box.ports[0].status()["queues"]
        assert isinstance(queues, list)
        assert [(q["started"], q["reason"]) for q in queues] == 2 * [
            (False, "its memory was removed")
        ]
        assert a.tell(Request.ADD_MEM_REG, payload, [region.fd]) == 0
        b.post(1)
        a.transmit(frame(64))
        box.settle()
        assert b.frames() == [frame(64)]


def test_the_same_table_again_moves_nothing() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        published = box.publications
        for _ in range(3):
            a.share_memory()
        a.settle()
        assert box.publications == published
        b.post(1)
        a.transmit(frame(64))
        box.settle()
        assert b.frames() == [frame(64)]


def test_other_memory_at_the_same_place_is_other_memory() -> None:
    with VhostBox() as box:
        a, b = pair(box)
        ring = b.rings[0]
        old, new = b.ram, Ram([(0x1000_0000, 8 << 20)])
        new.regions[0].map[:] = old.regions[0].map[:]
        for each in b.rings.values():
            each.ram = new
        b.ram = new
        new._free = old._free
        b.share_memory()
        b.settle()
        assert ring is b.rings[0]
        b.post(1)
        a.transmit(frame(64))
        box.settle()
        assert b.frames() == [frame(64)]
        old.close()


@pytest.mark.parametrize("size", [0, 2**64 - 1, SIZE + 1], ids=str)
def test_slots_that_cannot_be(size: int) -> None:
    with VhostBox() as box:
        a, _ = pair(box)
        fd = memfd()
        assert add(a, FAR, fd, size) != 0
        assert add(a, FAR, fd) == 0
        other = memfd()
        assert add(a, FAR, other) != 0, "other memory at the same place"
        assert add(a, FAR + SIZE - 1, fd) != 0, "overlaps"
        os.close(fd)
        os.close(other)


def test_files_that_are_no_memory(tmp_path: Path) -> None:
    """A file system may be the front-end's own, and answer when it likes."""
    with VhostBox() as box:
        a, _ = pair(box)
        proc = os.open("/proc/self/status", os.O_RDONLY)
        assert add(a, FAR, proc) != 0
        assert "memory file" in str(box.ports[0].status()["last_step"])
        os.close(proc)


# ---- announcing


def test_rarp_moves_the_address_and_reaches_everyone() -> None:
    with VhostBox(3) as box:
        a, b = pair(box)
        c = box.front(2)
        c.boot()
        for front in (a, b, c):
            front.post(4)
        moved = mac("52:54:00:00:00:01")
        c.transmit(b"\xff" * 6 + moved + b"\x88\xb5" + bytes(46))
        box.settle()
        assert len(a.frames()) == len(b.frames()) == 1
        for _ in range(20):
            assert b.tell(Request.SEND_RARP, m.U64.pack(int.from_bytes(moved, "little"))) == 0
            box.settle()
        (first, *_) = a.frames()
        assert first[:22] == b"\xff" * 6 + moved + bytes.fromhex("80350001080006040003")
        assert first[22:42] == (moved + bytes(4)) * 2
        assert len(first) == 60
        assert len(c.frames()) == 4, "as many as it has buffers for"
        b.frames()
        a.transmit(moved + mac("02:00:00:00:00:0a") + b"\x88\xb5" + bytes(46))
        b.post(1)
        c.post(1)
        box.settle()
        assert len(b.frames()) == 1, "what is for the address goes there now"
        assert c.frames() == []


def test_announcements_wait_for_a_worker_up_to_a_bound() -> None:
    with VhostBox() as box:
        a, _ = pair(box)
        answers = [a.tell(Request.SEND_RARP, m.U64.pack(2 + i * 256)) for i in range(40)]
        assert answers.count(0) in (16, 17, 18)  # the first one is listed with a breath
        box.settle()
        assert a.tell(Request.SEND_RARP, m.U64.pack(2)) == 0


# ---- device state


def stopped(box: VhostBox) -> FrontEnd:
    front = box.front(0)
    front.boot(MERGEABLE)
    front.protocol_features = int(m.OFFERED_PROTOCOL_FEATURES)
    front.send(Request.SET_PROTOCOL_FEATURES, m.U64.pack(front.protocol_features))
    for index in (0, 1):
        front.stop_ring(index)
    return front


def ask(front: FrontEnd, request: int, payload: bytes = b"", fds: tuple[int, ...] = ()) -> int:
    return int(m.U64.unpack(front.ask(request, payload, fds))[0])


def stream(kind: str) -> tuple[int, int]:
    """Ends to read from and to write to."""
    if kind == "pipe":
        return os.pipe()
    a, b = socket.socketpair()
    return a.detach(), b.detach()


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_state_goes_through_pipes_and_sockets(kind: str) -> None:
    with VhostBox(1) as box:
        front = stopped(box)
        before = len(os.listdir("/proc/self/fd"))
        r, w = stream(kind)
        assert ask(front, Request.SET_DEVICE_STATE_FD, m.DEVICE_STATE_FD.pack(0, 0), (w,)) == 0x100
        os.close(w)
        data = os.read(r, 65536)
        assert data[:4] == b"vswN"
        assert os.read(r, 1) == b"", "the end"
        os.close(r)
        assert ask(front, Request.CHECK_DEVICE_STATE) == 0
        r, w = stream(kind)
        assert ask(front, Request.SET_DEVICE_STATE_FD, m.DEVICE_STATE_FD.pack(1, 0), (r,)) == 0x100
        os.close(r)
        os.write(w, data[:5])
        for _ in range(3):
            box.pump()
        os.write(w, data[5:])
        os.close(w)
        assert ask(front, Request.CHECK_DEVICE_STATE) == 0
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_pipe_that_blocks_holds_nobody_up() -> None:
    with VhostBox(1) as box:
        front = stopped(box)
        r, w = os.pipe()
        os.set_blocking(w, False)
        while True:
            try:
                os.write(w, bytes(65536))
            except BlockingIOError:
                break
        os.set_blocking(w, True)
        save, load = m.DEVICE_STATE_FD.pack(0, 0), m.DEVICE_STATE_FD.pack(1, 0)
        assert ask(front, Request.SET_DEVICE_STATE_FD, save, (w,)) == 0x101
        assert "cannot write" in str(box.ports[0].status()["last_step"])
        assert ask(front, Request.SET_DEVICE_STATE_FD, load, (r,)) == 0x100
        assert ask(front, Request.CHECK_DEVICE_STATE) == 1, "64 KiB are too much"
        empty, end = os.pipe()
        assert ask(front, Request.SET_DEVICE_STATE_FD, load, (empty,)) == 0x100
        assert ask(front, Request.CHECK_DEVICE_STATE) == 1, "no end yet"
        assert ask(front, Request.SET_DEVICE_STATE_FD, load, (empty,)) == 0x100
        assert ask(front, Request.SET_DEVICE_STATE_FD, load, (empty,)) == 0x100, "twice"
        for fd in (r, w, empty, end):
            os.close(fd)


def test_state_through_something_else() -> None:
    with VhostBox(1) as box:
        front = stopped(box)
        fd = memfd()
        save = m.DEVICE_STATE_FD.pack(0, 0)
        assert ask(front, Request.SET_DEVICE_STATE_FD, save, (fd,)) == 0x101
        assert "neither a pipe nor a UNIX socket" in str(box.ports[0].status()["last_step"])
        os.close(fd)


def test_status_names_the_protocol_features() -> None:
    with VhostBox(1) as box:
        stopped(box)
        names = box.ports[0].status()["protocol_features"]
        assert names == m.feature_names(int(m.OFFERED_PROTOCOL_FEATURES), ProtocolFeature)
