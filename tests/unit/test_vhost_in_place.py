"""Rings that restart in place, while frames for them are on their way: nothing is lost."""

import os
from collections.abc import Callable

import pytest

from tests.fakes.frontend import MERGEABLE, FrontEnd
from tests.fakes.vhostbox import VhostBox, frame, pair
from vhost import messages as m
from vhost.messages import Feature, ProtocolFeature, Request

LOG_BYTES = 1 << 16
KINDS = {
    "split": MERGEABLE,
    "split_in_order": MERGEABLE | Feature.IN_ORDER,
    "packed": MERGEABLE | Feature.RING_PACKED,
    "packed_in_order": MERGEABLE | Feature.RING_PACKED | Feature.IN_ORDER,
}


def another_kick(front: FrontEnd) -> None:
    for index in (0, 1):
        front.send(Request.SET_VRING_KICK, m.U64.pack(index), [front.ring(index).kick])


def logged_rings(front: FrontEnd) -> None:
    for index in (0, 1):
        ring = front.ring(index)
        users = [front.ram.user(gpa) for gpa in (ring.desc, ring.used, ring.avail)]
        addresses = m.VRING_ADDR.pack(index, m.VRING_F_LOG, *users, ring.used)
        front.send(Request.SET_VRING_ADDR, addresses)


def another_feature(front: FrontEnd) -> None:
    front.send(Request.SET_FEATURES, m.U64.pack(front.features | Feature.LOG_ALL))


def another_log(front: FrontEnd) -> None:
    front.protocol_features |= ProtocolFeature.LOG_SHMFD
    front.send(Request.SET_PROTOCOL_FEATURES, m.U64.pack(front.protocol_features))
    fd = os.memfd_create("log")
    os.ftruncate(fd, LOG_BYTES)
    front.ask(Request.SET_LOG_BASE, m.U64.pack(LOG_BYTES) + m.U64.pack(0), [fd])
    os.close(fd)


def memory_elsewhere(front: FrontEnd) -> None:
    """The same bytes in another mapping, as after a memory table that came anew."""
    regions = front.ram.regions
    payload = m.MEMORY_HEADER.pack(len(regions), 0)
    for r in regions:
        payload += m.MEMORY_REGION.pack(r.gpa, r.size // 2, r.user, r.offset)
    front.send(Request.SET_MEM_TABLE, payload, [r.fd for r in regions])


REASONS: dict[str, Callable[[FrontEnd], None]] = {
    "kick": another_kick,
    "addresses": logged_rings,
    "features": another_feature,
    "log": another_log,
    "memory": memory_elsewhere,
}


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("kind", KINDS)
def test_frames_wait_for_a_ring_that_restarts(kind: str, reason: str) -> None:
    with VhostBox() as box:
        a, b = pair(box, MERGEABLE, KINDS[kind])
        b.post(4)
        a.transmit(frame(64, 1))
        box.settle()
        before = box.publications
        a.transmit(frame(64, 2))  # workers see it while the ring is away
        REASONS[reason](b)
        b.settle()
        assert box.publications >= before + 2
        a.transmit(frame(64, 3))
        box.settle()
        assert b.frames() == [frame(64, 1), frame(64, 2), frame(64, 3)]
        assert len(a.ring(1).reap()) == 3
        assert box.drops(0) == box.drops(1) == {}
