"""The log of written pages: every page that changed is in it, whatever kind of ring wrote it."""

import os

import pytest

from tests.fakes.frontend import BASIC, MERGEABLE, FrontEnd
from tests.fakes.ram import Ram
from tests.fakes.vhostbox import VhostBox, frame, pair
from vhost import messages as m
from vhost.core import DirtyLog
from vhost.device import CoreDevice
from vhost.errors import CoreError, RefusedError
from vhost.messages import Feature, Request

PAGE = 4096
FIRST = 0x1000_0000
LOG_BYTES = (FIRST + (8 << 20)) // PAGE // 8
KINDS = {
    "split": Feature(0),
    "split_in_order": Feature.IN_ORDER,
    "packed": Feature.RING_PACKED,
    "packed_in_order": Feature.RING_PACKED | Feature.IN_ORDER,
    "events": Feature.EVENT_IDX,
    "packed_events": Feature.RING_PACKED | Feature.EVENT_IDX,
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def device_of(box: VhostBox, number: int) -> CoreDevice:
    return box.ports[number]._device


def log_rings(front: FrontEnd) -> None:
    """Tell where the used rings are, for the log."""
    for index in (0, 1):
        ring = front.ring(index)
        users = [front.ram.user(gpa) for gpa in (ring.desc, ring.used, ring.avail)]
        payload = m.VRING_ADDR.pack(index, m.VRING_F_LOG, *users, ring.used)
        front.send(Request.SET_VRING_ADDR, payload)
    front.settle()


def pages(ram: Ram) -> list[bytes]:
    region = ram.regions[0]
    return [region.map[at : at + PAGE] for at in range(0, len(region.map), PAGE)]


def differing(before: list[bytes], after: list[bytes]) -> set[int]:
    return {i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}


def marked(fd: int) -> set[int]:
    """Pages of the first region."""
    bits = os.pread(fd, LOG_BYTES, 0)
    pages = range(FIRST // PAGE, LOG_BYTES * 8)
    return {page - FIRST // PAGE for page in pages if bits[page // 8] >> page % 8 & 1}


@pytest.fixture
def log_fd() -> int:
    fd = os.memfd_create("log")
    os.ftruncate(fd, LOG_BYTES)
    return fd


@pytest.mark.parametrize("mergeable", [True, False], ids=["mergeable", "single"])
@each_kind
def test_every_page_that_changes_is_in_the_log(kind: str, mergeable: bool, log_fd: int) -> None:
    features = (MERGEABLE if mergeable else BASIC) | KINDS[kind] | Feature.LOG_ALL
    with VhostBox() as box:
        a, b = pair(box, features, features)
        device_of(box, 1).set_log(log_fd, LOG_BYTES)
        log_rings(b)
        b.post(60, 1700)
        b.post(20, 6000, pieces=3)
        before = pages(b.ram)
        for seed in range(40):
            a.transmit(frame(200 + 30 * seed, seed))
        box.settle()
        for _ in range(5):
            box.breathe(10_000_000)  # until its rings ask for kicks
        changed = differing(before, pages(b.ram))
        assert len(b.frames()) == 40
        assert len(changed) > 10
        assert changed <= marked(log_fd)
        assert len(marked(log_fd) - changed) <= 4, "not more than was written"
        assert device_of(box, 1).log_beyond == 0
    os.close(log_fd)


@each_kind
def test_what_a_guest_sends_is_marked_in_its_ring_alone(kind: str, log_fd: int) -> None:
    features = MERGEABLE | KINDS[kind] | Feature.LOG_ALL
    with VhostBox() as box:
        a, b = pair(box, features, MERGEABLE)
        device_of(box, 0).set_log(log_fd, LOG_BYTES)
        log_rings(a)
        b.post(60, 1700)
        for seed in range(40):
            a.transmit(frame(1000, seed), pieces=[12])
        before = pages(a.ram)
        box.settle()
        assert len(b.frames()) == 40
        changed = differing(before, pages(a.ram))
        assert changed
        assert changed <= marked(log_fd)
        assert len(marked(log_fd)) <= 4
    os.close(log_fd)


def test_without_log_all_nothing_is_marked(log_fd: int) -> None:
    with VhostBox() as box:
        a, b = pair(box)
        device_of(box, 1).set_log(log_fd, LOG_BYTES)
        log_rings(b)
        b.post(4)
        a.transmit(frame(64))
        box.settle()
        assert b.frames() == [frame(64)]
        assert marked(log_fd) == set()
    os.close(log_fd)


@each_kind
def test_a_log_that_comes_and_goes_under_traffic_loses_nothing(kind: str, log_fd: int) -> None:
    features = MERGEABLE | KINDS[kind] | Feature.LOG_ALL
    with VhostBox() as box:
        a, b = pair(box, features, features)
        b.post(100, 300)
        for seed in range(30):
            a.transmit(frame(64, seed))
            device_of(box, 1).set_log(*((log_fd, LOG_BYTES, 0) if seed % 2 else (-1, 0, 0)))
            box.settle()
            assert b.frames() == [frame(64, seed)]
        assert len(a.ring(1).reap()) == 30
    os.close(log_fd)


def test_pages_beyond_the_log_are_counted_and_nothing_is_written_there(log_fd: int) -> None:
    """The log is too short for the guest's memory by all of it."""
    short = 64
    with VhostBox() as box:
        a, b = pair(box, MERGEABLE, MERGEABLE | Feature.LOG_ALL)
        device_of(box, 1).set_log(log_fd, short, 0)
        b.post(2)
        a.transmit(frame(64))
        box.settle()
        assert b.frames() == [frame(64)]
        assert device_of(box, 1).log_beyond == 1
        assert os.pread(log_fd, LOG_BYTES, 0) == bytes(LOG_BYTES)
    os.close(log_fd)


def test_descriptors_of_no_bytes_do_not_matter_to_the_log(log_fd: int) -> None:
    """CVE-2019-14835: they made the kernel's log overflow."""
    features = MERGEABLE | Feature.LOG_ALL
    with VhostBox() as box:
        a, b = pair(box, features, features)
        device_of(box, 1).set_log(log_fd, LOG_BYTES)
        gpa = b.ram.alloc(PAGE)
        b.rings[0].add([(gpa, 0, True)] * 100 + [(gpa, 100, True)])
        a.transmit(frame(64))
        box.settle()
        assert b.frames() == [frame(64)]
        assert len(marked(log_fd)) == 1
    os.close(log_fd)


@pytest.mark.parametrize(
    ("size", "offset"),
    [
        (0, 0),
        (2**64 - 1, 0),
        (2**63, 2**63),
        (LOG_BYTES, 2**64 - LOG_BYTES),
        (LOG_BYTES, 1),
        (LOG_BYTES + 1, 0),
    ],
)
def test_sums_that_overflow_or_exceed_the_file(size: int, offset: int, log_fd: int) -> None:
    """CVE-2020-10722."""
    with VhostBox(1) as box:
        box.front(0).boot()
        with pytest.raises(RefusedError):
            device_of(box, 0).set_log(log_fd, size, offset)
        with pytest.raises(CoreError):
            DirtyLog(device_of(box, 0)._port, log_fd, size, offset)
    os.close(log_fd)
